//! A REST API from an OpenAPI document. The document's hash is part of the API's description, which an overwrite sets
//! together with the definition; what somebody changes by hand leaves the hash alone and shows in the methods and where they
//! lead. A change reaches clients only with a new deployment, which is `api-stage`.

use std::collections::BTreeMap;

use aws_sdk_apigateway::primitives::Blob;
use aws_sdk_apigateway::types::{EndpointConfiguration, EndpointType, Method, PutMode, RestApi as LiveApi};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::tagging::{key_of, pairs, tag_map, tagged};
use crate::documents::{canonical, fingerprint};
use crate::error::{KindError, absent};
use crate::kind::{Found, Kind, Live, Site};

/// What stands before the hash in a description.
pub(super) const MARK: &str = "Document sha256:";

/// The kind.
#[derive(Debug)]
pub struct RestApi;

/// What we want.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Spec {
    /// The API's name, the document's title.
    pub name: String,
    /// Hash of the document.
    pub document_sha256: String,
    /// Each method, `GET /health`, and what it calls.
    pub methods: BTreeMap<String, String>,
    /// The document. Not read back: the hash stands for it.
    #[serde(skip)]
    pub document: Value,
    /// It carries our tags.
    pub tagged: bool,
}

impl Spec {
    /// An API of this document, whose title becomes the API's name.
    pub fn new(document: Value) -> Self {
        Spec {
            name: document["info"]["title"].as_str().unwrap_or_default().to_owned(),
            document_sha256: fingerprint(&document),
            methods: methods_of(&document),
            document,
            tagged: true,
        }
    }
}

/// What others refer to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outputs {
    /// The API's id.
    pub id: String,
    /// Its own host name.
    pub host: String,
    /// ARN of all its routes in all its stages: what may call the function.
    pub execution_arn: String,
    /// Hash of the document that is live, deployed or not.
    pub document_sha256: String,
}

impl Kind for RestApi {
    const NAME: &'static str = "rest-api";
    const IMMUTABLE: &'static [&'static str] = &["name"];
    const ARNS: &'static [&'static str] = &["apigateway:/restapis/"];

    type Spec = Spec;
    type Outputs = Outputs;

    async fn observe(site: &Site<'_>, spec: &Spec) -> Result<Option<Live<Spec, Outputs>>, KindError> {
        let named = all(site)
            .await?
            .into_iter()
            .filter(|api| api.name() == Some(spec.name.as_str()));
        // The oldest, should there be two: every run then agrees on one.
        let oldest = named.min_by_key(|api| {
            (
                api.created_date().map(|date| date.as_nanos()),
                api.id().map(str::to_owned),
            )
        });
        let Some(api) = oldest else { return Ok(None) };
        let methods = live_methods(site, api.id().unwrap_or_default()).await?;
        Ok(Some(read(site, spec, &api, methods)))
    }

    /// An empty API with its tags, which an import does not take, and then its definition. After a crash in between, `update`
    /// goes on.
    async fn create(site: &Site<'_>, spec: &Spec) -> Result<(), KindError> {
        let regional = EndpointConfiguration::builder()
            .types(EndpointType::Regional)
            .build();
        let api = site
            .cloud
            .apigateway(site.region)
            .create_rest_api()
            .name(&spec.name)
            .endpoint_configuration(regional)
            .set_tags(Some(tag_map(site)))
            .send()
            .await
            .map_err(|e| site.fail("CreateRestApi", &spec.name, e))?;
        overwrite(site, spec, api.id().unwrap_or_default()).await
    }

    async fn update(site: &Site<'_>, spec: &Spec, live: &Live<Spec, Outputs>) -> Result<(), KindError> {
        let id = &live.outputs.id;
        if spec.document_sha256 != live.spec.document_sha256 || spec.methods != live.spec.methods {
            overwrite(site, spec, id).await?;
        }
        if !live.spec.tagged {
            site.cloud
                .apigateway(site.region)
                .tag_resource()
                .resource_arn(format!("arn:aws:apigateway:{}::/restapis/{id}", site.region))
                .set_tags(Some(tag_map(site)))
                .send()
                .await
                .map_err(|e| site.fail("TagResource", &spec.name, e))?;
        }
        Ok(())
    }

    async fn delete(site: &Site<'_>, live: &Live<Spec, Outputs>) -> Result<(), KindError> {
        Self::discard(site, &live.outputs.id).await
    }

    /// One call in 30 seconds and account is allowed; the engine tries again.
    async fn discard(site: &Site<'_>, id: &str) -> Result<(), KindError> {
        let result = site
            .cloud
            .apigateway(site.region)
            .delete_rest_api()
            .rest_api_id(id)
            .send()
            .await;
        absent(result, &["NotFoundException"]).map_err(|e| site.fail("DeleteRestApi", id, e))?;
        Ok(())
    }

    /// By tag, or by name where a tag is still missing.
    async fn list(site: &Site<'_>) -> Result<Vec<Found>, KindError> {
        let names = continuity::names::Names::new(site.suffix);
        let ours: Vec<_> = continuity::names::Slot::ALL
            .map(|slot| names.rest_api(slot))
            .into();
        let mut found = Vec::new();
        for api in all(site).await? {
            let key = api.tags().and_then(|tags| key_of(site, pairs(tags)));
            if key.is_some() || api.name().is_some_and(|name| ours.iter().any(|our| our == name)) {
                found.push(site.found::<RestApi>(api.id().unwrap_or_default(), key));
            }
        }
        Ok(found)
    }
}

async fn overwrite(site: &Site<'_>, spec: &Spec, id: &str) -> Result<(), KindError> {
    site.cloud
        .apigateway(site.region)
        .put_rest_api()
        .rest_api_id(id)
        .mode(PutMode::Overwrite)
        .parameters("endpointConfigurationTypes", "REGIONAL")
        .body(body(spec))
        .send()
        .await
        .map_err(|e| site.fail("PutRestApi", &spec.name, e))?;
    Ok(())
}

async fn all(site: &Site<'_>) -> Result<Vec<LiveApi>, KindError> {
    let gateway = site.cloud.apigateway(site.region);
    let mut apis = gateway.get_rest_apis().limit(500).into_paginator().items().send();
    let mut all = Vec::new();
    while let Some(api) = apis.next().await {
        all.push(api.map_err(|e| site.fail("GetRestApis", site.key, e))?);
    }
    Ok(all)
}

/// What the API has now, deployed or not.
async fn live_methods(site: &Site<'_>, id: &str) -> Result<BTreeMap<String, String>, KindError> {
    let request = site.cloud.apigateway(site.region).get_resources().rest_api_id(id);
    let mut resources = request
        .embed("methods")
        .limit(500)
        .into_paginator()
        .items()
        .send();
    let mut methods = BTreeMap::new();
    while let Some(resource) = resources.next().await {
        let resource = resource.map_err(|e| site.fail("GetResources", id, e))?;
        let path = resource.path().unwrap_or_default();
        for (verb, method) in resource.resource_methods().into_iter().flatten() {
            methods.insert(format!("{verb} {path}"), target(method));
        }
    }
    Ok(methods)
}

/// What a method calls.
fn target(method: &Method) -> String {
    let uri = method
        .method_integration()
        .and_then(|integration| integration.uri());
    uri.unwrap_or_default().to_owned()
}

/// The same of a document.
fn methods_of(document: &Value) -> BTreeMap<String, String> {
    let mut methods = BTreeMap::new();
    for (path, item) in document["paths"].as_object().into_iter().flatten() {
        let operations = item.as_object().into_iter().flatten();
        for (verb, operation) in operations.filter(|(verb, _)| VERBS.contains(&verb.as_str())) {
            let uri = &operation["x-amazon-apigateway-integration"]["uri"];
            let method = format!("{} {path}", verb.to_uppercase());
            methods.insert(method, uri.as_str().unwrap_or_default().to_owned());
        }
    }
    methods
}

/// What in a path of a document is an operation.
const VERBS: [&str; 7] = ["delete", "get", "head", "options", "patch", "post", "put"];

fn read(
    site: &Site<'_>,
    wanted: &Spec,
    api: &LiveApi,
    methods: BTreeMap<String, String>,
) -> Live<Spec, Outputs> {
    let id = api.id().unwrap_or_default();
    let document_sha256 = hash_in(api.description().unwrap_or_default()).to_owned();
    Live {
        spec: Spec {
            name: wanted.name.clone(),
            document_sha256: document_sha256.clone(),
            methods,
            document: wanted.document.clone(),
            tagged: api.tags().is_some_and(|tags| tagged(site, pairs(tags))),
        },
        outputs: Outputs {
            id: id.to_owned(),
            host: format!("{id}.execute-api.{}.amazonaws.com", site.region),
            execution_arn: format!("arn:aws:execute-api:{}:{}:{id}/*", site.region, site.account),
            document_sha256,
        },
        settling: None,
    }
}

/// The document with its own hash in the description.
fn body(spec: &Spec) -> Blob {
    let mut document = spec.document.clone();
    let prose = document["info"]["description"]
        .as_str()
        .unwrap_or_default()
        .to_owned();
    document["info"]["description"] = format!("{prose} {MARK}{}", spec.document_sha256)
        .trim_start()
        .into();
    Blob::new(canonical(&document))
}

/// The hash in a description; empty when there is none.
pub(super) fn hash_in(description: &str) -> &str {
    description.rsplit_once(MARK).map_or("", |(_, hash)| hash)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use serde_json::json;

    use super::*;

    #[test]
    fn the_hash_travels_in_the_description_and_does_not_change_itself() {
        let spec = Spec::new(json!({"info": {"title": "t", "description": "About."}}));
        let sent: Value = serde_json::from_slice(body(&spec).as_ref()).unwrap();
        let description = sent["info"]["description"].as_str().unwrap();
        assert_eq!(hash_in(description), spec.document_sha256);
        assert!(description.starts_with("About. "));
        assert_eq!(spec.name, "t");
    }

    #[test]
    fn a_description_without_a_hash_is_another_document() {
        assert_eq!(hash_in("Made by hand."), "");
    }

    #[test]
    fn the_hash_changes_with_the_document() {
        let one = Spec::new(json!({"info": {"title": "t"}, "paths": {}}));
        let two = Spec::new(json!({"info": {"title": "t"}, "paths": {"/health": {}}}));
        assert_ne!(one.document_sha256, two.document_sha256);
    }

    #[test]
    fn a_method_is_told_by_its_path_and_what_it_calls() {
        let call = |uri: &str| json!({"x-amazon-apigateway-integration": {"uri": uri}});
        let paths =
            json!({"/health": {"get": call("a"), "parameters": []}, "/v1": {"post": call("b"), "get": {}}});
        let spec = Spec::new(json!({"info": {"title": "t"}, "paths": paths}));
        let told = [("GET /health", "a"), ("GET /v1", ""), ("POST /v1", "b")];
        assert_eq!(
            spec.methods,
            told.map(|(method, uri)| (method.into(), uri.into())).into()
        );
    }
}
