//! Payments through the real handler, each connection with a function and a database connection of its own, as Lambda has it.
//! The journal and the control table are in memory.
//!
//! It is a program of its own, so that `understudy bench` measures the handler as it is released, without the rest of
//! `understudy` around it: a payment is so short that it matters how much of the processor's caches the code takes.

mod events;
mod function;
mod latency;

use std::sync::Barrier;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use continuity::error::StoreError;
use futures::future::try_join_all;
use payments::command::{AccountDetails, Command, Metadata, Order};
use payments::ledger::connect::{Connect, ConnectError, drive, session_options};
use payments::ledger::{Ledger, LedgerError, Submitted};
use payments::tasks::TaskError;
use serde::{Deserialize, Serialize};
use tokio::runtime::Runtime;
use tokio_postgres::{Client, Config, NoTls};

pub use events::{ACCOUNT_PREFIX, Choice, Events, FIRST_ACCOUNT, account};
use function::Function;
use latency::Latency;
pub use latency::Quantiles;

/// The epoch that the ledger must be in.
pub const EPOCH: u64 = 1;
/// The region that serves.
pub const REGION: &str = "us-east-1";

/// What to send, and whereto.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Plan {
    /// The database.
    pub database: Database,
    /// How many functions, each with a connection.
    pub connections: u32,
    /// Threads, at most.
    pub threads: u32,
    /// Accounts that payments choose from; they are open already.
    pub accounts: u32,
    /// Between which of them.
    pub choice: Choice,
    /// How payments come.
    pub arrival: Arrival,
    /// For how long, milliseconds.
    pub time_ms: u64,
}

/// A database that asks for no password.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Database {
    /// Its server's address.
    pub host: String,
    /// Its server's port.
    pub port: u16,
    /// Who connects.
    pub user: String,
    /// Its name.
    pub name: String,
}

/// How payments come.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Arrival {
    /// Every connection sends its next payment when the last one was answered.
    Closed,
    /// So many fall due each second; each goes to the connection whose turn it is and waits there for the one before it.
    Open {
        /// Payments a second.
        per_second: u32,
    },
}

/// What it came to.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Done {
    /// Payments that were acknowledged as created; every one was.
    pub payments: u64,
    /// The whole of each, from the bytes of its event to the bytes of its answer; in the open loop from when it was due.
    pub latency: Quantiles,
    /// Its steps by name.
    pub steps: Vec<(String, Quantiles)>,
}

/// Why it came to nothing.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// A payment has another answer than it should.
    #[error("a payment was not acknowledged: {0}")]
    NotAcknowledged(String),
    /// An account has another answer than it should.
    #[error("an account was not opened: {0}")]
    NotOpened(String),
    /// The handler failed.
    #[error("the handler failed")]
    Handler(#[from] TaskError),
    /// The ledger failed.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    /// The table in memory failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A plan or an answer is not what it should be.
    #[error("it is not the JSON that it should be")]
    Json(#[from] serde_json::Error),
    /// There is no runtime.
    #[error("a thread's runtime could not be made")]
    Runtime(#[from] std::io::Error),
    /// A thread panicked.
    #[error("a thread of the load panicked")]
    Panicked,
}

/// Without TLS, with the options that the handler's connections have.
#[async_trait]
impl Connect for Database {
    async fn connect(&self) -> Result<Client, ConnectError> {
        let mut config = Config::new();
        config
            .host(&self.host)
            .port(self.port)
            .user(&self.user)
            .dbname(&self.name)
            .options(session_options());
        let connected = config.connect(NoTls).await;
        let (client, connection) = connected.map_err(|source| ConnectError::Server {
            host: self.host.clone(),
            port: self.port,
            source,
        })?;
        drive(connection);
        Ok(client)
    }
}

/// Opens accounts without a limit.
///
/// # Errors
/// The ledger refused one.
pub async fn open_accounts(ledger: &dyn Ledger, accounts: u32) -> Result<(), LoadError> {
    for number in FIRST_ACCOUNT..FIRST_ACCOUNT + accounts {
        let order = Order::OpenAccount(AccountDetails {
            currency: "EUR".to_owned(),
            limit_minor: None,
            name: None,
            metadata: Metadata::new(),
        });
        let command = Command {
            idempotency_key: format!("open-{number}"),
            request_hash: order.request_hash(),
            request_id: "bench".to_owned(),
            id: account(number),
            order,
            created_at_ms: 1,
        };
        match ledger.submit(EPOCH, &command).await? {
            Submitted::Outcome(_) => {}
            other => return Err(LoadError::NotOpened(format!("{other:?}"))),
        }
    }
    Ok(())
}

/// Sends the payments.
///
/// # Errors
/// [`LoadError`]; most likely, a payment was not acknowledged as created.
pub fn run(plan: &Plan) -> Result<Done, LoadError> {
    let threads = plan.connections.min(plan.threads).max(1);
    let time = Duration::from_millis(plan.time_ms);
    let start = Barrier::new(threads as usize);
    let runtimes = (0..threads)
        .map(|_| tokio::runtime::Builder::new_current_thread().enable_all().build())
        .collect::<Result<Vec<_>, _>>()?;
    let run = |thread: u32, runtime: Runtime| -> Result<Vec<Latency>, LoadError> {
        runtime.block_on(async {
            let numbers = (thread..plan.connections).step_by(threads as usize);
            let functions = try_join_all(numbers.clone().map(|_| Function::new(plan))).await;
            // Also after a failure: the other threads wait here.
            start.wait();
            let begun = Instant::now();
            let runs = functions?
                .into_iter()
                .zip(numbers)
                .map(|(function, number)| async move {
                    match plan.arrival {
                        Arrival::Closed => closed(function, plan.choice, begun + time).await,
                        Arrival::Open { per_second } => {
                            let gap = Duration::from_secs(1) / per_second.max(1);
                            let turns = (number..).step_by(plan.connections as usize);
                            let due = turns.map(|turn| gap * turn).take_while(|due| *due < time);
                            open(function, plan.choice, due.map(|due| begun + due)).await
                        }
                    }
                });
            try_join_all(runs).await
        })
    };
    let runs = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..)
            .zip(runtimes)
            .map(|(thread, runtime)| {
                let run = &run;
                scope.spawn(move || run(thread, runtime))
            })
            .collect();
        threads
            .into_iter()
            .map(|thread| thread.join().unwrap_or(Err(LoadError::Panicked)))
            .collect::<Result<Vec<_>, LoadError>>()
    });
    let mut all = Latency::default();
    for latency in runs?.iter().flatten() {
        all.merge(latency);
    }
    Ok(all.done())
}

async fn closed(mut function: Function, choice: Choice, until: Instant) -> Result<Latency, LoadError> {
    let mut latency = Latency::default();
    while Instant::now() < until {
        let sent = Instant::now();
        let acknowledged = function.pay(choice).await?;
        latency.add(sent.elapsed(), &acknowledged);
    }
    Ok(latency)
}

async fn open(
    mut function: Function,
    choice: Choice,
    due: impl Iterator<Item = Instant>,
) -> Result<Latency, LoadError> {
    let mut latency = Latency::default();
    for due in due {
        tokio::time::sleep_until(due.into()).await;
        let acknowledged = function.pay(choice).await?;
        latency.add(due.elapsed(), &acknowledged);
    }
    Ok(latency)
}
