//! The policy of a bucket. The stack has one: whatever does not come over TLS is denied.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::documents::normal_policy;
use crate::error::{KindError, absent};
use crate::kind::{Found, Kind, Live, Site};

/// The kind.
#[derive(Debug)]
pub struct S3Policy;

/// What we want.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Spec {
    /// The bucket.
    pub bucket: String,
    /// The policy, in its normal form.
    pub policy: Value,
}

impl Spec {
    /// Denies every request to the bucket that does not use TLS.
    pub fn tls_only(bucket: impl Into<String>) -> Self {
        let bucket = bucket.into();
        let policy = json!({
            "Version": "2012-10-17",
            "Statement": [{
                "Sid": "TlsOnly",
                "Effect": "Deny",
                "Principal": "*",
                "Action": "s3:*",
                "Resource": [format!("arn:aws:s3:::{bucket}"), format!("arn:aws:s3:::{bucket}/*")],
                "Condition": {"Bool": {"aws:SecureTransport": "false"}},
            }],
        });
        Spec {
            bucket,
            policy: normal_policy(&policy),
        }
    }
}

/// Nothing refers to it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outputs {}

impl Kind for S3Policy {
    const NAME: &'static str = "s3-policy";
    const IMMUTABLE: &'static [&'static str] = &["bucket"];

    type Spec = Spec;
    type Outputs = Outputs;

    async fn observe(site: &Site<'_>, spec: &Spec) -> Result<Option<Live<Spec, Outputs>>, KindError> {
        let bucket = &spec.bucket;
        let result = site
            .cloud
            .s3(site.region)
            .get_bucket_policy()
            .bucket(bucket)
            .send()
            .await;
        let answer = absent(result, &["NoSuchBucket", "NoSuchBucketPolicy"])
            .map_err(|e| site.fail("GetBucketPolicy", bucket, e))?;
        Ok(answer.and_then(|answer| answer.policy).map(|text| Live {
            // What is not JSON is a difference too.
            spec: Spec {
                bucket: bucket.clone(),
                policy: serde_json::from_str(&text)
                    .map_or(Value::String(text), |policy| normal_policy(&policy)),
            },
            outputs: Outputs {},
            settling: None,
        }))
    }

    async fn create(site: &Site<'_>, spec: &Spec) -> Result<(), KindError> {
        site.cloud
            .s3(site.region)
            .put_bucket_policy()
            .bucket(&spec.bucket)
            .policy(spec.policy.to_string())
            .send()
            .await
            .map_err(|e| site.fail("PutBucketPolicy", &spec.bucket, e))?;
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
            .delete_bucket_policy()
            .bucket(bucket)
            .send()
            .await;
        absent(result, &["NoSuchBucket", "NoSuchBucketPolicy"])
            .map_err(|e| site.fail("DeleteBucketPolicy", bucket, e))?;
        Ok(())
    }

    /// Goes with its bucket.
    async fn list(_site: &Site<'_>) -> Result<Vec<Found>, KindError> {
        Ok(Vec::new())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_policy_denies_everything_without_tls_on_the_bucket_and_in_it() {
        let statement = &Spec::tls_only("b").policy["Statement"][0];
        assert_eq!(statement["Effect"], "Deny");
        assert_eq!(
            statement["Resource"],
            json!(["arn:aws:s3:::b", "arn:aws:s3:::b/*"])
        );
        assert_eq!(
            statement["Condition"],
            json!({"Bool": {"aws:SecureTransport": ["false"]}})
        );
    }
}
