//! One way to make AWS clients and to start up: default credential and region chains, `AWS_ENDPOINT_URL` respected, TLS by
//! rustls with ring, limits on every attempt so that a region that does not answer cannot hold a function.

use std::sync::Arc;
use std::time::Duration;

use aws_config::environment::EnvironmentVariableCredentialsProvider;
use aws_config::{BehaviorVersion, Region, SdkConfig};
use aws_smithy_http_client::{Builder, Connector, tls};
use aws_smithy_runtime_api::client::http::HttpConnectorSettings;
use aws_smithy_types::retry::RetryConfig;
use aws_smithy_types::timeout::TimeoutConfig;
use tokio::sync::OnceCell;
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

/// How long a TCP connection to a service may take.
pub const CONNECT_TIMEOUT: Duration = Duration::from_millis(1500);
/// How long one attempt may take.
pub const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(10);
/// How long an operation may take, retries included.
pub const OPERATION_TIMEOUT: Duration = Duration::from_secs(30);

/// Attempts of one operation, the first included.
pub const MAX_ATTEMPTS: u32 = 3;
/// The bound of the first pause between attempts; it doubles.
pub const FIRST_BACKOFF: Duration = Duration::from_millis(500);
/// The last bound.
pub const LAST_BACKOFF: Duration = Duration::from_secs(5);

const _: () =
    assert!(2 * ATTEMPT_TIMEOUT.as_millis() + LAST_BACKOFF.as_millis() < OPERATION_TIMEOUT.as_millis());
const _: () = assert!(CONNECT_TIMEOUT.as_millis() < ATTEMPT_TIMEOUT.as_millis());
const _: () = assert!(ATTEMPT_TIMEOUT.as_millis() < OPERATION_TIMEOUT.as_millis());

/// The shared configuration. `region` overrides the default chain.
pub async fn load(region: Option<&str>) -> SdkConfig {
    loader(region).load().await
}

/// The configuration of the environment's region and credentials, loaded when it is first needed. Clones are the same one, and
/// all clients made of it share its connections: the first one reads all certificates of the platform, which a function that was
/// asked for nothing need not do.
#[derive(Debug, Clone, Default)]
pub struct Shared(Arc<OnceCell<SdkConfig>>);

impl Shared {
    /// The configuration.
    pub async fn config(&self) -> &SdkConfig {
        self.0.get_or_init(|| load(None)).await
    }
}

/// A connector with the TLS and limits of the clients, for the requests that none of them makes.
pub fn connector() -> Connector {
    let settings = HttpConnectorSettings::builder().connect_timeout(CONNECT_TIMEOUT);
    Connector::builder()
        .tls_provider(provider())
        .connector_settings(settings.build())
        .build()
}

fn provider() -> tls::Provider {
    tls::Provider::Rustls(tls::rustls_provider::CryptoMode::Ring)
}

/// The loader behind [`load`], for callers that must override more.
pub fn loader(region: Option<&str>) -> aws_config::ConfigLoader {
    let http = Builder::new().tls_provider(provider()).build_https();
    let mut loader = aws_config::defaults(BehaviorVersion::latest())
        .http_client(http)
        .retry_config(retries())
        .timeout_config(
            TimeoutConfig::builder()
                .connect_timeout(CONNECT_TIMEOUT)
                .operation_attempt_timeout(ATTEMPT_TIMEOUT)
                .operation_timeout(OPERATION_TIMEOUT)
                .build(),
        );
    // The first links of the default chains, where they have an answer. The other links make clients and read the platform's
    // certificates before anybody asks for anything, which would be most of the start of a function.
    if let Some(region) = region.map(str::to_owned).or_else(|| set("AWS_REGION")) {
        loader = loader.region(Region::new(region));
    }
    if set("AWS_ACCESS_KEY_ID").is_some() && set("AWS_SECRET_ACCESS_KEY").is_some() {
        loader = loader.credentials_provider(EnvironmentVariableCredentialsProvider::new());
    }
    loader
}

/// A variable of the environment that is set and not empty, as the SDK's own chains take it.
fn set(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.trim().is_empty())
}

/// The SDK's own retries, with full jitter: three attempts bridge a lost connection or a throttled second within an operation.
/// What takes longer is the caller's: an attempt and its pauses must leave room for another in [`OPERATION_TIMEOUT`].
fn retries() -> RetryConfig {
    RetryConfig::standard()
        .with_max_attempts(MAX_ATTEMPTS)
        .with_initial_backoff(FIRST_BACKOFF)
        .with_max_backoff(LAST_BACKOFF)
}

/// Makes ring the process's TLS provider. Call once, first thing in `main`; later calls change nothing.
pub fn install_tls() {
    // An error means that a provider is installed already, which is what we want.
    let _ = rustls::crypto::ring::default_provider().install_default();
}

/// Structured logs, one JSON object a line, level by `RUST_LOG` (default `info`).
pub fn install_tracing() {
    let logs = tracing_subscriber::fmt::layer()
        .json()
        .flatten_event(true)
        .with_current_span(false)
        .with_span_list(false)
        .without_time();
    let _ = tracing_subscriber::registry()
        .with(logs)
        .with(log_filter())
        .try_init();
}

/// What is logged, by `RUST_LOG`: levels, or levels of targets, as `info,payments=debug` (default `info`).
///
/// Not by expressions over fields, which would bring an engine for regular expressions into every function.
pub fn log_filter() -> Targets {
    std::env::var("RUST_LOG")
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or_else(|| Targets::new().with_default(LevelFilter::INFO))
}
