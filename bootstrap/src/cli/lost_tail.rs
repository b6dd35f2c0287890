//! `understudy lost-tail`.

use std::sync::Arc;

use clap::Args;

use crate::failure::Failure;
use crate::lost_tail;
use crate::stack::{Stack, StackOptions};
use crate::ui::Ui;

/// Shows what only the old region's database had when a failover took over.
///
/// A database replicates a moment after it commits, so a region that fails
/// takes its newest entries with it. Of those none was acknowledged and lost:
/// what was acknowledged is in the journal, and the failover posted it again.
/// When the old region is back, a workflow keeps a snapshot of what its
/// database held, compares it with the ledger that serves, and tells of each
/// entry that existed only there, by payment and amount, what became of it:
///
///   recovered       it was in the journal, as is all that was acknowledged,
///                   and was posted again under the same id
///   executed-again  it was not acknowledged; its client tried again and has
///                   a payment with another id
///   gone            it was not acknowledged, and nobody tried again
///
/// Exits with 0 when there is a report. Exits with 1 when there was no such
/// failover, or when the comparison has not come to its end: then the error
/// says how far it is.
#[derive(Debug, Args)]
#[command(
    verbatim_doc_comment,
    after_help = "Examples:\n  understudy lost-tail                 of the newest failover\n  understudy lost-tail 4               of the failover that began epoch 4\n  understudy lost-tail --output json   every entry, for a program\n  understudy lost-tail 4 --again       compare once more, after the comparison broke off"
)]
pub struct LostTail {
    /// The epoch that the failover began, as `understudy drill list` shows it in the id; the newest when none is given.
    #[arg(value_name = "EPOCH", value_parser = clap::value_parser!(u64).range(1..))]
    epoch: Option<u64>,
    /// Start the comparison again, where the one before broke off or somebody doubts it. It changes nothing that serves.
    #[arg(long)]
    again: bool,
    #[command(flatten)]
    stack: StackOptions,
}

impl LostTail {
    /// Runs the command.
    pub async fn run(self, ui: &Arc<Ui>) -> Result<(), Failure> {
        let stack = Stack::open(&self.stack).await?;
        // What is deployed counts, not the file.
        let stack = match stack.configuration().await? {
            Some(deployed) => stack.as_deployed(&deployed),
            None => stack,
        };
        if self.again {
            let started = lost_tail::again(&stack, self.epoch).await?;
            ui.result(&started, lost_tail::describe_started(&started));
        } else {
            let report = lost_tail::lost_tail(&stack, self.epoch).await?;
            ui.result(&report, lost_tail::describe(&report));
        }
        Ok(())
    }
}
