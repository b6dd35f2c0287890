//! The recovery workflow, run from its ASL file against the doubles.

use std::sync::Arc;
use std::time::Duration;

use continuity::control::ControlStore;
use continuity::lost_tail::Report;
use continuity::names::Slot;
use infra::exercise::{Evidence, Outcome};
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
async fn the_evidence_of_the_failover_is_completed_and_completing_it_again_changes_nothing() {
    let world = World::deployed();
    for observation in super::home_down(world.now_ms()) {
        world.control.put_observation(&observation).await.unwrap();
    }
    let input =
        json!({"epoch": 1, "to_region": DR, "started_by": "health-probe", "reasons": [], "decided_ms": 9});
    let failover = Machine::load("failover");
    let failed_over = failover
        .run(&world, Slot::Dr, "failover-dev-2", input.clone())
        .await;
    assert_eq!(failed_over.end, End::Succeeded);
    let kept = |world: &World, name: &str| {
        let bucket = "dr-secondary-bucket-dev-000000000000";
        world
            .file(bucket, &format!("evidence/failover-dev-2/{name}"))
            .unwrap()
    };
    assert!(kept(&world, "index.html").contains("Not known yet"));
    world.home_rejoined();
    world.snapshot_made(SNAPSHOT, 2_000);
    assert_eq!(run(&world).await.end, End::Succeeded);
    let document = kept(&world, "evidence.json");
    let evidence: Evidence = serde_json::from_str(&document).unwrap();
    assert_eq!(evidence.lost_tail, Some(stored(&world)));
    assert_eq!(evidence.outcome, Outcome::Completed);
    let page = kept(&world, "index.html");
    assert!(page.contains("2 recovered from the journal"), "{page}");
    let item: Evidence = serde_json::from_str(&world.document("exercise#failover-dev-2").unwrap()).unwrap();
    assert_eq!(item.lost_tail, evidence.lost_tail);

    assert_eq!(run(&world).await.end, End::Succeeded);
    let again: Evidence = serde_json::from_str(&kept(&world, "evidence.json")).unwrap();
    let tail = again.lost_tail.clone();
    assert_eq!(
        tail.map(|tail| tail.comparison),
        evidence.lost_tail.clone().map(|tail| tail.comparison)
    );
    let rest = |evidence: Evidence| Evidence {
        lost_tail: None,
        ..evidence
    };
    assert_eq!(
        rest(again),
        rest(evidence),
        "nothing else of the evidence changes"
    );

    // A failover that is recorded once more keeps what its recovery found.
    failover.run(&world, Slot::Dr, "failover-dev-2-2", input).await;
    let recorded: Evidence = serde_json::from_str(&kept(&world, "evidence.json")).unwrap();
    assert!(recorded.lost_tail.is_some());
}

#[tokio::test]
async fn a_report_is_not_replaced_by_none_when_what_it_compared_is_kept_no_more() {
    let world = rejoined();
    world.snapshot_made(SNAPSHOT, 2_000);
    assert_eq!(run(&world).await.end, End::Succeeded);
    let before = stored(&world);
    world.forget_snapshots();
    world.forget_kept_tails();
    assert_eq!(run(&world).await.end, End::Succeeded);
    assert_eq!(stored(&world), before);
}

#[tokio::test]
async fn what_an_earlier_recovery_left_open_is_not_taken_for_this_tail() {
    let world = rejoined();
    world.tail_was_left_open("aurora-tail-1-primary-dev");
    world.snapshot_made(SNAPSHOT, 2_000);
    let run = run(&world).await;
    assert_eq!(run.end, End::Succeeded);
    assert_eq!(world.open_tails(), ["aurora-tail-1-primary-dev"]);
    let opened = run.path.iter().filter(|state| *state == "OpenTail").count();
    assert!(opened > 1, "a database of its own is restored: {:?}", run.path);
}

#[tokio::test]
async fn a_second_failover_before_the_recovery_ended_does_not_keep_it_from_its_end() {
    let world = rejoined();
    world.snapshot_made(SNAPSHOT, 2_000);
    // The region that took over was taken over from in turn, and follows again.
    world.change_record(|record| {
        (record.epoch, record.last_served_epoch) = (3, 3);
        record.active_region = HOME.into();
    });
    for region in [HOME, DR] {
        world.change_ledger(region, |ledger| {
            ledger.epoch = Some(3);
            ledger.in_recovery = region == DR;
        });
    }
    let ended = run(&world).await;
    assert_eq!(ended.end, End::Succeeded, "{:?}", ended.path);
    let report = stored(&world);
    assert_eq!((report.epoch, report.to_region.as_str()), (2, DR));
    assert_eq!(report.comparison.totals["recovered"].entries, 2);
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
