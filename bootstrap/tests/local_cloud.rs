//! The daemon's life: start, side by side, stop, and every way to die. Real processes, real clouds.
#![allow(clippy::unwrap_used, missing_docs)]

use std::{
    collections::BTreeMap,
    fs,
    io::{BufRead, BufReader, Write},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use bootstrap::local::{
    self, AttachedCloud, Cloud, LocalError, Region, StartOptions,
    process::{ProcessId, RunRecord},
    state::Layout,
};
use nix::sys::signal::Signal;

const PROGRAM: &str = env!("CARGO_BIN_EXE_understudy");
const PATIENCE: Duration = Duration::from_secs(30);

fn options(directory: &Path) -> StartOptions {
    StartOptions::new(directory).program(PROGRAM)
}

async fn attached(directory: &Path) -> AttachedCloud {
    local::start_attached(options(directory)).await.unwrap()
}

fn record(directory: &Path) -> RunRecord {
    RunRecord::read(&Layout::new(directory).unwrap().record()).unwrap()
}

/// Everything that the cloud runs.
fn processes(directory: &Path) -> Vec<ProcessId> {
    let record = record(directory);
    let processes: Vec<ProcessId> = record
        .daemon
        .into_iter()
        .chain(record.processes.into_values())
        .collect();
    assert_eq!(processes.len(), 4, "a daemon, ministack and two servers");
    assert!(processes.iter().all(ProcessId::is_alive));
    processes
}

fn eventually(what: &str, condition: impl Fn() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !condition() {
        assert!(Instant::now() < deadline, "not in time: {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn understudy(directory: &Path, arguments: &[&str]) -> (bool, String, String) {
    let output = Command::new(PROGRAM)
        .arg("local")
        .args(arguments)
        .arg("--dir")
        .arg(directory)
        .output()
        .unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (output.status.success(), text(output.stdout), text(output.stderr))
}

/// What a stopped cloud leaves.
fn assert_only_logs_are_left(directory: &Path) {
    let mut names: Vec<String> = fs::read_dir(directory)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    assert_eq!(names, ["daemon.lock", "guardian.lock", "logs"]);
}

async fn http(cloud: &Cloud, region: Region, target: &str, body: &str) -> String {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let address = cloud.endpoint_url.strip_prefix("http://").unwrap();
    let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
    let request = format!(
        "POST / HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\nContent-Type: application/x-amz-json-1.0\r\n\
         Authorization: AWS4-HMAC-SHA256 Credential=test/20260101/{region}/dynamodb/aws4_request, SignedHeaders=host, Signature=0\r\n\
         X-Amz-Target: DynamoDB_20120810.{target}\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}

#[tokio::test]
async fn two_clouds_live_side_by_side() {
    let (first, second) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (one, two) = tokio::join!(attached(first.path()), attached(second.path()));
    let table = r#"{"TableName":"only-in-one","AttributeDefinitions":[{"AttributeName":"id","AttributeType":"S"}],
        "KeySchema":[{"AttributeName":"id","KeyType":"HASH"}],"BillingMode":"PAY_PER_REQUEST"}"#;
    let created = http(&one, Region::UsEast1, "CreateTable", table).await;
    assert!(created.starts_with("HTTP/1.1 200"), "{created}");
    assert!(
        http(&one, Region::UsEast1, "ListTables", "{}")
            .await
            .contains("only-in-one")
    );
    let other = http(&two, Region::UsEast1, "ListTables", "{}").await;
    assert!(
        other.starts_with("HTTP/1.1 200") && !other.contains("only-in-one"),
        "{other}"
    );

    // A fault in one is none in the other, and the end of one is not the end of the other.
    one.outage(Region::UsEast1, true).await.unwrap();
    let status = two.status().await.unwrap();
    assert!(status.cut.is_empty());
    assert_eq!(status.databases[&Region::UsEast1].role, "writer");
    let ended = processes(second.path());
    two.stop().await;
    assert!(ended.iter().all(|process| !process.is_alive()));
    assert_only_logs_are_left(second.path());
    assert_eq!(
        one.status().await.unwrap().databases[&Region::UsEast1].role,
        "stopped-writer"
    );
    one.heal(Region::UsEast1).await.unwrap();
    assert_eq!(
        one.status().await.unwrap().databases[&Region::UsEast1].role,
        "writer"
    );
    one.stop().await;
    assert_only_logs_are_left(first.path());
}

#[tokio::test]
async fn a_started_cloud_is_found_started_again_and_stopped_from_the_command_line() {
    let directory = tempfile::tempdir().unwrap();
    let directory = directory.path();
    let (started, out, said) = understudy(directory, &["start", "--output", "json"]);
    assert!(started, "{said}");
    assert!(out.contains(r#""started": true"#), "{out}");
    assert!(said.contains("starting the databases"), "{said}");
    let (again, out, _) = understudy(directory, &["start"]);
    assert!(again && out.contains("already"), "{out}");
    assert!(matches!(
        local::start_attached(options(directory)).await,
        Err(LocalError::Taken(_))
    ));

    let (_, out, _) = understudy(directory, &["status"]);
    assert!(
        out.contains("us-east-1") && out.contains("writer") && !out.contains("NOT RUNNING"),
        "{out}"
    );
    let (_, out, _) = understudy(directory, &["env"]);
    let cloud = local::attach(directory).await.unwrap();
    assert!(
        out.contains(&format!("export AWS_ENDPOINT_URL='{}'", cloud.endpoint_url)),
        "{out}"
    );
    let (refused, _, said) = understudy(directory, &["outage", "us-west-2", "--kill-database"]);
    assert!(!refused && said.contains("no database"), "{said}");
    assert!(
        local::attach(directory)
            .await
            .unwrap()
            .status()
            .await
            .unwrap()
            .cut
            .is_empty()
    );

    let ended = processes(directory);
    let (stopped, out, _) = understudy(directory, &["stop"]);
    assert!(stopped && out.contains("is stopped"), "{out}");
    assert!(ended.iter().all(|process| !process.is_alive()));
    assert_only_logs_are_left(directory);
    let (stopped, out, _) = understudy(directory, &["stop"]);
    assert!(stopped && out.contains("no local cloud runs"), "{out}");
    let (status, _, said) = understudy(directory, &["status"]);
    assert!(!status && said.contains("understudy local start"), "{said}");
}

#[tokio::test]
async fn a_killed_daemon_leaves_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let cloud = local::start(options(directory.path())).await.unwrap();
    let ended = processes(directory.path());
    assert!(ProcessId::of(cloud.pid).unwrap().signal(Signal::SIGKILL));
    eventually("the guardian ends all", || {
        ended.iter().all(|process| !process.is_alive())
    });
    eventually("the guardian removes the files", || {
        !directory.path().join("run.json").exists()
    });
    assert!(matches!(
        local::attach(directory.path()).await,
        Err(LocalError::NotRunning(_))
    ));
    assert!(cloud.status().await.is_err());

    // And the directory is good for another cloud.
    let cloud = attached(directory.path()).await;
    assert_eq!(
        cloud.status().await.unwrap().databases[&Region::UsEast2].role,
        "standby"
    );
    cloud.stop().await;
    assert_only_logs_are_left(directory.path());
}

#[tokio::test]
async fn stop_right_after_the_daemon_was_killed_waits_until_nothing_is_left() {
    let directory = tempfile::tempdir().unwrap();
    let cloud = local::start(options(directory.path())).await.unwrap();
    let ended = processes(directory.path());
    assert!(ProcessId::of(cloud.pid).unwrap().signal(Signal::SIGKILL));
    local::stop(directory.path()).await.unwrap();
    assert!(ended.iter().all(|process| !process.is_alive()));
    assert_only_logs_are_left(directory.path());
}

#[tokio::test]
async fn stop_ends_a_cloud_whose_daemon_and_guardian_were_both_killed() {
    let directory = tempfile::tempdir().unwrap();
    let cloud = local::start(options(directory.path())).await.unwrap();
    let ended = processes(directory.path());
    let daemon = ProcessId::of(cloud.pid).unwrap();
    let all = local::process::descendants(&daemon);
    let guardian = all.iter().find(|process| is_guardian(process)).unwrap();
    assert!(guardian.signal(Signal::SIGKILL));
    assert!(daemon.signal(Signal::SIGKILL));
    eventually("both are gone", || !daemon.is_alive() && !guardian.is_alive());
    assert!(local::stop(directory.path()).await.unwrap());
    assert!(ended.iter().all(|process| !process.is_alive()));
    assert_only_logs_are_left(directory.path());
}

fn is_guardian(process: &ProcessId) -> bool {
    let output = Command::new("ps")
        .args(["-o", "args=", "-p", &process.pid.to_string()])
        .output()
        .unwrap();
    String::from_utf8_lossy(&output.stdout).contains("local guardian")
}

/// The daemon as a program starts it that wants it to end with itself.
fn daemon_with(directory: &Path, lifetime: &str) -> Child {
    Command::new(PROGRAM)
        .args(["local", "serve", lifetime, "--dir"])
        .arg(directory)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap()
}

fn wait_for(daemon: &mut Child, announcement: &str) {
    let mut lines = BufReader::new(daemon.stdout.as_mut().unwrap()).lines();
    assert!(
        lines.any(|line| line.unwrap().contains(announcement)),
        "the daemon never said `{announcement}`"
    );
}

#[test]
fn the_end_of_its_starter_is_the_end_of_the_cloud() {
    let directory = tempfile::tempdir().unwrap();
    let mut daemon = daemon_with(directory.path(), "--until-stdin-closes");
    wait_for(&mut daemon, "ready");
    let ended = processes(directory.path());
    drop(daemon.stdin.take());
    assert!(daemon.wait().unwrap().success());
    assert!(ended.iter().all(|process| !process.is_alive()));
    assert_only_logs_are_left(directory.path());
}

#[test]
fn a_start_that_is_interrupted_cleans_up() {
    let directory = tempfile::tempdir().unwrap();
    let mut daemon = daemon_with(directory.path(), "--until-detached");
    wait_for(&mut daemon, "starting the databases");
    drop(daemon.stdin.take());
    assert!(daemon.wait().unwrap().success());
    assert_only_logs_are_left(directory.path());

    let mut daemon = daemon_with(directory.path(), "--until-detached");
    wait_for(&mut daemon, "ready");
    daemon.stdin.take().unwrap().write_all(b"detach\n").unwrap();
    let (status, _, said) = understudy(directory.path(), &["status"]);
    assert!(status, "{said}");
    assert!(understudy(directory.path(), &["stop"]).0);
    assert!(daemon.wait().unwrap().success());
}

#[test]
fn a_cloud_that_cannot_start_says_why() {
    let directory = tempfile::tempdir().unwrap();
    let output = Command::new(PROGRAM)
        .args(["local", "start", "--dir"])
        .arg(directory.path().join("cloud"))
        .env("XDG_CACHE_HOME", open_directory(&directory))
        .env("UNDERSTUDY_PYTHON", "no-such-python")
        .output()
        .unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(!output.status.success());
    assert!(
        said.contains("`no-such-python` was not found") && said.contains("UNDERSTUDY_PYTHON"),
        "{said}"
    );
    assert_only_logs_are_left(&directory.path().join("cloud"));
}

/// An empty cache that root's database user could reach too.
fn open_directory(directory: &tempfile::TempDir) -> PathBuf {
    let open = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    fs::set_permissions(directory.path(), open).unwrap();
    directory.path().join("cache")
}

#[tokio::test]
async fn the_standby_follows_through_a_link_that_can_be_held_and_cut() {
    let directory = tempfile::tempdir().unwrap();
    let cloud = attached(directory.path()).await;
    let lag = async || {
        let status = cloud.status().await.unwrap();
        let roles: BTreeMap<Region, String> = status
            .databases
            .iter()
            .map(|(region, database)| (*region, database.role.clone()))
            .collect();
        assert_eq!(roles[&Region::UsEast1], "writer");
        status.databases[&Region::UsEast1].standby_lag_bytes
    };
    let until = async |wanted: Option<i64>| {
        let deadline = Instant::now() + PATIENCE;
        while lag().await != wanted {
            assert!(
                Instant::now() < deadline,
                "the lag is {:?}, not {wanted:?}",
                lag().await
            );
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    until(Some(0)).await;
    cloud.outage(Region::UsEast2, false).await.unwrap();
    until(None).await;
    cloud.heal(Region::UsEast2).await.unwrap();
    until(Some(0)).await;
    cloud.stop().await;
}
