//! drill: isolate, watch-isolation, end-isolation. They run in the standby, and isolate the other serving region.
//!
//! Undo of the first: the last. Whoever called the first calls the last, whatever happened between; and if nobody does, the
//! stop alarm ends the isolation after two minutes, or its own duration.

use serde_json::{Value, json};

use crate::context::Context;
use crate::effects::faults::{Isolation, Place, Progress};
use crate::error::StepError;
use crate::event::Request;
use crate::limits::{FAULT_INTERVAL, WATCH_LIMIT};

/// The region that this one stands by for.
fn other(context: &Context, request: &Request) -> Result<Place, StepError> {
    if request.execution.is_empty() {
        return Err(StepError::MalformedInput("the execution has no name".to_owned()));
    }
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

/// Cuts the active region off and waits until all of it is cut; `isolated` is false when the time is over.
///
/// Numbered, because the order matters:
/// 1. An experiment of this drill that began already is not begun again.
/// 2. Only the active region is isolated: to isolate the standby is no drill of a failover.
/// 3. The stop alarm rests in alarm, and nothing begins while it does: it must hear first that the drill is watched.
/// 4. Then the experiment begins, and every part of it must run.
///
/// # Errors
/// `IsolationFailed` when a part was skipped or it ended at once; nothing is put back then, which is end-isolation's.
/// `FaultsUnavailable`, after which it can be run again.
pub async fn isolate(context: &Context, request: &Request) -> Result<Value, StepError> {
    let (at, drill) = (other(context, request)?, &request.execution);
    let until_ms = context.watch_until(WATCH_LIMIT, request.deadline_ms);
    let mut begun = context.faults.of_drill(&at, drill).await?.into_iter().next();
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
        context.faults.watched(&at, true).await?;
        let reason = match &begun {
            None if context.faults.may_begin(&at).await? => {
                begun = Some(context.faults.begin(&at, drill).await?);
                continue;
            }
            None => "the stop alarm has not heard yet that the drill is watched".to_owned(),
            Some(id) => {
                let experiment = context.faults.look(&at, id).await?;
                match experiment.isolation() {
                    Isolation::Cut => {
                        let now_ms = context.timer.now_ms();
                        return Ok(json!({"isolated": true, "region": at.region, "experiment": id,
                            "isolated_ms": now_ms}));
                    }
                    Isolation::Coming => format!("experiment `{id}` is {}", experiment.state),
                    Isolation::Over(why) | Isolation::Broken(why) => {
                        return Err(StepError::IsolationFailed(format!("experiment `{id}`: {why}")));
                    }
                }
            }
        };
        if context.timer.now_ms() >= until_ms {
            return Ok(
                json!({"isolated": false, "region": at.region, "experiment": begun, "reason": reason}),
            );
        }
        context.timer.sleep(FAULT_INTERVAL).await;
    }
}

/// Tells the stop alarm that the drill is watched, and says whether the region is still cut off. To be called at least twice a
/// minute for as long as the isolation is to last.
///
/// # Errors
/// `FaultsUnavailable`.
pub async fn watch(context: &Context, request: &Request) -> Result<Value, StepError> {
    let (at, drill) = (other(context, request)?, &request.execution);
    context.faults.watched(&at, true).await?;
    let Some(id) = context.faults.of_drill(&at, drill).await?.into_iter().next() else {
        return Ok(
            json!({"isolated": false, "region": at.region, "experiment": null, "reason": "it never began"}),
        );
    };
    let experiment = context.faults.look(&at, &id).await?;
    let reason = match experiment.isolation() {
        Isolation::Cut => return Ok(json!({"isolated": true, "region": at.region, "experiment": id})),
        Isolation::Coming => experiment.state,
        Isolation::Over(why) | Isolation::Broken(why) => why,
    };
    Ok(json!({"isolated": false, "region": at.region, "experiment": id, "reason": reason}))
}

/// Puts everything back and waits until it is; also when it ended by itself, or never began. `ended` is false when the time is
/// over.
///
/// # Errors
/// `FaultsUnavailable`, after which it can be run again. The stop alarm was told before.
pub async fn end(context: &Context, request: &Request) -> Result<Value, StepError> {
    let (at, drill) = (other(context, request)?, &request.execution);
    let until_ms = context.watch_until(WATCH_LIMIT, request.deadline_ms);
    let mine = match context.faults.of_drill(&at, drill).await {
        Ok(mine) => mine,
        Err(error) => {
            // The second way to end it.
            return Err(told(context, &at, error).await);
        }
    };
    loop {
        let mut open = Vec::new();
        for id in &mine {
            match context.faults.look(&at, id).await {
                Ok(experiment) if experiment.progress == Progress::Ended => {}
                Ok(experiment) => open.push(experiment),
                Err(error) => return Err(told(context, &at, error).await),
            }
        }
        let Some(one) = open.first() else {
            let now_ms = context.timer.now_ms();
            return Ok(
                json!({"ended": true, "region": at.region, "experiment": mine.first(), "ended_at_ms": now_ms}),
            );
        };
        if context.timer.now_ms() >= until_ms {
            let reason = format!("experiment `{}` is {}", one.id, one.state);
            return Ok(json!({"ended": false, "region": at.region, "experiment": one.id, "reason": reason}));
        }
        for experiment in &open {
            if experiment.progress != Progress::Stopping
                && let Err(error) = context.faults.stop(&at, &experiment.id).await
            {
                return Err(told(context, &at, error).await);
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
    use crate::steps::handle;
    use crate::testing::{DR, Fault, HOME, World};

    const DRILL: &str = "drill-dev-20260101T000000";

    async fn step(world: &Arc<World>, slot: Slot, step: &str) -> Result<Value, StepError> {
        let event = json!({"step": step, "execution": DRILL, "input": {}});
        handle(&world.context(slot), &event, world.now_ms() + 100_000).await
    }

    #[tokio::test]
    async fn the_active_region_is_isolated_and_comes_back() {
        let world = World::deployed();
        let isolated = step(&world, Slot::Dr, "isolate").await.unwrap();
        assert_eq!(
            (&isolated["isolated"], &isolated["region"]),
            (&json!(true), &json!(HOME))
        );
        assert_eq!(world.isolated().as_deref(), Some(HOME));
        let watched = step(&world, Slot::Dr, "watch-isolation").await.unwrap();
        assert_eq!(watched["isolated"], true);
        let ended = step(&world, Slot::Dr, "end-isolation").await.unwrap();
        assert_eq!(
            (&ended["ended"], &ended["experiment"]),
            (&json!(true), &isolated["experiment"])
        );
        assert_eq!(world.isolated(), None);
    }

    #[tokio::test]
    async fn each_step_run_twice_equals_once() {
        let world = World::deployed();
        let first = step(&world, Slot::Dr, "isolate").await.unwrap();
        let second = step(&world, Slot::Dr, "isolate").await.unwrap();
        assert_eq!(first["experiment"], second["experiment"]);
        assert_eq!(world.experiments(), 1);
        step(&world, Slot::Dr, "end-isolation").await.unwrap();
        let again = step(&world, Slot::Dr, "end-isolation").await.unwrap();
        assert_eq!(again["ended"], true);
    }

    #[tokio::test]
    async fn an_isolation_that_never_began_has_ended() {
        let world = World::deployed();
        let ended = step(&world, Slot::Dr, "end-isolation").await.unwrap();
        assert_eq!(
            (&ended["ended"], &ended["experiment"]),
            (&json!(true), &Value::Null)
        );
        let watched = step(&world, Slot::Dr, "watch-isolation").await.unwrap();
        assert_eq!(watched["reason"], "it never began");
    }

    #[tokio::test]
    async fn a_lost_answer_at_any_call_leaves_one_experiment_that_can_be_ended() {
        for fault in [Fault::Refused, Fault::AnswerLost] {
            for n in 0..8 {
                let world = World::deployed();
                world.fail(n, fault);
                let first = step(&world, Slot::Dr, "isolate").await;
                world.fail(usize::MAX, fault);
                let second = step(&world, Slot::Dr, "isolate").await.unwrap();
                assert_eq!(second["isolated"], true, "{n} {fault:?} {first:?}");
                assert_eq!(world.experiments(), 1, "{n} {fault:?}");
                world.fail(n, fault);
                let _ = step(&world, Slot::Dr, "end-isolation").await;
                world.fail(usize::MAX, fault);
                step(&world, Slot::Dr, "end-isolation").await.unwrap();
                assert_eq!(world.isolated(), None, "{n} {fault:?}");
            }
        }
    }

    #[tokio::test]
    async fn when_the_service_cannot_be_told_to_stop_the_alarm_is() {
        let world = World::deployed();
        step(&world, Slot::Dr, "isolate").await.unwrap();
        // of_drill, look, stop.
        world.fail(2, Fault::Refused);
        let error = step(&world, Slot::Dr, "end-isolation").await.unwrap_err();
        assert_eq!(error.error_type(), "FaultsUnavailable");
        assert_eq!(world.isolated(), None, "the alarm went off");
    }

    #[tokio::test]
    async fn a_part_that_was_skipped_fails_the_drill() {
        let world = World::deployed();
        world.skip_actions();
        let error = step(&world, Slot::Dr, "isolate").await.unwrap_err();
        assert_eq!(error.error_type(), "IsolationFailed");
        assert!(error.to_string().contains("was skipped"), "{error}");
        let ended = step(&world, Slot::Dr, "end-isolation").await.unwrap();
        assert_eq!(ended["ended"], true);
    }

    #[tokio::test]
    async fn nothing_begins_while_the_stop_alarm_does_not_hear() {
        let world = World::deployed();
        world.deafen_stop_alarm();
        let waits = step(&world, Slot::Dr, "isolate").await.unwrap();
        assert_eq!(
            (&waits["isolated"], &waits["experiment"]),
            (&json!(false), &Value::Null)
        );
        assert_eq!(world.experiments(), 0);
    }

    #[tokio::test]
    async fn the_standby_is_never_isolated_by_a_drill() {
        let world = World::deployed();
        let error = step(&world, Slot::Primary, "isolate").await.unwrap_err();
        assert_eq!(error.error_type(), "IsolationFailed");
        assert_eq!(world.experiments(), 0);
        world.change_record(|record| record.active_region = DR.into());
        let isolated = step(&world, Slot::Primary, "isolate").await.unwrap();
        assert_eq!(isolated["region"], DR, "roles move");
    }
}
