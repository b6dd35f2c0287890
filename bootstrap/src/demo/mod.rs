//! The demo: a region is lost while customers pay, and nothing that was acknowledged is.

pub mod load;
pub mod tally;
