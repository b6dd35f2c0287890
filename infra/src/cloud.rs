//! AWS clients for any region, made when first asked for and then kept. Where requests go (AWS, or whatever
//! `AWS_ENDPOINT_URL` names) is the configuration's business; nothing here asks.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use aws_config::{Region, SdkConfig};
use tokio::sync::OnceCell;

use crate::error::KindError;
use crate::tagged::Tagged;

/// Clients of every service this crate calls, by region.
#[derive(Clone)]
pub struct Cloud {
    config: Arc<SdkConfig>,
    regions: Arc<Mutex<HashMap<String, Arc<Regional>>>>,
    tagged: Arc<Mutex<Listings>>,
}

/// What was listed by tag, by region and suffix.
type Listings = HashMap<(String, String), Arc<OnceCell<Arc<Tagged>>>>;

impl fmt::Debug for Cloud {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cloud").finish_non_exhaustive()
    }
}

impl Cloud {
    /// Clients that share one configuration (credentials, HTTP client, retries); only the region differs.
    pub fn new(config: SdkConfig) -> Self {
        Cloud {
            config: Arc::new(config),
            regions: Arc::default(),
            tagged: Arc::default(),
        }
    }

    /// The same clients, with nothing listed yet: what one run may remember, the next must ask again.
    #[must_use]
    pub fn anew(&self) -> Self {
        Cloud {
            tagged: Arc::default(),
            ..self.clone()
        }
    }

    /// What carries the tag of the stack `suffix` in `region`: listed when first asked for, and then remembered.
    ///
    /// # Errors
    /// The call that failed. Failures are not remembered.
    pub async fn tagged(&self, region: &str, suffix: &str) -> Result<Arc<Tagged>, KindError> {
        let cell = {
            let mut listings = self.tagged.lock().unwrap_or_else(PoisonError::into_inner);
            Arc::clone(
                listings
                    .entry((region.to_owned(), suffix.to_owned()))
                    .or_default(),
            )
        };
        let listing = cell
            .get_or_try_init(|| async { Tagged::read(self, region, suffix).await.map(Arc::new) })
            .await?;
        Ok(Arc::clone(listing))
    }

    /// The configuration that the clients share.
    pub fn config(&self) -> &SdkConfig {
        &self.config
    }

    fn regional(&self, region: &str) -> Arc<Regional> {
        let mut regions = self.regions.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(found) = regions.get(region) {
            return Arc::clone(found);
        }
        let config = self
            .config
            .to_builder()
            .region(Region::new(region.to_owned()))
            .build();
        let made = Arc::new(Regional::new(config));
        regions.insert(region.to_owned(), Arc::clone(&made));
        made
    }
}

macro_rules! clients {
    ($($name:ident: $sdk:ident, $service:literal;)*) => {
        struct Regional {
            config: SdkConfig,
            $($name: OnceLock<$sdk::Client>,)*
        }

        impl Regional {
            fn new(config: SdkConfig) -> Self {
                Regional { config, $($name: OnceLock::new(),)* }
            }
        }

        impl Cloud {
            $(
                #[doc = concat!("A client of ", $service, " in `region`.")]
                pub fn $name(&self, region: &str) -> $sdk::Client {
                    let regional = self.regional(region);
                    regional.$name.get_or_init(|| $sdk::Client::new(&regional.config)).clone()
                }
            )*
        }
    };
}

clients! {
    acm: aws_sdk_acm, "Certificate Manager";
    apigateway: aws_sdk_apigateway, "API Gateway";
    cloudwatch: aws_sdk_cloudwatch, "CloudWatch";
    logs: aws_sdk_cloudwatchlogs, "CloudWatch Logs";
    dynamodb: aws_sdk_dynamodb, "DynamoDB";
    ec2: aws_sdk_ec2, "EC2";
    events: aws_sdk_eventbridge, "EventBridge";
    iam: aws_sdk_iam, "IAM";
    kms: aws_sdk_kms, "KMS";
    lambda: aws_sdk_lambda, "Lambda";
    rds: aws_sdk_rds, "RDS";
    tagging: aws_sdk_resourcegroupstagging, "the Resource Groups Tagging API";
    route53: aws_sdk_route53, "Route 53";
    s3: aws_sdk_s3, "S3";
    scheduler: aws_sdk_scheduler, "EventBridge Scheduler";
    secrets: aws_sdk_secretsmanager, "Secrets Manager";
    quotas: aws_sdk_servicequotas, "Service Quotas";
    sfn: aws_sdk_sfn, "Step Functions";
    sns: aws_sdk_sns, "SNS";
    sts: aws_sdk_sts, "STS";
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_region_is_configured_once_and_keeps_the_shared_endpoint() {
        let cloud = Cloud::new(SdkConfig::builder().endpoint_url("http://127.0.0.1:1").build());
        let first = cloud.regional("us-east-1");
        assert!(Arc::ptr_eq(&first, &cloud.regional("us-east-1")));
        assert_eq!(first.config.endpoint_url(), Some("http://127.0.0.1:1"));
        assert_eq!(
            cloud.regional("us-east-2").config.region().map(Region::as_ref),
            Some("us-east-2")
        );
    }
}
