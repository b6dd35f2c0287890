//! What a statement looks like, line by line.

use aws_smithy_types::DateTime;
use aws_smithy_types::date_time::Format as TimeFormat;
use bytes::Bytes;
use futures::stream::{self, BoxStream};
use futures::{Stream, TryStreamExt};
use serde::Serialize;
use uuid::Uuid;

use super::{Format, NoStatement, Period, Totals};
use crate::context::Unanswered;
use crate::currency;
use crate::ledger::{AccountEntry, LedgerError};
use crate::limits::STATEMENT_PIECE_BYTES;

/// Writes a statement, and adds it up on the way.
pub struct Writer<'a> {
    format: Format,
    account: Uuid,
    period: Period,
    totals: &'a Totals,
}

/// What has been written.
struct Sum {
    balance_minor: i64,
    lines: u64,
}

/// The lines do not come to the totals.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{lines} lines come to {balance_minor}, expected {expected_lines} and {expected_balance_minor}")]
pub struct DoesNotAddUp {
    lines: u64,
    balance_minor: i64,
    expected_lines: u64,
    expected_balance_minor: i64,
}

#[derive(Serialize)]
struct Line<'a> {
    #[serde(flatten)]
    entry: &'a AccountEntry,
    balance_minor: i64,
}

const COLUMNS: &str = "created_at,kind,payment,counterparty,reference,amount,balance,currency,epoch,seq\r\n";

impl<'a> Writer<'a> {
    /// Of an account and a period, with these totals.
    pub fn new(format: Format, account: Uuid, period: Period, totals: &'a Totals) -> Self {
        Writer {
            format,
            account,
            period,
            totals,
        }
    }

    /// The text, in pieces of about [`STATEMENT_PIECE_BYTES`]. Fails where an entry cannot be read, and at the end if the entries
    /// are not those that the totals were made of.
    pub fn text(
        &'a self,
        entries: BoxStream<'a, Result<AccountEntry, LedgerError>>,
    ) -> impl Stream<Item = Result<Bytes, NoStatement>> + Send + 'a {
        let begun = Sum {
            balance_minor: self.totals.opening_balance_minor,
            lines: 0,
        };
        let first = self.head(&begun);
        stream::try_unfold(Some((entries, begun, first)), async |state| {
            let Some((mut entries, mut sum, mut piece)) = state else {
                return Ok(None);
            };
            while piece.len() < STATEMENT_PIECE_BYTES {
                match entries.try_next().await.map_err(Unanswered::Ledger)? {
                    Some(entry) => self.line(&entry, &mut sum, &mut piece),
                    None => {
                        self.foot(&sum, &mut piece)?;
                        return Ok(Some((piece.into(), None)));
                    }
                }
            }
            Ok(Some((piece.into(), Some((entries, sum, Vec::new())))))
        })
    }

    fn head(&self, sum: &Sum) -> Vec<u8> {
        match self.format {
            Format::Csv => {
                let mut head = COLUMNS.as_bytes().to_vec();
                self.balance("opening-balance", self.period.from_ms, sum, &mut head);
                head
            }
            Format::Json => {
                let (Period { from_ms, until_ms }, totals) = (self.period, self.totals);
                let head = serde_json::json!({
                    "account": self.account, "currency": totals.currency, "from_ms": from_ms, "until_ms": until_ms,
                    "opening_balance_minor": totals.opening_balance_minor,
                    "closing_balance_minor": totals.closing_balance_minor, "lines": totals.lines,
                });
                // The object stays open for its last member.
                let head = head.to_string();
                format!("{},\"entries\":[", head.trim_end_matches('}')).into_bytes()
            }
        }
    }

    fn line(&self, entry: &AccountEntry, sum: &mut Sum, out: &mut Vec<u8>) {
        sum.balance_minor = sum.balance_minor.saturating_add(entry.amount_minor);
        match self.format {
            Format::Csv => {
                let code = &self.totals.currency;
                let line = format!(
                    "{},{},{},{},{},{},{},{code},{},{}\r\n",
                    time(entry.created_at_ms),
                    entry.kind.as_str(),
                    entry.payment,
                    entry.counterparty,
                    field(entry.reference.as_deref().unwrap_or_default()),
                    currency::in_units(entry.amount_minor, code),
                    currency::in_units(sum.balance_minor, code),
                    entry.epoch,
                    entry.seq,
                );
                out.extend_from_slice(line.as_bytes());
            }
            Format::Json => {
                out.extend_from_slice(if sum.lines == 0 { b"\n" } else { b",\n" });
                let balance_minor = sum.balance_minor;
                let line = Line { entry, balance_minor };
                serde_json::to_writer(out, &line).expect("a line is plain data, and memory takes it");
            }
        }
        sum.lines += 1;
    }

    fn foot(&self, sum: &Sum, out: &mut Vec<u8>) -> Result<(), DoesNotAddUp> {
        let totals = self.totals;
        if (sum.lines, sum.balance_minor) != (totals.lines, totals.closing_balance_minor) {
            return Err(DoesNotAddUp {
                lines: sum.lines,
                balance_minor: sum.balance_minor,
                expected_lines: totals.lines,
                expected_balance_minor: totals.closing_balance_minor,
            });
        }
        match self.format {
            Format::Csv => self.balance("closing-balance", self.period.until_ms, sum, out),
            Format::Json => out.extend_from_slice(b"\n]}\n"),
        }
        Ok(())
    }

    fn balance(&self, kind: &str, at_ms: u64, sum: &Sum, out: &mut Vec<u8>) {
        let code = &self.totals.currency;
        let balance = currency::in_units(sum.balance_minor, code);
        out.extend_from_slice(format!("{},{kind},,,,,{balance},{code},,\r\n", time(at_ms)).as_bytes());
    }
}

/// RFC 3339, in UTC. A time beyond the calendar's is left as its milliseconds.
fn time(ms: u64) -> String {
    i64::try_from(ms)
        .ok()
        .and_then(|ms| DateTime::from_millis(ms).fmt(TimeFormat::DateTime).ok())
        .unwrap_or_else(|| ms.to_string())
}

/// A client's text as a field of RFC 4180. One that a spreadsheet would take for a formula is marked as text with an apostrophe:
/// <https://owasp.org/www-community/attacks/CSV_Injection>. The JSON has it as it was sent.
fn field(text: &str) -> String {
    let formula = text.starts_with(['=', '+', '-', '@', '\t', '\r']);
    let marked = if formula { "'" } else { "" };
    if formula || text.contains([',', '"', '\r', '\n']) {
        format!("\"{marked}{}\"", text.replace('"', "\"\""))
    } else {
        text.to_owned()
    }
}
