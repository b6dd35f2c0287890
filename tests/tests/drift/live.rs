//! The stack through the plain SDK, and what one change behind its back is.

use std::pin::Pin;

use aws_sdk_resourcegroupstagging::types::TagFilter;
use infra::cloud::Cloud;
use infra::kind::RESOURCE_TAG;
use serde_json::Value;

pub const HOME: &str = "us-east-1";
pub const STANDBY: &str = "us-east-2";
pub const WITNESS: &str = "us-west-2";

/// What a reconcile must say of a change.
#[derive(Debug)]
pub enum Wrong {
    /// That it is gone.
    Missing,
    /// Which field differs, and from what to what where that is known.
    Field(&'static str, Option<Value>, Option<Value>),
}

/// A change made behind its back.
pub struct Change {
    /// The resource.
    pub key: &'static str,
    /// What it does to it.
    pub wrong: Wrong,
    /// Makes it.
    pub make: fn(Live) -> Pin<Box<dyn Future<Output = ()> + Send>>,
}

/// `gone!("key", |live| calls)`: what is reported as missing. `differs!("key", "field", |live| calls)`: as a difference, with
/// `from` or `from => to` between where they are known.
#[macro_export]
macro_rules! gone {
    ($key:literal, |$live:ident| $body:expr) => {
        $crate::live::Change {
            key: $key,
            wrong: $crate::live::Wrong::Missing,
            make: |$live| {
                Box::pin(async move {
                    $body;
                })
            },
        }
    };
}

/// See [`gone`].
#[macro_export]
macro_rules! differs {
    ($key:literal, $field:literal, |$live:ident| $body:expr) => {
        $crate::differs!(@ $key, $field, None, None, $live, $body)
    };
    ($key:literal, $field:literal, from $from:expr, |$live:ident| $body:expr) => {
        $crate::differs!(@ $key, $field, Some(::serde_json::json!($from)), None, $live, $body)
    };
    ($key:literal, $field:literal, $from:expr => $to:expr, |$live:ident| $body:expr) => {
        $crate::differs!(@ $key, $field, Some(::serde_json::json!($from)), Some(::serde_json::json!($to)), $live, $body)
    };
    (@ $key:literal, $field:literal, $from:expr, $to:expr, $live:ident, $body:expr) => {
        $crate::live::Change {
            key: $key,
            wrong: $crate::live::Wrong::Field($field, $from, $to),
            make: |$live| {
                Box::pin(async move {
                    $body;
                })
            },
        }
    };
}

/// Clients, and how to find what is in the stack.
#[derive(Clone)]
pub struct Live {
    pub cloud: Cloud,
}

impl Live {
    pub fn of(cloud: Cloud) -> Self {
        Live { cloud }
    }

    /// The ARN of the resource with this key, by tag.
    pub async fn arn(&self, region: &str, key: &str) -> String {
        let filter = TagFilter::builder().key(RESOURCE_TAG).values(key).build();
        let request = self.cloud.tagging(region).get_resources().tag_filters(filter);
        let answer = request.send().await.unwrap();
        let found = answer.resource_tag_mapping_list().first();
        let arn = found.and_then(|mapping| mapping.resource_arn());
        arn.unwrap_or_else(|| panic!("nothing in {region} is tagged `{key}`"))
            .to_owned()
    }

    /// The last part of its ARN: the id of what has one.
    pub async fn id(&self, region: &str, key: &str) -> String {
        let arn = self.arn(region, key).await;
        arn.rsplit(['/', ':']).next().unwrap().to_owned()
    }

    /// A handful of repaired values, asked of AWS and not of the reconcile.
    pub async fn is_repaired(&self) {
        crate::compute::is_repaired(self).await;
        crate::data::is_repaired(self).await;
        crate::network::is_repaired(self).await;
        crate::storage::is_repaired(self).await;
    }
}
