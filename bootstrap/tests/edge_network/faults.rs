//! Fault Injection Service as the edge plays it: templates through the product's own kind, experiments that cut a region off,
//! and everything that ends one.

use std::collections::{BTreeMap, BTreeSet};

use aws_sdk_cloudwatch::types::{ComparisonOperator, Dimension, MetricDatum, Statistic};
use aws_sdk_fis::types::{ExperimentActionStatus, ExperimentStatus};
use bootstrap::local::Region::{self, UsEast1, UsEast2};
use infra::cloud::Cloud as Clients;
use infra::kind::{Kind, Site};
use infra::resources::fis_template::{Action, FisTemplate, Spec, Target};

use crate::{
    calls::{create_strong_table, dynamo, put},
    cloud::{Cloud, eventually},
};

const ACCOUNT: &str = "000000000000";
const KEY: &str = "isolation.primary";

/// A region with a subnet, a table and a stop alarm.
struct Bench {
    cloud: Cloud,
    clients: Clients,
    spec: Spec,
}

impl Bench {
    async fn new() -> Self {
        let cloud = Cloud::start().await;
        create_strong_table(&dynamo(&cloud, None, UsEast1).await, "journal").await;
        let ec2 = aws_sdk_ec2::Client::new(&cloud.aws(None, UsEast1).await);
        let vpc = ec2.create_vpc().cidr_block("10.0.0.0/16").send().await.unwrap();
        let vpc = vpc.vpc().unwrap().vpc_id().unwrap().to_owned();
        let subnet = ec2.create_subnet().vpc_id(vpc).cidr_block("10.0.0.0/24");
        let subnet = subnet.send().await.unwrap();
        let subnet = subnet.subnet().unwrap().subnet_id().unwrap().to_owned();
        let target = |resource_type: &str, arn: String| Target {
            resource_type: resource_type.into(),
            arns: BTreeSet::from([arn]),
        };
        let action = |action: &str, parameters: &[(&str, &str)], (word, target): (&str, &str)| Action {
            action: action.into(),
            parameters: (parameters.iter())
                .map(|(name, value)| ((*name).into(), (*value).into()))
                .collect(),
            targets: BTreeMap::from([(word.into(), target.into())]),
        };
        let spec = Spec {
            name: "isolate-primary-dev".into(),
            description: "d".into(),
            targets: BTreeMap::from([
                (
                    "subnets".into(),
                    target(
                        "aws:ec2:subnet",
                        format!("arn:aws:ec2:{UsEast1}:{ACCOUNT}:subnet/{subnet}"),
                    ),
                ),
                (
                    "tables".into(),
                    target(
                        "aws:dynamodb:global-table",
                        format!("arn:aws:dynamodb:{UsEast1}:{ACCOUNT}:table/journal"),
                    ),
                ),
            ]),
            actions: BTreeMap::from([
                (
                    "cut-subnets".into(),
                    action(
                        "aws:network:disrupt-connectivity",
                        &[("duration", "PT1M"), ("scope", "all")],
                        ("Subnets", "subnets"),
                    ),
                ),
                (
                    "cut-tables".into(),
                    action(
                        "aws:dynamodb:global-table-pause-replication",
                        &[("duration", "PT1M")],
                        ("Tables", "tables"),
                    ),
                ),
            ]),
            stop_alarms: BTreeSet::from([format!("arn:aws:cloudwatch:{UsEast1}:{ACCOUNT}:alarm:unwatched")]),
            role_arn: format!("arn:aws:iam::{ACCOUNT}:role/isolate"),
            fails_without_target: true,
            tagged: true,
        };
        let clients = Clients::new(cloud.aws(None, UsEast1).await);
        let bench = Bench { cloud, clients, spec };
        bench.alarm().await;
        bench.watched(1.0).await;
        bench
    }

    fn site(&self) -> Site<'_> {
        Site {
            cloud: &self.clients,
            region: "us-east-1",
            key: KEY,
            suffix: "dev",
            account: ACCOUNT,
            extra_tags: &[],
        }
    }

    async fn alarm(&self) {
        let cloudwatch = aws_sdk_cloudwatch::Client::new(&self.cloud.aws(None, UsEast1).await);
        cloudwatch
            .put_metric_alarm()
            .alarm_name("unwatched")
            .namespace("Understudy")
            .metric_name("DrillWatched")
            .dimensions(Dimension::builder().name("Stack").value("dev").build())
            .statistic(Statistic::Minimum)
            .period(10)
            .evaluation_periods(1)
            .threshold(1.0)
            .comparison_operator(ComparisonOperator::LessThanThreshold)
            .treat_missing_data("breaching")
            .send()
            .await
            .unwrap();
    }

    /// From the other region, as a drill does.
    async fn watched(&self, value: f64) {
        let cloudwatch = aws_sdk_cloudwatch::Client::new(&self.cloud.aws(Some(UsEast2), UsEast1).await);
        let datum = MetricDatum::builder()
            .metric_name("DrillWatched")
            .dimensions(Dimension::builder().name("Stack").value("dev").build())
            .value(value)
            .build();
        let request = cloudwatch.put_metric_data().namespace("Understudy");
        request.metric_data(datum).send().await.unwrap();
    }

    async fn fis(&self, source: Option<Region>) -> aws_sdk_fis::Client {
        aws_sdk_fis::Client::new(&self.cloud.aws(source, UsEast1).await)
    }

    /// Starts an experiment from the other region.
    async fn start(&self) -> String {
        FisTemplate::create(&self.site(), &self.spec).await.unwrap();
        let live = FisTemplate::observe(&self.site(), &self.spec)
            .await
            .unwrap()
            .unwrap();
        let fis = self.fis(Some(UsEast2)).await;
        let request = fis.start_experiment().experiment_template_id(&live.outputs.id);
        let started = request.client_token("drill-1").send().await.unwrap();
        started.experiment().unwrap().id().unwrap().to_owned()
    }

    async fn experiment(&self, id: &str) -> aws_sdk_fis::types::Experiment {
        let answer = self.fis(Some(UsEast2)).await.get_experiment().id(id).send().await;
        answer.unwrap().experiment.unwrap()
    }

    async fn until(&self, id: &str, status: ExperimentStatus) -> aws_sdk_fis::types::Experiment {
        eventually(&format!("the experiment is {status}"), async || {
            let experiment = self.experiment(id).await;
            experiment.state().unwrap().status() == Some(&status)
        })
        .await;
        self.experiment(id).await
    }

    async fn put(&self, source: Option<Region>) -> String {
        put(&dynamo(&self.cloud, source, UsEast1).await, "journal").await
    }
}

#[tokio::test]
async fn a_template_is_made_read_changed_listed_and_removed_by_its_kind() {
    let mut bench = Bench::new().await;
    assert_eq!(
        FisTemplate::observe(&bench.site(), &bench.spec).await.unwrap(),
        None
    );
    FisTemplate::create(&bench.site(), &bench.spec).await.unwrap();
    let live = FisTemplate::observe(&bench.site(), &bench.spec)
        .await
        .unwrap()
        .unwrap();
    assert_eq!(live.spec, bench.spec);

    for action in bench.spec.actions.values_mut() {
        action.parameters.insert("duration".into(), "PT7M".into());
    }
    bench.spec.name = "isolate-primary-other".into();
    bench.spec.stop_alarms = BTreeSet::from([format!("arn:aws:cloudwatch:{UsEast1}:{ACCOUNT}:alarm:other")]);
    FisTemplate::update(&bench.site(), &bench.spec, &live)
        .await
        .unwrap();
    let changed = FisTemplate::observe(&bench.site(), &bench.spec)
        .await
        .unwrap()
        .unwrap();
    assert_eq!((&changed.spec, &changed.outputs), (&bench.spec, &live.outputs));

    let listed = FisTemplate::list(&bench.site()).await.unwrap();
    assert_eq!(
        (listed.len(), &listed[0].id, listed[0].key.as_deref()),
        (1, &live.outputs.id, Some(KEY))
    );
    FisTemplate::delete(&bench.site(), &changed).await.unwrap();
    FisTemplate::delete(&bench.site(), &changed).await.unwrap();
    assert_eq!(FisTemplate::list(&bench.site()).await.unwrap(), []);
    bench.cloud.edge.stop().await;
}

#[tokio::test]
async fn an_experiment_isolates_its_region_until_it_is_stopped() {
    let bench = Bench::new().await;
    assert_eq!(bench.put(Some(UsEast2)).await, "ok");
    let id = bench.start().await;
    let experiment = bench.until(&id, ExperimentStatus::Running).await;
    for action in experiment.actions().unwrap().values() {
        let status = action.state().unwrap().status();
        assert_eq!(status, Some(&ExperimentActionStatus::Running));
    }
    assert_eq!(bench.put(None).await, "broken");
    assert_eq!(bench.put(Some(UsEast2)).await, "broken");
    assert_eq!(bench.put(Some(UsEast1)).await, "error InternalServerError");
    // What watches and ends it is AWS's and answers.
    bench.watched(1.0).await;
    let fis = bench.fis(Some(UsEast2)).await;
    fis.stop_experiment().id(&id).send().await.unwrap();
    let experiment = bench.until(&id, ExperimentStatus::Stopped).await;
    for action in experiment.actions().unwrap().values() {
        let status = action.state().unwrap().status();
        assert_eq!(status, Some(&ExperimentActionStatus::Stopped));
    }
    assert_eq!(bench.put(None).await, "ok");
    assert_eq!(bench.put(Some(UsEast1)).await, "ok");
    assert_eq!(
        bench.cloud.mirror.told(),
        ["joined"],
        "the database follows again"
    );
    let again = fis.stop_experiment().id(&id).send().await.unwrap_err();
    assert!(again.as_service_error().unwrap().is_validation_exception());
    bench.cloud.edge.stop().await;
}

#[tokio::test]
async fn an_experiment_ends_by_itself() {
    let mut bench = Bench::new().await;
    for action in bench.spec.actions.values_mut() {
        action.parameters.insert("duration".into(), "PT2S".into());
    }
    let id = bench.start().await;
    bench.until(&id, ExperimentStatus::Running).await;
    bench.until(&id, ExperimentStatus::Completed).await;
    assert_eq!(bench.put(None).await, "ok");
    bench.cloud.edge.stop().await;
}

#[tokio::test]
async fn a_bad_word_of_the_drill_stops_the_experiment_by_its_alarm() {
    let bench = Bench::new().await;
    let id = bench.start().await;
    bench.until(&id, ExperimentStatus::Running).await;
    bench.watched(0.0).await;
    let experiment = bench.until(&id, ExperimentStatus::Stopped).await;
    let reason = experiment.state().unwrap().reason().unwrap().to_owned();
    assert!(reason.contains("unwatched"), "{reason}");
    assert_eq!(bench.put(None).await, "ok");
    bench.cloud.edge.stop().await;
}

/// CloudWatch would put the alarm into alarm. Once the emulator does, the bridge need not look for silence.
#[tokio::test]
async fn silence_of_the_drill_stops_the_experiment_too() {
    let bench = Bench::new().await;
    let id = bench.start().await;
    bench.until(&id, ExperimentStatus::Running).await;
    bench.until(&id, ExperimentStatus::Stopped).await;
    assert_eq!(bench.put(None).await, "ok");
    let cloudwatch = aws_sdk_cloudwatch::Client::new(&bench.cloud.bare(UsEast1).await);
    let alarms = cloudwatch.describe_alarms().alarm_names("unwatched").send().await;
    let state = alarms.unwrap().metric_alarms()[0].state_value().cloned();
    assert_eq!(
        state,
        Some(aws_sdk_cloudwatch::types::StateValue::Ok),
        "the emulator evaluates silence itself now: remove the bridge"
    );
    bench.cloud.edge.stop().await;
}

#[tokio::test]
async fn a_target_that_is_not_there_fails_the_experiment_or_is_skipped_as_the_template_says() {
    for fails in [true, false] {
        let mut bench = Bench::new().await;
        bench.spec.fails_without_target = fails;
        let gone = format!("arn:aws:ec2:{UsEast1}:{ACCOUNT}:subnet/subnet-0123456789abcdef0");
        bench.spec.targets.get_mut("subnets").unwrap().arns = BTreeSet::from([gone]);
        let id = bench.start().await;
        let status = if fails {
            ExperimentStatus::Failed
        } else {
            ExperimentStatus::Running
        };
        let experiment = bench.until(&id, status).await;
        let action = &experiment.actions().unwrap()["cut-subnets"];
        let skipped = action.state().unwrap().status() == Some(&ExperimentActionStatus::Skipped);
        assert_eq!(skipped, !fails);
        assert_eq!(bench.put(None).await, "ok", "nothing was cut");
        bench.cloud.edge.stop().await;
    }
}

#[tokio::test]
async fn the_emulator_has_no_such_service() {
    let cloud = Cloud::start().await;
    let bare = aws_sdk_fis::Client::new(&cloud.bare(UsEast1).await);
    let listed = bare.list_experiment_templates().send().await;
    assert!(
        listed.is_err(),
        "the emulator does this itself now: remove the bridge"
    );
    cloud.edge.stop().await;
}
