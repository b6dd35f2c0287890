//! Commands, the client's own words already checked, and the details that an entry records of them.

pub mod body;

use std::collections::BTreeMap;

use continuity::entry::EntryKind;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use uuid::Uuid;

use crate::limits::MS_PER_S;

pub use body::{BadBody, Invalid};

/// A client's own labels: up to [`crate::limits::METADATA_MEMBERS`] strings by name.
pub type Metadata = BTreeMap<String, String>;

/// What an account's opening records.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AccountDetails {
    /// ISO 4217 code.
    pub currency: String,
    /// The lowest balance that a decided payment may leave; `None` is no limit.
    pub limit_minor: Option<i64>,
    /// The client's name for it.
    pub name: Option<String>,
    /// The client's labels.
    #[serde(default)]
    pub metadata: Metadata,
}

/// A payment as the client asks for it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PaymentOrder {
    /// Who pays.
    pub from_account: Uuid,
    /// Who is paid.
    pub to_account: Uuid,
    /// How much, in minor units; positive.
    pub amount_minor: i64,
    /// ISO 4217 code.
    pub currency: String,
    /// The client's own reference.
    pub reference: Option<String>,
    /// The client's labels.
    pub metadata: Metadata,
    /// `None` moves the money at once. Otherwise it is held for a later capture, for so many seconds.
    pub hold_s: Option<u32>,
}

/// A refund as the client asks for it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct RefundOrder {
    /// The payment.
    pub payment: Uuid,
    /// How much; `None` is all that was captured and not refunded yet.
    pub amount_minor: Option<i64>,
    /// The client's own reference.
    pub reference: Option<String>,
    /// The client's labels.
    pub metadata: Metadata,
}

/// What is to be done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum Order {
    /// Open an account.
    OpenAccount(AccountDetails),
    /// Close an account.
    CloseAccount {
        /// Its id.
        account: Uuid,
    },
    /// Move money, or hold it.
    Pay(PaymentOrder),
    /// Move what is held.
    Capture {
        /// The payment.
        payment: Uuid,
        /// How much; `None` is all of it. What is not captured is no longer held.
        amount_minor: Option<i64>,
    },
    /// Hold it no longer.
    Void {
        /// The payment.
        payment: Uuid,
    },
    /// Hold it no longer, because its time has passed.
    Expire {
        /// The payment.
        payment: Uuid,
    },
    /// Give money back.
    Refund(RefundOrder),
}

impl Order {
    /// The kind of entry that it makes.
    pub fn kind(&self) -> EntryKind {
        match self {
            Order::OpenAccount(_) => EntryKind::AccountOpened,
            Order::CloseAccount { .. } => EntryKind::AccountClosed,
            Order::Pay(pay) if pay.hold_s.is_some() => EntryKind::Authorisation,
            Order::Pay(_) => EntryKind::Payment,
            Order::Capture { .. } => EntryKind::Capture,
            Order::Void { .. } => EntryKind::Void,
            Order::Expire { .. } => EntryKind::Expiry,
            Order::Refund(_) => EntryKind::Refund,
        }
    }

    /// SHA-256 (hex) of what the client asked for: independent of white space and member order in its JSON.
    pub fn request_hash(&self) -> String {
        let asked = serde_json::to_vec(&(self.kind(), self)).expect("plain data serialises");
        hex::encode(Sha256::digest(asked))
    }
}

/// One command as the ledger takes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Command {
    /// The client's key.
    pub idempotency_key: String,
    /// Hash of the order, see [`Order::request_hash`].
    pub request_hash: String,
    /// The request that brings it, as API Gateway names it.
    pub request_id: String,
    /// The id of the account, payment or refund, if this command makes one.
    pub id: Uuid,
    /// What is to be done.
    pub order: Order,
    /// When, milliseconds since the Unix epoch.
    pub created_at_ms: u64,
}

impl Command {
    /// The account or payment that the entry is about.
    pub fn subject(&self) -> Uuid {
        match &self.order {
            Order::OpenAccount(_) | Order::Pay(_) => self.id,
            Order::CloseAccount { account } => *account,
            Order::Capture { payment, .. } | Order::Void { payment } | Order::Expire { payment } => *payment,
            Order::Refund(refund) => refund.payment,
        }
    }

    /// Until when a payment is held, milliseconds since the Unix epoch.
    pub fn expires_at_ms(&self) -> Option<u64> {
        match &self.order {
            Order::Pay(pay) => pay
                .hold_s
                .map(|hold_s| self.created_at_ms + u64::from(hold_s) * MS_PER_S),
            _ => None,
        }
    }

    /// What the entry records of it, before the ledger adds what it decided.
    pub fn details(&self) -> Value {
        match &self.order {
            Order::OpenAccount(details) => serde_json::to_value(details).expect("plain data serialises"),
            Order::CloseAccount { .. } | Order::Void { .. } | Order::Expire { .. } => json!({}),
            Order::Pay(pay) => {
                let mut details = json!({
                    "from_account": pay.from_account, "to_account": pay.to_account,
                    "amount_minor": pay.amount_minor, "currency": pay.currency,
                    "reference": pay.reference, "metadata": pay.metadata,
                });
                if let Some(expires_at_ms) = self.expires_at_ms() {
                    details["expires_at_ms"] = json!(expires_at_ms);
                }
                details
            }
            Order::Capture { amount_minor, .. } => json!({ "amount_minor": amount_minor }),
            Order::Refund(refund) => json!({
                "id": self.id, "amount_minor": refund.amount_minor,
                "reference": refund.reference, "metadata": refund.metadata,
            }),
        }
    }
}
