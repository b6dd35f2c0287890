//! The pure planner: what we want against what is there. No clock, no network, no choice left for the executor.

use std::fmt;

use serde::Serialize;
use serde_json::{Map, Value};

use crate::kind::Kind;

/// One field that differs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct FieldChange {
    /// The field of the kind's `Spec`.
    pub field: String,
    /// What AWS has.
    pub from: Value,
    /// What we want.
    pub to: Value,
}

/// What to do with one resource.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "change", rename_all = "kebab-case")]
pub enum Change {
    /// It does not exist.
    Create,
    /// It differs in fields that can be changed in place.
    Update {
        /// The differences.
        fields: Vec<FieldChange>,
    },
    /// It differs in a field that cannot: it must be deleted and made again.
    Replace {
        /// The differences that force it.
        fields: Vec<FieldChange>,
        /// The key of what is made anew and takes this with it; none where it differs itself.
        #[serde(skip_serializing_if = "Option::is_none")]
        with: Option<String>,
    },
    /// It is what we want.
    Unchanged,
    /// It depends on something that does not exist yet.
    Unknown {
        /// The keys of what must exist first.
        until: Vec<String>,
    },
}

/// The comparison's result.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Planned {
    /// What to do.
    #[serde(flatten)]
    pub change: Change,
    /// Roles that are elsewhere than at home. Reported, never repaired: they follow live state.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub roles: Vec<FieldChange>,
}

/// Compares the desired `Spec` of a kind with the live one.
pub fn plan<K: Kind>(desired: &K::Spec, live: Option<&K::Spec>) -> Planned {
    let Some(live) = live else {
        return Planned {
            change: Change::Create,
            roles: Vec::new(),
        };
    };
    compare(&fields(desired), &fields(live), K::IMMUTABLE, K::ROLES)
}

fn fields<S: Serialize>(spec: &S) -> Map<String, Value> {
    match serde_json::to_value(spec) {
        Ok(Value::Object(map)) => map,
        Ok(Value::Null) => Map::new(),
        Ok(other) => Map::from_iter([("value".to_owned(), other)]),
        Err(error) => unreachable!("a Spec is plain data: {error}"),
    }
}

fn compare(
    desired: &Map<String, Value>,
    live: &Map<String, Value>,
    immutable: &[&str],
    moving: &[&str],
) -> Planned {
    let differences = desired.iter().filter_map(|(field, to)| {
        let from = live.get(field).unwrap_or(&Value::Null);
        (from != to).then(|| FieldChange {
            field: field.clone(),
            from: from.clone(),
            to: to.clone(),
        })
    });
    let (roles, rest): (Vec<_>, Vec<_>) = differences.partition(|d| moving.contains(&d.field.as_str()));
    let (fixed, fields): (Vec<_>, Vec<_>) = rest
        .into_iter()
        .partition(|d| immutable.contains(&d.field.as_str()));
    let change = if !fixed.is_empty() {
        Change::Replace {
            fields: fixed,
            with: None,
        }
    } else if !fields.is_empty() {
        Change::Update { fields }
    } else {
        Change::Unchanged
    };
    Planned { change, roles }
}

impl fmt::Display for FieldChange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {} -> {}", self.field, short(&self.from), short(&self.to))
    }
}

/// Long values (policies, API documents) are cut: the field's name is what a person needs.
fn short(value: &Value) -> String {
    const LIMIT: usize = 60;
    let text = value.to_string();
    match text.char_indices().nth(LIMIT) {
        Some((cut, _)) => format!("{}...", &text[..cut]),
        None => text,
    }
}

/// The changes, separated by semicolons.
pub(crate) fn join(fields: &[FieldChange]) -> String {
    fields
        .iter()
        .map(ToString::to_string)
        .collect::<Vec<_>>()
        .join("; ")
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Change::Create => f.write_str("create"),
            Change::Update { fields } => write!(f, "update ({})", join(fields)),
            Change::Replace { fields, .. } => write!(f, "replace ({})", join(fields)),
            Change::Unchanged => f.write_str("unchanged"),
            Change::Unknown { until } => write!(f, "known after {}", until.join(", ")),
        }
    }
}

impl fmt::Display for Planned {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.change.fmt(f)?;
        if !self.roles.is_empty() {
            write!(f, " [role elsewhere: {}]", join(&self.roles))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use serde_json::json;

    use super::*;

    fn map(value: Value) -> Map<String, Value> {
        value.as_object().unwrap().clone()
    }

    fn planned(desired: Value, live: Value) -> Planned {
        compare(&map(desired), &map(live), &["cidr"], &["writer"])
    }

    #[test]
    fn equal_specs_need_nothing() {
        let spec = json!({"cidr": "10.0.0.0/16", "name": "a", "writer": true});
        assert_eq!(planned(spec.clone(), spec).change, Change::Unchanged);
    }

    #[test]
    fn an_immutable_field_forces_replacement_whatever_else_differs() {
        let planned = planned(
            json!({"cidr": "b", "name": "b"}),
            json!({"cidr": "a", "name": "a"}),
        );
        let Change::Replace { fields, with: None } = planned.change else {
            panic!("{planned}")
        };
        assert_eq!(
            fields.iter().map(|f| f.field.as_str()).collect::<Vec<_>>(),
            ["cidr"]
        );
    }

    #[test]
    fn a_role_that_moved_is_reported_and_not_repaired() {
        let planned = planned(
            json!({"name": "a", "writer": true}),
            json!({"name": "a", "writer": false}),
        );
        assert_eq!(planned.change, Change::Unchanged);
        assert_eq!(
            planned.to_string(),
            "unchanged [role elsewhere: writer: false -> true]"
        );
    }

    #[test]
    fn long_values_are_cut_in_text_only() {
        let planned = planned(json!({"name": "x".repeat(500)}), json!({"name": "a"}));
        assert!(planned.to_string().len() < 120);
        let Change::Update { fields } = planned.change else {
            panic!()
        };
        assert_eq!(fields[0].to.as_str().unwrap().len(), 500);
    }
}
