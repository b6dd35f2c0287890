//! API keys: found by their SHA-256 in the control table, so that no comparison depends on a secret's bytes. A key that was
//! found valid is trusted for a while; one that was not is looked up again each time.
//!
//! Every route but `/health` stands behind [`guard`].

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use axum::extract::Request;
use axum::middleware::Next;
use axum::response::Response;
use continuity::control::ApiKey;
use continuity::error::chain;
use http::header::AUTHORIZATION;
use http::{HeaderMap, Method};
use sha2::{Digest, Sha256};
use tokio::time::{Instant, timeout};

use super::problem::Problem;
use crate::context::Context;
use crate::limits::{API_KEY_BYTES, API_KEY_CACHE, CACHED_API_KEYS};

/// Allows looking.
pub const READ: &str = "payments:read";
/// Allows commands.
pub const WRITE: &str = "payments:write";

/// Keys found valid, by their SHA-256, and until when that is trusted.
#[derive(Default)]
pub(crate) struct KeyCache(Mutex<HashMap<[u8; 32], (Instant, ApiKey)>>);

impl KeyCache {
    /// Judges a key that is trusted now; `None` when it is not.
    fn judge(&self, hash: &[u8; 32], scope: &'static str) -> Option<Result<u32, Problem>> {
        let keys = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        keys.get(hash)
            .filter(|(until, _)| Instant::now() < *until)
            .map(|(_, key)| judge(key, scope))
    }

    fn put(&self, hash: [u8; 32], key: ApiKey) {
        let mut keys = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if keys.len() >= CACHED_API_KEYS {
            keys.clear();
        }
        keys.insert(hash, (Instant::now() + API_KEY_CACHE, key));
    }
}

/// The requests a second of a valid key, if it has the scope.
fn judge(key: &ApiKey, scope: &'static str) -> Result<u32, Problem> {
    if key.scopes.iter().any(|held| held == scope) {
        Ok(key.requests_per_s)
    } else {
        Err(Problem::Forbidden { scope })
    }
}

fn bearer(headers: &HeaderMap) -> Option<&str> {
    let mut values = headers.get_all(AUTHORIZATION).iter();
    let (value, None) = (values.next()?, values.next()) else {
        return None;
    };
    let (scheme, key) = value.to_str().ok()?.split_once(' ')?;
    let key = key.trim();
    (scheme.eq_ignore_ascii_case("bearer") && !key.is_empty() && key.len() <= API_KEY_BYTES).then_some(key)
}

/// Lets a request through that carries a valid key with the scope of its method, and whose key has not sent enough in this second.
///
/// # Errors
/// `Unauthorized`, which does not say why; `Forbidden`; `RateLimited`; `ControlUnavailable`. Nothing was executed then.
pub async fn guard(context: &Context, request: Request, next: Next) -> Result<Response, Problem> {
    let scope = if request.method() == Method::POST {
        WRITE
    } else {
        READ
    };
    let key = bearer(request.headers()).ok_or(Problem::Unauthorized)?;
    let hash: [u8; 32] = Sha256::digest(key).into();
    let requests_per_s = match context.keys.judge(&hash, scope) {
        Some(judged) => judged?,
        None => look_up(context, hash, scope).await?,
    };
    let now_ms = (context.clock)();
    context
        .rates
        .serve(&hash, requests_per_s, now_ms, next.run(request))
        .await
        .ok_or(Problem::RateLimited { requests_per_s })
}

/// Judges a key by the control table.
async fn look_up(context: &Context, hash: [u8; 32], scope: &'static str) -> Result<u32, Problem> {
    let hex = hex::encode(hash);
    let found = timeout(context.request_timeout, context.control.api_key(&hex))
        .await
        .map_err(|_| Problem::TimedOut)?
        .map_err(|error| Problem::ControlUnavailable { cause: chain(&error) })?;
    let key = found.filter(|key| !key.revoked).ok_or(Problem::Unauthorized)?;
    let judged = judge(&key, scope);
    context.keys.put(hash, key);
    judged
}
