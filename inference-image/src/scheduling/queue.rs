//! A bounded first-in-first-out queue between many submitters and a few runners.

use super::{Job, Load};
use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Longest and shortest `Retry-After`.
const RETRY_AFTER: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(30));

/// Why a job was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rejected {
    /// As many jobs wait as may; try again after this time.
    Full {
        /// When the queue will probably be empty; whole seconds, at least 1.
        retry_after: Duration,
    },
    /// The deadline would pass before the answer is ready; try again after this time.
    OutOfReach {
        /// When the answer would be ready.
        predicted: Duration,
        /// When the queue will probably be empty.
        retry_after: Duration,
    },
    /// The runners are gone: the server is leaving.
    Closed,
}

/// The queue. Jobs whose client left are dropped when they are met.
pub(super) struct Queue {
    state: Mutex<State>,
    arrived: Condvar,
    capacity: usize,
    runners: usize,
}

#[derive(Default)]
struct State {
    jobs: VecDeque<Job>,
    /// Runners that wait for a job: what they will take at once does not count as waiting.
    idle: usize,
    closed: bool,
    /// Running mean of what one job takes a runner.
    service: Duration,
}

impl Queue {
    pub(super) fn new(capacity: usize, runners: usize) -> Self {
        Self {
            state: Mutex::default(),
            arrived: Condvar::new(),
            capacity,
            runners,
        }
    }

    // Nothing panics while it holds the lock; if it did, the queue's state would still be whole.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn submit(&self, job: Job) -> Result<(), Rejected> {
        let mut state = self.lock();
        if state.closed {
            return Err(Rejected::Closed);
        }
        let places = self.capacity + state.idle;
        if state.jobs.len() >= places {
            state.jobs.retain(|job| !job.reply.is_closed());
        }
        if state.jobs.len() >= places {
            return Err(Rejected::Full {
                retry_after: self.retry_after(&state),
            });
        }
        state.jobs.push_back(job);
        drop(state);
        self.arrived.notify_one();
        Ok(())
    }

    /// How long a job that came now would wait.
    fn predicted_wait(&self, state: &State) -> Duration {
        let rounds = state.jobs.len().div_ceil(self.runners.max(1));
        state
            .service
            .saturating_mul(u32::try_from(rounds).unwrap_or(u32::MAX))
    }

    fn retry_after(&self, state: &State) -> Duration {
        let wait = self.predicted_wait(state);
        Duration::from_secs(wait.as_secs_f64().ceil() as u64).clamp(RETRY_AFTER.0, RETRY_AFTER.1)
    }

    /// The next job whose client still waits; `None` once the queue is closed and empty.
    pub(super) fn next(&self) -> Option<Job> {
        let mut state = self.lock();
        loop {
            while let Some(job) = state.jobs.pop_front() {
                if !job.reply.is_closed() {
                    return Some(job);
                }
            }
            if state.closed {
                return None;
            }
            state.idle += 1;
            state = self.arrived.wait(state).unwrap_or_else(PoisonError::into_inner);
            state.idle -= 1;
        }
    }

    /// Tells how long a job took its runner.
    pub(super) fn served(&self, took: Duration) {
        let mut state = self.lock();
        state.service = if state.service.is_zero() {
            took
        } else {
            (state.service * 7 + took) / 8
        };
    }

    /// Refuses new jobs; runners end when those that wait are done.
    pub(super) fn close(&self) {
        self.lock().closed = true;
        self.arrived.notify_all();
    }

    pub(super) fn load(&self) -> Load {
        let state = self.lock();
        Load {
            queued: state.jobs.len(),
            running: self.runners.saturating_sub(state.idle),
            runners: self.runners,
            predicted_wait: self.predicted_wait(&state),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::scheduling::Completed;
    use crate::scheduling::JobError;
    use tokio::sync::oneshot::Receiver;

    fn job() -> (Job, Receiver<Result<Completed, JobError>>) {
        Job::new(Box::new(|| Ok(Vec::new())), Vec::new())
    }

    #[test]
    fn one_more_than_may_wait_is_refused_with_a_time_to_come_back() {
        let queue = Queue::new(2, 1);
        let kept: Vec<_> = (0..2)
            .map(|_| {
                let (job, reply) = job();
                queue.submit(job).unwrap();
                reply
            })
            .collect();
        queue.served(Duration::from_millis(1700));
        let rejected = queue.submit(job().0).unwrap_err();
        assert_eq!(
            rejected,
            Rejected::Full {
                retry_after: Duration::from_secs(4)
            }
        );
        drop(kept);
    }

    // A crowd of clients that gave up must not keep those out who still wait.
    #[test]
    fn jobs_whose_client_left_are_skipped_and_free_their_places() {
        let queue = Queue::new(1, 1);
        let (gone, reply) = job();
        queue.submit(gone).unwrap();
        drop(reply);
        let (mut waiting, _reply) = job();
        waiting.outputs = vec![7];
        queue.submit(waiting).unwrap();
        assert_eq!(queue.next().unwrap().outputs, [7]);
    }

    #[test]
    fn a_closed_queue_gives_what_it_has_and_then_ends() {
        let queue = Queue::new(1, 1);
        let (last, _reply) = job();
        queue.submit(last).unwrap();
        queue.close();
        assert_eq!(queue.submit(job().0).unwrap_err(), Rejected::Closed);
        assert!(queue.next().is_some());
        assert!(queue.next().is_none());
    }
}
