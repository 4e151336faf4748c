//! What a server says of itself: what it serves, and how busy it is.

use serde::{Deserialize, Serialize};

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
