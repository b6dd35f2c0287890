//! Starting a state machine's execution, or joining the one that runs already, and watching it to its end.

use std::sync::Arc;
use std::time::Duration;

use aws_sdk_sfn::types::ExecutionStatus;
use infra::engine;
use infra::outcome::Progress;
use serde_json::{Value, json};

use crate::failure::Failure;
use crate::stack::Stack;
use crate::ui::Ui;
use continuity::control::ControlStore;
use continuity::names::Slot;

/// How often a running execution is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(250);
/// How many looks in a row may fail before the watcher gives up; the execution itself goes on.
const LOOKS_TO_FAIL: u32 = 40;

/// An execution that is being watched.
#[derive(Debug, Clone)]
pub struct Execution {
    /// Its ARN.
    pub arn: String,
    /// It was running before this command.
    pub joined: bool,
}

/// Starts `workflow` in the home region, or joins the execution of it that runs.
///
/// # Errors
/// Step Functions does not answer, or refuses.
pub async fn start_or_join(stack: &Stack, workflow: &str, input: &Value) -> Result<Execution, Failure> {
    let client = stack.cloud.sfn(stack.home());
    let machine = format!(
        "arn:aws:states:{}:{}:stateMachine:{}",
        stack.home(),
        stack.account,
        stack.names().state_machine(workflow, Slot::Primary)
    );
    let running = client
        .list_executions()
        .state_machine_arn(&machine)
        .status_filter(ExecutionStatus::Running)
        .send()
        .await?;
    if let Some(execution) = running.executions().first() {
        return Ok(Execution {
            arn: execution.execution_arn().to_owned(),
            joined: true,
        });
    }
    // What an earlier run reported is not this one's progress.
    let nothing = serde_json::to_string(&Progress::default())?;
    stack
        .control(stack.home())
        .put_document("deployment", &nothing)
        .await?;
    let name = format!("{workflow}-{}-{}", stack.spec.suffix, uuid::Uuid::now_v7());
    let started = client
        .start_execution()
        .state_machine_arn(&machine)
        .name(name)
        .input(input.to_string())
        .send()
        .await?;
    Ok(Execution {
        arn: started.execution_arn().to_owned(),
        joined: false,
    })
}

/// Watches an execution to its end and returns its output. Progress comes from the `deployment` item.
///
/// # Errors
/// The execution failed (with its error and cause), or cannot be seen any more.
pub async fn watch(stack: &Stack, execution: &Execution, ui: &Ui) -> Result<Value, Failure> {
    let client = stack.cloud.sfn(stack.home());
    let control = stack.control(stack.home());
    let mut failed_looks = 0;
    loop {
        match client
            .describe_execution()
            .execution_arn(&execution.arn)
            .send()
            .await
        {
            Ok(seen) => {
                failed_looks = 0;
                if let Ok(Some(json)) = control.document("deployment").await
                    && let Ok(progress) = serde_json::from_str::<Progress>(&json)
                {
                    show(ui, &progress);
                }
                match seen.status() {
                    ExecutionStatus::Running | ExecutionStatus::PendingRedrive => {}
                    ExecutionStatus::Succeeded => {
                        return Ok(seen
                            .output()
                            .and_then(|text| serde_json::from_str(text).ok())
                            .unwrap_or(json!({})));
                    }
                    status => {
                        let error = seen.error().unwrap_or("no error name");
                        let cause = seen.cause().unwrap_or("no cause");
                        return Err(Failure::text(format!(
                            "execution `{}` ended {}: {error}: {cause}",
                            execution.arn,
                            status.as_str().to_lowercase(),
                        ))
                        .help("what exists stays; mend the cause and run the same command again"));
                    }
                }
            }
            Err(error) => {
                failed_looks += 1;
                if failed_looks >= LOOKS_TO_FAIL {
                    return Err(Failure::new(&error)
                        .help("the workflow goes on without this command; run it again to watch it"));
                }
            }
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// Engine options whose progress is shown.
pub fn options(ui: &Arc<Ui>) -> engine::Options {
    let ui = Arc::clone(ui);
    engine::Options {
        on_progress: Some(Arc::new(move |progress| show(&ui, progress))),
        ..engine::Options::default()
    }
}

/// Shows progress as bars.
pub fn show(ui: &Ui, progress: &Progress) {
    if progress.total == 0 {
        return;
    }
    let groups: Vec<(String, usize, usize)> = progress
        .groups
        .iter()
        .map(|(group, count)| (group.to_string(), count.ready, count.total))
        .collect();
    let note = match (progress.failed.first(), progress.waiting.first()) {
        (Some(failed), _) => format!("{} failed: {}", failed.key, failed.error),
        (None, Some(waiting)) => format!("waiting for {}: {}", waiting.key, waiting.on),
        (None, None) => String::new(),
    };
    ui.progress(&groups, &note);
}
