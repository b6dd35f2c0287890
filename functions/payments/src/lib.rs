//! The payments API of one region: the HTTP surface, the ledger in PostgreSQL behind it, `/health`, and the tasks that
//! workflows run against the ledger (migrate, set-epoch, replay, verify-ledger, ledger-status).
//!
//! What keeps a payment safe while the active region changes is in `continuity`; this crate executes commands and answers.

pub mod api;
pub mod command;
pub mod context;
pub mod currency;
pub mod event;
pub mod ledger;
pub mod limits;
mod rate;
pub mod statement;
pub mod tasks;
pub mod telemetry;
pub mod trace;
