//! Killing `up`, `down` and the coordinator in the middle of their work, at each of their calls in turn.
//!
//! The edge lets the chosen call take effect, holds its answer back and kills the process that made it. Then the command is run
//! again, and the stack must be the one that an undisturbed run makes: the same resources, none twice, all in order; after
//! `down`, nothing.
//!
//! Which calls there are is learned from an undisturbed deployment, the reference. Only those that write are struck: a call
//! that only reads leaves the world as it was, so being killed after it is the same as being killed after the write before it.

mod cycle;
pub mod points;
pub mod programs;
mod reference;
pub mod series;
mod stage;

pub use points::{Command, Point, Victim};
pub use series::{Options, Outcome, Summary, Verdict, run};
