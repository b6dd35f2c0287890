//! Starting an execution under the next name of its kind.

use crate::context::Context;
use crate::effects::executions::Started;
use crate::error::StepError;
use crate::limits::START_ATTEMPTS;

/// Starts an execution as `base`, or as `base-2`, `base-3`, ... where those before have ended; one of these that runs is the one that
/// was wanted. Its name. So a start whose answer was lost starts nothing twice.
///
/// # Errors
/// `NotStarted`.
pub async fn next(context: &Context, machine: &str, base: &str, input: &str) -> Result<String, StepError> {
    let mut name = base.to_owned();
    for attempt in 2..START_ATTEMPTS {
        match context.executions.start(machine, &name, input).await? {
            Started::Created | Started::Running => return Ok(name),
            Started::Ended => name = format!("{base}-{attempt}"),
        }
    }
    Err(StepError::NotStarted {
        execution: base.to_owned(),
        source: "too many of that name have ended".into(),
    })
}
