//! Notices to people, through the alert topic of this region.

use async_trait::async_trait;

use crate::error::StepError;

/// SNS takes no longer subject: <https://docs.aws.amazon.com/sns/latest/api/API_Publish.html>.
const LONGEST_SUBJECT: usize = 100;

/// Sends notices.
#[async_trait]
pub trait Notices: Send + Sync {
    /// Sends one to everybody who subscribes to the topic.
    ///
    /// # Errors
    /// `NoticeNotSent`.
    async fn publish(&self, topic_arn: &str, subject: &str, text: &str) -> Result<(), StepError>;
}

/// SNS in this region.
#[derive(Debug, Clone)]
pub struct Sns {
    client: aws_sdk_sns::Client,
}

impl Sns {
    /// Through this client.
    pub fn new(client: aws_sdk_sns::Client) -> Self {
        Sns { client }
    }
}

#[async_trait]
impl Notices for Sns {
    async fn publish(&self, topic_arn: &str, subject: &str, text: &str) -> Result<(), StepError> {
        let subject: String = subject.chars().take(LONGEST_SUBJECT).collect();
        self.client
            .publish()
            .topic_arn(topic_arn)
            .subject(subject)
            .message(text)
            .send()
            .await
            .map_err(|error| StepError::NoticeNotSent(error.into()))?;
        Ok(())
    }
}
