//! What of ours exists, in every region, of every kind. After a teardown it must be empty.

use std::collections::BTreeSet;
use std::fmt;

use futures::StreamExt;
use serde::Serialize;

use super::Options;
use crate::cloud::Cloud;
use crate::error::KindError;
use crate::kind::{Found, Lister, Scope, Site};
use crate::resources;

/// What was found, and where it was not possible to look.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Inventory {
    /// Everything of ours, sorted.
    pub found: Vec<Found>,
    /// What AWS itself holds back: deletion has begun, and ends later.
    pub held_back: Vec<Found>,
    /// Listings that failed. An inventory with any of them proves nothing.
    pub errors: Vec<String>,
}

impl Inventory {
    /// Nothing is left, and every place was looked at.
    pub fn is_empty(&self) -> bool {
        self.found.is_empty() && self.errors.is_empty()
    }

    /// Resources that no node of `keys` stands for.
    pub fn strangers<'a>(&'a self, keys: &'a BTreeSet<String>) -> impl Iterator<Item = &'a Found> {
        self.found
            .iter()
            .filter(|found| found.key.as_ref().is_none_or(|key| !keys.contains(key)))
    }
}

impl fmt::Display for Inventory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for found in &self.found {
            writeln!(f, "{} {} in {}", found.kind, found.id, found.region)?;
        }
        for held in &self.held_back {
            let until = held.held_back.as_deref().unwrap_or_default();
            writeln!(
                f,
                "held back: {} {} in {}: {until}",
                held.kind, held.id, held.region
            )?;
        }
        for error in &self.errors {
            writeln!(f, "not listed: {error}")?;
        }
        write!(f, "{} left", self.found.len())
    }
}

/// Lists everything of the stack `suffix`, in `regions`, the first of which is asked about what has no region.
///
/// Reads only.
pub async fn inventory(
    suffix: &str,
    account: &str,
    regions: &[&str],
    cloud: &Cloud,
    options: &Options,
) -> Inventory {
    list_with(&resources::listers(), suffix, account, regions, cloud, options).await
}

pub(super) async fn list_with(
    listers: &[Lister],
    suffix: &str,
    account: &str,
    regions: &[&str],
    cloud: &Cloud,
    options: &Options,
) -> Inventory {
    let jobs = listers.iter().flat_map(|lister| {
        let regions = if lister.scope() == Scope::Global {
            &regions[..regions.len().min(1)]
        } else {
            regions
        };
        regions.iter().map(move |region| (lister, *region))
    });
    let mut answers = futures::stream::iter(jobs)
        .map(|(lister, region)| async move {
            let site = Site {
                cloud,
                region,
                key: "",
                suffix,
                account,
            };
            list_one(lister, &site, options).await
        })
        .buffer_unordered(options.concurrency.max(1));
    let mut inventory = Inventory::default();
    while let Some(answer) = answers.next().await {
        match answer {
            Ok(found) => {
                let (held, left): (Vec<_>, Vec<_>) =
                    found.into_iter().partition(|one| one.held_back.is_some());
                inventory.held_back.extend(held);
                inventory.found.extend(left);
            }
            Err(error) => inventory.errors.push(error.chain()),
        }
    }
    inventory.found.sort();
    inventory.held_back.sort();
    inventory.errors.sort();
    inventory
}

async fn list_one(lister: &Lister, site: &Site<'_>, options: &Options) -> Result<Vec<Found>, KindError> {
    const ATTEMPTS: u32 = 3;
    let mut attempt = 1;
    loop {
        match lister.list(site).await {
            Err(error) if error.class.patience().is_some() && attempt < ATTEMPTS => {
                options.clock.sleep(super::FIRST_PAUSE * 4u32.pow(attempt)).await;
                attempt += 1;
            }
            answer => return answer,
        }
    }
}
