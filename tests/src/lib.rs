//! What the end-to-end tests share: the `understudy` program, built and run with a deadline, and folders that clean up after
//! themselves.

pub mod deployment;
pub mod finish;
pub mod killed;
pub mod policies;

pub mod stack;
pub mod told;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::OnceLock;
use std::time::Duration;

use finish::{Unfinished, finish};

/// How long `understudy` may take, unless the caller says otherwise.
pub const PATIENCE: Duration = Duration::from_secs(300);

/// The `understudy` program of this build, built first if it is not up to date. Outside of cargo's folder, the one beside this
/// program.
pub fn understudy() -> &'static PathBuf {
    static PROGRAM: OnceLock<PathBuf> = OnceLock::new();
    PROGRAM.get_or_init(|| {
        let program = std::env::current_exe().expect("a program knows its own path");
        let beside = program.parent().expect("a program is in a folder");
        let folder = if beside.ends_with("deps") {
            beside.parent().expect("`deps` is in target/PROFILE")
        } else {
            beside
        };
        if let Some(target) = folder
            .parent()
            .filter(|target| target.join("CACHEDIR.TAG").is_file())
        {
            build(folder, target);
        }
        folder.join("understudy")
    })
}

/// What cargo tells a test about its own package. A build script that asks for one of these runs again in a cargo that inherits
/// them, and all that depends on its package is compiled again.
fn set_by_cargo(name: &str) -> bool {
    name.starts_with("CARGO_PKG_") || name.starts_with("CARGO_MANIFEST_")
}

fn build(folder: &Path, target: &Path) {
    let profile = match folder.file_name().and_then(|name| name.to_str()) {
        Some("debug") | None => "dev",
        Some(other) => other,
    };
    let mut cargo = Command::new(env!("CARGO"));
    for (name, _) in std::env::vars().filter(|(name, _)| set_by_cargo(name)) {
        cargo.env_remove(name);
    }
    let status = cargo
        .args([
            "build",
            "--bins",
            "--quiet",
            "--locked",
            "--profile",
            profile,
            "--target-dir",
        ])
        .arg(target)
        .current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
        .stdin(Stdio::null())
        .status()
        .expect("cargo can be run");
    assert!(status.success(), "cargo build failed");
}

/// Runs `understudy` to its end, within [`PATIENCE`].
pub fn run(arguments: &[&str]) -> Output {
    run_within(PATIENCE, arguments)
}

/// Runs `understudy` to its end. One that takes longer than `limit` is ended, and the test fails with what it had said and with
/// the end of each log of its cloud.
pub fn run_within(limit: Duration, arguments: &[&str]) -> Output {
    try_run(limit, arguments).unwrap_or_else(|unfinished| panic!("{unfinished}"))
}

fn try_run(limit: Duration, arguments: &[&str]) -> Result<Output, Unfinished> {
    let mut command = Command::new(understudy());
    command.args(arguments);
    finish(command, limit).map_err(|unfinished| {
        let folder = arguments
            .windows(2)
            .find(|pair| ["--dir", "--keep"].contains(&pair[0]))
            .map(|pair| Path::new(pair[1]));
        unfinished.with_logs(folder)
    })
}

/// Runs `understudy`, which must succeed within [`PATIENCE`], and returns its standard output as JSON.
pub fn run_json(arguments: &[&str]) -> serde_json::Value {
    run_json_within(PATIENCE, arguments)
}

/// Runs `understudy`, which must succeed within `limit`, and returns its standard output as JSON.
pub fn run_json_within(limit: Duration, arguments: &[&str]) -> serde_json::Value {
    let output = run_within(limit, arguments);
    let error_text = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success(),
        "understudy {arguments:?} failed:\n{error_text}"
    );
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| {
        panic!(
            "understudy {arguments:?} printed no JSON ({error}):\n{}",
            String::from_utf8_lossy(&output.stdout)
        )
    })
}

/// A request as API Gateway gives it to the payment-processor.
pub fn proxy_event(
    method: &str,
    path: &str,
    query: &[(String, String)],
    headers: &[(String, String)],
    body: Option<&str>,
    base64: bool,
) -> serde_json::Value {
    fn lists(pairs: &[(String, String)]) -> BTreeMap<&str, Vec<&str>> {
        let mut lists: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
        for (name, value) in pairs {
            lists.entry(name).or_default().push(value);
        }
        lists
    }
    serde_json::json!({
        "resource": "/{proxy+}", "path": path, "httpMethod": method,
        "headers": null, "multiValueHeaders": lists(headers),
        "queryStringParameters": null, "multiValueQueryStringParameters": lists(query),
        "pathParameters": null, "stageVariables": null,
        "requestContext": { "stage": "live", "httpMethod": method, "requestId": "r" },
        "body": body, "isBase64Encoded": base64,
    })
}

/// A line of the log of questions whether a role may do something, in a cloud that enforces policies.
#[derive(Debug, Clone, PartialEq, Eq, serde::Deserialize)]
pub struct Authorization {
    /// When it was asked.
    pub at_ms: u64,
    /// The role's name.
    pub role: String,
    /// What it wanted to do: `iam:GetRole`.
    pub action: String,
    /// To what.
    pub resource: String,
    /// `allow` or `deny`.
    pub decision: String,
    /// The statement that decided; empty when none matched.
    pub sid: String,
}

impl Authorization {
    /// Every question so far.
    pub fn read(folder: &CloudFolder) -> Vec<Authorization> {
        lines(&folder.file("logs/authorization.log"))
    }

    /// Whether the answer was yes.
    pub fn allowed(&self) -> bool {
        self.decision == "allow"
    }
}

/// A line of the edge's log of calls.
#[derive(Debug, Clone, PartialEq, Eq, serde::Deserialize)]
pub struct EdgeCall {
    /// When it was made.
    pub at_ms: u64,
    /// Where the caller is: a region's name or `outside`.
    pub source: String,
    /// The region that was called.
    pub region: String,
    /// The service.
    pub service: String,
    /// The operation.
    pub operation: String,
    /// The function that called; none outside of functions.
    #[serde(default)]
    pub caller: Option<String>,
    /// The HTTP status; 0 when the connection was broken.
    pub status: u16,
}

impl EdgeCall {
    /// Every call so far, of a running cloud or of one that was stopped.
    pub fn read(folder: &CloudFolder) -> Vec<EdgeCall> {
        let running = folder.file("edge.log");
        lines(&if running.exists() {
            running
        } else {
            folder.file("logs/edge.log")
        })
    }

    /// Made by the command line, or by a test: from outside, and as nobody's role.
    pub fn is_by_hand(&self) -> bool {
        self.source == "outside" && self.caller.is_none()
    }
}

/// A log of one JSON value per line. The last line may be half written.
fn lines<T: serde::de::DeserializeOwned>(path: &Path) -> Vec<T> {
    let text = std::fs::read_to_string(path)
        .unwrap_or_else(|error| panic!("`{}` cannot be read: {error}", path.display()));
    let whole = text.rfind('\n').map_or("", |end| &text[..end]);
    whole
        .lines()
        .map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}")))
        .collect()
}

/// A local cloud's folder; dropping it stops the cloud, whatever the test did.
#[derive(Debug)]
pub struct CloudFolder {
    folder: tempfile::TempDir,
}

impl CloudFolder {
    /// An empty folder.
    pub fn new() -> Self {
        let folder = tempfile::Builder::new()
            .prefix("understudy-test-")
            .tempdir()
            .expect("a temporary folder");
        CloudFolder { folder }
    }

    /// Its path, as an argument.
    pub fn path(&self) -> &str {
        self.folder
            .path()
            .to_str()
            .expect("a temporary folder's path is text")
    }

    /// A file of the cloud.
    pub fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }
}

impl Default for CloudFolder {
    fn default() -> Self {
        CloudFolder::new()
    }
}

impl Drop for CloudFolder {
    fn drop(&mut self) {
        if std::thread::panicking() && !Path::new(&self.file("logs")).exists() {
            // Nothing was started here, and perhaps there is no program to ask.
            return;
        }
        let problem = match try_run(PATIENCE, &["local", "stop", "--dir", self.path()]) {
            Ok(output) if output.status.success() => return,
            Ok(output) => String::from_utf8_lossy(&output.stderr).into_owned(),
            Err(unfinished) => unfinished.to_string(),
        };
        if !std::thread::panicking() {
            panic!("local stop failed:\n{problem}");
        }
    }
}
