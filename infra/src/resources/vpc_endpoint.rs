//! A private way from a VPC to an AWS service: a gateway in route tables (DynamoDB, S3) or an interface in subnets. Found by
//! its `understudy:resource` tag.

use aws_sdk_ec2::types::{ResourceType, VpcEndpoint as Described, VpcEndpointType};
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::ec2::{find, key_of, put_tags, stack_filter, tag, tag_specification, tagged};
use crate::documents::normal_policy;
use crate::error::{KindError, absent};
use crate::kind::{Found, Kind, Live, Site};

/// The kind.
#[derive(Debug)]
pub struct VpcEndpoint;

/// What we want.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Spec {
    /// Its `Name` tag.
    pub name: String,
    /// The VPC.
    pub vpc_id: String,
    /// `com.amazonaws.{region}.{service}`.
    pub service: String,
    /// Where it is attached.
    pub attachment: Attachment,
    /// The service's usual names lead to it. Interface endpoints only.
    pub private_dns: bool,
    /// Its policy is the one that AWS gives it, which leaves everything to the callers' own policies.
    pub full_access: bool,
    /// It carries our tags.
    pub tagged: bool,
}

/// How an endpoint is attached.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(tag = "type", rename_all = "lowercase")]
pub enum Attachment {
    /// Routes in these tables, sorted.
    Gateway {
        /// `rtb-...`
        route_table_ids: Vec<String>,
    },
    /// Network interfaces in these subnets, with private DNS.
    Interface {
        /// `subnet-...`, sorted.
        subnet_ids: Vec<String>,
        /// `sg-...`, sorted.
        group_ids: Vec<String>,
    },
}

impl Attachment {
    /// Routes in these tables.
    pub fn gateway(mut route_table_ids: Vec<String>) -> Self {
        route_table_ids.sort();
        Attachment::Gateway { route_table_ids }
    }

    /// Interfaces in these subnets.
    pub fn interface(mut subnet_ids: Vec<String>, mut group_ids: Vec<String>) -> Self {
        subnet_ids.sort();
        group_ids.sort();
        Attachment::Interface {
            subnet_ids,
            group_ids,
        }
    }
}

/// What others refer to.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Outputs {
    /// `vpce-...`
    pub endpoint_id: String,
}

impl Kind for VpcEndpoint {
    const NAME: &'static str = "vpc-endpoint";
    const IMMUTABLE: &'static [&'static str] = &["vpc_id", "service"];
    const ARNS: &'static [&'static str] = &["ec2:vpc-endpoint/"];

    type Spec = Spec;
    type Outputs = Outputs;

    async fn observe(site: &Site<'_>, spec: &Spec) -> Result<Option<Live<Spec, Outputs>>, KindError> {
        let describe = |filters| async move {
            let request = site.cloud.ec2(site.region).describe_vpc_endpoints();
            let result = request.set_filters(Some(filters)).send().await;
            let answer = result.map_err(|e| site.fail("DescribeVpcEndpoints", site.key, e))?;
            let mut endpoints = answer.vpc_endpoints.unwrap_or_default();
            endpoints.retain(|endpoint| state(endpoint) != "deleted");
            Ok(endpoints)
        };
        let Some(endpoint) = find(site, &spec.name, describe, Described::tags).await? else {
            return Ok(None);
        };
        let settling = match state(&endpoint).as_str() {
            "available" => None,
            other => Some(format!("endpoint is {other}")),
        };
        Ok(Some(Live {
            spec: Spec {
                name: tag(endpoint.tags(), "Name"),
                vpc_id: endpoint.vpc_id().unwrap_or_default().to_owned(),
                service: endpoint.service_name().unwrap_or_default().to_owned(),
                attachment: attachment(&endpoint),
                private_dns: endpoint.private_dns_enabled().unwrap_or(false),
                full_access: is_default(endpoint.policy_document()),
                tagged: tagged(site, endpoint.tags()),
            },
            outputs: Outputs {
                endpoint_id: endpoint.vpc_endpoint_id().unwrap_or_default().to_owned(),
            },
            settling,
        }))
    }

    async fn create(site: &Site<'_>, spec: &Spec) -> Result<(), KindError> {
        let request = site
            .cloud
            .ec2(site.region)
            .create_vpc_endpoint()
            .vpc_id(&spec.vpc_id)
            .service_name(&spec.service)
            .tag_specifications(tag_specification(site, ResourceType::VpcEndpoint, &spec.name));
        let request = match &spec.attachment {
            Attachment::Gateway { route_table_ids } => request
                .vpc_endpoint_type(VpcEndpointType::Gateway)
                .set_route_table_ids(Some(route_table_ids.clone())),
            Attachment::Interface {
                subnet_ids,
                group_ids,
            } => request
                .vpc_endpoint_type(VpcEndpointType::Interface)
                .set_subnet_ids(Some(subnet_ids.clone()))
                .set_security_group_ids(Some(group_ids.clone()))
                .private_dns_enabled(spec.private_dns),
        };
        request
            .send()
            .await
            .map_err(|e| site.fail("CreateVpcEndpoint", &spec.name, e))?;
        Ok(())
    }

    async fn update(site: &Site<'_>, spec: &Spec, live: &Live<Spec, Outputs>) -> Result<(), KindError> {
        let id = &live.outputs.endpoint_id;
        if !live.spec.tagged || spec.name != live.spec.name {
            put_tags(site, id, &spec.name).await?;
        }
        let alike = |one: &Spec| (one.attachment.clone(), one.private_dns, one.full_access);
        if alike(spec) == alike(&live.spec) {
            return Ok(());
        }
        let request = site
            .cloud
            .ec2(site.region)
            .modify_vpc_endpoint()
            .vpc_endpoint_id(id)
            .set_private_dns_enabled((spec.private_dns != live.spec.private_dns).then_some(spec.private_dns))
            .set_reset_policy((spec.full_access && !live.spec.full_access).then_some(true));
        let request = match (&spec.attachment, &live.spec.attachment) {
            (
                Attachment::Gateway { route_table_ids: to },
                Attachment::Gateway {
                    route_table_ids: from,
                },
            ) => request
                .set_add_route_table_ids(lacking(to, from))
                .set_remove_route_table_ids(lacking(from, to)),
            (
                Attachment::Interface {
                    subnet_ids: to,
                    group_ids: groups,
                },
                Attachment::Interface {
                    subnet_ids: from,
                    group_ids: old_groups,
                },
            ) => request
                .set_add_subnet_ids(lacking(to, from))
                .set_remove_subnet_ids(lacking(from, to))
                .set_add_security_group_ids(lacking(groups, old_groups))
                .set_remove_security_group_ids(lacking(old_groups, groups)),
            // One service is never both, and the service is immutable.
            _ => return Ok(()),
        };
        request
            .send()
            .await
            .map_err(|e| site.fail("ModifyVpcEndpoint", id, e))?;
        Ok(())
    }

    async fn delete(site: &Site<'_>, live: &Live<Spec, Outputs>) -> Result<(), KindError> {
        Self::discard(site, &live.outputs.endpoint_id).await
    }

    async fn discard(site: &Site<'_>, id: &str) -> Result<(), KindError> {
        let result = site
            .cloud
            .ec2(site.region)
            .delete_vpc_endpoints()
            .vpc_endpoint_ids(id)
            .send()
            .await;
        let gone = "InvalidVpcEndpointId.NotFound";
        let answer = absent(result, &[gone]).map_err(|e| site.fail("DeleteVpcEndpoints", id, e))?;
        // A refusal is part of an answer that otherwise looks like a success.
        let refused = answer.iter().flat_map(|answer| answer.unsuccessful());
        let refused = refused
            .filter_map(|item| item.error())
            .find(|e| e.code() != Some(gone));
        match refused {
            Some(error) => Err(site.refuse(
                "DeleteVpcEndpoints",
                id,
                error.code(),
                error.message().unwrap_or_default(),
            )),
            None => Ok(()),
        }
    }

    async fn list(site: &Site<'_>) -> Result<Vec<Found>, KindError> {
        let request = site.cloud.ec2(site.region).describe_vpc_endpoints();
        let pages = request.filters(stack_filter(site)).into_paginator().items();
        let endpoints: Result<Vec<_>, _> = pages.send().collect().await;
        let endpoints = endpoints.map_err(|e| site.fail("DescribeVpcEndpoints", site.suffix, e))?;
        let found = |endpoint: &Described| {
            let id = endpoint.vpc_endpoint_id().unwrap_or_default();
            site.found::<VpcEndpoint>(id, key_of(endpoint.tags()))
        };
        Ok(endpoints
            .iter()
            .filter(|endpoint| state(endpoint) != "deleted")
            .map(found)
            .collect())
    }
}

/// AWS writes states in both cases.
fn state(endpoint: &Described) -> String {
    endpoint
        .state()
        .map(|state| state.as_str().to_ascii_lowercase())
        .unwrap_or_default()
}

/// Whether a policy is the one that an endpoint has when nobody gave it any: everybody may do everything through it.
fn is_default(policy: Option<&str>) -> bool {
    let Some(policy) = policy.filter(|text| !text.is_empty()) else {
        return true;
    };
    let policy = serde_json::from_str(policy).map(|policy| normal_policy(&policy));
    let everything =
        json!([{"Effect": "Allow", "Principal": {"AWS": ["*"]}, "Action": ["*"], "Resource": ["*"]}]);
    policy.is_ok_and(|policy| policy["Statement"] == everything)
}

fn attachment(endpoint: &Described) -> Attachment {
    if endpoint.vpc_endpoint_type() == Some(&VpcEndpointType::Gateway) {
        return Attachment::gateway(endpoint.route_table_ids().to_vec());
    }
    let groups = endpoint
        .groups()
        .iter()
        .filter_map(|group| group.group_id().map(str::to_owned));
    Attachment::interface(endpoint.subnet_ids().to_vec(), groups.collect())
}

/// What `wanted` has and `there` lacks; `None` when nothing, because AWS refuses empty lists.
fn lacking(wanted: &[String], there: &[String]) -> Option<Vec<String>> {
    let new: Vec<String> = wanted.iter().filter(|id| !there.contains(id)).cloned().collect();
    (!new.is_empty()).then_some(new)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_policy_that_aws_gives_is_told_from_one_that_somebody_gave() {
        assert!(is_default(None));
        let of_gateways = r#"{"Version":"2008-10-17","Statement":[{"Effect":"Allow","Principal":"*","Action":"*","Resource":"*"}]}"#;
        let of_interfaces =
            r#"{"Statement":[{"Action":"*","Effect":"Allow","Principal":"*","Resource":"*"}]}"#;
        assert!(is_default(Some(of_gateways)) && is_default(Some(of_interfaces)));
        for narrower in [
            r#"{"Statement":[]}"#,
            r#"{"Statement":[{"Action":"s3:GetObject","Effect":"Allow","Principal":"*","Resource":"*"}]}"#,
            r#"{"Statement":[{"Action":"*","Effect":"Deny","Principal":"*","Resource":"*"}]}"#,
            "not JSON",
        ] {
            assert!(!is_default(Some(narrower)), "{narrower}");
        }
    }
}
