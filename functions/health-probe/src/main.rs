//! The health-probe function: clients are built once, then one invocation makes rounds until the next one relieves it, or is a task of a drill.

use std::sync::Arc;

use continuity::aws;
use continuity::dynamo::DynamoControl;
use health_probe::config::{LOOK_LIMIT, ProbeConfig};
use health_probe::look::HttpLooker;
use health_probe::rounds::Probe;
use health_probe::start::StepFunctions;
use health_probe::synthetic;
use health_probe::timer::SystemTimer;
use lambda_runtime::{Error, LambdaEvent, run, service_fn};
use serde_json::Value;

#[tokio::main]
async fn main() -> Result<(), Error> {
    aws::install_tls();
    aws::install_tracing();
    let config = ProbeConfig::from_env()?;
    let sdk = aws::load(Some(config.function.region())).await;
    let table = config.function.names.control_table();
    let probe = Probe {
        control: Arc::new(DynamoControl::new(aws_sdk_dynamodb::Client::new(&sdk), table)),
        looker: Arc::new(HttpLooker::new(config.endpoints.clone(), LOOK_LIMIT)?),
        starter: Arc::new(StepFunctions::new(aws_sdk_sfn::Client::new(&sdk))),
        timer: Arc::new(SystemTimer),
        config,
    };
    let probe = &probe;
    run(service_fn(move |event: LambdaEvent<Value>| async move {
        let deadline_ms = event.context.deadline;
        if synthetic::is_task(&event.payload) {
            return Ok::<_, Error>(synthetic::run(event.payload, deadline_ms).await?);
        }
        Ok(serde_json::to_value(probe.run(deadline_ms).await)?)
    }))
    .await
}
