//! What the region that was taken over from still has of its ledger: Aurora's snapshot of it, a copy that stays, and a database that
//! is restored from the copy. All of it is in that region, which answers again by then.

use async_trait::async_trait;
use continuity::names::{Names, Slot};
use infra::cloud::Cloud;
use infra::error::KindError;
use infra::kind::Site;
use infra::resources::db_snapshot::{self, AfterFailover, Endpoint};

use crate::error::StepError;

/// Whose the things are that are made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Owner {
    /// The account.
    pub account: String,
    /// Tags beside Understudy's own.
    pub tags: Vec<(String, String)>,
}

/// The lost tail. What takes time is asked for again until it is done, and each call does what is left to do.
#[async_trait]
pub trait Tail: Send + Sync {
    /// Aurora's snapshots after unplanned failovers, in no order.
    async fn snapshots(&self) -> Result<Vec<AfterFailover>, StepError>;
    /// Copies a snapshot to one of this name, which stays. Says whether it is complete.
    async fn keep(&self, owner: &Owner, snapshot: &str, name: &str) -> Result<bool, StepError>;
    /// Whether the copy of this name is there.
    async fn is_kept(&self, name: &str) -> Result<bool, StepError>;
    /// Restores the copy to a database of its own, `cluster`; where it is reached, once it is ready.
    async fn open(&self, owner: &Owner, name: &str, cluster: &str) -> Result<Option<Endpoint>, StepError>;
    /// Deletes the database. Says whether it is gone. The copy stays.
    async fn close(&self, cluster: &str) -> Result<bool, StepError>;
}

/// Aurora in the region of a slot.
pub struct AuroraTail {
    cloud: Cloud,
    names: Names,
    slot: Slot,
    region: String,
    key: String,
}

impl AuroraTail {
    /// In this region, which is the slot's.
    pub fn new(cloud: Cloud, names: Names, slot: Slot, region: &str) -> Self {
        AuroraTail {
            cloud,
            names,
            slot,
            region: region.to_owned(),
            key: db_snapshot::key(slot),
        }
    }

    fn site<'a>(&'a self, owner: Option<&'a Owner>) -> Site<'a> {
        Site {
            cloud: &self.cloud,
            region: &self.region,
            key: &self.key,
            suffix: self.names.suffix(),
            account: owner.map_or("", |owner| &owner.account),
            extra_tags: owner.map_or(&[], |owner| &owner.tags),
        }
    }

    fn cluster(&self) -> String {
        self.names.aurora_cluster(self.slot)
    }
}

fn failed(error: KindError) -> StepError {
    StepError::DatabaseFailed {
        operation: error.operation,
        subject: error.subject.clone(),
        source: error.into(),
    }
}

#[async_trait]
impl Tail for AuroraTail {
    async fn snapshots(&self) -> Result<Vec<AfterFailover>, StepError> {
        db_snapshot::after_failovers(&self.site(None), &self.cluster())
            .await
            .map_err(failed)
    }

    async fn keep(&self, owner: &Owner, snapshot: &str, name: &str) -> Result<bool, StepError> {
        db_snapshot::keep(&self.site(Some(owner)), snapshot, name, &self.cluster())
            .await
            .map_err(failed)
    }

    async fn is_kept(&self, name: &str) -> Result<bool, StepError> {
        db_snapshot::is_there(&self.site(None), name)
            .await
            .map_err(failed)
    }

    async fn open(&self, owner: &Owner, name: &str, cluster: &str) -> Result<Option<Endpoint>, StepError> {
        db_snapshot::open(&self.site(Some(owner)), name, cluster, &self.cluster())
            .await
            .map_err(failed)
    }

    async fn close(&self, cluster: &str) -> Result<bool, StepError> {
        db_snapshot::close(&self.site(None), cluster)
            .await
            .map_err(failed)
    }
}
