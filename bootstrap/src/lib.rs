//! The command line of Understudy, and the local cloud: a two-region AWS on one machine.

pub mod artifacts;
pub mod bench;
pub mod cli;
pub mod client;
pub mod demo;
pub mod doctor;
pub mod down;
pub mod drill;
pub mod exercises;
pub mod failure;
pub mod init;
pub mod keys;
pub mod local;
pub mod lost_tail;
pub mod plan;
pub mod readiness;
pub mod stack;
pub mod status;
pub mod takeover;
pub mod ui;
pub mod up;
pub mod workflow;
