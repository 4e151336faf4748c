//! Retention: what is kept in memory of each kind of child. What nobody reads is dropped when an object arrives;
//! what only serves to compare it with what is wanted is dropped once the two are equal. So a child costs a few
//! kilobytes at most.

use super::pod::{ContainerStatus, Pod};
use crate::crd::{REVISION_LABEL, SERVICE_LABEL};
use k8s_openapi::{
    api::{
        apps::v1::Deployment,
        autoscaling::v2::{HorizontalPodAutoscaler, HorizontalPodAutoscalerSpec},
        core::v1::{PodTemplateSpec, Service, ServiceSpec},
        policy::v1::PodDisruptionBudget,
    },
    apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta},
};

/// How much of a kind of child is kept.
pub trait Retention {
    /// Drops what is never read, and what changes without any meaning to us.
    fn trim(&mut self);

    /// Drops what is only needed to compare the object with what is wanted. Erases specs: see [`crate::cache`].
    fn settle(&mut self);
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
        let selector = self.spec.take().and_then(|spec| spec.selector);
        self.spec = Some(ServiceSpec {
            selector,
            ..ServiceSpec::default()
        });
        settle_labels(&mut self.metadata);
    }
}

impl Retention for HorizontalPodAutoscaler {
    fn trim(&mut self) {
        self.metadata.managed_fields = None;
        self.status = None;
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
        settle_labels(&mut self.metadata);
        self.status
            .conditions
            .retain(|condition| matches!(condition.type_.as_str(), "Ready" | "PodScheduled"));
        keep_unready(&mut self.status.container_statuses);
        keep_unready(&mut self.status.init_container_statuses);
    }

    fn settle(&mut self) {}
}

/// Keeps the server's container and the first others, by name, that are not ready: others may be many, and all of
/// them have something to say only when all of them fail.
fn keep_unready(containers: &mut Vec<ContainerStatus>) {
    const OTHERS: usize = 8;
    containers.retain(|container| container.is_server() || !container.ready);
    containers.sort_by(|a, b| (!a.is_server(), &a.name).cmp(&(!b.is_server(), &b.name)));
    containers.truncate(1 + OTHERS);
}

/// Keeps the labels by which a child is found.
fn settle_labels(metadata: &mut ObjectMeta) {
    if let Some(labels) = &mut metadata.labels {
        labels.retain(|key, _| key == REVISION_LABEL || key == SERVICE_LABEL);
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

    /// Otherwise an injected container hides the server, or thousands of pods with many containers fill the memory.
    #[test]
    fn of_a_pod_the_server_its_owner_and_a_few_containers_that_are_not_ready_stay() {
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
        assert_eq!(kept.len(), 9);
        assert_eq!(names(&pod.status.init_container_statuses), ["hangs"]);
        let owners = pod.metadata.owner_references.unwrap();
        assert_eq!((owners.len(), owners[0].kind.as_str()), (1, "ReplicaSet"));
        assert_eq!(pod.status.reason.as_deref(), Some("Evicted"));
    }
}
