//! `cloud.json`: what a running local cloud tells those who use it, and where its files are.

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
    path::PathBuf,
};

use serde::{Deserialize, Serialize};

use super::Region;

/// The version of `cloud.json` that this program writes and reads.
pub const VERSION: u32 = 1;
/// The name of the file in the cloud directory.
pub const FILE: &str = "cloud.json";

/// A running local cloud, as `cloud.json` describes it. The file holds a secret (`control_token`): mode 0600.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cloud {
    /// Version of this format.
    pub version: u32,
    /// Process id of the daemon.
    pub pid: u32,
    /// When the daemon became ready, milliseconds since 1970.
    pub started_ms: u64,
    /// The cloud directory, absolute.
    pub directory: PathBuf,
    /// `AWS_ENDPOINT_URL` and `HTTPS_PROXY` of an operator, who is outside all regions.
    pub endpoint_url: String,
    /// The same as seen from inside each region.
    pub region_endpoints: BTreeMap<Region, String>,
    /// Where each region answers HTTPS for its APIs.
    pub front_doors: BTreeMap<Region, SocketAddr>,
    /// The name server that plays Route 53's data plane.
    pub dns: SocketAddr,
    /// Certificates to trust (PEM): the local authority's.
    pub ca_certificate: PathBuf,
    /// The control interface, HTTP.
    pub control: SocketAddr,
    /// The bearer token of the control interface.
    pub control_token: String,
    /// Where functions reach each region's database (TLS).
    pub databases: BTreeMap<Region, DatabaseAddress>,
    /// One line per call that passed the edge.
    pub edge_log: PathBuf,
}

impl std::fmt::Debug for Cloud {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Cloud")
            .field("pid", &self.pid)
            .field("directory", &self.directory)
            .field("endpoint_url", &self.endpoint_url)
            .finish_non_exhaustive()
    }
}

/// Address and port of a region's database.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct DatabaseAddress {
    /// The region's loopback address.
    pub address: IpAddr,
    /// A port that was free when the cloud started.
    pub port: u16,
}

impl From<DatabaseAddress> for SocketAddr {
    fn from(database: DatabaseAddress) -> Self {
        SocketAddr::new(database.address, database.port)
    }
}
