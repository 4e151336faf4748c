//! What the operator and the inference server agree on: the server's configuration, ports, paths,
//! exit reasons and its report. Serde types and constants only: no I/O, no Kubernetes, no ONNX Runtime.

mod config;
mod connections;
mod exit;
mod observability;
mod report;

pub use config::{Cache, Drain, ExecutionProvider, Limits, ModelConfig, Scheduling, ServerConfig};
pub use connections::{Auth, Connections, Tls};
pub use exit::{ExitReason, TerminationMessage};
pub use observability::{AccessLog, Tracing};
pub use report::{DutyCycle, GraphSource, LoadReport, ModelLoad, ModelReport, Report, TensorSpec};

/// Environment variable that carries [`ServerConfig`] as a YAML (or JSON) document.
pub const CONFIG_ENV: &str = "MODELSERVICE_CONFIG";
/// Port of the inference protocols (HTTP).
pub const HTTP_PORT: u16 = 8080;
/// Port of health, metrics and the report; stays answerable when the serving port is saturated.
pub const MANAGEMENT_PORT: u16 = 8081;
/// Folder of the model package inside the container.
pub const MODEL_PATH: &str = "/mnt/model";
/// Folder for what the server can make anew, optimised graphs above all; the one folder that it may write.
pub const CACHE_PATH: &str = "/var/cache/modelservice";
/// Where the kubelet reads the container's last words: a JSON [`TerminationMessage`].
pub const TERMINATION_LOG: &str = "/dev/termination-log";
/// Liveness on [`MANAGEMENT_PORT`]: 200 while the process can answer at all.
pub const LIVE_PATH: &str = "/healthz";
/// Readiness on [`MANAGEMENT_PORT`]: 200 once every model is loaded, verified and warmed, until drain begins.
pub const READY_PATH: &str = "/readyz";
/// Prometheus metrics on [`MANAGEMENT_PORT`].
pub const METRICS_PATH: &str = "/metrics";
/// [`Report`] as JSON on [`MANAGEMENT_PORT`].
pub const REPORT_PATH: &str = "/report";
/// [`LoadReport`] as JSON on [`MANAGEMENT_PORT`].
pub const LOAD_PATH: &str = "/load";
