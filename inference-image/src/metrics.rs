//! What the server counts and measures, for Prometheus. The names are documented in docs/server.md and
//! stay as they are.

use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue, LabelValueEncoder};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::{Registry, Unit};

/// From a tiny model on a fast core to a large one on a small fraction of a core, in seconds.
const BUCKETS: [f64; 15] = [
    0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0,
];

/// How a request for a model ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// Answered.
    Ok,
    /// The client's mistake (4xx but 429).
    Invalid,
    /// Turned away for want of room (429, 503).
    Rejected,
    /// The server's mistake (5xx but 503).
    Failed,
    /// The client left before its answer.
    Cancelled,
}

impl EncodeLabelValue for Outcome {
    fn encode(&self, encoder: &mut LabelValueEncoder) -> Result<(), std::fmt::Error> {
        let value = match self {
            Self::Ok => "ok",
            Self::Invalid => "invalid",
            Self::Rejected => "rejected",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
        };
        EncodeLabelValue::encode(&value, encoder)
    }
}

const OUTCOMES: [Outcome; 5] = [
    Outcome::Ok,
    Outcome::Invalid,
    Outcome::Rejected,
    Outcome::Failed,
    Outcome::Cancelled,
];

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ModelLabels {
    model: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OutcomeLabels {
    model: String,
    outcome: Outcome,
}

/// Metrics of one model. Clones share their values.
#[derive(Clone, Debug)]
pub struct ModelMetrics {
    requests: [Counter; OUTCOMES.len()],
    /// Requests from the first byte of their body to their answer.
    pub in_flight: Gauge,
    /// Requests that wait for a runner; set when metrics are read.
    pub queued: Gauge,
    /// Seconds from the last byte of a request to its runner.
    pub queue_wait: Histogram,
    /// Seconds in which a runner makes the inputs: decoding, resizing, normalising.
    pub preprocessing: Histogram,
    /// Seconds in the engine.
    pub inference: Histogram,
}

impl ModelMetrics {
    /// Counts a request that ended so.
    pub fn count(&self, outcome: Outcome) {
        self.requests[outcome as usize].inc();
    }
}

type Gauges = Family<ModelLabels, Gauge>;
type Histograms = Family<ModelLabels, Histogram>;

/// The registry of one server.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    requests: Family<OutcomeLabels, Counter>,
    in_flight: Gauges,
    queued: Gauges,
    queue_wait: Histograms,
    preprocessing: Histograms,
    inference: Histograms,
}

impl Metrics {
    /// A registry with what is known of the server itself.
    #[must_use]
    pub fn new(server_version: &str, onnx_runtime_version: &str, execution_provider: &str) -> Self {
        let mut registry = Registry::with_prefix("modelservice");
        let info = Info::new([
            ("version", server_version.to_owned()),
            ("onnxruntime_version", onnx_runtime_version.to_owned()),
            ("execution_provider", execution_provider.to_owned()),
        ]);
        registry.register("server", "The inference server", info);
        let requests = Family::default();
        registry.register("requests", "Requests by outcome", requests.clone());
        let mut gauge = |name: &str, help: &str| {
            let family = Gauges::default();
            registry.register(name, help, family.clone());
            family
        };
        let in_flight = gauge("in_flight_requests", "Requests that are being served");
        let queued = gauge("queued_requests", "Requests that wait for a runner");
        let mut histogram = |name: &str, help: &str| {
            let family = Histograms::new_with_constructor(|| Histogram::new(BUCKETS));
            registry.register_with_unit(name, help, Unit::Seconds, family.clone());
            family
        };
        let queue_wait = histogram("queue_wait", "From the end of a request to its runner");
        let preprocessing = histogram("preprocessing", "From a request's bytes to the model's inputs");
        let inference = histogram("inference", "In the engine");
        Self {
            registry,
            requests,
            in_flight,
            queued,
            queue_wait,
            preprocessing,
            inference,
        }
    }

    /// A model's metrics, labelled with its name; all are there from the start, since a rate over one that
    /// appears later would miss its first request.
    #[must_use]
    pub fn model(&self, name: &str) -> ModelMetrics {
        let labels = ModelLabels {
            model: name.to_owned(),
        };
        let outcome = |outcome| OutcomeLabels {
            model: name.to_owned(),
            outcome,
        };
        ModelMetrics {
            requests: OUTCOMES.map(|kind| self.requests.get_or_create(&outcome(kind)).clone()),
            in_flight: self.in_flight.get_or_create(&labels).clone(),
            queued: self.queued.get_or_create(&labels).clone(),
            queue_wait: self.queue_wait.get_or_create(&labels).clone(),
            preprocessing: self.preprocessing.get_or_create(&labels).clone(),
            inference: self.inference.get_or_create(&labels).clone(),
        }
    }

    /// The OpenMetrics text.
    ///
    /// # Errors
    /// When a value cannot be written, which a `String` never refuses.
    pub fn encode(&self) -> Result<String, std::fmt::Error> {
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &self.registry)?;
        Ok(text)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    // Dashboards and alerts are written with these names.
    #[test]
    fn the_documented_names_are_there_from_the_start() {
        let metrics = Metrics::new("1.2.3", "1.31.0", "CPUExecutionProvider");
        let model = metrics.model("photos");
        model.count(Outcome::Ok);
        model.inference.observe(0.003);
        let _other = metrics.model("colors");
        let text = metrics.encode().unwrap();
        for line in [
            r#"modelservice_server_info{version="1.2.3",onnxruntime_version="1.31.0",execution_provider="CPUExecutionProvider"} 1"#,
            r#"modelservice_requests_total{model="photos",outcome="ok"} 1"#,
            r#"modelservice_requests_total{model="photos",outcome="rejected"} 0"#,
            r#"modelservice_in_flight_requests{model="photos"} 0"#,
            r#"modelservice_queued_requests{model="photos"} 0"#,
            r#"modelservice_queue_wait_seconds_count{model="photos"} 0"#,
            r#"modelservice_preprocessing_seconds_count{model="photos"} 0"#,
            r#"modelservice_inference_seconds_bucket{le="0.005",model="photos"} 1"#,
        ] {
            assert!(text.contains(line), "{line} is not in\n{text}");
        }
        // A second description of the same name makes Prometheus refuse everything.
        assert_eq!(text.matches("# TYPE modelservice_requests ").count(), 1, "{text}");
    }
}
