//! The ledger under real concurrency, in a real PostgreSQL: no deadlock, one key one entry, and the epoch as a fence.
#![allow(clippy::unwrap_used, missing_docs)]

mod support;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Duration, Instant};

use continuity::control::{ApiKey, ControlRecord, ControlStore};
use continuity::journal::Journal;
use continuity::memory::{MemoryControl, MemoryJournal, MemoryRates};
use futures::future::join_all;
use payments::command::{AccountDetails, Command, Metadata, Order, PaymentOrder};
use payments::context::{Context, Stores};
use payments::event::Service;
use payments::ledger::postgres::PostgresLedger;
use payments::ledger::{Ledger, Submitted};
use payments::statement::memory::MemoryStore;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use support::Database;
use tokio_postgres::{Client, Transaction};
use understudy_tests::proxy_event;
use uuid::Uuid;

async fn open(ledger: &PostgresLedger, epoch: u64) -> Uuid {
    let order = Order::OpenAccount(AccountDetails {
        currency: "EUR".into(),
        limit_minor: None,
        name: None,
        metadata: Metadata::new(),
    });
    let id = Uuid::new_v4();
    submit(ledger, epoch, &command(&format!("open-{id}"), id, order)).await;
    id
}

fn command(key: &str, id: Uuid, order: Order) -> Command {
    let request_hash = order.request_hash();
    Command {
        idempotency_key: key.to_owned(),
        request_hash,
        request_id: "request".to_owned(),
        id,
        order,
        created_at_ms: 1,
    }
}

fn pay(key: &str, from_account: Uuid, to_account: Uuid) -> Command {
    let details = PaymentOrder {
        from_account,
        to_account,
        amount_minor: 1,
        currency: "EUR".into(),
        reference: None,
        metadata: Metadata::new(),
        hold_s: None,
    };
    command(key, Uuid::new_v4(), Order::Pay(details))
}

async fn submit(ledger: &PostgresLedger, epoch: u64, command: &Command) -> String {
    match ledger.submit(epoch, command).await.unwrap() {
        Submitted::Outcome(outcome) => outcome.entry.subject,
        other => panic!("{other:?}"),
    }
}

/// A payment of epoch 1 that has been executed but not committed yet.
async fn under_way(client: &mut Client, from: Uuid, to: Uuid) -> Transaction<'_> {
    under_way_in(1, client, from, to).await
}

/// A payment of an epoch that has been executed but not committed yet.
async fn under_way_in(epoch: u64, client: &mut Client, from: Uuid, to: Uuid) -> Transaction<'_> {
    let transaction = client.transaction().await.unwrap();
    let id = Uuid::new_v4();
    let statement = format!(
        "select ledger.pay({epoch}, 'slow-{id}', 'h', '{id}', '{from}', '{to}', 1, 'EUR', '{{}}', null, 1, 'r')"
    );
    transaction.batch_execute(&statement).await.unwrap();
    transaction
}

/// Returns once a lock of the ledger is waited for.
async fn until_somebody_waits(database: &Database, check: impl Fn()) {
    let waits = "select count(*) from pg_locks where locktype = 'advisory' and not granted";
    let observer = database.client().await;
    while observer.query_one(waits, &[]).await.unwrap().get::<_, i64>(0) == 0 {
        check();
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn payments_in_opposite_directions_never_deadlock() {
    let database = Database::with_ledger(1).await;
    let ledger = database.ledger();
    let accounts = [
        open(&ledger, 1).await,
        open(&ledger, 1).await,
        open(&ledger, 1).await,
    ];
    let client = |worker: usize| {
        let ledger = database.ledger();
        async move {
            for number in 0..150 {
                let (from, to) = (
                    accounts[(worker + number) % 3],
                    accounts[(2 * worker + number + 1) % 3],
                );
                let (from, to) = if from == to {
                    (from, accounts[(worker + number + 1) % 3])
                } else {
                    (from, to)
                };
                submit(&ledger, 1, &pay(&format!("{worker}-{number}"), from, to)).await;
            }
        }
    };
    join_all((0..8).map(client)).await;
    let found = ledger.verify().await.unwrap();
    assert_eq!((found.entries, found.problems), (8 * 150 + 3, Vec::new()));
    let deadlocks = "select deadlocks from pg_stat_database where datname = current_database()";
    let row = database.client().await.query_one(deadlocks, &[]).await.unwrap();
    assert_eq!(row.get::<_, i64>(0), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_sent_by_many_at_once_is_executed_once() {
    let database = Database::with_ledger(1).await;
    let ledger = database.ledger();
    let (a, b) = (open(&ledger, 1).await, open(&ledger, 1).await);
    let client = |_| {
        let ledger = database.ledger();
        async move {
            let mut answers = Vec::new();
            for number in 0..40 {
                answers.push(submit(&ledger, 1, &pay(&format!("payment-{number}"), a, b)).await);
                let opening = AccountDetails {
                    currency: "EUR".into(),
                    limit_minor: None,
                    name: None,
                    metadata: Metadata::new(),
                };
                let opening = command(
                    &format!("account-{number}"),
                    Uuid::new_v4(),
                    Order::OpenAccount(opening),
                );
                answers.push(submit(&ledger, 1, &opening).await);
            }
            answers
        }
    };
    let answers: BTreeSet<Vec<String>> = join_all((0..8).map(client)).await.into_iter().collect();
    assert_eq!(answers.len(), 1, "everybody got the same outcomes");
    let found = ledger.verify().await.unwrap();
    assert_eq!(
        (found.entries, found.accounts, found.problems),
        (2 + 80, 2 + 40, Vec::new())
    );
}

/// A function with a connection of its own, as Lambda has many of.
fn function(database: &Database, control: &Arc<MemoryControl>, journal: &Arc<MemoryJournal>) -> Service {
    let (control, journal) = (control.clone(), journal.clone());
    let rates = Arc::new(MemoryRates::default());
    let ledger = Arc::new(database.ledger());
    let mut context = Context::new(
        "dev",
        "us-east-1",
        "primary",
        Stores {
            control,
            journal,
            ledger,
            rates,
            statements: Arc::new(MemoryStore::default()),
        },
    );
    context.tell = Box::new(|_, _| {});
    Service::new(Arc::new(context))
}

/// Sends a payment until the answer is final.
async fn paid(service: &Service, key: &str, body: &Value) -> String {
    let headers = [("Authorization", "Bearer key"), ("Idempotency-Key", key)];
    let headers = headers.map(|(name, value)| (name.to_owned(), value.to_owned()));
    let event = proxy_event(
        "POST",
        "/v1/payments",
        &[],
        &headers,
        Some(&body.to_string()),
        false,
    );
    let event = event.to_string();
    let until = Instant::now() + Duration::from_secs(60);
    loop {
        let answer = json!(service.handle(&event, None).await.unwrap());
        match answer["statusCode"].as_u64() {
            Some(201) => return answer["body"].as_str().unwrap().to_owned(),
            // Somebody else executes the key.
            Some(409) if Instant::now() < until => {
                assert!(answer["multiValueHeaders"]["retry-after"].is_array())
            }
            _ => panic!("{key}: {answer}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn two_thousand_requests_at_once_with_two_hundred_keys_make_two_hundred_payments() {
    const REQUESTS: usize = 2_000;
    const KEYS: usize = 200;
    const FUNCTIONS: usize = 40;
    let database = Database::with_ledger(1).await;
    let ledger = database.ledger();
    let (a, b) = (open(&ledger, 1).await, open(&ledger, 1).await);
    let control = Arc::new(MemoryControl::with(ControlRecord::first("us-east-1", "test", 0)));
    let key = ApiKey {
        name: "test".into(),
        scopes: vec!["payments:write".into()],
        requests_per_s: u32::MAX,
        revoked: false,
    };
    let hash = hex::encode(Sha256::digest("key"));
    control.put_api_key(&hash, &key, 0).await.unwrap();
    let journal = Arc::new(MemoryJournal::default());
    let functions: Vec<Service> = (0..FUNCTIONS)
        .map(|_| function(&database, &control, &journal))
        .collect();
    let body = json!({"from_account": a, "to_account": b, "amount_minor": 5, "currency": "EUR"});

    let requests = (0..REQUESTS).map(|number| {
        let key = format!("payment-{}", number % KEYS);
        // Requests of one key go to different functions.
        let service = &functions[(number / KEYS + number) % FUNCTIONS];
        let body = &body;
        async move { (key.clone(), paid(service, &key, body).await) }
    });
    let answers = join_all(requests).await;

    assert_eq!(answers.len(), REQUESTS);
    let outcomes: BTreeSet<(String, String)> = answers.into_iter().collect();
    assert_eq!(outcomes.len(), KEYS, "one key, one answer, byte for byte");
    let found = ledger.verify().await.unwrap();
    assert_eq!((found.entries, found.problems), (2 + KEYS as u64, Vec::new()));
    let payer = ledger.account(a).await.unwrap().value.unwrap();
    assert_eq!(payer.balance_minor, -5 * KEYS as i64);
    assert_eq!(
        journal.scan(1, None).await.unwrap().len(),
        KEYS,
        "all of them are journaled"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn set_epoch_waits_for_commands_under_way_and_lets_none_of_the_old_epoch_follow() {
    let database = Database::with_ledger(1).await;
    let ledger = database.ledger();
    let (a, b) = (open(&ledger, 1).await, open(&ledger, 1).await);

    let mut slow = database.client().await;
    let transaction = under_way(&mut slow, a, b).await;
    let setter = database.ledger();
    let raising = tokio::spawn(async move { setter.set_epoch(2).await });
    until_somebody_waits(&database, || {
        assert!(!raising.is_finished(), "set-epoch did not wait")
    })
    .await;
    transaction.commit().await.unwrap();
    assert_eq!(raising.await.unwrap().unwrap(), 2);
    assert_eq!(
        ledger.log().await.unwrap().len(),
        3,
        "the command under way is in"
    );

    assert_eq!(
        ledger.submit(1, &pay("late", a, b)).await.unwrap(),
        Submitted::OtherEpoch
    );
    assert_eq!(ledger.set_epoch(1).await.unwrap(), 2, "the epoch never goes back");
    submit(&ledger, 2, &pay("new", a, b)).await;
}

/// Until so many more requests have an answer: they are refused, not stuck.
async fn until_more_are_answered(answered: &AtomicU32, more: u32) {
    let wanted = answered.load(Ordering::SeqCst) + more;
    let until = Instant::now() + Duration::from_secs(30);
    while answered.load(Ordering::SeqCst) < wanted {
        assert!(Instant::now() < until, "they are stuck");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_of_an_epoch_commits_after_set_epoch_returned() {
    let database = Database::with_ledger(1).await;
    let ledger = database.ledger();
    let (a, b) = (open(&ledger, 1).await, open(&ledger, 1).await);
    let stop = Arc::new(AtomicBool::new(false));
    let answered = Arc::new(AtomicU32::new(0));
    let handlers: Vec<_> = (0..6)
        .map(|worker| {
            let (ledger, stop, answered) = (database.ledger(), stop.clone(), answered.clone());
            tokio::spawn(async move {
                for number in 0.. {
                    // Handlers that outlive every takeover: they go on in epoch 1.
                    let _ = ledger
                        .submit(1, &pay(&format!("{worker}-{number}"), a, b))
                        .await
                        .unwrap();
                    answered.fetch_add(1, Ordering::SeqCst);
                    if stop.load(Ordering::SeqCst) {
                        break;
                    }
                }
            })
        })
        .collect();
    until_more_are_answered(&answered, 6).await;
    for epoch in 2..10 {
        assert_eq!(ledger.set_epoch(epoch).await.unwrap(), epoch);
        let count = ledger.verify().await.unwrap().entries;
        until_more_are_answered(&answered, 6).await;
        assert_eq!(ledger.verify().await.unwrap().entries, count);
    }
    stop.store(true, Ordering::SeqCst);
    for handler in handlers {
        handler.await.unwrap();
    }
    assert!(
        ledger
            .log()
            .await
            .unwrap()
            .iter()
            .all(|entry| entry.id.epoch == 1)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_survives_the_loss_of_its_connection() {
    let database = Database::with_ledger(1).await;
    let ledger = database.ledger();
    let (a, b) = (open(&ledger, 1).await, open(&ledger, 1).await);
    let kill = "select pg_terminate_backend(pid) from pg_stat_activity
                 where datname = current_database() and pid <> pg_backend_pid() and backend_type = 'client backend'";
    let other = database.client().await;
    for number in 0..5 {
        other.batch_execute(kill).await.unwrap();
        submit(&ledger, 1, &pay(&format!("payment-{number}"), a, b)).await;
    }
    assert_eq!(ledger.verify().await.unwrap().entries, 2 + 5);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_read_only_database_is_a_standby_and_takes_no_command() {
    let database = Database::with_ledger(1).await;
    let ledger = database.ledger();
    let (a, b) = (open(&ledger, 1).await, open(&ledger, 1).await);
    let client = database.client().await;
    let set = |value: &str| {
        format!(
            "do $$ begin execute format('alter database %I set default_transaction_read_only = {value}', current_database()); end $$"
        )
    };
    client.batch_execute(&set("on")).await.unwrap();
    let fresh = database.ledger();
    assert!(fresh.status().await.unwrap().in_recovery);
    let error = fresh.submit(1, &pay("refused", a, b)).await.unwrap_err();
    assert!(
        matches!(error, payments::ledger::LedgerError::Unavailable { .. }),
        "{error:?}"
    );
    client
        .batch_execute(&format!(
            "set default_transaction_read_only = off; {}",
            set("off")
        ))
        .await
        .unwrap();
    // The warm connection still has the old default: one reconnect, within the request.
    submit(&fresh, 1, &pay("taken", a, b)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_that_waited_for_an_account_is_durable_when_it_is_answered() {
    let database = Database::alone().await.migrated(1).await;
    let ledger = database.ledger();
    let (a, b) = (open(&ledger, 1).await, open(&ledger, 1).await);
    let mut slow = database.client().await;
    let transaction = under_way(&mut slow, a, b).await;
    let waiting = database.ledger();
    let answer = tokio::spawn(async move { submit(&waiting, 1, &pay("waits", b, a)).await });
    until_somebody_waits(&database, || assert!(!answer.is_finished(), "it did not wait")).await;
    transaction.commit().await.unwrap();
    answer.await.unwrap();
    assert!(everything_is_durable(&database).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn payments_after_one_that_waited_are_flushed_in_the_same_round_trip_until_nobody_waits_any_more() {
    let database = Database::alone().await.migrated(1).await;
    let ledger = database.ledger();
    let (a, b) = (open(&ledger, 1).await, open(&ledger, 1).await);
    submit(&ledger, 1, &pay("quiet", a, b)).await;
    assert_eq!(last_statement(&database).await, "select ledger.pay");
    let mut slow = database.client().await;
    let transaction = under_way(&mut slow, a, b).await;
    let waits = pay("waits", b, a);
    let answer = submit(&ledger, 1, &waits);
    let release = async {
        until_somebody_waits(&database, || {}).await;
        transaction.commit().await.unwrap();
    };
    tokio::join!(answer, release);
    drop(slow);
    assert_eq!(last_statement(&database).await, "select ledger.flush");
    for number in 0..16 {
        let command = pay(&format!("after-{number}"), b, a);
        submit(&ledger, 1, &command).await;
        assert_eq!(last_statement(&database).await, "call ledger.pay_and_flush");
        assert!(everything_is_durable(&database).await);
    }
    submit(&ledger, 1, &pay("quiet again", a, b)).await;
    assert_eq!(last_statement(&database).await, "select ledger.pay");
    assert_eq!(ledger.verify().await.unwrap().problems, Vec::<String>::new());
}

/// What the connection that was last busy with the ledger was asked, up to its parameters.
async fn last_statement(database: &Database) -> String {
    let asked = "select split_part(query, '(', 1) from pg_stat_activity
                  where datname = current_database() and query like '%ledger.%' and pid <> pg_backend_pid()
                  order by state_change desc limit 1";
    let row = database.client().await.query_one(asked, &[]).await.unwrap();
    row.get(0)
}

/// On a server where nobody else writes, and nothing is written out but for somebody who waits.
async fn everything_is_durable(database: &Database) -> bool {
    // A record that ends a page leaves the place for the next one behind a header of 24 bytes, of 40 in a new segment.
    let written = "select flushed >= inserted
                       or ((flushed - '0/0') % 8192 = 0 and inserted - flushed in (24, 40))
                     from (select pg_current_wal_insert_lsn() as inserted, pg_current_wal_flush_lsn() as flushed) as log";
    let row = database.client().await.query_one(written, &[]).await.unwrap();
    row.get(0)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stored_outcome_is_durable_when_it_is_answered_although_its_first_caller_ended_before_the_flush() {
    let database = Database::alone().await.migrated(1).await;
    let ledger = database.ledger();
    let (a, b) = (open(&ledger, 1).await, open(&ledger, 1).await);
    let mut slow = database.client().await;
    let transaction = under_way(&mut slow, a, b).await;
    // A caller that waits for the account and never comes to its flush.
    let command = pay("first", b, a);
    let statement = format!(
        "select ledger.pay(1, 'first', '{}', '{}', '{b}', '{a}', 1, 'EUR', '{{}}', null, 1, 'r')",
        command.request_hash, command.id
    );
    let first = database.client().await;
    let waiting = tokio::spawn(async move { first.batch_execute(&statement).await.unwrap() });
    until_somebody_waits(&database, || assert!(!waiting.is_finished(), "it did not wait")).await;
    transaction.commit().await.unwrap();
    waiting.await.unwrap();
    assert!(
        !everything_is_durable(&database).await,
        "the first caller flushed"
    );
    submit(&ledger, 1, &command).await;
    assert!(everything_is_durable(&database).await);
}

/// The number up to which the log of an epoch is settled.
async fn settled(ledger: &PostgresLedger) -> Option<(u64, u64)> {
    let settled = ledger.settled().await.unwrap();
    settled.map(|entry| (entry.epoch, entry.seq))
}

#[tokio::test(flavor = "multi_thread")]
async fn the_log_is_settled_behind_every_command_under_way_and_waits_for_none() {
    let database = Database::with_ledger(1).await;
    let ledger = database.ledger();
    assert_eq!(settled(&ledger).await, None);
    ledger.heartbeat(1).await.unwrap();
    assert_eq!(settled(&ledger).await, Some((1, 0)), "the log is empty");
    let mut accounts = Vec::new();
    for _ in 0..6 {
        accounts.push(open(&ledger, 1).await);
    }
    let [a, b, c, d, e, f] = accounts[..] else {
        unreachable!()
    };
    ledger.heartbeat(1).await.unwrap();
    assert_eq!(settled(&ledger).await, Some((1, 6)), "nobody is at work");

    let (mut one, mut two) = (database.client().await, database.client().await);
    let first = under_way(&mut one, a, b).await; // 7
    submit(&ledger, 1, &pay("eighth", c, d)).await;
    for _ in 0..3 {
        ledger.heartbeat(1).await.unwrap();
        assert_eq!(settled(&ledger).await, Some((1, 6)), "7 may still be committed");
    }
    let second = under_way(&mut two, e, f).await; // 9
    submit(&ledger, 1, &pay("tenth", c, d)).await;
    first.commit().await.unwrap();
    ledger.heartbeat(1).await.unwrap();
    assert_eq!(
        settled(&ledger).await,
        Some((1, 8)),
        "9 is no part of what was asked"
    );
    ledger.heartbeat(1).await.unwrap();
    assert_eq!(settled(&ledger).await, Some((1, 8)), "9 may still be committed");
    second.rollback().await.unwrap();
    ledger.heartbeat(1).await.unwrap();
    assert_eq!(settled(&ledger).await, Some((1, 10)), "9 never will be");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_asked_in_another_epoch_settles_nothing() {
    let database = Database::with_ledger(1).await;
    let ledger = database.ledger();
    let (a, b) = (open(&ledger, 1).await, open(&ledger, 1).await);
    ledger.heartbeat(1).await.unwrap();
    let mut slow = database.client().await;
    let lost = under_way(&mut slow, a, b).await; // 3
    ledger.heartbeat(1).await.unwrap();
    // As on a replica that is promoted: the other server may have committed it, here it never will be.
    lost.rollback().await.unwrap();
    assert_eq!(ledger.set_epoch(2).await.unwrap(), 2);
    ledger.heartbeat(1).await.unwrap();
    assert_eq!(
        settled(&ledger).await,
        Some((1, 2)),
        "a look of an epoch that is over"
    );
    let next = under_way_in(2, &mut slow, a, b).await; // 4
    ledger.heartbeat(2).await.unwrap();
    ledger.heartbeat(2).await.unwrap();
    assert_eq!(settled(&ledger).await, Some((1, 2)));
    next.commit().await.unwrap();
    ledger.heartbeat(2).await.unwrap();
    assert_eq!(settled(&ledger).await, Some((2, 4)));
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_sees_a_log_as_settled_has_all_of_it() {
    let database = Database::with_ledger(1).await;
    let ledger = database.ledger();
    let mut accounts = Vec::new();
    for _ in 0..8 {
        accounts.push(open(&ledger, 1).await);
    }
    let stop = Arc::new(AtomicBool::new(false));
    let payers = (0..6).map(|worker| {
        let (ledger, stop, accounts) = (database.ledger(), stop.clone(), accounts.clone());
        tokio::spawn(async move {
            let mut number = 0;
            while !stop.load(Ordering::SeqCst) {
                let [from, to] = [number, number + 1 + worker].map(|at| accounts[at % 8]);
                submit(&ledger, 1, &pay(&format!("{worker}-{number}"), from, to)).await;
                number += 1;
            }
        })
    });
    let looks = (0..2).map(|_| {
        let (ledger, stop) = (database.ledger(), stop.clone());
        tokio::spawn(async move {
            while !stop.load(Ordering::SeqCst) {
                ledger.heartbeat(1).await.unwrap();
            }
        })
    });
    let all: Vec<_> = payers.chain(looks).collect();

    let count = "select (select settled_seq from ledger.heartbeat),
                        (select count(*) from ledger.entries where epoch = 1
                            and seq <= (select settled_seq from ledger.heartbeat))";
    let client = database.client().await;
    let mut seen: Vec<(i64, i64)> = Vec::new();
    while seen.len() < 400 {
        let row = client.query_one(count, &[]).await.unwrap();
        if let Some(settled) = row.get::<_, Option<i64>>(0)
            && seen.last().is_none_or(|(before, _)| settled > *before)
        {
            seen.push((settled, row.get(1)));
        }
    }
    stop.store(true, Ordering::SeqCst);
    for one in all {
        one.await.unwrap();
    }
    let finally = "select count(*) from ledger.entries where epoch = 1 and seq <= $1";
    for (settled, entries) in seen {
        let row = client.query_one(finally, &[&settled]).await.unwrap();
        assert_eq!(row.get::<_, i64>(0), entries, "settled up to {settled}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_takes_heartbeats_before_the_migrations_that_settle_its_log() {
    let database = Database::create().await;
    let ledger = database.ledger();
    ledger.heartbeat(1).await.unwrap();
    assert_eq!(settled(&ledger).await, None, "no schema");
    let database = Database::with_ledger(1).await;
    let ledger = database.ledger();
    let before = "drop function ledger.beat(bigint);
                  alter table ledger.heartbeat drop column settled_epoch, drop column settled_seq, drop column asked_epoch,
                                               drop column asked_seq, drop column asked_of;
                  update ledger.heartbeat set at = to_timestamp(0)";
    let client = database.client().await;
    client.batch_execute(before).await.unwrap();
    ledger.heartbeat(1).await.unwrap();
    let beaten = "select at > to_timestamp(0) from ledger.heartbeat";
    assert!(client.query_one(beaten, &[]).await.unwrap().get::<_, bool>(0));
    assert_eq!(settled(&ledger).await, None);
}
