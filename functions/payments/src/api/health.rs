//! `GET /health`: 200 only where a strong read says this region serves and the database agrees. It fails closed.

use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use continuity::control::{ControlRecord, Phase};
use continuity::error::chain;
use continuity::observe::Health;
use continuity::takeover::LedgerStatus;
use http::StatusCode;
use tokio::sync::Mutex;
use tokio::time::{Instant, timeout_at};

use super::json;
use crate::context::Context;
use crate::ledger::Ledger;
use crate::limits::{HEALTH_TIMEOUT, HEARTBEAT_EVERY};

/// Whether the database takes writes, as the newest heartbeat showed.
#[derive(Debug, Default)]
pub(crate) struct Writes(Mutex<Option<(Instant, Result<(), &'static str>)>>);

impl Writes {
    /// Writes in `epoch`, unless that was tried within [`HEARTBEAT_EVERY`]: then what was found holds. Why it takes none.
    async fn taken(&self, ledger: &dyn Ledger, epoch: u64, until: Instant) -> Result<(), &'static str> {
        // One at a time: those who wait for it learn what it found.
        let Ok(mut newest) = timeout_at(until, self.0.lock()).await else {
            return Err(SLOW_WRITE);
        };
        if let Some((at, found)) = *newest
            && at.elapsed() < HEARTBEAT_EVERY
        {
            return found;
        }
        let found = match timeout_at(until, ledger.heartbeat(epoch)).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => {
                tracing::warn!(error = chain(&error), "database takes no writes");
                Err("the database takes no writes")
            }
            Err(_) => Err(SLOW_WRITE),
        };
        *newest = Some((Instant::now(), found));
        found
    }
}

const SLOW_WRITE: &str = "the database did not take a write in time";

/// Asks control table and database at once, and writes to the database if all else says that this region serves; all within
/// [`HEALTH_TIMEOUT`].
pub async fn get(State(context): State<Arc<Context>>) -> Response {
    let health = look(&context).await;
    let status = if health.serving {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    };
    json(status, &health)
}

async fn look(context: &Context) -> Health {
    let until = Instant::now() + HEALTH_TIMEOUT;
    let record = async {
        match timeout_at(until, context.control.read()).await {
            Ok(Ok(Some(record))) => Ok(record),
            Ok(Ok(None)) => Err("there is no control record yet"),
            Ok(Err(error)) => {
                tracing::warn!(error = chain(&error), "control record could not be read");
                Err("the control record could not be read")
            }
            Err(_) => Err("the control table did not answer in time"),
        }
    };
    let database = async {
        match timeout_at(until, context.ledger.status()).await {
            Ok(Ok(status)) => Ok(status),
            Ok(Err(error)) => {
                tracing::warn!(error = chain(&error), "database does not answer");
                Err("the database does not answer")
            }
            Err(_) => Err("the database did not answer in time"),
        }
    };
    let (record, database) = tokio::join!(record, database);
    let mut health = judge(&context.region, &context.slot, record, database);
    if health.serving
        && let Some(epoch) = health.epoch
        && let Err(reason) = context.writes.taken(context.ledger.as_ref(), epoch, until).await
    {
        health.serving = false;
        health.reasons.push(reason.to_owned());
    }
    health
}

/// The body, from what was found.
fn judge(
    region: &str,
    slot: &str,
    record: Result<ControlRecord, &'static str>,
    database: Result<LedgerStatus, &'static str>,
) -> Health {
    let mut reasons = Vec::new();
    match &record {
        Err(reason) => reasons.push((*reason).to_owned()),
        Ok(record) => {
            if record.active_region != region {
                reasons.push(format!("the active region is {}", record.active_region));
            }
            if record.phase != Phase::Serving {
                reasons.push(format!("the phase is {}", record.phase));
            }
        }
    }
    match &database {
        Err(reason) => reasons.push((*reason).to_owned()),
        Ok(status) if status.in_recovery => reasons.push("the database is a standby".to_owned()),
        Ok(_) => {}
    }
    if let (Ok(record), Ok(status)) = (&record, &database)
        && status.ledger_epoch != Some(record.epoch)
    {
        let ledger = status
            .ledger_epoch
            .map_or("none".to_owned(), |epoch| epoch.to_string());
        reasons.push(format!(
            "the ledger epoch is {ledger}, the control epoch {}",
            record.epoch
        ));
    }
    let record = record.ok();
    Health {
        region: region.to_owned(),
        slot: slot.to_owned(),
        serving: reasons.is_empty(),
        epoch: record.as_ref().map(|record| record.epoch),
        phase: record.as_ref().map(|record| record.phase.to_string()),
        active_region: record.map(|record| record.active_region),
        database: database.unwrap_or(LedgerStatus {
            reachable: false,
            in_recovery: false,
            ledger_epoch: None,
        }),
        reasons,
    }
}

#[cfg(test)]
mod tests {
    use continuity::memory::{MemoryControl, MemoryJournal, MemoryRates};

    use super::*;
    use crate::context::Stores;
    use crate::ledger::memory::MemoryLedger;
    use crate::statement::memory::MemoryStore;

    #[test]
    fn only_a_serving_region_with_a_writable_database_in_its_epoch_is_healthy() {
        let record = ControlRecord::first("us-east-1", "test", 0);
        let other = ControlRecord {
            active_region: "us-east-2".into(),
            ..record.clone()
        };
        let recovering = ControlRecord {
            phase: Phase::Recovering,
            ..record.clone()
        };
        let draining = ControlRecord {
            phase: Phase::Draining,
            ..record.clone()
        };
        let status = |in_recovery, ledger_epoch| {
            Ok(LedgerStatus {
                reachable: true,
                in_recovery,
                ledger_epoch,
            })
        };
        let rows = [
            (Ok(record.clone()), status(false, Some(1)), true),
            (Ok(record.clone()), status(true, Some(1)), false),
            (Ok(record.clone()), status(false, Some(2)), false),
            (Ok(record.clone()), status(false, None), false),
            (Ok(record), Err("gone"), false),
            (Ok(other), status(false, Some(1)), false),
            (Ok(recovering), status(false, Some(1)), false),
            (Ok(draining), status(false, Some(1)), false),
            (Err("gone"), status(false, Some(1)), false),
            (Err("gone"), Err("gone"), false),
        ];
        for (record, database, serving) in rows {
            let row = format!("{record:?} {database:?}");
            let health = judge("us-east-1", "primary", record, database);
            assert_eq!(health.serving, serving, "{row}");
            assert_eq!(health.reasons.is_empty(), serving, "{row}");
        }
    }

    fn serving(ledger: &Arc<MemoryLedger>) -> Context {
        let record = ControlRecord::first("us-east-1", "test", 0);
        Context::new(
            "dev",
            "us-east-1",
            "primary",
            Stores {
                control: Arc::new(MemoryControl::with(record)),
                journal: Arc::new(MemoryJournal::default()),
                ledger: ledger.clone(),
                statements: Arc::new(MemoryStore::default()),
                rates: Arc::new(MemoryRates::default()),
            },
        )
    }

    #[tokio::test]
    async fn a_region_whose_database_takes_no_writes_is_not_healthy_and_says_so_within_the_time() {
        let ledger = Arc::new(MemoryLedger::in_epoch(1));
        let context = serving(&ledger);
        assert!(look(&context).await.serving);
        ledger.set_stuck(true);
        tokio::time::sleep(HEARTBEAT_EVERY).await;
        let began = Instant::now();
        let (first, second) = tokio::join!(look(&context), look(&context));
        assert!(began.elapsed() < HEALTH_TIMEOUT + HEARTBEAT_EVERY);
        for health in [first, second] {
            assert!(!health.serving);
            assert_eq!(health.reasons, [SLOW_WRITE]);
            assert!(health.database.reachable, "it answers reads");
        }
        ledger.set_stuck(false);
        tokio::time::sleep(HEARTBEAT_EVERY).await;
        assert!(look(&context).await.serving, "it takes writes again");
    }

    #[tokio::test]
    async fn whoever_asks_often_makes_no_more_writes() {
        let ledger = Arc::new(MemoryLedger::in_epoch(1));
        let context = serving(&ledger);
        let began = Instant::now();
        for _ in 0..200 {
            assert!(look(&context).await.serving);
        }
        let most = 1 + began.elapsed().as_millis() / HEARTBEAT_EVERY.as_millis();
        assert!(u128::from(ledger.heartbeats()) <= most);
    }

    #[tokio::test]
    async fn a_region_that_does_not_serve_writes_nothing() {
        let ledger = Arc::new(MemoryLedger::in_epoch(2));
        let context = serving(&ledger);
        assert!(!look(&context).await.serving, "another epoch");
        assert_eq!(ledger.heartbeats(), 0);
    }
}
