//! Holding the change: what deploy, reconcile and teardown do before they change anything, and ask before every write.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use async_trait::async_trait;
use continuity::control::{ControlStore, Swap};
use continuity::error::chain;
use infra::change::{self, CONFIGURATION_ITEM, Change, Claim, Configuration, ITEM, Kind};
use infra::engine::{Permit, Write};
use tokio::sync::Mutex;

use crate::context::Context;
use crate::decide;
use crate::error::StepError;
use crate::event::Request;
use crate::limits::SWAP_ATTEMPTS;

/// The stored configuration.
///
/// # Errors
/// `SpecMissing`, `SpecMalformed`, `ControlUnavailable`.
pub async fn configuration(context: &Context) -> Result<Configuration, StepError> {
    let json = context
        .control
        .document(CONFIGURATION_ITEM)
        .await?
        .ok_or(StepError::SpecMissing)?;
    serde_json::from_str(&json).map_err(|error| StepError::SpecMalformed(error.to_string()))
}

/// Who holds the change after this execution asked for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Held {
    /// This execution.
    Mine,
    /// This execution, as of now: a call of the other may still be under way.
    JustTaken,
    /// The execution of this name, which goes first.
    By(String),
}

/// Asks for the change. Run again by the same execution it says that it is still here.
///
/// 1. Reads who holds it, and decides.
/// 2. If another one does, asks Step Functions whether that one still runs, and decides again.
/// 3. Stores the outcome, unless somebody was faster: then again from 1.
///
/// # Errors
/// `ControlUnavailable`, `ControlContended`, `MalformedInput` when the workflow does not say which execution it is.
pub async fn hold(
    context: &Context,
    request: &Request,
    kind: Kind,
    generation: u64,
) -> Result<Held, StepError> {
    if request.execution_arn.is_empty() {
        return Err(StepError::MalformedInput("the execution has no ARN".to_owned()));
    }
    for _ in 0..SWAP_ATTEMPTS {
        let stored = context.control.document(ITEM).await?;
        // What cannot be read is of another version of this program, and does not run any more.
        let current: Option<Change> = stored.as_deref().and_then(|json| serde_json::from_str(json).ok());
        let now_ms = context.timer.now_ms();
        let me = Change {
            kind,
            execution: request.execution_arn.clone(),
            generation,
            began_ms: now_ms,
            seen_ms: now_ms,
        };
        let mut claim = change::claim(current.as_ref(), &me, false, now_ms);
        if let (Claim::Busy, Some(holder)) = (&claim, &current) {
            let ended = context.executions.ended(&holder.execution, holder.region()).await;
            claim = change::claim(Some(holder), &me, ended, now_ms);
        }
        let (mine, held) = match claim {
            Claim::Take(mine) => (mine, Held::Mine),
            Claim::TakeFrom(mine) => (mine, Held::JustTaken),
            Claim::Busy => {
                let holder = current.map_or_else(String::new, |holder| holder.name().to_owned());
                return Ok(Held::By(holder));
            }
        };
        let json =
            serde_json::to_string(&mine).map_err(|error| StepError::EngineFailed(error.to_string()))?;
        match context
            .control
            .swap_document(ITEM, stored.as_deref(), &json)
            .await?
        {
            Swap::Done => return Ok(held),
            Swap::Lost => {}
        }
    }
    Err(StepError::ControlContended(SWAP_ATTEMPTS))
}

/// Asked by the engine before every write: a pass takes a minute, and within it a takeover may begin, a newer configuration
/// be stored, or another change go first.
pub struct StillMine {
    control: Arc<dyn ControlStore>,
    region: String,
    kind: Kind,
    execution: String,
    generation: u64,
    /// us-east-1 fails, and this is how that is known.
    failing: Option<String>,
    looks: Looks,
}

/// Many writes ask at the same moment. One look at the control table answers all who had asked when it began.
#[derive(Debug, Default)]
struct Looks {
    /// How many have asked.
    asked: AtomicU64,
    last: Mutex<LastLook>,
}

#[derive(Debug, Default)]
struct LastLook {
    /// How many had asked when it began.
    answers: u64,
    outcome: Option<Result<(), String>>,
}

impl Looks {
    /// What a look says that began after this call: one's own, or that of somebody who asked later.
    async fn ask(&self, look: impl Future<Output = Result<(), String>>) -> Result<(), String> {
        let ticket = self.asked.fetch_add(1, Ordering::SeqCst);
        let mut last = self.last.lock().await;
        if let Some(outcome) = last.outcome.clone().filter(|_| ticket < last.answers) {
            return outcome;
        }
        let answers = self.asked.load(Ordering::SeqCst);
        let outcome = look.await;
        *last = LastLook {
            answers,
            outcome: Some(outcome.clone()),
        };
        outcome
    }
}

impl StillMine {
    /// For this execution.
    pub fn new(
        context: &Context,
        request: &Request,
        kind: Kind,
        generation: u64,
        failing: Option<String>,
    ) -> Self {
        StillMine {
            control: Arc::clone(&context.control),
            region: context.region().to_owned(),
            kind,
            execution: request.execution_arn.clone(),
            generation,
            failing,
            looks: Looks::default(),
        }
    }

    /// Whether this execution may still change anything.
    ///
    /// # Errors
    /// Why not, in words.
    pub async fn still(&self) -> Result<(), String> {
        let (record, documents) = self
            .control
            .read_with(&[ITEM, CONFIGURATION_ITEM])
            .await
            .map_err(|error| chain(&error))?;
        let [change, configuration] = <[_; 2]>::try_from(documents)
            .map_err(|_| "the control table answered something else".to_owned())?;
        let holder: Option<Change> = change.as_deref().and_then(|json| serde_json::from_str(json).ok());
        if holder.as_ref().map(|holder| holder.execution.as_str()) != Some(&self.execution) {
            let other = holder.map_or_else(|| "nobody".to_owned(), |holder| holder.name().to_owned());
            return Err(format!("`{other}` holds the change of the stack now"));
        }
        if self.kind == Kind::Teardown {
            return Ok(());
        }
        decide::may_reconcile(record.as_ref(), &self.region, Some(self.generation))?;
        let stored: Option<Configuration> = configuration
            .as_deref()
            .and_then(|json| serde_json::from_str(json).ok());
        match stored {
            Some(stored) if stored.generation > self.generation => Err(format!(
                "generation {} is stored, this is {}",
                stored.generation, self.generation
            )),
            _ => Ok(()),
        }
    }
}

#[async_trait]
impl Permit for StillMine {
    async fn check(&self, write: Write<'_>) -> Result<(), String> {
        decide::may_write(self.failing.as_deref(), write)?;
        self.looks.ask(self.still()).await
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use continuity::names::Slot;
    use serde_json::json;

    use super::*;
    use crate::testing::{DR, World, arn};

    fn request(kind: Kind, name: &str) -> Request {
        let event = json!({"step": "reconcile", "execution": name, "execution_arn": arn(kind, name)});
        Request::parse(&event, 0).unwrap()
    }

    const WRITE: Write<'static> = Write {
        key: "vpc.dr",
        kind: "vpc",
        region: DR,
    };

    #[tokio::test]
    async fn one_change_at_a_time_and_a_dead_holder_blocks_nobody() {
        let world = World::deployed();
        let context = world.context(Slot::Primary);
        let (first, second) = (request(Kind::Reconcile, "r-1"), request(Kind::Reconcile, "r-2"));
        let hold = async |request: &Request| hold(&context, request, Kind::Reconcile, 1).await.unwrap();
        assert_eq!(hold(&first).await, Held::Mine);
        assert_eq!(hold(&second).await, Held::By("r-1".into()));
        assert_eq!(hold(&first).await, Held::Mine);
        world.end_execution(&arn(Kind::Reconcile, "r-1"));
        assert_eq!(hold(&second).await, Held::Mine);
        // Step Functions does not say, but the holder has been silent for long.
        world.advance(change::LEASE * 2);
        assert_eq!(hold(&request(Kind::Reconcile, "r-3")).await, Held::Mine);
    }

    #[tokio::test]
    async fn an_executor_that_lost_the_change_writes_nothing_more() {
        let world = World::deployed();
        let context = world.context(Slot::Primary);
        let (repair, deploy) = (request(Kind::Reconcile, "r-1"), request(Kind::Deploy, "d-1"));
        assert_eq!(
            hold(&context, &repair, Kind::Reconcile, 1).await.unwrap(),
            Held::Mine
        );
        let permit = StillMine::new(&context, &repair, Kind::Reconcile, 1, None);
        permit.check(WRITE).await.unwrap();
        assert_eq!(
            hold(&context, &deploy, Kind::Deploy, 1).await.unwrap(),
            Held::JustTaken
        );
        let why = permit.check(WRITE).await.unwrap_err();
        assert!(why.contains("d-1"), "{why}");
        assert_eq!(
            hold(&context, &repair, Kind::Reconcile, 1).await.unwrap(),
            Held::By("d-1".into())
        );
    }

    #[tokio::test]
    async fn one_look_answers_all_who_asked_before_it_began_and_nobody_who_asked_later() {
        let (looks, count) = (Looks::default(), AtomicU64::new(0));
        let (open, gate) = tokio::sync::watch::channel(false);
        let look = || {
            let (count, mut gate) = (&count, gate.clone());
            async move {
                let number = count.fetch_add(1, Ordering::SeqCst) + 1;
                gate.wait_for(|open| *open).await.unwrap();
                Err(format!("look {number}"))
            }
        };
        let first = looks.ask(look());
        let others = futures::future::join_all((0..9).map(|_| looks.ask(look())));
        let later = async {
            // Both have begun by now: the first looks, the others wait for it.
            tokio::task::yield_now().await;
            open.send(true).unwrap();
        };
        let (first, others, ()) = tokio::join!(first, others, later);
        assert_eq!(first, Err("look 1".into()));
        assert!(
            others.iter().all(|other| *other == Err("look 2".into())),
            "{others:?}"
        );
        assert_eq!(looks.ask(look()).await, Err("look 3".into()));
    }

    #[tokio::test]
    async fn a_newer_configuration_stops_a_pass_of_the_older_one() {
        let world = World::deployed();
        let context = world.context(Slot::Primary);
        let deploy = request(Kind::Deploy, "d-1");
        hold(&context, &deploy, Kind::Deploy, 1).await.unwrap();
        let permit = StillMine::new(&context, &deploy, Kind::Deploy, 1, None);
        permit.check(WRITE).await.unwrap();
        world.store_generation(2);
        let why = permit.check(WRITE).await.unwrap_err();
        assert!(why.contains("generation 2"), "{why}");
    }

    #[tokio::test]
    async fn while_us_east_1_fails_only_what_does_not_need_it_is_written() {
        let world = World::deployed();
        let context = world.context(Slot::Primary);
        let repair = request(Kind::Reconcile, "r-1");
        hold(&context, &repair, Kind::Reconcile, 1).await.unwrap();
        let failing = Some("us-west-2 got no answer".to_owned());
        let permit = StillMine::new(&context, &repair, Kind::Reconcile, 1, failing);
        permit.check(WRITE).await.unwrap();
        let role = Write {
            key: "role.health-probe.dr",
            kind: "iam-role",
            region: "us-east-1",
        };
        let why = permit.check(role).await.unwrap_err();
        assert!(
            why.contains("us-east-1 is failing") && why.contains("IAM"),
            "{why}"
        );
    }
}
