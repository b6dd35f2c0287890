//! `understudy down`: the teardown workflow deletes everything but the seed, this command deletes the seed, and the
//! inventory proves it. Killed at any moment, running it again goes on where it was.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use continuity::names::Slot;
use infra::change::{Configuration, Kind};
use infra::engine::{self, Extent, Inventory};
use infra::kind::Found;
use serde::Serialize;

use crate::failure::Failure;
use crate::stack::Stack;
use crate::ui::Ui;
use crate::workflow::{self, Input};

/// What is left after `down`.
#[derive(Debug, Clone, Serialize)]
pub struct TornDown {
    /// Everything of the stack that is still there, by every kind and region. Empty when all went well.
    pub left_over: Vec<Found>,
    /// What AWS deletes later by itself, and until when.
    pub held_back: Vec<Found>,
    /// How long it took.
    pub seconds: f64,
}

/// How many times the teardown from here is tried while the inventory still finds something: AWS shows some deletions late,
/// and what was under way may bring a thing back.
const ROUNDS: u32 = 5;

/// How often it is looked whether a table is going, and the pause in between.
const GOING_LOOKS: u32 = 10;
const GOING_PAUSE: Duration = Duration::from_millis(500);

/// Deletes the stack.
///
/// 1. Refuses while deletion protection is on.
/// 2. The teardown workflow, in the active region, deletes everything but the seed.
/// 3. From here, what made it: the seed in all regions; then, should the inventory find anything, whatever is left, also of what
///    is in the configuration no more.
/// 4. The inventory.
///
/// # Errors
/// Whatever failed, with what to do next. Running it again is always safe.
pub async fn down(stack: &Stack, ui: &Arc<Ui>) -> Result<TornDown, Failure> {
    let started = ui.elapsed();
    let stored = stack.configuration().await?;
    refuse_protected(stack, stored.as_ref())?;
    let deployed = stored.as_ref().map(|stored| stack.as_deployed(stored));
    let stack = deployed.as_ref().unwrap_or(stack);
    // Half a stack cannot be taken down from here, and would be left without what takes it down later.
    if let Some((slot, why)) = stack.unreachable().await.into_iter().next() {
        let region = stack.spec.regions.of(slot);
        return Err(Failure::text(format!(
            "`{region}` does not answer, so nothing more is deleted: {why}"
        ))
        .help(
            "run `understudy down` again when it answers; a teardown that runs already goes on by itself",
        ));
    }
    let torn = match run_workflow(stack, stored.as_ref(), ui).await {
        Ok(torn) => torn,
        // An earlier run had begun to delete the control table, and it went meanwhile.
        Err(_) if stored.is_some() && is_undeployed(stack).await => false,
        Err(failure) => return Err(failure),
    };

    let whole = infra::blueprint::blueprint(&stack.spec, &stack.account);
    let seed = infra::blueprint::seed(&stack.spec, &stack.account);
    ui.step(if torn {
        "deleting the seed"
    } else {
        "deleting what is left"
    });
    let extent = Extent::of(&stack.spec, &stack.account);
    let (keys, nothing) = (whole.keys(), BTreeSet::new());
    let mut left = Inventory::default();
    for round in 0..ROUNDS {
        let options = workflow::options(ui);
        let rest = if torn && round == 0 { &seed } else { &whole };
        // What is in the configuration no more may hold what is in it.
        let (report, _) = tokio::join!(
            engine::teardown(rest, &nothing, &stack.cloud, &options),
            engine::prune_shown(&keys, &extent, &stack.cloud, &options),
        );
        let report = report?;
        ui.clear_progress();
        left = engine::inventory(&extent, &stack.cloud, &options).await;
        if let Some(failed) = report.failures().next() {
            return Err(
                Failure::text(failed.to_string()).help("mend the cause and run `understudy down` again")
            );
        }
        if report.done && left.is_empty() {
            break;
        }
    }
    if let Some(error) = left.errors.first() {
        return Err(Failure::text(format!("the inventory is not complete: {error}"))
            .help("run `understudy down` again when the region answers"));
    }
    Ok(TornDown {
        left_over: left.found,
        held_back: left.held_back,
        seconds: (ui.elapsed() - started).as_secs_f64(),
    })
}

/// Whether the control table goes within some seconds: regions lose their replicas one after the other.
async fn is_undeployed(stack: &Stack) -> bool {
    for _ in 0..GOING_LOOKS {
        // What cannot be seen does not hide why the teardown failed.
        if stack.configuration().await.is_ok_and(|stored| stored.is_none()) {
            return true;
        }
        tokio::time::sleep(GOING_PAUSE).await;
    }
    false
}

/// Refuses while deletion protection is on, in the file or in what is deployed.
fn refuse_protected(stack: &Stack, stored: Option<&Configuration>) -> Result<(), Failure> {
    let deployed = stored.is_some_and(|stored| stored.spec.deletion_protection);
    if !stack.spec.deletion_protection && !deployed {
        return Ok(());
    }
    let names = stack.names();
    let mut protected = vec![
        names.control_table(),
        names.journal_table(),
        names.aurora_global(),
    ];
    protected.extend(Slot::SERVING.map(|slot| names.aurora_cluster(slot)));
    let help = if stack.spec.deletion_protection {
        "set `deletion_protection = false` in stack.toml, run `understudy up`, then `understudy down`"
    } else {
        "stack.toml says `deletion_protection = false`, but that is not deployed: run `understudy up`, then `understudy down`"
    };
    Err(Failure::text(format!(
        "deletion protection is on: `{}` hold the payments and are not deleted",
        protected.join("`, `")
    ))
    .help(help))
}

/// Runs the teardown workflow, or joins the one that runs, and says whether there was one. A stack without its control table
/// or its state machines cannot run it: what is left of that one is finished from here.
async fn run_workflow(stack: &Stack, stored: Option<&Configuration>, ui: &Arc<Ui>) -> Result<bool, Failure> {
    let Some(stored) = stored else { return Ok(false) };
    let active = stack.active_slot(stack.control_record().await?.as_ref());
    // A teardown that runs is joined where it runs; the active region may have changed since it began.
    let running = stack
        .change()
        .await?
        .filter(|change| change.kind == Kind::Teardown)
        .and_then(|change| stack.spec.regions.slot_of(change.region()));
    for slot in running.into_iter().chain([active]).chain(Slot::SERVING) {
        if !workflow::is_there(stack, Kind::Teardown, slot).await? {
            continue;
        }
        let input = Input {
            generation: Some(stored.generation),
            ..Input::default()
        };
        let execution = workflow::start_or_join(stack, ui, Kind::Teardown, slot, &input).await?;
        ui.step(if execution.joined {
            "joined the teardown workflow that is running"
        } else {
            "teardown workflow started"
        });
        workflow::watch(stack, &execution, ui).await?;
        ui.clear_progress();
        return Ok(true);
    }
    Ok(false)
}

/// The result for a person.
pub fn describe(torn_down: &TornDown) -> String {
    let row = |found: &Found| format!("  {} {} {}", found.region, found.kind, found.id);
    let mut lines = Vec::new();
    if torn_down.left_over.is_empty() {
        lines.push(format!(
            "everything is gone; the inventory is empty ({:.1} s)",
            torn_down.seconds
        ));
    } else {
        lines.push("left over:".to_owned());
        lines.extend(torn_down.left_over.iter().map(row));
    }
    if !torn_down.held_back.is_empty() {
        lines.push("deleted, but kept by AWS for a while:".to_owned());
        lines.extend(torn_down.held_back.iter().map(|found| {
            format!(
                "{} {}",
                row(found),
                found.held_back.as_deref().unwrap_or_default()
            )
        }));
    }
    lines.join("\n")
}
