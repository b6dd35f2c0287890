//! Parity: the standby is what the home region is, or a takeover moves the load to something that cannot carry it. Every resource
//! of one serving slot has its counterpart in the other (`X.primary` and `X.dr`), with the same values wherever they decide what
//! it can do. Which fields these are stands in [`super::kinds`].

use serde_json::Value;

use super::kinds::{self, Parity};
use super::{Finding, Rule, Stack};
use crate::wanted::Wanted;

const HOME: &str = ".primary";
const STANDBY: &str = ".dr";

/// The rule.
pub(super) fn check(stack: &Stack<'_>, findings: &mut Vec<Finding>) {
    for one in stack.all {
        let Some(Parity::Equal { same, alike, .. }) = kinds::of(one.kind).map(|class| &class.parity) else {
            continue;
        };
        let Some((other, is_home)) = counterpart(&one.key) else {
            continue;
        };
        match stack.get(&other).filter(|other| other.kind == one.kind) {
            None if stack.whole => findings.push(one.finding(
                Rule::Parity,
                format!("it has no counterpart `{other}`"),
                "declare it for both serving slots",
            )),
            None => {}
            // Each pair once.
            Some(home) if !is_home => differences(one, home, same, alike, findings),
            Some(_) => {}
        }
    }
    for (home, standby) in COUNTERPARTS.iter().filter(|_| stack.whole) {
        let (homes, standbys) = (stack.of(home).count(), stack.of(standby).count());
        for one in stack.of(home).chain(stack.of(standby)).take(1) {
            if homes != standbys {
                findings.push(one.finding(
                    Rule::Parity,
                    format!("there are {homes} of `{home}` and {standbys} of `{standby}`"),
                    "the standby needs one for each of the home region",
                ));
            }
        }
    }
}

/// Kinds that are counterparts of each other.
const COUNTERPARTS: [(&str, &str); 1] = [("kms-key", "kms-replica-key")];

/// The key of the counterpart, and whether `key` is the home region's.
fn counterpart(key: &str) -> Option<(String, bool)> {
    if let Some(stem) = key.strip_suffix(HOME) {
        return Some((format!("{stem}{STANDBY}"), true));
    }
    let stem = key.strip_suffix(STANDBY)?;
    Some((format!("{stem}{HOME}"), false))
}

fn differences(standby: &Wanted, home: &Wanted, same: &[&str], alike: &[&str], findings: &mut Vec<Finding>) {
    for field in same {
        let (here, there) = (standby.field(field), home.field(field));
        if here != there {
            findings.push(standby.finding(
                Rule::Parity,
                format!("`{field}` is {here}, and {there} in `{}`", home.key),
                "give both the same value",
            ));
        }
    }
    for field in alike {
        if !is_alike(standby.field(field), home.field(field)) {
            findings.push(standby.finding(
                Rule::Parity,
                format!("`{field}` is of another shape than in `{}`", home.key),
                "give both the same entries; only names and addresses may differ",
            ));
        }
    }
}

/// The same but for what texts say: keys, lengths, numbers and switches.
fn is_alike(one: &Value, other: &Value) -> bool {
    match (one, other) {
        (Value::Object(one), Value::Object(other)) => {
            one.len() == other.len()
                && one
                    .iter()
                    .all(|(key, value)| other.get(key).is_some_and(|there| is_alike(value, there)))
        }
        (Value::Array(one), Value::Array(other)) => {
            one.len() == other.len() && one.iter().zip(other).all(|(one, other)| is_alike(one, other))
        }
        (Value::String(_), Value::String(_)) => true,
        (one, other) => one == other,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn only_what_texts_say_may_differ_between_things_that_are_alike() {
        let home = json!({"rules": [{"id": "a", "days": 7, "on": true}], "peer": null});
        assert!(is_alike(
            &json!({"rules": [{"id": "b", "days": 7, "on": true}], "peer": null}),
            &home
        ));
        for other in [
            json!({"rules": [{"id": "a", "days": 8, "on": true}], "peer": null}),
            json!({"rules": [{"id": "a", "days": 7, "on": false}], "peer": null}),
            json!({"rules": [], "peer": null}),
            json!({"rules": [{"id": "a", "days": 7, "on": true}], "peer": "x"}),
            json!({"rules": [{"id": "a", "days": 7, "on": true}], "pear": null}),
        ] {
            assert!(!is_alike(&other, &home), "{other}");
        }
    }
}
