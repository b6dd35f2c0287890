//! A customer-managed policy: what does not fit into the inline policies of a role, which together hold 10,240 characters. Found
//! by its name, which its ARN follows from. IAM keeps five versions of a policy; ours has one, and two while it changes.

use aws_sdk_iam::types::Tag;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::iam_role::{PATH, parsed};
use super::tagging::{key_of, named_ours, tagged};
use crate::documents::normal_policy;
use crate::error::{KindError, absent};
use crate::kind::{Found, Kind, Live, Scope, Site, tags};

const GONE: &[&str] = &["NoSuchEntity"];

/// The kind.
#[derive(Debug)]
pub struct IamPolicy;

/// What we want.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Spec {
    /// The policy's name.
    pub name: String,
    /// What it allows, in its normal form.
    pub document: Value,
    /// It carries our tags.
    pub tagged: bool,
}

impl Spec {
    /// A policy of these statements.
    pub fn new(name: String, statements: &[Value]) -> Self {
        let document = serde_json::json!({"Version": "2012-10-17", "Statement": statements});
        Spec {
            name,
            document: normal_policy(&document),
            tagged: true,
        }
    }
}

/// What others refer to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outputs {
    /// Its ARN.
    pub arn: String,
}

/// A policy's ARN follows from its name.
pub fn arn(account: &str, name: &str) -> String {
    format!("arn:aws:iam::{account}:policy{PATH}{name}")
}

impl Kind for IamPolicy {
    const NAME: &'static str = "iam-policy";
    const SCOPE: Scope = Scope::Global;
    const IMMUTABLE: &'static [&'static str] = &["name"];
    const ARNS: &'static [&'static str] = &["iam:policy/understudy/"];

    type Spec = Spec;
    type Outputs = Outputs;

    async fn observe(site: &Site<'_>, spec: &Spec) -> Result<Option<Live<Spec, Outputs>>, KindError> {
        let iam = site.cloud.iam(site.region);
        let arn = arn(site.account, &spec.name);
        let answer = absent(iam.get_policy().policy_arn(&arn).send().await, GONE)
            .map_err(|e| site.fail("GetPolicy", &spec.name, e))?;
        let Some(policy) = answer.and_then(|answer| answer.policy) else {
            return Ok(None);
        };
        let version = policy.default_version_id().unwrap_or_default();
        let request = iam.get_policy_version().policy_arn(&arn).version_id(version);
        let answer =
            absent(request.send().await, GONE).map_err(|e| site.fail("GetPolicyVersion", &spec.name, e))?;
        let version = answer.and_then(|answer| answer.policy_version);
        let document = version.and_then(|version| version.document).unwrap_or_default();
        Ok(Some(Live {
            spec: Spec {
                name: spec.name.clone(),
                document: parsed(&document),
                tagged: tagged(site, policy.tags().iter().map(|tag| (tag.key(), tag.value()))),
            },
            outputs: Outputs { arn },
            settling: None,
        }))
    }

    async fn create(site: &Site<'_>, spec: &Spec) -> Result<(), KindError> {
        let request = site
            .cloud
            .iam(site.region)
            .create_policy()
            .policy_name(&spec.name);
        let request = request.path(PATH).policy_document(spec.document.to_string());
        let result = request.set_tags(Some(our_tags(site))).send().await;
        absent(result, &["EntityAlreadyExists"]).map_err(|e| site.fail("CreatePolicy", &spec.name, e))?;
        Ok(())
    }

    /// A new version that counts at once, and the old ones away.
    async fn update(site: &Site<'_>, spec: &Spec, live: &Live<Spec, Outputs>) -> Result<(), KindError> {
        let iam = site.cloud.iam(site.region);
        let arn = &live.outputs.arn;
        if spec.document != live.spec.document {
            delete_old_versions(site, arn).await?;
            let request = iam.create_policy_version().policy_arn(arn).set_as_default(true);
            let result = request.policy_document(spec.document.to_string()).send().await;
            result.map_err(|e| site.fail("CreatePolicyVersion", &spec.name, e))?;
            delete_old_versions(site, arn).await?;
        }
        if !live.spec.tagged {
            let request = iam.tag_policy().policy_arn(arn).set_tags(Some(our_tags(site)));
            let result = request.send().await;
            result.map_err(|e| site.fail("TagPolicy", &spec.name, e))?;
        }
        Ok(())
    }

    async fn delete(site: &Site<'_>, live: &Live<Spec, Outputs>) -> Result<(), KindError> {
        Self::discard(site, &live.outputs.arn).await
    }

    async fn discard(site: &Site<'_>, arn: &str) -> Result<(), KindError> {
        delete_old_versions(site, arn).await?;
        let result = site
            .cloud
            .iam(site.region)
            .delete_policy()
            .policy_arn(arn)
            .send()
            .await;
        absent(result, GONE).map_err(|e| site.fail("DeletePolicy", arn, e))?;
        Ok(())
    }

    /// By path and name: ListPolicies returns no tags.
    async fn list(site: &Site<'_>) -> Result<Vec<Found>, KindError> {
        let iam = site.cloud.iam(site.region);
        let request = iam.list_policies().path_prefix(PATH);
        let policies: Result<Vec<_>, _> = request.into_paginator().items().send().collect().await;
        let mut found = Vec::new();
        for policy in policies.map_err(|e| site.fail("ListPolicies", PATH, e))? {
            let (name, arn) = (
                policy.policy_name().unwrap_or_default(),
                policy.arn().unwrap_or_default(),
            );
            if named_ours(name, site.suffix) {
                let answer = absent(iam.list_policy_tags().policy_arn(arn).send().await, GONE)
                    .map_err(|e| site.fail("ListPolicyTags", name, e))?;
                let tags = answer.map(|answer| answer.tags).unwrap_or_default();
                let key = key_of(site, tags.iter().map(|tag| (tag.key(), tag.value())));
                found.push(site.found::<IamPolicy>(arn, key));
            }
        }
        Ok(found)
    }
}

/// Every version but the one that counts, which only goes with the policy.
async fn delete_old_versions(site: &Site<'_>, arn: &str) -> Result<(), KindError> {
    let iam = site.cloud.iam(site.region);
    let answer = absent(iam.list_policy_versions().policy_arn(arn).send().await, GONE)
        .map_err(|e| site.fail("ListPolicyVersions", arn, e))?;
    for version in answer.and_then(|answer| answer.versions).unwrap_or_default() {
        if !version.is_default_version() {
            let request = iam.delete_policy_version().policy_arn(arn);
            let result = request
                .version_id(version.version_id().unwrap_or_default())
                .send()
                .await;
            absent(result, GONE).map_err(|e| site.fail("DeletePolicyVersion", arn, e))?;
        }
    }
    Ok(())
}

fn our_tags(site: &Site<'_>) -> Vec<Tag> {
    let tag = |(key, value)| {
        Tag::builder()
            .key(key)
            .value(value)
            .build()
            .expect("key and value are set")
    };
    tags(site).into_iter().map(tag).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use serde_json::json;

    use super::*;

    #[test]
    fn a_policy_equals_itself_after_a_trip_through_iam() {
        let statements = [json!({"Effect": "Allow", "Action": "sns:Publish", "Resource": ["b", "a"]})];
        let spec = Spec::new("p".into(), &statements);
        assert_eq!(parsed(&spec.document.to_string()), spec.document);
        assert_eq!(
            arn("000000000000", "p"),
            "arn:aws:iam::000000000000:policy/understudy/p"
        );
    }
}
