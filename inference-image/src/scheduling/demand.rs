//! What has been asked of a model: its requests by how they ended, and the runner time that they asked for. The values
//! only grow. Pure: it does not read a clock.

use std::time::{Duration, Instant};

/// The requests of one model so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Demand {
    /// Jobs that were run, successfully or not.
    pub served: u64,
    /// Jobs that were refused because others were waiting.
    pub refused: u64,
    /// Jobs whose deadline passed while they were waiting.
    pub expired: u64,
    /// The runner time that all of them asked for.
    pub offered: Duration,
}

/// All that is counted for a model, at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Totals {
    /// The moment.
    pub at: Instant,
    /// The requests.
    pub demand: Demand,
    /// The integral of the number of requests in flight over time.
    pub in_flight: Duration,
}

impl Demand {
    /// Counts a run of `jobs` jobs that kept runners busy for this long. The time also counts if no job could be run,
    /// because the inputs were invalid: no other job could use it.
    pub(super) fn served(&mut self, jobs: usize, time: Duration) {
        self.served += jobs as u64;
        self.offered += time;
    }

    /// Counts a refused job that would have taken about this long.
    pub(super) fn refused(&mut self, time: Duration) {
        self.refused += 1;
        self.offered += time;
    }

    /// Counts a job that waited in vain and would have taken about this long.
    pub(super) fn expired(&mut self, time: Duration) {
        self.expired += 1;
        self.offered += time;
    }
}
