//! Deleting what belongs to the stack and is in its blueprint no more.

use std::collections::BTreeSet;
use std::fmt;

use futures::future::BoxFuture;
use serde::Serialize;

use super::inventory::TAGGED;
use super::{Extent, Inventory, Options, Pace, Write};
use crate::cloud::Cloud;
use crate::error::KindError;
use crate::kind::{Found, Lister};
use crate::resources;

/// What became of something that is in the blueprint no more.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Pruned {
    /// What it is.
    #[serde(flatten)]
    pub found: Found,
    /// Why it is still there; none when it is gone.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub still_there: Option<String>,
}

/// What a prune did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Pruning {
    /// Every stranger that was found.
    pub strangers: Vec<Pruned>,
    /// Listings that failed at last. With any of them there may be strangers that were not found, and none counts as gone.
    pub not_listed: Vec<String>,
}

impl fmt::Display for Pruned {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Found { kind, region, id, .. } = &self.found;
        match &self.still_there {
            None => write!(f, "{kind} {id} in {region}: deleted"),
            Some(why) => write!(f, "{kind} {id} in {region}: still there: {why}"),
        }
    }
}

/// Deletes what carries the stack's tags and a key that is none of `keys`.
///
/// 1. Lists everything of the stack.
/// 2. Asks for the deletion of each stranger. What others still use is refused, and asked for again.
/// 3. Lists again, until none is left, one cannot be deleted, or the budget ends.
///
/// Guarantees: deletes nothing whose key is in `keys`; asks the permit before every deletion; run twice equals once; a listing
/// that fails is told, and nothing is taken for gone that could not be looked for.
pub async fn prune(
    keys: &BTreeSet<String>,
    extent: &Extent<'_>,
    cloud: &Cloud,
    options: &Options,
) -> Pruning {
    let look = || -> BoxFuture<'_, Inventory> { Box::pin(super::inventory(extent, cloud, options)) };
    prune_with(&resources::listers(), keys, extent, cloud, options, &look).await
}

/// The same for a stack that is going away: some calls, and no listing of everything, when [`super::strangers`] shows none. What
/// that misses, the inventory finds which ends a teardown.
pub async fn prune_shown(
    keys: &BTreeSet<String>,
    extent: &Extent<'_>,
    cloud: &Cloud,
    options: &Options,
) -> Pruning {
    let (strangers, errors) = super::strangers(keys, extent, cloud, options).await;
    if strangers.is_empty() && errors.is_empty() {
        return Pruning::default();
    }
    prune(keys, extent, cloud, options).await
}

pub(super) async fn prune_with<'a>(
    listers: &[Lister],
    keys: &BTreeSet<String>,
    extent: &Extent<'_>,
    cloud: &Cloud,
    options: &Options,
    look: &(dyn Fn() -> BoxFuture<'a, Inventory> + Send + Sync),
) -> Pruning {
    let ends = options.clock.now() + options.budget;
    let mut pace = Pace::new();
    let mut pruning = Pruning::default();
    loop {
        let inventory = look().await;
        let strangers = inventory.strangers(keys);
        for one in &mut pruning.strangers {
            if inventory.errors.is_empty() && !strangers.contains(&one.found) {
                one.still_there = None;
            }
        }
        pruning.not_listed = inventory.errors;
        if strangers.is_empty() {
            return pruning;
        }
        let mut hopeless = true;
        for found in strangers {
            let answer = discard(listers, &found, extent, cloud, options).await;
            hopeless &= matches!(&answer, Err((_, false)));
            let why = answer
                .err()
                .map_or_else(|| "AWS is deleting it".to_owned(), |(why, _)| why);
            match pruning.strangers.iter_mut().find(|one| one.found == found) {
                Some(one) => one.still_there = Some(why),
                None => pruning.strangers.push(Pruned {
                    found,
                    still_there: Some(why),
                }),
            }
        }
        if hopeless || pace.until(ends, options).await.is_err() {
            return pruning;
        }
    }
}

/// Asks for one deletion. An error says why not, and whether that may pass.
async fn discard(
    listers: &[Lister],
    found: &Found,
    extent: &Extent<'_>,
    cloud: &Cloud,
    options: &Options,
) -> Result<(), (String, bool)> {
    let Some(lister) = listers.iter().find(|lister| lister.name() == found.kind) else {
        let why = match found.kind.as_str() {
            TAGGED => "it was not made by Understudy: delete it, or take the stack's tags off it",
            _ => "this version of Understudy does not know its kind",
        };
        return Err((why.to_owned(), false));
    };
    let key = found.key.as_deref().unwrap_or_default();
    if let Some(permit) = &options.permit {
        let write = Write {
            key,
            kind: lister.name(),
            region: &found.region,
        };
        permit.check(write).await.map_err(|why| (why, false))?;
    }
    let site = extent.site(cloud, &found.region, key);
    let may_pass = |error: &KindError| error.class.patience().is_some();
    lister
        .discard(&site, &found.id)
        .await
        .map_err(|error| (error.chain(), may_pass(&error)))
}
