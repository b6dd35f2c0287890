//! The ledger's database: credentials, and Aurora in both serving regions as one global database.

use std::collections::{BTreeMap, BTreeSet};

use continuity::names::{DATABASE, DATABASE_USER, Slot};

use super::Context;
use super::keys::Key;
use super::network::Network;
use crate::graph::{Blueprint, Handle};
use crate::resources::db_cluster::{self, DbCluster};
use crate::resources::db_cluster_parameter_group::{self, DbClusterParameterGroup};
use crate::resources::db_instance::{self, DbInstance};
use crate::resources::db_subnet_group::{self, DbSubnetGroup};
use crate::resources::global_cluster::{self, GlobalCluster};
use crate::resources::log_group::{self, LogGroup};
use crate::resources::secret::{self, Replica, Secret};
use crate::resources::{security_group, subnet, vpc};

/// What PostgreSQL logs, as RDS calls it.
const LOG: &str = "postgresql";

/// What other areas refer to.
#[derive(Debug, Clone)]
pub struct Database {
    /// The credentials.
    pub secret: Handle<Secret>,
    /// What the regional clusters are members of.
    pub global: Handle<GlobalCluster>,
    /// The regional clusters, home first.
    pub clusters: [Handle<DbCluster>; 2],
    /// The instances of each.
    pub instances: [Vec<Handle<DbInstance>>; 2],
}

/// Secret, global cluster, and for each slot its cluster with groups and instances. `keys` and `networks`: home first.
pub fn database(
    blueprint: &mut Blueprint,
    context: &Context<'_>,
    keys: &[Key; 2],
    networks: &[Network; 2],
) -> Database {
    let secret = credentials(blueprint, context, keys);
    let aurora = &context.spec.aurora;
    let spec = global_cluster::Spec {
        identifier: context.names.aurora_global(),
        engine_version: aurora.engine_version.clone(),
        storage_encrypted: true,
        deletion_protection: context.spec.deletion_protection,
        tagged: true,
    };
    let global: Handle<GlobalCluster> =
        blueprint.add("global-cluster", &context.global(), (), move |()| spec.clone());
    let base = Base {
        secret: &secret,
        global: &global,
    };
    let home = cluster(blueprint, context, Slot::Primary, &keys[0], &networks[0], &base);
    let home_instances = instances(blueprint, context, Slot::Primary, &home);
    let dr = cluster(blueprint, context, Slot::Dr, &keys[1], &networks[1], &base);
    // A secondary is made from a primary that is there and running.
    blueprint.order(&dr, &home);
    for instance in &home_instances {
        blueprint.order(&dr, instance);
    }
    let dr_instances = instances(blueprint, context, Slot::Dr, &dr);
    Database {
        secret,
        global,
        clusters: [home, dr],
        instances: [home_instances, dr_instances],
    }
}

fn credentials(blueprint: &mut Blueprint, context: &Context<'_>, keys: &[Key; 2]) -> Handle<Secret> {
    let name = context.names.database_secret();
    let region = context.region(Slot::Dr).to_owned();
    let description = format!(
        "Understudy stack {}: the database's master user",
        context.spec.suffix
    );
    let refs = (keys[0].clone(), keys[1].clone());
    blueprint.add(
        "secret.database",
        &context.place(Slot::Primary),
        refs,
        move |(home, replica)| secret::Spec {
            name: name.clone(),
            description: description.clone(),
            kms_key_arn: home,
            username: DATABASE_USER.into(),
            dbname: DATABASE.into(),
            replica: Replica {
                region: region.clone(),
                kms_key_arn: replica,
            },
            readable: true,
            tagged: true,
        },
    )
}

/// What both clusters refer to.
struct Base<'a> {
    secret: &'a Handle<Secret>,
    global: &'a Handle<GlobalCluster>,
}

fn cluster(
    blueprint: &mut Blueprint,
    context: &Context<'_>,
    slot: Slot,
    key: &Key,
    network: &Network,
    base: &Base<'_>,
) -> Handle<DbCluster> {
    let place = context.place(slot);
    let aurora = context.spec.aurora.clone();
    let name = context.names.aurora_cluster(slot);
    let subnet_group: Handle<DbSubnetGroup> = {
        let name = name.clone();
        let make = move |(vpc, subnets): (vpc::Outputs, Vec<subnet::Outputs>)| {
            let ids = subnets.into_iter().map(|subnet| subnet.subnet_id).collect();
            db_subnet_group::Spec::new(
                name.clone(),
                "Private subnets of the ledger's database".into(),
                vpc.vpc_id,
                ids,
            )
        };
        blueprint.add(
            format!("db-subnet-group.{slot}"),
            &place,
            (network.vpc.clone(), network.subnets.clone()),
            make,
        )
    };
    let parameters = db_cluster_parameter_group::Spec {
        name: name.clone(),
        description: "TLS only".into(),
        family: format!("{}{}", global_cluster::ENGINE, major(&aurora.engine_version)),
        // `rds.global_db_rpo` stays at its default: with two regions it would stop a promoted writer's commits.
        parameters: BTreeMap::from([("rds.force_ssl".to_owned(), "1".to_owned())]),
        tagged: true,
    };
    let parameter_group: Handle<DbClusterParameterGroup> = blueprint.add(
        format!("db-cluster-parameter-group.{slot}"),
        &place,
        (),
        move |()| parameters.clone(),
    );
    // It comes first, or RDS would make one that keeps everything for ever.
    let logs = log_group::Spec {
        name: format!("{}{name}/{LOG}", log_group::AURORA_PREFIX),
        retention_days: i32::try_from(context.spec.retention.log_days).unwrap_or(i32::MAX),
        tagged: true,
    };
    let log_group: Handle<LogGroup> =
        blueprint.add(format!("log-group.aurora.{slot}"), &place, (), move |()| {
            logs.clone()
        });
    let backup_days = i32::from(context.spec.retention.backup_days);
    let deletion_protection = context.spec.deletion_protection;
    let cluster = blueprint.add(
        format!("db-cluster.{slot}"),
        &place,
        (
            base.global.clone(),
            base.secret.clone(),
            subnet_group,
            parameter_group,
            network.database_group.clone(),
            key.clone(),
        ),
        move |(global, secret, subnet_group, parameter_group, group, kms_key_arn)| {
            let group: security_group::Outputs = group;
            db_cluster::Spec {
                identifier: name.clone(),
                global_cluster: global.identifier,
                engine_version: aurora.engine_version.clone(),
                subnet_group: subnet_group.name,
                parameter_group: parameter_group.name,
                security_groups: vec![group.group_id],
                kms_key_arn,
                backup_retention_days: backup_days,
                deletion_protection,
                database: DATABASE.into(),
                credentials: secret.name,
                log_exports: BTreeSet::from([LOG.to_owned()]),
                serverless: aurora.serverless,
                copy_tags_to_snapshot: true,
                writer: slot == Slot::Primary,
                member: true,
                tagged: true,
            }
        },
    );
    blueprint.order(&cluster, &log_group);
    cluster
}

fn instances(
    blueprint: &mut Blueprint,
    context: &Context<'_>,
    slot: Slot,
    cluster: &Handle<DbCluster>,
) -> Vec<Handle<DbInstance>> {
    (1..=context.spec.aurora.instances)
        .map(|number| {
            let class = context.spec.aurora.instance_class.clone();
            let make = move |cluster: db_cluster::Outputs| db_instance::Spec {
                identifier: format!("{}-{number}", cluster.identifier),
                cluster: cluster.identifier,
                class: class.clone(),
                publicly_accessible: false,
                minor_upgrades: false,
                tagged: true,
            };
            blueprint.add(
                format!("db-instance.{number}.{slot}"),
                &context.place(slot),
                cluster.clone(),
                make,
            )
        })
        .collect()
}

fn major(version: &str) -> &str {
    version.split('.').next().unwrap_or(version)
}
