//! The stack's key: one multi-region KMS key and its replica, so that what is encrypted in one region can be read in the other.

use continuity::names::Slot;

use super::Context;
use super::keys::Key;
use crate::graph::{Blueprint, Handle};
use crate::resources::kms_key::{self, KmsKey};
use crate::resources::kms_replica_key::{self, KmsReplicaKey};

/// The key of each serving slot, home first.
pub fn keys(blueprint: &mut Blueprint, context: &Context<'_>) -> [Key; 2] {
    let alias = |slot| format!("alias/{}", context.names.regional("understudy", slot));
    let description = format!(
        "Understudy stack {}: database, secret, buckets",
        context.spec.suffix
    );
    let spec = kms_key::Spec {
        alias: alias(Slot::Primary),
        description: description.clone(),
        rotation: true,
        usable: true,
        tagged: true,
    };
    let home: Handle<KmsKey> =
        blueprint.add("kms-key.primary", &context.place(Slot::Primary), (), move |()| {
            spec.clone()
        });
    let alias = alias(Slot::Dr);
    let primary_region = context.region(Slot::Primary).to_owned();
    let replica: Handle<KmsReplicaKey> = blueprint.add(
        "kms-replica-key.dr",
        &context.place(Slot::Dr),
        home.clone(),
        move |home: kms_key::Outputs| kms_replica_key::Spec {
            alias: alias.clone(),
            description: description.clone(),
            primary_key_id: home.key_id,
            primary_region: primary_region.clone(),
            usable: true,
            tagged: true,
        },
    );
    [Key::Home(home), Key::Replica(replica)]
}
