//! The decision to take over: a pure function of the control record, what the observers saw, the policy and the time.

use serde::{Deserialize, Serialize};

use crate::control::{ControlRecord, Phase};
use crate::names::Regions;
use crate::observe::{Look, Observation};
use crate::takeover::fit_to_take_over;

/// Who decides on a takeover.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Decider {
    /// The assessment alone.
    #[default]
    Automatic,
    /// A person approves what the assessment proposes.
    Approve,
    /// A person starts it.
    Manual,
}

/// When to take over.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Policy {
    /// Who decides.
    pub decider: Decider,
    /// Failing rounds in a row that an observer must have seen.
    pub rounds_to_fail: u32,
    /// Observers outside the active region that must agree.
    pub observers: u32,
    /// No takeover this soon after the active region changed or opened.
    pub cooldown_ms: u64,
    /// An observation older than this says nothing.
    pub stale_after_ms: u64,
    /// A takeover or planned change that has not opened after this long counts as failed.
    pub recovery_timeout_ms: u64,
}

impl Default for Policy {
    fn default() -> Self {
        Policy {
            decider: Decider::Automatic,
            rounds_to_fail: 3,
            observers: 2,
            cooldown_ms: 60_000,
            stale_after_ms: 45_000,
            recovery_timeout_ms: 600_000,
        }
    }
}

/// What to do, and why.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "verdict", rename_all = "lowercase")]
pub enum Verdict {
    /// Nothing.
    Hold {
        /// Every reason against a takeover, in the order of the checks.
        reasons: Vec<String>,
    },
    /// Take over now.
    Failover {
        /// The epoch that ends.
        epoch: u64,
        /// The region that takes over.
        to_region: String,
        /// What the observers saw.
        reasons: Vec<String>,
    },
    /// Take over when a person agrees.
    Propose {
        /// The epoch that would end.
        epoch: u64,
        /// The region that would take over.
        to_region: String,
        /// What the observers saw.
        reasons: Vec<String>,
    },
}

/// Assesses the stack. All reasons for holding are collected, so that a person can read why nothing happened.
pub fn assess(
    record: &ControlRecord,
    observations: &[Observation],
    policy: &Policy,
    regions: &Regions,
    now_ms: u64,
) -> Verdict {
    let active = record.active_region.as_str();
    let Some(standby) = regions.peer_of(active) else {
        return Verdict::Hold {
            reasons: vec![format!("`{active}` is not one of the stack's serving regions")],
        };
    };

    let mut against = Vec::new();
    if record.maintenance {
        against.push("the stack is in maintenance".to_owned());
    }
    if policy.decider == Decider::Manual {
        against.push("the policy leaves failover to a person".to_owned());
    }
    let age_ms = now_ms.saturating_sub(record.since_ms);
    if record.phase == Phase::Serving && age_ms < policy.cooldown_ms {
        against.push(format!(
            "`{active}` opened {age_ms} ms ago, cool-down is {} ms",
            policy.cooldown_ms
        ));
    }
    if record.phase != Phase::Serving && age_ms < policy.recovery_timeout_ms {
        against.push(format!("`{active}` is {} since {age_ms} ms", record.phase));
    }

    let mut seen = Vec::new();
    let mut agreeing = 0_u32;
    for observation in observations
        .iter()
        .filter(|observation| observation.observer != active)
    {
        let run = failing_rounds(observation, active, record.epoch, policy, now_ms);
        match run {
            Some(run) if run >= policy.rounds_to_fail => {
                agreeing += 1;
                seen.push(format!(
                    "{} saw `{active}` fail {run} rounds in a row",
                    observation.observer
                ));
            }
            Some(run) => against.push(format!(
                "{} saw `{active}` fail {run} rounds in a row",
                observation.observer
            )),
            None => against.push(format!(
                "{} has seen nothing recent of `{active}`",
                observation.observer
            )),
        }
    }
    if agreeing >= policy.observers {
        // The quorum is there: a dissenting or blind observer is worth mentioning, but does not hold.
        against.retain(|reason| {
            !observations
                .iter()
                .any(|o| reason.starts_with(&format!("{} ", o.observer)))
        });
    } else {
        against.push(format!(
            "{agreeing} of {} observers needed agree",
            policy.observers
        ));
    }

    match standby_fitness(record, observations, standby, policy, now_ms) {
        Ok(who) => seen.push(format!("{who} saw `{standby}` fit to take over")),
        Err(reason) => against.push(reason),
    }

    if !against.is_empty() {
        return Verdict::Hold { reasons: against };
    }
    let (epoch, to_region, reasons) = (record.epoch, standby.to_owned(), seen);
    match policy.decider {
        Decider::Automatic => Verdict::Failover {
            epoch,
            to_region,
            reasons,
        },
        Decider::Approve | Decider::Manual => Verdict::Propose {
            epoch,
            to_region,
            reasons,
        },
    }
}

/// Why `region` counts as failing: what observers outside it saw, when at least one recently got no usable answer from it
/// [`Policy::rounds_to_fail`] times in a row and none recently got one. A standby that says so answers; it does not fail.
///
/// This decides what must wait, not whether to take over: one witness is enough, because waiting does no harm.
pub fn failing_region(
    region: &str,
    observations: &[Observation],
    policy: &Policy,
    now_ms: u64,
) -> Option<Vec<String>> {
    let mut seen = Vec::new();
    for observation in observations.iter().filter(|seen| seen.observer != region) {
        let Some(rounds) = observation.rounds.get(region) else {
            continue;
        };
        let recent = |at_ms: u64| now_ms.saturating_sub(at_ms) <= policy.stale_after_ms;
        if !rounds.last().is_some_and(|newest| recent(newest.at_ms)) {
            continue;
        }
        let unanswered = rounds
            .iter()
            .rev()
            .take_while(|round| matches!(round.look, Look::Failing { .. }))
            .count();
        match u32::try_from(unanswered) {
            Ok(0) => return None,
            Ok(run) if run < policy.rounds_to_fail => {}
            _ => seen.push(format!(
                "{} got no answer from `{region}` {unanswered} times in a row",
                observation.observer
            )),
        }
    }
    (!seen.is_empty()).then_some(seen)
}

/// How many of the newest rounds in a row show `active` not serving `epoch`; `None` when the observer has nothing recent.
fn failing_rounds(
    observation: &Observation,
    active: &str,
    epoch: u64,
    policy: &Policy,
    now_ms: u64,
) -> Option<u32> {
    let rounds = observation.rounds.get(active)?;
    let newest = rounds.last()?;
    if now_ms.saturating_sub(newest.at_ms) > policy.stale_after_ms {
        return None;
    }
    let run = rounds
        .iter()
        .rev()
        .take_while(|round| !matches!(round.look, Look::Serving { epoch: seen } if seen >= epoch))
        .count();
    u32::try_from(run).ok()
}

/// Who saw the standby fit (rule i), or why nobody did.
fn standby_fitness<'a>(
    record: &ControlRecord,
    observations: &'a [Observation],
    standby: &str,
    policy: &Policy,
    now_ms: u64,
) -> Result<&'a str, String> {
    let mut reason = format!("nobody has seen `{standby}` recently");
    // An observer inside the failed region may have seen the standby fit before it was cut off.
    let outside = observations
        .iter()
        .filter(|observation| observation.observer != record.active_region);
    for observation in outside {
        let Some(round) = observation.newest(standby) else {
            continue;
        };
        if now_ms.saturating_sub(round.at_ms) > policy.stale_after_ms {
            continue;
        }
        match &round.look {
            Look::Standby { health } => match fit_to_take_over(record, &health.database) {
                Ok(()) => return Ok(&observation.observer),
                Err(refused) => reason = format!("`{standby}`: {refused}"),
            },
            Look::Serving { epoch } => reason = format!("`{standby}` says that it serves epoch {epoch}"),
            Look::Failing { reason: why } => reason = format!("`{standby}` does not answer: {why}"),
        }
    }
    Err(reason)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observe::{Health, Round};
    use crate::takeover::LedgerStatus;

    const NOW: u64 = 1_000_000;
    const HOME: &str = "us-east-1";
    const DR: &str = "us-east-2";
    const WITNESS: &str = "us-west-2";

    fn failing() -> Look {
        Look::Failing {
            reason: "connection refused".into(),
        }
    }

    fn serving(epoch: u64) -> Look {
        Look::Serving { epoch }
    }

    fn standby(ledger_epoch: Option<u64>) -> Look {
        Look::Standby {
            health: Health {
                region: DR.into(),
                slot: "dr".into(),
                serving: false,
                epoch: Some(1),
                phase: Some("serving".into()),
                active_region: Some(HOME.into()),
                database: LedgerStatus {
                    reachable: true,
                    in_recovery: true,
                    ledger_epoch,
                },
                reasons: vec![],
            },
        }
    }

    fn seen_by(observer: &str, of_home: &[Look], of_dr: Look) -> Observation {
        let mut observation = Observation::new(observer);
        for (n, look) in of_home.iter().enumerate() {
            let at_ms = NOW - 1000 * (of_home.len() - n) as u64;
            observation.push(
                HOME,
                Round {
                    at_ms,
                    took_ms: 1,
                    look: look.clone(),
                },
            );
        }
        observation.push(
            DR,
            Round {
                at_ms: NOW - 1000,
                took_ms: 1,
                look: of_dr,
            },
        );
        observation
    }

    fn record() -> ControlRecord {
        ControlRecord::first(HOME, "test", 0)
    }

    #[test]
    fn verdicts_as_a_table() {
        let down = [serving(1), failing(), failing(), failing()];
        let flapping = [failing(), failing(), serving(1), failing()];
        let up = [serving(1), serving(1), serving(1)];
        let fit = || standby(Some(1));
        let policy = Policy::default();
        let stale = |mut observation: Observation| {
            for round in observation.rounds.values_mut().flatten() {
                round.at_ms -= policy.stale_after_ms + 2000;
            }
            observation
        };
        let both_down = || vec![seen_by(DR, &down, fit()), seen_by(WITNESS, &down, fit())];

        let rows: Vec<(&str, ControlRecord, Vec<Observation>, Policy, bool)> = vec![
            (
                "both outside observers saw three failing rounds",
                record(),
                both_down(),
                policy.clone(),
                true,
            ),
            (
                "the active region's own observer does not count",
                record(),
                vec![seen_by(HOME, &down, fit()), seen_by(DR, &down, fit())],
                policy.clone(),
                false,
            ),
            (
                "one observer is cut off from the active region",
                record(),
                vec![seen_by(DR, &down, fit()), seen_by(WITNESS, &up, fit())],
                policy.clone(),
                false,
            ),
            (
                "flapping: the last success is too recent",
                record(),
                vec![seen_by(DR, &flapping, fit()), seen_by(WITNESS, &flapping, fit())],
                policy.clone(),
                false,
            ),
            (
                "one observer is stale",
                record(),
                vec![seen_by(DR, &down, fit()), stale(seen_by(WITNESS, &down, fit()))],
                policy.clone(),
                false,
            ),
            (
                "only the failed region's own observer has seen the standby fit",
                record(),
                vec![
                    seen_by(HOME, &up, fit()),
                    seen_by(DR, &down, failing()),
                    seen_by(WITNESS, &down, failing()),
                ],
                policy.clone(),
                false,
            ),
            (
                "nobody has seen anything",
                record(),
                vec![],
                policy.clone(),
                false,
            ),
            (
                "all is well",
                record(),
                vec![seen_by(DR, &up, fit()), seen_by(WITNESS, &up, fit())],
                policy.clone(),
                false,
            ),
            (
                "rule (i): the standby's ledger is in an older epoch",
                ControlRecord {
                    epoch: 2,
                    last_served_epoch: 2,
                    ..record()
                },
                both_down(),
                policy.clone(),
                false,
            ),
            (
                "the standby does not answer",
                record(),
                vec![seen_by(DR, &down, failing()), seen_by(WITNESS, &down, failing())],
                policy.clone(),
                false,
            ),
            (
                "maintenance",
                ControlRecord {
                    maintenance: true,
                    ..record()
                },
                both_down(),
                policy.clone(),
                false,
            ),
            (
                "a recent change",
                ControlRecord {
                    since_ms: NOW - 1000,
                    ..record()
                },
                both_down(),
                policy.clone(),
                false,
            ),
            (
                "a takeover is under way",
                ControlRecord {
                    phase: Phase::Recovering,
                    ..record()
                },
                both_down(),
                Policy {
                    recovery_timeout_ms: NOW + 1,
                    ..policy.clone()
                },
                false,
            ),
            (
                "a takeover that never opened",
                ControlRecord {
                    phase: Phase::Recovering,
                    since_ms: 0,
                    ..record()
                },
                both_down(),
                policy.clone(),
                true,
            ),
            (
                "an answer from an older epoch is not serving",
                ControlRecord { epoch: 1, ..record() },
                vec![
                    seen_by(DR, &[serving(0), serving(0), serving(0)], fit()),
                    seen_by(WITNESS, &[serving(0), serving(0), serving(0)], fit()),
                ],
                policy.clone(),
                true,
            ),
            (
                "the policy says manual",
                record(),
                both_down(),
                Policy {
                    decider: Decider::Manual,
                    ..policy.clone()
                },
                false,
            ),
        ];
        for (row, record, observations, policy, expect) in rows {
            let verdict = assess(&record, &observations, &policy, &Regions::default(), NOW);
            match &verdict {
                Verdict::Failover {
                    to_region, reasons, ..
                } => {
                    assert!(expect, "{row}: {verdict:?}");
                    assert_eq!(to_region, DR, "{row}");
                    assert!(!reasons.is_empty(), "{row}");
                }
                Verdict::Hold { reasons } => {
                    assert!(!expect, "{row}: {verdict:?}");
                    assert!(!reasons.is_empty(), "{row}");
                }
                Verdict::Propose { .. } => panic!("{row}: {verdict:?}"),
            }
        }
    }

    #[test]
    fn approve_proposes_what_automatic_would_do() {
        let down = [failing(), failing(), failing()];
        let observations = vec![
            seen_by(DR, &down, standby(Some(1))),
            seen_by(WITNESS, &down, standby(Some(1))),
        ];
        let policy = Policy {
            decider: Decider::Approve,
            ..Policy::default()
        };
        let verdict = assess(&record(), &observations, &policy, &Regions::default(), NOW);
        assert!(
            matches!(verdict, Verdict::Propose { epoch: 1, .. }),
            "{verdict:?}"
        );
    }

    #[test]
    fn a_region_fails_when_nobody_outside_it_gets_an_answer() {
        let policy = Policy::default();
        let observation = |observer: &str, looks: &[Look], at_ms: u64| {
            let mut observation = Observation::new(observer);
            for look in looks {
                let look = look.clone();
                observation.push(
                    HOME,
                    Round {
                        at_ms,
                        took_ms: 1,
                        look,
                    },
                );
            }
            observation
        };
        let down = [failing(), failing(), failing()];
        let answers = [failing(), failing(), standby(Some(1))];
        let rows = [
            (vec![observation(DR, &down, NOW)], true, "one observer suffices"),
            (
                vec![observation(HOME, &down, NOW)],
                false,
                "its own observer says nothing",
            ),
            (vec![observation(DR, &down[..2], NOW)], false, "not often enough"),
            (vec![observation(DR, &down, 0)], false, "not recently"),
            (
                vec![observation(DR, &down, NOW), observation(WITNESS, &answers, NOW)],
                false,
                "another observer got an answer, if only that it is a standby",
            ),
            (vec![], false, "nobody looks"),
        ];
        for (observations, fails, row) in rows {
            let found = failing_region(HOME, &observations, &policy, NOW);
            assert_eq!(found.is_some(), fails, "{row}: {found:?}");
        }
    }
}
