//! Connections to this region's database: TLS with full verification, credentials from the replicated secret.

use std::sync::Arc;

use async_trait::async_trait;
use aws_sdk_secretsmanager::Client as SecretsManager;
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
    /// No trusted root certificates were found.
    #[error("no root certificates in the platform's store")]
    NoRoots,
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

#[derive(Clone, Deserialize)]
struct Credentials {
    username: String,
    password: String,
    dbname: String,
}

/// Connects with the credentials of a secret, read once, and again when the server no longer takes them.
pub struct SecretConnector {
    secrets: SecretsManager,
    secret: String,
    host: String,
    port: u16,
    credentials: Mutex<Option<Credentials>>,
    tls: Mutex<Option<MakeRustlsConnect>>,
}

impl SecretConnector {
    /// Connections to `host:port` with the credentials in `secret`. Nothing is read before the first connection.
    pub fn new(secrets: SecretsManager, secret: String, host: String, port: u16) -> Self {
        SecretConnector {
            secrets,
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
        let output = self
            .secrets
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

    /// The TLS client: platform roots, `SSL_CERT_FILE` respected, host name verified, client certificates never.
    async fn tls(&self) -> Result<MakeRustlsConnect, ConnectError> {
        let mut held = self.tls.lock().await;
        if let Some(tls) = held.as_ref() {
            return Ok(tls.clone());
        }
        let mut roots = RootCertStore::empty();
        let found = rustls_native_certs::load_native_certs();
        roots.add_parsable_certificates(found.certs);
        if roots.is_empty() {
            return Err(ConnectError::NoRoots);
        }
        let config = ClientConfig::builder()
            .with_root_certificates(Arc::new(roots))
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
