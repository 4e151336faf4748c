//! The duty cycle of a model: how busy it was recently, from a counter of core seconds. Pure: it does not read a
//! clock.

use modelservice_contract::DutyCycle;
use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// How often [`Window::record`] is called.
pub const PERIOD: Duration = Duration::from_secs(1);
/// One more than ten seconds need, since the oldest sample must be at least as old as the window.
const SAMPLES: usize = 12;

/// Values of the counter over the last ten seconds.
#[derive(Debug, Default)]
pub struct Window(VecDeque<(Instant, f64)>);

impl From<Instant> for Window {
    /// A window over a counter that is now 0.
    fn from(now: Instant) -> Self {
        Self(VecDeque::from([(now, 0.0)]))
    }
}

impl Window {
    /// Adds a value of the counter.
    pub fn record(&mut self, now: Instant, busy: f64) {
        self.0.push_back((now, busy));
        if self.0.len() > SAMPLES {
            self.0.pop_front();
        }
    }

    /// The duty cycle over this many cores, given that the counter is now at `busy`.
    #[must_use]
    pub fn duty_cycle(&self, now: Instant, busy: f64, cores: usize) -> DutyCycle {
        let share = |over: Duration| {
            let old_enough = |(at, _): &&(Instant, f64)| now.saturating_duration_since(*at) >= over;
            // The oldest sample, as long as none is old enough.
            let since = self.0.iter().rev().find(old_enough).or(self.0.front());
            let Some((at, before)) = since else { return 0.0 };
            let time = now.saturating_duration_since(*at).as_secs_f64() * cores.max(1) as f64;
            // A run is counted when it ends, and may have begun before the window.
            if time > 0.0 {
                ((busy - before) / time).clamp(0.0, 1.0)
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

    /// An autoscaler that reads a wrong share adds replicas that nobody needs, or too few.
    #[test]
    fn shares_are_of_the_last_second_and_of_the_last_ten() {
        let start = Instant::now();
        let mut window = Window::default();
        let at = |seconds: f64| start + Duration::from_secs_f64(seconds);
        assert_eq!(window.duty_cycle(start, 0.0, 2), DutyCycle::default());
        // One of two cores for 20 s, then nothing.
        for second in 0..=20 {
            window.record(at(f64::from(second)), f64::from(second));
        }
        let shares = |seconds, busy| {
            let duty = window.duty_cycle(at(seconds), busy, 2);
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
        let window = Window::from(start);
        let now = start + Duration::from_millis(500);
        assert_eq!(window.duty_cycle(now, 0.25, 1).last_ten_seconds, 0.5);
    }
}
