//! The journal on the emulator, through the functions' own client.

use std::collections::BTreeSet;

use aws_sdk_dynamodb::types::{
    AttributeDefinition, BillingMode, KeySchemaElement, KeyType, ScalarAttributeType,
};
use bootstrap::local::Region::UsEast1;
use continuity::dynamo::DynamoJournal;
use continuity::entry::{EntryId, EntryKind, EntryStatus, LedgerEntry};
use continuity::journal::{Journal, is_settled, partition};

use crate::cloud::Cloud;

fn entry(id: EntryId) -> LedgerEntry {
    LedgerEntry {
        id,
        idempotency_key: format!("key-{}-{}", id.epoch, id.seq),
        request_hash: "hash".into(),
        request_id: "request".into(),
        kind: EntryKind::Payment,
        subject: "payment".into(),
        status: EntryStatus::Created,
        posting: None,
        details: serde_json::Value::Null,
        created_at_ms: 0,
    }
}

#[tokio::test]
async fn a_scan_leaves_out_what_is_settled_and_nothing_else() {
    let cloud = Cloud::start().await;
    let client = aws_sdk_dynamodb::Client::new(&cloud.aws(None, UsEast1).await);
    let mut create = client
        .create_table()
        .table_name("journal")
        .billing_mode(BillingMode::PayPerRequest);
    for (name, key) in [("partition", KeyType::Hash), ("entry", KeyType::Range)] {
        let attribute = AttributeDefinition::builder().attribute_name(name);
        let key = KeySchemaElement::builder().attribute_name(name).key_type(key);
        create = create
            .attribute_definitions(attribute.attribute_type(ScalarAttributeType::S).build().unwrap())
            .key_schema(key.build().unwrap());
    }
    create.send().await.unwrap();

    let journal = DynamoJournal::new(client, "journal");
    // Of an earlier epoch put again, of the epoch itself, and under another.
    let under = |epoch: u64| {
        let ids = [(epoch - 1, 1..6), (epoch, 1..41)].into_iter();
        ids.flat_map(|(epoch, seqs)| seqs.map(move |seq| EntryId { epoch, seq }))
    };
    for epoch in [3, 12] {
        for id in under(epoch) {
            journal.put(epoch, &entry(id)).await.unwrap();
        }
    }
    let used: BTreeSet<String> = under(3)
        .map(|id| partition(3, &entry(id).idempotency_key))
        .collect();
    assert!(used.len() > 8, "{used:?}");
    let at = |epoch, seq| Some(EntryId { epoch, seq });
    let rows = [
        (3, None),
        (3, at(3, 0)),
        (3, at(3, 17)),
        (3, at(3, 40)),
        (3, at(2, 3)),
        (3, at(12, 40)),
        (12, at(12, 39)),
        (12, at(3, 9)),
    ];
    for (epoch, settled) in rows {
        let found: Vec<EntryId> = journal
            .scan(epoch, settled)
            .await
            .unwrap()
            .iter()
            .map(|entry| entry.id)
            .collect();
        let unsettled: Vec<EntryId> = under(epoch).filter(|id| !is_settled(*id, settled)).collect();
        assert_eq!(found, unsettled, "epoch {epoch}, settled {settled:?}");
    }
    cloud.edge.stop().await;
}
