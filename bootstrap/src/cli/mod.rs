//! What `understudy` understands on its command line.

pub mod local;
pub mod prepare;
pub mod stack;

use std::sync::Arc;

use clap::{Parser, Subcommand};

use crate::failure::Failure;
use crate::ui::{Output, Ui};

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
    Demo(stack::Demo),
    Init(prepare::Init),
    Build(prepare::Build),
    Doctor(prepare::Doctor),
    Up(stack::Up),
    Down(stack::Down),
    Status(stack::Status),
    Keys(stack::Keys),
    /// Run AWS on this machine: two regions and a witness, with real databases
    Local(local::LocalArgs),
}

/// Runs the command.
pub async fn run(cli: Cli) -> Result<(), Failure> {
    let ui = Arc::new(Ui::new(cli.output));
    match cli.command {
        Command::Demo(args) => args.run(&ui).await,
        Command::Init(args) => args.run(&ui),
        Command::Build(args) => args.run(&ui).await,
        Command::Doctor(args) => args.run(&ui).await,
        Command::Up(args) => args.run(&ui).await,
        Command::Down(args) => args.run(&ui).await,
        Command::Status(args) => args.run(&ui).await,
        Command::Keys(args) => args.run(&ui).await,
        Command::Local(args) => local::run(args, cli.output).await,
    }
}
