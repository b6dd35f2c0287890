//! An experiment template of AWS Fault Injection Service: what is broken, for how long, and which alarms stop it early. It has
//! no name of its own, only an id: found by its tags.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use aws_sdk_fis::types::{
    CreateExperimentTemplateActionInput, CreateExperimentTemplateExperimentOptionsInput,
    CreateExperimentTemplateStopConditionInput, CreateExperimentTemplateTargetInput,
    EmptyTargetResolutionMode, ExperimentTemplate, ExperimentTemplateAction, ExperimentTemplateSummary,
    ExperimentTemplateTarget, UpdateExperimentTemplateActionInputItem,
    UpdateExperimentTemplateExperimentOptionsInput, UpdateExperimentTemplateStopConditionInput,
    UpdateExperimentTemplateTargetInput,
};
use serde::{Deserialize, Serialize};

use super::tagging::{key_of, pairs, tag_map, tagged};
use crate::error::{KindError, absent};
use crate::kind::{Found, Kind, Live, RESOURCE_TAG, STACK_TAG, Site};

const GONE: &[&str] = &["ResourceNotFoundException"];
/// The tag that holds the name.
const NAME_TAG: &str = "Name";
/// The source of a stop condition that is an alarm.
const ALARM: &str = "aws:cloudwatch:alarm";
/// Every target, not one of them by chance.
const ALL: &str = "ALL";

/// The kind.
#[derive(Debug)]
pub struct FisTemplate;

/// What we want.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Spec {
    /// The `Name` tag.
    pub name: String,
    /// What it does, for a person.
    pub description: String,
    /// What is hit, by the name that actions give it.
    pub targets: BTreeMap<String, Target>,
    /// What is done, by name. All at once.
    pub actions: BTreeMap<String, Action>,
    /// The alarms, of the same region, that end an experiment when they go off.
    pub stop_alarms: BTreeSet<String>,
    /// The role that the service takes to do it.
    pub role_arn: String,
    /// An experiment with a target that is not there fails, instead of skipping what it was to do.
    pub fails_without_target: bool,
    /// It carries our tags.
    pub tagged: bool,
}

/// What is hit: by ARN, because what lost its tags would be left out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Target {
    /// `aws:ec2:subnet`.
    pub resource_type: String,
    /// All of these. FIS takes five at most in one target.
    pub arns: BTreeSet<String>,
}

/// What is done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Action {
    /// `aws:network:disrupt-connectivity`.
    pub action: String,
    /// `duration` and so on.
    pub parameters: BTreeMap<String, String>,
    /// The target's name, by the word that the action has for it.
    pub targets: BTreeMap<String, String>,
}

/// Nothing refers to it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outputs {
    /// Its id.
    pub id: String,
    /// Its ARN.
    pub arn: String,
}

impl Kind for FisTemplate {
    const NAME: &'static str = "fis-template";
    const ARNS: &'static [&'static str] = &["fis:experiment-template/"];

    type Spec = Spec;
    type Outputs = Outputs;

    async fn observe(site: &Site<'_>, spec: &Spec) -> Result<Option<Live<Spec, Outputs>>, KindError> {
        let ours = listed(site).await?.into_iter().find(|one| {
            let tags = one.tags.clone().unwrap_or_default();
            key_of(site, pairs(&tags)).as_deref() == Some(site.key)
        });
        let Some(id) = ours.and_then(|one| one.id) else {
            return Ok(None);
        };
        let request = site.cloud.fis(site.region).get_experiment_template().id(&id);
        let answer = absent(request.send().await, GONE)
            .map_err(|e| site.fail("GetExperimentTemplate", &spec.name, e))?;
        let Some(live) = answer.and_then(|answer| answer.experiment_template) else {
            return Ok(None);
        };
        Ok(Some(Live {
            spec: read(site, &live),
            outputs: Outputs {
                id,
                arn: live.arn.unwrap_or_default(),
            },
            settling: None,
        }))
    }

    async fn create(site: &Site<'_>, spec: &Spec) -> Result<(), KindError> {
        let fail = |problem| site.refuse("CreateExperimentTemplate", &spec.name, None, problem);
        let mut request = site
            .cloud
            .fis(site.region)
            .create_experiment_template()
            .description(&spec.description)
            .role_arn(&spec.role_arn)
            .experiment_options(
                CreateExperimentTemplateExperimentOptionsInput::builder()
                    .empty_target_resolution_mode(resolution(spec))
                    .build(),
            )
            .set_tags(Some(our_tags(site, &spec.name)));
        for (name, target) in &spec.targets {
            let target = CreateExperimentTemplateTargetInput::builder()
                .resource_type(&target.resource_type)
                .set_resource_arns(Some(target.arns.iter().cloned().collect()))
                .selection_mode(ALL)
                .build();
            request = request.targets(name, target.map_err(|error| fail(error.to_string()))?);
        }
        for (name, action) in &spec.actions {
            let action = CreateExperimentTemplateActionInput::builder()
                .action_id(&action.action)
                .set_parameters(Some(texts(&action.parameters)))
                .set_targets(Some(texts(&action.targets)))
                .build();
            request = request.actions(name, action.map_err(|error| fail(error.to_string()))?);
        }
        for alarm in &spec.stop_alarms {
            let condition = CreateExperimentTemplateStopConditionInput::builder()
                .source(ALARM)
                .value(alarm)
                .build();
            request = request.stop_conditions(condition.map_err(|error| fail(error.to_string()))?);
        }
        request
            .send()
            .await
            .map_err(|e| site.fail("CreateExperimentTemplate", &spec.name, e))?;
        Ok(())
    }

    /// The whole template. Experiments under way go on with what they began with.
    async fn update(site: &Site<'_>, spec: &Spec, live: &Live<Spec, Outputs>) -> Result<(), KindError> {
        let fis = site.cloud.fis(site.region);
        if !live.spec.tagged || live.spec.name != spec.name {
            let request = fis.tag_resource().resource_arn(&live.outputs.arn);
            let result = request.set_tags(Some(our_tags(site, &spec.name))).send().await;
            result.map_err(|e| site.fail("TagResource", &spec.name, e))?;
        }
        let but_for_tags = Spec {
            name: spec.name.clone(),
            tagged: true,
            ..live.spec.clone()
        };
        if &but_for_tags == spec {
            return Ok(());
        }
        let fail = |problem| site.refuse("UpdateExperimentTemplate", &spec.name, None, problem);
        let mut request = fis
            .update_experiment_template()
            .id(&live.outputs.id)
            .description(&spec.description)
            .role_arn(&spec.role_arn)
            .experiment_options(
                UpdateExperimentTemplateExperimentOptionsInput::builder()
                    .empty_target_resolution_mode(resolution(spec))
                    .build(),
            );
        for (name, target) in &spec.targets {
            let target = UpdateExperimentTemplateTargetInput::builder()
                .resource_type(&target.resource_type)
                .set_resource_arns(Some(target.arns.iter().cloned().collect()))
                .selection_mode(ALL)
                .build();
            request = request.targets(name, target.map_err(|error| fail(error.to_string()))?);
        }
        for (name, action) in &spec.actions {
            let action = UpdateExperimentTemplateActionInputItem::builder()
                .action_id(&action.action)
                .set_parameters(Some(texts(&action.parameters)))
                .set_targets(Some(texts(&action.targets)))
                .build();
            request = request.actions(name, action);
        }
        for alarm in &spec.stop_alarms {
            let condition = UpdateExperimentTemplateStopConditionInput::builder()
                .source(ALARM)
                .value(alarm)
                .build();
            request = request.stop_conditions(condition.map_err(|error| fail(error.to_string()))?);
        }
        request
            .send()
            .await
            .map_err(|e| site.fail("UpdateExperimentTemplate", &spec.name, e))?;
        Ok(())
    }

    async fn delete(site: &Site<'_>, live: &Live<Spec, Outputs>) -> Result<(), KindError> {
        Self::discard(site, &live.outputs.id).await
    }

    /// Experiments under way go on to their end.
    async fn discard(site: &Site<'_>, id: &str) -> Result<(), KindError> {
        let request = site.cloud.fis(site.region).delete_experiment_template().id(id);
        absent(request.send().await, GONE).map_err(|e| site.fail("DeleteExperimentTemplate", id, e))?;
        Ok(())
    }

    /// By tag: the listing has them.
    async fn list(site: &Site<'_>) -> Result<Vec<Found>, KindError> {
        let ours = listed(site).await?.into_iter().filter_map(|one| {
            let tags = one.tags.unwrap_or_default();
            (tags.get(STACK_TAG).map(String::as_str) == Some(site.suffix)).then(|| {
                site.found::<FisTemplate>(one.id.unwrap_or_default(), tags.get(RESOURCE_TAG).cloned())
            })
        });
        Ok(ours.collect())
    }
}

/// All templates of the region.
async fn listed(site: &Site<'_>) -> Result<Vec<ExperimentTemplateSummary>, KindError> {
    let request = site.cloud.fis(site.region).list_experiment_templates();
    let mut pages = request.into_paginator().items().send();
    let mut all = Vec::new();
    while let Some(one) = pages.next().await {
        all.push(one.map_err(|e| site.fail("ListExperimentTemplates", site.suffix, e))?);
    }
    Ok(all)
}

fn our_tags(site: &Site<'_>, name: &str) -> HashMap<String, String> {
    let mut tags = tag_map(site);
    tags.insert(NAME_TAG.to_owned(), name.to_owned());
    tags
}

fn resolution(spec: &Spec) -> EmptyTargetResolutionMode {
    match spec.fails_without_target {
        true => EmptyTargetResolutionMode::Fail,
        false => EmptyTargetResolutionMode::Skip,
    }
}

fn texts(map: &BTreeMap<String, String>) -> HashMap<String, String> {
    map.clone().into_iter().collect()
}

fn sorted(map: Option<&HashMap<String, String>>) -> BTreeMap<String, String> {
    map.cloned().unwrap_or_default().into_iter().collect()
}

/// What a target or action has beyond our fields makes it another one: it is told apart by its type.
fn read(site: &Site<'_>, live: &ExperimentTemplate) -> Spec {
    let tags = live.tags.clone().unwrap_or_default();
    let target = |(name, target): (&String, &ExperimentTemplateTarget)| {
        let plain = target.selection_mode() == Some(ALL)
            && target.filters().is_empty()
            && target.resource_tags().is_none_or(HashMap::is_empty)
            && target.parameters().is_none_or(HashMap::is_empty);
        let resource_type = target.resource_type().unwrap_or_default();
        let target = Target {
            resource_type: if plain {
                resource_type.to_owned()
            } else {
                format!("{resource_type}, not all")
            },
            arns: target.resource_arns().iter().cloned().collect(),
        };
        (name.clone(), target)
    };
    let action = |(name, action): (&String, &ExperimentTemplateAction)| {
        let id = action.action_id().unwrap_or_default();
        let action = Action {
            action: if action.start_after().is_empty() {
                id.to_owned()
            } else {
                format!("{id}, later")
            },
            parameters: sorted(action.parameters()),
            targets: sorted(action.targets()),
        };
        (name.clone(), action)
    };
    let alarms = live.stop_conditions().iter().filter_map(|condition| {
        (condition.source() == Some(ALARM))
            .then(|| condition.value())
            .flatten()
    });
    let options = live.experiment_options();
    Spec {
        name: tags.get(NAME_TAG).cloned().unwrap_or_default(),
        description: live.description().unwrap_or_default().to_owned(),
        targets: live.targets().into_iter().flatten().map(target).collect(),
        actions: live.actions().into_iter().flatten().map(action).collect(),
        stop_alarms: alarms.map(str::to_owned).collect(),
        role_arn: live.role_arn().unwrap_or_default().to_owned(),
        // What FIS does when it is not told.
        fails_without_target: options.and_then(|options| options.empty_target_resolution_mode())
            != Some(&EmptyTargetResolutionMode::Skip),
        tagged: tagged(site, pairs(&tags)),
    }
}

#[cfg(test)]
mod tests {
    use aws_sdk_fis::types::{ExperimentTemplateExperimentOptions, ExperimentTemplateStopCondition};

    use super::*;
    use crate::resources::testing::Place;

    fn target() -> aws_sdk_fis::types::builders::ExperimentTemplateTargetBuilder {
        ExperimentTemplateTarget::builder()
            .resource_type("aws:ec2:subnet")
            .resource_arns("arn:aws:ec2:us-east-1:000000000000:subnet/s")
            .selection_mode("ALL")
    }

    #[test]
    fn a_template_is_read_back_as_it_was_asked_for() {
        let place = Place::new();
        let site = place.site("isolation.primary");
        let action = ExperimentTemplateAction::builder()
            .action_id("aws:network:disrupt-connectivity")
            .parameters("duration", "PT10M")
            .targets("Subnets", "subnets");
        let condition = ExperimentTemplateStopCondition::builder()
            .source("aws:cloudwatch:alarm")
            .value("arn:alarm");
        let options = ExperimentTemplateExperimentOptions::builder()
            .empty_target_resolution_mode(EmptyTargetResolutionMode::Fail);
        let live = ExperimentTemplate::builder()
            .description("d")
            .role_arn("r")
            .targets("subnets", target().build())
            .actions("cut", action.build())
            .stop_conditions(condition.build())
            .experiment_options(options.build())
            .set_tags(Some(our_tags(&site, "isolate-primary-dev")));
        let text = |text: &str| text.to_owned();
        let expected = Spec {
            name: text("isolate-primary-dev"),
            description: text("d"),
            targets: BTreeMap::from([(
                text("subnets"),
                Target {
                    resource_type: text("aws:ec2:subnet"),
                    arns: BTreeSet::from([text("arn:aws:ec2:us-east-1:000000000000:subnet/s")]),
                },
            )]),
            actions: BTreeMap::from([(
                text("cut"),
                Action {
                    action: text("aws:network:disrupt-connectivity"),
                    parameters: BTreeMap::from([(text("duration"), text("PT10M"))]),
                    targets: BTreeMap::from([(text("Subnets"), text("subnets"))]),
                },
            )]),
            stop_alarms: BTreeSet::from([text("arn:alarm")]),
            role_arn: text("r"),
            fails_without_target: true,
            tagged: true,
        };
        assert_eq!(read(&site, &live.clone().build()), expected);
        let skips = ExperimentTemplateExperimentOptions::builder()
            .empty_target_resolution_mode(EmptyTargetResolutionMode::Skip);
        let live = live.set_stop_conditions(None).experiment_options(skips.build());
        let bare = read(&site, &live.build());
        assert!(bare.stop_alarms.is_empty() && !bare.fails_without_target);
    }

    #[test]
    fn a_target_of_which_a_part_is_chosen_by_chance_is_a_difference() {
        let place = Place::new();
        let site = place.site("isolation.primary");
        for changed in [
            target().selection_mode("COUNT(1)"),
            target().resource_tags("a", "b"),
            target().parameters("a", "b"),
        ] {
            let live = ExperimentTemplate::builder().targets("subnets", changed.build());
            let seen = read(&site, &live.build());
            assert_ne!(seen.targets["subnets"].resource_type, "aws:ec2:subnet");
        }
    }
}
