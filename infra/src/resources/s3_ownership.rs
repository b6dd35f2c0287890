//! Who owns what is in a bucket: the bucket's owner, always, so that access control lists mean nothing.

use aws_sdk_s3::types::{ObjectOwnership, OwnershipControls, OwnershipControlsRule};
use serde::{Deserialize, Serialize};

use crate::error::{KindError, absent};
use crate::kind::{Found, Kind, Live, Site};

/// The kind.
#[derive(Debug)]
pub struct S3Ownership;

/// What we want.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Spec {
    /// The bucket.
    pub bucket: String,
    /// `BucketOwnerEnforced`.
    pub ownership: String,
}

impl Spec {
    /// Everything belongs to the bucket's owner.
    pub fn enforced(bucket: impl Into<String>) -> Self {
        Spec {
            bucket: bucket.into(),
            ownership: ObjectOwnership::BucketOwnerEnforced.as_str().to_owned(),
        }
    }
}

/// Nothing refers to it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outputs {}

impl Kind for S3Ownership {
    const NAME: &'static str = "s3-ownership";
    const IMMUTABLE: &'static [&'static str] = &["bucket"];

    type Spec = Spec;
    type Outputs = Outputs;

    async fn observe(site: &Site<'_>, spec: &Spec) -> Result<Option<Live<Spec, Outputs>>, KindError> {
        let request = site.cloud.s3(site.region).get_bucket_ownership_controls();
        let result = request.bucket(&spec.bucket).send().await;
        let answer = absent(result, &["NoSuchBucket", "OwnershipControlsNotFoundError"])
            .map_err(|e| site.fail("GetBucketOwnershipControls", &spec.bucket, e))?;
        let controls = answer.and_then(|answer| answer.ownership_controls);
        Ok(controls
            .and_then(|controls| read(&spec.bucket, &controls))
            .map(|spec| Live {
                spec,
                outputs: Outputs {},
                settling: None,
            }))
    }

    async fn create(site: &Site<'_>, spec: &Spec) -> Result<(), KindError> {
        let request = site.cloud.s3(site.region).put_bucket_ownership_controls();
        request
            .bucket(&spec.bucket)
            .ownership_controls(written(spec))
            .send()
            .await
            .map_err(|e| site.fail("PutBucketOwnershipControls", &spec.bucket, e))?;
        Ok(())
    }

    async fn update(site: &Site<'_>, spec: &Spec, _live: &Live<Spec, Outputs>) -> Result<(), KindError> {
        Self::create(site, spec).await
    }

    async fn delete(site: &Site<'_>, live: &Live<Spec, Outputs>) -> Result<(), KindError> {
        Self::discard(site, &live.spec.bucket).await
    }

    async fn discard(site: &Site<'_>, bucket: &str) -> Result<(), KindError> {
        let request = site.cloud.s3(site.region).delete_bucket_ownership_controls();
        let result = request.bucket(bucket).send().await;
        absent(result, &["NoSuchBucket", "OwnershipControlsNotFoundError"])
            .map_err(|e| site.fail("DeleteBucketOwnershipControls", bucket, e))?;
        Ok(())
    }

    /// Goes with its bucket.
    async fn list(_site: &Site<'_>) -> Result<Vec<Found>, KindError> {
        Ok(Vec::new())
    }
}

fn written(spec: &Spec) -> OwnershipControls {
    let rule = OwnershipControlsRule::builder()
        .object_ownership(ObjectOwnership::from(spec.ownership.as_str()))
        .build()
        .expect("the ownership is given");
    OwnershipControls::builder()
        .rules(rule)
        .build()
        .expect("a rule is given")
}

fn read(bucket: &str, controls: &OwnershipControls) -> Option<Spec> {
    let rule = controls.rules().first()?;
    Some(Spec {
        bucket: bucket.to_owned(),
        ownership: rule.object_ownership().as_str().to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_back() {
        let spec = Spec::enforced("b");
        assert_eq!(read("b", &written(&spec)), Some(spec.clone()));
        assert_eq!(spec.ownership, "BucketOwnerEnforced");
    }
}
