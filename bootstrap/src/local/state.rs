//! `cloud.json`: what a running local cloud tells those who use it, and where its files are.

use std::{
    collections::BTreeMap,
    fs, io,
    io::Write,
    net::{IpAddr, SocketAddr},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use super::Region;

/// The version of `cloud.json` that this program writes and reads.
pub const VERSION: u32 = 1;
/// The name of the file in the cloud directory.
pub const FILE: &str = "cloud.json";

/// Where a local cloud keeps its files. Everything but the logs is removed when it stops.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layout {
    /// The cloud directory, absolute.
    pub directory: PathBuf,
}

impl Layout {
    /// The layout of a cloud directory, which need not exist.
    pub fn new(directory: &Path) -> io::Result<Self> {
        Ok(Self {
            directory: std::path::absolute(directory)?,
        })
    }

    /// `cloud.json`, there while the cloud can be used.
    pub fn cloud(&self) -> PathBuf {
        self.directory.join(FILE)
    }

    /// What runs, for the guardian.
    pub fn record(&self) -> PathBuf {
        self.directory.join("run.json")
    }

    /// Locked by the daemon as long as it lives.
    pub fn daemon_lock(&self) -> PathBuf {
        self.directory.join("daemon.lock")
    }

    /// Locked by the guardian as long as it lives.
    pub fn guardian_lock(&self) -> PathBuf {
        self.directory.join("guardian.lock")
    }

    /// The logs, which stay.
    pub fn logs(&self) -> PathBuf {
        self.directory.join("logs")
    }

    /// One part's log.
    pub fn log(&self, part: &str) -> PathBuf {
        self.logs().join(format!("{part}.log"))
    }

    /// One line per question whether a role may do something, where policies are enforced.
    pub fn authorization_log(&self) -> PathBuf {
        self.log("authorization")
    }

    /// The edge's log of calls, kept with the other logs once the cloud has stopped.
    pub fn edge_log(&self) -> PathBuf {
        self.directory.join(super::edge::LOG_FILE)
    }

    /// Removes the logs of the cloud before this one, but the daemon's, which is open.
    pub fn clear_logs(&self) -> io::Result<()> {
        for entry in fs::read_dir(self.logs())? {
            let path = entry?.path();
            if path != self.log("daemon") {
                remove(&path)?;
            }
        }
        Ok(())
    }

    /// Temporary files of the emulator and of the functions it runs.
    pub fn temporary(&self) -> PathBuf {
        self.directory.join("tmp")
    }

    /// The data of the database servers.
    pub fn databases(&self) -> PathBuf {
        self.directory.join("postgres")
    }

    /// Removes what a cloud left, but the logs and the locks (whose files other processes may hold open).
    pub fn clear(&self) -> io::Result<()> {
        let keep = [self.logs(), self.daemon_lock(), self.guardian_lock()];
        let entries = match fs::read_dir(&self.directory) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(error),
        };
        for entry in entries {
            let path = entry?.path();
            if keep.contains(&path) {
                continue;
            }
            if path == self.edge_log() && self.logs().is_dir() {
                fs::rename(&path, self.log("edge"))?;
                continue;
            }
            remove(&path)?;
        }
        Ok(())
    }
}

/// Removes a file or a whole directory; an absent one is no error.
pub fn remove(path: &Path) -> io::Result<()> {
    let outcome = match fs::symlink_metadata(path) {
        Ok(metadata) if metadata.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
        Err(error) => Err(error),
    };
    match outcome {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Writes a file that only its owner may read; a reader sees the old content or the new, never a part.
pub fn write_private(path: &Path, content: &[u8]) -> io::Result<()> {
    let partial = path.with_extension("partial");
    remove(&partial)?;
    let mut file = fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&partial)?;
    file.write_all(content)?;
    fs::rename(&partial, path)
}

/// A running local cloud, as `cloud.json` describes it. The file holds a secret (`control_token`): mode 0600.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cloud {
    /// Version of this format.
    pub version: u32,
    /// Process id of the daemon.
    pub pid: u32,
    /// When the daemon became ready, milliseconds since 1970.
    pub started_ms: u64,
    /// The cloud directory, absolute.
    pub directory: PathBuf,
    /// `AWS_ENDPOINT_URL` and `HTTPS_PROXY` of an operator, who is outside all regions.
    pub endpoint_url: String,
    /// The same as seen from inside each region.
    pub region_endpoints: BTreeMap<Region, String>,
    /// Where each region answers HTTPS for its APIs.
    pub front_doors: BTreeMap<Region, SocketAddr>,
    /// The name server that plays Route 53's data plane.
    pub dns: SocketAddr,
    /// Certificates to trust (PEM): the local authority's.
    pub ca_certificate: PathBuf,
    /// The control interface, HTTP.
    pub control: SocketAddr,
    /// The bearer token of the control interface.
    pub control_token: String,
    /// Where functions reach each region's database (TLS).
    pub databases: BTreeMap<Region, DatabaseAddress>,
    /// One line per call that passed the edge.
    pub edge_log: PathBuf,
    /// Where policies are enforced: one line per question whether a role may do something.
    #[serde(default)]
    pub authorization_log: Option<PathBuf>,
}

impl Cloud {
    /// Reads `cloud.json`; `None` if no cloud runs in the directory.
    pub fn read(layout: &Layout) -> io::Result<Option<Self>> {
        let bytes = match fs::read(layout.cloud()) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        let cloud: Cloud = serde_json::from_slice(&bytes).map_err(io::Error::other)?;
        if cloud.version != VERSION {
            let text = format!("version {} of `{FILE}` is another program's", cloud.version);
            return Err(io::Error::other(text));
        }
        Ok(Some(cloud))
    }

    /// Writes `cloud.json`.
    pub fn write(&self, layout: &Layout) -> io::Result<()> {
        write_private(
            &layout.cloud(),
            &serde_json::to_vec_pretty(self).map_err(io::Error::other)?,
        )
    }

    /// What a shell or a program exports to use this cloud as an operator, who is outside all regions.
    pub fn environment(&self) -> Vec<(&'static str, String)> {
        let certificates = self.ca_certificate.display().to_string();
        vec![
            ("AWS_ENDPOINT_URL", self.endpoint_url.clone()),
            ("AWS_REGION", Region::UsEast1.to_string()),
            ("AWS_DEFAULT_REGION", Region::UsEast1.to_string()),
            ("AWS_ACCESS_KEY_ID", "test".to_owned()),
            ("AWS_SECRET_ACCESS_KEY", "test".to_owned()),
            ("HTTPS_PROXY", self.endpoint_url.clone()),
            ("https_proxy", self.endpoint_url.clone()),
            ("NO_PROXY", "127.0.0.1,localhost".to_owned()),
            ("no_proxy", "127.0.0.1,localhost".to_owned()),
            ("SSL_CERT_FILE", certificates.clone()),
            ("CURL_CA_BUNDLE", certificates),
        ]
    }
}

impl std::fmt::Debug for Cloud {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Cloud")
            .field("pid", &self.pid)
            .field("directory", &self.directory)
            .field("endpoint_url", &self.endpoint_url)
            .finish_non_exhaustive()
    }
}

/// Address and port of a region's database.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct DatabaseAddress {
    /// The region's loopback address.
    pub address: IpAddr,
    /// A port that was free when the cloud started.
    pub port: u16,
}

impl From<DatabaseAddress> for SocketAddr {
    fn from(database: DatabaseAddress) -> Self {
        SocketAddr::new(database.address, database.port)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    fn cloud(directory: &Path) -> Cloud {
        Cloud {
            version: VERSION,
            pid: 1,
            started_ms: 2,
            directory: directory.to_owned(),
            endpoint_url: "http://127.0.0.1:3".to_owned(),
            region_endpoints: [(Region::UsEast1, "http://127.0.0.1:4".to_owned())].into(),
            front_doors: [(Region::UsEast1, "127.0.1.1:5".parse().unwrap())].into(),
            dns: "127.0.0.1:6".parse().unwrap(),
            ca_certificate: directory.join("ca.pem"),
            control: "127.0.0.1:7".parse().unwrap(),
            control_token: "secret".to_owned(),
            databases: [(
                Region::UsEast1,
                DatabaseAddress {
                    address: "127.0.1.1".parse().unwrap(),
                    port: 8,
                },
            )]
            .into(),
            edge_log: directory.join("logs/edge.log"),
            authorization_log: None,
        }
    }

    #[test]
    fn cloud_json_reads_back_and_is_private() {
        let directory = tempfile::tempdir().unwrap();
        let layout = Layout::new(directory.path()).unwrap();
        assert_eq!(Cloud::read(&layout).unwrap(), None);
        let cloud = cloud(directory.path());
        cloud.write(&layout).unwrap();
        cloud.write(&layout).unwrap();
        assert_eq!(Cloud::read(&layout).unwrap(), Some(cloud));
        assert_eq!(
            fs::metadata(layout.cloud()).unwrap().permissions().mode() & 0o777,
            0o600
        );
        let text = fs::read_to_string(layout.cloud()).unwrap();
        assert!(text.contains(r#""us-east-1": "127.0.1.1:5""#), "{text}");
    }

    #[test]
    fn the_token_is_not_in_debug_output() {
        assert!(!format!("{:?}", cloud(Path::new("/x"))).contains("secret"));
    }

    #[test]
    fn clearing_keeps_the_logs() {
        let directory = tempfile::tempdir().unwrap();
        let layout = Layout::new(directory.path()).unwrap();
        fs::create_dir_all(layout.logs()).unwrap();
        fs::create_dir_all(layout.databases().join("deep")).unwrap();
        fs::write(layout.edge_log(), "calls").unwrap();
        cloud(directory.path()).write(&layout).unwrap();
        layout.clear().unwrap();
        let left: Vec<_> = fs::read_dir(directory.path())
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .collect();
        assert_eq!(left, [layout.logs()]);
        assert_eq!(fs::read_to_string(layout.log("edge")).unwrap(), "calls");
    }
}
