//! VPCs, subnets, routes, security groups, endpoints.

use aws_sdk_ec2::types::{AttributeBooleanValue, Filter, IpPermission, IpRange, Tag};

use crate::live::{Change, HOME, Live, STANDBY};
use crate::{differs, gone};

fn postgres_from_anywhere() -> IpPermission {
    IpPermission::builder()
        .ip_protocol("tcp")
        .from_port(5432)
        .to_port(5432)
        .ip_ranges(IpRange::builder().cidr_ip("0.0.0.0/0").build())
        .build()
}

fn value(on: bool) -> AttributeBooleanValue {
    AttributeBooleanValue::builder().value(on).build()
}

/// A way out of the VPC, and a route to it.
async fn to_the_internet(live: &Live) {
    let ec2 = live.cloud.ec2(HOME);
    let made = ec2.create_internet_gateway().send().await.unwrap();
    let gateway = made.internet_gateway.unwrap().internet_gateway_id.unwrap();
    let vpc = live.id(HOME, "vpc.primary").await;
    let request = ec2.attach_internet_gateway().internet_gateway_id(&gateway);
    request.vpc_id(vpc).send().await.unwrap();
    let table = live.id(HOME, "route-table.primary").await;
    let request = ec2.create_route().route_table_id(table).gateway_id(gateway);
    request.destination_cidr_block("0.0.0.0/0").send().await.unwrap();
}

async fn leave_a_subnet(live: &Live) {
    let ec2 = live.cloud.ec2(STANDBY);
    let table = live.id(STANDBY, "route-table.dr").await;
    let request = ec2.describe_route_tables().route_table_ids(table);
    let answer = request.send().await.unwrap();
    let associations = answer.route_tables()[0].associations();
    let one = associations.iter().find(|one| one.subnet_id().is_some()).unwrap();
    let request = ec2.disassociate_route_table();
    let request = request.association_id(one.route_table_association_id().unwrap());
    request.send().await.unwrap();
}

async fn close_the_way_out(live: &Live) {
    let ec2 = live.cloud.ec2(STANDBY);
    let group = live.id(STANDBY, "security-group.function.dr").await;
    let request = ec2.describe_security_groups().group_ids(&group);
    let answer = request.send().await.unwrap();
    let rules = answer.security_groups()[0].ip_permissions_egress().to_vec();
    let request = ec2.revoke_security_group_egress().group_id(group);
    request.set_ip_permissions(Some(rules)).send().await.unwrap();
}

pub fn changes() -> Vec<Change> {
    vec![
        differs!("vpc.primary", "dns_hostnames", false => true, |live| {
            let request = live.cloud.ec2(HOME).modify_vpc_attribute();
            let request = request.vpc_id(live.id(HOME, "vpc.primary").await);
            request.enable_dns_hostnames(value(false)).send().await.unwrap()
        }),
        differs!("subnet.a.primary", "tagged", false => true, |live| {
            let request = live.cloud.ec2(HOME).delete_tags();
            let request = request.resources(live.id(HOME, "subnet.a.primary").await);
            let request = request.tags(Tag::builder().key("CostCenter").build());
            request.send().await.unwrap()
        }),
        differs!("subnet.b.dr", "public_addresses", true => false, |live| {
            let request = live.cloud.ec2(STANDBY).modify_subnet_attribute();
            let request = request.subnet_id(live.id(STANDBY, "subnet.b.dr").await);
            request.map_public_ip_on_launch(value(true)).send().await.unwrap()
        }),
        differs!("route-table.primary", "routes", ["0.0.0.0/0"] => [""; 0], |live| to_the_internet(&live).await),
        differs!("route-table.dr", "subnet_ids", |live| leave_a_subnet(&live).await),
        differs!("security-group.database.primary", "ingress", |live| {
            let request = live.cloud.ec2(HOME).authorize_security_group_ingress();
            let request = request.group_id(live.id(HOME, "security-group.database.primary").await);
            request
                .ip_permissions(postgres_from_anywhere())
                .send()
                .await
                .unwrap()
        }),
        differs!("security-group.function.dr", "egress", |live| close_the_way_out(
            &live
        )
        .await),
        gone!("vpc-endpoint.s3.dr", |live| {
            let request = live.cloud.ec2(STANDBY).delete_vpc_endpoints();
            let request = request.vpc_endpoint_ids(live.id(STANDBY, "vpc-endpoint.s3.dr").await);
            request.send().await.unwrap()
        }),
        differs!("vpc-endpoint.secretsmanager.primary", "attachment", |live| {
            let request = live.cloud.ec2(HOME).modify_vpc_endpoint();
            let request = request.vpc_endpoint_id(live.id(HOME, "vpc-endpoint.secretsmanager.primary").await);
            let request = request.remove_subnet_ids(live.id(HOME, "subnet.b.primary").await);
            request.send().await.unwrap()
        }),
        differs!("vpc-endpoint.secretsmanager.dr", "private_dns", false => true, |live| {
            let request = live.cloud.ec2(STANDBY).modify_vpc_endpoint();
            let request = request.vpc_endpoint_id(live.id(STANDBY, "vpc-endpoint.secretsmanager.dr").await);
            request.private_dns_enabled(false).send().await.unwrap()
        }),
        differs!("vpc-endpoint.dynamodb.primary", "full_access", false => true, |live| {
            let nothing = r#"{"Version":"2012-10-17","Statement":[]}"#;
            let request = live.cloud.ec2(HOME).modify_vpc_endpoint();
            let request = request.vpc_endpoint_id(live.id(HOME, "vpc-endpoint.dynamodb.primary").await);
            request.policy_document(nothing).send().await.unwrap()
        }),
    ]
}

pub async fn is_repaired(live: &Live) {
    let ec2 = live.cloud.ec2(HOME);
    let group = live.id(HOME, "security-group.database.primary").await;
    let answer = ec2
        .describe_security_groups()
        .group_ids(group)
        .send()
        .await
        .unwrap();
    let rules = answer.security_groups()[0].ip_permissions();
    assert!(rules.iter().all(|rule| rule.ip_ranges().is_empty()), "{rules:?}");
    let table = live.id(HOME, "route-table.primary").await;
    let answer = ec2
        .describe_route_tables()
        .route_table_ids(table)
        .send()
        .await
        .unwrap();
    let routes = answer.route_tables()[0].routes();
    let out = routes
        .iter()
        .find(|route| route.destination_cidr_block() == Some("0.0.0.0/0"));
    assert_eq!(out, None);
    let endpoints = live.cloud.ec2(STANDBY).describe_vpc_endpoints();
    let ours = Filter::builder()
        .name("tag:understudy:resource")
        .values("vpc-endpoint.s3.dr")
        .build();
    let answer = endpoints.filters(ours).send().await.unwrap();
    let tables = answer.vpc_endpoints()[0].route_table_ids();
    assert_eq!(tables, [live.id(STANDBY, "route-table.dr").await]);
}
