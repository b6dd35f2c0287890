//! A DynamoDB table with its replicas, if it has any. A strongly consistent global table (MRSC) is made from an empty table in one change:
//! three replicas, or two and a witness; and taken apart in one change. What a replica has of its own (point-in-time
//! recovery, tags, deletion protection) is in `table-recovery` and `table-replica`.

use std::collections::BTreeSet;
use std::time::{Duration, SystemTime};

use aws_sdk_dynamodb::operation::update_table::builders::UpdateTableFluentBuilder;
use aws_sdk_dynamodb::types::{
    AttributeDefinition, BillingMode, CreateGlobalTableWitnessGroupMemberAction,
    CreateReplicationGroupMemberAction, DeleteGlobalTableWitnessGroupMemberAction,
    DeleteReplicationGroupMemberAction, GlobalTableWitnessGroupUpdate, KeySchemaElement, KeyType,
    MultiRegionConsistency, ReplicaStatus, ReplicationGroupUpdate, ScalarAttributeType, TableDescription,
    TableStatus, Tag, WitnessStatus,
};
use aws_smithy_types::DateTime;
use aws_smithy_types::date_time::Format;
use continuity::names::{Names, Slot};
use serde::{Deserialize, Serialize};

use super::table_replica::{arn, put_tags, read_tags};
use super::tagging::{key_of, listing, pairs, tagged};
use crate::error::{Class, KindError, absent};
use crate::kind::{Found, Kind, Live, Site, tags};

/// How long DynamoDB keeps a table that replicas were made from.
const SOURCE_RULE: Duration = Duration::from_secs(24 * 60 * 60);
/// The tag of a table whose deletion was refused by that rule.
const HELD_BACK: &str = "understudy:held-back";
const GONE: &[&str] = &["ResourceNotFoundException"];

/// The kind.
#[derive(Debug)]
pub struct DynamodbTable;

/// What we want.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Spec {
    /// The table's name.
    pub table: String,
    /// The partition key, a string.
    pub partition_key: String,
    /// The sort key, a string.
    pub sort_key: Option<String>,
    /// The regions of the other replicas; the site's own is not among them.
    pub replicas: BTreeSet<String>,
    /// The region of the witness, which votes and stores no items.
    pub witness: Option<String>,
    /// Reads and writes are strongly consistent across regions.
    pub strong: bool,
    /// Capacity is on demand: nothing is throttled for want of it.
    pub on_demand: bool,
    /// AWS refuses to delete the table.
    pub deletion_protection: bool,
    /// It carries our tags.
    pub tagged: bool,
}

/// What others refer to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outputs {
    /// The table's name, the same in every region.
    pub table: String,
    /// Its ARN in the site's region.
    pub arn: String,
}

impl Kind for DynamodbTable {
    const NAME: &'static str = "dynamodb-table";
    const STATEFUL: bool = true;
    const IMMUTABLE: &'static [&'static str] = &["table", "partition_key", "sort_key"];
    const ARNS: &'static [&'static str] = &["dynamodb:table/"];

    type Spec = Spec;
    type Outputs = Outputs;

    async fn observe(site: &Site<'_>, spec: &Spec) -> Result<Option<Live<Spec, Outputs>>, KindError> {
        let result = site
            .cloud
            .dynamodb(site.region)
            .describe_table()
            .table_name(&spec.table)
            .send()
            .await;
        let answer = absent(result, GONE).map_err(|e| site.fail("DescribeTable", &spec.table, e))?;
        let Some(table) = answer.and_then(|answer| answer.table) else {
            return Ok(None);
        };
        let live = read_tags(site, &spec.table).await?.unwrap_or_default();
        Ok(Some(Live {
            spec: Spec {
                // What a teardown left that was given up.
                tagged: tagged(site, pairs(&live)) && !live.contains_key(HELD_BACK),
                ..read(site.region, &table)
            },
            outputs: Outputs {
                table: spec.table.clone(),
                arn: table.table_arn().unwrap_or_default().to_owned(),
            },
            settling: settling(&table),
        }))
    }

    /// A table of one region, tagged. The replicas come with the first update, once it is active.
    async fn create(site: &Site<'_>, spec: &Spec) -> Result<(), KindError> {
        let keys = std::iter::once((&spec.partition_key, KeyType::Hash))
            .chain(spec.sort_key.iter().map(|key| (key, KeyType::Range)));
        let (attributes, schema) = keys
            .map(|(name, role)| {
                let attribute = AttributeDefinition::builder()
                    .attribute_name(name)
                    .attribute_type(ScalarAttributeType::S)
                    .build()
                    .expect("name and type are given");
                let element = KeySchemaElement::builder()
                    .attribute_name(name)
                    .key_type(role)
                    .build()
                    .expect("name and role are given");
                (attribute, element)
            })
            .unzip();
        let result = site
            .cloud
            .dynamodb(site.region)
            .create_table()
            .table_name(&spec.table)
            .billing_mode(BillingMode::PayPerRequest)
            .set_attribute_definitions(Some(attributes))
            .set_key_schema(Some(schema))
            .deletion_protection_enabled(spec.deletion_protection)
            .set_tags(Some(our_tags(site)))
            .send()
            .await;
        absent(result, &["ResourceInUseException"]).map_err(|e| site.fail("CreateTable", &spec.table, e))?;
        Ok(())
    }

    /// One change per call, by DynamoDB's rule.
    async fn update(site: &Site<'_>, spec: &Spec, live: &Live<Spec, Outputs>) -> Result<(), KindError> {
        let call = site
            .cloud
            .dynamodb(site.region)
            .update_table()
            .table_name(&spec.table);
        if !live.spec.tagged {
            put_tags(site, &spec.table).await?;
            let request = site.cloud.dynamodb(site.region).untag_resource();
            let request = request.resource_arn(&live.outputs.arn).tag_keys(HELD_BACK);
            let result = request.send().await;
            result.map_err(|e| site.fail("UntagResource", &spec.table, e))?;
        }
        let Some(call) = next_change(spec, &live.spec, call) else {
            return Ok(());
        };
        call.send()
            .await
            .map_err(|e| site.fail("UpdateTable", &spec.table, e))?;
        Ok(())
    }

    async fn delete(site: &Site<'_>, live: &Live<Spec, Outputs>) -> Result<(), KindError> {
        Self::discard(site, &live.spec.table).await
    }

    /// 1. Replicas and witness go together: DynamoDB does not let one of an MRSC table go alone.
    /// 2. The table. For 24 hours after a replica was made from it DynamoDB may refuse: then it is marked as held back.
    ///
    /// What AWS is not ready for ends in an error that the engine tries again.
    async fn discard(site: &Site<'_>, table: &str) -> Result<(), KindError> {
        let dynamodb = site.cloud.dynamodb(site.region);
        let result = absent(dynamodb.describe_table().table_name(table).send().await, GONE);
        let answer = result.map_err(|e| site.fail("DescribeTable", table, e))?;
        let Some(description) = answer.and_then(|answer| answer.table) else {
            return Ok(());
        };
        let live = read(site.region, &description);
        if live.deletion_protection {
            return Err(site.protected("DeleteTable", table));
        }
        if !live.replicas.is_empty() || live.witness.is_some() {
            let mut call = dynamodb.update_table().table_name(table);
            for region in &live.replicas {
                call = call.replica_updates(remove_replica(region));
            }
            if let Some(region) = &live.witness {
                call = call.global_table_witness_updates(remove_witness(region));
            }
            absent(call.send().await, GONE).map_err(|e| site.fail("UpdateTable", table, e))?;
        }
        let result = absent(dynamodb.delete_table().table_name(table).send().await, GONE);
        match result.map_err(|e| site.fail("DeleteTable", table, e)) {
            Err(refusal) if is_source_rule(&refusal) => Err(hold_back(site, table, refusal).await?),
            other => other.map(drop),
        }
    }

    /// By name, or by tag; a replica appears in its own region, perhaps without tags yet.
    async fn list(site: &Site<'_>) -> Result<Vec<Found>, KindError> {
        let names = Names::new(site.suffix);
        let rates = Slot::SERVING.map(|slot| names.request_rates_table(slot));
        let ours = [names.control_table(), names.journal_table()];
        let request = site.cloud.dynamodb(site.region).list_tables();
        let tables: Result<Vec<String>, _> = request.into_paginator().items().send().collect().await;
        let tables = tables.map_err(|e| site.fail("ListTables", site.suffix, e))?;
        let listing = listing(site).await;
        let mut found = Vec::new();
        for table in tables {
            if ours.iter().chain(&rates).any(|name| *name == table)
                || listing.tags(&arn(site, &table)).is_some()
            {
                let live = read_tags(site, &table).await?.unwrap_or_default();
                let mut one = site.found::<DynamodbTable>(table, key_of(site, pairs(&live)));
                one.held_back = live.get(HELD_BACK).cloned();
                found.push(one);
            }
        }
        Ok(found)
    }
}

/// Whether DynamoDB keeps the table because replicas were made from it within the last 24 hours.
fn is_source_rule(error: &KindError) -> bool {
    error.cause.message.contains("acted as a source region")
}

/// Notes on the table itself until when DynamoDB keeps it, at the latest: nothing else remembers when its last replica was made.
async fn hold_back(site: &Site<'_>, table: &str, mut refusal: KindError) -> Result<KindError, KindError> {
    let latest = DateTime::from(SystemTime::now() + SOURCE_RULE).fmt(Format::DateTime);
    let latest = latest.unwrap_or_default();
    let until = format!(
        "DynamoDB keeps a table for 24 hours after a replica was made from it: until {latest} at the latest"
    );
    let tag = Tag::builder().key(HELD_BACK).value(&until).build();
    site.cloud
        .dynamodb(site.region)
        .tag_resource()
        .resource_arn(arn(site, table))
        .tags(tag.expect("key and value are given"))
        .send()
        .await
        .map_err(|e| site.fail("TagResource", table, e))?;
    refusal.class = Class::HeldBack;
    refusal.cause.message = format!("{until}. Run `understudy down` again then");
    Ok(refusal)
}

pub(super) fn our_tags(site: &Site<'_>) -> Vec<Tag> {
    tags(site)
        .into_iter()
        .map(|(key, value)| {
            Tag::builder()
                .key(key)
                .value(value)
                .build()
                .expect("key and value are given")
        })
        .collect()
}

fn add_replica(region: &str) -> ReplicationGroupUpdate {
    let action = CreateReplicationGroupMemberAction::builder()
        .region_name(region)
        .build();
    ReplicationGroupUpdate::builder()
        .create(action.expect("the region is given"))
        .build()
}

fn remove_replica(region: &str) -> ReplicationGroupUpdate {
    let action = DeleteReplicationGroupMemberAction::builder()
        .region_name(region)
        .build();
    ReplicationGroupUpdate::builder()
        .delete(action.expect("the region is given"))
        .build()
}

fn add_witness(region: &str) -> GlobalTableWitnessGroupUpdate {
    let action = CreateGlobalTableWitnessGroupMemberAction::builder()
        .region_name(region)
        .build();
    GlobalTableWitnessGroupUpdate::builder()
        .create(action.expect("the region is given"))
        .build()
}

fn remove_witness(region: &str) -> GlobalTableWitnessGroupUpdate {
    let action = DeleteGlobalTableWitnessGroupMemberAction::builder()
        .region_name(region)
        .build();
    GlobalTableWitnessGroupUpdate::builder()
        .delete(action.expect("the region is given"))
        .build()
}

/// The next change that brings `live` closer to `spec`, one at a time. Pure but for the builder it fills.
fn next_change(spec: &Spec, live: &Spec, call: UpdateTableFluentBuilder) -> Option<UpdateTableFluentBuilder> {
    if spec.deletion_protection != live.deletion_protection {
        return Some(call.deletion_protection_enabled(spec.deletion_protection));
    }
    if spec.on_demand && !live.on_demand {
        return Some(call.billing_mode(BillingMode::PayPerRequest));
    }
    if spec.strong {
        // All members in one change. Whatever the table is by then, AWS refuses what it cannot become.
        if (&spec.replicas, &spec.witness, spec.strong) == (&live.replicas, &live.witness, live.strong) {
            return None;
        }
        let members: Vec<_> = spec
            .replicas
            .difference(&live.replicas)
            .map(|region| add_replica(region))
            .collect();
        let witness = spec.witness.as_ref().filter(|_| spec.witness != live.witness);
        return Some(
            call.set_replica_updates(Some(members).filter(|members| !members.is_empty()))
                .set_global_table_witness_updates(witness.map(|region| vec![add_witness(region)]))
                .multi_region_consistency(MultiRegionConsistency::Strong),
        );
    }
    let mut changes = spec
        .replicas
        .difference(&live.replicas)
        .map(|region| add_replica(region));
    let mut removals = live
        .replicas
        .difference(&spec.replicas)
        .map(|region| remove_replica(region));
    changes
        .next()
        .or_else(|| removals.next())
        .map(|change| call.replica_updates(change))
}

/// All but the tags, which another call says.
fn read(home: &str, table: &TableDescription) -> Spec {
    let key = |role: KeyType| {
        table
            .key_schema()
            .iter()
            .find(|element| element.key_type() == &role)
            .map(|element| element.attribute_name().to_owned())
    };
    Spec {
        table: table.table_name().unwrap_or_default().to_owned(),
        partition_key: key(KeyType::Hash).unwrap_or_default(),
        sort_key: key(KeyType::Range),
        replicas: table
            .replicas()
            .iter()
            .filter_map(|replica| replica.region_name())
            .filter(|region| *region != home)
            .map(str::to_owned)
            .collect(),
        witness: table
            .global_table_witnesses()
            .first()
            .and_then(|witness| witness.region_name())
            .map(str::to_owned),
        strong: table.multi_region_consistency() == Some(&MultiRegionConsistency::Strong),
        // Without a summary the table has always had provisioned capacity.
        on_demand: table
            .billing_mode_summary()
            .and_then(|summary| summary.billing_mode())
            .is_some_and(|mode| mode == &BillingMode::PayPerRequest),
        deletion_protection: table.deletion_protection_enabled().unwrap_or(false),
        tagged: true,
    }
}

fn settling(table: &TableDescription) -> Option<String> {
    let status = table
        .table_status()
        .filter(|status| **status != TableStatus::Active);
    if let Some(status) = status {
        return Some(format!("table is {}", status.as_str().to_lowercase()));
    }
    let replica = table.replicas().iter().find(|replica| {
        replica
            .replica_status()
            .is_some_and(|status| *status != ReplicaStatus::Active)
    });
    if let Some(replica) = replica {
        let status = replica
            .replica_status()
            .map(ReplicaStatus::as_str)
            .unwrap_or_default();
        let region = replica.region_name().unwrap_or_default();
        return Some(format!("replica in {region} is {}", status.to_lowercase()));
    }
    let witness = table.global_table_witnesses().iter().find(|witness| {
        witness
            .witness_status()
            .is_some_and(|status| *status != WitnessStatus::Active)
    })?;
    let status = witness
        .witness_status()
        .map(WitnessStatus::as_str)
        .unwrap_or_default();
    Some(format!(
        "witness in {} is {}",
        witness.region_name().unwrap_or_default(),
        status.to_lowercase()
    ))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use aws_sdk_dynamodb::types::{BillingModeSummary, GlobalTableWitnessDescription, ReplicaDescription};

    use super::*;

    fn spec() -> Spec {
        Spec {
            table: "journal-dev".into(),
            partition_key: "partition".into(),
            sort_key: Some("entry".into()),
            replicas: BTreeSet::from(["us-east-2".into()]),
            witness: Some("us-west-2".into()),
            strong: true,
            on_demand: true,
            deletion_protection: false,
            tagged: true,
        }
    }

    fn alone() -> Spec {
        Spec {
            replicas: BTreeSet::new(),
            witness: None,
            strong: false,
            ..spec()
        }
    }

    fn call() -> UpdateTableFluentBuilder {
        let config = aws_sdk_dynamodb::Config::builder()
            .behavior_version(aws_sdk_dynamodb::config::BehaviorVersion::latest())
            .build();
        aws_sdk_dynamodb::Client::from_conf(config).update_table()
    }

    #[test]
    fn a_strong_table_gets_all_its_members_in_one_change() {
        let call = next_change(&spec(), &alone(), call()).unwrap();
        assert_eq!(call.get_replica_updates().as_ref().unwrap().len(), 1);
        assert_eq!(call.get_global_table_witness_updates().as_ref().unwrap().len(), 1);
        assert_eq!(
            call.get_multi_region_consistency(),
            &Some(MultiRegionConsistency::Strong)
        );
        assert!(next_change(&spec(), &spec(), self::call()).is_none());
    }

    #[test]
    fn an_eventually_consistent_table_gets_one_member_at_a_time() {
        let wanted = Spec {
            replicas: BTreeSet::from(["us-east-2".into(), "us-west-2".into()]),
            witness: None,
            strong: false,
            ..spec()
        };
        let call = next_change(&wanted, &alone(), call()).unwrap();
        assert_eq!(call.get_replica_updates().as_ref().unwrap().len(), 1);
        assert_eq!(call.get_multi_region_consistency(), &None);
    }

    #[test]
    fn protection_changes_alone() {
        let wanted = Spec {
            on_demand: true,
            deletion_protection: true,
            ..spec()
        };
        let call = next_change(&wanted, &alone(), call()).unwrap();
        assert_eq!(call.get_deletion_protection_enabled(), &Some(true));
        assert_eq!(call.get_replica_updates(), &None);
    }

    #[test]
    fn the_24_hour_rule_is_told_from_other_refusals() {
        let place = super::super::testing::Place::new();
        let site = place.site("journal-table");
        let refuse = |text| site.refuse("DeleteTable", "journal-dev", Some("ValidationException"), text);
        assert!(is_source_rule(&refuse(
            "Replica cannot be deleted because it has acted as a source region for new replica(s) being added to the table \
             in the last 24 hours."
        )));
        assert!(!is_source_rule(&refuse(
            "One or more parameter values were invalid"
        )));
    }

    fn described(replica: ReplicaStatus, witness: WitnessStatus) -> TableDescription {
        let element = |name: &str, role| {
            KeySchemaElement::builder()
                .attribute_name(name)
                .key_type(role)
                .build()
                .unwrap()
        };
        let own = ReplicaDescription::builder()
            .region_name("us-east-1")
            .replica_status(ReplicaStatus::Active)
            .build();
        let other = ReplicaDescription::builder()
            .region_name("us-east-2")
            .replica_status(replica)
            .build();
        TableDescription::builder()
            .table_name("journal-dev")
            .table_status(TableStatus::Active)
            .key_schema(element("partition", KeyType::Hash))
            .key_schema(element("entry", KeyType::Range))
            .replicas(own)
            .replicas(other)
            .global_table_witnesses(
                GlobalTableWitnessDescription::builder()
                    .region_name("us-west-2")
                    .witness_status(witness)
                    .build(),
            )
            .multi_region_consistency(MultiRegionConsistency::Strong)
            .billing_mode_summary(
                BillingModeSummary::builder()
                    .billing_mode(BillingMode::PayPerRequest)
                    .build(),
            )
            .build()
    }

    #[test]
    fn a_table_is_read_back_without_its_own_region_among_the_replicas() {
        let table = described(ReplicaStatus::Active, WitnessStatus::Active);
        assert_eq!(read("us-east-1", &table), spec());
        assert_eq!(settling(&table), None);
    }

    #[test]
    fn a_table_settles_with_its_last_member() {
        let replica = described(ReplicaStatus::Creating, WitnessStatus::Active);
        assert_eq!(settling(&replica).unwrap(), "replica in us-east-2 is creating");
        let witness = described(ReplicaStatus::Active, WitnessStatus::Creating);
        assert_eq!(settling(&witness).unwrap(), "witness in us-west-2 is creating");
    }
}
