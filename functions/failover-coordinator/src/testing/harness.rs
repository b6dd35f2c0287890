//! Every workflow, disturbed in every way at every step: each step failed, each run twice, the execution killed after each. What the
//! observers, the schedule or an operator would start again is started again, and then the stack serves in exactly one region
//! with every acknowledged payment. Steps are found in the workflow files: a new one is covered without a new test, and a new
//! workflow needs a row in [`SCENARIOS`].

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;

use continuity::control::Phase;
use continuity::names::{Regions, Slot};
use serde_json::{Value, json};

use super::asl::{Blow, Treatment};
use super::world::LOST_TAIL;
use super::{DR, End, HOME, Machine, Run, Switchovers, World, observed_home_serving};

/// A workflow, and the world that it is started in.
struct Scenario {
    workflow: &'static str,
    slot: Slot,
    name: &'static str,
    input: fn() -> Value,
    prepare: fn(&World),
    /// What is right at the end, beside one region that serves.
    right: fn(&World, &str),
}

fn takeover(mode: &str) -> Value {
    json!({"epoch": 1, "to_region": DR, "started_by": "harness", "reasons": ["a test"], "mode": mode})
}

fn observe(world: &World, observations: impl IntoIterator<Item = continuity::observe::Observation>) {
    for observation in observations {
        let stored = continuity::control::ControlStore::put_observation(world.control.as_ref(), &observation);
        futures::executor::block_on(stored).unwrap();
    }
}

const SCENARIOS: &[Scenario] = &[
    Scenario {
        workflow: "deploy",
        slot: Slot::Primary,
        name: "deploy-dev-1",
        input: || json!({}),
        prepare: |world| observe(world, observed_home_serving(world.now_ms())),
        right: |_, _| {},
    },
    Scenario {
        workflow: "drill",
        slot: Slot::Dr,
        name: "drill-by-schedule",
        input: || json!({"hold_seconds": 30, "started_by": "schedule"}),
        prepare: |world| {
            super::observers_awake(world);
            world.switchovers(Switchovers::Work);
        },
        right: |world, case| assert_drilled(world, case),
    },
    Scenario {
        workflow: "drill",
        slot: Slot::Dr,
        name: "drill-by-schedule",
        input: || json!({"kind": "isolation", "hold_seconds": 30, "started_by": "schedule"}),
        prepare: |world| {
            super::observers_awake(world);
            world.switchovers(Switchovers::Work);
        },
        right: |world, case| {
            assert_drilled(world, case);
            assert_eq!(world.isolated(), None, "{case}: a region is cut off still");
        },
    },
    Scenario {
        workflow: "drill",
        slot: Slot::Dr,
        name: "drill-by-schedule",
        input: || json!({"kind": "readiness", "started_by": "schedule"}),
        prepare: |world| super::observers_awake(world),
        right: |world, case| {
            assert_drilled(world, case);
            assert_eq!(world.record().epoch, 1, "{case}: nothing moves");
        },
    },
    Scenario {
        workflow: "failover",
        slot: Slot::Dr,
        name: "failover-dev-2",
        input: || takeover("ungraceful"),
        prepare: |world| observe(world, super::home_down(world.now_ms())),
        right: |_, _| {},
    },
    Scenario {
        workflow: "readiness",
        slot: Slot::Dr,
        name: "readiness-dev-1",
        input: || json!({}),
        prepare: |world| observe(world, observed_home_serving(world.now_ms())),
        right: |world, case| {
            let stored = world.document(&infra::readiness::item(DR));
            let report: Option<infra::readiness::Report> =
                stored.and_then(|json| serde_json::from_str(&json).ok());
            assert!(report.is_some_and(|report| report.region == DR), "{case}")
        },
    },
    Scenario {
        workflow: "reconcile",
        slot: Slot::Primary,
        name: "reconcile-dev-1",
        input: || json!({}),
        prepare: |_| {},
        right: |_, _| {},
    },
    Scenario {
        workflow: "recovery",
        slot: Slot::Dr,
        name: "recovery-dev-2",
        input: || json!({"epoch": 2, "from_region": HOME, "to_region": DR, "decided_ms": 9}),
        prepare: |world| {
            world.home_rejoined();
            world.snapshot_made("rds:unplanned-global-failover-aurora-primary-dev-x", 2_000);
        },
        right: |world, case| {
            assert_eq!(world.kept_tails(), ["lost-tail-primary-dev-2"], "{case}");
            assert!(world.document("lost-tail#2").is_some(), "{case}");
        },
    },
    Scenario {
        workflow: "switchover",
        slot: Slot::Dr,
        name: "switchover-dev-2",
        input: || takeover("graceful"),
        prepare: |world| {
            world.change_ledger(DR, |ledger| ledger.entries.extend(LOST_TAIL.map(str::to_owned)))
        },
        right: |_, _| {},
    },
    Scenario {
        workflow: "teardown",
        slot: Slot::Primary,
        name: "teardown-dev-1",
        input: || json!({}),
        prepare: |_| {},
        right: |world, case| {
            assert!(
                world.record().maintenance && world.record().repair_frozen,
                "{case}"
            )
        },
    },
];

/// A drill that began has come to its end, and home. One that died meanwhile was gone on with.
fn assert_drilled(world: &World, case: &str) {
    let Some(json) = world.document("drill") else {
        return;
    };
    let drill: Value = serde_json::from_str(&json).unwrap();
    assert!(drill["ended_ms"].is_u64(), "{case}: {drill}");
    assert_eq!(world.record().active_region, HOME, "{case}");
}

fn prepared(scenario: &Scenario) -> Arc<World> {
    let world = World::deployed();
    (scenario.prepare)(&world);
    world
}

async fn run(scenario: &Scenario, world: &Arc<World>, treatment: &Treatment) -> Run {
    let machine = Machine::load(scenario.workflow);
    let run = machine
        .run_with(world, scenario.slot, scenario.name, (scenario.input)(), treatment)
        .await;
    world.end_execution(&super::asl::execution_arn(
        world.context(scenario.slot).region(),
        scenario.name,
    ));
    run
}

/// What happens after an execution ended otherwise than it should: the observers start again what moves the active region, until
/// a region serves; `up`, `down` and the schedule start the rest again.
async fn settle(scenario: &Scenario, world: &Arc<World>, ended: &End, case: &str) {
    let regions = Regions::default();
    for attempt in 2..10 {
        let record = world.record();
        let (workflow, slot) = match record.phase {
            Phase::Serving => break,
            Phase::Draining => (
                "switchover",
                regions.slot_of(regions.peer_of(&record.active_region).unwrap()),
            ),
            Phase::Recovering => (
                record.changed_by.split('-').next().unwrap(),
                regions.slot_of(&record.active_region),
            ),
        };
        assert!(attempt < 9, "{case}: the phase stays {}", record.phase);
        let name = format!("{}-{attempt}", record.changed_by);
        let machine = Machine::load(workflow);
        machine.run(world, slot.unwrap(), &name, (scenario.input)()).await;
    }
    let moves = ["failover", "switchover"].contains(&scenario.workflow);
    if !moves && *ended != End::Succeeded {
        let again = Scenario {
            name: "again-dev-2",
            ..*scenario
        };
        let run = run(&again, world, &once()).await;
        assert_eq!(run.end, End::Succeeded, "{case}: {:?}", run.path);
    }
}

/// Exactly one region serves, with every acknowledged payment in its ledger.
fn assert_right(scenario: &Scenario, world: &World, case: &str) {
    let record = world.record();
    assert_eq!(record.phase, Phase::Serving, "{case}");
    assert_eq!(record.epoch, record.last_served_epoch, "{case}");
    let other = if record.active_region == HOME { DR } else { HOME };
    let serving = world.ledger(&record.active_region);
    assert_eq!(
        (serving.epoch, serving.in_recovery),
        (Some(record.epoch), false),
        "{case}"
    );
    let acknowledged: BTreeSet<String> = (0..10).map(|n| format!("payment-{n}")).collect();
    assert_eq!(serving.entries, acknowledged, "{case}");
    // The other one may be a writer that was cut off; it is in an older epoch then, and its database refuses.
    let idle = world.ledger(other);
    assert!(idle.in_recovery || idle.epoch < Some(record.epoch), "{case}");
    (scenario.right)(world, case);
}

fn once() -> Treatment {
    Treatment {
        times: 1,
        ..Treatment::default()
    }
}

/// How many tasks an undisturbed execution runs.
async fn tasks(scenario: &Scenario) -> usize {
    let world = prepared(scenario);
    let undisturbed = run(scenario, &world, &once()).await;
    assert_eq!(
        undisturbed.end,
        End::Succeeded,
        "{}: {:?}",
        scenario.workflow,
        undisturbed.path
    );
    assert_right(scenario, &world, scenario.workflow);
    let machine = Machine::load(scenario.workflow);
    let states = machine.states();
    let is_task = |state: &&String| states[state.as_str()]["Type"] == "Task";
    undisturbed.path.iter().filter(is_task).count()
}

#[test]
fn every_workflow_has_a_scenario() {
    let folder: PathBuf = [env!("CARGO_MANIFEST_DIR"), "../../infra/workflows"]
        .iter()
        .collect();
    let files: BTreeSet<String> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .map(|name| name.strip_suffix(".asl.json").unwrap().to_owned())
        .collect();
    let known: BTreeSet<String> = SCENARIOS
        .iter()
        .map(|scenario| scenario.workflow.to_owned())
        .collect();
    assert_eq!(files, known);
}

#[tokio::test]
async fn every_step_of_every_workflow_run_twice_equals_once() {
    for scenario in SCENARIOS {
        let world = prepared(scenario);
        let treatment = Treatment { times: 2, ..once() };
        let run = run(scenario, &world, &treatment).await;
        assert_eq!(run.end, End::Succeeded, "{}: {:?}", scenario.workflow, run.path);
        assert_right(scenario, &world, scenario.workflow);
    }
}

#[tokio::test]
async fn every_step_of_every_workflow_failed_once_ends_serving_in_one_region() {
    for scenario in SCENARIOS {
        for task in 0..tasks(scenario).await {
            // What is retried, what is not known, and what is retried in vain.
            for (error, attempts) in [
                ("Lambda.Unknown", 1),
                ("EngineFailed", 1),
                ("Lambda.Unknown", 100),
            ] {
                for answer_lost in [false, true] {
                    let blow = Blow {
                        task,
                        error,
                        attempts,
                        answer_lost,
                    };
                    let case = format!("{}: {blow:?}", scenario.workflow);
                    let world = prepared(scenario);
                    let treatment = Treatment {
                        blow: Some(blow),
                        ..once()
                    };
                    let ended = run(scenario, &world, &treatment).await;
                    settle(scenario, &world, &ended.end, &case).await;
                    assert_right(scenario, &world, &case);
                }
            }
        }
    }
}

#[tokio::test]
async fn every_workflow_killed_after_any_step_ends_serving_in_one_region() {
    for scenario in SCENARIOS {
        for tasks in 0..=tasks(scenario).await {
            let case = format!("{}: killed after {tasks} tasks", scenario.workflow);
            let world = prepared(scenario);
            let treatment = Treatment {
                kill_after_tasks: Some(tasks),
                ..once()
            };
            let ended = run(scenario, &world, &treatment).await;
            settle(scenario, &world, &ended.end, &case).await;
            assert_right(scenario, &world, &case);
        }
    }
}
