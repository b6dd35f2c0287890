//! One failover record as an alias: the public name is this region's custom domain while its health check says so. What
//! `record-set` is without a domain of one's own; see there. The alias's own `EvaluateTargetHealth` is off: it would look at API
//! Gateway as such, and the health check looks at the service.

use aws_sdk_route53::types::{
    AliasTarget, ChangeAction, ChangeBatch, ResourceRecordSet, ResourceRecordSetFailover, RrType,
};
use serde::{Deserialize, Serialize};

use super::hosted_zone::{change, same_name};
use crate::error::{KindError, absent};
use crate::kind::{Found, Kind, Live, Scope, Site};

/// The kind.
#[derive(Debug)]
pub struct AliasRecord;

/// What we want: an A record with failover routing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Spec {
    /// The hosted zone.
    pub zone_id: String,
    /// The name, without a final dot.
    pub name: String,
    /// Tells it from the other record sets of the name.
    pub set_identifier: String,
    /// `PRIMARY` or `SECONDARY`.
    pub failover: String,
    /// The host it is an alias for.
    pub target: String,
    /// The hosted zone of that host.
    pub target_zone_id: String,
    /// The check that it follows. A primary without one is always healthy.
    pub health_check_id: String,
}

/// Nothing refers to it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outputs {}

impl Kind for AliasRecord {
    const NAME: &'static str = "alias-record";
    const SCOPE: Scope = Scope::Global;
    const IMMUTABLE: &'static [&'static str] = &["zone_id", "name", "set_identifier"];
    /// Which record is the primary is nobody's to change but the operator's.
    const ROLES: &'static [&'static str] = &["failover"];

    type Spec = Spec;
    type Outputs = Outputs;

    async fn observe(site: &Site<'_>, spec: &Spec) -> Result<Option<Live<Spec, Outputs>>, KindError> {
        let result = site
            .cloud
            .route53(site.region)
            .list_resource_record_sets()
            .hosted_zone_id(&spec.zone_id)
            .start_record_name(&spec.name)
            .start_record_type(RrType::A)
            .start_record_identifier(&spec.set_identifier)
            .max_items(1)
            .send()
            .await;
        let answer = absent(result, &["NoSuchHostedZone"])
            .map_err(|e| site.fail("ListResourceRecordSets", &spec.name, e))?;
        let sets = answer
            .map(|answer| answer.resource_record_sets)
            .unwrap_or_default();
        let live = sets.iter().find(|set| {
            same_name(set.name(), &spec.name)
                && set.r#type() == &RrType::A
                && set.set_identifier() == Some(spec.set_identifier.as_str())
        });
        Ok(live.map(|live| Live {
            spec: read(spec, live),
            outputs: Outputs {},
            settling: None,
        }))
    }

    async fn create(site: &Site<'_>, spec: &Spec) -> Result<(), KindError> {
        put(site, ChangeAction::Upsert, spec).await
    }

    async fn update(site: &Site<'_>, spec: &Spec, live: &Live<Spec, Outputs>) -> Result<(), KindError> {
        let keeping_its_role = Spec {
            failover: live.spec.failover.clone(),
            ..spec.clone()
        };
        put(site, ChangeAction::Upsert, &keeping_its_role).await
    }

    async fn delete(site: &Site<'_>, live: &Live<Spec, Outputs>) -> Result<(), KindError> {
        let gone = |e: &KindError| {
            e.code() == Some("NoSuchHostedZone")
                || (e.code() == Some("InvalidChangeBatch") && e.cause.message.contains("not found"))
        };
        match put(site, ChangeAction::Delete, &live.spec).await {
            Err(error) if !gone(&error) => Err(error),
            _ => Ok(()),
        }
    }

    /// Goes with its zone.
    async fn list(_site: &Site<'_>) -> Result<Vec<Found>, KindError> {
        Ok(Vec::new())
    }
}

async fn put(site: &Site<'_>, action: ChangeAction, spec: &Spec) -> Result<(), KindError> {
    let batch = ChangeBatch::builder()
        .changes(change(action, written(spec)))
        .build();
    site.cloud
        .route53(site.region)
        .change_resource_record_sets()
        .hosted_zone_id(&spec.zone_id)
        .change_batch(batch.expect("a change is given"))
        .send()
        .await
        .map_err(|e| site.fail("ChangeResourceRecordSets", &spec.name, e))?;
    Ok(())
}

fn written(spec: &Spec) -> ResourceRecordSet {
    let alias = AliasTarget::builder()
        .dns_name(&spec.target)
        .hosted_zone_id(&spec.target_zone_id)
        .evaluate_target_health(false)
        .build()
        .expect("the target is given");
    ResourceRecordSet::builder()
        .name(&spec.name)
        .r#type(RrType::A)
        .set_identifier(&spec.set_identifier)
        .failover(ResourceRecordSetFailover::from(spec.failover.as_str()))
        .alias_target(alias)
        // An empty id reads back from a record without a check; so it is deleted as it is.
        .set_health_check_id((!spec.health_check_id.is_empty()).then(|| spec.health_check_id.clone()))
        .build()
        .expect("name and type are given")
}

fn read(wanted: &Spec, live: &ResourceRecordSet) -> Spec {
    let alias = live.alias_target();
    let target = alias.map(AliasTarget::dns_name).unwrap_or_default();
    Spec {
        zone_id: wanted.zone_id.clone(),
        name: wanted.name.clone(),
        set_identifier: wanted.set_identifier.clone(),
        failover: live
            .failover()
            .map(|failover| failover.as_str().to_owned())
            .unwrap_or_default(),
        // Route 53 adds a dot and writes small letters.
        target: match same_name(target, &wanted.target) {
            true => wanted.target.clone(),
            false => target.trim_end_matches('.').to_owned(),
        },
        target_zone_id: alias
            .map(|alias| alias.hosted_zone_id().to_owned())
            .unwrap_or_default(),
        health_check_id: live.health_check_id().unwrap_or_default().to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_back() {
        let spec = Spec {
            zone_id: "Z1".into(),
            name: "api.example.com".into(),
            set_identifier: "dr".into(),
            failover: "SECONDARY".into(),
            target: "d-abc.execute-api.us-east-2.amazonaws.com".into(),
            target_zone_id: "ZOJJZC49E0EPZ".into(),
            health_check_id: "c".into(),
        };
        assert_eq!(read(&spec, &written(&spec)), spec);
        let elsewhere = Spec {
            target: "d-other.execute-api.us-east-2.amazonaws.com".into(),
            ..spec.clone()
        };
        assert_ne!(read(&spec, &written(&elsewhere)), spec);
    }
}
