//! failover: set-epoch, replay, verify; audit. The payment-processor does the work; here is what must hold around it.

use continuity::control::Phase;
use continuity::takeover::epochs_to_replay;
use serde_json::{Value, json};

use super::swap::still_ours;
use crate::context::Context;
use crate::effects::processor;
use crate::error::StepError;
use crate::event::{Request, Step};

/// Raises the ledger's epoch, so that the database itself refuses commands of an older one (rule h).
pub async fn set_epoch(context: &Context, request: &Request) -> Result<Value, StepError> {
    let input = request.takeover(context.region())?;
    let record = still_ours(context, &input).await?;
    if record.phase != Phase::Recovering {
        return Ok(json!({"ledger_epoch": record.epoch, "skipped": "the epoch is open"}));
    }
    processor::set_epoch(context.processor.as_ref(), record.epoch).await?;
    Ok(json!({"ledger_epoch": record.epoch}))
}

/// Posts what the journal has and the ledger lacks, for the epochs since the last that served (rule d), and puts what it posted
/// under the new epoch (rule g).
pub async fn replay(context: &Context, request: &Request) -> Result<Value, StepError> {
    let input = request.takeover(context.region())?;
    let record = still_ours(context, &input).await?;
    let epochs = epochs_to_replay(&record);
    if epochs.is_empty() {
        // It is open: an earlier run replayed all there was. Scanning again could only find entries that nobody
        // acknowledged.
        let before = request.result_of(Step::Replay).cloned();
        return Ok(before.unwrap_or_else(|| json!({"skipped": "the epoch is open"})));
    }
    let replayed = processor::replay(context.processor.as_ref(), epochs.start, epochs.end).await?;
    if !replayed.conflicts.is_empty() {
        tracing::error!(conflicts = ?replayed.conflicts, "journal and ledger disagree about keys");
    }
    Ok(json!({"from_epoch": epochs.start, "to_epoch": epochs.end, "replayed": replayed}))
}

/// Debits equal credits, per currency, and what was replayed is sound; otherwise the region must not open. The whole log is looked at
/// once it serves ([`audit`]): how long that takes grows with it.
pub async fn verify(context: &Context, request: &Request) -> Result<Value, StepError> {
    let input = request.takeover(context.region())?;
    let record = still_ours(context, &input).await?;
    let verified = processor::verify(context.processor.as_ref(), Some(record.epoch)).await?;
    if !verified.balanced {
        let problems = json!({"currencies": verified.currencies, "problems": verified.problems});
        return Err(StepError::LedgerUnbalanced(problems.to_string()));
    }
    Ok(
        json!({"recovered": verified.entries, "accounts": verified.accounts, "currencies": verified.currencies}),
    )
}

/// Recomputes every sum and balance from the log. What it finds is for the evidence: the region serves already.
pub async fn audit(context: &Context, request: &Request) -> Result<Value, StepError> {
    let input = request.takeover(context.region())?;
    still_ours(context, &input).await?;
    let found = processor::verify(context.processor.as_ref(), None).await?;
    if !found.balanced {
        tracing::error!(problems = ?found.problems, currencies = ?found.currencies, "the ledger does not add up");
    }
    serde_json::to_value(found).map_err(|error| StepError::EngineFailed(error.to_string()))
}
