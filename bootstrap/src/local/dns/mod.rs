//! Route 53's data plane: a name server for the zones of the emulator, with failover routing and real health checks.
//!
//! - `zones`: what the control plane holds, read once a second and whenever the edge sees a change.
//! - `answer`, `health`: the rules, pure. `checker`: the checks. `server`: the sockets.

mod answer;
mod bridge;
mod checker;
mod health;
mod server;
mod zones;

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    net::{Ipv4Addr, SocketAddr},
    sync::{Arc, Mutex, PoisonError, RwLock},
    time::Duration,
};

use aws_credential_types::Credentials;
use aws_sdk_route53::config::{BehaviorVersion, timeout::TimeoutConfig};
use hickory_proto::rr::RecordType;
use serde::Serialize;
use tokio::net::{TcpListener, UdpSocket};

use self::{
    answer::{States, World},
    checker::Checker,
    health::Health,
    zones::{Check, Protocol, Snapshot},
};
use super::{
    Region,
    edge::{EdgeError, Tasks},
};

pub(in crate::local) use zones::ExecuteApi;

/// How often the control plane is read.
const POLL_INTERVAL: Duration = Duration::from_secs(1);
/// How long the control plane may take to answer.
const FETCH_TIMEOUT: Duration = Duration::from_secs(2);
/// The shortest time between two checks of an endpoint, whatever the time scale.
const MIN_INTERVAL: Duration = Duration::from_millis(50);
/// How often a port is tried that must be free for UDP and TCP.
const PORT_ATTEMPTS: usize = 50;

/// What the name server depends on.
#[derive(Debug, Clone)]
pub struct DnsConfig {
    /// The emulator, whose Route 53 holds the zones.
    pub emulator: SocketAddr,
    /// Where each region's APIs answer HTTPS.
    pub front_doors: BTreeMap<Region, SocketAddr>,
    /// How long a second of Route 53 takes here.
    pub time_scale: f64,
}

/// A name server that has its address but answers nobody yet.
#[derive(Debug)]
pub struct Dns {
    address: SocketAddr,
    udp: UdpSocket,
    tcp: TcpListener,
}

impl Dns {
    /// Takes a port that is free for UDP and TCP.
    pub async fn bind() -> Result<Self, EdgeError> {
        let mut attempts = 0;
        loop {
            attempts += 1;
            let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
            let tcp = super::edge::listen(any).await?;
            let address = tcp
                .local_addr()
                .map_err(|source| EdgeError::Listen { address: any, source })?;
            match UdpSocket::bind(address).await {
                Ok(udp) => return Ok(Self { address, udp, tcp }),
                Err(error) if error.kind() == io::ErrorKind::AddrInUse && attempts < PORT_ATTEMPTS => {}
                Err(source) => return Err(EdgeError::Listen { address, source }),
            }
        }
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Starts to answer, to follow the zones and to check endpoints.
    pub(in crate::local) fn start(self, config: DnsConfig, tasks: &Tasks) -> DnsHandle {
        let emulator = format!("http://{}", config.emulator);
        let handle = DnsHandle {
            shared: Arc::new(Shared {
                client: client(&emulator),
                checker: Checker::new(config.front_doors.clone()),
                config,
                snapshot: RwLock::default(),
                refreshing: tokio::sync::Mutex::default(),
                checks: Mutex::default(),
            }),
        };
        let answering = handle.clone();
        tasks.spawn(server::udp(self.udp, move |name, kind| {
            answering.answer(name, kind)
        }));
        let answering = handle.clone();
        let answer = Arc::new(move |name: &_, kind| answering.answer(name, kind));
        tasks.accept(self.tcp, move |stream, _| server::tcp(stream, answer.clone()));
        let polling = handle.clone();
        tasks.spawn(async move {
            loop {
                polling.refresh().await;
                tokio::time::sleep(POLL_INTERVAL).await;
            }
        });
        let checking = handle.clone();
        let check_tasks = tasks.clone();
        tasks.spawn(async move { checking.run_checks(&check_tasks).await });
        handle
    }
}

/// A running name server. Cheap to clone.
#[derive(Clone)]
pub struct DnsHandle {
    shared: Arc<Shared>,
}

impl std::fmt::Debug for DnsHandle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("DnsHandle")
            .field("config", &self.shared.config)
            .finish_non_exhaustive()
    }
}

struct Shared {
    config: DnsConfig,
    client: aws_sdk_route53::Client,
    checker: Checker,
    snapshot: RwLock<Arc<Snapshot>>,
    /// Held while the zones are read, so that an older answer never replaces a newer one.
    refreshing: tokio::sync::Mutex<()>,
    checks: Mutex<BTreeMap<String, Watched>>,
}

/// A health check as it stands.
#[derive(Debug, Clone, Default)]
struct Watched {
    health: Health,
    last_error: Option<String>,
    /// Results so far.
    results: u64,
}

/// What the name server knows, for `understudy local status` and tests.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct DnsStatus {
    /// The names of the zones.
    pub zones: Vec<String>,
    /// The health checks, by id.
    pub checks: BTreeMap<String, CheckStatus>,
}

/// What the name server knows of a health check.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct CheckStatus {
    /// The host or address that is checked.
    pub endpoint: String,
    /// Whether Route 53 considers it healthy.
    pub healthy: bool,
    /// How often it was checked.
    pub results: u64,
    /// Why the last check failed, if it did.
    pub last_error: Option<String>,
}

impl DnsHandle {
    /// The front door that a client who asks for this name is sent to now. `None` for names that no zone here has, and for
    /// those that lead elsewhere.
    pub fn resolve(&self, name: &str) -> Option<SocketAddr> {
        let name = zones::parse_name(name).ok()?;
        let snapshot = self.snapshot();
        let states = self.states(&snapshot);
        let region = answer::region_behind_now(self.world(&snapshot, &states), &name)?;
        self.shared.config.front_doors.get(&region).copied()
    }

    /// Reads the zones and health checks again; on return the answers follow them.
    pub async fn refresh(&self) {
        let _one_at_a_time = self.shared.refreshing.lock().await;
        match zones::fetch(&self.shared.client).await {
            Ok(fetched) => {
                let mut snapshot = self
                    .shared
                    .snapshot
                    .write()
                    .unwrap_or_else(PoisonError::into_inner);
                if **snapshot != fetched {
                    *snapshot = Arc::new(fetched);
                }
            }
            // The emulator may not be up yet, or be busy: what was known stays, as with Route 53 itself.
            Err(error) => tracing::debug!(%error, "the zones cannot be read"),
        }
    }

    /// What is known now.
    pub fn status(&self) -> DnsStatus {
        let snapshot = self.snapshot();
        let watched = self.shared.checks.lock().unwrap_or_else(PoisonError::into_inner);
        let checks = snapshot.checks.iter().map(|(id, check)| {
            let watched = watched.get(id).cloned().unwrap_or_default();
            let address = check.address.map(|address| address.to_string());
            let status = CheckStatus {
                endpoint: check.host.clone().or(address).unwrap_or_default(),
                healthy: watched.health.is_healthy(check.policy),
                results: watched.results,
                last_error: watched.last_error,
            };
            (id.clone(), status)
        });
        DnsStatus {
            zones: snapshot.zones.iter().map(|zone| zone.name.to_ascii()).collect(),
            checks: checks.collect(),
        }
    }

    /// The API of the region that a public name has a record for.
    pub(in crate::local) fn api_behind(&self, name: &str, region: Region) -> Option<ExecuteApi> {
        answer::api_behind_in(&self.snapshot(), &zones::parse_name(name).ok()?, region)
    }

    fn answer(&self, name: &hickory_proto::rr::Name, kind: RecordType) -> answer::Answer {
        let snapshot = self.snapshot();
        let states = self.states(&snapshot);
        answer::answer(self.world(&snapshot, &states), name, kind)
    }

    fn world<'a>(&self, snapshot: &'a Snapshot, states: &'a States) -> World<'a> {
        World {
            snapshot,
            states,
            time_scale: self.shared.config.time_scale,
        }
    }

    fn snapshot(&self) -> Arc<Snapshot> {
        self.shared
            .snapshot
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    fn states(&self, snapshot: &Snapshot) -> States {
        let watched = self.shared.checks.lock().unwrap_or_else(PoisonError::into_inner);
        let healthy = |(id, check): (&String, &Check)| {
            let health = watched.get(id).map(|watched| watched.health).unwrap_or_default();
            (id.clone(), health.is_healthy(check.policy))
        };
        snapshot.checks.iter().map(healthy).collect()
    }

    /// Starts a task for each health check that appears. Each ends when its check is gone.
    async fn run_checks(&self, tasks: &Tasks) {
        let mut running = BTreeSet::new();
        loop {
            let snapshot = self.snapshot();
            running.retain(|id| snapshot.checks.contains_key(id));
            for id in snapshot.checks.keys() {
                if running.insert(id.clone()) {
                    let (handle, id) = (self.clone(), id.clone());
                    tasks.spawn(async move { handle.watch(id).await });
                }
            }
            tokio::time::sleep(MIN_INTERVAL).await;
        }
    }

    /// Checks one endpoint at its interval, for as long as the check exists.
    async fn watch(&self, id: String) {
        while let Some(check) = self.snapshot().checks.get(&id).cloned() {
            let next = tokio::time::Instant::now() + self.interval(&check);
            if check.protocol != Protocol::Unobserved {
                let result = self.shared.checker.check(&check).await;
                self.observed(&id, &check, result.err());
            }
            tokio::time::sleep_until(next).await;
        }
        self.shared
            .checks
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(&id);
    }

    fn observed(&self, id: &str, check: &Check, error: Option<checker::CheckError>) {
        let mut checks = self.shared.checks.lock().unwrap_or_else(PoisonError::into_inner);
        let watched = checks.entry(id.to_owned()).or_default();
        let before = watched.health.is_healthy(check.policy);
        watched.health.observe(error.is_none(), check.policy);
        watched.last_error = error.map(|error| error.to_string());
        watched.results += 1;
        let after = watched.health.is_healthy(check.policy);
        if before != after {
            let endpoint = check.host.as_deref().unwrap_or_default();
            tracing::info!(check = id, endpoint, healthy = after, reason = ?watched.last_error, "a health check changed");
        }
    }

    fn interval(&self, check: &Check) -> Duration {
        check
            .interval
            .mul_f64(self.shared.config.time_scale.max(0.0))
            .max(MIN_INTERVAL)
    }
}

/// A client of the emulator's Route 53, past the edge: the data plane is not a caller.
fn client(emulator: &str) -> aws_sdk_route53::Client {
    let timeouts = TimeoutConfig::builder().operation_timeout(FETCH_TIMEOUT).build();
    let config = aws_sdk_route53::Config::builder()
        .behavior_version(BehaviorVersion::latest())
        .region(aws_sdk_route53::config::Region::from_static("us-east-1"))
        .credentials_provider(Credentials::new("test", "test", None, None, "local"))
        .endpoint_url(emulator)
        .timeout_config(timeouts)
        .http_client(bridge::http_client())
        .build();
    aws_sdk_route53::Client::from_conf(config)
}
