//! Plan: every child of a service as it should be. Pure, and never fails: no client, no clock, no environment.

mod affinity;
mod autoscaler;
mod claim;
mod deployment;
mod disruption_budget;
mod endpoint;
pub(crate) mod meta;
mod rolling;
pub mod rollout;
pub mod room;
mod runtime_update;
mod server_config;
mod template;
mod volumes;

pub use endpoint::ports;
pub use template::DefaultRuntime;

use self::rollout::{Rollout, Scale};
use crate::{
    crd::GIVES_WAY_ANNOTATION,
    observe::Observed,
    revision::{revision_of, wanted_replicas},
    validate::{Target, ValidatedService},
};
use k8s_openapi::api::{
    apps::v1::Deployment, autoscaling::v2::HorizontalPodAutoscaler, core::v1::Service,
    policy::v1::PodDisruptionBudget, resource::v1::ResourceClaimTemplate,
};
use kube::ResourceExt as _;
use std::sync::Arc;

/// Every child of one service. `None` means not wanted.
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
    /// ResourceClaimTemplates without a Deployment that stays.
    pub retired_claims: Vec<Arc<ResourceClaimTemplate>>,
    /// Which revision has the traffic, and the size of each revision.
    pub rollout: Rollout,
    /// What a new revision would run with, if that differs from the present one.
    pub runtime_update: Option<String>,
}

/// A revision's Deployment.
#[derive(Clone, Debug)]
pub struct PlannedRevision {
    /// From which its pods get claims of devices, if the revision's class asks for devices by DRA.
    pub claim: Option<ResourceClaimTemplate>,
    /// Without `spec.replicas`.
    pub deployment: Deployment,
    /// Who owns `spec.replicas`, and how many.
    pub scale: Scale,
}

/// Plans every child.
#[must_use]
pub fn plan(service: &ValidatedService, observed: &Observed, runtime: &DefaultRuntime) -> Plan {
    let rollout = rollout::decide(service, observed);
    let retired = retired(observed, &rollout, service.spec().revision_history_limit);
    let stays = |deployment: &&Arc<Deployment>| {
        revision_of(deployment.as_ref()) != Some(&rollout.target)
            && !retired
                .iter()
                .any(|gone| gone.name_any() == deployment.name_any())
    };
    let (mut target, claim) = match &service.target {
        Target::Existing(live) => deployment::existing(service, live, observed),
        Target::New(class) => deployment::new(service, class, observed, runtime),
    };
    if let Some(gives_way) = &rollout.gives_way {
        let annotation = (GIVES_WAY_ANNOTATION.to_owned(), gives_way.annotation());
        target.annotations_mut().extend([annotation]);
    }
    let others = observed.deployments.iter().filter(stays).filter_map(|live| {
        let pair = deployment::existing(service, live, observed);
        Some((revision_of(live.as_ref())?, pair))
    });
    let planned = |revision: &str, (deployment, claim)| PlannedRevision {
        claim,
        deployment,
        scale: rollout.scales.get(revision).copied().unwrap_or(Scale::Fixed(0)),
    };
    let revisions: Vec<_> = std::iter::once(planned(&service.revision, (target, claim)))
        .chain(others.map(|(revision, pair)| planned(revision, pair)))
        .collect();
    Plan {
        retired_claims: retired_claims(observed, &revisions),
        revisions,
        endpoint: endpoint::endpoint(service, &rollout),
        autoscaler: autoscaler::autoscaler(service, &rollout),
        disruption_budget: disruption_budget::disruption_budget(service, observed, &rollout),
        retired,
        runtime_update: runtime_update::runtime_update(service, observed, runtime),
        rollout,
    }
}

/// Deployments beyond the history limit, which drops the oldest: neither the target, nor serving, nor draining.
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

/// ResourceClaimTemplates that no revision that stays has.
fn retired_claims(observed: &Observed, revisions: &[PlannedRevision]) -> Vec<Arc<ResourceClaimTemplate>> {
    let planned = |name: &Option<String>| {
        let mut claims = revisions.iter().filter_map(|planned| planned.claim.as_ref());
        claims.any(|claim| claim.metadata.name == *name)
    };
    let existing = observed.claim_templates.iter();
    existing
        .filter(|claim| !planned(&claim.metadata.name))
        .cloned()
        .collect()
}

#[cfg(test)]
mod tests;
