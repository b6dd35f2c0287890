//! The replica of a multi-region KMS key in another region, with an alias of its own. Found by the alias.

use serde::{Deserialize, Serialize};

use super::kms;
use crate::error::{KindError, absent};
use crate::kind::{Found, Kind, Live, Site};

/// The kind.
#[derive(Debug)]
pub struct KmsReplicaKey;

/// What we want.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Spec {
    /// `alias/...`
    pub alias: String,
    /// What it is for.
    pub description: String,
    /// `mrk-...`: the key it is a replica of.
    pub primary_key_id: String,
    /// The region of that key.
    pub primary_region: String,
    /// It can be used: neither disabled nor scheduled for deletion.
    pub usable: bool,
    /// It carries our tags.
    pub tagged: bool,
}

/// What others refer to.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Outputs {
    /// `mrk-...`, the same as the primary's.
    pub key_id: String,
    /// Its ARN in this region.
    pub arn: String,
}

impl Kind for KmsReplicaKey {
    const NAME: &'static str = "kms-replica-key";
    const STATEFUL: bool = true;
    const ARNS: &'static [&'static str] = &["kms:key/"];
    const IMMUTABLE: &'static [&'static str] = &["primary_key_id"];

    type Spec = Spec;
    type Outputs = Outputs;

    async fn observe(site: &Site<'_>, spec: &Spec) -> Result<Option<Live<Spec, Outputs>>, KindError> {
        let Some(key) = kms::describe(site, &spec.alias).await? else {
            return Ok(None);
        };
        let (usable, settling) = kms::state(&key);
        Ok(Some(Live {
            spec: Spec {
                alias: spec.alias.clone(),
                description: key.description().unwrap_or_default().to_owned(),
                primary_key_id: key.key_id().to_owned(),
                primary_region: spec.primary_region.clone(),
                usable,
                tagged: kms::is_tagged(site, &key).await?,
            },
            outputs: Outputs {
                key_id: key.key_id().to_owned(),
                arn: key.arn().unwrap_or_default().to_owned(),
            },
            settling,
        }))
    }

    async fn create(site: &Site<'_>, spec: &Spec) -> Result<(), KindError> {
        if kms::tagged(site).await?.as_deref() != Some(&spec.primary_key_id) {
            // The call goes to the primary's region.
            let result = site
                .cloud
                .kms(&spec.primary_region)
                .replicate_key()
                .key_id(&spec.primary_key_id)
                .replica_region(site.region)
                .description(&spec.description)
                .set_tags(Some(kms::tag_list(site)))
                .send()
                .await;
            absent(result, &["AlreadyExistsException"])
                .map_err(|e| site.fail("ReplicateKey", &spec.primary_key_id, e))?;
        }
        kms::point(site, &spec.alias, &spec.primary_key_id).await
    }

    async fn update(site: &Site<'_>, spec: &Spec, live: &Live<Spec, Outputs>) -> Result<(), KindError> {
        let id = &live.outputs.key_id;
        if !live.spec.usable {
            kms::enable(site, id).await?;
        }
        if !live.spec.tagged {
            kms::put_tags(site, id).await?;
        }
        if spec.description != live.spec.description {
            let request = site.cloud.kms(site.region).update_key_description().key_id(id);
            let result = request.description(&spec.description).send().await;
            result.map_err(|e| site.fail("UpdateKeyDescription", id, e))?;
        }
        Ok(())
    }

    async fn delete(site: &Site<'_>, live: &Live<Spec, Outputs>) -> Result<(), KindError> {
        Self::discard(site, &live.outputs.key_id).await
    }

    async fn discard(site: &Site<'_>, id: &str) -> Result<(), KindError> {
        kms::forget(site, id).await
    }

    async fn list(site: &Site<'_>) -> Result<Vec<Found>, KindError> {
        kms::list::<KmsReplicaKey>(site, false).await
    }
}
