//! The packages of the three functions: found beside this program, or built from the source tree that it was built from.

use std::io::{self, Cursor, Write};
use std::path::{Path, PathBuf};
use std::process::Stdio;

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

/// Finds the functions' binaries and packs them. In a source tree they are built first, which takes no time when they are
/// up to date.
///
/// # Errors
/// See [`ArtifactError`].
pub async fn prepare(say: impl Fn(&str)) -> Result<Vec<Artifact>, ArtifactError> {
    let program = std::env::current_exe().map_err(|source| ArtifactError::Io {
        action: "find",
        path: "this program".into(),
        source,
    })?;
    let folder = match source_tree(&program) {
        Some(tree) => {
            say("building the three functions; the first time takes a minute");
            build(&tree).await?;
            tree.binaries
        }
        None => program.parent().unwrap_or(Path::new(".")).to_owned(),
    };
    let folder_for_task = folder.clone();
    tokio::task::spawn_blocking(move || {
        FUNCTIONS
            .into_iter()
            .map(|name| pack(name, &folder_for_task))
            .collect()
    })
    .await
    .unwrap_or_else(|error| {
        Err(ArtifactError::Io {
            action: "pack",
            path: folder,
            source: io::Error::other(error),
        })
    })
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

async fn build(tree: &SourceTree) -> Result<(), ArtifactError> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let io_error = |source| ArtifactError::Io {
        action: "run",
        path: PathBuf::from(&cargo),
        source,
    };
    // The same selection of packages as `cargo run`, so that features resolve alike and nothing is compiled twice.
    let output = tokio::process::Command::new(&cargo)
        .args([
            "build",
            "--bins",
            "--quiet",
            "--locked",
            "--profile",
            &tree.profile,
        ])
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
fn pack(function: &'static str, folder: &Path) -> Result<Artifact, ArtifactError> {
    let path = folder.join(function);
    let binary = match std::fs::read(&path) {
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
    let zip = archive(&binary).map_err(|source| ArtifactError::Io {
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

fn archive(binary: &[u8]) -> io::Result<Vec<u8>> {
    let options = SimpleFileOptions::default()
        .compression_method(zip::CompressionMethod::Deflated)
        .compression_level(Some(1))
        .last_modified_time(zip::DateTime::default())
        .unix_permissions(0o755)
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
        let first = pack("health-probe", folder.path()).unwrap();
        let second = pack("health-probe", folder.path()).unwrap();
        assert_eq!(first.sha256, second.sha256);
        std::fs::write(folder.path().join("health-probe"), b"other").unwrap();
        assert_ne!(pack("health-probe", folder.path()).unwrap().sha256, first.sha256);
    }

    #[test]
    fn a_missing_binary_names_the_function_and_the_place() {
        let folder = tempfile::tempdir().unwrap();
        let error = pack("health-probe", folder.path()).unwrap_err().to_string();
        assert!(
            error.contains("health-probe") && error.contains(folder.path().to_str().unwrap()),
            "{error}"
        );
    }

    #[test]
    fn an_installed_program_is_not_in_a_source_tree() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(source_tree(&folder.path().join("bin/understudy")), None);
    }
}
