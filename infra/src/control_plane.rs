//! Which changes go through control planes that exist in us-east-1 only, and so fail everywhere when that region does.

/// The region that hosts them.
pub const REGION: &str = "us-east-1";

/// Kinds whose changes need us-east-1, wherever the resource is. From "Appendix A" and "global services" of
/// <https://docs.aws.amazon.com/whitepapers/latest/aws-fault-isolation-boundaries/global-services.html>.
const KINDS: [(&str, &str); 11] = [
    ("iam-", "the control plane of IAM"),
    ("hosted-zone", "the control plane of Route 53"),
    ("record-set", "the control plane of Route 53"),
    ("alias-record", "the control plane of Route 53"),
    // Its proof is a record.
    ("certificate", "the control plane of Route 53"),
    ("health-check", "the control plane of Route 53"),
    // CreateBucket, DeleteBucket and the PutBucket* calls, replication, versioning and policy among them.
    ("s3-", "the configuration of S3 buckets"),
    // Making an API or an endpoint writes DNS names; a change may remake it.
    ("rest-api", "the DNS names of API Gateway"),
    ("api-domain", "the DNS names of API Gateway"),
    ("vpc-endpoint", "the DNS names of PrivateLink"),
    ("function-url", "the DNS names of Lambda function URLs"),
];

/// What of us-east-1 a change of this kind in `region` needs; `None` when it needs nothing there.
pub fn needs_us_east_1(kind: &str, region: &str) -> Option<&'static str> {
    let global = KINDS.iter().find(|(prefix, _)| kind.starts_with(prefix));
    match global {
        Some((_, what)) => Some(what),
        None if region == REGION => Some("the region itself"),
        None => None,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::blueprint::blueprint;
    use crate::spec::Spec;

    #[test]
    fn what_cannot_be_changed_elsewhere_while_us_east_1_fails_is_what_was_reviewed() {
        let stack = blueprint(&Spec::default(), "000000000000");
        let kinds: BTreeSet<&str> = stack
            .nodes()
            .iter()
            .map(|node| node.kind)
            .filter(|kind| needs_us_east_1(kind, "us-east-2").is_some())
            .collect();
        insta::assert_debug_snapshot!(kinds);
    }

    #[test]
    fn in_us_east_1_nothing_can_be_changed_and_elsewhere_what_is_regional_can() {
        assert!(needs_us_east_1("lambda-function", "us-east-1").is_some());
        for kind in [
            "lambda-function",
            "schedule",
            "route-table",
            "db-cluster",
            "dynamodb-table",
            "alarm",
        ] {
            assert_eq!(needs_us_east_1(kind, "us-east-2"), None, "{kind}");
        }
        assert_eq!(
            needs_us_east_1("iam-role-policies", "us-east-2"),
            Some("the control plane of IAM")
        );
    }
}
