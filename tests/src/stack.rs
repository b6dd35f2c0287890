//! A stack in a local cloud as the end-to-end tests see it: through the plain SDK, its workflows and `understudy status`.

use std::time::{Duration, Instant};

use infra::cloud::Cloud;
use serde_json::Value;

use crate::{CloudFolder, run, run_json};

/// The account that every local cloud has.
pub const ACCOUNT: &str = "000000000000";

/// A reconcile that takes longer hangs.
const RECONCILE_LIMIT: Duration = Duration::from_secs(120);

/// The environment of a program that uses this local cloud.
pub fn environment(folder: &CloudFolder) -> Vec<(String, String)> {
    let map = run_json(&["local", "env", "--dir", folder.path(), "--output", "json"]);
    map.as_object()
        .expect("an object")
        .iter()
        .map(|(name, value)| (name.clone(), value.as_str().unwrap_or_default().to_owned()))
        .collect()
}

/// Plain SDK clients of this local cloud, for any region.
pub async fn cloud(folder: &CloudFolder) -> Cloud {
    let endpoint = environment(folder)
        .into_iter()
        .find(|(name, _)| name == "AWS_ENDPOINT_URL")
        .expect("the local cloud has an endpoint")
        .1;
    continuity::aws::install_tls();
    let config = continuity::aws::loader(Some("us-east-1"))
        .endpoint_url(endpoint)
        .credentials_provider(aws_credential_types::Credentials::new(
            "test", "test", None, None, "test",
        ))
        .load()
        .await;
    Cloud::new(config)
}

/// Runs the reconcile workflow of a region to its end, and returns its output.
pub async fn reconcile(cloud: &Cloud, region: &str, slot: &str) -> Value {
    let client = cloud.sfn(region);
    let machine = infra::resources::state_machine::arn(region, ACCOUNT, &format!("reconcile-{slot}-dev"));
    let started = client
        .start_execution()
        .state_machine_arn(machine)
        .input("{}")
        .send()
        .await;
    let arn = started.expect("it starts").execution_arn;
    let patience = Instant::now() + RECONCILE_LIMIT;
    loop {
        let seen = client
            .describe_execution()
            .execution_arn(&arn)
            .send()
            .await
            .expect("it is there");
        match seen.status().as_str() {
            "SUCCEEDED" => break serde_json::from_str(seen.output().unwrap_or("{}")).expect("JSON"),
            "RUNNING" => assert!(Instant::now() < patience, "the reconcile does not end"),
            status => panic!("{status}: {:?} {:?}", seen.error(), seen.cause()),
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// What `understudy status` says, and its exit code.
pub fn status(folder: &CloudFolder) -> (Value, Option<i32>) {
    let output = run(&["status", "--local", "--dir", folder.path(), "--output", "json"]);
    let status = serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|error| panic!("no status ({error}): {}", String::from_utf8_lossy(&output.stderr)));
    (status, output.status.code())
}

/// The state of one resource.
pub fn state(status: &Value, key: &str) -> String {
    let resources = status["resources"].as_array().expect("resources");
    let found = resources.iter().find(|one| one["key"] == key);
    found.map_or_else(
        || "not listed".to_owned(),
        |one| one["state"].as_str().unwrap_or_default().to_owned(),
    )
}
