//! `understudy plan`: what `understudy up` would change, resource by resource. Reads only. What is not deployed at all is planned
//! too: then everything is created.

pub mod text;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use infra::change;
use infra::check::{self, Finding};
use infra::engine::{self, Extent, Inventory, Options};
use infra::graph::{Blueprint, Group, Node};
use infra::kind::Found;
use infra::outcome::{PlanEntry, PlanOutcome, Progress};
use infra::plan::{Change, FieldChange};
use infra::resources::db_snapshot::with_lost_tails;
use serde::Serialize;
use serde_json::Value;

use crate::artifacts::Choice;
use crate::failure::Failure;
use crate::stack::Stack;
use crate::ui::Ui;
use crate::up;

/// Everything is looked at within this time; what was not could not be observed.
const LOOK_LIMIT: Duration = Duration::from_secs(120);
/// The same when a region does not answer: its resources would take all of it.
const LOOK_LIMIT_IMPAIRED: Duration = Duration::from_secs(10);

/// What `up` would do.
#[derive(Debug, Clone, Serialize)]
pub struct Plan {
    /// The suffix.
    pub stack: String,
    /// The account.
    pub account: String,
    /// Anything of the stack exists.
    pub deployed: bool,
    /// Resources by what would become of them.
    pub counts: BTreeMap<Action, usize>,
    /// Settings that differ from the stored configuration.
    pub settings: Vec<FieldChange>,
    /// Every resource.
    pub resources: Vec<Resource>,
    /// What carries the stack's tag and is in its configuration no more. Only `up --prune` deletes it.
    pub strangers: Vec<Found>,
    /// What the checker refuses. `up` would stop at it before its first change.
    pub findings: Vec<Finding>,
    /// What could not be observed, and why.
    pub errors: Vec<String>,
}

/// What would become of a resource.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Action {
    /// It does not exist and is made.
    Create,
    /// It is changed in place.
    Update,
    /// It is deleted and made again.
    Replace,
    /// It is deleted, with `--prune`.
    Delete,
    /// It is changed or made; which of them is known when something else has been made.
    Later,
    /// It is as configured.
    Unchanged,
    /// It could not be observed.
    Failed,
}

/// One resource.
#[derive(Debug, Clone, Serialize)]
pub struct Resource {
    /// The key in the blueprint.
    pub key: String,
    /// The kind's name.
    pub kind: String,
    /// The region.
    pub region: String,
    /// The group that it is counted in.
    pub group: Group,
    /// What would become of it.
    pub change: Action,
    /// What differs; of a replacement, what forces it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub fields: Vec<FieldChange>,
    /// What must be made before more can be said.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub until: Vec<String>,
    /// The key of what is replaced and takes this with it; none where it differs itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub replaced_with: Option<String>,
    /// It holds data: it is replaced with `up --replace KEY` only, and never because something else is.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub holds_data: bool,
    /// Roles that are elsewhere than at home. In order: they follow failovers and are never changed.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub roles: Vec<FieldChange>,
    /// Of what is made: how. `${KEY.FIELD}` stands for what AWS says when KEY has been made.
    #[serde(skip_serializing_if = "Value::is_null")]
    pub wanted: Value,
    /// Why it could not be observed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

impl Plan {
    /// `up` would change something.
    pub fn has_changes(&self) -> bool {
        !self.settings.is_empty()
            || self
                .counts
                .keys()
                .any(|action| !matches!(action, Action::Unchanged | Action::Failed))
    }

    /// Everything was observed.
    pub fn is_complete(&self) -> bool {
        self.errors.is_empty() && self.count(Action::Failed) == 0
    }

    fn count(&self, action: Action) -> usize {
        self.counts.get(&action).copied().unwrap_or_default()
    }
}

/// Looks at the stack and says what `up` would change, with the packages that `up` would take.
///
/// # Errors
/// There are no packages, or no region answers. What cannot be observed otherwise is in the plan.
pub async fn plan(stack: &mut Stack, choice: &Choice, ui: &Arc<Ui>) -> Result<Plan, Failure> {
    if stack.local.is_none() {
        for warning in infra::warnings(&stack.spec) {
            ui.warn(warning);
        }
    }
    up::packages(choice, ui).await?.fill_in(&mut stack.spec);
    let blueprint = infra::blueprint::blueprint(&stack.spec, &stack.account);
    let findings = check::check(&blueprint)?;
    let unreachable = stack.unreachable().await;
    let mut extent = Extent::of(&stack.spec, &stack.account);
    extent.regions.retain(|region| {
        unreachable
            .iter()
            .all(|(silent, _)| stack.spec.regions.of(*silent) != *region)
    });
    ui.step(format!(
        "comparing {} resources with account {} in {}",
        blueprint.nodes().len(),
        stack.account,
        extent.regions.join(", ")
    ));
    let options = options(ui, unreachable.is_empty());
    let (entries, inventory, stored) = tokio::join!(
        engine::plan(&blueprint, &stack.cloud, &options),
        engine::inventory(&extent, &stack.cloud, &options),
        stack.configuration(),
    );
    ui.clear_progress();
    let mut plan = assemble(&blueprint, &entries?, &inventory, findings);
    if let Some(stored) = stored? {
        plan.settings = change::settings(&stored.spec, &stack.spec);
        plan.findings.extend(check::fixed(&stored.spec, &stack.spec));
    }
    plan.errors.extend(unreachable.into_iter().map(|(slot, why)| {
        let region = stack.spec.regions.of(slot);
        format!("`{region}` does not answer: {why}")
    }));
    Ok(plan)
}

fn options(ui: &Arc<Ui>, all_answer: bool) -> Options {
    let voice = Arc::clone(ui);
    Options {
        budget: if all_answer {
            LOOK_LIMIT
        } else {
            LOOK_LIMIT_IMPAIRED
        },
        on_progress: Some(Arc::new(move |progress: &Progress| {
            let groups: Vec<_> = progress
                .groups
                .iter()
                .map(|(group, count)| (group.to_string(), count.ready, count.total))
                .collect();
            voice.progress(&groups, "");
        })),
        ..Options::default()
    }
}

/// The plan, from what was seen. Pure.
fn assemble(
    blueprint: &Blueprint,
    entries: &[PlanEntry],
    inventory: &Inventory,
    findings: Vec<Finding>,
) -> Plan {
    let wanted = blueprint.wanted().unwrap_or_default();
    let stateful: BTreeSet<&str> = infra::resources::listers()
        .iter()
        .filter(|lister| lister.is_stateful())
        .map(infra::kind::Lister::name)
        .collect();
    let mut known = Known::new(inventory);
    let mut resources = Vec::with_capacity(entries.len());
    for ((node, entry), wanted) in blueprint.nodes().iter().zip(entries).zip(wanted) {
        let mut resource = resource(node, entry);
        if !resource.until.is_empty() {
            resource.change = known.guess(node, &resource.until, wanted.spec.get("tagged").is_some());
        }
        resource.holds_data = resource.change == Action::Replace && stateful.contains(node.kind);
        if resource.change == Action::Create {
            resource.wanted = wanted.spec;
        }
        known.changes.insert(node.key.clone(), resource.change);
        resources.push(resource);
    }
    let keys = with_lost_tails(blueprint.keys());
    let strangers = inventory.strangers(&keys);
    let mut counts = BTreeMap::new();
    for resource in &resources {
        *counts.entry(resource.change).or_default() += 1;
    }
    if !strangers.is_empty() {
        counts.insert(Action::Delete, strangers.len());
    }
    let exists = |resource: &Resource| !matches!(resource.change, Action::Create | Action::Failed);
    Plan {
        stack: blueprint.suffix().to_owned(),
        account: blueprint.account().to_owned(),
        deployed: resources.iter().any(exists) || !inventory.found.is_empty(),
        counts,
        settings: Vec::new(),
        resources,
        strangers,
        findings,
        errors: inventory.errors.clone(),
    }
}

fn resource(node: &Node, entry: &PlanEntry) -> Resource {
    let mut resource = Resource {
        key: entry.key.clone(),
        kind: entry.kind.clone(),
        region: entry.region.clone(),
        group: node.place.group,
        change: Action::Unchanged,
        fields: Vec::new(),
        until: Vec::new(),
        replaced_with: None,
        holds_data: false,
        roles: Vec::new(),
        wanted: Value::Null,
        error: None,
    };
    match &entry.plan {
        PlanOutcome::Failed { error } => {
            resource.change = Action::Failed;
            resource.error = Some(error.clone());
        }
        PlanOutcome::Planned(planned) => {
            resource.roles.clone_from(&planned.roles);
            match &planned.change {
                Change::Unchanged => {}
                Change::Create => resource.change = Action::Create,
                Change::Update { fields } => {
                    resource.change = Action::Update;
                    resource.fields.clone_from(fields);
                }
                Change::Replace { fields, with } => {
                    resource.change = Action::Replace;
                    resource.fields.clone_from(fields);
                    resource.replaced_with.clone_from(with);
                }
                Change::Unknown { until } => {
                    resource.change = Action::Later;
                    resource.until.clone_from(until);
                }
            }
        }
    }
    resource
}

/// What is known about resources that cannot be compared, because they refer to something that does not exist.
struct Known<'a> {
    existing: BTreeSet<&'a str>,
    sure: bool,
    changes: HashMap<String, Action>,
}

impl<'a> Known<'a> {
    fn new(inventory: &'a Inventory) -> Self {
        Known {
            existing: inventory
                .found
                .iter()
                .filter_map(|found| found.key.as_deref())
                .collect(),
            sure: inventory.errors.is_empty(),
            changes: HashMap::new(),
        }
    }

    /// What carries its key as a tag is in the inventory, if it exists. Of the rest, a part of things that are all to be made is
    /// to be made too.
    fn guess(&self, node: &Node, until: &[String], tagged: bool) -> Action {
        let failed =
            |key: &String| matches!(self.changes.get(key), Some(Action::Failed | Action::Later) | None);
        let made = |key: &String| self.changes.get(key) == Some(&Action::Create);
        if self.existing.contains(node.key.as_str()) || until.iter().any(failed) {
            Action::Later
        } else if (tagged && self.sure) || node.refs.iter().all(made) {
            Action::Create
        } else {
            Action::Later
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use infra::plan::Planned;
    use infra::spec::Spec;
    use serde_json::json;

    use super::*;

    const ACCOUNT: &str = "000000000000";

    /// What the engine says of a stack of which only `there` exists.
    pub(super) fn entries(blueprint: &Blueprint, there: impl Fn(&str) -> bool) -> Vec<PlanEntry> {
        let mut resolved = BTreeSet::new();
        let entry = |node: &Node| {
            let missing = node.refs.iter().filter(|key| !resolved.contains(*key));
            let until: Vec<String> = missing.cloned().collect();
            let change = if !until.is_empty() {
                Change::Unknown { until }
            } else if there(&node.key) {
                resolved.insert(node.key.clone());
                Change::Unchanged
            } else {
                Change::Create
            };
            PlanEntry {
                key: node.key.clone(),
                kind: node.kind.to_owned(),
                region: node.place.region.clone(),
                plan: PlanOutcome::Planned(Planned {
                    change,
                    roles: Vec::new(),
                }),
            }
        };
        blueprint.nodes().iter().map(entry).collect()
    }

    fn blueprint() -> Blueprint {
        console::set_colors_enabled(false);
        infra::blueprint::blueprint(&Spec::default(), ACCOUNT)
    }

    fn nothing_there() -> Plan {
        let blueprint = blueprint();
        let findings = check::check(&blueprint).unwrap();
        assemble(
            &blueprint,
            &entries(&blueprint, |_| false),
            &Inventory::default(),
            findings,
        )
    }

    fn found(key: Option<&str>) -> Found {
        Found {
            kind: "db-instance".into(),
            region: "us-east-1".into(),
            id: "aurora-primary-dev-2".into(),
            key: key.map(str::to_owned),
            held_back: None,
        }
    }

    fn of<'a>(plan: &'a Plan, key: &str) -> &'a Resource {
        plan.resources.iter().find(|one| one.key == key).unwrap()
    }

    #[test]
    fn of_a_stack_that_is_not_deployed_everything_is_created() {
        let plan = nothing_there();
        assert!(!plan.deployed && plan.has_changes() && plan.is_complete());
        assert_eq!(
            Vec::from_iter(&plan.counts),
            [(&Action::Create, &plan.resources.len())]
        );
        assert!(plan.resources.len() > 110);
        assert!(plan.resources.iter().all(|one| one.wanted.is_object()));
    }

    /// Dashboard, state machines and large policies have golden files of their own.
    fn cut(document: &mut Value) {
        const LONG: usize = 2_000;
        if document.to_string().len() > LONG {
            *document = json!("a long document");
        }
    }

    #[test]
    fn the_plan_of_the_default_stack_is_what_was_reviewed() {
        let plan = nothing_there();
        insta::assert_snapshot!("text", text::describe(&plan));
        let mut json = serde_json::to_value(&plan).unwrap();
        for resource in json["resources"].as_array_mut().unwrap() {
            let wanted = resource["wanted"].as_object_mut().unwrap();
            wanted.values_mut().for_each(cut);
        }
        insta::assert_snapshot!("json", serde_json::to_string_pretty(&json).unwrap());
    }

    #[test]
    fn what_refers_to_something_missing_is_created_only_if_it_is_known_to_be_missing_too() {
        let blueprint = blueprint();
        let (role, other) = ("role.s3-replication.primary", "role.health-probe.witness");
        let there = |key: &str| ![role, other, "vpc.dr", "subnet.a.dr"].contains(&key);
        let inventory = Inventory {
            found: vec![found(Some("route-table.dr"))],
            ..Inventory::default()
        };
        let plan = assemble(&blueprint, &entries(&blueprint, there), &inventory, Vec::new());
        let change = |key: &str| of(&plan, key).change;
        assert_eq!(change(role), Action::Create);
        // A part of that role alone.
        assert_eq!(change("role-policies.health-probe.witness"), Action::Create);
        // It carries a tag, and is not in the inventory.
        assert_eq!(change("function.health-probe.witness"), Action::Create);
        // A part of a bucket, which is there.
        assert_eq!(change("data-replication.primary"), Action::Later);
        assert_eq!(change("subnet.a.dr"), Action::Create);
        assert_eq!(change("route-table.dr"), Action::Later, "it exists");
        assert_eq!(
            of(&plan, "route-table.dr").until,
            ["subnet.a.dr", "subnet.b.dr", "vpc.dr"]
        );
        let unsure = Inventory {
            errors: vec!["DescribeSubnets is denied".into()],
            ..inventory
        };
        let plan = assemble(&blueprint, &entries(&blueprint, there), &unsure, Vec::new());
        assert_eq!(of(&plan, "function.health-probe.witness").change, Action::Later);
        assert!(!plan.is_complete());
    }

    #[test]
    fn what_is_ours_and_configured_no_more_is_deleted_and_what_nobody_tagged_is_not() {
        let blueprint = blueprint();
        let inventory = Inventory {
            found: vec![
                found(Some("db-instance.2.primary")),
                found(None),
                found(Some("vpc.dr")),
            ],
            ..Inventory::default()
        };
        let plan = assemble(&blueprint, &entries(&blueprint, |_| true), &inventory, Vec::new());
        let keys: Vec<_> = plan.strangers.iter().map(|one| one.key.as_deref()).collect();
        assert_eq!(keys, [Some("db-instance.2.primary")]);
        assert_eq!(plan.count(Action::Delete), 1);
        assert!(plan.has_changes());
    }

    #[test]
    fn what_holds_data_is_told_by_what_would_replace_it() {
        let blueprint = blueprint();
        let mut entries = entries(&blueprint, |_| true);
        let mut replace = |key: &str, field: &str, with: Option<&str>| {
            let entry = entries.iter_mut().find(|one| one.key == key).unwrap();
            let PlanOutcome::Planned(planned) = &mut entry.plan else {
                panic!("it was compared")
            };
            planned.change = Change::Replace {
                fields: vec![FieldChange {
                    field: field.into(),
                    from: json!("old"),
                    to: json!("new"),
                }],
                with: with.map(str::to_owned),
            };
        };
        replace("db-cluster.primary", "subnet_group", Some("vpc.primary"));
        replace("db-cluster.dr", "subnet_group", None);
        let plan = assemble(&blueprint, &entries, &Inventory::default(), Vec::new());
        let text = text::describe(&plan);
        for said in [
            "it holds data: `up` leaves it and vpc.primary as they are",
            "it holds data: only with --replace db-cluster.dr",
        ] {
            assert!(text.contains(said), "{text}");
        }
    }

    #[test]
    fn a_stack_as_configured_has_no_changes_wherever_its_roles_are() {
        let blueprint = blueprint();
        let mut entries = entries(&blueprint, |_| true);
        let writer = entries.iter_mut().find(|one| one.key == "db-cluster.dr").unwrap();
        let PlanOutcome::Planned(planned) = &mut writer.plan else {
            panic!("it was compared")
        };
        planned.roles.push(FieldChange {
            field: "writer".into(),
            from: json!(true),
            to: json!(false),
        });
        let plan = assemble(&blueprint, &entries, &Inventory::default(), Vec::new());
        assert!(!plan.has_changes());
        let text = text::describe(&plan);
        assert!(
            text.contains("db-cluster.dr  writer is true, at home it is false"),
            "{text}"
        );
        let unchanged = format!("no changes: {} resources are as configured", entries.len());
        assert!(text.ends_with(&unchanged), "{text}");
    }
}
