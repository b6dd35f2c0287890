//! Connections to this region's database: TLS with full verification against the authorities of Amazon RDS, credentials from
//! the replicated secret.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use aws_sdk_secretsmanager::Client as SecretsManager;
use continuity::aws::Shared;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore};
use serde::Deserialize;
use tokio::sync::Mutex;
use tokio_postgres::config::SslMode;
use tokio_postgres::error::SqlState;
use tokio_postgres::{Client, Config};
use tokio_postgres_rustls::MakeRustlsConnect;

use crate::limits::{CONNECT_TIMEOUT, LOCK_TIMEOUT, STATEMENT_TIMEOUT};

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The secret could not be read.
    #[error("secret `{name}` could not be read")]
    Secret {
        /// Its name.
        name: String,
        /// What the SDK said.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The secret does not hold what it should. Its content is not repeated here.
    #[error("secret `{0}` is not an object with `username`, `password` and `dbname`")]
    SecretMalformed(String),
    /// Additional certificates to trust could not be read.
    #[error("`SSL_CERT_FILE` names `{path}`, which cannot be read as certificates in PEM")]
    Roots {
        /// The file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: rustls::pki_types::pem::Error,
    },
    /// The server did not take the connection.
    #[error("database `{host}:{port}` did not take the connection")]
    Server {
        /// Its host.
        host: String,
        /// Its port.
        port: u16,
        /// What the driver said.
        #[source]
        source: tokio_postgres::Error,
    },
    /// It took too long.
    #[error("connecting took too long")]
    Timeout,
}

/// Makes connections. The one of the function is [`SecretConnector`]; tests bring their own.
#[async_trait]
pub trait Connect: Send + Sync {
    /// A new connection, its traffic already driven in the background.
    async fn connect(&self) -> Result<Client, ConnectError>;
}

/// What every connection sets, so that the server gives up before we do.
pub fn session_options() -> String {
    format!(
        "-c statement_timeout={} -c lock_timeout={} -c idle_in_transaction_session_timeout={}",
        STATEMENT_TIMEOUT.as_millis(),
        LOCK_TIMEOUT.as_millis(),
        STATEMENT_TIMEOUT.as_millis()
    )
}

/// Drives a connection until it ends.
pub fn drive(connection: impl Future<Output = Result<(), tokio_postgres::Error>> + Send + 'static) {
    tokio::spawn(async move {
        if let Err(error) = connection.await {
            tracing::info!(
                error = continuity::error::chain(&error),
                "database connection ended"
            );
        }
    });
}

/// The certificate authorities of Amazon RDS in every region that a stack may use, PEM with comments. No platform's store
/// has them (<https://docs.aws.amazon.com/AmazonRDS/latest/UserGuide/UsingWithRDS.SSL.html>).
pub const RDS_ROOTS: &str = include_str!("../../certificates/rds-roots.pem");

/// Whom a database's certificate must come from: Amazon RDS, or one of the authorities in a file that `SSL_CERT_FILE` names,
/// for a database behind a proxy with a certificate of its own. The platform's store is not asked: none of those has any
/// business with the database.
///
/// # Errors
/// The file cannot be read.
pub fn roots(also: Option<&Path>) -> Result<RootCertStore, ConnectError> {
    let mut roots = RootCertStore::empty();
    let ours = CertificateDer::pem_slice_iter(RDS_ROOTS.as_bytes());
    roots.add_parsable_certificates(ours.map(|root| root.expect("a test reads all of them")));
    if let Some(path) = also {
        let failed = |source| ConnectError::Roots {
            path: path.to_owned(),
            source,
        };
        let theirs = CertificateDer::pem_file_iter(path).map_err(failed)?;
        roots.add_parsable_certificates(theirs.collect::<Result<Vec<_>, _>>().map_err(failed)?);
    }
    Ok(roots)
}

#[derive(Clone, Deserialize)]
struct Credentials {
    username: String,
    password: String,
    dbname: String,
}

/// Connects with the credentials of a secret, read once, and again when the server no longer takes them.
pub struct SecretConnector {
    aws: Shared,
    secret: String,
    host: String,
    port: u16,
    credentials: Mutex<Option<Credentials>>,
    tls: Mutex<Option<MakeRustlsConnect>>,
}

impl SecretConnector {
    /// Connections to `host:port` with the credentials in `secret`. Nothing is read before the first connection.
    pub fn new(aws: Shared, secret: String, host: String, port: u16) -> Self {
        SecretConnector {
            aws,
            secret,
            host,
            port,
            credentials: Mutex::new(None),
            tls: Mutex::new(None),
        }
    }

    async fn credentials(&self, fresh: bool) -> Result<Credentials, ConnectError> {
        let mut held = self.credentials.lock().await;
        if let (false, Some(credentials)) = (fresh, held.as_ref()) {
            return Ok(credentials.clone());
        }
        let output = SecretsManager::new(self.aws.config().await)
            .get_secret_value()
            .secret_id(&self.secret)
            .send()
            .await;
        let output = output.map_err(|error| ConnectError::Secret {
            name: self.secret.clone(),
            source: error.into(),
        })?;
        let credentials: Credentials = output
            .secret_string()
            .and_then(|text| serde_json::from_str(text).ok())
            .ok_or_else(|| ConnectError::SecretMalformed(self.secret.clone()))?;
        *held = Some(credentials.clone());
        Ok(credentials)
    }

    /// The TLS client: see [`roots`]; host name verified, client certificates never.
    async fn tls(&self) -> Result<MakeRustlsConnect, ConnectError> {
        let mut held = self.tls.lock().await;
        if let Some(tls) = held.as_ref() {
            return Ok(tls.clone());
        }
        let also = std::env::var_os("SSL_CERT_FILE");
        let config = ClientConfig::builder()
            .with_root_certificates(Arc::new(roots(also.as_ref().map(Path::new))?))
            .with_no_client_auth();
        let tls = MakeRustlsConnect::new(config);
        *held = Some(tls.clone());
        Ok(tls)
    }

    async fn open(&self, credentials: Credentials) -> Result<Client, ConnectError> {
        let mut config = Config::new();
        config
            .host(&self.host)
            .port(self.port)
            .user(&credentials.username)
            .password(&credentials.password)
            .dbname(&credentials.dbname)
            .application_name("payment-processor")
            .ssl_mode(SslMode::Require)
            .connect_timeout(CONNECT_TIMEOUT)
            .options(session_options());
        let (client, connection) =
            config
                .connect(self.tls().await?)
                .await
                .map_err(|source| ConnectError::Server {
                    host: self.host.clone(),
                    port: self.port,
                    source,
                })?;
        drive(connection);
        Ok(client)
    }
}

fn credentials_refused(error: &ConnectError) -> bool {
    let ConnectError::Server { source, .. } = error else {
        return false;
    };
    matches!(
        source.code(),
        Some(&SqlState::INVALID_PASSWORD | &SqlState::INVALID_AUTHORIZATION_SPECIFICATION)
    )
}

#[async_trait]
impl Connect for SecretConnector {
    async fn connect(&self) -> Result<Client, ConnectError> {
        match self.open(self.credentials(false).await?).await {
            Err(error) if credentials_refused(&error) => self.open(self.credentials(true).await?).await,
            result => result,
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use sha2::{Digest, Sha256};

    use super::*;

    #[test]
    fn every_authority_is_what_its_comment_says() {
        let blocks: Vec<&str> = RDS_ROOTS.split("\n\n").skip(1).collect();
        for block in &blocks {
            let mut lines = block.lines();
            let (name, hash) = (
                lines.next().unwrap(),
                lines.next().unwrap().strip_prefix("SHA-256 ").unwrap(),
            );
            let der = CertificateDer::from_pem_slice(block.as_bytes()).unwrap();
            assert_eq!(hex::encode(Sha256::digest(&der)), hash, "{name}");
            let named = der.windows(name.len()).any(|part| part == name.as_bytes());
            assert!(named, "{name}");
        }
        assert_eq!(roots(None).unwrap().len(), blocks.len());
    }

    #[test]
    fn a_file_of_more_authorities_is_trusted_too_and_a_missing_one_is_an_error_that_names_it() {
        let folder = std::env::temp_dir().join(format!("roots-{}", uuid::Uuid::new_v4()));
        let one = RDS_ROOTS.split("\n\n").nth(1).unwrap();
        std::fs::write(&folder, one).unwrap();
        let with = roots(Some(&folder)).unwrap().len();
        std::fs::remove_file(&folder).unwrap();
        assert_eq!(with, roots(None).unwrap().len() + 1);
        let error = roots(Some(&folder)).unwrap_err().to_string();
        assert!(error.contains(&folder.display().to_string()), "{error}");
    }
}
