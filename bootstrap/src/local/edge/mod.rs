//! The edge: everything that enters, leaves or crosses a region of the local cloud passes here, so that a region can be
//! cut off, its replication held, and each call be seen.
//!
//! - `api`: AWS API calls, one listener per place they come from; `connect`: HTTPS through the same listeners.
//! - `front_door`: HTTPS of a region's APIs. `database`: TLS in front of a region's PostgreSQL.
//! - `replication`: the links between the database servers.
//! - `verdict`: what a fault does to a call; `strike`: a caller that dies of one. `bridges`: what the emulator lacks.

mod api;
mod bridges;
mod connect;
mod database;
mod forward;
mod front_door;
mod net;
mod operation;
mod percent;
mod record;
mod replication;
mod strike;
mod verdict;

use std::{
    collections::BTreeMap,
    io,
    net::{Ipv4Addr, SocketAddr},
    path::PathBuf,
    sync::Arc,
};

use rustls::ServerConfig;
use tokio::{net::TcpListener, sync::Mutex};

use self::{
    bridges::{fis, global_tables::GlobalTables, snapshots::Snapshots},
    forward::Emulator,
    front_door::Stages,
    record::Recorder,
    strike::Strikes,
};
use super::{
    AuroraMirror, Network, Region,
    ca::Authority,
    dns::{Dns, DnsConfig, DnsHandle},
};

pub(in crate::local) use bridges::health_checks;
pub(in crate::local) use database::serve as serve_database;
pub(in crate::local) use net::Tasks;
pub use record::{Call, Tally, is_read};
pub use strike::{Strike, StrikeReport, Struck};
pub use verdict::{Needs, Verdict, verdict};

/// The log of calls, in the cloud directory.
pub const LOG_FILE: &str = "edge.log";
/// How often a port is tried that must be free on several addresses at once.
const PORT_ATTEMPTS: usize = 50;

/// What the edge needs to take its addresses.
#[derive(Debug)]
pub struct EdgeConfig {
    /// The cloud directory: the log and what the bridges remember are kept there.
    pub directory: PathBuf,
    /// The faults in force. Whoever holds it cuts, heals and lags.
    pub network: Arc<Network>,
    /// Issues the certificates that are served.
    pub authority: Arc<Authority>,
    /// How long a second of Route 53 takes here: 0.05 makes a check every 10 s one every 0.5 s.
    pub time_scale: f64,
}

/// What stands behind the edge.
pub struct Upstreams {
    /// The emulator.
    pub emulator: SocketAddr,
    /// The real PostgreSQL server of each database region.
    pub databases: BTreeMap<Region, SocketAddr>,
    /// Follows the RDS control plane.
    pub mirror: Arc<dyn AuroraMirror>,
}

/// The edge cannot do its work.
#[derive(Debug, thiserror::Error)]
pub enum EdgeError {
    /// A listener could not be opened.
    #[error("cannot listen on `{address}`")]
    Listen {
        /// Where.
        address: SocketAddr,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A file in the cloud directory could not be used.
    #[error("cannot use `{}`", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// Where the edge listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Addresses {
    /// AWS API calls and CONNECT of those outside all regions.
    pub outside: SocketAddr,
    /// The same for those inside each region.
    pub regions: BTreeMap<Region, SocketAddr>,
    /// HTTPS of each region's APIs, the same port in all.
    pub front_doors: BTreeMap<Region, SocketAddr>,
    /// TLS in front of each region's database, the same port in all.
    pub databases: BTreeMap<Region, SocketAddr>,
    /// Where a standby reaches its primary, by (primary, standby).
    pub replication: BTreeMap<(Region, Region), SocketAddr>,
    /// The name server, UDP and TCP.
    pub dns: SocketAddr,
}

/// An edge that has its addresses but answers nobody yet.
#[derive(Debug)]
pub struct Edge {
    config: EdgeConfig,
    addresses: Addresses,
    listeners: Listeners,
}

#[derive(Debug)]
struct Listeners {
    outside: TcpListener,
    regions: BTreeMap<Region, TcpListener>,
    front_doors: BTreeMap<Region, TcpListener>,
    databases: BTreeMap<Region, TcpListener>,
    replication: BTreeMap<(Region, Region), TcpListener>,
    dns: Dns,
}

/// What all parts of a running edge share.
struct Shared {
    network: Arc<Network>,
    emulator: Emulator,
    dns: DnsHandle,
    recorder: Recorder,
    strikes: Strikes,
    tasks: Tasks,
    stages: Stages,
    global_tables: GlobalTables,
    fis: fis::Fis,
    mirror: Arc<dyn AuroraMirror>,
    authority: Arc<Authority>,
    snapshots: Snapshots,
    /// Held while an RDS call changes the servers.
    changing_servers: Mutex<()>,
    front_doors: BTreeMap<Region, SocketAddr>,
    front_door_tls: BTreeMap<Region, Arc<ServerConfig>>,
    databases: BTreeMap<Region, SocketAddr>,
}

impl Edge {
    /// Takes the addresses. Clients that connect wait until [`Edge::serve`].
    pub async fn bind(config: EdgeConfig) -> Result<Self, EdgeError> {
        let outside = listen(SocketAddr::from((Ipv4Addr::LOCALHOST, 0))).await?;
        let mut regions = BTreeMap::new();
        for region in Region::ALL {
            regions.insert(region, listen(SocketAddr::from((Ipv4Addr::LOCALHOST, 0))).await?);
        }
        let front_doors = same_port(&Region::ALL).await?;
        let databases = same_port(&Region::DATABASES).await?;
        let mut replication = BTreeMap::new();
        for primary in Region::DATABASES {
            let Some(standby) = primary.database_peer() else {
                continue;
            };
            replication.insert(
                (primary, standby),
                listen(SocketAddr::from((Ipv4Addr::LOCALHOST, 0))).await?,
            );
        }
        let dns = Dns::bind().await?;
        let addresses = Addresses {
            outside: local_address(&outside)?,
            regions: addresses_of(&regions)?,
            front_doors: addresses_of(&front_doors)?,
            databases: addresses_of(&databases)?,
            replication: addresses_of(&replication)?,
            dns: dns.address(),
        };
        let listeners = Listeners {
            outside,
            regions,
            front_doors,
            databases,
            replication,
            dns,
        };
        Ok(Self {
            config,
            addresses,
            listeners,
        })
    }

    /// Where the edge listens.
    pub fn addresses(&self) -> &Addresses {
        &self.addresses
    }

    /// Starts to answer. The upstreams need not be up yet: until then calls fail as those to a service that is down.
    pub async fn serve(self, upstreams: Upstreams) -> Result<EdgeHandle, EdgeError> {
        let Edge {
            config,
            addresses,
            listeners,
        } = self;
        let tasks = Tasks::default();
        let log = config.directory.join(LOG_FILE);
        let recorder = Recorder::open(&log)?;
        let unusable = |source| EdgeError::File {
            path: config.directory.clone(),
            source,
        };
        let global_tables = GlobalTables::open(&config.directory).map_err(unusable)?;
        let fis = fis::Fis::open(&config.directory).map_err(unusable)?;
        let dns = listeners.dns.start(
            DnsConfig {
                emulator: upstreams.emulator,
                front_doors: addresses.front_doors.clone(),
                time_scale: config.time_scale,
            },
            &tasks,
        );
        let front_door_tls = Region::ALL.map(|region| {
            (
                region,
                config
                    .authority
                    .server_config(region.address().into(), &[b"http/1.1"]),
            )
        });
        let shared = Arc::new(Shared {
            network: config.network,
            emulator: Emulator::new(upstreams.emulator),
            dns,
            recorder,
            strikes: Strikes::default(),
            tasks,
            stages: Stages::default(),
            global_tables,
            fis,
            mirror: upstreams.mirror,
            authority: config.authority.clone(),
            snapshots: Snapshots::default(),
            changing_servers: Mutex::default(),
            front_doors: addresses.front_doors.clone(),
            front_door_tls: front_door_tls.into(),
            databases: addresses.databases.clone(),
        });
        fis::resume(&shared);
        api::serve(&shared, listeners.outside, None);
        for (region, listener) in listeners.regions {
            api::serve(&shared, listener, Some(region));
        }
        for (region, listener) in listeners.front_doors {
            front_door::serve(&shared, listener, region);
        }
        for (region, listener) in listeners.databases {
            if let Some(&server) = upstreams.databases.get(&region) {
                let tls = config.authority.address_config(region.address().into());
                database::serve(&shared.tasks, listener, tls, server);
            }
        }
        for ((primary, standby), listener) in listeners.replication {
            if let Some(&server) = upstreams.databases.get(&primary) {
                replication::serve(
                    &shared.tasks,
                    listener,
                    shared.network.clone(),
                    primary,
                    standby,
                    server,
                );
            }
        }
        Ok(EdgeHandle { addresses, shared })
    }
}

/// A running edge. Dropping it does not stop it.
#[derive(Clone)]
pub struct EdgeHandle {
    addresses: Addresses,
    shared: Arc<Shared>,
}

impl std::fmt::Debug for EdgeHandle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("EdgeHandle")
            .field("addresses", &self.addresses)
            .finish_non_exhaustive()
    }
}

impl EdgeHandle {
    /// Where the edge listens.
    pub fn addresses(&self) -> &Addresses {
        &self.addresses
    }

    /// The faults in force; cut, heal and lag go here.
    pub fn network(&self) -> &Arc<Network> {
        &self.shared.network
    }

    /// How many calls passed, by kind.
    pub fn tally(&self) -> &Tally {
        self.shared.recorder.tally()
    }

    /// Strikes callers down at the calls that are described; counts from here, for each by itself.
    pub fn strike(&self, strikes: Vec<Strike>) {
        self.shared.strikes.arm(strikes);
    }

    /// What became of the strikes that are armed.
    pub fn struck(&self) -> Vec<StrikeReport> {
        self.shared.strikes.report()
    }

    /// Strikes nobody any more, and says what became of the last.
    pub fn spare(&self) -> Vec<StrikeReport> {
        self.shared.strikes.disarm()
    }

    /// The name server.
    pub fn dns(&self) -> &DnsHandle {
        &self.shared.dns
    }

    /// Closes every connection and writes out the log.
    pub async fn stop(&self) {
        self.shared.tasks.stop().await;
    }
}

pub(in crate::local) async fn listen(address: SocketAddr) -> Result<TcpListener, EdgeError> {
    TcpListener::bind(address)
        .await
        .map_err(|source| EdgeError::Listen { address, source })
}

/// Listens on the loopback addresses of the regions, on one port that is free on all of them.
async fn same_port(regions: &[Region]) -> Result<BTreeMap<Region, TcpListener>, EdgeError> {
    let mut attempts = 0;
    loop {
        attempts += 1;
        match try_same_port(regions).await {
            Err(EdgeError::Listen { source, .. })
                if source.kind() == io::ErrorKind::AddrInUse && attempts < PORT_ATTEMPTS => {}
            result => return result,
        }
    }
}

async fn try_same_port(regions: &[Region]) -> Result<BTreeMap<Region, TcpListener>, EdgeError> {
    let mut port = 0;
    let mut listeners = BTreeMap::new();
    for &region in regions {
        let listener = listen(SocketAddr::from((region.address(), port))).await?;
        port = local_address(&listener)?.port();
        listeners.insert(region, listener);
    }
    Ok(listeners)
}

fn local_address(listener: &TcpListener) -> Result<SocketAddr, EdgeError> {
    listener.local_addr().map_err(|source| EdgeError::Listen {
        address: SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)),
        source,
    })
}

fn addresses_of<K: Copy + Ord>(
    listeners: &BTreeMap<K, TcpListener>,
) -> Result<BTreeMap<K, SocketAddr>, EdgeError> {
    listeners
        .iter()
        .map(|(&key, listener)| Ok((key, local_address(listener)?)))
        .collect()
}
