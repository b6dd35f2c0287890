//! Which regions are cut off and whose replication is held: one value that the control interface changes and every
//! proxy of the edge watches.

use std::collections::BTreeSet;

use serde::Serialize;
use tokio::sync::watch;

use super::Region;

/// The faults in force. `None` as source or target is the outside: operators, clients on the internet.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct NetworkState {
    /// Regions that nothing enters or leaves.
    pub cut: BTreeSet<Region>,
    /// Regions that an experiment of Fault Injection Service cuts off. The service itself and CloudWatch, whose alarms stop it,
    /// are AWS's: it keeps them out of what it breaks.
    pub isolated: BTreeSet<Region>,
    /// Regions whose incoming replication stream is held back.
    pub lagging: BTreeSet<Region>,
    /// Regions whose replica of a global table reaches no other replica.
    pub tableless: BTreeSet<Region>,
    /// Regions whose database takes no commit. The server is told so: no byte is held back on the way to it.
    pub stuck: BTreeSet<Region>,
}

impl NetworkState {
    /// Whether the region is cut off from the rest.
    pub fn is_cut(&self, region: Region) -> bool {
        self.cut.contains(&region) || self.isolated.contains(&region)
    }

    /// Whether replicas of a global table in any two regions do not hear each other.
    pub fn is_any_replica_cut(&self) -> bool {
        !self.cut.is_empty() || !self.isolated.is_empty() || !self.tableless.is_empty()
    }

    /// The faults as API calls of a service meet them: by the name under which they are signed.
    #[must_use]
    pub fn for_calls_of(&self, service: &str) -> NetworkState {
        let mut state = self.clone();
        if ["fis", "monitoring"].contains(&service) {
            state.isolated.clear();
        }
        state
    }

    /// Whether bytes from `source` reach `target`. Inside one region they always do.
    pub fn passes(&self, source: Option<Region>, target: Option<Region>) -> bool {
        source == target
            || ![source, target]
                .into_iter()
                .flatten()
                .any(|region| self.is_cut(region))
    }

    /// Whether the replicas of a global table in these regions hear each other.
    pub fn tables_meet(&self, one: Region, other: Region) -> bool {
        one == other
            || (self.passes(Some(one), Some(other))
                && ![one, other].iter().any(|region| self.tableless.contains(region)))
    }

    /// Whether the replication stream into `region` is held.
    pub fn is_lagging(&self, region: Region) -> bool {
        self.lagging.contains(&region)
    }
}

/// The one place where faults are switched. Cheap to share behind an `Arc`.
#[derive(Debug)]
pub struct Network {
    state: watch::Sender<NetworkState>,
}

impl Default for Network {
    fn default() -> Self {
        Self {
            state: watch::Sender::new(NetworkState::default()),
        }
    }
}

impl Network {
    /// Cuts the region off; says whether that changed anything.
    pub fn cut(&self, region: Region) -> bool {
        self.change(|state| state.cut.insert(region))
    }

    /// Cuts the region off for an experiment; says whether that changed anything.
    pub fn isolate(&self, region: Region) -> bool {
        self.change(|state| state.isolated.insert(region))
    }

    /// Cuts the region's replicas of global tables off from the others; says whether that changed anything.
    pub fn cut_tables(&self, region: Region) -> bool {
        self.change(|state| state.tableless.insert(region))
    }

    /// Remembers that the region's database takes no commit; says whether that changed anything.
    pub fn stick(&self, region: Region) -> bool {
        self.change(|state| state.stuck.insert(region))
    }

    /// Takes back what the experiment did; says whether that changed anything.
    pub fn rejoin(&self, region: Region) -> bool {
        self.change(|state| state.isolated.remove(&region))
    }

    /// Joins the region again, whatever cut it off, and lets its replication flow; says whether that changed anything.
    pub fn heal(&self, region: Region) -> bool {
        self.change(|state| {
            state.cut.remove(&region)
                | state.isolated.remove(&region)
                | state.lagging.remove(&region)
                | state.tableless.remove(&region)
                | state.stuck.remove(&region)
        })
    }

    /// Holds or releases the replication stream into the region; says whether that changed anything.
    pub fn lag(&self, region: Region, on: bool) -> bool {
        self.change(|state| {
            if on {
                state.lagging.insert(region)
            } else {
                state.lagging.remove(&region)
            }
        })
    }

    /// The faults in force now.
    pub fn now(&self) -> NetworkState {
        self.state.borrow().clone()
    }

    /// A receiver that wakes on each change; proxies close what no longer passes.
    pub fn subscribe(&self) -> watch::Receiver<NetworkState> {
        self.state.subscribe()
    }

    fn change(&self, change: impl FnOnce(&mut NetworkState) -> bool) -> bool {
        self.state.send_if_modified(change)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use Region::{UsEast1, UsEast2, UsWest2};

    #[test]
    fn a_cut_region_talks_only_to_itself() {
        let network = Network::default();
        assert!(network.cut(UsEast1));
        assert!(!network.cut(UsEast1));
        let state = network.now();
        let cases = [
            (None, Some(UsEast1), false),
            (Some(UsEast1), None, false),
            (Some(UsEast1), Some(UsEast2), false),
            (Some(UsEast2), Some(UsEast1), false),
            (Some(UsEast1), Some(UsEast1), true),
            (Some(UsEast2), Some(UsWest2), true),
            (None, Some(UsEast2), true),
        ];
        for (source, target, passes) in cases {
            assert_eq!(state.passes(source, target), passes, "{source:?} -> {target:?}");
        }
        assert!(network.heal(UsEast1));
        assert_eq!(network.now(), NetworkState::default());
    }

    #[test]
    fn an_experiment_cuts_all_but_what_stops_it_and_takes_back_only_what_it_did() {
        let network = Network::default();
        assert!(network.isolate(UsEast1));
        let state = network.now();
        assert!(state.is_cut(UsEast1) && state.is_any_replica_cut());
        for (service, passes) in [("fis", true), ("monitoring", true), ("dynamodb", false)] {
            let state = state.for_calls_of(service);
            assert_eq!(state.passes(Some(UsEast2), Some(UsEast1)), passes, "{service}");
        }
        network.cut(UsEast1);
        assert!(
            !network.now().for_calls_of("fis").passes(None, Some(UsEast1)),
            "a real outage"
        );
        assert!(network.rejoin(UsEast1));
        assert!(network.now().is_cut(UsEast1));
        network.isolate(UsEast1);
        assert!(network.heal(UsEast1));
        assert_eq!(network.now(), NetworkState::default());
    }

    #[test]
    fn healing_also_releases_replication() {
        let network = Network::default();
        assert!(network.lag(UsEast2, true));
        assert!(network.now().is_lagging(UsEast2));
        assert!(network.heal(UsEast2));
        assert!(!network.now().is_lagging(UsEast2));
    }
}
