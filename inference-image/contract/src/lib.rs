//! What the operator and the inference server agree on: the configuration of the server, its ports, paths and exit
//! reasons, and its reports. Serde types and constants only: no I/O, no Kubernetes, no ONNX Runtime.

mod config;
mod connections;
mod environment;
mod exit;
mod fetch;
mod observability;
mod report;

pub use config::{
    Batching, Cache, Drain, ExecutionProvider, Limits, ModelConfig, ModelScheduling, ProviderPlugin,
    Scheduling, ServerConfig,
};
pub use connections::{Auth, Connections, Cors, Tls};
pub use environment::{LOADER_NAMES, LOADER_PREFIXES, is_loader_variable};
pub use exit::{ExitReason, TerminationMessage};
pub use fetch::{
    CREDENTIALS_PATH, FETCH_CONFIG_ENV, FetchCache, FetchConfig, FetchFailure, FetchReason, IdentityKind,
    MODEL_CACHE_PATH, PULL_SECRETS_PATH, Resolved, SourceIdentity, Verification,
};
pub use observability::{AccessLog, Tracing, names_levels};
pub use report::{
    Assignment, BatchingReport, Device, DigestCovers, DutyCycle, GraphSource, LoadReport, LoadTotals,
    ModelLoad, ModelReport, Report, TensorSpec,
};

/// Environment variable that carries [`ServerConfig`] as a YAML (or JSON) document.
pub const CONFIG_ENV: &str = "MODELSERVICE_CONFIG";
/// Port of the inference protocols (HTTP).
pub const HTTP_PORT: u16 = 8080;
/// Port of health, metrics and reports; it responds even when the serving port is saturated.
pub const MANAGEMENT_PORT: u16 = 8081;
/// Folder of the model package inside the container.
pub const MODEL_PATH: &str = "/mnt/model";
/// The only folder that the server may write to; for data that it can recreate, above all optimised graphs.
pub const CACHE_PATH: &str = "/var/cache/modelservice";
/// Where the kubelet reads the container's termination message: a JSON [`TerminationMessage`].
pub const TERMINATION_LOG: &str = "/dev/termination-log";
/// Liveness on [`MANAGEMENT_PORT`]: 200 as long as the process responds.
pub const LIVE_PATH: &str = "/healthz";
/// Readiness on [`MANAGEMENT_PORT`]: 200 once every model is loaded, verified and warmed up, until draining begins.
pub const READY_PATH: &str = "/readyz";
/// Prometheus metrics on [`MANAGEMENT_PORT`].
pub const METRICS_PATH: &str = "/metrics";
/// [`Report`] as JSON on [`MANAGEMENT_PORT`].
pub const REPORT_PATH: &str = "/report";
/// [`LoadReport`] as JSON on [`MANAGEMENT_PORT`]. With the query `history=SECONDS`, it includes the totals of so many past
/// seconds, at most [`LOAD_HISTORY_SECONDS`].
pub const LOAD_PATH: &str = "/load";
/// For how long a server remembers the totals of a [`LoadReport`].
pub const LOAD_HISTORY_SECONDS: u64 = 60;
