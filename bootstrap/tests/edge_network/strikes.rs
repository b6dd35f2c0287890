//! A caller that dies of a call: the call took effect, the caller never hears of it.

use std::process::Command;

use bootstrap::local::{
    Region::UsEast1,
    edge::{Strike, is_read},
};

use crate::cloud::{Cloud, eventually, signature};

/// A process that makes buckets until it is told no more.
fn caller(endpoint: &str) -> Command {
    const SCRIPT: &str = "
import http.client, sys
for number in range(4):
    edge = http.client.HTTPConnection(sys.argv[1])
    edge.request('PUT', f'/bucket-{number}', headers={'Authorization': sys.argv[2], 'User-Agent': 'app/maker'})
    edge.getresponse().read()
";
    let mut command = Command::new("python3");
    let host = endpoint.trim_start_matches("http://");
    command.args(["-c", SCRIPT, host, &signature(UsEast1, "s3")]);
    command
}

#[tokio::test]
async fn a_caller_that_is_struck_down_has_made_its_last_call_and_no_other() {
    let cloud = Cloud::start().await;
    cloud.edge.strike(vec![Strike {
        caller: Some("maker".into()),
        service: Some("s3".into()),
        writes_only: true,
        nth: 2,
        ..Strike::default()
    }]);
    let mut process = caller(&cloud.endpoint(None)).spawn().unwrap();
    let pid = process.id();
    let ended = tokio::task::spawn_blocking(move || process.wait().unwrap())
        .await
        .unwrap();
    assert_eq!(
        std::os::unix::process::ExitStatusExt::signal(&ended),
        Some(9),
        "{ended}"
    );
    eventually("the strike is reported", async || {
        cloud.edge.struck().iter().any(|report| report.struck.is_some())
    })
    .await;
    let report = cloud.edge.spare().remove(0);
    let struck = report.struck.unwrap();
    assert_eq!((report.seen, struck.killed), (2, Some(pid)));
    assert!(struck.operation == "PUT /bucket-1" && !is_read(&struck.operation));

    let s3 = aws_sdk_s3::Client::new(&cloud.aws(None, UsEast1).await);
    let listed = s3.list_buckets().send().await.unwrap();
    let names: Vec<_> = listed
        .buckets()
        .iter()
        .filter_map(|bucket| bucket.name())
        .collect();
    assert_eq!(names, ["bucket-0", "bucket-1"]);
    cloud.edge.stop().await;
}

#[tokio::test]
async fn nobody_is_struck_down_when_calls_are_only_counted() {
    let cloud = Cloud::start().await;
    cloud.edge.strike(vec![Strike::default()]);
    let mut process = caller(&cloud.endpoint(None)).spawn().unwrap();
    let ended = tokio::task::spawn_blocking(move || process.wait().unwrap())
        .await
        .unwrap();
    assert!(ended.success(), "{ended}");
    let report = cloud.edge.spare().remove(0);
    assert_eq!((report.seen, report.struck), (4, None));
    cloud.edge.stop().await;
}
