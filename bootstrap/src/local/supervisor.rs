//! The daemon of a local cloud: starts every part in order, says when it is ready, answers commands, and ends everything
//! when it is told to, when its starter goes, or when a part does not start. It restarts nothing by itself: a part that
//! ends is a fault that `status` shows.

use std::{
    collections::BTreeMap,
    fs, io,
    net::{Ipv4Addr, SocketAddr},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use tokio::{
    net::TcpListener,
    signal::unix::{SignalKind, signal},
    sync::watch,
    time::timeout,
};
use tokio_util::sync::CancellationToken;

use super::{
    AuroraMirror, Cloud, DatabaseAddress, Network, Region,
    ca::{Authority, CaError},
    control::{self, Commands, Database, Heal, Lag, Outage, Part, Process, Status},
    edge::{Edge, EdgeConfig, EdgeError, EdgeHandle, Strike, StrikeReport, Upstreams},
    emulator::{self, Emulator, EmulatorConfig, EmulatorError},
    guardian::{self, Guardian, GuardianError},
    mirror::Mirror,
    postgres::{Pair, PairConfig, PostgresError, Programs, Role},
    process::{ProcessId, Runtime},
    python::{self, PythonError},
    state::{self, Layout},
};

/// How long a second of Route 53 takes: its checks every 10 s are every 0.5 s here.
pub const TIME_SCALE: f64 = 0.05;
/// Factor on the waits of workflows.
pub const WAIT_SCALE: f64 = 0.1;
/// The region whose server is the writer at first.
const FIRST_WRITER: Region = Region::UsEast1;
/// How long the guardian of a daemon that was killed may need to clean up.
const PREDECESSOR_PATIENCE: Duration = Duration::from_secs(20);
/// How long the edge may take to close its connections.
const EDGE_PATIENCE: Duration = Duration::from_secs(2);

/// When the daemon ends without being told to by a command or a signal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lifetime {
    /// Never.
    UntilStopped,
    /// When standard input ends: with whoever holds its other end.
    UntilStdinCloses,
    /// When standard input ends before [`DETACH`] came: with a starter that did not get to the end.
    UntilDetached,
}

/// What a starter writes to let the daemon live on.
pub const DETACH: &[u8] = b"detach\n";

/// How to run the daemon.
#[derive(Debug, Clone)]
pub struct ServeOptions {
    /// The cloud directory.
    pub directory: PathBuf,
    /// When it ends by itself.
    pub lifetime: Lifetime,
    /// How long a second of Route 53 takes.
    pub time_scale: f64,
    /// Functions and workflows may do only what the policies of their roles allow.
    pub enforce_policies: bool,
}

/// What the daemon tells its starter, one JSON value per line on standard output.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Announcement {
    /// What is being done.
    Progress(String),
    /// `cloud.json` is there.
    Ready,
    /// It does not start, and why.
    Failed(String),
}

/// The daemon did not start.
#[derive(Debug, thiserror::Error)]
pub enum SupervisorError {
    /// A file could not be handled.
    #[error("cannot use `{path}`")]
    File {
        /// Which file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Another daemon has the directory.
    #[error("a local cloud runs in `{0}` already")]
    Taken(PathBuf),
    /// The Python environment.
    #[error(transparent)]
    Python(#[from] PythonError),
    /// The certificates.
    #[error("cannot make the local certificate authority")]
    Ca(#[from] CaError),
    /// The edge.
    #[error("the edge did not start")]
    Edge(#[from] EdgeError),
    /// The control planes.
    #[error(transparent)]
    Emulator(#[from] EmulatorError),
    /// The databases.
    #[error(transparent)]
    Postgres(#[from] PostgresError),
    /// The guardian.
    #[error(transparent)]
    Guardian(#[from] GuardianError),
}

fn file(path: &Path) -> impl FnOnce(io::Error) -> SupervisorError + use<> {
    let path = path.to_owned();
    move |source| SupervisorError::File { path, source }
}

/// Runs a local cloud from its start to its end.
///
/// Guarantees that nothing of it is left when this returns: no process, no file but the logs. Should this process be
/// killed, the guardian does the same.
pub async fn serve(
    options: ServeOptions,
    announce: impl Fn(Announcement) + Send + Sync + 'static,
) -> Result<(), SupervisorError> {
    let layout = Layout::new(&options.directory).map_err(file(&options.directory))?;
    fs::create_dir_all(layout.logs()).map_err(file(&layout.logs()))?;
    let _lock = take(&layout).await?;
    // What a predecessor left that was killed together with its guardian.
    end_all(&layout).await?;
    layout.clear_logs().map_err(file(&layout.logs()))?;
    let runtime = Arc::new(Runtime::create(layout.record()).map_err(file(&layout.record()))?);
    let guardian = Guardian::start(&layout).await?;

    let stop = CancellationToken::new();
    stop_on_signals(&stop).map_err(file(&layout.directory))?;
    stop_with_stdin(&stop, options.lifetime);
    let progress = |text: &str| announce(Announcement::Progress(text.to_owned()));
    let outcome = tokio::select! {
        () = stop.cancelled() => Ok(()),
        outcome = start(&layout, &options, &runtime, &stop, &progress) => match outcome {
            Ok(running) => {
                announce(Announcement::Ready);
                tracing::info!("ready");
                stop.cancelled().await;
                running.stop(&layout).await;
                Ok(())
            }
            Err(error) => Err(error),
        },
    };
    tracing::info!("ending");
    end_all(&layout).await?;
    guardian.dismiss().await;
    outcome
}

/// Takes the directory for this process, after the guardian of a killed predecessor has cleaned it up.
async fn take(layout: &Layout) -> Result<fs::File, SupervisorError> {
    let path = layout.daemon_lock();
    let lock = fs::File::create(&path).map_err(file(&path))?;
    match lock.try_lock() {
        Ok(()) => {}
        Err(fs::TryLockError::WouldBlock) => return Err(SupervisorError::Taken(layout.directory.clone())),
        Err(fs::TryLockError::Error(error)) => return Err(file(&path)(error)),
    }
    let path = layout.guardian_lock();
    let guardian = fs::File::create(&path).map_err(file(&path))?;
    let waiting = tokio::task::spawn_blocking(move || guardian.lock());
    let waited = timeout(PREDECESSOR_PATIENCE, waiting).await;
    waited
        .map_err(io::Error::other)
        .and_then(|joined| joined.map_err(io::Error::other))
        .flatten()
        .map_err(file(&path))?;
    Ok(lock)
}

async fn end_all(layout: &Layout) -> Result<(), SupervisorError> {
    let own = layout.clone();
    tokio::task::spawn_blocking(move || guardian::end_all(&own))
        .await
        .map_err(io::Error::other)
        .flatten()
        .map_err(file(&layout.directory))
}

fn stop_on_signals(stop: &CancellationToken) -> io::Result<()> {
    for kind in [
        SignalKind::terminate(),
        SignalKind::interrupt(),
        SignalKind::hangup(),
    ] {
        let mut signals = signal(kind)?;
        let stop = stop.clone();
        tokio::spawn(async move {
            signals.recv().await;
            stop.cancel();
        });
    }
    Ok(())
}

fn stop_with_stdin(stop: &CancellationToken, lifetime: Lifetime) {
    if lifetime == Lifetime::UntilStopped {
        return;
    }
    let stop = stop.clone();
    // A thread, not a task: a read of standard input cannot be cancelled and must not hold up the end.
    std::thread::spawn(move || {
        let mut said = Vec::new();
        let _ = io::Read::read_to_end(&mut io::stdin(), &mut said);
        if lifetime == Lifetime::UntilStdinCloses || said != DETACH {
            stop.cancel();
        }
    });
}

/// A cloud that is ready.
struct Running {
    edge: EdgeHandle,
    emulator: Emulator,
    pair: Arc<Pair>,
}

impl Running {
    /// Ends the parts in good order, after the file by which others find them.
    async fn stop(self, layout: &Layout) {
        let _ = state::remove(&layout.cloud());
        if timeout(EDGE_PATIENCE, self.edge.stop()).await.is_err() {
            tracing::warn!("the edge did not close in time");
        }
        tokio::join!(self.emulator.stop(), self.pair.stop_immediately());
    }
}

/// Starts the parts.
///
/// 1. the Python environment;
/// 2. the edge takes its addresses, so that all others can be told them;
/// 3. the control planes begin to start;
/// 4. the edge begins to answer;
/// 5. the databases, while the control planes finish;
/// 6. the control interface;
/// 7. `cloud.json`.
async fn start(
    layout: &Layout,
    options: &ServeOptions,
    runtime: &Arc<Runtime>,
    stop: &CancellationToken,
    progress: python::Progress<'_>,
) -> Result<Running, SupervisorError> {
    let environment = python::ensure(progress).await?;
    let authorization_log = options.enforce_policies.then(|| layout.authorization_log());
    let directory = layout.directory.clone();
    let network = Arc::new(Network::default());
    let authority = Arc::new(Authority::open(&directory)?);
    let certificates = authority.certificate_path().to_owned();
    progress("starting the control planes");
    let edge = Edge::bind(EdgeConfig {
        directory: directory.clone(),
        network: network.clone(),
        authority,
        time_scale: options.time_scale,
    })
    .await?;
    let addresses = edge.addresses().clone();
    let region_endpoints: BTreeMap<Region, String> = addresses
        .regions
        .iter()
        .map(|(&region, address)| (region, format!("http://{address}")))
        .collect();
    let mut emulator = Emulator::start(EmulatorConfig {
        environment: environment.clone(),
        launcher: directory.join("launcher.py"),
        temporary: layout.temporary(),
        log: layout.log(emulator::NAME),
        endpoints: region_endpoints.clone(),
        certificates: certificates.clone(),
        wait_scale: WAIT_SCALE,
        authorization_log: authorization_log.clone(),
        runtime: runtime.clone(),
    })
    .await?;

    let programs = Programs::new(environment.postgres_programs())?;
    let databases = Region::DATABASES.map(|region| free_address(region).map(|address| (region, address)));
    let databases: BTreeMap<Region, SocketAddr> = databases
        .into_iter()
        .collect::<io::Result<_>>()
        .map_err(file(&directory))?;
    let upstreams = addresses
        .replication
        .iter()
        .map(|(&(_primary, standby), &link)| (standby, link))
        .collect();
    let pair = Arc::new(Pair::new(PairConfig {
        directory: database_directory(layout, &programs, runtime)?,
        programs,
        addresses: databases.clone(),
        upstreams,
        logs: Region::DATABASES
            .map(|region| (region, layout.log(&format!("postgres-{region}"))))
            .into(),
        password: secret(),
        runtime: runtime.clone(),
    }));
    let mirror = Arc::new(Mirror::new(pair.clone(), network.clone(), FIRST_WRITER));
    let edge = edge
        .serve(Upstreams {
            emulator: emulator.address(),
            databases,
            mirror: mirror.clone(),
        })
        .await?;
    progress("starting the databases");
    let (databases, control_planes) = tokio::join!(pair.create(FIRST_WRITER), emulator.ready());
    databases?;
    control_planes?;

    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
        .await
        .map_err(file(&directory))?;
    let cloud = Cloud {
        version: state::VERSION,
        pid: std::process::id(),
        started_ms: now_ms(),
        endpoint_url: format!("http://{}", addresses.outside),
        region_endpoints,
        front_doors: addresses.front_doors,
        dns: addresses.dns,
        ca_certificate: certificates,
        control: listener.local_addr().map_err(file(&directory))?,
        control_token: secret(),
        databases: addresses
            .databases
            .iter()
            .map(|(&region, address)| {
                (
                    region,
                    DatabaseAddress {
                        address: address.ip(),
                        port: address.port(),
                    },
                )
            })
            .collect(),
        edge_log: layout.edge_log(),
        authorization_log,
        directory,
    };
    let daemon = Arc::new(Daemon {
        cloud: cloud.clone(),
        network,
        mirror,
        pair: pair.clone(),
        edge: edge.clone(),
        runtime: runtime.clone(),
        stop: stop.clone(),
    });
    tokio::spawn(report_end(emulator.ended(), stop.clone()));
    tokio::spawn(control::serve(listener, cloud.control_token.clone(), daemon));
    cloud.write(layout).map_err(file(&layout.cloud()))?;
    Ok(Running { edge, emulator, pair })
}

/// The end of the control planes while nobody wanted it is worth a line in the log.
async fn report_end(mut ended: watch::Receiver<Option<String>>, stop: CancellationToken) {
    if let Ok(how) = ended.wait_for(Option::is_some).await
        && !stop.is_cancelled()
    {
        tracing::error!(how = how.as_deref().unwrap_or_default(), "ministack has ended");
    }
}

/// Where the servers' user can keep data: in the cloud directory, or elsewhere if that is closed to it.
fn database_directory(
    layout: &Layout,
    programs: &Programs,
    runtime: &Runtime,
) -> Result<PathBuf, SupervisorError> {
    let inside = layout.databases();
    if !programs.changes_user() || python::traversable(&inside) {
        fs::create_dir_all(&inside).map_err(file(&inside))?;
        return Ok(inside);
    }
    let outside = tempfile::Builder::new()
        .prefix("understudy-")
        .tempdir()
        .map_err(file(&inside))?;
    runtime.directory(outside.path()).map_err(file(outside.path()))?;
    fs::set_permissions(outside.path(), fs::Permissions::from_mode(0o711)).map_err(file(outside.path()))?;
    Ok(outside.keep())
}

/// An address of the region that is free now. Nothing else takes one there but other local clouds.
fn free_address(region: Region) -> io::Result<SocketAddr> {
    std::net::TcpListener::bind((region.address(), 0))?.local_addr()
}

fn secret() -> String {
    hex::encode(rand::random::<[u8; 24]>())
}

fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// Answers the control interface.
struct Daemon {
    cloud: Cloud,
    network: Arc<Network>,
    mirror: Arc<Mirror>,
    pair: Arc<Pair>,
    edge: EdgeHandle,
    runtime: Arc<Runtime>,
    stop: CancellationToken,
}

impl Daemon {
    fn has_database(region: Region) -> Result<(), String> {
        if Region::DATABASES.contains(&region) {
            return Ok(());
        }
        Err(format!("{region} is the witness; it has no database"))
    }

    async fn database(&self, region: Region, address: DatabaseAddress) -> Database {
        let server = self.pair.server(region);
        let (role, standby_lag_bytes) = match server.role().await {
            Ok(Role::Writer) => {
                let replication = server.replication().await.ok().flatten();
                (
                    "writer".to_owned(),
                    replication.map(|replication| replication.lag_bytes),
                )
            }
            Ok(Role::Standby) => ("standby".to_owned(), None),
            Ok(Role::StoppedWriter) => ("stopped-writer".to_owned(), None),
            Ok(Role::StoppedStandby) => ("stopped-standby".to_owned(), None),
            Err(error) => (error.to_string(), None),
        };
        Database {
            address: address.into(),
            role,
            standby_lag_bytes,
        }
    }
}

#[async_trait]
impl Commands for Daemon {
    async fn status(&self) -> Status {
        let part = |process: Option<&ProcessId>| Process {
            pid: process.map(|process| process.pid),
            running: process.is_some_and(ProcessId::is_alive),
        };
        let record = self.runtime.now();
        let mut names = vec![emulator::NAME.to_owned()];
        names.extend(Region::DATABASES.map(|region| format!("postgres-{region}")));
        let mut parts: BTreeMap<String, Process> = names
            .into_iter()
            .map(|name| (name.clone(), part(record.processes.get(&name))))
            .collect();
        parts.insert("daemon".to_owned(), part(record.daemon.as_ref()));
        let mut databases = BTreeMap::new();
        for (&region, &address) in &self.cloud.databases {
            databases.insert(region, self.database(region, address).await);
        }
        let network = self.network.now();
        Status {
            directory: self.cloud.directory.clone(),
            started_ms: self.cloud.started_ms,
            endpoint_url: self.cloud.endpoint_url.clone(),
            front_doors: self.cloud.front_doors.clone(),
            dns: self.cloud.dns,
            zones: self.edge.dns().status().zones,
            parts,
            databases,
            cut: &network.cut | &network.isolated,
            lagging: network.lagging,
            tableless: network.tableless,
            stuck: network.stuck,
        }
    }

    async fn outage(&self, outage: Outage) -> Result<(), String> {
        let region = outage.region;
        if outage.kill_database || matches!(outage.only, Some(Part::Database | Part::Writes)) {
            Self::has_database(region)?;
        }
        match outage.only {
            None => {
                self.network.cut(region);
            }
            Some(Part::Tables) => {
                self.network.cut_tables(region);
            }
            Some(Part::Database) => {}
            Some(Part::Writes) => {
                self.network.stick(region);
                self.pair
                    .server(region)
                    .hold_commits(true)
                    .await
                    .map_err(|error| continuity::error::chain(&error))?;
            }
        }
        if outage.kill_database || outage.only == Some(Part::Database) {
            self.pair.server(region).kill().await;
        }
        tracing::info!(?outage, "a region fails");
        Ok(())
    }

    async fn heal(&self, heal: Heal) -> Result<(), String> {
        let stuck = self.network.now().stuck.contains(&heal.region);
        self.network.heal(heal.region);
        tracing::info!(?heal, writer = %self.mirror.writer(), "a region is joined again");
        self.mirror.settle().await.map_err(|error| error.to_string())?;
        if stuck {
            self.pair
                .server(heal.region)
                .hold_commits(false)
                .await
                .map_err(|error| continuity::error::chain(&error))?;
        }
        Ok(())
    }

    async fn lag(&self, lag: Lag) -> Result<(), String> {
        Self::has_database(lag.region)?;
        self.network.lag(lag.region, lag.on);
        Ok(())
    }

    fn strike(&self, strikes: Vec<Strike>) {
        self.edge.strike(strikes);
    }

    fn struck(&self) -> Vec<StrikeReport> {
        self.edge.struck()
    }

    fn stop(&self) {
        self.stop.cancel();
    }
}
