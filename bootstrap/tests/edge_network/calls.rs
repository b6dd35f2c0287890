//! AWS calls through the edge: where they go, what a cut does to them, what is recorded.

use std::time::Duration;

use aws_sdk_dynamodb::{
    error::ProvideErrorMetadata,
    types::{
        AttributeDefinition, AttributeValue, BillingMode, CreateGlobalTableWitnessGroupMemberAction,
        CreateReplicationGroupMemberAction, GlobalTableWitnessGroupUpdate, KeySchemaElement, KeyType,
        MultiRegionConsistency, ReplicationGroupUpdate, ScalarAttributeType,
    },
};
use bootstrap::local::{
    Region::{self, UsEast1, UsEast2, UsWest2},
    edge::Call,
};
use continuity::control::{ControlRecord, ControlStore, Swap};
use continuity::dynamo::DynamoControl;
use continuity::error::StoreError;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use crate::cloud::{Cloud, PATIENCE, eventually, signature};

type Dynamo = aws_sdk_dynamodb::Client;

pub async fn dynamo(cloud: &Cloud, source: Option<Region>, region: Region) -> Dynamo {
    Dynamo::new(&cloud.aws(source, region).await)
}

async fn create_table(client: &Dynamo, name: &str) {
    client
        .create_table()
        .table_name(name)
        .billing_mode(BillingMode::PayPerRequest)
        .attribute_definitions(
            AttributeDefinition::builder()
                .attribute_name("id")
                .attribute_type(ScalarAttributeType::S)
                .build()
                .unwrap(),
        )
        .key_schema(
            KeySchemaElement::builder()
                .attribute_name("id")
                .key_type(KeyType::Hash)
                .build()
                .unwrap(),
        )
        .send()
        .await
        .unwrap();
}

/// A table in us-east-1 and us-east-2 with a witness in us-west-2, as the journal is.
pub async fn create_strong_table(client: &Dynamo, name: &str) {
    create_table(client, name).await;
    assert_eq!(strengthen(client, name).await, "ok");
}

/// `ok`, `error CODE` or `broken`.
async fn strengthen(client: &Dynamo, name: &str) -> String {
    let replica = CreateReplicationGroupMemberAction::builder()
        .region_name(UsEast2.name())
        .build()
        .unwrap();
    let witness = CreateGlobalTableWitnessGroupMemberAction::builder()
        .region_name(UsWest2.name())
        .build()
        .unwrap();
    outcome(
        client
            .update_table()
            .table_name(name)
            .replica_updates(ReplicationGroupUpdate::builder().create(replica).build())
            .global_table_witness_updates(GlobalTableWitnessGroupUpdate::builder().create(witness).build())
            .multi_region_consistency(MultiRegionConsistency::Strong)
            .send()
            .await,
    )
}

/// `ok`, `error CODE` or `broken`.
pub async fn put(client: &Dynamo, table: &str) -> String {
    outcome(
        client
            .put_item()
            .table_name(table)
            .item("id", AttributeValue::S("a".into()))
            .send()
            .await,
    )
}

async fn get(client: &Dynamo, table: &str, consistent: bool) -> String {
    let key = AttributeValue::S("a".into());
    outcome(
        client
            .get_item()
            .table_name(table)
            .key("id", key)
            .consistent_read(consistent)
            .send()
            .await,
    )
}

fn outcome<T, E: ProvideErrorMetadata>(
    result: Result<T, aws_sdk_dynamodb::error::SdkError<E, aws_sdk_dynamodb::config::http::HttpResponse>>,
) -> String {
    match result {
        Ok(_) => "ok".into(),
        Err(error) => match error.as_service_error() {
            Some(service) => format!("error {}", service.code().unwrap_or_default()),
            None => "broken".into(),
        },
    }
}

#[tokio::test]
async fn a_cut_region_is_alone_and_its_strong_tables_have_no_quorum() {
    let cloud = Cloud::start().await;
    let outside = dynamo(&cloud, None, UsEast1).await;
    create_strong_table(&outside, "journal").await;
    create_table(&outside, "plain").await;
    let inside = dynamo(&cloud, Some(UsEast1), UsEast1).await;
    let out_of_it = dynamo(&cloud, Some(UsEast1), UsEast2).await;
    let into_it = dynamo(&cloud, Some(UsEast2), UsEast1).await;
    let beside = dynamo(&cloud, Some(UsEast2), UsEast2).await;
    for client in [&outside, &inside, &out_of_it, &into_it, &beside] {
        assert_eq!(put(client, "journal").await, "ok");
    }

    cloud.network().cut(UsEast1);
    assert_eq!(put(&outside, "journal").await, "broken");
    assert_eq!(put(&into_it, "journal").await, "broken");
    assert_eq!(put(&out_of_it, "journal").await, "broken");
    assert_eq!(put(&beside, "journal").await, "ok");
    assert_eq!(get(&beside, "journal", true).await, "ok");
    assert_eq!(put(&inside, "journal").await, "error InternalServerError");
    assert_eq!(get(&inside, "journal", true).await, "error InternalServerError");
    assert_eq!(get(&inside, "journal", false).await, "ok");
    assert_eq!(put(&inside, "plain").await, "ok");

    cloud.network().heal(UsEast1);
    for client in [&outside, &inside, &out_of_it, &into_it, &beside] {
        assert_eq!(put(client, "journal").await, "ok");
    }
    cloud.edge.stop().await;
}

#[tokio::test]
async fn a_call_in_flight_breaks_off_when_its_region_is_cut() {
    let cloud = Cloud::start().await;
    cloud.api(UsEast1).await;
    let lambda = aws_sdk_lambda::Client::new(&cloud.aws(None, UsEast1).await);
    lambda
        .update_function_configuration()
        .function_name("echo")
        .timeout(60)
        .send()
        .await
        .unwrap();
    // A request whose body never ends cannot be answered before the cut.
    let mut stream = TcpStream::connect(cloud.edge.addresses().outside).await.unwrap();
    let head = format!(
        "PUT /bucket/key HTTP/1.1\r\nHost: x\r\nAuthorization: {}\r\nContent-Length: 1000000\r\n\r\nbegin",
        signature(UsEast1, "s3")
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut read = [0; 64];
    let quiet = tokio::time::timeout(Duration::from_millis(200), stream.read(&mut read)).await;
    assert!(quiet.is_err(), "answered before the body was there");
    cloud.network().cut(UsEast1);
    let ended = tokio::time::timeout(PATIENCE, stream.read(&mut read))
        .await
        .unwrap();
    assert!(matches!(ended, Ok(0) | Err(_)), "{ended:?}");
    cloud.edge.stop().await;
}

#[tokio::test]
async fn a_call_whose_caller_hangs_up_takes_effect_whole_and_is_recorded() {
    let cloud = Cloud::start().await;
    let client = dynamo(&cloud, None, UsEast1).await;
    create_table(&client, "journal").await;
    let body = serde_json::json!({
        "TableName": "journal",
        "MultiRegionConsistency": "STRONG",
        "ReplicaUpdates": [{ "Create": { "RegionName": UsEast2.name() } }],
        "GlobalTableWitnessUpdates": [{ "Create": { "RegionName": UsWest2.name() } }],
    })
    .to_string();
    let request = format!(
        "POST / HTTP/1.1\r\nHost: x\r\nAuthorization: {}\r\nX-Amz-Target: DynamoDB_20120810.UpdateTable\r\n\
         Content-Type: application/x-amz-json-1.0\r\nContent-Length: {}\r\n\r\n{body}",
        signature(UsEast1, "dynamodb"),
        body.len()
    );
    let mut stream = TcpStream::connect(cloud.edge.addresses().outside).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    drop(stream);

    eventually("the bridge knows the witness that the call created", async || {
        let described = client.describe_table().table_name("journal").send().await;
        let table = described.unwrap().table.unwrap();
        assert_eq!(
            table.global_table_witnesses().is_empty(),
            table.multi_region_consistency.is_none()
        );
        !table.global_table_witnesses().is_empty()
    })
    .await;
    eventually("the call is recorded", async || {
        cloud.edge.tally().count(|call| call.operation == "UpdateTable") == 1
    })
    .await;
    cloud.edge.stop().await;
}

#[tokio::test]
async fn a_call_cut_off_on_its_way_takes_effect_whole() {
    let (cloud, held) = Cloud::holding("UpdateTable").await;
    let client = dynamo(&cloud, None, UsEast1).await;
    create_table(&client, "journal").await;
    let caller = client.clone();
    let call = tokio::spawn(async move { strengthen(&caller, "journal").await });
    tokio::time::timeout(PATIENCE, held.arrived.notified())
        .await
        .unwrap();
    cloud.network().cut(UsEast1);
    assert_eq!(call.await.unwrap(), "broken");
    held.released.notify_one();
    cloud.network().heal(UsEast1);

    eventually("the bridge knows the witness that the call created", async || {
        let described = client.describe_table().table_name("journal").send().await;
        let table = described.unwrap().table.unwrap();
        !table.global_table_witnesses().is_empty()
    })
    .await;
    let call = cloud.edge.tally().count(|call| call.operation == "UpdateTable");
    assert_eq!(call, 1);
    cloud.edge.stop().await;
}

#[tokio::test]
async fn the_control_record_and_documents_are_read_in_one_call() {
    let cloud = Cloud::start().await;
    let client = dynamo(&cloud, None, UsEast1).await;
    let control = DynamoControl::new(client.clone(), "control");
    let missing = control.read_with(&["change"]).await;
    assert!(matches!(missing, Err(StoreError::NoTable(_))), "{missing:?}");

    create_table(&client, "control").await;
    assert_eq!(control.read_with(&["change"]).await.unwrap(), (None, vec![None]));
    let record = ControlRecord::first(UsEast1.name(), "test", 7);
    assert_eq!(control.create(&record).await.unwrap(), Swap::Done);
    control.put_document("change", "{}").await.unwrap();
    let before = cloud.edge.tally().count(|_| true);
    let found = control.read_with(&["spec", "change"]).await.unwrap();
    assert_eq!(found, (Some(record), vec![None, Some("{}".to_owned())]));
    assert_eq!(cloud.edge.tally().count(|_| true), before + 1);
    cloud.edge.stop().await;
}

#[tokio::test]
async fn calls_are_counted_and_logged_by_source_region_service_and_operation() {
    let cloud = Cloud::start().await;
    let client = dynamo(&cloud, Some(UsEast2), UsEast1).await;
    create_table(&client, "plain").await;
    let sts = aws_sdk_sts::Client::new(&cloud.aws(None, UsWest2).await);
    sts.get_caller_identity().send().await.unwrap();
    let iam = aws_sdk_iam::Client::new(&cloud.aws(None, UsWest2).await);
    iam.list_roles().send().await.unwrap();
    cloud.network().cut(UsEast1);
    assert_eq!(put(&client, "plain").await, "broken");

    let expected = [
        ("us-east-2", "us-east-1", "dynamodb", "CreateTable"),
        ("outside", "us-west-2", "sts", "GetCallerIdentity"),
        ("outside", "us-east-1", "iam", "ListRoles"),
        ("us-east-2", "us-east-1", "dynamodb", "PutItem"),
    ]
    .map(|(source, region, service, operation)| Call {
        source: source.into(),
        region: region.into(),
        service: service.into(),
        operation: operation.into(),
        caller: None,
    });
    let tally = cloud.edge.tally().snapshot();
    assert_eq!(tally, expected.iter().cloned().map(|call| (call, 1)).collect());

    cloud.edge.stop().await;
    let log = std::fs::read_to_string(cloud.directory().join("edge.log")).unwrap();
    let lines: Vec<serde_json::Value> = log
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let logged: Vec<_> = lines
        .iter()
        .map(|line| {
            (
                line["operation"].as_str().unwrap(),
                line["status"].as_u64().unwrap(),
            )
        })
        .collect();
    assert_eq!(
        logged,
        [
            ("CreateTable", 200),
            ("GetCallerIdentity", 200),
            ("ListRoles", 200),
            ("PutItem", 0)
        ]
    );
}

#[tokio::test]
async fn large_objects_pass_through_whole() {
    const BYTES: usize = 48 * 1024 * 1024;
    let cloud = Cloud::start().await;
    let s3 = aws_sdk_s3::Client::new(&cloud.aws(None, UsEast1).await);
    s3.create_bucket().bucket("artifacts").send().await.unwrap();
    let body: Vec<u8> = (0..BYTES).map(|i| u8::try_from(i % 251).unwrap()).collect();
    // Not by the SDK, which takes longer over its checksums, unoptimised, than one attempt may last.
    let put = reqwest::Client::builder().no_proxy().build().unwrap();
    let response = put
        .put(format!("{}/artifacts/large.zip", cloud.endpoint(None)))
        .header("authorization", signature(UsEast1, "s3"))
        .header("x-amz-content-sha256", "UNSIGNED-PAYLOAD")
        .body(body.clone())
        .send()
        .await
        .unwrap();
    assert_eq!(response.status(), 200);
    let got = s3
        .get_object()
        .bucket("artifacts")
        .key("large.zip")
        .send()
        .await
        .unwrap();
    assert!(got.body.collect().await.unwrap().into_bytes() == body);
    cloud.edge.stop().await;
}

#[tokio::test]
async fn the_emulators_own_interface_and_unsigned_calls_are_refused() {
    let cloud = Cloud::start().await;
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let post = |path: &str, signed: bool| {
        let mut request = client.post(format!("{}{path}", cloud.endpoint(None)));
        if signed {
            request = request.header("authorization", signature(UsEast1, "s3"));
        }
        async { request.send().await.unwrap().status().as_u16() }
    };
    assert_eq!(post("/_ministack/reset", true).await, 404);
    assert_eq!(post("/%5fministack/reset", true).await, 404);
    assert_eq!(post("/_ministack/reset", false).await, 403);
    assert_eq!(post("/bucket", false).await, 403);
    cloud.edge.stop().await;
}
