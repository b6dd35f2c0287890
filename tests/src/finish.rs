//! Running a program with a deadline. Whatever the program does, the caller goes on: the program is ended, and what it had said
//! until then is part of the error.

use std::fmt;
use std::io::Read;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// How often the program is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// How long its last output may take to arrive once it has ended. What it started may hold the pipe open for ever.
const LAST_WORDS: Duration = Duration::from_secs(5);
/// Lines of each log that an error shows.
const LOG_LINES: usize = 15;

/// A program that did not end in time, and was ended.
#[derive(Debug)]
pub struct Unfinished {
    command: String,
    limit: Duration,
    said: String,
    logs: String,
}

impl Unfinished {
    /// With the end of each log of the cloud in `folder`.
    #[must_use]
    pub fn with_logs(mut self, folder: Option<&Path>) -> Self {
        let entries = folder.and_then(|folder| std::fs::read_dir(folder.join("logs")).ok());
        let mut paths: Vec<_> = entries
            .into_iter()
            .flatten()
            .flatten()
            .map(|entry| entry.path())
            .collect();
        paths.sort();
        for path in paths {
            let bytes = std::fs::read(&path).unwrap_or_default();
            let text = String::from_utf8_lossy(&bytes);
            let lines: Vec<&str> = text.lines().collect();
            let end = lines[lines.len().saturating_sub(LOG_LINES)..].join("\n");
            self.logs
                .push_str(&format!("\n--- the end of {}\n{end}", path.display()));
        }
        self
    }
}

impl fmt::Display for Unfinished {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (command, seconds) = (&self.command, self.limit.as_secs());
        write!(
            f,
            "{command} did not end in {seconds} s, and was ended. It had said:\n{}{}",
            self.said, self.logs
        )
    }
}

/// Runs a program to its end, without standard input.
///
/// # Errors
/// It did not end within `limit`; it is ended then, and collected.
pub fn finish(mut command: Command, limit: Duration) -> Result<Output, Unfinished> {
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("{command:?} cannot be run: {error}"));
    let stdout = Heard::listen(child.stdout.take().expect("it is piped"));
    let stderr = Heard::listen(child.stderr.take().expect("it is piped"));
    match wait(&mut child, limit) {
        Some(status) => Ok(Output {
            status,
            stdout: stdout.all(),
            stderr: stderr.all(),
        }),
        None => {
            // It may end at this very moment; either way it is gone afterwards.
            let _ = child.kill();
            let _ = child.wait();
            Err(Unfinished {
                command: format!("{command:?}"),
                limit,
                said: String::from_utf8_lossy(&stderr.all()).into_owned(),
                logs: String::new(),
            })
        }
    }
}

fn wait(child: &mut Child, limit: Duration) -> Option<ExitStatus> {
    let started = Instant::now();
    loop {
        if let Some(status) = child.try_wait().expect("the process is ours") {
            return Some(status);
        }
        if started.elapsed() > limit {
            return None;
        }
        std::thread::sleep(LOOK_EVERY);
    }
}

/// What was read from a pipe so far.
struct Heard {
    bytes: Arc<Mutex<Vec<u8>>>,
    listener: JoinHandle<()>,
}

fn lock(bytes: &Mutex<Vec<u8>>) -> MutexGuard<'_, Vec<u8>> {
    bytes.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Heard {
    fn listen(mut pipe: impl Read + Send + 'static) -> Heard {
        let bytes = Arc::new(Mutex::new(Vec::new()));
        let heard = Arc::clone(&bytes);
        let listener = std::thread::spawn(move || {
            let mut part = [0; 8192];
            while let Ok(read @ 1..) = pipe.read(&mut part) {
                lock(&heard).extend_from_slice(&part[..read]);
            }
        });
        Heard { bytes, listener }
    }

    /// All of it, or what has arrived when the pipe stays open.
    fn all(self) -> Vec<u8> {
        let started = Instant::now();
        while !self.listener.is_finished() && started.elapsed() < LAST_WORDS {
            std::thread::sleep(LOOK_EVERY);
        }
        std::mem::take(&mut *lock(&self.bytes))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        command
    }

    #[test]
    fn a_program_that_ends_is_heard_to_its_end() {
        let script = "echo data; echo told >&2; exit 3";
        let output = finish(shell(script), Duration::from_secs(30)).expect("it ends");
        assert_eq!(
            (
                output.stdout.as_slice(),
                output.stderr.as_slice(),
                output.status.code()
            ),
            (b"data\n".as_slice(), b"told\n".as_slice(), Some(3))
        );
    }

    #[test]
    fn a_program_that_hangs_is_ended_and_what_it_said_is_told() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        std::fs::create_dir(folder.path().join("logs")).expect("it is empty");
        std::fs::write(folder.path().join("logs/daemon.log"), "first\nlast\n").expect("it is ours");
        let limit = Duration::from_secs(1);
        let unfinished = finish(shell("echo $$ begun >&2; exec sleep 600"), limit).expect_err("it hangs");
        let text = unfinished.with_logs(Some(folder.path())).to_string();
        assert!(
            text.contains("begun") && text.contains("did not end in 1 s") && text.contains("last"),
            "{text}"
        );
        let pid = text
            .lines()
            .find_map(|line| line.strip_suffix(" begun"))
            .expect("its pid");
        assert!(!Path::new("/proc").join(pid).exists(), "{pid} lives");
    }

    #[test]
    fn a_pipe_that_somebody_holds_open_does_not_hold_the_caller() {
        let started = Instant::now();
        let output =
            finish(shell("echo data; sleep 60 & exec true"), Duration::from_secs(30)).expect("it ends");
        assert_eq!(output.stdout, b"data\n");
        assert!(started.elapsed() < Duration::from_secs(30));
    }
}
