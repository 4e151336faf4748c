//! What waits for one model, and what its runs cost. Pure but for the engines it keeps.

use super::{Engines, Job, JobError, Priority, Tuner};
use crate::metrics::ModelMetrics;
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Jobs of models of which one takes longer, or nobody knows, are left to the runner threads: a network thread has
/// connections to look after.
pub(super) const SHORT: Duration = Duration::from_millis(1);

/// A job that is alone may take a network thread this long on one core; it gets all of them.
pub(super) const SWIFT: Duration = Duration::from_millis(10);

/// Who runs jobs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Thread {
    Runner,
    /// Short jobs only.
    Network,
}

/// One model: its jobs that wait, its engines, and what its runs cost.
pub(super) struct Queue {
    pub(super) high: VecDeque<Job>,
    pub(super) normal: VecDeque<Job>,
    pub(super) engines: Engines,
    pub(super) capacity: usize,
    pub(super) batch: usize,
    pub(super) tuner: Option<Tuner>,
    /// Jobs that are being run.
    pub(super) running: usize,
    /// Running mean of the core time of one job.
    pub(super) cost: Duration,
    /// The least that one job took.
    pub(super) least_cost: Duration,
    /// Core time so far, for fairness between models: who has had least is next.
    pub(super) spent: Duration,
    pub(super) metrics: Arc<ModelMetrics>,
}

impl Queue {
    pub(super) fn waiting(&self) -> usize {
        self.high.len() + self.normal.len()
    }

    /// Whether its runs are known to be short.
    pub(super) fn is_quick(&self) -> bool {
        self.takes_at_most(SHORT)
    }

    /// Whether a network thread may run what is next.
    pub(super) fn is_short(&self) -> bool {
        self.is_quick() && self.is_next_small()
    }

    /// Whether what is next, on all cores, keeps a network thread for a short time only.
    pub(super) fn is_swift(&self) -> bool {
        self.takes_at_most(SWIFT) && self.is_next_small() && self.engines.wide.is_some()
    }

    fn takes_at_most(&self, limit: Duration) -> bool {
        !self.cost.is_zero() && self.cost <= limit
    }

    fn is_next_small(&self) -> bool {
        let next = self.high.front().or_else(|| self.normal.front());
        next.is_some_and(|job| job.options.is_small)
    }

    pub(super) fn is_active(&self) -> bool {
        self.waiting() + self.running > 0
    }

    pub(super) fn queue(&mut self, priority: Priority) -> &mut VecDeque<Job> {
        match priority {
            Priority::High => &mut self.high,
            Priority::Normal => &mut self.normal,
        }
    }

    /// At most so many jobs for one run. One whose client left is dropped, one that would be late is told so; no
    /// more are added than the first of them has time for. None if the first was no job any more: what is next
    /// then may be for another thread.
    pub(super) fn pop(&mut self, most: usize, now: Instant) -> Vec<Job> {
        let mut jobs = Vec::with_capacity(most);
        let mut earliest: Option<Instant> = None;
        while jobs.len() < most {
            let run = self.cost * saturated(jobs.len() + 1);
            if !jobs.is_empty() && earliest.is_some_and(|deadline| now + run > deadline) {
                break;
            }
            let Some(job) = self.high.pop_front().or_else(|| self.normal.pop_front()) else {
                break;
            };
            match job.options.deadline {
                _ if job.reply.is_closed() => {}
                Some(deadline) if now + self.least_cost > deadline => {
                    // Its client may have left in this moment.
                    let _ = job.reply.send(Err(JobError::Expired));
                }
                deadline => {
                    earliest = [earliest, deadline].into_iter().flatten().min();
                    jobs.push(job);
                }
            }
            if jobs.is_empty() {
                break;
            }
        }
        jobs
    }

    /// One run in which something else came between must not count for much.
    pub(super) fn learn(&mut self, each: Duration) {
        if self.cost.is_zero() {
            (self.cost, self.least_cost) = (each, each);
            return;
        }
        self.cost = (self.cost * 7 + each.min(self.cost * 3)) / 8;
        self.least_cost = self.least_cost.min(each);
    }

    pub(super) fn forget_gone(&mut self) {
        self.high.retain(|job| !job.reply.is_closed());
        self.normal.retain(|job| !job.reply.is_closed());
    }
}

pub(super) fn saturated(count: usize) -> u32 {
    u32::try_from(count).unwrap_or(u32::MAX)
}
