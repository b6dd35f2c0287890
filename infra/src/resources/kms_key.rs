//! A multi-region KMS key with its alias. Found by the alias.

use serde::{Deserialize, Serialize};

use super::kms;
use crate::error::KindError;
use crate::kind::{Found, Kind, Live, Site};

/// The kind.
#[derive(Debug)]
pub struct KmsKey;

/// What we want.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Spec {
    /// `alias/...`
    pub alias: String,
    /// What it is for.
    pub description: String,
    /// Its material is renewed every year.
    pub rotation: bool,
    /// It can be used: neither disabled nor scheduled for deletion.
    pub usable: bool,
    /// It carries our tags.
    pub tagged: bool,
}

/// What others refer to.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Outputs {
    /// `mrk-...`, the same in all regions.
    pub key_id: String,
    /// Its ARN in this region.
    pub arn: String,
}

impl Kind for KmsKey {
    const NAME: &'static str = "kms-key";
    const STATEFUL: bool = true;
    const ARNS: &'static [&'static str] = &["kms:key/"];

    type Spec = Spec;
    type Outputs = Outputs;

    async fn observe(site: &Site<'_>, spec: &Spec) -> Result<Option<Live<Spec, Outputs>>, KindError> {
        let Some(key) = kms::describe(site, &spec.alias).await? else {
            return Ok(None);
        };
        let (usable, settling) = kms::state(&key);
        let rotation = if usable && settling.is_none() {
            let request = site
                .cloud
                .kms(site.region)
                .get_key_rotation_status()
                .key_id(key.key_id());
            let answer = request
                .send()
                .await
                .map_err(|e| site.fail("GetKeyRotationStatus", &spec.alias, e))?;
            answer.key_rotation_enabled()
        } else {
            false
        };
        Ok(Some(Live {
            spec: Spec {
                alias: spec.alias.clone(),
                description: key.description().unwrap_or_default().to_owned(),
                rotation,
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

    /// Leaves the rotation to `update`.
    async fn create(site: &Site<'_>, spec: &Spec) -> Result<(), KindError> {
        let id = match kms::tagged(site).await? {
            Some(id) => id,
            None => {
                let request = site.cloud.kms(site.region).create_key().multi_region(true);
                let request = request
                    .description(&spec.description)
                    .set_tags(Some(kms::tag_list(site)));
                let made = request
                    .send()
                    .await
                    .map_err(|e| site.fail("CreateKey", &spec.alias, e))?;
                made.key_metadata()
                    .map(|key| key.key_id().to_owned())
                    .unwrap_or_default()
            }
        };
        kms::point(site, &spec.alias, &id).await
    }

    async fn update(site: &Site<'_>, spec: &Spec, live: &Live<Spec, Outputs>) -> Result<(), KindError> {
        let client = site.cloud.kms(site.region);
        let id = &live.outputs.key_id;
        if !live.spec.usable {
            kms::enable(site, id).await?;
        }
        if !live.spec.tagged {
            kms::put_tags(site, id).await?;
        }
        if spec.description != live.spec.description {
            let request = client
                .update_key_description()
                .key_id(id)
                .description(&spec.description);
            request
                .send()
                .await
                .map_err(|e| site.fail("UpdateKeyDescription", id, e))?;
        }
        if spec.rotation && !live.spec.rotation {
            let result = client.enable_key_rotation().key_id(id).send().await;
            result.map_err(|e| site.fail("EnableKeyRotation", id, e))?;
        }
        if !spec.rotation && live.spec.rotation {
            let result = client.disable_key_rotation().key_id(id).send().await;
            result.map_err(|e| site.fail("DisableKeyRotation", id, e))?;
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
        kms::list::<KmsKey>(site, true).await
    }
}
