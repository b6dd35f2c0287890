//! The proof of the policies: what a stack's roles are granted, what of it is needed, and what an operator reads when any one
//! action is missing.
//!
//! An action is taken from a role by a permissions boundary that allows everything else. To the role it is the same as a policy
//! without the action, in every statement at once; and no reconcile mends it before the step that needs it has run, as the
//! coordinator would mend its own policies.

pub mod damage;
pub mod grants;
pub mod reviewed;
pub mod series;
pub mod stage;
pub mod steps;
pub mod takeover;
