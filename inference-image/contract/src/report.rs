//! What a server says of itself: what it serves, and how busy it is.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// What a ready server says of itself at [`REPORT_PATH`](crate::REPORT_PATH).
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
    /// Program that made the file, and its version.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub producer: Option<String>,
    /// What its maker says of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// Further entries of the file (`metadata_props`).
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub metadata: BTreeMap<String, String>,
    /// Where the graph that is run came from.
    #[serde(default)]
    pub graph: GraphSource,
    /// Seconds from opening the package until its sessions were made.
    #[serde(default)]
    pub load_seconds: f64,
}

/// Where the graph that is run came from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum GraphSource {
    /// The package's file: each session optimises it and has its own weights.
    #[default]
    Original,
    /// Optimised at this start; the sessions share its weights.
    Optimised,
    /// Optimised before, and found in the package or the cache; the sessions share its weights.
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
    /// Shape; −1 stands for a dynamic dimension.
    pub shape: Vec<i64>,
}

/// How busy a server is, at [`LOAD_PATH`](crate::LOAD_PATH): small enough to be read every second. Fields are
/// only ever added.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LoadReport {
    /// Requests are welcome: loaded, and not told to leave.
    pub ready: bool,
    /// Requests under way on the serving port, of any path.
    pub in_flight: u64,
    /// Connections that are open on the serving port.
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
    /// Requests that are being served: their body is read, they wait, or they run.
    pub in_flight: u64,
    /// Of those, requests that wait for a runner.
    pub queued: u64,
    /// Runners that are at work.
    pub running: u64,
    /// Runners that there are.
    pub runners: u64,
    /// Share of the cores that the model had.
    pub duty_cycle: DutyCycle,
    /// How long a request that came now would probably wait for a runner, in milliseconds.
    pub predicted_wait_ms: f64,
}

/// A share of the server's cores, from 0 to 1, of the recent past.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DutyCycle {
    /// About the last second.
    pub last_second: f64,
    /// About the last ten seconds.
    pub last_ten_seconds: f64,
}
