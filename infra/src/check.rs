//! The checker: looks at everything that a blueprint wants, before any of it is made. Pure. It does not trust the code that makes
//! blueprints: a rule that is broken by a mistake there stops the first call, not the first incident.
//!
//! One file per rule. Which rules look at which kind of resource stands in [`kinds`], where every kind has a row: a kind without
//! one fails a test. A rule cannot see through a placeholder (see [`crate::placeholder`]) and lets it pass.

mod alarms;
mod encryption;
mod fixed;
mod kinds;
mod names;
mod network;
mod open;
mod parity;
mod passwords;
mod policies;
mod replication;

#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::fmt;

pub use self::fixed::fixed;

use serde::Serialize;
use serde_json::Value;

use crate::graph::{Blueprint, InvalidBlueprint};
use crate::wanted::Wanted;

/// What a finding is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Rule {
    /// Networks do not overlap, and subnets lie in theirs.
    Network,
    /// Names are within AWS's length and characters.
    Name,
    /// Nothing is open to the world.
    Open,
    /// Everything that can be is encrypted, at rest and on its way.
    Encryption,
    /// No policy allows every action on every resource.
    Policy,
    /// What holds data holds it in both serving regions.
    Replication,
    /// The standby can carry what the home region carries.
    Parity,
    /// Passwords are strong and not written down.
    Password,
    /// Alarms tell somebody.
    Alarm,
    /// What a stack is deployed with for good stays.
    Fixed,
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Rule::Network => "network",
            Rule::Name => "name",
            Rule::Open => "open",
            Rule::Encryption => "encryption",
            Rule::Policy => "policy",
            Rule::Replication => "replication",
            Rule::Parity => "parity",
            Rule::Password => "password",
            Rule::Alarm => "alarm",
            Rule::Fixed => "fixed",
        })
    }
}

/// A rule that a resource breaks.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Finding {
    /// The resource.
    pub key: String,
    /// The rule.
    pub rule: Rule,
    /// What is wrong.
    pub problem: String,
    /// What to do about it.
    pub remedy: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "`{}` breaks the rule `{}`: {}; {}",
            self.key, self.rule, self.problem, self.remedy
        )
    }
}

/// Everything that is wrong with what a blueprint wants, sorted. Of a part of a stack only what can be said of a part: not that
/// a counterpart is missing.
///
/// # Errors
/// Only for a blueprint that is no graph.
pub fn check(blueprint: &Blueprint) -> Result<Vec<Finding>, InvalidBlueprint> {
    Ok(findings(&blueprint.wanted()?, !blueprint.is_partial()))
}

/// The gate before every change: an error that lists the findings, if there are any.
///
/// # Errors
/// A blueprint that breaks a rule, or is no graph.
pub fn pass(blueprint: &Blueprint) -> Result<(), InvalidBlueprint> {
    let findings = check(blueprint)?;
    if findings.is_empty() {
        Ok(())
    } else {
        Err(InvalidBlueprint::Findings(findings))
    }
}

/// `whole`: these are all resources of a stack.
fn findings(wanted: &[Wanted], whole: bool) -> Vec<Finding> {
    let stack = Stack::new(wanted, whole);
    let mut findings = Vec::new();
    for rule in RULES {
        rule(&stack, &mut findings);
    }
    findings.sort();
    findings.dedup();
    findings
}

const RULES: [fn(&Stack<'_>, &mut Vec<Finding>); 9] = [
    network::check,
    names::check,
    open::check,
    encryption::check,
    policies::check,
    replication::check,
    parity::check,
    passwords::check,
    alarms::check,
];

/// What the rules look at.
struct Stack<'a> {
    all: &'a [Wanted],
    by_key: HashMap<&'a str, &'a Wanted>,
    by_kind: HashMap<&'a str, Vec<&'a Wanted>>,
    whole: bool,
}

impl<'a> Stack<'a> {
    fn new(all: &'a [Wanted], whole: bool) -> Self {
        let mut by_kind: HashMap<&str, Vec<&Wanted>> = HashMap::new();
        for one in all {
            by_kind.entry(one.kind).or_default().push(one);
        }
        Stack {
            all,
            by_key: all.iter().map(|one| (one.key.as_str(), one)).collect(),
            by_kind,
            whole,
        }
    }

    /// The resources of a kind.
    fn of(&self, kind: &str) -> impl Iterator<Item = &'a Wanted> {
        self.by_kind.get(kind).into_iter().flatten().copied()
    }

    fn get(&self, key: &str) -> Option<&'a Wanted> {
        self.by_key.get(key).copied()
    }

    /// The parts of a kind by the bucket that they are of.
    fn by_bucket(&self, kind: &str) -> HashMap<&'a str, &'a Wanted> {
        self.of(kind).map(|one| (one.text("bucket"), one)).collect()
    }
}

impl Wanted {
    /// The value of a field; dots lead inside.
    fn field(&self, path: &str) -> &Value {
        path.split('.').fold(&self.spec, |value, name| &value[name])
    }

    /// A text; empty when there is none.
    fn text(&self, path: &str) -> &str {
        self.field(path).as_str().unwrap_or_default()
    }

    fn is_set(&self, path: &str) -> bool {
        self.field(path).as_bool() == Some(true)
    }

    fn list(&self, path: &str) -> &[Value] {
        self.field(path).as_array().map_or(&[], Vec::as_slice)
    }

    fn finding(&self, rule: Rule, problem: impl Into<String>, remedy: impl Into<String>) -> Finding {
        Finding {
            key: self.key.clone(),
            rule,
            problem: problem.into(),
            remedy: remedy.into(),
        }
    }
}

/// A bucket of packages: they lie under their own hash in every region, are no secret, and can be built again. So S3's own
/// encryption does, and there is nothing to version or to replicate.
fn holds_packages(bucket: &Wanted) -> bool {
    bucket.key.starts_with("artifacts.")
}

/// A table of request counts: a count is of one region and one second, so there is nothing in it to lose.
fn holds_counts(table: &Wanted) -> bool {
    table.key.starts_with("request-rates.")
}
