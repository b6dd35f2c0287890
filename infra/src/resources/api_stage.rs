//! A stage of a REST API together with the deployment it points to: clients reach the API through it, as it was when it was
//! deployed. The deployment and the hash of its document stand in the stage's description, which changes in the same call as
//! the deployment: one call tells whether the stage is behind, or points to a deployment that somebody else made.

use aws_sdk_apigateway::operation::get_stage::GetStageOutput;
use aws_sdk_apigateway::types::{Op, PatchOperation};
use serde::{Deserialize, Serialize};

use super::rest_api::{MARK, hash_in};
use super::tagging::{pairs, tag_map, tagged};
use crate::error::{KindError, absent};
use crate::kind::{Found, Kind, Live, Site};

/// All methods of all resources, as the key of a stage's settings.
const EVERY_METHOD: &str = "*/*";

/// What stands before the deployment's id in a description.
const DEPLOYMENT: &str = "Deployment ";

/// The kind.
#[derive(Debug)]
pub struct ApiStage;

/// What we want.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Spec {
    /// The API.
    pub rest_api_id: String,
    /// The stage's name.
    pub stage: String,
    /// Hash of the document that is deployed.
    pub document_sha256: String,
    /// It points to the deployment of that document, and not to one that somebody else made.
    pub deployed: bool,
    /// Requests per second.
    pub rate_limit: u32,
    /// Requests at once.
    pub burst_limit: u32,
    /// Metrics of each method.
    pub metrics: bool,
    /// X-Ray traces a sample of the requests, from here on
    /// (<https://docs.aws.amazon.com/apigateway/latest/developerguide/apigateway-enabling-xray.html>).
    pub tracing: bool,
    /// It carries our tags.
    pub tagged: bool,
}

/// What others refer to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outputs {
    /// The API that it is a stage of.
    pub rest_api_id: String,
    /// The API's own host name.
    pub host: String,
    /// The stage's name: the first segment of every path on that host.
    pub stage: String,
    /// `https://{host}/{stage}`.
    pub url: String,
    /// The deployment it points to.
    pub deployment_id: String,
}

impl Kind for ApiStage {
    const NAME: &'static str = "api-stage";
    const IMMUTABLE: &'static [&'static str] = &["rest_api_id", "stage"];

    type Spec = Spec;
    type Outputs = Outputs;

    async fn observe(site: &Site<'_>, spec: &Spec) -> Result<Option<Live<Spec, Outputs>>, KindError> {
        let result = site
            .cloud
            .apigateway(site.region)
            .get_stage()
            .rest_api_id(&spec.rest_api_id)
            .stage_name(&spec.stage)
            .send()
            .await;
        let answer =
            absent(result, &["NotFoundException"]).map_err(|e| site.fail("GetStage", &spec.stage, e))?;
        Ok(answer.map(|live| read(site, spec, &live)))
    }

    /// 1. A deployment of what the API is now. 2. The stage on it. 3. Its settings, which CreateStage does not take.
    async fn create(site: &Site<'_>, spec: &Spec) -> Result<(), KindError> {
        let deployment_id = deploy(site, spec).await?;
        let result = site
            .cloud
            .apigateway(site.region)
            .create_stage()
            .rest_api_id(&spec.rest_api_id)
            .stage_name(&spec.stage)
            .deployment_id(&deployment_id)
            .description(description(spec, &deployment_id))
            .set_tags(Some(tag_map(site)))
            .send()
            .await;
        absent(result, &["ConflictException"]).map_err(|e| site.fail("CreateStage", &spec.stage, e))?;
        patch(site, spec, settings(spec)).await
    }

    async fn update(site: &Site<'_>, spec: &Spec, live: &Live<Spec, Outputs>) -> Result<(), KindError> {
        let mut operations = settings(spec);
        let behind = spec.document_sha256 != live.spec.document_sha256 || !live.spec.deployed;
        if behind {
            let deployment_id = deploy(site, spec).await?;
            operations.push(replace("/description", description(spec, &deployment_id)));
            operations.push(replace("/deploymentId", deployment_id));
        }
        patch(site, spec, operations).await?;
        let gateway = site.cloud.apigateway(site.region);
        if behind {
            let result = gateway
                .delete_deployment()
                .rest_api_id(&spec.rest_api_id)
                .deployment_id(&live.outputs.deployment_id)
                .send()
                .await;
            absent(result, &["NotFoundException"])
                .map_err(|e| site.fail("DeleteDeployment", &live.outputs.deployment_id, e))?;
        }
        if !live.spec.tagged {
            let arn = format!(
                "arn:aws:apigateway:{}::/restapis/{}/stages/{}",
                site.region, spec.rest_api_id, spec.stage
            );
            gateway
                .tag_resource()
                .resource_arn(arn)
                .set_tags(Some(tag_map(site)))
                .send()
                .await
                .map_err(|e| site.fail("TagResource", &spec.stage, e))?;
        }
        Ok(())
    }

    async fn delete(site: &Site<'_>, live: &Live<Spec, Outputs>) -> Result<(), KindError> {
        Self::discard(site, &format!("{}/{}", live.spec.rest_api_id, live.spec.stage)).await
    }

    /// `{API}/{stage}`. Deployments go with the API.
    async fn discard(site: &Site<'_>, id: &str) -> Result<(), KindError> {
        let Some((api, stage)) = id.split_once('/') else {
            return Err(KindError::unsupported(Self::NAME, id, site.region));
        };
        let result = site
            .cloud
            .apigateway(site.region)
            .delete_stage()
            .rest_api_id(api)
            .stage_name(stage)
            .send()
            .await;
        absent(result, &["NotFoundException"]).map_err(|e| site.fail("DeleteStage", stage, e))?;
        Ok(())
    }

    /// Goes with its API.
    async fn list(_site: &Site<'_>) -> Result<Vec<Found>, KindError> {
        Ok(Vec::new())
    }
}

async fn deploy(site: &Site<'_>, spec: &Spec) -> Result<String, KindError> {
    let deployment = site
        .cloud
        .apigateway(site.region)
        .create_deployment()
        .rest_api_id(&spec.rest_api_id)
        .description(format!("{MARK}{}", spec.document_sha256))
        .send()
        .await
        .map_err(|e| site.fail("CreateDeployment", &spec.rest_api_id, e))?;
    Ok(deployment.id.unwrap_or_default())
}

async fn patch(site: &Site<'_>, spec: &Spec, operations: Vec<PatchOperation>) -> Result<(), KindError> {
    site.cloud
        .apigateway(site.region)
        .update_stage()
        .rest_api_id(&spec.rest_api_id)
        .stage_name(&spec.stage)
        .set_patch_operations(Some(operations))
        .send()
        .await
        .map_err(|e| site.fail("UpdateStage", &spec.stage, e))?;
    Ok(())
}

/// What the stage serves: the deployment and the document.
fn description(spec: &Spec, deployment_id: &str) -> String {
    format!("{DEPLOYMENT}{deployment_id}. {MARK}{}", spec.document_sha256)
}

/// The deployment that a description names.
fn deployment_in(description: &str) -> Option<&str> {
    let (id, _) = description.strip_prefix(DEPLOYMENT)?.split_once(". ")?;
    Some(id)
}

fn replace(path: &str, value: impl Into<String>) -> PatchOperation {
    PatchOperation::builder()
        .op(Op::Replace)
        .path(path)
        .value(value)
        .build()
}

fn settings(spec: &Spec) -> Vec<PatchOperation> {
    vec![
        replace(
            &format!("/{EVERY_METHOD}/throttling/rateLimit"),
            spec.rate_limit.to_string(),
        ),
        replace(
            &format!("/{EVERY_METHOD}/throttling/burstLimit"),
            spec.burst_limit.to_string(),
        ),
        replace(
            &format!("/{EVERY_METHOD}/metrics/enabled"),
            spec.metrics.to_string(),
        ),
        replace("/tracingEnabled", spec.tracing.to_string()),
    ]
}

fn read(site: &Site<'_>, wanted: &Spec, live: &GetStageOutput) -> Live<Spec, Outputs> {
    let settings = live
        .method_settings()
        .and_then(|settings| settings.get(EVERY_METHOD));
    let host = format!("{}.execute-api.{}.amazonaws.com", wanted.rest_api_id, site.region);
    Live {
        spec: Spec {
            rest_api_id: wanted.rest_api_id.clone(),
            stage: wanted.stage.clone(),
            document_sha256: hash_in(live.description().unwrap_or_default()).to_owned(),
            deployed: deployment_in(live.description().unwrap_or_default())
                .is_some_and(|made| Some(made) == live.deployment_id()),
            // AWS keeps the rate as a fraction; ours are whole.
            rate_limit: settings.map_or(0, |settings| settings.throttling_rate_limit().round() as u32),
            burst_limit: settings.map_or(0, |settings| {
                u32::try_from(settings.throttling_burst_limit()).unwrap_or(0)
            }),
            metrics: settings.is_some_and(|settings| settings.metrics_enabled()),
            tracing: live.tracing_enabled(),
            tagged: live.tags().is_some_and(|tags| tagged(site, pairs(tags))),
        },
        outputs: Outputs {
            rest_api_id: wanted.rest_api_id.clone(),
            url: format!("https://{host}/{}", wanted.stage),
            host,
            stage: wanted.stage.clone(),
            deployment_id: live.deployment_id().unwrap_or_default().to_owned(),
        },
        settling: None,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::super::testing::Place;
    use super::*;

    fn spec() -> Spec {
        Spec {
            rest_api_id: "api".into(),
            stage: "live".into(),
            document_sha256: "0123".into(),
            deployed: true,
            rate_limit: 10,
            burst_limit: 5,
            metrics: true,
            tracing: false,
            tagged: true,
        }
    }

    #[test]
    fn a_deployment_that_somebody_else_made_is_seen_although_the_description_is_ours() {
        let place = Place::new();
        let site = place.site("api-stage.primary");
        let stage = |deployment: &str| {
            let live = GetStageOutput::builder().description(description(&spec(), "ours"));
            read(&site, &spec(), &live.deployment_id(deployment).build()).spec
        };
        assert_eq!((stage("ours").deployed, stage("theirs").deployed), (true, false));
        assert_eq!(stage("theirs").document_sha256, "0123");
    }

    #[test]
    fn a_stage_of_before_whose_description_names_no_deployment_is_deployed_anew() {
        let place = Place::new();
        let site = place.site("api-stage.primary");
        let live = GetStageOutput::builder()
            .description(format!("{MARK}0123"))
            .deployment_id("ours");
        assert!(!read(&site, &spec(), &live.build()).spec.deployed);
    }
}
