//! One failover record: the public name leads to this region while its health check says so. PRIMARY and SECONDARY are two
//! record sets of one name, told apart by their set identifier. Nothing edits them during a failover: `/health` moves the
//! traffic.

use aws_sdk_route53::types::{
    ChangeAction, ChangeBatch, ResourceRecord, ResourceRecordSet, ResourceRecordSetFailover, RrType,
};
use serde::{Deserialize, Serialize};

use super::hosted_zone::{change, same_name};
use crate::error::{KindError, absent};
use crate::kind::{Found, Kind, Live, Scope, Site};

/// The kind.
#[derive(Debug)]
pub struct RecordSet;

/// What we want: a CNAME with failover routing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Spec {
    /// The hosted zone.
    pub zone_id: String,
    /// The name, without a final dot. Not the zone's own: a CNAME cannot stand there.
    pub name: String,
    /// Tells it from the other record sets of the name.
    pub set_identifier: String,
    /// `PRIMARY` or `SECONDARY`.
    pub failover: String,
    /// The name it leads to.
    pub target: String,
    /// How long resolvers keep it.
    pub ttl_s: i64,
    /// The check that it follows. A primary without one is always healthy.
    pub health_check_id: String,
}

/// What others refer to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outputs {
    /// The name.
    pub name: String,
}

impl Kind for RecordSet {
    const NAME: &'static str = "record-set";
    const SCOPE: Scope = Scope::Global;
    const IMMUTABLE: &'static [&'static str] = &["zone_id", "name", "set_identifier"];
    /// Which record is the primary is nobody's to change but the operator's.
    const ROLES: &'static [&'static str] = &["failover"];

    type Spec = Spec;
    type Outputs = Outputs;

    async fn observe(site: &Site<'_>, spec: &Spec) -> Result<Option<Live<Spec, Outputs>>, KindError> {
        let live = find(site, &spec.zone_id, &spec.name, &spec.set_identifier).await?;
        Ok(live.map(|live| Live {
            spec: read(spec, &live),
            outputs: Outputs {
                name: spec.name.clone(),
            },
            settling: None,
        }))
    }

    async fn create(site: &Site<'_>, spec: &Spec) -> Result<(), KindError> {
        put(site, ChangeAction::Upsert, spec).await
    }

    async fn update(site: &Site<'_>, spec: &Spec, live: &Live<Spec, Outputs>) -> Result<(), KindError> {
        put(site, ChangeAction::Upsert, &keeping_its_role(spec, &live.spec)).await
    }

    async fn delete(site: &Site<'_>, live: &Live<Spec, Outputs>) -> Result<(), KindError> {
        Self::discard(
            site,
            &format!(
                "{}/{}/{}",
                live.spec.zone_id, live.spec.name, live.spec.set_identifier
            ),
        )
        .await
    }

    /// `{zone}/{name}/{set identifier}`. Route 53 deletes a record only when told what is in it.
    async fn discard(site: &Site<'_>, id: &str) -> Result<(), KindError> {
        let mut parts = id.splitn(3, '/');
        let (Some(zone), Some(name), Some(set)) = (parts.next(), parts.next(), parts.next()) else {
            return Err(KindError::unsupported(Self::NAME, id, site.region));
        };
        let Some(live) = find(site, zone, name, set).await? else {
            return Ok(());
        };
        let gone = |e: &KindError| {
            e.code() == Some("NoSuchHostedZone")
                || (e.code() == Some("InvalidChangeBatch") && e.cause.message.contains("not found"))
        };
        match send(site, zone, name, ChangeAction::Delete, live).await {
            Err(error) if !gone(&error) => Err(error),
            _ => Ok(()),
        }
    }

    /// Goes with its zone.
    async fn list(_site: &Site<'_>) -> Result<Vec<Found>, KindError> {
        Ok(Vec::new())
    }
}

/// The CNAME of this name and set identifier.
async fn find(
    site: &Site<'_>,
    zone: &str,
    name: &str,
    set: &str,
) -> Result<Option<ResourceRecordSet>, KindError> {
    let result = site
        .cloud
        .route53(site.region)
        .list_resource_record_sets()
        .hosted_zone_id(zone)
        .start_record_name(name)
        .start_record_type(RrType::Cname)
        .start_record_identifier(set)
        .max_items(1)
        .send()
        .await;
    let answer =
        absent(result, &["NoSuchHostedZone"]).map_err(|e| site.fail("ListResourceRecordSets", name, e))?;
    let mut sets = answer.into_iter().flat_map(|answer| answer.resource_record_sets);
    Ok(sets.find(|live| {
        same_name(live.name(), name) && live.r#type() == &RrType::Cname && live.set_identifier() == Some(set)
    }))
}

async fn put(site: &Site<'_>, action: ChangeAction, spec: &Spec) -> Result<(), KindError> {
    send(site, &spec.zone_id, &spec.name, action, written(spec)).await
}

async fn send(
    site: &Site<'_>,
    zone: &str,
    name: &str,
    action: ChangeAction,
    record: ResourceRecordSet,
) -> Result<(), KindError> {
    let batch = ChangeBatch::builder()
        .changes(change(action, record))
        .build()
        .expect("a change is given");
    site.cloud
        .route53(site.region)
        .change_resource_record_sets()
        .hosted_zone_id(zone)
        .change_batch(batch)
        .send()
        .await
        .map_err(|e| site.fail("ChangeResourceRecordSets", name, e))?;
    Ok(())
}

fn keeping_its_role(spec: &Spec, live: &Spec) -> Spec {
    Spec {
        failover: live.failover.clone(),
        ..spec.clone()
    }
}

fn written(spec: &Spec) -> ResourceRecordSet {
    let target = ResourceRecord::builder()
        .value(&spec.target)
        .build()
        .expect("the value is given");
    ResourceRecordSet::builder()
        .name(&spec.name)
        .r#type(RrType::Cname)
        .set_identifier(&spec.set_identifier)
        .failover(ResourceRecordSetFailover::from(spec.failover.as_str()))
        .ttl(spec.ttl_s)
        .resource_records(target)
        // An empty id reads back from a record without a check; so it is deleted as it is.
        .set_health_check_id(Some(spec.health_check_id.clone()).filter(|id| !id.is_empty()))
        .build()
        .expect("name and type are given")
}

fn read(wanted: &Spec, live: &ResourceRecordSet) -> Spec {
    Spec {
        zone_id: wanted.zone_id.clone(),
        name: wanted.name.clone(),
        set_identifier: wanted.set_identifier.clone(),
        failover: live
            .failover()
            .map(|role| role.as_str().to_owned())
            .unwrap_or_default(),
        target: live
            .resource_records()
            .first()
            .map(|record| record.value().trim_end_matches('.').to_owned())
            .unwrap_or_default(),
        ttl_s: live.ttl().unwrap_or_default(),
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
            set_identifier: "primary".into(),
            failover: "PRIMARY".into(),
            target: "abc.execute-api.us-east-1.amazonaws.com".into(),
            ttl_s: 10,
            health_check_id: "c".into(),
        };
        assert_eq!(read(&spec, &written(&spec)), spec);
        let swapped = Spec {
            failover: "SECONDARY".into(),
            ttl_s: 300,
            ..spec.clone()
        };
        assert_eq!(
            keeping_its_role(&spec, &swapped).failover,
            "SECONDARY",
            "a repair of the rest does not move the role"
        );
        let unchecked = Spec {
            health_check_id: String::new(),
            ..spec
        };
        assert_eq!(read(&unchecked, &written(&unchecked)), unchecked);
    }
}
