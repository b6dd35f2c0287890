//! The smallest function on the same runtime. `understudy bench function` compares the start of the payment-processor with it.

use lambda_runtime::{Error, LambdaEvent, service_fn};
use serde_json::value::RawValue;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Error> {
    let hello = service_fn(async |_: LambdaEvent<Box<RawValue>>| Ok::<_, Error>("hello, world"));
    lambda_runtime::run(hello).await
}
