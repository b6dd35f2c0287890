//! The inline policies of a role: exactly these. Documents are compared in their normal form.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::iam_role::parsed;
use crate::documents::normal_policy;
use crate::error::{KindError, absent};
use crate::kind::{Found, Kind, Live, Scope, Site};

/// The kind.
#[derive(Debug)]
pub struct IamRolePolicies;

/// What we want.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Spec {
    /// The role's name.
    pub role: String,
    /// Policy documents in their normal form, by name; at least one.
    pub policies: BTreeMap<String, Value>,
}

impl Spec {
    /// One policy of these statements.
    pub fn one(role: impl Into<String>, name: &str, statements: Vec<Value>) -> Self {
        let document = serde_json::json!({"Version": "2012-10-17", "Statement": statements});
        Spec {
            role: role.into(),
            policies: BTreeMap::from([(name.to_owned(), normal_policy(&document))]),
        }
    }
}

/// Nothing but the order refers to it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outputs {}

impl Kind for IamRolePolicies {
    const NAME: &'static str = "iam-role-policies";
    const SCOPE: Scope = Scope::Global;
    const IMMUTABLE: &'static [&'static str] = &["role"];

    type Spec = Spec;
    type Outputs = Outputs;

    async fn observe(site: &Site<'_>, spec: &Spec) -> Result<Option<Live<Spec, Outputs>>, KindError> {
        let mut policies = BTreeMap::new();
        for name in names(site, &spec.role).await? {
            let result = site
                .cloud
                .iam(site.region)
                .get_role_policy()
                .role_name(&spec.role)
                .policy_name(&name)
                .send()
                .await;
            let answer =
                absent(result, &["NoSuchEntity"]).map_err(|e| site.fail("GetRolePolicy", &spec.role, e))?;
            if let Some(answer) = answer {
                policies.insert(name, parsed(answer.policy_document()));
            }
        }
        Ok((!policies.is_empty()).then(|| Live {
            spec: Spec {
                role: spec.role.clone(),
                policies,
            },
            outputs: Outputs {},
            settling: None,
        }))
    }

    async fn create(site: &Site<'_>, spec: &Spec) -> Result<(), KindError> {
        for (name, document) in &spec.policies {
            put(site, &spec.role, name, document).await?;
        }
        Ok(())
    }

    async fn update(site: &Site<'_>, spec: &Spec, live: &Live<Spec, Outputs>) -> Result<(), KindError> {
        for (name, document) in &spec.policies {
            if live.spec.policies.get(name) != Some(document) {
                put(site, &spec.role, name, document).await?;
            }
        }
        for name in live
            .spec
            .policies
            .keys()
            .filter(|name| !spec.policies.contains_key(*name))
        {
            remove(site, &spec.role, name).await?;
        }
        Ok(())
    }

    async fn delete(site: &Site<'_>, live: &Live<Spec, Outputs>) -> Result<(), KindError> {
        Self::discard(site, &live.spec.role).await
    }

    /// Every inline policy, ours or not.
    async fn discard(site: &Site<'_>, role: &str) -> Result<(), KindError> {
        for name in names(site, role).await? {
            remove(site, role, &name).await?;
        }
        Ok(())
    }

    /// Goes with its role.
    async fn list(_site: &Site<'_>) -> Result<Vec<Found>, KindError> {
        Ok(Vec::new())
    }
}

async fn names(site: &Site<'_>, role: &str) -> Result<Vec<String>, KindError> {
    let mut pages = site
        .cloud
        .iam(site.region)
        .list_role_policies()
        .role_name(role)
        .into_paginator()
        .send();
    let mut names = Vec::new();
    while let Some(page) = pages.next().await {
        let Some(page) =
            absent(page, &["NoSuchEntity"]).map_err(|e| site.fail("ListRolePolicies", role, e))?
        else {
            break;
        };
        names.extend(page.policy_names);
    }
    Ok(names)
}

async fn put(site: &Site<'_>, role: &str, name: &str, document: &Value) -> Result<(), KindError> {
    site.cloud
        .iam(site.region)
        .put_role_policy()
        .role_name(role)
        .policy_name(name)
        .policy_document(document.to_string())
        .send()
        .await
        .map_err(|e| site.fail("PutRolePolicy", role, e))?;
    Ok(())
}

async fn remove(site: &Site<'_>, role: &str, name: &str) -> Result<(), KindError> {
    let result = site
        .cloud
        .iam(site.region)
        .delete_role_policy()
        .role_name(role)
        .policy_name(name)
        .send()
        .await;
    absent(result, &["NoSuchEntity"]).map_err(|e| site.fail("DeleteRolePolicy", role, e))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use serde_json::json;

    use super::*;

    #[test]
    fn a_policy_equals_itself_after_a_trip_through_iam() {
        let spec = Spec::one(
            "r",
            "p",
            vec![json!({"Effect": "Allow", "Action": "s3:GetObject", "Resource": ["b", "a"]})],
        );
        let document = &spec.policies["p"];
        assert_eq!(&parsed(&document.to_string()), document);
    }
}
