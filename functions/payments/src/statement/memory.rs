//! A bucket in memory: the double for handler tests.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use futures::TryStreamExt;
use sha2::{Digest, Sha256};

use super::store::{Object, Pieces, StorageError, Store};

/// Objects by their keys.
#[derive(Debug, Default)]
pub struct MemoryStore {
    objects: Mutex<BTreeMap<String, (Object, Vec<u8>)>>,
    unreachable: AtomicBool,
}

impl MemoryStore {
    /// Lets it answer, or not.
    pub fn set_unreachable(&self, unreachable: bool) {
        self.unreachable.store(unreachable, Ordering::SeqCst);
    }

    /// The object of a key, and what it is made of.
    pub fn object(&self, key: &str) -> Option<(Object, Vec<u8>)> {
        let objects = self.objects.lock().unwrap_or_else(PoisonError::into_inner);
        objects.get(key).cloned()
    }
}

#[async_trait]
impl Store for MemoryStore {
    async fn put(&self, object: &Object, pieces: Pieces<'_>) -> Result<(), StorageError> {
        let failed = |source| StorageError {
            operation: "PutObject",
            key: object.key.clone(),
            source,
        };
        if self.unreachable.load(Ordering::SeqCst) {
            return Err(failed("no answer".into()));
        }
        let pieces: Vec<_> = pieces.try_collect().await.map_err(failed)?;
        let body = pieces.concat();
        if (body.len() as u64, hex::encode(Sha256::digest(&body))) != (object.bytes, object.sha256.clone()) {
            return Err(failed("it is not what was announced".into()));
        }
        let mut objects = self.objects.lock().unwrap_or_else(PoisonError::into_inner);
        objects.insert(object.key.clone(), (object.clone(), body));
        Ok(())
    }

    async fn link(&self, object: &Object, valid: Duration) -> Result<String, StorageError> {
        Ok(format!("memory:{}?valid={}", object.key, valid.as_secs()))
    }
}
