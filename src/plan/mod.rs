//! Plan: every child of a service as it should be. Pure, and never fails: no client, no clock, no environment.

mod affinity;
mod autoscaler;
mod claim;
mod deployment;
mod disruption_budget;
mod endpoint;
mod fetch;
mod lost;
pub(crate) mod meta;
mod mount;
mod resolver;
pub mod rolling;
pub mod rollout;
pub mod room;
mod runtime;
mod runtime_update;
mod server_config;
#[cfg(test)]
pub(crate) mod simulator;
mod template;
mod trial;
mod volumes;

pub use endpoint::ports;
pub use lost::Lost;
pub use resolver::Resolver;
pub use runtime::DefaultRuntime;

use self::rollout::{Rollout, Scale};
use crate::{
    crd::{GAVE_BACK_ANNOTATION, GIVES_WAY_ANNOTATION, LOST_ANNOTATION},
    observe::Observed,
    revision::{placement_of, revision_of, wanted_replicas},
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
    /// One Deployment per revision that stays, the target first, and the one on trial. The target is missing while the
    /// version of its model is not known.
    pub revisions: Vec<PlannedRevision>,
    /// The Service that carries the URL.
    pub endpoint: Service,
    /// The autoscaler.
    pub autoscaler: Option<HorizontalPodAutoscaler>,
    /// The disruption budget.
    pub disruption_budget: Option<PodDisruptionBudget>,
    /// Deployments of revisions beyond the history limit, and of classes that are no longer tried.
    pub retired: Vec<Arc<Deployment>>,
    /// ResourceClaimTemplates without a Deployment that stays.
    pub retired_claims: Vec<Arc<ResourceClaimTemplate>>,
    /// A pod that is deleted because its device is lost.
    pub lost: Option<Lost>,
    /// Which revision has the traffic, and the size of each revision.
    pub rollout: Rollout,
    /// What a new revision would run with, if that differs from the present one.
    pub runtime_update: Option<String>,
    /// The pods that look for the version of a new revision's model.
    pub resolver: Resolver,
}

/// A Deployment of a revision.
#[derive(Clone, Debug)]
pub struct PlannedRevision {
    /// From which its pods get claims of devices, if the revision's class asks for devices by DRA.
    pub claim: Option<ResourceClaimTemplate>,
    /// Without `spec.replicas`.
    pub deployment: Deployment,
    /// Who owns `spec.replicas`, and how many.
    pub scale: Scale,
    /// Whether it is beside the one in use of its revision, for the next class.
    pub is_on_trial: bool,
}

/// Plans every child.
#[must_use]
pub fn plan(service: &ValidatedService, observed: &Observed, runtime: &DefaultRuntime) -> Plan {
    let mut rollout = rollout::decide(service, observed);
    let trial = trial::decide(service, observed, &rollout);
    rollout.trial = trial.class();
    let (lost, lost_later) = lost::decide(service, observed);
    let resolver = resolver::decide(service, observed, runtime);
    let times = [
        rollout.look_again,
        trial.look_again,
        lost_later,
        resolver.look_again,
    ];
    rollout.look_again = times.into_iter().flatten().min();
    let retired = retired(observed, &rollout, service.spec().revision_history_limit);
    let stays = |deployment: &&Arc<Deployment>| {
        revision_of(deployment.as_ref()) != Some(&rollout.target)
            && !retired
                .iter()
                .any(|gone| gone.name_any() == deployment.name_any())
    };
    let mut target = match &service.target {
        Target::Existing(live) => Some(deployment::existing(service, live, observed)),
        Target::New(revision) => Some(deployment::new(service, revision, observed, runtime)),
        Target::Unresolved(_) => None,
    };
    if let Some((target, _)) = &mut target {
        target.annotations_mut().extend(trial.in_use);
        target.annotations_mut().extend(state(&rollout));
    }
    let has_servers = target.is_some() || observed.deployment(&rollout.traffic).is_some();
    let others = observed.deployments.iter().filter(stays).filter_map(|live| {
        let pair = deployment::existing(service, live, observed);
        Some((revision_of(live.as_ref())?, pair))
    });
    let planned = |revision: &str, (deployment, claim)| PlannedRevision {
        claim,
        deployment,
        scale: rollout.scales.get(revision).copied().unwrap_or(Scale::Fixed(0)),
        is_on_trial: false,
    };
    let on_trial = trial.on_trial.map(|pair| PlannedRevision {
        is_on_trial: true,
        ..planned(&service.revision, pair)
    });
    let target = target.map(|pair| planned(&service.revision, pair));
    let mut revisions: Vec<_> = target
        .into_iter()
        .chain(on_trial)
        .chain(others.map(|(revision, pair)| planned(revision, pair)))
        .collect();
    if let Some(lost) = &lost {
        remember(&mut revisions, lost);
    }
    Plan {
        lost,
        retired_claims: retired_claims(observed, &revisions),
        revisions,
        endpoint: endpoint::endpoint(service, &rollout),
        autoscaler: autoscaler::autoscaler(service, &rollout).filter(|_| has_servers),
        disruption_budget: disruption_budget::disruption_budget(service, observed, &rollout),
        retired,
        runtime_update: runtime_update::runtime_update(service, observed, runtime),
        rollout,
        resolver,
    }
}

/// The Deployment of a pod that is deleted remembers when, before it is.
fn remember(revisions: &mut [PlannedRevision], lost: &Lost) {
    let planned = revisions.iter_mut().map(|planned| &mut planned.deployment);
    for deployment in planned.filter(|deployment| deployment.name_any() == lost.deployment) {
        let annotation = (LOST_ANNOTATION.to_owned(), lost.deletions.to_string());
        deployment.annotations_mut().extend([annotation]);
    }
}

/// What the target's Deployment remembers about the rollout.
fn state(rollout: &Rollout) -> impl Iterator<Item = (String, String)> {
    let gives_way = rollout.gives_way.as_ref();
    let gives_way = gives_way.map(|gives_way| (GIVES_WAY_ANNOTATION, gives_way.annotation()));
    let gave_back = rollout.gave_back.map(|at| (GAVE_BACK_ANNOTATION, at.to_string()));
    let all = gives_way.into_iter().chain(gave_back);
    all.map(|(key, value)| (key.to_owned(), value))
}

/// Deployments beyond the history limit, which drops the oldest: neither the target, nor serving, nor draining. Also
/// those beside the ones in use, except the one on trial.
fn retired(observed: &Observed, rollout: &Rollout, limit: i32) -> Vec<Arc<Deployment>> {
    let limit = usize::try_from(limit).unwrap_or(0);
    let is_tried = |deployment: &&Arc<Deployment>| {
        revision_of(deployment.as_ref()) == Some(&rollout.target)
            && placement_of(deployment.as_ref()) == rollout.trial.as_deref()
    };
    let beside = observed.beside.iter().filter(|deployment| !is_tried(deployment));
    let old = observed
        .deployments
        .iter()
        .filter(|deployment| {
            revision_of(deployment.as_ref()).is_none_or(|r| r != rollout.target && r != rollout.traffic)
        })
        .skip(limit)
        .filter(|deployment| wanted_replicas(deployment) == 0);
    old.chain(beside).cloned().collect()
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
