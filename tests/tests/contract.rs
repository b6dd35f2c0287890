//! The contract (`infra/api/openapi.json`), the handlers and the deployed APIs agree: same routes, same scopes, same problems,
//! and whatever is sent, valid or broken in any way, is answered as the contract says.
#![allow(clippy::unwrap_used, missing_docs)]

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant};

use bootstrap::client::{Client, ClientError, Endpoint};
use bootstrap::stack::Stack;
use continuity::control::{ApiKey, ControlRecord, ControlStore};
use continuity::memory::{MemoryControl, MemoryJournal, MemoryRates};
use continuity::names::Slot;
use futures::future::join_all;
use infra::blueprint::api::DOCUMENT;
use jsonschema::Validator;
use payments::api::PATHS;
use payments::api::problem::Problem;
use payments::context::{Context, Stores};
use payments::event::Service;
use payments::ledger::connect::roots;
use payments::ledger::memory::MemoryLedger;
use payments::statement::memory::MemoryStore;
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::{RngSeed, TestRunner};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use understudy_tests::deployment::Deployment;
use understudy_tests::{CloudFolder, proxy_event};

static CONTRACT: LazyLock<Value> = LazyLock::new(|| serde_json::from_str(DOCUMENT).unwrap());

/// One operation of the contract.
#[derive(Clone)]
struct Operation {
    method: String,
    path: String,
    value: &'static Value,
}

fn operations() -> Vec<Operation> {
    let paths = CONTRACT["paths"].as_object().unwrap();
    paths
        .iter()
        .flat_map(|(path, item)| {
            item.as_object().unwrap().iter().map(|(method, value)| Operation {
                method: method.to_uppercase(),
                path: path.clone(),
                value,
            })
        })
        .collect()
}

/// What a reference refers to, and everything else itself.
fn resolve(value: &'static Value) -> &'static Value {
    match value.get("$ref").and_then(Value::as_str) {
        Some(reference) => CONTRACT.pointer(reference.strip_prefix('#').unwrap()).unwrap(),
        None => value,
    }
}

impl Operation {
    fn body(&self) -> Option<&'static Value> {
        let body = self.value.get("requestBody")?;
        Some(resolve(&body["content"]["application/json"]["schema"]))
    }

    fn parameters(&self, place: &str) -> Vec<&'static Value> {
        let all = self.value.get("parameters").and_then(Value::as_array);
        all.into_iter()
            .flatten()
            .map(resolve)
            .filter(|parameter| parameter["in"] == place)
            .collect()
    }

    /// The response that the contract has for a status.
    fn response(&self, status: u64) -> Option<&'static Value> {
        self.value["responses"].get(status.to_string()).map(resolve)
    }

    fn scope(&self) -> Option<&'static str> {
        self.value.get("x-scope").and_then(Value::as_str)
    }
}

/// The contract's schema as JSON Schema: what may be null says so by a type of its own.
fn json_schema(schema: &Value) -> Value {
    let mut schema = schema.clone();
    fn rewrite(value: &mut Value) {
        if let Some(reference) = value.get("$ref").and_then(Value::as_str) {
            let name = reference
                .strip_prefix("#/components/schemas/")
                .unwrap()
                .to_owned();
            *value = CONTRACT["components"]["schemas"][name].clone();
        }
        if value.get("nullable") == Some(&Value::Bool(true)) {
            let kind = value["type"].clone();
            value["type"] = json!([kind, "null"]);
        }
        match value {
            Value::Object(members) => members.values_mut().for_each(rewrite),
            Value::Array(items) => items.iter_mut().for_each(rewrite),
            _ => {}
        }
    }
    rewrite(&mut schema);
    schema
}

fn validator(schema: &Value) -> Validator {
    jsonschema::validator_for(&json_schema(schema)).unwrap()
}

/// A region in memory with two accounts and a payment of each kind.
struct Region {
    service: Service,
    /// Ids that exist, by what they are of.
    known: Vec<String>,
}

#[derive(Debug, Clone)]
struct Request {
    method: String,
    path: String,
    query: Vec<(String, String)>,
    headers: Vec<(String, String)>,
    body: Option<String>,
    base64: bool,
}

#[derive(Debug, Clone, PartialEq)]
struct Answer {
    status: u64,
    headers: BTreeMap<String, String>,
    text: String,
}

const HASHED_KEYS: [(&str, &[&str]); 3] = [
    ("full", &["payments:read", "payments:write"]),
    ("reader", &["payments:read"]),
    ("writer", &["payments:write"]),
];

/// A key that may not send anything more.
const SPENT_KEY: (&str, &[&str], u32) = ("spent", &["payments:read", "payments:write"], 0);

impl Region {
    async fn new() -> Region {
        let control = MemoryControl::with(ControlRecord::first("us-east-1", "test", 0));
        let keys = HASHED_KEYS.map(|(key, scopes)| (key, scopes, u32::MAX));
        for (key, scopes, requests_per_s) in keys.into_iter().chain([SPENT_KEY]) {
            let item = ApiKey {
                name: key.into(),
                scopes: scopes.iter().map(|scope| (*scope).to_owned()).collect(),
                requests_per_s,
                revoked: false,
            };
            control
                .put_api_key(&hex::encode(Sha256::digest(key)), &item, 0)
                .await
                .unwrap();
        }
        let mut context = Context::new(
            "dev",
            "us-east-1",
            "primary",
            Stores {
                control: Arc::new(control),
                journal: Arc::new(MemoryJournal::default()),
                ledger: Arc::new(MemoryLedger::in_epoch(1)),
                statements: Arc::new(MemoryStore::default()),
                rates: Arc::new(MemoryRates::default()),
            },
        );
        context.tell = Box::new(|told, now_ms| {
            serde_json::from_str::<Value>(&told.line(now_ms)).expect("a line of the log is JSON");
        });
        // An answer that tells the time is the same again.
        let now_ms = (context.clock)();
        context.clock = Box::new(move || now_ms);
        let mut region = Region {
            service: Service::new(Arc::new(context)),
            known: Vec::new(),
        };
        for key in ["a", "b"] {
            region
                .make(
                    "/v1/accounts",
                    key,
                    json!({ "currency": "EUR", "limit_minor": null }),
                )
                .await;
        }
        for (key, method) in [("now", "automatic"), ("later", "manual")] {
            let body = json!({ "from_account": region.known[0], "to_account": region.known[1], "amount_minor": 50,
                               "currency": "EUR", "capture_method": method });
            region.make("/v1/payments", key, body).await;
        }
        region
    }

    async fn make(&mut self, path: &str, key: &str, body: Value) {
        let request = Request::command(path, key, &body);
        let answer = self.send(&request).await;
        assert_eq!(answer.status, 201, "{answer:?}");
        let made: Value = serde_json::from_str(&answer.text).unwrap();
        self.known.push(made["id"].as_str().unwrap().to_owned());
    }

    async fn send(&self, request: &Request) -> Answer {
        let response = json!(
            self.service
                .handle(&request.event().to_string(), None)
                .await
                .unwrap()
        );
        let headers = response["multiValueHeaders"].as_object().unwrap();
        let first = |value: &Value| match value {
            Value::Array(items) => items[0].as_str().unwrap().to_owned(),
            value => value.as_str().unwrap().to_owned(),
        };
        Answer {
            status: response["statusCode"].as_u64().unwrap(),
            headers: headers
                .iter()
                .map(|(name, value)| (name.to_lowercase(), first(value)))
                .collect(),
            text: response["body"].as_str().unwrap().to_owned(),
        }
    }
}

impl Request {
    fn new(method: &str, path: &str) -> Request {
        Request {
            method: method.to_owned(),
            path: path.to_owned(),
            query: Vec::new(),
            headers: vec![("Authorization".to_owned(), "Bearer full".to_owned())],
            body: None,
            base64: false,
        }
    }

    fn command(path: &str, key: &str, body: &Value) -> Request {
        let mut request = Request::new("POST", path);
        request
            .headers
            .push(("Idempotency-Key".to_owned(), key.to_owned()));
        request
            .headers
            .push(("Content-Type".to_owned(), "application/json".to_owned()));
        request.body = Some(body.to_string());
        request
    }

    fn event(&self) -> Value {
        proxy_event(
            &self.method,
            &self.path,
            &self.query,
            &self.headers,
            self.body.as_deref(),
            self.base64,
        )
    }
}

/// The answer is one that the contract has for the operation.
fn check(operation: &Operation, request: &Request, answer: &Answer) {
    let said = format!("{request:?} was answered {answer:?}");
    assert!(answer.status < 500, "{said}");
    let response = operation
        .response(answer.status)
        .unwrap_or_else(|| panic!("no such status in the contract: {said}"));
    let content = response["content"].as_object().unwrap();
    let (kind, content) = content.iter().next().unwrap();
    assert_eq!(&answer.headers["content-type"], kind, "{said}");
    let body: Value = serde_json::from_str(&answer.text).unwrap();
    let wrong: Vec<String> = validator(&content["schema"])
        .iter_errors(&body)
        .map(|error| format!("{error} at {}", error.instance_path()))
        .collect();
    assert!(wrong.is_empty(), "{wrong:?}: {said}");
    for (name, header) in response
        .get("headers")
        .and_then(Value::as_object)
        .into_iter()
        .flatten()
    {
        let there = answer.headers.contains_key(&name.to_lowercase());
        assert!(there || header["required"] != true, "no `{name}`: {said}");
    }
    // What the code is made of is nobody's business. An answer that is no problem repeats what the client chose.
    if answer.status >= 400 {
        for forbidden in [
            "panicked",
            "src/",
            ".rs:",
            "stack backtrace",
            "SQLSTATE",
            "db error",
            "tokio",
        ] {
            assert!(!answer.text.contains(forbidden), "`{forbidden}`: {said}");
        }
    }
}

#[tokio::test]
async fn the_contract_and_the_router_have_the_same_routes_and_scopes() {
    let documented: BTreeSet<String> = operations().into_iter().map(|operation| operation.path).collect();
    assert_eq!(documented, PATHS.map(str::to_owned).into());
    let region = Region::new().await;
    for path in PATHS {
        let here: BTreeSet<String> = operations()
            .into_iter()
            .filter(|operation| operation.path == path)
            .map(|operation| operation.method)
            .collect();
        for method in ["GET", "POST", "PUT", "PATCH", "DELETE"] {
            let answer = region
                .send(&Request::new(method, &path.replace("{id}", &region.known[0])))
                .await;
            assert_eq!(
                answer.status != 405,
                here.contains(method),
                "{method} {path}: {answer:?}"
            );
        }
    }
    for operation in operations() {
        let Some(scope) = operation.scope() else {
            assert_eq!(operation.value["security"], json!([]), "{}", operation.path);
            continue;
        };
        for (key, scopes) in HASHED_KEYS {
            let mut request = Request::new(
                &operation.method,
                &operation.path.replace("{id}", &region.known[0]),
            );
            request.headers[0].1 = format!("Bearer {key}");
            let answer = region.send(&request).await;
            assert_eq!(
                answer.status != 403,
                scopes.contains(&scope),
                "{key} {}: {answer:?}",
                operation.path
            );
            if answer.status == 403 {
                check(&operation, &request, &answer);
            }
        }
        let mut request = Request::new(
            &operation.method,
            &operation.path.replace("{id}", &region.known[0]),
        );
        request.headers[0].1 = format!("Bearer {}", SPENT_KEY.0);
        let answer = region.send(&request).await;
        assert_eq!(answer.status, 429, "{}", operation.path);
        check(&operation, &request, &answer);
        request.headers.clear();
        let answer = region.send(&request).await;
        assert_eq!(answer.status, 401);
        check(&operation, &request, &answer);
    }
}

/// Slugs that only API Gateway answers with.
fn gateway_slugs() -> BTreeSet<String> {
    let answers = CONTRACT["x-amazon-apigateway-gateway-responses"]
        .as_object()
        .unwrap();
    answers
        .values()
        .map(|answer| answer["responseTemplates"]["application/json"].as_str().unwrap())
        .map(|template| {
            let problem = template.split("/errors/").nth(1).unwrap();
            problem.split('"').next().unwrap().to_owned()
        })
        .collect()
}

#[test]
fn every_problem_is_in_the_contract_and_has_a_page() {
    let responses = CONTRACT["components"]["responses"].as_object().unwrap();
    let pages = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/errors");
    let mut slugs = gateway_slugs();
    for problem in Problem::all() {
        let (slug, status, title) = problem.kind();
        slugs.insert(slug.to_owned());
        let page = std::fs::read_to_string(pages.join(format!("{slug}.md"))).expect(slug);
        assert!(page.starts_with(&format!("# {title}\n")), "{slug}: {page}");
        assert!(page.contains(&format!("`{}`", status.as_u16())), "{slug}: {page}");
        // What no documented operation can come to.
        if ["method-not-allowed", "internal"].contains(&slug) {
            continue;
        }
        let told = responses.values().any(|response| {
            response["description"]
                .as_str()
                .unwrap()
                .contains(&format!("`{slug}`"))
        });
        assert!(told, "{slug} is in no response of the contract");
    }
    let written: BTreeSet<String> = std::fs::read_dir(pages)
        .unwrap()
        .map(|page| page.unwrap().file_name().to_string_lossy().into_owned())
        .filter(|name| name != "README.md")
        .map(|name| name.strip_suffix(".md").unwrap().to_owned())
        .collect();
    assert_eq!(written, slugs, "a page for each problem, and no other");
}

fn nullable(schema: &Value, strategy: BoxedStrategy<Value>) -> BoxedStrategy<Value> {
    if schema.get("nullable") == Some(&Value::Bool(true)) {
        prop_oneof![1 => Just(Value::Null), 4 => strategy].boxed()
    } else {
        strategy
    }
}

/// Ids that exist are put in their place when the request is made.
fn known_id() -> BoxedStrategy<Value> {
    prop_oneof![
        8 => (0_usize..4).prop_map(|number| json!(format!("known-{number}"))),
        1 => any::<u128>().prop_map(|number| json!(uuid::Uuid::from_u128(number).to_string())),
    ]
    .boxed()
}

/// Values that the contract allows.
fn allowed(schema: &'static Value) -> BoxedStrategy<Value> {
    let schema = resolve(schema);
    if let Some(words) = schema.get("enum").and_then(Value::as_array) {
        return nullable(schema, proptest::sample::select(words.clone()).boxed());
    }
    let strategy = match schema["type"].as_str().unwrap() {
        "string" if schema["format"] == "uuid" => known_id(),
        "string" if schema["pattern"] == "^[A-Z]{3}$" => {
            prop_oneof![4 => Just(json!("EUR")), 1 => Just(json!("JPY"))].boxed()
        }
        "string" => {
            let longest = usize::try_from(schema["maxLength"].as_u64().unwrap_or(20)).unwrap();
            proptest::collection::vec(
                prop_oneof!["[ -~]", "[\u{a0}-\u{ff}]", "[\u{4e00}-\u{4eff}]"],
                0..=longest,
            )
            .prop_map(|characters| json!(characters.concat()))
            .boxed()
        }
        "integer" => {
            let least = schema["minimum"].as_i64().unwrap_or(i64::MIN);
            let most = schema["maximum"].as_i64().unwrap_or(i64::MAX);
            prop_oneof![
                4 => (least.max(-1_000)..=most.min(1_000)).prop_map(|number| json!(number)),
                1 => (least..=most).prop_map(|number| json!(number)),
                1 => Just(json!(least)),
                1 => Just(json!(most)),
            ]
            .boxed()
        }
        "object" => object(schema),
        other => panic!("no strategy for {other}"),
    };
    nullable(schema, strategy)
}

fn object(schema: &'static Value) -> BoxedStrategy<Value> {
    if let Some(values) = schema
        .get("additionalProperties")
        .filter(|values| values.is_object())
    {
        return proptest::collection::btree_map("[a-z_]{1,40}", allowed(values), 0..5)
            .prop_map(|members| json!(members))
            .boxed();
    }
    let required = schema["required"].as_array().unwrap();
    let members: Vec<BoxedStrategy<Option<(String, Value)>>> = schema["properties"]
        .as_object()
        .unwrap()
        .iter()
        .map(|(name, member)| {
            let value = allowed(member).prop_map(move |value| (name.clone(), value));
            if required.contains(&json!(name)) {
                value.prop_map(Some).boxed()
            } else {
                proptest::option::of(value).boxed()
            }
        })
        .collect();
    members
        .prop_map(|members| {
            let mut body: serde_json::Map<String, Value> = members.into_iter().flatten().collect();
            // Two rules of the contract are in words only.
            if body.get("capture_method") != Some(&json!("manual")) {
                body.remove("expires_after_s");
            }
            if body.contains_key("to_account") && body.get("from_account") == body.get("to_account") {
                body.insert("from_account".to_owned(), json!("known-0"));
                body.insert("to_account".to_owned(), json!("known-1"));
            }
            Value::Object(body)
        })
        .boxed()
}

/// Values that fit nowhere.
fn odd() -> impl Strategy<Value = Value> {
    let text = |text: &str| Just(json!(text));
    prop_oneof![
        Just(json!(null)),
        Just(json!(true)),
        Just(json!(0)),
        Just(json!(-1)),
        Just(json!(1.5)),
        Just(json!(1e300)),
        Just(json!(u64::MAX)),
        Just(json!([])),
        Just(json!({ "a": { "b": [1, 2, { "c": null }] } })),
        text(""),
        text("XXX"),
        text("eur"),
        text("known-0"),
        text("'; drop table ledger.entries; --"),
        text("$(reboot) ${jndi:ldap://127.0.0.1/a}"),
        text("line\nbreak \u{1b}[31m {\"level\":\"error\"}"),
        text("nul \u{0}"),
        text("\u{202e}\u{feff}"),
        "[a-z]{501,600}".prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
    ]
}

/// How a request that the contract allows is broken.
#[derive(Debug, Clone)]
enum Break {
    Nothing,
    Member(proptest::sample::Index, Value),
    Remove(proptest::sample::Index),
    Unknown(Value),
    Body(String),
    Bytes(Vec<u8>),
    Parameter(String, String),
    Header(String, String),
    NoHeader(proptest::sample::Index),
    Path(String),
}

fn breaks() -> impl Strategy<Value = Break> {
    let index = any::<proptest::sample::Index>;
    let deep = |open: &str, times: usize| open.repeat(times);
    let huge = format!("{{\"reference\":\"{}\"}}", "x".repeat(6 * 1024 * 1024));
    prop_oneof![
        30 => Just(Break::Nothing),
        20 => (index(), odd()).prop_map(|(at, value)| Break::Member(at, value)),
        5 => index().prop_map(Break::Remove),
        5 => odd().prop_map(Break::Unknown),
        10 => prop_oneof![
            4 => odd().prop_map(|value| value.to_string()),
            4 => ".{0,40}",
            1 => Just(deep("[", 50_000)),
            1 => Just(deep("{\"a\":", 50_000)),
            1 => Just(huge),
            1 => Just("{\"amount_minor\":1e999999999}".to_owned()),
            1 => Just("{\"amount_minor\":123456789012345678901234567890}".to_owned()),
            1 => Just("{\"currency\":\"\\ud800\"}".to_owned()),
        ].prop_map(Break::Body),
        5 => proptest::collection::vec(any::<u8>(), 0..40).prop_map(Break::Bytes),
        10 => (prop_oneof![
                Just("limit".to_owned()), Just("cursor".to_owned()), Just("status".to_owned()),
                Just("account".to_owned()), Just("created_from_ms".to_owned()), ".{0,10}"
            ], prop_oneof![".{0,20}", Just("9".repeat(400)), Just("1.1".to_owned()), Just("' or 1=1".to_owned())])
            .prop_map(|(name, value)| Break::Parameter(name, value)),
        10 => (prop_oneof![
                Just("Authorization"), Just("Idempotency-Key"), Just("Content-Type"), Just("X-Forwarded-Host"),
                Just("Transfer-Encoding"), Just("Content-Length")],
               prop_oneof!["[ -~]{0,40}", Just("Bearer full".to_owned()), Just("k".repeat(9_000)), Just("text/html".to_owned())])
            .prop_map(|(name, value)| Break::Header(name.to_owned(), value)),
        5 => index().prop_map(Break::NoHeader),
        5 => ".{0,30}".prop_map(Break::Path),
    ]
}

/// Bodies, one for each operation that takes one.
fn any_request() -> impl Strategy<Value = (usize, Value, Vec<(String, String)>, Break)> {
    (0..operations().len()).prop_flat_map(|number| {
        let operation = operations().swap_remove(number);
        let body = operation
            .body()
            .map_or_else(|| Just(Value::Null).boxed(), allowed);
        let query: Vec<BoxedStrategy<Option<(String, String)>>> = operation
            .parameters("query")
            .into_iter()
            .filter(|parameter| parameter["name"] != "cursor")
            .map(|parameter| {
                let name = parameter["name"].as_str().unwrap().to_owned();
                let plain = |value: Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
                let value = allowed(&parameter["schema"]).prop_map(move |value| (name.clone(), plain(value)));
                if parameter["required"] == true {
                    value.prop_map(Some).boxed()
                } else {
                    proptest::option::of(value).boxed()
                }
            })
            .collect();
        let query = query.prop_map(|pairs| in_order(pairs.into_iter().flatten().collect()));
        (Just(number), body, query, breaks())
    })
}

/// A period ends after it began, which a schema cannot say.
fn in_order(mut query: Vec<(String, String)>) -> Vec<(String, String)> {
    let place = |name| query.iter().position(|(known, _)| known == name);
    if let (Some(from), Some(until)) = (place("from_ms"), place("until_ms")) {
        let value = |at: usize| query[at].1.parse::<u64>().unwrap();
        let (least, most) = (value(from).min(value(until)), value(from).max(value(until)));
        query[from].1 = least.min(most.saturating_sub(1)).to_string();
        query[until].1 = most.max(1).to_string();
    }
    query
}

/// Puts ids that exist in their places.
fn fill(text: &str, known: &[String]) -> String {
    known
        .iter()
        .enumerate()
        .fold(text.to_owned(), |text, (number, id)| {
            text.replace(&format!("known-{number}"), id)
        })
}

fn to_be_sent(
    operation: &Operation,
    known: &[String],
    body: &Value,
    query: &[(String, String)],
    broken: &Break,
) -> Request {
    let id = if operation.path.starts_with("/v1/accounts") {
        &known[0]
    } else {
        &known[3]
    };
    let path = operation.path.replace("{id}", id);
    let mut body = serde_json::from_str::<Value>(&fill(&body.to_string(), known)).unwrap();
    let at = |index: &proptest::sample::Index, members: &serde_json::Map<String, Value>| {
        (!members.is_empty()).then(|| members.keys().nth(index.index(members.len())).unwrap().clone())
    };
    if let Some(members) = body.as_object_mut() {
        match broken {
            Break::Member(index, value) => {
                if let Some(name) = at(index, members) {
                    members.insert(name, value.clone());
                }
            }
            Break::Remove(index) => {
                if let Some(name) = at(index, members) {
                    members.remove(&name);
                }
            }
            Break::Unknown(value) => {
                members.insert("unknown".to_owned(), value.clone());
            }
            _ => {}
        }
    }
    let mut request = if operation.method == "POST" {
        Request::command(&path, &uuid::Uuid::new_v4().to_string(), &body)
    } else {
        Request::new(&operation.method, &path)
    };
    request.query = query
        .iter()
        .map(|(name, value)| (name.clone(), fill(value, known)))
        .collect();
    match broken {
        Break::Body(text) => request.body = Some(text.clone()),
        Break::Bytes(bytes) => {
            use base64::Engine as _;
            request.body = Some(base64::engine::general_purpose::STANDARD.encode(bytes));
            request.base64 = true;
        }
        Break::Parameter(name, value) => request.query.push((name.clone(), value.clone())),
        Break::Header(name, value) => request.headers.push((name.clone(), value.clone())),
        Break::NoHeader(index) => {
            request.headers.remove(index.index(request.headers.len()));
        }
        Break::Path(tail) if operation.path.contains("{id}") => {
            request.path = operation.path.replace("{id}", &tail.replace('/', ""));
        }
        _ => {}
    }
    request
}

async fn fuzz(number: usize, body: &Value, query: &[(String, String)], broken: &Break) {
    let region = Region::new().await;
    let operation = operations().swap_remove(number);
    let request = to_be_sent(&operation, &region.known, body, query, broken);
    let answer = region.send(&request).await;
    if let Break::Path(_) = broken
        && answer.status == 404
        && request.path != operation.path
    {
        return;
    }
    check(&operation, &request, &answer);
    match broken {
        Break::Nothing => assert!(
            ![400, 401, 403, 413, 415].contains(&answer.status),
            "the contract allows {request:?}, the handler answers {answer:?}"
        ),
        Break::Member(..) | Break::Remove(_) | Break::Unknown(_) => {
            let sent: Value = serde_json::from_str(request.body.as_deref().unwrap_or("null")).unwrap();
            if let Some(schema) = operation.body()
                && !validator(schema).is_valid(&sent)
            {
                assert_eq!(
                    answer.status, 400,
                    "the contract forbids {request:?}, the handler answers {answer:?}"
                );
            }
        }
        _ => {}
    }
    // The same again is answered alike, whatever it was.
    assert_eq!(region.send(&request).await, answer, "{request:?}");
}

/// The suite sends the same requests each time; `UNDERSTUDY_FUZZ_SEED` chooses others, `PROPTEST_CASES` more.
fn seed() -> RngSeed {
    let chosen = std::env::var("UNDERSTUDY_FUZZ_SEED").ok();
    RngSeed::Fixed(chosen.and_then(|text| text.parse().ok()).unwrap_or(1))
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 1_500, failure_persistence: None, rng_seed: seed(), ..ProptestConfig::default()
    })]

    #[test]
    fn whatever_is_sent_is_answered_as_the_contract_says((number, body, query, broken) in any_request()) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        runtime.block_on(fuzz(number, &body, &query, &broken));
    }
}

/// Requests that are sent to a deployed API. Those to the handler itself are many more.
const SENT: usize = 150;
/// Twenty payments, each asked for ten times at once. (Two thousand requests go to the handler itself, in `ledger_concurrency`.)
const KEYS: usize = 20;
const TIMES: usize = 10;
const PATIENCE: Duration = Duration::from_secs(120);

/// Sends a request to the deployed API as a client would. `None` where no HTTP client can.
async fn over_http(client: &Client, api_key: &str, request: &Request) -> Option<Answer> {
    use base64::Engine as _;
    let mut url = client.url().parse::<reqwest::Url>().unwrap();
    url.path_segments_mut()
        .unwrap()
        .clear()
        .extend(request.path.split('/').skip(1));
    if !request.query.is_empty() {
        url.query_pairs_mut().extend_pairs(&request.query);
    }
    let method = request.method.parse().unwrap();
    let mut sent = client.http().request(method, url).timeout(PATIENCE);
    for (name, value) in &request.headers {
        // These are the connection's own.
        if ["Transfer-Encoding", "Content-Length"].contains(&name.as_str()) {
            return None;
        }
        let value = value.replace("Bearer full", &format!("Bearer {api_key}"));
        sent = sent.header(name, reqwest::header::HeaderValue::from_str(&value).ok()?);
    }
    sent = match (&request.body, request.base64) {
        (None, _) => sent,
        (Some(text), true) => sent.body(base64::engine::general_purpose::STANDARD.decode(text).unwrap()),
        (Some(text), false) => sent.body(text.clone()),
    };
    // Two hundred clients at once and a cloud share a machine: who cannot connect tries again, as clients do.
    let until = Instant::now() + PATIENCE;
    let answer = loop {
        let once = sent.try_clone().expect("its body is in memory");
        match once.send().await {
            Ok(answer) => break answer,
            Err(error) if Instant::now() > until => panic!("{request:?}: {error:?}"),
            Err(_) => tokio::time::sleep(Duration::from_millis(200)).await,
        }
    };
    let text = |value: &reqwest::header::HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
    Some(Answer {
        status: answer.status().as_u16().into(),
        headers: answer
            .headers()
            .iter()
            .map(|(name, value)| (name.as_str().to_owned(), text(value)))
            .collect(),
        text: answer.text().await.unwrap(),
    })
}

/// Every path and method of the contract is in a region's API, and nothing else.
async fn has_the_routes_of_the_contract(cloud: &infra::cloud::Cloud, region: &str) {
    let client = cloud.apigateway(region);
    let apis = client.get_rest_apis().send().await.unwrap();
    let [api] = apis.items() else {
        panic!("{region} has not one API: {apis:?}");
    };
    let resources = client
        .get_resources()
        .rest_api_id(api.id().unwrap())
        .embed("methods")
        .send()
        .await
        .unwrap();
    let deployed: BTreeSet<(String, String)> = resources
        .items()
        .iter()
        .flat_map(|resource| {
            let methods = resource.resource_methods().into_iter().flatten();
            methods.map(|(method, _)| (resource.path().unwrap().to_owned(), method.clone()))
        })
        .collect();
    let documented: BTreeSet<(String, String)> = operations()
        .into_iter()
        .map(|operation| (operation.path, operation.method))
        .collect();
    assert_eq!(deployed, documented, "{region}");
}

/// Requests as in the fuzz run, over HTTP and through API Gateway.
async fn answers_as_the_contract_says(client: &Client, api_key: &str, known: &[String]) {
    let mut runner = TestRunner::new(ProptestConfig {
        rng_seed: seed(),
        ..ProptestConfig::default()
    });
    let mut answered = 0;
    while answered < SENT {
        let (number, body, query, broken) = any_request().new_tree(&mut runner).unwrap().current();
        let operation = operations().swap_remove(number);
        let request = to_be_sent(&operation, known, &body, &query, &broken);
        // What is not one of the contract's paths is API Gateway's.
        if matches!(broken, Break::Path(_)) {
            continue;
        }
        if let Some(answer) = over_http(client, api_key, &request).await {
            check(&operation, &request, &answer);
            answered += 1;
        }
    }
}

/// Whatever arrives at once under one key is one payment, and everybody gets the same answer.
async fn a_key_that_is_sent_ten_times_at_once_is_one_payment(
    client: &Client,
    api_key: &str,
    known: &[String],
) {
    let reference = "at-once";
    let body = json!({"from_account": known[0], "to_account": known[1], "amount_minor": 3, "currency": "EUR",
                      "reference": reference});
    let requests = (0..KEYS * TIMES).map(|number| {
        let (client, body, api_key) = (client.clone(), body.clone(), api_key.to_owned());
        tokio::spawn(async move {
            let key = format!("at-once-{}", number % KEYS);
            let request = Request::command("/v1/payments", &key, &body);
            let until = Instant::now() + PATIENCE;
            let mut pause = Duration::from_millis(100);
            loop {
                let answer = over_http(&client, &api_key, &request).await.unwrap();
                match answer.status {
                    201 => return (key, answer.text),
                    // Not final: a client tries again.
                    409 | 429 | 500.. if Instant::now() < until => {
                        tokio::time::sleep(pause).await;
                        pause = (pause * 2).min(Duration::from_secs(2));
                    }
                    _ => panic!("{key}: {answer:?}"),
                }
            }
        })
    });
    let mut outcomes: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for request in requests.collect::<Vec<_>>() {
        let (key, payment) = request.await.unwrap();
        outcomes.entry(key).or_default().insert(payment);
    }
    assert_eq!(outcomes.len(), KEYS);
    for (key, payments) in &outcomes {
        assert_eq!(payments.len(), 1, "{key}: {payments:?}");
    }
    let answered: BTreeSet<String> = outcomes.into_values().flatten().collect();
    assert_eq!(answered.len(), KEYS, "two keys never name one payment");
    let all = client.payments(PATIENCE).await.unwrap();
    let made = all
        .iter()
        .filter(|payment| payment.reference.as_deref() == Some(reference));
    assert_eq!(made.count(), KEYS);
}

/// `accounts`, `pay` and `entries` use the same API. Returns ids as [`Region`] knows them.
fn from_the_command_line(deployment: &Deployment<'_>, api_key: &str) -> Vec<String> {
    let ask = |command: &str, arguments: &[&str]| {
        deployment.json(command, &[arguments, &["--api-key", api_key]].concat())
    };
    let id = |value: &Value| value["id"].as_str().unwrap().to_owned();
    let payer = id(&ask(
        "accounts open",
        &["EUR", "--limit", "none", "--name", "payer"],
    ));
    let payee = id(&ask("accounts open", &["EUR"]));
    let paid = ask("pay", &[&payer, &payee, "12.50", "EUR", "--reference", "one"]);
    assert_eq!(
        (&paid["status"], &paid["amount_minor"]),
        (&json!("captured"), &json!(1_250))
    );
    let held = ask("pay", &[&payer, &payee, "1", "EUR", "--hold", "3600"]);
    assert_eq!(held["status"], "authorised");
    let entries = ask("entries", &[&payee]);
    assert_eq!(entries[0]["amount_minor"], 1_250, "{entries}");
    let account = ask("accounts get", &[&payer]);
    assert_eq!(
        (&account["balance_minor"], &account["available_minor"]),
        (&json!(-1_250), &json!(-1_350))
    );
    let listed = ask("accounts list", &["--limit", "1"]);
    assert_eq!(listed.as_array().unwrap().len(), 1);
    let declined = deployment.fails("pay", &[&payee, &payer, "99.99", "EUR", "--api-key", api_key]);
    assert!(declined.contains("declined: insufficient-funds"), "{declined}");
    let refused = deployment.fails("pay", &[&payer, &payee, "12.505", "EUR", "--api-key", api_key]);
    assert!(refused.contains("at most 2 decimals"), "{refused}");
    let nobody = deployment.fails("accounts list", &["--api-key", "usk_wrong"]);
    assert!(nobody.contains("keys create"), "{nobody}");
    vec![payer, payee, id(&paid), id(&held)]
}

/// What the command fetches through the link is what moved, and the bucket of the other region has it too.
async fn a_statement_is_fetched_and_in_both_buckets(
    deployment: &Deployment<'_>,
    stack: &Stack,
    api_key: &str,
    known: &[String],
) {
    let file = deployment.files().join("statement.csv");
    let asked = [&known[1], "--from", "2026-01-01", "--api-key", api_key, "--file"];
    let told = deployment.json(
        "accounts statement",
        &[&asked[..], &[file.to_str().unwrap()]].concat(),
    );
    assert_eq!(
        (
            &told["opening_balance_minor"],
            &told["closing_balance_minor"],
            &told["lines"]
        ),
        (&json!(0), &json!(1_250), &json!(1))
    );
    let fetched = std::fs::read_to_string(&file).unwrap();
    let line = fetched.lines().nth(2).unwrap();
    let moved = format!(",payment,{},{},one,12.50,12.50,EUR,", known[2], known[0]);
    assert!(line.contains(&moved), "{fetched}");

    let (names, key) = (stack.names(), told["object"].as_str().unwrap());
    for slot in [Slot::Primary, Slot::Dr] {
        let region = stack.spec.regions.of(slot);
        let bucket = names.data_bucket(slot, &stack.account);
        let until = Instant::now() + PATIENCE;
        let object = loop {
            let request = stack.cloud.s3(region).get_object().bucket(&bucket).key(key);
            match request.send().await {
                Ok(object) => break object,
                Err(error) if Instant::now() > until => panic!("{bucket}: {error:?}"),
                Err(_) => tokio::time::sleep(Duration::from_millis(200)).await,
            }
        };
        let body = object.body.collect().await.unwrap().into_bytes();
        assert_eq!(body, fetched.as_bytes(), "{bucket}");
    }
    let beside = [
        "--from",
        "2026-02-01",
        "--until",
        "2026-01-01",
        "--api-key",
        api_key,
    ];
    let refused = deployment.fails("accounts statement", &[&[&*known[1]], &beside[..]].concat());
    assert!(
        refused.contains("`until_ms` must be later than `from_ms`"),
        "{refused}"
    );
}

/// With what `understudy local env` prints, the command line needs no `--local`: it goes where curl and the SDKs go.
fn is_reached_by_the_environment(cloud: &bootstrap::local::Cloud, api_key: &str) {
    let mut command = std::process::Command::new(understudy_tests::understudy());
    command.args(["accounts", "list", "--output", "json", "--api-key", api_key]);
    // The folder has no configuration: every setting has its default.
    command.current_dir(&cloud.directory).envs(cloud.environment());
    let output = command.output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    let listed: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(listed.as_array().unwrap().len(), 2, "{listed}");
}

/// Requests at once, with a key that may send fewer a second; the deployed handlers count together.
async fn a_key_over_its_rate_gets_429_and_is_served_again(
    deployment: &Deployment<'_>,
    stack: &Stack,
    client: &Client,
    other_key: &str,
) {
    let created = deployment.json("keys create", &["--name", "five", "--rate", "5"]);
    assert_eq!(created["requests_per_s"], 5);
    let listed = deployment.json("keys list", &[]);
    let rate = |name: &str| {
        let mut keys = listed.as_array().unwrap().iter();
        keys.find(|key| key["name"] == name).unwrap()["requests_per_s"].clone()
    };
    assert_eq!((rate("five"), rate("contract")), (json!(5), json!(100)));
    let beyond = deployment.fails("keys create", &["--name", "never", "--rate", "10001"]);
    assert!(beyond.contains("use 1 to 10000"), "{beyond}");

    let key = created["key"].as_str().unwrap();
    let operations = operations();
    let reads = |operation: &&Operation| operation.path == "/v1/accounts" && operation.method == "GET";
    let operation = operations.iter().find(reads).unwrap();
    let look = Request::new("GET", "/v1/accounts");
    let asked = async |key: &str| {
        let answer = over_http(client, key, &look).await.unwrap();
        check(operation, &look, &answer);
        answer
    };
    // The first of a handler that has just been started knows nothing of the others.
    let until = Instant::now() + PATIENCE;
    let refused = loop {
        let (answers, other) = tokio::join!(join_all((0..20).map(|_| asked(key))), asked(other_key));
        assert_eq!(other.status, 200, "another key is not held back: {other:?}");
        let mut answers = answers.into_iter();
        match answers.find(|answer| answer.status != 200) {
            Some(refused) => break refused,
            None => assert!(Instant::now() < until, "twenty at once are five a second"),
        }
    };
    assert_eq!(refused.status, 429, "{refused:?}");
    assert!(refused.text.contains("/errors/rate-limited\""), "{refused:?}");
    assert_eq!(refused.headers["retry-after"], "1");
    // A client that waits as it is told is served, whatever it sends.
    let patient = Client::new(Endpoint::of(stack, key.to_owned())).unwrap();
    let reads = (0..20).map(|_| patient.request("GET", "/v1/accounts", None, PATIENCE));
    for answer in join_all(reads).await {
        answer.unwrap();
    }
}

/// A new password in the database and in the secret, and a lost connection: the next request is answered all the same, by a
/// function that has been running all the time.
async fn a_rotated_password_is_picked_up_within_one_request(
    stack: &Stack,
    cloud: &bootstrap::local::Cloud,
    client: &Client,
    api_key: &str,
    known: &[String],
) {
    let body =
        json!({"from_account": known[0], "to_account": known[1], "amount_minor": 1, "currency": "EUR"});
    let pay = async |key: &str| {
        let request = Request::command("/v1/payments", key, &body);
        over_http(client, api_key, &request).await.unwrap()
    };
    assert_eq!(pay("before-the-rotation").await.status, 201);

    let (rds, secrets) = (stack.cloud.rds("us-east-1"), stack.cloud.secrets("us-east-1"));
    let clusters = rds.describe_db_clusters().send().await.unwrap();
    let [cluster] = clusters.db_clusters() else {
        panic!("not one cluster: {clusters:?}");
    };
    let name = stack.names().database_secret();
    let held = secrets.get_secret_value().secret_id(&name).send().await.unwrap();
    let mut secret: Value = serde_json::from_str(held.secret_string().unwrap()).unwrap();
    let password = uuid::Uuid::new_v4().simple().to_string();
    let change = rds
        .modify_db_cluster()
        .db_cluster_identifier(cluster.db_cluster_identifier().unwrap())
        .master_user_password(&password)
        .apply_immediately(true);
    change.send().await.unwrap();
    secret["password"] = json!(password);
    let stored = secrets
        .put_secret_value()
        .secret_id(&name)
        .secret_string(secret.to_string());
    stored.send().await.unwrap();

    let tls = rustls::ClientConfig::builder()
        .with_root_certificates(roots(Some(&cloud.ca_certificate)).unwrap())
        .with_no_client_auth();
    let mut config = tokio_postgres::Config::new();
    config
        .host(cluster.endpoint().unwrap())
        .port(u16::try_from(cluster.port().unwrap()).unwrap())
        .user(secret["username"].as_str().unwrap())
        .password(&password)
        .dbname(secret["dbname"].as_str().unwrap())
        .ssl_mode(tokio_postgres::config::SslMode::Require);
    let (database, connection) = config
        .connect(tokio_postgres_rustls::MakeRustlsConnect::new(tls))
        .await
        .expect("the new password holds");
    tokio::spawn(connection);
    let ended = "select count(pg_terminate_backend(pid)) from pg_stat_activity
                  where application_name = 'payment-processor' and pid <> pg_backend_pid()";
    let ended: i64 = database.query_one(ended, &[]).await.unwrap().get(0);
    assert!(ended > 0, "the functions have connections");
    let after = pay("after-the-rotation").await;
    assert_eq!(after.status, 201, "{after:?}");
}

/// A revoked key opens nothing, within a minute, in the region that serves; the other region has the same table.
async fn a_revoked_key_is_refused_within_a_minute(deployment: &Deployment<'_>, client: &Client) {
    let listed = deployment.json("keys list", &[]);
    let key = listed
        .as_array()
        .unwrap()
        .iter()
        .find(|key| key["name"] == "contract");
    let id = key.unwrap()["id"].as_str().unwrap().to_owned();
    let revoked = deployment.json("keys revoke", &[&id]);
    assert_eq!(revoked["revoked"], true);
    let until = Instant::now() + Duration::from_secs(60);
    loop {
        match client.request("GET", "/v1/accounts", None, PATIENCE).await {
            Err(ClientError::Refused { status: 401, .. }) => return,
            Ok(_) if Instant::now() < until => tokio::time::sleep(Duration::from_millis(500)).await,
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_deployed_apis_agree_with_the_contract() {
    continuity::aws::install_tls();
    let folder = CloudFolder::new();
    let deployment = Deployment::new(&folder);
    deployment.configure("");
    deployment.up(&[]);
    let (stack, cloud) = deployment.stack("").await;
    for region in ["us-east-1", "us-east-2"] {
        has_the_routes_of_the_contract(&stack.cloud, region).await;
    }
    let created = deployment.json("keys create", &["--name", "contract"]);
    let api_key = created["key"].as_str().unwrap();
    let known = from_the_command_line(&deployment, api_key);
    a_statement_is_fetched_and_in_both_buckets(&deployment, &stack, api_key, &known).await;
    is_reached_by_the_environment(&cloud, api_key);
    let client = Client::new(Endpoint::of(&stack, api_key.to_owned())).unwrap();
    answers_as_the_contract_says(&client, api_key, &known).await;
    a_key_that_is_sent_ten_times_at_once_is_one_payment(&client, api_key, &known).await;
    a_key_over_its_rate_gets_429_and_is_served_again(&deployment, &stack, &client, api_key).await;
    a_rotated_password_is_picked_up_within_one_request(&stack, &cloud, &client, api_key, &known).await;
    a_revoked_key_is_refused_within_a_minute(&deployment, &client).await;
}
