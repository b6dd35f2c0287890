//! recovery: after a failover the old region comes back as standby. What only its ledger had is kept, compared with the ledger that
//! serves, and told. Runs in the region that took over, and calls into the other one.

use std::time::Duration;

use continuity::lost_tail::{Comparison, PAGE, Report};
use continuity::names::Slot;
use infra::resources::db_snapshot::Endpoint;
use infra::resources::state_machine;
use serde::Deserialize;
use serde_json::{Value, json};

use super::change::configuration;
use super::waiting::account;
use crate::context::Context;
use crate::decide::{self, OldRegion};
use crate::effects::executions::Started;
use crate::effects::processor;
use crate::effects::tail::Owner;
use crate::error::StepError;
use crate::event::{RecoveryInput, Request, Step};
use crate::limits::{DEADLINE_MARGIN, RECOVERY_LIMIT, RECOVERY_SOON, SNAPSHOT_LIMIT, TAIL_LIMIT};

/// Starts the recovery of this failover. Its name is the epoch's, so a failover that ran in several attempts starts one.
pub async fn start(context: &Context, request: &Request) -> Result<Value, StepError> {
    let input = request.takeover(context.region())?;
    let (config, names) = (&context.config, &context.config.names);
    let recovery = RecoveryInput {
        epoch: input.epoch + 1,
        from_region: config
            .regions
            .peer_of(context.region())
            .unwrap_or_default()
            .to_owned(),
        to_region: input.to_region,
        decided_ms: input.decided_ms,
    };
    let json = text(&recovery)?;
    let machine = state_machine::arn(
        context.region(),
        account(&request.execution_arn),
        &names.state_machine("recovery", config.slot),
    );
    let name = names.recovery_execution(recovery.epoch);
    let started = context.executions.start(&machine, &name, &json).await?;
    Ok(json!({"execution": name, "new": started == Started::Created}))
}

/// Looks once whether the old region is back, and whether it has a snapshot of what it held at this takeover.
pub async fn find(context: &Context, request: &Request) -> Result<Value, StepError> {
    let input = recovery(context, request)?;
    let name = kept_name(context, &input);
    let now_ms = context.timer.now_ms();
    let before = request.result_of(Step::FindTail);
    let since = |key: &str| before.and_then(|before| before[key].as_u64());
    let began_ms = since("first_ms").unwrap_or(now_ms);
    let waited = now_ms.saturating_sub(began_ms);
    let next = if waited < millis(RECOVERY_SOON) {
        "soon"
    } else {
        "later"
    };

    if let Err(reason) = standby(context, &input).await? {
        if waited >= millis(RECOVERY_LIMIT) {
            return Err(StepError::RecoveryOverdue(format!(
                "`{}` is not back: {reason}",
                input.from_region
            )));
        }
        tracing::info!(reason, next, "the old region is not back yet");
        return Ok(json!({"next": next, "first_ms": began_ms, "reason": reason}));
    }
    if context.peer.tail.is_kept(&name).await? {
        return Ok(json!({"next": "keep", "snapshot": name}));
    }
    // An older snapshot is of an earlier takeover. Between the two this region did not serve, and the other one did.
    let ended = input.epoch.saturating_sub(1);
    let traffic = processor::traffic(context.processor.as_ref(), now_ms, now_ms, ended).await?;
    let from_ms = traffic.first_in_ms.or(input.decided_ms).unwrap_or_default();
    let mut snapshots = context.peer.tail.snapshots().await?;
    snapshots.retain(|snapshot| snapshot.created_ms >= from_ms);
    snapshots.sort_by_key(|snapshot| snapshot.created_ms);
    let back_ms = since("back_ms").unwrap_or(now_ms);
    match snapshots.first() {
        Some(snapshot) if snapshot.available => Ok(json!({"next": "keep", "snapshot": snapshot.name})),
        None if now_ms.saturating_sub(back_ms) >= millis(SNAPSHOT_LIMIT) => Ok(json!({"next": "none"})),
        _ => Ok(
            json!({"next": "soon", "first_ms": began_ms, "back_ms": back_ms, "reason": "Aurora has made no snapshot yet"}),
        ),
    }
}

/// Whether the old region stands by, or has served again since; why not.
async fn standby(context: &Context, input: &RecoveryInput) -> Result<Result<(), String>, StepError> {
    let record = context.record().await?;
    let topology = context.aurora.topology().await?;
    let ledger = match processor::ledger_status(context.peer.processor.as_ref()).await {
        Ok(ledger) => Ok(ledger.status),
        Err(error) => Err(continuity::error::chain(&error)),
    };
    Ok(decide::is_back(&OldRegion {
        epoch: input.epoch,
        region: &input.from_region,
        record: &record,
        topology: &topology,
        ledger,
    }))
}

/// Copies Aurora's snapshot to one that stays. `done` once it is complete.
pub async fn keep(context: &Context, request: &Request) -> Result<Value, StepError> {
    let input = recovery(context, request)?;
    let (name, since_ms) = (
        kept_name(context, &input),
        since(context, request, Step::KeepTail)?,
    );
    may_make(context).await?;
    let found = request.result_of(Step::FindTail);
    let source = found.and_then(|found| found["snapshot"].as_str());
    let source = source.ok_or_else(|| StepError::MalformedInput("no snapshot was found".to_owned()))?;
    let owner = owner(context, request).await?;
    let done = context.peer.tail.keep(&owner, source, &name).await?;
    Ok(json!({"done": done, "since_ms": since_ms, "snapshot": name}))
}

/// Restores the copy beside the old region's database. `done` once it answers, and where it does.
pub async fn open(context: &Context, request: &Request) -> Result<Value, StepError> {
    let input = recovery(context, request)?;
    let (name, since_ms) = (
        kept_name(context, &input),
        since(context, request, Step::OpenTail)?,
    );
    may_make(context).await?;
    let owner = owner(context, request).await?;
    let cluster = restored_name(context, &input);
    let endpoint = context.peer.tail.open(&owner, &name, &cluster).await?;
    Ok(json!({"done": endpoint.is_some(), "since_ms": since_ms, "endpoint": endpoint}))
}

/// Compares what was restored with the ledger of this region, and stores the report. Reads both ledgers only.
pub async fn compare(context: &Context, request: &Request) -> Result<Value, StepError> {
    let input = recovery(context, request)?;
    let opened = request.result_of(Step::OpenTail);
    let endpoint = opened.map(|opened| Endpoint::deserialize(&opened["endpoint"]));
    let Some(Ok(endpoint)) = endpoint else {
        return Err(StepError::MalformedInput("nothing was restored".to_owned()));
    };
    let until_ms = request.deadline_ms.saturating_sub(millis(DEADLINE_MARGIN));
    let mut comparison = Comparison::default();
    let mut before = None;
    let complete = loop {
        let theirs = context.peer.processor.as_ref();
        let page = processor::lost_tail(theirs, &endpoint.host, endpoint.port, before).await?;
        let Some(last) = page.last() else { break true };
        before = Some(last.id);
        let is_full = page.len() >= PAGE as usize;
        let keys = page.iter().map(|entry| entry.idempotency_key.clone()).collect();
        let held = processor::held_entries(context.processor.as_ref(), keys).await?;
        if !comparison.add(page, &held) || !is_full {
            break true;
        }
        if context.timer.now_ms() >= until_ms {
            break false;
        }
    };
    let report = Report {
        epoch: input.epoch,
        snapshot: Some(kept_name(context, &input)),
        from_region: input.from_region,
        to_region: input.to_region,
        compared_ms: context.timer.now_ms(),
        complete,
        comparison,
    };
    store(context, request, &report).await?;
    let totals = serde_json::to_value(&report.comparison.totals)
        .map_err(|error| StepError::MalformedInput(error.to_string()))?;
    Ok(json!({"totals": totals, "looked_at": report.comparison.looked_at, "complete": complete}))
}

/// Deletes what was restored. `done` once it is gone; the copy of the snapshot stays.
pub async fn close(context: &Context, request: &Request) -> Result<Value, StepError> {
    let input = recovery(context, request)?;
    let since_ms = since(context, request, Step::CloseTail)?;
    let cluster = restored_name(context, &input);
    let done = context.peer.tail.close(&cluster).await?;
    Ok(json!({"done": done, "since_ms": since_ms}))
}

/// Tells that the old region stands by again, and what its ledger alone had: in the evidence of the failover too, which was written
/// before anybody knew.
pub async fn report(context: &Context, request: &Request) -> Result<Value, StepError> {
    let input = recovery(context, request)?;
    let item = Report::item(input.epoch);
    let told = context.control.document(&item).await?;
    let told = told.and_then(|json| serde_json::from_str::<Report>(&json).ok());
    // An earlier execution compared what is kept no more.
    let is_told = told.is_some_and(|told| told.snapshot.is_some());
    if request.result_of(Step::CompareTail).is_none() && !is_told {
        let report = Report {
            epoch: input.epoch,
            from_region: input.from_region.clone(),
            to_region: input.to_region.clone(),
            snapshot: None,
            compared_ms: context.timer.now_ms(),
            complete: true,
            comparison: Comparison::default(),
        };
        store(context, request, &report).await?;
    }
    super::evidence::complete(context, account(&request.execution_arn), input.epoch).await?;
    let compared = request.result_of(Step::CompareTail);
    let totals = compared.map_or_else(|| json!({}), |compared| compared["totals"].clone());
    let detail = json!({"epoch": input.epoch, "region": input.from_region, "active_region": input.to_region,
        "lost_tail": totals, "report": item});
    context
        .events
        .send("Understudy Region Rebuilt", &detail.to_string())
        .await?;
    Ok(json!({"item": item}))
}

async fn store(context: &Context, request: &Request, report: &Report) -> Result<(), StepError> {
    let names = &context.config.names;
    let bucket = names.data_bucket(context.config.slot, account(&request.execution_arn));
    let key = infra::exercise::lost_tail_key(&names.failover_execution(report.epoch));
    let whole =
        serde_json::to_string_pretty(report).map_err(|error| StepError::MalformedInput(error.to_string()))?;
    context
        .archive
        .put(&bucket, &key, "application/json", whole)
        .await?;
    let item = text(&report.for_item())?;
    let id = Report::item(report.epoch);
    context.control.put_document(&id, &item).await?;
    Ok(())
}

fn recovery(context: &Context, request: &Request) -> Result<RecoveryInput, StepError> {
    let me = context.region();
    request.recovery(me, context.config.regions.peer_of(me))
}

fn kept_name(context: &Context, input: &RecoveryInput) -> String {
    let slot = context.config.regions.slot_of(&input.from_region);
    context
        .config
        .names
        .tail_snapshot(slot.unwrap_or(Slot::Primary), input.epoch)
}

fn restored_name(context: &Context, input: &RecoveryInput) -> String {
    let slot = context.config.regions.slot_of(&input.from_region);
    context
        .config
        .names
        .tail_cluster(slot.unwrap_or(Slot::Primary), input.epoch)
}

/// Since when this execution has been at a step that is called until it is done.
fn since(context: &Context, request: &Request, step: Step) -> Result<u64, StepError> {
    let now_ms = context.timer.now_ms();
    let first = request
        .result_of(step)
        .and_then(|result| result["since_ms"].as_u64());
    let since_ms = first.unwrap_or(now_ms);
    if now_ms.saturating_sub(since_ms) < millis(TAIL_LIMIT) {
        return Ok(since_ms);
    }
    Err(StepError::RecoveryOverdue(format!(
        "{} has not come to its end within {} minutes",
        step.as_str(),
        TAIL_LIMIT.as_secs() / 60
    )))
}

/// While the stack goes away nothing is made.
async fn may_make(context: &Context) -> Result<(), StepError> {
    let record = context.record().await?;
    if record.maintenance && record.repair_frozen {
        return Err(StepError::ChangeRunning("teardown".to_owned()));
    }
    Ok(())
}

async fn owner(context: &Context, request: &Request) -> Result<Owner, StepError> {
    Ok(Owner {
        account: account(&request.execution_arn).to_owned(),
        tags: configuration(context).await?.spec.tags.into_iter().collect(),
    })
}

fn text<T: serde::Serialize>(value: &T) -> Result<String, StepError> {
    serde_json::to_string(value).map_err(|error| StepError::MalformedInput(error.to_string()))
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
