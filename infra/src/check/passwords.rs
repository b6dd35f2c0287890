//! Passwords: drawn at random, long enough, of characters that Aurora takes, and never written into a configuration. The local
//! cloud would take any.

use std::collections::{BTreeSet, HashSet};

use super::{Finding, Rule, Stack};
use crate::resources::secret::{self, Generation};

#[cfg(test)]
pub(super) const KINDS: &[&str] = &["db-cluster", "secret"];

/// Nobody guesses that, however fast.
const LEAST_BITS: f64 = 128.0;
/// What Aurora takes of a master user.
const LENGTH: std::ops::RangeInclusive<usize> = 8..=99;
const REFUSED: &str = "/@\"' ";

/// The rule.
pub(super) fn check(stack: &Stack<'_>, findings: &mut Vec<Finding>) {
    let mut names = HashSet::new();
    for one in stack.of("secret") {
        names.insert(one.text("name"));
        if let Some(problem) = weakness(&secret::PASSWORD) {
            findings.push(one.finding(
                Rule::Password,
                problem,
                "generate 32 characters or more, letters and digits",
            ));
        }
    }
    for cluster in stack.of("db-cluster") {
        if !names.contains(cluster.text("credentials")) {
            findings.push(cluster.finding(
                Rule::Password,
                "its password is in no secret of the stack",
                "name a `secret` in `credentials`",
            ));
        }
    }
}

/// Why passwords that are made like this are not good enough.
pub(super) fn weakness(generation: &Generation) -> Option<String> {
    let different: BTreeSet<char> = generation.alphabet.chars().collect();
    if let Some(bad) = different
        .iter()
        .find(|c| REFUSED.contains(**c) || !c.is_ascii_graphic())
    {
        return Some(format!("passwords may hold {bad:?}, which Aurora refuses"));
    }
    if !LENGTH.contains(&generation.length) {
        return Some(format!(
            "passwords have {} characters, and Aurora takes {} to {}",
            generation.length,
            LENGTH.start(),
            LENGTH.end()
        ));
    }
    // Both are small numbers.
    #[allow(clippy::cast_precision_loss)]
    let bits = generation.length as f64 * (different.len() as f64).log2();
    (bits < LEAST_BITS).then(|| format!("passwords carry {bits:.0} bits, and {LEAST_BITS} are needed"))
}
