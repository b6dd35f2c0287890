//! `plan` says what `up` would do, and does nothing itself: before anything is deployed, after, and when something has changed.

use bootstrap::local::edge::is_read;
use serde_json::{Value, json};
use understudy_tests::{CloudFolder, EdgeCall, run};

/// A plan and its exit code. It must not have written anything.
fn plan(folder: &CloudFolder, config: &str) -> (Value, Option<i32>, Vec<EdgeCall>) {
    let before = EdgeCall::read(folder).len();
    let output = run(&[
        "plan",
        "--local",
        "--dir",
        folder.path(),
        "--config",
        config,
        "--output",
        "json",
    ]);
    let plan = serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|error| panic!("no plan ({error}): {}", String::from_utf8_lossy(&output.stderr)));
    // The stack's own functions go on working meanwhile; `plan` calls from outside.
    let calls: Vec<EdgeCall> = EdgeCall::read(folder)
        .split_off(before)
        .into_iter()
        .filter(|call| call.is_by_hand())
        .collect();
    assert!(calls.len() > 100, "it looked: {} calls", calls.len());
    let writes: Vec<&EdgeCall> = calls
        .iter()
        .filter(|call| !is_read(&call.operation) && !ASKS.contains(&call.operation.as_str()))
        .collect();
    assert!(writes.is_empty(), "{writes:#?}");
    (plan, output.status.code(), calls)
}

/// Reads that are made with POST, or are called otherwise than other reads are.
const ASKS: [&str; 0] = [];

fn up(folder: &CloudFolder, config: &str) {
    let output = run(&["up", "--local", "--dir", folder.path(), "--config", config]);
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
}

fn changes(plan: &Value) -> Vec<&Value> {
    let resources = plan["resources"].as_array().expect("resources");
    resources
        .iter()
        .filter(|one| one["change"] != "unchanged")
        .collect()
}

async fn cloud(folder: &CloudFolder) -> infra::cloud::Cloud {
    let output = run(&["local", "env", "--dir", folder.path(), "--output", "json"]);
    let environment: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let endpoint = environment["AWS_ENDPOINT_URL"]
        .as_str()
        .expect("the local cloud has an endpoint");
    continuity::aws::install_tls();
    let credentials = aws_credential_types::Credentials::new("test", "test", None, None, "test");
    let config = continuity::aws::loader(Some("us-east-1"))
        .endpoint_url(endpoint)
        .credentials_provider(credentials)
        .load()
        .await;
    infra::cloud::Cloud::new(config)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plan_says_what_up_would_do_and_writes_nothing() {
    let folder = CloudFolder::new();
    let started = run(&["local", "start", "--dir", folder.path()]);
    assert!(
        started.status.success(),
        "{}",
        String::from_utf8_lossy(&started.stderr)
    );
    let config = folder.file("stack.toml");
    std::fs::write(&config, "").expect("the folder is ours");
    let config = config.to_str().expect("a temporary folder's path is text");

    let (fresh, code, _) = plan(&folder, config);
    assert_eq!((code, &fresh["deployed"]), (Some(2), &json!(false)));
    let created = fresh["counts"]["create"].as_u64().expect("a count");
    assert!(created > 110, "{created}");
    assert_eq!(fresh["counts"], json!({"create": created}), "and nothing else");
    assert_eq!(changes(&fresh).len() as u64, created);

    up(&folder, config);
    let (same, code, _) = plan(&folder, config);
    assert_eq!(changes(&same), Vec::<&Value>::new());
    assert_eq!(
        (code, &same["settings"], &same["strangers"], &same["errors"]),
        (Some(0), &json!([]), &json!([]), &json!([]))
    );
    assert_eq!(same["counts"], json!({"unchanged": created}));

    std::fs::write(config, "[api]\nrate_limit = 77\n\n[retention]\nlog_days = 14\n")
        .expect("the folder is ours");
    let (changed, code, _) = plan(&folder, config);
    assert_eq!(code, Some(2));
    let settings: Vec<&Value> = changed["settings"]
        .as_array()
        .expect("settings")
        .iter()
        .map(|change| &change["field"])
        .collect();
    assert_eq!(settings, ["api.rate_limit", "retention.log_days"]);
    let changed = changes(&changed);
    assert!(
        changed.iter().all(|one| one["change"] == "update"),
        "{changed:#?}"
    );
    let stage = changed
        .iter()
        .find(|one| one["key"] == "api-stage.dr")
        .expect("the stage changes");
    let default = infra::spec::Spec::default();
    assert_eq!(
        stage["fields"],
        json!([{"field": "rate_limit", "from": default.api.rate_limit, "to": 77}])
    );
    let logs = changed.iter().filter(|one| one["kind"] == "log-group");
    assert!(logs.count() > 8, "{changed:#?}");

    // Behind its back.
    let cloud = cloud(&folder).await;
    let deleted = cloud
        .scheduler("us-east-1")
        .delete_schedule()
        .name("reconcile-primary-dev")
        .send()
        .await;
    deleted.expect("the schedule is there");
    std::fs::write(config, "").expect("the folder is ours");
    let (missing, code, _) = plan(&folder, config);
    let missing = changes(&missing);
    assert_eq!(
        (code, missing.len(), &missing[0]["key"], &missing[0]["change"]),
        (Some(2), 1, &json!("reconcile-schedule.primary"), &json!("create")),
        "{missing:#?}"
    );

    // A command line that makes no sense is not taken for changes.
    let senseless = run(&["plan", "--locla"]);
    assert_eq!(senseless.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&senseless.stderr).contains("--locla"));
}
