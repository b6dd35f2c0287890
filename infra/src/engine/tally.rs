//! How far a run is, kept up to date with every change of a resource: counting all of them anew each time would take the square of
//! their number.

use crate::graph::Node;
use crate::outcome::{Count, FailedWith, Outcome, Progress, WaitingFor};

/// What each resource is doing now.
#[derive(Debug, Default)]
pub(super) struct Tally {
    outcomes: Vec<Option<Outcome>>,
    progress: Progress,
    /// The positions of those that wait and of those that failed, in the order of the lists in `progress`.
    waiting: Vec<usize>,
    failed: Vec<usize>,
}

impl Tally {
    pub(super) fn new(nodes: &[Node]) -> Self {
        let mut tally = Tally {
            outcomes: vec![None; nodes.len()],
            ..Tally::default()
        };
        tally.progress.total = nodes.len();
        for node in nodes {
            tally.progress.groups.entry(node.place.group).or_default().total += 1;
        }
        tally
    }

    /// Takes note of a resource's outcome. Returns the progress if that is news.
    pub(super) fn set(&mut self, position: usize, node: &Node, outcome: Outcome) -> Option<&Progress> {
        if self.outcomes[position].as_ref() == Some(&outcome) {
            return None;
        }
        let count = self.progress.groups.entry(node.place.group).or_default();
        let before = self.outcomes[position].as_ref();
        if before.is_some_and(Outcome::is_final) {
            change(count, &mut self.progress.ready, -1);
        }
        if outcome.is_final() {
            change(count, &mut self.progress.ready, 1);
        }
        let key = || node.key.clone();
        let (waits, fails) = match &outcome {
            Outcome::Waiting { on } => (
                Some(WaitingFor {
                    key: key(),
                    on: on.clone(),
                }),
                None,
            ),
            Outcome::Failed { error } => (
                None,
                Some(FailedWith {
                    key: key(),
                    error: error.clone(),
                }),
            ),
            _ => (None, None),
        };
        put(&mut self.waiting, &mut self.progress.waiting, position, waits);
        put(&mut self.failed, &mut self.progress.failed, position, fails);
        self.outcomes[position] = Some(outcome);
        Some(&self.progress)
    }
}

fn change(count: &mut Count, ready: &mut usize, by: isize) {
    count.ready = count.ready.saturating_add_signed(by);
    *ready = ready.saturating_add_signed(by);
}

/// Puts an entry at its position's place in a list that is in the order of `positions`, replaces it, or takes it away.
fn put<T>(positions: &mut Vec<usize>, entries: &mut Vec<T>, position: usize, entry: Option<T>) {
    match (positions.binary_search(&position), entry) {
        (Ok(at), Some(entry)) => entries[at] = entry,
        (Ok(at), None) => {
            positions.remove(at);
            entries.remove(at);
        }
        (Err(at), Some(entry)) => {
            positions.insert(at, position);
            entries.insert(at, entry);
        }
        (Err(_), None) => {}
    }
}
