//! API keys: random, shown once, stored as SHA-256.

use continuity::control::{ApiKey, ControlStore};
use rand::RngExt;
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
/// An unknown scope, or the control table does not answer.
pub async fn create(
    control: &dyn ControlStore,
    name: &str,
    scopes: &[String],
    now_ms: u64,
) -> Result<Secret, Failure> {
    if let Some(unknown) = scopes.iter().find(|scope| !SCOPES.contains(&scope.as_str())) {
        return Err(Failure::text(format!("`{unknown}` is not a scope"))
            .help(format!("scopes are {}", SCOPES.join(" and "))));
    }
    let secret = mint();
    let key = ApiKey {
        name: name.to_owned(),
        scopes: scopes.to_vec(),
        revoked: false,
    };
    control.put_api_key(&secret.sha256_hex(), &key, now_ms).await?;
    Ok(secret)
}

#[cfg(test)]
mod tests {
    use continuity::memory::MemoryControl;

    use super::*;

    #[tokio::test]
    async fn only_the_hash_of_a_key_is_stored() {
        let control = MemoryControl::default();
        let secret = create(&control, "test", &["payments:write".into()], 0)
            .await
            .unwrap();
        let stored = control.api_key(&secret.sha256_hex()).await.unwrap().unwrap();
        assert_eq!((stored.name.as_str(), stored.revoked), ("test", false));
        assert_eq!(control.api_key(secret.reveal()).await.unwrap(), None);
        assert!(!format!("{secret:?}").contains(secret.reveal()));
    }

    #[tokio::test]
    async fn an_unknown_scope_is_refused_before_anything_is_stored() {
        let error = create(&MemoryControl::default(), "test", &["admin".into()], 0)
            .await
            .unwrap_err();
        assert!(error.message().contains("`admin`"));
        assert!(error.next().unwrap().contains("payments:read"));
    }

    #[test]
    fn two_keys_differ() {
        assert_ne!(mint().reveal(), mint().reveal());
    }
}
