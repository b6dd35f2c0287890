#![allow(clippy::unwrap_used)]
use continuity::control::ControlRecord;
use serde_json::json;

use super::*;

const HOME: &str = "us-east-1";
const STANDBY: &str = "us-east-2";

#[test]
fn where_and_when_a_drill_begins_as_a_table() {
    let serving = ControlRecord::first(HOME, "deploy", 0);
    let draining = ControlRecord {
        phase: Phase::Draining,
        ..serving.clone()
    };
    let maintained = ControlRecord {
        maintenance: true,
        ..serving.clone()
    };
    let frozen = ControlRecord {
        repair_frozen: true,
        ..serving.clone()
    };
    let regions = Regions::default();
    let signs = |record| Signs {
        record,
        regions: &regions,
        me: STANDBY,
        change: None,
        drill: None,
        blocked: None,
    };
    let now = Begin::Now {
        home: HOME.into(),
        epoch: 1,
    };
    let not_now = |why: &str| Begin::NotNow(vec![why.to_owned()]);
    let good = signs(Some(&serving));
    let rows = [
        ("a standby of a stack that serves", good, now),
        ("nothing deployed", signs(None), Begin::NotHere),
        ("the active region", Signs { me: HOME, ..good }, Begin::NotHere),
        (
            "the witness",
            Signs {
                me: "us-west-2",
                ..good
            },
            Begin::NotHere,
        ),
        (
            "it drains",
            signs(Some(&draining)),
            not_now("`us-east-1` is draining, not serving"),
        ),
        (
            "maintenance",
            signs(Some(&maintained)),
            not_now("the stack is in maintenance"),
        ),
        (
            "repair is frozen",
            signs(Some(&frozen)),
            not_now("repair is frozen since `deploy`"),
        ),
        (
            "a blocked window",
            Signs {
                blocked: Some("mon 08:00-10:00"),
                ..good
            },
            not_now("the window mon 08:00-10:00 is blocked (`drill.blocked_windows`)"),
        ),
        (
            "a deployment",
            Signs {
                change: Some("deploy-dev-1"),
                ..good
            },
            not_now("`deploy-dev-1` is changing the stack"),
        ),
        (
            "another drill",
            Signs {
                drill: Some("drill-dev-1"),
                ..good
            },
            not_now("`drill-dev-1` is running"),
        ),
    ];
    for (case, signs, wanted) in rows {
        assert_eq!(may_begin(&signs), wanted, "{case}");
    }
    let two = Signs {
        drill: Some("drill-dev-1"),
        ..signs(Some(&maintained))
    };
    let Begin::NotNow(reasons) = may_begin(&two) else {
        panic!("it begins")
    };
    assert_eq!(reasons.len(), 2, "every reason is told: {reasons:?}");
}

/// A slice whose payments were sent each second and took so long; `None` was never answered. More than a second took several attempts.
fn slice(began_ms: u64, took_ms: &[Option<u64>]) -> Slice {
    let payment = |(number, took): (usize, &Option<u64>)| {
        let sent_ms = began_ms + number as u64 * 1_000;
        Payment {
            key: format!("{began_ms}-{number}"),
            sent_ms,
            answered_ms: took.map(|took| sent_ms + took),
            id: None,
            epoch: Some(1),
            attempts: if took.is_some_and(|took| took <= 1_000) {
                1
            } else {
                3
            },
            refused: None,
        }
    };
    Slice {
        slice: 0,
        began_ms,
        ended_ms: began_ms + 10_000,
        accounts: None,
        payments: took_ms.iter().enumerate().map(payment).collect(),
        seconds: Vec::new(),
    }
}

#[test]
fn the_longest_time_without_an_acknowledgement_as_a_table() {
    let fast = [Some(100); 4];
    let rows: [(&str, Vec<Slice>, (u64, u64)); 7] = [
        ("no payment at all", vec![], (0, 0)),
        ("one answer is no gap", vec![slice(0, &[Some(100)])], (0, 0)),
        ("a second between two", vec![slice(0, &fast)], (100, 1_100)),
        (
            "a payment that took long",
            vec![slice(0, &[Some(100), Some(4_000), Some(3_000), Some(2_500)])],
            (100, 5_000),
        ),
        (
            "nobody pays between two slices",
            vec![slice(0, &fast), slice(20_000, &fast)],
            (100, 1_100),
        ),
        (
            "trouble goes on into the next slice",
            vec![
                slice(0, &[Some(100), None]),
                slice(10_000, &[Some(2_000), Some(1_100)]),
            ],
            (100, 12_000),
        ),
        (
            "nothing is answered any more",
            vec![slice(0, &[Some(100), None, None])],
            (100, 10_000),
        ),
    ];
    for (case, slices, (from_ms, to_ms)) in rows {
        assert_eq!(longest_gap(&slices), Gap { from_ms, to_ms }, "{case}");
    }
}

#[test]
fn a_slice_says_how_payments_went_and_whether_they_flow() {
    let seen = recent(&slice(
        5,
        &[Some(100), Some(300), None, Some(200), Some(200), Some(100)],
    ));
    let wanted = Recent {
        began_ms: 5,
        sent: 6,
        acknowledged: 5,
        p95_ms: 300,
        flowing: true,
    };
    assert_eq!(seen, wanted);
    assert!(
        !recent(&slice(0, &[Some(100), Some(100), Some(1_500)])).flowing,
        "at the second attempt"
    );
    assert!(!recent(&slice(0, &[Some(100), None])).flowing);
    assert_eq!(recent(&slice(0, &[])), Recent::default());
}

#[test]
fn a_region_is_left_when_its_payments_fail_or_are_slow() {
    let recent = |began_ms, acknowledged, p95_ms| Recent {
        began_ms,
        sent: 100,
        acknowledged,
        p95_ms,
        flowing: true,
    };
    for (case, recent, why) in [
        ("well", recent(10, 100, 100), None),
        ("just well enough", recent(10, 95, SLOW_MS), None),
        ("payments fail", recent(10, 94, 100), Some("94 % of the payments")),
        (
            "payments are slow",
            recent(10, 100, SLOW_MS + 1),
            Some("payments took 2001 ms"),
        ),
        ("a slice of before the change", recent(9, 0, 0), None),
        (
            "nobody paid",
            Recent {
                sent: 0,
                ..recent(10, 0, 0)
            },
            None,
        ),
    ] {
        let found = unfit(&recent, 10);
        assert_eq!(found.is_some(), why.is_some(), "{case}: {found:?}");
        assert!(
            found.unwrap_or_default().contains(why.unwrap_or_default()),
            "{case}"
        );
    }
}

#[test]
fn every_objective_that_was_missed_is_told() {
    let over = Drill {
        id: "drill-dev-1".into(),
        kind: DrillKind::Switchover,
        execution: String::new(),
        started_by: "schedule".into(),
        home: HOME.into(),
        target: STANDBY.into(),
        epoch: 1,
        hold_ms: 1,
        per_second: 5,
        longest_gap_ms: 3_000,
        began_ms: 0,
        stage: Stage::Over,
        stage_ms: 0,
        marks: Vec::new(),
        change: None,
        observers_decide: false,
        isolated_ms: None,
        restored_ms: None,
        attempts_back: 0,
        aborted: None,
        ended_ms: None,
    };
    let broke_off = Drill {
        stage: Stage::Back,
        ..over.clone()
    };
    let good = json!({"lost": 0, "different": 0, "duplicated": 0});
    let gap = |to_ms| Gap { from_ms: 0, to_ms };
    let rows = [
        ("all met", over.clone(), gap(3_000), 9, Some(good.clone()), ""),
        (
            "a gap",
            over.clone(),
            gap(3_001),
            9,
            Some(good.clone()),
            "no payment was acknowledged for 3001 ms; the objective is 3000 ms",
        ),
        (
            "nothing",
            over.clone(),
            gap(0),
            0,
            Some(good.clone()),
            "no payment was acknowledged",
        ),
        (
            "not looked up",
            over.clone(),
            gap(0),
            9,
            None,
            "the acknowledged payments could not be looked up",
        ),
        (
            "lost",
            over.clone(),
            gap(0),
            9,
            Some(json!({"lost": 2, "different": 0, "duplicated": 0})),
            "2 acknowledged payments are lost",
        ),
        (
            "twice",
            over.clone(),
            gap(0),
            9,
            Some(json!({"lost": 0, "different": 0, "duplicated": 1})),
            "1 acknowledged payments are there twice",
        ),
        (
            "aborted",
            over.aborted("it was slow"),
            gap(0),
            9,
            Some(good.clone()),
            "it was slow",
        ),
        (
            "broke off",
            broke_off,
            gap(0),
            9,
            Some(good),
            "the exercise did not come to its end",
        ),
    ];
    for (case, drill, gap, acknowledged, checked, wanted) in rows {
        let missed = missed(&drill, &gap, acknowledged, checked.as_ref());
        assert_eq!(missed.join("; "), wanted, "{case}");
    }
}
