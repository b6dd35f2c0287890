//! The function as Lambda calls it, over a control table, a journal and a ledger in memory: every problem document, what
//! clients may rely on, and a takeover seen from both regions.
#![allow(clippy::unwrap_used, missing_docs)]

mod logs;
mod lost_tail;
mod stage;
mod statements;
mod takeovers;
mod traces;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use continuity::control::{ApiKey, ControlRecord, ControlStore, Phase};
use continuity::entry::{EntryId, LedgerEntry};
use continuity::error::StoreError;
use continuity::journal::Journal;
use payments::context::{Context, Stores};
use payments::event::Service;
use payments::ledger::Ledger;
use payments::ledger::memory::MemoryLedger;
use payments::limits::PAGE_SCAN;
use proptest::prelude::*;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use stage::{HOME, OTHER, Region, Request, Tables, get, home, payment, post, unheard};

#[tokio::test]
async fn every_request_problem_has_its_document() {
    let region = home().await;
    let (a, b) = (
        region.open("a", json!(null)).await,
        region.open("b", json!(0)).await,
    );
    region
        .send(&post("/v1/payments", "used", payment(&a, &b, 5)))
        .await;
    let pay = |key: &str| post("/v1/payments", key, payment(&a, &b, 5));
    let stranger = "0190a000-0000-7000-8000-000000000000";
    let mut dollars = payment(&a, &b, 5);
    dollars["currency"] = json!("USD");
    let long = "x".repeat(70_000);
    let rows = [
        (get("/"), 404, "not-found"),
        (get("/v2/payments"), 404, "not-found"),
        (get("/v1/payments/../../etc"), 404, "not-found"),
        (get(&format!("/v1/accounts/{stranger}")), 404, "not-found"),
        (get(&format!("/v1/accounts/{stranger}/entries")), 404, "not-found"),
        (get(&format!("/v1/payments/{stranger}")), 404, "not-found"),
        (get("/v1/accounts/' or 1=1 --"), 404, "not-found"),
        (
            get(&format!("/v1/accounts/{}", a.to_uppercase())),
            404,
            "not-found",
        ),
        (
            Request {
                method: "DELETE".into(),
                ..get("/v1/payments")
            },
            405,
            "method-not-allowed",
        ),
        (
            Request {
                method: "PUT".into(),
                ..get("/health")
            },
            405,
            "method-not-allowed",
        ),
        (pay("k").without("Authorization"), 401, "unauthorized"),
        (pay("k").key("Basic full"), 401, "unauthorized"),
        (pay("k").key("Bearer "), 401, "unauthorized"),
        (pay("k").key("Bearer unknown"), 401, "unauthorized"),
        (pay("k").key("Bearer revoked"), 401, "unauthorized"),
        (pay("k").key(&format!("Bearer {long}")), 401, "unauthorized"),
        (pay("k").with("Authorization", "Bearer full"), 401, "unauthorized"),
        (pay("k").key("Bearer reader"), 403, "forbidden"),
        (get("/v1/payments").key("Bearer writer"), 403, "forbidden"),
        (
            pay("k").without("Content-Type").with("Content-Type", "text/xml"),
            415,
            "unsupported-media-type",
        ),
        (
            pay("k").text(&format!("{{\"reference\":\"{long}\"}}")),
            413,
            "body-too-large",
        ),
        (
            pay("k").without("Idempotency-Key"),
            400,
            "idempotency-key-missing",
        ),
        (pay(""), 400, "idempotency-key-invalid"),
        (pay("\"\""), 400, "idempotency-key-invalid"),
        (pay("two words"), 400, "idempotency-key-invalid"),
        (pay(&"k".repeat(256)), 400, "idempotency-key-invalid"),
        (
            pay("k").with("Idempotency-Key", "k"),
            400,
            "idempotency-key-invalid",
        ),
        (pay("k").text("{"), 400, "malformed-json"),
        (
            Request {
                body: None,
                ..pay("k")
            },
            400,
            "malformed-json",
        ),
        (pay("k").text("{}"), 400, "invalid-request"),
        (
            post("/v1/payments", "k", payment(&a, &b, 0)),
            400,
            "invalid-request",
        ),
        (
            post("/v1/payments", "k", payment(&a, &b, -5)),
            400,
            "invalid-request",
        ),
        (
            post("/v1/payments", "k", payment(&a, &a, 5)),
            400,
            "invalid-request",
        ),
        (
            post("/v1/accounts", "k", json!({ "currency": "EURO" })),
            400,
            "invalid-request",
        ),
        (get("/v1/payments").ask("limit", "0"), 400, "invalid-request"),
        (
            get("/v1/payments").ask("cursor", "1.2; drop"),
            400,
            "invalid-request",
        ),
        (
            post("/v1/payments", "used", payment(&a, &b, 6)),
            422,
            "idempotency-key-reuse",
        ),
        (
            post("/v1/accounts", "used", json!({ "currency": "EUR" })),
            422,
            "idempotency-key-reuse",
        ),
        (
            post("/v1/payments", "k", payment(&a, stranger, 5)),
            422,
            "account-unknown",
        ),
        (post("/v1/payments", "k", dollars), 422, "currency-mismatch"),
    ];
    for (request, status, slug) in rows {
        let answer = region.send(&request).await;
        assert_eq!(
            (answer.status, answer.problem().as_str()),
            (status, slug),
            "{request:?}\n{answer:?}"
        );
    }
    assert_eq!(
        region.ledger.log().await.unwrap().len(),
        3,
        "nothing of it reached the log"
    );
}

#[tokio::test]
async fn what_is_not_available_is_a_503_that_may_be_sent_again() {
    let region = home().await;
    let (a, b) = (
        region.open("a", json!(null)).await,
        region.open("b", json!(0)).await,
    );
    let pay = post("/v1/payments", "k", payment(&a, &b, 5));
    let look = get(&format!("/v1/accounts/{a}"));
    let refused = async |request: &Request, slug: &str| {
        let answer = region.send(request).await;
        assert_eq!(
            (answer.status, answer.problem().as_str()),
            (503, slug),
            "{answer:?}"
        );
        assert_eq!(answer.retry_after.as_deref(), Some("1"));
        assert!(!answer.text.contains("memory"), "causes stay in the log");
    };
    let Tables { control, journal, .. } = &region.tables;

    region.ledger.set_unreachable(true);
    refused(&pay, "ledger-unavailable").await;
    refused(&look, "ledger-unavailable").await;
    region.ledger.set_unreachable(false);

    region.ledger.set_standby(true);
    refused(&pay, "ledger-unavailable").await;
    region.ledger.set_standby(false);

    journal.set_unreachable(true);
    refused(&pay, "journal-unavailable").await;
    journal.set_unreachable(false);
    assert_eq!(
        region.ledger.log().await.unwrap().len(),
        3,
        "it is executed, and was not acknowledged"
    );

    control.set_unreachable(true);
    refused(&pay, "control-unavailable").await;
    refused(&look, "control-unavailable").await;
    refused(&pay.clone().key("Bearer writer"), "control-unavailable").await;
    control.set_unreachable(false);

    for change in [
        (|record: &mut ControlRecord| record.phase = Phase::Draining) as fn(&mut ControlRecord),
        |record| record.phase = Phase::Recovering,
        |record| (record.phase, record.active_region) = (Phase::Serving, OTHER.to_owned()),
        |record| (record.epoch, record.active_region) = (3, HOME.to_owned()),
    ] {
        region.tables.store(change).await;
        refused(&pay, "region-not-active").await;
        refused(&look, "region-not-active").await;
        // A rejection would be an answer, too.
        refused(
            &post("/v1/payments", "a", payment(&a, &b, 5)),
            "region-not-active",
        )
        .await;
    }
    region.ledger.set_epoch(3).await.unwrap();
    let answer = region.send(&pay).await;
    assert_eq!(
        (answer.status, answer.json()["epoch"].as_u64()),
        (201, Some(1)),
        "the stored outcome, once"
    );
    assert_eq!(journal.scan(3, None).await.unwrap().len(), 1);
}

struct Stuck;

#[async_trait]
impl Journal for Stuck {
    async fn put(&self, _: u64, _: &LedgerEntry) -> Result<(), StoreError> {
        std::future::pending().await
    }

    async fn scan(&self, _: u64, _: Option<EntryId>) -> Result<Vec<LedgerEntry>, StoreError> {
        std::future::pending().await
    }
}

#[tokio::test]
async fn a_request_that_takes_too_long_is_given_up() {
    let tables = Tables::new().await;
    let ledger = Arc::new(MemoryLedger::in_epoch(1));
    let mut context = Context::new(
        "dev",
        HOME,
        "primary",
        Stores {
            journal: Arc::new(Stuck),
            ..tables.stores(&ledger)
        },
    );
    unheard(&mut context);
    context.request_timeout = Duration::from_millis(20);
    let region = Region {
        tables,
        ledger,
        service: Service::new(Arc::new(context)),
    };
    let answer = region
        .send(&post("/v1/accounts", "k", json!({ "currency": "EUR" })))
        .await;
    assert_eq!((answer.status, answer.problem().as_str()), (503, "timed-out"));
}

#[tokio::test]
async fn the_same_request_gets_the_same_bytes_and_a_decline_is_an_outcome() {
    let region = home().await;
    let (a, b) = (
        region.open("a", json!(-10)).await,
        region.open("b", json!(0)).await,
    );
    for (key, amount, status) in [("small", 10, "captured"), ("large", 1, "declined")] {
        let request = post("/v1/payments", key, payment(&a, &b, amount));
        let first = region.send(&request).await;
        assert_eq!(
            (first.status, first.json()["status"].as_str()),
            (201, Some(status))
        );
        assert_eq!(region.send(&request).await, first);
        assert_eq!(
            region
                .send(
                    &request
                        .clone()
                        .without("Idempotency-Key")
                        .with("Idempotency-Key", &format!("\"{key}\""))
                )
                .await,
            first
        );
        let id = first.json()["id"].as_str().unwrap().to_owned();
        assert_eq!(
            region.send(&get(&format!("/v1/payments/{id}"))).await.text,
            first.text
        );
    }
    let declined = region
        .send(&post("/v1/payments", "large", payment(&a, &b, 1)))
        .await
        .json();
    assert_eq!(declined["reason"], "insufficient-funds");
    let balance = async |id: &str| {
        region.send(&get(&format!("/v1/accounts/{id}"))).await.json()["balance_minor"].clone()
    };
    assert_eq!((balance(&a).await, balance(&b).await), (json!(-10), json!(10)));
    assert_eq!(
        region.tables.journal.scan(1, None).await.unwrap().len(),
        4,
        "accounts, payment and decline are journaled"
    );
}

#[tokio::test]
async fn an_authorised_payment_is_held_captured_in_part_and_refunded() {
    let region = home().await;
    let (a, b) = (
        region.open("a", json!(-100)).await,
        region.open("b", json!(0)).await,
    );
    let account = async |id: &str| region.send(&get(&format!("/v1/accounts/{id}"))).await.json();
    let mut hold = payment(&a, &b, 100);
    hold["capture_method"] = json!("manual");
    hold["metadata"] = json!({ "order": "7" });
    let authorised = region.send(&post("/v1/payments", "hold", hold)).await;
    assert_eq!(authorised.json()["status"], "authorised", "{authorised:?}");
    let id = authorised.json()["id"].as_str().unwrap().to_owned();
    let held = account(&a).await;
    assert_eq!(
        (
            &held["balance_minor"],
            &held["available_minor"],
            &held["pending_out_minor"]
        ),
        (&json!(0), &json!(-100), &json!(100))
    );
    assert_eq!(account(&b).await["pending_in_minor"], 100);
    let more = region
        .send(&post("/v1/payments", "more", payment(&a, &b, 1)))
        .await
        .json();
    assert_eq!(
        more["reason"], "insufficient-funds",
        "what is held cannot be spent"
    );

    let change = |what: &str, key: &str, body: Value| post(&format!("/v1/payments/{id}/{what}"), key, body);
    let large = region
        .send(&change("capture", "c", json!({ "amount_minor": 101 })))
        .await;
    assert_eq!(
        (large.status, large.problem().as_str()),
        (422, "amount-too-large")
    );
    let capture = change("capture", "c", json!({ "amount_minor": 60 }));
    let captured = region.send(&capture).await;
    assert_eq!(
        (captured.status, &captured.json()["captured_minor"]),
        (200, &json!(60))
    );
    assert_eq!(region.send(&capture).await, captured, "byte for byte");
    let gone = region.send(&change("void", "v", json!({}))).await;
    assert_eq!(
        (gone.status, gone.problem().as_str()),
        (409, "payment-not-authorised")
    );
    assert!(gone.text.contains("It is captured."), "{gone:?}");

    let refund = change(
        "refunds",
        "r",
        json!({ "amount_minor": 20, "reference": "damaged" }),
    );
    let refunded = region.send(&refund).await;
    assert_eq!(
        (refunded.status, &refunded.json()["status"]),
        (201, &json!("created"))
    );
    assert_eq!(region.send(&refund).await, refunded, "byte for byte");
    let most = region
        .send(&change("refunds", "m", json!({ "amount_minor": 41 })))
        .await;
    assert_eq!(most.problem(), "amount-too-large");
    let listed = region
        .send(&get(&format!("/v1/payments/{id}/refunds")))
        .await
        .json();
    assert_eq!(listed["data"], json!([refunded.json()]));
    let shown = region.send(&get(&format!("/v1/payments/{id}"))).await.json();
    assert_eq!(
        (
            &shown["status"],
            &shown["captured_minor"],
            &shown["refunded_minor"],
            &shown["metadata"]
        ),
        (
            &json!("captured"),
            &json!(60),
            &json!(20),
            &json!({ "order": "7" })
        )
    );

    let full = region
        .send(&post(&format!("/v1/accounts/{b}/close"), "x", json!({})))
        .await;
    assert_eq!((full.status, full.problem().as_str()), (409, "account-not-empty"));
    region.send(&change("refunds", "rest", json!({}))).await;
    // A body that may be empty may be left out.
    let close = Request {
        body: None,
        ..post(&format!("/v1/accounts/{b}/close"), "x", json!({}))
    };
    let closed = region.send(&close).await;
    assert_eq!((closed.status, &closed.json()["status"]), (200, &json!("closed")));
    assert_eq!(region.send(&close).await, closed, "byte for byte");
    let late = region
        .send(&post("/v1/payments", "late", payment(&a, &b, 1)))
        .await
        .json();
    assert_eq!(
        (&late["status"], &late["reason"]),
        (&json!("declined"), &json!("account-closed"))
    );
    let entries = region
        .send(&get(&format!("/v1/accounts/{b}/entries")))
        .await
        .json();
    let kinds: Vec<&str> = entries["data"]
        .as_array()
        .unwrap()
        .iter()
        .map(|entry| entry["kind"].as_str().unwrap())
        .collect();
    assert_eq!(kinds, ["refund", "refund", "capture"]);
}

#[tokio::test]
async fn an_authorisation_expires_by_the_task_and_cannot_be_captured_before_that() {
    let now_ms = Arc::new(AtomicU64::new(1_000));
    let region = at(&now_ms, &Tables::new().await);
    let (a, b) = (
        region.open("a", json!(null)).await,
        region.open("b", json!(0)).await,
    );
    let mut hold = payment(&a, &b, 100);
    hold["capture_method"] = json!("manual");
    hold["expires_after_s"] = json!(60);
    let held = region.send(&post("/v1/payments", "hold", hold)).await.json();
    assert_eq!(held["expires_at_ms"], 61_000);
    let task = json!({ "task": "expire-authorisations" });
    assert_eq!(region.task(task.clone()).await, json!({ "expired": 0 }));

    now_ms.store(61_000, Ordering::SeqCst);
    let id = held["id"].as_str().unwrap();
    let late = region
        .send(&post(&format!("/v1/payments/{id}/capture"), "c", json!({})))
        .await;
    assert_eq!(
        (late.status, late.problem().as_str()),
        (409, "authorisation-expired")
    );
    assert_eq!(region.task(task.clone()).await, json!({ "expired": 1 }));
    assert_eq!(region.task(task.clone()).await, json!({ "expired": 0 }));
    let shown = region.send(&get(&format!("/v1/payments/{id}"))).await.json();
    assert_eq!(shown["status"], "expired");
    let payer = region.send(&get(&format!("/v1/accounts/{a}"))).await.json();
    assert_eq!(payer["pending_out_minor"], 0);
    assert_eq!(
        region.tables.journal.scan(1, None).await.unwrap().len(),
        4,
        "the expiry is journaled like any command"
    );

    region
        .tables
        .store(|record| record.active_region = OTHER.to_owned())
        .await;
    region.ledger.set_unreachable(true);
    assert_eq!(
        region.task(task).await,
        json!({ "expired": 0 }),
        "not here, and the database is not even asked"
    );
}

#[tokio::test]
async fn payments_are_found_by_account_reference_status_and_time() {
    let region = home().await;
    let (a, b, c) = (
        region.open("a", json!(null)).await,
        region.open("b", json!(0)).await,
        region.open("c", json!(0)).await,
    );
    for (key, to, amount, reference) in [("1", &b, 1, "x y"), ("2", &c, 2, "z"), ("3", &b, 3, "z")] {
        let mut body = payment(&a, to, amount);
        body["reference"] = json!(reference);
        region.send(&post("/v1/payments", key, body)).await;
    }
    region.send(&post("/v1/payments", "4", payment(&c, &b, 9))).await;
    let found = async |filters: &[(&str, &str)]| {
        let request = filters
            .iter()
            .fold(get("/v1/payments"), |request, (name, value)| {
                request.ask(name, value)
            });
        let page = region.send(&request).await.json();
        let amounts: Vec<i64> = page["data"]
            .as_array()
            .unwrap()
            .iter()
            .map(|payment| payment["amount_minor"].as_i64().unwrap())
            .collect();
        amounts
    };
    assert_eq!(found(&[("account", &c)]).await, [9, 2]);
    assert_eq!(found(&[("reference", "x y")]).await, [1]);
    assert_eq!(found(&[("reference", "z"), ("account", &b)]).await, [3]);
    assert_eq!(found(&[("status", "declined")]).await, [9]);
    assert_eq!(found(&[("created_before_ms", "1")]).await, [0_i64; 0]);
    assert_eq!(found(&[("created_from_ms", "1")]).await, [9, 3, 2, 1]);
    let wrong = region.send(&get("/v1/payments").ask("status", "paid")).await;
    assert_eq!((wrong.status, wrong.problem().as_str()), (400, "invalid-request"));
}

#[tokio::test]
async fn a_filtered_list_goes_on_after_a_page_that_found_nothing() {
    let region = home().await;
    let (a, b) = (
        region.open("a", json!(null)).await,
        region.open("b", json!(0)).await,
    );
    let declined = region
        .send(&post("/v1/payments", "declined", payment(&b, &a, 1)))
        .await
        .json();
    for number in 0..PAGE_SCAN {
        let request = post("/v1/payments", &format!("p{number}"), payment(&a, &b, 1));
        region.send(&request).await;
    }
    let filtered = get("/v1/payments").ask("status", "declined");
    let first = region.send(&filtered).await.json();
    assert_eq!(first["data"], json!([]));
    let cursor = first["next_cursor"].as_str().unwrap();
    let second = region.send(&filtered.ask("cursor", cursor)).await.json();
    assert_eq!(second, json!({ "data": [declined], "next_cursor": null }));
}

#[tokio::test]
async fn lists_are_read_page_by_page_newest_first() {
    let region = home().await;
    let (a, b) = (
        region.open("a", json!(null)).await,
        region.open("b", json!(null)).await,
    );
    for number in 0..5 {
        region
            .send(&post(
                "/v1/payments",
                &format!("p{number}"),
                payment(&a, &b, 1 + number),
            ))
            .await;
    }
    for path in ["/v1/payments".to_owned(), format!("/v1/accounts/{b}/entries")] {
        let (mut amounts, mut cursor) = (Vec::new(), None::<String>);
        loop {
            let request = get(&path).ask("limit", "2");
            let request = cursor
                .iter()
                .fold(request, |request, cursor| request.ask("cursor", cursor));
            let page = region.send(&request).await.json();
            let data = page["data"].as_array().unwrap();
            assert!(data.len() <= 2);
            amounts.extend(data.iter().map(|item| item["amount_minor"].as_i64().unwrap()));
            cursor = page["next_cursor"].as_str().map(str::to_owned);
            if cursor.is_none() {
                break;
            }
        }
        assert_eq!(amounts, [5, 4, 3, 2, 1], "{path}");
    }
}

#[tokio::test]
async fn health_is_open_and_says_where_it_stands() {
    let region = home().await;
    let health = get("/health").without("Authorization");
    let answer = region.send(&health).await;
    assert_eq!(answer.status, 200);
    assert_eq!(
        answer.json(),
        json!({ "region": HOME, "slot": "primary", "serving": true, "epoch": 1, "phase": "serving",
                "active_region": HOME, "reasons": [],
                "database": { "reachable": true, "in_recovery": false, "ledger_epoch": 1 } })
    );
    region.tables.control.set_unreachable(true);
    region.ledger.set_unreachable(true);
    let answer = region.send(&health).await;
    assert_eq!(
        (answer.status, answer.json()["serving"].as_bool()),
        (503, Some(false))
    );
    assert_eq!(answer.json()["database"]["reachable"], false);
    assert_eq!(answer.json()["reasons"].as_array().unwrap().len(), 2);
}

#[tokio::test]
async fn a_revoked_key_is_refused_once_the_cache_has_forgotten_it() {
    let region = home().await;
    assert_eq!(region.send(&get("/v1/payments")).await.status, 200);
    let revoked = ApiKey {
        name: "full".into(),
        scopes: vec!["payments:read".into()],
        requests_per_s: 100,
        revoked: true,
    };
    region
        .tables
        .control
        .put_api_key(&hex::encode(Sha256::digest("full")), &revoked, 0)
        .await
        .unwrap();
    assert_eq!(
        region.send(&get("/v1/payments")).await.status,
        200,
        "trusted for a while"
    );
    let fresh = region.tables.region(HOME, "primary", 1);
    assert_eq!(fresh.send(&get("/v1/payments")).await.status, 401);
}

/// A region at a time that stands still until it is moved.
fn at(now_ms: &Arc<AtomicU64>, tables: &Tables) -> Region {
    let ledger = Arc::new(MemoryLedger::in_epoch(1));
    let mut context = Context::new("dev", HOME, "primary", tables.stores(&ledger));
    unheard(&mut context);
    let clock = now_ms.clone();
    context.clock = Box::new(move || clock.load(Ordering::SeqCst));
    Region {
        service: Service::new(Arc::new(context)),
        tables: tables.clone(),
        ledger,
    }
}

#[tokio::test]
async fn a_key_over_its_rate_is_told_when_to_come_back_and_nothing_is_executed() {
    let (tables, now_ms) = (Tables::new().await, Arc::new(AtomicU64::new(5_000)));
    let region = at(&now_ms, &tables);
    let open = |key: &str| post("/v1/accounts", key, json!({ "currency": "EUR" })).key("Bearer three");
    for number in 0..3 {
        assert_eq!(region.send(&open(&format!("open-{number}"))).await.status, 201);
    }
    let look = get("/v1/accounts").key("Bearer three");
    for refused in [open("late"), look.clone(), open("open-0"), open("late").text("{")] {
        let answer = region.send(&refused).await;
        assert_eq!((answer.status, answer.problem().as_str()), (429, "rate-limited"));
        assert_eq!(answer.retry_after.as_deref(), Some("1"));
        assert!(answer.text.contains("3 a second"), "{answer:?}");
    }
    assert_eq!(region.ledger.log().await.unwrap().len(), 3);
    // Another key is not held back, and what needs none is not counted.
    assert_eq!(region.send(&get("/v1/accounts")).await.status, 200);
    assert_eq!(
        region.send(&get("/health").without("Authorization")).await.status,
        200
    );

    now_ms.store(6_000, Ordering::SeqCst);
    let (first, second) = (region.send(&open("late")).await, region.send(&open("late")).await);
    assert_eq!(
        (first.status, &first),
        (201, &second),
        "its idempotency key was not used"
    );
    assert_eq!(region.send(&look).await.status, 200);
    assert_eq!(region.send(&look).await.status, 429);
}

#[tokio::test]
async fn who_has_no_right_is_told_so_and_nothing_of_rates() {
    let (tables, now_ms) = (Tables::new().await, Arc::new(AtomicU64::new(5_000)));
    let region = at(&now_ms, &tables);
    let look = get("/v1/accounts");
    for _ in 0..10 {
        for (key, status) in [("unknown", 401), ("revoked", 401), ("writer", 403)] {
            let answer = region.send(&look.clone().key(&format!("Bearer {key}"))).await;
            assert_eq!(answer.status, status, "{key}");
        }
    }
    // None of these counted for the writer, either.
    let narrow = ApiKey {
        name: "narrow".into(),
        scopes: vec!["payments:read".into()],
        requests_per_s: 1,
        revoked: false,
    };
    let hash = hex::encode(Sha256::digest("narrow"));
    tables.control.put_api_key(&hash, &narrow, 0).await.unwrap();
    let command = post("/v1/accounts", "k", json!({ "currency": "EUR" })).key("Bearer narrow");
    for _ in 0..3 {
        assert_eq!(region.send(&command).await.status, 403);
    }
    assert_eq!(region.send(&look.clone().key("Bearer narrow")).await.status, 200);
    assert_eq!(region.send(&look.key("Bearer narrow")).await.status, 429);
    assert_eq!(region.send(&command).await.status, 403, "403 comes first");
}

#[tokio::test]
async fn handlers_of_a_region_share_the_rate_through_the_table_and_serve_without_it() {
    let (tables, now_ms) = (Tables::new().await, Arc::new(AtomicU64::new(5_000)));
    let look = get("/v1/accounts").key("Bearer three");
    let handlers = [(); 5].map(|()| at(&now_ms, &tables));
    // Eight requests by each in turn, within one second.
    let served = async |begin_ms: u64| {
        let mut served = 0;
        for (number, handler) in (0_u64..40).zip(handlers.iter().cycle()) {
            now_ms.store(begin_ms + 20 * number, Ordering::SeqCst);
            let answer = handler.send(&look).await;
            assert!([200, 429].contains(&answer.status), "{answer:?}");
            served += usize::from(answer.status == 200);
        }
        served
    };
    // Each hears of the others with its first request, and may have served one more on what it heard first.
    let together = served(5_000).await;
    assert!((3..=8).contains(&together), "{together}");

    tables.rates.set_unreachable(true);
    assert_eq!(served(6_000).await, 3 * handlers.len(), "each by itself");
    for handler in &handlers {
        assert_eq!(handler.send(&get("/v1/accounts")).await.status, 200);
    }
}

/// The old region commits and acknowledges, its database's tail is lost, the other region takes over.
#[tokio::test]
async fn a_replay_reads_of_the_journal_what_is_not_settled_and_all_of_earlier_epochs() {
    let tables = Tables::new().await;
    let (old, new) = (tables.region(HOME, "primary", 1), tables.region(OTHER, "dr", 1));
    let (a, b) = (old.open("a", json!(null)).await, old.open("b", json!(0)).await);
    let pay = async |number: i64| {
        let request = post("/v1/payments", &format!("p{number}"), payment(&a, &b, number));
        assert_eq!(old.send(&request).await.status, 201);
    };
    for number in 1..=5 {
        pay(number).await;
    }
    assert_eq!(old.send(&get("/health")).await.status, 200);
    let settled = old.ledger.settled().await.unwrap();
    assert_eq!(settled, Some(EntryId { epoch: 1, seq: 7 }), "a look settles");
    new.ledger
        .post(1, &old.ledger.log().await.unwrap())
        .await
        .unwrap();
    new.ledger.set_settled(settled);
    for number in 6..=8 {
        pay(number).await;
    }
    // Of an earlier epoch, put again by a retry of its command.
    let mut earlier = old.ledger.log().await.unwrap().pop().unwrap();
    earlier.id = EntryId { epoch: 0, seq: 3 };
    earlier.idempotency_key = "of epoch 0".into();
    tables.journal.put(1, &earlier).await.unwrap();

    tables
        .store(|record| {
            (record.epoch, record.active_region, record.phase) = (2, OTHER.into(), Phase::Recovering)
        })
        .await;
    new.task(json!({ "task": "set-epoch", "epoch": 2 })).await;
    let replay = json!({ "task": "replay", "from_epoch": 1, "to_epoch": 2 });
    let replayed = new.task(replay.clone()).await;
    assert_eq!(
        replayed,
        json!({ "scanned": 4, "settled": { "epoch": 1, "seq": 7 }, "posted": 4, "already_present": 0,
                "conflicts": [], "overdrawn": [] })
    );
    assert_eq!(new.task(replay).await, replayed, "twice is once");
    assert_eq!(new.ledger.log().await.unwrap().len(), 2 + 8 + 1);
}

#[tokio::test]
async fn a_takeover_brings_back_every_acknowledged_payment_and_answers_retries_alike() {
    let tables = Tables::new().await;
    let (old, new) = (tables.region(HOME, "primary", 1), tables.region(OTHER, "dr", 1));
    new.ledger.set_standby(true);
    let (a, b) = (old.open("a", json!(null)).await, old.open("b", json!(0)).await);
    // Only the accounts were replicated.
    new.ledger.set_standby(false);
    new.ledger
        .post(1, &old.ledger.log().await.unwrap())
        .await
        .unwrap();
    new.ledger.set_standby(true);
    let requests: Vec<Request> = (0..20)
        .map(|number| post("/v1/payments", &format!("p{number}"), payment(&a, &b, 1 + number)))
        .collect();
    let mut answers = Vec::new();
    for request in &requests {
        answers.push(old.send(request).await);
    }
    // Committed, but never acknowledged: the journal did not take it.
    tables.journal.set_unreachable(true);
    let unacknowledged = post("/v1/payments", "in-the-tail", payment(&a, &b, 1_000));
    assert_eq!(old.send(&unacknowledged).await.status, 503);
    tables.journal.set_unreachable(false);

    tables
        .store(|record| {
            (record.epoch, record.active_region, record.phase) = (2, OTHER.into(), Phase::Recovering)
        })
        .await;
    assert_eq!(
        old.send(&requests[0]).await.problem(),
        "region-not-active",
        "fenced"
    );
    new.ledger.set_standby(false);
    assert_eq!(
        new.task(json!({ "task": "set-epoch", "epoch": 2 })).await,
        json!({ "ledger_epoch": 2 })
    );
    assert_eq!(
        new.task(json!({ "task": "set-epoch", "epoch": 2 })).await,
        json!({ "ledger_epoch": 2 })
    );
    let replay = json!({ "task": "replay", "from_epoch": 1, "to_epoch": 2 });
    let replayed = new.task(replay.clone()).await;
    assert_eq!(
        replayed,
        json!({ "scanned": 22, "posted": 20, "already_present": 2, "conflicts": [], "overdrawn": [] })
    );
    assert_eq!(new.task(replay).await, replayed, "twice is once");
    assert_eq!(
        tables.journal.scan(2, None).await.unwrap().len(),
        20,
        "what was posted is under the new epoch; every replica that shows it has the rest"
    );
    assert_eq!(
        new.task(json!({ "task": "verify-ledger" })).await["balanced"],
        true
    );
    assert_eq!(
        new.send(&requests[0]).await.problem(),
        "region-not-active",
        "not open yet"
    );
    tables
        .store(|record| (record.phase, record.last_served_epoch) = (Phase::Serving, 2))
        .await;

    for (request, answer) in requests.iter().zip(&answers) {
        assert_eq!(&new.send(request).await, answer, "byte for byte");
        let id = answer.json()["id"].as_str().unwrap().to_owned();
        let found = new.send(&get(&format!("/v1/payments/{id}"))).await.json();
        assert_eq!(
            (found["epoch"].as_u64(), found["posted_epoch"].as_u64()),
            (Some(1), Some(2)),
            "a replay recovered it"
        );
    }
    assert_eq!(
        new.send(&unacknowledged).await.json()["epoch"],
        2,
        "executed again, once"
    );
    assert_eq!(old.send(&unacknowledged).await.problem(), "region-not-active");
    assert_eq!(
        old.send(&get("/health").without("Authorization")).await.status,
        503
    );
    let total: i64 = (1..=20).sum::<i64>() + 1_000;
    assert_eq!(
        new.send(&get(&format!("/v1/accounts/{b}"))).await.json()["balance_minor"],
        total
    );
}

#[tokio::test]
async fn tasks_answer_or_fail_by_their_stable_error_types() {
    let region = home().await;
    region.open("a", json!(null)).await;
    assert_eq!(
        region.task(json!({ "task": "ledger-status" })).await,
        json!({ "reachable": true, "in_recovery": false, "ledger_epoch": 1, "last_seq": 1 })
    );
    assert!(region.task(json!({ "task": "migrate" })).await["schema_version"].is_u64());
    let fails = async |event: Value, expected: &str| {
        let error = region.service.handle(&event.to_string(), None).await.unwrap_err();
        assert_eq!(lambda_runtime::Diagnostic::from(error).error_type, expected);
    };
    fails(json!({ "task": "explode" }), "InvalidEvent").await;
    fails(json!({ "task": "set-epoch" }), "InvalidEvent").await;
    fails(json!({ "neither": true }), "InvalidEvent").await;
    fails(
        json!({ "task": "replay", "from_epoch": 1, "to_epoch": 2 }),
        "LedgerInOtherEpoch",
    )
    .await;
    assert_eq!(
        region.task(json!({ "task": "set-epoch", "epoch": 4 })).await,
        json!({ "ledger_epoch": 4 })
    );
    fails(json!({ "task": "set-epoch", "epoch": 3 }), "LedgerInOtherEpoch").await;
    region.tables.journal.set_unreachable(true);
    fails(
        json!({ "task": "replay", "from_epoch": 1, "to_epoch": 4 }),
        "JournalUnavailable",
    )
    .await;
    region.ledger.set_unreachable(true);
    fails(json!({ "task": "set-epoch", "epoch": 4 }), "LedgerUnavailable").await;
    fails(json!({ "task": "verify-ledger" }), "LedgerUnavailable").await;
    assert_eq!(
        region.task(json!({ "task": "ledger-status" })).await,
        json!({ "reachable": false, "in_recovery": false, "ledger_epoch": null, "last_seq": 0 })
    );
}

fn json_value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(json!(null)),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        ".{0,20}".prop_map(Value::from),
        Just(json!("EUR")),
    ];
    leaf.prop_recursive(3, 16, 4, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            proptest::collection::btree_map(
                prop_oneof![
                    Just("currency".to_owned()),
                    Just("amount_minor".to_owned()),
                    Just("from_account".to_owned()),
                    ".{0,5}"
                ],
                inner,
                0..5
            )
            .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

fn any_request() -> impl Strategy<Value = Request> {
    let path = prop_oneof![
        Just("/v1/payments".to_owned()),
        Just("/v1/accounts".to_owned()),
        ".{0,30}".prop_map(|tail| format!("/v1/accounts/{tail}")),
        ".{0,30}".prop_map(|tail| format!("/v1/payments/{tail}")),
        ".{0,40}",
    ];
    let method = prop_oneof![4 => Just("POST"), 2 => Just("GET"), 1 => Just("HEAD"), 1 => Just("OPTIONS"), 1 => Just("PATCH")];
    let body = prop_oneof![
        json_value().prop_map(|value| Some(value.to_string())),
        ".{0,60}".prop_map(Some),
        Just(None)
    ];
    let query = proptest::collection::vec((prop_oneof![Just("limit".to_owned()), ".{0,8}"], ".{0,12}"), 0..3);
    let header = prop_oneof!["[ -~]{0,40}", Just("application/json".to_owned())];
    (method, path, query, header.clone(), header, body).prop_map(|(method, path, query, kind, key, body)| {
        let request = Request {
            method: method.into(),
            path,
            query,
            body,
            ..get("")
        };
        request.with("Content-Type", &kind).with("Idempotency-Key", &key)
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_request_whatever_it_holds_fails_the_function(request in any_request()) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        let answer = runtime.block_on(async { home().await.send(&request).await });
        prop_assert!(answer.status < 500, "{answer:?}");
        if answer.status >= 400 && request.method != "HEAD" {
            answer.problem();
        }
    }
}
