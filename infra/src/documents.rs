//! JSON documents that AWS keeps for us: policies, API definitions, state machines. Rendering of templates, a canonical
//! form with its hash, and the comparison of policies, which AWS returns in another spelling than it was given.

use std::collections::BTreeMap;

use serde_json::{Map, Value};
use sha2::{Digest, Sha256};
use thiserror::Error;

/// A template that cannot be rendered.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum TemplateError {
    /// The template names something that was not given.
    #[error("the template refers to `{0}`, which has no value")]
    Unknown(String),
    /// A `${` without its `}`.
    #[error("`{0}` opens a placeholder and does not close it")]
    Unclosed(String),
}

/// Replaces every `${name}` inside the template's strings. Keys are left alone; an unknown name is an error, so that a
/// misspelt placeholder never reaches AWS.
pub fn render(template: &Value, values: &BTreeMap<&str, String>) -> Result<Value, TemplateError> {
    Ok(match template {
        Value::String(text) => Value::String(render_text(text, values)?),
        Value::Array(items) => Value::Array(
            items
                .iter()
                .map(|item| render(item, values))
                .collect::<Result<_, _>>()?,
        ),
        Value::Object(members) => Value::Object(
            members
                .iter()
                .map(|(key, value)| Ok((key.clone(), render(value, values)?)))
                .collect::<Result<Map<_, _>, TemplateError>>()?,
        ),
        other => other.clone(),
    })
}

fn render_text(text: &str, values: &BTreeMap<&str, String>) -> Result<String, TemplateError> {
    let mut rendered = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("${") {
        let (name, tail) = after
            .split_once('}')
            .ok_or_else(|| TemplateError::Unclosed(text.to_owned()))?;
        let value = values
            .get(name)
            .ok_or_else(|| TemplateError::Unknown(name.to_owned()))?;
        rendered.push_str(before);
        rendered.push_str(value);
        rest = tail;
    }
    rendered.push_str(rest);
    Ok(rendered)
}

/// The document as compact JSON with sorted keys: equal values give equal text, however they were built.
#[must_use]
pub fn canonical(document: &Value) -> String {
    match document {
        Value::Object(members) => {
            let sorted: BTreeMap<_, _> = members.iter().collect();
            let members: Vec<_> = sorted
                .into_iter()
                .map(|(key, value)| format!("{}:{}", Value::String(key.clone()), canonical(value)))
                .collect();
            format!("{{{}}}", members.join(","))
        }
        Value::Array(items) => format!("[{}]", items.iter().map(canonical).collect::<Vec<_>>().join(",")),
        scalar => scalar.to_string(),
    }
}

/// SHA-256 of the canonical form, in hexadecimal.
#[must_use]
pub fn fingerprint(document: &Value) -> String {
    hex::encode(Sha256::digest(canonical(document)))
}

/// A policy in one spelling: lists where AWS allows a single value, sorted where the order means nothing, condition values
/// as strings. Two policies with the same normal form say the same.
#[must_use]
pub fn normal_policy(policy: &Value) -> Value {
    let Value::Object(members) = policy else {
        return policy.clone();
    };
    Value::Object(
        members
            .iter()
            .map(|(key, value)| match key.as_str() {
                "Statement" => (
                    key.clone(),
                    Value::Array(as_list(value).iter().map(normal_statement).collect()),
                ),
                _ => (key.clone(), value.clone()),
            })
            .collect(),
    )
}

fn normal_statement(statement: &Value) -> Value {
    let Value::Object(members) = statement else {
        return statement.clone();
    };
    Value::Object(
        members
            .iter()
            .map(|(key, value)| {
                let value = match key.as_str() {
                    "Action" | "NotAction" | "Resource" | "NotResource" => sorted_list(value),
                    "Principal" | "NotPrincipal" => normal_principal(value),
                    "Condition" => map_members(value, |operands| map_members(operands, sorted_list)),
                    _ => value.clone(),
                };
                (key.clone(), value)
            })
            .collect(),
    )
}

/// `"*"` and `{"AWS": "*"}` are the same principal.
fn normal_principal(principal: &Value) -> Value {
    match principal {
        Value::String(anyone) => serde_json::json!({ "AWS": [anyone] }),
        other => map_members(other, sorted_list),
    }
}

fn map_members(value: &Value, change: impl Fn(&Value) -> Value) -> Value {
    match value {
        Value::Object(members) => Value::Object(
            members
                .iter()
                .map(|(key, value)| (key.clone(), change(value)))
                .collect(),
        ),
        other => other.clone(),
    }
}

fn as_list(value: &Value) -> Vec<Value> {
    match value {
        Value::Array(items) => items.clone(),
        single => vec![single.clone()],
    }
}

fn sorted_list(value: &Value) -> Value {
    let mut items: Vec<String> = as_list(value)
        .iter()
        .map(|item| item.as_str().map_or_else(|| item.to_string(), str::to_owned))
        .collect();
    items.sort();
    items.dedup();
    Value::Array(items.into_iter().map(Value::String).collect())
}

/// Undoes percent encoding: IAM returns policy documents that way. Text without any comes back unchanged.
#[must_use]
pub fn percent_decoded(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut decoded = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let escaped = (bytes[at] == b'%')
            .then(|| {
                text.get(at + 1..at + 3)
                    .and_then(|digits| u8::from_str_radix(digits, 16).ok())
            })
            .flatten();
        match escaped {
            Some(byte) => {
                decoded.push(byte);
                at += 3;
            }
            None => {
                decoded.push(bytes[at]);
                at += 1;
            }
        }
    }
    String::from_utf8_lossy(&decoded).into_owned()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    #[test]
    fn a_template_is_rendered_inside_its_strings_only() {
        let template = json!({"${key}": ["arn:${region}:${name}", 1, null], "plain": true});
        let values = BTreeMap::from([("region", "us-east-1".to_owned()), ("name", "x".to_owned())]);
        assert_eq!(
            render(&template, &values).unwrap(),
            json!({"${key}": ["arn:us-east-1:x", 1, null], "plain": true})
        );
    }

    #[test]
    fn an_unknown_or_unclosed_placeholder_is_an_error() {
        let none = BTreeMap::new();
        assert_eq!(
            render(&json!("${x}"), &none),
            Err(TemplateError::Unknown("x".to_owned()))
        );
        assert_eq!(
            render(&json!("a${x"), &none),
            Err(TemplateError::Unclosed("a${x".to_owned()))
        );
    }

    #[test]
    fn the_fingerprint_does_not_depend_on_the_order_of_keys() {
        let one: Value = serde_json::from_str(r#"{"b":{"d":1,"c":2},"a":"x"}"#).unwrap();
        let two: Value = serde_json::from_str(r#"{"a":"x","b":{"c":2,"d":1}}"#).unwrap();
        assert_eq!(fingerprint(&one), fingerprint(&two));
        assert_ne!(fingerprint(&one), fingerprint(&json!({"a": "x"})));
    }

    #[test]
    fn policies_that_say_the_same_have_one_normal_form() {
        let ours = json!({"Version": "2012-10-17", "Statement": [{
            "Effect": "Deny", "Principal": "*", "Action": ["s3:*"], "Resource": ["b", "a"],
            "Condition": {"Bool": {"aws:SecureTransport": false}}}]});
        let theirs = json!({"Version": "2012-10-17", "Statement": {
            "Effect": "Deny", "Principal": {"AWS": "*"}, "Action": "s3:*", "Resource": ["a", "b"],
            "Condition": {"Bool": {"aws:SecureTransport": "false"}}}});
        assert_eq!(normal_policy(&ours), normal_policy(&theirs));
    }

    #[test]
    fn a_policy_that_allows_more_has_another_normal_form() {
        let narrow = json!({"Statement": [{"Effect": "Allow", "Action": "s3:GetObject", "Resource": "a"}]});
        let wide = json!({"Statement": [{"Effect": "Allow", "Action": ["s3:GetObject", "s3:PutObject"], "Resource": "a"}]});
        assert_ne!(normal_policy(&narrow), normal_policy(&wide));
    }

    #[test]
    fn percent_decoding_leaves_plain_and_broken_text_alone() {
        assert_eq!(
            percent_decoded("%7B%22a%22%3A%20%22%C3%A9%22%7D"),
            "{\"a\": \"é\"}"
        );
        assert_eq!(percent_decoded("100%, 5%zz"), "100%, 5%zz");
    }

    proptest! {
        #[test]
        fn canonical_text_parses_back_to_the_same_value(keys in proptest::collection::btree_map(".*", any::<i64>(), 0..8)) {
            let value = serde_json::to_value(&keys).unwrap();
            prop_assert_eq!(serde_json::from_str::<Value>(&canonical(&value)).unwrap(), value);
        }
    }
}
