//! The Aurora mirror: follows the RDS control plane with the real servers. What has to happen to the servers for one of
//! them to be the writer is decided by [`plan`], a pure function; the rest of the file carries it out.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    sync::{Arc, Mutex as SyncMutex, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use tokio::sync::{Mutex, OwnedMutexGuard};

use super::{
    AuroraMirror, MirrorError, Network, NetworkState, Region,
    postgres::{Kept, Pair, PostgresError, Role},
};

/// How long a standby may need to apply what the writer has before a planned change is refused.
const CATCH_UP_PATIENCE: Duration = Duration::from_secs(5);

/// How often the former writer is taken back, should that fail, and how long it is left alone in between. Aurora does not give up either.
const TAKE_BACK_ATTEMPTS: u32 = 60;
const TAKE_BACK_PAUSE: Duration = Duration::from_secs(1);

/// One thing to do to one server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Action {
    /// Start it as what it was.
    Start(Region),
    /// Make the standby the writer.
    Promote(Region),
    /// Take a former writer back as standby of the other server: what it held is kept, as Aurora keeps a snapshot of it.
    Rejoin(Region),
}

/// What has to be done, in order, for `writer` to be the writer and the other server its standby.
///
/// `serving` are the regions that can be reached: a region that is cut off keeps its server as it is, even as a second
/// writer, until it is healed; only the server that is to write is acted on wherever it is, since whoever asked for it
/// is in its region.
pub fn plan(writer: Region, roles: &BTreeMap<Region, Role>, network: &NetworkState) -> Vec<Action> {
    let mut actions = Vec::new();
    match roles.get(&writer) {
        Some(Role::Writer) | None => {}
        Some(Role::Standby) => actions.push(Action::Promote(writer)),
        Some(Role::StoppedWriter) => actions.push(Action::Start(writer)),
        Some(Role::StoppedStandby) => actions.extend([Action::Start(writer), Action::Promote(writer)]),
    }
    for (&other, role) in roles.iter().filter(|(region, _)| **region != writer) {
        if !network.passes(Some(other), Some(writer)) {
            continue;
        }
        match role {
            Role::Standby => {}
            Role::StoppedStandby => actions.push(Action::Start(other)),
            Role::Writer | Role::StoppedWriter => actions.push(Action::Rejoin(other)),
        }
    }
    actions
}

/// A database and its owner, as CreateDBCluster asked for them.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Tenant {
    user: String,
    database: String,
}

/// The mirror over a pair of servers.
#[derive(Debug)]
pub struct Mirror {
    pair: Arc<Pair>,
    network: Arc<Network>,
    writer: Arc<SyncMutex<Region>>,
    tenants: SyncMutex<BTreeSet<Tenant>>,
    /// Held while servers change their roles.
    change: Arc<Mutex<()>>,
}

impl Mirror {
    /// A mirror of a pair whose writer is, or will be, in `writer`.
    pub fn new(pair: Arc<Pair>, network: Arc<Network>, writer: Region) -> Self {
        Self {
            pair,
            network,
            writer: Arc::new(SyncMutex::new(writer)),
            tenants: SyncMutex::default(),
            change: Arc::default(),
        }
    }

    /// Brings the servers to what the control plane says, where they can be reached: after a region was healed, or a
    /// server killed. Every call made twice equals once.
    pub async fn settle(&self) -> Result<(), MirrorError> {
        let _change = self.change.lock().await;
        settle(&self.pair, &self.network, self.writer())
            .await
            .map_err(failed)
    }

    /// Finishes a change to the writer `to` in the background: takes the former one back, as often as it takes, unless the writer has
    /// changed again. `first` is the first attempt, made under the change's own lock.
    fn take_back(
        &self,
        to: Region,
        change: OwnedMutexGuard<()>,
        first: impl Future<Output = Result<(), MirrorError>> + Send + 'static,
    ) {
        let (pair, network) = (self.pair.clone(), self.network.clone());
        let (writer, lock) = (self.writer.clone(), self.change.clone());
        tokio::spawn(async move {
            let mut outcome = first.await;
            drop(change);
            for _ in 0..TAKE_BACK_ATTEMPTS {
                let Err(error) = &outcome else { return };
                tracing::warn!(%error, "the former writer is not back as standby yet");
                tokio::time::sleep(TAKE_BACK_PAUSE).await;
                let _change = lock.lock().await;
                if *writer.lock().unwrap_or_else(PoisonError::into_inner) != to {
                    return;
                }
                outcome = settle(&pair, &network, to).await.map_err(failed);
            }
            if let Err(error) = outcome {
                tracing::error!(%error, "the former writer is not back as standby");
            }
        });
    }

    fn set_writer(&self, region: Region) {
        *self.writer.lock().unwrap_or_else(PoisonError::into_inner) = region;
    }

    /// The planned change, while roles cannot change otherwise.
    ///
    /// 1. the standby has nearly everything, or refuse;
    /// 2. stop the writer, which sends the rest;
    /// 3. make sure that it arrived;
    /// 4. promote;
    /// 5. start the former writer as standby. Where a step failed it is started as what it was.
    ///
    /// What is left to do of the last step is returned: when the new writer writes, nobody has to wait for the old one.
    async fn switch(
        &self,
        to: Region,
    ) -> Result<impl Future<Output = Result<(), MirrorError>> + Send + 'static, MirrorError> {
        let from = self.writer();
        let (old, new) = (self.pair.server(from), self.pair.server(to));
        let roles = roles(&self.pair).await.map_err(failed)?;
        let both_run = roles.get(&from) == Some(&Role::Writer) && roles.get(&to) == Some(&Role::Standby);
        if !both_run || !self.network.now().passes(Some(to), Some(from)) {
            return refused("a planned change needs both clusters available");
        }
        if !old.await_standby(CATCH_UP_PATIENCE).await.map_err(failed)? {
            return refused("the secondary cluster is not synchronized with the primary cluster");
        }
        old.shut_down().await;
        let outcome = async {
            let (sent, received) = (old.position_stopped().await?, new.position().await?);
            if received < sent {
                tracing::warn!(sent, received, "the standby lacks the end of the log");
                return Ok(());
            }
            new.promote().await
        }
        .await;
        // Whatever was answered, what the new server has become decides what the old one is.
        let changed = new.role().await.is_ok_and(|role| role == Role::Writer);
        if changed {
            self.set_writer(to);
        } else {
            old.start().await.map_err(failed)?;
        }
        outcome.map_err(failed)?;
        if !changed {
            return refused("the secondary cluster did not receive everything");
        }
        let pair = self.pair.clone();
        Ok(async move {
            let old = pair.server(from);
            old.demote_stopped().await.map_err(failed)?;
            old.start().await.map_err(failed)
        })
    }
}

/// Brings the servers to what they should be, but for those that cannot be reached.
async fn settle(pair: &Pair, network: &Network, writer: Region) -> Result<(), PostgresError> {
    let network = network.now();
    for action in plan(writer, &roles(pair).await?, &network) {
        let (Action::Start(region) | Action::Promote(region) | Action::Rejoin(region)) = action;
        if !network.is_cut(region) {
            act(pair, action).await?;
        }
    }
    Ok(())
}

async fn roles(pair: &Pair) -> Result<BTreeMap<Region, Role>, PostgresError> {
    let mut roles = BTreeMap::new();
    for server in pair.servers() {
        roles.insert(server.region(), server.role().await?);
    }
    Ok(roles)
}

async fn act(pair: &Pair, action: Action) -> Result<(), PostgresError> {
    tracing::info!(?action, "changing the database servers");
    match action {
        Action::Start(region) => pair.server(region).start().await,
        Action::Promote(region) => pair.server(region).promote().await,
        Action::Rejoin(region) => {
            if let Some(peer) = region.database_peer() {
                // So that the rewind finds the new timeline, and little to copy.
                pair.server(peer).execute("postgres", "CHECKPOINT").await?;
            }
            pair.take_back(region).await
        }
    }
}

fn failed(error: PostgresError) -> MirrorError {
    MirrorError::Failed(continuity::error::chain(&error))
}

fn refused<T>(text: &str) -> Result<T, MirrorError> {
    Err(MirrorError::Refused(text.to_owned()))
}

#[async_trait]
impl AuroraMirror for Mirror {
    fn writer(&self) -> Region {
        *self.writer.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn create_cluster(
        &self,
        region: Region,
        user: &str,
        password: &str,
        database: &str,
    ) -> Result<(), MirrorError> {
        {
            let _change = self.change.lock().await;
            if self.writer() != region {
                // A new global cluster is born where its first cluster is, wherever the last one had its writer.
                self.switch(region).await?.await?;
            }
        }
        let server = self.pair.server(region);
        let (role, secret) = (identifier(user), literal(password));
        let exists = |catalog: &str, column: &str, name: &str| {
            format!(
                "SELECT EXISTS (SELECT FROM {catalog} WHERE {column} = {})",
                literal(name)
            )
        };
        let there = |row: Vec<String>| row.first().is_some_and(|value| value == "t");
        if !there(
            server
                .query(&exists("pg_roles", "rolname", user))
                .await
                .map_err(failed)?,
        ) {
            // What rds_superuser has and PostgreSQL can give to somebody who is none.
            let statements = format!(
                "CREATE ROLE {role} LOGIN CREATEDB CREATEROLE PASSWORD {secret}; \
                 GRANT pg_monitor, pg_signal_backend, pg_checkpoint TO {role}"
            );
            server.execute("postgres", &statements).await.map_err(failed)?;
        } else {
            self.set_password(user, password).await?;
        }
        if !there(
            server
                .query(&exists("pg_database", "datname", database))
                .await
                .map_err(failed)?,
        ) {
            let statement = format!("CREATE DATABASE {} OWNER {role}", identifier(database));
            server.execute("postgres", &statement).await.map_err(failed)?;
        }
        let tenant = Tenant {
            user: user.to_owned(),
            database: database.to_owned(),
        };
        self.tenants
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(tenant);
        Ok(())
    }

    async fn set_password(&self, user: &str, password: &str) -> Result<(), MirrorError> {
        let statement = format!("ALTER ROLE {} PASSWORD {}", identifier(user), literal(password));
        self.pair
            .server(self.writer())
            .execute("postgres", &statement)
            .await
            .map_err(failed)
    }

    async fn failover(&self, to: Region, allow_data_loss: bool) -> Result<(), MirrorError> {
        if !allow_data_loss {
            return self.switchover(to).await;
        }
        let change = self.change.clone().lock_owned().await;
        if self.writer() == to {
            return Ok(());
        }
        // What the new writer needs, before the answer; the old one may not even answer, and is taken back afterwards.
        let role = self.pair.server(to).role().await.map_err(failed)?;
        for action in plan(to, &BTreeMap::from([(to, role)]), &self.network.now()) {
            act(&self.pair, action).await.map_err(failed)?;
        }
        self.set_writer(to);
        let (pair, network) = (self.pair.clone(), self.network.clone());
        self.take_back(to, change, async move {
            settle(&pair, &network, to).await.map_err(failed)
        });
        Ok(())
    }

    async fn switchover(&self, to: Region) -> Result<(), MirrorError> {
        let change = self.change.clone().lock_owned().await;
        if self.writer() == to {
            return Ok(());
        }
        let rest = self.switch(to).await?;
        self.take_back(to, change, rest);
        Ok(())
    }

    async fn joined(&self) -> Result<(), MirrorError> {
        self.settle().await
    }

    async fn delete_cluster(&self, region: Region) -> Result<(), MirrorError> {
        if self.writer() != region {
            return Ok(());
        }
        let tenants = std::mem::take(&mut *self.tenants.lock().unwrap_or_else(PoisonError::into_inner));
        let server = self.pair.server(region);
        for Tenant { user, database } in tenants {
            let database = format!("DROP DATABASE IF EXISTS {} WITH (FORCE)", identifier(&database));
            server.execute("postgres", &database).await.map_err(failed)?;
            let role = identifier(&user);
            let role = format!("DROP OWNED BY {role}; DROP ROLE IF EXISTS {role}");
            server.execute("postgres", &role).await.map_err(failed)?;
        }
        Ok(())
    }

    fn kept(&self, region: Region) -> Vec<u64> {
        self.pair.kept(region).iter().map(|kept| kept.at_ms).collect()
    }

    async fn restore(&self, region: Region, at_ms: u64, cluster: &str) -> Result<SocketAddr, MirrorError> {
        let kept = Kept { region, at_ms };
        self.pair.restore(kept, cluster).await.map_err(failed)
    }

    async fn discard(&self, region: Region, cluster: &str) -> Result<(), MirrorError> {
        self.pair.discard(region, cluster).await.map_err(failed)?;
        Ok(())
    }
}

/// A name in a statement.
fn identifier(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// A text in a statement; standard_conforming_strings is on.
fn literal(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use Action::{Promote, Rejoin, Start};
    use Region::{UsEast1, UsEast2};
    use Role::{Standby, StoppedStandby, StoppedWriter, Writer};

    fn cut(regions: &[Region]) -> NetworkState {
        NetworkState {
            cut: regions.iter().copied().collect(),
            ..NetworkState::default()
        }
    }

    #[test]
    fn the_plan_for_each_state_of_the_servers() {
        let none: &[Region] = &[];
        // (wanted writer, us-east-1, us-east-2, cut, actions)
        let cases: &[(Region, Role, Role, &[Region], &[Action])] = &[
            // As it should be.
            (UsEast1, Writer, Standby, none, &[]),
            (UsEast2, Standby, Writer, none, &[]),
            // Failover: the old writer is alive, killed, cut off, cut off and killed.
            (
                UsEast2,
                Writer,
                Standby,
                none,
                &[Promote(UsEast2), Rejoin(UsEast1)],
            ),
            (
                UsEast2,
                StoppedWriter,
                Standby,
                none,
                &[Promote(UsEast2), Rejoin(UsEast1)],
            ),
            (UsEast2, Writer, Standby, &[UsEast1], &[Promote(UsEast2)]),
            (UsEast2, StoppedWriter, Standby, &[UsEast1], &[Promote(UsEast2)]),
            // It is the new writer's region that is cut off: its server changes, the other cannot be reached.
            (UsEast2, Writer, Standby, &[UsEast2], &[Promote(UsEast2)]),
            // After healing: two writers, or one of them killed.
            (UsEast2, Writer, Writer, none, &[Rejoin(UsEast1)]),
            (UsEast2, StoppedWriter, Writer, none, &[Rejoin(UsEast1)]),
            (UsEast1, Writer, Writer, none, &[Rejoin(UsEast2)]),
            // Killed servers without a change of roles start as what they were.
            (UsEast1, StoppedWriter, Standby, none, &[Start(UsEast1)]),
            (UsEast1, Writer, StoppedStandby, none, &[Start(UsEast2)]),
            (UsEast1, Writer, StoppedStandby, &[UsEast2], &[]),
            (
                UsEast1,
                StoppedWriter,
                StoppedStandby,
                none,
                &[Start(UsEast1), Start(UsEast2)],
            ),
            // A killed standby takes over: start it, then promote.
            (
                UsEast2,
                Writer,
                StoppedStandby,
                &[UsEast1],
                &[Start(UsEast2), Promote(UsEast2)],
            ),
            (
                UsEast2,
                StoppedWriter,
                StoppedStandby,
                none,
                &[Start(UsEast2), Promote(UsEast2), Rejoin(UsEast1)],
            ),
        ];
        for &(writer, first, second, regions, actions) in cases {
            let roles = BTreeMap::from([(UsEast1, first), (UsEast2, second)]);
            let planned = plan(writer, &roles, &cut(regions));
            assert_eq!(
                planned, actions,
                "{writer} of {first:?}, {second:?} with {regions:?} cut"
            );
        }
    }

    #[test]
    fn nothing_is_planned_twice() {
        // Applying a plan leads to a state whose plan is empty.
        for writer in Region::DATABASES {
            for first in [Writer, Standby, StoppedWriter, StoppedStandby] {
                for second in [Writer, Standby, StoppedWriter, StoppedStandby] {
                    let mut roles = BTreeMap::from([(UsEast1, first), (UsEast2, second)]);
                    for action in plan(writer, &roles, &NetworkState::default()) {
                        let (region, role) = match action {
                            Start(region) => {
                                let stopped = roles[&region];
                                (region, if stopped == StoppedWriter { Writer } else { Standby })
                            }
                            Promote(region) => (region, Writer),
                            Rejoin(region) => (region, Standby),
                        };
                        roles.insert(region, role);
                    }
                    assert_eq!(
                        plan(writer, &roles, &NetworkState::default()),
                        [],
                        "{writer} of {first:?}, {second:?}"
                    );
                }
            }
        }
    }

    #[test]
    fn names_and_passwords_cannot_leave_their_quotes() {
        assert_eq!(identifier("a\"; DROP"), "\"a\"\"; DROP\"");
        assert_eq!(literal("it's"), "'it''s'");
    }
}
