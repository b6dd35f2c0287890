//! A private subnet. Found by its `understudy:resource` tag.

use aws_sdk_ec2::types::ResourceType;
use serde::{Deserialize, Serialize};

use super::ec2::{key_of, ours, rename, stack_filter, tag, tag_specification, unsettled};
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

    type Spec = Spec;
    type Outputs = Outputs;

    async fn observe(site: &Site<'_>, _spec: &Spec) -> Result<Option<Live<Spec, Outputs>>, KindError> {
        let answer = site
            .cloud
            .ec2(site.region)
            .describe_subnets()
            .set_filters(Some(ours(site)))
            .send()
            .await
            .map_err(|e| site.fail("DescribeSubnets", site.key, e))?;
        let Some(subnet) = answer.subnets().first() else {
            return Ok(None);
        };
        Ok(Some(Live {
            spec: Spec {
                name: tag(subnet.tags(), "Name"),
                vpc_id: subnet.vpc_id().unwrap_or_default().to_owned(),
                cidr: subnet.cidr_block().unwrap_or_default().to_owned(),
                zone: subnet.availability_zone().unwrap_or_default().to_owned(),
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
        rename(site, &live.outputs.subnet_id, &spec.name, &live.spec.name).await
    }

    async fn delete(site: &Site<'_>, live: &Live<Spec, Outputs>) -> Result<(), KindError> {
        let id = &live.outputs.subnet_id;
        let result = site
            .cloud
            .ec2(site.region)
            .delete_subnet()
            .subnet_id(id)
            .send()
            .await;
        absent(result, &["InvalidSubnetID.NotFound"]).map_err(|e| site.fail("DeleteSubnet", id, e))?;
        Ok(())
    }

    async fn list(site: &Site<'_>) -> Result<Vec<Found>, KindError> {
        let request = site
            .cloud
            .ec2(site.region)
            .describe_subnets()
            .filters(stack_filter(site));
        let mut items = request.into_paginator().items().send();
        let mut found = Vec::new();
        while let Some(subnet) = items.next().await {
            let subnet = subnet.map_err(|e| site.fail("DescribeSubnets", site.suffix, e))?;
            found.push(site.found::<Subnet>(subnet.subnet_id().unwrap_or_default(), key_of(subnet.tags())));
        }
        Ok(found)
    }
}
