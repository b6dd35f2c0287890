//! What the workflows send: which step, for which execution, with the execution's state so far.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::error::StepError;

/// A step of a workflow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Step {
    /// deploy: one pass of the engine.
    Reconcile,
    /// deploy: migrate the ledger, store the first control record.
    Initialise,
    /// deploy: ask the probes for their first rounds.
    StartProbes,
    /// deploy: the observers see the active region serve.
    VerifyServing,
    /// teardown: one pass of deletions.
    Teardown,
    /// reconcile: one pass that finds drift and repairs it.
    Repair,
    /// reconcile: tell of the drift.
    ReportDrift,
    /// failover: decide again, here.
    Assess,
    /// failover: ask a person.
    AskApproval,
    /// switchover: may it go on?
    Evaluate,
    /// switchover: the active region stops acknowledging.
    Drain,
    /// switchover: our ledger has what theirs has.
    AwaitStandby,
    /// switchover: the database changes its writer without loss.
    SwitchDatabase,
    /// switchover: give it up.
    Undrain,
    /// switchover: go on as a failover.
    HandOver,
    /// failover, switchover: wait for a person, and tell.
    Pause,
    /// failover, switchover: raise the epoch.
    Fence,
    /// failover: make our database the writer.
    Promote,
    /// failover: watch the promotion.
    AwaitWriter,
    /// failover: raise the ledger's epoch.
    SetEpoch,
    /// failover: post what the journal has and the ledger lacks.
    Replay,
    /// failover: is what was replayed sound, and the ledger balanced?
    Verify,
    /// failover: phase serving.
    Open,
    /// failover: does the public name answer from here?
    AwaitTraffic,
    /// failover, switchover: recompute all of the ledger, while the region serves.
    Audit,
    /// failover: store the evidence.
    Record,
    /// failover: start the recovery.
    StartRecovery,
    /// recovery: is the old region back, and what has it of its own?
    FindTail,
    /// recovery: copy the snapshot of its ledger.
    KeepTail,
    /// recovery: restore the copy.
    OpenTail,
    /// recovery: compare it with the serving ledger.
    CompareTail,
    /// recovery: delete what was restored.
    CloseTail,
    /// recovery: say what was found.
    ReportTail,
    /// drill: cut the active region off for as long as the drill wants it, and put it back.
    Isolation,
    /// drill: claim it, or say why there is none now.
    DrillBegin,
    /// drill: a slice of synthetic payments.
    SyntheticTraffic,
    /// drill: its next move.
    Exercise,
    /// drill: are the acknowledged payments there?
    CheckPayments,
    /// drill: store what it showed.
    DrillEnd,
    /// readiness: could the other region take over now?
    EvaluateReadiness,
    /// readiness: start a drill again whose execution has died.
    ResumeDrill,
}

impl Step {
    /// All steps.
    pub const ALL: [Step; 41] = [
        Step::Reconcile,
        Step::Initialise,
        Step::StartProbes,
        Step::VerifyServing,
        Step::Teardown,
        Step::Repair,
        Step::ReportDrift,
        Step::Assess,
        Step::AskApproval,
        Step::Evaluate,
        Step::Drain,
        Step::AwaitStandby,
        Step::SwitchDatabase,
        Step::Undrain,
        Step::HandOver,
        Step::Pause,
        Step::Fence,
        Step::Promote,
        Step::AwaitWriter,
        Step::SetEpoch,
        Step::Replay,
        Step::Verify,
        Step::Open,
        Step::AwaitTraffic,
        Step::Audit,
        Step::Record,
        Step::StartRecovery,
        Step::FindTail,
        Step::KeepTail,
        Step::OpenTail,
        Step::CompareTail,
        Step::CloseTail,
        Step::ReportTail,
        Step::Isolation,
        Step::DrillBegin,
        Step::SyntheticTraffic,
        Step::Exercise,
        Step::CheckPayments,
        Step::DrillEnd,
        Step::EvaluateReadiness,
        Step::ResumeDrill,
    ];

    /// The word in the event.
    pub fn as_str(self) -> &'static str {
        match self {
            Step::Reconcile => "reconcile",
            Step::Initialise => "initialise",
            Step::StartProbes => "start-probes",
            Step::VerifyServing => "verify-serving",
            Step::Teardown => "teardown",
            Step::Repair => "repair",
            Step::ReportDrift => "report-drift",
            Step::Assess => "assess",
            Step::AskApproval => "ask-approval",
            Step::Evaluate => "evaluate",
            Step::Drain => "drain",
            Step::AwaitStandby => "await-standby",
            Step::SwitchDatabase => "switch-database",
            Step::Undrain => "undrain",
            Step::HandOver => "hand-over",
            Step::Pause => "pause",
            Step::Fence => "fence",
            Step::Promote => "promote",
            Step::AwaitWriter => "await-writer",
            Step::SetEpoch => "set-epoch",
            Step::Replay => "replay",
            Step::Verify => "verify",
            Step::Open => "open",
            Step::AwaitTraffic => "await-traffic",
            Step::Audit => "audit",
            Step::Record => "record",
            Step::StartRecovery => "start-recovery",
            Step::FindTail => "find-tail",
            Step::KeepTail => "keep-tail",
            Step::OpenTail => "open-tail",
            Step::CompareTail => "compare-tail",
            Step::CloseTail => "close-tail",
            Step::ReportTail => "report-tail",
            Step::Isolation => "isolation",
            Step::DrillBegin => "drill-begin",
            Step::SyntheticTraffic => "synthetic-traffic",
            Step::Exercise => "exercise",
            Step::CheckPayments => "check-payments",
            Step::DrillEnd => "drill-end",
            Step::EvaluateReadiness => "evaluate-readiness",
            Step::ResumeDrill => "resume-drill",
        }
    }

    /// Where the workflows keep the step's result in the execution's state.
    pub fn result_key(self) -> String {
        self.as_str().replace('-', "_")
    }

    fn parse(text: &str) -> Result<Step, StepError> {
        Step::ALL
            .into_iter()
            .find(|step| step.as_str() == text)
            .ok_or_else(|| StepError::UnknownStep(text.to_owned()))
    }
}

/// One invocation.
#[derive(Debug, Clone)]
pub struct Request {
    /// The step.
    pub step: Step,
    /// The execution's name.
    pub execution: String,
    /// The execution's ARN; empty in the workflows that hold no change.
    pub execution_arn: String,
    /// The execution's state: its input, and the results of the steps so far under their [`Step::result_key`].
    pub input: Value,
    /// The token of a task that waits for a person.
    pub token: Option<String>,
    /// Of a pause: the step that failed.
    pub at: Option<String>,
    /// Of a task that waits for a person: how long it waits, in seconds.
    pub limit_s: Option<u64>,
    /// The time that an engine pass may take, if the caller limits it.
    pub budget_ms: Option<u64>,
    /// When the invocation must have ended, milliseconds since the Unix epoch.
    pub deadline_ms: u64,
}

/// The input of a deploy or teardown execution.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
pub struct DeployInput {
    /// The generation of the configuration that it applies; without one, the stored one's.
    #[serde(default)]
    pub generation: Option<u64>,
    /// Keys or names of resources that hold data and may yet be replaced.
    #[serde(default)]
    pub replace: BTreeSet<String>,
    /// Whether what is tagged as ours, and in no blueprint, is deleted.
    #[serde(default)]
    pub prune: bool,
}

/// How a change of the active region is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// A failover: the region that fails is not asked.
    #[default]
    Ungraceful,
    /// A switchover: without loss, and both regions take part.
    Graceful,
}

/// The input of a failover or switchover execution.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TakeoverInput {
    /// The epoch that ends.
    pub epoch: u64,
    /// The region that takes over.
    pub to_region: String,
    /// Who decided: `health-probe`, or an operator.
    pub started_by: String,
    /// Why.
    #[serde(default)]
    pub reasons: Vec<String>,
    /// When it was decided.
    #[serde(default)]
    pub decided_ms: Option<u64>,
    /// Failover or switchover.
    #[serde(default)]
    pub mode: Mode,
    /// A person decided: what the observers see and what the policy says is not asked. Whether the standby is fit still is.
    #[serde(default)]
    pub by_person: bool,
    /// A switchover that cannot be made goes on as a failover.
    #[serde(default)]
    pub or_ungraceful: bool,
}

/// The input of a recovery execution.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecoveryInput {
    /// The epoch that the takeover began.
    pub epoch: u64,
    /// The region that was taken over from.
    pub from_region: String,
    /// The region that took over.
    pub to_region: String,
    /// The takeover was decided then, if that is known.
    #[serde(default)]
    pub decided_ms: Option<u64>,
}

impl Request {
    /// Reads an event.
    ///
    /// # Errors
    /// `UnknownStep` or `MalformedInput`.
    pub fn parse(event: &Value, deadline_ms: u64) -> Result<Request, StepError> {
        #[derive(Deserialize)]
        struct Event {
            step: String,
            #[serde(default)]
            execution: String,
            #[serde(default)]
            execution_arn: String,
            #[serde(default)]
            input: Value,
            token: Option<String>,
            at: Option<String>,
            limit_s: Option<u64>,
            #[serde(default)]
            budget_ms: Option<u64>,
        }
        let event =
            Event::deserialize(event).map_err(|error| StepError::MalformedInput(error.to_string()))?;
        Ok(Request {
            step: Step::parse(&event.step)?,
            execution: event.execution,
            execution_arn: event.execution_arn,
            input: event.input,
            token: event.token,
            at: event.at,
            limit_s: event.limit_s,
            budget_ms: event.budget_ms,
            deadline_ms,
        })
    }

    /// The failover or switchover that this invocation is a part of, in region `me`.
    ///
    /// # Errors
    /// `MalformedInput`, also when another region is to take over: the workflow runs only where it takes over.
    pub fn takeover(&self, me: &str) -> Result<TakeoverInput, StepError> {
        let input = TakeoverInput::deserialize(&self.input)
            .map_err(|error| StepError::MalformedInput(error.to_string()))?;
        if self.execution.is_empty() {
            return Err(StepError::MalformedInput("the execution has no name".to_owned()));
        }
        if input.to_region != me {
            return Err(StepError::MalformedInput(format!(
                "`{}` is to take over, and this is `{me}`",
                input.to_region
            )));
        }
        Ok(input)
    }

    /// The recovery that this invocation is a part of, in region `me` with this peer.
    ///
    /// # Errors
    /// `MalformedInput`, also when the regions are others.
    pub fn recovery(&self, me: &str, peer: Option<&str>) -> Result<RecoveryInput, StepError> {
        let input = RecoveryInput::deserialize(&self.input)
            .map_err(|error| StepError::MalformedInput(error.to_string()))?;
        if input.to_region != me || Some(input.from_region.as_str()) != peer {
            return Err(StepError::MalformedInput(format!(
                "a recovery after `{}` took over from `{}` does not run in `{me}`",
                input.to_region, input.from_region
            )));
        }
        Ok(input)
    }

    /// What a deployment or teardown was started with.
    ///
    /// # Errors
    /// `MalformedInput`.
    pub fn deployment(&self) -> Result<DeployInput, StepError> {
        if self.input.is_null() {
            return Ok(DeployInput::default());
        }
        DeployInput::deserialize(&self.input).map_err(|error| StepError::MalformedInput(error.to_string()))
    }

    /// The result of an earlier step.
    pub fn result_of(&self, step: Step) -> Option<&Value> {
        self.input.get(step.result_key())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn events_as_a_table() {
        let rows = [
            (
                json!({"step": "fence", "execution": "x", "input": {}}),
                Ok(Step::Fence),
            ),
            (json!({"step": "reconcile"}), Ok(Step::Reconcile)),
            (json!({"step": "reboot"}), Err("UnknownStep")),
            (json!({"stop": "fence"}), Err("MalformedInput")),
            (
                json!({"step": "reconcile", "budget_ms": "all"}),
                Err("MalformedInput"),
            ),
            (json!("fence"), Err("MalformedInput")),
        ];
        for (event, expected) in rows {
            let parsed = Request::parse(&event, 0);
            assert_eq!(
                parsed
                    .map(|request| request.step)
                    .map_err(|error| error.error_type()),
                expected,
                "{event}"
            );
        }
    }

    #[test]
    fn a_failover_runs_only_where_it_takes_over() {
        let event = json!({"step": "fence", "execution": "failover-dev-2", "input": {
            "epoch": 1, "to_region": "us-east-2", "started_by": "health-probe", "reasons": ["seen"]}});
        let request = Request::parse(&event, 0).unwrap();
        assert_eq!(request.takeover("us-east-2").unwrap().epoch, 1);
        assert_eq!(
            request.takeover("us-east-1").unwrap_err().error_type(),
            "MalformedInput"
        );
    }

    #[test]
    fn every_step_is_found_by_its_word() {
        for step in Step::ALL {
            assert_eq!(Step::parse(step.as_str()).unwrap(), step);
        }
    }
}
