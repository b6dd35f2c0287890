//! Nothing is open to the world but the API, which is what the stack is for: no ingress from everywhere, no public database, no
//! public bucket, no policy that lets anybody in.

use serde_json::Value;

use super::policies::{allows, statements};
use super::{Finding, Rule, Stack};
use crate::wanted::Wanted;

#[cfg(test)]
pub(super) const KINDS: &[&str] = &[
    "db-instance",
    "iam-role",
    "kms-key-policy",
    "lambda-permission",
    "s3-bucket",
    "s3-policy",
    "s3-public-access-block",
    "security-group",
    "sns-topic",
    "subnet",
];

/// Everybody, in both protocols.
const WORLD: [&str; 2] = ["0.0.0.0/0", "::/0"];

const BLOCKS: [&str; 4] = [
    "block_public_acls",
    "ignore_public_acls",
    "block_public_policy",
    "restrict_public_buckets",
];

/// The rule.
pub(super) fn check(stack: &Stack<'_>, findings: &mut Vec<Finding>) {
    for group in stack.of("security-group") {
        ingress(group, findings);
    }
    for instance in stack.of("db-instance") {
        if instance.field("publicly_accessible") != &Value::Bool(false) {
            findings.push(instance.finding(
                Rule::Open,
                "the database would have a public address",
                "set `publicly_accessible` to false",
            ));
        }
    }
    for subnet in stack.of("subnet").filter(|one| one.is_set("public_addresses")) {
        findings.push(subnet.finding(
            Rule::Open,
            "what is started in it would have a public address",
            "set `public_addresses` to false",
        ));
    }
    for block in stack.of("s3-public-access-block") {
        for flag in BLOCKS.iter().filter(|flag| !block.is_set(flag)) {
            findings.push(block.finding(
                Rule::Open,
                format!("`{flag}` is off, so the bucket could be made public"),
                "switch all four on",
            ));
        }
    }
    let blocked = stack.by_bucket("s3-public-access-block");
    for bucket in stack.of("s3-bucket").filter(|_| stack.whole) {
        if !blocked.contains_key(bucket.text("bucket")) {
            findings.push(bucket.finding(
                Rule::Open,
                "nothing keeps it from being made public",
                "add an `s3-public-access-block`",
            ));
        }
    }
    for permission in stack.of("lambda-permission") {
        if permission.text("principal") == "*" || permission.text("source_arn").is_empty() {
            findings.push(permission.finding(
                Rule::Open,
                "anybody's API or resource could call the function",
                "name the service and the ARN that it calls on behalf of",
            ));
        }
    }
    for (kind, field) in [
        ("iam-role", "trust"),
        ("kms-key-policy", "policy"),
        ("s3-policy", "policy"),
        ("sns-topic", "policy"),
    ] {
        for one in stack.of(kind) {
            let anybody =
                statements(one.field(field)).filter(|statement| allows(statement) && is_for_all(statement));
            findings.extend(anybody.map(|statement| {
                one.finding(
                    Rule::Open,
                    format!("statement `{}` of its {field} lets anybody in", sid(statement)),
                    "name the principal, or bound it with a condition",
                )
            }));
        }
    }
}

fn ingress(group: &Wanted, findings: &mut Vec<Finding>) {
    for rule in group.list("ingress") {
        let peer = rule["peer"].as_str().unwrap_or_default();
        if WORLD.contains(&peer) {
            findings.push(group.finding(
                Rule::Open,
                format!(
                    "{} port {} is open to {peer}",
                    rule["protocol"].as_str().unwrap_or("any"),
                    rule["from_port"]
                ),
                "let in a security group or a network of your own",
            ));
        }
    }
}

fn is_for_all(statement: &Value) -> bool {
    let everybody = match &statement["Principal"] {
        Value::String(one) => one == "*",
        Value::Object(sorts) => sorts.values().any(|sort| match sort {
            Value::Array(all) => all.iter().any(|one| one == "*"),
            one => one == "*",
        }),
        // A trust or resource policy that names whom it is not for is for everybody else.
        _ => statement.get("NotPrincipal").is_some(),
    };
    everybody && statement.get("Condition").is_none()
}

fn sid(statement: &Value) -> &str {
    statement["Sid"].as_str().unwrap_or("without a name")
}
