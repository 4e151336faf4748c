//! `AcceleratorClass`: how a kind of device is requested on this cluster and which runtime drives it.

use super::{constraints, schemas};
pub use k8s_openapi::api::core::v1::Toleration;
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
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
    derive = "PartialEq",
    doc = "A kind of device (CPU, GPU, TPU or NPU): how it is requested on this cluster and which runtime image and execution provider drive it.",
    printcolumn(name = "Resource", type_ = "string", json_path = ".spec.resource.name"),
    printcolumn(
        name = "Provider",
        type_ = "string",
        json_path = ".spec.runtime.executionProvider"
    ),
    printcolumn(name = "Sharing", type_ = "string", json_path = ".spec.sharing"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    validation = Rule::new("self.metadata.name.size() <= 63").message("metadata.name must be at most 63 \
        characters: spec.accelerators of a ModelService does not accept longer names")
)]
#[serde(rename_all = "camelCase")]
pub struct AcceleratorClassSpec {
    /// Extended resource of the device plug-in that every server requests. Absent for the CPU.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resource: Option<DeviceResource>,
    /// Labels of the nodes that have the device.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "schemas::labels")]
    pub node_selector: BTreeMap<String, String>,
    /// Taints of those nodes that the servers tolerate.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "schemas::tolerations")]
    pub tolerations: Vec<Toleration>,
    /// RuntimeClass of the servers' pods, for example `nvidia`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    #[x_kube(validation = constraints::object_name("a RuntimeClass"))]
    pub runtime_class_name: Option<String>,
    /// What drives the device.
    #[serde(default)]
    pub runtime: Runtime,
    /// Whether each server gets its own devices (`Exclusive`) or several servers share them (`Shared`).
    #[serde(default)]
    pub sharing: Sharing,
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

/// The runtime image and execution provider that drive a device.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct Runtime {
    /// Image of the inference server for this device; the operator's own CPU runtime if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 512))]
    #[x_kube(validation = constraints::image())]
    pub image: Option<String>,
    /// ONNX Runtime execution provider that must run the whole graph; otherwise a server never becomes ready.
    #[serde(default = "cpu_provider")]
    #[schemars(
        length(min = 1, max = 128),
        regex(pattern = "^[A-Za-z0-9]+ExecutionProvider$")
    )]
    pub execution_provider: String,
    /// Options that are passed to the execution provider unchanged.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "schemas::strings")]
    pub options: BTreeMap<String, String>,
}

impl Default for Runtime {
    fn default() -> Self {
        Self {
            image: None,
            execution_provider: cpu_provider(),
            options: BTreeMap::new(),
        }
    }
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

fn cpu_provider() -> String {
    "CPUExecutionProvider".to_owned()
}
