//! Functions, the API, state machines, schedules.

use std::collections::HashMap;

use aws_sdk_apigateway::types::{Op, PatchOperation};
use aws_sdk_lambda::types::{Environment, TracingConfig, TracingMode};
use aws_sdk_scheduler::types::{FlexibleTimeWindow, FlexibleTimeWindowMode, ScheduleState};
use continuity::names::STAGE;
use infra::resources::state_machine;
use understudy_tests::stack::ACCOUNT;

use crate::live::{Change, HOME, Live, STANDBY, WITNESS};
use crate::{differs, gone};

fn patch(op: Op, path: &str, value: Option<&str>) -> PatchOperation {
    let operation = PatchOperation::builder().op(op).path(path);
    operation.set_value(value.map(str::to_owned)).build()
}

/// Changes the stage of a region's API.
async fn patch_stage(live: &Live, region: &str, slot: &str, operation: PatchOperation) {
    let request = live.cloud.apigateway(region).update_stage().stage_name(STAGE);
    let request = request.rest_api_id(live.id(region, &format!("rest-api.{slot}")).await);
    request.patch_operations(operation).send().await.unwrap();
}

/// A method less.
async fn forget_the_accounts(live: &Live) {
    let gateway = live.cloud.apigateway(STANDBY);
    let api = live.id(STANDBY, "rest-api.dr").await;
    let resources = gateway.get_resources().rest_api_id(&api).send().await.unwrap();
    let mut resources = resources.items().iter();
    let accounts = resources.find(|one| one.path() == Some("/v1/accounts")).unwrap();
    let request = gateway.delete_method().rest_api_id(&api).http_method("POST");
    request.resource_id(accounts.id().unwrap()).send().await.unwrap();
}

/// The same environment but for one variable.
async fn log_everything(live: &Live) {
    let lambda = live.cloud.lambda(STANDBY);
    let name = "payment-processor-dr-dev";
    let answer = lambda
        .get_function_configuration()
        .function_name(name)
        .send()
        .await
        .unwrap();
    let mut variables: HashMap<_, _> = answer.environment().unwrap().variables().unwrap().clone();
    variables.insert("RUST_LOG".into(), "trace".into());
    let environment = Environment::builder().set_variables(Some(variables)).build();
    let request = lambda.update_function_configuration().function_name(name);
    request.environment(environment).send().await.unwrap();
}

/// As it is, but for this.
async fn change_schedule(live: &Live, region: &str, name: &str, state: ScheduleState, window: Option<i32>) {
    let scheduler = live.cloud.scheduler(region);
    let now = scheduler.get_schedule().name(name).send().await.unwrap();
    let window = match window {
        None => FlexibleTimeWindow::builder().mode(FlexibleTimeWindowMode::Off),
        Some(minutes) => FlexibleTimeWindow::builder()
            .mode(FlexibleTimeWindowMode::Flexible)
            .maximum_window_in_minutes(minutes),
    };
    let request = scheduler.update_schedule().name(name).state(state);
    let request = request.set_description(now.description).set_target(now.target);
    let request = request.set_schedule_expression(now.schedule_expression);
    request
        .flexible_time_window(window.build().unwrap())
        .send()
        .await
        .unwrap();
}

pub fn changes() -> Vec<Change> {
    vec![
        // First: it would reconcile in between.
        gone!("reconcile-schedule.primary", |live| {
            let request = live.cloud.scheduler(HOME).delete_schedule();
            request.name("reconcile-primary-dev").send().await.unwrap()
        }),
        differs!("probe-schedule.witness", "enabled", false => true, |live| {
            change_schedule(&live, WITNESS, "health-probe-witness-dev", ScheduleState::Disabled, None).await
        }),
        differs!("reconcile-schedule.dr", "flexible", true => false, |live| {
            change_schedule(&live, STANDBY, "reconcile-dr-dev", ScheduleState::Enabled, Some(15)).await
        }),
        differs!("function.health-probe.dr", "memory_mb", 256 => 128, |live| {
            let request = live.cloud.lambda(STANDBY).update_function_configuration();
            request.function_name("health-probe-dr-dev").memory_size(256).send().await.unwrap()
        }),
        differs!("function.payment-processor.dr", "environment", |live| {
            log_everything(&live).await
        }),
        differs!("function.health-probe.primary", "tracing", true => false, |live| {
            let tracing = TracingConfig::builder().mode(TracingMode::Active).build();
            let request = live.cloud.lambda(HOME).update_function_configuration();
            let request = request.function_name("health-probe-primary-dev");
            request.tracing_config(tracing).send().await.unwrap()
        }),
        differs!("function.payment-processor.primary", "reserved_concurrency", 50 => 32, |live| {
            let request = live.cloud.lambda(HOME).put_function_concurrency();
            let request = request.function_name("payment-processor-primary-dev");
            request.reserved_concurrent_executions(50).send().await.unwrap()
        }),
        gone!("function.health-probe.witness", |live| {
            let request = live.cloud.lambda(WITNESS).delete_function();
            request
                .function_name("health-probe-witness-dev")
                .send()
                .await
                .unwrap()
        }),
        differs!("async-calls.payment-processor.dr", "retries", 1 => 0, |live| {
            let request = live.cloud.lambda(STANDBY).put_function_event_invoke_config();
            let request = request.function_name("payment-processor-dr-dev");
            request.maximum_retry_attempts(1).send().await.unwrap()
        }),
        gone!("api-permission.primary", |live| {
            let request = live.cloud.lambda(HOME).remove_permission();
            let request = request.function_name("payment-processor-primary-dev");
            request.statement_id("rest-api").send().await.unwrap()
        }),
        differs!("api-stage.primary", "rate_limit", from 123, |live| {
            let fewer = patch(Op::Replace, "/*/*/throttling/rateLimit", Some("123"));
            patch_stage(&live, HOME, "primary", fewer).await
        }),
        differs!("api-stage.primary", "tracing", true => false, |live| {
            let traced = patch(Op::Replace, "/tracingEnabled", Some("true"));
            patch_stage(&live, HOME, "primary", traced).await
        }),
        differs!("rest-api.dr", "methods", |live| forget_the_accounts(&live).await),
        differs!("api-stage.dr", "deployed", false => true, |live| {
            let request = live.cloud.apigateway(STANDBY).create_deployment().stage_name(STAGE);
            let request = request.rest_api_id(live.id(STANDBY, "rest-api.dr").await);
            request.description("by hand").send().await.unwrap()
        }),
        differs!("rest-api.primary", "tagged", false => true, |live| {
            let arn = live.arn(HOME, "rest-api.primary").await;
            let request = live.cloud.apigateway(HOME).untag_resource().resource_arn(arn);
            request.tag_keys("Criticality").send().await.unwrap()
        }),
        gone!("api-access-log.primary", |live| {
            patch_stage(
                &live,
                HOME,
                "primary",
                patch(Op::Remove, "/accessLogSettings", None),
            )
            .await
        }),
        differs!("api-access-log.dr", "format", from "$context.requestId", |live| {
            let short = patch(Op::Replace, "/accessLogSettings/format", Some("$context.requestId"));
            patch_stage(&live, STANDBY, "dr", short).await
        }),
        differs!("state-machine.failover.dr", "definition", |live| {
            let request = live.cloud.sfn(STANDBY).update_state_machine();
            let request = request.state_machine_arn(state_machine::arn(STANDBY, ACCOUNT, "failover-dr-dev"));
            let nothing = r#"{"StartAt": "Nothing", "States": {"Nothing": {"Type": "Succeed"}}}"#;
            request.definition(nothing).send().await.unwrap()
        }),
    ]
}

pub async fn is_repaired(live: &Live) {
    let request = live.cloud.lambda(STANDBY).get_function_configuration();
    let probe = request.function_name("health-probe-dr-dev").send().await.unwrap();
    assert_eq!(probe.memory_size(), Some(128));
    let request = live.cloud.scheduler(HOME).get_schedule();
    let schedule = request.name("reconcile-primary-dev").send().await.unwrap();
    assert_eq!(schedule.state(), Some(&ScheduleState::Enabled));
    let request = live.cloud.apigateway(HOME).get_stage().stage_name(STAGE);
    let request = request.rest_api_id(live.id(HOME, "rest-api.primary").await);
    let stage = request.send().await.unwrap();
    let settings = &stage.method_settings().unwrap()["*/*"];
    assert_ne!(settings.throttling_rate_limit(), 123.0, "{settings:?}");
}
