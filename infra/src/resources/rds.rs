//! What the RDS kinds share: tags, names, error codes. Not a kind.

use aws_sdk_rds::types::Tag;
use continuity::names::{Names, Slot};

use crate::error::KindError;
use crate::kind::{RESOURCE_TAG, STACK_TAG, Site, tags};

/// RDS spells its codes with and without `Fault`, differently for each resource.
pub(super) const NO_CLUSTER: &[&str] = &["DBClusterNotFoundFault", "DBClusterNotFound"];
pub(super) const NO_INSTANCE: &[&str] = &["DBInstanceNotFound", "DBInstanceNotFoundFault"];
pub(super) const NO_SNAPSHOT: &[&str] = &["DBClusterSnapshotNotFoundFault", "DBClusterSnapshotNotFound"];
pub(super) const NO_GLOBAL: &[&str] = &["GlobalClusterNotFoundFault", "GlobalClusterNotFound"];
pub(super) const NO_SUBNET_GROUP: &[&str] = &["DBSubnetGroupNotFoundFault", "DBSubnetGroupNotFound"];
pub(super) const NO_PARAMETER_GROUP: &[&str] = &[
    "DBParameterGroupNotFound",
    "DBParameterGroupNotFoundFault",
    "DBClusterParameterGroupNotFound",
];

/// Our tags.
pub(super) fn tag_list(site: &Site<'_>) -> Vec<Tag> {
    tags(site)
        .into_iter()
        .map(|(key, value)| Tag::builder().key(key).value(value).build())
        .collect()
}

/// Tags as pairs.
pub(super) fn pairs(tags: &[Tag]) -> impl Iterator<Item = (&str, &str)> {
    tags.iter().filter_map(|tag| tag.key().zip(tag.value()))
}

/// Whether all of our tags are there.
pub(super) fn tagged(site: &Site<'_>, live: &[Tag]) -> bool {
    super::tagging::tagged(site, pairs(live))
}

/// The blueprint key among an RDS resource's tags.
pub(super) fn key_of(tags: &[Tag]) -> Option<String> {
    let (_, key) = pairs(tags).find(|(key, _)| *key == RESOURCE_TAG)?;
    Some(key.to_owned())
}

/// Whether a resource is ours, by its name or by its tags.
pub(super) fn ours(site: &Site<'_>, name: &str, tags: &[Tag]) -> bool {
    named_ours(site, name) || pairs(tags).any(|tag| tag == (STACK_TAG, site.suffix))
}

/// The tags of what RDS describes without them.
pub(super) async fn read_tags(site: &Site<'_>, arn: &str) -> Result<Vec<Tag>, KindError> {
    let request = site.cloud.rds(site.region).list_tags_for_resource();
    let result = request.resource_name(arn).send().await;
    let answer = result.map_err(|e| site.fail("ListTagsForResource", arn, e))?;
    Ok(answer.tag_list.unwrap_or_default())
}

/// Whether all of our tags are on what RDS describes without them.
pub(super) async fn is_tagged(site: &Site<'_>, arn: &str) -> Result<bool, KindError> {
    Ok(super::tagging::listed_tagged(site, arn).await || tagged(site, &read_tags(site, arn).await?))
}

/// The blueprint key of what RDS describes without tags, once more than its name says that it is ours.
pub(super) async fn ours_described_without_tags(
    site: &Site<'_>,
    name: &str,
    arn: &str,
) -> Result<Option<Option<String>>, KindError> {
    let listing = super::tagging::listing(site).await;
    if !named_ours(site, name) && listing.tags(arn).is_none() {
        return Ok(None);
    }
    Ok(Some(match listing.key(arn) {
        Some(key) => Some(key),
        None => key_of(&read_tags(site, arn).await?),
    }))
}

/// Sets our tags. Those of others stay.
pub(super) async fn put_tags(site: &Site<'_>, arn: &str) -> Result<(), KindError> {
    let request = site.cloud.rds(site.region).add_tags_to_resource();
    request
        .resource_name(arn)
        .set_tags(Some(tag_list(site)))
        .send()
        .await
        .map_err(|e| site.fail("AddTagsToResource", arn, e))?;
    Ok(())
}

/// The ARN of a regional resource, which follows from its name: `subgrp`, `cluster-pg`.
pub(super) fn arn(site: &Site<'_>, sort: &str, name: &str) -> String {
    format!("arn:aws:rds:{}:{}:{sort}:{name}", site.region, site.account)
}

/// Whether a name is `aurora-{slot}-{suffix}`, or begins with that and a hyphen. Names are exact: another stack's suffix may
/// end like ours.
fn named_ours(site: &Site<'_>, name: &str) -> bool {
    let names = Names::new(site.suffix);
    name == names.aurora_global()
        || Slot::ALL.into_iter().any(|slot| {
            let ours = names.aurora_cluster(slot);
            let numbered = || name.strip_prefix(&ours)?.strip_prefix('-')?.parse::<u8>().ok();
            name == ours || numbered().is_some()
        })
}

#[cfg(test)]
mod tests {
    use super::super::testing::Place;
    use super::*;

    #[test]
    fn names_are_exact_and_a_foreign_name_counts_with_our_tag_only() {
        let place = Place::new();
        let site = place.site("");
        for name in ["aurora-dev", "aurora-primary-dev", "aurora-dr-dev-2"] {
            assert!(ours(&site, name, &[]), "{name}");
        }
        for name in ["aurora-primary-x-dev", "aurora-primary-dev-new", "ledger"] {
            assert!(!ours(&site, name, &[]), "{name}");
        }
        let tag = |value| Tag::builder().key(STACK_TAG).value(value).build();
        assert!(ours(&site, "ledger", &[tag("dev")]));
        assert!(!ours(&site, "ledger", &[tag("prod")]));
    }
}
