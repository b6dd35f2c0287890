//! AWS clients for any region, made when first asked for and then kept. Where requests go (AWS, or whatever
//! `AWS_ENDPOINT_URL` names) is the configuration's business; nothing here asks.

use std::any::{Any, TypeId};
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
    looks: Arc<Mutex<Looks>>,
}

/// What was listed by tag, by region and suffix.
type Listings = HashMap<(String, String), Arc<OnceCell<Arc<Tagged>>>>;

/// What was listed for first looks, by region, suffix, and what it is a listing of.
type Looks = HashMap<(String, String, TypeId), Arc<OnceCell<Box<dyn Any + Send + Sync>>>>;

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
            looks: Arc::default(),
        }
    }

    /// The same clients, with nothing listed yet: what one run may remember, the next must ask again.
    #[must_use]
    pub fn anew(&self) -> Self {
        Cloud {
            tagged: Arc::default(),
            looks: Arc::default(),
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

    /// The first look of a run at one of many resources that one call lists: the first to look lists all, and each takes out what
    /// is its own. `None` means that this one must be asked for by itself: it is not in the listing, or it was looked at before.
    /// So a listing that was overtaken by a write is never believed.
    ///
    /// # Errors
    /// The call that failed. Failures are not remembered.
    pub async fn first_look<T: Send + 'static>(
        &self,
        region: &str,
        suffix: &str,
        key: &str,
        list: impl Future<Output = Result<HashMap<String, T>, KindError>>,
    ) -> Result<Option<T>, KindError> {
        let cell = {
            let mut looks = self.looks.lock().unwrap_or_else(PoisonError::into_inner);
            let place = (region.to_owned(), suffix.to_owned(), TypeId::of::<T>());
            Arc::clone(looks.entry(place).or_default())
        };
        let listed = cell
            .get_or_try_init(|| async {
                let all = Mutex::new(list.await?);
                Ok::<Box<dyn Any + Send + Sync>, KindError>(Box::new(all))
            })
            .await?;
        let listed: &Mutex<HashMap<String, T>> = listed.downcast_ref().expect("the key names its type");
        Ok(listed.lock().unwrap_or_else(PoisonError::into_inner).remove(key))
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
    fis: aws_sdk_fis, "Fault Injection Service";
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

    #[tokio::test]
    async fn a_first_look_lists_once_for_all_and_a_second_look_must_ask() {
        let cloud = Cloud::new(SdkConfig::builder().build());
        let lists = std::sync::atomic::AtomicUsize::new(0);
        let look = async |cloud: &Cloud, key: &str| {
            let list = async {
                lists.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                Ok(HashMap::from([("a".to_owned(), 1), ("b".to_owned(), 2)]))
            };
            cloud
                .first_look("us-east-1", "dev", key, list)
                .await
                .expect("it is listed")
        };
        let looks = [
            look(&cloud, "a").await,
            look(&cloud, "b").await,
            look(&cloud, "c").await,
        ];
        assert_eq!(looks, [Some(1), Some(2), None]);
        assert_eq!(look(&cloud, "a").await, None);
        assert_eq!(lists.load(std::sync::atomic::Ordering::Relaxed), 1);
        assert_eq!(
            look(&cloud.anew(), "a").await,
            Some(1),
            "another run looks for itself"
        );
    }
}
