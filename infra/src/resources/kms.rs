//! What the KMS kinds share. Not a kind. A key is found by its alias; one whose alias was never made (a crash between the two
//! calls) is found by its tags before another is made.

use aws_sdk_kms::types::{KeyMetadata, KeyState, Tag};

use super::tagging::{listed_tagged, tagged as carries};
use crate::error::{KindError, absent, code};
use crate::kind::{Found, Kind, RESOURCE_TAG, STACK_TAG, Site, tags};

/// The shortest that AWS allows.
const PENDING_DAYS: i32 = 7;
const GONE: &[&str] = &["NotFoundException"];

/// Our tags.
pub(super) fn tag_list(site: &Site<'_>) -> Vec<Tag> {
    let tag = |(key, value)| {
        Tag::builder()
            .tag_key(key)
            .tag_value(value)
            .build()
            .expect("key and value are set")
    };
    tags(site).into_iter().map(tag).collect()
}

/// Whether a key carries all of our tags.
pub(super) async fn is_tagged(site: &Site<'_>, key: &KeyMetadata) -> Result<bool, KindError> {
    if listed_tagged(site, key.arn().unwrap_or_default()).await {
        return Ok(true);
    }
    let request = site.cloud.kms(site.region).list_resource_tags();
    let result = request.key_id(key.key_id()).send().await;
    let answer = result.map_err(|e| site.fail("ListResourceTags", key.key_id(), e))?;
    let live = answer.tags().iter().map(|tag| (tag.tag_key(), tag.tag_value()));
    Ok(carries(site, live))
}

/// Puts our tags on a key.
pub(super) async fn put_tags(site: &Site<'_>, key: &str) -> Result<(), KindError> {
    let request = site.cloud.kms(site.region).tag_resource();
    let result = request.key_id(key).set_tags(Some(tag_list(site))).send().await;
    result.map_err(|e| site.fail("TagResource", key, e))?;
    Ok(())
}

/// The key behind an alias or an id.
pub(super) async fn describe(site: &Site<'_>, key: &str) -> Result<Option<KeyMetadata>, KindError> {
    let result = site
        .cloud
        .kms(site.region)
        .describe_key()
        .key_id(key)
        .send()
        .await;
    let answer = absent(result, GONE).map_err(|e| site.fail("DescribeKey", key, e))?;
    Ok(answer.and_then(|answer| answer.key_metadata))
}

/// Whether it is usable, and what AWS is still doing with it.
pub(super) fn state(key: &KeyMetadata) -> (bool, Option<String>) {
    match key.key_state() {
        Some(state @ (KeyState::Creating | KeyState::Updating)) => {
            (true, Some(format!("key is {}", state.as_str().to_lowercase())))
        }
        Some(state) => (*state == KeyState::Enabled, None),
        None => (true, None),
    }
}

fn is_going(key: &KeyMetadata) -> bool {
    matches!(
        key.key_state(),
        Some(KeyState::PendingDeletion | KeyState::PendingReplicaDeletion)
    )
}

/// Points the alias at the key, whether or not it exists.
pub(super) async fn point(site: &Site<'_>, alias: &str, key: &str) -> Result<(), KindError> {
    let kms = site.cloud.kms(site.region);
    match kms
        .create_alias()
        .alias_name(alias)
        .target_key_id(key)
        .send()
        .await
    {
        Err(error) if code(&error) == Some("AlreadyExistsException") => {
            let result = kms
                .update_alias()
                .alias_name(alias)
                .target_key_id(key)
                .send()
                .await;
            result.map_err(|e| site.fail("UpdateAlias", alias, e))?;
        }
        other => {
            other.map_err(|e| site.fail("CreateAlias", alias, e))?;
        }
    }
    Ok(())
}

/// Makes a key usable again: its deletion was begun, or somebody disabled it.
pub(super) async fn enable(site: &Site<'_>, key: &str) -> Result<(), KindError> {
    let kms = site.cloud.kms(site.region);
    if describe(site, key).await?.is_some_and(|key| is_going(&key)) {
        let cancelled = kms.cancel_key_deletion().key_id(key).send().await;
        cancelled.map_err(|e| site.fail("CancelKeyDeletion", key, e))?;
    }
    kms.enable_key()
        .key_id(key)
        .send()
        .await
        .map_err(|e| site.fail("EnableKey", key, e))?;
    Ok(())
}

/// Begins the deletion, then takes the aliases away: in this order a crash between leaves the alias, by which the rest is found.
pub(super) async fn forget(site: &Site<'_>, key: &str) -> Result<(), KindError> {
    let kms = site.cloud.kms(site.region);
    let going = describe(site, key).await?.is_none_or(|key| is_going(&key));
    if !going {
        let result = kms
            .schedule_key_deletion()
            .key_id(key)
            .pending_window_in_days(PENDING_DAYS)
            .send()
            .await;
        absent(result, GONE).map_err(|e| site.fail("ScheduleKeyDeletion", key, e))?;
    }
    let aliases = kms.list_aliases().key_id(key).send().await;
    let aliases = absent(aliases, GONE).map_err(|e| site.fail("ListAliases", key, e))?;
    let names = aliases.iter().flat_map(|answer| answer.aliases());
    for alias in names.filter_map(|alias| alias.alias_name()) {
        let result = kms.delete_alias().alias_name(alias).send().await;
        absent(result, GONE).map_err(|e| site.fail("DeleteAlias", alias, e))?;
    }
    Ok(())
}

/// A key with this node's tags that is not on its way out.
pub(super) async fn tagged(site: &Site<'_>) -> Result<Option<String>, KindError> {
    let ours = keys(site).await?;
    let found = ours
        .into_iter()
        .find(|(key, resource)| resource.as_deref() == Some(site.key) && !is_going(key));
    Ok(found.map(|(key, _)| key.key_id().to_owned()))
}

/// Keys of the stack in the region, primaries or replicas. Those on their way out are listed as held back by AWS.
pub(super) async fn list<K: Kind>(site: &Site<'_>, primary: bool) -> Result<Vec<Found>, KindError> {
    let mut found = Vec::new();
    for (key, resource) in keys(site).await? {
        let replica = key
            .multi_region_configuration()
            .and_then(|configuration| configuration.multi_region_key_type())
            .is_some_and(|kind| *kind == aws_sdk_kms::types::MultiRegionKeyType::Replica);
        if replica == primary {
            continue;
        }
        let mut one = site.found::<K>(key.key_id(), resource);
        one.held_back = is_going(&key).then(|| match key.deletion_date() {
            Some(date) => format!("KMS deletes it on {date}"),
            None => "KMS deletes it when its replicas are gone".to_owned(),
        });
        found.push(one);
    }
    Ok(found)
}

/// Every key with the stack's tag, and its `understudy:resource` tag. KMS has no search by tag.
async fn keys(site: &Site<'_>) -> Result<Vec<(KeyMetadata, Option<String>)>, KindError> {
    let kms = site.cloud.kms(site.region);
    let mut ids = kms.list_keys().into_paginator().items().send();
    let mut found = Vec::new();
    while let Some(entry) = ids.next().await {
        let entry = entry.map_err(|e| site.fail("ListKeys", site.suffix, e))?;
        let id = entry.key_id().unwrap_or_default();
        let tags = match kms.list_resource_tags().key_id(id).send().await {
            Ok(answer) => answer.tags.unwrap_or_default(),
            // Somebody else's key, whose policy does not let us look, and one that vanished meanwhile.
            Err(error) if matches!(code(&error), Some("AccessDeniedException" | "NotFoundException")) => {
                continue;
            }
            Err(error) => return Err(site.fail("ListResourceTags", id, error)),
        };
        let value = |key| tags.iter().find(|tag| tag.tag_key() == key).map(Tag::tag_value);
        if value(STACK_TAG) == Some(site.suffix)
            && let Some(key) = describe(site, id).await?
        {
            found.push((key, value(RESOURCE_TAG).map(str::to_owned)));
        }
    }
    Ok(found)
}
