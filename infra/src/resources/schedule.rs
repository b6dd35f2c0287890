//! An EventBridge Scheduler schedule that calls one target. Schedules take no tags; the blueprint key is the description.

use aws_sdk_scheduler::types::{
    FlexibleTimeWindow, FlexibleTimeWindowMode, RetryPolicy, ScheduleState, Target,
};
use serde::{Deserialize, Serialize};

use super::tagging::named_ours;
use crate::error::{KindError, absent};
use crate::kind::{Found, Kind, Live, Site};

/// The kind.
#[derive(Debug)]
pub struct Schedule;

/// What we want.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Spec {
    /// The schedule's name, in the default group.
    pub name: String,
    /// The blueprint key: what a tag says elsewhere.
    pub description: String,
    /// `rate(1 minute)` or a cron expression.
    pub expression: String,
    /// ARN of what is called.
    pub target_arn: String,
    /// The role that the scheduler takes to call it.
    pub role_arn: String,
    /// The payload, JSON.
    pub input: String,
    /// Further attempts of a call that failed.
    pub retries: i32,
    /// A call this much too late is dropped.
    pub max_age_s: i32,
    /// A call may come later than the expression says. Never; but somebody may have given it a window.
    pub flexible: bool,
    /// It is switched on, without a first or a last day.
    pub enabled: bool,
}

/// Nothing refers to it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outputs {
    /// Its ARN.
    pub arn: String,
}

impl Kind for Schedule {
    const NAME: &'static str = "schedule";
    const IMMUTABLE: &'static [&'static str] = &["name"];

    type Spec = Spec;
    type Outputs = Outputs;

    async fn observe(site: &Site<'_>, spec: &Spec) -> Result<Option<Live<Spec, Outputs>>, KindError> {
        let result = site
            .cloud
            .scheduler(site.region)
            .get_schedule()
            .name(&spec.name)
            .send()
            .await;
        let answer = absent(result, &["ResourceNotFoundException"])
            .map_err(|e| site.fail("GetSchedule", &spec.name, e))?;
        Ok(answer.map(|live| {
            let target = live.target();
            let retry = target.and_then(Target::retry_policy);
            Live {
                spec: Spec {
                    name: live.name().unwrap_or_default().to_owned(),
                    description: live.description().unwrap_or_default().to_owned(),
                    expression: live.schedule_expression().unwrap_or_default().to_owned(),
                    target_arn: target.map(|target| target.arn().to_owned()).unwrap_or_default(),
                    role_arn: target
                        .map(|target| target.role_arn().to_owned())
                        .unwrap_or_default(),
                    input: target.and_then(Target::input).unwrap_or_default().to_owned(),
                    // What AWS does when it is not told.
                    retries: retry.and_then(RetryPolicy::maximum_retry_attempts).unwrap_or(185),
                    max_age_s: retry
                        .and_then(RetryPolicy::maximum_event_age_in_seconds)
                        .unwrap_or(86_400),
                    flexible: live
                        .flexible_time_window()
                        .is_some_and(|window| window.mode() != &FlexibleTimeWindowMode::Off),
                    enabled: live.state() == Some(&ScheduleState::Enabled)
                        && live.start_date().is_none()
                        && live.end_date().is_none(),
                },
                outputs: Outputs {
                    arn: live.arn().unwrap_or_default().to_owned(),
                },
                settling: None,
            }
        }))
    }

    async fn create(site: &Site<'_>, spec: &Spec) -> Result<(), KindError> {
        let result = site
            .cloud
            .scheduler(site.region)
            .create_schedule()
            .name(&spec.name)
            .description(&spec.description)
            .schedule_expression(&spec.expression)
            .flexible_time_window(on_time())
            .target(target(spec))
            .state(state(spec))
            .send()
            .await;
        absent(result, &["ConflictException"]).map_err(|e| site.fail("CreateSchedule", &spec.name, e))?;
        Ok(())
    }

    /// Everything, because UpdateSchedule sets what it is not given to its default.
    async fn update(site: &Site<'_>, spec: &Spec, _live: &Live<Spec, Outputs>) -> Result<(), KindError> {
        site.cloud
            .scheduler(site.region)
            .update_schedule()
            .name(&spec.name)
            .description(&spec.description)
            .schedule_expression(&spec.expression)
            .flexible_time_window(on_time())
            .target(target(spec))
            .state(state(spec))
            .send()
            .await
            .map_err(|e| site.fail("UpdateSchedule", &spec.name, e))?;
        Ok(())
    }

    async fn delete(site: &Site<'_>, live: &Live<Spec, Outputs>) -> Result<(), KindError> {
        Self::discard(site, &live.spec.name).await
    }

    async fn discard(site: &Site<'_>, name: &str) -> Result<(), KindError> {
        let result = site
            .cloud
            .scheduler(site.region)
            .delete_schedule()
            .name(name)
            .send()
            .await;
        absent(result, &["ResourceNotFoundException"]).map_err(|e| site.fail("DeleteSchedule", name, e))?;
        Ok(())
    }

    /// By name.
    async fn list(site: &Site<'_>) -> Result<Vec<Found>, KindError> {
        let scheduler = site.cloud.scheduler(site.region);
        let mut schedules = scheduler
            .list_schedules()
            .group_name("default")
            .into_paginator()
            .items()
            .send();
        let mut found = Vec::new();
        while let Some(schedule) = schedules.next().await {
            let schedule = schedule.map_err(|e| site.fail("ListSchedules", site.suffix, e))?;
            let Some(name) = schedule.name().filter(|name| named_ours(name, site.suffix)) else {
                continue;
            };
            let result = scheduler.get_schedule().name(name).send().await;
            let live = absent(result, &["ResourceNotFoundException"])
                .map_err(|e| site.fail("GetSchedule", name, e))?;
            found.push(site.found::<Schedule>(name, live.and_then(|live| live.description)));
        }
        Ok(found)
    }
}

fn on_time() -> FlexibleTimeWindow {
    FlexibleTimeWindow::builder()
        .mode(FlexibleTimeWindowMode::Off)
        .build()
        .expect("the mode is given")
}

fn state(spec: &Spec) -> ScheduleState {
    if spec.enabled {
        ScheduleState::Enabled
    } else {
        ScheduleState::Disabled
    }
}

fn target(spec: &Spec) -> Target {
    Target::builder()
        .arn(&spec.target_arn)
        .role_arn(&spec.role_arn)
        .input(&spec.input)
        .retry_policy(
            RetryPolicy::builder()
                .maximum_retry_attempts(spec.retries)
                .maximum_event_age_in_seconds(spec.max_age_s)
                .build(),
        )
        .build()
        .expect("target and role are given")
}
