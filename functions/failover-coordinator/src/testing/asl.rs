//! Enough of the Amazon States Language to run the workflows against the doubles: Task, Choice, Wait, Parallel, Succeed and Fail, with
//! Retry, Catch, Parameters and ResultPath as JSONPath members. Waits move the world's clock.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use continuity::names::Slot;
use serde_json::{Value, json};

use super::World;
use crate::steps::handle;

/// A task that waits for a person.
pub(crate) const WAITS: &str = "arn:aws:states:::lambda:invoke.waitForTaskToken";

/// States an execution may enter before it counts as one that never ends.
const MAX_STATES: usize = 6_000;

/// A workflow.
pub(crate) struct Machine {
    pub(crate) definition: Value,
}

/// How an execution ended.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum End {
    Succeeded,
    Failed { error: String, cause: String },
    Killed,
}

/// An execution.
pub(crate) struct Run {
    pub(crate) end: End,
    /// Names of the states entered.
    pub(crate) path: Vec<String>,
    /// The state's data at the end.
    pub(crate) data: Value,
}

/// What to do to an execution.
#[derive(Debug, Clone, Default)]
pub(crate) struct Treatment {
    /// Every task is invoked this often, with the same input; the last result counts.
    pub(crate) times: usize,
    /// The execution is killed after this many tasks.
    pub(crate) kill_after_tasks: Option<usize>,
    /// What happens to one task.
    pub(crate) blow: Option<Blow>,
}

/// How a task fails.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Blow {
    /// Which task, by its place in the execution, from 0.
    pub(crate) task: usize,
    /// The error that Step Functions sees.
    pub(crate) error: &'static str,
    /// How many attempts of it fail in a row.
    pub(crate) attempts: usize,
    /// The step does its work, and only the answer is lost.
    pub(crate) answer_lost: bool,
}

/// How long a proposal waits, as the blueprint would put it into the definition.
pub(crate) const APPROVAL_SECONDS: u64 = 600;

impl Machine {
    /// A workflow of `infra/workflows`.
    pub(crate) fn load(name: &str) -> Machine {
        let path: PathBuf = [
            env!("CARGO_MANIFEST_DIR"),
            "../../infra/workflows",
            &format!("{name}.asl.json"),
        ]
        .iter()
        .collect();
        let text = std::fs::read_to_string(&path).unwrap();
        let text = text.replace("\"${ApprovalSeconds}\"", &APPROVAL_SECONDS.to_string());
        Machine {
            definition: serde_json::from_str(&text).unwrap(),
        }
    }

    /// The states by name, those of branches too: a name is unique within a workflow.
    pub(crate) fn states(&self) -> BTreeMap<&str, &Value> {
        let mut states = BTreeMap::new();
        let mut parts = vec![&self.definition];
        while let Some(part) = parts.pop() {
            for (name, state) in part["States"].as_object().unwrap() {
                assert!(
                    states.insert(name.as_str(), state).is_none(),
                    "`{name}` is there twice"
                );
                parts.extend(state["Branches"].as_array().into_iter().flatten());
            }
        }
        states
    }

    /// Executes it in a slot's region.
    pub(crate) async fn run(&self, world: &Arc<World>, slot: Slot, name: &str, input: Value) -> Run {
        let once = Treatment {
            times: 1,
            ..Treatment::default()
        };
        let run = self.run_with(world, slot, name, input, &once).await;
        world.end_execution(&execution_arn(world.context(slot).region(), name));
        run
    }

    /// Executes it under a treatment.
    pub(crate) async fn run_with(
        &self,
        world: &Arc<World>,
        slot: Slot,
        name: &str,
        input: Value,
        treatment: &Treatment,
    ) -> Run {
        let mut execution = Execution {
            world,
            slot,
            name,
            treatment,
            tasks: 0,
            path: Vec::new(),
        };
        let mut data = input;
        let end = execution.run(&self.definition, &mut data).await;
        Run {
            end,
            path: execution.path,
            data,
        }
    }
}

/// An execution under way.
struct Execution<'a> {
    world: &'a Arc<World>,
    slot: Slot,
    name: &'a str,
    treatment: &'a Treatment,
    tasks: usize,
    path: Vec<String>,
}

/// A branch of a Parallel state: the states, the next one, its data.
struct Branch<'a> {
    states: &'a Value,
    next: Option<String>,
    data: Value,
}

impl Execution<'_> {
    async fn run(&mut self, definition: &Value, data: &mut Value) -> End {
        let mut next = definition["StartAt"].as_str().unwrap().to_owned();
        for _ in 0..MAX_STATES {
            match self.state(&definition["States"], &next, data).await {
                Ok(Some(name)) => next = name,
                Ok(None) => return End::Succeeded,
                Err(end) => return end,
            }
        }
        panic!(
            "the execution does not end: {:?}",
            &self.path[self.path.len() - 20..]
        );
    }

    /// Enters a state; the next one, `None` at the end.
    async fn state(&mut self, states: &Value, name: &str, data: &mut Value) -> Result<Option<String>, End> {
        let state = &states[name];
        self.path.push(name.to_owned());
        match state["Type"].as_str() {
            Some("Task") => {
                if self.treatment.kill_after_tasks == Some(self.tasks) {
                    return Err(End::Killed);
                }
                let blow = self.treatment.blow.filter(|blow| blow.task == self.tasks);
                self.tasks += 1;
                let treatment = (self.treatment.times, blow);
                task(self.world, self.slot, self.name, state, data, treatment)
                    .await
                    .map_err(|(error, cause)| End::Failed { error, cause })
            }
            Some("Choice") => Ok(Some(choose(state, data))),
            Some("Wait") => {
                let seconds = state["Seconds"].as_u64().unwrap();
                self.world.advance(Duration::from_secs(seconds));
                Ok(state["Next"].as_str().map(str::to_owned))
            }
            Some("Succeed") => Ok(None),
            Some("Fail") => {
                let at = |field: &str| match state[format!("{field}Path")].as_str() {
                    Some(path) => select(data, path).as_str().unwrap().to_owned(),
                    None => state[field].as_str().unwrap().to_owned(),
                };
                Err(End::Failed {
                    error: at("Error"),
                    cause: at("Cause"),
                })
            }
            Some("Parallel") => Box::pin(self.parallel(state, data)).await,
            other => panic!("state `{name}` has type {other:?}"),
        }
    }

    /// The branches in turn, a task of each at a time, until all have ended. One that fails ends the state.
    async fn parallel(&mut self, state: &Value, data: &mut Value) -> Result<Option<String>, End> {
        let branches = state["Branches"].as_array().unwrap();
        let mut branches: Vec<Branch<'_>> = branches
            .iter()
            .map(|branch| Branch {
                states: &branch["States"],
                next: branch["StartAt"].as_str().map(str::to_owned),
                data: data.clone(),
            })
            .collect();
        for _ in 0..MAX_STATES {
            for branch in &mut branches {
                let mut is_task = false;
                while let Some(name) = branch.next.take_if(|_| !is_task) {
                    is_task = branch.states[&name]["Type"] == "Task";
                    match self.state(branch.states, &name, &mut branch.data).await {
                        Ok(next) => branch.next = next,
                        Err(End::Failed { error, cause }) => {
                            let catchers = state["Catch"].as_array().unwrap();
                            let Some(catcher) = catchers.iter().find(|catcher| matches(catcher, &error))
                            else {
                                return Err(End::Failed { error, cause });
                            };
                            let path = catcher["ResultPath"].as_str().unwrap();
                            put(data, path, json!({"Error": error, "Cause": cause}));
                            return Ok(catcher["Next"].as_str().map(str::to_owned));
                        }
                        Err(end) => return Err(end),
                    }
                }
            }
            if branches.iter().all(|branch| branch.next.is_none()) {
                let results = branches.into_iter().map(|branch| branch.data).collect();
                put(data, state["ResultPath"].as_str().unwrap(), results);
                return Ok(state["Next"].as_str().map(str::to_owned));
            }
        }
        panic!(
            "the branches do not end: {:?}",
            &self.path[self.path.len() - 20..]
        );
    }
}

pub(crate) fn execution_arn(region: &str, name: &str) -> String {
    format!("arn:aws:states:{region}:000000000000:execution:machine:{name}")
}

/// Runs a task with its Retry and Catch; returns the next state, `None` at the end.
async fn task(
    world: &Arc<World>,
    slot: Slot,
    execution: &str,
    state: &Value,
    data: &mut Value,
    (times, blow): (usize, Option<Blow>),
) -> Result<Option<String>, (String, String)> {
    let context = world.context(slot);
    let waits = state["Resource"] == WAITS;
    let template = if waits {
        &state["Parameters"]["Payload"]
    } else {
        &state["Parameters"]
    };
    let payload = parameters(template, data, context.region(), execution);
    let mut attempts: BTreeMap<usize, u64> = BTreeMap::new();
    let mut blows = blow.map_or(0, |blow| blow.attempts);
    loop {
        let deadline_ms = world.now_ms() + 120_000;
        let struck = blow.filter(|_| blows > 0);
        let outcome = if let Some(blow) = struck {
            blows -= 1;
            if blow.answer_lost {
                let _ = handle(&context, &payload, deadline_ms).await;
            }
            Err((blow.error, "injected".to_owned()))
        } else {
            let mut outcome = handle(&context, &payload, deadline_ms).await;
            for _ in 1..times {
                outcome = handle(&context, &payload, deadline_ms).await;
            }
            outcome.map_err(|error| (error.error_type(), continuity::error::chain(&error)))
        };
        let outcome = match outcome {
            Ok(_) if waits => answer(world, state),
            outcome => outcome,
        };
        let (name, cause) = match outcome {
            Ok(result) => {
                put(data, state["ResultPath"].as_str().unwrap(), result);
                return Ok(state["Next"].as_str().map(str::to_owned));
            }
            Err(error) => error,
        };
        let retriers = state["Retry"].as_array().unwrap();
        let retrier = retriers
            .iter()
            .enumerate()
            .find(|(_, retrier)| matches(retrier, name));
        if let Some((index, retrier)) = retrier {
            let used = attempts.entry(index).or_default();
            if *used < retrier["MaxAttempts"].as_u64().unwrap() {
                *used += 1;
                world.advance(Duration::from_secs(retrier["IntervalSeconds"].as_u64().unwrap()));
                continue;
            }
        }
        let catchers = state["Catch"].as_array().unwrap();
        let Some(catcher) = catchers.iter().find(|catcher| matches(catcher, name)) else {
            return Err((name.to_owned(), cause));
        };
        put(
            data,
            catcher["ResultPath"].as_str().unwrap(),
            json!({"Error": name, "Cause": cause}),
        );
        return Ok(catcher["Next"].as_str().map(str::to_owned));
    }
}

/// What a person answers to a task that waits; without an answer its time passes.
fn answer(world: &World, state: &Value) -> Result<Value, (&'static str, String)> {
    match world.answer() {
        Some(answer) => Ok(answer),
        None => {
            let seconds = state["TimeoutSeconds"].as_u64().unwrap();
            world.advance(Duration::from_secs(seconds));
            Err(("States.Timeout", "nobody answered".to_owned()))
        }
    }
}

fn matches(rule: &Value, error: &str) -> bool {
    let names = rule["ErrorEquals"].as_array().unwrap();
    names.iter().any(|name| name == error || name == "States.ALL")
}

fn parameters(template: &Value, data: &Value, region: &str, execution: &str) -> Value {
    let fields = template.as_object().unwrap().iter().map(|(key, value)| {
        let Some(plain) = key.strip_suffix(".$") else {
            return (key.clone(), value.clone());
        };
        let value = match value.as_str().unwrap() {
            "$$.Execution.Name" => json!(execution),
            "$$.Execution.Id" => json!(execution_arn(region, execution)),
            "$$.Task.Token" => json!("token"),
            path => select(data, path),
        };
        (plain.to_owned(), value)
    });
    Value::Object(fields.collect())
}

fn members(path: &str) -> impl Iterator<Item = &str> {
    path.strip_prefix('$')
        .unwrap()
        .split('.')
        .filter(|member| !member.is_empty())
}

fn select(data: &Value, path: &str) -> Value {
    members(path).fold(data.clone(), |value, member| value[member].clone())
}

fn put(data: &mut Value, path: &str, result: Value) {
    let member = members(path).next().unwrap();
    data.as_object_mut().unwrap().insert(member.to_owned(), result);
}

fn choose(state: &Value, data: &Value) -> String {
    let rules = state["Choices"].as_array().unwrap();
    let rule = rules.iter().find(|rule| {
        let value = select(data, rule["Variable"].as_str().unwrap());
        match (rule.get("StringEquals"), rule.get("BooleanEquals")) {
            (Some(expected), None) | (None, Some(expected)) => value == *expected,
            _ => panic!("unknown rule {rule}"),
        }
    });
    rule.map_or(&state["Default"], |rule| &rule["Next"])
        .as_str()
        .unwrap()
        .to_owned()
}
