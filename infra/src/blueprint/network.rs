//! The network of a serving region: private, without a way to the internet.

use continuity::names::Slot;

use super::Context;
use crate::graph::{Blueprint, Handle};
use crate::resources::vpc::{self, Vpc};

/// What other areas refer to.
#[derive(Debug, Clone)]
pub struct Network {
    /// The VPC.
    pub vpc: Handle<Vpc>,
}

/// VPC, subnets, routes, security groups and endpoints of one slot.
pub fn network(blueprint: &mut Blueprint, context: &Context<'_>, slot: Slot) -> Network {
    let place = context.place(slot);
    let spec = vpc::Spec {
        name: context.names.regional("vpc", slot),
        cidr: context.spec.cidr(slot).to_owned(),
        dns_support: true,
        dns_hostnames: true,
    };
    let vpc = blueprint.add(format!("vpc.{slot}"), &place, (), move |()| spec.clone());
    Network { vpc }
}
