//! What the server counts and measures, for Prometheus. The names are documented in docs/server.md and do not change.

mod concurrency;
mod connections;
mod model;
mod statistics;
mod unassigned;

pub use concurrency::Concurrency;
pub use connections::{Closed, ConnectionMetrics, Reloaded};
pub use model::{ModelMetrics, Outcome, Ratio, Seconds};
pub use statistics::{Batch, Counts, Statistics, Success, Total};
pub use unassigned::Unassigned;

use prometheus_client::metrics::info::Info;
use prometheus_client::registry::Registry;

/// The registry of one server.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    models: model::Families,
    unassigned: Unassigned,
    connections: ConnectionMetrics,
}

impl Metrics {
    /// A registry with information about the server itself.
    #[must_use]
    pub fn new(server_version: &str, onnx_runtime_version: &str, execution_provider: &str) -> Self {
        let mut registry = Registry::with_prefix("modelservice");
        let info = Info::new([
            ("version", server_version.to_owned()),
            ("onnxruntime_version", onnx_runtime_version.to_owned()),
            ("execution_provider", execution_provider.to_owned()),
        ]);
        registry.register("server", "The inference server", info);
        let models = model::Families::register(&mut registry);
        let unassigned = Unassigned::register(&mut registry);
        let connections = ConnectionMetrics::register(&mut registry);
        Self {
            registry,
            models,
            unassigned,
            connections,
        }
    }

    /// A model's metrics, labelled with its name. All of them exist from the start: a rate over one that appears
    /// later would miss its first request.
    #[must_use]
    pub fn model(&self, name: &str) -> ModelMetrics {
        self.models.model(name)
    }

    /// Inference requests that are not counted for any model.
    #[must_use]
    pub const fn unassigned(&self) -> &Unassigned {
        &self.unassigned
    }

    /// Metrics of the serving port's connections.
    #[must_use]
    pub const fn connections(&self) -> &ConnectionMetrics {
        &self.connections
    }

    /// The OpenMetrics text.
    ///
    /// # Errors
    /// When a value cannot be written; a `String` never refuses one.
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
    use std::time::Duration;

    /// Dashboards and alerts use these names.
    #[test]
    fn the_documented_names_are_there_from_the_start() {
        let metrics = Metrics::new("1.2.3", "1.31.0", "CPUExecutionProvider");
        let model = metrics.model("photos");
        model.count(Outcome::Ok);
        model.inference.observe(0.003);
        model.ran(Duration::from_millis(250), 2);
        metrics.connections().open.inc();
        metrics.connections().closed(Closed::Age);
        metrics.connections().reloaded(Reloaded::Certificate, false);
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
            r#"modelservice_batch_size_count{model="photos"} 0"#,
            r#"modelservice_busy_seconds_total{model="photos"} 0.5"#,
            r#"modelservice_duty_cycle_ratio{model="photos"} 0.0"#,
            r#"modelservice_request_bytes_total{model="photos"} 0"#,
            r#"modelservice_response_bytes_total{model="photos"} 0"#,
            r#"modelservice_unassigned_requests_total{outcome="invalid"} 0"#,
            r#"modelservice_connections_open 0"#,
            r#"modelservice_connections_closed_total{reason="age"} 1"#,
            r#"modelservice_reloads_total{what="certificate",result="failed"} 1"#,
        ] {
            assert!(text.contains(line), "{line} is not in\n{text}");
        }
        // A second description of the same name makes Prometheus refuse everything.
        assert_eq!(text.matches("# TYPE modelservice_requests ").count(), 1, "{text}");
    }
}
