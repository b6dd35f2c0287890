//! The resources that an entry records: what a command answers, the same for every retry, in every region.

use continuity::entry::{EntryKind, EntryStatus, LedgerEntry};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use uuid::Uuid;

use super::{Account, AccountStatus, Payment, PaymentStatus, Refund};
use crate::command::{AccountDetails, Metadata};

/// What a payment's or an authorisation's entry records.
#[derive(Debug, Clone, Deserialize)]
struct PaymentDetails {
    from_account: Uuid,
    to_account: Uuid,
    amount_minor: i64,
    currency: String,
    reference: Option<String>,
    #[serde(default)]
    metadata: Metadata,
    expires_at_ms: Option<u64>,
    reason: Option<String>,
}

#[derive(Deserialize)]
struct RefundDetails {
    id: Uuid,
    amount_minor: i64,
    currency: String,
    reference: Option<String>,
    #[serde(default)]
    metadata: Metadata,
    reason: Option<String>,
}

fn details<T: DeserializeOwned>(entry: &LedgerEntry) -> Option<T> {
    T::deserialize(&entry.details).ok()
}

fn subject(entry: &LedgerEntry) -> Option<Uuid> {
    Uuid::try_parse(&entry.subject).ok()
}

/// The account that an opening or a closing leaves.
pub fn account(entry: &LedgerEntry) -> Option<Account> {
    match entry.kind {
        EntryKind::AccountOpened => {
            let details: AccountDetails = details(entry)?;
            Some(Account {
                id: subject(entry)?,
                status: AccountStatus::Open,
                currency: details.currency,
                balance_minor: 0,
                available_minor: 0,
                pending_out_minor: 0,
                pending_in_minor: 0,
                limit_minor: details.limit_minor,
                name: details.name,
                metadata: details.metadata,
                epoch: Some(entry.id.epoch),
                seq: Some(entry.id.seq),
                posted_epoch: Some(entry.id.epoch),
                created_at_ms: Some(entry.created_at_ms),
            })
        }
        EntryKind::AccountClosed => Account::deserialize(entry.details.get("account")?).ok(),
        _ => None,
    }
}

/// The payment that a payment, an authorisation, or a command on one leaves.
pub fn payment(entry: &LedgerEntry) -> Option<Payment> {
    let authorised = match entry.kind {
        EntryKind::Payment => false,
        EntryKind::Authorisation => true,
        EntryKind::AccountOpened | EntryKind::AccountClosed => return None,
        EntryKind::Capture | EntryKind::Void | EntryKind::Expiry | EntryKind::Refund => {
            return Payment::deserialize(entry.details.get("payment")?).ok();
        }
    };
    let details: PaymentDetails = details(entry)?;
    let status = match (entry.status, authorised) {
        (EntryStatus::Declined, _) => PaymentStatus::Declined,
        (EntryStatus::Created, true) => PaymentStatus::Authorised,
        (EntryStatus::Created, false) => PaymentStatus::Captured,
    };
    Some(Payment {
        id: subject(entry)?,
        status,
        reason: details.reason,
        from_account: details.from_account,
        to_account: details.to_account,
        amount_minor: details.amount_minor,
        captured_minor: if status == PaymentStatus::Captured {
            details.amount_minor
        } else {
            0
        },
        refunded_minor: 0,
        currency: details.currency,
        reference: details.reference,
        metadata: details.metadata,
        expires_at_ms: details.expires_at_ms,
        epoch: entry.id.epoch,
        seq: entry.id.seq,
        posted_epoch: entry.id.epoch,
        created_at_ms: entry.created_at_ms,
    })
}

/// The client's own reference of the payment or refund that an entry records; of a capture, the payment's.
pub fn reference(entry: &LedgerEntry) -> Option<String> {
    let path = match entry.kind {
        EntryKind::Capture => "/payment/reference",
        _ => "/reference",
    };
    entry.details.pointer(path)?.as_str().map(str::to_owned)
}

/// The refund that an entry records, which was posted here in `posted_epoch`.
pub fn refund(entry: &LedgerEntry, posted_epoch: u64) -> Option<Refund> {
    if entry.kind != EntryKind::Refund {
        return None;
    }
    let details: RefundDetails = details(entry)?;
    Some(Refund {
        id: details.id,
        payment: subject(entry)?,
        status: entry.status,
        reason: details.reason,
        amount_minor: details.amount_minor,
        currency: details.currency,
        reference: details.reference,
        metadata: details.metadata,
        epoch: entry.id.epoch,
        seq: entry.id.seq,
        posted_epoch,
        created_at_ms: entry.created_at_ms,
    })
}
