//! One statement in a function's resource policy: which service may call it, on behalf of what. Found by its statement id.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::error::{KindError, absent};
use crate::kind::{Found, Kind, Live, Site};

/// The kind.
#[derive(Debug)]
pub struct LambdaPermission;

/// What we want.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Spec {
    /// The function's name.
    pub function: String,
    /// Unique in the function's policy.
    pub statement_id: String,
    /// `lambda:InvokeFunction`.
    pub action: String,
    /// The service, `apigateway.amazonaws.com`.
    pub principal: String,
    /// ARN pattern of what the service calls for.
    pub source_arn: String,
}

/// Nothing but the order refers to it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outputs {}

impl Kind for LambdaPermission {
    const NAME: &'static str = "lambda-permission";
    /// A statement is never changed, only replaced.
    const IMMUTABLE: &'static [&'static str] =
        &["function", "statement_id", "action", "principal", "source_arn"];

    type Spec = Spec;
    type Outputs = Outputs;

    async fn observe(site: &Site<'_>, spec: &Spec) -> Result<Option<Live<Spec, Outputs>>, KindError> {
        let result = site
            .cloud
            .lambda(site.region)
            .get_policy()
            .function_name(&spec.function)
            .send()
            .await;
        let answer = absent(result, &["ResourceNotFoundException"])
            .map_err(|e| site.fail("GetPolicy", &spec.function, e))?;
        let policy = answer.and_then(|answer| answer.policy).unwrap_or_default();
        Ok(read(spec, &policy).map(|spec| Live {
            spec,
            outputs: Outputs {},
            settling: None,
        }))
    }

    async fn create(site: &Site<'_>, spec: &Spec) -> Result<(), KindError> {
        let result = site
            .cloud
            .lambda(site.region)
            .add_permission()
            .function_name(&spec.function)
            .statement_id(&spec.statement_id)
            .action(&spec.action)
            .principal(&spec.principal)
            .source_arn(&spec.source_arn)
            .send()
            .await;
        let exists = |e: &KindError| {
            e.code() == Some("ResourceConflictException") && e.cause.message.contains("already exists")
        };
        match result.map_err(|e| site.fail("AddPermission", &spec.function, e)) {
            Err(error) if !exists(&error) => Err(error),
            _ => Ok(()),
        }
    }

    async fn update(_site: &Site<'_>, _spec: &Spec, _live: &Live<Spec, Outputs>) -> Result<(), KindError> {
        Ok(())
    }

    async fn delete(site: &Site<'_>, live: &Live<Spec, Outputs>) -> Result<(), KindError> {
        Self::discard(
            site,
            &format!("{}/{}", live.spec.function, live.spec.statement_id),
        )
        .await
    }

    /// `{function}/{statement id}`.
    async fn discard(site: &Site<'_>, id: &str) -> Result<(), KindError> {
        let Some((function, statement_id)) = id.split_once('/') else {
            return Err(KindError::unsupported(Self::NAME, id, site.region));
        };
        let result = site
            .cloud
            .lambda(site.region)
            .remove_permission()
            .function_name(function)
            .statement_id(statement_id)
            .send()
            .await;
        absent(result, &["ResourceNotFoundException"])
            .map_err(|e| site.fail("RemovePermission", function, e))?;
        Ok(())
    }

    /// Goes with its function.
    async fn list(_site: &Site<'_>) -> Result<Vec<Found>, KindError> {
        Ok(Vec::new())
    }
}

fn read(wanted: &Spec, policy: &str) -> Option<Spec> {
    let policy: Value = serde_json::from_str(policy).ok()?;
    let statement = policy["Statement"]
        .as_array()?
        .iter()
        .find(|statement| statement["Sid"] == wanted.statement_id.as_str())?;
    let principal = &statement["Principal"];
    // The condition's key is spelt AWS:SourceArn or aws:SourceArn, its operator ArnLike or StringLike.
    let source = statement["Condition"]
        .as_object()
        .into_iter()
        .flat_map(|operators| operators.values())
        .filter_map(Value::as_object)
        .flatten()
        .find(|(key, _)| key.eq_ignore_ascii_case("aws:SourceArn"))
        .and_then(|(_, arn)| arn.as_str());
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    Some(Spec {
        function: wanted.function.clone(),
        statement_id: wanted.statement_id.clone(),
        action: text(&statement["Action"]),
        principal: principal
            .as_str()
            .map_or_else(|| text(&principal["Service"]), str::to_owned),
        source_arn: source.unwrap_or_default().to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wanted() -> Spec {
        Spec {
            function: "f".into(),
            statement_id: "api".into(),
            action: "lambda:InvokeFunction".into(),
            principal: "apigateway.amazonaws.com".into(),
            source_arn: "arn:aws:execute-api:us-east-1:0:abc/*".into(),
        }
    }

    #[test]
    fn the_statement_is_found_among_others_and_read_back() {
        let policy = r#"{"Version":"2012-10-17","Id":"default","Statement":[
            {"Sid":"other","Effect":"Allow","Principal":"*","Action":"lambda:InvokeFunction","Resource":"f"},
            {"Sid":"api","Effect":"Allow","Principal":{"Service":"apigateway.amazonaws.com"},
             "Action":"lambda:InvokeFunction","Resource":"f",
             "Condition":{"ArnLike":{"AWS:SourceArn":"arn:aws:execute-api:us-east-1:0:abc/*"}}}]}"#;
        assert_eq!(read(&wanted(), policy), Some(wanted()));
    }

    #[test]
    fn a_statement_without_its_condition_is_a_difference() {
        let policy = r#"{"Statement":[{"Sid":"api","Effect":"Allow","Principal":{"Service":"apigateway.amazonaws.com"},
             "Action":"lambda:InvokeFunction","Resource":"f"}]}"#;
        assert_ne!(read(&wanted(), policy), Some(wanted()));
        assert_eq!(read(&wanted(), r#"{"Statement":[]}"#), None);
        assert_eq!(read(&wanted(), ""), None);
    }
}
