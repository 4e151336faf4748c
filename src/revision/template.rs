//! The pod template that a revision was created with, frozen in an annotation of its Deployment. Pure.

use super::{hash::canonical_json, shape::first_foreign_field, source::FrozenSource};
use crate::crd::TEMPLATE_ANNOTATION;
use k8s_openapi::api::{
    apps::v1::Deployment,
    core::v1::{ImageVolumeSource, PodTemplateSpec},
};
use kube::ResourceExt as _;
use serde::Deserialize;
use serde_json::Value;
use std::collections::BTreeMap;

/// A template as its annotation holds it.
#[must_use]
pub fn freeze(template: &PodTemplateSpec) -> String {
    canonical_json(template)
}

/// The original template. If somebody has removed, broken or changed the annotation, the live template.
///
/// # Errors
/// The path of a field that this operator would not write, if the live template was changed too.
pub fn frozen_template(live: &Deployment) -> Result<PodTemplateSpec, String> {
    let frozen = live.annotations().get(TEMPLATE_ANNOTATION);
    let frozen = frozen.and_then(|json| serde_json::from_str(json).ok());
    if let Some(template) = frozen.and_then(|template| checked(template).ok()) {
        return Ok(template);
    }
    // Serialising it cannot fail.
    checked(serde_json::to_value(&live.spec.template).unwrap_or_default())
}

/// Labels that a revision's pods are made with.
#[must_use]
pub fn pod_labels(live: &Deployment) -> BTreeMap<String, String> {
    let template = frozen_template(live).unwrap_or_default();
    let metadata = template.metadata.unwrap_or_default();
    metadata.labels.unwrap_or_default()
}

/// A template, if this operator could have written it.
///
/// # Errors
/// The path of a field that it would not write.
pub(super) fn checked(template: Value) -> Result<PodTemplateSpec, String> {
    match first_foreign_field(&template) {
        Some(path) => Err(path),
        None => serde_json::from_value(template).map_err(|error| error.to_string()),
    }
}

/// Images of a revision, read from its frozen template: the live one may have been dropped, see [`crate::cache`].
#[derive(Debug, Default, PartialEq)]
pub struct Images {
    /// Image of the inference server.
    pub runtime: String,
    /// Image of the model package, if it is mounted.
    pub model: Option<String>,
    /// Where its model comes from.
    pub source: Option<FrozenSource>,
}

impl Images {
    /// The images of this Deployment's revision.
    #[must_use]
    pub fn of(live: &Deployment) -> Self {
        #[derive(Default, Deserialize)]
        #[serde(default)]
        struct Template {
            spec: Pod,
        }
        #[derive(Default, Deserialize)]
        #[serde(default)]
        struct Pod {
            containers: Vec<Container>,
            volumes: Vec<Volume>,
        }
        #[derive(Deserialize)]
        struct Container {
            image: Option<String>,
        }
        #[derive(Deserialize)]
        struct Volume {
            image: Option<ImageVolumeSource>,
        }
        let frozen = live.annotations().get(TEMPLATE_ANNOTATION);
        let Template { spec } = frozen
            .and_then(|json| serde_json::from_str(json).ok())
            .unwrap_or_default();
        Self {
            source: FrozenSource::of(live),
            runtime: spec
                .containers
                .into_iter()
                .find_map(|container| container.image)
                .unwrap_or_default(),
            model: spec
                .volumes
                .into_iter()
                .find_map(|volume| volume.image?.reference),
        }
    }
}
