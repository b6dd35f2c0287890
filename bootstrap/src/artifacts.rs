//! The packages of the three functions: those that `understudy build` made for Lambda, or binaries of this machine, found
//! beside this program or built from the source tree that it was built from.

pub mod binary;
pub mod build;
pub mod manifest;

use std::io::{self, Cursor, Write};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::SystemTime;

use infra::spec::{Architecture, Spec};
use sha2::{Digest, Sha256};
use zip::write::SimpleFileOptions;

/// The functions that the stack runs.
pub const FUNCTIONS: [&str; 3] = ["payment-processor", "health-probe", "failover-coordinator"];

/// One function's Lambda package.
#[derive(Debug, Clone)]
pub struct Artifact {
    /// The function.
    pub function: &'static str,
    /// SHA-256 of the package, hex: its identity and part of its key in the artifact bucket.
    pub sha256: String,
    /// The package: a zip archive with the binary as `bootstrap`.
    pub zip: Vec<u8>,
}

/// The packages of all functions.
#[derive(Debug, Clone)]
pub struct Packages {
    /// What they were built for.
    pub architecture: Architecture,
    /// One per function.
    pub artifacts: Vec<Artifact>,
}

impl Packages {
    /// Puts into a configuration what the functions are made from.
    pub fn fill_in(&self, spec: &mut Spec) {
        spec.architecture = self.architecture;
        for package in &self.artifacts {
            spec.artifacts
                .insert(package.function.to_owned(), package.sha256.clone());
        }
    }
}

/// The processor of this machine.
pub const HOST: Architecture = if cfg!(target_arch = "aarch64") {
    Architecture::Arm64
} else {
    Architecture::X86_64
};

/// Which packages to take.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Choice {
    /// Binaries of this machine.
    #[default]
    Host,
    /// The packages of this folder.
    Folder(PathBuf),
    /// Those that `understudy build` made, where there are any; otherwise binaries of this machine, if Lambda can run them.
    Lambda,
}

/// Why there are no packages.
#[derive(Debug, thiserror::Error)]
pub enum ArtifactError {
    /// Neither beside this program nor in a source tree.
    #[error("no `{function}` beside `{beside}`, and no source tree to build it from")]
    Missing {
        /// The function.
        function: &'static str,
        /// Where it was looked for.
        beside: PathBuf,
    },
    /// A folder without a manifest.
    #[error("there are no packages in `{folder}`")]
    NoPackages {
        /// The folder.
        folder: PathBuf,
    },
    /// A folder without one of the functions.
    #[error("there is no package of `{function}` in `{folder}`")]
    Incomplete {
        /// The folder.
        folder: PathBuf,
        /// The function.
        function: &'static str,
    },
    /// A folder with packages of both architectures.
    #[error("the packages in `{folder}` were built for different processors")]
    Mixed {
        /// The folder.
        folder: PathBuf,
    },
    /// An archive that is not the one of the manifest.
    #[error("`{path}` is not the package that was built")]
    Changed {
        /// The archive.
        path: PathBuf,
    },
    /// A binary that Lambda cannot run.
    #[error(
        "Lambda cannot run `{path}`: it needs version {needed} of the C library, and provided.al2023 has {has}"
    )]
    TooNew {
        /// The binary.
        path: PathBuf,
        /// What it needs.
        needed: binary::Glibc,
        /// What Lambda has.
        has: binary::Glibc,
    },
    /// Something that is no binary.
    #[error("`{path}` cannot be packed")]
    Binary {
        /// The file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: binary::BinaryError,
    },
    /// Cargo failed.
    #[error("`cargo build` of the functions failed:\n{output}")]
    Build {
        /// The end of what cargo said.
        output: String,
    },
    /// A file could not be read, run or packed.
    #[error("could not {action} `{path}`")]
    Io {
        /// What was tried.
        action: &'static str,
        /// With which file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
}

impl ArtifactError {
    /// What to do about it.
    pub fn remedy(&self) -> Option<&'static str> {
        match self {
            ArtifactError::NoPackages { .. }
            | ArtifactError::Incomplete { .. }
            | ArtifactError::Mixed { .. }
            | ArtifactError::Changed { .. } => Some("make them with `understudy build`"),
            ArtifactError::TooNew { .. } => {
                Some("make packages for Lambda with `understudy build`, then run this again")
            }
            ArtifactError::Missing { .. } => {
                Some("name a folder of packages with `--packages DIR`, or run this from a source tree")
            }
            ArtifactError::Build { .. } | ArtifactError::Binary { .. } | ArtifactError::Io { .. } => None,
        }
    }
}

/// Where this program keeps or finds what it makes.
struct Here {
    tree: Option<SourceTree>,
    beside: PathBuf,
}

impl Here {
    fn find() -> Result<Here, ArtifactError> {
        let program = std::env::current_exe().map_err(|source| ArtifactError::Io {
            action: "find",
            path: "this program".into(),
            source,
        })?;
        Ok(Here {
            tree: source_tree(&program),
            beside: program.parent().unwrap_or(Path::new(".")).to_owned(),
        })
    }

    /// Where `understudy build` puts packages.
    fn packages(&self) -> PathBuf {
        match &self.tree {
            Some(tree) => tree.target.join("lambda"),
            None => self.beside.join("lambda"),
        }
    }
}

/// The folder in which `understudy build` puts packages, unless told another.
///
/// # Errors
/// This program cannot be found.
pub fn default_folder() -> Result<PathBuf, ArtifactError> {
    Ok(Here::find()?.packages())
}

/// Gets the packages that were chosen. Binaries of this machine are built first in a source tree, which takes no time when they
/// are up to date.
///
/// # Errors
/// See [`ArtifactError`].
pub async fn prepare(choice: &Choice, say: impl Fn(&str)) -> Result<Packages, ArtifactError> {
    let here = Here::find()?;
    let built = here.packages();
    match choice {
        Choice::Folder(folder) => in_background(folder.clone(), manifest::load).await,
        Choice::Lambda if built.join(manifest::FILE).is_file() => {
            say(&format!("taking the packages of `{}`", built.display()));
            if let (Some(tree), Some(made)) = (&here.tree, manifest::made(&built))
                && newest_source(&tree.root).is_some_and(|changed| changed > made)
            {
                say(
                    "the sources have changed since the packages were built: `understudy build` makes new ones",
                );
            }
            in_background(built, manifest::load).await
        }
        Choice::Lambda => host(here, true, say).await,
        Choice::Host => host(here, false, say).await,
    }
}

/// Binaries of this machine. `for_lambda`: refuse those that Lambda could not run.
async fn host(here: Here, for_lambda: bool, say: impl Fn(&str)) -> Result<Packages, ArtifactError> {
    let folder = match &here.tree {
        Some(tree) => {
            say("building the three functions; the first time takes a minute");
            build(tree).await?;
            tree.binaries.clone()
        }
        None => here.beside.clone(),
    };
    binaries(folder, for_lambda).await
}

/// Packs the binaries of this machine that lie in a folder. `for_lambda`: refuse those that Lambda could not run.
///
/// # Errors
/// See [`ArtifactError`].
pub async fn binaries(folder: PathBuf, for_lambda: bool) -> Result<Packages, ArtifactError> {
    in_background(folder, move |folder| {
        // Compressing and hashing keep a processor busy each.
        let artifacts: Result<Vec<Artifact>, ArtifactError> = std::thread::scope(|scope| {
            let packing = FUNCTIONS.map(|name| scope.spawn(move || pack(name, folder, for_lambda)));
            let packed = packing.into_iter().map(|thread| thread.join());
            packed
                .map(|artifact| artifact.unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
                .collect()
        });
        Ok(Packages {
            architecture: HOST,
            artifacts: artifacts?,
        })
    })
    .await
}

async fn in_background(
    folder: PathBuf,
    work: impl FnOnce(&Path) -> Result<Packages, ArtifactError> + Send + 'static,
) -> Result<Packages, ArtifactError> {
    let path = folder.clone();
    tokio::task::spawn_blocking(move || work(&path))
        .await
        .unwrap_or_else(|error| {
            Err(ArtifactError::Io {
                action: "pack",
                path: folder,
                source: io::Error::other(error),
            })
        })
}

/// When a source of the functions was last changed.
fn newest_source(root: &Path) -> Option<SystemTime> {
    fn visit(path: &Path, newest: &mut Option<SystemTime>) {
        let Ok(meta) = std::fs::metadata(path) else { return };
        if meta.is_dir() {
            for entry in std::fs::read_dir(path).into_iter().flatten().flatten() {
                visit(&entry.path(), newest);
            }
        } else {
            *newest = (*newest).max(meta.modified().ok());
        }
    }
    let mut newest = None;
    for part in ["functions", "infra", "Cargo.lock", "Cargo.toml"] {
        visit(&root.join(part), &mut newest);
    }
    newest
}

/// The workspace that a program was built in.
#[derive(Debug, PartialEq, Eq)]
struct SourceTree {
    root: PathBuf,
    target: PathBuf,
    binaries: PathBuf,
    profile: String,
}

/// A program at `{target}/{profile}/understudy` (or `deps/` below it) whose workspace is known and still there.
fn source_tree(program: &Path) -> Option<SourceTree> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent()?.to_owned();
    if !root.join("functions/payment-processor/Cargo.toml").is_file() {
        return None;
    }
    let mut binaries = program.parent()?;
    if binaries.file_name()? == "deps" {
        binaries = binaries.parent()?;
    }
    let target = binaries.parent()?;
    // Only cargo's own output folder: an installed program does not build.
    if !target.join("CACHEDIR.TAG").is_file() {
        return None;
    }
    let profile = match binaries.file_name()?.to_str()? {
        "debug" => "dev".to_owned(),
        other => other.to_owned(),
    };
    Some(SourceTree {
        root,
        target: target.to_owned(),
        binaries: binaries.to_owned(),
        profile,
    })
}

/// What `cargo run` tells a program about its own package. A build script that asks for one of these runs again in a cargo that
/// inherits them, and all that depends on its package is compiled again.
fn set_by_cargo(name: &std::ffi::OsStr) -> bool {
    let name = name.to_string_lossy();
    name.starts_with("CARGO_PKG_") || name.starts_with("CARGO_MANIFEST_")
}

async fn build(tree: &SourceTree) -> Result<(), ArtifactError> {
    // The same selection of packages as `cargo run`, so that features resolve alike and nothing is compiled twice.
    cargo_build(tree, &["--bins", "--profile", &tree.profile]).await
}

/// Builds targets of one package as they are released, and says in which folder they are.
///
/// # Errors
/// There is no source tree, or cargo failed.
pub async fn release(function: &'static str, targets: &[&str]) -> Result<PathBuf, ArtifactError> {
    let here = Here::find()?;
    let tree = here.tree.ok_or(ArtifactError::Missing {
        function,
        beside: here.beside,
    })?;
    let package = ["--profile", "release", "--package", function];
    cargo_build(&tree, &[&package, targets].concat()).await?;
    Ok(tree.target.join("release"))
}

async fn cargo_build(tree: &SourceTree, arguments: &[&str]) -> Result<(), ArtifactError> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let io_error = |source| ArtifactError::Io {
        action: "run",
        path: PathBuf::from(&cargo),
        source,
    };
    let mut command = tokio::process::Command::new(&cargo);
    for (name, _) in std::env::vars_os().filter(|(name, _)| set_by_cargo(name)) {
        command.env_remove(name);
    }
    let output = command
        .args(["build", "--quiet", "--locked"])
        .args(arguments)
        .arg("--target-dir")
        .arg(&tree.target)
        .current_dir(&tree.root)
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output()
        .await
        .map_err(io_error)?;
    if output.status.success() {
        return Ok(());
    }
    let text = String::from_utf8_lossy(&output.stderr);
    let lines: Vec<&str> = text.lines().collect();
    Err(ArtifactError::Build {
        output: lines[lines.len().saturating_sub(30)..].join("\n"),
    })
}

/// Packs one binary. The archive depends on nothing but the binary, so the same binary has the same identity.
fn pack(function: &'static str, folder: &Path, for_lambda: bool) -> Result<Artifact, ArtifactError> {
    let path = folder.join(function);
    let mut binary = match std::fs::read(&path) {
        Ok(binary) => binary,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Err(ArtifactError::Missing {
                function,
                beside: folder.to_owned(),
            });
        }
        Err(source) => {
            return Err(ArtifactError::Io {
                action: "read",
                path,
                source,
            });
        }
    };
    if for_lambda {
        runs_on_lambda(&path, &binary)?;
    }
    binary::strip(&mut binary);
    let zip = archive(&binary, FAST).map_err(|source| ArtifactError::Io {
        action: "pack",
        path,
        source,
    })?;
    Ok(Artifact {
        function,
        sha256: hex::encode(Sha256::digest(&zip)),
        zip,
    })
}

/// The package of a binary, as small as one for Lambda.
///
/// # Errors
/// It cannot be read or packed.
pub fn package(binary: &Path) -> Result<Vec<u8>, ArtifactError> {
    let io_error = |action| {
        let path = binary.to_owned();
        move |source| ArtifactError::Io { action, path, source }
    };
    let bytes = std::fs::read(binary).map_err(io_error("read"))?;
    archive(&bytes, SMALL).map_err(io_error("pack"))
}

/// What the binary needs, if Lambda has it.
fn runs_on_lambda(path: &Path, bytes: &[u8]) -> Result<binary::Needs, ArtifactError> {
    let needs = binary::needs(bytes).map_err(|source| ArtifactError::Binary {
        path: path.to_owned(),
        source,
    })?;
    match needs.glibc {
        Some(needed) if needed > binary::LAMBDA_GLIBC => Err(ArtifactError::TooNew {
            path: path.to_owned(),
            needed,
            has: binary::LAMBDA_GLIBC,
        }),
        _ => Ok(needs),
    }
}

/// How hard a package of this machine is compressed: it travels a few meters.
const FAST: i64 = 1;
/// How hard a package for Lambda is compressed: a smaller one starts sooner. One above Deflate's own levels is Zopfli, which takes
/// seconds for three percent less.
const SMALL: i64 = 10;

fn archive(binary: &[u8], level: i64) -> io::Result<Vec<u8>> {
    let options = SimpleFileOptions::default()
        .compression_method(zip::CompressionMethod::Deflated)
        .compression_level(Some(level))
        .last_modified_time(zip::DateTime::default())
        .unix_permissions(0o755)
        .with_zopfli_buffer(None)
        .large_file(false);
    let mut writer = zip::ZipWriter::new(Cursor::new(Vec::with_capacity(binary.len() / 2)));
    writer
        .start_file("bootstrap", options)
        .map_err(io::Error::other)?;
    writer.write_all(binary)?;
    Ok(writer.finish().map_err(io::Error::other)?.into_inner())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_binary_has_the_same_package() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("health-probe"), b"binary").unwrap();
        let first = pack("health-probe", folder.path(), false).unwrap();
        let second = pack("health-probe", folder.path(), false).unwrap();
        assert_eq!(first.sha256, second.sha256);
        std::fs::write(folder.path().join("health-probe"), b"other").unwrap();
        assert_ne!(
            pack("health-probe", folder.path(), false).unwrap().sha256,
            first.sha256
        );
    }

    #[test]
    fn a_missing_binary_names_the_function_and_the_place() {
        let folder = tempfile::tempdir().unwrap();
        let error = pack("health-probe", folder.path(), false)
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("health-probe") && error.contains(folder.path().to_str().unwrap()),
            "{error}"
        );
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn a_binary_that_is_too_new_for_lambda_is_refused_with_the_remedy() {
        let program = std::env::current_exe().unwrap();
        let bytes = std::fs::read(&program).unwrap();
        let needed = binary::needs(&bytes).unwrap().glibc;
        match runs_on_lambda(&program, &bytes) {
            Ok(needs) => assert!(needs.glibc <= Some(binary::LAMBDA_GLIBC)),
            Err(error) => {
                assert!(needed > Some(binary::LAMBDA_GLIBC), "{error}");
                assert!(error.remedy().unwrap().contains("understudy build"));
            }
        }
    }

    #[test]
    fn a_configuration_gets_hashes_and_architecture_from_the_packages() {
        let packages = Packages {
            architecture: Architecture::Arm64,
            artifacts: vec![Artifact {
                function: "health-probe",
                sha256: "00".repeat(32),
                zip: Vec::new(),
            }],
        };
        let mut spec = Spec::default();
        packages.fill_in(&mut spec);
        assert_eq!(spec.architecture, Architecture::Arm64);
        assert_eq!(spec.artifacts["health-probe"], "00".repeat(32));
        assert!(spec.validate().is_ok());
    }

    #[test]
    fn an_installed_program_is_not_in_a_source_tree() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(source_tree(&folder.path().join("bin/understudy")), None);
    }
}
