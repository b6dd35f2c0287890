//! A database for each test of the ledger, on one server per test binary, which ends with the last test that uses it.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Weak};

use bootstrap::local::throwaway::Server;
use payments::ledger::Ledger;
use payments::ledger::postgres::PostgresLedger;
use tokio::sync::Mutex;
use tokio_postgres::Client;

static SHARED: Mutex<Weak<Server>> = Mutex::const_new(Weak::new());
static DATABASES: AtomicU32 = AtomicU32::new(0);

/// A database of its own.
pub struct Database {
    server: Arc<Server>,
    name: String,
}

impl Database {
    /// An empty one.
    pub async fn create() -> Database {
        let mut shared = SHARED.lock().await;
        let server = match shared.upgrade() {
            Some(server) => server,
            None => {
                let server = Arc::new(Server::start(&["fsync=off"]).await.unwrap());
                *shared = Arc::downgrade(&server);
                server
            }
        };
        drop(shared);
        Database::of(server).await
    }

    /// An empty one on a server of its own, which writes its log only when somebody must wait for it.
    #[allow(dead_code, reason = "not every test binary needs it")]
    pub async fn alone() -> Database {
        let settings = [
            "fsync=off",
            "wal_writer_delay=10s",
            "wal_writer_flush_after=1GB",
            "checkpoint_timeout=1h",
        ];
        Database::of(Arc::new(Server::start(&settings).await.unwrap())).await
    }

    async fn of(server: Arc<Server>) -> Database {
        let name = format!("test_{}", DATABASES.fetch_add(1, Ordering::SeqCst));
        server.create(&name).await.unwrap();
        Database { server, name }
    }

    /// One with the ledger's schema, in an epoch.
    pub async fn with_ledger(epoch: u64) -> Database {
        Database::create().await.migrated(epoch).await
    }

    /// The same with the ledger's schema, in an epoch.
    pub async fn migrated(self, epoch: u64) -> Database {
        let ledger = self.ledger();
        ledger.migrate().await.unwrap();
        assert_eq!(ledger.set_epoch(epoch).await.unwrap(), epoch);
        self
    }

    /// A ledger over it, with a connection of its own.
    pub fn ledger(&self) -> PostgresLedger {
        self.server.ledger(&self.name)
    }

    /// A bare connection.
    pub async fn client(&self) -> Client {
        self.server.client(&self.name).await.unwrap()
    }
}
