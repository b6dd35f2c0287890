//! Two real PostgreSQL servers, one per database region, with streaming replication between them: what Aurora's storage
//! replication is in AWS.
//!
//! This file can start, stop, kill, promote, rewind and copy servers. Which of that is to happen when is decided in
//! `mirror`.

use std::{
    collections::BTreeMap,
    fs, io,
    net::SocketAddr,
    os::unix::fs::{PermissionsExt, chown},
    path::{Path, PathBuf},
    process::{ExitStatus, Stdio},
    sync::{Arc, Mutex as SyncMutex, PoisonError},
    time::Duration,
};

use nix::sys::signal::Signal;
use serde::Serialize;
use tokio::{
    process::{Child, Command},
    sync::Mutex,
    time::{Instant, sleep, timeout},
};
use tokio_postgres::{Client, NoTls};

use super::{
    Region,
    process::{self, ProcessId, Runtime},
};

/// The superuser: the daemon and replication. Functions never see it.
pub const ADMIN: &str = "understudy_admin";
/// The replication slot on whichever server is the writer.
const SLOT: &str = "understudy";
/// How long a server may take to answer after its start; crash recovery is part of it.
const START_PATIENCE: Duration = Duration::from_secs(30);
/// How long a server may take to stop in good order before it is told to stop at once.
const STOP_PATIENCE: Duration = Duration::from_secs(10);
/// How long a connection to a server may take.
const CONNECT_PATIENCE: Duration = Duration::from_secs(5);
/// How long a statement may take: promotion and checkpoints are among them.
const STATEMENT_PATIENCE: Duration = Duration::from_secs(30);
/// How often a condition is looked at again.
const POLL: Duration = Duration::from_millis(10);
/// Rounds of password hashing.
const SCRAM_ITERATIONS: &str = "64";
/// The user that the servers run as when the caller is root, which PostgreSQL refuses to be.
const UNPRIVILEGED: &str = "nobody";

/// The configuration file of both servers: pg_basebackup and pg_rewind bring it along, so that what differs between them is
/// on the command line. Replication reacts in fractions of a second; data is durable as in production.
const SETTINGS: &[(&str, &str)] = &[
    ("unix_socket_directories", ""),
    ("max_connections", "200"),
    ("shared_buffers", "64MB"),
    // Files, not shared memory segments, so that a killed server leaves nothing behind.
    ("dynamic_shared_memory_type", "mmap"),
    ("wal_level", "replica"),
    // What pg_rewind needs to take a former writer back.
    ("wal_log_hints", "on"),
    ("wal_keep_size", "256MB"),
    ("max_slot_wal_keep_size", "2GB"),
    ("max_wal_size", "2GB"),
    ("hot_standby", "on"),
    ("hot_standby_feedback", "on"),
    // Aurora Global Database replicates asynchronously; zero loss is the journal's work.
    ("synchronous_commit", "local"),
    ("wal_receiver_status_interval", "1s"),
    ("wal_receiver_timeout", "5s"),
    ("wal_retrieve_retry_interval", "200ms"),
    ("wal_sender_timeout", "5s"),
    ("primary_slot_name", SLOT),
    ("password_encryption", "scram-sha-256"),
    // Passwords here are long and random; the default of 4096 rounds is slow in an unoptimised client.
    ("scram_iterations", SCRAM_ITERATIONS),
    ("log_line_prefix", "%m [%p] "),
    ("log_checkpoints", "off"),
    ("include_if_exists", STARTING),
];
/// Copies of former writers that are kept of each region, the newest: RDS keeps them as long as the cluster's backups.
const KEPT: usize = 3;
/// A configuration file that is there while a server starts: a start after a crash or a copy syncs every file of the data
/// directory, which on a busy disk takes many seconds and guards against a failure of this machine only, which ends the
/// whole cloud. Commits are synced.
const STARTING: &str = "starting.conf";

/// A server did not do as it was told.
#[derive(Debug, thiserror::Error)]
pub enum PostgresError {
    /// A file of the servers could not be handled.
    #[error("cannot use `{path}` for the database of `{region}`")]
    File {
        /// The server's region.
        region: Region,
        /// Which file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A program could not be run.
    #[error("cannot run `{program}`")]
    Spawn {
        /// Which program.
        program: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A program ended with an error.
    #[error("`{program}` failed for the database of `{region}`: {output}")]
    Program {
        /// Which program.
        program: &'static str,
        /// The server's region.
        region: Region,
        /// The end of its output.
        output: String,
    },
    /// A server ended while it was being started.
    #[error("the database server of `{region}` ended at its start ({status}); its log: {log}")]
    Ended {
        /// The server's region.
        region: Region,
        /// How it ended.
        status: ExitStatus,
        /// The end of its log.
        log: String,
    },
    /// A server did not get ready in time.
    #[error("the database server of `{region}` is not {wanted} after {} s", .patience.as_secs())]
    NotInTime {
        /// The server's region.
        region: Region,
        /// What it was to become.
        wanted: &'static str,
        /// How long it was waited for.
        patience: Duration,
    },
    /// The server is not running.
    #[error("the database server of `{0}` is not running")]
    Down(Region),
    /// A statement failed.
    #[error("the database server of `{region}` refused a statement")]
    Sql {
        /// The server's region.
        region: Region,
        /// Why.
        #[source]
        source: tokio_postgres::Error,
    },
    /// A statement got no answer.
    #[error("the database server of `{0}` does not answer")]
    Silent(Region),
    /// The user that root's servers run as does not exist.
    #[error(
        "this machine has no user `{UNPRIVILEGED}`, which the database must run as when the caller is root"
    )]
    NoUser,
}

/// Where the programs are, and as whom they run.
#[derive(Debug, Clone)]
pub struct Programs {
    directory: PathBuf,
    run_as: Option<(u32, u32)>,
}

impl Programs {
    /// The programs in a directory. Root's servers run as an unprivileged user, everybody else's as the caller.
    pub fn new(directory: PathBuf) -> Result<Self, PostgresError> {
        let run_as = if nix::unistd::geteuid().is_root() {
            let user = nix::unistd::User::from_name(UNPRIVILEGED)
                .ok()
                .flatten()
                .ok_or(PostgresError::NoUser)?;
            Some((user.uid.as_raw(), user.gid.as_raw()))
        } else {
            None
        };
        Ok(Self { directory, run_as })
    }

    /// Whether the servers run as another user than the caller.
    pub fn changes_user(&self) -> bool {
        self.run_as.is_some()
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(self.directory.join(program));
        command
            .env_clear()
            .env("PATH", "/usr/bin:/bin")
            .env("LC_ALL", "C")
            .current_dir("/")
            .stdin(Stdio::null());
        if let Some((user, group)) = self.run_as {
            // The standard library drops the supplementary groups with the user.
            command.gid(group).uid(user);
        }
        command
    }

    /// Runs a program to its end.
    async fn run(
        &self,
        region: Region,
        program: &'static str,
        command: &mut Command,
    ) -> Result<(), PostgresError> {
        let spawn = |source| PostgresError::Spawn {
            program: self.directory.join(program),
            source,
        };
        let output = command.kill_on_drop(true).output().await.map_err(spawn)?;
        if output.status.success() {
            return Ok(());
        }
        let text = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
        Err(PostgresError::Program {
            program,
            region,
            output: tail(&text),
        })
    }

    /// Makes a path the servers' own.
    fn give(&self, path: &Path) -> io::Result<()> {
        match self.run_as {
            Some((user, group)) => chown(path, Some(user), Some(group)),
            None => Ok(()),
        }
    }
}

/// What is needed to make a pair of servers.
#[derive(Debug)]
pub struct PairConfig {
    /// The programs.
    pub programs: Programs,
    /// The data of each server goes below this directory, which the programs' user can reach.
    pub directory: PathBuf,
    /// Where each server listens.
    pub addresses: BTreeMap<Region, SocketAddr>,
    /// Where each server reaches the other one, when it is the standby.
    pub upstreams: BTreeMap<Region, SocketAddr>,
    /// Each server's log.
    pub logs: BTreeMap<Region, PathBuf>,
    /// The password of [`ADMIN`].
    pub password: String,
    /// Where processes are recorded, so that they can be ended without the daemon.
    pub runtime: Arc<Runtime>,
}

/// The part that a server plays, as it says itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Role {
    /// It runs and accepts writes.
    Writer,
    /// It runs and follows the other one.
    Standby,
    /// It does not run; started, it would be a writer.
    StoppedWriter,
    /// It does not run; started, it would follow.
    StoppedStandby,
}

impl Role {
    /// Whether the server runs.
    pub fn runs(self) -> bool {
        matches!(self, Role::Writer | Role::Standby)
    }
}

/// How far the standby is, as the writer sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Replication {
    /// Bytes of log that the writer has and the standby has not applied.
    pub lag_bytes: i64,
    /// How long ago the writer wrote what the standby applied last; none when it has everything.
    pub lag_ms: Option<i64>,
}

/// What a former writer held when it was taken back: the snapshot that Aurora makes of the old primary after an unplanned
/// failover of a global database.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Kept {
    /// Its region.
    pub region: Region,
    /// When it was taken back, milliseconds since the Unix epoch.
    pub at_ms: u64,
}

/// The two servers, and those that were restored from what a former writer held.
#[derive(Debug)]
pub struct Pair {
    servers: BTreeMap<Region, Server>,
    config: Arc<PairConfig>,
    kept: SyncMutex<Vec<Kept>>,
    restored: Mutex<BTreeMap<(Region, String), Server>>,
}

impl Pair {
    /// Describes the servers; nothing is started.
    pub fn new(config: PairConfig) -> Self {
        let config = Arc::new(config);
        let servers = Region::DATABASES
            .into_iter()
            .map(|region| {
                (
                    region,
                    Server {
                        region,
                        name: format!("postgres-{region}"),
                        config: config.clone(),
                        child: Mutex::new(None),
                    },
                )
            })
            .collect();
        Self {
            servers,
            config,
            kept: SyncMutex::default(),
            restored: Mutex::default(),
        }
    }

    /// Takes a former writer back, as [`Server::rejoin`] does, and keeps what it held. Where that cannot be copied, it is
    /// taken back all the same.
    pub async fn take_back(&self, region: Region) -> Result<(), PostgresError> {
        let server = self.server(region);
        server.shut_down().await;
        let kept = Kept {
            region,
            at_ms: continuity::clock::now_ms(),
        };
        match server.copy(&server.data(), &self.kept_data(kept)).await {
            Ok(()) => self.keep(kept),
            Err(error) => {
                let error = continuity::error::chain(&error);
                tracing::warn!(%region, error, "what the former writer held is not kept");
                let _ = super::state::remove(&self.kept_data(kept));
            }
        }
        server.rejoin().await
    }

    /// What former writers of a region held, the oldest first.
    pub fn kept(&self, region: Region) -> Vec<Kept> {
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.iter()
            .filter(|kept| kept.region == region)
            .copied()
            .collect()
    }

    fn keep(&self, new: Kept) {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.push(new);
        let of_region = kept.iter().filter(|kept| kept.region == new.region);
        if of_region.count() > KEPT
            && let Some(oldest) = kept.iter().position(|kept| kept.region == new.region)
        {
            let _ = super::state::remove(&self.kept_data(kept.remove(oldest)));
        }
    }

    fn kept_data(&self, kept: Kept) -> PathBuf {
        self.config
            .directory
            .join(format!("kept-{}-{}", kept.region, kept.at_ms))
    }

    /// Starts a server of its own on a copy of what a former writer held, for the cluster of that name, and says where it
    /// listens: on the region's address, at a port that is free. Twice is once.
    pub async fn restore(&self, kept: Kept, cluster: &str) -> Result<SocketAddr, PostgresError> {
        let region = kept.region;
        let mut restored = self.restored.lock().await;
        let place = (region, cluster.to_owned());
        if let Some(server) = restored.get(&place) {
            server.start().await?;
            return Ok(server.address());
        }
        let name = format!("postgres-{region}-{cluster}");
        let beside = &self.config.logs[&region];
        let directory = self.config.directory.join(format!("restored-{cluster}"));
        let file = |source| PostgresError::File {
            region,
            path: directory.clone(),
            source,
        };
        fs::create_dir_all(&directory)
            .and_then(|()| self.config.programs.give(&directory))
            .map_err(file)?;
        let listener = std::net::TcpListener::bind((region.address(), 0)).map_err(file)?;
        let address = listener.local_addr().map_err(file)?;
        drop(listener);
        let config = PairConfig {
            programs: self.config.programs.clone(),
            addresses: [(region, address)].into(),
            // It follows nobody.
            upstreams: [(region, address)].into(),
            logs: [(region, beside.with_file_name(format!("{name}.log")))].into(),
            password: self.config.password.clone(),
            runtime: self.config.runtime.clone(),
            directory,
        };
        let server = Server {
            region,
            name,
            config: Arc::new(config),
            child: Mutex::new(None),
        };
        server.copy(&self.kept_data(kept), &server.data()).await?;
        // Of the server that it is a copy of.
        for stale in ["postmaster.pid", "standby.signal", "pg_replslot/understudy"] {
            let stale = server.data().join(stale);
            super::state::remove(&stale).map_err(|source| server.file(&stale, source))?;
        }
        if let Err(error) = server.start().await {
            server.stop(Signal::SIGQUIT).await;
            let _ = super::state::remove(&server.config.directory);
            return Err(error);
        }
        restored.insert(place, server);
        Ok(address)
    }

    /// Ends a restored server and removes its data. Says whether there was one of that cluster.
    pub async fn discard(&self, region: Region, cluster: &str) -> Result<bool, PostgresError> {
        let mut restored = self.restored.lock().await;
        let Some(server) = restored.remove(&(region, cluster.to_owned())) else {
            return Ok(false);
        };
        server.stop(Signal::SIGQUIT).await;
        let directory = &server.config.directory;
        super::state::remove(directory).map_err(|source| server.file(directory, source))?;
        Ok(true)
    }

    /// Creates both servers and starts them, `writer` as the writer and the other as its standby.
    ///
    /// Assumes that the link from the standby to the writer is open.
    pub async fn create(&self, writer: Region) -> Result<(), PostgresError> {
        self.server(writer).initialise().await?;
        self.server(writer).start().await?;
        self.server(writer).ensure_slot().await?;
        for server in self.servers.values().filter(|server| server.region != writer) {
            server.copy_from_peer().await?;
            server.start().await?;
        }
        Ok(())
    }

    /// The server of a region that has one.
    pub fn server(&self, region: Region) -> &Server {
        self.servers
            .get(&region)
            .expect("only database regions are asked for a server")
    }

    /// Both servers.
    pub fn servers(&self) -> impl Iterator<Item = &Server> {
        self.servers.values()
    }

    /// Stops all at once. What they hold need not survive.
    pub async fn stop_immediately(&self) {
        let restored = std::mem::take(&mut *self.restored.lock().await);
        for server in self.servers.values().chain(restored.values()) {
            server.stop(Signal::SIGQUIT).await;
        }
    }
}

/// One region's server. Calls on one server wait for each other.
#[derive(Debug)]
pub struct Server {
    region: Region,
    /// The name that its process is recorded under.
    name: String,
    config: Arc<PairConfig>,
    child: Mutex<Option<Child>>,
}

impl Server {
    /// The region.
    pub fn region(&self) -> Region {
        self.region
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.config.addresses[&self.region]
    }

    /// The data directory.
    pub fn data(&self) -> PathBuf {
        self.config.directory.join(self.region.name())
    }

    /// What the server is now.
    pub async fn role(&self) -> Result<Role, PostgresError> {
        if self.pid().await.is_none() {
            let follows = self.data().join("standby.signal").exists();
            return Ok(if follows {
                Role::StoppedStandby
            } else {
                Role::StoppedWriter
            });
        }
        let row = self.query("SELECT pg_is_in_recovery()").await?;
        Ok(if row.first().is_some_and(|value| value == "t") {
            Role::Standby
        } else {
            Role::Writer
        })
    }

    /// From now on no commit returns, while reads are answered: every commit waits for a standby that does not exist. Or they
    /// return again.
    pub async fn hold_commits(&self, hold: bool) -> Result<(), PostgresError> {
        // Each by itself: ALTER SYSTEM runs in no transaction block.
        let statements = if hold {
            [
                "ALTER SYSTEM SET synchronous_commit = 'on'",
                "ALTER SYSTEM SET synchronous_standby_names = 'nobody'",
            ]
        } else {
            [
                "ALTER SYSTEM RESET synchronous_standby_names",
                "ALTER SYSTEM RESET synchronous_commit",
            ]
        };
        for statement in statements.into_iter().chain(["SELECT pg_reload_conf()"]) {
            self.execute("postgres", statement).await?;
        }
        Ok(())
    }

    /// The server's process, if it runs.
    pub async fn pid(&self) -> Option<u32> {
        let mut child = self.child.lock().await;
        match child.as_mut()?.try_wait() {
            Ok(None) => child.as_ref()?.id(),
            _ => None,
        }
    }

    /// Makes the data directory of a new writer.
    async fn initialise(&self) -> Result<(), PostgresError> {
        self.make_directory()?;
        let secret = self.config.directory.join(format!("{}.password", self.region));
        self.write(&secret, self.config.password.as_bytes())?;
        let programs = &self.config.programs;
        let outcome = programs
            .run(
                self.region,
                "initdb",
                programs
                    .command("initdb")
                    .args([
                        "--username",
                        ADMIN,
                        "--auth",
                        "scram-sha-256",
                        "--encoding",
                        "UTF8",
                        "--locale",
                        "C",
                    ])
                    .args(["--no-sync", "--set"])
                    .arg(format!("scram_iterations={SCRAM_ITERATIONS}"))
                    .arg("--pwfile")
                    .arg(&secret)
                    .arg("--pgdata")
                    .arg(self.data()),
            )
            .await;
        let _ = fs::remove_file(&secret);
        outcome?;
        let settings: String = SETTINGS
            .iter()
            .map(|(name, value)| format!("{name} = '{value}'\n"))
            .collect();
        self.write(&self.data().join("postgresql.conf"), settings.as_bytes())?;
        let access =
            "host all all 127.0.0.0/8 scram-sha-256\nhost replication all 127.0.0.0/8 scram-sha-256\n";
        self.write(&self.data().join("pg_hba.conf"), access.as_bytes())
    }

    /// Starts the server as what it was last and waits until it answers.
    pub async fn start(&self) -> Result<(), PostgresError> {
        let mut child = self.child.lock().await;
        if let Some(running) = child.as_mut()
            && matches!(running.try_wait(), Ok(None))
        {
            return Ok(());
        }
        let starting = self.data().join(STARTING);
        self.write(&starting, b"fsync = off\n")?;
        let programs = &self.config.programs;
        let log = &self.config.logs[&self.region];
        let open = || fs::OpenOptions::new().create(true).append(true).open(log);
        let out = open().map_err(|source| self.file(log, source))?;
        let errors = open().map_err(|source| self.file(log, source))?;
        let mut command = programs.command("postgres");
        command.arg("-D").arg(self.data());
        command
            .arg("-c")
            .arg(format!("listen_addresses={}", self.address().ip()));
        command.arg("-c").arg(format!("port={}", self.address().port()));
        command
            .arg("-c")
            .arg(format!("primary_conninfo={}", self.upstream()?));
        let mut server = command
            .stdout(out)
            .stderr(errors)
            .process_group(0)
            .spawn()
            .map_err(|source| PostgresError::Spawn {
                program: programs.directory.join("postgres"),
                source,
            })?;
        if let Some(pid) = server.id() {
            self.record(|runtime, name| runtime.started(name, pid))?;
        }
        let started = self.await_answer(&mut server).await;
        *child = Some(server);
        started?;
        super::state::remove(&starting).map_err(|source| self.file(&starting, source))?;
        self.execute("postgres", "SELECT pg_reload_conf()").await
    }

    async fn await_answer(&self, server: &mut Child) -> Result<(), PostgresError> {
        let deadline = Instant::now() + START_PATIENCE;
        while Instant::now() < deadline {
            if let Ok(Some(status)) = server.try_wait() {
                let log = fs::read_to_string(&self.config.logs[&self.region]).unwrap_or_default();
                return Err(PostgresError::Ended {
                    region: self.region,
                    status,
                    log: tail(&log),
                });
            }
            if let Ok(Ok(_client)) = timeout(Duration::from_secs(1), self.connect("postgres")).await {
                return Ok(());
            }
            sleep(POLL).await;
        }
        Err(PostgresError::NotInTime {
            region: self.region,
            wanted: "ready",
            patience: START_PATIENCE,
        })
    }

    /// Stops the server in good order: it writes out everything, and its standby receives everything first.
    pub async fn shut_down(&self) {
        self.stop(Signal::SIGINT).await;
    }

    async fn stop(&self, signal: Signal) {
        let mut child = self.child.lock().await;
        let Some(server) = child.as_mut() else { return };
        if let Some(process) = server.id().and_then(ProcessId::of) {
            process.signal(signal);
            if timeout(STOP_PATIENCE, server.wait()).await.is_err() {
                process.signal(Signal::SIGQUIT);
                if timeout(STOP_PATIENCE, server.wait()).await.is_err() {
                    process::end_trees(&[process], STOP_PATIENCE);
                }
            }
        }
        let _ = server.wait().await;
        *child = None;
        let _ = self.record(Runtime::ended);
    }

    /// Kills the server and its children as a power failure would. Returns when all are gone.
    pub async fn kill(&self) {
        let mut child = self.child.lock().await;
        let Some(server) = child.as_mut() else { return };
        if let Some(process) = server.id().and_then(ProcessId::of) {
            let mut family = process::descendants(&process);
            family.insert(0, process);
            let end = tokio::task::spawn_blocking(move || process::end_trees(&family, STOP_PATIENCE));
            let _ = end.await;
        }
        let _ = server.wait().await;
        *child = None;
        let _ = self.record(Runtime::ended);
        self.remove_shared_memory().await;
    }

    /// Removes the few bytes of shared memory by which a killed server's successor would have known it.
    async fn remove_shared_memory(&self) {
        let lock = fs::read_to_string(self.data().join("postmaster.pid")).unwrap_or_default();
        // The seventh line: key and id.
        if let Some(id) = lock
            .lines()
            .nth(6)
            .and_then(|line| line.split_whitespace().nth(1))
        {
            let ended = Command::new("ipcrm")
                .args(["-m", id])
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .status();
            let _ = ended.await;
        }
    }

    /// Makes a standby the writer. On a writer it does nothing but see to the slot.
    pub async fn promote(&self) -> Result<(), PostgresError> {
        if self.role().await? == Role::Standby {
            let patience = STATEMENT_PATIENCE;
            let seconds = patience.as_secs();
            let row = self.query(&format!("SELECT pg_promote(true, {seconds})")).await?;
            if row.first().is_none_or(|value| value != "t") {
                return Err(PostgresError::NotInTime {
                    region: self.region,
                    wanted: "the writer",
                    patience,
                });
            }
        }
        self.ensure_slot().await
    }

    /// Makes a stopped writer a standby of the other server. Assumes that it has nothing the other lacks.
    pub async fn demote_stopped(&self) -> Result<(), PostgresError> {
        // The slot of its time as writer would hold log files for ever.
        let slot = self.data().join("pg_replslot").join(SLOT);
        super::state::remove(&slot).map_err(|source| self.file(&slot, source))?;
        self.write(&self.data().join("standby.signal"), b"")
    }

    /// Makes a former writer that went its own way a standby of the other server: by rewinding it to where they parted,
    /// or by copying everything anew where that is impossible.
    ///
    /// 1. stop it; 2. rewind, or copy; 3. start it as standby.
    pub async fn rejoin(&self) -> Result<(), PostgresError> {
        self.shut_down().await;
        if let Err(error) = self.rewind().await {
            tracing::info!(region = %self.region, %error, "the server cannot be rewound; copying it anew");
            self.copy_from_peer().await?;
        }
        self.start().await
    }

    async fn rewind(&self) -> Result<(), PostgresError> {
        let programs = &self.config.programs;
        programs
            .run(
                self.region,
                "pg_rewind",
                programs
                    .command("pg_rewind")
                    .arg("--no-sync")
                    .arg("--target-pgdata")
                    .arg(self.data())
                    .arg("--source-server")
                    .arg(format!("{} dbname=postgres", self.upstream()?)),
            )
            .await?;
        self.demote_stopped().await
    }

    /// Replaces the server's data by a copy of the other's.
    async fn copy_from_peer(&self) -> Result<(), PostgresError> {
        let data = self.data();
        super::state::remove(&data).map_err(|source| self.file(&data, source))?;
        self.make_directory()?;
        let programs = &self.config.programs;
        programs
            .run(
                self.region,
                "pg_basebackup",
                programs
                    .command("pg_basebackup")
                    .args([
                        "--wal-method",
                        "stream",
                        "--checkpoint",
                        "fast",
                        "--no-sync",
                        "--pgdata",
                    ])
                    .arg(&data)
                    .arg("--dbname")
                    .arg(self.upstream()?),
            )
            .await?;
        self.demote_stopped().await
    }

    /// On the writer: how far the standby is; `None` when no standby is connected.
    pub async fn replication(&self) -> Result<Option<Replication>, PostgresError> {
        let row = self
            .query(
                "SELECT pg_wal_lsn_diff(pg_current_wal_lsn(), replay_lsn)::bigint, \
                 (extract(epoch FROM replay_lag) * 1000)::bigint \
                 FROM pg_stat_replication WHERE state = 'streaming'",
            )
            .await?;
        Ok(row.first().map(|bytes| Replication {
            lag_bytes: bytes.parse().unwrap_or_default(),
            lag_ms: row.get(1).and_then(|text| text.parse().ok()),
        }))
    }

    /// On the writer: waits until the standby has applied what the writer has now; says whether it came to that.
    pub async fn await_standby(&self, patience: Duration) -> Result<bool, PostgresError> {
        let deadline = Instant::now() + patience;
        loop {
            if self
                .replication()
                .await?
                .is_some_and(|replication| replication.lag_bytes <= 0)
            {
                return Ok(true);
            }
            if Instant::now() >= deadline {
                return Ok(false);
            }
            sleep(POLL).await;
        }
    }

    /// On a standby: how far it has received the log. On a writer: how far it has written it.
    pub async fn position(&self) -> Result<u64, PostgresError> {
        let row = self
            .query(
                "SELECT CASE WHEN pg_is_in_recovery() \
                 THEN pg_wal_lsn_diff(pg_last_wal_receive_lsn(), '0/0') \
                 ELSE pg_wal_lsn_diff(pg_current_wal_lsn(), '0/0') END::bigint",
            )
            .await?;
        Ok(row.first().and_then(|text| text.parse().ok()).unwrap_or_default())
    }

    /// How far the log of a server goes that was shut down in good order.
    pub async fn position_stopped(&self) -> Result<u64, PostgresError> {
        let programs = &self.config.programs;
        let output = programs
            .command("pg_controldata")
            .arg("--pgdata")
            .arg(self.data())
            .output()
            .await;
        let output = output.map_err(|source| PostgresError::Spawn {
            program: programs.directory.join("pg_controldata"),
            source,
        })?;
        let text = String::from_utf8_lossy(&output.stdout);
        shutdown_position(&text).ok_or_else(|| PostgresError::Program {
            program: "pg_controldata",
            region: self.region,
            output: tail(&text),
        })
    }

    async fn ensure_slot(&self) -> Result<(), PostgresError> {
        self.execute(
            "postgres",
            &format!(
                "SELECT pg_create_physical_replication_slot('{SLOT}', true) \
                 WHERE NOT EXISTS (SELECT FROM pg_replication_slots WHERE slot_name = '{SLOT}')"
            ),
        )
        .await
    }

    /// Runs statements as the superuser.
    pub async fn execute(&self, database: &str, statements: &str) -> Result<(), PostgresError> {
        let client = self.client(database).await?;
        timeout(STATEMENT_PATIENCE, client.batch_execute(statements))
            .await
            .map_err(|_| PostgresError::Silent(self.region))?
            .map_err(|source| PostgresError::Sql {
                region: self.region,
                source,
            })
    }

    /// The first row of a query, as text; empty when there is none. NULL is an empty string.
    pub async fn query(&self, query: &str) -> Result<Vec<String>, PostgresError> {
        let client = self.client("postgres").await?;
        let messages = timeout(STATEMENT_PATIENCE, client.simple_query(query))
            .await
            .map_err(|_| PostgresError::Silent(self.region))?
            .map_err(|source| PostgresError::Sql {
                region: self.region,
                source,
            })?;
        let row = messages.iter().find_map(|message| match message {
            tokio_postgres::SimpleQueryMessage::Row(row) => Some(row),
            _ => None,
        });
        Ok(row.map_or_else(Vec::new, |row| {
            (0..row.len())
                .map(|column| row.get(column).unwrap_or_default().to_owned())
                .collect()
        }))
    }

    async fn client(&self, database: &str) -> Result<Client, PostgresError> {
        match timeout(CONNECT_PATIENCE, self.connect(database)).await {
            Ok(Ok(client)) => Ok(client),
            Ok(Err(source)) if source.as_db_error().is_some() => Err(PostgresError::Sql {
                region: self.region,
                source,
            }),
            Ok(Err(_)) => Err(PostgresError::Down(self.region)),
            Err(_) => Err(PostgresError::Silent(self.region)),
        }
    }

    async fn connect(&self, database: &str) -> Result<Client, tokio_postgres::Error> {
        let (client, connection) = tokio_postgres::Config::new()
            .host(self.address().ip().to_string())
            .port(self.address().port())
            .user(ADMIN)
            .password(&self.config.password)
            .dbname(database)
            .application_name("understudy-local")
            .connect(NoTls)
            .await?;
        // Ends with the client.
        tokio::spawn(connection);
        Ok(client)
    }

    /// How this server reaches the other one. The password is in a file: command lines can be read by everybody.
    fn upstream(&self) -> Result<String, PostgresError> {
        let address = self.config.upstreams[&self.region];
        let file = self.config.directory.join(format!("{}.pgpass", self.region));
        if !file.exists() {
            self.write(
                &file,
                format!("*:*:*:{ADMIN}:{}\n", self.config.password).as_bytes(),
            )?;
        }
        Ok(format!(
            "host={} port={} user={ADMIN} passfile={} application_name={} connect_timeout=3",
            address.ip(),
            address.port(),
            quote(&file.display().to_string()),
            self.region,
        ))
    }

    fn make_directory(&self) -> Result<(), PostgresError> {
        self.make_private(&self.data())
    }

    /// Makes a directory that only the servers' user can enter.
    fn make_private(&self, directory: &Path) -> Result<(), PostgresError> {
        fs::create_dir_all(directory)
            .and_then(|()| fs::set_permissions(directory, fs::Permissions::from_mode(0o700)))
            .and_then(|()| self.config.programs.give(directory))
            .map_err(|source| self.file(directory, source))
    }

    /// Copies the data of a server that is stopped.
    async fn copy(&self, from: &Path, to: &Path) -> Result<(), PostgresError> {
        super::state::remove(to).map_err(|source| self.file(to, source))?;
        self.make_private(to)?;
        let programs = &self.config.programs;
        let mut command = programs.command("/bin/cp");
        command.arg("-a").arg(from.join(".")).arg(to);
        programs.run(self.region, "cp", &mut command).await
    }

    /// Writes a private file that belongs to the servers' user.
    fn write(&self, path: &Path, content: &[u8]) -> Result<(), PostgresError> {
        super::state::write_private(path, content)
            .and_then(|()| self.config.programs.give(path))
            .map_err(|source| self.file(path, source))
    }

    fn file(&self, path: &Path, source: io::Error) -> PostgresError {
        PostgresError::File {
            region: self.region,
            path: path.to_owned(),
            source,
        }
    }

    fn record(&self, change: impl FnOnce(&Runtime, &str) -> io::Result<()>) -> Result<(), PostgresError> {
        change(&self.config.runtime, &self.name).map_err(|source| self.file(Path::new("run.json"), source))
    }
}

/// A value in a connection string.
fn quote(value: &str) -> String {
    format!("'{}'", value.replace('\\', "\\\\").replace('\'', "\\'"))
}

/// The last lines of a program's output, in one line.
fn tail(text: &str) -> String {
    let lines: Vec<&str> = text
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty())
        .collect();
    lines[lines.len().saturating_sub(4)..].join("; ")
}

/// Where the log of a server ends that was shut down: right after its last checkpoint.
fn shutdown_position(control_data: &str) -> Option<u64> {
    let field = |name: &str| {
        control_data
            .lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))
            .map(str::trim)
    };
    if !field("Database cluster state")?.starts_with("shut down") {
        return None;
    }
    let (high, low) = field("Latest checkpoint location")?.split_once('/')?;
    Some(u64::from_str_radix(high, 16).ok()? << 32 | u64::from_str_radix(low, 16).ok()?)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_clean_shutdown_tells_where_the_log_ends() {
        let text = "Database cluster state:               shut down\nLatest checkpoint location:           1/5000028\n";
        assert_eq!(shutdown_position(text), Some(0x1_0500_0028));
        assert_eq!(
            shutdown_position(&text.replace("shut down", "in production")),
            None
        );
    }

    #[test]
    fn a_path_with_quotes_is_one_value() {
        assert_eq!(quote(r"/it's a\b"), r"'/it\'s a\\b'");
    }

    #[test]
    fn the_tail_of_an_output_is_one_line() {
        assert_eq!(tail("a\nb\n\nc\nd\ne\n"), "b; c; d; e");
    }
}
