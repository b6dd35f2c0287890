//! What the kinds outside EC2 share about telling ours from others': by tags, or by name. Not a kind.

use std::collections::HashMap;
use std::sync::Arc;

use continuity::names::Slot;

use crate::kind::{RESOURCE_TAG, STACK_TAG, Site, tags};
use crate::tagged::Tagged;

/// What carries the stack's tag in the site's region. Nothing when the tagging API does not answer: names, and a question for
/// each single resource, must do then.
pub(super) async fn listing(site: &Site<'_>) -> Arc<Tagged> {
    listing_of(site, site.region).await
}

async fn listing_of(site: &Site<'_>, region: &str) -> Arc<Tagged> {
    site.cloud
        .tagged(region, site.suffix)
        .await
        .unwrap_or_else(|error| {
            tracing::debug!(error = %error.chain(), "no listing by tag");
            Arc::default()
        })
}

/// Whether the region's listing shows all of our tags on a resource. One listing answers for all kinds whose descriptions have
/// no tags. It lags behind: only a yes counts, after a no the resource itself is asked.
pub(super) async fn listed_tagged(site: &Site<'_>, arn: &str) -> bool {
    shows(site, &*listing(site).await, arn)
}

/// The same for Route 53.
pub(super) async fn listed_tagged_globally(site: &Site<'_>, arn: &str) -> bool {
    shows(site, &*global_listing(site).await, arn)
}

/// The listing that has Route 53's resources, whatever the home region is.
pub(super) async fn global_listing(site: &Site<'_>) -> Arc<Tagged> {
    listing_of(site, "us-east-1").await
}

fn shows(site: &Site<'_>, listing: &Tagged, arn: &str) -> bool {
    listing.tags(arn).is_some_and(|live| tagged(site, pairs(live)))
}

/// Our tags as the map that most builders take.
pub(super) fn tag_map(site: &Site<'_>) -> HashMap<String, String> {
    tags(site).into_iter().collect()
}

/// Whether all of our tags are there; tags that others added are theirs.
pub(super) fn tagged<'t>(site: &Site<'_>, live: impl IntoIterator<Item = (&'t str, &'t str)>) -> bool {
    let live: HashMap<_, _> = live.into_iter().collect();
    tags(site)
        .iter()
        .all(|(key, value)| live.get(key.as_str()) == Some(&value.as_str()))
}

/// The blueprint key among the tags; `None` when they are not of this stack.
pub(super) fn key_of<'t>(
    site: &Site<'_>,
    live: impl IntoIterator<Item = (&'t str, &'t str)>,
) -> Option<String> {
    let live: HashMap<_, _> = live.into_iter().collect();
    (live.get(STACK_TAG) == Some(&site.suffix))
        .then(|| live.get(RESOURCE_TAG).map(|&key| key.to_owned()))
        .flatten()
}

/// A string map as pairs, for the two functions above.
pub(super) fn pairs(map: &HashMap<String, String>) -> impl Iterator<Item = (&str, &str)> {
    map.iter().map(|(key, value)| (key.as_str(), value.as_str()))
}

/// Whether this is a name that a stack of this suffix gives: `{what}-{slot}-{suffix}`. What stack `x-dev` made does not
/// belong to stack `dev`, although its names end alike.
pub(super) fn named_ours(name: &str, suffix: &str) -> bool {
    name.strip_suffix(suffix)
        .and_then(|name| name.strip_suffix('-'))
        .and_then(|name| name.rsplit_once('-'))
        .is_some_and(|(_, slot)| Slot::parse(slot).is_some())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stack_whose_suffix_ends_like_ours_is_another_stack() {
        assert!(named_ours("health-probe-dr-dev", "dev"));
        assert!(!named_ours("health-probe-dr-x-dev", "dev"));
        assert!(!named_ours("health-probe-dr-xdev", "dev"));
        assert!(!named_ours("something-dev", "dev"));
    }
}
