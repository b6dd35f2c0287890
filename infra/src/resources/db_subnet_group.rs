//! The subnets that a database may live in. Found by its name.

use serde::{Deserialize, Serialize};

use super::rds::{NO_SUBNET_GROUP, arn, is_tagged, ours_described_without_tags, put_tags, tag_list};
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
    /// The VPC of its subnets. A group stays in the VPC that it was made in.
    pub vpc_id: String,
    /// `subnet-...`, sorted.
    pub subnet_ids: Vec<String>,
    /// It carries our tags.
    pub tagged: bool,
}

impl Spec {
    /// A group of these subnets of a VPC.
    pub fn new(name: String, description: String, vpc_id: String, mut subnet_ids: Vec<String>) -> Self {
        subnet_ids.sort();
        Spec {
            name,
            description,
            vpc_id,
            subnet_ids,
            tagged: true,
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
    const IMMUTABLE: &'static [&'static str] = &["name", "vpc_id"];
    const ARNS: &'static [&'static str] = &["rds:subgrp:"];

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
        let described = Spec::new(
            spec.name.clone(),
            group.db_subnet_group_description().unwrap_or_default().to_owned(),
            group.vpc_id().unwrap_or_default().to_owned(),
            subnets.collect(),
        );
        Ok(Some(Live {
            spec: Spec {
                tagged: is_tagged(site, &arn(site, "subgrp", &spec.name)).await?,
                ..described
            },
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

    async fn update(site: &Site<'_>, spec: &Spec, live: &Live<Spec, Outputs>) -> Result<(), KindError> {
        if !live.spec.tagged {
            put_tags(site, &arn(site, "subgrp", &spec.name)).await?;
        }
        if spec.description == live.spec.description && spec.subnet_ids == live.spec.subnet_ids {
            return Ok(());
        }
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
        Self::discard(site, &live.spec.name).await
    }

    async fn discard(site: &Site<'_>, name: &str) -> Result<(), KindError> {
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

    async fn list(site: &Site<'_>) -> Result<Vec<Found>, KindError> {
        let request = site.cloud.rds(site.region).describe_db_subnet_groups();
        let groups: Result<Vec<_>, _> = request.into_paginator().items().send().collect().await;
        let groups = groups.map_err(|e| site.fail("DescribeDBSubnetGroups", site.suffix, e))?;
        let mut found = Vec::new();
        for name in groups.iter().filter_map(|group| group.db_subnet_group_name()) {
            let arn = arn(site, "subgrp", name);
            if let Some(key) = ours_described_without_tags(site, name, &arn).await? {
                found.push(site.found::<DbSubnetGroup>(name, key));
            }
        }
        Ok(found)
    }
}
