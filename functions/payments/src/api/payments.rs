//! `/v1/payments`.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Path, State};
use axum::response::Response;
use http::{Request, StatusCode};
use uuid::Uuid;

use super::problem::Problem;
use super::query::{self, Query};
use super::{Listed, json, path_id, request};
use crate::command::{BadBody, Order, body};
use crate::context::Context;
use crate::ledger::recorded;

/// `POST /v1/payments`. A decline is an outcome as well.
pub async fn create(
    State(context): State<Arc<Context>>,
    request: Request<Body>,
) -> Result<Response, Problem> {
    let asked = request::command(request).await?;
    let entry = context
        .execute(&asked.received, asked.key, body::pay(&asked.body)?)
        .await?;
    let payment = recorded::payment(&entry).ok_or_else(|| Problem::misrecorded(&entry))?;
    Ok(json(StatusCode::CREATED, &payment))
}

/// `GET /v1/payments/{id}`.
pub async fn get(
    State(context): State<Arc<Context>>,
    Path(id): Path<String>,
    request: Request<Body>,
) -> Result<Response, Problem> {
    Query::parse(request.uri().query(), &[])?;
    let read = context.ledger.payment(path_id(&id)?);
    let payment = context.read(read).await?.ok_or(Problem::NotFound)?;
    Ok(json(StatusCode::OK, &payment))
}

/// `GET /v1/payments`.
pub async fn list(State(context): State<Arc<Context>>, request: Request<Body>) -> Result<Response, Problem> {
    let query = Query::parse(request.uri().query(), &query::PAYMENTS)?;
    let (part, filter) = (query.part(query::read_entry_cursor)?, query.filter()?);
    let read = context.ledger.payments(&filter, part.after, part.limit);
    let page = context.read(read).await?;
    Ok(json(StatusCode::OK, &Listed::of(page, query::entry_cursor)))
}

/// `POST /v1/payments/{id}/capture`.
pub async fn capture(
    state: State<Arc<Context>>,
    path: Path<String>,
    request: Request<Body>,
) -> Result<Response, Problem> {
    change(state, path, request, body::capture).await
}

/// `POST /v1/payments/{id}/void`.
pub async fn void(
    state: State<Arc<Context>>,
    path: Path<String>,
    request: Request<Body>,
) -> Result<Response, Problem> {
    change(state, path, request, |payment, body| {
        body::nothing(Order::Void { payment }, body)
    })
    .await
}

/// A command on a payment, which answers with what it leaves of it.
async fn change(
    State(context): State<Arc<Context>>,
    Path(id): Path<String>,
    request: Request<Body>,
    read: impl FnOnce(Uuid, &[u8]) -> Result<Order, BadBody>,
) -> Result<Response, Problem> {
    let id = path_id(&id)?;
    let asked = request::command(request).await?;
    let entry = context
        .execute(&asked.received, asked.key, read(id, &asked.body)?)
        .await?;
    let payment = recorded::payment(&entry).ok_or_else(|| Problem::misrecorded(&entry))?;
    Ok(json(StatusCode::OK, &payment))
}

/// `POST /v1/payments/{id}/refunds`. A decline is an outcome as well.
pub async fn refund(
    State(context): State<Arc<Context>>,
    Path(id): Path<String>,
    request: Request<Body>,
) -> Result<Response, Problem> {
    let id = path_id(&id)?;
    let asked = request::command(request).await?;
    let entry = context
        .execute(&asked.received, asked.key, body::refund(id, &asked.body)?)
        .await?;
    let refund = recorded::refund(&entry, entry.id.epoch).ok_or_else(|| Problem::misrecorded(&entry))?;
    Ok(json(StatusCode::CREATED, &refund))
}

/// `GET /v1/payments/{id}/refunds`.
pub async fn refunds(
    State(context): State<Arc<Context>>,
    Path(id): Path<String>,
    request: Request<Body>,
) -> Result<Response, Problem> {
    let part = Query::parse(request.uri().query(), &query::PART)?.part(query::read_entry_cursor)?;
    let read = context.ledger.refunds(path_id(&id)?, part.after, part.limit);
    let page = context.read(read).await?.ok_or(Problem::NotFound)?;
    Ok(json(StatusCode::OK, &Listed::of(page, query::entry_cursor)))
}
