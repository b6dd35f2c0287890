//! Replication: whatever holds data has it in both serving regions, and each direction is there, because either region may be the
//! one that is lost.

use std::collections::{BTreeSet, HashMap};

use serde_json::Value;

use super::{Finding, Rule, Stack, holds_counts, holds_packages};
use crate::wanted::Wanted;

#[cfg(test)]
pub(super) const KINDS: &[&str] = &[
    "db-cluster",
    "dynamodb-table",
    "global-cluster",
    "s3-bucket",
    "s3-replication",
    "s3-versioning",
    "secret",
    "table-replica",
];

/// The rule.
pub(super) fn check(stack: &Stack<'_>, findings: &mut Vec<Finding>) {
    secrets(stack, findings);
    tables(stack, findings);
    if stack.whole {
        buckets(stack, findings);
        clusters(stack, findings);
    }
}

fn buckets(stack: &Stack<'_>, findings: &mut Vec<Finding>) {
    let (versioned, replicated) = (
        stack.by_bucket("s3-versioning"),
        stack.by_bucket("s3-replication"),
    );
    let by_name: HashMap<&str, &Wanted> = stack
        .of("s3-bucket")
        .map(|one| (one.text("bucket"), one))
        .collect();
    for bucket in stack.of("s3-bucket").filter(|bucket| !holds_packages(bucket)) {
        let name = bucket.text("bucket");
        if !versioned.contains_key(name) {
            findings.push(bucket.finding(
                Rule::Replication,
                "it is not versioned, and S3 replicates versioned buckets only",
                "add an `s3-versioning`",
            ));
        }
        let targets: Vec<&str> = replicated.get(name).map(|one| targets(one)).unwrap_or_default();
        let other = targets.iter().find_map(|target| by_name.get(target));
        let Some(other) = other.filter(|other| other.region != bucket.region) else {
            findings.push(bucket.finding(
                Rule::Replication,
                "it is replicated to no bucket of the other region",
                "add an `s3-replication` with a rule that is enabled and for the whole bucket",
            ));
            continue;
        };
        let back = replicated.get(other.text("bucket"));
        if !back.is_some_and(|back| self::targets(back).contains(&name)) {
            findings.push(other.finding(
                Rule::Replication,
                format!("`{}` is replicated to it, but not back", bucket.key),
                "add the other direction: after a failover this is the bucket that is written",
            ));
        }
    }
}

/// The buckets that everything of a bucket goes to.
fn targets(replication: &Wanted) -> Vec<&str> {
    let rules = replication
        .list("rules")
        .iter()
        .filter(|rule| rule["enabled"] == true && rule["whole_bucket"] == true);
    rules
        .filter_map(|rule| rule["destination_arn"].as_str()?.rsplit(':').next())
        .collect()
}

fn secrets(stack: &Stack<'_>, findings: &mut Vec<Finding>) {
    for secret in stack.of("secret") {
        let region = secret.text("replica.region");
        if region.is_empty() || region == secret.region {
            findings.push(secret.finding(
                Rule::Replication,
                "it has no replica in the other region, whose functions could not log in after a failover",
                "set `replica.region` to the other serving region",
            ));
        }
    }
}

fn tables(stack: &Stack<'_>, findings: &mut Vec<Finding>) {
    let kept: BTreeSet<(&str, &str)> = stack
        .of("table-replica")
        .map(|one| (one.text("table"), one.region.as_str()))
        .collect();
    for table in stack.of("dynamodb-table") {
        let replicas: Vec<&str> = table
            .list("replicas")
            .iter()
            .filter_map(Value::as_str)
            .filter(|region| *region != table.region)
            .collect();
        if replicas.is_empty() && !holds_counts(table) {
            findings.push(table.finding(
                Rule::Replication,
                "it has no replica in another region",
                "add the other serving region to `replicas`",
            ));
        }
        let name = table.text("table");
        for region in replicas
            .iter()
            .filter(|region| stack.whole && !kept.contains(&(name, **region)))
        {
            findings.push(table.finding(
                Rule::Replication,
                format!(
                    "nothing looks after its replica in {region}, which inherits neither tags nor protection"
                ),
                "add a `table-replica` there",
            ));
        }
    }
}

fn clusters(stack: &Stack<'_>, findings: &mut Vec<Finding>) {
    for global in stack.of("global-cluster") {
        let members = stack.of("db-cluster").filter(|cluster| {
            cluster.text("global_cluster") == global.text("identifier") && cluster.is_set("member")
        });
        let regions: BTreeSet<&str> = members.map(|cluster| cluster.region.as_str()).collect();
        if regions.len() < 2 {
            findings.push(global.finding(
                Rule::Replication,
                format!("it has members in {} region(s)", regions.len()),
                "a global cluster needs a `db-cluster` in each serving region",
            ));
        }
    }
}
