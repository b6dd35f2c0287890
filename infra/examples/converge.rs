//! Brings a stack to its blueprint on whatever `AWS_ENDPOINT_URL` names, runs again, takes it down, and takes the inventory.
//! `cargo run -p infra --example converge -- [network|whole] [keep]`

#![allow(clippy::print_stdout)]

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Instant;

use infra::cloud::Cloud;
use infra::engine::{self, Options};
use infra::graph::Blueprint;
use infra::outcome::{Outcome, Report};
use infra::spec::Spec;

const KINDS_OF_THE_NETWORK: &[&str] = &[
    "vpc",
    "subnet",
    "route-table",
    "security-group",
    "vpc-endpoint",
    "kms-key",
    "kms-replica-key",
    "secret",
    "global-cluster",
    "db-cluster",
    "db-instance",
    "db-subnet-group",
    "db-cluster-parameter-group",
];

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    continuity::aws::install_tls();
    continuity::aws::install_tracing();
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let account = std::env::var("AWS_ACCESS_KEY_ID").unwrap_or_else(|_| "000000000000".into());
    let mut spec = Spec::default();
    for function in ["payment-processor", "health-probe", "failover-coordinator"] {
        spec.artifacts.insert(function.into(), "0".repeat(64));
    }
    let mut blueprint = infra::blueprint::blueprint(&spec, &account);
    if arguments.iter().any(|argument| argument == "network") {
        let wanted = |kind: &str| KINDS_OF_THE_NETWORK.contains(&kind);
        let keys = blueprint
            .nodes()
            .iter()
            .filter(|node| wanted(node.kind))
            .map(|node| node.key.clone());
        blueprint = blueprint.only(&keys.collect());
    }
    let cloud = Cloud::new(continuity::aws::load(Some(&spec.regions.primary)).await);
    let options = Options {
        on_progress: Some(Arc::new(|progress| tracing::info!("{progress}"))),
        ..Options::default()
    };
    let first = run("first run", &blueprint, &cloud, &options).await?;
    let second = run("second run", &blueprint, &cloud, &options).await?;
    let quiet = second
        .entries
        .iter()
        .all(|entry| entry.outcome == Outcome::Unchanged);
    if arguments.iter().any(|argument| argument == "keep") {
        return if first.done && quiet {
            Ok(())
        } else {
            Err("not converged".into())
        };
    }
    let regions = [&*spec.regions.primary, &*spec.regions.dr, &*spec.regions.witness];
    let started = Instant::now();
    let before = engine::inventory(&spec.suffix, &account, &regions, &cloud, &options).await;
    println!(
        "inventory: {} in {:?}, {:?}",
        before.found.len(),
        started.elapsed(),
        before.errors
    );
    let started = Instant::now();
    let gone = engine::teardown(&blueprint, &BTreeSet::new(), &cloud, &options).await?;
    println!("teardown in {:?}: {gone}", started.elapsed());
    let after = engine::inventory(&spec.suffix, &account, &regions, &cloud, &options).await;
    println!("inventory: {after}");
    let fine = first.done && quiet && gone.done && after.is_empty();
    if fine {
        Ok(())
    } else {
        Err("not as it should be".into())
    }
}

async fn run(
    title: &str,
    blueprint: &Blueprint,
    cloud: &Cloud,
    options: &Options,
) -> Result<Report, Box<dyn std::error::Error>> {
    let started = Instant::now();
    let report = engine::converge(blueprint, cloud, options).await?;
    println!("{title} in {:?}: {report}", started.elapsed());
    Ok(report)
}
