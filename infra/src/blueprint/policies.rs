//! What each function may do: inline policies, least privilege. ARNs follow from names, so a policy refers to no other
//! resource and can be there before any of them.

use continuity::names::Slot;
use serde_json::{Value, json};

use super::Context;
use crate::resources::iam_role;
use crate::resources::state_machine;

fn allow(sid: &str, actions: &[&str], resources: Value) -> Value {
    json!({"Sid": sid, "Effect": "Allow", "Action": actions, "Resource": resources})
}

fn allow_if(sid: &str, actions: &[&str], resources: Value, condition: Value) -> Value {
    let mut statement = allow(sid, actions, resources);
    statement["Condition"] = condition;
    statement
}

/// The managed policy lets a function make its log group. Ours is there before the function; after a teardown the last lines of
/// a call that was under way must not bring it back, without tags and retention.
fn no_new_log_groups() -> Value {
    json!({"Sid": "NoNewLogGroups", "Effect": "Deny", "Action": "logs:CreateLogGroup", "Resource": "*"})
}

fn table(context: &Context<'_>, region: &str, name: &str) -> String {
    format!("arn:aws:dynamodb:{region}:{}:table/{name}", context.account)
}

/// Reads the control record and API keys, writes and scans the journal of its own region, reads the database credentials.
pub fn payment_processor(context: &Context<'_>, slot: Slot) -> Vec<Value> {
    let (region, account, names) = (context.region(slot), context.account, &context.names);
    let secret = format!(
        "arn:aws:secretsmanager:{region}:{account}:secret:{}-*",
        names.database_secret()
    );
    vec![
        no_new_log_groups(),
        allow(
            "Control",
            &["dynamodb:GetItem"],
            json!(table(context, region, &names.control_table())),
        ),
        allow(
            "Journal",
            &["dynamodb:GetItem", "dynamodb:PutItem", "dynamodb:Query"],
            json!(table(context, region, &names.journal_table())),
        ),
        allow("Credentials", &["secretsmanager:GetSecretValue"], json!(secret)),
        allow_if(
            "DecryptCredentials",
            &["kms:Decrypt"],
            json!(format!("arn:aws:kms:{region}:{account}:key/*")),
            json!({"StringEquals": {"kms:ViaService": format!("secretsmanager.{region}.amazonaws.com")},
                "StringLike": {"kms:EncryptionContext:SecretARN": secret}}),
        ),
    ]
}

/// Reads the control table, writes its own observation and no other item, starts the failover of its own region.
pub fn health_probe(context: &Context<'_>, slot: Slot) -> Vec<Value> {
    let (region, account, names) = (context.region(slot), context.account, &context.names);
    let control = table(context, region, &names.control_table());
    let mut statements = vec![
        no_new_log_groups(),
        allow("ReadControl", &["dynamodb:GetItem"], json!(control)),
        allow_if(
            "WriteObservation",
            &["dynamodb:PutItem"],
            json!(control),
            json!({"ForAllValues:StringEquals": {"dynamodb:LeadingKeys": [format!("observation#{region}")]}}),
        ),
    ];
    if Slot::SERVING.contains(&slot) {
        let failover = names.state_machine("failover", slot);
        statements.push(allow(
            "StartFailover",
            &["states:StartExecution"],
            json!(state_machine::arn(region, account, &failover)),
        ));
        statements.push(allow(
            "SeeFailover",
            &["states:DescribeExecution"],
            json!(format!(
                "arn:aws:states:{region}:{account}:execution:{failover}:*"
            )),
        ));
    }
    statements
}

/// Creates, repairs and removes the stack in all its regions, and moves the active region. Bounded by names where a service
/// names its resources, by the stack's tag where it does not.
pub fn failover_coordinator(context: &Context<'_>) -> Vec<Value> {
    let mut statements = vec![look()];
    statements.extend(network(context));
    statements.extend(data(context));
    statements.extend(compute(context));
    statements.extend(roles(context));
    statements
}

/// What services list without asking which: reads that know no resource.
fn look() -> Value {
    allow(
        "Look",
        &[
            "ec2:Describe*",
            "rds:Describe*",
            "kms:ListAliases",
            "kms:ListKeys",
            "lambda:ListFunctions",
            "logs:DescribeLogGroups",
            "dynamodb:ListTables",
            "s3:ListAllMyBuckets",
            "iam:ListRoles",
            "route53:List*",
            "route53:Get*",
            "scheduler:ListSchedules",
            "states:ListStateMachines",
            "secretsmanager:ListSecrets",
        ],
        json!("*"),
    )
}

fn of_this_stack(context: &Context<'_>, key: &str) -> Value {
    json!({"StringEquals": {format!("aws:{key}/understudy:stack"): context.spec.suffix}})
}

fn network(context: &Context<'_>) -> Vec<Value> {
    let account = context.account;
    let ec2 = json!(format!("arn:aws:ec2:*:{account}:*"));
    vec![
        // A subnet, group or endpoint is created in a VPC: the new thing carries the tag in the request, the VPC its own.
        allow_if(
            "MakeNetwork",
            &["ec2:Create*"],
            ec2.clone(),
            of_this_stack(context, "RequestTag"),
        ),
        allow_if(
            "ChangeNetwork",
            &[
                "ec2:Create*",
                "ec2:Delete*",
                "ec2:Modify*",
                "ec2:AssociateRouteTable",
                "ec2:DisassociateRouteTable",
                "ec2:ReplaceRouteTableAssociation",
                "ec2:AuthorizeSecurityGroup*",
                "ec2:RevokeSecurityGroup*",
                "ec2:UpdateSecurityGroupRuleDescriptions*",
            ],
            ec2,
            of_this_stack(context, "ResourceTag"),
        ),
        // Tags at creation, and never on something that exists and is not ours.
        allow_if(
            "TagNetwork",
            &["ec2:CreateTags"],
            json!(format!("arn:aws:ec2:*:{account}:*/*")),
            json!({"StringLike": {"ec2:CreateAction": "*"}}),
        ),
    ]
}

fn data(context: &Context<'_>) -> Vec<Value> {
    let (account, suffix, names) = (context.account, &context.spec.suffix, &context.names);
    let tables: Vec<_> = [names.control_table(), names.journal_table()]
        .iter()
        .flat_map(|name| {
            [
                table(context, "*", name),
                format!("{}/*", table(context, "*", name)),
            ]
        })
        .collect();
    let mut buckets: Vec<_> = Slot::SERVING
        .map(|slot| format!("arn:aws:s3:::{}", names.data_bucket(slot, account)))
        .into();
    buckets.push(format!("arn:aws:s3:::artifacts-*-{suffix}-{account}"));
    let objects: Vec<_> = buckets.iter().map(|bucket| format!("{bucket}/*")).collect();
    let keys = json!(format!("arn:aws:kms:*:{account}:key/*"));
    vec![
        allow("Tables", &["dynamodb:*"], json!(tables)),
        allow(
            "Buckets",
            &[
                "s3:CreateBucket",
                "s3:DeleteBucket",
                "s3:DeleteBucketPolicy",
                "s3:GetBucket*",
                "s3:PutBucket*",
                "s3:ListBucket*",
                "s3:GetEncryptionConfiguration",
                "s3:PutEncryptionConfiguration",
                "s3:GetLifecycleConfiguration",
                "s3:PutLifecycleConfiguration",
                "s3:GetReplicationConfiguration",
                "s3:PutReplicationConfiguration",
            ],
            json!(buckets),
        ),
        allow(
            "EmptyBuckets",
            &[
                "s3:DeleteObject",
                "s3:DeleteObjectVersion",
                "s3:AbortMultipartUpload",
            ],
            json!(objects),
        ),
        allow(
            "Packages",
            &["s3:GetObject"],
            json!(format!("arn:aws:s3:::artifacts-*-{suffix}-{account}/*")),
        ),
        allow(
            "Databases",
            &["rds:*"],
            json!([
                format!("arn:aws:rds::{account}:global-cluster:{}", names.aurora_global()),
                format!("arn:aws:rds:*:{account}:cluster:aurora-*-{suffix}"),
                format!("arn:aws:rds:*:{account}:db:aurora-*-{suffix}*"),
                format!("arn:aws:rds:*:{account}:subgrp:*-{suffix}"),
                format!("arn:aws:rds:*:{account}:cluster-pg:*-{suffix}"),
            ]),
        ),
        allow(
            "Secrets",
            &["secretsmanager:*"],
            json!(format!(
                "arn:aws:secretsmanager:*:{account}:secret:{}-*",
                names.database_secret()
            )),
        ),
        allow("Passwords", &["secretsmanager:GetRandomPassword"], json!("*")),
        allow_if(
            "MakeKeys",
            &["kms:CreateKey", "kms:TagResource"],
            json!("*"),
            of_this_stack(context, "RequestTag"),
        ),
        allow_if("UseKeys", &["kms:*"], keys, of_this_stack(context, "ResourceTag")),
        allow(
            "Aliases",
            &["kms:CreateAlias", "kms:DeleteAlias", "kms:UpdateAlias"],
            json!(format!("arn:aws:kms:*:{account}:alias/*-{suffix}")),
        ),
    ]
}

fn compute(context: &Context<'_>) -> Vec<Value> {
    let (account, suffix) = (context.account, &context.spec.suffix);
    let zone = context.spec.zone();
    vec![
        allow(
            "Functions",
            &[
                "lambda:CreateFunction",
                "lambda:DeleteFunction*",
                "lambda:Get*",
                "lambda:UpdateFunction*",
                "lambda:PutFunctionConcurrency",
                "lambda:AddPermission",
                "lambda:RemovePermission",
                "lambda:ListTags",
                "lambda:TagResource",
                "lambda:InvokeFunction",
            ],
            json!(format!("arn:aws:lambda:*:{account}:function:*-{suffix}")),
        ),
        allow(
            "Logs",
            &[
                "logs:CreateLogGroup",
                "logs:DeleteLogGroup",
                "logs:PutRetentionPolicy",
                "logs:TagResource",
                "logs:ListTagsForResource",
            ],
            json!([
                format!("arn:aws:logs:*:{account}:log-group:/aws/lambda/*-{suffix}"),
                format!("arn:aws:logs:*:{account}:log-group:/aws/lambda/*-{suffix}:*"),
            ]),
        ),
        // An API's id is not known before it exists, and an import takes no tags.
        allow(
            "Apis",
            &[
                "apigateway:GET",
                "apigateway:POST",
                "apigateway:PUT",
                "apigateway:PATCH",
                "apigateway:DELETE",
            ],
            json!([
                "arn:aws:apigateway:*::/restapis",
                "arn:aws:apigateway:*::/restapis/*",
                "arn:aws:apigateway:*::/tags/*"
            ]),
        ),
        allow(
            "Zones",
            &[
                "route53:CreateHostedZone",
                "route53:DeleteHostedZone",
                "route53:UpdateHostedZoneComment",
                "route53:CreateHealthCheck",
                "route53:UpdateHealthCheck",
                "route53:DeleteHealthCheck",
                "route53:ChangeTagsForResource",
            ],
            json!("*"),
        ),
        allow_if(
            "Records",
            &["route53:ChangeResourceRecordSets"],
            json!("arn:aws:route53:::hostedzone/*"),
            json!({"ForAllValues:StringLike": {
                "route53:ChangeResourceRecordSetsNormalizedRecordNames": [zone, format!("*.{zone}")]}}),
        ),
        allow(
            "Schedules",
            &[
                "scheduler:CreateSchedule",
                "scheduler:UpdateSchedule",
                "scheduler:DeleteSchedule",
                "scheduler:GetSchedule",
            ],
            json!(format!(
                "arn:aws:scheduler:*:{account}:schedule/default/*-{suffix}"
            )),
        ),
        allow(
            "Workflows",
            &[
                "states:CreateStateMachine",
                "states:UpdateStateMachine",
                "states:DeleteStateMachine",
                "states:DescribeStateMachine",
                "states:TagResource",
                "states:ListTagsForResource",
            ],
            json!(format!("arn:aws:states:*:{account}:stateMachine:*-{suffix}")),
        ),
    ]
}

fn roles(context: &Context<'_>) -> Vec<Value> {
    let (account, suffix) = (context.account, &context.spec.suffix);
    let ours = json!(format!("arn:aws:iam::{account}:role{}*-{suffix}", iam_role::PATH));
    vec![
        allow(
            "Roles",
            &[
                "iam:CreateRole",
                "iam:DeleteRole",
                "iam:GetRole",
                "iam:UpdateRole",
                "iam:UpdateAssumeRolePolicy",
                "iam:TagRole",
                "iam:ListRoleTags",
                "iam:ListAttachedRolePolicies",
                "iam:ListRolePolicies",
                "iam:GetRolePolicy",
                "iam:PutRolePolicy",
                "iam:DeleteRolePolicy",
                "iam:DetachRolePolicy",
            ],
            ours.clone(),
        ),
        allow_if(
            "Attach",
            &["iam:AttachRolePolicy"],
            ours.clone(),
            json!({"ArnEquals": {"iam:PolicyARN": [super::roles::BASIC_EXECUTION, super::roles::VPC_EXECUTION]}}),
        ),
        allow_if(
            "PassRoles",
            &["iam:PassRole"],
            ours,
            json!({"StringEquals": {"iam:PassedToService": [
                "lambda.amazonaws.com", "states.amazonaws.com", "scheduler.amazonaws.com", "s3.amazonaws.com"]}}),
        ),
        allow_if(
            "ServiceRoles",
            &["iam:CreateServiceLinkedRole"],
            json!(format!("arn:aws:iam::{account}:role/aws-service-role/*")),
            json!({"StringEquals": {"iam:AWSServiceName": [
                "replication.dynamodb.amazonaws.com", "rds.amazonaws.com", "ops.apigateway.amazonaws.com"]}}),
        ),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::Spec;

    fn with_context<T>(test: impl FnOnce(&Context<'_>) -> T) -> T {
        let spec = Spec {
            suffix: "sixteen-long-one".into(),
            ..Spec::default()
        };
        test(&Context {
            spec: &spec,
            names: spec.names(),
            account: "000000000000",
        })
    }

    #[test]
    fn every_policy_fits_into_a_role() {
        with_context(|context| {
            // IAM counts all inline policies of a role, without white space.
            for statements in [
                failover_coordinator(context),
                payment_processor(context, Slot::Primary),
                health_probe(context, Slot::Dr),
            ] {
                let length = json!({"Version": "2012-10-17", "Statement": statements})
                    .to_string()
                    .len();
                assert!(length < 10_240, "{length}");
            }
        });
    }

    #[test]
    fn statement_ids_are_unique_and_alphanumeric() {
        with_context(|context| {
            let statements = failover_coordinator(context);
            let ids: std::collections::BTreeSet<_> = statements
                .iter()
                .filter_map(|statement| statement["Sid"].as_str())
                .collect();
            assert_eq!(ids.len(), statements.len());
            assert!(ids.iter().all(|id| id.chars().all(|c| c.is_ascii_alphanumeric())));
        });
    }

    #[test]
    fn the_functions_that_serve_touch_only_their_own_region() {
        with_context(|context| {
            for statements in [
                payment_processor(context, Slot::Dr),
                health_probe(context, Slot::Dr),
            ] {
                let text = Value::from(statements).to_string();
                assert!(
                    text.contains("us-east-2") && !text.contains("us-east-1"),
                    "{text}"
                );
            }
        });
    }

    #[test]
    fn the_witness_observer_starts_nothing() {
        with_context(|context| {
            let text = Value::from(health_probe(context, Slot::Witness)).to_string();
            assert!(!text.contains("states:"), "{text}");
        });
    }

    #[test]
    fn the_policies_are_what_was_reviewed() {
        let spec = Spec::default();
        let context = Context {
            spec: &spec,
            names: spec.names(),
            account: "000000000000",
        };
        let text = |statements: Vec<Value>| serde_json::to_string_pretty(&statements).unwrap_or_default();
        insta::assert_snapshot!(
            "payment-processor",
            text(payment_processor(&context, Slot::Primary))
        );
        insta::assert_snapshot!("health-probe", text(health_probe(&context, Slot::Primary)));
        insta::assert_snapshot!("failover-coordinator", text(failover_coordinator(&context)));
    }
}
