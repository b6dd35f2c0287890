//! A region as clients and workflows meet it: the function over a control table, a journal and a ledger in memory.

use std::sync::Arc;

use continuity::control::{ApiKey, ControlRecord, ControlStore};
use continuity::memory::{MemoryControl, MemoryJournal, MemoryRates};
use payments::context::{Context, Stores};
use payments::event::Service;
use payments::ledger::memory::MemoryLedger;
use payments::statement::memory::MemoryStore;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

pub const HOME: &str = "us-east-1";
pub const OTHER: &str = "us-east-2";

/// The two tables, which both regions see, and the counts, which a test has of one.
#[derive(Clone)]
pub struct Tables {
    pub control: Arc<MemoryControl>,
    pub journal: Arc<MemoryJournal>,
    pub rates: Arc<MemoryRates>,
}

/// One region: its function and its ledger.
pub struct Region {
    pub tables: Tables,
    pub ledger: Arc<MemoryLedger>,
    pub service: Service,
}

impl Tables {
    pub async fn new() -> Tables {
        let control = Arc::new(MemoryControl::with(ControlRecord::first(HOME, "test", 0)));
        for (key, scopes, requests_per_s, revoked) in [
            ("full", vec!["payments:read", "payments:write"], u32::MAX, false),
            ("three", vec!["payments:read", "payments:write"], 3, false),
            ("reader", vec!["payments:read"], u32::MAX, false),
            ("writer", vec!["payments:write"], u32::MAX, false),
            ("revoked", vec!["payments:read", "payments:write"], u32::MAX, true),
        ] {
            let scopes = scopes.into_iter().map(str::to_owned).collect();
            let key_item = ApiKey {
                name: key.into(),
                scopes,
                requests_per_s,
                revoked,
            };
            control
                .put_api_key(&hex::encode(Sha256::digest(key)), &key_item, 0)
                .await
                .unwrap();
        }
        Tables {
            control,
            journal: Arc::default(),
            rates: Arc::default(),
        }
    }

    pub fn region(&self, region: &str, slot: &str, epoch: u64) -> Region {
        self.region_over(region, slot, Arc::new(MemoryLedger::in_epoch(epoch)))
    }

    /// What a region works on, with a bucket of its own.
    pub fn stores(&self, ledger: &Arc<MemoryLedger>) -> Stores {
        Stores {
            control: self.control.clone(),
            journal: self.journal.clone(),
            ledger: ledger.clone(),
            statements: Arc::new(MemoryStore::default()),
            rates: self.rates.clone(),
        }
    }

    pub fn region_over(&self, region: &str, slot: &str, ledger: Arc<MemoryLedger>) -> Region {
        let mut context = Context::new("dev", region, slot, self.stores(&ledger));
        unheard(&mut context);
        Region {
            tables: self.clone(),
            ledger,
            service: Service::new(Arc::new(context)),
        }
    }

    pub async fn store(&self, change: impl FnOnce(&mut ControlRecord)) {
        let old = self.control.read().await.unwrap().unwrap();
        let mut new = ControlRecord {
            version: old.version + 1,
            ..old.clone()
        };
        change(&mut new);
        self.control.replace(&old, &new).await.unwrap();
    }
}

/// The lines of the log are read, as CloudWatch reads them, and printed nowhere.
pub fn unheard(context: &mut Context) {
    context.tell = Box::new(|told, now_ms| {
        serde_json::from_str::<Value>(&told.line(now_ms)).expect("a line of the log is JSON");
    });
}

pub async fn home() -> Region {
    Tables::new().await.region(HOME, "primary", 1)
}

/// A request as the tests write it.
#[derive(Debug, Clone)]
pub struct Request {
    pub method: String,
    pub path: String,
    pub query: Vec<(String, String)>,
    pub headers: Vec<(String, String)>,
    pub body: Option<String>,
}

pub fn get(path: &str) -> Request {
    let headers = vec![("Authorization".to_owned(), "Bearer full".to_owned())];
    Request {
        method: "GET".into(),
        path: path.into(),
        query: Vec::new(),
        headers,
        body: None,
    }
}

pub fn post(path: &str, key: &str, body: Value) -> Request {
    let request = Request {
        method: "POST".into(),
        body: Some(body.to_string()),
        ..get(path)
    };
    request
        .with("Idempotency-Key", key)
        .with("Content-Type", "application/json")
}

impl Request {
    pub fn with(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.into(), value.into()));
        self
    }

    pub fn without(mut self, name: &str) -> Self {
        self.headers.retain(|(known, _)| known != name);
        self
    }

    pub fn key(self, value: &str) -> Self {
        self.without("Authorization").with("Authorization", value)
    }

    pub fn ask(mut self, name: &str, value: &str) -> Self {
        self.query.push((name.into(), value.into()));
        self
    }

    pub fn text(self, body: &str) -> Self {
        Request {
            body: Some(body.into()),
            ..self
        }
    }

    pub fn event(&self) -> Value {
        let lists = |pairs: &[(String, String)]| {
            let mut lists = serde_json::Map::new();
            for (name, value) in pairs {
                let list = lists.entry(name).or_insert_with(|| json!([]));
                list.as_array_mut().unwrap().push(json!(value));
            }
            lists
        };
        json!({
            "resource": "/{proxy+}", "path": self.path, "httpMethod": self.method,
            "headers": null, "multiValueHeaders": lists(&self.headers),
            "queryStringParameters": null, "multiValueQueryStringParameters": lists(&self.query),
            "pathParameters": null, "stageVariables": null,
            "requestContext": { "stage": "live", "httpMethod": self.method },
            "body": self.body, "isBase64Encoded": false,
        })
    }
}

/// What came back.
#[derive(Debug, Clone, PartialEq)]
pub struct Answer {
    pub status: u64,
    pub kind: String,
    pub retry_after: Option<String>,
    pub text: String,
}

impl Answer {
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap()
    }

    /// The slug of a problem document, which must be a whole one.
    pub fn problem(&self) -> String {
        assert_eq!(self.kind, "application/problem+json", "{self:?}");
        let body = self.json();
        assert_eq!(body["status"], self.status, "{self:?}");
        assert!(body["title"].is_string(), "{self:?}");
        body["type"]
            .as_str()
            .unwrap()
            .strip_prefix("https://understudy.dev/errors/")
            .unwrap()
            .to_owned()
    }
}

impl Region {
    pub async fn send(&self, request: &Request) -> Answer {
        let response = json!(
            self.service
                .handle(&request.event().to_string(), None)
                .await
                .unwrap()
        );
        let header = |name: &str| {
            let value = response["multiValueHeaders"].get(name)?;
            value
                .as_array()
                .map_or_else(|| value.as_str(), |list| list[0].as_str())
                .map(str::to_owned)
        };
        Answer {
            status: response["statusCode"].as_u64().unwrap(),
            kind: header("content-type").unwrap_or_default(),
            retry_after: header("retry-after"),
            text: response["body"].as_str().unwrap().to_owned(),
        }
    }

    pub async fn task(&self, event: Value) -> Value {
        json!(self.service.handle(&event.to_string(), None).await.unwrap())
    }

    pub async fn open(&self, key: &str, limit: Value) -> String {
        let answer = self
            .send(&post(
                "/v1/accounts",
                key,
                json!({ "currency": "EUR", "limit_minor": limit }),
            ))
            .await;
        assert_eq!(answer.status, 201, "{answer:?}");
        answer.json()["id"].as_str().unwrap().to_owned()
    }
}

pub fn payment(from: &str, to: &str, amount: i64) -> Value {
    json!({ "from_account": from, "to_account": to, "amount_minor": amount, "currency": "EUR", "reference": "r" })
}
