//! Drift: what a reconcile found to differ from the stored configuration, resource by resource, and what it did about it. The
//! item `drift` of the control table, the event and `understudy status` share these values.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::outcome::{Entry, Outcome, PlanEntry, PlanOutcome};
use crate::plan::{Change, FieldChange};

/// The item of the control table.
pub const ITEM: &str = "drift";
/// Longer values are cut: an item holds 400 KB, an event 256 KB, and the field's name is what a person needs.
const VALUE_LIMIT: usize = 160;
/// The entries of one run take no more than this; more are counted, not listed. The item holds two runs.
const ENTRIES_LIMIT_BYTES: usize = 150_000;

/// One field that differs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Difference {
    /// The field.
    pub field: String,
    /// What AWS had.
    pub from: Value,
    /// What the configuration says.
    pub to: Value,
}

impl From<&FieldChange> for Difference {
    fn from(change: &FieldChange) -> Self {
        let (from, to) = if is_long(&change.from) || is_long(&change.to) {
            apart(&change.from, &change.to)
        } else {
            (change.from.clone(), change.to.clone())
        };
        Difference {
            field: change.field.clone(),
            from: cut(&from),
            to: cut(&to),
        }
    }
}

fn is_long(value: &Value) -> bool {
    value.to_string().chars().nth(VALUE_LIMIT).is_some()
}

/// What is in only one of the two: of policies and other documents, members and elements that both have are left out.
fn apart(from: &Value, to: &Value) -> (Value, Value) {
    match (from, to) {
        (Value::Object(from), Value::Object(to)) => {
            let (mut only_from, mut only_to) = (from.clone(), to.clone());
            for (name, value) in from {
                let Some(other) = to.get(name) else { continue };
                if value == other {
                    only_from.remove(name);
                    only_to.remove(name);
                } else {
                    let (here, there) = apart(value, other);
                    only_from.insert(name.clone(), here);
                    only_to.insert(name.clone(), there);
                }
            }
            (only_from.into(), only_to.into())
        }
        (Value::Array(from), Value::Array(to)) => {
            let without = |these: &[Value], those: &[Value]| -> Vec<Value> {
                these.iter().filter(|one| !those.contains(one)).cloned().collect()
            };
            match (without(from, to), without(to, from)) {
                // The same elements in another order.
                (here, there) if here.is_empty() && there.is_empty() => {
                    (from.clone().into(), to.clone().into())
                }
                (here, there) => (here.into(), there.into()),
            }
        }
        _ => (from.clone(), to.clone()),
    }
}

fn cut(value: &Value) -> Value {
    let text = value.to_string();
    match text.char_indices().nth(VALUE_LIMIT) {
        Some((end, _)) => Value::from(format!("{}...", &text[..end])),
        None => value.clone(),
    }
}

/// How many resources that could not be looked at are told with their reason.
const UNREADABLE_TOLD: usize = 3;

/// What is wrong with a resource.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Wrong {
    /// It is gone.
    Missing,
    /// Fields of it differ.
    Differs,
    /// A role of it is elsewhere than at home, as after a failover.
    Role,
}

/// What was done about it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "action", rename_all = "kebab-case")]
pub enum Action {
    /// It is as it should be again.
    Repaired,
    /// Nothing, and nothing will be: roles follow live state.
    Left,
    /// Nothing: the configuration says that drift is only reported.
    Reported,
    /// Nothing yet.
    Waiting {
        /// For what.
        reason: String,
    },
    /// It was tried in vain.
    Failed {
        /// Why.
        reason: String,
    },
}

/// One resource that is not as the configuration says.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Drifted {
    /// The key in the blueprint.
    pub key: String,
    /// The kind's name.
    pub kind: String,
    /// The region.
    pub region: String,
    /// What is wrong.
    pub wrong: Wrong,
    /// The fields.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub fields: Vec<Difference>,
    /// What was done.
    #[serde(flatten)]
    pub action: Action,
}

/// How many of each.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    /// Resources that differ; roles do not count.
    pub drift: usize,
    /// Of these, repaired.
    pub repaired: usize,
    /// Of these, waiting, failed, or only reported.
    pub open: usize,
    /// Roles that are elsewhere than at home.
    pub roles: usize,
    /// Resources that could not be looked at.
    pub unreadable: usize,
}

/// What one reconcile found.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Run {
    /// The execution.
    pub execution: String,
    /// The region it ran in.
    pub region: String,
    /// The epoch it ran in.
    pub epoch: u64,
    /// The generation it compared with.
    pub generation: u64,
    /// When it began, milliseconds since the Unix epoch.
    pub began_ms: u64,
    /// When it last wrote this.
    pub at_ms: u64,
    /// Numbers of all entries, the omitted ones too.
    pub counts: Counts,
    /// The resources.
    pub entries: Vec<Drifted>,
    /// Entries beyond the most that are kept.
    #[serde(default)]
    pub omitted: usize,
    /// Why it could not do all it should, if so: what is failing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
    /// What could not be looked at, and why: the first few.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub unreadable: Vec<String>,
    /// The event has been sent.
    #[serde(default)]
    pub reported: bool,
}

impl Run {
    /// It found something that is not a matter of roles.
    pub fn found_drift(&self) -> bool {
        self.counts.drift > 0
    }

    /// Takes in what a later pass of the same run found: the newest word on each resource, and the first on what differed.
    pub fn merge(&mut self, entries: Vec<Drifted>, unreadable: usize) {
        let mut all: BTreeMap<(String, bool), Drifted> = std::mem::take(&mut self.entries)
            .into_iter()
            .map(|entry| ((entry.key.clone(), entry.wrong == Wrong::Role), entry))
            .collect();
        for mut entry in entries {
            let place = (entry.key.clone(), entry.wrong == Wrong::Role);
            if let Some(earlier) = all.remove(&place) {
                entry.wrong = earlier.wrong;
                if !earlier.fields.is_empty() {
                    entry.fields = earlier.fields;
                }
            }
            all.insert(place, entry);
        }
        let mut entries: Vec<Drifted> = all.into_values().collect();
        let count = |wanted: fn(&Drifted) -> bool| entries.iter().filter(|entry| wanted(entry)).count();
        self.counts = Counts {
            drift: count(|entry| entry.wrong != Wrong::Role),
            repaired: count(|entry| entry.wrong != Wrong::Role && entry.action == Action::Repaired),
            open: count(|entry| entry.wrong != Wrong::Role && entry.action != Action::Repaired),
            roles: count(|entry| entry.wrong == Wrong::Role),
            unreadable,
        };
        let all = entries.len();
        while serde_json::to_string(&entries).map_or(0, |text| text.len()) > ENTRIES_LIMIT_BYTES {
            entries.truncate(entries.len() * 3 / 4);
        }
        self.omitted = all - entries.len();
        self.entries = entries;
    }
}

/// The item: the last run, and the last that found something.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// The last run.
    pub last: Option<Run>,
    /// The last run that found drift, when that is not the last run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_found: Option<Run>,
}

impl Report {
    /// The run of this execution, made when it is not the last one.
    pub fn run(&mut self, new: Run) -> &mut Run {
        if self
            .last
            .as_ref()
            .is_none_or(|last| last.execution != new.execution)
        {
            if let Some(last) = self.last.take().filter(Run::found_drift) {
                self.last_found = Some(last);
            }
            self.last = Some(new.clone());
        }
        self.last.get_or_insert(new)
    }
}

/// What a comparison alone says, and what could not be looked at. Nothing has been done about any of it.
pub fn found(plan: &[PlanEntry]) -> (Vec<Drifted>, usize) {
    let mut drifted = Vec::new();
    let mut unreadable = 0;
    for entry in plan {
        let planned = match &entry.plan {
            PlanOutcome::Planned(planned) => planned,
            PlanOutcome::Failed { .. } => {
                unreadable += 1;
                continue;
            }
        };
        let this = |wrong, fields: &[FieldChange], action| Drifted {
            key: entry.key.clone(),
            kind: entry.kind.clone(),
            region: entry.region.clone(),
            wrong,
            fields: fields.iter().map(Difference::from).collect(),
            action,
        };
        match &planned.change {
            Change::Create => drifted.push(this(Wrong::Missing, &[], Action::Reported)),
            Change::Update { fields } | Change::Replace { fields, .. } => {
                drifted.push(this(Wrong::Differs, fields, Action::Reported));
            }
            Change::Unchanged => {}
            // What it depends on is missing, and it is compared once that exists; or that could not be looked at either.
            Change::Unknown { .. } => unreadable += 1,
        }
        if !planned.roles.is_empty() {
            drifted.push(this(Wrong::Role, &planned.roles, Action::Left));
        }
    }
    (drifted, unreadable)
}

/// Why the first few resources of a comparison could not be looked at: a call that was refused, or not answered.
pub fn unreadable(plan: &[PlanEntry]) -> Vec<String> {
    let failed = plan.iter().filter_map(|entry| match &entry.plan {
        PlanOutcome::Failed { error } => Some(format!("{}: {error}", entry.key)),
        PlanOutcome::Planned(_) => None,
    });
    failed.take(UNREADABLE_TOLD).collect()
}

/// What a repairing pass did about `found`, and what it found beyond. What the first pass finds to be right without a write is
/// dropped: AWS had shown an old state. In a later pass it is what an earlier one wrote.
pub fn repaired(found: Vec<Drifted>, outcomes: &[Entry], first_pass: bool) -> Vec<Drifted> {
    let known: BTreeSet<String> = found
        .iter()
        .filter(|entry| entry.wrong != Wrong::Role)
        .map(|entry| entry.key.clone())
        .collect();
    let by_key: BTreeMap<&str, &Entry> = outcomes.iter().map(|entry| (entry.key.as_str(), entry)).collect();
    let mut drifted: Vec<Drifted> = found
        .into_iter()
        .filter_map(|mut entry| {
            if entry.wrong == Wrong::Role {
                return Some(entry);
            }
            let action = match by_key.get(entry.key.as_str()) {
                Some(after) => action(&after.outcome, first_pass)?,
                None => return Some(entry),
            };
            entry.action = action;
            Some(entry)
        })
        .collect();
    for after in outcomes.iter().filter(|after| !known.contains(&after.key)) {
        let (wrong, fields): (_, &[FieldChange]) = match &after.outcome {
            Outcome::Created => (Wrong::Missing, &[]),
            Outcome::Updated { fields } | Outcome::Replaced { fields } => (Wrong::Differs, fields),
            _ => continue,
        };
        drifted.push(Drifted {
            key: after.key.clone(),
            kind: after.kind.clone(),
            region: after.region.clone(),
            wrong,
            fields: fields.iter().map(Difference::from).collect(),
            action: Action::Repaired,
        });
    }
    drifted
}

/// What an outcome says of a resource that had drifted; `None` when nothing had to be done.
fn action(outcome: &Outcome, first_pass: bool) -> Option<Action> {
    match outcome {
        Outcome::Unchanged if !first_pass => Some(Action::Repaired),
        Outcome::Created | Outcome::Updated { .. } | Outcome::Replaced { .. } => Some(Action::Repaired),
        Outcome::Waiting { on } => Some(Action::Waiting { reason: on.clone() }),
        Outcome::Blocked { by } => Some(Action::Waiting {
            reason: format!("{by} comes first"),
        }),
        Outcome::Failed { error } => Some(Action::Failed {
            reason: error.clone(),
        }),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::graph::Group;
    use crate::plan::Planned;

    fn field(name: &str) -> FieldChange {
        FieldChange {
            field: name.into(),
            from: json!(1),
            to: json!(2),
        }
    }

    fn planned(key: &str, change: Change, roles: Vec<FieldChange>) -> PlanEntry {
        PlanEntry {
            key: key.into(),
            kind: "thing".into(),
            region: "us-east-1".into(),
            plan: PlanOutcome::Planned(Planned { change, roles }),
        }
    }

    fn came(key: &str, outcome: Outcome) -> Entry {
        Entry {
            key: key.into(),
            kind: "thing".into(),
            region: "us-east-1".into(),
            group: Group::Global,
            outcome,
            roles: Vec::new(),
        }
    }

    fn run(execution: &str) -> Run {
        Run {
            execution: execution.into(),
            region: "us-east-1".into(),
            epoch: 1,
            generation: 1,
            began_ms: 0,
            at_ms: 0,
            counts: Counts::default(),
            entries: Vec::new(),
            omitted: 0,
            note: None,
            unreadable: Vec::new(),
            reported: false,
        }
    }

    fn plan() -> Vec<PlanEntry> {
        vec![
            planned("right", Change::Unchanged, vec![]),
            planned("gone", Change::Create, vec![]),
            planned(
                "changed",
                Change::Update {
                    fields: vec![field("memory_mb")],
                },
                vec![],
            ),
            planned(
                "behind",
                Change::Unknown {
                    until: vec!["gone".into()],
                },
                vec![],
            ),
            planned("moved", Change::Unchanged, vec![field("writer")]),
            PlanEntry {
                plan: PlanOutcome::Failed {
                    error: "denied".into(),
                },
                ..planned("dark", Change::Unchanged, vec![])
            },
        ]
    }

    #[test]
    fn a_comparison_reports_each_resource_by_name_and_field() {
        let (found, unreadable) = found(&plan());
        let told: Vec<_> = found
            .iter()
            .map(|entry| (entry.key.as_str(), entry.wrong, entry.fields.len(), &entry.action))
            .collect();
        assert_eq!(
            told,
            [
                ("gone", Wrong::Missing, 0, &Action::Reported),
                ("changed", Wrong::Differs, 1, &Action::Reported),
                ("moved", Wrong::Role, 1, &Action::Left),
            ]
        );
        assert_eq!(unreadable, 2);
    }

    #[test]
    fn a_repair_says_what_became_of_each_and_leaves_roles() {
        let outcomes = [
            came("gone", Outcome::Created),
            came(
                "changed",
                Outcome::Waiting {
                    on: "us-east-1 is failing".into(),
                },
            ),
            came(
                "behind",
                Outcome::Updated {
                    fields: vec![field("target")],
                },
            ),
            came("right", Outcome::Unchanged),
        ];
        let entries = repaired(found(&plan()).0, &outcomes, true);
        let action = |key: &str| {
            entries
                .iter()
                .find(|entry| entry.key == key)
                .map(|entry| &entry.action)
        };
        assert_eq!(action("gone"), Some(&Action::Repaired));
        assert_eq!(
            action("changed"),
            Some(&Action::Waiting {
                reason: "us-east-1 is failing".into()
            })
        );
        assert_eq!(action("behind"), Some(&Action::Repaired));
        assert_eq!(action("moved"), Some(&Action::Left));
        assert_eq!(action("right"), None);
    }

    #[test]
    fn what_was_right_again_without_a_write_was_no_drift() {
        let entries = repaired(found(&plan()).0, &[came("changed", Outcome::Unchanged)], true);
        assert!(entries.iter().all(|entry| entry.key != "changed"));
    }

    #[test]
    fn a_later_pass_has_the_last_word_on_what_was_done_and_the_first_pass_on_what_differed() {
        let mut run = run("a");
        let waits = [
            came("changed", Outcome::Waiting { on: "it".into() }),
            came("gone", Outcome::Created),
        ];
        run.merge(repaired(found(&plan()).0, &waits, true), 0);
        assert_eq!((run.counts.drift, run.counts.open, run.counts.roles), (2, 1, 1));
        let right = [
            came("changed", Outcome::Unchanged),
            came("gone", Outcome::Unchanged),
        ];
        run.merge(repaired(run.entries.clone(), &right, false), 0);
        assert_eq!(
            (run.counts.drift, run.counts.repaired, run.counts.roles),
            (2, 2, 1)
        );
        let changed = run
            .entries
            .iter()
            .find(|entry| entry.key == "changed")
            .expect("there");
        assert_eq!(
            (changed.fields[0].field.as_str(), &changed.action),
            ("memory_mb", &Action::Repaired)
        );
    }

    #[test]
    fn the_item_keeps_the_last_run_and_the_last_that_found_something() {
        let mut report = Report::default();
        report.run(run("a")).merge(found(&plan()).0, 0);
        // The same execution again: the same run.
        assert_eq!(report.run(run("a")).counts.drift, 2);
        report.run(run("b"));
        report.run(run("c"));
        let name = |run: &Option<Run>| run.as_ref().map(|run| run.execution.clone());
        assert_eq!(
            (name(&report.last), name(&report.last_found)),
            (Some("c".into()), Some("a".into()))
        );
        let text = serde_json::to_string(&report).expect("plain data");
        assert_eq!(
            serde_json::from_str::<Report>(&text).expect("what was written"),
            report
        );
    }

    #[test]
    fn of_a_long_value_the_part_that_differs_is_told() {
        let statement = |sid: &str| json!({"Sid": sid, "Action": ["logs:CreateLogStream", "logs:PutLogEvents"], "Resource": "*"});
        let ours = json!({"probe": {"Version": "2012-10-17", "Statement": [statement("Logs"), statement("Metrics")]}});
        let mut theirs = ours.clone();
        theirs["more"] = statement("Everything");
        theirs["probe"]["Statement"][1] = json!("gone");
        let told = Difference::from(&FieldChange {
            field: "policies".into(),
            from: theirs,
            to: ours,
        });
        assert_eq!(told.to, json!({"probe": {"Statement": [statement("Metrics")]}}));
        let expected = json!({"more": statement("Everything"), "probe": {"Statement": ["gone"]}});
        assert_eq!(told.from, cut(&expected));
        assert_ne!(told.from, told.to);
        // What is short is told as it is.
        let short = FieldChange {
            field: "parameters".into(),
            from: json!({"a": 1, "b": 1}),
            to: json!({"a": 1, "b": 2}),
        };
        assert_eq!(Difference::from(&short).to, short.to);
    }

    #[test]
    fn a_report_fits_an_item_whatever_drifted() {
        let long = FieldChange {
            field: "definition".into(),
            from: json!("x".repeat(50_000)),
            to: json!("é".repeat(50_000)),
        };
        let plan: Vec<_> = (0..1_000)
            .map(|n| {
                planned(
                    &format!("key-{n}"),
                    Change::Update {
                        fields: vec![long.clone()],
                    },
                    vec![],
                )
            })
            .collect();
        let mut run = run("a");
        run.merge(found(&plan).0, 0);
        assert_eq!(run.counts.drift, 1_000);
        assert_eq!(run.entries.len() + run.omitted, 1_000);
        let mut report = Report {
            last_found: Some(run.clone()),
            ..Report::default()
        };
        report.last = Some(run);
        assert!(serde_json::to_string(&report).expect("plain data").len() < 390_000);
    }
}
