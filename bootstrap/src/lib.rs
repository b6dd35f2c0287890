//! The command line of Understudy, and the local cloud: a two-region AWS on one machine.

pub mod cli;
pub mod local;
