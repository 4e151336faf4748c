//! Retention: which parts of each kind of child are kept in memory. Parts that nobody reads are dropped when an
//! object arrives; parts that are only compared with the wanted object are dropped once the two match. So a child
//! takes a few kilobytes at most.

use super::pod::{ContainerStatus, Pod, ResourceStatus};
use crate::crd::{DEVICE_CLAIM, PLACEMENT_LABEL, REVISION_LABEL, SERVICE_LABEL};
use jiff::Timestamp;
use k8s_openapi::{
    api::{
        apps::v1::Deployment,
        autoscaling::v2::{
            HorizontalPodAutoscaler, HorizontalPodAutoscalerSpec, HorizontalPodAutoscalerStatus,
        },
        core::v1::{PodTemplateSpec, Service, ServiceSpec},
        policy::v1::PodDisruptionBudget,
        resource::v1::ResourceClaimTemplate,
    },
    apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta},
};
use kube::Resource;

/// Which parts of a kind of child are kept.
pub trait Retention {
    /// Drops what is never read, and what changes without being relevant.
    fn trim(&mut self);

    /// Drops what is only needed to compare the object with the wanted one. Erases specs: see [`crate::cache`].
    fn settle(&mut self);

    /// Carries over what cannot be seen from a single version of an object.
    fn follow(&mut self, _earlier: &Self, _now: Timestamp) {}
}

/// Drops the managed fields, which nobody reads and which make up most of a small object.
pub fn drop_managed_fields<K: Resource>(object: &mut K) {
    object.meta_mut().managed_fields = None;
}

impl Retention for Deployment {
    fn trim(&mut self) {
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

impl Retention for Service {
    fn trim(&mut self) {
        self.metadata.managed_fields = None;
        self.status = None;
    }

    fn settle(&mut self) {
        let spec = self.spec.take().unwrap_or_default();
        self.spec = Some(ServiceSpec {
            selector: spec.selector,
            // We do not set these, and others may set them so that requests do not arrive.
            type_: spec.type_.filter(|type_| type_ == "ExternalName"),
            cluster_ip: spec.cluster_ip.filter(|address| address == "None"),
            ..ServiceSpec::default()
        });
        settle_labels(&mut self.metadata);
    }
}

impl Retention for HorizontalPodAutoscaler {
    /// Of its status only that it cannot act: the rest changes with the load.
    fn trim(&mut self) {
        self.metadata.managed_fields = None;
        let conditions = self.status.take().and_then(|status| status.conditions);
        let mut failing = conditions.unwrap_or_default();
        failing.retain(|condition| {
            condition.status == "False" && matches!(condition.type_.as_str(), "AbleToScale" | "ScalingActive")
        });
        self.status = (!failing.is_empty()).then(|| HorizontalPodAutoscalerStatus {
            conditions: Some(failing),
            ..HorizontalPodAutoscalerStatus::default()
        });
    }

    fn settle(&mut self) {
        self.spec = HorizontalPodAutoscalerSpec::default();
        settle_labels(&mut self.metadata);
    }
}

impl Retention for PodDisruptionBudget {
    fn trim(&mut self) {
        self.metadata.managed_fields = None;
        self.status = None;
    }

    fn settle(&mut self) {
        self.spec = None;
        settle_labels(&mut self.metadata);
    }
}

impl Retention for ResourceClaimTemplate {
    fn trim(&mut self) {
        self.metadata.managed_fields = None;
    }

    /// Its spec stays: it cannot be changed, and replaces a frozen copy that somebody has removed.
    fn settle(&mut self) {
        settle_labels(&mut self.metadata);
    }
}

impl Retention for Pod {
    fn trim(&mut self) {
        let metadata = std::mem::take(&mut self.metadata);
        self.metadata = ObjectMeta {
            name: metadata.name,
            namespace: metadata.namespace,
            uid: metadata.uid,
            labels: metadata.labels,
            resource_version: metadata.resource_version,
            creation_timestamp: metadata.creation_timestamp,
            deletion_timestamp: metadata.deletion_timestamp,
            owner_references: metadata.owner_references.map(|mut owners| {
                owners.retain(|owner| owner.controller == Some(true));
                owners
            }),
            ..ObjectMeta::default()
        };
        if let Some(labels) = &mut self.metadata.labels {
            // Every pod of a service has the same; others may be selected by somebody who changes the Service.
            labels.retain(|key, _| !key.starts_with("app.kubernetes.io/"));
        }
        self.status
            .conditions
            .retain(|condition| matches!(condition.type_.as_str(), "Ready" | "PodScheduled"));
        self.status
            .resource_claim_statuses
            .retain(|claim| claim.name == DEVICE_CLAIM);
        keep_unready(&mut self.status.container_statuses);
        keep_unready(&mut self.status.init_container_statuses);
    }

    fn settle(&mut self) {}

    /// Between two attempts to pull an image, the kubelet may report that it is creating the container: only a ready
    /// pod certainly has its images.
    fn follow(&mut self, earlier: &Self, now: Timestamp) {
        let begins = self.fails_to_pull() && !earlier.fails_to_pull();
        self.pull_fails_since = earlier
            .pull_fails_since
            .or_else(|| begins.then_some(now))
            .filter(|_| !self.is_ready());
    }
}

/// Keeps the server's container and those that are not ready.
fn keep_unready(containers: &mut Vec<ContainerStatus>) {
    containers.retain(|container| container.is_server() || !container.ready);
    for container in containers.iter_mut() {
        container
            .allocated_resources_status
            .retain(ResourceStatus::is_unhealthy);
    }
    containers.sort_by(|a, b| (!a.is_server(), &a.name).cmp(&(!b.is_server(), &b.name)));
}

/// Keeps only the labels that identify a child.
fn settle_labels(metadata: &mut ObjectMeta) {
    if let Some(labels) = &mut metadata.labels {
        labels.retain(|key, _| [REVISION_LABEL, SERVICE_LABEL, PLACEMENT_LABEL].contains(&key.as_str()));
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use serde_json::{Value, json};

    fn trimmed(containers: Value, inits: Value) -> Pod {
        let pod = json!({"metadata": {"ownerReferences": [
                {"apiVersion": "v1", "kind": "Other", "name": "x", "uid": "x"},
                {"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "photos-aa-bb", "uid": "y", "controller": true}]},
            "status": {"phase": "Failed", "reason": "Evicted", "message": "low on memory",
                "containerStatuses": containers, "initContainerStatuses": inits}});
        let mut pod: Pod = serde_json::from_value(pod).unwrap();
        pod.trim();
        pod
    }

    fn names(containers: &[ContainerStatus]) -> Vec<&str> {
        containers
            .iter()
            .map(|container| container.name.as_str())
            .collect()
    }

    /// Otherwise an injected container hides the server, or containers that are never reported fill the memory.
    #[test]
    fn of_a_pod_the_server_its_owner_and_the_containers_that_are_not_ready_stay() {
        let container = |name: &str, ready: bool| json!({"name": name, "ready": ready, "restartCount": 3});
        let mut all: Vec<Value> = (0..30)
            .map(|n| container(&format!("proxy-{n:02}"), n % 2 == 0))
            .collect();
        all.push(container("server", true));
        let pod = trimmed(
            json!(all),
            json!([container("done", true), container("hangs", false)]),
        );
        let kept = names(&pod.status.container_statuses);
        assert_eq!(kept[..3], ["server", "proxy-01", "proxy-03"]);
        assert_eq!(kept.len(), 1 + 15);
        assert_eq!(names(&pod.status.init_container_statuses), ["hangs"]);
        let owners = pod.metadata.owner_references.unwrap();
        assert_eq!((owners.len(), owners[0].kind.as_str()), (1, "ReplicaSet"));
        assert_eq!(pod.status.reason.as_deref(), Some("Evicted"));
    }

    /// Pulls of images of several gigabytes fail late for the first time, and the kubelet tries again anyway.
    #[test]
    fn a_pull_fails_since_it_was_first_seen_to_fail() {
        let at = |seconds| Timestamp::from_second(seconds).unwrap();
        let pod = |state: Value| trimmed(json!([{"name": "server", "state": state}]), json!([]));
        let waiting = |reason: &str| pod(json!({"waiting": {"reason": reason}}));
        let mut first = waiting("ErrImagePull");
        first.follow(&waiting("ContainerCreating"), at(300));
        assert_eq!(first.pull_fails_since, Some(at(300)));
        let mut between = waiting("ContainerCreating");
        between.follow(&first, at(310));
        let mut again = waiting("ImagePullBackOff");
        again.follow(&between, at(320));
        assert_eq!(again.pull_fails_since, Some(at(300)));

        let mut pulled = pod(json!({"running": {}}));
        pulled.status.conditions =
            serde_json::from_value(json!([{"type": "Ready", "status": "True"}])).unwrap();
        pulled.follow(&again, at(330));
        assert_eq!(pulled.pull_fails_since, None);
        let mut unseen = waiting("ImagePullBackOff");
        unseen.follow(&waiting("ErrImagePull"), at(300));
        assert_eq!(
            unseen.pull_fails_since, None,
            "it failed before this operator looked"
        );
    }
}
