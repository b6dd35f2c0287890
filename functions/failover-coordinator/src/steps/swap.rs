//! Changing the control record by compare-and-set.

use continuity::control::{ControlRecord, Swap};
use continuity::takeover::Transition;

use crate::context::Context;
use crate::error::StepError;
use crate::event::TakeoverInput;
use crate::limits::SWAP_ATTEMPTS;

/// Reads the record, asks `transition`, and stores what it says; from the start again when somebody else was first.
///
/// # Errors
/// What `transition` refuses; `ControlUnavailable`, after which it is unknown whether the change is stored (run it again: a
/// transition recognises its own work); `ControlContended`.
pub async fn transit(
    context: &Context,
    transition: impl Fn(&ControlRecord) -> Result<Transition, StepError>,
) -> Result<ControlRecord, StepError> {
    for _ in 0..SWAP_ATTEMPTS {
        let record = context.record().await?;
        match transition(&record)? {
            Transition::AlreadyDone(record) => return Ok(record),
            Transition::Store(new) => {
                if context.control.replace(&record, &new).await? == Swap::Done {
                    return Ok(new);
                }
            }
        }
    }
    Err(StepError::ControlContended(SWAP_ATTEMPTS))
}

/// The record, if the takeover of `input` still is the latest.
///
/// # Errors
/// `Superseded` when it is not; `ControlUnavailable`.
pub async fn still_ours(context: &Context, input: &TakeoverInput) -> Result<ControlRecord, StepError> {
    let record = context.record().await?;
    if record.epoch == input.epoch + 1 && record.active_region == input.to_region {
        return Ok(record);
    }
    Err(StepError::Superseded(format!(
        "epoch {} of `{}` is current, this execution is for epoch {} of `{}`",
        record.epoch,
        record.active_region,
        input.epoch + 1,
        input.to_region
    )))
}
