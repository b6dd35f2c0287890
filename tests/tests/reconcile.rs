//! Drift is found, told and repaired from whichever region is active; what runs in an isolated region hangs nobody; a takeover asks
//! nothing of the region that failed; after the region is back `up` and `down` work from the region that took over; and none of it
//! tells a secret.

use std::time::{Duration, Instant};

use infra::cloud::Cloud;
use serde_json::json;
use understudy_tests::deployment::Deployment;
use understudy_tests::stack::{self, reconcile, state, status};
use understudy_tests::told::told;
use understudy_tests::{CloudFolder, EdgeCall, run, run_json};

const PATIENCE: Duration = Duration::from_secs(30);

/// The region that takes over from us-east-1 reached its end without that one, and without the services that live there.
fn asks_nothing_elsewhere(calls: &[EdgeCall]) {
    let promoted = calls
        .iter()
        .filter(|call| call.operation == "FailoverGlobalCluster");
    let promoted: Vec<&str> = promoted.map(|call| call.region.as_str()).collect();
    assert_eq!(promoted, ["us-east-2"]);
    let coordinator = |call: &&EdgeCall| {
        let caller = call.caller.as_deref();
        call.source == "us-east-2" && caller.is_some_and(|caller| caller.contains("failover-coordinator"))
    };
    // The last step starts the recovery, which waits for the other region and asks for it.
    let of_failover = |call: &&EdgeCall| call.operation != "StartExecution";
    let of_coordinator: Vec<&EdgeCall> = calls.iter().filter(coordinator).take_while(of_failover).collect();
    assert!(of_coordinator.len() > 10, "{of_coordinator:#?}");
    let elsewhere = |call: &&&EdgeCall| {
        call.region == "us-east-1" || ["iam", "route53", "globalaccelerator"].contains(&call.service.as_str())
    };
    let elsewhere: Vec<&&EdgeCall> = of_coordinator.iter().filter(elsewhere).collect();
    assert!(elsewhere.is_empty(), "{elsewhere:#?}");
}

/// Neither the database's password nor an API key is in anything that the stack has told.
async fn tells_no_secret(folder: &CloudFolder, cloud: &Cloud) {
    let secrets = cloud.secrets("us-east-2");
    let secret = secrets
        .get_secret_value()
        .secret_id("aurora-credentials-dev")
        .send()
        .await;
    let secret = secret.expect("it is there").secret_string.expect("it is a text");
    let secret: serde_json::Value = serde_json::from_str(&secret).expect("JSON");
    let password = secret["password"].as_str().expect("a password");
    let all = told(folder, cloud, &["us-east-1", "us-east-2", "us-west-2"]).await;
    for sort in [
        "edge.log",
        "/aws/lambda/failover-coordinator-dr-dev",
        ":failover-dr-dev:",
        "control-dev",
    ] {
        let some = all
            .iter()
            .any(|told| told.by.contains(sort) && !told.text.is_empty());
        assert!(some, "nothing was read of {sort}");
    }
    for told in &all {
        let is_told = told.text.contains(password) || told.text.contains("usk_");
        assert!(!is_told, "{} tells a secret", told.by);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn drift_is_repaired_where_the_stack_is_active_before_and_after_a_failover() {
    let folder = CloudFolder::new();
    run_json(&["up", "--local", "--dir", folder.path(), "--output", "json"]);
    let cloud = stack::cloud(&folder).await;
    let (before, code) = status(&folder);
    assert_eq!(
        (before["counts"]["ok"].as_u64(), code),
        (
            before["resources"].as_array().map(|all| all.len() as u64),
            Some(0)
        ),
        "{}",
        before["counts"]
    );

    let deployment = Deployment::new(&folder);
    let (stack, _) = deployment.stack("").await;
    let customer = bootstrap::demo::customer(&stack).await.expect("it has a key");
    let opened = customer.open_account("before", "EUR", None, PATIENCE).await;
    opened.expect("it serves");

    // Behind its back.
    let shrink = async || {
        let client = cloud.lambda("us-east-2");
        let changed = client
            .update_function_configuration()
            .function_name("health-probe-dr-dev")
            .memory_size(256);
        changed.send().await.expect("the function is there");
    };
    shrink().await;
    cloud
        .scheduler("us-east-1")
        .delete_schedule()
        .name("reconcile-primary-dev")
        .send()
        .await
        .expect("the schedule is there");
    let (drifted, code) = status(&folder);
    assert_eq!(code, Some(1));
    assert_eq!(state(&drifted, "function.health-probe.dr"), "drift");
    assert_eq!(state(&drifted, "reconcile-schedule.primary"), "missing");

    let standby = reconcile(&cloud, "us-east-2", "dr").await;
    assert_eq!(standby["repair"]["outcome"], "not-active", "{standby}");
    let active = reconcile(&cloud, "us-east-1", "primary").await;
    assert_eq!(active["repair"]["counts"]["repaired"], 2, "{active}");
    let (repaired, code) = status(&folder);
    assert_eq!(code, Some(0), "{}", repaired["counts"]);
    let told = &repaired["reconcile"]["last"]["entries"];
    assert_eq!(told[0]["key"], "function.health-probe.dr", "{told}");
    assert_eq!(
        told[0]["fields"][0],
        json!({"field": "memory_mb", "from": 256, "to": 128})
    );

    // The home region goes, the other takes over by itself.
    let before = EdgeCall::read(&folder).len();
    assert!(
        run(&[
            "local",
            "outage",
            "us-east-1",
            "--kill-database",
            "--dir",
            folder.path()
        ])
        .status
        .success()
    );
    let patience = Instant::now() + Duration::from_secs(90);
    loop {
        let (now, code) = status(&folder);
        assert_eq!(code, Some(1), "a region does not answer");
        if now["control"]["epoch"] == 2 && now["control"]["phase"] == "serving" {
            break;
        }
        assert!(Instant::now() < patience, "nobody took over: {}", now["control"]);
    }
    asks_nothing_elsewhere(&EdgeCall::read(&folder)[before..]);
    let began = Instant::now();
    let refused = run(&["up", "--local", "--dir", folder.path()]);
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(
        !refused.status.success() && said.contains("`us-east-1` does not answer"),
        "{said}"
    );
    assert!(
        began.elapsed() < Duration::from_secs(30),
        "an isolated region held `up` for {:?}",
        began.elapsed()
    );

    // It comes back: roles stay where they are, everything else is looked after from the region that took over.
    assert!(
        run(&["local", "heal", "us-east-1", "--dir", folder.path()])
            .status
            .success()
    );
    let again = run_json(&["up", "--local", "--dir", folder.path(), "--output", "json"]);
    assert_eq!(
        (&again["active_region"], &again["epoch"], &again["changed"]),
        (&json!("us-east-2"), &json!(2), &json!([]))
    );
    shrink().await;
    let home = reconcile(&cloud, "us-east-1", "primary").await;
    assert_eq!(home["repair"]["outcome"], "not-active", "{home}");
    let active = reconcile(&cloud, "us-east-2", "dr").await;
    assert_eq!(active["repair"]["counts"]["repaired"], 1, "{active}");
    assert_eq!(
        active["repair"]["counts"]["roles"], 2,
        "the writer moved, and is left: {active}"
    );

    tells_no_secret(&folder, &cloud).await;
    let gone = run_json(&[
        "down",
        "--local",
        "--yes",
        "--dir",
        folder.path(),
        "--output",
        "json",
    ]);
    assert_eq!(gone["left_over"], json!([]), "{gone}");
    let nothing = run(&["status", "--local", "--dir", folder.path()]);
    assert!(String::from_utf8_lossy(&nothing.stderr).contains("nothing is deployed"));
}
