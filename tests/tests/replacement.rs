//! What cannot be changed in place: what is left as it is, what is made anew and when, and what becomes of the old one.

use std::time::Duration;

use bootstrap::local::edge::is_read;
use bootstrap::stack::Stack;
use continuity::names::Slot;
use serde_json::{Value, json};
use understudy_tests::deployment::Deployment;
use understudy_tests::{CloudFolder, EdgeCall};

const PATIENCE: Duration = Duration::from_secs(30);

/// What another network or domain is asked of.
const FIRST: &str = "domain = \"one.example.com\"\nnetwork.zones = 3\n";

/// What would be replaced, each with whether it holds data.
fn replaced(plan: &Value) -> Vec<(&str, bool)> {
    let resources = plan["resources"].as_array().expect("a list").iter();
    let replaced = resources.filter(|one| one["change"] == "replace");
    replaced
        .map(|one| (one["key"].as_str().expect("a key"), one["holds_data"] == true))
        .collect()
}

/// The standby's cluster and its instance, as somebody made them by hand: in a subnet group of their own.
async fn move_cluster(stack: &Stack) {
    let region = "us-east-2";
    let (rds, ec2) = (stack.cloud.rds(region), stack.cloud.ec2(region));
    let identifier = stack.names().aurora_cluster(Slot::Dr);
    let described = rds
        .describe_db_clusters()
        .db_cluster_identifier(&identifier)
        .send()
        .await;
    let cluster = described
        .expect("it is there")
        .db_clusters
        .expect("a list")
        .remove(0);
    let member = cluster.db_cluster_members()[0]
        .db_instance_identifier()
        .expect("a name")
        .to_owned();
    let gone = rds
        .delete_db_instance()
        .db_instance_identifier(&member)
        .skip_final_snapshot(true)
        .send()
        .await;
    gone.expect("it goes");
    let global = stack.names().aurora_global();
    let left = rds
        .remove_from_global_cluster()
        .global_cluster_identifier(&global)
        .db_cluster_identifier(cluster.db_cluster_arn().expect("an ARN"))
        .send()
        .await;
    left.expect("it leaves");
    let gone = rds
        .delete_db_cluster()
        .db_cluster_identifier(&identifier)
        .skip_final_snapshot(true)
        .send()
        .await;
    gone.expect("it goes");
    let subnets = ec2.describe_subnets().send().await.expect("it answers");
    let ours = subnets
        .subnets()
        .iter()
        .filter(|subnet| !subnet.tags().is_empty());
    let ours = ours
        .filter_map(|subnet| subnet.subnet_id().map(str::to_owned))
        .collect();
    let group = rds
        .create_db_subnet_group()
        .db_subnet_group_name("by-hand")
        .db_subnet_group_description("by hand")
        .set_subnet_ids(Some(ours))
        .send()
        .await;
    group.expect("it is made");
    let tag = |key: &str, value: &str| aws_sdk_rds::types::Tag::builder().key(key).value(value).build();
    let made = rds
        .create_db_cluster()
        .db_cluster_identifier(&identifier)
        .global_cluster_identifier(&global)
        .engine("aurora-postgresql")
        .engine_version(cluster.engine_version().expect("a version"))
        .db_subnet_group_name("by-hand")
        .storage_encrypted(true)
        .kms_key_id(cluster.kms_key_id().expect("a key"))
        .tags(tag("understudy:stack", "dev"))
        .tags(tag("understudy:resource", "db-cluster.dr"))
        .send()
        .await;
    made.expect("it is made");
    let made = rds
        .create_db_instance()
        .db_instance_identifier(&member)
        .db_cluster_identifier(&identifier)
        .db_instance_class("db.r6g.large")
        .engine("aurora-postgresql")
        .tags(tag("understudy:stack", "dev"))
        .tags(tag("understudy:resource", "db-instance.1.dr"))
        .send()
        .await;
    made.expect("it is made");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_changed_in_place_is_left_or_made_anew_as_told_and_a_teardown_takes_what_was_left_behind()
 {
    continuity::aws::install_tls();
    let folder = CloudFolder::new();
    let deployment = Deployment::new(&folder);
    deployment.configure(FIRST);
    deployment.up(&[]);

    // Another network is another database: neither is touched.
    deployment.configure(&format!("{FIRST}network.primary_cidr = \"10.70.0.0/16\"\n"));
    let plan = deployment.plan();
    let replaced_by_network = replaced(&plan);
    for one in [
        ("vpc.primary", false),
        ("db-cluster.primary", true),
        ("db-instance.1.primary", false),
    ] {
        assert!(
            replaced_by_network.contains(&one),
            "{one:?} is not in {replaced_by_network:?}"
        );
    }
    let before = EdgeCall::read(&folder).len();
    let said = deployment.refused(&[]);
    assert!(
        said.contains("`network.primary_cidr` breaks the rule `fixed`")
            && said.contains("leave it \"10.0.0.0/16\""),
        "{said}"
    );
    let calls = &EdgeCall::read(&folder)[before..];
    let written: Vec<&EdgeCall> = calls
        .iter()
        .filter(|call| call.is_by_hand() && !is_read(&call.operation))
        .collect();
    assert!(written.is_empty(), "{written:?}");

    // Another domain is another zone; the old one serves until it is pruned.
    let second = FIRST
        .replace("one.example.com", "two.example.com")
        .replace("zones = 3", "zones = 2");
    deployment.configure(&second);
    let deployed = deployment.up(&[]);
    let strangers: Vec<&str> = deployed["strangers"]
        .as_array()
        .expect("a list")
        .iter()
        .filter_map(|one| one["key"].as_str())
        .collect();
    for key in [
        "api-domain.one.example.com.dr",
        "api-domain.one.example.com.primary",
        "certificate.one.example.com.dr",
        "certificate.one.example.com.primary",
        "hosted-zone.one.example.com",
        "subnet.c.dr",
        "subnet.c.primary",
    ] {
        assert!(strangers.contains(&key), "`{key}` is not among {strangers:?}");
    }
    assert_eq!(strangers.len(), 7, "{strangers:?}");

    // A database that is not as configured is left, and made anew only when told to.
    let (stack, _) = deployment.stack(&second).await;
    move_cluster(&stack).await;
    assert_eq!(
        replaced(&deployment.plan()),
        [("db-cluster.dr", true), ("db-instance.1.dr", false)]
    );
    let said = deployment.refused(&[]);
    assert!(
        said.contains("`understudy up --replace db-cluster.dr` deletes it with its data"),
        "{said}"
    );
    let deployed = deployment.up(&["--replace", "db-cluster.dr"]);
    assert!(
        deployed["changed"]
            .as_array()
            .expect("keys")
            .contains(&json!("db-cluster.dr")),
        "{deployed}"
    );
    assert_eq!(replaced(&deployment.plan()), []);
    let (stack, _) = deployment.stack(&second).await;
    let customer = bootstrap::demo::customer(&stack).await.expect("it has a key");
    customer
        .open_account("after", "EUR", None, PATIENCE)
        .await
        .expect("it serves");
    let group = stack
        .cloud
        .rds("us-east-2")
        .delete_db_subnet_group()
        .db_subnet_group_name("by-hand");
    group.send().await.expect("nobody uses it");

    // The zone of the first domain and the subnets of the third zone were never pruned.
    let gone = deployment.down();
    assert_eq!(gone["left_over"], json!([]));
}
