//! The policy of a KMS key, where services may use the key besides what IAM allows. Without ours a key has the policy that KMS
//! gives to every new one, under which only IAM decides; deleting ours puts that one back.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::documents::normal_policy;
use crate::error::{KindError, absent};
use crate::kind::{Found, Kind, Live, Site};

const GONE: &[&str] = &["NotFoundException"];

/// The kind.
#[derive(Debug)]
pub struct KmsKeyPolicy;

/// What we want.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Spec {
    /// ARN of the key.
    pub key_arn: String,
    /// The policy in its normal form.
    pub policy: Value,
}

impl Spec {
    /// IAM decides, as without a policy of ours, and these statements allow more.
    pub fn with(key_arn: String, account: &str, mut statements: Vec<Value>) -> Self {
        statements.insert(0, by_iam(account));
        Spec {
            key_arn,
            policy: normal_policy(&json!({"Version": "2012-10-17", "Statement": statements})),
        }
    }
}

/// What others refer to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outputs {
    /// ARN of the key, which its users may now use.
    pub key_arn: String,
}

impl Kind for KmsKeyPolicy {
    const NAME: &'static str = "kms-key-policy";
    const IMMUTABLE: &'static [&'static str] = &["key_arn"];

    type Spec = Spec;
    type Outputs = Outputs;

    async fn observe(site: &Site<'_>, spec: &Spec) -> Result<Option<Live<Spec, Outputs>>, KindError> {
        let request = site.cloud.kms(site.region).get_key_policy();
        let result = request.key_id(&spec.key_arn).policy_name(NAME).send().await;
        let answer = absent(result, GONE).map_err(|e| site.fail("GetKeyPolicy", &spec.key_arn, e))?;
        let policy = answer.and_then(|answer| answer.policy).unwrap_or_default();
        Ok(ours(&policy).map(|policy| Live {
            spec: Spec {
                key_arn: spec.key_arn.clone(),
                policy,
            },
            outputs: Outputs {
                key_arn: spec.key_arn.clone(),
            },
            settling: None,
        }))
    }

    async fn create(site: &Site<'_>, spec: &Spec) -> Result<(), KindError> {
        put(site, &spec.key_arn, &spec.policy).await
    }

    async fn update(site: &Site<'_>, spec: &Spec, _live: &Live<Spec, Outputs>) -> Result<(), KindError> {
        put(site, &spec.key_arn, &spec.policy).await
    }

    async fn delete(site: &Site<'_>, live: &Live<Spec, Outputs>) -> Result<(), KindError> {
        let default = json!({"Version": "2012-10-17", "Statement": [by_iam(site.account)]});
        put(site, &live.spec.key_arn, &default).await
    }

    /// Goes with its key.
    async fn list(_site: &Site<'_>) -> Result<Vec<Found>, KindError> {
        Ok(Vec::new())
    }
}

/// The only name that KMS has for a key's policy.
const NAME: &str = "default";

/// The one statement of the policy that KMS gives to every new key.
fn by_iam(account: &str) -> Value {
    json!({"Sid": "Enable IAM User Permissions", "Effect": "Allow",
        "Principal": {"AWS": format!("arn:aws:iam::{account}:root")}, "Action": "kms:*", "Resource": "*"})
}

/// The policy, unless it is the one that every new key has.
fn ours(policy: &str) -> Option<Value> {
    let policy = normal_policy(&serde_json::from_str(policy).ok()?);
    let statements = policy["Statement"].as_array().map_or(0, Vec::len);
    (statements > 1).then_some(policy)
}

async fn put(site: &Site<'_>, key: &str, policy: &Value) -> Result<(), KindError> {
    let request = site.cloud.kms(site.region).put_key_policy().key_id(key);
    let result = request.policy_name(NAME).policy(policy.to_string()).send().await;
    absent(result, GONE).map_err(|e| site.fail("PutKeyPolicy", key, e))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_policy_of_every_new_key_is_no_policy_and_ours_is_read_back() {
        let new = json!({"Version": "2012-10-17", "Statement": [by_iam("000000000000")]});
        assert_eq!(ours(&new.to_string()), None);
        assert_eq!(ours(""), None);
        let statement = json!({"Effect": "Allow", "Principal": {"Service": "cloudwatch.amazonaws.com"},
            "Action": "kms:Decrypt", "Resource": "*"});
        let spec = Spec::with("k".into(), "000000000000", vec![statement]);
        assert_eq!(ours(&spec.policy.to_string()), Some(spec.policy));
    }
}
