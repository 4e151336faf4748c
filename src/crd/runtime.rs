//! `AcceleratorClass`: what drives the device.

use super::{constraints, schemas, sizes};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Name of the execution provider that every ONNX Runtime has.
pub const CPU_PROVIDER: &str = "CPUExecutionProvider";

/// The runtime image and execution provider that drive a device.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("has(self.plugin) || self.executionProvider.endsWith('ExecutionProvider')").message("without plugin, executionProvider is one of ONNX Runtime's own, such as CUDAExecutionProvider"))]
#[x_kube(validation = Rule::new("!has(self.plugin) || self.executionProvider != 'CPUExecutionProvider'").message("with plugin, set executionProvider to the name of the provider that the library contains"))]
#[x_kube(validation = Rule::new("!(has(self.runners) || has(self.memoryLimit) || has(self.allowCpuShare)) || self.executionProvider != 'CPUExecutionProvider'").message("runners, memoryLimit and allowCpuShare are for devices: on the CPU, spec.resources of a ModelService decides"))]
pub struct Runtime {
    /// Image of the inference server for this device; the operator's own CPU runtime if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 512))]
    #[x_kube(validation = constraints::image())]
    pub image: Option<String>,
    /// When the kubelet pulls the image; IfNotPresent if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image_pull_policy: Option<PullPolicy>,
    /// ONNX Runtime execution provider that must run the whole graph; otherwise a server never becomes ready.
    #[serde(default = "cpu_provider")]
    #[schemars(length(min = 1, max = 128), regex(pattern = "^[A-Za-z0-9][A-Za-z0-9._-]*$"))]
    pub execution_provider: String,
    /// The library that contains the execution provider, if it is not built into the image's ONNX Runtime.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub plugin: Option<Plugin>,
    /// Options that are passed to the execution provider unchanged.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "schemas::strings")]
    pub options: BTreeMap<String, String>,
    /// Runs of a model at the same time on the device; if absent, the server chooses.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 8))]
    pub runners: Option<i32>,
    /// Memory of the device that each session may use, for example `4Gi`; as much as the provider takes if absent.
    /// The server refuses it for a provider that has no such limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "sizes::memory")]
    pub memory_limit: Option<Quantity>,
    /// Share of a model's compute nodes that may run on the CPU because the provider does not support them, in percent.
    /// None if absent: then one is enough to keep a server from becoming ready.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 100))]
    pub allow_cpu_share: Option<i32>,
}

impl Default for Runtime {
    fn default() -> Self {
        Self {
            image: None,
            image_pull_policy: None,
            execution_provider: cpu_provider(),
            plugin: None,
            options: BTreeMap::new(),
            runners: None,
            memory_limit: None,
            allow_cpu_share: None,
        }
    }
}

/// A library with an execution provider, which ONNX Runtime loads when a server starts.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct Plugin {
    /// Path of the library in the runtime image.
    #[schemars(length(min = 2, max = 1024))]
    #[x_kube(validation = constraints::library())]
    pub library: String,
    /// Name under which the library is registered; that of the execution provider if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 128))]
    pub registration_name: Option<String>,
    /// Only devices of this vendor, as the library names it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 128))]
    pub device_vendor: Option<String>,
    /// Only devices of this type.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub device_type: Option<DeviceType>,
}

/// A type of device, as ONNX Runtime knows them.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq)]
#[serde(rename_all = "UPPERCASE")]
pub enum DeviceType {
    /// The CPU.
    Cpu,
    /// A graphics processor.
    Gpu,
    /// A processor for neural networks.
    Npu,
}

impl DeviceType {
    /// The name that ONNX Runtime has for it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Cpu => "CPU",
            Self::Gpu => "GPU",
            Self::Npu => "NPU",
        }
    }
}

/// When the kubelet pulls an image.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq)]
pub enum PullPolicy {
    /// Whenever a pod starts.
    Always,
    /// If the node does not have it.
    IfNotPresent,
    /// Never: the node must have it.
    Never,
}

impl PullPolicy {
    /// Kubernetes' name for it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Always => "Always",
            Self::IfNotPresent => "IfNotPresent",
            Self::Never => "Never",
        }
    }
}

fn cpu_provider() -> String {
    CPU_PROVIDER.to_owned()
}
