//! What `understudy` understands on its command line.

pub mod local;

use clap::{Parser, Subcommand};

use crate::{failure::Failure, ui::Output};

/// A payment service that deploys itself to two AWS regions and takes over when one fails.
#[derive(Debug, Parser)]
#[command(name = "understudy", version)]
pub struct Cli {
    /// How results are printed.
    #[arg(long, global = true, value_enum, default_value_t)]
    pub output: Output,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run AWS on this machine: two regions and a witness, with real databases
    Local(local::LocalArgs),
}

/// Runs the command.
pub async fn run(cli: Cli) -> Result<(), Failure> {
    match cli.command {
        Command::Local(args) => local::run(args, cli.output).await,
    }
}
