//! Random commands with retries, in any order, with a crash between any two of the four steps, and takeovers that lose a part
//! of the ledger: what was acknowledged survives, once, byte for byte, and no rule of the ledger is broken.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use continuity::control::Phase;
use continuity::entry::{EntryId, EntryKind, EntryStatus, LedgerEntry};
use payments::ledger::Ledger;
use payments::ledger::memory::MemoryLedger;
use proptest::prelude::*;
use serde_json::{Value, json};

use crate::stage::{Answer, HOME, OTHER, Region, Request, Tables, post};

const ACCOUNTS: usize = 4;
const KEYS: u8 = 40;

/// Where the function ends before it has answered.
#[derive(Debug, Clone, Copy)]
enum Crash {
    No,
    BeforeTheLedger,
    BeforeTheJournal,
    BeforeTheLastLook,
}

#[derive(Debug, Clone)]
enum Step {
    /// A client sends the command of a key: for the first time, or again.
    Send { key: u8, crash: Crash },
    /// The region that was active before takes the same command: it has not heard of the takeover.
    SendToOld { key: u8 },
    /// Somebody looks at the active region's health.
    Look,
    /// The other region takes over; of what the ledger took since its epoch was set, the newest entries had not been replicated.
    TakeOver { lost: usize },
}

/// What the command of a key is: chosen with the key, so that a retry is the same request.
#[derive(Debug, Clone, Copy)]
struct Wish {
    what: u8,
    from: usize,
    to: usize,
    amount: i64,
    /// Which of the payments that were acknowledged so far it is about.
    payment: usize,
}

fn wishes() -> impl Strategy<Value = Vec<Wish>> {
    let wish = (0_u8..10, 0..ACCOUNTS, 1..ACCOUNTS, 1_i64..200, 0_usize..100).prop_map(
        |(what, from, step, amount, payment)| Wish {
            what,
            from,
            to: (from + step) % ACCOUNTS,
            amount,
            payment,
        },
    );
    proptest::collection::vec(wish, usize::from(KEYS))
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let crash = prop_oneof![
        5 => Just(Crash::No),
        1 => Just(Crash::BeforeTheLedger),
        1 => Just(Crash::BeforeTheJournal),
        1 => Just(Crash::BeforeTheLastLook),
    ];
    let step = prop_oneof![
        20 => (0..KEYS, crash).prop_map(|(key, crash)| Step::Send { key, crash }),
        2 => (0..KEYS).prop_map(|key| Step::SendToOld { key }),
        4 => Just(Step::Look),
        1 => (0_usize..12).prop_map(|lost| Step::TakeOver { lost }),
    ];
    proptest::collection::vec(step, 30..150)
}

struct World {
    tables: Tables,
    /// The active region first.
    regions: [Region; 2],
    epoch: u64,
    /// How many entries the ledger held when its epoch was set. A replica that shows the epoch has them, and no other is taken over
    /// to (rule i).
    held: usize,
    /// Up to where the log was settled, and how many entries the ledger held when it said so: a replica with so many says it too.
    settled: Vec<(usize, EntryId)>,
    accounts: Vec<String>,
    wishes: Vec<Wish>,
    /// The request that was sent with a key.
    sent: BTreeMap<u8, Request>,
    acknowledged: BTreeMap<u8, Answer>,
    payments: Vec<String>,
    overdrawn: BTreeSet<String>,
}

impl World {
    async fn new(wishes: Vec<Wish>) -> World {
        let tables = Tables::new().await;
        let regions = [tables.region(HOME, "primary", 1), tables.region(OTHER, "dr", 1)];
        regions[1].ledger.set_standby(true);
        let mut accounts = Vec::new();
        for number in 0..ACCOUNTS {
            let limit = if number == 0 { json!(null) } else { json!(-100) };
            accounts.push(regions[0].open(&format!("account-{number}"), limit).await);
        }
        World {
            tables,
            regions,
            epoch: 1,
            held: 0,
            settled: Vec::new(),
            accounts,
            wishes,
            sent: BTreeMap::new(),
            acknowledged: BTreeMap::new(),
            payments: Vec::new(),
            overdrawn: BTreeSet::new(),
        }
    }

    fn request(&mut self, key: u8) -> Request {
        if let Some(request) = self.sent.get(&key) {
            return request.clone();
        }
        let wish = self.wishes[usize::from(key)];
        let pay = |hold: bool| {
            let mut body = json!({ "from_account": self.accounts[wish.from], "to_account": self.accounts[wish.to],
                                   "amount_minor": wish.amount, "currency": "EUR" });
            if hold {
                body["capture_method"] = json!("manual");
            }
            ("/v1/payments".to_owned(), body)
        };
        let known = self.payments.len();
        let path = |what: &str| format!("/v1/payments/{}/{what}", self.payments[wish.payment % known]);
        let part = if wish.amount % 2 == 0 {
            json!({})
        } else {
            json!({ "amount_minor": wish.amount })
        };
        let (path, body) = match wish.what {
            _ if known == 0 => pay(true),
            0..=2 => pay(false),
            3..=5 => pay(true),
            6..=7 => (path("capture"), part),
            8 => (path("void"), json!({})),
            _ => (path("refunds"), part),
        };
        let request = post(&path, &format!("key-{key}"), body);
        self.sent.insert(key, request.clone());
        request
    }

    async fn send(&mut self, key: u8, crash: Crash) {
        let request = self.request(key);
        let fail = |on: bool| match crash {
            Crash::No => {}
            Crash::BeforeTheLedger => self.regions[0].ledger.set_unreachable(on),
            Crash::BeforeTheJournal => self.tables.journal.set_unreachable(on),
            Crash::BeforeTheLastLook => self.tables.control.set_unreachable(on),
        };
        fail(true);
        let answer = self.regions[0].send(&request).await;
        fail(false);
        self.note(key, answer);
    }

    /// What a client takes from an answer.
    fn note(&mut self, key: u8, answer: Answer) {
        assert_ne!(answer.status, 500, "{answer:?}");
        if let Some(before) = self.acknowledged.get(&key) {
            assert!(
                answer.status == 503 || &answer == before,
                "{before:?}, then {answer:?}"
            );
        }
        if answer.status < 300 {
            if self.sent[&key].path == "/v1/payments" {
                let id = answer.json()["id"].as_str().unwrap().to_owned();
                if !self.payments.contains(&id) {
                    self.payments.push(id);
                }
            }
            self.acknowledged.insert(key, answer);
        }
    }

    async fn look(&mut self) {
        let ledger = &self.regions[0].ledger;
        ledger.heartbeat(self.epoch).await.unwrap();
        let entries = ledger.log().await.unwrap().len();
        self.settled
            .push((entries, ledger.settled().await.unwrap().unwrap()));
    }

    async fn take_over(&mut self, lost: usize) {
        self.regions.swap(0, 1);
        self.epoch += 1;
        let (epoch, region) = (
            self.epoch,
            if self.epoch.is_multiple_of(2) { OTHER } else { HOME },
        );
        self.tables
            .store(|record| {
                (record.epoch, record.active_region, record.phase) =
                    (epoch, region.to_owned(), Phase::Recovering);
            })
            .await;
        // What had been replicated to the region that takes over.
        let log = self.regions[1].ledger.log().await.unwrap();
        let kept = &log[..log.len().saturating_sub(lost).max(self.held)];
        self.held = kept.len();
        let ledger = Arc::new(MemoryLedger::in_epoch(epoch - 1));
        ledger.post(epoch - 1, kept).await.unwrap();
        self.settled.retain(|(entries, _)| *entries <= kept.len());
        ledger.set_settled(self.settled.last().map(|(_, entry)| *entry));
        let slot = if region == HOME { "primary" } else { "dr" };
        self.regions[0] = self.tables.region_over(region, slot, ledger);

        self.regions[0]
            .task(json!({ "task": "set-epoch", "epoch": epoch }))
            .await;
        let replay = json!({ "task": "replay", "from_epoch": epoch - 1, "to_epoch": epoch });
        let replayed = self.regions[0].task(replay.clone()).await;
        assert_eq!(replayed, self.regions[0].task(replay).await, "twice is once");
        let overdrawn = replayed["overdrawn"].as_array().unwrap();
        self.overdrawn
            .extend(overdrawn.iter().map(|id| id.as_str().unwrap().to_owned()));
        let verified = self.regions[0].task(json!({ "task": "verify-ledger" })).await;
        assert_eq!(verified["balanced"], true, "{verified}");
        self.tables
            .store(|record| (record.phase, record.last_served_epoch) = (Phase::Serving, epoch))
            .await;
    }

    async fn check(&mut self) {
        let log = self.regions[0].ledger.log().await.unwrap();
        let keys: BTreeSet<&str> = log.iter().map(|entry| entry.idempotency_key.as_str()).collect();
        assert_eq!(keys.len(), log.len(), "one key, one entry");
        for (key, answer) in &self.acknowledged {
            assert!(
                keys.contains(format!("key-{key}").as_str()),
                "{answer:?} was acknowledged"
            );
            let again = self.regions[0].send(&self.sent[key]).await;
            assert_eq!(&again, answer, "byte for byte");
        }
        check_bounds(&log);
        let mut total = 0;
        for account in self.regions[0]
            .ledger
            .accounts(None, 100)
            .await
            .unwrap()
            .value
            .items
        {
            total += account.balance_minor;
            assert!(account.pending_in_minor >= 0 && account.pending_out_minor >= 0);
            assert!(
                account
                    .limit_minor
                    .is_none_or(|limit| account.available_minor >= limit)
                    || self.overdrawn.contains(&account.id.to_string()),
                "{account:?}"
            );
        }
        assert_eq!(total, 0, "money is conserved");
        self.check_replay(&log).await;
    }

    /// The log, posted into an empty ledger, gives the same balances.
    async fn check_replay(&self, log: &[LedgerEntry]) {
        let empty = MemoryLedger::in_epoch(self.epoch);
        let posted = empty.post(self.epoch, log).await.unwrap();
        assert_eq!(posted.conflicts, []);
        assert_eq!(empty.log().await.unwrap(), log, "entry for entry");
        for id in &self.accounts {
            let id = id.parse().unwrap();
            let balances = async |ledger: &MemoryLedger| {
                let account = ledger.account(id).await.unwrap().value.unwrap();
                (
                    account.balance_minor,
                    account.pending_out_minor,
                    account.pending_in_minor,
                )
            };
            assert_eq!(balances(&empty).await, balances(&self.regions[0].ledger).await);
        }
    }
}

/// No more is captured than was authorised, no more refunded than captured, and an authorisation ends once.
fn check_bounds(log: &[LedgerEntry]) {
    let mut payments: BTreeMap<&str, [i64; 3]> = BTreeMap::new();
    let mut ended = BTreeSet::new();
    for entry in log.iter().filter(|entry| entry.status == EntryStatus::Created) {
        let moved = entry.posting.as_ref().map_or(0, |posting| posting.amount_minor);
        // Of a payment whose own entry was lost, what the command on it recorded.
        let recorded = entry.details.get("payment").unwrap_or(&entry.details);
        let asked = recorded["amount_minor"].as_i64().unwrap_or(0);
        let captured = match entry.kind {
            EntryKind::Refund => recorded["captured_minor"].as_i64().unwrap_or(0),
            _ => 0,
        };
        let sums = payments.entry(&entry.subject).or_insert([asked, captured, 0]);
        match entry.kind {
            EntryKind::Payment | EntryKind::Capture => sums[1] += moved,
            EntryKind::Refund => sums[2] += moved,
            _ => {}
        }
        assert!(sums[2] <= sums[1] && sums[1] <= sums[0], "{entry:?}: {sums:?}");
        if matches!(
            entry.kind,
            EntryKind::Capture | EntryKind::Void | EntryKind::Expiry
        ) {
            assert!(ended.insert(&entry.subject), "{entry:?} ends it twice");
        }
    }
}

async fn run(wishes: Vec<Wish>, steps: Vec<Step>) -> (usize, u64) {
    let mut world = World::new(wishes).await;
    for step in steps {
        match step {
            Step::Send { key, crash } => world.send(key, crash).await,
            Step::SendToOld { key } => {
                let request = world.request(key);
                let answer = world.regions[1].send(&request).await;
                assert!(
                    answer.status >= 400,
                    "a region that is not active acknowledged {answer:?}"
                );
            }
            Step::Look => world.look().await,
            Step::TakeOver { lost } => world.take_over(lost).await,
        }
    }
    world.check().await;
    (world.acknowledged.len(), world.epoch)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, max_shrink_iters: 5_000, ..ProptestConfig::default() })]

    #[test]
    fn whatever_crashes_and_takes_over_what_was_acknowledged_is_in_the_ledger_once(wishes in wishes(), steps in steps()) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        let (acknowledged, _) = runtime.block_on(run(wishes, steps));
        prop_assert!(acknowledged > 0);
    }
}

#[tokio::test]
async fn a_capture_outlives_an_authorisation_that_was_never_acknowledged() {
    let world = World::new(Vec::new()).await;
    let Tables { journal, .. } = &world.tables;
    let [active, _] = &world.regions;
    let hold = json!({ "from_account": world.accounts[0], "to_account": world.accounts[1], "amount_minor": 100,
                       "currency": "EUR", "capture_method": "manual" });
    journal.set_unreachable(true);
    assert_eq!(active.send(&post("/v1/payments", "hold", hold)).await.status, 503);
    journal.set_unreachable(false);
    // A read shows it: it is committed.
    let listed = active.send(&crate::stage::get("/v1/payments")).await.json();
    let id = listed["data"][0]["id"].as_str().unwrap().to_owned();
    let capture = post(
        &format!("/v1/payments/{id}/capture"),
        "capture",
        json!({ "amount_minor": 60 }),
    );
    let captured = active.send(&capture).await;
    assert_eq!(captured.status, 200, "{captured:?}");

    let mut world = world;
    world.take_over(2).await;
    let shown = world.regions[0]
        .send(&crate::stage::get(&format!("/v1/payments/{id}")))
        .await
        .json();
    let member = |body: &Value, name: &str| body[name].clone();
    assert_eq!(member(&shown, "status"), "captured");
    assert_eq!(member(&shown, "captured_minor"), 60);
    assert_eq!(world.regions[0].send(&capture).await, captured, "byte for byte");
    let payer = world.regions[0]
        .send(&crate::stage::get(&format!("/v1/accounts/{}", world.accounts[0])))
        .await
        .json();
    assert_eq!(member(&payer, "balance_minor"), -60);
    assert_eq!(member(&payer, "pending_out_minor"), 0);
}
