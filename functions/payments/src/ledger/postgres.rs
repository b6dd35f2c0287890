//! The ledger in PostgreSQL: one connection kept warm, one round trip for a command, everything decided by the functions
//! of the `ledger` schema (`migrations/`).

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use continuity::acknowledge::Outcome;
use continuity::entry::{EntryId, EntryStatus, LedgerEntry, Posting};
use continuity::lost_tail::{Held, TailEntry};
use continuity::takeover::LedgerStatus;
use futures::StreamExt;
use futures::stream::BoxStream;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokio::sync::{Mutex, OnceCell};
use tokio::time::timeout;
use tokio_postgres::error::SqlState;
use tokio_postgres::types::{Json, ToSql, Type};
use tokio_postgres::{Client, Error as PgError, Row, Statement as Prepared};
use uuid::Uuid;

use super::connect::{Connect, ConnectError};
use super::migrations::{self, MIGRATIONS};
use super::{
    Account, AccountEntry, Executed, Ledger, LedgerError, Page, Payment, PaymentFilter, PaymentStatus,
    Posted, Read, Refund, Rejection, Submitted, Summary, Traffic, Verified,
};
use crate::command::{Command, Order};
use crate::limits::{ANSWER_TIMEOUT, CONNECT_TIMEOUT, PAGE_SCAN, TASK_STATEMENT_TIMEOUT, TRAFFIC_SCAN};
use crate::statement::{Movements, Period, Statement};

/// The ledger behind a connector.
pub struct PostgresLedger {
    connector: Box<dyn Connect>,
    session: Mutex<Option<Arc<Session>>>,
}

struct Session {
    client: Client,
    pay: OnceCell<Prepared>,
    pay_and_flush: OnceCell<Prepared>,
    submit: OnceCell<Prepared>,
    flush: OnceCell<Prepared>,
    /// Payments until an account that had to be waited for is no longer taken for busy.
    busy: AtomicU32,
}

impl Session {
    fn new(client: Client) -> Self {
        Session {
            client,
            pay: OnceCell::new(),
            pay_and_flush: OnceCell::new(),
            submit: OnceCell::new(),
            flush: OnceCell::new(),
            busy: AtomicU32::new(0),
        }
    }

    /// Executes a command: one round trip, but for the first of its kind on this connection, and for one that had to wait
    /// for an account, which did not wait for its log flush (see `ledger.wait_for_accounts`). The payments after such a one take
    /// one round trip again.
    async fn execute(&self, epoch: u64, command: &Command, details: &Value) -> Result<Answer, PgError> {
        let (key, hash) = (&command.idempotency_key, &command.request_hash);
        let epoch = signed(epoch);
        let now_ms = signed(command.created_at_ms);
        let busy = self.busy.load(Ordering::Relaxed);
        let mut flushed = false;
        let row = match &command.order {
            Order::Pay(pay) => {
                flushed = busy > 0;
                let (prepared, text) = if flushed {
                    (&self.pay_and_flush, PAY_AND_FLUSH)
                } else {
                    (&self.pay, PAY)
                };
                let statement = self.statement(prepared, text).await?;
                let expires_ms = command.expires_at_ms().map(signed);
                let parameters: [&(dyn ToSql + Sync); 12] = [
                    &epoch,
                    key,
                    hash,
                    &command.id,
                    &pay.from_account,
                    &pay.to_account,
                    &pay.amount_minor,
                    &pay.currency,
                    &Json(details),
                    &expires_ms,
                    &now_ms,
                    &command.request_id,
                ];
                self.client.query_one(statement, &parameters).await?
            }
            order => {
                let statement = self.statement(&self.submit, SUBMIT).await?;
                let words = Json(json!({
                    "kind": order.kind(),
                    "subject": command.subject(),
                    "details": details,
                    "request_id": command.request_id,
                    "created_at_ms": command.created_at_ms,
                }));
                self.client
                    .query_one(statement, &[&epoch, key, hash, &words])
                    .await?
            }
        };
        let Json(answer) = row.try_get::<_, Json<Answer>>(0)?;
        let waited = answer.deferred == Some(true);
        let busy = if waited {
            STAYS_BUSY
        } else {
            busy.saturating_sub(1)
        };
        self.busy.store(busy, Ordering::Relaxed);
        if waited && !flushed {
            let statement = self.statement(&self.flush, FLUSH).await?;
            self.client.execute(statement, &[]).await?;
        }
        Ok(answer)
    }

    async fn statement<'a>(
        &self,
        cell: &'a OnceCell<Prepared>,
        text: &'static str,
    ) -> Result<&'a Prepared, PgError> {
        cell.get_or_try_init(|| self.client.prepare(text)).await
    }
}

/// The newest `$1` entries, by the primary key from its end; around an epoch's beginning, by the same key. (The newest of an epoch
/// is not always the latest: of a few, the latest is taken.)
const TRAFFIC: &str = "
    with recent as materialized (
        select epoch, created_at_ms from ledger.entries order by epoch desc, seq desc limit $1),
    executed as (
        select created_at_ms / 1000 as second, epoch, count(*) as entries from recent
         where created_at_ms between $2 and $3 group by 1, 2)
    select jsonb_build_object(
        'executed', (select coalesce(jsonb_agg(to_jsonb(e) order by e.second, e.epoch), '[]') from executed e),
        'looked_at', (select count(*) from recent),
        'oldest_ms', (select min(created_at_ms) from recent),
        'last_before_ms', (select max(created_at_ms) from (
            select created_at_ms from ledger.entries where epoch < $4 order by epoch desc, seq desc limit 64) b),
        'first_in_ms', (select min(created_at_ms) from (
            select created_at_ms from ledger.entries where epoch = $4 order by seq limit 64) f)) as traffic";
/// Entries that [`TRAFFIC`] looks at first.
const TRAFFIC_PAGE: i64 = 5_000;
/// How much older an entry may be than one that stands before it.
const OUT_OF_ORDER_MS: u64 = 10_000;

/// What [`TRAFFIC`] answers.
#[derive(Debug, Deserialize)]
struct Seen {
    executed: Vec<Executed>,
    looked_at: u64,
    oldest_ms: Option<u64>,
    last_before_ms: Option<u64>,
    first_in_ms: Option<u64>,
}

const PAY: &str = "select ledger.pay($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)";
const PAY_AND_FLUSH: &str =
    "call ledger.pay_and_flush(null, $1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)";
const SUBMIT: &str = "select to_jsonb(ledger.submit($1, $2, $3, $4))";
const FLUSH: &str = "select ledger.flush()";
/// For so many commands after one that had to wait, payments are made as if their accounts were busy.
const STAYS_BUSY: u32 = 16;

/// What entry `e` moved on account $1.
const ON_ACCOUNT: &str = "jsonb_build_object('kind', e.kind, 'payment', e.subject,
    'counterparty', case when e.debit_account = $1 then e.credit_account else e.debit_account end,
    'reference', case e.kind when 'capture' then e.details #>> '{payment,reference}' else e.details ->> 'reference' end,
    'amount_minor', case when e.debit_account = $1 then -e.amount_minor else e.amount_minor end,
    'currency', e.currency, 'epoch', e.epoch, 'seq', e.seq, 'posted_epoch', e.posted_epoch,
    'created_at_ms', e.created_at_ms)";
/// What moved on account $1 from $2 until $3, reckoned back from the balance that it has now.
const STATEMENT_TOTALS: &str = "
    select (select epoch from ledger.ledger_epoch) as ledger_epoch,
           (select jsonb_build_object('currency', a.currency, 'lines', m.lines,
                       'opening_balance_minor', a.balance_minor - m.after - m.within,
                       'closing_balance_minor', a.balance_minor - m.after)
              from ledger.accounts a, lateral (
                    select coalesce(sum(signed) filter (where created_at_ms >= $3), 0) as after,
                           coalesce(sum(signed) filter (where created_at_ms < $3), 0) as within,
                           count(*) filter (where created_at_ms < $3) as lines
                      from (select -amount_minor as signed, created_at_ms from ledger.entries
                             where debit_account = $1 and amount_minor > 0 and created_at_ms >= $2
                            union all
                            select amount_minor, created_at_ms from ledger.entries
                             where credit_account = $1 and amount_minor > 0 and created_at_ms >= $2) as sides) m
             where a.id = $1) as totals";

/// The newest $4 entries between account $1 and others, from before ($2, $3). Each side is one range of its index: beside an
/// equation, PostgreSQL estimates `(epoch, seq) < ...` by its first column, finds hardly an entry of an earlier epoch, and reads
/// the whole log backwards in the hope of them.
fn of_account(condition: &str) -> String {
    let side = |account: &str| {
        format!(
            "(select * from ledger.entries
               where ({account}, epoch, seq) < ($1, $2, $3) and ({account}, epoch, seq) >= ($1, 0, 0) and {condition}
               order by {account} desc, epoch desc, seq desc limit $4)"
        )
    };
    let (debit, credit) = (side("debit_account"), side("credit_account"));
    format!("select * from ({debit} union all {credit}) as sides order by epoch desc, seq desc limit $4")
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
        let session = Arc::new(Session::new(client));
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

    /// What a statement that takes its time has found.
    async fn look_through(
        &self,
        operation: &'static str,
        statement: &str,
        parameters: Parameters<'_>,
    ) -> Result<Verified, LedgerError> {
        let client = self.task(operation).await?;
        let call = client.query_typed_one(statement, parameters);
        let row = timeout(TASK_STATEMENT_TIMEOUT + Duration::from_secs(1), call)
            .await
            .map_err(|_| LedgerError::Timeout(operation))?
            .map_err(|error| classify(operation, error))?;
        decode(operation, cell(operation, &row, "found")?)
    }

    /// Those of the entries that were posted in `epoch`, not executed in it, in the order given.
    async fn posted_in(&self, epoch: u64, entries: &[LedgerEntry]) -> Result<Vec<EntryId>, LedgerError> {
        let operation = "replay";
        let statement = "select coalesce(jsonb_agg(jsonb_build_object('epoch', e.epoch, 'seq', e.seq) order by r.place), '[]') as posted
              from rows from (jsonb_to_recordset($2) as (epoch bigint, seq bigint, idempotency_key text))
                   with ordinality as r (epoch, seq, idempotency_key, place)
              join ledger.entries e using (epoch, seq, idempotency_key)
             where e.posted_epoch = $1 and e.epoch < $1";
        let parameters: Parameters<'_> = &[(&signed(epoch), Type::INT8), (&Json(entries), Type::JSONB)];
        let row = self.row(operation, statement, parameters).await?;
        decode(operation, cell(operation, &row, "posted")?)
    }
}

/// A transaction that sees one moment of the ledger, as long as its connection lasts.
struct Snapshot {
    client: Client,
    account: Uuid,
    from_ms: i64,
    until_ms: i64,
}

impl Snapshot {
    /// $1 to $3 of its queries.
    fn parameters(&self) -> [(&(dyn ToSql + Sync), Type); 3] {
        [
            (&self.account, Type::UUID),
            (&self.from_ms, Type::INT8),
            (&self.until_ms, Type::INT8),
        ]
    }
}

#[async_trait]
impl Movements for Snapshot {
    async fn read(&self) -> Result<BoxStream<'_, Result<AccountEntry, LedgerError>>, LedgerError> {
        let operation = "statement";
        let lines = format!(
            "select {ON_ACCOUNT} as entry from (
                select * from ledger.entries
                 where debit_account = $1 and amount_minor > 0 and created_at_ms >= $2 and created_at_ms < $3
                union all
                select * from ledger.entries
                 where credit_account = $1 and amount_minor > 0 and created_at_ms >= $2 and created_at_ms < $3) e
              order by e.epoch, e.seq"
        );
        let rows = self.client.query_typed_raw(&lines, self.parameters()).await;
        let rows = rows.map_err(|error| classify(operation, error))?;
        let entries = rows.map(move |row| {
            let row = row.map_err(|error| classify(operation, error))?;
            let Json(entry) = cell(operation, &row, "entry")?;
            Ok(entry)
        });
        Ok(entries.boxed())
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

/// No function of the schema: it must also work while a deployment has brought the code and not yet the migrations.
const VERIFY_POSTED: &str = "
    with recovered as (select * from ledger.entries where posted_epoch = $1 and posted_epoch <> epoch)
    select jsonb_build_object(
        'entries', (select count(*) from recovered),
        'accounts', (select count(*) from ledger.accounts),
        'currencies', coalesce((
            select jsonb_object_agg(t.currency, jsonb_build_object('debits', t.debits::text, 'credits', t.credits::text))
              from (select currency, coalesce(-sum(balance_minor) filter (where balance_minor < 0), 0) as debits,
                           coalesce(sum(balance_minor) filter (where balance_minor > 0), 0) as credits
                      from ledger.accounts group by currency) t), '{}'),
        'problems', coalesce((
            select jsonb_agg(problem) from (
                (select format('%s: holds take %s from accounts and bring %s', currency, sum(pending_out_minor), sum(pending_in_minor))
                        as problem
                   from ledger.accounts group by currency having sum(pending_out_minor) <> sum(pending_in_minor))
                union all
                (select format('entry %s/%s: amount %s, %s between %s and %s', e.epoch, e.seq, e.amount_minor, e.status,
                               e.debit_account, e.credit_account)
                   from recovered e
                  where e.amount_minor < 0 or (e.status = 'declined' and e.amount_minor <> 0)
                     or (e.amount_minor <> 0) <> (e.status = 'created' and e.kind in ('payment', 'capture', 'refund'))
                     or (e.amount_minor <> 0 and (e.debit_account = e.credit_account
                         or e.debit_account is null or e.credit_account is null)) limit 20)
                union all
                (select format('account %s: is in %s, entry %s/%s in %s', a.id, a.currency, e.epoch, e.seq, e.currency)
                   from recovered e join ledger.accounts a on a.id in (e.debit_account, e.credit_account)
                  where e.amount_minor > 0 and a.currency <> e.currency limit 20)
                union all
                (select format('entry %s/%s: an account that it moved is missing', e.epoch, e.seq)
                   from recovered e
                  where e.amount_minor > 0
                    and (not exists (select from ledger.accounts a where a.id = e.debit_account)
                      or not exists (select from ledger.accounts a where a.id = e.credit_account)) limit 20)
                union all
                (select format('the newest entry is of epoch %s, the ledger is in %s', newest.epoch, l.epoch)
                   from ledger.ledger_epoch l, (select max(epoch) as epoch from ledger.entries) newest
                  where newest.epoch > l.epoch)
            ) as found), '[]')) as found";

/// What `ledger.replay` answers.
#[derive(Deserialize)]
#[serde(tag = "result", rename_all = "kebab-case")]
enum Replayed {
    OtherEpoch {
        ledger_epoch: Option<u64>,
    },
    Replayed {
        posted: u64,
        already_present: u64,
        conflicts: Vec<EntryId>,
        touched: Vec<Uuid>,
    },
}

/// What `ledger.pay` and `ledger.submit` answer.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Answer {
    result: String,
    seq: Option<u64>,
    reason: Option<String>,
    account: Option<Uuid>,
    currency: Option<String>,
    deferred: Option<bool>,
    entry: Option<LedgerEntry>,
    relies_on: Option<Vec<LedgerEntry>>,
}

impl Answer {
    /// What it means for this command, which was executed in `epoch`. `None` for what the functions never answer.
    fn read(self, epoch: u64, command: &Command, details: Value) -> Option<Submitted> {
        let status = |reason: Option<String>| PaymentStatus::parse(&reason?);
        let rejection = match self.result.as_str() {
            "other-epoch" => return Some(Submitted::OtherEpoch),
            "created" => {
                let id = EntryId {
                    epoch,
                    seq: self.seq?,
                };
                let entry = created(command, details, id, self.reason);
                return Some(Submitted::Outcome(Box::new(entry.into())));
            }
            "entry" => {
                return Some(Submitted::Outcome(Box::new(Outcome {
                    entry: self.entry?,
                    relies_on: self.relies_on.unwrap_or_default(),
                })));
            }
            "in-flight" => Rejection::InFlight,
            "key-reuse" => Rejection::KeyReuse,
            "not-found" => Rejection::NotFound,
            "account-unknown" => Rejection::AccountUnknown {
                account: self.account?,
            },
            "currency-mismatch" => Rejection::CurrencyMismatch {
                account: self.account?,
                currency: self.currency?,
            },
            "account-closed" => Rejection::AccountClosed,
            "account-not-empty" => Rejection::AccountNotEmpty,
            "payment-not-authorised" => Rejection::PaymentNotAuthorised {
                status: status(self.reason)?,
            },
            "authorisation-expired" => Rejection::AuthorisationExpired,
            "authorisation-not-expired" => Rejection::AuthorisationNotExpired,
            "payment-not-captured" => Rejection::PaymentNotCaptured {
                status: status(self.reason)?,
            },
            "amount-too-large" => Rejection::AmountTooLarge {
                most_minor: self.reason?.parse().ok()?,
            },
            _ => return None,
        };
        Some(Submitted::Rejected(rejection))
    }
}

/// The entry that `ledger.pay` appended: all of it is in the command but its place and the reason of a decline.
fn created(command: &Command, mut details: Value, id: EntryId, reason: Option<String>) -> LedgerEntry {
    let posting = match (&command.order, &reason) {
        (Order::Pay(pay), None) if pay.hold_s.is_none() => Some(Posting {
            debit_account: pay.from_account.to_string(),
            credit_account: pay.to_account.to_string(),
            amount_minor: pay.amount_minor,
            currency: pay.currency.clone(),
        }),
        _ => None,
    };
    let status = match &reason {
        Some(_) => EntryStatus::Declined,
        None => EntryStatus::Created,
    };
    if let Some(reason) = reason {
        details["reason"] = json!(reason);
    }
    LedgerEntry {
        id,
        idempotency_key: command.idempotency_key.clone(),
        request_hash: command.request_hash.clone(),
        request_id: command.request_id.clone(),
        kind: command.order.kind(),
        subject: command.subject().to_string(),
        status,
        posting,
        details,
        created_at_ms: command.created_at_ms,
    }
}

fn unexpected(operation: &'static str) -> LedgerError {
    LedgerError::Refused {
        operation,
        source: "unexpected answer of the database".into(),
    }
}

/// Before everything: no entry has this identity.
const NEWEST: EntryId = EntryId {
    epoch: i64::MAX as u64,
    seq: i64::MAX as u64,
};

#[async_trait]
impl Ledger for PostgresLedger {
    async fn submit(&self, epoch: u64, command: &Command) -> Result<Submitted, LedgerError> {
        let operation = "submit";
        let details = command.details();
        let recorded = &details;
        let answer = self
            .run(operation, |session| async move {
                session.execute(epoch, command, recorded).await
            })
            .await?;
        answer
            .read(epoch, command, details)
            .ok_or_else(|| unexpected(operation))
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
            Err(error) if schema_missing(&error) => {
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

    async fn heartbeat(&self, epoch: u64) -> Result<(), LedgerError> {
        let beat = "select ledger.beat($1)";
        let plain = "update ledger.heartbeat set at = now() returning true as beat";
        match self.row("heartbeat", beat, &[(&signed(epoch), Type::INT8)]).await {
            Ok(_) => Ok(()),
            // What a migration brings is not there yet: that says nothing against the database.
            Err(error) if schema_missing(&error) => match self.row("heartbeat", plain, &[]).await {
                Err(error) if !schema_missing(&error) => Err(error),
                _ => Ok(()),
            },
            Err(error) => Err(error),
        }
    }

    async fn settled(&self) -> Result<Option<EntryId>, LedgerError> {
        let operation = "settled";
        // By name, in a document: columns that a migration brings are null before it.
        let columns = "select (to_jsonb(h) ->> 'settled_epoch')::bigint as epoch, (to_jsonb(h) ->> 'settled_seq')::bigint as seq
              from ledger.heartbeat h";
        let row = match self.row(operation, columns, &[]).await {
            Err(error) if schema_missing(&error) => return Ok(None),
            row => row?,
        };
        let epoch: Option<i64> = cell(operation, &row, "epoch")?;
        let seq: Option<i64> = cell(operation, &row, "seq")?;
        Ok(epoch.zip(seq).map(|(epoch, seq)| EntryId {
            epoch: unsigned(epoch),
            seq: unsigned(seq),
        }))
    }

    async fn account(&self, id: Uuid) -> Result<Read<Option<Account>>, LedgerError> {
        let found = "select ledger.account_json(a) from ledger.accounts a where a.id = $1";
        self.read("account", found, &[(&id, Type::UUID)]).await
    }

    async fn accounts(
        &self,
        after: Option<Uuid>,
        limit: u32,
    ) -> Result<Read<Page<Account, Uuid>>, LedgerError> {
        let found = "select coalesce(jsonb_agg(ledger.account_json(a) order by a.id desc), '[]')
              from (select * from ledger.accounts where $1::uuid is null or id < $1 order by id desc limit $2) a";
        let parameters: Parameters<'_> = &[(&after, Type::UUID), (&i64::from(limit + 1), Type::INT8)];
        let read = self.read("accounts", found, parameters).await?;
        Ok(read.map(|found| Page::cut(found.unwrap_or_default(), limit, |account: &Account| account.id)))
    }

    async fn account_entries(
        &self,
        id: Uuid,
        before: Option<EntryId>,
        limit: u32,
    ) -> Result<Read<Option<Page<AccountEntry>>>, LedgerError> {
        let before = before.unwrap_or(NEWEST);
        let entries = of_account("amount_minor > 0");
        let found = format!(
            "select coalesce((select jsonb_agg({ON_ACCOUNT} order by e.epoch desc, e.seq desc)
              from ({entries}) e), '[]')
            from ledger.accounts a where a.id = $1"
        );
        let parameters: Parameters<'_> = &[
            (&id, Type::UUID),
            (&signed(before.epoch), Type::INT8),
            (&signed(before.seq), Type::INT8),
            (&i64::from(limit + 1), Type::INT8),
        ];
        let read = self.read::<Vec<_>>("account-entries", &found, parameters).await?;
        Ok(read.map(|found| found.map(|items| Page::cut(items, limit, AccountEntry::entry))))
    }

    async fn statement(&self, id: Uuid, period: Period) -> Result<Read<Option<Statement>>, LedgerError> {
        let operation = "statement";
        let client = self.task(operation).await?;
        let failed = |error| classify(operation, error);
        let one_moment = "begin isolation level repeatable read, read only";
        client.batch_execute(one_moment).await.map_err(failed)?;
        let snapshot = Snapshot {
            client,
            account: id,
            from_ms: signed(period.from_ms),
            until_ms: signed(period.until_ms),
        };
        let row = snapshot
            .client
            .query_typed_one(STATEMENT_TOTALS, &snapshot.parameters())
            .await
            .map_err(failed)?;
        let ledger_epoch = epoch(operation, &row)?;
        let Some(totals) = cell::<Option<Value>>(operation, &row, "totals")? else {
            let value = None;
            return Ok(Read { ledger_epoch, value });
        };
        let totals = decode(operation, totals)?;
        let movements = Box::new(snapshot);
        Ok(Read {
            ledger_epoch,
            value: Some(Statement { totals, movements }),
        })
    }

    async fn payment(&self, id: Uuid) -> Result<Read<Option<Payment>>, LedgerError> {
        let found = "select ledger.payment_json($1::uuid)";
        self.read("payment", found, &[(&id, Type::UUID)]).await
    }

    async fn payments(
        &self,
        filter: &PaymentFilter,
        before: Option<EntryId>,
        limit: u32,
    ) -> Result<Read<Page<Payment>>, LedgerError> {
        #[derive(Deserialize)]
        struct Scanned {
            items: Vec<Payment>,
            looked_at: usize,
            last: Option<EntryId>,
        }
        let before = before.unwrap_or(NEWEST);
        let scan = match filter.account {
            None => "select * from ledger.entries where $1::uuid is null and (epoch, seq) < ($2, $3)
                  order by epoch desc, seq desc limit $4"
                .to_owned(),
            Some(_) => of_account("true"),
        };
        let found = format!(
            "with scanned as materialized ({scan})
             select jsonb_build_object(
                 'items', coalesce((select jsonb_agg(found.payment order by found.epoch desc, found.seq desc) from (
                     select made.* from (
                         select e.epoch, e.seq, ledger.payment_json(e) as payment from scanned e
                          where e.kind in ('payment', 'authorisation')
                            and ($5::text is null or e.details ->> 'reference' = $5)
                            and ($7::bigint is null or e.created_at_ms >= $7)
                            and ($8::bigint is null or e.created_at_ms < $8)) made
                      where $6::text is null or made.payment ->> 'status' = $6
                      order by made.epoch desc, made.seq desc limit $9) found), '[]'),
                 'looked_at', (select count(*) from scanned),
                 'last', (select jsonb_build_object('epoch', epoch, 'seq', seq) from scanned order by epoch, seq limit 1))"
        );
        let status = filter.status.map(PaymentStatus::as_str);
        let parameters: Parameters<'_> = &[
            (&filter.account, Type::UUID),
            (&signed(before.epoch), Type::INT8),
            (&signed(before.seq), Type::INT8),
            (&i64::from(PAGE_SCAN), Type::INT8),
            (&filter.reference, Type::TEXT),
            (&status, Type::TEXT),
            (&filter.created_from_ms.map(signed), Type::INT8),
            (&filter.created_before_ms.map(signed), Type::INT8),
            (&i64::from(limit + 1), Type::INT8),
        ];
        let read = self.read::<Scanned>("payments", &found, parameters).await?;
        let scanned = read.value.ok_or_else(|| unexpected("payments"))?;
        let Scanned {
            items,
            looked_at,
            last,
        } = scanned;
        let page = Page::cut_scanned(items, limit, Payment::entry, looked_at, last);
        Ok(Read {
            ledger_epoch: read.ledger_epoch,
            value: page,
        })
    }

    async fn refunds(
        &self,
        payment: Uuid,
        before: Option<EntryId>,
        limit: u32,
    ) -> Result<Read<Option<Page<Refund>>>, LedgerError> {
        let before = before.unwrap_or(NEWEST);
        let found = "select case when ledger.payment_json($1::uuid) is not null then coalesce((
                 select jsonb_agg((e.details - 'payment') || jsonb_build_object('payment', e.subject, 'status', e.status,
                            'epoch', e.epoch, 'seq', e.seq, 'posted_epoch', e.posted_epoch, 'created_at_ms', e.created_at_ms)
                            order by e.epoch desc, e.seq desc)
                   from (select * from ledger.entries
                          where subject = $1 and kind = 'refund' and (subject, epoch, seq) < ($1, $2, $3)
                          order by epoch desc, seq desc limit $4) e), '[]') end";
        let parameters: Parameters<'_> = &[
            (&payment, Type::UUID),
            (&signed(before.epoch), Type::INT8),
            (&signed(before.seq), Type::INT8),
            (&i64::from(limit + 1), Type::INT8),
        ];
        let read = self.read::<Vec<_>>("refunds", found, parameters).await?;
        Ok(read.map(|found| found.map(|items| Page::cut(items, limit, Refund::entry))))
    }

    async fn expired(&self, now_ms: u64, limit: u32) -> Result<Vec<Uuid>, LedgerError> {
        let operation = "expired";
        let statement = "select coalesce(jsonb_agg(payment order by expires_at_ms, payment), '[]') as ids
            from (select * from ledger.holds where expires_at_ms <= $1 order by expires_at_ms, payment limit $2) passed";
        let parameters: Parameters<'_> = &[(&signed(now_ms), Type::INT8), (&i64::from(limit), Type::INT8)];
        let row = self.row(operation, statement, parameters).await?;
        decode(operation, cell(operation, &row, "ids")?)
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
        let newest = "select coalesce((select seq from ledger.entries order by epoch desc, seq desc limit 1), 0) as last_seq";
        match self.row(operation, newest, &[]).await {
            Ok(row) => Ok(Summary {
                status,
                last_seq: unsigned(cell(operation, &row, "last_seq")?),
            }),
            Err(error) if schema_missing(&error) => Ok(Summary { status, last_seq: 0 }),
            Err(error) => Err(error),
        }
    }

    async fn traffic(&self, from_ms: u64, until_ms: u64, epoch: u64) -> Result<Traffic, LedgerError> {
        let operation = "traffic";
        let (from, until, epoch) = (signed(from_ms), signed(until_ms), signed(epoch));
        let mut scan = TRAFFIC_PAGE;
        loop {
            let parameters: Parameters<'_> = &[
                (&scan, Type::INT8),
                (&from, Type::INT8),
                (&until, Type::INT8),
                (&epoch, Type::INT8),
            ];
            let row = self.row(operation, TRAFFIC, parameters).await?;
            let seen: Seen = decode(operation, cell(operation, &row, "traffic")?)?;
            // Entries are nearly in the order of their time: two commands at once may be a moment apart.
            let all = seen.looked_at < unsigned(scan)
                || seen
                    .oldest_ms
                    .is_some_and(|oldest_ms| oldest_ms + OUT_OF_ORDER_MS < from_ms);
            if all || scan >= TRAFFIC_SCAN {
                return Ok(Traffic {
                    executed: seen.executed,
                    last_before_ms: seen.last_before_ms,
                    first_in_ms: seen.first_in_ms,
                    complete: all,
                });
            }
            scan = (scan * 4).min(TRAFFIC_SCAN);
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
            Replayed::Replayed {
                posted,
                already_present,
                conflicts,
                touched,
            } => Ok(Posted {
                posted: match posted {
                    0 => Vec::new(),
                    _ => self.posted_in(epoch, entries).await?,
                },
                already_present,
                conflicts,
                touched,
            }),
            Replayed::OtherEpoch { ledger_epoch } => Err(LedgerError::OtherEpoch {
                expected: epoch,
                actual: ledger_epoch,
            }),
        }
    }

    async fn overdrawn(&self, accounts: &[Uuid]) -> Result<Vec<Uuid>, LedgerError> {
        let operation = "overdrawn";
        let statement = "select coalesce(jsonb_agg(id order by id), '[]') as ids from ledger.accounts
                          where id = any ($1) and balance_minor - pending_out_minor < limit_minor";
        let row = self
            .row(operation, statement, &[(&accounts, Type::UUID_ARRAY)])
            .await?;
        decode(operation, cell(operation, &row, "ids")?)
    }

    async fn verify(&self) -> Result<Verified, LedgerError> {
        self.look_through("verify", "select ledger.verify() as found", &[])
            .await
    }

    async fn verify_posted(&self, epoch: u64) -> Result<Verified, LedgerError> {
        let parameters: Parameters<'_> = &[(&signed(epoch), Type::INT8)];
        self.look_through("verify-posted", VERIFY_POSTED, parameters)
            .await
    }

    async fn newest(&self, before: Option<EntryId>, limit: u32) -> Result<Vec<TailEntry>, LedgerError> {
        let operation = "newest";
        let before = before.unwrap_or(NEWEST);
        let statement = "select coalesce(jsonb_agg(jsonb_build_object(
                'epoch', e.epoch, 'seq', e.seq, 'posted_epoch', e.posted_epoch, 'idempotency_key', e.idempotency_key,
                'kind', e.kind, 'status', e.status, 'subject', e.subject,
                'debit_account', e.debit_account, 'credit_account', e.credit_account,
                'amount_minor', coalesce((e.details ->> 'amount_minor')::bigint, e.amount_minor), 'currency', e.currency,
                'created_at_ms', e.created_at_ms) order by e.epoch desc, e.seq desc), '[]') as newest
              from (select * from ledger.entries where (epoch, seq) < ($1, $2)
                     order by epoch desc, seq desc limit $3) e";
        let parameters: Parameters<'_> = &[
            (&signed(before.epoch), Type::INT8),
            (&signed(before.seq), Type::INT8),
            (&i64::from(limit), Type::INT8),
        ];
        let row = self.row(operation, statement, parameters).await?;
        decode(operation, cell(operation, &row, "newest")?)
    }

    async fn held(&self, keys: &[String]) -> Result<Vec<Option<Held>>, LedgerError> {
        let operation = "held";
        let statement = "select coalesce(jsonb_agg(case when e.epoch is not null then jsonb_build_object(
                'epoch', e.epoch, 'seq', e.seq, 'posted_epoch', e.posted_epoch, 'subject', e.subject) end
                order by asked.place), '[]') as held
              from unnest($1) with ordinality asked (key, place)
              left join ledger.entries e on e.idempotency_key = asked.key";
        let row = self
            .row(operation, statement, &[(&keys, Type::TEXT_ARRAY)])
            .await?;
        decode(operation, cell(operation, &row, "held")?)
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

/// Whether something is not there that a migration brings.
fn schema_missing(error: &LedgerError) -> bool {
    let LedgerError::Unavailable { source, .. } = error else {
        return false;
    };
    let code = source.downcast_ref::<PgError>().and_then(PgError::code);
    matches!(
        code,
        Some(&SqlState::UNDEFINED_TABLE | &SqlState::UNDEFINED_FUNCTION | &SqlState::INVALID_SCHEMA_NAME)
    )
}
