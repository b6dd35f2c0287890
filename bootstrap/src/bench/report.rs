//! What was measured, for a person and for a program.

use std::fmt;

use load::Done;
use serde::Serialize;

use super::Plan;
use super::cpu::Cost;

/// At least this many times pgbench's TPC-B-like script.
const TPCB_TARGET: f64 = 1.5;
/// At least this part of pgbench calling the function bare.
const BARE_TARGET: f64 = 0.9;
/// At least this many times pgbench updating one row.
const HOT_TARGET: f64 = 1.0;

/// One run of the load.
#[derive(Debug, Clone, Serialize)]
pub struct Load {
    /// Rate and cost.
    #[serde(flatten)]
    pub row: Row,
    /// Number and times.
    #[serde(flatten)]
    pub done: Done,
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
    let whole = [("whole".to_owned(), load.done.latency)];
    for (name, times) in whole.iter().chain(&load.done.steps) {
        writeln!(
            f,
            "    {name:<28} {:8} {:8} {:8} {:8}",
            times.p50_us, times.p90_us, times.p99_us, times.max_us
        )?;
    }
    Ok(())
}
