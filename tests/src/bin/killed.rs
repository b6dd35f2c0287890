//! `killed`: kills `up`, `down` and the coordinator after each of their calls in turn, and checks that running again converges.
#![allow(clippy::print_stdout, clippy::print_stderr)]

use std::process::ExitCode;
use std::sync::Arc;

use bootstrap::ui::Output;
use clap::Parser;
use tokio::sync::watch;
use understudy_tests::killed::{Command, Options, Summary, Verdict, Victim, run};

/// Kills `up`, `down` and the coordinator in the middle of their work, and checks that running again converges.
///
/// Learns from an undisturbed deployment on a local cloud which calls are made. Then, for each of them: runs the command, lets the
/// call take effect, kills its caller before the answer comes, runs the command again, and looks. After `up`: another `up`
/// changes nothing, the inventory is that of the undisturbed deployment with nothing twice, every resource is in order, and the
/// stack serves. After `down`: the inventory is empty. A deployment is struck once on its way up and once on its way down, or several times, far
/// apart, with `--together`.
///
/// Only calls that write are struck, unless told otherwise: being killed after a read is being killed after the write before it.
/// Exits with 1 when something does not hold; the local cloud's logs are kept, with what the commands said in `commands.log`.
#[derive(Debug, Parser)]
#[command(after_help = "Examples:\n  \
    killed                                         every call of both commands, one after the other\n  \
    killed --jobs 2 --keep-going                   the same on two local clouds side by side, to the end\n  \
    killed --only up --victim coordinator --from 40 --to 45\n  \
    killed --jobs 2 --together 4                   four kills in a deployment: a quarter of the time\n  \
    killed --sample 20 --seed 7                    twenty points, as many of each series")]
struct Arguments {
    /// Strike one command only.
    #[arg(long, value_enum, value_name = "COMMAND")]
    only: Option<Command>,
    /// Strike one victim only: the command itself, or the coordinator that works for it.
    #[arg(long, value_enum)]
    victim: Option<Victim>,
    /// The first point of each series.
    #[arg(long, value_name = "N", default_value_t = 1)]
    from: usize,
    /// The last point of each series.
    #[arg(long, value_name = "N", default_value_t = usize::MAX, hide_default_value = true)]
    to: usize,
    /// Local clouds side by side; each keeps about one processor busy.
    #[arg(long, value_name = "N", default_value_t = 1)]
    jobs: usize,
    /// Try only this many points, the same share of every series.
    #[arg(long, value_name = "N")]
    sample: Option<usize>,
    /// What chooses the sample: the same seed, the same points.
    #[arg(long, value_name = "S", default_value_t = 1, requires = "sample")]
    seed: u64,
    /// Kills in one deployment, as far apart as can be, and as many in taking it down. Faster, and harder to tell apart.
    #[arg(long, value_name = "N", default_value_t = 1)]
    together: usize,
    /// Strike calls that only read too.
    #[arg(long)]
    reads: bool,
    /// Go on after a failure.
    #[arg(long)]
    keep_going: bool,
    /// How the summary is printed.
    #[arg(long, value_enum, default_value_t)]
    output: Output,
}

#[tokio::main]
async fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let options = Options {
        only: arguments.only,
        victim: arguments.victim,
        from: arguments.from,
        to: arguments.to,
        sample: arguments.sample.map(|count| (count, arguments.seed)),
        together: arguments.together,
        reads: arguments.reads,
        jobs: arguments.jobs,
        keep_going: arguments.keep_going,
    };
    let (sender, stop) = watch::channel(false);
    let in_background = ignores_interrupts();
    tokio::spawn(async move {
        if !in_background && tokio::signal::ctrl_c().await.is_ok() {
            eprintln!("interrupted; the local clouds are being stopped");
            sender.send_replace(true);
        }
        // Dropped, the sender would mean that nobody can interrupt.
        std::future::pending::<()>().await;
    });
    match run(&options, stop, Arc::new(|line| eprintln!("{line}"))).await {
        Ok(summary) => {
            print(&summary, arguments.output);
            if summary.holds() {
                ExitCode::SUCCESS
            } else {
                ExitCode::FAILURE
            }
        }
        Err(why) => {
            eprintln!("error: {why}");
            ExitCode::FAILURE
        }
    }
}

/// Whether it was started so that interrupts are not for it, as a shell does with what runs in the background.
fn ignores_interrupts() -> bool {
    const INTERRUPT: u64 = 1 << 1;
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let ignored = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    ignored
        .and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok())
        .is_some_and(|mask| mask & INTERRUPT != 0)
}

fn print(summary: &Summary, output: Output) {
    if output == Output::Json {
        let json = serde_json::to_string_pretty(summary).expect("a summary can be written as JSON");
        println!("{json}");
        return;
    }
    println!(
        "{:20} {:>6} {:>6} {:>6} {:>11} {:>6}",
        "series", "calls", "tried", "held", "not called", "failed"
    );
    for (name, count) in &summary.series {
        println!(
            "{name:20} {:>6} {:>6} {:>6} {:>11} {:>6}",
            count.calls, count.points, count.held, count.missed, count.failed
        );
    }
    for failure in &summary.failures {
        if let Verdict::Failed { why, logs } = &failure.verdict {
            println!("failed: {}: {why}\n  logs: {}", failure.point, logs.display());
        }
    }
    for point in &summary.missed {
        println!("not called this time: {point}");
    }
    if summary.untried > 0 {
        println!("{} points were not tried", summary.untried);
    }
    println!("{:.0} s", summary.seconds);
}
