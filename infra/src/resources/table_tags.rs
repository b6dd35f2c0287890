//! The tags of a table's replica: replicas do not inherit them, and UpdateTable cannot set them. (The table in its home
//! region is tagged when it is created.)

use aws_sdk_dynamodb::types::Tag;
use serde::{Deserialize, Serialize};

use super::dynamodb_table::our_tags;
use super::tagging::tagged;
use crate::error::{KindError, absent};
use crate::kind::{Found, Kind, Live, Site, tags};

/// The kind.
#[derive(Debug)]
pub struct TableTags;

/// What we want: our tags on this table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Spec {
    /// The table's name.
    pub table: String,
}

/// Nothing refers to it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outputs {}

impl Kind for TableTags {
    const NAME: &'static str = "table-tags";
    const IMMUTABLE: &'static [&'static str] = &["table"];

    type Spec = Spec;
    type Outputs = Outputs;

    async fn observe(site: &Site<'_>, spec: &Spec) -> Result<Option<Live<Spec, Outputs>>, KindError> {
        let live = read(site, &spec.table).await?.unwrap_or_default();
        let ours = tagged(site, live.iter().map(|tag| (tag.key(), tag.value())));
        Ok(ours.then(|| Live {
            spec: spec.clone(),
            outputs: Outputs {},
            settling: None,
        }))
    }

    async fn create(site: &Site<'_>, spec: &Spec) -> Result<(), KindError> {
        site.cloud
            .dynamodb(site.region)
            .tag_resource()
            .resource_arn(arn(site, &spec.table))
            .set_tags(Some(our_tags(site)))
            .send()
            .await
            .map_err(|e| site.fail("TagResource", &spec.table, e))?;
        Ok(())
    }

    async fn update(site: &Site<'_>, spec: &Spec, _live: &Live<Spec, Outputs>) -> Result<(), KindError> {
        Self::create(site, spec).await
    }

    async fn delete(site: &Site<'_>, live: &Live<Spec, Outputs>) -> Result<(), KindError> {
        let table = &live.spec.table;
        let keys = tags(site).into_iter().map(|(key, _)| key.to_owned()).collect();
        let result = site
            .cloud
            .dynamodb(site.region)
            .untag_resource()
            .resource_arn(arn(site, table))
            .set_tag_keys(Some(keys))
            .send()
            .await;
        absent(result, &["ResourceNotFoundException"]).map_err(|e| site.fail("UntagResource", table, e))?;
        Ok(())
    }

    /// Goes with its table.
    async fn list(_site: &Site<'_>) -> Result<Vec<Found>, KindError> {
        Ok(Vec::new())
    }
}

fn arn(site: &Site<'_>, table: &str) -> String {
    format!("arn:aws:dynamodb:{}:{}:table/{table}", site.region, site.account)
}

/// The tags of a table; `None` when there is no such table.
pub(super) async fn read(site: &Site<'_>, table: &str) -> Result<Option<Vec<Tag>>, KindError> {
    let result = site
        .cloud
        .dynamodb(site.region)
        .list_tags_of_resource()
        .resource_arn(arn(site, table))
        .send()
        .await;
    let answer = absent(result, &["ResourceNotFoundException"])
        .map_err(|e| site.fail("ListTagsOfResource", table, e))?;
    Ok(answer.map(|answer| answer.tags.unwrap_or_default()))
}
