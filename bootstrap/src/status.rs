//! `understudy status`: what serves, what every resource is like, what the last reconcile found, what runs now, and what the
//! observers see. Reads only, and shows what it can while a region does not answer.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use console::style;
use continuity::control::{ControlRecord, ControlStore};
use continuity::names::Slot;
use continuity::observe::{Look, Observation};
use infra::change::{Change, Kind};
use infra::drift::{self, Action, Difference, Drifted};
use infra::engine::{self, Options};
use infra::outcome::{PlanEntry, PlanOutcome, Progress};
use infra::plan;
use serde::Serialize;

use crate::failure::Failure;
use crate::stack::Stack;
use crate::ui::table;

/// Everything is looked at within this time; what was not is unknown.
const LOOK_LIMIT: Duration = Duration::from_secs(60);
/// The same when a region does not answer: its resources would take all of it.
const LOOK_LIMIT_IMPAIRED: Duration = Duration::from_secs(10);
/// The events of a running execution that are searched for its state, newest first.
const HISTORY: i32 = 20;

/// The state of the stack.
#[derive(Debug, Clone, Serialize)]
pub struct Status {
    /// The suffix.
    pub stack: String,
    /// The account.
    pub account: String,
    /// The control record.
    pub control: Option<ControlRecord>,
    /// The generation of the stored configuration; it is ahead of the record's until its deployment begins.
    pub stored_generation: u64,
    /// The configuration file says something else than what is stored.
    pub file_differs: bool,
    /// Regions that do not answer.
    pub unreachable: BTreeMap<String, String>,
    /// What runs now.
    pub change: Option<Running>,
    /// The last reconcile, and the last that found drift.
    pub reconcile: drift::Report,
    /// What each observer saw last, of each region.
    pub observers: Vec<View>,
    /// Resources by state.
    pub counts: BTreeMap<State, usize>,
    /// Every resource.
    pub resources: Vec<Resource>,
    /// Now, milliseconds since the Unix epoch.
    pub at_ms: u64,
}

/// A workflow that runs.
#[derive(Debug, Clone, Serialize)]
pub struct Running {
    /// What holds the stack.
    #[serde(flatten)]
    pub change: Change,
    /// The state of the workflow.
    pub step: Option<String>,
    /// How far it is.
    pub progress: Option<Progress>,
}

/// What one observer sees.
#[derive(Debug, Clone, Serialize)]
pub struct View {
    /// The region it looks from.
    pub observer: String,
    /// By region: in a word or few.
    pub sees: BTreeMap<String, String>,
    /// When it last wrote.
    pub at_ms: u64,
}

/// How a resource is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// As configured.
    Ok,
    /// A field differs.
    Drift,
    /// It does not exist.
    Missing,
    /// AWS is still doing something with it.
    Settling,
    /// It cannot be looked at, or its change failed.
    Failed,
    /// Nobody knows: its region does not answer, or it depends on something of which nothing is known.
    Unknown,
}

impl State {
    fn as_str(self) -> &'static str {
        match self {
            State::Ok => "ok",
            State::Drift => "drift",
            State::Missing => "missing",
            State::Settling => "settling",
            State::Failed => "failed",
            State::Unknown => "unknown",
        }
    }
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
    /// How it is.
    pub state: State,
    /// What differs.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub fields: Vec<Difference>,
    /// Why it is not ok, where the fields do not say it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Roles that are elsewhere than at home; that is in order.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub roles: Vec<Difference>,
}

impl Status {
    /// Everything is as configured, and every region answers.
    pub fn is_ok(&self) -> bool {
        self.unreachable.is_empty()
            && self.control.is_some()
            && self.counts.keys().all(|state| *state == State::Ok)
    }
}

/// Looks at the stack.
///
/// # Errors
/// Nothing is deployed under this suffix, or no region answers.
pub async fn status(stack: &Stack) -> Result<Status, Failure> {
    let Some(configuration) = stack.configuration().await? else {
        return Err(Failure::text(format!(
            "nothing is deployed under the suffix `{}`",
            stack.spec.suffix
        ))
        .help("deploy it with `understudy up`, or name another stack with `--suffix`"));
    };
    let mut file = stack.spec.clone();
    // The packages are `up`'s business.
    file.artifacts.clone_from(&configuration.spec.artifacts);
    let stack = &stack.as_deployed(&configuration);
    let unreachable = stack.unreachable().await;
    let blueprint = infra::blueprint::blueprint(&stack.spec, &stack.account);
    let options = Options {
        budget: if unreachable.is_empty() {
            LOOK_LIMIT
        } else {
            LOOK_LIMIT_IMPAIRED
        },
        ..Options::default()
    };
    let (plan, control, change, observations, report) = tokio::join!(
        engine::plan(&blueprint, &stack.cloud, &options),
        stack.control_record(),
        running(stack),
        observations(stack, &unreachable),
        stack.document(drift::ITEM),
    );
    let change = change?;
    let unreachable: BTreeMap<String, String> = unreachable
        .into_iter()
        .map(|(slot, why)| (stack.spec.regions.of(slot).to_owned(), why))
        .collect();
    let waiting = change.as_ref().and_then(|running| running.progress.as_ref());
    let resources: Vec<Resource> = plan?
        .iter()
        .map(|entry| resource(entry, &unreachable, waiting))
        .collect();
    let mut counts = BTreeMap::new();
    for resource in &resources {
        *counts.entry(resource.state).or_default() += 1;
    }
    Ok(Status {
        stack: stack.spec.suffix.clone(),
        account: stack.account.clone(),
        control: control?,
        stored_generation: configuration.generation,
        file_differs: file != configuration.spec,
        unreachable,
        change,
        reconcile: report?
            .and_then(|json| serde_json::from_str(&json).ok())
            .unwrap_or_default(),
        observers: observations.iter().map(view).collect(),
        counts,
        resources,
        at_ms: continuity::clock::now_ms(),
    })
}

/// The change that runs, with where it is.
async fn running(stack: &Stack) -> Result<Option<Running>, Failure> {
    let Some(change) = stack.change().await? else {
        return Ok(None);
    };
    let client = stack.cloud.sfn(change.region());
    let history = client
        .get_execution_history()
        .execution_arn(&change.execution)
        .reverse_order(true)
        .max_results(HISTORY)
        .include_execution_data(false)
        .send();
    // Its region may be the one that does not answer: then the step stays unknown.
    let step = history.await.ok().and_then(|history| {
        let entered = history.events().iter();
        let mut names = entered.filter_map(|event| event.state_entered_event_details());
        names.next().map(|details| details.name().to_owned())
    });
    let progress = match change.kind {
        Kind::Reconcile => None,
        Kind::Deploy | Kind::Teardown => stack
            .document("deployment")
            .await?
            .and_then(|json| serde_json::from_str(&json).ok()),
    };
    Ok(Some(Running {
        change,
        step,
        progress,
    }))
}

/// What the observers wrote, as a region that answers has it.
async fn observations(stack: &Stack, unreachable: &[(Slot, String)]) -> Vec<Observation> {
    let observers = Slot::ALL.map(|slot| stack.spec.regions.of(slot));
    for slot in Slot::ALL {
        if unreachable.iter().any(|(silent, _)| *silent == slot) {
            continue;
        }
        if let Ok(seen) = stack
            .control(stack.spec.regions.of(slot))
            .observations(&observers)
            .await
        {
            return seen;
        }
    }
    Vec::new()
}

fn view(observation: &Observation) -> View {
    let sees = observation.rounds.keys().filter_map(|region| {
        let text = match &observation.newest(region)?.look {
            Look::Serving { epoch } => format!("serving epoch {epoch}"),
            Look::Standby { .. } => "standby".to_owned(),
            Look::Failing { reason } => format!("failing: {reason}"),
        };
        Some((region.clone(), text))
    });
    View {
        observer: observation.observer.clone(),
        sees: sees.collect(),
        at_ms: observation.at_ms,
    }
}

fn resource(
    entry: &PlanEntry,
    unreachable: &BTreeMap<String, String>,
    progress: Option<&Progress>,
) -> Resource {
    let differences =
        |fields: &[plan::FieldChange]| -> Vec<Difference> { fields.iter().map(Into::into).collect() };
    let (mut state, mut fields, mut reason, mut roles) = (State::Ok, Vec::new(), None, Vec::new());
    match &entry.plan {
        PlanOutcome::Failed { error } => {
            state = if unreachable.contains_key(&entry.region) {
                reason = Some(format!("{} does not answer", entry.region));
                State::Unknown
            } else {
                reason = Some(error.clone());
                State::Failed
            };
        }
        PlanOutcome::Planned(planned) => {
            roles = differences(&planned.roles);
            match &planned.change {
                plan::Change::Unchanged => {}
                plan::Change::Create => state = State::Missing,
                plan::Change::Update { fields: differ } | plan::Change::Replace { fields: differ, .. } => {
                    state = State::Drift;
                    fields = differences(differ);
                }
                plan::Change::Unknown { until } => {
                    state = State::Unknown;
                    reason = Some(format!("it depends on {}", until.join(", ")));
                }
            }
        }
    }
    if let Some(progress) = progress {
        if let Some(waiting) = progress.waiting.iter().find(|waiting| waiting.key == entry.key) {
            (state, reason) = (State::Settling, Some(waiting.on.clone()));
        }
        if let Some(failed) = progress.failed.iter().find(|failed| failed.key == entry.key) {
            (state, reason) = (State::Failed, Some(failed.error.clone()));
        }
    }
    Resource {
        key: entry.key.clone(),
        kind: entry.kind.clone(),
        region: entry.region.clone(),
        state,
        fields,
        reason,
        roles,
    }
}

/// The status for a person: what is not in order first, by region.
pub fn describe(status: &Status) -> String {
    let mut rows = vec![("stack", format!("{}, account {}", status.stack, status.account))];
    rows.push(("active", active(status)));
    for (region, why) in &status.unreachable {
        rows.push(("no answer", format!("{}: {why}", style(region).red().bold())));
    }
    if let Some(running) = &status.change {
        rows.push(("running", workflow(running, status.at_ms)));
    }
    rows.push(("reconcile", reconcile(status)));
    if let Some(run) = &status.reconcile.last_found {
        let ago = ago(status.at_ms, run.at_ms);
        rows.push(("last drift", format!("{ago}: {}", counted(run))));
    }
    for view in &status.observers {
        let sees: Vec<String> = view
            .sees
            .iter()
            .map(|(region, what)| format!("{region} {what}"))
            .collect();
        let text = format!(
            "{} sees {}, {}",
            view.observer,
            sees.join("; "),
            ago(status.at_ms, view.at_ms)
        );
        rows.push(("observer", text));
    }
    let counts: Vec<String> = status
        .counts
        .iter()
        .map(|(state, count)| format!("{count} {}", state.as_str()))
        .collect();
    rows.push((
        "resources",
        format!("{}: {}", status.resources.len(), counts.join(", ")),
    ));
    let mut text = table(&rows);
    text.push_str(&not_ok(status));
    text
}

fn active(status: &Status) -> String {
    let Some(record) = &status.control else {
        return "nowhere yet: the first deployment has not ended".to_owned();
    };
    let mut text = format!(
        "{}, epoch {}, {} for {}, generation {}",
        style(&record.active_region).bold(),
        record.epoch,
        record.phase,
        long(status.at_ms.saturating_sub(record.since_ms)),
        record.generation,
    );
    if record.maintenance {
        text.push_str(", in maintenance: no automatic failover");
    }
    if record.repair_frozen {
        text.push_str(", repair is frozen");
    }
    if status.stored_generation > record.generation {
        text.push_str(&format!(
            "; generation {} is stored and not deployed: run `understudy up`",
            status.stored_generation
        ));
    } else if status.file_differs {
        text.push_str("; stack.toml says something else: `understudy plan` shows what");
    }
    text
}

fn workflow(running: &Running, now_ms: u64) -> String {
    let change = &running.change;
    let step = running.step.as_deref().unwrap_or("its step is not known");
    let mut text = format!(
        "{} `{}` in {} since {}: {step}",
        change.kind,
        change.name(),
        change.region(),
        long(now_ms.saturating_sub(change.began_ms)),
    );
    if let Some(progress) = &running.progress {
        text.push_str(&format!(", {progress}"));
    }
    text
}

fn reconcile(status: &Status) -> String {
    let Some(run) = &status.reconcile.last else {
        return "not yet".to_owned();
    };
    let mut text = format!("{}: {}", ago(status.at_ms, run.at_ms), counted(run));
    if let Some(note) = &run.note {
        text.push_str(&format!("; us-east-1 is failing: {note}"));
    }
    for why in &run.unreadable {
        text.push_str(&format!("\n             not readable: {why}"));
    }
    for entry in run.entries.iter().filter(|entry| is_open(entry)) {
        text.push_str(&format!("\n             {}", open_entry(entry)));
    }
    text
}

fn is_open(entry: &Drifted) -> bool {
    matches!(
        entry.action,
        Action::Waiting { .. } | Action::Failed { .. } | Action::Reported
    )
}

fn open_entry(entry: &Drifted) -> String {
    match &entry.action {
        Action::Waiting { reason } => format!("{} waits: {reason}", entry.key),
        Action::Failed { reason } => format!("{} failed: {reason}", entry.key),
        _ => format!("{} is only reported", entry.key),
    }
}

fn counted(run: &drift::Run) -> String {
    let counts = run.counts;
    let mut text = match counts.drift {
        0 => "no drift".to_owned(),
        drift => format!("{drift} drifted, {} repaired", counts.repaired),
    };
    if counts.roles > 0 {
        text.push_str(&format!(", {} roles away from home", counts.roles));
    }
    if counts.unreadable > 0 {
        text.push_str(&format!(", {} not readable", counts.unreadable));
    }
    text
}

/// The resources that are not in order, and the roles that are away from home, by region.
fn not_ok(status: &Status) -> String {
    let mut text = String::new();
    let regions: BTreeSet<&str> = status.resources.iter().map(|one| one.region.as_str()).collect();
    for region in regions {
        let here = || status.resources.iter().filter(|one| one.region == region);
        if let Some(why) = status.unreachable.get(region) {
            let unknown = here().filter(|one| one.state == State::Unknown).count();
            text.push_str(&format!("\n\n{region}: {unknown} resources are not known: {why}"));
        }
        let mut lines: Vec<String> = here()
            .filter(|one| {
                one.state != State::Ok
                    && !(status.unreachable.contains_key(region) && one.state == State::Unknown)
            })
            .map(line)
            .collect();
        lines.extend(here().filter(|one| !one.roles.is_empty()).map(|one| {
            let roles: Vec<String> = one.roles.iter().map(difference).collect();
            format!("  {:8}  {}: {}", "role", one.key, roles.join("; "))
        }));
        if !lines.is_empty() {
            text.push_str(&format!("\n\n{region}\n{}", lines.join("\n")));
        }
    }
    text
}

fn line(resource: &Resource) -> String {
    let word = format!("{:8}", resource.state.as_str());
    let word = match resource.state {
        State::Ok => style(word).green(),
        State::Settling | State::Unknown => style(word).yellow(),
        State::Drift | State::Missing | State::Failed => style(word).red().bold(),
    };
    let mut text = format!("  {word}  {} ({})", resource.key, resource.kind);
    let fields: Vec<String> = resource.fields.iter().map(difference).collect();
    if !fields.is_empty() {
        text.push_str(&format!(": {}", fields.join("; ")));
    }
    if let Some(reason) = &resource.reason {
        text.push_str(&format!(": {reason}"));
    }
    text
}

fn difference(difference: &Difference) -> String {
    format!(
        "{}: {} -> {}",
        difference.field,
        short(&difference.from),
        short(&difference.to)
    )
}

/// Policies and documents are long; the field's name is what a person needs.
fn short(value: &serde_json::Value) -> String {
    const LIMIT: usize = 60;
    let text = match value.as_str() {
        // A document that was cut already: not to be quoted once more.
        Some(cut) if cut.ends_with("...") => cut.to_owned(),
        _ => value.to_string(),
    };
    match text.char_indices().nth(LIMIT) {
        Some((end, _)) => format!("{}...", &text[..end]),
        None => text,
    }
}

fn ago(now_ms: u64, then_ms: u64) -> String {
    format!("{} ago", long(now_ms.saturating_sub(then_ms)))
}

/// A time in the unit that fits.
fn long(ms: u64) -> String {
    let seconds = ms / 1000;
    match seconds {
        0..=119 => format!("{seconds} s"),
        120..=7_199 => format!("{} min", seconds / 60),
        7_200..=172_799 => format!("{} h", seconds / 3_600),
        _ => format!("{} days", seconds / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use infra::outcome::WaitingFor;
    use infra::plan::{FieldChange, Planned};
    use serde_json::json;

    use super::*;

    fn entry(key: &str, region: &str, change: plan::Change) -> PlanEntry {
        PlanEntry {
            key: key.into(),
            kind: "thing".into(),
            region: region.into(),
            plan: PlanOutcome::Planned(Planned {
                change,
                roles: Vec::new(),
            }),
        }
    }

    fn memory() -> Vec<FieldChange> {
        vec![FieldChange {
            field: "memory_mb".into(),
            from: json!(128),
            to: json!(512),
        }]
    }

    fn sample() -> Status {
        let unreachable = BTreeMap::from([("us-east-2".to_owned(), "connection refused".to_owned())]);
        let failed = |region: &str| PlanEntry {
            plan: PlanOutcome::Failed {
                error: "denied".into(),
            },
            ..entry("dark", region, plan::Change::Unchanged)
        };
        let mut moved = entry("db-cluster.primary", "us-east-1", plan::Change::Unchanged);
        if let PlanOutcome::Planned(planned) = &mut moved.plan {
            planned.roles = vec![FieldChange {
                field: "writer".into(),
                from: json!(false),
                to: json!(true),
            }];
        }
        let plan = [
            entry("right", "us-east-1", plan::Change::Unchanged),
            entry("gone", "us-east-1", plan::Change::Create),
            entry(
                "function.a",
                "us-east-1",
                plan::Change::Update { fields: memory() },
            ),
            entry("busy", "us-east-1", plan::Change::Unchanged),
            entry(
                "behind",
                "us-west-2",
                plan::Change::Unknown {
                    until: vec!["dark".into()],
                },
            ),
            failed("us-east-2"),
            failed("us-west-2"),
            moved,
        ];
        let progress = Progress {
            waiting: vec![WaitingFor {
                key: "busy".into(),
                on: "modifying".into(),
            }],
            ..Progress::default()
        };
        let resources: Vec<Resource> = plan
            .iter()
            .map(|entry| resource(entry, &unreachable, Some(&progress)))
            .collect();
        let mut counts = BTreeMap::new();
        for resource in &resources {
            *counts.entry(resource.state).or_default() += 1;
        }
        Status {
            stack: "dev".into(),
            account: "000000000000".into(),
            control: Some(ControlRecord::first("us-east-1", "deploy", 0)),
            stored_generation: 1,
            file_differs: false,
            unreachable,
            change: None,
            reconcile: drift::Report::default(),
            observers: vec![View {
                observer: "us-west-2".into(),
                sees: BTreeMap::from([
                    ("us-east-1".into(), "serving epoch 1".into()),
                    ("us-east-2".into(), "standby".into()),
                ]),
                at_ms: 299_000,
            }],
            counts,
            resources,
            at_ms: 300_000,
        }
    }

    #[test]
    fn each_resource_has_a_state_and_a_reason() {
        let states: Vec<(String, State)> = sample()
            .resources
            .into_iter()
            .map(|one| (format!("{} {}", one.key, one.region), one.state))
            .collect();
        let expected = [
            ("right us-east-1", State::Ok),
            ("gone us-east-1", State::Missing),
            ("function.a us-east-1", State::Drift),
            ("busy us-east-1", State::Settling),
            ("behind us-west-2", State::Unknown),
            ("dark us-east-2", State::Unknown),
            ("dark us-west-2", State::Failed),
            ("db-cluster.primary us-east-1", State::Ok),
        ];
        assert_eq!(states, expected.map(|(key, state)| (key.to_owned(), state)));
    }

    #[test]
    fn a_person_reads_what_is_not_in_order() {
        console::set_colors_enabled(false);
        insta::assert_snapshot!(describe(&sample()));
    }

    #[test]
    fn a_stack_is_in_order_when_every_resource_is_and_every_region_answers() {
        let mut status = sample();
        assert!(!status.is_ok());
        status.counts = BTreeMap::from([(State::Ok, 7)]);
        assert!(!status.is_ok(), "a region does not answer");
        status.unreachable.clear();
        assert!(status.is_ok());
    }
}
