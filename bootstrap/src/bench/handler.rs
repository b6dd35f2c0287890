//! The load: payments through the real handler, in this process, each connection with a function and a database connection of
//! its own, as Lambda has it. The journal and the control table are in memory.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Barrier};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use continuity::control::{ControlRecord, ControlStore};
use continuity::entry::{EntryStatus, LedgerEntry};
use continuity::error::StoreError;
use continuity::journal::Journal;
use continuity::memory::{MemoryControl, MemoryRates};
use continuity::rate;
use futures::future::try_join_all;
use payment_processor::command::{AccountDetails, Command, Metadata, Order};
use payment_processor::context::{Context, Stores};
use payment_processor::event::Service;
use payment_processor::ledger::{Ledger, Submitted};
use payment_processor::statement::memory::MemoryStore;
use payment_processor::telemetry::Acknowledged;
use rand::RngExt;
use tokio::sync::mpsc;
use uuid::Uuid;

use super::cpu::Cpu;
use super::report::{Latency, Load};
use super::{EPOCH, LEDGER, Plan};
use crate::failure::Failure;
use crate::keys;
use crate::local::throwaway::Server;

/// The number of the first account; all have as many digits.
pub const FIRST_ACCOUNT: u32 = 1_000_000;
/// What an account's id begins with; its number follows.
pub const ACCOUNT_PREFIX: &str = "01900000-0000-7000-8000-00000";
/// The region that serves.
pub const REGION: &str = "us-east-1";

/// Between which accounts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Choice {
    /// Any two.
    Any,
    /// The first one pays or is paid, in turn.
    OneHot,
}

/// A journal that takes everything at once and keeps nothing.
#[derive(Default)]
struct Counting(AtomicU64);

#[async_trait]
impl Journal for Counting {
    async fn put(&self, _: u64, _: &LedgerEntry) -> Result<(), StoreError> {
        self.0.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    async fn scan(&self, _: u64) -> Result<Vec<LedgerEntry>, StoreError> {
        Ok(Vec::new())
    }
}

fn account(number: u32) -> Uuid {
    Uuid::try_parse(&format!("{ACCOUNT_PREFIX}{number}"))
        .expect("a prefix of 29 and a number of 7 characters")
}

/// Opens accounts without a limit.
pub async fn open_accounts(server: &Server, accounts: u32) -> Result<(), Failure> {
    let ledger = server.ledger(LEDGER);
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
            other => return Err(Failure::text(format!("an account was not opened: {other:?}"))),
        }
    }
    Ok(())
}

/// A key that may do everything, as often as a key can.
pub async fn customer(control: &dyn ControlStore) -> Result<keys::Secret, Failure> {
    keys::create(control, "bench", &keys::SCOPES.map(str::to_owned), rate::MOST, 0).await
}

/// One function, as Lambda starts it for each request that is in flight.
struct Function {
    service: Service,
    told: mpsc::UnboundedReceiver<Acknowledged>,
    events: Events,
}

impl Function {
    async fn new(server: &Server, accounts: u32) -> Result<Self, Failure> {
        let mut record = ControlRecord::first(REGION, "bench", 0);
        record.epoch = EPOCH;
        let control = Arc::new(MemoryControl::with(record));
        let key = customer(control.as_ref()).await?;
        let ledger = Arc::new(server.ledger(LEDGER));
        let journal = Arc::new(Counting::default());
        let mut context = Context::new(
            "bench",
            REGION,
            "primary",
            Stores {
                control,
                journal,
                ledger,
                statements: Arc::new(MemoryStore::default()),
                rates: Arc::new(MemoryRates::default()),
            },
        );
        let (tell, told) = mpsc::unbounded_channel();
        context.tell = Box::new(move |request, now_ms| {
            // The line is made as for the log, and thrown away.
            std::hint::black_box(request.line(now_ms));
            if let Some(acknowledged) = request.acknowledged {
                let _ = tell.send(acknowledged);
            }
        });
        let mut function = Function {
            service: Service::new(Arc::new(context)),
            told,
            events: Events::new(key, accounts),
        };
        // Connected and prepared before anything is measured.
        function.pay(Choice::Any).await?;
        Ok(function)
    }

    /// One payment, from the bytes of its event to the bytes of its answer.
    async fn pay(&mut self, choice: Choice) -> Result<Acknowledged, Failure> {
        let event = self.events.next(choice);
        let answer = self
            .service
            .handle(&event, None)
            .await
            .map_err(|error| Failure::new(&error))?;
        let bytes = serde_json::to_vec(&answer)?;
        match self.told.try_recv() {
            Ok(acknowledged) if acknowledged.status == EntryStatus::Created => Ok(acknowledged),
            _ => Err(Failure::text(format!(
                "a payment was not acknowledged: {}",
                String::from_utf8_lossy(&bytes)
            ))),
        }
    }
}

/// Requests for payments, as API Gateway sends them.
pub struct Events {
    key: keys::Secret,
    accounts: u32,
    turn: u64,
}

impl Events {
    /// With this API key, between the first so many accounts.
    pub fn new(key: keys::Secret, accounts: u32) -> Self {
        Events {
            key,
            accounts,
            turn: 0,
        }
    }

    /// The next one, in JSON.
    pub fn next(&mut self, choice: Choice) -> String {
        let mut random = rand::rng();
        self.turn += 1;
        let mut payer = match choice {
            Choice::Any => random.random_range(0..self.accounts),
            Choice::OneHot => 0,
        };
        let mut payee = (payer + random.random_range(1..self.accounts)) % self.accounts;
        if self.turn.is_multiple_of(2) {
            std::mem::swap(&mut payer, &mut payee);
        }
        let (payer, payee) = (FIRST_ACCOUNT + payer, FIRST_ACCOUNT + payee);
        let body = format!(
            r#"{{\"from_account\":\"{ACCOUNT_PREFIX}{payer}\",\"to_account\":\"{ACCOUNT_PREFIX}{payee}\",\"amount_minor\":7,\"currency\":\"EUR\"}}"#
        );
        format!(
            r#"{{"resource":"/v1/payments","path":"/v1/payments","httpMethod":"POST","headers":null,"multiValueHeaders":{{
               "Authorization":["Bearer {key}"],"Idempotency-Key":["{id:032x}"],"Content-Type":["application/json"],
               "User-Agent":["understudy-bench"],"X-Forwarded-For":["127.0.0.1"]}},"queryStringParameters":null,
               "multiValueQueryStringParameters":null,"pathParameters":null,"stageVariables":null,
               "requestContext":{{"stage":"live","httpMethod":"POST","requestId":"{id:032x}"}},
               "body":"{body}","isBase64Encoded":false}}"#,
            key = self.key.reveal(),
            id = random.random::<u128>(),
        )
    }
}

/// How payments come.
#[derive(Debug, Clone, Copy)]
pub enum Arrival {
    /// Every connection sends its next payment when the last one was answered.
    Closed,
    /// So many fall due each second; each goes to the connection whose turn it is and waits there for the one before it.
    Open {
        /// Payments a second.
        rate: u32,
    },
}

/// Threads of the load, at most: as many as pgbench gets.
const THREADS: u32 = super::pgbench::THREADS;

/// Runs the load.
///
/// # Errors
/// A payment was not acknowledged as created.
pub fn load(
    server: &Server,
    connections: u32,
    plan: &Plan,
    choice: Choice,
    arrival: Arrival,
) -> Result<Load, Failure> {
    let threads = connections.min(THREADS);
    // The threads and whoever looks at the clock of the CPU.
    let start = Barrier::new(threads as usize + 1);
    let run = |thread: u32| -> Result<Vec<Latency>, Failure> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        runtime.block_on(async {
            let numbers = (thread..connections).step_by(threads as usize);
            let functions = try_join_all(numbers.clone().map(|_| Function::new(server, plan.accounts))).await;
            start.wait();
            let begun = Instant::now();
            let runs = functions?
                .into_iter()
                .zip(numbers)
                .map(|(function, number)| async move {
                    match arrival {
                        Arrival::Closed => closed(function, choice, begun + plan.time).await,
                        Arrival::Open { rate } => {
                            let gap = Duration::from_secs(1) / rate;
                            let turns = (number..).step_by(connections as usize);
                            let due = turns.map(|turn| gap * turn).take_while(|due| *due < plan.time);
                            open(function, choice, due.map(|due| begun + due)).await
                        }
                    }
                });
            try_join_all(runs).await
        })
    };
    let (before, runs) = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..threads)
            .map(|thread| {
                scope.spawn({
                    let run = &run;
                    move || run(thread)
                })
            })
            .collect();
        start.wait();
        let before = Cpu::now();
        let runs = threads
            .into_iter()
            .map(|thread| {
                thread
                    .join()
                    .unwrap_or_else(|_| Err(Failure::text("a thread of the load panicked")))
            })
            .collect::<Result<Vec<_>, Failure>>();
        (before, runs)
    });
    let mut all = Latency::default();
    for latency in runs?.iter().flatten() {
        all.merge(latency);
    }
    Ok(Load::new(&all, plan.time, before))
}

async fn closed(mut function: Function, choice: Choice, until: Instant) -> Result<Latency, Failure> {
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
) -> Result<Latency, Failure> {
    let mut latency = Latency::default();
    for due in due {
        tokio::time::sleep_until(due.into()).await;
        let acknowledged = function.pay(choice).await?;
        latency.add(due.elapsed(), &acknowledged);
    }
    Ok(latency)
}
