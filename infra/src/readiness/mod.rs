//! Could the other region take over now? Facts about both regions are gathered elsewhere; here they are judged, purely. Nobody
//! has to believe a green light: each finding says what was looked at, what is wrong, and what to do.
//!
//! A superset of what the plan evaluation of ARC Region switch looks at
//! (<https://docs.aws.amazon.com/r53recovery/latest/dg/region-switch-plans.html>).

mod checks;
mod facts;
#[cfg(test)]
mod tests;

use serde::{Deserialize, Serialize};

pub use self::checks::check;
pub use self::facts::{
    Cluster, Fact, Facts, Function, FunctionState, Global, Ledger, Machine, Member, Quotas, REHEARSED_ITEM,
    Rehearsed,
};

/// The item of the control table with the report of a region.
pub fn item(region: &str) -> String {
    format!("readiness#{region}")
}

/// How much a finding matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// A takeover could fail.
    Critical,
    /// It could not, but somebody should know.
    Warning,
}

/// What a check came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// In order.
    Passed,
    /// Not in order.
    Failed,
    /// It could not be observed. Of a critical check that is no better than failed.
    Unknown,
}

/// One check of one thing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    /// The check: `standby-fit`.
    pub check: String,
    /// How much it matters.
    pub severity: Severity,
    /// What it came to.
    pub state: State,
    /// What was looked at.
    pub subject: String,
    /// What was seen.
    pub reason: String,
    /// What to do about it; empty when it passed.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub remedy: String,
}

impl Finding {
    /// Whether a takeover could fail because of it.
    pub fn is_in_the_way(&self) -> bool {
        self.severity == Severity::Critical && self.state != State::Passed
    }
}

impl std::fmt::Display for Finding {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}: {}", self.check, self.subject, self.reason)
    }
}

/// The evaluation made in one region.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// The region that made it.
    pub region: String,
    /// When, milliseconds since the Unix epoch.
    pub at_ms: u64,
    /// Every finding, also of what is in order.
    pub findings: Vec<Finding>,
}

impl Report {
    /// Every critical finding passed.
    pub fn is_ready(&self) -> bool {
        !self.findings.iter().any(Finding::is_in_the_way)
    }

    /// What is in the way of a takeover, in words.
    pub fn failed(&self) -> Vec<String> {
        let in_the_way = self.findings.iter().filter(|finding| finding.is_in_the_way());
        in_the_way.map(ToString::to_string).collect()
    }
}
