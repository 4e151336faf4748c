//! Which placement of a revision stays, and whether the next class is tried. Pure.

use super::state::Placement;
use jiff::{SignedDuration, Timestamp};
use std::collections::BTreeMap;

/// What a decision depends on besides the placements.
#[derive(Clone, Copy, Debug)]
pub struct Situation {
    /// Whether servers of the revision are to run: it is the one that the spec asks for, and neither suspended nor at
    /// zero.
    pub is_wanted: bool,
    /// How long pods wait for a device before the next class is tried.
    pub fallback_after: SignedDuration,
    /// The time.
    pub now: Timestamp,
}

/// What to do about a revision's placements.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Decision {
    /// The placement that stays on trial, by its index.
    pub trial: Option<usize>,
    /// The placement whose next class is to be tried, by its index.
    pub start_after: Option<usize>,
    /// Since when the pods of a placement have been waiting for its device, by its index.
    pub since: BTreeMap<usize, Timestamp>,
    /// When the next class is due.
    pub due: Option<Timestamp>,
}

/// Decides about the placements of a revision, best first, of which `in_use` is the one in use. All that are neither in
/// use nor on trial are to be removed.
#[must_use]
pub fn decide(placements: &[Placement], in_use: usize, situation: &Situation) -> Decision {
    let Some(first) = placements.get(in_use) else {
        return Decision::default();
    };
    if first.placed || !situation.is_wanted {
        return Decision::default();
    }
    let trial = (in_use + 1..placements.len()).next_back();
    let mut decision = Decision {
        trial,
        since: since(placements, [Some(in_use), trial], situation.now),
        ..Decision::default()
    };
    let last = trial.unwrap_or(in_use);
    let waited_since = decision
        .since
        .get(&last)
        .filter(|_| can_fall_back(&placements[last]));
    let due = waited_since.map(|since| *since + situation.fallback_after);
    if due.is_some_and(|due| due <= situation.now) {
        decision.start_after = Some(last);
        decision.trial = None;
        decision.since.retain(|index, _| *index == in_use);
    } else {
        decision.due = due;
    }
    decision
}

fn can_fall_back(placement: &Placement) -> bool {
    !placement.placed && placement.fallbacks > 0
}

fn since(placements: &[Placement], of: [Option<usize>; 2], now: Timestamp) -> BTreeMap<usize, Timestamp> {
    let waiting = of.into_iter().flatten().filter(|index| {
        let placement = &placements[*index];
        placement.waits_for_device && !placement.placed
    });
    waiting
        .map(|index| (index, placements[index].since.unwrap_or(now)))
        .collect()
}
