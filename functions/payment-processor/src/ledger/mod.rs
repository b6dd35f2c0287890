//! The ledger as this function uses it: a log of entries with a ledger epoch, behind a trait with two implementations,
//! PostgreSQL and memory (the reference that property tests and handler tests compare with).

pub mod connect;
pub mod memory;
mod migrations;
pub mod postgres;

use std::collections::BTreeMap;
use std::error::Error;

use async_trait::async_trait;
use continuity::entry::{EntryId, LedgerEntry};
use continuity::takeover::LedgerStatus;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::command::Command;

/// Why the ledger did not do what it was asked. Whether the call took effect is unknown, and asking again is safe.
#[derive(Debug, thiserror::Error)]
pub enum LedgerError {
    /// No connection.
    #[error("no connection to the database for `{operation}`")]
    Connect {
        /// What was to be done.
        operation: &'static str,
        /// Why not.
        #[source]
        source: connect::ConnectError,
    },
    /// No answer in time.
    #[error("`{0}` got no answer from the database in time")]
    Timeout(&'static str),
    /// The database is there but cannot do it now: shutting down, a standby, a lock not granted in time.
    #[error("`{operation}` failed for now")]
    Unavailable {
        /// What was to be done.
        operation: &'static str,
        /// What the database said.
        #[source]
        source: Box<dyn Error + Send + Sync>,
    },
    /// The database refused: a bug here, or a schema that is not migrated.
    #[error("`{operation}` was refused")]
    Refused {
        /// What was to be done.
        operation: &'static str,
        /// What the database said.
        #[source]
        source: Box<dyn Error + Send + Sync>,
    },
    /// The ledger is in another epoch than the task is for.
    #[error("ledger epoch is {actual:?}, expected {expected}")]
    OtherEpoch {
        /// The caller's.
        expected: u64,
        /// The ledger's.
        actual: Option<u64>,
    },
    /// A migration in the database differs from the one of the same number here.
    #[error("migration {version} was changed after it had been applied")]
    MigrationChanged {
        /// Its number.
        version: u32,
    },
}

/// How a command ended. Result codes in order of precedence; the first that applies is the answer.
#[derive(Debug, Clone, PartialEq)]
pub enum Submitted {
    /// 1. The ledger is in another epoch; nothing was done.
    OtherEpoch,
    /// 2, 3. See [`Rejection`]; nothing was recorded. (The stored outcome of the same request comes before all but 1.)
    Rejected(Rejection),
    /// 4. The entry: stored before, or appended now as declined or created.
    Entry(Box<LedgerEntry>),
}

/// A command that the ledger cannot record an outcome of. In order of precedence.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Rejection {
    /// The idempotency key belongs to another request.
    KeyReuse,
    /// There is no such account (the payer's is looked at first).
    AccountUnknown {
        /// Its id.
        account: Uuid,
    },
    /// The account is held in another currency (the payer's is looked at first).
    CurrencyMismatch {
        /// Its id.
        account: Uuid,
        /// Its currency.
        currency: String,
    },
}

/// Reasons of a decline, in order of precedence. A decline is an outcome: recorded, journaled, acknowledged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decline {
    /// A balance would leave the range of [`crate::limits::BALANCE_RANGE`].
    BalanceOutOfRange,
    /// The payer's balance would fall below its limit.
    InsufficientFunds,
}

impl Decline {
    /// The word in the entry.
    pub fn as_str(self) -> &'static str {
        match self {
            Decline::BalanceOutOfRange => "balance-out-of-range",
            Decline::InsufficientFunds => "insufficient-funds",
        }
    }
}

/// Something read, and the ledger epoch of the same moment.
#[derive(Debug, Clone, PartialEq)]
pub struct Read<T> {
    /// The ledger epoch.
    pub ledger_epoch: Option<u64>,
    /// What was read.
    pub value: T,
}

/// An account as it is now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Account {
    /// Its id.
    pub id: Uuid,
    /// ISO 4217 code.
    pub currency: String,
    /// The sum of its postings.
    pub balance_minor: i64,
    /// The lowest balance that a decided payment may leave; `None` is no limit.
    pub limit_minor: Option<i64>,
    /// The client's name for it.
    pub name: Option<String>,
    /// Identity of the entry that opened it. `None`, like the two members after it, for an account that a replay restored
    /// because an acknowledged payment names it while its own entry was never acknowledged, and is lost.
    pub epoch: Option<u64>,
    /// See `epoch`.
    pub seq: Option<u64>,
    /// The ledger epoch in which the opening entry was posted here: later than `epoch` if a replay recovered it.
    pub posted_epoch: Option<u64>,
    /// When it was opened, milliseconds since the Unix epoch.
    pub created_at_ms: Option<u64>,
}

/// A payment as it was recorded.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Payment {
    /// Its id.
    pub id: Uuid,
    /// `created` or `declined`.
    pub status: String,
    /// Why it was declined.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Who pays.
    pub from_account: Uuid,
    /// Who is paid.
    pub to_account: Uuid,
    /// How much, in minor units.
    pub amount_minor: i64,
    /// ISO 4217 code.
    pub currency: String,
    /// The client's own reference.
    pub reference: Option<String>,
    /// Identity of its entry.
    pub epoch: u64,
    /// See `epoch`.
    pub seq: u64,
    /// The ledger epoch in which it was posted here: later than `epoch` if a replay recovered it.
    pub posted_epoch: u64,
    /// When it was executed, milliseconds since the Unix epoch.
    pub created_at_ms: u64,
}

/// One movement on an account.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AccountEntry {
    /// The payment that moved the money.
    pub payment: Uuid,
    /// Signed: negative left the account.
    pub amount_minor: i64,
    /// ISO 4217 code.
    pub currency: String,
    /// Identity of the entry.
    pub epoch: u64,
    /// See `epoch`.
    pub seq: u64,
    /// The ledger epoch in which it was posted here.
    pub posted_epoch: u64,
    /// When it was executed, milliseconds since the Unix epoch.
    pub created_at_ms: u64,
}

/// What `ledger-status` answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Summary {
    /// The state of the database.
    #[serde(flatten)]
    pub status: LedgerStatus,
    /// The newest entry's sequence number, 0 when there is none.
    pub last_seq: u64,
    /// How many entries there are.
    pub entries: u64,
}

/// What posting recorded entries came to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Posted {
    /// Entries that this replay recovered, in this run or an earlier one.
    pub posted: u64,
    /// Entries that the ledger had before.
    pub already_present: u64,
    /// Entries that were not posted because their key or identity is another entry's.
    pub conflicts: Vec<EntryId>,
    /// Accounts that recovered entries moved.
    pub touched: Vec<Uuid>,
}

impl Posted {
    /// Adds what another batch came to.
    pub fn add(&mut self, other: Posted) {
        self.posted += other.posted;
        self.already_present += other.already_present;
        self.conflicts.extend(other.conflicts);
        self.touched.extend(other.touched);
    }
}

/// Totals of one currency, as decimal strings: they may exceed 64 bits.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Totals {
    /// Sum of everything that left an account.
    pub debits: String,
    /// Sum of everything that reached one.
    pub credits: String,
}

/// What `verify-ledger` found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Verified {
    /// Totals per currency.
    pub currencies: BTreeMap<String, Totals>,
    /// How many entries there are.
    pub entries: u64,
    /// How many accounts there are.
    pub accounts: u64,
    /// What does not agree with the log.
    pub problems: Vec<String>,
}

/// The ledger of this region.
#[async_trait]
pub trait Ledger: Send + Sync {
    /// Executes one command in `epoch`, in one round trip, or finds its stored outcome.
    ///
    /// Guarantees: refused unless the ledger is in `epoch`; one idempotency key, one entry.
    async fn submit(&self, epoch: u64, command: &Command) -> Result<Submitted, LedgerError>;
    /// Whether the database answers, is a standby, and its ledger epoch.
    async fn status(&self) -> Result<LedgerStatus, LedgerError>;
    /// An account.
    async fn account(&self, id: Uuid) -> Result<Read<Option<Account>>, LedgerError>;
    /// An account's movements, newest first, from before `before`; `None` when there is no such account.
    async fn account_entries(
        &self,
        id: Uuid,
        before: Option<EntryId>,
        limit: u32,
    ) -> Result<Read<Option<Vec<AccountEntry>>>, LedgerError>;
    /// A payment.
    async fn payment(&self, id: Uuid) -> Result<Read<Option<Payment>>, LedgerError>;
    /// Payments, newest first, from before `before`.
    async fn payments(&self, before: Option<EntryId>, limit: u32) -> Result<Read<Vec<Payment>>, LedgerError>;

    /// Brings the schema up to date. Answers its version.
    async fn migrate(&self) -> Result<u32, LedgerError>;
    /// Status with counts.
    async fn summary(&self) -> Result<Summary, LedgerError>;
    /// Raises the ledger epoch, never lowers it. Answers the one that holds; afterwards nothing older can commit.
    async fn set_epoch(&self, epoch: u64) -> Result<u64, LedgerError>;
    /// Posts recorded entries, in the order given, into `epoch`, which the ledger must be in. Twice equals once.
    async fn post(&self, epoch: u64, entries: &[LedgerEntry]) -> Result<Posted, LedgerError>;
    /// Those of `accounts` that are below their limit.
    async fn overdrawn(&self, accounts: &[Uuid]) -> Result<Vec<Uuid>, LedgerError>;
    /// Recomputes balances and totals from the log.
    async fn verify(&self) -> Result<Verified, LedgerError>;
    /// The whole log, in order of identity: for tests and small ledgers.
    async fn log(&self) -> Result<Vec<LedgerEntry>, LedgerError>;
}
