//! Parameters of an Aurora cluster. Found by its name.

use std::collections::BTreeMap;

use aws_sdk_rds::types::{ApplyMethod, Parameter};
use serde::{Deserialize, Serialize};

use super::rds::{NO_PARAMETER_GROUP, arn, is_tagged, ours_described_without_tags, put_tags, tag_list};
use crate::error::{KindError, absent};
use crate::kind::{Found, Kind, Live, Site};

/// The kind.
#[derive(Debug)]
pub struct DbClusterParameterGroup;

/// What we want.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Spec {
    /// Its name.
    pub name: String,
    /// What it is for. Cannot be read back in the same call and is not compared.
    pub description: String,
    /// `aurora-postgresql16`. The same.
    pub family: String,
    /// What differs from the family's defaults.
    pub parameters: BTreeMap<String, String>,
    /// It carries our tags.
    pub tagged: bool,
}

/// What others refer to.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Outputs {
    /// Its name.
    pub name: String,
}

impl Kind for DbClusterParameterGroup {
    const NAME: &'static str = "db-cluster-parameter-group";
    const ARNS: &'static [&'static str] = &["rds:cluster-pg:"];

    type Spec = Spec;
    type Outputs = Outputs;

    async fn observe(site: &Site<'_>, spec: &Spec) -> Result<Option<Live<Spec, Outputs>>, KindError> {
        let mut pages = site
            .cloud
            .rds(site.region)
            .describe_db_cluster_parameters()
            .db_cluster_parameter_group_name(&spec.name)
            .source("user")
            .into_paginator()
            .send();
        let mut parameters = BTreeMap::new();
        while let Some(page) = pages.next().await {
            let page = absent(page, NO_PARAMETER_GROUP)
                .map_err(|e| site.fail("DescribeDBClusterParameters", &spec.name, e))?;
            let Some(page) = page else { return Ok(None) };
            parameters.extend(page.parameters().iter().filter_map(|parameter| {
                Some((
                    parameter.parameter_name()?.to_owned(),
                    parameter.parameter_value()?.to_owned(),
                ))
            }));
        }
        Ok(Some(Live {
            spec: Spec {
                parameters,
                tagged: is_tagged(site, &arn(site, "cluster-pg", &spec.name)).await?,
                ..spec.clone()
            },
            outputs: Outputs {
                name: spec.name.clone(),
            },
            settling: None,
        }))
    }

    /// Leaves the parameters to `update`.
    async fn create(site: &Site<'_>, spec: &Spec) -> Result<(), KindError> {
        let result = site
            .cloud
            .rds(site.region)
            .create_db_cluster_parameter_group()
            .db_cluster_parameter_group_name(&spec.name)
            .db_parameter_group_family(&spec.family)
            .description(&spec.description)
            .set_tags(Some(tag_list(site)))
            .send()
            .await;
        absent(result, &["DBParameterGroupAlreadyExists"])
            .map_err(|e| site.fail("CreateDBClusterParameterGroup", &spec.name, e))?;
        Ok(())
    }

    async fn update(site: &Site<'_>, spec: &Spec, live: &Live<Spec, Outputs>) -> Result<(), KindError> {
        if !live.spec.tagged {
            put_tags(site, &arn(site, "cluster-pg", &spec.name)).await?;
        }
        let rds = site.cloud.rds(site.region);
        let parameter = |name: &str, value: Option<&String>| {
            let builder = Parameter::builder()
                .parameter_name(name)
                .apply_method(ApplyMethod::Immediate);
            builder.set_parameter_value(value.cloned()).build()
        };
        let changed: Vec<Parameter> = spec
            .parameters
            .iter()
            .filter(|(name, value)| live.spec.parameters.get(*name) != Some(value))
            .map(|(name, value)| parameter(name, Some(value)))
            .collect();
        if !changed.is_empty() {
            rds.modify_db_cluster_parameter_group()
                .db_cluster_parameter_group_name(&spec.name)
                .set_parameters(Some(changed))
                .send()
                .await
                .map_err(|e| site.fail("ModifyDBClusterParameterGroup", &spec.name, e))?;
        }
        let extra: Vec<Parameter> = live
            .spec
            .parameters
            .keys()
            .filter(|name| !spec.parameters.contains_key(*name))
            .map(|name| parameter(name, None))
            .collect();
        if !extra.is_empty() {
            rds.reset_db_cluster_parameter_group()
                .db_cluster_parameter_group_name(&spec.name)
                .set_parameters(Some(extra))
                .send()
                .await
                .map_err(|e| site.fail("ResetDBClusterParameterGroup", &spec.name, e))?;
        }
        Ok(())
    }

    async fn delete(site: &Site<'_>, live: &Live<Spec, Outputs>) -> Result<(), KindError> {
        Self::discard(site, &live.spec.name).await
    }

    async fn discard(site: &Site<'_>, name: &str) -> Result<(), KindError> {
        let request = site.cloud.rds(site.region).delete_db_cluster_parameter_group();
        let result = request.db_cluster_parameter_group_name(name).send().await;
        absent(result, NO_PARAMETER_GROUP)
            .map_err(|e| site.fail("DeleteDBClusterParameterGroup", name, e))?;
        Ok(())
    }

    async fn list(site: &Site<'_>) -> Result<Vec<Found>, KindError> {
        let request = site.cloud.rds(site.region).describe_db_cluster_parameter_groups();
        let groups: Result<Vec<_>, _> = request.into_paginator().items().send().collect().await;
        let groups = groups.map_err(|e| site.fail("DescribeDBClusterParameterGroups", site.suffix, e))?;
        let mut found = Vec::new();
        let names = groups
            .iter()
            .filter_map(|group| group.db_cluster_parameter_group_name());
        for name in names {
            let arn = arn(site, "cluster-pg", name);
            if let Some(key) = ours_described_without_tags(site, name, &arn).await? {
                found.push(site.found::<DbClusterParameterGroup>(name, key));
            }
        }
        Ok(found)
    }
}
