//! A route table with its associations. It holds no route of its own: gateway endpoints add theirs, and there is no way to
//! the internet. Found by its `understudy:resource` tag.

use std::collections::BTreeMap;

use aws_sdk_ec2::types::ResourceType;
use serde::{Deserialize, Serialize};

use super::ec2::{key_of, ours, rename, stack_filter, tag, tag_specification};
use crate::error::{KindError, absent};
use crate::kind::{Found, Kind, Live, Site};

/// The kind.
#[derive(Debug)]
pub struct RouteTable;

/// What we want.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Spec {
    /// Its `Name` tag.
    pub name: String,
    /// The VPC.
    pub vpc_id: String,
    /// The subnets that use it, sorted.
    pub subnet_ids: Vec<String>,
}

impl Spec {
    /// A table for these subnets.
    pub fn new(name: String, vpc_id: String, mut subnet_ids: Vec<String>) -> Self {
        subnet_ids.sort();
        Spec {
            name,
            vpc_id,
            subnet_ids,
        }
    }
}

/// What others refer to.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Outputs {
    /// `rtb-...`
    pub route_table_id: String,
    /// The association of each subnet.
    pub associations: BTreeMap<String, String>,
}

impl Kind for RouteTable {
    const NAME: &'static str = "route-table";
    const IMMUTABLE: &'static [&'static str] = &["vpc_id"];

    type Spec = Spec;
    type Outputs = Outputs;

    async fn observe(site: &Site<'_>, _spec: &Spec) -> Result<Option<Live<Spec, Outputs>>, KindError> {
        let answer = site
            .cloud
            .ec2(site.region)
            .describe_route_tables()
            .set_filters(Some(ours(site)))
            .send()
            .await
            .map_err(|e| site.fail("DescribeRouteTables", site.key, e))?;
        let Some(table) = answer.route_tables().first() else {
            return Ok(None);
        };
        let associations: BTreeMap<String, String> = table
            .associations()
            .iter()
            .filter_map(|a| {
                Some((
                    a.subnet_id()?.to_owned(),
                    a.route_table_association_id()?.to_owned(),
                ))
            })
            .collect();
        Ok(Some(Live {
            spec: Spec {
                name: tag(table.tags(), "Name"),
                vpc_id: table.vpc_id().unwrap_or_default().to_owned(),
                subnet_ids: associations.keys().cloned().collect(),
            },
            outputs: Outputs {
                route_table_id: table.route_table_id().unwrap_or_default().to_owned(),
                associations,
            },
            settling: None,
        }))
    }

    async fn create(site: &Site<'_>, spec: &Spec) -> Result<(), KindError> {
        let ec2 = site.cloud.ec2(site.region);
        let made = ec2
            .create_route_table()
            .vpc_id(&spec.vpc_id)
            .tag_specifications(tag_specification(site, ResourceType::RouteTable, &spec.name))
            .send()
            .await
            .map_err(|e| site.fail("CreateRouteTable", &spec.name, e))?;
        let id = made
            .route_table()
            .and_then(|table| table.route_table_id())
            .unwrap_or_default();
        associate(site, id, &spec.subnet_ids).await
    }

    async fn update(site: &Site<'_>, spec: &Spec, live: &Live<Spec, Outputs>) -> Result<(), KindError> {
        let id = &live.outputs.route_table_id;
        rename(site, id, &spec.name, &live.spec.name).await?;
        let gone = live
            .outputs
            .associations
            .iter()
            .filter(|(subnet, _)| !spec.subnet_ids.contains(subnet));
        disassociate(site, gone.map(|(_, association)| association)).await?;
        let known = &live.outputs.associations;
        let new: Vec<String> = spec
            .subnet_ids
            .iter()
            .filter(|id| !known.contains_key(*id))
            .cloned()
            .collect();
        associate(site, id, &new).await
    }

    async fn delete(site: &Site<'_>, live: &Live<Spec, Outputs>) -> Result<(), KindError> {
        disassociate(site, live.outputs.associations.values()).await?;
        let id = &live.outputs.route_table_id;
        let result = site
            .cloud
            .ec2(site.region)
            .delete_route_table()
            .route_table_id(id)
            .send()
            .await;
        absent(result, &["InvalidRouteTableID.NotFound"])
            .map_err(|e| site.fail("DeleteRouteTable", id, e))?;
        Ok(())
    }

    async fn list(site: &Site<'_>) -> Result<Vec<Found>, KindError> {
        let request = site
            .cloud
            .ec2(site.region)
            .describe_route_tables()
            .filters(stack_filter(site));
        let mut items = request.into_paginator().items().send();
        let mut found = Vec::new();
        while let Some(table) = items.next().await {
            let table = table.map_err(|e| site.fail("DescribeRouteTables", site.suffix, e))?;
            found.push(
                site.found::<RouteTable>(table.route_table_id().unwrap_or_default(), key_of(table.tags())),
            );
        }
        Ok(found)
    }
}

async fn associate(site: &Site<'_>, table: &str, subnets: &[String]) -> Result<(), KindError> {
    for subnet in subnets {
        site.cloud
            .ec2(site.region)
            .associate_route_table()
            .route_table_id(table)
            .subnet_id(subnet)
            .send()
            .await
            .map_err(|e| site.fail("AssociateRouteTable", subnet, e))?;
    }
    Ok(())
}

async fn disassociate(site: &Site<'_>, associations: impl Iterator<Item = &String>) -> Result<(), KindError> {
    for association in associations {
        let result = site
            .cloud
            .ec2(site.region)
            .disassociate_route_table()
            .association_id(association)
            .send()
            .await;
        absent(result, &["InvalidAssociationID.NotFound"])
            .map_err(|e| site.fail("DisassociateRouteTable", association, e))?;
    }
    Ok(())
}
