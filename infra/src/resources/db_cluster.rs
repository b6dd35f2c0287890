//! A regional Aurora cluster of a global cluster. Found by its name. Whether it is made as the writer or as a secondary
//! follows from the global cluster's members at that moment, never from the blueprint: a region that is rebuilt after a
//! takeover comes back as a secondary.

use std::collections::BTreeSet;

use aws_sdk_rds::operation::modify_db_cluster::builders::ModifyDBClusterFluentBuilder;
use aws_sdk_rds::types::{
    CloudwatchLogsExportConfiguration, DbCluster as Described, GlobalClusterMember,
    ServerlessV2ScalingConfiguration,
};
use continuity::names::Names;
use serde::{Deserialize, Serialize};

use super::db_instance::DbInstance;
use super::global_cluster::{self, ENGINE};
use super::rds::{NO_CLUSTER, NO_GLOBAL, key_of, ours, put_tags, tag_list, tagged};
use crate::error::{Cause, Class, KindError, absent};
use crate::kind::{Found, Kind, Live, Site};
use crate::spec::Serverless;

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
    /// What it writes into CloudWatch Logs: `postgresql`.
    pub log_exports: BTreeSet<String>,
    /// Capacity between which `db.serverless` instances move. Once set it stays, and without such instances means nothing.
    pub serverless: Option<Serverless>,
    /// Snapshots carry its tags.
    pub copy_tags_to_snapshot: bool,
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
    /// It carries our tags.
    pub tagged: bool,
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
    const ARNS: &'static [&'static str] = &["rds:cluster:"];

    type Spec = Spec;
    type Outputs = Outputs;

    async fn observe(site: &Site<'_>, spec: &Spec) -> Result<Option<Live<Spec, Outputs>>, KindError> {
        let id = &spec.identifier;
        let (cluster, members) =
            futures::future::join(describe(site, id), members(site, &spec.global_cluster)).await;
        let Some(cluster) = cluster? else { return Ok(None) };
        Ok(Some(read(site, spec, &cluster, &members?)))
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
            .set_enable_cloudwatch_logs_exports(some(&spec.log_exports))
            .set_serverless_v2_scaling_configuration(spec.serverless.map(scaling))
            .copy_tags_to_snapshot(spec.copy_tags_to_snapshot)
            .deletion_protection(spec.deletion_protection)
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

    /// Only what differs, at once. A new minor version restarts the cluster; that a secondary comes before the writer is a
    /// matter of the order in which clusters are updated.
    async fn update(site: &Site<'_>, spec: &Spec, live: &Live<Spec, Outputs>) -> Result<(), KindError> {
        if !live.spec.tagged {
            put_tags(site, &live.outputs.arn).await?;
        }
        let request = site
            .cloud
            .rds(site.region)
            .modify_db_cluster()
            .db_cluster_identifier(&spec.identifier)
            .apply_immediately(true);
        let Some(request) = changes(spec, &live.spec, request) else {
            return Ok(());
        };
        request
            .send()
            .await
            .map_err(|e| site.fail("ModifyDBCluster", &spec.identifier, e))?;
        Ok(())
    }

    async fn delete(site: &Site<'_>, live: &Live<Spec, Outputs>) -> Result<(), KindError> {
        Self::discard(site, &live.spec.identifier).await
    }

    /// 1. Takes it out of the global cluster. A writer leaves last: the others are taken out first, and until they have left
    ///    AWS answers with a conflict.
    /// 2. Deletes its instances: they hold nothing of their own, and in a replacement nobody else does.
    /// 3. Deletes it, without a final snapshot. While it is still leaving, or has instances, AWS answers with a conflict.
    async fn discard(site: &Site<'_>, id: &str) -> Result<(), KindError> {
        let Some(cluster) = describe(site, id).await? else {
            return Ok(());
        };
        if cluster.deletion_protection() == Some(true) {
            return Err(site.protected("DeleteDBCluster", id));
        }
        let usual = Names::new(site.suffix).aurora_global();
        let global = cluster.global_cluster_identifier().unwrap_or(&usual);
        let members = members(site, global).await?;
        for member in leaving(cluster.db_cluster_arn().unwrap_or_default(), &members) {
            leave(site, global, member).await?;
        }
        for instance in cluster.db_cluster_members() {
            DbInstance::discard(site, instance.db_instance_identifier().unwrap_or_default()).await?;
        }
        let request = site.cloud.rds(site.region).delete_db_cluster();
        let request = request.db_cluster_identifier(id).skip_final_snapshot(true);
        absent(request.send().await, NO_CLUSTER).map_err(|e| site.fail("DeleteDBCluster", id, e))?;
        Ok(())
    }

    async fn list(site: &Site<'_>) -> Result<Vec<Found>, KindError> {
        let request = site.cloud.rds(site.region).describe_db_clusters();
        let clusters: Result<Vec<_>, _> = request.into_paginator().items().send().collect().await;
        let clusters = clusters.map_err(|e| site.fail("DescribeDBClusters", site.suffix, e))?;
        let found = |cluster: &Described| {
            let id = cluster.db_cluster_identifier()?;
            ours(site, id, cluster.tag_list())
                .then(|| site.found::<DbCluster>(id, key_of(cluster.tag_list())))
        };
        Ok(clusters.iter().filter_map(found).collect())
    }
}

fn read(
    site: &Site<'_>,
    wanted: &Spec,
    cluster: &Described,
    members: &[GlobalClusterMember],
) -> Live<Spec, Outputs> {
    let text = |value: Option<&str>| value.unwrap_or_default().to_owned();
    let arn = text(cluster.db_cluster_arn());
    let membership = members
        .iter()
        .find(|member| member.db_cluster_arn() == Some(&arn));
    let mut security_groups: Vec<String> = cluster
        .vpc_security_groups()
        .iter()
        .filter_map(|group| group.vpc_security_group_id().map(str::to_owned))
        .collect();
    security_groups.sort();
    let capacity = cluster
        .serverless_v2_scaling_configuration()
        .map(|scaling| Serverless {
            min_acu: scaling.min_capacity().unwrap_or_default(),
            max_acu: scaling.max_capacity().unwrap_or_default(),
        });
    Live {
        spec: Spec {
            engine_version: text(cluster.engine_version()),
            subnet_group: text(cluster.db_subnet_group()),
            parameter_group: text(cluster.db_cluster_parameter_group()),
            security_groups,
            kms_key_arn: text(cluster.kms_key_id()),
            backup_retention_days: cluster.backup_retention_period().unwrap_or_default(),
            log_exports: cluster
                .enabled_cloudwatch_logs_exports()
                .iter()
                .cloned()
                .collect(),
            // There is no way to take it back: what is not asked for is not compared.
            serverless: wanted.serverless.and(capacity),
            copy_tags_to_snapshot: cluster.copy_tags_to_snapshot().unwrap_or(false),
            deletion_protection: cluster.deletion_protection().unwrap_or(false),
            writer: membership
                .and_then(GlobalClusterMember::is_writer)
                .unwrap_or(false),
            member: membership.is_some(),
            tagged: tagged(site, cluster.tag_list()),
            ..wanted.clone()
        },
        outputs: Outputs {
            identifier: wanted.identifier.clone(),
            arn,
            endpoint: text(cluster.endpoint()),
            port: cluster.port().unwrap_or(5432),
        },
        settling: settling(cluster.status().unwrap_or("available")),
    }
}

/// Fills a request with what differs. `None` when nothing does. Pure but for the builder it fills.
fn changes(
    spec: &Spec,
    live: &Spec,
    request: ModifyDBClusterFluentBuilder,
) -> Option<ModifyDBClusterFluentBuilder> {
    let roles_and_tags_aside = Spec {
        writer: live.writer,
        member: live.member,
        tagged: live.tagged,
        ..spec.clone()
    };
    if roles_and_tags_aside == *live {
        return None;
    }
    let differs = |different: bool, value: &String| different.then(|| value.clone());
    let exports = CloudwatchLogsExportConfiguration::builder()
        .set_enable_log_types(some(&(&spec.log_exports - &live.log_exports)))
        .set_disable_log_types(some(&(&live.log_exports - &spec.log_exports)))
        .build();
    let request = request
        .set_engine_version(differs(
            spec.engine_version != live.engine_version,
            &spec.engine_version,
        ))
        .set_db_cluster_parameter_group_name(differs(
            spec.parameter_group != live.parameter_group,
            &spec.parameter_group,
        ))
        .set_vpc_security_group_ids(
            (spec.security_groups != live.security_groups).then(|| spec.security_groups.clone()),
        )
        .set_backup_retention_period(
            (spec.backup_retention_days != live.backup_retention_days).then_some(spec.backup_retention_days),
        )
        .set_cloudwatch_logs_export_configuration((spec.log_exports != live.log_exports).then_some(exports))
        .set_serverless_v2_scaling_configuration(
            spec.serverless
                .filter(|_| spec.serverless != live.serverless)
                .map(scaling),
        )
        .set_copy_tags_to_snapshot(
            (spec.copy_tags_to_snapshot != live.copy_tags_to_snapshot).then_some(spec.copy_tags_to_snapshot),
        )
        .set_deletion_protection(
            (spec.deletion_protection != live.deletion_protection).then_some(spec.deletion_protection),
        );
    Some(request)
}

fn scaling(capacity: Serverless) -> ServerlessV2ScalingConfiguration {
    ServerlessV2ScalingConfiguration::builder()
        .min_capacity(capacity.min_acu)
        .max_capacity(capacity.max_acu)
        .build()
}

/// A list as AWS takes it; `None` when it is empty.
fn some(set: &BTreeSet<String>) -> Option<Vec<String>> {
    (!set.is_empty()).then(|| set.iter().cloned().collect())
}

/// Which members leave the global cluster, in order, so that `own` can be deleted. When `own` is the writer: all, itself last.
fn leaving<'m>(own: &str, members: &'m [GlobalClusterMember]) -> Vec<&'m str> {
    let arn = |member: &'m GlobalClusterMember| member.db_cluster_arn();
    let Some(ours) = members.iter().find(|member| arn(member) == Some(own)) else {
        return Vec::new();
    };
    let others = members.iter().filter_map(arn).filter(|arn| *arn != own);
    let first = others.filter(|_| ours.is_writer() == Some(true));
    first.chain(arn(ours)).collect()
}

/// Work that does not stop the cluster from being used or changed counts as settled.
fn settling(status: &str) -> Option<String> {
    let usable = matches!(status, "available" | "backing-up" | "storage-optimization");
    (!usable).then(|| format!("cluster is {status}"))
}

pub(super) async fn describe(site: &Site<'_>, id: &str) -> Result<Option<Described>, KindError> {
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
    let cluster = global_cluster::describe(site, global).await?;
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
    let gone = |e: &KindError| {
        NO_CLUSTER
            .iter()
            .chain(NO_GLOBAL)
            .any(|code| e.code() == Some(code))
            || e.cause.message.contains("is not found in global cluster")
    };
    match result.map_err(|e| site.fail("RemoveFromGlobalCluster", cluster_arn, e)) {
        Err(error) if !gone(&error) => Err(error),
        _ => Ok(()),
    }
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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use aws_sdk_rds::types::{ServerlessV2ScalingConfigurationInfo, Tag};

    use super::super::testing::Place;
    use super::*;

    const OWN: &str = "arn:aws:rds:us-east-1:000000000000:cluster:aurora-primary-dev";
    const OTHER: &str = "arn:aws:rds:us-east-2:000000000000:cluster:aurora-dr-dev";

    fn spec() -> Spec {
        Spec {
            identifier: "aurora-primary-dev".into(),
            global_cluster: "aurora-dev".into(),
            engine_version: "16.8".into(),
            subnet_group: "aurora-primary-dev".into(),
            parameter_group: "aurora-primary-dev".into(),
            security_groups: vec!["sg-1".into()],
            kms_key_arn: "arn:aws:kms:us-east-1:000000000000:key/k".into(),
            backup_retention_days: 7,
            log_exports: BTreeSet::from(["postgresql".into()]),
            serverless: Some(Serverless {
                min_acu: 8.0,
                max_acu: 32.0,
            }),
            copy_tags_to_snapshot: true,
            deletion_protection: false,
            database: "payments".into(),
            credentials: "aurora-credentials-dev".into(),
            writer: true,
            member: true,
            tagged: true,
        }
    }

    fn member(arn: &str, writer: bool) -> GlobalClusterMember {
        GlobalClusterMember::builder()
            .db_cluster_arn(arn)
            .is_writer(writer)
            .build()
    }

    fn described(tags: Vec<Tag>) -> Described {
        let spec = spec();
        let scaling = ServerlessV2ScalingConfigurationInfo::builder()
            .min_capacity(8.0)
            .max_capacity(32.0)
            .build();
        Described::builder()
            .db_cluster_identifier(&spec.identifier)
            .db_cluster_arn(OWN)
            .engine_version(&spec.engine_version)
            .db_subnet_group(&spec.subnet_group)
            .db_cluster_parameter_group(&spec.parameter_group)
            .vpc_security_groups(
                aws_sdk_rds::types::VpcSecurityGroupMembership::builder()
                    .vpc_security_group_id("sg-1")
                    .build(),
            )
            .kms_key_id(&spec.kms_key_arn)
            .backup_retention_period(7)
            .enabled_cloudwatch_logs_exports("postgresql")
            .serverless_v2_scaling_configuration(scaling)
            .copy_tags_to_snapshot(true)
            .deletion_protection(false)
            .set_tag_list(Some(tags))
            .build()
    }

    fn request() -> ModifyDBClusterFluentBuilder {
        let config = aws_sdk_rds::Config::builder()
            .behavior_version(aws_sdk_rds::config::BehaviorVersion::latest())
            .build();
        aws_sdk_rds::Client::from_conf(config).modify_db_cluster()
    }

    #[test]
    fn a_cluster_as_we_made_it_is_read_back_as_wanted_and_needs_nothing() {
        let place = Place::new();
        let site = place.site("db-cluster.primary");
        let members = [member(OWN, true), member(OTHER, false)];
        let live = read(&site, &spec(), &described(tag_list(&site)), &members);
        assert_eq!(live.spec, spec());
        assert!(changes(&spec(), &live.spec, request()).is_none());
    }

    #[test]
    fn a_lost_tag_and_a_moved_role_change_nothing_about_the_cluster_itself() {
        let place = Place::new();
        let site = place.site("db-cluster.primary");
        let members = [member(OWN, false), member(OTHER, true)];
        let live = read(&site, &spec(), &described(Vec::new()), &members);
        assert!(!live.spec.tagged && !live.spec.writer);
        assert!(changes(&spec(), &live.spec, request()).is_none());
    }

    #[test]
    fn only_what_differs_is_changed() {
        let wanted = Spec {
            engine_version: "16.9".into(),
            log_exports: BTreeSet::from(["instance".into()]),
            ..spec()
        };
        let request = changes(&wanted, &spec(), request()).unwrap();
        assert_eq!(request.get_engine_version().as_deref(), Some("16.9"));
        let exports = request
            .get_cloudwatch_logs_export_configuration()
            .clone()
            .unwrap();
        assert_eq!(exports.enable_log_types(), ["instance"]);
        assert_eq!(exports.disable_log_types(), ["postgresql"]);
        assert_eq!(request.get_backup_retention_period(), &None);
        assert_eq!(request.get_deletion_protection(), &None);
        assert_eq!(request.get_serverless_v2_scaling_configuration(), &None);
    }

    #[test]
    fn capacity_that_nobody_asks_for_any_more_is_left_alone() {
        let place = Place::new();
        let site = place.site("db-cluster.primary");
        let wanted = Spec {
            serverless: None,
            ..spec()
        };
        let live = read(&site, &wanted, &described(tag_list(&site)), &[member(OWN, true)]);
        assert!(changes(&wanted, &live.spec, request()).is_none());
    }

    #[test]
    fn the_writer_leaves_the_global_cluster_last_and_a_secondary_alone() {
        let writer = [member(OWN, true), member(OTHER, false)];
        assert_eq!(leaving(OWN, &writer), [OTHER, OWN]);
        assert_eq!(leaving(OTHER, &writer), [OTHER]);
        assert_eq!(leaving(OWN, &[member(OTHER, true)]), Vec::<&str>::new());
    }
}
