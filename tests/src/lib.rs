//! What the end-to-end tests share: the `understudy` program, built, and folders that clean up after themselves.

pub mod stack;

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::OnceLock;

/// The `understudy` program of this build, built first if it is not up to date.
pub fn understudy() -> &'static PathBuf {
    static PROGRAM: OnceLock<PathBuf> = OnceLock::new();
    PROGRAM.get_or_init(|| {
        let test = std::env::current_exe().expect("a test knows its own path");
        let folder = test
            .parent()
            .and_then(|deps| deps.parent())
            .expect("tests run in target/PROFILE/deps");
        let target = folder.parent().expect("target/PROFILE is in target");
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
        folder.join("understudy")
    })
}

/// What cargo tells a test about its own package. A build script that asks for one of these runs again in a cargo that inherits
/// them, and all that depends on its package is compiled again.
fn set_by_cargo(name: &str) -> bool {
    name.starts_with("CARGO_PKG_") || name.starts_with("CARGO_MANIFEST_")
}

/// Runs `understudy` to its end.
pub fn run(arguments: &[&str]) -> Output {
    Command::new(understudy())
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .expect("understudy can be run")
}

/// Runs `understudy`, which must succeed, and returns its standard output as JSON.
pub fn run_json(arguments: &[&str]) -> serde_json::Value {
    let output = run(arguments);
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
        let output = run(&["local", "stop", "--dir", self.path()]);
        if !output.status.success() && !std::thread::panicking() {
            panic!("local stop failed:\n{}", String::from_utf8_lossy(&output.stderr));
        }
    }
}
