//! What came of it: one value per resource, shared by the dry run, the real run, `--output json` and the workflows.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::graph::Group;
use crate::plan::{self, FieldChange, Planned};

/// What became of one resource.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "outcome", rename_all = "kebab-case")]
pub enum Outcome {
    /// It was right already.
    Unchanged,
    /// It was made.
    Created,
    /// It was changed.
    Updated {
        /// What differed.
        fields: Vec<FieldChange>,
    },
    /// It was deleted and made again.
    Replaced {
        /// What forced it.
        fields: Vec<FieldChange>,
    },
    /// It was deleted.
    Deleted,
    /// There was nothing to delete.
    Absent,
    /// Its deletion was refused for hours to come. Nothing else waits for it.
    HeldBack {
        /// Why, and until when.
        until: String,
    },
    /// It stays: it is not part of this teardown.
    Kept,
    /// The time budget ended first. Another run goes on from here.
    Waiting {
        /// What AWS is still doing.
        on: String,
    },
    /// Something that must come first waits or failed.
    Blocked {
        /// The key of that resource.
        by: String,
    },
    /// It failed.
    Failed {
        /// The whole story on one line.
        error: String,
    },
}

impl Outcome {
    /// Nothing is left to do for this resource.
    pub fn is_final(&self) -> bool {
        !matches!(
            self,
            Outcome::Waiting { .. } | Outcome::Blocked { .. } | Outcome::Failed { .. }
        )
    }

    /// This run changed something.
    pub fn is_change(&self) -> bool {
        matches!(
            self,
            Outcome::Created | Outcome::Updated { .. } | Outcome::Replaced { .. } | Outcome::Deleted
        )
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Outcome::Unchanged => f.write_str("unchanged"),
            Outcome::Created => f.write_str("created"),
            Outcome::Updated { fields } => write!(f, "updated ({})", plan::join(fields)),
            Outcome::Replaced { fields } => write!(f, "replaced ({})", plan::join(fields)),
            Outcome::Deleted => f.write_str("deleted"),
            Outcome::Absent => f.write_str("absent"),
            Outcome::HeldBack { until } => write!(f, "held back: {until}"),
            Outcome::Kept => f.write_str("kept"),
            Outcome::Waiting { on } => write!(f, "waiting: {on}"),
            Outcome::Blocked { by } => write!(f, "blocked by {by}"),
            Outcome::Failed { error } => write!(f, "failed: {error}"),
        }
    }
}

/// One line of a report.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Entry {
    /// The node's key.
    pub key: String,
    /// The kind's name.
    pub kind: String,
    /// The region.
    pub region: String,
    /// The group it is counted in.
    pub group: Group,
    /// What became of it.
    #[serde(flatten)]
    pub outcome: Outcome,
    /// Roles that are elsewhere than at home.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub roles: Vec<FieldChange>,
}

impl Entry {
    /// This entry, and what a later look in the same run made of it.
    #[must_use]
    pub(crate) fn then(self, later: Entry) -> Entry {
        let outcome = match (&self.outcome, &later.outcome) {
            (first, Outcome::Unchanged) if first.is_change() => self.outcome,
            (Outcome::Created, second) if second.is_change() => self.outcome,
            _ => later.outcome,
        };
        Entry { outcome, ..later }
    }
}

impl fmt::Display for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} ({}, {}): {}",
            self.key, self.kind, self.region, self.outcome
        )?;
        if !self.roles.is_empty() {
            write!(f, " [role elsewhere: {}]", plan::join(&self.roles))?;
        }
        Ok(())
    }
}

/// What came of a run, in the blueprint's order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Report {
    /// One entry per node.
    pub entries: Vec<Entry>,
    /// Nothing is left to do.
    pub done: bool,
}

impl Report {
    pub(crate) fn new(entries: Vec<Entry>) -> Self {
        let done = entries.iter().all(|entry| entry.outcome.is_final());
        Report { entries, done }
    }

    /// The outcome of one node.
    pub fn outcome(&self, key: &str) -> Option<&Outcome> {
        self.entries
            .iter()
            .find(|entry| entry.key == key)
            .map(|entry| &entry.outcome)
    }

    /// Entries that changed something.
    pub fn changes(&self) -> impl Iterator<Item = &Entry> {
        self.entries.iter().filter(|entry| entry.outcome.is_change())
    }

    /// Entries that failed.
    pub fn failures(&self) -> impl Iterator<Item = &Entry> {
        self.entries
            .iter()
            .filter(|entry| matches!(entry.outcome, Outcome::Failed { .. }))
    }

    /// The same as a progress value.
    pub fn progress(&self) -> Progress {
        Progress::of(
            self.entries
                .iter()
                .map(|entry| (entry.key.as_str(), entry.group, Some(&entry.outcome))),
        )
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for entry in self
            .entries
            .iter()
            .filter(|entry| entry.outcome != Outcome::Unchanged)
        {
            writeln!(f, "{entry}")?;
        }
        let count = |wanted: fn(&Outcome) -> bool| self.entries.iter().filter(|e| wanted(&e.outcome)).count();
        write!(
            f,
            "{} resources: {} changed, {} waiting, {} blocked, {} failed",
            self.entries.len(),
            count(Outcome::is_change),
            count(|o| matches!(o, Outcome::Waiting { .. })),
            count(|o| matches!(o, Outcome::Blocked { .. })),
            count(|o| matches!(o, Outcome::Failed { .. })),
        )
    }
}

/// One line of a plan.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PlanEntry {
    /// The node's key.
    pub key: String,
    /// The kind's name.
    pub kind: String,
    /// The region.
    pub region: String,
    /// What would be done, or why that cannot be said.
    #[serde(flatten)]
    pub plan: PlanOutcome,
}

/// What would be done, or why that cannot be said.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum PlanOutcome {
    /// The comparison.
    Planned(Planned),
    /// It could not be observed.
    Failed {
        /// The whole story on one line.
        error: String,
    },
}

impl fmt::Display for PlanEntry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({}, {}): ", self.key, self.kind, self.region)?;
        match &self.plan {
            PlanOutcome::Planned(planned) => planned.fmt(f),
            PlanOutcome::Failed { error } => write!(f, "failed: {error}"),
        }
    }
}

/// How far a run is.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Progress {
    /// Resources in all.
    pub total: usize,
    /// Resources with nothing left to do.
    pub ready: usize,
    /// What is being waited for.
    pub waiting: Vec<WaitingFor>,
    /// What failed.
    pub failed: Vec<FailedWith>,
    /// The same by group.
    pub groups: BTreeMap<Group, Count>,
}

/// A resource that is not ready yet.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WaitingFor {
    /// Its key.
    pub key: String,
    /// What AWS is still doing.
    pub on: String,
}

/// A resource that failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FailedWith {
    /// Its key.
    pub key: String,
    /// The whole story on one line.
    pub error: String,
}

/// Ready and total.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Count {
    /// Resources with nothing left to do.
    pub ready: usize,
    /// Resources in all.
    pub total: usize,
}

impl Progress {
    pub(crate) fn of<'a>(entries: impl Iterator<Item = (&'a str, Group, Option<&'a Outcome>)>) -> Self {
        let mut progress = Progress::default();
        for (key, group, outcome) in entries {
            let count = progress.groups.entry(group).or_default();
            count.total += 1;
            progress.total += 1;
            match outcome {
                Some(outcome) if outcome.is_final() => {
                    count.ready += 1;
                    progress.ready += 1;
                }
                Some(Outcome::Waiting { on }) => {
                    progress.waiting.push(WaitingFor {
                        key: key.to_owned(),
                        on: on.clone(),
                    });
                }
                Some(Outcome::Failed { error }) => {
                    progress.failed.push(FailedWith {
                        key: key.to_owned(),
                        error: error.clone(),
                    });
                }
                _ => {}
            }
        }
        progress
    }
}

impl fmt::Display for Progress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of {} ready", self.ready, self.total)?;
        if let Some(first) = self.waiting.first() {
            write!(f, ", waiting for {} ({})", first.key, first.on)?;
        }
        if let Some(first) = self.failed.first() {
            write!(
                f,
                ", {} failed, first {}: {}",
                self.failed.len(),
                first.key,
                first.error
            )?;
        }
        Ok(())
    }
}
