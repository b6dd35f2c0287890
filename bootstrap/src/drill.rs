//! `understudy drill run` and `understudy drill schedule`. The drill workflow does the work in the standby region; `run` starts it and
//! shows how it goes.

use std::time::Duration;

use aws_sdk_sfn::types::ExecutionStatus;
use continuity::clock::{civil, now_ms};
use continuity::control::{ControlRecord, ControlStore};
use continuity::names::Slot;
use infra::readiness::{REHEARSED_ITEM, Rehearsed};
use infra::resources::state_machine;
use infra::spec::{Spec, expression};
use serde::Serialize;
use serde_json::{Value, json};

use crate::failure::Failure;
use crate::stack::Stack;
use crate::ui::{Ui, table};

/// The item of the control table with the running drill.
pub const ITEM: &str = "drill";
/// How often a running drill is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// How many looks in a row may fail before the watcher gives up; the drill itself goes on.
const LOOKS_TO_FAIL: u32 = 60;

/// What an operator wants.
#[derive(Debug, Clone)]
pub struct Wish {
    /// Which exercise; without one the configuration's.
    pub kind: Option<String>,
    /// How long the other region serves, seconds; without it the configuration's.
    pub hold_seconds: Option<u64>,
    /// Whether to stay until the end.
    pub wait: bool,
}

/// What came of it.
#[derive(Debug, Clone, Serialize)]
pub struct Ran {
    /// The execution.
    pub execution: String,
    /// The drill's id; none while that is not known.
    pub id: Option<String>,
    /// It came to its end with its objectives met; none while it runs.
    pub met: Option<bool>,
    /// The longest time without an acknowledged payment, milliseconds.
    pub longest_gap_ms: Option<u64>,
    /// Payments acknowledged.
    pub acknowledged: Option<u64>,
}

/// Starts a drill in the standby region, and watches it.
///
/// # Errors
/// There is no drill now, it broke off or missed an objective, or it cannot be seen any more.
pub async fn run(stack: &Stack, wish: &Wish, ui: &Ui) -> Result<Ran, Failure> {
    let record = record(stack).await?;
    let regions = &stack.spec.regions;
    let standby = regions
        .peer_of(&record.active_region)
        .ok_or_else(|| Failure::text(format!("`{}` is no region of the stack", record.active_region)))?
        .to_owned();
    let slot = regions.slot_of(&standby).unwrap_or(Slot::Dr);
    let client = stack.cloud.sfn(&standby);
    let machine = state_machine::arn(
        &standby,
        &stack.account,
        &stack.names().state_machine("drill", slot),
    );
    let mut input = json!({"started_by": "operator"});
    if let Some(kind) = &wish.kind {
        input["kind"] = json!(kind);
    }
    if let Some(seconds) = wish.hold_seconds {
        input["hold_seconds"] = json!(seconds);
    }
    let started = client
        .start_execution()
        .state_machine_arn(machine)
        .name(format!("drill-{}-{}", stack.spec.suffix, uuid::Uuid::now_v7()))
        .input(input.to_string())
        .send()
        .await?;
    let arn = started.execution_arn().to_owned();
    ui.step(format!("drill started in {standby}"));
    let mut ran = Ran {
        execution: arn.clone(),
        id: None,
        met: None,
        longest_gap_ms: None,
        acknowledged: None,
    };
    if !wish.wait {
        return Ok(ran);
    }
    let (mut shown, mut failed_looks) = (String::new(), 0);
    loop {
        let drill = mine(stack, &standby, &arn).await;
        if let Some(stage) = drill["stage"].as_str().filter(|stage| *stage != shown) {
            ui.step(said(stage, &drill));
            stage.clone_into(&mut shown);
        }
        ran.id = drill["id"].as_str().map(str::to_owned).or(ran.id);
        match client.describe_execution().execution_arn(&arn).send().await {
            Ok(seen) => {
                failed_looks = 0;
                match seen.status() {
                    ExecutionStatus::Running | ExecutionStatus::PendingRedrive => {}
                    ExecutionStatus::Succeeded => {
                        let output: Value = seen
                            .output()
                            .and_then(|text| serde_json::from_str(text).ok())
                            .unwrap_or_default();
                        return ended(ran, &output);
                    }
                    _ => return Err(failed(stack, &standby, &ran, seen.cause()).await),
                }
            }
            Err(error) => {
                failed_looks += 1;
                if failed_looks >= LOOKS_TO_FAIL {
                    return Err(
                        Failure::new(&error).help("the drill goes on; `understudy status` shows what serves")
                    );
                }
            }
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

async fn record(stack: &Stack) -> Result<ControlRecord, Failure> {
    stack.control_record().await?.ok_or_else(|| {
        Failure::text("the stack has no control record").help("deploy it with `understudy up`")
    })
}

/// The drill as it is stored, if it is this execution's.
async fn mine(stack: &Stack, region: &str, execution: &str) -> Value {
    let json = stack.control(region).document(ITEM).await.ok().flatten();
    let drill: Value = json
        .and_then(|json| serde_json::from_str(&json).ok())
        .unwrap_or_default();
    if drill["execution"] == execution {
        drill
    } else {
        Value::Null
    }
}

/// A stage in words.
pub(crate) fn said(stage: &str, drill: &Value) -> String {
    let text = |field: &str| drill[field].as_str().unwrap_or("?");
    match stage {
        "baseline" => format!(
            "{}: synthetic payments begin, `{}` serves",
            text("id"),
            text("home")
        ),
        "there" if drill["kind"] == "isolation" => {
            format!("{} is cut off; {} is to take over", text("home"), text("target"))
        }
        "there" => format!("switchover to {}", text("target")),
        "hold" => format!(
            "{} serves, for {} s",
            text("target"),
            drill["hold_ms"].as_u64().unwrap_or(0) / 1000
        ),
        "rejoin" => match drill["aborted"].as_str() {
            Some(why) => format!("{} is joined again at once: {why}", text("home")),
            None => format!("{} is joined again, and becomes the standby", text("home")),
        },
        "back" => match drill["aborted"].as_str() {
            Some(why) => format!("switchover back to {} at once: {why}", text("home")),
            None => format!("switchover back to {}", text("home")),
        },
        _ => "the exercise is over; its payments are looked up".to_owned(),
    }
}

/// What an execution that succeeded means: a drill that met its objectives, or none.
fn ended(ran: Ran, output: &Value) -> Result<Ran, Failure> {
    let end = &output["drill_end"];
    if end.is_null() {
        let reasons: Vec<&str> = output["drill_begin"]["reasons"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(Value::as_str)
            .collect();
        let why = if reasons.is_empty() {
            "the active region changed meanwhile".to_owned()
        } else {
            reasons.join("; ")
        };
        return Err(
            Failure::text(format!("no drill now, and nothing has changed: {why}"))
                .help("run the command again when that is over"),
        );
    }
    Ok(Ran {
        id: end["id"].as_str().map(str::to_owned),
        met: end["met"].as_bool(),
        longest_gap_ms: end["longest_gap_ms"].as_u64(),
        acknowledged: end["acknowledged"].as_u64(),
        ..ran
    })
}

/// Why a drill failed: its evidence says so.
async fn failed(stack: &Stack, region: &str, ran: &Ran, cause: Option<&str>) -> Failure {
    let id = ran.id.as_deref().unwrap_or_default();
    let json = stack
        .control(region)
        .document(&format!("exercise#{id}"))
        .await
        .ok()
        .flatten();
    let evidence: Value = json
        .and_then(|json| serde_json::from_str(&json).ok())
        .unwrap_or_default();
    let missed: Vec<&str> = evidence["missed"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .collect();
    let why = if missed.is_empty() {
        cause.unwrap_or("no cause is known").to_owned()
    } else {
        missed.join("; ")
    };
    Failure::text(format!("drill `{id}` did not meet its objectives: {why}"))
        .help("`understudy status` shows what serves; `understudy failback` brings the active region home")
}

/// What a person reads of a drill.
pub fn describe(ran: &Ran) -> String {
    let Some(met) = ran.met else {
        return table(&[("drill", format!("runs: {}", ran.execution))]);
    };
    let number = |value: Option<u64>| value.map_or("unknown".to_owned(), |value| value.to_string());
    table(&[
        ("drill", ran.id.clone().unwrap_or_default()),
        ("objectives", if met { "met" } else { "missed" }.to_owned()),
        (
            "acknowledged",
            format!("{} payments, none lost, none twice", number(ran.acknowledged)),
        ),
        (
            "longest gap",
            format!("{} ms without an acknowledgement", number(ran.longest_gap_ms)),
        ),
    ])
}

/// When drills run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Plan {
    /// The expression of EventBridge Scheduler, in UTC.
    pub schedule: Option<String>,
    /// What is exercised.
    pub kind: String,
    /// The next run, milliseconds since the Unix epoch; none where the expression alone does not say.
    pub next_ms: Option<u64>,
    /// The last drill that met its objectives, as the table holds it.
    pub last: Option<Rehearsed>,
}

impl Plan {
    /// The plan of a configuration, as it is at `now_ms` (milliseconds since the Unix epoch).
    pub fn of(spec: &Spec, last: Option<Rehearsed>, now_ms: u64) -> Plan {
        let schedule = spec.drill.schedule.clone();
        Plan {
            next_ms: schedule
                .as_deref()
                .and_then(|text| expression::next(text, now_ms)),
            schedule,
            kind: spec.drill.kind.clone(),
            last,
        }
    }
}

/// When drills of a stack run.
///
/// # Errors
/// The control table does not answer.
pub async fn schedule(stack: &Stack) -> Result<Plan, Failure> {
    let record = record(stack).await?;
    let last = stack
        .control(&record.active_region)
        .document(REHEARSED_ITEM)
        .await?;
    let last = last.and_then(|json| serde_json::from_str(&json).ok());
    Ok(Plan::of(&stack.spec, last, now_ms()))
}

/// What a person reads of the plan.
pub fn describe_schedule(plan: &Plan) -> String {
    let next = match (&plan.schedule, plan.next_ms) {
        (_, Some(at_ms)) => moment(at_ms),
        (Some(_), None) => "only EventBridge Scheduler knows it for this expression".to_owned(),
        (None, _) => "never: `drill.schedule` is not set".to_owned(),
    };
    let last = plan.last.as_ref().map_or("none yet".to_owned(), |last| {
        format!("{}, {}", last.id, moment(last.at_ms))
    });
    table(&[
        (
            "schedule",
            plan.schedule.clone().unwrap_or_else(|| "none".to_owned()),
        ),
        ("exercise", plan.kind.clone()),
        ("next run", next),
        ("last met", last),
    ])
}

/// A time as a person reads it, in UTC.
pub(crate) fn moment(at_ms: u64) -> String {
    let (year, month, day) = civil(at_ms / 86_400_000);
    let minutes = at_ms / 60_000 % 1440;
    format!(
        "{year:04}-{month:02}-{day:02} {:02}:{:02} UTC",
        minutes / 60,
        minutes % 60
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ran() -> Ran {
        Ran {
            execution: "arn".into(),
            id: None,
            met: None,
            longest_gap_ms: None,
            acknowledged: None,
        }
    }

    #[test]
    fn a_drill_that_did_not_begin_is_a_failure_with_its_reasons() {
        let output =
            json!({"drill_begin": {"outcome": "not-now", "reasons": ["the stack is in maintenance", "x"]}});
        let error = ended(ran(), &output).expect_err("there was none");
        assert!(
            error.message().contains("the stack is in maintenance; x"),
            "{error}"
        );
        let output = json!({"drill_end": {"id": "drill-dev-1", "met": true, "longest_gap_ms": 812, "acknowledged": 90}});
        let text = describe(&ended(ran(), &output).expect("it ended"));
        assert!(
            text.contains("812 ms") && text.contains("90 payments") && text.contains("met"),
            "{text}"
        );
    }

    #[test]
    fn a_plan_says_when_the_next_drill_is_or_why_nobody_knows() {
        let plan = |schedule: Option<&str>, next_ms| Plan {
            schedule: schedule.map(str::to_owned),
            kind: "switchover".into(),
            next_ms,
            last: None,
        };
        for (plan, expected) in [
            (
                plan(Some("cron(0 6 ? * TUE *)"), Some(1_796_104_800_000)),
                "2026-12-01 06:00 UTC",
            ),
            (
                plan(Some("rate(7 days)"), None),
                "only EventBridge Scheduler knows",
            ),
            (plan(None, None), "never"),
        ] {
            let text = describe_schedule(&plan);
            assert!(text.contains(expected), "{text}");
        }
    }
}
