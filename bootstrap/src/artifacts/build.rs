//! `understudy build`: makes the packages of the functions with cargo-lambda, which links them against the C library that
//! Lambda has, whatever this machine has.

use std::path::{Path, PathBuf};
use std::process::Stdio;

use infra::spec::Architecture;
use serde::Serialize;
use sha2::{Digest, Sha256};
use tokio::process::Command;

use super::manifest::{Manifest, Package};
use super::{FUNCTIONS, Here, SMALL, archive, runs_on_lambda};
use crate::failure::Failure;
use crate::ui::Ui;

/// What to build.
#[derive(Debug, Clone)]
pub struct Order {
    /// For which processors.
    pub architecture: Architecture,
    /// Which functions; all when empty.
    pub functions: Vec<String>,
    /// Where to put the packages.
    pub folder: Option<PathBuf>,
}

/// What was built.
#[derive(Debug, Clone, Serialize)]
pub struct Built {
    /// The folder of the packages.
    pub folder: PathBuf,
    /// What was built now.
    pub packages: Vec<Package>,
    /// Functions that have no package in the folder yet.
    pub missing: Vec<&'static str>,
    /// How long it took.
    pub seconds: f64,
}

/// The target that Rust calls a Lambda architecture.
pub fn target(architecture: Architecture) -> &'static str {
    match architecture {
        Architecture::Arm64 => "aarch64-unknown-linux-gnu",
        Architecture::X86_64 => "x86_64-unknown-linux-gnu",
    }
}

/// Builds packages.
///
/// # Errors
/// No source tree, a tool that is missing (with the command that installs it), or the compiler's own.
pub async fn build(order: &Order, ui: &Ui) -> Result<Built, Failure> {
    let started = ui.elapsed();
    let here = Here::find()?;
    let folder = order.folder.clone().unwrap_or_else(|| here.packages());
    let tree = here.tree.ok_or_else(|| {
        Failure::text("this program was not built from a source tree that is still there")
            .help("clone the sources and run `cargo run -- build` in them")
    })?;
    let functions = chosen(&order.functions)?;
    tools(order.architecture).await?;
    let work = tree.target.join("lambda-build");
    ui.step(format!(
        "building {} for {}; the first release build of everything takes half an hour",
        functions.join(", "),
        order.architecture
    ));
    cargo_lambda(&tree.root, &work, order.architecture, &functions).await?;

    std::fs::create_dir_all(&folder)?;
    let mut manifest = Manifest::read(&folder)?.unwrap_or_default();
    let mut packages = Vec::new();
    for function in functions {
        let package = pack(function, &work.join("out"), &folder, order.architecture)?;
        manifest.put(package.clone());
        packages.push(package);
    }
    manifest.write(&folder)?;
    let missing = FUNCTIONS
        .into_iter()
        .filter(|function| {
            !manifest
                .packages
                .iter()
                .any(|package| package.function == *function)
        })
        .collect();
    Ok(Built {
        folder,
        packages,
        missing,
        seconds: (ui.elapsed() - started).as_secs_f64(),
    })
}

fn chosen(names: &[String]) -> Result<Vec<&'static str>, Failure> {
    if names.is_empty() {
        return Ok(FUNCTIONS.to_vec());
    }
    names
        .iter()
        .map(|name| {
            FUNCTIONS
                .into_iter()
                .find(|function| function == name)
                .ok_or_else(|| {
                    Failure::text(format!("there is no function `{name}`"))
                        .help(format!("the functions are {}", FUNCTIONS.join(", ")))
                })
        })
        .collect()
}

/// Whether cargo-lambda is there; its version.
///
/// # Errors
/// It is missing, with the command that installs it.
pub async fn cargo_lambda_version() -> Result<String, Failure> {
    let output = Command::new(cargo())
        .args(["lambda", "--version"])
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output()
        .await
        .map_err(|error| {
            Failure::text(format!("`cargo` cannot be run: {error}"))
                .help("install Rust with rustup: https://rustup.rs")
        })?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned());
    }
    Err(
        Failure::text("cargo-lambda, which builds packages for Lambda, is not installed")
            .help("install it with `pip install cargo-lambda` (it brings its linker), then run this again"),
    )
}

/// Whether the standard library for that processor is there.
///
/// # Errors
/// It is missing, with the command that installs it.
pub async fn standard_library(architecture: Architecture) -> Result<(), Failure> {
    let target = target(architecture);
    let output = Command::new("rustc")
        .args(["--print", "target-libdir", "--target", target])
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output()
        .await
        .map_err(|error| {
            Failure::text(format!("`rustc` cannot be run: {error}"))
                .help("install Rust with rustup: https://rustup.rs")
        })?;
    let folder = PathBuf::from(String::from_utf8_lossy(&output.stdout).trim());
    if output.status.success() && folder.is_dir() {
        return Ok(());
    }
    let other = match architecture {
        Architecture::Arm64 => ", or build for Intel and AMD with `--arch x86-64`",
        Architecture::X86_64 => "",
    };
    Err(
        Failure::text(format!("Rust's standard library for {target} is not installed"))
            .help(format!("install it with `rustup target add {target}`{other}")),
    )
}

async fn tools(architecture: Architecture) -> Result<(), Failure> {
    cargo_lambda_version().await?;
    standard_library(architecture).await
}

fn cargo() -> std::ffi::OsString {
    std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into())
}

/// What cargo says goes to standard error as it comes: the build is long.
async fn cargo_lambda(
    root: &Path,
    work: &Path,
    architecture: Architecture,
    functions: &[&str],
) -> Result<(), Failure> {
    let mut command = Command::new(cargo());
    command.args([
        "lambda",
        "build",
        "--release",
        "--locked",
        "--output-format",
        "binary",
    ]);
    command.arg(match architecture {
        Architecture::Arm64 => "--arm64",
        Architecture::X86_64 => "--x86-64",
    });
    for function in functions {
        command.args(["--package", function, "--bin", function]);
    }
    command.arg("--lambda-dir").arg(work.join("out"));
    command.arg("--target-dir").arg(work);
    let status = command
        .current_dir(root)
        .stdin(Stdio::null())
        // Data is what this program prints.
        .stdout(std::io::stderr())
        .kill_on_drop(true)
        .status()
        .await?;
    if status.success() {
        return Ok(());
    }
    Err(Failure::text(
        "`cargo lambda build` failed; what it said is above",
    ))
}

/// Checks a binary and packs it. The archive depends on nothing but the binary.
fn pack(
    function: &'static str,
    built: &Path,
    folder: &Path,
    architecture: Architecture,
) -> Result<Package, Failure> {
    let path = built.join(function).join("bootstrap");
    let binary = std::fs::read(&path)
        .map_err(|error| Failure::text(format!("cargo-lambda left no `{}`: {error}", path.display())))?;
    let needs = runs_on_lambda(&path, &binary)?;
    if needs.architecture != architecture {
        return Err(Failure::text(format!(
            "cargo-lambda built `{function}` for {}, not for {architecture}",
            needs.architecture
        )));
    }
    let zip = archive(&binary, SMALL)?;
    let file = format!("{function}.zip");
    std::fs::write(folder.join(&file), &zip)?;
    Ok(Package {
        function: function.to_owned(),
        file,
        sha256: hex::encode(Sha256::digest(&zip)),
        architecture,
        version: env!("CARGO_PKG_VERSION").to_owned(),
        zipped_bytes: zip.len() as u64,
        binary_bytes: binary.len() as u64,
        glibc: needs.glibc.map(|version| version.to_string()),
    })
}

/// The result for a person.
pub fn describe(built: &Built) -> String {
    let megabytes = |bytes: u64| bytes as f64 / 1e6;
    let width = built
        .packages
        .iter()
        .map(|package| package.function.len())
        .max()
        .unwrap_or(0);
    let mut lines: Vec<String> = built
        .packages
        .iter()
        .map(|package| {
            format!(
                "  {:width$}  {:5.2} MB zipped, {:5.2} MB binary, {}, glibc {}",
                package.function,
                megabytes(package.zipped_bytes),
                megabytes(package.binary_bytes),
                package.architecture,
                package.glibc.as_deref().unwrap_or("not needed"),
            )
        })
        .collect();
    lines.push(format!("\npackages in {}", built.folder.display()));
    lines.push(if built.missing.is_empty() {
        "next: `understudy doctor`, then `understudy up`".to_owned()
    } else {
        format!("not built yet: {}", built.missing.join(", "))
    });
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn only_functions_that_exist_are_built() {
        assert_eq!(chosen(&[]).unwrap(), FUNCTIONS);
        assert_eq!(chosen(&["health-probe".into()]).unwrap(), ["health-probe"]);
        let error = chosen(&["probe".into()]).unwrap_err();
        assert!(error.next().unwrap().contains("health-probe"));
    }

    #[test]
    fn a_package_for_another_processor_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let built = folder.path().join("health-probe");
        std::fs::create_dir(&built).unwrap();
        std::fs::write(built.join("bootstrap"), b"no binary").unwrap();
        assert!(pack("health-probe", folder.path(), folder.path(), Architecture::Arm64).is_err());
    }
}
