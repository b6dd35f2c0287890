//! What `understudy` understands on its command line.

pub mod bench;
pub mod drill;
pub mod local;
pub mod lost_tail;
pub mod payments;
pub mod prepare;
pub mod readiness;
pub mod stack;
pub mod takeover;

use std::sync::Arc;

use clap::{Parser, Subcommand};
use infra::waiting::Choice;

use crate::failure::Failure;
use crate::ui::{Output, Ui};

/// A payment service that deploys itself to two AWS regions and takes over when one fails.
#[derive(Debug, Parser)]
#[command(
    name = "understudy",
    version,
    after_help = "Exit codes: 0 all is well, 1 something failed or the command line makes no sense, 2 `plan` found changes."
)]
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
    Plan(stack::Plan),
    Up(stack::Up),
    Down(stack::Down),
    Status(stack::Status),
    Readiness(readiness::Readiness),
    Failover(takeover::Failover),
    Failback(takeover::Failback),
    Approve(takeover::Approve),
    /// Runs the step again at which a workflow is paused.
    Retry(takeover::Answer),
    /// Goes on without the step at which a workflow is paused, where that is possible.
    Skip(takeover::Answer),
    /// Ends the workflow that is paused, where that is safe.
    Abort(takeover::Answer),
    Maintenance(takeover::Maintenance),
    Drill(drill::Drill),
    LostTail(lost_tail::LostTail),
    Keys(stack::Keys),
    Pay(payments::Pay),
    Accounts(payments::Accounts),
    Entries(payments::Entries),
    Bench(bench::Bench),
    /// Run AWS on this machine: two regions and a witness, with real databases
    Local(local::LocalArgs),
}

/// How a command ended that did not fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// All is well.
    Done,
    /// `plan` found changes.
    Changes,
}

impl Ending {
    /// The exit code. 1 is for what failed, a command line that makes no sense among it: 2 means one thing only, so that a
    /// pipeline can rely on it.
    pub fn code(self) -> u8 {
        match self {
            Ending::Done => 0,
            Ending::Changes => 2,
        }
    }
}

/// Runs the command.
///
/// # Errors
/// The command failed.
pub async fn run(cli: Cli) -> Result<Ending, Failure> {
    let ui = Arc::new(Ui::new(cli.output));
    let done = match cli.command {
        Command::Plan(args) => return args.run(&ui).await,
        Command::Demo(args) => args.run(&ui).await,
        Command::Init(args) => args.run(&ui),
        Command::Build(args) => args.run(&ui).await,
        Command::Doctor(args) => args.run(&ui).await,
        Command::Up(args) => args.run(&ui).await,
        Command::Down(args) => args.run(&ui).await,
        Command::Status(args) => args.run(&ui).await,
        Command::Readiness(args) => args.run(&ui).await,
        Command::Failover(args) => args.run(&ui).await,
        Command::Failback(args) => args.run(&ui).await,
        Command::Approve(args) => args.run(&ui).await,
        Command::Retry(args) => args.run(Choice::Retry, &ui).await,
        Command::Skip(args) => args.run(Choice::Skip, &ui).await,
        Command::Abort(args) => args.run(Choice::Abort, &ui).await,
        Command::Maintenance(args) => args.run(&ui).await,
        Command::Drill(args) => args.run(&ui).await,
        Command::LostTail(args) => args.run(&ui).await,
        Command::Keys(args) => args.run(&ui).await,
        Command::Pay(args) => args.run(&ui).await,
        Command::Accounts(args) => args.run(&ui).await,
        Command::Entries(args) => args.run(&ui).await,
        Command::Bench(args) => args.run(&ui).await,
        Command::Local(args) => local::run(args, cli.output).await,
    };
    done.map(|()| Ending::Done)
}
