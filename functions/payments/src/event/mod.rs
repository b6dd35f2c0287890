//! The Lambda side: an event with `task` is a task of a workflow, every other event a request that API Gateway proxies.

mod proxy;

use std::sync::Arc;

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::response::{IntoResponse, Response};
use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use http::Request;
use serde::Serialize;
use serde_json::Value;
use tower::ServiceExt;

use crate::api::problem::{Problem, Slug};
use crate::api::{self, Route};
use crate::context::Context;
use crate::tasks::{self, TaskError};
use crate::telemetry::{Received, Told};
use crate::trace::{self, Sampled};
pub use proxy::{Answer, Headers};
use proxy::{Lists, Proxied};

/// What an invocation comes to.
#[derive(Debug, Serialize)]
#[serde(untagged)]
pub enum Handled {
    /// The answer of a task.
    Task(Value),
    /// The response to a request.
    Response(Answer),
}

/// The function: a context and the router over it.
pub struct Service {
    context: Arc<Context>,
    router: Router,
}

impl Service {
    /// The function over a context.
    pub fn new(context: Arc<Context>) -> Self {
        Service {
            router: api::router(context.clone()),
            context,
        }
    }

    /// Handles one invocation, from the JSON of its event and its trace header, if it has one.
    ///
    /// # Errors
    /// [`TaskError`] from a task. A request never fails the invocation: whatever is wrong becomes a response.
    pub async fn handle(&self, event: &str, trace: Option<&str>) -> Result<Handled, TaskError> {
        let unreadable = |error: serde_json::Error| TaskError::InvalidEvent(error.to_string());
        // Read once as what it nearly always is.
        if let Ok(event) = serde_json::from_str::<Proxied>(event) {
            return Ok(Handled::Response(self.respond(event, trace).await));
        }
        let task = serde_json::from_str(event).map_err(unreadable)?;
        Ok(Handled::Task(tasks::run(&self.context, task).await?))
    }

    async fn respond(&self, mut event: Proxied<'_>, trace: Option<&str>) -> Answer {
        let request_id = event.request_context.request_id.take();
        let received = Received::now(request_id.unwrap_or_else(|| (self.context.ids)().to_string()));
        let method = event.http_method.clone();
        let response = match request(event) {
            Ok(mut request) => {
                request.extensions_mut().insert(received.clone());
                self.router
                    .clone()
                    .oneshot(request)
                    .await
                    .unwrap_or_else(|never| match never {})
            }
            Err(problem) => problem.into_response(),
        };
        let told = Told {
            stack: &self.context.stack,
            region: &self.context.region,
            request_id: received.request_id(),
            method: &method,
            route: response
                .extensions()
                .get::<Route>()
                .map_or("none", |route| route.0.as_str()),
            status: response.status().as_u16(),
            problem: response.extensions().get::<Slug>().map(|slug| slug.0),
            acknowledged: received.outcome(),
            took: received.at().elapsed(),
        };
        let now_ms = (self.context.clock)();
        (self.context.tell)(&told, now_ms);
        if let Some(daemon) = &self.context.daemon
            && let Some(sampled) = trace.and_then(Sampled::read)
        {
            let (_, id) = (self.context.ids)().as_u64_pair();
            daemon.send(&trace::document(&sampled, &told, id, now_ms));
        }
        answer(response).await
    }
}

/// The HTTP request in an event. Its path is without the stage, its query decoded.
fn request(event: Proxied<'_>) -> Result<Request<Body>, Problem> {
    let mut target = encode(&event.path, true);
    let Lists(query) = event.multi_value_query_string_parameters.unwrap_or_default();
    for (number, (name, value)) in query.iter().enumerate() {
        target.push(if number == 0 { '?' } else { '&' });
        target.push_str(&format!("{}={}", encode(name, false), encode(value, false)));
    }
    let body = match (event.body, event.is_base64_encoded) {
        (None, _) => Vec::new(),
        // What is no Base64 is no JSON either, which is said of it later.
        (Some(text), true) => BASE64.decode(&text).unwrap_or(text.into_bytes()),
        (Some(text), false) => text.into_bytes(),
    };
    let mut request = Request::builder()
        .method(event.http_method)
        .uri(target)
        .body(Body::from(body))
        .map_err(|_| Problem::NotFound)?;
    let Headers(headers) = event.multi_value_headers.unwrap_or_default();
    *request.headers_mut() = headers;
    Ok(request)
}

/// Percent-encodes what may not stand in a path (slashes stay) or in a query.
fn encode(text: &str, path: bool) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                encoded.push(char::from(byte))
            }
            b'/' if path => encoded.push('/'),
            _ => encoded.push_str(&format!("%{byte:02X}")),
        }
    }
    encoded
}

async fn answer(response: Response) -> Answer {
    let (parts, body) = response.into_parts();
    // Our own bodies are in memory: reading them cannot fail, and they are text.
    let body = to_bytes(body, usize::MAX).await.unwrap_or_default();
    Answer {
        status_code: parts.status.as_u16(),
        multi_value_headers: Headers(parts.headers),
        body: String::from_utf8_lossy(&body).into_owned(),
        is_base64_encoded: false,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use serde_json::json;

    fn event(overrides: Value) -> String {
        let mut event = json!({
            "resource": "/{proxy+}", "path": "/v1/payments", "httpMethod": "GET", "headers": null,
            "multiValueHeaders": null, "queryStringParameters": null, "multiValueQueryStringParameters": null,
            "pathParameters": null, "stageVariables": null, "body": null, "isBase64Encoded": false,
            "requestContext": { "stage": "live", "path": "/live/v1/payments", "httpMethod": "GET" }
        });
        event
            .as_object_mut()
            .unwrap()
            .extend(overrides.as_object().unwrap().clone());
        event.to_string()
    }

    fn request_of(overrides: Value) -> Request<Body> {
        request(serde_json::from_str(&event(overrides)).unwrap()).unwrap()
    }

    #[tokio::test]
    async fn a_proxy_event_becomes_the_request_that_the_client_sent() {
        let request = request_of(json!({
            "path": "/v1/accounts/a b%/entries", "httpMethod": "POST",
            "multiValueQueryStringParameters": { "limit": ["5"], "cursor": ["1.2&x=3"] },
            "multiValueHeaders": { "Idempotency-Key": ["one", "two"] },
            "headers": { "Idempotency-Key": "two" },
            "body": "eyJ9", "isBase64Encoded": true
        }));
        assert_eq!(request.method(), "POST");
        assert_eq!(request.uri().path(), "/v1/accounts/a%20b%25/entries");
        let query = request.uri().query().unwrap();
        assert!(
            query.contains("limit=5") && query.contains("cursor=1.2%26x%3D3"),
            "{query}"
        );
        assert_eq!(request.headers().get_all("idempotency-key").iter().count(), 2);
        assert_eq!(to_bytes(request.into_body(), 100).await.unwrap(), "{\"}");
    }

    #[tokio::test]
    async fn a_response_keeps_status_headers_and_text() {
        let answer = answer(Problem::NotFound.into_response()).await;
        assert_eq!(
            serde_json::to_value(&answer).unwrap(),
            json!({
                "statusCode": 404, "isBase64Encoded": false, "body": answer.body,
                "multiValueHeaders": { "content-type": ["application/problem+json"] }
            })
        );
    }

    #[test]
    fn nothing_is_there_of_what_the_event_has_not_and_what_http_does_not_allow_is_left_out() {
        let request = request_of(json!({
            "multiValueHeaders": { "a": ["1", "\n", "\u{e9}"], "no name": ["2"], "b": null }
        }));
        let headers: Vec<_> = request
            .headers()
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_bytes()))
            .collect();
        assert_eq!(headers, [("a", &b"1"[..]), ("a", "\u{e9}".as_bytes())]);
        assert_eq!(request.uri().query(), None);
    }

    #[test]
    fn what_has_no_stage_is_no_request() {
        let event = event(json!({ "requestContext": { "httpMethod": "GET" } }));
        assert!(serde_json::from_str::<Proxied>(&event).is_err());
    }
}
