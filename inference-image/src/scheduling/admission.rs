//! Whether a job is accepted, depending on how many are waiting and on when it would be answered. Pure.

use super::job::{Priority, Rejected, RunOptions};
use super::queue::{Queue, saturated};
use std::time::{Duration, Instant};

/// One in this many parts of the time before a job's run is added as a margin before the time is compared with a
/// deadline.
const MARGIN: u32 = 8;

/// What the admission of one model's jobs depends on.
pub(super) struct Admission<'a> {
    pub(super) models: &'a [Queue],
    /// Index of the model.
    pub(super) model: usize,
    pub(super) cores: usize,
    /// Cores on which nothing runs.
    pub(super) free: usize,
}

/// When a job would be answered.
struct Prediction {
    /// Time for the jobs before it, on its model's share of the cores.
    ahead: Duration,
    /// Its own run.
    own: Duration,
}

/// How busy a model is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Load {
    /// Waiting jobs.
    pub queued: usize,
    /// Jobs that are running.
    pub running: usize,
    /// Cores, which all models share.
    pub cores: usize,
    /// How long a job that arrived now would probably wait.
    pub predicted_wait: Duration,
    /// Jobs that go into one run when enough are waiting.
    pub batch: usize,
}

impl Admission<'_> {
    fn queue(&self) -> &Queue {
        &self.models[self.model]
    }

    /// Whether there is room for a job, and time to answer it.
    pub(super) fn check(&self, options: &RunOptions, now: Instant) -> Result<(), Rejected> {
        let queue = self.queue();
        let retry_after = || queue.cost * saturated(queue.waiting()) / saturated(self.cores);
        // A job for a free core does not wait.
        if queue.waiting() >= queue.capacity + self.free {
            return Err(Rejected::Full {
                retry_after: retry_after(),
            });
        }
        let Some(deadline) = options.deadline else {
            return Ok(());
        };
        let Prediction { ahead, own } = self.predict(options.priority);
        // The costs of runs do not include the time between runs and on the network. A job with no time to spare
        // would be run for nothing, because its answer would be late, and a slightly shorter queue keeps the cores
        // just as busy.
        let predicted = ahead + ahead / MARGIN + own;
        if now + predicted <= deadline {
            return Ok(());
        }
        Err(Rejected::OutOfReach {
            predicted,
            retry_after: retry_after(),
        })
    }

    pub(super) fn load(&self) -> Load {
        let queue = self.queue();
        let predicted = self.predict(Priority::Normal);
        Load {
            queued: queue.waiting(),
            running: queue.running,
            cores: self.cores,
            predicted_wait: (predicted.ahead + predicted.own).saturating_sub(queue.cost),
            batch: queue.batch,
        }
    }

    /// When a job that arrived now would be answered.
    fn predict(&self, priority: Priority) -> Prediction {
        let queue = self.queue();
        if self.free > 0 && queue.waiting() == 0 {
            // Uses the fastest run so far: otherwise one slow run could cause every later job to be refused, and no
            // run would ever correct the estimate.
            return Prediction {
                ahead: Duration::ZERO,
                own: queue.least_cost,
            };
        }
        let ahead = match priority {
            Priority::High => queue.high.len(),
            Priority::Normal => queue.waiting(),
        };
        let models = self.models.iter().enumerate();
        let active = models.filter(|(index, other)| *index == self.model || other.waiting() > 0);
        // On average, current runs are half done. The job's own run may be a batch.
        let work = queue.cost * saturated(ahead) + queue.cost * saturated(queue.running) / 2;
        Prediction {
            ahead: work * saturated(active.count()) / saturated(self.cores),
            own: queue.cost * saturated(queue.batch.min(ahead + 1)),
        }
    }
}
