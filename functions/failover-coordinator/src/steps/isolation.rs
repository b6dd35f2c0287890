//! drill: what cuts the active region off, and puts it back. It runs in the standby, and isolates the other serving region.
//!
//! Undo of [`isolate`]: [`end`]. The step `isolation` of the drill calls the one for as long as the drill wants it and then the other;
//! and if nobody does, the stop alarm ends the isolation after two minutes, or its own duration.

use crate::context::Context;
use crate::effects::faults::{Isolation, Place, Progress};
use crate::error::StepError;
use crate::limits::FAULT_INTERVAL;

/// The region that this one stands by for.
///
/// # Errors
/// `MalformedInput` in the witness.
pub fn other(context: &Context) -> Result<Place, StepError> {
    let regions = &context.config.regions;
    let place = regions.peer_of(context.region()).and_then(|region| {
        let slot = regions.slot_of(region)?;
        Some(Place {
            slot,
            region: region.to_owned(),
        })
    });
    place.ok_or_else(|| StepError::MalformedInput(format!("`{}` stands by for no region", context.region())))
}

/// How far it came within its time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reached {
    /// All of the region is cut off, or all of it is put back.
    All,
    /// Not yet, for this reason.
    NotYet(String),
}

/// Cuts the active region off for a drill, until `until_ms` at most, and tells the stop alarm that it is watched. To be called at least
/// twice a minute for as long as the isolation is to last.
///
/// Numbered, because the order matters:
/// 1. An experiment of this drill that began already is not begun again.
/// 2. Only the active region is isolated: to isolate the standby is no drill of a failover.
/// 3. The stop alarm rests in alarm, and nothing begins while it does: it must hear first that the drill is watched.
/// 4. Then the experiment begins, and every part of it must run.
///
/// # Errors
/// `IsolationFailed` when a part was skipped or it has ended; nothing is put back then, which is [`end`]'s.
/// `FaultsUnavailable`, after which it can be run again.
pub async fn isolate(
    context: &Context,
    at: &Place,
    drill: &str,
    until_ms: u64,
) -> Result<Reached, StepError> {
    let mut begun = context.faults.of_drill(at, drill).await?.into_iter().next();
    if begun.is_none() {
        let record = context.record().await?;
        if record.active_region != at.region {
            return Err(StepError::IsolationFailed(format!(
                "`{}` is active, not `{}`: a drill isolates the active region from the standby",
                record.active_region, at.region
            )));
        }
    }
    loop {
        context.faults.watched(at, true).await?;
        let reason = match &begun {
            None if context.faults.may_begin(at).await? => {
                begun = Some(context.faults.begin(at, drill).await?);
                continue;
            }
            None => "the stop alarm has not heard yet that the drill is watched".to_owned(),
            Some(id) => {
                let experiment = context.faults.look(at, id).await?;
                match experiment.isolation() {
                    Isolation::Cut => return Ok(Reached::All),
                    Isolation::Coming => format!("experiment `{id}` is {}", experiment.state),
                    Isolation::Over(why) | Isolation::Broken(why) => {
                        return Err(StepError::IsolationFailed(format!("experiment `{id}`: {why}")));
                    }
                }
            }
        };
        if context.timer.now_ms() >= until_ms {
            return Ok(Reached::NotYet(reason));
        }
        context.timer.sleep(FAULT_INTERVAL).await;
    }
}

/// Puts everything back and waits until it is, until `until_ms` at most; also when it ended by itself, or never began.
///
/// # Errors
/// `FaultsUnavailable`, after which it can be run again. The stop alarm was told before.
pub async fn end(context: &Context, at: &Place, drill: &str, until_ms: u64) -> Result<Reached, StepError> {
    let mine = match context.faults.of_drill(at, drill).await {
        Ok(mine) => mine,
        Err(error) => {
            // The second way to end it.
            return Err(told(context, at, error).await);
        }
    };
    loop {
        let mut open = Vec::new();
        for id in &mine {
            match context.faults.look(at, id).await {
                Ok(experiment) if experiment.progress == Progress::Ended => {}
                Ok(experiment) => open.push(experiment),
                Err(error) => return Err(told(context, at, error).await),
            }
        }
        let Some(one) = open.first() else {
            return Ok(Reached::All);
        };
        if context.timer.now_ms() >= until_ms {
            return Ok(Reached::NotYet(format!(
                "experiment `{}` is {}",
                one.id, one.state
            )));
        }
        for experiment in &open {
            if experiment.progress != Progress::Stopping
                && let Err(error) = context.faults.stop(at, &experiment.id).await
            {
                return Err(told(context, at, error).await);
            }
        }
        context.timer.sleep(FAULT_INTERVAL).await;
    }
}

/// Tells the stop alarm that it must end; the error is the first one.
async fn told(context: &Context, at: &Place, error: StepError) -> StepError {
    if let Err(second) = context.faults.watched(at, false).await {
        tracing::warn!(
            error = continuity::error::chain(&second),
            "the stop alarm was not told: the isolation ends by itself"
        );
    }
    error
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::sync::Arc;

    use continuity::names::Slot;

    use super::*;
    use crate::testing::{DR, Fault, HOME, World};

    const DRILL: &str = "drill-dev-20260101T000000";

    async fn cut(world: &Arc<World>, slot: Slot) -> Result<Reached, StepError> {
        let context = world.context(slot);
        isolate(&context, &other(&context)?, DRILL, world.now_ms() + 20_000).await
    }

    async fn put_back(world: &Arc<World>) -> Result<Reached, StepError> {
        let context = world.context(Slot::Dr);
        end(&context, &other(&context)?, DRILL, world.now_ms() + 20_000).await
    }

    #[tokio::test]
    async fn the_active_region_is_isolated_and_comes_back() {
        let world = World::deployed();
        assert_eq!(cut(&world, Slot::Dr).await.unwrap(), Reached::All);
        assert_eq!(world.isolated().as_deref(), Some(HOME));
        assert_eq!(cut(&world, Slot::Dr).await.unwrap(), Reached::All, "it lasts");
        assert_eq!(put_back(&world).await.unwrap(), Reached::All);
        assert_eq!(world.isolated(), None);
    }

    #[tokio::test]
    async fn each_run_twice_equals_once() {
        let world = World::deployed();
        for _ in 0..2 {
            cut(&world, Slot::Dr).await.unwrap();
        }
        assert_eq!(world.experiments(), 1);
        for _ in 0..2 {
            assert_eq!(put_back(&world).await.unwrap(), Reached::All);
        }
    }

    #[tokio::test]
    async fn an_isolation_that_never_began_has_ended() {
        assert_eq!(put_back(&World::deployed()).await.unwrap(), Reached::All);
    }

    #[tokio::test]
    async fn an_isolation_that_ended_by_itself_is_not_begun_again() {
        let world = World::deployed();
        cut(&world, Slot::Dr).await.unwrap();
        put_back(&world).await.unwrap();
        let error = cut(&world, Slot::Dr).await.unwrap_err();
        assert_eq!(error.error_type(), "IsolationFailed");
        assert_eq!(world.experiments(), 1);
    }

    #[tokio::test]
    async fn a_lost_answer_at_any_call_leaves_one_experiment_that_can_be_ended() {
        for fault in [Fault::Refused, Fault::AnswerLost] {
            for n in 0..8 {
                let world = World::deployed();
                world.fail(n, fault);
                let first = cut(&world, Slot::Dr).await;
                world.fail(usize::MAX, fault);
                let second = cut(&world, Slot::Dr).await.unwrap();
                assert_eq!(second, Reached::All, "{n} {fault:?} {first:?}");
                assert_eq!(world.experiments(), 1, "{n} {fault:?}");
                world.fail(n, fault);
                let _ = put_back(&world).await;
                world.fail(usize::MAX, fault);
                put_back(&world).await.unwrap();
                assert_eq!(world.isolated(), None, "{n} {fault:?}");
            }
        }
    }

    #[tokio::test]
    async fn when_the_service_cannot_be_told_to_stop_the_alarm_is() {
        let world = World::deployed();
        cut(&world, Slot::Dr).await.unwrap();
        // of_drill, look, stop.
        world.fail(2, Fault::Refused);
        let error = put_back(&world).await.unwrap_err();
        assert_eq!(error.error_type(), "FaultsUnavailable");
        assert_eq!(world.isolated(), None, "the alarm went off");
    }

    #[tokio::test]
    async fn a_part_that_was_skipped_fails_the_drill() {
        let world = World::deployed();
        world.skip_actions();
        let error = cut(&world, Slot::Dr).await.unwrap_err();
        assert_eq!(error.error_type(), "IsolationFailed");
        assert!(error.to_string().contains("was skipped"), "{error}");
        assert_eq!(put_back(&world).await.unwrap(), Reached::All);
    }

    #[tokio::test]
    async fn nothing_begins_while_the_stop_alarm_does_not_hear() {
        let world = World::deployed();
        world.deafen_stop_alarm();
        let waits = cut(&world, Slot::Dr).await.unwrap();
        assert!(matches!(waits, Reached::NotYet(_)), "{waits:?}");
        assert_eq!(world.experiments(), 0);
    }

    #[tokio::test]
    async fn the_standby_is_never_isolated_by_a_drill() {
        let world = World::deployed();
        let error = cut(&world, Slot::Primary).await.unwrap_err();
        assert_eq!(error.error_type(), "IsolationFailed");
        assert_eq!(world.experiments(), 0);
        world.change_record(|record| record.active_region = DR.into());
        assert_eq!(cut(&world, Slot::Primary).await.unwrap(), Reached::All);
        assert_eq!(world.isolated().as_deref(), Some(DR), "roles move");
    }
}
