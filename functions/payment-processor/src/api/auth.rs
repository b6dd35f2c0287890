//! API keys: found by their SHA-256 in the control table, so that no comparison depends on a secret's bytes. A key that was
//! found valid is trusted for a while; one that was not is looked up again each time.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use continuity::control::ApiKey;
use continuity::error::chain;
use http::HeaderMap;
use http::header::AUTHORIZATION;
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
pub(crate) struct KeyCache(Mutex<HashMap<String, (Instant, ApiKey)>>);

impl KeyCache {
    fn get(&self, hash: &str) -> Option<ApiKey> {
        let keys = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        keys.get(hash)
            .filter(|(until, _)| Instant::now() < *until)
            .map(|(_, key)| key.clone())
    }

    fn put(&self, hash: String, key: ApiKey) {
        let mut keys = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if keys.len() >= CACHED_API_KEYS {
            keys.clear();
        }
        keys.insert(hash, (Instant::now() + API_KEY_CACHE, key));
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

/// Checks that the request carries a valid key with `scope`.
///
/// # Errors
/// `Unauthorized`, which does not say why; `Forbidden`; `ControlUnavailable`.
pub async fn check(context: &Context, headers: &HeaderMap, scope: &'static str) -> Result<(), Problem> {
    let key = bearer(headers).ok_or(Problem::Unauthorized)?;
    let hash = hex::encode(Sha256::digest(key));
    let found = match context.keys.get(&hash) {
        Some(key) => key,
        None => {
            let found = timeout(context.request_timeout, context.control.api_key(&hash))
                .await
                .map_err(|_| Problem::TimedOut)?
                .map_err(|error| Problem::ControlUnavailable { cause: chain(&error) })?;
            let key = found.filter(|key| !key.revoked).ok_or(Problem::Unauthorized)?;
            context.keys.put(hash, key.clone());
            key
        }
    };
    if found.scopes.iter().any(|held| held == scope) {
        Ok(())
    } else {
        Err(Problem::Forbidden { scope })
    }
}
