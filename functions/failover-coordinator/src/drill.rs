//! What a drill decides, purely: whether it begins, what it does next, and what its payments say. A drill is the item `drill` of
//! the control table; every step reads it, decides by it and by the control record, and stores it anew. So a drill that was killed
//! anywhere goes on where it was.

use continuity::clock;
use continuity::control::{ControlRecord, Phase};
use continuity::names::Regions;
use continuity::synthetic::{Payment, Slice};
use infra::exercise::DrillKind;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::event::Mode;

/// The item of the control table.
pub const ITEM: &str = "drill";
/// Payments flow for this long before anything is changed: what is measured afterwards is compared with it.
pub const BASELINE_MS: u64 = 10_000;
/// Without an acknowledged payment by then nothing is changed at all.
pub const BASELINE_LIMIT_MS: u64 = 90_000;
/// A planned change that is not over by now has gone wrong; the drill goes on watching, but waits for nothing more than home.
pub const CHANGE_LIMIT_MS: u64 = 900_000;
/// An isolation that is not in force by now is given up.
pub const ISOLATION_LIMIT_MS: u64 = 300_000;
/// An isolated region that nobody has begun to take over from by now is joined again.
pub const TAKEOVER_LIMIT_MS: u64 = 300_000;
/// A region that was joined again stands by within this time, or the other one goes on serving. Aurora rebuilds a cluster meanwhile.
pub const REJOIN_LIMIT_MS: u64 = 3_600_000;
/// Attempts to come back.
pub const ATTEMPTS_BACK: u32 = 5;
/// One slice of payments.
pub const SLICE_MS: u64 = 10_000;
/// Slices after the exercise is over, at most, until payments flow again.
pub const SLICES_AFTER: u32 = 6;
/// During the hold the other region is left at once when a smaller share than this (percent) of a slice's payments is acknowledged.
pub const LEAST_ACKNOWLEDGED_PERCENT: u64 = 95;
/// And when 95 of 100 of a slice's payments take longer than this.
pub const SLOW_MS: u64 = 2_000;

/// How a drill was asked for: the input of its execution.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
pub struct Asked {
    /// Which exercise; without one the configuration's.
    #[serde(default)]
    pub kind: Option<String>,
    /// How long the other region serves, seconds; without one the configuration's.
    #[serde(default)]
    pub hold_seconds: Option<u64>,
    /// Who asked: `schedule`, or an operator.
    #[serde(default)]
    pub started_by: Option<String>,
}

/// The longest hold: an item of the control table holds each second of the drill.
pub const LONGEST_HOLD_S: u64 = 1_800;

/// Where a drill is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Stage {
    /// Payments flow, nothing is changed yet.
    Baseline,
    /// The other region takes over.
    There,
    /// It serves.
    Hold,
    /// The region that was cut off is joined again, and becomes the standby.
    Rejoin,
    /// The first region takes over again.
    Back,
    /// The stack is left alone.
    Over,
}

/// When a stage began.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mark {
    /// The stage.
    pub stage: Stage,
    /// Milliseconds since the Unix epoch.
    pub at_ms: u64,
}

/// A drill.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Drill {
    /// `drill-{suffix}-{yyyymmddThhmmss}`.
    pub id: String,
    /// What it exercises.
    pub kind: DrillKind,
    /// The ARN of the execution that makes it.
    pub execution: String,
    /// Who asked for it.
    pub started_by: String,
    /// The region that served when it began, and is to serve at its end.
    pub home: String,
    /// The region that takes over meanwhile.
    pub target: String,
    /// The epoch when it began.
    pub epoch: u64,
    /// How long the other region serves, milliseconds.
    pub hold_ms: u64,
    /// Synthetic payments a second.
    pub per_second: u32,
    /// The longest time without an acknowledgement that it may show, milliseconds.
    pub longest_gap_ms: u64,
    /// When it began.
    pub began_ms: u64,
    /// Where it is.
    pub stage: Stage,
    /// Since when.
    pub stage_ms: u64,
    /// The stages so far.
    pub marks: Vec<Mark>,
    /// The execution of the change that it started last.
    pub change: Option<String>,
    /// Of an isolation: the observers decide by themselves; otherwise the drill starts the failover, as a person would.
    #[serde(default)]
    pub observers_decide: bool,
    /// Of an isolation: since when all of the region was cut off.
    #[serde(default)]
    pub isolated_ms: Option<u64>,
    /// Of an isolation: since when all of it is put back.
    #[serde(default)]
    pub restored_ms: Option<u64>,
    /// Switchovers that were started to come back.
    pub attempts_back: u32,
    /// Why it did not go as planned.
    pub aborted: Option<String>,
    /// When it was over and told of.
    pub ended_ms: Option<u64>,
}

impl Drill {
    /// The next stage, from `now_ms`.
    #[must_use]
    pub fn at(&self, stage: Stage, now_ms: u64) -> Drill {
        let mut next = self.clone();
        if stage != self.stage {
            next.stage = stage;
            next.stage_ms = now_ms;
            next.marks.push(Mark { stage, at_ms: now_ms });
        }
        next
    }

    /// The same, with the reason why it does not go as planned; the first reason counts.
    #[must_use]
    pub fn aborted(mut self, why: impl Into<String>) -> Drill {
        self.aborted.get_or_insert_with(|| why.into());
        self
    }
}

/// Whether a drill begins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Begin {
    /// It does, from this region to that one.
    Now {
        /// The region that serves.
        home: String,
        /// The epoch.
        epoch: u64,
    },
    /// The other region's execution does it: nothing to tell.
    NotHere,
    /// Not now, for these reasons.
    NotNow(Vec<String>),
}

/// What a beginning goes by.
#[derive(Debug, Clone, Copy)]
pub struct Signs<'a> {
    /// The control record.
    pub record: Option<&'a ControlRecord>,
    /// The regions of the stack.
    pub regions: &'a Regions,
    /// The region that this runs in.
    pub me: &'a str,
    /// A deployment or a teardown that runs.
    pub change: Option<&'a str>,
    /// Another drill that runs.
    pub drill: Option<&'a str>,
    /// The blocked window that is open.
    pub blocked: Option<&'a str>,
}

/// Whether a drill begins: in the standby of a stack that serves, that nobody else is changing, outside blocked windows. A scheduled
/// repair is no reason: it stops by itself when the region drains.
pub fn may_begin(signs: &Signs<'_>) -> Begin {
    let Some(record) = signs.record else {
        return Begin::NotHere;
    };
    if signs.regions.peer_of(&record.active_region) != Some(signs.me) {
        return Begin::NotHere;
    }
    let mut reasons = Vec::new();
    if record.phase != Phase::Serving {
        reasons.push(format!(
            "`{}` is {}, not serving",
            record.active_region, record.phase
        ));
    }
    if record.maintenance {
        reasons.push("the stack is in maintenance".to_owned());
    }
    if record.repair_frozen {
        reasons.push(format!("repair is frozen since `{}`", record.changed_by));
    }
    if let Some(window) = signs.blocked {
        reasons.push(format!(
            "the window {window} is blocked (`drill.blocked_windows`)"
        ));
    }
    if let Some(change) = signs.change {
        reasons.push(format!("`{change}` is changing the stack"));
    }
    if let Some(drill) = signs.drill {
        reasons.push(format!("`{drill}` is running"));
    }
    if reasons.is_empty() {
        return Begin::Now {
            home: record.active_region.clone(),
            epoch: record.epoch,
        };
    }
    Begin::NotNow(reasons)
}

/// The id of a drill that begins at `now_ms`: `drill-dev-20261127T060000`.
pub fn id(suffix: &str, now_ms: u64) -> String {
    let seconds = now_ms / 1000 % 86_400;
    let (year, month, day) = clock::civil(now_ms / 86_400_000);
    let (hour, minute, second) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    format!("drill-{suffix}-{year:04}{month:02}{day:02}T{hour:02}{minute:02}{second:02}")
}

/// What a drill does next.
#[derive(Debug, Clone, PartialEq)]
pub enum Next {
    /// Look again.
    Wait,
    /// The drill is stored so.
    Go(Drill),
    /// A change of the record's epoch to this region is started; then the drill is stored so, with the execution's name.
    Start {
        /// The region that is to serve.
        to_region: String,
        /// A switchover, or a failover.
        mode: Mode,
        /// The drill afterwards.
        then: Drill,
    },
}

/// What the payments of the newest slice say.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Recent {
    /// When the slice began, milliseconds since the Unix epoch.
    pub began_ms: u64,
    /// Payments sent.
    pub sent: u64,
    /// Payments acknowledged.
    pub acknowledged: u64,
    /// 95 of 100 acknowledged ones took no longer than this, milliseconds.
    pub p95_ms: u64,
    /// The last ones sent were acknowledged at the first attempt.
    pub flowing: bool,
}

/// What a drill goes by.
#[derive(Debug, Clone, Copy)]
pub struct Sight<'a> {
    /// The control record.
    pub record: &'a ControlRecord,
    /// The change that the drill started last has ended.
    pub change_ended: bool,
    /// What the newest payments say, if there are any.
    pub recent: Option<&'a Recent>,
    /// The drill's home could take over now; looked at only while that counts.
    pub home_is_fit: bool,
}

/// What a drill does next.
///
/// The rules: nothing is changed before payments were acknowledged; a takeover that others make ends the drill; the other region is
/// left at once when its payments fail or are slow; a region that was cut off is joined again whatever happened; and while the other
/// region serves the drill comes back, again and again.
pub fn next(drill: &Drill, sight: &Sight<'_>, now_ms: u64) -> Next {
    let Sight {
        record,
        change_ended,
        recent,
        home_is_fit,
    } = *sight;
    let since_ms = now_ms.saturating_sub(drill.stage_ms);
    let serves = |region: &str| record.phase == Phase::Serving && record.active_region == region;
    let over = |why: String| Next::Go(drill.at(Stage::Over, now_ms).aborted(why));
    match drill.stage {
        Stage::Baseline => {
            if !serves(&drill.home) || record.epoch != drill.epoch || record.maintenance {
                return over(format!(
                    "the stack was changed before the exercise began (epoch {} of `{}`, {}{})",
                    record.epoch,
                    record.active_region,
                    record.phase,
                    if record.maintenance {
                        ", in maintenance"
                    } else {
                        ""
                    }
                ));
            }
            match recent {
                _ if since_ms < BASELINE_MS => Next::Wait,
                // Nothing more is exercised.
                Some(recent) if recent.flowing && drill.kind == DrillKind::Readiness => {
                    Next::Go(drill.at(Stage::Over, now_ms))
                }
                Some(recent) if recent.flowing => Next::Go(drill.at(Stage::There, now_ms)),
                _ if since_ms < BASELINE_LIMIT_MS => Next::Wait,
                _ => over("no synthetic payment was acknowledged, so nothing was changed".to_owned()),
            }
        }
        Stage::There if serves(&drill.target) => Next::Go(drill.at(Stage::Hold, now_ms)),
        Stage::There if serves(&drill.home) && drill.kind == DrillKind::Isolation => {
            isolated(drill, record, change_ended, now_ms)
        }
        // It is stored that the change is wanted before it is started: an answer that is lost changes nothing.
        Stage::There if serves(&drill.home) && drill.change.is_none() => Next::Start {
            to_region: drill.target.clone(),
            mode: Mode::Graceful,
            then: drill.clone(),
        },
        Stage::There if serves(&drill.home) && change_ended => over(format!(
            "`{}` ended, and `{}` serves as before",
            drill.change.as_deref().unwrap_or_default(),
            drill.home
        )),
        Stage::There | Stage::Back
            if since_ms > CHANGE_LIMIT_MS && !serves(&drill.target) && !serves(&drill.home) =>
        {
            over(format!(
                "epoch {} is {} for {} s: see the execution `{}`",
                record.epoch,
                record.phase,
                since_ms / 1000,
                record.changed_by
            ))
        }
        Stage::Hold if serves(&drill.home) => over("somebody else moved the stack back".to_owned()),
        Stage::Hold if serves(&drill.target) => {
            let back = match drill.kind {
                DrillKind::Isolation => drill.at(Stage::Rejoin, now_ms),
                DrillKind::Readiness | DrillKind::Switchover => drill.at(Stage::Back, now_ms),
            };
            match recent.and_then(|recent| unfit(recent, drill.stage_ms)) {
                Some(why) => Next::Go(back.aborted(why)),
                None if record.maintenance => Next::Go(back.aborted("the stack was put into maintenance")),
                None if since_ms >= drill.hold_ms => Next::Go(back),
                None => Next::Wait,
            }
        }
        // A failover that the drill started, and that has not raised the epoch yet, may do so still.
        Stage::Rejoin
            if drill.restored_ms.is_some()
                && serves(&drill.home)
                && (drill.change.is_none() || change_ended) =>
        {
            Next::Go(drill.at(Stage::Over, now_ms))
        }
        Stage::Rejoin if drill.restored_ms.is_some() && serves(&drill.target) && home_is_fit => {
            Next::Go(drill.at(Stage::Back, now_ms))
        }
        Stage::Rejoin if since_ms > REJOIN_LIMIT_MS => over(format!(
            "`{}` does not stand by again after {} minutes: run `understudy failback` when it does",
            drill.home,
            since_ms / 60_000
        )),
        Stage::Back if serves(&drill.home) => Next::Go(drill.at(Stage::Over, now_ms)),
        Stage::Back if serves(&drill.target) && (drill.attempts_back == 0 || change_ended) => {
            if drill.attempts_back >= ATTEMPTS_BACK {
                return over(format!(
                    "`{}` still serves after {ATTEMPTS_BACK} attempts to come back: run `understudy failback`",
                    drill.target
                ));
            }
            let mut then = drill.clone();
            then.attempts_back += 1;
            Next::Start {
                to_region: drill.home.clone(),
                mode: Mode::Graceful,
                then,
            }
        }
        Stage::There | Stage::Hold | Stage::Rejoin | Stage::Back | Stage::Over => Next::Wait,
    }
}

/// What a drill does that isolates its home, while that region serves still.
fn isolated(drill: &Drill, record: &ControlRecord, change_ended: bool, now_ms: u64) -> Next {
    let rejoin = |why: String| Next::Go(drill.at(Stage::Rejoin, now_ms).aborted(why));
    if let Some(why) = &drill.aborted {
        return rejoin(why.clone());
    }
    let Some(isolated_ms) = drill.isolated_ms else {
        let since_ms = now_ms.saturating_sub(drill.stage_ms);
        if since_ms > ISOLATION_LIMIT_MS {
            return rejoin(format!(
                "`{}` was not cut off after {} s",
                drill.home,
                since_ms / 1000
            ));
        }
        return Next::Wait;
    };
    let since_ms = now_ms.saturating_sub(isolated_ms);
    if since_ms > TAKEOVER_LIMIT_MS {
        return rejoin(format!(
            "nobody took over from `{}` within {} s after it was cut off",
            drill.home,
            since_ms / 1000
        ));
    }
    if drill.observers_decide || record.epoch != drill.epoch {
        return Next::Wait;
    }
    match &drill.change {
        None => Next::Start {
            to_region: drill.target.clone(),
            mode: Mode::Ungraceful,
            then: drill.clone(),
        },
        Some(change) if change_ended => {
            rejoin(format!("`{change}` ended, and `{}` serves as before", drill.home))
        }
        Some(_) => Next::Wait,
    }
}

/// Why the region that was taken over to is left before its time.
fn unfit(recent: &Recent, since_ms: u64) -> Option<String> {
    // A slice that began before the change was over shows the change, not the region.
    if recent.began_ms < since_ms || recent.sent == 0 {
        return None;
    }
    let percent = recent.acknowledged * 100 / recent.sent;
    if percent < LEAST_ACKNOWLEDGED_PERCENT {
        return Some(format!(
            "{percent} % of the payments were acknowledged, {LEAST_ACKNOWLEDGED_PERCENT} % are the least"
        ));
    }
    (recent.p95_ms > SLOW_MS).then(|| {
        format!(
            "payments took {} ms (95 of 100), {SLOW_MS} ms are the most",
            recent.p95_ms
        )
    })
}

/// Payments at a slice's end that say whether payments flow.
const LAST: usize = 3;

/// What a slice says by itself.
pub fn recent(slice: &Slice) -> Recent {
    let mut took: Vec<u64> = slice
        .payments
        .iter()
        .filter_map(|payment| Some(payment.answered_ms?.saturating_sub(payment.sent_ms)))
        .collect();
    took.sort_unstable();
    let p95_ms = took
        .get((took.len() * 95 / 100).min(took.len().saturating_sub(1)))
        .copied();
    let last = &slice.payments[slice.payments.len().saturating_sub(LAST)..];
    Recent {
        began_ms: slice.began_ms,
        sent: slice.payments.len() as u64,
        acknowledged: took.len() as u64,
        p95_ms: p95_ms.unwrap_or_default(),
        flowing: !last.is_empty() && last.iter().all(first_try),
    }
}

fn first_try(payment: &Payment) -> bool {
    payment.answered_ms.is_some() && payment.attempts == 1
}

/// A time without an acknowledgement.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Gap {
    /// The last acknowledgement before it.
    pub from_ms: u64,
    /// The first one after it.
    pub to_ms: u64,
}

impl Gap {
    /// How long it was.
    pub fn ms(&self) -> u64 {
        self.to_ms.saturating_sub(self.from_ms)
    }
}

/// The longest time without an acknowledgement. Between two slices nobody pays for a moment; that counts as a gap only when the last
/// payment before it or the first one after it had trouble. Slices after which nothing was acknowledged any more end with theirs.
pub fn longest_gap(slices: &[Slice]) -> Gap {
    let mut longest = Gap::default();
    let mut last: Option<u64> = None;
    let mut had_trouble = false;
    for slice in slices {
        let mut answers: Vec<u64> = slice
            .payments
            .iter()
            .filter_map(|payment| payment.answered_ms)
            .collect();
        answers.sort_unstable();
        let begins_well = slice.payments.first().is_some_and(first_try);
        if !had_trouble && begins_well {
            last = None;
        }
        for at_ms in answers {
            if let Some(from_ms) = last {
                let gap = Gap {
                    from_ms,
                    to_ms: at_ms.max(from_ms),
                };
                if gap.ms() > longest.ms() {
                    longest = gap;
                }
            }
            last = Some(at_ms);
        }
        had_trouble = !slice.payments.last().is_some_and(first_try);
    }
    if let (true, Some(from_ms), Some(slice)) = (had_trouble, last, slices.last()) {
        let gap = Gap {
            from_ms,
            to_ms: slice.ended_ms,
        };
        if gap.ms() > longest.ms() {
            longest = gap;
        }
    }
    longest
}

/// Why the objectives were not met; none if they were.
pub fn missed(drill: &Drill, gap: &Gap, acknowledged: u64, checked: Option<&Value>) -> Vec<String> {
    let mut missed: Vec<String> = drill.aborted.iter().cloned().collect();
    if drill.stage != Stage::Over {
        missed.push("the exercise did not come to its end".to_owned());
    }
    if acknowledged == 0 {
        missed.push("no payment was acknowledged".to_owned());
    }
    if gap.ms() > drill.longest_gap_ms {
        missed.push(format!(
            "no payment was acknowledged for {} ms; the objective is {} ms",
            gap.ms(),
            drill.longest_gap_ms
        ));
    }
    let Some(checked) = checked else {
        missed.push("the acknowledged payments could not be looked up".to_owned());
        return missed;
    };
    for (fault, word) in [
        ("lost", "lost"),
        ("different", "different from what was acknowledged"),
        ("duplicated", "there twice"),
    ] {
        let count = checked[fault].as_u64().unwrap_or(u64::MAX);
        if count > 0 {
            missed.push(format!("{count} acknowledged payments are {word}"));
        }
    }
    missed
}

#[cfg(test)]
mod tests;
