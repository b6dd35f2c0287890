//! failover: open, await-traffic.

use continuity::names::Names;
use continuity::takeover;
use serde_json::{Value, json};

use super::change::configuration;
use super::swap::transit;
use crate::context::Context;
use crate::decide;
use crate::error::StepError;
use crate::event::{Mode, Request, Step};
use crate::limits::{TRAFFIC_LIMIT, WATCH_INTERVAL};

/// Phase serving. Health checks turn green by themselves.
///
/// What must come before it has left its result; without that this refuses.
pub async fn open(context: &Context, request: &Request) -> Result<Value, StepError> {
    let input = request.takeover(context.region())?;
    // A planned change loses nothing, so there is nothing to replay, nor to look at before it serves.
    let needed: &[Step] = match input.mode {
        Mode::Ungraceful => &[Step::Replay, Step::Verify],
        Mode::Graceful => &[Step::AwaitWriter, Step::SetEpoch],
    };
    for &needed in needed {
        let skipped = decide::is_skipped(request.result_of(Step::Pause), needed);
        if request.result_of(needed).is_none() && !skipped {
            let reason = format!("no result of step `{}`", needed.as_str());
            return Err(StepError::MalformedInput(reason));
        }
    }
    let record = transit(context, |record| {
        let now_ms = context.timer.now_ms();
        takeover::open(record, input.epoch + 1, context.region(), now_ms).map_err(StepError::from)
    })
    .await?;
    Ok(json!({"epoch": record.epoch, "opened_ms": record.since_ms}))
}

/// Waits a limited time until the public name answers from this region. What it saw is evidence; it never blocks.
pub async fn await_traffic(context: &Context, request: &Request) -> Result<Value, StepError> {
    request.takeover(context.region())?;
    let host = match configuration(context).await.map(|stored| stored.spec) {
        Ok(spec) => spec.public_name(),
        Err(_) => Names::public_name(&context.config.names.default_zone()),
    };
    let begin_ms = context.timer.now_ms();
    let until_ms = context.watch_until(TRAFFIC_LIMIT, request.deadline_ms);
    loop {
        let seen = match context.public_name.ask(&host).await {
            Ok(answer) if answer.status == 200 && answer.region.as_deref() == Some(context.region()) => {
                let after_ms = context.timer.now_ms() - begin_ms;
                return Ok(json!({"traffic_verified": true, "host": host, "after_ms": after_ms}));
            }
            Ok(answer) => format!("status {} of {:?}", answer.status, answer.region),
            Err(reason) => reason,
        };
        if context.timer.now_ms() >= until_ms {
            tracing::warn!(host, seen, "the traffic has not followed in time");
            return Ok(json!({"traffic_verified": false, "host": host, "last_seen": seen}));
        }
        context.timer.sleep(WATCH_INTERVAL).await;
    }
}
