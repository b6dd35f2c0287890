//! The commands about the active region: `failover`, `failback`, `approve`, `retry`, `skip`, `abort`, `maintenance`.

use std::sync::Arc;

use clap::{Args, Subcommand};
use infra::waiting::Choice;

use crate::failure::Failure;
use crate::stack::{Stack, StackOptions};
use crate::takeover::{self, Mode, Wish};
use crate::ui::Ui;

/// Moves the active region to another one.
///
/// Graceful, the default, loses nothing and needs both regions: the active region drains (503 with Retry-After for some seconds),
/// its database switches over, the other region opens. Ungraceful does not ask the region that serves: it is cut off by raising
/// the epoch, and acknowledged payments that its database did not send come from the journal. Either way a payment that was
/// acknowledged is served afterwards, once. A region whose ledger is behind is never taken over to.
///
/// The workflow runs in the region that takes over; interrupt this command at any moment, it goes on.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  understudy failover --to us-east-2                       a planned change\n  understudy failover --to us-east-2 --or-ungraceful       planned if possible, unplanned if not\n  understudy failover --to us-east-2 --mode ungraceful     the home region is in flames"
)]
pub struct Failover {
    #[command(flatten)]
    stack: StackOptions,
    /// The region that is to serve.
    #[arg(long, value_name = "REGION")]
    to: String,
    /// With both regions and without loss, or at once.
    #[arg(long, value_enum, default_value_t)]
    mode: Mode,
    /// A graceful change that cannot be made goes on as an ungraceful one.
    #[arg(long)]
    or_ungraceful: bool,
    /// Why, for the evidence.
    #[arg(long, value_name = "TEXT", default_value = "an operator started it")]
    reason: String,
}

impl Failover {
    /// Runs the command.
    pub async fn run(self, ui: &Arc<Ui>) -> Result<(), Failure> {
        let wish = Wish {
            to_region: self.to,
            mode: self.mode,
            or_ungraceful: self.or_ungraceful && self.mode == Mode::Graceful,
            reason: self.reason,
        };
        let stack = opened(&self.stack).await?;
        run(&stack, &wish, ui).await
    }
}

/// Moves the active region back home, without loss.
///
/// A switchover to the home region, once it has been rebuilt as the standby and has caught up.
#[derive(Debug, Args)]
pub struct Failback {
    #[command(flatten)]
    stack: StackOptions,
    /// Why, for the evidence.
    #[arg(long, value_name = "TEXT", default_value = "back to the home region")]
    reason: String,
}

impl Failback {
    /// Runs the command.
    pub async fn run(self, ui: &Arc<Ui>) -> Result<(), Failure> {
        let stack = opened(&self.stack).await?;
        let wish = Wish {
            to_region: stack.home().to_owned(),
            mode: Mode::Graceful,
            or_ungraceful: false,
            reason: self.reason,
        };
        run(&stack, &wish, ui).await
    }
}

async fn opened(options: &StackOptions) -> Result<Stack, Failure> {
    let stack = Stack::open(options).await?;
    // Where the stack is says what is deployed, not the file.
    Ok(match stack.configuration().await? {
        Some(deployed) => stack.as_deployed(&deployed),
        None => stack,
    })
}

async fn run(stack: &Stack, wish: &Wish, ui: &Ui) -> Result<(), Failure> {
    let moved = takeover::move_to(stack, wish, ui).await?;
    ui.result(&moved, takeover::describe(&moved));
    Ok(())
}

/// Approves the failover that is proposed, or declines it.
///
/// With `failover.decider = "approve"`, and within blocked windows, a failover waits for a person: the alert topic tells why and how
/// long. What was seen then is assessed again before anything changes.
#[derive(Debug, Args)]
pub struct Approve {
    #[command(flatten)]
    stack: StackOptions,
    /// Decline it: nothing changes.
    #[arg(long)]
    decline: bool,
    /// A note for the evidence.
    #[arg(long, value_name = "TEXT", default_value = "")]
    note: String,
}

impl Approve {
    /// Runs the command.
    pub async fn run(self, ui: &Arc<Ui>) -> Result<(), Failure> {
        let choice = if self.decline {
            Choice::Decline
        } else {
            Choice::Approve
        };
        answer(&self.stack, choice, &self.note, ui).await
    }
}

/// An answer to a workflow whose step failed.
#[derive(Debug, Args)]
pub struct Answer {
    #[command(flatten)]
    stack: StackOptions,
    /// A note for the evidence.
    #[arg(long, value_name = "TEXT", default_value = "")]
    note: String,
}

impl Answer {
    /// Runs the command.
    pub async fn run(self, choice: Choice, ui: &Arc<Ui>) -> Result<(), Failure> {
        answer(&self.stack, choice, &self.note, ui).await
    }
}

async fn answer(options: &StackOptions, choice: Choice, note: &str, ui: &Ui) -> Result<(), Failure> {
    let stack = opened(options).await?;
    let answered = takeover::answer(&stack, choice, note).await?;
    let text = match &answered.step {
        Some(step) => format!("`{}`: {choice} at step {step}", answered.execution),
        None => format!("`{}`: {choice}", answered.execution),
    };
    ui.result(&answered, text);
    Ok(())
}

/// Switches the maintenance lock.
///
/// While it is on, no failover begins by itself and no drill runs. What an operator starts runs all the same.
#[derive(Debug, Args)]
pub struct Maintenance {
    #[command(subcommand)]
    command: MaintenanceCommand,
}

#[derive(Debug, Subcommand)]
enum MaintenanceCommand {
    /// No failover begins by itself.
    On(MaintenanceOptions),
    /// The observers decide again.
    Off(MaintenanceOptions),
}

#[derive(Debug, Args)]
struct MaintenanceOptions {
    #[command(flatten)]
    stack: StackOptions,
}

impl Maintenance {
    /// Runs the command.
    pub async fn run(self, ui: &Arc<Ui>) -> Result<(), Failure> {
        let (on, options) = match self.command {
            MaintenanceCommand::On(options) => (true, options.stack),
            MaintenanceCommand::Off(options) => (false, options.stack),
        };
        let record = takeover::maintenance(&opened(&options).await?, on).await?;
        let text = if on {
            "maintenance is on: no failover begins by itself until `understudy maintenance off`"
        } else {
            "maintenance is off: the observers decide again"
        };
        ui.result(&record, text);
        Ok(())
    }
}
