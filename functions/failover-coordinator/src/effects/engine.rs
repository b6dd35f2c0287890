//! The reconcile engine, as far as the deploy, reconcile and teardown steps need it.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use infra::blueprint;
use infra::cloud::Cloud;
use infra::engine::{self, Extent, OnProgress, Options, Permit, Pruning, Serving};
use infra::outcome::{Entry, FailedWith, PlanEntry, Progress, Report};
use infra::resources::db_snapshot::with_lost_tails;
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
    /// What became of each resource.
    pub entries: Vec<Entry>,
}

impl Pass {
    /// The same, with what was deleted of what is in no blueprint.
    fn with_deleted(mut self, pruning: &Pruning) -> Self {
        let deleted = pruning.strangers.iter().filter(|one| one.still_there.is_none());
        self.changed
            .extend(deleted.map(|one| format!("{} {}", one.found.kind, one.found.id)));
        self
    }

    /// The same, with what became of things that are in no blueprint.
    fn with(mut self, pruning: Pruning) -> Self {
        for error in pruning.not_listed {
            self.done = false;
            self.progress.failed.push(FailedWith {
                key: "what is no longer in the configuration".to_owned(),
                error,
            });
        }
        for one in pruning.strangers {
            let name = format!("{} {}", one.found.kind, one.found.id);
            match one.still_there {
                None => self.changed.push(name),
                Some(error) => {
                    self.done = false;
                    self.progress.failed.push(FailedWith { key: name, error });
                }
            }
        }
        self
    }
}

impl From<Report> for Pass {
    fn from(report: Report) -> Self {
        Pass {
            done: report.done,
            changed: report.changes().map(|entry| entry.key.clone()).collect(),
            progress: report.progress(),
            entries: report.entries,
        }
    }
}

/// What a pass works on, and within which limits.
#[derive(Clone)]
pub struct Job<'a> {
    /// The configuration.
    pub spec: &'a Spec,
    /// The time it may take.
    pub budget: Duration,
    /// What serves requests meanwhile: changes reach it last.
    pub serving: Option<Serving>,
    /// What holds data and may yet be replaced.
    pub replace: &'a BTreeSet<String>,
    /// Whether what is ours and in no blueprint is deleted.
    pub prune: bool,
    /// Asked before every write.
    pub permit: Arc<dyn Permit>,
    /// Told how far it is.
    pub on_progress: OnProgress,
}

/// Runs passes.
#[async_trait]
pub trait Engine: Send + Sync {
    /// One pass within the job's limits. A resource that fails is in the result, not an error.
    async fn pass(&self, direction: Direction, job: Job<'_>) -> Result<Pass, StepError>;

    /// Compares everything with the configuration. Writes nothing.
    async fn compare(&self, spec: &Spec, budget: Duration) -> Result<Vec<PlanEntry>, StepError>;
}

/// The engine of the crate `infra`, on AWS.
#[derive(Debug)]
pub struct CloudEngine {
    cloud: Cloud,
    region: String,
    account: OnceCell<String>,
}

impl CloudEngine {
    /// With clients of any region. `region` is the one it runs in.
    pub fn new(cloud: Cloud, region: &str) -> Self {
        CloudEngine {
            cloud,
            region: region.to_owned(),
            account: OnceCell::new(),
        }
    }

    /// Asked of the function's own region: the home region may be the one that does not answer.
    async fn account(&self) -> Result<&str, StepError> {
        let ask = || async {
            let identity = self.cloud.sts(&self.region).get_caller_identity().send().await;
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
    async fn pass(&self, direction: Direction, job: Job<'_>) -> Result<Pass, StepError> {
        let account = self.account().await?;
        let blueprint = blueprint::blueprint(job.spec, account);
        let options = Options {
            budget: job.budget,
            permit: Some(job.permit),
            on_progress: Some(job.on_progress),
            replace: job.replace.clone(),
            serving: job.serving,
            ..Options::default()
        };
        let keys = blueprint.keys();
        let extent = Extent::of(job.spec, account);
        let began = options.clock.now();
        match direction {
            Direction::Teardown => {
                let keep = blueprint::seed(job.spec, account).keys();
                // What is in the configuration no more goes at the same time: it may hold what is in it, as a subnet its VPC. What
                // does not go shows in what it holds, and in the inventory that ends a teardown.
                let (report, pruning) = tokio::join!(
                    engine::teardown(&blueprint, &keep, &self.cloud, &options),
                    engine::prune_shown(&keys, &extent, &self.cloud, &options)
                );
                let pass = Pass::from(report.map_err(|error| engine_failed(&error))?);
                Ok(pass.with_deleted(&pruning))
            }
            Direction::Converge => {
                let report = engine::converge(&blueprint, &self.cloud, &options).await;
                let pass = Pass::from(report.map_err(|error| engine_failed(&error))?);
                if !(job.prune && pass.done) {
                    return Ok(pass);
                }
                // Only now does nothing of the stack use what goes.
                let budget = (began + job.budget).saturating_sub(options.clock.now());
                let options = Options { budget, ..options };
                let keys = with_lost_tails(keys);
                let pruning = engine::prune(&keys, &extent, &self.cloud, &options).await;
                Ok(pass.with(pruning))
            }
        }
    }

    async fn compare(&self, spec: &Spec, budget: Duration) -> Result<Vec<PlanEntry>, StepError> {
        let blueprint = blueprint::blueprint(spec, self.account().await?);
        let options = Options {
            budget,
            ..Options::default()
        };
        engine::plan(&blueprint, &self.cloud, &options)
            .await
            .map_err(|error| engine_failed(&error))
    }
}
