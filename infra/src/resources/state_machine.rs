//! A Step Functions state machine, of the standard type. Definitions are compared parsed.

use aws_sdk_sfn::types::{ExecutionStatus, StateMachineStatus, StateMachineType, Tag};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::tagging::{key_of, listed_tagged, listing, named_ours, tagged};
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
    /// It carries our tags.
    pub tagged: bool,
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
    const ARNS: &'static [&'static str] = &["states:stateMachine:"];

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
        let Some(live) = answer else { return Ok(None) };
        Ok(Some(Live {
            spec: Spec {
                name: live.name().to_owned(),
                // What is not JSON is a difference too.
                definition: serde_json::from_str(live.definition())
                    .unwrap_or_else(|_| Value::String(live.definition().to_owned())),
                role_arn: live.role_arn().to_owned(),
                tagged: listed_tagged(site, &arn).await
                    || tagged(site, read_tags(site, &arn).await?.iter().filter_map(pair)),
            },
            outputs: Outputs { arn },
            // It stays for as long as executions run.
            settling: (live.status() == Some(&StateMachineStatus::Deleting))
                .then(|| "state machine is being deleted".to_owned()),
        }))
    }

    async fn create(site: &Site<'_>, spec: &Spec) -> Result<(), KindError> {
        let result = site
            .cloud
            .sfn(site.region)
            .create_state_machine()
            .name(&spec.name)
            .definition(canonical(&spec.definition))
            .role_arn(&spec.role_arn)
            .r#type(StateMachineType::Standard)
            .set_tags(Some(our_tags(site)))
            .send()
            .await;
        absent(result, &["StateMachineAlreadyExists"])
            .map_err(|e| site.fail("CreateStateMachine", &spec.name, e))?;
        Ok(())
    }

    /// Executions under way keep the definition they began with.
    async fn update(site: &Site<'_>, spec: &Spec, live: &Live<Spec, Outputs>) -> Result<(), KindError> {
        if !live.spec.tagged {
            let request = site.cloud.sfn(site.region).tag_resource();
            request
                .resource_arn(&live.outputs.arn)
                .set_tags(Some(our_tags(site)))
                .send()
                .await
                .map_err(|e| site.fail("TagResource", &spec.name, e))?;
        }
        if spec.definition == live.spec.definition && spec.role_arn == live.spec.role_arn {
            return Ok(());
        }
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
        Self::discard(site, &live.spec.name).await
    }

    async fn discard(site: &Site<'_>, name: &str) -> Result<(), KindError> {
        end_executions(site, name).await?;
        let result = site
            .cloud
            .sfn(site.region)
            .delete_state_machine()
            .state_machine_arn(arn(site.region, site.account, name))
            .send()
            .await;
        absent(result, &["StateMachineDoesNotExist"])
            .map_err(|e| site.fail("DeleteStateMachine", name, e))?;
        Ok(())
    }

    /// By name, or by tag.
    async fn list(site: &Site<'_>) -> Result<Vec<Found>, KindError> {
        let request = site.cloud.sfn(site.region).list_state_machines();
        let machines: Result<Vec<_>, _> = request.into_paginator().items().send().collect().await;
        let machines = machines.map_err(|e| site.fail("ListStateMachines", site.suffix, e))?;
        let listing = listing(site).await;
        let mut found = Vec::new();
        for machine in &machines {
            let (name, arn) = (machine.name(), machine.state_machine_arn());
            if let Some(key) = listing.key(arn) {
                found.push(site.found::<StateMachine>(name, Some(key)));
            } else if named_ours(name, site.suffix) {
                let tags = read_tags(site, arn).await?;
                found.push(site.found::<StateMachine>(name, key_of(site, tags.iter().filter_map(pair))));
            }
        }
        Ok(found)
    }
}

/// Ends what runs. By itself a state machine that is deleted ends its executions at their next state, and until then they call with a
/// role that goes, too: <https://docs.aws.amazon.com/step-functions/latest/apireference/API_DeleteStateMachine.html>.
async fn end_executions(site: &Site<'_>, name: &str) -> Result<(), KindError> {
    let client = site.cloud.sfn(site.region);
    let running = client
        .list_executions()
        .state_machine_arn(arn(site.region, site.account, name))
        .status_filter(ExecutionStatus::Running)
        .into_paginator()
        .items()
        .send()
        .collect::<Result<Vec<_>, _>>()
        .await;
    let running = absent(running, &["StateMachineDoesNotExist"])
        .map_err(|e| site.fail("ListExecutions", name, e))?
        .unwrap_or_default();
    for execution in running {
        let stop = client
            .stop_execution()
            .execution_arn(execution.execution_arn())
            .cause("the state machine is deleted");
        // Or it has ended by itself.
        absent(
            stop.send().await,
            &["ExecutionDoesNotExist", "ValidationException"],
        )
        .map_err(|e| site.fail("StopExecution", execution.name(), e))?;
    }
    Ok(())
}

async fn read_tags(site: &Site<'_>, arn: &str) -> Result<Vec<Tag>, KindError> {
    let request = site.cloud.sfn(site.region).list_tags_for_resource();
    let result = absent(
        request.resource_arn(arn).send().await,
        &["ResourceNotFound", "StateMachineDoesNotExist"],
    );
    let answer = result.map_err(|e| site.fail("ListTagsForResource", arn, e))?;
    Ok(answer.and_then(|answer| answer.tags).unwrap_or_default())
}

fn our_tags(site: &Site<'_>) -> Vec<Tag> {
    tags(site)
        .into_iter()
        .map(|(key, value)| Tag::builder().key(key).value(value).build())
        .collect()
}

fn pair(tag: &Tag) -> Option<(&str, &str)> {
    tag.key().zip(tag.value())
}
