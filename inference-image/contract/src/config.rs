//! The server's configuration: one document, every value with its unit and its default.

use crate::{AccessLog, Auth, Connections, Cors, Tls, Tracing};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// The server's whole configuration. Unknown keys are errors.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ServerConfig {
    /// Models to serve: at least one, with unique names.
    #[serde(default)]
    pub models: Vec<ModelConfig>,
    /// Execution provider that must run the whole graph of every model.
    #[serde(default, skip_serializing_if = "is_default")]
    pub execution_provider: ExecutionProvider,
    /// Limits on what a client may send.
    #[serde(default, skip_serializing_if = "is_default")]
    pub limits: Limits,
    /// How requests are batched and run.
    #[serde(default, skip_serializing_if = "is_default")]
    pub scheduling: Scheduling,
    /// Where optimised graphs are stored.
    #[serde(default, skip_serializing_if = "is_default")]
    pub cache: Cache,
    /// How long connections live, and how many there may be.
    #[serde(default, skip_serializing_if = "is_default")]
    pub connections: Connections,
    /// TLS on the serving port; without it the port is plain.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<Tls>,
    /// Who may use the serving port; without it, anyone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub auth: Option<Auth>,
    /// Which pages of other sites may use the serving port from a browser; without it, none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cors: Option<Cors>,
    /// Which requests are logged.
    #[serde(default, skip_serializing_if = "is_default")]
    pub access_log: AccessLog,
    /// Where traces are sent; without it there are none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tracing: Option<Tracing>,
    /// How the server shuts down.
    #[serde(default, skip_serializing_if = "is_default")]
    pub drain: Drain,
}

/// One model to serve.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ModelConfig {
    /// Name in request paths (`/v2/models/{name}`).
    pub name: String,
    /// Folder of the model package: `model.onnx` and, optionally, `model.yaml`.
    pub path: String,
    /// `sha256:<64 hex>` of `model.onnx`, or of the whole package, as `modelservice-server digest FOLDER` prints it,
    /// which is required if `model.onnx` stores weights in other files. A package that differs is rejected before it
    /// is parsed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub digest: Option<String>,
    /// How requests for this model are batched.
    #[serde(default, skip_serializing_if = "is_default")]
    pub scheduling: ModelScheduling,
}

/// How requests for one model are batched.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct ModelScheduling {
    /// Whether requests of different clients may share a run of the model.
    pub batching: Batching,
}

/// Whether requests of different clients may share a run of a model.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Batching {
    /// If the model's graph keeps the rows of a batch independent, and measurements show that batching is faster.
    #[default]
    Auto,
    /// Never.
    Off,
}

/// An ONNX Runtime execution provider and its options.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ExecutionProvider {
    /// ONNX Runtime's name, for example `CPUExecutionProvider`.
    pub name: String,
    /// Provider options, passed to ONNX Runtime unchanged.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub options: BTreeMap<String, String>,
    /// The library that contains the provider, unless it is built into ONNX Runtime.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub plugin: Option<ProviderPlugin>,
    /// Runs of one model at the same time on the device; by default as many as the server chooses.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub runners: Option<u32>,
    /// Device memory that each session may use, in bytes; by default as much as the provider takes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_limit_bytes: Option<u64>,
    /// Share of a model's compute nodes that may run on the CPU instead, in percent.
    #[serde(default, skip_serializing_if = "is_default")]
    pub allow_cpu_percent: u32,
}

/// A library with an execution provider that ONNX Runtime loads when the server starts.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ProviderPlugin {
    /// Path of the library in the runtime image.
    pub library: String,
    /// Name under which it is registered; by default the provider's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub registration_name: Option<String>,
    /// Only devices whose vendor, as the library reports it, is this one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub device_vendor: Option<String>,
    /// Only devices of this type: `CPU`, `GPU` or `NPU`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub device_type: Option<String>,
}

impl Default for ExecutionProvider {
    fn default() -> Self {
        Self {
            name: "CPUExecutionProvider".to_owned(),
            options: BTreeMap::new(),
            plugin: None,
            runners: None,
            memory_limit_bytes: None,
            allow_cpu_percent: 0,
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
    /// Images in one form; all of them are in memory as one batch.
    pub max_images_per_request: u32,
    /// Requests that may wait for a runner, per model; further ones get 429.
    pub queue_length: u32,
    /// Time for the head of a request, and for a TLS handshake, in seconds.
    pub header_seconds: u32,
    /// Largest head of a request, in bytes; a larger one gets 431.
    pub max_header_bytes: u32,
    /// Time for the body of a request, in seconds; a slower one gets 408.
    pub body_seconds: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_body_bytes: 64 << 20,
            max_image_pixels: 64 << 20,
            max_images_per_request: 16,
            queue_length: 128,
            header_seconds: 10,
            max_header_bytes: 32 << 10,
            body_seconds: 60,
        }
    }
}

/// How requests are batched and run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Scheduling {
    /// Maximum number of rows in one run of a model; the actual number is measured, and is 1 if more do not pay.
    pub max_batch_size: u32,
}

impl Default for Scheduling {
    fn default() -> Self {
        Self { max_batch_size: 8 }
    }
}

/// Where optimised graphs are stored.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Cache {
    /// Folder that the server may write to; without it, graphs are optimised again at each start. Graphs that
    /// `modelservice-server optimize` has put into a package are used in any case.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
}

/// How the server shuts down after SIGTERM.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Drain {
    /// Seconds during which new connections are still accepted; every response carries `Connection: close`.
    pub accept_seconds: u32,
    /// Seconds after that in which requests in flight may finish.
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

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}
