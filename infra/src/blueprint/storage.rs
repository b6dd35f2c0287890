//! Buckets: one per slot for the functions' packages, one per serving slot for data, the latter replicated both ways.

use continuity::names::Slot;
use serde_json::{Value, json};

use super::Context;
use super::keys::Key;
use super::roles::{self, Role};
use crate::graph::{Blueprint, Handle};
use crate::resources::s3_bucket::{self, S3Bucket};
use crate::resources::s3_encryption::{self, S3Encryption};
use crate::resources::s3_lifecycle::{self, S3Lifecycle};
use crate::resources::s3_ownership::{self, S3Ownership};
use crate::resources::s3_policy::{self, S3Policy};
use crate::resources::s3_public_access_block::{self, S3PublicAccessBlock};
use crate::resources::s3_replication::{self, S3Replication};
use crate::resources::s3_versioning::{self, S3Versioning};

/// Days until an upload that was begun and not finished goes.
const UNFINISHED_UPLOAD_DAYS: i32 = 7;

/// The bucket that a slot's functions come from. Packages lie under their own hash, so there is nothing to version.
pub fn artifacts(blueprint: &mut Blueprint, context: &Context<'_>, slot: Slot) -> Handle<S3Bucket> {
    let name = context.names.artifact_bucket(slot, context.account);
    bucket(blueprint, context, slot, "artifacts", name)
}

/// The data buckets of both serving slots. `keys` encrypt them, home first.
pub fn data(blueprint: &mut Blueprint, context: &Context<'_>, keys: &[Key; 2]) {
    let names = Slot::SERVING.map(|slot| context.names.data_bucket(slot, context.account));
    let mut versioned = Vec::new();
    for ((slot, name), key) in Slot::SERVING.into_iter().zip(&names).zip(keys) {
        let place = context.place(slot);
        let bucket = bucket(blueprint, context, slot, "data", name.clone());
        let versioning: Handle<S3Versioning> = blueprint.add(
            format!("data-versioning.{slot}"),
            &place,
            bucket.clone(),
            |bucket| s3_versioning::Spec {
                bucket: bucket.bucket,
            },
        );
        let _: Handle<S3Encryption> = blueprint.add(
            format!("data-encryption.{slot}"),
            &place,
            (bucket.clone(), key.clone()),
            |(bucket, kms_key_arn)| s3_encryption::Spec {
                bucket: bucket.bucket,
                kms_key_arn,
                bucket_key: true,
            },
        );
        let old_version_days = i32::try_from(context.spec.retention.old_version_days).unwrap_or(i32::MAX);
        let _: Handle<S3Lifecycle> = blueprint.add(
            format!("data-lifecycle.{slot}"),
            &place,
            versioning.clone(),
            move |bucket| s3_lifecycle::Spec {
                bucket: bucket.bucket,
                rules: vec![tidy(old_version_days)],
            },
        );
        versioned.push(versioning);
    }
    for (here, there) in [(0, 1), (1, 0)] {
        let slot = Slot::SERVING[here];
        let role = replication_role(
            blueprint,
            context,
            slot,
            [&names[here], &names[there]],
            [&keys[here], &keys[there]],
        );
        let refs = (
            versioned[here].clone(),
            versioned[there].clone(),
            role.role.clone(),
            keys[there].clone(),
        );
        let replication: Handle<S3Replication> = blueprint.add(
            format!("data-replication.{slot}"),
            &context.place(slot),
            refs,
            |(source, target, role, replica_kms_key_arn)| s3_replication::Spec {
                bucket: source.bucket,
                role_arn: role.arn,
                rules: vec![s3_replication::Rule::full(
                    format!("arn:aws:s3:::{}", target.bucket),
                    Some(replica_kms_key_arn),
                )],
            },
        );
        role.before(blueprint, &replication);
    }
}

/// A bucket that nobody reaches without TLS and the public not at all.
fn bucket(
    blueprint: &mut Blueprint,
    context: &Context<'_>,
    slot: Slot,
    what: &str,
    name: String,
) -> Handle<S3Bucket> {
    let place = context.place(slot);
    let bucket = blueprint.add(format!("{what}.{slot}"), &place, (), move |()| s3_bucket::Spec {
        bucket: name.clone(),
        tagged: true,
    });
    let block: Handle<S3PublicAccessBlock> = blueprint.add(
        format!("{what}-public-access-block.{slot}"),
        &place,
        bucket.clone(),
        |bucket: s3_bucket::Outputs| s3_public_access_block::Spec::all(bucket.bucket),
    );
    let policy: Handle<S3Policy> = blueprint.add(
        format!("{what}-policy.{slot}"),
        &place,
        bucket.clone(),
        |bucket: s3_bucket::Outputs| s3_policy::Spec::tls_only(bucket.bucket),
    );
    let ownership: Handle<S3Ownership> = blueprint.add(
        format!("{what}-ownership.{slot}"),
        &place,
        bucket.clone(),
        |bucket: s3_bucket::Outputs| s3_ownership::Spec::enforced(bucket.bucket),
    );
    // S3 refuses to change two of them at once.
    blueprint.order(&policy, &block);
    blueprint.order(&ownership, &policy);
    bucket
}

fn tidy(old_version_days: i32) -> s3_lifecycle::Rule {
    s3_lifecycle::Rule {
        id: "tidy".into(),
        noncurrent_days: Some(old_version_days),
        unfinished_upload_days: Some(UNFINISHED_UPLOAD_DAYS),
        lonely_delete_markers: true,
        expiration_days: None,
    }
}

/// The role that S3 takes to replicate out of a slot's bucket. `names` and `keys` are source and target.
fn replication_role(
    blueprint: &mut Blueprint,
    context: &Context<'_>,
    slot: Slot,
    names: [&String; 2],
    keys: [&Key; 2],
) -> Role {
    let [source, target] = names.map(|name| format!("arn:aws:s3:::{name}"));
    let home = context.region(slot).to_owned();
    let away = context.spec.regions.peer_of(&home).unwrap_or(&home).to_owned();
    roles::service(
        blueprint,
        context,
        roles::Purpose {
            what: "s3-replication",
            slot,
            description: "Replicates the data bucket into the other region.",
            service: "s3.amazonaws.com",
        },
        [].into(),
        (keys[0].clone(), keys[1].clone()),
        move |(source_key, target_key)| statements(&source, &target, &source_key, &target_key, &home, &away),
    )
}

fn statements(
    source: &str,
    target: &str,
    source_key: &str,
    target_key: &str,
    home: &str,
    away: &str,
) -> Vec<Value> {
    let through_s3 =
        |region: &str| json!({"StringLike": {"kms:ViaService": format!("s3.{region}.amazonaws.com")}});
    vec![
        json!({"Sid": "ReadSource", "Effect": "Allow",
            "Action": ["s3:GetReplicationConfiguration", "s3:ListBucket"], "Resource": source}),
        json!({"Sid": "ReadVersions", "Effect": "Allow",
            "Action": ["s3:GetObjectVersionForReplication", "s3:GetObjectVersionAcl", "s3:GetObjectVersionTagging"],
            "Resource": format!("{source}/*")}),
        json!({"Sid": "WriteReplicas", "Effect": "Allow",
            "Action": ["s3:ReplicateObject", "s3:ReplicateDelete", "s3:ReplicateTags"],
            "Resource": format!("{target}/*")}),
        json!({"Sid": "DecryptSource", "Effect": "Allow", "Action": "kms:Decrypt",
            "Resource": source_key, "Condition": through_s3(home)}),
        json!({"Sid": "EncryptReplicas", "Effect": "Allow", "Action": "kms:Encrypt",
            "Resource": target_key, "Condition": through_s3(away)}),
    ]
}
