//! What Route 53's control plane holds, as the name server needs it: zones with their record sets, and health checks.

use std::{collections::BTreeMap, net::IpAddr, str::FromStr, time::Duration};

use aws_sdk_route53::{
    Client,
    error::{DisplayErrorContext, SdkError},
    types::{HealthCheckConfig, HealthCheckType, ResourceRecordSet, ResourceRecordSetFailover},
};
use hickory_proto::rr::{Name, RecordType};

use crate::local::Region;

/// The host of a REST API: `{id}.execute-api.{region}.amazonaws.com`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(in crate::local) struct ExecuteApi {
    pub(in crate::local) id: String,
    pub(in crate::local) region: Region,
}

impl ExecuteApi {
    /// Reads a host name, with or without the final dot. `None` for any other name and regions that are not here.
    pub(in crate::local) fn parse(host: &str) -> Option<Self> {
        let host = host.strip_suffix('.').unwrap_or(host).to_ascii_lowercase();
        let (id, region) = host.strip_suffix(".amazonaws.com")?.split_once(".execute-api.")?;
        let is_label = !id.is_empty()
            && id
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
        is_label.then_some(())?;
        Some(Self {
            id: id.to_owned(),
            region: region.parse().ok()?,
        })
    }
}

/// Everything at one moment.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Snapshot {
    pub(super) zones: Vec<Zone>,
    pub(super) checks: BTreeMap<String, Check>,
}

/// A hosted zone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Zone {
    pub(super) name: Name,
    pub(super) records: Vec<RecordSet>,
}

/// A record set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct RecordSet {
    pub(super) name: Name,
    pub(super) kind: RecordType,
    pub(super) ttl: u32,
    /// As Route 53 writes them: an address, a name, the fields of an SOA.
    pub(super) values: Vec<String>,
    /// The target of an alias, which takes the place of values.
    pub(super) alias: Option<Name>,
    pub(super) routing: Routing,
    pub(super) health_check: Option<String>,
}

/// How Route 53 chooses among the record sets of one name and type.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Routing {
    /// There is one.
    Simple,
    /// The primary of a failover pair.
    Primary,
    /// The secondary of a failover pair.
    Secondary,
    /// Weighted, by latency, and so on. Here: any healthy one.
    Other,
}

/// A health check of an endpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Check {
    pub(super) protocol: Protocol,
    /// The address to connect to; without one, the name decides.
    pub(super) address: Option<IpAddr>,
    /// The name: `Host`, SNI, and where to connect if no address is given.
    pub(super) host: Option<String>,
    pub(super) port: u16,
    pub(super) path: String,
    /// The text that the first 5,120 bytes of the body must contain.
    pub(super) search: Option<String>,
    pub(super) interval: Duration,
    pub(super) policy: Policy,
}

/// What a health check speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Protocol {
    Https,
    Http,
    Tcp,
    /// A calculated check, one of an alarm: nothing here observes it, it stays as a new check is.
    Unobserved,
}

/// How results become a state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Policy {
    /// How many results in a row change the state.
    pub(super) threshold: u32,
    pub(super) inverted: bool,
    pub(super) disabled: bool,
}

/// The zones could not be read.
#[derive(Debug, thiserror::Error)]
#[error("cannot {action}: {reason}")]
pub(super) struct FetchError {
    action: &'static str,
    reason: String,
}

fn failed<E>(action: &'static str) -> impl FnOnce(SdkError<E>) -> FetchError
where
    SdkError<E>: std::error::Error,
{
    move |error| FetchError {
        action,
        reason: DisplayErrorContext(error).to_string(),
    }
}

/// Reads everything from the control plane.
pub(super) async fn fetch(client: &Client) -> Result<Snapshot, FetchError> {
    let mut zones = Vec::new();
    let mut listing = client.list_hosted_zones().into_paginator().items().send();
    while let Some(zone) = listing.next().await {
        let zone = zone.map_err(failed("list the zones"))?;
        let Ok(name) = parse_name(&zone.name) else {
            continue;
        };
        zones.push(Zone {
            name,
            records: records(client, &zone.id).await?,
        });
    }
    let mut checks = BTreeMap::new();
    let mut listing = client.list_health_checks().into_paginator().items().send();
    while let Some(check) = listing.next().await {
        let check = check.map_err(failed("list the health checks"))?;
        if let Some(config) = &check.health_check_config {
            checks.insert(check.id.clone(), self::check(config));
        }
    }
    Ok(Snapshot { zones, checks })
}

async fn records(client: &Client, zone: &str) -> Result<Vec<RecordSet>, FetchError> {
    let mut records = Vec::new();
    let mut from: Option<ResourceRecordSet> = None;
    loop {
        let mut request = client.list_resource_record_sets().hosted_zone_id(zone);
        if let Some(next) = from.take() {
            request = request
                .start_record_name(next.name)
                .start_record_type(next.r#type)
                .set_start_record_identifier(next.set_identifier);
        }
        let page = request
            .send()
            .await
            .map_err(failed("list the records of a zone"))?;
        records.extend(page.resource_record_sets.iter().filter_map(record_set));
        match (page.is_truncated, page.next_record_name, page.next_record_type) {
            (true, Some(name), Some(kind)) => {
                let next = ResourceRecordSet::builder()
                    .name(name)
                    .r#type(kind)
                    .set_set_identifier(page.next_record_identifier)
                    .build();
                from = next.ok();
            }
            _ => return Ok(records),
        }
    }
}

/// Names compare without regard to case, and are all absolute.
pub(super) fn parse_name(text: &str) -> Result<Name, hickory_proto::ProtoError> {
    // Route 53 writes a wildcard as an escape.
    let mut name = Name::from_ascii(text.replace("\\052", "*"))?.to_lowercase();
    name.set_fqdn(true);
    Ok(name)
}

fn record_set(set: &ResourceRecordSet) -> Option<RecordSet> {
    let routing = match (&set.failover, &set.set_identifier) {
        (Some(ResourceRecordSetFailover::Primary), _) => Routing::Primary,
        (Some(ResourceRecordSetFailover::Secondary), _) => Routing::Secondary,
        (_, Some(_)) => Routing::Other,
        _ => Routing::Simple,
    };
    Some(RecordSet {
        name: parse_name(&set.name).ok()?,
        kind: RecordType::from_str(set.r#type.as_str()).ok()?,
        // An alias has the TTL of its target; those of API Gateway have 60.
        ttl: set.ttl.and_then(|ttl| u32::try_from(ttl).ok()).unwrap_or(60),
        values: set
            .resource_records()
            .iter()
            .map(|record| record.value.clone())
            .collect(),
        alias: set
            .alias_target
            .as_ref()
            .and_then(|alias| parse_name(&alias.dns_name).ok()),
        routing,
        health_check: set.health_check_id.clone(),
    })
}

fn check(config: &HealthCheckConfig) -> Check {
    let protocol = match config.r#type {
        HealthCheckType::Https | HealthCheckType::HttpsStrMatch => Protocol::Https,
        HealthCheckType::Http | HealthCheckType::HttpStrMatch => Protocol::Http,
        HealthCheckType::Tcp => Protocol::Tcp,
        _ => Protocol::Unobserved,
    };
    let usual_port = if protocol == Protocol::Http { 80 } else { 443 };
    let path = config.resource_path.as_deref().unwrap_or_default();
    Check {
        protocol,
        address: config
            .ip_address
            .as_ref()
            .and_then(|address| address.parse().ok()),
        host: config.fully_qualified_domain_name.clone(),
        port: config
            .port
            .and_then(|port| u16::try_from(port).ok())
            .unwrap_or(usual_port),
        path: if path.starts_with('/') {
            path.to_owned()
        } else {
            format!("/{path}")
        },
        search: config.search_string.clone().filter(|text| !text.is_empty()),
        interval: Duration::from_secs(
            config
                .request_interval
                .and_then(|s| u64::try_from(s).ok())
                .unwrap_or(30),
        ),
        policy: Policy {
            threshold: config
                .failure_threshold
                .and_then(|n| u32::try_from(n).ok())
                .unwrap_or(3),
            inverted: config.inverted.unwrap_or(false),
            disabled: config.disabled.unwrap_or(false),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_host_of_an_api_names_its_region() {
        let api = ExecuteApi {
            id: "a1b2".into(),
            region: Region::UsEast2,
        };
        assert_eq!(
            ExecuteApi::parse("a1b2.execute-api.us-east-2.amazonaws.com"),
            Some(api.clone())
        );
        assert_eq!(
            ExecuteApi::parse("A1B2.Execute-Api.us-east-2.amazonaws.com."),
            Some(api)
        );
        for other in [
            "api.example.test",
            "a.execute-api.eu-west-1.amazonaws.com",
            "a/b.execute-api.us-east-1.amazonaws.com",
            ".execute-api.us-east-1.amazonaws.com",
            "a.execute-api.us-east-1.amazonaws.com.evil.test",
        ] {
            assert_eq!(ExecuteApi::parse(other), None, "{other}");
        }
    }
}
