//! One local cloud, the commands that are run on it, and what is looked at afterwards.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};
use std::sync::Arc;
use std::time::Duration;

use aws_credential_types::Credentials;
use bootstrap::local::edge::{Strike, StrikeReport, Struck};
use bootstrap::local::{self, AttachedCloud, StartOptions};
use continuity::names::Slot;
use infra::engine::{self, Inventory};
use infra::spec::Spec;
use serde_json::Value;
use tempfile::TempDir;
use tokio::process::Command;
use tokio::time::{Instant, sleep, timeout};

use super::points::Point;
use super::programs::Programs;

/// A command that takes longer hangs. Less than the lease of a change, so that one which waits for a dead holder fails here.
const PATIENCE: Duration = Duration::from_secs(150);
const _: () = assert!(PATIENCE.as_secs() < infra::change::LEASE.as_secs());
/// Between the end of a killed process and the edge's word of it.
const REPORT_PATIENCE: Duration = Duration::from_secs(10);
const SIGKILL: i32 = 9;
const POLL: Duration = Duration::from_millis(10);
/// The account of the local cloud.
const ACCOUNT: &str = "000000000000";

/// How a command ended.
#[derive(Debug)]
pub struct Ended {
    /// Its process.
    pub pid: Option<u32>,
    /// Its status.
    pub status: ExitStatus,
    /// What it printed.
    pub result: Value,
    /// The end of what it said.
    pub said: String,
}

impl Ended {
    /// It was killed.
    pub fn is_killed(&self) -> bool {
        self.status.signal() == Some(SIGKILL)
    }

    /// What it printed.
    ///
    /// # Errors
    /// It failed.
    pub fn success(self) -> Result<Value, String> {
        if self.status.success() {
            Ok(self.result)
        } else {
            Err(format!("{}: {}", self.status, self.said))
        }
    }
}

/// A local cloud. It ends with this value.
pub struct Stage {
    programs: Arc<Programs>,
    folder: TempDir,
    cloud: AttachedCloud,
    aws: infra::cloud::Cloud,
    log: File,
}

impl Stage {
    /// Starts a cloud in a folder of its own.
    ///
    /// # Errors
    /// It does not start.
    pub async fn open(programs: &Arc<Programs>) -> Result<Stage, String> {
        let folder = tempfile::Builder::new().prefix("understudy-killed-").tempdir();
        let folder = folder.map_err(|error| error.to_string())?;
        let options = StartOptions::new(folder.path()).program(programs.understudy());
        let cloud = timeout(PATIENCE, local::start_attached(options))
            .await
            .map_err(|_| "the local cloud does not start".to_owned())?
            .map_err(|error| continuity::error::chain(&error))?;
        let log = OpenOptions::new()
            .create(true)
            .append(true)
            .open(folder.path().join("logs/commands.log"))
            .map_err(|error| error.to_string())?;
        continuity::aws::install_tls();
        let config = continuity::aws::loader(Some(Spec::default().regions.of(Slot::Primary)))
            .endpoint_url(cloud.endpoint_url.clone())
            .credentials_provider(Credentials::new("test", "test", None, None, "local cloud"))
            .load()
            .await;
        Ok(Stage {
            programs: Arc::clone(programs),
            folder,
            cloud,
            aws: infra::cloud::Cloud::new(config),
            log,
        })
    }

    /// Ends the cloud. Its logs go too.
    pub async fn close(self) {
        self.cloud.stop().await;
    }

    /// Ends the cloud and returns the folder of its logs, which stay.
    pub async fn close_and_keep(self) -> PathBuf {
        self.cloud.stop().await;
        self.folder.keep()
    }

    /// Ends the cloud and returns every call that passed its edge.
    ///
    /// # Errors
    /// Its log cannot be read.
    pub async fn close_and_read(self) -> Result<Vec<crate::EdgeCall>, String> {
        self.cloud.stop().await;
        let path = self.folder.path().join("logs/edge.log");
        tokio::task::spawn_blocking(move || crate::lines(&path))
            .await
            .map_err(|error| error.to_string())
    }

    /// Arms the edge for these points; none: nobody is struck any more.
    ///
    /// # Errors
    /// The cloud does not answer.
    pub async fn arm(&mut self, points: &[Point]) -> Result<(), String> {
        for point in points {
            self.note(&format!("--- {point}"));
        }
        let strikes: Vec<Strike> = points.iter().map(Point::strike).collect();
        let armed = self.cloud.strike(&strikes).await;
        armed.map_err(|error| error.to_string())
    }

    /// Who was struck down at each of the points that the edge is armed for; none where the call was not made, or its caller was
    /// dead by then.
    ///
    /// # Errors
    /// The cloud does not answer, or a blow does not fall.
    pub async fn struck(&self, points: &[Point]) -> Result<Vec<Option<Struck>>, String> {
        let deadline = Instant::now() + REPORT_PATIENCE;
        loop {
            let reports = self.cloud.struck().await.map_err(|error| error.to_string())?;
            let falls = |(point, report): (&Point, &StrikeReport)| {
                report.struck.is_none() && !report.in_vain && report.seen >= point.nth
            };
            if !points.iter().zip(&reports).any(falls) {
                return Ok(reports.into_iter().map(|report| report.struck).collect());
            }
            if Instant::now() > deadline {
                return Err("the chosen call was made, and the blow did not fall".to_owned());
            }
            sleep(POLL).await;
        }
    }

    /// `understudy up`.
    ///
    /// # Errors
    /// It cannot be run, or does not end.
    pub async fn up(&mut self) -> Result<Ended, String> {
        let packages = self.programs.packages();
        let packages = packages.to_string_lossy();
        self.run(&["up", "--packages", &packages]).await
    }

    /// `understudy down`.
    ///
    /// # Errors
    /// It cannot be run, or does not end.
    pub async fn down(&mut self) -> Result<Ended, String> {
        self.run(&["down", "--yes"]).await
    }

    /// `understudy status`.
    ///
    /// # Errors
    /// It cannot be run, or does not end.
    pub async fn status(&mut self) -> Result<Ended, String> {
        self.run(&["status"]).await
    }

    /// What exists, by every kind and by tag.
    pub async fn inventory(&self) -> Inventory {
        let spec = Spec::default();
        let extent = engine::Extent::of(&spec, ACCOUNT);
        engine::inventory(&extent, &self.aws, &engine::Options::default()).await
    }

    async fn run(&mut self, arguments: &[&str]) -> Result<Ended, String> {
        let name = arguments[0].to_owned();
        let started = Instant::now();
        let child = Command::new(self.programs.understudy())
            .args(arguments)
            .args(["--output", "json", "--local", "--dir"])
            .arg(self.folder.path())
            .current_dir(self.folder.path())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .map_err(|error| format!("`{name}` cannot be run: {error}"))?;
        let pid = child.id();
        let output = timeout(PATIENCE, child.wait_with_output()).await;
        let Ok(output) = output else {
            self.note(&format!("`{name}` does not end"));
            return Err(format!("`{name}` does not end within {} s", PATIENCE.as_secs()));
        };
        let output = output.map_err(|error| format!("`{name}`: {error}"))?;
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        let printed = String::from_utf8_lossy(&output.stdout);
        self.note(&format!(
            "{name}: {} after {:.1} s\n{said}{}",
            output.status,
            started.elapsed().as_secs_f64(),
            // A status is long, and is looked at where it fails.
            if output.status.success() && name == "status" {
                ""
            } else {
                &printed
            },
        ));
        Ok(Ended {
            pid,
            status: output.status,
            result: serde_json::from_str(&printed).unwrap_or(Value::Null),
            said: last_lines(&said, 4),
        })
    }

    /// Writes into the log of commands.
    pub fn note(&mut self, text: &str) {
        // A log that cannot be written is no reason to stop.
        let _ = writeln!(self.log, "{} {text}", continuity::clock::now_ms());
    }
}

fn last_lines(text: &str, count: usize) -> String {
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(count)..].join("\n")
}
