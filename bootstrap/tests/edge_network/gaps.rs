//! Each bridge of the edge is there because the emulator lacks something. These tests show that it is bridged, and fail
//! when the emulator does it by itself: then the bridge can go.

use aws_sdk_dynamodb::types::{MultiRegionConsistency, PointInTimeRecoverySpecification, WitnessStatus};
use aws_sdk_ec2::types::{ResourceType, Tag, TagSpecification, VpcEndpoint, VpcEndpointType};
use aws_sdk_iam::types::{ContextEntry, ContextKeyTypeEnum};
use aws_sdk_rds::types::CloudwatchLogsExportConfiguration;
use aws_sdk_resourcegroupstagging::types::TagFilter;
use aws_sdk_sfn::types::{ExecutionStatus, HistoryEventType};
use bootstrap::local::{
    Region::{UsEast1, UsEast2, UsWest2},
    python,
};
use infra::kind::{Kind, Site};
use infra::resources::db_cluster::DbCluster;
use infra::resources::db_snapshot::{self, DbSnapshot};

use crate::{
    calls::create_strong_table,
    cloud::{Cloud, eventually},
    names::public_name,
};

const BRIDGE_CAN_GO: &str = "the emulator does this itself now: remove the bridge";

#[tokio::test]
async fn strong_global_tables_are_described_with_their_witness() {
    let cloud = Cloud::start().await;
    let edge = aws_sdk_dynamodb::Client::new(&cloud.aws(None, UsEast1).await);
    create_strong_table(&edge, "journal").await;
    for region in [UsEast1, UsEast2] {
        let edge = aws_sdk_dynamodb::Client::new(&cloud.aws(None, region).await);
        let table = edge
            .describe_table()
            .table_name("journal")
            .send()
            .await
            .unwrap()
            .table
            .unwrap();
        assert_eq!(
            table.multi_region_consistency,
            Some(MultiRegionConsistency::Strong)
        );
        let witness = &table.global_table_witnesses()[0];
        assert_eq!(witness.region_name(), Some(UsWest2.name()));
        assert_eq!(witness.witness_status(), Some(&WitnessStatus::Active));

        let bare = aws_sdk_dynamodb::Client::new(&cloud.bare(region).await);
        let table = bare
            .describe_table()
            .table_name("journal")
            .send()
            .await
            .unwrap()
            .table
            .unwrap();
        assert_eq!(table.multi_region_consistency, None, "{BRIDGE_CAN_GO}");
        assert!(table.global_table_witnesses().is_empty(), "{BRIDGE_CAN_GO}");
    }
    edge.delete_table().table_name("journal").send().await.unwrap();
    cloud.edge.stop().await;
}

/// The calls of the recovery workflow, as the coordinator makes them.
#[tokio::test]
async fn a_lost_tail_is_kept_opened_closed_and_goes_with_the_stack() {
    let cloud = Cloud::start().await;
    let sdk = cloud.aws(None, UsEast1).await;
    let home = aws_sdk_rds::Client::new(&sdk);
    let engine = "aurora-postgresql";
    let cluster = "aurora-primary-dev";
    home.create_global_cluster()
        .global_cluster_identifier("aurora-dev")
        .engine(engine)
        .send()
        .await
        .unwrap();
    home.create_db_cluster()
        .db_cluster_identifier(cluster)
        .global_cluster_identifier("aurora-dev")
        .engine(engine)
        .master_username("understudy")
        .master_user_password("a+b & c%")
        .kms_key_id("arn:aws:kms:us-east-1:000000000000:key/k")
        .storage_encrypted(true)
        .send()
        .await
        .unwrap();
    home.create_db_instance()
        .db_instance_identifier("aurora-primary-dev-1")
        .db_cluster_identifier(cluster)
        .db_instance_class("db.r6g.large")
        .engine(engine)
        .send()
        .await
        .unwrap();
    cloud
        .mirror
        .kept
        .lock()
        .unwrap()
        .push((UsEast1, 1_795_744_800_000));

    let clients = infra::cloud::Cloud::new(sdk);
    let key = db_snapshot::key(continuity::names::Slot::Primary);
    let site = Site {
        cloud: &clients,
        region: UsEast1.name(),
        key: &key,
        suffix: "dev",
        account: "000000000000",
        extra_tags: &[],
    };
    let made = db_snapshot::after_failovers(&site, cluster).await.unwrap();
    assert_eq!(made.len(), 1);
    assert_eq!((made[0].created_ms, made[0].available), (1_795_744_800_000, true));
    let (kept, restored) = ("lost-tail-primary-dev-2", "aurora-tail-2-primary-dev");
    assert!(!db_snapshot::is_there(&site, kept).await.unwrap());
    let mut looks = 0;
    while !db_snapshot::keep(&site, &made[0].name, kept, cluster)
        .await
        .unwrap()
    {
        looks += 1;
        assert!(looks < 10);
    }
    assert!(db_snapshot::is_there(&site, kept).await.unwrap());
    let endpoint = loop {
        looks += 1;
        assert!(looks < 20);
        if let Some(endpoint) = db_snapshot::open(&site, kept, restored, cluster).await.unwrap() {
            break endpoint;
        }
    };
    let main = cloud.edge.addresses().databases[&UsEast1];
    assert_ne!(endpoint.port, main.port(), "a server of its own");

    let snapshots = DbSnapshot::list(&site).await.unwrap();
    assert_eq!(snapshots.len(), 1, "the manual one: {snapshots:?}");
    assert_eq!(
        (snapshots[0].id.as_str(), &snapshots[0].key),
        (kept, &Some(key.clone()))
    );
    let clusters = DbCluster::list(&site).await.unwrap();
    let tail = clusters.iter().find(|found| found.id == restored);
    assert_eq!(tail.map(|found| &found.key), Some(&Some(key.clone())));

    while !db_snapshot::close(&site, restored).await.unwrap() {
        looks += 1;
        assert!(looks < 30);
    }
    assert!(
        DbCluster::list(&site)
            .await
            .unwrap()
            .iter()
            .all(|found| found.id != restored)
    );
    let members = home.describe_global_clusters().send().await.unwrap();
    assert_eq!(members.global_clusters()[0].global_cluster_members().len(), 1);
    // Aurora's own snapshot goes with its cluster, the copy by itself.
    home.delete_db_instance()
        .db_instance_identifier("aurora-primary-dev-1")
        .send()
        .await
        .unwrap();
    while DbCluster::discard(&site, cluster).await.is_err()
        || DbCluster::list(&site)
            .await
            .unwrap()
            .iter()
            .any(|found| found.id == cluster)
    {
        looks += 1;
        assert!(looks < 60);
    }
    assert!(
        db_snapshot::after_failovers(&site, cluster)
            .await
            .unwrap()
            .is_empty()
    );
    assert_eq!(DbSnapshot::list(&site).await.unwrap().len(), 1, "the copy");
    DbSnapshot::discard(&site, kept).await.unwrap();
    DbSnapshot::discard(&site, kept).await.unwrap();
    assert!(DbSnapshot::list(&site).await.unwrap().is_empty());
    cloud.edge.stop().await;
}

#[tokio::test]
async fn what_an_unplanned_failover_lost_is_a_snapshot_that_can_be_copied_and_restored() {
    let cloud = Cloud::start().await;
    let home = aws_sdk_rds::Client::new(&cloud.aws(None, UsEast1).await);
    let engine = "aurora-postgresql";
    home.create_global_cluster()
        .global_cluster_identifier("aurora")
        .engine(engine)
        .send()
        .await
        .unwrap();
    home.create_db_cluster()
        .db_cluster_identifier("aurora-primary")
        .global_cluster_identifier("aurora")
        .engine(engine)
        .master_username("understudy")
        .master_user_password("a+b & c%")
        .send()
        .await
        .unwrap();
    let automated = async || {
        let snapshots = home
            .describe_db_cluster_snapshots()
            .db_cluster_identifier("aurora-primary")
            .snapshot_type("automated")
            .send()
            .await
            .unwrap();
        snapshots.db_cluster_snapshots.unwrap()
    };
    assert!(automated().await.is_empty());
    // 2026-11-27 02:00:00 UTC
    cloud
        .mirror
        .kept
        .lock()
        .unwrap()
        .push((UsEast1, 1_795_744_800_000));
    let found = automated().await;
    let name = "rds:unplanned-global-failover-aurora-primary-2026-11-27-02-00-00";
    assert_eq!(found.len(), 1);
    assert_eq!(found[0].db_cluster_snapshot_identifier(), Some(name));
    assert_eq!(automated().await.len(), 1, "it is recorded once");

    let tag = aws_sdk_rds::types::Tag::builder().key("k").value("v").build();
    let copied = home
        .copy_db_cluster_snapshot()
        .source_db_cluster_snapshot_identifier(found[0].db_cluster_snapshot_arn().unwrap())
        .target_db_cluster_snapshot_identifier("kept")
        .tags(tag.clone())
        .send()
        .await
        .unwrap()
        .db_cluster_snapshot
        .unwrap();
    assert_eq!(copied.snapshot_type(), Some("manual"));
    assert_eq!(copied.status(), Some("available"));
    assert_eq!(copied.tag_list(), [tag]);
    let again = home
        .copy_db_cluster_snapshot()
        .source_db_cluster_snapshot_identifier(name)
        .target_db_cluster_snapshot_identifier("kept")
        .send()
        .await
        .unwrap_err()
        .into_service_error();
    assert!(again.is_db_cluster_snapshot_already_exists_fault(), "{again}");

    let restored = home
        .restore_db_cluster_from_snapshot()
        .db_cluster_identifier("tail")
        .snapshot_identifier("kept")
        .engine(engine)
        .send()
        .await
        .unwrap()
        .db_cluster
        .unwrap();
    let main = cloud.edge.addresses().databases[&UsEast1];
    assert_eq!(restored.endpoint(), Some(main.ip().to_string().as_str()));
    assert_ne!(
        restored.port(),
        Some(i32::from(main.port())),
        "a server of its own"
    );
    let described = home.describe_db_clusters().send().await.unwrap();
    for cluster in described.db_clusters() {
        let own = cluster.db_cluster_identifier() == Some("tail");
        let port = if own {
            restored.port()
        } else {
            Some(main.port().into())
        };
        assert_eq!(cluster.port(), port, "{:?}", cluster.db_cluster_identifier());
    }
    home.delete_db_cluster()
        .db_cluster_identifier("tail")
        .skip_final_snapshot(true)
        .send()
        .await
        .unwrap();
    home.delete_db_cluster_snapshot()
        .db_cluster_snapshot_identifier("kept")
        .send()
        .await
        .unwrap();
    assert_eq!(
        cloud.mirror.told()[1..],
        ["restore us-east-1 1795744800000 tail", "discard us-east-1 tail"]
    );

    // A snapshot whose data nobody has is not restored to an empty database.
    home.create_db_cluster_snapshot()
        .db_cluster_identifier("aurora-primary")
        .db_cluster_snapshot_identifier("by-hand")
        .send()
        .await
        .unwrap();
    let refused = home
        .restore_db_cluster_from_snapshot()
        .db_cluster_identifier("tail")
        .snapshot_identifier("by-hand")
        .engine(engine)
        .send()
        .await;
    assert!(refused.is_err());
    let described = home.describe_db_clusters().send().await.unwrap();
    assert_eq!(described.db_clusters().len(), 1, "what was refused is not there");

    let missing = home
        .restore_db_cluster_from_snapshot()
        .db_cluster_identifier("tail")
        .snapshot_identifier("nothing")
        .engine(engine)
        .send()
        .await
        .unwrap_err();
    let code = aws_sdk_rds::error::ProvideErrorMetadata::code(&missing).map(str::to_owned);
    assert_eq!(code.as_deref(), Some("DBClusterSnapshotNotFoundFault"));
    cloud.edge.stop().await;
}

#[tokio::test]
async fn rds_calls_reach_the_servers_and_name_their_addresses() {
    let cloud = Cloud::start().await;
    let home = aws_sdk_rds::Client::new(&cloud.aws(None, UsEast1).await);
    let dr = aws_sdk_rds::Client::new(&cloud.aws(None, UsEast2).await);
    let engine = "aurora-postgresql";
    home.create_global_cluster()
        .global_cluster_identifier("aurora")
        .engine(engine)
        .send()
        .await
        .unwrap();
    let created = home
        .create_db_cluster()
        .db_cluster_identifier("aurora-primary")
        .global_cluster_identifier("aurora")
        .engine(engine)
        .master_username("understudy")
        .master_user_password("a+b & c%")
        .database_name("payments")
        .send()
        .await
        .unwrap();
    let database = cloud.edge.addresses().databases[&UsEast1];
    let cluster = created.db_cluster.unwrap();
    assert_eq!(cluster.endpoint, Some(database.ip().to_string()));
    assert_eq!(cluster.reader_endpoint, Some(database.ip().to_string()));
    assert_eq!(cluster.port, Some(database.port().into()));
    let instance = home
        .create_db_instance()
        .db_instance_identifier("aurora-primary-1")
        .db_cluster_identifier("aurora-primary")
        .db_instance_class("db.r6g.large")
        .engine(engine)
        .send()
        .await
        .unwrap();
    drop(instance);
    let described = home.describe_db_instances().send().await.unwrap();
    let endpoint = described.db_instances()[0].endpoint().unwrap();
    assert_eq!(endpoint.address(), Some(database.ip().to_string().as_str()));
    assert_eq!(endpoint.port(), Some(database.port().into()));
    dr.create_db_cluster()
        .db_cluster_identifier("aurora-dr")
        .global_cluster_identifier("aurora")
        .engine(engine)
        .send()
        .await
        .unwrap();
    let described = dr.describe_db_clusters().send().await.unwrap();
    let standby = &described.db_clusters()[0];
    assert_eq!(
        standby.port,
        Some(cloud.edge.addresses().databases[&UsEast2].port().into())
    );
    assert_eq!(standby.endpoint, Some(UsEast2.address().to_string()));

    let bare = aws_sdk_rds::Client::new(&cloud.bare(UsEast1).await);
    let described = bare.describe_db_clusters().send().await.unwrap();
    let own = described.db_clusters()[0].endpoint().unwrap_or_default();
    // The emulator's own answer leads nowhere: either its own host name or one of AWS.
    assert!(
        tokio::net::TcpStream::connect((own, 5432)).await.is_err(),
        "{BRIDGE_CAN_GO}: {own}"
    );

    home.modify_db_cluster()
        .db_cluster_identifier("aurora-primary")
        .master_user_password("another1")
        .apply_immediately(true)
        .send()
        .await
        .unwrap();
    let arn = |region, name: &str| format!("arn:aws:rds:{region}:000000000000:cluster:{name}");
    home.switchover_global_cluster()
        .global_cluster_identifier("aurora")
        .target_db_cluster_identifier(arn(UsEast2, "aurora-dr"))
        .send()
        .await
        .unwrap();
    home.failover_global_cluster()
        .global_cluster_identifier("aurora")
        .target_db_cluster_identifier(arn(UsEast1, "aurora-primary"))
        .allow_data_loss(true)
        .send()
        .await
        .unwrap();
    assert_eq!(
        cloud.mirror.told(),
        [
            "create us-east-1 understudy a+b & c% payments",
            "password understudy another1",
            "switchover us-east-2",
            "failover us-east-1 true",
        ]
    );
    cloud.edge.stop().await;
}

#[tokio::test]
async fn a_change_that_the_servers_do_not_follow_is_an_error_and_changes_nothing() {
    let cloud = Cloud::start().await;
    let home = aws_sdk_rds::Client::new(&cloud.aws(None, UsEast1).await);
    let dr = aws_sdk_rds::Client::new(&cloud.aws(None, UsEast2).await);
    let engine = "aurora-postgresql";
    home.create_global_cluster()
        .global_cluster_identifier("aurora")
        .engine(engine)
        .send()
        .await
        .unwrap();
    let create = || {
        home.create_db_cluster()
            .db_cluster_identifier("aurora-primary")
            .global_cluster_identifier("aurora")
            .engine(engine)
            .master_username("understudy")
            .master_user_password("password1")
            .send()
    };
    let refuse = |refuses| {
        cloud
            .mirror
            .refuses
            .store(refuses, std::sync::atomic::Ordering::Relaxed)
    };
    refuse(true);
    let error = create().await.unwrap_err().into_service_error();
    assert_eq!(error.meta().code(), Some("InvalidDBClusterStateFault"));
    assert_eq!(error.meta().message(), Some("told to refuse"));
    refuse(false);
    create().await.unwrap();
    dr.create_db_cluster()
        .db_cluster_identifier("aurora-dr")
        .global_cluster_identifier("aurora")
        .engine(engine)
        .send()
        .await
        .unwrap();

    let failover = || {
        dr.failover_global_cluster()
            .global_cluster_identifier("aurora")
            .target_db_cluster_identifier("arn:aws:rds:us-east-2:000000000000:cluster:aurora-dr")
            .allow_data_loss(true)
            .send()
    };
    let writer = async || {
        let described = dr.describe_global_clusters().send().await.unwrap();
        let members = described.global_clusters()[0].global_cluster_members();
        members
            .iter()
            .find(|member| member.is_writer() == Some(true))
            .unwrap()
            .db_cluster_arn()
            .unwrap()
            .to_owned()
    };
    refuse(true);
    failover().await.unwrap_err();
    assert!(writer().await.ends_with(":aurora-primary"));
    refuse(false);
    failover().await.unwrap();
    assert!(writer().await.ends_with(":aurora-dr"));
    cloud.edge.stop().await;
}

#[tokio::test]
async fn health_checks_are_answered_with_booleans_that_an_sdk_reads() {
    let cloud = Cloud::start().await;
    let apis = ["home1".to_owned(), "dr1".to_owned()];
    let public = public_name(&cloud, &apis).await;
    let edge = aws_sdk_route53::Client::new(&cloud.aws(None, UsEast1).await);
    let check = edge
        .get_health_check()
        .health_check_id(&public.checks[0])
        .send()
        .await
        .unwrap();
    let config = check.health_check.unwrap().health_check_config.unwrap();
    assert_eq!(config.enable_sni, Some(true));
    let bare = aws_sdk_route53::Client::new(&cloud.bare(UsEast1).await);
    let read = bare
        .get_health_check()
        .health_check_id(&public.checks[0])
        .send()
        .await;
    assert!(read.is_err(), "{BRIDGE_CAN_GO}");
    cloud.edge.stop().await;
}

#[tokio::test]
async fn clusters_say_which_logs_they_export() {
    let cloud = Cloud::start().await;
    let rds = aws_sdk_rds::Client::new(&cloud.aws(None, UsEast1).await);
    rds.create_db_cluster()
        .db_cluster_identifier("logs")
        .engine("aurora-postgresql")
        .master_username("understudy")
        .master_user_password("a-password")
        .enable_cloudwatch_logs_exports("postgresql")
        .send()
        .await
        .unwrap();
    let exports = async || {
        let answer = rds.describe_db_clusters().db_cluster_identifier("logs").send();
        answer.await.unwrap().db_clusters()[0]
            .enabled_cloudwatch_logs_exports()
            .to_vec()
    };
    assert_eq!(exports().await, ["postgresql"]);
    let none = CloudwatchLogsExportConfiguration::builder()
        .disable_log_types("postgresql")
        .build();
    rds.modify_db_cluster()
        .db_cluster_identifier("logs")
        .cloudwatch_logs_export_configuration(none)
        .send()
        .await
        .unwrap();
    assert_eq!(exports().await, Vec::<String>::new());
    cloud.edge.stop().await;
}

#[tokio::test]
async fn endpoints_say_how_they_are_attached_and_who_may_use_them() {
    let cloud = Cloud::start().await;
    let ec2 = aws_sdk_ec2::Client::new(&cloud.aws(None, UsEast1).await);
    let endpoint = async || -> VpcEndpoint {
        let answer = ec2.describe_vpc_endpoints().send().await.unwrap();
        answer.vpc_endpoints.unwrap().remove(0)
    };
    ec2.create_vpc_endpoint()
        .vpc_id("vpc-1")
        .service_name("com.amazonaws.us-east-1.secretsmanager")
        .vpc_endpoint_type(VpcEndpointType::Interface)
        .private_dns_enabled(true)
        .security_group_ids("sg-1")
        .send()
        .await
        .unwrap();
    let made = endpoint().await;
    assert_eq!(made.private_dns_enabled(), Some(true));
    assert_eq!(made.groups()[0].group_id(), Some("sg-1"));
    let open = made.policy_document().unwrap().to_owned();
    assert!(open.contains(r#""Action":"*""#), "{open}");
    let nothing = r#"{"Statement":[]}"#;
    let change = || {
        ec2.modify_vpc_endpoint()
            .vpc_endpoint_id(made.vpc_endpoint_id().unwrap())
    };
    change()
        .private_dns_enabled(false)
        .policy_document(nothing)
        .send()
        .await
        .unwrap();
    let changed = endpoint().await;
    assert_eq!(changed.private_dns_enabled(), Some(false));
    assert_eq!(changed.policy_document(), Some(nothing));
    change().reset_policy(true).send().await.unwrap();
    assert_eq!(endpoint().await.policy_document(), Some(open.as_str()));
    cloud.edge.stop().await;
}

#[tokio::test]
async fn instances_take_another_word_on_minor_upgrades() {
    let cloud = Cloud::start().await;
    let rds = aws_sdk_rds::Client::new(&cloud.aws(None, UsEast1).await);
    rds.create_db_instance()
        .db_instance_identifier("one")
        .db_instance_class("db.r6g.large")
        .engine("aurora-postgresql")
        .auto_minor_version_upgrade(false)
        .send()
        .await
        .unwrap();
    rds.modify_db_instance()
        .db_instance_identifier("one")
        .auto_minor_version_upgrade(true)
        .send()
        .await
        .unwrap();
    let answer = rds.describe_db_instances().send().await.unwrap();
    assert_eq!(answer.db_instances()[0].auto_minor_version_upgrade(), Some(true));
    cloud.edge.stop().await;
}

#[tokio::test]
async fn tables_say_how_many_days_back_they_can_be_restored() {
    let cloud = Cloud::start().await;
    let edge = aws_sdk_dynamodb::Client::new(&cloud.aws(None, UsEast1).await);
    create_strong_table(&edge, "journal").await;
    let put = async |days: Option<i32>| {
        let recovery = PointInTimeRecoverySpecification::builder()
            .point_in_time_recovery_enabled(true)
            .set_recovery_period_in_days(days)
            .build();
        let request = edge.update_continuous_backups().table_name("journal");
        let request = request.point_in_time_recovery_specification(recovery.unwrap());
        request.send().await.unwrap();
        let answer = edge
            .describe_continuous_backups()
            .table_name("journal")
            .send()
            .await;
        let description = answer.unwrap().continuous_backups_description.unwrap();
        description
            .point_in_time_recovery_description
            .unwrap()
            .recovery_period_in_days
    };
    assert_eq!(put(Some(7)).await, Some(7));
    assert_eq!(put(None).await, Some(35));
    cloud.edge.stop().await;
}

/// Asked of ministack without what `gaps.py` adds: which fields of an endpoint it shows, whether an instance took another word on
/// minor upgrades, which operations on snapshots it has, whether it simulates a role with a path, and what becomes of an execution
/// that was stopped and goes on.
const WITHOUT_BRIDGES: &str = r#"
from ministack.services import ec2, iam, rds, stepfunctions

ec2._create_vpc_endpoint({"VpcEndpointType": ["Interface"], "SecurityGroupId.1": ["sg-1"], "PrivateDnsEnabled": ["true"]})
described = ec2._describe_vpc_endpoints({})[2]
described = described if isinstance(described, str) else described.decode()
print([name for name in ("groupSet", "privateDnsEnabled", "policyDocument") if name in described])
name = ["one"]
rds._create_db_instance({"DBInstanceIdentifier": name, "DBInstanceClass": ["db.r6g.large"], "Engine": ["aurora-postgresql"],
    "AutoMinorVersionUpgrade": ["false"]})
rds._modify_db_instance({"DBInstanceIdentifier": name, "AutoMinorVersionUpgrade": ["true"]})
print(rds._instances.get("one")["AutoMinorVersionUpgrade"])
print([name for name in ("CopyDBClusterSnapshot", "RestoreDBClusterFromSnapshot") if name in rds._ACTION_MAP])
may = '{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"sns:Publish","Resource":"*"}]}'
iam._create_role({"RoleName": ["one"], "Path": ["/ours/"], "AssumeRolePolicyDocument": ["{}"]})
iam._put_role_policy({"RoleName": ["one"], "PolicyName": ["may"], "PolicyDocument": [may]})
asked = {"PolicySourceArn": ["arn:aws:iam::000000000000:role/ours/one"], "ActionNames.member.1": ["sns:Publish"]}
answer = iam._simulate_principal_policy(asked)[2]
print("allowed" in (answer if isinstance(answer, str) else answer.decode()))
stopped = {"status": "ABORTED", "events": [], "executionArn": "arn:aws:states:us-east-1:000000000000:execution:one:one",
    "stateMachineArn": "arn:aws:states:us-east-1:000000000000:stateMachine:one", "name": "one", "input": "{}", "startDate": 0}
stepfunctions._fail_execution(stopped, "Late", "it went on")
print(stopped["status"])
"#;

#[tokio::test]
async fn what_a_role_with_a_path_may_do_is_what_its_policies_and_their_conditions_say() {
    let cloud = Cloud::start().await;
    let iam = aws_sdk_iam::Client::new(&cloud.aws(None, UsEast1).await);
    let role = iam.create_role().role_name("one").path("/ours/");
    let role = role.assume_role_policy_document("{}").send().await.unwrap();
    let may = r#"{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"sns:Publish","Resource":"*"},
        {"Effect":"Allow","Action":"kms:Decrypt","Resource":"*","Condition":{"StringEquals":{"kms:ViaService":"s3"}}},
        {"Effect":"Allow","Action":"dynamodb:PutItem","Resource":"*",
         "Condition":{"ForAllValues:StringEquals":{"dynamodb:LeadingKeys":["mine"]}}}]}"#;
    let put = iam.put_role_policy().role_name("one").policy_name("may");
    put.policy_document(may).send().await.unwrap();
    let via = |value: &str| ("kms:ViaService", ContextKeyTypeEnum::String, value.to_owned());
    let key = |value: &str| {
        (
            "dynamodb:LeadingKeys",
            ContextKeyTypeEnum::StringList,
            value.to_owned(),
        )
    };
    for (action, carried, decision) in [
        ("sns:Publish", None, "allowed"),
        ("sns:Subscribe", None, "implicitDeny"),
        ("kms:Decrypt", None, "implicitDeny"),
        ("kms:Decrypt", Some(via("sns")), "implicitDeny"),
        ("kms:Decrypt", Some(via("s3")), "allowed"),
        ("dynamodb:PutItem", Some(key("yours")), "implicitDeny"),
        ("dynamodb:PutItem", Some(key("mine")), "allowed"),
    ] {
        let told = format!("{action} {carried:?}");
        let entries = carried.map(|(key, kind, value)| {
            let entry = ContextEntry::builder()
                .context_key_name(key)
                .context_key_type(kind);
            vec![entry.context_key_values(value).build()]
        });
        let answer = iam
            .simulate_principal_policy()
            .policy_source_arn(role.role().unwrap().arn())
            .action_names(action)
            .set_context_entries(entries)
            .send()
            .await
            .unwrap();
        let decided = answer.evaluation_results()[0].eval_decision().as_str();
        assert_eq!(decided, decision, "{told}");
    }
    cloud.edge.stop().await;
}

#[tokio::test]
async fn the_tagging_api_lists_a_subnet_while_it_exists() {
    let cloud = Cloud::start().await;
    let aws = cloud.aws(None, UsEast1).await;
    let (ec2, tagging) = (
        aws_sdk_ec2::Client::new(&aws),
        aws_sdk_resourcegroupstagging::Client::new(&aws),
    );
    let vpc = ec2.create_vpc().cidr_block("10.9.0.0/16").send().await.unwrap();
    let vpc = vpc.vpc.unwrap().vpc_id.unwrap();
    let tag = Tag::builder().key("listed").value("yes").build();
    let tags = TagSpecification::builder()
        .resource_type(ResourceType::Subnet)
        .tags(tag)
        .build();
    let request = ec2.create_subnet().vpc_id(vpc).cidr_block("10.9.1.0/24");
    let subnet = request.tag_specifications(tags).send().await.unwrap();
    let subnet = subnet.subnet.unwrap().subnet_id.unwrap();
    let listed = async || -> Vec<String> {
        let filter = TagFilter::builder().key("listed").build();
        let answer = tagging.get_resources().tag_filters(filter).send().await;
        let found = answer.unwrap().resource_tag_mapping_list.unwrap_or_default();
        found.into_iter().filter_map(|one| one.resource_arn).collect()
    };
    assert_eq!(
        listed().await,
        [format!("arn:aws:ec2:us-east-1:000000000000:subnet/{subnet}")]
    );
    ec2.delete_subnet().subnet_id(&subnet).send().await.unwrap();
    assert_eq!(listed().await, Vec::<String>::new());
    cloud.edge.stop().await;
}

#[tokio::test]
async fn an_invocation_that_outlives_its_function_brings_no_log_group_back() {
    let cloud = Cloud::start().await;
    cloud.echo(UsEast1).await;
    let aws = cloud.aws(None, UsEast1).await;
    let (lambda, logs) = (
        aws_sdk_lambda::Client::new(&aws),
        aws_sdk_cloudwatchlogs::Client::new(&aws),
    );
    std::fs::write(cloud.hold(), "").unwrap();
    let invoke = lambda.invoke().function_name("echo").send();
    let invocation = tokio::spawn(invoke);
    let begun = cloud.directory().join("hold-begun");
    eventually("the function is asked", async || begun.exists()).await;
    lambda
        .delete_function()
        .function_name("echo")
        .send()
        .await
        .unwrap();
    std::fs::remove_file(cloud.hold()).unwrap();
    invocation.await.unwrap().unwrap();
    let groups = logs.describe_log_groups().send().await.unwrap();
    assert_eq!(groups.log_groups(), []);
    cloud.edge.stop().await;
}

#[tokio::test]
async fn a_stopped_execution_makes_no_further_attempt_and_stays_stopped() {
    let cloud = Cloud::start().await;
    let sfn = aws_sdk_sfn::Client::new(&cloud.aws(None, UsEast1).await);
    // A minute is three seconds here: enough to stop it between two attempts.
    let definition = serde_json::json!({"StartAt": "Try", "States": {"Try": {"Type": "Task", "End": true,
        "Resource": "arn:aws:lambda:us-east-1:000000000000:function:absent",
        "Retry": [{"ErrorEquals": ["States.ALL"], "IntervalSeconds": 60, "BackoffRate": 1, "MaxAttempts": 1}]}}});
    let create = sfn.create_state_machine().name("tries");
    let create = create.role_arn("arn:aws:iam::000000000000:role/tries");
    let created = create.definition(definition.to_string()).send().await.unwrap();
    let start = async || {
        let request = sfn
            .start_execution()
            .state_machine_arn(&created.state_machine_arn);
        request.send().await.unwrap().execution_arn
    };
    let failures = async |execution: &str| {
        let request = sfn.get_execution_history().execution_arn(execution);
        let events = request.send().await.unwrap().events;
        let failures = events
            .iter()
            .filter(|event| event.r#type == HistoryEventType::TaskFailed);
        failures.count()
    };
    let status = async |execution: &str| {
        let request = sfn.describe_execution().execution_arn(execution);
        request.send().await.unwrap().status
    };
    let stopped = start().await;
    eventually("the first attempt has failed", async || {
        failures(&stopped).await == 1
    })
    .await;
    sfn.stop_execution().execution_arn(&stopped).send().await.unwrap();
    // Begun later, so its second attempt comes later.
    let other = start().await;
    eventually("the other one has failed", async || {
        status(&other).await == ExecutionStatus::Failed
    })
    .await;
    assert_eq!((failures(&other).await, failures(&stopped).await), (2, 1));
    assert_eq!(status(&stopped).await, ExecutionStatus::Aborted);
    cloud.edge.stop().await;
}

#[tokio::test]
async fn without_its_bridges_the_emulator_forgets_copies_no_snapshot_and_goes_on_with_what_was_stopped() {
    let environment = python::ensure(&|_| {}).await.unwrap();
    let mut python = tokio::process::Command::new(environment.python());
    let output = python.args(["-c", WITHOUT_BRIDGES]).output().await.unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    let error = String::from_utf8_lossy(&output.stderr);
    assert_eq!(
        said.lines().collect::<Vec<_>>(),
        ["[]", "False", "[]", "False", "FAILED"],
        "{BRIDGE_CAN_GO}: {error}"
    );
}
