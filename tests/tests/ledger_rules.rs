//! The ledger's rules against a real PostgreSQL: as properties over random commands, compared with the ledger in memory,
//! and the database's own refusals.
#![allow(clippy::unwrap_used, missing_docs)]

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use continuity::entry::{EntryId, EntryKind, EntryStatus, LedgerEntry, Posting};
use futures::TryStreamExt;
use payments::command::{AccountDetails, Command, Metadata, Order, PaymentOrder, RefundOrder};
use payments::ledger::memory::MemoryLedger;
use payments::ledger::{
    AccountEntry, Ledger, LedgerError, PaymentFilter, PaymentStatus, Rejection, Submitted, recorded,
};
use payments::limits::BALANCE_RANGE;
use payments::statement::{Period, Statement, Totals};
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;
use support::Database;
use uuid::Uuid;

const CURRENCIES: [&str; 2] = ["EUR", "JPY"];
/// Accounts that commands name; the last one is never opened.
const ACCOUNTS: u8 = 7;
/// Payments that commands name.
const PAYMENTS: u8 = 20;
/// Sequences of commands that a property is tried with.
const CASES: u32 = 8;
/// How long authorisations hold, in seconds.
const HOLD_S: u32 = 60;

fn id(number: u8) -> Uuid {
    Uuid::from_u128(0x0190_a000_0000_7000_8000_0000_0000_0000 + u128::from(number))
}

/// The id of the payment that the first command of key `payment-{number}` makes.
fn payment_id(number: u8) -> Uuid {
    id(100 + number)
}

fn command(key: &str, id: Uuid, order: Order) -> Command {
    Command {
        idempotency_key: key.to_owned(),
        request_hash: order.request_hash(),
        request_id: "request".to_owned(),
        id,
        order,
        created_at_ms: 1_000,
    }
}

fn open(account: u8, currency: &str, limit_minor: Option<i64>) -> Command {
    let details = AccountDetails {
        currency: currency.to_owned(),
        limit_minor,
        name: Some(format!("account {account}")),
        metadata: Metadata::from([("number".to_owned(), account.to_string())]),
    };
    command(
        &format!("open-{account}"),
        id(account),
        Order::OpenAccount(details),
    )
}

fn payment(from: u8, to: u8, amount_minor: i64, currency: &str, hold_s: Option<u32>) -> Order {
    Order::Pay(PaymentOrder {
        from_account: id(from),
        to_account: id(to),
        amount_minor,
        currency: currency.to_owned(),
        reference: (amount_minor % 3 == 0).then(|| format!("invoice {}", amount_minor % 9)),
        metadata: Metadata::new(),
        hold_s,
    })
}

fn pay(key: &str, from: u8, to: u8, amount_minor: i64, currency: &str) -> Command {
    // A retry comes with an id of its own: only the first one's is recorded.
    command(
        key,
        Uuid::new_v4(),
        payment(from, to, amount_minor, currency, None),
    )
}

fn refund(key: &str, payment: Uuid, amount_minor: Option<i64>) -> Command {
    let order = RefundOrder {
        payment,
        amount_minor,
        reference: Some("back".to_owned()),
        metadata: Metadata::new(),
    };
    command(key, Uuid::new_v4(), Order::Refund(order))
}

async fn entry(ledger: &dyn Ledger, epoch: u64, command: &Command) -> LedgerEntry {
    match ledger.submit(epoch, command).await.unwrap() {
        Submitted::Outcome(outcome) => outcome.entry,
        other => panic!("{other:?}"),
    }
}

async fn rejection(ledger: &dyn Ledger, epoch: u64, command: &Command) -> Rejection {
    match ledger.submit(epoch, command).await.unwrap() {
        Submitted::Rejected(rejection) => rejection,
        other => panic!("{other:?}"),
    }
}

/// Few accounts, payments and keys, so that retries, reuse of keys, unknown accounts, mismatches, second captures and refunds
/// of what is gone are all common.
fn commands() -> impl Strategy<Value = Vec<Command>> {
    let limit = prop_oneof![2 => Just(Some(0)), 3 => (-500_i64..0).prop_map(Some), 5 => Just(None), 1 => Just(Some(i64::MIN))];
    let opening = (0..ACCOUNTS - 1, 0_usize..13, limit)
        .prop_map(|(account, currency, limit)| open(account, CURRENCIES[currency / 12], limit))
        .boxed();
    let closing = (0..ACCOUNTS, 0_u8..3).prop_map(|(account, attempt)| {
        let order = Order::CloseAccount { account: id(account) };
        command(&format!("close-{account}-{attempt}"), Uuid::new_v4(), order)
    });
    let amount = prop_oneof![30 => 1_i64..400, 1 => Just(i64::MAX), 1 => Just(BALANCE_RANGE), 1 => Just(BALANCE_RANGE - 100)];
    let paying = (
        0..PAYMENTS,
        0..ACCOUNTS,
        1..ACCOUNTS,
        amount,
        0_usize..13,
        any::<bool>(),
    )
        .prop_map(|(number, from, step, amount, currency, held)| {
            let order = payment(
                from,
                (from + step) % ACCOUNTS,
                amount,
                CURRENCIES[currency / 12],
                held.then_some(HOLD_S),
            );
            command(&format!("payment-{number}"), payment_id(number), order)
        });
    let part = prop_oneof![2 => Just(None), 4 => (1_i64..400).prop_map(Some)];
    let following =
        (0..PAYMENTS, 0_u8..3, part, 0_u8..8).prop_map(|(number, attempt, amount_minor, what)| {
            let payment = payment_id(number);
            let key = |what: &str| format!("{what}-{number}-{attempt}");
            let order = |what, order| command(&key(what), Uuid::new_v4(), order);
            match what {
                0..=2 => order(
                    "capture",
                    Order::Capture {
                        payment,
                        amount_minor,
                    },
                ),
                3 => order("void", Order::Void { payment }),
                4 => order("expire", Order::Expire { payment }),
                _ => refund(&key("refund"), payment, amount_minor),
            }
        });
    let at_ms = prop_oneof![4 => Just(1_000_u64), 1 => Just(30_000), 1 => Just(61_000), 1 => Just(200_000)];
    let first = proptest::collection::vec(opening.clone(), 8);
    let any = prop_oneof![2 => opening, 1 => closing, 12 => paying, 12 => following];
    let any = (any, at_ms).prop_map(|(command, created_at_ms)| Command {
        created_at_ms,
        ..command
    });
    (first, proptest::collection::vec(any, 20..150)).prop_map(|(first, rest)| [first, rest].concat())
}

#[tokio::test(flavor = "multi_thread")]
async fn random_commands_come_out_as_in_the_reference_and_replay_to_the_same_balances() {
    let mut runner = TestRunner::default();
    let mut kinds = BTreeSet::new();
    for _ in 0..CASES {
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
        kinds.extend(
            log.iter()
                .map(|entry| format!("{:?} {:?}", entry.kind, entry.status)),
        );
        check_history(&log);
        let other = Database::with_ledger(2).await;
        let recovered = other.ledger();
        let first = recovered.post(2, &log).await.unwrap();
        let all: Vec<EntryId> = log.iter().map(|entry| entry.id).collect();
        assert_eq!((&first.posted, first.already_present), (&all, 0));
        assert_eq!(first.conflicts, []);
        assert_eq!(recovered.post(2, &log).await.unwrap(), first, "twice is once");
        assert_eq!(recovered.log().await.unwrap(), log, "entry for entry");
        let reference = MemoryLedger::in_epoch(2);
        assert_eq!(reference.post(2, &log).await.unwrap(), first);
        for account in (0..ACCOUNTS).map(id) {
            let balances = async |ledger: &dyn Ledger| {
                let found = ledger.account(account).await.unwrap().value?;
                Some((
                    found.balance_minor,
                    found.pending_out_minor,
                    found.pending_in_minor,
                ))
            };
            assert_eq!(balances(&recovered).await, balances(&real).await);
        }
        check_rules(&recovered).await;
        assert_same(&recovered, &reference).await;
        // Every key, and every rejection, is answered as before.
        for command in &commands {
            assert_eq!(
                recovered.submit(2, command).await.unwrap(),
                reference.submit(2, command).await.unwrap()
            );
        }
    }
    assert!(
        kinds.len() > 8,
        "the commands made every kind of entry: {kinds:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replay_of_any_part_of_the_log_in_any_order_comes_out_as_in_the_reference() {
    let mut runner = TestRunner::default();
    for _ in 0..CASES {
        let commands = commands().new_tree(&mut runner).unwrap().current();
        let source = MemoryLedger::in_epoch(1);
        for command in &commands {
            source.submit(1, command).await.unwrap();
        }
        let log = source.log().await.unwrap();
        let part = proptest::sample::subsequence(log.clone(), 0..=log.len()).prop_shuffle();
        let part = part.new_tree(&mut runner).unwrap().current();
        let database = Database::with_ledger(2).await;
        let (real, reference) = (database.ledger(), MemoryLedger::in_epoch(2));
        let posted = real.post(2, &part).await.unwrap();
        assert_eq!(posted, reference.post(2, &part).await.unwrap());
        assert_eq!(real.verify().await.unwrap(), {
            let found = reference.verify().await.unwrap();
            assert_eq!(found.problems, Vec::<String>::new());
            found
        });
        assert_eq!(
            real.verify_posted(2).await.unwrap(),
            reference.verify_posted(2).await.unwrap()
        );
        assert_same(&real, &reference).await;
        assert_eq!(
            real.overdrawn(&posted.touched).await.unwrap(),
            reference.overdrawn(&posted.touched).await.unwrap()
        );
    }
}

/// Money is conserved, and no decided payment left an account below its limit.
async fn check_rules(ledger: &dyn Ledger) {
    let found = ledger.verify().await.unwrap();
    assert_eq!(found.problems, Vec::<String>::new());
    let mut sums: BTreeMap<String, i128> = BTreeMap::new();
    for account in ledger.accounts(None, 100).await.unwrap().value.items {
        let sum = sums.entry(account.currency).or_default();
        *sum += i128::from(account.balance_minor);
        assert!(account.pending_out_minor >= 0 && account.pending_in_minor >= 0);
        assert_eq!(
            account.available_minor,
            account.balance_minor - account.pending_out_minor
        );
        assert!(
            account
                .limit_minor
                .is_none_or(|limit| account.available_minor >= limit)
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

/// What holds at every entry of a log that was decided, in its order: no account below its limit, captures and refunds within
/// their bounds, the end of an authorisation at most once.
fn check_history(log: &[LedgerEntry]) {
    let mut limits: BTreeMap<String, Option<i64>> = BTreeMap::new();
    let mut balances: BTreeMap<String, i64> = BTreeMap::new();
    let mut payments: BTreeMap<String, (i64, i64, i64)> = BTreeMap::new();
    let mut ended = BTreeSet::new();
    for entry in log.iter().filter(|entry| entry.status == EntryStatus::Created) {
        if let Some(posting) = &entry.posting {
            assert!(posting.amount_minor > 0);
            *balances.entry(posting.debit_account.clone()).or_default() -= posting.amount_minor;
            *balances.entry(posting.credit_account.clone()).or_default() += posting.amount_minor;
            let limit = limits[&posting.debit_account];
            let left = balances[&posting.debit_account];
            assert!(limit.is_none_or(|limit| left >= limit), "{entry:?} leaves {left}");
        }
        let moved = entry.posting.as_ref().map_or(0, |posting| posting.amount_minor);
        let asked = entry.details["amount_minor"].as_i64().unwrap_or(0);
        match entry.kind {
            EntryKind::AccountOpened => {
                limits.insert(
                    entry.subject.clone(),
                    recorded::account(entry).unwrap().limit_minor,
                );
            }
            EntryKind::AccountClosed => assert_eq!(balances.get(&entry.subject).copied().unwrap_or(0), 0),
            EntryKind::Payment => {
                payments.insert(entry.subject.clone(), (asked, moved, 0));
            }
            EntryKind::Authorisation => {
                payments.insert(entry.subject.clone(), (asked, 0, 0));
            }
            EntryKind::Capture => payments.get_mut(&entry.subject).unwrap().1 += moved,
            EntryKind::Refund => payments.get_mut(&entry.subject).unwrap().2 += moved,
            EntryKind::Void | EntryKind::Expiry => {}
        }
        if matches!(
            entry.kind,
            EntryKind::Capture | EntryKind::Void | EntryKind::Expiry
        ) {
            assert!(ended.insert(entry.subject.clone()), "{entry:?} ends it twice");
        }
        if let Some((asked, captured, refunded)) = payments.get(&entry.subject) {
            assert!(refunded <= captured && captured <= asked, "{entry:?}");
        }
    }
}

/// A statement, read twice. Its movements add up to its balances.
async fn stated(ledger: &dyn Ledger, account: Uuid, period: Period) -> Option<(Totals, Vec<AccountEntry>)> {
    let Statement { totals, movements } = ledger.statement(account, period).await.unwrap().value?;
    let mut entries: [Vec<AccountEntry>; 2] = Default::default();
    for read in &mut entries {
        *read = movements.read().await.unwrap().try_collect().await.unwrap();
    }
    let [entries, again] = entries;
    assert_eq!(entries, again);
    let moved: i64 = entries.iter().map(|entry| entry.amount_minor).sum();
    assert_eq!(totals.opening_balance_minor + moved, totals.closing_balance_minor);
    assert_eq!(totals.lines, entries.len() as u64);
    Some((totals, entries))
}

async fn assert_same(one: &dyn Ledger, other: &dyn Ledger) {
    let log = one.log().await.unwrap();
    assert_eq!(log, other.log().await.unwrap());
    let mut keys: Vec<String> = log.iter().map(|entry| entry.idempotency_key.clone()).collect();
    keys.insert(1.min(keys.len()), "nobody's".to_owned());
    assert_eq!(one.held(&keys).await.unwrap(), other.held(&keys).await.unwrap());
    let mut before = None;
    loop {
        let page = one.newest(before, 7).await.unwrap();
        assert_eq!(page, other.newest(before, 7).await.unwrap());
        let Some(last) = page.last() else { break };
        before = Some(last.id);
    }
    assert_eq!(one.summary().await.unwrap(), other.summary().await.unwrap());
    assert_eq!(one.verify().await.unwrap(), other.verify().await.unwrap());
    for now_ms in [60_999, 61_000, 300_000] {
        assert_eq!(
            one.expired(now_ms, 3).await.unwrap(),
            other.expired(now_ms, 3).await.unwrap()
        );
    }
    let mut after = None;
    loop {
        let page = one.accounts(after, 3).await.unwrap();
        assert_eq!(page, other.accounts(after, 3).await.unwrap());
        after = page.value.next;
        if after.is_none() {
            break;
        }
    }
    for account in (0..ACCOUNTS + 1).map(id) {
        assert_eq!(
            one.account(account).await.unwrap(),
            other.account(account).await.unwrap()
        );
        let entries = one.account_entries(account, None, 5).await.unwrap();
        assert_eq!(entries, other.account_entries(account, None, 5).await.unwrap());
        for (from_ms, until_ms) in [(0, u64::MAX), (0, 61_000), (61_000, 200_000)] {
            let period = Period { from_ms, until_ms };
            let statement = stated(one, account, period).await;
            assert_eq!(statement, stated(other, account, period).await);
        }
    }
    for payment in (0..PAYMENTS).map(payment_id) {
        assert_eq!(
            one.payment(payment).await.unwrap(),
            other.payment(payment).await.unwrap()
        );
        for before in [None, Some(EntryId { epoch: 1, seq: 40 })] {
            let refunds = one.refunds(payment, before, 1).await.unwrap();
            assert_eq!(refunds, other.refunds(payment, before, 1).await.unwrap());
        }
    }
    let mut filters = vec![
        PaymentFilter::default(),
        PaymentFilter {
            account: Some(id(2)),
            ..PaymentFilter::default()
        },
        PaymentFilter {
            reference: Some("invoice 3".to_owned()),
            ..PaymentFilter::default()
        },
        PaymentFilter {
            created_from_ms: Some(30_000),
            created_before_ms: Some(200_000),
            ..PaymentFilter::default()
        },
    ];
    filters.extend(PaymentStatus::ALL.map(|status| PaymentFilter {
        status: Some(status),
        ..PaymentFilter::default()
    }));
    for filter in filters {
        let mut before = None;
        loop {
            let page = one.payments(&filter, before, 3).await.unwrap();
            assert_eq!(
                page,
                other.payments(&filter, before, 3).await.unwrap(),
                "{filter:?}"
            );
            before = page.value.next;
            if before.is_none() {
                break;
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn result_codes_of_payments_come_in_their_documented_order() {
    let database = Database::with_ledger(3).await;
    let ledger = database.ledger();
    for opening in [
        open(1, "EUR", Some(-10)),
        open(2, "EUR", Some(0)),
        open(3, "JPY", None),
        open(4, "EUR", None),
        open(5, "EUR", Some(0)),
        open(6, "EUR", Some(i64::MIN)),
        open(7, "EUR", Some(0)),
    ] {
        entry(&ledger, 3, &opening).await;
    }
    let closing = Order::CloseAccount { account: id(5) };
    entry(&ledger, 3, &command("close", Uuid::new_v4(), closing)).await;
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
        (3, pay("new", 1, 5, i64::MAX, "JPY"), mismatch(1, "EUR"), None),
        (3, pay("new", 5, 3, i64::MAX, "EUR"), mismatch(3, "JPY"), None),
        (
            3,
            pay("closed", 1, 5, i64::MAX, "EUR"),
            None,
            Some("account-closed"),
        ),
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
        // A limit beyond the range does not widen it.
        (3, pay("deep", 6, 7, BALANCE_RANGE, "EUR"), None, None),
        (
            3,
            pay("deeper", 6, 4, 1, "EUR"),
            None,
            Some("balance-out-of-range"),
        ),
    ];
    for (epoch, command, answer, reason) in rows {
        let got = ledger.submit(epoch, &command).await.unwrap();
        match answer {
            Some(answer) => assert_eq!(got, answer, "{command:?}"),
            None => {
                let Submitted::Outcome(outcome) = got else {
                    panic!("{got:?}")
                };
                let entry = outcome.entry;
                assert_eq!(entry.details["reason"].as_str(), reason, "{command:?}");
                let declined = reason.is_some();
                assert_eq!(entry.status == EntryStatus::Declined, declined);
                assert_eq!(entry.posting.is_none(), declined);
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
async fn result_codes_of_what_follows_a_payment_come_in_their_documented_order() {
    let database = Database::with_ledger(1).await;
    let ledger = database.ledger();
    for opening in [
        open(1, "EUR", None),
        open(2, "EUR", Some(0)),
        open(3, "EUR", None),
    ] {
        entry(&ledger, 1, &opening).await;
    }
    let hold = |number: u8| {
        let order = payment(1, 2, 100, "EUR", Some(HOLD_S));
        command(&format!("hold-{number}"), payment_id(number), order)
    };
    let capture = |key: &str, number: u8, amount_minor, created_at_ms| {
        let payment = payment_id(number);
        let order = Order::Capture {
            payment,
            amount_minor,
        };
        Command {
            created_at_ms,
            ..command(key, Uuid::new_v4(), order)
        }
    };
    let follow = |key: &str, order| command(key, Uuid::new_v4(), order);
    for number in 1..=4 {
        entry(&ledger, 1, &hold(number)).await;
    }
    let late_ms = 1_000 + u64::from(HOLD_S) * 1_000;

    // Capture: unknown, ended, expired, too much.
    let stranger = capture("c", 9, Some(101), late_ms);
    assert_eq!(rejection(&ledger, 1, &stranger).await, Rejection::NotFound);
    entry(
        &ledger,
        1,
        &follow(
            "v",
            Order::Void {
                payment: payment_id(1),
            },
        ),
    )
    .await;
    let voided = Rejection::PaymentNotAuthorised {
        status: PaymentStatus::Voided,
    };
    assert_eq!(
        rejection(&ledger, 1, &capture("c", 1, Some(101), late_ms)).await,
        voided
    );
    let void = follow(
        "v2",
        Order::Void {
            payment: payment_id(1),
        },
    );
    assert_eq!(rejection(&ledger, 1, &void).await, voided);
    let late = capture("c", 2, Some(101), late_ms);
    assert_eq!(
        rejection(&ledger, 1, &late).await,
        Rejection::AuthorisationExpired
    );
    let most_minor = 100;
    assert_eq!(
        rejection(&ledger, 1, &capture("c", 2, Some(101), late_ms - 1)).await,
        Rejection::AmountTooLarge { most_minor }
    );
    let taken = entry(&ledger, 1, &capture("c", 2, Some(60), late_ms - 1)).await;
    let left = recorded::payment(&taken).unwrap();
    assert_eq!((left.status, left.captured_minor), (PaymentStatus::Captured, 60));
    assert_eq!(ledger.payment(payment_id(2)).await.unwrap().value, Some(left));

    // Expiry: not before its time, once.
    let expire = |key: &str, created_at_ms| Command {
        created_at_ms,
        ..follow(
            key,
            Order::Expire {
                payment: payment_id(3),
            },
        )
    };
    assert_eq!(
        rejection(&ledger, 1, &expire("e", late_ms - 1)).await,
        Rejection::AuthorisationNotExpired
    );
    assert_eq!(
        ledger.expired(late_ms, 9).await.unwrap(),
        [payment_id(3), payment_id(4)]
    );
    entry(&ledger, 1, &expire("e", late_ms)).await;
    assert_eq!(
        rejection(&ledger, 1, &expire("e2", late_ms)).await,
        Rejection::PaymentNotAuthorised {
            status: PaymentStatus::Expired
        }
    );
    let account = ledger.account(id(1)).await.unwrap().value.unwrap();
    assert_eq!((account.balance_minor, account.pending_out_minor), (-60, 100));

    // Refund: unknown, nothing captured, too much; declined without funds.
    let back = |key: &str, number, amount| refund(key, payment_id(number), amount);
    assert_eq!(
        rejection(&ledger, 1, &back("r", 9, Some(61))).await,
        Rejection::NotFound
    );
    assert_eq!(
        rejection(&ledger, 1, &back("r", 4, Some(61))).await,
        Rejection::PaymentNotCaptured {
            status: PaymentStatus::Authorised
        }
    );
    assert_eq!(
        rejection(&ledger, 1, &back("r", 2, Some(61))).await,
        Rejection::AmountTooLarge { most_minor: 60 }
    );
    let spent = entry(&ledger, 1, &pay("spent", 2, 3, 50, "EUR")).await;
    let poor = entry(&ledger, 1, &back("poor", 2, Some(11))).await;
    assert_eq!(
        (poor.status, poor.posting.as_ref()),
        (EntryStatus::Declined, None)
    );
    assert_eq!(
        recorded::refund(&poor, 1).unwrap().reason.as_deref(),
        Some("insufficient-funds")
    );
    entry(&ledger, 1, &back("part", 2, Some(10))).await;
    entry(&ledger, 1, &pay("earned", 3, 2, 50, "EUR")).await;
    let rest = entry(&ledger, 1, &back("rest", 2, None)).await;
    assert_eq!(
        rest.posting.as_ref().map(|posting| posting.amount_minor),
        Some(50)
    );
    assert_eq!(
        rejection(&ledger, 1, &back("more", 2, None)).await,
        Rejection::AmountTooLarge { most_minor: 0 }
    );

    // Close: unknown, not empty, closed.
    let close = |key: &str, account| follow(key, Order::CloseAccount { account: id(account) });
    assert_eq!(rejection(&ledger, 1, &close("x", 9)).await, Rejection::NotFound);
    assert_eq!(
        rejection(&ledger, 1, &close("x", 2)).await,
        Rejection::AccountNotEmpty,
        "an authorisation is open"
    );
    entry(
        &ledger,
        1,
        &follow(
            "v4",
            Order::Void {
                payment: payment_id(4),
            },
        ),
    )
    .await;
    let closed = entry(&ledger, 1, &close("x", 2)).await;
    assert_eq!(
        recorded::account(&closed),
        ledger.account(id(2)).await.unwrap().value
    );
    assert_eq!(
        rejection(&ledger, 1, &close("x2", 2)).await,
        Rejection::AccountClosed
    );
    let spent = Uuid::parse_str(&spent.subject).unwrap();
    let gone = entry(&ledger, 1, &refund("gone", spent, None)).await;
    assert_eq!(
        recorded::refund(&gone, 1).unwrap().reason.as_deref(),
        Some("account-closed")
    );
    check_rules(&ledger).await;
    check_history(&ledger.log().await.unwrap());
}

/// The newest migration.
const LATEST: u32 = 5;

#[tokio::test(flavor = "multi_thread")]
async fn migrating_twice_is_migrating_once_and_a_changed_migration_is_refused() {
    let database = Database::create().await;
    let ledger = database.ledger();
    let before = ledger.summary().await.unwrap();
    assert_eq!(
        (
            before.status.reachable,
            before.status.ledger_epoch,
            before.last_seq
        ),
        (true, None, 0)
    );
    let (one, two) = (database.ledger(), database.ledger());
    let (one, two) = tokio::join!(one.migrate(), two.migrate());
    assert_eq!((one.unwrap(), two.unwrap()), (LATEST, LATEST));
    assert_eq!(ledger.migrate().await.unwrap(), LATEST);
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

/// Rows of the log that connections which have ended read, through its indexes or without.
async fn rows_read(database: &Database) -> i64 {
    let client = database.client().await;
    // A connection counts what it read when it ends.
    let others = "select count(*) from pg_stat_activity where datname = current_database() and pid <> pg_backend_pid()";
    let deadline = Instant::now() + Duration::from_secs(30);
    while client.query_one(others, &[]).await.unwrap().get::<_, i64>(0) > 0 {
        assert!(Instant::now() < deadline, "the other connections do not end");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let read = "select (seq_tup_read + (select sum(idx_tup_read) from pg_stat_user_indexes i where i.relid = t.relid))::bigint
                  from pg_stat_user_tables t where t.relid = 'ledger.entries'::regclass";
    client.query_one(read, &[]).await.unwrap().get(0)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_of_an_account_or_of_a_payment_reads_nothing_of_others() {
    const OTHERS: i32 = 20_000;
    let database = Database::with_ledger(1).await;
    let ledger = database.ledger();
    for account in 1..=4 {
        entry(&ledger, 1, &open(account, "EUR", None)).await;
    }
    let mut ours = Vec::new();
    for number in 0..6 {
        let key = format!("ours-{number}");
        ours.push(entry(&ledger, 1, &pay(&key, 1 + number % 2, 2 - number % 2, 5, "EUR")).await);
    }
    let paid = Uuid::parse_str(&ours[0].subject).unwrap();
    let refunds = [1, 2, 3].map(|number| refund(&format!("refund-{number}"), paid, Some(1)));
    let mut refunded = Vec::new();
    for refund in &refunds {
        refunded.push(entry(&ledger, 1, refund).await);
    }
    let client = database.client().await;
    let others = format!(
        "select count(ledger.append(1, nextval('ledger.entry_seq'), 1, 1, 'payment', 'declined', 'other-' || n, 'hash', 'request',
                gen_random_uuid(), '{}', '{}', 0, 'EUR', '{{}}')) from generate_series(1, {OTHERS}) n",
        id(3),
        id(4)
    );
    client
        .batch_execute(&format!("{others}; analyze ledger.entries"))
        .await
        .unwrap();
    let newest = entry(&ledger, 1, &pay("newest", 1, 2, 5, "EUR")).await;
    drop((client, ledger));
    let before = rows_read(&database).await;

    let ledger = database.ledger();
    let entries = ledger
        .account_entries(id(1), Some(newest.id), 3)
        .await
        .unwrap()
        .value
        .unwrap();
    let seqs: Vec<u64> = entries.items.iter().map(|entry| entry.entry().seq).collect();
    let refunded: Vec<u64> = refunded.iter().rev().map(|entry| entry.id.seq).collect();
    assert_eq!(seqs, refunded);
    let filter = PaymentFilter {
        account: Some(id(2)),
        ..PaymentFilter::default()
    };
    let payments = ledger.payments(&filter, Some(newest.id), 3).await.unwrap().value;
    let seqs: Vec<u64> = payments.items.iter().map(|payment| payment.seq).collect();
    let expected: Vec<u64> = ours.iter().rev().take(3).map(|entry| entry.id.seq).collect();
    assert_eq!(seqs, expected);
    let found = ledger
        .refunds(paid, Some(newest.id), 3)
        .await
        .unwrap()
        .value
        .unwrap();
    let seqs: Vec<u64> = found.items.iter().map(|refund| refund.seq).collect();
    assert_eq!(seqs, refunded);
    drop(ledger);
    let read = rows_read(&database).await - before;
    assert!((1..200).contains(&read), "{read} rows were read");
}

/// What the payment-processor calls, as it has been released. The code before a migration goes on calling it while the migration
/// runs and after it: a line may be added here, never changed or taken away.
const CALLED: [&str; 12] = [
    "account_json(a ledger.accounts) jsonb",
    "beat(in_epoch bigint) void",
    "entry_json(e ledger.entries) jsonb",
    "flush() pg_lsn",
    "pay(in_epoch bigint, key text, hash text, id uuid, payer uuid, payee uuid, amount bigint, in_currency text, details jsonb, \
     expires_ms bigint, now_ms bigint, request_id text) jsonb",
    "pay_and_flush(INOUT answer jsonb, IN in_epoch bigint, IN key text, IN hash text, IN id uuid, IN payer uuid, IN payee uuid, \
     IN amount bigint, IN in_currency text, IN details jsonb, IN expires_ms bigint, IN now_ms bigint, IN request_id text) procedure",
    "payment_json(id uuid) jsonb",
    "payment_json(o ledger.entries) jsonb",
    "replay(in_epoch bigint, entries jsonb) jsonb",
    "set_epoch(to_epoch bigint) bigint",
    "submit(in_epoch bigint, key text, hash text, command jsonb) ledger.submitted",
    "verify() jsonb",
];

#[tokio::test(flavor = "multi_thread")]
async fn migrations_keep_every_function_that_the_code_before_them_calls() {
    let code = include_str!("../../functions/payments/src/ledger/postgres.rs");
    let called: BTreeSet<&str> = code
        .split("ledger.")
        .skip(1)
        .filter_map(|rest| rest.split_once('(').map(|(name, _)| name))
        .filter(|name| !name.is_empty() && name.chars().all(|c| c.is_ascii_lowercase() || c == '_'))
        .collect();
    let database = Database::with_ledger(1).await;
    let signatures = "select format('%s(%s) %s', p.proname, pg_get_function_identity_arguments(p.oid),
                                    case p.prokind when 'p' then 'procedure' else pg_get_function_result(p.oid) end)
                        from pg_proc p where p.pronamespace = 'ledger'::regnamespace and p.proname = any ($1)
                       order by 1";
    let called: Vec<&str> = called.into_iter().collect();
    let rows = database
        .client()
        .await
        .query(signatures, &[&called])
        .await
        .unwrap();
    let found: Vec<String> = rows.iter().map(|row| row.get(0)).collect();
    assert_eq!(found, CALLED);
}

#[tokio::test(flavor = "multi_thread")]
async fn payments_go_on_while_migrations_run() {
    let database = Database::with_ledger(1).await;
    let ledger = database.ledger();
    for opening in [open(1, "EUR", None), open(2, "EUR", None)] {
        entry(&ledger, 1, &opening).await;
    }
    let migrating = async {
        for _ in 0..10 {
            assert_eq!(database.ledger().migrate().await.unwrap(), LATEST);
        }
    };
    let paying = async {
        for number in 0..100 {
            entry(&ledger, 1, &pay(&format!("payment-{number}"), 1, 2, 5, "EUR")).await;
        }
    };
    tokio::join!(migrating, paying);
    check_rules(&ledger).await;
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
    let (one, two) = (id(1), id(2));
    let client = database.client().await;
    let by_integrity = [
        "update ledger.entries set status = 'declined'".to_owned(),
        "delete from ledger.entries".to_owned(),
        "truncate ledger.entries".to_owned(),
        "update ledger.accounts set currency = 'USD'".to_owned(),
        "delete from ledger.accounts".to_owned(),
        "truncate ledger.accounts".to_owned(),
        format!(
            "insert into ledger.accounts (id, currency) values ('{}', 'EUR')",
            id(9)
        ),
        format!("insert into ledger.holds values ('{one}', '{one}', '{two}', 5, 5)"),
        "delete from ledger.holds".to_owned(),
        "truncate ledger.holds".to_owned(),
        "insert into ledger.ledger_epoch values (false, 9)".to_owned(),
    ];
    let by_policy = [
        "update ledger.accounts set balance_minor = 1000000".to_owned(),
        "update ledger.accounts set pending_out_minor = 1".to_owned(),
        "update ledger.accounts set limit_minor = null".to_owned(),
        format!(
            "insert into ledger.entries select epoch, seq + 1, posted_epoch, created_at_ms, kind, status, 'x', request_hash, request_id,
                 subject, debit_account, credit_account, amount_minor, currency, details
               from ledger.entries where seq = {seq}"
        ),
    ];
    let rows = by_integrity
        .iter()
        .map(|statement| (statement, "23"))
        .chain(by_policy.iter().map(|statement| (statement, "42501")));
    for (statement, code) in rows {
        let error = client.batch_execute(statement).await.expect_err(statement);
        assert!(
            error.code().unwrap().code().starts_with(code),
            "{statement}: {error:?}"
        );
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
        request_id: "request".to_owned(),
        kind: EntryKind::Payment,
        subject: id(100 + u8::try_from(seq % 50).unwrap()).to_string(),
        status: EntryStatus::Created,
        posting: Some(Posting {
            debit_account: id(from).to_string(),
            credit_account: id(to).to_string(),
            amount_minor: amount,
            currency: "EUR".into(),
        }),
        details: serde_json::json!({ "from_account": id(from), "to_account": id(to), "amount_minor": amount, "currency": "EUR", "reference": null, "metadata": {} }),
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
    let recovered = [1_000, 1_002].map(|seq| EntryId { epoch: 1, seq });
    assert_eq!(
        (posted.posted.as_slice(), posted.already_present),
        (&recovered[..], 1)
    );
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

#[test]
fn every_region_that_a_stack_may_use_has_the_authorities_of_its_databases() {
    for region in infra::spec::regions::STRONG_SETS.iter().copied().flatten() {
        for kind in ["RSA2048", "RSA4096", "ECC384"] {
            let name = format!("Amazon RDS {region} Root CA {kind} G1");
            assert!(payments::ledger::connect::RDS_ROOTS.contains(&name), "{name}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_replay_posted_is_looked_at_alone_and_what_is_wrong_with_it_is_named() {
    let database = Database::with_ledger(1).await;
    let ledger = database.ledger();
    for opening in [open(1, "EUR", None), open(2, "EUR", None)] {
        entry(&ledger, 1, &opening).await;
    }
    let paid = entry(&ledger, 1, &pay("paid", 1, 2, 5, "EUR")).await;
    ledger.set_epoch(2).await.unwrap();
    let recovered = LedgerEntry {
        id: EntryId {
            epoch: 1,
            seq: paid.id.seq + 1,
        },
        idempotency_key: "recovered".into(),
        subject: id(9).to_string(),
        ..paid
    };
    ledger.post(2, &[recovered]).await.unwrap();
    let found = ledger.verify_posted(2).await.unwrap();
    assert_eq!((found.entries, found.accounts), (1, 2));
    assert_eq!(found.problems, Vec::<String>::new());
    let totals = &found.currencies["EUR"];
    assert_eq!((totals.debits.as_str(), totals.credits.as_str()), ("10", "10"));
    assert_eq!(
        ledger.verify_posted(3).await.unwrap().entries,
        0,
        "nothing was posted in it"
    );

    let client = database.client().await;
    let damage = async |statement: String| {
        let all = format!("begin; select set_config('ledger.appending', 'on', true); {statement}; commit");
        client.batch_execute(&all).await.unwrap();
        ledger.verify_posted(2).await.unwrap()
    };
    let one = id(1);
    let found = damage(format!(
        "update ledger.accounts set balance_minor = balance_minor + 1 where id = '{one}'"
    ))
    .await;
    assert_ne!(found.currencies["EUR"].debits, found.currencies["EUR"].credits);
    let found = damage(format!(
        "update ledger.accounts set pending_out_minor = 3 where id = '{one}'"
    ))
    .await;
    assert_eq!(found.problems, ["EUR: holds take 3 from accounts and bring 0"]);
    let copy = |seq: u32, epoch: u32, amount: &str, currency: &str| {
        format!(
            "insert into ledger.entries select {epoch}, seq + {seq}, 2, created_at_ms, kind, status, 'copy {seq}', request_hash, request_id,
                    subject, debit_account, credit_account, {amount}, {currency}, details
               from ledger.entries where idempotency_key = 'recovered'"
        )
    };
    let found = damage(copy(10, 1, "-1", "currency")).await;
    assert!(
        found.problems[1].contains("amount -1, created between"),
        "{found:?}"
    );
    let found = damage(copy(20, 1, "5", "'JPY'")).await;
    assert!(
        found.problems.iter().any(|one| one.contains("is in EUR, entry")),
        "{found:?}"
    );
    let found = damage(copy(30, 7, "5", "currency")).await;
    assert!(
        found
            .problems
            .iter()
            .any(|one| one == "the newest entry is of epoch 7, the ledger is in 2"),
        "{found:?}"
    );
}
