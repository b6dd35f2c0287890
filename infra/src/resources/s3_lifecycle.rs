//! The lifecycle of a versioned bucket: old versions, lonely delete markers and unfinished uploads do not pile up.

use aws_sdk_s3::types::{
    AbortIncompleteMultipartUpload, BucketLifecycleConfiguration, ExpirationStatus, LifecycleExpiration,
    LifecycleRule, LifecycleRuleFilter, NoncurrentVersionExpiration,
};
use serde::{Deserialize, Serialize};

use crate::error::{KindError, absent};
use crate::kind::{Found, Kind, Live, Site};

/// The kind.
#[derive(Debug)]
pub struct S3Lifecycle;

/// What we want.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Spec {
    /// The bucket.
    pub bucket: String,
    /// The rules, all of them: a rule that is not here is removed.
    pub rules: Vec<Rule>,
}

/// One rule, for the whole bucket.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Rule {
    /// Its name.
    pub id: String,
    /// Versions that were replaced or deleted this many days ago go.
    pub noncurrent_days: Option<i32>,
    /// Uploads begun this many days ago and not finished go.
    pub unfinished_upload_days: Option<i32>,
    /// A delete marker with nothing behind it goes.
    pub lonely_delete_markers: bool,
    /// Current versions of this age go. Never; but somebody may have asked for it.
    pub expiration_days: Option<i32>,
}

/// Nothing refers to it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outputs {}

impl Kind for S3Lifecycle {
    const NAME: &'static str = "s3-lifecycle";
    const IMMUTABLE: &'static [&'static str] = &["bucket"];

    type Spec = Spec;
    type Outputs = Outputs;

    async fn observe(site: &Site<'_>, spec: &Spec) -> Result<Option<Live<Spec, Outputs>>, KindError> {
        let bucket = &spec.bucket;
        let result = site
            .cloud
            .s3(site.region)
            .get_bucket_lifecycle_configuration()
            .bucket(bucket)
            .send()
            .await;
        let answer = absent(result, &["NoSuchBucket", "NoSuchLifecycleConfiguration"])
            .map_err(|e| site.fail("GetBucketLifecycleConfiguration", bucket, e))?;
        Ok(answer.map(|answer| Live {
            spec: Spec {
                bucket: bucket.clone(),
                rules: answer.rules().iter().map(read).collect(),
            },
            outputs: Outputs {},
            settling: None,
        }))
    }

    async fn create(site: &Site<'_>, spec: &Spec) -> Result<(), KindError> {
        let rules = spec.rules.iter().map(written).collect();
        let configuration = BucketLifecycleConfiguration::builder()
            .set_rules(Some(rules))
            .build()
            .expect("rules are given");
        site.cloud
            .s3(site.region)
            .put_bucket_lifecycle_configuration()
            .bucket(&spec.bucket)
            .lifecycle_configuration(configuration)
            .send()
            .await
            .map_err(|e| site.fail("PutBucketLifecycleConfiguration", &spec.bucket, e))?;
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
            .delete_bucket_lifecycle()
            .bucket(bucket)
            .send()
            .await;
        absent(result, &["NoSuchBucket"]).map_err(|e| site.fail("DeleteBucketLifecycle", bucket, e))?;
        Ok(())
    }

    /// Goes with its bucket.
    async fn list(_site: &Site<'_>) -> Result<Vec<Found>, KindError> {
        Ok(Vec::new())
    }
}

fn written(rule: &Rule) -> LifecycleRule {
    LifecycleRule::builder()
        .id(&rule.id)
        .status(ExpirationStatus::Enabled)
        .filter(LifecycleRuleFilter::builder().prefix("").build())
        .set_noncurrent_version_expiration(rule.noncurrent_days.map(|days| {
            NoncurrentVersionExpiration::builder()
                .noncurrent_days(days)
                .build()
        }))
        .set_abort_incomplete_multipart_upload(rule.unfinished_upload_days.map(|days| {
            AbortIncompleteMultipartUpload::builder()
                .days_after_initiation(days)
                .build()
        }))
        .set_expiration(match (rule.lonely_delete_markers, rule.expiration_days) {
            // S3 takes one of the two.
            (_, Some(days)) => Some(LifecycleExpiration::builder().days(days).build()),
            (true, None) => Some(
                LifecycleExpiration::builder()
                    .expired_object_delete_marker(true)
                    .build(),
            ),
            (false, None) => None,
        })
        .build()
        .expect("the status is given")
}

/// A rule that is switched off reads as one that does nothing.
fn read(rule: &LifecycleRule) -> Rule {
    let id = rule.id().unwrap_or_default().to_owned();
    if rule.status() != &ExpirationStatus::Enabled {
        return Rule {
            id,
            ..Rule::default()
        };
    }
    Rule {
        id,
        noncurrent_days: rule
            .noncurrent_version_expiration()
            .and_then(NoncurrentVersionExpiration::noncurrent_days),
        unfinished_upload_days: rule
            .abort_incomplete_multipart_upload()
            .and_then(AbortIncompleteMultipartUpload::days_after_initiation),
        lonely_delete_markers: rule
            .expiration()
            .and_then(LifecycleExpiration::expired_object_delete_marker)
            .unwrap_or(false),
        expiration_days: rule.expiration().and_then(LifecycleExpiration::days),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_back() {
        for rule in [
            Rule {
                id: "all".into(),
                noncurrent_days: Some(30),
                unfinished_upload_days: Some(7),
                lonely_delete_markers: true,
                expiration_days: None,
            },
            Rule {
                id: "one".into(),
                unfinished_upload_days: Some(1),
                ..Rule::default()
            },
        ] {
            assert_eq!(read(&written(&rule)), rule);
        }
    }
}
