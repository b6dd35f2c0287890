//! Starts the failover workflow, once per epoch. The execution's name is the idempotency token; only an execution that
//! ended without raising the epoch (it held, or failed before the fence) is followed by another, under the next name.

use async_trait::async_trait;
use aws_sdk_sfn::error::ProvideErrorMetadata;
use aws_sdk_sfn::types::ExecutionStatus;

/// Executions per epoch, at most. Each of them assessed and found the stack in order, or failed before changing anything.
const MAX_ATTEMPTS: u32 = 50;

/// What became of a start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Started {
    /// It runs now, under this name.
    Now(String),
    /// It runs already, under this name.
    Running(String),
    /// One of that name ended a moment ago: give the signs time before the next attempt.
    Ended(String),
}

/// A call of Step Functions that did not succeed.
#[derive(Debug, thiserror::Error)]
#[error("{operation} `{name}` failed")]
pub struct StartError {
    /// The operation.
    pub operation: &'static str,
    /// The execution.
    pub name: String,
    /// What the SDK said.
    #[source]
    pub source: Box<dyn std::error::Error + Send + Sync>,
}

/// How an execution of a name stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Execution {
    /// It did not exist and was started.
    Created,
    /// It is under way.
    Running,
    /// It ended at this time, milliseconds since the Unix epoch.
    Ended(u64),
}

/// Starts executions.
#[async_trait]
pub trait Starter: Send + Sync {
    /// Starts `name` of `state_machine`, or says how the execution of that name stands.
    async fn start(&self, state_machine: &str, name: &str, input: &str) -> Result<Execution, StartError>;
}

/// Starts the execution of `base_name`, or the next attempt after ones that ended at least `pause_ms` ago.
///
/// # Errors
/// Step Functions could not be asked.
pub async fn start_once(
    starter: &dyn Starter,
    state_machine: &str,
    base_name: &str,
    input: &str,
    pause_ms: u64,
    now_ms: u64,
) -> Result<Started, StartError> {
    let mut name = base_name.to_owned();
    for attempt in 2..=MAX_ATTEMPTS + 1 {
        match starter.start(state_machine, &name, input).await? {
            Execution::Created => return Ok(Started::Now(name)),
            Execution::Running => return Ok(Started::Running(name)),
            Execution::Ended(at_ms) if now_ms.saturating_sub(at_ms) < pause_ms => {
                return Ok(Started::Ended(name));
            }
            Execution::Ended(_) => name = format!("{base_name}-{attempt}"),
        }
    }
    Ok(Started::Ended(name))
}

/// Step Functions in this region.
#[derive(Debug, Clone)]
pub struct StepFunctions {
    client: aws_sdk_sfn::Client,
}

impl StepFunctions {
    /// Through this client.
    pub fn new(client: aws_sdk_sfn::Client) -> Self {
        StepFunctions { client }
    }
}

#[async_trait]
impl Starter for StepFunctions {
    async fn start(&self, state_machine: &str, name: &str, input: &str) -> Result<Execution, StartError> {
        let failed = |operation, source: Box<dyn std::error::Error + Send + Sync>| StartError {
            operation,
            name: name.to_owned(),
            source,
        };
        let result = self
            .client
            .start_execution()
            .state_machine_arn(state_machine)
            .name(name)
            .input(input)
            .send()
            .await;
        match result {
            Ok(_) => return Ok(Execution::Created),
            Err(error) if error.code() == Some("ExecutionAlreadyExists") => {}
            Err(error) => return Err(failed("StartExecution", error.into())),
        }
        let described = self
            .client
            .describe_execution()
            .execution_arn(execution_arn(state_machine, name))
            .send()
            .await
            .map_err(|error| failed("DescribeExecution", error.into()))?;
        if matches!(
            described.status(),
            ExecutionStatus::Running | ExecutionStatus::PendingRedrive
        ) {
            return Ok(Execution::Running);
        }
        let ended_ms = described
            .stop_date()
            .and_then(|date| date.to_millis().ok())
            .and_then(|ms| u64::try_from(ms).ok())
            .unwrap_or(0);
        Ok(Execution::Ended(ended_ms))
    }
}

/// The ARN of an execution of a state machine.
fn execution_arn(state_machine: &str, name: &str) -> String {
    format!(
        "{}:{name}",
        state_machine.replacen(":stateMachine:", ":execution:", 1)
    )
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
pub(crate) mod tests {
    use std::collections::BTreeMap;
    use std::sync::Mutex;

    use super::*;

    /// Step Functions with the given executions.
    #[derive(Default)]
    pub(crate) struct Double {
        pub(crate) executions: Mutex<BTreeMap<String, (Execution, String)>>,
    }

    #[async_trait]
    impl Starter for Double {
        async fn start(&self, _: &str, name: &str, input: &str) -> Result<Execution, StartError> {
            let mut executions = self.executions.lock().unwrap();
            if let Some((execution, _)) = executions.get(name) {
                return Ok(*execution);
            }
            executions.insert(name.to_owned(), (Execution::Running, input.to_owned()));
            Ok(Execution::Created)
        }
    }

    #[tokio::test]
    async fn starts_as_a_table() {
        let existing = |rows: &[(&str, Execution)]| {
            let double = Double::default();
            for (name, execution) in rows {
                double
                    .executions
                    .lock()
                    .unwrap()
                    .insert((*name).to_owned(), (*execution, String::new()));
            }
            double
        };
        let rows = [
            (existing(&[]), Started::Now("f-2".into()), "the first"),
            (
                existing(&[("f-2", Execution::Running)]),
                Started::Running("f-2".into()),
                "it runs",
            ),
            (
                existing(&[("f-2", Execution::Ended(9_500))]),
                Started::Ended("f-2".into()),
                "it held a moment ago",
            ),
            (
                existing(&[("f-2", Execution::Ended(5_000))]),
                Started::Now("f-2-2".into()),
                "it held a while ago",
            ),
            (
                existing(&[
                    ("f-2", Execution::Ended(1_000)),
                    ("f-2-2", Execution::Ended(5_000)),
                    ("f-2-3", Execution::Running),
                ]),
                Started::Running("f-2-3".into()),
                "the third attempt runs",
            ),
        ];
        for (double, expected, row) in rows {
            let started = start_once(&double, "arn", "f-2", "{}", 3_000, 10_000)
                .await
                .unwrap();
            assert_eq!(started, expected, "{row}");
        }
    }

    #[test]
    fn an_execution_is_found_by_name() {
        assert_eq!(
            execution_arn(
                "arn:aws:states:us-east-2:0:stateMachine:failover-dr-dev",
                "failover-dev-2"
            ),
            "arn:aws:states:us-east-2:0:execution:failover-dr-dev:failover-dev-2"
        );
    }
}
