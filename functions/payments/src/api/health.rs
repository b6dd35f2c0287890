//! `GET /health`: 200 only where a strong read says this region serves and the database agrees. It fails closed.

use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use continuity::control::{ControlRecord, Phase};
use continuity::error::chain;
use continuity::observe::Health;
use continuity::takeover::LedgerStatus;
use http::StatusCode;
use tokio::time::timeout;

use super::json;
use crate::context::Context;
use crate::limits::HEALTH_TIMEOUT;

/// Asks control table and database at once, each within [`HEALTH_TIMEOUT`].
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
    let record = async {
        match timeout(HEALTH_TIMEOUT, context.control.read()).await {
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
        match timeout(HEALTH_TIMEOUT, context.ledger.status()).await {
            Ok(Ok(status)) => Ok(status),
            Ok(Err(error)) => {
                tracing::warn!(error = chain(&error), "database does not answer");
                Err("the database does not answer")
            }
            Err(_) => Err("the database did not answer in time"),
        }
    };
    let (record, database) = tokio::join!(record, database);
    judge(&context.region, &context.slot, record, database)
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
    use super::*;

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
}
