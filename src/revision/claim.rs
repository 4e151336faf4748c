//! The ResourceClaimTemplate that a revision was created with, frozen in an annotation of its Deployment. Pure.

use super::{hash::canonical_json, shape::first_foreign_field_of_claim};
use crate::crd::CLAIM_ANNOTATION;
use k8s_openapi::api::{
    apps::v1::Deployment,
    core::v1::PodTemplateSpec,
    resource::v1::{ResourceClaimTemplate, ResourceClaimTemplateSpec},
};
use kube::ResourceExt as _;
use serde_json::Value;

/// A claim as its annotation holds it.
#[must_use]
pub fn freeze_claim(claim: &ResourceClaimTemplateSpec) -> String {
    canonical_json(claim)
}

/// What each pod of a revision claims by DRA, if its pod template claims anything. If somebody has removed, broken or
/// changed the annotation, what `live`, the ResourceClaimTemplate that exists, says: it cannot be changed.
///
/// # Errors
/// The path of what is missing, if `live` is missing too or somebody else wrote it.
pub fn frozen_claim(
    deployment: &Deployment,
    template: &PodTemplateSpec,
    live: Option<&ResourceClaimTemplate>,
) -> Result<Option<ResourceClaimTemplateSpec>, String> {
    let pod = template.spec.as_ref();
    if pod.is_none_or(|pod| pod.resource_claims.is_none()) {
        return Ok(None);
    }
    let frozen = deployment.annotations().get(CLAIM_ANNOTATION);
    let frozen = frozen.and_then(|json| serde_json::from_str(json).ok());
    let live = live.and_then(|live| serde_json::to_value(live.spec.as_ref()?).ok());
    let found = frozen.and_then(checked).or_else(|| live.and_then(checked));
    match found {
        Some(claim) => Ok(Some(claim)),
        None => Err(format!("metadata.annotations[{CLAIM_ANNOTATION}]")),
    }
}

/// A claim, if this operator could have written it.
pub(super) fn checked(claim: Value) -> Option<ResourceClaimTemplateSpec> {
    match first_foreign_field_of_claim(&claim) {
        Some(_) => None,
        None => serde_json::from_value(claim).ok(),
    }
}

/// Devices that each pod of a Deployment claims; `None` if it depends on the alternative that the scheduler takes.
#[must_use]
pub fn claimed_devices(deployment: &Deployment) -> Option<i64> {
    let frozen = deployment.annotations().get(CLAIM_ANNOTATION)?;
    let claim: ResourceClaimTemplateSpec = serde_json::from_str(frozen).ok()?;
    let request = claim.spec?.devices?.requests?.into_iter().next()?;
    let alternatives = request.first_available.into_iter().flatten();
    let counts = request.exactly.map(|exactly| exactly.count).into_iter();
    let mut counts = counts.chain(alternatives.map(|alternative| alternative.count));
    let first = counts.next()??;
    counts.all(|count| count == Some(first)).then_some(first)
}
