//! Claims: whether pods that get devices by DRA have a claim. Nothing is in a pod's status while the controller manager
//! cannot make one: a quota may be used up, or the ResourceClaimTemplate may be gone. Until then, the scheduler does not
//! look at the pod. Pure.

use super::cause::Cause;
use crate::{
    cache::pod::Pod, crd::CLAIM_ANNOTATION, observe::Observed, reason::Reason, revision::revision_of,
};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::apps::v1::Deployment;
use kube::ResourceExt as _;

/// How soon after a pod its claim is made.
const MADE_WITHIN: SignedDuration = SignedDuration::from_secs(10);

/// Why no node is sought for one of these pods of a Deployment: it has no claim.
pub(super) fn missing(deployment: &Deployment, pods: &[&Pod], now: Timestamp) -> Option<Cause> {
    if !claims(deployment) {
        return None;
    }
    let late = |pod: &&&Pod| patience(pod, now).is_some_and(|left| !left.is_positive());
    pods.iter().find(late)?;
    let (name, revision) = (deployment.name_any(), revision_of(deployment).unwrap_or_default());
    Some(Cause::waiting(
        Reason::ResourceClaimMissing,
        format!(
            "no ResourceClaim was made from ResourceClaimTemplate {name} for the servers' pods, so no node is sought for \
             them; a quota of ResourceClaims or of a DeviceClass may be used up: the events of the pods say why \
             (`kubectl describe pods -l serving.modelservice.dev/revision={revision}`)"
        ),
    ))
}

/// When a claim that does not come is told.
pub(super) fn look_again(observed: &Observed) -> Option<SignedDuration> {
    let claiming = observed
        .deployments
        .iter()
        .filter(|deployment| claims(deployment));
    let pods = claiming
        .filter_map(|deployment| revision_of(deployment.as_ref()))
        .flat_map(|revision| observed.pods_of(revision));
    let left = pods.filter_map(|pod| patience(pod, observed.now));
    left.filter(|left| left.is_positive()).min()
}

fn claims(deployment: &Deployment) -> bool {
    deployment.annotations().contains_key(CLAIM_ANNOTATION)
}

/// How long to wait for the claim of a pod that has none; not positive if it should be there.
fn patience(pod: &Pod, now: Timestamp) -> Option<SignedDuration> {
    if pod.condition("PodScheduled").is_some() || !pod.status.resource_claim_statuses.is_empty() {
        return None;
    }
    let created = pod.metadata.creation_timestamp.as_ref()?.0;
    Some(MADE_WITHIN - now.duration_since(created))
}
