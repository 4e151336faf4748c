//! Which service and which revision a child belongs to. Pure.

use crate::crd::{ModelService, PLACEMENT_LABEL, REVISION_LABEL, ROLLING_ANNOTATION};
use k8s_openapi::api::core::v1::Service;
use kube::{Resource, ResourceExt as _};

/// Whether a child belongs to this object, and not to a deleted one of the same name.
#[must_use]
pub fn is_ours<K: Resource>(child: &K, service: &ModelService) -> bool {
    let uid = service.metadata.uid.as_deref();
    child
        .meta()
        .owner_references
        .iter()
        .flatten()
        .any(|owner| owner.controller == Some(true) && Some(owner.uid.as_str()) == uid)
}

/// The revision that a child belongs to.
pub fn revision_of<K: Resource>(child: &K) -> Option<&str> {
    child.labels().get(REVISION_LABEL).map(String::as_str)
}

/// The class that a child is for, if its revision names several.
pub fn placement_of<K: Resource>(child: &K) -> Option<&str> {
    child.labels().get(PLACEMENT_LABEL).map(String::as_str)
}

/// Whether a pod belongs to a ReplicaSet of this Deployment, whose name is the Deployment's and a hash.
pub fn is_made_by<K: Resource>(pod: &K, deployment: &str) -> bool {
    pod.meta().owner_references.iter().flatten().any(|owner| {
        let hash = owner
            .name
            .strip_prefix(deployment)
            .and_then(|rest| rest.strip_prefix('-'));
        owner.controller == Some(true)
            && owner.kind == "ReplicaSet"
            && hash.is_some_and(|hash| !hash.contains('-'))
    })
}

/// The revision that a Service sends requests to; during a rolling update, the one that is replaced.
pub fn selected_by(endpoint: &Service) -> Option<&str> {
    let selector = endpoint.spec.as_ref()?.selector.as_ref()?;
    let rolling = || endpoint.annotations().get(ROLLING_ANNOTATION)?.split(' ').next();
    selector.get(REVISION_LABEL).map(String::as_str).or_else(rolling)
}
