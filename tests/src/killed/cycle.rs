//! One command with one kill: struck, run again, and looked at.

use serde_json::json;

use super::points::{Command, Point, Victim};
use super::reference::{Reference, difference, resources};
use super::stage::{Ended, Stage};

/// Runs the point's command with the blow, runs it again as a person would, and checks what there is. Says whether the blow
/// fell: a call that depends on timing (how far a deployment is, is written twice a second) is not made in every run.
///
/// # Errors
/// What does not hold.
pub async fn strike(stage: &mut Stage, reference: &Reference, point: &Point) -> Result<bool, String> {
    stage.arm(Some(point)).await?;
    let first = run(stage, point.command).await?;
    let struck = stage.struck(point).await?;
    stage.arm(None).await?;
    match (&struck, point.victim) {
        (Some(struck), _) if struck.killed.is_none() => {
            return Err("the call was made, and its process was not found".to_owned());
        }
        (Some(struck), Victim::CommandLine) if !first.is_killed() || struck.killed != first.pid => {
            return Err(format!(
                "another process was killed: {struck:?}, `{}` ended {}",
                point.command, first.status
            ));
        }
        _ => {}
    }
    // The workflow goes on after the coordinator's death by itself, so the command may have succeeded. If not, it is run again,
    // once.
    if first.status.success() {
        settled(point.command, first)?;
    } else if struck.is_none() {
        return Err(format!("nobody was killed, and it failed: {}", first.said));
    } else {
        let again = run(stage, point.command).await?;
        settled(point.command, again)?;
    }
    match point.command {
        Command::Up => is_deployed(stage, reference).await?,
        Command::Down => is_gone(stage).await?,
    }
    Ok(struck.is_some())
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
