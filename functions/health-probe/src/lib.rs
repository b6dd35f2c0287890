//! The health probe: looks at both serving regions from outside, as a client would, and writes down what it saw. In the
//! standby region it also assesses the stack each round and starts the failover workflow when the verdict says so; in either
//! serving region it starts a workflow again that ended before the region that it works for served.

pub mod config;
pub mod look;
pub mod rounds;
pub mod start;
pub mod timer;
