//! What is wrong with a configuration: where, what, why, and what to write instead.

use std::fmt;

use serde::Serialize;

/// Where a value comes from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Place {
    /// The configuration itself; nobody said where it stands.
    Unknown,
    /// Nobody set it.
    Default,
    /// An option of the command line, `--suffix`.
    Option(&'static str),
    /// A position in a file, counted from one.
    Line {
        /// The file.
        file: String,
        /// The line.
        line: usize,
        /// The column, in characters.
        column: usize,
    },
}

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Problem {
    /// Where.
    pub place: Place,
    /// The field as in the file, `network.dr_cidr`; empty when the text is no TOML.
    pub field: String,
    /// Its value as in the file, where there is one.
    pub value: Option<String>,
    /// Why it cannot be used.
    pub reason: String,
    /// What to do instead.
    pub fix: String,
    /// Other fields that it has to do with: when the field itself has its default, the mistake is in one of these.
    #[serde(skip)]
    pub related: &'static [&'static str],
}

impl Problem {
    pub(super) fn new(
        field: impl Into<String>,
        value: Option<String>,
        reason: impl Into<String>,
        fix: impl Into<String>,
    ) -> Self {
        Problem {
            place: Place::Unknown,
            field: field.into(),
            value,
            reason: reason.into(),
            fix: fix.into(),
            related: &[],
        }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.place {
            Place::Unknown | Place::Default => {}
            Place::Option(option) => write!(f, "{option}: ")?,
            Place::Line { file, line, column } => write!(f, "{file}:{line}:{column}: ")?,
        }
        match (self.field.as_str(), &self.value) {
            ("", _) => {}
            (field, None) => write!(f, "{field}: ")?,
            (field, Some(value)) => write!(f, "{field} is {value}: ")?,
        }
        f.write_str(&self.reason)?;
        if !self.fix.is_empty() {
            write!(f, "; {}", self.fix)?;
        }
        Ok(())
    }
}

/// Everything that is wrong with a configuration, in the order of the file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, thiserror::Error)]
pub struct SpecError {
    /// At least one.
    pub problems: Vec<Problem>,
}

impl SpecError {
    pub(super) fn unless_empty(problems: Vec<Problem>) -> Result<(), SpecError> {
        if problems.is_empty() {
            Ok(())
        } else {
            Err(SpecError { problems })
        }
    }
}

impl fmt::Display for SpecError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.problems.as_slice() {
            [only] => only.fmt(f),
            problems => {
                write!(f, "the configuration has {} problems", problems.len())?;
                for problem in problems {
                    write!(f, "\n  {problem}")?;
                }
                Ok(())
            }
        }
    }
}
