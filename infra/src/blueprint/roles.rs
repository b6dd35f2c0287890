//! A role with what it may do: three resources that belong together.

use std::collections::{BTreeMap, BTreeSet};

use continuity::names::Slot;
use serde_json::{Value, json};

use super::Context;
use crate::documents::normal_policy;
use crate::graph::{Blueprint, Group, Handle, Place, Refs};
use crate::kind::Kind;
use crate::resources::iam_role::{self, IamRole};
use crate::resources::iam_role_attachments::{self, IamRoleAttachments};
use crate::resources::iam_role_policies::{self, IamRolePolicies};

/// Logs of a function.
pub const BASIC_EXECUTION: &str = "arn:aws:iam::aws:policy/service-role/AWSLambdaBasicExecutionRole";
/// Network interfaces of a function in a VPC.
pub const VPC_EXECUTION: &str = "arn:aws:iam::aws:policy/service-role/AWSLambdaVPCAccessExecutionRole";

/// What a role is for.
#[derive(Debug, Clone, Copy)]
pub struct Purpose<'a> {
    /// The first word of its name.
    pub what: &'a str,
    /// The slot it works in.
    pub slot: Slot,
    /// In words.
    pub description: &'a str,
    /// The service that takes it.
    pub service: &'a str,
}

/// A role and its policies.
#[derive(Debug, Clone)]
pub struct Role {
    /// The role.
    pub role: Handle<IamRole>,
    /// Its managed policies.
    pub attachments: Option<Handle<IamRoleAttachments>>,
    policies: Handle<IamRolePolicies>,
}

impl Role {
    /// Whoever uses the role comes after its policies, and goes before them.
    pub fn before<K: Kind>(&self, blueprint: &mut Blueprint, user: &Handle<K>) {
        blueprint.order(user, &self.policies);
        if let Some(attachments) = &self.attachments {
            blueprint.order(user, attachments);
        }
    }
}

/// IAM has no regions, but a role is counted where it works.
pub fn place(context: &Context<'_>, slot: Slot) -> Place {
    Place {
        group: Group::from(slot),
        region: context.region(Slot::Primary).to_owned(),
    }
}

/// A role for a service, which may do what `managed` and `statements` say and nothing else.
pub fn service<R: Refs>(
    blueprint: &mut Blueprint,
    context: &Context<'_>,
    purpose: Purpose<'_>,
    managed: BTreeSet<String>,
    refs: R,
    statements: impl Fn(R::Outputs) -> Vec<Value> + Send + Sync + 'static,
) -> Role {
    let Purpose {
        what,
        slot,
        description,
        service,
    } = purpose;
    let place = place(context, slot);
    let name = context.names.regional(what, slot);
    // Only these say on whose behalf they take a role.
    let conditions = if [
        "states.amazonaws.com",
        "scheduler.amazonaws.com",
        "fis.amazonaws.com",
    ]
    .contains(&service)
    {
        json!({"StringEquals": {"aws:SourceAccount": context.account}})
    } else {
        Value::Null
    };
    let spec = iam_role::Spec::for_service(name, description, service, conditions);
    let role: Handle<IamRole> =
        blueprint.add(format!("role.{what}.{slot}"), &place, (), move |()| spec.clone());
    let attachments = (!managed.is_empty()).then(|| {
        blueprint.add(
            format!("role-attachments.{what}.{slot}"),
            &place,
            role.clone(),
            move |role: iam_role::Outputs| iam_role_attachments::Spec {
                role: role.name,
                policies: managed.clone(),
            },
        )
    });
    let policy_name = what.to_owned();
    let policies = blueprint.add(
        format!("role-policies.{what}.{slot}"),
        &place,
        (role.clone(), refs),
        move |(role, outputs): (iam_role::Outputs, R::Outputs)| {
            let document = json!({"Version": "2012-10-17", "Statement": statements(outputs)});
            iam_role_policies::Spec {
                role: role.name,
                policies: BTreeMap::from([(policy_name.clone(), normal_policy(&document))]),
            }
        },
    );
    Role {
        role,
        attachments,
        policies,
    }
}
