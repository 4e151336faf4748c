//! The numbers of Triton's statistics extension for a model: counts and nanoseconds since the start
//! (<https://github.com/triton-inference-server/server/blob/main/docs/protocol/extension_statistics.md>).

use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Statistics of one model. Each event is one update and each reading one copy: clients fail if related counts
/// differ.
#[derive(Debug, Default)]
pub struct Statistics(Mutex<Counts>);

/// A reading.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counts {
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
    /// Runs of the engine.
    pub executions: u64,
    /// Rows in all runs.
    pub inferences: u64,
    /// When the engine last ran, in milliseconds since the epoch.
    pub last_inference: u64,
    /// Runs by their number of rows.
    pub batches: BTreeMap<u64, Batch>,
}

/// A number of events, and their total time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Total {
    /// How many.
    pub count: u64,
    /// Their time.
    pub nanoseconds: u64,
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
    /// Building the responses, in nanoseconds; added as each response is ready, after the run was counted.
    pub output: u64,
}

/// Where the time of a successful request went.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Success {
    /// From arrival to response.
    pub total: Duration,
    /// Waiting for a core.
    pub queue: Duration,
    /// Building the inputs.
    pub input: Duration,
    /// In the engine.
    pub infer: Duration,
    /// Building the response.
    pub output: Duration,
    /// Rows of the run that it was in.
    pub rows: u64,
}

impl Total {
    fn add(&mut self, time: Duration) {
        self.count += 1;
        self.nanoseconds += nanoseconds(time);
    }
}

impl Statistics {
    /// Counts a successful run of the engine.
    pub fn ran(&self, rows: u64, input: Duration, infer: Duration) {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let now = u64::try_from(now.as_millis()).unwrap_or(u64::MAX);
        let mut counts = self.0.lock();
        counts.executions += 1;
        counts.inferences += rows;
        counts.last_inference = counts.last_inference.max(now);
        let batch = counts.batches.entry(rows).or_default();
        batch.count += 1;
        batch.input += nanoseconds(input);
        batch.infer += nanoseconds(infer);
    }

    /// Counts a successful request.
    pub fn succeeded(&self, request: &Success) {
        let mut counts = self.0.lock();
        counts.success.add(request.total);
        counts.queue.add(request.queue);
        counts.compute_input.add(request.input);
        counts.compute_infer.add(request.infer);
        counts.compute_output.add(request.output);
        if let Some(batch) = counts.batches.get_mut(&request.rows) {
            batch.output += nanoseconds(request.output);
        }
    }

    /// Counts a request that failed after this time.
    pub fn failed(&self, time: Duration) {
        self.0.lock().fail.add(time);
    }

    /// All numbers at one moment.
    #[must_use]
    pub fn read(&self) -> Counts {
        self.0.lock().clone()
    }
}

fn nanoseconds(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::sync::atomic::{AtomicBool, Ordering};

    /// `perf_analyzer` stops if they differ.
    #[test]
    fn counts_agree_in_every_reading_while_others_count() {
        let (statistics, done) = (Statistics::default(), AtomicBool::new(false));
        let success = Success {
            output: Duration::from_nanos(3),
            rows: 2,
            ..Success::default()
        };
        std::thread::scope(|scope| {
            let reader = scope.spawn(|| {
                while !done.load(Ordering::Relaxed) {
                    agree(&statistics.read());
                }
            });
            let writers = [(); 2].map(|()| {
                scope.spawn(|| {
                    for _ in 0..10_000 {
                        statistics.ran(2, Duration::ZERO, Duration::ZERO);
                        statistics.succeeded(&success);
                        statistics.failed(Duration::ZERO);
                    }
                })
            });
            for writer in writers {
                writer.join().unwrap();
            }
            done.store(true, Ordering::Relaxed);
            reader.join().unwrap();
        });
        let counts = statistics.read();
        agree(&counts);
        assert_eq!((counts.success.count, counts.fail.count), (20_000, 20_000));
        assert_eq!(
            (counts.compute_output.nanoseconds, counts.batches[&2].output),
            (60_000, 60_000)
        );
    }

    fn agree(counts: &Counts) {
        let requests = [
            counts.success,
            counts.queue,
            counts.compute_input,
            counts.compute_infer,
            counts.compute_output,
        ];
        assert!(
            requests.iter().all(|total| total.count == counts.success.count),
            "{counts:?}"
        );
        let batches = || counts.batches.iter();
        assert_eq!(
            batches().map(|(_, batch)| batch.count).sum::<u64>(),
            counts.executions
        );
        assert_eq!(
            batches().map(|(rows, batch)| rows * batch.count).sum::<u64>(),
            counts.inferences
        );
    }
}
