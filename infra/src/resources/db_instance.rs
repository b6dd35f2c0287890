//! An instance of an Aurora cluster. Found by its name. Which instance writes is a role and not asked.

use aws_sdk_rds::types::DbInstance as Described;
use serde::{Deserialize, Serialize};

use super::global_cluster::ENGINE;
use super::rds::{NO_INSTANCE, key_of, ours, put_tags, tag_list, tagged};
use crate::error::{KindError, absent};
use crate::kind::{Found, Kind, Live, Site};

/// The kind.
#[derive(Debug)]
pub struct DbInstance;

/// What we want.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Spec {
    /// Its name.
    pub identifier: String,
    /// The cluster it belongs to.
    pub cluster: String,
    /// `db.r6g.large`.
    pub class: String,
    /// The internet can reach it.
    pub publicly_accessible: bool,
    /// AWS installs new minor versions by itself, in one region before the other.
    pub minor_upgrades: bool,
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

impl Kind for DbInstance {
    const NAME: &'static str = "db-instance";
    const IMMUTABLE: &'static [&'static str] = &["cluster"];
    const ARNS: &'static [&'static str] = &["rds:db:"];

    type Spec = Spec;
    type Outputs = Outputs;

    async fn observe(site: &Site<'_>, spec: &Spec) -> Result<Option<Live<Spec, Outputs>>, KindError> {
        let id = &spec.identifier;
        let result = site
            .cloud
            .rds(site.region)
            .describe_db_instances()
            .db_instance_identifier(id)
            .send()
            .await;
        let answer = absent(result, NO_INSTANCE).map_err(|e| site.fail("DescribeDBInstances", id, e))?;
        let Some(instance) = answer.as_ref().and_then(|answer| answer.db_instances().first()) else {
            return Ok(None);
        };
        let status = instance.db_instance_status().unwrap_or("available");
        let usable = matches!(
            status,
            "available" | "backing-up" | "storage-optimization" | "configuring-enhanced-monitoring"
        );
        Ok(Some(Live {
            spec: Spec {
                identifier: id.clone(),
                cluster: instance.db_cluster_identifier().unwrap_or_default().to_owned(),
                class: instance.db_instance_class().unwrap_or_default().to_owned(),
                publicly_accessible: instance.publicly_accessible().unwrap_or(false),
                minor_upgrades: instance.auto_minor_version_upgrade().unwrap_or(false),
                tagged: tagged(site, instance.tag_list()),
            },
            outputs: Outputs {
                identifier: id.clone(),
                arn: instance.db_instance_arn().unwrap_or_default().to_owned(),
            },
            settling: (!usable).then(|| format!("instance is {status}")),
        }))
    }

    async fn create(site: &Site<'_>, spec: &Spec) -> Result<(), KindError> {
        let result = site
            .cloud
            .rds(site.region)
            .create_db_instance()
            .db_instance_identifier(&spec.identifier)
            .db_cluster_identifier(&spec.cluster)
            .db_instance_class(&spec.class)
            .engine(ENGINE)
            .publicly_accessible(spec.publicly_accessible)
            .auto_minor_version_upgrade(spec.minor_upgrades)
            .set_tags(Some(tag_list(site)))
            .send()
            .await;
        absent(
            result,
            &["DBInstanceAlreadyExists", "DBInstanceAlreadyExistsFault"],
        )
        .map_err(|e| site.fail("CreateDBInstance", &spec.identifier, e))?;
        Ok(())
    }

    /// Another class is in force when the instance has restarted with it, at once: a maintenance window would come at a time
    /// that nobody watches.
    async fn update(site: &Site<'_>, spec: &Spec, live: &Live<Spec, Outputs>) -> Result<(), KindError> {
        if !live.spec.tagged {
            put_tags(site, &live.outputs.arn).await?;
        }
        let but_for_tags = Spec {
            tagged: live.spec.tagged,
            ..spec.clone()
        };
        if but_for_tags == live.spec {
            return Ok(());
        }
        site.cloud
            .rds(site.region)
            .modify_db_instance()
            .db_instance_identifier(&spec.identifier)
            .db_instance_class(&spec.class)
            .publicly_accessible(spec.publicly_accessible)
            .auto_minor_version_upgrade(spec.minor_upgrades)
            .apply_immediately(true)
            .send()
            .await
            .map_err(|e| site.fail("ModifyDBInstance", &spec.identifier, e))?;
        Ok(())
    }

    async fn delete(site: &Site<'_>, live: &Live<Spec, Outputs>) -> Result<(), KindError> {
        Self::discard(site, &live.spec.identifier).await
    }

    async fn discard(site: &Site<'_>, id: &str) -> Result<(), KindError> {
        let request = site
            .cloud
            .rds(site.region)
            .delete_db_instance()
            .db_instance_identifier(id);
        let result = request.skip_final_snapshot(true).send().await;
        absent(result, NO_INSTANCE).map_err(|e| site.fail("DeleteDBInstance", id, e))?;
        Ok(())
    }

    async fn list(site: &Site<'_>) -> Result<Vec<Found>, KindError> {
        let request = site.cloud.rds(site.region).describe_db_instances();
        let instances: Result<Vec<_>, _> = request.into_paginator().items().send().collect().await;
        let instances = instances.map_err(|e| site.fail("DescribeDBInstances", site.suffix, e))?;
        let found = |instance: &Described| {
            let id = instance.db_instance_identifier()?;
            ours(site, id, instance.tag_list())
                .then(|| site.found::<DbInstance>(id, key_of(instance.tag_list())))
        };
        Ok(instances.iter().filter_map(found).collect())
    }
}
