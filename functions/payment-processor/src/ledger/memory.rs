//! The ledger in memory, with the same rules: the reference for property tests, the double for handler tests.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use continuity::entry::{EntryId, EntryKind, LedgerEntry, Posting};
use continuity::takeover::LedgerStatus;
use uuid::Uuid;

use super::{
    Account, AccountEntry, Decline, Ledger, LedgerError, Payment, Posted, Read, Rejection, Submitted,
    Summary, Totals, Verified,
};
use crate::command::{AccountDetails, Command, Order, PaymentDetails};
use crate::limits::BALANCE_RANGE;

/// A ledger in memory.
#[derive(Debug, Default)]
pub struct MemoryLedger {
    state: Mutex<State>,
    unreachable: AtomicBool,
    standby: AtomicBool,
}

#[derive(Debug, Default)]
struct State {
    epoch: u64,
    last_seq: u64,
    entries: BTreeMap<EntryId, Stored>,
    by_key: BTreeMap<String, EntryId>,
    accounts: BTreeMap<Uuid, Account>,
}

#[derive(Debug, Clone)]
struct Stored {
    entry: LedgerEntry,
    posted_epoch: u64,
}

enum Applied {
    Posted,
    Present,
    Conflict,
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

impl State {
    fn read<T>(&self, value: T) -> Read<T> {
        Read {
            ledger_epoch: Some(self.epoch),
            value,
        }
    }

    fn account(&self, id: Uuid, currency: &str) -> Result<&Account, Rejection> {
        let account = self
            .accounts
            .get(&id)
            .ok_or(Rejection::AccountUnknown { account: id })?;
        if account.currency != currency {
            let currency = account.currency.clone();
            return Err(Rejection::CurrencyMismatch {
                account: id,
                currency,
            });
        }
        Ok(account)
    }

    fn decide(&self, pay: &PaymentDetails) -> Result<Result<Vec<Posting>, Decline>, Rejection> {
        for id in [pay.from_account, pay.to_account] {
            if !self.accounts.contains_key(&id) {
                return Err(Rejection::AccountUnknown { account: id });
            }
        }
        let payer = self.account(pay.from_account, &pay.currency)?;
        let payee = self.account(pay.to_account, &pay.currency)?;
        let range = i128::from(BALANCE_RANGE);
        let amount = i128::from(pay.amount_minor);
        let (left, reached) = (
            i128::from(payer.balance_minor) - amount,
            i128::from(payee.balance_minor) + amount,
        );
        if amount > range || left < -range || reached > range {
            return Ok(Err(Decline::BalanceOutOfRange));
        }
        if payer.limit_minor.is_some_and(|limit| left < i128::from(limit)) {
            return Ok(Err(Decline::InsufficientFunds));
        }
        let posting = |account: Uuid, amount_minor| Posting {
            account: account.to_string(),
            amount_minor,
            currency: pay.currency.clone(),
        };
        Ok(Ok(vec![
            posting(payer.id, -pay.amount_minor),
            posting(payee.id, pay.amount_minor),
        ]))
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
        if entry.kind == EntryKind::AccountOpened {
            let details: AccountDetails =
                serde_json::from_value(entry.details.clone()).expect("recorded by this crate");
            let account = self.opened(&entry.subject, &details.currency);
            if account.epoch.is_none() {
                account.limit_minor = details.limit_minor;
                account.name = details.name;
                account.epoch = Some(entry.id.epoch);
                account.seq = Some(entry.id.seq);
                account.posted_epoch = Some(posted_epoch);
                account.created_at_ms = Some(entry.created_at_ms);
            }
        }
        for posting in &entry.postings {
            self.opened(&posting.account, &posting.currency).balance_minor += posting.amount_minor;
        }
        self.by_key.insert(entry.idempotency_key.clone(), entry.id);
        self.entries.insert(
            entry.id,
            Stored {
                entry: entry.clone(),
                posted_epoch,
            },
        );
        Applied::Posted
    }

    fn opened(&mut self, id: &str, currency: &str) -> &mut Account {
        let id = Uuid::try_parse(id).expect("recorded by this crate");
        self.accounts.entry(id).or_insert_with(|| Account {
            id,
            currency: currency.to_owned(),
            balance_minor: 0,
            limit_minor: Some(0),
            name: None,
            epoch: None,
            seq: None,
            posted_epoch: None,
            created_at_ms: None,
        })
    }

    fn newest_before(&self, before: Option<EntryId>) -> impl Iterator<Item = &Stored> {
        let before = before.unwrap_or(EntryId {
            epoch: u64::MAX,
            seq: u64::MAX,
        });
        self.entries.range(..before).rev().map(|(_, stored)| stored)
    }
}

impl Stored {
    fn payment(&self) -> Payment {
        crate::api::payments::recorded(&self.entry, self.posted_epoch).expect("recorded by this crate")
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
            return Ok(Submitted::Entry(Box::new(entry)));
        }
        let mut order = command.order.clone();
        let mut postings = Vec::new();
        if let Order::Pay(pay) = &mut order {
            match state.decide(pay) {
                Err(rejection) => return Ok(Submitted::Rejected(rejection)),
                Ok(Err(decline)) => pay.reason = Some(decline.as_str().to_owned()),
                Ok(Ok(moves)) => postings = moves,
            }
        }
        state.last_seq += 1;
        let declined = matches!(&order, Order::Pay(pay) if pay.reason.is_some());
        let entry = LedgerEntry {
            id: EntryId {
                epoch,
                seq: state.last_seq,
            },
            idempotency_key: command.idempotency_key.clone(),
            request_hash: command.request_hash.clone(),
            kind: order.kind(),
            subject: command.subject.to_string(),
            status: if declined { "declined" } else { "created" }.to_owned(),
            postings,
            details: serde_json::to_value(&order).expect("plain data serialises"),
            created_at_ms: command.created_at_ms,
        };
        state.apply(&entry, epoch);
        Ok(Submitted::Entry(Box::new(entry)))
    }

    async fn status(&self) -> Result<LedgerStatus, LedgerError> {
        let state = self.reach("status")?;
        Ok(LedgerStatus {
            reachable: true,
            in_recovery: self.standby.load(Ordering::SeqCst),
            ledger_epoch: Some(state.epoch).filter(|epoch| *epoch > 0),
        })
    }

    async fn account(&self, id: Uuid) -> Result<Read<Option<Account>>, LedgerError> {
        let state = self.reach("account")?;
        Ok(state.read(state.accounts.get(&id).cloned()))
    }

    async fn account_entries(
        &self,
        id: Uuid,
        before: Option<EntryId>,
        limit: u32,
    ) -> Result<Read<Option<Vec<AccountEntry>>>, LedgerError> {
        let state = self.reach("account-entries")?;
        let text = id.to_string();
        let moves = state.newest_before(before).filter_map(|stored| {
            let posting = stored
                .entry
                .postings
                .iter()
                .find(|posting| posting.account == text)?;
            Some(AccountEntry {
                payment: Uuid::try_parse(&stored.entry.subject).ok()?,
                amount_minor: posting.amount_minor,
                currency: posting.currency.clone(),
                epoch: stored.entry.id.epoch,
                seq: stored.entry.id.seq,
                posted_epoch: stored.posted_epoch,
                created_at_ms: stored.entry.created_at_ms,
            })
        });
        let found = state
            .accounts
            .contains_key(&id)
            .then(|| moves.take(limit as usize).collect());
        Ok(state.read(found))
    }

    async fn payment(&self, id: Uuid) -> Result<Read<Option<Payment>>, LedgerError> {
        let state = self.reach("payment")?;
        let text = id.to_string();
        let mut payments = state
            .newest_before(None)
            .filter(|stored| stored.entry.kind == EntryKind::Payment);
        Ok(state.read(
            payments
                .find(|stored| stored.entry.subject == text)
                .map(Stored::payment),
        ))
    }

    async fn payments(&self, before: Option<EntryId>, limit: u32) -> Result<Read<Vec<Payment>>, LedgerError> {
        let state = self.reach("payments")?;
        let payments = state
            .newest_before(before)
            .filter(|stored| stored.entry.kind == EntryKind::Payment);
        Ok(state.read(payments.take(limit as usize).map(Stored::payment).collect()))
    }

    async fn migrate(&self) -> Result<u32, LedgerError> {
        self.write("migrate").map(|_| 0)
    }

    async fn summary(&self) -> Result<Summary, LedgerError> {
        let status = self.status().await?;
        let state = self.reach("summary")?;
        let last_seq = state.entries.last_key_value().map_or(0, |(id, _)| id.seq);
        Ok(Summary {
            status,
            last_seq,
            entries: state.entries.len() as u64,
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
                    result.posted += 1;
                    let moved = entry
                        .postings
                        .iter()
                        .filter_map(|posting| Uuid::try_parse(&posting.account).ok());
                    result.touched.extend(moved);
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
                .is_some_and(|limit| account.balance_minor < limit)
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
        let mut sums: BTreeMap<String, (i128, i128)> = BTreeMap::new();
        for posting in state.entries.values().flat_map(|stored| &stored.entry.postings) {
            let (debits, credits) = sums.entry(posting.currency.clone()).or_default();
            let amount = i128::from(posting.amount_minor);
            if amount < 0 {
                *debits -= amount
            } else {
                *credits += amount
            }
        }
        let totals = |(debits, credits): (i128, i128)| Totals {
            debits: debits.to_string(),
            credits: credits.to_string(),
        };
        Ok(Verified {
            currencies: sums
                .into_iter()
                .map(|(currency, sums)| (currency, totals(sums)))
                .collect(),
            entries: state.entries.len() as u64,
            accounts: state.accounts.len() as u64,
            problems: Vec::new(),
        })
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
