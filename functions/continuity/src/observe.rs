//! What an observer saw: rounds of looking at both regions' `/health` from outside, as a client would.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// How many rounds an observation keeps per region.
pub const KEPT_ROUNDS: usize = 30;

/// The body of `GET /health`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Health {
    /// The region that answered.
    pub region: String,
    /// Its slot.
    pub slot: String,
    /// It may acknowledge commands: the status is 200 exactly when this is true.
    pub serving: bool,
    /// The epoch of the control record, `None` when it could not be read.
    pub epoch: Option<u64>,
    /// The phase of the control record.
    pub phase: Option<String>,
    /// The active region of the control record.
    pub active_region: Option<String>,
    /// The region's database.
    pub database: crate::takeover::LedgerStatus,
    /// Why it is not serving; empty when it is.
    pub reasons: Vec<String>,
}

/// What one look at one region gave.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "outcome", rename_all = "lowercase")]
pub enum Look {
    /// Status 200: serving, in this epoch.
    Serving {
        /// The epoch it serves.
        epoch: u64,
    },
    /// An answer that says it is not serving, with the state of its database.
    Standby {
        /// What `/health` said.
        health: Health,
    },
    /// No usable answer.
    Failing {
        /// Connection refused, timed out, a 5xx without a health body, ...
        reason: String,
    },
}

/// One round's look at one region.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Round {
    /// When the look ended, by the observer's clock, milliseconds since the Unix epoch.
    pub at_ms: u64,
    /// How long it took.
    pub took_ms: u64,
    /// What it gave.
    #[serde(flatten)]
    pub look: Look,
}

/// What one observer saw last, newest round last.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Observation {
    /// The region the observer runs in.
    pub observer: String,
    /// When it was written, by the observer's clock, milliseconds since the Unix epoch.
    pub at_ms: u64,
    /// Rounds per observed region.
    pub rounds: BTreeMap<String, Vec<Round>>,
}

impl Observation {
    /// An observer that has seen nothing yet.
    pub fn new(observer: &str) -> Self {
        Observation {
            observer: observer.to_owned(),
            at_ms: 0,
            rounds: BTreeMap::new(),
        }
    }

    /// Adds a look at `region`, forgetting the oldest beyond [`KEPT_ROUNDS`].
    pub fn push(&mut self, region: &str, round: Round) {
        self.at_ms = self.at_ms.max(round.at_ms);
        let rounds = self.rounds.entry(region.to_owned()).or_default();
        rounds.push(round);
        let excess = rounds.len().saturating_sub(KEPT_ROUNDS);
        rounds.drain(..excess);
    }

    /// The newest look at `region`.
    pub fn newest(&self, region: &str) -> Option<&Round> {
        self.rounds.get(region)?.last()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_observation_keeps_the_newest_rounds() {
        let mut seen = Observation::new("us-west-2");
        for at_ms in 0..100 {
            seen.push(
                "us-east-1",
                Round {
                    at_ms,
                    took_ms: 1,
                    look: Look::Serving { epoch: 1 },
                },
            );
        }
        assert_eq!(seen.rounds["us-east-1"].len(), KEPT_ROUNDS);
        assert_eq!(seen.newest("us-east-1").map(|round| round.at_ms), Some(99));
        assert_eq!(seen.newest("us-east-2"), None);
    }

    #[test]
    fn an_observation_survives_the_table() {
        let mut seen = Observation::new("us-west-2");
        seen.push(
            "us-east-1",
            Round {
                at_ms: 5,
                took_ms: 1,
                look: Look::Failing {
                    reason: "refused".into(),
                },
            },
        );
        let json = serde_json::to_string(&seen).unwrap();
        assert_eq!(serde_json::from_str::<Observation>(&json).unwrap(), seen);
    }
}
