//! What of ours exists, in every region: by every kind's own listing, and by tag. After a teardown it must be empty.
//!
//! The tagging API goes on showing for a while what was deleted, keys that wait for their deletion and clusters that are gone
//! among it. So what it shows counts only where no kind's listing would know better: see [`unexplained`].

use std::collections::BTreeSet;
use std::fmt;

use continuity::names::Slot;
use futures::StreamExt;
use futures::future::BoxFuture;
use serde::Serialize;

use super::Options;
use crate::cloud::Cloud;
use crate::error::KindError;
use crate::kind::{Found, Lister, Scope, Site};
use crate::resources;
use crate::spec::Spec;
use crate::tagged::Tagged;

/// The kind of what only the tagging API knows.
pub const TAGGED: &str = "tagged";

/// Where to look for what belongs to a stack, whatever its configuration says: how it is marked, and the regions it may be in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Extent<'a> {
    /// The suffix, which every tag and name has.
    pub suffix: &'a str,
    /// The account.
    pub account: &'a str,
    /// The regions. The first is asked about what has no region.
    pub regions: Vec<&'a str>,
}

impl<'a> Extent<'a> {
    /// All regions of the stack.
    pub fn of(spec: &'a Spec, account: &'a str) -> Self {
        Extent {
            suffix: &spec.suffix,
            account,
            regions: Slot::ALL.map(|slot| spec.regions.of(slot)).into(),
        }
    }

    /// One thing, or one listing, in one of the regions.
    pub(super) fn site<'s>(&'s self, cloud: &'s Cloud, region: &'s str, key: &'s str) -> Site<'s> {
        Site {
            cloud,
            region,
            key,
            suffix: self.suffix,
            account: self.account,
            extra_tags: &[],
        }
    }
}

/// What was found, and where it was not possible to look.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Inventory {
    /// Everything of ours, sorted.
    pub found: Vec<Found>,
    /// What AWS itself holds back: deletion has begun, and ends later.
    pub held_back: Vec<Found>,
    /// Listings that failed. An inventory with any of them proves nothing.
    pub errors: Vec<String>,
}

impl Inventory {
    /// Nothing is left, and every place was looked at.
    pub fn is_empty(&self) -> bool {
        self.found.is_empty() && self.errors.is_empty()
    }

    /// What carries the stack's tags and a key that is none of `keys`: it was in the configuration once. What has no key is
    /// part of something that has one.
    pub fn strangers(&self, keys: &BTreeSet<String>) -> Vec<Found> {
        let gone = |found: &&Found| found.key.as_ref().is_some_and(|key| !keys.contains(key));
        self.found.iter().filter(gone).cloned().collect()
    }
}

impl fmt::Display for Inventory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for found in &self.found {
            writeln!(f, "{} {} in {}", found.kind, found.id, found.region)?;
        }
        for held in &self.held_back {
            let until = held.held_back.as_deref().unwrap_or_default();
            writeln!(
                f,
                "held back: {} {} in {}: {until}",
                held.kind, held.id, held.region
            )?;
        }
        for error in &self.errors {
            writeln!(f, "not listed: {error}")?;
        }
        write!(f, "{} left", self.found.len())
    }
}

/// Lists everything of the stack.
///
/// Reads only.
pub async fn inventory(extent: &Extent<'_>, cloud: &Cloud, options: &Options) -> Inventory {
    let cloud = &cloud.anew();
    let listers = resources::listers();
    let mut inventory = list_with(&listers, extent, cloud, options).await;
    for region in &extent.regions {
        match patiently(options, || cloud.tagged(region, extent.suffix)).await {
            Ok(listing) => {
                let more = unexplained(&listing, region, &listers, &inventory);
                inventory.found.extend(more);
            }
            Err(error) => inventory.errors.push(error.chain()),
        }
    }
    inventory.found.sort();
    inventory.errors.sort();
    inventory
}

/// Kinds with our tags that the tagging API does not show:
/// <https://docs.aws.amazon.com/resourcegroupstagging/latest/APIReference/supported-services.html>
const NOT_SHOWN: [&str; 1] = ["iam-role"];

/// What of the stack is in no blueprint: its keys are none of `keys`. See [`Inventory::strangers`].
///
/// 1. Asks the tagging API in every region, and lists what that does not show.
/// 2. Only if one of the two shows a stranger, or fails, reads the whole inventory, which knows what is really there.
///
/// Reads only: some calls for a stack in order, and none for each of its resources.
pub async fn strangers(
    keys: &BTreeSet<String>,
    extent: &Extent<'_>,
    cloud: &Cloud,
    options: &Options,
) -> (Vec<Found>, Vec<String>) {
    let anew = &cloud.anew();
    let mut listers = resources::listers();
    listers.retain(|lister| NOT_SHOWN.contains(&lister.name()));
    let tagged = extent
        .regions
        .iter()
        .map(|region| patiently(options, || anew.tagged(region, extent.suffix)));
    let (tagged, listed) = futures::join!(
        futures::future::join_all(tagged),
        list_with(&listers, extent, anew, options)
    );
    let known = |key: Option<String>| key.is_none_or(|key| keys.contains(&key));
    let in_order = tagged.iter().all(|listing| {
        let listing = listing.as_ref();
        listing.is_ok_and(|listing| listing.arns().all(|arn| known(listing.key(arn))))
    });
    if in_order && listed.errors.is_empty() && listed.strangers(keys).is_empty() {
        return (Vec::new(), Vec::new());
    }
    let inventory = inventory(extent, cloud, options).await;
    (inventory.strangers(keys), inventory.errors)
}

/// What carries the stack's tag and is neither something that a kind's listing found, nor of a sort that a kind lists: what
/// such a kind did not find does not exist any more, whatever the tagging API still says.
fn unexplained(listing: &Tagged, region: &str, listers: &[Lister], inventory: &Inventory) -> Vec<Found> {
    let known: Vec<&str> = listers.iter().flat_map(|lister| lister.arns()).copied().collect();
    let found = || inventory.found.iter().chain(&inventory.held_back);
    listing
        .arns()
        .filter(|arn| !known.iter().any(|sort| short(arn).starts_with(sort)))
        .filter(|arn| !found().any(|found| belongs_to(arn, &found.id)))
        .map(|arn| Found {
            kind: TAGGED.to_owned(),
            region: region.to_owned(),
            id: arn.to_owned(),
            key: listing.key(arn),
            held_back: None,
        })
        .collect()
}

/// `service:resource` of an ARN.
fn short(arn: &str) -> String {
    let mut parts = arn.splitn(6, ':').skip(2);
    let service = parts.next().unwrap_or_default();
    format!("{service}:{}", parts.nth(2).unwrap_or_default())
}

/// Whether an ARN is of the thing with this id or name, or of a part of it.
fn belongs_to(arn: &str, id: &str) -> bool {
    !id.is_empty()
        && (arn
            .strip_suffix(id)
            .is_some_and(|front| front.ends_with([':', '/']))
            || arn.contains(&format!("/{id}/")))
}

pub(super) async fn list_with(
    listers: &[Lister],
    extent: &Extent<'_>,
    cloud: &Cloud,
    options: &Options,
) -> Inventory {
    let mut jobs: Vec<BoxFuture<'_, Result<Vec<Found>, KindError>>> = Vec::new();
    for lister in listers {
        let asked = match lister.scope() {
            Scope::Global => &extent.regions[..extent.regions.len().min(1)],
            Scope::Regional => &extent.regions,
        };
        for region in asked {
            let site = extent.site(cloud, region, "");
            jobs.push(Box::pin(async move {
                patiently(options, || lister.list(&site)).await
            }));
        }
    }
    let mut answers = futures::stream::iter(jobs).buffer_unordered(options.concurrency.max(1));
    let mut inventory = Inventory::default();
    while let Some(answer) = answers.next().await {
        match answer {
            Ok(found) => {
                let (held, left): (Vec<_>, Vec<_>) =
                    found.into_iter().partition(|one| one.held_back.is_some());
                inventory.held_back.extend(held);
                inventory.found.extend(left);
            }
            Err(error) => inventory.errors.push(error.chain()),
        }
    }
    inventory.found.sort();
    inventory.held_back.sort();
    inventory.errors.sort();
    inventory
}

async fn patiently<T, F>(options: &Options, ask: impl Fn() -> F) -> Result<T, KindError>
where
    F: Future<Output = Result<T, KindError>>,
{
    const ATTEMPTS: u32 = 3;
    let mut attempt = 1;
    loop {
        match ask().await {
            Err(error) if error.class.patience().is_some() && attempt < ATTEMPTS => {
                options.clock.sleep(super::FIRST_PAUSE * 4u32.pow(attempt)).await;
                attempt += 1;
            }
            answer => return answer,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;
    use crate::kind::RESOURCE_TAG;

    fn listing(arns: &[&str]) -> Tagged {
        let tags = HashMap::from([(RESOURCE_TAG.to_owned(), "some.key".to_owned())]);
        arns.iter().map(|arn| ((*arn).to_owned(), tags.clone())).collect()
    }

    fn strangers(arns: &[&str], inventory: &Inventory) -> Vec<String> {
        let more = unexplained(&listing(arns), "us-east-1", &resources::listers(), inventory);
        more.into_iter().map(|found| found.id).collect()
    }

    #[test]
    fn what_the_tagging_api_still_shows_of_a_kind_that_finds_nothing_is_gone() {
        let gone = [
            "arn:aws:kms:us-east-1:000000000000:key/mrk-1",
            "arn:aws:rds:us-east-1:000000000000:cluster:aurora-primary-dev",
            "arn:aws:ec2:us-east-1:000000000000:vpc/vpc-1",
            "arn:aws:apigateway:us-east-1::/restapis/abc/stages/live",
            "arn:aws:s3:::artifacts-primary-dev-000000000000",
            "arn:aws:secretsmanager:us-east-1:000000000000:secret:aurora-credentials-dev-AbCdEf",
            "arn:aws:logs:us-east-1:000000000000:log-group:/aws/lambda/health-probe-primary-dev",
        ];
        assert_eq!(strangers(&gone, &Inventory::default()), Vec::<String>::new());
    }

    #[test]
    fn what_no_kind_lists_is_reported_with_its_arn_and_key() {
        let proxy = "arn:aws:rds:us-east-1:000000000000:db-proxy:by-hand";
        let more = unexplained(
            &listing(&[proxy]),
            "us-east-1",
            &resources::listers(),
            &Inventory::default(),
        );
        assert_eq!(more.len(), 1);
        assert_eq!((more[0].kind.as_str(), more[0].id.as_str()), (TAGGED, proxy));
        assert_eq!(more[0].key.as_deref(), Some("some.key"));
    }

    #[test]
    fn what_a_listing_found_is_not_reported_twice() {
        let found = |id: &str| Found {
            kind: "widget".into(),
            region: "us-east-1".into(),
            id: id.into(),
            key: None,
            held_back: None,
        };
        let inventory = Inventory {
            found: vec![found("w-1")],
            held_back: vec![found("going")],
            errors: Vec::new(),
        };
        let arns = [
            "arn:aws:widgets:us-east-1:000000000000:widget/w-1",
            "arn:aws:widgets:us-east-1:000000000000:widget/w-1/part/2",
            "arn:aws:widgets:us-east-1:000000000000:widget:going",
            "arn:aws:widgets:us-east-1:000000000000:widget/aw-1",
        ];
        assert_eq!(strangers(&arns, &inventory), [arns[3]]);
    }
}
