//! One file per kind of AWS resource, all of one shape: `Spec`, `observe`, `create`, `update`, `delete`, `list`.

pub mod alias_record;
pub mod api_access_log;
pub mod api_domain;
pub mod api_mapping;
pub mod api_stage;
pub mod certificate;
pub mod cloudwatch_alarm;
pub mod cloudwatch_dashboard;
pub mod db_cluster;
pub mod db_cluster_parameter_group;
pub mod db_instance;
pub mod db_snapshot;
pub mod db_subnet_group;
pub mod dynamodb_table;
pub mod fis_template;
pub mod global_cluster;
pub mod health_check;
pub mod hosted_zone;
pub mod iam_policy;
pub mod iam_role;
pub mod iam_role_attachments;
pub mod iam_role_policies;
pub mod kms_key;
pub mod kms_key_policy;
pub mod kms_replica_key;
pub mod lambda_async_config;
pub mod lambda_function;
pub mod lambda_permission;
pub mod log_group;
pub mod record_set;
pub mod rest_api;
pub mod route_table;
pub mod s3_bucket;
pub mod s3_encryption;
pub mod s3_lifecycle;
pub mod s3_ownership;
pub mod s3_policy;
pub mod s3_public_access_block;
pub mod s3_replication;
pub mod s3_versioning;
pub mod schedule;
pub mod secret;
pub mod security_group;
pub mod sns_topic;
pub mod state_machine;
pub mod subnet;
pub mod table_recovery;
pub mod table_replica;
pub mod vpc;
pub mod vpc_endpoint;

mod ec2;
mod kms;
mod rds;
mod tagging;
#[cfg(test)]
mod testing;

use crate::kind::Lister;

/// The listing of every kind there is.
pub fn listers() -> Vec<Lister> {
    vec![
        Lister::of::<alias_record::AliasRecord>(),
        Lister::of::<api_access_log::ApiAccessLog>(),
        Lister::of::<api_domain::ApiDomain>(),
        Lister::of::<api_mapping::ApiMapping>(),
        Lister::of::<api_stage::ApiStage>(),
        Lister::of::<certificate::Certificate>(),
        Lister::of::<cloudwatch_alarm::CloudwatchAlarm>(),
        Lister::of::<cloudwatch_dashboard::CloudwatchDashboard>(),
        Lister::of::<db_cluster::DbCluster>(),
        Lister::of::<db_cluster_parameter_group::DbClusterParameterGroup>(),
        Lister::of::<db_instance::DbInstance>(),
        Lister::of::<db_snapshot::DbSnapshot>(),
        Lister::of::<db_subnet_group::DbSubnetGroup>(),
        Lister::of::<dynamodb_table::DynamodbTable>(),
        Lister::of::<fis_template::FisTemplate>(),
        Lister::of::<global_cluster::GlobalCluster>(),
        Lister::of::<health_check::HealthCheck>(),
        Lister::of::<hosted_zone::HostedZone>(),
        Lister::of::<iam_policy::IamPolicy>(),
        Lister::of::<iam_role::IamRole>(),
        Lister::of::<iam_role_attachments::IamRoleAttachments>(),
        Lister::of::<iam_role_policies::IamRolePolicies>(),
        Lister::of::<kms_key::KmsKey>(),
        Lister::of::<kms_key_policy::KmsKeyPolicy>(),
        Lister::of::<kms_replica_key::KmsReplicaKey>(),
        Lister::of::<lambda_async_config::LambdaAsyncConfig>(),
        Lister::of::<lambda_function::LambdaFunction>(),
        Lister::of::<lambda_permission::LambdaPermission>(),
        Lister::of::<log_group::LogGroup>(),
        Lister::of::<record_set::RecordSet>(),
        Lister::of::<rest_api::RestApi>(),
        Lister::of::<route_table::RouteTable>(),
        Lister::of::<s3_bucket::S3Bucket>(),
        Lister::of::<s3_encryption::S3Encryption>(),
        Lister::of::<s3_lifecycle::S3Lifecycle>(),
        Lister::of::<s3_ownership::S3Ownership>(),
        Lister::of::<s3_policy::S3Policy>(),
        Lister::of::<s3_public_access_block::S3PublicAccessBlock>(),
        Lister::of::<s3_replication::S3Replication>(),
        Lister::of::<s3_versioning::S3Versioning>(),
        Lister::of::<schedule::Schedule>(),
        Lister::of::<secret::Secret>(),
        Lister::of::<security_group::SecurityGroup>(),
        Lister::of::<sns_topic::SnsTopic>(),
        Lister::of::<state_machine::StateMachine>(),
        Lister::of::<subnet::Subnet>(),
        Lister::of::<table_recovery::TableRecovery>(),
        Lister::of::<table_replica::TableReplica>(),
        Lister::of::<vpc::Vpc>(),
        Lister::of::<vpc_endpoint::VpcEndpoint>(),
    ]
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_kind_is_listed_once_under_its_own_name() {
        let names: BTreeSet<&str> = listers().iter().map(Lister::name).collect();
        assert_eq!(names.len(), listers().len());
        let files = std::fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/src/resources"))
            .expect("the sources are here");
        let kinds = files
            .filter_map(|file| std::fs::read_to_string(file.ok()?.path()).ok())
            .filter(|source| source.lines().any(|line| line.starts_with("impl Kind for ")))
            .count();
        assert_eq!(names.len(), kinds);
    }
}
