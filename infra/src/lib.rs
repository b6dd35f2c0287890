//! The stack as a graph of AWS resources, and the engine that brings live resources to it.
//!
//! [`spec`] is what the operator says, [`blueprint`] the graph that follows from it, [`resources`] the kinds of its nodes,
//! [`plan`] the pure comparison and [`engine`] the executor. Nothing here moves the active region.

pub mod blueprint;
pub mod change;
pub mod check;
pub mod clock;
pub mod cloud;
pub mod control_plane;
pub mod documents;
pub mod drift;
pub mod engine;
pub mod error;
pub mod exercise;
mod forced;
pub mod graph;
pub mod kind;
pub mod outcome;
pub mod placeholder;
pub mod plan;
pub mod readiness;
pub mod resources;
pub mod spec;
pub mod tagged;
pub mod waiting;
pub mod wanted;
pub mod warnings;

pub use warnings::warnings;
