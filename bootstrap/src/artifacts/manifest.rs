//! The packages that `understudy build` made: a folder of archives, and `packages.json`, which says what they are.

use std::io;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use infra::spec::Architecture;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::{Artifact, ArtifactError, FUNCTIONS, Packages};

/// The file's name.
pub const FILE: &str = "packages.json";

/// What a folder of packages holds.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// One entry per function.
    pub packages: Vec<Package>,
}

/// One package.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Package {
    /// The function.
    pub function: String,
    /// The archive's name in the folder.
    pub file: String,
    /// SHA-256 of the archive, hex.
    pub sha256: String,
    /// What it was built for.
    pub architecture: Architecture,
    /// The version of Understudy that it was built from.
    pub version: String,
    /// Size of the archive.
    pub zipped_bytes: u64,
    /// Size of the binary in it.
    pub binary_bytes: u64,
    /// The version of the C library that it needs.
    pub glibc: Option<String>,
}

impl Manifest {
    /// The manifest of a folder; `None` when it has none.
    ///
    /// # Errors
    /// The file cannot be read, or is no manifest.
    pub fn read(folder: &Path) -> Result<Option<Manifest>, ArtifactError> {
        let path = folder.join(FILE);
        let failed = |source| ArtifactError::Io {
            action: "read",
            path: path.clone(),
            source,
        };
        let text = match std::fs::read(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(failed(error)),
        };
        serde_json::from_slice(&text)
            .map(Some)
            .map_err(|error| failed(error.into()))
    }

    /// Puts a package into it, instead of the function's old one. Packages of another architecture or version go: they could
    /// not be deployed together.
    pub fn put(&mut self, package: Package) {
        self.packages.retain(|old| {
            old.function != package.function
                && old.architecture == package.architecture
                && old.version == package.version
        });
        self.packages.push(package);
        self.packages.sort_by(|a, b| a.function.cmp(&b.function));
    }

    /// Writes it into its folder.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn write(&self, folder: &Path) -> Result<(), ArtifactError> {
        let path = folder.join(FILE);
        let mut text = serde_json::to_vec_pretty(self).unwrap_or_default();
        text.push(b'\n');
        std::fs::write(&path, text).map_err(|source| ArtifactError::Io {
            action: "write",
            path,
            source,
        })
    }
}

/// When a folder's packages were made; `None` when there are none.
pub fn made(folder: &Path) -> Option<SystemTime> {
    std::fs::metadata(folder.join(FILE)).ok()?.modified().ok()
}

/// Reads all packages of a folder and checks that they are what the manifest says.
///
/// # Errors
/// There is no manifest, a function is missing, or an archive is not the one that was built.
pub fn load(folder: &Path) -> Result<Packages, ArtifactError> {
    let manifest = Manifest::read(folder)?.ok_or_else(|| ArtifactError::NoPackages {
        folder: folder.to_owned(),
    })?;
    let mut artifacts = Vec::new();
    let mut architecture = None;
    for function in FUNCTIONS {
        let Some(package) = manifest
            .packages
            .iter()
            .find(|package| package.function == function)
        else {
            return Err(ArtifactError::Incomplete {
                folder: folder.to_owned(),
                function,
            });
        };
        if *architecture.get_or_insert(package.architecture) != package.architecture {
            return Err(ArtifactError::Mixed {
                folder: folder.to_owned(),
            });
        }
        artifacts.push(read_one(folder, function, package)?);
    }
    Ok(Packages {
        architecture: architecture.unwrap_or_default(),
        artifacts,
    })
}

fn read_one(folder: &Path, function: &'static str, package: &Package) -> Result<Artifact, ArtifactError> {
    // A manifest names files of its own folder only.
    let path: PathBuf = folder.join(Path::new(&package.file).file_name().unwrap_or_default());
    let zip = std::fs::read(&path).map_err(|source| ArtifactError::Io {
        action: "read",
        path: path.clone(),
        source,
    })?;
    let sha256 = hex::encode(Sha256::digest(&zip));
    if sha256 != package.sha256 {
        return Err(ArtifactError::Changed { path });
    }
    Ok(Artifact {
        function,
        sha256,
        zip,
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn package(function: &str, architecture: Architecture) -> Package {
        Package {
            function: function.into(),
            file: format!("{function}.zip"),
            sha256: hex::encode(Sha256::digest(b"zip")),
            architecture,
            version: "0.1.0".into(),
            zipped_bytes: 3,
            binary_bytes: 3,
            glibc: None,
        }
    }

    fn folder(functions: &[&str]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        let mut manifest = Manifest::default();
        for function in functions {
            std::fs::write(folder.path().join(format!("{function}.zip")), b"zip").unwrap();
            manifest.put(package(function, Architecture::Arm64));
        }
        manifest.write(folder.path()).unwrap();
        folder
    }

    #[test]
    fn what_was_built_is_loaded_with_its_architecture() {
        let folder = folder(&FUNCTIONS);
        let packages = load(folder.path()).unwrap();
        assert_eq!(packages.architecture, Architecture::Arm64);
        assert_eq!(packages.artifacts.len(), FUNCTIONS.len());
    }

    #[test]
    fn a_missing_or_changed_package_is_refused() {
        let missing = folder(&FUNCTIONS[..2]);
        assert!(matches!(
            load(missing.path()),
            Err(ArtifactError::Incomplete { .. })
        ));
        let changed = folder(&FUNCTIONS);
        std::fs::write(changed.path().join("health-probe.zip"), b"other").unwrap();
        assert!(matches!(load(changed.path()), Err(ArtifactError::Changed { .. })));
        let empty = tempfile::tempdir().unwrap();
        assert!(matches!(
            load(empty.path()),
            Err(ArtifactError::NoPackages { .. })
        ));
    }

    #[test]
    fn packages_of_two_architectures_do_not_mix() {
        let mut manifest = Manifest::default();
        manifest.put(package("health-probe", Architecture::X86_64));
        manifest.put(package("payment-processor", Architecture::X86_64));
        manifest.put(package("health-probe", Architecture::X86_64));
        assert_eq!(manifest.packages.len(), 2);
        manifest.put(package("health-probe", Architecture::Arm64));
        assert_eq!(manifest.packages.len(), 1);
    }

    #[test]
    fn a_manifest_reads_no_file_outside_its_folder() {
        let folder = folder(&FUNCTIONS);
        let mut manifest = Manifest::read(folder.path()).unwrap().unwrap();
        manifest.packages[0].file = "/etc/hostname".into();
        manifest.write(folder.path()).unwrap();
        let error = load(folder.path()).unwrap_err().to_string();
        assert!(error.contains(folder.path().to_str().unwrap()), "{error}");
    }
}
