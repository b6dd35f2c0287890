//! A [`Status`] for a person: rows of a name and a text, then the resources that are not in order. Pure. A mark before the name says
//! what a row is; colour only repeats it.

use std::collections::BTreeSet;

use console::{Style, measure_text_width, style};
use infra::drift::{self, Action, Difference, Drifted};
use infra::readiness;

use super::{Asked, Evaluated, Resource, Running, Seen, State, Status, View};
use crate::drill::moment;

/// The names of rows are padded to this.
const NAMES: usize = 11;
/// A page is never made narrower than this.
const NARROWEST: usize = 40;

/// How a status is written.
#[derive(Debug, Clone, Copy)]
pub struct Page {
    /// The columns that there are; without them no line is wrapped.
    pub width: Option<usize>,
    /// With colours.
    pub colour: bool,
    /// Without what differs from one look to the next when nothing happens: times, and numbers in reasons.
    pub still: bool,
}

/// What a row is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mark {
    /// In order, or a plain fact.
    Plain,
    /// Something runs.
    Runs,
    /// A person should know.
    Look,
    /// It is not in order.
    Bad,
}

impl Mark {
    fn sign(self) -> &'static str {
        match self {
            Mark::Plain => " ",
            Mark::Runs => ">",
            Mark::Look => "!",
            Mark::Bad => "X",
        }
    }

    fn style(self) -> Style {
        match self {
            Mark::Plain => Style::new().dim(),
            Mark::Runs => Style::new().cyan().bold(),
            Mark::Look => Style::new().yellow().bold(),
            Mark::Bad => Style::new().red().bold(),
        }
    }
}

impl Page {
    fn row(&self, mark: Mark, name: &str, text: &str) -> String {
        let head = format!("{} {name:NAMES$}", mark.sign());
        let head = mark.style().force_styling(self.colour).apply_to(head);
        self.wrapped(&format!("{head} "), text)
    }

    /// The text behind its head, broken at spaces where it is wider than the page, and below the head's end.
    fn wrapped(&self, head: &str, text: &str) -> String {
        let indent = measure_text_width(head);
        let Some(width) = self.width.map(|width| width.max(NARROWEST)) else {
            return format!("{head}{text}");
        };
        let room = width.saturating_sub(indent).max(1);
        let mut lines = vec![String::new()];
        let mut used = 0;
        for word in text.split(' ') {
            let mut word = word;
            let length = word.chars().count();
            if used > 0 && used + 1 + length > room {
                lines.push(String::new());
                used = 0;
            }
            if used > 0 {
                lines.last_mut().expect("there is one").push(' ');
                used += 1;
            }
            // A word that is wider than the page, as an ARN: broken anywhere.
            while word.chars().count() > room {
                let end = word.char_indices().nth(room).map_or(word.len(), |(at, _)| at);
                lines.last_mut().expect("there is one").push_str(&word[..end]);
                lines.push(String::new());
                word = &word[end..];
                used = 0;
            }
            lines.last_mut().expect("there is one").push_str(word);
            used += word.chars().count();
        }
        format!("{head}{}", lines.join(&format!("\n{}", " ".repeat(indent))))
    }

    /// A line of its own, in the page's width.
    pub(super) fn line(&self, text: &str) -> String {
        self.wrapped("", text)
    }

    /// That a look failed.
    pub(super) fn failed(&self, why: &str) -> String {
        self.row(Mark::Bad, "look failed", &self.moving(why))
    }

    /// How long, between two times.
    fn span(&self, from_ms: u64, to_ms: u64) -> String {
        if self.still {
            return "some time".to_owned();
        }
        long(to_ms.saturating_sub(from_ms))
    }

    fn ago(&self, then_ms: u64, now_ms: u64) -> String {
        format!("{} ago", self.span(then_ms, now_ms))
    }

    /// A text of which the numbers may be other ones at each look.
    fn moving(&self, text: &str) -> String {
        if self.still {
            return text.chars().filter(|one| !one.is_ascii_digit()).collect();
        }
        text.to_owned()
    }
}

/// The status for a person: what moves, then what is not in order, by region.
pub fn describe(status: &Status, page: &Page) -> String {
    let now_ms = status.at_ms;
    let mut rows = vec![page.row(
        Mark::Plain,
        "stack",
        &format!("{}, account {}", status.stack, status.account),
    )];
    let mut row = |mark, name: &str, text: String| rows.push(page.row(mark, name, &text));
    let (mark, text) = active(status, page);
    row(mark, "active", text);
    for (name, text) in held(status) {
        row(Mark::Look, name, text);
    }
    for (region, why) in &status.unreachable {
        row(Mark::Bad, "no answer", format!("{region}: {}", page.moving(why)));
    }
    for unread in &status.unread {
        row(
            Mark::Look,
            "not read",
            format!("{}: {}", unread.what, page.moving(&unread.reason)),
        );
    }
    if let Some(asked) = &status.waiting {
        row(Mark::Look, "waits", waits(asked, page, now_ms));
        for command in &asked.commands {
            row(Mark::Look, "", format!("answer with `{command}`"));
        }
    }
    for running in &status.workflows {
        row(Mark::Runs, "running", workflow(running, page, now_ms));
    }
    if status.workflows.is_empty() {
        let known = status.unreachable.is_empty() && status.unread.is_empty();
        let text = if known { "nothing" } else { "nothing that is known" };
        row(Mark::Plain, "running", text.to_owned());
    }
    for view in &status.observers {
        let (mark, text) = observer(view, status, page);
        row(mark, "observer", text);
    }
    for (mark, name, text) in standby(status, page) {
        row(mark, name, text);
    }
    for (region, evaluated) in &status.readiness {
        let (mark, text) = evaluation(region, evaluated, page, now_ms);
        row(mark, "readiness", text);
    }
    let rehearsed = status.drills.last.as_ref().map_or("never".to_owned(), |last| {
        format!("{}, {} `{}`", page.ago(last.at_ms, now_ms), last.kind, last.id)
    });
    row(Mark::Plain, "rehearsed", rehearsed);
    row(Mark::Plain, "next drill", next_drill(status, page));
    let (mark, text) = reconcile(status, page);
    row(mark, "reconcile", text);
    for (name, text) in open_drift(status, page) {
        row(Mark::Look, name, text);
    }
    if let Some(resources) = &status.resources {
        let counts: Vec<String> = status
            .counts
            .iter()
            .map(|(state, count)| format!("{count} {}", state.as_str()))
            .collect();
        let mark = if status.counts.keys().all(|state| *state == State::Ok) {
            Mark::Plain
        } else {
            Mark::Bad
        };
        row(
            mark,
            "resources",
            format!("{}: {}", resources.len(), counts.join(", ")),
        );
    }
    rows.join("\n") + &not_ok(status, page)
}

fn active(status: &Status, page: &Page) -> (Mark, String) {
    let Some(record) = &status.control else {
        return (
            Mark::Look,
            "nowhere yet: the first deployment has not ended".to_owned(),
        );
    };
    let text = format!(
        "{}, epoch {}, {} for {}, generation {}",
        record.active_region,
        record.epoch,
        record.phase,
        page.span(record.since_ms, status.at_ms),
        record.generation,
    );
    let mark = match record.phase {
        continuity::control::Phase::Serving => Mark::Plain,
        continuity::control::Phase::Draining | continuity::control::Phase::Recovering => Mark::Look,
    };
    (mark, text)
}

/// What an operator has set, or not deployed.
fn held(status: &Status) -> Vec<(&'static str, String)> {
    let mut rows = Vec::new();
    let Some(record) = &status.control else {
        return rows;
    };
    if record.maintenance {
        rows.push((
            "maintenance",
            "on: no failover begins by itself until `understudy maintenance off`".to_owned(),
        ));
    }
    if record.repair_frozen {
        rows.push(("repair", "is frozen while the active region changes".to_owned()));
    }
    if status.stored_generation > record.generation {
        rows.push((
            "generation",
            format!(
                "{} is stored and not deployed: run `understudy up`",
                status.stored_generation
            ),
        ));
    } else if status.file_differs {
        rows.push((
            "stack.toml",
            "says something else than what is deployed: `understudy plan` shows what".to_owned(),
        ));
    }
    rows
}

fn waits(asked: &Asked, page: &Page, now_ms: u64) -> String {
    let what = asked
        .step
        .as_ref()
        .map_or("asks for approval".to_owned(), |step| {
            format!("asks what to do, step {step} failed")
        });
    format!(
        "`{}` {what}, to move to {}; for {}, until {}: {}",
        asked.name,
        asked.to_region,
        page.span(asked.since_ms, now_ms),
        moment(asked.until_ms),
        page.moving(&asked.reasons.join("; ")),
    )
}

fn workflow(running: &Running, page: &Page, now_ms: u64) -> String {
    let mut text = format!(
        "{} `{}` in {} for {}: ",
        running.workflow,
        running.name,
        running.region,
        page.span(running.began_ms, now_ms),
    );
    match (&running.step, running.step_since_ms) {
        (Some(step), Some(since_ms)) => {
            text.push_str(&format!("step {step} for {}", page.span(since_ms, now_ms)));
        }
        _ => text.push_str("its step is not known"),
    }
    if let Some(progress) = &running.progress {
        text.push_str(&format!(", {progress}"));
    }
    if let Some(doing) = &running.doing {
        text.push_str(&format!("; {doing}"));
    }
    text
}

fn observer(view: &View, status: &Status, page: &Page) -> (Mark, String) {
    let active = status
        .control
        .as_ref()
        .map(|record| record.active_region.as_str());
    let mut mark = Mark::Plain;
    let mut sees = Vec::new();
    for (region, seen) in &view.sees {
        let in_order =
            seen.state == "serving" || (Some(region.as_str()) != active && seen.state == "standby");
        if !in_order || seen.reason.is_some() {
            mark = Mark::Bad;
        } else if seen.slow && mark == Mark::Plain {
            mark = Mark::Look;
        }
        sees.push(format!("{region} {}", look(seen, page)));
    }
    let mut text = view.observer.clone();
    if let Some(at_ms) = view.at_ms {
        text.push_str(&format!(", {}", page.ago(at_ms, status.at_ms)));
    }
    if let Some(why) = &view.blind {
        mark = Mark::Look;
        let comma = if view.at_ms.is_some() { "," } else { "" };
        text.push_str(&format!("{comma} is blind: {why}"));
    }
    if !sees.is_empty() {
        text.push_str(&format!(": {}", sees.join("; ")));
    }
    (mark, text)
}

fn look(seen: &Seen, page: &Page) -> String {
    let mut text = match (seen.state, seen.epoch) {
        ("standby", Some(epoch)) => format!("standby epoch {epoch}"),
        (state, Some(epoch)) => format!("{state} epoch {epoch}"),
        (state, None) => state.to_owned(),
    };
    if let Some(reason) = &seen.reason {
        text.push_str(&format!(" ({})", page.moving(reason)));
    }
    if seen.slow {
        text.push_str(&page.moving(&format!(", SLOW: {} ms", seen.took_ms)));
    }
    text
}

/// What is known of the region that would take over.
fn standby(status: &Status, page: &Page) -> Vec<(Mark, &'static str, String)> {
    let Some(region) = &status.standby else {
        return Vec::new();
    };
    let mut rows = Vec::new();
    rows.push(verdict(status, region, page));
    match &status.replication {
        None => rows.push((
            Mark::Plain,
            "replication",
            format!("lag of {region} is not known: no evaluation since it is the standby"),
        )),
        Some(lag) => {
            let (mark, state) = match lag.state {
                readiness::State::Passed => (Mark::Plain, ""),
                readiness::State::Failed => (Mark::Bad, "too far behind: "),
                readiness::State::Unknown => (Mark::Look, "lag is not known: "),
            };
            rows.push((
                mark,
                "replication",
                format!(
                    "{region}: {state}{}, as {} found {}",
                    page.moving(&lag.text),
                    lag.by,
                    page.ago(lag.at_ms, status.at_ms)
                ),
            ));
        }
    }
    rows
}

fn verdict(status: &Status, standby: &str, page: &Page) -> (Mark, &'static str, String) {
    let Some(judged) = &status.verdict else {
        let text = format!("none: the observer in {standby} has not assessed");
        return (Mark::Look, "verdict", text);
    };
    let told = judged.latest.as_ref().or(judged.changed.as_ref());
    let said = told.map_or(String::new(), |told| {
        let ago = page.ago(told.at_ms, status.at_ms);
        format!("{}, {ago} by {}", told.verdict.kind(), judged.by)
    });
    let (mark, mut text) = match (&judged.latest, &judged.changed) {
        (None, _) => (Mark::Look, format!("none by {standby} now; the last was {said}")),
        (Some(latest), changed) => {
            let since = changed.as_ref().map_or(String::new(), |changed| {
                format!(", unchanged for {}", page.span(changed.at_ms, status.at_ms))
            });
            let mark = match latest.verdict.kind() {
                "hold" => Mark::Plain,
                _ => Mark::Bad,
            };
            (mark, format!("{said}{since}"))
        }
    };
    let reasons = told.map_or(&[][..], |told| told.verdict.reasons());
    if !reasons.is_empty() {
        text.push_str(&format!(": {}", page.moving(&reasons.join("; "))));
    }
    (mark, "verdict", text)
}

fn evaluation(region: &str, evaluated: &Evaluated, page: &Page, now_ms: u64) -> (Mark, String) {
    let Some(at_ms) = evaluated.at_ms else {
        return (
            Mark::Look,
            format!("{region} never evaluated: `understudy readiness --now` does it now"),
        );
    };
    let mut text = format!(
        "{region} {}, {}: {} of {} checks failing, {} warning{}",
        if evaluated.ready { "ready" } else { "NOT READY" },
        page.ago(at_ms, now_ms),
        evaluated.failing,
        evaluated.checks,
        evaluated.warnings,
        if evaluated.warnings == 1 { "" } else { "s" }
    );
    let mark = match (evaluated.ready, evaluated.stale) {
        (true, false) => Mark::Plain,
        (true, true) => Mark::Look,
        (false, _) => Mark::Bad,
    };
    if evaluated.stale {
        text.push_str("; too old to believe, `understudy readiness --now` makes a new one");
    } else if !evaluated.ready {
        text.push_str("; `understudy readiness` says which");
    }
    (mark, text)
}

fn next_drill(status: &Status, page: &Page) -> String {
    let drills = &status.drills;
    match (&drills.schedule, drills.next_ms) {
        (_, Some(at_ms)) => format!(
            "{}, {}, in {}",
            drills.kind,
            moment(at_ms),
            page.span(status.at_ms, at_ms)
        ),
        (Some(expression), None) => format!(
            "{}, {expression}: only EventBridge Scheduler knows the time",
            drills.kind
        ),
        (None, None) => "never: `drill.schedule` is not set".to_owned(),
    }
}

fn reconcile(status: &Status, page: &Page) -> (Mark, String) {
    let Some(run) = &status.reconcile.last else {
        return (Mark::Plain, "not yet".to_owned());
    };
    let mut text = format!("{}: {}", page.ago(run.at_ms, status.at_ms), counted(run));
    if let Some(note) = &run.note {
        text.push_str(&format!("; us-east-1 is failing: {note}"));
    }
    let open = run.entries.iter().any(is_open) || !run.unreadable.is_empty() || run.note.is_some();
    (if open { Mark::Look } else { Mark::Plain }, text)
}

/// What the last reconcile left open, and the last one that found drift.
fn open_drift(status: &Status, page: &Page) -> Vec<(&'static str, String)> {
    let mut rows = Vec::new();
    if let Some(run) = &status.reconcile.last {
        rows.extend(
            run.unreadable
                .iter()
                .map(|why| ("", format!("not readable: {why}"))),
        );
        let open = run.entries.iter().filter(|entry| is_open(entry));
        rows.extend(open.map(|entry| ("", open_entry(entry))));
    }
    if let Some(run) = &status.reconcile.last_found {
        let ago = page.ago(run.at_ms, status.at_ms);
        rows.push(("last drift", format!("{ago}: {}", counted(run))));
    }
    rows
}

fn is_open(entry: &Drifted) -> bool {
    matches!(
        entry.action,
        Action::Waiting { .. } | Action::Failed { .. } | Action::Reported
    )
}

fn open_entry(entry: &Drifted) -> String {
    match &entry.action {
        Action::Waiting { reason } => format!("{} waits: {reason}", entry.key),
        Action::Failed { reason } => format!("{} failed: {reason}", entry.key),
        _ => format!("{} is only reported", entry.key),
    }
}

fn counted(run: &drift::Run) -> String {
    let counts = run.counts;
    let mut text = match counts.drift {
        0 => "no drift".to_owned(),
        drift => format!("{drift} drifted, {} repaired", counts.repaired),
    };
    if counts.roles > 0 {
        text.push_str(&format!(", {} roles away from home", counts.roles));
    }
    if counts.unreadable > 0 {
        text.push_str(&format!(", {} not readable", counts.unreadable));
    }
    text
}

/// The resources that are not in order, and the roles that are away from home, by region.
fn not_ok(status: &Status, page: &Page) -> String {
    let mut text = String::new();
    let resources = status.resources.as_deref().unwrap_or_default();
    let regions: BTreeSet<&str> = resources.iter().map(|one| one.region.as_str()).collect();
    for region in regions {
        let here = || resources.iter().filter(|one| one.region == region);
        if let Some(why) = status.unreachable.get(region) {
            let unknown = here().filter(|one| one.state == State::Unknown).count();
            text.push_str(&format!("\n\n{region}: {unknown} resources are not known: {why}"));
        }
        let mut lines: Vec<String> = here()
            .filter(|one| {
                one.state != State::Ok
                    && !(status.unreachable.contains_key(region) && one.state == State::Unknown)
            })
            .map(|one| line(one, page))
            .collect();
        lines.extend(here().filter(|one| !one.roles.is_empty()).map(|one| {
            let roles: Vec<String> = one.roles.iter().map(difference).collect();
            page.wrapped(
                &format!("  {:8}  ", "role"),
                &format!("{}: {}", one.key, roles.join("; ")),
            )
        }));
        if !lines.is_empty() {
            text.push_str(&format!("\n\n{region}\n{}", lines.join("\n")));
        }
    }
    text
}

fn line(resource: &Resource, page: &Page) -> String {
    let word = format!("{:8}", resource.state.as_str());
    let word = match resource.state {
        State::Ok => style(word).green(),
        State::Settling | State::Unknown => style(word).yellow(),
        State::Drift | State::Missing | State::Failed => style(word).red().bold(),
    };
    let word = format!("  {}  ", word.force_styling(page.colour));
    let mut text = format!("{} ({})", resource.key, resource.kind);
    let fields: Vec<String> = resource.fields.iter().map(difference).collect();
    if !fields.is_empty() {
        text.push_str(&format!(": {}", fields.join("; ")));
    }
    if let Some(reason) = &resource.reason {
        text.push_str(&format!(": {reason}"));
    }
    page.wrapped(&word, &text)
}

fn difference(difference: &Difference) -> String {
    format!(
        "{}: {} -> {}",
        difference.field,
        short(&difference.from),
        short(&difference.to)
    )
}

/// Policies and documents are long; the field's name is what a person needs.
fn short(value: &serde_json::Value) -> String {
    const LIMIT: usize = 60;
    let text = match value.as_str() {
        // A document that was cut already: not to be quoted once more.
        Some(cut) if cut.ends_with("...") => cut.to_owned(),
        _ => value.to_string(),
    };
    match text.char_indices().nth(LIMIT) {
        Some((end, _)) => format!("{}...", &text[..end]),
        None => text,
    }
}

/// A time in the unit that fits.
pub(super) fn long(ms: u64) -> String {
    let seconds = ms / 1000;
    match seconds {
        0..=119 => format!("{seconds} s"),
        120..=7_199 => format!("{} min", seconds / 60),
        7_200..=172_799 => format!("{} h", seconds / 3_600),
        _ => format!("{} days", seconds / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use continuity::assess::{Assessed, Cause, Verdict};
    use continuity::control::{ControlRecord, Phase};
    use infra::readiness::Rehearsed;

    use super::super::{Judged, Replication, Unread};
    use super::*;
    use crate::drill;

    /// 2026-11-27 05:30:00 UTC.
    const NOW: u64 = 1_795_757_400_000;

    fn seen(state: &'static str) -> Seen {
        Seen {
            state,
            epoch: (state != "failing").then_some(4),
            reason: (state == "failing").then(|| "connection refused".into()),
            at_ms: NOW - 1_000,
            took_ms: 12,
            slow: false,
        }
    }

    fn view(observer: &str, home: &'static str, other: &'static str) -> View {
        View {
            observer: observer.into(),
            at_ms: Some(NOW - 1_000),
            blind: None,
            sees: BTreeMap::from([
                ("us-east-1".into(), seen(home)),
                ("us-east-2".into(), seen(other)),
            ]),
        }
    }

    fn evaluated(failing: usize) -> Evaluated {
        Evaluated {
            ready: failing == 0,
            stale: false,
            at_ms: Some(NOW - 720_000),
            checks: 63,
            failing,
            warnings: 1,
        }
    }

    fn hold(at_ms: u64) -> Assessed {
        Assessed {
            at_ms,
            verdict: Verdict::Hold {
                reasons: vec!["0 of 2 observers outside `us-east-1` saw it fail".into()],
            },
        }
    }

    fn quiet() -> Status {
        let mut spec = infra::spec::Spec::default();
        spec.drill.schedule = Some("cron(0 6 ? * TUE *)".into());
        let last = Rehearsed {
            at_ms: NOW - 3 * 86_400_000,
            id: "drill-dev-20261124t060000".into(),
            kind: "switchover".into(),
        };
        Status {
            stack: "dev".into(),
            account: "000000000000".into(),
            at_ms: NOW,
            control: Some(ControlRecord {
                epoch: 4,
                ..ControlRecord::first("us-east-1", "deploy", NOW - 86_400_000)
            }),
            standby: Some("us-east-2".into()),
            stored_generation: 1,
            file_differs: false,
            unreachable: BTreeMap::new(),
            unread: Vec::new(),
            change: None,
            workflows: Vec::new(),
            waiting: None,
            observers: ["us-east-1", "us-east-2", "us-west-2"]
                .map(|observer| view(observer, "serving", "standby"))
                .into(),
            verdict: Some(Judged {
                by: "us-east-2".into(),
                latest: Some(hold(NOW - 1_000)),
                changed: Some(hold(NOW - 80_000_000)),
            }),
            replication: Some(Replication {
                state: readiness::State::Passed,
                text: "3 entries behind".into(),
                by: "us-east-2".into(),
                at_ms: NOW - 720_000,
            }),
            readiness: BTreeMap::from([
                ("us-east-1".into(), evaluated(0)),
                ("us-east-2".into(), evaluated(0)),
            ]),
            drills: drill::Plan::of(&spec, Some(last), NOW),
            reconcile: drift::Report::default(),
            counts: BTreeMap::from([(State::Ok, 7)]),
            resources: Some(Vec::new()),
        }
    }

    fn running(workflow: &str, name: &str, step: &str) -> Running {
        let arn = format!("arn:aws:states:us-east-2:000000000000:execution:{workflow}-dr-dev:{name}");
        Running {
            step: Some(step.into()),
            step_since_ms: Some(NOW - 2_000),
            ..Running::new(workflow, &arn, NOW - 5_000)
        }
    }

    fn failing_over() -> Status {
        let verdict = Assessed {
            at_ms: NOW - 5_000,
            verdict: Verdict::Failover {
                epoch: 4,
                to_region: "us-east-2".into(),
                cause: Cause::Dead,
                reasons: vec!["us-west-2 saw `us-east-1` fail 3 rounds in a row".into()],
            },
        };
        Status {
            control: Some(ControlRecord {
                epoch: 5,
                phase: Phase::Recovering,
                repair_frozen: true,
                ..ControlRecord::first("us-east-2", "failover-dev-5", NOW - 4_000)
            }),
            standby: Some("us-east-1".into()),
            workflows: vec![running("failover", "failover-dev-5", "Promote")],
            observers: ["us-east-2", "us-west-2"]
                .map(|observer| view(observer, "failing", "standby"))
                .into(),
            // The region that stands by now is the one that is gone.
            verdict: Some(Judged {
                by: "us-east-2".into(),
                latest: None,
                changed: Some(verdict),
            }),
            replication: None,
            resources: None,
            counts: BTreeMap::new(),
            ..quiet()
        }
    }

    fn unreachable() -> Status {
        let mut blind = view("us-east-1", "serving", "standby");
        blind.at_ms = Some(NOW - 300_000);
        blind.blind = Some("it has seen nothing of late".into());
        let mut slow = view("us-west-2", "failing", "standby");
        if let Some(seen) = slow.sees.get_mut("us-east-2") {
            (seen.took_ms, seen.slow) = (1_730, true);
        }
        Status {
            unreachable: BTreeMap::from([("us-east-1".into(), "no answer within 5 s".into())]),
            unread: vec![Unread {
                what: "the change under way".into(),
                reason: "no region gave it within 5 s".into(),
            }],
            observers: vec![blind, view("us-east-2", "failing", "standby"), slow],
            resources: None,
            ..quiet()
        }
    }

    fn asking() -> Status {
        Status {
            waiting: Some(Asked {
                name: "failover-dev-5".into(),
                region: "us-east-2".into(),
                step: None,
                epoch: 4,
                to_region: "us-east-2".into(),
                reasons: vec!["us-west-2 saw `us-east-1` grey: 12 of 20 rounds failed".into()],
                commands: vec!["understudy approve".into(), "understudy approve --decline".into()],
                since_ms: NOW - 150_000,
                until_ms: NOW + 1_650_000,
            }),
            workflows: vec![running("failover", "failover-dev-5", "AskApproval")],
            ..quiet()
        }
    }

    fn drilling() -> Status {
        let mut drill = running("drill", "drill-dev-01", "Hold");
        drill.doing = Some("us-east-2 serves, for 60 s".into());
        let mut status = quiet();
        if let Some(record) = &mut status.control {
            record.maintenance = true;
        }
        Status {
            workflows: vec![drill],
            readiness: BTreeMap::from([("us-east-2".into(), evaluated(2))]),
            ..status
        }
    }

    fn first_deployment() -> Status {
        let mut deploy = running("deploy", "deploy-dev-01", "Apply");
        deploy.progress = Some(infra::outcome::Progress {
            total: 210,
            ready: 40,
            ..infra::outcome::Progress::default()
        });
        Status {
            control: None,
            standby: None,
            workflows: vec![deploy],
            observers: ["us-east-1", "us-east-2", "us-west-2"]
                .map(|observer| View {
                    observer: observer.into(),
                    at_ms: None,
                    blind: Some("it has written nothing yet".into()),
                    sees: BTreeMap::new(),
                })
                .into(),
            verdict: None,
            replication: None,
            readiness: BTreeMap::new(),
            drills: drill::Plan::of(&infra::spec::Spec::default(), None, NOW),
            resources: None,
            counts: BTreeMap::new(),
            ..quiet()
        }
    }

    fn page(width: usize) -> Page {
        Page {
            width: Some(width),
            colour: false,
            still: false,
        }
    }

    fn samples() -> [(&'static str, Status); 6] {
        [
            ("quiet", quiet()),
            ("failover_running", failing_over()),
            ("home_unreachable", unreachable()),
            ("waiting_for_approval", asking()),
            ("drill_running", drilling()),
            ("no_control_record", first_deployment()),
        ]
    }

    #[test]
    fn a_person_reads_each_situation() {
        for (name, status) in samples() {
            insta::assert_snapshot!(name, describe(&status, &page(80)));
        }
    }

    #[test]
    fn a_person_reads_what_is_not_in_order() {
        let page = Page {
            width: None,
            ..page(80)
        };
        insta::assert_snapshot!(describe(&super::super::tests::sample(), &page));
    }

    #[test]
    fn no_line_is_wider_than_the_page_with_and_without_colour() {
        for (name, status) in samples() {
            for width in [40, 80, 120] {
                for colour in [false, true] {
                    let text = describe(
                        &status,
                        &Page {
                            colour,
                            ..page(width)
                        },
                    );
                    for line in text.lines() {
                        assert!(measure_text_width(line) <= width, "{name} at {width}: {line}");
                    }
                }
            }
        }
    }

    #[test]
    fn colour_says_nothing_that_the_text_does_not() {
        for (name, status) in samples() {
            let coloured = describe(
                &status,
                &Page {
                    colour: true,
                    ..page(80)
                },
            );
            assert!(coloured.contains("\x1b["), "{name}");
            assert_eq!(
                console::strip_ansi_codes(&coloured),
                describe(&status, &page(80)),
                "{name}"
            );
        }
    }

    #[test]
    fn a_still_page_is_the_same_a_second_later_and_another_when_something_happened() {
        let still = Page {
            still: true,
            width: None,
            ..page(80)
        };
        let before = quiet();
        let mut later = quiet();
        later.at_ms += 61_000;
        assert_eq!(describe(&before, &still), describe(&later, &still));
        assert_ne!(describe(&before, &page(80)), describe(&later, &page(80)));
        for (name, status) in samples().into_iter().skip(1) {
            assert_ne!(describe(&before, &still), describe(&status, &still), "{name}");
        }
    }

    #[test]
    fn a_word_that_is_wider_than_the_page_is_broken() {
        let text = page(40).wrapped("  ", &format!("a {} b", "x".repeat(60)));
        assert!(text.lines().all(|line| line.chars().count() <= 40), "{text}");
        assert_eq!(text.matches('x').count(), 60);
    }
}
