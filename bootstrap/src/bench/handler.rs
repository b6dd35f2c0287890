//! Runs of the load (the crate `load`), as released, in a process of its own.

use std::path::{Path, PathBuf};
use std::process::Command;

use load::{Arrival, Choice, Done};

use super::cpu::Cpu;
use super::report::{Load, Row};
use super::{LEDGER, Plan, output, pgbench};
use crate::artifacts;
use crate::failure::Failure;
use crate::local::throwaway::Server;

const PROGRAM: &str = "load";

/// Builds its program.
///
/// # Errors
/// There is no source tree, or the build failed.
pub async fn build() -> Result<PathBuf, Failure> {
    let folder = artifacts::release(PROGRAM, &["--bin", PROGRAM])
        .await
        .map_err(|error| Failure::new(&error))?;
    Ok(folder.join(PROGRAM))
}

/// Runs it.
///
/// # Errors
/// A payment was not acknowledged as created.
pub fn load(
    program: &Path,
    server: &Server,
    connections: u32,
    plan: &Plan,
    choice: Choice,
    arrival: Arrival,
) -> Result<Load, Failure> {
    let plan = load::Plan {
        database: server.database(LEDGER),
        connections,
        threads: pgbench::THREADS,
        accounts: plan.accounts,
        choice,
        arrival,
        time_ms: u64::try_from(plan.time.as_millis()).unwrap_or(u64::MAX),
    };
    let mut command = Command::new(program);
    command.arg(serde_json::to_string(&plan)?).env_clear();
    let before = Cpu::now();
    let done: Done = serde_json::from_str(&output(command)?)?;
    Ok(Load {
        row: Row {
            per_second: done.payments as f64 * 1e3 / plan.time_ms as f64,
            cpu: before.and_then(|before| before.cost_since(done.payments as f64)),
        },
        done,
    })
}
