//! The control planes: ministack, run by `launcher.py` in the Python environment.

use std::{
    collections::BTreeMap,
    fs, io,
    net::{Ipv4Addr, SocketAddr},
    path::PathBuf,
    process::Stdio,
    sync::Arc,
    time::Duration,
};

use nix::sys::signal::Signal;
use serde::Deserialize;
use serde_json::json;
use tokio::{
    io::{AsyncBufReadExt, BufReader, Lines},
    process::{Child, ChildStdout, Command},
    sync::watch,
    time::timeout,
};

use super::{
    Region,
    process::{ProcessId, Runtime, end_trees},
    python::Environment,
};

/// The program that starts ministack.
const LAUNCHER: &str = include_str!("launcher.py");
/// What it imports from its own folder: the bridges inside ministack.
const GAPS: &str = include_str!("gaps.py");
/// The same for the enforcement of policies.
const POLICIES: &str = include_str!("policies.py");
/// The same for logs, metrics, alarms, certificates and custom domains.
const SIGNALS: &str = include_str!("signals.py");
/// The name of the process in the run record.
pub const NAME: &str = "ministack";
/// How long it may take to serve; Python compiles what it imports the first time.
const PATIENCE: Duration = Duration::from_secs(60);
/// How long it may take to end once its standard input has.
const STOP_PATIENCE: Duration = Duration::from_secs(2);

/// What the emulator needs.
#[derive(Debug)]
pub struct EmulatorConfig {
    /// The Python environment.
    pub environment: Environment,
    /// Where the launcher is written to.
    pub launcher: PathBuf,
    /// Temporary files, code of functions.
    pub temporary: PathBuf,
    /// Its log.
    pub log: PathBuf,
    /// What functions of each region call.
    pub endpoints: BTreeMap<Region, String>,
    /// The certificates that functions trust.
    pub certificates: PathBuf,
    /// Factor on Step Functions' waits and retry intervals.
    pub wait_scale: f64,
    /// Where the answers are written to whether a role may do something. Without it roles may do everything.
    pub authorization_log: Option<PathBuf>,
    /// Where the process is recorded.
    pub runtime: Arc<Runtime>,
}

/// The emulator did not start.
#[derive(Debug, thiserror::Error)]
pub enum EmulatorError {
    /// A file could not be handled.
    #[error("cannot use `{path}` for ministack")]
    File {
        /// Which file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Python could not be run.
    #[error("cannot run `{program}`")]
    Spawn {
        /// The interpreter.
        program: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// It ended or said nothing.
    #[error("ministack did not start; its log:\n{0}")]
    NotReady(String),
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Announcement {
    Port(u16),
    Ready(#[allow(dead_code)] bool),
}

/// A running emulator. It ends when this is dropped, with every function it runs.
#[derive(Debug)]
pub struct Emulator {
    address: SocketAddr,
    process: Option<ProcessId>,
    /// Keeps its standard input open; the task that holds the process sends how it ended.
    stdin: Option<tokio::process::ChildStdin>,
    ended: watch::Receiver<Option<String>>,
    announcements: Lines<BufReader<ChildStdout>>,
    log: PathBuf,
}

impl Emulator {
    /// Starts it and returns as soon as its address is known, which is before it answers.
    pub async fn start(config: EmulatorConfig) -> Result<Self, EmulatorError> {
        let file = |path: &PathBuf| {
            let path = path.clone();
            move |source| EmulatorError::File { path, source }
        };
        fs::write(&config.launcher, LAUNCHER).map_err(file(&config.launcher))?;
        for (name, text) in [
            ("gaps.py", GAPS),
            ("policies.py", POLICIES),
            ("signals.py", SIGNALS),
        ] {
            let path = config.launcher.with_file_name(name);
            fs::write(&path, text).map_err(file(&path))?;
        }
        fs::create_dir_all(&config.temporary).map_err(file(&config.temporary))?;
        let log = fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(&config.log)
            .map_err(file(&config.log))?;
        let argument = json!({
            "tmp": config.temporary,
            "endpoints": config.endpoints,
            "ca": config.certificates,
            "wait_scale": config.wait_scale,
            "authorizations": config.authorization_log,
        });
        let program = config.environment.python();
        let mut child = Command::new(&program)
            .arg(&config.launcher)
            .arg(argument.to_string())
            .env_clear()
            .env("PATH", "/usr/local/bin:/usr/bin:/bin")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(log)
            .process_group(0)
            .spawn()
            .map_err(|source| EmulatorError::Spawn { program, source })?;
        let process = child.id().and_then(ProcessId::of);
        if let Some(pid) = child.id() {
            config
                .runtime
                .started(NAME, pid)
                .map_err(file(&config.launcher))?;
        }
        let stdin = child.stdin.take();
        let stdout = child.stdout.take().expect("stdout is piped");
        let mut emulator = Self {
            address: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
            process,
            stdin,
            ended: watch_end(child),
            announcements: BufReader::new(stdout).lines(),
            log: config.log,
        };
        while emulator.address.port() == 0 {
            if let Announcement::Port(port) = emulator.next().await? {
                emulator.address.set_port(port);
            }
        }
        Ok(emulator)
    }

    /// Returns when it answers.
    pub async fn ready(&mut self) -> Result<(), EmulatorError> {
        while !matches!(self.next().await?, Announcement::Ready(_)) {}
        Ok(())
    }

    async fn next(&mut self) -> Result<Announcement, EmulatorError> {
        let line = timeout(PATIENCE, self.announcements.next_line()).await;
        let announcement = line
            .ok()
            .and_then(Result::ok)
            .flatten()
            .map(|line| serde_json::from_str(&line));
        match announcement {
            Some(Ok(announcement)) => Ok(announcement),
            _ => {
                let log = fs::read_to_string(&self.log).unwrap_or_default();
                let lines: Vec<&str> = log.lines().collect();
                let tail = lines[lines.len().saturating_sub(8)..].join("\n");
                Err(EmulatorError::NotReady(tail))
            }
        }
    }

    /// Where it answers.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// How it ended; `None` while it runs.
    pub fn ended(&self) -> watch::Receiver<Option<String>> {
        self.ended.clone()
    }

    /// Ends it and every function it runs.
    pub async fn stop(mut self) {
        drop(self.stdin.take());
        if timeout(STOP_PATIENCE, self.ended.wait_for(Option::is_some))
            .await
            .is_err()
            && let Some(process) = self.process.take()
        {
            process.signal(Signal::SIGKILL);
            let ended = tokio::task::spawn_blocking(move || end_trees(&[process], STOP_PATIENCE));
            let _ = ended.await;
        }
    }
}

/// Collects the process when it ends, and says how.
fn watch_end(mut child: Child) -> watch::Receiver<Option<String>> {
    let (sender, receiver) = watch::channel(None);
    tokio::spawn(async move {
        let how = match child.wait().await {
            Ok(status) => status.to_string(),
            Err(error) => error.to_string(),
        };
        sender.send_replace(Some(how));
    });
    receiver
}
