//! What keeps a payment safe while the active region changes: the control record and its epoch, the fence, the journal,
//! what observers saw, and the decision to take over.
//!
//! Everything here is small and pure, or stands behind a small trait; every function of the stack uses it. Nothing in
//! this crate knows the ledger's tables, the HTTP API or how resources are made.

pub mod acknowledge;
pub mod assess;
pub mod aws;
pub mod clock;
pub mod config;
pub mod control;
pub mod dynamo;
pub mod entry;
pub mod error;
pub mod journal;
pub mod lost_tail;
pub mod memory;
pub mod metrics;
pub mod names;
pub mod observe;
pub mod rate;
pub mod synthetic;
pub mod takeover;
pub mod window;
