//! Takes every action in turn from every role of a stack in a local cloud, and shows the step that then fails and what it says.

use std::io::Write;
use std::process::ExitCode;
use std::time::Instant;

use clap::Parser;
use understudy_tests::policies::grants::Grant;
use understudy_tests::policies::series::{Choice, Removal, chosen, removal};
use understudy_tests::policies::stage::{NO_TAKEOVER, Stage};
use understudy_tests::policies::steps::{Need, Step};
use understudy_tests::policies::takeover;

/// Take each action from each role in turn; the step that needs it must fail and name role, action and resource.
///
/// Starts local clouds of its own that enforce policies, and removes them. A role that two regions have is taken apart in one.
/// Exits with 1 when a step did not fail as it must, or when nothing is known that needs a grant. Grants that nothing in a local
/// cloud uses are printed with the reason why they are there.
#[derive(Debug, Parser)]
struct Arguments {
    /// Only grants whose "ROLE ACTION" contains this.
    #[arg(long, value_name = "TEXT")]
    only: Option<String>,
    /// Only so many grants, as many of each step as can be, chosen by the seed. Leaves out what takes a minute or more.
    #[arg(long, value_name = "COUNT")]
    sample: Option<usize>,
    /// What chooses the sample.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// So many local clouds side by side; each keeps about one processor busy.
    #[arg(long, value_name = "COUNT", default_value_t = 1)]
    jobs: usize,
    /// Only print the grants, each with the step that needs it.
    #[arg(long)]
    list: bool,
}

fn say(text: &str) {
    // Nobody may be listening.
    let _ = writeln!(std::io::stderr(), "{text}");
}

fn line(removal: &Removal) -> String {
    let Removal { grant, step, outcome } = removal;
    match outcome {
        Ok(said) => format!("ok   {grant} [{step}] {said}"),
        Err(why) => format!("FAIL {grant} [{step}] {why}"),
    }
}

/// What is to be tried, and what came of it. Several stages take from it.
struct Series {
    todo: std::sync::Mutex<Vec<(Grant, Vec<Step>)>>,
    total: usize,
    began: Instant,
    done: std::sync::Mutex<Vec<Removal>>,
}

impl Series {
    fn next(&self) -> Option<(Grant, Vec<Step>)> {
        self.todo.lock().expect("nobody panics").pop()
    }

    fn told(&self, removal: Removal) {
        let mut done = self.done.lock().expect("nobody panics");
        done.push(removal);
        if let Some(removal) = done.last() {
            let seconds = self.began.elapsed().as_secs();
            say(&format!(
                "{}/{} {seconds} s {}",
                done.len(),
                self.total,
                line(removal)
            ));
        }
    }

    async fn work(&self, mut stage: Stage) {
        while let Some((grant, steps)) = self.next() {
            self.told(removal(&mut stage, &grant, &steps).await);
        }
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
    let first = Stage::deploy(NO_TAKEOVER).await;
    let (mut todo, mut takeover, mut reviewed, mut unknown) = (Vec::new(), false, 0, 0);
    for grant in chosen(&first, &choice).await {
        let need = Need::of(&grant);
        if arguments.list {
            say(&format!("{}: {grant}", need.name()));
        }
        match need {
            Need::Steps(steps) => todo.push((grant, steps)),
            Need::Takeover => takeover = true,
            Need::Reviewed(reason) => {
                reviewed += 1;
                say(&format!("reviewed {grant}: {reason}"));
            }
            Need::Unknown => {
                unknown += 1;
                say(&format!("FAIL {grant}: nothing is known that needs it"));
            }
        }
    }
    if arguments.list {
        return ExitCode::SUCCESS;
    }
    todo.reverse();
    let series = Series {
        total: todo.len() + if takeover { takeover::ACTIONS } else { 0 },
        todo: todo.into(),
        began: Instant::now(),
        done: Vec::new().into(),
    };
    let more = 1..arguments.jobs.max(1);
    let workers = more.map(async |_| series.work(Stage::deploy(NO_TAKEOVER).await).await);
    let work = futures::future::join(series.work(first), futures::future::join_all(workers));
    tokio::select! {
        _ = work => {}
        _ = tokio::signal::ctrl_c() => {
            say("interrupted: the local clouds are removed");
            return ExitCode::FAILURE;
        }
    }
    if takeover {
        say("deploying another stack, for a region that takes over");
        for removal in takeover::run(&mut Stage::deploy(takeover::CONFIGURATION).await).await {
            series.told(removal);
        }
    }
    let removals = series.done.into_inner().expect("nobody panics");
    let failed = removals.iter().filter(|one| one.outcome.is_err()).count();
    say(&format!(
        "{} actions were taken away: {} steps failed as they must, {failed} did not. {reviewed} grants are there for a reason that \
         a local cloud does not have, {unknown} for none that is known.",
        removals.len(),
        removals.len() - failed,
    ));
    if failed + unknown == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}
