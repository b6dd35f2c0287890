//! The demo, as a newcomer runs it, and what its closing table promises.

use std::time::Duration;

use understudy_tests::run_json_within;

/// The demo, with the start of the cloud and the first build of the functions. Its own waits end earlier.
const PATIENCE: Duration = Duration::from_secs(900);

#[test]
fn the_demo_loses_and_duplicates_nothing_and_leaves_nothing() {
    let closing = run_json_within(PATIENCE, &["demo", "--output", "json"]);
    let number = |name: &str| {
        closing[name]
            .as_f64()
            .unwrap_or_else(|| panic!("`{name}` in {closing}"))
    };
    assert_eq!(number("lost"), 0.0, "{closing}");
    assert_eq!(number("duplicated"), 0.0, "{closing}");
    assert_eq!(number("left_over"), 0.0, "{closing}");
    assert_eq!(number("evidence_regions"), 2.0, "{closing}");
    assert_eq!(number("evidence_lost"), 0.0, "{closing}");
    // The ledger's clock at the execution, and the client's at the answer, of retries among them.
    let difference = number("rto_seconds") - number("evidence_rto_seconds");
    assert!(difference.abs() < 2.0, "{closing}");
    assert!(number("database_alone_would_lose") > 0.0, "{closing}");
    assert!(number("acknowledged") > 300.0, "{closing}");
    assert!(number("resources") > 60.0, "{closing}");
    assert!(
        number("rto_seconds") > 0.1 && number("rto_seconds") < 15.0,
        "{closing}"
    );
    assert!(
        number("deploy_seconds") > 0.0 && number("seconds") > number("deploy_seconds"),
        "{closing}"
    );
}
