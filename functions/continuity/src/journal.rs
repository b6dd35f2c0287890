//! The journal: every acknowledged entry, held synchronously by two regions, under the epoch that acknowledged it.

use async_trait::async_trait;

use crate::entry::{EntryId, LedgerEntry};
use crate::error::StoreError;

/// How many partitions an epoch's entries are spread over.
pub const SHARDS: u32 = 16;

/// The partition of an entry under an epoch. A key always falls into the same shard (FNV-1a, 32 bits).
pub fn partition(epoch: u64, idempotency_key: &str) -> String {
    let hash = idempotency_key.bytes().fold(0x811c_9dc5_u32, |hash, byte| {
        (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193)
    });
    format!("{epoch}#{}", hash % SHARDS)
}

/// All partitions of an epoch.
pub fn partitions(epoch: u64) -> impl Iterator<Item = String> {
    (0..SHARDS).map(move |shard| format!("{epoch}#{shard}"))
}

/// Whether a replay may leave an entry out: a ledger whose log is settled up to `settled` has every entry of that epoch with that
/// number or a smaller one.
///
/// Entries of earlier epochs are never left out: a replay of an earlier takeover may have brought them after the ledger was put
/// into its epoch.
pub fn is_settled(entry: EntryId, settled: Option<EntryId>) -> bool {
    settled.is_some_and(|settled| entry.epoch == settled.epoch && entry.seq <= settled.seq)
}

/// The journal table.
#[async_trait]
pub trait Journal: Send + Sync {
    /// Puts an entry under an epoch. Twice is once: the key is the entry's identity.
    async fn put(&self, epoch: u64, entry: &LedgerEntry) -> Result<(), StoreError>;
    /// Every entry under an epoch (strongly consistent), ordered by identity, but those that are settled (see [`is_settled`]).
    async fn scan(&self, epoch: u64, settled: Option<EntryId>) -> Result<Vec<LedgerEntry>, StoreError>;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_key_falls_into_one_of_the_scanned_partitions() {
        let all: Vec<String> = partitions(7).collect();
        for n in 0..1000 {
            assert!(all.contains(&partition(7, &format!("key-{n}"))));
        }
    }
}
