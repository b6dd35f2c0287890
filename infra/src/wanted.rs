//! What every resource of a blueprint should be, before any of it exists: the desired `Spec` of each node as JSON, with
//! placeholders for what only AWS can say. Pure: this is what the checker and the golden plan look at.

use serde::Serialize;
use serde_json::Value;

use crate::graph::{Blueprint, Group, InvalidBlueprint, Resolved};

/// What one resource should be.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Wanted {
    /// The node's key.
    pub key: String,
    /// The kind's name.
    pub kind: &'static str,
    /// The region.
    pub region: String,
    /// The group it is counted in.
    pub group: Group,
    /// The desired `Spec`.
    pub spec: Value,
}

impl Blueprint {
    /// The desired `Spec` of every node, in the blueprint's order. Outputs of other nodes are `${KEY.FIELD}`, or the value of the
    /// field of the same name in the other's `Spec`.
    ///
    /// # Errors
    /// Only for a blueprint that is no graph.
    pub fn wanted(&self) -> Result<Vec<Wanted>, InvalidBlueprint> {
        let edges = self.edges()?;
        let resolved = Resolved::default();
        let mut specs = vec![Value::Null; self.nodes().len()];
        for &position in &edges.order {
            let node = &self.nodes()[position];
            let resource = node
                .prepare(&resolved)
                .expect("what comes before has its placeholders");
            let spec = resource.wanted();
            resolved.insert(&node.key, resource.placeholders(&node.key, &spec));
            specs[position] = spec;
        }
        let nodes = self.nodes().iter().zip(specs);
        Ok(nodes
            .map(|(node, spec)| Wanted {
                key: node.key.clone(),
                kind: node.kind,
                region: node.place.region.clone(),
                group: node.place.group,
                spec,
            })
            .collect())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::blueprint::blueprint;
    use crate::spec::{Serverless, Spec};

    fn wanted(spec: &Spec) -> Vec<Wanted> {
        blueprint(spec, "000000000000").wanted().unwrap()
    }

    fn find<'a>(all: &'a [Wanted], key: &str) -> &'a Value {
        &all.iter().find(|one| one.key == key).unwrap().spec
    }

    #[test]
    fn every_resource_of_the_default_stack_is_known_before_it_exists() {
        let all = wanted(&Spec::default());
        assert!(all.len() > 110, "{}", all.len());
        assert!(all.iter().all(|one| one.spec.is_object()));
        assert_eq!(find(&all, "subnet.a.primary")["vpc_id"], "${vpc.primary.vpc_id}");
        assert_eq!(
            find(&all, "db-instance.1.dr")["identifier"],
            "aurora-dr-dev-1",
            "what the Spec says itself is no placeholder"
        );
        assert_eq!(
            find(&all, "alert-topic.primary")["kms_key_arn"],
            "${kms-key.primary.arn}",
            "a placeholder is handed on"
        );
        assert_eq!(
            find(&all, "api-access-log.dr")["rest_api_id"],
            "${rest-api.dr.id}"
        );
    }

    #[test]
    fn a_placeholder_stands_for_something_that_the_node_refers_to() {
        let stack = blueprint(&Spec::default(), "000000000000");
        for (node, one) in stack.nodes().iter().zip(stack.wanted().unwrap()) {
            let below = stack.only(&[node.key.clone()].into()).keys();
            let text = one.spec.to_string();
            for (key, field) in crate::placeholder::all_in(&text) {
                assert!(below.contains(key), "{}: ${{{key}.{field}}}", node.key);
            }
        }
    }

    #[test]
    fn a_stack_with_everything_that_can_be_configured_is_known_too() {
        let mut spec = Spec {
            domain: Some("payments.example.com".into()),
            ..Spec::default()
        };
        spec.network.zones = 3;
        spec.aurora.instances = 2;
        spec.aurora.instance_class = "db.serverless".into();
        spec.aurora.serverless = Some(Serverless {
            min_acu: 0.5,
            max_acu: 8.0,
        });
        let all = wanted(&spec);
        assert_eq!(find(&all, "db-cluster.dr")["serverless"]["max_acu"], 8.0);
        assert_eq!(
            find(&all, "alias-record.dr")["target"],
            "${api-domain.payments.example.com.dr.regional_domain}"
        );
        assert!(all.iter().any(|one| one.key == "subnet.c.dr"));
    }
}
