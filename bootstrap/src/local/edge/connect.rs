//! HTTPS through the API listeners: `CONNECT host:443`. The name is resolved as a client of Route 53 would, the tunnel ends
//! in the edge, and the region that the name led to stays behind it for the tunnel's life, as with a real connection.

use std::{net::IpAddr, sync::Arc};

use http::{Request, Response, StatusCode};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;

use super::{
    Needs, Shared, Verdict,
    forward::{self, Body},
    front_door,
    net::Severed,
    verdict,
};
use crate::local::{Region, dns::ExecuteApi};

/// The port that HTTPS is served on.
const HTTPS_PORT: u16 = 443;

/// Opens a tunnel for someone in `source`.
pub(super) async fn open(
    shared: &Arc<Shared>,
    source: Option<Region>,
    request: Request<Incoming>,
) -> Result<Response<Body>, Severed> {
    let authority = request.uri().authority();
    let host = authority
        .map(|authority| authority.host().to_ascii_lowercase())
        .unwrap_or_default();
    let port = authority
        .and_then(http::uri::Authority::port_u16)
        .unwrap_or(HTTPS_PORT);
    let region = (port == HTTPS_PORT).then(|| region_of(shared, &host)).flatten();
    let Some(region) = region else {
        let message = format!("`{host}:{port}` is not part of the local cloud\n");
        return Ok(forward::answer(StatusCode::BAD_GATEWAY, "text/plain", message));
    };
    if verdict(&shared.network.now(), source, Some(region), Needs::Nothing) != Verdict::Pass {
        return Err(Severed);
    }
    let tunnel = shared.clone();
    shared.tasks.spawn(async move {
        match hyper::upgrade::on(request).await {
            Ok(upgraded) => {
                front_door::talk(&tunnel, TokioIo::new(upgraded), peer(source), source, region).await;
            }
            Err(error) => tracing::debug!(%error, "a tunnel was not opened"),
        }
    });
    Ok(Response::new(forward::full("")))
}

/// The region that serves this host now.
fn region_of(shared: &Shared, host: &str) -> Option<Region> {
    if let Some(api) = ExecuteApi::parse(host) {
        return Some(api.region);
    }
    let door = shared.dns.resolve(host)?;
    shared
        .front_doors
        .iter()
        .find(|&(_, &address)| address == door)
        .map(|(&region, _)| region)
}

/// The address that an API sees: that of the region, as of its NAT gateway.
fn peer(source: Option<Region>) -> IpAddr {
    source.map_or(IpAddr::from([127, 0, 0, 1]), |region| region.address().into())
}
