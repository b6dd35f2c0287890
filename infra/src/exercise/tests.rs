use continuity::entry::{EntryId, EntryKind, EntryStatus};
use continuity::lost_tail::{Comparison, Held, TailEntry};
use continuity::observe::Round;
use serde_json::json;

use super::page::page;
use super::*;

const T0: u64 = 1_795_741_985_000;

fn step(step: &str, began_ms: u64, ended_ms: u64, note: &str) -> StepMark {
    StepMark {
        step: step.into(),
        region: "us-east-2".into(),
        began_ms: T0 + began_ms,
        ended_ms: T0 + ended_ms,
        note: note.into(),
    }
}

/// A failover of a busy stack: the fault is ten seconds after the beginning of the traffic.
pub(crate) fn sample() -> Evidence {
    let mut seconds = Vec::new();
    for second in 0..30 {
        let mut one = Second {
            second: T0 / 1_000 - 10 + second,
            ..Second::default()
        };
        match second {
            0..10 => drop(one.acknowledged.insert("us-east-1".into(), 38 + second * 7 % 9)),
            10..13 => one.failed = 6,
            13..15 => one.refused = 8,
            _ => drop(one.acknowledged.insert("us-east-2".into(), 34 + second * 5 % 11)),
        }
        seconds.push(one);
    }
    let mut health = Vec::new();
    for (observer, offset) in [("us-east-2", 0), ("us-west-2", 300)] {
        for second in 0..30 {
            let at_ms = T0 - 10_000 + second * 1_000 + offset;
            let mut see = |region: &str, state, reason: &str| {
                health.push(Seen {
                    observer: observer.into(),
                    region: region.into(),
                    at_ms,
                    state,
                    reason: reason.into(),
                });
            };
            if second < 10 {
                see("us-east-1", State::Serving, "");
            } else {
                see("us-east-1", State::Failing, "connection refused");
            }
            if second < 15 {
                see("us-east-2", State::Standby, "not active");
            } else {
                see("us-east-2", State::Serving, "");
            }
        }
    }
    let objectives = Objectives {
        rto_ms: 300_000,
        lost: 0,
    };
    Evidence {
        schema: SCHEMA.into(),
        id: "failover-dev-2".into(),
        kind: Kind::Failover,
        drill: None,
        scenario: "us-east-1 was judged failed in epoch 1. us-east-2 took over without asking it.".into(),
        stack: StackFacts {
            suffix: "dev".into(),
            account: "000000000000".into(),
            regions: Regions::default(),
            generation: Some(3),
            packages: [("payment-processor".to_owned(), "ab".repeat(32))].into(),
            program_version: "0.1.0".into(),
            aurora_engine_version: Some("16.6".into()),
        },
        started_by: "health-probe us-east-2".into(),
        reasons: vec!["us-east-2 and us-west-2 saw us-east-1 fail 3 times in a row".into()],
        from_region: "us-east-1".into(),
        to_region: "us-east-2".into(),
        epoch_before: 1,
        epoch_after: 2,
        decided_ms: Some(T0 + 3_100),
        began_ms: T0 - 120,
        ended_ms: T0 + 6_400,
        outcome: Outcome::Completed,
        outcome_reason: None,
        objectives,
        achieved: Achieved {
            rto_ms: Some(5_320),
            rto_how: "From the last entry of the old epoch in the ledger to the first of the new one.".into(),
            rpo_payments: Some(0),
            rpo_ms: Some(0),
            rpo_how: "Every entry of the journal is in the ledger.".into(),
            last_acknowledged_ms: Some(T0 - 120),
            first_acknowledged_ms: Some(T0 + 5_200),
        },
        missed: vec![],
        steps: vec![
            step("assess", 3_150, 3_240, "failover"),
            step("fence", 3_260, 3_320, "epoch 2"),
            step("promote", 3_340, 3_500, "called"),
            step("await-writer", 3_520, 4_610, "writer"),
            step("set-epoch", 4_630, 4_660, ""),
            step(
                "replay",
                4_680,
                4_910,
                "100 of 412 entries were missing and posted",
            ),
            step("verify", 4_930, 4_990, "balanced, 412 entries"),
            step("open", 5_010, 5_040, "epoch 2"),
            step(
                "await-traffic",
                5_060,
                6_400,
                "the public name answered after 1.3 s",
            ),
        ],
        traffic: Traffic {
            source: "From the client's side: synthetic payments.".into(),
            seconds,
        },
        health,
        payments: Payments {
            acknowledged: 966,
            replayed: Some(100),
            lost: Some(0),
            duplicated: Some(0),
            source: "The journal was replayed before the region opened, and the ledger verified.".into(),
        },
        readiness: Some(json!({"region": "us-east-2", "at_ms": T0, "findings": [
            {"check": "replication-lag", "severity": "critical", "state": "passed", "subject": "us-east-2", "reason": "12 ms"},
            {"check": "resources", "severity": "warning", "state": "failed", "subject": "the rest", "reason": "memory differs",
             "remedy": "run `understudy up`"}]})),
        gaps: vec![Gap {
            gap: "memory of the two payment-processors differs".into(),
            remedy: "run `understudy up`".into(),
        }],
        not_proven: not_proven(Kind::Failover, None, Outcome::Completed, true, true, true),
        lost_tail: Some(tail()),
        left_out: vec![],
    }
}

/// One entry of each outcome that a lost tail has.
fn tail() -> Report {
    let entry = |seq: u64, amount_minor| TailEntry {
        id: EntryId { epoch: 1, seq },
        posted_epoch: 1,
        idempotency_key: format!("order of Jane Doe {seq}"),
        kind: EntryKind::Payment,
        status: EntryStatus::Created,
        subject: format!("payment-{seq}"),
        debit_account: Some("payer".into()),
        credit_account: Some("payee".into()),
        amount_minor,
        currency: "EUR".into(),
        created_at_ms: T0 - 500 + seq,
    };
    let held = |epoch, seq, posted_epoch| Held {
        id: EntryId { epoch, seq },
        posted_epoch,
        subject: "payment-now".into(),
    };
    let mut comparison = Comparison::default();
    comparison.add(
        vec![entry(412, 400), entry(411, 500), entry(410, 1_000), entry(409, 9)],
        &[
            None,
            Some(held(2, 7, 2)),
            Some(held(1, 410, 2)),
            Some(held(1, 409, 1)),
        ],
    );
    Report {
        epoch: 2,
        from_region: "us-east-1".into(),
        to_region: "us-east-2".into(),
        snapshot: Some("lost-tail-primary-dev-2".into()),
        compared_ms: T0 + 900_000,
        complete: true,
        comparison,
    }
}

#[test]
fn the_page_of_a_failover_is_what_was_reviewed() {
    insta::assert_snapshot!(page(&sample()));
}

#[test]
fn the_document_can_be_read_back() {
    let json = serde_json::to_string(&sample()).unwrap();
    assert_eq!(serde_json::from_str::<Evidence>(&json).unwrap(), sample());
}

#[test]
fn no_text_becomes_markup_and_nothing_is_fetched() {
    let bad = "<script src=\"https://example.com/x.js\">alert('1') & more</script>";
    let mut evidence = sample();
    for text in [
        &mut evidence.id,
        &mut evidence.scenario,
        &mut evidence.started_by,
        &mut evidence.from_region,
        &mut evidence.to_region,
        &mut evidence.stack.suffix,
        &mut evidence.stack.account,
        &mut evidence.traffic.source,
        &mut evidence.payments.source,
        &mut evidence.achieved.rto_how,
        &mut evidence.achieved.rpo_how,
    ] {
        *text = bad.to_owned();
    }
    evidence.reasons = vec![bad.into()];
    evidence.missed = vec![bad.into()];
    evidence.outcome_reason = Some(bad.into());
    evidence.not_proven = vec![bad.into()];
    evidence.left_out = vec![bad.into()];
    evidence.stack.packages = [(bad.to_owned(), bad.to_owned())].into();
    for step in &mut evidence.steps {
        (step.step, step.region, step.note) = (bad.into(), bad.into(), bad.into());
    }
    for seen in &mut evidence.health {
        (seen.region, seen.observer, seen.reason) = (bad.into(), bad.into(), bad.into());
    }
    for gap in &mut evidence.gaps {
        (gap.gap, gap.remedy) = (bad.into(), bad.into());
    }
    let report = json!({"region": bad, "at_ms": T0, "findings": [
        {"check": bad, "severity": "warning", "state": "failed", "subject": bad, "reason": bad, "remedy": bad},
        {"check": bad, "severity": "warning", "state": "passed", "subject": bad, "reason": bad}]});
    for readiness in [json!({bad: [{bad: bad}, bad]}), report] {
        evidence.readiness = Some(readiness);
        let page = page(&evidence);
        assert!(!page.contains("<script"), "a text became markup");
        assert!(!page.contains("src=\""), "a text became an attribute");
        assert!(page.contains("&lt;script"));
        for fetches in ["<link", "<img", "@import", "url(http", "href=", "src="] {
            let from_text = page.matches(&fetches.replace('=', "=&quot;")).count();
            assert_eq!(page.matches(fetches).count(), from_text, "{fetches}");
        }
    }
}

#[test]
fn a_lost_tail_is_told_in_a_sentence() {
    let all = tail();
    let nothing = Report {
        comparison: Comparison {
            looked_at: 9,
            ..Comparison::default()
        },
        ..tail()
    };
    let no_snapshot = Report {
        snapshot: None,
        ..nothing.clone()
    };
    let broken_off = Report {
        complete: false,
        ..tail()
    };
    for (report, parts) in [
        (
            &all,
            &[
                "3 entries existed only in us-east-1",
                "1 recovered",
                "1 executed again",
                "1 gone",
            ][..],
        ),
        (&nothing, &["Nothing was lost", "9 of its newest entries"]),
        (&no_snapshot, &["Nothing was lost", "Aurora kept no data"]),
        (&broken_off, &["3 entries", "ran out of time"]),
    ] {
        let sentence = tail_sentence(report);
        for part in parts {
            assert!(sentence.contains(part), "{part}: {sentence}");
        }
    }
}

#[test]
fn a_page_says_what_only_the_old_region_had_or_where_that_will_be_told() {
    let told = page(&sample());
    for part in ["payment-412", "400 EUR", "executed again as payment-now"] {
        assert!(told.contains(part), "{part}");
    }
    assert!(!told.contains("payment-409") && !told.contains("Jane"));
    let early = Evidence {
        lost_tail: None,
        ..sample()
    };
    let text = page(&early);
    assert!(text.contains("Not known yet") && text.contains("understudy lost-tail 2"));
    let held = Evidence {
        outcome: Outcome::Held,
        ..early.clone()
    };
    assert!(page(&held).contains("nothing was taken over"));
    let planned = Evidence {
        kind: Kind::Switchover,
        ..early
    };
    assert!(!page(&planned).contains("What only"));
}

#[test]
fn nothing_seen_is_said_in_words() {
    let mut evidence = sample();
    evidence.steps.clear();
    evidence.traffic.seconds.clear();
    evidence.health.clear();
    evidence.readiness = None;
    evidence.gaps.clear();
    evidence.achieved = Achieved::default();
    evidence.payments = Payments::default();
    evidence.decided_ms = None;
    evidence.ended_ms = evidence.began_ms;
    let page = page(&evidence);
    for told in [
        "No step ran.",
        "No traffic was seen.",
        "No look of an observer falls into this time.",
        "No readiness report was stored.",
        "None were found.",
        "not measured",
        "not known",
    ] {
        assert!(page.contains(told), "{told}");
    }
    assert!(!page.contains("NaN") && !page.contains("inf\""));
}

#[test]
fn an_exercise_of_hours_has_no_more_bars_and_labels_than_a_short_one() {
    let mut evidence = sample();
    evidence.ended_ms = evidence.began_ms + 9 * 3_600_000;
    evidence.traffic.seconds = (0..9 * 3_600)
        .map(|second| Second {
            second: T0 / 1_000 + second,
            acknowledged: [("us-east-1".to_owned(), 20)].into(),
            ..Second::default()
        })
        .collect();
    evidence.health = (0..9 * 3_600)
        .map(|second| Seen {
            observer: "us-west-2".into(),
            region: "us-east-1".into(),
            at_ms: T0 + second * 1_000,
            state: State::Serving,
            reason: String::new(),
        })
        .collect();
    let page = page(&evidence);
    assert!(page.matches("class=\"home\"").count() <= 241);
    assert!(
        page.matches("class=\"serving\"").count() <= 3,
        "equal neighbours are one"
    );
    assert!(page.matches("style=\"left:").count() <= 3 * 8);
    assert!(page.contains("+2 h") && page.len() < 200_000, "{}", page.len());
}

#[test]
fn a_held_exercise_says_so_and_why() {
    let mut evidence = sample();
    evidence.outcome = Outcome::Held;
    evidence.outcome_reason = Some("maintenance is on".into());
    evidence.achieved.rto_ms = None;
    let page = page(&evidence);
    assert!(page.contains("Why held:") && page.contains("maintenance is on"));
    assert!(page.contains("nothing changed"));
}

#[test]
fn objectives_as_a_table() {
    let objectives = Objectives {
        rto_ms: 10_000,
        lost: 0,
    };
    let rows = [
        (Some(9_000), Some(0), Some(0), Outcome::Completed, ""),
        (Some(10_000), Some(0), Some(0), Outcome::Completed, ""),
        (
            Some(10_100),
            Some(0),
            Some(0),
            Outcome::Completed,
            "recovery took 10.1 s",
        ),
        (None, Some(0), Some(0), Outcome::Completed, ""),
        (
            None,
            Some(2),
            Some(0),
            Outcome::Completed,
            "2 acknowledged payments lost",
        ),
        (None, None, None, Outcome::Completed, "it is not known whether"),
        (None, None, None, Outcome::Held, ""),
        (
            Some(1),
            Some(0),
            Some(1),
            Outcome::Completed,
            "1 payments are in the ledger twice",
        ),
    ];
    for (rto_ms, lost, duplicated, outcome, expected) in rows {
        let achieved = Achieved {
            rto_ms,
            ..Achieved::default()
        };
        let payments = Payments {
            lost,
            duplicated,
            ..Payments::default()
        };
        let missed = missed(&objectives, &achieved, &payments, outcome);
        assert_eq!(
            missed.len(),
            usize::from(!expected.is_empty()),
            "{expected}: {missed:?}"
        );
        assert!(missed.iter().all(|text| text.starts_with(expected)), "{missed:?}");
    }
}

#[test]
fn what_counts_as_failed_as_a_table() {
    let rows = [
        (Kind::Failover, Outcome::Completed, 0, false),
        (Kind::Failover, Outcome::Completed, 1, true),
        (Kind::Failover, Outcome::Held, 0, false),
        (Kind::Drill, Outcome::Held, 0, true),
        (Kind::Switchover, Outcome::Aborted, 0, true),
        (Kind::Drill, Outcome::Failed, 0, true),
    ];
    for (kind, outcome, missed, failed) in rows {
        let evidence = Evidence {
            kind,
            outcome,
            missed: vec!["late".into(); missed],
            ..sample()
        };
        assert_eq!(evidence.is_failed(), failed, "{kind:?} {outcome:?} {missed}");
    }
}

#[test]
fn an_item_that_is_too_large_loses_its_series_and_says_so() {
    assert_eq!(
        serde_json::from_str::<Evidence>(&sample().for_item().unwrap()).unwrap(),
        sample()
    );
    let mut evidence = sample();
    let one = evidence.health[0].clone();
    evidence.health = vec![one; 5_000];
    let json = evidence.for_item().unwrap();
    let small: Evidence = serde_json::from_str(&json).unwrap();
    assert!(json.len() <= ITEM_LIMIT);
    assert_eq!(small.left_out, ["health"]);
    assert!(small.health.is_empty() && !small.traffic.seconds.is_empty());
}

#[test]
fn looks_outside_the_time_are_left_out() {
    let mut observation = Observation::new("us-west-2");
    for at_ms in [5, 10, 15, 20] {
        let look = Look::Failing {
            reason: "refused".into(),
            throttled: false,
        };
        observation.push(
            "us-east-1",
            Round {
                at_ms,
                took_ms: 1,
                look,
            },
        );
    }
    let seen = seen(&[observation], &["us-east-1", "us-east-2"], 10, 15);
    assert_eq!(seen.iter().map(|seen| seen.at_ms).collect::<Vec<_>>(), [10, 15]);
}

#[test]
fn moments_and_spans_read_well() {
    assert_eq!(utc(0), "1970-01-01 00:00:00.000");
    assert_eq!(utc(951_782_400_123), "2000-02-29 00:00:00.123");
    assert_eq!(utc(1_795_741_985_000), "2026-11-27 01:13:05.000");
    for (ms, text) in [
        (840, "840 ms"),
        (3_250, "3.2 s"),
        (300_000, "5 min"),
        (724_000, "12 min 4 s"),
        (86_400_000, "24 h"),
        (7_500_000, "2 h 5 min"),
    ] {
        assert_eq!(seconds(ms), text);
    }
}

#[test]
fn every_kind_names_what_it_does_not_prove() {
    for drill in [DrillKind::Readiness, DrillKind::Switchover, DrillKind::Isolation] {
        assert!(not_proven(Kind::Drill, Some(drill), Outcome::Completed, true, true, true).len() >= 3);
    }
    let switchover = not_proven(Kind::Switchover, None, Outcome::Completed, true, true, true);
    assert!(switchover[0].contains("isolated"), "{switchover:?}");
    let blind = not_proven(Kind::Failover, None, Outcome::Failed, true, false, false);
    assert_eq!(blind.len(), 6);
    for (kind, drill, says) in [
        (Kind::Failover, None, Some("A person decided it.")),
        (
            Kind::Drill,
            Some(DrillKind::Isolation),
            Some("The drill started the failover itself"),
        ),
        (Kind::Drill, Some(DrillKind::Switchover), None),
        (Kind::Switchover, None, None),
    ] {
        let of = |observers| not_proven(kind, drill, Outcome::Completed, observers, true, true);
        let mut claims = of(false);
        claims.retain(|claim| !of(true).contains(claim));
        assert_eq!(claims.len(), usize::from(says.is_some()), "{claims:?}");
        assert!(
            claims.iter().all(|claim| claim.contains(says.unwrap())),
            "{claims:?}"
        );
    }
}
