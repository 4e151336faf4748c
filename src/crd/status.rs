//! `ModelService`: the status that the operator writes.

use super::schemas;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Types of the conditions that the operator owns: it removes those that others have written.
pub const CONDITION_TYPES: &[&str] = &[
    "Ready",
    "Available",
    "Reconciling",
    "Stalled",
    "RuntimeUpdateAvailable",
    "Synced",
    "AutoscalerActive",
    "ModelReported",
    "AcceleratorEngaged",
    "SourceNotRetained",
    "ModelVerified",
];

/// The observed state.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct ModelServiceStatus {
    /// Generation of the spec that this status describes; −1 until the operator has seen the object.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Ready, Available; on an accelerator, AcceleratorEngaged; with spec.model.verification, ModelVerified; only while
    /// True, Reconciling, Stalled, RuntimeUpdateAvailable and SourceNotRetained; only while False, Synced,
    /// AutoscalerActive and ModelReported.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "schemas::conditions")]
    pub conditions: Vec<Condition>,
    /// The URL of the service inside the cluster.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
    /// Servers of the revision that has the traffic.
    #[serde(default)]
    pub replicas: i32,
    /// Of those, how many are ready.
    #[serde(default)]
    pub ready_replicas: i32,
    /// What decides the number of servers, with `spec.autoscaling`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub autoscaling: Option<AutoscalingStatus>,
    /// Label selector of the servers, for the scale subresource.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub selector: Option<String>,
    /// Revision that has the traffic.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub current_revision: Option<String>,
    /// Revision that the spec asks for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target_revision: Option<String>,
    /// The model that is served, as the server reports it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<ModelStatus>,
    /// The device that the service runs on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub accelerator: Option<AcceleratorStatus>,
    /// Revisions that exist, newest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32))]
    pub revisions: Vec<RevisionStatus>,
}

impl ModelServiceStatus {
    /// The message of a condition.
    #[must_use]
    pub fn said(&self, type_: &str) -> Option<&str> {
        let mut conditions = self.conditions.iter();
        let condition = conditions.find(|condition| condition.type_ == type_)?;
        Some(&condition.message)
    }

    /// This status without conditions of types that others write.
    #[must_use]
    pub fn without_foreign_conditions(mut self) -> Self {
        self.conditions
            .retain(|condition| CONDITION_TYPES.contains(&condition.type_.as_str()));
        self
    }
}

/// What decides the number of servers.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct AutoscalingStatus {
    /// Servers that the revision that has the traffic should have.
    pub wanted: i32,
    /// Servers that it has, ready or not.
    pub current: i32,
    /// What decided `wanted`: Load, Minimum, Maximum, Schedule, NoData, NoRoom, HorizontalPodAutoscaler or External.
    pub decided_by: String,
    /// The same as a sentence, with the measured figure at that time.
    pub message: String,
    /// Since when it is so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<Time>,
}

/// The model that is served, as the server reports it.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct ModelStatus {
    /// Revision whose server reported this.
    pub revision: String,
    /// `sha256:<64 hex>` of `model.onnx`, or of the whole package if `spec.model.digest` is that of the package or
    /// `model.onnx` stores weights in other files.
    pub digest: String,
    /// Where the package comes from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
    /// How it gets to the servers: ImageVolume, VolumeClaim or Fetch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub delivery: Option<String>,
    /// The version of the source that every server of the revision fetches.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub identity: Option<String>,
    /// Whose signature it has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub verified: Option<String>,
    /// Inputs, outputs and operator set, read from the file.
    pub signature: Signature,
}

/// Inputs, outputs and operator set of a model.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct Signature {
    /// Version of the default ONNX operator set.
    pub opset: i64,
    /// Inputs, in the model's order.
    #[schemars(length(max = 64))]
    pub inputs: Vec<TensorStatus>,
    /// Outputs, in the model's order.
    #[schemars(length(max = 64))]
    pub outputs: Vec<TensorStatus>,
}

/// Name, type and shape of an input or output.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct TensorStatus {
    /// Name in the graph.
    pub name: String,
    /// Open Inference Protocol data type.
    pub datatype: String,
    /// Shape; −1 stands for a dynamic dimension.
    #[schemars(length(max = 16))]
    pub shape: Vec<i64>,
}

/// The device that a service runs on.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct AcceleratorStatus {
    /// Name of the AcceleratorClass.
    pub class: String,
    /// Execution provider that runs the graph, as the server reports it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub execution_provider: Option<String>,
    /// What runs the model on the servers that are ready, as they report it: servers with the same device together.
    /// Absent on the CPU.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    pub devices: Vec<DeviceStatus>,
}

/// Servers whose models run on the same kind of device.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct DeviceStatus {
    /// Which alternative of the AcceleratorClass's `firstAvailable` the scheduler took.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request: Option<String>,
    /// Execution provider that was asked for.
    pub provider: String,
    /// Name of the device.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Version of its driver.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub driver: Option<String>,
    /// The model's compute nodes that the provider runs: ONNX Runtime's own graph assignment.
    pub nodes: i64,
    /// Compute nodes that the CPU runs instead, by operator.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 256))]
    pub elsewhere: BTreeMap<String, i64>,
    /// Servers like this.
    pub replicas: i32,
}

/// One revision that exists.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct RevisionStatus {
    /// Hash that names it.
    pub name: String,
    /// Its number; the newest has the largest.
    pub number: i64,
    /// Image of the model package, if it is mounted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model_image: Option<String>,
    /// Where the model package comes from otherwise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
    /// Servers that it should have.
    pub replicas: i32,
    /// Servers that are ready.
    pub ready_replicas: i32,
}
