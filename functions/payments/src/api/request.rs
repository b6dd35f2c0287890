//! The parts of a request that every command has: content type, body, idempotency key.

use axum::body::{Body, to_bytes};
use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderMap, Request};

use super::problem::Problem;
use crate::limits::{BODY_BYTES, IDEMPOTENCY_KEY_BYTES};
use crate::telemetry::Received;

/// The parts of a command.
pub(super) struct Asked {
    /// The request.
    pub received: Received,
    /// Its idempotency key.
    pub key: String,
    /// Its body.
    pub body: Bytes,
}

/// Reads them, in the order of their problems' precedence.
pub(super) async fn command(request: Request<Body>) -> Result<Asked, Problem> {
    let (mut parts, body) = request.into_parts();
    let received = parts.extensions.remove::<Received>();
    if !declared_as_json(&parts.headers) {
        return Err(Problem::UnsupportedMediaType);
    }
    let body = to_bytes(body, BODY_BYTES)
        .await
        .map_err(|_| Problem::BodyTooLarge)?;
    Ok(Asked {
        received: received.unwrap_or_else(|| Received::now("unknown")),
        key: idempotency_key(&parts.headers)?,
        body,
    })
}

fn declared_as_json(headers: &HeaderMap) -> bool {
    let Some(value) = headers.get(CONTENT_TYPE) else {
        return true;
    };
    let kind = value
        .to_str()
        .unwrap_or_default()
        .split(';')
        .next()
        .unwrap_or_default()
        .trim();
    kind.eq_ignore_ascii_case("application/json")
}

/// The key: as it is, or as the quoted string of the IETF draft.
fn idempotency_key(headers: &HeaderMap) -> Result<String, Problem> {
    let mut values = headers.get_all("idempotency-key").iter();
    let value = values.next().ok_or(Problem::IdempotencyKeyMissing)?;
    if values.next().is_some() {
        return Err(Problem::IdempotencyKeyInvalid);
    }
    let text = value.to_str().map_err(|_| Problem::IdempotencyKeyInvalid)?.trim();
    let quoted = text.strip_prefix('"').and_then(|text| text.strip_suffix('"'));
    let key = quoted.unwrap_or(text);
    let fits =
        (1..=IDEMPOTENCY_KEY_BYTES).contains(&key.len()) && key.bytes().all(|byte| byte.is_ascii_graphic());
    if fits {
        Ok(key.to_owned())
    } else {
        Err(Problem::IdempotencyKeyInvalid)
    }
}
