//! Metrics per model.

use super::concurrency::Concurrency;
use super::statistics::Statistics;
use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue, LabelValueEncoder};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::{Family, MetricConstructor};
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Metric, Registry, Unit};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::{Duration, Instant};

/// Rows per run: powers of two and values between them, since a batch is rarely a power of two.
const BATCH_SIZES: [f64; 13] = [
    1.0, 2.0, 3.0, 4.0, 6.0, 8.0, 12.0, 16.0, 24.0, 32.0, 48.0, 64.0, 128.0,
];

/// Covers a tiny model on a fast core up to a large one on a small fraction of a core, in seconds.
const BUCKETS: [f64; 16] = [
    0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0,
];

fn seconds() -> Histogram {
    Histogram::new(BUCKETS)
}

/// How a request for a model ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// Answered.
    Ok,
    /// The client's mistake (4xx other than 429).
    Invalid,
    /// Refused at once: the queue is full or the deadline cannot be met (429, 503).
    Rejected,
    /// Its deadline passed while it was waiting (504).
    Expired,
    /// The server's mistake (500).
    Failed,
    /// The client disconnected before the response.
    Cancelled,
}

pub(super) const OUTCOMES: [Outcome; 6] = [
    Outcome::Ok,
    Outcome::Invalid,
    Outcome::Rejected,
    Outcome::Expired,
    Outcome::Failed,
    Outcome::Cancelled,
];

impl Outcome {
    /// The label's value.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Invalid => "invalid",
            Self::Rejected => "rejected",
            Self::Expired => "expired",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
        }
    }
}

impl EncodeLabelValue for Outcome {
    fn encode(&self, encoder: &mut LabelValueEncoder) -> Result<(), std::fmt::Error> {
        EncodeLabelValue::encode(&self.name(), encoder)
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ModelLabels {
    model: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OutcomeLabels {
    model: String,
    outcome: Outcome,
}

/// A counter of seconds.
pub type Seconds = Counter<f64, AtomicU64>;
/// A share from 0 to 1.
pub type Ratio = Gauge<f64, AtomicU64>;

/// Metrics of one model. Clones share their values.
#[derive(Clone, Debug)]
pub struct ModelMetrics {
    /// The model's name.
    pub name: Arc<str>,
    requests: [Counter; OUTCOMES.len()],
    /// Requests between the first byte of their body and their response.
    pub concurrency: Arc<Concurrency>,
    /// How many there are; set when the metrics are read.
    pub in_flight: Gauge,
    /// Requests that are waiting for a runner; set when the metrics are read.
    pub queued: Gauge,
    /// Seconds from the last byte of a request until it has a runner.
    pub queue_wait: Histogram,
    /// Seconds that a runner spends on the inputs: decoding, resizing, normalising.
    pub preprocessing: Histogram,
    /// Seconds in the engine.
    pub inference: Histogram,
    /// Rows in one run of the engine.
    pub batch_size: Histogram,
    /// Core seconds that runs of this model took: a run of 1 s on two cores counts as 2.
    pub busy: Seconds,
    /// Share of the server's cores that this model used recently; set when the metrics are read.
    pub duty_cycle: Ratio,
    /// Bytes of request bodies that were read.
    pub request_bytes: Counter,
    /// Bytes of response bodies.
    pub response_bytes: Counter,
    /// What Triton's clients query.
    pub statistics: Arc<Statistics>,
}

impl ModelMetrics {
    /// Counts a request with this outcome.
    pub fn count(&self, outcome: Outcome) {
        self.requests[outcome as usize].inc();
    }

    /// Counts a run of the engine that took `time` on this many cores.
    pub fn ran(&self, time: Duration, cores: usize) {
        self.busy.inc_by(time.as_secs_f64() * cores as f64);
    }
}

/// The metric families, with one member per model.
#[derive(Debug)]
pub(super) struct Families {
    requests: Family<OutcomeLabels, Counter>,
    in_flight: PerModel<Gauge>,
    queued: PerModel<Gauge>,
    queue_wait: PerModel<Histogram>,
    preprocessing: PerModel<Histogram>,
    inference: PerModel<Histogram>,
    batch_size: PerModel<Histogram>,
    busy: PerModel<Seconds>,
    duty_cycle: PerModel<Ratio>,
    request_bytes: PerModel<Counter>,
    response_bytes: PerModel<Counter>,
}

type PerModel<M> = Family<ModelLabels, M, fn() -> M>;

impl Families {
    pub(super) fn register(registry: &mut Registry) -> Self {
        let requests = Family::default();
        registry.register("requests", "Requests by outcome", requests.clone());
        let batch_sizes = || Histogram::new(BATCH_SIZES);
        let r = registry;
        Self {
            requests,
            in_flight: plain(r, "in_flight_requests", "Requests that are being served"),
            queued: plain(r, "queued_requests", "Requests waiting for a runner"),
            queue_wait: timed(
                r,
                "queue_wait",
                "From the arrival of a request until a runner takes it",
            ),
            preprocessing: timed(r, "preprocessing", "From a request's bytes to the model's inputs"),
            inference: timed(r, "inference", "Time in the engine"),
            batch_size: family(r, "batch_size", "Rows in one run", None, batch_sizes),
            busy: family(
                r,
                "busy",
                "Core seconds of runs",
                Some(Unit::Seconds),
                Seconds::default,
            ),
            duty_cycle: family(
                r,
                "duty_cycle",
                "Share of the cores used in the last 10 s",
                Some(Unit::Other("ratio".to_owned())),
                Ratio::default,
            ),
            request_bytes: family(
                r,
                "request",
                "Request bodies read",
                Some(Unit::Bytes),
                Counter::default,
            ),
            response_bytes: family(
                r,
                "response",
                "Response bodies sent",
                Some(Unit::Bytes),
                Counter::default,
            ),
        }
    }

    pub(super) fn model(&self, name: &str) -> ModelMetrics {
        let labels = ModelLabels {
            model: name.to_owned(),
        };
        let outcome = |outcome| OutcomeLabels {
            model: name.to_owned(),
            outcome,
        };
        ModelMetrics {
            name: name.into(),
            requests: OUTCOMES.map(|kind| self.requests.get_or_create(&outcome(kind)).clone()),
            concurrency: Arc::new(Concurrency::since(Instant::now())),
            in_flight: of(&self.in_flight, &labels),
            queued: of(&self.queued, &labels),
            queue_wait: of(&self.queue_wait, &labels),
            preprocessing: of(&self.preprocessing, &labels),
            inference: of(&self.inference, &labels),
            batch_size: of(&self.batch_size, &labels),
            busy: of(&self.busy, &labels),
            duty_cycle: of(&self.duty_cycle, &labels),
            request_bytes: of(&self.request_bytes, &labels),
            response_bytes: of(&self.response_bytes, &labels),
            statistics: Arc::default(),
        }
    }
}

fn of<M: Clone>(family: &PerModel<M>, labels: &ModelLabels) -> M
where
    fn() -> M: MetricConstructor<M>,
{
    family.get_or_create(labels).clone()
}

fn family<M>(
    registry: &mut Registry,
    name: &str,
    help: &str,
    unit: Option<Unit>,
    make: fn() -> M,
) -> PerModel<M>
where
    PerModel<M>: Metric + Clone,
{
    let family = Family::new_with_constructor(make);
    match unit {
        Some(unit) => registry.register_with_unit(name, help, unit, family.clone()),
        None => registry.register(name, help, family.clone()),
    }
    family
}

fn plain(registry: &mut Registry, name: &str, help: &str) -> PerModel<Gauge> {
    family(registry, name, help, None, Gauge::default)
}

fn timed(registry: &mut Registry, name: &str, help: &str) -> PerModel<Histogram> {
    family(registry, name, help, Some(Unit::Seconds), seconds)
}
