//! `up` can be killed at any moment and run again; run on a finished stack it changes nothing.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use bootstrap::local::edge::is_read;
use continuity::control::{ControlStore, Swap};
use continuity::names::Slot;
use infra::change::CONFIGURATION_ITEM;
use infra::engine::{self, Extent, Options};
use infra::resources::state_machine;
use understudy_tests::deployment::Deployment;
use understudy_tests::{CloudFolder, EdgeCall, run, run_json, understudy};

/// Kills `up` once it has said `marker` on standard error.
fn kill_up_after(folder: &CloudFolder, marker: &str) {
    let mut up = Command::new(understudy())
        .args(["up", "--local", "--dir", folder.path()])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .expect("understudy can be run");
    let lines = BufReader::new(up.stderr.take().expect("standard error is piped")).lines();
    let said: Vec<String> = lines
        .map_while(Result::ok)
        .take_while(|line| !line.contains(marker))
        .collect();
    let ended = up.try_wait().expect("the process is ours");
    assert!(
        ended.is_none(),
        "`up` ended ({ended:?}) and never said `{marker}`: {said:?}"
    );
    up.kill().expect("the process is ours");
    up.wait().expect("the process is ours");
}

#[test]
fn up_killed_anywhere_converges_when_run_again_and_then_changes_nothing() {
    let folder = CloudFolder::new();
    let started = run(&["local", "start", "--dir", folder.path()]);
    assert!(
        started.status.success(),
        "{}",
        String::from_utf8_lossy(&started.stderr)
    );

    kill_up_after(&folder, "seeding account");
    kill_up_after(&folder, "deploy workflow");
    kill_up_after(&folder, "deploy workflow");

    let deployed = run_json(&["up", "--local", "--dir", folder.path(), "--output", "json"]);
    assert!(deployed["resources"].as_u64() > Some(60), "{deployed}");
    assert_eq!(deployed["epoch"], 1, "{deployed}");

    let again = run_json(&["up", "--local", "--dir", folder.path(), "--output", "json"]);
    assert_eq!(again["changed"], serde_json::json!([]), "{again}");

    let gone = run_json(&[
        "down",
        "--local",
        "--yes",
        "--dir",
        folder.path(),
        "--output",
        "json",
    ]);
    assert_eq!(gone["left_over"], serde_json::json!([]), "{gone}");
}

/// The regions of the default stack, and others.
const SWAPPED: &str = "[regions]\nprimary = \"us-east-2\"\ndr = \"us-east-1\"\nwitness = \"us-west-2\"\n";
const ELSEWHERE: &str =
    "[regions]\nprimary = \"eu-west-1\"\ndr = \"eu-west-2\"\nwitness = \"eu-central-1\"\n";

#[tokio::test(flavor = "multi_thread")]
async fn of_a_stack_that_is_not_what_the_file_takes_it_for_nothing_is_changed_by_mistake() {
    continuity::aws::install_tls();
    let folder = CloudFolder::new();
    let deployment = Deployment::new(&folder);
    let settings = "deletion_protection = true\n";
    deployment.configure(settings);
    deployment.up(&[]);
    let (stack, _) = deployment.stack(settings).await;
    let all_fail = |because: &str| {
        let before = EdgeCall::read(&folder).len();
        for (command, more) in [
            ("status", &[][..]),
            ("plan", &[]),
            ("up", &[]),
            ("down", &["--yes"]),
        ] {
            let said = deployment.fails(command, more);
            assert!(said.contains(because), "{command}: {said}");
        }
        let calls = &EdgeCall::read(&folder)[before..];
        let written: Vec<&EdgeCall> = calls
            .iter()
            .filter(|call| call.is_by_hand() && !is_read(&call.operation))
            .collect();
        assert!(written.is_empty(), "{written:?}");
    };

    // Another version stored what this one does not know. The file says nothing of the protection.
    deployment.configure("");
    let control = stack.control(stack.home());
    let stored = control.document(CONFIGURATION_ITEM).await;
    let ours = stored.expect("it answers").expect("it is stored");
    let theirs = ours.replacen("\"spec\":{", "\"spec\":{\"later\":1,", 1);
    assert_ne!(theirs, ours);
    let swap = control.swap_document(CONFIGURATION_ITEM, Some(&ours), &theirs);
    assert_eq!(swap.await.expect("it answers"), Swap::Done);
    all_fail("cannot be read by this version: unknown field `later`");
    let swap = control.swap_document(CONFIGURATION_ITEM, Some(&theirs), &ours);
    assert_eq!(swap.await.expect("it answers"), Swap::Done);
    let said = deployment.fails("down", &["--yes"]);
    assert!(said.contains("deletion protection is on"), "{said}");
    deployment.configure("deletion_protection = false\n");
    deployment.up(&[]);

    // Other regions: its roles belong to the account, and would be found there.
    deployment.configure(ELSEWHERE);
    all_fail(
        "the stack `dev` is in other regions: its bucket `artifacts-primary-dev-000000000000` is in us-east-1, not in eu-west-1",
    );

    // The same regions the other way round: what is deployed is what is seen and goes.
    deployment.configure(SWAPPED);
    let said = deployment.refused(&[]);
    assert!(
        said.contains("`regions.primary` breaks the rule `fixed`"),
        "{said}"
    );
    let seen = deployment.json("status", &[]);
    assert_eq!(seen["control"]["active_region"], "us-east-1", "{seen}");

    // A recovery that looks once a minute for a region which never comes: the state machine's deletion would end it later.
    let region = stack.spec.regions.of(Slot::Dr);
    let machine = stack.names().state_machine("recovery", Slot::Dr);
    let hour_ago = continuity::clock::now_ms() - 3_600_000;
    let input = serde_json::json!({"epoch": 9, "from_region": "us-east-1", "to_region": "us-east-2", "find_tail": {"first_ms": hour_ago}});
    let sfn = stack.cloud.sfn(region);
    let begun = sfn
        .start_execution()
        .state_machine_arn(state_machine::arn(region, &stack.account, &machine))
        .input(input.to_string())
        .send()
        .await
        .expect("it begins");
    let deadline = Instant::now() + Duration::from_secs(60);
    let waits = async || {
        let history = sfn
            .get_execution_history()
            .execution_arn(begun.execution_arn())
            .send();
        let history = history.await.expect("it is there");
        let mut events = history.events().iter();
        events.any(|event| event.r#type().as_str() == "WaitStateEntered")
    };
    while !waits().await {
        assert!(Instant::now() < deadline, "it does not wait");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert_eq!(deployment.down()["left_over"], serde_json::json!([]));
    let calls = EdgeCall::read(&folder);
    let ended = calls
        .iter()
        .filter(|call| call.operation == "StopExecution" && call.status == 200);
    assert_eq!(ended.count(), 1);
    let extent = Extent::of(&stack.spec, &stack.account);
    let left = engine::inventory(&extent, &stack.cloud, &Options::default()).await;
    assert!(left.is_empty(), "{left}");
}
