//! Evidence: what happened in a failover, a switchover or a drill, as one document that can be kept, and as a page that a person
//! can read and print ([`page`]). Pure: whoever collects the facts gives them in, and what follows from them is derived here.

pub mod page;

use std::collections::BTreeMap;

use continuity::lost_tail::{Became, Report};
use continuity::names::Regions;
use continuity::observe::{Look, Observation};
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// The form of the document. Another form gets another number.
pub const SCHEMA: &str = "understudy/exercise/1";
/// DynamoDB takes items of 400 KB: <https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/ServiceQuotas.html>. The rest is
/// room for the other attributes.
pub const ITEM_LIMIT: usize = 300 * 1024;

/// The item of the control table with the evidence of an exercise.
pub fn item(id: &str) -> String {
    format!("exercise#{id}")
}

/// Where all evidence is in a data bucket.
pub const PREFIX: &str = "evidence/";

/// The key of the document in a data bucket.
pub fn json_key(id: &str) -> String {
    format!("{PREFIX}{id}/evidence.json")
}

/// The key of the report about the lost tail of a failover, beside its evidence.
pub fn lost_tail_key(id: &str) -> String {
    format!("{PREFIX}{id}/lost-tail.json")
}

/// Entries of a lost tail that evidence lists.
pub const TAIL_LINES: usize = 50;

/// The key of the page in a data bucket.
pub fn html_key(id: &str) -> String {
    format!("{PREFIX}{id}/index.html")
}

/// What kind of exercise.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// The active region failed, and the other took over.
    #[default]
    Failover,
    /// A planned change.
    Switchover,
    /// A rehearsal.
    Drill,
}

impl Kind {
    /// The word.
    pub fn as_str(self) -> &'static str {
        match self {
            Kind::Failover => "failover",
            Kind::Switchover => "switchover",
            Kind::Drill => "drill",
        }
    }
}

/// What a drill rehearses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DrillKind {
    /// Whether everything is ready, and payments are acknowledged; nothing moves.
    Readiness,
    /// A planned change, there and back.
    Switchover,
    /// The loss of a region.
    Isolation,
}

impl DrillKind {
    /// All of them.
    pub const ALL: [DrillKind; 3] = [DrillKind::Readiness, DrillKind::Switchover, DrillKind::Isolation];

    /// The kind of that word.
    pub fn parse(text: &str) -> Option<DrillKind> {
        DrillKind::ALL.into_iter().find(|kind| kind.as_str() == text)
    }

    /// The word.
    pub fn as_str(self) -> &'static str {
        match self {
            DrillKind::Readiness => "readiness",
            DrillKind::Switchover => "switchover",
            DrillKind::Isolation => "isolation",
        }
    }
}

/// How it ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    /// To its end.
    Completed,
    /// Not begun, because something spoke against it. Nothing changed.
    Held,
    /// Given up, and put back.
    Aborted,
    /// It broke off.
    Failed,
}

impl Outcome {
    /// The word.
    pub fn as_str(self) -> &'static str {
        match self {
            Outcome::Completed => "completed",
            Outcome::Held => "held",
            Outcome::Aborted => "aborted",
            Outcome::Failed => "failed",
        }
    }
}

/// The stack that was exercised.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StackFacts {
    /// The suffix.
    pub suffix: String,
    /// The account; empty when nobody told.
    #[serde(default)]
    pub account: String,
    /// The region of each slot.
    pub regions: Regions,
    /// The generation of the configuration that is deployed.
    #[serde(default)]
    pub generation: Option<u64>,
    /// SHA-256 (hex) of each function's package.
    #[serde(default)]
    pub packages: BTreeMap<String, String>,
    /// The version of this program.
    pub program_version: String,
    /// The engine version of the databases, as configured.
    #[serde(default)]
    pub aurora_engine_version: Option<String>,
}

/// What was to be reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Objectives {
    /// The recovery time, milliseconds.
    pub rto_ms: u64,
    /// Acknowledged payments that may be lost.
    pub lost: u64,
}

/// What was reached.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Achieved {
    /// The recovery time in milliseconds: from the last acknowledgement before to the first one after.
    pub rto_ms: Option<u64>,
    /// How it was measured.
    pub rto_how: String,
    /// Acknowledged payments that are lost: the recovery point, as a number.
    pub rpo_payments: Option<u64>,
    /// The recovery point as a time, milliseconds.
    pub rpo_ms: Option<u64>,
    /// How it is known.
    pub rpo_how: String,
    /// The last acknowledgement of the old epoch, milliseconds since the Unix epoch.
    #[serde(default)]
    pub last_acknowledged_ms: Option<u64>,
    /// The first acknowledgement of the new epoch, milliseconds since the Unix epoch.
    #[serde(default)]
    pub first_acknowledged_ms: Option<u64>,
}

/// A step and when it ran.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StepMark {
    /// Its name.
    pub step: String,
    /// The region that it ran in.
    pub region: String,
    /// When it began, milliseconds since the Unix epoch.
    pub began_ms: u64,
    /// When it ended.
    pub ended_ms: u64,
    /// What it came to.
    #[serde(default)]
    pub note: String,
}

/// One second of traffic.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Second {
    /// The second, counted from the Unix epoch.
    pub second: u64,
    /// Commands acknowledged, by the region that did.
    #[serde(default)]
    pub acknowledged: BTreeMap<String, u64>,
    /// Requests answered 503.
    #[serde(default)]
    pub refused: u64,
    /// Requests that got no usable answer.
    #[serde(default)]
    pub failed: u64,
}

/// Traffic, second by second.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Traffic {
    /// From where it was seen.
    pub source: String,
    /// Seconds in which something happened, in order. A second that is not here had none.
    pub seconds: Vec<Second>,
}

/// What clients saw that paid all along: synthetic payments, as whoever made them tells it. It goes before what the ledger says.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClientView {
    /// By the second in which the answer came.
    pub seconds: Vec<Second>,
    /// Payments that had an answer.
    pub acknowledged: u64,
    /// Of these, payments that the ledger lacks afterwards; `None` when nobody looked.
    #[serde(default)]
    pub lost: Option<u64>,
    /// Payments that it has twice; `None` when nobody looked.
    #[serde(default)]
    pub duplicated: Option<u64>,
    /// The last answer before the longest gap, milliseconds since the Unix epoch.
    #[serde(default)]
    pub last_acknowledged_ms: Option<u64>,
    /// The first after it.
    #[serde(default)]
    pub first_acknowledged_ms: Option<u64>,
}

/// How a region looked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// It serves.
    Serving,
    /// It answers, and does not serve.
    Standby,
    /// No usable answer.
    Failing,
}

impl State {
    /// The word.
    pub fn as_str(self) -> &'static str {
        match self {
            State::Serving => "serving",
            State::Standby => "standby",
            State::Failing => "failing",
        }
    }
}

/// One look of an observer at a region.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seen {
    /// The region it looked from.
    pub observer: String,
    /// The region it looked at.
    pub region: String,
    /// When, by the observer's clock, milliseconds since the Unix epoch.
    pub at_ms: u64,
    /// What it saw.
    pub state: State,
    /// Why not serving.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub reason: String,
}

/// What became of payments.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Payments {
    /// Acknowledged in the time that the document covers.
    pub acknowledged: u64,
    /// Recovered from the journal, because the database that took over lacked them.
    pub replayed: Option<u64>,
    /// Acknowledged and not in the ledger; `None` when it is not known.
    pub lost: Option<u64>,
    /// In the ledger more than once; `None` when it is not known.
    pub duplicated: Option<u64>,
    /// How these numbers are known.
    pub source: String,
}

/// Something that stood in the way, and what to do about it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Gap {
    /// What.
    pub gap: String,
    /// What to do.
    pub remedy: String,
}

/// The evidence of one exercise.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Evidence {
    /// [`SCHEMA`].
    pub schema: String,
    /// The execution's base name.
    pub id: String,
    /// Its kind.
    pub kind: Kind,
    /// Of a drill: what it rehearses.
    #[serde(default)]
    pub drill: Option<DrillKind>,
    /// What happened, in words.
    pub scenario: String,
    /// The stack.
    pub stack: StackFacts,
    /// Who or what started it.
    pub started_by: String,
    /// Why.
    #[serde(default)]
    pub reasons: Vec<String>,
    /// The region that served before.
    pub from_region: String,
    /// The region that was to serve.
    pub to_region: String,
    /// The epoch that was to end.
    pub epoch_before: u64,
    /// The epoch that holds afterwards.
    pub epoch_after: u64,
    /// When it was decided, milliseconds since the Unix epoch.
    pub decided_ms: Option<u64>,
    /// When it began: the fault, the decision or the first step, whichever is known to be first.
    pub began_ms: u64,
    /// When it ended.
    pub ended_ms: u64,
    /// How it ended.
    pub outcome: Outcome,
    /// Why it ended so, unless completed.
    #[serde(default)]
    pub outcome_reason: Option<String>,
    /// What was to be reached.
    pub objectives: Objectives,
    /// What was reached.
    pub achieved: Achieved,
    /// Objectives that were missed, in words.
    #[serde(default)]
    pub missed: Vec<String>,
    /// The steps in the order in which they began.
    pub steps: Vec<StepMark>,
    /// Traffic of both regions.
    pub traffic: Traffic,
    /// Health of both regions, as the observers saw it.
    pub health: Vec<Seen>,
    /// What became of payments.
    pub payments: Payments,
    /// The readiness report before, as it was stored.
    #[serde(default)]
    pub readiness: Option<Value>,
    /// What stood in the way.
    #[serde(default)]
    pub gaps: Vec<Gap>,
    /// What this exercise did not prove.
    pub not_proven: Vec<String>,
    /// Of a failover: what only the old region's ledger had, the newest [`TAIL_LINES`] entries of it. `None` until its recovery knows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lost_tail: Option<Report>,
    /// What is in the bucket's copy only, because an item of the control table has no room for it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub left_out: Vec<String>,
}

impl Evidence {
    /// Whether it counts as failed: it broke off, was given up, or missed an objective. One that was held changed nothing, but a
    /// drill that was held did not take place.
    pub fn is_failed(&self) -> bool {
        !self.missed.is_empty()
            || match self.outcome {
                Outcome::Completed => false,
                Outcome::Held => self.kind == Kind::Drill,
                Outcome::Aborted | Outcome::Failed => true,
            }
    }

    /// The heading: what and which way.
    pub fn title(&self) -> String {
        match self.drill {
            Some(drill) => format!("Drill ({}): {}", drill.as_str(), self.stack.suffix),
            None => {
                let kind = match self.kind {
                    Kind::Failover => "Failover",
                    Kind::Switchover => "Switchover",
                    Kind::Drill => "Drill",
                };
                format!("{kind}: {} to {}", self.from_region, self.to_region)
            }
        }
    }

    /// The document as JSON for an item of the control table: what does not fit is left out and named.
    ///
    /// # Errors
    /// It cannot be written as JSON.
    pub fn for_item(&self) -> serde_json::Result<String> {
        let mut small = self.clone();
        let mut json = serde_json::to_string(&small)?;
        let parts: [(&str, fn(&mut Evidence)); 3] = [
            ("health", |small| small.health.clear()),
            ("traffic", |small| small.traffic.seconds.clear()),
            ("readiness", |small| small.readiness = None),
        ];
        for (name, drop) in parts {
            if json.len() <= ITEM_LIMIT {
                break;
            }
            drop(&mut small);
            small.left_out.push(name.to_owned());
            json = serde_json::to_string(&small)?;
        }
        Ok(json)
    }
}

/// The objectives that were missed, in words. What was not reached because it was not begun is not missed.
pub fn missed(
    objectives: &Objectives,
    achieved: &Achieved,
    payments: &Payments,
    outcome: Outcome,
) -> Vec<String> {
    let mut missed = Vec::new();
    match achieved.rto_ms {
        Some(rto_ms) if rto_ms > objectives.rto_ms => missed.push(format!(
            "recovery took {}, the objective is {}",
            seconds(rto_ms),
            seconds(objectives.rto_ms)
        )),
        _ => {}
    }
    match payments.lost {
        Some(lost) if lost > objectives.lost => {
            missed.push(format!(
                "{lost} acknowledged payments lost, the objective is {}",
                objectives.lost
            ));
        }
        None if outcome == Outcome::Completed => {
            missed.push("it is not known whether an acknowledged payment was lost".to_owned());
        }
        _ => {}
    }
    if let Some(duplicated @ 1..) = payments.duplicated {
        missed.push(format!("{duplicated} payments are in the ledger twice"));
    }
    missed
}

/// What an exercise of this kind does not prove, whatever came of it. `observers_decided` counts where a region is given up.
pub fn not_proven(
    kind: Kind,
    drill: Option<DrillKind>,
    outcome: Outcome,
    observers_decided: bool,
    clients_seen: bool,
    rto_known: bool,
) -> Vec<String> {
    let mut claims: Vec<&str> = Vec::new();
    if outcome != Outcome::Completed {
        claims.push("It did not come to its end, so it proves nothing about the steps that did not run.");
    }
    match (kind, drill) {
        (Kind::Failover, _) => claims.push(
            "Nobody tried to pay in the region that was given up. That it cannot acknowledge after the epoch rose rests on the rules \
             of the journal and the control table, not on this exercise.",
        ),
        (Kind::Switchover, _) | (Kind::Drill, Some(DrillKind::Switchover)) => claims.push(
            "A planned change asks both regions. It does not prove that the stack survives the loss of one, nor that an isolated \
             region cannot acknowledge.",
        ),
        (Kind::Drill, Some(DrillKind::Isolation)) => claims.push(
            "The isolation was made by a tool that takes away connections of one region. A real fault may be partial, slow, or also \
             hit services that both regions share.",
        ),
        (Kind::Drill, _) => claims.push(
            "Nothing was moved. A readiness drill proves that what a change needs is there, not that the change succeeds.",
        ),
    }
    match (kind, drill) {
        _ if observers_decided => {}
        (Kind::Failover, _) => claims.push(
            "A person decided it. That the observers would have proposed it, and how soon, is not shown.",
        ),
        (Kind::Drill, Some(DrillKind::Isolation)) => claims.push(
            "The drill started the failover itself, because the policy leaves the decision to a person. How long the observers take to \
             propose it, and a person to approve it, is not in the recovery time.",
        ),
        _ => {}
    }
    if !clients_seen {
        claims.push(
            "No client was watched. Traffic is counted from what the ledger kept: requests that were refused or failed do not appear, \
             and an entry is counted when it was executed, shortly before its client had the answer.",
        );
    }
    if !rto_known {
        claims.push("Without payments on both sides of the change no recovery time was measured from the client's side.");
    }
    claims.push(
        "Times hold for this place, this size of database and this load. How long another database takes to be promoted is not \
         shown by it; only an exercise in the account and regions of the production stack shows it for that one.",
    );
    claims.push(
        "One exercise is one sample. It gives no distribution, and says nothing about faults of both regions at once or about wrong \
         payments that were replicated correctly.",
    );
    claims.into_iter().map(str::to_owned).collect()
}

/// The looks of all observers at `regions` between two moments, in order.
pub fn seen(observations: &[Observation], regions: &[&str], from_ms: u64, until_ms: u64) -> Vec<Seen> {
    let mut all = Vec::new();
    for observation in observations {
        for region in regions {
            let rounds = observation.rounds.get(*region).map_or(&[][..], Vec::as_slice);
            for round in rounds {
                if round.at_ms < from_ms || round.at_ms > until_ms {
                    continue;
                }
                let (state, reason) = match &round.look {
                    Look::Serving { .. } => (State::Serving, String::new()),
                    Look::Standby { health } => (State::Standby, health.reasons.join(", ")),
                    Look::Failing { reason, .. } => (State::Failing, reason.clone()),
                };
                all.push(Seen {
                    observer: observation.observer.clone(),
                    region: (*region).to_owned(),
                    at_ms: round.at_ms,
                    state,
                    reason,
                });
            }
        }
    }
    all.sort_by(|a, b| (a.at_ms, &a.observer, &a.region).cmp(&(b.at_ms, &b.observer, &b.region)));
    all
}

/// What a lost tail comes to, in a sentence.
pub fn tail_sentence(report: &Report) -> String {
    let from = &report.from_region;
    let looked_at = report.comparison.looked_at;
    let sentence = match (report.entries(), &report.snapshot) {
        (0, None) => format!(
            "Nothing was lost: Aurora kept no data of {from} when it took it back, because its database had nothing of its own."
        ),
        (0, Some(_)) => format!(
            "Nothing was lost: {from} had nothing of its own ({looked_at} of its newest entries were compared)."
        ),
        (entries, _) => {
            let number = |outcome: &str| {
                let total = report.comparison.totals.get(outcome);
                total.map_or(0, |total| total.entries)
            };
            let parts = [
                ("recovered", "recovered from the journal"),
                ("executed-again", "executed again when the client retried"),
                ("gone", "gone: never acknowledged, and not retried"),
            ];
            let told: Vec<String> = parts
                .into_iter()
                .filter(|(outcome, _)| number(outcome) > 0)
                .map(|(outcome, words)| format!("{} {words}", number(outcome)))
                .collect();
            let noun = if entries == 1 { "entry" } else { "entries" };
            format!("{entries} {noun} existed only in {from}: {}.", told.join("; "))
        }
    };
    if report.complete {
        sentence
    } else {
        format!("{sentence} The comparison ran out of time: older entries may have existed only there too.")
    }
}

/// What became of an entry that only the old region had, in words.
pub fn became(became: &Became) -> String {
    match became {
        Became::Recovered { posted_epoch } => {
            format!("recovered from the journal, posted in epoch {posted_epoch}")
        }
        Became::ExecutedAgain { as_subject, .. } => format!("executed again as {as_subject}"),
        Became::Gone => "gone: never acknowledged, and not retried".to_owned(),
    }
}

/// A span of time for a person: `840 ms`, `3.2 s`, `12 min 4 s`, `2 h 5 min`.
pub fn seconds(ms: u64) -> String {
    match ms {
        0..1_000 => format!("{ms} ms"),
        1_000..120_000 => format!("{}.{} s", ms / 1_000, ms % 1_000 / 100),
        120_000..7_200_000 if ms % 60_000 < 1_000 => format!("{} min", ms / 60_000),
        120_000..7_200_000 => format!("{} min {} s", ms / 60_000, ms % 60_000 / 1_000),
        _ if ms % 3_600_000 < 60_000 => format!("{} h", ms / 3_600_000),
        _ => format!("{} h {} min", ms / 3_600_000, ms % 3_600_000 / 60_000),
    }
}

/// A moment in UTC: `2026-11-27 01:13:05.120`. Days to date as in <https://howardhinnant.github.io/date_algorithms.html#civil_from_days>.
pub fn utc(ms: u64) -> String {
    let (days, rest) = (ms / 86_400_000, ms % 86_400_000);
    let shifted = days + 719_468;
    let (era, day_of_era) = (shifted / 146_097, shifted % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 {
        shifted_month + 3
    } else {
        shifted_month - 9
    };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    let (hour, minute, second, milli) = (
        rest / 3_600_000,
        rest / 60_000 % 60,
        rest / 1_000 % 60,
        rest % 1_000,
    );
    format!("{year:04}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02}.{milli:03}")
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
