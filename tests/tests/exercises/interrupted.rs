//! What takes over meets more than one fault: a region that is half dead, a workflow or a coordinator that dies in the middle, a
//! region that fails while it hands over. Nobody helps: the observers see to it that one region serves, and nothing
//! acknowledged is lost.

use bootstrap::local::Part;
use bootstrap::local::edge::Strike;
use bootstrap::takeover::{Mode, Wish, move_to};
use bootstrap::ui::Ui;
use continuity::control::{ControlRecord, Phase};
use continuity::names::Slot;
use infra::resources::state_machine;

use crate::takeover::{HOME, STANDBY, Stage, fit};

/// The region serves this epoch.
async fn serves(stage: &Stage, region: &str, epoch: u64) -> ControlRecord {
    let what = format!("{region} does not serve epoch {epoch}");
    stage
        .until(&what, async |stage| {
            let record = stage.record(region).await;
            let serves = record.active_region == region && record.phase == Phase::Serving;
            (serves && record.epoch == epoch).then_some(record)
        })
        .await
}

async fn is_fit(stage: &Stage, region: &str) {
    let what = format!("the observers do not see {region} fit");
    stage.until(&what, async |stage| fit(stage, region).await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_region_that_is_half_dead_is_taken_over_without_a_loss() {
    let _turn = crate::turn().await;
    let stage = Stage::new("half", |_| {}).await;
    let mut load = stage.load();
    stage.pays(&mut load, 1).await;
    // It answers but cannot write; it writes but is cut off from the tables; its database is gone and its functions are well.
    for (epoch, from, part, to) in [
        (2, HOME, Part::Writes, STANDBY),
        (3, STANDBY, Part::Tables, HOME),
        (4, HOME, Part::Database, STANDBY),
    ] {
        is_fit(&stage, to).await;
        stage.cloud().take(from.parse().unwrap(), part).await.unwrap();
        serves(&stage, to, epoch).await;
        stage.pays(&mut load, epoch).await;
        stage.heal(from).await;
    }
    let acknowledged = load.finish().await.unwrap();
    stage.assert_nothing_lost(&acknowledged).await;
    stage.cloud.stop().await;
}

/// The ARN of an execution of the standby's workflow.
fn execution(stage: &Stage, workflow: &str, name: &str) -> String {
    let machine = stage.stack.names().state_machine(workflow, Slot::Dr);
    let machine = state_machine::arn(STANDBY, &stage.stack.account, &machine);
    format!("{}:{name}", machine.replacen(":stateMachine:", ":execution:", 1))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_takeover_that_dies_in_the_middle_comes_to_its_end_by_itself() {
    let _turn = crate::turn().await;
    let stage = Stage::new("died", |_| {}).await;
    let mut load = stage.load();
    stage.pays(&mut load, 1).await;

    // The region fails while it hands over: its standby has not caught up, so it drains when it is cut off. The coordinator
    // that promotes the other one is killed at that call.
    is_fit(&stage, STANDBY).await;
    stage.cloud().lag(STANDBY.parse().unwrap(), true).await.unwrap();
    stage.pays(&mut load, 1).await;
    let wish = Wish {
        to_region: STANDBY.into(),
        mode: Mode::Graceful,
        or_ungraceful: false,
        reason: "a test".into(),
    };
    let silent = Ui::silent();
    let moving = move_to(&stage.stack, &wish, &silent);
    let failing = async {
        stage
            .until("the home region does not drain", async |stage| {
                (stage.record(STANDBY).await.phase == Phase::Draining).then_some(())
            })
            .await;
        let strike = Strike {
            caller: Some("failover-coordinator-dr".into()),
            operation: Some("FailoverGlobalCluster".into()),
            nth: 1,
            ..Strike::default()
        };
        stage.cloud().strike(&[strike]).await.unwrap();
        stage.cloud().outage(HOME.parse().unwrap(), true).await.unwrap();
        stage.cloud().lag(STANDBY.parse().unwrap(), false).await.unwrap();
        serves(&stage, STANDBY, 2).await;
    };
    let (moved, ()) = tokio::join!(moving, failing);
    assert!(moved.is_err(), "the planned change could not be made: {moved:?}");
    let struck = stage.cloud().struck().await.unwrap();
    assert!(struck[0].struck.is_some(), "{struck:?}");
    stage.cloud().strike(&[]).await.unwrap();
    stage.pays(&mut load, 2).await;
    stage.heal(HOME).await;

    // Home again, so that the workflow that is stopped runs in the standby again.
    is_fit(&stage, HOME).await;
    let home = Wish {
        to_region: HOME.into(),
        ..wish
    };
    move_to(&stage.stack, &home, &silent).await.unwrap();
    stage.pays(&mut load, 3).await;

    // The execution is stopped between two steps.
    is_fit(&stage, STANDBY).await;
    stage.cloud().outage(HOME.parse().unwrap(), true).await.unwrap();
    stage
        .until("nobody fences the region", async |stage| {
            let record = stage.record(STANDBY).await;
            (record.epoch == 4 && record.phase == Phase::Recovering).then_some(())
        })
        .await;
    let name = stage.stack.names().failover_execution(4);
    let sfn = stage.stack.cloud.sfn(STANDBY);
    let first = execution(&stage, "failover", &name);
    sfn.stop_execution().execution_arn(&first).send().await.unwrap();
    let ended = sfn
        .describe_execution()
        .execution_arn(&first)
        .send()
        .await
        .unwrap();
    assert_eq!(ended.status().as_str(), "ABORTED", "it was stopped in the middle");
    serves(&stage, STANDBY, 4).await;
    let second = execution(&stage, "failover", &format!("{name}-2"));
    let again = sfn
        .describe_execution()
        .execution_arn(&second)
        .send()
        .await
        .unwrap();
    let input: serde_json::Value = serde_json::from_str(again.input().unwrap()).unwrap();
    assert_eq!(input["started_by"], "health-probe");
    stage.pays(&mut load, 4).await;
    stage.heal(HOME).await;

    let acknowledged = load.finish().await.unwrap();
    stage.assert_nothing_lost(&acknowledged).await;
    stage.cloud.stop().await;
}

/// How many of the coordinator's calls are its last, in each direction.
const SAMPLE: u64 = 4;

/// Strikes the coordinator of the slot at its `nth` call that writes; with 0 the calls are counted.
fn at_call(slot: Slot, nth: u64) -> Strike {
    Strike {
        caller: Some(format!("failover-coordinator-{}", slot.as_str())),
        writes_only: true,
        nth,
        ..Strike::default()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_coordinator_killed_at_any_of_its_calls_leaves_one_region_serving_and_the_ledger_right() {
    let _turn = crate::turn().await;
    let stage = Stage::new("struck", |_| {}).await;
    let mut load = stage.load();
    stage.pays(&mut load, 1).await;
    let silent = Ui::silent();
    let go = async |to: &str| {
        is_fit(&stage, to).await;
        let wish = Wish {
            to_region: to.into(),
            mode: Mode::Graceful,
            or_ungraceful: false,
            reason: "a test".into(),
        };
        move_to(&stage.stack, &wish, &silent).await
    };
    // There and back undisturbed, to learn which calls there are.
    let mut calls = Vec::new();
    for (to, slot) in [(STANDBY, Slot::Dr), (HOME, Slot::Primary)] {
        stage.cloud().strike(&[at_call(slot, 0)]).await.unwrap();
        go(to).await.unwrap();
        calls.push((to, slot, stage.cloud().struck().await.unwrap()[0].seen));
    }
    let mut struck = Vec::new();
    for part in 0..SAMPLE {
        for &(to, slot, seen) in &calls {
            assert!(
                seen >= SAMPLE,
                "{seen} calls that write are too few to choose from"
            );
            let nth = 1 + part * (seen - 1) / (SAMPLE - 1);
            let before = stage.record(to).await;
            stage.cloud().strike(&[at_call(slot, nth)]).await.unwrap();
            // Whether the change was made is not promised; that one region serves, is.
            let moved = go(to).await;
            let record = stage
                .until("no region serves", async |stage| {
                    let record = stage.record(to).await;
                    (record.phase == Phase::Serving).then_some(record)
                })
                .await;
            let report = stage.cloud().struck().await.unwrap();
            struck.extend(report[0].struck.clone().map(|struck| struck.operation));
            stage.cloud().strike(&[]).await.unwrap();
            let expected = match record.active_region == to {
                true => before.epoch + 1,
                false => before.epoch,
            };
            assert_eq!(record.epoch, expected, "call {nth} in {to}: {moved:?}");
            stage.pays(&mut load, record.epoch).await;
            if record.active_region != to {
                go(to).await.unwrap();
            }
        }
    }
    assert!(
        struck.len() as u64 >= SAMPLE,
        "the strikes met nobody: {struck:?}"
    );
    let acknowledged = load.finish().await.unwrap();
    stage.assert_nothing_lost(&acknowledged).await;
    stage.cloud.stop().await;
}
