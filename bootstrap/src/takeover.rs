//! `understudy failover`, `failback`, `approve`, `retry`, `skip`, `abort`, `maintenance`: what an operator says about the active
//! region. The workflows do the work in the region that takes over; these commands start them, watch them, and answer them.

use std::time::Duration;

use aws_sdk_sfn::error::ProvideErrorMetadata;
use aws_sdk_sfn::types::ExecutionStatus;
use continuity::control::{ControlRecord, ControlStore, Phase, Swap};
use continuity::names::Slot;
use infra::resources::state_machine;
use infra::waiting::{self, Choice, Waiting};
use serde::Serialize;
use serde_json::{Value, json};

use crate::failure::Failure;
use crate::stack::Stack;
use crate::ui::{Ui, table};

/// How often a running change is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(200);
/// How many looks in a row may fail before the watcher gives up; the change itself goes on.
const LOOKS_TO_FAIL: u32 = 60;
/// Attempts of one epoch that a command tries.
const MOST_ATTEMPTS: u32 = 100;
/// Writes of the control record that a command tries.
const SWAP_ATTEMPTS: u32 = 10;
/// The item when nothing waits.
const NOTHING: &str = "null";
/// The newest events of an execution, among which its state is.
const HISTORY: i32 = 20;

/// How the active region is moved.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// Without loss: the active region drains, the database switches over. Needs both regions.
    #[default]
    Graceful,
    /// At once: the active region is not asked. What its database did not send comes from the journal.
    Ungraceful,
}

impl Mode {
    fn workflow(self) -> &'static str {
        match self {
            Mode::Graceful => "switchover",
            Mode::Ungraceful => "failover",
        }
    }
}

/// What an operator wants.
#[derive(Debug, Clone)]
pub struct Wish {
    /// The region that is to serve.
    pub to_region: String,
    /// How.
    pub mode: Mode,
    /// A switchover that cannot be made may go on as a failover.
    pub or_ungraceful: bool,
    /// Why, for the evidence.
    pub reason: String,
}

/// What came of it.
#[derive(Debug, Clone, Serialize)]
pub struct Moved {
    /// The exercise whose evidence was recorded.
    pub execution: String,
    /// How it was made in the end.
    pub mode: Mode,
    /// The region that served before.
    pub from_region: String,
    /// The region that serves.
    pub active_region: String,
    /// Its epoch.
    pub epoch: u64,
    /// From the last moment at which the old region could acknowledge to the opening of the new one, in milliseconds.
    pub closed_ms: Option<u64>,
    /// Payments that came from the journal.
    pub replayed: u64,
    /// The public name answered from the new region.
    pub traffic_verified: bool,
    /// The whole change.
    pub seconds: f64,
}

/// What is decided about a wish, before anything is started.
///
/// # Errors
/// Why it makes no sense now, and what to do instead.
fn decide(record: &ControlRecord, stack: &Stack, wish: &Wish) -> Result<Slot, Failure> {
    let regions = &stack.spec.regions;
    let to = wish.to_region.as_str();
    let slot = regions.slot_of(to).filter(|slot| Slot::SERVING.contains(slot));
    let Some(slot) = slot else {
        return Err(
            Failure::text(format!("`{to}` is not a region that serves")).help(format!(
                "the stack serves from {} or {}",
                regions.primary, regions.dr
            )),
        );
    };
    if record.active_region == to && record.phase == Phase::Serving {
        return Err(
            Failure::text(format!("`{to}` is active already, in epoch {}", record.epoch))
                .help("`understudy status` shows what serves"),
        );
    }
    if record.phase == Phase::Recovering {
        return Err(Failure::text(format!(
            "the active region is changing to `{}` by `{}`",
            record.active_region, record.changed_by
        ))
        .help("watch it with `understudy status --watch`; the observers restart it if it dies"));
    }
    if record.phase == Phase::Draining && wish.mode == Mode::Graceful && record.active_region == to {
        return Err(Failure::text(format!(
            "`{to}` is draining by `{}`",
            record.changed_by
        )));
    }
    Ok(slot)
}

/// Moves the active region and watches it.
///
/// # Errors
/// The change makes no sense now, was held or given up (then what was before still is), or cannot be seen any more.
pub async fn move_to(stack: &Stack, wish: &Wish, ui: &Ui) -> Result<Moved, Failure> {
    let record = deployed(stack).await?;
    let slot = decide(&record, stack, wish)?;
    let input = json!({
        "epoch": record.epoch,
        "to_region": wish.to_region,
        "started_by": "operator",
        "reasons": [wish.reason],
        "decided_ms": continuity::clock::now_ms(),
        "mode": wish.mode,
        "by_person": true,
        "or_ungraceful": wish.or_ungraceful,
    });
    let base = match wish.mode {
        Mode::Graceful => stack.names().switchover_execution(record.epoch + 1),
        Mode::Ungraceful => stack.names().failover_execution(record.epoch + 1),
    };
    let execution = start(stack, wish.mode.workflow(), slot, &base, &input).await?;
    ui.step(format!(
        "{} `{}` started in {}",
        wish.mode.workflow(),
        execution.name,
        wish.to_region
    ));
    let output = watch(stack, &execution, ui).await?;
    let (mode, execution, output) = match output["hand_over"]["execution"].as_str() {
        None => (wish.mode, execution, output),
        Some(name) => {
            ui.warn(format!(
                "it could not be made without loss; `{name}` goes on as a failover"
            ));
            let failover = Execution::of(stack, "failover", slot, name);
            let output = watch(stack, &failover, ui).await?;
            (Mode::Ungraceful, failover, output)
        }
    };
    let verdict = &output[if mode == Mode::Graceful {
        "evaluate"
    } else {
        "assess"
    }];
    if verdict["verdict"] == "hold" {
        let reasons: Vec<&str> = verdict["reasons"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(Value::as_str)
            .collect();
        return Err(
            Failure::text(format!("held, and nothing has changed: {}", reasons.join("; ")))
                .help("`understudy status` shows both regions; mend what is named and run the command again"),
        );
    }
    let opened_ms = output["open"]["opened_ms"].as_u64();
    let closed_since_ms = output["drain"]["drained_ms"]
        .as_u64()
        .or(output["fence"]["began_ms"].as_u64());
    Ok(Moved {
        mode,
        from_region: record.active_region,
        active_region: wish.to_region.clone(),
        epoch: record.epoch + 1,
        closed_ms: opened_ms
            .zip(closed_since_ms)
            .map(|(opened, closed)| opened.saturating_sub(closed)),
        replayed: output["replay"]["replayed"]["posted"].as_u64().unwrap_or(0),
        traffic_verified: output["await_traffic"]["traffic_verified"]
            .as_bool()
            .unwrap_or(false),
        seconds: ui.elapsed().as_secs_f64(),
        execution: execution.name,
    })
}

/// What a person reads of it.
pub fn describe(moved: &Moved) -> String {
    let closed = moved
        .closed_ms
        .map_or("unknown".to_owned(), |ms| format!("{:.1} s", seconds(ms)));
    let traffic = if moved.traffic_verified {
        "the public name answers from there"
    } else {
        "the public name did not answer from there in time: look at DNS and health checks"
    };
    table(&[
        (
            "active",
            format!(
                "{}, epoch {} (before: {})",
                moved.active_region, moved.epoch, moved.from_region
            ),
        ),
        ("closed", format!("{closed}, nobody acknowledged meanwhile")),
        (
            "replayed",
            format!("{} payments from the journal", moved.replayed),
        ),
        ("traffic", traffic.to_owned()),
        ("evidence", format!("exercise {}", moved.execution)),
    ])
}

#[allow(clippy::cast_precision_loss)]
fn seconds(ms: u64) -> f64 {
    ms as f64 / 1000.0
}

/// An execution of a workflow in a slot.
#[derive(Debug, Clone)]
struct Execution {
    arn: String,
    name: String,
    region: String,
}

impl Execution {
    fn of(stack: &Stack, workflow: &str, slot: Slot, name: &str) -> Self {
        let machine = machine(stack, workflow, slot);
        Execution {
            arn: format!("{}:{name}", machine.replacen(":stateMachine:", ":execution:", 1)),
            name: name.to_owned(),
            region: stack.spec.regions.of(slot).to_owned(),
        }
    }
}

fn machine(stack: &Stack, workflow: &str, slot: Slot) -> String {
    let name = stack.names().state_machine(workflow, slot);
    state_machine::arn(stack.spec.regions.of(slot), &stack.account, &name)
}

/// Starts the next attempt: an execution that runs under one of the names is the one that is watched.
async fn start(
    stack: &Stack,
    workflow: &str,
    slot: Slot,
    base: &str,
    input: &Value,
) -> Result<Execution, Failure> {
    let client = stack.cloud.sfn(stack.spec.regions.of(slot));
    let mut name = base.to_owned();
    for attempt in 2..MOST_ATTEMPTS {
        let execution = Execution::of(stack, workflow, slot, &name);
        let started = client
            .start_execution()
            .state_machine_arn(machine(stack, workflow, slot))
            .name(&name)
            .input(input.to_string())
            .send()
            .await;
        match started {
            Ok(_) => return Ok(execution),
            Err(error) if error.code() == Some("ExecutionAlreadyExists") => {}
            Err(error) => return Err(Failure::new(&error)),
        }
        let seen = client
            .describe_execution()
            .execution_arn(&execution.arn)
            .send()
            .await?;
        if matches!(
            seen.status(),
            ExecutionStatus::Running | ExecutionStatus::PendingRedrive
        ) {
            return Ok(execution);
        }
        name = format!("{base}-{attempt}");
    }
    Err(
        Failure::text(format!("{MOST_ATTEMPTS} attempts of `{base}` have ended"))
            .help("read their last steps in Step Functions; `understudy readiness` says what is wrong"),
    )
}

/// Watches an execution to its end and returns its output, telling each state that it enters.
async fn watch(stack: &Stack, execution: &Execution, ui: &Ui) -> Result<Value, Failure> {
    let client = stack.cloud.sfn(&execution.region);
    let (mut told, mut failed_looks) = (String::new(), 0);
    loop {
        let seen = client
            .describe_execution()
            .execution_arn(&execution.arn)
            .send()
            .await;
        let seen = match seen {
            Ok(seen) => seen,
            Err(error) => {
                failed_looks += 1;
                if failed_looks >= LOOKS_TO_FAIL {
                    return Err(Failure::new(&error)
                        .help("the workflow goes on without this command; `understudy status` shows it"));
                }
                tokio::time::sleep(LOOK_EVERY).await;
                continue;
            }
        };
        failed_looks = 0;
        match seen.status() {
            ExecutionStatus::Running | ExecutionStatus::PendingRedrive => {
                if let Some(state) = state(stack, execution).await
                    && state != told
                {
                    ui.step(&state);
                    told = state;
                }
            }
            ExecutionStatus::Succeeded => {
                return Ok(seen
                    .output()
                    .and_then(|text| serde_json::from_str(text).ok())
                    .unwrap_or(Value::Null));
            }
            status => {
                let (error, cause) = (
                    seen.error().unwrap_or("no error name"),
                    seen.cause().unwrap_or("no cause"),
                );
                return Err(Failure::text(format!(
                    "`{}` ended {}: {error}: {cause}",
                    execution.name,
                    status.as_str().to_lowercase()
                ))
                .help("`understudy status` shows what serves now"));
            }
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// The state that the execution is in; while it waits for a person, what can be answered.
async fn state(stack: &Stack, execution: &Execution) -> Option<String> {
    let history = stack
        .cloud
        .sfn(&execution.region)
        .get_execution_history()
        .execution_arn(&execution.arn)
        .reverse_order(true)
        .max_results(HISTORY)
        .include_execution_data(false)
        .send()
        .await
        .ok()?;
    let mut names = history
        .events()
        .iter()
        .filter_map(|event| event.state_entered_event_details());
    let name = names.next()?.name().to_owned();
    if !name.starts_with("Pause") && name != "AskApproval" {
        return Some(name);
    }
    let waiting = waiting(stack).await.ok()??;
    let commands: Vec<String> = waiting
        .choices
        .iter()
        .map(|choice| command(*choice).to_owned())
        .collect();
    Some(format!(
        "{name}: {}; possible: {}",
        waiting.reasons.join("; "),
        commands.join(", ")
    ))
}

/// The command that gives an answer.
pub(crate) fn command(choice: Choice) -> &'static str {
    match choice {
        Choice::Approve => "understudy approve",
        Choice::Decline => "understudy approve --decline",
        Choice::Retry => "understudy retry",
        Choice::Skip => "understudy skip",
        Choice::Abort => "understudy abort",
    }
}

/// What waits for a person, if its time has not passed.
///
/// # Errors
/// No region answers.
pub async fn waiting(stack: &Stack) -> Result<Option<Waiting>, Failure> {
    let stored = stack.document(waiting::ITEM).await?;
    let waiting: Option<Waiting> = stored.and_then(|json| serde_json::from_str(&json).ok());
    Ok(waiting.filter(|waiting| waiting.until_ms > continuity::clock::now_ms()))
}

/// What was answered.
#[derive(Debug, Clone, Serialize)]
pub struct Answered {
    /// The execution that waited.
    pub execution: String,
    /// The step that had failed.
    pub step: Option<String>,
    /// The answer.
    pub answer: Choice,
}

/// Answers the workflow that waits.
///
/// # Errors
/// Nothing waits; it waits for another answer; it waits no more.
pub async fn answer(stack: &Stack, choice: Choice, note: &str) -> Result<Answered, Failure> {
    let Some(waiting) = waiting(stack).await? else {
        return Err(Failure::text("nothing waits for a person").help("`understudy status` shows what runs"));
    };
    if !waiting.choices.contains(&choice) {
        let possible: Vec<&str> = waiting.choices.iter().map(|choice| command(*choice)).collect();
        return Err(
            Failure::text(format!("`{}` cannot be answered `{choice}`", waiting.name()))
                .help(format!("possible: {}", possible.join(", "))),
        );
    }
    let output = json!({
        "decision": choice,
        "step": waiting.step,
        "note": note,
        "answered_ms": continuity::clock::now_ms(),
    });
    let sent = stack
        .cloud
        .sfn(waiting.region())
        .send_task_success()
        .task_token(&waiting.token)
        .output(output.to_string())
        .send()
        .await;
    match sent {
        Ok(_) => {
            forget(stack, &waiting).await;
            Ok(Answered {
                execution: waiting.name().to_owned(),
                step: waiting.step,
                answer: choice,
            })
        }
        Err(error)
            if matches!(
                error.code(),
                Some("TaskDoesNotExist" | "TaskTimedOut" | "InvalidToken")
            ) =>
        {
            Err(Failure::text(format!("`{}` waits no more", waiting.name()))
                .help("`understudy status` shows what runs"))
        }
        Err(error) => Err(Failure::new(&error)),
    }
}

/// Takes the item away that was answered, unless something else waits by now. If that fails it goes when its time is over.
async fn forget(stack: &Stack, answered: &Waiting) {
    let control = stack.control(answered.region());
    let stored = control.document(waiting::ITEM).await;
    let Ok(Some(json)) = stored else { return };
    let same = serde_json::from_str::<Waiting>(&json).is_ok_and(|waiting| waiting.token == answered.token);
    if same {
        let _ = control.swap_document(waiting::ITEM, Some(&json), NOTHING).await;
    }
}

/// Switches the maintenance lock on or off: while it is on, no failover begins by itself.
///
/// # Errors
/// Nothing is deployed; no region answers; others change the control record all the time.
pub async fn maintenance(stack: &Stack, on: bool) -> Result<ControlRecord, Failure> {
    for _ in 0..SWAP_ATTEMPTS {
        let record = deployed(stack).await?;
        if record.maintenance == on {
            return Ok(record);
        }
        let new = ControlRecord {
            maintenance: on,
            version: record.version + 1,
            ..record.clone()
        };
        let control = stack.control(&record.active_region);
        let swap = match control.replace(&record, &new).await {
            Ok(swap) => swap,
            // The active region may be the one that does not answer.
            Err(_) => {
                let peer = stack
                    .spec
                    .regions
                    .peer_of(&record.active_region)
                    .unwrap_or_default();
                stack.control(peer).replace(&record, &new).await?
            }
        };
        if swap == Swap::Done {
            return Ok(new);
        }
    }
    Err(Failure::text("the control record changes all the time")
        .help("`understudy status` shows by whom; try again"))
}

async fn deployed(stack: &Stack) -> Result<ControlRecord, Failure> {
    stack.control_record().await?.ok_or_else(|| {
        Failure::text(format!(
            "nothing is deployed under the suffix `{}`",
            stack.spec.suffix
        ))
        .help("deploy it with `understudy up`, or name another stack with `--suffix`")
    })
}
