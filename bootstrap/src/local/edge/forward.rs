//! Passing HTTP on to the emulator, over pooled connections.

use std::{
    net::SocketAddr,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use http::{
    HeaderMap, HeaderName, HeaderValue, Request, Response, StatusCode, Uri,
    header::{CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, EXPECT},
    request::Parts,
    uri::{PathAndQuery, Scheme},
};
use http_body_util::{BodyExt, Full, Limited, combinators::UnsyncBoxBody};
use hyper::body::{Frame, Incoming, SizeHint};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};

use super::net::Severed;

/// The body of every request and answer inside the edge.
pub(super) type Body = UnsyncBoxBody<Bytes, BoxError>;
pub(super) type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// The emulator closes idle connections after 5 s; ours must be gone before.
const POOL_IDLE_TIMEOUT: Duration = Duration::from_secs(3);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// The largest body that is read into memory: the largest of DynamoDB (16 MB) and of the query protocols fit well.
pub(super) const MAX_READ_BYTES: usize = 32 * 1024 * 1024;

/// Headers that belong to one connection (RFC 9110, 7.6.1).
const HOP_BY_HOP: [&str; 8] = [
    "connection",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authorization",
    "proxy-connection",
    "te",
    "transfer-encoding",
    "upgrade",
];

/// The emulator did not answer.
#[derive(Debug, thiserror::Error)]
#[error("the emulator does not answer")]
pub(super) struct Unanswered(#[source] hyper_util::client::legacy::Error);

/// A connection pool to the emulator.
#[derive(Debug, Clone)]
pub(super) struct Emulator {
    client: Client<HttpConnector, Body>,
    address: SocketAddr,
}

impl Emulator {
    pub(super) fn new(address: SocketAddr) -> Self {
        let mut connector = HttpConnector::new();
        connector.set_nodelay(true);
        connector.set_connect_timeout(Some(CONNECT_TIMEOUT));
        let client = Client::builder(TokioExecutor::new())
            .pool_idle_timeout(POOL_IDLE_TIMEOUT)
            .build(connector);
        Self { client, address }
    }

    /// Passes a request on. `path` replaces its path and query; its `Host` stays, because it may be signed.
    pub(super) async fn send(
        &self,
        mut parts: Parts,
        path: PathAndQuery,
        body: Body,
    ) -> Result<Response<Incoming>, Unanswered> {
        strip_hop_by_hop(&mut parts.headers);
        // The body is sent without asking: our own server has already said `100 Continue`.
        parts.headers.remove(EXPECT);
        let mut uri = http::uri::Parts::default();
        uri.scheme = Some(Scheme::HTTP);
        uri.authority = self.address.to_string().parse().ok();
        uri.path_and_query = Some(path);
        parts.uri = Uri::from_parts(uri).expect("a socket address is an authority");
        parts.version = http::Version::HTTP_11;
        parts.extensions.clear();
        let mut response = self
            .client
            .request(Request::from_parts(parts, body))
            .await
            .map_err(Unanswered)?;
        strip_hop_by_hop(response.headers_mut());
        Ok(response)
    }
}

fn strip_hop_by_hop(headers: &mut HeaderMap) {
    let named: Vec<HeaderName> = headers
        .get_all(CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(|name| name.trim().parse().ok())
        .collect();
    for name in named {
        headers.remove(name);
    }
    for name in HOP_BY_HOP {
        headers.remove(name);
    }
}

/// A body that is in memory.
pub(super) fn full(bytes: impl Into<Bytes>) -> Body {
    Full::new(bytes.into())
        .map_err(|never| match never {})
        .boxed_unsync()
}

/// A body that is passed on as it arrives.
pub(super) fn streamed(body: Incoming) -> Body {
    body.map_err(Into::into).boxed_unsync()
}

/// A body that is passed on as it arrives, until `severed` resolves: then it breaks off.
pub(super) fn guarded(body: Incoming, severed: impl Future<Output = ()> + Send + 'static) -> Body {
    Guarded {
        body,
        severed: Box::pin(severed),
    }
    .boxed_unsync()
}

/// Reads a body into memory, up to [`MAX_READ_BYTES`].
pub(super) async fn read(body: Incoming) -> Result<Bytes, BoxError> {
    Ok(Limited::new(body, MAX_READ_BYTES).collect().await?.to_bytes())
}

/// An answer made here.
pub(super) fn answer(
    status: StatusCode,
    content_type: &'static str,
    text: impl Into<Bytes>,
) -> Response<Body> {
    let mut response = Response::new(full(text));
    *response.status_mut() = status;
    response
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}

/// An error as AWS JSON protocols have it, readable to the others too by its status.
pub(super) fn error(status: StatusCode, kind: &str, message: &str) -> Response<Body> {
    let text = serde_json::json!({ "__type": kind, "message": message }).to_string();
    let mut response = answer(status, "application/x-amz-json-1.0", text);
    if let Ok(kind) = HeaderValue::from_str(kind.rsplit('#').next().unwrap_or(kind)) {
        response.headers_mut().insert("x-amzn-errortype", kind);
    }
    response
}

/// Replaces the body of an answer, and what the headers said about the old one.
pub(super) fn with_body(mut parts: http::response::Parts, body: impl Into<Bytes>) -> Response<Body> {
    parts.headers.remove(CONTENT_LENGTH);
    parts.headers.remove("x-amz-crc32");
    Response::from_parts(parts, full(body))
}

struct Guarded {
    body: Incoming,
    severed: Pin<Box<dyn Future<Output = ()> + Send>>,
}

impl hyper::body::Body for Guarded {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        if self.severed.as_mut().poll(context).is_ready() {
            return Poll::Ready(Some(Err(Severed.into())));
        }
        Pin::new(&mut self.body).poll_frame(context).map_err(Into::into)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_of_one_connection_are_not_passed_on() {
        let mut headers = HeaderMap::new();
        for (name, value) in [
            ("connection", "close, X-Private"),
            ("keep-alive", "timeout=5"),
            ("transfer-encoding", "chunked"),
            ("x-private", "1"),
            ("authorization", "Bearer key"),
            ("host", "api.example.test"),
        ] {
            headers.insert(HeaderName::from_static(name), HeaderValue::from_static(value));
        }
        strip_hop_by_hop(&mut headers);
        let left: Vec<&str> = headers.keys().map(HeaderName::as_str).collect();
        assert_eq!(left, ["authorization", "host"]);
    }
}
