//! Changes of the active region, end to end: each test has a local cloud of its own, and all run side by side.

#![allow(clippy::unwrap_used)]

mod drill;
mod interrupted;
mod readiness;
mod recovery;
mod takeover;
