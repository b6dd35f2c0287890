//! `understudy readiness`.

use std::sync::Arc;

use clap::Args;

use crate::failure::Failure;
use crate::readiness;
use crate::stack::{Stack, StackOptions};
use crate::ui::Ui;

/// Shows whether the other region could take over now.
///
/// Each serving region evaluates it on a schedule: databases, replication, functions, workflows, permissions, observers, and every
/// resource against the blueprint. This command shows what was found last, what failed first, each with what to do about it. Exits
/// with 1 when a region is not ready, or was not evaluated for twice the interval.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  understudy readiness                 what was found last\n  understudy readiness --now           evaluate now, in both regions\n  understudy readiness --output json   every finding, for a pipeline"
)]
pub struct Readiness {
    #[command(flatten)]
    stack: StackOptions,
    /// Evaluate now, in both regions, and wait for it.
    #[arg(long)]
    now: bool,
}

impl Readiness {
    /// Runs the command.
    pub async fn run(self, ui: &Arc<Ui>) -> Result<(), Failure> {
        let stack = Stack::open(&self.stack).await?;
        let seen = readiness::readiness(&stack, self.now, ui).await?;
        ui.result(&seen, readiness::describe(&seen));
        if seen.ready {
            return Ok(());
        }
        let not: Vec<&str> = seen
            .regions
            .iter()
            .filter(|(_, seen)| !seen.ready || seen.stale)
            .map(|(region, _)| region.as_str())
            .collect();
        Err(
            Failure::text(format!("not ready, or not known to be: {}", not.join(", ")))
                .help("each finding above says what to do; `understudy readiness --now` looks again"),
        )
    }
}
