//! What each function may do: inline policies, least privilege. ARNs follow from names, so a policy refers to no other
//! resource and can be there before any of them.

use continuity::names::Slot;
use serde_json::{Value, json};

use super::Context;
use crate::resources::iam_policy;
use crate::resources::iam_role;
use crate::resources::sns_topic;
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

/// Lets Lambda tell the region's alert topic, in the function's name, of an asynchronous call that failed for good.
fn tell_of_failures(context: &Context<'_>, slot: Slot) -> Vec<Value> {
    let (region, account) = (context.region(slot), context.account);
    let topic = sns_topic::arn(region, account, &context.names.alert_topic(slot));
    vec![
        allow("TellOfFailures", &["sns:Publish"], json!(topic)),
        allow_if(
            "EncryptForTopic",
            &["kms:Decrypt", "kms:GenerateDataKey"],
            json!(format!("arn:aws:kms:{region}:{account}:key/*")),
            json!({"StringEquals": {
                "kms:ViaService": format!("sns.{region}.amazonaws.com"), "kms:EncryptionContext:aws:sns:topicArn": topic}}),
        ),
    ]
}

/// With tracing on: lets Lambda send traces in the function's name, as AWSXRayDaemonWriteAccess does
/// (<https://docs.aws.amazon.com/lambda/latest/dg/services-xray.html>). What that allows beside it, to read sampling rules, is
/// for programs that sample themselves. X-Ray knows no resources here.
fn trace(context: &Context<'_>) -> Option<Value> {
    let actions = ["xray:PutTraceSegments", "xray:PutTelemetryRecords"];
    (context.spec.functions.tracing).then(|| allow("Trace", &actions, json!("*")))
}

/// Reads the control record and API keys, writes and scans the journal of its own region, counts requests, reads the database
/// credentials, writes statements and lets those who hold a link read them.
pub fn payment_processor(context: &Context<'_>, slot: Slot) -> Vec<Value> {
    let (region, account, names) = (context.region(slot), context.account, &context.names);
    let secret = format!(
        "arn:aws:secretsmanager:{region}:{account}:secret:{}-*",
        names.database_secret()
    );
    let bucket = format!("arn:aws:s3:::{}", names.data_bucket(slot, account));
    let mut statements = vec![
        no_new_log_groups(),
        allow(
            "Control",
            &["dynamodb:GetItem"],
            json!(table(context, region, &names.control_table())),
        ),
        allow(
            "Journal",
            &["dynamodb:PutItem", "dynamodb:Query"],
            json!(table(context, region, &names.journal_table())),
        ),
        allow(
            "RequestRates",
            &["dynamodb:UpdateItem"],
            json!(table(context, region, &names.request_rates_table(slot))),
        ),
        allow("Credentials", &["secretsmanager:GetSecretValue"], json!(secret)),
        allow_if(
            "DecryptCredentials",
            &["kms:Decrypt"],
            json!(format!("arn:aws:kms:{region}:{account}:key/*")),
            json!({"StringEquals": {"kms:ViaService": format!("secretsmanager.{region}.amazonaws.com")},
                "StringLike": {"kms:EncryptionContext:SecretARN": secret}}),
        ),
        allow(
            "Statements",
            &["s3:GetObject", "s3:PutObject"],
            json!(format!("{bucket}/statements/*")),
        ),
        // Under a bucket key the context is the bucket: <https://docs.aws.amazon.com/AmazonS3/latest/userguide/bucket-key.html>.
        allow_if(
            "EncryptStatements",
            &["kms:Decrypt", "kms:GenerateDataKey"],
            json!(format!("arn:aws:kms:{region}:{account}:key/*")),
            json!({"StringEquals": {"kms:ViaService": format!("s3.{region}.amazonaws.com"),
                "kms:EncryptionContext:aws:s3:arn": bucket}}),
        ),
    ];
    statements.extend(tell_of_failures(context, slot));
    statements.extend(trace(context));
    statements
}

/// Reads the control table, writes its own observation and no other item, starts the workflows that make its own region the
/// active one.
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
        let workflows = ["failover", "switchover"].map(|workflow| names.state_machine(workflow, slot));
        let machines = workflows
            .each_ref()
            .map(|name| state_machine::arn(region, account, name));
        let executions = workflows
            .each_ref()
            .map(|name| format!("arn:aws:states:{region}:{account}:execution:{name}:*"));
        statements.push(allow(
            "StartTakeover",
            &["states:StartExecution"],
            json!(machines),
        ));
        statements.push(allow(
            "SeeTakeover",
            &["states:DescribeExecution"],
            json!(executions),
        ));
        statements.extend(tell_of_failures(context, slot));
    }
    statements.extend(trace(context));
    statements
}

/// Creates, repairs and removes the stack in all its regions, and moves the active region. Bounded by names where a service
/// names its resources, by the stack's tag where it does not. What does not fit is in [`failover_coordinator_more`].
pub fn failover_coordinator(context: &Context<'_>) -> Vec<Value> {
    let mut statements = vec![look()];
    statements.extend(data(context));
    statements.extend(compute(context));
    statements.extend(trace(context));
    statements
}

/// The rest of what the coordinator may do: a managed policy, because the inline ones of a role are limited together.
pub fn failover_coordinator_more(context: &Context<'_>) -> Vec<Value> {
    let mut statements = network(context);
    statements.extend(alerts(context));
    statements.extend(faults(context));
    statements.extend(roles(context));
    statements
}

/// What DynamoDB asks of whoever adds or removes a replica, in the replica's region
/// (<https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/V2gt_IAM.html>).
const REPLICAS: [&str; 9] = [
    "dynamodb:BatchWriteItem",
    "dynamodb:CreateGlobalTableWitness",
    "dynamodb:CreateTableReplica",
    "dynamodb:DeleteGlobalTableWitness",
    "dynamodb:DeleteItem",
    "dynamodb:DeleteTableReplica",
    "dynamodb:Query",
    "dynamodb:Scan",
    "dynamodb:UpdateItem",
];

/// What services list without asking which: reads that know no resource. By pattern where a service has many of them: all of a
/// role's inline policies share 10,240 characters.
fn look() -> Value {
    allow(
        "Look",
        &[
            "ec2:Describe*",
            "rds:Describe*",
            "kms:ListAliases",
            "kms:ListKeys",
            "lambda:GetAccountSettings",
            "lambda:ListFunctions",
            "logs:DescribeLogGroups",
            "dynamodb:ListTables",
            "s3:ListAllMyBuckets",
            "iam:ListPolicies",
            "iam:ListRoles",
            "route53:GetHostedZone",
            "route53:List*",
            "scheduler:ListSchedules",
            "states:ListStateMachines",
            "secretsmanager:ListSecrets",
            "tag:GetResources",
            "cloudwatch:DescribeAlarms",
            "cloudwatch:ListDashboards",
            "sns:ListTopics",
            "acm:ListCertificates",
            "fis:ListExperiments",
            "fis:ListExperimentTemplates",
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
        // A subnet, group or endpoint is created in a VPC: the new thing carries the tag in the request, the VPC its own. Tags
        // are an action of their own: at creation, and later only on what is ours already.
        allow_if(
            "MakeNetwork",
            &[
                "ec2:CreateRouteTable",
                "ec2:CreateSecurityGroup",
                "ec2:CreateSubnet",
                "ec2:CreateTags",
                "ec2:CreateVpc",
                "ec2:CreateVpcEndpoint",
            ],
            ec2.clone(),
            of_this_stack(context, "RequestTag"),
        ),
        allow_if(
            "ChangeNetwork",
            &[
                "ec2:AssociateRouteTable",
                "ec2:AuthorizeSecurityGroupEgress",
                "ec2:AuthorizeSecurityGroupIngress",
                "ec2:CreateRouteTable",
                "ec2:CreateSecurityGroup",
                "ec2:CreateSubnet",
                "ec2:CreateTags",
                "ec2:CreateVpcEndpoint",
                "ec2:DeleteRoute",
                "ec2:DeleteRouteTable",
                "ec2:DeleteSecurityGroup",
                "ec2:DeleteSubnet",
                "ec2:DeleteVpc",
                "ec2:DeleteVpcEndpoints",
                "ec2:DisassociateRouteTable",
                "ec2:ModifySubnetAttribute",
                "ec2:ModifyVpcAttribute",
                "ec2:ModifyVpcEndpoint",
                "ec2:RevokeSecurityGroupEgress",
                "ec2:RevokeSecurityGroupIngress",
            ],
            ec2,
            of_this_stack(context, "ResourceTag"),
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
    let evidence: Vec<_> = buckets
        .iter()
        .map(|bucket| format!("{bucket}/{}*", crate::exercise::PREFIX))
        .collect();
    buckets.push(format!("arn:aws:s3:::artifacts-*-{suffix}-{account}"));
    let objects: Vec<_> = buckets.iter().map(|bucket| format!("{bucket}/*")).collect();
    let keys = json!(format!("arn:aws:kms:*:{account}:key/*"));
    vec![
        allow(
            "Tables",
            &[
                "dynamodb:BatchGetItem",
                "dynamodb:CreateTable",
                "dynamodb:DeleteTable",
                "dynamodb:DescribeContinuousBackups",
                "dynamodb:DescribeTable",
                "dynamodb:GetItem",
                "dynamodb:ListTagsOfResource",
                "dynamodb:PutItem",
                "dynamodb:TagResource",
                "dynamodb:UntagResource",
                "dynamodb:UpdateContinuousBackups",
                "dynamodb:UpdateTable",
            ],
            json!(tables),
        ),
        allow(
            "RequestRates",
            &[
                "dynamodb:CreateTable",
                "dynamodb:DeleteTable",
                "dynamodb:DescribeTable",
                "dynamodb:ListTagsOfResource",
                "dynamodb:TagResource",
                "dynamodb:UntagResource",
                "dynamodb:UpdateTable",
            ],
            json!(table(context, "*", &format!("request-rates-*-{suffix}"))),
        ),
        // DynamoDB asks for them when a table gets or loses a replica.
        allow("Replicas", &REPLICAS, json!(tables)),
        allow(
            "Buckets",
            &[
                "s3:CreateBucket",
                "s3:DeleteBucket",
                "s3:DeleteBucketPolicy",
                "s3:GetBucketOwnershipControls",
                "s3:GetBucketPolicy",
                "s3:GetBucketPublicAccessBlock",
                "s3:GetBucketTagging",
                "s3:GetBucketVersioning",
                "s3:PutBucketOwnershipControls",
                "s3:PutBucketPolicy",
                "s3:PutBucketPublicAccessBlock",
                "s3:PutBucketTagging",
                "s3:PutBucketVersioning",
                "s3:ListBucketMultipartUploads",
                "s3:ListBucketVersions",
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
            &["s3:DeleteObjectVersion", "s3:AbortMultipartUpload"],
            json!(objects),
        ),
        // The key that encrypts it is one of the stack's.
        allow("Evidence", &["s3:GetObject", "s3:PutObject"], json!(evidence)),
        allow(
            "Packages",
            &["s3:GetObject"],
            json!(format!("arn:aws:s3:::artifacts-*-{suffix}-{account}/*")),
        ),
        allow(
            "Databases",
            &[
                "rds:AddTagsToResource",
                "rds:CreateDBCluster",
                "rds:CreateDBClusterParameterGroup",
                "rds:CreateDBInstance",
                "rds:CreateDBSubnetGroup",
                "rds:CreateGlobalCluster",
                "rds:DeleteDBCluster",
                "rds:DeleteDBClusterParameterGroup",
                "rds:DeleteDBInstance",
                "rds:DeleteDBSubnetGroup",
                "rds:DeleteGlobalCluster",
                "rds:FailoverGlobalCluster",
                "rds:ListTagsForResource",
                "rds:ModifyDBCluster",
                "rds:ModifyDBClusterParameterGroup",
                "rds:ModifyDBInstance",
                "rds:ModifyDBSubnetGroup",
                "rds:ModifyGlobalCluster",
                "rds:RemoveFromGlobalCluster",
                "rds:ResetDBClusterParameterGroup",
                "rds:RestoreDBClusterFromSnapshot",
                "rds:SwitchoverGlobalCluster",
            ],
            json!([
                format!("arn:aws:rds::{account}:global-cluster:{}", names.aurora_global()),
                format!("arn:aws:rds:*:{account}:cluster:aurora-*-{suffix}"),
                format!("arn:aws:rds:*:{account}:db:aurora-*-{suffix}*"),
                format!("arn:aws:rds:*:{account}:subgrp:*-{suffix}"),
                format!("arn:aws:rds:*:{account}:cluster-pg:*-{suffix}"),
            ]),
        ),
        // Automated snapshots cannot be deleted by hand.
        allow(
            "LostTails",
            &[
                "rds:AddTagsToResource",
                "rds:CopyDBClusterSnapshot",
                "rds:DeleteDBClusterSnapshot",
                "rds:RestoreDBClusterFromSnapshot",
            ],
            json!([
                format!("arn:aws:rds:*:{account}:cluster-snapshot:lost-tail-*-{suffix}-*"),
                format!(
                    "arn:aws:rds:*:{account}:cluster-snapshot:rds:unplanned-global-failover-aurora-*-{suffix}-*"
                ),
            ]),
        ),
        allow(
            "Secrets",
            &[
                "secretsmanager:CreateSecret",
                "secretsmanager:DeleteSecret",
                "secretsmanager:DescribeSecret",
                "secretsmanager:GetSecretValue",
                "secretsmanager:RemoveRegionsFromReplication",
                "secretsmanager:ReplicateSecretToRegions",
                "secretsmanager:RestoreSecret",
                "secretsmanager:TagResource",
                "secretsmanager:UpdateSecret",
            ],
            json!(format!(
                "arn:aws:secretsmanager:*:{account}:secret:{}-*",
                names.database_secret()
            )),
        ),
        // A secret that is not there yet has no ending to its name.
        allow(
            "NoSecretYet",
            &["secretsmanager:DescribeSecret"],
            json!(format!(
                "arn:aws:secretsmanager:*:{account}:secret:{}",
                names.database_secret()
            )),
        ),
        allow_if(
            "MakeKeys",
            &["kms:CreateKey", "kms:TagResource"],
            json!("*"),
            of_this_stack(context, "RequestTag"),
        ),
        allow_if(
            "UseKeys",
            &[
                "kms:CancelKeyDeletion",
                "kms:CreateAlias",
                "kms:CreateGrant",
                "kms:Decrypt",
                "kms:DeleteAlias",
                "kms:DescribeKey",
                "kms:EnableKey",
                "kms:EnableKeyRotation",
                "kms:GenerateDataKey",
                "kms:GetKeyPolicy",
                "kms:GetKeyRotationStatus",
                "kms:ListResourceTags",
                "kms:PutKeyPolicy",
                "kms:ReplicateKey",
                "kms:ScheduleKeyDeletion",
                "kms:TagResource",
                "kms:UpdateAlias",
                "kms:UpdateKeyDescription",
            ],
            keys,
            of_this_stack(context, "ResourceTag"),
        ),
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
                "lambda:DeleteFunction",
                "lambda:DeleteFunctionConcurrency",
                "lambda:GetFunction",
                "lambda:GetPolicy",
                "lambda:PutFunctionConcurrency",
                "lambda:UpdateFunctionCode",
                "lambda:UpdateFunctionConfiguration",
                "lambda:DeleteFunctionEventInvokeConfig",
                "lambda:GetFunctionEventInvokeConfig",
                "lambda:PutFunctionEventInvokeConfig",
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
                format!("arn:aws:logs:*:{account}:log-group:/aws/rds/cluster/aurora-*-{suffix}/*"),
                format!("arn:aws:logs:*:{account}:log-group:/aws/apigateway/*-{suffix}"),
                format!("arn:aws:logs:*:{account}:log-group:/aws/apigateway/*-{suffix}:*"),
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
                "arn:aws:apigateway:*::/account",
                "arn:aws:apigateway:*::/domainnames",
                "arn:aws:apigateway:*::/domainnames/*",
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
                // A switchover that goes on as a failover.
                "states:StartExecution",
                // What still runs ends before its state machine goes.
                "states:ListExecutions",
            ],
            json!(format!("arn:aws:states:*:{account}:stateMachine:*-{suffix}")),
        ),
        // Whether the execution that holds the change still runs.
        allow(
            "Executions",
            &["states:DescribeExecution", "states:StopExecution"],
            json!(format!("arn:aws:states:*:{account}:execution:*-{suffix}:*")),
        ),
        allow_if(
            "Events",
            &["events:PutEvents"],
            json!(format!("arn:aws:events:*:{account}:event-bus/default")),
            json!({"StringEquals": {"events:source": "understudy"}}),
        ),
    ]
}

/// Alarms, the topics that they publish to, the dashboard, and certificates of the public name.
fn alerts(context: &Context<'_>) -> Vec<Value> {
    let (account, suffix) = (context.account, &context.spec.suffix);
    let certificates = json!(format!("arn:aws:acm:*:{account}:certificate/*"));
    vec![
        allow(
            "Alarms",
            &[
                "cloudwatch:PutMetricAlarm",
                "cloudwatch:DeleteAlarms",
                "cloudwatch:TagResource",
                "cloudwatch:ListTagsForResource",
            ],
            json!(format!("arn:aws:cloudwatch:*:{account}:alarm:*-{suffix}")),
        ),
        allow(
            "Dashboard",
            &[
                "cloudwatch:GetDashboard",
                "cloudwatch:PutDashboard",
                "cloudwatch:DeleteDashboards",
            ],
            json!(format!(
                "arn:aws:cloudwatch::{account}:dashboard/{}",
                context.names.dashboard()
            )),
        ),
        allow(
            "Topics",
            &[
                "sns:CreateTopic",
                "sns:DeleteTopic",
                "sns:GetTopicAttributes",
                "sns:SetTopicAttributes",
                "sns:ListSubscriptionsByTopic",
                "sns:Subscribe",
                "sns:Publish",
                "sns:TagResource",
                "sns:ListTagsForResource",
            ],
            json!(format!("arn:aws:sns:*:{account}:alerts-*-{suffix}")),
        ),
        allow_if(
            "MakeCertificates",
            &["acm:RequestCertificate", "acm:AddTagsToCertificate"],
            json!("*"),
            of_this_stack(context, "RequestTag"),
        ),
        allow(
            "SeeCertificates",
            &["acm:ListTagsForCertificate"],
            certificates.clone(),
        ),
        allow_if(
            "UseCertificates",
            &["acm:DescribeCertificate", "acm:DeleteCertificate"],
            certificates,
            of_this_stack(context, "ResourceTag"),
        ),
    ]
}

/// The experiments that isolate a region in a drill. What a template does is asked about, too: actions have no tags.
fn faults(context: &Context<'_>) -> Vec<Value> {
    let fis = |what: &str| json!(format!("arn:aws:fis:*:{}:{what}/*", context.account));
    let (templates, experiments) = (fis("experiment-template"), fis("experiment"));
    let change = ["fis:CreateExperimentTemplate", "fis:UpdateExperimentTemplate"];
    let actions =
        super::isolation::ACTIONS.map(|action| format!("arn:aws:fis:*:{}:action/{action}", context.account));
    vec![
        allow("FaultActions", &change, json!(actions)),
        allow_if(
            "MakeFaults",
            &["fis:CreateExperimentTemplate", "fis:TagResource"],
            templates.clone(),
            of_this_stack(context, "RequestTag"),
        ),
        allow_if(
            "UseFaults",
            &[
                "fis:DeleteExperimentTemplate",
                "fis:GetExperimentTemplate",
                "fis:StartExperiment",
                "fis:UpdateExperimentTemplate",
            ],
            templates,
            of_this_stack(context, "ResourceTag"),
        ),
        allow_if(
            "StartFaults",
            &["fis:StartExperiment", "fis:TagResource"],
            experiments.clone(),
            of_this_stack(context, "RequestTag"),
        ),
        allow_if(
            "EndFaults",
            &["fis:GetExperiment", "fis:StopExperiment"],
            experiments,
            of_this_stack(context, "ResourceTag"),
        ),
        // Says that the drill is watched.
        allow_if(
            "Metrics",
            &["cloudwatch:PutMetricData"],
            json!("*"),
            json!({"StringEquals": {"cloudwatch:namespace": super::observability::NAMESPACE}}),
        ),
    ]
}

fn roles(context: &Context<'_>) -> Vec<Value> {
    let (account, suffix) = (context.account, &context.spec.suffix);
    let ours = json!(format!("arn:aws:iam::{account}:role{}*-{suffix}", iam_role::PATH));
    let policies = iam_policy::arn(account, &format!("*-{suffix}"));
    vec![
        allow(
            "Roles",
            &[
                "iam:CreateRole",
                "iam:DeleteRole",
                "iam:UpdateRole",
                "iam:UpdateAssumeRolePolicy",
                "iam:TagRole",
                "iam:PutRolePolicy",
                "iam:DeleteRolePolicy",
                "iam:DetachRolePolicy",
            ],
            ours.clone(),
        ),
        // Of a role that is not there IAM knows the name only, without the path.
        allow(
            "SeeRoles",
            &[
                "iam:GetRole",
                "iam:GetRolePolicy",
                "iam:ListAttachedRolePolicies",
                "iam:ListRolePolicies",
                "iam:ListRoleTags",
                // Whether it may do what a takeover needs.
                "iam:SimulatePrincipalPolicy",
            ],
            json!(format!("arn:aws:iam::{account}:role/*-{suffix}")),
        ),
        allow_if(
            "Attach",
            &["iam:AttachRolePolicy"],
            ours.clone(),
            json!({"ArnLike": {"iam:PolicyARN": [
                super::roles::BASIC_EXECUTION, super::roles::VPC_EXECUTION, policies]}}),
        ),
        allow(
            "Policies",
            &[
                "iam:CreatePolicy",
                "iam:CreatePolicyVersion",
                "iam:DeletePolicy",
                "iam:DeletePolicyVersion",
                "iam:GetPolicy",
                "iam:GetPolicyVersion",
                "iam:ListPolicyTags",
                "iam:ListPolicyVersions",
                "iam:TagPolicy",
            ],
            json!(policies),
        ),
        allow_if(
            "PassRoles",
            &["iam:PassRole"],
            ours,
            json!({"StringEquals": {"iam:PassedToService": [
                "lambda.amazonaws.com", "states.amazonaws.com", "scheduler.amazonaws.com", "s3.amazonaws.com",
                "apigateway.amazonaws.com", "fis.amazonaws.com"]}}),
        ),
        allow_if(
            "ServiceRoles",
            &["iam:CreateServiceLinkedRole"],
            json!(format!("arn:aws:iam::{account}:role/aws-service-role/*")),
            json!({"StringEquals": {"iam:AWSServiceName": [
                "replication.dynamodb.amazonaws.com", "rds.amazonaws.com", "ops.apigateway.amazonaws.com",
                "fis.amazonaws.com"]}}),
        ),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::Spec;

    /// A stack with everything that adds to its policies.
    fn with_context<T>(test: impl FnOnce(&Context<'_>) -> T) -> T {
        let mut spec = Spec {
            suffix: "sixteen-long-one".into(),
            ..Spec::default()
        };
        spec.functions.tracing = true;
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
            // A managed policy by itself.
            let statements = failover_coordinator_more(context);
            let document = json!({"Version": "2012-10-17", "Statement": statements});
            let length = document.to_string().len();
            assert!(length < 6_144, "{length}");
        });
    }

    #[test]
    fn statement_ids_are_unique_and_alphanumeric() {
        with_context(|context| {
            let mut statements = failover_coordinator(context);
            statements.extend(failover_coordinator_more(context));
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
    fn only_with_tracing_on_may_the_functions_send_traces() {
        let may = |statements: Vec<Value>| Value::from(statements).to_string().contains("xray:");
        let each = |context: &Context<'_>| {
            [
                may(payment_processor(context, Slot::Primary)),
                may(health_probe(context, Slot::Witness)),
                may(failover_coordinator(context)),
            ]
        };
        assert_eq!(with_context(each), [true; 3]);
        let spec = Spec::default();
        let context = Context {
            spec: &spec,
            names: spec.names(),
            account: "000000000000",
        };
        assert_eq!(each(&context), [false; 3]);
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
        insta::assert_snapshot!(
            "failover-coordinator-more",
            text(failover_coordinator_more(&context))
        );
    }
}
