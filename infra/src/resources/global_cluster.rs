//! An Aurora global cluster: what the regional clusters are members of. Found by its name. Which member is the writer is a role
//! and none of this kind's business.

use serde::{Deserialize, Serialize};

use super::rds::{NO_GLOBAL, key_of, tag_list};
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

    type Spec = Spec;
    type Outputs = Outputs;

    async fn observe(site: &Site<'_>, spec: &Spec) -> Result<Option<Live<Spec, Outputs>>, KindError> {
        let request = site.cloud.rds(site.region).describe_global_clusters();
        let result = request.global_cluster_identifier(&spec.identifier).send().await;
        let answer = absent(result, NO_GLOBAL)
            .map_err(|e| site.fail("DescribeGlobalClusters", &spec.identifier, e))?;
        let Some(cluster) = answer
            .as_ref()
            .and_then(|answer| answer.global_clusters().first())
        else {
            return Ok(None);
        };
        let status = cluster.status().unwrap_or("available");
        Ok(Some(Live {
            spec: Spec {
                storage_encrypted: cluster.storage_encrypted().unwrap_or(false),
                deletion_protection: cluster.deletion_protection().unwrap_or(false),
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

    async fn update(site: &Site<'_>, spec: &Spec, _live: &Live<Spec, Outputs>) -> Result<(), KindError> {
        site.cloud
            .rds(site.region)
            .modify_global_cluster()
            .global_cluster_identifier(&spec.identifier)
            .deletion_protection(spec.deletion_protection)
            .send()
            .await
            .map_err(|e| site.fail("ModifyGlobalCluster", &spec.identifier, e))?;
        Ok(())
    }

    /// Its members must have left; until then AWS answers with a conflict.
    async fn delete(site: &Site<'_>, live: &Live<Spec, Outputs>) -> Result<(), KindError> {
        let id = &live.spec.identifier;
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
        let ours = continuity::names::Names::new(site.suffix).aurora_global();
        let mut items = site
            .cloud
            .rds(site.region)
            .describe_global_clusters()
            .into_paginator()
            .items()
            .send();
        let mut found = Vec::new();
        while let Some(cluster) = items.next().await {
            let cluster = cluster.map_err(|e| site.fail("DescribeGlobalClusters", site.suffix, e))?;
            if cluster.global_cluster_identifier() == Some(&ours) {
                found.push(site.found::<GlobalCluster>(&ours, key_of(cluster.tag_list())));
            }
        }
        Ok(found)
    }
}
