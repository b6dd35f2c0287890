//! switchover: evaluate, drain, await-standby, switch-database, undrain. They run in the region that is to serve, and reach into
//! the one that serves: a planned change needs both.

use continuity::names::exercise_id;
use continuity::takeover;
use serde_json::{Value, json};

use super::swap::transit;
use crate::context::Context;
use crate::decide::{self, Change, Promotion, SwitchoverSigns};
use crate::effects::processor::{self, LedgerSummary};
use crate::error::StepError;
use crate::event::Request;
use crate::limits::{DRAIN_LIMIT, EVALUATE_ATTEMPTS, WATCH_INTERVAL};

/// Whether the planned change may go on: both ledgers, the database's control plane, the control record. Changes nothing.
pub async fn evaluate(context: &Context, request: &Request) -> Result<Value, StepError> {
    let input = request.takeover(context.region())?;
    let (record, topology, here, there) = futures::join!(
        context.record(),
        context.aurora.topology(),
        processor::ledger_status(context.processor.as_ref()),
        active_ledger(context),
    );
    let record = record?;
    let signs = SwitchoverSigns {
        record: &record,
        topology: &topology?,
        here: &here?.status,
        // A region that does not answer is a reason, not an error: the change is not begun, or given up.
        there: there
            .map(|summary| summary.status)
            .map_err(|error| error.to_string()),
        region: context.region(),
    };
    let change = decide::may_switch_over(&signs, &input, exercise_id(&request.execution));
    let (verdict, reasons) = match change {
        Change::Go => ("go", Vec::new()),
        Change::Hold(reasons) => {
            tracing::warn!(?reasons, "held");
            ("hold", reasons)
        }
    };
    Ok(json!({
        "verdict": verdict,
        "reasons": reasons,
        "draining": decide::is_draining(&record, &input),
        "or_ungraceful": input.or_ungraceful,
    }))
}

/// The ledger of the region that serves, asked again when it does not answer: one lost call is no reason to hold.
async fn active_ledger(context: &Context) -> Result<LedgerSummary, StepError> {
    for _ in 1..EVALUATE_ATTEMPTS {
        if let Ok(summary) = processor::ledger_status(context.peer.processor.as_ref()).await {
            return Ok(summary);
        }
        context.timer.sleep(WATCH_INTERVAL).await;
    }
    processor::ledger_status(context.peer.processor.as_ref()).await
}

/// Phase draining: the active region acknowledges nothing more, and answers 503 with Retry-After.
pub async fn drain(context: &Context, request: &Request) -> Result<Value, StepError> {
    let input = request.takeover(context.region())?;
    let id = exercise_id(&request.execution);
    let record = transit(context, |record| {
        if decide::has_risen(record, &input) {
            return Ok(takeover::Transition::AlreadyDone(record.clone()));
        }
        let now_ms = context.timer.now_ms();
        takeover::drain(record, input.epoch, &input.to_region, id, now_ms).map_err(StepError::from)
    })
    .await?;
    Ok(json!({"epoch": record.epoch, "drained_ms": record.since_ms}))
}

/// Waits a limited time until the ledger of this region has the newest entry that the other one had when this began;
/// `caught_up` is false when the time is over. What is still under way then, the database's own switchover takes along.
pub async fn await_standby(context: &Context, request: &Request) -> Result<Value, StepError> {
    request.takeover(context.region())?;
    let until_ms = context.watch_until(DRAIN_LIMIT, request.deadline_ms);
    let topology = context.aurora.topology().await?;
    if decide::promotion(&topology, context.region()) == Promotion::Done {
        return Ok(json!({"caught_up": true, "skipped": "this region is the writer already"}));
    }
    let wanted = processor::ledger_status(context.peer.processor.as_ref()).await?;
    loop {
        let here = processor::ledger_status(context.processor.as_ref()).await?;
        if decide::has_caught_up(&here, &wanted) {
            return Ok(json!({"caught_up": true, "last_seq": here.last_seq}));
        }
        if context.timer.now_ms() >= until_ms {
            let behind = wanted.last_seq.saturating_sub(here.last_seq);
            return Ok(json!({"caught_up": false, "entries_behind": behind}));
        }
        context.timer.sleep(WATCH_INTERVAL).await;
    }
}

/// Switches the database over without loss, unless it is. The call goes to the region that is the writer until then:
/// <https://docs.aws.amazon.com/AmazonRDS/latest/AuroraUserGuide/aurora-global-database-disaster-recovery.html>.
pub async fn switch_database(context: &Context, request: &Request) -> Result<Value, StepError> {
    let input = request.takeover(context.region())?;
    let topology = context.aurora.topology().await?;
    // Asked last, right before the call: RDS knows no epochs, and a switch that comes two takeovers late loses payments.
    let record = context.record().await?;
    if decide::has_risen(&record, &input) {
        return Ok(json!({"promotion": "the epoch has risen"}));
    }
    if !decide::is_draining(&record, &input) {
        return Err(StepError::Superseded(format!(
            "epoch {} of `{}` is {}, and only a draining one is switched over",
            record.epoch, record.active_region, record.phase
        )));
    }
    let did = match decide::promotion(&topology, context.region()) {
        Promotion::Done => "already the writer",
        Promotion::UnderWay => "under way",
        Promotion::Call(arn) => {
            context.peer.aurora.switchover(&arn).await?;
            "called"
        }
        Promotion::NotAMember => {
            return Err(StepError::DatabaseFailed {
                operation: "SwitchoverGlobalCluster",
                subject: context.config.names.aurora_global(),
                source: format!("it has no cluster in `{}`", context.region()).into(),
            });
        }
    };
    Ok(json!({"promotion": did}))
}

/// Gives the change up, if that is possible: while the database of the active region is the writer, it goes on serving.
/// `undone` is false when the database has switched: then only forward is safe.
pub async fn undrain(context: &Context, request: &Request) -> Result<Value, StepError> {
    let input = request.takeover(context.region())?;
    let record = context.record().await?;
    if decide::has_risen(&record, &input) {
        return Ok(json!({"undone": false, "why": "the epoch has risen"}));
    }
    if decide::is_draining(&record, &input) {
        let topology = context.aurora.topology().await?;
        match decide::promotion(&topology, context.region()) {
            Promotion::Done => {
                return Ok(json!({"undone": false, "why": "this region's database is the writer"}));
            }
            Promotion::UnderWay => {
                return Ok(json!({"undone": false, "why": "the database is being switched over"}));
            }
            Promotion::Call(_) | Promotion::NotAMember => {}
        }
    }
    let record = transit(context, |record| {
        let now_ms = context.timer.now_ms();
        takeover::undrain(record, input.epoch, now_ms).map_err(StepError::from)
    })
    .await?;
    Ok(json!({"undone": true, "epoch": record.epoch, "active_region": record.active_region}))
}
