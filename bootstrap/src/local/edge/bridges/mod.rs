//! What the emulator lacks and the product relies on. Each bridge says what AWS does, and a test in `tests/edge_network/gaps.rs`
//! fails when the emulator does it itself: then the bridge can go.

pub(super) mod aurora;
pub(super) mod fis;
pub(super) mod global_tables;
pub(in crate::local) mod health_checks;
pub(super) mod rds_endpoints;
pub(super) mod snapshots;
