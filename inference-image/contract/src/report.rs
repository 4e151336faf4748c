//! What a server reports about itself: what it serves, and how busy it is.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// The report of a ready server at [`REPORT_PATH`](crate::REPORT_PATH).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    /// Version of the server.
    pub server_version: String,
    /// Version of ONNX Runtime.
    pub onnx_runtime_version: String,
    /// Execution provider that runs the graphs.
    pub execution_provider: String,
    /// Models that are served.
    pub models: Vec<ModelReport>,
}

/// The report of one model.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ModelReport {
    /// Name in request paths.
    pub name: String,
    /// `sha256:<64 hex>`: the configured digest; otherwise that of `model.onnx`, or of the whole package if
    /// `model.onnx` stores weights in other files.
    pub digest: String,
    /// What `digest` covers.
    #[serde(default)]
    pub digest_covers: DigestCovers,
    /// Whether `digest` was configured, and found to be correct.
    #[serde(default)]
    pub digest_checked: bool,
    /// Version of the default ONNX operator set.
    pub opset: i64,
    /// Inputs, in the model's order.
    pub inputs: Vec<TensorSpec>,
    /// Outputs, in the model's order.
    pub outputs: Vec<TensorSpec>,
    /// Program that created the file, and its version.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub producer: Option<String>,
    /// A description for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// Further entries of the file (`metadata_props`).
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub metadata: BTreeMap<String, String>,
    /// Where the graph in use came from.
    #[serde(default)]
    pub graph: GraphSource,
    /// Seconds from opening the package until its sessions were created.
    #[serde(default)]
    pub load_seconds: f64,
    /// What runs the model's nodes, if this is reported.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub assignment: Option<Assignment>,
    /// Whether requests are batched, if this is reported.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub batching: Option<BatchingReport>,
}

/// What runs a model's compute nodes: ONNX Runtime's own graph assignment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Assignment {
    /// The execution provider that was asked for.
    pub provider: String,
    /// The device that it drives, as far as ONNX Runtime knows it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub device: Option<Device>,
    /// Compute nodes that the provider runs.
    pub nodes: u64,
    /// Compute nodes that the CPU runs instead, by operator.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub elsewhere: BTreeMap<String, u64>,
}

/// A device.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Device {
    /// Its name, or its type if it has none.
    pub name: String,
    /// Version of its driver.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub driver: Option<String>,
}

/// Whether requests of different clients share runs of a model.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct BatchingReport {
    /// Rows of several requests that go into one run when enough are waiting; with 1, each request is run separately.
    pub rows: u64,
    /// The reason.
    pub reason: String,
}

/// What a digest covers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum DigestCovers {
    /// `model.onnx`: the digest is the SHA-256 of its bytes.
    #[default]
    ModelFile,
    /// All files of the package: the digest is what `modelservice-server digest` prints.
    Package,
}

/// Where the graph in use came from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum GraphSource {
    /// The package's file: each session optimises it and has its own weights.
    #[default]
    Original,
    /// Optimised at this start; the sessions share its weights.
    Optimised,
    /// Optimised earlier, and found in the package or the cache; the sessions share its weights.
    Cached,
}

/// Name, type and shape of one input or output.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TensorSpec {
    /// Name in the graph.
    pub name: String,
    /// Open Inference Protocol data type, for example `FP32`.
    pub datatype: String,
    /// Shape; −1 is a dynamic dimension.
    pub shape: Vec<i64>,
}

/// How busy a server is, at [`LOAD_PATH`](crate::LOAD_PATH): small enough to be read every second. Fields are only
/// ever added.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LoadReport {
    /// Unix time at which the server started, in seconds: when it changes, the totals have begun again at 0.
    #[serde(default)]
    pub start_time_seconds: f64,
    /// The server accepts requests: models are loaded, and it is not shutting down.
    pub ready: bool,
    /// Requests in flight on the serving port, for any path.
    pub in_flight: u64,
    /// Open connections on the serving port.
    pub connections: u64,
    /// Each model, by name.
    pub models: Vec<ModelLoad>,
}

/// How busy one model is.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ModelLoad {
    /// Name in request paths.
    pub name: String,
    /// Requests in flight: their body is being read, they are waiting, or they are running.
    pub in_flight: u64,
    /// Of those, requests that are waiting for a runner.
    pub queued: u64,
    /// Busy runners.
    pub running: u64,
    /// All runners.
    pub runners: u64,
    /// Share of the cores that the model used.
    pub duty_cycle: DutyCycle,
    /// How long a request that arrived now would probably wait for a runner, in milliseconds.
    pub predicted_wait_ms: f64,
    /// What has been asked of the model so far; only older servers have none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub totals: Option<LoadTotals>,
    /// Earlier values of `totals`, about one a second, oldest first; empty unless the request asks for them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub history: Vec<LoadTotals>,
}

/// What has been asked of a model since the server started, at one moment. No value ever decreases, so the difference
/// of two readings is what happened between them, whoever else reads and however many readings were missed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LoadTotals {
    /// The moment, in seconds since the server started; adjusting the system's clock does not move it.
    pub at_seconds: f64,
    /// Requests that were run, successfully or not.
    pub served: u64,
    /// Requests that were refused because too many were waiting: an idle server would have served them.
    pub refused: u64,
    /// Requests whose deadline passed while they were waiting.
    pub expired: u64,
    /// Runner seconds that all of these requests and those that wait asked for: what runs took on one core, and for
    /// requests that were not run what a run took on average at that time. Divided by the time and by the runners it is the utilisation, which
    /// is above 1 if more was asked for than the server can do.
    pub offered_seconds: f64,
    /// The integral of `in_flight` over time: two requests for three seconds are 6. Divided by the time it is the mean
    /// number of requests in flight.
    pub in_flight_seconds: f64,
}

/// A share of the server's cores, from 0 to 1, in the recent past.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DutyCycle {
    /// Over the last second, approximately.
    pub last_second: f64,
    /// Over the last ten seconds, approximately.
    pub last_ten_seconds: f64,
}
