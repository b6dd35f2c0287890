//! Everything in one region that carries the stack's tag, from one listing of the Resource Groups Tagging API.
//!
//! The listing lags behind by seconds, sometimes by minutes, so it never decides alone. That it shows our tags on something
//! saves a call to ask for them; that it does not proves nothing. That it shows something which no kind's own listing finds
//! is worth a report only where no kind would know better: see [`crate::engine::inventory`].

use std::collections::{HashMap, HashSet};
use std::sync::{Mutex, PoisonError};

use crate::cloud::Cloud;
use crate::error::KindError;
use crate::kind::{RESOURCE_TAG, STACK_TAG};

/// What the listing of one region showed.
#[derive(Debug, Default)]
pub struct Tagged {
    by_arn: HashMap<String, HashMap<String, String>>,
    untagged: Mutex<HashSet<String>>,
}

impl Tagged {
    /// Lists what carries the tag of the stack `suffix` in `region`.
    ///
    /// # Errors
    /// The call that failed.
    pub async fn read(cloud: &Cloud, region: &str, suffix: &str) -> Result<Self, KindError> {
        let filter = aws_sdk_resourcegroupstagging::types::TagFilter::builder()
            .key(STACK_TAG)
            .values(suffix)
            .build();
        let mappings: Result<Vec<_>, _> = cloud
            .tagging(region)
            .get_resources()
            .tag_filters(filter)
            .resources_per_page(100)
            .into_paginator()
            .items()
            .send()
            .collect()
            .await;
        let mappings = mappings.map_err(|e| KindError::from_sdk("GetResources", suffix, region, e))?;
        let by_arn = mappings.into_iter().filter_map(|mapping| {
            let tags = mapping.tags.unwrap_or_default();
            let tags = tags.into_iter().map(|tag| (tag.key, tag.value));
            Some((mapping.resource_arn?, tags.collect()))
        });
        Ok(Tagged {
            by_arn: by_arn.collect(),
            untagged: Mutex::default(),
        })
    }

    /// Our tags were taken off this resource after the listing.
    pub fn forget(&self, arn: &str) {
        let mut untagged = self.untagged.lock().unwrap_or_else(PoisonError::into_inner);
        untagged.insert(arn.to_owned());
    }

    /// The tags of a resource, when it is in the listing.
    pub fn tags(&self, arn: &str) -> Option<&HashMap<String, String>> {
        let untagged = self.untagged.lock().unwrap_or_else(PoisonError::into_inner);
        self.by_arn.get(arn).filter(|_| !untagged.contains(arn))
    }

    /// The blueprint key of a resource, when it is in the listing and has one.
    pub fn key(&self, arn: &str) -> Option<String> {
        self.tags(arn)?.get(RESOURCE_TAG).cloned()
    }

    /// Every ARN in the listing.
    pub fn arns(&self) -> impl Iterator<Item = &str> {
        self.by_arn.keys().map(String::as_str)
    }
}

impl FromIterator<(String, HashMap<String, String>)> for Tagged {
    fn from_iter<I: IntoIterator<Item = (String, HashMap<String, String>)>>(entries: I) -> Self {
        Tagged {
            by_arn: entries.into_iter().collect(),
            untagged: Mutex::default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_untagged_after_the_listing_is_not_in_it() {
        let tags = HashMap::from([(RESOURCE_TAG.to_owned(), "key".to_owned())]);
        let listing: Tagged = [("arn".to_owned(), tags)].into_iter().collect();
        assert_eq!(listing.key("arn").as_deref(), Some("key"));
        listing.forget("arn");
        assert_eq!(listing.key("arn"), None);
    }
}
