//! What ends a local cloud whose daemon cannot: it was killed, or it hangs.
//!
//! The guardian is a process that does nothing but hold the read end of a pipe from the daemon. When the pipe ends without
//! a farewell, the daemon is dead, and the guardian ends what it had recorded.

use std::{
    fs, io,
    io::{Read, Write},
    process::Stdio,
    thread,
    time::{Duration, Instant},
};

use nix::sys::signal::Signal;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    process::{Child, Command},
    time::timeout,
};

use super::{
    process::{ProcessId, RunRecord, end_trees},
    state::{Layout, remove},
};

/// What the daemon writes when it has ended everything itself.
const FAREWELL: u8 = b'q';
/// What the guardian writes when it watches.
const WATCHING: u8 = b'w';
/// How long databases may take to end by themselves.
const QUIT_PATIENCE: Duration = Duration::from_secs(3);
/// How long processes may take to end by SIGKILL.
const KILL_PATIENCE: Duration = Duration::from_secs(5);
/// How long a guardian may take to watch, and to leave.
const GUARDIAN_PATIENCE: Duration = Duration::from_secs(10);
/// How often removing files is tried while processes that write them are still ending.
const REMOVE_ATTEMPTS: u32 = 50;
const POLL: Duration = Duration::from_millis(10);

/// The guardian could not be started.
#[derive(Debug, thiserror::Error)]
#[error("the guardian process did not start")]
pub struct GuardianError(#[source] io::Error);

/// The daemon's hand on its guardian.
#[derive(Debug)]
pub struct Guardian {
    child: Child,
}

impl Guardian {
    /// Starts the guardian, which is this program again, and returns when it watches.
    pub async fn start(layout: &Layout) -> Result<Self, GuardianError> {
        let work = async {
            let mut child = Command::new(std::env::current_exe()?)
                .args(["local", "guardian", "--dir"])
                .arg(&layout.directory)
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .stderr(Stdio::inherit())
                .process_group(0)
                .spawn()?;
            let mut stdout = child.stdout.take().ok_or_else(|| io::Error::other("no pipe"))?;
            let mut said = [0];
            timeout(GUARDIAN_PATIENCE, stdout.read_exact(&mut said))
                .await
                .map_err(io::Error::other)??;
            Ok(Self { child })
        };
        work.await.map_err(GuardianError)
    }

    /// The guardian's process id.
    pub fn pid(&self) -> Option<u32> {
        self.child.id()
    }

    /// Lets the guardian go, because nothing is left to guard, and waits until it has gone.
    pub async fn dismiss(mut self) {
        if let Some(mut stdin) = self.child.stdin.take() {
            let _ = stdin.write_all(&[FAREWELL]).await;
        }
        let _ = timeout(GUARDIAN_PATIENCE, self.child.wait()).await;
    }
}

/// The guardian's whole life.
pub fn watch(layout: &Layout) -> io::Result<()> {
    let lock = fs::File::create(layout.guardian_lock())?;
    lock.lock()?;
    io::stdout().write_all(&[WATCHING])?;
    io::stdout().flush()?;
    let mut said = Vec::new();
    io::stdin().read_to_end(&mut said)?;
    if said.contains(&FAREWELL) {
        return Ok(());
    }
    end_all(layout)
}

/// Ends everything that the cloud in this directory has recorded and removes its files, but the logs. Done twice equals
/// once. The caller itself is spared, so that the daemon can call it too.
pub fn end_all(layout: &Layout) -> io::Result<()> {
    let record = RunRecord::read(&layout.record())?;
    let own = ProcessId::own();
    let databases: Vec<&ProcessId> = record
        .processes
        .iter()
        .filter_map(|(name, process)| name.starts_with("postgres-").then_some(process))
        .filter(|process| process.signal(Signal::SIGQUIT))
        .collect();
    let deadline = Instant::now() + QUIT_PATIENCE;
    while databases.iter().any(|process| process.is_alive()) && Instant::now() < deadline {
        thread::sleep(POLL);
    }
    let daemon = record.daemon.filter(|daemon| *daemon != own);
    let roots: Vec<ProcessId> = daemon.into_iter().chain(record.processes.into_values()).collect();
    let left = end_trees(&roots, KILL_PATIENCE);
    if let Some(process) = left.first() {
        return Err(io::Error::other(format!("process {} does not end", process.pid)));
    }
    for directory in &record.directories {
        persist(|| remove(directory))?;
    }
    persist(|| layout.clear())
}

/// Tries again while the last writers of the files are on their way out.
fn persist(mut work: impl FnMut() -> io::Result<()>) -> io::Result<()> {
    let mut attempt = 1;
    loop {
        match work() {
            Err(_) if attempt < REMOVE_ATTEMPTS => attempt += 1,
            outcome => return outcome,
        }
        thread::sleep(POLL);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::local::process::Runtime;
    use std::os::unix::process::CommandExt;

    #[test]
    fn ending_all_ends_what_is_recorded_and_removes_its_files() {
        let directory = tempfile::tempdir().unwrap();
        let outside = tempfile::tempdir().unwrap();
        let layout = Layout::new(directory.path()).unwrap();
        let runtime = Runtime::create(layout.record()).unwrap();
        let mut child = std::process::Command::new("sh")
            .args(["-c", "sleep 600 & wait"])
            .process_group(0)
            .spawn()
            .unwrap();
        runtime.started("some process", child.id()).unwrap();
        runtime.directory(outside.path()).unwrap();
        end_all(&layout).unwrap();
        end_all(&layout).unwrap();
        assert!(!child.wait().unwrap().success());
        assert!(!outside.path().exists());
        assert!(!layout.record().exists());
    }
}
