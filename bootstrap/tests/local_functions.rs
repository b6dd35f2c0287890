//! What the launcher does for functions and workflows, seen through a running cloud; and that ministack still needs it.
#![allow(clippy::unwrap_used, missing_docs)]

use std::{
    io::{Cursor, Write},
    process::Command,
    time::{Duration, Instant},
};

use base64::{Engine, engine::general_purpose::STANDARD};
use bootstrap::local::{self, AttachedCloud, Region, StartOptions, python};
use bytes::Bytes;
use http::{Request, header::AUTHORIZATION};
use http_body_util::{BodyExt, Full};
use hyper_util::{client::legacy::Client, rt::TokioExecutor};
use serde_json::{Value, json};
use zip::{ZipWriter, write::SimpleFileOptions};

const PATIENCE: Duration = Duration::from_secs(30);

/// A function that answers with its environment and writes a line to its log.
const FUNCTION: &str = r#"#!/usr/bin/env python3
import http.client, json, os
api = http.client.HTTPConnection(os.environ["AWS_LAMBDA_RUNTIME_API"])
while True:
    api.request("GET", "/2018-06-01/runtime/invocation/next")
    event = api.getresponse()
    event.read()
    print("called", flush=True)
    path = "/2018-06-01/runtime/invocation/" + event.headers["Lambda-Runtime-Aws-Request-Id"] + "/response"
    api.request("POST", path, json.dumps(dict(os.environ)))
    api.getresponse().read()
"#;

async fn cloud() -> (AttachedCloud, tempfile::TempDir) {
    let directory = tempfile::tempdir().unwrap();
    let options = StartOptions::new(directory.path()).program(env!("CARGO_BIN_EXE_understudy"));
    (local::start_attached(options).await.unwrap(), directory)
}

/// An AWS API call as an operator makes it.
async fn call(
    cloud: &AttachedCloud,
    region: Region,
    service: &str,
    path: &str,
    target: &str,
    body: Value,
) -> Value {
    let credential = format!("AWS4-HMAC-SHA256 Credential=test/20260101/{region}/{service}/aws4_request");
    let request = Request::post(format!("{}{path}", cloud.endpoint_url))
        .header(
            AUTHORIZATION,
            format!("{credential}, SignedHeaders=host, Signature=0"),
        )
        .header("X-Amz-Target", target)
        .header("Content-Type", "application/x-amz-json-1.0")
        .body(Full::<Bytes>::from(body.to_string()))
        .unwrap();
    let response = Client::builder(TokioExecutor::new())
        .build_http()
        .request(request)
        .await
        .unwrap();
    let status = response.status();
    let body = response.into_body().collect().await.unwrap().to_bytes();
    assert!(
        status.is_success(),
        "{target}{path}: {status} {}",
        String::from_utf8_lossy(&body)
    );
    serde_json::from_slice(&body).unwrap_or(Value::Null)
}

fn package() -> String {
    let mut zip = ZipWriter::new(Cursor::new(Vec::new()));
    zip.start_file("bootstrap", SimpleFileOptions::default().unix_permissions(0o755))
        .unwrap();
    zip.write_all(FUNCTION.as_bytes()).unwrap();
    STANDARD.encode(zip.finish().unwrap().into_inner())
}

async fn create_function(cloud: &AttachedCloud, region: Region) {
    let function = json!({
        "FunctionName": "environment",
        "Runtime": "provided.al2023",
        "Handler": "bootstrap",
        "Role": "arn:aws:iam::000000000000:role/function",
        "Timeout": 30,
        "Code": { "ZipFile": package() },
        "Environment": { "Variables": { "CONFIGURED": "yes" } },
    });
    call(cloud, region, "lambda", "/2015-03-31/functions", "", function).await;
}

async fn invoke(cloud: &AttachedCloud, region: Region) -> Value {
    call(
        cloud,
        region,
        "lambda",
        "/2015-03-31/functions/environment/invocations",
        "",
        json!({}),
    )
    .await
}

#[tokio::test]
async fn a_function_sees_its_region_the_edge_and_nothing_of_the_emulator() {
    let (cloud, _directory) = cloud().await;
    for region in [Region::UsEast1, Region::UsEast2] {
        create_function(&cloud, region).await;
        // The first call starts the process, the second finds it warm.
        for _ in 0..2 {
            let environment = invoke(&cloud, region).await;
            let get = |name: &str| environment[name].as_str().unwrap_or_default().to_owned();
            let endpoint = &cloud.region_endpoints[&region];
            assert_eq!(get("AWS_REGION"), region.name());
            assert_eq!(get("AWS_DEFAULT_REGION"), region.name());
            for name in ["AWS_ENDPOINT_URL", "HTTPS_PROXY", "https_proxy"] {
                assert_eq!(&get(name), endpoint, "{name}");
            }
            assert_eq!(get("NO_PROXY"), "127.0.0.1,localhost");
            assert_eq!(get("SSL_CERT_FILE"), cloud.ca_certificate.display().to_string());
            assert_eq!(get("AWS_LAMBDA_FUNCTION_NAME"), "environment");
            assert_eq!(get("AWS_LAMBDA_LOG_GROUP_NAME"), "/aws/lambda/environment");
            assert_eq!(get("AWS_LAMBDA_INITIALIZATION_TYPE"), "on-demand");
            assert_eq!(get("CONFIGURED"), "yes");
            for foreign in [
                "GATEWAY_PORT",
                "BIND_HOST",
                "TMPDIR",
                "SFTP_ENABLED",
                "HOME",
                "LOG_LEVEL",
            ] {
                assert!(
                    environment.get(foreign).is_none(),
                    "{foreign} is {}",
                    environment[foreign]
                );
            }
        }
    }
    cloud.stop().await;
}

#[tokio::test]
async fn the_log_of_a_function_arrives_although_nobody_waits_for_it() {
    let (cloud, _directory) = cloud().await;
    create_function(&cloud, Region::UsEast2).await;
    let deadline = Instant::now() + PATIENCE;
    loop {
        invoke(&cloud, Region::UsEast2).await;
        let target = "Logs_20140328.FilterLogEvents";
        let query = json!({ "logGroupName": "/aws/lambda/environment", "filterPattern": "called" });
        let found = call(&cloud, Region::UsEast2, "logs", "/", target, query).await;
        if found["events"]
            .as_array()
            .is_some_and(|events| !events.is_empty())
        {
            break;
        }
        assert!(Instant::now() < deadline, "the line never arrived");
    }
    cloud.stop().await;
}

#[tokio::test]
async fn a_wait_in_a_workflow_is_ten_times_shorter() {
    let (cloud, _directory) = cloud().await;
    let states = async |target: &str, body: Value| {
        call(
            &cloud,
            Region::UsEast1,
            "states",
            "/",
            &format!("AWSStepFunctions.{target}"),
            body,
        )
        .await
    };
    let definition =
        json!({ "StartAt": "Wait", "States": { "Wait": { "Type": "Wait", "Seconds": 60, "End": true } } });
    let machine = json!({
        "name": "wait",
        "roleArn": "arn:aws:iam::000000000000:role/workflow",
        "definition": definition.to_string(),
    });
    let machine = states("CreateStateMachine", machine).await;
    let started = Instant::now();
    let execution = states(
        "StartExecution",
        json!({ "stateMachineArn": machine["stateMachineArn"] }),
    )
    .await;
    let describe = json!({ "executionArn": execution["executionArn"] });
    while states("DescribeExecution", describe.clone()).await["status"] != "SUCCEEDED" {
        assert!(
            started.elapsed() < PATIENCE,
            "a wait of 60 s takes longer than {PATIENCE:?}"
        );
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert!(started.elapsed() >= Duration::from_secs(6));
    cloud.stop().await;
}

/// When this fails, ministack has learned what the launcher does for it: take the bridge away.
#[tokio::test]
async fn ministack_still_needs_what_the_launcher_does() {
    const QUESTIONS: &str = r#"
import inspect, socketserver
from ministack.core import lambda_runtime
from ministack.services import lambda_svc, scheduler, stepfunctions
environment = inspect.getsource(lambda_svc._provided_worker_env)
assert "dict(os.environ)" in environment, "functions no longer inherit the emulator's environment"
assert "AWS_LAMBDA_LOG_GROUP_NAME" not in environment, "functions have a log group in their environment"
assert "AWS_LAMBDA_INITIALIZATION_TYPE" not in environment, "functions know how they were initialised"
worker = inspect.getsource(lambda_runtime.ProvidedWorker)
assert "disable_nagle_algorithm" not in worker and "wbufsize" not in worker, "the Runtime API writes in one packet"
drain = inspect.signature(lambda_runtime.ProvidedWorker._drain_stderr_bounded)
assert drain.parameters["first_line_wait"].default >= 0.05, "calls no longer wait for log lines"
assert "time.sleep(0.15)" in inspect.getsource(stepfunctions._run_execution), "executions start without a pause"
assert lambda_svc._LAMBDA_STATE_TRANSITION_DELAY == 0.5, "functions become active in another time"
assert scheduler._SCHEDULE_TICK_INTERVAL == 10, "schedules are looked at in other intervals"
"#;
    let environment = python::ensure(&|_| {}).await.unwrap();
    let output = Command::new(environment.python())
        .args(["-c", QUESTIONS])
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
}
