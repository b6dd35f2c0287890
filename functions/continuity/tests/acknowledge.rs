//! The handler's side of the nine rules, on the real `acknowledge`: each test changes the world between two of its steps.
#![allow(clippy::unwrap_used, missing_docs)]

use std::convert::Infallible;

use async_trait::async_trait;
use continuity::acknowledge::{Acknowledged, Executed, NotAcknowledged, acknowledge};
use continuity::control::{ControlRecord, ControlStore};
use continuity::entry::{EntryId, EntryKind, EntryStatus, LedgerEntry};
use continuity::error::StoreError;
use continuity::journal::Journal;
use continuity::memory::{MemoryControl, MemoryJournal};

const HERE: &str = "us-east-1";
const THERE: &str = "us-east-2";

fn serving(region: &str, epoch: u64) -> ControlRecord {
    ControlRecord {
        epoch,
        last_served_epoch: epoch,
        version: epoch,
        ..ControlRecord::first(region, "test", 0)
    }
}

fn entry(epoch: u64) -> LedgerEntry {
    LedgerEntry {
        id: EntryId { epoch, seq: 7 },
        idempotency_key: "key".into(),
        request_hash: "hash".into(),
        request_id: "request".into(),
        kind: EntryKind::Payment,
        subject: "payment".into(),
        status: EntryStatus::Created,
        posting: None,
        details: serde_json::Value::Null,
        created_at_ms: 0,
    }
}

async fn run(
    belief: Option<ControlRecord>,
    control: &dyn ControlStore,
    journal: &dyn Journal,
    ledger: impl AsyncFnOnce(u64) -> Executed,
) -> Result<Acknowledged, NotAcknowledged<Infallible>> {
    acknowledge(HERE, belief, control, journal, async |epoch| {
        Ok(ledger(epoch).await)
    })
    .await
}

/// A journal during whose put the epoch rises.
struct Fencing<'a> {
    control: &'a MemoryControl,
    journal: MemoryJournal,
}

#[async_trait]
impl Journal for Fencing<'_> {
    async fn put(&self, epoch: u64, entry: &LedgerEntry) -> Result<(), StoreError> {
        self.journal.put(epoch, entry).await?;
        self.control
            .replace(&serving(HERE, 1), &serving(THERE, 2))
            .await?;
        Ok(())
    }

    async fn scan(&self, epoch: u64, settled: Option<EntryId>) -> Result<Vec<LedgerEntry>, StoreError> {
        self.journal.scan(epoch, settled).await
    }
}

#[tokio::test]
async fn an_epoch_that_rises_during_the_put_is_seen() {
    let control = MemoryControl::with(serving(HERE, 1));
    let journal = Fencing {
        control: &control,
        journal: MemoryJournal::default(),
    };
    let result = run(Some(serving(HERE, 1)), &control, &journal, async |_| {
        Executed::Outcome(Box::new(entry(1).into()))
    })
    .await;
    let Err(NotAcknowledged::NotActive {
        record: Some(record), ..
    }) = result
    else {
        panic!("{result:?}")
    };
    assert_eq!(record, serving(THERE, 2), "what was read goes back to the caller");
}

#[tokio::test]
async fn nothing_is_acknowledged_that_the_journal_did_not_take() {
    let (control, journal) = (MemoryControl::with(serving(HERE, 1)), MemoryJournal::default());
    journal.set_unreachable(true);
    let result = run(None, &control, &journal, async |_| {
        Executed::Outcome(Box::new(entry(1).into()))
    })
    .await;
    assert!(matches!(result, Err(NotAcknowledged::Journal(_))), "{result:?}");
}

#[tokio::test]
async fn a_stored_outcome_is_put_again_under_the_current_epoch() {
    let (control, journal) = (MemoryControl::with(serving(HERE, 3)), MemoryJournal::default());
    let result = run(None, &control, &journal, async |_| {
        Executed::Outcome(Box::new(entry(1).into()))
    })
    .await;
    assert_eq!(result.unwrap().entry, entry(1));
    assert_eq!(journal.scan(3, None).await.unwrap(), [entry(1)]);
    assert_eq!(journal.scan(1, None).await.unwrap(), []);
}

#[tokio::test]
async fn a_ledger_of_another_epoch_is_not_journaled() {
    let (control, journal) = (MemoryControl::with(serving(HERE, 2)), MemoryJournal::default());
    let old = Some(serving(HERE, 1));
    let result = run(old, &control, &journal, async |epoch| {
        assert_eq!(epoch, 1, "the ledger is asked in the epoch of the belief");
        Executed::OtherEpoch
    })
    .await;
    assert!(
        matches!(result, Err(NotAcknowledged::NotActive { .. })),
        "{result:?}"
    );
    assert_eq!(
        journal.scan(1, None).await.unwrap().len() + journal.scan(2, None).await.unwrap().len(),
        0
    );
}

#[tokio::test]
async fn a_region_that_is_not_serving_does_not_ask_its_ledger() {
    let journal = MemoryJournal::default();
    let draining = ControlRecord {
        phase: continuity::control::Phase::Draining,
        ..serving(HERE, 1)
    };
    for record in [serving(THERE, 1), draining] {
        let control = MemoryControl::with(record);
        let result = run(None, &control, &journal, async |_| panic!("asked")).await;
        assert!(
            matches!(result, Err(NotAcknowledged::NotActive { .. })),
            "{result:?}"
        );
    }
}

#[tokio::test]
async fn a_belief_that_says_no_is_looked_at_again() {
    let (control, journal) = (MemoryControl::with(serving(HERE, 2)), MemoryJournal::default());
    let old = Some(serving(THERE, 1));
    let result = run(old, &control, &journal, async |_| {
        Executed::Outcome(Box::new(entry(2).into()))
    })
    .await;
    assert_eq!(result.unwrap().record.epoch, 2);
}

#[tokio::test]
async fn a_region_without_quorum_acknowledges_nothing() {
    let (control, journal) = (MemoryControl::with(serving(HERE, 1)), MemoryJournal::default());
    control.set_unreachable(true);
    let belief = Some(serving(HERE, 1));
    let result = run(belief, &control, &journal, async |_| {
        Executed::Outcome(Box::new(entry(1).into()))
    })
    .await;
    assert!(matches!(result, Err(NotAcknowledged::Control(_))), "{result:?}");
}
