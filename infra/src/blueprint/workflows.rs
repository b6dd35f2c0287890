//! The state machines and what starts the probes each minute.

use std::collections::BTreeMap;

use continuity::names::Slot;
use serde_json::{Value, json};

use super::Context;
use super::roles::{self, Purpose};
use crate::documents::render;
use crate::graph::{Blueprint, Handle};
use crate::resources::iam_role;
use crate::resources::lambda_function::{self, LambdaFunction};
use crate::resources::schedule::{self, Schedule};
use crate::resources::state_machine::{self, StateMachine};

/// Where a definition has this text, it gets the seconds that a proposed failover waits for a person, as a number.
const APPROVAL_SECONDS: &str = "${ApprovalSeconds}";

/// Definitions by workflow. Each is rendered with `CoordinatorArn` and [`APPROVAL_SECONDS`].
const DEFINITIONS: [(&str, &str); 8] = [
    ("deploy", include_str!("../../workflows/deploy.asl.json")),
    ("drill", include_str!("../../workflows/drill.asl.json")),
    ("failover", include_str!("../../workflows/failover.asl.json")),
    ("readiness", include_str!("../../workflows/readiness.asl.json")),
    ("reconcile", include_str!("../../workflows/reconcile.asl.json")),
    ("recovery", include_str!("../../workflows/recovery.asl.json")),
    ("switchover", include_str!("../../workflows/switchover.asl.json")),
    ("teardown", include_str!("../../workflows/teardown.asl.json")),
];

const NAMES: [&str; DEFINITIONS.len()] = {
    let mut names = [""; DEFINITIONS.len()];
    let mut at = 0;
    while at < names.len() {
        names[at] = DEFINITIONS[at].0;
        at += 1;
    }
    names
};

/// The workflows of a slot: all of them wherever the stack may be active.
pub fn workflows(slot: Slot) -> &'static [&'static str] {
    match slot {
        Slot::Primary | Slot::Dr => &NAMES,
        Slot::Witness => &[],
    }
}

/// A slot's state machines, which call its coordinator and nothing else.
pub fn state_machines(
    blueprint: &mut Blueprint,
    context: &Context<'_>,
    slot: Slot,
    coordinator: &Handle<LambdaFunction>,
) {
    let purpose = Purpose {
        what: "workflows",
        slot,
        description: "Runs the workflows: calls the coordinator.",
        service: "states.amazonaws.com",
    };
    let arn = super::functions::arn(context, slot, &context.names.failover_coordinator(slot));
    let role = roles::service(blueprint, context, purpose, [].into(), (), move |()| invoke(&arn));
    let approval_s = context.spec.failover.approval_expires_ms.div_ceil(1_000);
    let (mut reconcile, mut readiness, mut drill) = (None, None, None);
    for workflow in workflows(slot) {
        let name = context.names.state_machine(workflow, slot);
        let machine: Handle<StateMachine> = blueprint.add(
            format!("state-machine.{workflow}.{slot}"),
            &context.place(slot),
            (role.role.clone(), coordinator.clone()),
            move |(role, function): (iam_role::Outputs, lambda_function::Outputs)| state_machine::Spec {
                name: name.clone(),
                definition: definition(workflow, &function.arn, approval_s),
                role_arn: role.arn,
                tagged: true,
            },
        );
        role.before(blueprint, &machine);
        match *workflow {
            "reconcile" => reconcile = Some(machine),
            "readiness" => readiness = Some(machine),
            "drill" => drill = Some(machine),
            _ => {}
        }
    }
    if let Some(machine) = reconcile {
        let start = Start {
            workflow: "reconcile",
            description: "Starts the reconcile workflow.",
            expression: every_minutes(context.spec.reconcile.interval_minutes),
            input: json!({}),
        };
        start_by_schedule(blueprint, context, slot, &machine, start);
    }
    if let Some(machine) = readiness {
        let start = Start {
            workflow: "readiness",
            description: "Starts the readiness workflow.",
            expression: every_minutes(context.spec.readiness.interval_minutes),
            input: json!({}),
        };
        start_by_schedule(blueprint, context, slot, &machine, start);
    }
    if let (Some(machine), Some(expression)) = (drill, &context.spec.drill.schedule) {
        let start = Start {
            workflow: "drill",
            description: "Starts the drill workflow.",
            expression: expression.clone(),
            input: json!({"started_by": "schedule"}),
        };
        start_by_schedule(blueprint, context, slot, &machine, start);
    }
}

/// A workflow that a schedule starts.
struct Start {
    workflow: &'static str,
    description: &'static str,
    expression: String,
    input: Value,
}

/// Starts a workflow by schedule. It runs in both regions all the time, so that a failover has nothing to switch on; where it is not
/// the region's turn an execution ends with its first step.
fn start_by_schedule(
    blueprint: &mut Blueprint,
    context: &Context<'_>,
    slot: Slot,
    machine: &Handle<StateMachine>,
    start: Start,
) {
    let what = match start.workflow {
        "reconcile" => "reconcile-schedule",
        "readiness" => "readiness-schedule",
        _ => "drill-schedule",
    };
    let purpose = Purpose {
        what,
        slot,
        description: start.description,
        service: "scheduler.amazonaws.com",
    };
    let name = context.names.state_machine(start.workflow, slot);
    let arn = state_machine::arn(context.region(slot), context.account, &name);
    let role = roles::service(blueprint, context, purpose, [].into(), (), move |()| {
        vec![json!({"Sid": "Start", "Effect": "Allow", "Action": "states:StartExecution", "Resource": arn})]
    });
    let key = format!("{what}.{slot}");
    let description = key.clone();
    let schedule: Handle<Schedule> = blueprint.add(
        key,
        &context.place(slot),
        (role.role.clone(), machine.clone()),
        move |(role, machine): (iam_role::Outputs, state_machine::Outputs)| schedule::Spec {
            name: name.clone(),
            description: description.clone(),
            expression: start.expression.clone(),
            target_arn: machine.arn,
            role_arn: role.arn,
            input: start.input.to_string(),
            // The next one comes soon enough.
            retries: 0,
            max_age_s: 60,
            flexible: false,
            enabled: true,
        },
    );
    role.before(blueprint, &schedule);
}

/// Scheduler wants the singular for one.
fn every_minutes(minutes: u16) -> String {
    match minutes {
        1 => "rate(1 minute)".to_owned(),
        minutes => format!("rate({minutes} minutes)"),
    }
}

/// Calls a slot's probe each minute. The probe itself looks more often than that.
pub fn probe_schedule(
    blueprint: &mut Blueprint,
    context: &Context<'_>,
    slot: Slot,
    probe: &Handle<LambdaFunction>,
) {
    let call = Call {
        what: "probe-schedule",
        description: "Calls the probe each minute.",
        name: context.names.health_probe(slot),
        function: context.names.health_probe(slot),
        input: json!({}),
    };
    call_each_minute(blueprint, context, slot, probe, call);
}

/// Ends authorisations whose time has passed, within a minute or two. In both regions all the time, so that a failover has
/// nothing to switch on; where the region is not active the task does nothing.
pub fn expiry_schedule(
    blueprint: &mut Blueprint,
    context: &Context<'_>,
    slot: Slot,
    processor: &Handle<LambdaFunction>,
) {
    let call = Call {
        what: "expiry-schedule",
        description: "Ends authorisations whose time has passed, each minute.",
        name: context.names.expiry_schedule(slot),
        function: context.names.payment_processor(slot),
        input: json!({"task": "expire-authorisations"}),
    };
    call_each_minute(blueprint, context, slot, processor, call);
}

/// A function that is called each minute.
struct Call {
    /// The schedule's key, without the slot, and its role's purpose.
    what: &'static str,
    description: &'static str,
    name: String,
    function: String,
    input: Value,
}

fn call_each_minute(
    blueprint: &mut Blueprint,
    context: &Context<'_>,
    slot: Slot,
    function: &Handle<LambdaFunction>,
    call: Call,
) {
    let purpose = Purpose {
        what: call.what,
        slot,
        description: call.description,
        service: "scheduler.amazonaws.com",
    };
    let arn = super::functions::arn(context, slot, &call.function);
    let role = roles::service(blueprint, context, purpose, [].into(), (), move |()| invoke(&arn));
    let key = format!("{}.{slot}", call.what);
    let description = key.clone();
    let schedule: Handle<Schedule> = blueprint.add(
        key,
        &context.place(slot),
        (role.role.clone(), function.clone()),
        move |(role, function): (iam_role::Outputs, lambda_function::Outputs)| schedule::Spec {
            name: call.name.clone(),
            description: description.clone(),
            expression: "rate(1 minute)".into(),
            target_arn: function.arn,
            role_arn: role.arn,
            input: call.input.to_string(),
            // The next minute brings the next call.
            retries: 0,
            max_age_s: 60,
            flexible: false,
            enabled: true,
        },
    );
    role.before(blueprint, &schedule);
}

/// Calls of one function.
pub(super) fn invoke(function_arn: &str) -> Vec<Value> {
    vec![
        json!({"Sid": "Invoke", "Effect": "Allow", "Action": "lambda:InvokeFunction",
        "Resource": [function_arn, format!("{function_arn}:*")]}),
    ]
}

fn definition(workflow: &str, coordinator_arn: &str, approval_s: u64) -> Value {
    let (_, text) = DEFINITIONS
        .iter()
        .find(|(name, _)| *name == workflow)
        .expect("every workflow has a definition");
    let text = text.replace(&format!("\"{APPROVAL_SECONDS}\""), &approval_s.to_string());
    let template: Value = serde_json::from_str(&text).expect("the definition is JSON, a test says so");
    let values = BTreeMap::from([("CoordinatorArn", coordinator_arn.to_owned())]);
    render(&template, &values).expect("every placeholder has a value, a test says so")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::blueprint::blueprint;
    use crate::spec::Spec;

    #[test]
    fn the_state_machines_are_what_was_reviewed() {
        for (workflow, _) in DEFINITIONS {
            let rendered = definition(
                workflow,
                "arn:aws:lambda:REGION:ACCOUNT:function:coordinator",
                1_800,
            );
            let text = serde_json::to_string_pretty(&rendered).expect("JSON");
            insta::assert_snapshot!(workflow, text);
        }
    }

    #[test]
    fn a_proposal_waits_as_long_as_the_settings_say() {
        let failover = definition("failover", "arn:coordinator", 300);
        let asks = &failover["States"]["AskApproval"];
        assert_eq!(asks["TimeoutSeconds"], 300);
        assert_eq!(asks["Parameters"]["Payload"]["limit_s"], 300);
    }

    #[test]
    fn both_serving_regions_have_every_workflow_and_a_schedule_that_repairs() {
        let mut spec = Spec::default();
        spec.reconcile.interval_minutes = 1;
        let stack = blueprint(&spec, "000000000000");
        for slot in Slot::SERVING {
            for (workflow, _) in DEFINITIONS {
                assert!(stack.keys().contains(&format!("state-machine.{workflow}.{slot}")));
            }
            assert!(stack.keys().contains(&format!("reconcile-schedule.{slot}")));
            assert!(stack.keys().contains(&format!("readiness-schedule.{slot}")));
            assert!(stack.keys().contains(&format!("expiry-schedule.{slot}")));
        }
        assert_eq!(
            (every_minutes(1), every_minutes(5)),
            ("rate(1 minute)".into(), "rate(5 minutes)".into())
        );
    }

    #[test]
    fn with_a_schedule_both_regions_start_drills_and_without_one_none_does() {
        let mut spec = Spec::default();
        let keys = |spec: &Spec| blueprint(spec, "000000000000").keys();
        for slot in Slot::SERVING {
            assert!(keys(&spec).contains(&format!("drill-schedule.{slot}")));
        }
        spec.drill.schedule = None;
        assert!(keys(&spec).iter().all(|key| !key.starts_with("drill-schedule")));
    }

    #[test]
    fn every_workflow_is_rendered_and_calls_only_the_coordinator() {
        for slot in Slot::ALL {
            for workflow in workflows(slot) {
                let definition = definition(workflow, "arn:coordinator", 1_800);
                let states = definition["States"].as_object().map(|states| states.values());
                for state in states
                    .into_iter()
                    .flatten()
                    .filter(|state| state["Type"] == "Task")
                {
                    let called = match state["Resource"].as_str() {
                        Some("arn:aws:states:::lambda:invoke.waitForTaskToken") => {
                            &state["Parameters"]["FunctionName"]
                        }
                        _ => &state["Resource"],
                    };
                    assert_eq!(called, "arn:coordinator", "{workflow}");
                    assert!(state["TimeoutSeconds"].is_u64(), "{workflow}");
                }
            }
        }
    }
}
