//! Front doors and tunnels: certificates, routing by host, what a cut does to open connections.

use bootstrap::local::Region::{self, UsEast1, UsEast2};
use serde_json::Value;

use crate::{
    cloud::{Cloud, PATIENCE, eventually},
    names::public_name,
};

fn host(api: &str, region: Region) -> String {
    format!("{api}.execute-api.{region}.amazonaws.com")
}

#[tokio::test]
async fn a_tunnel_reaches_the_api_of_its_host_with_a_trusted_certificate() {
    let cloud = Cloud::start().await;
    let api = cloud.api(UsEast1).await;
    let url = format!("https://{}/live/v1/accounts?limit=2&q=a%20b", host(&api, UsEast1));

    let response = cloud
        .tunnel(Some(UsEast2))
        .post(&url)
        .bearer_auth("a-key")
        .body("{\"a\":1}")
        .send()
        .await
        .unwrap();
    assert_eq!(response.status(), 200, "{}", response.text().await.unwrap());
    let echo: Value = response.json().await.unwrap();
    assert_eq!(echo["region"], "us-east-1");
    let event = &echo["event"];
    assert_eq!(event["httpMethod"], "POST");
    assert_eq!(event["path"], "/v1/accounts");
    assert_eq!(event["body"], "{\"a\":1}");
    assert_eq!(event["queryStringParameters"]["q"], "a b");
    assert_eq!(event["requestContext"]["stage"], "live");
    let headers = event["headers"].as_object().unwrap();
    let header = |name: &str| {
        headers
            .iter()
            .find(|(found, _)| found.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.as_str().unwrap())
    };
    assert_eq!(header("authorization"), Some("Bearer a-key"));
    assert_eq!(header("host"), Some(host(&api, UsEast1).as_str()));
    assert_eq!(header("x-forwarded-proto"), Some("https"));

    // Without the local authority nothing is trusted.
    let proxy = reqwest::Proxy::https(cloud.endpoint(None)).unwrap();
    let stranger = reqwest::Client::builder()
        .proxy(proxy)
        .tls_certs_only([])
        .build()
        .unwrap();
    assert!(stranger.get(&url).send().await.is_err());
    cloud.edge.stop().await;
}

#[tokio::test]
async fn a_front_door_serves_its_own_apis_and_stages_only() {
    let cloud = Cloud::start().await;
    let (home, dr) = (cloud.api(UsEast1).await, cloud.api(UsEast2).await);
    let door = cloud.edge.addresses().front_doors[&UsEast1];
    let get = async |host: &str, path: &str| {
        let client = cloud.https().resolve(host, door).build().unwrap();
        let response = client
            .get(format!("https://{host}:{}{path}", door.port()))
            .send()
            .await
            .unwrap();
        response.status().as_u16()
    };
    assert_eq!(get(&host(&home, UsEast1), "/live/health").await, 200);
    assert_eq!(get(&host(&home, UsEast1), "/other/health").await, 403);
    assert_eq!(get(&host(&dr, UsEast2), "/live/health").await, 403);
    assert_eq!(get(&host(&dr, UsEast1), "/live/health").await, 403);
    assert_eq!(get("unknown.example.test", "/health").await, 403);
    cloud.edge.stop().await;
}

#[tokio::test]
async fn the_public_name_shows_the_stage_at_its_root() {
    let cloud = Cloud::start().await;
    let apis = [cloud.api(UsEast1).await, cloud.api(UsEast2).await];
    let name = public_name(&cloud, &apis).await.name;
    let response = cloud
        .tunnel(None)
        .get(format!("https://{name}/v1/payments"))
        .send()
        .await
        .unwrap();
    let echo: Value = response.json().await.unwrap();
    assert_eq!(echo["region"], "us-east-1");
    assert_eq!(echo["event"]["path"], "/v1/payments");

    // Directly at the other region's door, the same name is that region's API.
    let door = cloud.edge.addresses().front_doors[&UsEast2];
    let client = cloud.https().resolve(&name, door).build().unwrap();
    let response = client
        .get(format!("https://{name}:{}/v1/payments", door.port()))
        .send()
        .await
        .unwrap();
    let echo: Value = response.json().await.unwrap();
    assert_eq!(echo["region"], "us-east-2");
    cloud.edge.stop().await;
}

#[tokio::test]
async fn names_outside_the_local_cloud_are_not_reached() {
    let cloud = Cloud::start().await;
    for url in [
        "https://example.com/",
        "https://a.execute-api.eu-west-1.amazonaws.com/live",
    ] {
        let error = cloud.tunnel(None).get(url).send().await.unwrap_err();
        assert!(error.is_connect(), "{error:?}");
    }
    cloud.edge.stop().await;
}

#[tokio::test]
async fn a_cut_closes_open_connections_across_the_border_and_refuses_new_ones() {
    let cloud = Cloud::start().await;
    let (home, dr) = (cloud.api(UsEast1).await, cloud.api(UsEast2).await);
    let (home, dr) = (host(&home, UsEast1), host(&dr, UsEast2));
    let get = async |client: &reqwest::Client, host: &str| {
        let sent = tokio::time::timeout(PATIENCE, client.get(format!("https://{host}/live/health")).send());
        sent.await.unwrap().is_ok_and(|response| response.status() == 200)
    };
    let from_outside = cloud.tunnel(None);
    let from_dr = cloud.tunnel(Some(UsEast2));
    let from_home = cloud.tunnel(Some(UsEast1));
    for client in [&from_outside, &from_dr, &from_home] {
        assert!(get(client, &home).await && get(client, &dr).await);
    }
    // An open, idle connection to the front door.
    let door = cloud.edge.addresses().front_doors[&UsEast1];
    let mut idle = tokio::net::TcpStream::connect(door).await.unwrap();

    cloud.network().cut(UsEast1);
    let mut byte = [0];
    let read = tokio::io::AsyncReadExt::read(&mut idle, &mut byte);
    let ended = tokio::time::timeout(PATIENCE, read).await.unwrap();
    assert!(matches!(ended, Ok(0) | Err(_)), "{ended:?}");
    assert!(!get(&from_outside, &home).await);
    assert!(!get(&from_dr, &home).await);
    assert!(!get(&from_home, &dr).await);
    assert!(get(&from_outside, &dr).await);
    assert!(get(&from_dr, &dr).await);
    assert!(get(&from_home, &home).await);

    cloud.network().heal(UsEast1);
    for client in [&from_outside, &from_dr, &from_home] {
        eventually("both are reached again", async || {
            get(client, &home).await && get(client, &dr).await
        })
        .await;
    }
    cloud.edge.stop().await;
}
