//! `understudy up`: seed the account, store the configuration, start the deploy workflow and watch it. Every part can be
//! repeated: killed at any moment, running it again goes on where it was.

use std::collections::BTreeSet;
use std::sync::Arc;

use aws_sdk_s3::config::RequestChecksumCalculation;
use aws_sdk_s3::primitives::ByteStream;
use continuity::control::{ControlStore, Swap};
use continuity::error::StoreError;
use continuity::names::{Names, Slot};
use infra::change::{CONFIGURATION_ITEM, Configuration, Kind};
use infra::engine::{self, Extent};
use infra::graph::{Blueprint, InvalidBlueprint};
use infra::kind::Found;
use infra::resources::db_snapshot::with_lost_tails;
use serde::Serialize;

use crate::artifacts::{self, Artifact, Choice, Packages};
use crate::failure::Failure;
use crate::stack::{self, Stack};
use crate::ui::{Ui, table};
use crate::workflow::{self, Input};

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
    /// The generation of the configuration.
    pub generation: u64,
    /// The name that clients use.
    pub public_name: String,
    /// What belongs to the stack and is in its configuration no more.
    pub strangers: Vec<Found>,
    /// How long it took, once the functions' packages were there.
    pub seconds: f64,
}

/// What `up` may do beyond bringing the stack to its configuration.
#[derive(Debug, Clone, Default)]
pub struct Wishes {
    /// Keys of resources that hold data and may yet be replaced.
    pub replace: BTreeSet<String>,
    /// Whether what is ours and in no blueprint is deleted.
    pub prune: bool,
    /// The packages that the functions are made from.
    pub packages: Choice,
}

/// Gets the packages of the functions.
///
/// # Errors
/// There are none that can be deployed, with what to do about it.
pub async fn packages(choice: &Choice, ui: &Ui) -> Result<Packages, Failure> {
    artifacts::prepare(choice, |text| ui.step(text))
        .await
        .map_err(|error| {
            let remedy = error.remedy();
            let failure = Failure::new(&error);
            match remedy {
                Some(remedy) => failure.help(remedy),
                None => failure,
            }
        })
}

/// Brings the stack to its blueprint.
///
/// 1. Buckets, then the functions' packages into them.
/// 2. The configuration, under the next generation if it changed. From here on no older executor writes.
/// 3. The seed, in both serving regions.
/// 4. The deploy workflow of the active region does the rest.
///
/// # Errors
/// Whatever failed, with what to do next. Running it again is always safe.
pub async fn up(stack: &mut Stack, wishes: &Wishes, ui: &Arc<Ui>) -> Result<Deployed, Failure> {
    // The local cloud's name server is asked by whoever is told to, and its authority vouches for every name.
    if stack.local.is_none() {
        for warning in infra::warnings(&stack.spec) {
            ui.warn(warning);
        }
    }
    let ((), packages) = futures::try_join!(ready(stack), packages(&wishes.packages, ui))?;
    let started = ui.elapsed();
    packages.fill_in(&mut stack.spec);
    let seed = infra::blueprint::seed(&stack.spec, &stack.account);
    let blueprint = infra::blueprint::blueprint(&stack.spec, &stack.account);
    // The engine asks again before each change, but nothing may be stored or uploaded either.
    infra::check::pass(&blueprint).map_err(|error| {
        Failure::new(&error).help("nothing was changed; `understudy plan` shows the findings one by one")
    })?;
    refuse_fixed(stack).await?;
    let keys = blueprint.keys();
    if let Some(unknown) = wishes.replace.iter().find(|key| !keys.contains(*key)) {
        return Err(Failure::text(format!("`{unknown}` is no resource of this stack"))
            .help("`understudy plan` shows the resources and what would be replaced"));
    }

    let active = stack.active_slot(stack.control_record().await?.as_ref());
    let region = stack.spec.regions.of(active).to_owned();
    ui.step(format!("seeding account {} in {region}", stack.account));
    let mut changed = Vec::new();
    let buckets = seed
        .nodes()
        .iter()
        .filter(|node| node.kind.starts_with("s3-"))
        .map(|node| node.key.clone());
    let buckets = seed.only(&buckets.collect());
    changed.extend(converge(stack, &buckets, ui).await?);
    upload(stack, &packages.artifacts).await?;
    // On the first run there is no table yet, and nobody who could act on what it says.
    let early = store_configuration(stack, &region).await?;
    changed.extend(converge(stack, &seed, ui).await?);
    ui.clear_progress();
    let generation = match early {
        Some(generation) => generation,
        None => store_configuration(stack, &region)
            .await?
            .ok_or_else(|| Failure::text("the control table is gone").help("run `understudy up` again"))?,
    };

    let input = Input {
        generation: Some(generation),
        replace: wishes.replace.clone(),
        prune: wishes.prune,
    };
    let execution = workflow::start_or_join(stack, ui, Kind::Deploy, active, &input).await?;
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
    let seconds = (ui.elapsed() - started).as_secs_f64();
    let extent = Extent::of(&stack.spec, &stack.account);
    let options = engine::Options::default();
    let keys = with_lost_tails(keys);
    let (strangers, not_listed) = engine::strangers(&keys, &extent, &stack.cloud, &options).await;
    for error in not_listed {
        ui.warn(format!(
            "what is no longer in the configuration may be more than is told here: {error}"
        ));
    }
    Ok(Deployed {
        resources: blueprint.nodes().len(),
        changed,
        active_region: record.active_region,
        epoch: record.epoch,
        generation,
        public_name: stack.spec.public_name(),
        strangers,
        seconds,
    })
}

/// Whether a deployment can begin: every region answers, and the stack is not being taken down.
async fn ready(stack: &Stack) -> Result<(), Failure> {
    if let Some((slot, why)) = stack.unreachable().await.into_iter().next() {
        let region = stack.spec.regions.of(slot);
        return Err(Failure::text(format!("`{region}` does not answer: {why}")).help(
            "a deployment reaches all three regions; run `understudy up` when it answers, `understudy status` shows what serves",
        ));
    }
    match stack.change().await? {
        Some(running) if running.kind == Kind::Teardown => Err(Failure::text(format!(
            "`{}` is taking the stack down",
            running.name()
        ))
        .help("watch it with `understudy down`, and run `understudy up` after its end")),
        _ => Ok(()),
    }
}

/// Refuses another value of what the stack is deployed with for good.
async fn refuse_fixed(stack: &Stack) -> Result<(), Failure> {
    let stored = stack.configuration().await?;
    let findings = stored.map(|stored| infra::check::fixed(&stored.spec, &stack.spec));
    match findings.filter(|findings| !findings.is_empty()) {
        Some(findings) => {
            Err(Failure::new(&InvalidBlueprint::Findings(findings)).help("nothing was changed"))
        }
        None => Ok(()),
    }
}

/// Stores the configuration, under the next generation if it is another than the stored one; `None` when there is no table.
async fn store_configuration(stack: &Stack, region: &str) -> Result<Option<u64>, Failure> {
    let control = stack.control(region);
    let stored = match control.document(CONFIGURATION_ITEM).await {
        Err(StoreError::NoTable(_)) => return Ok(None),
        answer => answer?,
    };
    let known = stored.as_deref().map(stack::configuration).transpose()?;
    let record = control.read().await?.map(|record| record.generation);
    let (next, new) = Configuration::next(known.as_ref(), record, &stack.spec);
    if new {
        let json = serde_json::to_string(&next)?;
        let swap = control
            .swap_document(CONFIGURATION_ITEM, stored.as_deref(), &json)
            .await?;
        // A call that was retried after its answer was lost finds its own work.
        if swap == Swap::Lost && control.document(CONFIGURATION_ITEM).await?.as_deref() != Some(&json) {
            return Err(
                Failure::text("another configuration was stored at the same moment")
                    .help("somebody else runs `understudy up`; run it again when theirs has ended"),
            );
        }
    }
    Ok(Some(next.generation))
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
    let copied = async |slot| -> Result<(), Failure> {
        if missing(slot).await {
            let client = stack.cloud.s3(stack.spec.regions.of(slot));
            let request = client.copy_object().bucket(bucket(slot)).key(&key);
            request.copy_source(&source).send().await?;
        }
        Ok(())
    };
    futures::try_join!(copied(Slot::Dr), copied(Slot::Witness))?;
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
    if !deployed.strangers.is_empty() {
        text.push_str("\n\nno longer in the configuration; `understudy up --prune` deletes them:");
        for Found { kind, region, id, .. } in &deployed.strangers {
            text.push_str(&format!("\n  {kind} {id} in {region}"));
        }
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
