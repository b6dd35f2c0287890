//! AWS API calls: plain HTTP, path style. Where a call goes is in its signature; whether it gets there is for
//! [`verdict`](super::verdict()) to say; what the emulator answers is completed by the bridges.

use std::{net::SocketAddr, sync::Arc, time::Instant};

use bytes::Bytes;
use http::{
    HeaderName, HeaderValue, Method, Request, Response, StatusCode,
    header::{AUTHORIZATION, CONTENT_LENGTH},
    request::Parts,
    uri::PathAndQuery,
};
use http_body_util::{BodyExt, Collected};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpStream};

use super::{
    Call, Needs, Shared, Verdict,
    bridges::{aurora, fis, global_tables::GlobalTables, health_checks, rds_endpoints, snapshots},
    connect,
    forward::{self, Body, Unanswered},
    net::{Severed, severed_call},
    operation::{self, Scope},
    percent,
    record::Outcome,
    strike::Ends,
    verdict,
};
use crate::local::Region;

const FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");

/// Answers at the listener for those in `source`, `None` for the outside.
pub(super) fn serve(shared: &Arc<Shared>, listener: TcpListener, source: Option<Region>) {
    let connections = shared.clone();
    shared.tasks.accept(listener, move |stream, peer| {
        connection(connections.clone(), stream, peer, source)
    });
}

async fn connection(shared: Arc<Shared>, stream: TcpStream, peer: SocketAddr, source: Option<Region>) {
    let Ok(here) = stream.local_addr() else { return };
    let ends = Ends { peer, here };
    let service = service_fn(move |request| {
        let shared = shared.clone();
        async move {
            if request.method() == Method::CONNECT {
                connect::open(&shared, source, request).await
            } else {
                call(&shared, source, ends, request).await
            }
        }
    });
    let served = http1::Builder::new()
        .serve_connection(TokioIo::new(stream), service)
        .with_upgrades()
        .await;
    if let Err(error) = served {
        tracing::debug!(%error, "a connection to the API listener ended");
    }
}

async fn call(
    shared: &Arc<Shared>,
    source: Option<Region>,
    ends: Ends,
    request: Request<Incoming>,
) -> Result<Response<Body>, Severed> {
    let started = Instant::now();
    let (mut parts, body) = request.into_parts();
    let Some(scope) = operation::scope(&parts.headers, parts.uri.query()) else {
        return Ok(forward::error(
            StatusCode::FORBIDDEN,
            "MissingAuthenticationTokenException",
            "Missing Authentication Token",
        ));
    };
    if is_internal(parts.uri.path(), &scope.service) {
        return Ok(forward::error(
            StatusCode::NOT_FOUND,
            "UnknownOperationException",
            "no such path",
        ));
    }
    let body = if is_read(&parts, &scope) {
        match forward::read(body).await {
            Ok(bytes) => Payload::Read(bytes),
            Err(error) => {
                let message = format!("the request cannot be read: {error}");
                return Ok(forward::error(
                    StatusCode::BAD_REQUEST,
                    "SerializationException",
                    &message,
                ));
            }
        }
    } else {
        Payload::Stream(body)
    };
    let operation = operation::name(&parts, body.bytes().map(|bytes| &bytes[..]));
    let call =
        Call::new(source, &scope.region, &scope.service, &operation).by(operation::caller(&parts.headers));
    // AWS endpoints speak TLS only, and policies ask whether the caller did (`aws:SecureTransport`). This listener is where
    // callers meet AWS here; that the last step to the emulator is plain HTTP is nothing they chose.
    parts
        .headers
        .insert(FORWARDED_PROTO, HeaderValue::from_static("https"));
    let target = scope.region.parse::<Region>().ok();
    let exchange = Exchange {
        source,
        target,
        scope,
        operation,
        parts,
        body,
    };
    // To its end, even if the caller goes away, so that the call is recorded.
    let work = tokio::spawn(answered(shared.clone(), call, ends, started, exchange));
    work.await.unwrap_or_else(|_| Ok(internal_failure()))
}

/// Lets the call through, or not; deals the blow that it meets; records it.
async fn answered(
    shared: Arc<Shared>,
    call: Call,
    ends: Ends,
    started: Instant,
    exchange: Exchange,
) -> Result<Response<Body>, Severed> {
    let blow = shared.strikes.meets(&call);
    let (source, target) = (exchange.source, exchange.target);
    let faults = shared.network.now().for_calls_of(&exchange.scope.service);
    let needs = match exchange.body.bytes() {
        Some(bytes) if exchange.scope.service == "dynamodb" && faults.is_any_replica_cut() => {
            shared.global_tables.needs(&exchange.operation, bytes)
        }
        _ => Needs::Nothing,
    };
    let answer = match verdict(&faults, source, target, needs) {
        Verdict::Refuse => Err(Severed),
        Verdict::NoQuorum => Ok(forward::error(
            StatusCode::INTERNAL_SERVER_ERROR,
            "com.amazonaws.dynamodb.v20120810#InternalServerError",
            "The request could not be completed because too few regions answer.",
        )),
        Verdict::Pass => {
            // To its end, whatever becomes of the caller: a call that reached AWS takes effect, the bridges must learn what it
            // did, and the database servers must not stop half way between two roles. A body that breaks off ends it.
            let service = exchange.scope.service.clone();
            let work = tokio::spawn(exchanged(shared.clone(), exchange));
            tokio::select! {
                biased;
                () = severed_call(shared.network.subscribe(), service, source, target) => Err(Severed),
                answer = work => Ok(answer.unwrap_or_else(|_| internal_failure())),
            }
        }
    };
    let answer = match blow {
        // The call took effect; nobody will ever hear of it.
        Some(blow) if answer.is_ok() => {
            blow.fall(ends).await;
            Err(Severed)
        }
        _ => answer,
    };
    let outcome = match &answer {
        Ok(response) => Outcome::Answered(response.status().as_u16()),
        Err(Severed) => Outcome::Refused,
    };
    shared.recorder.record(call, started, outcome);
    answer
}

/// Paths of the emulator that AWS does not have: its own interface, and doors to APIs that lead around the front doors.
/// The keys of a bucket may have any name.
fn is_internal(path: &str, service: &str) -> bool {
    let path = percent::decode(path);
    let first = path.split('/').nth(1).unwrap_or_default();
    match first {
        "_ministack" | "_localstack" | "_aws" => true,
        "restapis" => service != "s3" && path.split('/').nth(4) == Some("_user_request_"),
        _ => false,
    }
}

/// Whether the call's body is read into memory: where the operation or what a bridge must know is in it.
fn is_read(parts: &Parts, scope: &Scope) -> bool {
    matches!(scope.service.as_str(), "dynamodb" | "rds" | "fis") || operation::is_in_body(&parts.headers)
}

enum Payload {
    Read(Bytes),
    Stream(Incoming),
}

impl Payload {
    fn bytes(&self) -> Option<&Bytes> {
        match self {
            Payload::Read(bytes) => Some(bytes),
            Payload::Stream(_) => None,
        }
    }
}

struct Exchange {
    source: Option<Region>,
    target: Option<Region>,
    scope: Scope,
    operation: String,
    parts: Parts,
    body: Payload,
}

/// Passes the call to the emulator, and its answer through the bridges.
async fn exchanged(shared: Arc<Shared>, exchange: Exchange) -> Response<Body> {
    let Exchange {
        source,
        target,
        scope,
        operation,
        parts,
        body,
    } = exchange;
    let path = parts
        .uri
        .path_and_query()
        .cloned()
        .unwrap_or_else(|| PathAndQuery::from_static("/"));
    let writes = parts.method != Method::GET;
    let result = match (scope.service.as_str(), target, body) {
        ("rds", Some(region), Payload::Read(form)) => rds(&shared, region, parts, path, form).await,
        ("fis", Some(region), Payload::Read(body)) => Ok(fis::answer(&shared, region, &parts, &body)),
        ("dynamodb", _, Payload::Read(request)) if GlobalTables::concerns(&operation) => {
            global_table(&shared, &operation, parts, path, request).await
        }
        (_, _, body) => {
            let body = match body {
                Payload::Read(bytes) => forward::full(bytes),
                Payload::Stream(body) => forward::streamed(body),
            };
            shared.emulator.send(parts, path, body).await.map(|response| {
                let guard = severed_call(shared.network.subscribe(), scope.service.clone(), source, target);
                response.map(|body| forward::guarded(body, guard))
            })
        }
    };
    let response = result.unwrap_or_else(|error| unavailable(&error));
    if scope.service != "route53" || !response.status().is_success() {
        return response;
    }
    if writes {
        // Before the answer goes back, so that who changed a record finds it changed.
        shared.dns.refresh().await;
    }
    let (head, body) = response.into_parts();
    let Ok(answer) = body.collect().await.map(Collected::to_bytes) else {
        return internal_failure();
    };
    let rewritten = health_checks::rewrite(&answer);
    forward::with_body(head, rewritten.map_or(answer, Bytes::from))
}

async fn global_table(
    shared: &Shared,
    operation: &str,
    parts: Parts,
    path: PathAndQuery,
    request: Bytes,
) -> Result<Response<Body>, Unanswered> {
    let response = shared
        .emulator
        .send(parts, path, forward::full(request.clone()))
        .await?;
    let (head, body) = response.into_parts();
    let Ok(answer) = forward::read(body).await else {
        return Ok(internal_failure());
    };
    if !head.status.is_success() {
        return Ok(forward::with_body(head, answer));
    }
    let completed = shared.global_tables.answered(operation, &request, &answer);
    Ok(forward::with_body(head, completed.map_or(answer, Bytes::from)))
}

async fn rds(
    shared: &Shared,
    region: Region,
    parts: Parts,
    path: PathAndQuery,
    form: Bytes,
) -> Result<Response<Body>, Unanswered> {
    let text = String::from_utf8_lossy(&form).into_owned();
    // One change of the servers at a time. Reads need not wait.
    let action = percent::value(&text, "Action");
    if action.as_deref().is_some_and(snapshots::concerns) {
        show_kept(shared, region, &parts, &path).await?;
    }
    let _changing = match action {
        Some(action) if action.starts_with("Describe") || action.starts_with("List") => None,
        _ => Some(shared.changing_servers.lock().await),
    };
    let response = shared
        .emulator
        .send(parts.clone(), path.clone(), forward::full(form))
        .await?;
    let (head, body) = response.into_parts();
    let Ok(answer) = forward::read(body).await else {
        return Ok(internal_failure());
    };
    if !head.status.is_success() {
        return Ok(forward::with_body(head, answer));
    }
    let said = String::from_utf8_lossy(&answer);
    let followed = match shared.snapshots.follow(shared, region, &text).await {
        Ok(true) => Ok(()),
        Ok(false) => match aurora::change(region, &text, &said) {
            Some(change) => aurora::apply(&*shared.mirror, change).await,
            None => Ok(()),
        },
        Err(error) => Err(error),
    };
    if let Err(error) = followed {
        tracing::error!(%region, error = %error, "the database servers did not follow an RDS call");
        take_back(shared, &parts, &path, aurora::undo(&text, &said)).await?;
        let (status, text) = aurora::error(&error);
        return Ok(forward::answer(status, "text/xml", text));
    }
    let rewritten = shared.databases.get(&region).and_then(|&database| {
        let address = |cluster: &str| shared.snapshots.address(region, cluster).unwrap_or(database);
        rds_endpoints::rewrite(&answer, address)
    });
    Ok(forward::with_body(head, rewritten.map_or(answer, Bytes::from)))
}

/// Makes the records of what the mirror has kept since the last look.
async fn show_kept(
    shared: &Shared,
    region: Region,
    caller: &Parts,
    path: &PathAndQuery,
) -> Result<(), Unanswered> {
    if !Region::DATABASES.contains(&region) {
        return Ok(());
    }
    let _showing = shared.snapshots.showing.lock().await;
    for at_ms in shared.snapshots.to_show(region, shared.mirror.kept(region)) {
        let mut parts = caller.clone();
        parts.headers.remove(CONTENT_LENGTH);
        as_root(&mut parts);
        let form = snapshots::record(at_ms);
        let response = shared
            .emulator
            .send(parts, path.clone(), forward::full(form))
            .await?;
        if let Ok(answer) = forward::read(response.into_body()).await {
            let answer = String::from_utf8_lossy(&answer);
            shared.snapshots.shown(region, at_ms, &answer);
        }
    }
    Ok(())
}

/// Calls the emulator in the name of whoever made the call that is taken back, but not with that caller's rights: AWS does
/// half of no call, so nobody needs to be allowed to take one back.
async fn take_back(
    shared: &Shared,
    caller: &Parts,
    path: &PathAndQuery,
    calls: Vec<String>,
) -> Result<(), Unanswered> {
    for form in calls {
        let mut parts = caller.clone();
        parts.headers.remove(CONTENT_LENGTH);
        as_root(&mut parts);
        let response = shared
            .emulator
            .send(parts, path.clone(), forward::full(form))
            .await?;
        if !response.status().is_success() {
            tracing::error!(status = %response.status(), "an RDS call could not be taken back");
        }
    }
    Ok(())
}

/// Signs for the account itself, whose signature the emulator does not check.
fn as_root(parts: &mut Parts) {
    let Some(scope) = operation::scope(&parts.headers, None) else {
        return;
    };
    let signature = format!(
        "AWS4-HMAC-SHA256 Credential=test/20260101/{}/{}/aws4_request, SignedHeaders=host, Signature=0",
        scope.region, scope.service
    );
    if let Ok(signature) = HeaderValue::from_str(&signature) {
        parts.headers.insert(AUTHORIZATION, signature);
        parts.headers.remove("x-amz-security-token");
    }
}

fn unavailable(error: &Unanswered) -> Response<Body> {
    tracing::warn!(error = ?error, "the emulator does not answer");
    forward::error(
        StatusCode::SERVICE_UNAVAILABLE,
        "ServiceUnavailable",
        "the service does not answer",
    )
}

fn internal_failure() -> Response<Body> {
    forward::error(
        StatusCode::INTERNAL_SERVER_ERROR,
        "InternalFailure",
        "the answer cannot be read",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_emulators_own_paths_are_closed() {
        let cases = [
            ("/_ministack/reset", "s3", true),
            ("/%5Fministack/reset", "s3", true),
            ("/_localstack/health", "lambda", true),
            ("/_aws/execute-api/id/live/x", "apigateway", true),
            ("/restapis/id/live/_user_request_/health", "apigateway", true),
            ("/restapis/id/stages", "apigateway", false),
            ("/restapis/a/b/_user_request_/key", "s3", false),
            ("/bucket/_ministack/reset", "s3", false),
            ("/", "dynamodb", false),
        ];
        for (path, service, internal) in cases {
            assert_eq!(is_internal(path, service), internal, "{path} {service}");
        }
    }
}
