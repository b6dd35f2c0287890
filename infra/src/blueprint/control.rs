//! The two tables that every region trusts: control (who is active, in which epoch) and journal (what was acknowledged). And the
//! table in which each serving region counts requests, which nothing depends on.

use std::collections::BTreeSet;

use continuity::names::Slot;

use super::Context;
use crate::graph::{Blueprint, Handle};
use crate::resources::dynamodb_table::{self, DynamodbTable};
use crate::resources::table_recovery::{self, TableRecovery};
use crate::resources::table_replica::{self, TableReplica};
use crate::spec::Durability;

/// Days that a table can be taken back.
const RECOVERY_DAYS: i32 = 35;

/// What other areas refer to.
#[derive(Debug, Clone)]
pub struct Control {
    /// The control table: three replicas, so that the observer's region can read and write too.
    pub control: Handle<DynamodbTable>,
    /// The journal: two replicas and a witness.
    pub journal: Handle<DynamodbTable>,
}

/// Both tables, with what their replicas do not inherit.
pub fn control(blueprint: &mut Blueprint, context: &Context<'_>) -> Control {
    let names = &context.names;
    let strong = context.spec.durability == Durability::Strong;
    let region = |slot: Slot| context.region(slot).to_owned();
    let control = table(
        blueprint,
        context,
        "control",
        &[Slot::Dr, Slot::Witness],
        dynamodb_table::Spec {
            table: names.control_table(),
            partition_key: "id".into(),
            sort_key: None,
            replicas: BTreeSet::from([region(Slot::Dr), region(Slot::Witness)]),
            witness: None,
            strong,
            on_demand: true,
            deletion_protection: context.spec.deletion_protection,
            tagged: true,
        },
    );
    let journal = table(
        blueprint,
        context,
        "journal",
        &[Slot::Dr],
        dynamodb_table::Spec {
            table: names.journal_table(),
            partition_key: "partition".into(),
            sort_key: Some("entry".into()),
            replicas: BTreeSet::from([region(Slot::Dr)]),
            witness: strong.then(|| region(Slot::Witness)),
            strong,
            on_demand: true,
            deletion_protection: context.spec.deletion_protection,
            tagged: true,
        },
    );
    Control { control, journal }
}

/// The counts of requests by API key of a slot. One region's, because the limit is not worth a write in two; without recovery or
/// protection, because a count is of no use after its second.
pub fn request_rates(blueprint: &mut Blueprint, context: &Context<'_>, slot: Slot) -> Handle<DynamodbTable> {
    let spec = dynamodb_table::Spec {
        table: context.names.request_rates_table(slot),
        partition_key: "id".into(),
        sort_key: None,
        replicas: BTreeSet::new(),
        witness: None,
        strong: false,
        on_demand: true,
        deletion_protection: false,
        tagged: true,
    };
    let key = format!("request-rates.{slot}");
    blueprint.add(key, &context.place(slot), (), move |()| spec.clone())
}

fn table(
    blueprint: &mut Blueprint,
    context: &Context<'_>,
    what: &str,
    replicas: &[Slot],
    spec: dynamodb_table::Spec,
) -> Handle<DynamodbTable> {
    let deletion_protection = spec.deletion_protection;
    let table = blueprint.add(format!("{what}-table"), &context.global(), (), move |()| {
        spec.clone()
    });
    for slot in std::iter::once(&Slot::Primary).chain(replicas) {
        let place = context.place(*slot);
        let _: Handle<TableRecovery> = blueprint.add(
            format!("{what}-table-recovery.{slot}"),
            &place,
            table.clone(),
            |table: dynamodb_table::Outputs| table_recovery::Spec {
                table: table.table,
                days: RECOVERY_DAYS,
            },
        );
        if *slot != Slot::Primary {
            let _: Handle<TableReplica> = blueprint.add(
                format!("{what}-table-replica.{slot}"),
                &place,
                table.clone(),
                move |table: dynamodb_table::Outputs| table_replica::Spec {
                    table: table.table,
                    deletion_protection,
                    tagged: true,
                },
            );
        }
    }
    table
}
