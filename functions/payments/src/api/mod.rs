//! The payments API over HTTP. Checks come in one order everywhere: route and method, API key and scope, the key's rate, the
//! parts of the request, whether this region serves, the ledger. The first that fails gives the answer.

pub mod accounts;
pub mod auth;
pub mod health;
pub mod payments;
pub mod problem;
pub mod query;
mod request;

use std::sync::Arc;

use axum::Router;
use axum::extract::{MatchedPath, Request, State};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodRouter, get, post};
use http::StatusCode;
use serde::Serialize;
use uuid::Uuid;

use crate::command::body;
use crate::context::Context;
use crate::ledger::Page;
use problem::Problem;

/// Every path of the contract.
pub const PATHS: [&str; 11] = [
    "/health",
    "/v1/accounts",
    "/v1/accounts/{id}",
    "/v1/accounts/{id}/entries",
    "/v1/accounts/{id}/statement",
    "/v1/accounts/{id}/close",
    "/v1/payments",
    "/v1/payments/{id}",
    "/v1/payments/{id}/capture",
    "/v1/payments/{id}/void",
    "/v1/payments/{id}/refunds",
];

/// The one that needs no API key.
const OPEN: &str = "/health";

/// What a path of [`PATHS`] takes.
fn methods(path: &str) -> MethodRouter<Arc<Context>> {
    match path {
        "/health" => get(health::get),
        "/v1/accounts" => post(accounts::open).get(accounts::list),
        "/v1/accounts/{id}" => get(accounts::get),
        "/v1/accounts/{id}/entries" => get(accounts::entries),
        "/v1/accounts/{id}/statement" => get(accounts::statement),
        "/v1/accounts/{id}/close" => post(accounts::close),
        "/v1/payments" => post(payments::create).get(payments::list),
        "/v1/payments/{id}" => get(payments::get),
        "/v1/payments/{id}/capture" => post(payments::capture),
        "/v1/payments/{id}/void" => post(payments::void),
        "/v1/payments/{id}/refunds" => post(payments::refund).get(payments::refunds),
        other => unreachable!("`{other}` is no path of the contract"),
    }
}

/// Every route.
pub fn router(context: Arc<Context>) -> Router {
    // Only where the path takes the method: what it does not take is told to anybody.
    let enter = from_fn_with_state(context.clone(), enter);
    let route = |path| methods(path).route_layer(enter.clone());
    PATHS
        .into_iter()
        .fold(Router::new(), |router, path| router.route(path, route(path)))
        .fallback(async || Problem::NotFound)
        .method_not_allowed_fallback(async |path| noted(path, Problem::MethodNotAllowed))
        .with_state(context)
}

/// The route that took a request, for the log.
#[derive(Debug, Clone)]
pub struct Route(pub MatchedPath);

fn noted(path: MatchedPath, response: impl IntoResponse) -> Response {
    let mut response = response.into_response();
    response.extensions_mut().insert(Route(path));
    response
}

async fn enter(
    State(context): State<Arc<Context>>,
    path: MatchedPath,
    request: Request,
    next: Next,
) -> Response {
    let response = match path.as_str() {
        OPEN => Ok(next.run(request).await),
        _ => auth::guard(&context, request, next).await,
    };
    noted(path, response)
}

/// A part of a list, as it is answered.
#[derive(Debug, Serialize)]
struct Listed<T> {
    data: Vec<T>,
    next_cursor: Option<String>,
}

impl<T> Listed<T> {
    fn of<C>(page: Page<T, C>, cursor: impl FnOnce(C) -> String) -> Self {
        Listed {
            data: page.items,
            next_cursor: page.next.map(cursor),
        }
    }
}

/// The id of an account or payment in a path. Anything else is not found.
fn path_id(text: &str) -> Result<Uuid, Problem> {
    body::id(text).ok_or(Problem::NotFound)
}

/// A JSON answer.
fn json(status: StatusCode, body: &impl Serialize) -> Response {
    let body = serde_json::to_vec(body).expect("an answer serialises");
    (status, [(http::header::CONTENT_TYPE, "application/json")], body).into_response()
}
