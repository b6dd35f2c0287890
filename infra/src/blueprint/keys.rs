//! A reference to a KMS key, whether it is the home region's key or its replica elsewhere: its ARN is all that others need.

use std::collections::BTreeSet;

use crate::graph::{Handle, Refs, Resolved, Unresolved};
use crate::resources::kms_key::KmsKey;
use crate::resources::kms_replica_key::KmsReplicaKey;

/// A key, resolved to its ARN.
#[derive(Debug, Clone)]
pub enum Key {
    /// The multi-region key of the home region.
    Home(Handle<KmsKey>),
    /// Its replica.
    Replica(Handle<KmsReplicaKey>),
}

#[allow(private_interfaces)]
impl Refs for Key {
    type Outputs = String;

    fn keys(&self, into: &mut BTreeSet<String>) {
        match self {
            Key::Home(key) => key.keys(into),
            Key::Replica(key) => key.keys(into),
        }
    }

    fn resolve(&self, resolved: &Resolved) -> Result<String, Unresolved> {
        match self {
            Key::Home(key) => key.resolve(resolved).map(|key| key.arn),
            Key::Replica(key) => key.resolve(resolved).map(|key| key.arn),
        }
    }
}
