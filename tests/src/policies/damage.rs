//! What an operator breaks behind the stack's back, so that mending it needs one action of the coordinator. What making or
//! removing the stack needs anyway is not here.

use std::pin::Pin;

use aws_sdk_ec2::types::{IpPermission, IpRange, Tag};
use aws_sdk_rds::types::{ApplyMethod, Parameter};
use bootstrap::stack::Stack;
use continuity::error::chain;
use continuity::names::Slot;
use infra::resources::{iam_policy, sns_topic, state_machine};

/// Something to break, and the action that mends it.
pub struct Damage {
    /// The action.
    pub action: &'static str,
    /// Breaks it, or says why that did not work.
    pub make: fn(Live) -> Pin<Box<dyn Future<Output = Result<(), String>> + Send>>,
}

/// Clients, and how to find what is in the stack.
#[derive(Clone)]
pub struct Live {
    stack: Stack,
    home: String,
    standby: String,
}

impl Live {
    /// Of this stack.
    pub fn of(stack: &Stack) -> Live {
        Live {
            home: stack.home().to_owned(),
            standby: stack.spec.regions.of(Slot::Dr).to_owned(),
            stack: stack.clone(),
        }
    }

    /// The ARN of the resource with this key, by tag.
    async fn arn(&self, region: &str, key: &str) -> String {
        let request = self.stack.cloud.tagging(region).get_resources();
        let answer = request.send().await.expect("the tagging API answers");
        let found = answer.resource_tag_mapping_list().iter().find(|mapping| {
            let mut tags = mapping.tags().iter();
            tags.any(|tag| tag.key() == "understudy:resource" && tag.value() == key)
        });
        let arn = found.and_then(|mapping| mapping.resource_arn());
        arn.unwrap_or_else(|| panic!("nothing in {region} is tagged `{key}`"))
            .to_owned()
    }

    /// The last part of its ARN.
    async fn id(&self, region: &str, key: &str) -> String {
        let arn = self.arn(region, key).await;
        arn.rsplit(['/', ':']).next().unwrap_or_default().to_owned()
    }
}

impl Live {
    /// The id of the key with this blueprint key that is not on its way out: those of earlier deployments keep their tags.
    async fn key(&self, region: &str, key: &str) -> String {
        let request = self.stack.cloud.tagging(region).get_resources();
        let answer = request.send().await.expect("the tagging API answers");
        for mapping in answer.resource_tag_mapping_list() {
            let mut tags = mapping.tags().iter();
            let ours = tags.any(|tag| tag.key() == "understudy:resource" && tag.value() == key);
            let arn = mapping.resource_arn().unwrap_or_default();
            if !ours || !arn.contains(":kms:") {
                continue;
            }
            let described = self
                .stack
                .cloud
                .kms(region)
                .describe_key()
                .key_id(arn)
                .send()
                .await;
            let metadata = described.expect("the key is there").key_metadata;
            if metadata.is_some_and(|key| key.deletion_date.is_none()) {
                return arn.rsplit('/').next().unwrap_or_default().to_owned();
            }
        }
        panic!("no key in {region} is tagged `{key}`")
    }
}

macro_rules! damage {
    ($action:literal, |$live:ident| $request:expr) => {
        Damage {
            action: $action,
            make: |$live| {
                Box::pin(async move {
                    let outcome = $request.send().await;
                    outcome
                        .map(drop)
                        .map_err(|error| format!("damage for {}: {}", $action, chain(&error)))
                })
            },
        }
    };
}

/// One for each action that only mending needs.
pub const ALL: &[Damage] = &[
    damage!("ec2:DeleteRoute", |live| {
        let request = live.stack.cloud.ec2(&live.home).create_internet_gateway();
        let gateway = request.send().await.expect("it can be made").internet_gateway;
        let gateway = gateway.and_then(|gateway| gateway.internet_gateway_id);
        let table = live.id(&live.home, "route-table.primary").await;
        let request = live
            .stack
            .cloud
            .ec2(&live.home)
            .create_route()
            .route_table_id(table);
        request
            .destination_cidr_block("0.0.0.0/0")
            .set_gateway_id(gateway)
    }),
    damage!("ec2:ModifyVpcEndpoint", |live| {
        let endpoint = live.id(&live.home, "vpc-endpoint.secretsmanager.primary").await;
        let subnet = live.id(&live.home, "subnet.b.primary").await;
        let request = live.stack.cloud.ec2(&live.home).modify_vpc_endpoint();
        request.vpc_endpoint_id(endpoint).remove_subnet_ids(subnet)
    }),
    damage!("ec2:ModifySubnetAttribute", |live| {
        let subnet = live.id(&live.home, "subnet.a.primary").await;
        let public = aws_sdk_ec2::types::AttributeBooleanValue::builder()
            .value(true)
            .build();
        let request = live.stack.cloud.ec2(&live.home).modify_subnet_attribute();
        request.subnet_id(subnet).map_public_ip_on_launch(public)
    }),
    damage!("ec2:RevokeSecurityGroupIngress", |live| {
        let group = live.id(&live.home, "security-group.database.primary").await;
        let anywhere = IpRange::builder().cidr_ip("0.0.0.0/0").build();
        let rule = IpPermission::builder()
            .ip_protocol("tcp")
            .from_port(5432)
            .to_port(5432);
        let rule = rule.ip_ranges(anywhere).build();
        let request = live
            .stack
            .cloud
            .ec2(&live.home)
            .authorize_security_group_ingress();
        request.group_id(group).ip_permissions(rule)
    }),
    damage!("ec2:CreateTags", |live| {
        let subnet = live.id(&live.home, "subnet.a.primary").await;
        let request = live.stack.cloud.ec2(&live.home).delete_tags().resources(subnet);
        request.tags(Tag::builder().key("Team").build())
    }),
    damage!("rds:ModifyDBCluster", |live| {
        let request = live
            .stack
            .cloud
            .rds(&live.home)
            .modify_db_cluster()
            .apply_immediately(true);
        let request = request.db_cluster_identifier(live.stack.names().aurora_cluster(Slot::Primary));
        request.backup_retention_period(1)
    }),
    damage!("rds:ModifyDBInstance", |live| {
        let instance = format!("{}-1", live.stack.names().aurora_cluster(Slot::Dr));
        let request = live.stack.cloud.rds(&live.standby).modify_db_instance();
        request
            .db_instance_identifier(instance)
            .auto_minor_version_upgrade(true)
    }),
    damage!("rds:ModifyDBSubnetGroup", |live| {
        let name = live.stack.names().aurora_cluster(Slot::Primary);
        let subnets = vec![
            live.id(&live.home, "subnet.a.primary").await,
            live.id(&live.home, "subnet.b.primary").await,
        ];
        let request = live.stack.cloud.rds(&live.home).modify_db_subnet_group();
        let request = request.db_subnet_group_name(name).set_subnet_ids(Some(subnets));
        request.db_subnet_group_description("somebody's")
    }),
    damage!("rds:ModifyGlobalCluster", |live| {
        let request = live.stack.cloud.rds(&live.home).modify_global_cluster();
        let request = request.global_cluster_identifier(live.stack.names().aurora_global());
        request.deletion_protection(true)
    }),
    damage!("rds:ResetDBClusterParameterGroup", |live| {
        let parameter = Parameter::builder()
            .parameter_name("log_statement")
            .parameter_value("all");
        let parameter = parameter.apply_method(ApplyMethod::Immediate).build();
        let request = live
            .stack
            .cloud
            .rds(&live.standby)
            .modify_db_cluster_parameter_group();
        let request = request.db_cluster_parameter_group_name(live.stack.names().aurora_cluster(Slot::Dr));
        request.parameters(parameter)
    }),
    damage!("lambda:UpdateFunctionConfiguration", |live| {
        let request = live
            .stack
            .cloud
            .lambda(&live.standby)
            .update_function_configuration();
        request
            .function_name(live.stack.names().health_probe(Slot::Dr))
            .memory_size(256)
    }),
    damage!("lambda:UpdateFunctionCode", |live| {
        let bucket = live
            .stack
            .names()
            .artifact_bucket(Slot::Witness, &live.stack.account);
        let witness = live.stack.spec.regions.of(Slot::Witness).to_owned();
        let listing = live
            .stack
            .cloud
            .s3(&witness)
            .list_objects_v2()
            .bucket(&bucket)
            .send()
            .await;
        let listing = listing.expect("the bucket is there");
        let other = listing.contents().iter().filter_map(|one| one.key());
        let other = other
            .filter(|key| key.contains("payment-processor"))
            .max()
            .expect("its package is there");
        let request = live.stack.cloud.lambda(&witness).update_function_code();
        let request = request.function_name(live.stack.names().health_probe(Slot::Witness));
        request.s3_bucket(&bucket).s3_key(other)
    }),
    damage!("iam:CreatePolicyVersion", |live| {
        let name = live.stack.names().failover_coordinator(Slot::Dr);
        let nothing = r#"{"Version": "2012-10-17", "Statement": [{"Sid": "Nothing", "Effect": "Allow",
            "Action": ["sts:GetCallerIdentity"], "Resource": "*"}]}"#;
        let request = live
            .stack
            .cloud
            .iam(&live.home)
            .create_policy_version()
            .set_as_default(true);
        request
            .policy_arn(iam_policy::arn(&live.stack.account, &name))
            .policy_document(nothing)
    }),
    damage!("iam:UpdateAssumeRolePolicy", |live| {
        let anybody = r#"{"Version": "2012-10-17", "Statement": [{"Effect": "Allow",
            "Principal": {"AWS": "000000000000"}, "Action": "sts:AssumeRole"}]}"#;
        let request = live.stack.cloud.iam(&live.home).update_assume_role_policy();
        request.role_name("workflows-dr-dev").policy_document(anybody)
    }),
    damage!("iam:UpdateRole", |live| {
        let request = live.stack.cloud.iam(&live.home).update_role();
        request
            .role_name("health-probe-witness-dev")
            .description("somebody's")
    }),
    damage!("scheduler:UpdateSchedule", |live| {
        let scheduler = live.stack.cloud.scheduler(&live.standby);
        let now = scheduler.get_schedule().name("reconcile-dr-dev").send().await;
        let now = now.expect("the schedule is there");
        let request = scheduler
            .update_schedule()
            .name("reconcile-dr-dev")
            .set_target(now.target);
        let request = request.set_flexible_time_window(now.flexible_time_window);
        request
            .description("somebody's")
            .schedule_expression("rate(2 days)")
    }),
    damage!("secretsmanager:UpdateSecret", |live| {
        let request = live.stack.cloud.secrets(&live.home).update_secret();
        request
            .secret_id(live.stack.names().database_secret())
            .description("somebody's")
    }),
    damage!("sns:SetTopicAttributes", |live| {
        let topic = live.stack.names().alert_topic(Slot::Dr);
        let arn = sns_topic::arn(&live.standby, &live.stack.account, &topic);
        let request = live
            .stack
            .cloud
            .sns(&live.standby)
            .set_topic_attributes()
            .topic_arn(arn);
        request
            .attribute_name("Policy")
            .attribute_value(r#"{"Version": "2012-10-17", "Statement": []}"#)
    }),
    damage!("kms:EnableKey", |live| {
        let key = live.key(&live.standby, "kms-replica-key.dr").await;
        live.stack.cloud.kms(&live.standby).disable_key().key_id(key)
    }),
    damage!("kms:CancelKeyDeletion", |live| {
        let key = live.key(&live.standby, "kms-replica-key.dr").await;
        let request = live.stack.cloud.kms(&live.standby).schedule_key_deletion();
        request.key_id(key).pending_window_in_days(7)
    }),
    damage!("kms:TagResource", |live| {
        let key = live.key(&live.home, "kms-key.primary").await;
        live.stack
            .cloud
            .kms(&live.home)
            .untag_resource()
            .key_id(key)
            .tag_keys("Team")
    }),
    damage!("kms:UpdateKeyDescription", |live| {
        let key = live.key(&live.home, "kms-key.primary").await;
        live.stack
            .cloud
            .kms(&live.home)
            .update_key_description()
            .key_id(key)
            .description("somebody's")
    }),
    damage!("states:UpdateStateMachine", |live| {
        let arn = state_machine::arn(&live.standby, &live.stack.account, "failover-dr-dev");
        let nothing = r#"{"StartAt": "Nothing", "States": {"Nothing": {"Type": "Succeed"}}}"#;
        live.stack
            .cloud
            .sfn(&live.standby)
            .update_state_machine()
            .state_machine_arn(arn)
            .definition(nothing)
    }),
    damage!("route53:UpdateHealthCheck", |live| {
        let check = live.id(&live.home, "health-check.dr").await;
        let request = live.stack.cloud.route53(&live.home).update_health_check();
        request.health_check_id(check).failure_threshold(10)
    }),
    damage!("route53:UpdateHostedZoneComment", |live| {
        let zone = live.id(&live.home, "hosted-zone").await;
        live.stack
            .cloud
            .route53(&live.home)
            .update_hosted_zone_comment()
            .id(zone)
            .comment("somebody's")
    }),
];
