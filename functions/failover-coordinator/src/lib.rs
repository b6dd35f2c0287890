//! The failover coordinator: every step of the deploy, failover and teardown workflows. Step Functions decides which step
//! comes next (`infra/workflows/*.asl.json`); a step observes, decides by a pure function, and acts through a small trait.
//!
//! Every step run twice equals once. The failover steps call nothing outside their own region.

pub mod context;
pub mod decide;
pub mod drill;
pub mod effects;
pub mod error;
pub mod event;
pub mod limits;
pub mod steps;

#[cfg(test)]
mod testing;
