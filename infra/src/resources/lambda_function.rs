//! A Lambda function whose package lies in an artifact bucket under its own hash. The code is identified by that hash: Lambda
//! reports the SHA-256 of the package it runs, so one call tells whether code and configuration are as wanted.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use aws_sdk_lambda::operation::get_function::GetFunctionOutput;
use aws_sdk_lambda::types::{
    Architecture, Environment, FunctionCode, FunctionConfiguration, LastUpdateStatus, Runtime, State,
    TracingConfig, TracingMode, VpcConfig,
};
use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use continuity::names::Names;
use serde::{Deserialize, Serialize};

use super::tagging::{key_of, listing, named_ours, pairs, tag_map, tagged};
use crate::error::{KindError, absent};
use crate::kind::{Found, Kind, Live, Site};

/// The kind.
#[derive(Debug)]
pub struct LambdaFunction;

/// What we want.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Spec {
    /// The function's name.
    pub name: String,
    /// What it is for.
    pub description: String,
    /// SHA-256 of the package, hexadecimal.
    pub code_sha256: String,
    /// Where the package comes from. Not read back: Lambda keeps a copy and forgets the source.
    pub source: Source,
    /// The role that it runs as.
    pub role_arn: String,
    /// `x86_64` or `arm64`.
    pub architecture: String,
    /// `provided.al2023` for Rust.
    pub runtime: String,
    /// Memory, and with it the share of CPU.
    pub memory_mb: i32,
    /// The longest that a call may take.
    pub timeout_s: i32,
    /// Environment variables. Never a secret.
    pub environment: BTreeMap<String, String>,
    /// The subnets it is attached to; none for a function outside the VPC.
    pub subnet_ids: BTreeSet<String>,
    /// Its security groups.
    pub security_group_ids: BTreeSet<String>,
    /// Concurrent calls that it is guaranteed and limited to; `None` leaves it to the account's pool.
    pub reserved_concurrency: Option<i32>,
    /// Lambda samples calls and traces them (mode `Active`), or only those that a caller has sampled (`PassThrough`):
    /// <https://docs.aws.amazon.com/lambda/latest/api/API_TracingConfig.html>.
    pub tracing: bool,
    /// It carries our tags.
    pub tagged: bool,
}

/// The package in an artifact bucket.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Source {
    /// The bucket, in the function's region.
    pub bucket: String,
    /// The function's name in the bucket, without slot and suffix.
    pub package: String,
}

/// What others refer to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outputs {
    /// The function's name.
    pub name: String,
    /// Its ARN, without a version.
    pub arn: String,
}

impl Kind for LambdaFunction {
    const NAME: &'static str = "lambda-function";
    const IMMUTABLE: &'static [&'static str] = &["name"];
    const ARNS: &'static [&'static str] = &["lambda:function:"];

    type Spec = Spec;
    type Outputs = Outputs;

    /// GetFunction answers with configuration and tags at once.
    async fn observe(site: &Site<'_>, spec: &Spec) -> Result<Option<Live<Spec, Outputs>>, KindError> {
        let result = site
            .cloud
            .lambda(site.region)
            .get_function()
            .function_name(&spec.name)
            .send()
            .await;
        let answer = absent(result, &["ResourceNotFoundException"])
            .map_err(|e| site.fail("GetFunction", &spec.name, e))?;
        Ok(answer.and_then(|answer| read(site, spec, &answer)))
    }

    async fn create(site: &Site<'_>, spec: &Spec) -> Result<(), KindError> {
        let result = site
            .cloud
            .lambda(site.region)
            .create_function()
            .function_name(&spec.name)
            .description(&spec.description)
            .role(&spec.role_arn)
            .runtime(Runtime::from(spec.runtime.as_str()))
            .handler(HANDLER)
            .architectures(Architecture::from(spec.architecture.as_str()))
            .memory_size(spec.memory_mb)
            .timeout(spec.timeout_s)
            .environment(environment(spec))
            .tracing_config(tracing(spec))
            .set_vpc_config((!spec.subnet_ids.is_empty()).then(|| vpc(spec)))
            .code(
                FunctionCode::builder()
                    .s3_bucket(&spec.source.bucket)
                    .s3_key(Names::artifact_key(&spec.source.package, &spec.code_sha256))
                    .build(),
            )
            .set_tags(Some(tag_map(site)))
            .send()
            .await;
        // Two callers at once: the other one made it, and what differs is updated after the next look.
        let exists = |e: &KindError| e.code() == Some("ResourceConflictException");
        match result.map_err(|e| site.fail("CreateFunction", &spec.name, e)) {
            Err(error) if !exists(&error) => Err(error),
            _ => Ok(()),
        }
    }

    /// Code or configuration, not both: Lambda refuses a second change while the first is under way, and the engine looks again after it.
    async fn update(site: &Site<'_>, spec: &Spec, live: &Live<Spec, Outputs>) -> Result<(), KindError> {
        let lambda = site.cloud.lambda(site.region);
        if !live.spec.tagged {
            lambda
                .tag_resource()
                .resource(&live.outputs.arn)
                .set_tags(Some(tag_map(site)))
                .send()
                .await
                .map_err(|e| site.fail("TagResource", &spec.name, e))?;
        }
        if spec.reserved_concurrency != live.spec.reserved_concurrency {
            reserve(site, spec).await?;
        }
        if configured_alike(spec, &live.spec) {
            if spec.code_sha256 != live.spec.code_sha256 || spec.architecture != live.spec.architecture {
                lambda
                    .update_function_code()
                    .function_name(&spec.name)
                    .architectures(Architecture::from(spec.architecture.as_str()))
                    .s3_bucket(&spec.source.bucket)
                    .s3_key(Names::artifact_key(&spec.source.package, &spec.code_sha256))
                    .send()
                    .await
                    .map_err(|e| site.fail("UpdateFunctionCode", &spec.name, e))?;
            }
            return Ok(());
        }
        lambda
            .update_function_configuration()
            .function_name(&spec.name)
            .description(&spec.description)
            .role(&spec.role_arn)
            .runtime(Runtime::from(spec.runtime.as_str()))
            .memory_size(spec.memory_mb)
            .timeout(spec.timeout_s)
            .environment(environment(spec))
            .vpc_config(vpc(spec))
            .tracing_config(tracing(spec))
            .send()
            .await
            .map_err(|e| site.fail("UpdateFunctionConfiguration", &spec.name, e))?;
        Ok(())
    }

    async fn delete(site: &Site<'_>, live: &Live<Spec, Outputs>) -> Result<(), KindError> {
        Self::discard(site, &live.spec.name).await
    }

    async fn discard(site: &Site<'_>, name: &str) -> Result<(), KindError> {
        let result = site
            .cloud
            .lambda(site.region)
            .delete_function()
            .function_name(name)
            .send()
            .await;
        absent(result, &["ResourceNotFoundException"]).map_err(|e| site.fail("DeleteFunction", name, e))?;
        Ok(())
    }

    /// By name, or by tag.
    async fn list(site: &Site<'_>) -> Result<Vec<Found>, KindError> {
        let lambda = site.cloud.lambda(site.region);
        let pages = lambda.list_functions().into_paginator().items().send();
        let functions: Result<Vec<_>, _> = pages.collect().await;
        let functions = functions.map_err(|e| site.fail("ListFunctions", site.suffix, e))?;
        let listing = listing(site).await;
        let mut found = Vec::new();
        for function in &functions {
            let (Some(name), Some(arn)) = (function.function_name(), function.function_arn()) else {
                continue;
            };
            if let Some(key) = listing.key(arn) {
                found.push(site.found::<LambdaFunction>(name, Some(key)));
            } else if named_ours(name, site.suffix) {
                let result = lambda.list_tags().resource(arn).send().await;
                let tags = absent(result, &["ResourceNotFoundException"])
                    .map_err(|e| site.fail("ListTags", name, e))?
                    .and_then(|answer| answer.tags)
                    .unwrap_or_default();
                found.push(site.found::<LambdaFunction>(name, key_of(site, pairs(&tags))));
            }
        }
        Ok(found)
    }
}

/// What a package of a custom runtime contains. Lambda wants a handler and does not use it.
const HANDLER: &str = "bootstrap";

fn environment(spec: &Spec) -> Environment {
    let variables: HashMap<_, _> = spec.environment.clone().into_iter().collect();
    Environment::builder().set_variables(Some(variables)).build()
}

fn tracing(spec: &Spec) -> TracingConfig {
    let mode = if spec.tracing {
        TracingMode::Active
    } else {
        TracingMode::PassThrough
    };
    TracingConfig::builder().mode(mode).build()
}

fn vpc(spec: &Spec) -> VpcConfig {
    VpcConfig::builder()
        .set_subnet_ids(Some(spec.subnet_ids.iter().cloned().collect()))
        .set_security_group_ids(Some(spec.security_group_ids.iter().cloned().collect()))
        .build()
}

/// CreateFunction knows nothing of concurrency, so it always comes with the first update.
async fn reserve(site: &Site<'_>, spec: &Spec) -> Result<(), KindError> {
    let lambda = site.cloud.lambda(site.region);
    match spec.reserved_concurrency {
        Some(calls) => {
            lambda
                .put_function_concurrency()
                .function_name(&spec.name)
                .reserved_concurrent_executions(calls)
                .send()
                .await
                .map_err(|e| site.fail("PutFunctionConcurrency", &spec.name, e))?;
        }
        None => {
            lambda
                .delete_function_concurrency()
                .function_name(&spec.name)
                .send()
                .await
                .map_err(|e| site.fail("DeleteFunctionConcurrency", &spec.name, e))?;
        }
    }
    Ok(())
}

/// Equal in everything that UpdateFunctionConfiguration sets.
fn configured_alike(one: &Spec, other: &Spec) -> bool {
    let blind = |spec: &Spec| Spec {
        code_sha256: String::new(),
        architecture: String::new(),
        reserved_concurrency: None,
        tagged: true,
        ..spec.clone()
    };
    blind(one) == blind(other)
}

fn read(site: &Site<'_>, wanted: &Spec, answer: &GetFunctionOutput) -> Option<Live<Spec, Outputs>> {
    let live = answer.configuration()?;
    let none = HashMap::new();
    let set = |ids: Option<&[String]>| ids.unwrap_or_default().iter().cloned().collect::<BTreeSet<_>>();
    let network = live.vpc_config();
    let variables = live
        .environment()
        .and_then(|environment| environment.variables())
        .unwrap_or(&none);
    let spec = Spec {
        name: live.function_name().unwrap_or_default().to_owned(),
        description: live.description().unwrap_or_default().to_owned(),
        code_sha256: hexadecimal(live.code_sha256().unwrap_or_default()),
        source: wanted.source.clone(),
        role_arn: live.role().unwrap_or_default().to_owned(),
        architecture: live.architectures().first().map_or_else(
            || "x86_64".to_owned(),
            |architecture| architecture.as_str().to_owned(),
        ),
        runtime: live
            .runtime()
            .map(|runtime| runtime.as_str().to_owned())
            .unwrap_or_default(),
        memory_mb: live.memory_size().unwrap_or_default(),
        timeout_s: live.timeout().unwrap_or_default(),
        environment: variables
            .iter()
            .map(|(key, value)| (key.clone(), value.clone()))
            .collect(),
        subnet_ids: set(network.map(|network| network.subnet_ids())),
        security_group_ids: set(network.map(|network| network.security_group_ids())),
        reserved_concurrency: answer
            .concurrency()
            .and_then(|reserved| reserved.reserved_concurrent_executions()),
        tracing: live.tracing_config().and_then(|tracing| tracing.mode()) == Some(&TracingMode::Active),
        tagged: tagged(site, pairs(answer.tags().unwrap_or(&none))),
    };
    let outputs = Outputs {
        name: spec.name.clone(),
        arn: live.function_arn().unwrap_or_default().to_owned(),
    };
    Some(Live {
        spec,
        outputs,
        settling: settling(live),
    })
}

/// `Inactive` is settled: the next call wakes the function.
fn settling(live: &FunctionConfiguration) -> Option<String> {
    let reason = |text: Option<&str>| text.map(|text| format!(": {text}")).unwrap_or_default();
    match (live.state(), live.last_update_status()) {
        (Some(State::Pending), _) => Some(format!("function is pending{}", reason(live.state_reason()))),
        (_, Some(LastUpdateStatus::InProgress)) => Some(format!(
            "function is being updated{}",
            reason(live.last_update_status_reason())
        )),
        _ => None,
    }
}

/// Lambda writes hashes in base64, artifact keys in hexadecimal.
fn hexadecimal(base64: &str) -> String {
    BASE64.decode(base64).map(hex::encode).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec() -> Spec {
        Spec {
            name: "f".into(),
            description: String::new(),
            code_sha256: "00".into(),
            source: Source {
                bucket: "b".into(),
                package: "f".into(),
            },
            role_arn: "r".into(),
            architecture: "x86_64".into(),
            runtime: "provided.al2023".into(),
            memory_mb: 256,
            timeout_s: 10,
            environment: BTreeMap::from([("A".into(), "1".into())]),
            subnet_ids: BTreeSet::new(),
            security_group_ids: BTreeSet::new(),
            reserved_concurrency: None,
            tracing: false,
            tagged: true,
        }
    }

    #[test]
    fn the_hash_that_lambda_reports_is_the_hash_in_the_artifact_key() {
        let empty = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        assert_eq!(hexadecimal("47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU="), empty);
        assert_eq!(hexadecimal("not base64!"), "");
    }

    #[test]
    fn new_code_alone_is_not_a_new_configuration() {
        let (one, mut other) = (spec(), spec());
        other.code_sha256 = "11".into();
        other.tagged = false;
        assert!(configured_alike(&one, &other));
        other.environment.insert("B".into(), "2".into());
        assert!(!configured_alike(&one, &other));
        let traced = Spec {
            tracing: true,
            ..spec()
        };
        assert!(!configured_alike(&one, &traced));
    }

    #[test]
    fn a_function_settles_when_neither_creation_nor_update_is_under_way() {
        let state = |state, update| {
            FunctionConfiguration::builder()
                .state(state)
                .last_update_status(update)
                .build()
        };
        assert!(settling(&state(State::Pending, LastUpdateStatus::InProgress)).is_some());
        assert!(settling(&state(State::Active, LastUpdateStatus::InProgress)).is_some());
        assert_eq!(
            settling(&state(State::Active, LastUpdateStatus::Successful)),
            None
        );
        assert_eq!(
            settling(&state(State::Inactive, LastUpdateStatus::Successful)),
            None
        );
    }
}
