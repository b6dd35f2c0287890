//! What an operator says about a stack: the configuration file, every field with its default. The blueprint follows from
//! it; it travels to the functions as the `spec` item of the control table.
//!
//! Here are the plain types. What a file may contain is in [`settings`], what values must hold in [`rules`], and how a file
//! becomes a [`Spec`] or a list of problems with their lines in [`file`].

mod cidr;
pub mod expression;
mod file;
mod problem;
pub mod regions;
mod rules;
mod settings;

use std::collections::BTreeMap;

use continuity::assess::Policy;
use continuity::names::{Names, Regions, Slot};
use continuity::window::Window;
use serde::{Deserialize, Serialize};

pub use self::cidr::Cidr;
pub use self::file::Source;
pub use self::problem::{Place, Problem, SpecError};
pub use self::settings::{SETTINGS, Setting, Shape};

/// The commented configuration file that `understudy init` writes: every setting with its default.
pub const TEMPLATE: &str = include_str!("../../stack.toml");

/// A stack's configuration.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Spec {
    /// Ends every name: `dev`, `prod`. Two stacks of one account differ in it.
    pub suffix: String,
    /// The region of each slot. Fixed once deployed.
    pub regions: Regions,
    /// The domain of the hosted zone. Without one the zone is `dr-payments-{suffix}.test.local`.
    pub domain: Option<String>,
    /// Networks.
    pub network: Network,
    /// The databases.
    pub aurora: Aurora,
    /// The probes.
    pub probe: Probe,
    /// When the active region changes unasked.
    pub failover: Policy,
    /// What a change of the active region is to reach.
    pub objectives: Objectives,
    /// What an acknowledged payment survives.
    pub durability: Durability,
    /// How long things are kept.
    pub retention: Retention,
    /// The functions.
    pub functions: Functions,
    /// The payments API.
    pub api: Api,
    /// Who is told when something is wrong.
    pub alerts: Alerts,
    /// The scheduled repair of drift.
    pub reconcile: Reconcile,
    /// The scheduled evaluation of readiness.
    pub readiness: Readiness,
    /// The scheduled exercises.
    pub drill: Drill,
    /// AWS refuses to delete what holds data (databases, tables) until this is switched off, and so does `understudy down`.
    pub deletion_protection: bool,
    /// Tags beside Understudy's own, on everything that takes tags.
    pub tags: BTreeMap<String, String>,
    /// The SHA-256 (hex) of each function's package, filled in by `understudy up`.
    pub artifacts: BTreeMap<String, String>,
    /// What the packages were built for, filled in by `understudy up`.
    pub architecture: Architecture,
}

/// Networks of the two serving regions.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Network {
    /// Addresses of the home region's VPC.
    pub primary_cidr: String,
    /// Addresses of the other serving region's VPC.
    pub dr_cidr: String,
    /// Availability zones used in each region: 2 to 6.
    pub zones: u8,
}

/// Aurora PostgreSQL.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Aurora {
    /// The engine version, the same in both regions.
    pub engine_version: String,
    /// The class of the instances. A global database needs a memory-optimised one, or `db.serverless`.
    pub instance_class: String,
    /// Instances in each region. The first is the writer while its region is active.
    pub instances: u8,
    /// With `db.serverless`: the capacity between which an instance moves.
    pub serverless: Option<Serverless>,
}

impl Aurora {
    /// Major and minor number of the engine version; none if it is not made of these.
    pub fn version(&self) -> Option<(u32, u32)> {
        let (major, minor) = self.engine_version.split_once('.')?;
        Some((major.parse().ok()?, minor.parse().ok()?))
    }
}

/// Capacity of Aurora Serverless v2, in ACU (2 GiB of memory each), in steps of 0.5.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Serverless {
    /// The least: 0.5 to 256. AWS recommends at least 8 in the writer's region of a global database.
    pub min_acu: f64,
    /// The most: 1 to 256.
    pub max_acu: f64,
}

/// What a change of the active region is to reach. That no acknowledged payment is lost is not for choice.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Objectives {
    /// The recovery time: seconds from the last acknowledgement before to the first one after, 1 up to a day.
    pub rto_seconds: u64,
}

impl Default for Objectives {
    fn default() -> Self {
        Objectives { rto_seconds: 300 }
    }
}

/// How long things are kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Retention {
    /// Days that logs are kept.
    pub log_days: u32,
    /// Days that automated backups of the databases are kept: 1 to 35.
    pub backup_days: u8,
    /// Days that old versions of objects are kept in the data buckets.
    pub old_version_days: u32,
}

/// The payments API of each region.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Api {
    /// Requests per second that a region lets in. The account's own default limit is 10,000 for all its APIs in a region.
    pub rate_limit: u32,
    /// Requests at once.
    pub burst_limit: u32,
}

/// Who is told when something is wrong.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Alerts {
    /// An e-mail address or an `https://` URL, subscribed to the alert topic of both regions. Without one the topics exist
    /// and nobody listens.
    pub address: Option<String>,
}

/// The scheduled repair of drift.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Reconcile {
    /// Minutes between two passes: 1 to 1440.
    pub interval_minutes: u16,
    /// Whether drift is repaired, or only reported.
    pub repair: bool,
}

/// The scheduled evaluation of readiness: could the other region take over now?
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Readiness {
    /// Minutes between two evaluations: 5 to 1440.
    pub interval_minutes: u16,
}

/// The scheduled exercises.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Drill {
    /// When, as an EventBridge Scheduler expression in UTC: `cron(0 6 ? * TUE *)`. Without one nothing is exercised unasked.
    pub schedule: Option<String>,
    /// Minutes after which the isolation of a region ends by itself, whatever became of the drill: 1 to 60. DynamoDB may go on
    /// replicating for the first five.
    pub isolation_minutes: u16,
    /// When no scheduled exercise begins, in UTC.
    pub blocked_windows: Vec<Window>,
    /// What a scheduled exercise is: `readiness`, `switchover` or `isolation`.
    pub kind: String,
    /// How long the other region serves during an exercise, seconds.
    pub hold_seconds: u64,
    /// Synthetic payments a second, all along.
    pub payments_per_second: u32,
    /// The longest time without an acknowledged payment that an exercise may show, milliseconds; a longer one raises the alarm.
    pub longest_gap_ms: u64,
}

/// The probes that look at both regions from outside.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Probe {
    /// Time between rounds.
    pub interval_ms: u64,
}

/// What an acknowledged payment survives.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Durability {
    /// The loss of a region, always: the journal is strongly consistent across regions.
    #[default]
    Strong,
    /// The loss of a region except for the last seconds: for regions outside the sets that MRSC supports.
    Eventual,
}

/// The processors that the functions run on: those that their packages were built for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Architecture {
    /// Graviton.
    #[serde(rename = "arm64")]
    Arm64,
    /// Intel and AMD.
    #[default]
    #[serde(rename = "x86_64")]
    X86_64,
}

impl Architecture {
    /// The word that Lambda uses.
    pub fn as_str(self) -> &'static str {
        match self {
            Architecture::Arm64 => "arm64",
            Architecture::X86_64 => "x86_64",
        }
    }
}

impl std::fmt::Display for Architecture {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Sizes of the functions.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Functions {
    /// Concurrent requests that each region's payment-processor is guaranteed and limited to; 0 leaves it to the account.
    pub payment_processor_concurrency: u32,
    /// Memory of the payment-processor; its share of a processor follows from it.
    pub payment_processor_memory_mb: u32,
    /// The level of the functions' logs, as in `RUST_LOG`.
    pub log_level: String,
    /// Whether AWS X-Ray traces a sample of the requests and of the functions' other calls.
    pub tracing: bool,
}

impl Default for Spec {
    fn default() -> Self {
        Spec {
            suffix: "dev".into(),
            regions: Regions::default(),
            domain: None,
            network: Network::default(),
            aurora: Aurora::default(),
            probe: Probe::default(),
            failover: Policy::default(),
            objectives: Objectives::default(),
            durability: Durability::default(),
            retention: Retention::default(),
            functions: Functions::default(),
            api: Api::default(),
            alerts: Alerts::default(),
            reconcile: Reconcile::default(),
            readiness: Readiness::default(),
            drill: Drill::default(),
            deletion_protection: false,
            tags: BTreeMap::new(),
            artifacts: BTreeMap::new(),
            architecture: Architecture::default(),
        }
    }
}

impl Default for Network {
    fn default() -> Self {
        Network {
            primary_cidr: "10.0.0.0/16".into(),
            dr_cidr: "10.1.0.0/16".into(),
            zones: 2,
        }
    }
}

impl Default for Aurora {
    fn default() -> Self {
        Aurora {
            // The first 16.x with a managed switchover below 30 seconds.
            engine_version: "16.8".into(),
            instance_class: "db.r6g.large".into(),
            instances: 1,
            serverless: None,
        }
    }
}

impl Default for Retention {
    fn default() -> Self {
        Retention {
            log_days: 30,
            backup_days: 7,
            old_version_days: 90,
        }
    }
}

impl Default for Api {
    fn default() -> Self {
        Api {
            rate_limit: 2_000,
            burst_limit: 1_000,
        }
    }
}

impl Default for Reconcile {
    fn default() -> Self {
        Reconcile {
            interval_minutes: 5,
            repair: true,
        }
    }
}

impl Default for Readiness {
    fn default() -> Self {
        // As often as ARC Region switch evaluates a plan.
        Readiness { interval_minutes: 30 }
    }
}

impl Default for Drill {
    fn default() -> Self {
        Drill {
            schedule: Some("cron(0 6 ? * TUE *)".into()),
            isolation_minutes: 10,
            blocked_windows: Vec::new(),
            kind: "switchover".into(),
            hold_seconds: 300,
            payments_per_second: 5,
            longest_gap_ms: 60_000,
        }
    }
}

impl Default for Probe {
    fn default() -> Self {
        Probe { interval_ms: 10_000 }
    }
}

impl Default for Functions {
    fn default() -> Self {
        Functions {
            payment_processor_concurrency: 32,
            payment_processor_memory_mb: 512,
            log_level: "info".into(),
            tracing: false,
        }
    }
}

impl Spec {
    /// Reads and checks the text of a configuration file called `stack.toml`.
    ///
    /// # Errors
    /// Everything that is wrong with it, each with its line.
    pub fn from_toml(text: &str) -> Result<Spec, SpecError> {
        Spec::load(&Source::file("stack.toml", text))
    }

    /// Reads and checks a configuration: the file, and what the command line puts in its place.
    ///
    /// # Errors
    /// Everything that is wrong with it, each with its line, or the option it came from.
    pub fn load(source: &Source<'_>) -> Result<Spec, SpecError> {
        file::load(source)
    }

    /// Names of this stack.
    pub fn names(&self) -> Names {
        Names::new(&self.suffix)
    }

    /// The hosted zone's name.
    pub fn zone(&self) -> String {
        self.domain.clone().unwrap_or_else(|| self.names().default_zone())
    }

    /// The name that clients use.
    pub fn public_name(&self) -> String {
        Names::public_name(&self.zone())
    }

    /// The VPC's addresses of a serving slot.
    pub fn cidr(&self, slot: Slot) -> &str {
        if slot == Slot::Primary {
            &self.network.primary_cidr
        } else {
            &self.network.dr_cidr
        }
    }

    /// Checks what can be checked without AWS.
    ///
    /// # Errors
    /// Every field that cannot be used.
    pub fn validate(&self) -> Result<(), SpecError> {
        SpecError::unless_empty(rules::check(self))
    }
}

#[cfg(test)]
mod tests;
