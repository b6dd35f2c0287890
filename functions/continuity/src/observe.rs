//! What an observer saw: rounds of looking at both regions' `/health` from outside, as a client would; and what it
//! remembers from one invocation to the next, because that item is the only one it may write.
//!
//! Every time in an observation is by its observer's own clock, which may differ from other clocks by a minute or more. So
//! nobody compares a time in another's observation with its own clock: what counts is when one's own clock showed that
//! the observation *changed* ([`Observation::sight`]).

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::assess::{Assessed, Verdict};
use crate::control::ControlRecord;

/// How many rounds an observation keeps per region.
pub const KEPT_ROUNDS: usize = 30;
/// How many changes of the verdict an observation keeps.
pub const KEPT_VERDICTS: usize = 20;
/// A look takes no longer than this, whatever the interval, in milliseconds: `/health` promises an answer within 2 s, and a
/// shorter limit would call a slow region dead.
pub const LOOK_LIMIT_MS: u64 = 2_000;

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
        /// It answered that there are too many requests (429): that is no sign of a dead region, and one that takes over from it
        /// would get the same requests.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        throttled: bool,
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

/// When an observer first saw, by its own clock, the newest round of another one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sighting {
    /// The other observation's time, by the other's clock: it only tells one state of that observation from the next.
    pub newest_ms: u64,
    /// When that state was first seen, by the own clock. None when that is unknown: it was there at the first look, or at the
    /// first look after a long time.
    pub seen_ms: Option<u64>,
    /// When it was looked at last, by the own clock.
    pub looked_ms: u64,
}

impl Sighting {
    /// Since when a state that `same` compares to the earlier one is known. A change counts from now on if the last look was no
    /// longer ago than `stale_after_ms`; otherwise it may be older than that, and nobody knows.
    fn since(earlier: Option<&Sighting>, newest_ms: u64, stale_after_ms: u64, now_ms: u64) -> Option<u64> {
        let earlier = earlier?;
        if earlier.newest_ms == newest_ms {
            earlier.seen_ms
        } else {
            // Either way round: a clock that was set back must not make an old look a recent one for long.
            (now_ms.abs_diff(earlier.looked_ms) <= stale_after_ms).then_some(now_ms)
        }
    }
}

/// The control record as an observer read it last.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Known {
    /// Its epoch.
    pub epoch: u64,
    /// Its active region.
    #[serde(default)]
    pub active_region: String,
    /// When epoch or phase changed last, by the clock of whoever changed it.
    pub since_ms: u64,
    /// When that was first read, by the observer's clock; as [`Sighting::seen_ms`].
    pub seen_ms: Option<u64>,
    /// When it was read last, by the observer's clock.
    pub looked_ms: u64,
    /// How many looks at the active region the observer began while it knew this, [`KEPT_ROUNDS`] at most. Only these say
    /// something of the active region in this epoch and phase: at the looks before, it may not have been the active region yet.
    pub rounds: usize,
}

impl Known {
    /// Whether the record is still in this epoch and phase.
    pub fn is(&self, record: &ControlRecord) -> bool {
        (self.epoch, self.since_ms, &self.active_region)
            == (record.epoch, record.since_ms, &record.active_region)
    }
}

/// What one observer saw last, newest round last, and what it remembers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Observation {
    /// The region the observer runs in.
    pub observer: String,
    /// The time of the newest round, by the observer's clock, milliseconds since the Unix epoch.
    pub at_ms: u64,
    /// When the invocation that wrote it began, by the observer's clock: of two invocations of one observer the later one goes
    /// on and the earlier one ends.
    #[serde(default)]
    pub begun_ms: u64,
    /// Rounds per observed region.
    pub rounds: BTreeMap<String, Vec<Round>>,
    /// In the standby region: what it saw of each observer, itself included.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub sightings: BTreeMap<String, Sighting>,
    /// The control record as it was read last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub record: Option<Known>,
    /// In the standby region: the latest assessment.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub assessment: Option<Assessed>,
    /// The assessments at which the verdict changed, the oldest first, [`KEPT_VERDICTS`] at most.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub verdicts: Vec<Assessed>,
    /// The attempt that each workflow has come to in this epoch and phase, by the base name of its executions.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub attempts: BTreeMap<String, u32>,
}

impl Observation {
    /// An observer that has seen nothing yet.
    pub fn new(observer: &str) -> Self {
        Observation {
            observer: observer.to_owned(),
            at_ms: 0,
            begun_ms: 0,
            rounds: BTreeMap::new(),
            sightings: BTreeMap::new(),
            record: None,
            assessment: None,
            verdicts: Vec::new(),
            attempts: BTreeMap::new(),
        }
    }

    /// Adds a look at `region`, forgetting the oldest beyond [`KEPT_ROUNDS`]. It began while the observer knew the record.
    pub fn push(&mut self, region: &str, round: Round) {
        if let Some(known) = self.record.as_mut().filter(|known| known.active_region == region) {
            known.rounds = (known.rounds + 1).min(KEPT_ROUNDS);
        }
        let rounds = self.rounds.entry(region.to_owned()).or_default();
        rounds.push(round);
        let excess = rounds.len().saturating_sub(KEPT_ROUNDS);
        rounds.drain(..excess);
        // Of the newest rounds, not of all: after a clock was set back the time must change too.
        let newest = self.rounds.values().filter_map(|rounds| rounds.last());
        self.at_ms = newest.map(|round| round.at_ms).max().unwrap_or_default();
    }

    /// Remembers the control record, read after a round. What belonged to an earlier epoch or phase is forgotten. Returns whether
    /// it is another one than before: looks that began before say nothing of it.
    pub fn learn(&mut self, record: &ControlRecord, stale_after_ms: u64, now_ms: u64) -> bool {
        if let Some(known) = self.record.as_mut().filter(|known| known.is(record)) {
            known.looked_ms = now_ms;
            return false;
        }
        let recently = |known: &Known| (now_ms.abs_diff(known.looked_ms) <= stale_after_ms).then_some(now_ms);
        self.record = Some(Known {
            epoch: record.epoch,
            active_region: record.active_region.clone(),
            since_ms: record.since_ms,
            seen_ms: self.record.as_ref().and_then(recently),
            looked_ms: now_ms,
            rounds: 0,
        });
        self.attempts.clear();
        true
    }

    /// Remembers what the observations of the others, and this one, are like now.
    pub fn sight(&mut self, others: &[Observation], stale_after_ms: u64, now_ms: u64) {
        let mut sightings = BTreeMap::new();
        for of in others
            .iter()
            .filter(|other| other.observer != self.observer)
            .chain(std::iter::once(&*self))
        {
            let sighting = Sighting {
                newest_ms: of.at_ms,
                seen_ms: self.first_saw(of, stale_after_ms, now_ms),
                looked_ms: now_ms,
            };
            sightings.insert(of.observer.clone(), sighting);
        }
        self.sightings = sightings;
    }

    /// When this observer, by its own clock, first saw that observation as it is now; none when nobody knows. `now_ms` is the
    /// time by the same clock, or by another one of the same region.
    pub fn first_saw(&self, of: &Observation, stale_after_ms: u64, now_ms: u64) -> Option<u64> {
        let earlier = self.sightings.get(&of.observer);
        Sighting::since(earlier, of.at_ms, stale_after_ms, now_ms)
    }

    /// Keeps a verdict. Returns whether it is another one than before.
    pub fn keep_verdict(&mut self, verdict: Verdict, now_ms: u64) -> bool {
        let assessed = Assessed {
            at_ms: now_ms,
            verdict,
        };
        let changed = !self
            .assessment
            .as_ref()
            .is_some_and(|before| before.verdict.says_the_same(&assessed.verdict));
        if changed {
            self.verdicts.push(assessed.clone());
            let excess = self.verdicts.len().saturating_sub(KEPT_VERDICTS);
            self.verdicts.drain(..excess);
        }
        self.assessment = Some(assessed);
        changed
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

    fn serving(at_ms: u64) -> Round {
        Round {
            at_ms,
            took_ms: 1,
            look: Look::Serving { epoch: 1 },
        }
    }

    #[test]
    fn an_observation_of_the_earlier_version_is_read() {
        let json = r#"{"observer":"us-west-2","at_ms":7,"rounds":{"us-east-1":[
            {"at_ms":7,"took_ms":1,"outcome":"serving","epoch":1}]}}"#;
        let seen: Observation = serde_json::from_str(json).unwrap();
        assert_eq!(seen.newest("us-east-1").map(|round| round.at_ms), Some(7));
        assert_eq!((seen.record, seen.assessment), (None, None));
        assert!(seen.sightings.is_empty());
    }

    #[test]
    fn what_is_known_of_another_observer_is_when_it_changed_by_the_own_clock() {
        const STALE: u64 = 45_000;
        // The other's clock is a minute behind, then a minute ahead: it makes no difference.
        for skew in [0, 120_000_u64] {
            let mut me = Observation::new("us-east-2");
            let mut other = Observation::new("us-west-2");
            other.push("us-east-1", serving(940_000 + skew));
            me.sight(std::slice::from_ref(&other), STALE, 1_000_000);
            assert_eq!(
                me.first_saw(&other, STALE, 1_000_000),
                None,
                "nobody knows how old it is"
            );
            other.push("us-east-1", serving(941_000 + skew));
            assert_eq!(
                me.first_saw(&other, STALE, 1_001_000),
                Some(1_001_000),
                "it changed since"
            );
            me.sight(std::slice::from_ref(&other), STALE, 1_001_000);
            me.sight(std::slice::from_ref(&other), STALE, 1_031_000);
            assert_eq!(
                me.first_saw(&other, STALE, 1_032_000),
                Some(1_001_000),
                "it did not"
            );
            other.push("us-east-1", serving(900_000 + skew));
            assert_eq!(
                me.first_saw(&other, STALE, 1_032_000),
                Some(1_032_000),
                "its clock was set back"
            );
            other.push("us-east-1", serving(990_000 + skew));
            assert_eq!(
                me.first_saw(&other, STALE, 1_200_000),
                None,
                "it changed in a long time without a look"
            );
        }
    }

    #[test]
    fn only_rounds_that_began_in_an_epoch_and_phase_count_for_it() {
        let mut seen = Observation::new("us-west-2");
        let record = ControlRecord::first("us-east-1", "test", 5);
        let opened = ControlRecord {
            epoch: 2,
            since_ms: 50,
            ..record.clone()
        };
        let (mut told, mut changes) = (Vec::new(), Vec::new());
        for (now_ms, read) in [
            (10, &record),
            (20, &record),
            (30, &record),
            (60, &opened),
            (70, &opened),
        ] {
            seen.push("us-east-1", serving(now_ms));
            seen.push("us-east-2", serving(now_ms));
            changes.push(seen.learn(read, 45_000, now_ms));
            let known = seen.record.clone().unwrap();
            told.push((known.epoch, known.rounds, known.seen_ms));
        }
        let expected = [
            (1, 0, None),
            (1, 1, None),
            (1, 2, None),
            (2, 0, Some(60)),
            (2, 1, Some(60)),
        ];
        assert_eq!(told, expected);
        assert_eq!(changes, [true, false, false, true, false]);
    }

    #[test]
    fn the_changes_of_the_verdict_are_kept_and_the_latest_assessment() {
        let mut seen = Observation::new("us-east-2");
        let hold = |reason: String| Verdict::Hold {
            reasons: vec![reason],
        };
        let propose = || Verdict::Propose {
            epoch: 1,
            to_region: "us-east-2".into(),
            cause: crate::assess::Cause::Dead,
            reasons: vec!["us-east-1 fails".into()],
        };
        for now_ms in 0..100 {
            assert_eq!(
                seen.keep_verdict(hold(format!("{now_ms} ms")), now_ms),
                now_ms == 0
            );
        }
        assert_eq!(seen.verdicts.len(), 1);
        assert_eq!(seen.assessment.as_ref().map(|latest| latest.at_ms), Some(99));
        for now_ms in 100..150 {
            assert!(seen.keep_verdict(propose(), now_ms));
            assert!(seen.keep_verdict(hold("no".into()), now_ms));
        }
        assert_eq!(seen.verdicts.len(), KEPT_VERDICTS);
        let json = serde_json::to_string(&seen).unwrap();
        assert_eq!(serde_json::from_str::<Observation>(&json).unwrap(), seen);
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
                    throttled: true,
                },
            },
        );
        let json = serde_json::to_string(&seen).unwrap();
        assert_eq!(serde_json::from_str::<Observation>(&json).unwrap(), seen);
    }
}
