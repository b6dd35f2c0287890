//! The local cloud: what AWS is to Understudy, on one machine, without an account.
//!
//! One daemon per cloud directory owns everything: the control planes (ministack), one PostgreSQL server per database
//! region, and the edge that every call passes. This file holds the words its parts share; how each part works is in
//! the part's own file.

pub mod ca;
pub mod client;
pub mod control;
pub mod dns;
pub mod edge;
pub mod emulator;
pub mod guardian;
pub mod mirror;
pub mod network;
pub mod postgres;
pub mod process;
pub mod python;
pub mod state;
pub mod supervisor;
pub mod throwaway;

use std::{
    fmt,
    net::{Ipv4Addr, SocketAddr},
    str::FromStr,
};

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

pub use client::{AttachedCloud, LocalError, StartOptions, attach, start, start_attached, stop};
pub use control::{Part, Status};
pub use network::{Network, NetworkState};
pub use state::{Cloud, DatabaseAddress};

/// The account every call to the local cloud belongs to.
pub const ACCOUNT: &str = "000000000000";

/// A region of the local cloud, named as AWS names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Region {
    /// us-east-1, the home region of every stack.
    #[serde(rename = "us-east-1")]
    UsEast1,
    /// us-east-2, the recovery region.
    #[serde(rename = "us-east-2")]
    UsEast2,
    /// us-west-2, the witness; it has no database.
    #[serde(rename = "us-west-2")]
    UsWest2,
}

impl Region {
    /// Every region of the local cloud.
    pub const ALL: [Region; 3] = [Region::UsEast1, Region::UsEast2, Region::UsWest2];
    /// The regions that have a database server.
    pub const DATABASES: [Region; 2] = [Region::UsEast1, Region::UsEast2];

    /// The name AWS gives the region.
    pub const fn name(self) -> &'static str {
        match self {
            Region::UsEast1 => "us-east-1",
            Region::UsEast2 => "us-east-2",
            Region::UsWest2 => "us-west-2",
        }
    }

    /// The loopback address on which the region's front door and its database listen. Linux answers on all of
    /// 127.0.0.0/8 without configuration.
    pub const fn address(self) -> Ipv4Addr {
        match self {
            Region::UsEast1 => Ipv4Addr::new(127, 0, 1, 1),
            Region::UsEast2 => Ipv4Addr::new(127, 0, 2, 1),
            Region::UsWest2 => Ipv4Addr::new(127, 0, 3, 1),
        }
    }

    /// The other region that has a database; none for the witness.
    pub const fn database_peer(self) -> Option<Region> {
        match self {
            Region::UsEast1 => Some(Region::UsEast2),
            Region::UsEast2 => Some(Region::UsEast1),
            Region::UsWest2 => None,
        }
    }
}

impl fmt::Display for Region {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// A name that is none of the local cloud's regions.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a region of the local cloud; it has us-east-1, us-east-2 and us-west-2")]
pub struct UnknownRegion(pub String);

impl FromStr for Region {
    type Err = UnknownRegion;

    fn from_str(name: &str) -> Result<Self, UnknownRegion> {
        Region::ALL
            .into_iter()
            .find(|region| region.name() == name)
            .ok_or_else(|| UnknownRegion(name.to_owned()))
    }
}

/// The database side of an RDS call could not be done. The edge answers it to the caller as an RDS error.
#[derive(Debug, thiserror::Error)]
pub enum MirrorError {
    /// AWS refuses this too: the caller asked for something the present roles do not allow.
    #[error("{0}")]
    Refused(String),
    /// The servers did not do as they were told.
    #[error("the database servers did not follow: {0}")]
    Failed(String),
}

/// Follows the RDS control plane with real PostgreSQL servers, one per database region, one of which is the writer.
///
/// The edge calls it when it sees the RDS operation succeed, before the answer goes back, so that whoever got the
/// answer finds the servers as it says. Every call made twice equals once.
#[async_trait]
pub trait AuroraMirror: Send + Sync + 'static {
    /// The region whose server accepts writes.
    fn writer(&self) -> Region;

    /// CreateDBCluster with a master user: makes the region's server the writer, and the role and database on it.
    /// A cluster without a master user (a global secondary) needs no call: its server follows the writer already.
    async fn create_cluster(
        &self,
        region: Region,
        user: &str,
        password: &str,
        database: &str,
    ) -> Result<(), MirrorError>;

    /// ModifyDBCluster with a password.
    async fn set_password(&self, user: &str, password: &str) -> Result<(), MirrorError>;

    /// FailoverGlobalCluster. With `allow_data_loss` promotes at once, whatever the old writer has not sent is lost, and
    /// the old writer rejoins as soon as its region can be reached; without, the same as `switchover`.
    async fn failover(&self, to: Region, allow_data_loss: bool) -> Result<(), MirrorError>;

    /// SwitchoverGlobalCluster: the writer stops, the other has everything, the roles change. Nothing is lost.
    async fn switchover(&self, to: Region) -> Result<(), MirrorError>;

    /// A region that an experiment cut off is joined again: its server follows the writer, whichever that is now.
    async fn joined(&self) -> Result<(), MirrorError>;

    /// DeleteDBCluster: the writer's drops the database and the role, a secondary's changes nothing.
    async fn delete_cluster(&self, region: Region) -> Result<(), MirrorError>;

    /// When each former writer of the region was taken back after an unplanned failover, of those whose data is kept:
    /// milliseconds since the Unix epoch.
    fn kept(&self, region: Region) -> Vec<u64>;

    /// RestoreDBClusterFromSnapshot: starts a server of its own for the cluster, on a copy of what was kept then, and says
    /// where it listens.
    async fn restore(&self, region: Region, at_ms: u64, cluster: &str) -> Result<SocketAddr, MirrorError>;

    /// DeleteDBCluster of a restored cluster: ends its server.
    async fn discard(&self, region: Region, cluster: &str) -> Result<(), MirrorError>;
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_region_reads_back_from_its_name() {
        for region in Region::ALL {
            assert_eq!(region.name().parse::<Region>().unwrap(), region);
            assert_eq!(serde_json::to_value(region).unwrap(), region.name());
        }
        assert!(
            "eu-west-1"
                .parse::<Region>()
                .unwrap_err()
                .to_string()
                .contains("eu-west-1")
        );
    }
}
