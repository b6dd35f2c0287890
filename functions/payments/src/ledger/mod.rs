//! The ledger as this function uses it: a log of entries with a ledger epoch, behind a trait with two implementations,
//! PostgreSQL and memory (the reference that property tests and handler tests compare with).

pub mod connect;
pub mod memory;
mod migrations;
pub mod postgres;
pub mod recorded;

use std::collections::BTreeMap;
use std::error::Error;

use async_trait::async_trait;
use continuity::acknowledge::Outcome;
use continuity::entry::{EntryId, EntryKind, EntryStatus, LedgerEntry};
use continuity::lost_tail::{Held, TailEntry};
use continuity::takeover::LedgerStatus;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::command::{Command, Metadata};
use crate::limits::PAGE_SCAN;
use crate::statement::{Period, Statement};

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
    /// 2. See [`Rejection`]; nothing was recorded. (The stored outcome of the same request comes before all but 1.)
    Rejected(Rejection),
    /// 3. The entry: stored before, or appended now as declined or created.
    Outcome(Box<Outcome>),
}

/// A command that the ledger cannot record an outcome of. In order of precedence.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Rejection {
    /// The idempotency key is being executed by another request.
    InFlight,
    /// The idempotency key belongs to another request.
    KeyReuse,
    /// (Close, capture, void, expiry, refund) There is no such account or payment.
    NotFound,
    /// (Payment) There is no such account (the payer's is looked at first).
    AccountUnknown {
        /// Its id.
        account: Uuid,
    },
    /// (Payment) The account is held in another currency (the payer's is looked at first).
    CurrencyMismatch {
        /// Its id.
        account: Uuid,
        /// Its currency.
        currency: String,
    },
    /// (Close) It is closed already.
    AccountClosed,
    /// (Close) Its balance is not zero, or an authorisation is open.
    AccountNotEmpty,
    /// (Capture, void, expiry) The payment is not, or no longer, authorised.
    PaymentNotAuthorised {
        /// What it is.
        status: PaymentStatus,
    },
    /// (Capture) The time of the authorisation has passed.
    AuthorisationExpired,
    /// (Expiry) It has not passed.
    AuthorisationNotExpired,
    /// (Refund) Nothing of the payment was captured.
    PaymentNotCaptured {
        /// What it is.
        status: PaymentStatus,
    },
    /// (Capture, refund) More than there is.
    AmountTooLarge {
        /// What there is, in minor units.
        most_minor: i64,
    },
}

/// Reasons of a decline, in order of precedence. A decline is an outcome: recorded, journaled, acknowledged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decline {
    /// One of the accounts is closed.
    AccountClosed,
    /// A balance would leave the range of [`crate::limits::BALANCE_RANGE`].
    BalanceOutOfRange,
    /// What the payer has available would fall below its limit.
    InsufficientFunds,
}

impl Decline {
    /// The word in the entry.
    pub fn as_str(self) -> &'static str {
        match self {
            Decline::AccountClosed => "account-closed",
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

impl<T> Read<T> {
    /// Something made of it, of the same moment.
    pub fn map<U>(self, make: impl FnOnce(T) -> U) -> Read<U> {
        Read {
            ledger_epoch: self.ledger_epoch,
            value: make(self.value),
        }
    }
}

/// A part of a list, newest first; `C` tells a place in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page<T, C = EntryId> {
    /// The items: perhaps fewer than asked for, even none, although there are more.
    pub items: Vec<T>,
    /// Where the next page begins; `None` at the end of the list.
    pub next: Option<C>,
}

impl<T, C> Page<T, C> {
    /// The first `limit` of `items`; the page has a next one if there are more.
    pub fn cut(mut items: Vec<T>, limit: u32, id: impl Fn(&T) -> C) -> Self {
        let more = items.len() > limit as usize;
        items.truncate(limit as usize);
        let next = items.last().filter(|_| more).map(id);
        Page { items, next }
    }

    /// The same of items that were found among `looked_at` entries, the oldest of which is `last`: where no more were looked at
    /// because [`PAGE_SCAN`] had been, the list goes on after that one.
    pub fn cut_scanned(
        items: Vec<T>,
        limit: u32,
        id: impl Fn(&T) -> C,
        looked_at: usize,
        last: Option<C>,
    ) -> Self {
        let mut page = Page::cut(items, limit, id);
        if page.next.is_none() && looked_at == PAGE_SCAN as usize {
            page.next = last;
        }
        page
    }
}

/// Whether an account takes part in payments.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum AccountStatus {
    /// It does.
    Open,
    /// It does no longer.
    Closed,
}

/// An account as it is now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Account {
    /// Its id.
    pub id: Uuid,
    /// Open or closed.
    pub status: AccountStatus,
    /// ISO 4217 code.
    pub currency: String,
    /// What was moved: credits less debits.
    pub balance_minor: i64,
    /// The balance less what open authorisations may still take. No decided payment leaves less than `limit_minor`.
    pub available_minor: i64,
    /// What open authorisations may still take from it.
    pub pending_out_minor: i64,
    /// What open authorisations may still bring to it.
    pub pending_in_minor: i64,
    /// The lowest balance that a decided payment may leave; `None` is no limit.
    pub limit_minor: Option<i64>,
    /// The client's name for it.
    pub name: Option<String>,
    /// The client's labels.
    pub metadata: Metadata,
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

/// What became of a payment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PaymentStatus {
    /// Its amount is held.
    Authorised,
    /// Its amount, or a part of it, was moved.
    Captured,
    /// It was given up before it was captured.
    Voided,
    /// It was not captured in time.
    Expired,
    /// It was refused.
    Declined,
}

impl PaymentStatus {
    /// Every status.
    pub const ALL: [PaymentStatus; 5] = [
        PaymentStatus::Authorised,
        PaymentStatus::Captured,
        PaymentStatus::Voided,
        PaymentStatus::Expired,
        PaymentStatus::Declined,
    ];

    /// The word in the API.
    pub fn as_str(self) -> &'static str {
        match self {
            PaymentStatus::Authorised => "authorised",
            PaymentStatus::Captured => "captured",
            PaymentStatus::Voided => "voided",
            PaymentStatus::Expired => "expired",
            PaymentStatus::Declined => "declined",
        }
    }

    /// The status of that word.
    pub fn parse(text: &str) -> Option<PaymentStatus> {
        Self::ALL.into_iter().find(|status| status.as_str() == text)
    }
}

/// A payment as it is now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Payment {
    /// Its id.
    pub id: Uuid,
    /// What became of it.
    pub status: PaymentStatus,
    /// Why it was declined.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Who pays.
    pub from_account: Uuid,
    /// Who is paid.
    pub to_account: Uuid,
    /// How much was asked for, in minor units.
    pub amount_minor: i64,
    /// How much of it was moved.
    pub captured_minor: i64,
    /// How much of that went back.
    pub refunded_minor: i64,
    /// ISO 4217 code.
    pub currency: String,
    /// The client's own reference.
    pub reference: Option<String>,
    /// The client's labels.
    pub metadata: Metadata,
    /// Until when it is held, if it is to be captured by hand: milliseconds since the Unix epoch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at_ms: Option<u64>,
    /// Identity of the entry that made it.
    pub epoch: u64,
    /// See `epoch`.
    pub seq: u64,
    /// The ledger epoch in which that entry was posted here: later than `epoch` if a replay recovered it.
    pub posted_epoch: u64,
    /// When it was made, milliseconds since the Unix epoch.
    pub created_at_ms: u64,
}

impl Payment {
    /// Identity of the entry that made it.
    pub fn entry(&self) -> EntryId {
        EntryId {
            epoch: self.epoch,
            seq: self.seq,
        }
    }
}

/// Which payments a list shows: those for which every given member holds.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PaymentFilter {
    /// It is the payer's or the payee's.
    pub account: Option<Uuid>,
    /// The client's own reference is this.
    pub reference: Option<String>,
    /// What became of it is this.
    pub status: Option<PaymentStatus>,
    /// It was made at this time or later, milliseconds since the Unix epoch.
    pub created_from_ms: Option<u64>,
    /// It was made before this time.
    pub created_before_ms: Option<u64>,
}

/// A refund as it was recorded.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refund {
    /// Its id.
    pub id: Uuid,
    /// The payment that it is of.
    pub payment: Uuid,
    /// `created` or `declined`.
    pub status: EntryStatus,
    /// Why it was declined.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// How much, in minor units.
    pub amount_minor: i64,
    /// ISO 4217 code.
    pub currency: String,
    /// The client's own reference.
    pub reference: Option<String>,
    /// The client's labels.
    pub metadata: Metadata,
    /// Identity of its entry.
    pub epoch: u64,
    /// See `epoch`.
    pub seq: u64,
    /// The ledger epoch in which it was posted here: later than `epoch` if a replay recovered it.
    pub posted_epoch: u64,
    /// When it was made, milliseconds since the Unix epoch.
    pub created_at_ms: u64,
}

impl Refund {
    /// Identity of the entry that made it.
    pub fn entry(&self) -> EntryId {
        EntryId {
            epoch: self.epoch,
            seq: self.seq,
        }
    }
}

/// One movement on an account.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AccountEntry {
    /// What moved the money: `payment`, `capture` or `refund`.
    pub kind: EntryKind,
    /// The payment that it belongs to.
    pub payment: Uuid,
    /// The account on the other side.
    pub counterparty: Uuid,
    /// The client's own reference of the payment or refund.
    pub reference: Option<String>,
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

impl AccountEntry {
    /// Identity of the entry that it is part of.
    pub fn entry(&self) -> EntryId {
        EntryId {
            epoch: self.epoch,
            seq: self.seq,
        }
    }
}

/// What `ledger-status` answers. A takeover asks it again and again, so it must not count the log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Summary {
    /// The state of the database.
    #[serde(flatten)]
    pub status: LedgerStatus,
    /// The newest entry's sequence number, 0 when there is none.
    pub last_seq: u64,
}

/// What was executed in one second of an epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Executed {
    /// The second, counted from the Unix epoch.
    pub second: u64,
    /// The epoch that executed it.
    pub epoch: u64,
    /// How many entries.
    pub entries: u64,
}

/// What was executed in a span of time, as far as the ledger has kept it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Traffic {
    /// By second and epoch, in this order.
    pub executed: Vec<Executed>,
    /// The newest entry of an epoch before the one that was asked for, milliseconds since the Unix epoch.
    pub last_before_ms: Option<u64>,
    /// The oldest entry of that epoch.
    pub first_in_ms: Option<u64>,
    /// False when the span holds more than was looked at: its beginning is missing then.
    pub complete: bool,
}

/// What posting recorded entries came to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Posted {
    /// Entries that the ledger lacked when it was put into this epoch, and now has, by this run or an earlier one.
    pub posted: Vec<EntryId>,
    /// Entries that the ledger had before.
    pub already_present: u64,
    /// Entries that were not posted because their key or identity is another entry's.
    pub conflicts: Vec<EntryId>,
    /// Accounts that recovered entries moved, or hold from.
    pub touched: Vec<Uuid>,
}

impl Posted {
    /// Adds what another batch came to.
    pub fn add(&mut self, other: Posted) {
        self.posted.extend(other.posted);
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

/// What `verify-ledger` found. Of what a replay posted: totals are of the accounts' balances below and above zero, entries those that were
/// posted. Of all of it: totals are of every entry.
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
    /// Commits a write: the database takes writes. Settles the log of `epoch`, if the ledger is in it. Also `Ok` before the migrations
    /// that bring what it needs.
    async fn heartbeat(&self, epoch: u64) -> Result<(), LedgerError>;
    /// Up to which entry the log is settled: this ledger, and every replica that says so, has every entry of that epoch with that
    /// number or a smaller one that was ever committed. None before it is known.
    async fn settled(&self) -> Result<Option<EntryId>, LedgerError>;
    /// An account.
    async fn account(&self, id: Uuid) -> Result<Read<Option<Account>>, LedgerError>;
    /// Accounts, by descending id (which is the order of their opening, newest first), after `after`.
    async fn accounts(
        &self,
        after: Option<Uuid>,
        limit: u32,
    ) -> Result<Read<Page<Account, Uuid>>, LedgerError>;
    /// An account's movements, newest first, from before `before`; `None` when there is no such account.
    async fn account_entries(
        &self,
        id: Uuid,
        before: Option<EntryId>,
        limit: u32,
    ) -> Result<Read<Option<Page<AccountEntry>>>, LedgerError>;
    /// What moved on an account in a period, of one moment; `None` when there is no such account.
    async fn statement(&self, id: Uuid, period: Period) -> Result<Read<Option<Statement>>, LedgerError>;
    /// A payment.
    async fn payment(&self, id: Uuid) -> Result<Read<Option<Payment>>, LedgerError>;
    /// Payments, newest first, from before `before`. Looks at [`crate::limits::PAGE_SCAN`] entries at most.
    async fn payments(
        &self,
        filter: &PaymentFilter,
        before: Option<EntryId>,
        limit: u32,
    ) -> Result<Read<Page<Payment>>, LedgerError>;
    /// A payment's refunds, newest first, from before `before`; `None` when there is no such payment.
    async fn refunds(
        &self,
        payment: Uuid,
        before: Option<EntryId>,
        limit: u32,
    ) -> Result<Read<Option<Page<Refund>>>, LedgerError>;
    /// Authorised payments whose time has passed at `now_ms`, the earliest first.
    async fn expired(&self, now_ms: u64, limit: u32) -> Result<Vec<Uuid>, LedgerError>;

    /// Brings the schema up to date. Answers its version.
    async fn migrate(&self) -> Result<u32, LedgerError>;
    /// Status with counts.
    async fn summary(&self) -> Result<Summary, LedgerError>;
    /// What was executed between two moments (both included), and around the beginning of `epoch`. Reads the log from its end,
    /// [`crate::limits::TRAFFIC_SCAN`] entries at most.
    async fn traffic(&self, from_ms: u64, until_ms: u64, epoch: u64) -> Result<Traffic, LedgerError>;
    /// Raises the ledger epoch, never lowers it. Answers the one that holds; afterwards nothing older can commit.
    async fn set_epoch(&self, epoch: u64) -> Result<u64, LedgerError>;
    /// Posts recorded entries, in the order given, into `epoch`, which the ledger must be in. Twice equals once.
    async fn post(&self, epoch: u64, entries: &[LedgerEntry]) -> Result<Posted, LedgerError>;
    /// Those of `accounts` that are below their limit.
    async fn overdrawn(&self, accounts: &[Uuid]) -> Result<Vec<Uuid>, LedgerError>;
    /// Recomputes balances and totals from the log.
    async fn verify(&self) -> Result<Verified, LedgerError>;
    /// Looks at what a replay into `epoch` may have changed: each currency sums to zero, and what was posted is sound. Takes as long as
    /// there are accounts, not as long as the log is.
    async fn verify_posted(&self, epoch: u64) -> Result<Verified, LedgerError>;
    /// The newest entries from before `before`, newest first, as a report of a lost tail tells them. Reads only.
    async fn newest(&self, before: Option<EntryId>, limit: u32) -> Result<Vec<TailEntry>, LedgerError>;
    /// What is stored under each of these idempotency keys, in their order. Reads only.
    async fn held(&self, keys: &[String]) -> Result<Vec<Option<Held>>, LedgerError>;
    /// The whole log, in order of identity: for tests and small ledgers.
    async fn log(&self) -> Result<Vec<LedgerEntry>, LedgerError>;
}
