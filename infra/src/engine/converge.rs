//! Observe, plan, apply, observe again.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::Ordering;
use std::sync::{Mutex, PoisonError};

use super::teardown;
use super::{MAX_ACTIONS, OutOfTime, Pace, Patience, Run, STALE_READS, names_of};
use crate::cloud::Cloud;
use crate::engine::Options;
use crate::error::KindError;
use crate::graph::{Blueprint, InvalidBlueprint, Node, Prepared, Seen};
use crate::outcome::{Entry, Outcome, PlanEntry, PlanOutcome, Report};
use crate::plan::{self, Change, FieldChange, Planned};

pub(super) async fn run(
    blueprint: &Blueprint,
    cloud: &Cloud,
    options: &Options,
) -> Result<Report, InvalidBlueprint> {
    let run = Run::new(blueprint, cloud, options)?;
    let (mut entries, put_off) = walk(&run).await;
    if !put_off.is_empty() {
        match may_follow(&run, &entries, &put_off).await {
            Ok(()) => {
                run.putting_off.store(false, Ordering::Relaxed);
                let (second, _) = walk(&run).await;
                entries = entries.into_iter().zip(second).map(|(a, b)| a.then(b)).collect();
            }
            Err(outcome) => {
                for &position in &put_off {
                    run.report(position, outcome.clone());
                    entries[position].outcome = outcome.clone();
                }
            }
        }
    }
    Ok(Report::new(entries))
}

/// Whether the group that serves may be changed now that everything else was; otherwise what becomes of its changes.
async fn may_follow(run: &Run<'_>, entries: &[Entry], put_off: &BTreeSet<usize>) -> Result<(), Outcome> {
    let open = entries
        .iter()
        .enumerate()
        .find(|(position, entry)| !put_off.contains(position) && !entry.outcome.is_final());
    if let Some((_, open)) = open {
        let on = format!("`{}` in {} to be in order first", open.key, open.region);
        return Err(Outcome::Waiting { on });
    }
    let gate = run
        .options
        .serving
        .as_ref()
        .and_then(|serving| serving.gate.as_ref());
    match gate {
        Some(gate) => gate.open().await.map_err(|why| Outcome::Failed {
            error: format!("left as it is, because what was changed first does not work: {why}"),
        }),
        None => Ok(()),
    }
}

/// Drives every node, each after what it depends on. Also says which differ and were put off; for what depends on them, they
/// are there.
async fn walk(run: &Run<'_>) -> (Vec<Entry>, BTreeSet<usize>) {
    let nodes = run.blueprint.nodes();
    let done: Mutex<Vec<Option<(Outcome, Vec<FieldChange>)>>> = Mutex::new(vec![None; nodes.len()]);
    let put_off: Mutex<BTreeSet<usize>> = Mutex::default();
    let set = |position: usize, outcome: Outcome, roles: Vec<FieldChange>| {
        run.report(position, outcome.clone());
        done.lock().unwrap_or_else(PoisonError::into_inner)[position] = Some((outcome, roles));
    };
    run.walk(
        &run.edges.before,
        &run.edges.after,
        |position| {
            let (set, put_off) = (&set, &put_off);
            async move {
                let mut drive = Drive::new(run, position);
                let outcome = drive.finish().await;
                let ready = outcome.is_final() || drive.put_off;
                if drive.put_off {
                    put_off
                        .lock()
                        .unwrap_or_else(PoisonError::into_inner)
                        .insert(position);
                }
                tracing::debug!(key = %drive.node.key, %outcome, "resource");
                set(position, outcome, drive.roles);
                (position, ready)
            }
        },
        |position, by| {
            let by = nodes[by].key.clone();
            set(position, Outcome::Blocked { by }, Vec::new());
        },
    )
    .await;
    let outcomes = done.into_inner().unwrap_or_else(PoisonError::into_inner);
    let entries = nodes.iter().zip(outcomes).map(|(node, outcome)| {
        let (outcome, roles) = outcome.expect("every node is walked");
        Entry {
            key: node.key.clone(),
            kind: node.kind.to_owned(),
            region: node.place.region.clone(),
            group: node.place.group,
            outcome,
            roles,
        }
    });
    let put_off = put_off.into_inner().unwrap_or_else(PoisonError::into_inner);
    (entries.collect(), put_off)
}

/// What one resource went through in this run.
struct Drive<'r, 'a> {
    run: &'r Run<'a>,
    node: &'r Node,
    position: usize,
    pace: Pace,
    reading: Patience,
    writing: Patience,
    tried: bool,
    created: bool,
    replaced: Vec<FieldChange>,
    updated: BTreeMap<String, FieldChange>,
    roles: Vec<FieldChange>,
    /// It differs, and its turn comes when the rest of the stack is in order.
    put_off: bool,
    actions: usize,
    /// The last update's differences, and how often they have been seen since.
    stale: Option<(Vec<FieldChange>, usize)>,
}

/// How a step ended.
enum Step {
    /// Observe again at once.
    Again,
    /// Observe again after a pause; this is what is being waited for.
    Wait(String),
    /// Nothing more to do.
    End(Outcome),
}

impl<'r, 'a> Drive<'r, 'a> {
    fn new(run: &'r Run<'a>, position: usize) -> Self {
        Drive {
            run,
            node: &run.blueprint.nodes()[position],
            position,
            pace: Pace::new(),
            reading: Patience::default(),
            writing: Patience::default(),
            tried: false,
            created: false,
            replaced: Vec::new(),
            updated: BTreeMap::new(),
            roles: Vec::new(),
            put_off: false,
            actions: 0,
            stale: None,
        }
    }

    async fn finish(&mut self) -> Outcome {
        if self.run.out_of_time() {
            return Outcome::Waiting {
                on: "its turn: the time budget is used up".into(),
            };
        }
        let mut resource = match self.node.prepare(&self.run.resolved) {
            Ok(resource) => resource,
            Err(unresolved) => {
                return Outcome::Failed {
                    error: unresolved.to_string(),
                };
            }
        };
        loop {
            match self.step(resource.as_mut()).await {
                Step::Again => {}
                Step::Wait(on) => {
                    self.run
                        .report(self.position, Outcome::Waiting { on: on.clone() });
                    if let Err(OutOfTime) = self.pace.rest(self.run).await {
                        return self.unfinished(on);
                    }
                }
                Step::End(outcome) => return outcome,
            }
        }
    }

    /// The budget ended. What was answered with nothing but errors for long is no wait: every run would begin to bear them anew.
    fn unfinished(&self, on: String) -> Outcome {
        let now = self.run.options.clock.now();
        if self.reading.is_worn(now) || self.writing.is_worn(now) {
            Outcome::Failed { error: on }
        } else {
            Outcome::Waiting { on }
        }
    }

    async fn step(&mut self, resource: &mut dyn Prepared) -> Step {
        let site = self.run.blueprint.site(self.node, self.run.cloud);
        let seen = match self.run.call(resource.observe(&site)).await {
            Ok(seen) => seen,
            Err(error) => {
                return after_error(self.reading.bears(&error, self.run.options.clock.now()), &error);
            }
        };
        self.reading.reset();
        if let Some(doing) = seen.settling {
            return Step::Wait(doing);
        }
        self.roles = seen.planned.roles.clone();
        match self.decide(&seen, resource.stateful()) {
            Act::Nothing => {
                self.publish(resource);
                Step::End(self.outcome())
            }
            Act::PutOff => {
                self.publish(resource);
                self.put_off = true;
                Step::End(Outcome::Waiting {
                    on: "the rest of the stack: this region serves, and is changed last".into(),
                })
            }
            Act::Wait(on) => Step::Wait(on),
            Act::Fail(error) => Step::End(Outcome::Failed { error }),
            act => self.act(resource, act).await,
        }
    }

    /// Makes the outputs visible to what refers to this resource.
    fn publish(&self, resource: &dyn Prepared) {
        if let Some(outputs) = resource.outputs() {
            self.run.resolved.insert(&self.node.key, outputs);
        }
    }

    /// From what was seen to what to do. No call, no clock.
    fn decide(&mut self, seen: &Seen, stateful: bool) -> Act {
        match &seen.planned.change {
            Change::Unchanged => Act::Nothing,
            Change::Unknown { until } => Act::Wait(format!("{} to exist", until.join(", "))),
            Change::Create if self.created => Act::Wait("it to become visible".into()),
            Change::Create => Act::Create,
            // What this run made is brought to its end: nobody uses it yet.
            Change::Update { .. } | Change::Replace { .. } if !self.tried && self.run.puts_off(self.node) => {
                Act::PutOff
            }
            Change::Update { fields } => {
                if let Some((last, reads)) = &mut self.stale
                    && last == fields
                    && *reads < STALE_READS
                {
                    *reads += 1;
                    return Act::Wait(format!("{} to change", names_of(fields).join(", ")));
                }
                if self.actions >= MAX_ACTIONS {
                    let names = names_of(fields).join(", ");
                    return Act::Fail(format!(
                        "`{names}` does not take the wanted value, however often it is set"
                    ));
                }
                Act::Update(fields.clone())
            }
            // Just made, and yet not what was asked for: making it again would not end.
            Change::Replace { fields, .. } if self.created => Act::Fail(format!(
                "it was made, but not with the wanted {}",
                plan::join(fields)
            )),
            Change::Replace { fields, .. } if self.replaced.is_empty() => self.replacement(fields, stateful),
            Change::Replace { .. } => Act::Wait("the old one to be gone".into()),
        }
    }

    fn replacement(&self, fields: &[FieldChange], stateful: bool) -> Act {
        let names = names_of(fields).join(", ");
        let Node { kind, key, .. } = self.node;
        let followers = self.run.forced().by(self.position);
        let nodes = self.run.blueprint.nodes();
        let data = followers.values().filter(|follower| follower.stateful);
        let data: Vec<&str> = data
            .map(|follower| nodes[follower.position].key.as_str())
            .collect();
        if !data.is_empty() {
            return Act::Fail(format!(
                "`{names}` cannot be changed in place, and to make it anew is to make {} anew, with the data in it: leave `{names}` \
                 as it is, or give the new one to a stack with another suffix",
                data.join(" and ")
            ));
        }
        if stateful && !self.run.options.replace.contains(key) {
            return Act::Fail(format!(
                "`{names}` cannot be changed in place, and a {kind} holds data; `understudy up --replace {key}` deletes it with its \
                 data and makes it anew"
            ));
        }
        let followers = followers.keys().map(|&position| nodes[position].key.clone());
        Act::Replace(fields.to_vec(), followers.collect())
    }

    /// Deletes what must be made anew with this resource, dependants first; otherwise says what it waits for, or what failed.
    async fn clear(&self, followers: &BTreeSet<String>) -> Result<(), Outcome> {
        if followers.is_empty() {
            return Ok(());
        }
        let Run { options, cloud, .. } = self.run;
        let part = self.run.blueprint.only(followers);
        let options = Options {
            budget: self.run.ends.saturating_sub(options.clock.now()),
            on_progress: None,
            ..(*options).clone()
        };
        let run = Run::new(&part, cloud, &options).expect("a part of a graph is a graph");
        let keep = part.keys().difference(followers).cloned().collect();
        let entries = teardown::take_down(&run, &keep).await;
        let open = entries.into_iter().filter(|entry| !entry.outcome.is_final());
        // What is blocked says less than what blocks it.
        let open = open.min_by_key(|entry| matches!(entry.outcome, Outcome::Blocked { .. }));
        open.map_or(Ok(()), |entry| {
            let first = format!("`{}` to be deleted first: {}", entry.key, entry.outcome);
            Err(match entry.outcome {
                Outcome::Failed { .. } => Outcome::Failed { error: first },
                _ => Outcome::Waiting { on: first },
            })
        })
    }

    async fn act(&mut self, resource: &mut dyn Prepared, act: Act) -> Step {
        if self.run.out_of_time() {
            return Step::End(Outcome::Waiting {
                on: "the next run: the time budget is used up".into(),
            });
        }
        if let Err(why) = self.run.permitted(self.node).await {
            return Step::End(Outcome::Waiting { on: why });
        }
        if let Act::Replace(_, followers) = &act
            && let Err(outcome) = self.clear(followers).await
        {
            return Step::End(outcome);
        }
        let site = self.run.blueprint.site(self.node, self.run.cloud);
        let (word, result) = match &act {
            Act::Create => ("creating", self.run.call(resource.create(&site)).await),
            Act::Replace(..) => ("replacing", self.run.call(resource.delete(&site)).await),
            _ => ("updating", self.run.call(resource.update(&site)).await),
        };
        tracing::debug!(key = %self.node.key, kind = self.node.kind, "{word}");
        self.tried |= matches!(act, Act::Create);
        if let Err(error) = result {
            return after_error(self.writing.bears(&error, self.run.options.clock.now()), &error);
        }
        self.writing.reset();
        self.pace.restart();
        self.actions += 1;
        match act {
            Act::Create => self.created = true,
            Act::Replace(fields, _) => {
                self.replaced = fields;
                self.created = false;
            }
            Act::Update(fields) => {
                for change in &fields {
                    self.updated.insert(change.field.clone(), change.clone());
                }
                self.stale = Some((fields, 0));
            }
            Act::Nothing | Act::PutOff | Act::Wait(_) | Act::Fail(_) => {}
        }
        self.run
            .report(self.position, Outcome::Waiting { on: word.into() });
        Step::Again
    }

    fn outcome(&self) -> Outcome {
        if !self.replaced.is_empty() {
            Outcome::Replaced {
                fields: self.replaced.clone(),
            }
        } else if self.tried {
            // Also when the creating call failed half way and what it left was then completed.
            Outcome::Created
        } else if !self.updated.is_empty() {
            Outcome::Updated {
                fields: self.updated.values().cloned().collect(),
            }
        } else {
            Outcome::Unchanged
        }
    }
}

fn after_error(may_pass: bool, error: &KindError) -> Step {
    let error = error.chain();
    if may_pass {
        Step::Wait(error)
    } else {
        Step::End(Outcome::Failed { error })
    }
}

enum Act {
    Nothing,
    PutOff,
    Create,
    Update(Vec<FieldChange>),
    /// The fields that force it, and the keys of what is deleted before.
    Replace(Vec<FieldChange>, BTreeSet<String>),
    Wait(String),
    Fail(String),
}

pub(super) async fn dry_run(
    blueprint: &Blueprint,
    cloud: &Cloud,
    options: &Options,
) -> Result<Vec<PlanEntry>, InvalidBlueprint> {
    let run = Run::new(blueprint, cloud, options)?;
    let looks = blueprint.nodes().iter().map(|_| None).collect();
    let looks: Mutex<Vec<Option<Look>>> = Mutex::new(looks);
    run.walk(
        &run.edges.before,
        &run.edges.after,
        |position| {
            let (run, looks) = (&run, &looks);
            async move {
                let look = look(run, &run.blueprint.nodes()[position]).await;
                run.report(position, Outcome::Unchanged);
                looks.lock().unwrap_or_else(PoisonError::into_inner)[position] = Some(look);
                (position, true)
            }
        },
        |_, _| {},
    )
    .await;
    let looks = std::mem::take(&mut *looks.lock().unwrap_or_else(PoisonError::into_inner));
    let looks: Vec<Look> = looks
        .into_iter()
        .map(|look| look.expect("every node is walked"))
        .collect();
    let mut plans: Vec<PlanOutcome> = looks.iter().map(|(plan, _)| plan.clone()).collect();
    for position in 0..plans.len() {
        if is_replaced(&plans[position]) {
            follow(&run, &looks, position, &mut plans);
        }
    }
    let entries = blueprint.nodes().iter().zip(plans).map(|(node, plan)| PlanEntry {
        key: node.key.clone(),
        kind: node.kind.to_owned(),
        region: node.place.region.clone(),
        plan,
    });
    Ok(entries.collect())
}

fn is_replaced(plan: &PlanOutcome) -> bool {
    matches!(plan, PlanOutcome::Planned(planned) if matches!(planned.change, Change::Replace { .. }))
}

/// What exists and must be made anew with the node at `position` is replaced too.
fn follow(run: &Run<'_>, looks: &[Look], position: usize, plans: &mut [PlanOutcome]) {
    for follower in run.forced().by(position).into_values() {
        let (PlanOutcome::Planned(planned), (_, Some((resource, seen)))) =
            (&mut plans[follower.position], &looks[follower.position])
        else {
            continue;
        };
        if !seen.exists || matches!(planned.change, Change::Replace { .. }) {
            continue;
        }
        planned.change = Change::Replace {
            fields: vec![FieldChange {
                field: follower.field.to_owned(),
                from: resource.wanted()[follower.field].clone(),
                to: follower.to.clone().into(),
            }],
            with: Some(run.blueprint.nodes()[position].key.clone()),
        };
    }
}

/// What one look at a resource says, and the resource, if everything that it refers to exists.
pub(super) type Look = (PlanOutcome, Option<(Box<dyn Prepared>, Seen)>);

/// One observation, retried while the error may pass; the outputs become visible to others. Nothing is written.
pub(super) async fn look(run: &Run<'_>, node: &Node) -> Look {
    let until: Vec<String> = node
        .refs
        .iter()
        .filter(|key| !run.resolved.has(key))
        .cloned()
        .collect();
    if !until.is_empty() {
        let planned = Planned {
            change: Change::Unknown { until },
            roles: Vec::new(),
        };
        return (PlanOutcome::Planned(planned), None);
    }
    let mut resource = match node.prepare(&run.resolved) {
        Ok(resource) => resource,
        Err(unresolved) => {
            return (
                PlanOutcome::Failed {
                    error: unresolved.to_string(),
                },
                None,
            );
        }
    };
    let (mut pace, mut patience) = (Pace::new(), Patience::default());
    let site = run.blueprint.site(node, run.cloud);
    loop {
        match run.call(resource.observe(&site)).await {
            Ok(seen) => {
                if let Some(outputs) = resource.outputs() {
                    run.resolved.insert(&node.key, outputs);
                }
                return (PlanOutcome::Planned(seen.planned.clone()), Some((resource, seen)));
            }
            Err(error) => {
                let again = patience.bears(&error, run.options.clock.now());
                if !again || pace.rest(run).await.is_err() {
                    return (PlanOutcome::Failed { error: error.chain() }, None);
                }
            }
        }
    }
}
