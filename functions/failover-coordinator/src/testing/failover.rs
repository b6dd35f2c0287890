//! The failover workflow as a whole, run from its ASL file against the doubles: each call failed once, each step run twice,
//! the execution killed after each step. It must end serving in one region with the ledger right, or where it was.

use std::collections::BTreeSet;
use std::sync::Arc;

use continuity::control::{ControlStore, Phase};
use continuity::names::Slot;
use serde_json::{Value, json};

use super::asl::{APPROVAL_SECONDS, Treatment};
use super::world::LOST_TAIL;
use super::{DR, End, Fault, HOME, Machine, Run, World};

const NAME: &str = "failover-dev-2";

fn input() -> Value {
    json!({"epoch": 1, "to_region": DR, "started_by": "health-probe", "reasons": ["both observers saw it fail"], "decided_ms": 9})
}

async fn run(world: &Arc<World>, treatment: &Treatment) -> Run {
    Machine::load("failover")
        .run_with(world, Slot::Dr, NAME, input(), treatment)
        .await
}

fn once() -> Treatment {
    Treatment {
        times: 1,
        ..Treatment::default()
    }
}

/// The standby serves epoch 2 with every acknowledged payment; what it had lacked is in the journal of epoch 2.
fn assert_took_over(world: &World, case: &str) {
    let record = world.record();
    assert_eq!((record.epoch, record.last_served_epoch), (2, 2), "{case}");
    assert_eq!(record.active_region, DR, "{case}");
    assert_eq!(record.phase, Phase::Serving, "{case}");
    assert!(!record.repair_frozen, "{case}");
    let ledger = world.ledger(DR);
    assert_eq!(ledger.epoch, Some(2), "{case}");
    assert!(!ledger.in_recovery, "{case}");
    let acknowledged: BTreeSet<String> = (0..10).map(|n| format!("payment-{n}")).collect();
    assert_eq!(ledger.entries, acknowledged, "{case}");
    assert_eq!(world.journal(2), LOST_TAIL.map(str::to_owned).into(), "{case}");
}

/// Nothing has changed.
fn assert_untouched(world: &World, case: &str) {
    let record = world.record();
    assert_eq!((record.epoch, record.version), (1, 1), "{case}");
    assert_eq!(record.active_region, HOME, "{case}");
    assert!(world.ledger(DR).in_recovery, "{case}");
    assert_eq!(world.ledger(DR).epoch, Some(1), "{case}");
}

#[tokio::test]
async fn the_standby_takes_over_and_lost_payments_come_back_from_the_journal() {
    let world = World::home_failed().await;
    for payment in LOST_TAIL {
        assert!(!world.ledger(DR).entries.contains(payment));
    }
    let run = run(&world, &once()).await;
    assert_eq!(run.end, End::Succeeded, "{:?}", run.path);
    assert_took_over(&world, "undisturbed");
    let evidence: Value = serde_json::from_str(&world.document("exercise#failover-dev-2").unwrap()).unwrap();
    assert_eq!(evidence["payments"]["replayed"], 2);
    assert_eq!(evidence["payments"]["lost"], 0);
    assert_eq!(evidence["achieved"]["rto_ms"], 5_000);
    assert_eq!(evidence["steps"].as_array().unwrap().len(), 10);
    let rehearsed = world.document("rehearsed").unwrap();
    assert!(
        rehearsed.contains("failover-dev-2"),
        "it is younger than any drill: {rehearsed}"
    );
    assert_eq!(evidence["from_region"], HOME);
    let bucket = "dr-secondary-bucket-dev-000000000000";
    let document = world
        .file(bucket, "evidence/failover-dev-2/evidence.json")
        .unwrap();
    assert_eq!(serde_json::from_str::<Value>(&document).unwrap(), evidence);
    let page = world.file(bucket, "evidence/failover-dev-2/index.html").unwrap();
    assert!(page.contains("Failover: us-east-1 to us-east-2"));
}

#[tokio::test]
async fn a_failover_calls_nothing_outside_its_region_and_waits_for_nothing_when_nothing_is_slow() {
    let world = World::home_failed().await;
    let began_ms = world.now_ms();
    let run = run(&world, &once()).await;
    assert!(
        world.calls().iter().all(|call| call.starts_with("us-east-2 ")),
        "{:?}",
        world.calls()
    );
    assert!(
        !run.path
            .iter()
            .any(|state| state.starts_with("Wait") || state.starts_with("Pause"))
    );
    assert_eq!(world.now_ms(), began_ms);
}

#[tokio::test]
async fn every_step_run_twice_equals_once() {
    let world = World::home_failed().await;
    let treatment = Treatment { times: 2, ..once() };
    let run = run(&world, &treatment).await;
    assert_eq!(run.end, End::Succeeded);
    assert_took_over(&world, "every step twice");
    // Fence and open: two changes of the record, not four.
    assert_eq!(world.record().version, 3);
}

#[tokio::test]
async fn each_call_failed_once_the_takeover_still_ends() {
    let undisturbed = World::home_failed().await;
    run(&undisturbed, &once()).await;
    let calls = undisturbed.calls();
    assert!(calls.len() > 15, "{calls:?}");
    for (number, call) in calls.iter().enumerate() {
        for fault in [Fault::Refused, Fault::AnswerLost] {
            let case = format!("call {number}, {call}: {fault:?}");
            let world = World::home_failed().await;
            world.fail(number, fault);
            let run = run(&world, &once()).await;
            assert_eq!(run.end, End::Succeeded, "{case}: {:?}", run.path);
            assert_took_over(&world, &case);
            assert!(world.calls().len() > number, "{case}: not reached");
        }
    }
}

#[tokio::test]
async fn killed_after_any_step_the_same_execution_run_again_ends() {
    for tasks in 0..10 {
        let case = format!("killed after {tasks} tasks");
        let world = World::home_failed().await;
        let treatment = Treatment {
            kill_after_tasks: Some(tasks),
            ..once()
        };
        let killed = run(&world, &treatment).await;
        assert_eq!(killed.end, End::Killed, "{case}");
        let again = run(&world, &once()).await;
        assert_eq!(again.end, End::Succeeded, "{case}: {:?}", again.path);
        assert_took_over(&world, &case);
    }
}

#[tokio::test]
async fn a_stack_in_order_is_held_and_left_as_it_is() {
    let world = World::deployed();
    for observation in super::observed_home_serving(world.now_ms()) {
        world.control.put_observation(&observation).await.unwrap();
    }
    let run = run(&world, &once()).await;
    assert_eq!(run.end, End::Succeeded);
    assert_eq!(run.path.last().map(String::as_str), Some("Held"));
    assert!(!run.data["assess"]["reasons"].as_array().unwrap().is_empty());
    assert_untouched(&world, "held");
}

#[tokio::test]
async fn a_standby_whose_ledger_is_behind_is_not_taken_over_to() {
    let world = World::home_failed().await;
    world.change_ledger(DR, |ledger| ledger.epoch = Some(0));
    let run = run(&world, &once()).await;
    assert_eq!(run.path.last().map(String::as_str), Some("Held"));
    assert_eq!(world.record().epoch, 1);
}

#[tokio::test]
async fn an_error_before_the_fence_aborts_with_its_reason() {
    let world = World::home_failed().await;
    world.control.set_unreachable(true);
    let run = run(&world, &once()).await;
    world.control.set_unreachable(false);
    let End::Failed { error, cause } = run.end else {
        panic!("{:?}", run.end)
    };
    assert_eq!(error, "ControlUnavailable");
    assert!(cause.contains("no quorum"), "{cause}");
    assert_untouched(&world, "no control table");
}

/// The standby's ledger does not add up, and people answer so.
async fn run_unbalanced(answers: &[&str]) -> (Arc<World>, Run) {
    let world = World::home_failed().await;
    world.change_ledger(DR, |ledger| ledger.unbalanced = true);
    for answer in answers {
        world.will_answer(json!({"decision": answer, "step": "verify"}));
    }
    let run = run(&world, &once()).await;
    (world, run)
}

#[tokio::test]
async fn an_unbalanced_ledger_stays_closed_until_a_person_opens_it() {
    for answers in [&[][..], &["abort"], &["retry", "abort"]] {
        let (world, run) = run_unbalanced(answers).await;
        assert!(
            matches!(&run.end, End::Failed { error, .. } if error == "LedgerUnbalanced"),
            "{answers:?}: {:?}",
            run.end
        );
        let record = world.record();
        assert_eq!(
            (record.epoch, record.phase, record.repair_frozen),
            (2, Phase::Recovering, true)
        );
        let notice = world.notices().remove(0);
        assert!(
            notice.contains("LedgerUnbalanced") && notice.contains("understudy skip --suffix dev"),
            "{notice}"
        );
    }
    let (world, run) = run_unbalanced(&["retry", "skip"]).await;
    assert_eq!(run.end, End::Succeeded, "{:?}", run.path);
    assert_took_over(&world, "a person answers for it");
    let bucket = "dr-secondary-bucket-dev-000000000000";
    let page = world.file(bucket, "evidence/failover-dev-2/index.html").unwrap();
    assert!(page.contains("the ledger does not add up"), "{page}");
}

/// The home region failed, and people have to approve.
async fn run_for_approval(answers: &[&str]) -> (Arc<World>, Run) {
    let world = World::home_failed().await;
    world.change_spec(|spec| spec.failover.decider = continuity::assess::Decider::Approve);
    for answer in answers {
        world.will_answer(json!({"decision": answer}));
    }
    let run = run(&world, &once()).await;
    (world, run)
}

#[tokio::test]
async fn a_proposed_failover_waits_for_a_person_who_is_told_how_to_answer() {
    let (world, approved) = run_for_approval(&["approve"]).await;
    assert_eq!(approved.end, End::Succeeded, "{:?}", approved.path);
    assert_took_over(&world, "approved");
    let notice = world.notices().remove(0);
    assert!(notice.contains("understudy approve --suffix dev"), "{notice}");
    assert!(notice.contains("us-west-2 saw"), "the reasons: {notice}");
    assert!(!notice.contains("token"), "{notice}");
}

#[tokio::test]
async fn a_proposal_that_is_declined_or_expires_changes_nothing() {
    for (answers, end) in [(&["decline"][..], "Held"), (&[], "Expired")] {
        let (world, run) = run_for_approval(answers).await;
        assert_eq!(run.end, End::Succeeded);
        assert_eq!(run.path.last().map(String::as_str), Some(end), "{:?}", run.path);
        assert_untouched(&world, end);
        let waiting = world
            .control
            .document(infra::waiting::ITEM)
            .await
            .unwrap()
            .unwrap();
        let waiting: infra::waiting::Waiting = serde_json::from_str(&waiting).unwrap();
        assert_eq!(
            waiting.until_ms - waiting.since_ms,
            APPROVAL_SECONDS * 1_000,
            "as long as the workflow waits"
        );
    }
}

#[tokio::test]
async fn a_second_attempt_for_the_same_epoch_changes_nothing() {
    let world = World::home_failed().await;
    run(&world, &once()).await;
    let (version, ledger) = (world.record().version, world.ledger(DR).entries);
    let late = Machine::load("failover")
        .run(&world, Slot::Dr, "failover-dev-2-2", input())
        .await;
    assert_eq!(late.end, End::Succeeded, "{:?}", late.path);
    assert_eq!(
        (world.record().version, world.ledger(DR).entries),
        (version, ledger)
    );
}

#[tokio::test]
async fn killed_after_any_step_the_next_attempt_ends_what_the_first_began() {
    for tasks in 0..10 {
        let case = format!("killed after {tasks} tasks");
        let world = World::home_failed().await;
        let treatment = Treatment {
            kill_after_tasks: Some(tasks),
            ..once()
        };
        run(&world, &treatment).await;
        let again = Machine::load("failover")
            .run(&world, Slot::Dr, "failover-dev-2-2", input())
            .await;
        assert_eq!(again.end, End::Succeeded, "{case}: {:?}", again.path);
        assert_took_over(&world, &case);
    }
}

#[tokio::test]
async fn a_superseded_execution_stops_and_undoes_nothing() {
    let world = World::home_failed().await;
    let treatment = Treatment {
        kill_after_tasks: Some(4),
        ..once()
    };
    run(&world, &treatment).await;
    let record = world.record();
    let newer = continuity::control::ControlRecord {
        epoch: 3,
        active_region: HOME.into(),
        changed_by: "failover-dev-3".into(),
        version: record.version + 1,
        ..record.clone()
    };
    world.control.replace(&record, &newer).await.unwrap();
    let payload = json!({"step": "set-epoch", "execution": NAME, "input": input()});
    let refused = crate::steps::handle(&world.context(Slot::Dr), &payload, u64::MAX)
        .await
        .unwrap_err();
    assert_eq!(refused.error_type(), "Superseded");
    assert_eq!(world.ledger(DR).epoch, Some(1));
    assert_eq!(world.record(), newer);
}

#[tokio::test]
async fn traffic_that_does_not_follow_is_recorded_and_holds_nothing_up() {
    let world = World::home_failed().await;
    world.traffic_never_follows();
    let run = run(&world, &once()).await;
    assert_eq!(run.end, End::Succeeded);
    assert_took_over(&world, "traffic");
    let evidence: Value = serde_json::from_str(&world.document("exercise#failover-dev-2").unwrap()).unwrap();
    let gaps = evidence["gaps"].to_string();
    assert!(
        gaps.contains("the public name did not lead to the region in time"),
        "{gaps}"
    );
}

#[tokio::test]
async fn a_region_opens_only_after_replay_and_verification() {
    let world = World::home_failed().await;
    let treatment = Treatment {
        kill_after_tasks: Some(5),
        ..once()
    };
    let killed = run(&world, &treatment).await;
    let payload = json!({"step": "open", "execution": NAME, "input": killed.data});
    let refused = crate::steps::handle(&world.context(Slot::Dr), &payload, u64::MAX)
        .await
        .unwrap_err();
    assert_eq!(refused.error_type(), "MalformedInput");
    assert_eq!(world.record().phase, Phase::Recovering);
}
