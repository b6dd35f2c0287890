//! Policies: none allows every action on every resource, nor comes near it.

use serde_json::Value;

use super::{Finding, Rule, Stack};
use crate::wanted::Wanted;

#[cfg(test)]
pub(super) const KINDS: &[&str] = &[
    "iam-policy",
    "iam-role-attachments",
    "iam-role-policies",
    "kms-key-policy",
    "s3-policy",
    "sns-topic",
];

/// Patterns of actions that are fine on every resource: many of these reads know no resource (`ec2:Describe*`), and none of
/// them returns what is stored.
const LOOKS: [&str; 2] = ["Describe", "List"];

/// The rule.
pub(super) fn check(stack: &Stack<'_>, findings: &mut Vec<Finding>) {
    let mut judge = |one: &Wanted, document: &Value, whose: Whose| {
        for statement in statements(document).filter(|statement| allows(statement)) {
            findings.extend(too_much(statement, whose).map(|problem| {
                let sid = statement["Sid"].as_str().unwrap_or("without a name");
                one.finding(
                    Rule::Policy,
                    format!("statement `{sid}` {problem}"),
                    "name the actions, or the resources by their ARN",
                )
            }));
        }
    };
    for one in stack.of("iam-policy") {
        judge(one, one.field("document"), Whose::Principal);
    }
    for one in stack.of("iam-role-policies") {
        for document in one
            .field("policies")
            .as_object()
            .into_iter()
            .flat_map(|all| all.values())
        {
            judge(one, document, Whose::Principal);
        }
    }
    for kind in ["s3-policy", "sns-topic"] {
        for one in stack.of(kind) {
            judge(one, one.field("policy"), Whose::Principal);
        }
    }
    for one in stack.of("kms-key-policy") {
        judge(one, one.field("policy"), Whose::Key);
    }
    for one in stack.of("iam-role-attachments") {
        let names = one.list("policies").iter().filter_map(Value::as_str);
        let broad = names.filter(|arn| {
            ["AdministratorAccess", "PowerUserAccess", "FullAccess"]
                .iter()
                .any(|end| arn.ends_with(end))
        });
        findings.extend(broad.map(|arn| {
            one.finding(
                Rule::Policy,
                format!("`{arn}` allows every action on every resource of a service or of all"),
                "attach a policy that names what the role needs",
            )
        }));
    }
}

/// What a policy is attached to.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Whose {
    /// Somebody, or a resource that its statements name.
    Principal,
    /// A KMS key. In its policy `*` is the key itself and nothing else.
    Key,
}

/// The statements of a policy.
pub(super) fn statements(document: &Value) -> impl Iterator<Item = &Value> {
    list(&document["Statement"])
}

/// Whether it allows, and does not deny.
pub(super) fn allows(statement: &Value) -> bool {
    statement["Effect"] == "Allow"
}

fn list(value: &Value) -> impl Iterator<Item = &Value> {
    let (many, one) = match value {
        Value::Array(all) => (all.as_slice(), None),
        Value::Null => (&[][..], None),
        one => (&[][..], Some(one)),
    };
    many.iter().chain(one)
}

fn texts(value: &Value) -> impl Iterator<Item = &str> {
    list(value).filter_map(Value::as_str)
}

fn too_much(statement: &Value, whose: Whose) -> Option<String> {
    for field in ["NotAction", "NotResource"] {
        if statement.get(field).is_some() {
            return Some(format!("allows everything but what its {field} names"));
        }
    }
    let wild = texts(&statement["Action"]).find(|action| is_wild(action))?;
    match whose {
        // The policy that KMS gives to every new key lets the account's root do `kms:*`. That is no permission to anybody by
        // itself: without it IAM policies do not count for the key, and a key that nobody else can manage is lost for ever. To
        // anybody but the root it would be one.
        Whose::Key if to_root_only(statement) => None,
        Whose::Key if !is_all(wild) => None,
        Whose::Key => Some(format!("allows `{wild}` to others than the account's root")),
        Whose::Principal => {
            let resource = texts(&statement["Resource"]).find(|arn| is_everything(arn))?;
            Some(format!("allows `{wild}` on `{resource}`"))
        }
    }
}

/// A pattern of actions that is more than looking.
fn is_wild(action: &str) -> bool {
    let Some((_, name)) = action.split_once(':') else {
        return action.contains('*');
    };
    action.contains(['*', '?']) && !LOOKS.iter().any(|word| name.starts_with(word))
}

/// `*` and `kms:*`, but not `kms:GenerateDataKey*`.
fn is_all(action: &str) -> bool {
    action.ends_with(":*") || action == "*"
}

/// `*`, and an ARN that leaves open what of a service it is.
fn is_everything(resource: &str) -> bool {
    let name = resource.splitn(6, ':').last().unwrap_or_default();
    !name.is_empty() && name.chars().all(|c| c == '*' || c == '/')
}

fn to_root_only(statement: &Value) -> bool {
    let mut principals = texts(&statement["Principal"]["AWS"]).peekable();
    principals.peek().is_some()
        && statement["Principal"].as_object().map(serde_json::Map::len) == Some(1)
        && principals.all(|arn| arn.ends_with(":root"))
}
