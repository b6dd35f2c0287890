//! Measurements of release builds: of the handler and its ledger, side by side with PostgreSQL's own benchmark on one server,
//! and of the function.

mod cpu;
pub mod function;
pub mod handler;
mod lambda;
mod pgbench;
mod report;
pub mod takeover;

use std::process::Command;
use std::time::Duration;

use load::{Arrival, Choice, EPOCH};
use payments::ledger::Ledger;

use crate::failure::Failure;
use crate::local::throwaway::Server;
use crate::ui::Ui;

pub use report::{Pgbench, Report};

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
/// Commits are synced, as in the local cloud. All tables fit into memory, as the ones in use do on a production server, and no
/// checkpoint falls into a measurement: Aurora has none.
const SETTINGS: [&str; 5] = [
    "max_connections=200",
    "shared_buffers=1GB",
    "max_wal_size=8GB",
    "checkpoint_timeout=1h",
    "wal_level=replica",
];

/// Measures.
///
/// # Errors
/// The server or one of the programs failed, or a payment was not answered as it should.
pub async fn run(plan: &Plan, ui: &Ui) -> Result<Report, Failure> {
    let most = plan.connections.iter().copied().max().unwrap_or(1);
    ui.step("building the release of the load; the first time takes minutes");
    let program = handler::build().await?;
    ui.step("starting a PostgreSQL server");
    let server = Server::start(&SETTINGS).await?;
    // Both before anything is in them: to make a database is to make a checkpoint.
    server.create(TPCB).await?;
    server.create(LEDGER).await?;
    pgbench::initialise(&server, TPCB, most)?;
    let ledger = server.ledger(LEDGER);
    ledger.migrate().await?;
    ledger.set_epoch(EPOCH).await?;
    ui.step(format!("opening {} accounts", plan.accounts));
    load::open_accounts(&ledger, plan.accounts)
        .await
        .map_err(|error| Failure::new(&error))?;
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
            let load = |choice| handler::load(&program, &server, *connections, plan, choice, Arrival::Closed);
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
        let arrival = Arrival::Open { per_second: rate };
        report.open = Some(handler::load(
            &program,
            &server,
            most,
            plan,
            Choice::Any,
            arrival,
        )?);
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

/// What a program prints, if it succeeds.
fn output(mut command: Command) -> Result<String, Failure> {
    let output = tokio::task::block_in_place(|| command.output())?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        let program = command.get_program().to_string_lossy();
        return Err(Failure::text(format!("`{program}` failed: {}", said.trim())));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
