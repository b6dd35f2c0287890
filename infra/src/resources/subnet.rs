//! A private subnet. Found by its `understudy:resource` tag.

use aws_sdk_ec2::types::{AttributeBooleanValue, ResourceType, Subnet as Described};
use serde::{Deserialize, Serialize};

use super::ec2::{find, in_use, key_of, put_tags, stack_filter, tag, tag_specification, tagged, unsettled};
use crate::error::{KindError, absent};
use crate::kind::{Found, Kind, Live, Site};

/// The kind.
#[derive(Debug)]
pub struct Subnet;

/// What we want.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Spec {
    /// Its `Name` tag.
    pub name: String,
    /// The VPC.
    pub vpc_id: String,
    /// Its addresses.
    pub cidr: String,
    /// The availability zone, `us-east-1a`.
    pub zone: String,
    /// What is started in it gets a public address. Never; but somebody may have switched it on.
    pub public_addresses: bool,
    /// It carries our tags.
    pub tagged: bool,
}

/// What others refer to.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Outputs {
    /// `subnet-...`
    pub subnet_id: String,
}

impl Kind for Subnet {
    const NAME: &'static str = "subnet";
    const IMMUTABLE: &'static [&'static str] = &["vpc_id", "cidr", "zone"];
    const ARNS: &'static [&'static str] = &["ec2:subnet/"];

    type Spec = Spec;
    type Outputs = Outputs;

    async fn observe(site: &Site<'_>, spec: &Spec) -> Result<Option<Live<Spec, Outputs>>, KindError> {
        let describe = |filters| async move {
            let request = site.cloud.ec2(site.region).describe_subnets();
            let result = request.set_filters(Some(filters)).send().await;
            let answer = result.map_err(|e| site.fail("DescribeSubnets", site.key, e))?;
            Ok(answer.subnets.unwrap_or_default())
        };
        let Some(subnet) = find(site, &spec.name, describe, Described::tags).await? else {
            return Ok(None);
        };
        Ok(Some(Live {
            spec: Spec {
                name: tag(subnet.tags(), "Name"),
                vpc_id: subnet.vpc_id().unwrap_or_default().to_owned(),
                cidr: subnet.cidr_block().unwrap_or_default().to_owned(),
                zone: subnet.availability_zone().unwrap_or_default().to_owned(),
                public_addresses: subnet.map_public_ip_on_launch().unwrap_or(false),
                tagged: tagged(site, subnet.tags()),
            },
            outputs: Outputs {
                subnet_id: subnet.subnet_id().unwrap_or_default().to_owned(),
            },
            settling: unsettled("subnet", subnet.state().map(|state| state.as_str())),
        }))
    }

    async fn create(site: &Site<'_>, spec: &Spec) -> Result<(), KindError> {
        site.cloud
            .ec2(site.region)
            .create_subnet()
            .vpc_id(&spec.vpc_id)
            .cidr_block(&spec.cidr)
            .availability_zone(&spec.zone)
            .tag_specifications(tag_specification(site, ResourceType::Subnet, &spec.name))
            .send()
            .await
            .map_err(|e| site.fail("CreateSubnet", &spec.name, e))?;
        Ok(())
    }

    async fn update(site: &Site<'_>, spec: &Spec, live: &Live<Spec, Outputs>) -> Result<(), KindError> {
        let id = &live.outputs.subnet_id;
        if !live.spec.tagged || spec.name != live.spec.name {
            put_tags(site, id, &spec.name).await?;
        }
        if spec.public_addresses != live.spec.public_addresses {
            let wanted = AttributeBooleanValue::builder().value(spec.public_addresses);
            let request = site.cloud.ec2(site.region).modify_subnet_attribute();
            let request = request.subnet_id(id).map_public_ip_on_launch(wanted.build());
            let result = request.send().await;
            result.map_err(|e| site.fail("ModifySubnetAttribute", id, e))?;
        }
        Ok(())
    }

    async fn delete(site: &Site<'_>, live: &Live<Spec, Outputs>) -> Result<(), KindError> {
        Self::discard(site, &live.outputs.subnet_id).await
    }

    async fn discard(site: &Site<'_>, id: &str) -> Result<(), KindError> {
        let request = site.cloud.ec2(site.region).delete_subnet();
        let result = absent(request.subnet_id(id).send().await, &["InvalidSubnetID.NotFound"]);
        match result.map_err(|e| site.fail("DeleteSubnet", id, e)) {
            Err(refusal) => Err(in_use(site, "subnet-id", id, refusal).await),
            Ok(_) => Ok(()),
        }
    }

    async fn list(site: &Site<'_>) -> Result<Vec<Found>, KindError> {
        let request = site.cloud.ec2(site.region).describe_subnets();
        let pages = request.filters(stack_filter(site)).into_paginator().items();
        let subnets: Result<Vec<_>, _> = pages.send().collect().await;
        let subnets = subnets.map_err(|e| site.fail("DescribeSubnets", site.suffix, e))?;
        let found = |subnet: &Described| {
            site.found::<Subnet>(subnet.subnet_id().unwrap_or_default(), key_of(subnet.tags()))
        };
        Ok(subnets.iter().map(found).collect())
    }
}
