//! The reconcile engine, as far as the deploy and teardown steps need it.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use continuity::names::Slot;
use infra::blueprint;
use infra::cloud::Cloud;
use infra::engine::{self, OnProgress, Options, Permit};
use infra::outcome::{Progress, Report};
use infra::spec::Spec;
use tokio::sync::OnceCell;

use crate::error::StepError;

/// Which way a pass goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// To the blueprint.
    Converge,
    /// To the seed, which the command line removes.
    Teardown,
}

/// What came of a pass.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Pass {
    /// Nothing is left to do.
    pub done: bool,
    /// Keys of the resources that this pass changed.
    pub changed: Vec<String>,
    /// How far the stack is.
    pub progress: Progress,
}

impl From<Report> for Pass {
    fn from(report: Report) -> Self {
        Pass {
            done: report.done,
            changed: report.changes().map(|entry| entry.key.clone()).collect(),
            progress: report.progress(),
        }
    }
}

/// Runs passes.
#[async_trait]
pub trait Engine: Send + Sync {
    /// One pass within `budget`, which asks `permit` before every write. A resource that fails is in the result, not an
    /// error.
    async fn pass(
        &self,
        direction: Direction,
        spec: &Spec,
        budget: Duration,
        permit: Option<Arc<dyn Permit>>,
        on_progress: OnProgress,
    ) -> Result<Pass, StepError>;
}

/// The engine of the crate `infra`, on AWS.
#[derive(Debug)]
pub struct CloudEngine {
    cloud: Cloud,
    account: OnceCell<String>,
}

impl CloudEngine {
    /// With clients that share this configuration.
    pub fn new(sdk: aws_config::SdkConfig) -> Self {
        CloudEngine {
            cloud: Cloud::new(sdk),
            account: OnceCell::new(),
        }
    }

    async fn account(&self, region: &str) -> Result<&str, StepError> {
        let ask = || async {
            let identity = self.cloud.sts(region).get_caller_identity().send().await;
            let identity = identity.map_err(|error| engine_failed(&error))?;
            identity
                .account()
                .map(str::to_owned)
                .ok_or_else(|| StepError::EngineFailed("the caller has no account".to_owned()))
        };
        self.account.get_or_try_init(ask).await.map(String::as_str)
    }
}

fn engine_failed(error: &(dyn std::error::Error + 'static)) -> StepError {
    StepError::EngineFailed(continuity::error::chain(error))
}

#[async_trait]
impl Engine for CloudEngine {
    async fn pass(
        &self,
        direction: Direction,
        spec: &Spec,
        budget: Duration,
        permit: Option<Arc<dyn Permit>>,
        on_progress: OnProgress,
    ) -> Result<Pass, StepError> {
        let account = self.account(spec.regions.of(Slot::Primary)).await?;
        let blueprint = blueprint::blueprint(spec, account);
        let options = Options {
            budget,
            permit,
            on_progress: Some(on_progress),
            ..Options::default()
        };
        let report = match direction {
            Direction::Converge => engine::converge(&blueprint, &self.cloud, &options).await,
            Direction::Teardown => {
                engine::teardown(
                    &blueprint,
                    &blueprint::seed(spec, account).keys(),
                    &self.cloud,
                    &options,
                )
                .await
            }
        };
        Ok(report.map_err(|error| engine_failed(&error))?.into())
    }
}
