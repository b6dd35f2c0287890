//! One run of `understudy bench takeover`, alone on the machine. The times are printed; they are DESIGN's targets on a machine that
//! has nothing else to do, so only several times as much is a failure here.

#![allow(clippy::unwrap_used, clippy::print_stdout)]

use std::sync::Arc;

use bootstrap::bench::takeover;
use bootstrap::ui::{Output, Ui};
use understudy_tests::killed::programs::Programs;

/// How much slower than its target a shared machine may be.
const SLACK: f64 = 3.0;

#[tokio::test(flavor = "multi_thread")]
async fn the_active_region_changes_in_about_the_time_that_was_promised_and_nothing_is_lost() {
    continuity::aws::install_tls();
    let folder = tempfile::tempdir().unwrap();
    let programs = Programs::gather().await.unwrap();
    let ui = Arc::new(Ui::new(Output::Text));
    let how = takeover::How {
        program: Some(programs.understudy().to_owned()),
        packages: bootstrap::artifacts::Choice::Folder(programs.packages().to_owned()),
    };
    let report = takeover::run(folder.path(), 1, how, &ui).await.unwrap();
    println!("{report}");
    assert!(report.acknowledged > 100, "{report}");
    assert_eq!((report.lost, report.duplicated), (0, 0));
    for (one, runs) in [
        (&report.switchover, 3),
        (&report.decision, 1),
        (&report.recovery, 1),
    ] {
        assert_eq!(one.seconds.len(), runs, "{}", one.what);
        let limit = SLACK * one.at_most;
        assert!(one.seconds.iter().all(|seconds| *seconds <= limit), "{report}");
    }
}
