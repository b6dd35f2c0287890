//! Customers of the demo: several clients that pay at once, each retrying with its own idempotency key until it has an
//! answer, and a note of everything that was acknowledged.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::task::JoinSet;

use crate::client::{Client, ClientError, NewPayment, Payment};

/// An answer that a client got for a payment.
#[derive(Debug, Clone)]
pub struct Acknowledged {
    /// When the answer arrived.
    pub at: Instant,
    /// What was asked for.
    pub asked: NewPayment,
    /// What was answered.
    pub payment: Payment,
}

/// How long a client keeps trying one payment.
const PATIENCE: Duration = Duration::from_secs(90);

/// Clients at work.
#[derive(Debug)]
pub struct Load {
    acknowledged: Arc<Mutex<Vec<Acknowledged>>>,
    stop: Arc<AtomicBool>,
    clients: JoinSet<Result<(), ClientError>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Load {
    /// Starts `clients` concurrent clients that pay between `accounts` in `currency`.
    pub fn start(client: &Client, clients: usize, accounts: &[String], currency: &str, run: &str) -> Self {
        let acknowledged = Arc::new(Mutex::new(Vec::new()));
        let stop = Arc::new(AtomicBool::new(false));
        let mut set = JoinSet::new();
        for number in 0..clients {
            let (client, accounts) = (client.clone(), accounts.to_vec());
            let (acknowledged, stop) = (Arc::clone(&acknowledged), Arc::clone(&stop));
            let (currency, run) = (currency.to_owned(), run.to_owned());
            set.spawn(async move {
                let mut turn = 0_usize;
                while !stop.load(Ordering::Relaxed) {
                    let from = (number + turn) % accounts.len();
                    let to = (from + 1 + turn % (accounts.len() - 1)) % accounts.len();
                    // The reference doubles as idempotency key: minted once for an operation, not for an attempt.
                    let asked = NewPayment {
                        from_account: accounts[from].clone(),
                        to_account: accounts[to].clone(),
                        amount_minor: 1 + (turn % 997) as i64,
                        currency: currency.clone(),
                        reference: format!("{run}-{number}-{turn}"),
                    };
                    let payment = client.pay(&asked.reference, &asked, PATIENCE).await?;
                    lock(&acknowledged).push(Acknowledged {
                        at: Instant::now(),
                        asked,
                        payment,
                    });
                    turn += 1;
                }
                Ok(())
            });
        }
        Load {
            acknowledged,
            stop,
            clients: set,
        }
    }

    /// How many were acknowledged so far.
    pub fn count(&self) -> usize {
        lock(&self.acknowledged).len()
    }

    /// The first acknowledgement of an epoch later than `epoch`.
    pub fn first_after(&self, epoch: u64) -> Option<Acknowledged> {
        lock(&self.acknowledged)
            .iter()
            .find(|answer| answer.payment.epoch > epoch)
            .cloned()
    }

    /// A client that gave up, if any: the load can then never be complete.
    pub fn failure(&mut self) -> Option<ClientError> {
        while let Some(ended) = self.clients.try_join_next() {
            if let Ok(Err(error)) = ended {
                return Some(error);
            }
        }
        None
    }

    /// Lets every client finish the payment in hand, and returns everything acknowledged.
    ///
    /// # Errors
    /// The first client that gave up.
    pub async fn finish(mut self) -> Result<Vec<Acknowledged>, ClientError> {
        self.stop.store(true, Ordering::Relaxed);
        while let Some(ended) = self.clients.join_next().await {
            match ended {
                Ok(result) => result?,
                Err(error) => return Err(ClientError::Setup(error.to_string())),
            }
        }
        let all = lock(&self.acknowledged).clone();
        Ok(all)
    }
}
