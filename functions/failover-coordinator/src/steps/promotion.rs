//! failover: promote, await-writer. Both ask this region's control plane and this region's database only.

use continuity::control::Phase;
use serde_json::{Value, json};

use super::swap::still_ours;
use crate::context::Context;
use crate::decide::{self, Promotion};
use crate::effects::processor;
use crate::error::StepError;
use crate::event::Request;
use crate::limits::{WATCH_INTERVAL, WATCH_LIMIT};

/// Makes the cluster of this region the writer, unless it is, or is about to be.
pub async fn promote(context: &Context, request: &Request) -> Result<Value, StepError> {
    let input = request.takeover(context.region())?;
    let record = still_ours(context, &input).await?;
    if record.phase != Phase::Recovering {
        return Ok(json!({"promotion": "the epoch is open"}));
    }
    let topology = context.aurora.topology().await?;
    let did = match decide::promotion(&topology, context.region()) {
        Promotion::Done => "already the writer",
        Promotion::UnderWay => "under way",
        Promotion::Call(arn) => {
            let ledger = processor::ledger_status(context.processor.as_ref()).await?;
            decide::fit_to_promote(&record, &topology, context.region(), &ledger.status).map_err(
                |refused| StepError::DatabaseFailed {
                    operation: "FailoverGlobalCluster",
                    subject: context.config.names.aurora_global(),
                    source: refused.into(),
                },
            )?;
            context.aurora.failover(&arn).await?;
            "called"
        }
        Promotion::NotAMember => {
            return Err(StepError::DatabaseFailed {
                operation: "FailoverGlobalCluster",
                subject: context.config.names.aurora_global(),
                source: format!("it has no cluster in `{}`", context.region()).into(),
            });
        }
    };
    Ok(json!({"promotion": did}))
}

/// Watches until the control plane and the database agree that this region writes; `writer` is false when the time is over.
pub async fn await_writer(context: &Context, request: &Request) -> Result<Value, StepError> {
    request.takeover(context.region())?;
    let until_ms = context.watch_until(WATCH_LIMIT, request.deadline_ms);
    loop {
        let (topology, ledger) = futures::try_join!(
            context.aurora.topology(),
            processor::ledger_status(context.processor.as_ref()),
        )?;
        let Err(why) = decide::is_writer(&topology, context.region(), &ledger.status) else {
            return Ok(json!({"writer": true}));
        };
        if context.timer.now_ms() >= until_ms {
            return Ok(json!({"writer": false, "reason": why}));
        }
        context.timer.sleep(WATCH_INTERVAL).await;
    }
}
