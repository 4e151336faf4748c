//! A revision's Deployment (of one that names several classes, one for each that it tries), and the
//! ResourceClaimTemplate of its name, if its pods get devices by DRA. Both templates are created once and frozen in
//! annotations. Pure.

use super::{claim, meta, meta::DeploymentId, runtime::DefaultRuntime, template};
use crate::{
    crd::{
        AcceleratorClass, CLAIM_ANNOTATION, CLASS_ANNOTATION, FALLBACKS_ANNOTATION, FETCH_CONTAINER,
        LOST_ANNOTATION, PLACED_ANNOTATION, REVISION_NUMBER_ANNOTATION, RUNTIME_VERSION_ANNOTATION,
        TEMPLATE_ANNOTATION,
    },
    observe::Observed,
    revision::{
        Fallback, freeze, freeze_claim, freeze_fallbacks, frozen_claim, frozen_fallbacks, frozen_template,
        number,
    },
    validate::{New, ValidatedService},
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
use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
};

/// What a revision consists of.
pub(super) type Pair = (Deployment, Option<ResourceClaimTemplate>);

/// The Deployment of the revision that the spec asks for and that does not exist yet, for the first of its classes;
/// the templates for the others are frozen with it.
pub(super) fn new(
    service: &ValidatedService,
    revision: &New,
    observed: &Observed,
    runtime: &DefaultRuntime,
) -> Pair {
    let rendered = |class: &Arc<AcceleratorClass>| Fallback {
        class: class.name_any(),
        template: template::template(service, class, &revision.source, runtime),
        claim: claim::claim(service, class),
    };
    let mut rendered: VecDeque<Fallback> = revision.classes.iter().map(rendered).collect();
    // Validation has found at least one.
    let Some(best) = rendered.pop_front() else {
        return Pair::default();
    };
    let number = observed.deployments.iter().map(|d| number(d)).max().unwrap_or(0) + 1;
    let annotations = [
        (REVISION_NUMBER_ANNOTATION, number.to_string()),
        (RUNTIME_VERSION_ANNOTATION, runtime.version.clone()),
    ];
    placed(service, annotations.into(), best, rendered.make_contiguous())
}

/// The Deployment for the class that comes after the one of this placement, with the template that was frozen there.
pub(super) fn next(service: &ValidatedService, after: &Deployment) -> Option<Pair> {
    let mut fallbacks = VecDeque::from(frozen_fallbacks(after).ok()?);
    let next = fallbacks.pop_front()?;
    let kept = [REVISION_NUMBER_ANNOTATION, RUNTIME_VERSION_ANNOTATION];
    let kept = kept
        .into_iter()
        .filter_map(|key| Some((key, after.annotations().get(key)?.clone())));
    Some(placed(service, kept.collect(), next, fallbacks.make_contiguous()))
}

/// A new Deployment of the revision that the spec asks for.
fn placed(
    service: &ValidatedService,
    annotations: BTreeMap<&str, String>,
    on: Fallback,
    fallbacks: &[Fallback],
) -> Pair {
    let Fallback {
        class,
        template,
        claim,
    } = on;
    let id = DeploymentId::of_target(service, &class);
    let mut annotations = owned(annotations);
    annotations.insert(CLASS_ANNOTATION.to_owned(), class.clone());
    let fallbacks = freeze_fallbacks(fallbacks);
    annotations.extend(fallbacks.map(|frozen| (FALLBACKS_ANNOTATION.to_owned(), frozen)));
    pair(service, id, annotations, template, claim)
}

/// The Deployment of a revision that exists, with its frozen template.
pub(super) fn existing(service: &ValidatedService, live: &Deployment, observed: &Observed) -> Pair {
    // Validation has checked that there is one.
    let template = frozen_template(live).unwrap_or_default();
    let claim = frozen_claim(live, &template, observed.claim_template(&live.name_any())).unwrap_or_default();
    let kept = [
        CLASS_ANNOTATION,
        FALLBACKS_ANNOTATION,
        LOST_ANNOTATION,
        PLACED_ANNOTATION,
        REVISION_NUMBER_ANNOTATION,
        RUNTIME_VERSION_ANNOTATION,
    ];
    let kept = kept
        .into_iter()
        .filter_map(|key| Some((key, live.annotations().get(key)?.clone())));
    pair(
        service,
        DeploymentId::of(live),
        owned(kept.collect()),
        template,
        claim,
    )
}

fn owned(annotations: BTreeMap<&str, String>) -> BTreeMap<String, String> {
    let annotations = annotations.into_iter();
    annotations.map(|(key, value)| (key.to_owned(), value)).collect()
}

fn pair(
    service: &ValidatedService,
    id: DeploymentId<'_>,
    mut annotations: BTreeMap<String, String>,
    template: PodTemplateSpec,
    claim: Option<ResourceClaimTemplateSpec>,
) -> Pair {
    annotations.insert(TEMPLATE_ANNOTATION.to_owned(), freeze(&template));
    annotations.extend(
        claim
            .as_ref()
            .map(|claim| (CLAIM_ANNOTATION.to_owned(), freeze_claim(claim))),
    );
    let deployment = deployment(service, id, annotations, template);
    (deployment, claim.map(|claim| claim::template(service, id, claim)))
}

fn deployment(
    service: &ValidatedService,
    id: DeploymentId<'_>,
    annotations: BTreeMap<String, String>,
    template: PodTemplateSpec,
) -> Deployment {
    let mut metadata = meta::meta(service, id.name(service));
    metadata.annotations = Some(annotations);
    metadata.labels.get_or_insert_default().extend(id.labels());
    Deployment {
        metadata,
        spec: DeploymentSpec {
            selector: LabelSelector {
                match_labels: Some(id.selector(service)),
                ..LabelSelector::default()
            },
            progress_deadline_seconds: Some(progress_deadline(service, &template)),
            template,
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

/// A server may take longer to make progress if it first fetches its model.
fn progress_deadline(service: &ValidatedService, template: &PodTemplateSpec) -> i32 {
    let rollout = &service.spec().rollout;
    let pod = template.spec.as_ref();
    let mut before = pod.iter().flat_map(|pod| pod.init_containers.iter().flatten());
    let fetch = if before.any(|container| container.name == FETCH_CONTAINER) {
        rollout.fetch_deadline_seconds
    } else {
        0
    };
    rollout.progress_deadline_seconds.saturating_add(fetch)
}
