//! Default encryption of a bucket with a KMS key. Without this resource S3 encrypts with its own key (SSE-S3), always; so
//! that is what "does not exist" means here.

use aws_sdk_s3::types::{
    ServerSideEncryption, ServerSideEncryptionByDefault, ServerSideEncryptionConfiguration,
    ServerSideEncryptionRule,
};
use serde::{Deserialize, Serialize};

use crate::error::{KindError, absent};
use crate::kind::{Found, Kind, Live, Site};

/// The kind.
#[derive(Debug)]
pub struct S3Encryption;

/// What we want.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Spec {
    /// The bucket.
    pub bucket: String,
    /// ARN of the key. Replication to another region does not accept an alias.
    pub kms_key_arn: String,
    /// One data key for many objects: two orders of magnitude fewer calls to KMS.
    pub bucket_key: bool,
}

/// Nothing refers to it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outputs {}

impl Kind for S3Encryption {
    const NAME: &'static str = "s3-encryption";
    const IMMUTABLE: &'static [&'static str] = &["bucket"];

    type Spec = Spec;
    type Outputs = Outputs;

    async fn observe(site: &Site<'_>, spec: &Spec) -> Result<Option<Live<Spec, Outputs>>, KindError> {
        let result = site
            .cloud
            .s3(site.region)
            .get_bucket_encryption()
            .bucket(&spec.bucket)
            .send()
            .await;
        let answer = absent(
            result,
            &["NoSuchBucket", "ServerSideEncryptionConfigurationNotFoundError"],
        )
        .map_err(|e| site.fail("GetBucketEncryption", &spec.bucket, e))?;
        let configuration = answer.and_then(|answer| answer.server_side_encryption_configuration);
        Ok(configuration
            .and_then(|configuration| read(&spec.bucket, &configuration))
            .map(|spec| Live {
                spec,
                outputs: Outputs {},
                settling: None,
            }))
    }

    async fn create(site: &Site<'_>, spec: &Spec) -> Result<(), KindError> {
        site.cloud
            .s3(site.region)
            .put_bucket_encryption()
            .bucket(&spec.bucket)
            .server_side_encryption_configuration(written(spec))
            .send()
            .await
            .map_err(|e| site.fail("PutBucketEncryption", &spec.bucket, e))?;
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
            .delete_bucket_encryption()
            .bucket(bucket)
            .send()
            .await;
        absent(result, &["NoSuchBucket"]).map_err(|e| site.fail("DeleteBucketEncryption", bucket, e))?;
        Ok(())
    }

    /// Goes with its bucket.
    async fn list(_site: &Site<'_>) -> Result<Vec<Found>, KindError> {
        Ok(Vec::new())
    }
}

fn written(spec: &Spec) -> ServerSideEncryptionConfiguration {
    let default = ServerSideEncryptionByDefault::builder()
        .sse_algorithm(ServerSideEncryption::AwsKms)
        .kms_master_key_id(&spec.kms_key_arn)
        .build()
        .expect("the algorithm is given");
    let rule = ServerSideEncryptionRule::builder()
        .apply_server_side_encryption_by_default(default)
        .bucket_key_enabled(spec.bucket_key)
        .build();
    ServerSideEncryptionConfiguration::builder()
        .rules(rule)
        .build()
        .expect("a rule is given")
}

/// `None` for SSE-S3, which a bucket without a configuration of its own has.
fn read(bucket: &str, configuration: &ServerSideEncryptionConfiguration) -> Option<Spec> {
    let rule = configuration.rules().first()?;
    let default = rule.apply_server_side_encryption_by_default()?;
    Some(Spec {
        bucket: bucket.to_owned(),
        kms_key_arn: default.kms_master_key_id()?.to_owned(),
        bucket_key: rule.bucket_key_enabled().unwrap_or(false),
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn what_is_written_is_read_back() {
        let spec = Spec {
            bucket: "b".into(),
            kms_key_arn: "arn:aws:kms:us-east-1:0:key/k".into(),
            bucket_key: true,
        };
        assert_eq!(read("b", &written(&spec)).unwrap(), spec);
    }

    #[test]
    fn the_default_of_s3_counts_as_absent() {
        let default = ServerSideEncryptionByDefault::builder()
            .sse_algorithm(ServerSideEncryption::Aes256)
            .build()
            .unwrap();
        let rule = ServerSideEncryptionRule::builder()
            .apply_server_side_encryption_by_default(default)
            .build();
        let configuration = ServerSideEncryptionConfiguration::builder()
            .rules(rule)
            .build()
            .unwrap();
        assert_eq!(read("b", &configuration), None);
    }
}
