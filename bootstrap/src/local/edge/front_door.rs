//! A region's front door: HTTPS for its REST APIs, by the API's own host name or by a public name that leads to it.

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use http::{
    HeaderValue, Method, Request, Response, StatusCode,
    header::{AUTHORIZATION, HOST},
    uri::PathAndQuery,
};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream},
};
use tokio_rustls::TlsAcceptor;

use super::{
    Shared,
    forward::{self, Body, BoxError, Emulator, Unanswered},
    net::{refuse, severed},
};
use crate::local::{Region, dns::ExecuteApi};

/// How long a client may take for its side of the TLS handshake.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// How long the stages of an API are believed. An API that is gone is refused by the emulator itself.
const STAGES_TTL: Duration = Duration::from_secs(1);

/// Answers at the front door of a region. Who comes here directly comes from outside.
pub(super) fn serve(shared: &Arc<Shared>, listener: TcpListener, region: Region) {
    let connections = shared.clone();
    shared.tasks.accept(listener, move |stream, peer| {
        enter(connections.clone(), stream, peer.ip(), region)
    });
}

async fn enter(shared: Arc<Shared>, stream: TcpStream, peer: IpAddr, region: Region) {
    if shared.network.now().is_cut(region) {
        return refuse(stream);
    }
    talk(&shared, stream, peer, None, region).await;
}

/// Speaks HTTPS over an open connection of someone in `source`, until either side ends it or the border closes.
pub(super) async fn talk(
    shared: &Arc<Shared>,
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    peer: IpAddr,
    source: Option<Region>,
    region: Region,
) {
    let ended = tokio::select! {
        () = severed(shared.network.subscribe(), source, Some(region)) => Ok(()),
        ended = https(shared, stream, peer, region) => ended,
    };
    if let Err(error) = ended {
        tracing::debug!(%region, %error, "a connection to the front door ended");
    }
}

async fn https(
    shared: &Arc<Shared>,
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    peer: IpAddr,
    region: Region,
) -> Result<(), BoxError> {
    let tls = TlsAcceptor::from(shared.front_door_tls[&region].clone());
    let stream = tokio::time::timeout(HANDSHAKE_TIMEOUT, tls.accept(stream)).await??;
    let service = service_fn(|request| {
        let shared = shared.clone();
        async move { Ok::<_, Unanswered>(request_api(&shared, peer, region, request).await) }
    });
    http1::Builder::new()
        .serve_connection(TokioIo::new(stream), service)
        .await?;
    Ok(())
}

async fn request_api(
    shared: &Shared,
    peer: IpAddr,
    region: Region,
    request: Request<Incoming>,
) -> Response<Body> {
    let (mut parts, body) = request.into_parts();
    let host = parts
        .headers
        .get(HOST)
        .and_then(|host| host.to_str().ok())
        .unwrap_or_default();
    let host = host.split(':').next().unwrap_or_default().to_ascii_lowercase();
    let path = parts
        .uri
        .path_and_query()
        .map_or("/", PathAndQuery::as_str)
        .to_owned();
    let route = match route(shared, region, &host, &path).await {
        Ok(Some(route)) => route,
        Ok(None) => return forbidden(),
        Err(error) => return unavailable(&error),
    };
    forwarded(&mut parts.headers, peer);
    match shared.emulator.send(parts, route, forward::streamed(body)).await {
        Ok(response) => response.map(forward::streamed),
        Err(error) => unavailable(&error),
    }
}

/// Where in the emulator a request for this host and path goes. `None` when the region serves no such API or stage.
async fn route(
    shared: &Shared,
    region: Region,
    host: &str,
    path: &str,
) -> Result<Option<PathAndQuery>, Unanswered> {
    let own_name = ExecuteApi::parse(host);
    let api = match &own_name {
        Some(api) if api.region == region => api.clone(),
        Some(_) => return Ok(None),
        None => match shared.dns.api_behind(host, region) {
            Some(api) => api,
            // No CNAME leads to an API of this region: it may be a custom domain of API Gateway.
            None => {
                let mapped = shared.stages.mapped(&shared.emulator, region, host).await?;
                return Ok(mapped.and_then(|(api, stage)| execute_path(&api, &stage, path)));
            }
        },
    };
    let stages = shared.stages.of(&shared.emulator, &api).await?;
    if own_name.is_some() {
        Ok(split_stage(path)
            .filter(|(stage, _)| stages.iter().any(|known| known == stage))
            .and_then(|(stage, rest)| execute_path(&api.id, stage, rest)))
    } else {
        // A public name shows one stage, at its root.
        Ok(match &stages[..] {
            [stage] => execute_path(&api.id, stage, path),
            _ => None,
        })
    }
}

/// `/live/v1/accounts?limit=2` is the stage `live` and `/v1/accounts?limit=2`.
fn split_stage(path: &str) -> Option<(&str, &str)> {
    let path = path.strip_prefix('/')?;
    let end = path.find(['/', '?']).unwrap_or(path.len());
    let (stage, rest) = path.split_at(end);
    (!stage.is_empty()).then_some((stage, rest))
}

/// The path under which the emulator always executes an API, whatever the host.
fn execute_path(api: &str, stage: &str, rest: &str) -> Option<PathAndQuery> {
    let slash = if rest.starts_with('/') { "" } else { "/" };
    format!("/restapis/{api}/{stage}/_user_request_{slash}{rest}")
        .parse()
        .ok()
}

/// What API Gateway adds to a request.
fn forwarded(headers: &mut http::HeaderMap, peer: IpAddr) {
    let client = match headers
        .get("x-forwarded-for")
        .and_then(|value| value.to_str().ok())
    {
        Some(before) => format!("{before}, {peer}"),
        None => peer.to_string(),
    };
    if let Ok(client) = HeaderValue::from_str(&client) {
        headers.insert("x-forwarded-for", client);
    }
    headers.insert("x-forwarded-proto", HeaderValue::from_static("https"));
    headers.insert("x-forwarded-port", HeaderValue::from_static("443"));
}

/// What API Gateway answers when it does not know the API or the stage.
fn forbidden() -> Response<Body> {
    let mut response = forward::answer(
        StatusCode::FORBIDDEN,
        "application/json",
        r#"{"message":"Forbidden"}"#,
    );
    response
        .headers_mut()
        .insert("x-amzn-errortype", HeaderValue::from_static("ForbiddenException"));
    response
}

fn unavailable(error: &Unanswered) -> Response<Body> {
    tracing::warn!(error = ?error, "the emulator does not answer");
    forward::answer(
        StatusCode::SERVICE_UNAVAILABLE,
        "application/json",
        r#"{"message":"Service Unavailable"}"#,
    )
}

/// When an API was asked for its stages, and what they were.
type Known = (Instant, Arc<[String]>);

/// When a custom domain's mapping was asked for, and the API and stage that it leads to.
type Mapped = (Instant, Option<(String, String)>);

/// The stages of the APIs, and the custom domains, that were asked for lately.
#[derive(Debug, Default)]
pub(super) struct Stages {
    known: Mutex<HashMap<ExecuteApi, Known>>,
    domains: Mutex<HashMap<(Region, String), Mapped>>,
}

impl Stages {
    /// The stages of an API; none if the region has no such API.
    async fn of(&self, emulator: &Emulator, api: &ExecuteApi) -> Result<Arc<[String]>, Unanswered> {
        let known = self
            .known
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .get(api)
            .cloned();
        if let Some((at, stages)) = known
            && at.elapsed() < STAGES_TTL
        {
            return Ok(stages);
        }
        let stages: Arc<[String]> = ask(emulator, api).await?.into();
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.retain(|_, (at, _)| at.elapsed() < STAGES_TTL);
        if !stages.is_empty() {
            known.insert(api.clone(), (Instant::now(), stages.clone()));
        }
        Ok(stages)
    }

    /// The API and stage at the root of a custom domain; `None` if the region has no such domain.
    async fn mapped(
        &self,
        emulator: &Emulator,
        region: Region,
        host: &str,
    ) -> Result<Option<(String, String)>, Unanswered> {
        let key = (region, host.to_owned());
        let known = self
            .domains
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .get(&key)
            .cloned();
        if let Some((at, mapped)) = known
            && at.elapsed() < STAGES_TTL
        {
            return Ok(mapped);
        }
        let path = format!("/domainnames/{host}/basepathmappings");
        let text =
            |mapping: &Value, field: &str| mapping.get(field).and_then(Value::as_str).map(str::to_owned);
        let mappings = items(emulator, region, &path).await?;
        let root = mappings
            .iter()
            .find(|mapping| text(mapping, "basePath").as_deref() == Some("(none)"));
        let mapped = root.and_then(|root| Some((text(root, "restApiId")?, text(root, "stage")?)));
        let mut domains = self.domains.lock().unwrap_or_else(PoisonError::into_inner);
        domains.retain(|_, (at, _)| at.elapsed() < STAGES_TTL);
        domains.insert(key, (Instant::now(), mapped.clone()));
        Ok(mapped)
    }
}

async fn ask(emulator: &Emulator, api: &ExecuteApi) -> Result<Vec<String>, Unanswered> {
    let stages = items(emulator, api.region, &format!("/restapis/{}/stages", api.id)).await?;
    let names = stages.iter();
    Ok(names
        .filter_map(|stage| Some(stage.get("stageName")?.as_str()?.to_owned()))
        .collect())
}

/// A listing of API Gateway in a region; empty when what it is of does not exist.
async fn items(emulator: &Emulator, region: Region, path: &str) -> Result<Vec<Value>, Unanswered> {
    // The emulator reads the region off the credential scope, and does not check who we are.
    let credential = format!(
        "AWS4-HMAC-SHA256 Credential=test/20260101/{region}/apigateway/aws4_request, SignedHeaders=host, Signature=0",
    );
    let (parts, ()) = Request::builder()
        .method(Method::GET)
        .header(HOST, "127.0.0.1")
        .header(AUTHORIZATION, credential)
        .body(())
        .expect("the request is well formed")
        .into_parts();
    let Ok(path) = path.parse::<PathAndQuery>() else {
        return Ok(Vec::new());
    };
    let response = emulator.send(parts, path, forward::full("")).await?;
    if !response.status().is_success() {
        return Ok(Vec::new());
    }
    let Ok(body) = forward::read(response.into_body()).await else {
        return Ok(Vec::new());
    };
    let mut listing: Value = serde_json::from_slice(&body).unwrap_or_default();
    Ok(match listing.get_mut("item").map(Value::take) {
        Some(Value::Array(items)) => items,
        _ => Vec::new(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_stage_is_the_first_segment() {
        let cases = [
            (
                "/live/v1/accounts?limit=2",
                Some(("live", "/v1/accounts?limit=2")),
            ),
            ("/live", Some(("live", ""))),
            ("/live?x=/y", Some(("live", "?x=/y"))),
            ("/", None),
        ];
        for (path, expected) in cases {
            assert_eq!(split_stage(path), expected, "{path}");
        }
        let path = |rest| execute_path("id", "live", rest).unwrap().to_string();
        assert_eq!(
            path("/health?a=%20"),
            "/restapis/id/live/_user_request_/health?a=%20"
        );
        assert_eq!(path(""), "/restapis/id/live/_user_request_/");
    }

    #[test]
    fn a_request_says_where_it_came_from() {
        let mut headers = http::HeaderMap::new();
        headers.insert("x-forwarded-for", HeaderValue::from_static("192.0.2.1"));
        forwarded(&mut headers, IpAddr::from([127, 0, 0, 1]));
        assert_eq!(headers["x-forwarded-for"], "192.0.2.1, 127.0.0.1");
        assert_eq!(headers["x-forwarded-proto"], "https");
    }
}
