//! Networks: VPCs do not overlap each other (nobody could ever connect them), subnets lie in their VPC and not over each other.
//! The local cloud takes all of this; AWS refuses some of it, minutes into a deployment.

use std::collections::HashMap;

use super::{Finding, Rule, Stack};
use crate::placeholder;
use crate::spec::Cidr;
use crate::wanted::Wanted;

#[cfg(test)]
pub(super) const KINDS: &[&str] = &["subnet", "vpc"];

/// The rule.
pub(super) fn check(stack: &Stack<'_>, findings: &mut Vec<Finding>) {
    let vpcs = networks(stack.of("vpc"), findings);
    apart(&vpcs, findings);
    let mut by_vpc: HashMap<&str, Vec<(Cidr, &Wanted)>> = HashMap::new();
    for (cidr, subnet) in networks(stack.of("subnet"), findings) {
        by_vpc
            .entry(subnet.text("vpc_id"))
            .or_default()
            .push((cidr, subnet));
    }
    let of_vpc: HashMap<&str, Cidr> = vpcs.iter().map(|(cidr, vpc)| (vpc.key.as_str(), *cidr)).collect();
    for (vpc_id, subnets) in &by_vpc {
        apart(subnets, findings);
        let Some(outer) = placeholder::all_in(vpc_id)
            .next()
            .and_then(|(key, _)| of_vpc.get(key))
        else {
            continue;
        };
        for (cidr, subnet) in subnets.iter().filter(|(cidr, _)| !cidr.within(*outer)) {
            findings.push(subnet.finding(
                Rule::Network,
                format!("its network {cidr} is not inside its VPC's {outer}"),
                "AWS refuses the subnet; give it a part of the VPC's network",
            ));
        }
    }
}

fn networks<'a>(
    all: impl Iterator<Item = &'a Wanted>,
    findings: &mut Vec<Finding>,
) -> Vec<(Cidr, &'a Wanted)> {
    let mut networks = Vec::new();
    for one in all {
        let text = one.text("cidr");
        match Cidr::parse(text) {
            Some(cidr) => networks.push((cidr, one)),
            None => findings.push(one.finding(
                Rule::Network,
                format!("`{text}` is no network"),
                "use for example 10.0.0.0/16",
            )),
        }
    }
    networks
}

/// Sorted by their first address, of two that overlap the later one overlaps the largest end so far. So one pass does.
fn apart(networks: &[(Cidr, &Wanted)], findings: &mut Vec<Finding>) {
    let mut sorted: Vec<_> = networks.iter().collect();
    sorted.sort_by_key(|(cidr, one)| (cidr.range(), &one.key));
    let mut widest: Option<&(Cidr, &Wanted)> = None;
    for next in sorted {
        if let Some((cidr, one)) = widest
            && cidr.overlaps(next.0)
        {
            findings.push(next.1.finding(
                Rule::Network,
                format!("its network {} overlaps {cidr} of `{}`", next.0, one.key),
                "give them networks that share no address",
            ));
        }
        if widest.is_none_or(|(cidr, _)| cidr.range().1 < next.0.range().1) {
            widest = Some(next);
        }
    }
}
