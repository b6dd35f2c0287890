//! The failover-coordinator function: clients are built once, then each invocation is one step of a workflow.

use continuity::aws;
use continuity::config::FunctionConfig;
use failover_coordinator::context::Context;
use failover_coordinator::steps::handle;
use lambda_runtime::{Error, LambdaEvent, run, service_fn};
use serde_json::Value;

#[tokio::main]
async fn main() -> Result<(), Error> {
    aws::install_tls();
    aws::install_tracing();
    let context = &Context::on_aws(FunctionConfig::from_env()?).await?;
    run(service_fn(move |event: LambdaEvent<Value>| async move {
        handle(context, &event.payload, event.context.deadline).await
    }))
    .await
}
