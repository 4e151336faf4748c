//! The parts of nodes and DeviceClasses that are kept: there may be thousands of nodes, each with a long status.

use k8s_openapi::{
    ClusterResourceScope, Metadata, Resource,
    apimachinery::pkg::{api::resource::Quantity, apis::meta::v1::ObjectMeta},
};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// The part of a node that we read.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Node {
    /// Name and labels.
    #[serde(default)]
    pub(super) metadata: ObjectMeta,
    /// What it offers.
    #[serde(default)]
    pub(super) status: NodeStatus,
}

/// The part of a node's status that we read.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct NodeStatus {
    /// What pods may request of it: of extended resources.
    pub(super) allocatable: BTreeMap<String, Quantity>,
}

impl Node {
    /// Drops everything else.
    pub(super) fn trim(&mut self) {
        keep_identity(&mut self.metadata);
        self.status.allocatable.retain(|name, _| name.contains('/'));
    }
}

/// The part of a DeviceClass that we read.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct DeviceClass {
    /// Its name.
    #[serde(default)]
    pub(super) metadata: ObjectMeta,
    /// What it offers.
    #[serde(default)]
    pub(super) spec: DeviceClassSpec,
}

/// The part of a DeviceClass's spec that we read.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct DeviceClassSpec {
    /// The extended resource as which pods may request its devices too.
    pub(super) extended_resource_name: Option<String>,
}

impl DeviceClass {
    /// Drops everything else.
    pub(super) fn trim(&mut self) {
        keep_identity(&mut self.metadata);
    }
}

fn keep_identity(metadata: &mut ObjectMeta) {
    let all = std::mem::take(metadata);
    *metadata = ObjectMeta {
        name: all.name,
        labels: all.labels,
        resource_version: all.resource_version,
        ..ObjectMeta::default()
    };
}

impl Resource for Node {
    type Scope = ClusterResourceScope;
    const API_VERSION: &'static str = "v1";
    const GROUP: &'static str = "";
    const KIND: &'static str = "Node";
    const URL_PATH_SEGMENT: &'static str = "nodes";
    const VERSION: &'static str = "v1";
}

impl Metadata for Node {
    type Ty = ObjectMeta;

    fn metadata(&self) -> &ObjectMeta {
        &self.metadata
    }

    fn metadata_mut(&mut self) -> &mut ObjectMeta {
        &mut self.metadata
    }
}

impl Resource for DeviceClass {
    type Scope = ClusterResourceScope;
    const API_VERSION: &'static str = "resource.k8s.io/v1";
    const GROUP: &'static str = "resource.k8s.io";
    const KIND: &'static str = "DeviceClass";
    const URL_PATH_SEGMENT: &'static str = "deviceclasses";
    const VERSION: &'static str = "v1";
}

impl Metadata for DeviceClass {
    type Ty = ObjectMeta;

    fn metadata(&self) -> &ObjectMeta {
        &self.metadata
    }

    fn metadata_mut(&mut self) -> &mut ObjectMeta {
        &mut self.metadata
    }
}
