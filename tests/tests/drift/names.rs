//! Zone, records and health checks; roles and policies.

use aws_sdk_route53::types::{
    ChangeAction, ChangeBatch, ResourceRecordSet, ResourceRecordSetFailover, RrType,
};
use infra::resources::iam_policy;
use understudy_tests::stack::ACCOUNT;

use crate::live::{Change, HOME, Live};
use crate::{differs, gone};

/// What nobody of ours would allow.
const EVERYTHING: &str =
    r#"{"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "*", "Resource": "*"}]}"#;

/// The CNAME records of the public name: home, then standby.
async fn records(live: &Live) -> [ResourceRecordSet; 2] {
    let zone = live.id(HOME, "hosted-zone").await;
    let request = live.cloud.route53(HOME).list_resource_record_sets();
    let answer = request.hosted_zone_id(zone).send().await.unwrap();
    let of = |slot: &str| {
        let ours = |one: &&ResourceRecordSet| {
            one.r#type() == &RrType::Cname && one.set_identifier().is_some_and(|set| set.contains(slot))
        };
        answer.resource_record_sets().iter().find(ours).unwrap().clone()
    };
    [of("primary"), of("dr")]
}

async fn change_records(live: &Live, records: impl IntoIterator<Item = ResourceRecordSet>) {
    let change = |record| {
        aws_sdk_route53::types::Change::builder()
            .action(ChangeAction::Upsert)
            .resource_record_set(record)
            .build()
            .unwrap()
    };
    let changes = records.into_iter().map(change).collect();
    let batch = ChangeBatch::builder().set_changes(Some(changes)).build().unwrap();
    let request = live.cloud.route53(HOME).change_resource_record_sets();
    let request = request.hosted_zone_id(live.id(HOME, "hosted-zone").await);
    request.change_batch(batch).send().await.unwrap();
}

/// Makes the standby's record the primary one and the other way round: a role.
pub async fn swap_the_records(live: &Live) {
    let [mut home, mut standby] = records(live).await;
    home.failover = Some(ResourceRecordSetFailover::Secondary);
    standby.failover = Some(ResourceRecordSetFailover::Primary);
    change_records(live, [home, standby]).await;
}

/// The role of each record: home's, then the standby's.
pub async fn record_roles(live: &Live) -> [String; 2] {
    records(live)
        .await
        .map(|record| record.failover().unwrap().as_str().to_owned())
}

async fn slow_record(live: &Live) {
    let [_, mut standby] = records(live).await;
    standby.ttl = Some(3600);
    change_records(live, [standby]).await;
}

async fn allow_more(live: &Live) {
    let iam = live.cloud.iam(HOME);
    let arn = iam_policy::arn(ACCOUNT, "failover-coordinator-dr-dev");
    let request = iam.create_policy_version().policy_arn(arn).set_as_default(true);
    request.policy_document(EVERYTHING).send().await.unwrap();
}

pub fn changes() -> Vec<Change> {
    vec![
        differs!("health-check.dr", "threshold", 10 => 2, |live| {
            let request = live.cloud.route53(HOME).update_health_check();
            let request = request.health_check_id(live.id(HOME, "health-check.dr").await);
            request.failure_threshold(10).send().await.unwrap()
        }),
        differs!("hosted-zone", "comment", from "somebody's", |live| {
            let request = live.cloud.route53(HOME).update_hosted_zone_comment();
            let request = request.id(live.id(HOME, "hosted-zone").await);
            request.comment("somebody's").send().await.unwrap()
        }),
        differs!("record-set.dr", "ttl_s", from 3600, |live| slow_record(&live).await),
        differs!("role.workflows.dr", "trust", |live| {
            let anybody = r#"{"Version": "2012-10-17", "Statement": [{"Effect": "Allow",
                "Principal": {"AWS": "000000000000"}, "Action": "sts:AssumeRole"}]}"#;
            let request = live.cloud.iam(HOME).update_assume_role_policy();
            let request = request.role_name("workflows-dr-dev").policy_document(anybody);
            request.send().await.unwrap()
        }),
        gone!("role-policies.reconcile-schedule.dr", |live| {
            let request = live.cloud.iam(HOME).delete_role_policy();
            let request = request.role_name("reconcile-schedule-dr-dev");
            request.policy_name("reconcile-schedule").send().await.unwrap()
        }),
        differs!("role-policies.health-probe.dr", "policies", |live| {
            let request = live.cloud.iam(HOME).put_role_policy();
            let request = request.role_name("health-probe-dr-dev").policy_name("more");
            request.policy_document(EVERYTHING).send().await.unwrap()
        }),
        differs!("role-attachments.payment-processor.primary", "policies", |live| {
            let request = live.cloud.iam(HOME).detach_role_policy();
            let request = request.role_name("payment-processor-primary-dev");
            request
                .policy_arn(infra::blueprint::roles::VPC_EXECUTION)
                .send()
                .await
                .unwrap()
        }),
        differs!("policy.failover-coordinator.dr", "document", |live| allow_more(
            &live
        )
        .await),
        differs!("role.payment-processor.dr", "tagged", false => true, |live| {
            let request = live.cloud.iam(HOME).untag_role();
            let request = request.role_name("payment-processor-dr-dev");
            request.tag_keys("Environment").send().await.unwrap()
        }),
    ]
}
