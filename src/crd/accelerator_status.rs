//! `AcceleratorClass`: the status that the operator writes.

use super::schemas;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Where the devices of a class are. An operator for single namespaces may not read nodes, and does not write it.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct AcceleratorClassStatus {
    /// Generation of the spec that this status describes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Ready: whether any node has the device.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "schemas::conditions")]
    pub conditions: Vec<Condition>,
    /// Nodes that the class selects and that have enough devices for a server. Absent with `deviceRequest`: only the scheduler knows
    /// which devices meet its selectors.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nodes: Option<i32>,
    /// Devices that these nodes offer to pods, whoever uses them. Absent without `resource`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub allocatable: Option<i64>,
    /// Devices that servers of ModelServices hold. Other pods are not counted: there may be fewer free ones than
    /// `allocatable` less `inUse`. Absent without `resource` and `deviceRequest`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub in_use: Option<i64>,
}
