//! readiness: could the other region take over now? Looks at both regions, judges in [`infra::readiness`], stores the report.

use std::collections::BTreeMap;
use std::time::Duration;

use continuity::metrics::{self, Unit};
use continuity::names::Slot;
use futures::future::join_all;
use infra::blueprint::functions::{FAILOVER_COORDINATOR, HEALTH_PROBE, PAYMENT_PROCESSOR};
use infra::blueprint::{permissions, workflows};
use infra::change::{self, Change, Configuration};
use infra::drift;
use infra::outcome::PlanEntry;
use infra::readiness::{self, Fact, Facts, Function, Ledger, Machine, REHEARSED_ITEM, Rehearsed, Report};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::change::configuration;
use crate::context::Context;
use crate::effects::processor::{Processor, ledger_status};
use crate::error::StepError;
use crate::limits::{INSPECTION_LIMIT, LOOK_LIMIT, PERMISSIONS_LIMIT};

/// What the event's detail-type says.
const DETAIL_TYPE: &str = "Understudy Readiness";

/// Evaluates the readiness as this region sees it. Run twice it looks twice, and tells of a change once.
///
/// 1. Gathers every fact at once, each within its time: what does not answer is unknown.
/// 2. Judges them.
/// 3. Tells: the metric always, the event when the verdict is another one than the last.
/// 4. Stores the report, last: whoever dies before tells again.
///
/// # Errors
/// `ControlUnavailable`, `SpecMalformed`, `EventNotSent`.
pub async fn evaluate(context: &Context) -> Result<Value, StepError> {
    let Some(record) = context.control.read().await? else {
        return Ok(not_deployed());
    };
    let configuration = match configuration(context).await {
        Err(StepError::SpecMissing) => return Ok(not_deployed()),
        other => other?,
    };
    let facts = gather(context, record, &configuration).await;
    let report = readiness::check(&facts, &configuration.spec, context.timer.now_ms());
    let ready = report.is_ready();
    metrics::emit(
        &[("Stack", context.config.names.suffix())],
        &[("Ready", Unit::None, u64::from(ready))],
        report.at_ms,
    );
    let item = readiness::item(context.region());
    // A report of another version of this program says nothing.
    let last = context.control.document(&item).await?;
    let last: Option<Report> = last.and_then(|json| serde_json::from_str(&json).ok());
    let failed = report.failed();
    if last.map(|last| last.is_ready()) != Some(ready) {
        let detail = json!({
            "stack": context.config.names.suffix(),
            "region": report.region,
            "ready": ready,
            "failed": failed,
            "at_ms": report.at_ms,
        });
        context.events.send(DETAIL_TYPE, &detail.to_string()).await?;
    }
    let json = serde_json::to_string(&report).map_err(|error| StepError::EngineFailed(error.to_string()))?;
    context.control.put_document(&item, &json).await?;
    Ok(json!({"ready": ready, "failed": failed, "at_ms": report.at_ms}))
}

fn not_deployed() -> Value {
    json!({"ready": false, "failed": ["the first deployment has not ended"]})
}

async fn within<T>(limit: Duration, look: impl Future<Output = Fact<T>>) -> Fact<T> {
    match tokio::time::timeout(limit, look).await {
        Ok(fact) => fact,
        Err(_) => Err(format!("no answer within {} s", limit.as_secs())),
    }
}

async fn gather(
    context: &Context,
    record: continuity::control::ControlRecord,
    configuration: &Configuration,
) -> Facts {
    let spec = &configuration.spec;
    let inspection = &context.inspection;
    let region = |slot| spec.regions.of(slot).to_owned();
    let journals = join_all(Slot::SERVING.map(|slot| async move {
        (
            region(slot),
            within(INSPECTION_LIMIT, inspection.journal(slot)).await,
        )
    }));
    let clusters = join_all(Slot::SERVING.map(|slot| async move {
        (
            region(slot),
            within(INSPECTION_LIMIT, inspection.cluster(slot)).await,
        )
    }));
    let alarms = join_all(Slot::SERVING.map(|slot| async move {
        (
            region(slot),
            within(INSPECTION_LIMIT, inspection.alarms(slot)).await,
        )
    }));
    let quotas = join_all(Slot::SERVING.map(|slot| async move {
        (
            region(slot),
            within(INSPECTION_LIMIT, inspection.quotas(slot)).await,
        )
    }));
    let (
        journals,
        clusters,
        alarms,
        quotas,
        global,
        ledgers,
        functions,
        machines,
        resources,
        permissions,
        stored,
    ) = tokio::join!(
        journals,
        clusters,
        alarms,
        quotas,
        within(INSPECTION_LIMIT, inspection.global()),
        ledgers(context),
        functions(context),
        machines(context),
        compared(context, configuration),
        permitted(context, configuration),
        stored(context),
    );
    let (observed_ms, change, drift, rehearsed) = stored;
    Facts {
        region: context.region().to_owned(),
        record: Ok(record),
        journals: journals.into_iter().collect(),
        global,
        clusters: clusters.into_iter().collect(),
        ledgers,
        functions,
        machines,
        quotas: quotas.into_iter().collect(),
        resources,
        alarms: alarms.into_iter().collect(),
        observed_ms,
        change,
        drift,
        rehearsed,
        permissions,
    }
}

/// A real call of both payment-processors: that of the standby is not called otherwise, and Lambda lets a function that nobody
/// calls for weeks go inactive (<https://docs.aws.amazon.com/lambda/latest/dg/functions-states.html>).
async fn ledgers(context: &Context) -> BTreeMap<String, Fact<Ledger>> {
    let ask = async |processor: &dyn Processor| {
        let answer = ledger_status(processor).await;
        let summary = answer.map_err(|error| continuity::error::chain(&error))?;
        Ok(Ledger {
            status: summary.status,
            last_seq: summary.last_seq,
        })
    };
    let (here, there) = tokio::join!(
        within(INSPECTION_LIMIT, ask(context.processor.as_ref())),
        within(INSPECTION_LIMIT, ask(context.peer.processor.as_ref()))
    );
    let peer = context.config.regions.peer_of(context.region());
    BTreeMap::from([
        (context.region().to_owned(), here),
        (peer.unwrap_or_default().to_owned(), there),
    ])
}

async fn functions(context: &Context) -> Vec<Function> {
    let names = &context.config.names;
    let all = Slot::SERVING.into_iter().flat_map(|slot| {
        [
            (slot, PAYMENT_PROCESSOR, names.payment_processor(slot)),
            (slot, HEALTH_PROBE, names.health_probe(slot)),
            (slot, FAILOVER_COORDINATOR, names.failover_coordinator(slot)),
        ]
    });
    let looks = all.map(|(slot, package, name)| async move {
        Function {
            region: context.config.regions.of(slot).to_owned(),
            package: package.to_owned(),
            state: within(INSPECTION_LIMIT, context.inspection.function(slot, &name)).await,
        }
    });
    join_all(looks).await
}

async fn machines(context: &Context) -> Vec<Machine> {
    let all = Slot::SERVING.into_iter().flat_map(|slot| {
        workflows::workflows(slot)
            .iter()
            .map(move |workflow| (slot, *workflow))
    });
    let looks = all.map(|(slot, workflow)| async move {
        Machine {
            region: context.config.regions.of(slot).to_owned(),
            workflow: workflow.to_owned(),
            status: within(INSPECTION_LIMIT, context.inspection.machine(slot, workflow)).await,
        }
    });
    join_all(looks).await
}

async fn compared(context: &Context, configuration: &Configuration) -> Fact<Vec<PlanEntry>> {
    let compare = context.engine.compare(&configuration.spec, LOOK_LIMIT);
    let compared = compare.await;
    compared.map_err(|error| continuity::error::chain(&error))
}

async fn permitted(
    context: &Context,
    configuration: &Configuration,
) -> Vec<(permissions::Needed, Fact<bool>)> {
    let (spec, slot) = (&configuration.spec, context.config.slot);
    let asked = context.inspection.permissions(spec, slot);
    match tokio::time::timeout(PERMISSIONS_LIMIT, asked).await {
        Ok(answers) => answers,
        Err(_) => permissions::takeover(spec, "unknown", slot)
            .into_iter()
            .map(|needed| (needed, Err("IAM did not answer in time".to_owned())))
            .collect(),
    }
}

type Stored = (
    Fact<BTreeMap<String, u64>>,
    Fact<Option<String>>,
    Fact<drift::Report>,
    Fact<Option<Rehearsed>>,
);

/// What the control table says.
async fn stored(context: &Context) -> Stored {
    let observers = Slot::ALL.map(|slot| context.config.regions.of(slot));
    let (observations, running, drift, rehearsed) = tokio::join!(
        context.control.observations(&observers),
        document::<Change>(context, change::ITEM),
        document::<drift::Report>(context, drift::ITEM),
        document::<Rehearsed>(context, REHEARSED_ITEM),
    );
    let observed_ms = observations
        .map(|all| all.into_iter().map(|one| (one.observer, one.at_ms)).collect())
        .map_err(|error| continuity::error::chain(&error));
    let running = match running {
        Ok(Some(change)) => Ok(still(context, change).await),
        Ok(None) => Ok(None),
        Err(why) => Err(why),
    };
    (
        observed_ms,
        running,
        drift.map(Option::unwrap_or_default),
        rehearsed,
    )
}

/// The name of the change if it still runs.
async fn still(context: &Context, change: Change) -> Option<String> {
    let silent_ms = context.timer.now_ms().saturating_sub(change.seen_ms);
    if u128::from(silent_ms) > change::LEASE.as_millis() {
        return None;
    }
    let ended = context.executions.ended(&change.execution, change.region()).await;
    (!ended).then(|| change.name().to_owned())
}

async fn document<T: DeserializeOwned>(context: &Context, id: &str) -> Fact<Option<T>> {
    let stored = context.control.document(id).await;
    match stored.map_err(|error| continuity::error::chain(&error))? {
        None => Ok(None),
        Some(json) => serde_json::from_str(&json)
            .map(Some)
            .map_err(|error| format!("the item `{id}` cannot be read: {error}")),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::sync::Arc;

    use continuity::control::ControlStore;
    use continuity::observe::Observation;
    use infra::readiness::State;

    use super::*;
    use crate::testing::{DR, HOME, World};

    async fn observed(world: &World) {
        for slot in Slot::ALL {
            let regions = continuity::names::Regions::default();
            let mut observation = Observation::new(regions.of(slot));
            observation.at_ms = world.now_ms();
            world.control.put_observation(&observation).await.unwrap();
        }
    }

    async fn evaluated(world: &Arc<World>, slot: Slot) -> Value {
        let event = json!({"step": "evaluate-readiness", "execution": "readiness-dev-1"});
        crate::steps::handle(&world.context(slot), &event, u64::MAX)
            .await
            .unwrap()
    }

    fn report(world: &World, region: &str) -> Report {
        serde_json::from_str(&world.document(&readiness::item(region)).unwrap()).unwrap()
    }

    #[tokio::test]
    async fn a_stack_in_order_is_ready_in_both_regions_and_only_the_first_report_is_news() {
        let world = World::deployed();
        observed(&world).await;
        for (slot, region) in [(Slot::Primary, HOME), (Slot::Dr, DR)] {
            for _ in 0..2 {
                let answer = evaluated(&world, slot).await;
                assert_eq!((&answer["ready"], &answer["failed"]), (&json!(true), &json!([])));
            }
            assert!(report(&world, region).is_ready());
        }
        assert_eq!(world.events().len(), 2, "one for each region");
    }

    #[tokio::test]
    async fn what_is_lost_is_told_once_and_once_more_when_it_is_back() {
        let world = World::deployed();
        observed(&world).await;
        evaluated(&world, Slot::Dr).await;
        world.reserve_nothing(true);
        for _ in 0..2 {
            let answer = evaluated(&world, Slot::Dr).await;
            assert_eq!(answer["ready"], false);
            assert!(
                answer["failed"][0].as_str().unwrap().starts_with("concurrency:"),
                "{answer}"
            );
        }
        world.reserve_nothing(false);
        evaluated(&world, Slot::Dr).await;
        let told: Vec<Value> = world
            .events()
            .iter()
            .filter(|(detail_type, _)| detail_type == "Understudy Readiness")
            .map(|(_, detail)| serde_json::from_str::<Value>(detail).unwrap()["ready"].clone())
            .collect();
        assert_eq!(told, [json!(true), json!(false), json!(true)]);
    }

    #[tokio::test]
    async fn a_change_counts_as_running_only_while_its_execution_does() {
        let world = World::deployed();
        observed(&world).await;
        world.hold_change(infra::change::Kind::Deploy, "deploy-dev-1");
        let state = |world: &World| {
            let findings = report(world, DR).findings;
            findings
                .iter()
                .find(|finding| finding.check == "change")
                .unwrap()
                .state
        };
        assert_eq!(
            evaluated(&world, Slot::Dr).await["ready"],
            true,
            "it is a warning"
        );
        assert_eq!(state(&world), State::Failed);
        world.end_execution(&crate::testing::arn(infra::change::Kind::Deploy, "deploy-dev-1"));
        evaluated(&world, Slot::Dr).await;
        assert_eq!(state(&world), State::Passed);
    }

    #[tokio::test]
    async fn before_the_first_deployment_has_ended_nothing_is_stored_or_told() {
        let world = World::undeployed();
        assert_eq!(evaluated(&world, Slot::Dr).await["ready"], false);
        assert_eq!(world.document(&readiness::item(DR)), None);
        assert_eq!(world.events().len(), 0);
    }
}
