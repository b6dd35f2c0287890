//! A CloudWatch alarm on one metric. Found by its name; one description tells everything but the tags.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use aws_sdk_cloudwatch::types::{ComparisonOperator, Dimension, MetricAlarm, Statistic, Tag};
use serde::{Deserialize, Serialize};

use super::tagging::{key_of, listed_tagged, listing, named_ours, tagged};
use crate::error::{KindError, absent};
use crate::kind::{Found, Kind, Live, Site, tags};

/// As many alarms as DescribeAlarms takes names of, and answers with.
const NAMES_PER_CALL: usize = 100;

/// The kind.
#[derive(Debug)]
pub struct CloudwatchAlarm;

/// What we want.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Spec {
    /// Its name.
    pub name: String,
    /// What it means and what to do, for the person who is told.
    pub description: String,
    /// What is watched.
    pub metric: Metric,
    /// `Sum`, `Average`, `Maximum`, or a percentile like `p99`.
    pub statistic: String,
    /// Seconds in one datapoint.
    pub period_s: i32,
    /// Datapoints that are looked at.
    pub evaluation_periods: i32,
    /// How many of them must be beyond the threshold.
    pub datapoints_to_alarm: i32,
    /// The limit.
    pub threshold: f64,
    /// `GreaterThanThreshold` and so on.
    pub comparison: String,
    /// What a period without data means: `notBreaching`, `breaching`.
    pub missing_data: String,
    /// Who is told when it goes off.
    pub alarm_actions: BTreeSet<String>,
    /// Who is told when it is over.
    pub ok_actions: BTreeSet<String>,
    /// Somebody is told at all: not switched off.
    pub actions_enabled: bool,
    /// It carries our tags.
    pub tagged: bool,
}

/// A metric of CloudWatch.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Metric {
    /// `AWS/Lambda`.
    pub namespace: String,
    /// `Errors`.
    pub name: String,
    /// `FunctionName` and the like. All that the metric was recorded with: CloudWatch does not add up.
    pub dimensions: BTreeMap<String, String>,
}

/// What others refer to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outputs {
    /// Its ARN.
    pub arn: String,
}

/// An alarm's ARN follows from its name.
pub fn arn(region: &str, account: &str, name: &str) -> String {
    format!("arn:aws:cloudwatch:{region}:{account}:alarm:{name}")
}

impl Kind for CloudwatchAlarm {
    const NAME: &'static str = "cloudwatch-alarm";
    const IMMUTABLE: &'static [&'static str] = &["name"];
    const ARNS: &'static [&'static str] = &["cloudwatch:alarm:"];

    type Spec = Spec;
    type Outputs = Outputs;

    async fn observe(site: &Site<'_>, spec: &Spec) -> Result<Option<Live<Spec, Outputs>>, KindError> {
        let Some(alarm) = find(site, &spec.name).await? else {
            return Ok(None);
        };
        let arn = alarm.alarm_arn().unwrap_or_default().to_owned();
        let tagged =
            listed_tagged(site, &arn).await || tagged(site, read_tags(site, &arn).await?.iter().map(pair));
        Ok(Some(Live {
            spec: Spec {
                tagged,
                ..read(&alarm)
            },
            outputs: Outputs { arn },
            settling: None,
        }))
    }

    async fn create(site: &Site<'_>, spec: &Spec) -> Result<(), KindError> {
        put(site, spec).await
    }

    /// The whole alarm; its state stays. Tags by themselves: the other call ignores them on an alarm that exists.
    async fn update(site: &Site<'_>, spec: &Spec, live: &Live<Spec, Outputs>) -> Result<(), KindError> {
        let but_for_tags = Spec {
            tagged: live.spec.tagged,
            ..spec.clone()
        };
        if but_for_tags != live.spec {
            put(site, spec).await?;
        }
        if !live.spec.tagged {
            let request = site.cloud.cloudwatch(site.region).tag_resource();
            let request = request
                .resource_arn(&live.outputs.arn)
                .set_tags(Some(tag_list(site)));
            let result = request.send().await;
            result.map_err(|e| site.fail("TagResource", &spec.name, e))?;
        }
        Ok(())
    }

    async fn delete(site: &Site<'_>, live: &Live<Spec, Outputs>) -> Result<(), KindError> {
        Self::discard(site, &live.spec.name).await
    }

    async fn discard(site: &Site<'_>, name: &str) -> Result<(), KindError> {
        let request = site
            .cloud
            .cloudwatch(site.region)
            .delete_alarms()
            .alarm_names(name);
        absent(
            request.send().await,
            &["ResourceNotFound", "ResourceNotFoundException"],
        )
        .map_err(|e| site.fail("DeleteAlarms", name, e))?;
        Ok(())
    }

    /// By name.
    async fn list(site: &Site<'_>) -> Result<Vec<Found>, KindError> {
        let cloudwatch = site.cloud.cloudwatch(site.region);
        let mut pages = cloudwatch.describe_alarms().into_paginator().send();
        let mut found = Vec::new();
        while let Some(page) = pages.next().await {
            let page = page.map_err(|e| site.fail("DescribeAlarms", site.suffix, e))?;
            for alarm in page.metric_alarms() {
                let name = alarm.alarm_name().unwrap_or_default();
                if !named_ours(name, site.suffix) {
                    continue;
                }
                let tags = read_tags(site, alarm.alarm_arn().unwrap_or_default()).await?;
                found.push(site.found::<CloudwatchAlarm>(name, key_of(site, tags.iter().map(pair))));
            }
        }
        Ok(found)
    }
}

fn pair(tag: &Tag) -> (&str, &str) {
    (tag.key().unwrap_or_default(), tag.value().unwrap_or_default())
}

async fn read_tags(site: &Site<'_>, arn: &str) -> Result<Vec<Tag>, KindError> {
    let request = site.cloud.cloudwatch(site.region).list_tags_for_resource();
    let result = request.resource_arn(arn).send().await;
    let answer = absent(result, &["ResourceNotFoundException"])
        .map_err(|e| site.fail("ListTagsForResource", arn, e))?;
    Ok(answer.and_then(|answer| answer.tags).unwrap_or_default())
}

fn tag_list(site: &Site<'_>) -> Vec<Tag> {
    let tag = |(key, value)| Tag::builder().key(key).value(value).build();
    tags(site).into_iter().map(tag).collect()
}

/// A percentile goes into another field than the plain statistics.
fn is_percentile(statistic: &str) -> bool {
    statistic.starts_with('p')
}

/// Tags count when it is created, and are ignored otherwise.
/// The alarm of this name. The first look of a run takes it from one description of all that the listing by tag knows.
async fn find(site: &Site<'_>, name: &str) -> Result<Option<MetricAlarm>, KindError> {
    let list = async {
        let listing = listing(site).await;
        let ours = arn(site.region, site.account, "");
        let names: Vec<String> = listing
            .arns()
            .filter_map(|arn| arn.strip_prefix(&ours).map(str::to_owned))
            .collect();
        let mut by_name = HashMap::new();
        for names in names.chunks(NAMES_PER_CALL) {
            let alarms = describe(site, names).await?.into_iter();
            by_name.extend(alarms.filter_map(|alarm| Some((alarm.alarm_name()?.to_owned(), alarm))));
        }
        Ok(by_name)
    };
    let listed = site.cloud.first_look(site.region, site.suffix, name, list);
    if let Some(alarm) = listed.await? {
        return Ok(Some(alarm));
    }
    Ok(describe(site, &[name.to_owned()]).await?.into_iter().next())
}

async fn describe(site: &Site<'_>, names: &[String]) -> Result<Vec<MetricAlarm>, KindError> {
    let request = site.cloud.cloudwatch(site.region).describe_alarms();
    let request = request
        .set_alarm_names(Some(names.to_vec()))
        .max_records(NAMES_PER_CALL as i32);
    let subject = names.first().map_or(site.suffix, String::as_str);
    let answer = request
        .send()
        .await
        .map_err(|e| site.fail("DescribeAlarms", subject, e))?;
    Ok(answer.metric_alarms.unwrap_or_default())
}

async fn put(site: &Site<'_>, spec: &Spec) -> Result<(), KindError> {
    let percentile = is_percentile(&spec.statistic);
    let dimension = |(name, value): (&String, &String)| Dimension::builder().name(name).value(value).build();
    site.cloud
        .cloudwatch(site.region)
        .put_metric_alarm()
        .alarm_name(&spec.name)
        .alarm_description(&spec.description)
        .namespace(&spec.metric.namespace)
        .metric_name(&spec.metric.name)
        .set_dimensions(Some(spec.metric.dimensions.iter().map(dimension).collect()))
        .set_statistic((!percentile).then(|| Statistic::from(spec.statistic.as_str())))
        .set_extended_statistic(percentile.then(|| spec.statistic.clone()))
        // A percentile of a handful of requests says nothing.
        .set_evaluate_low_sample_count_percentile(percentile.then(|| "ignore".to_owned()))
        .period(spec.period_s)
        .evaluation_periods(spec.evaluation_periods)
        .datapoints_to_alarm(spec.datapoints_to_alarm)
        .threshold(spec.threshold)
        .comparison_operator(ComparisonOperator::from(spec.comparison.as_str()))
        .treat_missing_data(&spec.missing_data)
        .actions_enabled(spec.actions_enabled)
        .set_alarm_actions(Some(spec.alarm_actions.iter().cloned().collect()))
        .set_ok_actions(Some(spec.ok_actions.iter().cloned().collect()))
        .set_tags(Some(tag_list(site)))
        .send()
        .await
        .map_err(|e| site.fail("PutMetricAlarm", &spec.name, e))?;
    Ok(())
}

fn read(live: &MetricAlarm) -> Spec {
    let text = |value: Option<&str>| value.unwrap_or_default().to_owned();
    let statistic = match live.extended_statistic() {
        Some(percentile) => percentile.to_owned(),
        None => text(live.statistic().map(Statistic::as_str)),
    };
    let pair = |dimension: &Dimension| (text(dimension.name()), text(dimension.value()));
    let evaluation_periods = live.evaluation_periods().unwrap_or_default();
    Spec {
        name: text(live.alarm_name()),
        description: text(live.alarm_description()),
        metric: Metric {
            namespace: text(live.namespace()),
            name: text(live.metric_name()),
            dimensions: live.dimensions().iter().map(pair).collect(),
        },
        statistic,
        period_s: live.period().unwrap_or_default(),
        evaluation_periods,
        // What CloudWatch does when it is not told.
        datapoints_to_alarm: live.datapoints_to_alarm().unwrap_or(evaluation_periods),
        threshold: live.threshold().unwrap_or_default(),
        comparison: text(live.comparison_operator().map(ComparisonOperator::as_str)),
        missing_data: live.treat_missing_data().unwrap_or("missing").to_owned(),
        alarm_actions: live.alarm_actions().iter().cloned().collect(),
        ok_actions: live.ok_actions().iter().cloned().collect(),
        actions_enabled: live.actions_enabled().unwrap_or(true),
        // Not in the description.
        tagged: false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_percentile_and_a_plain_statistic_are_read_from_their_own_fields() {
        let alarm = MetricAlarm::builder()
            .extended_statistic("p99")
            .evaluation_periods(5);
        let alarm = alarm
            .dimensions(Dimension::builder().name("Stage").value("live").build())
            .build();
        let spec = read(&alarm);
        assert_eq!(spec.statistic, "p99");
        assert_eq!(
            spec.datapoints_to_alarm, 5,
            "all of them, unless it says otherwise"
        );
        assert_eq!(spec.metric.dimensions["Stage"], "live");
        assert!(is_percentile("p99") && !is_percentile("Sum"));
        let plain = MetricAlarm::builder().statistic(Statistic::Sum).build();
        assert_eq!(read(&plain).statistic, "Sum");
    }
}
