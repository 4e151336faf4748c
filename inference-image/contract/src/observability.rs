//! The part of the configuration that is about what the server tells of requests.

use serde::{Deserialize, Serialize};

/// Which requests have a line in the log.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct AccessLog {
    /// Share of all requests, from 0 to 1.
    pub sample_ratio: f64,
    /// Every request that the server fails to answer (500, over gRPC INTERNAL), whatever the share.
    pub failures: bool,
}

impl Default for AccessLog {
    fn default() -> Self {
        Self {
            sample_ratio: 0.0,
            failures: true,
        }
    }
}

/// Where traces go.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Tracing {
    /// URL of an OpenTelemetry collector that takes OTLP over gRPC, without TLS:
    /// `http://collector.observability:4317`.
    pub endpoint: String,
    /// Share of requests that are traced, from 0 to 1, of those that do not say it themselves by `traceparent`.
    #[serde(default = "one_in_a_hundred")]
    pub sample_ratio: f64,
}

impl Tracing {
    /// Share of requests that are traced where none is set.
    pub const SAMPLE_RATIO: f64 = 0.01;
}

const fn one_in_a_hundred() -> f64 {
    Tracing::SAMPLE_RATIO
}
