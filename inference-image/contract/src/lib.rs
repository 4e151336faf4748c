//! What the operator and the inference server agree on: the server's configuration, ports, paths,
//! exit reasons and its report. Serde types and constants only: no I/O, no Kubernetes, no ONNX Runtime.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Environment variable that carries [`ServerConfig`] as a YAML (or JSON) document.
pub const CONFIG_ENV: &str = "MODELSERVICE_CONFIG";
/// Port of the inference protocols (HTTP).
pub const HTTP_PORT: u16 = 8080;
/// Port of health, metrics and the report; stays answerable when the serving port is saturated.
pub const MANAGEMENT_PORT: u16 = 8081;
/// Folder of the model package inside the container.
pub const MODEL_PATH: &str = "/mnt/model";
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

/// The server's whole configuration. Unknown keys are errors.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ServerConfig {
    /// Models to serve; at least one, names are unique.
    pub models: Vec<ModelConfig>,
    /// Execution provider that must hold the whole graph of every model.
    #[serde(default, skip_serializing_if = "is_default")]
    pub execution_provider: ExecutionProvider,
    /// Limits on what a client may send.
    #[serde(default, skip_serializing_if = "is_default")]
    pub limits: Limits,
    /// How the server leaves.
    #[serde(default, skip_serializing_if = "is_default")]
    pub drain: Drain,
}

/// One model to serve.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ModelConfig {
    /// Name in request paths (`/v2/models/{name}`).
    pub name: String,
    /// Folder of the model package: `model.onnx` and, optionally, `model.yaml`.
    pub path: String,
    /// `sha256:<64 hex>` of `model.onnx`; a file that differs is refused before it is parsed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub digest: Option<String>,
}

/// An ONNX Runtime execution provider and its options.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ExecutionProvider {
    /// ONNX Runtime's name, for example `CPUExecutionProvider`.
    pub name: String,
    /// Provider options, handed to ONNX Runtime as they are.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub options: BTreeMap<String, String>,
}

impl Default for ExecutionProvider {
    fn default() -> Self {
        Self {
            name: "CPUExecutionProvider".to_owned(),
            options: BTreeMap::new(),
        }
    }
}

/// Limits on what a client may send.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Limits {
    /// Largest request body, in bytes.
    pub max_body_bytes: u64,
    /// Largest decoded image, in pixels.
    pub max_image_pixels: u64,
    /// Requests that may wait for a runner, per model; one more is answered 429.
    pub queue_length: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_body_bytes: 64 << 20,
            max_image_pixels: 64 << 20,
            queue_length: 128,
        }
    }
}

/// How the server leaves after SIGTERM.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Drain {
    /// Seconds during which new connections are still accepted; every answer carries `Connection: close`.
    pub accept_seconds: u32,
    /// Seconds after that in which requests under way may finish.
    pub finish_seconds: u32,
}

impl Default for Drain {
    fn default() -> Self {
        Self {
            accept_seconds: 5,
            finish_seconds: 20,
        }
    }
}

/// Why the server ended by itself: its exit code and the reason in its [`TerminationMessage`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum ExitReason {
    /// The configuration cannot be read or names something impossible.
    ConfigInvalid,
    /// The model package has no `model.onnx` (an empty folder is what a mounted OCI artifact looks like).
    ModelMissing,
    /// The SHA-256 of `model.onnx` differs from the configured one.
    ModelDigestMismatch,
    /// `model.onnx` is not a model that this ONNX Runtime loads, or `model.yaml` does not fit it.
    ModelInvalid,
    /// The requested execution provider is not in this runtime or its device is not there.
    AcceleratorUnavailable,
    /// The execution provider is there but does not hold the whole graph.
    ExecutionProviderFallback,
    /// The ONNX Runtime library cannot be loaded.
    RuntimeUnavailable,
    /// A port cannot be bound or another system resource is missing.
    SystemError,
}

impl ExitReason {
    /// Every reason, in the order of the exit codes.
    pub const ALL: [Self; 8] = [
        Self::ConfigInvalid,
        Self::ModelMissing,
        Self::ModelDigestMismatch,
        Self::ModelInvalid,
        Self::AcceleratorUnavailable,
        Self::ExecutionProviderFallback,
        Self::RuntimeUnavailable,
        Self::SystemError,
    ];

    /// The process's exit code.
    #[must_use]
    pub const fn code(self) -> u8 {
        match self {
            Self::ConfigInvalid => 10,
            Self::ModelMissing => 11,
            Self::ModelDigestMismatch => 12,
            Self::ModelInvalid => 13,
            Self::AcceleratorUnavailable => 14,
            Self::ExecutionProviderFallback => 15,
            Self::RuntimeUnavailable => 16,
            Self::SystemError => 17,
        }
    }
}

/// The server's last words, written as JSON to [`TERMINATION_LOG`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TerminationMessage {
    /// Why.
    pub reason: ExitReason,
    /// What happened and what to do, for a person.
    pub message: String,
}

/// What a ready server says of itself at [`REPORT_PATH`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    /// Version of the server.
    pub server_version: String,
    /// Version of ONNX Runtime.
    pub onnx_runtime_version: String,
    /// Execution provider that holds the graphs.
    pub execution_provider: String,
    /// Models that are served.
    pub models: Vec<ModelReport>,
}

/// What a ready server says of one model.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ModelReport {
    /// Name in request paths.
    pub name: String,
    /// `sha256:<64 hex>` of `model.onnx`.
    pub digest: String,
    /// Version of the default ONNX operator set.
    pub opset: i64,
    /// Inputs, in the model's order.
    pub inputs: Vec<TensorSpec>,
    /// Outputs, in the model's order.
    pub outputs: Vec<TensorSpec>,
}

/// Name, type and shape of one input or output.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TensorSpec {
    /// Name in the graph.
    pub name: String,
    /// Open Inference Protocol data type, for example `FP32`.
    pub datatype: String,
    /// Shape; −1 stands for a dynamic dimension.
    pub shape: Vec<i64>,
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}
