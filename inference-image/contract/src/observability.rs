//! The part of the configuration about logging and tracing of requests.

use serde::{Deserialize, Serialize};

/// Which requests are logged.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct AccessLog {
    /// Share of all requests to log, from 0 to 1.
    pub sample_ratio: f64,
    /// Log every request that the server fails to answer (500, over gRPC INTERNAL), whatever the share.
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

/// Where traces are sent.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Tracing {
    /// URL of an OpenTelemetry collector that accepts OTLP over gRPC without TLS:
    /// `http://collector.observability:4317`.
    pub endpoint: String,
    /// Share of requests to trace, from 0 to 1, among those without a `traceparent` that decides it.
    #[serde(default = "one_in_a_hundred")]
    pub sample_ratio: f64,
}

impl Tracing {
    /// Default share of requests to trace.
    pub const SAMPLE_RATIO: f64 = 0.01;
}

const fn one_in_a_hundred() -> f64 {
    Tracing::SAMPLE_RATIO
}

/// Levels of a log filter, as `tracing` reads them.
const LEVELS: [&str; 12] = [
    "off", "error", "warn", "info", "debug", "trace", "0", "1", "2", "3", "4", "5",
];

/// Whether each directive of a log filter is a level (`info`) or gives one to something (`kube=debug`). `tracing` itself
/// takes any other word as the name of a module, so that a mistyped level would silence everything.
#[must_use]
pub fn names_levels(filter: &str) -> bool {
    filter.split(',').all(|directive| {
        directive.contains(['=', '[', ']', '}']) || LEVELS.contains(&directive.to_ascii_lowercase().as_str())
    })
}
