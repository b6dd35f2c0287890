//! The local certificate authority: what public certificate authorities and the RDS authority are on AWS. Its own
//! certificate is written to the cloud directory; certificates of hosts are issued when a client first asks for them.

use std::{
    collections::HashMap,
    fs,
    io::Write,
    net::IpAddr,
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, SystemTime},
};

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer,
    KeyPair, KeyUsagePurpose, date_time_ymd,
};
use rustls::{
    ServerConfig,
    crypto::{CryptoProvider, ring},
    pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer},
    server::{ClientHello, ResolvesServerCert},
    sign::CertifiedKey,
};

/// The certificates to trust, PEM. What `SSL_CERT_FILE` names.
pub const CERTIFICATE_FILE: &str = "ca.pem";
/// The authority's private key, PEM, mode 0600. It stays valid over restarts, so that clients keep trusting.
const KEY_FILE: &str = "ca.key.pem";
/// Hosts whose certificates are kept. The cloud serves a handful; a client that invents names must not fill the memory.
const MAX_CACHED: usize = 1024;

const DAY: Duration = Duration::from_secs(24 * 60 * 60);
/// How long a host's certificate is valid: what public authorities may give, which some clients insist on.
const VALIDITY: Duration = Duration::from_secs(397 * 24 * 60 * 60);

/// The authority could not be read, made or used.
#[derive(Debug, thiserror::Error)]
pub enum CaError {
    /// A file of the authority could not be read or written.
    #[error("cannot use `{}`", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// A certificate could not be made.
    #[error("cannot issue a certificate for `{subject}`")]
    Issue {
        /// For whom.
        subject: String,
        /// Why.
        #[source]
        source: rcgen::Error,
    },
    /// rustls does not accept what was made.
    #[error("the certificate for `{subject}` cannot be served")]
    Tls {
        /// For whom.
        subject: String,
        /// Why.
        #[source]
        source: rustls::Error,
    },
}

/// Issues certificates that everything in the local cloud trusts.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    certificate: PathBuf,
    pem: String,
    issued: Mutex<HashMap<String, Arc<CertifiedKey>>>,
}

impl std::fmt::Debug for Authority {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Authority")
            .field("certificate", &self.certificate)
            .finish_non_exhaustive()
    }
}

impl Authority {
    /// Opens the authority of a cloud directory; makes one if there is none.
    pub fn open(directory: &Path) -> Result<Self, CaError> {
        let certificate = directory.join(CERTIFICATE_FILE);
        let key_file = directory.join(KEY_FILE);
        let read = |path: &Path| match fs::read_to_string(path) {
            Ok(text) => Ok(Some(text)),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(CaError::File {
                path: path.to_owned(),
                source,
            }),
        };
        if let (Some(pem), Some(key)) = (read(&certificate)?, read(&key_file)?) {
            if let Ok(key) = KeyPair::from_pem(&key) {
                // Name and extensions are always the same, only the key is not: that is all an issuer needs.
                let issuer = Issuer::new(authority_params(), key);
                return Ok(Self {
                    issuer,
                    certificate,
                    pem,
                    issued: Mutex::default(),
                });
            }
            tracing::warn!(path = %certificate.display(), "the local authority cannot be read, making a new one");
        }
        let failed = |source| CaError::Issue {
            subject: "the local authority".to_owned(),
            source,
        };
        let key = KeyPair::generate().map_err(failed)?;
        let params = authority_params();
        let pem = params.self_signed(&key).map_err(failed)?.pem();
        write_file(&key_file, &key.serialize_pem(), 0o600)?;
        write_file(&certificate, &pem, 0o644)?;
        Ok(Self {
            issuer: Issuer::new(params, key),
            certificate,
            pem,
            issued: Mutex::default(),
        })
    }

    /// Where the authority's certificate is.
    pub fn certificate_path(&self) -> &Path {
        &self.certificate
    }

    /// The authority's certificate, PEM.
    pub fn pem(&self) -> &str {
        &self.pem
    }

    /// TLS for a listener that answers for whatever host the client names (SNI). `fallback` is served to a client that
    /// names none, which is what one does that connects to an address. `alpn` lists the protocols offered.
    pub fn server_config(self: &Arc<Self>, fallback: IpAddr, alpn: &[&[u8]]) -> Arc<ServerConfig> {
        let resolver = Resolver {
            authority: self.clone(),
            fallback: fallback.to_string(),
            only_fallback: false,
        };
        server_config(resolver, alpn)
    }

    /// TLS for a server that is only one address and says so whatever the client asks for, as a database does.
    pub fn address_config(self: &Arc<Self>, address: IpAddr) -> Arc<ServerConfig> {
        let resolver = Resolver {
            authority: self.clone(),
            fallback: address.to_string(),
            only_fallback: true,
        };
        server_config(resolver, &[])
    }

    /// The certificate of a host or address, issued at the first request.
    fn certified(&self, host: &str) -> Result<Arc<CertifiedKey>, CaError> {
        let host = host.to_ascii_lowercase();
        let mut issued = self.issued.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(key) = issued.get(&host) {
            return Ok(key.clone());
        }
        let key = Arc::new(self.issue(&host)?);
        if issued.len() >= MAX_CACHED {
            issued.clear();
        }
        issued.insert(host, key.clone());
        Ok(key)
    }

    fn issue(&self, host: &str) -> Result<CertifiedKey, CaError> {
        let failed = |source| CaError::Issue {
            subject: host.to_owned(),
            source,
        };
        let key = KeyPair::generate().map_err(failed)?;
        let mut params = CertificateParams::new(vec![host.to_owned()]).map_err(failed)?;
        params.distinguished_name = name(host);
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        params.use_authority_key_identifier_extension = true;
        let now = SystemTime::now();
        params.not_before = (now - DAY).into();
        params.not_after = (now + VALIDITY).into();
        let certificate = params.signed_by(&key, &self.issuer).map_err(failed)?;
        let private = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
        CertifiedKey::from_der(vec![certificate.der().clone()], private, &provider()).map_err(|source| {
            CaError::Tls {
                subject: host.to_owned(),
                source,
            }
        })
    }
}

fn authority_params() -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = name("Understudy local cloud");
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.not_before = date_time_ymd(2024, 1, 1);
    params.not_after = date_time_ymd(2124, 1, 1);
    params
}

fn name(common_name: &str) -> DistinguishedName {
    let mut name = DistinguishedName::new();
    // A common name holds at most 64 characters; what counts is the alternative name.
    name.push(
        DnType::CommonName,
        common_name.chars().take(64).collect::<String>(),
    );
    name
}

fn write_file(path: &Path, text: &str, mode: u32) -> Result<(), CaError> {
    let write = || {
        let mut file = fs::OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(mode)
            .open(path)?;
        file.write_all(text.as_bytes())
    };
    write().map_err(|source| CaError::File {
        path: path.to_owned(),
        source,
    })
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(ring::default_provider())
}

fn server_config(resolver: Resolver, alpn: &[&[u8]]) -> Arc<ServerConfig> {
    let mut config = ServerConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .expect("ring supports the default protocol versions")
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(resolver));
    config.alpn_protocols = alpn.iter().map(|protocol| protocol.to_vec()).collect();
    Arc::new(config)
}

struct Resolver {
    authority: Arc<Authority>,
    fallback: String,
    only_fallback: bool,
}

impl std::fmt::Debug for Resolver {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Resolver")
            .field("fallback", &self.fallback)
            .finish_non_exhaustive()
    }
}

impl ResolvesServerCert for Resolver {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let host = hello
            .server_name()
            .filter(|_| !self.only_fallback)
            .unwrap_or(&self.fallback);
        self.authority
            .certified(host)
            .inspect_err(|error| tracing::error!(host, %error, "no certificate for a client"))
            .ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_authority_survives_a_restart_and_its_key_is_private() {
        use std::os::unix::fs::PermissionsExt;
        let directory = tempfile::tempdir().unwrap();
        let first = Authority::open(directory.path()).unwrap();
        let second = Authority::open(directory.path()).unwrap();
        assert_eq!(first.pem(), second.pem());
        let mode = fs::metadata(directory.path().join(KEY_FILE))
            .unwrap()
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn a_certificate_is_issued_once_per_host() {
        let directory = tempfile::tempdir().unwrap();
        let authority = Authority::open(directory.path()).unwrap();
        let first = authority.certified("API.example.test").unwrap();
        let again = authority.certified("api.example.test").unwrap();
        assert!(Arc::ptr_eq(&first, &again));
        assert!(!Arc::ptr_eq(&first, &authority.certified("127.0.1.1").unwrap()));
    }
}
