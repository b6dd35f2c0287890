//! A drill by schedule, nobody starts it: the standby takes over, serves, and gives back, with synthetic payments all along, and what
//! it showed is in the buckets of both regions. A drill of readiness, and one that cuts the active region off.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bootstrap::artifacts::Choice;
use bootstrap::drill::{self, Wish};
use bootstrap::stack::Stack;
use bootstrap::ui::{Output, Ui};
use bootstrap::{exercises, local, up};
use infra::exercise::{DrillKind, Evidence, Kind, Outcome, State};
use infra::spec::Spec;
use understudy_tests::killed::programs::Programs;
use understudy_tests::understudy;

/// The schedule's minute, the drill's own time, and a machine that is busy with other tests.
const PATIENCE: Duration = Duration::from_secs(420);

/// A stack of its own, with these settings.
async fn deployed(
    folder: &std::path::Path,
    programs: &Programs,
    suffix: &str,
    settings: impl FnOnce(&mut Spec),
) -> (local::AttachedCloud, Stack, Arc<Ui>) {
    continuity::aws::install_tls();
    let options = local::StartOptions::new(folder).program(programs.understudy());
    let cloud = local::start_attached(options).await.unwrap();
    let mut spec = Spec {
        suffix: suffix.into(),
        ..Spec::default()
    };
    settings(&mut spec);
    let mut stack = Stack::on_local(spec, (*cloud).clone()).await.unwrap();
    let wishes = up::Wishes {
        packages: Choice::Folder(programs.packages()),
        ..up::Wishes::default()
    };
    let ui = Arc::new(Ui::new(Output::Text));
    up::up(&mut stack, &wishes, &ui).await.unwrap();
    (cloud, stack, ui)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drill_by_schedule_moves_the_active_region_and_back_and_its_evidence_is_in_both_buckets() {
    let _turn = crate::turn().await;
    let folder = tempfile::tempdir().unwrap();
    tokio::task::spawn_blocking(understudy).await.unwrap();
    let programs = Programs::shared().await.unwrap();
    let (cloud, stack, _ui) = deployed(folder.path(), &programs, "drill", |spec| {
        spec.drill.schedule = Some("rate(1 minute)".into());
        spec.drill.hold_seconds = 10;
    })
    .await;

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

/// The evidence of a drill, when the buckets of both regions have it.
async fn in_both_buckets(stack: &Stack, id: &str) -> Evidence {
    let began = Instant::now();
    while exercises::kept_in(stack, id).await.len() != 2 {
        assert!(
            began.elapsed() < PATIENCE,
            "the evidence of {id} is not in both buckets"
        );
        tokio::time::sleep(Duration::from_millis(250)).await;
    }
    exercises::show(stack, id).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_region_that_a_drill_cuts_off_is_taken_over_from_by_the_observers_and_serves_again_at_the_end() {
    let _turn = crate::turn().await;
    let folder = tempfile::tempdir().unwrap();
    let programs = Programs::shared().await.unwrap();
    let (cloud, stack, ui) = deployed(folder.path(), &programs, "cut", |spec| {
        spec.drill.schedule = None;
        spec.drill.hold_seconds = 10;
        spec.failover.cooldown_ms = 3_000;
    })
    .await;
    let wish = |kind: &str| Wish {
        kind: Some(kind.into()),
        hold_seconds: None,
        wait: true,
    };
    // Readiness first: the observers must have looked before a region may be cut off, and so must this one.
    let ready = drill::run(&stack, &wish("readiness"), &ui).await.unwrap();
    let shown = in_both_buckets(&stack, ready.id.as_deref().unwrap()).await;
    assert_eq!(
        (shown.drill, shown.outcome, &shown.missed),
        (Some(DrillKind::Readiness), Outcome::Completed, &Vec::new())
    );
    assert!(shown.payments.acknowledged > 20, "{:?}", shown.payments);
    assert_eq!(shown.epoch_after, shown.epoch_before, "nothing moved");

    let ran = drill::run(&stack, &wish("isolation"), &ui).await.unwrap();
    assert_eq!(ran.met, Some(true), "{ran:?}");
    let evidence = in_both_buckets(&stack, ran.id.as_deref().unwrap()).await;
    assert_eq!(
        (evidence.drill, evidence.outcome, &evidence.missed),
        (Some(DrillKind::Isolation), Outcome::Completed, &Vec::new())
    );
    assert_eq!(
        (evidence.payments.lost, evidence.payments.duplicated),
        (Some(0), Some(0))
    );
    assert_eq!(evidence.epoch_after, evidence.epoch_before + 2);
    let at = |step: &str| {
        let mut steps = evidence.steps.iter();
        let found = steps.find(|mark| mark.step == step).map(|mark| mark.began_ms);
        found.unwrap_or_else(|| panic!("no step `{step}`"))
    };
    let order = [
        "isolation: cut off",
        "fence",
        "isolation: joined again",
        "switch-database",
    ]
    .map(at);
    assert!(order.is_sorted(), "{order:?}");
    // The observers decided, nobody else.
    let failover = exercises::show(&stack, &format!("failover-cut-{}", evidence.epoch_before + 1)).await;
    assert_eq!(failover.unwrap().started_by, "health-probe");
    // The client's side saw the region gone, and the evidence says how long.
    let rto_ms = evidence.achieved.rto_ms.unwrap();
    assert!((1_000..evidence.objectives.rto_ms).contains(&rto_ms), "{rto_ms}");
    let record = stack.control_record().await.unwrap().unwrap();
    assert_eq!((record.active_region.as_str(), record.epoch), (stack.home(), 3));
    let status = cloud.status().await.unwrap();
    assert!(status.cut.is_empty(), "{status:?}");
    cloud.stop().await;
}
