//! How an execution of a state machine stands, in whichever region it runs: whether the holder of the change is alive.

use async_trait::async_trait;
use aws_sdk_sfn::types::ExecutionStatus;
use continuity::error::chain;
use infra::cloud::Cloud;

use crate::limits::LIVENESS_LIMIT;

/// Asks.
#[async_trait]
pub trait Executions: Send + Sync {
    /// Whether the execution is known to have ended. A region that does not answer knows nothing.
    async fn ended(&self, execution_arn: &str, region: &str) -> bool;
}

/// Step Functions.
#[derive(Debug, Clone)]
pub struct StepFunctions {
    cloud: Cloud,
}

impl StepFunctions {
    /// With clients of any region.
    pub fn new(cloud: Cloud) -> Self {
        StepFunctions { cloud }
    }
}

#[async_trait]
impl Executions for StepFunctions {
    async fn ended(&self, execution_arn: &str, region: &str) -> bool {
        let client = self.cloud.sfn(region);
        let call = client.describe_execution().execution_arn(execution_arn).send();
        match tokio::time::timeout(LIVENESS_LIMIT, call).await {
            Ok(Ok(seen)) => !matches!(
                seen.status(),
                ExecutionStatus::Running | ExecutionStatus::PendingRedrive
            ),
            // Its machine is gone, or its history: it runs no more.
            Ok(Err(error))
                if error
                    .as_service_error()
                    .is_some_and(|e| e.is_execution_does_not_exist()) =>
            {
                true
            }
            Ok(Err(error)) => {
                tracing::warn!(execution_arn, error = chain(&error), "nobody knows how it stands");
                false
            }
            Err(_) => false,
        }
    }
}
