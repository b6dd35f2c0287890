//! The rounds of one invocation: look at both regions, write down what was seen, in the standby region assess and act, and in
//! both see to it that a change of the active region comes to its end.

use std::sync::Arc;
use std::time::Duration;

use continuity::assess::{Verdict, assess};
use continuity::control::{ControlRecord, ControlStore, Phase, Swap};
use continuity::error::{StoreError, chain};
use continuity::names::{Slot, Takeover};
use continuity::observe::{Look, Observation, Round};
use futures::StreamExt;
use futures::future::BoxFuture;
use futures::stream::FuturesOrdered;
use serde::Serialize;

use crate::config::{CUT_MARGIN_MS, DEADLINE_MARGIN_MS, MOST_PAUSE_MS, ProbeConfig, REPORT_LIMIT};
use crate::look::Looker;
use crate::start::{Job, Pause, StartError, Started, Starter, start_once};
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
    eyes: Vec<Eye>,
    record: Option<ControlRecord>,
    told: Option<String>,
}

/// The looks at one region, in the order in which they began. A look that takes longer than a round goes on during the next
/// one, which begins one of its own: a region that answers nobody is seen to fail at every round, not at every other one.
struct Eye {
    region: String,
    looks: FuturesOrdered<BoxFuture<'static, Round>>,
    seen: Vec<Round>,
}

impl Eye {
    fn new(region: &str) -> Self {
        Eye {
            region: region.to_owned(),
            looks: FuturesOrdered::new(),
            seen: Vec::new(),
        }
    }

    fn begin(&mut self, looker: &Arc<dyn Looker>, timer: &Arc<dyn Timer>) {
        let (looker, timer, region) = (Arc::clone(looker), Arc::clone(timer), self.region.clone());
        self.looks.push_back(Box::pin(async move {
            let begin_ms = timer.now_ms();
            let look = looker.look(&region).await;
            let at_ms = timer.now_ms();
            Round {
                at_ms,
                took_ms: at_ms.saturating_sub(begin_ms),
                look,
            }
        }));
    }

    /// Until every look has ended. Cut short, what has ended is in `seen` and the others go on with the next call.
    async fn open(&mut self) {
        while let Some(round) = self.looks.next().await {
            self.seen.push(round);
        }
    }
}

/// What a round says of those after it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Next {
    /// There is more to look at.
    Round,
    /// This invocation has nothing left to do.
    End(Ended),
}

/// Why an invocation ends before its time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ended {
    /// The stack that it looks at is no more: it was deleted, or deployed anew under the same name.
    OtherStack,
    /// A later invocation of this observer has made a round.
    Relieved,
}

/// What was reported of a round.
enum Reported {
    /// It is stored, and this execution was started.
    Stored(Option<String>),
    /// Nothing, and so it is with every round after it.
    Nothing(Ended),
}

impl Probe {
    /// Makes rounds until a later invocation has made one, which the schedule starts each minute: nobody sees a region fail
    /// while nobody looks. Or until shortly before `deadline_ms` (milliseconds since the Unix epoch), if none comes; or until
    /// the control table says that this invocation's stack is no more: what is seen of its endpoints from then on says
    /// nothing of the stack that follows.
    ///
    /// Guarantees: a round that fails is the end of that round only. Two invocations at once are harmless: the table keeps
    /// what the later one saw, and an execution is started once.
    pub async fn run(&self, deadline_ms: u64) -> Summary {
        let begin_ms = self.timer.now_ms();
        let end_ms = deadline_ms.saturating_sub(DEADLINE_MARGIN_MS);
        let mut memory = Memory {
            observation: Observation {
                begun_ms: begin_ms,
                ..self.remembered().await
            },
            eyes: self.eyes(),
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
                Ok(Next::End(Ended::OtherStack)) => {
                    tracing::info!("this stack is no more: the invocation ends");
                    return summary;
                }
                Ok(Next::End(Ended::Relieved)) => return summary,
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
        self.look_at_both(memory).await;
        match tokio::time::timeout(REPORT_LIMIT, self.report(memory)).await {
            Ok(Ok(Reported::Stored(started))) => summary.started = started.or(summary.started.take()),
            Ok(Ok(Reported::Nothing(why))) => return Next::End(why),
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

    fn eyes(&self) -> Vec<Eye> {
        Slot::SERVING
            .map(|slot| Eye::new(self.config.function.regions.of(slot)))
            .into()
    }

    /// Looks at both serving regions, side by side, and waits until every look has ended, or the next round is due.
    async fn look_at_both(&self, memory: &mut Memory) {
        for eye in &mut memory.eyes {
            eye.begin(&self.looker, &self.timer);
        }
        let interval = Duration::from_millis(self.config.interval_ms);
        let looks = futures::future::join_all(memory.eyes.iter_mut().map(Eye::open));
        // Those that have not ended are there in the next round.
        let _ = tokio::time::timeout(interval, looks).await;
        for eye in &mut memory.eyes {
            for round in eye.seen.drain(..) {
                let before = memory.observation.newest(&eye.region);
                if before.map(|round| outcome(&round.look)) != Some(outcome(&round.look)) {
                    tracing::info!(
                        region = eye.region,
                        took_ms = round.took_ms,
                        look = ?round.look,
                        "the look changed"
                    );
                }
                memory.observation.push(&eye.region, round);
            }
        }
    }

    /// Stores the observation, if the stack is still the one that earlier rounds saw; in the standby region assesses it with
    /// those of the others, and acts on the verdict. Nothing is done by a region that could not store what it saw.
    async fn report(&self, memory: &mut Memory) -> Result<Reported, ReportError> {
        let record = self.control.read().await?;
        let same = match (&memory.record, &record) {
            (None, _) => true,
            (Some(_), None) => false,
            (Some(earlier), Some(record)) => record.follows(earlier),
        };
        if !same {
            return Ok(Reported::Nothing(Ended::OtherStack));
        }
        memory.record.clone_from(&record);
        let Some(record) = record else {
            return Ok(match self.control.put_observation(&memory.observation).await? {
                Swap::Done => Reported::Stored(None),
                Swap::Lost => Reported::Nothing(Ended::Relieved),
            });
        };
        let stale_after_ms = self.config.policy.stale_after_ms;
        if memory
            .observation
            .learn(&record, stale_after_ms, self.timer.now_ms())
        {
            memory.eyes = self.eyes();
        }
        let verdict = if self.stands_by(&record) {
            self.assess(&record, &mut memory.observation).await.map(Some)
        } else {
            memory.observation.assessment = None;
            Ok(None)
        };
        if self.control.put_observation(&memory.observation).await? == Swap::Lost {
            return Ok(Reported::Nothing(Ended::Relieved));
        }
        let job = match verdict? {
            Some(verdict @ (Verdict::Failover { .. } | Verdict::Propose { .. })) => {
                self.takeover(&record, &verdict)
            }
            Some(Verdict::Hold { .. }) | None => self.unfinished(&record),
        };
        let Some(job) = job else {
            return Ok(Reported::Stored(None));
        };
        self.start(&job, memory).await.map(Reported::Stored)
    }

    /// Whether this is the region that takes over.
    fn stands_by(&self, record: &ControlRecord) -> bool {
        let function = &self.config.function;
        function.regions.peer_of(&record.active_region) == Some(function.region())
    }

    /// Assesses, and keeps in the own observation when the others changed and what came of it.
    async fn assess(&self, record: &ControlRecord, own: &mut Observation) -> Result<Verdict, StoreError> {
        let function = &self.config.function;
        let others: Vec<&str> = Slot::ALL
            .map(|slot| function.regions.of(slot))
            .into_iter()
            .filter(|region| *region != function.region())
            .collect();
        let mut observations = self.control.observations(&others).await?;
        let (policy, now_ms) = (&self.config.policy, self.timer.now_ms());
        own.sight(&observations, policy.stale_after_ms, now_ms);
        observations.push(own.clone());
        let verdict = assess(
            record,
            &observations,
            function.region(),
            policy,
            &function.regions,
            now_ms,
        );
        if own.keep_verdict(verdict.clone(), now_ms) {
            tracing::info!(
                epoch = record.epoch,
                verdict = verdict.kind(),
                reasons = ?verdict.reasons(),
                "the verdict changed"
            );
        }
        Ok(verdict)
    }

    /// The failover that a verdict asks for. For a proposal the same workflow runs: it waits for a person.
    fn takeover(&self, record: &ControlRecord, verdict: &Verdict) -> Option<Job<'_>> {
        let (Verdict::Failover {
            to_region,
            cause,
            reasons,
            ..
        }
        | Verdict::Propose {
            to_region,
            cause,
            reasons,
            ..
        }) = verdict
        else {
            return None;
        };
        let pause_ms = self.config.interval_ms * 3;
        Some(Job {
            state_machine: self.config.failover_state_machine.as_deref()?,
            base_name: self.config.function.names.failover_execution(record.epoch + 1),
            input: serde_json::json!({
                "epoch": record.epoch,
                "to_region": to_region,
                "started_by": "health-probe",
                "verdict": verdict.kind(),
                "cause": cause,
                "reasons": reasons,
                "decided_ms": self.timer.now_ms(),
            }),
            asks: matches!(verdict, Verdict::Propose { .. }),
            // Each of them may be the right one: an attempt that held says nothing of the next.
            pause: Pause {
                first_ms: pause_ms,
                most_ms: pause_ms,
                answer_ms: self.config.policy.approval_expires_ms,
            },
        })
    }

    /// What must run in this region because the record is not in the phase `serving`: the workflow that takes it there. It
    /// works for the region that it runs in, so the region that takes over sees to it.
    fn unfinished(&self, record: &ControlRecord) -> Option<Job<'_>> {
        let config = &self.config;
        let (names, me) = (&config.function.names, config.function.region());
        let (workflow, epoch) = match record.phase {
            Phase::Serving => return None,
            Phase::Recovering if record.active_region == me => {
                let execution = names
                    .takeover_of(&record.changed_by)
                    .filter(|(_, epoch)| *epoch == record.epoch);
                if execution.is_none() {
                    let (phase, changed_by) = (record.phase.as_str(), record.changed_by.as_str());
                    tracing::warn!(phase, changed_by, "no workflow of this epoch is known");
                }
                execution?
            }
            Phase::Draining if self.stands_by(record) => (Takeover::Switchover, record.epoch + 1),
            Phase::Recovering | Phase::Draining => return None,
        };
        let mut input = serde_json::json!({
            "epoch": epoch.saturating_sub(1),
            "to_region": me,
            "started_by": "health-probe",
            "reasons": [format!(
                "the phase is {} and the execution that is to end it has ended itself",
                record.phase
            )],
            "decided_ms": self.timer.now_ms(),
        });
        let state_machine = match workflow {
            Takeover::Failover => &config.failover_state_machine,
            Takeover::Switchover => {
                input["mode"] = "graceful".into();
                &config.switchover_state_machine
            }
        };
        let first_ms = config.interval_ms * 3;
        Some(Job {
            state_machine: state_machine.as_deref()?,
            base_name: names.takeover_execution(workflow, epoch),
            input,
            asks: false,
            pause: Pause {
                first_ms,
                most_ms: MOST_PAUSE_MS.max(first_ms),
                answer_ms: first_ms,
            },
        })
    }

    /// Starts a job unless it runs. The name of the execution that was started now.
    async fn start(&self, job: &Job<'_>, memory: &mut Memory) -> Result<Option<String>, ReportError> {
        // Proposals are counted by themselves: one that waits is found although a failover went ahead of it.
        let key = if job.asks {
            format!("{}?", job.base_name)
        } else {
            job.base_name.clone()
        };
        let attempt = memory.observation.attempts.entry(key).or_default();
        let now_ms = self.timer.now_ms();
        let started = start_once(self.starter.as_ref(), job, attempt, now_ms).await?;
        let text = format!("{started:?}");
        if memory.told.as_ref() != Some(&text) {
            let (asks, reasons) = (job.asks, job.input["reasons"].to_string());
            tracing::warn!(execution = text, asks, reasons, "a workflow is to run");
            memory.told = Some(text);
        }
        Ok(match started {
            Started::Now(name) => Some(name),
            Started::Running(_) | Started::Ended(_) => None,
        })
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

    /// The same clock, and while it jumps another observer makes its rounds. Its own clock is wrong by `skew_ms`.
    struct Company {
        clock: Arc<Jumping>,
        control: Arc<MemoryControl>,
        observer: &'static str,
        home_fails_from_ms: u64,
        skew_ms: i64,
        dies_ms: u64,
    }

    #[async_trait]
    impl Timer for Company {
        fn now_ms(&self) -> u64 {
            self.clock.now_ms()
        }

        async fn sleep_until(&self, at_ms: u64) {
            self.clock.sleep_until(at_ms).await;
            let now_ms = self.clock.now_ms();
            if now_ms >= self.dies_ms {
                return;
            }
            let found = self.control.observations(&[self.observer]).await.unwrap();
            let mut seen = found
                .into_iter()
                .next()
                .unwrap_or_else(|| Observation::new(self.observer));
            for region in [HOME, DR] {
                let round = Round {
                    at_ms: now_ms.saturating_add_signed(self.skew_ms),
                    took_ms: 1,
                    look: look_at(region, now_ms, self.home_fails_from_ms),
                };
                seen.push(region, round);
            }
            self.control.put_observation(&seen).await.unwrap();
        }
    }

    fn look_at(region: &str, now_ms: u64, home_fails_from_ms: u64) -> Look {
        if region == DR {
            return Look::Standby {
                health: health(DR, false, Some(1)),
            };
        }
        if now_ms >= home_fails_from_ms {
            return Look::Failing {
                reason: "connection refused".into(),
                throttled: false,
            };
        }
        Look::Serving { epoch: 1 }
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
            look_at(region, self.timer.now_ms(), self.home_fails_from_ms)
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

        /// The standby's probe while the witness looks, too.
        fn accompanied(&self, skew_ms: i64, dies_ms: u64) -> Probe {
            let mut probe = self.probe("dr");
            probe.timer = Arc::new(Company {
                clock: self.timer.clone(),
                control: self.control.clone(),
                observer: WITNESS,
                home_fails_from_ms: self.home_fails_from_ms,
                skew_ms,
                dies_ms,
            });
            probe
        }

        /// The control record is this one from now on.
        async fn becomes(&self, change: impl FnOnce(&mut ControlRecord)) {
            let before = self.control.read().await.unwrap().unwrap();
            let mut after = before.clone();
            change(&mut after);
            after.version += 1;
            self.control.replace(&before, &after).await.unwrap();
        }

        async fn own(&self, region: &str) -> Observation {
            self.control.observations(&[region]).await.unwrap().pop().unwrap()
        }

        fn input(&self, execution: &str) -> serde_json::Value {
            let executions = self.starter.executions.lock().unwrap();
            serde_json::from_str(&executions[execution].1).unwrap()
        }

        fn executions(&self) -> Vec<String> {
            self.starter.executions.lock().unwrap().keys().cloned().collect()
        }
    }

    #[tokio::test]
    async fn an_invocation_makes_rounds_and_ends_before_its_deadline() {
        let stage = Stage::new(u64::MAX);
        for (time_ms, rounds) in [(90_000, 89), (11_000, 10)] {
            let deadline_ms = stage.timer.now_ms() + time_ms;
            let summary = stage.probe("witness").run(deadline_ms).await;
            assert_eq!(summary.rounds, rounds, "{summary:?}");
            assert!(stage.timer.now_ms() + DEADLINE_MARGIN_MS <= deadline_ms);
        }
    }

    /// A clock at whose `after`th sleep the next invocation makes its first round.
    struct Relief {
        clock: Arc<Jumping>,
        after: u64,
        next: Probe,
        sleeps: AtomicU64,
        relieved: AtomicU64,
    }

    #[async_trait]
    impl Timer for Relief {
        fn now_ms(&self) -> u64 {
            self.clock.now_ms()
        }

        async fn sleep_until(&self, at_ms: u64) {
            self.clock.sleep_until(at_ms).await;
            if self.sleeps.fetch_add(1, Ordering::SeqCst) + 1 == self.after {
                self.next.run(0).await;
                self.relieved.store(self.clock.now_ms(), Ordering::SeqCst);
            }
        }
    }

    #[tokio::test]
    async fn an_invocation_goes_on_until_the_next_one_has_made_a_round() {
        let stage = Stage::new(u64::MAX);
        let relief = Arc::new(Relief {
            clock: stage.timer.clone(),
            after: 70,
            next: stage.probe("witness"),
            sleeps: AtomicU64::new(0),
            relieved: AtomicU64::new(0),
        });
        let mut probe = stage.probe("witness");
        probe.timer = relief.clone();
        let summary = probe.run(BEGIN_MS + 90_000).await;
        assert_eq!((summary.rounds, summary.unreported), (70, 0));
        let relieved_ms = relief.relieved.load(Ordering::SeqCst);
        assert_eq!(relieved_ms, BEGIN_MS + 70_000);
        assert_eq!(stage.timer.now_ms(), relieved_ms, "it ends with the round after");
        // Each second was looked at once, by one of them, and what the later one saw is what stands in the table.
        let own = stage.own(WITNESS).await;
        assert_eq!(own.begun_ms, relieved_ms);
        let times = own.rounds[HOME].iter().map(|round| round.at_ms);
        let expected = (relieved_ms - 29_000..=relieved_ms).step_by(1_000);
        assert_eq!(times.collect::<Vec<_>>(), expected.collect::<Vec<_>>());
    }

    /// Eyes whose looks at the home region do not end before they are let.
    struct Hanging {
        timer: Arc<Jumping>,
        let_go: tokio::sync::Semaphore,
    }

    #[async_trait]
    impl Looker for Hanging {
        async fn look(&self, region: &str) -> Look {
            if region == HOME {
                self.let_go.acquire().await.unwrap().forget();
            }
            look_at(region, self.timer.now_ms(), 0)
        }
    }

    /// A witness with such eyes that has seen nothing yet.
    fn hanging(stage: &Stage) -> (Probe, Arc<Hanging>, Memory) {
        let mut probe = stage.probe("witness");
        probe.config.interval_ms = 100;
        let eyes = Arc::new(Hanging {
            timer: stage.timer.clone(),
            let_go: tokio::sync::Semaphore::new(0),
        });
        probe.looker = eyes.clone();
        let memory = Memory {
            observation: Observation::new(WITNESS),
            eyes: probe.eyes(),
            record: None,
            told: None,
        };
        (probe, eyes, memory)
    }

    #[tokio::test]
    async fn a_look_that_hangs_delays_no_later_look() {
        let stage = Stage::new(0);
        let (probe, eyes, mut memory) = hanging(&stage);
        let seen = |memory: &Memory| {
            [HOME, DR].map(|region| memory.observation.rounds.get(region).map_or(0, Vec::len))
        };
        for round in 1..=3 {
            stage.timer.sleep_until(BEGIN_MS + round * 100).await;
            probe.look_at_both(&mut memory).await;
            assert_eq!(seen(&memory), [0, usize::try_from(round).unwrap()]);
        }
        eyes.let_go.add_permits(4);
        stage.timer.sleep_until(BEGIN_MS + 400).await;
        probe.look_at_both(&mut memory).await;
        assert_eq!(seen(&memory), [4, 4], "one of each round");
        let took = memory.observation.rounds[HOME].iter().map(|round| round.took_ms);
        assert_eq!(
            took.collect::<Vec<_>>(),
            [300, 200, 100, 0],
            "in the order in which they began"
        );
    }

    #[tokio::test]
    async fn a_look_that_began_in_an_earlier_epoch_says_nothing_of_the_next() {
        let stage = Stage::new(0);
        let (probe, eyes, mut memory) = hanging(&stage);
        for _ in 0..2 {
            probe.look_at_both(&mut memory).await;
        }
        assert!(probe.report(&mut memory).await.is_ok());
        eyes.let_go.add_permits(3);
        probe.look_at_both(&mut memory).await;
        assert_eq!(memory.observation.rounds[HOME].len(), 1);
        assert_eq!(memory.observation.record.unwrap().rounds, 1);
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

        let summary = stage
            .accompanied(0, u64::MAX)
            .run(stage.timer.now_ms() + 8_000)
            .await;
        assert_eq!(summary.started.as_deref(), Some("failover-dev-2"));
        assert_eq!(stage.executions(), ["failover-dev-2"]);
        let input = stage.input("failover-dev-2");
        assert_eq!(input["epoch"], 1);
        assert_eq!(input["to_region"], DR);
        assert_eq!(input["started_by"], "health-probe");
        assert_eq!(
            (&input["verdict"], &input["cause"]),
            (&"failover".into(), &"dead".into())
        );
        assert!(!input["reasons"].as_array().unwrap().is_empty());
    }

    #[tokio::test]
    async fn an_execution_that_held_is_followed_by_another_while_the_region_fails() {
        let stage = Stage::new(BEGIN_MS);
        let ended = Execution::Ended {
            at_ms: BEGIN_MS,
            asked: false,
        };
        stage
            .starter
            .executions
            .lock()
            .unwrap()
            .insert("failover-dev-2".into(), (ended, String::new()));
        let summary = stage.accompanied(0, u64::MAX).run(BEGIN_MS + 12_000).await;
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
    async fn a_witness_that_died_starts_nothing_by_what_it_saw_once_whatever_its_clock_shows() {
        for skew_ms in [-60_000, 0, 60_000] {
            let stage = Stage::new(BEGIN_MS + 4_000);
            // It saw two failing rounds, and then no more; its last observation stays in the table.
            let mut standby = stage.accompanied(skew_ms, BEGIN_MS + 5_500);
            standby.config.policy.rounds_to_fail = 4;
            let summary = standby.run(BEGIN_MS + 59_000).await;
            assert_eq!(summary.started, None, "{skew_ms}");
            let mut later = stage.probe("dr");
            later.config.policy.rounds_to_fail = 2;
            let summary = later.run(stage.timer.now_ms() + 9_000).await;
            assert_eq!(summary.started, None, "{skew_ms}: nothing recent");
            let own = stage.own(DR).await;
            let reasons = own.assessment.unwrap().verdict.reasons().join("; ");
            assert!(reasons.contains("us-west-2 has seen nothing recent"), "{reasons}");
        }
    }

    #[tokio::test]
    async fn a_clock_that_is_a_minute_wrong_prevents_no_failover() {
        for skew_ms in [-60_000, 60_000] {
            let stage = Stage::new(BEGIN_MS + 2_000);
            let summary = stage.accompanied(skew_ms, u64::MAX).run(BEGIN_MS + 10_000).await;
            assert_eq!(summary.started.as_deref(), Some("failover-dev-2"), "{skew_ms}");
        }
    }

    #[tokio::test]
    async fn what_was_seen_of_the_others_outlives_an_invocation() {
        let stage = Stage::new(BEGIN_MS + 4_000);
        stage.accompanied(30_000, u64::MAX).run(BEGIN_MS + 5_500).await;
        let before = stage.own(DR).await;
        assert!(before.sightings[WITNESS].seen_ms.is_some());
        assert_eq!(before.sightings.len(), 2);
        // One round each: only what the last invocation remembers makes the witness's observation a recent one.
        for _ in 0..3 {
            let company = stage.accompanied(30_000, u64::MAX);
            company.timer.sleep_until(stage.timer.now_ms() + 1_000).await;
            company.run(0).await;
        }
        assert_eq!(stage.executions(), ["failover-dev-2"]);
        let own = stage.own(DR).await;
        assert_eq!(
            own.assessment.as_ref().map(|latest| latest.verdict.kind()),
            Some("failover")
        );
        let kinds: Vec<&str> = own.verdicts.iter().map(|change| change.verdict.kind()).collect();
        assert_eq!(kinds, ["hold", "failover"]);
        assert!(
            own.verdicts
                .iter()
                .all(|change| !change.verdict.reasons().is_empty())
        );
    }

    #[tokio::test]
    async fn a_proposal_starts_the_workflow_and_after_an_answer_comes_back_no_sooner_than_it_expires() {
        let stage = Stage::new(BEGIN_MS);
        let probe = || {
            let mut probe = stage.accompanied(0, u64::MAX);
            probe.config.policy.decider = continuity::assess::Decider::Approve;
            probe.config.policy.approval_expires_ms = 60_000;
            probe
        };
        let summary = probe().run(BEGIN_MS + 12_000).await;
        assert_eq!(summary.started.as_deref(), Some("failover-dev-2"));
        assert_eq!(stage.input("failover-dev-2")["verdict"], "propose");
        let declined_ms = stage.timer.now_ms();
        stage.starter.end("failover-dev-2", declined_ms);
        let summary = probe().run(declined_ms + 59_000).await;
        assert_eq!(summary.started, None);
        let summary = probe().run(stage.timer.now_ms() + 9_000).await;
        assert_eq!(summary.started.as_deref(), Some("failover-dev-2-2"));
        assert!(stage.timer.now_ms() >= declined_ms + 60_000);
    }

    #[tokio::test]
    async fn a_failover_does_not_wait_for_the_answer_to_a_proposal() {
        let stage = Stage::new(BEGIN_MS);
        let waiting = (
            Execution::Running { asks: true },
            r#"{"verdict":"propose"}"#.to_owned(),
        );
        stage
            .starter
            .executions
            .lock()
            .unwrap()
            .insert("failover-dev-2".into(), waiting);
        let summary = stage.accompanied(0, u64::MAX).run(BEGIN_MS + 12_000).await;
        assert_eq!(summary.started.as_deref(), Some("failover-dev-2-2"));
    }

    #[tokio::test]
    async fn a_takeover_whose_execution_ended_early_runs_again_with_growing_pauses_and_for_ever() {
        for (changed_by, base, machine, mode) in [
            ("failover-dev-2", "failover-dev-2", "failover-dr-dev", None),
            ("failover-dev-2-7", "failover-dev-2", "failover-dr-dev", None),
            (
                "switchover-dev-2",
                "switchover-dev-2",
                "switchover-dr-dev",
                Some("graceful"),
            ),
        ] {
            let stage = Stage::new(BEGIN_MS);
            stage
                .becomes(|record| {
                    record.epoch = 2;
                    record.active_region = DR.into();
                    record.phase = Phase::Recovering;
                    record.changed_by = changed_by.into();
                    record.since_ms = BEGIN_MS;
                })
                .await;
            let mut starts = Vec::new();
            for _ in 0..400 {
                let now_ms = stage.timer.now_ms();
                if let Some(name) = stage.probe("dr").run(0).await.started {
                    stage.starter.end(&name, now_ms);
                    starts.push((name, now_ms));
                }
                stage.timer.sleep_until(now_ms + 1_000).await;
            }
            let names: Vec<&str> = starts.iter().take(3).map(|(name, _)| name.as_str()).collect();
            assert_eq!(names, [base.to_owned(), format!("{base}-2"), format!("{base}-3")]);
            let pauses: Vec<u64> = starts.windows(2).map(|pair| pair[1].1 - pair[0].1).collect();
            assert_eq!(pauses, [3_000, 6_000, 12_000, 24_000, 48_000, 96_000, 192_000]);
            let input = stage.input(&format!("{base}-2"));
            assert_eq!(
                (input["epoch"].as_u64(), input["to_region"].as_str()),
                (Some(1), Some(DR))
            );
            assert_eq!(input["mode"].as_str(), mode);
            assert!(!input["reasons"].as_array().unwrap().is_empty());
            let machines = stage.starter.machines.lock().unwrap();
            assert!(
                machines.values().all(|arn| arn.ends_with(machine)),
                "{machines:?}"
            );
        }
    }

    #[tokio::test]
    async fn a_switchover_that_died_while_draining_is_started_again_where_it_leads_to() {
        let stage = Stage::new(u64::MAX);
        stage
            .becomes(|record| {
                record.phase = Phase::Draining;
                record.changed_by = "switchover-dev-2".into();
                record.since_ms = BEGIN_MS;
            })
            .await;
        let executions = || stage.starter.executions.lock().unwrap();
        executions().insert(
            "switchover-dev-2".into(),
            (Execution::Running { asks: false }, "{}".into()),
        );
        for slot in ["dr", "primary", "witness"] {
            stage.probe(slot).run(0).await;
        }
        assert_eq!(stage.executions(), ["switchover-dev-2"], "it runs");
        stage.starter.end("switchover-dev-2", stage.timer.now_ms());
        stage.timer.sleep_until(stage.timer.now_ms() + 3_000).await;
        for slot in ["primary", "witness"] {
            assert_eq!(stage.probe(slot).run(0).await.started, None, "{slot}");
        }
        let summary = stage.probe("dr").run(0).await;
        assert_eq!(summary.started.as_deref(), Some("switchover-dev-2-2"));
        assert_eq!(stage.input("switchover-dev-2-2")["epoch"], 1);
        assert_eq!(stage.input("switchover-dev-2-2")["mode"], "graceful");
    }

    #[tokio::test]
    async fn nothing_is_started_again_once_the_region_serves_or_where_another_region_takes_over() {
        let stage = Stage::new(u64::MAX);
        for (phase, active, changed_by) in [
            (Phase::Serving, DR, "failover-dev-2"),
            (Phase::Recovering, HOME, "failover-dev-2"),
            (Phase::Recovering, DR, "failover-dev-1"),
            (Phase::Recovering, DR, "an operator"),
        ] {
            stage
                .becomes(|record| {
                    record.epoch = 2;
                    record.active_region = active.into();
                    record.phase = phase;
                    record.changed_by = changed_by.into();
                })
                .await;
            let summary = stage.probe("dr").run(stage.timer.now_ms() + 4_000).await;
            assert_eq!(
                (summary.started, summary.unreported),
                (None, 0),
                "{phase} {changed_by}"
            );
        }
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
        let mut standby = stage.accompanied(0, u64::MAX);
        standby.config.policy.decider = continuity::assess::Decider::Manual;
        let summary = standby.run(BEGIN_MS + 9_000).await;
        assert_eq!((summary.started, summary.unreported), (None, 0));
        let own = stage.own(DR).await;
        let reasons = own.assessment.unwrap().verdict.reasons().join("; ");
        assert!(reasons.contains("leaves failover to a person"), "{reasons}");
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
