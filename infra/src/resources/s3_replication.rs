//! Replication of a bucket into another region: one rule per direction, two directions make it two-way. Replication time
//! control comes with metrics (AWS demands both), delete markers and metadata changes of replicas go along.

use aws_sdk_s3::types::{
    DeleteMarkerReplication, DeleteMarkerReplicationStatus, Destination, EncryptionConfiguration, Metrics,
    MetricsStatus, ReplicaModifications, ReplicaModificationsStatus, ReplicationConfiguration,
    ReplicationRule, ReplicationRuleFilter, ReplicationRuleStatus, ReplicationTime, ReplicationTimeStatus,
    ReplicationTimeValue, SourceSelectionCriteria, SseKmsEncryptedObjects, SseKmsEncryptedObjectsStatus,
};
use serde::{Deserialize, Serialize};

use crate::error::{KindError, absent};
use crate::kind::{Found, Kind, Live, Site};

/// The only threshold that replication time control knows.
pub const TIME_CONTROL_MINUTES: i32 = 15;

/// The kind.
#[derive(Debug)]
pub struct S3Replication;

/// What we want.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Spec {
    /// The source bucket, in the site's region.
    pub bucket: String,
    /// The role that S3 takes to replicate.
    pub role_arn: String,
    /// The rules, all of them.
    pub rules: Vec<Rule>,
}

/// One rule, for the whole bucket.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Rule {
    /// Its name.
    pub id: String,
    /// Which of several rules wins; unique in the bucket.
    pub priority: i32,
    /// It is switched on.
    pub enabled: bool,
    /// It covers every object. Always; but somebody may have narrowed it.
    pub whole_bucket: bool,
    /// ARN of the destination bucket.
    pub destination_arn: String,
    /// ARN of the key, in the destination's region, that replicas are encrypted with. Objects encrypted with KMS are
    /// replicated only when there is one.
    pub replica_kms_key_arn: Option<String>,
    /// Minutes of replication time control, with its metrics and events.
    pub time_control_minutes: Option<i32>,
    /// A delete here hides the object there.
    pub delete_markers: bool,
    /// Tags and metadata changed at a replica come back.
    pub replica_modifications: bool,
}

impl Rule {
    /// Everything on: what a two-way pair needs.
    pub fn full(destination_arn: impl Into<String>, replica_kms_key_arn: Option<String>) -> Self {
        Rule {
            id: "everything".into(),
            priority: 1,
            enabled: true,
            whole_bucket: true,
            destination_arn: destination_arn.into(),
            replica_kms_key_arn,
            time_control_minutes: Some(TIME_CONTROL_MINUTES),
            delete_markers: true,
            replica_modifications: true,
        }
    }
}

/// Nothing refers to it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outputs {}

impl Kind for S3Replication {
    const NAME: &'static str = "s3-replication";
    const IMMUTABLE: &'static [&'static str] = &["bucket"];

    type Spec = Spec;
    type Outputs = Outputs;

    async fn observe(site: &Site<'_>, spec: &Spec) -> Result<Option<Live<Spec, Outputs>>, KindError> {
        let bucket = &spec.bucket;
        let result = site
            .cloud
            .s3(site.region)
            .get_bucket_replication()
            .bucket(bucket)
            .send()
            .await;
        let answer = absent(result, &["NoSuchBucket", "ReplicationConfigurationNotFoundError"])
            .map_err(|e| site.fail("GetBucketReplication", bucket, e))?;
        Ok(answer
            .and_then(|answer| answer.replication_configuration)
            .map(|live| Live {
                spec: Spec {
                    bucket: bucket.clone(),
                    role_arn: live.role().to_owned(),
                    rules: live.rules().iter().map(read).collect(),
                },
                outputs: Outputs {},
                settling: None,
            }))
    }

    async fn create(site: &Site<'_>, spec: &Spec) -> Result<(), KindError> {
        let configuration = ReplicationConfiguration::builder()
            .role(&spec.role_arn)
            .set_rules(Some(spec.rules.iter().map(written).collect()))
            .build()
            .expect("role and rules are given");
        site.cloud
            .s3(site.region)
            .put_bucket_replication()
            .bucket(&spec.bucket)
            .replication_configuration(configuration)
            .send()
            .await
            .map_err(|e| site.fail("PutBucketReplication", &spec.bucket, e))?;
        Ok(())
    }

    async fn update(site: &Site<'_>, spec: &Spec, _live: &Live<Spec, Outputs>) -> Result<(), KindError> {
        Self::create(site, spec).await
    }

    async fn delete(site: &Site<'_>, live: &Live<Spec, Outputs>) -> Result<(), KindError> {
        Self::discard(site, &live.spec.bucket).await
    }

    async fn discard(site: &Site<'_>, bucket: &str) -> Result<(), KindError> {
        let result = site
            .cloud
            .s3(site.region)
            .delete_bucket_replication()
            .bucket(bucket)
            .send()
            .await;
        absent(result, &["NoSuchBucket"]).map_err(|e| site.fail("DeleteBucketReplication", bucket, e))?;
        Ok(())
    }

    /// Goes with its bucket.
    async fn list(_site: &Site<'_>) -> Result<Vec<Found>, KindError> {
        Ok(Vec::new())
    }
}

/// Version 2 of the rule format: `Filter`, `Priority`, `Status` and `DeleteMarkerReplication` are all there.
fn written(rule: &Rule) -> ReplicationRule {
    let minutes = |minutes| ReplicationTimeValue::builder().minutes(minutes).build();
    let time = rule.time_control_minutes.map(|threshold| {
        ReplicationTime::builder()
            .status(ReplicationTimeStatus::Enabled)
            .time(minutes(threshold))
            .build()
    });
    let metrics = rule.time_control_minutes.map(|threshold| {
        Metrics::builder()
            .status(MetricsStatus::Enabled)
            .event_threshold(minutes(threshold))
            .build()
    });
    let destination = Destination::builder()
        .bucket(&rule.destination_arn)
        .set_replication_time(time.map(|time| time.expect("status and time are given")))
        .set_metrics(metrics.map(|metrics| metrics.expect("the status is given")))
        .set_encryption_configuration(
            rule.replica_kms_key_arn
                .as_ref()
                .map(|key| EncryptionConfiguration::builder().replica_kms_key_id(key).build()),
        )
        .build()
        .expect("the bucket is given");
    let modifications = if rule.replica_modifications {
        ReplicaModificationsStatus::Enabled
    } else {
        ReplicaModificationsStatus::Disabled
    };
    let encrypted = rule.replica_kms_key_arn.as_ref().map(|_| {
        SseKmsEncryptedObjects::builder()
            .status(SseKmsEncryptedObjectsStatus::Enabled)
            .build()
            .expect("the status is given")
    });
    let selection = SourceSelectionCriteria::builder()
        .replica_modifications(
            ReplicaModifications::builder()
                .status(modifications)
                .build()
                .expect("the status is given"),
        )
        .set_sse_kms_encrypted_objects(encrypted)
        .build();
    let markers = if rule.delete_markers {
        DeleteMarkerReplicationStatus::Enabled
    } else {
        DeleteMarkerReplicationStatus::Disabled
    };
    let status = if rule.enabled {
        ReplicationRuleStatus::Enabled
    } else {
        ReplicationRuleStatus::Disabled
    };
    ReplicationRule::builder()
        .id(&rule.id)
        .priority(rule.priority)
        .status(status)
        .filter(ReplicationRuleFilter::builder().prefix("").build())
        .destination(destination)
        .source_selection_criteria(selection)
        .delete_marker_replication(DeleteMarkerReplication::builder().status(markers).build())
        .build()
        .expect("status and destination are given")
}

fn read(rule: &ReplicationRule) -> Rule {
    let destination = rule.destination();
    let selection = rule.source_selection_criteria();
    let timed = destination
        .and_then(Destination::replication_time)
        .filter(|time| time.status() == &ReplicationTimeStatus::Enabled)
        .and_then(ReplicationTime::time)
        .and_then(ReplicationTimeValue::minutes);
    // Time control without its metrics is not what we ask for: it reads as none.
    let measured = destination
        .and_then(Destination::metrics)
        .is_some_and(|metrics| metrics.status() == &MetricsStatus::Enabled);
    let encrypted = selection
        .and_then(SourceSelectionCriteria::sse_kms_encrypted_objects)
        .is_some_and(|objects| objects.status() == &SseKmsEncryptedObjectsStatus::Enabled);
    Rule {
        id: rule.id().unwrap_or_default().to_owned(),
        priority: rule.priority().unwrap_or_default(),
        enabled: rule.status() == &ReplicationRuleStatus::Enabled,
        whole_bucket: rule.filter().is_some_and(|filter| {
            filter.prefix().is_none_or(str::is_empty) && filter.tag().is_none() && filter.and().is_none()
        }),
        destination_arn: destination
            .map(|destination| destination.bucket().to_owned())
            .unwrap_or_default(),
        replica_kms_key_arn: destination
            .and_then(Destination::encryption_configuration)
            .and_then(EncryptionConfiguration::replica_kms_key_id)
            .filter(|_| encrypted)
            .map(str::to_owned),
        time_control_minutes: timed.filter(|_| measured),
        delete_markers: rule
            .delete_marker_replication()
            .and_then(DeleteMarkerReplication::status)
            .is_some_and(|status| status == &DeleteMarkerReplicationStatus::Enabled),
        replica_modifications: selection
            .and_then(SourceSelectionCriteria::replica_modifications)
            .is_some_and(|changes| changes.status() == &ReplicaModificationsStatus::Enabled),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn what_is_written_is_read_back() {
        let full = Rule::full("arn:aws:s3:::there", Some("arn:aws:kms:us-east-2:0:key/k".into()));
        let plain = Rule {
            replica_kms_key_arn: None,
            time_control_minutes: None,
            delete_markers: false,
            replica_modifications: false,
            enabled: false,
            ..full.clone()
        };
        for rule in [full, plain] {
            assert_eq!(read(&written(&rule)), rule);
        }
    }

    #[test]
    fn time_control_never_goes_without_metrics() {
        let rule = written(&Rule::full("arn:aws:s3:::there", None));
        let destination = rule.destination().unwrap();
        assert_eq!(
            destination.replication_time().unwrap().time(),
            destination.metrics().unwrap().event_threshold()
        );
    }

    #[test]
    fn every_rule_has_what_version_2_demands() {
        let rule = written(&Rule::full("arn:aws:s3:::there", None));
        assert!(
            rule.filter().is_some()
                && rule.priority().is_some()
                && rule.delete_marker_replication().is_some()
        );
    }
}
