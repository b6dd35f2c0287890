//! `understudy local`: a two-region AWS on this machine, and the faults to try on it.

use std::{
    fs, io,
    io::Write,
    path::{Path, PathBuf},
    sync::Mutex,
};

use clap::{Args, Subcommand};
use serde::Serialize;
use serde_json::json;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

use crate::{
    failure::Failure,
    local::{
        self, Cloud, LocalError, Part, Region, StartOptions, Status,
        client::DIRECTORY,
        guardian,
        state::Layout,
        supervisor::{self, Announcement, Lifetime, ServeOptions, TIME_SCALE},
    },
    ui::{Output, Ui},
};

/// The cloud on this machine.
#[derive(Debug, Args)]
#[command(
    about = "Run AWS on this machine: two regions and a witness, with real databases",
    long_about = "Run AWS on this machine: two regions and a witness, with real databases.\n\n\
        The local cloud has what a stack needs: the control planes (ministack), a PostgreSQL server for each of us-east-1 \
        and us-east-2 with streaming replication between them, a name server that plays Route 53, and an edge through \
        which every call passes, so that a region can be cut off. It needs no account, no Docker and no rights, only \
        `python3` 3.11 or newer. The first start installs Python packages into your cache directory.",
    after_long_help = "Examples:\n  \
        understudy local start\n  \
        eval \"$(understudy local env)\" && aws s3 ls\n  \
        understudy local outage us-east-1 --kill-database\n  \
        understudy local outage us-east-1 --only writes\n  \
        understudy local heal us-east-1\n  \
        understudy local stop"
)]
pub struct LocalArgs {
    /// Where the local cloud keeps its files; each directory is a cloud of its own.
    #[arg(long, global = true, value_name = "DIR", default_value = DIRECTORY)]
    dir: PathBuf,
    #[command(subcommand)]
    command: LocalCommand,
}

#[derive(Debug, Subcommand)]
enum LocalCommand {
    /// Start the local cloud, or say that it runs.
    ///
    /// It goes on in the background until `understudy local stop`. An interrupt while it starts cleans up.
    Start {
        /// How long a second of Route 53's health checks and record lifetimes takes.
        #[arg(long, value_name = "FACTOR", default_value_t = TIME_SCALE)]
        time_scale: f64,
        /// Let functions and workflows do only what the policies of their roles allow.
        #[arg(long)]
        enforce_policies: bool,
    },
    /// Show what runs, where, in which role, and which faults are in force.
    Status,
    /// Cut a region off: nothing enters or leaves it, and it cannot write to global tables.
    ///
    /// What happens inside the region goes on, as in a real partition. `heal` ends it.
    Outage {
        /// us-east-1, us-east-2 or us-west-2.
        region: Region,
        /// Kill the region's database server as well (SIGKILL), so that what it had not sent is lost.
        #[arg(long)]
        kill_database: bool,
        /// Take only this from the region and leave the rest of it on the network: a region that is half dead.
        #[arg(long, value_name = "PART", conflicts_with = "kill_database")]
        only: Option<Part>,
    },
    /// End an outage: traffic flows again, and the region's database rejoins as standby if another has taken over.
    Heal {
        /// us-east-1, us-east-2 or us-west-2.
        region: Region,
    },
    /// Hold back the replication into a region's database, so that its standby falls behind.
    Lag {
        /// us-east-1 or us-east-2.
        region: Region,
        /// Let it go again.
        #[arg(long)]
        off: bool,
    },
    /// Print the shell commands that make `aws`, `curl` and the SDKs use the local cloud.
    ///
    /// Use it as: eval "$(understudy local env)"
    Env,
    /// Stop the local cloud and remove its files, but not its logs. Works whatever became of it.
    Stop,
    /// The daemon.
    #[command(hide = true)]
    Serve {
        /// End when standard input ends.
        #[arg(long, conflicts_with = "until_detached")]
        until_stdin_closes: bool,
        /// End when standard input ends without a farewell.
        #[arg(long)]
        until_detached: bool,
        #[arg(long, default_value_t = TIME_SCALE)]
        time_scale: f64,
        #[arg(long)]
        enforce_policies: bool,
    },
    /// The process that ends everything if the daemon is killed.
    #[command(hide = true)]
    Guardian,
}

/// Runs the command.
pub async fn run(args: LocalArgs, output: Output) -> Result<(), Failure> {
    let LocalArgs { dir, command } = args;
    let ui = Ui::new(output);
    match command {
        LocalCommand::Start {
            time_scale,
            enforce_policies,
        } => start(&ui, &dir, time_scale, enforce_policies).await,
        LocalCommand::Status => {
            let status = cloud(&dir)
                .await?
                .status()
                .await
                .map_err(|error| Failure::new(&error))?;
            ui.result(&status, describe(&status));
            Ok(())
        }
        LocalCommand::Outage {
            region,
            only: Some(part),
            ..
        } => {
            let outcome = cloud(&dir).await?.take(region, part).await;
            outcome.map_err(|error| Failure::new(&error))?;
            let what = match part {
                Part::Database => "lost its database",
                Part::Writes => "has a database that takes no commit",
                Part::Tables => "is cut off from the other replicas of the global tables",
            };
            let text = format!("{region} {what}; `understudy local heal {region}` ends it");
            ui.result(&json!({ "region": region, "cut": false, "only": part }), text);
            Ok(())
        }
        LocalCommand::Outage {
            region,
            kill_database,
            only: None,
        } => {
            let outcome = cloud(&dir).await?.outage(region, kill_database).await;
            outcome.map_err(|error| Failure::new(&error))?;
            let database = if kill_database {
                " and its database is killed"
            } else {
                ""
            };
            let text = format!("{region} is cut off{database}; `understudy local heal {region}` ends it");
            ui.result(
                &json!({ "region": region, "cut": true, "database_killed": kill_database }),
                text,
            );
            Ok(())
        }
        LocalCommand::Heal { region } => {
            cloud(&dir)
                .await?
                .heal(region)
                .await
                .map_err(|error| Failure::new(&error))?;
            ui.result(
                &json!({ "region": region, "cut": false }),
                format!("{region} is joined again"),
            );
            Ok(())
        }
        LocalCommand::Lag { region, off } => {
            cloud(&dir)
                .await?
                .lag(region, !off)
                .await
                .map_err(|error| Failure::new(&error))?;
            let what = if off { "flows" } else { "is held" };
            let text = format!("the replication into {region} {what}");
            ui.result(&json!({ "region": region, "lagging": !off }), text);
            Ok(())
        }
        LocalCommand::Env => {
            let environment = cloud(&dir).await?.environment();
            let map: serde_json::Map<_, _> = environment
                .iter()
                .map(|(name, value)| ((*name).to_owned(), json!(value)))
                .collect();
            ui.result(&map, exports(&environment));
            Ok(())
        }
        LocalCommand::Stop => {
            let ended = local::stop(&dir).await.map_err(failure)?;
            let text = if ended {
                "the local cloud is stopped"
            } else {
                "no local cloud runs"
            };
            ui.result(
                &json!({ "stopped": ended }),
                format!("{text} in `{}`", dir.display()),
            );
            Ok(())
        }
        LocalCommand::Serve {
            until_stdin_closes,
            until_detached,
            time_scale,
            enforce_policies,
        } => {
            let lifetime = match (until_stdin_closes, until_detached) {
                (true, _) => Lifetime::UntilStdinCloses,
                (_, true) => Lifetime::UntilDetached,
                _ => Lifetime::UntilStopped,
            };
            serve(ServeOptions {
                directory: dir,
                lifetime,
                time_scale,
                enforce_policies,
            })
            .await
        }
        LocalCommand::Guardian => {
            let layout = Layout::new(&dir).map_err(|error| Failure::new(&error))?;
            guardian::watch(&layout).map_err(|error| Failure::new(&error))
        }
    }
}

async fn cloud(dir: &Path) -> Result<Cloud, Failure> {
    local::attach(dir).await.map_err(failure)
}

/// The error with what to do next.
fn failure(error: LocalError) -> Failure {
    let failure = Failure::new(&error);
    match error {
        LocalError::NotRunning(_) => {
            failure.help("start one with `understudy local start`, or name its directory with --dir")
        }
        LocalError::Taken(_) | LocalError::Lenient(_) => {
            failure.help("stop it with `understudy local stop`, or name another directory with --dir")
        }
        _ => failure,
    }
}

async fn start(ui: &Ui, dir: &Path, time_scale: f64, enforce_policies: bool) -> Result<(), Failure> {
    #[derive(Serialize)]
    struct Started {
        started: bool,
        directory: PathBuf,
        endpoint_url: String,
        cloud: PathBuf,
    }
    let running = local::attach(dir).await.is_ok();
    let mut options = StartOptions::new(dir).enforce_policies(enforce_policies);
    options.time_scale = time_scale;
    let (sender, mut receiver) = tokio::sync::mpsc::unbounded_channel::<String>();
    options = options.progress(move |text| {
        let _ = sender.send(text.to_owned());
    });
    let starting = local::start(options);
    tokio::pin!(starting);
    let cloud = loop {
        tokio::select! {
            outcome = &mut starting => break outcome.map_err(failure)?,
            Some(text) = receiver.recv() => ui.step(text),
            _ = tokio::signal::ctrl_c() => {
                ui.warn("interrupted; cleaning up");
                local::stop(dir).await.map_err(failure)?;
                return Err(Failure::text("interrupted"));
            }
        }
    };
    let text = if running {
        format!("the local cloud runs in `{}` already", dir.display())
    } else {
        ui.done("the local cloud is ready");
        let dir = if dir == Path::new(DIRECTORY) {
            String::new()
        } else {
            format!(" --dir {}", dir.display())
        };
        format!(
            "use it with    eval \"$(understudy local env{dir})\"\nstop it with   understudy local stop{dir}"
        )
    };
    let layout = Layout::new(dir).map_err(|error| Failure::new(&error))?;
    let started = Started {
        started: !running,
        directory: cloud.directory,
        endpoint_url: cloud.endpoint_url,
        cloud: layout.cloud(),
    };
    ui.result(&started, text);
    Ok(())
}

/// The daemon's whole life; its standard error and its log are one file.
async fn serve(options: ServeOptions) -> Result<(), Failure> {
    let layout = Layout::new(&options.directory).map_err(|error| Failure::new(&error))?;
    fs::create_dir_all(layout.logs()).map_err(|error| Failure::new(&error))?;
    let path = layout.log("daemon");
    let log = fs::OpenOptions::new()
        .create(true)
        .append(true)
        .open(path)
        .map_err(|error| Failure::new(&error))?;
    let logs = tracing_subscriber::fmt::layer()
        .with_ansi(false)
        .with_writer(Mutex::new(log));
    // Only a second call fails, and then the first one logs.
    let _ = tracing_subscriber::registry()
        .with(logs)
        .with(continuity::aws::log_filter())
        .try_init();
    let outcome = supervisor::serve(options, announce).await;
    if let Err(error) = &outcome {
        let text = continuity::error::chain(error);
        tracing::error!(error = %text, "the local cloud did not start");
        announce(Announcement::Failed(text));
    }
    outcome.map_err(|error| Failure::new(&error))
}

/// A line for whoever started the daemon; it may have gone.
fn announce(announcement: Announcement) {
    let mut line = serde_json::to_vec(&announcement).expect("an announcement can be written as JSON");
    line.push(b'\n');
    let mut stdout = io::stdout();
    let _ = stdout.write_all(&line).and_then(|()| stdout.flush());
}

/// Shell commands; single quotes keep every value as it is.
fn exports(environment: &[(&str, String)]) -> String {
    let quoted = |value: &str| format!("'{}'", value.replace('\'', r"'\''"));
    let lines: Vec<String> = environment
        .iter()
        .map(|(name, value)| format!("export {name}={}", quoted(value)))
        .collect();
    lines.join("\n")
}

fn describe(status: &Status) -> String {
    let mut lines = vec![
        format!("directory   {}", status.directory.display()),
        format!("endpoint    {}", status.endpoint_url),
        format!("dns         {}  {}", status.dns, status.zones.join(" ")),
    ];
    for (region, door) in &status.front_doors {
        let mut marks = Vec::new();
        if let Some(database) = status.databases.get(region) {
            marks.push(format!("database {} {}", database.address, database.role));
            if let Some(bytes) = database.standby_lag_bytes {
                marks.push(format!("standby {bytes} bytes behind"));
            }
        }
        if status.cut.contains(region) {
            marks.push("CUT OFF".to_owned());
        }
        for (regions, mark) in [
            (&status.lagging, "REPLICATION HELD"),
            (&status.tableless, "TABLES CUT OFF"),
            (&status.stuck, "TAKES NO COMMIT"),
        ] {
            if regions.contains(region) {
                marks.push(mark.to_owned());
            }
        }
        lines.push(format!("{region:<11} https {door}  {}", marks.join("  ")));
    }
    for (name, part) in &status.parts {
        if !part.running {
            lines.push(format!("{name:<11} NOT RUNNING"));
        }
    }
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_with_quotes_survives_the_shell() {
        assert_eq!(
            exports(&[("A", "it's".to_owned()), ("B", "x".to_owned())]),
            "export A='it'\\''s'\nexport B='x'"
        );
    }
}
