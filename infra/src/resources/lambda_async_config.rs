//! What Lambda does with an asynchronous call that failed: how often and how long it tries again, and whom it tells in the end.
//! Calls that somebody waits for (API Gateway, Step Functions) are not concerned.

use aws_sdk_lambda::types::{DestinationConfig, OnFailure};
use serde::{Deserialize, Serialize};

use crate::error::{KindError, absent};
use crate::kind::{Found, Kind, Live, Site};

const GONE: &[&str] = &["ResourceNotFoundException"];

/// The kind.
#[derive(Debug)]
pub struct LambdaAsyncConfig;

/// What we want.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Spec {
    /// The function's name.
    pub function: String,
    /// Further attempts: 0 to 2.
    pub retries: i32,
    /// A call this old is given up.
    pub max_age_s: i32,
    /// ARN of the topic that hears of a call given up.
    pub on_failure: Option<String>,
}

/// Nothing refers to it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outputs {}

impl Kind for LambdaAsyncConfig {
    const NAME: &'static str = "lambda-async-config";
    const IMMUTABLE: &'static [&'static str] = &["function"];

    type Spec = Spec;
    type Outputs = Outputs;

    async fn observe(site: &Site<'_>, spec: &Spec) -> Result<Option<Live<Spec, Outputs>>, KindError> {
        let request = site.cloud.lambda(site.region).get_function_event_invoke_config();
        let result = request.function_name(&spec.function).send().await;
        let answer =
            absent(result, GONE).map_err(|e| site.fail("GetFunctionEventInvokeConfig", &spec.function, e))?;
        Ok(answer.map(|live| Live {
            spec: Spec {
                function: spec.function.clone(),
                // What Lambda does when it is not told.
                retries: live.maximum_retry_attempts().unwrap_or(2),
                max_age_s: live.maximum_event_age_in_seconds().unwrap_or(21_600),
                on_failure: live
                    .destination_config()
                    .and_then(DestinationConfig::on_failure)
                    .and_then(OnFailure::destination)
                    .map(str::to_owned),
            },
            outputs: Outputs {},
            settling: None,
        }))
    }

    async fn create(site: &Site<'_>, spec: &Spec) -> Result<(), KindError> {
        let failure = OnFailure::builder()
            .set_destination(spec.on_failure.clone())
            .build();
        site.cloud
            .lambda(site.region)
            .put_function_event_invoke_config()
            .function_name(&spec.function)
            .maximum_retry_attempts(spec.retries)
            .maximum_event_age_in_seconds(spec.max_age_s)
            .destination_config(DestinationConfig::builder().on_failure(failure).build())
            .send()
            .await
            .map_err(|e| site.fail("PutFunctionEventInvokeConfig", &spec.function, e))?;
        Ok(())
    }

    /// Everything, because the call sets what it is not given to its default.
    async fn update(site: &Site<'_>, spec: &Spec, _live: &Live<Spec, Outputs>) -> Result<(), KindError> {
        Self::create(site, spec).await
    }

    async fn delete(site: &Site<'_>, live: &Live<Spec, Outputs>) -> Result<(), KindError> {
        let function = &live.spec.function;
        let request = site
            .cloud
            .lambda(site.region)
            .delete_function_event_invoke_config();
        let result = request.function_name(function).send().await;
        absent(result, GONE).map_err(|e| site.fail("DeleteFunctionEventInvokeConfig", function, e))?;
        Ok(())
    }

    /// Goes with its function.
    async fn list(_site: &Site<'_>) -> Result<Vec<Found>, KindError> {
        Ok(Vec::new())
    }
}
