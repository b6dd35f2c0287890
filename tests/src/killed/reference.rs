//! The undisturbed deployment with which all others are compared.

use std::sync::Arc;

use infra::engine::Inventory;
use serde_json::json;

use super::points::{Command, Point, points};
use super::programs::Programs;
use super::stage::Stage;

/// One resource: kind, region and key. The same twice means that it exists twice.
pub type Resource = (String, String, String);

/// What an undisturbed deployment makes, and the calls that made it and took it down.
#[derive(Debug)]
pub struct Reference {
    /// Everything that exists, sorted.
    pub resources: Vec<Resource>,
    /// Every point of `up`, then of `down`.
    pub points: Vec<Point>,
}

impl Reference {
    /// Deploys a stack and takes it down.
    ///
    /// # Errors
    /// Whatever fails, although nobody is killed.
    pub async fn make(programs: &Arc<Programs>, reads: bool) -> Result<Reference, String> {
        let mut stage = Stage::open(programs).await?;
        let now_ms = continuity::clock::now_ms;
        let began_ms = now_ms();
        stage.up().await?.success()?;
        let deployed_ms = now_ms();
        let inventory = stage.inventory().await;
        let began_down_ms = now_ms();
        let gone = stage.down().await?.success()?;
        let ended_ms = now_ms();
        if gone["left_over"] != json!([]) {
            return Err(format!("left over without any kill: {}", gone["left_over"]));
        }
        let resources = resources(&inventory)?;
        let mut twice = resources.windows(2).filter(|two| two[0] == two[1]);
        if let Some(two) = twice.next() {
            return Err(format!("there are two of {:?} without any kill", two[0]));
        }
        let calls = stage.close_and_read().await?;
        let within = |from: u64, to: u64| {
            let calls = calls.iter().filter(move |call| (from..=to).contains(&call.at_ms));
            calls.cloned().collect::<Vec<_>>()
        };
        let mut all = points(Command::Up, &within(began_ms, deployed_ms), reads);
        all.extend(points(Command::Down, &within(began_down_ms, ended_ms), reads));
        Ok(Reference {
            resources,
            points: all,
        })
    }
}

/// The resources of an inventory.
///
/// # Errors
/// It is not complete.
pub fn resources(inventory: &Inventory) -> Result<Vec<Resource>, String> {
    if let Some(error) = inventory.errors.first() {
        return Err(format!("the inventory is not complete: {error}"));
    }
    let mut all: Vec<Resource> = inventory
        .found
        .iter()
        .map(|found| {
            let key = found.key.clone().unwrap_or_default();
            (found.kind.clone(), found.region.clone(), key)
        })
        .collect();
    all.sort();
    Ok(all)
}

/// What one has and the other has not, in words; `None` when they are the same.
pub fn difference(expected: &[Resource], found: &[Resource]) -> Option<String> {
    let only = |these: &[Resource], those: &[Resource]| {
        let mut left = those.to_vec();
        let mut more = Vec::new();
        for one in these {
            match left.iter().position(|other| other == one) {
                Some(at) => drop(left.swap_remove(at)),
                None => more.push(format!("{} {} in {}", one.0, one.2, one.1)),
            }
        }
        more
    };
    let (missing, extra) = (only(expected, found), only(found, expected));
    let mut text = Vec::new();
    if !missing.is_empty() {
        text.push(format!("missing: {}", missing.join(", ")));
    }
    if !extra.is_empty() {
        text.push(format!("too many: {}", extra.join(", ")));
    }
    (!text.is_empty()).then(|| text.join("; "))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resource(key: &str) -> Resource {
        ("vpc".into(), "us-east-1".into(), key.into())
    }

    #[test]
    fn what_exists_twice_is_a_difference_and_so_is_what_is_missing() {
        let expected = [resource("a"), resource("b")];
        assert_eq!(difference(&expected, &expected), None);
        assert_eq!(
            difference(&expected, &[resource("a"), resource("a"), resource("b")]),
            Some("too many: vpc a in us-east-1".into())
        );
        assert_eq!(
            difference(&expected, &[resource("c"), resource("b")]),
            Some("missing: vpc a in us-east-1; too many: vpc c in us-east-1".into())
        );
    }
}
