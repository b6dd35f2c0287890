//! Who takes over when, as tables and by trying everything.

use super::*;
use crate::observe::{Health, Known, Sighting};
use crate::takeover::LedgerStatus;

/// Thursday 1970-01-01 00:16:40 UTC.
const NOW: u64 = 1_000_000;
const HOME: &str = "us-east-1";
const DR: &str = "us-east-2";
const WITNESS: &str = "us-west-2";

fn failing() -> Look {
    Look::Failing {
        reason: "connection refused".into(),
        throttled: false,
    }
}

fn throttled() -> Look {
    Look::Failing {
        reason: "status 429".into(),
        throttled: true,
    }
}

fn serving(epoch: u64) -> Look {
    Look::Serving { epoch }
}

fn health(region: &str, ledger_epoch: Option<u64>) -> Health {
    Health {
        region: region.into(),
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
        reasons: vec!["it does not serve".into()],
    }
}

fn standby(ledger_epoch: Option<u64>) -> Look {
    Look::Standby {
        health: health(DR, ledger_epoch),
    }
}

/// A round a second; every look at the other region gave `of_dr`.
fn seen_by(observer: &str, of_home: &[Look], of_dr: Look) -> Observation {
    let mut observation = Observation::new(observer);
    for (n, look) in of_home.iter().enumerate() {
        let at_ms = NOW - 1000 * (of_home.len() - n) as u64;
        for (region, look) in [(HOME, look), (DR, &of_dr)] {
            let look = look.clone();
            observation.push(
                region,
                Round {
                    at_ms,
                    took_ms: 1,
                    look,
                },
            );
        }
    }
    observation
}

/// The standby's observer saw all of these change half a second ago.
fn sighted(mut observations: Vec<Observation>) -> Vec<Observation> {
    let sightings = observations.iter().map(|of| {
        let sighting = Sighting {
            newest_ms: of.at_ms,
            seen_ms: Some(NOW - 500),
            looked_ms: NOW - 500,
        };
        (of.observer.clone(), sighting)
    });
    let sightings = sightings.collect();
    if let Some(own) = observations.iter_mut().find(|own| own.observer == DR) {
        own.sightings = sightings;
    }
    observations
}

/// Both observers outside the home region saw the same.
fn both(of_home: &[Look]) -> Vec<Observation> {
    [DR, WITNESS]
        .map(|who| seen_by(who, of_home, standby(Some(1))))
        .to_vec()
}

fn taking(mut observations: Vec<Observation>, took_ms: u64, share: usize) -> Vec<Observation> {
    for observation in &mut observations {
        if let Some(rounds) = observation.rounds.get_mut(HOME) {
            let slow = rounds.len() * share / 100;
            for round in rounds.iter_mut().take(slow) {
                round.took_ms = took_ms;
            }
        }
    }
    observations
}

/// What is seen while one observer's clock is wrong.
fn skewed(mut observations: Vec<Observation>, who: &str, by_ms: i64) -> Vec<Observation> {
    let wrong = |ms: u64| ms.saturating_add_signed(by_ms);
    for observation in observations.iter_mut().filter(|seen| seen.observer == who) {
        observation.at_ms = wrong(observation.at_ms);
        for round in observation.rounds.values_mut().flatten() {
            round.at_ms = wrong(round.at_ms);
        }
    }
    observations
}

/// The standby's observer last saw that one change long ago.
fn dead_for_a_while(observations: Vec<Observation>, who: &str) -> Vec<Observation> {
    let mut observations = sighted(observations);
    for own in observations.iter_mut().filter(|own| own.observer == DR) {
        if let Some(sighting) = own.sightings.get_mut(who) {
            sighting.seen_ms = Some(NOW - Policy::default().stale_after_ms - 1);
        }
    }
    observations
}

/// A proposal stands that was made a second ago.
fn standing(observations: Vec<Observation>, epoch: u64, cause: Cause, ago_ms: u64) -> Vec<Observation> {
    let mut observations = sighted(observations);
    for own in observations.iter_mut().filter(|own| own.observer == DR) {
        let verdict = Verdict::Propose {
            epoch,
            to_region: DR.into(),
            cause,
            reasons: vec![],
        };
        own.assessment = Some(Assessed {
            at_ms: NOW - ago_ms,
            verdict,
        });
    }
    observations
}

/// Every observer knows the record, and has made this many rounds since.
fn knowing(mut observations: Vec<Observation>, record: &ControlRecord, rounds: usize) -> Vec<Observation> {
    for observation in &mut observations {
        observation.record = Some(Known {
            active_region: HOME.into(),
            epoch: record.epoch,
            since_ms: record.since_ms,
            seen_ms: None,
            looked_ms: NOW,
            rounds,
        });
    }
    observations
}

fn record() -> ControlRecord {
    ControlRecord::first(HOME, "test", 0)
}

fn alternating(rounds: usize) -> Vec<Look> {
    (0..rounds)
        .map(|n| if n % 2 == 0 { failing() } else { serving(1) })
        .collect()
}

enum Expect {
    /// With this in one of the reasons.
    Hold(&'static str),
    Failover(Cause),
    /// With this in one of the reasons.
    Propose(Cause, &'static str),
}
use Cause::{Dead, Grey as GreyCause};
use Expect::{Failover, Hold, Propose};

type Row = (&'static str, ControlRecord, Vec<Observation>, Policy, Expect);

fn check(rows: Vec<Row>) {
    for (row, record, observations, policy, expect) in rows {
        let observations = match observations.iter().find(|own| own.observer == DR) {
            Some(own) if own.sightings.is_empty() => sighted(observations),
            _ => observations,
        };
        let verdict = assess(&record, &observations, DR, &policy, &Regions::default(), NOW);
        let says = |text: &str| verdict.reasons().iter().any(|reason| reason.contains(text));
        assert!(!verdict.reasons().is_empty(), "{row}");
        match (&expect, &verdict) {
            (Hold(why), Verdict::Hold { .. }) => assert!(says(why), "{row}: {verdict:?}"),
            (
                Failover(expected),
                Verdict::Failover {
                    to_region,
                    cause,
                    epoch,
                    ..
                },
            ) => assert_eq!(
                (to_region.as_str(), cause, *epoch),
                (DR, expected, record.epoch),
                "{row}"
            ),
            (Propose(expected, why), Verdict::Propose { cause, .. }) => {
                assert_eq!(cause, expected, "{row}: {verdict:?}");
                assert!(says(why), "{row}: {verdict:?}");
            }
            _ => panic!("{row}: {verdict:?}"),
        }
    }
}

#[test]
fn verdicts_as_a_table() {
    let down = [serving(1), failing(), failing(), failing()];
    let up = [serving(1), serving(1), serving(1)];
    let fit = || standby(Some(1));
    let policy = Policy::default();
    let rows: Vec<Row> = vec![
        (
            "both outside observers saw three failing rounds",
            record(),
            both(&down),
            policy.clone(),
            Failover(Dead),
        ),
        (
            "the active region's own observer does not count",
            record(),
            vec![seen_by(HOME, &down, fit()), seen_by(DR, &down, fit())],
            policy.clone(),
            Hold("1 of 2 observers"),
        ),
        (
            "one blind observer: the standby's is cut off from the active region",
            record(),
            vec![seen_by(DR, &down, fit()), seen_by(WITNESS, &up, fit())],
            policy.clone(),
            Hold("us-west-2 saw `us-east-1` serve"),
        ),
        (
            "one blind observer: the witness is cut off from the active region",
            record(),
            vec![seen_by(DR, &up, fit()), seen_by(WITNESS, &down, fit())],
            policy.clone(),
            Hold("1 of 2 observers"),
        ),
        (
            "one blind observer: the witness is cut off from everything, the standby from the active region",
            record(),
            vec![seen_by(DR, &down, fit()), seen_by(WITNESS, &down, failing())],
            policy.clone(),
            Hold("it may be cut off itself"),
        ),
        (
            "one blind observer is enough where the policy asks for one",
            record(),
            vec![seen_by(DR, &down, fit()), seen_by(WITNESS, &down, failing())],
            Policy {
                observers: 1,
                ..policy.clone()
            },
            Failover(Dead),
        ),
        (
            "a blind standby: it sees neither region, the witness sees the active one serve",
            record(),
            vec![seen_by(DR, &down, failing()), seen_by(WITNESS, &up, fit())],
            policy.clone(),
            Hold("0 of 2 observers"),
        ),
        (
            "a blind standby does not count even when the witness agrees",
            record(),
            vec![seen_by(DR, &down, failing()), seen_by(WITNESS, &down, fit())],
            policy.clone(),
            Hold("us-east-2 gets no answer from either region"),
        ),
        (
            "flapping: the last success is too recent",
            record(),
            both(&[failing(), failing(), serving(1), failing()]),
            policy.clone(),
            Hold("0 of 2 observers"),
        ),
        (
            "flapping: it answers again after three failing rounds",
            record(),
            both(&[failing(), failing(), failing(), serving(1)]),
            policy.clone(),
            Hold("0 of 2 observers"),
        ),
        (
            "a dead witness",
            record(),
            dead_for_a_while(both(&down), WITNESS),
            policy.clone(),
            Hold("us-west-2 has seen nothing recent"),
        ),
        (
            "a dead witness while all is well",
            record(),
            dead_for_a_while(both(&up), WITNESS),
            policy.clone(),
            Hold("us-west-2 has seen nothing recent"),
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
            Hold("`us-east-2` does not answer"),
        ),
        (
            "nobody has seen anything",
            record(),
            vec![],
            policy.clone(),
            Hold("nobody has seen `us-east-2` recently"),
        ),
        (
            "all is well",
            record(),
            both(&up),
            policy.clone(),
            Hold("us-east-2 saw `us-east-1` serve"),
        ),
        (
            "it answers that it cannot write",
            record(),
            both(&vec![
                Look::Standby {
                    health: health(HOME, Some(1)),
                };
                3
            ]),
            policy.clone(),
            Failover(Dead),
        ),
        (
            "rule (i): the standby's ledger is in an older epoch",
            ControlRecord {
                epoch: 2,
                last_served_epoch: 2,
                ..record()
            },
            both(&down),
            policy.clone(),
            Hold("its ledger shows epoch 1"),
        ),
        (
            "the standby does not answer",
            record(),
            vec![seen_by(DR, &down, failing()), seen_by(WITNESS, &down, failing())],
            policy.clone(),
            Hold("`us-east-2` does not answer"),
        ),
        (
            "maintenance",
            ControlRecord {
                maintenance: true,
                ..record()
            },
            both(&down),
            policy.clone(),
            Hold("the stack is in maintenance"),
        ),
        (
            "cool-down",
            ControlRecord {
                since_ms: NOW - 1000,
                ..record()
            },
            both(&down),
            policy.clone(),
            Hold("opened 1000 ms ago, cool-down is 60000 ms"),
        ),
        (
            "a takeover is under way",
            ControlRecord {
                phase: Phase::Recovering,
                since_ms: NOW - 599_999,
                ..record()
            },
            both(&down),
            policy.clone(),
            Hold("is recovering since 599999 ms"),
        ),
        (
            "a takeover that never opened",
            ControlRecord {
                phase: Phase::Recovering,
                ..record()
            },
            both(&down),
            policy.clone(),
            Failover(Dead),
        ),
        (
            "an answer from an older epoch is not serving",
            record(),
            both(&[serving(0), serving(0), serving(0)]),
            policy.clone(),
            Failover(Dead),
        ),
        (
            "the policy says manual",
            record(),
            both(&down),
            Policy {
                decider: Decider::Manual,
                ..policy.clone()
            },
            Hold("the policy leaves failover to a person"),
        ),
        (
            "the policy says approve",
            record(),
            both(&down),
            Policy {
                decider: Decider::Approve,
                ..policy.clone()
            },
            Propose(Dead, "fail 3 rounds in a row: connection refused"),
        ),
        (
            "a blocked window",
            record(),
            both(&down),
            Policy {
                blocked_windows: windows(&["Sat:20:30-Sat:21:30", "Thu:00:00-Thu:01:00"]),
                ..policy.clone()
            },
            Propose(Dead, "in the blocked window Thu:00:00-Thu:01:00 a person decides"),
        ),
        (
            "a blocked window that is not open",
            record(),
            both(&down),
            Policy {
                blocked_windows: windows(&["Thu:00:17-Thu:00:16"]),
                ..policy.clone()
            },
            Failover(Dead),
        ),
        (
            "a blocked window lets nothing through that is not proposed otherwise",
            record(),
            both(&up),
            Policy {
                blocked_windows: windows(&["Thu:00:00-Thu:01:00"]),
                ..policy.clone()
            },
            Hold("0 of 2 observers"),
        ),
    ];
    check(rows);
}

fn windows(texts: &[&str]) -> Vec<Window> {
    texts.iter().filter_map(|text| text.parse().ok()).collect()
}

#[test]
fn every_reason_to_hold_is_told() {
    let record = ControlRecord {
        maintenance: true,
        since_ms: NOW,
        ..record()
    };
    let policy = Policy {
        decider: Decider::Manual,
        ..Policy::default()
    };
    let verdict = assess(
        &record,
        &sighted(both(&[serving(1)])),
        DR,
        &policy,
        &Regions::default(),
        NOW,
    );
    let Verdict::Hold { reasons } = verdict else {
        panic!("{verdict:?}")
    };
    let expected = [
        "the stack is in maintenance",
        "the policy leaves failover to a person",
        "`us-east-1` opened 0 ms ago, cool-down is 60000 ms",
        "us-east-2 saw `us-east-1` serve",
        "us-west-2 saw `us-east-1` serve",
        "0 of 2 observers needed agree that `us-east-1` fails",
    ];
    assert_eq!(reasons, expected);
}

#[test]
fn clocks_that_differ_by_a_minute_as_a_table() {
    let down = [serving(1), failing(), failing(), failing()];
    let up = [serving(1), serving(1), serving(1)];
    let policy = Policy::default();
    let mut rows: Vec<Row> = Vec::new();
    for by_ms in [-60_000, 60_000] {
        rows.extend([
            (
                "the witness's clock is wrong: the right failover happens",
                record(),
                skewed(both(&down), WITNESS, by_ms),
                policy.clone(),
                Failover(Dead),
            ),
            (
                "the standby's observer and the coordinator have other clocks: the right failover happens",
                record(),
                skewed(both(&down), DR, by_ms),
                policy.clone(),
                Failover(Dead),
            ),
            (
                "the witness's clock is wrong, and it is dead: no failover by what it saw once",
                record(),
                dead_for_a_while(skewed(both(&down), WITNESS, by_ms), WITNESS),
                policy.clone(),
                Hold("us-west-2 has seen nothing recent"),
            ),
            (
                "the witness's clock is wrong, and it sees the region serve",
                record(),
                skewed(
                    vec![
                        seen_by(DR, &down, standby(Some(1))),
                        seen_by(WITNESS, &up, standby(Some(1))),
                    ],
                    WITNESS,
                    by_ms,
                ),
                policy.clone(),
                Hold("1 of 2 observers"),
            ),
        ]);
    }
    // Who opened the region has a clock a minute behind: by it the cool-down were over. The assessor was there.
    let opened = ControlRecord {
        since_ms: NOW - 61_000,
        ..record()
    };
    let mut there = knowing(sighted(both(&down)), &opened, 3);
    for known in there.iter_mut().filter_map(|seen| seen.record.as_mut()) {
        known.seen_ms = Some(NOW - 1_000);
    }
    rows.push((
        "the cool-down is counted by the assessor's clock",
        opened.clone(),
        there,
        policy.clone(),
        Hold("opened 1000 ms ago"),
    ));
    let ahead = ControlRecord {
        since_ms: NOW,
        ..record()
    };
    let mut there = knowing(sighted(both(&down)), &ahead, 3);
    for known in there.iter_mut().filter_map(|seen| seen.record.as_mut()) {
        known.seen_ms = Some(NOW - 60_000);
    }
    rows.push((
        "and a clock that is ahead does not make it longer",
        ahead,
        there,
        policy,
        Failover(Dead),
    ));
    check(rows);
}

#[test]
fn an_observation_that_was_there_at_the_first_look_says_nothing() {
    let mut observations = both(&[failing(), failing(), failing()]);
    let all = observations.clone();
    observations[0].sight(&all, 45_000, NOW);
    let verdict =
        |seen: &[Observation]| assess(&record(), seen, DR, &Policy::default(), &Regions::default(), NOW);
    assert_eq!(verdict(&observations).kind(), "hold");
    for observation in &mut observations {
        observation.push(
            HOME,
            Round {
                at_ms: observation.at_ms + 1,
                took_ms: 1,
                look: failing(),
            },
        );
    }
    assert_eq!(verdict(&observations).kind(), "failover");
}

#[test]
fn grey_failures_as_a_table() {
    let up = |rounds| vec![serving(1); rounds];
    let policy = Policy::default();
    let with = |decider: Decider, grey: Decider| Policy {
        decider,
        grey: Grey {
            decider: grey,
            ..Grey::default()
        },
        ..Policy::default()
    };
    let mut mixed = both(&[failing(), failing(), failing()]);
    mixed[1] = seen_by(WITNESS, &alternating(20), standby(Some(1)));
    let few: Vec<Look> = (0..20)
        .map(|n| if n % 3 == 0 { failing() } else { serving(1) })
        .collect();
    let rows: Vec<Row> = vec![
        (
            "grey by failures: every other round failed",
            record(),
            both(&alternating(20)),
            policy.clone(),
            Propose(GreyCause, "fail in 10 of 20 rounds"),
        ),
        (
            "a third of the rounds failed: not enough",
            record(),
            both(&few),
            policy.clone(),
            Hold("0 of 2 observers"),
        ),
        (
            "an API that takes no more requests is no dead region",
            record(),
            both(&vec![throttled(); 19]),
            policy.clone(),
            Hold("status 429"),
        ),
        (
            "but one that goes on so is a grey failure",
            record(),
            both(&vec![throttled(); 20]),
            policy.clone(),
            Propose(GreyCause, "fail in 20 of 20 rounds"),
        ),
        (
            "a region that dies after it was overrun is dead",
            record(),
            both(&[throttled(), failing(), failing(), failing()]),
            policy.clone(),
            Failover(Dead),
        ),
        (
            "too few rounds to judge",
            record(),
            both(&alternating(19)),
            policy.clone(),
            Hold("0 of 2 observers"),
        ),
        (
            "grey by slowness",
            record(),
            taking(both(&up(20)), 1_501, 80),
            policy.clone(),
            Propose(GreyCause, "take longer than 1500 ms in 16 of 20 rounds"),
        ),
        (
            "a slow but healthy region: slow looks, under the threshold",
            record(),
            taking(both(&up(20)), 1_500, 100),
            policy.clone(),
            Hold("us-west-2 saw `us-east-1` serve"),
        ),
        (
            "a slow but healthy region: too slow, in three of four rounds",
            record(),
            taking(both(&up(20)), 1_900, 75),
            policy.clone(),
            Hold("us-west-2 saw `us-east-1` serve"),
        ),
        (
            "only one observer finds it slow",
            record(),
            {
                let mut seen = taking(both(&up(20)), 1_900, 100);
                seen[1] = seen_by(WITNESS, &up(20), standby(Some(1)));
                seen
            },
            policy.clone(),
            Hold("1 of 2 observers"),
        ),
        (
            "one observer finds it dead, the other grey",
            record(),
            mixed,
            policy.clone(),
            Propose(GreyCause, "fail in 10 of 20 rounds"),
        ),
        (
            "who wants it gets a grey failure decided by the assessment",
            record(),
            both(&alternating(20)),
            with(Decider::Automatic, Decider::Automatic),
            Failover(GreyCause),
        ),
        (
            "the stricter of two deciders applies",
            record(),
            both(&alternating(20)),
            with(Decider::Approve, Decider::Automatic),
            Propose(GreyCause, "fail in 10 of 20 rounds"),
        ),
        (
            "grey failures are left to a person",
            record(),
            both(&alternating(20)),
            with(Decider::Automatic, Decider::Manual),
            Hold("the policy leaves a grey failure to a person"),
        ),
        (
            "a region that is dead is dead, whoever decides on grey",
            record(),
            both(&vec![failing(); 20]),
            with(Decider::Automatic, Decider::Manual),
            Failover(Dead),
        ),
        (
            "the rounds before it opened do not count",
            record(),
            knowing(both(&alternating(20)), &record(), 6),
            policy,
            Hold("0 of 2 observers"),
        ),
    ];
    check(rows);
}

#[test]
fn draining_regions_as_a_table() {
    let draining = ControlRecord {
        phase: Phase::Draining,
        since_ms: NOW - 10,
        ..record()
    };
    let policy = Policy::default();
    let answers = |change: fn(&mut Health)| {
        let mut health = health(HOME, Some(1));
        change(&mut health);
        both(&vec![Look::Standby { health }; 4])
    };
    let other_phase = ControlRecord {
        since_ms: 0,
        ..record()
    };
    let rows: Vec<Row> = vec![
        (
            "it refuses commands, as it should",
            draining.clone(),
            answers(|_| {}),
            policy.clone(),
            Hold("saw `us-east-1` answer"),
        ),
        (
            "its database has become the standby already",
            draining.clone(),
            answers(|health| health.database.in_recovery = true),
            policy.clone(),
            Hold("saw `us-east-1` answer"),
        ),
        (
            "it does not answer: at once, without cool-down or recovery time",
            draining.clone(),
            both(&vec![failing(); 3]),
            policy.clone(),
            Failover(Dead),
        ),
        (
            "its database is gone",
            draining.clone(),
            answers(|health| health.database.reachable = false),
            policy.clone(),
            Failover(Dead),
        ),
        (
            "it is cut off from the control table",
            draining.clone(),
            answers(|health| health.epoch = None),
            policy.clone(),
            Failover(Dead),
        ),
        (
            "one observer gets no answer",
            draining.clone(),
            {
                let mut seen = answers(|_| {});
                seen[0] = seen_by(DR, &[failing(), failing(), failing()], standby(Some(1)));
                seen
            },
            policy.clone(),
            Hold("1 of 2 observers"),
        ),
        (
            "no answer for a part of the rounds is not judged as grey",
            draining.clone(),
            both(&alternating(20)),
            policy.clone(),
            Hold("0 of 2 observers"),
        ),
        (
            "the rounds from before it was drained do not count",
            draining.clone(),
            knowing(both(&vec![failing(); 20]), &other_phase, 20),
            policy.clone(),
            Hold("has not looked at `us-east-1` since it changed"),
        ),
        (
            "maintenance holds here too",
            ControlRecord {
                maintenance: true,
                ..draining
            },
            both(&vec![failing(); 3]),
            policy,
            Hold("the stack is in maintenance"),
        ),
    ];
    check(rows);
}

#[test]
fn a_proposal_stands_until_the_region_has_recovered_as_a_table() {
    let down = [failing(), failing(), failing()];
    let back = |served: usize| [down.to_vec(), vec![serving(1); served]].concat();
    let approve = Policy {
        decider: Decider::Approve,
        ..Policy::default()
    };
    let second = 1_000;
    let rows: Vec<Row> = vec![
        (
            "it served twice since",
            record(),
            standing(both(&back(2)), 1, Dead, second),
            approve.clone(),
            Propose(
                Dead,
                "serve 2 rounds in a row after its failure, 3 end the proposal",
            ),
        ),
        (
            "it served three times since",
            record(),
            standing(both(&back(3)), 1, Dead, second),
            approve.clone(),
            Hold("0 of 2 observers"),
        ),
        (
            "without a proposal, nothing stands",
            record(),
            both(&back(2)),
            approve.clone(),
            Hold("0 of 2 observers"),
        ),
        (
            "one observer saw it recover: the quorum is gone",
            record(),
            {
                let mut seen = both(&back(2));
                seen[1] = seen_by(WITNESS, &back(3), standby(Some(1)));
                standing(seen, 1, Dead, second)
            },
            approve.clone(),
            Hold("1 of 2 observers"),
        ),
        (
            "a proposal of an earlier epoch does not stand",
            ControlRecord { epoch: 2, ..record() },
            standing(both(&[serving(2), failing(), failing()]), 1, Dead, second),
            approve.clone(),
            Hold("0 of 2 observers"),
        ),
        (
            "a proposal of long ago does not stand",
            record(),
            standing(both(&back(2)), 1, Dead, 45_001),
            approve.clone(),
            Hold("0 of 2 observers"),
        ),
        (
            "after the blocked window a standing proposal is not carried out unasked",
            record(),
            standing(both(&back(2)), 1, Dead, second),
            Policy::default(),
            Propose(Dead, "a person decides"),
        ),
        (
            "but a failure of this moment is",
            record(),
            standing(both(&down), 1, Dead, second),
            Policy::default(),
            Failover(Dead),
        ),
        (
            "of a grey failure: slow rounds are no recovery",
            record(),
            standing(
                taking(both(&vec![serving(1); 4]), 1_900, 100),
                1,
                GreyCause,
                second,
            ),
            Policy::default(),
            Propose(GreyCause, "serve 0 rounds in a row"),
        ),
        (
            "of a grey failure: quick ones are",
            record(),
            standing(both(&vec![serving(1); 4]), 1, GreyCause, second),
            Policy::default(),
            Hold("0 of 2 observers"),
        ),
    ];
    check(rows);
}

/// Rounds of both observers and an assessment after each; the verdicts.
fn verdicts_of(looks: impl IntoIterator<Item = Look>, policy: &Policy) -> Vec<Verdict> {
    let mut all = [DR, WITNESS].map(Observation::new);
    let mut verdicts = Vec::new();
    for (n, look) in looks.into_iter().enumerate() {
        let now_ms = NOW + 1000 * n as u64;
        for observation in &mut all {
            for (region, look) in [(HOME, look.clone()), (DR, standby(Some(1)))] {
                observation.push(
                    region,
                    Round {
                        at_ms: now_ms,
                        took_ms: 1,
                        look,
                    },
                );
            }
        }
        let others = all.clone();
        all[0].sight(&others, policy.stale_after_ms, now_ms);
        let verdict = assess(&record(), &all, DR, policy, &Regions::default(), now_ms);
        all[0].keep_verdict(verdict.clone(), now_ms);
        verdicts.push(verdict);
    }
    verdicts
}

#[test]
fn a_region_that_flaps_is_never_failed_over_unasked_and_its_proposal_does_not_flap() {
    for (down, up) in [(1, 1), (2, 1), (2, 2), (1, 2), (1, 5)] {
        let flapping = (0..300).map(|n| {
            if n % (down + up) < down {
                failing()
            } else {
                serving(1)
            }
        });
        let verdicts = verdicts_of(flapping, &Policy::default());
        let kinds: Vec<&str> = verdicts.iter().map(Verdict::kind).collect();
        let changes = kinds.windows(2).filter(|pair| pair[0] != pair[1]).count();
        let proposes = down >= up;
        assert!(!kinds.contains(&"failover"), "{down} down, {up} up");
        assert_eq!(changes, usize::from(proposes), "{down} down, {up} up: {kinds:?}");
    }
}

#[test]
fn a_proposal_comes_and_goes_once_with_an_outage_that_ends_in_flapping() {
    let approve = Policy {
        decider: Decider::Approve,
        ..Policy::default()
    };
    let outage = [
        vec![serving(1); 30],
        vec![failing(); 4],
        [
            serving(1),
            serving(1),
            failing(),
            serving(1),
            serving(1),
            failing(),
        ]
        .to_vec(),
        vec![serving(1); 10],
    ]
    .concat();
    let verdicts = verdicts_of(outage, &approve);
    let proposed = verdicts
        .iter()
        .filter(|verdict| verdict.kind() == "propose")
        .count();
    let changes = verdicts
        .windows(2)
        .filter(|pair| !pair[0].says_the_same(&pair[1]))
        .count();
    // From the third failing round to the second serving one of the end.
    assert_eq!((proposed, changes), (2 + 6 + 2, 2), "{verdicts:?}");
}

#[test]
fn one_observer_alone_moves_nothing_whatever_it_says() {
    let refuses = Look::Standby {
        health: health(HOME, Some(1)),
    };
    let looks = [serving(1), serving(0), failing(), refuses];
    let of_dr = [standby(Some(1)), standby(None), failing(), serving(1)];
    let policy = Policy {
        rounds_to_fail: 2,
        grey: Grey {
            decider: Decider::Automatic,
            window_rounds: 4,
            failing_percent: 25,
            ..Grey::default()
        },
        cooldown_ms: 0,
        ..Policy::default()
    };
    let mut tried = 0;
    for phase in [Phase::Serving, Phase::Draining] {
        let record = ControlRecord { phase, ..record() };
        for (liar, honest) in [(DR, WITNESS), (WITNESS, DR)] {
            for (number, of_dr) in (0..looks.len().pow(4)).flat_map(|n| of_dr.iter().map(move |d| (n, d))) {
                let said: Vec<Look> = (0..4)
                    .map(|digit| looks[number / looks.len().pow(digit) % looks.len()].clone())
                    .collect();
                let seen = sighted(vec![
                    seen_by(liar, &said, of_dr.clone()),
                    seen_by(honest, &vec![serving(1); 4], standby(Some(1))),
                ]);
                let verdict = assess(&record, &seen, DR, &policy, &Regions::default(), NOW);
                assert_eq!(verdict.kind(), "hold", "{liar} says {said:?}: {verdict:?}");
                tried += 1;
            }
        }
    }
    assert_eq!(tried, 2 * 2 * 256 * 4);
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
