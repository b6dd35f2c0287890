//! `understudy bench takeover`: how long customers are without an answer when the active region changes. A local cloud of its own,
//! customers who pay all along, and in each run a planned change, an unplanned one with the home region cut off and its database
//! killed, and a planned change home.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use continuity::control::{ControlStore, Phase};
use continuity::names::Slot;
use infra::exercise::{Evidence, StepMark};
use infra::resources::state_machine;
use infra::spec::Spec;
use serde::Serialize;

use crate::artifacts::Choice;
use crate::demo::load::{Acknowledged, Load};
use crate::demo::tally::{recovery_seconds, tally};
use crate::demo::{self};
use crate::failure::Failure;
use crate::local;
use crate::stack::Stack;
use crate::takeover::{Mode, Moved, Wish, move_to};
use crate::ui::{Ui, table};
use crate::{exercises, up};

/// The suffix of the stack.
const SUFFIX: &str = "bench";
const CLIENTS: usize = 6;
const ACCOUNTS: usize = 8;
const CURRENCY: &str = "EUR";
/// Payments between two changes, so that the gap is seen from both sides.
const BETWEEN: usize = 60;
/// How long any one thing may take.
const PATIENCE: Duration = Duration::from_secs(120);
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// What is to hold, in seconds: DESIGN's targets with probes each second.
const SWITCHOVER_GAP: f64 = 3.0;
const DECISION_TO_ANSWER: f64 = 3.0;
const RECOVERY: f64 = 8.0;

/// One kind of measurement.
#[derive(Debug, Clone, Serialize)]
pub struct Distribution {
    /// What was measured.
    pub what: &'static str,
    /// What is to hold, in seconds.
    pub at_most: f64,
    /// Every run, in seconds, in order.
    pub seconds: Vec<f64>,
}

impl Distribution {
    fn new(what: &'static str, at_most: f64) -> Self {
        Distribution {
            what,
            at_most,
            seconds: Vec::new(),
        }
    }

    /// How many runs hold.
    pub fn held(&self) -> usize {
        self.seconds
            .iter()
            .filter(|seconds| **seconds <= self.at_most)
            .count()
    }

    /// The value below which this share of the runs is.
    fn quantile(&self, share: f64) -> f64 {
        quantile(&self.seconds, share)
    }
}

/// Where the time of one kind of change goes: for each of its steps, the seconds since the end of the step before; for the first
/// one, since its own beginning.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Breakdown {
    /// The steps, in the order in which they ended.
    pub steps: Vec<Part>,
}

/// A step in all runs.
#[derive(Debug, Clone, Serialize)]
pub struct Part {
    /// The step.
    pub step: String,
    /// Every run that had it, in seconds.
    pub seconds: Vec<f64>,
}

impl Breakdown {
    fn add(&mut self, evidence: &Evidence) {
        let mut steps: Vec<&StepMark> = evidence.steps.iter().collect();
        steps.sort_by_key(|step| step.ended_ms);
        let mut before_ms = steps.first().map_or(0, |step| step.began_ms);
        for step in steps {
            let seconds = Duration::from_millis(step.ended_ms.saturating_sub(before_ms)).as_secs_f64();
            before_ms = before_ms.max(step.ended_ms);
            match self.steps.iter_mut().find(|part| part.step == step.step) {
                Some(part) => part.seconds.push(seconds),
                None => self.steps.push(Part {
                    step: step.step.clone(),
                    seconds: vec![seconds],
                }),
            }
        }
    }
}

impl fmt::Display for Breakdown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for part in &self.steps {
            writeln!(
                f,
                "    {:<16} median {:.2}, most {:.2} s",
                part.step,
                quantile(&part.seconds, 0.5),
                quantile(&part.seconds, 1.0)
            )?;
        }
        Ok(())
    }
}

/// The value below which this share of the values is.
fn quantile(values: &[f64], share: f64) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    #[allow(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss
    )]
    let index = ((sorted.len() as f64 * share).ceil() as usize).clamp(1, sorted.len().max(1)) - 1;
    sorted.get(index).copied().unwrap_or(f64::NAN)
}

/// What came of all runs.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// Planned changes: the longest time between two acknowledgements.
    pub switchover: Distribution,
    /// Unplanned ones: from the decision to the first acknowledgement.
    pub decision: Distribution,
    /// Unplanned ones: from the last acknowledgement to the next.
    pub recovery: Distribution,
    /// Where the time of the planned changes goes.
    pub planned_steps: Breakdown,
    /// Where the time of the unplanned ones goes.
    pub unplanned_steps: Breakdown,
    /// Payments acknowledged.
    pub acknowledged: usize,
    /// Of these, what the serving ledger lacks or has differently.
    pub lost: usize,
    /// What it has twice.
    pub duplicated: usize,
}

impl Report {
    /// Nothing was lost, and every run holds.
    pub fn holds(&self) -> bool {
        let distributions = [&self.switchover, &self.decision, &self.recovery];
        self.lost == 0
            && self.duplicated == 0
            && distributions.iter().all(|one| one.held() == one.seconds.len())
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for one in [&self.switchover, &self.decision, &self.recovery] {
            writeln!(
                f,
                "{}\n  {} of {} runs within {:.0} s; least {:.2}, median {:.2}, nine of ten {:.2}, most {:.2} s",
                one.what,
                one.held(),
                one.seconds.len(),
                one.at_most,
                one.quantile(0.0),
                one.quantile(0.5),
                one.quantile(0.9),
                one.quantile(1.0),
            )?;
            let all: Vec<String> = one
                .seconds
                .iter()
                .map(|seconds| format!("{seconds:.2}"))
                .collect();
            writeln!(f, "  {}", all.join(" "))?;
        }
        let breakdowns = [
            ("planned", &self.planned_steps),
            ("unplanned", &self.unplanned_steps),
        ];
        for (which, steps) in breakdowns {
            write!(f, "steps of the {which} changes\n{steps}")?;
        }
        f.write_str(&table(&[
            ("acknowledged", self.acknowledged.to_string()),
            ("lost", self.lost.to_string()),
            ("duplicated", self.duplicated.to_string()),
        ]))
    }
}

/// What the runs are made with.
#[derive(Debug, Clone, Default)]
pub struct How {
    /// The program that runs the local cloud; this one by default.
    pub program: Option<PathBuf>,
    /// Where the packages of the functions come from.
    pub packages: Choice,
}

/// Runs them in `directory`, which must be empty.
///
/// # Errors
/// Anything that stops a run before its end. The local cloud is stopped in any case.
pub async fn run(directory: &Path, runs: u32, how: How, ui: &Arc<Ui>) -> Result<Report, Failure> {
    let voice = Arc::clone(ui);
    let mut options = local::StartOptions::new(directory).progress(move |text| voice.step(text));
    if let Some(program) = how.program {
        options = options.program(program);
    }
    let cloud = local::start_attached(options).await?;
    let outcome = measure((*cloud).clone(), runs, how.packages, ui).await;
    cloud.stop().await;
    outcome
}

async fn measure(cloud: local::Cloud, runs: u32, packages: Choice, ui: &Arc<Ui>) -> Result<Report, Failure> {
    let spec = Spec {
        suffix: SUFFIX.into(),
        ..Spec::default()
    };
    let mut stack = Stack::on_local(spec, cloud.clone()).await?;
    let wishes = up::Wishes {
        packages,
        ..up::Wishes::default()
    };
    up::up(&mut stack, &wishes, ui).await?;
    let client = demo::customer(&stack).await?;
    let mut accounts = Vec::new();
    for number in 0..ACCOUNTS {
        let key = format!("open-{number}");
        accounts.push(client.open_account(&key, CURRENCY, None, PATIENCE).await?.id);
    }
    let mut report = Report {
        switchover: Distribution::new(
            "planned change: longest time between two acknowledgements",
            SWITCHOVER_GAP,
        ),
        decision: Distribution::new(
            "unplanned change, region cut off and database killed: from the decision to the first acknowledgement",
            DECISION_TO_ANSWER,
        ),
        recovery: Distribution::new("the same: from the last acknowledgement to the next", RECOVERY),
        planned_steps: Breakdown::default(),
        unplanned_steps: Breakdown::default(),
        acknowledged: 0,
        lost: 0,
        duplicated: 0,
    };
    let (home, standby) = (stack.spec.regions.primary.clone(), stack.spec.regions.dr.clone());
    let mut acknowledged = Vec::new();
    for run in 1..=runs {
        let mut load = Load::start(&client, CLIENTS, &accounts, CURRENCY, &format!("run-{run}"));
        pay(&mut load).await?;
        let mut gaps = Vec::new();
        for to in [&standby, &home] {
            gaps.push(planned(&stack, to, &mut load, &mut report.planned_steps).await?);
        }
        // The observers see both regions well, and the cool-down is over.
        settled(&stack, &home).await?;
        let (fault, decided) =
            unplanned(&stack, &cloud, &home, &mut load, &mut report.unplanned_steps).await?;
        cloud.heal(home.parse()?).await?;
        demo::rejoined(&cloud, &home).await?;
        gaps.push(planned(&stack, &home, &mut load, &mut report.planned_steps).await?);
        let answers = load.finish().await?;
        let mut times: Vec<Instant> = answers.iter().map(|answer| answer.at).collect();
        times.sort();
        for window in &gaps {
            report.switchover.seconds.push(longest_gap(&times, *window));
        }
        let first = times.iter().find(|at| **at > decided);
        let first = first.ok_or_else(|| Failure::text("no payment was acknowledged after the decision"))?;
        report
            .decision
            .seconds
            .push(first.saturating_duration_since(decided).as_secs_f64());
        // The planned change home comes after the takeover: only what was acknowledged before it counts.
        let until = gaps[2].0;
        let taken: Vec<Acknowledged> = answers
            .iter()
            .filter(|answer| answer.at <= until)
            .cloned()
            .collect();
        let recovery = recovery_seconds(&taken, fault);
        report
            .recovery
            .seconds
            .push(recovery.ok_or_else(|| Failure::text("no payment was acknowledged after the takeover"))?);
        acknowledged.extend(answers);
        ui.done(format!(
            "run {run} of {runs}: planned {:.2}, {:.2} and {:.2} s; unplanned {:.2} s, {:.2} s from the decision",
            longest_gap(&times, gaps[0]),
            longest_gap(&times, gaps[1]),
            longest_gap(&times, gaps[2]),
            report.recovery.seconds.last().copied().unwrap_or(f64::NAN),
            report.decision.seconds.last().copied().unwrap_or(f64::NAN),
        ));
    }
    let ledger = client.payments(PATIENCE).await?;
    let mut balances = Vec::new();
    for id in &accounts {
        balances.push(client.account(id, PATIENCE).await?);
    }
    let result = tally(&acknowledged, &ledger, &balances);
    if let Some(wrong) = result.wrong_balances.first() {
        return Err(Failure::text(format!(
            "the balance of {wrong} differs from its payments"
        )));
    }
    report.acknowledged = result.acknowledged;
    report.lost = result.lost.len();
    report.duplicated = result.duplicated.len();
    Ok(report)
}

/// The longest time between two acknowledgements in a row, of which the later came within the window.
fn longest_gap(times: &[Instant], (from, until): (Instant, Instant)) -> f64 {
    times
        .windows(2)
        .filter(|pair| pair[1] > from && pair[1] <= until)
        .map(|pair| pair[1].saturating_duration_since(pair[0]).as_secs_f64())
        .fold(0.0, f64::max)
}

/// Customers go on paying.
async fn pay(load: &mut Load) -> Result<(), Failure> {
    let wanted = load.count() + BETWEEN;
    demo::until(load, "payments", move |load| load.count() >= wanted).await
}

/// A planned change under load; from its start until customers are paying again.
async fn planned(
    stack: &Stack,
    to: &str,
    load: &mut Load,
    steps: &mut Breakdown,
) -> Result<(Instant, Instant), Failure> {
    let wish = Wish {
        to_region: to.to_owned(),
        mode: Mode::Graceful,
        or_ungraceful: false,
        reason: "bench".into(),
    };
    let began = Instant::now();
    let moved: Moved = move_to(stack, &wish, &Ui::silent()).await?;
    let epoch = moved.epoch;
    demo::until(load, "payments in the new epoch", move |load| {
        load.first_after(epoch - 1).is_some()
    })
    .await?;
    pay(load).await?;
    let ended = Instant::now();
    steps.add(&exercises::show(stack, &moved.execution).await?);
    Ok((began, ended))
}

/// Waits until every observer saw `region` serve and the cool-down is over, or an unplanned change would be held.
async fn settled(stack: &Stack, region: &str) -> Result<(), Failure> {
    let control = stack.control(region);
    let observers = Slot::ALL.map(|slot| stack.spec.regions.of(slot));
    let started = Instant::now();
    while started.elapsed() < PATIENCE {
        let (record, seen) = (control.read().await?, control.observations(&observers).await?);
        let record = record.ok_or_else(|| Failure::text("the control record is gone"))?;
        let now_ms = continuity::clock::now_ms();
        let cool = now_ms.saturating_sub(record.since_ms) > stack.spec.failover.cooldown_ms;
        let well = seen.iter().all(|seen| {
            let newest = seen.newest(region).map(|round| &round.look);
            matches!(newest, Some(continuity::observe::Look::Serving { epoch }) if *epoch == record.epoch)
        });
        if cool && well && seen.len() == observers.len() && record.phase == Phase::Serving {
            return Ok(());
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
    Err(Failure::text(format!("the observers do not see {region} serve")))
}

/// Cuts the region off and kills its database; nobody starts the takeover. When it happened, and when it was decided.
async fn unplanned(
    stack: &Stack,
    cloud: &local::Cloud,
    home: &str,
    load: &mut Load,
    steps: &mut Breakdown,
) -> Result<(Instant, Instant), Failure> {
    let standby = stack.spec.regions.of(Slot::Dr);
    let control = stack.control(standby);
    let before = control
        .read()
        .await?
        .ok_or_else(|| Failure::text("the control record is gone"))?;
    let fault = Instant::now();
    cloud.outage(home.parse()?, true).await?;
    demo::until(load, "payments after the takeover", move |load| {
        load.first_after(before.epoch).is_some()
    })
    .await?;
    pay(load).await?;
    // The execution's input says when the observers decided, by the clock of this machine.
    let machine = stack.names().state_machine("failover", Slot::Dr);
    let machine = state_machine::arn(standby, &stack.account, &machine);
    let name = stack.names().failover_execution(before.epoch + 1);
    let arn = format!("{}:{name}", machine.replacen(":stateMachine:", ":execution:", 1));
    let seen = stack
        .cloud
        .sfn(standby)
        .describe_execution()
        .execution_arn(arn)
        .send()
        .await?;
    let input: serde_json::Value = serde_json::from_str(seen.input().unwrap_or("{}"))?;
    let decided_ms = input["decided_ms"].as_u64();
    let decided_ms =
        decided_ms.ok_or_else(|| Failure::text("the execution does not say when it was decided"))?;
    let ago = Duration::from_millis(continuity::clock::now_ms().saturating_sub(decided_ms));
    let decided = Instant::now().checked_sub(ago);
    steps.add(&recorded(stack, &name).await?);
    Ok((
        fault,
        decided.ok_or_else(|| Failure::text("the clock went back"))?,
    ))
}

/// The evidence of an exercise, once it is stored.
async fn recorded(stack: &Stack, id: &str) -> Result<Evidence, Failure> {
    let started = Instant::now();
    loop {
        match exercises::show(stack, id).await {
            Ok(evidence) => return Ok(evidence),
            Err(failure) if started.elapsed() >= PATIENCE => return Err(failure),
            Err(_) => tokio::time::sleep(LOOK_EVERY).await,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_distribution_tells_how_many_runs_hold_and_its_quantiles() {
        let distribution = Distribution {
            seconds: vec![1.0, 4.0, 2.0, 3.0],
            ..Distribution::new("x", 3.0)
        };
        assert_eq!(distribution.held(), 3);
        assert_eq!(
            [0.0, 0.5, 0.9, 1.0].map(|share| distribution.quantile(share)),
            [1.0, 2.0, 4.0, 4.0]
        );
    }

    #[test]
    fn a_gap_counts_where_its_end_is() {
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        let times = [at(0), at(2_000), at(2_100), at(5_000)];
        assert!((longest_gap(&times, (at(500), at(2_500))) - 2.0).abs() < 1e-9);
        assert!((longest_gap(&times, (at(2_050), at(5_000))) - 2.9).abs() < 1e-9);
    }
}
