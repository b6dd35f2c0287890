//! One change of the stack at a time. Deploy, reconcile and teardown hold the item `change` of the control table while they
//! run; who may take it is decided here, purely. Every write asks whether it is still held, so an executor that lost it, or
//! slept, changes nothing more. Also here: the configuration with its generation, as the table holds it.
//!
//! There is nothing to give back: a holder is dead when its execution has ended, or when it has made no step for [`LEASE`].

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::plan::FieldChange;
use crate::spec::Spec;

/// The item of the control table.
pub const ITEM: &str = "change";
/// The item with the stored [`Configuration`].
pub const CONFIGURATION_ITEM: &str = "spec";

/// A holder that has made no step for this long is dead. Longer than a step and the longest pause between two.
pub const LEASE: Duration = Duration::from_secs(180);

/// What kind of change: a later one goes before an earlier one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// The scheduled repair of drift.
    Reconcile,
    /// `up`.
    Deploy,
    /// `down`.
    Teardown,
}

impl Kind {
    /// The workflow's name.
    pub fn as_str(self) -> &'static str {
        match self {
            Kind::Reconcile => "reconcile",
            Kind::Deploy => "deploy",
            Kind::Teardown => "teardown",
        }
    }
}

impl std::fmt::Display for Kind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A change under way.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Change {
    /// What it is.
    pub kind: Kind,
    /// The ARN of the execution that makes it.
    pub execution: String,
    /// The generation that it applies.
    pub generation: u64,
    /// When it began, milliseconds since the Unix epoch.
    pub began_ms: u64,
    /// When it made its last step.
    pub seen_ms: u64,
}

impl Change {
    /// The region whose state machine runs it.
    pub fn region(&self) -> &str {
        self.execution.split(':').nth(3).unwrap_or_default()
    }

    /// The execution's name.
    pub fn name(&self) -> &str {
        self.execution.rsplit(':').next().unwrap_or_default()
    }
}

/// What comes of asking for the change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Claim {
    /// Store this, and go on.
    Take(Change),
    /// Store this. The other one ran until now, and a call of it may still be under way: wait a moment before the first.
    TakeFrom(Change),
    /// Another one runs and goes first.
    Busy,
}

/// Who holds the change when `me` asks for it while `current` is stored, and `ended` says whether its execution is known to
/// have ended. A repair or deployment asks only in the active region.
pub fn claim(current: Option<&Change>, me: &Change, ended: bool, now_ms: u64) -> Claim {
    let Some(current) = current else {
        return Claim::Take(me.clone());
    };
    if current.execution == me.execution {
        return Claim::Take(Change {
            began_ms: current.began_ms,
            seen_ms: now_ms,
            ..me.clone()
        });
    }
    let silent_ms = u128::from(now_ms.saturating_sub(current.seen_ms));
    // A repair or deployment that began where the stack was active until then may write nothing any more.
    let left_behind = current.kind != Kind::Teardown && current.region() != me.region();
    if ended || left_behind || silent_ms > LEASE.as_millis() {
        return Claim::Take(me.clone());
    }
    // Of two deployments the one with the newer configuration goes first.
    let newer = me.kind == Kind::Deploy && me.generation > current.generation;
    if me.kind > current.kind || (me.kind == current.kind && newer) {
        return Claim::TakeFrom(me.clone());
    }
    Claim::Busy
}

/// The configuration and its generation: one item, so that they change together.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Configuration {
    /// Grows by one each time the configuration changes.
    pub generation: u64,
    /// What the operator says.
    pub spec: Spec,
}

impl Configuration {
    /// What to store so that `spec` is the configuration, and whether that is a change. `record` is the generation in the
    /// control record, if there is one.
    pub fn next(stored: Option<&Configuration>, record: Option<u64>, spec: &Spec) -> (Configuration, bool) {
        match stored {
            Some(stored)
                if stored.spec == *spec && record.is_none_or(|record| record <= stored.generation) =>
            {
                (stored.clone(), false)
            }
            _ => {
                let last = stored
                    .map_or(0, |stored| stored.generation)
                    .max(record.unwrap_or(0));
                let next = Configuration {
                    generation: last + 1,
                    spec: spec.clone(),
                };
                (next, true)
            }
        }
    }
}

/// Settings that differ between the stored configuration and another. The packages show in the functions.
pub fn settings(stored: &Spec, now: &Spec) -> Vec<FieldChange> {
    let mut stored = stored.clone();
    stored.artifacts.clone_from(&now.artifacts);
    stored.architecture = now.architecture;
    let (from, to) = (leaves(&stored), leaves(now));
    let paths: BTreeSet<&String> = from.keys().chain(to.keys()).collect();
    let value = |leaves: &BTreeMap<String, Value>, path: &str| leaves.get(path).cloned().unwrap_or_default();
    paths
        .into_iter()
        .filter(|path| value(&from, path) != value(&to, path))
        .map(|path| FieldChange {
            field: path.clone(),
            from: value(&from, path),
            to: value(&to, path),
        })
        .collect()
}

/// Every value of a configuration by its path, as one writes it in `stack.toml`.
fn leaves(spec: &Spec) -> BTreeMap<String, Value> {
    fn visit(path: String, value: Value, into: &mut BTreeMap<String, Value>) {
        match value {
            Value::Object(members) => {
                for (name, value) in members {
                    let path = if path.is_empty() {
                        name
                    } else {
                        format!("{path}.{name}")
                    };
                    visit(path, value, into);
                }
            }
            Value::Null => {}
            value => {
                into.insert(path, value);
            }
        }
    }
    let mut leaves = BTreeMap::new();
    visit(
        String::new(),
        serde_json::to_value(spec).unwrap_or_default(),
        &mut leaves,
    );
    leaves
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: u64 = 10_000_000;

    fn change(kind: Kind, name: &str, generation: u64) -> Change {
        Change {
            kind,
            execution: format!("arn:aws:states:us-east-1:000000000000:execution:{kind}-primary-dev:{name}"),
            generation,
            began_ms: NOW - 5_000,
            seen_ms: NOW - 5_000,
        }
    }

    #[test]
    fn who_goes_first_as_a_table() {
        use Kind::{Deploy, Reconcile, Teardown};
        let running = |kind, generation| change(kind, "running", generation);
        let rows = [
            (None, Reconcile, 1, "takes", "nothing runs"),
            (
                Some(running(Reconcile, 1)),
                Reconcile,
                1,
                "busy",
                "one repair at a time",
            ),
            (
                Some(running(Deploy, 1)),
                Reconcile,
                1,
                "busy",
                "a repair waits for a deployment",
            ),
            (
                Some(running(Teardown, 1)),
                Reconcile,
                1,
                "busy",
                "and for a teardown",
            ),
            (
                Some(running(Reconcile, 1)),
                Deploy,
                1,
                "takes from",
                "a deployment goes before a repair",
            ),
            (
                Some(running(Reconcile, 1)),
                Teardown,
                1,
                "takes from",
                "a teardown too",
            ),
            (
                Some(running(Deploy, 2)),
                Deploy,
                2,
                "busy",
                "two of the same configuration",
            ),
            (
                Some(running(Deploy, 2)),
                Deploy,
                3,
                "takes from",
                "a newer configuration",
            ),
            (Some(running(Deploy, 3)), Deploy, 2, "busy", "an older one"),
            (
                Some(running(Deploy, 3)),
                Teardown,
                2,
                "takes from",
                "a teardown goes before a deployment",
            ),
            (
                Some(running(Teardown, 1)),
                Deploy,
                9,
                "busy",
                "a deployment waits for a teardown",
            ),
            (
                Some(running(Teardown, 1)),
                Teardown,
                1,
                "busy",
                "one teardown at a time",
            ),
        ];
        for (current, kind, generation, expected, row) in rows {
            let me = change(kind, "me", generation);
            let verdict = match claim(current.as_ref(), &me, false, NOW) {
                Claim::Take(stored) => {
                    assert_eq!(stored, me, "{row}");
                    "takes"
                }
                Claim::TakeFrom(stored) => {
                    assert_eq!(stored, me, "{row}");
                    "takes from"
                }
                Claim::Busy => "busy",
            };
            assert_eq!(verdict, expected, "{row}");
        }
    }

    #[test]
    fn a_dead_holder_blocks_nobody() {
        let me = change(Kind::Reconcile, "me", 1);
        let holder = change(Kind::Teardown, "dead", 1);
        assert_eq!(claim(Some(&holder), &me, false, NOW), Claim::Busy);
        assert_eq!(
            claim(Some(&holder), &me, true, NOW),
            Claim::Take(me.clone()),
            "its execution ended"
        );
        let lease_ms = u64::try_from(LEASE.as_millis()).unwrap_or(u64::MAX);
        let silent = Change {
            seen_ms: NOW - lease_ms - 1,
            ..holder
        };
        assert_eq!(
            claim(Some(&silent), &me, false, NOW),
            Claim::Take(me),
            "nobody knows, but it is silent"
        );
    }

    #[test]
    fn what_ran_in_the_region_that_was_active_before_blocks_nobody() {
        let here = Change {
            execution: "arn:aws:states:us-east-2:000000000000:execution:reconcile-dr-dev:me".into(),
            ..change(Kind::Reconcile, "", 1)
        };
        let deploy = change(Kind::Deploy, "left-behind", 1);
        assert_eq!(claim(Some(&deploy), &here, false, NOW), Claim::Take(here.clone()));
        let teardown = change(Kind::Teardown, "runs-anywhere", 1);
        assert_eq!(claim(Some(&teardown), &here, false, NOW), Claim::Busy);
    }

    #[test]
    fn a_holder_that_asks_again_keeps_it_and_is_seen() {
        let held = change(Kind::Deploy, "mine", 1);
        let me = Change {
            began_ms: NOW,
            seen_ms: NOW,
            ..held.clone()
        };
        let Claim::Take(stored) = claim(Some(&held), &me, false, NOW) else {
            panic!("it is its own")
        };
        assert_eq!((stored.began_ms, stored.seen_ms), (held.began_ms, NOW));
    }

    #[test]
    fn an_arn_says_where_and_by_which_name_an_execution_runs() {
        let change = change(Kind::Deploy, "deploy-dev-7", 1);
        assert_eq!((change.region(), change.name()), ("us-east-1", "deploy-dev-7"));
    }

    #[test]
    fn the_generation_grows_with_the_configuration_only() {
        let spec = Spec::default();
        let mut other = spec.clone();
        other.api.rate_limit += 1;
        let (first, new) = Configuration::next(None, None, &spec);
        assert_eq!((first.generation, new), (1, true));
        assert_eq!(
            Configuration::next(Some(&first), Some(1), &spec),
            (first.clone(), false)
        );
        // Stored, but its deployment never began: the same generation is deployed.
        assert_eq!(
            Configuration::next(Some(&first), None, &spec),
            (first.clone(), false)
        );
        let (second, new) = Configuration::next(Some(&first), Some(1), &other);
        assert_eq!((second.generation, new), (2, true));
        // A record that is ahead of the item, as after a restore of the table, is never gone below.
        assert_eq!(Configuration::next(Some(&first), Some(7), &spec).0.generation, 8);
    }

    #[test]
    fn a_setting_is_a_change_even_if_no_resource_shows_it() {
        let mut now = Spec::default();
        now.artifacts.insert("health-probe".into(), "ab".repeat(32));
        assert_eq!(settings(&Spec::default(), &now), []);
        now.api.rate_limit += 1;
        now.alerts.address = Some("ops@example.com".into());
        let changes = settings(&Spec::default(), &now);
        let names: Vec<&str> = changes.iter().map(|change| change.field.as_str()).collect();
        assert_eq!(names, ["alerts.address", "api.rate_limit"]);
    }
}
