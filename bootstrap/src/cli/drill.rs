//! `understudy drill` on the command line.

use std::path::PathBuf;
use std::sync::Arc;

use clap::{Args, Subcommand};

use crate::drill;
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
    List(List),
    Show(Show),
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
            DrillCommand::List(args) => args.run(ui).await,
            DrillCommand::Show(args) => args.run(ui).await,
        }
    }
}

impl List {
    async fn run(self, ui: &Arc<Ui>) -> Result<(), Failure> {
        let stack = Stack::open(&self.stack).await?;
        let list = drill::list(&stack).await?;
        ui.result(&list, drill::describe_list(&list));
        Ok(())
    }
}

impl Show {
    async fn run(self, ui: &Arc<Ui>) -> Result<(), Failure> {
        let stack = Stack::open(&self.stack).await?;
        let evidence = drill::show(&stack, &self.id).await?;
        if let Some(file) = &self.html {
            drill::write_page(&evidence, file)?;
        }
        if self.open {
            let file = drill::open_page(&evidence)?;
            ui.step(format!("the page is {}", file.display()));
        }
        ui.result(&evidence, drill::describe(&evidence));
        Ok(())
    }
}
