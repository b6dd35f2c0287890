//! The decision to take over: a pure function of the control record, what the observers saw, the policy and the time.
//!
//! **What is judged.** An observer outside the active region says that it is *dead* when it failed in each of the newest
//! [`Policy::rounds_to_fail`] rounds, and *grey* when too many rounds of a longer window failed or were slow ([`Grey`]).
//! [`Policy::observers`] of them must agree. Only rounds count that began while the observer knew the record in its present
//! epoch and phase: before, the region may not have been the active one. An observer that gets no answer from either region
//! may itself be cut off; its word does not count. Neither does that of one whose observation has not changed for
//! [`Policy::stale_after_ms`], as the assessor's own clock counts ([`Observation::sight`]): the clocks of the observers play
//! no part.
//!
//! **Flapping.** What acts and what waits have different thresholds. An automatic failover takes effect within a second, so it
//! needs evidence of this moment: one answered look among the newest [`Policy::rounds_to_fail`] ends the run, for the
//! probe and again for the coordinator. A region that goes up and down therefore never fails over as dead, however long that
//! lasts; when it fails in half of the rounds, it is grey, and a person is asked. A proposal waits for a person for
//! minutes, and must not come and go with every answer: once made, an observer goes on agreeing with it until the region served
//! [`Policy::rounds_to_recover`] rounds in a row, and the proposal stands as long as enough observers agree. It ends with the
//! quorum, not when all have seen the recovery: otherwise one observer that is cut off later would keep it standing.
//!
//! **A planned change.** While the phase is `draining` the active region refuses commands on purpose. Then only no answer at
//! all, or one that says that the database or the control record cannot be reached, counts as failing; and if it does,
//! nobody serves, so there is neither cool-down nor [`Policy::recovery_timeout_ms`] to wait for.

use serde::{Deserialize, Serialize};

use crate::control::{ControlRecord, Phase};
use crate::names::Regions;
use crate::observe::{Look, Observation, Round};
use crate::takeover::fit_to_take_over;
use crate::window::Window;

/// Who decides on a takeover. A later one asks more of people than an earlier one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Serialize, Deserialize)]
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
    /// Serving rounds in a row after which an observer no longer agrees with a proposal.
    pub rounds_to_recover: u32,
    /// Observers outside the active region that must agree.
    pub observers: u32,
    /// No takeover this soon after the active region changed or opened.
    pub cooldown_ms: u64,
    /// An observation that has not changed for this long says nothing.
    pub stale_after_ms: u64,
    /// A takeover that has not opened after this long counts as failed.
    pub recovery_timeout_ms: u64,
    /// A proposal that nobody answers ends after this long, and the next comes no sooner.
    pub approval_expires_ms: u64,
    /// When a person decides what otherwise the assessment alone does. UTC.
    pub blocked_windows: Vec<Window>,
    /// When an active region that answers counts as failing nevertheless.
    pub grey: Grey,
}

impl Default for Policy {
    fn default() -> Self {
        Policy {
            decider: Decider::Automatic,
            rounds_to_fail: 3,
            rounds_to_recover: 3,
            observers: 2,
            cooldown_ms: 60_000,
            stale_after_ms: 45_000,
            recovery_timeout_ms: 600_000,
            approval_expires_ms: 1_800_000,
            blocked_windows: Vec::new(),
            grey: Grey::default(),
        }
    }
}

/// When a region that serves some of the time, or slowly, counts as failing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Grey {
    /// Who decides. The stricter of this and [`Policy::decider`] applies.
    pub decider: Decider,
    /// The newest rounds that are judged; with fewer there is no judgement.
    pub window_rounds: u32,
    /// The share of them, in percent, that must have failed.
    pub failing_percent: u32,
    /// A look that took longer than this was slow.
    pub slow_ms: u64,
    /// Or the share of them, in percent, that must have been slow.
    pub slow_percent: u32,
}

impl Default for Grey {
    fn default() -> Self {
        Grey {
            decider: Decider::Approve,
            window_rounds: 20,
            failing_percent: 50,
            slow_ms: 1_500,
            slow_percent: 80,
        }
    }
}

/// How the active region fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Cause {
    /// It does not serve.
    #[default]
    Dead,
    /// It serves some of the time, or slowly.
    Grey,
}

impl std::fmt::Display for Cause {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Cause::Dead => "dead",
            Cause::Grey => "grey",
        })
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
        /// How the active region fails.
        cause: Cause,
        /// What the observers saw.
        reasons: Vec<String>,
    },
    /// Take over when a person agrees.
    Propose {
        /// The epoch that would end.
        epoch: u64,
        /// The region that would take over.
        to_region: String,
        /// How the active region fails.
        cause: Cause,
        /// What the observers saw, and why a person decides.
        reasons: Vec<String>,
    },
}

impl Verdict {
    /// The word for it: `hold`, `failover`, `propose`.
    pub fn kind(&self) -> &'static str {
        match self {
            Verdict::Hold { .. } => "hold",
            Verdict::Failover { .. } => "failover",
            Verdict::Propose { .. } => "propose",
        }
    }

    /// Why.
    pub fn reasons(&self) -> &[String] {
        match self {
            Verdict::Hold { reasons }
            | Verdict::Failover { reasons, .. }
            | Verdict::Propose { reasons, .. } => reasons,
        }
    }

    /// Whether another verdict says the same, if perhaps for other reasons.
    pub fn says_the_same(&self, other: &Verdict) -> bool {
        let essence = |verdict: &Verdict| match verdict {
            Verdict::Hold { .. } => None,
            Verdict::Failover { epoch, cause, .. } | Verdict::Propose { epoch, cause, .. } => {
                Some((*epoch, *cause))
            }
        };
        self.kind() == other.kind() && essence(self) == essence(other)
    }
}

/// A verdict as an observer keeps it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Assessed {
    /// When it was given, by the assessor's clock, milliseconds since the Unix epoch.
    pub at_ms: u64,
    /// The verdict.
    #[serde(flatten)]
    pub verdict: Verdict,
}

/// Assesses the stack from the region `me`, whose observation must be among `observations`: it says when the others changed, and
/// holds the latest assessment. `now_ms` is the time by a clock of that region. All reasons for holding are collected, so
/// that a person can read why nothing happened.
pub fn assess(
    record: &ControlRecord,
    observations: &[Observation],
    me: &str,
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
    let case = Case {
        record,
        observations,
        own: observations.iter().find(|own| own.observer == me),
        policy,
        standby,
        now_ms,
    };
    let mut against = case.what_forbids();
    let (finding, mut seen) = match case.finding() {
        Ok((finding, seen)) => (Some(finding), seen),
        Err(views) => {
            against.extend(views);
            (None, Vec::new())
        }
    };
    match case.standby_fitness() {
        Ok(who) => seen.push(format!("{who} saw `{standby}` fit to take over")),
        Err(reason) => against.push(reason),
    }
    let mut decider = policy.decider;
    if let Some(finding) = finding {
        if finding.cause == Cause::Grey {
            decider = decider.max(policy.grey.decider);
            if decider != policy.decider && decider == Decider::Manual {
                against.push("the policy leaves a grey failure to a person".to_owned());
            }
        }
        if decider == Decider::Automatic {
            if let Some(window) = policy.blocked_windows.iter().find(|open| open.contains(now_ms)) {
                decider = Decider::Approve;
                seen.push(format!("in the blocked window {window} a person decides"));
            } else if !finding.now {
                decider = Decider::Approve;
                seen.push("the failure is not of this moment, so a person decides".to_owned());
            }
        }
    }
    let (Some(Finding { cause, .. }), true) = (finding, against.is_empty()) else {
        return Verdict::Hold { reasons: against };
    };
    let (epoch, to_region, reasons) = (record.epoch, standby.to_owned(), seen);
    match decider {
        Decider::Automatic => Verdict::Failover {
            epoch,
            to_region,
            cause,
            reasons,
        },
        Decider::Approve | Decider::Manual => Verdict::Propose {
            epoch,
            to_region,
            cause,
            reasons,
        },
    }
}

/// That enough observers agree on a failure.
#[derive(Debug, Clone, Copy)]
struct Finding {
    cause: Cause,
    /// They see it now; otherwise a proposal stands whose end they have not seen.
    now: bool,
}

/// What one observer says of the active region, from the worst to the best.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Opinion {
    Dead,
    Grey,
    /// It does not fail now, but has not recovered since the proposal that stands.
    NotRecovered,
    /// It serves, or nothing is known.
    Fine,
}

/// One assessment.
struct Case<'a> {
    record: &'a ControlRecord,
    observations: &'a [Observation],
    own: Option<&'a Observation>,
    policy: &'a Policy,
    standby: &'a str,
    now_ms: u64,
}

impl<'a> Case<'a> {
    fn active(&self) -> &'a str {
        &self.record.active_region
    }

    /// What forbids a takeover whatever the observers see.
    fn what_forbids(&self) -> Vec<String> {
        let (record, policy, active) = (self.record, self.policy, self.active());
        let mut against = Vec::new();
        if record.maintenance {
            against.push("the stack is in maintenance".to_owned());
        }
        if policy.decider == Decider::Manual {
            against.push("the policy leaves failover to a person".to_owned());
        }
        let age_ms = self.record_age_ms();
        match record.phase {
            Phase::Serving if age_ms < policy.cooldown_ms => against.push(format!(
                "`{active}` opened {age_ms} ms ago, cool-down is {} ms",
                policy.cooldown_ms
            )),
            Phase::Recovering if age_ms < policy.recovery_timeout_ms => against.push(format!(
                "`{active}` is recovering since {age_ms} ms, and has {} ms",
                policy.recovery_timeout_ms
            )),
            Phase::Serving | Phase::Recovering | Phase::Draining => {}
        }
        against
    }

    /// How long the record has been in its epoch and phase: by the assessor's own clock when it was there, by the clock of who
    /// changed it otherwise.
    fn record_age_ms(&self) -> u64 {
        let known = self.own.and_then(|own| own.record.as_ref());
        let seen_ms = known
            .filter(|known| known.is(self.record))
            .and_then(|known| known.seen_ms);
        self.now_ms
            .saturating_sub(seen_ms.unwrap_or(self.record.since_ms))
    }

    /// What the observers outside the active region agree on, with what they saw; or what each of them says.
    fn finding(&self) -> Result<(Finding, Vec<String>), Vec<String>> {
        let outside = self
            .observations
            .iter()
            .filter(|seen| seen.observer != self.active());
        let opinions: Vec<(Opinion, String)> = outside.map(|seen| self.opinion(seen)).collect();
        let needed = self.policy.observers.max(1) as usize;
        let agreeing = |at_worst: Opinion| opinions.iter().filter(move |(opinion, _)| *opinion <= at_worst);
        let standing = self.standing();
        let findings = [
            (Opinion::Dead, Some(Cause::Dead), true),
            (Opinion::Grey, Some(Cause::Grey), true),
            (Opinion::NotRecovered, standing, false),
        ];
        for (opinion, cause, now) in findings {
            if let Some(cause) = cause
                && agreeing(opinion).count() >= needed
            {
                let seen = agreeing(opinion).map(|(_, why)| why.clone()).collect();
                return Ok((Finding { cause, now }, seen));
            }
        }
        let mut views: Vec<String> = opinions.iter().map(|(_, why)| why.clone()).collect();
        views.push(format!(
            "{} of {needed} observers needed agree that `{}` fails",
            agreeing(Opinion::NotRecovered).count(),
            self.active()
        ));
        Err(views)
    }

    fn opinion(&self, observation: &Observation) -> (Opinion, String) {
        let (who, active, policy) = (&observation.observer, self.active(), self.policy);
        let fine = |why: String| (Opinion::Fine, format!("{who} {why}"));
        if !self.is_recent(observation) {
            return fine(format!("has seen nothing recent of `{active}`"));
        }
        let rounds = self.counted(observation);
        let Some(newest) = rounds.last() else {
            return fine(format!("has not looked at `{active}` since it changed"));
        };
        let to_fail = policy.rounds_to_fail.max(1) as usize;
        let unanswered = |region: &str| {
            let all = observation.rounds.get(region).map_or(&[][..], Vec::as_slice);
            run(all, |round| matches!(round.look, Look::Failing { .. }))
        };
        if unanswered(active) >= to_fail && unanswered(self.standby) >= to_fail {
            return fine("gets no answer from either region: it may be cut off itself".to_owned());
        }
        let throttled = |round: &Round| matches!(round.look, Look::Failing { throttled: true, .. });
        let dead = run(rounds, |round| self.fails(round) && !throttled(round));
        if dead >= to_fail {
            let why = format!(
                "{who} saw `{active}` fail {dead} rounds in a row: {}",
                told(&newest.look)
            );
            return (Opinion::Dead, why);
        }
        // What it throttled counts from here on: that may be a grey failure.
        let failing = run(rounds, |round| self.fails(round));
        if self.record.phase == Phase::Serving
            && let Some(why) = self.grey(rounds)
        {
            return (Opinion::Grey, format!("{who} saw `{active}` {why}"));
        }
        if let Some(cause) = self.standing() {
            let good = |round: &Round| {
                let slow = cause == Cause::Grey && round.took_ms > policy.grey.slow_ms;
                !self.fails(round) && !slow
            };
            let served = run(rounds, good);
            if served < policy.rounds_to_recover as usize {
                let why = format!(
                    "{who} saw `{active}` serve {served} rounds in a row after its failure, {} end the proposal",
                    policy.rounds_to_recover
                );
                return (Opinion::NotRecovered, why);
            }
        }
        if failing == 0 {
            let does = match self.record.phase {
                Phase::Draining => "answer",
                Phase::Serving | Phase::Recovering => "serve",
            };
            return fine(format!("saw `{active}` {does}"));
        }
        fine(format!(
            "saw `{active}` fail {failing} rounds in a row, {to_fail} count: {}",
            told(&newest.look)
        ))
    }

    /// Whether the observation changed a short time ago by the clock of the assessor's region.
    fn is_recent(&self, observation: &Observation) -> bool {
        let stale_after_ms = self.policy.stale_after_ms;
        self.own
            .and_then(|own| own.first_saw(observation, stale_after_ms, self.now_ms))
            .is_some_and(|seen_ms| self.now_ms.abs_diff(seen_ms) <= stale_after_ms)
    }

    /// The rounds that say something of the active region in its present epoch and phase. Observers of the earlier version do
    /// not tell; all of theirs count.
    fn counted<'o>(&self, observation: &'o Observation) -> &'o [Round] {
        let all = observation
            .rounds
            .get(self.active())
            .map_or(&[][..], Vec::as_slice);
        let count = match &observation.record {
            None => all.len(),
            Some(known) if known.is(self.record) => known.rounds.min(all.len()),
            Some(_) => 0,
        };
        &all[all.len() - count..]
    }

    /// Whether the active region did not do in this round what its phase lets expect.
    fn fails(&self, round: &Round) -> bool {
        match (&round.look, self.record.phase) {
            (Look::Failing { .. }, _) => true,
            (Look::Serving { .. }, Phase::Draining) => false,
            (Look::Standby { health }, Phase::Draining) => {
                !health.database.reachable || health.epoch.is_none()
            }
            (Look::Serving { epoch }, Phase::Serving | Phase::Recovering) => *epoch < self.record.epoch,
            (Look::Standby { .. }, Phase::Serving | Phase::Recovering) => true,
        }
    }

    /// Why the rounds make a grey failure.
    fn grey(&self, rounds: &[Round]) -> Option<String> {
        let grey = &self.policy.grey;
        let window = grey.window_rounds.max(1) as usize;
        let newest = &rounds[rounds.len().checked_sub(window)?..];
        let reaches = |count: usize, percent: u32| count > 0 && count * 100 >= percent as usize * window;
        let failing = newest.iter().filter(|round| self.fails(round)).count();
        if reaches(failing, grey.failing_percent) {
            return Some(format!("fail in {failing} of {window} rounds"));
        }
        let slow = newest.iter().filter(|round| round.took_ms > grey.slow_ms).count();
        reaches(slow, grey.slow_percent).then(|| {
            format!(
                "take longer than {} ms in {slow} of {window} rounds",
                grey.slow_ms
            )
        })
    }

    /// The cause of the proposal that stands: the latest assessment made one, for this epoch, a short time ago.
    fn standing(&self) -> Option<Cause> {
        let latest = self.own?.assessment.as_ref()?;
        match &latest.verdict {
            Verdict::Propose { epoch, cause, .. }
                if *epoch == self.record.epoch
                    && self.now_ms.abs_diff(latest.at_ms) <= self.policy.stale_after_ms =>
            {
                Some(*cause)
            }
            _ => None,
        }
    }

    /// Who saw the standby fit (rule i), or why nobody did.
    fn standby_fitness(&self) -> Result<&'a str, String> {
        let standby = self.standby;
        let mut reason = format!("nobody has seen `{standby}` recently");
        // An observer inside the failed region may have seen the standby fit before it was cut off.
        let outside = self
            .observations
            .iter()
            .filter(|observation| observation.observer != self.active());
        for observation in outside.filter(|observation| self.is_recent(observation)) {
            let Some(round) = observation.newest(standby) else {
                continue;
            };
            match &round.look {
                Look::Standby { health } => match fit_to_take_over(self.record, &health.database) {
                    Ok(()) => return Ok(&observation.observer),
                    Err(refused) => reason = format!("`{standby}`: {refused}"),
                },
                Look::Serving { epoch } => reason = format!("`{standby}` says that it serves epoch {epoch}"),
                Look::Failing { reason: why, .. } => reason = format!("`{standby}` does not answer: {why}"),
            }
        }
        Err(reason)
    }
}

/// How many of the newest rounds in a row are such.
fn run(rounds: &[Round], such: impl Fn(&Round) -> bool) -> usize {
    rounds.iter().rev().take_while(|round| such(round)).count()
}

/// What a look gave, in a few words.
fn told(look: &Look) -> String {
    match look {
        Look::Serving { epoch } => format!("it serves epoch {epoch}"),
        Look::Standby { health } => health.reasons.join(", "),
        Look::Failing { reason, .. } => reason.clone(),
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

#[cfg(test)]
mod tests;
