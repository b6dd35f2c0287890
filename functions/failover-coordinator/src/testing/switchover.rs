//! The switchover workflow as a whole, run from its ASL file against the doubles: it ends serving in the other region without a
//! loss, or serving where it was.

use std::sync::Arc;

use continuity::control::Phase;
use continuity::names::Slot;
use serde_json::{Value, json};

use super::asl::Treatment;
use super::world::LOST_TAIL;
use super::{DR, End, Fault, HOME, Machine, Run, World};

const NAME: &str = "switchover-dev-2";

fn input() -> Value {
    json!({"epoch": 1, "to_region": DR, "started_by": "operator", "reasons": ["maintenance"], "mode": "graceful", "by_person": true})
}

async fn run_as(world: &Arc<World>, name: &str, input: Value, treatment: &Treatment) -> Run {
    Machine::load("switchover")
        .run_with(world, Slot::Dr, name, input, treatment)
        .await
}

async fn run(world: &Arc<World>, treatment: &Treatment) -> Run {
    run_as(world, NAME, input(), treatment).await
}

fn once() -> Treatment {
    Treatment {
        times: 1,
        ..Treatment::default()
    }
}

/// Both regions are well, and the standby's ledger has everything.
fn caught_up() -> Arc<World> {
    let world = World::deployed();
    world.change_ledger(DR, |ledger| ledger.entries.extend(LOST_TAIL.map(str::to_owned)));
    world
}

/// The other region serves epoch 2 with every payment; nothing was lost.
fn assert_switched(world: &World, case: &str) {
    let record = world.record();
    assert_eq!((record.epoch, record.last_served_epoch), (2, 2), "{case}");
    assert_eq!(
        (record.active_region.as_str(), record.phase),
        (DR, Phase::Serving),
        "{case}"
    );
    assert!(!record.repair_frozen, "{case}");
    let ledger = world.ledger(DR);
    assert_eq!((ledger.epoch, ledger.in_recovery), (Some(2), false), "{case}");
    assert_eq!(ledger.entries.len(), 10, "{case}");
    assert!(world.ledger(HOME).in_recovery, "{case}");
}

/// The home region serves epoch 1 as before.
fn assert_as_before(world: &World, case: &str) {
    let record = world.record();
    assert_eq!((record.epoch, record.active_region.as_str()), (1, HOME), "{case}");
    assert_eq!(
        (record.phase, record.repair_frozen),
        (Phase::Serving, false),
        "{case}"
    );
    assert!(
        !world.ledger(HOME).in_recovery && world.ledger(DR).in_recovery,
        "{case}"
    );
}

#[tokio::test]
async fn a_planned_change_moves_the_active_region_without_a_loss_and_without_a_replay() {
    let world = caught_up();
    let run = run(&world, &once()).await;
    assert_eq!(run.end, End::Succeeded, "{:?}", run.path);
    assert_switched(&world, "undisturbed");
    assert!(!world.calls().iter().any(|call| call.ends_with(" replay")));
    assert!(
        !run.path
            .iter()
            .any(|state| state.starts_with("Wait") || state.starts_with("Pause"))
    );
}

#[tokio::test]
async fn the_active_region_drains_before_its_database_is_switched_over() {
    let world = caught_up();
    run(&world, &once()).await;
    let calls = world.calls();
    let at = |what: &str| calls.iter().position(|call| call == what).unwrap();
    assert!(at("us-east-2 replace") < at("us-east-1 switchover"), "{calls:?}");
}

#[tokio::test]
async fn every_step_run_twice_equals_once() {
    let world = caught_up();
    let treatment = Treatment { times: 2, ..once() };
    let run = run(&world, &treatment).await;
    assert_eq!(run.end, End::Succeeded, "{:?}", run.path);
    assert_switched(&world, "every step twice");
    // Drain, raise and open: three changes of the record.
    assert_eq!(world.record().version, 4);
}

#[tokio::test]
async fn each_call_failed_once_the_change_ends_in_one_region_or_the_other() {
    let undisturbed = caught_up();
    run(&undisturbed, &once()).await;
    let calls = undisturbed.calls();
    assert!(calls.len() > 15, "{calls:?}");
    for (number, call) in calls.iter().enumerate() {
        for fault in [Fault::Refused, Fault::AnswerLost] {
            let case = format!("call {number}, {call}: {fault:?}");
            let world = caught_up();
            world.fail(number, fault);
            let run = run(&world, &once()).await;
            assert_eq!(run.end, End::Succeeded, "{case}: {:?}", run.path);
            assert_switched(&world, &case);
        }
    }
}

#[tokio::test]
async fn killed_after_any_step_the_next_attempt_goes_on() {
    for tasks in 0..11 {
        let case = format!("killed after {tasks} tasks");
        let world = caught_up();
        let treatment = Treatment {
            kill_after_tasks: Some(tasks),
            ..once()
        };
        let killed = run(&world, &treatment).await;
        assert_eq!(killed.end, End::Killed, "{case}");
        let again = run_as(&world, "switchover-dev-2-2", input(), &once()).await;
        assert_eq!(again.end, End::Succeeded, "{case}: {:?}", again.path);
        assert_switched(&world, &case);
    }
}

#[tokio::test]
async fn a_standby_that_does_not_catch_up_is_not_switched_to_and_the_active_region_serves_on() {
    let world = World::deployed();
    let run = run(&world, &once()).await;
    assert!(
        matches!(&run.end, End::Failed { error, .. } if error == "SwitchoverGivenUp"),
        "{:?}",
        run.end
    );
    assert_as_before(&world, "behind");
    assert!(!world.calls().iter().any(|call| call.ends_with(" switchover")));
}

#[tokio::test]
async fn a_change_that_cannot_be_made_goes_on_as_a_failover_only_if_it_was_allowed() {
    for allowed in [false, true] {
        let world = World::deployed();
        let mut input = input();
        input["or_ungraceful"] = json!(allowed);
        let run = run_as(&world, NAME, input, &once()).await;
        let started = world.started();
        assert_eq!(started.len(), usize::from(allowed), "{:?}", run.path);
        if let Some((machine, name, input)) = started.first() {
            assert_eq!(
                machine,
                "arn:aws:states:us-east-2:000000000000:stateMachine:failover-dr-dev"
            );
            assert_eq!(name, "failover-dev-2");
            let input: Value = serde_json::from_str(input).unwrap();
            // What was draining is taken over, by what a person allowed, whatever the observers see.
            let failover = Machine::load("failover");
            let run = failover.run(&world, Slot::Dr, name, input).await;
            assert_eq!(run.end, End::Succeeded, "{:?}", run.path);
            assert_switched_ungracefully(&world);
        }
    }
}

fn assert_switched_ungracefully(world: &World) {
    let record = world.record();
    assert_eq!(
        (record.epoch, record.active_region.as_str(), record.phase),
        (2, DR, Phase::Serving)
    );
    assert_eq!(world.ledger(DR).entries.len(), 10);
}

#[tokio::test]
async fn a_change_is_held_with_every_reason() {
    let world = caught_up();
    world.change_ledger(DR, |ledger| ledger.epoch = Some(0));
    world.change_record(|record| {
        record.phase = Phase::Recovering;
        record.changed_by = "failover-dev-1".into();
    });
    let run = run(&world, &once()).await;
    assert_eq!(
        run.path.last().map(String::as_str),
        Some("Held"),
        "{:?}",
        run.path
    );
    assert_eq!(run.data["evaluate"]["reasons"].as_array().unwrap().len(), 2);
    assert_eq!(world.record().version, 2);
}

#[tokio::test]
async fn a_takeover_that_was_faster_ends_the_change() {
    let world = caught_up();
    let treatment = Treatment {
        kill_after_tasks: Some(3),
        ..once()
    };
    let killed = run(&world, &treatment).await;
    world.change_record(|record| {
        record.epoch = 2;
        record.phase = Phase::Recovering;
        record.active_region = DR.into();
        record.changed_by = "failover-dev-2".into();
    });
    let payload = json!({"step": "undrain", "execution": NAME, "input": killed.data});
    let undone = crate::steps::handle(&world.context(Slot::Dr), &payload, u64::MAX)
        .await
        .unwrap();
    assert_eq!(undone["undone"], false);
    assert_eq!(world.record().epoch, 2);
}
