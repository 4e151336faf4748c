//! The latency curve: the measured cost of runs of several rows on this device. Pure.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::time::Duration;

/// Seconds that a run costs outside the engine: to dispatch it, to join and split its tensors, to wake threads.
const OVERHEAD: f64 = 15e-6;
/// A batch must save this part of each row's time to be worth the wait. Repeated measurements differ by less than
/// this.
const GAIN: f64 = 0.05;
/// A larger batch must save this much more than a smaller one.
const MORE: f64 = 0.02;

/// Measured runs: seconds by the number of rows.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Curve {
    runs: BTreeMap<usize, Vec<f64>>,
    /// Whether using all cores for one run is faster than using one, if it has been measured.
    #[serde(rename = "wide")]
    pub all_cores: Option<bool>,
    /// Whether rows have the same outputs in a batch as alone, if that has been tried.
    pub apart: Option<bool>,
}

impl Curve {
    /// A curve of a model whose rows have been tried.
    #[cfg(test)]
    pub(crate) fn tried(apart: bool) -> Self {
        Self {
            apart: Some(apart),
            ..Self::default()
        }
    }

    /// Adds a measured run.
    pub fn add(&mut self, rows: usize, took: Duration) {
        self.runs.entry(rows).or_default().push(took.as_secs_f64());
    }

    /// The number of rows in a run whose time per row is close to the lowest; 1 unless batching saves a noticeable
    /// part and rows are known to be independent.
    #[must_use]
    pub fn best(&self) -> usize {
        if self.apart != Some(true) {
            return 1;
        }
        let per_row = |rows: usize| Some((self.median(rows)? + OVERHEAD) / rows as f64);
        let Some(single) = per_row(1) else { return 1 };
        let mut sizes = self.runs.keys().filter_map(|&rows| Some((rows, per_row(rows)?)));
        let least = sizes.clone().map(|(_, time)| time).fold(single, f64::min);
        if least >= single * (1.0 - GAIN) {
            return 1;
        }
        let best = sizes.find(|&(_, time)| time <= least * (1.0 + MORE));
        best.map_or(1, |(rows, _)| rows)
    }

    /// Whether these values can be measurements: a file may contain anything.
    #[must_use]
    pub fn is_plausible(&self) -> bool {
        let hour = 3600.0;
        let mut runs = self.runs.iter();
        runs.all(|(rows, times)| {
            (1..=1 << 16).contains(rows) && times.iter().all(|time| *time > 0.0 && *time < hour)
        })
    }

    /// Forgets runs of more rows than this.
    #[must_use]
    pub fn up_to(mut self, largest: usize) -> Self {
        self.runs.retain(|&rows, _| rows <= largest.max(1));
        self
    }

    /// Whether runs of several rows have been measured.
    pub(crate) fn has_batches(&self) -> bool {
        self.runs.keys().any(|&rows| rows > 1)
    }

    /// The time of a run of one row; zero if it is not known.
    #[must_use]
    pub fn single(&self) -> Duration {
        self.median(1).map_or(Duration::ZERO, Duration::from_secs_f64)
    }

    /// The time of a run of this many rows, in seconds.
    pub(crate) fn median(&self, rows: usize) -> Option<f64> {
        let mut runs = self.runs.get(&rows)?.clone();
        runs.sort_by(f64::total_cmp);
        runs.get(runs.len() / 2).copied()
    }

    /// How often a run of this many rows has been measured.
    pub(crate) fn samples(&self, rows: usize) -> usize {
        self.runs.get(&rows).map_or(0, Vec::len)
    }
}
