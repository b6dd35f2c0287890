//! The subnets that a database may live in. Found by its name.

use serde::{Deserialize, Serialize};

use super::rds::{NO_SUBNET_GROUP, named_ours, tag_list};
use crate::error::{KindError, absent};
use crate::kind::{Found, Kind, Live, Site};

/// The kind.
#[derive(Debug)]
pub struct DbSubnetGroup;

/// What we want.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Spec {
    /// Its name.
    pub name: String,
    /// What it is for.
    pub description: String,
    /// `subnet-...`, sorted.
    pub subnet_ids: Vec<String>,
}

impl Spec {
    /// A group of these subnets.
    pub fn new(name: String, description: String, mut subnet_ids: Vec<String>) -> Self {
        subnet_ids.sort();
        Spec {
            name,
            description,
            subnet_ids,
        }
    }
}

/// What others refer to.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Outputs {
    /// Its name.
    pub name: String,
}

impl Kind for DbSubnetGroup {
    const NAME: &'static str = "db-subnet-group";

    type Spec = Spec;
    type Outputs = Outputs;

    async fn observe(site: &Site<'_>, spec: &Spec) -> Result<Option<Live<Spec, Outputs>>, KindError> {
        let result = site
            .cloud
            .rds(site.region)
            .describe_db_subnet_groups()
            .db_subnet_group_name(&spec.name)
            .send()
            .await;
        let answer = absent(result, NO_SUBNET_GROUP)
            .map_err(|e| site.fail("DescribeDBSubnetGroups", &spec.name, e))?;
        let Some(group) = answer
            .as_ref()
            .and_then(|answer| answer.db_subnet_groups().first())
        else {
            return Ok(None);
        };
        let subnets = group
            .subnets()
            .iter()
            .filter_map(|subnet| subnet.subnet_identifier().map(str::to_owned));
        Ok(Some(Live {
            spec: Spec::new(
                spec.name.clone(),
                group.db_subnet_group_description().unwrap_or_default().to_owned(),
                subnets.collect(),
            ),
            outputs: Outputs {
                name: spec.name.clone(),
            },
            settling: None,
        }))
    }

    async fn create(site: &Site<'_>, spec: &Spec) -> Result<(), KindError> {
        let result = site
            .cloud
            .rds(site.region)
            .create_db_subnet_group()
            .db_subnet_group_name(&spec.name)
            .db_subnet_group_description(&spec.description)
            .set_subnet_ids(Some(spec.subnet_ids.clone()))
            .set_tags(Some(tag_list(site)))
            .send()
            .await;
        absent(
            result,
            &["DBSubnetGroupAlreadyExists", "DBSubnetGroupAlreadyExistsFault"],
        )
        .map_err(|e| site.fail("CreateDBSubnetGroup", &spec.name, e))?;
        Ok(())
    }

    async fn update(site: &Site<'_>, spec: &Spec, _live: &Live<Spec, Outputs>) -> Result<(), KindError> {
        site.cloud
            .rds(site.region)
            .modify_db_subnet_group()
            .db_subnet_group_name(&spec.name)
            .db_subnet_group_description(&spec.description)
            .set_subnet_ids(Some(spec.subnet_ids.clone()))
            .send()
            .await
            .map_err(|e| site.fail("ModifyDBSubnetGroup", &spec.name, e))?;
        Ok(())
    }

    async fn delete(site: &Site<'_>, live: &Live<Spec, Outputs>) -> Result<(), KindError> {
        let name = &live.spec.name;
        let result = site
            .cloud
            .rds(site.region)
            .delete_db_subnet_group()
            .db_subnet_group_name(name)
            .send()
            .await;
        absent(result, NO_SUBNET_GROUP).map_err(|e| site.fail("DeleteDBSubnetGroup", name, e))?;
        Ok(())
    }

    /// By name: the description of a subnet group has no tags.
    async fn list(site: &Site<'_>) -> Result<Vec<Found>, KindError> {
        let mut items = site
            .cloud
            .rds(site.region)
            .describe_db_subnet_groups()
            .into_paginator()
            .items()
            .send();
        let mut found = Vec::new();
        while let Some(group) = items.next().await {
            let group = group.map_err(|e| site.fail("DescribeDBSubnetGroups", site.suffix, e))?;
            let name = group.db_subnet_group_name().unwrap_or_default();
            if named_ours(site, name) {
                found.push(site.found::<DbSubnetGroup>(name, None));
            }
        }
        Ok(found)
    }
}
