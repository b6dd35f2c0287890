//! The ledger in PostgreSQL: one connection kept warm, one round trip for a command, everything decided by the functions
//! of the `ledger` schema (`migrations/`).

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use continuity::entry::{EntryId, LedgerEntry};
use continuity::takeover::LedgerStatus;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokio::sync::{Mutex, OnceCell};
use tokio::time::timeout;
use tokio_postgres::error::SqlState;
use tokio_postgres::types::{Json, ToSql, Type};
use tokio_postgres::{Client, Error as PgError, Row, Statement};
use uuid::Uuid;

use super::connect::{Connect, ConnectError};
use super::migrations::{self, MIGRATIONS};
use super::{
    Account, AccountEntry, Ledger, LedgerError, Payment, Posted, Read, Rejection, Submitted, Summary,
    Verified,
};
use crate::command::Command;
use crate::limits::{ANSWER_TIMEOUT, CONNECT_TIMEOUT, TASK_STATEMENT_TIMEOUT};

/// The ledger behind a connector.
pub struct PostgresLedger {
    connector: Box<dyn Connect>,
    session: Mutex<Option<Arc<Session>>>,
}

struct Session {
    client: Client,
    submit: OnceCell<Statement>,
}

/// A statement's parameters with their types.
type Parameters<'a> = &'a [(&'a (dyn ToSql + Sync), Type)];

impl PostgresLedger {
    /// A ledger that connects on first use.
    pub fn new(connector: Box<dyn Connect>) -> Self {
        PostgresLedger {
            connector,
            session: Mutex::new(None),
        }
    }

    async fn connect(&self, operation: &'static str) -> Result<Client, LedgerError> {
        // Twice: the connector may have to fetch new credentials and try again.
        timeout(2 * CONNECT_TIMEOUT, self.connector.connect())
            .await
            .unwrap_or(Err(ConnectError::Timeout))
            .map_err(|source| LedgerError::Connect { operation, source })
    }

    async fn session(&self, operation: &'static str) -> Result<Arc<Session>, LedgerError> {
        let mut held = self.session.lock().await;
        if let Some(session) = held.as_ref().filter(|session| !session.client.is_closed()) {
            return Ok(session.clone());
        }
        let client = self.connect(operation).await?;
        let session = Arc::new(Session {
            client,
            submit: OnceCell::new(),
        });
        *held = Some(session.clone());
        Ok(session)
    }

    async fn forget(&self, lost: &Arc<Session>) {
        let mut held = self.session.lock().await;
        if held.as_ref().is_some_and(|session| Arc::ptr_eq(session, lost)) {
            *held = None;
        }
    }

    /// Runs a call on the warm connection; once more on a new one when the connection, not the call, was at fault. Safe
    /// for everything here: commands by their idempotency key, reads by nature.
    async fn run<T, F, Fut>(&self, operation: &'static str, call: F) -> Result<T, LedgerError>
    where
        F: Fn(Arc<Session>) -> Fut + Send + Sync,
        Fut: Future<Output = Result<T, PgError>> + Send,
        T: Send,
    {
        let mut again = true;
        loop {
            let session = self.session(operation).await?;
            let error = match timeout(ANSWER_TIMEOUT, call(session.clone())).await {
                Ok(Ok(value)) => return Ok(value),
                Ok(Err(error)) if lost(&error, &session.client) => classify(operation, error),
                Ok(Err(error)) => return Err(classify(operation, error)),
                Err(_) => LedgerError::Timeout(operation),
            };
            self.forget(&session).await;
            if !again {
                return Err(error);
            }
            again = false;
            tracing::info!(
                operation,
                error = continuity::error::chain(&error),
                "reconnecting to the database"
            );
        }
    }

    /// One row of a statement that is not worth preparing: still one round trip.
    async fn row(
        &self,
        operation: &'static str,
        statement: &str,
        parameters: Parameters<'_>,
    ) -> Result<Row, LedgerError> {
        self.run(operation, |session| async move {
            session.client.query_typed_one(statement, parameters).await
        })
        .await
    }

    /// A read: column `ledger_epoch` and a JSON column `found`, which is null for nothing.
    async fn read<T: DeserializeOwned>(
        &self,
        operation: &'static str,
        found: &str,
        parameters: Parameters<'_>,
    ) -> Result<Read<Option<T>>, LedgerError> {
        let statement =
            format!("select (select epoch from ledger.ledger_epoch) as ledger_epoch, ({found}) as found");
        let row = self.row(operation, &statement, parameters).await?;
        let value = cell::<Option<Value>>(operation, &row, "found")?;
        Ok(Read {
            ledger_epoch: epoch(operation, &row)?,
            value: value.map(|value| decode(operation, value)).transpose()?,
        })
    }

    /// A connection of its own for a task, whose statements may run long.
    async fn task(&self, operation: &'static str) -> Result<Client, LedgerError> {
        let client = self.connect(operation).await?;
        let limit = format!("set statement_timeout = {}", TASK_STATEMENT_TIMEOUT.as_millis());
        client
            .batch_execute(&limit)
            .await
            .map_err(|error| classify(operation, error))?;
        Ok(client)
    }
}

/// Whether another connection could do what this one could not. A standby counts: the writer's name may have moved on.
fn lost(error: &PgError, client: &Client) -> bool {
    let Some(code) = error.code() else {
        return client.is_closed() || error.as_db_error().is_none();
    };
    code.code().starts_with("08")
        || code.code().starts_with("57P")
        || matches!(*code, SqlState::READ_ONLY_SQL_TRANSACTION)
}

fn classify(operation: &'static str, error: PgError) -> LedgerError {
    let for_now = match error.code() {
        None => true,
        Some(code) => {
            ["08", "53", "57", "58"]
                .iter()
                .any(|class| code.code().starts_with(class))
                || [
                    SqlState::READ_ONLY_SQL_TRANSACTION,
                    SqlState::LOCK_NOT_AVAILABLE,
                    SqlState::T_R_DEADLOCK_DETECTED,
                    SqlState::T_R_SERIALIZATION_FAILURE,
                    SqlState::UNDEFINED_TABLE,
                    SqlState::UNDEFINED_FUNCTION,
                    SqlState::INVALID_SCHEMA_NAME,
                ]
                .contains(code)
        }
    };
    let source = error.into();
    if for_now {
        LedgerError::Unavailable { operation, source }
    } else {
        LedgerError::Refused { operation, source }
    }
}

fn cell<'a, T: tokio_postgres::types::FromSql<'a>>(
    operation: &'static str,
    row: &'a Row,
    column: &str,
) -> Result<T, LedgerError> {
    row.try_get(column).map_err(|error| LedgerError::Refused {
        operation,
        source: error.into(),
    })
}

fn decode<T: DeserializeOwned>(operation: &'static str, value: Value) -> Result<T, LedgerError> {
    serde_json::from_value(value).map_err(|error| LedgerError::Refused {
        operation,
        source: error.into(),
    })
}

fn epoch(operation: &'static str, row: &Row) -> Result<Option<u64>, LedgerError> {
    Ok(cell::<Option<i64>>(operation, row, "ledger_epoch")?.map(unsigned))
}

fn unsigned(number: i64) -> u64 {
    u64::try_from(number).expect("the schema keeps it from being negative")
}

fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

#[derive(Deserialize)]
#[serde(tag = "result", rename_all = "kebab-case")]
enum Answer {
    OtherEpoch {
        ledger_epoch: Option<u64>,
    },
    Entry {
        entry: Box<LedgerEntry>,
    },
    KeyReuse,
    AccountUnknown {
        account: Uuid,
    },
    CurrencyMismatch {
        account: Uuid,
        currency: String,
    },
    Replayed {
        posted: u64,
        already_present: u64,
        conflicts: Vec<EntryId>,
        touched: Vec<Uuid>,
    },
}

fn unexpected(operation: &'static str) -> LedgerError {
    LedgerError::Refused {
        operation,
        source: "unexpected answer of the database".into(),
    }
}

const PAYMENT: &str = "e.details || jsonb_build_object('id', e.subject, 'status', e.status, 'epoch', e.epoch,
    'seq', e.seq, 'posted_epoch', e.posted_epoch, 'created_at_ms', e.created_at_ms)";

/// Before everything: no entry has this identity.
const NEWEST: EntryId = EntryId {
    epoch: i64::MAX as u64,
    seq: i64::MAX as u64,
};

#[async_trait]
impl Ledger for PostgresLedger {
    async fn submit(&self, epoch: u64, command: &Command) -> Result<Submitted, LedgerError> {
        let operation = "submit";
        let body = Json(json!({
            "kind": command.order.kind(),
            "subject": command.subject,
            "details": command.order,
            "created_at_ms": command.created_at_ms,
        }));
        let (key, hash, body) = (&command.idempotency_key, &command.request_hash, &body);
        let row = self
            .run(operation, |session| async move {
                let prepare = || session.client.prepare("select ledger.submit($1, $2, $3, $4)");
                let statement = session.submit.get_or_try_init(prepare).await?;
                session
                    .client
                    .query_one(statement, &[&signed(epoch), key, hash, body])
                    .await
            })
            .await?;
        match decode(operation, cell(operation, &row, "submit")?)? {
            Answer::OtherEpoch { .. } => Ok(Submitted::OtherEpoch),
            Answer::Entry { entry } => Ok(Submitted::Entry(entry)),
            Answer::KeyReuse => Ok(Submitted::Rejected(Rejection::KeyReuse)),
            Answer::AccountUnknown { account } => {
                Ok(Submitted::Rejected(Rejection::AccountUnknown { account }))
            }
            Answer::CurrencyMismatch { account, currency } => {
                Ok(Submitted::Rejected(Rejection::CurrencyMismatch {
                    account,
                    currency,
                }))
            }
            Answer::Replayed { .. } => Err(unexpected(operation)),
        }
    }

    async fn status(&self) -> Result<LedgerStatus, LedgerError> {
        let operation = "status";
        // A default of read-only transactions counts as a standby: it cannot be written.
        let read_only =
            "pg_is_in_recovery() or current_setting('default_transaction_read_only')::boolean as in_recovery";
        let full = format!("select {read_only}, (select epoch from ledger.ledger_epoch) as ledger_epoch");
        match self.row(operation, &full, &[]).await {
            Ok(row) => Ok(LedgerStatus {
                reachable: true,
                in_recovery: cell(operation, &row, "in_recovery")?,
                ledger_epoch: epoch(operation, &row)?.filter(|epoch| *epoch > 0),
            }),
            Err(LedgerError::Unavailable { source, .. }) if schema_missing(source.as_ref()) => {
                let row = self.row(operation, &format!("select {read_only}"), &[]).await?;
                let in_recovery = cell(operation, &row, "in_recovery")?;
                Ok(LedgerStatus {
                    reachable: true,
                    in_recovery,
                    ledger_epoch: None,
                })
            }
            Err(error) => Err(error),
        }
    }

    async fn account(&self, id: Uuid) -> Result<Read<Option<Account>>, LedgerError> {
        let found = "select jsonb_build_object('id', a.id, 'currency', a.currency, 'balance_minor', a.balance_minor,
                 'limit_minor', a.limit_minor, 'name', a.name, 'epoch', a.opened_epoch, 'seq', a.opened_seq,
                 'posted_epoch', e.posted_epoch, 'created_at_ms', e.created_at_ms)
            from ledger.accounts a
            left join ledger.entries e on e.epoch = a.opened_epoch and e.seq = a.opened_seq where a.id = $1::uuid";
        self.read("account", found, &[(&id.to_string(), Type::TEXT)])
            .await
    }

    async fn account_entries(
        &self,
        id: Uuid,
        before: Option<EntryId>,
        limit: u32,
    ) -> Result<Read<Option<Vec<AccountEntry>>>, LedgerError> {
        let before = before.unwrap_or(NEWEST);
        let found = "select coalesce((select jsonb_agg(jsonb_build_object('payment', e.subject,
                 'amount_minor', p.amount_minor, 'currency', p.currency, 'epoch', p.epoch, 'seq', p.seq,
                 'posted_epoch', e.posted_epoch, 'created_at_ms', e.created_at_ms) order by p.epoch desc, p.seq desc)
              from (select * from ledger.postings where account_id = $1::uuid and (epoch, seq) < ($2, $3)
                     order by epoch desc, seq desc limit $4) p
              join ledger.entries e on e.epoch = p.epoch and e.seq = p.seq), '[]')
            from ledger.accounts a where a.id = $1::uuid";
        let parameters: Parameters<'_> = &[
            (&id.to_string(), Type::TEXT),
            (&signed(before.epoch), Type::INT8),
            (&signed(before.seq), Type::INT8),
            (&i64::from(limit), Type::INT8),
        ];
        self.read("account-entries", found, parameters).await
    }

    async fn payment(&self, id: Uuid) -> Result<Read<Option<Payment>>, LedgerError> {
        let found = format!(
            "select {PAYMENT} from ledger.entries e where e.subject = $1::uuid and e.kind = 'payment'"
        );
        self.read("payment", &found, &[(&id.to_string(), Type::TEXT)])
            .await
    }

    async fn payments(&self, before: Option<EntryId>, limit: u32) -> Result<Read<Vec<Payment>>, LedgerError> {
        let before = before.unwrap_or(NEWEST);
        let found = format!(
            "select jsonb_agg({PAYMENT} order by e.epoch desc, e.seq desc)
               from (select * from ledger.entries where kind = 'payment' and (epoch, seq) < ($1, $2)
                      order by epoch desc, seq desc limit $3) e"
        );
        let parameters: Parameters<'_> = &[
            (&signed(before.epoch), Type::INT8),
            (&signed(before.seq), Type::INT8),
            (&i64::from(limit), Type::INT8),
        ];
        let read = self.read("payments", &found, parameters).await?;
        Ok(Read {
            ledger_epoch: read.ledger_epoch,
            value: read.value.unwrap_or_default(),
        })
    }

    async fn migrate(&self) -> Result<u32, LedgerError> {
        let operation = "migrate";
        let failed = |error| classify(operation, error);
        let mut client = self.task(operation).await?;
        let transaction = client.transaction().await.map_err(failed)?;
        transaction
            .batch_execute(migrations::LOCK)
            .await
            .map_err(failed)?;
        transaction
            .batch_execute(migrations::PREPARE)
            .await
            .map_err(failed)?;
        let mut version = 0;
        for (number, name, statements) in MIGRATIONS {
            let sha256 = migrations::checksum(statements);
            let (number_sql, known) = (
                i32::try_from(*number).expect("few migrations"),
                "select sha256 from ledger.migrations where version = $1",
            );
            match transaction
                .query_opt(known, &[&number_sql])
                .await
                .map_err(failed)?
            {
                Some(row) if cell::<String>(operation, &row, "sha256")? != sha256 => {
                    return Err(LedgerError::MigrationChanged { version: *number });
                }
                Some(_) => {}
                None => {
                    transaction.batch_execute(statements).await.map_err(failed)?;
                    let record = "insert into ledger.migrations (version, name, sha256) values ($1, $2, $3)";
                    transaction
                        .execute(record, &[&number_sql, name, &sha256])
                        .await
                        .map_err(failed)?;
                }
            }
            version = *number;
        }
        transaction.commit().await.map_err(failed)?;
        Ok(version)
    }

    async fn summary(&self) -> Result<Summary, LedgerError> {
        let operation = "summary";
        let status = self.status().await?;
        let counts = "select coalesce((select seq from ledger.entries order by epoch desc, seq desc limit 1), 0) as last_seq,
                             (select count(*) from ledger.entries) as entries";
        match self.row(operation, counts, &[]).await {
            Ok(row) => Ok(Summary {
                status,
                last_seq: unsigned(cell(operation, &row, "last_seq")?),
                entries: unsigned(cell(operation, &row, "entries")?),
            }),
            Err(LedgerError::Unavailable { source, .. }) if schema_missing(source.as_ref()) => Ok(Summary {
                status,
                last_seq: 0,
                entries: 0,
            }),
            Err(error) => Err(error),
        }
    }

    async fn set_epoch(&self, epoch: u64) -> Result<u64, LedgerError> {
        let operation = "set-epoch";
        let row = self
            .row(
                operation,
                "select ledger.set_epoch($1)",
                &[(&signed(epoch), Type::INT8)],
            )
            .await?;
        Ok(unsigned(cell(operation, &row, "set_epoch")?))
    }

    async fn post(&self, epoch: u64, entries: &[LedgerEntry]) -> Result<Posted, LedgerError> {
        let operation = "replay";
        let parameters: Parameters<'_> = &[(&signed(epoch), Type::INT8), (&Json(entries), Type::JSONB)];
        let row = self
            .row(operation, "select ledger.replay($1, $2)", parameters)
            .await?;
        match decode(operation, cell(operation, &row, "replay")?)? {
            Answer::Replayed {
                posted,
                already_present,
                conflicts,
                touched,
            } => Ok(Posted {
                posted,
                already_present,
                conflicts,
                touched,
            }),
            Answer::OtherEpoch { ledger_epoch } => Err(LedgerError::OtherEpoch {
                expected: epoch,
                actual: ledger_epoch,
            }),
            _ => Err(unexpected(operation)),
        }
    }

    async fn overdrawn(&self, accounts: &[Uuid]) -> Result<Vec<Uuid>, LedgerError> {
        let operation = "overdrawn";
        let statement = "select coalesce(jsonb_agg(id order by id), '[]') as ids from ledger.accounts
                          where id = any ($1::uuid[]) and balance_minor < limit_minor";
        let accounts: Vec<String> = accounts.iter().map(Uuid::to_string).collect();
        let row = self
            .row(operation, statement, &[(&accounts, Type::TEXT_ARRAY)])
            .await?;
        decode(operation, cell(operation, &row, "ids")?)
    }

    async fn verify(&self) -> Result<Verified, LedgerError> {
        let operation = "verify";
        let client = self.task(operation).await?;
        let call = client.query_typed_one("select ledger.verify()", &[]);
        let row = timeout(TASK_STATEMENT_TIMEOUT + Duration::from_secs(1), call)
            .await
            .map_err(|_| LedgerError::Timeout(operation))?
            .map_err(|error| classify(operation, error))?;
        decode(operation, cell(operation, &row, "verify")?)
    }

    async fn log(&self) -> Result<Vec<LedgerEntry>, LedgerError> {
        let operation = "log";
        let statement =
            "select coalesce(jsonb_agg(ledger.entry_json(e) order by e.epoch, e.seq), '[]') as log
                           from ledger.entries e";
        let row = self.row(operation, statement, &[]).await?;
        decode(operation, cell(operation, &row, "log")?)
    }
}

fn schema_missing(error: &(dyn std::error::Error + Send + Sync + 'static)) -> bool {
    let code = error.downcast_ref::<PgError>().and_then(PgError::code);
    matches!(
        code,
        Some(&SqlState::UNDEFINED_TABLE | &SqlState::INVALID_SCHEMA_NAME)
    )
}
