use continuity::observe::{Look, Round};
use serde_json::json;

use super::*;
use crate::effects::processor::Executed;

const T: u64 = 1_795_741_985_000;

fn state() -> Value {
    json!({
        "epoch": 1, "to_region": "us-east-2", "started_by": "health-probe", "reasons": ["seen"], "decided_ms": T,
        "assess": {"verdict": "failover", "reasons": ["still"], "began_ms": T + 10, "ended_ms": T + 14},
        "replay": {"replayed": {"scanned": 9, "posted": 7, "conflicts": []}, "began_ms": T + 20, "ended_ms": T + 50},
        "verify": {"recovered": 7, "accounts": 2, "began_ms": T + 51, "ended_ms": T + 54},
        "open": {"epoch": 2, "opened_ms": T + 60, "began_ms": T + 55, "ended_ms": T + 61},
        "audit": {"balanced": true, "entries": 9, "accounts": 2, "began_ms": T + 70, "ended_ms": T + 72},
    })
}

fn kept() -> Traffic {
    let executed = |second, epoch| Executed {
        second: T / 1_000 + second,
        epoch,
        entries: 4,
    };
    Traffic {
        executed: vec![executed(0, 1), executed(0, 2), executed(1, 2)],
        last_before_ms: Some(T - 4_000),
        first_in_ms: Some(T + 100),
        complete: true,
    }
}

fn evidence_of(input: &Value, traffic: Result<Traffic, String>, observations: Vec<Observation>) -> Evidence {
    let event = json!({"step": "record", "execution": "failover-dev-2-3",
        "execution_arn": "arn:aws:states:us-east-2:000000000000:execution:failover-dr-dev:failover-dev-2-3", "input": input});
    let request = Request::parse(&event, 0).unwrap();
    let input = request.takeover("us-east-2").unwrap();
    let regions = Regions::default();
    evidence(&Facts {
        request: &request,
        input: &input,
        regions: &regions,
        suffix: "dev",
        stored: None,
        observations,
        readiness: None,
        traffic,
    })
}

#[test]
fn evidence_tells_each_step_with_its_time_and_leaves_out_what_did_not_happen() {
    let evidence = evidence_of(&state(), Ok(kept()), vec![]);
    assert_eq!(evidence.id, "failover-dev-2", "attempts are one exercise");
    assert_eq!((evidence.epoch_before, evidence.epoch_after), (1, 2));
    assert_eq!(evidence.outcome, Outcome::Completed);
    assert_eq!(evidence.stack.account, "000000000000");
    let steps: Vec<_> = evidence
        .steps
        .iter()
        .map(|step| (step.step.as_str(), step.ended_ms - step.began_ms))
        .collect();
    assert_eq!(
        steps,
        [
            ("assess", 4),
            ("replay", 30),
            ("verify", 3),
            ("open", 6),
            ("audit", 2)
        ]
    );
    assert_eq!(evidence.payments.replayed, Some(7));
    assert_eq!(
        (evidence.payments.lost, evidence.payments.duplicated),
        (Some(0), Some(0))
    );
}

#[test]
fn recovery_is_measured_from_command_to_command_and_traffic_is_told_by_region() {
    let evidence = evidence_of(&state(), Ok(kept()), vec![]);
    assert_eq!(evidence.achieved.rto_ms, Some(4_100));
    assert_eq!(evidence.began_ms, T - 4_000);
    let regions: Vec<_> = evidence
        .traffic
        .seconds
        .iter()
        .map(|one| one.acknowledged.len())
        .collect();
    assert_eq!(regions, [2, 1]);
    assert_eq!(evidence.traffic.seconds[1].acknowledged["us-east-2"], 4);
    assert!(!evidence.is_failed());
}

#[test]
fn without_commands_the_observers_tell_the_recovery_time() {
    let mut observation = Observation::new("us-west-2");
    for (before_ms, look) in [
        (3_000, Look::Serving { epoch: 1 }),
        (
            2_000,
            Look::Failing {
                reason: "refused".into(),
                throttled: false,
            },
        ),
    ] {
        let at_ms = T - before_ms;
        observation.push(
            "us-east-1",
            Round {
                at_ms,
                took_ms: 1,
                look,
            },
        );
    }
    let rows = [
        (
            "none after",
            Traffic {
                first_in_ms: None,
                ..kept()
            },
        ),
        (
            "none before",
            Traffic {
                last_before_ms: None,
                ..kept()
            },
        ),
        (
            "none for long",
            Traffic {
                last_before_ms: Some(T - 600_000),
                ..kept()
            },
        ),
    ];
    for (row, traffic) in rows {
        let evidence = evidence_of(&state(), Ok(traffic), vec![observation.clone()]);
        assert_eq!(evidence.achieved.rto_ms, Some(3_060), "{row}");
        assert!(evidence.achieved.rto_how.contains("observer"), "{row}");
    }
    let unseen = evidence_of(&state(), Err("no answer".into()), vec![]);
    assert_eq!(unseen.achieved.rto_ms, None);
    let gaps: Vec<_> = unseen.gaps.iter().map(|gap| gap.gap.as_str()).collect();
    assert!(gaps.iter().any(|gap| gap.contains("no answer")), "{gaps:?}");
}

#[test]
fn evidence_says_from_where_the_journal_was_read() {
    let told = |state: &Value| {
        let evidence = evidence_of(state, Ok(kept()), vec![]);
        let replay = evidence.steps.iter().find(|step| step.step == "replay").unwrap();
        (replay.note.clone(), evidence.achieved.rpo_how)
    };
    let (note, how) = told(&state());
    assert_eq!(
        note,
        "9 entries of the journal, 7 of them were missing and posted"
    );
    assert!(how.contains("the journal was read, 9 entries. What"), "{how}");
    let mut settled = state();
    settled["replay"]["replayed"]["settled"] = json!({"epoch": 1, "seq": 22});
    let (note, how) = told(&settled);
    assert_eq!(
        note,
        "9 entries of the journal behind 1/22, 7 of them were missing and posted"
    );
    let behind =
        "the journal was read, 9 entries behind 1/22, up to which the ledger had all of epoch 1. What";
    assert!(how.contains(behind), "{how}");
    settled["replay"]["replayed"]["settled"] = json!({"epoch": 1, "seq": 0});
    assert_eq!(told(&settled), told(&state()), "nothing was left out");
}

#[test]
fn a_late_recovery_and_an_unclear_replay_count_as_failed() {
    let late = Traffic {
        first_in_ms: Some(T + 400_000),
        ..kept()
    };
    let late = evidence_of(&state(), Ok(late), vec![]);
    assert!(
        late.is_failed() && late.missed[0].starts_with("recovery took"),
        "{:?}",
        late.missed
    );
    let mut unclear = state();
    unclear["replay"]["replayed"]["conflicts"] = json!(["1/7"]);
    let unclear = evidence_of(&unclear, Ok(kept()), vec![]);
    assert_eq!(unclear.payments.lost, None);
    assert!(unclear.is_failed());
}

#[test]
fn a_ledger_that_does_not_add_up_is_a_missed_objective_and_one_that_nobody_looked_at_is_told() {
    let gaps = |evidence: &Evidence| {
        evidence
            .gaps
            .iter()
            .map(|gap| gap.gap.clone())
            .collect::<Vec<_>>()
    };
    let mut wrong = state();
    wrong["audit"]["balanced"] = json!(false);
    let wrong = evidence_of(&wrong, Ok(kept()), vec![]);
    assert!(wrong.is_failed() && wrong.payments.duplicated.is_none());
    assert!(wrong.missed.contains(&"the ledger does not add up".to_owned()));
    assert!(gaps(&wrong).contains(&"the ledger does not add up".to_owned()));
    let mut unseen = state();
    unseen.as_object_mut().unwrap().remove("audit");
    let unseen = evidence_of(&unseen, Ok(kept()), vec![]);
    assert!(!unseen.is_failed(), "{:?}", unseen.missed);
    assert!(gaps(&unseen).contains(&"all of the ledger was not recomputed afterwards".to_owned()));
}

#[test]
fn how_an_exercise_ended_as_a_table() {
    let mut held = state();
    held.as_object_mut()
        .unwrap()
        .retain(|name, _| !["replay", "verify", "open", "audit"].contains(&name.as_str()));
    let failed = held.clone();
    held["assess"]["verdict"] = json!("hold");
    let mut aborted = failed.clone();
    aborted["mode"] = json!("graceful");
    aborted["undrain"] = json!({"undone": true, "began_ms": T + 70, "ended_ms": T + 80});
    aborted["await_standby"] =
        json!({"caught_up": false, "entries_behind": 3, "began_ms": T + 60, "ended_ms": T + 69});
    let mut caught = failed.clone();
    caught["failure"] = json!({"Error": "ControlUnavailable", "Cause": "throttled"});
    let rows = [
        (state(), Outcome::Completed, None),
        (held, Outcome::Held, Some("still")),
        (failed, Outcome::Failed, Some("it did not open")),
        (
            aborted,
            Outcome::Aborted,
            Some("the standby did not catch up in time"),
        ),
        (caught, Outcome::Failed, Some("ControlUnavailable: throttled")),
    ];
    for (input, outcome, reason) in rows {
        let evidence = evidence_of(&input, Ok(kept()), vec![]);
        assert_eq!(evidence.outcome, outcome);
        assert_eq!(evidence.outcome_reason.as_deref(), reason);
        assert_eq!(
            evidence.epoch_after,
            if outcome == Outcome::Completed { 2 } else { 1 }
        );
    }
}

#[test]
fn a_drill_is_told_by_its_input_and_what_clients_saw_goes_first() {
    let mut input = state();
    input["kind"] = json!("drill");
    input["drill"] = json!("isolation");
    input["client"] = json!({"seconds": [{"second": T / 1_000, "acknowledged": {"us-east-2": 3}, "refused": 1}],
        "acknowledged": 3, "lost": 0, "duplicated": 0, "last_acknowledged_ms": T - 2_000, "first_acknowledged_ms": T + 500});
    let evidence = evidence_of(&input, Ok(kept()), vec![]);
    assert_eq!(
        (evidence.kind, evidence.drill),
        (Kind::Drill, Some(DrillKind::Isolation))
    );
    assert_eq!(evidence.achieved.rto_ms, Some(2_500));
    assert_eq!(evidence.payments.acknowledged, 3);
    assert_eq!(evidence.traffic.seconds[0].refused, 1);
    assert!(evidence.traffic.source.contains("client's side"));
}
