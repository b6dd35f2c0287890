//! The name server: asked by a resolver, moved by health checks.

use aws_sdk_route53::types::{
    Change, ChangeAction, ChangeBatch, HealthCheckConfig, HealthCheckType, ResourceRecord, ResourceRecordSet,
    ResourceRecordSetFailover, RrType,
};
use bootstrap::local::Region::{self, UsEast1, UsEast2};
use hickory_resolver::{
    Resolver,
    config::{ConnectionConfig, NameServerConfig, ResolverConfig},
    net::runtime::TokioRuntimeProvider,
    proto::rr::{RData, RecordType},
};

use crate::cloud::{Cloud, eventually};

const ZONE: &str = "dr-payments-test.test.local";

/// A public name with its health checks.
pub struct Public {
    pub name: String,
    pub checks: [String; 2],
}

/// A zone with failover records and HTTPS health checks for the APIs of the two regions, as the product makes them.
pub async fn public_name(cloud: &Cloud, apis: &[String; 2]) -> Public {
    let route53 = aws_sdk_route53::Client::new(&cloud.aws(None, UsEast1).await);
    let zone = route53
        .create_hosted_zone()
        .name(ZONE)
        .caller_reference("zone")
        .send()
        .await
        .unwrap();
    let zone = zone.hosted_zone.unwrap().id;
    let name = format!("api.{ZONE}");
    let roles = [
        ResourceRecordSetFailover::Primary,
        ResourceRecordSetFailover::Secondary,
    ];
    let mut checks = [String::new(), String::new()];
    for (i, (region, role)) in [UsEast1, UsEast2].into_iter().zip(roles).enumerate() {
        let host = format!("{}.execute-api.{region}.amazonaws.com", apis[i]);
        let config = HealthCheckConfig::builder()
            .r#type(HealthCheckType::Https)
            .fully_qualified_domain_name(&host)
            .port(443)
            .resource_path("/live/health")
            .request_interval(10)
            .failure_threshold(3)
            .enable_sni(true)
            .build()
            .unwrap();
        let check = route53
            .create_health_check()
            .caller_reference(region.name())
            .health_check_config(config)
            .send()
            .await
            .unwrap();
        checks[i] = check.health_check.unwrap().id;
        let record = ResourceRecordSet::builder()
            .name(&name)
            .r#type(RrType::Cname)
            .ttl(60)
            .set_identifier(region.name())
            .failover(role)
            .health_check_id(&checks[i])
            .resource_records(ResourceRecord::builder().value(host).build().unwrap())
            .build()
            .unwrap();
        let change = Change::builder()
            .action(ChangeAction::Upsert)
            .resource_record_set(record)
            .build()
            .unwrap();
        route53
            .change_resource_record_sets()
            .hosted_zone_id(&zone)
            .change_batch(ChangeBatch::builder().changes(change).build().unwrap())
            .send()
            .await
            .unwrap();
    }
    Public { name, checks }
}

fn resolver(cloud: &Cloud, connection: ConnectionConfig) -> Resolver<TokioRuntimeProvider> {
    let address = cloud.edge.addresses().dns;
    let mut connection = connection;
    connection.port = address.port();
    let server = NameServerConfig::new(address.ip(), true, vec![connection]);
    let config = ResolverConfig::from_parts(None, vec![], vec![server]);
    let mut builder = Resolver::builder_with_config(config, TokioRuntimeProvider::default());
    builder.options_mut().cache_size = 0;
    builder.build().unwrap()
}

async fn addresses(resolver: &Resolver<TokioRuntimeProvider>, name: &str) -> Vec<String> {
    let found = resolver.lookup_ip(format!("{name}.")).await.unwrap();
    found.iter().map(|address| address.to_string()).collect()
}

#[tokio::test]
async fn a_change_of_records_is_answered_at_once() {
    let cloud = Cloud::start().await;
    let apis = [cloud.api(UsEast1).await, cloud.api(UsEast2).await];
    let name = public_name(&cloud, &apis).await.name;
    let udp = resolver(&cloud, ConnectionConfig::udp());
    assert_eq!(addresses(&udp, &name).await, ["127.0.1.1"]);
    assert_eq!(
        cloud.edge.dns().resolve(&name),
        Some(cloud.edge.addresses().front_doors[&UsEast1])
    );
    let tcp = resolver(&cloud, ConnectionConfig::tcp());
    assert_eq!(addresses(&tcp, &name).await, ["127.0.1.1"]);
    assert_eq!(
        addresses(&udp, &format!("{}.execute-api.us-east-2.amazonaws.com", apis[1])).await,
        ["127.0.2.1"]
    );
    let servers = udp.lookup(format!("{ZONE}."), RecordType::NS).await.unwrap();
    assert!(
        servers
            .answers()
            .iter()
            .any(|record| matches!(record.data, RData::NS(_)))
    );
    let absent = udp.lookup_ip(format!("none.{ZONE}.")).await.unwrap_err();
    assert!(absent.is_nx_domain(), "{absent:?}");
    cloud.edge.stop().await;
}

#[tokio::test]
async fn traffic_follows_the_health_checks_there_and_back() {
    let cloud = Cloud::start().await;
    let apis = [cloud.api(UsEast1).await, cloud.api(UsEast2).await];
    let public = public_name(&cloud, &apis).await;
    let checked = async || {
        let status = cloud.edge.dns().status();
        public
            .checks
            .iter()
            .all(|check| status.checks.get(check).is_some_and(|check| check.results > 0))
    };
    eventually("both regions are checked", checked).await;
    let leads_to = async |region: Region| {
        let status = cloud.edge.dns().resolve(&public.name);
        status == Some(cloud.edge.addresses().front_doors[&region])
    };
    assert!(leads_to(UsEast1).await);

    // The primary says that it is not well.
    std::fs::write(cloud.sick(UsEast1), "").unwrap();
    eventually("the secondary is answered", async || leads_to(UsEast2).await).await;
    let udp = resolver(&cloud, ConnectionConfig::udp());
    assert_eq!(addresses(&udp, &public.name).await, ["127.0.2.1"]);
    let status = cloud.edge.dns().status();
    let check = &status.checks[&public.checks[0]];
    assert!(!check.healthy);
    assert_eq!(
        check.last_error.as_deref(),
        Some("the answer is 503 Service Unavailable")
    );

    // And is well again.
    std::fs::remove_file(cloud.sick(UsEast1)).unwrap();
    eventually("the primary is answered again", async || leads_to(UsEast1).await).await;

    // A cut region's checks fail too, since they come from outside.
    cloud.network().cut(UsEast1);
    eventually("the secondary is answered", async || leads_to(UsEast2).await).await;
    // Both unhealthy: the primary.
    cloud.network().cut(UsEast2);
    eventually("the primary is answered for want of better", async || {
        leads_to(UsEast1).await
    })
    .await;
    cloud.edge.stop().await;
}
