//! The evidence of a drill: what was planned, what the synthetic payments saw second by second, the steps of the changes that it
//! made, and what became of every acknowledged payment.

use std::collections::BTreeMap;

use continuity::observe::Observation;
use continuity::synthetic::Slice;
use infra::change::Configuration;
use infra::exercise::{
    self, Achieved, DrillKind, Evidence, Gap as Remedy, Kind, Objectives, Outcome, Payments, SCHEMA, Second,
    StackFacts, StepMark, Traffic,
};
use serde_json::Value;

use crate::context::Context;
use crate::drill::{Drill, Gap, Stage};

/// Shown before the beginning and after the end.
const MARGIN_MS: u64 = 5_000;

/// What the evidence of a drill follows from.
pub struct Facts<'a> {
    /// The drill, over.
    pub drill: &'a Drill,
    /// Its synthetic payments.
    pub slices: &'a [Slice],
    /// The longest time without an acknowledgement.
    pub gap: Gap,
    /// What became of the acknowledged payments; none when nobody could look.
    pub checked: Option<&'a Value>,
    /// The objectives that were missed, in words.
    pub missed: &'a [String],
    /// The configuration that is stored.
    pub stored: Option<Configuration>,
    /// What the observers saw.
    pub observations: &'a [Observation],
    /// The readiness report before.
    pub readiness: Option<Value>,
    /// The evidence of the changes that it made.
    pub changes: &'a [Evidence],
    /// The account.
    pub account: &'a str,
}

/// The document.
pub fn evidence(context: &Context, facts: &Facts<'_>) -> Evidence {
    let drill = facts.drill;
    let ended_ms = drill.ended_ms.unwrap_or(drill.stage_ms);
    let outcome = match (&drill.aborted, drill.stage) {
        (Some(_), _) => Outcome::Aborted,
        (None, Stage::Over) => Outcome::Completed,
        (None, _) => Outcome::Failed,
    };
    let seconds = seconds(drill, facts.slices);
    let acknowledged = seconds
        .iter()
        .flat_map(|second| second.acknowledged.values())
        .sum();
    let checked = |name: &str| facts.checked.and_then(|checked| checked[name].as_u64());
    let lost = checked("lost")
        .zip(checked("different"))
        .map(|(lost, different)| lost + different);
    let payments = Payments {
        acknowledged,
        // A planned change replays nothing.
        replayed: facts
            .changes
            .iter()
            .filter_map(|change| change.payments.replayed)
            .reduce(|one, other| one + other),
        lost,
        duplicated: checked("duplicated"),
        source: "Every acknowledged synthetic payment was looked up in the region that served at the end."
            .to_owned(),
    };
    let achieved = Achieved {
        rto_ms: (facts.gap.ms() > 0).then(|| facts.gap.ms()),
        rto_how: "The longest time between two acknowledged synthetic payments, from the client's side, through the public name."
            .to_owned(),
        rpo_payments: lost,
        rpo_ms: lost.filter(|lost| *lost == 0).map(|_| 0),
        rpo_how: payments.source.clone(),
        last_acknowledged_ms: (facts.gap.ms() > 0).then_some(facts.gap.from_ms),
        first_acknowledged_ms: (facts.gap.ms() > 0).then_some(facts.gap.to_ms),
    };
    let (from_ms, until_ms) = (drill.began_ms.saturating_sub(MARGIN_MS), ended_ms + MARGIN_MS);
    let spec = facts.stored.as_ref().map(|stored| &stored.spec);
    let epoch_after = facts.changes.iter().map(|change| change.epoch_after).max();
    Evidence {
        schema: SCHEMA.to_owned(),
        id: drill.id.clone(),
        kind: Kind::Drill,
        drill: Some(drill.kind),
        scenario: scenario(drill),
        stack: StackFacts {
            suffix: context.config.names.suffix().to_owned(),
            account: facts.account.to_owned(),
            regions: context.config.regions.clone(),
            generation: facts.stored.as_ref().map(|stored| stored.generation),
            packages: spec.map(|spec| spec.artifacts.clone()).unwrap_or_default(),
            program_version: env!("CARGO_PKG_VERSION").to_owned(),
            aurora_engine_version: spec.map(|spec| spec.aurora.engine_version.clone()),
        },
        started_by: drill.started_by.clone(),
        reasons: Vec::new(),
        from_region: drill.home.clone(),
        to_region: drill.target.clone(),
        epoch_before: drill.epoch,
        epoch_after: epoch_after.unwrap_or(drill.epoch),
        decided_ms: None,
        began_ms: drill.began_ms,
        ended_ms,
        outcome,
        outcome_reason: drill.aborted.clone(),
        objectives: Objectives {
            rto_ms: drill.longest_gap_ms,
            lost: 0,
        },
        gaps: gaps(facts),
        missed: facts.missed.to_vec(),
        steps: steps(facts, ended_ms),
        traffic: Traffic {
            source: "From the client's side: synthetic payments through the public name, each counted in the second in which its \
                     answer came, by the region of its epoch; refused and failed attempts beside them."
                .to_owned(),
            seconds,
        },
        health: exercise::seen(facts.observations, &[&drill.home, &drill.target], from_ms, until_ms),
        not_proven: exercise::not_proven(
            Kind::Drill,
            Some(drill.kind),
            outcome,
            drill.observers_decide,
            true,
            achieved.rto_ms.is_some(),
        ),
        achieved,
        payments,
        readiness: facts.readiness.clone(),
        lost_tail: None,
        left_out: Vec::new(),
    }
}

fn scenario(drill: &Drill) -> String {
    let (home, target, hold) = (&drill.home, &drill.target, exercise::seconds(drill.hold_ms));
    let what = match drill.kind {
        DrillKind::Readiness => format!(
            "everything that {target} needs to take over from {home} is looked at and the functions of both regions are called; nothing \
             moves. Payments are made where the stack serves,"
        ),
        DrillKind::Switchover => {
            format!("a planned change from {home} to {target}, which serves for {hold}, and back,")
        }
        DrillKind::Isolation => format!(
            "{home} is cut off from everything. {}, {target} serves for {hold}, {home} is joined again and takes over as planned \
             when it stands by,",
            if drill.observers_decide {
                "The observers decide, and nobody helps"
            } else {
                "The failover is started as a person would"
            }
        ),
    };
    format!(
        "A drill: {what} with {} synthetic payments a second all along.",
        drill.per_second
    )
}

/// The stages of the drill, and within them the steps of the changes.
fn steps(facts: &Facts<'_>, ended_ms: u64) -> Vec<StepMark> {
    let drill = facts.drill;
    let ends = drill
        .marks
        .iter()
        .skip(1)
        .map(|mark| mark.at_ms)
        .chain([ended_ms]);
    let mut steps: Vec<StepMark> = drill
        .marks
        .iter()
        .zip(ends)
        .map(|(mark, ends_ms)| StepMark {
            step: format!("drill: {}", word(drill.kind, mark.stage)),
            region: drill.target.clone(),
            began_ms: mark.at_ms,
            ended_ms: ends_ms,
            note: String::new(),
        })
        .collect();
    for (step, at_ms) in [
        ("isolation: cut off", drill.isolated_ms),
        ("isolation: joined again", drill.restored_ms),
    ] {
        steps.extend(at_ms.map(|at_ms| StepMark {
            step: step.to_owned(),
            region: drill.home.clone(),
            began_ms: at_ms,
            ended_ms: at_ms,
            note: String::new(),
        }));
    }
    steps.extend(facts.changes.iter().flat_map(|change| change.steps.clone()));
    steps.sort_by_key(|step| step.began_ms);
    steps
}

fn word(kind: DrillKind, stage: Stage) -> &'static str {
    match (kind, stage) {
        (DrillKind::Readiness, Stage::Baseline) => "payments",
        (DrillKind::Readiness, Stage::Over) => "payments to the end",
        (_, Stage::Baseline) => "payments before the change",
        (DrillKind::Isolation, Stage::There) => "cut off, and taken over",
        (_, Stage::There) => "there",
        (_, Stage::Hold) => "hold",
        (_, Stage::Rejoin) => "joined again",
        (_, Stage::Back) => "back",
        (_, Stage::Over) => "payments after it",
    }
}

fn gaps(facts: &Facts<'_>) -> Vec<Remedy> {
    let mut gaps: Vec<Remedy> = facts
        .changes
        .iter()
        .flat_map(|change| change.gaps.clone())
        .collect();
    if facts.checked.is_none() {
        gaps.push(Remedy {
            gap: "The acknowledged payments could not be looked up.".to_owned(),
            remedy: "See the execution's history and the log of the witness's health-probe, and run the drill again.".to_owned(),
        });
    }
    gaps
}

/// The attempts second by second, and which region acknowledged: the epoch says so.
fn seconds(drill: &Drill, slices: &[Slice]) -> Vec<Second> {
    let mut seconds: BTreeMap<u64, Second> = BTreeMap::new();
    for slice in slices {
        for seen in &slice.seconds {
            let second = seconds.entry(seen.at_ms / 1000).or_default();
            second.refused += u64::from(seen.refused);
            second.failed += u64::from(seen.failed);
        }
        for payment in &slice.payments {
            if let (Some(at_ms), Some(epoch)) = (payment.answered_ms, payment.epoch) {
                // There and back: the epochs alternate between the two regions.
                let away = epoch.saturating_sub(drill.epoch) % 2 == 1;
                let region = if away { &drill.target } else { &drill.home };
                let second = seconds.entry(at_ms / 1000).or_default();
                *second.acknowledged.entry(region.clone()).or_default() += 1;
            }
        }
    }
    seconds
        .into_iter()
        .map(|(at_s, second)| Second {
            second: at_s,
            ..second
        })
        .collect()
}
