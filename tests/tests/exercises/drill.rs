//! A drill by schedule, nobody starts it: the standby takes over, serves, and gives back, with synthetic payments all along, and what
//! it showed is in the buckets of both regions.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bootstrap::artifacts::Choice;
use bootstrap::stack::Stack;
use bootstrap::ui::{Output, Ui};
use bootstrap::{exercises, local, up};
use infra::exercise::{Kind, Outcome, State};
use infra::spec::Spec;
use understudy_tests::killed::programs::Programs;
use understudy_tests::understudy;

/// The schedule's minute, the drill's own time, and a machine that is busy with other tests.
const PATIENCE: Duration = Duration::from_secs(420);

#[tokio::test(flavor = "multi_thread")]
async fn a_drill_by_schedule_moves_the_active_region_and_back_and_its_evidence_is_in_both_buckets() {
    continuity::aws::install_tls();
    let folder = tempfile::tempdir().unwrap();
    tokio::task::spawn_blocking(understudy).await.unwrap();
    let programs = Programs::gather().await.unwrap();
    let options = local::StartOptions::new(folder.path()).program(programs.understudy());
    let cloud = local::start_attached(options).await.unwrap();
    let mut spec = Spec {
        suffix: "drill".into(),
        ..Spec::default()
    };
    spec.drill.schedule = Some("rate(1 minute)".into());
    spec.drill.hold_seconds = 10;
    let mut stack = Stack::on_local(spec, (*cloud).clone()).await.unwrap();
    let wishes = up::Wishes {
        packages: Choice::Folder(programs.packages()),
        ..up::Wishes::default()
    };
    let ui = Arc::new(Ui::new(Output::Text));
    up::up(&mut stack, &wishes, &ui).await.unwrap();

    let began = Instant::now();
    let evidence = loop {
        let listed = exercises::list(&stack).await.unwrap();
        let drill = listed.exercises.iter().find(|one| one.kind.starts_with("drill"));
        if let Some(drill) = drill
            && exercises::kept_in(&stack, &drill.id).await.len() == 2
        {
            break exercises::show(&stack, &drill.id).await.unwrap();
        }
        assert!(
            began.elapsed() < PATIENCE,
            "no drill has left its evidence: {listed:?}"
        );
        tokio::time::sleep(Duration::from_millis(250)).await;
    };
    assert_eq!(
        (evidence.kind, evidence.outcome),
        (Kind::Drill, Outcome::Completed),
        "{evidence:?}"
    );
    assert_eq!(evidence.started_by, "schedule");
    assert_eq!(evidence.missed, Vec::<String>::new());
    assert_eq!(
        (evidence.payments.lost, evidence.payments.duplicated),
        (Some(0), Some(0))
    );
    assert!(evidence.payments.acknowledged > 20, "{:?}", evidence.payments);
    assert_eq!(evidence.epoch_after, evidence.epoch_before + 2);
    let regions: std::collections::BTreeSet<&String> = evidence
        .traffic
        .seconds
        .iter()
        .flat_map(|second| second.acknowledged.keys())
        .collect();
    assert_eq!(regions.len(), 2, "both regions acknowledged: {regions:?}");
    let steps: Vec<&str> = evidence.steps.iter().map(|step| step.step.as_str()).collect();
    assert_eq!(
        steps.iter().filter(|step| **step == "switch-database").count(),
        2,
        "{steps:?}"
    );
    assert!(
        evidence.health.iter().any(|seen| seen.state == State::Serving),
        "the observers saw it serve"
    );
    let record = stack.control_record().await.unwrap().unwrap();
    assert_eq!(record.active_region, stack.home(), "it ends at home");
    cloud.stop().await;
}
