//! A virtual private cloud. Found by its `understudy:resource` tag.

use aws_sdk_ec2::types::{AttributeBooleanValue, ResourceType, VpcAttributeName};
use serde::{Deserialize, Serialize};

use super::ec2::{key_of, ours, rename, stack_filter, tag, tag_specification, unsettled};
use crate::error::{KindError, absent};
use crate::kind::{Found, Kind, Live, Site};

/// The kind.
#[derive(Debug)]
pub struct Vpc;

/// What we want.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Spec {
    /// Its `Name` tag.
    pub name: String,
    /// Its addresses, `10.0.0.0/16`.
    pub cidr: String,
    /// Names resolve inside it. Private DNS of interface endpoints needs both.
    pub dns_support: bool,
    /// Its members have names.
    pub dns_hostnames: bool,
}

/// What others refer to.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Outputs {
    /// `vpc-...`
    pub vpc_id: String,
}

impl Kind for Vpc {
    const NAME: &'static str = "vpc";
    const IMMUTABLE: &'static [&'static str] = &["cidr"];

    type Spec = Spec;
    type Outputs = Outputs;

    async fn observe(site: &Site<'_>, _spec: &Spec) -> Result<Option<Live<Spec, Outputs>>, KindError> {
        let ec2 = site.cloud.ec2(site.region);
        let answer = ec2
            .describe_vpcs()
            .set_filters(Some(ours(site)))
            .send()
            .await
            .map_err(|e| site.fail("DescribeVpcs", site.key, e))?;
        let Some(vpc) = answer.vpcs().first() else {
            return Ok(None);
        };
        let vpc_id = vpc.vpc_id().unwrap_or_default().to_owned();
        let attribute = |name| {
            ec2.describe_vpc_attribute()
                .vpc_id(&vpc_id)
                .attribute(name)
                .send()
        };
        let (support, hostnames) = futures::future::join(
            attribute(VpcAttributeName::EnableDnsSupport),
            attribute(VpcAttributeName::EnableDnsHostnames),
        )
        .await;
        let support = support.map_err(|e| site.fail("DescribeVpcAttribute", &vpc_id, e))?;
        let hostnames = hostnames.map_err(|e| site.fail("DescribeVpcAttribute", &vpc_id, e))?;
        let spec = Spec {
            name: tag(vpc.tags(), "Name"),
            cidr: vpc.cidr_block().unwrap_or_default().to_owned(),
            dns_support: support
                .enable_dns_support()
                .and_then(AttributeBooleanValue::value)
                .unwrap_or(false),
            dns_hostnames: hostnames
                .enable_dns_hostnames()
                .and_then(AttributeBooleanValue::value)
                .unwrap_or(false),
        };
        let settling = unsettled("VPC", vpc.state().map(|state| state.as_str()));
        Ok(Some(Live {
            spec,
            outputs: Outputs { vpc_id },
            settling,
        }))
    }

    async fn create(site: &Site<'_>, spec: &Spec) -> Result<(), KindError> {
        site.cloud
            .ec2(site.region)
            .create_vpc()
            .cidr_block(&spec.cidr)
            .tag_specifications(tag_specification(site, ResourceType::Vpc, &spec.name))
            .send()
            .await
            .map_err(|e| site.fail("CreateVpc", &spec.name, e))?;
        Ok(())
    }

    async fn update(site: &Site<'_>, spec: &Spec, live: &Live<Spec, Outputs>) -> Result<(), KindError> {
        let ec2 = site.cloud.ec2(site.region);
        let id = &live.outputs.vpc_id;
        let value = |on| AttributeBooleanValue::builder().value(on).build();
        // One attribute per call, by AWS's rule.
        if spec.dns_support != live.spec.dns_support {
            ec2.modify_vpc_attribute()
                .vpc_id(id)
                .enable_dns_support(value(spec.dns_support))
                .send()
                .await
                .map_err(|e| site.fail("ModifyVpcAttribute", id, e))?;
        }
        if spec.dns_hostnames != live.spec.dns_hostnames {
            ec2.modify_vpc_attribute()
                .vpc_id(id)
                .enable_dns_hostnames(value(spec.dns_hostnames))
                .send()
                .await
                .map_err(|e| site.fail("ModifyVpcAttribute", id, e))?;
        }
        rename(site, id, &spec.name, &live.spec.name).await
    }

    async fn delete(site: &Site<'_>, live: &Live<Spec, Outputs>) -> Result<(), KindError> {
        let id = &live.outputs.vpc_id;
        let result = site.cloud.ec2(site.region).delete_vpc().vpc_id(id).send().await;
        absent(result, &["InvalidVpcID.NotFound"]).map_err(|e| site.fail("DeleteVpc", id, e))?;
        Ok(())
    }

    async fn list(site: &Site<'_>) -> Result<Vec<Found>, KindError> {
        let mut pages = site
            .cloud
            .ec2(site.region)
            .describe_vpcs()
            .filters(stack_filter(site))
            .into_paginator()
            .items()
            .send();
        let mut found = Vec::new();
        while let Some(vpc) = pages.next().await {
            let vpc = vpc.map_err(|e| site.fail("DescribeVpcs", site.suffix, e))?;
            found.push(site.found::<Vpc>(vpc.vpc_id().unwrap_or_default(), key_of(vpc.tags())));
        }
        Ok(found)
    }
}
