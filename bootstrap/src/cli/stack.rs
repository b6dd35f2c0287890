//! The commands about a stack: `plan`, `up`, `down`, `status`, `keys`, `demo`.

use std::io::{IsTerminal, Write};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use clap::{Args, Subcommand};
use continuity::control::ControlStore;
use continuity::rate;
use serde::Serialize;

use super::Ending;
use crate::artifacts::Choice;
use crate::failure::Failure;
use crate::stack::{Stack, StackOptions};
use crate::ui::{Ui, width};
use crate::{demo, down, keys, local, plan, status, up};

/// Deploys the stack, or brings it to its configuration.
///
/// Seeds the account (artifact buckets, control table, coordinator, workflows), starts the deploy workflow and shows its
/// progress. The workflow does not depend on this command: interrupt it at any moment and run it again, it joins the
/// running workflow. Run on a finished stack it changes nothing.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  understudy up --local           on the local cloud of this machine, started if needed\n  understudy up --suffix staging  a second stack in the same account"
)]
pub struct Up {
    #[command(flatten)]
    stack: StackOptions,
    /// Start the local cloud so that functions and workflows may do only what the policies of their roles allow.
    #[arg(long, requires = "local")]
    enforce_policies: bool,
    /// Let this resource be deleted and made anew, with the data it holds; repeat it for more.
    #[arg(long, value_name = "NAME")]
    replace: Vec<String>,
    /// Delete what belongs to the stack and is in its configuration no more.
    #[arg(long)]
    prune: bool,
    /// Take the functions' packages from this folder. By default those that `understudy build` made, or, on the local cloud
    /// and where there are none, binaries of this machine.
    #[arg(long, value_name = "DIR")]
    packages: Option<PathBuf>,
}

/// The packages that a command line asks for. The local cloud runs functions on this machine, so its binaries fit.
fn chosen(folder: Option<PathBuf>, stack: &StackOptions) -> Choice {
    match folder {
        Some(folder) => Choice::Folder(folder),
        None if stack.local => Choice::Host,
        None => Choice::Lambda,
    }
}

impl Up {
    /// Runs the command.
    pub async fn run(self, ui: &Arc<Ui>) -> Result<(), Failure> {
        if self.stack.local {
            let voice = Arc::clone(ui);
            let options = local::StartOptions::new(&self.stack.dir).enforce_policies(self.enforce_policies);
            local::start(options.progress(move |text| voice.step(text))).await?;
        }
        let mut stack = Stack::open(&self.stack).await?;
        let wishes = up::Wishes {
            replace: self.replace.into_iter().collect(),
            prune: self.prune,
            packages: chosen(self.packages, &self.stack),
        };
        let deployed = up::up(&mut stack, &wishes, ui).await?;
        ui.result(&deployed, up::describe(&deployed, &stack));
        Ok(())
    }
}

/// Shows what `up` would change, and changes nothing.
///
/// Compares the configuration with what exists, resource by resource: created, updated (which field, from what to what), replaced,
/// deleted; then a count. What is not deployed is planned too. Roles that have moved with a failover are in order. Before that a
/// checker looks at the configuration as a whole: networks, names, openness, encryption, policies, replication, parity of the
/// standby, passwords, alarms.
///
/// Exits with 0 when there is nothing to change, with 2 when there is, with 1 when the checker refuses the configuration or
/// something could not be observed.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  understudy plan --local               against the running local cloud\n  understudy plan --output json          every resource, with the values of those that would be created\n  understudy plan; test $? -ne 1         in a pipeline that goes on with changes and without"
)]
pub struct Plan {
    #[command(flatten)]
    stack: StackOptions,
    /// Take the functions' packages from this folder, as `up` with the same option would.
    #[arg(long, value_name = "DIR")]
    packages: Option<PathBuf>,
}

impl Plan {
    /// Runs the command.
    pub async fn run(self, ui: &Arc<Ui>) -> Result<Ending, Failure> {
        let mut stack = Stack::open(&self.stack).await?;
        let plan = plan::plan(&mut stack, &chosen(self.packages, &self.stack), ui).await?;
        ui.result(&plan, plan::text::describe(&plan));
        if !plan.findings.is_empty() {
            let count = plan.findings.len();
            return Err(Failure::text(format!(
                "the checker refuses this stack: {count} finding{}",
                if count == 1 { "" } else { "s" }
            ))
            .help("mend what it names; `understudy up` would stop at it too"));
        }
        if !plan.is_complete() {
            return Err(
                Failure::text("not everything could be observed, so this may not be all").help(
                    "see `not observed` above; `understudy doctor` says whether permissions are missing",
                ),
            );
        }
        if plan.has_changes() {
            return Ok(Ending::Changes);
        }
        Ok(Ending::Done)
    }
}

/// Deletes the stack and everything in it.
///
/// Ends with an inventory by every kind of resource in every region, which must be empty. Interrupted, run it again.
#[derive(Debug, Args)]
pub struct Down {
    #[command(flatten)]
    stack: StackOptions,
    /// Do not ask for the suffix to be typed.
    #[arg(long)]
    yes: bool,
}

impl Down {
    /// Runs the command.
    pub async fn run(self, ui: &Arc<Ui>) -> Result<(), Failure> {
        let stack = Stack::open(&self.stack).await?;
        if !self.yes {
            confirm(&stack.spec.suffix)?;
        }
        let gone = down::down(&stack, ui).await?;
        ui.result(&gone, down::describe(&gone));
        if gone.left_over.is_empty() {
            return Ok(());
        }
        Err(
            Failure::text(format!("{} resources are left over", gone.left_over.len()))
                .help("run `understudy down` again; what AWS deletes late is gone then"),
        )
    }
}

/// Asks for the suffix to be typed.
fn confirm(suffix: &str) -> Result<(), Failure> {
    if !std::io::stdin().is_terminal() {
        return Err(Failure::text(
            "`down` deletes every payment of the stack and nobody is there to confirm it",
        )
        .help("add `--yes` to run it without a terminal"));
    }
    let mut error_stream = std::io::stderr();
    write!(
        error_stream,
        "this deletes the stack and every payment in it; type its suffix `{suffix}` to go on: "
    )?;
    error_stream.flush()?;
    let mut typed = String::new();
    std::io::stdin().read_line(&mut typed)?;
    if typed.trim() == suffix {
        return Ok(());
    }
    Err(Failure::text(format!(
        "`{}` is not `{suffix}`; nothing was deleted",
        typed.trim()
    )))
}

/// Shows what serves, what the observers see, what runs and what waits for you, and every resource's state.
///
/// The active region with its epoch and phase; both regions' health as each observer sees it (an observer that has seen nothing of
/// late is blind, its word does not count); what the standby makes of it and how far its ledger is behind; the workflows that run,
/// each with its step; what waits for a person, with the commands to answer; the last evaluation of readiness, the last rehearsal
/// and the next drill; the last reconcile and the drift it found. `>` marks what runs, `!` what you should know, `X` what is not in
/// order; colours repeat it.
///
/// Compares live resources with the configuration that is deployed, not with the file. A resource is ok, drift (fields
/// differ), missing, settling (AWS is still changing it), failed, or unknown (its region does not answer). Roles that have moved
/// with a failover are in order. Exits with 0 when every resource is ok and every region answers, with 1 otherwise.
///
/// It works while a region does not answer: everything is read from one that does, and what cannot be read is named. With `--watch`
/// it looks again and again, without comparing resources; Ctrl-C ends that with exit code 0. On a terminal it is drawn in place;
/// elsewhere one block is printed per change, with `--output json` one document per look, each in one line.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  understudy status                        everything, resources included\n  understudy status --watch                what moves, during a failover for example\n  understudy status --watch --output json | jq -c '[.at_ms, .control.phase, .workflows[].step]'"
)]
pub struct Status {
    #[command(flatten)]
    stack: StackOptions,
    /// Look again and again, until Ctrl-C.
    #[arg(long)]
    watch: bool,
    /// The time from one look to the next, 1 to 3600.
    #[arg(long, value_name = "SECONDS", default_value_t = 2, requires = "watch", value_parser = clap::value_parser!(u64).range(1..=3600))]
    every: u64,
}

impl Status {
    /// Runs the command.
    pub async fn run(self, ui: &Arc<Ui>) -> Result<(), Failure> {
        let stack = Stack::open(&self.stack).await?;
        if self.watch {
            let every = Duration::from_secs(self.every);
            return tokio::select! {
                ended = status::watch::watch(&stack, every, ui) => ended,
                // Dropping the watch shows the cursor again.
                _ = tokio::signal::ctrl_c() => Ok(()),
            };
        }
        let seen = status::status(&stack).await?;
        let page = status::text::Page {
            width: width(),
            colour: console::colors_enabled(),
            still: false,
        };
        ui.result(&seen, status::text::describe(&seen, &page));
        if seen.is_ok() {
            return Ok(());
        }
        let not_ok: usize = seen
            .counts
            .iter()
            .filter(|(state, _)| **state != status::State::Ok)
            .map(|(_, count)| count)
            .sum();
        let of: usize = seen.counts.values().sum();
        let mut text = format!("{not_ok} of {of} resources are not in order");
        if !seen.unreachable.is_empty() {
            let silent: Vec<&str> = seen.unreachable.keys().map(String::as_str).collect();
            text.push_str(&format!("; no answer from {}", silent.join(", ")));
        }
        Err(Failure::text(text))
    }
}

/// API keys.
#[derive(Debug, Args)]
pub struct Keys {
    #[command(subcommand)]
    command: KeysCommand,
}

#[derive(Debug, Subcommand)]
enum KeysCommand {
    /// Makes an API key and shows it, once: only its hash is stored.
    Create(CreateKey),
    /// Lists the keys: ids, rates, scopes, names, and which are revoked.
    List(ListKeys),
    /// Revokes a key. Both regions refuse it within a minute.
    Revoke(RevokeKey),
}

#[derive(Debug, Args)]
struct ListKeys {
    #[command(flatten)]
    stack: StackOptions,
}

#[derive(Debug, Args)]
struct RevokeKey {
    #[command(flatten)]
    stack: StackOptions,
    /// The key's id, as `keys list` shows it, or its name.
    #[arg(value_name = "ID")]
    key: String,
}

#[derive(Debug, Args)]
struct CreateKey {
    #[command(flatten)]
    stack: StackOptions,
    /// A name to recognise the key by.
    #[arg(long)]
    name: String,
    /// What the key may do; repeat it for more.
    #[arg(long = "scope", value_name = "SCOPE", default_values_t = keys::SCOPES.map(str::to_owned))]
    scopes: Vec<String>,
    /// How many requests a second the key may send, 1 to 10000; what it sends beyond that is answered 429.
    #[arg(long, value_name = "REQUESTS", default_value_t = rate::DEFAULT)]
    rate: u32,
}

#[derive(Serialize)]
struct CreatedKey<'a> {
    name: &'a str,
    scopes: &'a [String],
    requests_per_s: u32,
    key: &'a str,
}

impl Keys {
    /// Runs the command.
    pub async fn run(self, ui: &Arc<Ui>) -> Result<(), Failure> {
        match self.command {
            KeysCommand::Create(args) => args.run(ui).await,
            KeysCommand::List(args) => args.run(ui).await,
            KeysCommand::Revoke(args) => args.run(ui).await,
        }
    }
}

/// The control table of a region that answers: it is in every one.
async fn key_table(options: &StackOptions) -> Result<impl ControlStore + use<>, Failure> {
    let stack = Stack::open(options).await?;
    let record = stack.control_record().await?;
    let region = record.map_or_else(|| stack.home().to_owned(), |record| record.active_region);
    Ok(stack.control(&region))
}

impl CreateKey {
    async fn run(self, ui: &Arc<Ui>) -> Result<(), Failure> {
        let table = key_table(&self.stack).await?;
        let now_ms = continuity::clock::now_ms();
        let key = keys::create(&table, &self.name, &self.scopes, self.rate, now_ms).await?;
        let created = CreatedKey {
            name: &self.name,
            scopes: &self.scopes,
            requests_per_s: self.rate,
            key: key.reveal(),
        };
        ui.result(&created, created.key);
        Ok(())
    }
}

impl ListKeys {
    async fn run(self, ui: &Arc<Ui>) -> Result<(), Failure> {
        let table = key_table(&self.stack).await?;
        let listed = keys::list(&table).await?;
        let text: Vec<String> = listed.iter().map(key_line).collect();
        let text = if text.is_empty() {
            "no keys; `understudy keys create --name NAME` makes one".to_owned()
        } else {
            text.join("\n")
        };
        ui.result(&listed, text);
        Ok(())
    }
}

impl RevokeKey {
    async fn run(self, ui: &Arc<Ui>) -> Result<(), Failure> {
        let table = key_table(&self.stack).await?;
        let revoked = keys::revoke(&table, &self.key).await?;
        let text = format!(
            "revoked `{}` ({}); both regions refuse it within a minute",
            revoked.name, revoked.id
        );
        ui.result(&revoked, text);
        Ok(())
    }
}

fn key_line(key: &keys::Listed) -> String {
    let state = if key.revoked { "revoked" } else { "active" };
    let (scopes, rate) = (key.scopes.join(","), format!("{}/s", key.requests_per_s));
    format!("{}  {state:<7}  {rate:>7}  {scopes}  {}", key.id, key.name)
}

/// Shows the whole thing on this machine, without an AWS account.
///
/// Starts a local cloud in a temporary folder, deploys the stack in two regions, lets customers pay, cuts the home region
/// off and kills its database, waits for the takeover that nobody starts, checks every acknowledged payment, and deletes
/// everything. Exits with 1 if a payment was lost or duplicated, or anything was left over.
#[derive(Debug, Args)]
pub struct Demo {
    /// Keep the local cloud's folder, logs included, in this empty or new directory.
    #[arg(long, value_name = "DIR")]
    keep: Option<PathBuf>,
    /// Let functions and workflows do only what the policies of their roles allow.
    #[arg(long)]
    enforce_policies: bool,
}

impl Demo {
    /// Runs the command.
    pub async fn run(self, ui: &Arc<Ui>) -> Result<(), Failure> {
        let temporary;
        let directory = match &self.keep {
            Some(directory) => {
                std::fs::create_dir_all(directory)?;
                directory.as_path()
            }
            None => {
                temporary = tempfile::Builder::new().prefix("understudy-demo-").tempdir()?;
                temporary.path()
            }
        };
        let closing = tokio::select! {
            closing = demo::run(directory, self.enforce_policies, ui) => closing?,
            // Dropping the run closes the daemon's standard input, which ends the local cloud.
            _ = tokio::signal::ctrl_c() => return Err(Failure::text("interrupted; the local cloud is being stopped")),
        };
        ui.result(&closing, format!("\n{}", closing.describe()));
        if closing.holds() {
            return Ok(());
        }
        Err(Failure::text(format!(
            "{} lost, {} duplicated, {} left over",
            closing.lost, closing.duplicated, closing.left_over
        ))
        .help("run `understudy demo --keep DIR` and read DIR/logs"))
    }
}
