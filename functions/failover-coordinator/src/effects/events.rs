//! Events for whoever listens, on the default bus of this region.

use async_trait::async_trait;
use aws_sdk_eventbridge::types::PutEventsRequestEntry;

use crate::error::StepError;

/// The source of all our events.
pub const SOURCE: &str = "understudy";

/// Sends events.
#[async_trait]
pub trait Events: Send + Sync {
    /// Sends one. `detail` is a JSON object.
    async fn send(&self, detail_type: &str, detail: &str) -> Result<(), StepError>;
}

/// EventBridge.
#[derive(Debug, Clone)]
pub struct EventBridge {
    client: aws_sdk_eventbridge::Client,
}

impl EventBridge {
    /// Through this client.
    pub fn new(client: aws_sdk_eventbridge::Client) -> Self {
        EventBridge { client }
    }
}

#[async_trait]
impl Events for EventBridge {
    async fn send(&self, detail_type: &str, detail: &str) -> Result<(), StepError> {
        let entry = PutEventsRequestEntry::builder()
            .source(SOURCE)
            .detail_type(detail_type)
            .detail(detail)
            .build();
        let answer = self
            .client
            .put_events()
            .entries(entry)
            .send()
            .await
            .map_err(|error| StepError::EventNotSent(error.into()))?;
        // The call succeeds when an entry of it did not.
        match answer.entries().iter().find_map(|entry| entry.error_code()) {
            Some(code) => Err(StepError::EventNotSent(code.into())),
            None => Ok(()),
        }
    }
}
