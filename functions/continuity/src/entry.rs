//! A ledger entry as it is journaled and replayed: the recorded outcome of one command.

use serde::{Deserialize, Serialize};

/// An entry's identity: the epoch it was first executed in, and its sequence number in the ledger of that epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct EntryId {
    /// Epoch of execution, which stays when the entry is put again under a later epoch.
    pub epoch: u64,
    /// Position in that epoch's ledger.
    pub seq: u64,
}

impl EntryId {
    /// The journal's sort key: fixed width, so that string order is numeric order.
    pub fn sort_key(self) -> String {
        format!("{:010}#{:020}", self.epoch, self.seq)
    }
}

/// What kind of command an entry records.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum EntryKind {
    /// An account was opened.
    AccountOpened,
    /// An account was closed.
    AccountClosed,
    /// A payment moved its amount at once, or was declined.
    Payment,
    /// A payment holds its amount until it is captured, voided or expires, or was declined.
    Authorisation,
    /// An authorised payment moved its amount or a part of it; the rest is no longer held.
    Capture,
    /// An authorised payment was given up: nothing is held any more.
    Void,
    /// An authorised payment was neither captured nor voided in time: nothing is held any more.
    Expiry,
    /// A captured payment, or a part of it, went back, or could not.
    Refund,
}

impl EntryKind {
    /// The word in the API.
    pub fn as_str(self) -> &'static str {
        match self {
            EntryKind::AccountOpened => "account-opened",
            EntryKind::AccountClosed => "account-closed",
            EntryKind::Payment => "payment",
            EntryKind::Authorisation => "authorisation",
            EntryKind::Capture => "capture",
            EntryKind::Void => "void",
            EntryKind::Expiry => "expiry",
            EntryKind::Refund => "refund",
        }
    }
}

/// How a command ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum EntryStatus {
    /// It was done.
    Created,
    /// It was refused, for the reason among the details: an outcome as well.
    Declined,
}

impl EntryStatus {
    /// The word in the API.
    pub fn as_str(self) -> &'static str {
        match self {
            EntryStatus::Created => "created",
            EntryStatus::Declined => "declined",
        }
    }
}

/// One movement between two accounts: what the one loses, the other gains.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Posting {
    /// The account that it is taken from.
    pub debit_account: String,
    /// The account that it is given to.
    pub credit_account: String,
    /// How much, in minor units; positive.
    pub amount_minor: i64,
    /// ISO 4217 code.
    pub currency: String,
}

/// A ledger entry: everything that replay needs to reproduce it, and nothing decided anew.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LedgerEntry {
    /// Identity.
    #[serde(flatten)]
    pub id: EntryId,
    /// The client's idempotency key.
    pub idempotency_key: String,
    /// SHA-256 (hex) of the request that the key was first used with.
    pub request_hash: String,
    /// The request that executed it, as API Gateway and every log line name it.
    pub request_id: String,
    /// The kind of command.
    pub kind: EntryKind,
    /// The id of the account or payment that it is about.
    pub subject: String,
    /// How the command ended.
    pub status: EntryStatus,
    /// What it moved: nothing for a decline, for an account, and for what only holds or releases.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub posting: Option<Posting>,
    /// The remaining fields of the recorded outcome, as the API answers them.
    pub details: serde_json::Value,
    /// When it was executed, milliseconds since the Unix epoch.
    pub created_at_ms: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_word_of_a_kind_is_the_one_that_is_stored() {
        for kind in [
            EntryKind::AccountOpened,
            EntryKind::AccountClosed,
            EntryKind::Payment,
            EntryKind::Authorisation,
            EntryKind::Capture,
            EntryKind::Void,
            EntryKind::Expiry,
            EntryKind::Refund,
        ] {
            assert_eq!(serde_json::json!(kind), kind.as_str());
        }
    }

    #[test]
    fn sort_keys_order_as_the_ids_do() {
        let ids = [(1, 9), (1, 10), (2, 1), (10, 1)].map(|(epoch, seq)| EntryId { epoch, seq });
        let mut keys: Vec<String> = ids.iter().map(|id| id.sort_key()).collect();
        let sorted = keys.clone();
        keys.sort();
        assert_eq!(keys, sorted);
    }
}
