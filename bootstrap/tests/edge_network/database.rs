//! The database behind its TLS proxy and on its replication links, with real servers.

use std::{
    collections::BTreeMap,
    net::{SocketAddr, TcpListener},
    os::unix::fs::PermissionsExt,
    path::Path,
    sync::Arc,
};

use bootstrap::local::{
    Region::{self, UsEast1, UsEast2},
    postgres::{Pair, PairConfig, Programs},
    process::Runtime,
    python,
};
use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, pem::PemObject},
};
use tokio_postgres::{NoTls, config::SslMode};
use tokio_postgres_rustls::MakeRustlsConnect;

use crate::cloud::{Cloud, eventually};

struct Bench {
    cloud: Cloud,
    pair: Pair,
    _data: tempfile::TempDir,
}

/// Two servers, of which us-east-1's writes, linked through the edge.
async fn bench() -> Bench {
    let data = tempfile::tempdir().unwrap();
    // Root's servers run as another user, who must get to his data.
    std::fs::set_permissions(data.path(), std::fs::Permissions::from_mode(0o711)).unwrap();
    let free = |region: Region| {
        TcpListener::bind((region.address(), 0))
            .unwrap()
            .local_addr()
            .unwrap()
    };
    let servers: BTreeMap<Region, SocketAddr> = Region::DATABASES.map(|region| (region, free(region))).into();
    let cloud = Cloud::with_databases(servers.clone()).await;
    let links = &cloud.edge.addresses().replication;
    let upstream = |standby: Region| (standby, links[&(standby.database_peer().unwrap(), standby)]);
    let pair = Pair::new(PairConfig {
        programs: Programs::new(python::ensure(&|_| {}).await.unwrap().postgres_programs()).unwrap(),
        directory: data.path().to_owned(),
        addresses: servers,
        upstreams: Region::DATABASES.map(upstream).into(),
        logs: Region::DATABASES
            .map(|region| (region, data.path().join(format!("{region}.log"))))
            .into(),
        password: "admin".into(),
        runtime: Arc::new(Runtime::create(data.path().join("run.json")).unwrap()),
    });
    pair.create(UsEast1).await.unwrap();
    let writer = pair.server(UsEast1);
    writer
        .execute("postgres", "CREATE ROLE app LOGIN PASSWORD 'secret'")
        .await
        .unwrap();
    writer
        .execute("postgres", "CREATE DATABASE payments OWNER app")
        .await
        .unwrap();
    Bench {
        cloud,
        pair,
        _data: data,
    }
}

impl Bench {
    fn config(&self, region: Region) -> tokio_postgres::Config {
        let address = self.cloud.edge.addresses().databases[&region];
        let mut config = tokio_postgres::Config::new();
        config
            .host(address.ip().to_string())
            .port(address.port())
            .user("app")
            .password("secret")
            .dbname("payments")
            .ssl_mode(SslMode::Require);
        config
    }

    /// Connects as the functions do: encrypted, the server's certificate verified.
    async fn connect(&self, region: Region) -> Result<tokio_postgres::Client, tokio_postgres::Error> {
        let tls = tls(&[self.cloud.directory().join("ca.pem")]);
        let (client, connection) = self.config(region).connect(tls).await?;
        tokio::spawn(connection);
        Ok(client)
    }

    async fn entries(&self, region: Region) -> Vec<i32> {
        // The standby may not have the database or the table yet.
        let Ok(client) = self.connect(region).await else {
            return Vec::new();
        };
        let rows = client.query("SELECT entry FROM ledger ORDER BY entry", &[]).await;
        rows.map(|rows| rows.iter().map(|row| row.get(0)).collect())
            .unwrap_or_default()
    }

    /// Whether the primary answers this query with a row.
    async fn primary_says(&self, query: &str) -> bool {
        !self.pair.server(UsEast1).query(query).await.unwrap().is_empty()
    }

    async fn stop(self) {
        self.pair.stop_immediately().await;
        self.cloud.edge.stop().await;
    }
}

fn tls(authorities: &[impl AsRef<Path>]) -> MakeRustlsConnect {
    let mut roots = RootCertStore::empty();
    for path in authorities {
        roots.add(CertificateDer::from_pem_file(path).unwrap()).unwrap();
    }
    MakeRustlsConnect::new(
        ClientConfig::builder()
            .with_root_certificates(roots)
            .with_no_client_auth(),
    )
}

#[tokio::test]
async fn the_database_is_reached_over_verified_tls_only() {
    let bench = bench().await;
    let client = bench.connect(UsEast1).await.unwrap();
    client
        .batch_execute("CREATE TABLE ledger (entry integer PRIMARY KEY); INSERT INTO ledger VALUES (1)")
        .await
        .unwrap();
    assert_eq!(bench.entries(UsEast1).await, [1]);

    let refused = bench
        .config(UsEast1)
        .ssl_mode(SslMode::Disable)
        .connect(NoTls)
        .await
        .err()
        .unwrap();
    let refused = refused.as_db_error().unwrap();
    assert_eq!(refused.code().code(), "28000");
    assert!(refused.message().contains("no encryption"), "{refused}");
    let strangers: [&Path; 0] = [];
    assert!(bench.config(UsEast1).connect(tls(&strangers)).await.is_err());

    // A request to cancel finds its way to the server.
    let cancel = client.cancel_token();
    let sleeping = tokio::spawn(async move { client.batch_execute("SELECT pg_sleep(60)").await });
    eventually("the query runs", async || {
        let running =
            "SELECT 1 FROM pg_stat_activity WHERE query = 'SELECT pg_sleep(60)' AND state = 'active'";
        bench.primary_says(running).await
    })
    .await;
    cancel
        .cancel_query(tls(&[bench.cloud.directory().join("ca.pem")]))
        .await
        .unwrap();
    assert!(sleeping.await.unwrap().is_err());

    // When the server is down, so is its port.
    bench.pair.server(UsEast1).kill().await;
    let tls = tls(&[bench.cloud.directory().join("ca.pem")]);
    assert!(bench.config(UsEast1).connect(tls).await.is_err());
    bench.stop().await;
}

#[tokio::test]
async fn lag_keeps_commits_at_the_primary_and_lets_them_go_without_loss() {
    let bench = bench().await;
    let writer = bench.connect(UsEast1).await.unwrap();
    writer
        .batch_execute("CREATE TABLE ledger (entry integer PRIMARY KEY); INSERT INTO ledger VALUES (1)")
        .await
        .unwrap();
    eventually("the standby follows", async || {
        bench.entries(UsEast2).await == [1]
    })
    .await;

    bench.cloud.network().lag(UsEast2, true);
    for entry in 2..=4 {
        writer
            .execute("INSERT INTO ledger VALUES ($1)", &[&entry])
            .await
            .unwrap();
    }
    // All is sent, and would be there if the link did not hold it.
    let sent = "SELECT 1 FROM pg_stat_replication WHERE sent_lsn = pg_current_wal_flush_lsn() AND replay_lsn < sent_lsn";
    eventually("the primary has sent it", async || bench.primary_says(sent).await).await;
    assert_eq!(bench.entries(UsEast2).await, [1]);
    bench.cloud.network().lag(UsEast2, false);
    eventually("the standby catches up", async || {
        bench.entries(UsEast2).await == [1, 2, 3, 4]
    })
    .await;

    bench.cloud.network().cut(UsEast1);
    let alone = "SELECT 1 WHERE NOT EXISTS (SELECT FROM pg_stat_replication)";
    eventually("the link is gone", async || bench.primary_says(alone).await).await;
    writer
        .batch_execute("INSERT INTO ledger VALUES (5)")
        .await
        .unwrap();
    assert_eq!(bench.entries(UsEast2).await, [1, 2, 3, 4]);
    bench.cloud.network().heal(UsEast1);
    eventually("the standby catches up", async || {
        bench.entries(UsEast2).await == [1, 2, 3, 4, 5]
    })
    .await;
    bench.stop().await;
}
