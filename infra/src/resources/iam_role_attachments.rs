//! The managed policies attached to a role: exactly these. One that somebody else attached is a difference.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use crate::error::{KindError, absent};
use crate::kind::{Found, Kind, Live, Scope, Site};

/// The kind.
#[derive(Debug)]
pub struct IamRoleAttachments;

/// What we want.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Spec {
    /// The role's name.
    pub role: String,
    /// ARNs of the policies; at least one.
    pub policies: BTreeSet<String>,
}

/// Nothing but the order refers to it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outputs {}

impl Kind for IamRoleAttachments {
    const NAME: &'static str = "iam-role-attachments";
    const SCOPE: Scope = Scope::Global;
    const IMMUTABLE: &'static [&'static str] = &["role"];

    type Spec = Spec;
    type Outputs = Outputs;

    async fn observe(site: &Site<'_>, spec: &Spec) -> Result<Option<Live<Spec, Outputs>>, KindError> {
        let policies = attached(site, &spec.role).await?;
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
        for policy in &spec.policies {
            attach(site, &spec.role, policy).await?;
        }
        Ok(())
    }

    async fn update(site: &Site<'_>, spec: &Spec, live: &Live<Spec, Outputs>) -> Result<(), KindError> {
        for policy in spec.policies.difference(&live.spec.policies) {
            attach(site, &spec.role, policy).await?;
        }
        for policy in live.spec.policies.difference(&spec.policies) {
            detach(site, &spec.role, policy).await?;
        }
        Ok(())
    }

    async fn delete(site: &Site<'_>, live: &Live<Spec, Outputs>) -> Result<(), KindError> {
        Self::discard(site, &live.spec.role).await
    }

    /// Whatever is attached, ours or not.
    async fn discard(site: &Site<'_>, role: &str) -> Result<(), KindError> {
        for policy in attached(site, role).await? {
            detach(site, role, &policy).await?;
        }
        Ok(())
    }

    /// Goes with its role.
    async fn list(_site: &Site<'_>) -> Result<Vec<Found>, KindError> {
        Ok(Vec::new())
    }
}

async fn attached(site: &Site<'_>, role: &str) -> Result<BTreeSet<String>, KindError> {
    let mut pages = site
        .cloud
        .iam(site.region)
        .list_attached_role_policies()
        .role_name(role)
        .into_paginator()
        .send();
    let mut policies = BTreeSet::new();
    while let Some(page) = pages.next().await {
        let Some(page) =
            absent(page, &["NoSuchEntity"]).map_err(|e| site.fail("ListAttachedRolePolicies", role, e))?
        else {
            break;
        };
        policies.extend(
            page.attached_policies()
                .iter()
                .filter_map(|policy| policy.policy_arn().map(str::to_owned)),
        );
    }
    Ok(policies)
}

async fn attach(site: &Site<'_>, role: &str, policy: &str) -> Result<(), KindError> {
    site.cloud
        .iam(site.region)
        .attach_role_policy()
        .role_name(role)
        .policy_arn(policy)
        .send()
        .await
        .map_err(|e| site.fail("AttachRolePolicy", role, e))?;
    Ok(())
}

async fn detach(site: &Site<'_>, role: &str, policy: &str) -> Result<(), KindError> {
    let result = site
        .cloud
        .iam(site.region)
        .detach_role_policy()
        .role_name(role)
        .policy_arn(policy)
        .send()
        .await;
    absent(result, &["NoSuchEntity"]).map_err(|e| site.fail("DetachRolePolicy", role, e))?;
    Ok(())
}
