//! What was measured, for a person and for a program.

use std::fmt;
use std::time::Duration;

use hdrhistogram::Histogram;
use payment_processor::telemetry::Acknowledged;
use serde::Serialize;

use super::Plan;
use super::cpu::{Cost, Cpu};

/// At least this many times pgbench's TPC-B-like script.
const TPCB_TARGET: f64 = 1.5;
/// At least this part of pgbench calling the function bare.
const BARE_TARGET: f64 = 0.9;
/// At least this many times pgbench updating one row.
const HOT_TARGET: f64 = 1.0;

/// Times of payments: the whole and the four steps.
#[derive(Debug)]
pub struct Latency {
    whole: Histogram<u64>,
    steps: [Histogram<u64>; 4],
}

const STEPS: [&str; 4] = ["check", "ledger", "journal", "look"];

fn histogram() -> Histogram<u64> {
    Histogram::new(3).expect("three digits are allowed")
}

impl Default for Latency {
    fn default() -> Self {
        Latency {
            whole: histogram(),
            steps: [histogram(), histogram(), histogram(), histogram()],
        }
    }
}

fn us(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

impl Latency {
    /// Counts one payment.
    pub fn add(&mut self, whole: Duration, told: &Acknowledged) {
        self.whole.record(us(whole)).expect("it grows as needed");
        let steps = [told.check, told.took.ledger, told.took.journal, told.took.look];
        for (histogram, step) in self.steps.iter_mut().zip(steps) {
            histogram.record(us(step)).expect("it grows as needed");
        }
    }

    /// Adds what another connection counted.
    pub fn merge(&mut self, other: &Latency) {
        let all = self.steps.iter_mut().zip(&other.steps);
        for (mine, theirs) in all.chain([(&mut self.whole, &other.whole)]) {
            mine.add(theirs).expect("they grow as needed");
        }
    }
}

/// Quantiles, in microseconds.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Quantiles {
    p50_us: u64,
    p90_us: u64,
    p99_us: u64,
    max_us: u64,
}

impl From<&Histogram<u64>> for Quantiles {
    fn from(histogram: &Histogram<u64>) -> Self {
        Quantiles {
            p50_us: histogram.value_at_quantile(0.5),
            p90_us: histogram.value_at_quantile(0.9),
            p99_us: histogram.value_at_quantile(0.99),
            max_us: histogram.max(),
        }
    }
}

/// One run of the load.
#[derive(Debug, Clone, Serialize)]
pub struct Load {
    /// Rate and cost.
    #[serde(flatten)]
    pub row: Row,
    payments: u64,
    latency: Quantiles,
    steps: Vec<(&'static str, Quantiles)>,
}

impl Load {
    /// Of these payments in this time, which ends now and began `before`.
    pub fn new(latency: &Latency, time: Duration, before: Option<Cpu>) -> Self {
        let payments = latency.whole.len();
        Load {
            row: Row {
                per_second: payments as f64 / time.as_secs_f64(),
                cpu: before.and_then(|before| before.cost_since(payments as f64)),
            },
            payments,
            latency: (&latency.whole).into(),
            steps: STEPS
                .into_iter()
                .zip(latency.steps.iter().map(Quantiles::from))
                .collect(),
        }
    }
}

/// Rate and cost of transactions.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Row {
    /// How many a second.
    pub per_second: f64,
    /// CPU time of each, where the system tells.
    pub cpu: Option<Cost>,
}

/// What pgbench came to.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Pgbench {
    /// Its TPC-B-like script.
    pub tpcb: Row,
    /// The ledger's function, bare.
    pub bare: Row,
    /// One row that everybody updates.
    pub hot_row: Row,
}

#[derive(Debug, Serialize)]
struct Round {
    connections: u32,
    pgbench: Pgbench,
    handler: Load,
    handler_hot: Load,
}

/// A measurement of a round.
type Measured = fn(&Round) -> Row;

/// Everything that was measured.
#[derive(Debug, Serialize)]
pub struct Report {
    optimised: bool,
    rounds: Vec<Round>,
    /// The open loop.
    pub open: Option<Load>,
    /// Deadlocks.
    pub deadlocks: i64,
    /// Entries of the ledger afterwards.
    pub entries: u64,
    #[serde(skip)]
    connections: Vec<u32>,
}

impl Report {
    /// Nothing measured yet.
    pub fn new(plan: &Plan) -> Self {
        Report {
            optimised: !cfg!(debug_assertions),
            rounds: Vec::new(),
            open: None,
            deadlocks: 0,
            entries: 0,
            connections: plan.connections.clone(),
        }
    }

    /// Adds a round.
    pub fn add(&mut self, connections: u32, pgbench: Pgbench, handler: Load, handler_hot: Load) {
        self.rounds.push(Round {
            connections,
            pgbench,
            handler,
            handler_hot,
        });
    }

    fn write_row(
        &self,
        f: &mut fmt::Formatter<'_>,
        connections: u32,
        name: &str,
        measured: Measured,
    ) -> fmt::Result {
        let cost = |of: fn(Cost) -> f64| {
            let each = self.of(connections, |round| measured(round).cpu.map_or(f64::NAN, of));
            if each.is_nan() {
                format!("{:>9}", "-")
            } else {
                format!("{each:9.0}")
            }
        };
        let rate = self.of(connections, |round| measured(round).per_second);
        write!(
            f,
            "  {name:<24} {rate:10.0}  {} {}",
            cost(|cost| cost.machine_us),
            cost(|cost| cost.client_us)
        )
    }

    /// A measurement of pgbench, and how the handler's rate compares with it.
    fn write_beside(
        &self,
        f: &mut fmt::Formatter<'_>,
        connections: u32,
        name: &str,
        ours: Measured,
        theirs: Measured,
        target: f64,
    ) -> fmt::Result {
        let ratio = self.of(connections, |round| {
            ours(round).per_second / theirs(round).per_second
        });
        self.write_row(f, connections, name, theirs)?;
        writeln!(f, "   {}", verdict(ratio, target))
    }

    /// The median over the rounds.
    fn of(&self, connections: u32, what: impl Fn(&Round) -> f64) -> f64 {
        let mut values: Vec<f64> = self
            .rounds
            .iter()
            .filter(|round| round.connections == connections)
            .map(what)
            .collect();
        values.sort_by(f64::total_cmp);
        values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
    }
}

fn verdict(ratio: f64, target: f64) -> String {
    let word = if ratio >= target { "holds" } else { "MISSED" };
    format!("{ratio:5.2}  (target {target:.1}: {word})")
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.optimised {
            writeln!(f, "built without optimisation: the ratios say little")?;
        }
        for connections in &self.connections {
            writeln!(
                f,
                "\n{:<37}   CPU microseconds each",
                format!("{connections} connections")
            )?;
            writeln!(
                f,
                "{:<27}per second       all    client   ratio of the handler's rate",
                ""
            )?;
            let any: Measured = |round| round.handler.row;
            let hot: Measured = |round| round.handler_hot.row;
            self.write_row(f, *connections, "handler", any)?;
            writeln!(f)?;
            let beside: [(&str, Measured, f64); 2] = [
                ("pgbench, TPC-B-like", |round| round.pgbench.tpcb, TPCB_TARGET),
                ("pgbench, function bare", |round| round.pgbench.bare, BARE_TARGET),
            ];
            for (name, theirs, target) in beside {
                self.write_beside(f, *connections, name, any, theirs, target)?;
            }
            self.write_row(f, *connections, "handler, one hot account", hot)?;
            writeln!(f)?;
            let theirs: Measured = |round| round.pgbench.hot_row;
            self.write_beside(f, *connections, "pgbench, one hot row", hot, theirs, HOT_TARGET)?;
            if let Some(last) = self
                .rounds
                .iter()
                .rev()
                .find(|round| round.connections == *connections)
            {
                write_latency(f, "", &last.handler)?;
                write_latency(f, ", one hot account", &last.handler_hot)?;
            }
        }
        if let Some(open) = &self.open {
            writeln!(f, "\nopen loop: {:.0} payments a second", open.row.per_second)?;
            write_latency(f, ", from when it was due", open)?;
        }
        write!(
            f,
            "\n{} entries, ledger verified, {} deadlocks",
            self.entries, self.deadlocks
        )
    }
}

fn write_latency(f: &mut fmt::Formatter<'_>, what: &str, load: &Load) -> fmt::Result {
    writeln!(
        f,
        "  latency{what}, microseconds       p50      p90      p99      max"
    )?;
    let whole = [("whole", load.latency)];
    for (name, times) in whole.iter().chain(&load.steps) {
        writeln!(
            f,
            "    {name:<28} {:8} {:8} {:8} {:8}",
            times.p50_us, times.p90_us, times.p99_us, times.max_us
        )?;
    }
    Ok(())
}
