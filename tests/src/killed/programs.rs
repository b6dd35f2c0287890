//! Copies of the programs, so that a build that goes on meanwhile changes nothing under a run of hours, and the functions' packages,
//! packed once.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Arc, Weak};

use bootstrap::artifacts::manifest::{Manifest, Package};
use bootstrap::artifacts::{self, FUNCTIONS};
use tempfile::TempDir;
use tokio::sync::Mutex;

/// What is run.
#[derive(Debug)]
pub struct Programs {
    folder: TempDir,
}

impl Programs {
    /// Copies the programs of this build and packs the functions.
    ///
    /// # Errors
    /// What cannot be copied or packed.
    pub async fn gather() -> Result<Programs, String> {
        let copied = tokio::task::spawn_blocking(copy).await;
        let programs = copied.map_err(|error| error.to_string())??;
        programs.pack().await.map_err(|error| error.to_string())?;
        Ok(programs)
    }

    /// The same, once for all who hold them at the same time in this process: packing takes the better part of a minute.
    ///
    /// # Errors
    /// What cannot be copied or packed.
    pub async fn shared() -> Result<Arc<Programs>, String> {
        static SHARED: Mutex<Weak<Programs>> = Mutex::const_new(Weak::new());
        let mut shared = SHARED.lock().await;
        if let Some(programs) = shared.upgrade() {
            return Ok(programs);
        }
        let programs = Arc::new(Programs::gather().await?);
        *shared = Arc::downgrade(&programs);
        Ok(programs)
    }

    /// The command line.
    pub fn understudy(&self) -> PathBuf {
        self.folder.path().join("understudy")
    }

    /// The folder of packages.
    pub fn packages(&self) -> PathBuf {
        self.folder.path().join("packages")
    }

    async fn pack(&self) -> Result<(), Box<dyn std::error::Error>> {
        let packages = artifacts::binaries(self.folder.path().to_owned(), false).await?;
        let folder = self.packages();
        std::fs::create_dir(&folder)?;
        let mut manifest = Manifest::default();
        for package in packages.artifacts {
            let file = format!("{}.zip", package.function);
            std::fs::write(folder.join(&file), &package.zip)?;
            manifest.put(Package {
                function: package.function.to_owned(),
                file,
                sha256: package.sha256,
                architecture: packages.architecture,
                version: env!("CARGO_PKG_VERSION").to_owned(),
                zipped_bytes: package.zip.len() as u64,
                binary_bytes: std::fs::metadata(self.folder.path().join(package.function))?.len(),
                glibc: None,
            });
        }
        manifest.write(&folder)?;
        Ok(())
    }
}

fn copy() -> Result<Programs, String> {
    let from = crate::understudy().parent().unwrap_or(Path::new("."));
    let folder = tempfile::Builder::new()
        .prefix("understudy-killed-")
        .tempdir()
        .map_err(|error| error.to_string())?;
    for name in ["understudy"].into_iter().chain(FUNCTIONS) {
        let copy = folder.path().join(name);
        std::fs::copy(from.join(name), &copy)
            .map_err(|error| format!("`{}` cannot be copied: {error}", from.join(name).display()))?;
        // Every deployment unpacks the functions seven times. Where there is no `strip` it takes longer, no more.
        let _ = Command::new("strip")
            .arg(&copy)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status();
    }
    Ok(Programs { folder })
}
