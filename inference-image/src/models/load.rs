//! How busy a model is, for autoscalers: now, in the last minute, and in total.

use super::history::{History, Sample};
use crate::metrics::ModelMetrics;
use crate::scheduling::{QueueHandle, Totals};
use modelservice_contract::{LoadTotals, ModelLoad};
use parking_lot::Mutex;
use std::time::{Duration, Instant};

/// Reads and records the load of a model.
pub(super) struct LoadMeter {
    /// When the server started.
    started: Instant,
    history: Mutex<History>,
}

impl LoadMeter {
    /// A meter for a new model.
    pub(super) fn new(started: Instant, queue: &QueueHandle, metrics: &ModelMetrics) -> Self {
        Self {
            started,
            history: Mutex::new(sample(started, queue, metrics).into()),
        }
    }

    /// Adds the load of this moment to the history.
    pub(super) fn record(&self, queue: &QueueHandle, metrics: &ModelMetrics) {
        let mut history = self.history.lock();
        history.record(sample(self.started, queue, metrics));
    }

    /// The load of this moment, and totals that were recorded in the time before it.
    pub(super) fn read(
        &self,
        name: &str,
        queue: &QueueHandle,
        metrics: &ModelMetrics,
        time: Duration,
    ) -> ModelLoad {
        // Locked first, so that nothing is recorded after this moment.
        let history = self.history.lock();
        let Sample { at, busy, totals } = sample(self.started, queue, metrics);
        let load = queue.load();
        ModelLoad {
            name: name.to_owned(),
            in_flight: u64::from(metrics.concurrency.in_flight()),
            queued: load.queued as u64,
            running: load.running as u64,
            runners: load.cores as u64,
            // There is a runner per core.
            duty_cycle: history.duty_cycle(at, busy, load.cores),
            predicted_wait_ms: load.predicted_wait.as_secs_f64() * 1000.0,
            totals: Some(totals),
            history: history.last(time, at),
        }
    }
}

fn sample(started: Instant, queue: &QueueHandle, metrics: &ModelMetrics) -> Sample {
    let Totals {
        at,
        demand,
        in_flight,
    } = queue.totals();
    Sample {
        at,
        busy: metrics.busy.get(),
        totals: LoadTotals {
            at_seconds: at.saturating_duration_since(started).as_secs_f64(),
            served: demand.served,
            refused: demand.refused,
            expired: demand.expired,
            offered_seconds: demand.offered.as_secs_f64(),
            in_flight_seconds: in_flight.as_secs_f64(),
        },
    }
}
