//! Apply: makes the cluster what the plan says, by server-side apply of what differs. Touches only objects
//! whose controller has the service's UID.
//!
//! The order, and what another order would break:
//! 1. An autoscaler that is not wanted goes first: it would scale a Deployment whose size is fixed next.
//! 2. Deployments, the target first: the Service must not select a revision that does not exist.
//! 3. The Service, then the autoscaler: traffic moves before the old revision stops being sized by load.
//! 4. The disruption budget, which counts pods of the revision that has the traffic by now.
//! 5. What is no longer wanted: nothing refers to it any more.
//!
//! A new service takes two passes. [`begin`] makes its Service and nothing else; [`finish`] does the rest once the
//! other new services have their Services too. An API server makes one Service at a time, and each takes many
//! times longer while the controllers work on Deployments on the same cores. Meanwhile there is no traffic that
//! could go astray.

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

/// The first pass of a new service: makes its Service.
///
/// # Errors
/// When the Service cannot be made.
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

/// Makes the cluster what the plan says, in the order above.
pub async fn finish(applier: &Applier<'_>, observed: &Observed, plan: Plan) -> Applied {
    let Plan {
        revisions,
        endpoint,
        autoscaler,
        disruption_budget,
        retired,
        rollout,
        runtime_update,
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
        Ok(())
    };
    let outcome: Result<(), Problem> = steps.await;
    applied.overrides = applier.overridden();
    match outcome {
        Ok(()) => applied,
        Err(problem) => applied.stopped_by(problem),
    }
}

/// Applies the Deployment of every revision, in their order.
async fn deployments(
    applier: &Applier<'_>,
    revisions: Vec<PlannedRevision>,
    observed: &Observed,
) -> Result<Vec<Arc<Deployment>>, Problem> {
    let mut applied = Vec::with_capacity(revisions.len());
    for planned in revisions {
        applied.extend(scale::deployment(applier, planned, observed).await?);
    }
    Ok(applied)
}
