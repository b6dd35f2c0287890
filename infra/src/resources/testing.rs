//! A site for unit tests of the kinds' pure parts. It reaches nothing.

use aws_config::SdkConfig;

use crate::cloud::Cloud;
use crate::kind::Site;

/// Where the tests' resources would be.
pub(super) struct Place {
    cloud: Cloud,
    extra_tags: Vec<(String, String)>,
}

impl Place {
    pub(super) fn new() -> Self {
        Place {
            cloud: Cloud::new(SdkConfig::builder().build()),
            extra_tags: vec![("Team".into(), "payments".into())],
        }
    }

    /// The home region of the stack `dev`.
    pub(super) fn site<'a>(&'a self, key: &'a str) -> Site<'a> {
        Site {
            cloud: &self.cloud,
            region: "us-east-1",
            key,
            suffix: "dev",
            account: "000000000000",
            extra_tags: &self.extra_tags,
        }
    }
}
