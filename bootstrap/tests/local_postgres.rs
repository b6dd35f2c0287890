//! The pair of real servers and the mirror over it: replication, kill -9, promotion, rewinding, planned changes. The two
//! servers reach each other directly here; links that can be cut are the edge's.
#![allow(clippy::unwrap_used, missing_docs)]

use std::{
    collections::BTreeMap,
    net::{SocketAddr, TcpListener},
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use bootstrap::local::{
    AuroraMirror, MirrorError, Network, Region,
    mirror::Mirror,
    postgres::{Pair, PairConfig, Programs, Role},
    process::Runtime,
    python,
};
use tokio_postgres::NoTls;

use Region::{UsEast1, UsEast2};

const PATIENCE: Duration = Duration::from_secs(20);

struct Bench {
    pair: Arc<Pair>,
    network: Arc<Network>,
    mirror: Mirror,
    addresses: BTreeMap<Region, SocketAddr>,
    _directory: tempfile::TempDir,
}

fn free(region: Region) -> SocketAddr {
    TcpListener::bind((region.address(), 0))
        .unwrap()
        .local_addr()
        .unwrap()
}

async fn bench() -> Bench {
    let environment = python::ensure(&|_| {}).await.unwrap();
    let directory = tempfile::tempdir().unwrap();
    let open = std::os::unix::fs::PermissionsExt::from_mode(0o711);
    std::fs::set_permissions(directory.path(), open).unwrap();
    let addresses: BTreeMap<Region, SocketAddr> =
        Region::DATABASES.map(|region| (region, free(region))).into();
    let upstreams = [(UsEast1, addresses[&UsEast2]), (UsEast2, addresses[&UsEast1])].into();
    let log = |region: Region| directory.path().join(format!("{region}.log"));
    let pair = Arc::new(Pair::new(PairConfig {
        programs: Programs::new(environment.postgres_programs()).unwrap(),
        directory: directory.path().to_owned(),
        addresses: addresses.clone(),
        upstreams,
        logs: Region::DATABASES.map(|region| (region, log(region))).into(),
        password: "of the superuser".to_owned(),
        runtime: Arc::new(Runtime::create(directory.path().join("run.json")).unwrap()),
    }));
    pair.create(UsEast1).await.unwrap();
    let network = Arc::new(Network::default());
    let mirror = Mirror::new(pair.clone(), network.clone(), UsEast1);
    Bench {
        pair,
        network,
        mirror,
        addresses,
        _directory: directory,
    }
}

impl Bench {
    /// With a table that the standby has as well.
    async fn with_ledger() -> Bench {
        let bench = bench().await;
        bench
            .mirror
            .create_cluster(UsEast1, "app", "it's secret", "payments")
            .await
            .unwrap();
        bench
            .write(UsEast1, "CREATE TABLE ledger (entry integer PRIMARY KEY)")
            .await
            .unwrap();
        let deadline = Instant::now() + PATIENCE;
        while bench.write(UsEast2, "SELECT FROM ledger").await.is_err() {
            assert!(Instant::now() < deadline, "the standby does not follow");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        bench
    }

    async fn connect(
        &self,
        region: Region,
        password: &str,
    ) -> Result<tokio_postgres::Client, tokio_postgres::Error> {
        let address = self.addresses[&region];
        let (client, connection) = tokio_postgres::Config::new()
            .host(address.ip().to_string())
            .port(address.port())
            .user("app")
            .password(password)
            .dbname("payments")
            .connect(NoTls)
            .await?;
        tokio::spawn(connection);
        Ok(client)
    }

    /// Writes as the application does.
    async fn write(&self, region: Region, statement: &str) -> Result<(), tokio_postgres::Error> {
        self.connect(region, "it's secret")
            .await?
            .batch_execute(statement)
            .await
    }

    async fn entries(&self, region: Region) -> Vec<i32> {
        let Ok(client) = self.connect(region, "it's secret").await else {
            return Vec::new();
        };
        let Ok(rows) = client.query("SELECT entry FROM ledger ORDER BY entry", &[]).await else {
            return Vec::new();
        };
        rows.iter().map(|row| row.get(0)).collect()
    }

    async fn eventually(&self, region: Region, wanted: &[i32]) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let entries = self.entries(region).await;
            if entries == wanted {
                return;
            }
            assert!(
                Instant::now() < deadline,
                "{region} has {entries:?}, not {wanted:?}"
            );
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    async fn eventually_is(&self, region: Region, wanted: Role) {
        let deadline = Instant::now() + PATIENCE;
        while self.pair.server(region).role().await.ok() != Some(wanted) {
            assert!(Instant::now() < deadline, "{region} is not {wanted:?}");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    async fn stop(&self) {
        self.pair.stop_immediately().await;
        for server in self.pair.servers() {
            assert_eq!(server.pid().await, None);
        }
    }
}

#[tokio::test]
async fn a_killed_writer_is_replaced_and_rejoins_without_what_it_never_sent() {
    let bench = Bench::with_ledger().await;
    bench
        .write(UsEast1, "INSERT INTO ledger VALUES (1)")
        .await
        .unwrap();
    bench.eventually(UsEast2, &[1]).await;
    assert!(
        bench
            .write(UsEast2, "INSERT INTO ledger VALUES (2)")
            .await
            .is_err(),
        "a standby accepted a write"
    );

    bench.network.cut(UsEast1);
    bench.pair.server(UsEast1).kill().await;
    assert!(
        bench
            .write(UsEast1, "INSERT INTO ledger VALUES (2)")
            .await
            .is_err()
    );
    bench.mirror.failover(UsEast2, true).await.unwrap();
    bench.mirror.failover(UsEast2, true).await.unwrap();
    assert_eq!(bench.mirror.writer(), UsEast2);
    bench
        .write(UsEast2, "INSERT INTO ledger VALUES (3)")
        .await
        .unwrap();
    assert_eq!(
        bench.pair.server(UsEast1).role().await.unwrap(),
        Role::StoppedWriter
    );

    bench.network.heal(UsEast1);
    bench.mirror.settle().await.unwrap();
    bench.mirror.settle().await.unwrap();
    assert_eq!(bench.pair.server(UsEast1).role().await.unwrap(), Role::Standby);
    bench.eventually(UsEast1, &[1, 3]).await;
    bench.stop().await;
}

#[tokio::test]
async fn a_cut_off_writer_that_went_on_writing_is_rewound_when_healed() {
    let bench = Bench::with_ledger().await;
    bench
        .write(UsEast1, "INSERT INTO ledger VALUES (1)")
        .await
        .unwrap();
    bench.eventually(UsEast2, &[1]).await;
    bench.network.cut(UsEast1);
    bench.mirror.failover(UsEast2, true).await.unwrap();
    // Both write: the old one, half alive, does not know.
    bench
        .write(UsEast1, "INSERT INTO ledger VALUES (100)")
        .await
        .unwrap();
    bench
        .write(UsEast2, "INSERT INTO ledger VALUES (2)")
        .await
        .unwrap();
    assert_eq!(bench.pair.server(UsEast1).role().await.unwrap(), Role::Writer);

    bench.network.heal(UsEast1);
    bench.mirror.settle().await.unwrap();
    bench.eventually(UsEast1, &[1, 2]).await;

    // And home again, losing nothing.
    bench.mirror.switchover(UsEast1).await.unwrap();
    bench
        .write(UsEast1, "INSERT INTO ledger VALUES (4)")
        .await
        .unwrap();
    bench.eventually(UsEast2, &[1, 2, 4]).await;
    bench.stop().await;
}

#[tokio::test]
async fn what_a_former_writer_never_sent_is_kept_and_can_be_restored_beside_it() {
    let bench = Bench::with_ledger().await;
    bench
        .write(UsEast1, "INSERT INTO ledger VALUES (1)")
        .await
        .unwrap();
    bench.eventually(UsEast2, &[1]).await;
    assert_eq!(bench.pair.kept(UsEast1), []);
    bench.network.cut(UsEast1);
    bench.mirror.failover(UsEast2, true).await.unwrap();
    bench
        .write(UsEast1, "INSERT INTO ledger VALUES (100)")
        .await
        .unwrap();
    // As hard an end as there is: the copy is of files that nobody closed.
    bench.pair.server(UsEast1).kill().await;
    bench.network.heal(UsEast1);
    bench.mirror.settle().await.unwrap();
    bench.eventually_is(UsEast1, Role::Standby).await;
    bench.eventually(UsEast1, &[1]).await;

    let kept = bench.pair.kept(UsEast1);
    assert_eq!((kept.len(), bench.pair.kept(UsEast2).len()), (1, 0));
    let address = bench.pair.restore(kept[0], "tail").await.unwrap();
    assert_eq!(bench.pair.restore(kept[0], "tail").await.unwrap(), address);
    assert_eq!(address.ip(), UsEast1.address());
    let (client, connection) = tokio_postgres::Config::new()
        .host(address.ip().to_string())
        .port(address.port())
        .user("app")
        .password("it's secret")
        .dbname("payments")
        .connect(NoTls)
        .await
        .unwrap();
    tokio::spawn(connection);
    let rows = client
        .query("SELECT entry FROM ledger ORDER BY entry", &[])
        .await
        .unwrap();
    let entries: Vec<i32> = rows.iter().map(|row| row.get(0)).collect();
    assert_eq!(entries, [1, 100]);

    assert!(bench.pair.discard(UsEast1, "tail").await.unwrap());
    assert!(!bench.pair.discard(UsEast1, "tail").await.unwrap());
    assert!(tokio::net::TcpStream::connect(address).await.is_err());
    // A planned change loses nothing, so nothing of it is kept.
    bench.mirror.switchover(UsEast1).await.unwrap();
    assert_eq!(bench.pair.kept(UsEast2), []);
    // What still runs at the end is ended with the others.
    let address = bench.pair.restore(kept[0], "tail").await.unwrap();
    bench.stop().await;
    assert!(tokio::net::TcpStream::connect(address).await.is_err());
}

#[tokio::test]
async fn a_failover_that_can_reach_the_old_writer_takes_it_back_by_itself() {
    let bench = Bench::with_ledger().await;
    bench.mirror.failover(UsEast2, true).await.unwrap();
    bench
        .write(UsEast2, "INSERT INTO ledger VALUES (1)")
        .await
        .unwrap();
    bench.eventually_is(UsEast1, Role::Standby).await;
    bench.eventually(UsEast1, &[1]).await;
    bench.stop().await;
}

#[tokio::test]
async fn a_former_writer_that_does_not_answer_at_first_is_taken_back_later() {
    let bench = Bench::with_ledger().await;
    let former = bench.pair.server(UsEast1);
    let pid = former.pid().await.unwrap().to_string();
    let signal = |name: &str| {
        let sent = std::process::Command::new("kill").args([name, &pid]).status();
        assert!(sent.unwrap().success());
    };
    signal("-STOP");
    bench.mirror.failover(UsEast2, true).await.unwrap();
    // The mirror asked before us, and was not answered either.
    former.role().await.unwrap_err();
    signal("-CONT");
    bench.eventually_is(UsEast1, Role::Standby).await;
    bench.stop().await;
}

#[tokio::test]
async fn a_server_that_cannot_be_rewound_is_copied_anew() {
    let bench = Bench::with_ledger().await;
    bench.network.cut(UsEast1);
    bench.pair.server(UsEast1).kill().await;
    bench.mirror.failover(UsEast2, true).await.unwrap();
    bench
        .write(UsEast2, "INSERT INTO ledger VALUES (1)")
        .await
        .unwrap();
    std::fs::remove_file(bench.pair.server(UsEast1).data().join("global/pg_control")).unwrap();
    bench.network.heal(UsEast1);
    bench.mirror.settle().await.unwrap();
    bench.eventually(UsEast1, &[1]).await;
    bench.stop().await;
}

#[tokio::test]
async fn a_planned_change_needs_both_servers() {
    let bench = Bench::with_ledger().await;
    bench.network.cut(UsEast2);
    let refused = bench.mirror.switchover(UsEast2).await.unwrap_err();
    assert!(matches!(refused, MirrorError::Refused(_)), "{refused}");
    bench.network.heal(UsEast2);
    bench.pair.server(UsEast2).kill().await;
    let refused = bench.mirror.failover(UsEast2, false).await.unwrap_err();
    assert!(matches!(refused, MirrorError::Refused(_)), "{refused}");
    bench
        .write(UsEast1, "INSERT INTO ledger VALUES (1)")
        .await
        .unwrap();

    // The killed standby comes back as what it was.
    bench.mirror.settle().await.unwrap();
    bench.eventually(UsEast2, &[1]).await;
    bench.stop().await;
}

#[tokio::test]
async fn a_cluster_is_created_and_deleted_wherever_the_writer_is() {
    let bench = bench().await;
    bench
        .mirror
        .create_cluster(UsEast1, "app", "it's secret", "payments")
        .await
        .unwrap();
    bench
        .mirror
        .create_cluster(UsEast1, "app", "it's secret", "payments")
        .await
        .unwrap();
    bench.write(UsEast1, "SELECT 1").await.unwrap();
    bench.mirror.set_password("app", "changed").await.unwrap();
    assert!(
        bench.write(UsEast1, "SELECT 1").await.is_err(),
        "the old password is still good"
    );
    bench.connect(UsEast1, "changed").await.unwrap();

    bench.mirror.switchover(UsEast2).await.unwrap();
    bench.mirror.delete_cluster(UsEast1).await.unwrap();
    bench.connect(UsEast2, "changed").await.unwrap();
    bench.mirror.delete_cluster(UsEast2).await.unwrap();
    assert!(
        bench.connect(UsEast2, "changed").await.is_err(),
        "the database is still there"
    );

    // A stack created anew starts at home.
    bench
        .mirror
        .create_cluster(UsEast1, "app", "it's secret", "payments")
        .await
        .unwrap();
    assert_eq!(bench.mirror.writer(), UsEast1);
    bench
        .write(UsEast1, "CREATE TABLE ledger (entry integer)")
        .await
        .unwrap();
    bench.stop().await;
}

#[tokio::test]
async fn a_killed_server_leaves_no_process() {
    let bench = bench().await;
    let server = bench.pair.server(UsEast1);
    let pid = server.pid().await.unwrap();
    let data = server.data();
    server.kill().await;
    assert_eq!(server.role().await.unwrap(), Role::StoppedWriter);
    assert!(
        !names_of_processes()
            .iter()
            .any(|line| line.contains(&data.display().to_string()))
    );
    assert!(!Path::new(&format!("/proc/{pid}/stat")).exists());
    bench.stop().await;
}

/// The command lines of all processes.
fn names_of_processes() -> Vec<String> {
    let output = std::process::Command::new("ps")
        .args(["-axww", "-o", "args="])
        .output()
        .unwrap();
    String::from_utf8_lossy(&output.stdout)
        .lines()
        .map(str::to_owned)
        .collect()
}
