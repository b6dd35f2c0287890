//! `understudy down`: the teardown workflow deletes everything but the seed, this command deletes the seed, and the
//! inventory proves it. Killed at any moment, running it again goes on where it was.

use std::collections::BTreeSet;
use std::sync::Arc;

use continuity::names::Slot;
use infra::engine::{self, Inventory};
use infra::kind::Found;
use serde::Serialize;
use serde_json::json;

use crate::failure::Failure;
use crate::stack::Stack;
use crate::ui::Ui;
use crate::workflow;

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

/// How many times the seed's teardown is tried while the inventory still finds something: AWS shows some deletions late.
const ROUNDS: u32 = 5;

/// Deletes the stack.
///
/// # Errors
/// Whatever failed, with what to do next. Running it again is always safe.
pub async fn down(stack: &Stack, ui: &Arc<Ui>) -> Result<TornDown, Failure> {
    let started = ui.elapsed();
    let seed = infra::blueprint::seed(&stack.spec, &stack.account);
    // Without its control table a stack cannot run a workflow: a seed that is half gone is finished from here.
    if stack.control_record().await.is_ok() {
        let execution = workflow::start_or_join(stack, "teardown", &json!({})).await?;
        ui.step(if execution.joined {
            "joined the teardown workflow that is running"
        } else {
            "teardown workflow started"
        });
        workflow::watch(stack, &execution, ui).await?;
        ui.clear_progress();
    }

    ui.step("deleting the seed");
    let regions = Slot::ALL.map(|slot| stack.spec.regions.of(slot));
    let mut left = Inventory::default();
    for _ in 0..ROUNDS {
        let options = workflow::options(ui);
        let report = engine::teardown(&seed, &BTreeSet::new(), &stack.cloud, &options).await?;
        ui.clear_progress();
        left = engine::inventory(
            &stack.spec.suffix,
            &stack.account,
            &regions,
            &stack.cloud,
            &options,
        )
        .await;
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
