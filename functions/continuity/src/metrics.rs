//! Metrics without a call: a line of the log in CloudWatch's embedded metric format, from which CloudWatch makes the metric.
//! <https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/CloudWatch_Embedded_Metric_Format_Specification.html>

use std::io::Write;

use serde::{Serialize, Serializer};

/// The namespace of all our metrics.
pub const NAMESPACE: &str = "Understudy";

/// A unit of CloudWatch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unit {
    /// A number of things.
    Count,
    /// A time.
    Milliseconds,
    /// A short time.
    Microseconds,
    /// A number that counts nothing, an epoch for example.
    None,
}

impl Unit {
    fn as_str(self) -> &'static str {
        match self {
            Unit::Count => "Count",
            Unit::Milliseconds => "Milliseconds",
            Unit::Microseconds => "Microseconds",
            Unit::None => "None",
        }
    }
}

/// The line that carries `metrics`, all under the same dimensions.
pub fn line(dimensions: &[(&str, &str)], metrics: &[(&str, Unit, u64)], now_ms: u64) -> String {
    /// No more members.
    #[derive(Serialize)]
    struct Nothing {}
    line_with(dimensions, metrics, &Nothing {}, now_ms)
}

/// The line that carries `metrics`, and the members of a struct that are no metrics.
pub fn line_with(
    dimensions: &[(&str, &str)],
    metrics: &[(&str, Unit, u64)],
    also: &impl Serialize,
    now_ms: u64,
) -> String {
    let line = Line {
        aws: Aws {
            timestamp: now_ms,
            directives: [Directive {
                namespace: NAMESPACE,
                dimensions: [dimensions.iter().map(|(name, _)| *name).collect()],
                metrics: metrics.iter().map(definition).collect(),
            }],
        },
        dimensions: Members::of(dimensions, |(name, value)| (*name, *value)),
        metrics: Members::of(metrics, |(name, _, value)| (*name, *value)),
        also,
    };
    serde_json::to_string(&line).expect("a line is plain data")
}

#[derive(Serialize)]
struct Line<'a, Dimensions, Metrics, Also> {
    #[serde(rename = "_aws")]
    aws: Aws<'a>,
    #[serde(flatten)]
    dimensions: Dimensions,
    #[serde(flatten)]
    metrics: Metrics,
    #[serde(flatten)]
    also: Also,
}

#[derive(Serialize)]
struct Aws<'a> {
    #[serde(rename = "Timestamp")]
    timestamp: u64,
    #[serde(rename = "CloudWatchMetrics")]
    directives: [Directive<'a>; 1],
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Directive<'a> {
    namespace: &'static str,
    dimensions: [Vec<&'a str>; 1],
    metrics: Vec<Definition<'a>>,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Definition<'a> {
    name: &'a str,
    unit: &'static str,
}

fn definition<'a>((name, unit, _): &(&'a str, Unit, u64)) -> Definition<'a> {
    Definition {
        name,
        unit: unit.as_str(),
    }
}

/// What is made of each item, as the members of an object.
struct Members<'a, T, F>(&'a [T], F);

impl<'a, T, U, F: Fn(&'a T) -> (&'a str, U)> Members<'a, T, F> {
    fn of(items: &'a [T], make: F) -> Self {
        Members(items, make)
    }
}

impl<'a, T, U: Serialize, F: Fn(&'a T) -> (&'a str, U)> Serialize for Members<'a, T, F> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().map(&self.1))
    }
}

/// Writes the line to standard output, which is the function's log.
pub fn emit(dimensions: &[(&str, &str)], metrics: &[(&str, Unit, u64)], now_ms: u64) {
    print(&line(dimensions, metrics, now_ms));
}

/// Writes a line to standard output.
pub fn print(line: &str) {
    // A log that cannot be written has nobody to be told.
    let _ = writeln!(std::io::stdout().lock(), "{line}");
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn a_line_is_what_cloudwatch_reads() {
        let text = line(
            &[("Stack", "dev")],
            &[("Drift", Unit::Count, 0), ("Epoch", Unit::None, 2)],
            1_700_000_000_000,
        );
        let value: Value = serde_json::from_str(&text).expect("JSON");
        assert_eq!(
            value,
            json!({
                "_aws": {"Timestamp": 1_700_000_000_000_u64, "CloudWatchMetrics": [{
                    "Namespace": "Understudy",
                    "Dimensions": [["Stack"]],
                    "Metrics": [{"Name": "Drift", "Unit": "Count"}, {"Name": "Epoch", "Unit": "None"}],
                }]},
                "Stack": "dev", "Drift": 0, "Epoch": 2,
            })
        );
        assert!(!text.contains('\n'));
    }
}
