//! API keys: random, shown once, stored as SHA-256.

use continuity::control::{ApiKey, ControlStore, ListedKey};
use continuity::rate;
use rand::RngExt;
use serde::Serialize;
use sha2::{Digest, Sha256};

use crate::failure::Failure;

/// What a key may do.
pub const SCOPES: [&str; 2] = ["payments:read", "payments:write"];

/// A key in the clear, to be shown once and never stored.
#[derive(Clone)]
pub struct Secret(String);

impl Secret {
    /// The key.
    pub fn reveal(&self) -> &str {
        &self.0
    }

    /// What the control table stores: SHA-256, hex. The key has 256 random bits, so a plain hash cannot be searched.
    pub fn sha256_hex(&self) -> String {
        hex::encode(Sha256::digest(self.0.as_bytes()))
    }
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secret(..)")
    }
}

/// A new random key. The prefix lets secret scanners recognise it.
pub fn mint() -> Secret {
    let bytes: [u8; 32] = rand::rng().random();
    Secret(format!("usk_{}", hex::encode(bytes)))
}

/// Makes a key and stores its hash.
///
/// # Errors
/// An unknown scope, a rate that no key can have, or the control table does not answer.
pub async fn create(
    control: &dyn ControlStore,
    name: &str,
    scopes: &[String],
    requests_per_s: u32,
    now_ms: u64,
) -> Result<Secret, Failure> {
    if let Some(unknown) = scopes.iter().find(|scope| !SCOPES.contains(&scope.as_str())) {
        return Err(Failure::text(format!("`{unknown}` is not a scope"))
            .help(format!("scopes are {}", SCOPES.join(" and "))));
    }
    if !(1..=rate::MOST).contains(&requests_per_s) {
        return Err(
            Failure::text(format!("a key cannot send {requests_per_s} requests a second"))
                .help(format!("use 1 to {}", rate::MOST)),
        );
    }
    let secret = mint();
    let key = ApiKey {
        name: name.to_owned(),
        scopes: scopes.to_vec(),
        requests_per_s,
        revoked: false,
    };
    control.put_api_key(&secret.sha256_hex(), &key, now_ms).await?;
    Ok(secret)
}

/// A key as it is listed: never the key itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Listed {
    /// The beginning of its SHA-256, by which it can be revoked.
    pub id: String,
    /// The name an operator gave it.
    pub name: String,
    /// What it may do.
    pub scopes: Vec<String>,
    /// How many requests a second it may send in one region.
    pub requests_per_s: u32,
    /// It no longer opens anything.
    pub revoked: bool,
    /// When it was made, milliseconds since the Unix epoch.
    pub created_ms: u64,
}

/// Characters of a key's SHA-256 that are shown.
const ID_CHARS: usize = 12;

impl From<&ListedKey> for Listed {
    fn from(listed: &ListedKey) -> Self {
        Listed {
            id: listed.sha256_hex.chars().take(ID_CHARS).collect(),
            name: listed.key.name.clone(),
            scopes: listed.key.scopes.clone(),
            requests_per_s: listed.key.requests_per_s,
            revoked: listed.key.revoked,
            created_ms: listed.created_ms,
        }
    }
}

/// Every key, the oldest first.
///
/// # Errors
/// The control table does not answer.
pub async fn list(control: &dyn ControlStore) -> Result<Vec<Listed>, Failure> {
    Ok(control.api_keys().await?.iter().map(Listed::from).collect())
}

/// Revokes the key of that id or name. Regions trust a key that they found valid for half a minute at most. Twice is once.
///
/// # Errors
/// No key is called so, or several are, or the control table does not answer.
pub async fn revoke(control: &dyn ControlStore, called: &str) -> Result<Listed, Failure> {
    let keys = control.api_keys().await?;
    let ids = |key: &&ListedKey| called.len() >= ID_CHARS && key.sha256_hex.starts_with(called);
    let mut found: Vec<&ListedKey> = keys.iter().filter(ids).collect();
    if found.is_empty() {
        found = keys.iter().filter(|key| key.key.name == called).collect();
    }
    let help = "`understudy keys list` shows every key with its id";
    let [listed] = found.as_slice() else {
        let text = if found.is_empty() {
            format!("no key has the id or name `{called}`")
        } else {
            format!("{} keys have the name `{called}`: revoke by id", found.len())
        };
        return Err(Failure::text(text).help(help));
    };
    let revoked = ApiKey {
        revoked: true,
        ..listed.key.clone()
    };
    control
        .put_api_key(&listed.sha256_hex, &revoked, listed.created_ms)
        .await?;
    Ok(Listed {
        revoked: true,
        ..Listed::from(*listed)
    })
}

#[cfg(test)]
mod tests {
    use continuity::memory::MemoryControl;

    use super::*;

    #[tokio::test]
    async fn only_the_hash_of_a_key_is_stored() {
        let control = MemoryControl::default();
        let secret = create(&control, "test", &["payments:write".into()], 5, 0)
            .await
            .unwrap();
        let stored = control.api_key(&secret.sha256_hex()).await.unwrap().unwrap();
        assert_eq!(
            (stored.name.as_str(), stored.requests_per_s, stored.revoked),
            ("test", 5, false)
        );
        assert_eq!(control.api_key(secret.reveal()).await.unwrap(), None);
        assert!(!format!("{secret:?}").contains(secret.reveal()));
    }

    #[tokio::test]
    async fn an_unknown_scope_is_refused_before_anything_is_stored() {
        let error = create(&MemoryControl::default(), "test", &["admin".into()], 1, 0)
            .await
            .unwrap_err();
        assert!(error.message().contains("`admin`"));
        assert!(error.next().unwrap().contains("payments:read"));
    }

    #[tokio::test]
    async fn a_rate_that_no_key_can_have_is_refused() {
        let control = MemoryControl::default();
        for (requests_per_s, is_taken) in [(0, false), (1, true), (10_000, true), (10_001, false)] {
            let scopes = ["payments:read".to_owned()];
            let created = create(&control, "test", &scopes, requests_per_s, 0).await;
            assert_eq!(created.is_ok(), is_taken, "{requests_per_s}");
        }
    }

    #[tokio::test]
    async fn a_key_is_revoked_by_its_id_or_by_a_name_that_only_it_has() {
        let control = MemoryControl::default();
        let scopes = ["payments:read".to_owned()];
        let mut secrets = Vec::new();
        for (name, now_ms) in [("one", 1), ("two", 2), ("two", 3)] {
            secrets.push(create(&control, name, &scopes, 100, now_ms).await.unwrap());
        }
        let listed = list(&control).await.unwrap();
        assert_eq!(
            listed.iter().map(|key| key.created_ms).collect::<Vec<_>>(),
            [1, 2, 3]
        );
        assert!(!format!("{listed:?}").contains(secrets[0].reveal()));

        assert!(revoke(&control, "one").await.unwrap().revoked);
        let twice = revoke(&control, "two").await.unwrap_err();
        assert!(twice.message().contains("revoke by id"), "{twice}");
        revoke(&control, &listed[2].id).await.unwrap();
        revoke(&control, &listed[2].id).await.unwrap();
        let unknown = revoke(&control, "three").await.unwrap_err();
        assert!(unknown.message().contains("`three`"));
        let revoked: Vec<bool> = list(&control)
            .await
            .unwrap()
            .iter()
            .map(|key| key.revoked)
            .collect();
        assert_eq!(revoked, [true, false, true]);
    }

    #[test]
    fn two_keys_differ() {
        assert_ne!(mint().reveal(), mint().reveal());
    }
}
