//! The blueprint of a stack: which resources follow from a [`Spec`], and how they depend on each other. One file per area;
//! each returns handles for the areas that refer to it.

pub mod api;
pub mod control;
pub mod database;
pub mod dns;
pub mod domain;
pub mod encryption;
pub mod functions;
pub mod isolation;
pub mod keys;
pub mod network;
pub mod observability;
pub mod operator;
pub mod permissions;
mod policies;
pub mod roles;
pub mod storage;
pub mod workflows;

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
    let mut stack = Blueprint::new(&spec.suffix, account).tagged(spec.tags.clone());
    let packages = Slot::ALL.map(|slot| storage::artifacts(&mut stack, &context, slot));
    let tables = control::control(&mut stack, &context);
    let coordinators = [0, 1].map(|index| {
        let slot = Slot::SERVING[index];
        let coordinator = functions::failover_coordinator(&mut stack, &context, slot, &packages[index]);
        workflows::state_machines(&mut stack, &context, slot, &coordinator);
        coordinator
    });
    let keys = encryption::keys(&mut stack, &context);
    let topics = [0, 1].map(|index| {
        let slot = Slot::SERVING[index];
        let topic = observability::alerts(&mut stack, &context, slot, &keys[index]);
        observability::alarms(&mut stack, &context, slot, &topic);
        observability::async_calls(
            &mut stack,
            &context,
            slot,
            functions::FAILOVER_COORDINATOR,
            &coordinators[index],
            Some(&topic),
        );
        topic
    });
    observability::dashboard(&mut stack, &context);
    storage::data(&mut stack, &context, &keys);
    let networks = Slot::SERVING.map(|slot| network::network(&mut stack, &context, slot));
    let database = database::database(&mut stack, &context, &keys, &networks);
    let stages = [0, 1].map(|index| {
        let beside = functions::Beside {
            subnets: networks[index].subnets.clone(),
            security_group: networks[index].function_group.clone(),
            cluster: database.clusters[index].clone(),
        };
        let slot = Slot::SERVING[index];
        let processor = functions::payment_processor(&mut stack, &context, slot, &packages[index], beside);
        observability::async_calls(
            &mut stack,
            &context,
            slot,
            functions::PAYMENT_PROCESSOR,
            &processor,
            Some(&topics[index]),
        );
        // It tells the table what it serves.
        let rates = control::request_rates(&mut stack, &context, slot);
        stack.order(&processor, &rates);
        workflows::expiry_schedule(&mut stack, &context, slot, &processor);
        isolation::isolation(&mut stack, &context, slot, &networks[index].subnets);
        api::api(&mut stack, &context, slot, &processor)
    });
    for (index, (slot, bucket)) in Slot::ALL.into_iter().zip(&packages).enumerate() {
        let probe = functions::health_probe(&mut stack, &context, slot, bucket, &stages);
        // The witness has no topic, and Lambda tells none of another region.
        let topic = topics.get(index);
        observability::async_calls(&mut stack, &context, slot, functions::HEALTH_PROBE, &probe, topic);
        // A probe writes what it saw into the control table.
        stack.order(&probe, &tables.control);
        workflows::probe_schedule(&mut stack, &context, slot, &probe);
    }
    dns::dns(&mut stack, &context, &stages);
    stack
}

/// The part of the stack that the command line creates itself: just enough for the coordinator to create the rest. The same
/// nodes with the same keys as in [`blueprint`].
pub fn seed(spec: &Spec, account: &str) -> Blueprint {
    let stack = blueprint(spec, account);
    let seed = stack
        .nodes()
        .iter()
        .map(|node| node.key.clone())
        .filter(|key| in_seed(key))
        .collect();
    stack.only(&seed)
}

/// What [`seed`] begins with; what these depend on comes along. Both serving regions have what it takes to deploy and to tear
/// down: after a failover the other one does it.
fn in_seed(key: &str) -> bool {
    const IN_BOTH_REGIONS: [&str; 3] = [
        "function.failover-coordinator.",
        "state-machine.deploy.",
        "state-machine.teardown.",
    ];
    let in_both = IN_BOTH_REGIONS.iter().any(|start| key.starts_with(start));
    // The buckets, and what protects them.
    key == "control-table" || in_both || key.starts_with("artifacts")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::collections::BTreeSet;

    use super::*;

    const ACCOUNT: &str = "000000000000";

    fn listing(blueprint: &Blueprint) -> String {
        let mut lines: Vec<String> = blueprint
            .nodes()
            .iter()
            .map(|node| {
                let needs: Vec<&str> = node.dependencies().map(String::as_str).collect();
                let after = if needs.is_empty() {
                    String::new()
                } else {
                    format!(" <- {}", needs.join(", "))
                };
                format!("{node:?}{after}")
            })
            .collect();
        lines.sort();
        lines.join("\n")
    }

    #[test]
    fn the_default_stack_is_a_graph_of_more_than_sixty_resources() {
        let stack = blueprint(&Spec::default(), ACCOUNT);
        stack.validate().unwrap();
        assert!(stack.nodes().len() > 60, "{}", stack.nodes().len());
    }

    #[test]
    fn the_default_stack_is_what_was_reviewed() {
        insta::assert_snapshot!(listing(&blueprint(&Spec::default(), ACCOUNT)));
    }

    #[test]
    fn the_seed_is_what_was_reviewed_and_stands_by_itself() {
        let seed = seed(&Spec::default(), ACCOUNT);
        seed.validate().unwrap();
        insta::assert_snapshot!(listing(&seed));
    }

    #[test]
    fn other_sizes_are_graphs_too() {
        let mut spec = Spec::default();
        spec.network.zones = 3;
        spec.aurora.instances = 2;
        let (small, large) = (blueprint(&Spec::default(), ACCOUNT), blueprint(&spec, ACCOUNT));
        large.validate().unwrap();
        assert_eq!(large.nodes().len(), small.nodes().len() + 4);
    }

    #[test]
    fn a_secondary_comes_after_a_running_primary_and_a_function_goes_before_what_its_network_interfaces_need()
    {
        let stack = blueprint(&Spec::default(), ACCOUNT);
        let after = |later: &str, earlier: &str| {
            stack
                .only(&BTreeSet::from([later.to_owned()]))
                .keys()
                .contains(earlier)
        };
        assert!(after("db-cluster.dr", "db-instance.1.primary"));
        // Lambda deletes its interfaces with the function's role, so the role outlives the group that they are in.
        assert!(after(
            "security-group.function.primary",
            "role.payment-processor.primary"
        ));
        assert!(after("function.payment-processor.dr", "subnet.a.dr"));
    }
}
