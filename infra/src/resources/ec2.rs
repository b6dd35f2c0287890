//! What the EC2 kinds share: finding ours by tag, tagging at creation. Not a kind.

use aws_sdk_ec2::types::{Filter, ResourceType, Tag, TagSpecification};

use crate::error::KindError;
use crate::kind::{RESOURCE_TAG, STACK_TAG, Site, tags};

/// Everything of this stack.
pub(super) fn stack_filter(site: &Site<'_>) -> Filter {
    Filter::builder()
        .name(format!("tag:{STACK_TAG}"))
        .values(site.suffix)
        .build()
}

/// This node's resource.
pub(super) fn ours(site: &Site<'_>) -> Vec<Filter> {
    vec![
        stack_filter(site),
        Filter::builder()
            .name(format!("tag:{RESOURCE_TAG}"))
            .values(site.key)
            .build(),
    ]
}

/// Our tags and a `Name`, set by the creating call itself, so that a crash right after it leaves nothing unnamed.
pub(super) fn tag_specification(site: &Site<'_>, resource: ResourceType, name: &str) -> TagSpecification {
    let named = std::iter::once(("Name", name.to_owned()));
    let all = named
        .chain(tags(site))
        .map(|(key, value)| Tag::builder().key(key).value(value).build());
    TagSpecification::builder()
        .resource_type(resource)
        .set_tags(Some(all.collect()))
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

/// The blueprint key of a listed resource.
pub(super) fn key_of(tags: &[Tag]) -> Option<String> {
    Some(tag(tags, RESOURCE_TAG)).filter(|key| !key.is_empty())
}

/// Sets the `Name` tag when it differs.
pub(super) async fn rename(site: &Site<'_>, id: &str, wanted: &str, live: &str) -> Result<(), KindError> {
    if wanted == live {
        return Ok(());
    }
    site.cloud
        .ec2(site.region)
        .create_tags()
        .resources(id)
        .tags(Tag::builder().key("Name").value(wanted).build())
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
