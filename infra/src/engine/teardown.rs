//! The same graph backwards. What AWS still holds is `Waiting`; another run goes on from there.

use std::collections::BTreeSet;
use std::sync::Mutex;

use super::converge::look;
use super::{Options, OutOfTime, Pace, Patience, Run};
use crate::cloud::Cloud;
use crate::error::Class;
use crate::graph::{Blueprint, InvalidBlueprint, Node, Prepared, Seen};
use crate::outcome::{Entry, Outcome, PlanOutcome, Report};

/// How often a resource is observed after its deletion began before the deletion is asked for again.
const READS_PER_DELETE: usize = 8;

/// Deletes every resource of the blueprint except those in `keep`, dependants first.
///
/// 1. Observes everything, in the order of creation, because what to look for follows from what others are.
/// 2. Deletes backwards: a resource goes when all that depends on it is gone.
///
/// Guarantees: deletes nothing outside the blueprint; resumable; ends within the budget plus the calls in flight.
///
/// # Errors
/// Only for a blueprint that is no graph. What happens to resources is in the report.
pub async fn teardown(
    blueprint: &Blueprint,
    keep: &BTreeSet<String>,
    cloud: &Cloud,
    options: &Options,
) -> Result<Report, InvalidBlueprint> {
    let cloud = &cloud.anew();
    let run = Run::new(blueprint, cloud, options)?;
    // What a kept resource needs is kept too.
    let keep = blueprint.only(keep).keys();
    Ok(Report::new(take_down(&run, &keep).await))
}

/// Deletes every resource of the run's blueprint except exactly those in `keep`, dependants first.
pub(super) async fn take_down(run: &Run<'_>, keep: &BTreeSet<String>) -> Vec<Entry> {
    let blueprint = run.blueprint;
    let found = observe_all(run).await;
    let outcomes: Mutex<Vec<Option<Outcome>>> = Mutex::new(vec![None; blueprint.nodes().len()]);
    let set = |position: usize, outcome: Outcome| {
        run.report(position, outcome.clone());
        outcomes.lock().unwrap_or_else(std::sync::PoisonError::into_inner)[position] = Some(outcome);
    };
    let slots: Vec<Mutex<Option<Standing>>> = found
        .into_iter()
        .map(|standing| Mutex::new(Some(standing)))
        .collect();
    run.walk(
        &run.edges.after,
        &run.edges.before,
        |position| {
            let standing = slots[position]
                .lock()
                .unwrap_or_else(std::sync::PoisonError::into_inner)
                .take();
            let set = &set;
            async move {
                let node = &run.blueprint.nodes()[position];
                let outcome = match standing.expect("every node is walked once") {
                    _ if keep.contains(&node.key) => Outcome::Kept,
                    Standing::Absent => Outcome::Absent,
                    Standing::Unreadable(error) => Outcome::Failed { error },
                    Standing::There(resource) => remove(run, position, node, resource).await,
                };
                tracing::debug!(key = %node.key, %outcome, "teardown");
                let ready = outcome.is_final();
                set(position, outcome);
                (position, ready)
            }
        },
        |position, by| {
            let key = &blueprint.nodes()[position].key;
            let outcome = if keep.contains(key) {
                Outcome::Kept
            } else {
                Outcome::Blocked {
                    by: blueprint.nodes()[by].key.clone(),
                }
            };
            set(position, outcome);
        },
    )
    .await;
    let outcomes = std::mem::take(&mut *outcomes.lock().unwrap_or_else(std::sync::PoisonError::into_inner));
    let entries = blueprint
        .nodes()
        .iter()
        .zip(outcomes)
        .map(|(node, outcome)| Entry {
            key: node.key.clone(),
            kind: node.kind.to_owned(),
            region: node.place.region.clone(),
            group: node.place.group,
            outcome: outcome.expect("every node is walked"),
            roles: Vec::new(),
        });
    entries.collect()
}

enum Standing {
    Absent,
    There(Box<dyn Prepared>),
    Unreadable(String),
}

async fn observe_all(run: &Run<'_>) -> Vec<Standing> {
    let found: Vec<Mutex<Standing>> = run
        .blueprint
        .nodes()
        .iter()
        .map(|_| Mutex::new(Standing::Absent))
        .collect();
    run.walk(
        &run.edges.before,
        &run.edges.after,
        |position| {
            let found = &found;
            async move {
                let node = &run.blueprint.nodes()[position];
                let standing = match look(run, node).await {
                    (_, Some((resource, Seen { exists: true, .. }))) => Standing::There(resource),
                    (PlanOutcome::Failed { error }, _) => Standing::Unreadable(error),
                    // Nothing there, or it refers to something that is gone, which AWS would not let go before it.
                    _ => Standing::Absent,
                };
                *found[position]
                    .lock()
                    .unwrap_or_else(std::sync::PoisonError::into_inner) = standing;
                (position, true)
            }
        },
        |_, _| {},
    )
    .await;
    found
        .into_iter()
        .map(|slot| {
            slot.into_inner()
                .unwrap_or_else(std::sync::PoisonError::into_inner)
        })
        .collect()
}

async fn remove(run: &Run<'_>, position: usize, node: &Node, mut resource: Box<dyn Prepared>) -> Outcome {
    let site = run.blueprint.site(node, run.cloud);
    let (mut pace, mut reading, mut writing) = (Pace::new(), Patience::default(), Patience::default());
    let mut reads = 0;
    let mut asked = false;
    loop {
        let mut on = "deletion".to_owned();
        if !asked {
            if run.out_of_time() {
                return Outcome::Waiting {
                    on: "its turn: the time budget is used up".into(),
                };
            }
            if let Err(why) = run.permitted(node).await {
                return Outcome::Waiting { on: why };
            }
            match run.call(resource.delete(&site)).await {
                Ok(()) => {
                    asked = true;
                    writing.reset();
                    reads = 0;
                    pace.restart();
                }
                Err(error) if writing.bears(&error, run.options.clock.now()) => on = error.chain(),
                Err(error) if error.class == Class::HeldBack => {
                    return Outcome::HeldBack {
                        until: error.cause.message,
                    };
                }
                Err(error) => return Outcome::Failed { error: error.chain() },
            }
        }
        match run.call(resource.observe(&site)).await {
            Ok(Seen { exists: false, .. }) => return Outcome::Deleted,
            Ok(Seen {
                settling: Some(doing),
                ..
            }) if asked => on = doing,
            Ok(_) => {
                reads += 1;
                if reads >= READS_PER_DELETE {
                    asked = false;
                }
            }
            Err(error) if reading.bears(&error, run.options.clock.now()) => on = error.chain(),
            Err(error) => return Outcome::Failed { error: error.chain() },
        }
        run.report(position, Outcome::Waiting { on: on.clone() });
        if let Err(OutOfTime) = pace.rest(run).await {
            return Outcome::Waiting { on };
        }
    }
}
