//! What is told of every request: one line, from which CloudWatch takes metrics as well. No body, no header, no id of a
//! customer, no idempotency key: nothing personal, and nothing secret.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use continuity::acknowledge::Took;
use continuity::entry::{EntryKind, EntryStatus};
use continuity::metrics::{self, Unit};
use http::Method;
use serde::Serialize;
use tokio::time::Instant;

/// A request that has arrived, and what becomes known of it on its way. Clones are the same request.
#[derive(Debug, Clone)]
pub struct Received(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    request_id: String,
    at: Instant,
    acknowledged: OnceLock<Acknowledged>,
}

/// A command that was acknowledged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Acknowledged {
    /// What kind of command.
    pub kind: EntryKind,
    /// How it ended.
    pub status: EntryStatus,
    /// Step 1: from the request's arrival to the ledger.
    pub check: Duration,
    /// Steps 2 to 4.
    pub took: Took,
}

impl Received {
    /// A request that arrives now.
    pub fn now(request_id: impl Into<String>) -> Self {
        Received(Arc::new(Inner {
            request_id: request_id.into(),
            at: Instant::now(),
            acknowledged: OnceLock::new(),
        }))
    }

    /// Its id, as API Gateway names it.
    pub fn request_id(&self) -> &str {
        &self.0.request_id
    }

    /// When it arrived.
    pub fn at(&self) -> Instant {
        self.0.at
    }

    /// What became of its command, if it was acknowledged.
    pub fn outcome(&self) -> Option<Acknowledged> {
        self.0.acknowledged.get().copied()
    }

    /// Its command was acknowledged.
    pub fn acknowledged(&self, told: Acknowledged) {
        let _ = self.0.acknowledged.set(told);
    }
}

/// A request and its answer.
#[derive(Debug, Clone)]
pub struct Told<'a> {
    /// The stack's suffix.
    pub stack: &'a str,
    /// This region.
    pub region: &'a str,
    /// The request.
    pub request_id: &'a str,
    /// Its method.
    pub method: &'a Method,
    /// The route that took it, with `{id}` for ids.
    pub route: &'a str,
    /// The status of the answer.
    pub status: u16,
    /// The slug of the problem that was answered.
    pub problem: Option<&'a str>,
    /// The command that was acknowledged.
    pub acknowledged: Option<Acknowledged>,
    /// From arrival to answer.
    pub took: Duration,
}

/// What of a request is no metric.
#[derive(Serialize)]
struct Also<'a> {
    request_id: &'a str,
    method: &'a str,
    route: &'a str,
    status: u16,
    #[serde(skip_serializing_if = "Option::is_none")]
    problem: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    kind: Option<EntryKind>,
}

impl Told<'_> {
    /// The line of the log.
    pub fn line(&self, now_ms: u64) -> String {
        let fenced = self.problem == Some("region-not-active");
        let took = |duration: Duration| u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
        let mut values = vec![
            ("Fenced", Unit::Count, u64::from(fenced)),
            ("Latency", Unit::Microseconds, took(self.took)),
        ];
        if let Some(acknowledged) = &self.acknowledged {
            let declined = acknowledged.status == EntryStatus::Declined;
            values.extend([
                ("Acknowledged", Unit::Count, 1),
                ("Declined", Unit::Count, u64::from(declined)),
                ("CheckLatency", Unit::Microseconds, took(acknowledged.check)),
                (
                    "LedgerLatency",
                    Unit::Microseconds,
                    took(acknowledged.took.ledger),
                ),
                (
                    "JournalLatency",
                    Unit::Microseconds,
                    took(acknowledged.took.journal),
                ),
                ("LookLatency", Unit::Microseconds, took(acknowledged.took.look)),
            ]);
        }
        let also = Also {
            request_id: self.request_id,
            method: self.method.as_str(),
            route: self.route,
            status: self.status,
            problem: self.problem,
            kind: self.acknowledged.map(|acknowledged| acknowledged.kind),
        };
        let dimensions = [("Stack", self.stack), ("Region", self.region)];
        metrics::line_with(&dimensions, &values, &also, now_ms)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use serde_json::{Value, json};

    use super::*;

    fn told(problem: Option<&'static str>, acknowledged: Option<Acknowledged>) -> Value {
        let told = Told {
            stack: "dev",
            region: "us-east-1",
            request_id: "r-1",
            method: &Method::POST,
            route: "/v1/payments/{id}/capture",
            status: 200,
            problem,
            acknowledged,
            took: Duration::from_micros(1_500),
        };
        serde_json::from_str(&told.line(5)).unwrap()
    }

    #[test]
    fn a_line_has_the_four_steps_of_what_was_acknowledged_and_counts_what_was_fenced() {
        let line = told(
            None,
            Some(Acknowledged {
                kind: EntryKind::Capture,
                status: EntryStatus::Declined,
                check: Duration::from_micros(1),
                took: Took {
                    ledger: Duration::from_micros(2),
                    journal: Duration::from_micros(3),
                    look: Duration::from_micros(4),
                },
            }),
        );
        let steps =
            ["CheckLatency", "LedgerLatency", "JournalLatency", "LookLatency"].map(|name| line[name].clone());
        assert_eq!(steps, [1, 2, 3, 4].map(Value::from));
        assert_eq!(
            (&line["Acknowledged"], &line["Declined"], &line["Fenced"]),
            (&json!(1), &json!(1), &json!(0))
        );
        assert_eq!(
            (&line["request_id"], &line["Latency"]),
            (&json!("r-1"), &json!(1_500))
        );
        let fenced = told(Some("region-not-active"), None);
        assert_eq!((&fenced["Fenced"], fenced.get("Acknowledged")), (&json!(1), None));
    }
}
