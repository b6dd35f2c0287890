//! Keys, the secret, Aurora, DynamoDB.

use aws_sdk_dynamodb::types::{
    AttributeValue, BillingMode, PointInTimeRecoverySpecification, ProvisionedThroughput,
};
use aws_sdk_rds::types::{ApplyMethod, Parameter};
use continuity::names::{Names, Slot};

use crate::live::{Change, HOME, Live, STANDBY, WITNESS};
use crate::{differs, gone};

fn names() -> Names {
    Names::new("dev")
}

fn recovery(enabled: bool, days: Option<i32>) -> PointInTimeRecoverySpecification {
    PointInTimeRecoverySpecification::builder()
        .point_in_time_recovery_enabled(enabled)
        .set_recovery_period_in_days(days)
        .build()
        .unwrap()
}

fn plain_connections() -> Parameter {
    Parameter::builder()
        .parameter_name("rds.force_ssl")
        .parameter_value("0")
        .apply_method(ApplyMethod::Immediate)
        .build()
}

fn parameters(force_tls: &str) -> serde_json::Value {
    serde_json::json!({ "rds.force_ssl": force_tls })
}

pub fn changes() -> Vec<Change> {
    vec![
        differs!("kms-key.primary", "rotation", false => true, |live| {
            let request = live.cloud.kms(HOME).disable_key_rotation();
            request.key_id(live.id(HOME, "kms-key.primary").await).send().await.unwrap()
        }),
        differs!("kms-replica-key.dr", "usable", false => true, |live| {
            let request = live.cloud.kms(STANDBY).disable_key();
            request.key_id(live.id(STANDBY, "kms-replica-key.dr").await).send().await.unwrap()
        }),
        differs!("kms-key-policy.primary", "policy", |live| {
            let kms = live.cloud.kms(HOME);
            let key = live.id(HOME, "kms-key.primary").await;
            let answer = kms
                .get_key_policy()
                .key_id(&key)
                .policy_name("default")
                .send()
                .await
                .unwrap();
            let policy = answer.policy().unwrap().replace("kms:*", "kms:Describe*");
            let request = kms.put_key_policy().key_id(key).policy_name("default");
            request.policy(policy).send().await.unwrap()
        }),
        differs!("secret.database", "replica", |live| {
            let request = live.cloud.secrets(HOME).remove_regions_from_replication();
            let request = request.secret_id(names().database_secret());
            request.remove_replica_regions(STANDBY).send().await.unwrap()
        }),
        differs!("db-cluster.primary", "backup_retention_days", 1 => 7, |live| {
            let request = live.cloud.rds(HOME).modify_db_cluster().apply_immediately(true);
            let request = request.db_cluster_identifier(names().aurora_cluster(Slot::Primary));
            request.backup_retention_period(1).send().await.unwrap()
        }),
        differs!("db-cluster.dr", "deletion_protection", true => false, |live| {
            let request = live.cloud.rds(STANDBY).modify_db_cluster();
            let request = request.db_cluster_identifier(names().aurora_cluster(Slot::Dr));
            request.deletion_protection(true).send().await.unwrap()
        }),
        differs!("db-instance.1.dr", "publicly_accessible", true => false, |live| {
            let request = live.cloud.rds(STANDBY).modify_db_instance().apply_immediately(true);
            let request = request.db_instance_identifier(format!("{}-1", names().aurora_cluster(Slot::Dr)));
            request.publicly_accessible(true).send().await.unwrap()
        }),
        differs!("db-instance.1.primary", "minor_upgrades", true => false, |live| {
            let request = live.cloud.rds(HOME).modify_db_instance().apply_immediately(true);
            let request = request.db_instance_identifier(format!("{}-1", names().aurora_cluster(Slot::Primary)));
            request.auto_minor_version_upgrade(true).send().await.unwrap()
        }),
        differs!("db-cluster-parameter-group.dr", "parameters",
            parameters("0") => parameters("1"), |live| {
            let request = live.cloud.rds(STANDBY).modify_db_cluster_parameter_group();
            let request = request.db_cluster_parameter_group_name(names().aurora_cluster(Slot::Dr));
            request.parameters(plain_connections()).send().await.unwrap()
        }),
        differs!("db-subnet-group.primary", "description", |live| {
            let rds = live.cloud.rds(HOME);
            let name = names().aurora_cluster(Slot::Primary);
            let request = rds.describe_db_subnet_groups().db_subnet_group_name(&name);
            let answer = request.send().await.unwrap();
            let subnets = answer.db_subnet_groups()[0].subnets().iter();
            let subnets = subnets
                .filter_map(|subnet| subnet.subnet_identifier().map(str::to_owned))
                .collect();
            let request = rds.modify_db_subnet_group().db_subnet_group_name(name);
            let request = request
                .db_subnet_group_description("somebody's")
                .set_subnet_ids(Some(subnets));
            request.send().await.unwrap()
        }),
        differs!("global-cluster", "tagged", false => true, |live| {
            let request = live.cloud.rds(HOME).remove_tags_from_resource().tag_keys("Environment");
            request.resource_name(live.arn(HOME, "global-cluster").await).send().await.unwrap()
        }),
        gone!("control-table-recovery.witness", |live| {
            let request = live.cloud.dynamodb(WITNESS).update_continuous_backups();
            let request = request.table_name(names().control_table());
            request
                .point_in_time_recovery_specification(recovery(false, None))
                .send()
                .await
                .unwrap()
        }),
        differs!("journal-table-recovery.primary", "days", 7 => 35, |live| {
            let request = live.cloud.dynamodb(HOME).update_continuous_backups();
            let request = request.table_name(names().journal_table());
            request.point_in_time_recovery_specification(recovery(true, Some(7))).send().await.unwrap()
        }),
        differs!("control-table-replica.dr", "tagged", false => true, |live| {
            let arn = live.arn(STANDBY, "control-table-replica.dr").await;
            let request = live.cloud.dynamodb(STANDBY).untag_resource().resource_arn(arn);
            request.tag_keys("CostCenter").send().await.unwrap()
        }),
        differs!("journal-table", "deletion_protection", true => false, |live| {
            let request = live.cloud.dynamodb(HOME).update_table().table_name(names().journal_table());
            request.deletion_protection_enabled(true).send().await.unwrap()
        }),
        differs!("journal-table", "on_demand", false => true, |live| {
            let little = ProvisionedThroughput::builder().read_capacity_units(1).write_capacity_units(1);
            let request = live.cloud.dynamodb(HOME).update_table().table_name(names().journal_table());
            let request = request.billing_mode(BillingMode::Provisioned);
            request.provisioned_throughput(little.build().unwrap()).send().await.unwrap()
        }),
    ]
}

pub async fn is_repaired(live: &Live) {
    let request = live.cloud.dynamodb(WITNESS).describe_continuous_backups();
    let answer = request.table_name(names().control_table()).send().await.unwrap();
    let recovery = answer.continuous_backups_description().unwrap();
    let recovery = recovery.point_in_time_recovery_description().unwrap();
    assert_eq!(
        recovery.point_in_time_recovery_status().unwrap().as_str(),
        "ENABLED"
    );
    let request = live.cloud.secrets(STANDBY).get_secret_value();
    let replica = request.secret_id(names().database_secret()).send().await.unwrap();
    assert!(
        replica
            .secret_string()
            .is_some_and(|text| text.contains("password"))
    );
    let request = live.cloud.rds(STANDBY).describe_db_instances();
    let answer = request.send().await.unwrap();
    assert_eq!(answer.db_instances()[0].publicly_accessible(), Some(false));
}

/// From here nobody takes over: the region whose database is moved away answers no payments.
pub async fn no_takeover(live: &Live) {
    let request = live
        .cloud
        .dynamodb(HOME)
        .update_item()
        .table_name(names().control_table());
    let request = request.key("id", AttributeValue::S("epoch".into()));
    let request = request.update_expression("SET maintenance = :yes");
    let request = request.expression_attribute_values(":yes", AttributeValue::Bool(true));
    request.send().await.unwrap();
}

/// A switchover that Understudy does not know of.
pub async fn move_the_writer(live: &Live) {
    let target = live.arn(STANDBY, "db-cluster.dr").await;
    let request = live.cloud.rds(HOME).switchover_global_cluster();
    let request = request.global_cluster_identifier(names().aurora_global());
    request.target_db_cluster_identifier(target).send().await.unwrap();
    assert_eq!(writer(live).await, STANDBY);
}

/// The region of the cluster that is the writer.
pub async fn writer(live: &Live) -> String {
    let answer = live
        .cloud
        .rds(HOME)
        .describe_global_clusters()
        .send()
        .await
        .unwrap();
    let members = answer.global_clusters()[0].global_cluster_members();
    let writer = members
        .iter()
        .find(|member| member.is_writer() == Some(true))
        .unwrap();
    writer
        .db_cluster_arn()
        .unwrap()
        .split(':')
        .nth(3)
        .unwrap()
        .to_owned()
}
