//! One command with its kills: struck, run again, and looked at.

use std::collections::BTreeSet;

use serde_json::json;

use super::points::{Command, Point, Victim};
use super::reference::{Reference, difference, resources};
use super::stage::{Ended, Stage};

/// Runs the command of the points with their blows, runs it again as a person would until nobody is killed any more, and checks
/// what there is. Says for each point whether its blow fell: a call that depends on timing (how far a deployment is, is written
/// twice a second) is not made in every run, and of two calls at the same time the second finds its caller dead. The points are
/// of one series.
///
/// # Errors
/// What does not hold.
pub async fn strike(stage: &mut Stage, reference: &Reference, points: &[Point]) -> Result<Vec<bool>, String> {
    let Some(Point { command, victim, .. }) = points.first().cloned() else {
        return Ok(Vec::new());
    };
    stage.arm(points).await?;
    // The workflow goes on after the coordinator's death by itself. Should the command fail of it all the same, it may be run
    // again once, as after its own death.
    let mut deaths = BTreeSet::new();
    let mut failures = Vec::new();
    loop {
        let ended = run(stage, command).await?;
        if ended.status.success() {
            settled(command, ended)?;
            break;
        }
        if victim == Victim::CommandLine && ended.is_killed() && deaths.len() < points.len() {
            deaths.extend(ended.pid);
            continue;
        }
        failures.push(ended.said);
        let killed = stage.struck(points).await?.iter().flatten().count();
        if victim == Victim::CommandLine || killed == 0 || failures.len() > 1 {
            return Err(format!(
                "`{command}` failed after {killed} kills: {}",
                failures.join("; then: ")
            ));
        }
    }
    let struck = stage.struck(points).await?;
    stage.arm(&[]).await?;
    // Of two calls that are chosen and made at the same time, the second may find its caller dead.
    let killed: BTreeSet<u32> = struck
        .iter()
        .flatten()
        .filter_map(|struck| struck.killed)
        .collect();
    if killed.is_empty() && struck.iter().any(Option::is_some) {
        return Err("the chosen call was made, and its process was not found".to_owned());
    }
    if victim == Victim::CommandLine && killed != deaths {
        return Err(format!(
            "killed were {killed:?}, and `{command}` died as {deaths:?}"
        ));
    }
    match command {
        Command::Up => is_deployed(stage, reference).await?,
        Command::Down => is_gone(stage).await?,
    }
    Ok(struck.iter().map(Option::is_some).collect())
}

/// The command without any kill.
///
/// # Errors
/// It fails.
pub async fn undisturbed(stage: &mut Stage, command: Command) -> Result<(), String> {
    let ended = run(stage, command).await?;
    settled(command, ended)
}

async fn run(stage: &mut Stage, command: Command) -> Result<Ended, String> {
    match command {
        Command::Up => stage.up().await,
        Command::Down => stage.down().await,
    }
}

/// It succeeded, and says so.
fn settled(command: Command, ended: Ended) -> Result<(), String> {
    let result = ended
        .success()
        .map_err(|said| format!("`{command}` failed: {said}"))?;
    if command == Command::Down && result["left_over"] != json!([]) {
        return Err(format!("`down` leaves {}", result["left_over"]));
    }
    Ok(())
}

/// `up` has nothing more to do, everything is in order, and what exists is what an undisturbed deployment makes, once each.
async fn is_deployed(stage: &mut Stage, reference: &Reference) -> Result<(), String> {
    let last = stage.up().await?.success();
    let last = last.map_err(|said| format!("the last `up` failed: {said}"))?;
    if last["changed"] != json!([]) || last["epoch"] != json!(1) {
        return Err(format!("`up` did not converge: {last}"));
    }
    let found = resources(&stage.inventory().await)?;
    if let Some(difference) = difference(&reference.resources, &found) {
        return Err(format!("not what an undisturbed deployment makes: {difference}"));
    }
    let status = stage.status().await?;
    let (counts, phase) = (
        status.result["counts"].clone(),
        status.result["control"]["phase"].clone(),
    );
    status
        .success()
        .map_err(|said| format!("not all is in order: {counts} {said}"))?;
    if phase != "serving" {
        return Err(format!("the stack does not serve: {phase}"));
    }
    Ok(())
}

/// Nothing of ours exists, in any region. What AWS holds back (keys that wait for their deletion) does not count.
async fn is_gone(stage: &mut Stage) -> Result<(), String> {
    let inventory = stage.inventory().await;
    if inventory.is_empty() {
        return Ok(());
    }
    Err(format!("after `down` the inventory is not empty: {inventory}"))
}
