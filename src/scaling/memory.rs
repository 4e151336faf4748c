//! Memory: what a leader remembers from one decision to the next.
//!
//! It counts time itself, so that no jump of the clock can end a delay: from one decision to the next, time neither
//! goes back nor passes by more than [`LONGEST_STEP`].

use jiff::{SignedDuration, Timestamp};
use std::collections::VecDeque;

/// The most time that passes between two decisions. Where they are further apart, delays take longer.
const LONGEST_STEP: SignedDuration = SignedDuration::from_secs(10);

/// What a leader remembers; `Default` is a new leader.
#[derive(Clone, Debug, Default)]
pub struct Memory {
    decided_at: Option<Timestamp>,
    /// The time that has passed since the first decision.
    passed: SignedDuration,
    /// Sizes that were asked for, and when: those that a later one does not exceed, so the first is the largest.
    asked: VecDeque<(SignedDuration, i32)>,
    /// When the load was last far more than the ready servers should have.
    panicked_at: Option<SignedDuration>,
}

impl Memory {
    /// Notes the time of a decision. A new leader knows nothing of what was asked for before, so it assumes the present
    /// `size`, and begins the delay anew.
    pub(super) fn begin(&mut self, now: Timestamp, size: i32) {
        match self.decided_at {
            None => self.record(size),
            Some(before) => {
                let step = now.duration_since(before);
                self.passed += step.clamp(SignedDuration::ZERO, LONGEST_STEP);
            }
        }
        self.decided_at = Some(now);
    }

    /// Notes whether the load is far more than the ready servers should have now; returns whether it has been within
    /// `hold`.
    pub(super) fn panics(&mut self, is_far_more: bool, hold: SignedDuration) -> bool {
        if is_far_more {
            self.panicked_at = Some(self.passed);
        }
        self.panicked_at.is_some_and(|at| self.passed - at < hold)
    }

    /// Notes the size that is asked for now.
    pub(super) fn record(&mut self, size: i32) {
        while self.asked.back().is_some_and(|(_, before)| *before <= size) {
            self.asked.pop_back();
        }
        self.asked.push_back((self.passed, size));
    }

    /// The largest size that was asked for within `delay`; 0 if none was.
    pub(super) fn largest(&mut self, delay: SignedDuration) -> i32 {
        while self
            .asked
            .front()
            .is_some_and(|(at, _)| self.passed - *at > delay)
        {
            self.asked.pop_front();
        }
        self.asked.front().map_or(0, |(_, size)| *size)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::UNIX_EPOCH + SignedDuration::from_secs(second)
    }

    /// The largest size within a minute, after decisions at these seconds that asked for these sizes.
    fn largest(decisions: &[(i64, i32)]) -> i32 {
        let mut memory = Memory::default();
        for (second, size) in decisions {
            memory.begin(at(*second), 0);
            memory.record(*size);
        }
        memory.largest(SignedDuration::from_secs(60))
    }

    #[test]
    fn the_largest_size_of_the_last_minute_is_remembered() {
        assert_eq!(largest(&[(0, 3)]), 3);
        assert_eq!(largest(&[(0, 3), (2, 1), (4, 2)]), 3);
        assert_eq!(largest(&[(0, 3), (2, 5), (4, 2)]), 5);
        let steps: Vec<(i64, i32)> = (0..=6)
            .map(|step| (step * 10, if step == 0 { 3 } else { 1 }))
            .collect();
        assert_eq!(largest(&steps), 3, "after exactly a minute");
        assert_eq!(largest(&[steps, vec![(62, 1)]].concat()), 1, "later");
    }

    /// A clock that somebody sets would remove servers that are needed.
    #[test]
    fn a_jump_of_the_clock_ends_no_delay() {
        assert_eq!(largest(&[(0, 3), (1_000_000, 1)]), 3);
        assert_eq!(largest(&[(0, 3), (-1_000_000, 1)]), 3);
        let mut after = vec![(0, 3), (-1_000_000, 1)];
        after.extend((1..=7).map(|step| (step * 10 - 1_000_000, 1)));
        assert_eq!(largest(&after), 1, "time goes on from there");
    }

    #[test]
    fn a_new_leader_assumes_the_present_size() {
        let mut memory = Memory::default();
        memory.begin(at(0), 4);
        memory.record(1);
        assert_eq!(memory.largest(SignedDuration::from_secs(60)), 4);
    }

    #[test]
    fn panic_holds_as_long_as_it_is_said() {
        let hold = SignedDuration::from_secs(30);
        let mut memory = Memory::default();
        let mut panics = |second, is_far_more| {
            memory.begin(at(second), 1);
            memory.panics(is_far_more, hold)
        };
        assert!(!panics(0, false));
        assert!(panics(10, true));
        assert!(panics(20, false));
        assert!(panics(30, true), "this begins the time again");
        assert!(panics(40, false));
        assert!(panics(50, false));
        assert!(!panics(60, false));
    }
}
