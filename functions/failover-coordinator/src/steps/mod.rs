//! The steps, one file per group. Each observes, decides in [`crate::decide`] or in `continuity`, and acts.

mod change;
mod deploy;
mod drill;
mod drill_evidence;
mod evidence;
mod fencing;
mod gate;
mod isolation;
mod ledger;
mod opening;
mod planned;
mod promotion;
mod readiness;
mod recovery;
mod repair;
mod starting;
mod swap;
mod waiting;

use serde_json::{Value, json};

use crate::context::Context;
use crate::error::StepError;
use crate::event::{Request, Step};

/// Runs the step that the event names.
///
/// Guarantees: run twice it equals once; what it returns is small, with the times it began and ended.
///
/// # Errors
/// A [`StepError`], whose type the workflow's Retry and Catch name.
pub async fn handle(context: &Context, event: &Value, deadline_ms: u64) -> Result<Value, StepError> {
    let request = Request::parse(event, deadline_ms)?;
    let began_ms = context.timer.now_ms();
    let (step, execution) = (request.step.as_str(), &request.execution);
    tracing::info!(step, execution, "step begins");
    match run(context, &request).await {
        Ok(mut result) => {
            let ended_ms = context.timer.now_ms();
            if let Value::Object(fields) = &mut result {
                fields.insert("began_ms".into(), json!(began_ms));
                fields.insert("ended_ms".into(), json!(ended_ms));
            }
            tracing::info!(step, execution, ms = ended_ms - began_ms, "step done");
            Ok(result)
        }
        Err(error) => {
            let text = continuity::error::chain(&error);
            tracing::error!(
                step,
                execution,
                error_type = error.error_type(),
                error = text,
                "step failed"
            );
            Err(error)
        }
    }
}

async fn run(context: &Context, request: &Request) -> Result<Value, StepError> {
    match request.step {
        Step::Reconcile => deploy::reconcile(context, request).await,
        Step::Initialise => deploy::initialise(context, request).await,
        Step::StartProbes => deploy::start_probes(context).await,
        Step::VerifyServing => deploy::verify_serving(context, request).await,
        Step::Teardown => deploy::teardown(context, request).await,
        Step::Repair => repair::repair(context, request).await,
        Step::ReportDrift => repair::report(context, request).await,
        Step::Assess => fencing::assess(context, request).await,
        Step::Evaluate => planned::evaluate(context, request).await,
        Step::Drain => planned::drain(context, request).await,
        Step::AwaitStandby => planned::await_standby(context, request).await,
        Step::SwitchDatabase => planned::switch_database(context, request).await,
        Step::Undrain => planned::undrain(context, request).await,
        Step::Fence => fencing::fence(context, request).await,
        Step::Promote => promotion::promote(context, request).await,
        Step::AwaitWriter => promotion::await_writer(context, request).await,
        Step::SetEpoch => ledger::set_epoch(context, request).await,
        Step::Replay => ledger::replay(context, request).await,
        Step::Verify => ledger::verify(context, request).await,
        Step::Audit => ledger::audit(context, request).await,
        Step::Open => opening::open(context, request).await,
        Step::AwaitTraffic => opening::await_traffic(context, request).await,
        Step::AskApproval => waiting::ask_approval(context, request).await,
        Step::Pause => waiting::pause(context, request).await,
        Step::HandOver => waiting::hand_over(context, request).await,
        Step::Record => evidence::record(context, request).await,
        Step::StartRecovery => recovery::start(context, request).await,
        Step::FindTail => recovery::find(context, request).await,
        Step::KeepTail => recovery::keep(context, request).await,
        Step::OpenTail => recovery::open(context, request).await,
        Step::CompareTail => recovery::compare(context, request).await,
        Step::CloseTail => recovery::close(context, request).await,
        Step::ReportTail => recovery::report(context, request).await,
        Step::Isolation => drill::isolation(context, request).await,
        Step::DrillBegin => drill::begin(context, request).await,
        Step::SyntheticTraffic => drill::synthetic_traffic(context, request).await,
        Step::Exercise => drill::exercise(context, request).await,
        Step::CheckPayments => drill::check_payments(context, request).await,
        Step::DrillEnd => drill::end(context, request).await,
        Step::EvaluateReadiness => readiness::evaluate(context).await,
        Step::ResumeDrill => drill::resume(context, request).await,
    }
}
