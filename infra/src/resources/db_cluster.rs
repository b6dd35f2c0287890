//! A regional Aurora cluster of a global cluster. Found by its name. Whether it is made as the writer or as a secondary
//! follows from the global cluster's members at that moment, never from the blueprint: a region that is rebuilt after a
//! takeover comes back as a secondary.

use aws_sdk_rds::types::{DbCluster as Described, GlobalClusterMember};
use serde::{Deserialize, Serialize};

use super::global_cluster::ENGINE;
use super::rds::{NO_CLUSTER, NO_GLOBAL, key_of, named_ours, tag_list};
use crate::error::{Cause, Class, KindError, absent};
use crate::kind::{Found, Kind, Live, Site};

/// The kind.
#[derive(Debug)]
pub struct DbCluster;

/// What we want.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Spec {
    /// Its name, unique across regions.
    pub identifier: String,
    /// The global cluster it belongs to.
    pub global_cluster: String,
    /// Its version, the same in all members.
    pub engine_version: String,
    /// Where its instances may live.
    pub subnet_group: String,
    /// Its parameters.
    pub parameter_group: String,
    /// `sg-...`, sorted.
    pub security_groups: Vec<String>,
    /// The key of its own region that encrypts it: a secondary must name one.
    pub kms_key_arn: String,
    /// Days that automated backups are kept.
    pub backup_retention_days: i32,
    /// AWS refuses to delete it.
    pub deletion_protection: bool,
    /// The first database, when it is made as the writer.
    pub database: String,
    /// The secret of its region with the master user and password, read when it is made as the writer.
    pub credentials: String,
    /// At home it is the writer.
    pub writer: bool,
    /// It is a member of the global cluster. One that was detached must be brought back by a person.
    pub member: bool,
}

/// What others refer to.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Outputs {
    /// Its name.
    pub identifier: String,
    /// Its ARN.
    pub arn: String,
    /// The name of its writer endpoint; it answers once this region is promoted.
    pub endpoint: String,
    /// The port.
    pub port: i32,
}

/// The secret's content.
#[derive(Deserialize)]
struct Credentials {
    username: String,
    password: String,
}

impl Kind for DbCluster {
    const NAME: &'static str = "db-cluster";
    const STATEFUL: bool = true;
    const IMMUTABLE: &'static [&'static str] = &["subnet_group", "kms_key_arn"];
    const ROLES: &'static [&'static str] = &["writer", "member"];

    type Spec = Spec;
    type Outputs = Outputs;

    async fn observe(site: &Site<'_>, spec: &Spec) -> Result<Option<Live<Spec, Outputs>>, KindError> {
        let id = &spec.identifier;
        let (cluster, members) =
            futures::future::join(describe(site, id), members(site, &spec.global_cluster)).await;
        let Some(cluster) = cluster? else { return Ok(None) };
        let arn = cluster.db_cluster_arn().unwrap_or_default().to_owned();
        let membership = members?
            .into_iter()
            .find(|member| member.db_cluster_arn() == Some(&arn));
        let mut security_groups: Vec<String> = cluster
            .vpc_security_groups()
            .iter()
            .filter_map(|group| group.vpc_security_group_id().map(str::to_owned))
            .collect();
        security_groups.sort();
        Ok(Some(Live {
            spec: Spec {
                engine_version: cluster.engine_version().unwrap_or_default().to_owned(),
                subnet_group: cluster.db_subnet_group().unwrap_or_default().to_owned(),
                parameter_group: cluster
                    .db_cluster_parameter_group()
                    .unwrap_or_default()
                    .to_owned(),
                security_groups,
                kms_key_arn: cluster.kms_key_id().unwrap_or_default().to_owned(),
                backup_retention_days: cluster.backup_retention_period().unwrap_or_default(),
                deletion_protection: cluster.deletion_protection().unwrap_or(false),
                writer: membership
                    .as_ref()
                    .and_then(GlobalClusterMember::is_writer)
                    .unwrap_or(false),
                member: membership.is_some(),
                ..spec.clone()
            },
            outputs: Outputs {
                identifier: id.clone(),
                arn,
                endpoint: cluster.endpoint().unwrap_or_default().to_owned(),
                port: cluster.port().unwrap_or(5432),
            },
            settling: settling(cluster.status().unwrap_or("available")),
        }))
    }

    /// 1. Asks the global cluster for its writer.
    /// 2. None: makes the writer, with the credentials from the secret. One: makes a secondary, which must not have any.
    async fn create(site: &Site<'_>, spec: &Spec) -> Result<(), KindError> {
        let writer_exists = members(site, &spec.global_cluster)
            .await?
            .iter()
            .any(|member| member.is_writer() == Some(true));
        let request = site
            .cloud
            .rds(site.region)
            .create_db_cluster()
            .db_cluster_identifier(&spec.identifier)
            .global_cluster_identifier(&spec.global_cluster)
            .engine(ENGINE)
            .engine_version(&spec.engine_version)
            .db_subnet_group_name(&spec.subnet_group)
            .db_cluster_parameter_group_name(&spec.parameter_group)
            .set_vpc_security_group_ids(Some(spec.security_groups.clone()))
            .storage_encrypted(true)
            .kms_key_id(&spec.kms_key_arn)
            .backup_retention_period(spec.backup_retention_days)
            .deletion_protection(spec.deletion_protection)
            .copy_tags_to_snapshot(true)
            .set_tags(Some(tag_list(site)));
        let request = if writer_exists {
            request
        } else {
            let credentials = credentials(site, &spec.credentials).await?;
            request
                .database_name(&spec.database)
                .master_username(credentials.username)
                .master_user_password(credentials.password)
        };
        absent(request.send().await, &["DBClusterAlreadyExistsFault"])
            .map_err(|e| site.fail("CreateDBCluster", &spec.identifier, e))?;
        Ok(())
    }

    async fn update(site: &Site<'_>, spec: &Spec, live: &Live<Spec, Outputs>) -> Result<(), KindError> {
        let differs = |different: bool, value: &String| different.then(|| value.clone());
        site.cloud
            .rds(site.region)
            .modify_db_cluster()
            .db_cluster_identifier(&spec.identifier)
            .apply_immediately(true)
            .set_engine_version(differs(
                spec.engine_version != live.spec.engine_version,
                &spec.engine_version,
            ))
            .set_db_cluster_parameter_group_name(differs(
                spec.parameter_group != live.spec.parameter_group,
                &spec.parameter_group,
            ))
            .set_vpc_security_group_ids(
                (spec.security_groups != live.spec.security_groups).then(|| spec.security_groups.clone()),
            )
            .backup_retention_period(spec.backup_retention_days)
            .deletion_protection(spec.deletion_protection)
            .send()
            .await
            .map_err(|e| site.fail("ModifyDBCluster", &spec.identifier, e))?;
        Ok(())
    }

    /// 1. Takes it out of the global cluster. A writer leaves last: the others are taken out first.
    /// 2. Deletes it, without a final snapshot. While it is still leaving, AWS answers with a conflict.
    async fn delete(site: &Site<'_>, live: &Live<Spec, Outputs>) -> Result<(), KindError> {
        let global = &live.spec.global_cluster;
        let members = members(site, global).await?;
        let own = &live.outputs.arn;
        if let Some(member) = members.iter().find(|member| member.db_cluster_arn() == Some(own)) {
            if member.is_writer() == Some(true) {
                for other in members
                    .iter()
                    .filter_map(GlobalClusterMember::db_cluster_arn)
                    .filter(|arn| arn != own)
                {
                    leave(site, global, other).await?;
                }
            }
            leave(site, global, own).await?;
        }
        let id = &live.spec.identifier;
        let request = site
            .cloud
            .rds(site.region)
            .delete_db_cluster()
            .db_cluster_identifier(id);
        let result = request.skip_final_snapshot(true).send().await;
        absent(result, NO_CLUSTER).map_err(|e| site.fail("DeleteDBCluster", id, e))?;
        Ok(())
    }

    async fn list(site: &Site<'_>) -> Result<Vec<Found>, KindError> {
        let mut items = site
            .cloud
            .rds(site.region)
            .describe_db_clusters()
            .into_paginator()
            .items()
            .send();
        let mut found = Vec::new();
        while let Some(cluster) = items.next().await {
            let cluster = cluster.map_err(|e| site.fail("DescribeDBClusters", site.suffix, e))?;
            let id = cluster.db_cluster_identifier().unwrap_or_default();
            if named_ours(site, id) {
                found.push(site.found::<DbCluster>(id, key_of(cluster.tag_list())));
            }
        }
        Ok(found)
    }
}

/// Work that does not stop the cluster from being used or changed counts as settled.
fn settling(status: &str) -> Option<String> {
    let usable = matches!(status, "available" | "backing-up" | "storage-optimization");
    (!usable).then(|| format!("cluster is {status}"))
}

async fn describe(site: &Site<'_>, id: &str) -> Result<Option<Described>, KindError> {
    let result = site
        .cloud
        .rds(site.region)
        .describe_db_clusters()
        .db_cluster_identifier(id)
        .send()
        .await;
    let answer = absent(result, NO_CLUSTER).map_err(|e| site.fail("DescribeDBClusters", id, e))?;
    Ok(answer.and_then(|answer| answer.db_clusters.unwrap_or_default().into_iter().next()))
}

/// The members of a global cluster; none when it is gone.
async fn members(site: &Site<'_>, global: &str) -> Result<Vec<GlobalClusterMember>, KindError> {
    let request = site.cloud.rds(site.region).describe_global_clusters();
    let result = request.global_cluster_identifier(global).send().await;
    let answer = absent(result, NO_GLOBAL).map_err(|e| site.fail("DescribeGlobalClusters", global, e))?;
    let cluster = answer.and_then(|answer| answer.global_clusters.unwrap_or_default().into_iter().next());
    Ok(cluster
        .and_then(|cluster| cluster.global_cluster_members)
        .unwrap_or_default())
}

/// Takes a cluster out of the global cluster, in the cluster's own region.
async fn leave(site: &Site<'_>, global: &str, cluster_arn: &str) -> Result<(), KindError> {
    let region = cluster_arn.split(':').nth(3).unwrap_or(site.region);
    let request = site.cloud.rds(region).remove_from_global_cluster();
    let result = request
        .global_cluster_identifier(global)
        .db_cluster_identifier(cluster_arn)
        .send()
        .await;
    let gone = &[
        "DBClusterNotFoundFault",
        "DBClusterNotFound",
        "GlobalClusterNotFoundFault",
    ];
    absent(result, gone).map_err(|e| site.fail("RemoveFromGlobalCluster", cluster_arn, e))?;
    Ok(())
}

async fn credentials(site: &Site<'_>, secret: &str) -> Result<Credentials, KindError> {
    let result = site
        .cloud
        .secrets(site.region)
        .get_secret_value()
        .secret_id(secret)
        .send()
        .await;
    let answer = result.map_err(|e| site.fail("GetSecretValue", secret, e))?;
    // The parser's message would quote the secret.
    serde_json::from_str(answer.secret_string().unwrap_or_default()).map_err(|_| KindError {
        operation: "GetSecretValue",
        subject: secret.to_owned(),
        region: site.region.to_owned(),
        class: Class::Invalid,
        cause: Cause {
            code: None,
            message: "the secret is not JSON with `username` and `password`".into(),
        },
    })
}
