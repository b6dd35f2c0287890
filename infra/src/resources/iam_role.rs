//! An IAM role and who may take it. What the role may do is in resources of its own: `iam-role-attachments` (managed policies)
//! and `iam-role-policies` (inline ones), so that each is read with one or two calls and repaired by itself.

use aws_sdk_iam::types::Tag;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::iam_role_attachments::IamRoleAttachments;
use super::iam_role_policies::IamRolePolicies;
use super::tagging::{key_of, named_ours, tagged};
use crate::documents::{normal_policy, percent_decoded};
use crate::error::{KindError, absent};
use crate::kind::{Found, Kind, Live, Scope, Site, tags};

/// The path of our roles: the listing asks for nothing else, and policies can name them together.
pub const PATH: &str = "/understudy/";

/// The kind.
#[derive(Debug)]
pub struct IamRole;

/// What we want.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Spec {
    /// The role's name.
    pub name: String,
    /// What it is for.
    pub description: String,
    /// Who may take it: a policy in its normal form.
    pub trust: Value,
    /// It carries our tags.
    pub tagged: bool,
}

impl Spec {
    /// A role that an AWS service takes. `conditions` is the statement's `Condition`, null for none.
    pub fn for_service(
        name: impl Into<String>,
        description: impl Into<String>,
        service: &str,
        conditions: Value,
    ) -> Self {
        let mut statement = json!({
            "Effect": "Allow",
            "Principal": {"Service": service},
            "Action": "sts:AssumeRole",
        });
        if !conditions.is_null() {
            statement["Condition"] = conditions;
        }
        let trust = json!({"Version": "2012-10-17", "Statement": [statement]});
        Spec {
            name: name.into(),
            description: description.into(),
            trust: normal_policy(&trust),
            tagged: true,
        }
    }
}

/// What others refer to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outputs {
    /// The role's name.
    pub name: String,
    /// Its ARN.
    pub arn: String,
}

impl Kind for IamRole {
    const NAME: &'static str = "iam-role";
    const SCOPE: Scope = Scope::Global;
    const IMMUTABLE: &'static [&'static str] = &["name"];
    const ARNS: &'static [&'static str] = &["iam:role/"];

    type Spec = Spec;
    type Outputs = Outputs;

    async fn observe(site: &Site<'_>, spec: &Spec) -> Result<Option<Live<Spec, Outputs>>, KindError> {
        let result = site
            .cloud
            .iam(site.region)
            .get_role()
            .role_name(&spec.name)
            .send()
            .await;
        let answer = absent(result, &["NoSuchEntity"]).map_err(|e| site.fail("GetRole", &spec.name, e))?;
        let Some(role) = answer.and_then(|answer| answer.role) else {
            return Ok(None);
        };
        Ok(Some(Live {
            spec: Spec {
                name: role.role_name().to_owned(),
                description: role.description().unwrap_or_default().to_owned(),
                trust: parsed(role.assume_role_policy_document().unwrap_or_default()),
                tagged: tagged(site, role.tags().iter().map(|tag| (tag.key(), tag.value()))),
            },
            outputs: Outputs {
                name: role.role_name().to_owned(),
                arn: role.arn().to_owned(),
            },
            settling: None,
        }))
    }

    async fn create(site: &Site<'_>, spec: &Spec) -> Result<(), KindError> {
        let result = site
            .cloud
            .iam(site.region)
            .create_role()
            .role_name(&spec.name)
            .path(PATH)
            .description(&spec.description)
            .assume_role_policy_document(spec.trust.to_string())
            .set_tags(Some(our_tags(site)))
            .send()
            .await;
        absent(result, &["EntityAlreadyExists"]).map_err(|e| site.fail("CreateRole", &spec.name, e))?;
        Ok(())
    }

    async fn update(site: &Site<'_>, spec: &Spec, live: &Live<Spec, Outputs>) -> Result<(), KindError> {
        let iam = site.cloud.iam(site.region);
        if spec.trust != live.spec.trust {
            iam.update_assume_role_policy()
                .role_name(&spec.name)
                .policy_document(spec.trust.to_string())
                .send()
                .await
                .map_err(|e| site.fail("UpdateAssumeRolePolicy", &spec.name, e))?;
        }
        if spec.description != live.spec.description {
            iam.update_role()
                .role_name(&spec.name)
                .description(&spec.description)
                .send()
                .await
                .map_err(|e| site.fail("UpdateRole", &spec.name, e))?;
        }
        if !live.spec.tagged {
            iam.tag_role()
                .role_name(&spec.name)
                .set_tags(Some(our_tags(site)))
                .send()
                .await
                .map_err(|e| site.fail("TagRole", &spec.name, e))?;
        }
        Ok(())
    }

    async fn delete(site: &Site<'_>, live: &Live<Spec, Outputs>) -> Result<(), KindError> {
        Self::discard(site, &live.spec.name).await
    }

    /// Takes away whatever somebody else attached meanwhile: IAM refuses to delete a role that still has policies.
    async fn discard(site: &Site<'_>, name: &str) -> Result<(), KindError> {
        let iam = site.cloud.iam(site.region);
        let result = iam.delete_role().role_name(name).send().await;
        match result {
            Err(error) if crate::error::code(&error) == Some("DeleteConflict") => {
                IamRoleAttachments::discard(site, name).await?;
                IamRolePolicies::discard(site, name).await?;
                let result = iam.delete_role().role_name(name).send().await;
                absent(result, &["NoSuchEntity"]).map_err(|e| site.fail("DeleteRole", name, e))?;
            }
            other => {
                absent(other, &["NoSuchEntity"]).map_err(|e| site.fail("DeleteRole", name, e))?;
            }
        }
        Ok(())
    }

    /// By path and name: ListRoles returns no tags.
    async fn list(site: &Site<'_>) -> Result<Vec<Found>, KindError> {
        let iam = site.cloud.iam(site.region);
        let mut roles = iam.list_roles().path_prefix(PATH).into_paginator().items().send();
        let mut found = Vec::new();
        while let Some(role) = roles.next().await {
            let role = role.map_err(|e| site.fail("ListRoles", PATH, e))?;
            if named_ours(role.role_name(), site.suffix) {
                let result = iam.list_role_tags().role_name(role.role_name()).send().await;
                let tags = absent(result, &["NoSuchEntity"])
                    .map_err(|e| site.fail("ListRoleTags", role.role_name(), e))?
                    .map(|answer| answer.tags)
                    .unwrap_or_default();
                let key = key_of(site, tags.iter().map(|tag| (tag.key(), tag.value())));
                found.push(site.found::<IamRole>(role.role_name(), key));
            }
        }
        Ok(found)
    }
}

fn our_tags(site: &Site<'_>) -> Vec<Tag> {
    tags(site)
        .into_iter()
        .map(|(key, value)| {
            Tag::builder()
                .key(key)
                .value(value)
                .build()
                .expect("key and value are set")
        })
        .collect()
}

/// A policy document as IAM returns it, in its normal form. What is not JSON stays text and so is a difference.
pub(super) fn parsed(document: &str) -> Value {
    let text = percent_decoded(document);
    serde_json::from_str(&text).map_or(Value::String(text), |policy| normal_policy(&policy))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trust_policy_that_iam_returns_encoded_equals_ours() {
        let spec = Spec::for_service("r", "d", "lambda.amazonaws.com", Value::Null);
        let encoded = "%7B%22Version%22%3A%222012-10-17%22%2C%22Statement%22%3A%5B%7B%22Effect%22%3A%22Allow%22%2C%22\
                       Principal%22%3A%7B%22Service%22%3A%22lambda.amazonaws.com%22%7D%2C%22Action%22%3A%22sts%3AAssumeRole\
                       %22%7D%5D%7D";
        assert_eq!(parsed(encoded), spec.trust);
    }

    #[test]
    fn a_broken_document_is_a_difference_and_not_a_failure() {
        assert_eq!(parsed("{"), Value::String("{".into()));
    }
}
