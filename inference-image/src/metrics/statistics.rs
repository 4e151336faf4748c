//! The numbers of Triton's statistics extension for a model: counts and nanoseconds since the start
//! (<https://github.com/triton-inference-server/server/blob/main/docs/protocol/extension_statistics.md>).

use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Statistics of one model.
#[derive(Debug, Default)]
pub struct Statistics {
    /// Successful requests, from arrival to response.
    pub success: Total,
    /// Other requests.
    pub fail: Total,
    /// Waiting for a core; this and the next three count successful requests.
    pub queue: Total,
    /// Building the inputs.
    pub compute_input: Total,
    /// In the engine; the time of a whole batch counts for each request in it.
    pub compute_infer: Total,
    /// Building the response.
    pub compute_output: Total,
    executions: AtomicU64,
    inferences: AtomicU64,
    last_inference: AtomicU64,
    batches: Mutex<BTreeMap<u64, Batch>>,
}

/// A number of events, and their total time.
#[derive(Debug, Default)]
pub struct Total {
    count: AtomicU64,
    nanoseconds: AtomicU64,
}

/// Runs of the engine with a given number of rows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Batch {
    /// How many.
    pub count: u64,
    /// Building their inputs, in nanoseconds.
    pub input: u64,
    /// In the engine, in nanoseconds.
    pub infer: u64,
}

impl Total {
    /// Counts an event that took this time.
    pub fn add(&self, time: Duration) {
        self.count.fetch_add(1, Relaxed);
        self.nanoseconds.fetch_add(nanoseconds(time), Relaxed);
    }

    /// Events and nanoseconds so far.
    #[must_use]
    pub fn get(&self) -> (u64, u64) {
        (self.count.load(Relaxed), self.nanoseconds.load(Relaxed))
    }
}

impl Statistics {
    /// Counts a successful run of the engine.
    pub fn ran(&self, rows: u64, input: Duration, infer: Duration) {
        self.executions.fetch_add(1, Relaxed);
        self.inferences.fetch_add(rows, Relaxed);
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let now = u64::try_from(now.as_millis()).unwrap_or(u64::MAX);
        self.last_inference.fetch_max(now, Relaxed);
        let mut batches = self.batches.lock();
        let batch = batches.entry(rows).or_default();
        batch.count += 1;
        batch.input += nanoseconds(input);
        batch.infer += nanoseconds(infer);
    }

    /// Runs of the engine.
    #[must_use]
    pub fn executions(&self) -> u64 {
        self.executions.load(Relaxed)
    }

    /// Rows in all runs.
    #[must_use]
    pub fn inferences(&self) -> u64 {
        self.inferences.load(Relaxed)
    }

    /// When the engine last ran, in milliseconds since the epoch.
    #[must_use]
    pub fn last_inference(&self) -> u64 {
        self.last_inference.load(Relaxed)
    }

    /// Runs by their number of rows.
    #[must_use]
    pub fn batches(&self) -> BTreeMap<u64, Batch> {
        self.batches.lock().clone()
    }
}

fn nanoseconds(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}
