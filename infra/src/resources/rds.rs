//! What the RDS kinds share: tags, names, error codes. Not a kind.

use aws_sdk_rds::types::Tag;
use continuity::names::{Names, Slot};

use crate::kind::{Site, tags};

/// RDS spells its codes with and without `Fault`, differently for each resource.
pub(super) const NO_CLUSTER: &[&str] = &["DBClusterNotFoundFault", "DBClusterNotFound"];
pub(super) const NO_INSTANCE: &[&str] = &["DBInstanceNotFound", "DBInstanceNotFoundFault"];
pub(super) const NO_GLOBAL: &[&str] = &["GlobalClusterNotFoundFault", "GlobalClusterNotFound"];
pub(super) const NO_SUBNET_GROUP: &[&str] = &["DBSubnetGroupNotFoundFault", "DBSubnetGroupNotFound"];
pub(super) const NO_PARAMETER_GROUP: &[&str] = &[
    "DBParameterGroupNotFound",
    "DBParameterGroupNotFoundFault",
    "DBClusterParameterGroupNotFound",
];

/// Our tags.
pub(super) fn tag_list(site: &Site<'_>) -> Vec<Tag> {
    tags(site)
        .into_iter()
        .map(|(key, value)| Tag::builder().key(key).value(value).build())
        .collect()
}

/// The blueprint key among an RDS resource's tags.
pub(super) fn key_of(tags: &[Tag]) -> Option<String> {
    let tag = tags
        .iter()
        .find(|tag| tag.key() == Some(crate::kind::RESOURCE_TAG))?;
    tag.value().map(str::to_owned)
}

/// Whether a name is `aurora-{slot}-{suffix}`, or begins with that and a hyphen. Names are exact: another stack's suffix may
/// end like ours.
pub(super) fn named_ours(site: &Site<'_>, name: &str) -> bool {
    let names = Names::new(site.suffix);
    Slot::ALL.into_iter().any(|slot| {
        let ours = names.aurora_cluster(slot);
        let numbered = || name.strip_prefix(&ours)?.strip_prefix('-')?.parse::<u8>().ok();
        name == ours || numbered().is_some()
    })
}
