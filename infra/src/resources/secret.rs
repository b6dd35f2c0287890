//! A secret with generated database credentials, replicated to the region that takes over. The password is made inside
//! `create` and goes nowhere but into Secrets Manager. Found by its name.

use aws_sdk_secretsmanager::types::{ReplicaRegionType, StatusType, Tag};
use rand::RngExt;
use rand::distr::Alphanumeric;
use serde::{Deserialize, Serialize};

use crate::error::{KindError, absent};
use crate::kind::{Found, Kind, Live, RESOURCE_TAG, STACK_TAG, Site, tags};

/// Aurora allows 8 to 99 characters; 40 alphanumeric ones carry 238 bits.
const PASSWORD_LENGTH: usize = 40;

/// The kind.
#[derive(Debug)]
pub struct Secret;

/// What we want.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Spec {
    /// Its name.
    pub name: String,
    /// What it is for.
    pub description: String,
    /// The key that encrypts it.
    pub kms_key_arn: String,
    /// The user in it. Part of the secret, and so not compared.
    pub username: String,
    /// The database in it. The same.
    pub dbname: String,
    /// Where it is replicated to.
    pub replica: Replica,
    /// It can be read: not scheduled for deletion.
    pub readable: bool,
}

/// A replica of a secret.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Replica {
    /// The region.
    pub region: String,
    /// The key of that region that encrypts it.
    pub kms_key_arn: String,
}

/// What others refer to.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Outputs {
    /// Its name, the same in both regions.
    pub name: String,
    /// Its ARN in its home region.
    pub arn: String,
}

impl Kind for Secret {
    const NAME: &'static str = "secret";
    const STATEFUL: bool = true;

    type Spec = Spec;
    type Outputs = Outputs;

    async fn observe(site: &Site<'_>, spec: &Spec) -> Result<Option<Live<Spec, Outputs>>, KindError> {
        let result = site
            .cloud
            .secrets(site.region)
            .describe_secret()
            .secret_id(&spec.name)
            .send()
            .await;
        let answer = absent(result, &["ResourceNotFoundException"])
            .map_err(|e| site.fail("DescribeSecret", &spec.name, e))?;
        let Some(secret) = answer else { return Ok(None) };
        let status = secret
            .replication_status()
            .iter()
            .find(|status| status.region() == Some(&spec.replica.region));
        let replica = match status {
            Some(status) if status.status() != Some(&StatusType::Failed) => Replica {
                region: spec.replica.region.clone(),
                kms_key_arn: status.kms_key_id().unwrap_or_default().to_owned(),
            },
            _ => Replica {
                region: String::new(),
                kms_key_arn: String::new(),
            },
        };
        let settling = status
            .filter(|status| status.status() == Some(&StatusType::InProgress))
            .map(|_| format!("replication to {} is in progress", spec.replica.region));
        Ok(Some(Live {
            spec: Spec {
                name: spec.name.clone(),
                description: secret.description().unwrap_or_default().to_owned(),
                kms_key_arn: secret.kms_key_id().unwrap_or_default().to_owned(),
                username: spec.username.clone(),
                dbname: spec.dbname.clone(),
                replica,
                readable: secret.deleted_date().is_none(),
            },
            outputs: Outputs {
                name: spec.name.clone(),
                arn: secret.arn().unwrap_or_default().to_owned(),
            },
            settling,
        }))
    }

    /// Leaves the replica to `update`.
    async fn create(site: &Site<'_>, spec: &Spec) -> Result<(), KindError> {
        let content = serde_json::json!({
            "username": spec.username,
            "password": password(),
            "dbname": spec.dbname,
        });
        let tags = tags(site)
            .into_iter()
            .map(|(key, value)| Tag::builder().key(key).value(value).build())
            .collect();
        let result = site
            .cloud
            .secrets(site.region)
            .create_secret()
            .name(&spec.name)
            .description(&spec.description)
            .kms_key_id(&spec.kms_key_arn)
            .secret_string(content.to_string())
            .set_tags(Some(tags))
            .send()
            .await;
        absent(result, &["ResourceExistsException"]).map_err(|e| site.fail("CreateSecret", &spec.name, e))?;
        Ok(())
    }

    async fn update(site: &Site<'_>, spec: &Spec, live: &Live<Spec, Outputs>) -> Result<(), KindError> {
        let secrets = site.cloud.secrets(site.region);
        if !live.spec.readable {
            let result = secrets.restore_secret().secret_id(&spec.name).send().await;
            result.map_err(|e| site.fail("RestoreSecret", &spec.name, e))?;
        }
        if spec.kms_key_arn != live.spec.kms_key_arn || spec.description != live.spec.description {
            secrets
                .update_secret()
                .secret_id(&spec.name)
                .description(&spec.description)
                .kms_key_id(&spec.kms_key_arn)
                .send()
                .await
                .map_err(|e| site.fail("UpdateSecret", &spec.name, e))?;
        }
        if spec.replica != live.spec.replica {
            let replica = ReplicaRegionType::builder()
                .region(&spec.replica.region)
                .kms_key_id(&spec.replica.kms_key_arn)
                .build();
            secrets
                .replicate_secret_to_regions()
                .secret_id(&spec.name)
                .add_replica_regions(replica)
                .force_overwrite_replica_secret(true)
                .send()
                .await
                .map_err(|e| site.fail("ReplicateSecretToRegions", &spec.name, e))?;
        }
        Ok(())
    }

    /// 1. Takes the replica away: AWS does not delete a secret that has one.
    /// 2. Deletes it at once. The database it opens is gone by then.
    async fn delete(site: &Site<'_>, live: &Live<Spec, Outputs>) -> Result<(), KindError> {
        let secrets = site.cloud.secrets(site.region);
        let name = &live.spec.name;
        let gone = &["ResourceNotFoundException"];
        if !live.spec.replica.region.is_empty() {
            let request = secrets.remove_regions_from_replication().secret_id(name);
            let result = request
                .remove_replica_regions(&live.spec.replica.region)
                .send()
                .await;
            absent(result, gone).map_err(|e| site.fail("RemoveRegionsFromReplication", name, e))?;
        }
        let result = secrets
            .delete_secret()
            .secret_id(name)
            .force_delete_without_recovery(true)
            .send()
            .await;
        absent(result, gone).map_err(|e| site.fail("DeleteSecret", name, e))?;
        Ok(())
    }

    async fn list(site: &Site<'_>) -> Result<Vec<Found>, KindError> {
        let mut pages = site
            .cloud
            .secrets(site.region)
            .list_secrets()
            .into_paginator()
            .send();
        let mut found = Vec::new();
        while let Some(page) = pages.next().await {
            let page = page.map_err(|e| site.fail("ListSecrets", site.suffix, e))?;
            for secret in page.secret_list() {
                let tag = |key| {
                    secret
                        .tags()
                        .iter()
                        .find(|tag| tag.key() == Some(key))
                        .and_then(Tag::value)
                };
                if tag(STACK_TAG) == Some(site.suffix) {
                    let key = tag(RESOURCE_TAG).map(str::to_owned);
                    found.push(site.found::<Secret>(secret.name().unwrap_or_default(), key));
                }
            }
        }
        Ok(found)
    }
}

fn password() -> String {
    rand::rng()
        .sample_iter(Alphanumeric)
        .take(PASSWORD_LENGTH)
        .map(char::from)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passwords_are_long_and_hold_nothing_that_aurora_refuses() {
        let (one, two) = (password(), password());
        assert_ne!(one, two);
        assert_eq!(one.len(), PASSWORD_LENGTH);
        assert!(one.bytes().all(|b| b.is_ascii_alphanumeric()));
    }
}
