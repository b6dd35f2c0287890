//! The control record: which region is active, in which epoch and phase. One item of the control table, changed only by
//! compare-and-set on its version.

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use crate::error::StoreError;
use crate::observe::Observation;

/// What the active region is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Phase {
    /// It acknowledges commands.
    Serving,
    /// A planned change is under way: it answers 503 and lets the standby catch up.
    Draining,
    /// It was promoted and replays the journal; it is not open yet.
    Recovering,
}

impl Phase {
    /// The word stored in the table.
    pub fn as_str(self) -> &'static str {
        match self {
            Phase::Serving => "serving",
            Phase::Draining => "draining",
            Phase::Recovering => "recovering",
        }
    }

    /// The phase of that word.
    pub fn parse(text: &str) -> Option<Phase> {
        [Phase::Serving, Phase::Draining, Phase::Recovering]
            .into_iter()
            .find(|phase| phase.as_str() == text)
    }
}

impl std::fmt::Display for Phase {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Who may acknowledge, and since when.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ControlRecord {
    /// Grows by one each time the active region changes. The first is 1.
    pub epoch: u64,
    /// The one region that may acknowledge, once the phase is `serving`.
    pub active_region: String,
    /// What it is doing.
    pub phase: Phase,
    /// The last epoch that was opened. A replay scans from here (rule d).
    pub last_served_epoch: u64,
    /// The configuration generation that may be applied.
    pub generation: u64,
    /// Who changed it last: an execution's name or an operator's command.
    pub changed_by: String,
    /// When epoch or phase changed last, milliseconds since the Unix epoch.
    pub since_ms: u64,
    /// Reconcile must not repair while this is set.
    pub repair_frozen: bool,
    /// An operator holds the stack in maintenance: no automatic failover.
    pub maintenance: bool,
    /// Grows with every write: the compare-and-set token.
    pub version: u64,
}

impl ControlRecord {
    /// The first record of a stack.
    pub fn first(home_region: &str, changed_by: &str, now_ms: u64) -> Self {
        ControlRecord {
            epoch: 1,
            active_region: home_region.to_owned(),
            phase: Phase::Serving,
            last_served_epoch: 1,
            generation: 1,
            changed_by: changed_by.to_owned(),
            since_ms: now_ms,
            repair_frozen: false,
            maintenance: false,
            version: 1,
        }
    }

    /// Whether `region` may acknowledge commands under `epoch`.
    pub fn may_acknowledge(&self, region: &str, epoch: u64) -> bool {
        self.epoch == epoch && self.active_region == region && self.phase == Phase::Serving
    }

    /// Whether this record and one that was read earlier are of one stack. Every write raises the version, so a lower one,
    /// or the same with another content, is of a stack that was deployed anew under the same name.
    pub fn follows(&self, earlier: &ControlRecord) -> bool {
        self.version > earlier.version || self == earlier
    }
}

/// How a compare-and-set ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Swap {
    /// The new value is stored.
    Done,
    /// Somebody else changed the record first; read it again.
    Lost,
}

/// An API key as the control table holds it, found by the SHA-256 of the key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApiKey {
    /// The name an operator gave it.
    pub name: String,
    /// What it may do: `payments:read`, `payments:write`.
    pub scopes: Vec<String>,
    /// How many requests a second it may send in one region: 1 to [`rate::MOST`](crate::rate::MOST).
    pub requests_per_s: u32,
    /// It no longer opens anything.
    pub revoked: bool,
}

/// An API key in a listing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListedKey {
    /// SHA-256 (hex) of the key.
    pub sha256_hex: String,
    /// What the table holds of it.
    pub key: ApiKey,
    /// When it was made, milliseconds since the Unix epoch.
    pub created_ms: u64,
}

/// The control table. Reads are strongly consistent; a region without quorum gets an error, never an old value.
#[async_trait]
pub trait ControlStore: Send + Sync {
    /// The control record, or `None` before the first deployment has finished.
    async fn read(&self) -> Result<Option<ControlRecord>, StoreError>;
    /// Stores the first record; `Lost` when there is one already.
    async fn create(&self, record: &ControlRecord) -> Result<Swap, StoreError>;
    /// Replaces `expected` (compared by version) with `new`, whose version must be one higher.
    async fn replace(&self, expected: &ControlRecord, new: &ControlRecord) -> Result<Swap, StoreError>;
    /// Stores what one observer saw, unless a later invocation of this observer ([`Observation::begun_ms`]) has stored something:
    /// then the answer is `Lost`.
    async fn put_observation(&self, observation: &Observation) -> Result<Swap, StoreError>;
    /// What the observers of these regions saw last; absent ones are left out.
    async fn observations(&self, regions: &[&str]) -> Result<Vec<Observation>, StoreError>;
    /// A JSON document of the table: `spec`, `deployment`, `change`, `drift`, `exercise#{id}`.
    async fn document(&self, id: &str) -> Result<Option<String>, StoreError>;
    /// The control record and these documents, in their order, in one look.
    async fn read_with(
        &self,
        documents: &[&str],
    ) -> Result<(Option<ControlRecord>, Vec<Option<String>>), StoreError>;
    /// Stores such a document.
    async fn put_document(&self, id: &str, json: &str) -> Result<(), StoreError>;
    /// Stores such a document if the table still holds `expected`, byte for byte; `None` stands for no document.
    async fn swap_document(&self, id: &str, expected: Option<&str>, json: &str) -> Result<Swap, StoreError>;
    /// The API key with this SHA-256 (hex).
    async fn api_key(&self, sha256_hex: &str) -> Result<Option<ApiKey>, StoreError>;
    /// Every API key, the oldest first. For operators: it reads the whole table.
    async fn api_keys(&self) -> Result<Vec<ListedKey>, StoreError>;
    /// Stores an API key under its SHA-256 (hex).
    async fn put_api_key(&self, sha256_hex: &str, key: &ApiKey, now_ms: u64) -> Result<(), StoreError>;
    /// Removes the API key with this SHA-256 (hex), as if it had never been: for keys that a machine made for itself. Regions
    /// trust a key that they found valid for half a minute at most. One that is not there is no error.
    async fn remove_api_key(&self, sha256_hex: &str) -> Result<(), StoreError>;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_active_region_acknowledges_and_only_while_serving() {
        let mut record = ControlRecord::first("us-east-1", "test", 0);
        assert!(record.may_acknowledge("us-east-1", 1));
        assert!(!record.may_acknowledge("us-east-2", 1));
        assert!(!record.may_acknowledge("us-east-1", 2));
        record.phase = Phase::Draining;
        assert!(!record.may_acknowledge("us-east-1", 1));
    }

    #[test]
    fn a_record_of_a_stack_deployed_anew_does_not_follow_the_old_one() {
        let old = ControlRecord::first("us-east-1", "test", 0);
        let changed = ControlRecord {
            maintenance: true,
            version: 2,
            ..old.clone()
        };
        let new = ControlRecord::first("us-east-1", "test", 5);
        for (record, earlier, follows) in [
            (&old, &old, true),
            (&changed, &old, true),
            (&old, &changed, false),
            (&new, &old, false),
            (&new, &changed, false),
        ] {
            assert_eq!(record.follows(earlier), follows, "{record:?} after {earlier:?}");
        }
    }
}
