//! The drill workflow as a whole, run from its ASL file against the doubles: each call failed once, each step run twice, the execution
//! killed after each step. It ends where it began, or says that it did not.

use std::sync::Arc;

use continuity::control::{ControlStore, Phase};
use continuity::names::Slot;
use infra::change::Kind;
use serde_json::{Value, json};

use super::asl::Treatment;
use super::{DR, End, Fault, HOME, Machine, Run, Switchovers, World};

const NAME: &str = "drill-by-schedule";
const ID: &str = "drill-dev-19700101T024640";

fn stack() -> Arc<World> {
    let world = World::deployed();
    super::observers_awake(&world);
    world.switchovers(Switchovers::Work);
    world
}

async fn run(world: &Arc<World>, treatment: &Treatment) -> Run {
    run_kind(world, "switchover", treatment).await
}

async fn run_kind(world: &Arc<World>, kind: &str, treatment: &Treatment) -> Run {
    let input = json!({"kind": kind, "hold_seconds": 30, "started_by": "schedule"});
    Machine::load("drill")
        .run_with(world, Slot::Dr, NAME, input, treatment)
        .await
}

fn once() -> Treatment {
    Treatment {
        times: 1,
        ..Treatment::default()
    }
}

fn evidence(world: &World) -> Value {
    let json = world.document(&format!("exercise#{ID}"));
    serde_json::from_str(&json.expect("there is evidence")).unwrap()
}

/// The home region serves, and no key and no claim is left.
async fn assert_home(world: &World, case: &str) {
    let record = world.record();
    assert_eq!(
        (record.active_region.as_str(), record.phase),
        (HOME, Phase::Serving),
        "{case}"
    );
    assert!(world.control.api_keys().await.unwrap().is_empty(), "{case}");
    let drill: Value = serde_json::from_str(&world.document("drill").unwrap()).unwrap();
    assert!(drill["ended_ms"].is_u64(), "{case}");
}

fn names(world: &World) -> Vec<String> {
    world.started().into_iter().map(|(_, name, _)| name).collect()
}

#[tokio::test]
async fn the_standby_takes_over_serves_and_gives_back_with_payments_all_along() {
    let world = stack();
    let run = run(&world, &once()).await;
    assert_eq!(run.end, End::Succeeded, "{:?}", run.path);
    assert_home(&world, "undisturbed").await;
    assert_eq!(names(&world), ["switchover-dev-2", "switchover-dev-3"]);
    assert_eq!(world.record().epoch, 3);
    let machines: Vec<String> = world
        .started()
        .into_iter()
        .map(|(machine, _, _)| machine)
        .collect();
    assert!(
        machines[0].contains(":us-east-2:") && machines[1].contains(":us-east-1:"),
        "{machines:?}"
    );
    let evidence = evidence(&world);
    assert_eq!(
        (&evidence["outcome"], &evidence["kind"], &evidence["drill"]),
        (&json!("completed"), &json!("drill"), &json!("switchover"))
    );
    assert_eq!(
        (&evidence["missed"], &evidence["payments"]["lost"]),
        (&json!([]), &json!(0))
    );
    let stages: Vec<&str> = evidence["steps"]
        .as_array()
        .unwrap()
        .iter()
        .map(|mark| mark["step"].as_str().unwrap())
        .collect();
    let expected = [
        "payments before the change",
        "there",
        "hold",
        "back",
        "payments after it",
    ];
    assert_eq!(stages, expected.map(|stage| format!("drill: {stage}")));
    let bucket = "dr-secondary-bucket-dev-000000000000";
    for file in ["evidence.json", "index.html"] {
        assert!(
            world.file(bucket, &format!("evidence/{ID}/{file}")).is_some(),
            "{file}"
        );
    }
    let regions = evidence["traffic"]["seconds"].to_string();
    assert!(regions.contains(HOME) && regions.contains(DR), "{regions}");
    assert!(world.document("rehearsed").unwrap().contains(ID));
    let all = format!("{} {:?}", run.data, world.document(&format!("traffic#{ID}#0")));
    assert!(!all.contains("usk_"), "a key is in no state and in no document");
}

#[tokio::test]
async fn where_or_when_it_may_not_run_it_ends_quietly_and_changes_nothing() {
    let quiet = async |world: &Arc<World>, slot, why: &str| {
        let run = Machine::load("drill").run(world, slot, NAME, json!({})).await;
        assert_eq!(run.path, ["Begin", "HasBegun", "NoDrill"], "{why}");
        assert!(
            run.data["drill_begin"].to_string().contains(why),
            "{why}: {}",
            run.data
        );
        assert!(
            world.started().is_empty() && world.document("drill").is_none(),
            "{why}"
        );
    };
    quiet(&World::undeployed(), Slot::Dr, "not-here").await;
    quiet(&stack(), Slot::Primary, "not-here").await;
    let maintained = stack();
    maintained.change_record(|record| record.maintenance = true);
    quiet(&maintained, Slot::Dr, "in maintenance").await;
    let draining = stack();
    draining.change_record(|record| record.phase = Phase::Draining);
    quiet(&draining, Slot::Dr, "is draining").await;
    let blind = World::deployed();
    blind.switchovers(Switchovers::Work);
    quiet(&blind, Slot::Dr, "not ready: ").await;
    let busy = stack();
    busy.hold_change(Kind::Deploy, "d-1");
    quiet(&busy, Slot::Dr, "`d-1` is changing the stack").await;
}

#[tokio::test]
async fn a_drill_that_runs_is_the_only_one_and_a_repair_does_not_hold_it_up() {
    let world = stack();
    world.hold_change(Kind::Reconcile, "r-1");
    let killed = Treatment {
        kill_after_tasks: Some(2),
        ..once()
    };
    assert_eq!(run(&world, &killed).await.end, End::Killed);
    let second = Machine::load("drill")
        .run(&world, Slot::Dr, "drill-2", json!({}))
        .await;
    assert_eq!(second.path.last().map(String::as_str), Some("NoDrill"));
    assert!(
        second.data["drill_begin"].to_string().contains(ID),
        "{}",
        second.data
    );
}

#[tokio::test]
async fn a_region_whose_payments_fail_is_left_at_once() {
    let world = stack();
    world.payments_fail_in(DR);
    let run = run(&world, &once()).await;
    assert!(
        matches!(&run.end, End::Failed { error, .. } if error == "ObjectiveMissed"),
        "{:?}",
        run.end
    );
    assert_home(&world, "left").await;
    let evidence = evidence(&world);
    assert!(
        evidence["outcome_reason"]
            .as_str()
            .unwrap()
            .contains("0 % of the payments"),
        "{evidence}"
    );
    assert!(world.document("rehearsed").is_none());
}

#[tokio::test]
async fn without_an_acknowledged_payment_nothing_is_changed() {
    let world = stack();
    world.payments_fail_in(HOME);
    let run = run(&world, &once()).await;
    assert!(matches!(run.end, End::Failed { .. }));
    assert!(world.started().is_empty());
    assert_home(&world, "nothing changed").await;
}

#[tokio::test]
async fn a_change_that_is_given_up_ends_the_drill_where_it_was() {
    let world = stack();
    world.switchovers(Switchovers::GiveUp);
    let run = run(&world, &once()).await;
    assert!(matches!(run.end, End::Failed { .. }));
    assert_eq!(names(&world), ["switchover-dev-2"]);
    assert_eq!(world.record().epoch, 1);
    assert!(
        evidence(&world)["outcome_reason"]
            .as_str()
            .unwrap()
            .contains("serves as before")
    );
}

#[tokio::test]
async fn while_the_other_region_serves_it_comes_back_again_and_again() {
    let world = stack();
    world.switchovers(Switchovers::TroubleBack);
    let run = run(&world, &once()).await;
    assert_eq!(run.end, End::Succeeded, "{:?}", run.end);
    assert_eq!(
        names(&world),
        [
            "switchover-dev-2",
            "switchover-dev-3",
            "switchover-dev-3-2",
            "switchover-dev-3-3"
        ]
    );
    assert_home(&world, "came back").await;
}

#[tokio::test]
async fn a_lost_payment_fails_the_drill() {
    let world = stack();
    let treatment = Treatment {
        kill_after_tasks: Some(6),
        ..once()
    };
    run(&world, &treatment).await;
    world.lose_a_payment();
    let run = run(&world, &once()).await;
    assert!(matches!(run.end, End::Failed { .. }));
    assert!(
        evidence(&world)["missed"]
            .to_string()
            .contains("1 acknowledged payments are lost")
    );
}

#[tokio::test]
async fn every_step_run_twice_ends_the_same() {
    let world = stack();
    let run = run(&world, &Treatment { times: 2, ..once() }).await;
    assert_eq!(run.end, End::Succeeded, "{:?}", run.end);
    assert_eq!(names(&world), ["switchover-dev-2", "switchover-dev-3"]);
    assert_home(&world, "twice").await;
}

#[tokio::test]
async fn killed_after_any_step_the_same_execution_run_again_ends_at_home() {
    let mut tasks = 0;
    loop {
        let world = stack();
        let treatment = Treatment {
            kill_after_tasks: Some(tasks),
            ..once()
        };
        if run(&world, &treatment).await.end != End::Killed {
            break;
        }
        let again = run(&world, &once()).await;
        assert_eq!(
            again.end,
            End::Succeeded,
            "killed after {tasks} tasks: {:?}",
            again.path
        );
        assert_home(&world, &format!("killed after {tasks} tasks")).await;
        tasks += 1;
    }
    assert!(tasks > 12, "{tasks}");
}

#[tokio::test]
async fn each_call_failed_once_it_still_ends_at_home_and_leaves_no_key() {
    let undisturbed = stack();
    run(&undisturbed, &once()).await;
    let calls = undisturbed.calls().len();
    assert!(calls > 40, "{calls}");
    for number in 0..calls {
        for fault in [Fault::Refused, Fault::AnswerLost] {
            let world = stack();
            world.fail(number, fault);
            let case = format!("call {number}: {fault:?}");
            let run = run(&world, &once()).await;
            assert_eq!(
                run.end,
                End::Succeeded,
                "{case}: {:?} {:?}",
                run.end,
                world.calls().get(number)
            );
            assert_home(&world, &case).await;
        }
    }
}

fn stages(world: &World) -> Vec<String> {
    let drill: Value = serde_json::from_str(&world.document("drill").unwrap()).unwrap();
    let marks = drill["marks"].as_array().unwrap();
    marks
        .iter()
        .map(|mark| mark["stage"].as_str().unwrap().to_owned())
        .collect()
}

#[tokio::test]
async fn a_region_that_is_cut_off_is_taken_over_from_joined_again_and_serves_at_the_end() {
    use continuity::assess::Decider;
    for decider in [Decider::Automatic, Decider::Approve, Decider::Manual] {
        let world = stack();
        world.change_spec(|spec| spec.failover.decider = decider);
        let run = run_kind(&world, "isolation", &once()).await;
        assert_eq!(run.end, End::Succeeded, "{decider:?}: {}", evidence(&world));
        assert_home(&world, "isolation").await;
        assert_eq!(world.isolated(), None);
        assert_eq!(world.experiments(), 1);
        assert_eq!(
            stages(&world),
            ["baseline", "there", "hold", "rejoin", "back", "over"]
        );
        // Who may decide by themselves is left alone; otherwise the drill does what a person would.
        let expected: &[&str] = match decider {
            Decider::Automatic => &["switchover-dev-3"],
            Decider::Approve | Decider::Manual => &["failover-dev-2", "switchover-dev-3"],
        };
        assert_eq!(names(&world), expected, "{decider:?}");
        let evidence = evidence(&world);
        assert_eq!(
            (&evidence["drill"], &evidence["outcome"], &evidence["missed"]),
            (&json!("isolation"), &json!("completed"), &json!([]))
        );
        assert_eq!(
            evidence["objectives"]["rto_ms"], 300_000,
            "that of an unplanned change"
        );
        let steps = evidence["steps"].to_string();
        assert!(steps.contains("isolation: cut off") && steps.contains("isolation: joined again"));
    }
}

#[tokio::test]
async fn while_a_drill_that_died_is_unfinished_none_begins_in_the_other_region() {
    let world = stack();
    let mut tasks = 3;
    // Killed where the other region serves: the home of the drill is the standby now.
    while world.record().active_region == HOME {
        let killed = Treatment {
            kill_after_tasks: Some(tasks),
            ..once()
        };
        assert_eq!(run(&world, &killed).await.end, End::Killed);
        tasks += 1;
    }
    world.end_execution(&super::asl::execution_arn(DR, NAME));
    let before = world.document("drill");
    let other = Machine::load("drill")
        .run(&world, Slot::Primary, "drill-2", json!({}))
        .await;
    assert_eq!(other.path, ["Begin", "HasBegun", "NoDrill"]);
    let why = other.data["drill_begin"].to_string();
    assert!(why.contains(ID) && why.contains("in us-east-2"), "{why}");
    assert_eq!(world.document("drill"), before);
    // Its own region goes on with it.
    let again = Machine::load("drill")
        .run(&world, Slot::Dr, "drill-3", json!({}))
        .await;
    assert_eq!(again.end, End::Succeeded, "{:?}", again.path);
    assert_home(&world, "gone on with").await;
}

#[test]
fn a_region_that_serves_on_is_left_only_when_no_failover_of_the_drill_is_under_way() {
    use crate::drill::{Drill, Next, Sight, Stage, next};
    let drill = |change: Option<&str>, restored_ms| Drill {
        id: ID.into(),
        kind: infra::exercise::DrillKind::Isolation,
        execution: "x".into(),
        started_by: "operator".into(),
        home: HOME.into(),
        target: DR.into(),
        epoch: 1,
        hold_ms: 0,
        per_second: 5,
        longest_gap_ms: 1_000,
        began_ms: 0,
        stage: Stage::Rejoin,
        stage_ms: 0,
        marks: Vec::new(),
        change: change.map(str::to_owned),
        observers_decide: change.is_none(),
        isolated_ms: Some(1),
        restored_ms,
        attempts_back: 0,
        aborted: Some("nobody took over".into()),
        ended_ms: None,
    };
    let record = World::deployed().record();
    for (change, restored_ms, change_ended, leaves) in [
        (None, None, false, false),
        (None, Some(2), false, true),
        (Some("failover"), Some(2), false, false),
        (Some("failover"), Some(2), true, true),
    ] {
        let sight = Sight {
            record: &record,
            change_ended,
            recent: None,
            home_is_fit: false,
        };
        let next = next(&drill(change, restored_ms), &sight, 10);
        let over = matches!(&next, Next::Go(then) if then.stage == Stage::Over);
        assert_eq!(
            over, leaves,
            "{change:?} {restored_ms:?} {change_ended}: {next:?}"
        );
    }
}

#[tokio::test]
async fn a_region_that_nobody_takes_over_from_is_joined_again_and_serves_on() {
    let world = stack();
    world.switchovers(Switchovers::GiveUp);
    let run = run_kind(&world, "isolation", &once()).await;
    assert!(matches!(&run.end, End::Failed { error, .. } if error == "ObjectiveMissed"));
    assert_home(&world, "nobody took over").await;
    assert_eq!(world.isolated(), None);
    assert_eq!(stages(&world), ["baseline", "there", "rejoin", "over"]);
    let evidence = evidence(&world);
    let why = evidence["outcome_reason"].as_str().unwrap();
    assert!(why.contains("nobody took over from `us-east-1` within"), "{why}");
}

#[tokio::test]
async fn an_isolation_that_skips_a_part_is_put_back_and_the_region_serves_on() {
    let world = stack();
    world.switchovers(Switchovers::GiveUp);
    world.skip_actions();
    let run = run_kind(&world, "isolation", &once()).await;
    assert!(matches!(run.end, End::Failed { .. }));
    assert_home(&world, "skipped").await;
    assert_eq!(world.isolated(), None);
    assert!(
        evidence(&world)["outcome_reason"]
            .as_str()
            .unwrap()
            .contains("was skipped")
    );
}

#[tokio::test]
async fn a_readiness_drill_pays_and_moves_nothing_and_says_what_is_not_ready() {
    let world = stack();
    let run = run_kind(&world, "readiness", &once()).await;
    assert_eq!(run.end, End::Succeeded, "{}", evidence(&world));
    assert_eq!(stages(&world), ["baseline", "over"]);
    assert!(world.started().is_empty());
    assert_eq!(world.record().version, World::deployed().record().version);
    let shown = evidence(&world);
    assert_eq!(
        (&shown["drill"], &shown["missed"]),
        (&json!("readiness"), &json!([]))
    );
    assert!(shown["not_proven"].to_string().contains("Nothing was moved"));

    let blind = World::deployed();
    blind.switchovers(Switchovers::Work);
    let run = run_kind(&blind, "readiness", &once()).await;
    assert!(matches!(&run.end, End::Failed { error, .. } if error == "ObjectiveMissed"));
    let missed = evidence(&blind)["missed"].to_string();
    assert!(missed.contains("not ready: "), "{missed}");
    assert!(blind.started().is_empty());
}

#[tokio::test]
async fn a_drill_that_died_is_started_again_by_the_next_evaluation_and_gone_on_with() {
    for kind in ["switchover", "isolation"] {
        let mut tasks = 3;
        loop {
            let world = stack();
            let killed = Treatment {
                kill_after_tasks: Some(tasks),
                ..once()
            };
            if run_kind(&world, kind, &killed).await.end != End::Killed {
                break;
            }
            let case = format!("{kind}: killed after {tasks} tasks");
            let evaluate = async |name: &str| {
                let machine = Machine::load("readiness");
                let run = machine.run(&world, Slot::Dr, name, json!({})).await;
                assert_eq!(run.end, End::Succeeded, "{case}");
                run.data["resume_drill"]["resumed"].clone()
            };
            assert_eq!(evaluate("r-1").await, Value::Null, "{case}: it may run still");
            world.end_execution(&super::asl::execution_arn(DR, NAME));
            let resumed = evaluate("r-2").await;
            assert_eq!(resumed, ID, "{case}");
            // A second evaluation finds it running.
            let again = Machine::load("drill")
                .run(&world, Slot::Dr, ID, json!({"kind": kind}))
                .await;
            assert_eq!(again.end, End::Succeeded, "{case}: {:?}", again.path);
            assert_home(&world, &case).await;
            assert_eq!(evidence(&world)["id"], ID, "{case}: the same drill");
            assert_eq!(world.isolated(), None, "{case}");
            tasks += 7;
        }
        assert!(tasks > 10, "{tasks}");
    }
}
