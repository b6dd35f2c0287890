//! Health checks as Route 53's checkers make them: from outside, each over a new connection, without looking at the
//! certificate. Connecting may take 4 s, the answer 2 s after that.

use std::{
    collections::BTreeMap,
    io,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use http::{Request, header};
use http_body_util::{BodyExt, Empty};
use hyper_util::rt::TokioIo;
use rustls::{
    ClientConfig, DigitallySignedStruct, Error, SignatureScheme,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    crypto::{CryptoProvider, ring},
    pki_types::{CertificateDer, ServerName, UnixTime},
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
};
use tokio_rustls::TlsConnector;

use super::zones::{Check, ExecuteApi, Protocol};
use crate::local::Region;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(4);
const ANSWER_TIMEOUT: Duration = Duration::from_secs(2);
/// How much of a body is searched for the text that must be in it.
const SEARCHED_BYTES: usize = 5120;

/// Why an endpoint counts as unhealthy this time.
#[derive(Debug, thiserror::Error)]
pub(super) enum CheckError {
    #[error("the check names no endpoint of the local cloud")]
    NoEndpoint,
    #[error("no connection in time")]
    Connect(#[source] io::Error),
    #[error("no answer in time")]
    Late,
    #[error("no answer")]
    Answer(#[source] hyper::Error),
    #[error("the answer is {0}")]
    Status(http::StatusCode),
    #[error("the answer lacks the text")]
    Text,
    #[error("the check cannot be made")]
    Request(#[source] http::Error),
}

/// Makes health checks.
#[derive(Clone)]
pub(super) struct Checker {
    tls: TlsConnector,
    front_doors: Arc<BTreeMap<Region, SocketAddr>>,
}

impl Checker {
    pub(super) fn new(front_doors: BTreeMap<Region, SocketAddr>) -> Self {
        let provider = Arc::new(ring::default_provider());
        let config = ClientConfig::builder_with_provider(provider.clone())
            .with_safe_default_protocol_versions()
            .expect("ring supports the default protocol versions")
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(Unvalidated(provider)))
            .with_no_client_auth();
        Self {
            tls: TlsConnector::from(Arc::new(config)),
            front_doors: Arc::new(front_doors),
        }
    }

    /// Checks the endpoint once.
    pub(super) async fn check(&self, check: &Check) -> Result<(), CheckError> {
        let endpoint = self.endpoint(check).ok_or(CheckError::NoEndpoint)?;
        let stream = in_time(CONNECT_TIMEOUT, TcpStream::connect(endpoint)).await?;
        match check.protocol {
            Protocol::Tcp | Protocol::Unobserved => Ok(()),
            Protocol::Http => answer(stream, check).await,
            Protocol::Https => {
                let name = check
                    .host
                    .clone()
                    .and_then(|host| ServerName::try_from(host).ok());
                let name = name.unwrap_or_else(|| ServerName::IpAddress(endpoint.ip().into()));
                let stream = in_time(CONNECT_TIMEOUT, self.tls.connect(name, stream)).await?;
                answer(stream, check).await
            }
        }
    }

    /// Where to connect: the front door for a host or an address of the local cloud, and any other address as it is.
    fn endpoint(&self, check: &Check) -> Option<SocketAddr> {
        match check.address {
            Some(address) => {
                let door = Region::ALL
                    .into_iter()
                    .find(|region| IpAddr::from(region.address()) == address);
                match door {
                    Some(region) => self.front_doors.get(&region).copied(),
                    None => Some(SocketAddr::new(address, check.port)),
                }
            }
            None => {
                let api = ExecuteApi::parse(check.host.as_deref()?)?;
                self.front_doors.get(&api.region).copied()
            }
        }
    }
}

async fn in_time<T>(limit: Duration, work: impl Future<Output = io::Result<T>>) -> Result<T, CheckError> {
    let done = tokio::time::timeout(limit, work)
        .await
        .unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()));
    done.map_err(CheckError::Connect)
}

async fn answer(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    check: &Check,
) -> Result<(), CheckError> {
    tokio::time::timeout(ANSWER_TIMEOUT, request(stream, check))
        .await
        .unwrap_or(Err(CheckError::Late))
}

async fn request(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    check: &Check,
) -> Result<(), CheckError> {
    let host = check
        .host
        .clone()
        .or_else(|| check.address.map(|address| address.to_string()))
        .unwrap_or_default();
    let request = Request::get(&check.path)
        .header(header::HOST, host)
        .header(header::USER_AGENT, "Amazon-Route53-Health-Check-Service (local)")
        .header(header::CONNECTION, "close")
        .body(Empty::<Bytes>::new())
        .map_err(CheckError::Request)?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
        .await
        .map_err(CheckError::Answer)?;
    let exchange = async {
        let response = sender.send_request(request).await.map_err(CheckError::Answer)?;
        let status = response.status();
        if !(status.is_success() || status.is_redirection()) {
            return Err(CheckError::Status(status));
        }
        match &check.search {
            Some(text) => contains(response.into_body(), text).await,
            None => Ok(()),
        }
    };
    let mut exchange = std::pin::pin!(exchange);
    tokio::select! {
        result = &mut exchange => result,
        // The connection may end as soon as the answer is in.
        ended = connection => match ended {
            Ok(()) => exchange.await,
            Err(error) => Err(CheckError::Answer(error)),
        },
    }
}

async fn contains(mut body: hyper::body::Incoming, text: &str) -> Result<(), CheckError> {
    let mut searched = Vec::new();
    while let Some(frame) = body.frame().await {
        if let Ok(data) = frame.map_err(CheckError::Answer)?.into_data() {
            searched.extend_from_slice(&data);
        }
        if searched.len() >= SEARCHED_BYTES {
            searched.truncate(SEARCHED_BYTES);
            break;
        }
    }
    if String::from_utf8_lossy(&searched).contains(text) {
        Ok(())
    } else {
        Err(CheckError::Text)
    }
}

/// Route 53 does not validate the certificates of the endpoints it checks.
#[derive(Debug)]
struct Unvalidated(Arc<CryptoProvider>);

impl ServerCertVerifier for Unvalidated {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        rustls::crypto::verify_tls12_signature(message, cert, dss, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        rustls::crypto::verify_tls13_signature(message, cert, dss, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
