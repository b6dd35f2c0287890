//! `understudy readiness`: what each region's last evaluation found, or, with `--now`, what a new one finds.

use std::collections::BTreeMap;
use std::time::Duration;

use aws_sdk_sfn::types::ExecutionStatus;
use console::style;
use continuity::names::Slot;
use infra::readiness::{self, Finding, Report, Severity, State};
use infra::resources::state_machine;
use serde::Serialize;

use crate::failure::Failure;
use crate::stack::Stack;
use crate::ui::Ui;

/// How often a running evaluation is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(300);
/// An evaluation that has not ended by then never will: longer than the workflow's step with its retries.
const PATIENCE: Duration = Duration::from_secs(300);
/// A report that is older than this many intervals is stale.
const STALE_AFTER_INTERVALS: u64 = 2;

/// What is known of both regions.
#[derive(Debug, Clone, Serialize)]
pub struct Readiness {
    /// The suffix.
    pub stack: String,
    /// Both regions have a report that is not stale, and nothing critical in it failed.
    pub ready: bool,
    /// By region.
    pub regions: BTreeMap<String, Seen>,
    /// Now, milliseconds since the Unix epoch.
    pub at_ms: u64,
}

/// A region's report.
#[derive(Debug, Clone, Serialize)]
pub struct Seen {
    /// Nothing critical failed.
    pub ready: bool,
    /// There is no report, or it is too old to believe.
    pub stale: bool,
    /// How old it is.
    pub age_ms: Option<u64>,
    /// The report.
    pub report: Option<Report>,
}

/// A region's report as it counts at `now_ms`.
pub(crate) fn seen(report: Option<Report>, interval_minutes: u16, now_ms: u64) -> Seen {
    let age_ms = report.as_ref().map(|report| now_ms.saturating_sub(report.at_ms));
    let limit_ms = u64::from(interval_minutes) * 60_000 * STALE_AFTER_INTERVALS;
    Seen {
        ready: report.as_ref().is_some_and(Report::is_ready),
        stale: age_ms.is_none_or(|age_ms| age_ms > limit_ms),
        age_ms,
        report,
    }
}

/// The stored reports; with `now`, those of evaluations that begin now.
///
/// # Errors
/// Nothing is deployed, no region answers, or an evaluation does not come to its end.
pub async fn readiness(stack: &Stack, now: bool, ui: &Ui) -> Result<Readiness, Failure> {
    let Some(configuration) = stack.configuration().await? else {
        return Err(Failure::text(format!(
            "nothing is deployed under the suffix `{}`",
            stack.spec.suffix
        ))
        .help("deploy it with `understudy up`, or name another stack with `--suffix`"));
    };
    let stack = &stack.as_deployed(&configuration);
    if now {
        let [one, other] = Slot::SERVING.map(|slot| evaluate(stack, slot, ui));
        let (one, other) = tokio::join!(one, other);
        one.and(other)?;
    }
    let now_ms = continuity::clock::now_ms();
    let mut regions = BTreeMap::new();
    for slot in Slot::SERVING {
        let region = stack.spec.regions.of(slot);
        let stored = stack.document(&readiness::item(region)).await?;
        // A report that another version of this program wrote is none.
        let report = stored.and_then(|json| serde_json::from_str(&json).ok());
        let seen = seen(report, stack.spec.readiness.interval_minutes, now_ms);
        regions.insert(region.to_owned(), seen);
    }
    Ok(Readiness {
        stack: stack.spec.suffix.clone(),
        ready: regions.values().all(|seen| seen.ready && !seen.stale),
        regions,
        at_ms: now_ms,
    })
}

/// Starts an evaluation in a slot's region and waits for its end, which comes after its report.
async fn evaluate(stack: &Stack, slot: Slot, ui: &Ui) -> Result<(), Failure> {
    let region = stack.spec.regions.of(slot);
    let client = stack.cloud.sfn(region);
    let machine = stack.names().state_machine("readiness", slot);
    let started = client
        .start_execution()
        .state_machine_arn(state_machine::arn(region, &stack.account, &machine))
        .name(format!(
            "readiness-{}-{}",
            stack.spec.suffix,
            uuid::Uuid::now_v7()
        ))
        .input("{}")
        .send()
        .await
        .map_err(|error| {
            Failure::new(&error).help(format!(
                "`understudy readiness` without `--now` shows what was found last; {region} may not answer"
            ))
        })?;
    ui.step(format!("{region} evaluates"));
    let arn = started.execution_arn();
    let ended = tokio::time::timeout(PATIENCE, async {
        loop {
            // A look that fails says nothing about the evaluation.
            let seen = client.describe_execution().execution_arn(arn).send().await;
            match seen.as_ref().map(|seen| (seen.status(), seen)) {
                Ok((ExecutionStatus::Running | ExecutionStatus::PendingRedrive, _)) | Err(_) => {}
                Ok((ExecutionStatus::Succeeded, _)) => return Ok(()),
                Ok((status, seen)) => {
                    return Err(Failure::text(format!(
                        "the evaluation in {region} ended {}: {}",
                        status.as_str().to_lowercase(),
                        seen.cause().or(seen.error()).unwrap_or("no cause")
                    ))
                    .help("see the log of the failover-coordinator there"));
                }
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    });
    match ended.await {
        Ok(ended) => ended.inspect(|()| ui.done(format!("{region} has evaluated"))),
        Err(_) => Err(Failure::text(format!(
            "the evaluation in {region} did not end within {} s",
            PATIENCE.as_secs()
        ))
        .help("`understudy status` shows whether the region answers")),
    }
}

fn age(ms: u64) -> String {
    match ms / 1000 {
        seconds @ 0..120 => format!("{seconds} s ago"),
        seconds @ 120..7200 => format!("{} min ago", seconds / 60),
        seconds => format!("{} h ago", seconds / 3600),
    }
}

fn mark(finding: &Finding) -> String {
    match (finding.state, finding.severity) {
        (State::Passed, _) => style("passed ").green().to_string(),
        (State::Failed, Severity::Critical) => style("FAILED ").red().bold().to_string(),
        (State::Unknown, Severity::Critical) => style("UNKNOWN").red().bold().to_string(),
        (State::Failed, Severity::Warning) => style("warning").yellow().to_string(),
        (State::Unknown, Severity::Warning) => style("unknown").yellow().to_string(),
    }
}

/// What a person reads of it: what failed first, each with what to do; then how much passed.
pub fn describe(readiness: &Readiness) -> String {
    let mut lines = Vec::new();
    for (region, seen) in &readiness.regions {
        let Some(report) = &seen.report else {
            lines.push(format!(
                "{region}: {}; `understudy readiness --now` evaluates now",
                style("never evaluated").red().bold()
            ));
            continue;
        };
        let verdict = match seen.ready {
            true => style("ready").green().bold(),
            false => style("NOT READY").red().bold(),
        };
        let stale = if seen.stale {
            ", too long to believe: run it with `--now`"
        } else {
            ""
        };
        let evaluated = seen.age_ms.map_or(String::new(), age);
        lines.push(format!("{region}: {verdict}, evaluated {evaluated}{stale}"));
        let mut findings: Vec<&Finding> = report
            .findings
            .iter()
            .filter(|finding| finding.state != State::Passed)
            .collect();
        // Failed before unknown.
        findings.sort_by_key(|finding| (finding.severity, finding.state));
        for finding in &findings {
            lines.push(format!("  {} {finding}", mark(finding)));
            lines.push(format!("          {}", style(&finding.remedy).dim()));
        }
        let passed = report.findings.len() - findings.len();
        lines.push(format!("  {} {passed} checks", style("passed ").green()));
    }
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(state: State, severity: Severity) -> Report {
        let finding = |check: &str, severity, state| Finding {
            check: check.into(),
            severity,
            state,
            subject: "payment-processor in us-east-2".into(),
            reason: "nothing is reserved".into(),
            remedy: "reserve it".into(),
        };
        Report {
            region: "us-east-2".into(),
            at_ms: 1_000,
            findings: vec![
                finding("workflows", Severity::Critical, State::Passed),
                finding("alarms", Severity::Warning, State::Failed),
                finding("concurrency", severity, state),
            ],
        }
    }

    #[test]
    fn a_region_is_ready_only_with_a_report_that_is_young_enough() {
        let hour_ms = 3_600_000;
        for (report, now_ms, ready, stale) in [
            (None, 2_000, false, true),
            (
                Some(report(State::Passed, Severity::Critical)),
                2_000,
                true,
                false,
            ),
            (
                Some(report(State::Passed, Severity::Critical)),
                1_001 + hour_ms,
                true,
                true,
            ),
            (
                Some(report(State::Failed, Severity::Critical)),
                2_000,
                false,
                false,
            ),
            (
                Some(report(State::Unknown, Severity::Critical)),
                2_000,
                false,
                false,
            ),
            (Some(report(State::Failed, Severity::Warning)), 2_000, true, false),
        ] {
            let seen = seen(report, 30, now_ms);
            assert_eq!((seen.ready, seen.stale), (ready, stale), "{seen:?}");
        }
    }

    #[test]
    fn what_failed_comes_first_with_its_remedy() {
        let regions = BTreeMap::from([
            ("us-east-1".to_owned(), seen(None, 30, 2_000)),
            (
                "us-east-2".to_owned(),
                seen(Some(report(State::Failed, Severity::Critical)), 30, 61_000),
            ),
        ]);
        let text = describe(&Readiness {
            stack: "dev".into(),
            ready: false,
            regions,
            at_ms: 2_000,
        });
        let text = console::strip_ansi_codes(&text).into_owned();
        assert_eq!(
            text.lines().collect::<Vec<_>>(),
            [
                "us-east-1: never evaluated; `understudy readiness --now` evaluates now",
                "us-east-2: NOT READY, evaluated 60 s ago",
                "  FAILED  concurrency: payment-processor in us-east-2: nothing is reserved",
                "          reserve it",
                "  warning alarms: payment-processor in us-east-2: nothing is reserved",
                "          reserve it",
                "  passed  1 checks",
            ]
        );
    }
}
