//! Doubles for the steps' tests: a world of two regions, and an interpreter of the workflows' states.
#![allow(clippy::unwrap_used)]

mod asl;
mod drill;
mod failover;
mod harness;
mod recovery;
mod switchover;
mod workflows;
mod world;

use continuity::observe::{Health, Look, Observation, Round, Sighting};
use continuity::takeover::LedgerStatus;

pub(crate) use asl::{End, Machine, Run};
pub(crate) use world::{Fault, Switchovers, World};

pub(crate) const HOME: &str = "us-east-1";
pub(crate) const DR: &str = "us-east-2";
pub(crate) const WITNESS: &str = "us-west-2";

/// The ARN of an execution in the home region.
pub(crate) fn arn(kind: infra::change::Kind, name: &str) -> String {
    format!("arn:aws:states:{HOME}:000000000000:execution:{kind}-primary-dev:{name}")
}

/// A standby's ledger that shows `epoch`.
pub(crate) fn standby_ledger(epoch: u64) -> LedgerStatus {
    LedgerStatus {
        reachable: true,
        in_recovery: true,
        ledger_epoch: Some(epoch),
    }
}

fn seen(observer: &str, now_ms: u64, of_home: &Look) -> Observation {
    let standby = Look::Standby {
        health: Health {
            region: DR.into(),
            slot: "dr".into(),
            serving: false,
            epoch: Some(1),
            phase: Some("serving".into()),
            active_region: Some(HOME.into()),
            database: standby_ledger(1),
            reasons: vec!["not the active region".into()],
        },
    };
    let mut observation = Observation::new(observer);
    for ago in (1..=3).rev() {
        for (region, look) in [(HOME, of_home), (DR, &standby)] {
            let round = Round {
                at_ms: now_ms - ago * 100,
                took_ms: 1,
                look: look.clone(),
            };
            observation.push(region, round);
        }
    }
    observation
}

/// The probes of both serving regions have just seen the others write.
fn sighted<const N: usize>(mut all: [Observation; N], now_ms: u64) -> [Observation; N] {
    let others = all.clone();
    for own in all.iter_mut().filter(|own| own.observer != WITNESS) {
        for other in &others {
            let sighting = Sighting {
                newest_ms: other.at_ms,
                seen_ms: Some(now_ms),
                looked_ms: now_ms,
            };
            own.sightings.insert(other.observer.clone(), sighting);
        }
    }
    all
}

/// Both observers outside the home region saw it fail three times.
pub(crate) fn home_down(now_ms: u64) -> [Observation; 2] {
    let refused = Look::Failing {
        reason: "connection refused".into(),
        throttled: false,
    };
    sighted(
        [DR, WITNESS].map(|observer| seen(observer, now_ms, &refused)),
        now_ms,
    )
}

/// All three observers have just written, as readiness wants.
pub(crate) fn observers_awake(world: &World) {
    for region in [HOME, DR, WITNESS] {
        let mut observation = Observation::new(region);
        observation.at_ms = world.now_ms();
        let stored = continuity::control::ControlStore::put_observation(world.control.as_ref(), &observation);
        futures::executor::block_on(stored).unwrap();
    }
}

/// All three observers see the home region serve epoch 1.
pub(crate) fn observed_home_serving(now_ms: u64) -> [Observation; 3] {
    let all = [HOME, DR, WITNESS].map(|observer| seen(observer, now_ms, &Look::Serving { epoch: 1 }));
    sighted(all, now_ms)
}
