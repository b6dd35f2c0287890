//! Brings a stack to its blueprint on whatever `AWS_ENDPOINT_URL` names, runs again, takes it down, and takes the inventory.
//! `cargo run -p infra --example converge -- [network|PACKAGE.zip] [keep]`: only the network and the database, or the whole stack
//! with one package for all functions.

#![allow(clippy::print_stdout)]

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Instant;

use continuity::names::{Names, Slot};
use infra::cloud::Cloud;
use infra::engine::{self, Options};
use infra::graph::Blueprint;
use infra::outcome::{Outcome, Report};
use infra::spec::Spec;
use sha2::{Digest, Sha256};

const FUNCTIONS: [&str; 3] = ["payment-processor", "health-probe", "failover-coordinator"];
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
    let package = match arguments.iter().find(|argument| argument.ends_with(".zip")) {
        Some(path) => std::fs::read(path)?,
        None => Vec::new(),
    };
    for function in FUNCTIONS {
        spec.artifacts
            .insert(function.into(), hex::encode(Sha256::digest(&package)));
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
    if !package.is_empty() {
        upload(&spec, &account, &package, &cloud, &options).await?;
    }
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
    let extent = engine::Extent::of(&spec, &account);
    let started = Instant::now();
    let before = engine::inventory(&extent, &cloud, &options).await;
    println!(
        "inventory: {} in {:?}, {:?}",
        before.found.len(),
        started.elapsed(),
        before.errors
    );
    let started = Instant::now();
    let gone = engine::teardown(&blueprint, &BTreeSet::new(), &cloud, &options).await?;
    println!("teardown in {:?}: {gone}", started.elapsed());
    let after = engine::inventory(&extent, &cloud, &options).await;
    println!("inventory: {after}");
    let fine = first.done && quiet && gone.done && after.is_empty();
    if fine {
        Ok(())
    } else {
        Err("not as it should be".into())
    }
}

/// Functions are made from packages in the buckets, so these come first.
async fn upload(
    spec: &Spec,
    account: &str,
    package: &[u8],
    cloud: &Cloud,
    options: &Options,
) -> Result<(), Box<dyn std::error::Error>> {
    let seed = infra::blueprint::seed(spec, account);
    let buckets = seed
        .nodes()
        .iter()
        .filter(|node| node.kind.starts_with("s3-"))
        .map(|node| node.key.clone());
    engine::converge(&seed.only(&buckets.collect()), cloud, options).await?;
    for slot in Slot::ALL {
        for function in FUNCTIONS {
            cloud
                .s3(spec.regions.of(slot))
                .put_object()
                .bucket(spec.names().artifact_bucket(slot, account))
                .key(Names::artifact_key(function, &spec.artifacts[function]))
                .body(package.to_vec().into())
                .send()
                .await?;
        }
    }
    Ok(())
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
