//! Whatever somebody changes or deletes behind its back with the plain SDK, one reconcile reports by name and field and
//! repairs, and the next finds nothing. Roles it reports and leaves. With nothing to do it makes few calls.
//!
//! The changes are in the modules, by area; this file makes them, reconciles, and compares what is told with what was done.

#![allow(clippy::unwrap_used, missing_docs)]

mod compute;
mod data;
mod live;
mod names;
mod network;
mod storage;
mod told;

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};
use understudy_tests::stack::{self, reconcile, status};
use understudy_tests::{CloudFolder, EdgeCall, run_json};

use live::{Change, Live, STANDBY, Wrong};

/// What a reconcile with nothing to do may call, per resource.
const CALLS_PER_RESOURCE: f64 = 1.2;

/// The function that reconciles the active region.
const COORDINATOR: &str = "failover-coordinator-primary-dev";

/// What follows from the changes without being one of them: what depends on something deleted goes with it.
const CONSEQUENCES: [&str; 1] = ["async-calls.health-probe.witness"];

/// One entry of the last reconcile for each thing that is wrong with a resource, and its counts.
fn last(status: &Value) -> (Vec<Value>, Value) {
    let last = &status["reconcile"]["last"];
    assert_eq!(last["omitted"], 0, "the item must hold all of it");
    (
        last["entries"].as_array().unwrap().clone(),
        last["counts"].clone(),
    )
}

/// What is missing in a report of a change; empty when it is told as it should be.
fn untold(change: &Change, entries: &[Value]) -> Option<String> {
    let key = change.key;
    let Some(entry) = entries
        .iter()
        .find(|entry| entry["key"] == key && entry["wrong"] != "role")
    else {
        return Some(format!("{key}: not reported"));
    };
    let told = match &change.wrong {
        Wrong::Missing => entry["wrong"] == "missing",
        Wrong::Field(name, from, to) => entry["fields"].as_array().into_iter().flatten().any(|field| {
            let alike = |told: &Value, wanted: &Option<Value>| wanted.as_ref().is_none_or(|one| told == one);
            field["field"] == *name
                && field["from"] != field["to"]
                && alike(&field["from"], from)
                && alike(&field["to"], to)
        }),
    };
    let repaired = entry["action"] == "repaired";
    (!told || !repaired).then(|| format!("{key}, {:?}: {entry}", change.wrong))
}

/// The calls of the coordinator while it has nothing to do, by service and operation.
async fn idle_calls(folder: &CloudFolder, live: &Live) -> BTreeMap<String, usize> {
    let before = EdgeCall::read(folder).len();
    let run = reconcile(&live.cloud, live::HOME, "primary").await;
    assert_eq!(
        (&run["repair"]["passes"], &run["repair"]["counts"]["drift"]),
        (&json!(1), &json!(0)),
        "{run}"
    );
    let mut calls = BTreeMap::new();
    for call in EdgeCall::read(folder).split_off(before) {
        if call.caller.as_deref() == Some(COORDINATOR) {
            *calls
                .entry(format!("{} {}", call.service, call.operation))
                .or_default() += 1;
        }
    }
    calls
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_changed_behind_its_back_is_told_by_name_and_field_and_repaired_by_one_reconcile() {
    let folder = CloudFolder::new();
    run_json(&["up", "--local", "--dir", folder.path(), "--output", "json"]);
    let live = Live::of(stack::cloud(&folder).await);
    // The schedule would reconcile in between. That it is gone is the first change.
    let changes: Vec<Change> = [
        compute::changes(),
        data::changes(),
        names::changes(),
        network::changes(),
        storage::changes(),
        told::changes(),
    ]
    .into_iter()
    .flatten()
    .collect();
    let keys: BTreeSet<&str> = changes.iter().map(|change| change.key).collect();
    assert!(keys.len() >= 30, "{}", keys.len());

    let (before, code) = status(&folder);
    let resources = before["resources"].as_array().unwrap();
    assert_eq!(
        (before["counts"]["ok"].as_u64(), code),
        (Some(resources.len() as u64), Some(0)),
        "{}",
        before["counts"]
    );
    let kind_of = |key: &str| {
        let found = resources.iter().find(|one| one["key"] == key);
        found.unwrap_or_else(|| panic!("no resource `{key}`"))["kind"].clone()
    };
    let hit: BTreeSet<String> = keys.iter().map(|key| kind_of(key).to_string()).collect();
    let all: BTreeSet<String> = resources.iter().map(|one| one["kind"].to_string()).collect();
    assert_eq!(all.difference(&hit).collect::<Vec<_>>(), Vec::<&String>::new());

    let calls = idle_calls(&folder, &live).await;
    let most = CALLS_PER_RESOURCE * resources.len() as f64;
    let sum = calls.values().sum::<usize>();
    assert!(
        (sum as f64) <= most,
        "{sum} calls for {} resources: {calls:#?}",
        resources.len()
    );

    for change in &changes {
        (change.make)(live.clone()).await;
    }
    names::swap_the_records(&live).await;
    let (drifted, code) = status(&folder);
    assert_eq!(code, Some(1));
    assert_eq!(drifted["counts"]["failed"], Value::Null, "{}", drifted["counts"]);

    let run = reconcile(&live.cloud, live::HOME, "primary").await;
    let (repaired, code) = status(&folder);
    let (entries, counts) = last(&repaired);
    let wrong: Vec<String> = changes
        .iter()
        .filter_map(|change| untold(change, &entries))
        .collect();
    assert!(wrong.is_empty(), "{}\n{run}", wrong.join("\n"));
    let others: Vec<&Value> = entries
        .iter()
        .filter(|entry| {
            let key = entry["key"].as_str().unwrap();
            entry["wrong"] != "role" && !keys.contains(key) && !CONSEQUENCES.contains(&key)
        })
        .collect();
    assert!(others.is_empty(), "{others:?}");
    let expected = keys.len() + CONSEQUENCES.len();
    assert_eq!(
        counts,
        json!({"drift": expected, "repaired": expected, "open": 0, "roles": 2, "unreadable": 0})
    );
    assert_eq!(code, Some(0), "{}", repaired["counts"]);

    let next = reconcile(&live.cloud, live::HOME, "primary").await;
    assert_eq!(
        next["repair"]["counts"],
        json!({"drift": 0, "repaired": 0, "open": 0, "roles": 2, "unreadable": 0}),
        "{}",
        status(&folder).0["reconcile"]
    );
    live.is_repaired().await;
    assert_eq!(names::record_roles(&live).await, ["SECONDARY", "PRIMARY"]);

    // The writer too is a role: moved behind its back it stays where it is.
    data::no_takeover(&live).await;
    data::move_the_writer(&live).await;
    reconcile(&live.cloud, live::HOME, "primary").await;
    let (moved, code) = status(&folder);
    let (entries, counts) = last(&moved);
    assert_eq!((&counts["drift"], &counts["roles"]), (&json!(0), &json!(4)));
    let roles: Vec<_> = entries
        .iter()
        .map(|entry| {
            (
                entry["key"].as_str().unwrap(),
                &entry["fields"][0]["field"],
                &entry["action"],
            )
        })
        .collect();
    assert_eq!(
        roles,
        [
            ("db-cluster.dr", &json!("writer"), &json!("left")),
            ("db-cluster.primary", &json!("writer"), &json!("left")),
            ("record-set.dr", &json!("failover"), &json!("left")),
            ("record-set.primary", &json!("failover"), &json!("left")),
        ]
    );
    assert_eq!(code, Some(0), "a role elsewhere is in order: {}", moved["counts"]);
    assert_eq!(data::writer(&live).await, STANDBY);
}
