//! Whether requests of different clients may share a run of a model, and why: for the log and the report.

use crate::engine::{Curve, rows_stay_apart};
use crate::onnx::Model;
use modelservice_contract::{Batching as Setting, BatchingReport, ModelConfig};
use std::sync::atomic::{AtomicBool, Ordering};

/// What is known about batching for a model.
#[derive(Debug)]
pub(super) struct Batching {
    /// Why its rows are not known to be independent, if so.
    problem: Option<String>,
    /// Rows that may go into one run according to the configuration.
    largest: usize,
    /// Whether a trial has shown that rows are not independent.
    refuted: AtomicBool,
}

impl Batching {
    /// Looks into the model, if it could be read, unless batches are off.
    pub(super) fn of(config: &ModelConfig, largest: usize, model: Result<&Model, &String>) -> Self {
        let problem = match config.scheduling.batching {
            Setting::Off => Some("scheduling.batching is off for this model".to_owned()),
            Setting::Auto => model.map_err(String::clone).and_then(rows_stay_apart).err(),
        };
        Self {
            problem,
            largest,
            refuted: AtomicBool::new(false),
        }
    }

    /// For a model that is never batched.
    pub(super) const fn single() -> Self {
        Self {
            problem: None,
            largest: 1,
            refuted: AtomicBool::new(false),
        }
    }

    /// Whether rows are independent according to the graph.
    pub(super) const fn keeps_apart(&self) -> bool {
        self.problem.is_none()
    }

    /// Why rows are not known to be independent, if so.
    pub(super) fn problem(&self) -> Option<&str> {
        self.problem.as_deref()
    }

    /// Rows of different requests that may go into one run.
    pub(super) fn largest(&self) -> usize {
        if self.keeps_apart() { self.largest } else { 1 }
    }

    /// Logs the result when everything has been measured.
    pub(super) fn measured(&self, model: &str, curve: &Curve) {
        if curve.apart == Some(false) {
            self.refuted.store(true, Ordering::Relaxed);
            tracing::warn!(
                model,
                "rows have different outputs in a batch than alone, although the graph keeps them independent"
            );
        }
        let report = self.report(curve.best());
        tracing::info!(
            model,
            rows = report.rows,
            reason = report.reason,
            "batches measured"
        );
    }

    /// The report, for this measured number of rows per run.
    pub(super) fn report(&self, rows: usize) -> BatchingReport {
        let reason = match &self.problem {
            Some(problem) => problem.clone(),
            None if self.refuted.load(Ordering::Relaxed) => {
                "in a trial, rows had different outputs in a batch than alone".to_owned()
            }
            None if self.largest < 2 => "scheduling.maxBatchSize is 1".to_owned(),
            None if rows > 1 => {
                format!("the graph keeps rows independent, and runs of {rows} were measured to be faster")
            }
            None => "the graph keeps rows independent, but no larger run was measured to be \
                faster"
                .to_owned(),
        };
        BatchingReport {
            rows: rows as u64,
            reason,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use modelservice_contract::ModelScheduling;

    fn batching(setting: Setting, largest: usize) -> Batching {
        let config = ModelConfig {
            scheduling: ModelScheduling { batching: setting },
            ..ModelConfig::default()
        };
        Batching::of(&config, largest, Ok(&Model::default()))
    }

    #[test]
    fn the_report_says_why_requests_are_put_together_or_not() {
        let apart = |largest| Batching {
            problem: None,
            ..batching(Setting::Auto, largest)
        };
        let refuted = apart(8);
        refuted.measured("m", &Curve::tried(false));
        for (batching, rows, part) in [
            (batching(Setting::Off, 8), 1, "scheduling.batching is off"),
            (batching(Setting::Auto, 8), 1, "operator set 0"),
            (apart(1), 1, "maxBatchSize is 1"),
            (apart(8), 1, "no larger run"),
            (apart(8), 4, "runs of 4"),
            (refuted, 1, "in a trial"),
        ] {
            let report = batching.report(rows);
            assert!(report.reason.contains(part), "{report:?}");
            assert_eq!(report.rows, rows as u64);
        }
    }

    #[test]
    fn a_model_that_is_not_known_to_keep_rows_apart_has_one_row_in_a_run() {
        assert_eq!(batching(Setting::Off, 8).largest(), 1);
        assert_eq!(batching(Setting::Auto, 8).largest(), 1, "the file is empty");
        let unread = Model::read(vec![0xFF; 8].into());
        let unread = Batching::of(&ModelConfig::default(), 8, unread.as_ref());
        assert_eq!(unread.largest(), 1);
        assert!(unread.report(1).reason.contains("its graph cannot be decoded: "));
        assert!(Batching::single().keeps_apart());
    }
}
