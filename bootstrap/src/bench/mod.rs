//! Measurements: of the handler and its ledger, side by side with PostgreSQL's own benchmark on one server, and of the
//! function's release build.

mod cpu;
pub mod function;
pub mod handler;
mod lambda;
mod pgbench;
mod report;

use std::time::Duration;

use payment_processor::ledger::Ledger;

use crate::failure::Failure;
use crate::local::throwaway::Server;
use crate::ui::Ui;

use handler::{Arrival, Choice};
pub use report::{Latency, Pgbench, Report};

/// What to measure.
#[derive(Debug, Clone)]
pub struct Plan {
    /// Numbers of connections.
    pub connections: Vec<u32>,
    /// Rounds of everything.
    pub rounds: u32,
    /// The time of each measurement.
    pub time: Duration,
    /// Accounts that payments choose from.
    pub accounts: u32,
    /// Payments a second of the open loop, if it is wanted.
    pub rate: Option<u32>,
}

/// The database of pgbench's own tables.
const TPCB: &str = "tpcb";
/// The database of the ledger.
const LEDGER: &str = "payments";
/// The epoch of the ledger.
const EPOCH: u64 = 1;
/// Commits are synced, as in the local cloud; the log does not wrap in a measurement.
const SETTINGS: [&str; 4] = [
    "max_connections=200",
    "shared_buffers=256MB",
    "max_wal_size=4GB",
    "wal_level=replica",
];

/// Measures.
///
/// # Errors
/// The server or one of the programs failed, or a payment was not answered as it should.
pub async fn run(plan: &Plan, ui: &Ui) -> Result<Report, Failure> {
    let most = plan.connections.iter().copied().max().unwrap_or(1);
    ui.step("starting a PostgreSQL server");
    let server = Server::start(&SETTINGS).await?;
    server.create(TPCB).await?;
    pgbench::initialise(&server, TPCB, most)?;
    server.create(LEDGER).await?;
    let ledger = server.ledger(LEDGER);
    ledger.migrate().await?;
    ledger.set_epoch(EPOCH).await?;
    ui.step(format!("opening {} accounts", plan.accounts));
    handler::open_accounts(&server, plan.accounts).await?;
    let scripts = pgbench::Scripts::write(&server, plan.accounts)?;
    scripts.prepare_hot_row(&server).await?;

    let mut report = Report::new(plan);
    for round in 1..=plan.rounds {
        for connections in &plan.connections {
            ui.step(format!(
                "round {round} of {}: {connections} connections",
                plan.rounds
            ));
            let run = |script: pgbench::Script| pgbench::run(&server, &script, *connections, most, plan.time);
            let load = |choice| {
                tokio::task::block_in_place(|| {
                    handler::load(&server, *connections, plan, choice, Arrival::Closed)
                })
            };
            let tpcb = run(pgbench::Script::TpcB)?;
            let bare = run(scripts.bare())?;
            let any = load(Choice::Any)?;
            let hot_row = run(scripts.hot_row())?;
            let hot = load(Choice::OneHot)?;
            report.add(*connections, Pgbench { tpcb, bare, hot_row }, any, hot);
        }
    }
    if let Some(rate) = plan.rate {
        ui.step(format!("{rate} payments a second, {most} connections"));
        let arrival = Arrival::Open { rate };
        let load = || handler::load(&server, most, plan, Choice::Any, arrival);
        report.open = Some(tokio::task::block_in_place(load)?);
    }
    let found = ledger.verify().await?;
    if !found.problems.is_empty() {
        return Err(Failure::text(format!(
            "the ledger is wrong: {}",
            found.problems.join("; ")
        )));
    }
    report.deadlocks = pgbench::deadlocks(&server).await?;
    report.entries = found.entries;
    Ok(report)
}
