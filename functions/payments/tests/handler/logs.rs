//! The line of the log that every request leaves.

use std::sync::{Arc, Mutex};

use payments::context::Context;
use payments::event::Service;
use payments::ledger::memory::MemoryLedger;
use serde_json::{Value, json};

use crate::stage::{HOME, Request, Tables, get};

#[tokio::test]
async fn a_line_names_the_route_whatever_the_answer_is_and_never_the_path() {
    let tables = Tables::new().await;
    let ledger = Arc::new(MemoryLedger::in_epoch(1));
    let mut context = Context::new("dev", HOME, "primary", tables.stores(&ledger));
    let lines: Arc<Mutex<Vec<String>>> = Arc::default();
    let heard = lines.clone();
    context.tell = Box::new(move |told, now_ms| heard.lock().unwrap().push(told.line(now_ms)));
    let service = Service::new(Arc::new(context));

    let stranger = "/v1/accounts/0190a000-0000-7000-8000-00000000beef";
    let with = |method: &str, request: Request| Request {
        method: method.into(),
        ..request
    };
    let rows = [
        (get("/v1/payments"), 200, "/v1/payments", None),
        (get(stranger), 404, "/v1/accounts/{id}", Some("not-found")),
        (
            get(stranger).key("Bearer nobody"),
            401,
            "/v1/accounts/{id}",
            Some("unauthorized"),
        ),
        (
            get("/v1/payments").key("Bearer writer"),
            403,
            "/v1/payments",
            Some("forbidden"),
        ),
        (
            with("DELETE", get(stranger)),
            405,
            "/v1/accounts/{id}",
            Some("method-not-allowed"),
        ),
        (get("/beef"), 404, "none", Some("not-found")),
    ];
    for (request, status, route, problem) in rows {
        let mut event = request.event();
        event["requestContext"]["requestId"] = json!("r-1");
        service.handle(&event.to_string(), None).await.unwrap();
        let text = lines.lock().unwrap().pop().unwrap();
        let line: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(
            (&line["status"], &line["route"], line.get("problem")),
            (&json!(status), &json!(route), problem.map(Value::from).as_ref()),
            "{request:?}"
        );
        assert_eq!(
            (&line["method"], &line["request_id"]),
            (&json!(request.method), &json!("r-1"))
        );
        assert!(!text.contains("beef"), "{text}");
    }
    assert!(lines.lock().unwrap().is_empty(), "one line a request");
}
