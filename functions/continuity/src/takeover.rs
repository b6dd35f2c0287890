//! The control record's transitions in a takeover, and rule (i). Pure: effects are the coordinator's.

use serde::{Deserialize, Serialize};

use crate::control::{ControlRecord, Phase};

/// What a region's ledger says of itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LedgerStatus {
    /// The database answered.
    pub reachable: bool,
    /// It is a standby.
    pub in_recovery: bool,
    /// The epoch in the ledger, `None` before the first migration.
    pub ledger_epoch: Option<u64>,
}

/// Why a transition is refused. Nothing was changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// The record has moved on from the epoch that the caller decided on.
    #[error("epoch is {actual}, expected {expected}")]
    OtherEpoch {
        /// The caller's.
        expected: u64,
        /// The record's.
        actual: u64,
    },
    /// The region is active already.
    #[error("region `{0}` is active already")]
    AlreadyActive(String),
    /// The phase does not allow the transition.
    #[error("the phase is {0}")]
    WrongPhase(Phase),
    /// The record's active region is not the one that wants to open.
    #[error("region `{0}` is not the one that takes over")]
    NotTheTarget(String),
    /// Rule (i): the region's ledger could miss what the journal no longer holds.
    #[error("standby is not fit: {0}")]
    Unfit(String),
}

/// A transition: the record to store, or the one that already is as wanted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Transition {
    /// Store this by compare-and-set.
    Store(ControlRecord),
    /// An earlier run of the same step stored it.
    AlreadyDone(ControlRecord),
}

/// Raises the epoch from `from_epoch` for `to_region`: from here on nothing of the old epoch is acknowledged.
///
/// # Errors
/// Refused when the record is at another epoch, or `to_region` is active in `from_epoch`.
pub fn fence(
    record: &ControlRecord,
    from_epoch: u64,
    to_region: &str,
    changed_by: &str,
    now_ms: u64,
) -> Result<Transition, Refused> {
    if record.epoch == from_epoch + 1 && record.active_region == to_region && record.changed_by == changed_by
    {
        return Ok(Transition::AlreadyDone(record.clone()));
    }
    if record.epoch != from_epoch {
        return Err(Refused::OtherEpoch {
            expected: from_epoch,
            actual: record.epoch,
        });
    }
    if record.active_region == to_region {
        return Err(Refused::AlreadyActive(to_region.to_owned()));
    }
    Ok(Transition::Store(ControlRecord {
        epoch: from_epoch + 1,
        active_region: to_region.to_owned(),
        phase: Phase::Recovering,
        repair_frozen: true,
        changed_by: changed_by.to_owned(),
        since_ms: now_ms,
        version: record.version + 1,
        ..record.clone()
    }))
}

/// Begins a planned change of `epoch` to `to_region`: the active region stops acknowledging, and what it acknowledged reaches
/// the standby. Undone by [`undrain`]. `changed_by` names the change, not its attempt.
///
/// # Errors
/// Refused when the record is at another epoch, `to_region` is active, or another change is under way.
pub fn drain(
    record: &ControlRecord,
    epoch: u64,
    to_region: &str,
    changed_by: &str,
    now_ms: u64,
) -> Result<Transition, Refused> {
    if record.epoch != epoch {
        return Err(Refused::OtherEpoch {
            expected: epoch,
            actual: record.epoch,
        });
    }
    if record.active_region == to_region {
        return Err(Refused::AlreadyActive(to_region.to_owned()));
    }
    match record.phase {
        Phase::Draining => Ok(Transition::AlreadyDone(record.clone())),
        Phase::Recovering => Err(Refused::WrongPhase(record.phase)),
        Phase::Serving => Ok(Transition::Store(ControlRecord {
            phase: Phase::Draining,
            repair_frozen: true,
            changed_by: changed_by.to_owned(),
            since_ms: now_ms,
            version: record.version + 1,
            ..record.clone()
        })),
    }
}

/// Gives a planned change up before the epoch rose: the active region of `epoch` acknowledges again. The caller must know that
/// its database still is the writer.
///
/// # Errors
/// Refused when the record is at another epoch, or recovering.
pub fn undrain(record: &ControlRecord, epoch: u64, now_ms: u64) -> Result<Transition, Refused> {
    if record.epoch != epoch {
        return Err(Refused::OtherEpoch {
            expected: epoch,
            actual: record.epoch,
        });
    }
    match record.phase {
        Phase::Serving => Ok(Transition::AlreadyDone(record.clone())),
        Phase::Recovering => Err(Refused::WrongPhase(record.phase)),
        Phase::Draining => Ok(Transition::Store(ControlRecord {
            phase: Phase::Serving,
            repair_frozen: false,
            since_ms: now_ms,
            version: record.version + 1,
            ..record.clone()
        })),
    }
}

/// Opens `epoch` in `region` after its replay: phase `serving`, repair allowed again.
///
/// # Errors
/// Refused when the record is at another epoch or names another region.
pub fn open(record: &ControlRecord, epoch: u64, region: &str, now_ms: u64) -> Result<Transition, Refused> {
    if record.epoch != epoch {
        return Err(Refused::OtherEpoch {
            expected: epoch,
            actual: record.epoch,
        });
    }
    if record.active_region != region {
        return Err(Refused::NotTheTarget(region.to_owned()));
    }
    if record.phase == Phase::Serving && record.last_served_epoch == epoch {
        return Ok(Transition::AlreadyDone(record.clone()));
    }
    Ok(Transition::Store(ControlRecord {
        phase: Phase::Serving,
        last_served_epoch: epoch,
        repair_frozen: false,
        since_ms: now_ms,
        version: record.version + 1,
        ..record.clone()
    }))
}

/// The epochs that a replay into `record.epoch` scans: those since the last that served (rule d), not the new one itself.
pub fn epochs_to_replay(record: &ControlRecord) -> std::ops::Range<u64> {
    record.last_served_epoch..record.epoch
}

/// Rule (i): a region may be taken over to only when its replica shows the current epoch in its ledger, or when it still is
/// the writer because nothing was promoted since the last epoch that served. `record` is the one before the fence.
///
/// # Errors
/// [`Refused::Unfit`] with the reason.
pub fn fit_to_take_over(record: &ControlRecord, status: &LedgerStatus) -> Result<(), Refused> {
    let unfit = |reason: String| Err(Refused::Unfit(reason));
    if !status.reachable {
        return unfit("its database does not answer".into());
    }
    match status.ledger_epoch {
        None => unfit("its ledger has no epoch yet".into()),
        Some(ledger) if ledger == record.epoch => Ok(()),
        Some(ledger) if !status.in_recovery && ledger == record.last_served_epoch => Ok(()),
        Some(ledger) => unfit(format!(
            "its ledger shows epoch {ledger}, the control record {} (last served {})",
            record.epoch, record.last_served_epoch
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn serving(epoch: u64) -> ControlRecord {
        ControlRecord {
            epoch,
            last_served_epoch: epoch,
            ..ControlRecord::first("us-east-1", "test", 0)
        }
    }

    #[test]
    fn fencing_twice_equals_once() {
        let before = serving(3);
        let Ok(Transition::Store(after)) = fence(&before, 3, "us-east-2", "run-4", 10) else {
            panic!("stored")
        };
        assert_eq!(
            (after.epoch, after.phase, after.last_served_epoch),
            (4, Phase::Recovering, 3)
        );
        assert!(after.repair_frozen);
        assert_eq!(
            fence(&after, 3, "us-east-2", "run-4", 20),
            Ok(Transition::AlreadyDone(after))
        );
    }

    #[test]
    fn a_stale_executor_cannot_fence() {
        let newer = serving(5);
        assert_eq!(
            fence(&newer, 3, "us-east-2", "run-4", 10),
            Err(Refused::OtherEpoch {
                expected: 3,
                actual: 5
            })
        );
        assert_eq!(
            fence(&newer, 5, "us-east-1", "x", 10),
            Err(Refused::AlreadyActive("us-east-1".into()))
        );
    }

    #[test]
    fn another_execution_does_not_own_a_fence_it_did_not_make() {
        let Ok(Transition::Store(after)) = fence(&serving(1), 1, "us-east-2", "run-a", 10) else {
            panic!("stored")
        };
        assert_eq!(
            fence(&after, 1, "us-east-2", "run-b", 20),
            Err(Refused::OtherEpoch {
                expected: 1,
                actual: 2
            })
        );
    }

    #[test]
    fn opening_twice_equals_once_and_only_the_target_opens() {
        let Ok(Transition::Store(fenced)) = fence(&serving(1), 1, "us-east-2", "run", 10) else {
            panic!("stored")
        };
        assert_eq!(
            open(&fenced, 2, "us-east-1", 11),
            Err(Refused::NotTheTarget("us-east-1".into()))
        );
        let Ok(Transition::Store(opened)) = open(&fenced, 2, "us-east-2", 11) else {
            panic!("stored")
        };
        assert_eq!(
            (opened.phase, opened.last_served_epoch, opened.repair_frozen),
            (Phase::Serving, 2, false)
        );
        assert_eq!(
            open(&opened, 2, "us-east-2", 12),
            Ok(Transition::AlreadyDone(opened))
        );
    }

    #[test]
    fn draining_twice_equals_once_and_is_undone_before_the_epoch_rises_only() {
        let before = serving(3);
        let Ok(Transition::Store(draining)) = drain(&before, 3, "us-east-2", "switchover-4", 10) else {
            panic!("stored")
        };
        assert_eq!((draining.epoch, draining.phase), (3, Phase::Draining));
        assert!(draining.repair_frozen && !draining.may_acknowledge("us-east-1", 3));
        assert_eq!(
            drain(&draining, 3, "us-east-2", "switchover-4", 20),
            Ok(Transition::AlreadyDone(draining.clone()))
        );
        let Ok(Transition::Store(undone)) = undrain(&draining, 3, 30) else {
            panic!("stored")
        };
        assert!(undone.may_acknowledge("us-east-1", 3) && !undone.repair_frozen);
        assert_eq!(undrain(&undone, 3, 40), Ok(Transition::AlreadyDone(undone)));
        let Ok(Transition::Store(risen)) = fence(&draining, 3, "us-east-2", "switchover-4", 20) else {
            panic!("stored")
        };
        assert_eq!(
            undrain(&risen, 3, 50),
            Err(Refused::OtherEpoch {
                expected: 3,
                actual: 4
            })
        );
        assert_eq!(
            undrain(&risen, 4, 50),
            Err(Refused::WrongPhase(Phase::Recovering))
        );
    }

    #[test]
    fn only_a_serving_region_is_drained_and_not_for_itself() {
        let record = serving(3);
        assert_eq!(
            drain(&record, 2, "us-east-2", "s", 10),
            Err(Refused::OtherEpoch {
                expected: 2,
                actual: 3
            })
        );
        assert_eq!(
            drain(&record, 3, "us-east-1", "s", 10),
            Err(Refused::AlreadyActive("us-east-1".into()))
        );
        let recovering = ControlRecord {
            phase: Phase::Recovering,
            ..record
        };
        assert_eq!(
            drain(&recovering, 3, "us-east-2", "s", 10),
            Err(Refused::WrongPhase(Phase::Recovering))
        );
    }

    #[test]
    fn a_replay_covers_the_epochs_since_the_last_that_served() {
        let record = ControlRecord {
            epoch: 6,
            last_served_epoch: 3,
            ..serving(3)
        };
        assert_eq!(epochs_to_replay(&record).collect::<Vec<_>>(), [3, 4, 5]);
    }

    #[test]
    fn rule_i_as_a_table() {
        let record = ControlRecord {
            epoch: 5,
            last_served_epoch: 3,
            ..serving(3)
        };
        let status = |reachable, in_recovery, ledger_epoch| LedgerStatus {
            reachable,
            in_recovery,
            ledger_epoch,
        };
        let rows = [
            (
                status(true, true, Some(5)),
                true,
                "the replica shows the current epoch",
            ),
            (
                status(true, false, Some(3)),
                true,
                "still the writer of the last epoch that served",
            ),
            (
                status(true, true, Some(3)),
                false,
                "a replica that has not seen the current epoch",
            ),
            (
                status(true, false, Some(2)),
                false,
                "a writer from before the last epoch that served",
            ),
            (status(true, true, None), false, "an empty replica"),
            (
                status(false, true, Some(5)),
                false,
                "a database that does not answer",
            ),
        ];
        for (status, fit, row) in rows {
            assert_eq!(fit_to_take_over(&record, &status).is_ok(), fit, "{row}");
        }
    }
}
