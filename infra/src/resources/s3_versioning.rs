//! Versioning of a bucket: replication needs it at both ends. Once on it can only be suspended, so "deleted" means suspended.

use aws_sdk_s3::types::{BucketVersioningStatus, VersioningConfiguration};
use serde::{Deserialize, Serialize};

use crate::error::{KindError, absent};
use crate::kind::{Found, Kind, Live, Site};

/// The kind.
#[derive(Debug)]
pub struct S3Versioning;

/// What we want: versioning, on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Spec {
    /// The bucket.
    pub bucket: String,
}

/// What others refer to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outputs {
    /// The bucket, now versioned: replication refers to this to come later.
    pub bucket: String,
}

impl Kind for S3Versioning {
    const NAME: &'static str = "s3-versioning";
    const IMMUTABLE: &'static [&'static str] = &["bucket"];

    type Spec = Spec;
    type Outputs = Outputs;

    async fn observe(site: &Site<'_>, spec: &Spec) -> Result<Option<Live<Spec, Outputs>>, KindError> {
        let bucket = &spec.bucket;
        let result = site
            .cloud
            .s3(site.region)
            .get_bucket_versioning()
            .bucket(bucket)
            .send()
            .await;
        let answer =
            absent(result, &["NoSuchBucket"]).map_err(|e| site.fail("GetBucketVersioning", bucket, e))?;
        let enabled = answer.is_some_and(|answer| answer.status() == Some(&BucketVersioningStatus::Enabled));
        Ok(enabled.then(|| Live {
            spec: spec.clone(),
            outputs: Outputs {
                bucket: bucket.clone(),
            },
            settling: None,
        }))
    }

    async fn create(site: &Site<'_>, spec: &Spec) -> Result<(), KindError> {
        put(site, &spec.bucket, BucketVersioningStatus::Enabled).await
    }

    async fn update(site: &Site<'_>, spec: &Spec, _live: &Live<Spec, Outputs>) -> Result<(), KindError> {
        put(site, &spec.bucket, BucketVersioningStatus::Enabled).await
    }

    async fn delete(site: &Site<'_>, live: &Live<Spec, Outputs>) -> Result<(), KindError> {
        Self::discard(site, &live.spec.bucket).await
    }

    async fn discard(site: &Site<'_>, bucket: &str) -> Result<(), KindError> {
        let result = put(site, bucket, BucketVersioningStatus::Suspended).await;
        match result {
            Err(error) if error.code() == Some("NoSuchBucket") => Ok(()),
            other => other,
        }
    }

    /// Goes with its bucket.
    async fn list(_site: &Site<'_>) -> Result<Vec<Found>, KindError> {
        Ok(Vec::new())
    }
}

async fn put(site: &Site<'_>, bucket: &str, status: BucketVersioningStatus) -> Result<(), KindError> {
    site.cloud
        .s3(site.region)
        .put_bucket_versioning()
        .bucket(bucket)
        .versioning_configuration(VersioningConfiguration::builder().status(status).build())
        .send()
        .await
        .map_err(|e| site.fail("PutBucketVersioning", bucket, e))?;
    Ok(())
}
