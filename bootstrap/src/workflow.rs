//! Starting a state machine's execution, or joining the one that runs already, and watching it to its end.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use aws_sdk_sfn::types::{ExecutionStatus, StateMachineStatus};
use continuity::control::ControlStore;
use continuity::names::Slot;
use infra::change::Kind;
use infra::engine;
use infra::outcome::Progress;
use infra::resources::state_machine;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::failure::Failure;
use crate::stack::Stack;
use crate::ui::Ui;

/// How often a running execution is looked at: less than half of the rate that Step Functions allows an account for long,
/// <https://docs.aws.amazon.com/step-functions/latest/dg/service-quotas.html>.
const LOOK_EVERY: Duration = Duration::from_millis(150);
/// How many looks in a row may fail before the watcher gives up; the execution itself goes on.
const LOOKS_TO_FAIL: u32 = 60;

/// An execution that is being watched.
#[derive(Debug, Clone)]
pub struct Execution {
    /// Its ARN.
    pub arn: String,
    /// The region that it runs in.
    pub region: String,
    /// It was running before this command.
    pub joined: bool,
}

/// What a deploy or teardown execution is started with.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Input {
    /// The generation of the configuration that it applies.
    pub generation: Option<u64>,
    /// What holds data and may yet be replaced.
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    pub replace: BTreeSet<String>,
    /// Whether what is ours and in no blueprint is deleted.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub prune: bool,
}

/// What to do about an execution that runs already, started with `running`, when `mine` is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum About {
    /// It does the same.
    Join,
    /// It is for an older configuration: it gives way.
    Start,
    /// It is for the same configuration, but was told other things.
    Await,
    /// It is for a newer configuration.
    Refuse,
}

fn about(kind: Kind, running: &Input, mine: &Input) -> About {
    if kind == Kind::Teardown || running == mine {
        About::Join
    } else if running.generation < mine.generation {
        About::Start
    } else if running.generation == mine.generation {
        About::Await
    } else {
        About::Refuse
    }
}

/// The state machine of a workflow in a slot.
pub fn machine_arn(stack: &Stack, kind: Kind, slot: Slot) -> String {
    let name = stack.names().state_machine(kind.as_str(), slot);
    state_machine::arn(stack.spec.regions.of(slot), &stack.account, &name)
}

/// Whether the workflow can be run in a slot.
///
/// # Errors
/// The region does not answer.
pub async fn is_there(stack: &Stack, kind: Kind, slot: Slot) -> Result<bool, Failure> {
    let client = stack.cloud.sfn(stack.spec.regions.of(slot));
    let machine = machine_arn(stack, kind, slot);
    match client
        .describe_state_machine()
        .state_machine_arn(machine)
        .send()
        .await
    {
        Ok(seen) => Ok(seen.status() != Some(&StateMachineStatus::Deleting)),
        Err(error)
            if error
                .as_service_error()
                .is_some_and(|e| e.is_state_machine_does_not_exist()) =>
        {
            Ok(false)
        }
        Err(error) => Err(Failure::new(&error)),
    }
}

/// Starts a workflow in a slot, or joins the execution of it that runs there and does the same.
///
/// # Errors
/// Step Functions does not answer, or refuses; a newer configuration is being deployed.
pub async fn start_or_join(
    stack: &Stack,
    ui: &Ui,
    kind: Kind,
    slot: Slot,
    input: &Input,
) -> Result<Execution, Failure> {
    let region = stack.spec.regions.of(slot);
    let client = stack.cloud.sfn(region);
    let machine = machine_arn(stack, kind, slot);
    loop {
        let running = client
            .list_executions()
            .state_machine_arn(&machine)
            .status_filter(ExecutionStatus::Running)
            .send()
            .await?;
        let Some(execution) = running.executions().first() else {
            break;
        };
        let execution = Execution {
            arn: execution.execution_arn().to_owned(),
            region: region.to_owned(),
            joined: true,
        };
        let seen = client
            .describe_execution()
            .execution_arn(&execution.arn)
            .send()
            .await?;
        let theirs: Input = seen
            .input()
            .and_then(|json| serde_json::from_str(json).ok())
            .unwrap_or_default();
        match about(kind, &theirs, input) {
            About::Join => return Ok(execution),
            About::Start => break,
            About::Await => {
                ui.step(format!("waiting for the {kind} workflow that is running"));
                // How it ends is its own matter.
                let _ = watch(stack, &execution, ui).await;
            }
            About::Refuse => {
                return Err(Failure::text(format!(
                    "generation {} is being deployed, and this is {}",
                    theirs.generation.unwrap_or_default(),
                    input.generation.unwrap_or_default()
                ))
                .help("somebody else ran `understudy up` with another configuration; run it again when theirs has ended"));
            }
        }
    }
    // What an earlier run reported is not this one's progress.
    let nothing = serde_json::to_string(&Progress::default())?;
    stack.control(region).put_document("deployment", &nothing).await?;
    let name = format!("{kind}-{}-{}", stack.spec.suffix, uuid::Uuid::now_v7());
    let started = client
        .start_execution()
        .state_machine_arn(&machine)
        .name(name)
        .input(serde_json::to_string(input)?)
        .send()
        .await?;
    Ok(Execution {
        arn: started.execution_arn().to_owned(),
        region: region.to_owned(),
        joined: false,
    })
}

/// Watches an execution to its end and returns its output. Progress comes from the `deployment` item.
///
/// # Errors
/// The execution failed (with its error and cause), or cannot be seen any more.
pub async fn watch(stack: &Stack, execution: &Execution, ui: &Ui) -> Result<Value, Failure> {
    let client = stack.cloud.sfn(&execution.region);
    let control = stack.control(&execution.region);
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_done_about_a_running_execution_as_a_table() {
        let input = |generation: u64, prune: bool| Input {
            generation: Some(generation),
            prune,
            ..Input::default()
        };
        let rows = [
            (Kind::Deploy, input(1, false), input(1, false), About::Join),
            (Kind::Deploy, input(1, false), input(1, true), About::Await),
            (Kind::Deploy, input(1, true), input(2, false), About::Start),
            (Kind::Deploy, input(3, false), input(2, false), About::Refuse),
            (Kind::Teardown, input(1, false), input(2, false), About::Join),
        ];
        for (kind, running, mine, expected) in rows {
            assert_eq!(about(kind, &running, &mine), expected, "{running:?} {mine:?}");
        }
    }

    #[test]
    fn an_input_says_only_what_was_asked_for() {
        let input = Input {
            generation: Some(3),
            ..Input::default()
        };
        assert_eq!(
            serde_json::to_string(&input).expect("plain data"),
            r#"{"generation":3}"#
        );
    }
}
