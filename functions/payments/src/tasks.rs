//! What workflows ask of the ledger, by direct invocation. Each task is idempotent.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};

use continuity::entry::{EntryId, LedgerEntry};
use continuity::error::{StoreError, chain};
use continuity::lost_tail::{self, Held};
use continuity::takeover::LedgerStatus;
use futures::{StreamExt, TryStreamExt, stream};
use lambda_runtime::Diagnostic;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::command::Order;
use crate::context::{Context, Unanswered};
use crate::ledger::{Ledger, LedgerError, Posted, Summary, Verified};
use crate::limits::{EXPIRE_BATCH, REPLAY_BATCH, REPLAY_PUTS};
use crate::telemetry::Received;

/// A task's request.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(tag = "task", rename_all = "kebab-case")]
pub enum Task {
    /// Bring the schema up to date.
    Migrate,
    /// Say how the ledger is. Never fails: a database that does not answer is an answer.
    LedgerStatus,
    /// Raise the ledger epoch.
    SetEpoch {
        /// To this.
        epoch: u64,
    },
    /// Post what the ledger lacks of the journal of `from_epoch..to_epoch`, and put under `to_epoch` what was posted.
    Replay {
        /// The first epoch to scan.
        from_epoch: u64,
        /// The epoch that is recovering.
        to_epoch: u64,
    },
    /// Say what was executed when, and around the beginning of an epoch. For the evidence of a takeover.
    Traffic {
        /// From this moment, milliseconds since the Unix epoch.
        from_ms: u64,
        /// To this.
        until_ms: u64,
        /// The epoch.
        epoch: u64,
    },
    /// Recompute balances and totals from the log; or look only at what a replay may have changed, which takes no longer the longer
    /// the log is.
    VerifyLedger {
        /// The epoch that was replayed into.
        #[serde(default)]
        posted_in: Option<u64>,
    },
    /// A page of the ledger on a server that was restored beside this region's, newest entry first: see
    /// [`continuity::lost_tail`]. Reads only.
    LostTail {
        /// The restored server's host, which takes this region's credentials.
        host: String,
        /// Its port.
        port: u16,
        /// The page begins before this entry; without one, at the newest.
        #[serde(default)]
        before: Option<EntryId>,
    },
    /// What this region's ledger holds under each of these idempotency keys, in their order. Reads only.
    HeldEntries {
        /// The keys, [`lost_tail::PAGE`] at most.
        keys: Vec<String>,
    },
    /// Release what authorised payments hold whose time has passed. Does nothing in a region that does not serve.
    ExpireAuthorisations,
}

/// What a replay did.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Replayed {
    /// Entries found in the journal.
    pub scanned: u64,
    /// The newest of those that were left out, with all before it in its epoch: the ledger had them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub settled: Option<EntryId>,
    /// Entries that the ledger lacked and now has, by this run or an earlier one of the same replay.
    pub posted: u64,
    /// Entries that the ledger had.
    pub already_present: u64,
    /// Entries that were not posted because their key or identity is another entry's: `epoch/seq`.
    pub conflicts: Vec<String>,
    /// Accounts that recovered payments left below their limit.
    pub overdrawn: Vec<Uuid>,
}

/// Why a task failed. The variant's name is the Lambda error type, which workflows may retry or catch by.
#[derive(Debug, thiserror::Error)]
pub enum TaskError {
    /// The event is neither a task nor a request.
    #[error("event cannot be read: {0}")]
    InvalidEvent(String),
    /// The database cannot do it now.
    #[error("ledger is not available")]
    LedgerUnavailable(#[source] LedgerError),
    /// The database refused.
    #[error("ledger refused")]
    LedgerRefused(#[source] LedgerError),
    /// The ledger is in another epoch than the task is for: the workflow is stale, or a step was left out.
    #[error("ledger is in epoch {actual:?}, not {expected}")]
    LedgerInOtherEpoch {
        /// The task's.
        expected: u64,
        /// The ledger's.
        actual: Option<u64>,
    },
    /// The control table or the journal cannot be read or written now.
    #[error("control table or journal is not available")]
    JournalUnavailable(#[source] StoreError),
}

impl TaskError {
    /// Every error type, for those who write Retry and Catch clauses.
    pub const TYPES: [&'static str; 5] = [
        "InvalidEvent",
        "LedgerUnavailable",
        "LedgerRefused",
        "LedgerInOtherEpoch",
        "JournalUnavailable",
    ];

    /// The Lambda error type.
    pub fn error_type(&self) -> &'static str {
        match self {
            TaskError::InvalidEvent(_) => Self::TYPES[0],
            TaskError::LedgerUnavailable(_) => Self::TYPES[1],
            TaskError::LedgerRefused(_) => Self::TYPES[2],
            TaskError::LedgerInOtherEpoch { .. } => Self::TYPES[3],
            TaskError::JournalUnavailable(_) => Self::TYPES[4],
        }
    }
}

impl From<LedgerError> for TaskError {
    fn from(error: LedgerError) -> Self {
        match error {
            LedgerError::OtherEpoch { expected, actual } => {
                TaskError::LedgerInOtherEpoch { expected, actual }
            }
            error @ (LedgerError::Refused { .. } | LedgerError::MigrationChanged { .. }) => {
                TaskError::LedgerRefused(error)
            }
            error => TaskError::LedgerUnavailable(error),
        }
    }
}

impl From<TaskError> for Diagnostic {
    fn from(error: TaskError) -> Self {
        Diagnostic {
            error_type: error.error_type().to_owned(),
            error_message: chain(&error),
        }
    }
}

/// Runs the task of an event.
///
/// # Errors
/// See [`TaskError`].
pub async fn run(context: &Context, event: Value) -> Result<Value, TaskError> {
    let task: Task =
        serde_json::from_value(event).map_err(|error| TaskError::InvalidEvent(error.to_string()))?;
    match &task {
        // Keys may identify a customer: the log counts them.
        Task::HeldEntries { keys } => tracing::info!(keys = keys.len(), "task held-entries"),
        task => tracing::info!(?task, "task"),
    }
    let answer = match task {
        Task::Migrate => json!({ "schema_version": context.ledger.migrate().await? }),
        Task::LedgerStatus => json!(ledger_status(context).await),
        Task::SetEpoch { epoch } => json!({ "ledger_epoch": set_epoch(context, epoch).await? }),
        Task::Replay { from_epoch, to_epoch } => json!(replay(context, from_epoch, to_epoch).await?),
        Task::Traffic {
            from_ms,
            until_ms,
            epoch,
        } => json!(context.ledger.traffic(from_ms, until_ms, epoch).await?),
        Task::VerifyLedger { posted_in: None } => verified(context.ledger.verify().await?),
        Task::VerifyLedger {
            posted_in: Some(epoch),
        } => verified(context.ledger.verify_posted(epoch).await?),
        Task::LostTail { host, port, before } => {
            json!({ "entries": restored(context, &host, port)?.newest(before, lost_tail::PAGE).await? })
        }
        Task::HeldEntries { keys } => json!({ "held": held(context, &keys).await? }),
        Task::ExpireAuthorisations => json!({ "expired": expire(context).await? }),
    };
    Ok(answer)
}

async fn ledger_status(context: &Context) -> Summary {
    context.ledger.summary().await.unwrap_or_else(|error| {
        tracing::warn!(error = chain(&error), "ledger does not answer");
        let status = LedgerStatus {
            reachable: false,
            in_recovery: false,
            ledger_epoch: None,
        };
        Summary { status, last_seq: 0 }
    })
}

/// The ledger on a restored server.
fn restored(context: &Context, host: &str, port: u16) -> Result<Arc<dyn Ledger>, TaskError> {
    let make = context.ledger_at.as_ref().ok_or_else(|| {
        TaskError::InvalidEvent("this function knows of no database but its own".to_owned())
    })?;
    Ok(make(host, port))
}

async fn held(context: &Context, keys: &[String]) -> Result<Vec<Option<Held>>, TaskError> {
    if keys.len() > lost_tail::PAGE as usize {
        let problem = format!("{} keys, more than {}", keys.len(), lost_tail::PAGE);
        return Err(TaskError::InvalidEvent(problem));
    }
    Ok(context.ledger.held(keys).await?)
}

async fn set_epoch(context: &Context, epoch: u64) -> Result<u64, TaskError> {
    let holds = context.ledger.set_epoch(epoch).await?;
    if holds != epoch {
        return Err(TaskError::LedgerInOtherEpoch {
            expected: epoch,
            actual: Some(holds),
        });
    }
    Ok(holds)
}

/// Replays the journal of `from_epoch..to_epoch` into the ledger, which must be in `to_epoch`.
///
/// 1. Scan every epoch since the last that served (the caller names it), strongly consistent, but what is settled: the ledger has
///    it, see [`Ledger::settled`].
/// 2. Post in order of identity what the ledger lacks, as it was recorded.
/// 3. Put under `to_epoch` what was posted, by this run or an earlier one. What the ledger had before it was put into
///    `to_epoch` is in every replica that shows that epoch, and no other may be taken over to. An entry whose key is another's
///    stays behind: were this an old run of the step that goes on after the opening, the other could be acknowledged already.
///
/// # Errors
/// See [`TaskError`]; what was done is done again without effect.
pub async fn replay(context: &Context, from_epoch: u64, to_epoch: u64) -> Result<Replayed, TaskError> {
    let settled = context.ledger.settled().await?;
    let mut found: BTreeMap<EntryId, LedgerEntry> = BTreeMap::new();
    for epoch in from_epoch..to_epoch {
        let entries = context
            .journal
            .scan(epoch, settled)
            .await
            .map_err(TaskError::JournalUnavailable)?;
        found.extend(entries.into_iter().map(|entry| (entry.id, entry)));
    }
    let entries: Vec<LedgerEntry> = found.into_values().collect();

    let total = Mutex::new(Posted::default());
    stream::iter(entries.chunks(REPLAY_BATCH))
        .then(|batch| async {
            let posted = context.ledger.post(to_epoch, batch).await?;
            let put: BTreeSet<EntryId> = posted.posted.iter().copied().collect();
            total.lock().unwrap_or_else(PoisonError::into_inner).add(posted);
            let put = batch.iter().filter(move |entry| put.contains(&entry.id));
            Ok::<_, TaskError>(stream::iter(put.map(Ok)))
        })
        .try_flatten()
        .try_for_each_concurrent(REPLAY_PUTS, |entry| async {
            let put = context.journal.put(to_epoch, entry).await;
            put.map_err(TaskError::JournalUnavailable)
        })
        .await?;

    let mut total = total.into_inner().unwrap_or_else(PoisonError::into_inner);
    total.touched.sort();
    total.touched.dedup();
    let identity = |id: &EntryId| format!("{}/{}", id.epoch, id.seq);
    Ok(Replayed {
        scanned: entries.len() as u64,
        settled,
        posted: total.posted.len() as u64,
        already_present: total.already_present,
        conflicts: total.conflicts.iter().map(identity).collect(),
        overdrawn: context.ledger.overdrawn(&total.touched).await?,
    })
}

/// Expires authorisations whose time has passed, as commands that are acknowledged like a client's: their idempotency keys
/// hold a space, which no client's can. Answers how many; one that somebody ended meanwhile does not count.
///
/// # Errors
/// See [`TaskError`]; what was done stays done.
async fn expire(context: &Context) -> Result<u64, TaskError> {
    // Where this region does not serve, the database is not even asked: it may be a standby, or gone.
    match context.serves().await {
        Ok(true) => {}
        Ok(false) => return Ok(0),
        Err(source) => return Err(TaskError::JournalUnavailable(source)),
    }
    let mut expired = 0;
    for payment in context.ledger.expired((context.clock)(), EXPIRE_BATCH).await? {
        let received = Received::now("expire-authorisations");
        let outcome = context
            .execute(&received, format!("expiry {payment}"), Order::Expire { payment })
            .await;
        match outcome {
            Ok(_) => expired += 1,
            Err(Unanswered::Rejected(_)) => {}
            Err(Unanswered::NotActive) => return Ok(expired),
            Err(Unanswered::Ledger(source)) => return Err(source.into()),
            Err(Unanswered::Control(source) | Unanswered::Journal(source)) => {
                return Err(TaskError::JournalUnavailable(source));
            }
            Err(Unanswered::TimedOut) => {
                return Err(TaskError::LedgerUnavailable(LedgerError::Timeout("expiry")));
            }
        }
    }
    Ok(expired)
}

/// Totals as numbers where 64 bits hold them, as strings beyond.
fn verified(found: Verified) -> Value {
    let number = |text: &str| {
        text.parse::<u64>()
            .map_or_else(|_| json!(text), |number| json!(number))
    };
    let balanced = found.problems.is_empty()
        && found
            .currencies
            .values()
            .all(|totals| totals.debits == totals.credits);
    let currencies: BTreeMap<&String, Value> = found
        .currencies
        .iter()
        .map(|(currency, totals)| {
            (
                currency,
                json!({ "debits": number(&totals.debits), "credits": number(&totals.credits) }),
            )
        })
        .collect();
    json!({
        "balanced": balanced,
        "currencies": currencies,
        "entries": found.entries,
        "accounts": found.accounts,
        "problems": found.problems,
    })
}
