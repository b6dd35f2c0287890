//! What a change of the active region needs to be allowed, beside [`super::policies`], which grants it. The readiness evaluation
//! asks IAM about each: a policy that was changed by hand, a boundary or an organisation's rule shows before it is needed.
//!
//! Where the grant has a condition, what the call would carry is told with the question: IAM's simulation does not know it.

use std::collections::BTreeMap;

use continuity::names::Slot;
use serde::{Deserialize, Serialize};

use super::{Context, functions};
use crate::resources::{iam_role, sns_topic, state_machine};
use crate::spec::Spec;

/// Something that a role must be allowed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Needed {
    /// What the role is for: `failover-coordinator`.
    pub purpose: String,
    /// The role's ARN.
    pub role_arn: String,
    /// The action.
    pub action: String,
    /// The ARN of what it is done to, or `*` where the action knows no resource.
    pub resource: String,
    /// What the call carries that the grant's condition asks for, by condition key.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub context: BTreeMap<String, String>,
}

/// Whether a condition key has several values.
/// <https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_policies_condition-single-vs-multi-valued-context-keys.html>
pub fn is_list(key: &str) -> bool {
    key == LEADING_KEYS
}

const LEADING_KEYS: &str = "dynamodb:LeadingKeys";

/// What failover and switchover to `slot` need, by the roles of that slot.
pub fn takeover(spec: &Spec, account: &str, slot: Slot) -> Vec<Needed> {
    let context = &Context {
        spec,
        names: spec.names(),
        account,
    };
    let (region, names) = (context.region(slot), &context.names);
    let table = |name: String| format!("arn:aws:dynamodb:{region}:{account}:table/{name}");
    let (control, journal) = (table(names.control_table()), table(names.journal_table()));
    let machine = |workflow| state_machine::arn(region, account, &names.state_machine(workflow, slot));
    let processor = |slot| functions::arn(context, slot, &names.payment_processor(slot));
    let cluster = |slot| {
        let (region, name) = (context.region(slot), names.aurora_cluster(slot));
        format!("arn:aws:rds:{region}:{account}:cluster:{name}")
    };
    let global = format!("arn:aws:rds::{account}:global-cluster:{}", names.aurora_global());
    // The six characters are AWS's.
    let secret = format!(
        "arn:aws:secretsmanager:{region}:{account}:secret:{}-AAAAAA",
        names.database_secret()
    );
    let topic = sns_topic::arn(region, account, &names.alert_topic(slot));
    let coordinator = functions::arn(context, slot, &names.failover_coordinator(slot));
    let [one, other] = Slot::SERVING;
    let observation = [(LEADING_KEYS.to_owned(), format!("observation#{region}"))];
    let through_secrets = [
        (
            "kms:ViaService".to_owned(),
            format!("secretsmanager.{region}.amazonaws.com"),
        ),
        ("kms:EncryptionContext:SecretARN".to_owned(), secret.clone()),
    ];
    // Which key it is does not matter: the grant is for any, as long as the secret's service asks.
    let key = format!("arn:aws:kms:{region}:{account}:key/00000000-0000-0000-0000-000000000000");
    let conditional = [
        (
            functions::HEALTH_PROBE,
            "dynamodb:PutItem",
            control.clone(),
            BTreeMap::from(observation),
        ),
        (
            functions::PAYMENT_PROCESSOR,
            "kms:Decrypt",
            key,
            BTreeMap::from(through_secrets),
        ),
    ];
    [
        (
            functions::FAILOVER_COORDINATOR,
            "dynamodb:GetItem",
            control.clone(),
        ),
        (
            functions::FAILOVER_COORDINATOR,
            "dynamodb:BatchGetItem",
            control.clone(),
        ),
        (
            functions::FAILOVER_COORDINATOR,
            "dynamodb:PutItem",
            control.clone(),
        ),
        (
            functions::FAILOVER_COORDINATOR,
            "rds:DescribeGlobalClusters",
            "*".into(),
        ),
        (
            functions::FAILOVER_COORDINATOR,
            "rds:FailoverGlobalCluster",
            global.clone(),
        ),
        (
            functions::FAILOVER_COORDINATOR,
            "rds:FailoverGlobalCluster",
            cluster(slot),
        ),
        (
            functions::FAILOVER_COORDINATOR,
            "rds:SwitchoverGlobalCluster",
            global,
        ),
        (
            functions::FAILOVER_COORDINATOR,
            "rds:SwitchoverGlobalCluster",
            cluster(one),
        ),
        (
            functions::FAILOVER_COORDINATOR,
            "rds:SwitchoverGlobalCluster",
            cluster(other),
        ),
        (
            functions::FAILOVER_COORDINATOR,
            "lambda:InvokeFunction",
            processor(one),
        ),
        (
            functions::FAILOVER_COORDINATOR,
            "lambda:InvokeFunction",
            processor(other),
        ),
        (
            functions::FAILOVER_COORDINATOR,
            "states:StartExecution",
            machine("failover"),
        ),
        (functions::FAILOVER_COORDINATOR, "sns:Publish", topic),
        ("workflows", "lambda:InvokeFunction", coordinator),
        (functions::HEALTH_PROBE, "dynamodb:GetItem", control.clone()),
        (
            functions::HEALTH_PROBE,
            "states:StartExecution",
            machine("failover"),
        ),
        (
            functions::HEALTH_PROBE,
            "states:StartExecution",
            machine("switchover"),
        ),
        (functions::PAYMENT_PROCESSOR, "dynamodb:GetItem", control),
        (functions::PAYMENT_PROCESSOR, "dynamodb:PutItem", journal.clone()),
        (functions::PAYMENT_PROCESSOR, "dynamodb:Query", journal),
        (
            functions::PAYMENT_PROCESSOR,
            "secretsmanager:GetSecretValue",
            secret,
        ),
    ]
    .into_iter()
    .map(|(purpose, action, resource)| (purpose, action, resource, BTreeMap::new()))
    .chain(conditional)
    .map(|(purpose, action, resource, context)| Needed {
        purpose: purpose.into(),
        role_arn: format!(
            "arn:aws:iam::{account}:role{}{}",
            iam_role::PATH,
            names.regional(purpose, slot)
        ),
        action: action.into(),
        resource,
        context,
    })
    .collect()
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::super::{policies, workflows};
    use super::*;

    /// Whether a pattern of IAM, with `*`, fits.
    fn fits(pattern: &str, text: &str) -> bool {
        match pattern.split_once('*') {
            None => pattern == text,
            Some((start, rest)) => text
                .strip_prefix(start)
                .is_some_and(|text| (0..=text.len()).any(|at| fits(rest, &text[at..]))),
        }
    }

    fn any(patterns: &Value, text: &str) -> bool {
        match patterns {
            Value::Array(all) => all.iter().any(|one| any(one, text)),
            one => one.as_str().is_some_and(|pattern| fits(pattern, text)),
        }
    }

    /// Whether what is carried meets a statement's condition: by text, or by pattern.
    fn met(condition: &Value, carried: &BTreeMap<String, String>) -> bool {
        let operators = condition.as_object().into_iter().flatten();
        let mut keys = operators.flat_map(|(_, keys)| keys.as_object().into_iter().flatten());
        keys.all(|(key, wanted)| carried.get(key).is_some_and(|carried| any(wanted, carried)))
    }

    fn grants(statements: &[Value], needed: &Needed) -> bool {
        statements.iter().any(|statement| {
            statement["Effect"] == "Allow"
                && met(&statement["Condition"], &needed.context)
                && any(&statement["Action"], &needed.action)
                && any(&statement["Resource"], &needed.resource)
        })
    }

    #[test]
    fn the_policy_of_each_role_grants_what_a_takeover_needs() {
        let spec = Spec::default();
        let account = "000000000000";
        let context = Context {
            spec: &spec,
            names: spec.names(),
            account,
        };
        for slot in Slot::SERVING {
            let mut coordinator = policies::failover_coordinator(&context);
            coordinator.extend(policies::failover_coordinator_more(&context));
            let called = functions::arn(&context, slot, &context.names.failover_coordinator(slot));
            for needed in takeover(&spec, account, slot) {
                let statements = match needed.purpose.as_str() {
                    functions::FAILOVER_COORDINATOR => coordinator.clone(),
                    functions::HEALTH_PROBE => policies::health_probe(&context, slot),
                    functions::PAYMENT_PROCESSOR => policies::payment_processor(&context, slot),
                    _ => workflows::invoke(&called),
                };
                assert!(grants(&statements, &needed), "{slot}: {needed:?}");
            }
        }
    }

    #[test]
    fn the_roles_are_those_of_the_blueprint() {
        let spec = Spec::default();
        let stack = super::super::blueprint(&spec, "000000000000");
        for slot in Slot::SERVING {
            for needed in takeover(&spec, "000000000000", slot) {
                let key = format!("role.{}.{slot}", needed.purpose);
                assert!(stack.keys().contains(&key), "{key}");
            }
        }
    }
}
