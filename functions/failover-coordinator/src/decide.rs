//! What the steps decide: pure functions of what they observed.

use continuity::assess::{Policy, Verdict, assess};
use continuity::control::{ControlRecord, Phase};
use continuity::names::Regions;
use continuity::observe::{Look, Observation};
use continuity::takeover::{LedgerStatus, Refused, fit_to_take_over};
use infra::control_plane::{self, needs_us_east_1};
use infra::engine::Write;
use infra::waiting::Choice;

use crate::effects::aurora::Topology;
use crate::effects::engine::Pass;
use crate::effects::processor::LedgerSummary;
use crate::event::{Step, TakeoverInput};
use crate::limits::{REPAIR_PASSES, STUCK_PASSES};
use serde_json::Value;

/// Whether a failover goes on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Assessment {
    /// To the fence.
    Go(Vec<String>),
    /// A person has to approve.
    Propose(Vec<String>),
    /// Not now: nothing has changed.
    Hold(Vec<String>),
}

/// What the assessment looks at.
#[derive(Debug, Clone)]
pub struct Signs<'a> {
    /// The control record.
    pub record: &'a ControlRecord,
    /// What the observers saw.
    pub observations: &'a [Observation],
    /// When to take over.
    pub policy: &'a Policy,
    /// The region of each slot.
    pub regions: &'a Regions,
    /// What this region's ledger says, asked just now.
    pub ledger: &'a LedgerStatus,
    /// The time.
    pub now_ms: u64,
}

/// Whether an attempt of this failover has raised the epoch already.
pub fn fenced_by(record: &ControlRecord, input: &TakeoverInput, exercise: &str) -> bool {
    has_risen(record, input) && record.changed_by == exercise
}

/// Whether the epoch has risen for this change.
pub fn has_risen(record: &ControlRecord, input: &TakeoverInput) -> bool {
    record.epoch == input.epoch + 1 && record.active_region == input.to_region
}

/// Whether the region that this change takes over from is draining.
pub fn is_draining(record: &ControlRecord, input: &TakeoverInput) -> bool {
    record.epoch == input.epoch && record.phase == Phase::Draining
}

/// Whether the answer of a person, the result of `ask-approval`, is yes.
pub fn is_approved(answer: Option<&Value>) -> bool {
    answer.is_some_and(|answer| answer["decision"] == Choice::Approve.as_str())
}

/// The reasons in the result of an assessment.
pub fn reasons(assessment: Option<&Value>) -> Vec<String> {
    let reasons = assessment.and_then(|assessment| assessment["reasons"].as_array());
    let texts = reasons.into_iter().flatten().filter_map(Value::as_str);
    texts.map(str::to_owned).collect()
}

/// What a person may answer after this step failed. A ledger that does not add up may be opened all the same, which a person
/// answers for; what cannot be left out is tried again.
pub fn choices_at(step: &str) -> Vec<Choice> {
    match Step::ALL.into_iter().find(|known| known.as_str() == step) {
        Some(Step::Verify) => vec![Choice::Retry, Choice::Skip, Choice::Abort],
        _ => vec![Choice::Retry],
    }
}

/// Whether a person said to go on without `step`, by the result of a pause.
pub fn is_skipped(pause: Option<&Value>, step: Step) -> bool {
    pause.is_some_and(|pause| pause["decision"] == Choice::Skip.as_str() && pause["step"] == step.as_str())
}

/// What a planned change looks at.
#[derive(Debug, Clone)]
pub struct SwitchoverSigns<'a> {
    /// The control record.
    pub record: &'a ControlRecord,
    /// The global cluster.
    pub topology: &'a Topology,
    /// What the ledger of this region says.
    pub here: &'a LedgerStatus,
    /// What the ledger of the active region says, or why it says nothing.
    pub there: Result<LedgerStatus, String>,
    /// This region.
    pub region: &'a str,
}

/// Whether a planned change goes on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// It does.
    Go,
    /// Not now, for all of these reasons.
    Hold(Vec<String>),
}

/// Whether a planned change may begin, or go on after an attempt that died. All reasons against it are collected.
pub fn may_switch_over(signs: &SwitchoverSigns<'_>, input: &TakeoverInput, exercise: &str) -> Change {
    let record = signs.record;
    if has_risen(record, input) {
        return Change::Go;
    }
    if record.epoch != input.epoch {
        let why = format!(
            "the epoch is {}, this change is for the end of {}",
            record.epoch, input.epoch
        );
        return Change::Hold(vec![why]);
    }
    let mut against = Vec::new();
    if record.active_region == input.to_region {
        against.push(format!("`{}` is active already", input.to_region));
    }
    match record.phase {
        Phase::Serving => {}
        Phase::Draining if record.changed_by == exercise => {}
        Phase::Draining | Phase::Recovering => {
            against.push(format!(
                "`{}` is {} by `{}`",
                record.active_region, record.phase, record.changed_by
            ));
        }
    }
    let switched = promotion(signs.topology, signs.region) == Promotion::Done;
    for region in [signs.region, record.active_region.as_str()] {
        if promotion(signs.topology, region) == Promotion::NotAMember {
            against.push(format!("the global cluster has no cluster in `{region}`"));
        }
    }
    if let Some(target) = &signs.topology.changing_to
        && promotion(signs.topology, signs.region) != Promotion::UnderWay
    {
        against.push(format!("the global cluster is changing to `{target}`"));
    }
    let here = LedgerStatus {
        in_recovery: signs.here.in_recovery || !switched,
        ..signs.here.clone()
    };
    if let Err(refused) = fit_to_take_over(record, &here) {
        against.push(format!("`{}`: {refused}", signs.region));
    }
    match &signs.there {
        // It has given the role away, and may be restarting.
        _ if switched => {}
        Err(why) => against.push(format!("`{}` does not answer: {why}", record.active_region)),
        Ok(there) if !there.reachable => {
            against.push(format!(
                "the database of `{}` does not answer",
                record.active_region
            ));
        }
        Ok(_) => {}
    }
    if against.is_empty() {
        Change::Go
    } else {
        Change::Hold(against)
    }
}

/// Whether the ledger `here` has what `wanted` had as its newest entry.
pub fn has_caught_up(here: &LedgerSummary, wanted: &LedgerSummary) -> bool {
    here.status.reachable
        && here.status.ledger_epoch == wanted.status.ledger_epoch
        && here.last_seq >= wanted.last_seq
}

/// Decides again what the probe decided, with the ledger of this region before its eyes (rule i).
pub fn assess_again(signs: &Signs<'_>, input: &TakeoverInput, approved: bool) -> Assessment {
    let record = signs.record;
    if record.epoch != input.epoch {
        return Assessment::Hold(vec![format!(
            "the epoch is {}, this execution is for the end of {}",
            record.epoch, input.epoch
        )]);
    }
    if record.active_region == input.to_region {
        return Assessment::Hold(vec![format!("`{}` is active already", input.to_region)]);
    }
    if let Err(refused) = fit_to_take_over(record, signs.ledger) {
        return Assessment::Hold(vec![refused.to_string()]);
    }
    if input.by_person {
        return Assessment::Go(input.reasons.clone());
    }
    let verdict = assess(
        record,
        signs.observations,
        &input.to_region,
        signs.policy,
        signs.regions,
        signs.now_ms,
    );
    match verdict {
        Verdict::Hold { reasons } => Assessment::Hold(reasons),
        Verdict::Propose {
            to_region,
            mut reasons,
            ..
        } if to_region == input.to_region => {
            if approved {
                reasons.push("a person approved".to_owned());
                Assessment::Go(reasons)
            } else {
                reasons.push("a person has to approve".to_owned());
                Assessment::Propose(reasons)
            }
        }
        Verdict::Failover {
            to_region, reasons, ..
        } if to_region == input.to_region => Assessment::Go(reasons),
        Verdict::Failover { to_region, .. } | Verdict::Propose { to_region, .. } => {
            Assessment::Hold(vec![format!("`{to_region}` is the one to take over")])
        }
    }
}

/// What promoting this region's cluster takes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Promotion {
    /// It is the writer.
    Done,
    /// AWS is making it the writer.
    UnderWay,
    /// Call for the cluster with this ARN.
    Call(String),
    /// This region has no cluster in the global cluster.
    NotAMember,
}

/// What promoting the cluster of `region` takes.
pub fn promotion(topology: &Topology, region: &str) -> Promotion {
    let Some(member) = topology.members.iter().find(|member| member.region() == region) else {
        return Promotion::NotAMember;
    };
    if member.writer {
        Promotion::Done
    } else if topology.changing_to.as_ref() == Some(&member.arn) {
        Promotion::UnderWay
    } else {
        Promotion::Call(member.arn.clone())
    }
}

/// Rule (i), asked again right before the promotion: `record` is the one after the fence. Between fence and promotion another
/// takeover may have promoted the other region and rewound this one, whose ledger then lacks what the journal no longer
/// holds; promoting it would displace an acknowledged payment.
///
/// # Errors
/// Why this region's ledger must not be promoted.
pub fn fit_to_promote(
    record: &ControlRecord,
    topology: &Topology,
    region: &str,
    ledger: &LedgerStatus,
) -> Result<(), Refused> {
    let before = ControlRecord {
        epoch: record.epoch.saturating_sub(1),
        ..record.clone()
    };
    // A database that takes writes, but which the control plane does not name the writer, is a writer no more.
    let in_recovery = ledger.in_recovery || promotion(topology, region) != Promotion::Done;
    fit_to_take_over(
        &before,
        &LedgerStatus {
            in_recovery,
            ..ledger.clone()
        },
    )
}

/// Whether this region's database takes writes: the control plane and the database itself must say so.
pub fn is_writer(topology: &Topology, region: &str, ledger: &LedgerStatus) -> Result<(), String> {
    if promotion(topology, region) != Promotion::Done {
        return Err(format!("the cluster in `{region}` is not the writer yet"));
    }
    if !ledger.reachable {
        return Err("the database does not answer".to_owned());
    }
    if ledger.in_recovery {
        return Err("the database is still a standby".to_owned());
    }
    Ok(())
}

/// What is seen of a region that was taken over from.
#[derive(Debug, Clone)]
pub struct OldRegion<'a> {
    /// The epoch that the takeover began.
    pub epoch: u64,
    /// The region.
    pub region: &'a str,
    /// The control record.
    pub record: &'a ControlRecord,
    /// The global cluster.
    pub topology: &'a Topology,
    /// What its ledger says of itself, or why it says nothing.
    pub ledger: Result<LedgerStatus, String>,
}

/// Whether a region that was taken over from is back: a member of the global cluster, with a ledger in which the new epoch has
/// arrived. Only the writer of the new epoch can have put it there.
///
/// # Errors
/// Why not, in words.
pub fn is_back(seen: &OldRegion<'_>) -> Result<(), String> {
    if seen.record.phase != Phase::Serving {
        return Err(format!("the phase is {}", seen.record.phase));
    }
    if seen.record.maintenance && seen.record.repair_frozen {
        return Err("the stack is being torn down".to_owned());
    }
    if !seen
        .topology
        .members
        .iter()
        .any(|member| member.region() == seen.region)
    {
        return Err("its cluster is no member of the global cluster".to_owned());
    }
    let ledger = seen.ledger.as_ref().map_err(Clone::clone)?;
    if !ledger.reachable {
        return Err("its database does not answer".to_owned());
    }
    match ledger.ledger_epoch {
        Some(shown) if shown >= seen.epoch => Ok(()),
        Some(shown) => Err(format!("its ledger shows epoch {shown}, not {}", seen.epoch)),
        None => Err("its ledger is empty".to_owned()),
    }
}

/// Whether the engine may repair from `region`, for a deployment of `generation`.
///
/// Without a record this is the first deployment, which nothing can contradict.
///
/// # Errors
/// Why not, in words.
pub fn may_reconcile(
    record: Option<&ControlRecord>,
    region: &str,
    generation: Option<u64>,
) -> Result<(), String> {
    let Some(record) = record else { return Ok(()) };
    may_teardown(record, generation)?;
    if record.phase != Phase::Serving {
        return Err(format!("the phase is {}", record.phase));
    }
    if record.repair_frozen {
        return Err("repair is frozen".to_owned());
    }
    is_active(Some(record), region)
}

/// Whether `region` is the active one, or will be: the one that changes of the stack run in.
///
/// # Errors
/// Why not, in words.
pub fn is_active(record: Option<&ControlRecord>, region: &str) -> Result<(), String> {
    match record {
        Some(record) if record.active_region != region => Err(format!(
            "`{}` is active, and only it may repair",
            record.active_region
        )),
        _ => Ok(()),
    }
}

/// Whether a scheduled reconcile has anything to do here and now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Standing {
    /// It has.
    Go,
    /// Another region is active, and its own schedule does the work.
    NotActive(String),
    /// The epoch is changing, repair is frozen, or a configuration is stored whose deployment has not begun.
    Held(String),
}

/// Whether a scheduled reconcile has anything to do in `region`, where the configuration `stored` is of that generation. What
/// `up` stored and did not begin to deploy is no drift: it waits for the next `up`.
pub fn may_repair(record: &ControlRecord, region: &str, stored: u64) -> Standing {
    if record.active_region != region {
        return Standing::NotActive(format!("`{}` is active", record.active_region));
    }
    if stored > record.generation {
        return Standing::Held(format!(
            "generation {stored} is stored, and the last that was deployed is {}",
            record.generation
        ));
    }
    match may_reconcile(Some(record), region, Some(stored)) {
        Ok(()) => Standing::Go,
        Err(why) => Standing::Held(why),
    }
}

/// Whether a write may be tried while us-east-1 is failing, as `failing` tells; without it, it may.
///
/// # Errors
/// What the write needs there, in words.
pub fn may_write(failing: Option<&str>, write: Write<'_>) -> Result<(), String> {
    match (failing, needs_us_east_1(write.kind, write.region)) {
        (Some(seen), Some(what)) => Err(format!(
            "{} is failing, and it needs {what} ({seen})",
            control_plane::REGION
        )),
        _ => Ok(()),
    }
}

/// Whether a reconcile ends after its `passes`th pass. What waits for a region to come back is left to the next execution.
pub fn repair_ends(done: bool, passes: u64, stuck: bool, region_failing: bool) -> bool {
    done || stuck || region_failing || passes >= REPAIR_PASSES
}

/// Whether the stack may be taken apart for a deployment of `generation`.
///
/// # Errors
/// Why not, in words.
pub fn may_teardown(record: &ControlRecord, generation: Option<u64>) -> Result<(), String> {
    match generation {
        Some(generation) if generation < record.generation => Err(format!(
            "generation {generation} is older than {}",
            record.generation
        )),
        _ => Ok(()),
    }
}

/// The record with the newer generation, when there is one to store.
pub fn with_generation(record: &ControlRecord, generation: Option<u64>) -> Option<ControlRecord> {
    let generation = generation.filter(|generation| *generation > record.generation)?;
    Some(ControlRecord {
        generation,
        version: record.version + 1,
        ..record.clone()
    })
}

/// The record of a stack that is being taken apart, when it is not stored yet: nobody takes over, nobody repairs.
pub fn for_teardown(record: &ControlRecord, execution: &str) -> Option<ControlRecord> {
    if record.maintenance && record.repair_frozen {
        return None;
    }
    Some(ControlRecord {
        maintenance: true,
        repair_frozen: true,
        changed_by: execution.to_owned(),
        version: record.version + 1,
        ..record.clone()
    })
}

/// The record with repair and takeovers allowed again, when a teardown of this stack was begun and given up.
pub fn after_teardown(record: &ControlRecord, execution: &str) -> Option<ControlRecord> {
    // The caller holds the change: no teardown runs.
    let begun = record.repair_frozen && record.maintenance && record.changed_by.starts_with("teardown-");
    begun.then(|| ControlRecord {
        maintenance: false,
        repair_frozen: false,
        changed_by: execution.to_owned(),
        version: record.version + 1,
        ..record.clone()
    })
}

/// How many passes in a row moved nothing while resources failed.
pub fn stuck_passes(before: u64, pass: &Pass) -> u64 {
    let progress = &pass.progress;
    let moved_nothing = pass.changed.is_empty() && progress.waiting.is_empty() && !progress.failed.is_empty();
    if moved_nothing { before + 1 } else { 0 }
}

/// Whether the workflow gives up.
pub fn is_stuck(stuck_passes: u64) -> bool {
    stuck_passes >= STUCK_PASSES
}

/// Whether enough observers see the active region serve the record's epoch.
///
/// # Errors
/// What each of them sees instead, in words.
pub fn observed_serving(
    record: &ControlRecord,
    observations: &[Observation],
    policy: &Policy,
    now_ms: u64,
) -> Result<Vec<String>, String> {
    let mut agreeing = Vec::new();
    let mut others = Vec::new();
    for observation in observations {
        let who = &observation.observer;
        match observation.newest(&record.active_region) {
            None => others.push(format!("{who} has not looked")),
            Some(round) if now_ms.saturating_sub(round.at_ms) > policy.stale_after_ms => {
                others.push(format!("{who} has not looked recently"));
            }
            Some(round) => match &round.look {
                Look::Serving { epoch } if *epoch >= record.epoch => agreeing.push(who.clone()),
                Look::Serving { epoch } => others.push(format!("{who} saw epoch {epoch}")),
                Look::Standby { health } => others.push(format!("{who} saw: {}", health.reasons.join(", "))),
                Look::Failing { reason, .. } => others.push(format!("{who} saw: {reason}")),
            },
        }
    }
    if agreeing.len() >= policy.observers as usize && !agreeing.is_empty() {
        return Ok(agreeing);
    }
    if observations.is_empty() {
        others.push("no observer has written anything".to_owned());
    }
    Err(others.join("; "))
}

/// How the standby region is, as the observers saw it since it was changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Standby {
    /// This observer saw it answer: its API, its function and its reads of the tables work. That its database takes no writes is
    /// what a standby is.
    Answers(String),
    /// It failed as often in a row as a region must to be taken over.
    Fails(String),
    /// Nobody has looked often enough.
    NotSeen(String),
}

/// How the standby `region` is, from what was seen since `since_ms`. `rounds` failing looks in a row of one observer are no
/// accident.
pub fn observed_standby(region: &str, observations: &[Observation], since_ms: u64, rounds: usize) -> Standby {
    let mut others = Vec::new();
    let mut fails = false;
    for observation in observations {
        let who = &observation.observer;
        let all = observation.rounds.get(region).map_or(&[][..], Vec::as_slice);
        let since: Vec<_> = all.iter().filter(|round| round.at_ms >= since_ms).collect();
        match since.last().map(|round| &round.look) {
            Some(Look::Standby { .. }) => return Standby::Answers(who.clone()),
            Some(Look::Serving { epoch }) => others.push(format!("{who} saw it serve epoch {epoch}")),
            Some(Look::Failing { reason, .. }) => {
                let failing =
                    |round: &&&continuity::observe::Round| matches!(round.look, Look::Failing { .. });
                fails |= since.iter().rev().take_while(failing).count() >= rounds;
                others.push(format!("{who} saw: {reason}"));
            }
            None => others.push(format!("{who} has not looked since")),
        }
    }
    if observations.is_empty() {
        others.push("no observer has written anything".to_owned());
    }
    let why = format!("{region} does not answer as the standby: {}", others.join("; "));
    if fails {
        Standby::Fails(why)
    } else {
        Standby::NotSeen(why)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use continuity::observe::Round;
    use infra::outcome::{FailedWith, Progress, WaitingFor};

    use super::*;
    use crate::effects::aurora::Member;
    use crate::testing::{DR, HOME, WITNESS, home_down, standby_ledger};

    const NOW: u64 = 1_000_000;

    fn record() -> ControlRecord {
        ControlRecord::first(HOME, "deploy", 0)
    }

    fn input(epoch: u64) -> TakeoverInput {
        TakeoverInput {
            epoch,
            to_region: DR.into(),
            started_by: "health-probe".into(),
            reasons: vec![],
            decided_ms: None,
            mode: crate::event::Mode::Ungraceful,
            by_person: false,
            or_ungraceful: false,
        }
    }

    /// What an assessment comes to.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    enum Word {
        Go,
        Propose,
        Hold,
    }

    #[test]
    fn assessments_as_a_table() {
        let down = home_down(NOW);
        let fit = standby_ledger(1);
        let approve = Policy {
            decider: continuity::assess::Decider::Approve,
            ..Policy::default()
        };
        let changed = ControlRecord { epoch: 2, ..record() };
        type Row<'a> = (
            &'a str,
            ControlRecord,
            &'a [Observation],
            &'a Policy,
            LedgerStatus,
            TakeoverInput,
            bool,
            Word,
        );
        let automatic = Policy::default();
        let ours = || input(1);
        let by_person = || TakeoverInput {
            by_person: true,
            reasons: vec!["the operator says so".into()],
            ..input(1)
        };
        let unreachable = LedgerStatus {
            reachable: false,
            ..fit.clone()
        };
        let active_here = ControlRecord {
            active_region: DR.into(),
            ..record()
        };
        let rows: Vec<Row<'_>> = vec![
            (
                "all signs agree",
                record(),
                &down,
                &automatic,
                fit.clone(),
                ours(),
                false,
                Word::Go,
            ),
            (
                "another takeover came first",
                changed,
                &down,
                &automatic,
                fit.clone(),
                ours(),
                false,
                Word::Hold,
            ),
            (
                "the observers no longer agree",
                record(),
                &down[..1],
                &automatic,
                fit.clone(),
                ours(),
                false,
                Word::Hold,
            ),
            (
                "rule (i): our ledger is behind, whatever the observers saw",
                record(),
                &down,
                &automatic,
                standby_ledger(0),
                ours(),
                false,
                Word::Hold,
            ),
            (
                "our database does not answer",
                record(),
                &down,
                &automatic,
                unreachable.clone(),
                ours(),
                false,
                Word::Hold,
            ),
            (
                "a person has to approve",
                record(),
                &down,
                &approve,
                fit.clone(),
                ours(),
                false,
                Word::Propose,
            ),
            (
                "a person approved",
                record(),
                &down,
                &approve,
                fit.clone(),
                ours(),
                true,
                Word::Go,
            ),
            (
                "a person approved what is over",
                record(),
                &down[..1],
                &approve,
                fit.clone(),
                ours(),
                true,
                Word::Hold,
            ),
            (
                "a person decided, whatever is seen",
                record(),
                &[],
                &approve,
                fit.clone(),
                by_person(),
                false,
                Word::Go,
            ),
            (
                "a person cannot decide against rule (i)",
                record(),
                &[],
                &automatic,
                standby_ledger(0),
                by_person(),
                false,
                Word::Hold,
            ),
            (
                "a person cannot decide against a dead database",
                record(),
                &[],
                &automatic,
                unreachable,
                by_person(),
                false,
                Word::Hold,
            ),
            (
                "the region is active already",
                active_here,
                &[],
                &automatic,
                fit.clone(),
                by_person(),
                false,
                Word::Hold,
            ),
        ];
        for (row, record, observations, policy, ledger, input, approved, expected) in rows {
            let signs = Signs {
                record: &record,
                observations,
                policy,
                regions: &Regions::default(),
                ledger: &ledger,
                now_ms: NOW,
            };
            let assessment = assess_again(&signs, &input, approved);
            let (word, reasons) = match &assessment {
                Assessment::Go(reasons) => (Word::Go, reasons),
                Assessment::Propose(reasons) => (Word::Propose, reasons),
                Assessment::Hold(reasons) => (Word::Hold, reasons),
            };
            assert_eq!(word, expected, "{row}: {assessment:?}");
            assert!(!reasons.is_empty(), "{row}");
        }
    }

    #[test]
    fn planned_changes_as_a_table() {
        let serving = LedgerStatus {
            in_recovery: false,
            ..standby_ledger(1)
        };
        let draining = |by: &str| ControlRecord {
            phase: Phase::Draining,
            changed_by: by.into(),
            ..record()
        };
        let risen = ControlRecord {
            epoch: 2,
            active_region: DR.into(),
            phase: Phase::Recovering,
            ..record()
        };
        let silent = || Err("no answer in time".to_owned());
        let rows = [
            (
                "both are well",
                record(),
                topology(HOME, None),
                standby_ledger(1),
                Ok(serving.clone()),
                0,
            ),
            (
                "an attempt of ours died",
                draining("switchover-dev-2"),
                topology(HOME, None),
                standby_ledger(1),
                Ok(serving.clone()),
                0,
            ),
            (
                "the database has switched",
                draining("switchover-dev-2"),
                topology(DR, None),
                serving.clone(),
                silent(),
                0,
            ),
            (
                "the database is switching",
                draining("switchover-dev-2"),
                topology(HOME, Some(DR)),
                standby_ledger(1),
                Ok(serving.clone()),
                0,
            ),
            (
                "the epoch has risen for us",
                risen,
                topology(DR, None),
                serving.clone(),
                silent(),
                0,
            ),
            (
                "another change drains",
                draining("switchover-dev-3"),
                topology(HOME, None),
                standby_ledger(1),
                Ok(serving.clone()),
                1,
            ),
            (
                "the active region does not answer",
                record(),
                topology(HOME, None),
                standby_ledger(1),
                silent(),
                1,
            ),
            (
                "rule (i)",
                record(),
                topology(HOME, None),
                standby_ledger(0),
                Ok(serving.clone()),
                1,
            ),
            (
                "the cluster changes elsewhere",
                record(),
                topology(HOME, Some(HOME)),
                standby_ledger(1),
                Ok(serving.clone()),
                1,
            ),
            (
                "the standby is no member",
                record(),
                Topology::default(),
                standby_ledger(0),
                silent(),
                4,
            ),
        ];
        for (row, record, topology, here, there, against) in rows {
            let signs = SwitchoverSigns {
                record: &record,
                topology: &topology,
                here: &here,
                there,
                region: DR,
            };
            let reasons = match may_switch_over(&signs, &input(1), "switchover-dev-2") {
                Change::Go => vec![],
                Change::Hold(reasons) => reasons,
            };
            assert_eq!(reasons.len(), against, "{row}: {reasons:?}");
        }
    }

    #[test]
    fn a_failover_recognises_its_own_fence_only() {
        let fenced = ControlRecord {
            epoch: 2,
            active_region: DR.into(),
            changed_by: "failover-dev-2".into(),
            ..record()
        };
        assert!(fenced_by(&fenced, &input(1), "failover-dev-2"));
        assert!(!fenced_by(&fenced, &input(1), "switchover-dev-2"));
        assert!(!fenced_by(&fenced, &input(2), "failover-dev-2"));
        assert!(!fenced_by(&record(), &input(1), "failover-dev-2"));
    }

    fn topology(writer: &str, changing_to: Option<&str>) -> Topology {
        let arn = |region: &str| format!("arn:aws:rds:{region}:000000000000:cluster:aurora-x-dev");
        Topology {
            members: [HOME, DR]
                .map(|region| Member {
                    arn: arn(region),
                    writer: region == writer,
                })
                .to_vec(),
            changing_to: changing_to.map(arn),
        }
    }

    #[test]
    fn a_target_that_was_fit_at_the_fence_is_asked_again_before_its_promotion() {
        let fenced = |epoch, last_served_epoch| ControlRecord {
            epoch,
            last_served_epoch,
            phase: continuity::control::Phase::Recovering,
            active_region: DR.into(),
            ..ControlRecord::first(HOME, "test", 0)
        };
        let writing = |epoch| LedgerStatus {
            in_recovery: false,
            ..standby_ledger(epoch)
        };
        let rows = [
            (
                "a replica of the epoch that ends",
                fenced(2, 1),
                topology(HOME, None),
                standby_ledger(1),
                true,
            ),
            (
                "a replica of an older epoch",
                fenced(3, 1),
                topology(HOME, None),
                standby_ledger(1),
                false,
            ),
            (
                "still the writer of the last epoch that served",
                fenced(3, 1),
                topology(DR, None),
                writing(1),
                true,
            ),
            (
                "fenced as the writer of the last epoch that served, then another was promoted and this one rewound",
                fenced(3, 1),
                topology(HOME, None),
                standby_ledger(1),
                false,
            ),
            (
                "it takes writes, but is the writer no more",
                fenced(3, 1),
                topology(HOME, None),
                writing(1),
                false,
            ),
        ];
        for (row, record, topology, ledger, fit) in rows {
            assert_eq!(
                fit_to_promote(&record, &topology, DR, &ledger).is_ok(),
                fit,
                "{row}"
            );
        }
    }

    #[test]
    fn promotions_as_a_table() {
        let arn = topology(HOME, None).members[1].arn.clone();
        let rows = [
            (
                topology(HOME, None),
                Promotion::Call(arn.clone()),
                "the other writes",
            ),
            (topology(DR, None), Promotion::Done, "ours writes"),
            (topology(HOME, Some(DR)), Promotion::UnderWay, "AWS is at it"),
            (
                topology(HOME, Some(HOME)),
                Promotion::Call(arn),
                "AWS is at something else",
            ),
            (
                Topology::default(),
                Promotion::NotAMember,
                "our cluster was removed",
            ),
        ];
        for (topology, expected, row) in rows {
            assert_eq!(promotion(&topology, DR), expected, "{row}");
        }
    }

    #[test]
    fn the_database_itself_must_say_that_it_writes() {
        let writing = LedgerStatus {
            in_recovery: false,
            ..standby_ledger(1)
        };
        let silent = LedgerStatus {
            reachable: false,
            ..writing.clone()
        };
        assert!(is_writer(&topology(DR, None), DR, &writing).is_ok());
        assert!(is_writer(&topology(HOME, None), DR, &writing).is_err());
        assert!(is_writer(&topology(DR, None), DR, &standby_ledger(1)).is_err());
        assert!(is_writer(&topology(DR, None), DR, &silent).is_err());
    }

    #[test]
    fn reconcile_refusals_as_a_table() {
        let rows = [
            (None, None, true, "the first deployment"),
            (Some(record()), None, true, "the active region, serving"),
            (Some(record()), Some(2), true, "a newer configuration"),
            (
                Some(ControlRecord {
                    generation: 3,
                    ..record()
                }),
                Some(2),
                false,
                "a stale generation",
            ),
            (
                Some(ControlRecord {
                    repair_frozen: true,
                    ..record()
                }),
                None,
                false,
                "frozen",
            ),
            (
                Some(ControlRecord {
                    phase: Phase::Recovering,
                    ..record()
                }),
                None,
                false,
                "a takeover is under way",
            ),
            (
                Some(ControlRecord {
                    phase: Phase::Draining,
                    ..record()
                }),
                None,
                false,
                "draining",
            ),
            (
                Some(ControlRecord {
                    active_region: DR.into(),
                    ..record()
                }),
                None,
                false,
                "not active",
            ),
        ];
        for (record, generation, allowed, row) in rows {
            assert_eq!(
                may_reconcile(record.as_ref(), HOME, generation).is_ok(),
                allowed,
                "{row}"
            );
        }
    }

    #[test]
    fn where_a_scheduled_reconcile_goes_on_as_a_table() {
        let kind = |standing| match standing {
            Standing::Go => "go",
            Standing::NotActive(_) => "not active",
            Standing::Held(_) => "held",
        };
        let changed = |change: fn(&mut ControlRecord)| {
            let mut record = record();
            change(&mut record);
            record
        };
        let rows = [
            (record(), 1, "go"),
            (changed(|r| r.active_region = DR.into()), 1, "not active"),
            (changed(|r| r.phase = Phase::Recovering), 1, "held"),
            (changed(|r| r.phase = Phase::Draining), 1, "held"),
            (changed(|r| r.repair_frozen = true), 1, "held"),
            (changed(|r| r.maintenance = true), 1, "go"),
            (record(), 2, "held"),
            (changed(|r| r.generation = 3), 2, "held"),
        ];
        for (record, stored, expected) in rows {
            assert_eq!(
                kind(may_repair(&record, HOME, stored)),
                expected,
                "{record:?} {stored}"
            );
        }
    }

    #[test]
    fn writes_while_us_east_1_fails_as_a_table() {
        let rows = [
            ("lambda-function", DR, true),
            ("dynamodb-table", DR, true),
            ("lambda-function", HOME, false),
            ("iam-role", DR, false),
            ("record-set", DR, false),
            ("s3-policy", DR, false),
            ("s3-replication", WITNESS, false),
            ("rest-api", DR, false),
            ("api-stage", DR, true),
            ("vpc-endpoint", DR, false),
        ];
        for (kind, region, allowed) in rows {
            let write = Write {
                key: "k",
                kind,
                region,
            };
            assert_eq!(
                may_write(Some("seen"), write).is_ok(),
                allowed,
                "{kind} in {region}"
            );
            assert!(may_write(None, write).is_ok(), "nothing fails");
        }
    }

    #[test]
    fn a_teardown_stops_takeovers_and_repairs_once() {
        let stopped = for_teardown(&record(), "teardown-1").unwrap();
        assert!(stopped.maintenance && stopped.repair_frozen);
        assert_eq!(stopped.version, record().version + 1);
        assert_eq!(for_teardown(&stopped, "teardown-1"), None);
        assert!(
            may_teardown(
                &ControlRecord {
                    generation: 3,
                    ..record()
                },
                Some(2)
            )
            .is_err()
        );
    }

    #[test]
    fn only_what_a_teardown_stopped_is_lifted() {
        let stopped = for_teardown(&record(), "teardown-dev-1").unwrap();
        let lifted = after_teardown(&stopped, "deploy-dev-2").unwrap();
        assert!(!lifted.maintenance && !lifted.repair_frozen);
        assert!(may_reconcile(Some(&lifted), HOME, None).is_ok());
        let by_a_person = ControlRecord {
            changed_by: "maintenance on".into(),
            ..stopped
        };
        assert_eq!(after_teardown(&by_a_person, "deploy-dev-2"), None);
        let takeover = ControlRecord {
            repair_frozen: true,
            changed_by: "failover-dev-2".into(),
            ..record()
        };
        assert_eq!(after_teardown(&takeover, "deploy-dev-2"), None);
    }

    #[test]
    fn only_passes_that_move_nothing_and_fail_count_as_stuck() {
        let pass = |changed: &[&str], waiting: &[&str]| Pass {
            done: false,
            changed: changed.iter().map(|key| (*key).to_owned()).collect(),
            progress: Progress {
                failed: vec![FailedWith {
                    key: "vpc.dr".into(),
                    error: "denied".into(),
                }],
                waiting: waiting
                    .iter()
                    .map(|key| WaitingFor {
                        key: (*key).into(),
                        on: "creating".into(),
                    })
                    .collect(),
                ..Progress::default()
            },
            ..Pass::default()
        };
        let (moving, waiting, failing) = (
            pass(&["vpc.primary"], &[]),
            pass(&[], &["aurora.dr"]),
            pass(&[], &[]),
        );
        assert_eq!(stuck_passes(2, &moving), 0);
        assert_eq!(stuck_passes(2, &waiting), 0);
        assert_eq!(stuck_passes(2, &failing), 3);
        assert!(!is_stuck(STUCK_PASSES - 1) && is_stuck(STUCK_PASSES));
    }

    #[test]
    fn a_stack_serves_when_enough_observers_see_it() {
        let seen = |observer: &str, at_ms: u64, look: Look| {
            let mut observation = Observation::new(observer);
            observation.push(
                HOME,
                Round {
                    at_ms,
                    took_ms: 1,
                    look,
                },
            );
            observation
        };
        let policy = Policy::default();
        let serving = || Look::Serving { epoch: 1 };
        let enough = [seen(DR, NOW, serving()), seen(WITNESS, NOW, serving())];
        assert!(observed_serving(&record(), &enough, &policy, NOW).is_ok());
        assert!(observed_serving(&record(), &enough[..1], &policy, NOW).is_err());
        let stale = [seen(DR, NOW, serving()), seen(WITNESS, 0, serving())];
        assert!(observed_serving(&record(), &stale, &policy, NOW).is_err());
        let refused = Look::Failing {
            reason: "connection refused".into(),
            throttled: false,
        };
        let one_fails = [seen(DR, NOW, serving()), seen(WITNESS, NOW, refused)];
        let why = observed_serving(&record(), &one_fails, &policy, NOW).unwrap_err();
        assert!(why.contains("us-west-2 saw: connection refused"), "{why}");
    }

    #[test]
    fn a_standby_works_when_somebody_saw_it_answer_as_one_after_the_change() {
        let health = continuity::observe::Health {
            region: DR.into(),
            slot: "dr".into(),
            serving: false,
            epoch: Some(1),
            phase: None,
            active_region: Some(HOME.into()),
            database: standby_ledger(1),
            reasons: vec!["not active".into()],
        };
        let seen = |observer: &str, at_ms: u64, look: Look| {
            let mut observation = Observation::new(observer);
            observation.rounds.insert(
                DR.into(),
                vec![Round {
                    at_ms,
                    took_ms: 1,
                    look,
                }],
            );
            observation
        };
        let standby = || Look::Standby {
            health: health.clone(),
        };
        let crash = || Look::Failing {
            reason: "502".into(),
            throttled: false,
        };
        let rows = [
            (vec![seen(HOME, NOW, standby())], "answers us-east-1"),
            (
                vec![seen(HOME, NOW, crash()), seen(WITNESS, NOW, standby())],
                "answers us-west-2",
            ),
            (
                vec![seen(HOME, NOW - 1, standby())],
                "not seen us-east-1 has not looked since",
            ),
            (vec![seen(HOME, NOW, crash())], "fails us-east-1 saw: 502"),
            (
                vec![seen(HOME, NOW, Look::Serving { epoch: 2 })],
                "not seen us-east-1 saw it serve epoch 2",
            ),
            (vec![], "not seen no observer"),
        ];
        let told = |seen: &[Observation], rounds| match observed_standby(DR, seen, NOW, rounds) {
            Standby::Answers(who) => format!("answers {who}"),
            Standby::Fails(why) => format!("fails {why}"),
            Standby::NotSeen(why) => format!("not seen {why}"),
        };
        for (observations, expected) in rows {
            let told = told(&observations, 1).replace("us-east-2 does not answer as the standby: ", "");
            assert!(told.starts_with(expected), "{told} instead of {expected}");
        }
        let once = [seen(HOME, NOW, crash())];
        assert!(
            told(&once, 2).starts_with("not seen"),
            "one failing look may be an accident"
        );
    }
}
