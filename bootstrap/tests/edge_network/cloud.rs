//! A local cloud without its daemon: an edge, the emulator behind it, and a mirror that only writes down what it is told.

use std::{
    collections::BTreeMap,
    io::Write,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
    time::Duration,
};

use async_trait::async_trait;
use aws_credential_types::Credentials;
use aws_sdk_lambda::{primitives::Blob, types};
use aws_smithy_types::retry::RetryConfig;
use bootstrap::local::{
    AuroraMirror, MirrorError, Network, Region,
    ca::Authority,
    edge::{Edge, EdgeConfig, EdgeHandle, Upstreams},
    emulator::{Emulator, EmulatorConfig},
    process::Runtime,
    python,
};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::Notify,
};

/// How long anything may take that should happen soon.
pub const PATIENCE: Duration = Duration::from_secs(20);
/// Checks each 0.2 s instead of 10 s.
pub const TIME_SCALE: f64 = 0.02;

/// The edge with what stands around it. Dropping it ends the emulator and what it started.
pub struct Cloud {
    pub edge: EdgeHandle,
    pub mirror: Arc<Notes>,
    pub emulator: String,
    directory: tempfile::TempDir,
    _process: Emulator,
}

impl Cloud {
    pub async fn start() -> Self {
        Self::with_databases(BTreeMap::new()).await
    }

    pub async fn with_databases(databases: BTreeMap<Region, SocketAddr>) -> Self {
        Self::launch(databases, async |emulator| emulator).await
    }

    /// A cloud whose emulator gets calls of `operation` only when they are released.
    pub async fn holding(operation: &'static str) -> (Self, Arc<Held>) {
        let held = Arc::new(Held::default());
        let relayed = async |emulator| relay(emulator, operation, held.clone()).await;
        let cloud = Self::launch(BTreeMap::new(), relayed).await;
        (cloud, held)
    }

    async fn launch(
        databases: BTreeMap<Region, SocketAddr>,
        front: impl AsyncFnOnce(SocketAddr) -> SocketAddr,
    ) -> Self {
        continuity::aws::install_tls();
        let directory = tempfile::tempdir().unwrap();
        let authority = Arc::new(Authority::open(directory.path()).unwrap());
        let edge = Edge::bind(EdgeConfig {
            directory: directory.path().to_owned(),
            network: Arc::new(Network::default()),
            authority: authority.clone(),
            time_scale: TIME_SCALE,
        })
        .await
        .unwrap();
        let endpoints: BTreeMap<Region, String> = edge
            .addresses()
            .regions
            .iter()
            .map(|(&region, address)| (region, format!("http://{address}")))
            .collect();
        let mut process = Emulator::start(EmulatorConfig {
            environment: python::ensure(&|_| {}).await.unwrap(),
            launcher: directory.path().join("launcher.py"),
            temporary: directory.path().join("tmp"),
            log: directory.path().join("emulator.log"),
            endpoints,
            certificates: authority.certificate_path().to_owned(),
            wait_scale: 0.05,
            authorization_log: None,
            runtime: Arc::new(Runtime::create(directory.path().join("run.json")).unwrap()),
        })
        .await
        .unwrap();
        process.ready().await.unwrap();
        let mirror = Arc::new(Notes::default());
        let emulator = process.address();
        let edge = edge
            .serve(Upstreams {
                emulator: front(emulator).await,
                databases,
                mirror: mirror.clone(),
            })
            .await
            .unwrap();
        Self {
            edge,
            mirror,
            emulator: format!("http://{emulator}"),
            directory,
            _process: process,
        }
    }

    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    pub fn network(&self) -> &Network {
        self.edge.network()
    }

    /// Where AWS calls go from this place.
    pub fn endpoint(&self, source: Option<Region>) -> String {
        let addresses = self.edge.addresses();
        format!(
            "http://{}",
            source.map_or(addresses.outside, |region| addresses.regions[&region])
        )
    }

    /// SDK configuration of a caller in `source` for `region`, without retries: a refusal must be seen.
    pub async fn aws(&self, source: Option<Region>, region: Region) -> aws_config::SdkConfig {
        aws(&self.endpoint(source), region).await
    }

    /// SDK configuration past the edge, to see what the emulator does by itself.
    pub async fn bare(&self, region: Region) -> aws_config::SdkConfig {
        aws(&self.emulator, region).await
    }

    /// A call without an SDK.
    pub async fn call(
        &self,
        region: Region,
        service: &str,
        method: &str,
        path: &str,
        body: Value,
    ) -> (u16, Value) {
        let response = reqwest::Client::builder()
            .no_proxy()
            .build()
            .unwrap()
            .request(method.parse().unwrap(), format!("{}{path}", self.endpoint(None)))
            .header("authorization", signature(region, service))
            .json(&body)
            .send()
            .await
            .unwrap();
        let status = response.status().as_u16();
        let text = response.text().await.unwrap();
        (status, serde_json::from_str(&text).unwrap_or(Value::String(text)))
    }

    /// An HTTPS client that trusts the local authority and goes through the listener of `source`.
    pub fn tunnel(&self, source: Option<Region>) -> reqwest::Client {
        let proxy = reqwest::Proxy::https(self.endpoint(source)).unwrap();
        self.https().proxy(proxy).build().unwrap()
    }

    /// An HTTPS client that trusts the local authority and nobody else.
    pub fn https(&self) -> reqwest::ClientBuilder {
        let pem = std::fs::read(self.directory().join("ca.pem")).unwrap();
        let certificate = reqwest::Certificate::from_pem(&pem).unwrap();
        reqwest::Client::builder()
            .no_proxy()
            .tls_certs_only([certificate])
            .timeout(PATIENCE)
    }

    /// A REST API with one stage, `live`, whose function answers with what it was asked. Returns its id.
    pub async fn api(&self, region: Region) -> String {
        let function = self.echo(region).await;
        let integration = json!({
            "type": "AWS_PROXY",
            "httpMethod": "POST",
            "uri": format!(
                "arn:aws:apigateway:{region}:lambda:path/2015-03-31/functions/{function}/invocations"
            ),
        });
        let call = async |method: &str, path: &str, body: Value| -> Value {
            let (status, answer) = self.call(region, "apigateway", method, path, body).await;
            assert!((200..300).contains(&status), "{method} {path}: {answer}");
            answer
        };
        let text = |value: &Value, key: &str| value[key].as_str().unwrap().to_owned();
        let api = call("POST", "/restapis", json!({ "name": "echo" })).await;
        let (id, root) = (text(&api, "id"), text(&api, "rootResourceId"));
        let child = format!("/restapis/{id}/resources/{root}");
        let any = text(
            &call("POST", &child, json!({ "pathPart": "{proxy+}" })).await,
            "id",
        );
        let method = format!("/restapis/{id}/resources/{any}/methods/ANY");
        call("PUT", &method, json!({ "authorizationType": "NONE" })).await;
        call("PUT", &format!("{method}/integration"), integration).await;
        call(
            "POST",
            &format!("/restapis/{id}/deployments"),
            json!({ "stageName": "live" }),
        )
        .await;
        id
    }

    /// While this file exists, the region's `/health` answers 503.
    pub fn sick(&self, region: Region) -> PathBuf {
        self.directory().join(format!("sick-{region}"))
    }

    /// While this file exists, the function does not answer; beside it is another, ending in `-begun`, once it has been asked.
    pub fn hold(&self) -> PathBuf {
        self.directory().join("hold")
    }

    /// A function that answers with its event and its region. Returns its ARN.
    pub async fn echo(&self, region: Region) -> String {
        let lambda = aws_sdk_lambda::Client::new(&self.aws(None, region).await);
        let environment = types::Environment::builder()
            .variables("SICK", self.sick(region).to_str().unwrap())
            .variables("HOLD", self.hold().to_str().unwrap())
            .build();
        let created = lambda
            .create_function()
            .function_name("echo")
            .runtime(types::Runtime::Providedal2023)
            .handler("bootstrap")
            .role("arn:aws:iam::000000000000:role/echo")
            .environment(environment)
            .code(
                types::FunctionCode::builder()
                    .zip_file(Blob::new(package()))
                    .build(),
            )
            .send()
            .await
            .unwrap();
        eventually("the function is active", async || {
            let function = lambda.get_function().function_name("echo").send().await.unwrap();
            function.configuration.unwrap().state == Some(types::State::Active)
        })
        .await;
        created.function_arn.unwrap()
    }
}

/// Calls that stand between the edge and the emulator.
#[derive(Default)]
pub struct Held {
    /// Told when a call has come.
    pub arrived: Notify,
    /// Lets one call go on.
    pub released: Notify,
}

/// Stands before the emulator, and holds calls of `operation`. Returns its address. It ends with the test.
async fn relay(emulator: SocketAddr, operation: &'static str, held: Arc<Held>) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        loop {
            let (edge, _) = listener.accept().await.unwrap();
            let held = held.clone();
            tokio::spawn(async move {
                let (mut calls, mut answers) = edge.into_split();
                let (mut answering, mut called) = TcpStream::connect(emulator).await.unwrap().into_split();
                let back = tokio::spawn(async move { tokio::io::copy(&mut answering, &mut answers).await });
                let mut buffer = vec![0; 64 * 1024];
                while let Ok(length @ 1..) = calls.read(&mut buffer).await {
                    let part = String::from_utf8_lossy(&buffer[..length]).into_owned();
                    if part.contains(&format!(".{operation}\r\n")) {
                        held.arrived.notify_one();
                        held.released.notified().await;
                    }
                    if called.write_all(&buffer[..length]).await.is_err() {
                        break;
                    }
                }
                // Whoever hung up hears no answer, and the emulator is not told to go on for nobody.
                back.abort();
            });
        }
    });
    address
}

async fn aws(endpoint: &str, region: Region) -> aws_config::SdkConfig {
    continuity::aws::loader(Some(region.name()))
        .endpoint_url(endpoint)
        .credentials_provider(Credentials::new("test", "test", None, None, "test"))
        .retry_config(RetryConfig::disabled())
        .load()
        .await
}

/// Nobody checks the signature; the scope says where the call goes.
pub fn signature(region: Region, service: &str) -> String {
    format!(
        "AWS4-HMAC-SHA256 Credential=test/20260101/{region}/{service}/aws4_request, SignedHeaders=host, Signature=0"
    )
}

/// Waits until something is so.
pub async fn eventually(what: &str, so: impl AsyncFn() -> bool) {
    let deadline = tokio::time::Instant::now() + PATIENCE;
    while !so().await {
        assert!(tokio::time::Instant::now() < deadline, "not in time: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// A function of the custom runtime: a script that speaks the Runtime API.
fn package() -> Vec<u8> {
    const SCRIPT: &str = r#"#!/usr/bin/env python3
import http.client, json, os, time
runtime = http.client.HTTPConnection(os.environ["AWS_LAMBDA_RUNTIME_API"])
while True:
    runtime.request("GET", "/2018-06-01/runtime/invocation/next")
    response = runtime.getresponse()
    request = response.getheader("Lambda-Runtime-Aws-Request-Id")
    event = json.loads(response.read())
    while os.path.exists(os.environ["HOLD"]):
        open(os.environ["HOLD"] + "-begun", "w").close()
        time.sleep(0.02)
    sick = os.path.exists(os.environ["SICK"]) and event.get("path", "").endswith("/health")
    echo = {"region": os.environ["AWS_REGION"], "event": event}
    answer = {"statusCode": 503 if sick else 200, "headers": {"Content-Type": "application/json"}, "body": json.dumps(echo)}
    runtime.request("POST", f"/2018-06-01/runtime/invocation/{request}/response", json.dumps(answer))
    runtime.getresponse().read()
"#;
    let mut archive = zip::ZipWriter::new(std::io::Cursor::new(Vec::new()));
    let options = zip::write::SimpleFileOptions::default().unix_permissions(0o755);
    archive.start_file("bootstrap", options).unwrap();
    archive.write_all(SCRIPT.as_bytes()).unwrap();
    archive.finish().unwrap().into_inner()
}

/// A mirror that writes down what it is told, and refuses when told so.
#[derive(Default)]
pub struct Notes {
    told: Mutex<Vec<String>>,
    /// What it says it has kept.
    pub kept: Mutex<Vec<(Region, u64)>>,
    pub refuses: std::sync::atomic::AtomicBool,
}

impl Notes {
    pub fn told(&self) -> Vec<String> {
        self.told.lock().unwrap().clone()
    }

    fn note(&self, what: String) -> Result<(), MirrorError> {
        self.told.lock().unwrap().push(what);
        if self.refuses.load(std::sync::atomic::Ordering::Relaxed) {
            return Err(MirrorError::Refused("told to refuse".into()));
        }
        Ok(())
    }
}

#[async_trait]
impl AuroraMirror for Notes {
    fn writer(&self) -> Region {
        Region::UsEast1
    }

    async fn create_cluster(
        &self,
        region: Region,
        user: &str,
        password: &str,
        database: &str,
    ) -> Result<(), MirrorError> {
        self.note(format!("create {region} {user} {password} {database}"))
    }

    async fn set_password(&self, user: &str, password: &str) -> Result<(), MirrorError> {
        self.note(format!("password {user} {password}"))
    }

    async fn failover(&self, to: Region, allow_data_loss: bool) -> Result<(), MirrorError> {
        self.note(format!("failover {to} {allow_data_loss}"))
    }

    async fn switchover(&self, to: Region) -> Result<(), MirrorError> {
        self.note(format!("switchover {to}"))
    }

    async fn joined(&self) -> Result<(), MirrorError> {
        self.note("joined".into())
    }

    async fn delete_cluster(&self, region: Region) -> Result<(), MirrorError> {
        self.note(format!("delete {region}"))
    }

    fn kept(&self, region: Region) -> Vec<u64> {
        let kept = self.kept.lock().unwrap();
        kept.iter()
            .filter(|(of, _)| *of == region)
            .map(|(_, at)| *at)
            .collect()
    }

    async fn restore(&self, region: Region, at_ms: u64, cluster: &str) -> Result<SocketAddr, MirrorError> {
        self.note(format!("restore {region} {at_ms} {cluster}"))?;
        Ok(SocketAddr::from((region.address(), 1)))
    }

    async fn discard(&self, region: Region, cluster: &str) -> Result<(), MirrorError> {
        self.note(format!("discard {region} {cluster}"))
    }
}
