//! `understudy up`: seed the account, store the configuration, start the deploy workflow and watch it. Every part can be
//! repeated: killed at any moment, running it again goes on where it was.

use std::sync::Arc;

use aws_sdk_s3::config::RequestChecksumCalculation;
use aws_sdk_s3::primitives::ByteStream;
use continuity::control::ControlStore;
use continuity::names::{Names, Slot};
use infra::engine;
use infra::graph::Blueprint;
use serde::Serialize;
use serde_json::json;

use crate::artifacts::{self, Artifact};
use crate::failure::Failure;
use crate::stack::Stack;
use crate::ui::{Ui, table};
use crate::workflow;

/// What `up` did.
#[derive(Debug, Clone, Serialize)]
pub struct Deployed {
    /// Resources of the stack.
    pub resources: usize,
    /// Keys of the resources that were created or changed.
    pub changed: Vec<String>,
    /// The region that serves.
    pub active_region: String,
    /// Its epoch.
    pub epoch: u64,
    /// The name that clients use.
    pub public_name: String,
    /// How long it took, once the functions' packages were there.
    pub seconds: f64,
}

/// Brings the stack to its blueprint.
///
/// # Errors
/// Whatever failed, with what to do next. Running it again is always safe.
pub async fn up(stack: &mut Stack, ui: &Arc<Ui>) -> Result<Deployed, Failure> {
    let packages = artifacts::prepare(|text| ui.step(text)).await?;
    let started = ui.elapsed();
    for package in &packages {
        stack
            .spec
            .artifacts
            .insert(package.function.to_owned(), package.sha256.clone());
    }

    ui.step(format!("seeding account {} in {}", stack.account, stack.home()));
    let mut changed = Vec::new();
    let seed = infra::blueprint::seed(&stack.spec, &stack.account);
    // Functions are made from packages in the buckets: buckets first, then the packages, then the rest.
    let buckets = seed
        .nodes()
        .iter()
        .filter(|node| node.kind.starts_with("s3-"))
        .map(|node| node.key.clone());
    let buckets = seed.only(&buckets.collect());
    changed.extend(converge(stack, &buckets, ui).await?);
    upload(stack, &packages).await?;
    changed.extend(converge(stack, &seed, ui).await?);
    ui.clear_progress();

    let spec = serde_json::to_string(&stack.spec)?;
    stack.control(stack.home()).put_document("spec", &spec).await?;

    let execution = workflow::start_or_join(stack, "deploy", &json!({})).await?;
    ui.step(if execution.joined {
        "joined the deploy workflow that is running"
    } else {
        "deploy workflow started"
    });
    let output = workflow::watch(stack, &execution, ui).await?;
    ui.clear_progress();
    changed.extend(
        output["reconcile"]["changed"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(|key| key.as_str().map(str::to_owned)),
    );
    changed.sort();
    changed.dedup();

    let record = stack.control_record().await?.ok_or_else(|| {
        Failure::text("the deploy workflow ended without a control record").help("run `up` again")
    })?;
    Ok(Deployed {
        resources: infra::blueprint::blueprint(&stack.spec, &stack.account)
            .nodes()
            .len(),
        changed,
        active_region: record.active_region,
        epoch: record.epoch,
        public_name: stack.spec.public_name(),
        seconds: (ui.elapsed() - started).as_secs_f64(),
    })
}

async fn converge(stack: &Stack, blueprint: &Blueprint, ui: &Arc<Ui>) -> Result<Vec<String>, Failure> {
    loop {
        let report = engine::converge(blueprint, &stack.cloud, &workflow::options(ui)).await?;
        if let Some(failed) = report.failures().next() {
            ui.clear_progress();
            return Err(Failure::text(failed.to_string())
                .help("what was made stays; mend the cause and run `understudy up` again"));
        }
        if report.done {
            return Ok(report.changes().map(|entry| entry.key.clone()).collect());
        }
    }
}

/// Puts each package into the home region's bucket, and has S3 copy it to the other regions, unless it is there.
async fn upload(stack: &Stack, packages: &[Artifact]) -> Result<(), Failure> {
    futures::future::try_join_all(packages.iter().map(|package| upload_one(stack, package))).await?;
    Ok(())
}

async fn upload_one(stack: &Stack, package: &Artifact) -> Result<(), Failure> {
    let key = Names::artifact_key(package.function, &package.sha256);
    let bucket = |slot| stack.names().artifact_bucket(slot, &stack.account);
    let missing = async |slot| {
        let client = stack.cloud.s3(stack.spec.regions.of(slot));
        client
            .head_object()
            .bucket(bucket(slot))
            .key(&key)
            .send()
            .await
            .is_err()
    };
    if missing(Slot::Primary).await {
        stack
            .cloud
            .s3(stack.home())
            .put_object()
            .bucket(bucket(Slot::Primary))
            .key(&key)
            .body(ByteStream::from(package.zip.clone()))
            .customize()
            // The key is the package's hash, and Lambda's answer is compared with it: it need not be hashed twice more.
            .config_override(
                aws_sdk_s3::config::Builder::new()
                    .request_checksum_calculation(RequestChecksumCalculation::WhenRequired),
            )
            .disable_payload_signing()
            .send()
            .await?;
    }
    let source = format!("{}/{key}", bucket(Slot::Primary));
    for slot in [Slot::Dr, Slot::Witness] {
        if missing(slot).await {
            let client = stack.cloud.s3(stack.spec.regions.of(slot));
            client
                .copy_object()
                .bucket(bucket(slot))
                .key(&key)
                .copy_source(&source)
                .send()
                .await?;
        }
    }
    Ok(())
}

/// The result for a person.
pub fn describe(deployed: &Deployed, stack: &Stack) -> String {
    let changes = match deployed.changed.len() {
        0 => "nothing to change".to_owned(),
        n => format!("{n} created or changed"),
    };
    let mut text = table(&[
        ("resources", format!("{}, {changes}", deployed.resources)),
        (
            "active",
            format!("{}, epoch {}", deployed.active_region, deployed.epoch),
        ),
        ("public name", format!("https://{}", deployed.public_name)),
        ("time", format!("{:.1} s", deployed.seconds)),
    ]);
    if stack.spec.domain.is_none() && stack.local.is_none() {
        text.push_str(
            "\n\nno domain is configured: the public name above resolves nowhere but in its own hosted zone. Set `domain` in stack.toml.",
        );
    }
    text.push_str("\n\nnext:\n  understudy keys create --name NAME");
    if let Some(local) = &stack.local {
        let directory = local.directory.display();
        text.push_str(&format!(
            " --local --dir {directory}\n  eval \"$(understudy local env --dir {directory})\"\n  curl https://{}/health",
            deployed.public_name
        ));
    }
    text
}
