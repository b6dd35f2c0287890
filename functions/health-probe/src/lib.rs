//! The health probe: looks at both serving regions from outside, as a client would, and writes down what it saw. In the
//! standby region it also assesses the stack each round and starts the failover workflow when the verdict says so; in either
//! serving region it starts a workflow again that ended before the region that it works for served. During a drill it also pays
//! like a customer ([`synthetic`]).

pub mod config;
pub mod look;
pub mod rounds;
pub mod start;
pub mod synthetic;
pub mod timer;
