//! The function as Lambda calls it, over a control table, a journal and a ledger in memory: every problem document, what
//! clients may rely on, and a takeover seen from both regions.
#![allow(clippy::unwrap_used, missing_docs)]

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use continuity::control::{ApiKey, ControlRecord, ControlStore, Phase};
use continuity::entry::LedgerEntry;
use continuity::error::StoreError;
use continuity::journal::Journal;
use continuity::memory::{MemoryControl, MemoryJournal};
use payment_processor::context::Context;
use payment_processor::event::Service;
use payment_processor::ledger::Ledger;
use payment_processor::ledger::memory::MemoryLedger;
use proptest::prelude::*;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

const HOME: &str = "us-east-1";
const OTHER: &str = "us-east-2";

/// The two tables, which both regions see.
#[derive(Clone)]
struct Tables {
    control: Arc<MemoryControl>,
    journal: Arc<MemoryJournal>,
}

/// One region: its function and its ledger.
struct Region {
    tables: Tables,
    ledger: Arc<MemoryLedger>,
    service: Service,
}

impl Tables {
    async fn new() -> Tables {
        let control = Arc::new(MemoryControl::with(ControlRecord::first(HOME, "test", 0)));
        for (key, scopes, revoked) in [
            ("full", vec!["payments:read", "payments:write"], false),
            ("reader", vec!["payments:read"], false),
            ("writer", vec!["payments:write"], false),
            ("revoked", vec!["payments:read", "payments:write"], true),
        ] {
            let scopes = scopes.into_iter().map(str::to_owned).collect();
            let key_item = ApiKey {
                name: key.into(),
                scopes,
                revoked,
            };
            control
                .put_api_key(&hex::encode(Sha256::digest(key)), &key_item, 0)
                .await
                .unwrap();
        }
        Tables {
            control,
            journal: Arc::default(),
        }
    }

    fn region(&self, region: &str, slot: &str, epoch: u64) -> Region {
        let ledger = Arc::new(MemoryLedger::in_epoch(epoch));
        let context = Context::new(
            region,
            slot,
            self.control.clone(),
            self.journal.clone(),
            ledger.clone(),
        );
        Region {
            tables: self.clone(),
            ledger,
            service: Service::new(Arc::new(context)),
        }
    }

    async fn store(&self, change: impl FnOnce(&mut ControlRecord)) {
        let old = self.control.read().await.unwrap().unwrap();
        let mut new = ControlRecord {
            version: old.version + 1,
            ..old.clone()
        };
        change(&mut new);
        self.control.replace(&old, &new).await.unwrap();
    }
}

async fn home() -> Region {
    Tables::new().await.region(HOME, "primary", 1)
}

/// A request as the tests write it.
#[derive(Debug, Clone)]
struct Request {
    method: String,
    path: String,
    query: Vec<(String, String)>,
    headers: Vec<(String, String)>,
    body: Option<String>,
}

fn get(path: &str) -> Request {
    let headers = vec![("Authorization".to_owned(), "Bearer full".to_owned())];
    Request {
        method: "GET".into(),
        path: path.into(),
        query: Vec::new(),
        headers,
        body: None,
    }
}

fn post(path: &str, key: &str, body: Value) -> Request {
    let request = Request {
        method: "POST".into(),
        body: Some(body.to_string()),
        ..get(path)
    };
    request
        .with("Idempotency-Key", key)
        .with("Content-Type", "application/json")
}

impl Request {
    fn with(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.into(), value.into()));
        self
    }

    fn without(mut self, name: &str) -> Self {
        self.headers.retain(|(known, _)| known != name);
        self
    }

    fn key(self, value: &str) -> Self {
        self.without("Authorization").with("Authorization", value)
    }

    fn ask(mut self, name: &str, value: &str) -> Self {
        self.query.push((name.into(), value.into()));
        self
    }

    fn text(self, body: &str) -> Self {
        Request {
            body: Some(body.into()),
            ..self
        }
    }

    fn event(&self) -> Value {
        let lists = |pairs: &[(String, String)]| {
            let mut lists = serde_json::Map::new();
            for (name, value) in pairs {
                let list = lists.entry(name).or_insert_with(|| json!([]));
                list.as_array_mut().unwrap().push(json!(value));
            }
            lists
        };
        json!({
            "resource": "/{proxy+}", "path": self.path, "httpMethod": self.method,
            "headers": null, "multiValueHeaders": lists(&self.headers),
            "queryStringParameters": null, "multiValueQueryStringParameters": lists(&self.query),
            "pathParameters": null, "stageVariables": null,
            "requestContext": { "stage": "live", "httpMethod": self.method },
            "body": self.body, "isBase64Encoded": false,
        })
    }
}

/// What came back.
#[derive(Debug, Clone, PartialEq)]
struct Answer {
    status: u64,
    kind: String,
    retry_after: Option<String>,
    text: String,
}

impl Answer {
    fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap()
    }

    /// The slug of a problem document, which must be a whole one.
    fn problem(&self) -> String {
        assert_eq!(self.kind, "application/problem+json", "{self:?}");
        let body = self.json();
        assert_eq!(body["status"], self.status, "{self:?}");
        assert!(body["title"].is_string(), "{self:?}");
        body["type"]
            .as_str()
            .unwrap()
            .strip_prefix("https://understudy.dev/errors/")
            .unwrap()
            .to_owned()
    }
}

impl Region {
    async fn send(&self, request: &Request) -> Answer {
        let response = self.service.handle(request.event()).await.unwrap();
        let header = |name: &str| {
            let value = response["multiValueHeaders"].get(name)?;
            value
                .as_array()
                .map_or_else(|| value.as_str(), |list| list[0].as_str())
                .map(str::to_owned)
        };
        Answer {
            status: response["statusCode"].as_u64().unwrap(),
            kind: header("content-type").unwrap_or_default(),
            retry_after: header("retry-after"),
            text: response["body"].as_str().unwrap().to_owned(),
        }
    }

    async fn task(&self, event: Value) -> Value {
        self.service.handle(event).await.unwrap()
    }

    async fn open(&self, key: &str, limit: Value) -> String {
        let answer = self
            .send(&post(
                "/v1/accounts",
                key,
                json!({ "currency": "EUR", "limit_minor": limit }),
            ))
            .await;
        assert_eq!(answer.status, 201, "{answer:?}");
        answer.json()["id"].as_str().unwrap().to_owned()
    }
}

fn payment(from: &str, to: &str, amount: i64) -> Value {
    json!({ "from_account": from, "to_account": to, "amount_minor": amount, "currency": "EUR", "reference": "r" })
}

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
    let Tables { control, journal } = &region.tables;

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
    assert_eq!(journal.scan(3).await.unwrap().len(), 1);
}

struct Stuck;

#[async_trait]
impl Journal for Stuck {
    async fn put(&self, _: u64, _: &LedgerEntry) -> Result<(), StoreError> {
        std::future::pending().await
    }

    async fn scan(&self, _: u64) -> Result<Vec<LedgerEntry>, StoreError> {
        std::future::pending().await
    }
}

#[tokio::test]
async fn a_request_that_takes_too_long_is_given_up() {
    let tables = Tables::new().await;
    let ledger = Arc::new(MemoryLedger::in_epoch(1));
    let mut context = Context::new(
        HOME,
        "primary",
        tables.control.clone(),
        Arc::new(Stuck),
        ledger.clone(),
    );
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
    for (key, amount, status) in [("small", 10, "created"), ("large", 1, "declined")] {
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
        region.tables.journal.scan(1).await.unwrap().len(),
        4,
        "accounts, payment and decline are journaled"
    );
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

/// The old region commits and acknowledges, its database's tail is lost, the other region takes over.
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
        tables.journal.scan(2).await.unwrap().len(),
        22,
        "all of it is under the new epoch"
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
        json!({ "reachable": true, "in_recovery": false, "ledger_epoch": 1, "last_seq": 1, "entries": 1 })
    );
    assert!(region.task(json!({ "task": "migrate" })).await["schema_version"].is_u64());
    let fails = async |event: Value, expected: &str| {
        let error = region.service.handle(event).await.unwrap_err();
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
        json!({ "reachable": false, "in_recovery": false, "ledger_epoch": null, "last_seq": 0, "entries": 0 })
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
