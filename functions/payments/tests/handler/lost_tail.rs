//! The comparison of a lost tail, as a workflow asks for it: pages of the old ledger, and what the serving one holds.

use std::sync::Arc;

use continuity::control::Phase;
use continuity::lost_tail::{Became, Comparison, Held, TailEntry};
use payments::context::Context;
use payments::event::Service;
use payments::ledger::Ledger;
use serde_json::{Value, json};

use crate::stage::{HOME, OTHER, Region, Tables, payment, post, unheard};

/// The old region after it was healed, beside whose database the kept one was restored.
fn beside(tables: &Tables, kept: &Region) -> Region {
    let ledger = Arc::default();
    let mut context = Context::new("dev", HOME, "primary", tables.stores(&ledger));
    unheard(&mut context);
    let restored = kept.ledger.clone();
    context.ledger_at = Some(Box::new(move |host, port| {
        assert_eq!((host, port), ("restored.example", 5432));
        restored.clone()
    }));
    let service = Service::new(Arc::new(context));
    Region {
        tables: tables.clone(),
        ledger,
        service,
    }
}

#[tokio::test]
async fn each_entry_that_only_the_old_region_had_is_told_with_what_became_of_it() {
    let tables = Tables::new().await;
    let (old, new) = (tables.region(HOME, "primary", 1), tables.region(OTHER, "dr", 1));
    let (a, b) = (old.open("a", json!(null)).await, old.open("b", json!(0)).await);
    let pay = |key: &str, amount| post("/v1/payments", key, payment(&a, &b, amount));
    new.ledger
        .post(1, &old.ledger.log().await.unwrap())
        .await
        .unwrap();
    // What comes now is not replicated: one payment is acknowledged, two are not.
    old.send(&pay("acknowledged", 10)).await;
    tables.journal.set_unreachable(true);
    old.send(&pay("retried", 20)).await;
    old.send(&pay("given-up", 40)).await;
    tables.journal.set_unreachable(false);
    tables
        .store(|record| {
            record.epoch = 2;
            record.active_region = OTHER.into();
            record.phase = Phase::Recovering;
        })
        .await;
    new.task(json!({ "task": "set-epoch", "epoch": 2 })).await;
    new.task(json!({ "task": "replay", "from_epoch": 1, "to_epoch": 2 }))
        .await;
    tables.store(|record| record.phase = Phase::Serving).await;
    new.send(&pay("retried", 20)).await;

    let beside = beside(&tables, &old);
    let mut found = Comparison::default();
    let mut before = Value::Null;
    loop {
        let event =
            json!({ "task": "lost-tail", "host": "restored.example", "port": 5432, "before": before });
        let page: Vec<TailEntry> =
            serde_json::from_value(beside.task(event).await["entries"].take()).unwrap();
        let Some(last) = page.last() else { break };
        before = json!(last.id);
        let keys: Vec<&str> = page.iter().map(|entry| entry.idempotency_key.as_str()).collect();
        let mut held = new.task(json!({ "task": "held-entries", "keys": keys })).await;
        let held: Vec<Option<Held>> = serde_json::from_value(held["held"].take()).unwrap();
        found.add(page, &held);
    }
    let told: Vec<(i64, &str)> = found
        .entries
        .iter()
        .map(|line| (line.amount_minor, line.became.as_str()))
        .collect();
    assert_eq!(told, [(40, "gone"), (20, "executed-again"), (10, "recovered")]);
    assert_eq!(found.looked_at, 5, "the accounts were replicated");
    let Became::ExecutedAgain { id, as_subject } = &found.entries[1].became else {
        panic!("{found:?}");
    };
    assert_eq!(id.epoch, 2);
    assert_ne!(as_subject, &found.entries[1].subject, "a payment of its own");
    assert_eq!(found.totals["recovered"].amounts_minor["EUR"], 10);
}

#[tokio::test]
async fn a_function_that_knows_no_other_database_and_too_many_keys_are_refused() {
    let region = crate::stage::home().await;
    for event in [
        json!({ "task": "lost-tail", "host": "restored.example", "port": 5432 }),
        json!({ "task": "held-entries", "keys": vec!["k"; 1_001] }),
    ] {
        let error = region.service.handle(&event.to_string(), None).await.unwrap_err();
        assert_eq!(lambda_runtime::Diagnostic::from(error).error_type, "InvalidEvent");
    }
}
