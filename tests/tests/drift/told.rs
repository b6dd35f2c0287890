//! What tells people: alarms, dashboard, topics, logs. And what a drill breaks, and the alarm that it listens to.

use continuity::names::Names;
use infra::kind::RESOURCE_TAG;

use crate::live::{Change, HOME, Live, STANDBY};
use crate::{differs, gone};

/// The id of the experiment template with that key.
async fn template(live: &Live, region: &str, key: &str) -> String {
    let templates = live
        .cloud
        .fis(region)
        .list_experiment_templates()
        .send()
        .await
        .unwrap();
    let ours = templates.experiment_templates().iter().find(|template| {
        let tags = template.tags().unwrap();
        tags.get(RESOURCE_TAG).is_some_and(|found| found == key)
    });
    ours.unwrap().id().unwrap().to_owned()
}

pub fn changes() -> Vec<Change> {
    vec![
        gone!("isolation.primary", |live| {
            let id = template(&live, HOME, "isolation.primary").await;
            live.cloud
                .fis(HOME)
                .delete_experiment_template()
                .id(id)
                .send()
                .await
                .unwrap()
        }),
        // An isolation that nothing ends but its time.
        differs!("isolation.dr", "stop_alarms", |live| {
            let none =
                aws_sdk_fis::types::UpdateExperimentTemplateStopConditionInput::builder().source("none");
            let id = template(&live, STANDBY, "isolation.dr").await;
            let request = live.cloud.fis(STANDBY).update_experiment_template().id(id);
            request
                .stop_conditions(none.build().unwrap())
                .send()
                .await
                .unwrap()
        }),
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
