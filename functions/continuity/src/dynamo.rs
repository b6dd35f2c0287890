//! The control table, the journal and the request counts in DynamoDB. One conditional item at a time, strongly consistent reads:
//! MRSC global tables have no transactions, no TTL and no local indexes
//! (<https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/V2globaltables_HowItWorks.html>).

use std::collections::HashMap;
use std::sync::Arc;

use async_trait::async_trait;
use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::error::ProvideErrorMetadata;
use aws_sdk_dynamodb::types::{AttributeValue, KeysAndAttributes, ReturnValue};
use futures::{StreamExt, TryStreamExt, stream};
use tokio::sync::OnceCell;

use crate::aws;
use crate::control::{ApiKey, ControlRecord, ControlStore, ListedKey, Phase, Swap};
use crate::entry::{EntryId, LedgerEntry};
use crate::error::StoreError;
use crate::journal::{Journal, partition, partitions};
use crate::observe::Observation;
use crate::rate::{self, RateStore};

type Item = HashMap<String, AttributeValue>;

/// The control record's id.
const RECORD: &str = "epoch";
/// What an API key's id begins with; its SHA-256 follows.
const API_KEY: &str = "api-key#";
/// The attribute with an API key's rate. Keys of before there were rates have none.
const REQUESTS_PER_S: &str = "requests_per_s";
/// How often a read of several items is asked for its rest.
const BATCH_CALLS: u32 = 5;
/// Partitions that a journal scan reads at once.
const SCAN_CONCURRENCY: usize = 8;

fn call(
    operation: &'static str,
    table: &str,
) -> impl FnOnce(Box<dyn std::error::Error + Send + Sync>) -> StoreError {
    let table = table.to_owned();
    move |source| StoreError::Call {
        operation,
        table,
        source,
    }
}

fn string(value: impl Into<String>) -> AttributeValue {
    AttributeValue::S(value.into())
}

fn number(value: u64) -> AttributeValue {
    AttributeValue::N(value.to_string())
}

/// Reads attributes of one item and says which one is missing or malformed.
struct Reader<'a> {
    table: &'a str,
    id: &'a str,
    item: &'a Item,
}

impl Reader<'_> {
    fn malformed(&self, reason: impl Into<String>) -> StoreError {
        StoreError::Malformed {
            table: self.table.to_owned(),
            id: self.id.to_owned(),
            reason: reason.into(),
        }
    }

    fn string(&self, name: &str) -> Result<String, StoreError> {
        self.item
            .get(name)
            .and_then(|value| value.as_s().ok())
            .cloned()
            .ok_or_else(|| self.malformed(format!("no string `{name}`")))
    }

    fn number(&self, name: &str) -> Result<u64, StoreError> {
        self.item
            .get(name)
            .and_then(|value| value.as_n().ok())
            .and_then(|text| text.parse().ok())
            .ok_or_else(|| self.malformed(format!("no number `{name}`")))
    }

    fn boolean(&self, name: &str) -> Result<bool, StoreError> {
        self.item
            .get(name)
            .and_then(|value| value.as_bool().ok())
            .copied()
            .ok_or_else(|| self.malformed(format!("no boolean `{name}`")))
    }

    fn api_key(&self) -> Result<ApiKey, StoreError> {
        let scopes = self.item.get("scopes").and_then(|value| value.as_ss().ok());
        let requests_per_s = if self.item.contains_key(REQUESTS_PER_S) {
            u32::try_from(self.number(REQUESTS_PER_S)?).unwrap_or(u32::MAX)
        } else {
            rate::DEFAULT
        };
        Ok(ApiKey {
            name: self.string("name")?,
            scopes: scopes.cloned().unwrap_or_default(),
            requests_per_s,
            revoked: self.boolean("revoked")?,
        })
    }

    fn record(&self) -> Result<ControlRecord, StoreError> {
        let phase = self.string("phase")?;
        Ok(ControlRecord {
            epoch: self.number("epoch")?,
            active_region: self.string("active_region")?,
            phase: Phase::parse(&phase).ok_or_else(|| self.malformed(format!("phase `{phase}`")))?,
            last_served_epoch: self.number("last_served_epoch")?,
            generation: self.number("generation")?,
            changed_by: self.string("changed_by")?,
            since_ms: self.number("since_ms")?,
            repair_frozen: self.boolean("repair_frozen")?,
            maintenance: self.boolean("maintenance")?,
            version: self.number("version")?,
        })
    }
}

fn record_item(record: &ControlRecord) -> Item {
    HashMap::from([
        ("id".into(), string(RECORD)),
        ("epoch".into(), number(record.epoch)),
        ("active_region".into(), string(&record.active_region)),
        ("phase".into(), string(record.phase.as_str())),
        ("last_served_epoch".into(), number(record.last_served_epoch)),
        ("generation".into(), number(record.generation)),
        ("changed_by".into(), string(&record.changed_by)),
        ("since_ms".into(), number(record.since_ms)),
        ("repair_frozen".into(), AttributeValue::Bool(record.repair_frozen)),
        ("maintenance".into(), AttributeValue::Bool(record.maintenance)),
        ("version".into(), number(record.version)),
    ])
}

/// A way to the tables: a client, or a configuration of which one is made when it is first needed.
#[derive(Debug, Clone)]
pub struct Tables {
    aws: aws::Shared,
    client: Arc<OnceCell<Client>>,
}

impl Tables {
    async fn client(&self) -> &Client {
        let made = async || Client::new(self.aws.config().await);
        self.client.get_or_init(made).await
    }
}

impl From<aws::Shared> for Tables {
    fn from(aws: aws::Shared) -> Self {
        Tables {
            aws,
            client: Arc::default(),
        }
    }
}

impl From<Client> for Tables {
    fn from(client: Client) -> Self {
        Tables {
            aws: aws::Shared::default(),
            client: Arc::new(OnceCell::new_with(Some(client))),
        }
    }
}

/// The control table.
#[derive(Debug, Clone)]
pub struct DynamoControl {
    tables: Tables,
    table: String,
}

impl DynamoControl {
    /// The table of that name, through a client of the caller's region.
    pub fn new(tables: impl Into<Tables>, table: impl Into<String>) -> Self {
        DynamoControl {
            tables: tables.into(),
            table: table.into(),
        }
    }

    async fn get(&self, id: &str) -> Result<Option<Item>, StoreError> {
        let output = self
            .tables
            .client()
            .await
            .get_item()
            .table_name(&self.table)
            .key("id", string(id))
            .consistent_read(true)
            .send()
            .await
            .map_err(|error| match error.code() {
                Some("ResourceNotFoundException") => StoreError::NoTable(self.table.clone()),
                _ => call("GetItem", &self.table)(error.into()),
            })?;
        Ok(output.item)
    }

    /// Items by their id, in one strongly consistent call, and in as many more as DynamoDB needs that leaves some for later.
    async fn get_all(&self, ids: &[&str]) -> Result<HashMap<String, Item>, StoreError> {
        let keys = ids
            .iter()
            .map(|id| HashMap::from([("id".to_owned(), string(*id))]));
        let mut wanted = KeysAndAttributes::builder()
            .set_keys(Some(keys.collect()))
            .consistent_read(true)
            .build()
            .map_err(|error| call("BatchGetItem", &self.table)(error.into()))?;
        let mut found = HashMap::new();
        for _ in 0..BATCH_CALLS {
            let output = self
                .tables
                .client()
                .await
                .batch_get_item()
                .request_items(&self.table, wanted)
                .send()
                .await
                .map_err(|error| match error.code() {
                    Some("ResourceNotFoundException") => StoreError::NoTable(self.table.clone()),
                    _ => call("BatchGetItem", &self.table)(error.into()),
                })?;
            let items = output.responses.unwrap_or_default().into_values().flatten();
            found.extend(items.filter_map(|item| Some((item.get("id")?.as_s().ok()?.clone(), item))));
            match output.unprocessed_keys.unwrap_or_default().remove(&self.table) {
                None => return Ok(found),
                Some(left) => wanted = left,
            }
        }
        Err(call("BatchGetItem", &self.table)(
            "DynamoDB left keys for later again and again".into(),
        ))
    }

    async fn put(&self, item: Item) -> Result<(), StoreError> {
        self.tables
            .client()
            .await
            .put_item()
            .table_name(&self.table)
            .set_item(Some(item))
            .send()
            .await
            .map_err(|error| call("PutItem", &self.table)(error.into()))?;
        Ok(())
    }

    async fn put_if(&self, item: Item, condition: &str, values: Item) -> Result<Swap, StoreError> {
        let result = self
            .tables
            .client()
            .await
            .put_item()
            .table_name(&self.table)
            .set_item(Some(item))
            .condition_expression(condition)
            .set_expression_attribute_values((!values.is_empty()).then_some(values))
            .send()
            .await;
        match result {
            Ok(_) => Ok(Swap::Done),
            Err(error) if error.code() == Some("ConditionalCheckFailedException") => Ok(Swap::Lost),
            Err(error) => Err(call("PutItem", &self.table)(error.into())),
        }
    }

    fn reader<'a>(&'a self, id: &'a str, item: &'a Item) -> Reader<'a> {
        Reader {
            table: &self.table,
            id,
            item,
        }
    }
}

#[async_trait]
impl ControlStore for DynamoControl {
    async fn read(&self) -> Result<Option<ControlRecord>, StoreError> {
        match self.get(RECORD).await? {
            None => Ok(None),
            Some(item) => self.reader(RECORD, &item).record().map(Some),
        }
    }

    async fn create(&self, record: &ControlRecord) -> Result<Swap, StoreError> {
        self.put_if(record_item(record), "attribute_not_exists(id)", Item::new())
            .await
    }

    async fn replace(&self, expected: &ControlRecord, new: &ControlRecord) -> Result<Swap, StoreError> {
        // A retried call whose first attempt was stored answers `Lost`. The transitions recognise their own work, so the
        // caller reads again and finds it done.
        let values = HashMap::from([(":expected".to_owned(), number(expected.version))]);
        self.put_if(record_item(new), "version = :expected", values).await
    }

    async fn put_observation(&self, observation: &Observation) -> Result<Swap, StoreError> {
        let id = format!("observation#{}", observation.observer);
        let json = encode(&self.table, &id, observation)?;
        let item = HashMap::from([
            ("id".to_owned(), string(id)),
            ("json".to_owned(), string(json)),
            ("begun_ms".to_owned(), number(observation.begun_ms)),
        ]);
        let values = HashMap::from([(":begun".to_owned(), number(observation.begun_ms))]);
        self.put_if(
            item,
            "attribute_not_exists(begun_ms) OR begun_ms <= :begun",
            values,
        )
        .await
    }

    async fn observations(&self, regions: &[&str]) -> Result<Vec<Observation>, StoreError> {
        let ids: Vec<String> = regions
            .iter()
            .map(|region| format!("observation#{region}"))
            .collect();
        let found = futures::future::try_join_all(ids.iter().map(|id| self.document(id))).await?;
        ids.iter()
            .zip(found)
            .filter_map(|(id, json)| json.map(|json| decode(&self.table, id, &json)))
            .collect()
    }

    async fn document(&self, id: &str) -> Result<Option<String>, StoreError> {
        match self.get(id).await? {
            None => Ok(None),
            Some(item) => self.reader(id, &item).string("json").map(Some),
        }
    }

    async fn read_with(
        &self,
        documents: &[&str],
    ) -> Result<(Option<ControlRecord>, Vec<Option<String>>), StoreError> {
        let ids: Vec<&str> = std::iter::once(RECORD).chain(documents.iter().copied()).collect();
        let items = self.get_all(&ids).await?;
        let record = items.get(RECORD).map(|item| self.reader(RECORD, item).record());
        let json = |id: &&str| {
            items
                .get(*id)
                .map(|item| self.reader(id, item).string("json"))
                .transpose()
        };
        let documents: Result<Vec<_>, _> = documents.iter().map(json).collect();
        Ok((record.transpose()?, documents?))
    }

    async fn put_document(&self, id: &str, json: &str) -> Result<(), StoreError> {
        self.put(HashMap::from([
            ("id".into(), string(id)),
            ("json".into(), string(json)),
        ]))
        .await
    }

    async fn swap_document(&self, id: &str, expected: Option<&str>, json: &str) -> Result<Swap, StoreError> {
        let item = HashMap::from([("id".to_owned(), string(id)), ("json".to_owned(), string(json))]);
        // As with `replace`, a retried call whose first attempt was stored answers `Lost`: the caller reads again.
        match expected {
            None => self.put_if(item, "attribute_not_exists(id)", Item::new()).await,
            Some(expected) => {
                let values = HashMap::from([(":expected".to_owned(), string(expected))]);
                self.put_if(item, "json = :expected", values).await
            }
        }
    }

    async fn api_key(&self, sha256_hex: &str) -> Result<Option<ApiKey>, StoreError> {
        let id = format!("{API_KEY}{sha256_hex}");
        let Some(item) = self.get(&id).await? else {
            return Ok(None);
        };
        self.reader(&id, &item).api_key().map(Some)
    }

    async fn api_keys(&self) -> Result<Vec<ListedKey>, StoreError> {
        let items: Vec<Item> = self
            .tables
            .client()
            .await
            .scan()
            .table_name(&self.table)
            .consistent_read(true)
            .filter_expression("begins_with(id, :prefix)")
            .expression_attribute_values(":prefix", string(API_KEY))
            .into_paginator()
            .items()
            .send()
            .try_collect()
            .await
            .map_err(|error| call("Scan", &self.table)(error.into()))?;
        let mut listed = Vec::new();
        for item in &items {
            let id = self.reader(API_KEY, item).string("id")?;
            let reader = self.reader(&id, item);
            listed.push(ListedKey {
                sha256_hex: id.trim_start_matches(API_KEY).to_owned(),
                key: reader.api_key()?,
                created_ms: reader.number("created_ms")?,
            });
        }
        listed.sort_by_key(|listed| listed.created_ms);
        Ok(listed)
    }

    async fn put_api_key(&self, sha256_hex: &str, key: &ApiKey, now_ms: u64) -> Result<(), StoreError> {
        let mut item = HashMap::from([
            ("id".into(), string(format!("{API_KEY}{sha256_hex}"))),
            ("name".into(), string(&key.name)),
            ("created_ms".into(), number(now_ms)),
            (REQUESTS_PER_S.into(), number(key.requests_per_s.into())),
            ("revoked".into(), AttributeValue::Bool(key.revoked)),
        ]);
        // DynamoDB has no empty sets.
        if !key.scopes.is_empty() {
            item.insert("scopes".into(), AttributeValue::Ss(key.scopes.clone()));
        }
        self.put(item).await
    }

    async fn remove_api_key(&self, sha256_hex: &str) -> Result<(), StoreError> {
        self.tables
            .client()
            .await
            .delete_item()
            .table_name(&self.table)
            .key("id", string(format!("{API_KEY}{sha256_hex}")))
            .send()
            .await
            .map_err(|error| call("DeleteItem", &self.table)(error.into()))?;
        Ok(())
    }
}

/// A bound on sort keys in a query: its operator, and the entry that is not in it.
type Bound = (char, EntryId);

/// The queries of a partition that together find all that [`crate::journal::is_settled`] does not leave out. Sequence numbers begin
/// at one.
fn unsettled(settled: Option<EntryId>) -> Vec<Option<Bound>> {
    match settled {
        None => vec![None],
        Some(settled) => vec![Some(('<', EntryId { seq: 0, ..settled })), Some(('>', settled))],
    }
}

/// The journal table.
#[derive(Debug, Clone)]
pub struct DynamoJournal {
    tables: Tables,
    table: String,
}

impl DynamoJournal {
    /// The table of that name, through a client of the caller's region.
    pub fn new(tables: impl Into<Tables>, table: impl Into<String>) -> Self {
        DynamoJournal {
            tables: tables.into(),
            table: table.into(),
        }
    }

    async fn query(&self, partition: String, bound: Option<Bound>) -> Result<Vec<LedgerEntry>, StoreError> {
        let mut query = self
            .tables
            .client()
            .await
            .query()
            .table_name(&self.table)
            .expression_attribute_names("#partition", "partition")
            .expression_attribute_values(":partition", string(partition.clone()))
            .consistent_read(true);
        let mut condition = "#partition = :partition".to_owned();
        if let Some((operator, entry)) = bound {
            condition.push_str(&format!(" AND #entry {operator} :entry"));
            query = query
                .expression_attribute_names("#entry", "entry")
                .expression_attribute_values(":entry", string(entry.sort_key()));
        }
        let pages: Vec<_> = query
            .key_condition_expression(condition)
            .into_paginator()
            .items()
            .send()
            .collect::<Result<Vec<_>, _>>()
            .await
            .map_err(|error| call("Query", &self.table)(error.into()))?;
        pages
            .iter()
            .map(|item| {
                let json = Reader {
                    table: &self.table,
                    id: &partition,
                    item,
                }
                .string("json")?;
                decode(&self.table, &partition, &json)
            })
            .collect()
    }
}

#[async_trait]
impl Journal for DynamoJournal {
    async fn put(&self, epoch: u64, entry: &LedgerEntry) -> Result<(), StoreError> {
        let key = partition(epoch, &entry.idempotency_key);
        let json = encode(&self.table, &key, entry)?;
        self.tables
            .client()
            .await
            .put_item()
            .table_name(&self.table)
            .item("partition", string(key))
            .item("entry", string(entry.id.sort_key()))
            .item("json", string(json))
            .send()
            .await
            .map_err(|error| call("PutItem", &self.table)(error.into()))?;
        Ok(())
    }

    async fn scan(&self, epoch: u64, settled: Option<EntryId>) -> Result<Vec<LedgerEntry>, StoreError> {
        let mut queries = Vec::new();
        for partition in partitions(epoch) {
            let bounds = unsettled(settled);
            queries.extend(bounds.into_iter().map(|bound| (partition.clone(), bound)));
        }
        let mut entries: Vec<LedgerEntry> = stream::iter(queries)
            .map(|(partition, bound)| self.query(partition, bound))
            .buffer_unordered(SCAN_CONCURRENCY)
            .try_concat()
            .await?;
        entries.sort_by_key(|entry| entry.id);
        Ok(entries)
    }
}

/// The request counts of one region: an item for each key that was ever counted, with the second that was counted last. The next
/// second takes its place, so nothing has to be removed.
#[derive(Debug, Clone)]
pub struct DynamoRates {
    tables: Tables,
    table: String,
}

impl DynamoRates {
    /// The table of that name, through a client of the caller's region.
    pub fn new(tables: impl Into<Tables>, table: impl Into<String>) -> Self {
        DynamoRates {
            tables: tables.into(),
            table: table.into(),
        }
    }

    /// Changes a key's item under a condition; the new count, or `None` where the condition does not hold.
    async fn update(
        &self,
        sha256_hex: &str,
        (update, condition): (&str, &str),
        window_s: u64,
        requests: u64,
    ) -> Result<Option<u64>, StoreError> {
        let result = self
            .tables
            .client()
            .await
            .update_item()
            .table_name(&self.table)
            .key("id", string(sha256_hex))
            .update_expression(update)
            .condition_expression(condition)
            .expression_attribute_values(":window", number(window_s))
            .expression_attribute_values(":requests", number(requests))
            .return_values(ReturnValue::AllNew)
            .send()
            .await;
        match result {
            Ok(output) => {
                let item = output.attributes.unwrap_or_default();
                let reader = Reader {
                    table: &self.table,
                    id: sha256_hex,
                    item: &item,
                };
                reader.number("requests").map(Some)
            }
            Err(error) if error.code() == Some("ConditionalCheckFailedException") => Ok(None),
            Err(error) => Err(call("UpdateItem", &self.table)(error.into())),
        }
    }
}

/// Counts on in the second that is being counted.
const GO_ON: (&str, &str) = ("ADD requests :requests", "window_s = :window");
/// Begins a second, in the place of an earlier one.
const BEGIN: (&str, &str) = (
    "SET window_s = :window, requests = :requests",
    "attribute_not_exists(window_s) OR window_s < :window",
);

#[async_trait]
impl RateStore for DynamoRates {
    async fn add(&self, sha256_hex: &str, window_s: u64, requests: u64) -> Result<u64, StoreError> {
        // The third, if another handler began the second between the first two.
        for change in [GO_ON, BEGIN, GO_ON] {
            if let Some(count) = self.update(sha256_hex, change, window_s, requests).await? {
                return Ok(count);
            }
        }
        Ok(requests)
    }
}

fn encode<T: serde::Serialize>(table: &str, id: &str, value: &T) -> Result<String, StoreError> {
    serde_json::to_string(value).map_err(|error| StoreError::Malformed {
        table: table.to_owned(),
        id: id.to_owned(),
        reason: error.to_string(),
    })
}

fn decode<T: serde::de::DeserializeOwned>(table: &str, id: &str, json: &str) -> Result<T, StoreError> {
    serde_json::from_str(json).map_err(|error| StoreError::Malformed {
        table: table.to_owned(),
        id: id.to_owned(),
        reason: error.to_string(),
    })
}
