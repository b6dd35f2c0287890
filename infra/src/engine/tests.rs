//! The engine against an in-memory cloud: planning, waiting, failure isolation, order, budgets, crashes.

#![allow(clippy::unwrap_used)]

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, LazyLock, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use aws_config::SdkConfig;
use proptest::prelude::*;
use serde::{Deserialize, Serialize};
use tokio::sync::Notify;

use super::*;
use crate::error::{Cause, Class};
use crate::graph::{Group, Handle, Place};
use crate::kind::{Found, Kind, Lister, Live, Site};
use crate::outcome::PlanOutcome;
use crate::plan::Change;

/// The in-memory cloud of one test, found by the account.
#[derive(Default)]
struct World {
    things: Mutex<BTreeMap<String, Stored>>,
    log: Mutex<Vec<String>>,
    /// Observations that a new thing takes to settle, by key.
    slow: Mutex<HashMap<String, usize>>,
    /// Errors to answer next, by `operation key`.
    faults: Mutex<HashMap<String, Vec<Class>>>,
    /// Things that are never as asked for, by key.
    stubborn: Mutex<BTreeSet<String>>,
    calls: Mutex<usize>,
    crash_at: Mutex<Option<usize>>,
    crashed: Notify,
}

#[derive(Clone, Debug)]
struct Stored {
    spec: Spec,
    settling: usize,
    deleting: bool,
}

static WORLDS: LazyLock<Mutex<HashMap<String, Arc<World>>>> = LazyLock::new(Mutex::default);
static NEXT: AtomicU64 = AtomicU64::new(0);

#[derive(Clone, Debug, PartialEq, Serialize)]
struct Spec {
    color: String,
    shape: String,
    writer: bool,
    parents: Vec<String>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Outputs {
    id: String,
}

struct Thing<const STATEFUL: bool>;
type Plain = Thing<false>;
type Store = Thing<true>;

impl World {
    /// Counts a call, applies `effect`, and never returns when this is the call after which the process dies.
    async fn call<T>(
        &self,
        site: &Site<'_>,
        operation: &'static str,
        effect: impl FnOnce(&mut BTreeMap<String, Stored>) -> Result<T, Class>,
    ) -> Result<T, KindError> {
        tokio::task::yield_now().await;
        let count = {
            let mut calls = self.calls.lock().unwrap();
            *calls += 1;
            *calls
        };
        let name = format!("{operation} {}", site.key);
        let fault = self.faults.lock().unwrap().get_mut(&name).and_then(Vec::pop);
        let result = match fault {
            Some(class) => Err(class),
            None => effect(&mut self.things.lock().unwrap()),
        };
        self.log.lock().unwrap().push(name);
        if *self.crash_at.lock().unwrap() == Some(count) {
            self.crashed.notify_one();
            std::future::pending::<()>().await;
        }
        result.map_err(|class| KindError {
            operation,
            subject: site.key.to_owned(),
            region: site.region.to_owned(),
            class,
            cause: Cause {
                code: None,
                message: format!("{class:?}"),
            },
        })
    }

    fn written(&self) -> Vec<String> {
        self.log
            .lock()
            .unwrap()
            .iter()
            .filter(|line| !line.starts_with("observe"))
            .cloned()
            .collect()
    }

    fn count(&self, line: &str) -> usize {
        self.log
            .lock()
            .unwrap()
            .iter()
            .filter(|other| *other == line)
            .count()
    }
}

fn world(account: &str) -> Arc<World> {
    Arc::clone(&WORLDS.lock().unwrap()[account])
}

impl<const STATEFUL: bool> Kind for Thing<STATEFUL> {
    const NAME: &'static str = if STATEFUL { "store" } else { "thing" };
    const STATEFUL: bool = STATEFUL;
    const IMMUTABLE: &'static [&'static str] = &["shape"];
    const ROLES: &'static [&'static str] = &["writer"];

    type Spec = Spec;
    type Outputs = Outputs;

    async fn observe(site: &Site<'_>, _spec: &Spec) -> Result<Option<Live<Spec, Outputs>>, KindError> {
        world(site.account)
            .call(site, "observe", |things| {
                let Some(stored) = things.get_mut(site.key) else {
                    return Ok(None);
                };
                let settling = (stored.settling > 0).then(|| "being made".to_owned());
                stored.settling = stored.settling.saturating_sub(1);
                if stored.deleting && settling.is_none() {
                    things.remove(site.key);
                    return Ok(None);
                }
                let outputs = Outputs {
                    id: format!("id-{}", site.key),
                };
                Ok(Some(Live {
                    spec: stored.spec.clone(),
                    outputs,
                    settling,
                }))
            })
            .await
    }

    async fn create(site: &Site<'_>, spec: &Spec) -> Result<(), KindError> {
        let world = world(site.account);
        let settling = world.slow.lock().unwrap().get(site.key).copied().unwrap_or(0);
        let stubborn = world.stubborn.lock().unwrap().contains(site.key);
        world
            .call(site, "create", |things| {
                let there = |id: &String| things.contains_key(id.trim_start_matches("id-"));
                assert!(spec.parents.iter().all(there), "{} before its parents", site.key);
                let shape = if stubborn {
                    "square".into()
                } else {
                    spec.shape.clone()
                };
                let spec = Spec {
                    shape,
                    ..spec.clone()
                };
                things.entry(site.key.to_owned()).or_insert(Stored {
                    spec,
                    settling,
                    deleting: false,
                });
                Ok(())
            })
            .await
    }

    async fn update(site: &Site<'_>, spec: &Spec, _live: &Live<Spec, Outputs>) -> Result<(), KindError> {
        let world = world(site.account);
        let stubborn = world.stubborn.lock().unwrap().contains(site.key);
        world
            .call(site, "update", |things| {
                let stored = things.get_mut(site.key).unwrap();
                let writer = stored.spec.writer;
                if !stubborn {
                    stored.spec = Spec {
                        writer,
                        ..spec.clone()
                    };
                }
                Ok(())
            })
            .await
    }

    async fn delete(site: &Site<'_>, _live: &Live<Spec, Outputs>) -> Result<(), KindError> {
        let world = world(site.account);
        let settling = world.slow.lock().unwrap().get(site.key).copied().unwrap_or(0);
        world
            .call(site, "delete", |things| {
                let id = format!("id-{}", site.key);
                if things.values().any(|other| other.spec.parents.contains(&id)) {
                    return Err(Class::Conflict);
                }
                if let Some(stored) = things.get_mut(site.key)
                    && !stored.deleting
                {
                    stored.deleting = true;
                    stored.settling = settling;
                }
                Ok(())
            })
            .await
    }

    async fn discard(site: &Site<'_>, id: &str) -> Result<(), KindError> {
        world(site.account)
            .call(site, "discard", |things| {
                let there = format!("id-{id}");
                if things.values().any(|other| other.spec.parents.contains(&there)) {
                    return Err(Class::Conflict);
                }
                things.remove(id);
                Ok(())
            })
            .await
    }

    async fn list(site: &Site<'_>) -> Result<Vec<Found>, KindError> {
        let keys = world(site.account)
            .call(site, "list", |things| {
                Ok(things.keys().cloned().collect::<Vec<_>>())
            })
            .await?;
        Ok(keys
            .into_iter()
            .map(|key| site.found::<Self>(key.clone(), Some(key)))
            .collect())
    }
}

/// Time that passes as fast as the executor polls the sleepers.
#[derive(Default)]
struct VirtualClock(AtomicU64);

#[async_trait]
impl Clock for VirtualClock {
    fn now(&self) -> Duration {
        Duration::from_millis(self.0.load(Ordering::Relaxed))
    }

    async fn sleep(&self, span: Duration) {
        let until = self.now() + span;
        while self.now() < until {
            self.0.fetch_add(5, Ordering::Relaxed);
            tokio::task::yield_now().await;
        }
    }
}

/// One test's world and blueprint.
struct Stage {
    world: Arc<World>,
    blueprint: Blueprint,
    cloud: Cloud,
    options: Options,
}

fn place() -> Place {
    Place {
        group: Group::Primary,
        region: "us-east-1".into(),
    }
}

fn spec(color: &str, parents: Vec<Outputs>) -> Spec {
    Spec {
        color: color.to_owned(),
        shape: "round".into(),
        writer: true,
        parents: parents.into_iter().map(|parent| parent.id).collect(),
    }
}

impl Stage {
    fn new() -> Self {
        let account = format!("world-{}", NEXT.fetch_add(1, Ordering::Relaxed));
        let world = Arc::new(World::default());
        WORLDS.lock().unwrap().insert(account.clone(), Arc::clone(&world));
        let options = Options {
            clock: Arc::new(VirtualClock::default()),
            budget: Duration::from_secs(60),
            ..Options::default()
        };
        Stage {
            world,
            blueprint: Blueprint::new("test", account),
            cloud: Cloud::new(SdkConfig::builder().build()),
            options,
        }
    }

    fn add(&mut self, key: &str, parents: &[&Handle<Plain>]) -> Handle<Plain> {
        let parents: Vec<Handle<Plain>> = parents.iter().map(|handle| (*handle).clone()).collect();
        self.blueprint
            .add(key, &place(), parents, |parents| spec("red", parents))
    }

    async fn converge(&self) -> Report {
        converge(&self.blueprint, &self.cloud, &self.options)
            .await
            .unwrap()
    }

    fn extent(&self) -> Extent<'_> {
        Extent {
            suffix: "test",
            account: self.blueprint.account(),
            regions: vec!["us-east-1"],
        }
    }

    async fn teardown(&self) -> Report {
        teardown(&self.blueprint, &BTreeSet::new(), &self.cloud, &self.options)
            .await
            .unwrap()
    }

    fn slow(&self, key: &str, observations: usize) {
        self.world.slow.lock().unwrap().insert(key.into(), observations);
    }

    fn fault(&self, call: &str, classes: &[Class]) {
        self.world
            .faults
            .lock()
            .unwrap()
            .insert(call.into(), classes.to_vec());
    }

    /// Runs until the world's call number `at` has taken effect, then drops everything, as a killed process does.
    async fn killed_after(&self, at: usize, teardown_too: bool) {
        *self.world.crash_at.lock().unwrap() = Some(*self.world.calls.lock().unwrap() + at);
        let work = async {
            if teardown_too {
                self.teardown().await
            } else {
                self.converge().await
            }
        };
        tokio::select! {
            _ = work => {}
            () = self.world.crashed.notified() => {}
        }
        *self.world.crash_at.lock().unwrap() = None;
    }
}

fn paint(stage: &Stage, key: &str, color: &str) {
    stage
        .world
        .things
        .lock()
        .unwrap()
        .get_mut(key)
        .unwrap()
        .spec
        .color = color.into();
}

/// `home` with `inside` it serves; `standby` and `far`, which depends on `home`, are in the other region.
fn two_regions() -> Stage {
    let other = Place {
        group: Group::Dr,
        region: "us-east-2".into(),
    };
    let mut stage = Stage::new();
    let home = stage.add("home", &[]);
    stage.add("inside", &[&home]);
    let plain = |stage: &mut Stage, key: &str, parents: Vec<Handle<Plain>>| {
        stage
            .blueprint
            .add::<Plain, _>(key, &other, parents, |parents| spec("red", parents));
    };
    plain(&mut stage, "standby", Vec::new());
    plain(&mut stage, "far", vec![home]);
    stage.options.serving = Some(Serving {
        group: Group::Primary,
        gate: None,
    });
    stage
}

struct Answer(Result<(), String>, AtomicU64);

#[async_trait]
impl Gate for Answer {
    async fn open(&self) -> Result<(), String> {
        self.1.fetch_add(1, Ordering::Relaxed);
        self.0.clone()
    }
}

#[tokio::test]
async fn what_does_not_exist_is_made_at_once_also_where_requests_are_served() {
    let stage = two_regions();
    let report = stage.converge().await;
    assert!(report.done, "{report}");
    assert!(
        stage
            .world
            .written()
            .iter()
            .all(|line| line.starts_with("create"))
    );
}

#[tokio::test]
async fn what_serves_is_changed_last_and_only_when_the_rest_is_in_order() {
    let stage = two_regions();
    stage.converge().await;
    for key in ["home", "inside", "standby", "far"] {
        paint(&stage, key, "blue");
    }
    stage.fault("update standby", &[Class::Denied]);
    let report = stage.converge().await;
    let waits = "waiting: `standby` in us-east-2 to be in order first";
    assert_eq!(report.outcome("home").unwrap().to_string(), waits);
    assert_eq!(report.outcome("inside").unwrap().to_string(), waits);
    assert!(
        matches!(report.outcome("far"), Some(Outcome::Updated { .. })),
        "{report}"
    );
    let before = stage.world.written().len();
    let report = stage.converge().await;
    assert!(report.done, "{report}");
    assert_eq!(
        stage.world.written()[before..],
        ["update standby", "update home", "update inside"]
    );
    assert_eq!(report.changes().count(), 3, "{report}");
}

#[tokio::test]
async fn what_serves_stays_as_it_is_when_what_was_changed_first_does_not_work() {
    let mut stage = two_regions();
    let gate = Arc::new(Answer(Err("it crashes".into()), AtomicU64::new(0)));
    stage.options.serving = Some(Serving {
        group: Group::Primary,
        gate: Some(Arc::clone(&gate) as Arc<dyn Gate>),
    });
    stage.converge().await;
    assert_eq!(gate.1.load(Ordering::Relaxed), 0, "nothing was put off");
    paint(&stage, "home", "blue");
    let report = stage.converge().await;
    assert_eq!(
        report.outcome("home").unwrap().to_string(),
        "failed: left as it is, because what was changed first does not work: it crashes"
    );
    assert_eq!(stage.world.count("update home"), 0);
    assert_eq!(report.progress().failed.len(), 1);
}

#[tokio::test]
async fn a_run_that_changes_what_serves_still_tells_of_what_it_changed_first() {
    let stage = two_regions();
    stage.converge().await;
    paint(&stage, "home", "blue");
    paint(&stage, "standby", "blue");
    let report = stage.converge().await;
    let keys: Vec<&str> = report.changes().map(|entry| entry.key.as_str()).collect();
    assert_eq!(keys, ["home", "standby"]);
}

#[tokio::test]
async fn strangers_are_pruned_in_whatever_order_aws_lets_them_go_and_nothing_else_is() {
    let stage = chain();
    stage.converge().await;
    let listers = [Lister::of::<Plain>()];
    let extent = stage.extent();
    let keys = BTreeSet::from(["a".to_owned(), "d".to_owned()]);
    let prune = async |options: &Options| {
        let look = || -> futures::future::BoxFuture<'_, Inventory> {
            Box::pin(inventory::list_with(&listers, &extent, &stage.cloud, options))
        };
        prune::prune_with(&listers, &keys, &extent, &stage.cloud, options, &look).await
    };
    let pruned = prune(&stage.options).await;
    let told: Vec<String> = pruned.strangers.iter().map(ToString::to_string).collect();
    assert_eq!(
        told,
        ["thing b in us-east-1: deleted", "thing c in us-east-1: deleted"]
    );
    let left: Vec<String> = stage.world.things.lock().unwrap().keys().cloned().collect();
    assert_eq!(left, ["a", "d"]);
    assert_eq!(prune(&stage.options).await, prune::Pruning::default());
}

#[tokio::test]
async fn a_prune_that_cannot_list_everything_says_so_and_takes_nothing_for_gone() {
    let stage = chain();
    stage.converge().await;
    let listers = [Lister::of::<Plain>()];
    let keys = BTreeSet::from(["a".to_owned(), "b".to_owned(), "c".to_owned()]);
    let extent = stage.extent();
    let looks = std::sync::atomic::AtomicUsize::new(0);
    let listed = inventory::list_with(&listers, &extent, &stage.cloud, &stage.options).await;
    let look = || -> futures::future::BoxFuture<'_, Inventory> {
        let first = looks.fetch_add(1, std::sync::atomic::Ordering::SeqCst) == 0;
        let blind = Inventory {
            errors: vec!["ListThings in us-east-1: not authorized".to_owned()],
            ..Inventory::default()
        };
        let inventory = if first { listed.clone() } else { blind };
        Box::pin(async move { inventory })
    };
    let pruning = prune::prune_with(&listers, &keys, &extent, &stage.cloud, &stage.options, &look).await;
    assert_eq!(pruning.not_listed, ["ListThings in us-east-1: not authorized"]);
    let told: Vec<String> = pruning.strangers.iter().map(ToString::to_string).collect();
    assert_eq!(told, ["thing d in us-east-1: still there: AWS is deleting it"]);
}

/// `a` - `b` - `c`, and `d` alone.
fn chain() -> Stage {
    let mut stage = Stage::new();
    let a = stage.add("a", &[]);
    let b = stage.add("b", &[&a]);
    stage.add("c", &[&b]);
    stage.add("d", &[]);
    stage
}

#[tokio::test]
async fn everything_is_created_in_order_and_a_second_run_changes_nothing() {
    let stage = chain();
    let report = stage.converge().await;
    assert!(report.done, "{report}");
    assert!(
        report
            .entries
            .iter()
            .all(|entry| entry.outcome == Outcome::Created),
        "{report}"
    );
    let before = stage.world.log.lock().unwrap().len();
    let again = stage.converge().await;
    assert!(
        again
            .entries
            .iter()
            .all(|entry| entry.outcome == Outcome::Unchanged),
        "{again}"
    );
    assert_eq!(
        stage.world.log.lock().unwrap().len() - before,
        4,
        "one call per resource"
    );
}

#[tokio::test]
async fn a_plan_writes_nothing_and_says_what_is_known_only_later() {
    let stage = chain();
    let entries = plan(&stage.blueprint, &stage.cloud, &stage.options)
        .await
        .unwrap();
    assert!(stage.world.written().is_empty());
    let lines: Vec<String> = entries.iter().map(ToString::to_string).collect();
    assert_eq!(lines[0], "a (thing, us-east-1): create");
    assert_eq!(lines[1], "b (thing, us-east-1): known after a");
    let PlanOutcome::Planned(planned) = &entries[2].plan else {
        panic!()
    };
    assert_eq!(
        planned.change,
        Change::Unknown {
            until: vec!["b".into()]
        }
    );
}

#[tokio::test]
async fn a_difference_is_updated_in_place_and_named() {
    let stage = chain();
    stage.converge().await;
    stage
        .world
        .things
        .lock()
        .unwrap()
        .get_mut("b")
        .unwrap()
        .spec
        .color = "blue".into();
    let report = stage.converge().await;
    assert_eq!(
        report.outcome("b").unwrap().to_string(),
        r#"updated (color: "blue" -> "red")"#
    );
    assert_eq!(report.changes().count(), 1);
    assert!(report.done);
}

#[tokio::test]
async fn a_role_elsewhere_is_reported_and_never_repaired() {
    let stage = chain();
    stage.converge().await;
    stage
        .world
        .things
        .lock()
        .unwrap()
        .get_mut("b")
        .unwrap()
        .spec
        .writer = false;
    let written = stage.world.written().len();
    let report = stage.converge().await;
    assert!(report.done);
    assert_eq!(report.entries[1].outcome, Outcome::Unchanged);
    assert_eq!(report.entries[1].roles[0].field, "writer");
    assert_eq!(stage.world.written().len(), written);
}

#[tokio::test]
async fn what_holds_data_is_not_replaced_unless_told_to() {
    let mut stage = Stage::new();
    stage
        .blueprint
        .add::<Store, _>("s", &place(), (), |()| spec("red", Vec::new()));
    stage.add("t", &[]);
    stage.converge().await;
    for key in ["s", "t"] {
        stage
            .world
            .things
            .lock()
            .unwrap()
            .get_mut(key)
            .unwrap()
            .spec
            .shape = "square".into();
    }
    let report = stage.converge().await;
    assert!(
        report.outcome("s").unwrap().to_string().contains("holds data"),
        "{report}"
    );
    assert!(
        matches!(report.outcome("t"), Some(Outcome::Replaced { .. })),
        "{report}"
    );
    stage.options.replace = BTreeSet::from(["s".to_owned()]);
    assert!(matches!(
        stage.converge().await.outcome("s"),
        Some(Outcome::Replaced { .. })
    ));
}

/// `a`, which is not as wanted, and what is made in it: `b` of the given kind, and `c` in `b`.
async fn nested<const STATEFUL: bool>() -> Stage {
    let mut stage = Stage::new();
    let a = stage.add("a", &[]);
    let inside = |parent: Outputs| Spec {
        shape: format!("in {}", parent.id),
        ..spec("red", vec![parent])
    };
    let b: Handle<Thing<STATEFUL>> = stage.blueprint.add("b", &place(), a, inside);
    let _: Handle<Plain> = stage.blueprint.add("c", &place(), b, inside);
    stage.add("d", &[]);
    stage.converge().await;
    let mut things = stage.world.things.lock().unwrap();
    things.get_mut("a").unwrap().spec.shape = "square".into();
    drop(things);
    stage.world.log.lock().unwrap().clear();
    stage
}

#[tokio::test]
async fn what_is_made_inside_of_what_is_replaced_is_replaced_with_it() {
    let stage = nested::<false>().await;
    let planned = plan(&stage.blueprint, &stage.cloud, &stage.options)
        .await
        .unwrap();
    let lines: Vec<String> = planned.iter().map(ToString::to_string).collect();
    assert_eq!(
        lines,
        [
            r#"a (thing, us-east-1): replace (shape: "square" -> "round")"#,
            r#"b (thing, us-east-1): replace (shape: "in id-a" -> "in ${a.id}")"#,
            r#"c (thing, us-east-1): replace (shape: "in id-b" -> "in ${b.id}")"#,
            "d (thing, us-east-1): unchanged",
        ]
    );
    let report = stage.converge().await;
    assert!(report.done, "{report}");
    assert_eq!(
        stage.world.written(),
        [
            "delete c", "delete b", "delete a", "create a", "create b", "create c"
        ]
    );
    assert_eq!(stage.converge().await.changes().count(), 0);
}

#[tokio::test]
async fn nothing_is_replaced_that_what_holds_data_is_made_inside_of() {
    let mut stage = nested::<true>().await;
    for told in [BTreeSet::new(), BTreeSet::from(["a".to_owned(), "b".to_owned()])] {
        stage.options.replace = told;
        let report = stage.converge().await;
        let said = report.outcome("a").unwrap().to_string();
        assert!(said.contains("to make b anew, with the data in it"), "{said}");
        assert_eq!(stage.world.written(), Vec::<String>::new());
    }
}

#[tokio::test]
async fn a_replacement_waits_for_what_is_not_deleted_yet_and_goes_on_in_the_next_run() {
    let mut stage = nested::<false>().await;
    stage.slow("c", 1_000);
    stage.options.budget = Duration::from_secs(5);
    let report = stage.converge().await;
    let said = report.outcome("a").unwrap().to_string();
    assert!(said.contains("`c` to be deleted first"), "{said}");
    stage.options.budget = Duration::from_secs(100_000);
    stage.slow("c", 0);
    assert!(stage.converge().await.done);
    assert_eq!(stage.world.count("delete a"), 1);
}

#[tokio::test]
async fn a_failure_stops_only_what_depends_on_it() {
    let stage = chain();
    stage.fault("create a", &[Class::Denied]);
    let report = stage.converge().await;
    assert!(!report.done);
    assert_eq!(
        report.outcome("a").unwrap().to_string(),
        "failed: create `a` in us-east-1: Denied"
    );
    assert_eq!(report.outcome("b"), Some(&Outcome::Blocked { by: "a".into() }));
    assert!(matches!(report.outcome("c"), Some(Outcome::Blocked { .. })));
    assert_eq!(report.outcome("d"), Some(&Outcome::Created));
    assert!(stage.converge().await.done);
}

#[tokio::test]
async fn an_error_that_may_pass_is_tried_again() {
    let stage = chain();
    stage.fault("create a", &[Class::EventuallyConsistent, Class::Throttled]);
    stage.fault("observe d", &[Class::Unavailable]);
    let report = stage.converge().await;
    assert!(report.done, "{report}");
    assert_eq!(stage.world.count("create a"), 3);
}

#[tokio::test]
async fn an_error_that_should_have_passed_becomes_final() {
    let mut stage = chain();
    stage.options.budget = Duration::from_secs(3600);
    stage.fault("create a", &[Class::EventuallyConsistent; 1000]);
    let report = stage.converge().await;
    assert!(
        matches!(report.outcome("a"), Some(Outcome::Failed { .. })),
        "{report}"
    );
    assert!(stage.options.clock.now() < Duration::from_secs(200));
}

#[tokio::test]
async fn what_aws_still_makes_is_waited_for() {
    let stage = chain();
    stage.slow("a", 5);
    let report = stage.converge().await;
    assert!(report.done);
    assert_eq!(stage.world.count("create a"), 1);
    assert_eq!(stage.world.count("observe a"), 7);
}

#[tokio::test]
async fn when_the_budget_ends_the_rest_waits_and_the_next_run_goes_on() {
    let mut stage = chain();
    stage.options.budget = Duration::from_millis(500);
    stage.slow("b", 40);
    let report = stage.converge().await;
    assert!(!report.done);
    assert_eq!(
        report.outcome("b"),
        Some(&Outcome::Waiting {
            on: "being made".into()
        })
    );
    assert_eq!(report.outcome("c"), Some(&Outcome::Blocked { by: "b".into() }));
    assert_eq!(report.outcome("d"), Some(&Outcome::Created));
    let progress = report.progress();
    assert_eq!((progress.ready, progress.total), (2, 4));
    assert_eq!(progress.waiting[0].key, "b");
    assert_eq!(progress.groups[&Group::Primary].ready, 2);
    for _ in 0..40 {
        if stage.converge().await.done {
            assert_eq!(stage.world.count("create b"), 1);
            return;
        }
    }
    panic!("never done");
}

#[tokio::test]
async fn a_service_that_answers_with_errors_all_along_is_a_failure_of_the_run_and_a_short_one_is_waited_for()
{
    let mut stage = chain();
    stage.options.budget = Duration::from_secs(40);
    stage.fault("observe a", &[Class::Unavailable; 1000]);
    let report = stage.converge().await;
    assert!(
        matches!(report.outcome("a"), Some(Outcome::Failed { .. })),
        "{report}"
    );
    stage.options.budget = Duration::from_secs(5);
    let report = stage.converge().await;
    assert!(
        matches!(report.outcome("a"), Some(Outcome::Waiting { .. })),
        "{report}"
    );
}

#[tokio::test]
async fn a_value_that_does_not_take_fails_instead_of_looping() {
    let mut stage = chain();
    stage.options.budget = Duration::from_secs(36_000);
    stage.converge().await;
    stage
        .world
        .things
        .lock()
        .unwrap()
        .get_mut("d")
        .unwrap()
        .spec
        .color = "blue".into();
    stage.world.stubborn.lock().unwrap().insert("d".into());
    let report = stage.converge().await;
    assert!(
        report
            .outcome("d")
            .unwrap()
            .to_string()
            .contains("`color` does not take"),
        "{report}"
    );
    assert!(stage.world.count("update d") <= MAX_ACTIONS);
}

#[tokio::test]
async fn what_is_never_made_as_asked_for_fails_instead_of_being_made_again() {
    let stage = chain();
    stage.world.stubborn.lock().unwrap().insert("d".into());
    let report = stage.converge().await;
    assert!(
        report
            .outcome("d")
            .unwrap()
            .to_string()
            .contains("not with the wanted shape"),
        "{report}"
    );
    let again = stage.converge().await;
    assert!(
        matches!(again.outcome("d"), Some(Outcome::Failed { .. })),
        "{again}"
    );
    assert_eq!(stage.world.count("create d"), 2);
}

#[tokio::test]
async fn teardown_goes_backwards_and_leaves_nothing() {
    let stage = chain();
    stage.converge().await;
    stage.slow("c", 4);
    let report = stage.teardown().await;
    assert!(report.done, "{report}");
    let deletes: Vec<String> = stage
        .world
        .written()
        .into_iter()
        .filter(|line| line.starts_with("delete"))
        .collect();
    let chain: Vec<&String> = deletes.iter().filter(|line| *line != "delete d").collect();
    assert_eq!(chain, ["delete c", "delete b", "delete a"]);
    assert!(stage.world.things.lock().unwrap().is_empty());
    let again = stage.teardown().await;
    assert!(
        again.entries.iter().all(|entry| entry.outcome == Outcome::Absent),
        "{again}"
    );
}

#[tokio::test]
async fn teardown_keeps_what_it_is_told_to_and_what_that_needs() {
    let stage = chain();
    stage.converge().await;
    let keep = BTreeSet::from(["b".to_owned()]);
    let report = teardown(&stage.blueprint, &keep, &stage.cloud, &stage.options)
        .await
        .unwrap();
    assert!(report.done, "{report}");
    assert_eq!(
        stage.world.things.lock().unwrap().keys().collect::<Vec<_>>(),
        ["a", "b"]
    );
    assert_eq!(report.outcome("a"), Some(&Outcome::Kept));
}

#[tokio::test]
async fn a_teardown_that_fails_blocks_only_what_must_go_later() {
    let stage = chain();
    stage.converge().await;
    stage.fault("delete b", &[Class::Denied]);
    let report = stage.teardown().await;
    assert_eq!(report.outcome("a"), Some(&Outcome::Blocked { by: "b".into() }));
    assert_eq!(report.outcome("c"), Some(&Outcome::Deleted));
    assert_eq!(report.outcome("d"), Some(&Outcome::Deleted));
    assert!(stage.teardown().await.done);
}

#[tokio::test]
async fn order_without_reference_holds_in_both_directions() {
    let mut stage = Stage::new();
    let early = stage.add("early", &[]);
    let late = stage.add("late", &[]);
    stage.blueprint.order(&late, &early);
    stage.slow("early", 3);
    stage.converge().await;
    stage.teardown().await;
    assert_eq!(
        stage.world.written(),
        ["create early", "create late", "delete late", "delete early"]
    );
}

#[tokio::test]
async fn a_run_without_permission_observes_and_writes_nothing() {
    struct No;
    #[async_trait]
    impl Permit for No {
        async fn check(&self, _: Write<'_>) -> Result<(), String> {
            Err("generation 4 has taken over".into())
        }
    }
    let mut stage = chain();
    stage.options.permit = Some(Arc::new(No));
    let report = stage.converge().await;
    assert_eq!(
        report.outcome("a").unwrap().to_string(),
        "waiting: generation 4 has taken over"
    );
    assert!(stage.world.written().is_empty());
}

#[tokio::test]
async fn progress_only_grows_and_ends_complete() {
    let mut stage = chain();
    let seen: Arc<Mutex<Vec<usize>>> = Arc::default();
    let sink = Arc::clone(&seen);
    stage.options.on_progress = Some(Arc::new(move |progress: &Progress| {
        sink.lock().unwrap().push(progress.ready)
    }));
    stage.converge().await;
    let seen = seen.lock().unwrap();
    assert!(seen.is_sorted());
    assert_eq!(seen.last(), Some(&4));
}

#[tokio::test]
async fn the_inventory_lists_what_is_there_and_what_could_not_be_listed() {
    let stage = chain();
    stage.converge().await;
    let listers = [Lister::of::<Plain>()];
    let extent = stage.extent();
    let look = || inventory::list_with(&listers, &extent, &stage.cloud, &stage.options);
    assert_eq!(look().await.found.len(), 4);
    stage.teardown().await;
    assert!(look().await.is_empty());
    stage.fault("list ", &[Class::Denied]);
    let blind = look().await;
    assert!(blind.found.is_empty() && !blind.is_empty());
}

#[test]
fn a_graph_that_is_none_is_refused() {
    let mut stage = Stage::new();
    let a = stage.add("a", &[]);
    let b = stage.add("b", &[&a]);
    stage.blueprint.order(&a, &b);
    assert_eq!(
        stage.blueprint.validate(),
        Err(InvalidBlueprint::Cycle(vec!["a".into(), "b".into()]))
    );
    let mut stage = Stage::new();
    stage.add("a", &[]);
    stage.add("a", &[]);
    assert_eq!(
        stage.blueprint.validate(),
        Err(InvalidBlueprint::Duplicate("a".into()))
    );
    let foreign = chain().add("foreign", &[]);
    let mut stage = Stage::new();
    stage.add("a", &[&foreign]);
    assert!(matches!(
        stage.blueprint.validate(),
        Err(InvalidBlueprint::Undeclared { .. })
    ));
}

/// A random graph: node `i` may depend on earlier ones.
fn any_graph() -> impl Strategy<Value = Vec<(Vec<usize>, usize)>> {
    prop::collection::vec(
        (
            prop::collection::vec(any::<prop::sample::Index>(), 0..3),
            0usize..3,
        ),
        1..12,
    )
    .prop_map(|nodes| {
        nodes
            .into_iter()
            .enumerate()
            .map(|(position, (parents, slow))| {
                let parents: BTreeSet<usize> = parents
                    .iter()
                    .filter(|_| position > 0)
                    .map(|index| index.index(position))
                    .collect();
                (parents.into_iter().collect(), slow)
            })
            .collect()
    })
}

fn stage_of(graph: &[(Vec<usize>, usize)]) -> Stage {
    let mut stage = Stage::new();
    let mut handles: Vec<Handle<Plain>> = Vec::new();
    for (position, (parents, slow)) in graph.iter().enumerate() {
        let key = format!("n{position}");
        stage.slow(&key, *slow);
        let parents: Vec<&Handle<Plain>> = parents.iter().map(|&parent| &handles[parent]).collect();
        let handle = stage.add(&key, &parents);
        handles.push(handle);
    }
    stage
}

fn block_on<T>(work: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap()
        .block_on(work)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn killed_after_any_calls_and_run_again_it_converges_with_each_thing_made_once(
        graph in any_graph(),
        kills in prop::collection::vec(1usize..40, 0..5),
    ) {
        let stage = stage_of(&graph);
        block_on(async {
            for at in kills {
                stage.killed_after(at, false).await;
            }
            let report = stage.converge().await;
            prop_assert!(report.done, "{report}");
            for entry in &report.entries {
                prop_assert_eq!(stage.world.count(&format!("create {}", entry.key)), 1);
            }
            Ok(())
        })?;
    }

    #[test]
    fn a_teardown_killed_anywhere_and_run_again_leaves_nothing(
        graph in any_graph(),
        kills in prop::collection::vec(1usize..40, 0..5),
    ) {
        let stage = stage_of(&graph);
        block_on(async {
            stage.converge().await;
            for at in kills {
                stage.killed_after(at, true).await;
            }
            let report = stage.teardown().await;
            prop_assert!(report.done, "{report}");
            prop_assert!(stage.world.things.lock().unwrap().is_empty());
            Ok(())
        })?;
    }
}

#[tokio::test]
async fn a_blueprint_that_the_checker_refuses_makes_no_call() {
    let mut stage = chain();
    let wide = crate::resources::security_group::Rule::tcp(5432, "0.0.0.0/0");
    let _: Handle<crate::resources::security_group::SecurityGroup> =
        stage.blueprint.add("security-group", &place(), (), move |()| {
            crate::resources::security_group::Spec {
                name: "database".into(),
                description: "open".into(),
                vpc_id: "vpc-1".into(),
                ingress: vec![wide.clone()],
                egress: Vec::new(),
                tagged: true,
            }
        });
    let refused = converge(&stage.blueprint, &stage.cloud, &stage.options)
        .await
        .unwrap_err();
    assert_eq!(
        refused.to_string(),
        "the checker refuses it: `security-group` breaks the rule `open`: tcp port 5432 is open to 0.0.0.0/0; let in a security group \
         or a network of your own"
    );
    assert_eq!(*stage.world.log.lock().unwrap(), Vec::<String>::new());
    // What should not be there can be taken away all the same.
    let checked = plan(&chain().blueprint, &stage.cloud, &stage.options).await;
    assert!(checked.is_ok());
}

#[tokio::test]
async fn progress_that_is_kept_up_to_date_says_what_counting_anew_says() {
    let mut stage = chain();
    stage.slow("b", 3);
    stage.fault("create d", &[Class::Invalid]);
    let told = Arc::new(Mutex::new(Vec::new()));
    let heard = Arc::clone(&told);
    stage.options.on_progress = Some(Arc::new(move |progress| {
        heard.lock().unwrap().push(progress.clone())
    }));
    let report = stage.converge().await;
    let told = told.lock().unwrap();
    assert_eq!(told.last(), Some(&report.progress()));
    assert!(
        told.windows(2).all(|pair| pair[0] != pair[1]),
        "only news is told"
    );
    assert!(
        told.iter()
            .any(|progress| progress.waiting.iter().any(|one| one.key == "b"))
    );
    assert_eq!(report.progress().failed.len(), 1);
}
