//! Policies enforced: each function, workflow, schedule and replication does its work with its own role and nothing more.

use std::time::Duration;

use std::collections::BTreeSet;

use bootstrap::local::Region;
use continuity::names::Slot;
use understudy_tests::policies::damage::{ALL as DAMAGE, Live};
use understudy_tests::policies::grants::{self, Grant};
use understudy_tests::policies::reviewed::{A_MATTER_OF_TIME, UNUSED};
use understudy_tests::policies::series::{Choice, chosen, removal};
use understudy_tests::policies::stage::{NO_TAKEOVER, Stage};
use understudy_tests::policies::steps::Need;
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

#[tokio::test(flavor = "multi_thread")]
async fn everything_granted_is_used_or_reviewed() {
    let mut stage = Stage::deploy("").await;
    let granted = grants::of_stack(&stage.stack.cloud, stage.stack.home()).await;
    stage.pay(PATIENCE).await.expect("it comes through");
    stage.export(PATIENCE).await.expect("it is written and read");
    stage.fill_the_bucket().await;
    for damage in DAMAGE {
        let made = (damage.make)(Live::of(&stage.stack)).await;
        made.expect("an operator may break things");
    }
    stage.reconcile(Slot::Primary).await;
    stage.reconcile(Slot::Primary).await;
    stage.configure("[probe]\ninterval_ms = 900\n");
    stage.up(&["--prune"]);

    let home: Region = stage.stack.home().parse().expect("a region of the local cloud");
    stage.local().outage(home, true).await.expect("the cloud answers");
    stage.taken_over().await;
    stage.pay(PATIENCE).await.expect("the standby serves");
    stage.local().heal(home).await.expect("the cloud answers");
    stage.fail_back().await;
    let gone = stage.down();
    assert_eq!(gone["left_over"], serde_json::json!([]), "{gone}");

    // Either slot's use of a role counts: both are made by the same code, and one of them is the standby.
    let questions = stage.questions();
    let used = |grant: &Grant| {
        questions.iter().any(|question| {
            grants::purpose(&question.role) == grant.purpose()
                && grants::matches(&grant.action, &question.action)
        })
    };
    let pair = |grant: &Grant| (grant.purpose().to_owned(), grant.action.clone());
    let unused: BTreeSet<_> = granted.iter().filter(|grant| !used(grant)).map(pair).collect();
    let reviewed: BTreeSet<_> = UNUSED
        .iter()
        .map(|(role, action, _)| ((*role).to_owned(), (*action).to_owned()))
        .collect();
    assert_eq!(
        unused.difference(&reviewed).collect::<Vec<_>>(),
        Vec::<&(String, String)>::new()
    );
    let may_be_used = |(role, action): &&(String, String)| A_MATTER_OF_TIME.contains(&(role, action));
    let outlived: Vec<_> = reviewed
        .difference(&unused)
        .filter(|pair| !may_be_used(pair))
        .collect();
    assert!(outlived.is_empty(), "used or no longer granted: {outlived:?}");
}

/// Chooses another sample.
const SEED: &str = "UNDERSTUDY_POLICY_SEED";
/// The sample that every run tries.
const USUAL_SEED: u64 = 7;
/// How many actions are taken away, one after the other.
const SAMPLE: usize = 8;

#[tokio::test(flavor = "multi_thread")]
async fn without_any_one_action_a_named_step_fails_and_says_who_may_not_do_what() {
    let seed = std::env::var(SEED).map_or(USUAL_SEED, |text| text.parse().expect("the seed is a number"));
    let mut stage = Stage::deploy(NO_TAKEOVER).await;
    let choice = Choice {
        sample: Some(SAMPLE),
        seed,
        ..Choice::default()
    };
    let mut grants = chosen(&stage, &choice).await;
    assert_eq!(grants.len(), SAMPLE);
    // The refusals of both were not told once: what followed failed, with a reason that misled.
    for action in ["kms:CancelKeyDeletion", "route53:List*"] {
        let always = Grant {
            role: "failover-coordinator-primary-dev".to_owned(),
            action: action.to_owned(),
        };
        if !grants.contains(&always) {
            grants.push(always);
        }
    }
    let mut steps = BTreeSet::new();
    for grant in grants {
        let Need::Steps(candidates) = Need::of(&grant) else {
            panic!("only what has a step is sampled: {grant}");
        };
        let removal = removal(&mut stage, &grant, &candidates).await;
        assert!(removal.outcome.is_ok(), "{SEED}={seed}: {removal:?}");
        steps.insert(removal.step);
    }
    assert!(steps.len() >= 5, "of each step something is sampled: {steps:?}");
}
