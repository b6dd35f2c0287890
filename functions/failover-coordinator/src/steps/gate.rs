//! What stands between the change of the standby region and the change of the region that serves: an observer must have seen
//! the standby answer after it was changed.

use std::sync::Arc;

use async_trait::async_trait;
use continuity::assess::Policy;
use continuity::control::ControlStore;
use continuity::error::chain;
use continuity::names::{Regions, Slot};
use infra::engine::{Gate, Serving};

use crate::context::Context;
use crate::decide::{self, Standby};
use crate::effects::Timer;
use crate::limits::{GATE_LIMIT, WATCH_INTERVAL};

/// Changes reach `active` last, after the standby was seen to answer. `None` when no region of this stack has that name.
/// The standby fails when it does so as often in a row as `policy` asks of a region that is to be taken over.
pub fn serving(context: &Context, active: &str, policy: &Policy) -> Option<Serving> {
    let regions = &context.config.regions;
    let slot = regions.slot_of(active)?;
    let standby = Slot::SERVING.into_iter().find(|other| *other != slot)?;
    let gate = StandbyAnswers {
        control: Arc::clone(&context.control),
        timer: Arc::clone(&context.timer),
        regions: regions.clone(),
        standby,
        rounds: policy.rounds_to_fail as usize,
    };
    Some(Serving {
        group: slot.into(),
        gate: Some(Arc::new(gate)),
    })
}

struct StandbyAnswers {
    control: Arc<dyn ControlStore>,
    timer: Arc<dyn Timer>,
    regions: Regions,
    standby: Slot,
    rounds: usize,
}

#[async_trait]
impl Gate for StandbyAnswers {
    async fn open(&self) -> Result<(), String> {
        let observers = Slot::ALL.map(|slot| self.regions.of(slot));
        let since_ms = self.timer.now_ms();
        let until_ms = since_ms + u64::try_from(GATE_LIMIT.as_millis()).unwrap_or(u64::MAX);
        loop {
            let region = self.regions.of(self.standby);
            let standby = match self.control.observations(&observers).await {
                Ok(seen) => decide::observed_standby(region, &seen, since_ms, self.rounds),
                Err(error) => Standby::NotSeen(chain(&error)),
            };
            match standby {
                Standby::Answers(_) => return Ok(()),
                Standby::Fails(why) => return Err(why),
                Standby::NotSeen(why) if self.timer.now_ms() >= until_ms => return Err(why),
                Standby::NotSeen(_) => self.timer.sleep(WATCH_INTERVAL).await,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{DR, HOME, World, home_down};

    #[tokio::test]
    async fn the_region_that_serves_waits_until_somebody_saw_the_standby_answer() {
        let world = World::deployed();
        let context = world.context(Slot::Primary);
        let serving = serving(&context, HOME, &Policy::default()).expect("it is a region of the stack");
        assert_eq!(serving.group, infra::graph::Group::Primary);
        let gate = serving.gate.expect("there is a gate");
        let why = gate.open().await.expect_err("nobody looked");
        assert!(why.contains("us-east-2"), "{why}");
        // What observers see of a region that is down, when that region is the standby.
        let after_takeover =
            super::serving(&context, DR, &Policy::default()).expect("it is a region of the stack");
        for observation in home_down(world.now_ms() + 1_000) {
            let stored = world.control.put_observation(&observation).await;
            stored.expect("the table answers");
        }
        let why = after_takeover.gate.expect("there is a gate").open().await;
        assert!(why.expect_err("it is down").contains("us-east-1 does not answer"));
        assert!(gate.open().await.is_ok(), "they saw the other one answer");
    }
}
