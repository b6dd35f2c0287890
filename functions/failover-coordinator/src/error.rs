//! The error of a step. Its type is what the workflows' Retry and Catch name, so it is stable.

use continuity::error::{StoreError, chain};
use continuity::takeover::Refused;
use lambda_runtime::Diagnostic;

/// Every type an error of a step can have.
pub const TYPES: [&str; 27] = [
    "UnknownStep",
    "MalformedInput",
    "NotDeployed",
    "ControlUnavailable",
    "ControlContended",
    "Superseded",
    "AlreadyActive",
    "DatabaseFailed",
    "ProcessorFailed",
    "LedgerBehind",
    "LedgerUnbalanced",
    "LedgerEmpty",
    "SpecMissing",
    "SpecMalformed",
    "RepairRefused",
    "ChangeRunning",
    "EngineFailed",
    "EventNotSent",
    "ProbeFailed",
    "NotServing",
    "NotStarted",
    "NoticeNotSent",
    "FaultsUnavailable",
    "IsolationFailed",
    "EvidenceNotStored",
    "EvidenceNotRead",
    "RecoveryOverdue",
];

/// Why a step did not succeed.
#[derive(Debug, thiserror::Error)]
pub enum StepError {
    /// The event names no step of ours.
    #[error("unknown step `{0}`")]
    UnknownStep(String),
    /// The event cannot be read.
    #[error("malformed input: {0}")]
    MalformedInput(String),
    /// There is no control record: the first deployment has not finished.
    #[error("the stack has no control record")]
    NotDeployed,
    /// The control table did not answer; whether a write took effect is unknown.
    #[error("the control table is not available")]
    ControlUnavailable(#[from] StoreError),
    /// Others changed the control record every time.
    #[error("the control record changed under each of {0} attempts")]
    ControlContended(usize),
    /// The control record has moved on: this executor has no say any more.
    #[error("superseded: {0}")]
    Superseded(String),
    /// The region that was to take over is active.
    #[error("region `{0}` is active already")]
    AlreadyActive(String),
    /// A call to the database's control plane failed, or its answer makes no sense.
    #[error("{operation} of `{subject}` failed")]
    DatabaseFailed {
        /// The operation.
        operation: &'static str,
        /// The global cluster.
        subject: String,
        /// What went wrong.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The payment-processor did not answer, or answered with an error.
    #[error("task {task} of the payment-processor failed")]
    ProcessorFailed {
        /// The task.
        task: &'static str,
        /// What went wrong.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The ledger does not show the epoch that was written.
    #[error("the ledger shows epoch {actual:?}, expected {expected}")]
    LedgerBehind {
        /// The epoch that was written.
        expected: u64,
        /// The epoch in the ledger.
        actual: Option<u64>,
    },
    /// Debits and credits differ: the region must not open.
    #[error("the ledger is not balanced: {0}")]
    LedgerUnbalanced(String),
    /// The ledger has no epoch, although the stack has served.
    #[error(
        "the ledger is empty, but the stack has served payments: restore the database, or run `down` and deploy anew"
    )]
    LedgerEmpty,
    /// The `spec` item is not there.
    #[error("the control table has no item `spec`")]
    SpecMissing,
    /// The `spec` item cannot be read.
    #[error("the item `spec` is malformed: {0}")]
    SpecMalformed(String),
    /// Reconcile must not run now, or not here, or not from this generation.
    #[error("reconcile refused: {0}")]
    RepairRefused(String),
    /// Another change of the stack runs and goes first.
    #[error("`{0}` is running and goes first")]
    ChangeRunning(String),
    /// The event bus did not take an event.
    #[error("the event was not sent")]
    EventNotSent(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The engine could not run at all. A resource that fails is no error but part of its progress.
    #[error("the engine failed: {0}")]
    EngineFailed(String),
    /// A probe could not be invoked.
    #[error("invoking the health-probe in `{region}` failed")]
    ProbeFailed {
        /// The probe's region.
        region: String,
        /// What went wrong.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// An execution could not be started.
    #[error("execution `{execution}` could not be started")]
    NotStarted {
        /// Its name.
        execution: String,
        /// What went wrong.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The alert topic did not take a notice.
    #[error("the notice was not sent")]
    NoticeNotSent(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The data bucket did not take the evidence.
    #[error("`{key}` was not stored in the bucket `{bucket}`")]
    EvidenceNotStored {
        /// Its key.
        key: String,
        /// The bucket.
        bucket: String,
        /// What went wrong.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The data bucket did not give the evidence back.
    #[error("`{key}` was not read from the bucket `{bucket}`")]
    EvidenceNotRead {
        /// Its key.
        key: String,
        /// The bucket.
        bucket: String,
        /// What went wrong.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The observers do not see the active region serve yet.
    #[error("not serving yet: {0}")]
    NotServing(String),
    /// The service that breaks a region for a drill, or its alarm, did not answer; whether the call took effect is unknown.
    #[error("{operation} in `{region}` failed")]
    FaultsUnavailable {
        /// The operation.
        operation: &'static str,
        /// The region that the drill isolates.
        region: String,
        /// What went wrong.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A recovery waited for so long that a person must look.
    #[error("{0}: mend that, then run `understudy lost-tail --again`")]
    RecoveryOverdue(String),
    /// The region was not isolated, or not all of it: the drill would prove nothing.
    #[error("the isolation failed: {0}")]
    IsolationFailed(String),
}

impl StepError {
    /// The name in the workflows' Retry and Catch.
    pub fn error_type(&self) -> &'static str {
        match self {
            StepError::UnknownStep(_) => "UnknownStep",
            StepError::MalformedInput(_) => "MalformedInput",
            StepError::NotDeployed => "NotDeployed",
            StepError::ControlUnavailable(_) => "ControlUnavailable",
            StepError::ControlContended(_) => "ControlContended",
            StepError::Superseded(_) => "Superseded",
            StepError::AlreadyActive(_) => "AlreadyActive",
            StepError::DatabaseFailed { .. } => "DatabaseFailed",
            StepError::ProcessorFailed { .. } => "ProcessorFailed",
            StepError::LedgerBehind { .. } => "LedgerBehind",
            StepError::LedgerUnbalanced(_) => "LedgerUnbalanced",
            StepError::LedgerEmpty => "LedgerEmpty",
            StepError::SpecMissing => "SpecMissing",
            StepError::SpecMalformed(_) => "SpecMalformed",
            StepError::RepairRefused(_) => "RepairRefused",
            StepError::ChangeRunning(_) => "ChangeRunning",
            StepError::EventNotSent(_) => "EventNotSent",
            StepError::EngineFailed(_) => "EngineFailed",
            StepError::ProbeFailed { .. } => "ProbeFailed",
            StepError::NotServing(_) => "NotServing",
            StepError::NotStarted { .. } => "NotStarted",
            StepError::NoticeNotSent(_) => "NoticeNotSent",
            StepError::FaultsUnavailable { .. } => "FaultsUnavailable",
            StepError::IsolationFailed(_) => "IsolationFailed",
            StepError::RecoveryOverdue(_) => "RecoveryOverdue",
            StepError::EvidenceNotStored { .. } => "EvidenceNotStored",
            StepError::EvidenceNotRead { .. } => "EvidenceNotRead",
        }
    }
}

impl From<Refused> for StepError {
    fn from(refused: Refused) -> Self {
        match refused {
            Refused::AlreadyActive(region) => StepError::AlreadyActive(region),
            other => StepError::Superseded(other.to_string()),
        }
    }
}

impl From<StepError> for Diagnostic {
    fn from(error: StepError) -> Self {
        Diagnostic {
            error_type: error.error_type().to_owned(),
            error_message: chain(&error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_reaches_the_workflow_by_its_type_and_with_its_causes() {
        let error = StepError::ProcessorFailed {
            task: "replay",
            source: "connection refused".into(),
        };
        let diagnostic = Diagnostic::from(error);
        assert_eq!(diagnostic.error_type, "ProcessorFailed");
        assert_eq!(
            diagnostic.error_message,
            "task replay of the payment-processor failed: connection refused"
        );
        assert!(TYPES.contains(&diagnostic.error_type.as_str()));
    }

    #[test]
    fn a_refused_transition_is_never_retried_as_if_it_were_an_outage() {
        let refused = Refused::OtherEpoch {
            expected: 1,
            actual: 3,
        };
        assert_eq!(StepError::from(refused).error_type(), "Superseded");
        let active = Refused::AlreadyActive("us-east-2".into());
        assert_eq!(StepError::from(active).error_type(), "AlreadyActive");
    }
}
