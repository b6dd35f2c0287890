//! What a binary needs of the machine that runs it: its processor, and the version of the C library.

use std::fmt;

use infra::spec::Architecture;
use object::Endianness;
use object::elf::{EM_AARCH64, EM_X86_64, FileHeader64};
use object::read::elf::{FileHeader, ProgramHeader, SectionHeader};

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

/// Cuts off what is only there for debuggers: symbols, line numbers and the table of sections, which follow what is loaded. An
/// unoptimised binary has half its size without them. What is no 64-bit ELF binary stays as it is.
pub fn strip(binary: &mut Vec<u8>) {
    if let Some(end) = end_of_segments(binary) {
        binary.truncate(end);
        // No section: the fields of the ELF header that lead to their table are zero.
        for field in [SECTION_TABLE, SECTION_COUNT] {
            binary[field].fill(0);
        }
    }
}

/// `e_shoff` of the header of a 64-bit ELF file: <https://man7.org/linux/man-pages/man5/elf.5.html>
const SECTION_TABLE: std::ops::Range<usize> = 0x28..0x30;
/// `e_shnum` and `e_shstrndx`.
const SECTION_COUNT: std::ops::Range<usize> = 0x3c..0x40;

/// Where the last byte that a loader reads is followed by others.
fn end_of_segments(binary: &[u8]) -> Option<usize> {
    let header = FileHeader64::<Endianness>::parse(binary).ok()?;
    let endian = header.endian().ok()?;
    let segments = header.program_headers(endian, binary).ok()?;
    let table = header.e_phoff(endian) + u64::from(header.e_phentsize(endian)) * segments.len() as u64;
    let ends = segments
        .iter()
        .map(|segment| segment.p_offset(endian) + segment.p_filesz(endian));
    let end = usize::try_from(ends.max()?.max(table)).ok()?;
    (end <= binary.len()).then_some(end)
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
    #[cfg(target_os = "linux")]
    fn a_stripped_program_is_smaller_and_runs() {
        use std::os::unix::fs::PermissionsExt;
        let mut program = std::fs::read(std::env::current_exe().unwrap()).unwrap();
        let before = program.len();
        strip(&mut program);
        assert!(program.len() < before / 10 * 9, "{} of {before}", program.len());
        let once = program.clone();
        strip(&mut program);
        assert!(program == once, "stripped twice it is something else");

        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("program");
        std::fs::write(&path, &program).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
        // Between its fork and its exec a child of another test may hold the file open as it was written.
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(10);
        let output = loop {
            match std::process::Command::new(&path).arg("--list").output() {
                Err(error) if error.kind() == std::io::ErrorKind::ExecutableFileBusy => {
                    assert!(std::time::Instant::now() < deadline, "{error}");
                    std::thread::yield_now();
                }
                output => break output.unwrap(),
            }
        };
        let listed = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(
            listed.contains("a_stripped_program_is_smaller_and_runs"),
            "{output:?}"
        );
    }

    #[test]
    fn what_is_no_binary_is_not_stripped() {
        for bytes in [&b"#!/bin/sh\n"[..], &[0x7f; 200]] {
            let mut binary = bytes.to_vec();
            strip(&mut binary);
            assert_eq!(binary, bytes);
        }
    }

    #[test]
    fn what_is_no_binary_is_refused() {
        assert!(needs(b"#!/bin/sh\n").is_err());
        assert!(needs(&[0x7f; 200]).is_err());
    }
}
