//! How an execution of a state machine stands, in whichever region it runs: whether the holder of the change is alive.

use async_trait::async_trait;
use aws_sdk_sfn::error::ProvideErrorMetadata;
use aws_sdk_sfn::types::ExecutionStatus;
use continuity::error::chain;
use infra::cloud::Cloud;

use crate::error::StepError;
use crate::limits::LIVENESS_LIMIT;

/// What became of a start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Started {
    /// It did not exist and runs now.
    Created,
    /// An execution of that name runs.
    Running,
    /// An execution of that name has ended.
    Ended,
}

/// Asks, and starts.
#[async_trait]
pub trait Executions: Send + Sync {
    /// Starts an execution under a name, in the region of its machine, or says how the one of that name stands.
    ///
    /// # Errors
    /// `NotStarted`.
    async fn start(&self, machine_arn: &str, name: &str, input: &str) -> Result<Started, StepError>;
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
    async fn start(&self, machine_arn: &str, name: &str, input: &str) -> Result<Started, StepError> {
        let region = machine_arn.split(':').nth(3).unwrap_or_default();
        let client = self.cloud.sfn(region);
        let call = client
            .start_execution()
            .state_machine_arn(machine_arn)
            .name(name)
            .input(input)
            .send();
        match call.await {
            Ok(_) => return Ok(Started::Created),
            Err(error) if error.code() == Some("ExecutionAlreadyExists") => {}
            Err(error) => {
                return Err(StepError::NotStarted {
                    execution: name.to_owned(),
                    source: error.into(),
                });
            }
        }
        let arn = format!(
            "{}:{name}",
            machine_arn.replacen(":stateMachine:", ":execution:", 1)
        );
        Ok(if self.ended(&arn, region).await {
            Started::Ended
        } else {
            Started::Running
        })
    }

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
