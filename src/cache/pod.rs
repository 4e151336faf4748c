//! The parts of pods that a service's status depends on.

use crate::crd::{FETCH_CONTAINER, SERVER_CONTAINER};
use jiff::Timestamp;
use k8s_openapi::{
    Metadata, NamespaceResourceScope, Resource,
    api::core::v1::{ContainerState, PodResourceClaimStatus},
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use serde::{Deserialize, Serialize};

/// The part of a pod that we read.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Pod {
    /// Name, labels and owner.
    #[serde(default)]
    pub metadata: ObjectMeta,
    /// Its status.
    #[serde(default)]
    pub status: PodStatus,
    /// When pulling an image was first seen to fail, if the operator saw it begin: the kubelet does not say.
    #[serde(skip)]
    pub pull_fails_since: Option<Timestamp>,
}

/// The part of a pod's status that we read.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PodStatus {
    /// Pending, Running, Succeeded, Failed or Unknown.
    pub phase: Option<String>,
    /// Why the pod failed as a whole, such as Evicted.
    pub reason: Option<String>,
    /// A message for people.
    pub message: Option<String>,
    /// Address inside the cluster.
    #[serde(rename = "podIP")]
    pub pod_ip: Option<String>,
    /// PodScheduled and Ready.
    pub conditions: Vec<PodCondition>,
    /// The server's container, and others that are not ready, by name.
    pub container_statuses: Vec<ContainerStatus>,
    /// Init containers that have not finished, or are not ready if they keep running: the one that fetches or verifies
    /// the model, and injected ones.
    pub init_container_statuses: Vec<ContainerStatus>,
    /// The claim of devices that was made for the pod, if the pod gets devices by DRA.
    pub resource_claim_statuses: Vec<PodResourceClaimStatus>,
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
    /// Why, such as ReadinessGatesNotReady.
    pub reason: Option<String>,
    /// For people.
    pub message: Option<String>,
}

/// The status of a container.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ContainerStatus {
    /// Its name in the pod.
    pub name: String,
    /// Whether it is ready; for an init container, also whether it has finished.
    pub ready: bool,
    /// Whether its startup probe has passed, if it has one.
    pub started: Option<bool>,
    /// Waiting, running or terminated.
    pub state: Option<Box<ContainerState>>,
    /// How often it was restarted.
    pub restart_count: i32,
    /// Devices of it that their plug-in or driver reports as unhealthy.
    pub allocated_resources_status: Vec<ResourceStatus>,
    /// How it terminated last time.
    pub last_state: Option<Box<ContainerState>>,
}

/// Devices of one kind that a container has.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ResourceStatus {
    /// An extended resource, or a claim.
    pub name: String,
    /// The devices.
    pub resources: Vec<ResourceHealth>,
}

/// The health of one device.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ResourceHealth {
    /// Healthy, Unhealthy or Unknown.
    pub health: String,
}

impl ResourceStatus {
    /// Whether one of the devices is unhealthy.
    #[must_use]
    pub fn is_unhealthy(&self) -> bool {
        self.resources.iter().any(|device| device.health == "Unhealthy")
    }
}

impl Pod {
    /// Whether the kubelet says that the pod is ready.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.condition("Ready")
            .is_some_and(|condition| condition.status == "True")
    }

    /// Whether it is on a node.
    #[must_use]
    pub fn is_scheduled(&self) -> bool {
        self.condition("PodScheduled")
            .is_some_and(|condition| condition.status == "True")
    }

    /// Why no node takes it, in the scheduler's words, if none does.
    #[must_use]
    pub fn unschedulable(&self) -> Option<&str> {
        let scheduled = self.condition("PodScheduled")?;
        (scheduled.status == "False").then(|| scheduled.message.as_deref().unwrap_or("no node fits"))
    }

    /// Whether it has ended for good, and stays only for inspection.
    #[must_use]
    pub fn is_terminal(&self) -> bool {
        matches!(self.status.phase.as_deref(), Some("Succeeded" | "Failed"))
    }

    /// Whether it failed as a whole: evicted, preempted, rejected by its node.
    #[must_use]
    pub fn has_failed(&self) -> bool {
        self.status.phase.as_deref() == Some("Failed")
    }

    /// Whether an image of one of its containers cannot be pulled, and the kubelet tries again.
    #[must_use]
    pub fn fails_to_pull(&self) -> bool {
        let containers = self.status.container_statuses.iter();
        let all = containers.chain(&self.status.init_container_statuses);
        all.filter_map(ContainerStatus::waits_for)
            .any(|reason| PULLED_AGAIN.contains(&reason))
    }

    /// Whether it has not got its model yet, which an init container fetches.
    #[must_use]
    pub fn is_fetching(&self) -> bool {
        let mut before = self.status.init_container_statuses.iter();
        before.any(|container| container.name == FETCH_CONTAINER && !container.ready)
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

/// Waiting reasons of a container whose image the kubelet tries to pull again.
pub const PULLED_AGAIN: &[&str] = &[
    "ErrImagePull",
    "ImagePullBackOff",
    "RegistryUnavailable",
    "ImageInspectError",
];

impl ContainerStatus {
    /// The reason why it is waiting.
    #[must_use]
    pub fn waits_for(&self) -> Option<&str> {
        self.state.as_ref()?.waiting.as_ref()?.reason.as_deref()
    }

    /// The resource of which it has an unhealthy device, if it does.
    #[must_use]
    pub fn unhealthy_resource(&self) -> Option<&str> {
        let mut all = self.allocated_resources_status.iter();
        all.find(|resource| resource.is_unhealthy())
            .map(|resource| resource.name.as_str())
    }

    /// Whether it is the inference server.
    #[must_use]
    pub fn is_server(&self) -> bool {
        self.name == SERVER_CONTAINER
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
