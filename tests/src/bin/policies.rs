//! Takes every action in turn from every role of a stack in a local cloud, and shows the step that then fails and what it says.

use std::io::Write;
use std::process::ExitCode;

use clap::Parser;
use understudy_tests::policies::series::{Choice, Removal, run};
use understudy_tests::policies::stage::{NO_TAKEOVER, Stage};

/// Take each action from each role in turn; the step that needs it must fail and name role, action and resource.
///
/// Starts a local cloud of its own that enforces policies, and removes it. Exits with 1 when a step did not fail as it must, and
/// tells of the actions that no step of the series needs; the end-to-end test of the grants says who needs those.
#[derive(Debug, Parser)]
struct Arguments {
    /// Only grants whose "ROLE ACTION" contains this.
    #[arg(long, value_name = "TEXT")]
    only: Option<String>,
    /// Only so many grants, chosen by the seed.
    #[arg(long, value_name = "COUNT")]
    sample: Option<usize>,
    /// What chooses the sample.
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

fn say(text: &str) {
    // Nobody may be listening.
    let _ = writeln!(std::io::stderr(), "{text}");
}

fn line(removal: &Removal) -> String {
    let step = removal.step.unwrap_or("no step");
    match &removal.outcome {
        Ok(said) => format!("ok   {} [{step}] {said}", removal.grant),
        Err(why) => format!("FAIL {} [{step}] {why}", removal.grant),
    }
}

#[tokio::main]
async fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let choice = Choice {
        filter: arguments.only,
        sample: arguments.sample,
        seed: arguments.seed,
    };
    say("deploying a stack in a local cloud that enforces policies");
    let mut stage = Stage::deploy(NO_TAKEOVER).await;
    let removals = run(&mut stage, &choice, |number, all, removal| {
        say(&format!("{number}/{all} {}", line(removal)));
    })
    .await;
    let count = |wanted: fn(&Removal) -> bool| removals.iter().filter(|one| wanted(one)).count();
    let failed = count(|one| one.step.is_some() && one.outcome.is_err());
    say(&format!(
        "{} grants: {} steps failed as they must, {failed} did not, {} grants have no step here",
        removals.len(),
        count(|one| one.outcome.is_ok()),
        count(|one| one.step.is_none()),
    ));
    if failed == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}
