//! What waits for a person: a failover that needs approval, or a workflow whose step failed. The execution holds a task open
//! (<https://docs.aws.amazon.com/step-functions/latest/dg/connect-to-resource.html#connect-wait-token>); its token is kept in
//! the control table, where the operator's command finds it. The token opens nothing to those who may not call Step Functions.

use serde::{Deserialize, Serialize};

/// The item of the control table. One: at most one workflow moves the active region.
pub const ITEM: &str = "waiting";

/// What a person may answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Choice {
    /// Take over.
    Approve,
    /// Do not.
    Decline,
    /// Run the failed step again, now.
    Retry,
    /// Go on without the failed step.
    Skip,
    /// End the workflow here.
    Abort,
}

impl Choice {
    /// The word in the workflow's state.
    pub fn as_str(self) -> &'static str {
        match self {
            Choice::Approve => "approve",
            Choice::Decline => "decline",
            Choice::Retry => "retry",
            Choice::Skip => "skip",
            Choice::Abort => "abort",
        }
    }
}

impl std::fmt::Display for Choice {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A workflow that waits.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Waiting {
    /// The ARN of the execution.
    pub execution: String,
    /// The token of the open task.
    pub token: String,
    /// The step that failed; none for an approval.
    pub step: Option<String>,
    /// The epoch that ends with the change.
    pub epoch: u64,
    /// The region that is to take over.
    pub to_region: String,
    /// What the observers saw, or why the step failed.
    pub reasons: Vec<String>,
    /// What may be answered.
    pub choices: Vec<Choice>,
    /// Since when, milliseconds since the Unix epoch.
    pub since_ms: u64,
    /// When the workflow goes on by itself (an approval: gives up).
    pub until_ms: u64,
}

impl std::fmt::Debug for Waiting {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Waiting")
            .field("execution", &self.execution)
            .field("step", &self.step)
            .field("choices", &self.choices)
            .finish_non_exhaustive()
    }
}

impl Waiting {
    /// The region whose state machine waits.
    pub fn region(&self) -> &str {
        self.execution.split(':').nth(3).unwrap_or_default()
    }

    /// The execution's name.
    pub fn name(&self) -> &str {
        self.execution.rsplit(':').next().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_not_printed() {
        let waiting = Waiting {
            execution: "arn:aws:states:us-east-2:0:execution:failover-dr-dev:failover-dev-2".into(),
            token: "the-token".into(),
            step: None,
            epoch: 1,
            to_region: "us-east-2".into(),
            reasons: vec![],
            choices: vec![Choice::Approve, Choice::Decline],
            since_ms: 0,
            until_ms: 1,
        };
        assert!(!format!("{waiting:?}").contains("the-token"));
        assert_eq!(
            (waiting.region(), waiting.name()),
            ("us-east-2", "failover-dev-2")
        );
    }
}
