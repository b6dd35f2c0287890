//! Statements of accounts, from the request to the object in the bucket.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use payments::command::{Command, Metadata, Order, PaymentOrder};
use payments::context::{Context, Stores};
use payments::event::Service;
use payments::ledger::Ledger;
use payments::ledger::memory::MemoryLedger;
use payments::limits::STATEMENT_LINES;
use payments::statement::memory::MemoryStore;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::stage::{Answer, HOME, Region, Tables, get, payment, post, unheard};

/// A region whose clock is set by hand, with two accounts between which money moved at 1,000, 2,000 and 3,000 ms.
struct Scene {
    region: Region,
    bucket: Arc<MemoryStore>,
    now_ms: Arc<AtomicU64>,
    payer: String,
    payee: String,
}

async fn scene() -> Scene {
    scene_with(STATEMENT_LINES).await
}

/// The same, where a statement has so many lines at most.
async fn scene_with(statement_lines: u64) -> Scene {
    let tables = Tables::new().await;
    let ledger = Arc::new(MemoryLedger::in_epoch(1));
    let (bucket, now_ms) = (Arc::new(MemoryStore::default()), Arc::new(AtomicU64::new(500)));
    let stores = Stores {
        statements: bucket.clone(),
        ..tables.stores(&ledger)
    };
    let mut context = Context::new("dev", HOME, "primary", stores);
    unheard(&mut context);
    context.statement_lines = statement_lines;
    let clock = now_ms.clone();
    context.clock = Box::new(move || clock.load(Ordering::SeqCst));
    let region = Region {
        service: Service::new(Arc::new(context)),
        tables,
        ledger,
    };
    let (payer, payee) = (
        region.open("payer", json!(null)).await,
        region.open("payee", json!(0)).await,
    );
    for (at_ms, amount, reference) in [
        (1_000, 1_250, "first"),
        (2_000, 99, "=1+1, \"two\""),
        (3_000, 1, "third"),
    ] {
        now_ms.store(at_ms, Ordering::SeqCst);
        let mut body = payment(&payer, &payee, amount);
        body["reference"] = json!(reference);
        let paid = region
            .send(&post("/v1/payments", &format!("pay-{at_ms}"), body))
            .await;
        assert_eq!(paid.status, 201, "{paid:?}");
    }
    Scene {
        region,
        bucket,
        now_ms,
        payer,
        payee,
    }
}

impl Scene {
    async fn ask(&self, account: &str, from_ms: u64, until_ms: u64, format: &str) -> Answer {
        let request = get(&format!("/v1/accounts/{account}/statement"))
            .ask("from_ms", &from_ms.to_string())
            .ask("until_ms", &until_ms.to_string())
            .ask("format", format);
        self.region.send(&request).await
    }

    /// Payments as a busy account has them, straight into the ledger.
    async fn pay_often(&self, payments: u64) {
        let account = |id: &str| id.parse::<Uuid>().unwrap();
        for number in 0..payments {
            let order = Order::Pay(PaymentOrder {
                from_account: account(&self.payer),
                to_account: account(&self.payee),
                amount_minor: 1,
                currency: "EUR".into(),
                reference: None,
                metadata: Metadata::default(),
                hold_s: None,
            });
            let command = Command {
                idempotency_key: format!("often-{number}"),
                request_hash: String::new(),
                request_id: "r".into(),
                id: Uuid::from_u128(u128::from(number)),
                order,
                created_at_ms: 4_000,
            };
            self.region.ledger.submit(1, &command).await.unwrap();
        }
    }

    /// The answer to a question that has one, and the text of the object.
    async fn written(&self, account: &str, from_ms: u64, until_ms: u64, format: &str) -> (Value, String) {
        let answer = self.ask(account, from_ms, until_ms, format).await;
        assert_eq!(answer.status, 200, "{answer:?}");
        let answer = answer.json();
        let (object, body) = self.bucket.object(answer["object"].as_str().unwrap()).unwrap();
        assert_eq!(
            (&answer["bytes"], &answer["sha256"]),
            (&json!(body.len()), &json!(object.sha256))
        );
        (answer, String::from_utf8(body).unwrap())
    }
}

#[tokio::test]
async fn a_statement_has_the_movements_of_its_period_between_two_balances() {
    let scene = scene().await;
    let (answer, text) = scene.written(&scene.payee, 1_001, 3_000, "csv").await;
    for (member, expected) in [
        ("opening_balance_minor", json!(1_250)),
        ("closing_balance_minor", json!(1_349)),
        ("lines", json!(1)),
        ("currency", json!("EUR")),
        ("settled", json!(false)),
        ("url_expires_at_ms", json!(3_000 + 900_000)),
        (
            "object",
            json!(format!("statements/{}/1001-3000.csv", scene.payee)),
        ),
    ] {
        assert_eq!(answer[member], expected, "{member}");
    }
    let lines: Vec<&str> = text.split("\r\n").collect();
    let [columns, opening, line, closing, ""] = lines[..] else {
        panic!("{text}");
    };
    assert_eq!(
        columns,
        "created_at,kind,payment,counterparty,reference,amount,balance,currency,epoch,seq"
    );
    assert_eq!(
        opening,
        "1970-01-01T00:00:01.001Z,opening-balance,,,,,12.50,EUR,,"
    );
    let (start, rest) = line.split_at("1970-01-01T00:00:02Z,payment,".len());
    assert_eq!(start, "1970-01-01T00:00:02Z,payment,");
    assert_eq!(
        rest.split_once(',').unwrap().1,
        format!("{},\"'=1+1, \"\"two\"\"\",0.99,13.49,EUR,1,4", scene.payer)
    );
    assert_eq!(closing, "1970-01-01T00:00:03Z,closing-balance,,,,,13.49,EUR,,");
}

#[tokio::test]
async fn periods_that_meet_share_a_balance_and_no_line() {
    let scene = scene().await;
    let (first, _) = scene.written(&scene.payer, 0, 2_000, "json").await;
    let (second, text) = scene.written(&scene.payer, 2_000, 9_000, "json").await;
    assert_eq!(first["closing_balance_minor"], second["opening_balance_minor"]);
    assert_eq!((&first["lines"], &second["lines"]), (&json!(1), &json!(2)));
    let document: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(document["closing_balance_minor"], json!(-1_350));
    let entries = document["entries"].as_array().unwrap();
    assert_eq!(
        (
            &entries[0]["amount_minor"],
            &entries[0]["balance_minor"],
            &entries[0]["reference"]
        ),
        (&json!(-99), &json!(-1_349), &json!("=1+1, \"two\""))
    );
    assert_eq!(entries[1]["balance_minor"], document["closing_balance_minor"]);
}

#[tokio::test]
async fn a_period_without_movements_has_a_statement() {
    let scene = scene().await;
    let (answer, text) = scene.written(&scene.payee, 5_000, 6_000, "json").await;
    assert_eq!(answer["lines"], 0);
    assert_eq!(
        serde_json::from_str::<Value>(&text).unwrap()["entries"],
        json!([])
    );
}

#[tokio::test]
async fn a_statement_is_settled_when_its_period_has_been_over_for_a_minute() {
    let scene = scene().await;
    for (now_ms, settled) in [(69_999, false), (70_000, true)] {
        scene.now_ms.store(now_ms, Ordering::SeqCst);
        let (answer, _) = scene.written(&scene.payee, 0, 10_000, "csv").await;
        assert_eq!(answer["settled"], settled, "{now_ms}");
    }
}

#[tokio::test]
async fn a_long_statement_is_the_same_in_the_bucket_as_it_was_measured() {
    let scene = scene().await;
    scene.pay_often(20_000).await;
    let (answer, text) = scene.written(&scene.payee, 0, 10_000, "json").await;
    assert!(
        text.len() > 4 * 1024 * 1024,
        "{} bytes are no long statement",
        text.len()
    );
    let document: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(answer["lines"], 20_003);
    assert_eq!(document["entries"].as_array().unwrap().len(), 20_003);
}

#[tokio::test]
async fn a_statement_with_too_many_lines_is_refused_before_any_is_read() {
    let scene = scene_with(2).await;
    let answer = scene.ask(&scene.payee, 0, 10_000, "csv").await;
    assert_eq!(
        (answer.status, answer.problem().as_str()),
        (422, "statement-too-long")
    );
    let (within, _) = scene.written(&scene.payee, 2_000, 10_000, "csv").await;
    assert_eq!(within["lines"], 2);
}

#[tokio::test]
async fn there_is_no_statement_of_what_is_not_there_nor_without_a_bucket_nor_where_the_region_does_not_serve()
{
    let scene = scene().await;
    let unknown = "0190a000-0000-7000-8000-00000000ffff";
    let answer = scene.ask(unknown, 0, 10_000, "csv").await;
    assert_eq!((answer.status, answer.problem().as_str()), (404, "not-found"));
    let answer = scene.ask(&scene.payee, 10_000, 10_000, "csv").await;
    assert_eq!(
        (answer.status, answer.problem().as_str()),
        (400, "invalid-request")
    );

    scene.bucket.set_unreachable(true);
    let answer = scene.ask(&scene.payee, 0, 10_000, "csv").await;
    assert_eq!(
        (answer.status, answer.problem().as_str()),
        (503, "storage-unavailable")
    );
    scene.bucket.set_unreachable(false);

    scene.region.tables.store(|record| record.epoch = 2).await;
    let answer = scene.ask(&scene.payee, 0, 10_000, "csv").await;
    assert_eq!(
        (answer.status, answer.problem().as_str()),
        (503, "region-not-active")
    );
    let object = format!("statements/{}/0-10000.csv", scene.payee);
    assert_eq!(scene.bucket.object(&object), None, "nothing was stored");
}
