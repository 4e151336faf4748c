//! A revision's Deployment, and the ResourceClaimTemplate of its name, if its pods get devices by DRA. Both templates are
//! created once and frozen in annotations. Pure.

use super::{
    claim, meta,
    template::{self, DefaultRuntime},
};
use crate::{
    crd::{
        AcceleratorClass, CLAIM_ANNOTATION, CLASS_ANNOTATION, REVISION_LABEL, REVISION_NUMBER_ANNOTATION,
        RUNTIME_VERSION_ANNOTATION, TEMPLATE_ANNOTATION,
    },
    observe::Observed,
    revision::{freeze, freeze_claim, frozen_claim, frozen_template, number, revision_of},
    validate::ValidatedService,
};
use k8s_openapi::{
    api::{
        apps::v1::{Deployment, DeploymentSpec, DeploymentStrategy, RollingUpdateDeployment},
        core::v1::PodTemplateSpec,
        resource::v1::{ResourceClaimTemplate, ResourceClaimTemplateSpec},
    },
    apimachinery::pkg::{apis::meta::v1::LabelSelector, util::intstr::IntOrString},
};
use kube::ResourceExt as _;
use std::collections::BTreeMap;

/// What a revision consists of.
pub(super) type Pair = (Deployment, Option<ResourceClaimTemplate>);

/// The Deployment of the revision that the spec asks for and that does not exist yet.
pub(super) fn new(
    service: &ValidatedService,
    class: &AcceleratorClass,
    observed: &Observed,
    runtime: &DefaultRuntime,
) -> Pair {
    let template = template::template(service, class, runtime);
    let number = observed.deployments.iter().map(|d| number(d)).max().unwrap_or(0) + 1;
    let annotations = [
        (TEMPLATE_ANNOTATION, freeze(&template)),
        (REVISION_NUMBER_ANNOTATION, number.to_string()),
        (CLASS_ANNOTATION, class.name_any()),
        (RUNTIME_VERSION_ANNOTATION, runtime.version.clone()),
    ]
    .map(|(key, value)| (key.to_owned(), value))
    .into();
    let claim = claim::claim(service, class);
    pair(service, &service.revision, annotations, template, claim)
}

/// The Deployment of a revision that exists, with its frozen template.
pub(super) fn existing(service: &ValidatedService, live: &Deployment, observed: &Observed) -> Pair {
    let revision = revision_of(live).unwrap_or_default();
    // Validation has checked that there is one.
    let template = frozen_template(live).unwrap_or_default();
    let claim = frozen_claim(live, &template, observed.claim_template(&live.name_any())).unwrap_or_default();
    let mut annotations: BTreeMap<String, String> = [
        CLASS_ANNOTATION,
        REVISION_NUMBER_ANNOTATION,
        RUNTIME_VERSION_ANNOTATION,
    ]
    .into_iter()
    .filter_map(|key| Some((key.to_owned(), live.annotations().get(key)?.clone())))
    .collect();
    annotations.insert(TEMPLATE_ANNOTATION.to_owned(), freeze(&template));
    pair(service, revision, annotations, template, claim)
}

fn pair(
    service: &ValidatedService,
    revision: &str,
    mut annotations: BTreeMap<String, String>,
    template: PodTemplateSpec,
    claim: Option<ResourceClaimTemplateSpec>,
) -> Pair {
    annotations.extend(
        claim
            .as_ref()
            .map(|claim| (CLAIM_ANNOTATION.to_owned(), freeze_claim(claim))),
    );
    let deployment = deployment(service, revision, annotations, template);
    (
        deployment,
        claim.map(|claim| claim::template(service, revision, claim)),
    )
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
            // The template never changes, so there is no history to keep.
            revision_history_limit: Some(0),
            // Within a revision, pods are only replaced if somebody changed the template and we restore it.
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
