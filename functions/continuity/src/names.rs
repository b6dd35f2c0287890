//! Names: slots, regions of a stack, and what everything is called. Defined once, here.

use serde::{Deserialize, Serialize};

/// A place in the stack, fixed for life. Which region is active is a role and moves; a slot does not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Slot {
    /// The home region.
    Primary,
    /// The region that takes over.
    Dr,
    /// The third region: a replica of the control table, a witness of the journal, and an observer.
    Witness,
}

impl Slot {
    /// All slots, home first.
    pub const ALL: [Slot; 3] = [Slot::Primary, Slot::Dr, Slot::Witness];
    /// The two slots that can be active.
    pub const SERVING: [Slot; 2] = [Slot::Primary, Slot::Dr];

    /// The word used in names.
    pub fn as_str(self) -> &'static str {
        match self {
            Slot::Primary => "primary",
            Slot::Dr => "dr",
            Slot::Witness => "witness",
        }
    }

    /// The slot of that word.
    pub fn parse(text: &str) -> Option<Slot> {
        Slot::ALL.into_iter().find(|slot| slot.as_str() == text)
    }
}

impl std::fmt::Display for Slot {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The region of each slot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Regions {
    /// The home region.
    pub primary: String,
    /// The region that takes over.
    pub dr: String,
    /// The third region.
    pub witness: String,
}

impl Default for Regions {
    /// The set that MRSC global tables accept in the United States: <https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/V2globaltables_HowItWorks.html>.
    fn default() -> Self {
        Regions {
            primary: "us-east-1".into(),
            dr: "us-east-2".into(),
            witness: "us-west-2".into(),
        }
    }
}

impl Regions {
    /// The region of a slot.
    pub fn of(&self, slot: Slot) -> &str {
        match slot {
            Slot::Primary => &self.primary,
            Slot::Dr => &self.dr,
            Slot::Witness => &self.witness,
        }
    }

    /// The slot of a region.
    pub fn slot_of(&self, region: &str) -> Option<Slot> {
        Slot::ALL.into_iter().find(|slot| self.of(*slot) == region)
    }

    /// For one of the two serving regions, the other one.
    pub fn peer_of(&self, region: &str) -> Option<&str> {
        match self.slot_of(region)? {
            Slot::Primary => Some(&self.dr),
            Slot::Dr => Some(&self.primary),
            Slot::Witness => None,
        }
    }
}

/// A workflow that changes the active region.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Takeover {
    /// Unplanned.
    Failover,
    /// Planned.
    Switchover,
}

impl Takeover {
    /// The word used in names.
    pub fn as_str(self) -> &'static str {
        match self {
            Takeover::Failover => "failover",
            Takeover::Switchover => "switchover",
        }
    }
}

/// What everything in the stack of one suffix is called.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Names {
    suffix: String,
}

/// The stage of the REST API.
pub const STAGE: &str = "live";
/// The database in Aurora.
pub const DATABASE: &str = "payments";
/// Its master user.
pub const DATABASE_USER: &str = "understudy";

impl Names {
    /// Names for a suffix.
    pub fn new(suffix: impl Into<String>) -> Self {
        Names {
            suffix: suffix.into(),
        }
    }

    /// The suffix.
    pub fn suffix(&self) -> &str {
        &self.suffix
    }

    /// `{what}-{slot}-{suffix}`: something that exists once per slot.
    pub fn regional(&self, what: &str, slot: Slot) -> String {
        format!("{what}-{slot}-{}", self.suffix)
    }

    /// `{what}-{suffix}`: something that exists once.
    pub fn global(&self, what: &str) -> String {
        format!("{what}-{}", self.suffix)
    }

    /// The control table.
    pub fn control_table(&self) -> String {
        self.global("control")
    }

    /// The journal table.
    pub fn journal_table(&self) -> String {
        self.global("journal")
    }

    /// The table in which a slot's handlers count the requests of API keys.
    pub fn request_rates_table(&self, slot: Slot) -> String {
        self.regional("request-rates", slot)
    }

    /// A slot's payment-processor.
    pub fn payment_processor(&self, slot: Slot) -> String {
        self.regional("payment-processor", slot)
    }

    /// What ends a slot's authorisations whose time has passed.
    pub fn expiry_schedule(&self, slot: Slot) -> String {
        self.regional("expire-authorisations", slot)
    }

    /// A slot's health-probe.
    pub fn health_probe(&self, slot: Slot) -> String {
        self.regional("health-probe", slot)
    }

    /// A slot's failover-coordinator.
    pub fn failover_coordinator(&self, slot: Slot) -> String {
        self.regional("failover-coordinator", slot)
    }

    /// A state machine: `deploy`, `failover`, `teardown`.
    pub fn state_machine(&self, workflow: &str, slot: Slot) -> String {
        self.regional(workflow, slot)
    }

    /// The FIS experiment template that isolates a slot's region: its `Name` tag.
    pub fn isolation(&self, slot: Slot) -> String {
        self.regional("isolate", slot)
    }

    /// The alarm that stops the isolation of a slot's region when nobody watches it.
    pub fn unwatched_alarm(&self, slot: Slot) -> String {
        self.regional("drill-unwatched", slot)
    }

    /// The bucket that holds the functions' packages in a slot's region.
    pub fn artifact_bucket(&self, slot: Slot, account: &str) -> String {
        format!("artifacts-{slot}-{}-{account}", self.suffix)
    }

    /// The key of a package in the artifact bucket.
    pub fn artifact_key(function: &str, sha256_hex: &str) -> String {
        format!("{function}/{sha256_hex}.zip")
    }

    /// A serving slot's data bucket.
    pub fn data_bucket(&self, slot: Slot, account: &str) -> String {
        let which = if slot == Slot::Primary {
            "primary"
        } else {
            "secondary"
        };
        format!("dr-{which}-bucket-{}-{account}", self.suffix)
    }

    /// The Aurora global cluster.
    pub fn aurora_global(&self) -> String {
        self.global("aurora")
    }

    /// A slot's Aurora cluster.
    pub fn aurora_cluster(&self, slot: Slot) -> String {
        self.regional("aurora", slot)
    }

    /// The cluster that is restored from the lost tail of a slot's region, which was taken over from when `epoch` began. One that an
    /// earlier recovery left behind is not mistaken for it.
    pub fn tail_cluster(&self, slot: Slot, epoch: u64) -> String {
        self.regional(&format!("aurora-tail-{epoch}"), slot)
    }

    /// The snapshot that keeps the lost tail of a slot's region, which was taken over from when `epoch` began.
    pub fn tail_snapshot(&self, slot: Slot, epoch: u64) -> String {
        format!("{}-{epoch}", self.regional("lost-tail", slot))
    }

    /// The recovery execution after the takeover that began `epoch`.
    pub fn recovery_execution(&self, epoch: u64) -> String {
        format!("{}-{epoch}", self.global("recovery"))
    }

    /// The secret with the database credentials.
    pub fn database_secret(&self) -> String {
        self.global("aurora-credentials")
    }

    /// A slot's REST API.
    pub fn rest_api(&self, slot: Slot) -> String {
        self.regional("payments", slot)
    }

    /// The log group of a slot's API: a line for each request.
    pub fn access_log_group(&self, slot: Slot) -> String {
        format!("/aws/apigateway/{}", self.rest_api(slot))
    }

    /// The topic that hears of trouble in a slot's region.
    pub fn alert_topic(&self, slot: Slot) -> String {
        self.regional("alerts", slot)
    }

    /// The dashboard over both regions.
    pub fn dashboard(&self) -> String {
        self.global("understudy")
    }

    /// The hosted zone when no domain is configured. `.test` never resolves publicly (RFC 6761).
    pub fn default_zone(&self) -> String {
        format!("dr-payments-{}.test.local", self.suffix)
    }

    /// The name clients use, in the given zone.
    pub fn public_name(zone: &str) -> String {
        format!("api.{zone}")
    }

    /// The failover execution that raises the epoch to `epoch`. Its name is the idempotency token: one per epoch.
    pub fn failover_execution(&self, epoch: u64) -> String {
        self.takeover_execution(Takeover::Failover, epoch)
    }

    /// The switchover execution that raises the epoch to `epoch`, as with [`Names::failover_execution`].
    pub fn switchover_execution(&self, epoch: u64) -> String {
        self.takeover_execution(Takeover::Switchover, epoch)
    }

    /// The execution of either workflow that raises the epoch to `epoch`: the base name. Further attempts of the same have
    /// their number after it: `failover-dev-2`, `failover-dev-2-2`, `failover-dev-2-3`.
    pub fn takeover_execution(&self, workflow: Takeover, epoch: u64) -> String {
        format!("{}-{}-{epoch}", workflow.as_str(), self.suffix)
    }

    /// The workflow and the epoch that it raises to, from the name of an execution, whichever attempt it is; none if the name
    /// is no such execution's.
    pub fn takeover_of(&self, execution: &str) -> Option<(Takeover, u64)> {
        [Takeover::Failover, Takeover::Switchover]
            .into_iter()
            .find_map(|workflow| {
                let rest = execution
                    .strip_prefix(workflow.as_str())?
                    .strip_prefix('-')?
                    .strip_prefix(&self.suffix)?
                    .strip_prefix('-')?;
                let (epoch, attempt) = rest.split_once('-').unwrap_or((rest, "1"));
                attempt.parse::<u32>().ok()?;
                Some((workflow, epoch.parse().ok()?))
            })
    }
}

/// The exercise that an execution is an attempt of: `failover-dev-2-3` is the third of `failover-dev-2`. Suffixes hold no
/// hyphen.
pub fn exercise_id(execution: &str) -> &str {
    match execution.match_indices('-').nth(2) {
        Some((end, _)) => &execution[..end],
        None => execution,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_carries_the_suffix() {
        let names = Names::new("dev");
        assert_eq!(names.control_table(), "control-dev");
        assert_eq!(names.payment_processor(Slot::Dr), "payment-processor-dr-dev");
        assert_eq!(
            names.data_bucket(Slot::Dr, "000000000000"),
            "dr-secondary-bucket-dev-000000000000"
        );
        assert_eq!(
            Names::public_name(&names.default_zone()),
            "api.dr-payments-dev.test.local"
        );
    }

    #[test]
    fn attempts_belong_to_one_exercise() {
        for (execution, id) in [
            ("failover-dev-2", "failover-dev-2"),
            ("failover-dev-2-3", "failover-dev-2"),
            ("switchover-dev-12-2", "switchover-dev-12"),
            ("by-hand", "by-hand"),
        ] {
            assert_eq!(exercise_id(execution), id);
        }
    }

    #[test]
    fn an_execution_is_known_by_its_name_whichever_attempt_it_is() {
        let names = Names::new("dev");
        let failover = names.failover_execution(7);
        let switchover = names.switchover_execution(8);
        for (execution, known) in [
            (failover.as_str(), Some((Takeover::Failover, 7))),
            ("failover-dev-7-12", Some((Takeover::Failover, 7))),
            (switchover.as_str(), Some((Takeover::Switchover, 8))),
            ("switchover-dev-8-2", Some((Takeover::Switchover, 8))),
            ("failover-prod-7", None),
            ("failover-dev-7-again", None),
            ("drill-dev-20261127T010000", None),
            ("deploy", None),
        ] {
            assert_eq!(names.takeover_of(execution), known, "{execution}");
        }
    }

    #[test]
    fn only_the_serving_regions_have_a_peer() {
        let regions = Regions::default();
        assert_eq!(regions.peer_of("us-east-1"), Some("us-east-2"));
        assert_eq!(regions.peer_of("us-east-2"), Some("us-east-1"));
        assert_eq!(regions.peer_of("us-west-2"), None);
        assert_eq!(regions.slot_of("eu-west-1"), None);
    }
}
