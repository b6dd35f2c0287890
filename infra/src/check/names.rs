//! Names: within AWS's length and characters, for each kind as its API reference says. What AWS refuses in the middle of a
//! deployment, and what the local cloud takes, is refused here before the first call.

use super::kinds;
use super::{Finding, Rule, Stack};
use crate::placeholder;

/// How a name must look.
#[derive(Debug, Clone, Copy)]
pub(super) struct Form {
    /// Characters, at least and at most.
    pub length: (usize, usize),
    /// Besides letters and digits of ASCII.
    pub also: &'static str,
    /// What else AWS wants.
    pub style: Style,
}

/// What AWS wants of a name besides its length and characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Style {
    /// Nothing.
    Any,
    /// Every character is fine, not only those listed.
    Text,
    /// A letter first, no hyphen last, no two hyphens in a row (RDS).
    Identifier,
    /// Lower case, letter or digit at both ends, no two dots in a row (S3).
    Bucket,
    /// Labels of 1 to 63 between dots, no hyphen at their ends.
    Host,
    /// Begins with `alias/`, and not with `alias/aws/`.
    Alias,
    /// Does not begin with `sg-`.
    Group,
}

impl Form {
    pub(super) const fn new(least: usize, most: usize, also: &'static str, style: Style) -> Self {
        Form {
            length: (least, most),
            also,
            style,
        }
    }

    /// What is wrong with a name.
    fn problem(&self, name: &str) -> Option<String> {
        let (least, most) = self.length;
        let count = name.chars().count();
        if count < least || count > most {
            return Some(format!(
                "`{name}` has {count} characters, and AWS takes {least} to {most}"
            ));
        }
        let allowed = |c: char| {
            self.style == Style::Text
                || self.also.contains(c)
                || match self.style {
                    Style::Bucket => c.is_ascii_lowercase() || c.is_ascii_digit(),
                    _ => c.is_ascii_alphanumeric(),
                }
        };
        if let Some(bad) = name.chars().find(|c| !allowed(*c)) {
            return Some(format!("`{name}` has {bad:?}, which AWS does not take there"));
        }
        self.style
            .broken(name)
            .map(|wants| format!("`{name}` does not do: {wants}"))
    }
}

impl Style {
    fn broken(self, name: &str) -> Option<&'static str> {
        let good = match self {
            Style::Any | Style::Text => true,
            Style::Identifier => {
                name.starts_with(|c: char| c.is_ascii_alphabetic())
                    && !name.ends_with('-')
                    && !name.contains("--")
            }
            Style::Bucket => {
                let end = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
                name.starts_with(end) && name.ends_with(end) && !name.contains("..")
            }
            Style::Host => name.trim_end_matches('.').split('.').all(|label| {
                (1..=63).contains(&label.len()) && !label.starts_with('-') && !label.ends_with('-')
            }),
            Style::Alias => name.starts_with("alias/") && !name.starts_with("alias/aws/"),
            Style::Group => !name.starts_with("sg-"),
        };
        let wants = match self {
            Style::Any | Style::Text => "",
            Style::Identifier => "it must begin with a letter, and have no hyphen last nor two in a row",
            Style::Bucket => "it must have a letter or digit at both ends, and no two dots in a row",
            Style::Host => "between its dots it must have 1 to 63 characters, without a hyphen at either end",
            Style::Alias => "it must begin with `alias/`, and not with `alias/aws/`",
            Style::Group => "it must not begin with `sg-`",
        };
        (!good).then_some(wants)
    }
}

/// The rule.
pub(super) fn check(stack: &Stack<'_>, findings: &mut Vec<Finding>) {
    for one in stack.all {
        let Some(class) = kinds::of(one.kind) else {
            continue;
        };
        for (field, form) in class.names {
            let name = one.text(field);
            if placeholder::is_in(name) {
                continue;
            }
            if let Some(problem) = form.problem(name) {
                findings.push(one.finding(
                    Rule::Name,
                    format!("its {field} {problem}"),
                    "choose another suffix or name",
                ));
            }
        }
    }
}
