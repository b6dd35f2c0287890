//! The four steps of acknowledging a command (the reason for the recovery point of zero).
//!
//! 1. this region believes that it is serving, in epoch *e*;
//! 2. the ledger executes the command, or finds its stored outcome, and refuses unless its own epoch is *e* (rule h);
//! 3. the entry is put into the journal under *e*, a stored outcome too (rules b, e, f), and with it the entries that it relies
//!    on: a refund that is acknowledged shall not outlive the capture that it is of, which may never have been;
//! 4. the control record is read strongly, after the put (rule a): still *e*, still us, still serving? Then it may be answered.
//!
//! Whatever goes wrong, the client gets no acknowledgement and may retry with the same idempotency key.

use std::error::Error;
use std::time::Duration;

use futures::future::try_join_all;
use tokio::time::Instant;

use crate::control::{ControlRecord, ControlStore, Phase};
use crate::entry::LedgerEntry;
use crate::error::StoreError;
use crate::journal::Journal;

/// Why a command was not acknowledged.
#[derive(Debug, thiserror::Error)]
pub enum NotAcknowledged<E: Error + 'static> {
    /// This region is not the active one, not serving, or its epoch has passed.
    #[error("region `{region}` may not acknowledge")]
    NotActive {
        /// This region.
        region: String,
        /// The record that says so, where one was read.
        record: Option<ControlRecord>,
    },
    /// The control table did not answer.
    #[error("the control record could not be read")]
    Control(#[source] StoreError),
    /// The journal did not take the entry.
    #[error("the entry could not be journaled")]
    Journal(#[source] StoreError),
    /// The ledger refused or failed.
    #[error("the ledger did not execute the command")]
    Ledger(#[source] E),
}

/// What a command came to.
#[derive(Debug, Clone, PartialEq)]
pub struct Outcome {
    /// Its entry.
    pub entry: LedgerEntry,
    /// Earlier entries without which that one would not have been decided as it was, and which nobody may have acknowledged:
    /// the authorisation and the capture of a payment that is captured or refunded. To put them again is what a retry of
    /// their own commands would do.
    pub relies_on: Vec<LedgerEntry>,
}

impl From<LedgerEntry> for Outcome {
    fn from(entry: LedgerEntry) -> Self {
        Outcome {
            entry,
            relies_on: Vec::new(),
        }
    }
}

/// How the ledger answered step 2.
#[derive(Debug)]
pub enum Executed {
    /// Executed now, or the stored outcome of the same request.
    Outcome(Box<Outcome>),
    /// The ledger is in another epoch: nothing was done.
    OtherEpoch,
}

/// How long steps 2 to 4 took.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Took {
    /// The ledger.
    pub ledger: Duration,
    /// The journal.
    pub journal: Duration,
    /// The last look at the control record.
    pub look: Duration,
}

/// An acknowledged entry and the record read in step 4, which the caller may keep as its belief for the next command.
#[derive(Debug)]
pub struct Acknowledged {
    /// The entry to answer with.
    pub entry: LedgerEntry,
    /// The control record as of step 4.
    pub record: ControlRecord,
    /// How long it took.
    pub took: Took,
}

/// Runs the four steps. `belief` is the last control record this process read, if any: an old one can only cause a refusal.
///
/// # Errors
/// See [`NotAcknowledged`]. After any error the outcome is unknown to the client, and safe to retry.
pub async fn acknowledge<E: Error + 'static>(
    region: &str,
    belief: Option<ControlRecord>,
    control: &dyn ControlStore,
    journal: &dyn Journal,
    execute: impl AsyncFnOnce(u64) -> Result<Executed, E>,
) -> Result<Acknowledged, NotAcknowledged<E>> {
    let not_active = |record| NotAcknowledged::NotActive {
        region: region.to_owned(),
        record,
    };

    // Step 1. A belief that says no may be old: ask before refusing.
    let record = match belief {
        Some(record) if record.active_region == region && record.phase == Phase::Serving => record,
        _ => control
            .read()
            .await
            .map_err(NotAcknowledged::Control)?
            .ok_or_else(|| not_active(None))?,
    };
    let epoch = record.epoch;
    if !record.may_acknowledge(region, epoch) {
        return Err(not_active(Some(record)));
    }

    // Step 2.
    let begun = Instant::now();
    let Outcome { entry, relies_on } = match execute(epoch).await.map_err(NotAcknowledged::Ledger)? {
        Executed::Outcome(outcome) => *outcome,
        Executed::OtherEpoch => {
            let now = control.read().await.map_err(NotAcknowledged::Control)?;
            return Err(not_active(now));
        }
    };

    // Step 3.
    let executed = Instant::now();
    let puts = relies_on
        .iter()
        .chain([&entry])
        .map(|entry| journal.put(epoch, entry));
    try_join_all(puts).await.map_err(NotAcknowledged::Journal)?;

    // Step 4.
    let journaled = Instant::now();
    let record = control
        .read()
        .await
        .map_err(NotAcknowledged::Control)?
        .ok_or_else(|| not_active(None))?;
    if !record.may_acknowledge(region, epoch) {
        return Err(not_active(Some(record)));
    }
    let took = Took {
        ledger: executed - begun,
        journal: journaled - executed,
        look: journaled.elapsed(),
    };
    Ok(Acknowledged { entry, record, took })
}
