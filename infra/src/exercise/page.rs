//! The page of an exercise: self-contained HTML, without scripts and without anything that is fetched. What it shows by colour it
//! shows by shape or word as well.

use std::fmt::Write;

use serde_json::{Value, json};

use super::{Evidence, Kind, Outcome, Seen, State, became, seconds, tail_sentence, utc};
use crate::readiness::{self, Finding, Report};

const STYLE: &str = include_str!("page.css");
/// The charts are this wide in their own units, and as wide as the page allows on it.
const WIDTH: f64 = 1000.0;
/// Bars that a chart of traffic has at most; a longer exercise has several seconds in each.
const BARS: u64 = 240;
/// Labels under the time axis.
const TICKS: u64 = 6;
/// Distances of labels, in seconds.
const DISTANCES: [u64; 17] = [
    1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1_800, 3_600, 7_200, 14_400, 21_600, 43_200,
];
/// A look says how a region was for this long, unless the next one comes earlier.
const LOOK_LASTS_MS: u64 = 30_000;
/// How deep the readiness report is shown.
const DEPTH: usize = 6;

/// Text as it stands in HTML, in an attribute too.
fn escape(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => safe.push_str("&amp;"),
            '<' => safe.push_str("&lt;"),
            '>' => safe.push_str("&gt;"),
            '"' => safe.push_str("&quot;"),
            '\'' => safe.push_str("&#39;"),
            other => safe.push(other),
        }
    }
    safe
}

/// Adds to the page. Writing into a string cannot fail.
macro_rules! put {
    ($out:expr, $($part:tt)*) => { let _ = writeln!($out, $($part)*); };
}

/// The page of an exercise.
pub fn page(evidence: &Evidence) -> String {
    let mut out = String::with_capacity(64 * 1024);
    let title = escape(&evidence.title());
    put!(
        out,
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">"
    );
    put!(
        out,
        "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">"
    );
    put!(out, "<title>{title} ({})</title>", escape(&evidence.id));
    put!(out, "<style>\n{STYLE}</style>\n</head>\n<body>\n<main>");
    put!(
        out,
        "<svg class=\"defs\" aria-hidden=\"true\"><defs><pattern id=\"hatch\" width=\"8\" height=\"8\" patternUnits=\"userSpaceOnUse\">\
         <path class=\"dark\" d=\"M0 8L8 0H4L0 4zM8 8V4L4 8z\"/></pattern></defs></svg>"
    );
    summary(&mut out, evidence);
    timeline(&mut out, evidence);
    steps(&mut out, evidence);
    payments(&mut out, evidence);
    lost_tail(&mut out, evidence);
    readiness_before(&mut out, evidence);
    gaps(&mut out, evidence);
    stack(&mut out, evidence);
    put!(out, "</main>\n</body>\n</html>");
    out
}

/// A number and what it is; `good` is its verdict, if it has one.
fn tile(out: &mut String, what: &str, value: &str, then: &str, good: Option<bool>) {
    let (class, verdict) = match good {
        Some(true) => (" good", "<span class=\"verdict\">met</span>"),
        Some(false) => (" bad", "<span class=\"verdict\">MISSED</span>"),
        None => ("", ""),
    };
    let comma = if verdict.is_empty() || then.is_empty() {
        ""
    } else {
        ": "
    };
    put!(
        out,
        "<div class=\"tile{class}\"><div class=\"what\">{}</div><div class=\"value\">{}</div>\
         <div class=\"then\">{verdict}{comma}{}</div></div>",
        escape(what),
        escape(value),
        escape(then)
    );
}

fn or_unknown(number: Option<u64>) -> String {
    number.map_or_else(|| "not known".to_owned(), |number| number.to_string())
}

fn summary(out: &mut String, evidence: &Evidence) {
    put!(
        out,
        "<header>\n<p class=\"soft small\">Evidence <code>{}</code></p>",
        escape(&evidence.id)
    );
    put!(
        out,
        "<h1>{}</h1>\n<p>{}</p>\n</header>",
        escape(&evidence.title()),
        escape(&evidence.scenario)
    );
    put!(out, "<section class=\"tiles\" aria-label=\"Summary\">");
    let (objectives, achieved) = (&evidence.objectives, &evidence.achieved);
    let class = if evidence.is_failed() { "bad" } else { "good" };
    let then = match (evidence.is_failed(), evidence.missed.len()) {
        (false, _) if evidence.outcome == Outcome::Held => "nothing changed".to_owned(),
        (false, _) => "every objective met".to_owned(),
        (true, 0) => "it counts as failed".to_owned(),
        (true, 1) => "1 objective missed".to_owned(),
        (true, missed) => format!("{missed} objectives missed"),
    };
    put!(
        out,
        "<div class=\"tile {class}\"><div class=\"what\">Outcome</div><div class=\"value\">{}</div>\
         <div class=\"then\"><span class=\"verdict\">{}</span></div></div>",
        escape(evidence.outcome.as_str()),
        escape(&then)
    );
    tile(
        out,
        "Recovery time (RTO)",
        &achieved.rto_ms.map_or_else(|| "not measured".to_owned(), seconds),
        &format!("objective {}", seconds(objectives.rto_ms)),
        achieved.rto_ms.map(|rto_ms| rto_ms <= objectives.rto_ms),
    );
    tile(
        out,
        "Acknowledged and lost (RPO)",
        &or_unknown(evidence.payments.lost),
        &format!("objective {}", objectives.lost),
        evidence.payments.lost.map(|lost| lost <= objectives.lost),
    );
    tile(
        out,
        "Duplicated",
        &or_unknown(evidence.payments.duplicated),
        "objective 0",
        evidence.payments.duplicated.map(|duplicated| duplicated == 0),
    );
    tile(
        out,
        "Acknowledged",
        &evidence.payments.acknowledged.to_string(),
        "in the time shown",
        None,
    );
    tile(
        out,
        "Recovered from the journal",
        &or_unknown(evidence.payments.replayed),
        "the database alone had lost them",
        None,
    );
    put!(out, "</section>");
    for missed in &evidence.missed {
        put!(out, "<p><strong>Missed:</strong> {}.</p>", escape(missed));
    }
    if let Some(reason) = &evidence.outcome_reason {
        put!(
            out,
            "<p><strong>Why {}:</strong> {}</p>",
            evidence.outcome.as_str(),
            escape(reason)
        );
    }
    put!(out, "<dl>");
    let mut rows = vec![
        ("Started by", evidence.started_by.clone()),
        ("Reasons", evidence.reasons.join("; ")),
        (
            "Regions",
            format!(
                "{} served before, {} was to serve",
                evidence.from_region, evidence.to_region
            ),
        ),
        (
            "Epoch",
            format!(
                "{} before, {} afterwards",
                evidence.epoch_before, evidence.epoch_after
            ),
        ),
        ("Began", format!("{} UTC", utc(evidence.began_ms))),
        (
            "Ended",
            format!(
                "{} UTC, after {}",
                utc(evidence.ended_ms),
                seconds(evidence.ended_ms.saturating_sub(evidence.began_ms))
            ),
        ),
        ("Recovery time", achieved.rto_how.clone()),
        ("Recovery point", achieved.rpo_how.clone()),
    ];
    rows.retain(|(_, value)| !value.is_empty());
    for (name, value) in rows {
        put!(out, "<dt>{name}</dt><dd>{}</dd>", escape(&value));
    }
    put!(out, "</dl>");
}

/// The time that the charts show.
#[derive(Debug, Clone, Copy)]
struct Axis {
    from_ms: u64,
    until_ms: u64,
    /// Seconds are counted from here.
    zero_ms: u64,
}

impl Axis {
    fn of(evidence: &Evidence) -> Axis {
        let mut from_ms = evidence.began_ms;
        let mut until_ms = evidence.ended_ms.max(evidence.began_ms);
        let steps = evidence.steps.iter().map(|step| (step.began_ms, step.ended_ms));
        let traffic = evidence
            .traffic
            .seconds
            .iter()
            .map(|one| (one.second * 1_000, one.second * 1_000 + 1_000));
        let health = evidence.health.iter().map(|seen| (seen.at_ms, seen.at_ms));
        for (began_ms, ended_ms) in steps.chain(traffic).chain(health) {
            from_ms = from_ms.min(began_ms);
            until_ms = until_ms.max(ended_ms);
        }
        // Whole seconds, as the traffic is counted.
        let from_ms = from_ms / 1_000 * 1_000;
        let until_ms = until_ms.div_ceil(1_000) * 1_000;
        Axis {
            from_ms,
            until_ms: until_ms.max(from_ms + 1_000),
            zero_ms: evidence.began_ms,
        }
    }

    fn x(&self, at_ms: u64) -> f64 {
        let span = (self.until_ms - self.from_ms) as f64;
        let at_ms = at_ms.clamp(self.from_ms, self.until_ms);
        (at_ms - self.from_ms) as f64 / span * WIDTH
    }

    /// `+3.2 s` after the beginning, or `-3.2 s` before it.
    fn relative(&self, at_ms: u64) -> String {
        if at_ms >= self.zero_ms {
            format!("+{}", seconds(at_ms - self.zero_ms))
        } else {
            format!("-{}", seconds(self.zero_ms - at_ms))
        }
    }

    /// Where labels stand: whole distances from the beginning.
    fn ticks(&self) -> Vec<u64> {
        let span_s = (self.until_ms - self.from_ms) / 1_000;
        let fits = |distance: &&u64| span_s / **distance <= TICKS;
        let days = span_s.div_ceil(TICKS * 86_400) * 86_400;
        let distance_ms = DISTANCES.iter().find(fits).copied().unwrap_or(days) * 1_000;
        let before = (self.zero_ms - self.from_ms) / distance_ms;
        let first_ms = self.zero_ms - before * distance_ms;
        (0..)
            .map(|number| first_ms + number * distance_ms)
            .take_while(|at_ms| *at_ms <= self.until_ms)
            .collect()
    }
}

/// One row of the charts: its name, and what is drawn.
fn row(out: &mut String, axis: &Axis, marks: &[u64], name: &str, tells: &str, height: u32, drawn: &str) {
    let mut lines = String::new();
    for at_ms in axis.ticks() {
        let x = axis.x(at_ms);
        let _ = write!(lines, "<path class=\"tick\" d=\"M{x:.1} 0V{height}\"/>");
    }
    let mut dashes = String::new();
    for at_ms in marks {
        let x = axis.x(*at_ms);
        let _ = write!(dashes, "<path class=\"mark\" d=\"M{x:.1} 0V{height}\"/>");
    }
    put!(
        out,
        "<div class=\"row\"><div class=\"name\">{name}</div><svg viewBox=\"0 0 1000 {height}\" height=\"{height}\" \
         preserveAspectRatio=\"none\" role=\"img\" aria-label=\"{}\">{lines}{drawn}{dashes}</svg></div>",
        escape(tells)
    );
}

fn axis_row(out: &mut String, axis: &Axis) {
    let mut labels = String::new();
    for at_ms in axis.ticks() {
        let percent = axis.x(at_ms) / WIDTH * 100.0;
        if percent > 95.0 {
            continue;
        }
        let class = if percent < 4.0 { " class=\"first\"" } else { "" };
        let label = match at_ms.cmp(&axis.zero_ms) {
            std::cmp::Ordering::Equal => "0 s".to_owned(),
            std::cmp::Ordering::Greater => format!("+{}", short(at_ms - axis.zero_ms)),
            std::cmp::Ordering::Less => format!("-{}", short(axis.zero_ms - at_ms)),
        };
        let _ = write!(labels, "<span{class} style=\"left:{percent:.2}%\">{label}</span>");
    }
    put!(
        out,
        "<div class=\"row\"><div class=\"name soft\">seconds since it began</div><div class=\"axis\" aria-hidden=\"true\">{labels}</div></div>"
    );
}

/// A label of the axis, as short as it can be.
fn short(ms: u64) -> String {
    let all = ms / 1_000;
    match (all / 3_600, all / 60 % 60, all % 60) {
        (0, 0, seconds) => format!("{seconds} s"),
        (0, minutes, 0) => format!("{minutes} min"),
        (0, minutes, seconds) => format!("{minutes}:{seconds:02} min"),
        (hours, 0, 0) => format!("{hours} h"),
        (hours, minutes, _) => format!("{hours}:{minutes:02} h"),
    }
}

fn timeline(out: &mut String, evidence: &Evidence) {
    let axis = &Axis::of(evidence);
    let moments = moments(evidence);
    let marks: Vec<u64> = moments
        .iter()
        .filter(|moment| moment.2)
        .map(|moment| moment.1)
        .collect();
    put!(out, "<section>\n<h2>Timeline</h2>");
    put!(
        out,
        "<p class=\"small soft\">All charts have the same time axis: {} to {} UTC. Dashed lines: {}.</p>",
        utc(axis.from_ms),
        utc(axis.until_ms),
        escape(
            &moments
                .iter()
                .filter(|moment| moment.2)
                .map(|(name, at_ms, _)| format!("{name} ({})", axis.relative(*at_ms)))
                .collect::<Vec<_>>()
                .join(", ")
        )
    );
    put!(out, "<h3>Steps</h3>");
    if evidence.steps.is_empty() {
        put!(out, "<p>No step ran.</p>");
    }
    for step in &evidence.steps {
        let took = seconds(step.ended_ms.saturating_sub(step.began_ms));
        let began = axis.relative(step.began_ms);
        let (x, end) = (axis.x(step.began_ms), axis.x(step.ended_ms));
        let drawn = format!(
            "<rect class=\"step\" x=\"{x:.1}\" y=\"2\" width=\"{:.1}\" height=\"10\"/>",
            (end - x).max(3.0)
        );
        let name = format!(
            "{} <span class=\"soft\">{began}, {took}</span>",
            escape(&step.step)
        );
        let tells = format!("{} began at {began} and took {took}", step.step);
        row(out, axis, &marks, &name, &tells, 14, &drawn);
    }
    axis_row(out, axis);
    traffic(out, evidence, axis, &marks);
    health(out, evidence, axis, &marks);
    put!(
        out,
        "<h3>Moments</h3>\n<table><thead><tr><th>Moment</th><th>UTC</th><th class=\"number\">Since it began</th></tr></thead><tbody>"
    );
    for (name, at_ms, _) in &moments {
        put!(
            out,
            "<tr><td data-label=\"Moment\">{name}</td><td data-label=\"UTC\">{}</td><td class=\"number\" data-label=\"Since\">{}</td></tr>",
            utc(*at_ms),
            axis.relative(*at_ms)
        );
    }
    put!(out, "</tbody></table>\n</section>");
}

/// What happened when: name, time, whether the charts have a line there. In order.
fn moments(evidence: &Evidence) -> Vec<(&'static str, u64, bool)> {
    // A drill opens twice. What counts is what ended the gap.
    let first_ms = evidence.achieved.first_acknowledged_ms.unwrap_or(u64::MAX);
    let opened = evidence
        .steps
        .iter()
        .rev()
        .find(|step| step.step == "open" && step.ended_ms <= first_ms)
        .map(|step| step.ended_ms);
    let mut moments = vec![
        ("began", Some(evidence.began_ms), false),
        (
            "last acknowledgement before",
            evidence.achieved.last_acknowledged_ms,
            true,
        ),
        ("decided", evidence.decided_ms, true),
        ("opened", opened, true),
        (
            "first acknowledgement after",
            evidence.achieved.first_acknowledged_ms,
            true,
        ),
        ("ended", Some(evidence.ended_ms), false),
    ];
    moments.sort_by_key(|moment| moment.1);
    moments
        .into_iter()
        .filter_map(|(name, at_ms, line)| Some((name, at_ms?, line)))
        .collect()
}

fn traffic(out: &mut String, evidence: &Evidence, axis: &Axis, marks: &[u64]) {
    put!(
        out,
        "<h3>Traffic</h3>\n<p class=\"small soft\">{}</p>",
        escape(&evidence.traffic.source)
    );
    if evidence.traffic.seconds.is_empty() {
        put!(out, "<p>No traffic was seen.</p>");
        return;
    }
    let span_s = (axis.until_ms - axis.from_ms) / 1_000;
    let bar_s = span_s.div_ceil(BARS).max(1);
    let bars = usize::try_from(span_s.div_ceil(bar_s)).unwrap_or(1);
    let regions = [&evidence.from_region, &evidence.to_region];
    let mut acknowledged = [vec![0_u64; bars], vec![0_u64; bars]];
    let mut refused = vec![0_u64; bars];
    let mut failed = vec![0_u64; bars];
    for one in &evidence.traffic.seconds {
        let bar = one.second.saturating_sub(axis.from_ms / 1_000) / bar_s;
        let bar = usize::try_from(bar).unwrap_or(bars).min(bars - 1);
        for (sums, region) in acknowledged.iter_mut().zip(regions) {
            sums[bar] += one.acknowledged.get(region).copied().unwrap_or(0);
        }
        refused[bar] += one.refused;
        failed[bar] += one.failed;
    }
    let per = if bar_s == 1 {
        "second".to_owned()
    } else {
        format!("{bar_s} seconds")
    };
    let most = acknowledged.iter().flatten().copied().max().unwrap_or(0).max(1);
    let bar_ms = bar_s * 1_000;
    let draw = |sums: &[u64], most: u64, height: f64, fill: &str| {
        let mut drawn = String::new();
        for (number, sum) in sums.iter().enumerate().filter(|(_, sum)| **sum > 0) {
            let from_ms = axis.from_ms + number as u64 * bar_ms;
            let (x, end) = (axis.x(from_ms), axis.x(from_ms + bar_ms));
            let tall = (*sum as f64 / most as f64 * (height - 4.0)).max(2.0);
            let _ = write!(
                drawn,
                "<rect {fill} x=\"{x:.1}\" y=\"{:.1}\" width=\"{:.1}\" height=\"{tall:.1}\"/>",
                height - tall,
                (end - x) * 0.86
            );
        }
        drawn
    };
    for (index, region) in regions.into_iter().enumerate() {
        let sums = &acknowledged[index];
        let total: u64 = sums.iter().sum();
        let peak = sums.iter().copied().max().unwrap_or(0);
        let class = if index == 0 {
            "class=\"home\""
        } else {
            "class=\"other\""
        };
        let name = format!(
            "{} <span class=\"soft\">acknowledged {total}, at most {peak} in a {per}</span>",
            escape(region)
        );
        let tells = format!("{region} acknowledged {total} commands, at most {peak} in a {per}");
        row(
            out,
            axis,
            marks,
            &name,
            &tells,
            56,
            &draw(sums, most, 56.0, class),
        );
    }
    let (all_refused, all_failed) = (refused.iter().sum::<u64>(), failed.iter().sum::<u64>());
    let most = refused.iter().chain(&failed).copied().max().unwrap_or(0).max(1);
    if all_refused > 0 {
        let name = format!("refused <span class=\"soft\">{all_refused} answered 503</span>");
        let drawn = draw(&refused, most, 32.0, "class=\"standby\"");
        row(
            out,
            axis,
            marks,
            &name,
            &format!("{all_refused} requests were refused"),
            32,
            &drawn,
        );
    }
    if all_failed > 0 {
        let name = format!("failed <span class=\"soft\">{all_failed} without an answer</span>");
        let drawn = draw(&failed, most, 32.0, "fill=\"url(#hatch)\"");
        row(
            out,
            axis,
            marks,
            &name,
            &format!("{all_failed} requests failed"),
            32,
            &drawn,
        );
    }
    axis_row(out, axis);
}

/// What one observer saw of one region: state, from, until. Equal neighbours are one.
fn spans(seen: &[&Seen], until_ms: u64) -> Vec<(State, u64, u64)> {
    let mut spans: Vec<(State, u64, u64)> = Vec::new();
    for (number, look) in seen.iter().enumerate() {
        let next_ms = seen.get(number + 1).map_or(until_ms, |next| next.at_ms);
        let end_ms = next_ms.min(look.at_ms + LOOK_LASTS_MS);
        match spans.last_mut() {
            Some((state, _, until)) if *state == look.state && *until >= look.at_ms => *until = end_ms,
            _ => spans.push((look.state, look.at_ms, end_ms)),
        }
    }
    spans
}

/// How a state is drawn in a row that is `height` high.
fn state_shape(state: State, x: f64, width: f64, height: u32) -> String {
    match state {
        State::Serving => {
            format!("<rect class=\"serving\" x=\"{x:.1}\" y=\"0\" width=\"{width:.1}\" height=\"{height}\"/>")
        }
        State::Standby => {
            let half = height / 2;
            format!(
                "<rect class=\"standby\" x=\"{x:.1}\" y=\"{half}\" width=\"{width:.1}\" height=\"{half}\"/>"
            )
        }
        State::Failing => format!(
            "<rect fill=\"url(#hatch)\" x=\"{x:.1}\" y=\"0\" width=\"{width:.1}\" height=\"{height}\"/>\
             <rect class=\"edge\" x=\"{x:.1}\" y=\"0\" width=\"{width:.1}\" height=\"{height}\"/>"
        ),
    }
}

fn health(out: &mut String, evidence: &Evidence, axis: &Axis, marks: &[u64]) {
    put!(out, "<h3>Health, as the observers saw it</h3>");
    if evidence.health.is_empty() {
        put!(out, "<p>No look of an observer falls into this time.</p>");
        return;
    }
    put!(out, "<div class=\"legend\">");
    let tells = [
        (State::Serving, "serving: whole height"),
        (State::Standby, "standby: lower half"),
        (State::Failing, "failing: hatched"),
    ];
    for (state, word) in tells {
        put!(
            out,
            "<span><svg viewBox=\"0 0 26 14\" aria-hidden=\"true\">{}</svg>{word}</span>",
            state_shape(state, 0.0, 26.0, 14)
        );
    }
    put!(out, "<span>empty: not seen</span></div>");
    let mut observers: Vec<&str> = evidence
        .health
        .iter()
        .map(|seen| seen.observer.as_str())
        .collect();
    observers.sort_unstable();
    observers.dedup();
    for region in [&evidence.from_region, &evidence.to_region] {
        for observer in &observers {
            let seen: Vec<&Seen> = evidence
                .health
                .iter()
                .filter(|seen| seen.region == *region && seen.observer == **observer)
                .collect();
            if seen.is_empty() {
                continue;
            }
            let (mut drawn, mut told) = (String::new(), Vec::new());
            for (state, from_ms, until_ms) in spans(&seen, axis.until_ms) {
                let (x, end) = (axis.x(from_ms), axis.x(until_ms));
                drawn.push_str(&state_shape(state, x, (end - x).max(2.0), 16));
                told.push(format!("{} from {}", state.as_str(), axis.relative(from_ms)));
            }
            let name = format!(
                "{} <span class=\"soft\">seen from {}</span>",
                escape(region),
                escape(observer)
            );
            let tells = format!("{region} as seen from {observer}: {}", told.join(", "));
            row(out, axis, marks, &name, &tells, 16, &drawn);
        }
    }
    axis_row(out, axis);
}

fn steps(out: &mut String, evidence: &Evidence) {
    if evidence.steps.is_empty() {
        return;
    }
    let axis = Axis::of(evidence);
    put!(
        out,
        "<section>\n<h2>Steps</h2>\n<table><thead><tr><th>Step</th><th>Region</th><th>Began (UTC)</th><th class=\"number\">Since it began</th>\
         <th class=\"number\">Took</th><th>Result</th></tr></thead><tbody>"
    );
    for step in &evidence.steps {
        put!(
            out,
            "<tr><td data-label=\"Step\">{}</td><td data-label=\"Region\">{}</td><td data-label=\"Began\">{}</td>\
             <td class=\"number\" data-label=\"Since\">{}</td><td class=\"number\" data-label=\"Took\">{}</td><td data-label=\"Result\">{}</td></tr>",
            escape(&step.step),
            escape(&step.region),
            utc(step.began_ms),
            axis.relative(step.began_ms),
            seconds(step.ended_ms.saturating_sub(step.began_ms)),
            escape(&step.note)
        );
    }
    put!(out, "</tbody></table>\n</section>");
}

fn payments(out: &mut String, evidence: &Evidence) {
    let payments = &evidence.payments;
    put!(
        out,
        "<section>\n<h2>Payments</h2>\n<table><thead><tr><th>What</th><th class=\"number\">Number</th></tr></thead><tbody>"
    );
    let rows = [
        (
            "acknowledged in the time shown",
            payments.acknowledged.to_string(),
        ),
        ("recovered from the journal", or_unknown(payments.replayed)),
        ("acknowledged and lost", or_unknown(payments.lost)),
        ("duplicated", or_unknown(payments.duplicated)),
    ];
    for (what, number) in rows {
        put!(
            out,
            "<tr><td data-label=\"What\">{what}</td><td class=\"number\" data-label=\"Number\">{}</td></tr>",
            escape(&number)
        );
    }
    put!(
        out,
        "</tbody></table>\n<p class=\"small\">{}</p>\n</section>",
        escape(&payments.source)
    );
}

/// What only the old region had, or where that will be told.
fn lost_tail(out: &mut String, evidence: &Evidence) {
    if evidence.kind != Kind::Failover {
        return;
    }
    let from = escape(&evidence.from_region);
    put!(out, "<section>\n<h2>What only {from} had</h2>");
    let command = format!("<code>understudy lost-tail {}</code>", evidence.epoch_after);
    let Some(report) = &evidence.lost_tail else {
        if evidence.outcome == Outcome::Completed {
            put!(
                out,
                "<p>Not known yet: it is compared when {from} is back, and this page is written anew then. {command} tells how far that is.</p>"
            );
        } else {
            put!(out, "<p>Not compared: nothing was taken over.</p>");
        }
        put!(out, "</section>");
        return;
    };
    put!(out, "<p>{}</p>", escape(&tail_sentence(report)));
    let comparison = &report.comparison;
    if !comparison.entries.is_empty() {
        put!(
            out,
            "<table><thead><tr><th>Payment or account</th><th>Command</th><th class=\"number\">Amount, minor units</th><th>Executed (UTC)</th>\
             <th>What became of it</th></tr></thead><tbody>"
        );
    }
    for line in &comparison.entries {
        put!(
            out,
            "<tr><td data-label=\"Subject\"><code>{}</code></td><td data-label=\"Command\">{} ({})</td>\
             <td class=\"number\" data-label=\"Amount\">{} {}</td><td data-label=\"Executed\">{}</td><td data-label=\"Became\">{}</td></tr>",
            escape(&line.subject),
            line.kind.as_str(),
            line.status.as_str(),
            line.amount_minor,
            escape(&line.currency),
            utc(line.created_at_ms),
            escape(&became(&line.became))
        );
    }
    if !comparison.entries.is_empty() {
        put!(out, "</tbody></table>");
    }
    if comparison.omitted > 0 {
        put!(
            out,
            "<p>{} more are in <code>lost-tail.json</code>, beside this page in the data bucket.</p>",
            comparison.omitted
        );
    }
    let kept = report.snapshot.as_ref().map_or_else(String::new, |name| {
        format!(
            " Its data is kept in the snapshot <code>{}</code> as long as the stack lives.",
            escape(name)
        )
    });
    put!(
        out,
        "<p class=\"small\">Compared at {} UTC.{kept} {command} shows it again.</p>\n</section>",
        utc(report.compared_ms)
    );
}

fn readiness_before(out: &mut String, evidence: &Evidence) {
    put!(out, "<section>\n<h2>Readiness before</h2>");
    match &evidence.readiness {
        Some(report) => match serde_json::from_value::<Report>(report.clone()) {
            Ok(report) => findings(out, &report),
            // Of another version.
            Err(_) => value(out, report, DEPTH),
        },
        None => {
            put!(out, "<p>No readiness report was stored.</p>");
        }
    }
    put!(out, "</section>");
}

/// What was not in order, each with its remedy, and the names of what was.
fn findings(out: &mut String, report: &Report) {
    let (passed, open): (Vec<&Finding>, Vec<&Finding>) = report
        .findings
        .iter()
        .partition(|finding| finding.state == readiness::State::Passed);
    put!(
        out,
        "<p>{} evaluated at {} UTC: <b>{}</b>. {} of {} checks passed.</p>",
        escape(&report.region),
        utc(report.at_ms),
        if report.is_ready() { "ready" } else { "not ready" },
        passed.len(),
        report.findings.len()
    );
    if !open.is_empty() {
        put!(
            out,
            "<table><thead><tr><th>Check</th><th>Severity</th><th>State</th><th>What was seen, and what to do</th></tr></thead><tbody>"
        );
    }
    for finding in &open {
        put!(
            out,
            "<tr><td data-label=\"Check\">{}</td><td data-label=\"Severity\">{}</td><td data-label=\"State\">{}</td>\
             <td data-label=\"Seen\">{}: {}. {}</td></tr>",
            escape(&finding.check),
            escape(&plain(&json!(finding.severity))),
            escape(&plain(&json!(finding.state))),
            escape(&finding.subject),
            escape(&finding.reason),
            escape(&finding.remedy)
        );
    }
    if !open.is_empty() {
        put!(out, "</tbody></table>");
    }
    let mut names: Vec<&str> = passed.iter().map(|finding| finding.check.as_str()).collect();
    names.sort_unstable();
    names.dedup();
    put!(
        out,
        "<p class=\"small\"><span class=\"soft\">Passed:</span> {}.</p>",
        escape(&names.join(", "))
    );
}

/// Any JSON value: lists of plain objects as tables, the rest as terms and lists.
fn value(out: &mut String, shown: &Value, depth: usize) {
    match shown {
        Value::Array(items) if items.is_empty() => {
            put!(out, "none");
        }
        Value::Array(items) if depth > 0 => {
            put!(out, "<ul>");
            for item in items {
                put!(out, "<li>");
                match item {
                    Value::Object(fields)
                        if fields
                            .values()
                            .all(|field| !field.is_object() && !field.is_array()) =>
                    {
                        let told: Vec<String> = fields
                            .iter()
                            .filter(|(_, field)| !field.is_null())
                            .map(|(name, field)| {
                                format!(
                                    "<span class=\"soft\">{}:</span> {}",
                                    escape(&words(name)),
                                    escape(&plain(field))
                                )
                            })
                            .collect();
                        put!(out, "{}", told.join("; "));
                    }
                    other => value(out, other, depth - 1),
                }
                put!(out, "</li>");
            }
            put!(out, "</ul>");
        }
        Value::Object(fields) if depth > 0 => {
            put!(out, "<dl>");
            for (name, field) in fields {
                put!(out, "<dt>{}</dt><dd>", escape(&words(name)));
                match field {
                    Value::Number(number)
                        if name.ends_with("_ms")
                            && number.as_u64().is_some_and(|ms| ms > 1_000_000_000_000) =>
                    {
                        put!(out, "{} UTC", utc(number.as_u64().unwrap_or_default()));
                    }
                    field => value(out, field, depth - 1),
                }
                put!(out, "</dd>");
            }
            put!(out, "</dl>");
        }
        other => {
            put!(out, "{}", escape(&plain(other)));
        }
    }
}

/// The name of a field in words.
fn words(name: &str) -> String {
    name.trim_end_matches("_ms").replace('_', " ")
}

fn plain(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Bool(true) => "yes".to_owned(),
        Value::Bool(false) => "no".to_owned(),
        Value::Null => "none".to_owned(),
        other => other.to_string(),
    }
}

fn gaps(out: &mut String, evidence: &Evidence) {
    put!(out, "<section>\n<h2>Gaps and remedies</h2>");
    if evidence.gaps.is_empty() {
        put!(out, "<p>None were found.</p>");
    } else {
        put!(
            out,
            "<table><thead><tr><th>Gap</th><th>Remedy</th></tr></thead><tbody>"
        );
        for gap in &evidence.gaps {
            put!(
                out,
                "<tr><td data-label=\"Gap\">{}</td><td data-label=\"Remedy\">{}</td></tr>",
                escape(&gap.gap),
                escape(&gap.remedy)
            );
        }
        put!(out, "</tbody></table>");
    }
    put!(
        out,
        "</section>\n<section>\n<h2>What this exercise did not prove</h2>\n<ul>"
    );
    for claim in &evidence.not_proven {
        put!(out, "<li>{}</li>", escape(claim));
    }
    put!(out, "</ul>\n</section>");
}

fn stack(out: &mut String, evidence: &Evidence) {
    let stack = &evidence.stack;
    put!(out, "<section>\n<h2>The stack</h2>\n<dl>");
    let mut rows = vec![
        ("Suffix".to_owned(), stack.suffix.clone()),
        ("Account".to_owned(), stack.account.clone()),
        (
            "Regions".to_owned(),
            format!(
                "{} (home), {} (other serving region), {} (witness)",
                stack.regions.primary, stack.regions.dr, stack.regions.witness
            ),
        ),
        (
            "Generation of the configuration".to_owned(),
            or_unknown(stack.generation),
        ),
        ("Understudy".to_owned(), stack.program_version.clone()),
        (
            "Aurora PostgreSQL, as configured".to_owned(),
            stack.aurora_engine_version.clone().unwrap_or_default(),
        ),
    ];
    rows.extend(
        stack
            .packages
            .iter()
            .map(|(name, sha256)| (format!("Package {name}"), format!("SHA-256 {sha256}"))),
    );
    rows.retain(|(_, text)| !text.is_empty());
    for (name, text) in rows {
        put!(out, "<dt>{}</dt><dd>{}</dd>", escape(&name), escape(&text));
    }
    put!(
        out,
        "</dl>\n<p class=\"small soft\">Document: <code>{}</code>, form <code>{}</code>.</p>",
        escape(&super::json_key(&evidence.id)),
        escape(&evidence.schema)
    );
    for left_out in &evidence.left_out {
        put!(
            out,
            "<p class=\"small\">Not in this copy: {}.</p>",
            escape(left_out)
        );
    }
    put!(out, "</section>");
}
