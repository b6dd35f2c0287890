//! The probes of all three regions, invoked without waiting for them. Only the deploy workflow does this.

use std::collections::BTreeMap;

use async_trait::async_trait;
use aws_sdk_lambda::primitives::Blob;
use aws_sdk_lambda::types::InvocationType;
use continuity::names::{Names, Regions, Slot};

use crate::error::StepError;

/// Starts rounds of the probes.
#[async_trait]
pub trait Probes: Send + Sync {
    /// Invokes the probe of a slot, without waiting for its end.
    async fn kick(&self, slot: Slot) -> Result<(), StepError>;
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
}
