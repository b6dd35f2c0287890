//! The ledger's rules against a real PostgreSQL: as properties over random commands, compared with the ledger in memory,
//! and the database's own refusals.
#![allow(clippy::unwrap_used, missing_docs)]

mod support;

use std::collections::BTreeMap;

use continuity::entry::{EntryId, EntryKind, LedgerEntry, Posting};
use payment_processor::command::{AccountDetails, Command, Order, PaymentDetails};
use payment_processor::ledger::memory::MemoryLedger;
use payment_processor::ledger::{Ledger, LedgerError, Rejection, Submitted};
use payment_processor::limits::BALANCE_RANGE;
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;
use support::Database;
use uuid::Uuid;

const CURRENCIES: [&str; 2] = ["EUR", "JPY"];

fn id(number: u8) -> Uuid {
    Uuid::from_u128(0x0190_a000_0000_7000_8000_0000_0000_0000 + u128::from(number))
}

fn command(key: &str, subject: Uuid, order: Order) -> Command {
    Command {
        idempotency_key: key.to_owned(),
        request_hash: order.request_hash(),
        subject,
        order,
        created_at_ms: 1_000,
    }
}

fn open(account: u8, currency: &str, limit_minor: Option<i64>) -> Command {
    let details = AccountDetails {
        currency: currency.to_owned(),
        limit_minor,
        name: Some(format!("account {account}")),
    };
    command(
        &format!("open-{account}"),
        id(account),
        Order::OpenAccount(details),
    )
}

fn pay(key: &str, from: u8, to: u8, amount_minor: i64, currency: &str) -> Command {
    let details = PaymentDetails {
        from_account: id(from),
        to_account: id(to),
        amount_minor,
        currency: currency.to_owned(),
        reference: None,
        reason: None,
    };
    // A retry comes with a subject of its own: only the first one's is recorded.
    command(key, Uuid::new_v4(), Order::Pay(details))
}

async fn entry(ledger: &dyn Ledger, epoch: u64, command: &Command) -> LedgerEntry {
    match ledger.submit(epoch, command).await.unwrap() {
        Submitted::Entry(entry) => *entry,
        other => panic!("{other:?}"),
    }
}

/// Eight accounts at most, few keys, so that retries, reuse of keys, unknown accounts and mismatches are all common.
fn commands() -> impl Strategy<Value = Vec<Command>> {
    let limit = prop_oneof![3 => Just(Some(0)), 2 => (-500_i64..0).prop_map(Some), 2 => Just(None), 1 => Just(Some(i64::MIN))];
    let opening = (0_u8..6, 0_usize..2, limit)
        .prop_map(|(account, currency, limit)| open(account, CURRENCIES[currency], limit));
    let amount = prop_oneof![8 => 1_i64..400, 1 => Just(i64::MAX), 1 => Just(BALANCE_RANGE), 1 => Just(BALANCE_RANGE - 100)];
    let paying =
        (0_u8..30, 0_u8..7, 1_u8..7, amount, 0_usize..2).prop_map(|(key, from, step, amount, currency)| {
            pay(
                &format!("key-{key}"),
                from,
                (from + step) % 7,
                amount,
                CURRENCIES[currency],
            )
        });
    proptest::collection::vec(prop_oneof![1 => opening, 4 => paying], 1..60)
}

#[tokio::test(flavor = "multi_thread")]
async fn random_commands_come_out_as_in_the_reference_and_replay_to_the_same_balances() {
    let mut runner = TestRunner::default();
    for _ in 0..8 {
        let commands = commands().new_tree(&mut runner).unwrap().current();
        let database = Database::with_ledger(1).await;
        let (real, reference) = (database.ledger(), MemoryLedger::in_epoch(1));
        for command in &commands {
            let (got, expected) = (
                real.submit(1, command).await.unwrap(),
                reference.submit(1, command).await.unwrap(),
            );
            assert_eq!(got, expected, "{command:?} of {commands:#?}");
        }
        check_rules(&real).await;
        assert_same(&real, &reference).await;

        let log = real.log().await.unwrap();
        let other = Database::with_ledger(2).await;
        let recovered = other.ledger();
        let first = recovered.post(2, &log).await.unwrap();
        assert_eq!((first.posted, first.already_present), (log.len() as u64, 0));
        assert_eq!(first.conflicts, []);
        assert_eq!(recovered.post(2, &log).await.unwrap(), first, "twice is once");
        assert_eq!(recovered.log().await.unwrap(), log, "entry for entry");
        let reference = MemoryLedger::in_epoch(2);
        assert_eq!(reference.post(2, &log).await.unwrap(), first);
        for account in (0..8).map(id) {
            let balance = async |ledger: &dyn Ledger| {
                ledger
                    .account(account)
                    .await
                    .unwrap()
                    .value
                    .map(|found| found.balance_minor)
            };
            assert_eq!(balance(&recovered).await, balance(&real).await);
        }
        check_rules(&recovered).await;
        // Every key, and every rejection, is answered as before.
        for command in &commands {
            assert_eq!(
                recovered.submit(2, command).await.unwrap(),
                reference.submit(2, command).await.unwrap()
            );
        }
    }
}

/// Money is conserved, and no decided payment left an account below its limit.
async fn check_rules(ledger: &dyn Ledger) {
    let found = ledger.verify().await.unwrap();
    assert_eq!(found.problems, Vec::<String>::new());
    let mut sums: BTreeMap<String, i128> = BTreeMap::new();
    for account in (0..8).map(id) {
        let Some(account) = ledger.account(account).await.unwrap().value else {
            continue;
        };
        *sums.entry(account.currency).or_default() += i128::from(account.balance_minor);
        assert!(
            account
                .limit_minor
                .is_none_or(|limit| account.balance_minor >= limit)
        );
    }
    assert!(sums.values().all(|sum| *sum == 0), "{sums:?}");
    assert!(
        found
            .currencies
            .values()
            .all(|totals| totals.debits == totals.credits)
    );
}

async fn assert_same(one: &dyn Ledger, other: &dyn Ledger) {
    assert_eq!(one.log().await.unwrap(), other.log().await.unwrap());
    assert_eq!(one.summary().await.unwrap(), other.summary().await.unwrap());
    for account in (0..8).map(id) {
        assert_eq!(
            one.account(account).await.unwrap(),
            other.account(account).await.unwrap()
        );
        let entries = one.account_entries(account, None, 5).await.unwrap();
        assert_eq!(entries, other.account_entries(account, None, 5).await.unwrap());
    }
    let mut before = None;
    loop {
        let page = one.payments(before, 3).await.unwrap();
        assert_eq!(page, other.payments(before, 3).await.unwrap());
        let Some(last) = page.value.last() else { break };
        assert_eq!(
            one.payment(last.id).await.unwrap(),
            other.payment(last.id).await.unwrap()
        );
        before = Some(EntryId {
            epoch: last.epoch,
            seq: last.seq,
        });
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn result_codes_come_in_their_documented_order() {
    let database = Database::with_ledger(3).await;
    let ledger = database.ledger();
    for opening in [
        open(1, "EUR", Some(-10)),
        open(2, "EUR", Some(0)),
        open(3, "JPY", None),
        open(4, "EUR", None),
    ] {
        entry(&ledger, 3, &opening).await;
    }
    let stored = entry(&ledger, 3, &pay("used", 1, 2, 5, "EUR")).await;
    let rejected = |rejection| Some(Submitted::Rejected(rejection));
    let unknown = |account| rejected(Rejection::AccountUnknown { account: id(account) });
    let mismatch = |account, currency: &str| {
        rejected(Rejection::CurrencyMismatch {
            account: id(account),
            currency: currency.to_owned(),
        })
    };
    // Each row is wrong in everything that the later rows are wrong in, where that can be.
    let rows = [
        (
            2,
            pay("used", 8, 9, i64::MAX, "JPY"),
            Some(Submitted::OtherEpoch),
            None,
        ),
        (
            3,
            pay("used", 8, 9, i64::MAX, "JPY"),
            rejected(Rejection::KeyReuse),
            None,
        ),
        (3, pay("new", 8, 9, i64::MAX, "JPY"), unknown(8), None),
        (3, pay("new", 1, 9, i64::MAX, "JPY"), unknown(9), None),
        (3, pay("new", 1, 2, i64::MAX, "JPY"), mismatch(1, "EUR"), None),
        (3, pay("new", 1, 3, i64::MAX, "EUR"), mismatch(3, "JPY"), None),
        (
            3,
            pay("range", 1, 2, i64::MAX, "EUR"),
            None,
            Some("balance-out-of-range"),
        ),
        (3, pay("funds", 1, 2, 6, "EUR"), None, Some("insufficient-funds")),
        (3, pay("enough", 1, 2, 5, "EUR"), None, None),
        (3, pay("unlimited", 4, 2, BALANCE_RANGE - 10, "EUR"), None, None),
        (3, pay("full", 4, 2, 1, "EUR"), None, Some("balance-out-of-range")),
    ];
    for (epoch, command, answer, reason) in rows {
        let got = ledger.submit(epoch, &command).await.unwrap();
        match answer {
            Some(answer) => assert_eq!(got, answer, "{command:?}"),
            None => {
                let Submitted::Entry(entry) = got else {
                    panic!("{got:?}")
                };
                assert_eq!(entry.details["reason"].as_str(), reason, "{command:?}");
                assert_eq!(
                    entry.status,
                    if reason.is_some() { "declined" } else { "created" }
                );
                assert_eq!(entry.postings.is_empty(), reason.is_some());
            }
        }
    }
    assert_eq!(
        entry(&ledger, 3, &pay("used", 1, 2, 5, "EUR")).await,
        stored,
        "the same request, the stored outcome"
    );
    check_rules(&ledger).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn migrating_twice_is_migrating_once_and_a_changed_migration_is_refused() {
    let database = Database::create().await;
    let ledger = database.ledger();
    let before = ledger.summary().await.unwrap();
    assert_eq!(
        (
            before.status.reachable,
            before.status.ledger_epoch,
            before.entries
        ),
        (true, None, 0)
    );
    let (one, two) = (database.ledger(), database.ledger());
    let (one, two) = tokio::join!(one.migrate(), two.migrate());
    assert_eq!((one.unwrap(), two.unwrap()), (2, 2));
    assert_eq!(ledger.migrate().await.unwrap(), 2);
    assert_eq!(
        ledger.status().await.unwrap().ledger_epoch,
        None,
        "no epoch before the first set-epoch"
    );
    database
        .client()
        .await
        .batch_execute("update ledger.migrations set sha256 = 'x' where version = 1")
        .await
        .unwrap();
    assert!(matches!(
        ledger.migrate().await,
        Err(LedgerError::MigrationChanged { version: 1 })
    ));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_database_refuses_to_change_the_log_or_a_balance_by_hand() {
    let database = Database::with_ledger(1).await;
    let ledger = database.ledger();
    for opening in [open(1, "EUR", None), open(2, "EUR", None), open(3, "JPY", None)] {
        entry(&ledger, 1, &opening).await;
    }
    let paid = entry(&ledger, 1, &pay("paid", 1, 2, 5, "EUR")).await;
    let log = ledger.log().await.unwrap();
    let seq = paid.id.seq;
    let (one, two, three) = (id(1), id(2), id(3));
    let client = database.client().await;
    for statement in [
        "update ledger.entries set status = 'declined'".to_owned(),
        "delete from ledger.entries".to_owned(),
        "truncate ledger.entries".to_owned(),
        "update ledger.postings set amount_minor = 1".to_owned(),
        "delete from ledger.postings".to_owned(),
        "truncate ledger.postings".to_owned(),
        "update ledger.accounts set balance_minor = 1000000".to_owned(),
        "update ledger.accounts set currency = 'USD'".to_owned(),
        "delete from ledger.accounts".to_owned(),
        "truncate ledger.accounts".to_owned(),
        // Does not sum to zero; no such entry; no such account; another currency than the account's.
        format!("insert into ledger.postings values ('{three}', 1, {seq}, 5, 'JPY')"),
        format!(
            "insert into ledger.postings values ('{one}', 1, 999, 5, 'EUR'), ('{two}', 1, 999, -5, 'EUR')"
        ),
        format!(
            "insert into ledger.postings values ('{three}', 1, {seq}, 5, 'JPY'), ('{}', 1, {seq}, -5, 'JPY')",
            id(9)
        ),
        format!(
            "insert into ledger.postings values ('{three}', 1, {seq}, 5, 'EUR'), ('{}', 1, {seq}, -5, 'EUR')",
            id(9)
        ),
        "insert into ledger.ledger_epoch values (false, 9)".to_owned(),
    ] {
        let error = client.batch_execute(&statement).await.expect_err(&statement);
        let code = error.code().unwrap().code().to_owned();
        assert!(code.starts_with("23"), "{statement}: {error:?}");
    }
    assert_eq!(ledger.log().await.unwrap(), log);
    check_rules(&ledger).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replay_honours_what_was_acknowledged_and_reports_what_it_found() {
    let database = Database::with_ledger(1).await;
    let ledger = database.ledger();
    for opening in [
        open(1, "EUR", Some(0)),
        open(2, "EUR", Some(0)),
        open(3, "EUR", None),
    ] {
        entry(&ledger, 1, &opening).await;
    }
    let kept = entry(&ledger, 1, &pay("kept", 3, 2, 7, "EUR")).await;
    assert_eq!(ledger.set_epoch(2).await.unwrap(), 2);

    let recorded = |seq, key: &str, from: u8, to: u8, amount: i64| LedgerEntry {
        id: EntryId { epoch: 1, seq },
        idempotency_key: key.to_owned(),
        request_hash: "hash".to_owned(),
        kind: EntryKind::Payment,
        subject: id(100 + u8::try_from(seq % 50).unwrap()).to_string(),
        status: "created".to_owned(),
        postings: [(from, -amount), (to, amount)]
            .map(|(account, amount_minor)| Posting {
                account: id(account).to_string(),
                amount_minor,
                currency: "EUR".into(),
            })
            .to_vec(),
        details: serde_json::json!({ "from_account": id(from), "to_account": id(to), "amount_minor": amount, "currency": "EUR", "reference": null }),
        created_at_ms: 5,
    };
    let journal = [
        kept.clone(),
        recorded(kept.id.seq, "same-identity", 3, 2, 1),
        recorded(1_000, "overdraws", 1, 2, 50),
        recorded(1_001, "kept", 3, 2, 9),
        recorded(1_002, "lost-account", 7, 2, 20),
    ];
    let posted = ledger.post(2, &journal).await.unwrap();
    assert_eq!((posted.posted, posted.already_present), (2, 1));
    assert_eq!(posted.conflicts, [kept.id, EntryId { epoch: 1, seq: 1_001 }]);
    assert_eq!(ledger.overdrawn(&posted.touched).await.unwrap(), [id(1), id(7)]);
    assert_eq!(ledger.post(2, &journal).await.unwrap(), posted, "twice is once");

    let restored = ledger.account(id(7)).await.unwrap().value.unwrap();
    assert_eq!((restored.balance_minor, restored.epoch), (-20, None));
    let honoured = ledger.payment(id(100)).await.unwrap().value.unwrap();
    assert_eq!((honoured.epoch, honoured.posted_epoch), (1, 2));
    assert_eq!(ledger.verify().await.unwrap().problems, Vec::<String>::new());

    assert!(matches!(
        ledger.post(1, &journal).await,
        Err(LedgerError::OtherEpoch {
            expected: 1,
            actual: Some(2)
        })
    ));
    assert!(matches!(
        ledger.post(3, &journal).await,
        Err(LedgerError::OtherEpoch { .. })
    ));
}
