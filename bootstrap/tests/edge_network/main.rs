//! The edge and the name server with real clients in front and the real emulator behind.

#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod calls;
mod cloud;
mod database;
mod faults;
mod gaps;
mod https;
mod journal;
mod names;
mod signals;
mod strikes;
