//! failover, switchover: what waits for a person (ask-approval, pause), and a switchover that goes on as a failover (hand-over).
//! A task that waits is answered through Step Functions with its token, not by what these steps return.

use std::time::Duration;

use continuity::assess::Policy;
use infra::exercise;
use infra::resources::{sns_topic, state_machine};
use infra::waiting::{Choice, ITEM, Waiting};
use serde_json::{Value, json};

use super::starting;
use crate::context::Context;
use crate::decide;
use crate::error::StepError;
use crate::event::{Mode, Request, Step, TakeoverInput};
use crate::limits::PAUSE_LIMIT;

/// Asks a person whether the region is to take over, and says how to answer.
pub async fn ask_approval(context: &Context, request: &Request) -> Result<Value, StepError> {
    let input = request.takeover(context.region())?;
    let reasons = decide::reasons(request.result_of(Step::Assess));
    // A workflow of an earlier version does not say how long it waits.
    let limit = match request.limit_s {
        Some(seconds) => Duration::from_secs(seconds),
        None => Duration::from_millis(Policy::default().approval_expires_ms),
    };
    let asked = wait(
        context,
        request,
        &input,
        Wait {
            reasons,
            choices: vec![Choice::Approve, Choice::Decline],
            limit,
            step: None,
        },
    )
    .await?;
    let text = format!(
        "Failover of stack `{suffix}` to {to} is proposed and waits for a person until {until} UTC.\n\n\
         Reasons:\n{reasons}\n\n\
         Take over:    understudy approve --suffix {suffix}\nDo not:       understudy approve --decline --suffix {suffix}\n",
        suffix = context.config.names.suffix(),
        to = input.to_region,
        until = exercise::utc(asked.until_ms),
        reasons = lines(&asked.reasons),
    );
    tell(context, "Understudy Approval Needed", &asked, &text).await;
    Ok(json!({"asked_ms": asked.since_ms}))
}

/// Waits for a person after a step failed, and says why and what can be answered.
pub async fn pause(context: &Context, request: &Request) -> Result<Value, StepError> {
    let input = request.takeover(context.region())?;
    let at = request.at.clone().unwrap_or_default();
    let choices = decide::choices_at(&at);
    let failure = &request.input["failure"];
    let part = |name: &str| failure[name].as_str().unwrap_or("unknown").to_owned();
    let asked = wait(
        context,
        request,
        &input,
        Wait {
            reasons: vec![format!("{}: {}", part("Error"), part("Cause"))],
            choices,
            limit: PAUSE_LIMIT,
            step: Some(at),
        },
    )
    .await?;
    let commands: Vec<String> = asked
        .choices
        .iter()
        .map(|choice| format!("understudy {choice} --suffix {}", context.config.names.suffix()))
        .collect();
    let text = format!(
        "`{}` in {} is paused: a step failed.\n\nReason:\n{}\n\nPossible now:\n{}\n",
        request.execution,
        context.region(),
        lines(&asked.reasons),
        lines(&commands),
    );
    tell(context, "Understudy Workflow Paused", &asked, &text).await;
    Ok(json!({"paused_ms": asked.since_ms}))
}

struct Wait {
    reasons: Vec<String>,
    choices: Vec<Choice>,
    limit: Duration,
    step: Option<String>,
}

async fn wait(
    context: &Context,
    request: &Request,
    input: &TakeoverInput,
    wait: Wait,
) -> Result<Waiting, StepError> {
    let token = request
        .token
        .clone()
        .ok_or_else(|| StepError::MalformedInput("the task has no token".to_owned()))?;
    let since_ms = context.timer.now_ms();
    let waiting = Waiting {
        execution: request.execution_arn.clone(),
        token,
        step: wait.step,
        epoch: input.epoch,
        to_region: input.to_region.clone(),
        reasons: wait.reasons,
        choices: wait.choices,
        since_ms,
        until_ms: since_ms.saturating_add(u64::try_from(wait.limit.as_millis()).unwrap_or(u64::MAX)),
    };
    let json =
        serde_json::to_string(&waiting).map_err(|error| StepError::MalformedInput(error.to_string()))?;
    context.control.put_document(ITEM, &json).await?;
    Ok(waiting)
}

/// Tells whoever listens. Who cannot be told is no reason to go back: the item is stored, and `understudy status` shows it.
async fn tell(context: &Context, what: &str, asked: &Waiting, text: &str) {
    let detail = json!({
        "execution": asked.execution, "epoch": asked.epoch, "to_region": asked.to_region, "step": asked.step,
        "reasons": asked.reasons, "choices": asked.choices, "until_ms": asked.until_ms,
    });
    let detail = detail.to_string();
    let topic = context.config.names.alert_topic(context.config.slot);
    let topic = sns_topic::arn(context.region(), account(&asked.execution), &topic);
    let (event, notice) = futures::join!(
        context.events.send(what, &detail),
        context.notices.publish(&topic, what, text),
    );
    for error in [event.err(), notice.err()].into_iter().flatten() {
        tracing::error!(error = continuity::error::chain(&error), what, "nobody was told");
    }
}

fn lines(texts: &[String]) -> String {
    texts
        .iter()
        .map(|text| format!("- {text}"))
        .collect::<Vec<_>>()
        .join("\n")
}

/// Starts the failover of the same epoch to this region, because a person allowed it when the planned change cannot be made.
pub async fn hand_over(context: &Context, request: &Request) -> Result<Value, StepError> {
    let input = request.takeover(context.region())?;
    let mut reasons = input.reasons.clone();
    reasons.push(format!("`{}` could not be made without loss", request.execution));
    let failover = TakeoverInput {
        mode: Mode::Ungraceful,
        by_person: true,
        or_ungraceful: false,
        reasons,
        decided_ms: Some(context.timer.now_ms()),
        ..input
    };
    let names = &context.config.names;
    let machine = state_machine::arn(
        context.region(),
        account(&request.execution_arn),
        &names.state_machine("failover", context.config.slot),
    );
    let base = names.failover_execution(failover.epoch + 1);
    let json =
        serde_json::to_string(&failover).map_err(|error| StepError::MalformedInput(error.to_string()))?;
    let name = starting::next(context, &machine, &base, &json).await?;
    Ok(json!({"execution": name}))
}

/// The account in an ARN.
pub(super) fn account(arn: &str) -> &str {
    arn.split(':').nth(4).unwrap_or_default()
}
