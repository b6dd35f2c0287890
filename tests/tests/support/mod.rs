//! A throwaway PostgreSQL server for tests of the ledger: plain connections on loopback, a database for each test. One
//! server per test binary, ended with the last test that uses it.

use std::net::TcpListener;
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use payment_processor::ledger::connect::{Connect, ConnectError, drive, session_options};
use payment_processor::ledger::postgres::PostgresLedger;
use tokio::sync::Mutex;
use tokio_postgres::{Client, Config, NoTls};

/// The account that the server runs as when the tests run as root, which PostgreSQL refuses: nobody.
const NOBODY: u32 = 65534;

/// A running server.
struct Server {
    process: Child,
    port: u16,
    programs: PathBuf,
    data: PathBuf,
    _directory: tempfile::TempDir,
}

static SHARED: Mutex<Weak<Server>> = Mutex::const_new(Weak::new());
static DATABASES: AtomicU32 = AtomicU32::new(0);

fn command(programs: &Path, program: &str) -> Command {
    let mut command = Command::new(programs.join(program));
    command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .env_clear()
        .current_dir("/");
    if is_root() {
        command.uid(NOBODY).gid(NOBODY);
    }
    command
}

fn is_root() -> bool {
    std::fs::metadata("/proc/self").unwrap().uid() == 0
}

impl Server {
    async fn start(more_settings: &[&str]) -> Server {
        let programs = bootstrap::local::python::ensure(&|_| {})
            .await
            .unwrap()
            .postgres_programs();
        let directory = tempfile::tempdir().unwrap();
        if is_root() {
            std::os::unix::fs::chown(directory.path(), Some(NOBODY), Some(NOBODY)).unwrap();
        }
        let data = directory.path().join("data");
        let made = command(&programs, "initdb")
            .args([
                "--username=postgres",
                "--auth=trust",
                "--no-sync",
                "--locale=C",
                "--encoding=UTF8",
                "-D",
            ])
            .arg(&data)
            .status();
        assert!(made.unwrap().success(), "initdb");
        let port = TcpListener::bind("127.0.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap()
            .port();
        let settings = [
            "listen_addresses=127.0.0.1",
            &format!("port={port}"),
            "unix_socket_directories=",
            "fsync=off",
        ];
        let process = command(&programs, "postgres")
            .arg("-D")
            .arg(&data)
            .args(
                settings
                    .iter()
                    .chain(more_settings)
                    .flat_map(|setting| ["-c", setting]),
            )
            .spawn()
            .unwrap();
        let server = Server {
            process,
            port,
            programs,
            data,
            _directory: directory,
        };
        let patience = Instant::now() + Duration::from_secs(30);
        while server.plain(ADMIN, "postgres").connect().await.is_err() {
            assert!(Instant::now() < patience, "PostgreSQL does not answer");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let admin = server.plain(ADMIN, "postgres").connect().await.unwrap();
        let owner = format!("create role {OWNER} login");
        admin.batch_execute(&owner).await.unwrap();
        server
    }

    fn plain(&self, user: &str, database: &str) -> Plain {
        let mut config = Config::new();
        config
            .host("127.0.0.1")
            .port(self.port)
            .user(user)
            .dbname(database)
            .options(session_options());
        Plain(config)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let stopped = command(&self.programs, "pg_ctl")
            .args(["stop", "-m", "immediate", "-D"])
            .arg(&self.data)
            .status();
        if !stopped.is_ok_and(|status| status.success()) {
            let _ = self.process.kill();
        }
        let _ = self.process.wait();
    }
}

/// The superuser, which nobody has on Aurora.
const ADMIN: &str = "postgres";
/// Who owns the databases, and is no superuser.
const OWNER: &str = "ledger_owner";

struct Plain(Config);

#[async_trait]
impl Connect for Plain {
    async fn connect(&self) -> Result<Client, ConnectError> {
        let (client, connection) = self
            .0
            .connect(NoTls)
            .await
            .map_err(|source| ConnectError::Server {
                host: "127.0.0.1".into(),
                port: self.0.get_ports()[0],
                source,
            })?;
        drive(connection);
        Ok(client)
    }
}

/// A database of its own on the shared server.
pub struct Database {
    server: Arc<Server>,
    name: String,
}

impl Database {
    /// An empty one.
    pub async fn create() -> Database {
        let mut shared = SHARED.lock().await;
        let server = match shared.upgrade() {
            Some(server) => server,
            None => {
                let server = Arc::new(Server::start(&[]).await);
                *shared = Arc::downgrade(&server);
                server
            }
        };
        drop(shared);
        Database::of(server).await
    }

    /// An empty one on a server of its own, which writes its log only when somebody must wait for it.
    #[allow(dead_code, reason = "not every test binary needs it")]
    pub async fn alone() -> Database {
        let settings = [
            "wal_writer_delay=10s",
            "wal_writer_flush_after=1GB",
            "checkpoint_timeout=1h",
        ];
        Database::of(Arc::new(Server::start(&settings).await)).await
    }

    async fn of(server: Arc<Server>) -> Database {
        let name = format!("test_{}", DATABASES.fetch_add(1, Ordering::SeqCst));
        let admin = server.plain(ADMIN, "postgres").connect().await.unwrap();
        admin
            .batch_execute(&format!("create database {name} owner {OWNER}"))
            .await
            .unwrap();
        Database { server, name }
    }

    /// One with the ledger's schema, in an epoch.
    pub async fn with_ledger(epoch: u64) -> Database {
        Database::create().await.migrated(epoch).await
    }

    /// The same with the ledger's schema, in an epoch.
    pub async fn migrated(self, epoch: u64) -> Database {
        use payment_processor::ledger::Ledger;
        let ledger = self.ledger();
        ledger.migrate().await.unwrap();
        assert_eq!(ledger.set_epoch(epoch).await.unwrap(), epoch);
        self
    }

    /// A ledger over it, with a connection of its own.
    pub fn ledger(&self) -> PostgresLedger {
        PostgresLedger::new(Box::new(self.server.plain(OWNER, &self.name)))
    }

    /// A bare connection.
    pub async fn client(&self) -> Client {
        self.server.plain(OWNER, &self.name).connect().await.unwrap()
    }
}
