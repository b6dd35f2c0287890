//! A CloudWatch Logs group with its retention. Found by its name.

use std::collections::HashMap;

use aws_sdk_cloudwatchlogs::types::LogGroup as Described;
use serde::{Deserialize, Serialize};

use super::tagging::{key_of, listed_tagged, listing, named_ours, pairs, tag_map, tagged};
use crate::error::{KindError, absent};
use crate::kind::{Found, Kind, Live, Site};

/// Where Lambda writes.
pub const LAMBDA_PREFIX: &str = "/aws/lambda/";
/// Where Aurora writes: `{prefix}{cluster}/postgresql`.
pub const AURORA_PREFIX: &str = "/aws/rds/cluster/";
/// Where API Gateway writes access logs.
pub const API_PREFIX: &str = "/aws/apigateway/";

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
    /// It carries our tags.
    pub tagged: bool,
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
    const ARNS: &'static [&'static str] = &["logs:log-group:"];

    type Spec = Spec;
    type Outputs = Outputs;

    async fn observe(site: &Site<'_>, spec: &Spec) -> Result<Option<Live<Spec, Outputs>>, KindError> {
        let Some(group) = describe(site, &spec.name).await? else {
            return Ok(None);
        };
        let arn = bare_arn(&group).to_owned();
        Ok(Some(Live {
            spec: Spec {
                name: spec.name.clone(),
                retention_days: group.retention_in_days().unwrap_or(0),
                tagged: listed_tagged(site, &arn).await || tagged(site, pairs(&read_tags(site, &arn).await?)),
            },
            outputs: Outputs { arn },
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

    async fn update(site: &Site<'_>, spec: &Spec, live: &Live<Spec, Outputs>) -> Result<(), KindError> {
        if spec.retention_days != live.spec.retention_days {
            put_retention(site, spec).await?;
        }
        if !live.spec.tagged {
            let request = site.cloud.logs(site.region).tag_resource();
            request
                .resource_arn(&live.outputs.arn)
                .set_tags(Some(tag_map(site)))
                .send()
                .await
                .map_err(|e| site.fail("TagResource", &spec.name, e))?;
        }
        Ok(())
    }

    async fn delete(site: &Site<'_>, live: &Live<Spec, Outputs>) -> Result<(), KindError> {
        Self::discard(site, &live.spec.name).await
    }

    async fn discard(site: &Site<'_>, name: &str) -> Result<(), KindError> {
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

    /// By name, because one that AWS itself made again, after ours was deleted, has no tags; or by tag.
    async fn list(site: &Site<'_>) -> Result<Vec<Found>, KindError> {
        let mut groups = Vec::new();
        for prefix in [LAMBDA_PREFIX, AURORA_PREFIX, API_PREFIX] {
            let request = site.cloud.logs(site.region).describe_log_groups();
            let request = request.log_group_name_prefix(prefix).into_paginator();
            let page: Result<Vec<_>, _> = request.items().send().collect().await;
            let page = page.map_err(|e| site.fail("DescribeLogGroups", prefix, e))?;
            groups.extend(page.into_iter().filter(|group| is_ours(group, site.suffix)));
        }
        let listing = listing(site).await;
        for name in listing.arns().filter_map(|arn| name_in(arn)) {
            let known = groups.iter().any(|group| group.log_group_name() == Some(name));
            if !known {
                groups.extend(describe(site, name).await?);
            }
        }
        let mut found = Vec::new();
        for group in &groups {
            let arn = bare_arn(group);
            let key = match listing.key(arn) {
                Some(key) => Some(key),
                None => key_of(site, pairs(&read_tags(site, arn).await?)),
            };
            found.push(site.found::<LogGroup>(group.log_group_name().unwrap_or_default(), key));
        }
        Ok(found)
    }
}

/// The group of exactly this name: it sorts before every longer one, so it is on the first page.
async fn describe(site: &Site<'_>, name: &str) -> Result<Option<Described>, KindError> {
    let request = site.cloud.logs(site.region).describe_log_groups();
    let result = request.log_group_name_prefix(name).send().await;
    let answer = result.map_err(|e| site.fail("DescribeLogGroups", name, e))?;
    let mut groups = answer.log_groups.unwrap_or_default().into_iter();
    Ok(groups.find(|group| group.log_group_name() == Some(name)))
}

async fn read_tags(site: &Site<'_>, arn: &str) -> Result<HashMap<String, String>, KindError> {
    let request = site.cloud.logs(site.region).list_tags_for_resource();
    let result = absent(
        request.resource_arn(arn).send().await,
        &["ResourceNotFoundException"],
    );
    let answer = result.map_err(|e| site.fail("ListTagsForResource", arn, e))?;
    Ok(answer.and_then(|answer| answer.tags).unwrap_or_default())
}

/// Without the `:*` that some answers carry.
fn bare_arn(group: &Described) -> &str {
    group.arn().unwrap_or_default().trim_end_matches(":*")
}

/// The name in a log group's ARN; `None` for other ARNs.
fn name_in(arn: &str) -> Option<&str> {
    let (front, name) = arn.split_once(":log-group:")?;
    front
        .starts_with("arn:aws:logs:")
        .then(|| name.trim_end_matches(":*"))
}

/// A function's group ends with our name, a cluster's has the log's name behind it.
fn is_ours(group: &Described, suffix: &str) -> bool {
    let name = group.log_group_name().unwrap_or_default();
    let name = match name.strip_prefix(AURORA_PREFIX) {
        Some(cluster) => cluster.split('/').next().unwrap_or_default(),
        None => name,
    };
    named_ours(name, suffix)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_of_functions_and_of_clusters_are_told_by_their_names() {
        let group = |name: &str| Described::builder().log_group_name(name).build();
        for name in [
            "/aws/lambda/health-probe-dr-dev",
            "/aws/rds/cluster/aurora-primary-dev/postgresql",
        ] {
            assert!(is_ours(&group(name), "dev"), "{name}");
        }
        for name in [
            "/aws/lambda/health-probe-dr-x-dev",
            "/aws/rds/cluster/aurora-primary-x-dev/postgresql",
            "/aws/rds/cluster/other/postgresql",
        ] {
            assert!(!is_ours(&group(name), "dev"), "{name}");
        }
    }

    #[test]
    fn a_group_is_found_again_by_its_arn() {
        let arn = "arn:aws:logs:us-east-1:000000000000:log-group:/aws/lambda/f:*";
        assert_eq!(name_in(arn), Some("/aws/lambda/f"));
        assert_eq!(name_in("arn:aws:lambda:us-east-1:000000000000:function:f"), None);
    }
}
