//! The executor: brings live resources to a blueprint, takes a stack down, and says what is there. It makes no choice of its
//! own; what to do with a resource follows from [`crate::plan`], in which order from [`crate::graph`].
//!
//! Everything whose dependencies are ready runs at once. Each resource is observed, acted on, and observed again until it is
//! settled and equal to its `Spec`, within the time budget; what is not there by then is `Waiting`, and another run goes on
//! from there. A failure stops only what depends on it. Nothing is remembered between runs.

mod converge;
mod inventory;
mod prune;
mod tally;
mod teardown;

#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use async_trait::async_trait;
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use tokio::sync::Semaphore;

pub use self::inventory::{Extent, Inventory, inventory, strangers};
pub use self::prune::{Pruned, Pruning, prune, prune_shown};
pub use self::teardown::teardown;

use crate::clock::{Clock, SystemClock};
use crate::cloud::Cloud;
use crate::error::KindError;
use crate::forced::Forced;
use crate::graph::{Blueprint, Edges, Group, InvalidBlueprint, Node, Resolved};
use crate::outcome::{Outcome, PlanEntry, Progress, Report};
use crate::plan::FieldChange;

/// The pause before a resource is observed again; it grows from the first to the last.
const FIRST_PAUSE: Duration = Duration::from_millis(60);
/// Aurora takes ten minutes; asking every five seconds is often enough and stays far from every quota.
const LAST_PAUSE: Duration = Duration::from_secs(5);
/// How often one resource is acted on in one run before its kind is declared unable to converge.
const MAX_ACTIONS: usize = 12;
/// Observations after an update that still show the old value before the update is made again.
const STALE_READS: usize = 6;

/// Errors that were borne this long when the budget ended count as a failure of this run.
const LONG_BORNE: Duration = Duration::from_secs(20);
/// The longest patience with errors of a sort that passes within a run, or not at all.
const SHORT_LIVED: Duration = Duration::from_secs(120);

/// What is about to be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Write<'a> {
    /// The node's key.
    pub key: &'a str,
    /// The kind's name.
    pub kind: &'a str,
    /// The region whose endpoint is called.
    pub region: &'a str,
}

/// Whether this run may still change anything. Asked before every write.
#[async_trait]
pub trait Permit: Send + Sync {
    /// # Errors
    /// Why not: the epoch is changing, a newer generation has taken over, or the control plane of this kind is failing.
    async fn check(&self, write: Write<'_>) -> Result<(), String>;
}

/// What serves requests while the stack is changed.
///
/// What exists in `group` and differs is changed only after everything outside of it is in order, and `gate` has let it pass:
/// a change that breaks something breaks the region that nobody uses. What does not exist yet is made at once: nobody uses it.
#[derive(Clone)]
pub struct Serving {
    /// The group of the region that serves.
    pub group: Group,
    /// Asked once before the first change of that group.
    pub gate: Option<Arc<dyn Gate>>,
}

/// Whether what was changed first works.
#[async_trait]
pub trait Gate: Send + Sync {
    /// Waits for the answer as long as that makes sense.
    ///
    /// # Errors
    /// Why it does not work. The region that serves is then left as it is.
    async fn open(&self) -> Result<(), String>;
}

/// Called with every change of the progress.
pub type OnProgress = Arc<dyn Fn(&Progress) + Send + Sync>;

/// How to run.
#[derive(Clone)]
pub struct Options {
    /// Time after which nothing new is begun.
    pub budget: Duration,
    /// Calls in flight at once.
    pub concurrency: usize,
    /// The clock.
    pub clock: Arc<dyn Clock>,
    /// Keys of resources that hold data and may yet be replaced.
    pub replace: BTreeSet<String>,
    /// What serves requests meanwhile.
    pub serving: Option<Serving>,
    /// Asked before every write.
    pub permit: Option<Arc<dyn Permit>>,
    /// Told how far the run is.
    pub on_progress: Option<OnProgress>,
}

impl Default for Options {
    fn default() -> Self {
        Options {
            budget: Duration::from_secs(600),
            concurrency: 16,
            clock: Arc::new(SystemClock::default()),
            replace: BTreeSet::new(),
            serving: None,
            permit: None,
            on_progress: None,
        }
    }
}

impl fmt::Debug for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Options")
            .field("budget", &self.budget)
            .field("concurrency", &self.concurrency)
            .field("replace", &self.replace)
            .field("serving", &self.serving.as_ref().map(|serving| serving.group))
            .finish_non_exhaustive()
    }
}

/// Brings live resources to the blueprint.
///
/// 1. Everything, but for differences in the group that serves ([`Options::serving`]).
/// 2. If there were any: these, when the rest is in order and the gate is open.
///
/// Guarantees: writes only what the plan says; never changes a role; never replaces what holds data unless told to, and never
/// because something else is replaced; run twice equals once; ends within the budget plus the calls in flight.
///
/// # Errors
/// For a blueprint that is no graph, or that the checker ([`crate::check`]) refuses: then no call is made. What happens to
/// resources is in the report.
pub async fn converge(
    blueprint: &Blueprint,
    cloud: &Cloud,
    options: &Options,
) -> Result<Report, InvalidBlueprint> {
    crate::check::pass(blueprint)?;
    converge::run(blueprint, &cloud.anew(), options).await
}

/// Says what [`converge`] would do. Writes nothing.
///
/// # Errors
/// Only for a blueprint that is no graph.
pub async fn plan(
    blueprint: &Blueprint,
    cloud: &Cloud,
    options: &Options,
) -> Result<Vec<PlanEntry>, InvalidBlueprint> {
    converge::dry_run(blueprint, &cloud.anew(), options).await
}

/// What all runs share.
struct Run<'a> {
    blueprint: &'a Blueprint,
    cloud: &'a Cloud,
    options: &'a Options,
    edges: Edges,
    /// Made when something is to be replaced.
    forced: OnceLock<Forced>,
    resolved: Resolved,
    calls: Semaphore,
    ends: Duration,
    /// Differences in the group that serves are put off.
    putting_off: AtomicBool,
    /// What each node is doing now, for the progress.
    now: std::sync::Mutex<tally::Tally>,
}

/// The budget is used up.
struct OutOfTime;

impl<'a> Run<'a> {
    fn new(
        blueprint: &'a Blueprint,
        cloud: &'a Cloud,
        options: &'a Options,
    ) -> Result<Self, InvalidBlueprint> {
        Ok(Run {
            blueprint,
            cloud,
            options,
            edges: blueprint.edges()?,
            forced: OnceLock::new(),
            resolved: Resolved::default(),
            calls: Semaphore::new(options.concurrency.max(1)),
            ends: options.clock.now() + options.budget,
            putting_off: AtomicBool::new(options.serving.is_some()),
            now: std::sync::Mutex::new(tally::Tally::new(blueprint.nodes())),
        })
    }

    /// Whether changes of this node wait for the rest of the stack.
    fn puts_off(&self, node: &Node) -> bool {
        let serving = self.options.serving.as_ref();
        self.putting_off.load(Ordering::Relaxed)
            && serving.is_some_and(|serving| serving.group == node.place.group)
    }

    /// What replacements force.
    fn forced(&self) -> &Forced {
        self.forced
            .get_or_init(|| Forced::new(self.blueprint, &self.edges))
    }

    fn out_of_time(&self) -> bool {
        self.options.clock.now() >= self.ends
    }

    /// One call to AWS, counted against the concurrency limit. Pauses do not count.
    async fn call<T>(&self, call: impl Future<Output = T>) -> T {
        let _slot = self.calls.acquire().await.expect("the semaphore is never closed");
        call.await
    }

    /// Whether a write may still happen; otherwise why not.
    async fn permitted(&self, node: &Node) -> Result<(), String> {
        match &self.options.permit {
            Some(permit) => {
                let write = Write {
                    key: &node.key,
                    kind: node.kind,
                    region: &node.place.region,
                };
                permit.check(write).await
            }
            None => Ok(()),
        }
    }

    fn report(&self, position: usize, outcome: Outcome) {
        let mut now = self.now.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let news = now.set(position, &self.blueprint.nodes()[position], outcome);
        if let (Some(progress), Some(tell)) = (news, &self.options.on_progress) {
            tell(progress);
        }
    }

    /// Runs `work` for every node, each after all of `before` are ready. `work` says whether its node is ready; those that
    /// wait for one that is not are given to `blocked`.
    async fn walk<'f, F>(
        &self,
        before: &[Vec<usize>],
        after: &[Vec<usize>],
        mut work: impl FnMut(usize) -> F,
        mut blocked: impl FnMut(usize, usize),
    ) where
        F: Future<Output = (usize, bool)> + 'f,
    {
        let mut missing: Vec<usize> = before.iter().map(Vec::len).collect();
        let mut stopped = vec![false; missing.len()];
        let mut running = FuturesUnordered::new();
        for (position, missing) in missing.iter().enumerate() {
            if *missing == 0 {
                running.push(work(position));
            }
        }
        while let Some((position, ready)) = running.next().await {
            let mut queue = Vec::new();
            for &next in &after[position] {
                missing[next] -= 1;
                if !ready {
                    queue.push(next);
                } else if missing[next] == 0 && !stopped[next] {
                    running.push(work(next));
                }
            }
            while let Some(next) = queue.pop() {
                if !std::mem::replace(&mut stopped[next], true) {
                    blocked(next, position);
                    queue.extend(&after[next]);
                }
            }
        }
    }
}

/// The pauses of one resource: growing, never beyond the end of the budget.
struct Pace {
    pause: Duration,
}

impl Pace {
    fn new() -> Self {
        Pace { pause: FIRST_PAUSE }
    }

    fn restart(&mut self) {
        self.pause = FIRST_PAUSE;
    }

    async fn rest(&mut self, run: &Run<'_>) -> Result<(), OutOfTime> {
        self.until(run.ends, run.options).await
    }

    /// Rests, if there is time left after it.
    async fn until(&mut self, ends: Duration, options: &Options) -> Result<(), OutOfTime> {
        let left = ends.saturating_sub(options.clock.now());
        if left.is_zero() {
            return Err(OutOfTime);
        }
        options.clock.sleep(self.pause.min(left)).await;
        self.pause = (self.pause * 3 / 2).min(LAST_PAUSE);
        if options.clock.now() >= ends {
            Err(OutOfTime)
        } else {
            Ok(())
        }
    }
}

/// The one retry helper: how long errors of one resource have been coming, and whether to go on trying.
#[derive(Default)]
struct Patience {
    since: Option<Duration>,
    /// How long errors like the last one may come in a row.
    limit: Option<Duration>,
}

impl Patience {
    fn reset(&mut self) {
        self.since = None;
    }

    /// Whether nothing but errors has come for long, of a sort that does not last for long. Throttles and conflicts do: those
    /// are waited for through many runs.
    fn is_worn(&self, now: Duration) -> bool {
        let short = self.limit.is_some_and(|limit| limit <= SHORT_LIVED);
        short
            && self
                .since
                .is_some_and(|since| now.saturating_sub(since) >= LONG_BORNE)
    }

    /// Whether `error` may pass with time.
    fn bears(&mut self, error: &KindError, now: Duration) -> bool {
        let since = *self.since.get_or_insert(now);
        self.limit = error.class.patience();
        self.limit.is_some_and(|limit| now - since < limit)
    }
}

fn names_of(fields: &[FieldChange]) -> Vec<&str> {
    fields.iter().map(|change| change.field.as_str()).collect()
}
