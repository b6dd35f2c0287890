//! Public access to a bucket, blocked in all four ways.

use aws_sdk_s3::types::PublicAccessBlockConfiguration;
use serde::{Deserialize, Serialize};

use crate::error::{KindError, absent};
use crate::kind::{Found, Kind, Live, Site};

/// The kind.
#[derive(Debug)]
pub struct S3PublicAccessBlock;

/// What we want.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Spec {
    /// The bucket.
    pub bucket: String,
    /// New public access control lists are refused.
    pub block_public_acls: bool,
    /// Existing ones have no effect.
    pub ignore_public_acls: bool,
    /// Public policies are refused.
    pub block_public_policy: bool,
    /// Existing ones have no effect for others.
    pub restrict_public_buckets: bool,
}

impl Spec {
    /// Everything blocked.
    pub fn all(bucket: impl Into<String>) -> Self {
        Spec {
            bucket: bucket.into(),
            block_public_acls: true,
            ignore_public_acls: true,
            block_public_policy: true,
            restrict_public_buckets: true,
        }
    }
}

/// Nothing refers to it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outputs {}

impl Kind for S3PublicAccessBlock {
    const NAME: &'static str = "s3-public-access-block";
    const IMMUTABLE: &'static [&'static str] = &["bucket"];

    type Spec = Spec;
    type Outputs = Outputs;

    async fn observe(site: &Site<'_>, spec: &Spec) -> Result<Option<Live<Spec, Outputs>>, KindError> {
        let bucket = &spec.bucket;
        let result = site
            .cloud
            .s3(site.region)
            .get_public_access_block()
            .bucket(bucket)
            .send()
            .await;
        let answer = absent(result, &["NoSuchBucket", "NoSuchPublicAccessBlockConfiguration"])
            .map_err(|e| site.fail("GetPublicAccessBlock", bucket, e))?;
        Ok(answer
            .and_then(|answer| answer.public_access_block_configuration)
            .map(|live| Live {
                spec: Spec {
                    bucket: bucket.clone(),
                    block_public_acls: live.block_public_acls().unwrap_or(false),
                    ignore_public_acls: live.ignore_public_acls().unwrap_or(false),
                    block_public_policy: live.block_public_policy().unwrap_or(false),
                    restrict_public_buckets: live.restrict_public_buckets().unwrap_or(false),
                },
                outputs: Outputs {},
                settling: None,
            }))
    }

    async fn create(site: &Site<'_>, spec: &Spec) -> Result<(), KindError> {
        let configuration = PublicAccessBlockConfiguration::builder()
            .block_public_acls(spec.block_public_acls)
            .ignore_public_acls(spec.ignore_public_acls)
            .block_public_policy(spec.block_public_policy)
            .restrict_public_buckets(spec.restrict_public_buckets)
            .build();
        site.cloud
            .s3(site.region)
            .put_public_access_block()
            .bucket(&spec.bucket)
            .public_access_block_configuration(configuration)
            .send()
            .await
            .map_err(|e| site.fail("PutPublicAccessBlock", &spec.bucket, e))?;
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
            .delete_public_access_block()
            .bucket(bucket)
            .send()
            .await;
        absent(result, &["NoSuchBucket"]).map_err(|e| site.fail("DeletePublicAccessBlock", bucket, e))?;
        Ok(())
    }

    /// Goes with its bucket.
    async fn list(_site: &Site<'_>) -> Result<Vec<Found>, KindError> {
        Ok(Vec::new())
    }
}
