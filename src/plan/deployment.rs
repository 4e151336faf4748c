//! A revision's Deployment. Its pod template is made once and frozen in an annotation. Pure.

use super::{Brings, meta, template};
use crate::{
    crd::{
        CLASS_ANNOTATION, REVISION_LABEL, REVISION_NUMBER_ANNOTATION, RUNTIME_VERSION_ANNOTATION,
        TEMPLATE_ANNOTATION,
    },
    observe::Observed,
    revision::{frozen_template, number, revision_of},
    validate::ValidatedService,
};
use k8s_openapi::{
    api::{
        apps::v1::{Deployment, DeploymentSpec, DeploymentStrategy, RollingUpdateDeployment},
        core::v1::PodTemplateSpec,
    },
    apimachinery::pkg::{apis::meta::v1::LabelSelector, util::intstr::IntOrString},
};
use kube::ResourceExt as _;
use std::collections::BTreeMap;

/// The Deployment of the revision that the spec asks for.
pub(super) fn target(service: &ValidatedService, observed: &Observed, brings: &Brings) -> Deployment {
    if let Some(live) = observed.deployment(&service.revision) {
        return existing(service, live);
    }
    // `validate` lets nothing pass that has neither a Deployment nor a class.
    let class = service
        .class
        .as_deref()
        .cloned()
        .unwrap_or_else(|| crate::crd::AcceleratorClass::new("", Default::default()));
    let template = template::template(service, &class, brings);
    let number = observed.deployments.iter().map(|d| number(d)).max().unwrap_or(0) + 1;
    let annotations = [
        (
            TEMPLATE_ANNOTATION,
            serde_json::to_value(&template)
                .map(|value| value.to_string())
                .unwrap_or_default(),
        ),
        (REVISION_NUMBER_ANNOTATION, number.to_string()),
        (CLASS_ANNOTATION, class.name_any()),
        (RUNTIME_VERSION_ANNOTATION, brings.runtime_version.clone()),
    ]
    .map(|(key, value)| (key.to_owned(), value))
    .into();
    deployment(service, &service.revision, annotations, template)
}

/// The Deployment of a revision that exists, its template as it was frozen.
pub(super) fn existing(service: &ValidatedService, live: &Deployment) -> Deployment {
    let revision = revision_of(live).unwrap_or_default();
    let template = frozen_template(live);
    let mut annotations: BTreeMap<String, String> = [
        CLASS_ANNOTATION,
        REVISION_NUMBER_ANNOTATION,
        RUNTIME_VERSION_ANNOTATION,
    ]
    .into_iter()
    .filter_map(|key| Some((key.to_owned(), live.annotations().get(key)?.clone())))
    .collect();
    let frozen = live.annotations().get(TEMPLATE_ANNOTATION).cloned();
    let frozen = frozen.or_else(|| {
        serde_json::to_value(&template)
            .ok()
            .map(|value| value.to_string())
    });
    annotations.extend(frozen.map(|frozen| (TEMPLATE_ANNOTATION.to_owned(), frozen)));
    deployment(service, revision, annotations, template)
}

fn deployment(
    service: &ValidatedService,
    revision: &str,
    annotations: BTreeMap<String, String>,
    template: PodTemplateSpec,
) -> Deployment {
    let mut metadata = meta::meta(service, meta::deployment_name(service, revision));
    metadata.annotations = Some(annotations);
    metadata
        .labels
        .get_or_insert_default()
        .insert(REVISION_LABEL.to_owned(), revision.to_owned());
    Deployment {
        metadata,
        spec: DeploymentSpec {
            selector: LabelSelector {
                match_labels: Some(meta::revision_selector(service, revision)),
                ..LabelSelector::default()
            },
            template,
            progress_deadline_seconds: Some(service.spec().rollout.progress_deadline_seconds),
            // The template never changes: there is no history worth keeping.
            revision_history_limit: Some(0),
            // Only a repaired template ever rolls within a revision.
            strategy: Some(DeploymentStrategy {
                type_: Some("RollingUpdate".into()),
                rolling_update: Some(RollingUpdateDeployment {
                    max_surge: Some(IntOrString::Int(1)),
                    max_unavailable: Some(IntOrString::Int(0)),
                }),
            }),
            ..DeploymentSpec::default()
        },
        status: None,
    }
}
