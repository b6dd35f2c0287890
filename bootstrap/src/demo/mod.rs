//! The demo: on a machine without an AWS account, a stack in two regions takes payments, loses its home region, and takes
//! over. Nothing here stands in for anything: it calls what the commands call, and looks at what a customer would see.

pub mod load;
pub mod tally;

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use continuity::control::Phase;
use infra::exercise::Evidence;
use infra::spec::Spec;
use serde::Serialize;

use crate::client::{Client, Endpoint};
use crate::failure::Failure;
use crate::local;
use crate::local::process::{ProcessId, RunRecord, descendants};
use crate::local::state::Layout;
use crate::stack::Stack;
use crate::ui::{Ui, table};
use crate::{down, exercises, keys, up};
use load::Load;
use tally::{recovery_seconds, tally};

/// The closing table.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Closing {
    /// Resources deployed.
    pub resources: usize,
    /// How long the deployment took.
    pub deploy_seconds: f64,
    /// Payments that clients got an answer for.
    pub acknowledged: usize,
    /// Of these, payments that were not in the database when it was promoted, only in the journal.
    pub database_alone_would_lose: usize,
    /// Acknowledged payments that the serving ledger lacks or has differently.
    pub lost: usize,
    /// Payments that the serving ledger has twice.
    pub duplicated: usize,
    /// The longest time between two acknowledgements around and after the fault.
    pub rto_seconds: f64,
    /// Regions whose bucket has the evidence of the takeover, document and page.
    pub evidence_regions: usize,
    /// The recovery time that the evidence tells.
    pub evidence_rto_seconds: f64,
    /// Acknowledged payments that are lost, as the evidence tells.
    pub evidence_lost: u64,
    /// Resources, processes and files that the teardown left.
    pub left_over: usize,
    /// The whole run.
    pub seconds: f64,
}

impl Closing {
    /// Whether the run shows what it promises.
    pub fn holds(&self) -> bool {
        self.lost == 0 && self.duplicated == 0 && self.left_over == 0
    }

    /// The table for a person.
    pub fn describe(&self) -> String {
        table(&[
            (
                "resources deployed",
                format!("{} in {:.1} s", self.resources, self.deploy_seconds),
            ),
            ("payments acknowledged", self.acknowledged.to_string()),
            (
                "the database alone would have lost",
                self.database_alone_would_lose.to_string(),
            ),
            ("lost", self.lost.to_string()),
            ("duplicated", self.duplicated.to_string()),
            (
                "recovery time, last answer to next",
                format!("{:.1} s", self.rto_seconds),
            ),
            (
                "recovery time in the evidence",
                format!(
                    "{:.1} s, kept in {} regions",
                    self.evidence_rto_seconds, self.evidence_regions
                ),
            ),
            ("left over", self.left_over.to_string()),
            ("whole run", format!("{:.1} s", self.seconds)),
        ])
    }
}

/// The suffix of the demo's stack.
const SUFFIX: &str = "demo";
/// Customers that pay at once.
const CLIENTS: usize = 6;
/// Accounts that they pay between.
const ACCOUNTS: usize = 8;
/// The currency of the demo.
const CURRENCY: &str = "EUR";
/// Payments before replication is held back.
const BEFORE: usize = 150;
/// Payments that the standby's database must not see before the region is lost.
const UNREPLICATED: usize = 100;
/// Payments after the takeover.
const AFTER: usize = 100;
/// How long any one thing may take before the demo gives up.
const PATIENCE: Duration = Duration::from_secs(120);
/// How long the start of the local cloud may take; the first one fetches Python packages.
const START_PATIENCE: Duration = Duration::from_secs(600);
/// How long the deployment may take, and how long the teardown; the first deployment builds the functions.
const WORKFLOW_PATIENCE: Duration = Duration::from_secs(300);
/// How often a condition is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// Runs the demo in `directory`, which must be empty and is left for the caller to remove.
///
/// # Errors
/// Anything that stops the story before its end. The local cloud is stopped in any case.
pub async fn run(directory: &Path, enforce_policies: bool, ui: &Arc<Ui>) -> Result<Closing, Failure> {
    let voice = Arc::clone(ui);
    let options = local::StartOptions::new(directory)
        .enforce_policies(enforce_policies)
        .progress(move |text| voice.step(text));
    let starting = async { local::start_attached(options).await.map_err(Failure::from) };
    let cloud = within(START_PATIENCE, "the start of the local cloud", starting).await?;
    ui.done("local cloud is up: AWS control planes, two PostgreSQL servers, edge, DNS");
    let outcome = tell((*cloud).clone(), ui).await;
    let started = processes(directory)?;
    cloud.stop().await;
    let mut closing = outcome?;
    closing.left_over += files_left(directory) + started.iter().filter(|process| process.is_alive()).count();
    closing.seconds = ui.elapsed().as_secs_f64();
    Ok(closing)
}

/// Every process of the local cloud in `directory`, functions included.
fn processes(directory: &Path) -> Result<Vec<ProcessId>, Failure> {
    let layout = Layout::new(directory)?;
    let record = RunRecord::read(&layout.record())?;
    let mut all: Vec<ProcessId> = record.processes.into_values().chain(record.daemon).collect();
    let children: Vec<ProcessId> = all.iter().flat_map(descendants).collect();
    all.extend(children);
    Ok(all)
}

/// What `stop` should have removed.
fn files_left(directory: &Path) -> usize {
    usize::from(directory.join(local::state::FILE).exists())
}

/// The story between the start and the stop of the local cloud.
async fn tell(cloud: local::Cloud, ui: &Arc<Ui>) -> Result<Closing, Failure> {
    let spec = Spec {
        suffix: SUFFIX.into(),
        ..Spec::default()
    };
    let mut stack = Stack::on_local(spec, cloud.clone()).await?;
    let (home, standby) = (stack.spec.regions.primary.clone(), stack.spec.regions.dr.clone());

    let wishes = up::Wishes::default();
    let deploying = up::up(&mut stack, &wishes, ui);
    let deployed = within(WORKFLOW_PATIENCE, "the deployment", deploying).await?;
    ui.done(format!(
        "{} resources in two regions, a witness and globally",
        deployed.resources
    ));

    let client = customer(&stack).await?;
    let mut accounts = Vec::new();
    for number in 0..ACCOUNTS {
        let account = client
            .open_account(&format!("open-{number}"), CURRENCY, None, PATIENCE)
            .await?;
        accounts.push(account.id);
    }
    ui.done(format!(
        "{ACCOUNTS} accounts opened through https://{}",
        deployed.public_name
    ));

    let mut load = Load::start(&client, CLIENTS, &accounts, CURRENCY, "demo");
    until(&mut load, "payments", |load| load.count() >= BEFORE).await?;
    ui.done(format!(
        "{CLIENTS} customers pay, {} payments acknowledged by {home}",
        load.count()
    ));

    cloud.lag(standby.parse()?, true).await?;
    let held_at = load.count();
    ui.step(format!(
        "replication to {standby} is held back: from now on only the journal is in both regions"
    ));
    until(&mut load, "payments", |load| {
        load.count() >= held_at + UNREPLICATED
    })
    .await?;

    let before_outage = load.count();
    let fault = Instant::now();
    cloud.outage(home.parse()?, true).await?;
    ui.step(format!(
        "{home} is cut off and its database killed with SIGKILL; {before_outage} payments acknowledged"
    ));
    narrate_takeover(&stack, &mut load, deployed.epoch, fault, ui).await?;
    let resumed_at = load.count();
    until(&mut load, "payments after the takeover", |load| {
        load.count() >= resumed_at + AFTER
    })
    .await?;
    ui.done(format!("customers pay on in {standby} under the same name"));

    cloud.lag(standby.parse()?, false).await?;
    cloud.heal(home.parse()?).await?;
    rejoined(&cloud, &home).await?;
    ui.done(format!("{home} is back, its database follows {standby}"));

    let id = stack.names().failover_execution(deployed.epoch + 1);
    let (evidence, regions) = kept_evidence(&stack, &id).await?;
    ui.done(format!(
        "evidence `{id}` is in the buckets of {}: `understudy drill show {id}`",
        regions.join(" and ")
    ));

    let acknowledged = load.finish().await?;
    let ledger = client.payments(PATIENCE).await?;
    let mut balances = Vec::new();
    for id in &accounts {
        balances.push(client.account(id, PATIENCE).await?);
    }
    let result = tally(&acknowledged, &ledger, &balances);
    if !result.wrong_balances.is_empty() {
        return Err(Failure::text(format!(
            "balances differ from payments: {}",
            result.wrong_balances.join(", ")
        )));
    }
    for reference in &result.lost {
        ui.warn(format!("payment `{reference}` was acknowledged and is lost"));
    }
    for reference in &result.duplicated {
        ui.warn(format!("payment `{reference}` is in the ledger twice"));
    }
    ui.done(format!(
        "each of {} acknowledged payments looked up in the ledger of {standby}",
        result.acknowledged
    ));

    let gone = within(WORKFLOW_PATIENCE, "the teardown", down::down(&stack, ui)).await?;
    for found in &gone.left_over {
        ui.warn(format!(
            "left over: {} {} in {}",
            found.kind, found.id, found.region
        ));
    }
    ui.done(format!(
        "everything deleted, {} resources left over",
        gone.left_over.len()
    ));

    Ok(Closing {
        resources: deployed.resources,
        deploy_seconds: deployed.seconds,
        acknowledged: result.acknowledged,
        database_alone_would_lose: result.database_alone_would_lose,
        lost: result.lost.len(),
        duplicated: result.duplicated.len(),
        rto_seconds: recovery_seconds(&acknowledged, fault)
            .ok_or_else(|| Failure::text("no payment was acknowledged after the takeover"))?,
        evidence_regions: regions.len(),
        evidence_rto_seconds: evidence
            .achieved
            .rto_ms
            .map(|rto_ms| rto_ms as f64 / 1_000.0)
            .ok_or_else(|| Failure::text("the evidence tells no recovery time"))?,
        evidence_lost: evidence
            .payments
            .lost
            .ok_or_else(|| Failure::text("the evidence does not tell whether a payment was lost"))?,
        left_over: gone.left_over.len(),
        seconds: 0.0,
    })
}

/// The evidence of an exercise, once both regions have it.
async fn kept_evidence(stack: &Stack, id: &str) -> Result<(Evidence, Vec<String>), Failure> {
    let started = Instant::now();
    loop {
        let regions = exercises::kept_in(stack, id).await;
        if regions.len() == 2 {
            return Ok((exercises::show(stack, id).await?, regions));
        }
        if started.elapsed() > PATIENCE {
            return Err(Failure::text(format!(
                "the evidence `{id}` is not in both buckets after {} s, only in: {}",
                PATIENCE.as_secs(),
                regions.join(", ")
            )));
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// A customer with a key of its own, whose rate is no limit here, who finds the API by its public name.
pub async fn customer(stack: &Stack) -> Result<Client, Failure> {
    let scopes = keys::SCOPES.map(str::to_owned);
    let key = keys::create(
        &stack.control(stack.home()),
        "demo",
        &scopes,
        continuity::rate::MOST,
        continuity::clock::now_ms(),
    )
    .await?;
    Ok(Client::new(Endpoint::of(stack, key.reveal().to_owned()))?)
}

/// Gives up on work that does not end. What it last waited for has been shown.
async fn within<T>(
    patience: Duration,
    what: &str,
    work: impl Future<Output = Result<T, Failure>>,
) -> Result<T, Failure> {
    tokio::time::timeout(patience, work).await.unwrap_or_else(|_| {
        let seconds = patience.as_secs();
        Err(Failure::text(format!("{what} did not end in {seconds} s"))
            .help("run `understudy demo --keep DIR` and read DIR/logs"))
    })
}

/// Waits until a condition of the load holds.
pub(crate) async fn until(
    load: &mut Load,
    what: &str,
    condition: impl Fn(&Load) -> bool,
) -> Result<(), Failure> {
    let started = Instant::now();
    while !condition(load) {
        if let Some(error) = load.failure() {
            return Err(Failure::new(&error));
        }
        if started.elapsed() > PATIENCE {
            return Err(Failure::text(format!(
                "no {what} in {} s; {} acknowledged so far",
                PATIENCE.as_secs(),
                load.count()
            )));
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
    Ok(())
}

/// Watches the takeover that nobody here started: the control record, then the first answer of the new epoch.
async fn narrate_takeover(
    stack: &Stack,
    load: &mut Load,
    old_epoch: u64,
    fault: Instant,
    ui: &Arc<Ui>,
) -> Result<(), Failure> {
    // Asked through the region that is still there.
    let control = stack.control(stack.spec.regions.of(continuity::names::Slot::Dr));
    let after = || format!("{:.1} s after the fault", fault.elapsed().as_secs_f64());
    let (mut fenced, mut opened) = (false, false);
    let started = Instant::now();
    loop {
        if let Some(first) = load.first_after(old_epoch) {
            if !opened {
                ui.step(format!("epoch {} is open", first.payment.epoch));
            }
            ui.done(format!(
                "first payment acknowledged in epoch {}, {}",
                first.payment.epoch,
                after()
            ));
            return Ok(());
        }
        if let Some(error) = load.failure() {
            return Err(Failure::new(&error));
        }
        if started.elapsed() > PATIENCE {
            return Err(Failure::text(format!(
                "nobody took over in {} s",
                PATIENCE.as_secs()
            )));
        }
        if let Ok(Some(record)) = continuity::control::ControlStore::read(&control).await
            && record.epoch > old_epoch
        {
            if !fenced {
                fenced = true;
                ui.step(format!(
                    "{} raised the epoch to {}, {}",
                    record.active_region,
                    record.epoch,
                    after()
                ));
            }
            if record.phase == Phase::Serving && !opened {
                opened = true;
                ui.step(format!(
                    "promoted, journal replayed, ledger verified, open; {}",
                    after()
                ));
            }
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// Waits until the region's database is a standby that streams again.
pub(crate) async fn rejoined(cloud: &local::Cloud, region: &str) -> Result<(), Failure> {
    let region: local::Region = region.parse()?;
    let started = Instant::now();
    loop {
        let status = cloud.status().await?;
        if status
            .databases
            .get(&region)
            .is_some_and(|database| database.role == "standby")
            && status
                .databases
                .values()
                .any(|database| database.standby_lag_bytes.is_some())
        {
            return Ok(());
        }
        if started.elapsed() > PATIENCE {
            return Err(Failure::text(format!(
                "the database of {region} did not rejoin in {} s",
                PATIENCE.as_secs()
            )));
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[tokio::test]
    async fn work_that_never_ends_is_given_up_by_name() {
        let endless = std::future::pending::<Result<(), Failure>>();
        let failure = within(Duration::ZERO, "the teardown", endless).await.unwrap_err();
        assert_eq!(failure.message(), "the teardown did not end in 0 s");
    }
}
