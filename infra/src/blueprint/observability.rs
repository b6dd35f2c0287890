//! Who is told what: an alert topic in each serving region, alarms that publish to it, a dashboard over both regions, and what
//! happens to asynchronous calls that fail. Nothing that serves depends on any of it.

use std::collections::BTreeSet;

use continuity::names::{STAGE, Slot};
use serde_json::{Value, json};

use super::Context;
use super::functions::{FAILOVER_COORDINATOR, HEALTH_PROBE, PAYMENT_PROCESSOR};
use super::keys::Key;
use crate::documents::normal_policy;
use crate::graph::{Blueprint, Handle};
use crate::resources::cloudwatch_alarm::{self, CloudwatchAlarm, Metric};
use crate::resources::cloudwatch_dashboard::{self, CloudwatchDashboard};
use crate::resources::kms_key_policy::{self, KmsKeyPolicy};
use crate::resources::lambda_async_config::{self, LambdaAsyncConfig};
use crate::resources::lambda_function::{self, LambdaFunction};
use crate::resources::sns_topic::{self, SnsTopic, Subscription};
use crate::resources::state_machine;

/// The namespace of the functions' own metrics.
pub const NAMESPACE: &str = "Understudy";
/// Their one dimension: the suffix.
pub const STACK_DIMENSION: &str = "Stack";
/// Resources that a reconcile found other than wanted.
pub const DRIFT: &str = "Drift";
/// 1 when a readiness evaluation found nothing in the way of a takeover, else 0.
pub const READY: &str = "Ready";
/// Exercises that missed an objective or broke off.
pub const DRILL_FAILED: &str = "DrillFailed";
/// The epoch, as a region sees it.
pub const EPOCH: &str = "Epoch";
/// Commands answered.
pub const ACKNOWLEDGED: &str = "Acknowledged";
/// Payments declined.
pub const DECLINED: &str = "Declined";

/// The shortest period of a metric that is not made for it, and the one that AWS's own metrics have.
const MINUTE_S: i32 = 60;
/// Drills and reconciles come minutes apart: one datapoint holds one of them.
const FIVE_MINUTES_S: i32 = 300;

/// Usually below a second. What is behind must be replayed from the journal in a failover, which then takes longer.
const LAG_LIMIT_MS: f64 = 10_000.0;
/// A restart of an instance, or a switchover, interrupts replication for less than this many minutes.
const LAG_MINUTES: i32 = 3;
/// A share of commands that fail which no retry hides from customers.
const ERROR_RATE_LIMIT: f64 = 0.05;
/// A planned change drains for less than a minute, and answers 503 meanwhile.
const ERROR_MINUTES: i32 = 3;
/// A command crosses to the other region twice; it takes tens of milliseconds. At this, clients begin to give up.
const LATENCY_LIMIT_MS: f64 = 2_000.0;
/// Longer than a failover.
const LATENCY_MINUTES: i32 = 5;
/// A probe is called each minute; so many missing calls are no hiccup of the scheduler.
const SILENT_MINUTES: i32 = 5;
/// So many intervals in which a schedule should have started its workflow.
///
/// Together they are shorter than what an alarm may look back on: a day, or seven with a period of an hour or more
/// (<https://docs.aws.amazon.com/AmazonCloudWatch/latest/APIReference/API_PutMetricAlarm.html>).
const SILENT_INTERVALS: i32 = 3;

/// The key may be used by CloudWatch to publish to an encrypted topic (with `alias/aws/sns` it could not: nobody can change that
/// key's policy), and then the topic.
pub fn alerts(blueprint: &mut Blueprint, context: &Context<'_>, slot: Slot, key: &Key) -> Handle<SnsTopic> {
    let place = context.place(slot);
    let account = context.account.to_owned();
    let from_our_alarms = from_our_alarms(context, slot);
    let statement = json!({"Sid": "AlarmsPublish", "Effect": "Allow",
        "Principal": {"Service": "cloudwatch.amazonaws.com"},
        "Action": ["kms:Decrypt", "kms:GenerateDataKey*"], "Resource": "*", "Condition": from_our_alarms});
    let policy: Handle<KmsKeyPolicy> = blueprint.add(
        format!("kms-key-policy.{slot}"),
        &place,
        key.clone(),
        move |key_arn| kms_key_policy::Spec::with(key_arn, &account, vec![statement.clone()]),
    );
    let name = context.names.alert_topic(slot);
    let arn = sns_topic::arn(context.region(slot), context.account, &name);
    let publish = normal_policy(&json!({"Version": "2012-10-17", "Statement": [{
        "Sid": "AlarmsPublish", "Effect": "Allow", "Principal": {"Service": "cloudwatch.amazonaws.com"},
        "Action": "sns:Publish", "Resource": arn, "Condition": from_our_alarms}]}));
    let subscriptions: BTreeSet<_> = context
        .spec
        .alerts
        .address
        .iter()
        .map(|address| subscription(address))
        .collect();
    blueprint.add(
        format!("alert-topic.{slot}"),
        &place,
        policy,
        move |key: kms_key_policy::Outputs| sns_topic::Spec {
            name: name.clone(),
            kms_key_arn: key.key_arn,
            policy: publish.clone(),
            subscriptions: subscriptions.clone(),
            tagged: true,
        },
    )
}

fn from_our_alarms(context: &Context<'_>, slot: Slot) -> Value {
    let alarms = cloudwatch_alarm::arn(
        context.region(slot),
        context.account,
        &format!("*-{}", context.spec.suffix),
    );
    json!({"StringEquals": {"aws:SourceAccount": context.account}, "ArnLike": {"aws:SourceArn": alarms}})
}

fn subscription(address: &str) -> Subscription {
    let protocol = if address.starts_with("https://") {
        "https"
    } else {
        "email"
    };
    Subscription {
        protocol: protocol.into(),
        endpoint: address.to_owned(),
    }
}

/// What becomes of an asynchronous call of a function that fails. Most calls are waited for and not concerned.
pub fn async_calls(
    blueprint: &mut Blueprint,
    context: &Context<'_>,
    slot: Slot,
    package: &str,
    function: &Handle<LambdaFunction>,
    topic: Option<&Handle<SnsTopic>>,
) {
    let (retries, max_age_s) = match package {
        // Its steps can be repeated, and whoever started one asynchronously wants it done.
        FAILOVER_COORDINATOR => (2, 60 * 60),
        // The next minute brings the next invocation.
        HEALTH_PROBE => (0, 60),
        // Its tasks are waited for; a stray call has no second chance to surprise anybody.
        _ => (0, 60),
    };
    let _: Handle<LambdaAsyncConfig> = blueprint.add(
        format!("async-calls.{package}.{slot}"),
        &context.place(slot),
        (function.clone(), topic.cloned()),
        move |(function, topic): (lambda_function::Outputs, Option<sns_topic::Outputs>)| {
            lambda_async_config::Spec {
                function: function.name,
                retries,
                max_age_s,
                on_failure: topic.map(|topic| topic.arn),
            }
        },
    );
}

/// An alarm in words and numbers.
#[derive(Debug, Clone)]
struct Watch {
    what: String,
    description: &'static str,
    metric: Metric,
    statistic: &'static str,
    period_s: i32,
    /// So many of so many datapoints.
    breaches: (i32, i32),
    limit: f64,
    comparison: &'static str,
    missing_data: &'static str,
}

impl Watch {
    /// Above a limit, three minutes running; no data is good news. The rest is for the caller to change.
    fn above(what: impl Into<String>, description: &'static str, metric: Metric, limit: f64) -> Self {
        Watch {
            what: what.into(),
            description,
            metric,
            statistic: "Sum",
            period_s: MINUTE_S,
            breaches: (3, 3),
            limit,
            comparison: "GreaterThanThreshold",
            missing_data: "notBreaching",
        }
    }

    /// Nothing for so many periods running. Services report only what happened, so no data is what it is about; right after it was
    /// made it goes off until the first time.
    fn silent(what: &str, description: &'static str, metric: Metric, period_s: i32, periods: i32) -> Self {
        Watch {
            period_s,
            breaches: (periods, periods),
            comparison: "LessThanThreshold",
            missing_data: "breaching",
            ..Watch::above(format!("{what}-silent"), description, metric, 1.0)
        }
    }
}

fn metric<'a>(
    namespace: &str,
    name: &str,
    dimensions: impl IntoIterator<Item = (&'a str, String)>,
) -> Metric {
    Metric {
        namespace: namespace.into(),
        name: name.into(),
        dimensions: dimensions
            .into_iter()
            .map(|(name, value)| (name.to_owned(), value))
            .collect(),
    }
}

fn own_metric(context: &Context<'_>, name: &str) -> Metric {
    metric(NAMESPACE, name, [(STACK_DIMENSION, context.spec.suffix.clone())])
}

fn functions(context: &Context<'_>, slot: Slot) -> [(&'static str, String); 3] {
    let names = &context.names;
    [
        (PAYMENT_PROCESSOR, names.payment_processor(slot)),
        (HEALTH_PROBE, names.health_probe(slot)),
        (FAILOVER_COORDINATOR, names.failover_coordinator(slot)),
    ]
}

/// The command that moves money. Not the whole API: the standby's `/health` says 503 all the time, and must.
fn payments_metric(context: &Context<'_>, slot: Slot, name: &str) -> Metric {
    let dimensions = [
        ("ApiName", context.names.rest_api(slot)),
        ("Stage", STAGE.to_owned()),
        ("Resource", "/v1/payments".to_owned()),
        ("Method", "POST".to_owned()),
    ];
    metric("AWS/ApiGateway", name, dimensions)
}

fn watches(context: &Context<'_>, slot: Slot) -> Vec<Watch> {
    // AWS reports lag where the data arrives. Which region that is moves, so both are watched, and no data is no alarm.
    let lag = |name| {
        metric(
            "AWS/RDS",
            name,
            [("DBClusterIdentifier", context.names.aurora_cluster(slot))],
        )
    };
    let mut watches = vec![
        Watch {
            statistic: "Maximum",
            breaches: (LAG_MINUTES, LAG_MINUTES),
            ..Watch::above(
                "replication-lag",
                "Aurora's copy in this region is behind the writer. No acknowledged payment is at risk, but a failover takes longer.",
                lag("AuroraGlobalDBReplicationLag"),
                LAG_LIMIT_MS,
            )
        },
        Watch {
            statistic: "Maximum",
            breaches: (LAG_MINUTES, LAG_MINUTES),
            ..Watch::above(
                "recovery-point-lag",
                "Commits of the writer are not yet in this region's copy. A failover would replay them from the journal; a switchover waits.",
                lag("AuroraGlobalDBRPOLag"),
                LAG_LIMIT_MS,
            )
        },
        Watch {
            // Of a metric that is 0 or 1 for each request: the share that failed.
            statistic: "Average",
            breaches: (ERROR_MINUTES, ERROR_MINUTES),
            ..Watch::above(
                "payments-errors",
                "Payments fail with 5xx in this region.",
                payments_metric(context, slot, "5XXError"),
                ERROR_RATE_LIMIT,
            )
        },
        Watch {
            statistic: "p99",
            breaches: (LATENCY_MINUTES, LATENCY_MINUTES),
            ..Watch::above(
                "payments-latency",
                "One payment in a hundred takes longer than clients wait.",
                payments_metric(context, slot, "Latency"),
                LATENCY_LIMIT_MS,
            )
        },
        Watch {
            breaches: (1, 1),
            ..Watch::above(
                "failover-failed",
                "A failover did not come to its end in this region. It can be started again: see the execution's last step.",
                executions(context, slot, "failover", "ExecutionsFailed"),
                0.0,
            )
        },
        Watch {
            breaches: (1, 1),
            ..Watch::above(
                "recovery-failed",
                "After a failover the old region was not taken back, or what only it had was not compared: `understudy status` shows the \
                 region, `understudy lost-tail --again` goes on.",
                executions(context, slot, "recovery", "ExecutionsFailed"),
                0.0,
            )
        },
        Watch {
            statistic: "Maximum",
            period_s: FIVE_MINUTES_S,
            breaches: (1, 1),
            ..Watch::above(
                "drift",
                "Resources were not as the blueprint wants them. `understudy status` says which and whether they were repaired.",
                own_metric(context, DRIFT),
                0.0,
            )
        },
        Watch {
            statistic: "Minimum",
            period_s: FIVE_MINUTES_S,
            breaches: (1, 1),
            comparison: "LessThanThreshold",
            // Between two evaluations the last one holds.
            missing_data: "ignore",
            ..Watch::above(
                "not-ready",
                "A takeover could fail: `understudy readiness` says what is in its way and what to do.",
                own_metric(context, READY),
                1.0,
            )
        },
        Watch {
            period_s: FIVE_MINUTES_S,
            breaches: (1, 1),
            ..Watch::above(
                "drill-failed",
                "An exercise broke off or missed its objective. A real failover may, too: see its evidence.",
                own_metric(context, DRILL_FAILED),
                0.0,
            )
        },
        Watch::silent(
            HEALTH_PROBE,
            "Nothing calls this region's observer: its schedule is off or fails. A failover needs two observers.",
            function_metric("Invocations", context.names.health_probe(slot)),
            MINUTE_S,
            SILENT_MINUTES,
        ),
        Watch::silent(
            "reconcile",
            "Nothing starts this region's reconciles: their schedule is off, fails, or is so new that none was due. While the region \
             serves, drift is neither seen nor repaired.",
            executions(context, slot, "reconcile", "ExecutionsStarted"),
            i32::from(context.spec.reconcile.interval_minutes) * MINUTE_S,
            SILENT_INTERVALS,
        ),
        Watch::silent(
            "readiness",
            "Nothing starts this region's readiness evaluations: their schedule is off, fails, or is so new that none was due. What \
             `understudy readiness` says grows old.",
            executions(context, slot, "readiness", "ExecutionsStarted"),
            i32::from(context.spec.readiness.interval_minutes) * MINUTE_S,
            SILENT_INTERVALS,
        ),
    ];
    for (package, name) in functions(context, slot) {
        watches.push(Watch {
            breaches: error_minutes(package),
            ..Watch::above(
                format!("{package}-errors"),
                "Calls of the function end with an error, a crash or a timeout: see its log.",
                function_metric("Errors", name.clone()),
                0.0,
            )
        });
        watches.push(Watch {
            breaches: (3, 5),
            ..Watch::above(
                format!("{package}-throttles"),
                "Calls of the function are refused: its concurrency, or the account's, is used up.",
                function_metric("Throttles", name),
                0.0,
            )
        });
    }
    watches
}

/// In how many of how many minutes a function must have failed.
fn error_minutes(package: &str) -> (i32, i32) {
    match package {
        // Workflows learn from its errors what to try again: only errors that do not end are news.
        FAILOVER_COORDINATOR => (12, 15),
        _ => (3, 5),
    }
}

fn function_metric(name: &str, function: String) -> Metric {
    metric("AWS/Lambda", name, [("FunctionName", function)])
}

fn executions(context: &Context<'_>, slot: Slot, workflow: &str, name: &str) -> Metric {
    let machine = context.names.state_machine(workflow, slot);
    let arn = state_machine::arn(context.region(slot), context.account, &machine);
    metric("AWS/States", name, [("StateMachineArn", arn)])
}

/// The alarms of a serving region. Each tells the topic when it goes off and when it is over.
pub fn alarms(blueprint: &mut Blueprint, context: &Context<'_>, slot: Slot, topic: &Handle<SnsTopic>) {
    for watch in watches(context, slot) {
        let name = context.names.regional(&watch.what, slot);
        let _: Handle<CloudwatchAlarm> = blueprint.add(
            format!("alarm.{}.{slot}", watch.what),
            &context.place(slot),
            topic.clone(),
            move |topic: sns_topic::Outputs| cloudwatch_alarm::Spec {
                name: name.clone(),
                description: watch.description.into(),
                metric: watch.metric.clone(),
                statistic: watch.statistic.into(),
                period_s: watch.period_s,
                evaluation_periods: watch.breaches.1,
                datapoints_to_alarm: watch.breaches.0,
                threshold: watch.limit,
                comparison: watch.comparison.into(),
                missing_data: watch.missing_data.into(),
                alarm_actions: BTreeSet::from([topic.arn.clone()]),
                ok_actions: BTreeSet::from([topic.arn]),
                actions_enabled: true,
                tagged: true,
            },
        );
    }
}

/// One dashboard with both regions side by side.
pub fn dashboard(blueprint: &mut Blueprint, context: &Context<'_>) {
    let spec = cloudwatch_dashboard::Spec {
        name: context.names.dashboard(),
        body: body(context),
    };
    let _: Handle<CloudwatchDashboard> =
        blueprint.add("dashboard", &context.global(), (), move |()| spec.clone());
}

/// The dashboard is 24 units wide: each region gets half.
const HALF: u32 = 12;
const GRAPH_HEIGHT: u32 = 6;

fn body(context: &Context<'_>) -> Value {
    let heading = format!(
        "# Understudy `{}`\nLeft **{}** ({}), right **{}** ({}). The epoch grows by one each time the active region changes.",
        context.spec.suffix,
        context.region(Slot::Primary),
        Slot::Primary,
        context.region(Slot::Dr),
        Slot::Dr
    );
    let mut widgets = vec![
        json!({"type": "text", "x": 0, "y": 0, "width": 2 * HALF, "height": 2,
        "properties": {"markdown": heading}}),
    ];
    let mut y = 2;
    for (x, slot) in [0, HALF].into_iter().zip(Slot::SERVING) {
        let arn = |watch: Watch| {
            let name = context.names.regional(&watch.what, slot);
            cloudwatch_alarm::arn(context.region(slot), context.account, &name)
        };
        let alarms: Vec<_> = watches(context, slot).into_iter().map(arn).collect();
        widgets.push(
            json!({"type": "alarm", "x": x, "y": y, "width": HALF, "height": 4,
            "properties": {"title": format!("Alarms, {slot}"), "alarms": alarms}}),
        );
    }
    y += 4;
    for row in 0..graphs(context, Slot::Primary).len() {
        for (x, slot) in [0, HALF].into_iter().zip(Slot::SERVING) {
            let graph = &graphs(context, slot)[row];
            let lines: Vec<_> = graph.lines.iter().map(Line::to_json).collect();
            widgets.push(
                json!({"type": "metric", "x": x, "y": y, "width": HALF, "height": GRAPH_HEIGHT, "properties": {
                "title": format!("{}, {slot}", graph.title), "region": context.region(slot), "view": "timeSeries",
                "period": MINUTE_S, "yAxis": {"left": {"min": 0, "label": graph.unit, "showUnits": false}},
                "metrics": lines}}),
            );
        }
        y += GRAPH_HEIGHT;
    }
    json!({"start": "-PT3H", "widgets": widgets})
}

struct Graph {
    title: &'static str,
    unit: &'static str,
    lines: Vec<Line>,
}

struct Line {
    label: String,
    statistic: &'static str,
    metric: Metric,
}

impl Line {
    fn new(label: impl Into<String>, statistic: &'static str, metric: Metric) -> Self {
        Line {
            label: label.into(),
            statistic,
            metric,
        }
    }

    fn to_json(&self) -> Value {
        let Metric {
            namespace,
            name,
            dimensions,
        } = &self.metric;
        let mut parts = vec![json!(namespace), json!(name)];
        parts.extend(
            dimensions
                .iter()
                .flat_map(|(name, value)| [json!(name), json!(value)]),
        );
        parts.push(json!({"label": self.label, "stat": self.statistic}));
        Value::Array(parts)
    }
}

fn graphs(context: &Context<'_>, slot: Slot) -> Vec<Graph> {
    let api = |name| {
        let dimensions = [
            ("ApiName", context.names.rest_api(slot)),
            ("Stage", STAGE.to_owned()),
        ];
        metric("AWS/ApiGateway", name, dimensions)
    };
    let lag = |name| {
        metric(
            "AWS/RDS",
            name,
            [("DBClusterIdentifier", context.names.aurora_cluster(slot))],
        )
    };
    let each = |what: &'static str| {
        functions(context, slot).map(move |(package, name)| {
            Line::new(
                format!("{package} {}", what.to_lowercase()),
                "Sum",
                function_metric(what, name),
            )
        })
    };
    let graph = |title, unit, lines| Graph { title, unit, lines };
    vec![
        graph(
            "Payments",
            "per minute",
            vec![
                Line::new("acknowledged", "Sum", own_metric(context, ACKNOWLEDGED)),
                Line::new("declined", "Sum", own_metric(context, DECLINED)),
            ],
        ),
        graph(
            "Epoch",
            "epoch",
            vec![Line::new("epoch", "Maximum", own_metric(context, EPOCH))],
        ),
        graph(
            "Replication lag",
            "ms",
            vec![
                Line::new("lag", "Maximum", lag("AuroraGlobalDBReplicationLag")),
                Line::new("recovery point", "Maximum", lag("AuroraGlobalDBRPOLag")),
            ],
        ),
        graph(
            "Requests and errors",
            "per minute",
            vec![
                Line::new("requests", "Sum", api("Count")),
                Line::new("4xx", "Sum", api("4XXError")),
                Line::new("5xx, the standby's /health among them", "Sum", api("5XXError")),
                Line::new("payments 5xx", "Sum", payments_metric(context, slot, "5XXError")),
            ],
        ),
        graph(
            "Latency of payments",
            "ms",
            ["p50", "p99"]
                .map(|statistic| Line::new(statistic, statistic, payments_metric(context, slot, "Latency")))
                .into(),
        ),
        graph("Function errors", "per minute", each("Errors").into()),
        graph("Throttles", "per minute", each("Throttles").into()),
        graph(
            "Drift",
            "resources",
            vec![Line::new("drift", "Maximum", own_metric(context, DRIFT))],
        ),
    ]
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::collections::BTreeMap;

    use super::*;
    use crate::spec::Spec;

    fn with_context<T>(test: impl FnOnce(&Context<'_>) -> T) -> T {
        let spec = Spec::default();
        test(&Context {
            spec: &spec,
            names: spec.names(),
            account: "000000000000",
        })
    }

    #[test]
    fn the_dashboard_is_what_was_reviewed() {
        with_context(|context| {
            insta::assert_snapshot!(serde_json::to_string_pretty(&body(context)).unwrap())
        });
    }

    #[test]
    fn every_row_of_the_dashboard_shows_both_regions_side_by_side() {
        with_context(|context| {
            let body = body(context);
            let mut rows: BTreeMap<u64, Vec<Value>> = BTreeMap::new();
            for widget in body["widgets"].as_array().unwrap() {
                if widget["type"] == "metric" {
                    rows.entry(widget["y"].as_u64().unwrap())
                        .or_default()
                        .push(widget["properties"].clone());
                }
            }
            assert!(rows.len() >= 6);
            for row in rows.values() {
                assert_eq!(row[0]["region"], "us-east-1");
                assert_eq!(row[1]["region"], "us-east-2");
                let names = |properties: &Value| -> Vec<Value> {
                    properties["metrics"]
                        .as_array()
                        .unwrap()
                        .iter()
                        .map(|line| line[1].clone())
                        .collect()
                };
                assert_eq!(names(&row[0]), names(&row[1]));
            }
        });
    }

    #[test]
    fn the_alarms_are_what_was_reviewed() {
        with_context(|context| {
            let lines: Vec<String> = watches(context, Slot::Dr)
                .into_iter()
                .map(|watch| {
                    let (breaches, of) = watch.breaches;
                    let dimensions: Vec<_> = watch.metric.dimensions.into_values().collect();
                    format!(
                        "{}: {} of {} {} ({}) {} {}, {breaches} of {of} x {} s, no data {}\n    {}",
                        watch.what,
                        watch.statistic,
                        watch.metric.namespace,
                        watch.metric.name,
                        dimensions.join(", "),
                        watch.comparison,
                        watch.limit,
                        watch.period_s,
                        watch.missing_data,
                        watch.description
                    )
                })
                .collect();
            insta::assert_snapshot!(lines.join("\n"));
        });
    }

    #[test]
    fn only_silence_itself_is_alarming() {
        with_context(|context| {
            for watch in watches(context, Slot::Primary) {
                let silence = watch.what.ends_with("-silent");
                assert_eq!(watch.missing_data == "breaching", silence, "{}", watch.what);
            }
        });
    }

    #[test]
    fn an_alarm_looks_back_no_longer_than_it_may_whatever_the_intervals() {
        for interval_minutes in [5, 59, 60, 480, 1440] {
            let mut spec = Spec::default();
            spec.reconcile.interval_minutes = interval_minutes;
            spec.readiness.interval_minutes = interval_minutes;
            let context = Context {
                spec: &spec,
                names: spec.names(),
                account: "000000000000",
            };
            for watch in watches(&context, Slot::Dr) {
                let days = if watch.period_s < 3_600 { 1 } else { 7 };
                let back = watch.period_s * watch.breaches.1;
                assert!(back <= days * 86_400, "{}: {back} s", watch.what);
            }
        }
    }

    #[test]
    fn no_alarm_watches_what_the_standby_answers_all_the_time() {
        with_context(|context| {
            for watch in watches(context, Slot::Dr) {
                if watch.metric.namespace == "AWS/ApiGateway" {
                    assert_eq!(
                        watch.metric.dimensions["Resource"], "/v1/payments",
                        "{}",
                        watch.what
                    );
                }
            }
        });
    }

    #[test]
    fn an_address_is_a_mailbox_or_a_url() {
        assert_eq!(subscription("ops@example.com").protocol, "email");
        assert_eq!(subscription("https://example.com/hook").protocol, "https");
    }
}
