//! failover, switchover, drill: record. What happened, when, and with which result: one document and one page, in the data bucket of
//! this region, which S3 replicates, and as an item of the control table.

use continuity::entry::EntryId;
use continuity::lost_tail::Report;
use continuity::metrics::{self, Unit};
use continuity::names::{Regions, Slot, exercise_id};
use continuity::observe::Observation;
use infra::blueprint::observability::{DRILL_FAILED, STACK_DIMENSION};
use infra::change::Configuration;
use infra::exercise::{
    self, Achieved, ClientView, DrillKind, Evidence, Gap, Kind, Objectives, Outcome, Payments, SCHEMA,
    Second, Seen, StackFacts, State, StepMark, page::page,
};
use infra::readiness::{REHEARSED_ITEM, Rehearsed};
use serde::Deserialize;
use serde_json::{Value, json};

use super::change::configuration;
use super::waiting::account;
use crate::context::Context;
use crate::decide;
use crate::effects::processor::{self, Traffic};
use crate::error::StepError;
use crate::event::{Mode, Request, Step, TakeoverInput};
use crate::limits::{FIRST_COMMAND_LIMIT, TRAFFIC_ATTEMPTS, TRAFFIC_BEFORE, WATCH_INTERVAL};

/// The evidence shows so much after the end.
const TRAFFIC_AFTER_MS: u64 = 5_000;
/// Without a command for this long before a region was last seen to serve, its customers were quiet, and the gap between two
/// commands is no recovery time.
const QUIET_MS: u64 = 60_000;

/// Stores the evidence under the exercise's name. It follows from the execution's state and from what the tables and the ledger say:
/// storing it again stores the same, but for what was seen later.
pub async fn record(context: &Context, request: &Request) -> Result<Value, StepError> {
    let input = request.takeover(context.region())?;
    let regions = &context.config.regions;
    let observers = Slot::ALL.map(|slot| regions.of(slot));
    let readiness = format!("readiness#{}", context.region());
    let tail = Report::item(input.epoch + 1);
    let (stored, observations, readiness, traffic, tail) = futures::join!(
        configuration(context),
        context.control.observations(&observers),
        context.control.document(&readiness),
        traffic(context, request, &input),
        context.control.document(&tail),
    );
    let facts = Facts {
        request,
        input: &input,
        regions,
        suffix: context.config.names.suffix(),
        stored: stored.ok(),
        observations: observations?,
        readiness: readiness?.and_then(|json| serde_json::from_str(&json).ok()),
        traffic: traffic.map_err(|error| continuity::error::chain(&error)),
    };
    let mut evidence = evidence(&facts);
    // Of a failover that is recorded once more, after its recovery.
    if evidence.kind == Kind::Failover {
        evidence.lost_tail = tail?.as_deref().and_then(shown);
    }
    let item = keep(context, account(&request.execution_arn), &evidence).await?;
    let failed = evidence.is_failed();
    if failed {
        tracing::error!(id = evidence.id, missed = ?evidence.missed, "the exercise counts as failed");
    } else if evidence.outcome == Outcome::Completed {
        // A change that was made for good proves what a drill proves.
        rehearsed(context, &evidence).await?;
    }
    metrics::emit(
        &[(STACK_DIMENSION, context.config.names.suffix())],
        &[(DRILL_FAILED, Unit::Count, u64::from(failed))],
        context.timer.now_ms(),
    );
    Ok(json!({
        "item": item,
        "outcome": evidence.outcome,
        "rto_ms": evidence.achieved.rto_ms,
        "lost": evidence.payments.lost,
        "missed": evidence.missed,
    }))
}

/// Remembers that the active region was changed, and that it went well: how long ago that was is a part of readiness.
///
/// # Errors
/// `ControlUnavailable`.
pub async fn rehearsed(context: &Context, evidence: &Evidence) -> Result<(), StepError> {
    let kind = evidence
        .drill
        .map_or(evidence.kind.as_str(), |drill| drill.as_str());
    let rehearsed = Rehearsed {
        at_ms: evidence.ended_ms,
        id: evidence.id.clone(),
        kind: kind.to_owned(),
    };
    let json = serde_json::to_string(&rehearsed);
    let json = json.map_err(|error| StepError::MalformedInput(error.to_string()))?;
    context.control.put_document(REHEARSED_ITEM, &json).await?;
    Ok(())
}

/// Keeps the evidence: as an item of the control table, whose name it returns, and as document and page in the data bucket of this
/// region, which S3 replicates. Twice is once.
///
/// # Errors
/// `ControlUnavailable`, `EvidenceNotStored`.
pub async fn keep(context: &Context, account: &str, evidence: &Evidence) -> Result<String, StepError> {
    let unwritable = |error: serde_json::Error| StepError::MalformedInput(error.to_string());
    let item = exercise::item(&evidence.id);
    let json = evidence.for_item().map_err(unwritable)?;
    context.control.put_document(&item, &json).await?;

    let names = &context.config.names;
    let bucket = names.data_bucket(context.config.slot, account);
    let document = serde_json::to_string_pretty(evidence).map_err(unwritable)?;
    let files = [
        (exercise::json_key(&evidence.id), "application/json", document),
        (
            exercise::html_key(&evidence.id),
            "text/html; charset=utf-8",
            page(evidence),
        ),
    ];
    for (key, content_type, body) in files {
        context.archive.put(&bucket, &key, content_type, body).await?;
    }
    Ok(item)
}

/// Completes the evidence of the failover that began `epoch` with what its recovery found out, where that evidence is kept. Twice is
/// once.
///
/// # Errors
/// `ControlUnavailable`, `EvidenceNotRead`, `EvidenceNotStored`.
pub async fn complete(context: &Context, account: &str, epoch: u64) -> Result<(), StepError> {
    let names = &context.config.names;
    let id = names.failover_execution(epoch);
    let tail = context.control.document(&Report::item(epoch)).await?;
    let Some(tail) = tail.as_deref().and_then(shown) else {
        return Ok(());
    };
    let bucket = names.data_bucket(context.config.slot, account);
    // The bucket has all of it, the item what fits.
    let kept = context.archive.get(&bucket, &exercise::json_key(&id)).await?;
    let kept = match kept {
        Some(kept) => Some(kept),
        None => context.control.document(&exercise::item(&id)).await?,
    };
    let evidence = kept.and_then(|json| serde_json::from_str::<Evidence>(&json).ok());
    let Some(mut evidence) = evidence else {
        tracing::warn!(id, "the failover has no evidence that could be completed");
        return Ok(());
    };
    evidence.lost_tail = Some(tail);
    if evidence.left_out.is_empty() {
        keep(context, account, &evidence).await?;
    } else {
        // The bucket has more than this and is not to lose it.
        let json = evidence.for_item();
        let json = json.map_err(|error| StepError::MalformedInput(error.to_string()))?;
        context.control.put_document(&exercise::item(&id), &json).await?;
    }
    Ok(())
}

/// A stored report of a lost tail, as evidence shows it.
fn shown(json: &str) -> Option<Report> {
    let report = serde_json::from_str::<Report>(json).ok()?;
    Some(report.shortened(exercise::TAIL_LINES))
}

/// What the ledger of this region kept of the time around the exercise. After a change it waits a limited time for the first
/// command of the new epoch; an error here is a gap in the evidence, not the end of it.
async fn traffic(context: &Context, request: &Request, input: &TakeoverInput) -> Result<Traffic, StepError> {
    let before_ms = u64::try_from(TRAFFIC_BEFORE.as_millis()).unwrap_or(u64::MAX);
    let (began_ms, _) = span(request, input);
    let from_ms = began_ms.saturating_sub(before_ms);
    let until_ms = context.watch_until(FIRST_COMMAND_LIMIT, request.deadline_ms);
    let waits = request.result_of(Step::Open).is_some();
    let mut errors = 0;
    loop {
        let now_ms = context.timer.now_ms();
        let asked = processor::traffic(context.processor.as_ref(), from_ms, now_ms, input.epoch + 1).await;
        match asked {
            Ok(traffic) if traffic.first_in_ms.is_some() || !waits || now_ms >= until_ms => {
                return Ok(traffic);
            }
            Ok(_) => {}
            Err(error) => {
                errors += 1;
                if errors >= TRAFFIC_ATTEMPTS {
                    return Err(error);
                }
            }
        }
        context.timer.sleep(WATCH_INTERVAL).await;
    }
}

/// When the steps began and ended; the decision is the beginning if it is known.
fn span(request: &Request, input: &TakeoverInput) -> (u64, u64) {
    let steps = marks(request, "");
    let first_ms = steps.first().map(|step| step.began_ms);
    let began_ms = match (input.decided_ms, first_ms) {
        (Some(decided_ms), Some(first_ms)) => decided_ms.min(first_ms),
        (decided_ms, first_ms) => decided_ms.or(first_ms).unwrap_or_default(),
    };
    let ended_ms = steps.iter().map(|step| step.ended_ms).max();
    (began_ms, ended_ms.unwrap_or(began_ms))
}

/// The steps that left a result, in the order in which they began.
fn marks(request: &Request, region: &str) -> Vec<StepMark> {
    let mut marks: Vec<StepMark> = Step::ALL
        .into_iter()
        .filter(|step| *step != Step::Record)
        .filter_map(|step| {
            let result = request.result_of(step)?;
            Some(StepMark {
                step: step.as_str().to_owned(),
                region: region.to_owned(),
                began_ms: result["began_ms"].as_u64()?,
                ended_ms: result["ended_ms"].as_u64()?,
                note: note(step, result),
            })
        })
        .collect();
    marks.sort_by_key(|mark| mark.began_ms);
    marks
}

/// What a step came to, in a few words.
fn note(step: Step, result: &Value) -> String {
    let text = |name: &str| result[name].as_str().unwrap_or_default().to_owned();
    let number = |name: &str| result[name].as_u64().unwrap_or_default();
    if let Some(skipped) = result["skipped"].as_str() {
        return format!("skipped: {skipped}");
    }
    match step {
        Step::Assess | Step::Evaluate => {
            let reasons = decide::reasons(Some(result));
            match reasons.is_empty() {
                true => text("verdict"),
                false => format!("{}: {}", text("verdict"), reasons.join("; ")),
            }
        }
        Step::Fence | Step::Open => format!("epoch {}", number("epoch")),
        Step::SetEpoch => format!("the ledger is in epoch {}", number("ledger_epoch")),
        Step::Drain => format!("epoch {} drains", number("epoch")),
        Step::AwaitStandby if result["caught_up"] == true => "the standby has caught up".to_owned(),
        Step::AwaitStandby => format!("{} entries behind", number("entries_behind")),
        Step::Promote | Step::SwitchDatabase => text("promotion"),
        Step::AwaitWriter if result["writer"] == true => "the database takes writes".to_owned(),
        Step::AwaitWriter => text("reason"),
        Step::Undrain if result["undone"] == true => "given up and put back".to_owned(),
        Step::Undrain => text("why"),
        Step::Replay => {
            let replayed = &result["replayed"];
            let of = |name: &str| replayed[name].as_u64().unwrap_or_default();
            let behind = settled(replayed).map_or(String::new(), |EntryId { epoch, seq }| {
                format!(" behind {epoch}/{seq}")
            });
            format!(
                "{} entries of the journal{behind}, {} of them were missing and posted",
                of("scanned"),
                of("posted")
            )
        }
        Step::Verify => format!(
            "balanced, {} accounts, {} recovered entries",
            number("accounts"),
            number("recovered")
        ),
        Step::Audit if result["balanced"] == true => format!(
            "every sum recomputed, balanced, {} entries, {} accounts",
            number("entries"),
            number("accounts")
        ),
        Step::Audit => "the ledger does not add up".to_owned(),
        Step::AwaitTraffic if result["traffic_verified"] == true => {
            format!(
                "the public name answered after {}",
                exercise::seconds(number("after_ms"))
            )
        }
        Step::AwaitTraffic => format!("the public name did not follow in time: {}", text("last_seen")),
        _ => String::new(),
    }
}

/// Everything that the evidence follows from.
struct Facts<'a> {
    request: &'a Request,
    input: &'a TakeoverInput,
    regions: &'a Regions,
    suffix: &'a str,
    stored: Option<Configuration>,
    observations: Vec<Observation>,
    readiness: Option<Value>,
    /// What the ledger kept, or why it did not say.
    traffic: Result<Traffic, String>,
}

impl Facts<'_> {
    fn kind(&self) -> Kind {
        // A drill says so in its input; the other two differ in how the change is made.
        if self.request.input["kind"] == "drill" {
            return Kind::Drill;
        }
        match self.input.mode {
            Mode::Ungraceful => Kind::Failover,
            Mode::Graceful => Kind::Switchover,
        }
    }

    fn drill(&self) -> Option<DrillKind> {
        serde_json::from_value(self.request.input["drill"].clone()).ok()
    }

    /// What clients saw, when synthetic payments ran all along.
    fn client(&self) -> Option<ClientView> {
        serde_json::from_value(self.request.input["client"].clone()).ok()
    }

    fn outcome(&self) -> (Outcome, Option<String>) {
        let result = |step| self.request.result_of(step);
        if result(Step::Open).is_some() {
            return (Outcome::Completed, None);
        }
        let failure = &self.request.input["failure"];
        let failure = failure["Error"].as_str().map(|error| {
            let cause = failure["Cause"].as_str().unwrap_or_default();
            format!("{error}: {cause}")
        });
        if result(Step::Undrain).is_some_and(|undrain| undrain["undone"] == true) {
            let behind = result(Step::AwaitStandby).filter(|standby| standby["caught_up"] == false);
            let behind = behind.map(|_| "the standby did not catch up in time".to_owned());
            return (Outcome::Aborted, failure.or(behind));
        }
        let held = [Step::Assess, Step::Evaluate].into_iter().find_map(|step| {
            let result = result(step)?;
            (result["verdict"] == "hold").then(|| decide::reasons(Some(result)).join("; "))
        });
        match held {
            Some(reasons) => (Outcome::Held, Some(reasons)),
            None => (
                Outcome::Failed,
                failure.or_else(|| Some("it did not open".to_owned())),
            ),
        }
    }

    /// The other serving region.
    fn region_before(&self) -> &str {
        self.regions.peer_of(&self.input.to_region).unwrap_or_default()
    }

    /// The region that served an epoch. There are two, and each change goes to the other.
    fn region_of(&self, epoch: u64) -> &str {
        let even = epoch.abs_diff(self.input.epoch + 1).is_multiple_of(2);
        if even {
            &self.input.to_region
        } else {
            self.region_before()
        }
    }
}

fn evidence(facts: &Facts<'_>) -> Evidence {
    let (request, input) = (facts.request, facts.input);
    let (kind, drill) = (facts.kind(), facts.drill());
    let (outcome, outcome_reason) = facts.outcome();
    let (first_ms, last_ms) = span(request, input);
    let client = facts.client();
    let kept = facts.traffic.as_ref().ok();
    let achieved = achieved(facts, outcome, client.as_ref());
    // A fault comes before its decision.
    let began_ms = achieved
        .last_acknowledged_ms
        .filter(|_| achieved.rto_ms.is_some())
        .map_or(first_ms, |last| last.min(first_ms));
    let ended_ms = achieved
        .first_acknowledged_ms
        .map_or(last_ms, |first| first.max(last_ms));
    let (from_ms, until_ms) = (began_ms.saturating_sub(10_000), ended_ms + TRAFFIC_AFTER_MS);

    let traffic = match (&client, kept) {
        (Some(client), _) => exercise::Traffic {
            source: "From the client's side: synthetic payments through the public name, counted by the second in which \
                     their answer came."
                .to_owned(),
            seconds: client.seconds.clone(),
        },
        (None, Some(kept)) => exercise::Traffic {
            source: "From the ledger of the region that serves afterwards: commands by the second in which they were executed, \
                     each in the region of its epoch."
                .to_owned(),
            seconds: executed(facts, kept, from_ms, until_ms),
        },
        (None, None) => exercise::Traffic {
            source: "Not known: the ledger did not say.".to_owned(),
            seconds: Vec::new(),
        },
    };
    let payments = payments(facts, outcome, client.as_ref(), &traffic.seconds);
    let objectives = Objectives {
        rto_ms: facts
            .stored
            .as_ref()
            .map_or_else(
                || infra::spec::Objectives::default().rto_seconds,
                |stored| stored.spec.objectives.rto_seconds,
            )
            .saturating_mul(1_000),
        lost: 0,
    };
    let mut missed = exercise::missed(&objectives, &achieved, &payments, outcome);
    if adds_up(facts) == Some(false) {
        missed.push("the ledger does not add up".to_owned());
    }
    let clients_seen = client.is_some();
    let not_proven = exercise::not_proven(
        kind,
        drill,
        outcome,
        !input.by_person,
        clients_seen,
        achieved.rto_ms.is_some(),
    );
    Evidence {
        schema: SCHEMA.to_owned(),
        id: exercise_id(&request.execution).to_owned(),
        kind,
        drill,
        scenario: scenario(facts, kind),
        stack: stack(facts),
        started_by: input.started_by.clone(),
        reasons: input.reasons.clone(),
        from_region: facts.region_before().to_owned(),
        to_region: input.to_region.clone(),
        epoch_before: input.epoch,
        epoch_after: if outcome == Outcome::Completed {
            input.epoch + 1
        } else {
            input.epoch
        },
        decided_ms: input.decided_ms,
        began_ms,
        ended_ms,
        outcome,
        outcome_reason,
        objectives,
        gaps: gaps(facts, &achieved, outcome, clients_seen),
        achieved,
        missed,
        steps: marks(request, &input.to_region),
        traffic,
        health: exercise::seen(
            &facts.observations,
            &[facts.region_before(), &input.to_region],
            from_ms,
            until_ms,
        ),
        payments,
        readiness: facts.readiness.clone(),
        not_proven,
        lost_tail: None,
        left_out: Vec::new(),
    }
}

fn scenario(facts: &Facts<'_>, kind: Kind) -> String {
    let (from, to, epoch) = (facts.region_before(), &facts.input.to_region, facts.input.epoch);
    match (kind, facts.drill()) {
        (Kind::Failover, _) => format!(
            "{from} was taken for failed in epoch {epoch}. {to} was to take over without asking it, and to recover from the journal \
             what its own database lacked."
        ),
        (Kind::Switchover, _) => format!(
            "A planned change in epoch {epoch}: {from} stops acknowledging, {to} gets everything and serves instead."
        ),
        (Kind::Drill, Some(DrillKind::Readiness)) => {
            "A drill: whether everything that a change of the active region needs is there. Nothing moves."
                .to_owned()
        }
        (Kind::Drill, Some(DrillKind::Switchover)) => {
            format!("A drill: a planned change from {from} to {to}, and back.")
        }
        (Kind::Drill, Some(DrillKind::Isolation)) => {
            format!("A drill: {from} is cut off, and {to} takes over without asking it.")
        }
        (Kind::Drill, None) => format!("A drill from {from} to {to}."),
    }
}

fn stack(facts: &Facts<'_>) -> StackFacts {
    let spec = facts.stored.as_ref().map(|stored| &stored.spec);
    StackFacts {
        suffix: facts.suffix.to_owned(),
        account: account(&facts.request.execution_arn).to_owned(),
        regions: facts.regions.clone(),
        generation: facts.stored.as_ref().map(|stored| stored.generation),
        packages: spec.map(|spec| spec.artifacts.clone()).unwrap_or_default(),
        program_version: env!("CARGO_PKG_VERSION").to_owned(),
        aurora_engine_version: spec.map(|spec| spec.aurora.engine_version.clone()),
    }
}

/// What the ledger kept, by second and region.
fn executed(facts: &Facts<'_>, kept: &Traffic, from_ms: u64, until_ms: u64) -> Vec<Second> {
    let mut seconds: Vec<Second> = Vec::new();
    for executed in &kept.executed {
        if executed.second < from_ms / 1_000 || executed.second > until_ms / 1_000 {
            continue;
        }
        if seconds.last().is_none_or(|last| last.second != executed.second) {
            seconds.push(Second {
                second: executed.second,
                ..Second::default()
            });
        }
        if let Some(last) = seconds.last_mut() {
            let region = facts.region_of(executed.epoch).to_owned();
            *last.acknowledged.entry(region).or_default() += executed.entries;
        }
    }
    seconds
}

/// The recovery time and point, with how they are known.
fn achieved(facts: &Facts<'_>, outcome: Outcome, client: Option<&ClientView>) -> Achieved {
    let (rpo_payments, rpo_how) = lost(facts, outcome, client);
    let mut achieved = Achieved {
        rto_how: "Not measured: the active region did not change.".to_owned(),
        rpo_payments,
        rpo_ms: rpo_payments.filter(|lost| *lost == 0),
        rpo_how,
        ..Achieved::default()
    };
    if outcome != Outcome::Completed {
        return achieved;
    }
    let kept = facts.traffic.as_ref().ok();
    let (last_ms, first_ms, of_clients) = match client {
        Some(client) => (client.last_acknowledged_ms, client.first_acknowledged_ms, true),
        None => (
            kept.and_then(|kept| kept.last_before_ms),
            kept.and_then(|kept| kept.first_in_ms),
            false,
        ),
    };
    let (began_ms, _) = span(facts.request, facts.input);
    let seen = exercise::seen(&facts.observations, &[facts.region_before()], 0, u64::MAX);
    let serving = |seen: &&Seen| seen.state == State::Serving;
    let last_seen_ms = seen
        .iter()
        .filter(serving)
        .map(|seen| seen.at_ms)
        .filter(|at_ms| *at_ms <= began_ms)
        .max();
    let opened_ms = facts
        .request
        .result_of(Step::Open)
        .and_then(|open| open["opened_ms"].as_u64());
    let quiet = last_ms.is_none_or(|last| last + QUIET_MS < last_seen_ms.unwrap_or(began_ms));
    if let (Some(last), Some(first), true) = (last_ms, first_ms, of_clients || !quiet) {
        achieved.last_acknowledged_ms = Some(last);
        achieved.first_acknowledged_ms = Some(first);
        achieved.rto_ms = Some(first.saturating_sub(last));
        achieved.rto_how = if of_clients {
            "From the last answer that a client had before to the first after, by the clock of the client."
                .to_owned()
        } else {
            "From the last command of the old epoch to the first of the new one, as the ledger has them: by the clocks of the two \
             regions, at the moment of execution, which is shortly before the answer."
                .to_owned()
        };
    } else if let (Some(last_seen), Some(opened)) = (last_seen_ms, opened_ms) {
        achieved.rto_ms = Some(opened.saturating_sub(last_seen));
        achieved.rto_how =
            "From the last look at which an observer saw the old region serve to the opening of the new one: \
             there were no commands on both sides to measure with."
                .to_owned();
    } else {
        achieved.rto_how =
            "Not measured: no commands on both sides, and no observer saw the old region serve.".to_owned();
    }
    achieved
}

/// The entry behind which a replay read its epoch's journal; none when it read all of it.
fn settled(replayed: &Value) -> Option<EntryId> {
    let settled = EntryId::deserialize(&replayed["settled"]).ok();
    settled.filter(|entry| entry.seq > 0)
}

/// Acknowledged payments that are lost, and how it is known.
fn lost(facts: &Facts<'_>, outcome: Outcome, client: Option<&ClientView>) -> (Option<u64>, String) {
    if let Some(lost) = client.and_then(|client| client.lost) {
        let how = "Every payment that a client had an answer for was looked up in the ledger afterwards.";
        return (Some(lost), how.to_owned());
    }
    match (outcome, facts.input.mode) {
        (Outcome::Completed, Mode::Graceful) => (
            Some(0),
            "The old region stopped acknowledging, and the database was switched over by its own planned switchover, which \
             changes the writer only when the other one has everything."
                .to_owned(),
        ),
        (Outcome::Completed, Mode::Ungraceful) => {
            let replayed = facts.request.result_of(Step::Replay).map(|result| &result["replayed"]);
            let scanned = replayed.and_then(|replayed| replayed["scanned"].as_u64());
            let behind = replayed
                .and_then(settled)
                .map_or(String::new(), |EntryId { epoch, seq }| {
                    format!(" behind {epoch}/{seq}, up to which the ledger had all of epoch {epoch}")
                });
            let conflicts = conflicts(facts);
            match scanned {
                Some(scanned) if conflicts == 0 => (
                    Some(0),
                    format!(
                        "A payment is in the journal of both regions before it is acknowledged. After the epoch had risen the \
                         journal was read, {scanned} entries{behind}. What the ledger lacked was posted before the region opened; \
                         none was left over."
                    ),
                ),
                Some(scanned) => (
                    None,
                    format!(
                        "The journal was read, {scanned} entries{behind}. {conflicts} of them were not posted because another entry \
                         has their key."
                    ),
                ),
                None => (None, "Not known: the replay left no result.".to_owned()),
            }
        }
        _ => (
            Some(0),
            "The active region did not change, so nothing of its ledger was given up.".to_owned(),
        ),
    }
}

fn conflicts(facts: &Facts<'_>) -> usize {
    let replayed = facts
        .request
        .result_of(Step::Replay)
        .map(|result| &result["replayed"]);
    replayed
        .and_then(|replayed| replayed["conflicts"].as_array())
        .map_or(0, Vec::len)
}

/// Whether all of the ledger adds up; none when nobody could look.
fn adds_up(facts: &Facts<'_>) -> Option<bool> {
    facts
        .request
        .result_of(Step::Audit)
        .and_then(|result| result["balanced"].as_bool())
}

fn payments(
    facts: &Facts<'_>,
    outcome: Outcome,
    client: Option<&ClientView>,
    seconds: &[Second],
) -> Payments {
    let replayed = facts
        .request
        .result_of(Step::Replay)
        .map(|result| &result["replayed"]);
    let (lost, _) = lost(facts, outcome, client);
    let by_construction = (adds_up(facts) == Some(true) || outcome != Outcome::Completed).then_some(0);
    let source = match (client, outcome) {
        (Some(_), _) => "Payments of the synthetic client, each looked up in the ledger afterwards.",
        (None, Outcome::Completed) => {
            "Commands that the ledger has. One idempotency key has one entry, which the database enforces; sums and balances were \
             recomputed from the log by the step `audit`."
        }
        (None, _) => "Commands that the ledger has. Nothing was moved.",
    };
    Payments {
        acknowledged: client.map_or_else(
            || seconds.iter().flat_map(|one| one.acknowledged.values()).sum(),
            |client| client.acknowledged,
        ),
        replayed: replayed.and_then(|replayed| replayed["posted"].as_u64()),
        lost,
        duplicated: client.and_then(|client| client.duplicated).or(by_construction),
        source: source.to_owned(),
    }
}

fn gaps(facts: &Facts<'_>, achieved: &Achieved, outcome: Outcome, clients_seen: bool) -> Vec<Gap> {
    let mut gaps = Vec::new();
    let mut gap = |gap: String, remedy: &str| {
        gaps.push(Gap {
            gap,
            remedy: remedy.to_owned(),
        });
    };
    if let Err(reason) = &facts.traffic {
        gap(
            format!("the ledger was asked for its traffic and did not say: {reason}"),
            "look at the log of the payment-processor in the region that serves",
        );
    }
    if facts.traffic.as_ref().is_ok_and(|traffic| !traffic.complete) && !clients_seen {
        gap(
            "there was more traffic than is counted: the beginning of the time shown is missing".to_owned(),
            "none needed; the entries are in the ledger",
        );
    }
    if outcome == Outcome::Completed && achieved.rto_ms.is_none() {
        gap(
            "no recovery time was measured".to_owned(),
            "run a drill with synthetic payments",
        );
    }
    if conflicts(facts) > 0 {
        gap(
            format!(
                "{} entries of the journal were not posted because another entry has their key",
                conflicts(facts)
            ),
            "compare them by hand: their identities are in the result of the step `replay`",
        );
    }
    if let Some(overdrawn) = facts
        .request
        .result_of(Step::Replay)
        .and_then(|result| result["replayed"]["overdrawn"].as_array())
        .filter(|overdrawn| !overdrawn.is_empty())
    {
        gap(
            format!(
                "recovered payments left {} accounts below their limit",
                overdrawn.len()
            ),
            "settle them with the customers; an acknowledged payment is honoured",
        );
    }
    match adds_up(facts) {
        Some(true) => {}
        Some(false) => gap(
            "the ledger does not add up".to_owned(),
            "see the result of the step `audit`: it names accounts and entries",
        ),
        None if outcome == Outcome::Completed => gap(
            "all of the ledger was not recomputed afterwards".to_owned(),
            "invoke the payment-processor with the task `verify-ledger`",
        ),
        None => {}
    }
    let traffic = facts.request.result_of(Step::AwaitTraffic);
    if traffic.is_some_and(|traffic| traffic["traffic_verified"] == false) {
        gap(
            "the public name did not lead to the region in time".to_owned(),
            "look at the health checks and the failover records of the zone, and at the resolver's cache",
        );
    }
    if facts.readiness.is_none() {
        gap(
            format!(
                "no readiness report of {} was stored before",
                facts.input.to_region
            ),
            "run `understudy readiness --now`",
        );
    }
    if facts.stored.is_none() {
        gap(
            "the stored configuration could not be read: versions and objectives are not those of the stack"
                .to_owned(),
            "run `understudy status`",
        );
    }
    gaps
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
