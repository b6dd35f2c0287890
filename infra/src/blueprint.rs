//! The blueprint of a stack: which resources follow from a [`Spec`], and how they depend on each other. One file per area;
//! each returns handles for the areas that refer to it.

pub mod api;
pub mod control;
pub mod dns;
pub mod functions;
pub mod keys;
pub mod network;
mod policies;
pub mod roles;
pub mod storage;
pub mod workflows;

use std::collections::BTreeSet;

use continuity::names::{Names, Slot};

use crate::graph::{Blueprint, Place};
use crate::spec::Spec;

/// What every area needs to know.
#[derive(Debug)]
pub struct Context<'a> {
    /// The configuration.
    pub spec: &'a Spec,
    /// What everything is called.
    pub names: Names,
    /// The account.
    pub account: &'a str,
}

impl Context<'_> {
    /// A slot's region, counted in the slot's group.
    pub fn place(&self, slot: Slot) -> Place {
        Place {
            group: slot.into(),
            region: self.region(slot).to_owned(),
        }
    }

    /// Something that spans regions or has none; its calls go to the home region.
    pub fn global(&self) -> Place {
        Place {
            group: crate::graph::Group::Global,
            region: self.region(Slot::Primary).to_owned(),
        }
    }

    /// A slot's region.
    pub fn region(&self, slot: Slot) -> &str {
        self.spec.regions.of(slot)
    }
}

/// The whole stack.
pub fn blueprint(spec: &Spec, account: &str) -> Blueprint {
    let context = Context {
        spec,
        names: spec.names(),
        account,
    };
    let mut blueprint = Blueprint::new(&spec.suffix, account);
    for slot in Slot::SERVING {
        network::network(&mut blueprint, &context, slot);
    }
    blueprint
}

/// The part of the stack that the command line creates itself: just enough for the coordinator to create the rest. The same
/// nodes with the same keys as in [`blueprint`].
pub fn seed(spec: &Spec, account: &str) -> Blueprint {
    blueprint(spec, account).only(&seed_keys())
}

/// The keys that [`seed`] begins with.
fn seed_keys() -> BTreeSet<String> {
    BTreeSet::new()
}
