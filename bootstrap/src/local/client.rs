//! How a program starts, finds and ends a local cloud.

use std::{
    fmt, fs, io,
    ops::Deref,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader},
    process::{Child, ChildStdin, Command},
    time::{Instant, sleep, timeout},
};

use super::{
    Cloud, guardian,
    process::RunRecord,
    state::Layout,
    supervisor::{Announcement, DETACH, TIME_SCALE},
};

/// Where a local cloud lives unless somebody says otherwise.
pub const DIRECTORY: &str = ".understudy";
/// How long a daemon may take to end in good order before it is killed.
const STOP_PATIENCE: Duration = Duration::from_secs(15);
/// How long whoever starts a cloud elsewhere may take; the first time it installs Python packages.
const ELSEWHERE_PATIENCE: Duration = Duration::from_secs(600);
const POLL: Duration = Duration::from_millis(20);

/// Shows a person what is being done.
type Progress = Box<dyn Fn(&str) + Send + Sync>;

/// How to start a local cloud.
pub struct StartOptions {
    /// The cloud directory.
    pub directory: PathBuf,
    /// The `understudy` program, which is the daemon too.
    pub program: PathBuf,
    /// How long a second of Route 53 takes.
    pub time_scale: f64,
    /// Functions and workflows may do only what the policies of their roles allow.
    pub enforce_policies: bool,
    /// Hears what is being done.
    pub progress: Progress,
}

impl StartOptions {
    /// A cloud in `directory`, run by this program.
    pub fn new(directory: impl Into<PathBuf>) -> Self {
        Self {
            directory: directory.into(),
            program: std::env::current_exe().unwrap_or_else(|_| "understudy".into()),
            time_scale: TIME_SCALE,
            enforce_policies: false,
            progress: Box::new(|_| {}),
        }
    }

    /// Run by another program than this one: for tests, which are not `understudy`.
    #[must_use]
    pub fn program(mut self, program: impl Into<PathBuf>) -> Self {
        self.program = program.into();
        self
    }

    /// Functions and workflows may do only what the policies of their roles allow.
    #[must_use]
    pub fn enforce_policies(mut self, enforce: bool) -> Self {
        self.enforce_policies = enforce;
        self
    }

    /// Tells `progress` what is being done.
    #[must_use]
    pub fn progress(mut self, progress: impl Fn(&str) + Send + Sync + 'static) -> Self {
        self.progress = Box::new(progress);
        self
    }
}

impl fmt::Debug for StartOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StartOptions")
            .field("directory", &self.directory)
            .field("program", &self.program)
            .field("time_scale", &self.time_scale)
            .field("enforce_policies", &self.enforce_policies)
            .finish_non_exhaustive()
    }
}

/// A local cloud could not be started, found or ended.
#[derive(Debug, thiserror::Error)]
pub enum LocalError {
    /// There is none.
    #[error("no local cloud runs in `{0}`")]
    NotRunning(PathBuf),
    /// There is one already, and the caller wants one of its own.
    #[error("a local cloud runs in `{0}` already")]
    Taken(PathBuf),
    /// There is one already, and it does not enforce policies as the caller wants.
    #[error("a local cloud runs in `{0}` already, and it does not enforce policies")]
    Lenient(PathBuf),
    /// A file could not be handled.
    #[error("cannot use `{path}`")]
    File {
        /// Which file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The daemon could not be run.
    #[error("cannot run `{program}`")]
    Spawn {
        /// Which program.
        program: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The daemon says why it does not start.
    #[error("the local cloud did not start: {0}")]
    Failed(String),
    /// The daemon ended without a word.
    #[error("the local cloud did not start; see `{0}`")]
    Silent(PathBuf),
    /// Whoever starts a cloud in the same directory does not get to an end.
    #[error("another process is starting a local cloud in `{0}` and does not finish")]
    Elsewhere(PathBuf),
}

fn file(path: &Path) -> impl FnOnce(io::Error) -> LocalError + use<> {
    let path = path.to_owned();
    move |source| LocalError::File { path, source }
}

/// A cloud that ends with this value, and with this process however it ends.
#[derive(Debug)]
pub struct AttachedCloud {
    cloud: Cloud,
    daemon: Child,
    /// Its end is the daemon's end.
    stdin: Option<ChildStdin>,
}

impl AttachedCloud {
    /// Ends the cloud and waits until all of it is gone.
    pub async fn stop(mut self) {
        drop(self.stdin.take());
        let _ = timeout(STOP_PATIENCE, self.daemon.wait()).await;
    }
}

impl Deref for AttachedCloud {
    type Target = Cloud;

    fn deref(&self) -> &Cloud {
        &self.cloud
    }
}

/// Starts a cloud that lives on by itself, or returns the one that runs in the directory already.
///
/// Dropping the future ends what was started.
pub async fn start(options: StartOptions) -> Result<Cloud, LocalError> {
    let layout = Layout::new(&options.directory).map_err(file(&options.directory))?;
    if let Some(cloud) = find(&layout).await? {
        if options.enforce_policies && cloud.authorization_log.is_none() {
            return Err(LocalError::Lenient(layout.directory));
        }
        return Ok(cloud);
    }
    let (cloud, _daemon, mut stdin) = launch(&options, &layout, "--until-detached").await?;
    stdin.write_all(DETACH).await.map_err(file(&layout.directory))?;
    Ok(cloud)
}

/// Starts a cloud that ends with the returned value or with this process, even if this process is killed.
pub async fn start_attached(options: StartOptions) -> Result<AttachedCloud, LocalError> {
    let layout = Layout::new(&options.directory).map_err(file(&options.directory))?;
    if is_locked(&layout.daemon_lock()).map_err(file(&layout.directory))? {
        return Err(LocalError::Taken(layout.directory));
    }
    let (cloud, daemon, stdin) = launch(&options, &layout, "--until-stdin-closes").await?;
    Ok(AttachedCloud {
        cloud,
        daemon,
        stdin: Some(stdin),
    })
}

/// The cloud that runs in the directory.
pub async fn attach(directory: &Path) -> Result<Cloud, LocalError> {
    let layout = Layout::new(directory).map_err(file(directory))?;
    if is_locked(&layout.daemon_lock()).map_err(file(directory))?
        && let Some(cloud) = Cloud::read(&layout).map_err(file(&layout.cloud()))?
    {
        return Ok(cloud);
    }
    Err(LocalError::NotRunning(directory.to_owned()))
}

/// Ends the cloud in the directory, whatever became of its daemon, and waits until nothing of it is left. Says whether
/// there was anything to end.
pub async fn stop(directory: &Path) -> Result<bool, LocalError> {
    let layout = Layout::new(directory).map_err(file(directory))?;
    if !layout.directory.is_dir() {
        return Ok(false);
    }
    let daemon = is_locked(&layout.daemon_lock()).map_err(file(directory))?;
    let guarded = is_locked(&layout.guardian_lock()).map_err(file(directory))?;
    let recorded = layout.record().exists();
    if daemon {
        match Cloud::read(&layout) {
            Ok(Some(cloud)) if cloud.request_stop().await.is_ok() => {}
            // It is starting, or hangs.
            _ => {
                let record = RunRecord::read(&layout.record()).unwrap_or_default();
                record
                    .daemon
                    .map(|daemon| daemon.signal(nix::sys::signal::Signal::SIGTERM));
            }
        }
    }
    // Daemon and guardian gone means all is gone; when they do not go, or were both killed, it is done here.
    let deadline = Instant::now() + STOP_PATIENCE;
    while Instant::now() < deadline
        && (is_locked(&layout.daemon_lock()).map_err(file(directory))?
            || is_locked(&layout.guardian_lock()).map_err(file(directory))?)
    {
        sleep(POLL).await;
    }
    let end = layout.clone();
    tokio::task::spawn_blocking(move || guardian::end_all(&end))
        .await
        .map_err(io::Error::other)
        .flatten()
        .map_err(file(directory))?;
    Ok(daemon || guarded || recorded)
}

/// The cloud that runs in the directory, or is being started by somebody else.
async fn find(layout: &Layout) -> Result<Option<Cloud>, LocalError> {
    let deadline = Instant::now() + ELSEWHERE_PATIENCE;
    while is_locked(&layout.daemon_lock()).map_err(file(&layout.directory))? {
        if let Some(cloud) = Cloud::read(layout).map_err(file(&layout.cloud()))? {
            return Ok(Some(cloud));
        }
        if Instant::now() >= deadline {
            return Err(LocalError::Elsewhere(layout.directory.clone()));
        }
        sleep(POLL).await;
    }
    Ok(None)
}

/// Runs the daemon and returns when it is ready.
async fn launch(
    options: &StartOptions,
    layout: &Layout,
    lifetime: &str,
) -> Result<(Cloud, Child, ChildStdin), LocalError> {
    fs::create_dir_all(layout.logs()).map_err(file(&layout.logs()))?;
    let log = layout.log("daemon");
    let errors = fs::OpenOptions::new()
        .create(true)
        .append(true)
        .open(&log)
        .map_err(file(&log))?;
    let spawn = |source| LocalError::Spawn {
        program: options.program.clone(),
        source,
    };
    let mut daemon = Command::new(&options.program)
        .args([
            "local",
            "serve",
            lifetime,
            "--time-scale",
            &options.time_scale.to_string(),
            "--dir",
        ])
        .arg(&layout.directory)
        .args(options.enforce_policies.then_some("--enforce-policies"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(errors)
        // An interrupt at the terminal is for this process; the daemon learns of its end.
        .process_group(0)
        .spawn()
        .map_err(spawn)?;
    let stdin = daemon.stdin.take().expect("stdin is piped");
    let mut lines = BufReader::new(daemon.stdout.take().expect("stdout is piped")).lines();
    while let Ok(Some(line)) = lines.next_line().await {
        match serde_json::from_str(&line) {
            Ok(Announcement::Progress(text)) => (options.progress)(&text),
            Ok(Announcement::Ready) => {
                let cloud = Cloud::read(layout).map_err(file(&layout.cloud()))?;
                return cloud
                    .map(|cloud| (cloud, daemon, stdin))
                    .ok_or(LocalError::Silent(log));
            }
            Ok(Announcement::Failed(text)) => {
                let _ = timeout(STOP_PATIENCE, daemon.wait()).await;
                return Err(LocalError::Failed(text));
            }
            Err(_) => {}
        }
    }
    Err(LocalError::Silent(log))
}

/// Whether some process holds the lock. The file is not made by asking.
fn is_locked(path: &Path) -> io::Result<bool> {
    let file = match fs::File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(error),
    };
    match file.try_lock_shared() {
        Ok(()) => Ok(false),
        Err(fs::TryLockError::WouldBlock) => Ok(true),
        Err(fs::TryLockError::Error(error)) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[tokio::test]
    async fn where_no_cloud_runs_none_is_found_and_stopping_is_fine() {
        let directory = tempfile::tempdir().unwrap();
        let error = attach(directory.path()).await.unwrap_err();
        assert!(matches!(error, LocalError::NotRunning(_)));
        assert!(!stop(directory.path()).await.unwrap());
        assert!(!stop(&directory.path().join("absent")).await.unwrap());
        assert!(!directory.path().join("absent").exists());
    }

    #[test]
    fn a_lock_is_seen_while_it_is_held() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("lock");
        assert!(!is_locked(&path).unwrap());
        let held = fs::File::create(&path).unwrap();
        held.lock().unwrap();
        assert!(is_locked(&path).unwrap());
        drop(held);
        assert!(!is_locked(&path).unwrap());
    }
}
