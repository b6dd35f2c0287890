//! The bodies of commands, read strictly: unknown members, wrong types and values out of range are refused before anything
//! else happens.

use serde::{Deserialize, Deserializer, Serialize};
use uuid::Uuid;

use super::{AccountDetails, Metadata, Order, PaymentOrder, RefundOrder};
use crate::currency;
use crate::limits::{HOLD_S, METADATA_MEMBERS, METADATA_NAME_CHARS, METADATA_VALUE_CHARS, TEXT_CHARS};

/// What is wrong with a request, member by member.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Invalid {
    /// The member of the body, or the parameter.
    pub field: &'static str,
    /// What it must be.
    pub must: String,
}

impl Invalid {
    fn new(field: &'static str, must: impl Into<String>) -> Self {
        Invalid {
            field,
            must: must.into(),
        }
    }
}

/// Why a body cannot be taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BadBody {
    /// Not JSON.
    Malformed(String),
    /// JSON of another shape: unknown or missing members, wrong types.
    Shape(String),
    /// Values out of range.
    Values(Vec<Invalid>),
}

fn parse<'a, T: Deserialize<'a>>(body: &'a [u8]) -> Result<T, BadBody> {
    let describe = |error: serde_json::Error| match error.classify() {
        serde_json::error::Category::Data => BadBody::Shape(error.to_string()),
        _ => BadBody::Malformed(error.to_string()),
    };
    // Serde would take an array for a struct.
    if body.trim_ascii_start().first() != Some(&b'{') {
        serde_json::from_slice::<serde::de::IgnoredAny>(body).map_err(describe)?;
        return Err(BadBody::Shape("expected an object".into()));
    }
    serde_json::from_slice(body).map_err(describe)
}

/// Tells an absent member from one that is `null`.
fn given<'de, D: Deserializer<'de>, T: Deserialize<'de>>(deserializer: D) -> Result<Option<T>, D::Error> {
    T::deserialize(deserializer).map(Some)
}

fn check_currency(code: &str, wrong: &mut Vec<Invalid>) {
    if currency::decimals(code).is_none() {
        wrong.push(Invalid::new(
            "currency",
            "be an ISO 4217 code in use, in upper case",
        ));
    }
}

fn check_text(field: &'static str, text: Option<&str>, wrong: &mut Vec<Invalid>) {
    let fits = |text: &str| text.chars().count() <= TEXT_CHARS && !text.chars().any(char::is_control);
    if text.is_some_and(|text| !fits(text)) {
        wrong.push(Invalid::new(
            field,
            format!("have at most {TEXT_CHARS} characters and no control characters"),
        ));
    }
}

fn check_account(field: &'static str, text: &str, wrong: &mut Vec<Invalid>) -> Uuid {
    id(text).unwrap_or_else(|| {
        wrong.push(Invalid::new(field, "be an account id"));
        Uuid::nil()
    })
}

/// The id in its one written form: hyphenated, lower case.
pub fn id(text: &str) -> Option<Uuid> {
    Uuid::try_parse(text)
        .ok()
        .filter(|id| id.hyphenated().encode_lower(&mut Uuid::encode_buffer()) == text)
}

fn check_metadata(metadata: &Metadata, wrong: &mut Vec<Invalid>) {
    let name = |text: &str| {
        (1..=METADATA_NAME_CHARS).contains(&text.chars().count()) && !text.chars().any(char::is_control)
    };
    let value = |text: &str| text.chars().count() <= METADATA_VALUE_CHARS && !text.contains('\0');
    if metadata.len() > METADATA_MEMBERS || !metadata.iter().all(|(key, text)| name(key) && value(text)) {
        wrong.push(Invalid::new(
            "metadata",
            format!(
                "have at most {METADATA_MEMBERS} members, names of 1 to {METADATA_NAME_CHARS} characters without control \
                 characters, and strings of at most {METADATA_VALUE_CHARS} characters"
            ),
        ));
    }
}

fn check_amount(amount_minor: Option<i64>, wrong: &mut Vec<Invalid>) {
    if amount_minor.is_some_and(|amount| amount <= 0) {
        wrong.push(Invalid::new("amount_minor", "be positive"));
    }
}

/// A body whose members are all optional may be left out.
fn parse_optional<'a, T: Deserialize<'a>>(body: &'a [u8]) -> Result<T, BadBody> {
    parse(if body.is_empty() { b"{}" } else { body })
}

fn taken(order: Order, wrong: Vec<Invalid>) -> Result<Order, BadBody> {
    if wrong.is_empty() {
        Ok(order)
    } else {
        Err(BadBody::Values(wrong))
    }
}

/// Reads the body of `POST /v1/accounts`.
///
/// # Errors
/// [`BadBody`], the first kind that applies.
pub fn open_account(body: &[u8]) -> Result<Order, BadBody> {
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Body {
        currency: String,
        #[serde(default, deserialize_with = "given")]
        limit_minor: Option<Option<i64>>,
        #[serde(default)]
        name: Option<String>,
        #[serde(default)]
        metadata: Metadata,
    }
    let body: Body = parse(body)?;
    let mut wrong = Vec::new();
    check_currency(&body.currency, &mut wrong);
    check_text("name", body.name.as_deref(), &mut wrong);
    check_metadata(&body.metadata, &mut wrong);
    let limit_minor = body.limit_minor.unwrap_or(Some(0));
    if limit_minor.is_some_and(|limit| limit > 0) {
        wrong.push(Invalid::new(
            "limit_minor",
            "be zero, negative or null: an account starts at zero",
        ));
    }
    let details = AccountDetails {
        currency: body.currency,
        limit_minor,
        name: body.name,
        metadata: body.metadata,
    };
    taken(Order::OpenAccount(details), wrong)
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "lowercase")]
enum CaptureMethod {
    #[default]
    Automatic,
    Manual,
}

/// Reads the body of `POST /v1/payments`.
///
/// # Errors
/// [`BadBody`], the first kind that applies.
pub fn pay(body: &[u8]) -> Result<Order, BadBody> {
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Body {
        from_account: String,
        to_account: String,
        amount_minor: i64,
        currency: String,
        #[serde(default)]
        reference: Option<String>,
        #[serde(default)]
        metadata: Metadata,
        #[serde(default)]
        capture_method: CaptureMethod,
        #[serde(default)]
        expires_after_s: Option<u32>,
    }
    let body: Body = parse(body)?;
    let mut wrong = Vec::new();
    let from_account = check_account("from_account", &body.from_account, &mut wrong);
    let to_account = check_account("to_account", &body.to_account, &mut wrong);
    if wrong.is_empty() && from_account == to_account {
        wrong.push(Invalid::new("to_account", "differ from `from_account`"));
    }
    check_amount(Some(body.amount_minor), &mut wrong);
    check_currency(&body.currency, &mut wrong);
    check_text("reference", body.reference.as_deref(), &mut wrong);
    check_metadata(&body.metadata, &mut wrong);
    let hold_s = match (body.capture_method, body.expires_after_s) {
        (CaptureMethod::Automatic, None) => None,
        (CaptureMethod::Automatic, Some(_)) => {
            wrong.push(Invalid::new(
                "expires_after_s",
                "be left out unless `capture_method` is `manual`",
            ));
            None
        }
        (CaptureMethod::Manual, hold_s) => Some(hold_s.unwrap_or(HOLD_S.default)),
    };
    if hold_s.is_some_and(|hold_s| !(HOLD_S.least..=HOLD_S.most).contains(&hold_s)) {
        wrong.push(Invalid::new(
            "expires_after_s",
            format!("be from {} to {}", HOLD_S.least, HOLD_S.most),
        ));
    }
    let order = PaymentOrder {
        from_account,
        to_account,
        amount_minor: body.amount_minor,
        currency: body.currency,
        reference: body.reference,
        metadata: body.metadata,
        hold_s,
    };
    taken(Order::Pay(order), wrong)
}

/// Reads the body of `POST /v1/payments/{id}/capture`.
///
/// # Errors
/// [`BadBody`], the first kind that applies.
pub fn capture(payment: Uuid, body: &[u8]) -> Result<Order, BadBody> {
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Body {
        #[serde(default)]
        amount_minor: Option<i64>,
    }
    let body: Body = parse_optional(body)?;
    let mut wrong = Vec::new();
    check_amount(body.amount_minor, &mut wrong);
    let amount_minor = body.amount_minor;
    taken(
        Order::Capture {
            payment,
            amount_minor,
        },
        wrong,
    )
}

/// Reads the body of `POST /v1/payments/{id}/refunds`.
///
/// # Errors
/// [`BadBody`], the first kind that applies.
pub fn refund(payment: Uuid, body: &[u8]) -> Result<Order, BadBody> {
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Body {
        #[serde(default)]
        amount_minor: Option<i64>,
        #[serde(default)]
        reference: Option<String>,
        #[serde(default)]
        metadata: Metadata,
    }
    let body: Body = parse_optional(body)?;
    let mut wrong = Vec::new();
    check_amount(body.amount_minor, &mut wrong);
    check_text("reference", body.reference.as_deref(), &mut wrong);
    check_metadata(&body.metadata, &mut wrong);
    let order = RefundOrder {
        payment,
        amount_minor: body.amount_minor,
        reference: body.reference,
        metadata: body.metadata,
    };
    taken(Order::Refund(order), wrong)
}

/// Reads a body that has nothing to say: `{}`, or none.
///
/// # Errors
/// [`BadBody`], the first kind that applies.
pub fn nothing(order: Order, body: &[u8]) -> Result<Order, BadBody> {
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Body {}
    let Body {} = parse_optional(body)?;
    Ok(order)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const A: &str = "0190a000-0000-7000-8000-000000000001";
    const B: &str = "0190a000-0000-7000-8000-000000000002";

    fn fields(result: Result<Order, BadBody>) -> Vec<&'static str> {
        match result {
            Err(BadBody::Values(wrong)) => wrong.into_iter().map(|invalid| invalid.field).collect(),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn an_absent_limit_is_zero_and_a_null_limit_is_none() {
        let limit = |body: &str| match open_account(body.as_bytes()).unwrap() {
            Order::OpenAccount(details) => details.limit_minor,
            other => panic!("{other:?}"),
        };
        assert_eq!(limit(r#"{"currency":"EUR"}"#), Some(0));
        assert_eq!(limit(r#"{"currency":"EUR","limit_minor":null}"#), None);
        assert_eq!(limit(r#"{"currency":"EUR","limit_minor":-5}"#), Some(-5));
    }

    #[test]
    fn every_wrong_member_is_named() {
        assert_eq!(
            fields(open_account(
                br#"{"currency":"EURO","limit_minor":1,"name":"a\u0000b"}"#
            )),
            ["currency", "name", "limit_minor"]
        );
        assert_eq!(
            fields(pay(
                br#"{"from_account":"x","to_account":"y","amount_minor":0,"currency":"ABC"}"#
            )),
            ["from_account", "to_account", "amount_minor", "currency"]
        );
        let same =
            format!(r#"{{"from_account":"{A}","to_account":"{A}","amount_minor":1,"currency":"EUR"}}"#);
        assert_eq!(fields(pay(same.as_bytes())), ["to_account"]);
    }

    #[test]
    fn shapes_and_broken_json_are_told_apart() {
        for body in [
            "[]",
            "{}",
            r#"{"currency":5}"#,
            r#"{"currency":"EUR","colour":1}"#,
            r#"{"currency":"EUR","limit_minor":-1.5}"#,
            r#"{"currency":"EUR","limit_minor":-99999999999999999999}"#,
            r#"{"currency":"EUR","currency":"USD"}"#,
        ] {
            assert!(
                matches!(open_account(body.as_bytes()), Err(BadBody::Shape(_))),
                "{body}"
            );
        }
        let deep = "[".repeat(100_000);
        for body in [
            "",
            "{",
            "{\"currency\":\"\\ud800\"}",
            "{\"currency\":\"\u{1}\"}",
            deep.as_str(),
        ] {
            assert!(
                matches!(open_account(body.as_bytes()), Err(BadBody::Malformed(_))),
                "{:.20}",
                body
            );
        }
        assert!(matches!(
            open_account(b"{\"currency\":\"\xff\"}"),
            Err(BadBody::Malformed(_) | BadBody::Shape(_))
        ));
    }

    #[test]
    fn the_request_hash_sees_values_and_not_how_they_are_written() {
        let hash = |body: String| pay(body.as_bytes()).unwrap().request_hash();
        let one = hash(format!(
            r#"{{"from_account":"{A}","to_account":"{B}","amount_minor":7,"currency":"EUR"}}"#
        ));
        let same = hash(format!(
            "{{ \"currency\":\"EUR\",\n\"reference\":null,\"amount_minor\":7,\"to_account\":\"{B}\",\"from_account\":\"{A}\"}}"
        ));
        let other = hash(format!(
            r#"{{"from_account":"{A}","to_account":"{B}","amount_minor":8,"currency":"EUR"}}"#
        ));
        assert_eq!(one, same);
        assert_ne!(one, other);
    }
}
