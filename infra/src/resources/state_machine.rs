//! A Step Functions state machine, of the standard type. Definitions are compared parsed.

use aws_sdk_sfn::types::{StateMachineStatus, StateMachineType, Tag};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::tagging::{key_of, named_ours};
use crate::documents::canonical;
use crate::error::{KindError, absent};
use crate::kind::{Found, Kind, Live, Site, tags};

/// The kind.
#[derive(Debug)]
pub struct StateMachine;

/// What we want.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Spec {
    /// Its name.
    pub name: String,
    /// The definition in Amazon States Language, rendered.
    pub definition: Value,
    /// The role that it runs as.
    pub role_arn: String,
}

/// What others refer to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outputs {
    /// Its ARN.
    pub arn: String,
}

/// The ARN of a state machine follows from its name.
pub fn arn(region: &str, account: &str, name: &str) -> String {
    format!("arn:aws:states:{region}:{account}:stateMachine:{name}")
}

impl Kind for StateMachine {
    const NAME: &'static str = "state-machine";
    const IMMUTABLE: &'static [&'static str] = &["name"];

    type Spec = Spec;
    type Outputs = Outputs;

    async fn observe(site: &Site<'_>, spec: &Spec) -> Result<Option<Live<Spec, Outputs>>, KindError> {
        let arn = arn(site.region, site.account, &spec.name);
        let result = site
            .cloud
            .sfn(site.region)
            .describe_state_machine()
            .state_machine_arn(&arn)
            .send()
            .await;
        let answer = absent(result, &["StateMachineDoesNotExist"])
            .map_err(|e| site.fail("DescribeStateMachine", &spec.name, e))?;
        Ok(answer.map(|live| Live {
            spec: Spec {
                name: live.name().to_owned(),
                // What is not JSON is a difference too.
                definition: serde_json::from_str(live.definition())
                    .unwrap_or_else(|_| Value::String(live.definition().to_owned())),
                role_arn: live.role_arn().to_owned(),
            },
            outputs: Outputs { arn },
            // It stays for as long as executions run.
            settling: (live.status() == Some(&StateMachineStatus::Deleting))
                .then(|| "state machine is being deleted".to_owned()),
        }))
    }

    async fn create(site: &Site<'_>, spec: &Spec) -> Result<(), KindError> {
        let all = tags(site)
            .into_iter()
            .map(|(key, value)| Tag::builder().key(key).value(value).build());
        let result = site
            .cloud
            .sfn(site.region)
            .create_state_machine()
            .name(&spec.name)
            .definition(canonical(&spec.definition))
            .role_arn(&spec.role_arn)
            .r#type(StateMachineType::Standard)
            .set_tags(Some(all.collect()))
            .send()
            .await;
        absent(result, &["StateMachineAlreadyExists"])
            .map_err(|e| site.fail("CreateStateMachine", &spec.name, e))?;
        Ok(())
    }

    /// Executions under way keep the definition they began with.
    async fn update(site: &Site<'_>, spec: &Spec, live: &Live<Spec, Outputs>) -> Result<(), KindError> {
        site.cloud
            .sfn(site.region)
            .update_state_machine()
            .state_machine_arn(&live.outputs.arn)
            .definition(canonical(&spec.definition))
            .role_arn(&spec.role_arn)
            .send()
            .await
            .map_err(|e| site.fail("UpdateStateMachine", &spec.name, e))?;
        Ok(())
    }

    async fn delete(site: &Site<'_>, live: &Live<Spec, Outputs>) -> Result<(), KindError> {
        let name = &live.spec.name;
        let result = site
            .cloud
            .sfn(site.region)
            .delete_state_machine()
            .state_machine_arn(&live.outputs.arn)
            .send()
            .await;
        absent(result, &["StateMachineDoesNotExist"])
            .map_err(|e| site.fail("DeleteStateMachine", name, e))?;
        Ok(())
    }

    /// By name.
    async fn list(site: &Site<'_>) -> Result<Vec<Found>, KindError> {
        let sfn = site.cloud.sfn(site.region);
        let mut machines = sfn.list_state_machines().into_paginator().items().send();
        let mut found = Vec::new();
        while let Some(machine) = machines.next().await {
            let machine = machine.map_err(|e| site.fail("ListStateMachines", site.suffix, e))?;
            if named_ours(machine.name(), site.suffix) {
                let arn = machine.state_machine_arn();
                let result = sfn.list_tags_for_resource().resource_arn(arn).send().await;
                let tags = absent(result, &["ResourceNotFound", "StateMachineDoesNotExist"])
                    .map_err(|e| site.fail("ListTagsForResource", machine.name(), e))?
                    .and_then(|answer| answer.tags)
                    .unwrap_or_default();
                let pairs = tags
                    .iter()
                    .map(|tag| (tag.key().unwrap_or_default(), tag.value().unwrap_or_default()));
                found.push(site.found::<StateMachine>(machine.name(), key_of(site, pairs)));
            }
        }
        Ok(found)
    }
}
