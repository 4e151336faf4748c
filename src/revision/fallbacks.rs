//! The classes that come after the one of a placement, with the pod templates that were frozen when the revision was
//! created. Pure.

use super::{claim, hash::canonical_json, template};
use crate::crd::FALLBACKS_ANNOTATION;
use k8s_openapi::api::{
    apps::v1::Deployment, core::v1::PodTemplateSpec, resource::v1::ResourceClaimTemplateSpec,
};
use kube::ResourceExt as _;
use serde::{Deserialize, Serialize, de::IgnoredAny};
use serde_json::Value;

/// A class that is tried if those before it have no device.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Fallback {
    /// Its name.
    pub class: String,
    /// The pods that run on it.
    pub template: PodTemplateSpec,
    /// What they claim by DRA.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub claim: Option<ResourceClaimTemplateSpec>,
}

/// Fallbacks as the annotation holds them, best first; `None` if there are none.
#[must_use]
pub fn freeze_fallbacks(fallbacks: &[Fallback]) -> Option<String> {
    (!fallbacks.is_empty()).then(|| canonical_json(&fallbacks))
}

/// The fallbacks of a placement, best first. None if somebody has removed the annotation: then its class is kept.
///
/// # Errors
/// What is wrong with the annotation, if this operator would not write it.
pub fn frozen_fallbacks(live: &Deployment) -> Result<Vec<Fallback>, String> {
    let Some(frozen) = live.annotations().get(FALLBACKS_ANNOTATION) else {
        return Ok(Vec::new());
    };
    let written: Vec<Written> = serde_json::from_str(frozen).map_err(|_| path(""))?;
    let numbered = written.into_iter().enumerate();
    numbered.map(|(index, written)| checked(index, written)).collect()
}

/// One of them, as it was written.
#[derive(Deserialize)]
struct Written {
    class: String,
    template: Value,
    #[serde(default)]
    claim: Option<Value>,
}

fn checked(index: usize, written: Written) -> Result<Fallback, String> {
    let Written {
        class,
        template,
        claim,
    } = written;
    let foreign = |field: String| path(&format!("[{index}].template.{field}"));
    let claim = claim.map(|claim| {
        let known = claim::checked(claim);
        known.ok_or_else(|| path(&format!("[{index}].claim")))
    });
    Ok(Fallback {
        class,
        template: template::checked(template).map_err(foreign)?,
        claim: claim.transpose()?,
    })
}

fn path(inner: &str) -> String {
    format!("metadata.annotations[{FALLBACKS_ANNOTATION}]{inner}")
}

/// How many fallbacks a placement has.
#[must_use]
pub fn count_fallbacks(live: &Deployment) -> usize {
    let frozen = live.annotations().get(FALLBACKS_ANNOTATION);
    let all: Option<Vec<IgnoredAny>> = frozen.and_then(|json| serde_json::from_str(json).ok());
    all.map_or(0, |all| all.len())
}
