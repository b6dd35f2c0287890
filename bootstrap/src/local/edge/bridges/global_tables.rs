//! Bridge: DynamoDB global tables with multi-Region strong consistency (MRSC).
//!
//! AWS takes `MultiRegionConsistency: STRONG` and `GlobalTableWitnessUpdates` with the replicas of an `UpdateTable`, and
//! from then on `DescribeTable` shows `MultiRegionConsistency` and `GlobalTableWitnesses` in each replica's region. The
//! emulator replicates, and forgets both. Here they are remembered, over restarts too, and shown.
//!
//! It is also known here which calls need a quorum of regions: writes and strongly consistent reads of such a table.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
    path::PathBuf,
    sync::{Mutex, MutexGuard, PoisonError},
};

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::local::edge::Needs;

/// What is remembered, in the cloud directory.
const FILE: &str = "global-tables.json";

/// The global tables that AWS would know.
#[derive(Debug)]
pub(in crate::local::edge) struct GlobalTables {
    path: PathBuf,
    tables: Mutex<BTreeMap<String, Table>>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Table {
    strong: bool,
    witnesses: BTreeSet<String>,
}

impl GlobalTables {
    /// Remembers what it knew when the cloud last ran.
    pub(in crate::local::edge) fn open(directory: &std::path::Path) -> io::Result<Self> {
        let path = directory.join(FILE);
        let tables = match fs::read(&path) {
            Ok(text) => serde_json::from_slice(&text)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => BTreeMap::new(),
            Err(error) => return Err(error),
        };
        Ok(Self {
            path,
            tables: Mutex::new(tables),
        })
    }

    /// Whether the answer of this operation must be seen by [`GlobalTables::answered`].
    pub(in crate::local::edge) fn concerns(operation: &str) -> bool {
        matches!(
            operation,
            "DescribeTable" | "UpdateTable" | "DeleteTable" | "CreateTable"
        )
    }

    /// Learns from a call that succeeded, and completes its answer.
    pub(in crate::local::edge) fn answered(
        &self,
        operation: &str,
        request: &[u8],
        answer: &[u8],
    ) -> Option<Vec<u8>> {
        let request: Value = serde_json::from_slice(request).ok()?;
        let mut answer: Value = serde_json::from_slice(answer).ok()?;
        let name = table_name(request.get("TableName")?.as_str()?).to_owned();
        match operation {
            "UpdateTable" => self.change(|tables| updated(tables, &name, &request)),
            // A table of that name is a new one, or on its way out.
            "DeleteTable" | "CreateTable" => self.change(|tables| tables.remove(&name).is_some()),
            _ => {}
        }
        let described = if operation == "DescribeTable" {
            "Table"
        } else {
            "TableDescription"
        };
        let table = self.lock().get(&name)?.clone();
        let description = answer.get_mut(described)?.as_object_mut()?;
        if table.strong {
            description.insert("MultiRegionConsistency".into(), "STRONG".into());
        }
        if !table.witnesses.is_empty() {
            let witnesses: Vec<Value> = table
                .witnesses
                .iter()
                .map(|region| json!({ "RegionName": region, "WitnessStatus": "ACTIVE" }))
                .collect();
            description.insert("GlobalTableWitnesses".into(), witnesses.into());
        }
        serde_json::to_vec(&answer).ok()
    }

    /// What the call needs. Only asked while a region is cut off.
    pub(in crate::local::edge) fn needs(&self, operation: &str, request: &[u8]) -> Needs {
        let Ok(request) = serde_json::from_slice::<Value>(request) else {
            return Needs::Nothing;
        };
        let tables = self.lock();
        let strong = |name: &str| tables.get(table_name(name)).is_some_and(|table| table.strong);
        let consistent = |value: &Value| value.get("ConsistentRead").and_then(Value::as_bool) == Some(true);
        let quorum = match operation {
            "PutItem" | "UpdateItem" | "DeleteItem" => named(&request).is_some_and(strong),
            "GetItem" | "Query" | "Scan" => consistent(&request) && named(&request).is_some_and(strong),
            "BatchWriteItem" => items(&request).any(|(name, _)| strong(name)),
            "BatchGetItem" => items(&request).any(|(name, keys)| consistent(keys) && strong(name)),
            "TransactWriteItems" | "TransactGetItems" => request
                .get("TransactItems")
                .and_then(Value::as_array)
                .into_iter()
                .flatten()
                .filter_map(Value::as_object)
                .flat_map(|item| item.values())
                .any(|action| named(action).is_some_and(strong)),
            _ => false,
        };
        if quorum { Needs::Quorum } else { Needs::Nothing }
    }

    fn change(&self, change: impl FnOnce(&mut BTreeMap<String, Table>) -> bool) {
        let mut tables = self.lock();
        if !change(&mut tables) {
            return;
        }
        let saved = serde_json::to_vec(&*tables)
            .map_err(io::Error::from)
            .and_then(|text| fs::write(&self.path, text));
        if let Err(error) = saved {
            tracing::error!(path = %self.path.display(), %error, "the global tables will be forgotten at a restart");
        }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Table>> {
        self.tables.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Applies an UpdateTable; says whether anything changed.
fn updated(tables: &mut BTreeMap<String, Table>, name: &str, request: &Value) -> bool {
    let before = tables.get(name).cloned();
    let mut table = before.clone().unwrap_or_default();
    if let Some(consistency) = request.get("MultiRegionConsistency").and_then(Value::as_str) {
        table.strong = consistency == "STRONG";
    }
    for region in regions(request, "GlobalTableWitnessUpdates", "Create") {
        table.witnesses.insert(region.to_owned());
    }
    for region in regions(request, "GlobalTableWitnessUpdates", "Delete") {
        table.witnesses.remove(region);
    }
    // An MRSC table gives up all its replicas (and its witness) at once, and is a table of one region again.
    if regions(request, "ReplicaUpdates", "Delete").next().is_some() && table.witnesses.is_empty() {
        table.strong = false;
    }
    let after = (table != Table::default()).then_some(table);
    if after == before {
        return false;
    }
    match after {
        Some(table) => tables.insert(name.to_owned(), table),
        None => tables.remove(name),
    };
    true
}

fn regions<'a>(request: &'a Value, updates: &str, action: &'static str) -> impl Iterator<Item = &'a str> {
    request
        .get(updates)
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
        .filter_map(move |update| update.get(action)?.get("RegionName")?.as_str())
}

fn named(request: &Value) -> Option<&str> {
    request.get("TableName")?.as_str()
}

fn items(request: &Value) -> impl Iterator<Item = (&str, &Value)> {
    request
        .get("RequestItems")
        .and_then(Value::as_object)
        .into_iter()
        .flatten()
        .map(|(name, value)| (name.as_str(), value))
}

/// A table is named by its name or its ARN.
fn table_name(name_or_arn: &str) -> &str {
    name_or_arn
        .split_once(":table/")
        .map_or(name_or_arn, |(_, name)| name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn described(tables: &GlobalTables, name: &str) -> Option<Value> {
        let request = json!({ "TableName": name }).to_string();
        let answer = json!({ "Table": { "TableName": name } }).to_string();
        let answer = tables.answered("DescribeTable", request.as_bytes(), answer.as_bytes())?;
        Some(serde_json::from_slice::<Value>(&answer).unwrap()["Table"].take())
    }

    fn update(tables: &GlobalTables, request: Value) {
        let answer = json!({ "TableDescription": {} }).to_string();
        tables.answered("UpdateTable", request.to_string().as_bytes(), answer.as_bytes());
    }

    fn with_journal(directory: &std::path::Path) -> GlobalTables {
        let tables = GlobalTables::open(directory).unwrap();
        update(
            &tables,
            json!({
                "TableName": "journal",
                "MultiRegionConsistency": "STRONG",
                "ReplicaUpdates": [{ "Create": { "RegionName": "us-east-2" } }],
                "GlobalTableWitnessUpdates": [{ "Create": { "RegionName": "us-west-2" } }],
            }),
        );
        tables
    }

    #[test]
    fn a_strong_table_is_described_with_its_witness_also_after_a_restart() {
        let directory = tempfile::tempdir().unwrap();
        with_journal(directory.path());
        let tables = GlobalTables::open(directory.path()).unwrap();
        let expected = json!({
            "TableName": "journal",
            "MultiRegionConsistency": "STRONG",
            "GlobalTableWitnesses": [{ "RegionName": "us-west-2", "WitnessStatus": "ACTIVE" }],
        });
        assert_eq!(described(&tables, "journal"), Some(expected));
        assert_eq!(described(&tables, "other"), None);
    }

    #[test]
    fn a_table_that_gave_up_its_replicas_or_is_gone_is_forgotten() {
        let directory = tempfile::tempdir().unwrap();
        let tables = with_journal(directory.path());
        update(
            &tables,
            json!({
                "TableName": "journal",
                "ReplicaUpdates": [{ "Delete": { "RegionName": "us-east-2" } }],
                "GlobalTableWitnessUpdates": [{ "Delete": { "RegionName": "us-west-2" } }],
            }),
        );
        assert_eq!(described(&tables, "journal"), None);

        let tables = with_journal(directory.path());
        tables.answered(
            "DeleteTable",
            br#"{"TableName":"journal"}"#,
            br#"{"TableDescription":{}}"#,
        );
        assert_eq!(described(&tables, "journal"), None);
    }

    #[test]
    fn writes_and_strong_reads_of_strong_tables_need_a_quorum() {
        let directory = tempfile::tempdir().unwrap();
        let tables = with_journal(directory.path());
        let arn = "arn:aws:dynamodb:us-east-1:000000000000:table/journal";
        let cases = [
            ("PutItem", json!({ "TableName": "journal" }), true),
            ("UpdateItem", json!({ "TableName": arn }), true),
            ("DeleteItem", json!({ "TableName": "journal" }), true),
            ("PutItem", json!({ "TableName": "other" }), false),
            ("GetItem", json!({ "TableName": "journal" }), false),
            (
                "GetItem",
                json!({ "TableName": "journal", "ConsistentRead": false }),
                false,
            ),
            (
                "GetItem",
                json!({ "TableName": "journal", "ConsistentRead": true }),
                true,
            ),
            (
                "Query",
                json!({ "TableName": "journal", "ConsistentRead": true }),
                true,
            ),
            (
                "Scan",
                json!({ "TableName": "other", "ConsistentRead": true }),
                false,
            ),
            (
                "BatchWriteItem",
                json!({ "RequestItems": { "journal": [] } }),
                true,
            ),
            (
                "BatchGetItem",
                json!({ "RequestItems": { "journal": { "ConsistentRead": true } } }),
                true,
            ),
            (
                "BatchGetItem",
                json!({ "RequestItems": { "journal": {} } }),
                false,
            ),
            (
                "TransactWriteItems",
                json!({ "TransactItems": [{ "Put": { "TableName": "journal" } }] }),
                true,
            ),
            ("DescribeTable", json!({ "TableName": "journal" }), false),
        ];
        for (operation, request, quorum) in cases {
            let needs = tables.needs(operation, request.to_string().as_bytes());
            assert_eq!(needs == Needs::Quorum, quorum, "{operation} {request}");
        }
    }
}
