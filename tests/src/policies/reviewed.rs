//! Grants that no end-to-end run in a local cloud is known to use, and why each is there all the same. A grant that is used must
//! not be here, nor one that is not granted: the list can only shrink.

const API_GATEWAY: &str = "API Gateway writes the logs itself, which the emulator does not, and refuses a role with less than its managed policy.";
const DOMAIN: &str =
    "Only a stack with a domain has certificates, and nobody in a local cloud answers for its zone.";
const UNTAGGED: &str =
    "A function under one of our names that the tagging API does not show: one that lost its tags.";
const SEED: &str = "The command line makes and removes the policy with the seed; the coordinator makes it again when somebody deleted it.";
const LINKED: &str = "AWS asks when it makes its service-linked roles, the first time in an account.";
const ALIAS: &str =
    "An alias that leads to another key: the key is found by its alias, so that key would be taken for ours.";
const CONCURRENCY: &str =
    "A function whose reserved concurrency was set by hand, or taken out of the configuration.";
const RESTORE: &str = "A secret whose deletion was begun, by a teardown that was killed and given up.";
const LATE: &str = "Lambda tells the topic in the name of the function when an asynchronous call has failed for good. The emulator asks nobody.";
const TRACES: &str = "Lambda and its daemon send the traces in the name of the function. The emulator has neither daemon nor X-Ray.";
const ATTEMPT: &str = "The probe looks at an execution that is there already; whether it looks twice before the takeover is a matter of time.";
const SCHEDULE: &str = "A schedule asks when it comes round: the probes' after a minute or more, the reconcile's in this run never.";

const EVALUATION: &str = "Only a readiness evaluation asks; its schedule does not come round in this run, and `tests/tests/exercises/readiness.rs` has it asked.";
const FAULTS: &str = "The edge is Fault Injection Service in a local cloud, and asks nobody: the emulator never sees the call.";
const EXPERIMENT: &str = "Fault Injection Service takes the role, and breaks things with it. In a local cloud the edge does, without a role.";
const LOST_TAIL: &str = "A recovery after a failover asks, when the old region has stood by again for a while; in this run the stack goes first.";
const RUNNING: &str =
    "A state machine is deleted while an execution of it runs; whether one does is a matter of time.";
const WATCHED: &str = "Only the isolation of a region in a drill tells its stop alarm.";

/// Purpose of the role, action, reason.
pub const UNUSED: &[(&str, &str, &str)] = &[
    ("api-logs", "logs:CreateLogGroup", API_GATEWAY),
    ("api-logs", "logs:CreateLogStream", API_GATEWAY),
    ("api-logs", "logs:DescribeLogGroups", API_GATEWAY),
    ("api-logs", "logs:DescribeLogStreams", API_GATEWAY),
    ("api-logs", "logs:FilterLogEvents", API_GATEWAY),
    ("api-logs", "logs:GetLogEvents", API_GATEWAY),
    ("api-logs", "logs:PutLogEvents", API_GATEWAY),
    ("failover-coordinator", "acm:AddTagsToCertificate", DOMAIN),
    ("failover-coordinator", "acm:DeleteCertificate", DOMAIN),
    ("failover-coordinator", "acm:DescribeCertificate", DOMAIN),
    ("failover-coordinator", "acm:ListTagsForCertificate", DOMAIN),
    ("failover-coordinator", "acm:RequestCertificate", DOMAIN),
    ("failover-coordinator", "rds:CopyDBClusterSnapshot", LOST_TAIL),
    ("failover-coordinator", "rds:DeleteDBClusterSnapshot", LOST_TAIL),
    (
        "failover-coordinator",
        "rds:RestoreDBClusterFromSnapshot",
        LOST_TAIL,
    ),
    ("failover-coordinator", "lambda:ListTags", UNTAGGED),
    ("failover-coordinator", "iam:CreatePolicy", SEED),
    ("failover-coordinator", "iam:DeletePolicy", SEED),
    ("failover-coordinator", "iam:TagPolicy", SEED),
    ("failover-coordinator", "iam:CreateServiceLinkedRole", LINKED),
    ("failover-coordinator", "kms:UpdateAlias", ALIAS),
    (
        "failover-coordinator",
        "lambda:DeleteFunctionConcurrency",
        CONCURRENCY,
    ),
    ("failover-coordinator", "secretsmanager:RestoreSecret", RESTORE),
    ("failover-coordinator", "sns:Publish", LATE),
    ("failover-coordinator", "fis:CreateExperimentTemplate", FAULTS),
    ("failover-coordinator", "fis:DeleteExperimentTemplate", FAULTS),
    ("failover-coordinator", "fis:GetExperiment", FAULTS),
    ("failover-coordinator", "fis:GetExperimentTemplate", FAULTS),
    ("failover-coordinator", "fis:ListExperiments", FAULTS),
    ("failover-coordinator", "fis:ListExperimentTemplates", FAULTS),
    ("failover-coordinator", "fis:StartExperiment", FAULTS),
    ("failover-coordinator", "fis:StopExperiment", FAULTS),
    ("failover-coordinator", "fis:TagResource", FAULTS),
    ("failover-coordinator", "fis:UpdateExperimentTemplate", FAULTS),
    ("failover-coordinator", "cloudwatch:PutMetricData", WATCHED),
    ("isolate", "dynamodb:DeleteResourcePolicy", EXPERIMENT),
    ("isolate", "dynamodb:DescribeTable", EXPERIMENT),
    ("isolate", "dynamodb:GetResourcePolicy", EXPERIMENT),
    ("isolate", "dynamodb:InjectError", EXPERIMENT),
    ("isolate", "dynamodb:PutResourcePolicy", EXPERIMENT),
    ("isolate", "ec2:CreateNetworkAcl", EXPERIMENT),
    ("isolate", "ec2:CreateNetworkAclEntry", EXPERIMENT),
    ("isolate", "ec2:CreateTags", EXPERIMENT),
    ("isolate", "ec2:DeleteNetworkAcl", EXPERIMENT),
    ("isolate", "ec2:DescribeManagedPrefixLists", EXPERIMENT),
    ("isolate", "ec2:DescribeNetworkAcls", EXPERIMENT),
    ("isolate", "ec2:DescribeSubnets", EXPERIMENT),
    ("isolate", "ec2:DescribeVpcs", EXPERIMENT),
    ("isolate", "ec2:ReplaceNetworkAclAssociation", EXPERIMENT),
    ("isolate", "tag:GetResources", EXPERIMENT),
    ("health-probe", "kms:Decrypt", LATE),
    ("health-probe", "kms:GenerateDataKey", LATE),
    ("health-probe", "sns:Publish", LATE),
    ("health-probe", "states:DescribeExecution", ATTEMPT),
    ("failover-coordinator", "xray:PutTelemetryRecords", TRACES),
    ("failover-coordinator", "xray:PutTraceSegments", TRACES),
    ("health-probe", "xray:PutTelemetryRecords", TRACES),
    ("health-probe", "xray:PutTraceSegments", TRACES),
    ("payment-processor", "xray:PutTelemetryRecords", TRACES),
    ("payment-processor", "xray:PutTraceSegments", TRACES),
    ("payment-processor", "sns:Publish", LATE),
    ("expiry-schedule", "lambda:InvokeFunction", SCHEDULE),
    ("probe-schedule", "lambda:InvokeFunction", SCHEDULE),
    ("reconcile-schedule", "states:StartExecution", SCHEDULE),
    ("readiness-schedule", "states:StartExecution", SCHEDULE),
    ("drill-schedule", "states:StartExecution", SCHEDULE),
    ("failover-coordinator", "iam:SimulatePrincipalPolicy", EVALUATION),
    ("failover-coordinator", "lambda:GetAccountSettings", EVALUATION),
    ("failover-coordinator", "states:StopExecution", RUNNING),
];

/// Those of [`UNUSED`] that a slower run may use: by then the schedule has come round, or the probe has looked again.
pub const A_MATTER_OF_TIME: &[(&str, &str)] = &[
    ("expiry-schedule", "lambda:InvokeFunction"),
    ("probe-schedule", "lambda:InvokeFunction"),
    ("health-probe", "states:DescribeExecution"),
    ("failover-coordinator", "rds:CopyDBClusterSnapshot"),
    ("failover-coordinator", "rds:DeleteDBClusterSnapshot"),
    ("failover-coordinator", "rds:RestoreDBClusterFromSnapshot"),
    ("failover-coordinator", "states:StopExecution"),
];
