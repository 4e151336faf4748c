//! The load of a model in the last minute, a sample a second; and its duty cycle, from a counter of core seconds. Pure:
//! it does not read a clock.

use modelservice_contract::{DutyCycle, LOAD_HISTORY_SECONDS, LoadTotals};
use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// How often [`History::record`] is called.
pub const PERIOD: Duration = Duration::from_secs(1);
/// One more than there are seconds: both ends of each.
const SAMPLES: usize = LOAD_HISTORY_SECONDS as usize + 1;

/// Samples of the last minute, oldest first.
#[derive(Debug, Default)]
pub struct History(VecDeque<Sample>);

/// What had been counted at one moment.
#[derive(Clone, Copy, Debug)]
pub struct Sample {
    /// The moment.
    pub at: Instant,
    /// Core seconds.
    pub busy: f64,
    /// The other totals.
    pub totals: LoadTotals,
}

impl From<Sample> for History {
    /// A history that begins here.
    fn from(first: Sample) -> Self {
        Self(VecDeque::from([first]))
    }
}

impl History {
    /// Adds a sample.
    pub fn record(&mut self, sample: Sample) {
        self.0.push_back(sample);
        if self.0.len() > SAMPLES {
            self.0.pop_front();
        }
    }

    /// The totals that were recorded in a time up to now.
    #[must_use]
    pub fn last(&self, time: Duration, now: Instant) -> Vec<LoadTotals> {
        let is_recent = |sample: &&Sample| now.saturating_duration_since(sample.at) <= time;
        self.0
            .iter()
            .filter(is_recent)
            .map(|sample| sample.totals)
            .collect()
    }

    /// The duty cycle over this many cores, given that the counter is now at `busy`.
    #[must_use]
    pub fn duty_cycle(&self, now: Instant, busy: f64, cores: usize) -> DutyCycle {
        let share = |over: Duration| {
            let old_enough = |sample: &&Sample| now.saturating_duration_since(sample.at) >= over;
            // The oldest sample, as long as none is old enough.
            let since = self.0.iter().rev().find(old_enough).or(self.0.front());
            let Some(before) = since else { return 0.0 };
            let time = now.saturating_duration_since(before.at).as_secs_f64() * cores.max(1) as f64;
            // A run is counted when it ends, and may have begun before the window.
            if time > 0.0 {
                ((busy - before.busy) / time).clamp(0.0, 1.0)
            } else {
                0.0
            }
        };
        DutyCycle {
            last_second: share(PERIOD),
            last_ten_seconds: share(10 * PERIOD),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(at: Instant, busy: f64) -> Sample {
        let totals = LoadTotals {
            offered_seconds: busy,
            ..LoadTotals::default()
        };
        Sample { at, busy, totals }
    }

    /// An autoscaler that reads a wrong share adds replicas that nobody needs, or too few.
    #[test]
    fn shares_are_of_the_last_second_and_of_the_last_ten() {
        let start = Instant::now();
        let mut history = History::default();
        let at = |seconds: f64| start + Duration::from_secs_f64(seconds);
        assert_eq!(history.duty_cycle(start, 0.0, 2), DutyCycle::default());
        // One of two cores for 20 s, then nothing.
        for second in 0..=20 {
            history.record(sample(at(f64::from(second)), f64::from(second)));
        }
        let shares = |seconds, busy| {
            let duty = history.duty_cycle(at(seconds), busy, 2);
            (duty.last_second, duty.last_ten_seconds)
        };
        assert_eq!(shares(20.0, 20.0), (0.5, 0.5));
        assert_eq!(shares(21.0, 20.0), (0.0, 0.45));
        // More than fits into the window: the run began before it.
        assert_eq!(shares(21.0, 30.0).0, 1.0);
    }

    #[test]
    fn a_server_that_has_just_started_tells_what_it_knows() {
        let start = Instant::now();
        let history = History::from(sample(start, 0.0));
        let now = start + Duration::from_millis(500);
        assert_eq!(history.duty_cycle(now, 0.25, 1).last_ten_seconds, 0.5);
    }

    /// A reader that missed a minute of readings fills it from here.
    #[test]
    fn a_minute_has_a_sample_at_both_ends_of_each_second() {
        let start = Instant::now();
        let at = |second: u32| start + second * PERIOD;
        let mut history = History::from(sample(start, 0.0));
        for second in 1..=100 {
            history.record(sample(at(second), f64::from(second)));
        }
        let offered = |time| {
            let totals = history.last(time, at(100));
            totals
                .iter()
                .map(|totals| totals.offered_seconds)
                .collect::<Vec<_>>()
        };
        let seconds: Vec<f64> = (40..=100).map(f64::from).collect();
        assert_eq!(offered(60 * PERIOD), seconds);
        assert_eq!(offered(2 * PERIOD), [98.0, 99.0, 100.0]);
        assert!(history.last(Duration::ZERO, at(101)).is_empty());
    }
}
