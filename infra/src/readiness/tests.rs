#![allow(clippy::unwrap_used)]
use std::collections::BTreeMap;

use continuity::control::{ControlRecord, Phase};
use continuity::names::Slot;
use continuity::takeover::LedgerStatus;
use serde_json::json;

use super::*;
use crate::blueprint::permissions;
use crate::drift;
use crate::outcome::{PlanEntry, PlanOutcome};
use crate::plan::{Change, FieldChange, Planned};
use crate::spec::Spec;

const HOME: &str = "us-east-1";
const DR: &str = "us-east-2";
const NOW: u64 = 1_000_000_000;
const DAY_MS: u64 = 24 * 3600 * 1000;
/// What a new account has.
const QUOTAS: Quotas = Quotas {
    lambda_concurrency: 1_000,
    api_rate_per_s: 10_000,
    api_burst: 5_000,
};

fn both<T>(of: impl Fn(&str) -> T) -> BTreeMap<String, T> {
    BTreeMap::from([HOME, DR].map(|region| (region.to_owned(), of(region))))
}

fn ledger(region: &str, last_seq: u64) -> Ledger {
    Ledger {
        status: LedgerStatus {
            reachable: true,
            in_recovery: region != HOME,
            ledger_epoch: Some(1),
        },
        last_seq,
    }
}

fn entry(key: &str, kind: &str, change: Change) -> PlanEntry {
    PlanEntry {
        key: key.into(),
        kind: kind.into(),
        region: DR.into(),
        plan: PlanOutcome::Planned(Planned {
            change,
            roles: vec![],
        }),
    }
}

fn differs(field: &str) -> Change {
    Change::Update {
        fields: vec![FieldChange {
            field: field.into(),
            from: json!(null),
            to: json!(32),
        }],
    }
}

/// Everything in order, the home region active.
fn facts() -> Facts {
    let spec = Spec::default();
    let member = |region: &str| Member {
        writer: region == HOME,
        synchronisation: (region != HOME).then(|| "connected".to_owned()),
    };
    let packages = ["payment-processor", "health-probe", "failover-coordinator"];
    let function = |region: &str, package: &str| Function {
        region: region.into(),
        package: package.into(),
        state: Ok(FunctionState {
            state: "Active".into(),
            last_update: "Successful".into(),
            code_sha256: package.into(),
            reserved: (package == "payment-processor").then_some(32),
        }),
    };
    Facts {
        region: DR.into(),
        record: Ok(ControlRecord::first(HOME, "deploy", 0)),
        journals: both(|_| Ok(())),
        global: Ok(Global {
            status: "available".into(),
            members: both(member),
            changing_to: None,
        }),
        clusters: both(|region| {
            Ok(Cluster {
                status: "available".into(),
                engine_version: "16.8".into(),
                instances: BTreeMap::from([(format!("aurora-{region}-1"), "available".into())]),
            })
        }),
        ledgers: both(|region| Ok(ledger(region, 10))),
        functions: [HOME, DR]
            .into_iter()
            .flat_map(|region| packages.map(|package| function(region, package)))
            .collect(),
        machines: vec![Machine {
            region: DR.into(),
            workflow: "failover".into(),
            status: Ok("ACTIVE".into()),
        }],
        quotas: both(|_| Ok(QUOTAS)),
        resources: Ok(vec![entry("vpc.dr", "vpc", Change::Unchanged)]),
        alarms: both(|region| {
            Ok(vec![
                format!("drill-unwatched-{region}-dev"),
                "not-ready-dr-dev".into(),
            ])
        }),
        observed_ms: Ok([HOME, DR, "us-west-2"]
            .map(|region| (region.to_owned(), NOW - 5_000))
            .into()),
        change: Ok(None),
        drift: Ok(drift::Report::default()),
        rehearsed: Ok(Some(Rehearsed {
            at_ms: NOW - DAY_MS,
            id: "drill-dev-1".into(),
            kind: "switchover".into(),
        })),
        permissions: permissions::takeover(&spec, "000000000000", Slot::Dr)
            .into_iter()
            .map(|needed| (needed, Ok(true)))
            .collect(),
    }
}

fn state<'a>(facts: &'a mut Facts, region: &str, package: &str) -> &'a mut FunctionState {
    let found = facts
        .functions
        .iter_mut()
        .find(|function| function.region == region && function.package == package);
    found.unwrap().state.as_mut().unwrap()
}

#[test]
fn a_stack_in_order_is_ready_and_every_finding_passed() {
    let report = check(&facts(), &Spec::default(), NOW);
    let not_passed: Vec<_> = report
        .findings
        .iter()
        .filter(|finding| finding.state != State::Passed)
        .collect();
    assert!(not_passed.is_empty(), "{not_passed:#?}");
    assert!(report.is_ready());
    assert_eq!(report.failed(), Vec::<String>::new());
}

/// What is changed, the check that says so, what it says, and whether the stack is ready all the same.
type Row = (fn(&mut Facts), &'static str, &'static str, bool);

const ROWS: &[Row] = &[
    (
        |f| f.record = Err("no quorum".into()),
        "control-table",
        "no quorum",
        false,
    ),
    (
        |f| f.record.as_mut().unwrap().phase = Phase::Draining,
        "phase",
        "the phase is draining",
        false,
    ),
    (
        |f| f.record.as_mut().unwrap().maintenance = true,
        "maintenance",
        "lock is on",
        true,
    ),
    (
        |f| {
            f.journals.insert(DR.into(), Err("timed out".into()));
        },
        "journal",
        "timed out",
        false,
    ),
    (
        |f| f.global.as_mut().unwrap().status = "modifying".into(),
        "global-database",
        "modifying",
        false,
    ),
    (
        |f| {
            f.global.as_mut().unwrap().members.remove(DR);
        },
        "global-database",
        "us-east-2 has no cluster",
        false,
    ),
    (
        |f| {
            f.global
                .as_mut()
                .unwrap()
                .members
                .get_mut(DR)
                .unwrap()
                .synchronisation = Some("pending-resync".into())
        },
        "global-database",
        "us-east-2 is pending-resync",
        false,
    ),
    (
        |f| f.global.as_mut().unwrap().changing_to = Some("arn".into()),
        "global-database",
        "changing its writer",
        false,
    ),
    (
        |f| f.record.as_mut().unwrap().active_region = DR.into(),
        "global-database",
        "us-east-2 is active, and the writer is us-east-1",
        false,
    ),
    (
        |f| f.clusters.get_mut(DR).unwrap().as_mut().unwrap().status = "creating".into(),
        "database-instances",
        "creating",
        false,
    ),
    (
        |f| {
            f.clusters
                .get_mut(DR)
                .unwrap()
                .as_mut()
                .unwrap()
                .instances
                .clear()
        },
        "database-instances",
        "0 of 1",
        false,
    ),
    (
        |f| {
            *f.clusters
                .get_mut(DR)
                .unwrap()
                .as_mut()
                .unwrap()
                .instances
                .values_mut()
                .next()
                .unwrap() = "rebooting".into()
        },
        "database-instances",
        "is rebooting",
        false,
    ),
    (
        |f| f.clusters.get_mut(DR).unwrap().as_mut().unwrap().engine_version = "16.9".into(),
        "engine-versions",
        "us-east-2 has 16.9",
        false,
    ),
    (
        |f| {
            f.clusters.insert(DR.into(), Err("denied".into()));
        },
        "engine-versions",
        "denied",
        false,
    ),
    (
        |f| {
            f.ledgers.insert(DR.into(), Err("timed out".into()));
        },
        "payment-processor",
        "timed out",
        false,
    ),
    (
        |f| {
            f.ledgers
                .get_mut(DR)
                .unwrap()
                .as_mut()
                .unwrap()
                .status
                .ledger_epoch = Some(0)
        },
        "standby-fit",
        "epoch 0",
        false,
    ),
    (
        |f| f.ledgers.get_mut(DR).unwrap().as_mut().unwrap().status.reachable = false,
        "standby-fit",
        "does not answer",
        false,
    ),
    (
        |f| {
            f.ledgers.insert(HOME.into(), Ok(ledger(HOME, 20_011)));
        },
        "replication-lag",
        "20001 entries behind",
        false,
    ),
    (
        |f| state(f, DR, "health-probe").state = "Inactive".into(),
        "functions",
        "Inactive",
        false,
    ),
    (
        |f| state(f, DR, "health-probe").last_update = "Failed".into(),
        "functions",
        "last update is Failed",
        false,
    ),
    (
        |f| state(f, DR, "payment-processor").reserved = None,
        "concurrency",
        "nothing is reserved",
        false,
    ),
    (
        |f| state(f, DR, "payment-processor").reserved = Some(8),
        "concurrency",
        "8 calls at once",
        false,
    ),
    (
        |f| f.quotas.get_mut(DR).unwrap().as_mut().unwrap().lambda_concurrency = 10,
        "quotas",
        "10 calls of functions at once, 1000 in us-east-1",
        false,
    ),
    (
        |f| f.quotas.get_mut(DR).unwrap().as_mut().unwrap().api_burst = 100,
        "quotas",
        "100 API requests at once, 5000 in us-east-1",
        false,
    ),
    (
        |f| {
            f.quotas.insert(HOME.into(), Err("denied".into()));
        },
        "quotas",
        "denied",
        false,
    ),
    (
        |f| state(f, DR, "payment-processor").code_sha256 = "other".into(),
        "same-code",
        "differ",
        false,
    ),
    (
        |f| f.machines[0].status = Err("StateMachineDoesNotExist".into()),
        "workflows",
        "DoesNotExist",
        false,
    ),
    (
        |f| f.machines[0].status = Ok("DELETING".into()),
        "workflows",
        "DELETING",
        false,
    ),
    (
        |f| {
            f.resources.as_mut().unwrap().push(entry(
                "function.payment-processor.dr",
                "lambda-function",
                differs("reserved_concurrency"),
            ))
        },
        "resources",
        "function.payment-processor.dr differs (reserved_concurrency)",
        false,
    ),
    (
        |f| {
            f.resources
                .as_mut()
                .unwrap()
                .push(entry("record.dr", "alias-record", Change::Create))
        },
        "resources",
        "record.dr is missing",
        false,
    ),
    (
        |f| {
            f.resources.as_mut().unwrap().push(entry(
                "secret",
                "secret",
                Change::Unknown {
                    until: vec!["key".into()],
                },
            ))
        },
        "resources",
        "secret needs key",
        false,
    ),
    (
        |f| {
            f.resources
                .as_mut()
                .unwrap()
                .push(entry("dashboard", "cloudwatch-dashboard", Change::Create))
        },
        "resources",
        "dashboard is missing",
        true,
    ),
    (
        |f| f.resources = Err("the engine failed".into()),
        "resources",
        "the engine failed",
        false,
    ),
    (
        |f| f.permissions[0].1 = Ok(false),
        "permissions",
        "denied: dynamodb:GetItem",
        false,
    ),
    (
        |f| f.permissions[0].1 = Err("throttled".into()),
        "permissions",
        "throttled",
        false,
    ),
    (
        |f| {
            f.observed_ms.as_mut().unwrap().remove("us-west-2");
        },
        "observers",
        "nothing",
        false,
    ),
    (
        |f| {
            f.observed_ms.as_mut().unwrap().insert(HOME.into(), NOW - 200_000);
        },
        "observers",
        "200 s ago",
        false,
    ),
    (
        |f| {
            f.alarms
                .get_mut(DR)
                .unwrap()
                .as_mut()
                .unwrap()
                .push("drift-dr-dev".into())
        },
        "alarms",
        "drift-dr-dev",
        true,
    ),
    (
        |f| f.change = Ok(Some("deploy-dev-1".into())),
        "change",
        "`deploy-dev-1` runs",
        true,
    ),
    (
        |f| f.drift = Err("unreadable".into()),
        "drift",
        "unreadable",
        true,
    ),
    (|f| f.rehearsed = Ok(None), "rehearsal", "never", true),
    (
        |f| f.rehearsed.as_mut().unwrap().as_mut().unwrap().at_ms = NOW - 9 * DAY_MS,
        "rehearsal",
        "9 days ago",
        true,
    ),
];

#[test]
fn everything_that_is_not_in_order_shows_in_its_check() {
    for (change, name, says, ready) in ROWS {
        let mut facts = facts();
        change(&mut facts);
        let report = check(&facts, &Spec::default(), NOW);
        let found = report
            .findings
            .iter()
            .find(|finding| finding.check == *name && finding.state != State::Passed)
            .unwrap_or_else(|| panic!("{name} passed ({says})"));
        assert!(found.reason.contains(says), "{name}: {}", found.reason);
        assert!(!found.remedy.is_empty(), "{name}");
        assert_eq!(report.is_ready(), *ready, "{name} ({says})");
        assert_eq!(report.failed().is_empty(), *ready, "{name} ({says})");
    }
}

#[test]
fn every_check_has_a_row_in_which_it_does_not_pass() {
    let all: std::collections::BTreeSet<String> = check(&facts(), &Spec::default(), NOW)
        .findings
        .into_iter()
        .map(|finding| finding.check)
        .collect();
    let rows = ROWS.iter().map(|(_, name, ..)| (*name).to_owned()).collect();
    assert_eq!(all, rows);
}

#[test]
fn every_kind_of_the_blueprint_that_a_takeover_needs_is_in_a_group() {
    let stack = crate::blueprint::blueprint(&Spec::default(), "000000000000");
    let harmless: std::collections::BTreeSet<&str> = stack
        .nodes()
        .iter()
        .map(|node| node.kind)
        .filter(|kind| {
            let mut facts = facts();
            facts.resources = Ok(vec![entry("one", kind, Change::Create)]);
            check(&facts, &Spec::default(), NOW).is_ready()
        })
        .collect();
    insta::assert_debug_snapshot!(harmless);
}

#[test]
fn a_report_reads_as_it_was_written() {
    let mut facts = facts();
    facts.record = Err("no quorum".into());
    let report = check(&facts, &Spec::default(), NOW);
    let text = serde_json::to_string(&report).unwrap();
    assert_eq!(serde_json::from_str::<Report>(&text).unwrap(), report);
    assert_eq!(item(DR), "readiness#us-east-2");
}
