//! Metrics without a call: a line of the log in CloudWatch's embedded metric format, from which CloudWatch makes the metric.
//! <https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/CloudWatch_Embedded_Metric_Format_Specification.html>

use std::io::Write;

use serde_json::{Map, Value, json};

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
    line_with(dimensions, metrics, &[], now_ms)
}

/// The line that carries `metrics`, and members that are no metrics.
pub fn line_with(
    dimensions: &[(&str, &str)],
    metrics: &[(&str, Unit, u64)],
    also: &[(&str, Value)],
    now_ms: u64,
) -> String {
    let names: Vec<&str> = dimensions.iter().map(|(name, _)| *name).collect();
    let definitions: Vec<Value> = metrics
        .iter()
        .map(|(name, unit, _)| json!({"Name": name, "Unit": unit.as_str()}))
        .collect();
    let mut line = Map::new();
    line.insert(
        "_aws".into(),
        json!({"Timestamp": now_ms, "CloudWatchMetrics": [
            {"Namespace": NAMESPACE, "Dimensions": [names], "Metrics": definitions}]}),
    );
    line.extend(
        dimensions
            .iter()
            .map(|(name, value)| ((*name).to_owned(), json!(value))),
    );
    line.extend(
        metrics
            .iter()
            .map(|(name, _, value)| ((*name).to_owned(), json!(value))),
    );
    line.extend(
        also.iter()
            .map(|(name, value)| ((*name).to_owned(), value.clone())),
    );
    Value::Object(line).to_string()
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
