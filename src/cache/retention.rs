//! Kept: what the operator keeps in memory of each kind of child. A child costs some kilobytes at most: what
//! nobody reads is dropped when it arrives, and what was found to be as wanted is dropped then.

use crate::crd::{REVISION_LABEL, SERVICE_LABEL};
use k8s_openapi::{
    Metadata, NamespaceResourceScope, Resource,
    api::{
        apps::v1::Deployment,
        autoscaling::v2::{HorizontalPodAutoscaler, HorizontalPodAutoscalerSpec},
        core::v1::{ContainerState, PodTemplateSpec, Service, ServiceSpec},
        policy::v1::PodDisruptionBudget,
    },
    apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta},
};
use serde::{Deserialize, Serialize};

/// A kind of child that is kept.
pub trait Kept {
    /// Drops what is never read, and what changes without meaning anything to us.
    fn arrive(&mut self);

    /// Drops what is only needed to compare it with what is wanted.
    fn settle(&mut self);
}

impl Kept for Deployment {
    fn arrive(&mut self) {
        self.metadata.managed_fields = None;
        for condition in self
            .status
            .iter_mut()
            .flat_map(|status| status.conditions.iter_mut().flatten())
        {
            condition.last_transition_time = None;
            condition.last_update_time = None;
        }
    }

    fn settle(&mut self) {
        self.spec.template = PodTemplateSpec::default();
        self.spec.selector = LabelSelector::default();
        self.spec.strategy = None;
        settle_labels(&mut self.metadata);
    }
}

impl Kept for Service {
    fn arrive(&mut self) {
        self.metadata.managed_fields = None;
        self.status = None;
    }

    fn settle(&mut self) {
        let selector = self.spec.take().and_then(|spec| spec.selector);
        self.spec = Some(ServiceSpec {
            selector,
            ..ServiceSpec::default()
        });
        settle_labels(&mut self.metadata);
    }
}

impl Kept for HorizontalPodAutoscaler {
    fn arrive(&mut self) {
        self.metadata.managed_fields = None;
        self.status = None;
    }

    fn settle(&mut self) {
        self.spec = HorizontalPodAutoscalerSpec::default();
        settle_labels(&mut self.metadata);
    }
}

impl Kept for PodDisruptionBudget {
    fn arrive(&mut self) {
        self.metadata.managed_fields = None;
        self.status = None;
    }

    fn settle(&mut self) {
        self.spec = None;
        settle_labels(&mut self.metadata);
    }
}

impl Kept for Pod {
    fn arrive(&mut self) {
        let metadata = std::mem::take(&mut self.metadata);
        self.metadata = ObjectMeta {
            name: metadata.name,
            namespace: metadata.namespace,
            uid: metadata.uid,
            labels: metadata.labels,
            resource_version: metadata.resource_version,
            deletion_timestamp: metadata.deletion_timestamp,
            ..ObjectMeta::default()
        };
        settle_labels(&mut self.metadata);
        self.status
            .conditions
            .retain(|condition| matches!(condition.type_.as_str(), "Ready" | "PodScheduled"));
        self.status.container_statuses.truncate(1);
    }

    fn settle(&mut self) {}
}

/// Keeps those by which a child is found.
fn settle_labels(metadata: &mut ObjectMeta) {
    if let Some(labels) = &mut metadata.labels {
        labels.retain(|key, _| key == REVISION_LABEL || key == SERVICE_LABEL);
    }
}

/// A pod as far as its status matters to us.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Pod {
    /// Name, labels and owner.
    #[serde(default)]
    pub metadata: ObjectMeta,
    /// Where it is and how it fares.
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
    /// PodScheduled, Ready and others.
    pub conditions: Vec<PodCondition>,
    /// Of the server's container.
    pub container_statuses: Vec<ContainerStatus>,
}

/// A condition of a pod.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct PodCondition {
    /// What it is about.
    #[serde(rename = "type")]
    pub type_: String,
    /// True, False or Unknown.
    pub status: String,
    /// For a person.
    pub message: Option<String>,
}

/// How a container fares.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ContainerStatus {
    /// How often it was started again.
    pub restart_count: i32,
    /// Waiting, running or terminated.
    pub state: Option<Box<ContainerState>>,
    /// How it ended the last time.
    pub last_state: Option<Box<ContainerState>>,
}

impl Pod {
    /// Whether the kubelet calls the pod ready.
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
