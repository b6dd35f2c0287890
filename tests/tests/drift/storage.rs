//! Buckets, and what is set on them.

use aws_sdk_s3::types::{
    BucketLifecycleConfiguration, BucketVersioningStatus, ExpirationStatus, LifecycleRule,
    LifecycleRuleFilter, NoncurrentVersionExpiration, ObjectOwnership, OwnershipControls,
    OwnershipControlsRule, PublicAccessBlockConfiguration, ReplicationRuleStatus, ServerSideEncryption,
    ServerSideEncryptionByDefault, ServerSideEncryptionConfiguration, ServerSideEncryptionRule,
    VersioningConfiguration,
};
use continuity::names::{Names, Slot};
use understudy_tests::stack::ACCOUNT;

use crate::live::{Change, HOME, Live, STANDBY, WITNESS};
use crate::{differs, gone};

fn data(slot: Slot) -> String {
    Names::new("dev").data_bucket(slot, ACCOUNT)
}

fn artifacts(slot: Slot) -> String {
    Names::new("dev").artifact_bucket(slot, ACCOUNT)
}

/// A way around TLS.
fn without_tls(bucket: &str) -> String {
    serde_json::json!({"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Principal": {"AWS": ACCOUNT},
        "Action": "s3:GetObject", "Resource": format!("arn:aws:s3:::{bucket}/*")}]})
    .to_string()
}

async fn stop_replicating(live: &Live) {
    let s3 = live.cloud.s3(HOME);
    let bucket = data(Slot::Primary);
    let answer = s3.get_bucket_replication().bucket(&bucket).send().await.unwrap();
    let mut configuration = answer.replication_configuration.unwrap();
    configuration.rules[0].status = ReplicationRuleStatus::Disabled;
    let request = s3.put_bucket_replication().bucket(bucket);
    request
        .replication_configuration(configuration)
        .send()
        .await
        .unwrap();
}

/// Another key: the one that is not ours.
fn encryption() -> ServerSideEncryptionConfiguration {
    let by_default = ServerSideEncryptionByDefault::builder().sse_algorithm(ServerSideEncryption::Aes256);
    let rule = ServerSideEncryptionRule::builder()
        .apply_server_side_encryption_by_default(by_default.build().unwrap())
        .build();
    ServerSideEncryptionConfiguration::builder()
        .rules(rule)
        .build()
        .unwrap()
}

/// Old versions go tomorrow.
fn lifecycle() -> BucketLifecycleConfiguration {
    let rule = LifecycleRule::builder()
        .id("tidy")
        .status(ExpirationStatus::Enabled)
        .filter(LifecycleRuleFilter::builder().prefix("").build())
        .noncurrent_version_expiration(NoncurrentVersionExpiration::builder().noncurrent_days(1).build());
    BucketLifecycleConfiguration::builder()
        .rules(rule.build().unwrap())
        .build()
        .unwrap()
}

fn block_but_for_policies() -> PublicAccessBlockConfiguration {
    PublicAccessBlockConfiguration::builder()
        .block_public_acls(true)
        .ignore_public_acls(true)
        .restrict_public_buckets(true)
        .block_public_policy(false)
        .build()
}

fn writers_own() -> OwnershipControls {
    let rule = OwnershipControlsRule::builder().object_ownership(ObjectOwnership::ObjectWriter);
    OwnershipControls::builder()
        .rules(rule.build().unwrap())
        .build()
        .unwrap()
}

pub fn changes() -> Vec<Change> {
    vec![
        differs!("data-replication.primary", "rules", |live| stop_replicating(
            &live
        )
        .await),
        // In this order: S3 refuses to suspend the versions of what is replicated.
        gone!("data-replication.dr", |live| {
            let request = live.cloud.s3(STANDBY).delete_bucket_replication();
            request.bucket(data(Slot::Dr)).send().await.unwrap()
        }),
        gone!("data-versioning.dr", |live| {
            let suspended = VersioningConfiguration::builder().status(BucketVersioningStatus::Suspended);
            let request = live
                .cloud
                .s3(STANDBY)
                .put_bucket_versioning()
                .bucket(data(Slot::Dr));
            request
                .versioning_configuration(suspended.build())
                .send()
                .await
                .unwrap()
        }),
        // S3 encrypts with its own key whatever is asked: that is what a bucket without a configuration does.
        gone!("data-encryption.primary", |live| {
            let request = live
                .cloud
                .s3(HOME)
                .put_bucket_encryption()
                .bucket(data(Slot::Primary));
            request
                .server_side_encryption_configuration(encryption())
                .send()
                .await
                .unwrap()
        }),
        gone!("data-lifecycle.dr", |live| {
            let request = live.cloud.s3(STANDBY).delete_bucket_lifecycle();
            request.bucket(data(Slot::Dr)).send().await.unwrap()
        }),
        differs!("data-lifecycle.primary", "rules", |live| {
            let request = live.cloud.s3(HOME).put_bucket_lifecycle_configuration();
            let request = request
                .bucket(data(Slot::Primary))
                .lifecycle_configuration(lifecycle());
            request.send().await.unwrap()
        }),
        gone!("data-policy.primary", |live| {
            let request = live.cloud.s3(HOME).delete_bucket_policy();
            request.bucket(data(Slot::Primary)).send().await.unwrap()
        }),
        differs!("artifacts-policy.dr", "policy", |live| {
            let bucket = artifacts(Slot::Dr);
            let request = live
                .cloud
                .s3(STANDBY)
                .put_bucket_policy()
                .policy(without_tls(&bucket));
            request.bucket(bucket).send().await.unwrap()
        }),
        gone!("artifacts-public-access-block.witness", |live| {
            let request = live.cloud.s3(WITNESS).delete_public_access_block();
            request.bucket(artifacts(Slot::Witness)).send().await.unwrap()
        }),
        differs!("data-public-access-block.dr", "block_public_policy", false => true, |live| {
            let request = live.cloud.s3(STANDBY).put_public_access_block().bucket(data(Slot::Dr));
            request.public_access_block_configuration(block_but_for_policies()).send().await.unwrap()
        }),
        differs!("data-ownership.primary", "ownership", "ObjectWriter" => "BucketOwnerEnforced", |live| {
            let request = live.cloud.s3(HOME).put_bucket_ownership_controls().bucket(data(Slot::Primary));
            request.ownership_controls(writers_own()).send().await.unwrap()
        }),
        differs!("artifacts.primary", "tagged", false => true, |live| {
            let request = live.cloud.s3(HOME).delete_bucket_tagging();
            request.bucket(artifacts(Slot::Primary)).send().await.unwrap()
        }),
    ]
}

pub async fn is_repaired(live: &Live) {
    for (region, slot) in [(HOME, Slot::Primary), (STANDBY, Slot::Dr)] {
        let request = live.cloud.s3(region).get_bucket_replication().bucket(data(slot));
        let answer = request.send().await.unwrap();
        let rules = answer.replication_configuration().unwrap().rules();
        assert_eq!(rules[0].status(), &ReplicationRuleStatus::Enabled, "{slot}");
    }
    let request = live
        .cloud
        .s3(STANDBY)
        .get_bucket_versioning()
        .bucket(data(Slot::Dr));
    let answer = request.send().await.unwrap();
    assert_eq!(answer.status(), Some(&BucketVersioningStatus::Enabled));
}
