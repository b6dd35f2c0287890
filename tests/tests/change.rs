//! Changing a stack that serves: the standby first, then home, without losing a request; what the configuration names no more;
//! what holds data.

use std::io::{Cursor, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use aws_sdk_lambda::types::TracingMode;
use bootstrap::artifacts::manifest::{Manifest, Package};
use bootstrap::artifacts::{Artifact, Choice, HOST, prepare};
use bootstrap::client::{Client, NewPayment};
use bootstrap::stack::Stack;
use continuity::names::{STAGE, Slot};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use understudy_tests::deployment::Deployment;
use understudy_tests::{CloudFolder, EdgeCall};

/// What a customer may need to be answered; nothing is sent a second time.
const ONE_ATTEMPT: Duration = Duration::ZERO;
const PATIENCE: Duration = Duration::from_secs(30);

/// The configuration before and after the change.
const BEFORE: &str = "aurora.engine_version = \"16.8\"\n";
const AFTER: &str =
    "aurora.engine_version = \"16.9\"\nnetwork.zones = 3\napi.rate_limit = 1500\nfunctions.tracing = true\n";

/// A folder of packages, as `understudy build` writes it.
fn packages(deployment: &Deployment<'_>, name: &str, artifacts: &[Artifact]) -> String {
    let folder = deployment.files().join(name);
    std::fs::create_dir_all(&folder).expect("the folder is ours");
    let mut manifest = Manifest::default();
    for artifact in artifacts {
        let file = format!("{}.zip", artifact.function);
        std::fs::write(folder.join(&file), &artifact.zip).expect("the folder is ours");
        manifest.put(Package {
            function: artifact.function.to_owned(),
            file,
            sha256: hex::encode(Sha256::digest(&artifact.zip)),
            architecture: HOST,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            zipped_bytes: artifact.zip.len() as u64,
            binary_bytes: artifact.zip.len() as u64,
            glibc: None,
        });
    }
    manifest.write(&folder).expect("the folder is ours");
    folder.display().to_string()
}

/// The same program in another package.
fn repacked(artifact: &Artifact) -> Artifact {
    let mut zip = zip::ZipWriter::new_append(Cursor::new(artifact.zip.clone())).expect("it is an archive");
    let options = zip::write::SimpleFileOptions::default();
    zip.start_file("NOTE", options).expect("there is room");
    zip.write_all(b"another build").expect("there is room");
    package(artifact.function, zip)
}

/// A program that dies before it answers anything.
fn broken(function: &'static str) -> Artifact {
    let mut zip = zip::ZipWriter::new(Cursor::new(Vec::new()));
    let options = zip::write::SimpleFileOptions::default().unix_permissions(0o755);
    zip.start_file("bootstrap", options).expect("there is room");
    zip.write_all(b"#!/bin/sh\nexit 1\n").expect("there is room");
    package(function, zip)
}

fn package(function: &'static str, zip: zip::ZipWriter<Cursor<Vec<u8>>>) -> Artifact {
    let zip = zip.finish().expect("it is an archive").into_inner();
    Artifact {
        function,
        sha256: hex::encode(Sha256::digest(&zip)),
        zip,
    }
}

/// Customers that pay one after the other until they are told to stop. Each request is sent once; how many were answered, or
/// the first that was not.
struct Customers {
    stop: Arc<AtomicBool>,
    tasks: Vec<tokio::task::JoinHandle<Result<usize, String>>>,
}

impl Customers {
    async fn begin(client: &Client, name: &'static str) -> Self {
        let mut accounts = Vec::new();
        for number in 0..4 {
            let opened = client
                .open_account(&format!("{name}-{number}"), "EUR", None, PATIENCE)
                .await;
            accounts.push(opened.expect("it opens").id);
        }
        let stop = Arc::new(AtomicBool::new(false));
        let one = |customer: usize| {
            let (client, accounts, stop) = (client.clone(), accounts.clone(), Arc::clone(&stop));
            tokio::spawn(async move {
                let mut paid = 0;
                while !stop.load(Ordering::Relaxed) {
                    let payment = NewPayment {
                        from_account: accounts[customer].clone(),
                        to_account: accounts[(customer + 1) % accounts.len()].clone(),
                        amount_minor: 100,
                        currency: "EUR".to_owned(),
                        reference: format!("{name}-{customer}-{paid}"),
                    };
                    let answer = client.pay(&payment.reference, &payment, ONE_ATTEMPT).await;
                    answer.map_err(|error| continuity::error::chain(&error))?;
                    paid += 1;
                }
                Ok(paid)
            })
        };
        let tasks = (0..2).map(one).collect();
        Customers { stop, tasks }
    }

    /// How many payments were answered in all.
    async fn end(self) -> usize {
        self.stop.store(true, Ordering::Relaxed);
        let mut all = 0;
        for task in self.tasks {
            all += task
                .await
                .expect("it ends")
                .unwrap_or_else(|error| panic!("a request was lost: {error}"));
        }
        all
    }
}

/// When a region was first asked for an operation that begins so and took effect.
fn first(calls: &[EdgeCall], region: &str, operation: &str) -> u64 {
    let call = calls
        .iter()
        .find(|call| call.region == region && call.operation.starts_with(operation) && call.status == 200);
    call.unwrap_or_else(|| panic!("no {operation} in {region}")).at_ms
}

/// Every function and both APIs have active tracing on.
async fn is_traced(stack: &Stack) {
    let names = stack.names();
    for slot in Slot::ALL {
        let region = stack.spec.regions.of(slot);
        let mut functions = vec![names.health_probe(slot)];
        if Slot::SERVING.contains(&slot) {
            functions.extend([names.payment_processor(slot), names.failover_coordinator(slot)]);
            let gateway = stack.cloud.apigateway(region);
            let apis = gateway.get_rest_apis().send().await.expect("it answers");
            let ours = names.rest_api(slot);
            let api = apis.items().iter().find(|api| api.name() == Some(&ours));
            let id = api.and_then(|api| api.id()).expect("the API is there");
            let stage = gateway.get_stage().rest_api_id(id).stage_name(STAGE).send().await;
            assert!(stage.expect("it answers").tracing_enabled(), "{region}");
        }
        for name in functions {
            let request = stack.cloud.lambda(region).get_function_configuration();
            let function = request.function_name(&name).send().await.expect("it answers");
            let mode = function.tracing_config().and_then(|tracing| tracing.mode());
            assert_eq!(mode, Some(&TracingMode::Active), "{name}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_reaches_the_standby_first_and_loses_no_request() {
    continuity::aws::install_tls();
    let folder = CloudFolder::new();
    let deployment = Deployment::new(&folder);
    deployment.configure(BEFORE);
    deployment.up(&[]);
    let (stack, _) = deployment.stack(BEFORE).await;
    let customer = bootstrap::demo::customer(&stack).await.expect("it has a key");
    let built = prepare(&Choice::Host, |_| {})
        .await
        .expect("they are built")
        .artifacts;

    // A new artifact, throttle, subnet and minor version of the engine, while customers pay.
    let customers = Customers::begin(&customer, "change").await;
    let before = EdgeCall::read(&folder).len();
    deployment.configure(AFTER);
    let newer: Vec<Artifact> = built.iter().map(repacked).collect();
    let newer = packages(&deployment, "newer", &newer);
    let changed = deployment.up(&["--packages", &newer]);
    let paid = customers.end().await;
    assert!(paid > 20, "{paid} payments");
    let keys: Vec<&str> = changed["changed"]
        .as_array()
        .expect("keys")
        .iter()
        .filter_map(Value::as_str)
        .collect();
    for key in [
        "db-cluster.dr",
        "db-cluster.primary",
        "function.payment-processor.dr",
        "function.payment-processor.primary",
        "subnet.c.dr",
        "subnet.c.primary",
    ] {
        assert!(keys.contains(&key), "`{key}` is not among {keys:?}");
    }
    let calls = &EdgeCall::read(&folder)[before..];
    for operation in ["ModifyDBCluster", "PATCH /restapis/"] {
        let (dr, home) = (
            first(calls, "us-east-2", operation),
            first(calls, "us-east-1", operation),
        );
        assert!(dr < home, "{operation}: home at {home}, the standby at {dr}");
    }
    assert_eq!(deployment.up(&["--packages", &newer])["changed"], json!([]));
    is_traced(&stack).await;

    // A package that does not work stops at the standby.
    let customers = Customers::begin(&customer, "broken").await;
    let mut bad = built.clone();
    bad[0] = broken("payment-processor");
    let bad = packages(&deployment, "broken", &bad);
    let said = deployment.refused(&["--packages", &bad]);
    assert!(
        said.contains("function.payment-processor.primary: left as it is")
            && said.contains("us-east-2 does not answer as the standby"),
        "{said}"
    );
    assert!(customers.end().await > 5);

    // The subnets of the third zone are in the configuration no more.
    deployment.configure(&AFTER.replace("zones = 3", "zones = 2"));
    let without = deployment.up(&[]);
    let strangers = |deployed: &Value| -> Vec<String> {
        let all = deployed["strangers"].as_array().expect("a list").iter();
        all.filter_map(|one| one["key"].as_str().map(str::to_owned))
            .collect()
    };
    assert_eq!(strangers(&without), ["subnet.c.primary", "subnet.c.dr"]);
    assert_eq!(strangers(&deployment.up(&["--prune"])), Vec::<String>::new());
    let cloud = &stack.cloud;
    for region in ["us-east-1", "us-east-2"] {
        let subnets = cloud
            .ec2(region)
            .describe_subnets()
            .send()
            .await
            .expect("it answers");
        let ours = subnets.subnets().iter().filter(|subnet| {
            let mut tags = subnet.tags().iter();
            tags.any(|tag| tag.key() == Some("understudy:stack"))
        });
        assert_eq!(ours.count(), 2, "{region}");
    }
}
