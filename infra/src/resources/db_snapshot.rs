//! A manual snapshot of an Aurora cluster: the lost tail of a takeover, kept before retention takes it. Found by its name. No
//! blueprint has one: a recovery makes it, and it goes with the stack. Beside it, the cluster that is restored from one.

use std::collections::BTreeSet;

use aws_sdk_rds::types::{DbCluster, DbClusterSnapshot, ServerlessV2ScalingConfiguration};
use continuity::names::Slot;
use serde::{Deserialize, Serialize};

use super::db_cluster;
use super::db_instance;
use super::global_cluster::ENGINE;
use super::rds::{NO_INSTANCE, NO_SNAPSHOT, key_of, ours, put_tags, tag_list, tagged};
use crate::error::{KindError, absent};
use crate::kind::{Found, Kind, Live, Site};

/// The kind.
#[derive(Debug)]
pub struct DbSnapshot;

/// What we want.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Spec {
    /// Its name.
    pub identifier: String,
    /// The snapshot that it is a copy of.
    pub source: String,
    /// The key of its region that encrypts it.
    pub kms_key_arn: String,
    /// It carries our tags.
    pub tagged: bool,
}

/// What others refer to.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Outputs {
    /// Its name.
    pub identifier: String,
}

/// The key in the tags of what a recovery makes of a slot's lost tail. No blueprint holds it.
pub fn key(slot: Slot) -> String {
    format!("lost-tail.{slot}")
}

/// These keys and those of lost tails, which stay while the stack lives: for whoever deletes what is in no blueprint.
pub fn with_lost_tails(mut keys: BTreeSet<String>) -> BTreeSet<String> {
    keys.extend(Slot::SERVING.map(key));
    keys
}

impl Kind for DbSnapshot {
    const NAME: &'static str = "db-snapshot";
    const STATEFUL: bool = true;
    const IMMUTABLE: &'static [&'static str] = &["kms_key_arn"];
    const ARNS: &'static [&'static str] = &["rds:cluster-snapshot:"];

    type Spec = Spec;
    type Outputs = Outputs;

    async fn observe(site: &Site<'_>, spec: &Spec) -> Result<Option<Live<Spec, Outputs>>, KindError> {
        let id = &spec.identifier;
        let request = site.cloud.rds(site.region).describe_db_cluster_snapshots();
        let result = request.db_cluster_snapshot_identifier(id).send().await;
        let answer =
            absent(result, NO_SNAPSHOT).map_err(|e| site.fail("DescribeDBClusterSnapshots", id, e))?;
        let snapshot = answer.and_then(|answer| answer.db_cluster_snapshots.unwrap_or_default().pop());
        Ok(snapshot.map(|snapshot| {
            let status = snapshot.status().unwrap_or("available");
            Live {
                spec: Spec {
                    kms_key_arn: snapshot.kms_key_id().unwrap_or_default().to_owned(),
                    tagged: tagged(site, snapshot.tag_list()),
                    ..spec.clone()
                },
                outputs: Outputs {
                    identifier: id.clone(),
                },
                settling: (status != "available").then(|| format!("snapshot is {status}")),
            }
        }))
    }

    async fn create(site: &Site<'_>, spec: &Spec) -> Result<(), KindError> {
        let request = site.cloud.rds(site.region).copy_db_cluster_snapshot();
        let result = request
            .source_db_cluster_snapshot_identifier(&spec.source)
            .target_db_cluster_snapshot_identifier(&spec.identifier)
            .kms_key_id(&spec.kms_key_arn)
            .set_tags(Some(tag_list(site)))
            .send()
            .await;
        absent(
            result,
            &[
                "DBClusterSnapshotAlreadyExistsFault",
                "DBClusterSnapshotAlreadyExists",
            ],
        )
        .map_err(|e| site.fail("CopyDBClusterSnapshot", &spec.identifier, e))?;
        Ok(())
    }

    async fn update(site: &Site<'_>, spec: &Spec, live: &Live<Spec, Outputs>) -> Result<(), KindError> {
        if spec.tagged && !live.spec.tagged {
            put_tags(site, &super::rds::arn(site, "cluster-snapshot", &spec.identifier)).await?;
        }
        Ok(())
    }

    async fn delete(site: &Site<'_>, live: &Live<Spec, Outputs>) -> Result<(), KindError> {
        Self::discard(site, &live.spec.identifier).await
    }

    async fn discard(site: &Site<'_>, id: &str) -> Result<(), KindError> {
        let request = site.cloud.rds(site.region).delete_db_cluster_snapshot();
        let result = request.db_cluster_snapshot_identifier(id).send().await;
        absent(result, NO_SNAPSHOT).map_err(|e| site.fail("DeleteDBClusterSnapshot", id, e))?;
        Ok(())
    }

    /// The manual ones. Automated ones are parts of their cluster, and go with it.
    async fn list(site: &Site<'_>) -> Result<Vec<Found>, KindError> {
        let request = site.cloud.rds(site.region).describe_db_cluster_snapshots();
        let request = request.snapshot_type("manual").into_paginator().items();
        let snapshots: Result<Vec<_>, _> = request.send().collect().await;
        let snapshots = snapshots.map_err(|e| site.fail("DescribeDBClusterSnapshots", site.suffix, e))?;
        let found = |snapshot: &DbClusterSnapshot| {
            let id = snapshot.db_cluster_snapshot_identifier()?;
            let manual = snapshot.snapshot_type() == Some("manual");
            (manual && ours(site, id, snapshot.tag_list()))
                .then(|| site.found::<DbSnapshot>(id, key_of(snapshot.tag_list())))
        };
        Ok(snapshots.iter().filter_map(found).collect())
    }
}

/// A snapshot that Aurora made of a cluster when it took it back after an unplanned failover.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AfterFailover {
    /// Its name.
    pub name: String,
    /// When it was made, milliseconds since the Unix epoch.
    pub created_ms: u64,
    /// It can be copied.
    pub available: bool,
}

/// How the names of those snapshots begin
/// (<https://docs.aws.amazon.com/AmazonRDS/latest/AuroraUserGuide/aurora-global-database-disaster-recovery.html>).
pub const AFTER_FAILOVER: &str = "rds:unplanned-global-failover-";

/// Those of a cluster that Aurora still has, in no order.
///
/// # Errors
/// The call that failed.
pub async fn after_failovers(site: &Site<'_>, cluster: &str) -> Result<Vec<AfterFailover>, KindError> {
    let request = site.cloud.rds(site.region).describe_db_cluster_snapshots();
    let request = request
        .db_cluster_identifier(cluster)
        .snapshot_type("automated")
        .into_paginator()
        .items();
    let snapshots: Result<Vec<_>, _> = request.send().collect().await;
    let snapshots = snapshots.map_err(|e| site.fail("DescribeDBClusterSnapshots", cluster, e))?;
    let one = |snapshot: &DbClusterSnapshot| {
        let name = snapshot.db_cluster_snapshot_identifier()?;
        let created_ms = snapshot.snapshot_create_time()?.to_millis().ok()?;
        name.starts_with(AFTER_FAILOVER).then(|| AfterFailover {
            name: name.to_owned(),
            created_ms: u64::try_from(created_ms).unwrap_or_default(),
            available: snapshot.status().unwrap_or("available") == "available",
        })
    };
    Ok(snapshots.iter().filter_map(one).collect())
}

/// Where a restored cluster is reached.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Endpoint {
    /// The host.
    pub host: String,
    /// The port.
    pub port: u16,
}

/// Copies a snapshot to `name`, under the key of the cluster `like`. Says whether the copy is complete; to be called until
/// it is.
///
/// # Errors
/// The call that failed.
pub async fn keep(site: &Site<'_>, source: &str, name: &str, like: &str) -> Result<bool, KindError> {
    let mut spec = Spec {
        identifier: name.to_owned(),
        source: source.to_owned(),
        kms_key_arn: String::new(),
        tagged: true,
    };
    if let Some(live) = DbSnapshot::observe(site, &spec).await? {
        DbSnapshot::update(site, &spec, &live).await?;
        return Ok(live.settling.is_none());
    }
    let model = model(site, like).await?;
    spec.kms_key_arn = model.kms_key_id().unwrap_or_default().to_owned();
    DbSnapshot::create(site, &spec).await?;
    Ok(false)
}

/// Whether there is a snapshot of this name.
///
/// # Errors
/// The call that failed.
pub async fn is_there(site: &Site<'_>, name: &str) -> Result<bool, KindError> {
    let spec = Spec {
        identifier: name.to_owned(),
        source: String::new(),
        kms_key_arn: String::new(),
        tagged: true,
    };
    Ok(DbSnapshot::observe(site, &spec).await?.is_some())
}

/// Restores a snapshot to a cluster of its own, in the subnets, groups and under the key of the cluster `like`, with one instance.
/// `None` while it is not ready; to be called until it is.
///
/// # Errors
/// The call that failed.
pub async fn open(
    site: &Site<'_>,
    snapshot: &str,
    id: &str,
    like: &str,
) -> Result<Option<Endpoint>, KindError> {
    let Some(cluster) = db_cluster::describe(site, id).await? else {
        restore(site, snapshot, id, &model(site, like).await?).await?;
        return Ok(None);
    };
    if cluster.status().unwrap_or("available") != "available" {
        return Ok(None);
    }
    let instance = format!("{id}-1");
    let Some(status) = instance_status(site, &instance).await? else {
        let spec = db_instance::Spec {
            identifier: instance,
            cluster: id.to_owned(),
            class: class(site, &model(site, like).await?).await?,
            publicly_accessible: false,
            minor_upgrades: false,
            tagged: true,
        };
        db_instance::DbInstance::create(site, &spec).await?;
        return Ok(None);
    };
    Ok((status == "available").then(|| Endpoint {
        host: cluster.endpoint().unwrap_or_default().to_owned(),
        port: cluster
            .port()
            .and_then(|port| u16::try_from(port).ok())
            .unwrap_or(5432),
    }))
}

/// Deletes a restored cluster and its instance. Says whether they are gone; to be called until they are.
///
/// # Errors
/// The call that failed.
pub async fn close(site: &Site<'_>, id: &str) -> Result<bool, KindError> {
    if db_cluster::describe(site, id).await?.is_none() {
        return Ok(true);
    }
    match db_cluster::DbCluster::discard(site, id).await {
        // It still has its instance, or is being made.
        Err(error) if error.class.patience().is_none() => Err(error),
        _ => Ok(false),
    }
}

async fn model(site: &Site<'_>, like: &str) -> Result<DbCluster, KindError> {
    let missing = || {
        site.refuse(
            "DescribeDBClusters",
            like,
            Some("DBClusterNotFoundFault"),
            "it is not there",
        )
    };
    db_cluster::describe(site, like).await?.ok_or_else(missing)
}

async fn restore(site: &Site<'_>, snapshot: &str, id: &str, like: &DbCluster) -> Result<(), KindError> {
    let groups = like.vpc_security_groups().iter();
    let groups = groups.filter_map(|group| group.vpc_security_group_id().map(str::to_owned));
    let scaling = like.serverless_v2_scaling_configuration().map(|scaling| {
        ServerlessV2ScalingConfiguration::builder()
            .set_min_capacity(scaling.min_capacity())
            .set_max_capacity(scaling.max_capacity())
            .build()
    });
    let request = site.cloud.rds(site.region).restore_db_cluster_from_snapshot();
    let result = request
        .db_cluster_identifier(id)
        .snapshot_identifier(snapshot)
        .engine(ENGINE)
        .set_db_subnet_group_name(like.db_subnet_group().map(str::to_owned))
        .set_db_cluster_parameter_group_name(like.db_cluster_parameter_group().map(str::to_owned))
        .set_vpc_security_group_ids(Some(groups.collect()))
        .set_kms_key_id(like.kms_key_id().map(str::to_owned))
        .set_serverless_v2_scaling_configuration(scaling)
        .copy_tags_to_snapshot(false)
        .deletion_protection(false)
        .set_tags(Some(tag_list(site)))
        .send()
        .await;
    absent(result, &["DBClusterAlreadyExistsFault"])
        .map_err(|e| site.fail("RestoreDBClusterFromSnapshot", id, e))?;
    Ok(())
}

async fn instance_status(site: &Site<'_>, id: &str) -> Result<Option<String>, KindError> {
    Ok(instance(site, id).await?.map(|(status, _)| status))
}

/// The class of the first instance of a cluster.
async fn class(site: &Site<'_>, cluster: &DbCluster) -> Result<String, KindError> {
    let first = cluster.db_cluster_members().first();
    let id = first
        .and_then(|member| member.db_instance_identifier())
        .unwrap_or_default();
    let missing = || {
        site.refuse(
            "DescribeDBInstances",
            id,
            Some("DBInstanceNotFound"),
            "the region's cluster has no instance, whose class the restored one would take",
        )
    };
    let (_, class) = instance(site, id).await?.ok_or_else(missing)?;
    Ok(class)
}

/// Status and class.
async fn instance(site: &Site<'_>, id: &str) -> Result<Option<(String, String)>, KindError> {
    let request = site.cloud.rds(site.region).describe_db_instances();
    let result = request.db_instance_identifier(id).send().await;
    let answer = absent(result, NO_INSTANCE).map_err(|e| site.fail("DescribeDBInstances", id, e))?;
    Ok(answer.and_then(|answer| {
        let instance = answer.db_instances.unwrap_or_default().into_iter().next()?;
        Some((
            instance.db_instance_status.unwrap_or_default(),
            instance.db_instance_class.unwrap_or_default(),
        ))
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_recovery_made_is_no_stranger_while_the_stack_lives() {
        let keys = with_lost_tails(BTreeSet::from(["vpc.dr".to_owned()]));
        assert_eq!(
            keys.into_iter().collect::<Vec<_>>(),
            ["lost-tail.dr", "lost-tail.primary", "vpc.dr"]
        );
    }
}
