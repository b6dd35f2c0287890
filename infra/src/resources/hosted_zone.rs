//! A public hosted zone. Found by its name and by the caller reference that we gave it: the owner may have another zone of
//! the same name. Route 53 never accepts a caller reference twice, not even after deletion, so ours end with a nonce.

use aws_sdk_route53::types::{
    Change, ChangeAction, ChangeBatch, HostedZone as LiveZone, HostedZoneConfig, ResourceRecordSet, RrType,
    Tag, TagResourceType,
};
use serde::{Deserialize, Serialize};

use super::tagging::{global_listing, listed_tagged_globally, tagged};
use crate::error::{KindError, absent};
use crate::kind::{Found, Kind, Live, Scope, Site, tags};

/// The kind.
#[derive(Debug)]
pub struct HostedZone;

/// What we want.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Spec {
    /// The domain, without a final dot.
    pub domain: String,
    /// What it is for.
    pub comment: String,
    /// It carries our tags.
    pub tagged: bool,
}

/// What others refer to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outputs {
    /// `Z...`
    pub zone_id: String,
    /// The domain, without a final dot.
    pub domain: String,
}

impl Kind for HostedZone {
    const NAME: &'static str = "hosted-zone";
    const SCOPE: Scope = Scope::Global;
    const IMMUTABLE: &'static [&'static str] = &["domain"];
    const ARNS: &'static [&'static str] = &["route53:hostedzone/"];

    type Spec = Spec;
    type Outputs = Outputs;

    async fn observe(site: &Site<'_>, spec: &Spec) -> Result<Option<Live<Spec, Outputs>>, KindError> {
        // Zones come sorted by name, beginning with this one.
        let answer = site
            .cloud
            .route53(site.region)
            .list_hosted_zones_by_name()
            .dns_name(&spec.domain)
            .send()
            .await
            .map_err(|e| site.fail("ListHostedZonesByName", &spec.domain, e))?;
        let ours = reference(site.suffix, site.key);
        let Some(zone) = answer
            .hosted_zones()
            .iter()
            .find(|zone| same_name(zone.name(), &spec.domain) && zone.caller_reference().starts_with(&ours))
        else {
            return Ok(None);
        };
        let zone_id = bare_id(zone.id()).to_owned();
        Ok(Some(Live {
            spec: Spec {
                domain: spec.domain.clone(),
                comment: comment(zone).to_owned(),
                tagged: is_tagged(site, TagResourceType::Hostedzone, &zone_id).await?,
            },
            outputs: Outputs {
                zone_id,
                domain: spec.domain.clone(),
            },
            settling: None,
        }))
    }

    /// Tags come with the first update: CreateHostedZone takes none.
    async fn create(site: &Site<'_>, spec: &Spec) -> Result<(), KindError> {
        site.cloud
            .route53(site.region)
            .create_hosted_zone()
            .name(&spec.domain)
            .caller_reference(fresh_reference(site))
            .hosted_zone_config(
                HostedZoneConfig::builder()
                    .comment(&spec.comment)
                    .private_zone(false)
                    .build(),
            )
            .send()
            .await
            .map_err(|e| site.fail("CreateHostedZone", &spec.domain, e))?;
        Ok(())
    }

    async fn update(site: &Site<'_>, spec: &Spec, live: &Live<Spec, Outputs>) -> Result<(), KindError> {
        let zone_id = &live.outputs.zone_id;
        if spec.comment != live.spec.comment {
            site.cloud
                .route53(site.region)
                .update_hosted_zone_comment()
                .id(zone_id)
                .comment(&spec.comment)
                .send()
                .await
                .map_err(|e| site.fail("UpdateHostedZoneComment", zone_id, e))?;
        }
        if !live.spec.tagged {
            put_tags(site, TagResourceType::Hostedzone, zone_id).await?;
        }
        Ok(())
    }

    async fn delete(site: &Site<'_>, live: &Live<Spec, Outputs>) -> Result<(), KindError> {
        Self::discard(site, &live.outputs.zone_id).await
    }

    /// Deletes every record but the zone's own first: Route 53 keeps a zone that has others.
    async fn discard(site: &Site<'_>, zone_id: &str) -> Result<(), KindError> {
        let route53 = site.cloud.route53(site.region);
        let result = absent(
            route53.get_hosted_zone().id(zone_id).send().await,
            &["NoSuchHostedZone"],
        );
        let answer = result.map_err(|e| site.fail("GetHostedZone", zone_id, e))?;
        let Some(zone) = answer.and_then(|answer| answer.hosted_zone) else {
            return Ok(());
        };
        loop {
            // Always the first page: what it showed is gone when it is asked for again.
            let result = route53
                .list_resource_record_sets()
                .hosted_zone_id(zone_id)
                .send()
                .await;
            let page = absent(result, &["NoSuchHostedZone"])
                .map_err(|e| site.fail("ListResourceRecordSets", zone_id, e))?;
            let Some(page) = page else { return Ok(()) };
            let doomed: Vec<_> = page
                .resource_record_sets
                .into_iter()
                .filter(|set| !is_apex(set, zone.name()))
                .map(|set| change(ChangeAction::Delete, set))
                .collect();
            if doomed.is_empty() {
                break;
            }
            let batch = ChangeBatch::builder()
                .set_changes(Some(doomed))
                .build()
                .expect("changes are given");
            route53
                .change_resource_record_sets()
                .hosted_zone_id(zone_id)
                .change_batch(batch)
                .send()
                .await
                .map_err(|e| site.fail("ChangeResourceRecordSets", zone_id, e))?;
        }
        let result = route53.delete_hosted_zone().id(zone_id).send().await;
        absent(result, &["NoSuchHostedZone"]).map_err(|e| site.fail("DeleteHostedZone", zone_id, e))?;
        Ok(())
    }

    /// By caller reference, or by tag.
    async fn list(site: &Site<'_>) -> Result<Vec<Found>, KindError> {
        let mut pages = site
            .cloud
            .route53(site.region)
            .list_hosted_zones()
            .into_paginator()
            .send();
        let mut found = Vec::new();
        while let Some(page) = pages.next().await {
            let page = page.map_err(|e| site.fail("ListHostedZones", site.suffix, e))?;
            for zone in page.hosted_zones() {
                let id = bare_id(zone.id());
                if let Some(key) =
                    known_key(site, TagResourceType::Hostedzone, id, zone.caller_reference()).await
                {
                    found.push(site.found::<HostedZone>(id, Some(key)));
                }
            }
        }
        Ok(found)
    }
}

fn comment(zone: &LiveZone) -> &str {
    zone.config()
        .and_then(HostedZoneConfig::comment)
        .unwrap_or_default()
}

/// The records that come and go with the zone itself.
fn is_apex(set: &ResourceRecordSet, domain: &str) -> bool {
    matches!(set.r#type(), RrType::Ns | RrType::Soa) && same_name(set.name(), domain)
}

/// How the caller reference of our resource begins. At most 64 characters with the nonce.
pub(super) fn reference(suffix: &str, key: &str) -> String {
    format!("understudy:{suffix}:{key}:")
}

/// A caller reference that was never used before.
pub(super) fn fresh_reference(site: &Site<'_>) -> String {
    let nonce = uuid::Uuid::new_v4().simple().to_string();
    format!("{}{}", reference(site.suffix, site.key), &nonce[..8])
}

/// The blueprint key in a caller reference; `None` when it is not of this stack.
fn key_in(caller_reference: &str, suffix: &str) -> Option<String> {
    let (key, _nonce) = caller_reference
        .strip_prefix(&format!("understudy:{suffix}:"))?
        .rsplit_once(':')?;
    Some(key.to_owned())
}

/// `/hostedzone/Z1` is `Z1`.
pub(super) fn bare_id(id: &str) -> &str {
    id.rsplit_once('/').map_or(id, |(_, id)| id)
}

/// Names equal but for case, a final dot, and the escape that Route 53 writes for `*`.
pub(super) fn same_name(one: &str, other: &str) -> bool {
    let normal = |name: &str| {
        name.trim_end_matches('.')
            .replace("\\052", "*")
            .to_ascii_lowercase()
    };
    normal(one) == normal(other)
}

/// One change of a batch.
pub(super) fn change(action: ChangeAction, set: ResourceRecordSet) -> Change {
    Change::builder()
        .action(action)
        .resource_record_set(set)
        .build()
        .expect("action and record are given")
}

fn pair(tag: &Tag) -> (&str, &str) {
    (tag.key().unwrap_or_default(), tag.value().unwrap_or_default())
}

/// The tags of a zone or health check.
async fn read_tags(site: &Site<'_>, kind: TagResourceType, id: &str) -> Result<Vec<Tag>, KindError> {
    let result = site
        .cloud
        .route53(site.region)
        .list_tags_for_resource()
        .resource_type(kind)
        .resource_id(id)
        .send()
        .await;
    let answer = absent(result, &["NoSuchHostedZone", "NoSuchHealthCheck"])
        .map_err(|e| site.fail("ListTagsForResource", id, e))?;
    Ok(answer
        .and_then(|answer| answer.resource_tag_set)
        .and_then(|set| set.tags)
        .unwrap_or_default())
}

fn arn(kind: &TagResourceType, id: &str) -> String {
    format!("arn:aws:route53:::{}/{id}", kind.as_str())
}

/// The blueprint key of a zone or health check of ours, from its caller reference or its tags.
pub(super) async fn known_key(
    site: &Site<'_>,
    kind: TagResourceType,
    id: &str,
    caller_reference: &str,
) -> Option<String> {
    match key_in(caller_reference, site.suffix) {
        Some(key) => Some(key),
        None => global_listing(site).await.key(&arn(&kind, id)),
    }
}

/// Whether all of our tags are on a zone or health check.
pub(super) async fn is_tagged(site: &Site<'_>, kind: TagResourceType, id: &str) -> Result<bool, KindError> {
    Ok(listed_tagged_globally(site, &arn(&kind, id)).await
        || tagged(site, read_tags(site, kind, id).await?.iter().map(pair)))
}

/// Puts our tags on a zone or health check.
pub(super) async fn put_tags(site: &Site<'_>, kind: TagResourceType, id: &str) -> Result<(), KindError> {
    let all = tags(site)
        .into_iter()
        .map(|(key, value)| Tag::builder().key(key).value(value).build());
    site.cloud
        .route53(site.region)
        .change_tags_for_resource()
        .resource_type(kind)
        .resource_id(id)
        .set_add_tags(Some(all.collect()))
        .send()
        .await
        .map_err(|e| site.fail("ChangeTagsForResource", id, e))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_key_comes_back_out_of_a_caller_reference() {
        let reference = format!("{}1a2b3c4d", reference("dev", "health-check.primary"));
        assert_eq!(key_in(&reference, "dev").as_deref(), Some("health-check.primary"));
        assert_eq!(key_in(&reference, "de"), None);
        assert_eq!(key_in("somebody else's", "dev"), None);
    }

    #[test]
    fn the_longest_caller_reference_fits() {
        let longest = reference("a-long-suffix-16", "health-check.primary").len() + 8;
        assert!(longest <= 64, "{longest}");
    }

    #[test]
    fn names_are_compared_as_dns_does() {
        assert!(same_name("API.example.com.", "api.example.com"));
        assert!(same_name("\\052.example.com.", "*.example.com"));
        assert!(!same_name("example.com", "api.example.com"));
        assert_eq!(bare_id("/hostedzone/Z1"), "Z1");
        assert_eq!(bare_id("Z1"), "Z1");
    }
}
