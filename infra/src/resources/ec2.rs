//! What the EC2 kinds share: finding ours by tag, tagging, and what stands in the way of a deletion. Not a kind.

use std::collections::HashMap;

use aws_sdk_ec2::types::{
    Filter, NetworkInterface, NetworkInterfaceType, ResourceType, Tag, TagSpecification,
};

use crate::error::KindError;
use crate::kind::{RESOURCE_TAG, STACK_TAG, Site, tags};

fn by_tag(key: &str, value: &str) -> Filter {
    Filter::builder().name(format!("tag:{key}")).values(value).build()
}

/// Everything of this stack.
pub(super) fn stack_filter(site: &Site<'_>) -> Filter {
    by_tag(STACK_TAG, site.suffix)
}

/// This node's resource: by its two tags, or, when somebody took one of them away, by its `Name` and the other one. To make a
/// second VPC because of a lost tag would be worse than to ask twice before something is made. The first look of a run takes
/// it from one listing of the stack's resources in the region.
pub(super) async fn find<T, F>(
    site: &Site<'_>,
    name: &str,
    describe: impl Fn(Vec<Filter>) -> F,
    tags: impl Fn(&T) -> &[Tag],
) -> Result<Option<T>, KindError>
where
    T: Send + 'static,
    F: Future<Output = Result<Vec<T>, KindError>>,
{
    let list = async {
        let mut by_key = HashMap::new();
        for one in describe(vec![stack_filter(site)]).await? {
            by_key.entry(tag(tags(&one), RESOURCE_TAG)).or_insert(one);
        }
        Ok(by_key)
    };
    let listed = site.cloud.first_look(site.region, site.suffix, site.key, list);
    if let Some(found) = listed.await? {
        return Ok(Some(found));
    }
    let ours = vec![stack_filter(site), by_tag(RESOURCE_TAG, site.key)];
    if let Some(found) = describe(ours).await?.into_iter().next() {
        return Ok(Some(found));
    }
    let named = describe(vec![by_tag("Name", name)]).await?;
    Ok(named.into_iter().find(|one| half_ours(site, tags(one))))
}

/// Whether one of the two tags is ours and the other one nobody else's.
fn half_ours(site: &Site<'_>, tags: &[Tag]) -> bool {
    let stack = tag(tags, STACK_TAG);
    stack == site.suffix || (stack.is_empty() && tag(tags, RESOURCE_TAG) == site.key)
}

fn all_tags(site: &Site<'_>, name: &str) -> Vec<Tag> {
    std::iter::once(("Name".to_owned(), name.to_owned()))
        .chain(tags(site))
        .map(|(key, value)| Tag::builder().key(key).value(value).build())
        .collect()
}

/// Our tags and a `Name`, set by the creating call itself, so that a crash right after it leaves nothing unnamed.
pub(super) fn tag_specification(site: &Site<'_>, resource: ResourceType, name: &str) -> TagSpecification {
    TagSpecification::builder()
        .resource_type(resource)
        .set_tags(Some(all_tags(site, name)))
        .build()
}

/// The value of a tag; empty when there is none.
pub(super) fn tag(tags: &[Tag], key: &str) -> String {
    tags.iter()
        .find(|tag| tag.key() == Some(key))
        .and_then(Tag::value)
        .unwrap_or_default()
        .to_owned()
}

/// Whether all of our tags are there.
pub(super) fn tagged(site: &Site<'_>, live: &[Tag]) -> bool {
    let pairs = live.iter().filter_map(|tag| tag.key().zip(tag.value()));
    super::tagging::tagged(site, pairs)
}

/// The blueprint key of a listed resource.
pub(super) fn key_of(tags: &[Tag]) -> Option<String> {
    Some(tag(tags, RESOURCE_TAG)).filter(|key| !key.is_empty())
}

/// Sets our tags and the `Name`. Those of others stay.
pub(super) async fn put_tags(site: &Site<'_>, id: &str, name: &str) -> Result<(), KindError> {
    site.cloud
        .ec2(site.region)
        .create_tags()
        .resources(id)
        .set_tags(Some(all_tags(site, name)))
        .send()
        .await
        .map_err(|e| site.fail("CreateTags", id, e))?;
    Ok(())
}

/// What a resource with a `state` is still doing.
pub(super) fn unsettled(what: &str, state: Option<&str>) -> Option<String> {
    state
        .filter(|state| *state != "available")
        .map(|state| format!("{what} is {state}"))
}

/// AWS's refusal to delete a group or subnet, with what it does not say: whose network interfaces are still in it. `filter` is
/// what DescribeNetworkInterfaces calls it: `group-id`, `subnet-id`.
pub(super) async fn in_use(site: &Site<'_>, filter: &str, id: &str, mut refusal: KindError) -> KindError {
    if refusal.code() != Some("DependencyViolation") {
        return refusal;
    }
    let request = site.cloud.ec2(site.region).describe_network_interfaces();
    let answer = request
        .filters(Filter::builder().name(filter).values(id).build())
        .send()
        .await;
    // Without an answer the refusal stands as it is.
    if let Some(who) = answer
        .ok()
        .and_then(|answer| occupants(answer.network_interfaces()))
    {
        refusal.cause.message = format!("{}; {who}", refusal.cause.message);
    }
    refusal
}

fn occupants(interfaces: &[NetworkInterface]) -> Option<String> {
    let of_lambda = |one: &&NetworkInterface| {
        one.interface_type() == Some(&NetworkInterfaceType::Lambda)
            || one
                .description()
                .is_some_and(|text| text.starts_with("AWS Lambda VPC ENI"))
    };
    let (lambda, others): (Vec<_>, Vec<_>) = interfaces.iter().partition(of_lambda);
    let mut texts = Vec::new();
    if !lambda.is_empty() {
        texts.push(format!(
            "network interfaces of Lambda functions in it: {}; Lambda takes them away by itself, mostly within 20 minutes of \
             the function's deletion, at times after 45",
            lambda.len()
        ));
    }
    if !others.is_empty() {
        let ids: Vec<_> = others
            .iter()
            .filter_map(|one| one.network_interface_id())
            .collect();
        texts.push(format!("other network interfaces in it: {}", ids.join(", ")));
    }
    (!texts.is_empty()).then(|| texts.join("; "))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::super::testing::Place;
    use super::*;

    fn tags_of(pairs: &[(&str, &str)]) -> Vec<Tag> {
        pairs
            .iter()
            .map(|(key, value)| Tag::builder().key(*key).value(*value).build())
            .collect()
    }

    #[test]
    fn what_lost_one_of_its_two_tags_is_still_ours_and_what_another_stack_claims_is_not() {
        let place = Place::new();
        let site = place.site("vpc.primary");
        assert!(half_ours(&site, &tags_of(&[(STACK_TAG, "dev")])));
        assert!(half_ours(&site, &tags_of(&[(RESOURCE_TAG, "vpc.primary")])));
        assert!(!half_ours(
            &site,
            &tags_of(&[(STACK_TAG, "prod"), (RESOURCE_TAG, "vpc.primary")])
        ));
        assert!(!half_ours(&site, &tags_of(&[("Name", "vpc-primary-dev")])));
    }

    #[test]
    fn every_one_of_our_tags_must_be_there_and_others_may() {
        let place = Place::new();
        let site = place.site("vpc.primary");
        let mut live = all_tags(&site, "vpc-primary-dev");
        live.push(Tag::builder().key("owner").value("somebody").build());
        assert!(tagged(&site, &live));
        assert!(!tagged(&site, &live[..live.len() - 2]));
    }

    #[test]
    fn a_refused_deletion_says_whose_interfaces_are_in_the_way_and_how_long_they_stay() {
        let interface = |kind, id: &str| {
            NetworkInterface::builder()
                .interface_type(kind)
                .network_interface_id(id)
                .build()
        };
        let text = occupants(&[
            interface(NetworkInterfaceType::Lambda, "eni-1"),
            interface(NetworkInterfaceType::Lambda, "eni-2"),
            interface(NetworkInterfaceType::Interface, "eni-3"),
        ]);
        let text = text.unwrap();
        assert!(text.contains("Lambda functions in it: 2;"), "{text}");
        assert!(text.contains("45") && text.ends_with("eni-3"), "{text}");
        assert_eq!(occupants(&[]), None);
    }
}
