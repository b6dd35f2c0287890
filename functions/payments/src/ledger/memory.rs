//! The ledger in memory, with the same rules: the reference for property tests, the double for handler tests.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use continuity::acknowledge::Outcome;
use continuity::entry::{EntryId, EntryKind, EntryStatus, LedgerEntry, Posting};
use continuity::lost_tail::{Held, TailEntry};
use continuity::takeover::LedgerStatus;
use futures::stream::{self, BoxStream, StreamExt};
use serde_json::json;
use uuid::Uuid;

use super::{
    Account, AccountEntry, AccountStatus, Decline, Executed, Ledger, LedgerError, Page, Payment,
    PaymentFilter, PaymentStatus, Posted, Read, Refund, Rejection, Submitted, Summary, Totals, Traffic,
    Verified, recorded,
};
use crate::command::{Command, Order, PaymentOrder, RefundOrder};
use crate::limits::{BALANCE_RANGE, PAGE_SCAN};
use crate::statement::{self, Movements, Period, Statement};

/// A ledger in memory.
#[derive(Debug, Default)]
pub struct MemoryLedger {
    state: Mutex<State>,
    unreachable: AtomicBool,
    standby: AtomicBool,
    stuck: AtomicBool,
    heartbeats: AtomicU64,
}

#[derive(Debug, Default)]
struct State {
    epoch: u64,
    last_seq: u64,
    settled: Option<EntryId>,
    entries: BTreeMap<EntryId, Stored>,
    by_key: BTreeMap<String, EntryId>,
    by_subject: BTreeMap<String, Vec<EntryId>>,
    accounts: BTreeMap<Uuid, Account>,
    holds: BTreeMap<Uuid, Hold>,
}

#[derive(Debug, Clone)]
struct Stored {
    entry: LedgerEntry,
    /// Who pays and who is paid, also where nothing moved.
    parties: Option<[Uuid; 2]>,
    posted_epoch: u64,
}

#[derive(Debug, Clone, Copy)]
struct Hold {
    parties: [Uuid; 2],
    amount_minor: i64,
    expires_at_ms: u64,
}

enum Applied {
    Posted,
    Present,
    Conflict,
}

/// What a command comes to, before it has a place in the log.
struct Decision {
    decline: Option<Decline>,
    posting: Option<Posting>,
    details: serde_json::Value,
}

impl MemoryLedger {
    /// An empty ledger in `epoch`.
    pub fn in_epoch(epoch: u64) -> Self {
        let ledger = MemoryLedger::default();
        ledger.state().epoch = epoch;
        ledger
    }

    /// From now on every call fails, or works again.
    pub fn set_unreachable(&self, unreachable: bool) {
        self.unreachable.store(unreachable, Ordering::SeqCst);
    }

    /// From now on its heartbeats do not end, or they do again.
    pub fn set_stuck(&self, stuck: bool) {
        self.stuck.store(stuck, Ordering::SeqCst);
    }

    /// What a replica says of its log: see [`Ledger::settled`].
    pub fn set_settled(&self, settled: Option<EntryId>) {
        self.state().settled = settled;
    }

    /// How many heartbeats were asked for.
    pub fn heartbeats(&self) -> u64 {
        self.heartbeats.load(Ordering::SeqCst)
    }

    /// From now on it is a standby, or the writer again.
    pub fn set_standby(&self, standby: bool) {
        self.standby.store(standby, Ordering::SeqCst);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn reach(&self, operation: &'static str) -> Result<MutexGuard<'_, State>, LedgerError> {
        if self.unreachable.load(Ordering::SeqCst) {
            return Err(LedgerError::Unavailable {
                operation,
                source: "connection refused".into(),
            });
        }
        Ok(self.state())
    }

    fn write(&self, operation: &'static str) -> Result<MutexGuard<'_, State>, LedgerError> {
        let state = self.reach(operation)?;
        if self.standby.load(Ordering::SeqCst) {
            return Err(LedgerError::Unavailable {
                operation,
                source: "read-only".into(),
            });
        }
        Ok(state)
    }
}

fn uuid(text: &str) -> Uuid {
    Uuid::try_parse(text).expect("recorded by this crate")
}

/// What takes `amount` out of `payer` and into `payee`, if nothing forbids it.
fn transfer(payer: &Account, payee: &Account, amount_minor: i64) -> Option<Decline> {
    let range = i128::from(BALANCE_RANGE);
    let amount = i128::from(amount_minor);
    let left = i128::from(payer.available_minor) - amount;
    let reached = i128::from(payee.balance_minor) + i128::from(payee.pending_in_minor) + amount;
    if payer.status == AccountStatus::Closed || payee.status == AccountStatus::Closed {
        Some(Decline::AccountClosed)
    } else if amount > range || left < -range || reached > range {
        Some(Decline::BalanceOutOfRange)
    } else if payer.limit_minor.is_some_and(|limit| left < i128::from(limit)) {
        Some(Decline::InsufficientFunds)
    } else {
        None
    }
}

fn posting(payer: Uuid, payee: Uuid, amount_minor: i64, currency: &str) -> Posting {
    Posting {
        debit_account: payer.to_string(),
        credit_account: payee.to_string(),
        amount_minor,
        currency: currency.to_owned(),
    }
}

impl Decision {
    /// The details, with the reason of a decline.
    fn details(&self) -> serde_json::Value {
        let mut details = self.details.clone();
        if let Some(decline) = self.decline {
            details["reason"] = json!(decline.as_str());
        }
        details
    }
}

impl Stored {
    /// What it moved on an account.
    fn on_account(&self, id: Uuid) -> Option<AccountEntry> {
        let entry = &self.entry;
        let posting = entry.posting.as_ref()?;
        let [payer, payee] = self.parties?;
        let (counterparty, amount_minor) = match id {
            _ if id == payer => (payee, -posting.amount_minor),
            _ if id == payee => (payer, posting.amount_minor),
            _ => return None,
        };
        Some(AccountEntry {
            kind: entry.kind,
            payment: uuid(&entry.subject),
            counterparty,
            reference: recorded::reference(entry),
            amount_minor,
            currency: posting.currency.clone(),
            epoch: entry.id.epoch,
            seq: entry.id.seq,
            posted_epoch: self.posted_epoch,
            created_at_ms: entry.created_at_ms,
        })
    }
}

impl State {
    fn read<T>(&self, value: T) -> Read<T> {
        Read {
            ledger_epoch: Some(self.epoch),
            value,
        }
    }

    fn decide(&self, command: &Command) -> Result<Decision, Rejection> {
        match &command.order {
            Order::OpenAccount(_) => Ok(Decision {
                decline: None,
                posting: None,
                details: command.details(),
            }),
            Order::CloseAccount { account } => self.decide_close(*account),
            Order::Pay(order) => self.decide_payment(command, order),
            Order::Capture {
                payment,
                amount_minor,
            } => self.decide_capture(command, *payment, *amount_minor),
            Order::Void { payment } => self.decide_end(*payment, PaymentStatus::Voided),
            Order::Expire { payment } => {
                let found = self.authorised(*payment)?;
                if command.created_at_ms < found.expires_at_ms.unwrap_or(0) {
                    return Err(Rejection::AuthorisationNotExpired);
                }
                self.decide_end(*payment, PaymentStatus::Expired)
            }
            Order::Refund(order) => self.decide_refund(command, order),
        }
    }

    fn decide_close(&self, id: Uuid) -> Result<Decision, Rejection> {
        let account = self.accounts.get(&id).ok_or(Rejection::NotFound)?;
        if account.status == AccountStatus::Closed {
            return Err(Rejection::AccountClosed);
        }
        if (
            account.balance_minor,
            account.pending_out_minor,
            account.pending_in_minor,
        ) != (0, 0, 0)
        {
            return Err(Rejection::AccountNotEmpty);
        }
        let closed = Account {
            status: AccountStatus::Closed,
            ..account.clone()
        };
        Ok(Decision {
            decline: None,
            posting: None,
            details: json!({ "account": closed }),
        })
    }

    fn decide_payment(&self, command: &Command, order: &PaymentOrder) -> Result<Decision, Rejection> {
        let account = |id| {
            self.accounts
                .get(&id)
                .ok_or(Rejection::AccountUnknown { account: id })
        };
        let (payer, payee) = (account(order.from_account)?, account(order.to_account)?);
        for account in [payer, payee] {
            if account.currency != order.currency {
                return Err(Rejection::CurrencyMismatch {
                    account: account.id,
                    currency: account.currency.clone(),
                });
            }
        }
        let decline = transfer(payer, payee, order.amount_minor);
        let moves = decline.is_none() && order.hold_s.is_none();
        Ok(Decision {
            decline,
            posting: moves.then(|| posting(payer.id, payee.id, order.amount_minor, &order.currency)),
            details: command.details(),
        })
    }

    fn authorised(&self, id: Uuid) -> Result<Payment, Rejection> {
        let payment = self.payment(id).ok_or(Rejection::NotFound)?;
        match payment.status {
            PaymentStatus::Authorised => Ok(payment),
            status => Err(Rejection::PaymentNotAuthorised { status }),
        }
    }

    fn decide_capture(
        &self,
        command: &Command,
        id: Uuid,
        amount_minor: Option<i64>,
    ) -> Result<Decision, Rejection> {
        let payment = self.authorised(id)?;
        if payment
            .expires_at_ms
            .is_some_and(|at_ms| command.created_at_ms >= at_ms)
        {
            return Err(Rejection::AuthorisationExpired);
        }
        let captured_minor = amount_minor.unwrap_or(payment.amount_minor);
        if captured_minor > payment.amount_minor {
            return Err(Rejection::AmountTooLarge {
                most_minor: payment.amount_minor,
            });
        }
        let posting = posting(
            payment.from_account,
            payment.to_account,
            captured_minor,
            &payment.currency,
        );
        let captured = Payment {
            status: PaymentStatus::Captured,
            captured_minor,
            ..payment
        };
        Ok(Decision {
            decline: None,
            posting: Some(posting),
            details: json!({ "amount_minor": captured_minor, "payment": captured }),
        })
    }

    fn decide_end(&self, id: Uuid, status: PaymentStatus) -> Result<Decision, Rejection> {
        let ended = Payment {
            status,
            ..self.authorised(id)?
        };
        Ok(Decision {
            decline: None,
            posting: None,
            details: json!({ "payment": ended }),
        })
    }

    fn decide_refund(&self, command: &Command, order: &RefundOrder) -> Result<Decision, Rejection> {
        let mut payment = self.payment(order.payment).ok_or(Rejection::NotFound)?;
        if payment.captured_minor == 0 {
            return Err(Rejection::PaymentNotCaptured {
                status: payment.status,
            });
        }
        let most_minor = payment.captured_minor - payment.refunded_minor;
        let amount_minor = order.amount_minor.unwrap_or(most_minor);
        if amount_minor > most_minor || most_minor <= 0 {
            return Err(Rejection::AmountTooLarge { most_minor });
        }
        let (payer, payee) = (
            &self.accounts[&payment.to_account],
            &self.accounts[&payment.from_account],
        );
        let decline = transfer(payer, payee, amount_minor);
        let posting = decline
            .is_none()
            .then(|| posting(payer.id, payee.id, amount_minor, &payment.currency));
        if decline.is_none() {
            payment.refunded_minor += amount_minor;
        }
        let mut details = command.details();
        details["amount_minor"] = json!(amount_minor);
        details["currency"] = json!(payment.currency);
        details["payment"] = json!(payment);
        Ok(Decision {
            decline,
            posting,
            details,
        })
    }

    fn apply(&mut self, entry: &LedgerEntry, posted_epoch: u64) -> Applied {
        if let Some(stored) = self.entries.get(&entry.id) {
            return match stored {
                stored if stored.entry.idempotency_key != entry.idempotency_key => Applied::Conflict,
                stored if stored.posted_epoch == posted_epoch && entry.id.epoch < posted_epoch => {
                    Applied::Posted
                }
                _ => Applied::Present,
            };
        }
        if self.by_key.contains_key(&entry.idempotency_key) {
            return Applied::Conflict;
        }
        let parties = parties(entry);
        self.apply_to_accounts(entry, parties, posted_epoch);
        self.by_key.insert(entry.idempotency_key.clone(), entry.id);
        self.by_subject
            .entry(entry.subject.clone())
            .or_default()
            .push(entry.id);
        self.entries.insert(
            entry.id,
            Stored {
                entry: entry.clone(),
                parties,
                posted_epoch,
            },
        );
        Applied::Posted
    }

    /// What follows from an entry: balances, and what is held.
    fn apply_to_accounts(&mut self, entry: &LedgerEntry, parties: Option<[Uuid; 2]>, posted_epoch: u64) {
        if entry.status == EntryStatus::Declined {
            return;
        }
        let subject = uuid(&entry.subject);
        if let (Some(parties), Some(payment)) = (parties, recorded::payment(entry)) {
            for id in parties {
                self.opened(id, &payment.currency);
            }
        }
        if let Some(posting) = &entry.posting {
            for (id, amount) in [
                (&posting.debit_account, -posting.amount_minor),
                (&posting.credit_account, posting.amount_minor),
            ] {
                let account = self.opened(uuid(id), &posting.currency);
                account.balance_minor += amount;
                account.available_minor += amount;
            }
        }
        match entry.kind {
            EntryKind::Payment | EntryKind::Refund => {}
            EntryKind::AccountOpened => {
                let recorded = recorded::account(entry).expect("recorded by this crate");
                let account = self.opened(subject, &recorded.currency);
                if account.epoch.is_none() {
                    account.limit_minor = recorded.limit_minor;
                    account.name = recorded.name;
                    account.metadata = recorded.metadata;
                    account.epoch = Some(entry.id.epoch);
                    account.seq = Some(entry.id.seq);
                    account.posted_epoch = Some(posted_epoch);
                    account.created_at_ms = Some(entry.created_at_ms);
                }
            }
            EntryKind::AccountClosed => {
                let recorded = recorded::account(entry).expect("recorded by this crate");
                self.opened(subject, &recorded.currency).status = AccountStatus::Closed;
            }
            EntryKind::Authorisation => {
                let payment = recorded::payment(entry).expect("recorded by this crate");
                if self.ended(&entry.subject).is_none() {
                    let hold = Hold {
                        parties: [payment.from_account, payment.to_account],
                        amount_minor: payment.amount_minor,
                        expires_at_ms: payment.expires_at_ms.unwrap_or(0),
                    };
                    self.holds.insert(subject, hold);
                    self.hold(hold, hold.amount_minor);
                }
            }
            EntryKind::Capture | EntryKind::Void | EntryKind::Expiry => {
                if let Some(hold) = self.holds.remove(&subject) {
                    self.hold(hold, -hold.amount_minor);
                }
            }
        }
    }

    fn hold(&mut self, hold: Hold, amount_minor: i64) {
        let [payer, payee] = hold.parties;
        if let Some(account) = self.accounts.get_mut(&payer) {
            account.pending_out_minor += amount_minor;
            account.available_minor -= amount_minor;
        }
        if let Some(account) = self.accounts.get_mut(&payee) {
            account.pending_in_minor += amount_minor;
        }
    }

    /// The account, restored if a replay meets it before its own entry.
    fn opened(&mut self, id: Uuid, currency: &str) -> &mut Account {
        self.accounts.entry(id).or_insert_with(|| Account {
            id,
            status: AccountStatus::Open,
            currency: currency.to_owned(),
            balance_minor: 0,
            available_minor: 0,
            pending_out_minor: 0,
            pending_in_minor: 0,
            limit_minor: Some(0),
            name: None,
            metadata: BTreeMap::new(),
            epoch: None,
            seq: None,
            posted_epoch: None,
            created_at_ms: None,
        })
    }

    fn of_subject(&self, subject: &str) -> impl Iterator<Item = &Stored> {
        let ids: BTreeSet<EntryId> = self
            .by_subject
            .get(subject)
            .into_iter()
            .flatten()
            .copied()
            .collect();
        ids.into_iter().map(|id| &self.entries[&id])
    }

    /// An entry with those that it relies on: what its payment was before.
    fn outcome(&self, entry: LedgerEntry) -> Outcome {
        let follows = matches!(
            entry.kind,
            EntryKind::Capture | EntryKind::Void | EntryKind::Expiry | EntryKind::Refund
        );
        let made = |kind| {
            matches!(
                kind,
                EntryKind::Payment | EntryKind::Authorisation | EntryKind::Capture
            )
        };
        let relies_on = self
            .of_subject(&entry.subject)
            .filter(|stored| follows && made(stored.entry.kind) && stored.entry.id != entry.id)
            .map(|stored| stored.entry.clone())
            .collect();
        Outcome { entry, relies_on }
    }

    /// What ended an authorised payment.
    fn ended(&self, subject: &str) -> Option<PaymentStatus> {
        self.of_subject(subject)
            .find_map(|stored| match stored.entry.kind {
                EntryKind::Capture => Some(PaymentStatus::Captured),
                EntryKind::Void => Some(PaymentStatus::Voided),
                EntryKind::Expiry => Some(PaymentStatus::Expired),
                _ => None,
            })
    }

    /// A payment as it is now; of one whose own entry was lost, what the last command on it recorded.
    fn payment(&self, id: Uuid) -> Option<Payment> {
        let subject = id.to_string();
        let made = self
            .of_subject(&subject)
            .find(|stored| matches!(stored.entry.kind, EntryKind::Payment | EntryKind::Authorisation));
        let Some(made) = made else {
            return self
                .of_subject(&subject)
                .filter_map(|stored| recorded::payment(&stored.entry))
                .last();
        };
        let mut payment = recorded::payment(&made.entry).expect("recorded by this crate");
        payment.posted_epoch = made.posted_epoch;
        if payment.status == PaymentStatus::Authorised {
            payment.status = self.ended(&subject).unwrap_or(payment.status);
        }
        for stored in self.of_subject(&subject) {
            let moved = stored
                .entry
                .posting
                .as_ref()
                .map_or(0, |moved| moved.amount_minor);
            match stored.entry.kind {
                EntryKind::Capture => payment.captured_minor += moved,
                EntryKind::Refund => payment.refunded_minor += moved,
                _ => {}
            }
        }
        Some(payment)
    }

    fn newest_before(&self, before: Option<EntryId>) -> impl Iterator<Item = &Stored> {
        let before = before.unwrap_or(EntryId {
            epoch: u64::MAX,
            seq: u64::MAX,
        });
        self.entries.range(..before).rev().map(|(_, stored)| stored)
    }
}

/// Who pays and who is paid, where an entry is between two accounts.
fn parties(entry: &LedgerEntry) -> Option<[Uuid; 2]> {
    if let Some(posting) = &entry.posting {
        return Some([uuid(&posting.debit_account), uuid(&posting.credit_account)]);
    }
    let payment = recorded::payment(entry)?;
    Some(match entry.kind {
        EntryKind::Refund => [payment.to_account, payment.from_account],
        _ => [payment.from_account, payment.to_account],
    })
}

impl PaymentFilter {
    fn takes(&self, payment: &Payment) -> bool {
        self.reference
            .as_ref()
            .is_none_or(|reference| payment.reference.as_ref() == Some(reference))
            && self.status.is_none_or(|status| payment.status == status)
            && self
                .created_from_ms
                .is_none_or(|from_ms| payment.created_at_ms >= from_ms)
            && self
                .created_before_ms
                .is_none_or(|before_ms| payment.created_at_ms < before_ms)
    }
}

struct InMemory(Vec<AccountEntry>);

#[async_trait]
impl Movements for InMemory {
    async fn read(&self) -> Result<BoxStream<'_, Result<AccountEntry, LedgerError>>, LedgerError> {
        Ok(stream::iter(self.0.iter().cloned().map(Ok)).boxed())
    }
}

#[async_trait]
impl Ledger for MemoryLedger {
    async fn submit(&self, epoch: u64, command: &Command) -> Result<Submitted, LedgerError> {
        let mut state = self.write("submit")?;
        if state.epoch != epoch {
            return Ok(Submitted::OtherEpoch);
        }
        if let Some(id) = state.by_key.get(&command.idempotency_key) {
            let entry = state.entries[id].entry.clone();
            if entry.request_hash != command.request_hash {
                return Ok(Submitted::Rejected(Rejection::KeyReuse));
            }
            return Ok(Submitted::Outcome(Box::new(state.outcome(entry))));
        }
        let decision = match state.decide(command) {
            Err(rejection) => return Ok(Submitted::Rejected(rejection)),
            Ok(decision) => decision,
        };
        state.last_seq += 1;
        let entry = LedgerEntry {
            id: EntryId {
                epoch,
                seq: state.last_seq,
            },
            idempotency_key: command.idempotency_key.clone(),
            request_hash: command.request_hash.clone(),
            request_id: command.request_id.clone(),
            kind: command.order.kind(),
            subject: command.subject().to_string(),
            status: match decision.decline {
                Some(_) => EntryStatus::Declined,
                None => EntryStatus::Created,
            },
            details: decision.details(),
            posting: decision.posting,
            created_at_ms: command.created_at_ms,
        };
        state.apply(&entry, epoch);
        Ok(Submitted::Outcome(Box::new(state.outcome(entry))))
    }

    async fn status(&self) -> Result<LedgerStatus, LedgerError> {
        let state = self.reach("status")?;
        Ok(LedgerStatus {
            reachable: true,
            in_recovery: self.standby.load(Ordering::SeqCst),
            ledger_epoch: Some(state.epoch).filter(|epoch| *epoch > 0),
        })
    }

    async fn heartbeat(&self, epoch: u64) -> Result<(), LedgerError> {
        self.heartbeats.fetch_add(1, Ordering::SeqCst);
        if self.stuck.load(Ordering::SeqCst) {
            std::future::pending::<()>().await;
        }
        let mut state = self.write("heartbeat")?;
        if state.epoch == epoch {
            let seq = state.last_seq;
            state.settled = Some(EntryId { epoch, seq });
        }
        Ok(())
    }

    async fn settled(&self) -> Result<Option<EntryId>, LedgerError> {
        Ok(self.reach("settled")?.settled)
    }

    async fn account(&self, id: Uuid) -> Result<Read<Option<Account>>, LedgerError> {
        let state = self.reach("account")?;
        Ok(state.read(state.accounts.get(&id).cloned()))
    }

    async fn accounts(
        &self,
        after: Option<Uuid>,
        limit: u32,
    ) -> Result<Read<Page<Account, Uuid>>, LedgerError> {
        let state = self.reach("accounts")?;
        let accounts = state.accounts.values().rev();
        let rest = accounts.filter(|account| after.is_none_or(|after| account.id < after));
        let found = rest.take(limit as usize + 1).cloned().collect();
        Ok(state.read(Page::cut(found, limit, |account: &Account| account.id)))
    }

    async fn account_entries(
        &self,
        id: Uuid,
        before: Option<EntryId>,
        limit: u32,
    ) -> Result<Read<Option<Page<AccountEntry>>>, LedgerError> {
        let state = self.reach("account-entries")?;
        let moves = state
            .newest_before(before)
            .filter_map(|stored| stored.on_account(id));
        let page = |moves: Vec<AccountEntry>| Page::cut(moves, limit, AccountEntry::entry);
        let found = state
            .accounts
            .contains_key(&id)
            .then(|| page(moves.take(limit as usize + 1).collect()));
        Ok(state.read(found))
    }

    async fn statement(&self, id: Uuid, period: Period) -> Result<Read<Option<Statement>>, LedgerError> {
        let state = self.reach("statement")?;
        let Some(account) = state.accounts.get(&id) else {
            return Ok(state.read(None));
        };
        let moves: Vec<AccountEntry> = state
            .entries
            .values()
            .filter_map(|stored| stored.on_account(id))
            .filter(|entry| entry.created_at_ms >= period.from_ms)
            .collect();
        let (within, after): (Vec<AccountEntry>, Vec<AccountEntry>) = moves
            .into_iter()
            .partition(|entry| entry.created_at_ms < period.until_ms);
        let sum = |moves: &[AccountEntry]| moves.iter().map(|entry| entry.amount_minor).sum::<i64>();
        let closing_balance_minor = account.balance_minor - sum(&after);
        let totals = statement::Totals {
            currency: account.currency.clone(),
            opening_balance_minor: closing_balance_minor - sum(&within),
            closing_balance_minor,
            lines: within.len() as u64,
        };
        let movements = Box::new(InMemory(within));
        Ok(state.read(Some(Statement { totals, movements })))
    }

    async fn payment(&self, id: Uuid) -> Result<Read<Option<Payment>>, LedgerError> {
        let state = self.reach("payment")?;
        Ok(state.read(state.payment(id)))
    }

    async fn payments(
        &self,
        filter: &PaymentFilter,
        before: Option<EntryId>,
        limit: u32,
    ) -> Result<Read<Page<Payment>>, LedgerError> {
        let state = self.reach("payments")?;
        let concerns = |stored: &&Stored| match (filter.account, stored.parties) {
            (None, _) => true,
            (Some(id), Some(parties)) => parties.contains(&id),
            (Some(_), None) => false,
        };
        let scanned: Vec<&Stored> = state
            .newest_before(before)
            .filter(concerns)
            .take(PAGE_SCAN as usize)
            .collect();
        let made = scanned
            .iter()
            .filter(|stored| matches!(stored.entry.kind, EntryKind::Payment | EntryKind::Authorisation));
        let payments = made
            .filter_map(|stored| state.payment(uuid(&stored.entry.subject)))
            .filter(|payment| filter.takes(payment));
        let found = payments.take(limit as usize + 1).collect();
        let last = scanned.last().map(|stored| stored.entry.id);
        let page = Page::cut_scanned(found, limit, Payment::entry, scanned.len(), last);
        Ok(state.read(page))
    }

    async fn refunds(
        &self,
        payment: Uuid,
        before: Option<EntryId>,
        limit: u32,
    ) -> Result<Read<Option<Page<Refund>>>, LedgerError> {
        let state = self.reach("refunds")?;
        if state.payment(payment).is_none() {
            return Ok(state.read(None));
        }
        let subject = payment.to_string();
        let mut refunds: Vec<Refund> = state
            .of_subject(&subject)
            .filter(|stored| before.is_none_or(|before| stored.entry.id < before))
            .filter_map(|stored| recorded::refund(&stored.entry, stored.posted_epoch))
            .collect();
        refunds.reverse();
        Ok(state.read(Some(Page::cut(refunds, limit, Refund::entry))))
    }

    async fn expired(&self, now_ms: u64, limit: u32) -> Result<Vec<Uuid>, LedgerError> {
        let state = self.reach("expired")?;
        let mut passed: Vec<(u64, Uuid)> = state
            .holds
            .iter()
            .filter(|(_, hold)| hold.expires_at_ms <= now_ms)
            .map(|(id, hold)| (hold.expires_at_ms, *id))
            .collect();
        passed.sort();
        Ok(passed
            .into_iter()
            .take(limit as usize)
            .map(|(_, id)| id)
            .collect())
    }

    async fn migrate(&self) -> Result<u32, LedgerError> {
        self.write("migrate").map(|_| 0)
    }

    async fn summary(&self) -> Result<Summary, LedgerError> {
        let status = self.status().await?;
        let state = self.reach("summary")?;
        let last_seq = state.entries.last_key_value().map_or(0, |(id, _)| id.seq);
        Ok(Summary { status, last_seq })
    }

    async fn traffic(&self, from_ms: u64, until_ms: u64, epoch: u64) -> Result<Traffic, LedgerError> {
        let state = self.reach("traffic")?;
        let entries = || {
            state
                .entries
                .values()
                .map(|stored| (stored.entry.id, stored.entry.created_at_ms))
        };
        let mut sums: BTreeMap<(u64, u64), u64> = BTreeMap::new();
        for (id, at_ms) in entries().filter(|(_, at_ms)| (from_ms..=until_ms).contains(at_ms)) {
            *sums.entry((at_ms / 1_000, id.epoch)).or_default() += 1;
        }
        let latest = entries()
            .map(|(id, _)| id.epoch)
            .filter(|before| *before < epoch)
            .max();
        Ok(Traffic {
            executed: sums
                .into_iter()
                .map(|((second, epoch), entries)| Executed {
                    second,
                    epoch,
                    entries,
                })
                .collect(),
            last_before_ms: entries()
                .filter(|(id, _)| Some(id.epoch) == latest)
                .map(|(_, at_ms)| at_ms)
                .max(),
            first_in_ms: entries()
                .filter(|(id, _)| id.epoch == epoch)
                .map(|(_, at_ms)| at_ms)
                .min(),
            complete: true,
        })
    }

    async fn set_epoch(&self, epoch: u64) -> Result<u64, LedgerError> {
        let mut state = self.write("set-epoch")?;
        state.epoch = state.epoch.max(epoch);
        Ok(state.epoch)
    }

    async fn post(&self, epoch: u64, entries: &[LedgerEntry]) -> Result<Posted, LedgerError> {
        let mut state = self.write("replay")?;
        if state.epoch != epoch {
            return Err(LedgerError::OtherEpoch {
                expected: epoch,
                actual: Some(state.epoch),
            });
        }
        let mut result = Posted::default();
        for entry in entries {
            match state.apply(entry, epoch) {
                Applied::Posted => {
                    result.posted.push(entry.id);
                    if entry.status == EntryStatus::Created {
                        result.touched.extend(parties(entry).into_iter().flatten());
                    }
                }
                Applied::Present => result.already_present += 1,
                Applied::Conflict => result.conflicts.push(entry.id),
            }
        }
        result.touched.sort();
        result.touched.dedup();
        Ok(result)
    }

    async fn overdrawn(&self, accounts: &[Uuid]) -> Result<Vec<Uuid>, LedgerError> {
        let state = self.reach("overdrawn")?;
        let below = |account: &&Account| {
            account
                .limit_minor
                .is_some_and(|limit| account.available_minor < limit)
        };
        let named = |account: &&Account| accounts.contains(&account.id);
        Ok(state
            .accounts
            .values()
            .filter(named)
            .filter(below)
            .map(|account| account.id)
            .collect())
    }

    async fn verify(&self) -> Result<Verified, LedgerError> {
        let state = self.reach("verify")?;
        let mut sums: BTreeMap<String, i128> = BTreeMap::new();
        for posting in state
            .entries
            .values()
            .filter_map(|stored| stored.entry.posting.as_ref())
        {
            *sums.entry(posting.currency.clone()).or_default() += i128::from(posting.amount_minor);
        }
        let totals = |sum: i128| Totals {
            debits: sum.to_string(),
            credits: sum.to_string(),
        };
        Ok(Verified {
            currencies: sums
                .into_iter()
                .map(|(currency, sum)| (currency, totals(sum)))
                .collect(),
            entries: state.entries.len() as u64,
            accounts: state.accounts.len() as u64,
            problems: Vec::new(),
        })
    }

    async fn verify_posted(&self, epoch: u64) -> Result<Verified, LedgerError> {
        let state = self.reach("verify-posted")?;
        let mut sums: BTreeMap<String, [i128; 2]> = BTreeMap::new();
        for account in state.accounts.values() {
            let balance = i128::from(account.balance_minor);
            let [debits, credits] = sums.entry(account.currency.clone()).or_default();
            *debits += (-balance).max(0);
            *credits += balance.max(0);
        }
        let totals = |[debits, credits]: [i128; 2]| Totals {
            debits: debits.to_string(),
            credits: credits.to_string(),
        };
        let recovered = state
            .entries
            .values()
            .filter(|stored| stored.posted_epoch == epoch && stored.entry.id.epoch != epoch);
        Ok(Verified {
            entries: recovered.count() as u64,
            accounts: state.accounts.len() as u64,
            currencies: sums
                .into_iter()
                .map(|(currency, sum)| (currency, totals(sum)))
                .collect(),
            problems: Vec::new(),
        })
    }

    async fn newest(&self, before: Option<EntryId>, limit: u32) -> Result<Vec<TailEntry>, LedgerError> {
        let state = self.reach("newest")?;
        let tail = |stored: &Stored| {
            let Stored {
                entry,
                parties,
                posted_epoch,
            } = stored;
            let posting = entry.posting.as_ref();
            let moved = posting.map_or(0, |posting| posting.amount_minor);
            let account = parties.map_or_else(|| uuid(&entry.subject), |[payer, _]| payer);
            let account = state.accounts.get(&account);
            TailEntry {
                id: entry.id,
                posted_epoch: *posted_epoch,
                idempotency_key: entry.idempotency_key.clone(),
                kind: entry.kind,
                status: entry.status,
                subject: entry.subject.clone(),
                debit_account: parties.map(|[payer, _]| payer.to_string()),
                credit_account: parties.map(|[_, payee]| payee.to_string()),
                amount_minor: entry.details["amount_minor"].as_i64().unwrap_or(moved),
                // What the entry says itself: a replay of a part may lack the account.
                currency: recorded::payment(entry)
                    .map(|payment| payment.currency)
                    .or_else(|| account.map(|account| account.currency.clone()))
                    .unwrap_or_default(),
                created_at_ms: entry.created_at_ms,
            }
        };
        Ok(state
            .newest_before(before)
            .take(limit as usize)
            .map(tail)
            .collect())
    }

    async fn held(&self, keys: &[String]) -> Result<Vec<Option<Held>>, LedgerError> {
        let state = self.reach("held")?;
        let held = |key: &String| {
            let stored = &state.entries[state.by_key.get(key)?];
            Some(Held {
                id: stored.entry.id,
                posted_epoch: stored.posted_epoch,
                subject: stored.entry.subject.clone(),
            })
        };
        Ok(keys.iter().map(held).collect())
    }

    async fn log(&self) -> Result<Vec<LedgerEntry>, LedgerError> {
        Ok(self
            .reach("log")?
            .entries
            .values()
            .map(|stored| stored.entry.clone())
            .collect())
    }
}
