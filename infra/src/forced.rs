//! What a replacement forces. A resource that is made anew has another id, and whatever names that id in a field that cannot be
//! changed in place must be made anew with it: a VPC's subnets, and the database that lives in them. Pure: it follows from the
//! blueprint alone.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::graph::{Blueprint, Edges, Resolved};
use crate::placeholder;

/// For each node, what its replacement forces.
#[derive(Debug)]
pub(crate) struct Forced(Vec<Vec<Follower>>);

/// A node that must be made anew with another one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Follower {
    /// Its position in the blueprint.
    pub position: usize,
    /// It holds data.
    pub stateful: bool,
    /// The field that cannot be changed in place.
    pub field: &'static str,
    /// What the field becomes: `${KEY.FIELD}`.
    pub to: String,
}

impl Forced {
    /// Of a blueprint with these edges.
    pub(crate) fn new(blueprint: &Blueprint, edges: &Edges) -> Self {
        let nodes = blueprint.nodes();
        let resolved = Resolved::default();
        let mut followers = vec![Vec::new(); nodes.len()];
        for &position in &edges.order {
            let node = &nodes[position];
            let resource = node
                .prepare(&resolved)
                .expect("what comes before has its placeholders");
            let spec = resource.wanted();
            for &field in resource.immutable() {
                let Some(Value::String(to)) = spec.get(field) else {
                    continue;
                };
                for &before in &edges.before[position] {
                    if placeholder::all_in(to).any(|(key, _)| key == nodes[before].key) {
                        followers[before].push(Follower {
                            position,
                            stateful: resource.stateful(),
                            field,
                            to: to.clone(),
                        });
                    }
                }
            }
            // A name is not taken for known either: while somebody is attached to it, AWS does not let the old one go.
            resolved.insert(&node.key, resource.placeholders(&node.key, &Value::Null));
        }
        Forced(followers)
    }

    /// Everything that must be made anew when this node is, by position.
    pub(crate) fn by(&self, position: usize) -> BTreeMap<usize, &Follower> {
        let mut found = BTreeMap::new();
        let mut queue = vec![position];
        while let Some(next) = queue.pop() {
            for follower in &self.0[next] {
                if found.insert(follower.position, follower).is_none() {
                    queue.push(follower.position);
                }
            }
        }
        found
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::blueprint::blueprint;
    use crate::spec::Spec;

    /// The keys of what the replacement of a node forces, those that hold data with a star.
    fn forced(key: &str) -> Vec<String> {
        let stack = blueprint(&Spec::default(), "000000000000");
        let nodes = stack.nodes();
        let position = nodes.iter().position(|node| node.key == key).unwrap();
        let forced = Forced::new(&stack, &stack.edges().unwrap());
        let star = |follower: &Follower| if follower.stateful { "*" } else { "" };
        let found = forced.by(position).into_values();
        found
            .map(|one| format!("{}{}", nodes[one.position].key, star(one)))
            .collect()
    }

    #[test]
    fn a_vpc_takes_its_database_with_it() {
        let all = forced("vpc.primary");
        for key in [
            "subnet.a.primary",
            "security-group.database.primary",
            "db-subnet-group.primary",
            "db-cluster.primary*",
            "db-instance.1.primary",
        ] {
            assert!(all.contains(&key.to_owned()), "`{key}` is not in {all:?}");
        }
        assert!(all.iter().all(|key| !key.contains(".dr")), "{all:?}");
    }

    #[test]
    fn a_cluster_takes_its_instances_and_nothing_else_with_it() {
        assert_eq!(forced("db-cluster.dr"), ["db-instance.1.dr"]);
    }
}
