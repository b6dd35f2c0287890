//! The probes of all three regions: started by the deploy workflow, asked by a drill.

use std::collections::BTreeMap;

use async_trait::async_trait;
use aws_sdk_lambda::config::retry::RetryConfig;
use aws_sdk_lambda::config::timeout::TimeoutConfig;
use aws_sdk_lambda::primitives::Blob;
use aws_sdk_lambda::types::InvocationType;
use continuity::names::{Names, Regions, Slot};
use serde_json::Value;

use crate::error::StepError;
use crate::limits::PROBE_TASK_LIMIT;

/// Starts rounds of the probes.
#[async_trait]
pub trait Probes: Send + Sync {
    /// Invokes the probe of a slot, without waiting for its end.
    async fn kick(&self, slot: Slot) -> Result<(), StepError>;
    /// Has the probe of a slot do a task, and waits for its answer. The task may hold an API key: neither it nor the answer is
    /// logged, and a call that is waited for goes to no failure destination.
    ///
    /// # Errors
    /// `ProbeFailed`.
    async fn ask(&self, slot: Slot, task: &Value) -> Result<Value, StepError>;
}

/// The probes as Lambda functions.
#[derive(Debug, Clone)]
pub struct LambdaProbes {
    clients: BTreeMap<Slot, aws_sdk_lambda::Client>,
    regions: Regions,
    names: Names,
}

impl LambdaProbes {
    /// The probes of a stack.
    pub fn new(sdk: &aws_config::SdkConfig, regions: &Regions, names: &Names) -> Self {
        let client = |slot: Slot| {
            let region = aws_config::Region::new(regions.of(slot).to_owned());
            let config = aws_sdk_lambda::config::Builder::from(sdk).region(region).build();
            (slot, aws_sdk_lambda::Client::from_conf(config))
        };
        LambdaProbes {
            clients: Slot::ALL.into_iter().map(client).collect(),
            regions: regions.clone(),
            names: names.clone(),
        }
    }
}

#[async_trait]
impl Probes for LambdaProbes {
    async fn kick(&self, slot: Slot) -> Result<(), StepError> {
        self.clients[&slot]
            .invoke()
            .function_name(self.names.health_probe(slot))
            .invocation_type(InvocationType::Event)
            .payload(Blob::new("{}"))
            .send()
            .await
            .map_err(|error| StepError::ProbeFailed {
                region: self.regions.of(slot).to_owned(),
                source: error.into(),
            })?;
        Ok(())
    }
    async fn ask(&self, slot: Slot, task: &Value) -> Result<Value, StepError> {
        let failed = |source: Box<dyn std::error::Error + Send + Sync>| StepError::ProbeFailed {
            region: self.regions.of(slot).to_owned(),
            source,
        };
        let timeouts = TimeoutConfig::builder()
            .connect_timeout(continuity::aws::CONNECT_TIMEOUT)
            .operation_timeout(PROBE_TASK_LIMIT)
            .operation_attempt_timeout(PROBE_TASK_LIMIT)
            .read_timeout(PROBE_TASK_LIMIT)
            .build();
        let patient = aws_sdk_lambda::Config::builder()
            .timeout_config(timeouts)
            .retry_config(RetryConfig::disabled());
        let payload = serde_json::to_vec(task).map_err(|error| failed(error.into()))?;
        let output = self.clients[&slot]
            .invoke()
            .function_name(self.names.health_probe(slot))
            .payload(Blob::new(payload))
            .customize()
            .config_override(patient)
            .send()
            .await
            .map_err(|error| failed(error.into()))?;
        let body = output.payload().map(Blob::as_ref).unwrap_or_default();
        if output.function_error().is_some() {
            return Err(failed(String::from_utf8_lossy(body).into_owned().into()));
        }
        serde_json::from_slice(body).map_err(|error| failed(error.into()))
    }
}
