//! What must hold of every workflow file: it is a closed graph, each task's step exists, each error name exists, each state
//! says its undo, and the limits relate.

use std::collections::BTreeSet;

use continuity::names::Slot;
use infra::blueprint::workflows::workflows;
use serde_json::Value;

use super::Machine;
use super::asl::WAITS;
use crate::error::TYPES;
use crate::event::Step;
use crate::limits::{FUNCTION_TIMEOUT, STATE_TIMEOUT};

/// Error names that Step Functions and Lambda define.
/// <https://docs.aws.amazon.com/step-functions/latest/dg/concepts-error-handling.html>
const DEFINED_BY_AWS: [&str; 9] = [
    "States.ALL",
    "States.Timeout",
    "Lambda.ServiceException",
    "Lambda.AWSLambdaException",
    "Lambda.SdkClientException",
    "Lambda.TooManyRequestsException",
    "Lambda.Unknown",
    "Sandbox.Timedout",
    "Runtime.ExitError",
];

fn each_state(check: impl Fn(&str, &Value)) {
    for workflow in workflows(Slot::Primary) {
        for (name, state) in Machine::load(workflow).states() {
            check(&format!("{workflow}: {name}"), state);
        }
    }
}

fn rules<'a>(state: &'a Value, field: &str) -> &'a [Value] {
    state[field].as_array().map_or(&[], Vec::as_slice)
}

#[test]
fn every_step_of_a_workflow_is_known_and_keeps_its_result_under_its_name() {
    let mut used = BTreeSet::new();
    for workflow in workflows(Slot::Primary) {
        for (name, state) in Machine::load(workflow).states() {
            if state["Type"] != "Task" {
                continue;
            }
            let (parameters, called) = match state["Resource"].as_str() {
                Some(WAITS) => (
                    &state["Parameters"]["Payload"],
                    &state["Parameters"]["FunctionName"],
                ),
                _ => (&state["Parameters"], &state["Resource"]),
            };
            assert_eq!(called, "${CoordinatorArn}", "{name}");
            let word = parameters["step"].as_str().unwrap();
            let step = Step::ALL.into_iter().find(|step| step.as_str() == word);
            let step = step.unwrap_or_else(|| panic!("{workflow}: {name}: no step `{word}`"));
            assert_eq!(state["ResultPath"], format!("$.{}", step.result_key()), "{name}");
            used.insert(step);
        }
    }
    assert_eq!(used, BTreeSet::from(Step::ALL), "a step that no workflow uses");
}

#[test]
fn every_error_name_exists() {
    each_state(|name, state| {
        for rule in rules(state, "Retry").iter().chain(rules(state, "Catch")) {
            for error in rules(rule, "ErrorEquals") {
                let error = error.as_str().unwrap();
                let known = TYPES.contains(&error) || DEFINED_BY_AWS.contains(&error);
                assert!(known, "{name}: no error `{error}`");
            }
        }
    });
}

#[test]
fn every_state_says_its_undo_and_every_task_catches_what_it_does_not_retry() {
    each_state(|name, state| {
        assert!(
            state["Comment"].as_str().is_some_and(|text| text.len() > 10),
            "{name}"
        );
        if state["Type"] == "Task" || state["Type"] == "Parallel" {
            let last = rules(state, "Catch").last();
            let all = last.is_some_and(|catcher| catcher["ErrorEquals"][0] == "States.ALL");
            assert!(all, "{name}: an error could end the execution without a reason");
        }
    });
}

#[test]
fn every_state_is_reached_and_leads_somewhere() {
    for workflow in workflows(Slot::Primary) {
        let machine = Machine::load(workflow);
        let states = machine.states();
        let mut reached = BTreeSet::from([machine.definition["StartAt"].as_str().unwrap()]);
        for state in states.values() {
            reached.extend(
                rules(state, "Branches")
                    .iter()
                    .map(|branch| branch["StartAt"].as_str().unwrap()),
            );
        }
        for (name, state) in &states {
            let nexts: Vec<&str> = std::iter::once(&state["Next"])
                .chain(std::iter::once(&state["Default"]))
                .chain(rules(state, "Choices").iter().map(|rule| &rule["Next"]))
                .chain(rules(state, "Catch").iter().map(|rule| &rule["Next"]))
                .filter_map(Value::as_str)
                .collect();
            for next in &nexts {
                assert!(states.contains_key(next), "{workflow}: {name} leads to `{next}`");
            }
            let ends = state["End"] == true || state["Type"] == "Succeed" || state["Type"] == "Fail";
            assert!(ends || !nexts.is_empty(), "{workflow}: {name} leads nowhere");
            reached.extend(nexts);
        }
        let all: BTreeSet<&str> = states.keys().copied().collect();
        assert_eq!(reached, all, "{workflow}");
    }
}

#[test]
fn limits_relate() {
    each_state(|name, state| {
        if state["Type"] == "Task" && state["Resource"] != WAITS {
            let timeout = state["TimeoutSeconds"].as_u64().unwrap();
            assert_eq!(timeout, STATE_TIMEOUT.as_secs(), "{name}");
            assert!(timeout > FUNCTION_TIMEOUT.as_secs(), "{name}");
        }
        for retrier in rules(state, "Retry") {
            assert_eq!(retrier["JitterStrategy"], "FULL", "{name}");
            assert!(retrier["MaxDelaySeconds"].as_u64().unwrap() <= 10, "{name}");
            // Customers get 503 while a switchover drains: there it is rather given up.
            let least = if name.starts_with("switchover: ") { 3 } else { 6 };
            assert!(retrier["MaxAttempts"].as_u64().unwrap() >= least, "{name}");
        }
        if state["Type"] == "Wait" {
            // Nobody waits for a region that is rebuilt, and an execution has a limited number of events.
            let most = if name == "recovery: WaitLong" { 60 } else { 10 };
            assert!(state["Seconds"].as_u64().unwrap() <= most, "{name}");
        }
    });
}

#[test]
fn before_the_fence_an_error_aborts_and_after_it_none_does() {
    let machine = Machine::load("failover");
    let states = machine.states();
    let target = |name: &str, error: &str| {
        let catchers = rules(states[name], "Catch");
        let catcher = catchers.iter().find(|catcher| {
            rules(catcher, "ErrorEquals")
                .iter()
                .any(|listed| listed == error || listed == "States.ALL")
        });
        catcher.unwrap()["Next"].as_str().unwrap()
    };
    assert_eq!(target("Assess", "ProcessorFailed"), "NotStarted");
    assert_eq!(target("Fence", "Superseded"), "NotStarted");
    assert_eq!(target("Fence", "ControlUnavailable"), "PauseThenAssess");
    for name in ["Promote", "AwaitWriter", "SetEpoch", "Replay", "Verify", "Open"] {
        assert_eq!(target(name, "DatabaseFailed"), "PauseThenForward", "{name}");
        assert_eq!(target(name, "Superseded"), "Superseded", "{name}");
    }
    assert_eq!(target("Verify", "LedgerUnbalanced"), "PauseUnbalanced");
}
