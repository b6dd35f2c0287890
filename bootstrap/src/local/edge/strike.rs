//! Striking a caller down in the middle of its work: the chosen call takes effect, its answer is held back, and the process that
//! made it is killed. So a crash at any call can be tried, which no client can do to itself this exactly.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use nix::sys::signal::Signal;
use serde::{Deserialize, Serialize};
use tokio::time::{Instant, sleep};

use super::{Call, record};
use crate::local::process::{self, ProcessId};

/// How long a killed process may take to be gone.
const PATIENCE: Duration = Duration::from_secs(5);
const POLL: Duration = Duration::from_millis(2);

/// Which call is a caller's last. What is not said, matches.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Strike {
    /// Where the caller is: a region's name or `outside`.
    pub source: Option<String>,
    /// The beginning of the calling function's name; an empty text means that no function calls.
    pub caller: Option<String>,
    /// The region that is called.
    pub region: Option<String>,
    /// The service that is called.
    pub service: Option<String>,
    /// The operation. A part of a path that is `*` stands for any one part: ids differ from one deployment to the next.
    pub operation: Option<String>,
    /// Operations that do not count.
    pub except: Vec<String>,
    /// Calls that only read do not count.
    pub writes_only: bool,
    /// Which of the calls that match, from 1. With 0 they are only counted.
    pub nth: u64,
}

impl Strike {
    fn matches(&self, call: &Call) -> bool {
        let is = |wanted: &Option<String>, found: &str| wanted.as_ref().is_none_or(|wanted| wanted == found);
        let caller = match self.caller.as_deref() {
            None => true,
            Some("") => call.caller.is_none(),
            Some(wanted) => call
                .caller
                .as_ref()
                .is_some_and(|caller| caller.starts_with(wanted)),
        };
        caller
            && is(&self.source, &call.source)
            && is(&self.region, &call.region)
            && is(&self.service, &call.service)
            && self
                .operation
                .as_ref()
                .is_none_or(|wanted| stands_for(wanted, &call.operation))
            && !self.except.contains(&call.operation)
            && !(self.writes_only && record::is_read(&call.operation))
    }
}

/// Whether `wanted` is this operation, part by part of its path.
fn stands_for(wanted: &str, operation: &str) -> bool {
    let (mut wanted, mut found) = (wanted.split('/'), operation.split('/'));
    loop {
        match (wanted.next(), found.next()) {
            (None, None) => return true,
            (Some(wanted), Some(found)) if wanted == "*" || wanted == found => {}
            _ => return false,
        }
    }
}

/// What became of a [`Strike`].
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StrikeReport {
    /// How many calls matched so far.
    pub seen: u64,
    /// The call that was the last of its caller.
    pub struck: Option<Struck>,
    /// The chosen call was made, but its caller was gone before the answer, or the call was refused: there was nobody to kill.
    pub in_vain: bool,
}

/// A caller that was struck down.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Struck {
    /// The function that called; none outside of functions.
    pub caller: Option<String>,
    /// The region that was called.
    pub region: String,
    /// The service that was called.
    pub service: String,
    /// The operation that was its last.
    pub operation: String,
    /// The process that was killed. None if it was not found (it ran in another place, or was gone): its connection was cut.
    pub killed: Option<u32>,
}

/// The strikes that are armed.
#[derive(Debug, Clone, Default)]
pub(super) struct Strikes {
    armed: Arc<Mutex<Vec<Arc<Armed>>>>,
}

#[derive(Debug)]
struct Armed {
    strike: Strike,
    report: Mutex<StrikeReport>,
}

impl Armed {
    fn report(&self) -> std::sync::MutexGuard<'_, StrikeReport> {
        self.report.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Strikes {
    /// Counts anew from here, each strike for itself.
    pub(super) fn arm(&self, strikes: Vec<Strike>) {
        let armed = strikes.into_iter().map(|strike| {
            let report = Mutex::default();
            Arc::new(Armed { strike, report })
        });
        *self.lock() = armed.collect();
    }

    /// Strikes nobody any more, and says what became of the last.
    pub(super) fn disarm(&self) -> Vec<StrikeReport> {
        let armed = std::mem::take(&mut *self.lock());
        armed.iter().map(|armed| armed.report().clone()).collect()
    }

    /// What became of those that are armed.
    pub(super) fn report(&self) -> Vec<StrikeReport> {
        self.lock().iter().map(|armed| armed.report().clone()).collect()
    }

    /// Counts a call. The chosen one gets the blow, to be dealt when its answer is there.
    pub(super) fn meets(&self, call: &Call) -> Option<Blow> {
        let mut chosen = None;
        for armed in self.lock().iter().filter(|armed| armed.strike.matches(call)) {
            let mut report = armed.report();
            report.seen += 1;
            if report.seen == armed.strike.nth {
                chosen = Some(Arc::clone(armed));
            }
        }
        chosen.map(|armed| Blow {
            armed,
            call: call.clone(),
        })
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<Arc<Armed>>> {
        self.armed.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The two ends of a caller's connection.
#[derive(Debug, Clone, Copy)]
pub(super) struct Ends {
    /// The caller's.
    pub(super) peer: SocketAddr,
    /// The edge's.
    pub(super) here: SocketAddr,
}

/// What waits for a caller.
#[derive(Debug)]
pub(super) struct Blow {
    armed: Arc<Armed>,
    call: Call,
}

impl Blow {
    /// Kills the process at the other end of the connection and returns when it is gone.
    pub(super) async fn fall(self, ends: Ends) {
        let found = tokio::task::spawn_blocking(move || process::holder_of(ends.peer, ends.here)).await;
        let process = found.ok().flatten();
        if let Some(process) = &process {
            process.signal(Signal::SIGKILL);
            let deadline = Instant::now() + PATIENCE;
            while process.is_alive() && Instant::now() < deadline {
                sleep(POLL).await;
            }
        }
        let killed = process.as_ref().map(|process: &ProcessId| process.pid);
        tracing::info!(call = ?self.call, ?killed, "a caller is struck down");
        let Call {
            caller,
            region,
            service,
            operation,
            ..
        } = self.call.clone();
        let struck = Struck {
            caller,
            region,
            service,
            operation,
            killed,
        };
        self.armed.report().struck = Some(struck);
    }
}

impl Drop for Blow {
    fn drop(&mut self) {
        let mut report = self.armed.report();
        report.in_vain = report.struck.is_none();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::local::Region;

    fn call(caller: Option<&str>, operation: &str) -> Call {
        Call::new(None, Region::UsEast1.name(), "ec2", operation).by(caller.map(str::to_owned))
    }

    #[test]
    fn only_the_chosen_call_is_struck() {
        let strikes = Strikes::default();
        assert!(strikes.meets(&call(None, "CreateVpc")).is_none());
        strikes.arm(vec![Strike {
            caller: Some("failover".into()),
            writes_only: true,
            except: vec!["CreateTags".into()],
            nth: 2,
            ..Strike::default()
        }]);
        let struck: Vec<bool> = [
            call(Some("failover-coordinator-primary-dev"), "CreateVpc"),
            call(Some("health-probe-dr-dev"), "CreateVpc"),
            call(None, "CreateVpc"),
            call(Some("failover-coordinator-primary-dev"), "DescribeVpcs"),
            call(Some("failover-coordinator-primary-dev"), "CreateTags"),
            call(Some("failover-coordinator-dr-dev"), "CreateSubnet"),
            call(Some("failover-coordinator-primary-dev"), "CreateSubnet"),
        ]
        .iter()
        .map(|call| strikes.meets(call).is_some())
        .collect();
        assert_eq!(struck, [false, false, false, false, false, true, false]);
        assert_eq!(strikes.report()[0].seen, 3);
        assert!(strikes.disarm().len() == 1 && strikes.report().is_empty());
    }

    #[test]
    fn each_of_several_strikes_counts_for_itself() {
        let strikes = Strikes::default();
        let of = |operation: &str, nth| Strike {
            operation: Some(operation.to_owned()),
            nth,
            ..Strike::default()
        };
        strikes.arm(vec![
            of("CreateVpc", 1),
            of("CreateSubnet", 2),
            of("CreateVpc", 3),
        ]);
        let struck: Vec<bool> = [
            "CreateVpc",
            "CreateSubnet",
            "CreateVpc",
            "CreateVpc",
            "CreateSubnet",
            "CreateVpc",
        ]
        .iter()
        .map(|operation| strikes.meets(&call(None, operation)).is_some())
        .collect();
        assert_eq!(struck, [true, false, false, true, true, false]);
        let seen: Vec<u64> = strikes.report().iter().map(|report| report.seen).collect();
        assert_eq!(seen, [4, 2, 4]);
    }

    #[test]
    fn a_blow_that_is_not_dealt_is_in_vain() {
        let strikes = Strikes::default();
        strikes.arm(vec![Strike {
            nth: 1,
            ..Strike::default()
        }]);
        let blow = strikes.meets(&call(None, "CreateVpc"));
        assert!(!strikes.report()[0].in_vain);
        drop(blow);
        assert!(strikes.report()[0].in_vain);
    }

    #[test]
    fn a_star_stands_for_one_part_of_a_path() {
        let rows = [
            ("CreateVpc", "CreateVpc", true),
            ("CreateVpc", "CreateVpcEndpoint", false),
            (
                "POST /restapis/*/deployments",
                "POST /restapis/a1b2/deployments",
                true,
            ),
            (
                "POST /restapis/*/deployments",
                "POST /restapis/a1b2/stages",
                false,
            ),
            ("POST /restapis/*", "POST /restapis/a1b2/stages", false),
            ("POST /restapis", "POST /restapis/a1b2", false),
        ];
        for (wanted, operation, expected) in rows {
            assert_eq!(stands_for(wanted, operation), expected, "{wanted} {operation}");
        }
    }

    #[test]
    fn only_calls_to_the_chosen_region_count() {
        let strike = Strike {
            region: Some(Region::UsEast2.name().into()),
            ..Strike::default()
        };
        assert!(!strike.matches(&call(None, "CreateVpc")));
        assert!(strike.matches(&Call::new(None, Region::UsEast2.name(), "ec2", "CreateVpc")));
    }

    #[test]
    fn an_empty_name_means_that_no_function_calls() {
        let strike = Strike {
            caller: Some(String::new()),
            ..Strike::default()
        };
        assert!(strike.matches(&call(None, "CreateVpc")));
        assert!(!strike.matches(&call(Some("health-probe-dr-dev"), "CreateVpc")));
    }
}
