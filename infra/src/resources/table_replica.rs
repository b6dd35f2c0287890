//! What a table's replica has of its own, because replicas do not inherit it: tags and deletion protection. (The table in its
//! home region gets both when it is made.) It is there when the replica carries our `understudy:resource` tag: the replica
//! itself comes and goes with the table.

use std::collections::HashMap;

use serde::{Deserialize, Serialize};

use super::dynamodb_table::our_tags;
use super::tagging::{listing, pairs, tagged};
use crate::error::{KindError, absent};
use crate::kind::{Found, Kind, Live, RESOURCE_TAG, Site, tags};

const GONE: &[&str] = &["ResourceNotFoundException"];

/// The kind.
#[derive(Debug)]
pub struct TableReplica;

/// What we want.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Spec {
    /// The table's name.
    pub table: String,
    /// AWS refuses to delete the replica.
    pub deletion_protection: bool,
    /// It carries our tags.
    pub tagged: bool,
}

/// Nothing refers to it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outputs {}

impl Kind for TableReplica {
    const NAME: &'static str = "table-replica";
    const IMMUTABLE: &'static [&'static str] = &["table"];

    type Spec = Spec;
    type Outputs = Outputs;

    async fn observe(site: &Site<'_>, spec: &Spec) -> Result<Option<Live<Spec, Outputs>>, KindError> {
        let Some(deletion_protection) = protected(site, &spec.table).await? else {
            return Ok(None);
        };
        let live = read_tags(site, &spec.table).await?.unwrap_or_default();
        if live.get(RESOURCE_TAG).map(String::as_str) != Some(site.key) {
            return Ok(None);
        }
        Ok(Some(Live {
            spec: Spec {
                table: spec.table.clone(),
                deletion_protection,
                tagged: tagged(site, pairs(&live)),
            },
            outputs: Outputs {},
            settling: None,
        }))
    }

    /// Leaves the protection to `update`.
    async fn create(site: &Site<'_>, spec: &Spec) -> Result<(), KindError> {
        put_tags(site, &spec.table).await
    }

    async fn update(site: &Site<'_>, spec: &Spec, live: &Live<Spec, Outputs>) -> Result<(), KindError> {
        if !live.spec.tagged {
            put_tags(site, &spec.table).await?;
        }
        if spec.deletion_protection != live.spec.deletion_protection {
            let request = site.cloud.dynamodb(site.region).update_table();
            request
                .table_name(&spec.table)
                .deletion_protection_enabled(spec.deletion_protection)
                .send()
                .await
                .map_err(|e| site.fail("UpdateTable", &spec.table, e))?;
        }
        Ok(())
    }

    async fn delete(site: &Site<'_>, live: &Live<Spec, Outputs>) -> Result<(), KindError> {
        Self::discard(site, &live.spec.table).await
    }

    /// Takes our tags away. The replica goes with its table, which a protected one must not even begin to.
    async fn discard(site: &Site<'_>, table: &str) -> Result<(), KindError> {
        if protected(site, table).await? == Some(true) {
            return Err(site.protected("DeleteTable", table));
        }
        let keys = tags(site).into_iter().map(|(key, _)| key).collect();
        let request = site.cloud.dynamodb(site.region).untag_resource();
        let request = request.resource_arn(arn(site, table)).set_tag_keys(Some(keys));
        absent(request.send().await, GONE).map_err(|e| site.fail("UntagResource", table, e))?;
        listing(site).await.forget(&arn(site, table));
        Ok(())
    }

    /// Goes with its table.
    async fn list(_site: &Site<'_>) -> Result<Vec<Found>, KindError> {
        Ok(Vec::new())
    }
}

/// The ARN of a table in the site's region.
pub(super) fn arn(site: &Site<'_>, table: &str) -> String {
    format!("arn:aws:dynamodb:{}:{}:table/{table}", site.region, site.account)
}

/// Whether the table in the site's region is protected; `None` when there is none.
async fn protected(site: &Site<'_>, table: &str) -> Result<Option<bool>, KindError> {
    let request = site.cloud.dynamodb(site.region).describe_table();
    let result = absent(request.table_name(table).send().await, GONE);
    let answer = result.map_err(|e| site.fail("DescribeTable", table, e))?;
    let table = answer.and_then(|answer| answer.table);
    Ok(table.map(|table| table.deletion_protection_enabled().unwrap_or(false)))
}

/// Puts our tags on the table in the site's region.
pub(super) async fn put_tags(site: &Site<'_>, table: &str) -> Result<(), KindError> {
    site.cloud
        .dynamodb(site.region)
        .tag_resource()
        .resource_arn(arn(site, table))
        .set_tags(Some(our_tags(site)))
        .send()
        .await
        .map_err(|e| site.fail("TagResource", table, e))?;
    Ok(())
}

/// The tags of a table; `None` when there is no such table. Asks only when the listing by tag does not show all of ours.
pub(super) async fn read_tags(
    site: &Site<'_>,
    table: &str,
) -> Result<Option<HashMap<String, String>>, KindError> {
    let arn = arn(site, table);
    if let Some(listed) = listing(site).await.tags(&arn)
        && tagged(site, pairs(listed))
    {
        return Ok(Some(listed.clone()));
    }
    let request = site.cloud.dynamodb(site.region).list_tags_of_resource();
    let result = absent(request.resource_arn(arn).send().await, GONE);
    let answer = result.map_err(|e| site.fail("ListTagsOfResource", table, e))?;
    let pair = |tag: aws_sdk_dynamodb::types::Tag| (tag.key, tag.value);
    Ok(answer.map(|answer| answer.tags.unwrap_or_default().into_iter().map(pair).collect()))
}
