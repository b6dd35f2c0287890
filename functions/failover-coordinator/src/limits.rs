//! Limits and how they relate. Times that a workflow waits are in its ASL file.

use std::time::Duration;

/// The function's timeout, as the blueprint sets it.
pub const FUNCTION_TIMEOUT: Duration = Duration::from_secs(120);
/// `TimeoutSeconds` of the workflows' tasks.
pub const STATE_TIMEOUT: Duration = Duration::from_secs(150);
/// A task of the payment-processor, the longest of which is a replay.
pub const TASK_LIMIT: Duration = Duration::from_secs(100);
/// The payment-processor's answer about its ledger.
pub const STATUS_LIMIT: Duration = Duration::from_secs(10);
/// Steps that watch something return after this long; the workflow calls them again.
pub const WATCH_LIMIT: Duration = Duration::from_secs(20);
/// Between two looks of a step that watches.
pub const WATCH_INTERVAL: Duration = Duration::from_millis(100);
/// How often the active region's ledger is asked before a planned change is held.
pub const EVALUATE_ATTEMPTS: u32 = 3;
/// The standby has this long to catch up while the active region drains; customers get 503 meanwhile.
pub const DRAIN_LIMIT: Duration = Duration::from_secs(15);
/// A step that failed for long waits this long for a person before it is tried again.
pub const PAUSE_LIMIT: Duration = Duration::from_secs(30);
/// Names that a start may try.
pub const START_ATTEMPTS: u32 = 50;
/// Between two looks at an experiment, and two words to its stop alarm.
pub const FAULT_INTERVAL: Duration = Duration::from_secs(1);
/// Traffic has this long to follow before the failover is recorded without it.
pub const TRAFFIC_LIMIT: Duration = Duration::from_secs(60);
/// The first command of the new epoch has this long to come before the exercise is recorded without it.
pub const FIRST_COMMAND_LIMIT: Duration = Duration::from_secs(10);
/// How long before the decision the evidence shows the traffic: a fault is believed after a few rounds of the observers.
pub const TRAFFIC_BEFORE: Duration = Duration::from_secs(300);
/// How often the ledger is asked for its traffic before the evidence does without it.
pub const TRAFFIC_ATTEMPTS: u32 = 3;
/// How often readiness is evaluated before a drill is put off.
pub const READINESS_ATTEMPTS: u32 = 2;
/// A task of a probe: longer than the probe's own timeout, so that what is heard is its answer.
pub const PROBE_TASK_LIMIT: Duration = Duration::from_secs(95);
/// One request to the public name.
pub const REQUEST_LIMIT: Duration = Duration::from_secs(2);
/// A pass of the engine ends this long before the function's deadline.
pub const DEADLINE_MARGIN: Duration = Duration::from_secs(15);
/// A pass of the engine takes no longer than this.
pub const PASS_LIMIT: Duration = Duration::from_secs(60);
/// An observer has looked at the standby region again within this time, or nobody knows whether it works.
pub const GATE_LIMIT: Duration = Duration::from_secs(25);
/// A reconcile looks at everything within this time, and repairs in what is left of the pass.
pub const LOOK_LIMIT: Duration = Duration::from_secs(30);
/// Passes of one reconcile; what is open then is left to the next.
pub const REPAIR_PASSES: u64 = 10;
/// One look of a readiness evaluation at one thing.
pub const INSPECTION_LIMIT: Duration = Duration::from_secs(12);
/// All questions to IAM of a readiness evaluation.
pub const PERMISSIONS_LIMIT: Duration = Duration::from_secs(40);
/// Asking how the execution that holds the change stands; beyond that nobody knows.
pub const LIVENESS_LIMIT: Duration = Duration::from_secs(5);
/// A recovery looks often for this long, then each minute.
pub const RECOVERY_SOON: Duration = Duration::from_secs(600);
/// A recovery waits this long for the old region. Step Functions ends an execution after 25,000 events, and a look has nine.
pub const RECOVERY_LIMIT: Duration = Duration::from_secs(24 * 3_600);
/// The old region is back for this long and has no snapshot of the takeover: then nothing was lost.
pub const SNAPSHOT_LIMIT: Duration = Duration::from_secs(600);
/// Copying, restoring and deleting a lost tail may each take this long.
pub const TAIL_LIMIT: Duration = Duration::from_secs(3_600);
/// Between two writes of the `deployment` item.
pub const PROGRESS_INTERVAL: Duration = Duration::from_millis(500);
/// Passes in a row that moved nothing while resources failed, before the workflow gives up.
pub const STUCK_PASSES: u64 = 5;
/// Compare-and-set attempts within one step.
pub const SWAP_ATTEMPTS: usize = 5;

const _: () = assert!(FUNCTION_TIMEOUT.as_millis() < STATE_TIMEOUT.as_millis());
const _: () = assert!(TASK_LIMIT.as_millis() < FUNCTION_TIMEOUT.as_millis());
const _: () = assert!(STATUS_LIMIT.as_millis() < WATCH_LIMIT.as_millis());
const _: () = assert!(TRAFFIC_LIMIT.as_millis() + REQUEST_LIMIT.as_millis() < FUNCTION_TIMEOUT.as_millis());
const _: () = assert!(
    (PASS_LIMIT.as_millis() + GATE_LIMIT.as_millis() + DEADLINE_MARGIN.as_millis())
        < FUNCTION_TIMEOUT.as_millis()
);
const _: () = assert!(PROBE_TASK_LIMIT.as_millis() < FUNCTION_TIMEOUT.as_millis());
const _: () = assert!(STATUS_LIMIT.as_millis() < INSPECTION_LIMIT.as_millis());
const _: () =
    assert!(PERMISSIONS_LIMIT.as_millis() + DEADLINE_MARGIN.as_millis() < FUNCTION_TIMEOUT.as_millis());
const _: () = assert!(LOOK_LIMIT.as_millis() < PASS_LIMIT.as_millis());
// A holder of the change is not taken for dead while it makes a step, or pauses before the next.
const _: () = assert!(STATE_TIMEOUT.as_millis() + 20_000 < infra::change::LEASE.as_millis());
