//! Policies enforced: each function, workflow, schedule and replication does its work with its own role and nothing more.

use std::time::Duration;

use understudy_tests::{Authorization, CloudFolder, run_json_within};

/// The demo, with the start of the cloud and the first build of the functions. Its own waits end earlier.
const PATIENCE: Duration = Duration::from_secs(900);

/// Refusals that are not the end of a role: those before the role's own policies were deleted.
fn refusals(questions: &[Authorization]) -> Vec<&Authorization> {
    let end_of = |role: &str| {
        let own = |question: &&Authorization| {
            question.action == "iam:DeleteRolePolicy" && question.resource.ends_with(&format!("/{role}"))
        };
        questions.iter().find(own).map(|question| question.at_ms)
    };
    let refused = questions.iter().filter(|question| !question.allowed());
    refused
        .filter(|question| end_of(&question.role).is_none_or(|end| question.at_ms < end))
        .collect()
}

#[test]
fn the_demo_needs_nothing_that_its_roles_are_not_allowed() {
    let folder = CloudFolder::new();
    let arguments = [
        "demo",
        "--enforce-policies",
        "--keep",
        folder.path(),
        "--output",
        "json",
    ];
    let closing = run_json_within(PATIENCE, &arguments);
    for none in ["lost", "duplicated", "left_over"] {
        assert_eq!(closing[none], 0, "{closing}");
    }
    let questions = Authorization::read(&folder);
    // Every role was asked about: functions, workflows and schedules.
    for role in [
        "failover-coordinator-primary-demo",
        "failover-coordinator-dr-demo",
        "payment-processor-primary-demo",
        "payment-processor-dr-demo",
        "health-probe-primary-demo",
        "health-probe-dr-demo",
        "health-probe-witness-demo",
        "workflows-primary-demo",
        "workflows-dr-demo",
    ] {
        assert!(questions.iter().any(|question| question.role == role), "{role}");
    }
    assert_eq!(refusals(&questions), Vec::<&Authorization>::new());
}
