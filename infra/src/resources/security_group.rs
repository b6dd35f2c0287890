//! A security group with all its rules: what is not in the `Spec` is revoked, the allow-all egress rule that AWS adds
//! included. Found by its `understudy:resource` tag.

use aws_sdk_ec2::types::{
    IpPermission, IpRange, PrefixListId, ResourceType, SecurityGroup as Described, UserIdGroupPair,
};
use serde::{Deserialize, Serialize};

use super::ec2::{find, in_use, key_of, put_tags, stack_filter, tag_specification, tagged};
use crate::error::{KindError, absent};
use crate::kind::{Found, Kind, Live, Site};

/// The kind.
#[derive(Debug)]
pub struct SecurityGroup;

/// What we want.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Spec {
    /// Its name, unique in the VPC.
    pub name: String,
    /// What it is for.
    pub description: String,
    /// The VPC.
    pub vpc_id: String,
    /// What may come in, sorted.
    pub ingress: Vec<Rule>,
    /// What may go out, sorted.
    pub egress: Vec<Rule>,
    /// It carries our tags.
    pub tagged: bool,
}

/// One allowed way.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Rule {
    /// `tcp`, or `-1` for everything.
    pub protocol: String,
    /// First port; -1 for all.
    pub from_port: i32,
    /// Last port; -1 for all.
    pub to_port: i32,
    /// The other side: a network, `sg-...`, or `pl-...`.
    pub peer: String,
}

impl Rule {
    /// One TCP port.
    pub fn tcp(port: i32, peer: impl Into<String>) -> Self {
        Rule {
            protocol: "tcp".into(),
            from_port: port,
            to_port: port,
            peer: peer.into(),
        }
    }
}

/// What others refer to.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Outputs {
    /// `sg-...`
    pub group_id: String,
}

impl Kind for SecurityGroup {
    const NAME: &'static str = "security-group";
    const IMMUTABLE: &'static [&'static str] = &["name", "description", "vpc_id"];
    const ARNS: &'static [&'static str] = &["ec2:security-group/"];

    type Spec = Spec;
    type Outputs = Outputs;

    async fn observe(site: &Site<'_>, spec: &Spec) -> Result<Option<Live<Spec, Outputs>>, KindError> {
        let describe = |filters| async move {
            let request = site.cloud.ec2(site.region).describe_security_groups();
            let result = request.set_filters(Some(filters)).send().await;
            let answer = result.map_err(|e| site.fail("DescribeSecurityGroups", site.key, e))?;
            Ok(answer.security_groups.unwrap_or_default())
        };
        let Some(group) = find(site, &spec.name, describe, Described::tags).await? else {
            return Ok(None);
        };
        Ok(Some(Live {
            spec: Spec {
                name: group.group_name().unwrap_or_default().to_owned(),
                description: group.description().unwrap_or_default().to_owned(),
                vpc_id: group.vpc_id().unwrap_or_default().to_owned(),
                ingress: rules(group.ip_permissions()),
                egress: rules(group.ip_permissions_egress()),
                tagged: tagged(site, group.tags()),
            },
            outputs: Outputs {
                group_id: group.group_id().unwrap_or_default().to_owned(),
            },
            settling: None,
        }))
    }

    /// Leaves the rules to `update`, which also revokes the one that AWS adds.
    async fn create(site: &Site<'_>, spec: &Spec) -> Result<(), KindError> {
        site.cloud
            .ec2(site.region)
            .create_security_group()
            .group_name(&spec.name)
            .description(&spec.description)
            .vpc_id(&spec.vpc_id)
            .tag_specifications(tag_specification(site, ResourceType::SecurityGroup, &spec.name))
            .send()
            .await
            .map_err(|e| site.fail("CreateSecurityGroup", &spec.name, e))?;
        Ok(())
    }

    async fn update(site: &Site<'_>, spec: &Spec, live: &Live<Spec, Outputs>) -> Result<(), KindError> {
        let ec2 = site.cloud.ec2(site.region);
        let id = &live.outputs.group_id;
        if let Some(extra) = missing(&live.spec.ingress, &spec.ingress) {
            let result = ec2
                .revoke_security_group_ingress()
                .group_id(id)
                .set_ip_permissions(Some(extra))
                .send();
            absent(result.await, &["InvalidPermission.NotFound"])
                .map_err(|e| site.fail("RevokeSecurityGroupIngress", id, e))?;
        }
        if let Some(extra) = missing(&live.spec.egress, &spec.egress) {
            let result = ec2
                .revoke_security_group_egress()
                .group_id(id)
                .set_ip_permissions(Some(extra))
                .send();
            absent(result.await, &["InvalidPermission.NotFound"])
                .map_err(|e| site.fail("RevokeSecurityGroupEgress", id, e))?;
        }
        if let Some(new) = missing(&spec.ingress, &live.spec.ingress) {
            let result = ec2
                .authorize_security_group_ingress()
                .group_id(id)
                .set_ip_permissions(Some(new))
                .send();
            absent(result.await, &["InvalidPermission.Duplicate"])
                .map_err(|e| site.fail("AuthorizeSecurityGroupIngress", id, e))?;
        }
        if let Some(new) = missing(&spec.egress, &live.spec.egress) {
            let result = ec2
                .authorize_security_group_egress()
                .group_id(id)
                .set_ip_permissions(Some(new))
                .send();
            absent(result.await, &["InvalidPermission.Duplicate"])
                .map_err(|e| site.fail("AuthorizeSecurityGroupEgress", id, e))?;
        }
        if !live.spec.tagged {
            put_tags(site, id, &spec.name).await?;
        }
        Ok(())
    }

    async fn delete(site: &Site<'_>, live: &Live<Spec, Outputs>) -> Result<(), KindError> {
        Self::discard(site, &live.outputs.group_id).await
    }

    async fn discard(site: &Site<'_>, id: &str) -> Result<(), KindError> {
        let request = site.cloud.ec2(site.region).delete_security_group();
        let result = absent(request.group_id(id).send().await, &["InvalidGroup.NotFound"]);
        match result.map_err(|e| site.fail("DeleteSecurityGroup", id, e)) {
            Err(refusal) => Err(in_use(site, "group-id", id, refusal).await),
            Ok(_) => Ok(()),
        }
    }

    async fn list(site: &Site<'_>) -> Result<Vec<Found>, KindError> {
        let request = site.cloud.ec2(site.region).describe_security_groups();
        let pages = request.filters(stack_filter(site)).into_paginator().items();
        let groups: Result<Vec<_>, _> = pages.send().collect().await;
        let groups = groups.map_err(|e| site.fail("DescribeSecurityGroups", site.suffix, e))?;
        let found = |group: &Described| {
            site.found::<SecurityGroup>(group.group_id().unwrap_or_default(), key_of(group.tags()))
        };
        Ok(groups.iter().map(found).collect())
    }
}

/// One rule per peer, sorted: AWS groups them as it likes.
fn rules(permissions: &[IpPermission]) -> Vec<Rule> {
    let mut rules = Vec::new();
    for permission in permissions {
        let groups = permission
            .user_id_group_pairs()
            .iter()
            .filter_map(UserIdGroupPair::group_id);
        let networks = permission.ip_ranges().iter().filter_map(IpRange::cidr_ip);
        let six = permission
            .ipv6_ranges()
            .iter()
            .filter_map(|range| range.cidr_ipv6());
        let lists = permission
            .prefix_list_ids()
            .iter()
            .filter_map(PrefixListId::prefix_list_id);
        for peer in groups.chain(networks).chain(six).chain(lists) {
            rules.push(Rule {
                protocol: permission.ip_protocol().unwrap_or("-1").to_owned(),
                from_port: permission.from_port().unwrap_or(-1),
                to_port: permission.to_port().unwrap_or(-1),
                peer: peer.to_owned(),
            });
        }
    }
    rules.sort();
    rules
}

/// What `wanted` has and `there` lacks, as AWS takes it; `None` when nothing.
fn missing(wanted: &[Rule], there: &[Rule]) -> Option<Vec<IpPermission>> {
    let new: Vec<IpPermission> = wanted
        .iter()
        .filter(|rule| !there.contains(rule))
        .map(permission)
        .collect();
    (!new.is_empty()).then_some(new)
}

fn permission(rule: &Rule) -> IpPermission {
    let all = rule.protocol == "-1";
    let builder = IpPermission::builder()
        .ip_protocol(&rule.protocol)
        .set_from_port((!all).then_some(rule.from_port))
        .set_to_port((!all).then_some(rule.to_port));
    let peer = rule.peer.as_str();
    if peer.starts_with("sg-") {
        builder.user_id_group_pairs(UserIdGroupPair::builder().group_id(peer).build())
    } else if peer.starts_with("pl-") {
        builder.prefix_list_ids(PrefixListId::builder().prefix_list_id(peer).build())
    } else if peer.contains(':') {
        builder.ipv6_ranges(aws_sdk_ec2::types::Ipv6Range::builder().cidr_ipv6(peer).build())
    } else {
        builder.ip_ranges(IpRange::builder().cidr_ip(peer).build())
    }
    .build()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rule_read_back_is_the_rule_that_was_sent() {
        let mut sent = vec![
            Rule::tcp(5432, "sg-1"),
            Rule::tcp(443, "10.0.0.0/16"),
            Rule::tcp(443, "pl-1"),
            Rule {
                protocol: "-1".into(),
                from_port: -1,
                to_port: -1,
                peer: "::/0".into(),
            },
        ];
        sent.sort();
        let wire: Vec<IpPermission> = sent.iter().map(permission).collect();
        assert_eq!(rules(&wire), sent);
        assert_eq!(missing(&sent, &sent), None);
    }
}
