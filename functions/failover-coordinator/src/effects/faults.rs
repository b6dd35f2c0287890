//! Faults on purpose: the experiment that isolates a region in a drill. Called by a drill, in the region that is isolated; not
//! used by a failover.

use std::collections::HashMap;

use async_trait::async_trait;
use aws_sdk_cloudwatch::types::{Dimension, MetricDatum, StandardUnit, StateValue};
use aws_sdk_fis::types::{ExperimentActionStatus, ExperimentStatus, ExperimentSummary};
use continuity::names::{Names, Slot};
use infra::blueprint::isolation;
use infra::blueprint::observability::{NAMESPACE, STACK_DIMENSION};
use infra::cloud::Cloud;
use infra::kind::{RESOURCE_TAG, STACK_TAG};

use crate::error::StepError;

/// The tag of an experiment that says which drill it belongs to.
pub const DRILL_TAG: &str = "understudy:drill";

/// A region whose experiment is meant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// Its slot.
    pub slot: Slot,
    /// Its name.
    pub region: String,
}

/// Where an experiment stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Progress {
    /// Not all of it is broken yet.
    Starting,
    /// It is under way.
    Running,
    /// It is being put back.
    Stopping,
    /// All is put back.
    Ended,
}

/// An experiment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Experiment {
    /// Its id.
    pub id: String,
    /// Where it stands.
    pub progress: Progress,
    /// The service's word for it, with its reason.
    pub state: String,
    /// Whether the service says that it failed.
    pub failed: bool,
    /// Its actions, by name, each with the service's word for where it stands.
    pub actions: Vec<(String, String)>,
}

/// What an experiment means for the drill.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Isolation {
    /// The region is not cut off yet.
    Coming,
    /// Everything that was to be broken is.
    Cut,
    /// It is over, or about to be.
    Over(String),
    /// A part of it was never broken: the drill would prove something else than it says.
    Broken(String),
}

impl Experiment {
    /// FIS goes on when it skips an action, and says so only in the action. All of them must run.
    pub fn isolation(&self) -> Isolation {
        let bad = |word: &str| ["skipped", "failed", "cancelled"].contains(&word);
        let left_out: Vec<String> = (self.actions.iter())
            .filter(|(_, word)| bad(word))
            .map(|(name, word)| format!("action `{name}` was {word}"))
            .collect();
        if self.failed || !left_out.is_empty() {
            let all: Vec<String> = std::iter::once(self.state.clone()).chain(left_out).collect();
            return Isolation::Broken(all.join("; "));
        }
        match self.progress {
            Progress::Running if self.actions.is_empty() => {
                Isolation::Broken("the experiment has no action".to_owned())
            }
            Progress::Running if self.actions.iter().all(|(_, word)| word == "running") => Isolation::Cut,
            Progress::Starting | Progress::Running => Isolation::Coming,
            Progress::Stopping | Progress::Ended => Isolation::Over(self.state.clone()),
        }
    }
}

/// Breaks a region and mends it. Every call goes to the region that is meant: its control planes answer during an isolation,
/// which is about its subnets and tables.
#[async_trait]
pub trait Faults: Send + Sync {
    /// Says that the drill is watched and goes as it should, or that it must end: without the former for a while, or with the
    /// latter, the stop alarm goes off.
    async fn watched(&self, at: &Place, well: bool) -> Result<(), StepError>;
    /// Whether the stop alarm is at rest: with it in alarm no experiment begins.
    async fn may_begin(&self, at: &Place) -> Result<bool, StepError>;
    /// Starts the experiment of the region for this drill. Twice is once.
    async fn begin(&self, at: &Place, drill: &str) -> Result<String, StepError>;
    /// Ids of the drill's experiments, the newest first, ended ones too.
    async fn of_drill(&self, at: &Place, drill: &str) -> Result<Vec<String>, StepError>;
    /// Where an experiment stands.
    async fn look(&self, at: &Place, id: &str) -> Result<Experiment, StepError>;
    /// Begins to put everything back. An experiment that has ended is left as it is.
    async fn stop(&self, at: &Place, id: &str) -> Result<(), StepError>;
}

/// AWS Fault Injection Service, and the alarm that stops its experiments.
#[derive(Debug, Clone)]
pub struct Fis {
    cloud: Cloud,
    names: Names,
}

type Cause = Box<dyn std::error::Error + Send + Sync>;

fn failed(operation: &'static str, at: &Place, source: impl Into<Cause>) -> StepError {
    StepError::FaultsUnavailable {
        operation,
        region: at.region.clone(),
        source: source.into(),
    }
}

impl Fis {
    /// With clients of any region.
    pub fn new(cloud: Cloud, names: Names) -> Self {
        Fis { cloud, names }
    }

    /// The experiment template of the region, by its tags.
    async fn template(&self, at: &Place) -> Result<String, StepError> {
        let request = self.cloud.fis(&at.region).list_experiment_templates();
        let mut pages = request.into_paginator().items().send();
        let key = isolation::key(at.slot);
        while let Some(one) = pages.next().await {
            let one = one.map_err(|error| failed("ListExperimentTemplates", at, error))?;
            let has = |tag: &str, value: &str| {
                (one.tags().and_then(|tags| tags.get(tag))).is_some_and(|live| live == value)
            };
            if has(STACK_TAG, self.names.suffix()) && has(RESOURCE_TAG, &key) {
                return Ok(one.id().unwrap_or_default().to_owned());
            }
        }
        Err(StepError::IsolationFailed(format!(
            "`{}` has no experiment template `{key}`: run `understudy up`",
            at.region
        )))
    }
}

#[async_trait]
impl Faults for Fis {
    async fn watched(&self, at: &Place, well: bool) -> Result<(), StepError> {
        let stack = Dimension::builder()
            .name(STACK_DIMENSION)
            .value(self.names.suffix())
            .build();
        let datum = MetricDatum::builder()
            .metric_name(isolation::WATCHED)
            .dimensions(stack)
            .value(if well { 1.0 } else { 0.0 })
            .unit(StandardUnit::None)
            .build();
        let request = self.cloud.cloudwatch(&at.region).put_metric_data();
        let result = request.namespace(NAMESPACE).metric_data(datum).send().await;
        result.map_err(|error| failed("PutMetricData", at, error))?;
        Ok(())
    }

    async fn may_begin(&self, at: &Place) -> Result<bool, StepError> {
        let name = self.names.unwatched_alarm(at.slot);
        let request = self.cloud.cloudwatch(&at.region).describe_alarms();
        let answer = request.alarm_names(&name).send().await;
        let answer = answer.map_err(|error| failed("DescribeAlarms", at, error))?;
        match answer.metric_alarms().first() {
            Some(alarm) => Ok(alarm.state_value() == Some(&StateValue::Ok)),
            None => Err(StepError::IsolationFailed(format!(
                "`{}` has no alarm `{name}`: run `understudy up`",
                at.region
            ))),
        }
    }

    async fn begin(&self, at: &Place, drill: &str) -> Result<String, StepError> {
        let template = self.template(at).await?;
        let tags = [(STACK_TAG, self.names.suffix()), (DRILL_TAG, drill)];
        let request = self.cloud.fis(&at.region).start_experiment();
        let answer = request
            .experiment_template_id(template)
            .client_token(drill)
            .set_tags(Some(HashMap::from(
                tags.map(|(key, value)| (key.to_owned(), value.to_owned())),
            )))
            .send()
            .await
            .map_err(|error| failed("StartExperiment", at, error))?;
        let id = answer.experiment().and_then(|experiment| experiment.id());
        id.map(str::to_owned)
            .ok_or_else(|| failed("StartExperiment", at, "the answer has no experiment"))
    }

    async fn of_drill(&self, at: &Place, drill: &str) -> Result<Vec<String>, StepError> {
        let request = self.cloud.fis(&at.region).list_experiments();
        let mut pages = request.into_paginator().items().send();
        let mut found: Vec<ExperimentSummary> = Vec::new();
        while let Some(one) = pages.next().await {
            let one = one.map_err(|error| failed("ListExperiments", at, error))?;
            let has = |tag: &str, value: &str| {
                (one.tags().and_then(|tags| tags.get(tag))).is_some_and(|live| live == value)
            };
            if has(STACK_TAG, self.names.suffix()) && has(DRILL_TAG, drill) {
                found.push(one);
            }
        }
        found.sort_by_key(|one| std::cmp::Reverse(one.creation_time().map(|time| time.as_nanos())));
        Ok(found.into_iter().filter_map(|one| one.id).collect())
    }

    async fn look(&self, at: &Place, id: &str) -> Result<Experiment, StepError> {
        let answer = self.cloud.fis(&at.region).get_experiment().id(id).send().await;
        let answer = answer.map_err(|error| failed("GetExperiment", at, error))?;
        let experiment = answer
            .experiment()
            .ok_or_else(|| failed("GetExperiment", at, "the answer is empty"))?;
        Ok(read(id, experiment))
    }

    async fn stop(&self, at: &Place, id: &str) -> Result<(), StepError> {
        let result = self.cloud.fis(&at.region).stop_experiment().id(id).send().await;
        match result {
            Ok(_) => Ok(()),
            // It ended meanwhile: that is how FIS says that it cannot be stopped any more.
            Err(error)
                if error
                    .as_service_error()
                    .is_some_and(|e| e.is_validation_exception()) =>
            {
                match self.look(at, id).await?.progress {
                    Progress::Stopping | Progress::Ended => Ok(()),
                    Progress::Starting | Progress::Running => Err(failed("StopExperiment", at, error)),
                }
            }
            Err(error) => Err(failed("StopExperiment", at, error)),
        }
    }
}

fn read(id: &str, live: &aws_sdk_fis::types::Experiment) -> Experiment {
    let status = live.state().and_then(|state| state.status());
    let progress = match status {
        Some(ExperimentStatus::Running) => Progress::Running,
        Some(ExperimentStatus::Stopping) => Progress::Stopping,
        Some(
            ExperimentStatus::Completed
            | ExperimentStatus::Stopped
            | ExperimentStatus::Failed
            | ExperimentStatus::Cancelled,
        ) => Progress::Ended,
        // Also a word that is newer than this code: it is waited for.
        _ => Progress::Starting,
    };
    let word = status.map_or("unknown", ExperimentStatus::as_str);
    let state = match live.state().and_then(|state| state.reason()) {
        Some(reason) => format!("{word}: {reason}"),
        None => word.to_owned(),
    };
    let mut actions: Vec<(String, String)> = live
        .actions()
        .into_iter()
        .flatten()
        .map(|(name, action)| {
            let status = action.state().and_then(|state| state.status());
            (
                name.clone(),
                status
                    .map_or("unknown", ExperimentActionStatus::as_str)
                    .to_owned(),
            )
        })
        .collect();
    actions.sort();
    Experiment {
        id: id.to_owned(),
        progress,
        state,
        failed: matches!(
            status,
            Some(ExperimentStatus::Failed | ExperimentStatus::Cancelled)
        ),
        actions,
    }
}

#[cfg(test)]
mod tests {
    use aws_sdk_fis::types::{ExperimentAction, ExperimentActionState, ExperimentState};

    use super::*;

    fn experiment(status: &str, actions: &[&str]) -> Experiment {
        let mut live = aws_sdk_fis::types::Experiment::builder().state(
            ExperimentState::builder()
                .status(status.into())
                .reason("why")
                .build(),
        );
        for (n, word) in actions.iter().enumerate() {
            let state = ExperimentActionState::builder().status((*word).into()).build();
            live = live.actions(format!("a{n}"), ExperimentAction::builder().state(state).build());
        }
        read("EXP1", &live.build())
    }

    #[test]
    fn a_region_is_isolated_only_when_everything_is_broken_that_was_to_be() {
        let over = |why: &str| Isolation::Over(why.into());
        let broken = |why: &str| Isolation::Broken(why.into());
        let rows = [
            ("pending", &["pending", "pending"][..], Isolation::Coming),
            ("initiating", &["running", "pending"], Isolation::Coming),
            ("running", &["running", "initiating"], Isolation::Coming),
            ("running", &["running", "running"], Isolation::Cut),
            (
                "running",
                &["running", "skipped"],
                broken("running: why; action `a1` was skipped"),
            ),
            (
                "running",
                &["failed", "running"],
                broken("running: why; action `a0` was failed"),
            ),
            ("running", &[], broken("the experiment has no action")),
            (
                "completed",
                &["completed", "skipped"],
                broken("completed: why; action `a1` was skipped"),
            ),
            ("stopping", &["stopping", "running"], over("stopping: why")),
            ("stopped", &["stopped", "stopped"], over("stopped: why")),
            ("completed", &["completed", "completed"], over("completed: why")),
            ("failed", &[], broken("failed: why")),
            ("cancelled", &[], broken("cancelled: why")),
            ("thinking", &["running"], Isolation::Coming),
        ];
        for (status, actions, expected) in rows {
            assert_eq!(
                experiment(status, actions).isolation(),
                expected,
                "{status} {actions:?}"
            );
        }
    }
}
