//! Statements: what moved on an account in a period, written into the region's data bucket while it is read from the ledger.
//! The handler never holds the whole of a long one: it reads it twice.

pub mod memory;
pub mod store;
pub mod text;

use std::pin::pin;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::{self, BoxStream};
use futures::{Stream, StreamExt, TryStreamExt};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use tokio::time::timeout;
use uuid::Uuid;

use crate::context::{Context, Unanswered};
use crate::ledger::{AccountEntry, LedgerError};
use crate::limits::{STATEMENT_KEPT_BYTES, STATEMENT_LINK, STATEMENT_SETTLED};
use store::{Object, Pieces, StorageError};
use text::{DoesNotAddUp, Writer};

/// From when, and until when: milliseconds since the Unix epoch, the latter not included. Periods that meet share no line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Period {
    /// The first millisecond.
    pub from_ms: u64,
    /// The first one after it.
    pub until_ms: u64,
}

/// How a statement is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// For people and their spreadsheets: RFC 4180, amounts in units of the currency.
    Csv,
    /// For programs: one document, amounts in minor units.
    Json,
}

impl Format {
    /// Every format.
    pub const ALL: [Format; 2] = [Format::Csv, Format::Json];

    /// The word in the API, which is the ending of the file's name too.
    pub fn as_str(self) -> &'static str {
        match self {
            Format::Csv => "csv",
            Format::Json => "json",
        }
    }

    /// The format of that word.
    pub fn parse(text: &str) -> Option<Format> {
        Self::ALL.into_iter().find(|format| format.as_str() == text)
    }

    fn content_type(self) -> &'static str {
        match self {
            Format::Csv => "text/csv; charset=utf-8; header=present",
            Format::Json => "application/json",
        }
    }
}

/// What an account's movements in a period come to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Totals {
    /// ISO 4217 code.
    pub currency: String,
    /// The balance before the period, in minor units.
    pub opening_balance_minor: i64,
    /// The balance after it: the opening balance and all lines.
    pub closing_balance_minor: i64,
    /// How many movements there were.
    pub lines: u64,
}

/// A statement as the ledger gives it: all of one moment.
pub struct Statement {
    /// What the movements come to.
    pub totals: Totals,
    /// The movements.
    pub movements: Box<dyn Movements>,
}

/// What moved on an account in a period, at one moment of the ledger: however often it is read, the same.
#[async_trait]
pub trait Movements: Send + Sync {
    /// Them, in the order of the ledger.
    async fn read(&self) -> Result<BoxStream<'_, Result<AccountEntry, LedgerError>>, LedgerError>;
}

/// A statement that was written.
#[derive(Debug, Serialize)]
pub struct Written {
    /// The account.
    account: Uuid,
    /// The period.
    from_ms: u64,
    until_ms: u64,
    format: Format,
    /// The period was over when the ledger was read, and every command begun in it had its answer. A takeover afterwards may
    /// still lose what was never acknowledged, or bring back what was.
    settled: bool,
    #[serde(flatten)]
    totals: Totals,
    /// Size of the file.
    bytes: u64,
    /// SHA-256 of the file, in hex.
    sha256: String,
    /// Where the file is in the region's data bucket.
    object: String,
    /// A link to it for whoever holds it, without a key.
    url: String,
    /// Until when the link is good, at the longest.
    url_expires_at_ms: u64,
}

/// Why there is no statement.
#[derive(Debug, thiserror::Error)]
pub enum NoStatement {
    /// There is no such account.
    #[error("there is no such account")]
    NotFound,
    /// It would be too long.
    #[error("{lines} movements are too many for a statement")]
    TooLong {
        /// How many movements there are.
        lines: u64,
        /// How many there may be.
        most: u64,
    },
    /// The bucket did not take it.
    #[error("the statement could not be stored")]
    Storage(#[source] StorageError),
    /// What was read does not add up.
    #[error("the statement does not add up")]
    DoesNotAddUp(#[from] DoesNotAddUp),
    /// The ledger could not be read, or this region does not serve.
    #[error(transparent)]
    Unanswered(#[from] Unanswered),
}

/// Writes the statement of an account and period into the bucket.
///
/// Guarantees: all of it was read in one moment of the ledger, in an epoch in which this region still served afterwards; its
/// lines add up to its balances. A file is there whole or not at all.
///
/// # Errors
/// [`NoStatement`]; asking again is safe.
pub async fn write(
    context: &Context,
    account: Uuid,
    period: Period,
    format: Format,
) -> Result<Written, NoStatement> {
    let now_ms = (context.clock)();
    timeout(
        context.request_timeout,
        write_at(context, now_ms, account, period, format),
    )
    .await
    .unwrap_or(Err(NoStatement::Unanswered(Unanswered::TimedOut)))
}

async fn write_at(
    context: &Context,
    now_ms: u64,
    account: Uuid,
    period: Period,
    format: Format,
) -> Result<Written, NoStatement> {
    let read = context.ledger.statement(account, period).await;
    let read = read.map_err(Unanswered::Ledger)?;
    let Some(Statement { totals, movements }) = read.value else {
        context.confirm(read.ledger_epoch).await?;
        return Err(NoStatement::NotFound);
    };
    if totals.lines > context.statement_lines {
        context.confirm(read.ledger_epoch).await?;
        return Err(NoStatement::TooLong {
            lines: totals.lines,
            most: context.statement_lines,
        });
    }
    let writer = Writer::new(format, account, period, &totals);
    let measured = measure(pieces(&writer, movements.as_ref())).await?;
    // What is read may be newer than what is acknowledged, never from a region that lost its role.
    context.confirm(read.ledger_epoch).await?;
    let object = Object {
        key: key(account, period, format),
        content_type: format.content_type(),
        bytes: measured.bytes,
        sha256: measured.sha256,
    };
    let again: Pieces<'_> = match measured.kept {
        Some(kept) => stream::iter(kept.into_iter().map(Ok)).boxed(),
        None => pieces(&writer, movements.as_ref()).map_err(Into::into).boxed(),
    };
    let stored = context.statements.put(&object, again).await;
    stored.map_err(NoStatement::Storage)?;
    let link = context.statements.link(&object, STATEMENT_LINK).await;
    Ok(Written {
        account,
        from_ms: period.from_ms,
        until_ms: period.until_ms,
        format,
        settled: period.until_ms.saturating_add(ms(STATEMENT_SETTLED)) <= now_ms,
        url: link.map_err(NoStatement::Storage)?,
        url_expires_at_ms: now_ms + ms(STATEMENT_LINK),
        bytes: object.bytes,
        sha256: object.sha256,
        object: object.key,
        totals,
    })
}

/// The text of a statement, piece by piece. Fails at the end if it does not add up.
fn pieces<'a>(
    writer: &'a Writer<'a>,
    movements: &'a dyn Movements,
) -> impl Stream<Item = Result<Bytes, NoStatement>> + Send + 'a {
    stream::once(async {
        let entries = movements.read().await.map_err(Unanswered::Ledger)?;
        Ok::<_, NoStatement>(writer.text(entries))
    })
    .try_flatten()
}

/// What was measured of a text.
struct Measured {
    bytes: u64,
    sha256: String,
    /// All of it, if it is short.
    kept: Option<Vec<Bytes>>,
}

/// Reads a text to its end. S3 wants to know size and hash of an object before its first byte.
async fn measure(text: impl Stream<Item = Result<Bytes, NoStatement>>) -> Result<Measured, NoStatement> {
    let mut text = pin!(text);
    let mut hash = Sha256::new();
    let mut bytes = 0;
    let mut kept = Some(Vec::new());
    while let Some(piece) = text.try_next().await? {
        hash.update(&piece);
        bytes += piece.len() as u64;
        match &mut kept {
            Some(pieces) if bytes <= STATEMENT_KEPT_BYTES => pieces.push(piece),
            _ => kept = None,
        }
    }
    Ok(Measured {
        bytes,
        sha256: hex::encode(hash.finalize()),
        kept,
    })
}

/// The same for the same question: a statement that is made again is a new version of its object.
fn key(account: Uuid, period: Period, format: Format) -> String {
    let Period { from_ms, until_ms } = period;
    format!("statements/{account}/{from_ms}-{until_ms}.{}", format.as_str())
}

fn ms(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
