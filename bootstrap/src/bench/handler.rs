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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use load::{EPOCH, Quantiles};
    use payments::ledger::Ledger;

    use super::*;

    /// Payments of the load against a server, and the ledger's entries before and after.
    async fn sent(choice: Choice, arrival: Arrival) -> (Done, u64, u64) {
        const ACCOUNTS: u32 = 5;
        let server = Server::start(&[]).await.unwrap();
        server.create(LEDGER).await.unwrap();
        let ledger = server.ledger(LEDGER);
        ledger.migrate().await.unwrap();
        ledger.set_epoch(EPOCH).await.unwrap();
        load::open_accounts(&ledger, ACCOUNTS).await.unwrap();
        let before = ledger.verify().await.unwrap().entries;
        let plan = load::Plan {
            database: server.database(LEDGER),
            connections: 3,
            threads: 2,
            accounts: ACCOUNTS,
            choice,
            arrival,
            time_ms: 200,
        };
        let text = serde_json::to_string(&plan).unwrap();
        let read: load::Plan = serde_json::from_str(&text).unwrap();
        let done = tokio::task::spawn_blocking(move || load::run(&read))
            .await
            .unwrap()
            .unwrap();
        let verified = ledger.verify().await.unwrap();
        assert_eq!(verified.problems, Vec::<String>::new());
        (done, before, verified.entries)
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn every_payment_of_the_closed_loop_is_counted_and_in_the_ledger() {
        let (done, before, after) = sent(Choice::OneHot, Arrival::Closed).await;
        // Each function pays once before it is counted.
        assert_eq!(after - before, done.payments + 3);
        assert!(done.payments > 0);
        let names: Vec<&str> = done.steps.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["check", "ledger", "journal", "look"]);
        let Quantiles { p50_us, max_us, .. } = done.latency;
        assert!(0 < p50_us && p50_us <= max_us, "{done:?}");
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn the_open_loop_sends_what_falls_due_in_its_time() {
        let (done, before, after) = sent(Choice::Any, Arrival::Open { per_second: 100 }).await;
        assert_eq!((done.payments, after - before), (20, 20 + 3));
    }

    #[test]
    fn a_program_that_fails_is_quoted() {
        let mut command = Command::new("sh");
        command.args(["-c", "echo no database >&2; exit 1"]);
        let runtime = tokio::runtime::Builder::new_multi_thread().build().unwrap();
        let error = runtime.block_on(async { output(command) }).unwrap_err();
        assert!(error.to_string().contains("no database"), "{error}");
    }
}
