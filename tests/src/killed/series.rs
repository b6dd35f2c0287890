//! Every point in turn, or a sample of them, on one or more local clouds side by side.

use std::collections::{BTreeMap, VecDeque};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use serde::Serialize;
use tokio::sync::watch;

use super::cycle;
use super::points::{Command, Point, SERIES, Victim, sample};
use super::programs::Programs;
use super::reference::Reference;
use super::stage::Stage;

/// Deployments on one cloud before a new one is started: what AWS keeps for a while (keys that wait for their deletion) piles
/// up.
const DEPLOYMENTS_PER_CLOUD: usize = 8;

/// What to try.
#[derive(Debug, Clone)]
pub struct Options {
    /// One command only.
    pub only: Option<Command>,
    /// One victim only.
    pub victim: Option<Victim>,
    /// The first place in each series.
    pub from: usize,
    /// The last place in each series.
    pub to: usize,
    /// As many points as this, chosen by the seed.
    pub sample: Option<(usize, u64)>,
    /// Kills in one deployment, far apart, and in taking it down.
    pub together: usize,
    /// Calls that only read are struck too.
    pub reads: bool,
    /// Clouds side by side.
    pub jobs: usize,
    /// Goes on after a failure.
    pub keep_going: bool,
}

impl Default for Options {
    fn default() -> Self {
        Options {
            only: None,
            victim: None,
            from: 1,
            to: usize::MAX,
            sample: None,
            together: 1,
            reads: false,
            jobs: 1,
            keep_going: false,
        }
    }
}

impl Options {
    fn chosen(&self, all: &[Point]) -> Vec<Point> {
        let wanted = |point: &&Point| {
            self.only.is_none_or(|only| only == point.command)
                && self.victim.is_none_or(|victim| victim == point.victim)
                && (self.from..=self.to).contains(&point.position)
        };
        let points: Vec<Point> = all.iter().filter(wanted).cloned().collect();
        match self.sample {
            Some((count, seed)) => sample(&points, count, seed),
            None => points,
        }
    }
}

/// What came of a point.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case", tag = "verdict")]
pub enum Verdict {
    /// The blow fell, and running again converged.
    Held,
    /// The call was not made in this run, so nobody was killed; all was as it should be.
    Missed,
    /// Something did not hold.
    Failed {
        /// What.
        why: String,
        /// Where the logs are.
        logs: PathBuf,
    },
}

/// A point and what came of it.
#[derive(Debug, Clone, Serialize)]
pub struct Outcome {
    /// The point.
    pub point: Point,
    /// What came of it.
    #[serde(flatten)]
    pub verdict: Verdict,
    /// How long it took.
    pub seconds: f64,
}

/// Counts of a series.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Count {
    /// Calls of the undisturbed run.
    pub calls: usize,
    /// Points that were tried.
    pub points: usize,
    /// Kills after which all converged.
    pub held: usize,
    /// Points whose call was not made.
    pub missed: usize,
    /// Points where something did not hold.
    pub failed: usize,
}

/// All of it.
#[derive(Debug, Clone, Serialize)]
pub struct Summary {
    /// By series: `up coordinator`.
    pub series: BTreeMap<String, Count>,
    /// Points that were chosen and not tried, because a failure ended the run.
    pub untried: usize,
    /// What did not hold.
    pub failures: Vec<Outcome>,
    /// Points whose call was not made.
    pub missed: Vec<Point>,
    /// How long it took.
    pub seconds: f64,
}

impl Summary {
    /// Whether every chosen point was tried and all held.
    pub fn holds(&self) -> bool {
        self.failures.is_empty() && self.untried == 0
    }

    /// Kills after which all converged.
    pub fn held(&self) -> usize {
        self.series.values().map(|count| count.held).sum()
    }

    fn of(reference: &Reference, outcomes: &[Outcome], chosen: usize, started: Instant) -> Summary {
        let mut series: BTreeMap<String, Count> = SERIES
            .iter()
            .map(|(command, victim)| (format!("{command} {victim}"), Count::default()))
            .collect();
        let name = |point: &Point| format!("{} {}", point.command, point.victim);
        for point in &reference.points {
            series.entry(name(point)).or_default().calls += 1;
        }
        for outcome in outcomes {
            let count = series.entry(name(&outcome.point)).or_default();
            count.points += 1;
            match outcome.verdict {
                Verdict::Held => count.held += 1,
                Verdict::Missed => count.missed += 1,
                Verdict::Failed { .. } => count.failed += 1,
            }
        }
        let with = |wanted: fn(&Verdict) -> bool| {
            outcomes
                .iter()
                .filter(move |outcome| wanted(&outcome.verdict))
                .cloned()
        };
        Summary {
            series,
            untried: chosen - outcomes.len(),
            failures: with(|verdict| matches!(verdict, Verdict::Failed { .. })).collect(),
            missed: with(|verdict| *verdict == Verdict::Missed)
                .map(|outcome| outcome.point)
                .collect(),
            seconds: started.elapsed().as_secs_f64(),
        }
    }
}

/// Told what happens, a line each.
pub type Say = Arc<dyn Fn(&str) + Send + Sync>;

/// Tries the chosen points. When `stop` becomes true, what runs is given up and the clouds are ended.
///
/// # Errors
/// What fails although nobody is killed, or a cloud that does not start.
pub async fn run(options: &Options, stop: watch::Receiver<bool>, say: Say) -> Result<Summary, String> {
    let started = Instant::now();
    say("copying the programs and packing the functions");
    let programs = Arc::new(Programs::gather().await?);
    say("the reference: a deployment that nobody disturbs");
    let reference = tokio::select! {
        made = Reference::make(&programs, options.reads) => Arc::new(made?),
        () = stopped(stop.clone()) => return Err("interrupted".to_owned()),
    };
    let chosen = options.chosen(&reference.points);
    let total = chosen.len();
    say(&format!(
        "{} resources; {} of {} points to try, {} at a time ({:.1} s)",
        reference.resources.len(),
        total,
        reference.points.len(),
        options.jobs,
        started.elapsed().as_secs_f64(),
    ));
    let work = Work {
        reference: Arc::clone(&reference),
        programs,
        keep_going: options.keep_going,
        queue: Mutex::new(Queue::new(&chosen, options.together)),
        outcomes: Mutex::default(),
        total,
        started: Instant::now(),
        say,
    };
    let workers = (0..options.jobs.max(1)).map(|_| work.worker(stop.clone()));
    futures::future::try_join_all(workers).await?;
    let outcomes = lock(&work.outcomes).clone();
    Ok(Summary::of(&reference, &outcomes, total, started))
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn stopped(mut stop: watch::Receiver<bool>) {
    if stop.wait_for(|stop| *stop).await.is_err() {
        // Nobody can stop it any more.
        std::future::pending::<()>().await;
    }
}

/// The points that are still to be tried.
struct Queue {
    groups: BTreeMap<Command, VecDeque<Vec<Point>>>,
    given_up: bool,
}

impl Queue {
    fn new(chosen: &[Point], together: usize) -> Queue {
        let mut groups: BTreeMap<Command, VecDeque<Vec<Point>>> = BTreeMap::new();
        for (command, victim) in SERIES {
            let of_it = |point: &&Point| (point.command, point.victim) == (command, victim);
            let series: Vec<&Point> = chosen.iter().filter(of_it).collect();
            // Every so many points: those that are tried together are far apart.
            let step = series.len().div_ceil(together.max(1));
            let group = |first| {
                series
                    .iter()
                    .skip(first)
                    .step_by(step)
                    .copied()
                    .cloned()
                    .collect()
            };
            groups.entry(command).or_default().extend((0..step).map(group));
        }
        Queue {
            groups,
            given_up: false,
        }
    }

    /// To be tried again by itself, at the end.
    fn alone(&mut self, point: Point) {
        self.groups
            .entry(point.command)
            .or_default()
            .push_back(vec![point]);
    }

    fn is_empty(&self) -> bool {
        self.given_up || self.groups.values().all(VecDeque::is_empty)
    }

    fn take(&mut self, command: Command) -> Option<Vec<Point>> {
        self.groups.get_mut(&command)?.pop_front()
    }
}

struct Work {
    reference: Arc<Reference>,
    programs: Arc<Programs>,
    keep_going: bool,
    queue: Mutex<Queue>,
    outcomes: Mutex<Vec<Outcome>>,
    total: usize,
    started: Instant,
    say: Say,
}

impl Work {
    /// Deploys and takes down, with a kill each, until no point is left.
    async fn worker(&self, stop: watch::Receiver<bool>) -> Result<(), String> {
        while !lock(&self.queue).is_empty() && !*stop.borrow() {
            let mut stage = tokio::select! {
                opened = Stage::open(&self.programs) => opened?,
                () = stopped(stop.clone()) => return Ok(()),
            };
            let ended = tokio::select! {
                ended = self.deployments(&mut stage) => ended,
                () = stopped(stop.clone()) => Ok(()),
            };
            match ended {
                Ok(()) => stage.close().await,
                Err(failed) => {
                    let logs = stage.close_and_keep().await;
                    lock(&self.queue).given_up |= !self.keep_going;
                    let why = failed.why;
                    for point in failed.points {
                        let (why, logs) = (why.clone(), logs.clone());
                        self.tell(point, Verdict::Failed { why, logs }, failed.seconds);
                    }
                }
            }
        }
        Ok(())
    }

    /// Deployments on one cloud, as long as it is of use.
    async fn deployments(&self, stage: &mut Stage) -> Result<(), Failed> {
        for _ in 0..DEPLOYMENTS_PER_CLOUD {
            if lock(&self.queue).is_empty() {
                break;
            }
            let up = lock(&self.queue).take(Command::Up);
            let only_down = up.is_none();
            if let Some(points) = up {
                self.attempt(stage, points).await?;
            }
            // Where nothing is to be struck on the way down: a new cloud is there sooner than a stack is taken down.
            let Some(points) = lock(&self.queue).take(Command::Down) else {
                break;
            };
            if only_down {
                let began = Instant::now();
                cycle::undisturbed(stage, Command::Up)
                    .await
                    .map_err(|why| Failed::new(&points, why, began))?;
            }
            self.attempt(stage, points).await?;
        }
        Ok(())
    }

    async fn attempt(&self, stage: &mut Stage, points: Vec<Point>) -> Result<(), Failed> {
        let began = Instant::now();
        let fell = cycle::strike(stage, &self.reference, &points)
            .await
            .map_err(|why| {
                stage.note(&format!("FAILED: {why}"));
                Failed::new(&points, why, began)
            })?;
        let seconds = began.elapsed().as_secs_f64();
        let together = points.len() > 1;
        for (point, fell) in points.into_iter().zip(fell) {
            if fell {
                self.tell(point, Verdict::Held, seconds);
            } else if together {
                // Another kill may have come before it.
                lock(&self.queue).alone(point);
            } else {
                self.tell(point, Verdict::Missed, seconds);
            }
        }
        Ok(())
    }

    fn tell(&self, point: Point, verdict: Verdict, seconds: f64) {
        let told = match &verdict {
            Verdict::Held => "held".to_owned(),
            Verdict::Missed => "not called this time".to_owned(),
            Verdict::Failed { why, logs } => format!("FAILED: {why}\n  logs: {}", logs.display()),
        };
        let done = lock(&self.outcomes).len() + 1;
        let left = about(self.started.elapsed(), done, self.total);
        (self.say)(&format!(
            "{done}/{} {point}: {told} ({seconds:.1} s, about {left} to go)",
            self.total
        ));
        lock(&self.outcomes).push(Outcome {
            point,
            verdict,
            seconds,
        });
    }
}

/// Points at which something does not hold.
struct Failed {
    points: Vec<Point>,
    why: String,
    seconds: f64,
}

impl Failed {
    fn new(points: &[Point], why: String, began: Instant) -> Failed {
        Failed {
            points: points.to_vec(),
            why,
            seconds: began.elapsed().as_secs_f64(),
        }
    }
}

/// How long the rest takes, going by what was.
fn about(spent: Duration, done: usize, total: usize) -> String {
    let left = spent.as_secs_f64() / done.max(1) as f64 * total.saturating_sub(done) as f64;
    if left < 90.0 {
        format!("{left:.0} s")
    } else {
        format!("{:.0} min", left / 60.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn points_that_are_tried_together_are_of_one_series_and_far_apart() {
        let points: Vec<Point> = (1..=5)
            .flat_map(|position| {
                SERIES.map(|(command, victim)| Point {
                    command,
                    victim,
                    position,
                    region: "us-east-1".into(),
                    service: "ec2".into(),
                    operation: "CreateVpc".into(),
                    nth: 1,
                })
            })
            .collect();
        let mut queue = Queue::new(&points, 2);
        let mut taken = Vec::new();
        while let Some(group) = queue.take(Command::Up) {
            let victim = group[0].victim;
            assert!(group.iter().all(|point| point.victim == victim));
            taken.push(group.iter().map(|point| point.position).collect::<Vec<_>>());
        }
        let expected = [vec![1, 4], vec![2, 5], vec![3]];
        assert_eq!(taken, [expected.clone(), expected].concat());
        assert!(!queue.is_empty(), "`down` is left");
        assert_eq!(Queue::new(&points, 1).groups[&Command::Up].len(), 10);
        assert!(Queue::new(&[], 3).is_empty());
    }
}
