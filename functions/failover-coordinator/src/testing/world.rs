//! A world of two regions in memory. Every effect goes through one gate, which counts it, keeps a log, and can make one of
//! them fail: before it takes effect, or after, when only the answer is lost.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use continuity::config::FunctionConfig;
use continuity::control::{ApiKey, ControlRecord, ControlStore, ListedKey, Swap};
use continuity::error::StoreError;
use continuity::memory::MemoryControl;
use continuity::names::{Names, Regions, Slot};
use continuity::observe::Observation;
use infra::blueprint::permissions::{self, Needed};
use infra::change::{CONFIGURATION_ITEM, Change, Configuration, ITEM, Kind};
use infra::engine::Write;
use infra::graph::Group;
use infra::outcome::{Entry, Outcome, PlanEntry};
use infra::readiness::{self, Cluster, Fact, FunctionState, Global, Quotas};
use infra::resources::db_snapshot::{AfterFailover, Endpoint};
use infra::spec::Spec;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::{DR, HOME, WITNESS, home_down};
use crate::context::{Context, Peer};
use crate::effects::archive::Archive;
use crate::effects::aurora::{Aurora, Member, Topology};
use crate::effects::engine::{Direction, Engine, Job, Pass};
use crate::effects::events::Events;
use crate::effects::executions::{Executions, Started};
use crate::effects::faults::{Experiment, Faults, Place, Progress};
use crate::effects::inspection::Inspection;
use crate::effects::notices::Notices;
use crate::effects::probes::Probes;
use crate::effects::processor::{Processor, Task};
use crate::effects::public_name::{Answer, PublicName};
use crate::effects::tail::{Owner, Tail};
use crate::effects::timer::Timer;
use crate::error::StepError;

/// What the engine of this world writes.
const SOME_WRITE: Write<'static> = Write {
    key: "vpc.dr",
    kind: "vpc",
    region: DR,
};

/// How a call fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// Before it took effect.
    Refused,
    /// After it took effect.
    AnswerLost,
}

/// What becomes of a switchover that a drill starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Switchovers {
    /// The other region serves.
    Work,
    /// The first one is given up, and the region serves as before.
    GiveUp,
    /// The first one works, and the next two are given up.
    TroubleBack,
}

/// A region's ledger.
#[derive(Debug, Clone, Default)]
pub(crate) struct Ledger {
    pub(crate) epoch: Option<u64>,
    pub(crate) in_recovery: bool,
    pub(crate) entries: BTreeSet<String>,
    /// Entries that a replay posted, by its epoch.
    recovered: BTreeMap<u64, BTreeSet<String>>,
    pub(crate) unbalanced: bool,
}

#[derive(Default)]
struct State {
    ledgers: BTreeMap<String, Ledger>,
    writer: String,
    journal: BTreeMap<u64, BTreeSet<String>>,
    kicked: Vec<&'static str>,
    next_pass: Option<Pass>,
    passes: usize,
    changed_last: Option<Group>,
    next_look: Vec<PlanEntry>,
    acts_on_look: bool,
    looks: usize,
    ended: BTreeSet<String>,
    events: Vec<(String, String)>,
    epoch_changes_to: Option<String>,
    permitted_writes: usize,
    traffic_follows: bool,
    answers: std::collections::VecDeque<Value>,
    notices: Vec<String>,
    started: Vec<(String, String, String)>,
    experiments: Vec<Drilled>,
    skips_actions: bool,
    deaf_alarm: bool,
    nothing_reserved: bool,
    watched: BTreeSet<String>,
    switchovers: Option<Switchovers>,
    payments_fail_in: Option<String>,
    synthetic: BTreeMap<String, String>,
    tail: TailState,
    calls: Vec<String>,
    files: BTreeMap<String, String>,
    fault: Option<(usize, Fault)>,
}

/// What the home region has of its lost tail. What takes AWS a while is done at the next look.
#[derive(Default)]
struct TailState {
    snapshots: Vec<AfterFailover>,
    kept: BTreeMap<String, bool>,
    restored: BTreeMap<String, u32>,
    unreachable: bool,
}

/// An experiment of a drill. FIS needs a look or two to start it and to put everything back.
struct Drilled {
    region: String,
    drill: String,
    progress: Progress,
}

/// The world. Contexts made from it share it.
pub(crate) struct World {
    pub(crate) control: Arc<MemoryControl>,
    state: Mutex<State>,
    now_ms: AtomicU64,
}

/// What the acknowledged payments are that the standby's database does not have yet.
pub(crate) const LOST_TAIL: [&str; 2] = ["payment-8", "payment-9"];

impl World {
    /// Nothing but a configuration.
    pub(crate) fn undeployed() -> Arc<World> {
        World::with(MemoryControl::default())
    }

    /// The home region serves epoch 1; payments are replicated to the standby except the last two, which are in the journal.
    pub(crate) fn deployed() -> Arc<World> {
        let world = World::with(MemoryControl::with(ControlRecord::first(HOME, "deploy", 0)));
        {
            let mut state = world.state.lock().unwrap();
            let replicated: BTreeSet<String> = (0..8).map(|n| format!("payment-{n}")).collect();
            let mut all = replicated.clone();
            all.extend(LOST_TAIL.map(str::to_owned));
            for ledger in state.ledgers.values_mut() {
                ledger.epoch = Some(1);
                ledger.entries = replicated.clone();
            }
            state.ledgers.get_mut(HOME).unwrap().entries = all.clone();
            state.journal.insert(1, all);
        }
        world
    }

    /// The same after the home region failed, as both observers outside saw.
    pub(crate) async fn home_failed() -> Arc<World> {
        let world = World::deployed();
        for observation in home_down(world.now_ms()) {
            world.control.put_observation(&observation).await.unwrap();
        }
        world.state.lock().unwrap().calls.clear();
        world
    }

    fn with(control: MemoryControl) -> Arc<World> {
        let mut state = State {
            writer: HOME.into(),
            traffic_follows: true,
            ..State::default()
        };
        for region in [HOME, DR] {
            let ledger = Ledger {
                in_recovery: region != HOME,
                ..Ledger::default()
            };
            state.ledgers.insert(region.into(), ledger);
        }
        let world = World {
            control: Arc::new(control),
            state: Mutex::new(state),
            now_ms: AtomicU64::new(10_000_000),
        };
        world.store(&Configuration {
            generation: 1,
            spec: Spec::default(),
        });
        Arc::new(world)
    }

    /// What a step works with in a slot's region.
    pub(crate) fn context(self: &Arc<Self>, slot: Slot) -> Context {
        let regions = Regions::default();
        let double = Arc::new(Double {
            world: Arc::clone(self),
            region: regions.of(slot).to_owned(),
        });
        let peer = Arc::new(Double {
            world: Arc::clone(self),
            region: regions.peer_of(regions.of(slot)).unwrap().to_owned(),
        });
        Context {
            config: FunctionConfig {
                names: Names::new("dev"),
                slot,
                regions,
            },
            control: double.clone(),
            aurora: double.clone(),
            processor: double.clone(),
            public_name: double.clone(),
            probes: double.clone(),
            engine: double.clone(),
            executions: double.clone(),
            faults: double.clone(),
            inspection: double.clone(),
            events: double.clone(),
            notices: double.clone(),
            archive: double.clone(),
            peer: Peer {
                aurora: peer.clone(),
                processor: peer.clone(),
                tail: peer,
            },
            timer: double,
        }
    }

    pub(crate) fn now_ms(&self) -> u64 {
        self.now_ms.load(Ordering::SeqCst)
    }

    pub(crate) fn advance(&self, duration: Duration) {
        let ms = u64::try_from(duration.as_millis()).unwrap();
        self.now_ms.fetch_add(ms, Ordering::SeqCst);
    }

    pub(crate) fn record(&self) -> ControlRecord {
        futures::executor::block_on(self.control.read()).unwrap().unwrap()
    }

    pub(crate) fn document(&self, id: &str) -> Option<String> {
        futures::executor::block_on(self.control.document(id)).unwrap()
    }

    pub(crate) fn ledger(&self, region: &str) -> Ledger {
        self.state.lock().unwrap().ledgers[region].clone()
    }

    pub(crate) fn change_ledger(&self, region: &str, change: impl FnOnce(&mut Ledger)) {
        change(self.state.lock().unwrap().ledgers.get_mut(region).unwrap());
    }

    pub(crate) fn journal(&self, epoch: u64) -> BTreeSet<String> {
        self.state
            .lock()
            .unwrap()
            .journal
            .get(&epoch)
            .cloned()
            .unwrap_or_default()
    }

    pub(crate) fn kicked(&self) -> Vec<&'static str> {
        self.state.lock().unwrap().kicked.clone()
    }

    pub(crate) fn passes(&self) -> usize {
        self.state.lock().unwrap().passes
    }

    /// What the last pass was told to change last.
    pub(crate) fn changed_last(&self) -> Option<Group> {
        self.state.lock().unwrap().changed_last
    }

    /// The deployment of this generation came to its end.
    pub(crate) fn deployment_ended(&self, generation: u64) {
        let json = serde_json::json!({"generation": generation}).to_string();
        futures::executor::block_on(self.control.put_document("deployed", &json)).unwrap();
    }

    pub(crate) fn permitted_writes(&self) -> usize {
        self.state.lock().unwrap().permitted_writes
    }

    /// Comparisons made.
    pub(crate) fn looks(&self) -> usize {
        self.state.lock().unwrap().looks
    }

    /// What comparisons find from now on.
    pub(crate) fn next_look(&self, plan: Vec<PlanEntry>) {
        self.state.lock().unwrap().next_look = plan;
    }

    /// From now on a pass does what the comparison found, as far as its permit allows.
    pub(crate) fn act_on_next_look(&self) {
        self.state.lock().unwrap().acts_on_look = true;
    }

    /// What a person answers next, and after that.
    pub(crate) fn will_answer(&self, answer: Value) {
        self.state.lock().unwrap().answers.push_back(answer);
    }

    pub(crate) fn answer(&self) -> Option<Value> {
        self.state.lock().unwrap().answers.pop_front()
    }

    /// Notices published, subject and text.
    pub(crate) fn notices(&self) -> Vec<String> {
        self.state.lock().unwrap().notices.clone()
    }

    /// A file in a bucket.
    pub(crate) fn file(&self, bucket: &str, key: &str) -> Option<String> {
        self.state
            .lock()
            .unwrap()
            .files
            .get(&format!("{bucket}/{key}"))
            .cloned()
    }

    /// The standby took over in epoch 2, recovered the lost tail but for the newest entry, and the home region follows it.
    pub(crate) fn home_rejoined(&self) {
        self.change_record(|record| {
            (record.epoch, record.last_served_epoch) = (2, 2);
            record.active_region = DR.into();
        });
        let mut state = self.state.lock().unwrap();
        state.writer = DR.into();
        for ledger in state.ledgers.values_mut() {
            ledger.epoch = Some(2);
            ledger.entries.extend(LOST_TAIL.map(str::to_owned));
        }
        state.ledgers.get_mut(HOME).unwrap().in_recovery = true;
        state.ledgers.get_mut(DR).unwrap().in_recovery = false;
    }

    /// Aurora made a snapshot of the home region at that time.
    pub(crate) fn snapshot_made(&self, name: &str, created_ms: u64) {
        let snapshot = AfterFailover {
            name: name.to_owned(),
            created_ms,
            available: true,
        };
        self.state.lock().unwrap().tail.snapshots.push(snapshot);
    }

    /// The home region's processor answers nothing, or does again.
    pub(crate) fn home_answers(&self, answers: bool) {
        self.state.lock().unwrap().tail.unreachable = !answers;
    }

    /// Retention has taken Aurora's snapshots.
    pub(crate) fn forget_snapshots(&self) {
        self.state.lock().unwrap().tail.snapshots.clear();
    }

    /// Snapshots that were copied.
    pub(crate) fn kept_tails(&self) -> Vec<String> {
        self.state.lock().unwrap().tail.kept.keys().cloned().collect()
    }

    /// Somebody deleted them by hand.
    pub(crate) fn forget_kept_tails(&self) {
        self.state.lock().unwrap().tail.kept.clear();
    }

    /// A recovery that died left this database behind.
    pub(crate) fn tail_was_left_open(&self, cluster: &str) {
        let mut state = self.state.lock().unwrap();
        state.tail.restored.insert(cluster.to_owned(), 9);
    }

    /// Databases that are restored.
    pub(crate) fn open_tails(&self) -> Vec<String> {
        self.state.lock().unwrap().tail.restored.keys().cloned().collect()
    }

    /// A database is restored from one.
    pub(crate) fn tail_is_open(&self) -> bool {
        !self.state.lock().unwrap().tail.restored.is_empty()
    }

    /// Switchovers that are started happen at once, this way.
    pub(crate) fn switchovers(&self, what: Switchovers) {
        self.state.lock().unwrap().switchovers = Some(what);
    }

    /// Synthetic payments are not acknowledged while this region serves.
    pub(crate) fn payments_fail_in(&self, region: &str) {
        self.state.lock().unwrap().payments_fail_in = Some(region.to_owned());
    }

    /// A payment is in the ledger no more.
    pub(crate) fn lose_a_payment(&self) {
        self.state.lock().unwrap().synthetic.pop_first();
    }

    /// A region that is cut off is taken over from as the policy says: at once, if the observers decide. One that is joined again
    /// becomes the standby.
    fn observers_look(&self, region: &str, cut: bool) {
        let record = self.record();
        let decide = self.configuration().spec.failover.decider == continuity::assess::Decider::Automatic;
        let mut state = self.state.lock().unwrap();
        let taken_over = state.writer != region;
        match (cut, taken_over) {
            (true, false) if decide && state.switchovers == Some(Switchovers::Work) => {
                drop(state);
                let other = if region == HOME { DR } else { HOME };
                self.take_over(record.epoch, other);
            }
            (false, true) => {
                let all = state.ledgers[&state.writer].clone();
                let ledger = state.ledgers.get_mut(region).unwrap();
                (ledger.entries, ledger.epoch, ledger.in_recovery) = (all.entries, all.epoch, true);
            }
            _ => {}
        }
    }

    /// The epoch ends, and `target` serves the next with everything that was acknowledged.
    fn take_over(&self, epoch: u64, target: &str) {
        let mut state = self.state.lock().unwrap();
        let from = state.writer.clone();
        let all = state.ledgers[&from].entries.clone();
        let ledger = state.ledgers.get_mut(target).unwrap();
        (ledger.entries, ledger.in_recovery, ledger.epoch) = (all, false, Some(epoch + 1));
        state.writer = target.to_owned();
        drop(state);
        self.change_record(|record| {
            assert_eq!(epoch, record.epoch);
            record.epoch += 1;
            record.last_served_epoch = record.epoch;
            record.active_region = target.to_owned();
        });
    }

    fn switch_over(&self, name: &str, input: &str) {
        let mut state = self.state.lock().unwrap();
        let Some(what) = state.switchovers else { return };
        let number = state.started.len();
        let moves = ["switchover", "failover"]
            .iter()
            .any(|workflow| state.started[number - 1].0.contains(workflow));
        if !moves {
            return;
        }
        let works = match what {
            Switchovers::Work => true,
            Switchovers::GiveUp => false,
            Switchovers::TroubleBack => number == 1 || number > 3,
        };
        let machine = &state.started[number - 1].0;
        let arn = format!("{}:{name}", machine.replacen(":stateMachine:", ":execution:", 1));
        state.ended.insert(arn);
        if works {
            let input: Value = serde_json::from_str(input).unwrap();
            if input["mode"] == "graceful" {
                let from = state.writer.clone();
                state.ledgers.get_mut(&from).unwrap().in_recovery = true;
            }
            drop(state);
            self.take_over(
                input["epoch"].as_u64().unwrap(),
                input["to_region"].as_str().unwrap(),
            );
        }
    }

    /// Executions started: machine, name, input.
    pub(crate) fn started(&self) -> Vec<(String, String, String)> {
        self.state.lock().unwrap().started.clone()
    }

    /// Events sent, by detail-type and detail.
    pub(crate) fn events(&self) -> Vec<(String, String)> {
        self.state.lock().unwrap().events.clone()
    }

    /// Step Functions says of this execution that it has ended.
    pub(crate) fn end_execution(&self, arn: &str) {
        self.state.lock().unwrap().ended.insert(arn.to_owned());
    }

    /// An execution of that name holds the change, as of now.
    pub(crate) fn hold_change(&self, kind: Kind, name: &str) {
        let change = Change {
            kind,
            execution: super::arn(kind, name),
            generation: self.configuration().generation,
            began_ms: self.now_ms(),
            seen_ms: self.now_ms(),
        };
        let json = serde_json::to_string(&change).unwrap();
        futures::executor::block_on(self.control.put_document(ITEM, &json)).unwrap();
    }

    fn configuration(&self) -> Configuration {
        serde_json::from_str(&self.document(CONFIGURATION_ITEM).unwrap()).unwrap()
    }

    fn store(&self, configuration: &Configuration) {
        let json = serde_json::to_string(configuration).unwrap();
        futures::executor::block_on(self.control.put_document(CONFIGURATION_ITEM, &json)).unwrap();
    }

    /// `up` stores the configuration under this generation.
    pub(crate) fn store_generation(&self, generation: u64) {
        self.store(&Configuration {
            generation,
            ..self.configuration()
        });
    }

    /// Changes the stored configuration, which keeps its generation.
    pub(crate) fn change_spec(&self, change: impl FnOnce(&mut Spec)) {
        let mut configuration = self.configuration();
        change(&mut configuration.spec);
        self.store(&configuration);
    }

    /// Changes the control record.
    pub(crate) fn change_record(&self, change: impl FnOnce(&mut ControlRecord)) {
        let before = self.record();
        let mut after = before.clone();
        change(&mut after);
        after.version += 1;
        futures::executor::block_on(self.control.replace(&before, &after)).unwrap();
    }

    pub(crate) fn next_pass(&self, pass: Pass) {
        self.state.lock().unwrap().next_pass = Some(pass);
    }

    pub(crate) fn change_epoch_during_pass(&self, to_region: &str) {
        self.state.lock().unwrap().epoch_changes_to = Some(to_region.to_owned());
    }

    /// The region that an experiment cuts off now.
    pub(crate) fn isolated(&self) -> Option<String> {
        let state = self.state.lock().unwrap();
        let cut = state
            .experiments
            .iter()
            .find(|one| one.progress != Progress::Ended);
        cut.map(|one| one.region.clone())
    }

    /// Experiments that were ever started.
    pub(crate) fn experiments(&self) -> usize {
        self.state.lock().unwrap().experiments.len()
    }

    /// FIS finds a target of an action no more, and skips it.
    pub(crate) fn skip_actions(&self) {
        self.state.lock().unwrap().skips_actions = true;
    }

    /// The stop alarm hears nothing: no data of it arrives.
    pub(crate) fn deafen_stop_alarm(&self) {
        self.state.lock().unwrap().deaf_alarm = true;
    }

    /// Whether somebody took the reserved concurrency away.
    pub(crate) fn reserve_nothing(&self, nothing: bool) {
        self.state.lock().unwrap().nothing_reserved = nothing;
    }

    pub(crate) fn traffic_never_follows(&self) {
        self.state.lock().unwrap().traffic_follows = false;
    }

    /// The `n`th call from now on fails.
    pub(crate) fn fail(&self, n: usize, fault: Fault) {
        let mut state = self.state.lock().unwrap();
        state.calls.clear();
        state.fault = Some((n, fault));
    }

    /// Every call, as `region operation`.
    pub(crate) fn calls(&self) -> Vec<String> {
        self.state.lock().unwrap().calls.clone()
    }
}

/// A region's view of the world.
struct Double {
    world: Arc<World>,
    region: String,
}

impl Double {
    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.world.state.lock().unwrap()
    }

    /// Notes a call, and says how it is to fail.
    fn note(&self, operation: &str) -> Option<Fault> {
        let mut state = self.state();
        let number = state.calls.len();
        state.calls.push(format!("{} {operation}", self.region));
        match state.fault {
            Some((n, fault)) if n == number => Some(fault),
            _ => None,
        }
    }

    /// Makes a call, failing as told.
    async fn gate<T, E>(
        &self,
        operation: &str,
        error: impl Fn() -> E,
        effect: impl Future<Output = Result<T, E>>,
    ) -> Result<T, E> {
        match self.note(operation) {
            Some(Fault::Refused) => Err(error()),
            Some(Fault::AnswerLost) => {
                effect.await?;
                Err(error())
            }
            None => effect.await,
        }
    }

    async fn store<T>(
        &self,
        operation: &'static str,
        effect: impl Future<Output = Result<T, StoreError>>,
    ) -> Result<T, StoreError> {
        let error = || StoreError::Call {
            operation,
            table: "control-dev".into(),
            source: "injected".into(),
        };
        self.gate(operation, error, effect).await
    }
}

#[async_trait]
impl ControlStore for Double {
    async fn read(&self) -> Result<Option<ControlRecord>, StoreError> {
        self.store("read", self.world.control.read()).await
    }

    async fn create(&self, record: &ControlRecord) -> Result<Swap, StoreError> {
        self.store("create", self.world.control.create(record)).await
    }

    async fn replace(&self, expected: &ControlRecord, new: &ControlRecord) -> Result<Swap, StoreError> {
        self.store("replace", self.world.control.replace(expected, new))
            .await
    }

    async fn put_observation(&self, observation: &Observation) -> Result<Swap, StoreError> {
        self.store("put_observation", self.world.control.put_observation(observation))
            .await
    }

    async fn observations(&self, regions: &[&str]) -> Result<Vec<Observation>, StoreError> {
        self.store("observations", self.world.control.observations(regions))
            .await
    }

    async fn document(&self, id: &str) -> Result<Option<String>, StoreError> {
        self.store("document", self.world.control.document(id)).await
    }

    async fn read_with(
        &self,
        documents: &[&str],
    ) -> Result<(Option<ControlRecord>, Vec<Option<String>>), StoreError> {
        self.store("read_with", self.world.control.read_with(documents))
            .await
    }

    async fn put_document(&self, id: &str, json: &str) -> Result<(), StoreError> {
        self.store("put_document", self.world.control.put_document(id, json))
            .await
    }

    async fn swap_document(&self, id: &str, expected: Option<&str>, json: &str) -> Result<Swap, StoreError> {
        self.store(
            "swap_document",
            self.world.control.swap_document(id, expected, json),
        )
        .await
    }

    async fn api_key(&self, sha256_hex: &str) -> Result<Option<ApiKey>, StoreError> {
        self.store("api_key", self.world.control.api_key(sha256_hex))
            .await
    }

    async fn api_keys(&self) -> Result<Vec<ListedKey>, StoreError> {
        self.store("api_keys", self.world.control.api_keys()).await
    }

    async fn put_api_key(&self, sha256_hex: &str, key: &ApiKey, now_ms: u64) -> Result<(), StoreError> {
        self.store(
            "put_api_key",
            self.world.control.put_api_key(sha256_hex, key, now_ms),
        )
        .await
    }

    async fn remove_api_key(&self, sha256_hex: &str) -> Result<(), StoreError> {
        self.store("remove_api_key", self.world.control.remove_api_key(sha256_hex))
            .await
    }
}

fn cluster_arn(region: &str) -> String {
    format!("arn:aws:rds:{region}:000000000000:cluster:aurora-dev")
}

fn database_failed() -> StepError {
    StepError::DatabaseFailed {
        operation: "injected",
        subject: "aurora-dev".into(),
        source: "injected".into(),
    }
}

#[async_trait]
impl Aurora for Double {
    async fn topology(&self) -> Result<Topology, StepError> {
        let describe = async {
            let state = self.state();
            let member = |region: &&str| Member {
                arn: cluster_arn(region),
                writer: state.writer == **region,
            };
            Ok(Topology {
                members: [HOME, DR].iter().map(member).collect(),
                changing_to: None,
            })
        };
        self.gate("topology", database_failed, describe).await
    }

    async fn failover(&self, target_arn: &str) -> Result<(), StepError> {
        let promote = async {
            assert_eq!(
                target_arn,
                cluster_arn(&self.region),
                "called in the target's region"
            );
            let mut state = self.state();
            assert_ne!(state.writer, self.region, "promoted once only");
            state.writer = self.region.clone();
            state.ledgers.get_mut(&self.region).unwrap().in_recovery = false;
            Ok(())
        };
        self.gate("failover", database_failed, promote).await
    }

    async fn switchover(&self, target_arn: &str) -> Result<(), StepError> {
        let switch = async {
            let mut state = self.state();
            assert_eq!(
                state.writer, self.region,
                "called in the writer's region, once only"
            );
            let target = target_arn.split(':').nth(3).unwrap().to_owned();
            let all = state.ledgers[&self.region].clone();
            state.ledgers.get_mut(&self.region).unwrap().in_recovery = true;
            let ledger = state.ledgers.get_mut(&target).unwrap();
            (ledger.entries, ledger.epoch, ledger.in_recovery) = (all.entries, all.epoch, false);
            state.writer = target;
            Ok(())
        };
        self.gate("switchover", database_failed, switch).await
    }
}

fn processor_failed() -> StepError {
    StepError::ProcessorFailed {
        task: "injected",
        source: "injected".into(),
    }
}

#[async_trait]
impl Processor for Double {
    async fn run(&self, task: &Task) -> Result<Value, StepError> {
        let work = async {
            let mut state = self.state();
            let State {
                ledgers,
                journal,
                tail,
                ..
            } = &mut *state;
            if self.region == HOME && tail.unreachable {
                return Err(processor_failed());
            }
            if let Task::LostTail { host, before, .. } = task {
                assert_eq!(host, "restored", "{before:?}");
                assert!(tail.restored.values().any(|looks| *looks >= 2));
                let entries: Vec<Value> = (0..10).rev().map(tail_entry).collect();
                return Ok(json!({"entries": entries}));
            }
            let ledger = ledgers.get_mut(&self.region).unwrap();
            let reads = matches!(
                task,
                Task::LedgerStatus | Task::Traffic { .. } | Task::HeldEntries { .. }
            );
            if ledger.in_recovery && !reads {
                return Err(StepError::ProcessorFailed {
                    task: task.name(),
                    source: "the database is read-only".into(),
                });
            }
            Ok(match task {
                Task::Migrate => json!({"schema_version": 1}),
                Task::LedgerStatus => {
                    json!({"reachable": true, "in_recovery": ledger.in_recovery, "ledger_epoch": ledger.epoch,
                        "last_seq": ledger.entries.len()})
                }
                Task::Traffic { until_ms, epoch, .. } => {
                    // The last payments of the old epoch were five seconds ago, the first of the new one just now.
                    let now_s = until_ms / 1_000;
                    let opened = ledger.epoch >= Some(*epoch) && !ledger.in_recovery;
                    json!({"executed": [{"second": now_s - 5, "epoch": epoch - 1, "entries": ledger.entries.len()}],
                        "last_before_ms": until_ms - 5_000, "first_in_ms": opened.then_some(if ledger.epoch == Some(*epoch) { *until_ms } else { 1_000 }), "complete": true})
                }
                Task::LostTail { .. } => unreachable!("answered above"),
                Task::HeldEntries { keys } => {
                    let held = |key: &String| {
                        let seq: u64 = key.strip_prefix("payment-").unwrap().parse().unwrap();
                        let posted = if LOST_TAIL.contains(&key.as_str()) { 2 } else { 1 };
                        ledger
                            .entries
                            .contains(key)
                            .then(|| json!({"epoch": 1, "seq": seq, "posted_epoch": posted, "subject": key}))
                    };
                    json!({"held": keys.iter().map(held).collect::<Vec<_>>()})
                }
                Task::SetEpoch { epoch } => {
                    ledger.epoch = ledger.epoch.max(Some(*epoch));
                    json!({"ledger_epoch": ledger.epoch})
                }
                Task::Replay { from_epoch, to_epoch } => {
                    assert_eq!(
                        ledger.epoch,
                        Some(*to_epoch),
                        "the ledger is fenced before the replay"
                    );
                    let scanned: BTreeSet<String> = journal
                        .range(*from_epoch..*to_epoch)
                        .flat_map(|(_, entries)| entries.clone())
                        .collect();
                    let recovered = ledger.recovered.entry(*to_epoch).or_default();
                    recovered.extend(scanned.difference(&ledger.entries).cloned());
                    journal.entry(*to_epoch).or_default().extend(recovered.clone());
                    let posted = recovered.len();
                    ledger.entries.extend(scanned.clone());
                    json!({"scanned": scanned.len(), "posted": posted, "already_present": scanned.len() - posted,
                        "conflicts": [], "overdrawn": []})
                }
                Task::VerifyLedger { .. } => {
                    json!({"balanced": !ledger.unbalanced, "currencies": {"EUR": {"debits": 9, "credits": 9}},
                        "entries": ledger.entries.len(), "accounts": 2, "problems": []})
                }
            })
        };
        self.gate(task.name(), processor_failed, work).await
    }
}

/// An entry of the home region's ledger before the takeover.
fn tail_entry(seq: u64) -> Value {
    let name = format!("payment-{seq}");
    json!({"epoch": 1, "seq": seq, "posted_epoch": 1, "idempotency_key": name, "kind": "payment", "status": "created",
        "subject": name, "debit_account": "payer", "credit_account": "payee", "amount_minor": 100, "currency": "EUR",
        "created_at_ms": 1_000 + seq})
}

#[async_trait]
impl Tail for Double {
    async fn snapshots(&self) -> Result<Vec<AfterFailover>, StepError> {
        let listed = async { Ok(self.state().tail.snapshots.clone()) };
        self.gate("snapshots", database_failed, listed).await
    }

    async fn keep(&self, owner: &Owner, snapshot: &str, name: &str) -> Result<bool, StepError> {
        assert_eq!(owner.account, "000000000000");
        let kept = async {
            let mut state = self.state();
            if !state.tail.kept.contains_key(name) {
                let known = |one: &AfterFailover| one.name == snapshot && one.available;
                assert!(state.tail.snapshots.iter().any(known), "a copy of `{snapshot}`");
            }
            let done = state.tail.kept.contains_key(name);
            state.tail.kept.insert(name.to_owned(), done);
            Ok(done)
        };
        self.gate("keep", database_failed, kept).await
    }

    async fn is_kept(&self, name: &str) -> Result<bool, StepError> {
        let asked = async { Ok(self.state().tail.kept.contains_key(name)) };
        self.gate("is-kept", database_failed, asked).await
    }

    async fn open(&self, _: &Owner, name: &str, cluster: &str) -> Result<Option<Endpoint>, StepError> {
        let opened = async {
            let mut state = self.state();
            assert_eq!(state.tail.kept.get(name), Some(&true), "the copy is complete");
            let restored = &mut state.tail.restored;
            let looks = restored.get(cluster).map_or(0, |looks| looks + 1);
            restored.insert(cluster.to_owned(), looks);
            Ok((looks >= 2).then(|| Endpoint {
                host: "restored".into(),
                port: 5432,
            }))
        };
        self.gate("open", database_failed, opened).await
    }

    async fn close(&self, cluster: &str) -> Result<bool, StepError> {
        let closed = async { Ok(self.state().tail.restored.remove(cluster).is_none()) };
        self.gate("close", database_failed, closed).await
    }
}

#[async_trait]
impl PublicName for Double {
    async fn ask(&self, host: &str) -> Result<Answer, String> {
        assert_eq!(host, "api.dr-payments-dev.test.local");
        let answer = async {
            let serving = self.world.control.read().await.ok().flatten();
            let region = serving.map(|record| record.active_region);
            let region = region.filter(|_| self.state().traffic_follows);
            Ok(Answer {
                status: if region.is_some() { 200 } else { 503 },
                region,
            })
        };
        self.gate("public-name", || "injected".to_owned(), answer).await
    }
}

#[async_trait]
impl Probes for Double {
    async fn kick(&self, slot: Slot) -> Result<(), StepError> {
        self.state().kicked.push(slot.as_str());
        Ok(())
    }

    async fn ask(&self, slot: Slot, task: &Value) -> Result<Value, StepError> {
        assert_eq!(slot, Slot::Witness);
        let key = task["key"].as_str().unwrap();
        let stored = self
            .world
            .control
            .api_key(&hex::encode(Sha256::digest(key)))
            .await;
        assert!(stored.unwrap().is_some(), "the key opens the API");
        let failed = || StepError::ProbeFailed {
            region: WITNESS.into(),
            source: "injected".into(),
        };
        let work = async {
            if task["task"] == "check-payments" {
                let acknowledged = task["acknowledged"].as_object().unwrap();
                let state = self.state();
                let lost = acknowledged
                    .keys()
                    .filter(|key| !state.synthetic.contains_key(*key))
                    .count();
                return Ok(
                    json!({"acknowledged": acknowledged.len(), "lost": lost, "different": 0, "duplicated": 0}),
                );
            }
            let began_ms = self.world.now_ms();
            let until_ms = task["until_ms"].as_u64().unwrap();
            let record = self.world.record();
            let mut state = self.state();
            let serves = state.payments_fail_in.as_ref() != Some(&record.active_region);
            let (drill, slice) = (task["drill"].as_str().unwrap(), &task["slice"]);
            let mut payments = Vec::new();
            for at_ms in (began_ms..until_ms).step_by(1000) {
                let key = format!("synthetic-{drill}-{slice}-{}", payments.len());
                if serves {
                    state.synthetic.insert(key.clone(), format!("id-{key}"));
                }
                payments.push(json!({"key": key, "sent_ms": at_ms, "answered_ms": serves.then_some(at_ms + 5),
                    "id": serves.then(|| format!("id-{key}")), "epoch": serves.then_some(record.epoch), "attempts": 1}));
            }
            drop(state);
            self.world.advance(Duration::from_millis(until_ms - began_ms));
            Ok(
                json!({"slice": slice, "began_ms": began_ms, "ended_ms": until_ms, "accounts": ["payer", "payee"], "payments": payments,
                "seconds": [{"at_ms": began_ms / 1000 * 1000, "acknowledged": payments.len(), "refused": 0, "failed": 0}]}),
            )
        };
        self.gate("ask", failed, work).await
    }
}

#[async_trait]
impl Engine for Double {
    async fn pass(&self, _: Direction, job: Job<'_>) -> Result<Pass, StepError> {
        let (mut pass, epoch_changes_to, look) = {
            let mut state = self.state();
            state.passes += 1;
            state.changed_last = job.serving.as_ref().map(|serving| serving.group);
            let pass = state.next_pass.clone().unwrap_or(Pass {
                done: true,
                ..Pass::default()
            });
            let look = state.acts_on_look.then(|| state.next_look.clone());
            (pass, state.epoch_changes_to.take(), look)
        };
        (job.on_progress)(&pass.progress);
        if let Some(to_region) = epoch_changes_to {
            self.world.change_record(|record| {
                record.epoch += 1;
                record.active_region = to_region;
            });
        }
        for found in look.unwrap_or_default() {
            let write = Write {
                key: &found.key,
                kind: &found.kind,
                region: &found.region,
            };
            let outcome = match job.permit.check(write).await {
                Ok(()) => Outcome::Created,
                Err(on) => Outcome::Waiting { on },
            };
            pass.done &= outcome.is_final();
            pass.entries.push(Entry {
                key: found.key,
                kind: found.kind,
                region: found.region,
                group: infra::graph::Group::Global,
                outcome,
                roles: vec![],
            });
        }
        let permitted = job.permit.check(SOME_WRITE).await.is_ok();
        self.state().permitted_writes += usize::from(permitted);
        Ok(pass)
    }

    async fn compare(&self, _: &Spec, _: Duration) -> Result<Vec<PlanEntry>, StepError> {
        let mut state = self.state();
        state.looks += 1;
        Ok(state.next_look.clone())
    }
}

#[async_trait]
impl Notices for Double {
    async fn publish(&self, topic_arn: &str, subject: &str, text: &str) -> Result<(), StepError> {
        assert!(topic_arn.starts_with(&format!("arn:aws:sns:{}:000000000000:alerts-", self.region)));
        self.state().notices.push(format!("{subject}\n{text}"));
        Ok(())
    }
}

#[async_trait]
impl Archive for Double {
    async fn put(&self, bucket: &str, key: &str, _: &str, body: String) -> Result<(), StepError> {
        let put = async {
            self.state().files.insert(format!("{bucket}/{key}"), body);
            Ok(())
        };
        let error = || StepError::EvidenceNotStored {
            key: key.to_owned(),
            bucket: bucket.to_owned(),
            source: "injected".into(),
        };
        self.gate("put-object", error, put).await
    }

    async fn get(&self, bucket: &str, key: &str) -> Result<Option<String>, StepError> {
        let get = async { Ok(self.world.file(bucket, key)) };
        let error = || StepError::EvidenceNotRead {
            key: key.to_owned(),
            bucket: bucket.to_owned(),
            source: "injected".into(),
        };
        self.gate("get-object", error, get).await
    }
}

#[async_trait]
impl Executions for Double {
    async fn start(&self, machine_arn: &str, name: &str, input: &str) -> Result<Started, StepError> {
        let start = async {
            let mut state = self.state();
            if state.started.iter().any(|(_, started, _)| started == name) {
                let executions = machine_arn.replacen(":stateMachine:", ":execution:", 1);
                let ended = state.ended.contains(&format!("{executions}:{name}"));
                return Ok(if ended { Started::Ended } else { Started::Running });
            }
            let entry = (machine_arn.to_owned(), name.to_owned(), input.to_owned());
            state.started.push(entry);
            drop(state);
            self.world.switch_over(name, input);
            Ok(Started::Created)
        };
        let error = || StepError::NotStarted {
            execution: name.to_owned(),
            source: "injected".into(),
        };
        self.gate("start-execution", error, start).await
    }

    async fn ended(&self, execution_arn: &str, _: &str) -> bool {
        self.state().ended.contains(execution_arn)
    }
}

fn faults_unavailable() -> StepError {
    StepError::FaultsUnavailable {
        operation: "injected",
        region: HOME.into(),
        source: "injected".into(),
    }
}

#[async_trait]
impl Faults for Double {
    async fn watched(&self, at: &Place, well: bool) -> Result<(), StepError> {
        let told = async {
            let mut state = self.state();
            if well && !state.deaf_alarm {
                state.watched.insert(at.region.clone());
            } else {
                state.watched.remove(&at.region);
            }
            if !well {
                for one in &mut state.experiments {
                    if one.region == at.region {
                        one.progress = Progress::Ended;
                    }
                }
            }
            Ok(())
        };
        self.gate("watched", faults_unavailable, told).await
    }

    async fn may_begin(&self, at: &Place) -> Result<bool, StepError> {
        let asked = async { Ok(self.state().watched.contains(&at.region)) };
        self.gate("may-begin", faults_unavailable, asked).await
    }

    async fn begin(&self, at: &Place, drill: &str) -> Result<String, StepError> {
        let begun = async {
            let mut state = self.state();
            assert!(state.watched.contains(&at.region), "FIS would stop it at once");
            // The client token: the same drill gets the same experiment.
            let same = |one: &Drilled| one.drill == drill && one.region == at.region;
            let index = match state.experiments.iter().position(same) {
                Some(index) => index,
                None => {
                    state.experiments.push(Drilled {
                        region: at.region.clone(),
                        drill: drill.to_owned(),
                        progress: Progress::Starting,
                    });
                    state.experiments.len() - 1
                }
            };
            Ok(format!("EXP{index}"))
        };
        self.gate("begin", faults_unavailable, begun).await
    }

    async fn of_drill(&self, at: &Place, drill: &str) -> Result<Vec<String>, StepError> {
        let listed = async {
            let state = self.state();
            let all = state.experiments.iter().enumerate();
            let mine = all.filter(|(_, one)| one.drill == drill && one.region == at.region);
            Ok(mine.map(|(index, _)| format!("EXP{index}")).rev().collect())
        };
        self.gate("of-drill", faults_unavailable, listed).await
    }

    async fn look(&self, _: &Place, id: &str) -> Result<Experiment, StepError> {
        let seen = async {
            let (region, cut) = {
                let state = self.state();
                let index: usize = id.trim_start_matches("EXP").parse().unwrap();
                let one = &state.experiments[index];
                (one.region.clone(), one.progress)
            };
            match cut {
                Progress::Running => self.world.observers_look(&region, true),
                Progress::Ended => self.world.observers_look(&region, false),
                Progress::Starting | Progress::Stopping => {}
            }
            let mut state = self.state();
            let skips = state.skips_actions;
            let index: usize = id.trim_start_matches("EXP").parse().unwrap();
            let one = &mut state.experiments[index];
            let seen = one.progress;
            one.progress = match seen {
                Progress::Starting => Progress::Running,
                Progress::Stopping => Progress::Ended,
                stays => stays,
            };
            let word = format!("{seen:?}").to_lowercase();
            let skipped = if skips { "skipped" } else { &word };
            Ok(Experiment {
                id: id.to_owned(),
                progress: seen,
                state: word.clone(),
                failed: false,
                actions: vec![
                    ("subnets".into(), word.clone()),
                    ("tables".into(), skipped.to_owned()),
                ],
            })
        };
        self.gate("look", faults_unavailable, seen).await
    }

    async fn stop(&self, _: &Place, id: &str) -> Result<(), StepError> {
        let stopped = async {
            let index: usize = id.trim_start_matches("EXP").parse().unwrap();
            self.state().experiments[index].progress = Progress::Stopping;
            Ok(())
        };
        self.gate("stop", faults_unavailable, stopped).await
    }
}

#[async_trait]
impl Inspection for Double {
    async fn journal(&self, _: Slot) -> Fact<()> {
        Ok(())
    }

    async fn global(&self) -> Fact<Global> {
        let writer = self.state().writer.clone();
        let member = |region: &str| readiness::Member {
            writer: writer == region,
            synchronisation: None,
        };
        Ok(Global {
            status: "available".into(),
            members: [HOME, DR]
                .map(|region| (region.to_owned(), member(region)))
                .into(),
            changing_to: None,
        })
    }

    async fn cluster(&self, slot: Slot) -> Fact<Cluster> {
        Ok(Cluster {
            status: "available".into(),
            engine_version: "16.8".into(),
            instances: BTreeMap::from([(format!("aurora-{slot}-dev-1"), "available".to_owned())]),
        })
    }

    async fn function(&self, _: Slot, _: &str) -> Fact<FunctionState> {
        Ok(FunctionState {
            state: "Active".into(),
            last_update: "Successful".into(),
            code_sha256: "same".into(),
            reserved: (!self.state().nothing_reserved).then_some(32),
        })
    }

    async fn machine(&self, _: Slot, _: &str) -> Fact<String> {
        Ok("ACTIVE".into())
    }

    async fn quotas(&self, _: Slot) -> Fact<Quotas> {
        Ok(Quotas {
            lambda_concurrency: 1_000,
            api_rate_per_s: 10_000,
            api_burst: 5_000,
        })
    }

    async fn alarms(&self, slot: Slot) -> Fact<Vec<String>> {
        Ok(vec![format!("drill-unwatched-{slot}-dev")])
    }

    async fn permissions(&self, spec: &Spec, slot: Slot) -> Vec<(Needed, Fact<bool>)> {
        let needed = permissions::takeover(spec, "000000000000", slot);
        needed.into_iter().map(|needed| (needed, Ok(true))).collect()
    }
}

#[async_trait]
impl Events for Double {
    async fn send(&self, detail_type: &str, detail: &str) -> Result<(), StepError> {
        let entry = (detail_type.to_owned(), detail.to_owned());
        self.state().events.push(entry);
        Ok(())
    }
}

#[async_trait]
impl Timer for Double {
    fn now_ms(&self) -> u64 {
        self.world.now_ms()
    }

    async fn sleep(&self, duration: Duration) {
        self.world.advance(duration);
        tokio::task::yield_now().await;
    }
}
