//! Apply: makes the cluster match the plan, with server-side apply of what differs. Changes only objects whose
//! controller has the service's UID. The order, and why it matters:
//! 1. An autoscaler that is no longer wanted is deleted first: otherwise it would scale a Deployment whose size is
//!    fixed in the next step.
//! 2. Deployments, the target first: the Service must not select a revision that does not exist. Before each, its
//!    ResourceClaimTemplate, if it has one: without it, its pods wait.
//! 3. The Service, then the autoscaler: traffic moves before the autoscaler stops scaling the old revision.
//! 4. The disruption budget, which counts pods of the revision that now has the traffic.
//! 5. Whatever is no longer wanted: nothing refers to it any more. Then a pod whose device is lost, after its
//!    Deployment has remembered that.
//! 6. Pods that have found the version of a model, whose revision has its Deployment now. Then the next one, which quotas
//!    and policies may refuse.
//!
//! A new service takes two passes. [`begin`] only creates its Service; [`finish`] does the rest once the other new
//! services have their Services too. An API server creates one Service at a time, which takes many times longer while
//! the controllers work on Deployments on the same cores. There is no traffic yet that could be lost.

mod applied;
mod applier;
mod create;
mod difference;
mod field;
mod managers;
mod overrides;
mod request;
mod scale;

pub use applied::{Applied, Decision, Outcome};
pub use applier::Applier;
pub use overrides::{By, Override, Overrides};

use crate::{
    crd::SERVICE_LABEL,
    observe::Observed,
    plan::{Plan, PlannedRevision},
    reason::Problem,
    revision::is_ours,
};
use k8s_openapi::api::{apps::v1::Deployment, core::v1::Service};
use kube::ResourceExt as _;
use std::sync::Arc;

/// What the first pass of a new service achieved.
#[derive(Clone, Debug)]
pub enum Begun {
    /// The Service exists: a second pass finds it and does the rest.
    Service,
    /// A second pass would not find the Service and begin again and again, so this pass has to do the rest: something
    /// took our label or ownership from it, or deletes it each time.
    Unrecognised(Option<Arc<Service>>),
}

/// The first pass of a new service: creates its Service.
///
/// # Errors
/// When the Service cannot be created.
pub async fn begin(applier: &Applier<'_>, plan: &Plan) -> Result<Begun, Problem> {
    let endpoints = &applier.caches.endpoints;
    let made = applier.ensure(endpoints, plan.endpoint.clone(), None).await?;
    let is_recognised = made.as_ref().is_some_and(|made| {
        made.labels().contains_key(SERVICE_LABEL) && is_ours(made.as_ref(), &applier.service.source)
    });
    Ok(if is_recognised {
        Begun::Service
    } else {
        Begun::Unrecognised(made)
    })
}

/// Makes the cluster match the plan, in the order above.
pub async fn finish(applier: &Applier<'_>, observed: &Observed, plan: Plan) -> Applied {
    let Plan {
        revisions,
        endpoint,
        autoscaler,
        disruption_budget,
        retired,
        retired_claims,
        lost,
        rollout,
        runtime_update,
        resolver,
    } = plan;
    let caches = applier.caches;
    let mut applied = Applied::as_observed(rollout, runtime_update, observed);
    let steps = async {
        if autoscaler.is_none() {
            applier
                .prune(&caches.autoscalers, observed.autoscaler.as_ref())
                .await?;
        }
        for deployment in deployments(applier, revisions, observed).await? {
            applied.replace(deployment);
        }
        applied.endpoint = applier
            .ensure(&caches.endpoints, endpoint, observed.endpoint.as_ref())
            .await?;
        if let Some(wanted) = autoscaler {
            applier
                .ensure(&caches.autoscalers, wanted, observed.autoscaler.as_ref())
                .await?;
        }
        let live = observed.disruption_budget.as_ref();
        match disruption_budget {
            Some(wanted) => drop(applier.ensure(&caches.disruption_budgets, wanted, live).await?),
            None => applier.prune(&caches.disruption_budgets, live).await?,
        }
        for deployment in retired {
            applier.prune(&caches.deployments, Some(&deployment)).await?;
            applied.remove(&deployment);
        }
        if let Some(lost) = lost {
            applier.requests.delete(lost.pod.as_ref()).await?;
            applied.lost = Some(lost);
        }
        for claim in retired_claims {
            applier.prune(&caches.claim_templates, Some(&claim)).await?;
        }
        for pod in resolver.retired {
            applier.prune(&caches.pods, Some(&pod)).await?;
        }
        if let Some(pod) = resolver.wanted {
            applier.start(&pod).await?;
        }
        Ok(())
    };
    let outcome: Result<(), Problem> = steps.await;
    applied.overrides = applier.overridden();
    match outcome {
        Ok(()) => applied,
        Err(problem) => applied.stopped_by(problem),
    }
}

/// Applies the ResourceClaimTemplate and the Deployment of every revision, in their order. Returns those in use.
async fn deployments(
    applier: &Applier<'_>,
    revisions: Vec<PlannedRevision>,
    observed: &Observed,
) -> Result<Vec<Arc<Deployment>>, Problem> {
    let mut applied = Vec::with_capacity(revisions.len());
    for mut planned in revisions {
        if let Some(claim) = planned.claim.take() {
            let live = observed.claim_templates.iter();
            let live = live
                .into_iter()
                .find(|live| live.metadata.name == claim.metadata.name);
            applier
                .ensure(&applier.caches.claim_templates, claim, live)
                .await?;
        }
        let is_on_trial = planned.is_on_trial;
        let deployment = scale::deployment(applier, planned, observed).await?;
        applied.extend(deployment.filter(|_| !is_on_trial));
    }
    Ok(applied)
}
