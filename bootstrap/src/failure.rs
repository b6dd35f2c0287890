//! Why a command failed, in the form every command prints: what is wrong, and what to do next.

use std::error::Error;
use std::fmt;

/// A failed command.
#[derive(Debug)]
pub struct Failure {
    message: String,
    help: Option<String>,
}

impl Failure {
    /// A failure that an error explains: the error and its causes on one line.
    pub fn new(error: &(dyn Error + 'static)) -> Self {
        Failure {
            message: continuity::error::chain(error),
            help: None,
        }
    }

    /// A failure in words.
    pub fn text(message: impl Into<String>) -> Self {
        Failure {
            message: message.into(),
            help: None,
        }
    }

    /// Adds what to do next.
    #[must_use]
    pub fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }

    /// What is wrong.
    pub fn message(&self) -> &str {
        &self.message
    }

    /// What to do next.
    pub fn next(&self) -> Option<&str> {
        self.help.as_deref()
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl<E: Error + 'static> From<E> for Failure {
    fn from(error: E) -> Self {
        Failure::new(&error)
    }
}
