//! The data bucket of this region, where evidence is kept. S3 replicates it to the other region's.

use async_trait::async_trait;
use aws_sdk_s3::error::ProvideErrorMetadata;
use aws_sdk_s3::primitives::ByteStream;

use crate::error::StepError;

/// Keeps files.
#[async_trait]
pub trait Archive: Send + Sync {
    /// Stores one, in the place of an older one of the same key.
    ///
    /// # Errors
    /// `EvidenceNotStored`.
    async fn put(&self, bucket: &str, key: &str, content_type: &str, body: String) -> Result<(), StepError>;
    /// Reads one; none when it is not there.
    ///
    /// # Errors
    /// `EvidenceNotRead`.
    async fn get(&self, bucket: &str, key: &str) -> Result<Option<String>, StepError>;
}

/// S3 in this region.
#[derive(Debug, Clone)]
pub struct S3 {
    client: aws_sdk_s3::Client,
}

impl S3 {
    /// Through this client.
    pub fn new(client: aws_sdk_s3::Client) -> Self {
        S3 { client }
    }
}

#[async_trait]
impl Archive for S3 {
    async fn put(&self, bucket: &str, key: &str, content_type: &str, body: String) -> Result<(), StepError> {
        self.client
            .put_object()
            .bucket(bucket)
            .key(key)
            .content_type(content_type)
            .body(ByteStream::from(body.into_bytes()))
            .send()
            .await
            .map_err(|error| StepError::EvidenceNotStored {
                key: key.to_owned(),
                bucket: bucket.to_owned(),
                source: error.into(),
            })?;
        Ok(())
    }

    async fn get(&self, bucket: &str, key: &str) -> Result<Option<String>, StepError> {
        let failed = |source: Box<dyn std::error::Error + Send + Sync>| StepError::EvidenceNotRead {
            key: key.to_owned(),
            bucket: bucket.to_owned(),
            source,
        };
        let answer = self.client.get_object().bucket(bucket).key(key).send().await;
        let object = match answer {
            Ok(object) => object,
            // S3 tells a file that is not there only to those who may list the bucket:
            // <https://docs.aws.amazon.com/AmazonS3/latest/API/API_GetObject.html>.
            Err(error) if matches!(error.code(), Some("NoSuchKey" | "AccessDenied")) => return Ok(None),
            Err(error) => return Err(failed(error.into())),
        };
        let body = object
            .body
            .collect()
            .await
            .map_err(|error| failed(error.into()))?;
        let text = String::from_utf8(body.to_vec()).map_err(|error| failed(error.into()))?;
        Ok(Some(text))
    }
}
