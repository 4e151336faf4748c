//! Plan: every child of a service as it should be. Pure and total: no client, no clock, no environment.

mod autoscaler;
mod deployment;
mod disruption_budget;
mod endpoint;
mod meta;
pub mod rollout;
mod server_config;
mod template;
mod volumes;

use crate::{
    crd::RUNTIME_VERSION_ANNOTATION,
    observe::Observed,
    revision::{frozen_template, revision_of, wanted_replicas},
    validate::ValidatedService,
};
use k8s_openapi::api::{
    apps::v1::Deployment, autoscaling::v2::HorizontalPodAutoscaler, core::v1::Service,
    policy::v1::PodDisruptionBudget,
};
use kube::ResourceExt as _;
use rollout::{Rollout, Scale};
use std::sync::Arc;

/// What the operator brings to every plan.
#[derive(Clone, Debug)]
pub struct Brings {
    /// Image of the inference server where an AcceleratorClass names none.
    pub runtime_image: String,
    /// Version of the operator and its runtime.
    pub runtime_version: String,
}

/// Every child of one service. `None` is: not wanted.
#[derive(Clone, Debug)]
pub struct Plan {
    /// One Deployment per revision that stays, the target first.
    pub revisions: Vec<PlannedRevision>,
    /// The Service that carries the URL.
    pub endpoint: Service,
    /// The autoscaler.
    pub autoscaler: Option<HorizontalPodAutoscaler>,
    /// The disruption budget.
    pub disruption_budget: Option<PodDisruptionBudget>,
    /// Deployments of revisions beyond the history limit.
    pub retired: Vec<Arc<Deployment>>,
    /// Which revision has the traffic and how large each one is.
    pub rollout: Rollout,
    /// What a new revision would run with, where that differs from the present one.
    pub runtime_update: Option<String>,
}

/// A revision's Deployment.
#[derive(Clone, Debug)]
pub struct PlannedRevision {
    /// Without `spec.replicas`.
    pub deployment: Deployment,
    /// Who owns `spec.replicas`, and how many.
    pub scale: Scale,
}

/// Plans every child.
#[must_use]
pub fn plan(service: &ValidatedService, observed: &Observed, brings: &Brings) -> Plan {
    let spec = service.spec();
    let rollout = rollout::decide(
        &service.revision,
        &service.size,
        spec.suspend,
        spec.rollout.strategy,
        observed,
    );
    let retired = retired(observed, &rollout, spec.revision_history_limit);
    let stays = |deployment: &&Arc<Deployment>| {
        revision_of(deployment.as_ref()) != Some(&rollout.target)
            && !retired
                .iter()
                .any(|gone| gone.name_any() == deployment.name_any())
    };
    let target = deployment::target(service, observed, brings);
    let others = observed
        .deployments
        .iter()
        .filter(stays)
        .filter_map(|live| Some((revision_of(live.as_ref())?, deployment::existing(service, live))));
    let planned = |revision: &str, deployment| PlannedRevision {
        deployment,
        scale: rollout.scales.get(revision).copied().unwrap_or(Scale::Fixed(0)),
    };
    Plan {
        revisions: std::iter::once(planned(&service.revision, target))
            .chain(others.map(|(revision, deployment)| planned(revision, deployment)))
            .collect(),
        endpoint: endpoint::endpoint(service, &rollout),
        autoscaler: autoscaler::autoscaler(service, &rollout),
        disruption_budget: disruption_budget::disruption_budget(service, observed, &rollout),
        retired,
        runtime_update: runtime_update(service, observed, brings),
        rollout,
    }
}

/// Deployments beyond the history limit, oldest first to go: neither wanted nor serving nor draining.
fn retired(observed: &Observed, rollout: &Rollout, limit: i32) -> Vec<Arc<Deployment>> {
    let limit = usize::try_from(limit).unwrap_or(0);
    observed
        .deployments
        .iter()
        .filter(|deployment| {
            revision_of(deployment.as_ref()).is_none_or(|r| r != rollout.target && r != rollout.traffic)
        })
        .skip(limit)
        .filter(|deployment| wanted_replicas(deployment) == 0)
        .cloned()
        .collect()
}

/// What a new revision would run with, where that differs from the frozen template.
fn runtime_update(service: &ValidatedService, observed: &Observed, brings: &Brings) -> Option<String> {
    let live = observed.deployment(&service.revision)?;
    let frozen = frozen_template(live);
    let mut fresh = template::template(service, service.class.as_deref()?, brings);
    template::keep_startup_deadline(&mut fresh, &frozen);
    if fresh == frozen {
        return None;
    }
    let (was, is) = (template::runtime_image(&frozen), template::runtime_image(&fresh));
    let made_by = live
        .annotations()
        .get(RUNTIME_VERSION_ANNOTATION)
        .map_or("an unknown version", |v| v);
    let what = if was == is {
        format!(
            "the pod template made by {made_by} differs from that of {}",
            brings.runtime_version
        )
    } else {
        format!("this revision runs {was}, a new one would run {is}")
    };
    Some(format!(
        "{what}; set spec.adoptRuntime to \"{}\" to move to it",
        brings.runtime_version
    ))
}

#[cfg(test)]
mod tests;
