//! The control interface of a running cloud: HTTP on the loopback address with a bearer token. The daemon's side is here,
//! and so is the client's.

use std::{
    collections::{BTreeMap, BTreeSet},
    convert::Infallible,
    net::SocketAddr,
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use async_trait::async_trait;
use bytes::Bytes;
use http::{Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::{
    client::legacy::Client,
    rt::{TokioExecutor, TokioIo},
};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use tokio::{net::TcpListener, time::timeout};

use super::{
    Cloud, Region,
    edge::{Strike, StrikeReport},
};

/// No command is longer.
const MAX_BODY_BYTES: usize = 64 * 1024;
/// How long a command may take: healing copies a whole database at worst.
const PATIENCE: Duration = Duration::from_secs(120);

/// What a running cloud says about itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// The cloud directory.
    pub directory: PathBuf,
    /// When it became ready, milliseconds since 1970.
    pub started_ms: u64,
    /// `AWS_ENDPOINT_URL` of an operator.
    pub endpoint_url: String,
    /// Where each region answers HTTPS.
    pub front_doors: BTreeMap<Region, SocketAddr>,
    /// The name server.
    pub dns: SocketAddr,
    /// Zones that the name server answers for.
    pub zones: Vec<String>,
    /// Each part and whether it runs.
    pub parts: BTreeMap<String, Process>,
    /// The database servers.
    pub databases: BTreeMap<Region, Database>,
    /// Regions that are cut off.
    pub cut: BTreeSet<Region>,
    /// Regions whose incoming replication is held.
    pub lagging: BTreeSet<Region>,
    /// Regions whose replicas of the global tables reach no other replica.
    pub tableless: BTreeSet<Region>,
    /// Regions whose database takes no commit.
    pub stuck: BTreeSet<Region>,
}

/// A process of the cloud.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Process {
    /// Its pid, when it was started last.
    pub pid: Option<u32>,
    /// Whether it runs.
    pub running: bool,
}

/// A database server of the cloud.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Database {
    /// Where functions reach it, with TLS.
    pub address: SocketAddr,
    /// `writer`, `standby`, `stopped-writer`, `stopped-standby`, or why that is not known.
    pub role: String,
    /// Of a writer: bytes that its standby lacks; none when no standby is connected.
    pub standby_lag_bytes: Option<i64>,
}

/// `POST /outage`.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub struct Outage {
    /// The region to cut off.
    pub region: Region,
    /// Whether its database server is killed too.
    #[serde(default)]
    pub kill_database: bool,
    /// Takes this from the region instead of cutting it off.
    #[serde(default)]
    pub only: Option<Part>,
}

/// What a region can lose while the rest of it goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Part {
    /// Its database server, killed (SIGKILL).
    Database,
    /// Its database's storage takes no commit; reads are answered.
    Writes,
    /// Its replicas of the global tables reach no other replica.
    Tables,
}

impl std::fmt::Display for Part {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Part::Database => "database",
            Part::Writes => "writes",
            Part::Tables => "tables",
        })
    }
}

/// `POST /heal`.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub struct Heal {
    /// The region to join again.
    pub region: Region,
}

/// `POST /lag`.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub struct Lag {
    /// The region whose incoming replication is meant.
    pub region: Region,
    /// Held, or released.
    pub on: bool,
}

/// What the daemon can be told. Errors are for the one who asked.
#[async_trait]
pub trait Commands: Send + Sync + 'static {
    /// How it is.
    async fn status(&self) -> Status;
    /// Cuts a region off.
    async fn outage(&self, outage: Outage) -> Result<(), String>;
    /// Joins a region again and takes its database back.
    async fn heal(&self, heal: Heal) -> Result<(), String>;
    /// Holds or releases replication.
    async fn lag(&self, lag: Lag) -> Result<(), String>;
    /// Strikes callers down at the calls that are described; none: nobody any more.
    fn strike(&self, strikes: Vec<Strike>);
    /// What became of the strikes that are armed.
    fn struck(&self) -> Vec<StrikeReport>;
    /// Ends the cloud; returns before it has ended.
    fn stop(&self);
}

/// Answers commands until the future is dropped.
pub async fn serve(listener: TcpListener, token: String, commands: Arc<dyn Commands>) {
    let token: Arc<str> = format!("Bearer {token}").into();
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            tokio::time::sleep(Duration::from_millis(50)).await;
            continue;
        };
        let (token, commands) = (token.clone(), commands.clone());
        let service = service_fn(move |request| {
            let (token, commands) = (token.clone(), commands.clone());
            async move { Ok::<_, Infallible>(answer(request, &token, commands.as_ref()).await) }
        });
        // The connection ends with its client, or with this process.
        tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), service));
    }
}

async fn answer(request: Request<Incoming>, token: &str, commands: &dyn Commands) -> Response<Full<Bytes>> {
    let sent = request
        .headers()
        .get(header::AUTHORIZATION)
        .map(|value| value.as_bytes());
    if !sent.is_some_and(|sent| same(sent, token.as_bytes())) {
        return problem(StatusCode::UNAUTHORIZED, "the token of `cloud.json` is required");
    }
    let (head, body) = request.into_parts();
    let Ok(body) = Limited::new(body, MAX_BODY_BYTES).collect().await else {
        return problem(StatusCode::PAYLOAD_TOO_LARGE, "the request is too long");
    };
    let body = body.to_bytes();
    let outcome = match (&head.method, head.uri.path()) {
        (&Method::GET, "/status") => return json(StatusCode::OK, &commands.status().await),
        (&Method::GET, "/strike") => return json(StatusCode::OK, &commands.struck()),
        (&Method::POST, "/strike") => match parse(&body) {
            Ok(strikes) => {
                commands.strike(strikes);
                Ok(())
            }
            Err(refusal) => return refusal,
        },
        (&Method::POST, "/stop") => {
            commands.stop();
            Ok(())
        }
        (&Method::POST, "/outage") => match parse(&body) {
            Ok(outage) => commands.outage(outage).await,
            Err(refusal) => return refusal,
        },
        (&Method::POST, "/heal") => match parse(&body) {
            Ok(heal) => commands.heal(heal).await,
            Err(refusal) => return refusal,
        },
        (&Method::POST, "/lag") => match parse(&body) {
            Ok(lag) => commands.lag(lag).await,
            Err(refusal) => return refusal,
        },
        _ => return problem(StatusCode::NOT_FOUND, "there is no such command"),
    };
    match outcome {
        Ok(()) => json(StatusCode::OK, &serde_json::json!({})),
        Err(text) => problem(StatusCode::CONFLICT, &text),
    }
}

fn parse<T: DeserializeOwned>(body: &[u8]) -> Result<T, Response<Full<Bytes>>> {
    serde_json::from_slice(body).map_err(|error| problem(StatusCode::BAD_REQUEST, &error.to_string()))
}

/// Compares without telling by its duration how much was right.
fn same(left: &[u8], right: &[u8]) -> bool {
    left.len() == right.len()
        && left
            .iter()
            .zip(right)
            .fold(0, |differences, (l, r)| differences | (l ^ r))
            == 0
}

fn json(status: StatusCode, value: &impl Serialize) -> Response<Full<Bytes>> {
    let body = serde_json::to_vec(value).expect("these values can be written as JSON");
    let mut response = Response::new(Full::from(body));
    *response.status_mut() = status;
    let content = header::HeaderValue::from_static("application/json");
    response.headers_mut().insert(header::CONTENT_TYPE, content);
    response
}

fn problem(status: StatusCode, text: &str) -> Response<Full<Bytes>> {
    json(
        status,
        &Problem {
            error: text.to_owned(),
        },
    )
}

#[derive(Debug, Serialize, Deserialize)]
struct Problem {
    error: String,
}

/// A command did not succeed.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    /// Nobody answers where `cloud.json` says.
    #[error("the local cloud in `{directory}` does not answer")]
    Silent {
        /// The cloud directory.
        directory: PathBuf,
        /// Why.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The daemon refused.
    #[error("{0}")]
    Refused(String),
}

impl Cloud {
    /// How the cloud is.
    pub async fn status(&self) -> Result<Status, ControlError> {
        self.command(Method::GET, "/status", &()).await
    }

    /// Cuts a region off from the rest, and kills its database server if that is wanted.
    pub async fn outage(&self, region: Region, kill_database: bool) -> Result<(), ControlError> {
        self.post(
            "/outage",
            &Outage {
                region,
                kill_database,
                only: None,
            },
        )
        .await
    }

    /// Takes one part from a region; the rest of it goes on.
    pub async fn take(&self, region: Region, part: Part) -> Result<(), ControlError> {
        let outage = Outage {
            region,
            kill_database: false,
            only: Some(part),
        };
        self.post("/outage", &outage).await
    }

    /// Joins a region again: traffic and replication flow, its database server is back as the control plane has it.
    pub async fn heal(&self, region: Region) -> Result<(), ControlError> {
        self.post("/heal", &Heal { region }).await
    }

    /// Holds the replication into a region, or lets it go.
    pub async fn lag(&self, region: Region, on: bool) -> Result<(), ControlError> {
        self.post("/lag", &Lag { region, on }).await
    }

    /// Strikes callers down at the calls that are described, and counts from here, for each by itself; none: nobody any more.
    pub async fn strike(&self, strikes: &[Strike]) -> Result<(), ControlError> {
        self.post("/strike", &strikes).await
    }

    /// What became of the strikes that are armed.
    pub async fn struck(&self) -> Result<Vec<StrikeReport>, ControlError> {
        self.command(Method::GET, "/strike", &()).await
    }

    /// Asks the daemon to end. To wait until all is gone use [`super::stop`].
    pub(super) async fn request_stop(&self) -> Result<(), ControlError> {
        self.post("/stop", &()).await
    }

    async fn post(&self, path: &str, body: &impl Serialize) -> Result<(), ControlError> {
        let _: serde_json::Value = self.command(Method::POST, path, body).await?;
        Ok(())
    }

    async fn command<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: &impl Serialize,
    ) -> Result<T, ControlError> {
        let silent = |source| ControlError::Silent {
            directory: self.directory.clone(),
            source,
        };
        let request = Request::builder()
            .method(method)
            .uri(format!("http://{}{path}", self.control))
            .header(header::AUTHORIZATION, format!("Bearer {}", self.control_token))
            .body(Full::<Bytes>::from(
                serde_json::to_vec(body).map_err(|error| silent(error.into()))?,
            ))
            .map_err(|error| silent(error.into()))?;
        let work = async {
            let response = Client::builder(TokioExecutor::new())
                .build_http()
                .request(request)
                .await?;
            let status = response.status();
            let body = response.into_body().collect().await?.to_bytes();
            Ok::<_, Box<dyn std::error::Error + Send + Sync>>((status, body))
        };
        let answer = timeout(PATIENCE, work)
            .await
            .map_err(|error| silent(error.into()))?;
        let (status, body) = answer.map_err(silent)?;
        if !status.is_success() {
            let problem = serde_json::from_slice::<Problem>(&body).map(|problem| problem.error);
            return Err(ControlError::Refused(
                problem.unwrap_or_else(|_| status.to_string()),
            ));
        }
        serde_json::from_slice(&body).map_err(|error| silent(error.into()))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::sync::Mutex;

    #[derive(Default)]
    struct Fake {
        heard: Mutex<Vec<String>>,
    }

    impl Fake {
        fn hear(&self, text: String) -> Result<(), String> {
            self.heard.lock().unwrap().push(text);
            Ok(())
        }
    }

    #[async_trait]
    impl Commands for Fake {
        async fn status(&self) -> Status {
            Status {
                directory: "/cloud".into(),
                started_ms: 1,
                endpoint_url: "http://127.0.0.1:1".to_owned(),
                front_doors: BTreeMap::new(),
                dns: "127.0.0.1:1".parse().unwrap(),
                zones: Vec::new(),
                parts: BTreeMap::new(),
                databases: BTreeMap::new(),
                cut: [Region::UsEast1].into(),
                lagging: BTreeSet::new(),
                tableless: BTreeSet::new(),
                stuck: BTreeSet::new(),
            }
        }
        async fn outage(&self, outage: Outage) -> Result<(), String> {
            self.hear(format!("{outage:?}"))
        }
        async fn heal(&self, _: Heal) -> Result<(), String> {
            Err("cannot heal".to_owned())
        }
        async fn lag(&self, lag: Lag) -> Result<(), String> {
            self.hear(format!("{lag:?}"))
        }
        fn strike(&self, strikes: Vec<Strike>) {
            let nth: Vec<u64> = strikes.iter().map(|strike| strike.nth).collect();
            self.hear(format!("strike {nth:?}")).unwrap();
        }
        fn struck(&self) -> Vec<StrikeReport> {
            Vec::new()
        }
        fn stop(&self) {
            self.hear("stop".to_owned()).unwrap();
        }
    }

    async fn cloud() -> (Cloud, Arc<Fake>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let cloud = Cloud {
            version: 1,
            pid: 1,
            started_ms: 1,
            directory: "/cloud".into(),
            endpoint_url: String::new(),
            region_endpoints: BTreeMap::new(),
            front_doors: BTreeMap::new(),
            dns: "127.0.0.1:1".parse().unwrap(),
            ca_certificate: PathBuf::new(),
            control: listener.local_addr().unwrap(),
            control_token: "token".to_owned(),
            databases: BTreeMap::new(),
            edge_log: PathBuf::new(),
            authorization_log: None,
        };
        let fake = Arc::new(Fake::default());
        tokio::spawn(serve(listener, "token".to_owned(), fake.clone()));
        (cloud, fake)
    }

    #[tokio::test]
    async fn commands_arrive_and_answers_come_back() {
        let (cloud, fake) = cloud().await;
        assert_eq!(cloud.status().await.unwrap(), fake.status().await);
        cloud.outage(Region::UsEast1, true).await.unwrap();
        cloud.take(Region::UsEast2, Part::Writes).await.unwrap();
        cloud.lag(Region::UsEast2, true).await.unwrap();
        let strike = Strike {
            nth: 3,
            ..Strike::default()
        };
        cloud.strike(&[strike]).await.unwrap();
        assert_eq!(cloud.struck().await.unwrap(), []);
        cloud.strike(&[]).await.unwrap();
        cloud.request_stop().await.unwrap();
        let heard = fake.heard.lock().unwrap().join("; ");
        let wanted = "Outage { region: UsEast1, kill_database: true, only: None }; \
                      Outage { region: UsEast2, kill_database: false, only: Some(Writes) }; Lag { region: UsEast2, on: true }; strike [3]; strike []; stop";
        assert_eq!(heard, wanted);
        assert_eq!(
            cloud.heal(Region::UsEast1).await.unwrap_err().to_string(),
            "cannot heal"
        );
    }

    #[tokio::test]
    async fn without_the_token_nothing_is_heard() {
        let (mut cloud, fake) = cloud().await;
        for wrong in ["", "tokem", "token2"] {
            cloud.control_token = wrong.to_owned();
            assert!(matches!(
                cloud.outage(Region::UsEast1, true).await,
                Err(ControlError::Refused(_))
            ));
        }
        assert!(fake.heard.lock().unwrap().is_empty());
    }

    #[tokio::test]
    async fn a_dead_cloud_is_named() {
        let (mut cloud, _fake) = cloud().await;
        cloud.control = {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            listener.local_addr().unwrap()
        };
        let error = cloud.status().await.unwrap_err();
        assert_eq!(error.to_string(), "the local cloud in `/cloud` does not answer");
    }
}
