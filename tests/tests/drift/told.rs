//! What tells people: alarms, dashboard, topics, logs.

use continuity::names::Names;

use crate::live::{Change, HOME, STANDBY};
use crate::{differs, gone};

pub fn changes() -> Vec<Change> {
    vec![
        gone!("alarm.drift.primary", |live| {
            let request = live.cloud.cloudwatch(HOME).delete_alarms();
            request.alarm_names("drift-primary-dev").send().await.unwrap()
        }),
        differs!("alarm.replication-lag.dr", "actions_enabled", false => true, |live| {
            let request = live.cloud.cloudwatch(STANDBY).disable_alarm_actions();
            request.alarm_names("replication-lag-dr-dev").send().await.unwrap()
        }),
        differs!("dashboard", "body", |live| {
            let request = live
                .cloud
                .cloudwatch(HOME)
                .put_dashboard()
                .dashboard_name(Names::new("dev").dashboard());
            request.dashboard_body(r#"{"widgets": []}"#).send().await.unwrap()
        }),
        gone!("log-group.aurora.dr", |live| {
            let name = "/aws/rds/cluster/aurora-dr-dev/postgresql";
            let request = live.cloud.logs(STANDBY).delete_log_group();
            request.log_group_name(name).send().await.unwrap()
        }),
        differs!("log-group.health-probe.dr", "retention_days", from 0, |live| {
            let request = live.cloud.logs(STANDBY).delete_retention_policy();
            request.log_group_name("/aws/lambda/health-probe-dr-dev").send().await.unwrap()
        }),
        differs!("alert-topic.dr", "policy", |live| {
            let anybody = r#"{"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Principal": "*",
                "Action": "sns:Publish", "Resource": "*"}]}"#;
            let request = live.cloud.sns(STANDBY).set_topic_attributes();
            let request = request.topic_arn(live.arn(STANDBY, "alert-topic.dr").await);
            request
                .attribute_name("Policy")
                .attribute_value(anybody)
                .send()
                .await
                .unwrap()
        }),
    ]
}
