//! Which stage answers under a custom domain, at its root.

use aws_sdk_apigateway::types::{Op, PatchOperation};
use serde::{Deserialize, Serialize};

use crate::error::{KindError, absent};
use crate::kind::{Found, Kind, Live, Site};

const GONE: &[&str] = &["NotFoundException"];
/// How API Gateway writes the root.
const ROOT: &str = "(none)";

/// The kind.
#[derive(Debug)]
pub struct ApiMapping;

/// What we want.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Spec {
    /// The custom domain.
    pub domain: String,
    /// The API.
    pub rest_api_id: String,
    /// Its stage.
    pub stage: String,
}

/// Nothing but the order refers to it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outputs {}

impl Kind for ApiMapping {
    const NAME: &'static str = "api-mapping";
    const IMMUTABLE: &'static [&'static str] = &["domain"];

    type Spec = Spec;
    type Outputs = Outputs;

    async fn observe(site: &Site<'_>, spec: &Spec) -> Result<Option<Live<Spec, Outputs>>, KindError> {
        let request = site.cloud.apigateway(site.region).get_base_path_mapping();
        let result = request.domain_name(&spec.domain).base_path(ROOT).send().await;
        let answer = absent(result, GONE).map_err(|e| site.fail("GetBasePathMapping", &spec.domain, e))?;
        Ok(answer.map(|live| Live {
            spec: Spec {
                domain: spec.domain.clone(),
                rest_api_id: live.rest_api_id().unwrap_or_default().to_owned(),
                stage: live.stage().unwrap_or_default().to_owned(),
            },
            outputs: Outputs {},
            settling: None,
        }))
    }

    async fn create(site: &Site<'_>, spec: &Spec) -> Result<(), KindError> {
        let request = site.cloud.apigateway(site.region).create_base_path_mapping();
        let request = request.domain_name(&spec.domain).rest_api_id(&spec.rest_api_id);
        let result = request.stage(&spec.stage).send().await;
        absent(result, &["ConflictException"])
            .map_err(|e| site.fail("CreateBasePathMapping", &spec.domain, e))?;
        Ok(())
    }

    async fn update(site: &Site<'_>, spec: &Spec, _live: &Live<Spec, Outputs>) -> Result<(), KindError> {
        let operations = vec![
            replace("/restapiId", &spec.rest_api_id),
            replace("/stage", &spec.stage),
        ];
        let request = site.cloud.apigateway(site.region).update_base_path_mapping();
        let request = request.domain_name(&spec.domain).base_path(ROOT);
        let result = request.set_patch_operations(Some(operations)).send().await;
        result.map_err(|e| site.fail("UpdateBasePathMapping", &spec.domain, e))?;
        Ok(())
    }

    async fn delete(site: &Site<'_>, live: &Live<Spec, Outputs>) -> Result<(), KindError> {
        let domain = &live.spec.domain;
        let request = site.cloud.apigateway(site.region).delete_base_path_mapping();
        let result = request.domain_name(domain).base_path(ROOT).send().await;
        absent(result, GONE).map_err(|e| site.fail("DeleteBasePathMapping", domain, e))?;
        Ok(())
    }

    /// Goes with its domain.
    async fn list(_site: &Site<'_>) -> Result<Vec<Found>, KindError> {
        Ok(Vec::new())
    }
}

fn replace(path: &str, value: &str) -> PatchOperation {
    let operation = PatchOperation::builder().op(Op::Replace);
    operation.path(path).value(value).build()
}
