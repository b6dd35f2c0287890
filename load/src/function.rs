//! One function, as Lambda starts it for each request that is in flight.

use std::sync::Arc;

use async_trait::async_trait;
use continuity::control::{ApiKey, ControlRecord, ControlStore};
use continuity::entry::{EntryId, EntryStatus, LedgerEntry};
use continuity::error::StoreError;
use continuity::journal::Journal;
use continuity::memory::{MemoryControl, MemoryRates};
use continuity::rate;
use payments::api::auth;
use payments::context::{Context, Stores};
use payments::event::Service;
use payments::ledger::postgres::PostgresLedger;
use payments::statement::memory::MemoryStore;
use payments::telemetry::Acknowledged;
use rand::RngExt;
use sha2::{Digest, Sha256};
use tokio::sync::mpsc;

use crate::events::{Choice, Events};
use crate::{EPOCH, LoadError, Plan, REGION};

/// A journal that takes everything at once and keeps nothing.
struct Nowhere;

#[async_trait]
impl Journal for Nowhere {
    async fn put(&self, _: u64, _: &LedgerEntry) -> Result<(), StoreError> {
        Ok(())
    }

    async fn scan(&self, _: u64, _: Option<EntryId>) -> Result<Vec<LedgerEntry>, StoreError> {
        Ok(Vec::new())
    }
}

/// The function, and the requests that it gets.
pub struct Function {
    service: Service,
    told: mpsc::UnboundedReceiver<Acknowledged>,
    events: Events,
}

impl Function {
    /// Connects it, and makes its first payment, which prepares its statement.
    pub async fn new(plan: &Plan) -> Result<Self, LoadError> {
        let mut record = ControlRecord::first(REGION, "bench", 0);
        record.epoch = EPOCH;
        let control = Arc::new(MemoryControl::with(record));
        let key = format!("{:032x}", rand::rng().random::<u128>());
        let may = ApiKey {
            name: "bench".to_owned(),
            scopes: vec![auth::WRITE.to_owned()],
            requests_per_s: rate::MOST,
            revoked: false,
        };
        control
            .put_api_key(&hex::encode(Sha256::digest(&key)), &may, 0)
            .await?;
        let mut context = Context::new(
            "bench",
            REGION,
            "primary",
            Stores {
                control,
                journal: Arc::new(Nowhere),
                ledger: Arc::new(PostgresLedger::new(Box::new(plan.database.clone()))),
                statements: Arc::new(MemoryStore::default()),
                rates: Arc::new(MemoryRates::default()),
            },
        );
        let (tell, told) = mpsc::unbounded_channel();
        context.tell = Box::new(move |request, now_ms| {
            // The line is made as for the log, and thrown away.
            std::hint::black_box(request.line(now_ms));
            if let Some(acknowledged) = request.acknowledged {
                let _ = tell.send(acknowledged);
            }
        });
        let mut function = Function {
            service: Service::new(Arc::new(context)),
            told,
            events: Events::new(key, plan.accounts),
        };
        function.pay(Choice::Any).await?;
        Ok(function)
    }

    /// One payment, from the bytes of its event to the bytes of its answer.
    pub async fn pay(&mut self, choice: Choice) -> Result<Acknowledged, LoadError> {
        let event = self.events.next(choice);
        let answer = self.service.handle(&event, None).await?;
        let bytes = serde_json::to_vec(&answer)?;
        match self.told.try_recv() {
            Ok(acknowledged) if acknowledged.status == EntryStatus::Created => Ok(acknowledged),
            _ => Err(LoadError::NotAcknowledged(
                String::from_utf8_lossy(&bytes).into_owned(),
            )),
        }
    }
}
