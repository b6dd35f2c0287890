//! What a person needs who runs `understudy`: to see everything of a stack, to make and remove its seed, to start its
//! workflows. The rest is the coordinator's. Printed by `understudy doctor --policy`.

use continuity::names::Slot;
use serde_json::{Value, json};

use super::Context;
use crate::resources::iam_role;
use crate::spec::Spec;

/// Reads that know no resource, for `plan`, `status`, the inventory of `down`, and `doctor`.
const LOOK: &[&str] = &[
    "acm:ListCertificates",
    "cloudwatch:DescribeAlarms",
    "cloudwatch:ListDashboards",
    "dynamodb:ListTables",
    "ec2:DescribeAvailabilityZones",
    "ec2:DescribeNetworkInterfaces",
    "ec2:DescribeRegions",
    "ec2:DescribeRouteTables",
    "ec2:DescribeSecurityGroups",
    "ec2:DescribeSubnets",
    "ec2:DescribeVpcAttribute",
    "ec2:DescribeVpcEndpoints",
    "ec2:DescribeVpcs",
    "fis:ListExperimentTemplates",
    "iam:ListRoles",
    "kms:ListAliases",
    "kms:ListKeys",
    "lambda:GetAccountSettings",
    "lambda:ListFunctions",
    "logs:DescribeLogGroups",
    "rds:DescribeDBClusterParameterGroups",
    "rds:DescribeDBClusterParameters",
    "rds:DescribeDBClusters",
    "rds:DescribeDBEngineVersions",
    "rds:DescribeDBInstances",
    "rds:DescribeDBSubnetGroups",
    "rds:DescribeGlobalClusters",
    "rds:DescribeOrderableDBInstanceOptions",
    "rds:ListTagsForResource",
    "route53:GetHostedZone",
    "route53:ListHealthChecks",
    "route53:ListHostedZones",
    "route53:ListHostedZonesByName",
    "route53:ListResourceRecordSets",
    "route53:ListTagsForResource",
    "s3:ListAllMyBuckets",
    "scheduler:ListSchedules",
    "secretsmanager:ListSecrets",
    "servicequotas:GetServiceQuota",
    "sns:ListTopics",
    "states:ListStateMachines",
    "tag:GetResources",
];

fn allow(sid: &str, actions: &[&str], resources: Value) -> Value {
    json!({"Sid": sid, "Effect": "Allow", "Action": actions, "Resource": resources})
}

/// The policy document of an operator of this stack.
pub fn policy(spec: &Spec, account: &str) -> Value {
    let context = Context {
        spec,
        names: spec.names(),
        account,
    };
    let mut statements = vec![allow("Look", LOOK, json!("*"))];
    statements.extend(see(&context));
    statements.extend(seed(&context));
    statements.extend(run(&context));
    json!({"Version": "2012-10-17", "Statement": statements})
}

/// The actions of a policy document, each with the resources it is for.
pub fn permissions(policy: &Value) -> Vec<(Vec<String>, Vec<String>)> {
    let words = |value: &Value| match value {
        Value::String(word) => vec![word.clone()],
        Value::Array(words) => words
            .iter()
            .filter_map(|w| w.as_str().map(str::to_owned))
            .collect(),
        _ => Vec::new(),
    };
    policy["Statement"]
        .as_array()
        .into_iter()
        .flatten()
        // What depends on the request cannot be asked for without one.
        .filter(|statement| statement["Condition"].is_null())
        .map(|statement| (words(&statement["Action"]), words(&statement["Resource"])))
        .collect()
}

fn tables(context: &Context<'_>) -> Vec<String> {
    let rates = Slot::SERVING.map(|slot| context.names.request_rates_table(slot));
    [context.names.control_table(), context.names.journal_table()]
        .iter()
        .chain(&rates)
        .map(|name| format!("arn:aws:dynamodb:*:{}:table/{name}", context.account))
        .collect()
}

fn artifact_buckets(context: &Context<'_>) -> Vec<String> {
    Slot::ALL
        .map(|slot| {
            format!(
                "arn:aws:s3:::{}",
                context.names.artifact_bucket(slot, context.account)
            )
        })
        .into()
}

/// Reads of what has a name.
fn see(context: &Context<'_>) -> Vec<Value> {
    let (account, suffix, names) = (context.account, &context.spec.suffix, &context.names);
    let mut buckets = artifact_buckets(context);
    buckets.extend(Slot::SERVING.map(|slot| format!("arn:aws:s3:::{}", names.data_bucket(slot, account))));
    let named = |what: &str| format!("arn:aws:{what}-{suffix}");
    vec![
        allow(
            "SeeTables",
            &[
                "dynamodb:DescribeContinuousBackups",
                "dynamodb:DescribeTable",
                "dynamodb:ListTagsOfResource",
            ],
            json!(tables(context)),
        ),
        allow(
            "SeeBuckets",
            &[
                "s3:GetBucketPolicy",
                "s3:GetBucketPublicAccessBlock",
                "s3:GetBucketTagging",
                "s3:GetBucketVersioning",
                "s3:GetEncryptionConfiguration",
                "s3:GetLifecycleConfiguration",
                "s3:GetReplicationConfiguration",
                "s3:ListBucket",
            ],
            json!(buckets),
        ),
        // Keys, APIs, certificates and experiments have ids that nobody knows before.
        allow(
            "SeeById",
            &[
                "acm:DescribeCertificate",
                "acm:ListTagsForCertificate",
                "apigateway:GET",
                "fis:GetExperimentTemplate",
                "kms:DescribeKey",
                "kms:GetKeyRotationStatus",
                "kms:ListResourceTags",
            ],
            json!([
                format!("arn:aws:acm:*:{account}:certificate/*"),
                "arn:aws:apigateway:*::/domainnames*",
                "arn:aws:apigateway:*::/restapis*",
                "arn:aws:apigateway:*::/tags/*",
                format!("arn:aws:fis:*:{account}:experiment-template/*"),
                format!("arn:aws:kms:*:{account}:key/*"),
            ]),
        ),
        allow(
            "SeeNamed",
            &[
                "cloudwatch:GetDashboard",
                "cloudwatch:ListTagsForResource",
                "iam:GetRole",
                "iam:GetRolePolicy",
                "iam:ListAttachedRolePolicies",
                "iam:ListRolePolicies",
                "iam:ListRoleTags",
                "lambda:GetFunction",
                "lambda:GetFunctionConcurrency",
                "lambda:GetFunctionEventInvokeConfig",
                "lambda:GetPolicy",
                "lambda:ListTags",
                "logs:ListTagsForResource",
                "scheduler:GetSchedule",
                "sns:GetTopicAttributes",
                "sns:ListSubscriptionsByTopic",
                "sns:ListTagsForResource",
                "states:DescribeStateMachine",
                "states:ListTagsForResource",
            ],
            json!([
                named(&format!("cloudwatch:*:{account}:alarm:*")),
                named(&format!("cloudwatch::{account}:dashboard/*")),
                named(&format!("iam::{account}:role/*")),
                format!("arn:aws:iam::{account}:role/aws-service-role/*"),
                named(&format!("lambda:*:{account}:function:*")),
                named(&format!("logs:*:{account}:log-group:*")),
                named(&format!("scheduler:*:{account}:schedule/default/*")),
                named(&format!("sns:*:{account}:*")),
                named(&format!("states:*:{account}:stateMachine:*")),
            ]),
        ),
        // Only that it is there and where its replicas are: never its value.
        allow(
            "SeeSecret",
            &["secretsmanager:DescribeSecret"],
            json!(format!(
                "arn:aws:secretsmanager:*:{account}:secret:{}*",
                names.database_secret()
            )),
        ),
    ]
}

/// What the seed is made of: artifact buckets, the control table, roles, coordinators, their log groups, state machines.
fn seed(context: &Context<'_>) -> Vec<Value> {
    let (account, suffix) = (context.account, &context.spec.suffix);
    let buckets = artifact_buckets(context);
    let objects: Vec<String> = buckets.iter().map(|bucket| format!("{bucket}/*")).collect();
    let roles = json!(format!("arn:aws:iam::{account}:role{}*-{suffix}", iam_role::PATH));
    let coordinator = |service: &str, before: &str| {
        format!("arn:aws:{service}:*:{account}:{before}failover-coordinator-*-{suffix}")
    };
    let mut attach = allow("AttachToRoles", &["iam:AttachRolePolicy"], roles.clone());
    attach["Condition"] =
        json!({"ArnEquals": {"iam:PolicyARN": [super::roles::BASIC_EXECUTION, super::roles::VPC_EXECUTION]}});
    let mut pass = allow("PassRoles", &["iam:PassRole"], roles.clone());
    pass["Condition"] =
        json!({"StringEquals": {"iam:PassedToService": ["lambda.amazonaws.com", "states.amazonaws.com"]}});
    let mut service_role = allow(
        "ServiceRole",
        &["iam:CreateServiceLinkedRole"],
        json!(format!("arn:aws:iam::{account}:role/aws-service-role/*")),
    );
    service_role["Condition"] =
        json!({"StringEquals": {"iam:AWSServiceName": "replication.dynamodb.amazonaws.com"}});
    vec![
        allow(
            "MakeBuckets",
            &[
                "s3:CreateBucket",
                "s3:DeleteBucket",
                "s3:DeleteBucketPolicy",
                "s3:ListBucketMultipartUploads",
                "s3:ListBucketVersions",
                "s3:PutBucketPolicy",
                "s3:PutBucketPublicAccessBlock",
                "s3:PutBucketTagging",
                "s3:PutBucketVersioning",
                "s3:PutEncryptionConfiguration",
                "s3:PutLifecycleConfiguration",
            ],
            json!(buckets),
        ),
        allow(
            "Packages",
            &[
                "s3:AbortMultipartUpload",
                "s3:DeleteObject",
                "s3:DeleteObjectVersion",
                "s3:GetObject",
                "s3:PutObject",
            ],
            json!(objects),
        ),
        allow(
            "MakeControlTable",
            &[
                "dynamodb:BatchWriteItem",
                "dynamodb:CreateGlobalTableWitness",
                "dynamodb:CreateTable",
                "dynamodb:CreateTableReplica",
                "dynamodb:DeleteGlobalTableWitness",
                "dynamodb:DeleteItem",
                "dynamodb:DeleteTable",
                "dynamodb:DeleteTableReplica",
                "dynamodb:GetItem",
                "dynamodb:PutItem",
                "dynamodb:Query",
                "dynamodb:Scan",
                "dynamodb:TagResource",
                "dynamodb:UntagResource",
                "dynamodb:UpdateContinuousBackups",
                "dynamodb:UpdateItem",
                "dynamodb:UpdateTable",
            ],
            json!(format!(
                "arn:aws:dynamodb:*:{account}:table/{}",
                context.names.control_table()
            )),
        ),
        allow(
            "MakeRoles",
            &[
                "iam:CreateRole",
                "iam:DeleteRole",
                "iam:DeleteRolePolicy",
                "iam:DetachRolePolicy",
                "iam:PutRolePolicy",
                "iam:TagRole",
                "iam:UntagRole",
                "iam:UpdateAssumeRolePolicy",
                "iam:UpdateRole",
            ],
            roles,
        ),
        attach,
        pass,
        service_role,
        allow(
            "MakeCoordinators",
            &[
                "lambda:CreateFunction",
                "lambda:DeleteFunction",
                "lambda:DeleteFunctionConcurrency",
                "lambda:PutFunctionConcurrency",
                "lambda:TagResource",
                "lambda:UntagResource",
                "lambda:UpdateFunctionCode",
                "lambda:UpdateFunctionConfiguration",
            ],
            json!(coordinator("lambda", "function:")),
        ),
        allow(
            "MakeLogGroups",
            &[
                "logs:CreateLogGroup",
                "logs:DeleteLogGroup",
                "logs:PutRetentionPolicy",
                "logs:TagResource",
                "logs:UntagResource",
            ],
            json!([
                coordinator("logs", "log-group:/aws/lambda/"),
                format!("{}:*", coordinator("logs", "log-group:/aws/lambda/")),
            ]),
        ),
        allow(
            "MakeWorkflows",
            &[
                "states:CreateStateMachine",
                "states:DeleteStateMachine",
                "states:TagResource",
                "states:UntagResource",
                "states:UpdateStateMachine",
            ],
            json!(format!("arn:aws:states:*:{account}:stateMachine:*-{suffix}")),
        ),
    ]
}

/// Starting workflows and seeing what becomes of them.
fn run(context: &Context<'_>) -> Vec<Value> {
    let (account, suffix) = (context.account, &context.spec.suffix);
    vec![
        allow(
            "StartWorkflows",
            &[
                "states:ListExecutions",
                "states:SendTaskSuccess",
                "states:StartExecution",
            ],
            json!(format!("arn:aws:states:*:{account}:stateMachine:*-{suffix}")),
        ),
        allow(
            "SeeExecutions",
            &[
                "states:DescribeExecution",
                "states:GetExecutionHistory",
                "states:StopExecution",
            ],
            json!(format!("arn:aws:states:*:{account}:execution:*-{suffix}:*")),
        ),
        // To compare this very list with what a person may do.
        allow(
            "AskWhatIsAllowed",
            &["iam:SimulatePrincipalPolicy"],
            json!(format!("arn:aws:iam::{account}:*")),
        ),
    ]
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::collections::BTreeSet;

    use super::*;

    const ACCOUNT: &str = "123456789012";

    #[test]
    fn the_policy_is_what_was_reviewed() {
        let text = serde_json::to_string_pretty(&policy(&Spec::default(), ACCOUNT)).unwrap();
        insta::assert_snapshot!(text);
    }

    #[test]
    fn nothing_that_writes_is_allowed_on_everything() {
        let document = policy(&Spec::default(), ACCOUNT);
        let reads = ["Describe", "Get", "List"];
        for statement in document["Statement"].as_array().unwrap() {
            for action in statement["Action"].as_array().unwrap() {
                let action = action.as_str().unwrap();
                assert!(!action.contains('*'), "{action}");
                let verb = action.split_once(':').unwrap().1;
                let everything = statement["Resource"] == "*";
                assert!(
                    !everything || reads.iter().any(|read| verb.starts_with(read)),
                    "{action}"
                );
            }
        }
    }

    #[test]
    fn an_operator_reads_no_secret() {
        let text = policy(&Spec::default(), ACCOUNT).to_string();
        for action in ["GetSecretValue", "kms:Decrypt", "GetRandomPassword"] {
            assert!(!text.contains(action), "{action}");
        }
    }

    #[test]
    fn statement_ids_are_unique_and_another_stack_is_out_of_reach() {
        let document = policy(&Spec::default(), ACCOUNT);
        let mut seen = BTreeSet::new();
        for statement in document["Statement"].as_array().unwrap() {
            assert!(seen.insert(statement["Sid"].as_str().unwrap().to_owned()));
            let writes = statement["Sid"].as_str().unwrap().starts_with("Make");
            assert!(
                !writes || statement["Resource"].to_string().contains("dev"),
                "{statement}"
            );
        }
    }

    #[test]
    fn it_fits_into_a_role() {
        // All inline policies of a role have 10,240 characters, white space not counted.
        let spec = Spec {
            suffix: "sixteencharacter".into(),
            ..Spec::default()
        };
        let length = policy(&spec, ACCOUNT).to_string().len();
        assert!(length <= 10_240, "{length}");
    }
}
