//! The access log of a stage: where API Gateway writes a line for each request, and what is in it.
//!
//! API Gateway writes with a role that the account has once per region, for all its APIs, whoever made them. One that is there
//! is used as it is, whosever it is. Where there is none, ours is set; and only ours is taken away again.

use aws_sdk_apigateway::operation::update_stage::builders::UpdateStageFluentBuilder;
use aws_sdk_apigateway::types::{AccessLogSettings, Op, PatchOperation};
use serde::{Deserialize, Serialize};

use crate::error::{KindError, absent};
use crate::kind::{Found, Kind, Live, Site};

const GONE: &[&str] = &["NotFoundException"];

/// The kind.
#[derive(Debug)]
pub struct ApiAccessLog;

/// What we want.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Spec {
    /// The API.
    pub rest_api_id: String,
    /// The stage.
    pub stage: String,
    /// ARN of the log group.
    pub destination_arn: String,
    /// The line, with `$context` variables.
    pub format: String,
    /// The account has a role to write logs with.
    pub account_can_log: bool,
    /// The role that it gets when it has none. Not compared: another one does as well.
    #[serde(skip)]
    pub role_arn: String,
}

/// Nothing refers to it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outputs {}

impl Kind for ApiAccessLog {
    const NAME: &'static str = "api-access-log";
    const IMMUTABLE: &'static [&'static str] = &["rest_api_id", "stage"];

    type Spec = Spec;
    type Outputs = Outputs;

    async fn observe(site: &Site<'_>, spec: &Spec) -> Result<Option<Live<Spec, Outputs>>, KindError> {
        let request = site.cloud.apigateway(site.region).get_stage();
        let request = request.rest_api_id(&spec.rest_api_id).stage_name(&spec.stage);
        let stage = absent(request.send().await, GONE).map_err(|e| site.fail("GetStage", &spec.stage, e))?;
        let settings = stage.as_ref().and_then(|stage| stage.access_log_settings());
        let Some((destination, format)) = settings.and_then(logged) else {
            return Ok(None);
        };
        Ok(Some(Live {
            spec: Spec {
                destination_arn: destination.to_owned(),
                format: format.to_owned(),
                account_can_log: account_role(site).await?.is_some(),
                ..spec.clone()
            },
            outputs: Outputs {},
            settling: None,
        }))
    }

    /// The account's role first: API Gateway refuses an access log without one.
    async fn create(site: &Site<'_>, spec: &Spec) -> Result<(), KindError> {
        if account_role(site).await?.is_none() {
            set_account_role(site, &spec.role_arn).await?;
        }
        let operations = vec![
            replace("/accessLogSettings/destinationArn", &spec.destination_arn),
            replace("/accessLogSettings/format", &spec.format),
        ];
        let result = stage_patch(site, spec, operations).send().await;
        result.map_err(|e| site.fail("UpdateStage", &spec.stage, e))?;
        Ok(())
    }

    async fn update(site: &Site<'_>, spec: &Spec, _live: &Live<Spec, Outputs>) -> Result<(), KindError> {
        Self::create(site, spec).await
    }

    /// The account's role first, if it is ours: without the log, nothing would lead here again.
    async fn delete(site: &Site<'_>, live: &Live<Spec, Outputs>) -> Result<(), KindError> {
        if account_role(site).await?.as_deref() == Some(live.spec.role_arn.as_str()) {
            set_account_role(site, "").await?;
        }
        let remove = PatchOperation::builder()
            .op(Op::Remove)
            .path("/accessLogSettings");
        let result = stage_patch(site, &live.spec, vec![remove.build()]).send().await;
        absent(result, GONE).map_err(|e| site.fail("UpdateStage", &live.spec.stage, e))?;
        Ok(())
    }

    /// Goes with its stage.
    async fn list(_site: &Site<'_>) -> Result<Vec<Found>, KindError> {
        Ok(Vec::new())
    }
}

/// Where and what is logged, if anything is.
fn logged(settings: &AccessLogSettings) -> Option<(&str, &str)> {
    let destination = settings.destination_arn().filter(|arn| !arn.is_empty())?;
    // API Gateway adds `:*` to some log groups.
    Some((
        destination.trim_end_matches(":*"),
        settings.format().unwrap_or_default().trim_end(),
    ))
}

fn replace(path: &str, value: &str) -> PatchOperation {
    let operation = PatchOperation::builder().op(Op::Replace);
    operation.path(path).value(value).build()
}

fn stage_patch(site: &Site<'_>, spec: &Spec, operations: Vec<PatchOperation>) -> UpdateStageFluentBuilder {
    let request = site.cloud.apigateway(site.region).update_stage();
    let request = request.rest_api_id(&spec.rest_api_id).stage_name(&spec.stage);
    request.set_patch_operations(Some(operations))
}

async fn account_role(site: &Site<'_>) -> Result<Option<String>, KindError> {
    let result = site.cloud.apigateway(site.region).get_account().send().await;
    let account = result.map_err(|e| site.fail("GetAccount", site.account, e))?;
    Ok(account.cloudwatch_role_arn.filter(|role| !role.is_empty()))
}

/// One call in 20 seconds and account is allowed; the engine tries again.
async fn set_account_role(site: &Site<'_>, role_arn: &str) -> Result<(), KindError> {
    let operation = replace("/cloudwatchRoleArn", role_arn);
    let request = site
        .cloud
        .apigateway(site.region)
        .update_account()
        .patch_operations(operation);
    let result = request.send().await;
    result.map_err(|e| site.fail("UpdateAccount", site.account, e))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_without_a_destination_are_no_log() {
        let settings = |arn: &str| {
            AccessLogSettings::builder()
                .destination_arn(arn)
                .format("f\n")
                .build()
        };
        assert_eq!(logged(&settings("")), None);
        assert_eq!(logged(&settings("arn:g:*")), Some(("arn:g", "f")));
    }
}
