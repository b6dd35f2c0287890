//! The command `drill`: exercises, and the evidence of them.

use std::path::PathBuf;
use std::sync::Arc;

use clap::{Args, Subcommand};

use crate::drill::{self, Wish};
use crate::exercises;
use crate::failure::Failure;
use crate::stack::{Stack, StackOptions};
use crate::ui::Ui;

/// Exercises and their evidence.
#[derive(Debug, Args)]
pub struct Drill {
    #[command(subcommand)]
    command: DrillCommand,
}

#[derive(Debug, Subcommand)]
enum DrillCommand {
    Run(Run),
    List(List),
    Show(Show),
    Schedule(Schedule),
}

/// Runs an exercise now.
///
/// It does not begin while the stack is in maintenance or another change or exercise runs, and changes nothing before synthetic
/// payments were acknowledged. The region that takes over is left at once when its payments fail or are slow. Customers see 503 with
/// Retry-After for some seconds, twice; when a region is isolated they wait as long as a failover takes. Interrupt this command at any
/// moment, the drill goes on; if its workflow dies, the next evaluation of readiness starts it again.
///
/// The exit code is 0 only when the drill came to its end with its objectives met.
#[derive(Debug, Args)]
struct Run {
    #[command(flatten)]
    stack: StackOptions,
    /// What is exercised, instead of the configuration's `drill.kind`.
    ///
    /// `readiness` looks at everything that a change needs, calls the functions and pays, and moves nothing. `switchover` is a planned
    /// change to the other region and back. `isolation` cuts the active region off: the observers take over, the region is joined
    /// again, and the stack goes home.
    #[arg(long, value_parser = ["readiness", "switchover", "isolation"])]
    kind: Option<String>,
    /// How long the other region serves, instead of the configuration's `drill.hold_seconds`.
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(0..=1800))]
    hold: Option<u64>,
    /// Stay until the end; the default.
    #[arg(long, overrides_with = "no_wait")]
    wait: bool,
    /// Start it only.
    #[arg(long)]
    no_wait: bool,
}

/// Shows when drills run.
#[derive(Debug, Args)]
struct Schedule {
    #[command(flatten)]
    stack: StackOptions,
}

/// Lists failovers, switchovers and drills, the newest first.
///
/// Reads the data buckets of both regions; one of them is enough, so it works while a region is down.
#[derive(Debug, Args)]
struct List {
    #[command(flatten)]
    stack: StackOptions,
}

/// Shows the evidence of an exercise.
///
/// As text it is a summary; `--output json` prints the whole document. The page can be read in any browser and printed.
#[derive(Debug, Args)]
struct Show {
    #[command(flatten)]
    stack: StackOptions,
    /// The exercise, as `drill list` shows it.
    id: String,
    /// Open the page in a browser.
    #[arg(long)]
    open: bool,
    /// Write the page to this file.
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
}

impl Drill {
    /// Runs the command.
    pub async fn run(self, ui: &Arc<Ui>) -> Result<(), Failure> {
        match self.command {
            DrillCommand::Run(args) => {
                let wish = Wish {
                    kind: args.kind,
                    hold_seconds: args.hold,
                    wait: args.wait || !args.no_wait,
                };
                let ran = drill::run(&opened(&args.stack).await?, &wish, ui).await?;
                ui.result(&ran, drill::describe(&ran));
            }
            DrillCommand::Schedule(args) => {
                let plan = drill::schedule(&opened(&args.stack).await?).await?;
                ui.result(&plan, drill::describe_schedule(&plan));
            }
            DrillCommand::List(args) => args.run(ui).await?,
            DrillCommand::Show(args) => args.run(ui).await?,
        }
        Ok(())
    }
}

impl List {
    async fn run(self, ui: &Arc<Ui>) -> Result<(), Failure> {
        let stack = Stack::open(&self.stack).await?;
        let list = exercises::list(&stack).await?;
        ui.result(&list, exercises::describe_list(&list));
        Ok(())
    }
}

impl Show {
    async fn run(self, ui: &Arc<Ui>) -> Result<(), Failure> {
        let stack = Stack::open(&self.stack).await?;
        let evidence = exercises::show(&stack, &self.id).await?;
        if let Some(file) = &self.html {
            exercises::write_page(&evidence, file)?;
        }
        if self.open {
            let file = exercises::open_page(&evidence)?;
            ui.step(format!("the page is {}", file.display()));
        }
        ui.result(&evidence, exercises::describe(&evidence));
        Ok(())
    }
}

async fn opened(options: &StackOptions) -> Result<Stack, Failure> {
    let stack = Stack::open(options).await?;
    // What is deployed counts, not the file.
    Ok(match stack.configuration().await? {
        Some(deployed) => stack.as_deployed(&deployed),
        None => stack,
    })
}
