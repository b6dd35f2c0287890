//! The rounds of one invocation: look at both regions, write down what was seen, and in the standby region assess and act.

use std::sync::Arc;
use std::time::Duration;

use continuity::assess::{Verdict, assess};
use continuity::control::{ControlRecord, ControlStore};
use continuity::error::{StoreError, chain};
use continuity::names::Slot;
use continuity::observe::{Look, Observation, Round};
use serde::Serialize;

use crate::config::{CUT_MARGIN_MS, DEADLINE_MARGIN_MS, INVOCATION_MS, ProbeConfig, REPORT_LIMIT};
use crate::look::Looker;
use crate::start::{StartError, Started, Starter, start_once};
use crate::timer::Timer;

/// Everything an invocation works with, built once per process.
pub struct Probe {
    /// The configuration.
    pub config: ProbeConfig,
    /// The control table, read and written in this region.
    pub control: Arc<dyn ControlStore>,
    /// Eyes.
    pub looker: Arc<dyn Looker>,
    /// Step Functions of this region.
    pub starter: Arc<dyn Starter>,
    /// The clock.
    pub timer: Arc<dyn Timer>,
}

/// What an invocation did.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Summary {
    /// Rounds made.
    pub rounds: u64,
    /// Rounds whose observation could not be stored: this region is cut off from the control table.
    pub unreported: u64,
    /// The execution this invocation started, if it did.
    pub started: Option<String>,
}

/// A round whose assessment did not come to an end.
#[derive(Debug, thiserror::Error)]
enum ReportError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Start(#[from] StartError),
}

/// What one invocation remembers from round to round.
struct Memory {
    observation: Observation,
    record: Option<ControlRecord>,
    told: Option<String>,
}

/// What a round says of those after it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Next {
    /// There is more to look at.
    Round,
    /// The stack that this invocation looks at is no more: it was deleted, or deployed anew under the same name.
    End,
}

/// What was reported of a round.
enum Reported {
    /// It is stored, and this execution was started.
    Stored(Option<String>),
    /// Nothing: the control table is not that of this invocation's stack any more.
    OtherStack,
}

impl Probe {
    /// Makes rounds until shortly before `deadline_ms` (milliseconds since the Unix epoch), a minute at most, or until the
    /// control table says that this invocation's stack is no more: what is seen of its endpoints from then on says nothing
    /// of the stack that follows.
    ///
    /// Guarantees: a round that fails is the end of that round only. Two invocations at once are harmless: each stores
    /// observations with their times, and an execution is started once.
    pub async fn run(&self, deadline_ms: u64) -> Summary {
        let begin_ms = self.timer.now_ms();
        let end_ms = (begin_ms + INVOCATION_MS).min(deadline_ms.saturating_sub(DEADLINE_MARGIN_MS));
        let mut memory = Memory {
            observation: self.remembered().await,
            record: None,
            told: None,
        };
        let mut summary = Summary {
            rounds: 0,
            unreported: 0,
            started: None,
        };
        loop {
            let round_ms = self.timer.now_ms();
            let left_ms = deadline_ms
                .saturating_sub(round_ms + CUT_MARGIN_MS)
                .max(CUT_MARGIN_MS);
            let round = self.round(&mut memory, &mut summary);
            match tokio::time::timeout(Duration::from_millis(left_ms), round).await {
                Ok(Next::Round) => {}
                Ok(Next::End) => {
                    tracing::info!("this stack is no more: the invocation ends");
                    return summary;
                }
                Err(_) => {
                    tracing::warn!("the last round did not end in time");
                    return summary;
                }
            }
            let next_ms = (round_ms + self.config.interval_ms).max(self.timer.now_ms());
            if next_ms + self.config.interval_ms > end_ms {
                return summary;
            }
            self.timer.sleep_until(next_ms).await;
        }
    }

    async fn round(&self, memory: &mut Memory, summary: &mut Summary) -> Next {
        self.look_at_both(&mut memory.observation).await;
        match tokio::time::timeout(REPORT_LIMIT, self.report(memory)).await {
            Ok(Ok(Reported::Stored(started))) => summary.started = started.or(summary.started.take()),
            Ok(Ok(Reported::OtherStack)) => return Next::End,
            Ok(Err(error)) => {
                summary.unreported += 1;
                tracing::warn!(error = chain(&error), "this round decides nothing");
            }
            Err(_) => {
                summary.unreported += 1;
                tracing::warn!("the control table did not answer in time: this round decides nothing");
            }
        }
        summary.rounds += 1;
        Next::Round
    }

    /// What earlier invocations of this observer saw; nothing if that cannot be read.
    async fn remembered(&self) -> Observation {
        let me = self.config.function.region();
        match tokio::time::timeout(REPORT_LIMIT, self.control.observations(&[me])).await {
            Ok(Ok(mut found)) => found.pop().unwrap_or_else(|| Observation::new(me)),
            Ok(Err(_)) | Err(_) => Observation::new(me),
        }
    }

    /// Looks at both serving regions, side by side.
    async fn look_at_both(&self, observation: &mut Observation) {
        let regions = Slot::SERVING.map(|slot| self.config.function.regions.of(slot));
        let looks = regions.map(|region| async move {
            let begin_ms = self.timer.now_ms();
            let look = self.looker.look(region).await;
            let at_ms = self.timer.now_ms();
            (
                region,
                Round {
                    at_ms,
                    took_ms: at_ms.saturating_sub(begin_ms),
                    look,
                },
            )
        });
        for (region, round) in futures::future::join_all(looks).await {
            let before = observation.newest(region).map(|round| outcome(&round.look));
            if before != Some(outcome(&round.look)) {
                tracing::info!(
                    region,
                    took_ms = round.took_ms,
                    look = ?round.look,
                    "the look changed"
                );
            }
            observation.push(region, round);
        }
    }

    /// Stores the observation, if the stack is still the one that earlier rounds saw; in the standby region assesses it with
    /// those of the others, and acts on the verdict.
    async fn report(&self, memory: &mut Memory) -> Result<Reported, ReportError> {
        let record = self.control.read().await?;
        let same = match (&memory.record, &record) {
            (None, _) => true,
            (Some(_), None) => false,
            (Some(earlier), Some(record)) => record.follows(earlier),
        };
        if !same {
            return Ok(Reported::OtherStack);
        }
        memory.record.clone_from(&record);
        self.control.put_observation(&memory.observation).await?;
        let (Some(state_machine), Some(record)) = (&self.config.failover_state_machine, record) else {
            return Ok(Reported::Stored(None));
        };
        let function = &self.config.function;
        if function.regions.peer_of(&record.active_region) != Some(function.region()) {
            return Ok(Reported::Stored(None));
        }
        let observers = Slot::ALL.map(|slot| function.regions.of(slot));
        let observations = self.control.observations(&observers).await?;
        let verdict = assess(
            &record,
            &observations,
            &self.config.policy,
            &function.regions,
            self.timer.now_ms(),
        );
        let started = self
            .act(state_machine, &record, verdict, &mut memory.told)
            .await?;
        Ok(Reported::Stored(started))
    }

    async fn act(
        &self,
        state_machine: &str,
        record: &ControlRecord,
        verdict: Verdict,
        told: &mut Option<String>,
    ) -> Result<Option<String>, ReportError> {
        let names = &self.config.function.names;
        match verdict {
            Verdict::Hold { .. } => Ok(None),
            Verdict::Propose {
                to_region, reasons, ..
            } => {
                tracing::warn!(
                    to_region,
                    ?reasons,
                    "a failover is proposed and waits for a person"
                );
                Ok(None)
            }
            Verdict::Failover {
                epoch,
                to_region,
                reasons,
            } => {
                let input = serde_json::json!({
                    "epoch": epoch,
                    "to_region": to_region,
                    "started_by": "health-probe",
                    "reasons": reasons,
                    "decided_ms": self.timer.now_ms(),
                });
                let started = start_once(
                    self.starter.as_ref(),
                    state_machine,
                    &names.failover_execution(record.epoch + 1),
                    &input.to_string(),
                    self.config.interval_ms * 3,
                    self.timer.now_ms(),
                )
                .await?;
                let text = format!("{started:?}");
                if told.as_ref() != Some(&text) {
                    tracing::warn!(epoch, to_region, ?reasons, execution = text, "failover");
                    *told = Some(text);
                }
                Ok(match started {
                    Started::Now(name) => Some(name),
                    Started::Running(_) | Started::Ended(_) => None,
                })
            }
        }
    }
}

/// The kind of outcome, for telling changes.
fn outcome(look: &Look) -> u8 {
    match look {
        Look::Serving { .. } => 0,
        Look::Standby { .. } => 1,
        Look::Failing { .. } => 2,
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::sync::Mutex;
    use std::sync::atomic::{AtomicU64, Ordering};

    use async_trait::async_trait;
    use continuity::memory::MemoryControl;

    use super::*;
    use crate::config::tests::config;
    use crate::look::tests::health;
    use crate::start::Execution;
    use crate::start::tests::Double;

    const HOME: &str = "us-east-1";
    const DR: &str = "us-east-2";
    const WITNESS: &str = "us-west-2";
    const BEGIN_MS: u64 = 1_000_000;

    /// A clock that jumps.
    struct Jumping(AtomicU64);

    #[async_trait]
    impl Timer for Jumping {
        fn now_ms(&self) -> u64 {
            self.0.load(Ordering::SeqCst)
        }

        async fn sleep_until(&self, at_ms: u64) {
            self.0.fetch_max(at_ms, Ordering::SeqCst);
        }
    }

    /// Eyes that see the home region fail from a time on, and the standby fit.
    struct Scene {
        timer: Arc<Jumping>,
        home_fails_from_ms: u64,
        looks: Mutex<u64>,
    }

    #[async_trait]
    impl Looker for Scene {
        async fn look(&self, region: &str) -> Look {
            *self.looks.lock().unwrap() += 1;
            if region == DR {
                return Look::Standby {
                    health: health(DR, false, Some(1)),
                };
            }
            if self.timer.now_ms() >= self.home_fails_from_ms {
                return Look::Failing {
                    reason: "connection refused".into(),
                };
            }
            Look::Serving { epoch: 1 }
        }
    }

    struct Stage {
        timer: Arc<Jumping>,
        control: Arc<MemoryControl>,
        starter: Arc<Double>,
        home_fails_from_ms: u64,
    }

    impl Stage {
        fn new(home_fails_from_ms: u64) -> Self {
            Stage {
                timer: Arc::new(Jumping(AtomicU64::new(BEGIN_MS))),
                control: Arc::new(MemoryControl::with(ControlRecord::first(HOME, "test", 0))),
                starter: Arc::default(),
                home_fails_from_ms,
            }
        }

        fn probe(&self, slot: &str) -> Probe {
            Probe {
                config: config(slot, 1000),
                control: self.control.clone(),
                looker: Arc::new(Scene {
                    timer: self.timer.clone(),
                    home_fails_from_ms: self.home_fails_from_ms,
                    looks: Mutex::new(0),
                }),
                starter: self.starter.clone(),
                timer: self.timer.clone(),
            }
        }

        fn executions(&self) -> Vec<String> {
            self.starter.executions.lock().unwrap().keys().cloned().collect()
        }
    }

    #[tokio::test]
    async fn an_invocation_makes_a_minute_of_rounds_and_ends_before_its_deadline() {
        let stage = Stage::new(u64::MAX);
        for (time_ms, rounds) in [(300_000, 59), (11_000, 10)] {
            let begin_ms = stage.timer.now_ms();
            let deadline_ms = begin_ms + time_ms;
            let summary = stage.probe("witness").run(deadline_ms).await;
            assert_eq!(summary.rounds, rounds, "{summary:?}");
            assert!(stage.timer.now_ms() + DEADLINE_MARGIN_MS <= deadline_ms);
            assert!(stage.timer.now_ms() - begin_ms < INVOCATION_MS);
        }
    }

    #[tokio::test]
    async fn an_invocation_makes_one_round_even_without_time() {
        let summary = Stage::new(u64::MAX).probe("witness").run(0).await;
        assert_eq!(summary.rounds, 1);
    }

    #[tokio::test]
    async fn an_observation_goes_on_where_the_last_invocation_ended() {
        let stage = Stage::new(u64::MAX);
        stage.probe("witness").run(BEGIN_MS + 4_500).await;
        stage.probe("witness").run(stage.timer.now_ms() + 4_500).await;
        let seen = stage.control.observations(&[WITNESS]).await.unwrap();
        assert_eq!(seen[0].rounds[HOME].len(), 6);
        assert_eq!(seen[0].rounds[DR].len(), 6);
    }

    #[tokio::test]
    async fn only_the_standby_starts_a_failover_and_only_once() {
        let stage = Stage::new(BEGIN_MS);
        stage.probe("witness").run(BEGIN_MS + 8_000).await;
        stage.probe("primary").run(stage.timer.now_ms() + 8_000).await;
        assert!(stage.executions().is_empty());

        let summary = stage.probe("dr").run(stage.timer.now_ms() + 8_000).await;
        assert_eq!(summary.started.as_deref(), Some("failover-dev-2"));
        assert_eq!(stage.executions(), ["failover-dev-2"]);
        let executions = stage.starter.executions.lock().unwrap();
        let input: serde_json::Value = serde_json::from_str(&executions["failover-dev-2"].1).unwrap();
        assert_eq!(input["epoch"], 1);
        assert_eq!(input["to_region"], DR);
        assert_eq!(input["started_by"], "health-probe");
        assert!(!input["reasons"].as_array().unwrap().is_empty());
    }

    #[tokio::test]
    async fn an_execution_that_held_is_followed_by_another_while_the_region_fails() {
        let stage = Stage::new(BEGIN_MS);
        stage.starter.executions.lock().unwrap().insert(
            "failover-dev-2".into(),
            (Execution::Ended(BEGIN_MS), String::new()),
        );
        stage.probe("witness").run(BEGIN_MS + 5_000).await;
        let summary = stage.probe("dr").run(stage.timer.now_ms() + 8_000).await;
        assert_eq!(summary.started.as_deref(), Some("failover-dev-2-2"));
    }

    #[tokio::test]
    async fn one_observer_alone_starts_nothing() {
        let stage = Stage::new(BEGIN_MS);
        let summary = stage.probe("dr").run(BEGIN_MS + 10_000).await;
        assert_eq!(summary.started, None);
        assert!(stage.executions().is_empty());
    }

    #[tokio::test]
    async fn a_region_without_the_control_table_decides_nothing_and_goes_on_looking() {
        let stage = Stage::new(BEGIN_MS);
        stage.probe("witness").run(BEGIN_MS + 5_000).await;
        stage.control.set_unreachable(true);
        let summary = stage.probe("dr").run(stage.timer.now_ms() + 6_000).await;
        assert_eq!((summary.rounds, summary.unreported), (5, 5));
        assert!(stage.executions().is_empty());
    }

    #[tokio::test]
    async fn the_policy_of_the_stack_decides() {
        let stage = Stage::new(BEGIN_MS);
        stage.probe("witness").run(BEGIN_MS + 5_000).await;
        let mut standby = stage.probe("dr");
        standby.config.policy.decider = continuity::assess::Decider::Manual;
        let summary = standby.run(stage.timer.now_ms() + 6_000).await;
        assert_eq!((summary.started, summary.unreported), (None, 0));
    }

    #[tokio::test]
    async fn before_the_first_deployment_has_finished_nobody_takes_over() {
        let stage = Stage {
            control: Arc::default(),
            ..Stage::new(BEGIN_MS)
        };
        stage.probe("witness").run(BEGIN_MS + 5_000).await;
        let summary = stage.probe("dr").run(stage.timer.now_ms() + 6_000).await;
        assert_eq!((summary.started, summary.unreported), (None, 0));
    }

    /// A clock during whose third sleep the stack is deleted, and perhaps deployed anew.
    struct Redeployment {
        clock: Arc<Jumping>,
        control: Arc<MemoryControl>,
        anew: Option<ControlRecord>,
        sleeps: AtomicU64,
    }

    #[async_trait]
    impl Timer for Redeployment {
        fn now_ms(&self) -> u64 {
            self.clock.now_ms()
        }

        async fn sleep_until(&self, at_ms: u64) {
            if self.sleeps.fetch_add(1, Ordering::SeqCst) == 2 {
                self.control.reset(self.anew.clone());
            }
            self.clock.sleep_until(at_ms).await;
        }
    }

    #[tokio::test]
    async fn an_observer_of_a_deleted_stack_ends_and_writes_nothing_into_its_successors_table() {
        for anew in [None, Some(ControlRecord::first(HOME, "test", BEGIN_MS))] {
            let stage = Stage::new(u64::MAX);
            let mut probe = stage.probe("witness");
            probe.timer = Arc::new(Redeployment {
                clock: stage.timer.clone(),
                control: stage.control.clone(),
                anew,
                sleeps: AtomicU64::new(0),
            });
            let summary = probe.run(BEGIN_MS + 30_000).await;
            assert_eq!((summary.rounds, summary.unreported), (3, 0));
            assert!(stage.control.observations(&[WITNESS]).await.unwrap().is_empty());
        }
    }
}
