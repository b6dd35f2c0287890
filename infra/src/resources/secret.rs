//! A secret with generated database credentials, replicated to the region that takes over. The password is made inside
//! `create` and goes nowhere but into Secrets Manager. Found by its name.

use aws_sdk_secretsmanager::types::{ReplicaRegionType, SecretListEntry, StatusType, Tag};
use rand::seq::IndexedRandom;
use serde::{Deserialize, Serialize};

use super::tagging::{key_of, tagged};
use crate::error::{KindError, absent};
use crate::kind::{Found, Kind, Live, STACK_TAG, Site, tags};

const GONE: &[&str] = &["ResourceNotFoundException"];

/// How passwords are made.
#[derive(Debug, Clone, Copy)]
pub struct Generation {
    /// Characters.
    pub length: usize,
    /// Where each is drawn from.
    pub alphabet: &'static str,
}

/// Aurora allows 8 to 99 characters, but not `/`, `@`, `"` and spaces; 40 alphanumeric ones carry 238 bits. The checker looks at
/// this.
pub const PASSWORD: Generation = Generation {
    length: 40,
    alphabet: "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789",
};

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
    /// It carries our tags.
    pub tagged: bool,
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
    const ARNS: &'static [&'static str] = &["secretsmanager:secret:"];

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
        let answer = absent(result, GONE).map_err(|e| site.fail("DescribeSecret", &spec.name, e))?;
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
                tagged: tagged(site, tag_pairs(secret.tags())),
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
        let result = site
            .cloud
            .secrets(site.region)
            .create_secret()
            .name(&spec.name)
            .description(&spec.description)
            .kms_key_id(&spec.kms_key_arn)
            .secret_string(content.to_string())
            .set_tags(Some(our_tags(site)))
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
        if !live.spec.tagged {
            let request = secrets.tag_resource().secret_id(&spec.name);
            let result = request.set_tags(Some(our_tags(site))).send().await;
            result.map_err(|e| site.fail("TagResource", &spec.name, e))?;
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

    async fn delete(site: &Site<'_>, live: &Live<Spec, Outputs>) -> Result<(), KindError> {
        Self::discard(site, &live.spec.name).await
    }

    /// 1. Takes the replicas away: AWS does not delete a secret that has any, nor a replica by itself.
    /// 2. Deletes it at once. The database it opens is gone by then.
    async fn discard(site: &Site<'_>, name: &str) -> Result<(), KindError> {
        let secrets = site.cloud.secrets(site.region);
        let result = absent(secrets.describe_secret().secret_id(name).send().await, GONE);
        let Some(secret) = result.map_err(|e| site.fail("DescribeSecret", name, e))? else {
            return Ok(());
        };
        if let Some(home) = secret.primary_region().filter(|home| *home != site.region) {
            return remove_replicas(site, home, name, vec![site.region.to_owned()]).await;
        }
        let replicas = secret.replication_status().iter();
        let replicas: Vec<_> = replicas
            .filter_map(|status| status.region().map(str::to_owned))
            .collect();
        if !replicas.is_empty() {
            remove_replicas(site, site.region, name, replicas).await?;
        }
        let request = secrets.delete_secret().secret_id(name);
        let result = request.force_delete_without_recovery(true).send().await;
        absent(result, GONE).map_err(|e| site.fail("DeleteSecret", name, e))?;
        Ok(())
    }

    async fn list(site: &Site<'_>) -> Result<Vec<Found>, KindError> {
        let request = site.cloud.secrets(site.region).list_secrets();
        let pages: Result<Vec<_>, _> = request.into_paginator().send().collect().await;
        let pages = pages.map_err(|e| site.fail("ListSecrets", site.suffix, e))?;
        let ours =
            |secret: &&SecretListEntry| tag_pairs(secret.tags()).any(|tag| tag == (STACK_TAG, site.suffix));
        let found = |secret: &SecretListEntry| {
            let key = key_of(site, tag_pairs(secret.tags()));
            site.found::<Secret>(secret.name().unwrap_or_default(), key)
        };
        let secrets = pages.iter().flat_map(|page| page.secret_list());
        Ok(secrets.filter(ours).map(found).collect())
    }
}

/// Takes replicas of the secret away, in the region of the one that they replicate.
async fn remove_replicas(
    site: &Site<'_>,
    region: &str,
    name: &str,
    regions: Vec<String>,
) -> Result<(), KindError> {
    let request = site.cloud.secrets(region).remove_regions_from_replication();
    let request = request.secret_id(name).set_remove_replica_regions(Some(regions));
    absent(request.send().await, GONE).map_err(|e| site.fail("RemoveRegionsFromReplication", name, e))?;
    Ok(())
}

fn our_tags(site: &Site<'_>) -> Vec<Tag> {
    tags(site)
        .into_iter()
        .map(|(key, value)| Tag::builder().key(key).value(value).build())
        .collect()
}

fn tag_pairs(tags: &[Tag]) -> impl Iterator<Item = (&str, &str)> {
    tags.iter().filter_map(|tag| tag.key().zip(tag.value()))
}

fn password() -> String {
    let alphabet: Vec<char> = PASSWORD.alphabet.chars().collect();
    let mut rng = rand::rng();
    let draw = || alphabet.choose(&mut rng).copied();
    std::iter::repeat_with(draw)
        .map_while(|drawn| drawn)
        .take(PASSWORD.length)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passwords_are_long_and_hold_nothing_that_aurora_refuses() {
        let (one, two) = (password(), password());
        assert_ne!(one, two);
        assert_eq!(one.len(), PASSWORD.length);
        assert!(one.bytes().all(|b| b.is_ascii_alphanumeric()));
        let many: String = (0..100).map(|_| password()).collect();
        let unused = PASSWORD.alphabet.chars().find(|c| !many.contains(*c));
        assert_eq!(unused, None, "4000 characters hold each of 62");
    }
}
