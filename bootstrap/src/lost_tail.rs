//! `understudy lost-tail`: the report about what only the old region's database had when a failover took over from it, and how far
//! the recovery is that writes it.

use std::time::Duration;

use aws_sdk_sfn::error::ProvideErrorMetadata;
use aws_sdk_sfn::types::{ExecutionListItem, ExecutionStatus, HistoryEvent, HistoryEventType};
use continuity::lost_tail::{Line, Report, Total};
use continuity::names::{Slot, Takeover, exercise_id};
use infra::exercise::{self, Evidence, Outcome, became, tail_sentence, utc};
use infra::resources::state_machine;
use payments::currency;
use serde::Serialize;
use serde_json::{Value, json};

use crate::exercises;
use crate::failure::Failure;
use crate::stack::Stack;

/// Entries that a person is shown.
const SHOWN: usize = 100;
/// A region that does not answer within this does not answer.
const REACH_LIMIT: Duration = Duration::from_secs(10);

/// A recovery that was started again, or runs anyway.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Started {
    /// The epoch of its failover.
    pub epoch: u64,
    /// The execution.
    pub execution: String,
    /// The region that it runs in.
    pub region: String,
    /// False when it was running before.
    pub new: bool,
}

/// The report about the failover that began `epoch`, or the newest one.
///
/// # Errors
/// There was no such failover; its recovery has not compared anything yet, and how far it is; no region answers.
pub async fn lost_tail(stack: &Stack, epoch: Option<u64>) -> Result<Report, Failure> {
    let epoch = chosen(stack, epoch).await?;
    let id = stack.names().failover_execution(epoch);
    let what = format!("the report about the lost tail of epoch {epoch}");
    // The bucket lists more entries than the item.
    if let Ok(Some(report)) = exercises::read(stack, &exercise::lost_tail_key(&id), &what).await {
        return Ok(report);
    }
    if let Some(json) = stack.document(&Report::item(epoch)).await? {
        return serde_json::from_str(&json).map_err(|error| {
            Failure::text(format!("{what} cannot be read by this version: {error}"))
                .help("use the version of understudy that wrote it, or a newer one")
        });
    }
    let stands = stands(stack, epoch).await?;
    let peer = |region: &str| stack.spec.regions.peer_of(region).unwrap_or_default().to_owned();
    Err(not_known(epoch, &stands, peer))
}

/// The epoch that is asked for, or that of the newest failover, after making sure that a failover began it.
async fn chosen(stack: &Stack, wanted: Option<u64>) -> Result<u64, Failure> {
    let record = stack.control_record().await?;
    let now = record.as_ref().map_or(0, |record| record.epoch);
    // Its evidence is written at its end, and it changes the record before.
    let running = record
        .as_ref()
        .and_then(|record| stack.names().takeover_of(&record.changed_by));
    if let Some((Takeover::Failover, epoch)) = running
        && wanted.is_none_or(|wanted| wanted == epoch)
    {
        return Ok(epoch);
    }
    let mut begun = Vec::new();
    for epoch in exercises::failovers(stack).await?.into_iter().rev() {
        if epoch > now {
            continue;
        }
        let id = stack.names().failover_execution(epoch);
        // One that was held or given up began no epoch.
        if exercises::show(stack, &id)
            .await
            .is_ok_and(|evidence| evidence.outcome == Outcome::Completed)
        {
            begun.push(epoch);
            if wanted.is_none_or(|wanted| wanted == epoch) {
                return Ok(epoch);
            }
        }
    }
    Err(none(wanted, now, &begun))
}

/// There is no such failover.
fn none(wanted: Option<u64>, now: u64, begun: &[u64]) -> Failure {
    match wanted {
        Some(wanted) if wanted > now => Failure::text(format!(
            "epoch {wanted} has not begun; the stack is in epoch {now}"
        ))
        .help("leave the epoch out to see the newest failover"),
        Some(wanted) if begun.is_empty() => Failure::text(format!(
            "epoch {wanted} was not begun by a failover, and no other one was"
        ))
        .help("only a failover can leave entries behind: a switchover waits until everything is replicated"),
        Some(wanted) => {
            let begun: Vec<String> = begun.iter().map(u64::to_string).collect();
            Failure::text(format!("epoch {wanted} was not begun by a failover"))
                .help(format!("a failover began these: {}", begun.join(", ")))
        }
        None => Failure::text("there was no failover of this stack, so nothing can have been lost in one")
            .help("`understudy drill list` shows what there was"),
    }
}

/// How the recovery of a failover stands.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Stands {
    /// No region has an execution of it.
    NotStarted,
    /// It runs.
    Runs {
        execution: String,
        region: String,
        /// The step that began last: `find-tail`.
        step: Option<String>,
        /// Why that step waits, as far as it says.
        reason: Option<String>,
    },
    /// It ended without a report.
    Ended { region: String, why: String },
}

/// Asks both regions; the newest execution counts.
async fn stands(stack: &Stack, epoch: u64) -> Result<Stands, Failure> {
    let (answers, silent) = executions(stack, epoch).await;
    let Some((slot, newest)) = answers.into_iter().max_by_key(|(_, one)| one.start_date.secs()) else {
        if let Some((region, why)) = silent {
            return Err(Failure::text(format!(
                "there is no report about epoch {epoch} yet, and `{region}`, where it may be written, does not answer: {why}"
            ))
            .help(format!("run `understudy lost-tail {epoch}` again when it answers")));
        }
        return Ok(Stands::NotStarted);
    };
    let region = stack.spec.regions.of(slot).to_owned();
    let client = stack.cloud.sfn(&region);
    let execution = newest.execution_arn;
    if matches!(
        newest.status,
        ExecutionStatus::Running | ExecutionStatus::PendingRedrive
    ) {
        let history = client
            .get_execution_history()
            .execution_arn(&execution)
            .reverse_order(true)
            .max_results(100)
            .send()
            .await?;
        return Ok(Stands::Runs {
            step: step(history.events()),
            reason: reason(history.events()),
            execution,
            region,
        });
    }
    let seen = client
        .describe_execution()
        .execution_arn(&execution)
        .send()
        .await?;
    let parts = [seen.error(), seen.cause()];
    let told: Vec<&str> = parts
        .into_iter()
        .flatten()
        .filter(|part| !part.is_empty())
        .collect();
    let status = seen.status().as_str().to_lowercase();
    let why = if told.is_empty() { status } else { told.join(": ") };
    Ok(Stands::Ended { region, why })
}

/// The executions of a failover's recovery in both regions, and a region that does not say, with why.
async fn executions(stack: &Stack, epoch: u64) -> (Vec<(Slot, ExecutionListItem)>, Option<(String, String)>) {
    let base = stack.names().recovery_execution(epoch);
    let (mut found, mut silent) = (Vec::new(), None);
    for slot in Slot::SERVING {
        let region = stack.spec.regions.of(slot);
        let listed = stack
            .cloud
            .sfn(region)
            .list_executions()
            .state_machine_arn(machine(stack, slot))
            .into_paginator()
            .items()
            .send()
            .collect::<Result<Vec<_>, _>>();
        match tokio::time::timeout(REACH_LIMIT, listed).await {
            Ok(Ok(listed)) => {
                let ours = listed.into_iter().filter(|one| exercise_id(&one.name) == base);
                found.extend(ours.map(|one| (slot, one)));
            }
            Ok(Err(error)) if error.code() == Some("StateMachineDoesNotExist") => {}
            Ok(Err(error)) => silent = Some((region.to_owned(), continuity::error::chain(&error))),
            Err(_) => {
                let why = format!("no answer within {} s", REACH_LIMIT.as_secs());
                silent = Some((region.to_owned(), why));
            }
        }
    }
    (found, silent)
}

fn machine(stack: &Stack, slot: Slot) -> String {
    let name = stack.names().state_machine("recovery", slot);
    state_machine::arn(stack.spec.regions.of(slot), &stack.account, &name)
}

/// The step that began last, from a history that is newest first.
fn step(events: &[HistoryEvent]) -> Option<String> {
    let entered = events
        .iter()
        .find(|event| event.r#type == HistoryEventType::TaskStateEntered)?;
    let state = &entered.state_entered_event_details.as_ref()?.name;
    let mut step = String::new();
    for letter in state.chars() {
        if letter.is_uppercase() && !step.is_empty() {
            step.push('-');
        }
        step.extend(letter.to_lowercase());
    }
    Some(step)
}

/// Why the old region is not back, as the last look found it, from a history that is newest first.
fn reason(events: &[HistoryEvent]) -> Option<String> {
    let left = events
        .iter()
        .find(|event| event.r#type == HistoryEventType::TaskStateExited)?;
    let output = left.state_exited_event_details.as_ref()?.output.as_deref()?;
    let output: Value = serde_json::from_str(output).ok()?;
    output["find_tail"]["reason"].as_str().map(str::to_owned)
}

/// The error when there is no report. `peer` is the other serving region.
fn not_known(epoch: u64, stands: &Stands, peer: impl Fn(&str) -> String) -> Failure {
    let command = format!("understudy lost-tail {epoch}");
    match stands {
        Stands::NotStarted => Failure::text(format!(
            "the comparison after the failover that began epoch {epoch} has not been started: the failover starts it at its end"
        ))
        .help(format!(
            "`understudy status` shows whether the failover still runs; if it does not, `{command} --again` starts the comparison"
        )),
        Stands::Runs {
            region, step, reason, ..
        } => {
            let step = step.as_deref().unwrap_or("its beginning");
            let reason = reason.as_ref().map_or_else(String::new, |reason| format!(": {reason}"));
            Failure::text(format!(
                "what only {} had when epoch {epoch} began is not known yet: the recovery in {region} is at `{step}` ({}{reason})",
                peer(region),
                words(step)
            ))
            .help(format!("it goes on by itself; run `{command}` again later"))
        }
        Stands::Ended { region, why } => Failure::text(format!(
            "the comparison after the failover that began epoch {epoch} broke off in {region}: {why}"
        ))
        .help(format!("mend the cause, then `{command} --again` starts it where it stopped")),
    }
}

/// What the recovery does at a step.
fn words(step: &str) -> &'static str {
    match step {
        "find-tail" => "it waits until the old region stands by again and its data is kept",
        "keep-tail" => "it copies the snapshot of what the old region held",
        "open-tail" => "it restores the copy beside the old region's database",
        "compare-tail" => "it compares the two ledgers",
        "close-tail" => "it deletes the restored database",
        "report-tail" => "it writes the evidence",
        _ => "it has just begun",
    }
}

/// Starts the recovery of a failover again, unless it runs.
///
/// # Errors
/// There was no such failover, or Step Functions does not answer in the region that took over.
pub async fn again(stack: &Stack, epoch: Option<u64>) -> Result<Started, Failure> {
    let epoch = chosen(stack, epoch).await?;
    if let Stands::Runs {
        execution, region, ..
    } = stands(stack, epoch).await?
    {
        return Ok(Started {
            epoch,
            execution,
            region,
            new: false,
        });
    }
    let evidence = exercises::show(stack, &stack.names().failover_execution(epoch)).await?;
    let region = evidence.to_region.clone();
    let slot = stack.spec.regions.slot_of(&region);
    let slot = slot.ok_or_else(|| Failure::text(format!("`{region}` is no region of this stack")))?;
    let client = stack.cloud.sfn(&region);
    let (before, _) = executions(stack, epoch).await;
    let base = stack.names().recovery_execution(epoch);
    for attempt in before.len() + 1.. {
        let name = if attempt == 1 {
            base.clone()
        } else {
            format!("{base}-{attempt}")
        };
        let started = client
            .start_execution()
            .state_machine_arn(machine(stack, slot))
            .name(name)
            .input(input(&evidence).to_string())
            .send()
            .await;
        match started {
            // The name of one whose history is gone already.
            Err(error) if error.code() == Some("ExecutionAlreadyExists") => {}
            started => {
                return Ok(Started {
                    epoch,
                    execution: started?.execution_arn,
                    region,
                    new: true,
                });
            }
        }
    }
    unreachable!("numbers do not end")
}

/// What the failover started its recovery with.
fn input(evidence: &Evidence) -> Value {
    json!({
        "epoch": evidence.epoch_after, "from_region": evidence.from_region, "to_region": evidence.to_region,
        "decided_ms": evidence.decided_ms,
    })
}

/// The result of [`again`] for a person.
pub fn describe_started(started: &Started) -> String {
    let what = if started.new { "started" } else { "runs already" };
    format!(
        "the comparison after the failover that began epoch {} {what} in {}: `understudy lost-tail {}` shows how far it is",
        started.epoch, started.region, started.epoch
    )
}

/// The report for a person.
pub fn describe(report: &Report) -> String {
    let comparison = &report.comparison;
    let mut lines = vec![tail_sentence(report)];
    if !comparison.entries.is_empty() {
        let rows = comparison.entries.iter().take(SHOWN).map(row);
        let head = [
            "payment or account",
            "command",
            "amount",
            "executed (UTC)",
            "what became of it",
        ];
        lines.push(String::new());
        lines.extend(columns(
            std::iter::once(head.map(str::to_owned)).chain(rows).collect(),
        ));
        let more = comparison.omitted + comparison.entries.len().saturating_sub(SHOWN) as u64;
        if more > 0 {
            lines.push(format!(
                "  and {more} older ones; `--output json` lists the newest 10,000"
            ));
        }
        lines.push(String::new());
        lines.extend(
            comparison
                .totals
                .iter()
                .map(|(outcome, total)| sum(outcome, total)),
        );
    }
    lines.push(String::new());
    lines.push(format!(
        "epoch {}, taken over by {}; compared {} UTC{}",
        report.epoch,
        report.to_region,
        &utc(report.compared_ms)[..19],
        report.snapshot.as_ref().map_or_else(String::new, |snapshot| {
            format!(
                "; kept in the snapshot `{snapshot}` in {} until `understudy down`",
                report.from_region
            )
        })
    ));
    lines.join("\n")
}

fn row(line: &Line) -> [String; 5] {
    let amount = if line.amount_minor == 0 {
        String::new()
    } else {
        units(i128::from(line.amount_minor), &line.currency)
    };
    let command = match line.status {
        continuity::entry::EntryStatus::Created => line.kind.as_str().to_owned(),
        status => format!("{} ({})", line.kind.as_str(), status.as_str()),
    };
    let executed = utc(line.created_at_ms);
    [
        line.subject.clone(),
        command,
        amount,
        executed,
        became(&line.became),
    ]
}

fn sum(outcome: &str, total: &Total) -> String {
    let noun = if total.entries == 1 { "entry" } else { "entries" };
    let amounts = total
        .amounts_minor
        .iter()
        .map(|(code, minor)| units(*minor, code));
    let amounts: Vec<String> = amounts.collect();
    let amounts = if amounts.is_empty() {
        "no amount".to_owned()
    } else {
        amounts.join(" + ")
    };
    format!("  {outcome:14}  {} {noun}, {amounts}", total.entries)
}

/// An amount with its currency, in units where a sum is not too large for that.
fn units(minor: i128, code: &str) -> String {
    match i64::try_from(minor) {
        Ok(minor) => format!("{} {code}", currency::in_units(minor, code)),
        Err(_) => format!("{minor} minor units of {code}"),
    }
}

/// Rows with each column as wide as its widest cell; amounts stand at the right.
fn columns(rows: Vec<[String; 5]>) -> Vec<String> {
    let width = |column: usize| {
        rows.iter()
            .map(|row| row[column].chars().count())
            .max()
            .unwrap_or(0)
    };
    let widths: [usize; 5] = std::array::from_fn(width);
    rows.iter()
        .map(|[subject, command, amount, executed, became]| {
            let [first, second, third, fourth, _] = widths;
            format!("  {subject:first$}  {command:second$}  {amount:>third$}  {executed:fourth$}  {became}")
        })
        .collect()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use aws_sdk_sfn::types::{StateEnteredEventDetails, StateExitedEventDetails};
    use continuity::entry::{EntryId, EntryKind, EntryStatus};
    use continuity::lost_tail::{Comparison, Held, TailEntry};

    use super::*;

    fn entry(seq: u64, amount_minor: i64, currency: &str) -> TailEntry {
        TailEntry {
            id: EntryId { epoch: 1, seq },
            posted_epoch: 1,
            idempotency_key: format!("order-{seq}"),
            kind: EntryKind::Payment,
            status: EntryStatus::Created,
            subject: format!("payment-{seq}"),
            debit_account: None,
            credit_account: None,
            amount_minor,
            currency: currency.into(),
            created_at_ms: 1_795_741_985_120,
        }
    }

    fn report(entries: Vec<TailEntry>, held: &[Option<Held>]) -> Report {
        let mut comparison = Comparison::default();
        comparison.add(entries, held);
        Report {
            epoch: 2,
            from_region: "us-east-1".into(),
            to_region: "us-east-2".into(),
            snapshot: Some("lost-tail-primary-dev-2".into()),
            compared_ms: 1_795_741_999_000,
            complete: true,
            comparison,
        }
    }

    #[test]
    fn a_person_reads_payment_amount_time_and_what_became_of_each() {
        let recovered = Held {
            id: EntryId { epoch: 1, seq: 8 },
            posted_epoch: 2,
            subject: "payment-8".into(),
        };
        let declined = TailEntry {
            status: EntryStatus::Declined,
            ..entry(7, 5, "EUR")
        };
        let entries = vec![entry(9, 123_456, "EUR"), entry(8, 40, "JPY"), declined];
        insta::assert_snapshot!(describe(&report(entries, &[None, Some(recovered), None])));
    }

    #[test]
    fn nothing_lost_is_a_plain_sentence() {
        let text = describe(&report(vec![], &[]));
        assert!(text.starts_with("Nothing was lost"), "{text}");
        assert!(!text.contains("amount"), "{text}");
    }

    #[test]
    fn a_long_report_shows_the_newest_and_says_how_many_there_are_more() {
        let entries: Vec<TailEntry> = (0..150).rev().map(|seq| entry(seq, 1, "EUR")).collect();
        let none = vec![None; entries.len()];
        let text = describe(&report(entries, &none));
        assert!(
            text.contains("payment-149 ") && !text.contains("payment-49 "),
            "{text}"
        );
        assert!(text.contains("50 older ones"), "{text}");
    }

    fn whole(failure: &Failure) -> String {
        format!("{failure} {}", failure.next().unwrap_or_default())
    }

    #[test]
    fn an_unknown_failover_is_an_error_that_names_those_there_were() {
        let rows: [(Option<u64>, &[u64], &str, &str); 4] = [
            (Some(9), &[2], "has not begun; the stack is in epoch 5", "newest"),
            (Some(3), &[4, 2], "was not begun by a failover", "4, 2"),
            (Some(3), &[], "no other one was", "switchover"),
            (None, &[], "there was no failover", "drill list"),
        ];
        for (wanted, begun, message, help) in rows {
            let text = whole(&none(wanted, 5, begun));
            assert!(text.contains(message) && text.contains(help), "{text}");
        }
    }

    #[test]
    fn what_runs_or_broke_off_is_an_error_with_its_step_or_its_cause() {
        let runs = Stands::Runs {
            execution: "arn".into(),
            region: "us-east-2".into(),
            step: Some("find-tail".into()),
            reason: Some("its database does not answer".into()),
        };
        let ended = Stands::Ended {
            region: "us-east-2".into(),
            why: "RecoveryOverdue: a day".into(),
        };
        let rows = [
            (Stands::NotStarted, "has not been started", "--again"),
            (
                runs,
                "what only us-east-1 had when epoch 2 began is not known yet: the recovery in us-east-2 is at `find-tail` (it waits until the old region stands by again and its data is kept: its database does not answer)",
                "goes on by itself",
            ),
            (ended, "broke off in us-east-2: RecoveryOverdue: a day", "--again"),
        ];
        for (stands, message, help) in rows {
            let text = whole(&not_known(2, &stands, |_| "us-east-1".to_owned()));
            assert!(text.contains(message) && text.contains(help), "{text}");
        }
    }

    #[test]
    fn the_step_and_its_reason_are_the_newest_of_the_history() {
        let event = |id| {
            HistoryEvent::builder()
                .id(id)
                .timestamp(aws_sdk_sfn::primitives::DateTime::from_secs(id))
        };
        let entered = |id, name: &str| {
            let details = StateEnteredEventDetails::builder().name(name).build().unwrap();
            let event = event(id).r#type(HistoryEventType::TaskStateEntered);
            event.state_entered_event_details(details).build().unwrap()
        };
        let left = |id, reason: &str| {
            let output = json!({"find_tail": {"next": "soon", "reason": reason}}).to_string();
            let details = StateExitedEventDetails::builder().name("FindTail").output(output);
            let event = event(id).r#type(HistoryEventType::TaskStateExited);
            event
                .state_exited_event_details(details.build().unwrap())
                .build()
                .unwrap()
        };
        let events = [
            entered(4, "CompareTail"),
            left(3, "newer"),
            left(2, "older"),
            entered(1, "FindTail"),
        ];
        assert_eq!(step(&events).as_deref(), Some("compare-tail"));
        assert_eq!(reason(&events).as_deref(), Some("newer"));
        assert_eq!((step(&[]), reason(&[])), (None, None));
    }
}
