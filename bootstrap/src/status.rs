//! `understudy status`: what serves, what the observers see of both regions, whether the standby could take over, what runs and in
//! which step, what waits for a person, what the last reconcile, evaluation and rehearsal found, and how every resource is. Reads
//! only. Each part is read by itself, within a limit, side by side with the others, from a region that answers; what cannot be
//! read is named.
//!
//! [`gather`] reads and [`Status`] is what was read; [`text`] writes it for a person, purely; [`watch`] does both again and again.

pub mod text;
pub mod watch;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use aws_sdk_sfn::types::{ExecutionStatus, HistoryEvent, HistoryEventType};
use continuity::assess::{Assessed, Policy};
use continuity::control::ControlRecord;
use continuity::names::Slot;
use continuity::observe::{Look, Observation};
use infra::blueprint::workflows::workflows;
use infra::change::{Change, Configuration};
use infra::drift::{self, Difference};
use infra::engine::{self, Options};
use infra::outcome::{PlanEntry, PlanOutcome, Progress};
use infra::plan;
use infra::readiness::{self, REHEARSED_ITEM, Rehearsed, Report};
use infra::resources::state_machine;
use infra::waiting::{self, Waiting};
use serde::Serialize;
use serde_json::Value;

use crate::drill;
use crate::failure::Failure;
use crate::stack::Stack;
use crate::{readiness as evaluations, takeover};

/// The resources are compared within this time; what was not is unknown.
const LOOK_LIMIT: Duration = Duration::from_secs(60);
/// The same when a region does not answer: its resources would take all of it.
const LOOK_LIMIT_IMPAIRED: Duration = Duration::from_secs(10);
/// Everything else is read within this time.
const READ_LIMIT: Duration = Duration::from_secs(5);
/// The events of a running execution that are searched for its state, newest first.
const HISTORY: i32 = 20;
/// The workflow whose executions are not shown: an evaluation of readiness changes nothing and is over in a moment.
const NOT_SHOWN: &str = "readiness";
/// While nothing else tells of a change the executions are listed no more often than this: Step Functions lets an account list them
/// twice a second for long, <https://docs.aws.amazon.com/step-functions/latest/dg/service-quotas.html>, and a list is of one workflow.
const LIST_EVERY: Duration = Duration::from_secs(8);

/// The state of the stack. Times are milliseconds since the Unix epoch.
#[derive(Debug, Clone, Serialize)]
pub struct Status {
    /// The suffix.
    pub stack: String,
    /// The account.
    pub account: String,
    /// When this was read.
    pub at_ms: u64,
    /// The control record.
    pub control: Option<ControlRecord>,
    /// The region that would take over.
    pub standby: Option<String>,
    /// The generation of the stored configuration; it is ahead of the record's until its deployment begins.
    pub stored_generation: u64,
    /// The configuration file says something else than what is stored.
    pub file_differs: bool,
    /// Regions that do not answer, with why.
    pub unreachable: BTreeMap<String, String>,
    /// What else could not be read, with why.
    pub unread: Vec<Unread>,
    /// What holds the stack for a change of its resources.
    pub change: Option<Change>,
    /// The executions that run.
    pub workflows: Vec<Running>,
    /// What waits for a person.
    pub waiting: Option<Asked>,
    /// What each observer saw last, of each region.
    pub observers: Vec<View>,
    /// The latest assessment of the region that would take over, and when its verdict changed.
    pub verdict: Option<Judged>,
    /// How far the standby's ledger is behind, as the last evaluation found it.
    pub replication: Option<Replication>,
    /// By region: the latest evaluation of readiness.
    pub readiness: BTreeMap<String, Evaluated>,
    /// When drills run, and the last rehearsal.
    pub drills: drill::Plan,
    /// The last reconcile, and the last that found drift.
    pub reconcile: drift::Report,
    /// Resources by state; empty when they were not compared.
    pub counts: BTreeMap<State, usize>,
    /// Every resource; none while watching.
    pub resources: Option<Vec<Resource>>,
}

/// Something that could not be read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Unread {
    /// What: `workflows in us-east-2`.
    pub what: String,
    /// Why.
    pub reason: String,
}

/// An execution that runs.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Running {
    /// The workflow: `failover`.
    pub workflow: String,
    /// The execution's name.
    pub name: String,
    /// Its ARN.
    pub execution: String,
    /// The region whose state machine runs it.
    pub region: String,
    /// When it began.
    pub began_ms: u64,
    /// The state that it is in; none while that is not known.
    pub step: Option<String>,
    /// Since when.
    pub step_since_ms: Option<u64>,
    /// How far it is, of a deployment or teardown.
    pub progress: Option<Progress>,
    /// What it is doing, of a drill.
    pub doing: Option<String>,
}

/// A workflow that waits for a person. The token of its task is left out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Asked {
    /// The execution's name.
    pub name: String,
    /// The region whose state machine waits.
    pub region: String,
    /// The step that failed; none for an approval.
    pub step: Option<String>,
    /// The epoch that ends with the change.
    pub epoch: u64,
    /// The region that is to take over.
    pub to_region: String,
    /// What the observers saw, or why the step failed.
    pub reasons: Vec<String>,
    /// The commands that answer it.
    pub commands: Vec<String>,
    /// Since when.
    pub since_ms: u64,
    /// When it goes on by itself (an approval: gives up).
    pub until_ms: u64,
}

/// What one observer sees.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct View {
    /// The region it looks from.
    pub observer: String,
    /// When it last looked, by its clock; none when it never did.
    pub at_ms: Option<u64>,
    /// Why its word does not count: it has seen nothing of late, or gets no answer from any region.
    pub blind: Option<String>,
    /// By region: its newest look.
    pub sees: BTreeMap<String, Seen>,
}

/// One look.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Seen {
    /// `serving`, `standby` or `failing`.
    pub state: &'static str,
    /// The epoch that it serves; of a standby, of its ledger.
    pub epoch: Option<u64>,
    /// Why it fails; of a standby, that its database does not answer.
    pub reason: Option<String>,
    /// When the look ended, by the observer's clock.
    pub at_ms: u64,
    /// How long it took.
    pub took_ms: u64,
    /// That is longer than the policy's limit for a grey failure.
    pub slow: bool,
}

/// What the standby's observer makes of what was seen.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Judged {
    /// The region that assessed.
    pub by: String,
    /// The latest assessment; none where the region that stands by now has made none: it may be the one that failed.
    pub latest: Option<Assessed>,
    /// The assessment at which the verdict became what it is; without a latest one, the newest change that any observer kept.
    pub changed: Option<Assessed>,
}

/// How far the standby's ledger is behind.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Replication {
    /// The evaluation's state of it.
    pub state: readiness::State,
    /// In words: entries behind.
    pub text: String,
    /// The region whose evaluation it is.
    pub by: String,
    /// When that was.
    pub at_ms: u64,
}

/// An evaluation of readiness.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Evaluated {
    /// Nothing critical failed.
    pub ready: bool,
    /// There is none, or it is too old to believe.
    pub stale: bool,
    /// When it was made; none when it never was.
    pub at_ms: Option<u64>,
    /// How many checks it has.
    pub checks: usize,
    /// How many critical ones did not pass.
    pub failing: usize,
    /// How many others did not pass.
    pub warnings: usize,
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

/// What a watch remembers from one look to the next.
#[derive(Debug, Default)]
pub struct Memory {
    listed: Option<Listed>,
}

/// The executions that ran when they were listed, and what told then whether others run.
#[derive(Debug, Clone)]
struct Listed {
    at: Instant,
    sign: Sign,
    running: Vec<Running>,
    unread: Vec<Unread>,
}

/// What changes when an execution begins: then they are listed at once.
type Sign = (Option<u64>, Option<String>, Option<String>);

/// Looks at the stack, its resources included.
///
/// # Errors
/// Nothing is deployed under this suffix, or no region answers.
pub async fn status(stack: &Stack) -> Result<Status, Failure> {
    gather(stack, &mut Memory::default(), true).await
}

/// Looks at the stack; at its resources only if told to, because that takes several calls for each of them.
///
/// # Errors
/// Nothing is deployed under this suffix, or no region answers.
pub async fn gather(stack: &Stack, memory: &mut Memory, resources: bool) -> Result<Status, Failure> {
    let Some(configuration) = within("the configuration", stack.configuration()).await? else {
        return Err(Failure::text(format!(
            "nothing is deployed under the suffix `{}`",
            stack.spec.suffix
        ))
        .help("deploy it with `understudy up`, or name another stack with `--suffix`"));
    };
    let mut file = stack.spec.clone();
    // The packages are `up`'s business.
    file.artifacts.clone_from(&configuration.spec.artifacts);
    let file_differs = file != configuration.spec;
    let stack = &stack.as_deployed(&configuration);
    let looked_at = async {
        let unreachable = stack.unreachable().await;
        if !resources {
            return (unreachable, None);
        }
        let blueprint = infra::blueprint::blueprint(&stack.spec, &stack.account);
        let options = Options {
            budget: if unreachable.is_empty() {
                LOOK_LIMIT
            } else {
                LOOK_LIMIT_IMPAIRED
            },
            ..Options::default()
        };
        let plan = engine::plan(&blueprint, &stack.cloud, &options).await;
        (unreachable, Some(plan))
    };
    let moving = async {
        let tables = tables(stack).await?;
        let (mut running, unread) = executions(stack, &tables, memory).await;
        tables.add_to(&mut running);
        Ok::<_, Failure>((tables, running, unread))
    };
    let ((unreachable, plan), moving) = if resources {
        // One after the other: what moves would be old by the time that the resources are compared.
        (looked_at.await, moving.await)
    } else {
        tokio::join!(looked_at, moving)
    };
    let (tables, workflows, mut unread) = moving?;
    let unreachable: BTreeMap<String, String> = unreachable
        .into_iter()
        .map(|(slot, why)| (stack.spec.regions.of(slot).to_owned(), why))
        .collect();
    // A region that does not answer is named once.
    unread.retain(|one| {
        !unreachable
            .keys()
            .any(|region| one.what.ends_with(region.as_str()))
    });
    unread.extend(tables.unread.clone());
    let progress = workflows.iter().find_map(|running| running.progress.as_ref());
    let resources: Option<Vec<Resource>> = match plan {
        None => None,
        Some(plan) => Some(
            plan?
                .iter()
                .map(|entry| resource(entry, &unreachable, progress))
                .collect(),
        ),
    };
    let mut counts = BTreeMap::new();
    for resource in resources.iter().flatten() {
        *counts.entry(resource.state).or_default() += 1;
    }
    Ok(tables.status(
        stack,
        &configuration,
        Looked {
            file_differs,
            unreachable,
            unread,
            workflows,
            counts,
            resources,
            at_ms: continuity::clock::now_ms(),
        },
    ))
}

/// Something that ends within the limit, or an error that says what did not.
async fn within<T>(what: &str, call: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    match tokio::time::timeout(READ_LIMIT, call).await {
        Ok(answer) => answer,
        Err(_) => Err(
            Failure::text(format!("no region gave {what} within {} s", READ_LIMIT.as_secs())).help(
                "check the network and, with `--local`, that the local cloud runs: `understudy local status`",
            ),
        ),
    }
}

/// What the control table holds.
#[derive(Debug, Default)]
struct Tables {
    record: Option<ControlRecord>,
    change: Option<Change>,
    progress: Option<Progress>,
    waiting: Option<Waiting>,
    drill: Value,
    rehearsed: Option<Rehearsed>,
    reports: BTreeMap<String, Option<Report>>,
    reconcile: drift::Report,
    observations: Vec<Observation>,
    unread: Vec<Unread>,
}

async fn tables(stack: &Stack) -> Result<Tables, Failure> {
    let serving = Slot::SERVING.map(|slot| stack.spec.regions.of(slot).to_owned());
    let reports = serving.each_ref().map(|region| readiness::item(region));
    let mut items = vec![
        "deployment",
        waiting::ITEM,
        drill::ITEM,
        REHEARSED_ITEM,
        drift::ITEM,
    ];
    items.extend(reports.iter().map(String::as_str));
    let (read, change, observations) = tokio::join!(
        within("the control table", stack.read_with(&items)),
        within("the change under way", stack.change()),
        within("the observations", stack.observations()),
    );
    let (record, documents) = read?;
    let mut documents = documents.into_iter();
    let mut next = || documents.next().flatten();
    let mut tables = Tables {
        record,
        progress: parsed(next()),
        waiting: parsed(next()),
        drill: parsed(next()).unwrap_or_default(),
        rehearsed: parsed(next()),
        reconcile: parsed(next()).unwrap_or_default(),
        // A report that another version of this program wrote is none.
        reports: serving
            .into_iter()
            .map(|region| (region, parsed(next())))
            .collect(),
        ..Tables::default()
    };
    let mut unread = Vec::new();
    let mut told = |what: &str, failure: Failure| {
        unread.push(Unread {
            what: what.to_owned(),
            reason: failure.message().to_owned(),
        });
    };
    match change {
        Ok(change) => tables.change = change,
        Err(failure) => told("the change under way", failure),
    }
    match observations {
        Ok(observations) => tables.observations = observations,
        Err(failure) => told("the observations", failure),
    }
    tables.unread = unread;
    Ok(tables)
}

fn parsed<T: serde::de::DeserializeOwned>(json: Option<String>) -> Option<T> {
    json.and_then(|json| serde_json::from_str(&json).ok())
}

/// What was looked at outside the control table.
struct Looked {
    file_differs: bool,
    unreachable: BTreeMap<String, String>,
    unread: Vec<Unread>,
    workflows: Vec<Running>,
    counts: BTreeMap<State, usize>,
    resources: Option<Vec<Resource>>,
    at_ms: u64,
}

impl Tables {
    /// What changes when an execution begins.
    fn sign(&self) -> Sign {
        (
            self.record.as_ref().map(|record| record.version),
            self.change.as_ref().map(|change| change.execution.clone()),
            self.waiting.as_ref().map(|waiting| waiting.execution.clone()),
        )
    }

    /// Adds what the table knows of the executions, and the one that holds the stack where its region does not say that it runs.
    fn add_to(&self, running: &mut Vec<Running>) {
        if let Some(change) = &self.change
            && !running.iter().any(|one| one.execution == change.execution)
        {
            running.insert(
                0,
                Running::new(change.kind.as_str(), &change.execution, change.began_ms),
            );
        }
        for one in running {
            if ["deploy", "teardown"].contains(&one.workflow.as_str()) {
                one.progress.clone_from(&self.progress);
            }
            if self.drill["execution"] == one.execution.as_str() {
                one.doing = self.drill["stage"]
                    .as_str()
                    .map(|stage| drill::said(stage, &self.drill));
            }
        }
    }

    fn status(self, stack: &Stack, configuration: &Configuration, looked: Looked) -> Status {
        let now_ms = looked.at_ms;
        let spec = &stack.spec;
        let standby = self
            .record
            .as_ref()
            .and_then(|record| spec.regions.peer_of(&record.active_region))
            .map(str::to_owned);
        let own = standby
            .as_ref()
            .and_then(|standby| self.observations.iter().find(|one| one.observer == *standby));
        let observers = Slot::ALL
            .map(|slot| {
                let observer = spec.regions.of(slot);
                let observation = self.observations.iter().find(|one| one.observer == observer);
                view(observer, observation, own, &spec.failover, now_ms)
            })
            .into();
        let verdict = judged(own, &self.observations);
        let replication = standby
            .as_ref()
            .and_then(|standby| replication(&self.reports, standby));
        let interval = spec.readiness.interval_minutes;
        let readiness = self
            .reports
            .into_iter()
            .map(|(region, report)| (region, evaluated(report, interval, now_ms)))
            .collect();
        Status {
            stack: spec.suffix.clone(),
            account: stack.account.clone(),
            at_ms: now_ms,
            control: self.record,
            standby,
            stored_generation: configuration.generation,
            file_differs: looked.file_differs,
            unreachable: looked.unreachable,
            unread: looked.unread,
            change: self.change,
            workflows: looked.workflows,
            waiting: self
                .waiting
                .filter(|waiting| waiting.until_ms > now_ms)
                .map(Asked::from),
            observers,
            verdict,
            replication,
            readiness,
            drills: drill::Plan::of(spec, self.rehearsed, now_ms),
            reconcile: self.reconcile,
            counts: looked.counts,
            resources: looked.resources,
        }
    }
}

impl From<Waiting> for Asked {
    fn from(waiting: Waiting) -> Self {
        Asked {
            name: waiting.name().to_owned(),
            region: waiting.region().to_owned(),
            commands: waiting
                .choices
                .iter()
                .map(|choice| takeover::command(*choice).to_owned())
                .collect(),
            step: waiting.step,
            epoch: waiting.epoch,
            to_region: waiting.to_region,
            reasons: waiting.reasons,
            since_ms: waiting.since_ms,
            until_ms: waiting.until_ms,
        }
    }
}

impl Running {
    fn new(workflow: &str, arn: &str, began_ms: u64) -> Self {
        Running {
            workflow: workflow.to_owned(),
            name: arn.rsplit(':').next().unwrap_or_default().to_owned(),
            execution: arn.to_owned(),
            region: arn.split(':').nth(3).unwrap_or_default().to_owned(),
            began_ms,
            step: None,
            step_since_ms: None,
            progress: None,
            doing: None,
        }
    }
}

/// The executions that run, each with its step.
async fn executions(stack: &Stack, tables: &Tables, memory: &mut Memory) -> (Vec<Running>, Vec<Unread>) {
    let sign = tables.sign();
    let known = memory
        .listed
        .take()
        .filter(|listed| listed.sign == sign && listed.at.elapsed() < LIST_EVERY);
    let listed = match known {
        Some(listed) => listed,
        None => list(stack, sign).await,
    };
    let steps = listed.running.iter().map(|running| step(stack, running));
    let running = futures::future::join_all(steps)
        .await
        .into_iter()
        .flatten()
        .collect();
    let unread = listed.unread.clone();
    memory.listed = Some(listed);
    (running, unread)
}

async fn list(stack: &Stack, sign: Sign) -> Listed {
    let machines = Slot::SERVING.into_iter().flat_map(|slot| {
        let shown = workflows(slot).iter().filter(|workflow| **workflow != NOT_SHOWN);
        shown.map(move |workflow| (slot, *workflow))
    });
    let lists = machines.map(|(slot, workflow)| async move {
        let region = stack.spec.regions.of(slot);
        let machine = stack.names().state_machine(workflow, slot);
        let call = stack
            .cloud
            .sfn(region)
            .list_executions()
            .state_machine_arn(state_machine::arn(region, &stack.account, &machine))
            .status_filter(ExecutionStatus::Running)
            .send();
        let found = match tokio::time::timeout(READ_LIMIT, call).await {
            Ok(Ok(list)) => Ok(list
                .executions()
                .iter()
                .map(|one| Running::new(workflow, one.execution_arn(), time_ms(Some(one.start_date()))))
                .collect::<Vec<_>>()),
            // Not deployed yet, or no more.
            Ok(Err(error))
                if error
                    .as_service_error()
                    .is_some_and(|e| e.is_state_machine_does_not_exist()) =>
            {
                Ok(Vec::new())
            }
            Ok(Err(error)) => Err(continuity::error::chain(&error)),
            Err(_) => Err(format!("no answer within {} s", READ_LIMIT.as_secs())),
        };
        (region, found)
    });
    let (mut running, mut unread) = (Vec::new(), Vec::<Unread>::new());
    for (region, found) in futures::future::join_all(lists).await {
        match found {
            Ok(found) => running.extend(found),
            Err(reason) => {
                let what = format!("the workflows in {region}");
                if !unread.iter().any(|one| one.what == what) {
                    unread.push(Unread { what, reason });
                }
            }
        }
    }
    Listed {
        at: Instant::now(),
        sign,
        running,
        unread,
    }
}

fn time_ms(time: Option<&aws_sdk_sfn::primitives::DateTime>) -> u64 {
    time.and_then(|time| time.to_millis().ok())
        .and_then(|ms| u64::try_from(ms).ok())
        .unwrap_or_default()
}

/// The execution with the state that it is in; nothing if it has ended. Its region may have stopped answering: then the step stays
/// unknown.
async fn step(stack: &Stack, running: &Running) -> Option<Running> {
    let call = stack
        .cloud
        .sfn(&running.region)
        .get_execution_history()
        .execution_arn(&running.execution)
        .reverse_order(true)
        .max_results(HISTORY)
        .include_execution_data(false)
        .send();
    let mut running = running.clone();
    let Ok(Ok(history)) = tokio::time::timeout(READ_LIMIT, call).await else {
        return Some(running);
    };
    let events = history.events();
    if events.first().is_some_and(ends) {
        return None;
    }
    let mut entered = events
        .iter()
        .filter_map(|event| Some((event.state_entered_event_details()?.name(), event.timestamp())));
    if let Some((name, since)) = entered.next() {
        running.step = Some(name.to_owned());
        running.step_since_ms = Some(time_ms(Some(since)));
    }
    Some(running)
}

fn ends(event: &HistoryEvent) -> bool {
    matches!(
        event.r#type(),
        HistoryEventType::ExecutionSucceeded
            | HistoryEventType::ExecutionFailed
            | HistoryEventType::ExecutionAborted
            | HistoryEventType::ExecutionTimedOut
    )
}

/// What an observer sees. `own` is the observation of the region that would take over: by whose clock it is known when the others'
/// changed, so that a clock that is wrong makes nobody blind.
fn view(
    observer: &str,
    observation: Option<&Observation>,
    own: Option<&Observation>,
    policy: &Policy,
    now_ms: u64,
) -> View {
    let Some(observation) = observation else {
        return View {
            observer: observer.to_owned(),
            at_ms: None,
            blind: Some("it has written nothing yet".to_owned()),
            sees: BTreeMap::new(),
        };
    };
    let is_old = |at_ms: u64| now_ms.saturating_sub(at_ms) > policy.stale_after_ms;
    let seen_by_standby = own.filter(|own| !is_old(own.at_ms)).is_some_and(|own| {
        own.sightings.get(observer).is_some_and(|sighting| {
            sighting
                .seen_ms
                .is_some_and(|seen_ms| sighting.looked_ms.saturating_sub(seen_ms) <= policy.stale_after_ms)
        })
    });
    let newest = |region: &String| Some((region.clone(), observation.newest(region)?));
    let sees: BTreeMap<String, Seen> = observation
        .rounds
        .keys()
        .filter_map(newest)
        .map(|(region, round)| {
            let (state, epoch, reason) = match &round.look {
                Look::Serving { epoch } => ("serving", Some(*epoch), None),
                Look::Standby { health } => {
                    let down =
                        (!health.database.reachable).then(|| "its database does not answer".to_owned());
                    ("standby", health.database.ledger_epoch, down)
                }
                Look::Failing { reason, .. } => ("failing", None, Some(reason.clone())),
            };
            let seen = Seen {
                state,
                epoch,
                reason,
                at_ms: round.at_ms,
                took_ms: round.took_ms,
                slow: round.took_ms > policy.grey.slow_ms,
            };
            (region, seen)
        })
        .collect();
    let blind = if sees.is_empty() {
        Some("it has written nothing yet".to_owned())
    } else if is_old(observation.at_ms) && !seen_by_standby {
        Some("it has seen nothing of late".to_owned())
    } else if sees.values().all(|seen| seen.state == "failing") {
        Some("no region answers it, so it may itself be cut off".to_owned())
    } else {
        None
    };
    View {
        observer: observer.to_owned(),
        at_ms: Some(observation.at_ms),
        blind,
        sees,
    }
}

/// What the observer in the standby, `own`, makes of what was seen; else the newest verdict that is known.
fn judged(own: Option<&Observation>, observations: &[Observation]) -> Option<Judged> {
    if let Some(own) = own.filter(|own| own.assessment.is_some()) {
        return Some(Judged {
            by: own.observer.clone(),
            latest: own.assessment.clone(),
            changed: own.verdicts.last().cloned(),
        });
    }
    let changes = observations
        .iter()
        .filter_map(|one| Some((one, one.verdicts.last()?)));
    let (by, changed) = changes.max_by_key(|(_, changed)| changed.at_ms)?;
    Some(Judged {
        by: by.observer.clone(),
        latest: None,
        changed: Some(changed.clone()),
    })
}

/// The newest finding on the standby's lag. Only while the evaluation's standby still is the standby.
fn replication(reports: &BTreeMap<String, Option<Report>>, standby: &str) -> Option<Replication> {
    let reports = reports.values().flatten();
    let findings = reports.filter_map(|report| {
        let mut findings = report.findings.iter();
        let finding = findings.find(|one| one.check == "replication-lag" && one.subject == standby)?;
        Some(Replication {
            state: finding.state,
            text: finding.reason.clone(),
            by: report.region.clone(),
            at_ms: report.at_ms,
        })
    });
    findings.max_by_key(|finding| finding.at_ms)
}

fn evaluated(report: Option<Report>, interval_minutes: u16, now_ms: u64) -> Evaluated {
    let seen = evaluations::seen(report, interval_minutes, now_ms);
    let findings = seen.report.as_ref().map_or(&[][..], |report| &report.findings);
    let not_passed = |in_the_way: bool| {
        findings
            .iter()
            .filter(|finding| finding.state != readiness::State::Passed)
            .filter(|finding| finding.is_in_the_way() == in_the_way)
            .count()
    };
    Evaluated {
        ready: seen.ready,
        stale: seen.stale,
        at_ms: seen.report.as_ref().map(|report| report.at_ms),
        checks: findings.len(),
        failing: not_passed(true),
        warnings: not_passed(false),
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

#[cfg(test)]
mod tests {
    use continuity::assess::Verdict;
    use continuity::observe::{Round, Sighting};
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

    pub(super) fn sample() -> Status {
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
            at_ms: 300_000,
            control: Some(ControlRecord::first("us-east-1", "deploy", 0)),
            standby: Some("us-east-2".into()),
            stored_generation: 1,
            file_differs: false,
            unreachable,
            unread: Vec::new(),
            change: None,
            workflows: Vec::new(),
            waiting: None,
            observers: Vec::new(),
            verdict: None,
            replication: None,
            readiness: BTreeMap::new(),
            drills: drill::Plan::of(&infra::spec::Spec::default(), None, 300_000),
            reconcile: drift::Report::default(),
            counts,
            resources: Some(resources),
        }
    }

    #[test]
    fn each_resource_has_a_state_and_a_reason() {
        let states: Vec<(String, State)> = sample()
            .resources
            .into_iter()
            .flatten()
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
    fn a_stack_is_in_order_when_every_resource_is_and_every_region_answers() {
        let mut status = sample();
        assert!(!status.is_ok());
        status.counts = BTreeMap::from([(State::Ok, 7)]);
        assert!(!status.is_ok(), "a region does not answer");
        status.unreachable.clear();
        assert!(status.is_ok());
    }

    fn round(at_ms: u64, look: Look) -> Round {
        Round {
            at_ms,
            took_ms: 3,
            look,
        }
    }

    fn failing() -> Look {
        Look::Failing {
            reason: "timed out".into(),
            throttled: false,
        }
    }

    #[test]
    fn an_observer_is_blind_when_it_saw_nothing_of_late_or_gets_no_answer_at_all() {
        let policy = Policy::default();
        let now_ms = 1_000_000;
        let seen = |at_ms, home: Look, other: Look| {
            let mut seen = Observation::new("us-west-2");
            seen.push("us-east-1", round(at_ms, home));
            seen.push("us-east-2", round(at_ms, other));
            seen
        };
        let serving = || Look::Serving { epoch: 1 };
        // The standby saw it change a moment ago, so only its clock is wrong.
        let mut standby = Observation::new("us-east-2");
        standby.push("us-east-1", round(now_ms, serving()));
        standby.sightings.insert(
            "us-west-2".into(),
            Sighting {
                newest_ms: 1,
                seen_ms: Some(now_ms - 1_000),
                looked_ms: now_ms,
            },
        );
        let old_ms = now_ms - policy.stale_after_ms - 1;
        for (observation, own, blind) in [
            (Some(seen(now_ms, serving(), failing())), None, false),
            (Some(seen(now_ms, failing(), failing())), None, true),
            (Some(seen(old_ms, serving(), serving())), None, true),
            (Some(seen(old_ms, serving(), serving())), Some(&standby), false),
            (Some(Observation::new("us-west-2")), None, true),
            (None, None, true),
        ] {
            let view = view("us-west-2", observation.as_ref(), own, &policy, now_ms);
            assert_eq!(view.blind.is_some(), blind, "{view:?}");
        }
    }

    #[test]
    fn a_look_that_took_longer_than_the_policy_allows_is_slow() {
        let mut seen = Observation::new("us-west-2");
        let policy = Policy::default();
        for (region, took_ms) in [
            ("us-east-1", policy.grey.slow_ms),
            ("us-east-2", policy.grey.slow_ms + 1),
        ] {
            let look = Look::Serving { epoch: 1 };
            seen.push(
                region,
                Round {
                    at_ms: 5,
                    took_ms,
                    look,
                },
            );
        }
        let view = view("us-west-2", Some(&seen), None, &policy, 5);
        assert_eq!(
            (view.sees["us-east-1"].slow, view.sees["us-east-2"].slow),
            (false, true)
        );
    }

    #[test]
    fn the_lag_is_that_of_the_newest_evaluation_that_was_about_this_standby() {
        let report = |region: &str, at_ms, subject: &str| {
            let finding = readiness::Finding {
                check: "replication-lag".into(),
                severity: readiness::Severity::Critical,
                state: readiness::State::Passed,
                subject: subject.into(),
                reason: format!("{at_ms} entries behind"),
                remedy: String::new(),
            };
            let report = Report {
                region: region.into(),
                at_ms,
                findings: vec![finding],
            };
            (region.to_owned(), Some(report))
        };
        let reports = BTreeMap::from([
            report("us-east-1", 7, "us-east-2"),
            report("us-east-2", 9, "us-east-2"),
        ]);
        let lag = replication(&reports, "us-east-2").expect("it is known");
        assert_eq!(
            (lag.by.as_str(), lag.text.as_str()),
            ("us-east-2", "9 entries behind")
        );
        assert_eq!(
            replication(&reports, "us-east-1"),
            None,
            "that was before the takeover"
        );
    }

    #[test]
    fn the_verdict_that_made_a_takeover_is_shown_while_the_new_standby_is_silent() {
        let hold = || Verdict::Hold { reasons: Vec::new() };
        let mut silent = Observation::new("us-east-1");
        assert_eq!(judged(Some(&silent), std::slice::from_ref(&silent)), None);
        let mut other = Observation::new("us-east-2");
        other.keep_verdict(hold(), 5);
        other.assessment = None;
        let all = [silent.clone(), other];
        let told = judged(Some(&silent), &all).expect("one is known");
        assert_eq!((told.by.as_str(), told.latest), ("us-east-2", None));
        silent.keep_verdict(hold(), 3);
        let told = judged(Some(&silent), &all).expect("it assesses");
        assert_eq!((told.by.as_str(), told.latest.is_some()), ("us-east-1", true));
    }

    #[test]
    fn a_token_is_in_no_output() {
        let asked = Asked::from(Waiting {
            execution: "arn:aws:states:us-east-2:0:execution:failover-dr-dev:failover-dev-2".into(),
            token: "the-token".into(),
            step: None,
            epoch: 1,
            to_region: "us-east-2".into(),
            reasons: vec![],
            choices: vec![infra::waiting::Choice::Approve],
            since_ms: 0,
            until_ms: 1,
        });
        let json = serde_json::to_string(&asked).expect("plain data");
        assert!(
            !json.contains("token") && json.contains("understudy approve"),
            "{json}"
        );
    }

    #[test]
    fn a_change_whose_region_is_silent_is_shown_without_its_step() {
        let execution = "arn:aws:states:us-east-1:0:execution:deploy-primary-dev:deploy-dev-1";
        let tables = Tables {
            change: Some(Change {
                kind: infra::change::Kind::Deploy,
                execution: execution.into(),
                generation: 1,
                began_ms: 5,
                seen_ms: 5,
            }),
            progress: Some(Progress::default()),
            ..Tables::default()
        };
        let mut running = Vec::new();
        tables.add_to(&mut running);
        tables.add_to(&mut running);
        assert_eq!(running.len(), 1, "once");
        assert_eq!(
            (running[0].region.as_str(), running[0].step.as_ref()),
            ("us-east-1", None)
        );
        assert!(running[0].progress.is_some());
    }
}
