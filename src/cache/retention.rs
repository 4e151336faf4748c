//! Retention: what is kept in memory of each kind of child. What nobody reads is dropped when an object arrives;
//! what only serves to compare it with what is wanted is dropped once the two are equal. So a child costs a few
//! kilobytes at most.

use super::pod::Pod;
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

/// Keeps the labels by which a child is found.
fn settle_labels(metadata: &mut ObjectMeta) {
    if let Some(labels) = &mut metadata.labels {
        labels.retain(|key, _| key == REVISION_LABEL || key == SERVICE_LABEL);
    }
}
