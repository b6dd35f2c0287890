//! The recovery workflow, run from its ASL file against the doubles.

use std::sync::Arc;
use std::time::Duration;

use continuity::control::ControlStore;
use continuity::lost_tail::Report;
use continuity::names::Slot;
use serde_json::{Value, json};

use super::{DR, End, HOME, Machine, Run, World};
use crate::limits::RECOVERY_LIMIT;

const SNAPSHOT: &str = "rds:unplanned-global-failover-aurora-primary-dev-2026-11-27-02-00";
const KEPT: &str = "lost-tail-primary-dev-2";

async fn run(world: &Arc<World>) -> Run {
    let input = json!({"epoch": 2, "from_region": HOME, "to_region": DR, "decided_ms": 9});
    Machine::load("recovery")
        .run(world, Slot::Dr, "recovery-dev-2", input)
        .await
}

fn rejoined() -> Arc<World> {
    let world = World::deployed();
    world.home_rejoined();
    world
}

fn stored(world: &World) -> Report {
    serde_json::from_str(&world.document("lost-tail#2").unwrap()).unwrap()
}

#[tokio::test]
async fn the_lost_tail_is_kept_and_each_entry_that_existed_only_there_is_told() {
    let world = rejoined();
    // One of the lost payments was acknowledged and is in the journal, the other one was not.
    world.change_ledger(DR, |ledger| {
        ledger.entries.remove("payment-9");
    });
    // Of an earlier takeover.
    world.snapshot_made("rds:unplanned-global-failover-aurora-primary-dev-old", 500);
    world.snapshot_made(SNAPSHOT, 2_000);
    let run = run(&world).await;
    assert_eq!(run.end, End::Succeeded, "{:?}", run.path);
    assert_eq!(run.data["find_tail"]["snapshot"], SNAPSHOT);
    assert_eq!(world.kept_tails(), [KEPT]);
    assert!(!world.tail_is_open());
    let report = stored(&world);
    assert_eq!(report.snapshot.as_deref(), Some(KEPT));
    let told: Vec<(&str, &str, i64)> = report
        .comparison
        .entries
        .iter()
        .map(|line| (line.subject.as_str(), line.became.as_str(), line.amount_minor))
        .collect();
    assert_eq!(
        told,
        [("payment-9", "gone", 100), ("payment-8", "recovered", 100)]
    );
    let bucket = "dr-secondary-bucket-dev-000000000000";
    let file = world
        .file(bucket, "evidence/failover-dev-2/lost-tail.json")
        .unwrap();
    assert_eq!(serde_json::from_str::<Report>(&file).unwrap(), report);
    let (what, detail) = world.events().pop().unwrap();
    assert_eq!(what, "Understudy Region Rebuilt");
    let detail: Value = serde_json::from_str(&detail).unwrap();
    assert_eq!(detail["lost_tail"]["gone"]["entries"], 1, "{detail}");
}

#[tokio::test]
async fn without_a_snapshot_for_ten_minutes_nothing_was_lost() {
    let world = rejoined();
    let began_ms = world.now_ms();
    let run = run(&world).await;
    assert_eq!(run.end, End::Succeeded, "{:?}", run.path);
    assert!(world.now_ms() - began_ms >= 600_000);
    assert_eq!(world.kept_tails(), Vec::<String>::new());
    let report = stored(&world);
    assert_eq!((report.snapshot, report.comparison.looked_at), (None, 0));
    assert_eq!(world.events().len(), 1);
}

#[tokio::test]
async fn a_copy_that_was_made_is_compared_when_aurora_has_its_snapshot_no_more() {
    let world = rejoined();
    world.snapshot_made(SNAPSHOT, 2_000);
    assert_eq!(run(&world).await.end, End::Succeeded);
    world.forget_snapshots();
    let again = run(&world).await;
    assert_eq!(again.end, End::Succeeded, "{:?}", again.path);
    assert_eq!(stored(&world).comparison.totals["recovered"].entries, 2);
}

#[tokio::test]
async fn a_region_that_does_not_come_back_is_waited_for_a_day_and_ends_by_name() {
    let world = rejoined();
    world.home_answers(false);
    let began_ms = world.now_ms();
    let ended = run(&world).await;
    let End::Failed { error, cause } = ended.end else {
        panic!("{:?}", ended.end)
    };
    assert_eq!(error, "RecoveryOverdue");
    assert!(cause.contains("us-east-1"), "{cause}");
    let took = Duration::from_millis(world.now_ms() - began_ms);
    assert!(took >= RECOVERY_LIMIT && took < RECOVERY_LIMIT * 2, "{took:?}");
    // Each task, choice and wait state leaves nine events, of 25,000.
    assert!(ended.path.len() / 3 * 9 < 15_000, "{}", ended.path.len());
    world.home_answers(true);
    world.snapshot_made(SNAPSHOT, 2_000);
    assert_eq!(run(&world).await.end, End::Succeeded);
}

#[tokio::test]
async fn nothing_is_made_while_the_stack_goes_away() {
    let world = rejoined();
    world.snapshot_made(SNAPSHOT, 2_000);
    world.change_record(|record| (record.maintenance, record.repair_frozen) = (true, true));
    let ended = run(&world).await;
    assert!(matches!(ended.end, End::Failed { .. }), "{:?}", ended.end);
    assert_eq!(world.kept_tails(), Vec::<String>::new());
}

#[tokio::test]
async fn a_failover_starts_the_recovery_of_its_epoch_once() {
    let world = World::deployed();
    for observation in super::home_down(world.now_ms()) {
        world.control.put_observation(&observation).await.unwrap();
    }
    let input =
        json!({"epoch": 1, "to_region": DR, "started_by": "health-probe", "reasons": [], "decided_ms": 9});
    let machine = Machine::load("failover");
    for name in ["failover-dev-2", "failover-dev-2-2"] {
        machine.run(&world, Slot::Dr, name, input.clone()).await;
    }
    let started = world.started();
    assert_eq!(started.len(), 1, "{started:?}");
    let (machine, name, input) = &started[0];
    assert!(machine.ends_with(":stateMachine:recovery-dr-dev"), "{machine}");
    assert_eq!(name, "recovery-dev-2");
    let input: Value = serde_json::from_str(input).unwrap();
    assert_eq!(
        input,
        json!({"epoch": 2, "from_region": HOME, "to_region": DR, "decided_ms": 9})
    );
}
