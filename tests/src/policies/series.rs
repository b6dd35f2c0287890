//! Every grant in turn: the role lacks it, its step runs, the step must fail and say what is missing.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::grants::{self, Grant};
use super::stage::Stage;
use super::steps::{Need, Step};

/// What came of one removal.
#[derive(Debug, Clone)]
pub struct Removal {
    /// What was taken away.
    pub grant: Grant,
    /// The step that failed; where none did, the last that was tried.
    pub step: &'static str,
    /// What it said, or why that is not enough.
    pub outcome: Result<String, String>,
}

/// Which grants: all, those whose text has a word, or so many of them, chosen by a seed.
#[derive(Debug, Clone, Default)]
pub struct Choice {
    /// A part of the role's name and action.
    pub filter: Option<String>,
    /// How many at most, as many of each step as can be. What takes a minute or more is left out then.
    pub sample: Option<usize>,
    /// What chooses them.
    pub seed: u64,
}

impl Choice {
    /// The chosen ones, in the order of the series.
    pub fn of(&self, grants: impl IntoIterator<Item = Grant>) -> Vec<Grant> {
        let fits = |grant: &Grant| {
            let filter = self.filter.as_ref();
            filter.is_none_or(|word| grant.to_string().contains(word))
        };
        let chosen = grants.into_iter().filter(fits);
        let Some(sample) = self.sample else {
            return chosen.collect();
        };
        let mut by_step: BTreeMap<&str, Vec<Grant>> = BTreeMap::new();
        for grant in chosen {
            if let Need::Steps(steps) = Need::of(&grant)
                && let Some(first) = steps.first().filter(|step| !step.is_long())
            {
                by_step.entry(first.name()).or_default().push(grant);
            }
        }
        let mut queues: VecDeque<Vec<Grant>> = by_step.into_values().collect();
        for queue in &mut queues {
            queue.sort_by_key(|grant| scattered(self.seed, &grant.to_string()));
        }
        let mut sampled = Vec::new();
        while let Some(mut queue) = queues.pop_front() {
            if sampled.len() == sample {
                break;
            }
            if let Some(grant) = queue.pop() {
                sampled.push(grant);
                queues.push_back(queue);
            }
        }
        sampled
    }
}

/// A number that looks random and follows from the seed and the text: FNV-1a.
fn scattered(seed: u64, text: &str) -> u64 {
    let bytes = seed.to_le_bytes().into_iter().chain(text.bytes());
    bytes.fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

/// Whether a role of the same purpose in the home region is granted the same: both are made by the same code from the same
/// statements, and one of them is taken apart.
fn is_mirrored(grant: &Grant, all: &BTreeSet<Grant>) -> bool {
    let at_home = |other: &&Grant| other.role.contains("-primary-");
    let same = |other: &Grant| other.purpose() == grant.purpose() && other.action == grant.action;
    !grant.role.contains("-primary-") && all.iter().filter(at_home).any(same)
}

/// The chosen grants of a stack, each action of each kind of role once.
pub async fn chosen(stage: &Stage, choice: &Choice) -> Vec<Grant> {
    let all = grants::of_stack(&stage.stack.cloud, stage.stack.home()).await;
    choice.of(all.iter().filter(|grant| !is_mirrored(grant, &all)).cloned())
}

/// Takes a grant away for each of the steps that may need it, until one fails and says so.
pub async fn removal(stage: &mut Stage, grant: &Grant, steps: &[Step]) -> Removal {
    let mut tried = Removal {
        grant: grant.clone(),
        step: "no step",
        outcome: Err("there is no step that needs it".to_owned()),
    };
    let mut before = String::new();
    for step in steps {
        tried.step = step.name();
        match step.fails(stage, grant).await {
            Ok(said) => {
                tried.outcome = Ok(said);
                break;
            }
            Err(why) => {
                before.push_str(&format!("[{}] {why} ", step.name()));
                tried.outcome = Err(before.clone());
            }
        }
    }
    tried
}
