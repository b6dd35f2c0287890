//! Which rules look at which kind of resource: a row for each kind, an answer for each rule. A kind without a row, a row that
//! forgets a field, and a rule that looks at a kind whose row denies it, all fail a test.

use super::names::{Form, Style};

/// A kind's row.
#[derive(Debug)]
pub(super) struct Class {
    /// The kind's name.
    pub kind: &'static str,
    /// Its fields that are names in AWS, each with its form; none for a part of something that has the name.
    pub names: &'static [(&'static str, Form)],
    /// Which of these rules look at it.
    #[cfg_attr(not(test), allow(dead_code))]
    pub judged: [Judged; 7],
    /// What its counterpart in the other serving region must have in common with it.
    pub parity: Parity,
}

/// Whether a rule looks at a kind, in this order: network, open, encryption, policy, replication, password, alarm.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Judged {
    /// It does.
    Yes,
    /// It needs none: there is nothing in it that the rule could be about.
    No,
}

/// What two counterparts have in common.
#[derive(Debug)]
pub(super) enum Parity {
    /// Every field is in one of these.
    Equal {
        /// The same value. A dot leads inside.
        same: &'static [&'static str],
        /// The same entries and numbers; only texts may differ.
        alike: &'static [&'static str],
        /// Names, addresses, and what follows the slot.
        #[cfg_attr(not(test), allow(dead_code))]
        own: &'static [&'static str],
    },
    /// It has no counterpart, for this reason.
    Alone(#[cfg_attr(not(test), allow(dead_code))] &'static str),
}

use Judged::{No as N, Yes as Y};

const fn class(
    kind: &'static str,
    names: &'static [(&'static str, Form)],
    judged: [Judged; 7],
    parity: Parity,
) -> Class {
    Class {
        kind,
        names,
        judged,
        parity,
    }
}

const fn equal(
    same: &'static [&'static str],
    alike: &'static [&'static str],
    own: &'static [&'static str],
) -> Parity {
    Parity::Equal { same, alike, own }
}

/// A `Name` tag.
const TAG: Form = Form::new(1, 256, "", Style::Text);
const HOST: Form = Form::new(1, 255, "-.", Style::Host);
const RDS: Form = Form::new(1, 63, "-", Style::Identifier);
const ROLE: Form = Form::new(1, 64, "_+=,.@-", Style::Any);
const FUNCTION: Form = Form::new(1, 64, "-_", Style::Any);
const TABLE: Form = Form::new(3, 255, "_.-", Style::Any);
const BUCKET: Form = Form::new(3, 63, ".-", Style::Bucket);
const ALIAS: Form = Form::new(7, 256, "/_-", Style::Alias);
const STAGE: Form = Form::new(1, 128, "_-", Style::Any);
/// A domain that a certificate is for.
const CERTIFIED: Form = Form::new(1, 64, "-.", Style::Host);

#[rustfmt::skip]
const CLASSES: &[Class] = &[
    //                                             network, open, encryption, policy, replication, password, alarm
    class("alias-record", &[("name", HOST)], [N, N, N, N, N, N, N],
        equal(&["zone_id", "name"], &[], &["set_identifier", "failover", "target", "target_zone_id", "health_check_id"])),
    class("api-access-log", &[], [N, N, N, N, N, N, N],
        equal(&["stage", "format", "account_can_log"], &[], &["rest_api_id", "destination_arn"])),
    class("api-domain", &[("domain", HOST)], [N, N, Y, N, N, N, N],
        equal(&["domain", "security_policy", "tagged"], &[], &["certificate_arn"])),
    class("api-mapping", &[], [N, N, N, N, N, N, N],
        equal(&["domain", "stage"], &[], &["rest_api_id"])),
    class("api-stage", &[("stage", STAGE)], [N, N, N, N, N, N, N],
        equal(&["stage", "deployed", "rate_limit", "burst_limit", "metrics", "tracing", "tagged"], &[], &["rest_api_id", "document_sha256"])),
    class("certificate", &[("domain", CERTIFIED)], [N, N, N, N, N, N, N],
        equal(&["domain", "zone_id", "zone", "proven", "tagged"], &[], &[])),
    class("cloudwatch-alarm", &[("name", Form::new(1, 255, "", Style::Text))], [N, N, N, N, N, N, Y],
        equal(
            &["description", "metric.namespace", "metric.name", "statistic", "period_s", "evaluation_periods",
                "datapoints_to_alarm", "threshold", "comparison", "missing_data", "actions_enabled", "tagged"],
            &["metric", "alarm_actions", "ok_actions"], &["name"])),
    class("cloudwatch-dashboard", &[("name", Form::new(1, 255, "-_", Style::Any))], [N, N, N, N, N, N, N],
        Parity::Alone("one shows both regions")),
    class("db-cluster", &[("identifier", RDS)], [N, N, Y, N, Y, Y, N],
        equal(
            &["global_cluster", "engine_version", "backup_retention_days", "log_exports", "serverless",
                "copy_tags_to_snapshot", "deletion_protection", "database", "credentials", "member", "tagged"],
            &["security_groups"], &["identifier", "subnet_group", "parameter_group", "kms_key_arn", "writer"])),
    class("db-cluster-parameter-group", &[("name", Form::new(1, 255, "-", Style::Identifier))], [N, N, Y, N, N, N, N],
        equal(&["description", "family", "parameters", "tagged"], &[], &["name"])),
    class("db-instance", &[("identifier", RDS)], [N, Y, N, N, N, N, N],
        equal(&["class", "publicly_accessible", "minor_upgrades", "tagged"], &[], &["identifier", "cluster"])),
    class("db-snapshot", &[("identifier", RDS)], [N, N, N, N, N, N, N],
        Parity::Alone("a recovery makes it, of what the region that failed had")),
    class("db-subnet-group", &[("name", Form::new(1, 255, " ._-", Style::Any))], [N, N, N, N, N, N, N],
        equal(&["description", "tagged"], &["subnet_ids"], &["name", "vpc_id"])),
    class("dynamodb-table", &[("table", TABLE)], [N, N, N, N, Y, N, N],
        // A table with replicas has no counterpart: it is in all regions itself.
        equal(
            &["partition_key", "sort_key", "replicas", "strong", "on_demand", "deletion_protection", "tagged"], &[],
            &["table", "witness"])),
    class("fis-template", &[("name", TAG)], [N, N, N, N, N, N, N],
        equal(&["description", "fails_without_target", "tagged"], &["targets", "actions", "stop_alarms"],
            &["name", "role_arn"])),
    class("global-cluster", &[("identifier", RDS)], [N, N, Y, N, Y, N, N],
        Parity::Alone("one has members in both regions")),
    class("health-check", &[("host", HOST)], [N, N, N, N, N, N, N],
        equal(&["port", "path", "interval_s", "threshold", "inverted", "disabled", "tagged"], &[], &["host"])),
    class("hosted-zone", &[("domain", HOST)], [N, N, N, N, N, N, N],
        Parity::Alone("one zone has the records of both regions")),
    class("iam-policy", &[("name", Form::new(1, 128, "_+=,.@-", Style::Any))], [N, N, N, Y, N, N, N],
        equal(&["tagged"], &["document"], &["name"])),
    class("iam-role", &[("name", ROLE)], [N, Y, N, N, N, N, N],
        equal(&["description", "trust", "tagged"], &[], &["name"])),
    class("iam-role-attachments", &[], [N, N, N, Y, N, N, N],
        equal(&[], &["policies"], &["role"])),
    class("iam-role-policies", &[], [N, N, N, Y, N, N, N],
        equal(&[], &["policies"], &["role"])),
    class("kms-key", &[("alias", ALIAS)], [N, N, Y, N, N, N, N],
        Parity::Alone("its replica is a kind of its own; their numbers are compared")),
    class("kms-key-policy", &[], [N, Y, N, Y, N, N, N],
        equal(&[], &["policy"], &["key_arn"])),
    class("kms-replica-key", &[("alias", ALIAS)], [N, N, N, N, N, N, N],
        Parity::Alone("what it replicates is a kind of its own; their numbers are compared")),
    class("lambda-async-config", &[], [N, N, N, N, N, N, N],
        equal(&["retries", "max_age_s"], &["on_failure"], &["function"])),
    class("lambda-function", &[("name", FUNCTION), ("description", Form::new(0, 256, "", Style::Text))],
        [N, N, N, N, N, N, N],
        equal(
            &["description", "code_sha256", "source.package", "architecture", "runtime", "memory_mb", "timeout_s",
                "reserved_concurrency", "tracing", "tagged"],
            &["source", "environment", "subnet_ids", "security_group_ids"], &["name", "role_arn"])),
    class("lambda-permission", &[("statement_id", Form::new(1, 100, "-_", Style::Any))], [N, Y, N, N, N, N, N],
        equal(&["statement_id", "action", "principal"], &[], &["function", "source_arn"])),
    // CloudWatch Logs encrypts every group with a key of its own.
    class("log-group", &[("name", Form::new(1, 512, ".-_/#", Style::Any))], [N, N, N, N, N, N, N],
        equal(&["retention_days", "tagged"], &[], &["name"])),
    class("record-set", &[("name", HOST)], [N, N, N, N, N, N, N],
        equal(&["zone_id", "name", "ttl_s"], &[], &["set_identifier", "failover", "target", "health_check_id"])),
    // The API is for the world: it asks for keys itself.
    class("rest-api", &[("name", TAG)], [N, N, N, N, N, N, N],
        equal(&["tagged"], &["methods"], &["name", "document_sha256"])),
    class("route-table", &[("name", TAG)], [N, N, N, N, N, N, N],
        equal(&["tagged"], &["subnet_ids", "routes"], &["name", "vpc_id"])),
    class("s3-bucket", &[("bucket", BUCKET)], [N, Y, Y, N, Y, N, N],
        equal(&["tagged"], &[], &["bucket"])),
    class("s3-encryption", &[], [N, N, Y, N, N, N, N],
        equal(&["bucket_key"], &[], &["bucket", "kms_key_arn"])),
    class("s3-lifecycle", &[], [N, N, N, N, N, N, N],
        equal(&["rules"], &[], &["bucket"])),
    class("s3-ownership", &[], [N, N, N, N, N, N, N],
        equal(&["ownership"], &[], &["bucket"])),
    class("s3-policy", &[], [N, Y, Y, Y, N, N, N],
        equal(&[], &["policy"], &["bucket"])),
    class("s3-public-access-block", &[], [N, Y, N, N, N, N, N],
        equal(&["block_public_acls", "ignore_public_acls", "block_public_policy", "restrict_public_buckets"], &[],
            &["bucket"])),
    class("s3-replication", &[], [N, N, Y, N, Y, N, N],
        equal(&[], &["rules"], &["bucket", "role_arn"])),
    class("s3-versioning", &[], [N, N, N, N, Y, N, N],
        equal(&[], &[], &["bucket"])),
    class("schedule", &[("name", Form::new(1, 64, "-_.", Style::Any))], [N, N, N, N, N, N, N],
        equal(&["expression", "input", "retries", "max_age_s", "flexible", "enabled"], &[],
            &["name", "description", "target_arn", "role_arn"])),
    class("secret", &[("name", Form::new(1, 512, "/_+=.@-", Style::Any))], [N, N, Y, N, Y, Y, N],
        Parity::Alone("Secrets Manager keeps its replica")),
    class("security-group", &[("name", Form::new(1, 255, " ._-:/()#,@[]+=&;{}!$*", Style::Group)),
            ("description", Form::new(1, 255, " ._-:/()#,@[]+=&;{}!$*", Style::Any))],
        [N, Y, N, N, N, N, N],
        equal(&["description", "tagged"], &["ingress", "egress"], &["name", "vpc_id"])),
    class("sns-topic", &[("name", Form::new(1, 256, "-_", Style::Any))], [N, Y, Y, Y, N, N, N],
        equal(&["subscriptions", "tagged"], &["policy"], &["name", "kms_key_arn"])),
    class("state-machine", &[("name", Form::new(1, 80, "-_", Style::Any))], [N, N, N, N, N, N, N],
        equal(&["tagged"], &["definition"], &["name", "role_arn"])),
    class("subnet", &[("name", TAG)], [Y, Y, N, N, N, N, N],
        equal(&["public_addresses", "tagged"], &[], &["name", "vpc_id", "cidr", "zone"])),
    class("table-recovery", &[], [N, N, N, N, N, N, N],
        equal(&["table", "days"], &[], &[])),
    class("table-replica", &[], [N, N, N, N, Y, N, N],
        Parity::Alone("in the home region the table itself is it")),
    class("vpc", &[("name", TAG)], [Y, N, N, N, N, N, N],
        equal(&["dns_support", "dns_hostnames", "tagged"], &[], &["name", "cidr"])),
    class("vpc-endpoint", &[("name", TAG)], [N, N, N, N, N, N, N],
        equal(&["private_dns", "full_access", "tagged"], &["attachment"], &["name", "vpc_id", "service"])),
];

/// The row of a kind. The kinds that tests make up have none, and no rule looks at them.
pub(super) fn of(kind: &str) -> Option<&'static Class> {
    CLASSES
        .binary_search_by(|class| class.kind.cmp(kind))
        .ok()
        .map(|position| &CLASSES[position])
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::collections::BTreeSet;

    use super::*;
    use crate::check::{alarms, encryption, network, open, passwords, policies, replication};
    use crate::wanted::Wanted;

    #[test]
    fn every_kind_is_classified_for_every_rule() {
        let rows: Vec<&str> = CLASSES.iter().map(|class| class.kind).collect();
        let kinds: BTreeSet<&str> = crate::resources::listers()
            .iter()
            .map(|lister| lister.name())
            .collect();
        assert_eq!(rows, Vec::from_iter(kinds), "a row for each kind, sorted");
    }

    #[test]
    fn the_rules_look_at_the_kinds_that_the_rows_say() {
        let rules = [
            network::KINDS,
            open::KINDS,
            encryption::KINDS,
            policies::KINDS,
            replication::KINDS,
            passwords::KINDS,
            alarms::KINDS,
        ];
        for (column, looks_at) in rules.into_iter().enumerate() {
            let judged = CLASSES
                .iter()
                .filter(|class| class.judged[column] == Judged::Yes)
                .map(|class| class.kind);
            assert_eq!(Vec::from_iter(judged), looks_at, "column {column}");
        }
    }

    fn everything() -> Vec<Wanted> {
        let mut all = Vec::new();
        for domain in [None, Some("payments.example.com".to_owned())] {
            let spec = crate::spec::Spec {
                domain,
                ..crate::spec::Spec::default()
            };
            all.extend(
                crate::blueprint::blueprint(&spec, "000000000000")
                    .wanted()
                    .unwrap(),
            );
        }
        all
    }

    #[test]
    fn every_field_of_a_kind_with_a_counterpart_is_classified() {
        for one in everything() {
            let (same, alike, own) = match of(one.kind).unwrap().parity {
                Parity::Equal { same, alike, own } => (same, alike, own),
                Parity::Alone(why) => {
                    assert!(!why.is_empty(), "{}", one.kind);
                    continue;
                }
            };
            let classified: BTreeSet<&str> = same
                .iter()
                .chain(alike)
                .chain(own)
                .filter_map(|path| path.split('.').next())
                .collect();
            let fields: BTreeSet<&str> = one.spec.as_object().unwrap().keys().map(String::as_str).collect();
            assert_eq!(classified, fields, "{}", one.key);
        }
    }

    #[test]
    fn every_kind_is_in_a_stack_so_that_these_tests_see_it() {
        let seen: BTreeSet<&str> = everything().iter().map(|one| one.kind).collect();
        let unseen: Vec<&str> = CLASSES
            .iter()
            .map(|class| class.kind)
            .filter(|kind| !seen.contains(kind))
            .collect();
        // No blueprint has what only a recovery makes.
        assert_eq!(unseen, ["db-snapshot"]);
    }

    #[test]
    fn every_name_is_a_field() {
        for one in everything() {
            for (field, _) in of(one.kind).unwrap().names {
                assert!(one.field(field).is_string(), "{}: {field}", one.key);
            }
        }
    }
}
