//! One file per kind of AWS resource, all of one shape: `Spec`, `observe`, `create`, `update`, `delete`, `list`.

pub mod api_stage;
pub mod dynamodb_table;
pub mod health_check;
pub mod hosted_zone;
pub mod iam_role;
pub mod iam_role_attachments;
pub mod iam_role_policies;
pub mod lambda_function;
pub mod lambda_permission;
pub mod log_group;
pub mod record_set;
pub mod rest_api;
pub mod s3_bucket;
pub mod s3_encryption;
pub mod s3_lifecycle;
pub mod s3_policy;
pub mod s3_public_access_block;
pub mod s3_replication;
pub mod s3_versioning;
pub mod schedule;
pub mod state_machine;
pub mod table_recovery;
pub mod table_tags;
pub mod vpc;

mod ec2;
mod tagging;
