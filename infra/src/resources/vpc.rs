//! A virtual private cloud. Found by its `understudy:resource` tag.

use aws_sdk_ec2::types::{AttributeBooleanValue, ResourceType, Vpc as Described, VpcAttributeName};
use serde::{Deserialize, Serialize};

use super::ec2::{find, key_of, put_tags, stack_filter, tag, tag_specification, tagged, unsettled};
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
    /// It carries our tags.
    pub tagged: bool,
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
    const ARNS: &'static [&'static str] = &["ec2:vpc/"];

    type Spec = Spec;
    type Outputs = Outputs;

    async fn observe(site: &Site<'_>, spec: &Spec) -> Result<Option<Live<Spec, Outputs>>, KindError> {
        let describe = |filters| async move {
            let request = site.cloud.ec2(site.region).describe_vpcs();
            let result = request.set_filters(Some(filters)).send().await;
            let answer = result.map_err(|e| site.fail("DescribeVpcs", site.key, e))?;
            Ok(answer.vpcs.unwrap_or_default())
        };
        let Some(vpc) = find(site, &spec.name, describe, Described::tags).await? else {
            return Ok(None);
        };
        let vpc_id = vpc.vpc_id().unwrap_or_default().to_owned();
        let ec2 = site.cloud.ec2(site.region);
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
            tagged: tagged(site, vpc.tags()),
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
        if !live.spec.tagged || spec.name != live.spec.name {
            put_tags(site, id, &spec.name).await?;
        }
        Ok(())
    }

    async fn delete(site: &Site<'_>, live: &Live<Spec, Outputs>) -> Result<(), KindError> {
        Self::discard(site, &live.outputs.vpc_id).await
    }

    async fn discard(site: &Site<'_>, id: &str) -> Result<(), KindError> {
        let result = site.cloud.ec2(site.region).delete_vpc().vpc_id(id).send().await;
        absent(result, &["InvalidVpcID.NotFound"]).map_err(|e| site.fail("DeleteVpc", id, e))?;
        Ok(())
    }

    async fn list(site: &Site<'_>) -> Result<Vec<Found>, KindError> {
        let request = site.cloud.ec2(site.region).describe_vpcs();
        let pages = request.filters(stack_filter(site)).into_paginator().items();
        let vpcs: Result<Vec<_>, _> = pages.send().collect().await;
        let vpcs = vpcs.map_err(|e| site.fail("DescribeVpcs", site.suffix, e))?;
        let found = |vpc: &Described| site.found::<Vpc>(vpc.vpc_id().unwrap_or_default(), key_of(vpc.tags()));
        Ok(vpcs.iter().map(found).collect())
    }
}
