//! What `signals.py` adds to the emulator: logs, metrics, alarms, certificates and custom domains, as AWS has them.

use aws_sdk_acm::types::{CertificateStatus, ValidationMethod};
use aws_sdk_apigateway::types::{DomainNameStatus, EndpointConfiguration, EndpointType, Op, PatchOperation};
use aws_sdk_cloudwatch::types::{ComparisonOperator, Dimension, MetricDatum, StateValue, Statistic};
use aws_sdk_route53::types::{
    AliasTarget, Change, ChangeAction, ChangeBatch, ResourceRecord, ResourceRecordSet, RrType,
};
use bootstrap::local::Region::{UsEast1, UsEast2};
use serde_json::Value;

use crate::cloud::{Cloud, eventually};

#[tokio::test]
async fn an_alarm_watches_the_metric_with_its_dimensions_only() {
    let cloud = Cloud::start().await;
    let cloudwatch = aws_sdk_cloudwatch::Client::new(&cloud.aws(None, UsEast1).await);
    let stack = |suffix: &str| Dimension::builder().name("Stack").value(suffix).build();
    for suffix in ["one", "two"] {
        cloudwatch
            .put_metric_alarm()
            .alarm_name(suffix)
            .namespace("Understudy")
            .metric_name("Drift")
            .dimensions(stack(suffix))
            .statistic(Statistic::Maximum)
            .period(60)
            .evaluation_periods(1)
            .threshold(0.0)
            .comparison_operator(ComparisonOperator::GreaterThanThreshold)
            .send()
            .await
            .unwrap();
    }
    let datum = MetricDatum::builder()
        .metric_name("Drift")
        .dimensions(stack("one"))
        .value(3.0);
    cloudwatch
        .put_metric_data()
        .namespace("Understudy")
        .metric_data(datum.build())
        .send()
        .await
        .unwrap();
    let alarms = cloudwatch.describe_alarms().send().await.unwrap();
    let state = |name: &str| {
        let mut alarms = alarms.metric_alarms().iter();
        let alarm = alarms.find(|alarm| alarm.alarm_name() == Some(name)).unwrap();
        alarm.state_value().cloned().unwrap()
    };
    assert_eq!(state("one"), StateValue::Alarm);
    assert_eq!(
        state("two"),
        StateValue::InsufficientData,
        "another stack's drift"
    );
    cloud.edge.stop().await;
}

#[tokio::test]
async fn dashboards_are_listed_with_the_time_of_their_change() {
    let cloud = Cloud::start().await;
    let cloudwatch = aws_sdk_cloudwatch::Client::new(&cloud.aws(None, UsEast1).await);
    let put = cloudwatch
        .put_dashboard()
        .dashboard_name("understudy")
        .dashboard_body("{}");
    put.send().await.unwrap();
    let listed = cloudwatch.list_dashboards().send().await.unwrap();
    let [dashboard] = listed.dashboard_entries() else {
        panic!("{listed:?}")
    };
    assert_eq!(dashboard.dashboard_name(), Some("understudy"));
    assert!(
        dashboard
            .last_modified()
            .is_some_and(|at| at.secs() > 1_700_000_000)
    );
    cloud.edge.stop().await;
}

#[tokio::test]
async fn a_certificate_is_issued_when_its_proof_is_in_dns_and_a_custom_domain_serves_each_region_its_own_api()
{
    let cloud = Cloud::start().await;
    let (zone_name, name) = ("payments.example.com", "api.payments.example.com");
    let route53 = aws_sdk_route53::Client::new(&cloud.aws(None, UsEast1).await);
    let zone = route53.create_hosted_zone().name(zone_name).caller_reference("z");
    let zone = zone.send().await.unwrap().hosted_zone.unwrap().id;
    let put = async |set: ResourceRecordSet| {
        let change = Change::builder()
            .action(ChangeAction::Upsert)
            .resource_record_set(set);
        let batch = ChangeBatch::builder()
            .changes(change.build().unwrap())
            .build()
            .unwrap();
        let request = route53.change_resource_record_sets().hosted_zone_id(&zone);
        request.change_batch(batch).send().await.unwrap();
    };
    let mut proofs = Vec::new();
    for region in [UsEast1, UsEast2] {
        let acm = aws_sdk_acm::Client::new(&cloud.aws(None, region).await);
        let request = acm.request_certificate().domain_name(name);
        let arn = request
            .validation_method(ValidationMethod::Dns)
            .send()
            .await
            .unwrap();
        let arn = arn.certificate_arn.unwrap();
        let describe = async || {
            let request = acm.describe_certificate().certificate_arn(&arn);
            request.send().await.unwrap().certificate.unwrap()
        };
        let certificate = describe().await;
        let proof = certificate.domain_validation_options()[0]
            .resource_record()
            .unwrap()
            .clone();
        if proofs.is_empty() {
            assert_eq!(certificate.status(), Some(&CertificateStatus::PendingValidation));
            let value = ResourceRecord::builder().value(proof.value()).build().unwrap();
            let set = ResourceRecordSet::builder()
                .name(proof.name())
                .r#type(RrType::Cname)
                .ttl(300);
            put(set.resource_records(value).build().unwrap()).await;
        }
        assert_eq!(describe().await.status(), Some(&CertificateStatus::Issued));
        proofs.push((proof.name().to_owned(), proof.value().to_owned()));

        let api = cloud.api(region).await;
        let gateway = aws_sdk_apigateway::Client::new(&cloud.aws(None, region).await);
        let regional = EndpointConfiguration::builder()
            .types(EndpointType::Regional)
            .build();
        let request = gateway
            .create_domain_name()
            .domain_name(name)
            .regional_certificate_arn(&arn);
        let domain = request.endpoint_configuration(regional).send().await.unwrap();
        assert_eq!(domain.domain_name_status(), Some(&DomainNameStatus::Available));
        let host = domain.regional_domain_name().unwrap().to_owned();
        assert!(host.starts_with("d-") && host.contains(region.name()), "{host}");
        let request = gateway
            .create_base_path_mapping()
            .domain_name(name)
            .rest_api_id("none-yet");
        request.stage("live").send().await.unwrap();
        let operation = PatchOperation::builder()
            .op(Op::Replace)
            .path("/restapiId")
            .value(&api)
            .build();
        let request = gateway
            .update_base_path_mapping()
            .domain_name(name)
            .base_path("(none)");
        let mapping = request.patch_operations(operation).send().await.unwrap();
        assert_eq!(mapping.rest_api_id(), Some(api.as_str()));

        let alias = AliasTarget::builder()
            .dns_name(&host)
            .evaluate_target_health(false);
        let alias = alias
            .hosted_zone_id(domain.regional_hosted_zone_id().unwrap())
            .build()
            .unwrap();
        let set = ResourceRecordSet::builder()
            .name(name)
            .r#type(RrType::A)
            .alias_target(alias);
        put(set.build().unwrap()).await;
        eventually("the name leads to this region's API", async || {
            let request = cloud.tunnel(None).get(format!("https://{name}/v1/accounts"));
            let Ok(response) = request.send().await else {
                return false;
            };
            let echo: Value = response.json().await.unwrap_or_default();
            echo["region"] == region.name() && echo["event"]["path"] == "/v1/accounts"
        })
        .await;
    }
    assert_eq!(proofs[0], proofs[1], "one record proves the name in every region");
    cloud.edge.stop().await;
}

#[tokio::test]
async fn a_stage_writes_its_access_log() {
    let cloud = Cloud::start().await;
    let api = cloud.api(UsEast2).await;
    let group = "/aws/apigateway/test";
    let logs = aws_sdk_cloudwatchlogs::Client::new(&cloud.aws(None, UsEast2).await);
    logs.create_log_group()
        .log_group_name(group)
        .send()
        .await
        .unwrap();
    let replace = |path: &str, value: &str| {
        PatchOperation::builder()
            .op(Op::Replace)
            .path(path)
            .value(value)
            .build()
    };
    let arn = format!("arn:aws:logs:us-east-2:000000000000:log-group:{group}");
    let format = r#"{"id":"$context.requestId","path":"$context.resourcePath","status":"$context.status","who":"$context.identity.caller"}"#;
    let gateway = aws_sdk_apigateway::Client::new(&cloud.aws(None, UsEast2).await);
    let request = gateway.update_stage().rest_api_id(&api).stage_name("live");
    let request = request.patch_operations(replace("/accessLogSettings/destinationArn", &arn));
    request
        .patch_operations(replace("/accessLogSettings/format", format))
        .send()
        .await
        .unwrap();

    let url = format!("https://{api}.execute-api.us-east-2.amazonaws.com/live/health");
    assert_eq!(cloud.tunnel(None).get(url).send().await.unwrap().status(), 200);
    let events = logs
        .filter_log_events()
        .log_group_name(group)
        .send()
        .await
        .unwrap();
    let line: Value = serde_json::from_str(events.events()[0].message().unwrap()).unwrap();
    assert_eq!(line["status"], "200");
    assert_eq!(line["who"], "-", "what is not known");
    assert!(line["id"].as_str().unwrap().len() > 8, "{line}");
    cloud.edge.stop().await;
}
