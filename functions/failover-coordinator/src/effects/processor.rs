//! The payment-processor of this region, invoked for its tasks. Only it speaks to the database.

use std::collections::BTreeMap;
use std::time::Duration;

use async_trait::async_trait;
use aws_sdk_lambda::config::timeout::TimeoutConfig;
use aws_sdk_lambda::primitives::Blob;
use continuity::entry::EntryId;
use continuity::lost_tail::{Held, TailEntry};
use continuity::takeover::LedgerStatus;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::error::StepError;
use crate::limits::{STATUS_LIMIT, TASK_LIMIT};

/// A task.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "task", rename_all = "kebab-case")]
pub enum Task {
    /// Brings the schema up to date.
    Migrate,
    /// What the ledger says of itself.
    LedgerStatus,
    /// Raises the ledger's epoch.
    SetEpoch {
        /// To this.
        epoch: u64,
    },
    /// Posts what the journal has and the ledger lacks.
    Replay {
        /// The last epoch that served.
        from_epoch: u64,
        /// The new epoch.
        to_epoch: u64,
    },
    /// What was executed when.
    Traffic {
        /// From this moment, milliseconds since the Unix epoch.
        from_ms: u64,
        /// To this.
        until_ms: u64,
        /// Around the beginning of this epoch.
        epoch: u64,
    },
    /// Sums the ledger.
    VerifyLedger {
        /// Only what a replay into this epoch may have changed.
        #[serde(skip_serializing_if = "Option::is_none")]
        posted_in: Option<u64>,
    },
    /// A page of a restored ledger, newest entry first.
    LostTail {
        /// Where it is restored.
        host: String,
        /// Its port.
        port: u16,
        /// The page begins before this entry.
        before: Option<EntryId>,
    },
    /// What this region's ledger holds under these idempotency keys.
    HeldEntries {
        /// The keys.
        keys: Vec<String>,
    },
}

impl Task {
    /// The word in the payload.
    pub fn name(&self) -> &'static str {
        match self {
            Task::Migrate => "migrate",
            Task::LedgerStatus => "ledger-status",
            Task::SetEpoch { .. } => "set-epoch",
            Task::Replay { .. } => "replay",
            Task::Traffic { .. } => "traffic",
            Task::VerifyLedger { .. } => "verify-ledger",
            Task::LostTail { .. } => "lost-tail",
            Task::HeldEntries { .. } => "held-entries",
        }
    }

    fn limit(&self) -> Duration {
        match self {
            Task::LedgerStatus | Task::Traffic { .. } => STATUS_LIMIT,
            _ => TASK_LIMIT,
        }
    }
}

/// What a replay did.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Replayed {
    /// Journal entries read.
    pub scanned: u64,
    /// The newest of those that were not read, with all before it in its epoch: the ledger had them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub settled: Option<EntryId>,
    /// Entries the ledger lacked.
    pub posted: u64,
    /// Entries the ledger had.
    pub already_present: u64,
    /// Keys for which journal and ledger hold different outcomes.
    #[serde(default)]
    pub conflicts: Vec<Value>,
    /// Accounts that an acknowledged payment overdrew.
    #[serde(default)]
    pub overdrawn: Vec<Value>,
}

/// What was executed in one second of an epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub struct Executed {
    /// The second, counted from the Unix epoch.
    pub second: u64,
    /// The epoch that executed it.
    pub epoch: u64,
    /// How many entries of the ledger.
    pub entries: u64,
}

/// What was executed when, as far as the ledger of this region has kept it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
pub struct Traffic {
    /// By second and epoch.
    pub executed: Vec<Executed>,
    /// The newest entry of an older epoch, milliseconds since the Unix epoch.
    pub last_before_ms: Option<u64>,
    /// The first of the epoch.
    pub first_in_ms: Option<u64>,
    /// False when the span held too much.
    pub complete: bool,
}

/// What the sums of the ledger are.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Verified {
    /// Debits equal credits in every entry and every currency.
    pub balanced: bool,
    /// Sums per currency.
    #[serde(default)]
    pub currencies: BTreeMap<String, Value>,
    /// Entries that were looked at.
    #[serde(default)]
    pub entries: u64,
    /// Accounts in it.
    #[serde(default)]
    pub accounts: u64,
    /// What does not add up.
    #[serde(default)]
    pub problems: Vec<Value>,
}

/// Runs tasks.
#[async_trait]
pub trait Processor: Send + Sync {
    /// Runs one and returns its answer.
    async fn run(&self, task: &Task) -> Result<Value, StepError>;
}

fn failed(task: &Task, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> StepError {
    StepError::ProcessorFailed {
        task: task.name(),
        source: source.into(),
    }
}

/// What a region's ledger says of itself, and how far it is.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct LedgerSummary {
    /// The state of the database.
    #[serde(flatten)]
    pub status: LedgerStatus,
    /// The newest entry's sequence number, 0 when there is none.
    #[serde(default)]
    pub last_seq: u64,
}

async fn run_as<T: DeserializeOwned>(processor: &dyn Processor, task: Task) -> Result<T, StepError> {
    let answer = processor.run(&task).await?;
    serde_json::from_value(answer).map_err(|error| failed(&task, error))
}

/// What the ledger of this region says of itself.
///
/// # Errors
/// `ProcessorFailed`.
pub async fn ledger_status(processor: &dyn Processor) -> Result<LedgerSummary, StepError> {
    run_as(processor, Task::LedgerStatus).await
}

/// Brings the schema up to date.
///
/// # Errors
/// `ProcessorFailed`.
pub async fn migrate(processor: &dyn Processor) -> Result<Value, StepError> {
    processor.run(&Task::Migrate).await
}

/// Raises the ledger's epoch, and checks that the ledger shows it.
///
/// # Errors
/// `ProcessorFailed`; `LedgerBehind` when it still shows an older one; `Superseded` when it shows a newer one.
pub async fn set_epoch(processor: &dyn Processor, epoch: u64) -> Result<(), StepError> {
    #[derive(Deserialize)]
    struct Answer {
        ledger_epoch: Option<u64>,
    }
    let answer: Answer = run_as(processor, Task::SetEpoch { epoch }).await?;
    match answer.ledger_epoch {
        Some(shown) if shown == epoch => Ok(()),
        Some(shown) if shown > epoch => Err(StepError::Superseded(format!(
            "the ledger shows epoch {shown}, this execution is for {epoch}"
        ))),
        actual => Err(StepError::LedgerBehind {
            expected: epoch,
            actual,
        }),
    }
}

/// Posts what the journal of `from_epoch..to_epoch` has and the ledger lacks.
///
/// # Errors
/// `ProcessorFailed`.
pub async fn replay(
    processor: &dyn Processor,
    from_epoch: u64,
    to_epoch: u64,
) -> Result<Replayed, StepError> {
    run_as(processor, Task::Replay { from_epoch, to_epoch }).await
}

/// What was executed between two moments, and around the beginning of `epoch`.
///
/// # Errors
/// `ProcessorFailed`.
pub async fn traffic(
    processor: &dyn Processor,
    from_ms: u64,
    until_ms: u64,
    epoch: u64,
) -> Result<Traffic, StepError> {
    let task = Task::Traffic {
        from_ms,
        until_ms,
        epoch,
    };
    run_as(processor, task).await
}

/// Looks at all of the ledger, or at what a replay into `posted_in` may have changed.
///
/// # Errors
/// `ProcessorFailed`.
pub async fn verify(processor: &dyn Processor, posted_in: Option<u64>) -> Result<Verified, StepError> {
    run_as(processor, Task::VerifyLedger { posted_in }).await
}

/// A page of the ledger that is restored at an endpoint, newest entry first, asked of the processor of that region.
///
/// # Errors
/// `ProcessorFailed`.
pub async fn lost_tail(
    processor: &dyn Processor,
    host: &str,
    port: u16,
    before: Option<EntryId>,
) -> Result<Vec<TailEntry>, StepError> {
    #[derive(Deserialize)]
    struct Answer {
        entries: Vec<TailEntry>,
    }
    let task = Task::LostTail {
        host: host.to_owned(),
        port,
        before,
    };
    Ok(run_as::<Answer>(processor, task).await?.entries)
}

/// What a region's ledger holds under each of these keys, in their order.
///
/// # Errors
/// `ProcessorFailed`.
pub async fn held_entries(
    processor: &dyn Processor,
    keys: Vec<String>,
) -> Result<Vec<Option<Held>>, StepError> {
    #[derive(Deserialize)]
    struct Answer {
        held: Vec<Option<Held>>,
    }
    Ok(run_as::<Answer>(processor, Task::HeldEntries { keys })
        .await?
        .held)
}

/// The payment-processor as a Lambda function.
#[derive(Debug, Clone)]
pub struct LambdaProcessor {
    client: aws_sdk_lambda::Client,
    function: String,
}

impl LambdaProcessor {
    /// The function of that name. Tasks may take longer than other calls, and the workflow does the retries.
    pub fn new(sdk: &aws_config::SdkConfig, function: impl Into<String>) -> Self {
        let timeouts = TimeoutConfig::builder()
            .connect_timeout(continuity::aws::CONNECT_TIMEOUT)
            .operation_timeout(TASK_LIMIT)
            .operation_attempt_timeout(TASK_LIMIT)
            .read_timeout(TASK_LIMIT)
            .build();
        let config = aws_sdk_lambda::config::Builder::from(sdk)
            .timeout_config(timeouts)
            .retry_config(aws_sdk_lambda::config::retry::RetryConfig::disabled())
            .build();
        LambdaProcessor {
            client: aws_sdk_lambda::Client::from_conf(config),
            function: function.into(),
        }
    }

    async fn invoke(&self, task: &Task) -> Result<Value, StepError> {
        let payload = serde_json::to_vec(task).map_err(|error| failed(task, error))?;
        let output = self
            .client
            .invoke()
            .function_name(&self.function)
            .payload(Blob::new(payload))
            .send()
            .await
            .map_err(|error| failed(task, error))?;
        let body = output.payload().map(Blob::as_ref).unwrap_or_default();
        if output.function_error().is_some() {
            return Err(failed(task, String::from_utf8_lossy(body).into_owned()));
        }
        serde_json::from_slice(body).map_err(|error| failed(task, error))
    }
}

#[async_trait]
impl Processor for LambdaProcessor {
    async fn run(&self, task: &Task) -> Result<Value, StepError> {
        match tokio::time::timeout(task.limit(), self.invoke(task)).await {
            Ok(result) => result,
            Err(_) => Err(failed(task, "no answer in time")),
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn payloads_are_the_ones_the_processor_reads() {
        let text = |task: &Task| serde_json::to_string(task).unwrap();
        assert_eq!(text(&Task::LedgerStatus), r#"{"task":"ledger-status"}"#);
        assert_eq!(
            text(&Task::SetEpoch { epoch: 2 }),
            r#"{"task":"set-epoch","epoch":2}"#
        );
        assert_eq!(
            text(&Task::Replay {
                from_epoch: 1,
                to_epoch: 2
            }),
            r#"{"task":"replay","from_epoch":1,"to_epoch":2}"#
        );
        let verify = |posted_in| text(&Task::VerifyLedger { posted_in });
        assert_eq!(verify(None), r#"{"task":"verify-ledger"}"#);
        assert_eq!(verify(Some(2)), r#"{"task":"verify-ledger","posted_in":2}"#);
        for task in [
            Task::Migrate,
            Task::LedgerStatus,
            Task::VerifyLedger { posted_in: None },
        ] {
            assert_eq!(serde_json::to_value(&task).unwrap()["task"], task.name());
        }
    }
}
