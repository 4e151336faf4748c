//! `AcceleratorClass`: devices that are asked for by Dynamic Resource Allocation (`resource.k8s.io/v1`), in the words of
//! Kubernetes' own DeviceRequest.

use super::constraints;
use kube::KubeSchema;
use serde::{Deserialize, Serialize};

/// What every server asks for by Dynamic Resource Allocation (DRA).
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("has(self.exactly) != has(self.firstAvailable)").message("set exactly one of exactly (one kind of device) and firstAvailable (alternatives, best first)"))]
pub struct DeviceRequest {
    /// Devices of one kind.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exactly: Option<ExactDevices>,
    /// Alternatives, best first: the scheduler takes the first that it can give. The runtime must drive all of them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(min = 1, max = 8))]
    #[x_kube(validation = Rule::new("self.all(a, self.exists_one(b, a.name == b.name))").message("each alternative needs a name of its own"))]
    pub first_available: Vec<Alternative>,
}

/// Devices of one kind.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct ExactDevices {
    /// Name of the DeviceClass.
    #[schemars(length(min = 1, max = 253))]
    #[x_kube(validation = constraints::object_name("a DeviceClass"))]
    pub device_class_name: String,
    /// What a device must be like, all of them true.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32))]
    pub selectors: Vec<DeviceSelector>,
    /// How many each server gets.
    #[serde(default = "one")]
    #[schemars(range(min = 1, max = 32))]
    pub count: i32,
}

/// One of several kinds of devices.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct Alternative {
    /// What the status calls it.
    #[schemars(length(min = 1, max = 63))]
    #[x_kube(validation = Rule::new("!format.dns1123Label().validate(self).hasValue()").message("must be at most 63 of a-z, 0-9 and '-', with a letter or digit at both ends"))]
    pub name: String,
    /// Name of the DeviceClass.
    #[schemars(length(min = 1, max = 253))]
    #[x_kube(validation = constraints::object_name("a DeviceClass"))]
    pub device_class_name: String,
    /// What a device must be like, all of them true.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32))]
    pub selectors: Vec<DeviceSelector>,
    /// How many each server gets.
    #[serde(default = "one")]
    #[schemars(range(min = 1, max = 32))]
    pub count: i32,
}

/// What a device must be like.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct DeviceSelector {
    /// A rule in the Common Expression Language.
    pub cel: CelSelector,
}

/// A rule in the Common Expression Language.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct CelSelector {
    /// About `device`, for example `device.attributes["gpu.example.com"].model == "a10"`. The API server checks it when
    /// the first service uses the class.
    #[schemars(length(min = 1, max = 10_240))]
    pub expression: String,
}

const fn one() -> i32 {
    1
}

impl DeviceRequest {
    /// Names of the DeviceClasses, without those that are named twice.
    #[must_use]
    pub fn device_classes(&self) -> Vec<&str> {
        let exact = self.exactly.iter().map(|exact| &exact.device_class_name);
        let alternatives = self.first_available.iter();
        let mut names: Vec<&str> = exact
            .chain(alternatives.map(|alternative| &alternative.device_class_name))
            .map(String::as_str)
            .collect();
        names.sort_unstable();
        names.dedup();
        names
    }
}
