//! `/v1/payments`.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Path, State};
use axum::response::Response;
use continuity::entry::{EntryId, LedgerEntry};
use http::{Request, StatusCode};
use uuid::Uuid;

use super::page::Page;
use super::problem::Problem;
use super::{auth, json, request};
use crate::command::{self, PaymentDetails};
use crate::context::Context;
use crate::ledger::Payment;

/// `POST /v1/payments`. A decline is an outcome as well.
pub async fn create(
    State(context): State<Arc<Context>>,
    request: Request<Body>,
) -> Result<Response, Problem> {
    auth::check(&context, request.headers(), auth::WRITE).await?;
    let (key, body) = request::command(request).await?;
    let entry = context.execute(key, command::pay(&body)?).await?;
    // As it was recorded: the same answer for every retry, in every region.
    let payment = recorded(&entry, entry.id.epoch).ok_or_else(|| Problem::Internal {
        cause: format!("entry {:?} is no payment", entry.id),
    })?;
    Ok(json(StatusCode::CREATED, &payment))
}

/// `GET /v1/payments/{id}`.
pub async fn get(
    State(context): State<Arc<Context>>,
    Path(id): Path<String>,
    request: Request<Body>,
) -> Result<Response, Problem> {
    auth::check(&context, request.headers(), auth::READ).await?;
    let id = command::account_id(&id).ok_or(Problem::NotFound)?;
    let payment = context
        .read(context.ledger.payment(id))
        .await?
        .ok_or(Problem::NotFound)?;
    Ok(json(StatusCode::OK, &payment))
}

/// `GET /v1/payments`.
pub async fn list(State(context): State<Arc<Context>>, request: Request<Body>) -> Result<Response, Problem> {
    auth::check(&context, request.headers(), auth::READ).await?;
    let page = Page::from_query(request.uri().query())?;
    let payments = context
        .read(context.ledger.payments(page.before, page.fetch()))
        .await?;
    let listed = page.cut(payments, |payment| EntryId {
        epoch: payment.epoch,
        seq: payment.seq,
    });
    Ok(json(StatusCode::OK, &listed))
}

/// The payment that an entry records.
pub(crate) fn recorded(entry: &LedgerEntry, posted_epoch: u64) -> Option<Payment> {
    let details: PaymentDetails = serde_json::from_value(entry.details.clone()).ok()?;
    Some(Payment {
        id: Uuid::try_parse(&entry.subject).ok()?,
        status: entry.status.clone(),
        reason: details.reason,
        from_account: details.from_account,
        to_account: details.to_account,
        amount_minor: details.amount_minor,
        currency: details.currency,
        reference: details.reference,
        epoch: entry.id.epoch,
        seq: entry.id.seq,
        posted_epoch,
        created_at_ms: entry.created_at_ms,
    })
}
