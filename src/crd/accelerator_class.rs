//! `AcceleratorClass`: how a kind of device is requested on this cluster and which runtime drives it.

use super::{
    accelerator_status::AcceleratorClassStatus, constraints, device_request::DeviceRequest, refusals,
    runtime::Runtime, schemas,
};
use k8s_openapi::api::core::v1::NodeAffinity;
pub use k8s_openapi::api::core::v1::Toleration;
use kube::{CustomResource, KubeSchema};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// How a kind of device is requested on this cluster, and which runtime image and execution provider drive it. It is
/// only data: a new kind of device needs no new code. An edit affects only revisions created afterwards; it never
/// restarts running pods.
#[derive(CustomResource, KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[kube(
    group = "serving.modelservice.dev",
    version = "v1alpha1",
    kind = "AcceleratorClass",
    plural = "acceleratorclasses",
    shortname = "accel",
    category = "modelserving",
    status = "AcceleratorClassStatus",
    derive = "PartialEq",
    doc = "A kind of device (CPU, GPU, TPU or NPU): how it is requested on this cluster and which runtime image and execution provider drive it.",
    printcolumn(name = "Resource", type_ = "string", json_path = ".spec.resource.name"),
    printcolumn(
        name = "Provider",
        type_ = "string",
        json_path = ".spec.runtime.executionProvider"
    ),
    printcolumn(name = "Sharing", type_ = "string", json_path = ".spec.sharing"),
    printcolumn(name = "Nodes", type_ = "integer", json_path = ".status.nodes"),
    printcolumn(name = "Allocatable", type_ = "integer", json_path = ".status.allocatable"),
    printcolumn(name = "In-Use", type_ = "integer", json_path = ".status.inUse"),
    printcolumn(name = "Ready", type_ = "string", json_path = ".status.conditions[?(@.type==\"Ready\")].status"),
    printcolumn(name = "Reason", type_ = "string", json_path = ".status.conditions[?(@.type==\"Ready\")].reason"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    validation = Rule::new("self.metadata.name.size() <= 63").message("metadata.name must be at most 63 \
        characters: spec.accelerators of a ModelService does not accept longer names")
)]
#[x_kube(validation = Rule::new("!has(self.resource) || !has(self.deviceRequest)").message("set either resource (what a device plug-in offers) or deviceRequest (Dynamic Resource Allocation), not both; neither for the CPU"))]
#[serde(rename_all = "camelCase")]
pub struct AcceleratorClassSpec {
    /// Extended resource of the device plug-in that every server requests. Absent for the CPU.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resource: Option<DeviceResource>,
    /// Devices that every server asks for by Dynamic Resource Allocation (DRA), instead of `resource`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub device_request: Option<DeviceRequest>,
    /// Labels of the nodes that have the device.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "schemas::labels")]
    pub node_selector: BTreeMap<String, String>,
    /// Rules about those nodes. A pod must meet them and those of the ModelService.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schemas::node_affinity")]
    pub node_affinity: Option<NodeAffinity>,
    /// Taints of those nodes that the servers tolerate.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "schemas::tolerations")]
    pub tolerations: Vec<Toleration>,
    /// RuntimeClass of the servers' pods, for example `nvidia`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    #[x_kube(validation = constraints::object_name("a RuntimeClass"))]
    pub runtime_class_name: Option<String>,
    /// Environment variables of the servers. They take precedence over those of a ModelService.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "variables")]
    pub env: Vec<Variable>,
    /// What drives the device.
    #[serde(default)]
    pub runtime: Runtime,
    /// Whether each server gets its own devices (`Exclusive`) or several servers share them (`Shared`).
    #[serde(default)]
    pub sharing: Sharing,
}

impl AcceleratorClass {
    /// Why no node of the cluster has the device, if its status says so of the present spec.
    #[must_use]
    pub fn why_not_ready(&self) -> Option<&str> {
        let status = self.status.as_ref()?;
        let is_current = status.observed_generation == self.metadata.generation;
        let mut conditions = status.conditions.iter().filter(|_| is_current);
        let refused =
            conditions.find(|condition| condition.type_ == "Ready" && condition.status == "False")?;
        Some(&refused.message)
    }
}

/// A device plug-in's extended resource.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct DeviceResource {
    /// Name of the extended resource, for example `nvidia.com/gpu`.
    #[schemars(length(min = 1, max = 253))]
    #[x_kube(validation = constraints::extended_resource())]
    pub name: String,
    /// How many each server requests.
    #[serde(default = "one")]
    #[schemars(range(min = 1, max = 64))]
    pub count: i32,
}

/// An environment variable with a fixed value.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Variable {
    /// Its name.
    #[schemars(length(min = 1, max = 256), regex(pattern = "^[-._A-Za-z0-9]+$"))]
    #[x_kube(validation = refusals::class_variable())]
    pub name: String,
    /// Its value.
    #[serde(default)]
    #[schemars(length(max = 4096))]
    pub value: String,
}

/// Whether each server gets its own devices.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Sharing {
    /// Each server gets its own devices: a rollout needs spare ones, or `strategy: Recreate`.
    Exclusive,
    /// Servers share devices, as they share CPUs.
    #[default]
    Shared,
}

const fn one() -> i32 {
    1
}

fn variables(generator: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "array",
        "maxItems": 64,
        "items": generator.subschema_for::<Variable>(),
        "x-kubernetes-list-type": "map",
        "x-kubernetes-list-map-keys": ["name"],
    })
}
