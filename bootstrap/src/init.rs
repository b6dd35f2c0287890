//! `understudy init`: writes the commented configuration file.

use std::io::Write;
use std::path::{Path, PathBuf};

use infra::spec::{Source, Spec, TEMPLATE};
use serde::Serialize;

use crate::failure::Failure;

/// What was written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Written {
    /// The file.
    pub file: PathBuf,
    /// Whether there was one before.
    pub replaced: bool,
    /// The suffix in it.
    pub suffix: String,
}

/// The template, with another suffix.
///
/// # Errors
/// A suffix that cannot be used.
pub fn text(suffix: Option<&str>) -> Result<String, Failure> {
    let Some(suffix) = suffix else {
        return Ok(TEMPLATE.to_owned());
    };
    Spec::load(&Source::defaults().suffix(Some(suffix)))?;
    let line = format!("suffix = \"{}\"\n", Spec::default().suffix);
    Ok(TEMPLATE.replacen(&line, &format!("suffix = \"{suffix}\"\n"), 1))
}

/// Writes the file; an existing one only when `force` says so.
///
/// # Errors
/// There is a file already, or it cannot be written.
pub fn write(file: &Path, suffix: Option<&str>, force: bool) -> Result<Written, Failure> {
    let text = text(suffix)?;
    let replaced = file.exists();
    let mut options = std::fs::OpenOptions::new();
    if force {
        options.write(true).create(true).truncate(true);
    } else {
        options.write(true).create_new(true);
    }
    let mut open = options.open(file).map_err(|error| match error.kind() {
        std::io::ErrorKind::AlreadyExists => Failure::text(format!(
            "there is a `{}` already; nothing was written",
            file.display()
        ))
        .help("name another file with `--config FILE`, or replace this one with `--force`"),
        _ => Failure::text(format!("`{}` cannot be written: {error}", file.display())),
    })?;
    open.write_all(text.as_bytes())
        .map_err(|error| Failure::text(format!("`{}` cannot be written: {error}", file.display())))?;
    Ok(Written {
        file: file.to_owned(),
        replaced,
        suffix: suffix.map_or_else(|| Spec::default().suffix, str::to_owned),
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn the_example_of_the_repository_is_what_init_writes() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("stack.toml");
        let written = write(&file, None, false).unwrap();
        assert!(!written.replaced);
        let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("../stack.toml");
        let text = std::fs::read_to_string(&file).unwrap();
        assert_eq!(text, std::fs::read_to_string(example).unwrap());
        assert_eq!(Spec::from_toml(&text).unwrap(), Spec::default());
    }

    #[test]
    fn a_file_is_replaced_only_by_force() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("stack.toml");
        std::fs::write(&file, "mine").unwrap();
        let error = write(&file, None, false).unwrap_err();
        assert!(error.message().contains("already") && error.next().unwrap().contains("--force"));
        assert_eq!(std::fs::read_to_string(&file).unwrap(), "mine");
        assert!(write(&file, Some("prod"), true).unwrap().replaced);
        let spec = Spec::from_toml(&std::fs::read_to_string(&file).unwrap()).unwrap();
        assert_eq!(
            spec,
            Spec {
                suffix: "prod".into(),
                ..Spec::default()
            }
        );
    }

    #[test]
    fn a_suffix_that_cannot_be_used_is_refused() {
        assert!(
            text(Some("my-stack"))
                .unwrap_err()
                .message()
                .starts_with("--suffix: ")
        );
    }
}
