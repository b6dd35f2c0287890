//! An Aurora global cluster: what the regional clusters are members of. Found by its name. Which member is the writer is a role
//! and none of this kind's business.

use aws_sdk_rds::types::GlobalCluster as Described;
use serde::{Deserialize, Serialize};

use super::rds::{NO_GLOBAL, key_of, ours, put_tags, tag_list, tagged};
use crate::error::{KindError, absent};
use crate::kind::{Found, Kind, Live, Scope, Site};

/// The engine.
pub const ENGINE: &str = "aurora-postgresql";

/// The kind.
#[derive(Debug)]
pub struct GlobalCluster;

/// What we want.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Spec {
    /// Its name.
    pub identifier: String,
    /// For its creation. Afterwards it follows its members and is not compared.
    pub engine_version: String,
    /// Storage is encrypted.
    pub storage_encrypted: bool,
    /// AWS refuses to delete it.
    pub deletion_protection: bool,
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
}

impl Kind for GlobalCluster {
    const NAME: &'static str = "global-cluster";
    const SCOPE: Scope = Scope::Global;
    const STATEFUL: bool = true;
    const IMMUTABLE: &'static [&'static str] = &["storage_encrypted"];
    const ARNS: &'static [&'static str] = &["rds:global-cluster:"];

    type Spec = Spec;
    type Outputs = Outputs;

    async fn observe(site: &Site<'_>, spec: &Spec) -> Result<Option<Live<Spec, Outputs>>, KindError> {
        let Some(cluster) = describe(site, &spec.identifier).await? else {
            return Ok(None);
        };
        let status = cluster.status().unwrap_or("available");
        Ok(Some(Live {
            spec: Spec {
                storage_encrypted: cluster.storage_encrypted().unwrap_or(false),
                deletion_protection: cluster.deletion_protection().unwrap_or(false),
                tagged: tagged(site, cluster.tag_list()),
                ..spec.clone()
            },
            outputs: Outputs {
                identifier: spec.identifier.clone(),
                arn: cluster.global_cluster_arn().unwrap_or_default().to_owned(),
            },
            settling: (status != "available").then(|| format!("global cluster is {status}")),
        }))
    }

    async fn create(site: &Site<'_>, spec: &Spec) -> Result<(), KindError> {
        let result = site
            .cloud
            .rds(site.region)
            .create_global_cluster()
            .global_cluster_identifier(&spec.identifier)
            .engine(ENGINE)
            .engine_version(&spec.engine_version)
            .storage_encrypted(spec.storage_encrypted)
            .deletion_protection(spec.deletion_protection)
            .set_tags(Some(tag_list(site)))
            .send()
            .await;
        absent(result, &["GlobalClusterAlreadyExistsFault"])
            .map_err(|e| site.fail("CreateGlobalCluster", &spec.identifier, e))?;
        Ok(())
    }

    async fn update(site: &Site<'_>, spec: &Spec, live: &Live<Spec, Outputs>) -> Result<(), KindError> {
        if !live.spec.tagged {
            put_tags(site, &live.outputs.arn).await?;
        }
        if spec.deletion_protection != live.spec.deletion_protection {
            site.cloud
                .rds(site.region)
                .modify_global_cluster()
                .global_cluster_identifier(&spec.identifier)
                .deletion_protection(spec.deletion_protection)
                .send()
                .await
                .map_err(|e| site.fail("ModifyGlobalCluster", &spec.identifier, e))?;
        }
        Ok(())
    }

    async fn delete(site: &Site<'_>, live: &Live<Spec, Outputs>) -> Result<(), KindError> {
        Self::discard(site, &live.spec.identifier).await
    }

    /// Its members must have left; until then AWS answers with a conflict.
    async fn discard(site: &Site<'_>, id: &str) -> Result<(), KindError> {
        if describe(site, id)
            .await?
            .is_some_and(|cluster| cluster.deletion_protection() == Some(true))
        {
            return Err(site.protected("DeleteGlobalCluster", id));
        }
        let result = site
            .cloud
            .rds(site.region)
            .delete_global_cluster()
            .global_cluster_identifier(id)
            .send()
            .await;
        absent(result, NO_GLOBAL).map_err(|e| site.fail("DeleteGlobalCluster", id, e))?;
        Ok(())
    }

    async fn list(site: &Site<'_>) -> Result<Vec<Found>, KindError> {
        let request = site.cloud.rds(site.region).describe_global_clusters();
        let clusters: Result<Vec<_>, _> = request.into_paginator().items().send().collect().await;
        let clusters = clusters.map_err(|e| site.fail("DescribeGlobalClusters", site.suffix, e))?;
        let found = |cluster: &Described| {
            let id = cluster.global_cluster_identifier()?;
            ours(site, id, cluster.tag_list())
                .then(|| site.found::<GlobalCluster>(id, key_of(cluster.tag_list())))
        };
        Ok(clusters.iter().filter_map(found).collect())
    }
}

/// The global cluster of this name.
pub(super) async fn describe(site: &Site<'_>, id: &str) -> Result<Option<Described>, KindError> {
    let request = site.cloud.rds(site.region).describe_global_clusters();
    let result = request.global_cluster_identifier(id).send().await;
    let answer = absent(result, NO_GLOBAL).map_err(|e| site.fail("DescribeGlobalClusters", id, e))?;
    Ok(answer.and_then(|answer| answer.global_clusters.unwrap_or_default().into_iter().next()))
}
