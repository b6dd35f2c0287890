//! The active region moves, in a local cloud of its own, while customers pay: planned and unplanned, in both directions, twice in a
//! row, by the observers with a person's approval and by an operator. Nothing acknowledged is lost, and what takes over needs
//! nothing of the region that failed.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bootstrap::artifacts::Choice;
use bootstrap::client::Client;
use bootstrap::demo::load::{Acknowledged, Load};
use bootstrap::demo::{self, tally::tally};
use bootstrap::local::{self, Cloud};
use bootstrap::stack::Stack;
use bootstrap::takeover::{Mode, Moved, Wish, answer, maintenance, move_to, waiting};
use bootstrap::ui::{Output, Ui};
use bootstrap::up;
use continuity::assess::Decider;
use continuity::control::{ControlRecord, ControlStore, Phase};
use continuity::names::Slot;
use infra::spec::Spec;
use infra::waiting::Choice as Answer;
use serde_json::Value;
use understudy_tests::killed::programs::Programs;

pub(super) const HOME: &str = "us-east-1";
pub(super) const STANDBY: &str = "us-east-2";
pub(super) const CURRENCY: &str = "EUR";
/// Payments that customers make in each epoch, at least.
const IN_EACH_EPOCH: usize = 20;
/// How long any one thing may take on a machine that is busy with other tests.
pub(super) const PATIENCE: Duration = Duration::from_secs(180);

/// A stack whose failovers a person approves, and customers.
pub(super) struct Stage {
    _programs: Arc<Programs>,
    pub(super) folder: tempfile::TempDir,
    pub(super) cloud: local::AttachedCloud,
    pub(super) stack: Stack,
    pub(super) client: Client,
    pub(super) accounts: Vec<String>,
    pub(super) ui: Arc<Ui>,
}

impl Stage {
    /// A stack with this suffix, and this in its settings.
    pub(super) async fn new(suffix: &str, settings: impl FnOnce(&mut Spec)) -> Stage {
        continuity::aws::install_tls();
        let folder = tempfile::tempdir().unwrap();
        let programs = Programs::shared().await.unwrap();
        let options = local::StartOptions::new(folder.path()).program(programs.understudy());
        let cloud = local::start_attached(options).await.unwrap();
        let mut spec = Spec {
            suffix: suffix.into(),
            ..Spec::default()
        };
        spec.failover.cooldown_ms = 3_000;
        spec.failover.stale_after_ms = 5_000;
        settings(&mut spec);
        let mut stack = Stack::on_local(spec, (*cloud).clone()).await.unwrap();
        let ui = Arc::new(Ui::new(Output::Text));
        let wishes = up::Wishes {
            packages: Choice::Folder(programs.packages()),
            ..up::Wishes::default()
        };
        up::up(&mut stack, &wishes, &ui).await.unwrap();
        let client = demo::customer(&stack).await.unwrap();
        let mut accounts = Vec::new();
        for number in 0..6 {
            let key = format!("open-{number}");
            accounts.push(
                client
                    .open_account(&key, CURRENCY, None, PATIENCE)
                    .await
                    .unwrap()
                    .id,
            );
        }
        Stage {
            _programs: programs,
            folder,
            cloud,
            stack,
            client,
            accounts,
            ui,
        }
    }

    pub(super) fn cloud(&self) -> &Cloud {
        &self.cloud
    }

    pub(super) fn load(&self) -> Load {
        Load::start(&self.client, 4, &self.accounts, CURRENCY, "move")
    }

    /// The control record, as this region has it.
    pub(super) async fn record(&self, region: &str) -> ControlRecord {
        let record = self.stack.control(region).read().await.unwrap();
        record.expect("the stack is deployed")
    }

    pub(super) async fn until<T>(&self, what: &str, look: impl AsyncFn(&Self) -> Option<T>) -> T {
        let began = Instant::now();
        loop {
            if let Some(found) = look(self).await {
                return found;
            }
            if began.elapsed() >= PATIENCE {
                panic!("{what}\n{}", self.seen().await);
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// What the stack says of itself, for whoever reads that a test failed.
    async fn seen(&self) -> String {
        let control = self.stack.control("us-west-2");
        let observers = Slot::ALL.map(|slot| self.stack.spec.regions.of(slot));
        let seen = control.observations(&observers).await;
        let seen = seen.map(|seen| {
            let last = seen.into_iter().map(|seen| {
                let newest = observers.map(|region| seen.newest(region).cloned());
                (seen.observer, newest, seen.assessment)
            });
            last.collect::<Vec<_>>()
        });
        format!("{:#?}\n{seen:#?}", control.read().await)
    }

    /// Cuts `region` off, its database killed, and approves what the observers propose.
    pub(super) async fn lose(&self, region: &str) -> ControlRecord {
        let other = self.stack.spec.regions.peer_of(region).unwrap();
        let before = self.record(other).await;
        self.cloud().outage(region.parse().unwrap(), true).await.unwrap();
        let proposed = self
            .until("nobody proposes a failover", async |stage| {
                waiting(&stage.stack).await.unwrap()
            })
            .await;
        assert_eq!(
            (proposed.epoch, proposed.to_region.as_str()),
            (before.epoch, other)
        );
        assert!(!proposed.reasons.is_empty());
        assert_eq!(
            self.record(other).await.epoch,
            before.epoch,
            "nothing changes before a person says so"
        );
        answer(&self.stack, Answer::Approve, "a test").await.unwrap();
        self.until("the failover does not open", async |stage| {
            let record = stage.record(other).await;
            (record.epoch == before.epoch + 1 && record.phase == Phase::Serving).then_some(record)
        })
        .await
    }

    pub(super) async fn heal(&self, region: &str) {
        self.cloud().heal(region.parse().unwrap()).await.unwrap();
        let region: local::Region = region.parse().unwrap();
        self.until("the database does not rejoin", async |stage| {
            let status = stage.cloud().status().await.unwrap();
            let lag = status
                .databases
                .values()
                .any(|database| database.standby_lag_bytes.is_some());
            (status.databases[&region].role == "standby" && lag).then_some(())
        })
        .await;
    }

    async fn wish(&self, to: &str, mode: Mode) -> Moved {
        let wish = Wish {
            to_region: to.into(),
            mode,
            or_ungraceful: false,
            reason: "a test".into(),
        };
        move_to(&self.stack, &wish, &self.ui).await.unwrap()
    }

    pub(super) async fn pays(&self, load: &mut Load, epoch: u64) {
        let began = Instant::now();
        while load.first_after(epoch - 1).is_none() {
            assert!(load.failure().is_none(), "a customer gave up");
            assert!(began.elapsed() < PATIENCE, "nobody is answered in epoch {epoch}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        // Enough of them to lose one.
        let wanted = load.count() + IN_EACH_EPOCH;
        while load.count() < wanted {
            assert!(load.failure().is_none(), "a customer gave up");
            assert!(
                began.elapsed() < PATIENCE,
                "nobody is answered any more in epoch {epoch}"
            );
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// The edge's log lines.
    fn calls(&self) -> Vec<Value> {
        let log = find(self.folder.path(), "edge.log");
        let text = std::fs::read_to_string(log).unwrap();
        text.lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect()
    }

    pub(super) async fn assert_nothing_lost(&self, acknowledged: &[Acknowledged]) {
        let ledger = self.client.payments(PATIENCE).await.unwrap();
        let mut balances = Vec::new();
        for id in &self.accounts {
            balances.push(self.client.account(id, PATIENCE).await.unwrap());
        }
        let result = tally(acknowledged, &ledger, &balances);
        assert!(result.acknowledged > 50, "{result:?}");
        assert_eq!(result.lost, Vec::<String>::new());
        assert_eq!(result.duplicated, Vec::<String>::new());
        assert_eq!(result.wrong_balances, Vec::<String>::new());
    }
}

fn find(folder: &Path, name: &str) -> std::path::PathBuf {
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).unwrap().flatten() {
            let path = entry.path();
            if path.is_dir() && !path.is_symlink() {
                folders.push(path);
            } else if entry.file_name() == name {
                return path;
            }
        }
    }
    panic!("no `{name}`");
}

/// The last step of a failover starts the recovery, which waits for the other region and asks for it.
fn starts_recovery(call: &Value) -> bool {
    let caller = call["caller"].as_str().unwrap_or_default();
    call["operation"] == "StartExecution" && caller.contains("failover-coordinator")
}

/// What a failover must not need: the failed region, the control planes in us-east-1, and what makes S3 buckets or APIs.
fn is_forbidden(call: &Value, failed: &str) -> bool {
    let text = |name: &str| call[name].as_str().unwrap_or_default();
    let creates = ["POST", "PUT", "PATCH", "DELETE"]
        .iter()
        .any(|method| text("operation").starts_with(method));
    text("region") == failed
        || ["route53", "iam"].contains(&text("service"))
        || (text("service") == "apigateway" && creates)
        || (text("service") == "s3" && creates && !text("operation").contains("/evidence/"))
}

#[tokio::test(flavor = "multi_thread")]
async fn the_active_region_moves_in_every_way_and_nothing_acknowledged_is_lost() {
    let _turn = crate::turn().await;
    let stage = Stage::new("move", |spec| spec.failover.decider = Decider::Approve).await;
    let mut load = stage.load();
    stage.pays(&mut load, 1).await;

    // Unplanned, approved by a person.
    let began_ms = continuity::clock::now_ms();
    let record = stage.lose(HOME).await;
    assert_eq!((record.epoch, record.active_region.as_str()), (2, STANDBY));
    stage.pays(&mut load, 2).await;
    let ended_ms = continuity::clock::now_ms();
    let calls: Vec<Value> = stage
        .calls()
        .into_iter()
        .filter(|call| call["source"] == STANDBY)
        .filter(|call| (began_ms..ended_ms).contains(&call["at_ms"].as_u64().unwrap_or_default()))
        .take_while(|call| !starts_recovery(call))
        .collect();
    assert!(
        calls
            .iter()
            .any(|call| call["operation"] == "FailoverGlobalCluster"),
        "the log shows the failover"
    );
    let forbidden: Vec<&Value> = calls.iter().filter(|call| is_forbidden(call, HOME)).collect();
    assert!(forbidden.is_empty(), "a failover called {forbidden:?}");
    stage.heal(HOME).await;

    // The other direction, without a planned change in between.
    stage
        .until("the observers do not see the standby fit", async |stage| {
            fit(stage, HOME).await
        })
        .await;
    let record = stage.lose(STANDBY).await;
    assert_eq!((record.epoch, record.active_region.as_str()), (3, HOME));
    stage.pays(&mut load, 3).await;
    stage.heal(STANDBY).await;

    // Planned, there and back; then an operator does not ask the region that serves.
    for (to, mode, epoch) in [
        (STANDBY, Mode::Graceful, 4),
        (HOME, Mode::Graceful, 5),
        (STANDBY, Mode::Ungraceful, 6),
        (HOME, Mode::Graceful, 7),
    ] {
        stage
            .until("the other region is not fit", async |stage| fit(stage, to).await)
            .await;
        let moved = stage.wish(to, mode).await;
        assert_eq!(
            (moved.epoch, moved.active_region.as_str(), moved.mode),
            (epoch, to, mode)
        );
        assert!(moved.traffic_verified, "{moved:?}");
        stage.pays(&mut load, epoch).await;
    }

    // Nothing begins by itself while an operator holds the stack.
    assert!(maintenance(&stage.stack, true).await.unwrap().maintenance);
    assert!(!maintenance(&stage.stack, false).await.unwrap().maintenance);

    let acknowledged = load.finish().await.unwrap();
    stage.assert_nothing_lost(&acknowledged).await;
    stage.cloud.stop().await;
}

/// Whether the region's database follows in the current epoch, as an observer in another region saw it since the last change.
pub(super) async fn fit(stage: &Stage, region: &str) -> Option<()> {
    let observers = Slot::ALL.map(|slot| stage.stack.spec.regions.of(slot));
    let record = stage.record(observers[2]).await;
    let seen = stage
        .stack
        .control(observers[2])
        .observations(&observers)
        .await
        .unwrap();
    let fit = seen
        .iter()
        .filter(|seen| seen.observer != record.active_region)
        .any(|seen| {
            seen.newest(region).is_some_and(|round| match &round.look {
                continuity::observe::Look::Standby { health } => {
                    round.at_ms > record.since_ms
                        && continuity::takeover::fit_to_take_over(&record, &health.database).is_ok()
                }
                _ => false,
            })
        });
    fit.then_some(())
}
