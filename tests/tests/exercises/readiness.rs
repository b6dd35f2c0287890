//! Readiness in a local cloud of its own, which enforces the policies of roles: a stack in order is ready, and what somebody takes
//! from the standby shows in its check, with what to do.

use std::sync::Arc;

use bootstrap::artifacts::Choice;
use bootstrap::local;
use bootstrap::readiness::{Readiness, readiness};
use bootstrap::stack::Stack;
use bootstrap::ui::{Output, Ui};
use bootstrap::up;
use continuity::names::Slot;
use infra::readiness::{Finding, Severity, State};
use infra::spec::Spec;
use understudy_tests::killed::programs::Programs;

const HOME: &str = "us-east-1";
const STANDBY: &str = "us-east-2";

/// What is critical and not in order, in a region's report.
fn in_the_way<'a>(seen: &'a Readiness, region: &str) -> Vec<&'a Finding> {
    let report = seen.regions[region].report.as_ref().expect("it was evaluated");
    let critical = report
        .findings
        .iter()
        .filter(|one| one.severity == Severity::Critical);
    critical.filter(|one| one.state != State::Passed).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deployed_stack_is_ready_until_the_standby_loses_what_it_would_need() {
    let _turn = crate::turn().await;
    continuity::aws::install_tls();
    let folder = tempfile::tempdir().unwrap();
    let programs = Programs::shared().await.unwrap();
    let options = local::StartOptions::new(folder.path())
        .program(programs.understudy())
        .enforce_policies(true);
    let cloud = local::start_attached(options).await.unwrap();
    let mut spec = Spec {
        suffix: "ready".into(),
        ..Spec::default()
    };
    // Drift is not to be repaired before it is seen.
    spec.reconcile.repair = false;
    let mut stack = Stack::on_local(spec, (*cloud).clone()).await.unwrap();
    let ui = Arc::new(Ui::new(Output::Text));
    let wishes = up::Wishes {
        packages: Choice::Folder(programs.packages()),
        ..up::Wishes::default()
    };
    up::up(&mut stack, &wishes, &ui).await.unwrap();

    let seen = readiness(&stack, true, &ui).await.unwrap();
    for region in [HOME, STANDBY] {
        assert_eq!(in_the_way(&seen, region), Vec::<&Finding>::new(), "{region}");
    }
    assert!(seen.ready, "{seen:?}");

    let lambda = stack.cloud.lambda(STANDBY);
    lambda
        .delete_function_concurrency()
        .function_name(stack.names().payment_processor(Slot::Dr))
        .send()
        .await
        .unwrap();
    let deny = r#"{"Version":"2012-10-17","Statement":[{"Effect":"Deny","Action":"dynamodb:PutItem","Resource":"*"}]}"#;
    let put = stack.cloud.iam(HOME).put_role_policy();
    put.role_name(stack.names().regional("payment-processor", Slot::Dr))
        .policy_name("forbidden")
        .policy_document(deny)
        .send()
        .await
        .unwrap();
    let before = seen.regions[STANDBY].report.as_ref().unwrap().at_ms;
    let seen = readiness(&stack, true, &ui).await.unwrap();
    assert!(!seen.ready);
    assert!(seen.regions[STANDBY].report.as_ref().unwrap().at_ms > before);
    // Both regions see what is missing; what a role may do is asked where it would be needed.
    for (region, permissions) in [(HOME, false), (STANDBY, true)] {
        let found = in_the_way(&seen, region);
        let has = |check: &str, says: &str| {
            found
                .iter()
                .any(|one| one.check == check && one.reason.contains(says) && !one.remedy.is_empty())
        };
        assert!(has("concurrency", "nothing is reserved"), "{found:?}");
        assert!(has("resources", "function.payment-processor.dr"), "{found:?}");
        assert_eq!(has("permissions", "dynamodb:PutItem"), permissions, "{found:?}");
    }
    cloud.stop().await;
}
