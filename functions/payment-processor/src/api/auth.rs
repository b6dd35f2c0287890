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
pub(crate) struct KeyCache(Mutex<HashMap<[u8; 32], (Instant, ApiKey)>>);

impl KeyCache {
    /// Whether a key that is trusted now has the scope; `None` when none is.
    fn allows(&self, hash: &[u8; 32], scope: &str) -> Option<bool> {
        let keys = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        keys.get(hash)
            .filter(|(until, _)| Instant::now() < *until)
            .map(|(_, key)| allows(key, scope))
    }

    fn put(&self, hash: [u8; 32], key: ApiKey) {
        let mut keys = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if keys.len() >= CACHED_API_KEYS {
            keys.clear();
        }
        keys.insert(hash, (Instant::now() + API_KEY_CACHE, key));
    }
}

fn allows(key: &ApiKey, scope: &str) -> bool {
    key.scopes.iter().any(|held| held == scope)
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
    let hash: [u8; 32] = Sha256::digest(key).into();
    let allowed = match context.keys.allows(&hash, scope) {
        Some(allowed) => allowed,
        None => {
            let hex = hex::encode(hash);
            let found = timeout(context.request_timeout, context.control.api_key(&hex))
                .await
                .map_err(|_| Problem::TimedOut)?
                .map_err(|error| Problem::ControlUnavailable { cause: chain(&error) })?;
            let key = found.filter(|key| !key.revoked).ok_or(Problem::Unauthorized)?;
            let allowed = allows(&key, scope);
            context.keys.put(hash, key);
            allowed
        }
    };
    if allowed {
        Ok(())
    } else {
        Err(Problem::Forbidden { scope })
    }
}
