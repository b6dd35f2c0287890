//! The payments API over HTTP. Checks come in one order everywhere: route and method, API key and scope, the parts of the
//! request, whether this region serves, the ledger. The first that fails gives the answer.

pub mod accounts;
pub mod auth;
pub mod health;
pub mod page;
pub mod payments;
pub mod problem;
mod request;

use std::sync::Arc;

use axum::Router;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use http::StatusCode;
use serde::Serialize;

use crate::context::Context;
use problem::Problem;

/// Every route.
pub fn router(context: Arc<Context>) -> Router {
    Router::new()
        .route("/health", get(health::get))
        .route("/v1/accounts", post(accounts::open))
        .route("/v1/accounts/{id}", get(accounts::get))
        .route("/v1/accounts/{id}/entries", get(accounts::entries))
        .route("/v1/payments", post(payments::create).get(payments::list))
        .route("/v1/payments/{id}", get(payments::get))
        .fallback(async || Problem::NotFound)
        .method_not_allowed_fallback(async || Problem::MethodNotAllowed)
        .with_state(context)
}

/// A JSON answer.
fn json(status: StatusCode, body: &impl Serialize) -> Response {
    let body = serde_json::to_vec(body).expect("an answer serialises");
    (status, [(http::header::CONTENT_TYPE, "application/json")], body).into_response()
}
