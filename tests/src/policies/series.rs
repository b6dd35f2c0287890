//! Every grant in turn: the role lacks it, its step runs, the step must fail and say what is missing.

use super::grants::{self, Grant};
use super::stage::Stage;
use super::steps::Step;

/// What came of one removal.
#[derive(Debug, Clone)]
pub struct Removal {
    /// What was taken away.
    pub grant: Grant,
    /// The step that needs it; none where the series has none.
    pub step: Option<&'static str>,
    /// What it said, or why that is not enough.
    pub outcome: Result<String, String>,
}

/// Which grants: all, those whose text has a word, or so many of them, chosen by a seed.
#[derive(Debug, Clone, Default)]
pub struct Choice {
    /// A part of the role's name and action.
    pub filter: Option<String>,
    /// How many at most.
    pub sample: Option<usize>,
    /// What chooses them.
    pub seed: u64,
}

impl Choice {
    /// The chosen ones, in the order of the series.
    pub fn of(&self, grants: impl IntoIterator<Item = Grant>) -> Vec<Grant> {
        let fits = |grant: &Grant| {
            self.filter
                .as_ref()
                .is_none_or(|word| grant.to_string().contains(word))
        };
        let mut chosen: Vec<Grant> = grants.into_iter().filter(fits).collect();
        if let Some(sample) = self.sample {
            chosen.sort_by_key(|grant| scattered(self.seed, &grant.to_string()));
            chosen.truncate(sample);
        }
        chosen
    }
}

/// The standby's role is made by the same code from the same statements as the home region's, and is not taken apart again.
fn is_mirrored(grant: &Grant) -> bool {
    !grant.role.contains("-primary-")
}

/// A number that looks random and follows from the seed and the text: FNV-1a.
fn scattered(seed: u64, text: &str) -> u64 {
    let bytes = seed.to_le_bytes().into_iter().chain(text.bytes());
    bytes.fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

/// Runs the removals on one stack. `tell` hears of each as it ends.
pub async fn run(stage: &mut Stage, choice: &Choice, tell: impl Fn(usize, usize, &Removal)) -> Vec<Removal> {
    let grants = grants::of_stack(&stage.stack.cloud, stage.stack.home()).await;
    let grants = grants.into_iter().filter(|grant| !is_mirrored(grant));
    let with_step = grants
        .into_iter()
        .filter(|grant| choice.sample.is_none() || Step::of(grant).is_some());
    let chosen = choice.of(with_step);
    let mut removals = Vec::new();
    for (number, grant) in chosen.iter().enumerate() {
        let step = Step::of(grant);
        let outcome = match step {
            Some(step) => step.fails(stage, grant).await,
            None => Err("the series has no step that needs it".to_owned()),
        };
        let removal = Removal {
            grant: grant.clone(),
            step: step.map(Step::name),
            outcome,
        };
        tell(number + 1, chosen.len(), &removal);
        removals.push(removal);
    }
    removals
}
