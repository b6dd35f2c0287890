//! What is known about both regions when it is judged whether one could take over.

use std::collections::BTreeMap;

use continuity::control::ControlRecord;
use continuity::takeover::LedgerStatus;
use serde::{Deserialize, Serialize};

use crate::blueprint::permissions::Needed;
use crate::drift;
use crate::outcome::PlanEntry;

/// What was observed, or why it could not be.
pub type Fact<T> = Result<T, String>;

/// The item of the control table that says when the active region was last changed, or the change rehearsed.
pub const REHEARSED_ITEM: &str = "rehearsed";

/// The last exercise.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rehearsed {
    /// When it ended, milliseconds since the Unix epoch.
    pub at_ms: u64,
    /// The id of its evidence.
    pub id: String,
    /// `failover`, `switchover`, or the kind of the drill.
    pub kind: String,
}

/// A cluster's part in the global database.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// It takes writes.
    pub writer: bool,
    /// `connected`, `pending-resync`, as RDS says it of a reader; not every answer has it.
    pub synchronisation: Option<String>,
}

/// The global database.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Global {
    /// `available` when nothing changes.
    pub status: String,
    /// Its clusters by region.
    pub members: BTreeMap<String, Member>,
    /// A failover or switchover is under way to this cluster.
    pub changing_to: Option<String>,
}

/// A region's cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cluster {
    /// `available`.
    pub status: String,
    /// The engine's version.
    pub engine_version: String,
    /// Status of its instances, by name.
    pub instances: BTreeMap<String, String>,
}

/// What a region's payment-processor said when it was called.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ledger {
    /// The state of its database.
    pub status: LedgerStatus,
    /// The newest entry's sequence number.
    pub last_seq: u64,
}

/// How Lambda sees a function.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FunctionState {
    /// `Active`.
    pub state: String,
    /// `Successful`.
    pub last_update: String,
    /// The hash of its code, as Lambda writes it.
    pub code_sha256: String,
    /// Concurrent calls that are reserved for it.
    pub reserved: Option<i32>,
}

/// A function.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Function {
    /// The region.
    pub region: String,
    /// `payment-processor`.
    pub package: String,
    /// How it is.
    pub state: Fact<FunctionState>,
}

/// A state machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Machine {
    /// The region.
    pub region: String,
    /// `failover`.
    pub workflow: String,
    /// `ACTIVE`.
    pub status: Fact<String>,
}

/// What AWS lets the account do in a region.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Quotas {
    /// Calls of Lambda functions at once, all functions together.
    pub lambda_concurrency: i64,
    /// Requests that API Gateway takes a second, all APIs together.
    pub api_rate_per_s: i64,
    /// Requests that it takes at once.
    pub api_burst: i64,
}

/// Everything that is judged, as one region sees it.
#[derive(Debug, Clone)]
pub struct Facts {
    /// The region that looked.
    pub region: String,
    /// The control record, read strongly consistent through this region.
    pub record: Fact<ControlRecord>,
    /// The journal, read strongly consistent through each serving region.
    pub journals: BTreeMap<String, Fact<()>>,
    /// The global database.
    pub global: Fact<Global>,
    /// The cluster of each serving region.
    pub clusters: BTreeMap<String, Fact<Cluster>>,
    /// The answer of each serving region's payment-processor to a real call.
    pub ledgers: BTreeMap<String, Fact<Ledger>>,
    /// The functions of both serving regions.
    pub functions: Vec<Function>,
    /// The state machines of both serving regions.
    pub machines: Vec<Machine>,
    /// The account's quotas in each serving region.
    pub quotas: BTreeMap<String, Fact<Quotas>>,
    /// Every resource, compared with the blueprint.
    pub resources: Fact<Vec<PlanEntry>>,
    /// Names of the stack's alarms that are in ALARM, by region.
    pub alarms: BTreeMap<String, Fact<Vec<String>>>,
    /// When each observer wrote last, by its own clock.
    pub observed_ms: Fact<BTreeMap<String, u64>>,
    /// The deployment, reconcile or teardown that runs: its name.
    pub change: Fact<Option<String>>,
    /// What the last reconcile found.
    pub drift: Fact<drift::Report>,
    /// The last exercise.
    pub rehearsed: Fact<Option<Rehearsed>>,
    /// What IAM says to each permission that a takeover by this region needs.
    pub permissions: Vec<(Needed, Fact<bool>)>,
}
