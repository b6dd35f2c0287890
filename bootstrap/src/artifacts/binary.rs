//! What a binary needs of the machine that runs it: its processor, and the version of the C library.

use std::fmt;

use infra::spec::Architecture;
use object::Endianness;
use object::elf::{EM_AARCH64, EM_X86_64, FileHeader64};
use object::read::elf::{FileHeader, SectionHeader};

/// A version of the GNU C library.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Glibc {
    major: u32,
    minor: u32,
}

/// What Lambda's `provided.al2023` has.
pub const LAMBDA_GLIBC: Glibc = Glibc { major: 2, minor: 34 };

impl Glibc {
    /// `2.34`.
    fn parse(text: &str) -> Option<Glibc> {
        let mut parts = text.split('.');
        Some(Glibc {
            major: parts.next()?.parse().ok()?,
            minor: parts.next()?.parse().ok()?,
        })
    }
}

impl fmt::Display for Glibc {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)
    }
}

/// What a binary needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Needs {
    /// The processor it was built for.
    pub architecture: Architecture,
    /// The newest version of the C library that one of its symbols asks for; `None` when it is linked statically.
    pub glibc: Option<Glibc>,
}

/// Why a file is no binary for Lambda.
#[derive(Debug, thiserror::Error)]
pub enum BinaryError {
    /// It cannot be read as one.
    #[error("it is no 64-bit ELF binary: {0}")]
    Format(#[from] object::Error),
    /// Another processor.
    #[error("it was built for a processor that Lambda does not have (ELF machine {0})")]
    Machine(u16),
}

/// Reads what a binary needs.
///
/// # Errors
/// It is no binary that Lambda could run.
pub fn needs(binary: &[u8]) -> Result<Needs, BinaryError> {
    let header = FileHeader64::<Endianness>::parse(binary)?;
    let endian = header.endian()?;
    let architecture = match header.e_machine(endian) {
        EM_X86_64 => Architecture::X86_64,
        EM_AARCH64 => Architecture::Arm64,
        other => return Err(BinaryError::Machine(other)),
    };
    let sections = header.sections(endian, binary)?;
    let mut glibc = None;
    for section in sections.iter() {
        let Some((mut libraries, link)) = section.gnu_verneed(endian, binary)? else {
            continue;
        };
        let strings = sections.strings(endian, binary, link)?;
        while let Some((_, mut versions)) = libraries.next()? {
            while let Some(version) = versions.next()? {
                let name = String::from_utf8_lossy(version.name(endian, strings)?);
                glibc = glibc.max(name.strip_prefix("GLIBC_").and_then(Glibc::parse));
            }
        }
    }
    Ok(Needs { architecture, glibc })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn versions_are_compared_as_numbers() {
        let version = |text| Glibc::parse(text).unwrap();
        assert!(version("2.4") < version("2.34") && version("2.39") > LAMBDA_GLIBC);
        assert_eq!(version("2.2.5").to_string(), "2.2");
        assert_eq!(Glibc::parse("PRIVATE"), None);
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn a_program_of_this_machine_says_its_processor_and_library() {
        let program = std::fs::read(std::env::current_exe().unwrap()).unwrap();
        let needs = needs(&program).unwrap();
        assert_eq!(needs.architecture, super::super::HOST);
        // Rust's standard library needs at least 2.17.
        assert!(needs.glibc >= Glibc::parse("2.17"), "{needs:?}");
    }

    #[test]
    fn what_is_no_binary_is_refused() {
        assert!(needs(b"#!/bin/sh\n").is_err());
        assert!(needs(&[0x7f; 200]).is_err());
    }
}
