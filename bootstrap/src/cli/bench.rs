//! The command that measures: `bench`.

use std::sync::Arc;
use std::time::Duration;

use clap::{Args, Subcommand};

use crate::bench::{self, Plan, function, takeover};
use crate::failure::Failure;
use crate::ui::Ui;

/// Measures payments per second through the real handler beside PostgreSQL's own benchmark.
///
/// Starts a PostgreSQL server of its own, with commits synced to disk, and runs in turn, for each number of connections:
/// pgbench's TPC-B-like script, pgbench calling the ledger's function bare, and the payment-processor's handler with a
/// connection each. Then the same with one account that every payment touches, beside pgbench updating one row. Journal and
/// control table are in memory, so what is measured is the handler and the database. The ratios are medians over the rounds.
///
/// The handler is built as it is released, in the source tree that this program comes from; the first time takes minutes.
#[derive(Debug, Args)]
#[command(
    args_conflicts_with_subcommands = true,
    after_help = "Examples:\n  understudy bench                               1, 4 and 16 connections, three rounds of five seconds each\n  understudy bench --connections 16 --rounds 5   more of the busiest\n  understudy bench --rate 1000                   also: 1,000 payments a second, whether or not the last was answered\n  understudy bench function                      the release build: size, start, memory\n  understudy bench takeover --runs 20            how long customers wait when the active region changes"
)]
pub struct Bench {
    #[command(subcommand)]
    what: Option<What>,
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
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(2..=1_000_000))]
    accounts: u32,
    /// Open loop: so many payments a second, with the most connections. Latency then counts from when a payment was due.
    #[arg(long, value_name = "PER_SECOND", value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    rate: Option<u32>,
}

#[derive(Debug, Subcommand)]
enum What {
    Function(Function),
    Takeover(Takeover),
}

/// Measures the payment-processor's release build: its package, its start, its memory.
///
/// Builds it and a hello-world function on the same runtime, packs it as for Lambda, and takes the time from the start of each
/// process until it asks for its first event, in turn. Then it makes payments over TLS to a PostgreSQL server of its own, with
/// Lambda's side and DynamoDB answered at once, and looks at the memory that the process keeps.
#[derive(Debug, Args)]
struct Function {
    /// Starts of each function.
    #[arg(long, default_value_t = 31, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    starts: u32,
    /// Payments before the memory is looked at.
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    payments: u32,
}

/// Measures how long customers are without an answer when the active region changes.
///
/// Starts a local cloud in a temporary folder and deploys the stack; customers pay all along. Each run has a planned change and one
/// back, an unplanned one with the home region cut off and its database killed (nobody starts the takeover), and a planned change
/// home. Prints the distributions, and looks every acknowledged payment up. Exits with 1 if one was lost or duplicated.
#[derive(Debug, Args)]
struct Takeover {
    /// Runs.
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    runs: u32,
}

impl Takeover {
    async fn run(self, ui: &Arc<Ui>) -> Result<(), Failure> {
        let folder = tempfile::Builder::new().prefix("understudy-bench-").tempdir()?;
        let report = tokio::select! {
            report = takeover::run(folder.path(), self.runs, takeover::How::default(), ui) => report?,
            // Dropping the run ends the local cloud.
            _ = tokio::signal::ctrl_c() => return Err(Failure::text("interrupted; the local cloud is being stopped")),
        };
        ui.result(&report, report.to_string());
        if report.lost + report.duplicated == 0 {
            return Ok(());
        }
        Err(Failure::text(format!(
            "{} lost, {} duplicated",
            report.lost, report.duplicated
        )))
    }
}

impl Bench {
    /// Runs the command.
    pub async fn run(self, ui: &Arc<Ui>) -> Result<(), Failure> {
        match self.what {
            Some(What::Function(Function { starts, payments })) => {
                let report = function::run(&function::Plan { starts, payments }, ui).await?;
                ui.result(&report, report.to_string());
                return Ok(());
            }
            Some(What::Takeover(takeover)) => return takeover.run(ui).await,
            None => {}
        }
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
