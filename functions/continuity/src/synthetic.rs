//! What a drill's client saw: payments that the witness's probe makes, and the coordinator judges.

use serde::{Deserialize, Serialize};

/// One payment as the client saw it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Payment {
    /// Its idempotency key and reference.
    pub key: String,
    /// The first attempt began, milliseconds since the Unix epoch.
    pub sent_ms: u64,
    /// It was acknowledged.
    pub answered_ms: Option<u64>,
    /// Its id.
    pub id: Option<String>,
    /// The epoch that executed it.
    pub epoch: Option<u64>,
    /// Attempts made.
    pub attempts: u32,
    /// Why it was given up: a final refusal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refused: Option<String>,
}

/// Attempts by the second in which they ended.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Second {
    /// Its beginning, milliseconds since the Unix epoch.
    pub at_ms: u64,
    /// Payments acknowledged.
    pub acknowledged: u32,
    /// Attempts answered with 503: no region serves, or not that one.
    pub refused: u32,
    /// Attempts that failed otherwise: no connection, no answer in time, another status.
    pub failed: u32,
}

/// What was seen in a slice of a drill's payments.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Slice {
    /// Which part.
    pub slice: u32,
    /// When it began, milliseconds since the Unix epoch.
    pub began_ms: u64,
    /// When the last payment was answered or given up.
    pub ended_ms: u64,
    /// Payer and payee, once they are open.
    pub accounts: Option<[String; 2]>,
    /// The payments, in the order in which they were sent.
    pub payments: Vec<Payment>,
    /// The attempts, second by second; seconds without any are left out.
    pub seconds: Vec<Second>,
}
