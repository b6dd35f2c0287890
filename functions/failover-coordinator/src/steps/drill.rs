//! drill: drill-begin, synthetic-traffic, exercise, isolation, check-payments, drill-end; readiness: resume-drill. They run in the
//! region that stood by when the drill began, reach into the other one and the witness, and move nothing themselves: the workflows
//! switchover and failover do. What they decide is in [`crate::drill`].

use std::collections::BTreeMap;

use continuity::assess::Decider;
use continuity::control::{ApiKey, ControlRecord, Swap};
use continuity::metrics::{self, Unit};
use continuity::names::Slot;
use continuity::synthetic::{Payment, Slice};
use continuity::takeover::fit_to_take_over;
use infra::blueprint::observability::{DRILL_FAILED, STACK_DIMENSION};
use infra::change::{self, Change, Kind};
use infra::exercise::{self, DrillKind, Evidence};
use infra::resources::state_machine;
use rand::RngExt;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::change::configuration;
use super::isolation::{self, Reached};
use super::waiting::account;
use super::{drill_evidence, evidence, readiness, starting};
use crate::context::Context;
use crate::drill::{self, Asked, Begin, Drill, Next, Recent, Sight, Stage};
use crate::effects::processor::ledger_status;
use crate::error::StepError;
use crate::event::{Mode, Request, Step, TakeoverInput};
use crate::limits::{INSPECTION_LIMIT, READINESS_ATTEMPTS, SWAP_ATTEMPTS, WATCH_INTERVAL, WATCH_LIMIT};

/// What is known of a drill's payments while they flow: the item `traffic#{id}`. Each slice is an item of its own beside it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Totals {
    /// Slices made.
    slices: u32,
    /// Payer and payee.
    accounts: Option<[String; 2]>,
    /// The newest slice.
    recent: Recent,
    /// The SHA-256 (hex) of the API key in use, so that a key whose step was killed is removed by the next.
    key_sha256: Option<String>,
}

fn totals_item(id: &str) -> String {
    format!("traffic#{id}")
}

fn slice_item(id: &str, slice: u32) -> String {
    format!("traffic#{id}#{slice}")
}

fn malformed(error: impl std::fmt::Display) -> StepError {
    StepError::MalformedInput(error.to_string())
}

fn text<T: Serialize>(value: &T) -> Result<String, StepError> {
    serde_json::to_string(value).map_err(malformed)
}

/// Claims the drill, or says why there is none now. Run again by the same execution it says the same. A drill of this region whose
/// execution died is gone on with, whatever was asked for.
pub async fn begin(context: &Context, request: &Request) -> Result<Value, StepError> {
    if request.execution_arn.is_empty() {
        return Err(malformed("the execution has no ARN"));
    }
    let asked = match &request.input {
        Value::Null => Asked::default(),
        input => Asked::deserialize(input).map_err(malformed)?,
    };
    let (record, documents) = context.control.read_with(&[drill::ITEM, change::ITEM]).await?;
    let [stored, change] =
        <[_; 2]>::try_from(documents).map_err(|_| malformed("the control table answered something else"))?;
    let current: Option<Drill> = stored.as_deref().and_then(|json| serde_json::from_str(json).ok());
    if let Some(mine) = current
        .as_ref()
        .filter(|current| current.execution == request.execution_arn)
    {
        return Ok(begun(mine));
    }
    let change: Option<Change> = change.as_deref().and_then(|json| serde_json::from_str(json).ok());
    let spec = configuration(context).await?.spec;
    let settings = &spec.drill;
    let word = asked.kind.unwrap_or_else(|| settings.kind.clone());
    let kind = DrillKind::parse(&word).ok_or_else(|| {
        let known = DrillKind::ALL.map(DrillKind::as_str).join(", ");
        malformed(format!("`{word}` is no kind of drill: use {known}"))
    })?;
    let now_ms = context.timer.now_ms();
    let window = settings
        .blocked_windows
        .iter()
        .find(|window| window.contains(now_ms));
    // Who starts one by hand knows the time.
    let blocked = window
        .filter(|_| asked.started_by.as_deref() == Some("schedule"))
        .map(ToString::to_string);
    let running = running_change(context, change, now_ms).await;
    let other = match current.filter(|current| current.ended_ms.is_none()) {
        Some(other) if runs(context, &other).await => Some(other.id),
        Some(dead) if dead.target == context.region() => {
            let mine = Drill {
                execution: request.execution_arn.clone(),
                ..dead
            };
            tracing::warn!(
                drill = mine.id,
                "the drill's execution died: this one goes on with it"
            );
            return claimed(context, stored.as_deref(), &mine).await;
        }
        // It may have left the stack here, and only its own region brings it home.
        Some(dead) => {
            let reason = format!(
                "`{}` died and has not ended: the next evaluation of readiness in {} goes on with it",
                dead.id, dead.target
            );
            return Ok(json!({"outcome": "not-now", "reasons": [reason]}));
        }
        None => None,
    };
    let signs = drill::Signs {
        record: record.as_ref(),
        regions: &context.config.regions,
        me: context.region(),
        change: running.as_deref(),
        drill: other.as_deref(),
        blocked: blocked.as_deref(),
    };
    let (home, epoch) = match drill::may_begin(&signs) {
        Begin::Now { home, epoch } => (home, epoch),
        Begin::NotHere => return Ok(json!({"outcome": "not-here"})),
        Begin::NotNow(reasons) => {
            tracing::warn!(?reasons, "no drill now");
            return Ok(json!({"outcome": "not-now", "reasons": reasons}));
        }
    };
    let unready = unready(context).await?;
    let (stage, aborted) = match unready {
        None => (Stage::Baseline, None),
        // That is what it was to find out.
        Some(reasons) if kind == DrillKind::Readiness => (Stage::Over, Some(reasons.join("; "))),
        Some(reasons) => {
            tracing::warn!(?reasons, "no drill now");
            return Ok(json!({"outcome": "not-now", "reasons": reasons}));
        }
    };
    let hold_s = asked
        .hold_seconds
        .unwrap_or(settings.hold_seconds)
        .min(drill::LONGEST_HOLD_S);
    let mine = Drill {
        id: drill::id(context.config.names.suffix(), now_ms),
        kind,
        execution: request.execution_arn.clone(),
        started_by: asked.started_by.unwrap_or_else(|| "operator".to_owned()),
        home,
        target: context.region().to_owned(),
        epoch,
        hold_ms: match kind {
            DrillKind::Readiness => 0,
            DrillKind::Switchover | DrillKind::Isolation => hold_s * 1000,
        },
        per_second: settings.payments_per_second,
        longest_gap_ms: match kind {
            // What is promised of an unplanned change.
            DrillKind::Isolation => spec.objectives.rto_seconds * 1000,
            DrillKind::Readiness | DrillKind::Switchover => settings.longest_gap_ms,
        },
        began_ms: now_ms,
        stage,
        stage_ms: now_ms,
        marks: vec![drill::Mark { stage, at_ms: now_ms }],
        change: None,
        observers_decide: spec.failover.decider == Decider::Automatic,
        isolated_ms: None,
        restored_ms: None,
        attempts_back: 0,
        aborted,
        ended_ms: None,
    };
    claimed(context, stored.as_deref(), &mine).await
}

/// Whether the execution of a drill runs.
async fn runs(context: &Context, drill: &Drill) -> bool {
    let ended = context
        .executions
        .ended(&drill.execution, region_of(&drill.execution));
    !ended.await
}

/// Stores the drill as this execution's.
async fn claimed(context: &Context, stored: Option<&str>, mine: &Drill) -> Result<Value, StepError> {
    match context
        .control
        .swap_document(drill::ITEM, stored, &text(mine)?)
        .await?
    {
        Swap::Done => Ok(begun(mine)),
        // Whoever was faster is seen by the next attempt.
        Swap::Lost => Err(StepError::ControlContended(1)),
    }
}

/// What stands in the way of a change, by an evaluation made now. It is made again when it fails: one lost call is no reason.
async fn unready(context: &Context) -> Result<Option<Vec<String>>, StepError> {
    let mut failed = Vec::new();
    for _ in 0..READINESS_ATTEMPTS {
        let answer = readiness::evaluate(context).await?;
        if answer["ready"] == true {
            return Ok(None);
        }
        failed = answer["failed"].as_array().cloned().unwrap_or_default();
    }
    let reasons = failed.iter().filter_map(Value::as_str);
    Ok(Some(
        reasons.map(|reason| format!("not ready: {reason}")).collect(),
    ))
}

fn begun(drill: &Drill) -> Value {
    json!({"outcome": "begun", "id": drill.id, "kind": drill.kind, "home": drill.home, "target": drill.target})
}

fn region_of(arn: &str) -> &str {
    arn.split(':').nth(3).unwrap_or_default()
}

/// The deployment or teardown that is under way.
async fn running_change(context: &Context, change: Option<Change>, now_ms: u64) -> Option<String> {
    let change = change.filter(|change| change.kind != Kind::Reconcile)?;
    let lease_ms = u64::try_from(change::LEASE.as_millis()).unwrap_or(u64::MAX);
    if now_ms.saturating_sub(change.seen_ms) > lease_ms {
        return None;
    }
    let ended = context.executions.ended(&change.execution, change.region()).await;
    (!ended).then(|| change.name().to_owned())
}

/// The drill of this execution, as it is stored.
async fn mine(context: &Context, request: &Request) -> Result<(String, Drill), StepError> {
    let json = context.control.document(drill::ITEM).await?.unwrap_or_default();
    let drill: Option<Drill> = serde_json::from_str(&json).ok();
    match drill {
        Some(drill) if drill.execution == request.execution_arn => Ok((json, drill)),
        Some(other) => Err(StepError::Superseded(format!("`{}` is the drill now", other.id))),
        None => Err(StepError::Superseded("there is no drill any more".to_owned())),
    }
}

async fn totals(context: &Context, id: &str) -> Result<Totals, StepError> {
    let json = context.control.document(&totals_item(id)).await?;
    Ok(json
        .as_deref()
        .and_then(|json| serde_json::from_str(json).ok())
        .unwrap_or_default())
}

/// One slice of payments, paid by the witness's probe with a key of its own. `over` says that it was the last: the exercise is over
/// and payments flow, or did not come back in time.
pub async fn synthetic_traffic(context: &Context, request: &Request) -> Result<Value, StepError> {
    let (_, drill) = mine(context, request).await?;
    let mut totals = totals(context, &drill.id).await?;
    let slice = totals.slices;
    let host = configuration(context).await?.spec.public_name();
    let payload = json!({
        "task": "synthetic-payments",
        "drill": drill.id,
        "host": host,
        "per_second": drill.per_second,
        "until_ms": context.timer.now_ms() + drill::SLICE_MS,
        "slice": slice,
        "accounts": totals.accounts,
    });
    let answer = with_key(context, &drill.id, &mut totals, payload).await?;
    let seen = Slice::deserialize(&answer).map_err(malformed)?;
    context
        .control
        .put_document(&slice_item(&drill.id, slice), &text(&answer)?)
        .await?;
    totals.slices = slice + 1;
    totals.accounts = seen.accounts.clone().or(totals.accounts);
    totals.recent = drill::recent(&seen);
    context
        .control
        .put_document(&totals_item(&drill.id), &text(&totals)?)
        .await?;
    let (_, drill) = mine(context, request).await?;
    let after = if drill.stage == Stage::Over {
        request
            .result_of(Step::SyntheticTraffic)
            .and_then(|before| before["after"].as_u64())
            .unwrap_or(0)
            + 1
    } else {
        0
    };
    let over = after > 0 && (totals.recent.flowing || after >= u64::from(drill::SLICES_AFTER));
    Ok(json!({
        "slice": slice, "sent": totals.recent.sent, "acknowledged": totals.recent.acknowledged, "after": after, "over": over,
    }))
}

/// Asks the witness's probe with a key that exists for this call only. Its hash is stored first: if this is killed, the next one
/// removes the key.
async fn with_key(
    context: &Context,
    id: &str,
    totals: &mut Totals,
    mut payload: Value,
) -> Result<Value, StepError> {
    if let Some(left) = totals.key_sha256.take() {
        context.control.remove_api_key(&left).await?;
    }
    let bytes: [u8; 32] = rand::rng().random();
    let key = format!("usk_{}", hex::encode(bytes));
    let sha256 = hex::encode(Sha256::digest(key.as_bytes()));
    totals.key_sha256 = Some(sha256.clone());
    context
        .control
        .put_document(&totals_item(id), &text(totals)?)
        .await?;
    let stored = ApiKey {
        name: id.to_owned(),
        scopes: vec!["payments:read".to_owned(), "payments:write".to_owned()],
        requests_per_s: KEY_REQUESTS_PER_S,
        revoked: false,
    };
    context
        .control
        .put_api_key(&sha256, &stored, context.timer.now_ms())
        .await?;
    if let Some(fields) = payload.as_object_mut() {
        fields.insert("key".to_owned(), Value::String(key));
    }
    let answer = context.probes.ask(Slot::Witness, &payload).await;
    context.control.remove_api_key(&sha256).await?;
    totals.key_sha256 = None;
    answer
}

/// Far above what synthetic payments and their retries need: the rate of a key must not be what they measure.
const KEY_REQUESTS_PER_S: u32 = 1_000;

/// Looks where the drill is, and makes its next move. `over` says that the stack is left alone from now on.
pub async fn exercise(context: &Context, request: &Request) -> Result<Value, StepError> {
    for _ in 0..SWAP_ATTEMPTS {
        let (stored, drill) = mine(context, request).await?;
        let record = context.record().await?;
        let recent = totals(context, &drill.id).await?;
        let ended = match &drill.change {
            Some(arn) => context.executions.ended(arn, region_of(arn)).await,
            None => false,
        };
        let sight = Sight {
            record: &record,
            change_ended: ended,
            recent: (recent.slices > 0).then_some(&recent.recent),
            home_is_fit: home_is_fit(context, &drill, &record).await,
        };
        let next = drill::next(&drill, &sight, context.timer.now_ms());
        let then = match next {
            Next::Wait => return Ok(told(&drill)),
            Next::Go(then) => then,
            Next::Start {
                to_region,
                mode,
                mut then,
            } => {
                let arn = start(context, request, &drill, record.epoch, &to_region, mode).await?;
                then.change = Some(arn);
                then
            }
        };
        if context
            .control
            .swap_document(drill::ITEM, Some(&stored), &text(&then)?)
            .await?
            == Swap::Done
        {
            tracing::info!(drill = then.id, stage = ?then.stage, aborted = then.aborted, "the drill goes on");
            return Ok(told(&then));
        }
    }
    Err(StepError::ControlContended(SWAP_ATTEMPTS))
}

/// Whether the drill's home could take over now, by a real call: asked only when the drill waits for that, and not while the region is
/// cut off.
async fn home_is_fit(context: &Context, drill: &Drill, record: &ControlRecord) -> bool {
    if drill.stage != Stage::Rejoin || drill.restored_ms.is_none() {
        return false;
    }
    let asked = ledger_status(context.peer.processor.as_ref());
    match tokio::time::timeout(INSPECTION_LIMIT, asked).await {
        Ok(Ok(summary)) => summary.status.in_recovery && fit_to_take_over(record, &summary.status).is_ok(),
        Ok(Err(_)) | Err(_) => false,
    }
}

/// Keeps the drill's home cut off for as long as the drill wants it, and puts everything back afterwards. `over` says that all is put
/// back, or never was cut off. Run again it goes on where it was: what is wanted follows from the drill's stage alone.
pub async fn isolation(context: &Context, request: &Request) -> Result<Value, StepError> {
    let (_, drill) = mine(context, request).await?;
    if drill.kind != DrillKind::Isolation {
        return Ok(json!({"over": true, "isolated": false}));
    }
    let at = isolation::other(context)?;
    let until_ms = context.watch_until(WATCH_LIMIT, request.deadline_ms);
    match drill.stage {
        Stage::Baseline => Ok(json!({"over": false, "isolated": false})),
        Stage::There | Stage::Hold => {
            let isolated = match isolation::isolate(context, &at, &drill.id, until_ms).await {
                Ok(Reached::All) => true,
                Ok(Reached::NotYet(why)) => {
                    tracing::info!(why, "the region is not cut off yet");
                    false
                }
                Err(StepError::IsolationFailed(why)) => {
                    note(context, request, |drill, _| drill.aborted(why.as_str())).await?;
                    return Ok(json!({"over": false, "isolated": false, "reason": why}));
                }
                Err(error) => return Err(error),
            };
            if isolated {
                note(context, request, |mut drill, now_ms| {
                    drill.isolated_ms.get_or_insert(now_ms);
                    drill
                })
                .await?;
            }
            Ok(json!({"over": false, "isolated": isolated}))
        }
        Stage::Rejoin | Stage::Back | Stage::Over => {
            match isolation::end(context, &at, &drill.id, until_ms).await? {
                Reached::NotYet(why) => Ok(json!({"over": false, "isolated": true, "reason": why})),
                Reached::All => {
                    note(context, request, |mut drill, now_ms| {
                        drill.restored_ms.get_or_insert(now_ms);
                        drill
                    })
                    .await?;
                    Ok(json!({"over": true, "isolated": false}))
                }
            }
        }
    }
}

/// Stores what was found out beside the drill's own moves.
async fn note(
    context: &Context,
    request: &Request,
    change: impl Fn(Drill, u64) -> Drill,
) -> Result<(), StepError> {
    for _ in 0..SWAP_ATTEMPTS {
        let (stored, drill) = mine(context, request).await?;
        let then = change(drill.clone(), context.timer.now_ms());
        if then == drill {
            return Ok(());
        }
        let json = text(&then)?;
        let swap = context.control.swap_document(drill::ITEM, Some(&stored), &json);
        if swap.await? == Swap::Done {
            return Ok(());
        }
    }
    Err(StepError::ControlContended(SWAP_ATTEMPTS))
}

/// Starts the workflow again whose execution died in the middle of a drill of this region: without it the stack would stay where the
/// drill has brought it.
pub async fn resume(context: &Context, request: &Request) -> Result<Value, StepError> {
    let stored = context.control.document(drill::ITEM).await?;
    let unfinished = stored
        .and_then(|json| serde_json::from_str::<Drill>(&json).ok())
        .filter(|drill| drill.ended_ms.is_none() && drill.target == context.region());
    let Some(drill) = unfinished else {
        return Ok(json!({"resumed": null}));
    };
    if runs(context, &drill).await {
        return Ok(json!({"resumed": null}));
    }
    let machine = state_machine::arn(
        context.region(),
        account(&request.execution_arn),
        &context.config.names.state_machine("drill", context.config.slot),
    );
    let input = json!({"kind": drill.kind, "started_by": drill.started_by});
    let name = starting::next(context, &machine, &drill.id, &input.to_string()).await?;
    tracing::warn!(
        drill = drill.id,
        name,
        "the drill's execution died: another one goes on with it"
    );
    Ok(json!({"resumed": name}))
}

fn told(drill: &Drill) -> Value {
    json!({"stage": drill.stage, "over": drill.stage == Stage::Over, "aborted": drill.aborted})
}

/// Starts the change of `epoch` in the region that is to serve, under the next name that no ended execution has. A failover is started
/// as a person would: quorum and policy are not asked.
async fn start(
    context: &Context,
    request: &Request,
    drill: &Drill,
    epoch: u64,
    to_region: &str,
    mode: Mode,
) -> Result<String, StepError> {
    let names = &context.config.names;
    let slot = context
        .config
        .regions
        .slot_of(to_region)
        .ok_or_else(|| malformed(format!("`{to_region}` is no region of the stack")))?;
    let (workflow, base) = match mode {
        Mode::Graceful => ("switchover", names.switchover_execution(epoch + 1)),
        Mode::Ungraceful => ("failover", names.failover_execution(epoch + 1)),
    };
    let machine = state_machine::arn(
        to_region,
        account(&request.execution_arn),
        &names.state_machine(workflow, slot),
    );
    let input = TakeoverInput {
        epoch,
        to_region: to_region.to_owned(),
        started_by: drill.id.clone(),
        reasons: vec![format!("drill `{}`", drill.id)],
        decided_ms: Some(context.timer.now_ms()),
        mode,
        by_person: mode == Mode::Ungraceful,
        or_ungraceful: false,
    };
    let name = starting::next(context, &machine, &base, &text(&input)?).await?;
    let executions = machine.replacen(":stateMachine:", ":execution:", 1);
    Ok(format!("{executions}:{name}"))
}

async fn slices(context: &Context, id: &str, count: u32) -> Result<Vec<Slice>, StepError> {
    let mut slices = Vec::new();
    for slice in 0..count {
        let json = context.control.document(&slice_item(id, slice)).await?;
        slices.extend(
            json.as_deref()
                .and_then(|json| serde_json::from_str::<Slice>(json).ok()),
        );
    }
    Ok(slices)
}

/// Looks every acknowledged payment up where the stack serves now.
pub async fn check_payments(context: &Context, request: &Request) -> Result<Value, StepError> {
    let (_, drill) = mine(context, request).await?;
    let mut totals = totals(context, &drill.id).await?;
    let Some([payer, _]) = totals.accounts.clone() else {
        return Err(StepError::NotServing(
            "nobody opened the accounts of the synthetic payments".to_owned(),
        ));
    };
    let seen = slices(context, &drill.id, totals.slices).await?;
    let acknowledged: BTreeMap<&String, &String> = seen
        .iter()
        .flat_map(|slice| &slice.payments)
        .filter_map(|payment| {
            payment
                .answered_ms
                .and(payment.id.as_ref())
                .map(|id| (&payment.key, id))
        })
        .collect();
    let payload = json!({
        "task": "check-payments",
        "host": configuration(context).await?.spec.public_name(),
        "payer": payer,
        // The clocks of the observer and of the ledger differ.
        "from_ms": drill.began_ms.saturating_sub(CLOCK_SKEW_MS),
        "acknowledged": acknowledged,
        "prefix": format!("synthetic-{}-", drill.id),
    });
    let answer = with_key(context, &drill.id, &mut totals, payload).await?;
    context
        .control
        .put_document(&totals_item(&drill.id), &text(&totals)?)
        .await?;
    Ok(answer)
}

const CLOCK_SKEW_MS: u64 = 60_000;

/// Stores what the drill showed, gives the claim back, and raises the alarm when an objective was missed.
pub async fn end(context: &Context, request: &Request) -> Result<Value, StepError> {
    let (stored, drill) = mine(context, request).await?;
    let mut totals = totals(context, &drill.id).await?;
    if let Some(left) = totals.key_sha256.take() {
        context.control.remove_api_key(&left).await?;
        context
            .control
            .put_document(&totals_item(&drill.id), &text(&totals)?)
            .await?;
    }
    let seen = slices(context, &drill.id, totals.slices).await?;
    let gap = drill::longest_gap(&seen);
    let checked = request.result_of(Step::CheckPayments);
    let acknowledged = count(&seen, |payment| payment.answered_ms.is_some());
    let missed = drill::missed(&drill, &gap, acknowledged, checked);
    let now_ms = context.timer.now_ms();
    // The evidence of a drill that did not come to its end says so; it is gone on with, and tells more then.
    let over = drill.stage == Stage::Over;
    let ended = Drill {
        ended_ms: drill.ended_ms.or(Some(now_ms)),
        ..drill.clone()
    };
    let account = account(&request.execution_arn);
    let changes_until_ms = context.watch_until(WATCH_LIMIT, request.deadline_ms);
    let observers = Slot::ALL.map(|slot| context.config.regions.of(slot));
    let readiness_item = format!("readiness#{}", context.region());
    let (stored_configuration, observations, report, changes) = futures::join!(
        configuration(context),
        context.control.observations(&observers),
        context.control.document(&readiness_item),
        changes(context, &drill, changes_until_ms),
    );
    let evidence = drill_evidence::evidence(
        context,
        &drill_evidence::Facts {
            drill: &ended,
            slices: &seen,
            gap,
            checked,
            missed: &missed,
            stored: stored_configuration.ok(),
            observations: &observations?,
            readiness: report?.and_then(|json| serde_json::from_str(&json).ok()),
            changes: &changes?,
            account,
        },
    );
    let item = evidence::keep(context, account, &evidence).await?;
    // Readiness alone rehearses no change.
    if missed.is_empty() && drill.kind != DrillKind::Readiness {
        evidence::rehearsed(context, &evidence).await?;
    }
    if drill.ended_ms.is_none() {
        let suffix = context.config.names.suffix();
        let failed = u64::from(!missed.is_empty());
        metrics::emit(
            &[(STACK_DIMENSION, suffix)],
            &[(DRILL_FAILED, Unit::Count, failed)],
            now_ms,
        );
        if over {
            // Lost only when this step ran elsewhere at the same time: that one stored the same.
            context
                .control
                .swap_document(drill::ITEM, Some(&stored), &text(&ended)?)
                .await?;
        }
    }
    Ok(
        json!({"id": drill.id, "met": missed.is_empty(), "missed": missed, "item": item,
        "longest_gap_ms": gap.ms(), "acknowledged": acknowledged}),
    )
}

/// The evidence of the changes that the drill made: there, and every attempt back.
///
/// A change records its evidence some seconds after it opened, so this waits for it a limited time.
async fn changes(context: &Context, drill: &Drill, until_ms: u64) -> Result<Vec<Evidence>, StepError> {
    let last = context.record().await?.epoch;
    let mut changes: Vec<Evidence> = Vec::new();
    for epoch in drill.epoch + 1..=last {
        let names = &context.config.names;
        let items = [names.switchover_execution(epoch), names.failover_execution(epoch)];
        loop {
            let mut evidence: Option<Evidence> = None;
            for item in items.each_ref().map(|id| exercise::item(id)) {
                let json = context.control.document(&item).await?;
                evidence = evidence.or(json.and_then(|json| serde_json::from_str(&json).ok()));
            }
            if let Some(evidence) = evidence {
                changes.push(evidence);
                break;
            }
            // Only the last one may be under way still.
            let runs = match drill.change.as_deref().filter(|_| epoch == last) {
                Some(arn) => !context.executions.ended(arn, region_of(arn)).await,
                None => false,
            };
            if !runs || context.timer.now_ms() >= until_ms {
                break;
            }
            context.timer.sleep(WATCH_INTERVAL).await;
        }
    }
    Ok(changes)
}

fn count(slices: &[Slice], which: impl Fn(&Payment) -> bool) -> u64 {
    slices
        .iter()
        .flat_map(|slice| &slice.payments)
        .filter(|payment| which(payment))
        .count() as u64
}
