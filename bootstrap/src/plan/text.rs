//! A plan for a person: a line for each resource that changes, by region, then a count. Long values are cut; of documents the parts
//! that differ are shown.

use std::collections::{BTreeMap, BTreeSet};

use console::style;
use infra::graph::Group;
use infra::kind::Found;
use infra::plan::FieldChange;
use serde_json::Value;

use super::{Action, Plan, Resource};

/// Longer values are cut.
const VALUE_LIMIT: usize = 60;
/// Differences of one document that are shown.
const PARTS_LIMIT: usize = 4;
/// As much of a change stands on the resource's line; longer ones stand below it.
const LINE_LIMIT: usize = 80;
/// As much of a hash is enough to tell it from another.
const HASH_SHOWN: usize = 12;

/// The plan, without what is unchanged.
pub fn describe(plan: &Plan) -> String {
    let mut parts = vec![format!(
        "stack {}, account {}{}",
        style(&plan.stack).bold(),
        plan.account,
        if plan.deployed {
            ""
        } else {
            ": nothing is deployed"
        }
    )];
    parts.extend(settings(plan));
    parts.extend(resources(plan));
    parts.extend(strangers(&plan.strangers));
    parts.extend(roles(plan));
    parts.extend(list("not observed", &plan.errors));
    let findings: Vec<String> = plan.findings.iter().map(ToString::to_string).collect();
    parts.extend(list("refused by the checker", &findings));
    parts.push(count(plan));
    parts.join("\n\n")
}

fn heading(text: &str) -> String {
    style(text).bold().to_string()
}

fn list(title: &str, lines: &[String]) -> Option<String> {
    (!lines.is_empty()).then(|| {
        let lines: String = lines
            .iter()
            .map(|line| format!("\n  {} {line}", style("!").red().bold()))
            .collect();
        format!("{}{lines}", heading(title))
    })
}

fn settings(plan: &Plan) -> Option<String> {
    (!plan.settings.is_empty()).then(|| {
        let lines: String = plan
            .settings
            .iter()
            .map(|change| format!("\n    {}", plain(change)))
            .collect();
        format!("{}{lines}", heading("settings"))
    })
}

fn resources(plan: &Plan) -> Vec<String> {
    let changed: Vec<&Resource> = plan
        .resources
        .iter()
        .filter(|one| one.change != Action::Unchanged)
        .collect();
    let width = changed
        .iter()
        .map(|one| one.key.chars().count())
        .max()
        .unwrap_or_default();
    let groups: BTreeSet<_> = changed.iter().map(|one| one.group).collect();
    groups
        .into_iter()
        .map(|group| {
            let lines: String = changed
                .iter()
                .filter(|one| one.group == group)
                .map(|one| format!("\n{}", line(one, width)))
                .collect();
            format!("{}{lines}", heading(&place(plan, group)))
        })
        .collect()
}

/// A group with its region: the one that most of it is in, because roles and records of every group are made in one place.
fn place(plan: &Plan, group: Group) -> String {
    if group == Group::Global {
        return group.to_string();
    }
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for one in plan.resources.iter().filter(|one| one.group == group) {
        *counts.entry(&one.region).or_default() += 1;
    }
    let most = counts.into_iter().max_by_key(|(_, count)| *count);
    most.map_or_else(|| group.to_string(), |(region, _)| format!("{group}, {region}"))
}

fn line(one: &Resource, width: usize) -> String {
    let mut notes: Vec<String> = one.fields.iter().flat_map(changes).collect();
    if one.change == Action::Later {
        notes.push(format!(
            "changed or created, known after {}",
            one.until.join(", ")
        ));
    }
    if one.holds_data {
        notes.push(match &one.replaced_with {
            Some(other) => format!("it holds data: `up` leaves it and {other} as they are"),
            None => format!("it holds data: only with --replace {}", one.key),
        });
    }
    notes.extend(one.error.clone());
    let head = format!("  {} {:width$}", sign(one.change), one.key);
    let together = notes.join("; ");
    if together.chars().count() <= LINE_LIMIT {
        return format!("{head}  {together}").trim_end().to_owned();
    }
    let below: String = notes
        .iter()
        .map(|note| format!("\n               {note}"))
        .collect();
    format!("{}{below}", head.trim_end())
}

fn sign(action: Action) -> String {
    let (sign, word) = match action {
        Action::Create => (style("+").green(), "create "),
        Action::Update => (style("~").yellow(), "update "),
        Action::Replace => (style("!").red(), "replace"),
        Action::Delete => (style("-").red(), "delete "),
        Action::Later => (style("?").cyan(), "later  "),
        Action::Failed => (style("x").red(), "failed "),
        Action::Unchanged => (style(" "), "       "),
    };
    format!("{} {word}", sign.bold())
}

fn strangers(strangers: &[Found]) -> Option<String> {
    (!strangers.is_empty()).then(|| {
        let lines: String = strangers
            .iter()
            .map(|found| {
                format!(
                    "\n  {} (with --prune) {}  {} {} in {}",
                    sign(Action::Delete).trim_end(),
                    found.key.as_deref().unwrap_or_default(),
                    found.kind,
                    found.id,
                    found.region
                )
            })
            .collect();
        format!("{}{lines}", heading("of this stack, but not configured any more"))
    })
}

fn roles(plan: &Plan) -> Option<String> {
    let moved = plan
        .resources
        .iter()
        .flat_map(|one| one.roles.iter().map(move |role| (&one.key, role)));
    let lines: String = moved
        .map(|(key, role)| {
            format!(
                "\n    {key}  {} is {}, at home it is {}",
                role.field, role.from, role.to
            )
        })
        .collect();
    (!lines.is_empty()).then(|| {
        let title = "roles that have moved, as after a failover: in order, nothing changes them";
        format!("{}{lines}", heading(title))
    })
}

fn count(plan: &Plan) -> String {
    let unchanged = plan.count(Action::Unchanged);
    if !plan.has_changes() && plan.is_complete() {
        return format!("no changes: {unchanged} resources are as configured");
    }
    let mut counts: Vec<String> = [
        (Action::Create, "create"),
        (Action::Update, "update"),
        (Action::Replace, "replace"),
        (Action::Delete, "delete"),
    ]
    .map(|(action, word)| format!("{} to {word}", plan.count(action)))
    .into();
    for (action, words) in [
        (Action::Later, "known later"),
        (Action::Failed, "not observed"),
        (Action::Unchanged, "unchanged"),
    ] {
        if plan.count(action) > 0 {
            counts.push(format!("{} {words}", plan.count(action)));
        }
    }
    format!("{} {}", style("plan:").bold(), counts.join(", "))
}

/// A change of a field in one note, or in one for each part of a document that differs.
fn changes(change: &FieldChange) -> Vec<String> {
    let long = |value: &Value| value.to_string().chars().count() > VALUE_LIMIT;
    let composed = |value: &Value| value.is_object() || value.is_array();
    if !(composed(&change.from) && composed(&change.to) && (long(&change.from) || long(&change.to))) {
        return vec![plain(change)];
    }
    let mut parts = Vec::new();
    differences(&change.field, &change.from, &change.to, &mut parts);
    if parts.is_empty() {
        // Documents that say the same in other words.
        return vec![plain(change)];
    }
    let more = parts.len().saturating_sub(PARTS_LIMIT);
    parts.truncate(PARTS_LIMIT);
    if more > 0 {
        parts.push(format!("{}: {more} more differences", change.field));
    }
    parts
}

fn plain(change: &FieldChange) -> String {
    format!(
        "{}: {} -> {}",
        change.field,
        short(&change.from),
        short(&change.to)
    )
}

fn short(value: &Value) -> String {
    let text = value.to_string();
    let is_hash = |text: &str| text.len() == 64 && text.bytes().all(|b| b.is_ascii_hexdigit());
    if let Some(hash) = value.as_str().filter(|text| is_hash(text)) {
        return format!("{}...", &hash[..HASH_SHOWN]);
    }
    match text.char_indices().nth(VALUE_LIMIT) {
        Some((cut, _)) => format!("{}...", &text[..cut]),
        None => text,
    }
}

/// Where two documents differ.
fn differences(path: &str, from: &Value, to: &Value, parts: &mut Vec<String>) {
    match (from, to) {
        (from, to) if from == to => {}
        (Value::Object(old), Value::Object(new)) => {
            let names: BTreeSet<&String> = old.keys().chain(new.keys()).collect();
            for name in names {
                inside(&format!("{path}.{name}"), old.get(name), new.get(name), parts);
            }
        }
        (Value::Array(old), Value::Array(new)) => lists(path, old, new, parts),
        // A function's environment holds documents as texts.
        (Value::String(old), Value::String(new)) if document(old).is_some() && document(new).is_some() => {
            let parse = |text| document(text).unwrap_or_default();
            differences(path, &parse(old), &parse(new), parts);
        }
        (from, to) => parts.push(format!("{path}: {} -> {}", short(from), short(to))),
    }
}

/// A text that is a JSON object.
fn document(text: &str) -> Option<Value> {
    text.starts_with('{')
        .then(|| serde_json::from_str(text).ok())
        .flatten()
}

fn inside(path: &str, from: Option<&Value>, to: Option<&Value>, parts: &mut Vec<String>) {
    match (from, to) {
        (Some(from), Some(to)) => differences(path, from, to, parts),
        (Some(from), None) => parts.push(format!("{path}: without {}", short(from))),
        (None, Some(to)) => parts.push(format!("{path}: with {}", short(to))),
        (None, None) => {}
    }
}

/// Entries with a name are compared by it, others one by one where the lists are as long; otherwise what came and went is told.
fn lists(path: &str, old: &[Value], new: &[Value], parts: &mut Vec<String>) {
    if let (Some(before), Some(after)) = (named(old), named(new)) {
        let names: BTreeSet<&str> = before.keys().chain(after.keys()).copied().collect();
        for name in names {
            let (from, to) = (before.get(name).copied(), after.get(name).copied());
            inside(&format!("{path}.{name}"), from, to, parts);
        }
    } else if old.len() == new.len() && old.iter().chain(new).all(|one| one.is_object() || one.is_array()) {
        for (at, (from, to)) in old.iter().zip(new).enumerate() {
            differences(&format!("{path}[{at}]"), from, to, parts);
        }
    } else {
        let gone = old.iter().filter(|one| !new.contains(one));
        let come = new.iter().filter(|one| !old.contains(one));
        parts.extend(gone.map(|one| format!("{path}: without {}", short(one))));
        parts.extend(come.map(|one| format!("{path}: with {}", short(one))));
    }
}

/// The entries by what they are called, as statements of policies and rules are; nothing where any has no name.
fn named(all: &[Value]) -> Option<BTreeMap<&str, &Value>> {
    all.iter().map(|entry| Some((name(entry)?, entry))).collect()
}

fn name(entry: &Value) -> Option<&str> {
    ["Sid", "id", "name"]
        .iter()
        .find_map(|field| entry[field].as_str())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn change(from: Value, to: Value) -> FieldChange {
        FieldChange {
            field: "policy".into(),
            from,
            to,
        }
    }

    #[test]
    fn of_documents_the_parts_that_differ_are_shown() {
        let statement = |sid: &str, actions: &[&str]| json!({"Sid": sid, "Action": actions, "Resource": ["arn:aws:s3:::a-long-bucket-name"]});
        let from = json!({"Statement": [statement("Read", &["s3:GetObject", "s3:ListBucket"]), statement("Old", &[])]});
        let to = json!({"Statement": [statement("Read", &["s3:GetObject", "s3:GetObjectVersion"])]});
        assert_eq!(
            changes(&change(from, to)),
            [
                "policy.Statement.Old: without {\"Action\":[],\"Resource\":[\"arn:aws:s3:::a-long-bucket-name\"],...",
                "policy.Statement.Read.Action: without \"s3:ListBucket\"",
                "policy.Statement.Read.Action: with \"s3:GetObjectVersion\"",
            ]
        );
    }

    #[test]
    fn a_document_in_a_text_is_a_document() {
        let environment = |rounds: i32| {
            let policy = json!({"decider": "automatic", "rounds_to_fail": rounds, "observers_to_agree": 2});
            json!({"UNDERSTUDY_POLICY": policy.to_string(), "RUST_LOG": "info"})
        };
        assert_eq!(
            changes(&change(environment(3), environment(5))),
            ["policy.UNDERSTUDY_POLICY.rounds_to_fail: 3 -> 5"]
        );
    }

    #[test]
    fn many_differences_are_counted() {
        let document = |value: i32| {
            let members = (0..20).map(|at| (format!("key-{at:02}"), json!(value)));
            Value::Object(members.collect())
        };
        let shown = changes(&change(document(1), document(2)));
        assert_eq!(shown.len(), PARTS_LIMIT + 1);
        assert_eq!(shown[0], "policy.key-00: 1 -> 2");
        assert_eq!(shown[PARTS_LIMIT], "policy: 16 more differences");
    }

    #[test]
    fn short_values_are_shown_whole_and_hashes_by_their_beginning() {
        assert_eq!(changes(&change(json!([1]), json!([2]))), ["policy: [1] -> [2]"]);
        assert_eq!(
            changes(&change(json!("ab".repeat(32)), json!(""))),
            ["policy: abababababab... -> \"\""]
        );
        let text = changes(&change(json!("x".repeat(500)), json!(null))).join("");
        assert!(text.len() < 100, "{text}");
    }
}
