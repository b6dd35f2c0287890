//! `up`, `down` and the coordinator, killed at a sample of their calls: running again converges. `killed` tries every call.

// What it tried is told when it fails.
#![allow(clippy::print_stderr)]

use std::sync::Arc;

use tokio::sync::watch;
use understudy_tests::killed::{Options, run};

/// Chooses another sample.
const SEED: &str = "UNDERSTUDY_KILL_SEED";
/// The sample that every run tries.
const USUAL_SEED: u64 = 21;
/// Kills that are wanted.
const KILLS: usize = 20;
/// Points more than that: a call that depends on timing is not made in every run.
const SPARE: usize = 2;

fn seed() -> u64 {
    match std::env::var(SEED) {
        Ok(text) => text.parse().expect("the seed is a number"),
        Err(_) => USUAL_SEED,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_is_killed_at_whichever_call_running_again_converges() {
    let seed = seed();
    let options = Options {
        sample: Some((KILLS + SPARE, seed)),
        together: 3,
        jobs: 2,
        ..Options::default()
    };
    let (_never, stop) = watch::channel(false);
    let told = format!("{SEED}={seed} tries the same points");
    let summary = run(&options, stop, Arc::new(|line| eprintln!("{line}"))).await;
    let summary = summary.unwrap_or_else(|why| panic!("{why}; {told}"));
    assert!(summary.holds(), "{:#?}; {told}", summary.failures);
    assert!(
        summary.held() >= KILLS,
        "not called: {:?}; {told}",
        summary.missed
    );
    let of_each = summary.series.values().filter(|count| count.held > 0).count();
    assert_eq!(of_each, 4, "{:?}; {told}", summary.series);
}
