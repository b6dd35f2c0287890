//! deploy and teardown: passes of the engine, and what makes a deployed stack serve for the first time.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use continuity::assess::Policy;
use continuity::control::{ControlRecord, Swap};
use continuity::error::chain;
use continuity::names::Slot;
use infra::change::{Configuration, Kind};
use infra::engine::{OnProgress, Permit, Serving};
use infra::outcome::Progress;
use serde_json::{Value, json};
use tokio::sync::watch;

use super::change::{self, Held, StillMine};
use super::gate;
use crate::context::Context;
use crate::decide;
use crate::effects::engine::{Direction, Job, Pass};
use crate::effects::processor;
use crate::error::StepError;
use crate::event::{DeployInput, Request, Step};
use crate::limits::{DEADLINE_MARGIN, PASS_LIMIT, PROGRESS_INTERVAL, WATCH_INTERVAL, WATCH_LIMIT};

/// The item that holds the engine's progress.
const PROGRESS_ITEM: &str = "deployment";

/// The item with the generation that was last deployed to its end.
const DEPLOYED_ITEM: &str = "deployed";

/// Whether the resources were once as this generation of the configuration wants them. If not, what differs is no drift but a
/// change that has not reached its end.
///
/// # Errors
/// `ControlUnavailable`.
pub async fn is_deployed(context: &Context, generation: u64) -> Result<bool, StepError> {
    let json = context.control.document(DEPLOYED_ITEM).await?;
    let deployed: Option<Value> = json.and_then(|json| serde_json::from_str(&json).ok());
    Ok(deployed.is_some_and(|deployed| deployed["generation"].as_u64() >= Some(generation)))
}

/// When the stack takes over.
///
/// # Errors
/// `SpecMissing`, `SpecMalformed`, `ControlUnavailable`.
pub async fn policy(context: &Context) -> Result<Policy, StepError> {
    Ok(change::configuration(context).await?.spec.failover)
}

/// One pass towards the blueprint. Refused while the epoch is changing, repair is frozen, this region is not active, the
/// deployment is of an older generation, or another change goes first; a pass under which that becomes so writes nothing more.
pub async fn reconcile(context: &Context, request: &Request) -> Result<Value, StepError> {
    let (input, configuration) = asked(context, request).await?;
    let generation = configuration.generation;
    let mut record = context.control.read().await?;
    decide::is_active(record.as_ref(), context.region()).map_err(StepError::RepairRefused)?;
    let held = hold(context, request, Kind::Deploy, generation).await?;
    // Only the first pass lifts what a teardown stopped: a teardown that begins later is not overruled.
    let first_pass = request.result_of(Step::Reconcile).is_none();
    if first_pass
        && let Some(stopped) = &record
        && let Some(lifted) = decide::after_teardown(stopped, &request.execution)
    {
        store(context, stopped, &lifted).await?;
        record = Some(lifted);
    }
    decide::may_reconcile(record.as_ref(), context.region(), Some(generation))
        .map_err(StepError::RepairRefused)?;
    if let Some(record) = &record
        && let Some(new) = decide::with_generation(record, Some(generation))
    {
        store(context, record, &new).await?;
    }
    if held == Held::JustTaken {
        return Ok(after_a_moment(request));
    }
    let permit = Arc::new(StillMine::new(context, request, Kind::Deploy, generation, None));
    let serving =
        record.and_then(|record| gate::serving(context, &record.active_region, &configuration.spec.failover));
    let asked = Arc::clone(&permit);
    let pass = run_pass(
        context,
        request,
        Direction::Converge,
        &configuration,
        &input,
        serving,
        asked,
    )
    .await?;
    permit.still().await.map_err(StepError::RepairRefused)?;
    Ok(pass)
}

/// What the execution was started with, and the configuration that it applies.
async fn asked(context: &Context, request: &Request) -> Result<(DeployInput, Configuration), StepError> {
    let input = request.deployment()?;
    let configuration = change::configuration(context).await?;
    match input.generation {
        Some(generation) if generation != configuration.generation => Err(StepError::RepairRefused(format!(
            "this is generation {generation}, and {} is stored",
            configuration.generation
        ))),
        _ => Ok((input, configuration)),
    }
}

async fn hold(context: &Context, request: &Request, kind: Kind, generation: u64) -> Result<Held, StepError> {
    match change::hold(context, request, kind, generation).await? {
        Held::By(holder) => Err(StepError::ChangeRunning(holder)),
        held => Ok(held),
    }
}

/// One pass of deletions. The first sets maintenance and freezes repair, so that nobody takes over what is being taken apart.
pub async fn teardown(context: &Context, request: &Request) -> Result<Value, StepError> {
    let (input, configuration) = asked(context, request).await?;
    let generation = configuration.generation;
    let held = hold(context, request, Kind::Teardown, generation).await?;
    if let Some(record) = context.control.read().await? {
        decide::may_teardown(&record, Some(generation)).map_err(StepError::RepairRefused)?;
        if let Some(new) = decide::for_teardown(&record, &request.execution) {
            store(context, &record, &new).await?;
        }
    }
    if held == Held::JustTaken {
        return Ok(after_a_moment(request));
    }
    let permit = Arc::new(StillMine::new(context, request, Kind::Teardown, generation, None));
    run_pass(
        context,
        request,
        Direction::Teardown,
        &configuration,
        &input,
        None,
        permit,
    )
    .await
}

/// The pass that does nothing, after the change was taken from an execution one call of which may still be under way. That
/// one asks before each write and is told no; the workflow waits and calls again.
fn after_a_moment(request: &Request) -> Value {
    let progress = Progress::default();
    let pass = Pass {
        progress,
        ..Pass::default()
    };
    let mut result = pass_result(request, &pass);
    result["waiting"] = json!(true);
    result
}

async fn store(context: &Context, expected: &ControlRecord, new: &ControlRecord) -> Result<(), StepError> {
    match context.control.replace(expected, new).await? {
        Swap::Done => Ok(()),
        Swap::Lost => Err(StepError::ControlContended(1)),
    }
}

async fn run_pass(
    context: &Context,
    request: &Request,
    direction: Direction,
    configuration: &Configuration,
    input: &DeployInput,
    serving: Option<Serving>,
    permit: Arc<dyn Permit>,
) -> Result<Value, StepError> {
    let (sender, receiver) = watch::channel(Progress::default());
    let on_progress: OnProgress = Arc::new(move |progress: &Progress| {
        sender.send_replace(progress.clone());
    });
    let job = Job {
        spec: &configuration.spec,
        budget: budget(context, request),
        serving,
        replace: &input.replace,
        prune: input.prune,
        permit,
        on_progress,
    };
    let pass = tokio::select! {
        pass = context.engine.pass(direction, job) => pass?,
        never = publish(context, receiver) => match never {},
    };
    put_progress(context, &pass.progress).await?;
    Ok(pass_result(request, &pass))
}

async fn put_progress(context: &Context, progress: &Progress) -> Result<(), StepError> {
    let json = serde_json::to_string(progress).map_err(|error| StepError::EngineFailed(error.to_string()))?;
    Ok(context.control.put_document(PROGRESS_ITEM, &json).await?)
}

/// How long a pass may take: what the caller allows, and always so that the function ends before its deadline.
pub fn budget(context: &Context, request: &Request) -> Duration {
    let left = Duration::from_millis(request.deadline_ms.saturating_sub(context.timer.now_ms()));
    let wanted = request.budget_ms.map_or(PASS_LIMIT, Duration::from_millis);
    wanted.min(PASS_LIMIT).min(left.saturating_sub(DEADLINE_MARGIN))
}

/// Writes the newest progress to the control table, at most twice a second, until it is dropped.
async fn publish(context: &Context, mut progress: watch::Receiver<Progress>) -> std::convert::Infallible {
    loop {
        if progress.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
        let newest = progress.borrow_and_update().clone();
        if let Err(error) = put_progress(context, &newest).await {
            tracing::warn!(error = chain(&error), "progress is not published");
        }
        context.timer.sleep(PROGRESS_INTERVAL).await;
    }
}

/// What the workflow's choice looks at, the causes for a person, and the keys of what the execution has changed so far. The
/// rest is in the `deployment` item.
fn pass_result(request: &Request, pass: &Pass) -> Value {
    let before = request.result_of(request.step).unwrap_or(&Value::Null);
    let stuck_passes = decide::stuck_passes(before["stuck_passes"].as_u64().unwrap_or(0), pass);
    let earlier = before["changed"].as_array().into_iter().flatten();
    let mut changed: BTreeSet<&str> = earlier.filter_map(Value::as_str).collect();
    changed.extend(pass.changed.iter().map(String::as_str));
    let progress = &pass.progress;
    json!({
        "done": pass.done,
        "stuck": decide::is_stuck(stuck_passes),
        "stuck_passes": stuck_passes,
        "waiting": !progress.waiting.is_empty() || !progress.failed.is_empty(),
        "progress": {
            "total": progress.total,
            "ready": progress.ready,
            "waiting": progress.waiting.len(),
            "failed": progress.failed.len(),
        },
        "changed": changed,
        "error": "Stuck",
        "cause": causes(pass),
    })
}

/// The first failures of a pass, for a person.
pub fn causes(pass: &Pass) -> String {
    let failed = pass.progress.failed.iter().take(3);
    let causes: Vec<String> = failed
        .map(|failed| format!("{}: {}", failed.key, failed.error))
        .collect();
    causes.join("; ")
}

/// Migrates the ledger; on the first deployment also gives it epoch 1 and stores the first control record, after which this
/// region serves. A ledger that is empty although the stack has served is refused: opening it would lose every payment
/// without a word.
pub async fn initialise(context: &Context, request: &Request) -> Result<Value, StepError> {
    let (_, configuration) = asked(context, request).await?;
    let generation = configuration.generation;
    let record = context.control.read().await?;
    decide::is_active(record.as_ref(), context.region()).map_err(StepError::RepairRefused)?;
    hold(context, request, Kind::Deploy, generation).await?;
    decide::may_reconcile(record.as_ref(), context.region(), Some(generation))
        .map_err(StepError::RepairRefused)?;
    let schema = processor::migrate(context.processor.as_ref()).await?;
    if record.is_some() {
        let ledger = processor::ledger_status(context.processor.as_ref()).await?.status;
        if ledger.reachable && ledger.ledger_epoch.is_none() {
            return Err(StepError::LedgerEmpty);
        }
    } else {
        let mut first = ControlRecord::first(context.region(), &request.execution, context.timer.now_ms());
        first.generation = generation;
        processor::set_epoch(context.processor.as_ref(), first.epoch).await?;
        // Lost means that an earlier run of this step was first.
        context.control.create(&first).await?;
    }
    let deployed = json!({"generation": generation}).to_string();
    context.control.put_document(DEPLOYED_ITEM, &deployed).await?;
    let record = context.record().await?;
    Ok(json!({"schema": schema, "epoch": record.epoch, "active_region": record.active_region}))
}

/// Asks the three probes for rounds now, instead of waiting for their schedules.
pub async fn start_probes(context: &Context) -> Result<Value, StepError> {
    futures::future::try_join_all(Slot::ALL.map(|slot| context.probes.kick(slot))).await?;
    Ok(json!({"started": Slot::ALL.map(Slot::as_str)}))
}

/// Waits until enough observers see the active region serve: its API, its function, its database and their own eyes work.
pub async fn verify_serving(context: &Context, request: &Request) -> Result<Value, StepError> {
    let policy = policy(context).await?;
    let observers = Slot::ALL.map(|slot| context.config.regions.of(slot));
    let until_ms = context.watch_until(WATCH_LIMIT, request.deadline_ms);
    loop {
        let record = context.record().await?;
        let observations = context.control.observations(&observers).await?;
        let now_ms = context.timer.now_ms();
        match decide::observed_serving(&record, &observations, &policy, now_ms) {
            Ok(seen_by) => return Ok(json!({"serving": record.active_region, "seen_by": seen_by})),
            Err(why) if now_ms >= until_ms => return Err(StepError::NotServing(why)),
            Err(_) => context.timer.sleep(WATCH_INTERVAL).await,
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use continuity::control::ControlStore;
    use infra::outcome::FailedWith;

    use super::*;
    use crate::steps::handle;
    use crate::testing::{DR, HOME, World, arn, observed_home_serving};

    fn event(step: Step, input: Value) -> Value {
        named(step, "deploy-1", input)
    }

    fn named(step: Step, name: &str, input: Value) -> Value {
        let kind = if step == Step::Teardown {
            Kind::Teardown
        } else {
            Kind::Deploy
        };
        json!({"step": step.as_str(), "execution": name, "execution_arn": arn(kind, name), "input": input})
    }

    async fn run(world: &Arc<World>, slot: Slot, event: Value) -> Result<Value, StepError> {
        handle(&world.context(slot), &event, u64::MAX).await
    }

    #[tokio::test]
    async fn a_first_deployment_opens_the_home_region_in_epoch_one() {
        let world = World::undeployed();
        let passed = run(&world, Slot::Primary, event(Step::Reconcile, json!({})))
            .await
            .unwrap();
        assert_eq!(passed["done"], true);
        assert!(world.document("deployment").is_some());
        world.store_generation(4);
        for _ in 0..2 {
            let event = event(Step::Initialise, json!({"generation": 4}));
            let result = run(&world, Slot::Primary, event).await.unwrap();
            assert_eq!(result["epoch"], 1);
        }
        let record = world.control.read().await.unwrap().unwrap();
        assert_eq!((record.active_region.as_str(), record.generation), (HOME, 4));
        assert_eq!(world.ledger(HOME).epoch, Some(1));
    }

    #[tokio::test]
    async fn the_deployment_ends_when_the_observers_see_it_serve() {
        let world = World::deployed();
        run(&world, Slot::Primary, event(Step::StartProbes, json!({})))
            .await
            .unwrap();
        assert_eq!(world.kicked(), ["primary", "dr", "witness"]);
        let before = run(&world, Slot::Primary, event(Step::VerifyServing, json!({}))).await;
        assert_eq!(before.unwrap_err().error_type(), "NotServing");
        for observation in observed_home_serving(world.now_ms()) {
            world.control.put_observation(&observation).await.unwrap();
        }
        let after = run(&world, Slot::Primary, event(Step::VerifyServing, json!({})))
            .await
            .unwrap();
        assert_eq!(after["serving"], HOME);
    }

    #[tokio::test]
    async fn the_region_that_serves_is_changed_last_and_a_first_deployment_waits_for_nobody() {
        let world = World::undeployed();
        run(&world, Slot::Primary, event(Step::Reconcile, json!({})))
            .await
            .unwrap();
        assert_eq!(world.changed_last(), None);
        let world = World::deployed();
        run(&world, Slot::Primary, event(Step::Reconcile, json!({})))
            .await
            .unwrap();
        assert_eq!(world.changed_last(), Some(infra::graph::Group::Primary));
        assert!(!is_deployed(&world.context(Slot::Primary), 1).await.unwrap());
        run(&world, Slot::Primary, event(Step::Initialise, json!({})))
            .await
            .unwrap();
        assert!(is_deployed(&world.context(Slot::Primary), 1).await.unwrap());
        assert!(!is_deployed(&world.context(Slot::Primary), 2).await.unwrap());
    }

    #[tokio::test]
    async fn a_region_that_is_not_active_repairs_nothing() {
        let world = World::deployed();
        let refused = run(&world, Slot::Dr, event(Step::Reconcile, json!({})))
            .await
            .unwrap_err();
        assert_eq!(refused.error_type(), "RepairRefused");
        assert_eq!(world.passes(), 0);
    }

    #[tokio::test]
    async fn an_older_generation_is_refused_and_a_newer_one_is_stored() {
        let world = World::deployed();
        world.store_generation(3);
        let newer = event(Step::Reconcile, json!({"generation": 3}));
        run(&world, Slot::Primary, newer).await.unwrap();
        assert_eq!(world.record().generation, 3);
        for step in [Step::Reconcile, Step::Teardown] {
            let stale = run(&world, Slot::Primary, event(step, json!({"generation": 2})))
                .await
                .unwrap_err();
            assert_eq!(stale.error_type(), "RepairRefused");
        }
        assert_eq!(world.passes(), 1);
    }

    #[tokio::test]
    async fn a_pass_writes_nothing_more_when_the_epoch_changes_under_it() {
        let world = World::deployed();
        world.change_epoch_during_pass(DR);
        let refused = run(&world, Slot::Primary, event(Step::Reconcile, json!({})))
            .await
            .unwrap_err();
        assert_eq!(refused.error_type(), "RepairRefused");
        assert_eq!(world.permitted_writes(), 0);
    }

    #[tokio::test]
    async fn passes_that_move_nothing_and_fail_end_the_workflow() {
        let world = World::deployed();
        world.next_pass(Pass {
            progress: Progress {
                failed: vec![FailedWith {
                    key: "vpc.dr".into(),
                    error: "denied".into(),
                }],
                ..Progress::default()
            },
            ..Pass::default()
        });
        let mut state = json!({});
        for pass in 1..=crate::limits::STUCK_PASSES {
            let result = run(&world, Slot::Primary, event(Step::Reconcile, state.clone()))
                .await
                .unwrap();
            assert_eq!(result["stuck"], pass == crate::limits::STUCK_PASSES, "{pass}");
            assert_eq!(result["cause"], "vpc.dr: denied");
            state = json!({"reconcile": result});
        }
    }

    #[tokio::test]
    async fn a_teardown_first_stops_takeovers_and_repairs() {
        let world = World::deployed();
        for _ in 0..2 {
            run(&world, Slot::Primary, event(Step::Teardown, json!({})))
                .await
                .unwrap();
        }
        let record = world.record();
        assert!(record.maintenance && record.repair_frozen);
        assert_eq!(record.version, 2);
        let deploy = run(
            &world,
            Slot::Primary,
            named(Step::Reconcile, "deploy-2", json!({})),
        )
        .await
        .unwrap_err();
        assert_eq!(deploy.error_type(), "ChangeRunning");
    }

    #[tokio::test]
    async fn a_deployment_goes_on_after_a_teardown_that_was_given_up() {
        let world = World::deployed();
        let teardown = |name: &str| named(Step::Teardown, name, json!({}));
        run(&world, Slot::Primary, teardown("teardown-dev-1"))
            .await
            .unwrap();
        world.end_execution(&arn(Kind::Teardown, "teardown-dev-1"));
        let passed = run(&world, Slot::Primary, event(Step::Reconcile, json!({})))
            .await
            .unwrap();
        assert_eq!(passed["done"], true);
        assert!(!world.record().maintenance);
        // A teardown that begins meanwhile goes first, and is not overruled by a later pass, even after its end.
        let begins = run(&world, Slot::Primary, teardown("teardown-dev-2"))
            .await
            .unwrap();
        assert_eq!(
            (&begins["done"], &begins["waiting"]),
            (&json!(false), &json!(true))
        );
        let later = event(Step::Reconcile, json!({"reconcile": passed}));
        let refused = run(&world, Slot::Primary, later.clone()).await.unwrap_err();
        assert_eq!(refused.error_type(), "ChangeRunning");
        world.end_execution(&arn(Kind::Teardown, "teardown-dev-2"));
        let refused = run(&world, Slot::Primary, later).await.unwrap_err();
        assert_eq!(refused.error_type(), "RepairRefused");
    }

    #[tokio::test]
    async fn a_deployment_goes_before_a_reconcile_and_waits_a_moment_for_its_last_call() {
        let world = World::deployed();
        world.hold_change(Kind::Reconcile, "r-1");
        let first = run(&world, Slot::Primary, event(Step::Reconcile, json!({})))
            .await
            .unwrap();
        assert_eq!(
            (&first["done"], &first["waiting"], world.passes()),
            (&json!(false), &json!(true), 0)
        );
        let state = json!({"reconcile": first});
        let second = run(&world, Slot::Primary, event(Step::Reconcile, state))
            .await
            .unwrap();
        assert_eq!((&second["done"], world.passes()), (&json!(true), 1));
    }

    #[tokio::test]
    async fn a_stack_that_has_served_does_not_open_an_empty_ledger() {
        let world = World::deployed();
        world.change_ledger(HOME, |ledger| ledger.epoch = None);
        let refused = run(&world, Slot::Primary, event(Step::Initialise, json!({})))
            .await
            .unwrap_err();
        assert_eq!(refused.error_type(), "LedgerEmpty");
    }

    #[tokio::test]
    async fn the_result_names_everything_the_execution_changed() {
        let world = World::undeployed();
        let mut state = json!({});
        for keys in [["vpc.primary", "role.probe"], ["role.probe", "api.dr"]] {
            world.next_pass(Pass {
                changed: keys.map(str::to_owned).to_vec(),
                ..Pass::default()
            });
            let result = run(&world, Slot::Primary, event(Step::Reconcile, state))
                .await
                .unwrap();
            state = json!({"reconcile": result});
        }
        let changed = &state["reconcile"]["changed"];
        assert_eq!(*changed, json!(["api.dr", "role.probe", "vpc.primary"]));
    }

    #[tokio::test]
    async fn a_pass_fits_the_invocation() {
        let world = World::deployed();
        let context = world.context(Slot::Primary);
        let request = |budget_ms: Value, left_ms: u64| {
            let event = json!({"step": "reconcile", "budget_ms": budget_ms});
            Request::parse(&event, world.now_ms() + left_ms).unwrap()
        };
        for (budget_ms, left_ms, expected_ms) in [
            (Value::Null, 120_000, 60_000),
            (json!(5_000), 120_000, 5_000),
            (json!(500_000), 120_000, 60_000),
            (Value::Null, 30_000, 15_000),
            (Value::Null, 1_000, 0),
        ] {
            let budget = budget(&context, &request(budget_ms, left_ms));
            assert_eq!(budget, Duration::from_millis(expected_ms));
        }
    }
}
