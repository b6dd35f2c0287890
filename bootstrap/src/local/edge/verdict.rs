//! What a fault does to a call: the whole partition model, in one pure function.

use crate::local::{NetworkState, Region};

/// How many of an MRSC table's three regions must answer for a write or a strongly consistent read.
const QUORUM: usize = 2;

/// What becomes of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It goes through.
    Pass,
    /// It crosses a border that nothing crosses: the connection breaks.
    Refuse,
    /// It reaches DynamoDB, which cannot reach enough regions to answer it: a retryable server error.
    NoQuorum,
}

/// What the call needs beyond its own region.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Needs {
    /// Nothing: the region answers by itself.
    Nothing,
    /// A majority of the three regions: a write or a strongly consistent read of an MRSC table.
    Quorum,
}

/// Decides about a call. `None` is the outside: operators, clients, regions that the local cloud does not have.
pub fn verdict(
    faults: &NetworkState,
    source: Option<Region>,
    target: Option<Region>,
    needs: Needs,
) -> Verdict {
    if !faults.passes(source, target) {
        return Verdict::Refuse;
    }
    match (needs, target) {
        (Needs::Quorum, Some(target)) if reachable(faults, target) < QUORUM => Verdict::NoQuorum,
        _ => Verdict::Pass,
    }
}

/// In how many regions a replica hears that in `region`, itself included.
fn reachable(faults: &NetworkState, region: Region) -> usize {
    Region::ALL
        .into_iter()
        .filter(|&other| faults.tables_meet(region, other))
        .count()
}

#[cfg(test)]
mod tests {
    use Needs::{Nothing, Quorum};
    use Region::{UsEast1, UsEast2, UsWest2};
    use Verdict::{NoQuorum, Pass, Refuse};

    use super::*;

    #[test]
    fn the_partition_model() {
        let outside = None;
        let (home, dr, witness) = (Some(UsEast1), Some(UsEast2), Some(UsWest2));
        let none: &[Region] = &[];
        type Case = (&'static [Region], Option<Region>, Option<Region>, Needs, Verdict);
        let cases: &[Case] = &[
            (none, outside, home, Nothing, Pass),
            (none, home, home, Quorum, Pass),
            (none, home, dr, Quorum, Pass),
            // One region is cut: nothing crosses its border.
            (&[UsEast1], outside, home, Nothing, Refuse),
            (&[UsEast1], outside, home, Quorum, Refuse),
            (&[UsEast1], home, outside, Nothing, Refuse),
            (&[UsEast1], home, dr, Nothing, Refuse),
            (&[UsEast1], dr, home, Nothing, Refuse),
            // Inside it all works but what needs the others.
            (&[UsEast1], home, home, Nothing, Pass),
            (&[UsEast1], home, home, Quorum, NoQuorum),
            // The rest is well: two of three regions are a quorum.
            (&[UsEast1], dr, dr, Quorum, Pass),
            (&[UsEast1], outside, dr, Quorum, Pass),
            (&[UsEast1], dr, witness, Nothing, Pass),
            // Two regions are cut: the third reaches nobody either.
            (&[UsEast1, UsWest2], dr, dr, Nothing, Pass),
            (&[UsEast1, UsWest2], dr, dr, Quorum, NoQuorum),
            (&[UsEast1, UsWest2], outside, dr, Quorum, NoQuorum),
            (&[UsEast1, UsWest2], home, witness, Nothing, Refuse),
            // A region that the local cloud does not have is outside.
            (&[UsEast1], outside, outside, Quorum, Pass),
        ];
        for (cut, source, target, needs, expected) in cases {
            let faults = NetworkState {
                cut: cut.iter().copied().collect(),
                ..NetworkState::default()
            };
            let got = verdict(&faults, *source, *target, *needs);
            assert_eq!(
                got, *expected,
                "cut {cut:?}: {source:?} -> {target:?}, needs {needs:?}"
            );
        }
    }

    #[test]
    fn a_replica_that_is_cut_off_answers_nothing_that_needs_the_others_and_all_else_goes_on() {
        let faults = NetworkState {
            tableless: [UsEast1].into(),
            ..NetworkState::default()
        };
        let (outside, home, dr) = (None, Some(UsEast1), Some(UsEast2));
        for (source, target, needs, expected) in [
            (home, home, Quorum, NoQuorum),
            (dr, home, Quorum, NoQuorum),
            (home, home, Nothing, Pass),
            (outside, home, Nothing, Pass),
            (home, dr, Quorum, Pass),
            (dr, dr, Quorum, Pass),
        ] {
            let got = verdict(&faults, source, target, needs);
            assert_eq!(got, expected, "{source:?} -> {target:?}, needs {needs:?}");
        }
    }

    #[test]
    fn lag_refuses_nothing() {
        let faults = NetworkState {
            lagging: [UsEast2].into(),
            ..NetworkState::default()
        };
        assert_eq!(verdict(&faults, None, Some(UsEast2), Quorum), Pass);
        assert_eq!(verdict(&faults, Some(UsEast1), Some(UsEast2), Quorum), Pass);
    }
}
