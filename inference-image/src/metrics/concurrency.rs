//! The number of requests in flight, and its integral over time. Pure: it does not read a clock.

use parking_lot::Mutex;
use std::time::{Duration, Instant};

/// Requests in flight of one model. Two requests for three seconds add six seconds to the integral.
#[derive(Debug)]
pub struct Concurrency(Mutex<Sum>);

#[derive(Debug)]
struct Sum {
    in_flight: u32,
    integral: Duration,
    /// The integral is up to here.
    until: Instant,
}

impl Concurrency {
    /// No requests in flight, from now on.
    #[must_use]
    pub const fn since(now: Instant) -> Self {
        Self(Mutex::new(Sum {
            in_flight: 0,
            integral: Duration::ZERO,
            until: now,
        }))
    }

    /// Counts a request as in flight.
    pub fn arrived(&self, now: Instant) {
        let mut sum = self.0.lock();
        sum.advance(now);
        sum.in_flight += 1;
    }

    /// Counts it no more.
    pub fn left(&self, now: Instant) {
        let mut sum = self.0.lock();
        sum.advance(now);
        sum.in_flight -= 1;
    }

    /// Requests in flight.
    #[must_use]
    pub fn in_flight(&self) -> u32 {
        self.0.lock().in_flight
    }

    /// The integral up to now.
    #[must_use]
    pub fn integral(&self, now: Instant) -> Duration {
        let mut sum = self.0.lock();
        sum.advance(now);
        sum.integral
    }
}

impl Sum {
    /// The clock is read before the lock is taken, so another thread may have come first with a later time.
    fn advance(&mut self, now: Instant) {
        let now = now.max(self.until);
        self.integral += (now - self.until) * self.in_flight;
        self.until = now;
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::sync::atomic::{AtomicBool, Ordering};

    /// An autoscaler divides it by the time: it would add servers that nobody needs, or too few.
    #[test]
    fn each_request_adds_the_time_for_which_it_was_in_flight() {
        let start = Instant::now();
        let at = |milliseconds| start + Duration::from_millis(milliseconds);
        let concurrency = Concurrency::since(start);
        let integral = |milliseconds| concurrency.integral(at(milliseconds)).as_millis();
        assert_eq!(integral(100), 0);
        concurrency.arrived(at(100));
        concurrency.arrived(at(200));
        assert_eq!((integral(200), integral(250)), (100, 200));
        concurrency.left(at(300));
        assert_eq!((integral(300), concurrency.in_flight()), (300, 1));
        concurrency.left(at(1300));
        assert_eq!((integral(1300), integral(9000)), (1300, 1300));
    }

    /// A difference of two readings must never be negative.
    #[test]
    fn it_never_decreases_while_threads_come_in_another_order_than_their_times() {
        let concurrency = Concurrency::since(Instant::now());
        let done = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let reader = scope.spawn(|| {
                let mut last = Duration::ZERO;
                while !done.load(Ordering::Relaxed) {
                    let next = concurrency.integral(Instant::now());
                    assert!(next >= last, "{next:?} after {last:?}");
                    last = next;
                }
            });
            let writers = [(); 2].map(|()| {
                scope.spawn(|| {
                    for _ in 0..10_000 {
                        concurrency.arrived(Instant::now());
                        concurrency.left(Instant::now());
                    }
                })
            });
            for writer in writers {
                writer.join().unwrap();
            }
            done.store(true, Ordering::Relaxed);
            reader.join().unwrap();
        });
        assert_eq!(concurrency.in_flight(), 0);
    }
}
