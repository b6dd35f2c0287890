//! What the X-Ray daemon receives of a request.

use std::net::{Ipv4Addr, UdpSocket};
use std::sync::Arc;
use std::time::Duration;

use payments::context::Context;
use payments::event::Service;
use payments::ledger::memory::MemoryLedger;
use payments::trace::Daemon;
use serde_json::{Value, json};

use crate::stage::{HOME, Region, Request, Tables, get, payment, post, unheard};

const SAMPLED: &str = "Root=1-5759e988-bd862e3fe1be46a994272793;Parent=53995c3f42cd8ad8;Sampled=1";
const NOT_SAMPLED: &str = "Root=1-5759e988-bd862e3fe1be46a994272793;Parent=53995c3f42cd8ad8;Sampled=0";

/// A daemon, of which each receive gives up after a while.
fn daemon() -> UdpSocket {
    let daemon = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    daemon.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    daemon
}

/// The next document that the daemon receives.
fn received(daemon: &UdpSocket) -> Value {
    let mut datagram = [0; 65_536];
    let length = daemon.recv(&mut datagram).unwrap();
    let text = std::str::from_utf8(&datagram[..length]).unwrap();
    let (header, document) = text.split_once('\n').unwrap();
    assert_eq!(header, r#"{"format":"json","version":1}"#);
    serde_json::from_str(document).unwrap()
}

/// The home region beside a daemon.
async fn beside(daemon: &UdpSocket) -> Region {
    let tables = Tables::new().await;
    let ledger = Arc::new(MemoryLedger::in_epoch(1));
    let mut context = Context::new("dev", HOME, "primary", tables.stores(&ledger));
    unheard(&mut context);
    context.daemon = Some(Daemon::at(daemon.local_addr().unwrap()));
    Region {
        service: Service::new(Arc::new(context)),
        tables,
        ledger,
    }
}

async fn send(region: &Region, request: &Request, request_id: &str, trace: Option<&str>) -> Value {
    let mut event = request.event();
    event["requestContext"]["requestId"] = json!(request_id);
    json!(region.service.handle(&event.to_string(), trace).await.unwrap())
}

#[tokio::test]
async fn a_sampled_payment_is_traced_with_its_four_steps_and_nothing_that_is_a_customers() {
    let daemon = daemon();
    let region = beside(&daemon).await;
    let (a, b) = (
        region.open("a", json!(null)).await,
        region.open("b", json!(0)).await,
    );
    let request = post("/v1/payments", "the-key", payment(&a, &b, 5));
    let answer = send(&region, &request, "r-7", Some(SAMPLED)).await;
    assert_eq!(answer["statusCode"], 201, "{answer}");
    // The accounts were opened without a trace: this is the first that was sent.
    let document = received(&daemon);
    assert_eq!(
        (&document["trace_id"], &document["parent_id"], &document["name"]),
        (
            &json!("1-5759e988-bd862e3fe1be46a994272793"),
            &json!("53995c3f42cd8ad8"),
            &json!("POST /v1/payments")
        )
    );
    assert_eq!(
        document["annotations"],
        json!({"request_id": "r-7", "route": "/v1/payments", "status": 201, "kind": "payment"})
    );
    let steps = document["subsegments"].as_array().unwrap();
    let names: Vec<&Value> = steps.iter().map(|step| &step["name"]).collect();
    assert_eq!(names, ["check", "ledger", "journal", "look"]);
    let text = document.to_string();
    for theirs in [a.as_str(), b.as_str(), "the-key", "full", "reference"] {
        assert!(!text.contains(theirs), "{theirs}: {text}");
    }
}

#[tokio::test]
async fn a_request_that_is_not_sampled_sends_nothing_and_one_that_is_refused_says_so() {
    let daemon = daemon();
    let region = beside(&daemon).await;
    for trace in [None, Some(NOT_SAMPLED), Some("Root=1;Sampled=1")] {
        send(&region, &get("/v1/accounts"), "r-1", trace).await;
    }
    let refused = get("/v1/accounts").key("Bearer nobody");
    send(&region, &refused, "r-2", Some(SAMPLED)).await;
    let document = received(&daemon);
    assert_eq!(document["annotations"]["request_id"], "r-2");
    assert_eq!(
        (
            &document["error"],
            document.get("fault"),
            document.get("subsegments")
        ),
        (&json!(true), None, None)
    );
}

#[tokio::test]
async fn every_subsegment_of_a_trace_has_an_id_of_its_own() {
    let daemon = daemon();
    let region = beside(&daemon).await;
    let mut ids = std::collections::BTreeSet::new();
    for number in 0..20 {
        let open = post("/v1/accounts", &format!("k{number}"), json!({"currency": "EUR"}));
        send(&region, &open, "r", Some(SAMPLED)).await;
        let document = received(&daemon);
        let steps = document["subsegments"].as_array().unwrap();
        for one in steps.iter().chain([&document]) {
            let id = one["id"].as_str().unwrap();
            assert!(id.len() == 16 && u64::from_str_radix(id, 16).is_ok(), "{id}");
            ids.insert(id.to_owned());
        }
    }
    assert_eq!(ids.len(), 20 * 5);
}

#[tokio::test]
async fn a_request_is_answered_where_no_daemon_listens() {
    let daemon = daemon();
    let region = beside(&daemon).await;
    drop(daemon);
    for number in 0..3 {
        let open = post("/v1/accounts", &format!("k{number}"), json!({"currency": "EUR"}));
        let answer = send(&region, &open, "r", Some(SAMPLED)).await;
        assert_eq!(answer["statusCode"], 201, "{answer}");
    }
}
