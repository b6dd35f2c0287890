//! `/v1/accounts`.

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
use crate::command::{self, AccountDetails};
use crate::context::Context;
use crate::ledger::Account;

/// `POST /v1/accounts`.
pub async fn open(State(context): State<Arc<Context>>, request: Request<Body>) -> Result<Response, Problem> {
    auth::check(&context, request.headers(), auth::WRITE).await?;
    let (key, body) = request::command(request).await?;
    let entry = context.execute(key, command::open_account(&body)?).await?;
    Ok(json(StatusCode::CREATED, &recorded(&entry)?))
}

/// `GET /v1/accounts/{id}`.
pub async fn get(
    State(context): State<Arc<Context>>,
    Path(id): Path<String>,
    request: Request<Body>,
) -> Result<Response, Problem> {
    auth::check(&context, request.headers(), auth::READ).await?;
    let id = command::account_id(&id).ok_or(Problem::NotFound)?;
    let account = context
        .read(context.ledger.account(id))
        .await?
        .ok_or(Problem::NotFound)?;
    Ok(json(StatusCode::OK, &account))
}

/// `GET /v1/accounts/{id}/entries`.
pub async fn entries(
    State(context): State<Arc<Context>>,
    Path(id): Path<String>,
    request: Request<Body>,
) -> Result<Response, Problem> {
    auth::check(&context, request.headers(), auth::READ).await?;
    let id = command::account_id(&id).ok_or(Problem::NotFound)?;
    let page = Page::from_query(request.uri().query())?;
    let read = context.ledger.account_entries(id, page.before, page.fetch());
    let entries = context.read(read).await?.ok_or(Problem::NotFound)?;
    let listed = page.cut(entries, |entry| EntryId {
        epoch: entry.epoch,
        seq: entry.seq,
    });
    Ok(json(StatusCode::OK, &listed))
}

/// The account as its opening was recorded: the same answer for every retry, in every region.
fn recorded(entry: &LedgerEntry) -> Result<Account, Problem> {
    let read = |entry: &LedgerEntry| -> Option<Account> {
        let details: AccountDetails = serde_json::from_value(entry.details.clone()).ok()?;
        Some(Account {
            id: Uuid::try_parse(&entry.subject).ok()?,
            currency: details.currency,
            balance_minor: 0,
            limit_minor: details.limit_minor,
            name: details.name,
            epoch: Some(entry.id.epoch),
            seq: Some(entry.id.seq),
            posted_epoch: Some(entry.id.epoch),
            created_at_ms: Some(entry.created_at_ms),
        })
    };
    read(entry).ok_or_else(|| Problem::Internal {
        cause: format!("entry {:?} is no account", entry.id),
    })
}
