//! Encryption: with the stack's own key where a service takes one, and nothing but TLS on the way. What AWS encrypts whether it is
//! told to or not (tables, log groups, functions' environments, buckets of packages) needs no word of ours.

use serde_json::Value;

use super::policies::statements;
use super::{Finding, Rule, Stack, holds_packages};
use crate::wanted::Wanted;

#[cfg(test)]
pub(super) const KINDS: &[&str] = &[
    "api-domain",
    "db-cluster",
    "db-cluster-parameter-group",
    "global-cluster",
    "kms-key",
    "s3-bucket",
    "s3-encryption",
    "s3-policy",
    "s3-replication",
    "secret",
    "sns-topic",
];

/// Fields that name the key.
const KEYS: [(&str, &str); 5] = [
    ("db-cluster", "kms_key_arn"),
    ("s3-encryption", "kms_key_arn"),
    ("secret", "kms_key_arn"),
    ("secret", "replica.kms_key_arn"),
    ("sns-topic", "kms_key_arn"),
];

/// The rule.
pub(super) fn check(stack: &Stack<'_>, findings: &mut Vec<Finding>) {
    let mut refuse = |one: &Wanted, problem: String, remedy: &str| {
        findings.push(one.finding(Rule::Encryption, problem, remedy));
    };
    for (kind, field) in KEYS {
        for one in stack.of(kind).filter(|one| one.text(field).is_empty()) {
            refuse(
                one,
                format!("`{field}` names no key"),
                "encrypt it with the stack's key of its region",
            );
        }
    }
    for (kind, field, problem) in [
        (
            "global-cluster",
            "storage_encrypted",
            "its storage is not encrypted",
        ),
        ("kms-key", "rotation", "the key is never rotated"),
    ] {
        for one in stack.of(kind).filter(|one| !one.is_set(field)) {
            refuse(one, problem.to_owned(), "switch it on");
        }
    }
    for one in stack.of("s3-replication") {
        for rule in one
            .list("rules")
            .iter()
            .filter(|rule| !rule["replica_kms_key_arn"].is_string())
        {
            refuse(
                one,
                format!("rule {} leaves replicas without a key", rule["id"]),
                "name the key of the other region",
            );
        }
    }
    let (encrypted, policies) = (stack.by_bucket("s3-encryption"), stack.by_bucket("s3-policy"));
    for bucket in stack.of("s3-bucket").filter(|_| stack.whole) {
        let name = bucket.text("bucket");
        if !holds_packages(bucket) && !encrypted.contains_key(name) {
            refuse(
                bucket,
                "nothing says which key encrypts it".to_owned(),
                "add an `s3-encryption` with the stack's key",
            );
        }
        if !policies.contains_key(name) {
            refuse(
                bucket,
                "it can be reached without TLS".to_owned(),
                "add an `s3-policy` that denies it",
            );
        }
    }
    for policy in stack.of("s3-policy") {
        if !statements(policy.field("policy")).any(denies_plain_text) {
            refuse(
                policy,
                "it does not deny requests without TLS".to_owned(),
                "deny everything where `aws:SecureTransport` is false",
            );
        }
    }
    for group in stack.of("db-cluster-parameter-group") {
        if group.field("parameters")["rds.force_ssl"] != "1" {
            refuse(
                group,
                "the database takes connections without TLS".to_owned(),
                "set `rds.force_ssl` to 1",
            );
        }
    }
    for domain in stack.of("api-domain") {
        let policy = domain.text("security_policy");
        if !["TLS_1_2", "SecurityPolicy_TLS13"]
            .iter()
            .any(|good| policy.starts_with(good))
        {
            refuse(
                domain,
                format!("`{policy}` lets clients use broken versions of TLS"),
                "use TLS_1_2 or later",
            );
        }
    }
}

fn denies_plain_text(statement: &Value) -> bool {
    let condition = &statement["Condition"]["Bool"]["aws:SecureTransport"];
    let false_only = condition == "false" || condition == &Value::from(vec!["false"]);
    statement["Effect"] == "Deny" && false_only
}
