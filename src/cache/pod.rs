//! Pods, as far as a service's status depends on them.

use k8s_openapi::{
    Metadata, NamespaceResourceScope, Resource, api::core::v1::ContainerState,
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use serde::{Deserialize, Serialize};

/// The part of a pod that we read.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Pod {
    /// Name, labels and owner.
    #[serde(default)]
    pub metadata: ObjectMeta,
    /// Where it is and how it is doing.
    #[serde(default)]
    pub status: PodStatus,
}

/// The part of a pod's status that we read.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PodStatus {
    /// Address inside the cluster.
    #[serde(rename = "podIP")]
    pub pod_ip: Option<String>,
    /// PodScheduled and Ready.
    pub conditions: Vec<PodCondition>,
    /// The server's container.
    pub container_statuses: Vec<ContainerStatus>,
}

/// A condition of a pod.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct PodCondition {
    /// Its type.
    #[serde(rename = "type")]
    pub type_: String,
    /// True, False or Unknown.
    pub status: String,
    /// For people.
    pub message: Option<String>,
}

/// How a container is doing.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ContainerStatus {
    /// Waiting, running or terminated.
    pub state: Option<Box<ContainerState>>,
    /// How it ended last time.
    pub last_state: Option<Box<ContainerState>>,
}

impl Pod {
    /// Whether the kubelet says that the pod is ready.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.condition("Ready")
            .is_some_and(|condition| condition.status == "True")
    }

    /// A condition by its type.
    #[must_use]
    pub fn condition(&self, type_: &str) -> Option<&PodCondition> {
        self.status
            .conditions
            .iter()
            .find(|condition| condition.type_ == type_)
    }
}

impl Resource for Pod {
    type Scope = NamespaceResourceScope;
    const API_VERSION: &'static str = "v1";
    const GROUP: &'static str = "";
    const KIND: &'static str = "Pod";
    const URL_PATH_SEGMENT: &'static str = "pods";
    const VERSION: &'static str = "v1";
}

impl Metadata for Pod {
    type Ty = ObjectMeta;

    fn metadata(&self) -> &ObjectMeta {
        &self.metadata
    }

    fn metadata_mut(&mut self) -> &mut ObjectMeta {
        &mut self.metadata
    }
}
