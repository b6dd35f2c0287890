//! What the payment-processor's release build costs: the size of its package, how long it takes until it asks for its first
//! event, and its memory after many payments. Lambda's side of the conversation, and the few AWS calls that a payment makes,
//! are answered by [`super::lambda`]; the database is a real one, over TLS.

use std::fmt;
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use continuity::control::{ControlRecord, ControlStore};
use continuity::dynamo::DynamoControl;
use continuity::names::Names;
use continuity::rate;
use load::{Choice, EPOCH, Events, REGION};
use payments::ledger::Ledger;
use serde::Serialize;
use tokio::process::{Child, Command};
use tokio::time::timeout;

use super::LEDGER;
use super::lambda::Lambda;
use crate::artifacts;
use crate::failure::Failure;
use crate::keys;
use crate::local::throwaway::Server;
use crate::ui::Ui;

/// What to measure.
#[derive(Debug, Clone, Copy)]
pub struct Plan {
    /// Starts of each function.
    pub starts: u32,
    /// Payments before the memory is looked at.
    pub payments: u32,
}

/// The package may have so many bytes.
const PACKAGE_TARGET: usize = 3_000_000;
/// The start may take so many times that of a hello-world function.
const START_TARGET: f64 = 1.5;
/// Resident memory, in KiB.
const MEMORY_TARGET: u64 = 32 * 1024;

const FUNCTION: &str = "payment-processor";
const HELLO: &str = "hello_world";
const ACCOUNTS: u32 = 100;
const SUFFIX: &str = "bench";
/// A function that does not ask for an event in this time has failed.
const START_WITHIN: Duration = Duration::from_secs(30);

/// What was measured.
#[derive(Debug, Serialize)]
pub struct Report {
    package_bytes: usize,
    binary_bytes: u64,
    start_us: u64,
    hello_world_start_us: u64,
    start_ratio: f64,
    payments: u32,
    payments_per_second: f64,
    resident_kib: u64,
    resident_at_most_kib: u64,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let holds = |holds: bool| if holds { "holds" } else { "MISSED" };
        writeln!(
            f,
            "package       {:>9} bytes zipped, of {} (target {PACKAGE_TARGET}: {})",
            self.package_bytes,
            self.binary_bytes,
            holds(self.package_bytes <= PACKAGE_TARGET)
        )?;
        writeln!(
            f,
            "start         {:>9} us until the first event is asked for, median; hello-world {}; {:.2} times (target {START_TARGET}: {})",
            self.start_us,
            self.hello_world_start_us,
            self.start_ratio,
            holds(self.start_ratio <= START_TARGET)
        )?;
        write!(
            f,
            "memory        {:>9} KiB resident after {} payments, {} at most (target {MEMORY_TARGET}: {}); {:.0} payments a second",
            self.resident_kib,
            self.payments,
            self.resident_at_most_kib,
            holds(self.resident_kib <= MEMORY_TARGET),
            self.payments_per_second
        )
    }
}

/// Builds both functions as they are released, and measures.
///
/// # Errors
/// There is no source tree, a build or a process failed, or a payment was not answered as it should.
pub async fn run(plan: &Plan, ui: &Ui) -> Result<Report, Failure> {
    ui.step("building the release of the payment-processor and of hello-world; the first time takes minutes");
    let folder = artifacts::release(FUNCTION, &["--bin", FUNCTION, "--example", HELLO])
        .await
        .map_err(|error| Failure::new(&error))?;
    let (function, hello) = (folder.join(FUNCTION), folder.join("examples").join(HELLO));
    let package = tokio::task::block_in_place(|| artifacts::package(&function));
    let package = package.map_err(|error| Failure::new(&error))?.len();

    let lambda = Lambda::start().await?;
    ui.step(format!("starting each function {} times", plan.starts));
    let (mut starts, mut hello_starts) = (Vec::new(), Vec::new());
    for _ in 0..plan.starts {
        hello_starts.push(start_time(&lambda, &hello).await?);
        starts.push(start_time(&lambda, &function).await?);
    }
    let (start, hello_start) = (median(starts), median(hello_starts));

    ui.step(format!("making {} payments", plan.payments));
    let paid = pay(&lambda, &function, plan.payments).await?;
    Ok(Report {
        package_bytes: package,
        binary_bytes: std::fs::metadata(&function)?.len(),
        start_us: us(start),
        hello_world_start_us: us(hello_start),
        start_ratio: start.as_secs_f64() / hello_start.as_secs_f64(),
        payments: plan.payments,
        payments_per_second: f64::from(plan.payments) / paid.took.as_secs_f64(),
        resident_kib: paid.resident_kib,
        resident_at_most_kib: paid.resident_at_most_kib,
    })
}

fn us(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times.get(times.len() / 2).copied().unwrap_or_default()
}

/// A function as Lambda starts it. It ends with this.
fn spawn(lambda: &Lambda, program: &Path, more: &[(&str, String)]) -> Result<Child, Failure> {
    let names = Names::new(SUFFIX);
    let mut command = Command::new(program);
    command
        .env_clear()
        .envs(lambda.environment(FUNCTION, REGION))
        .env("UNDERSTUDY_SUFFIX", SUFFIX)
        .env("UNDERSTUDY_SLOT", "primary")
        .env("UNDERSTUDY_PRIMARY_REGION", REGION)
        .env("UNDERSTUDY_DR_REGION", "us-east-2")
        .env("UNDERSTUDY_WITNESS_REGION", "us-west-2")
        .env("UNDERSTUDY_DATA_BUCKET", "none")
        .env("UNDERSTUDY_DB_SECRET", names.database_secret())
        .env("UNDERSTUDY_DB_HOST", "127.0.0.1")
        .env("UNDERSTUDY_DB_PORT", "1")
        .envs(more.iter().map(|(name, value)| (name, value)))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .kill_on_drop(true);
    Ok(command.spawn()?)
}

async fn asked(lambda: &Lambda, function: &mut Child) -> Result<Instant, Failure> {
    tokio::select! {
        asked = timeout(START_WITHIN, lambda.asked()) => {
            asked.map_err(|_| Failure::text("the function does not ask for an event"))
        }
        ended = function.wait() => {
            Err(Failure::text(format!("the function ended before it asked for an event: {}", ended?)))
        }
    }
}

async fn start_time(lambda: &Lambda, program: &Path) -> Result<Duration, Failure> {
    lambda.forget();
    let started = Instant::now();
    let mut function = spawn(lambda, program, &[])?;
    let asked = asked(lambda, &mut function).await?;
    function.kill().await?;
    Ok(asked - started)
}

struct Paid {
    took: Duration,
    resident_kib: u64,
    resident_at_most_kib: u64,
}

async fn pay(lambda: &Lambda, program: &Path, payments: u32) -> Result<Paid, Failure> {
    let server = Server::start(&super::SETTINGS).await?;
    let tls = server.over_tls().await?;
    server.create(LEDGER).await?;
    let ledger = server.ledger(LEDGER);
    ledger.migrate().await?;
    ledger.set_epoch(EPOCH).await?;
    load::open_accounts(&ledger, ACCOUNTS)
        .await
        .map_err(|error| Failure::new(&error))?;

    let names = Names::new(SUFFIX);
    let secret = serde_json::json!({"username": server.owner(), "password": "trusted", "dbname": LEDGER});
    lambda.keep_secret(&names.database_secret(), secret.to_string());
    let control = DynamoControl::new(lambda.dynamodb(REGION).await, names.control_table());
    let mut record = ControlRecord::first(REGION, "bench", 0);
    record.epoch = EPOCH;
    control.create(&record).await?;
    let scopes = keys::SCOPES.map(str::to_owned);
    let key = keys::create(&control, "bench", &scopes, rate::MOST, 0).await?;

    let more = [
        ("UNDERSTUDY_DB_PORT", tls.port.to_string()),
        ("SSL_CERT_FILE", tls.certificate.display().to_string()),
    ];
    let mut events = Events::new(key.reveal().to_owned(), ACCOUNTS);
    lambda.forget();
    let mut function = spawn(lambda, program, &more)?;
    asked(lambda, &mut function).await?;
    let begun = Instant::now();
    for _ in 0..payments {
        let answer = lambda.invoke(events.next(Choice::Any)).await?;
        if answer["statusCode"] != 201 {
            return Err(Failure::text(format!("a payment was not created: {answer}")));
        }
    }
    let took = begun.elapsed();
    let id = function.id().ok_or_else(|| Failure::text("the function ended"))?;
    let status = std::fs::read_to_string(format!("/proc/{id}/status"))
        .map_err(|error| Failure::new(&error).help("memory is read as Linux tells it"))?;
    let kib = |name: &str| {
        memory(&status, name).ok_or_else(|| Failure::text(format!("`/proc/{id}/status` has no `{name}`")))
    };
    let paid = Paid {
        took,
        resident_kib: kib("VmRSS")?,
        resident_at_most_kib: kib("VmHWM")?,
    };
    function.kill().await?;
    Ok(paid)
}

/// A line of Linux's `/proc/{id}/status`, in KiB.
fn memory(status: &str, name: &str) -> Option<u64> {
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
    line.trim().strip_suffix("kB")?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resident_memory_is_read_from_what_linux_tells() {
        let status = "Name:\tbootstrap\nVmHWM:\t   31000 kB\nVmRSS:\t   30500 kB\n";
        assert_eq!(memory(status, "VmRSS"), Some(30_500));
        assert_eq!(memory(status, "VmHWM"), Some(31_000));
        assert_eq!(memory(status, "VmSwap"), None);
    }

    #[test]
    fn a_report_says_which_targets_are_missed() {
        let report = Report {
            package_bytes: 3_000_001,
            binary_bytes: 7_000_000,
            start_us: 1_500,
            hello_world_start_us: 1_000,
            start_ratio: 1.5,
            payments: 10,
            payments_per_second: 5.0,
            resident_kib: 32 * 1024,
            resident_at_most_kib: 40 * 1024,
        };
        let said: Vec<bool> = report
            .to_string()
            .lines()
            .map(|line| line.contains("MISSED"))
            .collect();
        assert_eq!(said, [true, false, false]);
    }
}
