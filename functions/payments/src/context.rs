//! What is built once and lives as long as the process: clients, the warm database connection, the last control record
//! read, the API keys found valid lately and how much they send.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use continuity::acknowledge::{Executed, NotAcknowledged, acknowledge};
use continuity::aws::Shared;
use continuity::config::{ConfigError, FunctionConfig, env, required};
use continuity::control::{ControlRecord, ControlStore};
use continuity::dynamo::{DynamoControl, DynamoJournal, DynamoRates, Tables};
use continuity::entry::LedgerEntry;
use continuity::error::StoreError;
use continuity::journal::Journal;
use continuity::metrics;
use continuity::rate::RateStore;
use tokio::time::timeout;
use uuid::Uuid;

use crate::api::auth::KeyCache;
use crate::api::health::Writes;
use crate::command::{Command, Order};
use crate::ledger::connect::SecretConnector;
use crate::ledger::postgres::PostgresLedger;
use crate::ledger::{Ledger, LedgerError, Read, Rejection, Submitted};
use crate::limits::{REQUEST_TIMEOUT, STATEMENT_LINES};
use crate::rate::Rates;
use crate::statement::store::{S3Store, Store};
use crate::telemetry::{self, Received, Told};
use crate::trace::{self, Daemon};

/// Milliseconds since the Unix epoch.
pub type Clock = Box<dyn Fn() -> u64 + Send + Sync>;
/// A new id for each call.
pub type Ids = Box<dyn Fn() -> Uuid + Send + Sync>;

/// Takes what is told of a request.
pub type Tell = Box<dyn Fn(&Told<'_>, u64) + Send + Sync>;

/// Makes a ledger on another server of this region, which takes the same credentials, of its host and port.
pub type LedgerAt = Box<dyn Fn(&str, u16) -> Arc<dyn Ledger> + Send + Sync>;

/// What a region's requests work on.
#[derive(Clone)]
pub struct Stores {
    /// The control table.
    pub control: Arc<dyn ControlStore>,
    /// The journal.
    pub journal: Arc<dyn Journal>,
    /// The ledger.
    pub ledger: Arc<dyn Ledger>,
    /// Where statements are put.
    pub statements: Arc<dyn Store>,
    /// Where requests are counted by API key.
    pub rates: Arc<dyn RateStore>,
}

/// Everything that a request needs.
pub struct Context {
    /// The stack's suffix.
    pub stack: String,
    /// This region.
    pub region: String,
    /// Its slot.
    pub slot: String,
    /// The control table.
    pub control: Arc<dyn ControlStore>,
    /// The journal.
    pub journal: Arc<dyn Journal>,
    /// The ledger.
    pub ledger: Arc<dyn Ledger>,
    /// A ledger that was restored beside it, for the comparison of a lost tail; `None` where there can be none.
    pub ledger_at: Option<LedgerAt>,
    /// Where statements are put.
    pub statements: Arc<dyn Store>,
    /// The clock.
    pub clock: Clock,
    /// Ids of accounts, payments and subsegments of a trace.
    pub ids: Ids,
    /// Who is told of every request.
    pub tell: Tell,
    /// Who takes the traces of requests that are sampled; nobody where Lambda runs no daemon.
    pub daemon: Option<Daemon>,
    /// How long a request may take.
    pub request_timeout: Duration,
    /// How many movements a statement may have.
    pub statement_lines: u64,
    pub(crate) keys: KeyCache,
    pub(crate) rates: Rates,
    pub(crate) writes: Writes,
    belief: Mutex<Option<ControlRecord>>,
}

/// Why a command was not answered with its entry.
#[derive(Debug, thiserror::Error)]
pub enum Unanswered {
    /// This region is not the active one, or not serving.
    #[error("this region is not serving")]
    NotActive,
    /// The ledger cannot record an outcome of it.
    #[error("the command was rejected")]
    Rejected(Rejection),
    /// The control table did not answer.
    #[error("the control record could not be read")]
    Control(#[source] StoreError),
    /// The journal did not take the entry.
    #[error("the entry could not be journaled")]
    Journal(#[source] StoreError),
    /// The ledger failed.
    #[error("the ledger failed")]
    Ledger(#[source] LedgerError),
    /// It took too long.
    #[error("the request took too long")]
    TimedOut,
}

/// Step 2 went wrong, or came to an answer that is no entry (with the epoch that it was given in).
#[derive(Debug, thiserror::Error)]
enum Submission {
    #[error(transparent)]
    Failed(LedgerError),
    #[error("the command was rejected")]
    Rejected { epoch: u64, rejection: Rejection },
}

impl Context {
    /// From the function's environment. Calls nothing, and makes no client: the secret, the tables and the database are met on
    /// first use.
    pub fn from_env() -> Result<Self, ConfigError> {
        let config = FunctionConfig::from_env()?;
        let port = required(&env, "UNDERSTUDY_DB_PORT")?;
        let port = port.parse().map_err(|_| ConfigError {
            name: "UNDERSTUDY_DB_PORT".into(),
            problem: format!("is `{port}`, not a port"),
        })?;
        let aws = Shared::default();
        let tables = Tables::from(aws.clone());
        let secret = required(&env, "UNDERSTUDY_DB_SECRET")?;
        let (elsewhere, its_secret) = (aws.clone(), secret.clone());
        let ledger_at: LedgerAt = Box::new(move |host, port| {
            let connector =
                SecretConnector::new(elsewhere.clone(), its_secret.clone(), host.to_owned(), port);
            Arc::new(PostgresLedger::new(Box::new(connector)))
        });
        let connector =
            SecretConnector::new(aws.clone(), secret, required(&env, "UNDERSTUDY_DB_HOST")?, port);
        let mut context = Context::new(
            config.names.suffix(),
            config.region(),
            config.slot.as_str(),
            Stores {
                control: Arc::new(DynamoControl::new(tables.clone(), config.names.control_table())),
                journal: Arc::new(DynamoJournal::new(tables.clone(), config.names.journal_table())),
                ledger: Arc::new(PostgresLedger::new(Box::new(connector))),
                statements: Arc::new(S3Store::new(aws, required(&env, "UNDERSTUDY_DATA_BUCKET")?)),
                rates: Arc::new(DynamoRates::new(
                    tables,
                    config.names.request_rates_table(config.slot),
                )),
            },
        );
        context.ledger_at = Some(ledger_at);
        // An address that is none is no reason not to serve.
        let daemon = env(trace::DAEMON_ADDRESS).and_then(|address| address.parse().ok());
        context.daemon = daemon.map(Daemon::at);
        Ok(context)
    }

    /// From its parts, with the system's clock and time-ordered random ids, and nobody who takes traces.
    pub fn new(stack: &str, region: &str, slot: &str, stores: Stores) -> Self {
        let Stores {
            control,
            journal,
            ledger,
            statements,
            rates,
        } = stores;
        Context {
            stack: stack.to_owned(),
            region: region.to_owned(),
            slot: slot.to_owned(),
            control,
            journal,
            ledger,
            ledger_at: None,
            statements,
            clock: Box::new(continuity::clock::now_ms),
            ids: Box::new(Uuid::now_v7),
            tell: Box::new(|told, now_ms| metrics::print(&told.line(now_ms))),
            daemon: None,
            request_timeout: REQUEST_TIMEOUT,
            statement_lines: STATEMENT_LINES,
            keys: KeyCache::default(),
            rates: Rates::new(rates),
            writes: Writes::default(),
            belief: Mutex::new(None),
        }
    }

    fn belief(&self) -> Option<ControlRecord> {
        self.belief.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn believe(&self, record: Option<ControlRecord>) {
        *self.belief.lock().unwrap_or_else(PoisonError::into_inner) = record;
    }

    /// Whether this region serves now, by a strong read.
    ///
    /// # Errors
    /// The control table did not answer.
    pub async fn serves(&self) -> Result<bool, StoreError> {
        let record = self.control.read().await?;
        let serves = record
            .as_ref()
            .is_some_and(|record| record.may_acknowledge(&self.region, record.epoch));
        self.believe(record);
        Ok(serves)
    }

    /// Executes a command and acknowledges it: the four steps of [`continuity::acknowledge`].
    ///
    /// Guarantees: an entry that is returned was journaled before a strong read said that this region still serves in the
    /// entry's epoch. A rejection, too, is returned only after such a read.
    ///
    /// # Errors
    /// [`Unanswered`]; the client may always try again with the same idempotency key.
    pub async fn execute(
        &self,
        received: &Received,
        idempotency_key: String,
        order: Order,
    ) -> Result<LedgerEntry, Unanswered> {
        let command = Command {
            idempotency_key,
            request_hash: order.request_hash(),
            request_id: received.request_id().to_owned(),
            id: (self.ids)(),
            order,
            created_at_ms: (self.clock)(),
        };
        timeout(self.request_timeout, self.acknowledge(received, &command))
            .await
            .unwrap_or(Err(Unanswered::TimedOut))
    }

    async fn acknowledge(&self, received: &Received, command: &Command) -> Result<LedgerEntry, Unanswered> {
        let check = received.at().elapsed();
        let submit = async |epoch| match self
            .ledger
            .submit(epoch, command)
            .await
            .map_err(Submission::Failed)?
        {
            Submitted::OtherEpoch => Ok(Executed::OtherEpoch),
            Submitted::Outcome(outcome) => Ok(Executed::Outcome(outcome)),
            Submitted::Rejected(rejection) => Err(Submission::Rejected { epoch, rejection }),
        };
        let (control, journal) = (self.control.as_ref(), self.journal.as_ref());
        match acknowledge(&self.region, self.belief(), control, journal, submit).await {
            Ok(acknowledged) => {
                self.believe(Some(acknowledged.record));
                received.acknowledged(telemetry::Acknowledged {
                    kind: acknowledged.entry.kind,
                    status: acknowledged.entry.status,
                    check,
                    took: acknowledged.took,
                });
                Ok(acknowledged.entry)
            }
            Err(NotAcknowledged::NotActive { record, .. }) => {
                self.believe(record);
                Err(Unanswered::NotActive)
            }
            Err(NotAcknowledged::Control(source)) => Err(Unanswered::Control(source)),
            Err(NotAcknowledged::Journal(source)) => Err(Unanswered::Journal(source)),
            Err(NotAcknowledged::Ledger(Submission::Failed(source))) => Err(Unanswered::Ledger(source)),
            Err(NotAcknowledged::Ledger(Submission::Rejected { epoch, rejection })) => {
                self.confirm(Some(epoch)).await?;
                Err(Unanswered::Rejected(rejection))
            }
        }
    }

    /// Reads from the ledger, and answers only if a strong read afterwards says that this region serves in the epoch that
    /// the ledger was in: what is read may be newer than what is acknowledged, never from a region that lost its role.
    ///
    /// # Errors
    /// [`Unanswered`], but for `Rejected` and `Journal`.
    pub async fn read<T>(
        &self,
        read: impl Future<Output = Result<Read<T>, LedgerError>> + Send,
    ) -> Result<T, Unanswered> {
        let steps = async {
            let read = read.await.map_err(Unanswered::Ledger)?;
            self.confirm(read.ledger_epoch).await?;
            Ok(read.value)
        };
        timeout(self.request_timeout, steps)
            .await
            .unwrap_or(Err(Unanswered::TimedOut))
    }

    /// Answers only if this region serves in `epoch`, by a strong read: what was read from the ledger before may be told.
    ///
    /// # Errors
    /// `NotActive`, `Control`.
    pub(crate) async fn confirm(&self, epoch: Option<u64>) -> Result<(), Unanswered> {
        let record = self.control.read().await.map_err(Unanswered::Control)?;
        let serving = record
            .as_ref()
            .zip(epoch)
            .is_some_and(|(record, epoch)| record.may_acknowledge(&self.region, epoch));
        self.believe(record);
        if serving {
            Ok(())
        } else {
            Err(Unanswered::NotActive)
        }
    }
}
