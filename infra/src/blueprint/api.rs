//! The payments API of a serving slot: a REST API from the project's OpenAPI document, its stage, and the permission to call
//! the function.

use std::collections::BTreeMap;

use continuity::names::{STAGE, Slot};
use serde_json::{Value, json};

use super::Context;
use super::roles::{self, Purpose};
use crate::documents::render;
use crate::graph::{Blueprint, Handle};
use crate::resources::api_access_log::{self, ApiAccessLog};
use crate::resources::api_stage::{self, ApiStage};
use crate::resources::iam_role;
use crate::resources::lambda_function::{self, LambdaFunction};
use crate::resources::lambda_permission::{self, LambdaPermission};
use crate::resources::log_group::{self, LogGroup};
use crate::resources::rest_api::{self, RestApi};

/// The contract: every operation, what it takes and what it answers, with placeholders for what differs between slots.
pub const DOCUMENT: &str = include_str!("../../api/openapi.json");

/// The API in front of a slot's payment-processor.
pub fn api(
    blueprint: &mut Blueprint,
    context: &Context<'_>,
    slot: Slot,
    processor: &Handle<LambdaFunction>,
) -> Handle<ApiStage> {
    let place = context.place(slot);
    let (name, suffix) = (context.names.rest_api(slot), context.spec.suffix.clone());
    let region = place.region.clone();
    let api: Handle<RestApi> = blueprint.add(
        format!("rest-api.{slot}"),
        &place,
        processor.clone(),
        move |function| rest_api::Spec::new(document(&name, &suffix, &region, &function)),
    );
    let permission: Handle<LambdaPermission> = blueprint.add(
        format!("api-permission.{slot}"),
        &place,
        (processor.clone(), api.clone()),
        |(function, api): (lambda_function::Outputs, rest_api::Outputs)| lambda_permission::Spec {
            function: function.name,
            statement_id: "rest-api".into(),
            action: "lambda:InvokeFunction".into(),
            principal: "apigateway.amazonaws.com".into(),
            source_arn: api.execution_arn,
        },
    );
    let limits = context.spec.api.clone();
    let tracing = context.spec.functions.tracing;
    let stage = blueprint.add(
        format!("api-stage.{slot}"),
        &place,
        api,
        move |api: rest_api::Outputs| api_stage::Spec {
            rest_api_id: api.id,
            stage: STAGE.to_owned(),
            document_sha256: api.document_sha256,
            deployed: true,
            rate_limit: limits.rate_limit,
            burst_limit: limits.burst_limit,
            metrics: true,
            tracing,
            tagged: true,
        },
    );
    // The stage serves from its first moment.
    blueprint.order(&stage, &permission);
    access_log(blueprint, context, slot, &stage);
    stage
}

/// A line of JSON for each request. Neither headers, nor bodies, nor the path with its ids: nothing that is a secret, or a
/// customer's.
fn access_log(blueprint: &mut Blueprint, context: &Context<'_>, slot: Slot, stage: &Handle<ApiStage>) {
    let place = context.place(slot);
    let purpose = Purpose {
        what: "api-logs",
        slot,
        description: "Lets API Gateway write access logs in this region, for whatever APIs the account has.",
        service: "apigateway.amazonaws.com",
    };
    let groups = format!(
        "arn:aws:logs:{}:{}:log-group:*",
        context.region(slot),
        context.account
    );
    // What the managed policy AmazonAPIGatewayPushToCloudWatchLogs allows, in one region: API Gateway refuses a role with less.
    let statements = vec![json!({"Sid": "Write", "Effect": "Allow", "Action": [
        "logs:CreateLogGroup", "logs:CreateLogStream", "logs:DescribeLogGroups", "logs:DescribeLogStreams",
        "logs:PutLogEvents", "logs:GetLogEvents", "logs:FilterLogEvents"], "Resource": groups})];
    let role = roles::service(blueprint, context, purpose, [].into(), (), move |()| {
        statements.clone()
    });
    let spec = log_group::Spec {
        name: context.names.access_log_group(slot),
        retention_days: i32::try_from(context.spec.retention.log_days).unwrap_or(i32::MAX),
        tagged: true,
    };
    let group: Handle<LogGroup> = blueprint.add(format!("log-group.api.{slot}"), &place, (), move |()| {
        spec.clone()
    });
    let format = access_log_format();
    let log: Handle<ApiAccessLog> = blueprint.add(
        format!("api-access-log.{slot}"),
        &place,
        (stage.clone(), group, role.role.clone()),
        move |(stage, group, role): (api_stage::Outputs, log_group::Outputs, iam_role::Outputs)| {
            api_access_log::Spec {
                rest_api_id: stage.rest_api_id,
                stage: stage.stage,
                destination_arn: group.arn,
                format: format.clone(),
                account_can_log: true,
                role_arn: role.arn,
            }
        },
    );
    role.before(blueprint, &log);
}

/// API Gateway wants one line, with the request's id in it.
fn access_log_format() -> String {
    const FIELDS: [(&str, &str); 13] = [
        ("requestId", "requestId"),
        ("extendedRequestId", "extendedRequestId"),
        ("requestTimeEpoch", "requestTimeEpoch"),
        ("domainName", "domainName"),
        ("sourceIp", "identity.sourceIp"),
        ("userAgent", "identity.userAgent"),
        ("httpMethod", "httpMethod"),
        ("resourcePath", "resourcePath"),
        ("status", "status"),
        ("errorType", "error.responseType"),
        ("responseLatencyMs", "responseLatency"),
        ("integrationLatencyMs", "integrationLatency"),
        ("responseLength", "responseLength"),
    ];
    let fields = FIELDS.map(|(name, variable)| format!("\"{name}\":\"$context.{variable}\""));
    format!("{{{}}}", fields.join(","))
}

/// The contract as API Gateway imports it: every operation with its integration, and what it refers to in its place, but for
/// schemas, which become models. So nothing depends on which other references the import follows.
fn document(name: &str, suffix: &str, region: &str, function: &lambda_function::Outputs) -> Value {
    let template: Value = serde_json::from_str(DOCUMENT).expect("the document is JSON, a test says so");
    let values = BTreeMap::from([("name", name.to_owned()), ("suffix", suffix.to_owned())]);
    let mut document = render(&template, &values).expect("every placeholder has a value, a test says so");
    let components = document["components"].clone();
    put_in_place(&mut document["paths"], &components);
    let paths = document["paths"].as_object_mut().into_iter();
    for operation in paths
        .flat_map(|paths| paths.values_mut())
        .filter_map(Value::as_object_mut)
        .flat_map(|item| item.values_mut())
    {
        operation["x-amazon-apigateway-integration"] = json!({
            "type": "aws_proxy",
            "httpMethod": "POST",
            "uri": format!(
                "arn:aws:apigateway:{region}:lambda:path/2015-03-31/functions/{}/invocations",
                function.arn
            ),
            "passthroughBehavior": "when_no_match",
            "timeoutInMillis": 29000,
        });
    }
    if let Some(components) = document["components"].as_object_mut() {
        components.retain(|kind, _| kind == "schemas" || kind == "securitySchemes");
    }
    document
}

/// Replaces references to parameters and responses by what they refer to.
fn put_in_place(value: &mut Value, components: &Value) {
    let named = value
        .get("$ref")
        .and_then(Value::as_str)
        .and_then(|reference| reference.strip_prefix("#/components/"))
        .filter(|named| !named.starts_with("schemas/"))
        .map(|named| format!("/{named}"));
    if let Some(pointer) = named {
        *value = components
            .pointer(&pointer)
            .cloned()
            .expect("what is referred to exists, a test says so");
    }
    match value {
        Value::Object(members) => members
            .values_mut()
            .for_each(|member| put_in_place(member, components)),
        Value::Array(items) => items.iter_mut().for_each(|item| put_in_place(item, components)),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn rendered() -> Value {
        let function = lambda_function::Outputs {
            name: "payment-processor-primary-dev".into(),
            arn: "arn:aws:lambda:us-east-1:000000000000:function:payment-processor-primary-dev".into(),
        };
        document("payments-primary-dev", "dev", "us-east-1", &function)
    }

    #[test]
    fn the_document_is_of_a_version_that_api_gateway_imports() {
        assert!(rendered()["openapi"].as_str().unwrap().starts_with("3.0."));
    }

    #[test]
    fn the_access_log_is_one_line_of_json_with_the_request_id_and_no_header() {
        let format = access_log_format();
        let line: Value = serde_json::from_str(&format).unwrap();
        assert_eq!(line["requestId"], "$context.requestId");
        assert!(!format.contains('\n'));
        // What API keys and customers' ids travel in.
        for forbidden in ["uthoriz", "header", "apiKey", "$context.path", "$input"] {
            assert!(!format.contains(forbidden), "{forbidden}");
        }
    }

    #[test]
    fn every_operation_goes_to_the_function() {
        let document = rendered();
        let mut operations = 0;
        for (path, item) in document["paths"].as_object().unwrap() {
            for (method, operation) in item.as_object().unwrap() {
                let integration = &operation["x-amazon-apigateway-integration"];
                assert_eq!(integration["type"], "aws_proxy", "{method} {path}");
                assert_eq!(integration["httpMethod"], "POST", "{method} {path}");
                let uri = integration["uri"].as_str().unwrap();
                assert!(
                    uri.ends_with(":function:payment-processor-primary-dev/invocations"),
                    "{uri}"
                );
                operations += 1;
            }
        }
        assert_eq!(operations, 14);
    }

    #[test]
    fn every_command_requires_an_idempotency_key() {
        let document = rendered();
        for (path, item) in document["paths"].as_object().unwrap() {
            let Some(command) = item.get("post") else { continue };
            let required = command["parameters"]
                .as_array()
                .unwrap()
                .iter()
                .any(|parameter| parameter["name"] == "Idempotency-Key" && parameter["required"] == true);
            assert!(required, "{path}");
        }
    }

    #[test]
    fn every_schema_that_is_referred_to_exists() {
        fn check(value: &Value, schemas: &Value) {
            if let Some(reference) = value.get("$ref").and_then(Value::as_str) {
                let name = reference.strip_prefix("#/components/schemas/").unwrap();
                assert!(schemas.get(name).is_some(), "{reference}");
            }
            match value {
                Value::Object(members) => members.values().for_each(|value| check(value, schemas)),
                Value::Array(items) => items.iter().for_each(|value| check(value, schemas)),
                _ => {}
            }
        }
        let document = rendered();
        check(&document, &document["components"]["schemas"]);
    }

    #[test]
    fn what_the_gateway_answers_itself_is_a_problem_document() {
        let document = rendered();
        for (name, answer) in document["x-amazon-apigateway-gateway-responses"]
            .as_object()
            .unwrap()
        {
            let content_type = &answer["responseParameters"]["gatewayresponse.header.Content-Type"];
            assert_eq!(content_type, "'application/problem+json'", "{name}");
            let template = answer["responseTemplates"]["application/json"].as_str().unwrap();
            let filled = template.replace("$context.error.messageString", "\"why\"");
            let problem: Value = serde_json::from_str(&filled).unwrap();
            assert!(
                problem["type"]
                    .as_str()
                    .unwrap()
                    .starts_with("https://understudy.dev/errors/"),
                "{name}"
            );
            assert!(problem["title"].is_string(), "{name}");
            assert_eq!(
                problem.get("status").map(ToString::to_string).as_deref(),
                answer.get("statusCode").and_then(Value::as_str),
                "{name}"
            );
        }
    }
}
