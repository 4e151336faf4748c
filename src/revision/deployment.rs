//! What a revision's Deployment says about it: its number, its size, and whether it is available. Pure.

use crate::crd::REVISION_NUMBER_ANNOTATION;
use k8s_openapi::api::apps::v1::{Deployment, DeploymentCondition};
use kube::ResourceExt as _;

/// A revision's number; the newest has the largest.
#[must_use]
pub fn number(deployment: &Deployment) -> i64 {
    deployment
        .annotations()
        .get(REVISION_NUMBER_ANNOTATION)
        .and_then(|n| n.parse().ok())
        .unwrap_or(0)
}

/// Servers that a Deployment should have.
#[must_use]
pub fn wanted_replicas(deployment: &Deployment) -> i32 {
    deployment.spec.replicas.unwrap_or(1)
}

/// Whether every server that a Deployment should have is available, with its present spec.
#[must_use]
pub fn is_available(deployment: &Deployment) -> bool {
    let Some(status) = &deployment.status else {
        return false;
    };
    status.observed_generation >= deployment.metadata.generation
        && status.updated_replicas.unwrap_or(0) >= wanted_replicas(deployment)
        && status.available_replicas.unwrap_or(0) >= wanted_replicas(deployment)
}

/// A condition of a Deployment by its type.
#[must_use]
pub fn condition<'a>(deployment: &'a Deployment, type_: &str) -> Option<&'a DeploymentCondition> {
    let conditions = deployment.status.as_ref()?.conditions.as_ref()?;
    conditions
        .iter()
        .find(|condition| condition.type_.as_deref() == Some(type_))
}

/// Why the API server refuses pods of a Deployment, in its words, if it does.
#[must_use]
pub fn refused_pods(deployment: &Deployment) -> Option<&str> {
    let failure = condition(deployment, "ReplicaFailure")?;
    let is_refused = failure.status.as_deref() == Some("True");
    is_refused.then(|| failure.message.as_deref().unwrap_or_default())
}

/// Whether a refusal is due to a ResourceQuota that is used up.
#[must_use]
pub fn exceeds_quota(refusal: &str) -> bool {
    refusal.contains("exceeded quota")
}
