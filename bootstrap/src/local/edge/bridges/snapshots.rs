//! Bridge: what the old writer of a global database held when it was taken back after an unplanned failover.
//!
//! Aurora makes a snapshot of it in its region, `rds:unplanned-global-failover-<cluster>-<time>`, which goes with the cluster's
//! retention, so that whoever wants to keep it copies it; a cluster restored from it or from a copy is a database of its own
//! (<https://docs.aws.amazon.com/AmazonRDS/latest/AuroraUserGuide/aurora-global-database-disaster-recovery.html>). The
//! emulator has no failover that loses anything, no copies and no restored clusters. Its launcher adds the records; here
//! they get their data: the mirror keeps it, and starts a server on it for each restored cluster.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    sync::{Mutex, PoisonError},
};

use tokio::net::TcpListener;

use crate::local::{
    MirrorError, Region,
    edge::{Shared, Tasks, database, percent},
};

/// Where the data of each snapshot is, and each restored cluster.
#[derive(Debug, Default)]
pub(in crate::local::edge) struct Snapshots {
    state: Mutex<State>,
    /// Held while records are made in the emulator, so that each is made once.
    pub(in crate::local::edge) showing: tokio::sync::Mutex<()>,
}

#[derive(Debug, Default)]
struct State {
    /// What was kept and has its record.
    shown: BTreeSet<(Region, u64)>,
    /// When what it holds was kept, of each snapshot.
    held: BTreeMap<(Region, String), u64>,
    restored: BTreeMap<(Region, String), Restored>,
}

#[derive(Debug)]
struct Restored {
    /// Where clients reach it.
    address: SocketAddr,
    listener: Tasks,
}

/// Whether the call can name a snapshot of an unplanned failover.
pub(in crate::local::edge) fn concerns(action: &str) -> bool {
    matches!(
        action,
        "DescribeDBClusterSnapshots" | "CopyDBClusterSnapshot" | "RestoreDBClusterFromSnapshot"
    )
}

/// The launcher's own call that makes the record of what was kept at that time.
pub(in crate::local::edge) fn record(at_ms: u64) -> String {
    format!("Action=LocalRecordFormerWriter&Version=2014-10-31&AtMs={at_ms}")
}

impl Snapshots {
    /// Those of what was kept that have no record yet.
    pub(in crate::local::edge) fn to_show(&self, region: Region, kept: Vec<u64>) -> Vec<u64> {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let unknown = kept
            .into_iter()
            .filter(|&at| !state.shown.contains(&(region, at)));
        unknown.collect()
    }

    /// The emulator has made the record.
    pub(in crate::local::edge) fn shown(&self, region: Region, at_ms: u64, answer: &str) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.shown.insert((region, at_ms));
        for part in answer.split("<DBClusterSnapshotIdentifier>").skip(1) {
            let name = part.split('<').next().unwrap_or_default().to_owned();
            state.held.insert((region, name), at_ms);
        }
    }

    /// Where a cluster is reached that was restored.
    pub(in crate::local::edge) fn address(&self, region: Region, cluster: &str) -> Option<SocketAddr> {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let restored = state.restored.get(&(region, cluster.to_owned()))?;
        Some(restored.address)
    }

    /// Does to the data what a successful call did to the records. Says whether the call was about any of this: then it
    /// changes no other server.
    pub(in crate::local::edge) async fn follow(
        &self,
        shared: &Shared,
        region: Region,
        form: &str,
    ) -> Result<bool, MirrorError> {
        let value = |name| percent::value(form, name).unwrap_or_default();
        match value("Action").as_str() {
            "CopyDBClusterSnapshot" => {
                let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
                let source = named(&value("SourceDBClusterSnapshotIdentifier"));
                if let Some(&at_ms) = state.held.get(&(region, source)) {
                    let target = value("TargetDBClusterSnapshotIdentifier");
                    state.held.insert((region, target), at_ms);
                }
                Ok(true)
            }
            "DeleteDBClusterSnapshot" => {
                let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
                let name = named(&value("DBClusterSnapshotIdentifier"));
                state.held.remove(&(region, name));
                Ok(true)
            }
            "RestoreDBClusterFromSnapshot" => {
                let snapshot = named(&value("SnapshotIdentifier"));
                self.restore(shared, region, snapshot, value("DBClusterIdentifier"))
                    .await?;
                Ok(true)
            }
            "DeleteDBCluster" => {
                let cluster = value("DBClusterIdentifier");
                let gone = {
                    let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
                    state.restored.remove(&(region, cluster.clone()))
                };
                let Some(restored) = gone else { return Ok(false) };
                restored.listener.stop().await;
                shared.mirror.discard(region, &cluster).await?;
                Ok(true)
            }
            _ => Ok(false),
        }
    }

    async fn restore(
        &self,
        shared: &Shared,
        region: Region,
        snapshot: String,
        cluster: String,
    ) -> Result<(), MirrorError> {
        let held = {
            let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
            state.held.get(&(region, snapshot.clone())).copied()
        };
        let Some(at_ms) = held else {
            return Err(MirrorError::Refused(format!(
                "the local cloud holds the data of snapshots after an unplanned failover only, and `{snapshot}` is none"
            )));
        };
        let server = shared.mirror.restore(region, at_ms, &cluster).await?;
        let failed = |error: std::io::Error| MirrorError::Failed(error.to_string());
        let listener = TcpListener::bind((region.address(), 0)).await.map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        let tasks = shared.tasks.child();
        let tls = shared.authority.address_config(region.address().into());
        database::serve(&tasks, listener, tls, server);
        let restored = Restored {
            address,
            listener: tasks,
        };
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.restored.insert((region, cluster), restored);
        Ok(())
    }
}

/// The name of a snapshot that is given by name or ARN. A name may hold a colon.
fn named(snapshot: &str) -> String {
    let of_arn = snapshot
        .starts_with("arn:")
        .then(|| snapshot.splitn(7, ':').nth(6));
    of_arn.flatten().unwrap_or(snapshot).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_snapshot_is_named_by_its_name_or_its_arn() {
        let automated = "rds:unplanned-global-failover-aurora-primary-dev-2026-11-27-02-00";
        for (given, expected) in [
            ("kept", "kept"),
            (automated, automated),
            (
                format!("arn:aws:rds:us-east-1:000000000000:cluster-snapshot:{automated}").as_str(),
                automated,
            ),
        ] {
            assert_eq!(named(given), expected);
        }
    }

    #[test]
    fn what_was_kept_is_shown_once() {
        let snapshots = Snapshots::default();
        assert_eq!(snapshots.to_show(Region::UsEast1, vec![1, 2]), [1, 2]);
        snapshots.shown(
            Region::UsEast1,
            1,
            "<a><DBClusterSnapshotIdentifier>rds:x</DBClusterSnapshotIdentifier></a>",
        );
        assert_eq!(snapshots.to_show(Region::UsEast1, vec![1, 2]), [2]);
        assert_eq!(snapshots.to_show(Region::UsEast2, vec![1]), [1]);
    }
}
