//! A CloudWatch Logs group with its retention. Found by its name.

use serde::{Deserialize, Serialize};

use super::tagging::{key_of, named_ours, pairs, tag_map};
use crate::error::{KindError, absent};
use crate::kind::{Found, Kind, Live, Site};

/// Where Lambda writes.
pub const LAMBDA_PREFIX: &str = "/aws/lambda/";

/// The kind.
#[derive(Debug)]
pub struct LogGroup;

/// What we want.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Spec {
    /// Its name.
    pub name: String,
    /// How long events are kept.
    pub retention_days: i32,
}

/// What others refer to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outputs {
    /// Its ARN, without the `:*` that some answers carry.
    pub arn: String,
}

impl Kind for LogGroup {
    const NAME: &'static str = "log-group";
    const IMMUTABLE: &'static [&'static str] = &["name"];

    type Spec = Spec;
    type Outputs = Outputs;

    async fn observe(site: &Site<'_>, spec: &Spec) -> Result<Option<Live<Spec, Outputs>>, KindError> {
        // The exact name sorts before every longer one, so it is on the first page.
        let answer = site
            .cloud
            .logs(site.region)
            .describe_log_groups()
            .log_group_name_prefix(&spec.name)
            .send()
            .await
            .map_err(|e| site.fail("DescribeLogGroups", &spec.name, e))?;
        let group = answer
            .log_groups()
            .iter()
            .find(|group| group.log_group_name() == Some(spec.name.as_str()));
        Ok(group.map(|group| Live {
            spec: Spec {
                name: spec.name.clone(),
                retention_days: group.retention_in_days().unwrap_or(0),
            },
            outputs: Outputs {
                arn: group.arn().unwrap_or_default().trim_end_matches(":*").to_owned(),
            },
            settling: None,
        }))
    }

    /// Retention needs a second call, which `update` makes as well: Lambda may have been faster and made the group.
    async fn create(site: &Site<'_>, spec: &Spec) -> Result<(), KindError> {
        let result = site
            .cloud
            .logs(site.region)
            .create_log_group()
            .log_group_name(&spec.name)
            .set_tags(Some(tag_map(site)))
            .send()
            .await;
        absent(result, &["ResourceAlreadyExistsException"])
            .map_err(|e| site.fail("CreateLogGroup", &spec.name, e))?;
        put_retention(site, spec).await
    }

    async fn update(site: &Site<'_>, spec: &Spec, _live: &Live<Spec, Outputs>) -> Result<(), KindError> {
        put_retention(site, spec).await
    }

    async fn delete(site: &Site<'_>, live: &Live<Spec, Outputs>) -> Result<(), KindError> {
        let name = &live.spec.name;
        let result = site
            .cloud
            .logs(site.region)
            .delete_log_group()
            .log_group_name(name)
            .send()
            .await;
        absent(result, &["ResourceNotFoundException"]).map_err(|e| site.fail("DeleteLogGroup", name, e))?;
        Ok(())
    }

    /// By name: one that Lambda itself made again, after ours was deleted, has no tags.
    async fn list(site: &Site<'_>) -> Result<Vec<Found>, KindError> {
        let logs = site.cloud.logs(site.region);
        let mut groups = logs
            .describe_log_groups()
            .log_group_name_prefix(LAMBDA_PREFIX)
            .into_paginator()
            .items()
            .send();
        let mut found = Vec::new();
        while let Some(group) = groups.next().await {
            let group = group.map_err(|e| site.fail("DescribeLogGroups", LAMBDA_PREFIX, e))?;
            if let Some(name) = group
                .log_group_name()
                .filter(|name| named_ours(name, site.suffix))
            {
                let arn = group.arn().unwrap_or_default().trim_end_matches(":*");
                let result = logs.list_tags_for_resource().resource_arn(arn).send().await;
                let tags = absent(result, &["ResourceNotFoundException"])
                    .map_err(|e| site.fail("ListTagsForResource", name, e))?
                    .and_then(|answer| answer.tags)
                    .unwrap_or_default();
                found.push(site.found::<LogGroup>(name, key_of(site, pairs(&tags))));
            }
        }
        Ok(found)
    }
}

async fn put_retention(site: &Site<'_>, spec: &Spec) -> Result<(), KindError> {
    site.cloud
        .logs(site.region)
        .put_retention_policy()
        .log_group_name(&spec.name)
        .retention_in_days(spec.retention_days)
        .send()
        .await
        .map_err(|e| site.fail("PutRetentionPolicy", &spec.name, e))?;
    Ok(())
}
