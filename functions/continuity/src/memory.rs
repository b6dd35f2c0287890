//! The control table, the journal and the request counts in memory, with the same rules: for tests and simulation.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;

use crate::control::{ApiKey, ControlRecord, ControlStore, ListedKey, Swap};
use crate::entry::{EntryId, LedgerEntry};
use crate::error::StoreError;
use crate::journal::{Journal, is_settled};
use crate::observe::Observation;
use crate::rate::RateStore;

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A control table in memory. Set `unreachable` to play a region without quorum.
#[derive(Debug, Default)]
pub struct MemoryControl {
    record: Mutex<Option<ControlRecord>>,
    observations: Mutex<BTreeMap<String, Observation>>,
    documents: Mutex<BTreeMap<String, String>>,
    keys: Mutex<BTreeMap<String, (ApiKey, u64)>>,
    unreachable: std::sync::atomic::AtomicBool,
}

impl MemoryControl {
    /// A table that holds `record`.
    pub fn with(record: ControlRecord) -> Self {
        let control = MemoryControl::default();
        *lock(&control.record) = Some(record);
        control
    }

    /// The stack is deleted, with all that the table held, and with `record` deployed anew.
    pub fn reset(&self, record: Option<ControlRecord>) {
        *lock(&self.record) = record;
        lock(&self.observations).clear();
        lock(&self.documents).clear();
        lock(&self.keys).clear();
    }

    /// From now on every call fails, or works again.
    pub fn set_unreachable(&self, unreachable: bool) {
        self.unreachable
            .store(unreachable, std::sync::atomic::Ordering::SeqCst);
    }

    fn check(&self, operation: &'static str) -> Result<(), StoreError> {
        if self.unreachable.load(std::sync::atomic::Ordering::SeqCst) {
            return Err(StoreError::Call {
                operation,
                table: "control (memory)".into(),
                source: "no quorum".into(),
            });
        }
        Ok(())
    }
}

#[async_trait]
impl ControlStore for MemoryControl {
    async fn read(&self) -> Result<Option<ControlRecord>, StoreError> {
        self.check("GetItem")?;
        Ok(lock(&self.record).clone())
    }

    async fn create(&self, record: &ControlRecord) -> Result<Swap, StoreError> {
        self.check("PutItem")?;
        let mut stored = lock(&self.record);
        if stored.is_some() {
            return Ok(Swap::Lost);
        }
        *stored = Some(record.clone());
        Ok(Swap::Done)
    }

    async fn replace(&self, expected: &ControlRecord, new: &ControlRecord) -> Result<Swap, StoreError> {
        self.check("PutItem")?;
        let mut stored = lock(&self.record);
        if stored.as_ref().map(|record| record.version) != Some(expected.version) {
            return Ok(Swap::Lost);
        }
        *stored = Some(new.clone());
        Ok(Swap::Done)
    }

    async fn put_observation(&self, observation: &Observation) -> Result<Swap, StoreError> {
        self.check("PutItem")?;
        let mut stored = lock(&self.observations);
        let later = stored
            .get(&observation.observer)
            .is_some_and(|stored| stored.begun_ms > observation.begun_ms);
        if later {
            return Ok(Swap::Lost);
        }
        stored.insert(observation.observer.clone(), observation.clone());
        Ok(Swap::Done)
    }

    async fn observations(&self, regions: &[&str]) -> Result<Vec<Observation>, StoreError> {
        self.check("GetItem")?;
        let stored = lock(&self.observations);
        Ok(regions
            .iter()
            .filter_map(|region| stored.get(*region).cloned())
            .collect())
    }

    async fn document(&self, id: &str) -> Result<Option<String>, StoreError> {
        self.check("GetItem")?;
        Ok(lock(&self.documents).get(id).cloned())
    }

    async fn read_with(
        &self,
        documents: &[&str],
    ) -> Result<(Option<ControlRecord>, Vec<Option<String>>), StoreError> {
        self.check("BatchGetItem")?;
        let record = lock(&self.record).clone();
        let stored = lock(&self.documents);
        Ok((
            record,
            documents.iter().map(|id| stored.get(*id).cloned()).collect(),
        ))
    }

    async fn put_document(&self, id: &str, json: &str) -> Result<(), StoreError> {
        self.check("PutItem")?;
        lock(&self.documents).insert(id.to_owned(), json.to_owned());
        Ok(())
    }

    async fn swap_document(&self, id: &str, expected: Option<&str>, json: &str) -> Result<Swap, StoreError> {
        self.check("PutItem")?;
        let mut documents = lock(&self.documents);
        if documents.get(id).map(String::as_str) != expected {
            return Ok(Swap::Lost);
        }
        documents.insert(id.to_owned(), json.to_owned());
        Ok(Swap::Done)
    }

    async fn api_key(&self, sha256_hex: &str) -> Result<Option<ApiKey>, StoreError> {
        self.check("GetItem")?;
        Ok(lock(&self.keys).get(sha256_hex).map(|(key, _)| key.clone()))
    }

    async fn api_keys(&self) -> Result<Vec<ListedKey>, StoreError> {
        self.check("Scan")?;
        let keys = lock(&self.keys);
        let mut listed: Vec<ListedKey> = keys
            .iter()
            .map(|(sha256_hex, (key, created_ms))| ListedKey {
                sha256_hex: sha256_hex.clone(),
                key: key.clone(),
                created_ms: *created_ms,
            })
            .collect();
        listed.sort_by_key(|listed| listed.created_ms);
        Ok(listed)
    }

    async fn put_api_key(&self, sha256_hex: &str, key: &ApiKey, now_ms: u64) -> Result<(), StoreError> {
        self.check("PutItem")?;
        lock(&self.keys).insert(sha256_hex.to_owned(), (key.clone(), now_ms));
        Ok(())
    }

    async fn remove_api_key(&self, sha256_hex: &str) -> Result<(), StoreError> {
        self.check("DeleteItem")?;
        lock(&self.keys).remove(sha256_hex);
        Ok(())
    }
}

/// A journal in memory.
#[derive(Debug, Default)]
pub struct MemoryJournal {
    entries: Mutex<BTreeMap<(u64, EntryId), LedgerEntry>>,
    unreachable: std::sync::atomic::AtomicBool,
}

impl MemoryJournal {
    /// From now on every call fails, or works again.
    pub fn set_unreachable(&self, unreachable: bool) {
        self.unreachable
            .store(unreachable, std::sync::atomic::Ordering::SeqCst);
    }

    fn check(&self, operation: &'static str) -> Result<(), StoreError> {
        if self.unreachable.load(std::sync::atomic::Ordering::SeqCst) {
            return Err(StoreError::Call {
                operation,
                table: "journal (memory)".into(),
                source: "no quorum".into(),
            });
        }
        Ok(())
    }
}

#[async_trait]
impl Journal for MemoryJournal {
    async fn put(&self, epoch: u64, entry: &LedgerEntry) -> Result<(), StoreError> {
        self.check("PutItem")?;
        lock(&self.entries).insert((epoch, entry.id), entry.clone());
        Ok(())
    }

    async fn scan(&self, epoch: u64, settled: Option<EntryId>) -> Result<Vec<LedgerEntry>, StoreError> {
        self.check("Query")?;
        Ok(lock(&self.entries)
            .iter()
            .filter(|((under, id), _)| *under == epoch && !is_settled(*id, settled))
            .map(|(_, entry)| entry.clone())
            .collect())
    }
}

/// Request counts in memory.
#[derive(Debug, Default)]
pub struct MemoryRates {
    counts: Mutex<BTreeMap<String, (u64, u64)>>,
    unreachable: std::sync::atomic::AtomicBool,
}

impl MemoryRates {
    /// From now on every call fails, or works again.
    pub fn set_unreachable(&self, unreachable: bool) {
        self.unreachable
            .store(unreachable, std::sync::atomic::Ordering::SeqCst);
    }
}

#[async_trait]
impl RateStore for MemoryRates {
    async fn add(&self, sha256_hex: &str, window_s: u64, requests: u64) -> Result<u64, StoreError> {
        if self.unreachable.load(std::sync::atomic::Ordering::SeqCst) {
            return Err(StoreError::Call {
                operation: "UpdateItem",
                table: "request-rates (memory)".into(),
                source: "no answer".into(),
            });
        }
        let mut counts = lock(&self.counts);
        let (counted_s, count) = counts.entry(sha256_hex.to_owned()).or_default();
        if *counted_s > window_s {
            return Ok(requests);
        }
        if *counted_s < window_s {
            (*counted_s, *count) = (window_s, 0);
        }
        *count += requests;
        Ok(*count)
    }
}
