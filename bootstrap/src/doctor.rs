//! `understudy doctor`: asks AWS, before anything is created, whether the stack can be. Every check runs at once and ends in
//! findings; a question that AWS does not answer is `unknown` with the reason, and never a failure.

mod checks;

use std::time::Duration;

use futures::future::{BoxFuture, join_all};
use infra::blueprint::operator;
use serde::Serialize;
use serde_json::Value;

use crate::stack::Stack;

/// How long one check may take.
const PATIENCE: Duration = Duration::from_secs(30);

/// How a check ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum State {
    /// Nothing to do.
    Ok,
    /// AWS did not say.
    Unknown,
    /// It works, but someone should look at it.
    Warning,
    /// The stack cannot be deployed like this.
    Failed,
}

impl State {
    fn word(self) -> &'static str {
        match self {
            State::Ok => "ok",
            State::Unknown => "unknown",
            State::Warning => "warning",
            State::Failed => "failed",
        }
    }
}

/// What one check found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// The check.
    pub check: &'static str,
    /// How it ended.
    pub state: State,
    /// What was found.
    pub text: String,
    /// What to do about it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub remedy: Option<String>,
}

impl Finding {
    fn new(check: &'static str, state: State, text: impl Into<String>) -> Self {
        Finding {
            check,
            state,
            text: text.into(),
            remedy: None,
        }
    }

    fn remedy(mut self, remedy: impl Into<String>) -> Self {
        self.remedy = Some(remedy.into());
        self
    }
}

/// All findings.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Diagnosis {
    /// The account.
    pub account: String,
    /// In the order of the checks.
    pub findings: Vec<Finding>,
    /// How many failed.
    pub failed: usize,
}

/// The policy that an operator of the stack needs.
pub fn policy(stack: &Stack) -> Value {
    operator::policy(&stack.spec, &stack.account)
}

/// Runs every check.
pub async fn examine(stack: &Stack) -> Diagnosis {
    let checks: Vec<(&'static str, BoxFuture<'_, Vec<Finding>>)> = vec![
        ("credentials", Box::pin(checks::credentials(stack))),
        ("clock", Box::pin(checks::clock(stack))),
        ("permissions", Box::pin(checks::permissions(stack))),
        ("regions", Box::pin(checks::regions(stack))),
        ("zones", Box::pin(checks::zones(stack))),
        ("concurrency", Box::pin(checks::concurrency(stack))),
        ("quotas", Box::pin(checks::quotas(stack))),
        ("service roles", Box::pin(checks::service_roles(stack))),
        ("engine", Box::pin(checks::engine(stack))),
        ("names", Box::pin(checks::names(stack))),
        ("domain", Box::pin(checks::domain(stack))),
        ("packages", Box::pin(checks::packages())),
    ];
    let findings = checks.into_iter().map(|(name, check)| async move {
        tokio::time::timeout(PATIENCE, check).await.unwrap_or_else(|_| {
            let seconds = PATIENCE.as_secs();
            vec![Finding::new(
                name,
                State::Unknown,
                format!("no answer within {seconds} s"),
            )]
        })
    });
    let findings: Vec<Finding> = join_all(findings).await.into_iter().flatten().collect();
    Diagnosis {
        account: stack.account.clone(),
        failed: findings
            .iter()
            .filter(|finding| finding.state == State::Failed)
            .count(),
        findings,
    }
}

/// The result for a person.
pub fn describe(diagnosis: &Diagnosis) -> String {
    let width = diagnosis
        .findings
        .iter()
        .map(|finding| finding.check.len())
        .max()
        .unwrap_or(0);
    let mut lines = Vec::new();
    for finding in &diagnosis.findings {
        lines.push(format!(
            "{:7}  {:width$}  {}",
            finding.state.word(),
            finding.check,
            finding.text
        ));
        if let Some(remedy) = &finding.remedy {
            lines.push(format!("{:7}  {:width$}  -> {remedy}", "", ""));
        }
    }
    let count = |state| {
        diagnosis
            .findings
            .iter()
            .filter(|finding| finding.state == state)
            .count()
    };
    lines.push(format!(
        "\n{} ok, {} failed, {} warnings, {} unknown",
        count(State::Ok),
        count(State::Failed),
        count(State::Warning),
        count(State::Unknown)
    ));
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_person_sees_state_check_reason_and_remedy() {
        let diagnosis = Diagnosis {
            account: "123456789012".into(),
            failed: 1,
            findings: vec![
                Finding::new("clock", State::Ok, "0 s off"),
                Finding::new("names", State::Failed, "`x` is taken").remedy("use another suffix"),
            ],
        };
        assert_eq!(
            describe(&diagnosis),
            "ok       clock  0 s off\nfailed   names  `x` is taken\n                -> use another suffix\n\n\
             1 ok, 1 failed, 0 warnings, 0 unknown"
        );
    }
}
