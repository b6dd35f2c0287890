//! `up` can be killed at any moment and run again; run on a finished stack it changes nothing.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

use continuity::control::{ControlStore, Swap};
use infra::change::CONFIGURATION_ITEM;
use understudy_tests::deployment::Deployment;
use understudy_tests::{CloudFolder, run, run_json, understudy};

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

#[tokio::test(flavor = "multi_thread")]
async fn what_another_version_stored_stops_every_command_before_it_changes_anything() {
    continuity::aws::install_tls();
    let folder = CloudFolder::new();
    let deployment = Deployment::new(&folder);
    let settings = "deletion_protection = true\n";
    deployment.configure(settings);
    deployment.up(&[]);
    let (stack, _) = deployment.stack(settings).await;
    let control = stack.control(stack.home());
    let ours = control
        .document(CONFIGURATION_ITEM)
        .await
        .expect("it answers")
        .expect("it is stored");
    let theirs = ours.replacen("\"spec\":{", "\"spec\":{\"later\":1,", 1);
    assert_ne!(theirs, ours);
    let swap = control
        .swap_document(CONFIGURATION_ITEM, Some(&ours), &theirs)
        .await;
    assert_eq!(swap.expect("it answers"), Swap::Done);

    // Without protection in the file: only what is stored says that the stack is protected.
    deployment.configure("");
    for (command, more) in [
        ("status", &[][..]),
        ("plan", &[]),
        ("up", &[]),
        ("down", &["--yes"]),
    ] {
        let said = deployment.fails(command, more);
        assert!(
            said.contains("cannot be read by this version: unknown field `later`"),
            "{command}: {said}"
        );
    }
    let left = control.document(CONFIGURATION_ITEM).await.expect("it answers");
    assert_eq!(left.as_ref(), Some(&theirs));

    let swap = control
        .swap_document(CONFIGURATION_ITEM, Some(&theirs), &ours)
        .await;
    assert_eq!(swap.expect("it answers"), Swap::Done);
    let said = deployment.fails("down", &["--yes"]);
    assert!(said.contains("deletion protection is on"), "{said}");
    deployment.configure("deletion_protection = false\n");
    deployment.up(&[]);
    assert_eq!(deployment.down()["left_over"], serde_json::json!([]));
}
