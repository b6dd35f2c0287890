//! reconcile: finds what differs from the stored configuration, repairs it, and tells of it.

use std::sync::Arc;

use continuity::assess::failing_region;
use continuity::metrics::{self, Unit};
use continuity::names::Slot;
use infra::change::{Configuration, Kind};
use infra::control_plane;
use infra::drift::{self, Counts, Drifted, Report, Run};
use infra::engine::OnProgress;
use serde_json::{Value, json};

use super::change::{self, Held, StillMine};
use super::{deploy, gate};
use crate::context::Context;
use crate::decide::{self, Standing};
use crate::effects::engine::{Direction, Job, Pass};
use crate::error::StepError;
use crate::event::{Request, Step};
use crate::limits::LOOK_LIMIT;

/// What the event's detail-type says.
const DETAIL_TYPE: &str = "Understudy Drift";

/// One pass. Where or when nothing may be repaired it says so and ends the execution quietly: the other region's schedule, or
/// the next one here, does the work.
///
/// 1. Nothing to do here: this region is not active, the epoch is changing, or another change runs.
/// 2. The first pass of an execution compares everything, without a write; so a stack in order costs one look at it.
/// 3. What differs is repaired, unless the configuration says that drift is only reported.
/// 4. The findings go into the `drift` item.
pub async fn repair(context: &Context, request: &Request) -> Result<Value, StepError> {
    let Some(record) = context.control.read().await? else {
        return Ok(quiet("not-deployed", "the first deployment has not ended"));
    };
    let configuration = change::configuration(context).await?;
    let generation = configuration.generation;
    match decide::may_repair(&record, context.region(), generation) {
        Standing::Go => {}
        Standing::NotActive(why) => return Ok(quiet("not-active", &why)),
        Standing::Held(why) => return Ok(quiet("held", &why)),
    }
    if let Held::By(holder) = change::hold(context, request, Kind::Reconcile, generation).await? {
        return Ok(quiet("busy", &format!("`{holder}` is running")));
    }
    let failing = failing(context, &configuration).await?;
    let mut report = stored(context).await?;
    let run = report.run(Run {
        execution: request.execution.clone(),
        region: context.region().to_owned(),
        epoch: record.epoch,
        generation,
        began_ms: context.timer.now_ms(),
        at_ms: context.timer.now_ms(),
        counts: Counts::default(),
        entries: Vec::new(),
        omitted: 0,
        note: None,
        unreadable: Vec::new(),
        reported: false,
    });
    let before = request.result_of(Step::Repair).unwrap_or(&Value::Null);
    let passes = before["passes"].as_u64().unwrap_or(0) + 1;
    let (found, unreadable) = if passes == 1 {
        let limit = deploy::budget(context, request).min(LOOK_LIMIT);
        let plan = context.engine.compare(&configuration.spec, limit).await?;
        run.unreadable = drift::unreadable(&plan);
        drift::found(&plan)
    } else {
        (run.entries.clone(), 0)
    };
    let differs = passes > 1 || found.iter().any(|entry| entry.wrong != drift::Wrong::Role);
    let pass = if differs && configuration.spec.reconcile.repair {
        let pass = converge(context, request, &configuration, failing.clone()).await?;
        // A pass that ended has looked at everything, also at what stood behind something that was missing.
        let unreadable = if pass.done { 0 } else { unreadable };
        if pass.done {
            run.unreadable.clear();
        }
        run.merge(drift::repaired(found, &pass.entries, passes == 1), unreadable);
        Some(pass)
    } else {
        run.merge(found, unreadable);
        None
    };
    run.note.clone_from(&failing);
    run.at_ms = context.timer.now_ms();
    let counts = run.counts;
    store(context, &report).await?;
    Ok(result(before, pass.as_ref(), counts, passes, failing.as_deref()))
}

/// What the workflow's choice looks at, and the causes for a person.
fn result(before: &Value, pass: Option<&Pass>, counts: Counts, passes: u64, failing: Option<&str>) -> Value {
    let nothing = Pass {
        done: true,
        ..Pass::default()
    };
    let pass = pass.unwrap_or(&nothing);
    let stuck_passes = decide::stuck_passes(before["stuck_passes"].as_u64().unwrap_or(0), pass);
    let stuck = decide::is_stuck(stuck_passes);
    json!({
        "outcome": "looked",
        "finished": decide::repair_ends(pass.done, passes, stuck, failing.is_some()),
        "stuck": stuck,
        "stuck_passes": stuck_passes,
        "waiting": !pass.progress.waiting.is_empty() || !pass.progress.failed.is_empty(),
        "passes": passes,
        "counts": counts,
        "error": "Stuck",
        "cause": deploy::causes(pass),
    })
}

fn quiet(outcome: &str, why: &str) -> Value {
    tracing::info!(outcome, why, "nothing is repaired");
    json!({"outcome": outcome, "why": why, "finished": true})
}

/// Why us-east-1 counts as failing, if so. Only what the observers saw is asked: the stack must have a region there.
async fn failing(context: &Context, configuration: &Configuration) -> Result<Option<String>, StepError> {
    let observers = Slot::ALL.map(|slot| context.config.regions.of(slot));
    let observations = context.control.observations(&observers).await?;
    let policy = &configuration.spec.failover;
    let now_ms = context.timer.now_ms();
    Ok(failing_region(control_plane::REGION, &observations, policy, now_ms).map(|seen| seen.join("; ")))
}

async fn converge(
    context: &Context,
    request: &Request,
    configuration: &Configuration,
    failing: Option<String>,
) -> Result<Pass, StepError> {
    let permit = StillMine::new(
        context,
        request,
        Kind::Reconcile,
        configuration.generation,
        failing,
    );
    // The `deployment` item tells of deployments only.
    let on_progress: OnProgress = Arc::new(|_| {});
    let job = Job {
        spec: &configuration.spec,
        budget: deploy::budget(context, request),
        // Each repair for itself: what waits in one region must not hold what the other needs. But a deployment that stopped
        // half way, because what it changed first does not work, is not carried into the region that serves.
        serving: match deploy::is_deployed(context, configuration.generation).await? {
            true => None,
            false => gate::serving(context, context.region(), &configuration.spec.failover),
        },
        replace: &Default::default(),
        prune: false,
        permit: Arc::new(permit),
        on_progress,
    };
    context.engine.pass(Direction::Converge, job).await
}

async fn stored(context: &Context) -> Result<Report, StepError> {
    let json = context.control.document(drift::ITEM).await?;
    // A report of another version of this program is no reason not to repair.
    Ok(json
        .and_then(|json| serde_json::from_str(&json).ok())
        .unwrap_or_default())
}

async fn store(context: &Context, report: &Report) -> Result<(), StepError> {
    let json = serde_json::to_string(report).map_err(|error| StepError::EngineFailed(error.to_string()))?;
    Ok(context.control.put_document(drift::ITEM, &json).await?)
}

/// Tells of what the execution found: the metrics always, the event only when there was drift. An event that was sent is not
/// sent again, unless this step died right after it.
pub async fn report(context: &Context, request: &Request) -> Result<Value, StepError> {
    let mut report = stored(context).await?;
    let Some(run) = report
        .last
        .as_mut()
        .filter(|run| run.execution == request.execution)
    else {
        return Ok(json!({"reported": false}));
    };
    let counts = run.counts;
    if run.reported {
        return Ok(json!({"reported": true, "counts": counts}));
    }
    metrics::emit(
        &[("Stack", context.config.names.suffix())],
        &[
            ("Drift", Unit::Count, counts.drift as u64),
            ("DriftOpen", Unit::Count, counts.open as u64),
            ("Epoch", Unit::None, run.epoch),
        ],
        context.timer.now_ms(),
    );
    if run.found_drift() {
        let detail = detail(context.config.names.suffix(), run).to_string();
        context.events.send(DETAIL_TYPE, &detail).await?;
    }
    run.reported = true;
    store(context, &report).await?;
    Ok(json!({"reported": true, "counts": counts}))
}

/// The event's detail: the run, with the stack's name.
fn detail(suffix: &str, run: &Run) -> Value {
    let entries: &[Drifted] = &run.entries;
    json!({
        "stack": suffix,
        "execution": run.execution,
        "region": run.region,
        "epoch": run.epoch,
        "generation": run.generation,
        "at_ms": run.at_ms,
        "counts": run.counts,
        "note": run.note,
        "resources": entries,
        "omitted": run.omitted,
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use continuity::control::ControlStore;
    use infra::drift::Action;
    use infra::outcome::{Entry, Outcome, PlanEntry, PlanOutcome};
    use infra::plan::{Change, FieldChange, Planned};

    use super::*;
    use crate::testing::{DR, End, Machine, World, home_down};

    fn memory() -> FieldChange {
        FieldChange {
            field: "memory_mb".into(),
            from: json!(128),
            to: json!(512),
        }
    }

    fn differs(key: &str, kind: &str, region: &str) -> PlanEntry {
        PlanEntry {
            key: key.into(),
            kind: kind.into(),
            region: region.into(),
            plan: PlanOutcome::Planned(Planned {
                change: Change::Update {
                    fields: vec![memory()],
                },
                roles: vec![],
            }),
        }
    }

    fn came(of: &PlanEntry, outcome: Outcome) -> Entry {
        Entry {
            key: of.key.clone(),
            kind: of.kind.clone(),
            region: of.region.clone(),
            group: infra::graph::Group::Global,
            outcome,
            roles: vec![],
        }
    }

    fn drift(world: &World) -> Report {
        serde_json::from_str(&world.document(drift::ITEM).unwrap()).unwrap()
    }

    async fn reconcile(world: &Arc<World>, slot: Slot, name: &str) -> crate::testing::Run {
        Machine::load("reconcile").run(world, slot, name, json!({})).await
    }

    #[tokio::test]
    async fn a_stack_in_order_costs_one_look_and_is_told_as_no_drift() {
        let world = World::deployed();
        let run = reconcile(&world, Slot::Primary, "r-1").await;
        assert_eq!(run.end, End::Succeeded);
        assert_eq!((world.looks(), world.passes()), (1, 0));
        assert!(world.events().is_empty());
        let last = drift(&world).last.unwrap();
        assert_eq!((last.counts, last.reported), (Counts::default(), true));
    }

    #[tokio::test]
    async fn what_cannot_be_looked_at_is_told_with_its_reason() {
        let world = World::deployed();
        let mut hidden = differs("function.health-probe.dr", "lambda-function", DR);
        hidden.plan = PlanOutcome::Failed {
            error: "GetFunction: AccessDenied".into(),
        };
        world.next_look(vec![hidden]);
        reconcile(&world, Slot::Primary, "r-1").await;
        let last = drift(&world).last.unwrap();
        assert_eq!(last.counts.unreadable, 1);
        assert_eq!(
            last.unreadable,
            ["function.health-probe.dr: GetFunction: AccessDenied"]
        );
    }

    #[tokio::test]
    async fn drift_is_repaired_and_told_by_name_and_field() {
        let world = World::deployed();
        let found = differs("function.health-probe.dr", "lambda-function", DR);
        world.next_look(vec![found.clone()]);
        world.next_pass(Pass {
            done: true,
            entries: vec![came(
                &found,
                Outcome::Updated {
                    fields: vec![memory()],
                },
            )],
            ..Pass::default()
        });
        let run = reconcile(&world, Slot::Primary, "r-1").await;
        assert_eq!(run.end, End::Succeeded);
        let last = drift(&world).last.unwrap();
        assert_eq!((last.counts.drift, last.counts.repaired), (1, 1));
        assert_eq!(last.entries[0].fields[0].field, "memory_mb");
        let events = world.events();
        assert_eq!(events.len(), 1);
        let detail: Value = serde_json::from_str(&events[0].1).unwrap();
        assert_eq!(events[0].0, "Understudy Drift");
        assert_eq!(detail["resources"][0]["key"], "function.health-probe.dr");
        assert_eq!(detail["resources"][0]["action"], "repaired");
        // The next one finds nothing, and the last one that did is kept.
        world.next_look(vec![]);
        reconcile(&world, Slot::Primary, "r-2").await;
        let report = drift(&world);
        assert_eq!(report.last.unwrap().counts.drift, 0);
        assert_eq!(report.last_found.unwrap().execution, "r-1");
        assert_eq!(world.events().len(), 1);
    }

    #[tokio::test]
    async fn what_stood_behind_something_missing_has_been_looked_at_when_the_repair_ends() {
        let world = World::deployed();
        let behind = |change| PlanEntry {
            key: "route-table.dr".into(),
            kind: "route-table".into(),
            region: DR.into(),
            plan: PlanOutcome::Planned(Planned {
                change,
                roles: vec![],
            }),
        };
        let missing = differs("vpc.dr", "vpc", DR);
        let until = vec!["vpc.dr".to_owned()];
        world.next_look(vec![missing, behind(Change::Unknown { until })]);
        reconcile(&world, Slot::Primary, "r-1").await;
        assert_eq!(drift(&world).last.unwrap().counts.unreadable, 0);
        world.change_spec(|spec| spec.reconcile.repair = false);
        reconcile(&world, Slot::Primary, "r-2").await;
        assert_eq!(drift(&world).last.unwrap().counts.unreadable, 1);
    }

    #[tokio::test]
    async fn a_deployment_that_stopped_half_way_is_not_carried_into_the_region_that_serves() {
        let world = World::deployed();
        world.next_look(vec![differs("function.health-probe.dr", "lambda-function", DR)]);
        world.deployment_ended(1);
        reconcile(&world, Slot::Primary, "r-1").await;
        assert_eq!(world.changed_last(), None, "a repair waits for nobody");
        world.store_generation(2);
        world.change_record(|record| record.generation = 2);
        reconcile(&world, Slot::Primary, "r-2").await;
        assert_eq!(world.changed_last(), Some(infra::graph::Group::Primary));
    }

    #[tokio::test]
    async fn a_report_made_twice_is_sent_once() {
        let world = World::deployed();
        world.next_look(vec![differs("function.health-probe.dr", "lambda-function", DR)]);
        reconcile(&world, Slot::Primary, "r-1").await;
        let event = json!({"step": "report-drift", "execution": "r-1"});
        let context = world.context(Slot::Primary);
        crate::steps::handle(&context, &event, u64::MAX).await.unwrap();
        assert_eq!(world.events().len(), 1);
    }

    #[tokio::test]
    async fn told_only_to_report_it_writes_nothing() {
        let world = World::deployed();
        world.change_spec(|spec| spec.reconcile.repair = false);
        world.next_look(vec![differs("function.health-probe.dr", "lambda-function", DR)]);
        let run = reconcile(&world, Slot::Primary, "r-1").await;
        assert_eq!(run.end, End::Succeeded);
        assert_eq!(world.passes(), 0);
        let last = drift(&world).last.unwrap();
        assert_eq!(last.entries[0].action, Action::Reported);
        assert_eq!(world.events().len(), 1);
    }

    #[tokio::test]
    async fn where_it_may_not_repair_it_ends_quietly_and_looks_at_nothing() {
        let quiet = async |world: &Arc<World>, slot, expected: &str| {
            let run = reconcile(world, slot, "r-1").await;
            assert_eq!(run.end, End::Succeeded, "{expected}");
            assert_eq!(run.data["repair"]["outcome"], expected);
            assert_eq!((world.looks(), world.passes()), (0, 0), "{expected}");
        };
        quiet(&World::undeployed(), Slot::Primary, "not-deployed").await;
        quiet(&World::deployed(), Slot::Dr, "not-active").await;
        let frozen = World::deployed();
        frozen.change_record(|record| record.repair_frozen = true);
        quiet(&frozen, Slot::Primary, "held").await;
        let newer = World::deployed();
        newer.store_generation(2);
        quiet(&newer, Slot::Primary, "held").await;
        let busy = World::deployed();
        busy.hold_change(Kind::Deploy, "d-1");
        quiet(&busy, Slot::Primary, "busy").await;
    }

    #[tokio::test]
    async fn while_us_east_1_fails_it_repairs_what_does_not_need_it_and_says_what_waits() {
        let world = World::deployed();
        world.change_record(|record| record.active_region = DR.into());
        for observation in home_down(world.now_ms()) {
            world.control.put_observation(&observation).await.unwrap();
        }
        let here = differs("function.health-probe.dr", "lambda-function", DR);
        let role = differs("role.health-probe.dr", "iam-role", "us-east-1");
        world.next_look(vec![here.clone(), role.clone()]);
        world.act_on_next_look();
        let run = reconcile(&world, Slot::Dr, "r-1").await;
        assert_eq!(run.end, End::Succeeded);
        assert_eq!(world.passes(), 1, "what waits is left to the next execution");
        let last = drift(&world).last.unwrap();
        assert!(last.note.is_some_and(|note| note.contains("no answer")));
        let action = |key: &str| {
            last.entries
                .iter()
                .find(|entry| entry.key == key)
                .unwrap()
                .action
                .clone()
        };
        assert_eq!(action(&here.key), Action::Repaired);
        let Action::Waiting { reason } = action(&role.key) else {
            panic!("it waits")
        };
        assert!(reason.contains("us-east-1 is failing"), "{reason}");
    }

    #[tokio::test]
    async fn a_reconcile_that_never_ends_its_work_is_bounded_and_still_told() {
        let world = World::deployed();
        let found = differs("db-cluster.dr", "db-cluster", DR);
        world.next_look(vec![found.clone()]);
        world.next_pass(Pass {
            done: false,
            entries: vec![came(
                &found,
                Outcome::Waiting {
                    on: "modifying".into(),
                },
            )],
            progress: infra::outcome::Progress {
                waiting: vec![infra::outcome::WaitingFor {
                    key: found.key.clone(),
                    on: "modifying".into(),
                }],
                ..Default::default()
            },
            ..Pass::default()
        });
        let run = reconcile(&world, Slot::Primary, "r-1").await;
        assert_eq!(run.end, End::Succeeded);
        assert_eq!(world.passes() as u64, crate::limits::REPAIR_PASSES);
        assert_eq!((world.looks(), world.events().len()), (1, 1));
    }
}
