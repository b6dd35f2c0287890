//! failover, up to the point of no return: assess, fence.

use continuity::names::{Slot, exercise_id};
use continuity::takeover;
use serde_json::{Value, json};

use super::deploy::policy;
use super::swap::transit;
use crate::context::Context;
use crate::decide::{self, Assessment, Promotion, Signs, assess_again, fenced_by, promotion};
use crate::effects::processor;
use crate::error::StepError;
use crate::event::{Request, Step};

/// Decides again, with fresh eyes: the control record, the observations and the ledger of this region. Changes nothing.
pub async fn assess(context: &Context, request: &Request) -> Result<Value, StepError> {
    let input = request.takeover(context.region())?;
    let record = context.record().await?;
    if fenced_by(&record, &input, exercise_id(&request.execution)) {
        return Ok(json!({"verdict": "failover", "reasons": ["this failover has raised the epoch already"]}));
    }
    let regions = &context.config.regions;
    let observers = Slot::ALL.map(|slot| regions.of(slot));
    let (observations, policy, ledger) = futures::join!(
        context.control.observations(&observers),
        policy(context),
        processor::ledger_status(context.processor.as_ref()),
    );
    let mut ledger = ledger?.status;
    if !ledger.in_recovery {
        // A database that takes writes, but which the control plane does not name the writer, is a writer no more.
        let topology = context.aurora.topology().await?;
        ledger.in_recovery = promotion(&topology, context.region()) != Promotion::Done;
    }
    let signs = Signs {
        record: &record,
        observations: &observations?,
        policy: &policy?,
        regions,
        ledger: &ledger,
        now_ms: context.timer.now_ms(),
    };
    let approved = decide::is_approved(request.result_of(Step::AskApproval));
    Ok(match assess_again(&signs, &input, approved) {
        Assessment::Go(reasons) => json!({"verdict": "failover", "reasons": reasons}),
        Assessment::Propose(reasons) => json!({"verdict": "propose", "reasons": reasons}),
        Assessment::Hold(reasons) => {
            tracing::warn!(?reasons, "held");
            json!({"verdict": "hold", "reasons": reasons})
        }
    })
}

/// Raises the epoch: from here on nothing of the old epoch is acknowledged, and there is no way back.
pub async fn fence(context: &Context, request: &Request) -> Result<Value, StepError> {
    let input = request.takeover(context.region())?;
    let id = exercise_id(&request.execution);
    let record = transit(context, |record| {
        let now_ms = context.timer.now_ms();
        takeover::fence(record, input.epoch, &input.to_region, id, now_ms).map_err(StepError::from)
    })
    .await?;
    Ok(json!({"epoch": record.epoch, "last_served_epoch": record.last_served_epoch}))
}
