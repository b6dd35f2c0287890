//! A PostgreSQL server for as long as somebody holds it: plain connections on loopback, in a temporary folder. For
//! measurements and tests of the ledger; the databases of the local cloud are in `postgres`.

use std::io;
use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use load::Database;
use payments::ledger::connect::{Connect, ConnectError};
use payments::ledger::postgres::PostgresLedger;
use tokio_postgres::Client;

use super::ca::{Authority, CaError};
use super::edge::{self, Tasks};
use super::python::{self, PythonError};

/// The account that the server runs as when the caller is root, which PostgreSQL refuses: nobody.
const NOBODY: u32 = 65534;
/// The superuser, which nobody has on Aurora.
const ADMIN: &str = "postgres";
/// Who owns the databases, and is no superuser.
const OWNER: &str = "ledger_owner";
/// How long a server may take to answer.
const PATIENCE: Duration = Duration::from_secs(30);

/// Why there is no server.
#[derive(Debug, thiserror::Error)]
pub enum ThrowawayError {
    /// Its programs could not be had.
    #[error("PostgreSQL's programs could not be had")]
    Programs(#[from] PythonError),
    /// A file or a process could not be made.
    #[error("the server could not be set up")]
    SetUp(#[from] io::Error),
    /// There is no TLS in front of it.
    #[error("there is no TLS in front of the server")]
    Tls(#[from] CaError),
    /// One of its programs failed.
    #[error("`{0}` failed")]
    Program(String),
    /// It does not answer.
    #[error("the server does not answer")]
    Silent(#[source] ConnectError),
    /// It refused a statement.
    #[error("the server refused a statement")]
    Refused(#[from] tokio_postgres::Error),
}

/// A running server, which ends with this.
#[derive(Debug)]
pub struct Server {
    process: Child,
    port: u16,
    programs: PathBuf,
    directory: tempfile::TempDir,
}

impl Server {
    /// Starts one with these settings beside the necessary ones.
    ///
    /// # Errors
    /// See [`ThrowawayError`].
    pub async fn start(settings: &[&str]) -> Result<Server, ThrowawayError> {
        let programs = python::ensure(&|_| {}).await?.postgres_programs();
        let directory = tempfile::tempdir()?;
        if is_root()? {
            std::os::unix::fs::chown(directory.path(), Some(NOBODY), Some(NOBODY))?;
        }
        let data = directory.path().join("data");
        let mut initdb = quiet(&programs, "initdb")?;
        initdb
            .args(["--auth=trust", "--no-sync", "--locale=C", "--encoding=UTF8", "-D"])
            .arg(&data)
            .arg(format!("--username={ADMIN}"));
        succeed(&mut initdb)?;
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let listen = ["listen_addresses=127.0.0.1", "unix_socket_directories="];
        let process = quiet(&programs, "postgres")?
            .arg("-D")
            .arg(&data)
            .args(["-c", &format!("port={port}")])
            .args(listen.iter().chain(settings).flat_map(|setting| ["-c", setting]))
            .spawn()?;
        let server = Server {
            process,
            port,
            programs,
            directory,
        };
        let admin = server.answer().await?;
        admin.batch_execute(&format!("create role {OWNER} login")).await?;
        Ok(server)
    }

    async fn answer(&self) -> Result<Client, ThrowawayError> {
        let until = Instant::now() + PATIENCE;
        loop {
            match self.address(ADMIN, "postgres").connect().await {
                Ok(client) => return Ok(client),
                Err(error) if Instant::now() > until => return Err(ThrowawayError::Silent(error)),
                Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
            }
        }
    }

    fn address(&self, user: &str, database: &str) -> Database {
        Database {
            host: "127.0.0.1".into(),
            port: self.port,
            user: user.into(),
            name: database.into(),
        }
    }

    /// Makes an empty database.
    ///
    /// # Errors
    /// The server refused.
    pub async fn create(&self, database: &str) -> Result<(), ThrowawayError> {
        let admin = self.answer().await?;
        let statement = format!("create database {database} owner {OWNER}");
        Ok(admin.batch_execute(&statement).await?)
    }

    /// A bare connection of the owner to a database.
    ///
    /// # Errors
    /// The server refused.
    pub async fn client(&self, database: &str) -> Result<Client, ConnectError> {
        self.address(OWNER, database).connect().await
    }

    /// Where its owner finds a database.
    pub fn database(&self, name: &str) -> Database {
        self.address(OWNER, name)
    }

    /// A ledger over a database, with a connection of its own.
    pub fn ledger(&self, database: &str) -> PostgresLedger {
        PostgresLedger::new(Box::new(self.address(OWNER, database)))
    }

    /// A program of PostgreSQL, told where the server is.
    pub fn program(&self, program: &str) -> Command {
        let mut command = Command::new(self.programs.join(program));
        command
            .env_clear()
            .env("PGHOST", "127.0.0.1")
            .env("PGPORT", self.port.to_string())
            .env("PGUSER", OWNER)
            .stdin(Stdio::null());
        command
    }

    /// Who owns the databases. Any password will do.
    pub fn owner(&self) -> &'static str {
        OWNER
    }

    /// Takes connections over TLS at another port, for as long as the answer is held.
    ///
    /// # Errors
    /// There is no port, or no certificate.
    pub async fn over_tls(&self) -> Result<TlsFront, ThrowawayError> {
        let authority = Arc::new(Authority::open(self.directory())?);
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
        let port = listener.local_addr()?.port();
        let tasks = Tasks::default();
        let tls = authority.address_config(Ipv4Addr::LOCALHOST.into());
        let server = (Ipv4Addr::LOCALHOST, self.port).into();
        edge::serve_database(&tasks, listener, tls, server);
        Ok(TlsFront {
            port,
            certificate: authority.certificate_path().to_owned(),
            _tasks: tasks,
        })
    }

    /// Its folder, for files of the one who uses it.
    pub fn directory(&self) -> &Path {
        self.directory.path()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let stop = quiet(&self.programs, "pg_ctl").and_then(|mut command| {
            command
                .args(["stop", "-m", "immediate", "-D"])
                .arg(self.directory.path().join("data"))
                .status()
        });
        if !stop.is_ok_and(|status| status.success()) {
            let _ = self.process.kill();
        }
        let _ = self.process.wait();
    }
}

/// TLS in front of a server.
#[derive(Debug)]
pub struct TlsFront {
    /// Its port, on loopback.
    pub port: u16,
    /// Whom to trust, PEM.
    pub certificate: PathBuf,
    _tasks: Tasks,
}

fn is_root() -> io::Result<bool> {
    Ok(std::fs::metadata("/proc/self")?.uid() == 0)
}

fn quiet(programs: &Path, program: &str) -> io::Result<Command> {
    let mut command = Command::new(programs.join(program));
    command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .env_clear()
        .current_dir("/");
    if is_root()? {
        command.uid(NOBODY).gid(NOBODY);
    }
    Ok(command)
}

fn succeed(command: &mut Command) -> Result<(), ThrowawayError> {
    if command.status()?.success() {
        return Ok(());
    }
    let program = command.get_program().to_string_lossy().into_owned();
    Err(ThrowawayError::Program(program))
}
