//! `/v1/accounts`.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Path, State};
use axum::response::Response;
use continuity::entry::LedgerEntry;
use http::header::CACHE_CONTROL;
use http::{HeaderValue, Request, StatusCode};

use super::problem::Problem;
use super::query::{self, Query};
use super::{Listed, json, path_id, request};
use crate::command::{Order, body};
use crate::context::Context;
use crate::ledger::{Account, recorded};
use crate::statement;

/// `POST /v1/accounts`.
pub async fn open(State(context): State<Arc<Context>>, request: Request<Body>) -> Result<Response, Problem> {
    let asked = request::command(request).await?;
    let entry = context
        .execute(&asked.received, asked.key, body::open_account(&asked.body)?)
        .await?;
    Ok(json(StatusCode::CREATED, &account(&entry)?))
}

/// `GET /v1/accounts`.
pub async fn list(State(context): State<Arc<Context>>, request: Request<Body>) -> Result<Response, Problem> {
    let part = Query::parse(request.uri().query(), &query::PART)?.part(query::read_account_cursor)?;
    let read = context.ledger.accounts(part.after, part.limit);
    let page = context.read(read).await?;
    Ok(json(StatusCode::OK, &Listed::of(page, query::account_cursor)))
}

/// `GET /v1/accounts/{id}`.
pub async fn get(
    State(context): State<Arc<Context>>,
    Path(id): Path<String>,
    request: Request<Body>,
) -> Result<Response, Problem> {
    Query::parse(request.uri().query(), &[])?;
    let read = context.ledger.account(path_id(&id)?);
    let account = context.read(read).await?.ok_or(Problem::NotFound)?;
    Ok(json(StatusCode::OK, &account))
}

/// `GET /v1/accounts/{id}/entries`.
pub async fn entries(
    State(context): State<Arc<Context>>,
    Path(id): Path<String>,
    request: Request<Body>,
) -> Result<Response, Problem> {
    let part = Query::parse(request.uri().query(), &query::PART)?.part(query::read_entry_cursor)?;
    let read = context
        .ledger
        .account_entries(path_id(&id)?, part.after, part.limit);
    let page = context.read(read).await?.ok_or(Problem::NotFound)?;
    Ok(json(StatusCode::OK, &Listed::of(page, query::entry_cursor)))
}

/// `GET /v1/accounts/{id}/statement`. The answer holds a link that needs no key: nobody on its way may keep it.
pub async fn statement(
    State(context): State<Arc<Context>>,
    Path(id): Path<String>,
    request: Request<Body>,
) -> Result<Response, Problem> {
    let (period, format) = Query::parse(request.uri().query(), &query::STATEMENT)?.statement()?;
    let written = statement::write(&context, path_id(&id)?, period, format).await?;
    let mut response = json(StatusCode::OK, &written);
    let headers = response.headers_mut();
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    Ok(response)
}

/// `POST /v1/accounts/{id}/close`.
pub async fn close(
    State(context): State<Arc<Context>>,
    Path(id): Path<String>,
    request: Request<Body>,
) -> Result<Response, Problem> {
    let account_id = path_id(&id)?;
    let asked = request::command(request).await?;
    let order = body::nothing(Order::CloseAccount { account: account_id }, &asked.body)?;
    let entry = context.execute(&asked.received, asked.key, order).await?;
    Ok(json(StatusCode::OK, &account(&entry)?))
}

fn account(entry: &LedgerEntry) -> Result<Account, Problem> {
    recorded::account(entry).ok_or_else(|| Problem::misrecorded(entry))
}
