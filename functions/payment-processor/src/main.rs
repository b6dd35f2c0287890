//! The payment-processor function: start-up only.

use std::sync::Arc;

use lambda_runtime::{LambdaEvent, service_fn};
use payments::context::Context;
use payments::event;
use serde_json::value::RawValue;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), lambda_runtime::Error> {
    continuity::aws::install_tls();
    continuity::aws::install_tracing();
    let service = Arc::new(event::Service::new(Arc::new(Context::from_env()?)));
    lambda_runtime::run(service_fn(move |event: LambdaEvent<Box<RawValue>>| {
        let service = service.clone();
        async move {
            let trace = event.context.xray_trace_id.as_deref();
            service.handle(event.payload.get(), trace).await
        }
    }))
    .await
}
