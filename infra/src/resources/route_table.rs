//! A route table with its associations. It holds no route of its own: gateway endpoints add theirs, and there is no way to
//! the internet; a route that somebody adds is a difference and goes. Found by its `understudy:resource` tag.

use std::collections::BTreeMap;

use aws_sdk_ec2::types::{
    Filter, ResourceType, Route, RouteOrigin, RouteTable as Described, RouteTableAssociation,
};
use serde::{Deserialize, Serialize};

use super::ec2::{find, key_of, put_tags, stack_filter, tag, tag_specification, tagged};
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
    /// Where its own routes lead: nowhere; but somebody may have added some.
    pub routes: Vec<String>,
    /// It carries our tags.
    pub tagged: bool,
}

impl Spec {
    /// A table for these subnets.
    pub fn new(name: String, vpc_id: String, mut subnet_ids: Vec<String>) -> Self {
        subnet_ids.sort();
        Spec {
            name,
            vpc_id,
            subnet_ids,
            routes: Vec::new(),
            tagged: true,
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
    const ARNS: &'static [&'static str] = &["ec2:route-table/"];

    type Spec = Spec;
    type Outputs = Outputs;

    async fn observe(site: &Site<'_>, spec: &Spec) -> Result<Option<Live<Spec, Outputs>>, KindError> {
        let describe = |filters| describe(site, filters);
        let Some(table) = find(site, &spec.name, describe, Described::tags).await? else {
            return Ok(None);
        };
        let associations = associations(&table);
        Ok(Some(Live {
            spec: Spec {
                name: tag(table.tags(), "Name"),
                vpc_id: table.vpc_id().unwrap_or_default().to_owned(),
                subnet_ids: associations.keys().cloned().collect(),
                routes: routes(&table),
                tagged: tagged(site, table.tags()),
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
        if !live.spec.tagged || spec.name != live.spec.name {
            put_tags(site, id, &spec.name).await?;
        }
        for destination in live.spec.routes.iter().filter(|to| !spec.routes.contains(to)) {
            delete_route(site, id, destination).await?;
        }
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
        Self::discard(site, &live.outputs.route_table_id).await
    }

    /// A table that subnets use is not deleted: it leaves them first.
    async fn discard(site: &Site<'_>, id: &str) -> Result<(), KindError> {
        let by_id = Filter::builder().name("route-table-id").values(id).build();
        for table in describe(site, vec![by_id]).await? {
            disassociate(site, associations(&table).values()).await?;
        }
        let request = site.cloud.ec2(site.region).delete_route_table();
        let result = request.route_table_id(id).send().await;
        absent(result, &["InvalidRouteTableID.NotFound"])
            .map_err(|e| site.fail("DeleteRouteTable", id, e))?;
        Ok(())
    }

    async fn list(site: &Site<'_>) -> Result<Vec<Found>, KindError> {
        let request = site.cloud.ec2(site.region).describe_route_tables();
        let pages = request.filters(stack_filter(site)).into_paginator().items();
        let tables: Result<Vec<_>, _> = pages.send().collect().await;
        let tables = tables.map_err(|e| site.fail("DescribeRouteTables", site.suffix, e))?;
        let found = |table: &Described| {
            site.found::<RouteTable>(table.route_table_id().unwrap_or_default(), key_of(table.tags()))
        };
        Ok(tables.iter().map(found).collect())
    }
}

async fn describe(site: &Site<'_>, filters: Vec<Filter>) -> Result<Vec<Described>, KindError> {
    let request = site.cloud.ec2(site.region).describe_route_tables();
    let result = request.set_filters(Some(filters)).send().await;
    let answer = result.map_err(|e| site.fail("DescribeRouteTables", site.key, e))?;
    Ok(answer.route_tables.unwrap_or_default())
}

/// The association of each subnet.
fn associations(table: &Described) -> BTreeMap<String, String> {
    let pair = |association: &RouteTableAssociation| {
        Some((
            association.subnet_id()?.to_owned(),
            association.route_table_association_id()?.to_owned(),
        ))
    };
    table.associations().iter().filter_map(pair).collect()
}

/// Where routes lead that neither the VPC itself nor a gateway endpoint nor a virtual private gateway put there, sorted.
fn routes(table: &Described) -> Vec<String> {
    let by_hand = |route: &&Route| {
        route.origin() == Some(&RouteOrigin::CreateRoute)
            && !route
                .gateway_id()
                .is_some_and(|gateway| gateway == "local" || gateway.starts_with("vpce-"))
    };
    let mut destinations: Vec<String> = table
        .routes()
        .iter()
        .filter(by_hand)
        .filter_map(|route| {
            route
                .destination_cidr_block()
                .or(route.destination_ipv6_cidr_block())
                .or(route.destination_prefix_list_id())
        })
        .map(str::to_owned)
        .collect();
    destinations.sort();
    destinations
}

async fn delete_route(site: &Site<'_>, table: &str, destination: &str) -> Result<(), KindError> {
    let request = site.cloud.ec2(site.region).delete_route().route_table_id(table);
    let request = if destination.starts_with("pl-") {
        request.destination_prefix_list_id(destination)
    } else if destination.contains(':') {
        request.destination_ipv6_cidr_block(destination)
    } else {
        request.destination_cidr_block(destination)
    };
    absent(request.send().await, &["InvalidRoute.NotFound"])
        .map_err(|e| site.fail("DeleteRoute", destination, e))?;
    Ok(())
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_route_that_somebody_made_is_seen_and_those_of_vpc_and_endpoints_are_not() {
        let route = |origin, gateway: &str| Route::builder().origin(origin).gateway_id(gateway);
        let table = Described::builder()
            .routes(
                route(RouteOrigin::CreateRouteTable, "local")
                    .destination_cidr_block("10.0.0.0/16")
                    .build(),
            )
            .routes(
                route(RouteOrigin::CreateRoute, "vpce-1")
                    .destination_prefix_list_id("pl-1")
                    .build(),
            )
            .routes(
                route(RouteOrigin::EnableVgwRoutePropagation, "vgw-1")
                    .destination_cidr_block("192.168.0.0/16")
                    .build(),
            )
            .routes(
                route(RouteOrigin::CreateRoute, "igw-1")
                    .destination_cidr_block("0.0.0.0/0")
                    .build(),
            )
            .build();
        assert_eq!(routes(&table), ["0.0.0.0/0"]);
    }
}
