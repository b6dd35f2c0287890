//! The command that measures: `bench`.

use std::sync::Arc;
use std::time::Duration;

use clap::Args;

use crate::bench::{self, Plan};
use crate::failure::Failure;
use crate::ui::Ui;

/// Measures payments per second through the real handler beside PostgreSQL's own benchmark.
///
/// Starts a PostgreSQL server of its own, with commits synced to disk, and runs in turn, for each number of connections:
/// pgbench's TPC-B-like script, pgbench calling the ledger's function bare, and the payment-processor's handler with a
/// connection each. Then the same with one account that every payment touches, beside pgbench updating one row. Journal and
/// control table are in memory, so what is measured is the handler and the database. The ratios are medians over the rounds.
///
/// Build it with optimisation (`cargo run --release -- bench`), or the ratios say little.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  understudy bench                               1, 4 and 16 connections, three rounds of five seconds each\n  understudy bench --connections 16 --rounds 5   more of the busiest\n  understudy bench --rate 1000                   also: 1,000 payments a second, whether or not the last was answered"
)]
pub struct Bench {
    /// Numbers of connections.
    #[arg(long, value_delimiter = ',', default_values_t = [1, 4, 16], value_parser = clap::value_parser!(u32).range(1..=64))]
    connections: Vec<u32>,
    /// Rounds of everything.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=100))]
    rounds: u32,
    /// Seconds of each measurement.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=600))]
    seconds: u32,
    /// Accounts that payments choose from.
    #[arg(long, default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(2..=1_000_000))]
    accounts: u32,
    /// Open loop: so many payments a second, with the most connections. Latency then counts from when a payment was due.
    #[arg(long, value_name = "PER_SECOND", value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    rate: Option<u32>,
}

impl Bench {
    /// Runs the command.
    pub async fn run(self, ui: &Arc<Ui>) -> Result<(), Failure> {
        let plan = Plan {
            connections: self.connections,
            rounds: self.rounds,
            time: Duration::from_secs(u64::from(self.seconds)),
            accounts: self.accounts,
            rate: self.rate,
        };
        let report = bench::run(&plan, ui).await?;
        ui.result(&report, report.to_string());
        Ok(())
    }
}
