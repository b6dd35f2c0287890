//! Why an acknowledged payment is never lost: the protocol as a small model, checked exhaustively, with a switch for each of
//! the nine rules. With all of them no interleaving loses or doubles a payment; without any single one, some does.
//!
//! The model has one idempotency key, so one payment, which clients send up to three times; two regions; up to three
//! takeovers, each of which may stall at any step for ever or go on when it is stale. A region that is cut off is one whose
//! handlers and takeovers stall. What decides is the crate's own: `fence`, `open`, `epochs_to_replay`, `fit_to_take_over` and
//! `may_acknowledge`.
//!
//! Planned changes, which replay nothing, run beside takeovers, with `drain` and `undrain`. What is asked right before a call, and the
//! call, are one step here, for takeovers and planned changes alike.
#![allow(clippy::unwrap_used, missing_docs)]

use std::collections::{BTreeSet, HashSet, VecDeque};
use std::fmt::{self, Write};

use continuity::control::{ControlRecord, Phase};
use continuity::takeover::{
    LedgerStatus, Refused, Transition, drain, epochs_to_replay, fence, fit_to_take_over, open, undrain,
};

const REGIONS: [&str; 2] = ["us-east-1", "us-east-2"];

/// The rules of which the recovery point of zero is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Rule {
    /// (a) The epoch is read after the put.
    ReadAfterPut,
    /// (b) The put comes before the answer.
    PutBeforeAnswer,
    /// (c) The scan comes after the epoch rose.
    ScanAfterFence,
    /// (d) The scan covers only the epochs since the last that served.
    ScanSinceLastServed,
    /// (e) Stored outcomes are put again.
    StoredIsPutAgain,
    /// (f) They are put under the current epoch, not their own.
    PutUnderCurrentEpoch,
    /// (g) Replay puts what it posted under the new epoch before opening.
    ReplayPutsBeforeOpening,
    /// (h) The database refuses a command of another epoch.
    LedgerChecksEpoch,
    /// (i) A region is taken over to only when its ledger is fit.
    TargetIsFit,
}

/// What a handler does with a command. Step 1, the belief, may be of any time, so it needs no place in the order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Handle {
    Execute,
    Put,
    ReadEpoch,
    Answer,
}

/// What a takeover does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Take {
    Fence,
    Promote,
    SetEpoch,
    Scan,
    Post,
    PutAll,
    Open,
}

/// What a planned change does. It is given up by `Undrain`, instead of what comes after the drain.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Plan {
    /// The standby is fit, and the active region drains.
    Drain,
    /// The database changes its writer without loss.
    Switch,
    /// It is seen that the writer is the new one.
    AwaitWriter,
    Fence,
    SetEpoch,
    Open,
    /// It is seen that the writer is the old one.
    MayUndrain,
    Undrain,
}

/// What a replay puts under the new epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Puts {
    /// All that it found.
    Found,
    /// What the ledger holds of it.
    Held,
    /// What the ledger lacked when the new epoch was set. The rest is in every replica that shows the epoch.
    Posted,
}

/// The programs of handlers and takeovers, and the checks in between, with one rule switched off, or none.
struct Protocol {
    without: Option<Rule>,
    /// Rule (i) is asked at the promotion again, not only at the fence.
    fit_when_promoting: bool,
    handler: [Handle; 4],
    puts: Puts,
    takeover: Vec<Take>,
    /// Planned changes that may be begun.
    planned: u8,
    /// A planned change asks whether its epoch still drains before it switches the database, not only when it began.
    drains_when_switching: bool,
    /// The database's own switchover loses nothing.
    switches_without_loss: bool,
}

impl Protocol {
    fn without(rule: Option<Rule>) -> Self {
        use Handle::{Answer, Execute, Put, ReadEpoch};
        use Take::{Fence, Open, Post, Promote, PutAll, Scan, SetEpoch};
        Protocol {
            without: rule,
            fit_when_promoting: true,
            handler: match rule {
                Some(Rule::ReadAfterPut) => [Execute, ReadEpoch, Put, Answer],
                Some(Rule::PutBeforeAnswer) => [Execute, ReadEpoch, Answer, Put],
                _ => [Execute, Put, ReadEpoch, Answer],
            },
            puts: Puts::Posted,
            takeover: match rule {
                Some(Rule::ScanAfterFence) => vec![Scan, Fence, Promote, SetEpoch, Post, PutAll, Open],
                Some(Rule::ReplayPutsBeforeOpening) => {
                    vec![Fence, Promote, SetEpoch, Scan, Post, Open, PutAll]
                }
                _ => vec![Fence, Promote, SetEpoch, Scan, Post, PutAll, Open],
            },
            planned: 0,
            drains_when_switching: true,
            switches_without_loss: true,
        }
    }

    /// All nine rules, and so many planned changes beside the takeovers.
    fn with_planned(planned: u8) -> Self {
        Protocol {
            planned,
            ..Protocol::without(None)
        }
    }

    /// The replay's step runs a second time, as any step of a workflow may, and goes on after the opening.
    fn replaying_twice(mut self) -> Self {
        self.takeover.extend([Take::Scan, Take::Post, Take::PutAll]);
        self
    }

    fn keeps(&self, rule: Rule) -> bool {
        self.without != Some(rule)
    }
}

type Region = usize;
type Epoch = u8;

/// An execution of the payment: its identity, in the order in which a replay posts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct Entry {
    epoch: Epoch,
    seq: u8,
}

impl fmt::Display for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.epoch, self.seq)
    }
}

/// One record of a region's write-ahead log, as far as the payment is concerned.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Logged {
    Epoch(Epoch),
    Paid(Entry),
}

/// A region's database.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Ledger {
    writer: bool,
    log: Vec<Logged>,
}

impl Ledger {
    fn epoch(&self) -> Epoch {
        let epochs = self.log.iter().filter_map(|logged| match logged {
            Logged::Epoch(epoch) => Some(*epoch),
            Logged::Paid(_) => None,
        });
        epochs.max().unwrap_or(0)
    }

    /// The entry of the one idempotency key, if it was there before this epoch was set.
    fn paid_before(&self, epoch: Epoch) -> Option<Entry> {
        let before = self
            .log
            .iter()
            .take_while(|logged| **logged != Logged::Epoch(epoch));
        before.copied().find_map(|logged| match logged {
            Logged::Paid(entry) => Some(entry),
            Logged::Epoch(_) => None,
        })
    }

    /// The entry of the one idempotency key.
    fn paid(&self) -> Option<Entry> {
        self.log.iter().find_map(|logged| match logged {
            Logged::Paid(entry) => Some(*entry),
            Logged::Epoch(_) => None,
        })
    }
}

/// A handler at work on the payment, between two steps.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct Handler {
    region: Region,
    epoch: Epoch,
    entry: Entry,
    stored: bool,
    next: usize,
}

/// A takeover, between two steps. The one at position `n` makes epoch `n + 2`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Takeover {
    to: Region,
    /// The last epoch that had served when it fenced; 0 before.
    since: Epoch,
    found: Vec<Entry>,
    next: usize,
}

/// A planned change of an epoch, and the step that comes next.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct Planned {
    epoch: Epoch,
    to: Region,
    next: Plan,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct World {
    epoch: Epoch,
    active: Region,
    serving: bool,
    draining: bool,
    planned_begun: u8,
    planned: Vec<Planned>,
    last_served: Epoch,
    ledgers: [Ledger; 2],
    /// The region that the other one's database follows.
    primary: Region,
    /// Entries under an epoch, sorted.
    journal: Vec<(Epoch, Entry)>,
    /// Which region ever served an epoch: what a handler may believe.
    served: Vec<(Epoch, Region)>,
    attempts_left: u8,
    executions: u8,
    handlers: Vec<Handler>,
    takeovers: Vec<Takeover>,
    acknowledged: Vec<Entry>,
}

/// A step, for the story.
#[derive(Debug, Clone, Copy)]
enum Did {
    Execute(Handler),
    Handle(Handler, Handle),
    Refused(Handler),
    Take(Region, Epoch, Take, Option<Entry>),
    Plan(Planned),
    Rewind(Region),
    Receive(Region, Logged),
}

impl fmt::Display for Did {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let handler = |h: &Handler| {
            format!(
                "handler in {}, epoch {}, payment {}",
                REGIONS[h.region], h.epoch, h.entry
            )
        };
        match self {
            Did::Execute(h) if h.stored => write!(f, "{}: found in the ledger", handler(h)),
            Did::Execute(h) => write!(f, "{}: executed", handler(h)),
            Did::Handle(h, step) => write!(f, "{}: {step:?}", handler(h)),
            Did::Refused(h) => write!(f, "{}: refused", handler(h)),
            Did::Take(to, epoch, Take::Scan, found) => {
                let found = found.map_or("nothing".to_owned(), |entry| format!("payment {entry} first"));
                write!(
                    f,
                    "takeover to {}, epoch {epoch}: Scan finds {found}",
                    REGIONS[*to]
                )
            }
            Did::Take(to, epoch, step, _) => {
                write!(f, "takeover to {}, epoch {epoch}: {step:?}", REGIONS[*to])
            }
            Did::Plan(Planned { epoch, to, next }) => {
                write!(
                    f,
                    "planned change to {}, of epoch {epoch}: {next:?}",
                    REGIONS[*to]
                )
            }
            Did::Rewind(region) => write!(f, "database in {}: rewound, follows", REGIONS[*region]),
            Did::Receive(region, Logged::Epoch(epoch)) => {
                write!(f, "database in {}: receives epoch {epoch}", REGIONS[*region])
            }
            Did::Receive(region, Logged::Paid(entry)) => {
                write!(f, "database in {}: receives payment {entry}", REGIONS[*region])
            }
        }
    }
}

/// A world after one step, and the step.
type Step = (World, Did);

fn record(epoch: Epoch, active: Region, serving: bool, last_served: Epoch) -> ControlRecord {
    ControlRecord {
        epoch: epoch.into(),
        phase: if serving {
            Phase::Serving
        } else {
            Phase::Recovering
        },
        last_served_epoch: last_served.into(),
        ..ControlRecord::first(REGIONS[active], "", 0)
    }
}

impl World {
    fn new(attempts: u8) -> Self {
        let ledger = |writer| Ledger {
            writer,
            log: vec![Logged::Epoch(1)],
        };
        World {
            epoch: 1,
            active: 0,
            serving: true,
            draining: false,
            planned_begun: 0,
            planned: Vec::new(),
            last_served: 1,
            ledgers: [ledger(true), ledger(false)],
            primary: 0,
            journal: Vec::new(),
            served: vec![(1, 0)],
            attempts_left: attempts,
            executions: 0,
            handlers: Vec::new(),
            takeovers: Vec::new(),
            acknowledged: Vec::new(),
        }
    }

    fn record(&self) -> ControlRecord {
        let mut record = record(self.epoch, self.active, self.serving, self.last_served);
        if self.draining {
            record.phase = Phase::Draining;
        }
        record
    }

    /// A region's ledger as the takeover sees it: the writer is what the cluster's control plane calls so, too.
    fn status(&self, region: Region) -> LedgerStatus {
        let ledger = &self.ledgers[region];
        LedgerStatus {
            reachable: true,
            in_recovery: !ledger.writer || self.primary != region,
            ledger_epoch: Some(ledger.epoch().into()),
        }
    }

    fn put(&mut self, under: Epoch, entry: Entry) {
        if let Err(place) = self.journal.binary_search(&(under, entry)) {
            self.journal.insert(place, (under, entry));
        }
    }

    /// An acknowledged payment that the serving ledger lacks, or a second one of the same key.
    fn lost_or_doubled(&self) -> Option<String> {
        let ledger = &self.ledgers[self.active];
        let serves = self.serving && ledger.writer && ledger.epoch() == self.epoch;
        match self.acknowledged.as_slice() {
            [one, other, ..] => Some(format!("both {one} and {other} were acknowledged, with one key")),
            [one] if serves && ledger.paid() != Some(*one) => {
                let holds = ledger
                    .paid()
                    .map_or("nothing".to_owned(), |entry| entry.to_string());
                Some(format!(
                    "{one} was acknowledged, {} serves with {holds}",
                    REGIONS[self.active]
                ))
            }
            _ => None,
        }
    }

    /// An acknowledged payment that the next takeover would find neither in the journal nor in the ledger of a region that is fit.
    fn not_found_again(&self) -> Option<String> {
        let record = self.record();
        let mut fit =
            (0..REGIONS.len()).filter(|region| fit_to_take_over(&record, &self.status(*region)).is_ok());
        let holds = |ledger: &Ledger| {
            self.acknowledged
                .iter()
                .all(|entry| ledger.paid() == Some(*entry))
        };
        fit.find(|region| !holds(&self.ledgers[*region]))
            .and_then(|_| self.not_in_the_journal())
    }

    /// An acknowledged payment that the next takeover would not find in the journal.
    fn not_in_the_journal(&self) -> Option<String> {
        let missing = |entry: &&Entry| !self.journal.contains(&(self.epoch, **entry));
        let lacking = self.acknowledged.iter().find(missing).filter(|_| self.serving)?;
        Some(format!(
            "{lacking} was acknowledged, the journal of epoch {} lacks it",
            self.epoch
        ))
    }

    /// Forgets what can no longer have an effect, so that worlds that differ only in it are one: handlers that are left with
    /// being refused, takeovers that are left with not opening, journaled entries that nobody will scan.
    fn forget(mut self, protocol: &Protocol) -> Self {
        let (now, last_served) = (self.epoch, self.last_served);
        self.handlers
            .retain(|handler| protocol.handler[handler.next] != Handle::ReadEpoch || handler.epoch >= now);
        for (position, takeover) in self.takeovers.iter_mut().enumerate() {
            let passed = position + 2 < usize::from(now);
            let next = protocol.takeover.get(takeover.next);
            if next.is_none() || passed && next == Some(&Take::Open) && protocol.takeover.last() == next {
                *takeover = Takeover {
                    to: takeover.to,
                    since: 0,
                    found: Vec::new(),
                    next: protocol.takeover.len(),
                };
            }
        }
        // A change whose epoch has passed fences nothing; only its switch of the database may still come.
        self.planned.retain(|planned| {
            planned.epoch == now
                || planned.next == Plan::Switch && !protocol.drains_when_switching
                || planned.epoch + 1 == now && [Plan::SetEpoch, Plan::Open].contains(&planned.next)
        });
        self.planned.sort_unstable();
        let scans = self
            .takeovers
            .iter()
            .filter(|takeover| takeover.next < protocol.takeover.len());
        let oldest = scans
            .map(|takeover| takeover.since)
            .min()
            .unwrap_or(last_served)
            .min(last_served);
        if protocol.keeps(Rule::ScanSinceLastServed) {
            self.journal.retain(|(under, _)| *under >= oldest);
        }
        self
    }

    fn steps(&self, protocol: &Protocol, takeovers: usize) -> Vec<Step> {
        let mut steps = Vec::new();
        for &(epoch, region) in &self.served {
            steps.extend(self.execute(protocol, region, epoch));
        }
        for which in 0..self.handlers.len() {
            steps.push(self.handle(protocol, which));
        }
        for which in 0..self.takeovers.len() {
            steps.extend(self.take(protocol, which));
        }
        if self.takeovers.len() < takeovers && self.takeovers.len() + 1 == usize::from(self.epoch) {
            for to in 0..REGIONS.len() {
                let mut begun = self.clone();
                begun.takeovers.push(Takeover {
                    to,
                    since: 0,
                    found: Vec::new(),
                    next: 0,
                });
                steps.extend(begun.take(protocol, self.takeovers.len()));
            }
        }
        for which in 0..self.planned.len() {
            steps.extend(self.plan(protocol, which, takeovers));
        }
        if self.planned_begun < protocol.planned {
            for to in 0..REGIONS.len() {
                let mut begun = self.clone();
                begun.planned_begun += 1;
                begun.planned.push(Planned {
                    epoch: self.epoch,
                    to,
                    next: Plan::Drain,
                });
                steps.extend(begun.plan(protocol, self.planned.len(), takeovers));
            }
        }
        steps.extend(self.replicate());
        steps
    }

    /// The steps that a planned change can make now.
    fn plan(&self, protocol: &Protocol, which: usize, takeovers: usize) -> Vec<Step> {
        let planned = self.planned[which];
        let Planned { epoch, to, next } = planned;
        let (from, of) = (1 - to, u64::from(epoch));
        let ledger = &self.ledgers[to];
        // The world after a step, and what comes next; nothing when it was the last.
        let done = |world: World, then: Option<Plan>, did: Plan| -> Step {
            let mut world = world;
            match then {
                Some(then) => world.planned[which].next = then,
                None => {
                    world.planned.remove(which);
                }
            }
            (world, Did::Plan(Planned { next: did, ..planned }))
        };
        let mut steps = Vec::new();
        match next {
            Plan::Drain => {
                let fit = fit_to_take_over(&self.record(), &self.status(to)).is_ok();
                let drained = match drain(&self.record(), of, REGIONS[to], "", 0) {
                    Ok(Transition::AlreadyDone(_)) => Some(self.clone()),
                    other => self.stored(other),
                };
                if let Some(world) = drained.filter(|_| fit) {
                    steps.push(done(world, Some(Plan::Switch), next));
                }
            }
            Plan::Switch => {
                let drains = !protocol.drains_when_switching || self.draining && epoch == self.epoch;
                if drains && self.primary == from && self.ledgers[from].writer && !ledger.writer {
                    let mut world = self.clone();
                    if protocol.switches_without_loss {
                        world.ledgers[to].log.clone_from(&self.ledgers[from].log);
                    }
                    world.ledgers[from].writer = false;
                    world.ledgers[to].writer = true;
                    world.primary = to;
                    steps.push(done(world, Some(Plan::AwaitWriter), next));
                }
                // Another attempt switched it.
                if self.primary == to && ledger.writer && epoch == self.epoch {
                    steps.push(done(self.clone(), Some(Plan::AwaitWriter), next));
                }
                if epoch == self.epoch && self.draining && self.primary == from {
                    steps.push(done(self.clone(), Some(Plan::Undrain), Plan::MayUndrain));
                }
            }
            Plan::AwaitWriter => {
                if self.primary == to && ledger.writer {
                    steps.push(done(self.clone(), Some(Plan::Fence), next));
                }
            }
            Plan::Fence => {
                let room = self.takeovers.len() < takeovers;
                // By a name of its own: an epoch that a takeover raised is not its.
                let fenced = self.stored(fence(&self.record(), of, REGIONS[to], "planned", 0));
                if let Some(mut world) = fenced.filter(|_| room) {
                    world.takeovers.push(Takeover {
                        to,
                        since: 0,
                        found: Vec::new(),
                        next: protocol.takeover.len(),
                    });
                    steps.push(done(world, Some(Plan::SetEpoch), next));
                }
            }
            Plan::SetEpoch => {
                if ledger.writer && ledger.epoch() < epoch + 1 {
                    let world = self.logged(to, Logged::Epoch(epoch + 1));
                    steps.push(done(world, Some(Plan::Open), next));
                }
            }
            Plan::Open => {
                if let Some(mut world) = self.stored(open(&self.record(), of + 1, REGIONS[to], 0)) {
                    world.served.push((epoch + 1, to));
                    steps.push(done(world, None, next));
                }
            }
            Plan::Undrain => {
                if let Some(world) = self.stored(undrain(&self.record(), of, 0)) {
                    steps.push(done(world, None, next));
                }
            }
            Plan::MayUndrain => unreachable!("it is a way to undrain"),
        }
        steps
    }

    /// A client sends the payment to a handler that believes that its region serves `epoch`: steps 1 and 2.
    fn execute(&self, protocol: &Protocol, region: Region, epoch: Epoch) -> Option<Step> {
        let ledger = &self.ledgers[region];
        let refused = protocol.keeps(Rule::LedgerChecksEpoch) && ledger.epoch() != epoch;
        if self.attempts_left == 0 || !ledger.writer || refused {
            return None;
        }
        let mut next = self.clone();
        next.attempts_left -= 1;
        let stored = ledger.paid();
        let entry = stored.unwrap_or(Entry {
            epoch,
            seq: self.executions + 1,
        });
        if stored.is_none() {
            next.executions += 1;
            next.ledgers[region].log.push(Logged::Paid(entry));
        }
        let handler = Handler {
            region,
            epoch,
            entry,
            stored: stored.is_some(),
            next: 1,
        };
        next.handlers.push(handler);
        next.handlers.sort_unstable();
        Some((next, Did::Execute(handler)))
    }

    /// A handler's next step, and the answer with it where that is what follows.
    fn handle(&self, protocol: &Protocol, which: usize) -> Step {
        let mut next = self.clone();
        let mut handler = next.handlers.remove(which);
        let step = protocol.handler[handler.next];
        let did = Did::Handle(handler, step);
        match step {
            Handle::Put if handler.stored && !protocol.keeps(Rule::StoredIsPutAgain) => {}
            Handle::Put => {
                let own = handler.stored && !protocol.keeps(Rule::PutUnderCurrentEpoch);
                next.put(
                    if own { handler.entry.epoch } else { handler.epoch },
                    handler.entry,
                );
            }
            Handle::ReadEpoch => {
                if !self
                    .record()
                    .may_acknowledge(REGIONS[handler.region], handler.epoch.into())
                {
                    return (next, Did::Refused(handler));
                }
            }
            Handle::Execute | Handle::Answer => {
                unreachable!("the one comes first, the other with the step before it")
            }
        }
        handler.next += 1;
        if protocol.handler.get(handler.next) == Some(&Handle::Answer) {
            handler.next += 1;
            if !next.acknowledged.contains(&handler.entry) {
                next.acknowledged.push(handler.entry);
                next.acknowledged.sort_unstable();
            }
        }
        if handler.next < protocol.handler.len() {
            next.handlers.push(handler);
            next.handlers.sort_unstable();
        }
        (next, did)
    }

    /// A takeover's next step, `None` when it can make none now.
    fn take(&self, protocol: &Protocol, which: usize) -> Option<Step> {
        let Takeover {
            to,
            since,
            found,
            next: at,
        } = &self.takeovers[which];
        let (to, step) = (*to, *protocol.takeover.get(*at)?);
        let epoch = Epoch::try_from(which).unwrap() + 2;
        let ledger = &self.ledgers[to];
        let fit = |before: &ControlRecord| {
            !protocol.keeps(Rule::TargetIsFit) || fit_to_take_over(before, &self.status(to)).is_ok()
        };
        let mut next = match step {
            Take::Fence if fit(&self.record()) => {
                let mut next =
                    self.stored(fence(&self.record(), u64::from(epoch) - 1, REGIONS[to], "", 0))?;
                next.takeovers[which].since = next.last_served;
                next
            }
            // Asked once more: the database may have been rewound since the fence.
            Take::Promote
                if !protocol.fit_when_promoting || fit(&record(epoch - 1, 1 - to, false, *since)) =>
            {
                let mut next = self.clone();
                next.ledgers[to].writer = true;
                next.primary = to;
                next
            }
            Take::SetEpoch if ledger.writer && ledger.epoch() < epoch => {
                self.logged(to, Logged::Epoch(epoch))
            }
            Take::Scan => {
                let mut next = self.clone();
                next.takeovers[which].found = self.scan(protocol, epoch, *since);
                next
            }
            // In order; a key that is there already stays as it is, and what it displaces stays behind.
            Take::Post if ledger.writer && ledger.epoch() == epoch => {
                let mut next = match (ledger.paid(), found.first()) {
                    (None, Some(first)) => self.logged(to, Logged::Paid(*first)),
                    _ => self.clone(),
                };
                let ledger = &next.ledgers[to];
                let (held, before) = (ledger.paid(), ledger.paid_before(epoch));
                next.takeovers[which].found.retain(|entry| match protocol.puts {
                    Puts::Found => true,
                    Puts::Held => Some(*entry) == held,
                    Puts::Posted => Some(*entry) == held && Some(*entry) != before,
                });
                next
            }
            Take::PutAll => {
                let mut next = self.clone();
                found.iter().for_each(|entry| next.put(epoch, *entry));
                next
            }
            Take::Open => {
                let mut next = self.stored(open(&self.record(), epoch.into(), REGIONS[to], 0))?;
                next.served.push((epoch, to));
                next
            }
            _ => return None,
        };
        next.takeovers[which].next += 1;
        let first = next.takeovers[which].found.first().copied();
        Some((next, Did::Take(to, epoch, step, first)))
    }

    /// This world with what a transition of the control record stores.
    fn stored(&self, transition: Result<Transition, Refused>) -> Option<World> {
        let Ok(Transition::Store(record)) = transition else {
            return None;
        };
        let mut next = self.clone();
        next.epoch = u8::try_from(record.epoch).unwrap();
        next.active = REGIONS
            .iter()
            .position(|region| *region == record.active_region)
            .unwrap();
        next.serving = record.phase == Phase::Serving;
        next.draining = record.phase == Phase::Draining;
        next.last_served = u8::try_from(record.last_served_epoch).unwrap();
        Some(next)
    }

    /// This world with one more record in a region's log.
    fn logged(&self, region: Region, logged: Logged) -> World {
        let mut next = self.clone();
        next.ledgers[region].log.push(logged);
        next
    }

    /// What the takeover into `epoch` finds in the journal. Only without rule (c) is there no fence before it.
    fn scan(&self, protocol: &Protocol, epoch: Epoch, since: Epoch) -> Vec<Entry> {
        let since = if since == 0 { self.last_served } else { since };
        let mut epochs = epochs_to_replay(&record(epoch, 0, false, since));
        if !protocol.keeps(Rule::ScanSinceLastServed) {
            epochs.start = 1;
        }
        let under = self
            .journal
            .iter()
            .filter(|(under, _)| epochs.contains(&u64::from(*under)));
        let found: BTreeSet<Entry> = under.map(|(_, entry)| *entry).collect();
        found.into_iter().collect()
    }

    /// The other database follows the primary, one record at a time; one that still is a writer is rewound first.
    fn replicate(&self) -> Option<Step> {
        let follower = 1 - self.primary;
        let ahead = &self.ledgers[self.primary].log;
        let mut next = self.clone();
        let ledger = &mut next.ledgers[follower];
        let common = ahead
            .iter()
            .zip(&ledger.log)
            .take_while(|(one, other)| one == other)
            .count();
        if ledger.writer {
            ledger.writer = false;
            ledger.log.truncate(common);
            return Some((next, Did::Rewind(follower)));
        }
        ledger.log.truncate(common);
        ledger.log.push(*ahead.get(common)?);
        Some((next, Did::Receive(follower, ahead[common])))
    }
}

/// Looks at every world that can be reached, the shortest way first. Answers how many there are, or the story of a bad one.
fn explore(
    protocol: &Protocol,
    attempts: u8,
    takeovers: usize,
    bad: impl Fn(&World) -> Option<String>,
) -> Result<usize, String> {
    let mut seen = HashSet::new();
    let mut history: Vec<(usize, Option<Did>)> = vec![(0, None)];
    let mut queue = VecDeque::from([(0, World::new(attempts))]);
    while let Some((came, world)) = queue.pop_front() {
        for (next, step) in world.steps(protocol, takeovers) {
            let next = next.forget(protocol);
            if seen.contains(&next) {
                continue;
            }
            history.push((came, Some(step)));
            if let Some(violation) = bad(&next) {
                return Err(tell(&history, &violation));
            }
            seen.insert(next.clone());
            queue.push_back((history.len() - 1, next));
        }
    }
    Ok(seen.len())
}

fn tell(history: &[(usize, Option<Did>)], violation: &str) -> String {
    let mut steps = Vec::new();
    let mut at = history.len() - 1;
    while let (came, Some(step)) = &history[at] {
        steps.push(step);
        at = *came;
    }
    let mut story = String::new();
    for (number, step) in steps.iter().rev().enumerate() {
        writeln!(story, "{:3}. {step}", number + 1).unwrap();
    }
    story + "  => " + violation
}

/// Without `rule`, two attempts and two takeovers suffice to lose a payment; `decisive` are steps of the shortest way there,
/// in their order.
fn assert_lost_without(rule: Rule, decisive: &[&str]) {
    assert_story(
        explore(&Protocol::without(Some(rule)), 2, 2, World::lost_or_doubled),
        decisive,
    );
}

fn assert_story(explored: Result<usize, String>, decisive: &[&str]) {
    let story = explored.expect_err("an interleaving breaks it");
    let mut lines = story.lines();
    for step in decisive {
        assert!(
            lines.any(|line| line.contains(step)),
            "`{step}` is not where it was expected in:\n{story}"
        );
    }
}

#[test]
fn with_all_nine_rules_no_interleaving_loses_or_doubles_a_payment() {
    let bad = |world: &World| world.lost_or_doubled().or_else(|| world.not_found_again());
    match explore(&Protocol::without(None), 3, 3, bad) {
        Ok(worlds) => assert!(
            worlds > 300_000,
            "only {worlds} worlds: the model no longer covers what it did"
        ),
        Err(story) => panic!("{story}"),
    }
}

#[test]
fn without_a_the_put_may_come_after_the_scan() {
    assert_lost_without(
        Rule::ReadAfterPut,
        &[
            "handler in us-east-1, epoch 1, payment 1/1: ReadEpoch",
            "takeover to us-east-2, epoch 2: Fence",
            "Scan finds nothing",
            "handler in us-east-1, epoch 1, payment 1/1: Put",
            "1/1 was acknowledged, us-east-2 serves with nothing",
        ],
    );
}

#[test]
fn without_b_the_handler_may_die_between_answer_and_put() {
    assert_lost_without(
        Rule::PutBeforeAnswer,
        &[
            "handler in us-east-1, epoch 1, payment 1/1: ReadEpoch",
            "Scan finds nothing",
            "1/1 was acknowledged, us-east-2 serves with nothing",
        ],
    );
}

#[test]
fn without_c_an_acknowledgement_fits_between_scan_and_fence() {
    assert_lost_without(
        Rule::ScanAfterFence,
        &[
            "Scan finds nothing",
            "handler in us-east-1, epoch 1, payment 1/1: Put",
            "handler in us-east-1, epoch 1, payment 1/1: ReadEpoch",
            "takeover to us-east-2, epoch 2: Fence",
            "1/1 was acknowledged, us-east-2 serves with nothing",
        ],
    );
}

#[test]
fn without_d_a_late_entry_that_nobody_acknowledged_displaces_an_acknowledged_one() {
    assert_lost_without(
        Rule::ScanSinceLastServed,
        &[
            "takeover to us-east-2, epoch 2: Scan finds nothing",
            "handler in us-east-1, epoch 1, payment 1/1: Put",
            "handler in us-east-2, epoch 2, payment 2/2: ReadEpoch",
            "takeover to us-east-1, epoch 3: Scan finds payment 1/1 first",
            "2/2 was acknowledged, us-east-1 serves with 1/1",
        ],
    );
}

#[test]
fn without_e_a_retry_is_answered_although_the_first_attempt_never_reached_the_journal() {
    assert_lost_without(
        Rule::StoredIsPutAgain,
        &[
            "payment 1/1: executed",
            "payment 1/1: found in the ledger",
            "payment 1/1: ReadEpoch",
            "Scan finds nothing",
            "1/1 was acknowledged, us-east-2 serves with nothing",
        ],
    );
}

/// The one rule that rule (i) covers as well: what a ledger held before an epoch was set is in every replica that shows the epoch. With
/// it the journal says of each entry in which epoch it was acknowledged last.
#[test]
fn without_f_the_journal_of_the_serving_epoch_lacks_what_was_acknowledged_in_it() {
    let protocol = Protocol {
        puts: Puts::Held,
        ..Protocol::without(Some(Rule::PutUnderCurrentEpoch))
    };
    assert_story(
        explore(&protocol, 2, 2, World::not_in_the_journal),
        &[
            "handler in us-east-1, epoch 1, payment 1/1: executed",
            "takeover to us-east-1, epoch 3: Scan finds nothing",
            "takeover to us-east-1, epoch 3: Open",
            "handler in us-east-1, epoch 3, payment 1/1: found in the ledger",
            "handler in us-east-1, epoch 3, payment 1/1: Put",
            "handler in us-east-1, epoch 3, payment 1/1: ReadEpoch",
            "1/1 was acknowledged, the journal of epoch 3 lacks it",
        ],
    );
}

#[test]
fn without_g_the_second_takeover_does_not_find_what_the_first_replayed() {
    assert_lost_without(
        Rule::ReplayPutsBeforeOpening,
        &[
            "takeover to us-east-2, epoch 2: Scan finds payment 1/1 first",
            "takeover to us-east-2, epoch 2: Open",
            "takeover to us-east-1, epoch 3: Scan finds nothing",
            "1/1 was acknowledged, us-east-1 serves with nothing",
        ],
    );
}

#[test]
fn without_h_a_handler_that_outlived_two_takeovers_writes_between_promotion_and_replay() {
    assert_lost_without(
        Rule::LedgerChecksEpoch,
        &[
            "handler in us-east-1, epoch 1, payment 1/1: ReadEpoch",
            "takeover to us-east-1, epoch 3: Promote",
            "handler in us-east-1, epoch 1, payment 1/2: executed",
            "takeover to us-east-1, epoch 3: Scan finds payment 1/1 first",
            "1/1 was acknowledged, us-east-1 serves with 1/2",
        ],
    );
}

#[test]
fn without_i_a_replica_of_the_old_epoch_lets_an_old_handler_write() {
    assert_lost_without(
        Rule::TargetIsFit,
        &[
            "handler in us-east-1, epoch 1, payment 1/1: ReadEpoch",
            "takeover to us-east-2, epoch 2: Promote",
            "database in us-east-1: rewound, follows",
            "takeover to us-east-1, epoch 3: Promote",
            "handler in us-east-1, epoch 1, payment 1/2: executed",
            "1/1 was acknowledged, us-east-1 serves with 1/2",
        ],
    );
}

/// Fit at the fence is not enough: a stale takeover may promote the other database, and ours is rewound, before we promote.
#[test]
fn a_target_that_was_fit_at_the_fence_must_be_asked_again_at_the_promotion() {
    let protocol = Protocol {
        fit_when_promoting: false,
        ..Protocol::without(None)
    };
    assert_story(
        explore(&protocol, 2, 2, World::lost_or_doubled),
        &[
            "takeover to us-east-2, epoch 2: Fence",
            "takeover to us-east-1, epoch 3: Fence",
            "takeover to us-east-2, epoch 2: Promote",
            "database in us-east-1: rewound, follows",
            "takeover to us-east-1, epoch 3: Promote",
            "handler in us-east-1, epoch 1, payment 1/2: executed",
            "1/1 was acknowledged, us-east-1 serves with 1/2",
        ],
    );
}

/// A run of the replay that was thought dead may go on after the opening, and find what a half-dead region put late.
#[test]
fn a_replay_that_goes_on_after_the_opening_displaces_nothing() {
    let protocol = Protocol::without(None).replaying_twice();
    let bad = |world: &World| world.lost_or_doubled().or_else(|| world.not_found_again());
    explore(&protocol, 2, 2, bad).unwrap_or_else(|story| panic!("{story}"));
}

#[test]
fn a_replay_must_not_put_what_the_ledger_did_not_take() {
    let protocol = Protocol {
        puts: Puts::Found,
        ..Protocol::without(None).replaying_twice()
    };
    assert_story(
        explore(&protocol, 2, 2, World::lost_or_doubled),
        &[
            "takeover to us-east-2, epoch 2: Open",
            "handler in us-east-2, epoch 2, payment 2/2: ReadEpoch",
            "takeover to us-east-2, epoch 2: Scan finds payment 1/1 first",
            "takeover to us-east-2, epoch 2: PutAll",
            "takeover to us-east-1, epoch 3: Scan finds payment 1/1 first",
            "2/2 was acknowledged, us-east-1 serves with 1/1",
        ],
    );
}

#[test]
fn planned_changes_beside_takeovers_lose_and_double_nothing_although_they_replay_nothing() {
    let bad = |world: &World| world.lost_or_doubled().or_else(|| world.not_found_again());
    for (planned, attempts, takeovers) in [(1, 2, 3), (2, 2, 2)] {
        match explore(&Protocol::with_planned(planned), attempts, takeovers, bad) {
            Ok(worlds) => assert!(
                worlds > 20_000,
                "only {worlds} worlds with {planned} planned changes"
            ),
            Err(story) => panic!("{story}"),
        }
    }
}

/// The database's control plane knows no epochs: a switch that comes two takeovers late makes a region the writer whose handlers believe
/// in the epoch that its ledger shows.
#[test]
fn a_switch_that_does_not_ask_whether_its_epoch_drains_still_loses_payments() {
    let protocol = Protocol {
        drains_when_switching: false,
        ..Protocol::with_planned(1)
    };
    assert_story(
        explore(&protocol, 2, 3, World::lost_or_doubled),
        &[
            "takeover to us-east-2, epoch 2: Open",
            "takeover to us-east-1, epoch 3: Promote",
            "planned change to us-east-2, of epoch 1: Switch",
            "handler in us-east-2, epoch 2, payment 2/2: executed",
            "1/1 was acknowledged, us-east-2 serves with 2/2",
        ],
    );
}

#[test]
fn a_planned_change_that_lost_what_the_standby_lacked_would_lose_payments() {
    let protocol = Protocol {
        switches_without_loss: false,
        ..Protocol::with_planned(1)
    };
    assert_story(
        explore(&protocol, 2, 2, World::lost_or_doubled),
        &[
            "handler in us-east-1, epoch 1, payment 1/1: ReadEpoch",
            "planned change to us-east-2, of epoch 1: Switch",
            "planned change to us-east-2, of epoch 1: Open",
            "1/1 was acknowledged, us-east-2 serves with nothing",
        ],
    );
}
