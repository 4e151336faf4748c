//! Reconcile: one pass over one service. observe → validate → plan → apply → assess → status → events.

use super::{
    context::ControllerContext,
    status::{self, ReconcileError},
};
use crate::{
    apply::{self, Applied, Applier, Begun},
    assess::{assess, look_again},
    crd::{ModelService, PAUSED_ANNOTATION},
    observe::{Observed, observe},
    plan::{Plan, plan},
    process::metrics::Step,
    reason::Reason,
    revision::wanted_replicas,
    validate::{ValidatedService, validate},
};
use kube::{
    ResourceExt as _,
    core::DeserializeGuard,
    runtime::{controller::Action, reflector::ObjectRef},
};
use std::{sync::Arc, time::Duration};

/// Services, each parsed on its own: a malformed object must not stop the others.
pub(super) type GuardedService = DeserializeGuard<ModelService>;

/// One pass over one service.
///
/// # Errors
/// When the status could not be written. Every other failure is reported in the status.
pub(super) async fn reconcile(
    object: Arc<GuardedService>,
    context: Arc<ControllerContext>,
) -> Result<Action, ReconcileError> {
    context.caches.wait_filled().await;
    context.classes.wait_filled().await;
    let reference = ObjectRef::from_obj(object.as_ref()).into_kind_unchecked::<ModelService>(());
    let mut pass = context.metrics.reconcile_started(&reference);
    let service = match &object.0 {
        Ok(service) => context.written.newest(Arc::new(service.clone())),
        Err(invalid) => {
            pass.failed(Reason::InvalidSpec);
            return status::write_unreadable(&context, invalid).await;
        }
    };
    if is_left_alone(&service) {
        context.backoff.reset(&reference);
        context.loads.forget(&service.uid().unwrap_or_default());
        return Ok(Action::await_change());
    }
    let mut observed = pass.step(Step::Observe, || {
        let (reported, scaling) = (context.reports.of(&service), context.loads.of(&service));
        let devices = context.devices.of(&service);
        observe(
            &context.caches,
            &context.classes,
            service,
            reported,
            devices,
            scaling,
            context.support.capabilities(),
        )
    });
    let planned = pass.step(Step::Plan, || {
        let service = validate(&observed)?;
        Ok((plan(&service, &observed, &context.runtime), service))
    });
    let applied = match planned {
        Ok((plan, service)) => {
            let apply = apply(&context, &service, &mut observed, plan);
            let applied = pass.step_async(Step::Apply, apply).await;
            if let Some(applied) = &applied {
                follow_load(&context, &observed, &service, applied);
            }
            applied
        }
        Err(problem) => Some(Applied::refused(problem, &observed)),
    };
    let Some(applied) = applied else {
        context.bursts.follow(reference);
        return Ok(Action::await_change());
    };
    if let Some(lost) = applied.lost() {
        context.events.replaced(&observed.service, &lost.why).await;
    }
    let status = pass.step(Step::Assess, || assess(&observed, &applied));
    context.reports.ask(&observed, &status);
    context.devices.ask(&observed, &status);
    pass.step_async(Step::Status, status::write(&context, &observed.service, &status))
        .await?;
    if let Some(problem) = applied.problem() {
        pass.failed(problem.reason());
        tracing::warn!(reason = problem.reason().as_str(), %problem, "the service cannot be as its spec says");
    }
    Ok(next(&context, &reference, &observed, &applied))
}

/// Carries out a plan. `None` if only the Service of a new service was created, and a second pass must follow.
async fn apply(
    context: &ControllerContext,
    service: &ValidatedService,
    observed: &mut Observed,
    plan: Plan,
) -> Option<Applied> {
    let (client, caches, overrides) = (&context.client, &context.caches, &context.overrides);
    let applier = Applier::new(client, caches, overrides, service, observed.now);
    if observed.is_new() {
        let _making = context.bursts.making();
        match apply::begin(&applier, &plan).await {
            Ok(Begun::Service) => return None,
            Ok(Begun::Unrecognised(endpoint)) => observed.endpoint = endpoint,
            Err(problem) => {
                let unchanged = Applied::as_observed(plan.rollout, plan.runtime_update, observed);
                return Some(unchanged.stopped_by(problem));
            }
        }
    }
    Some(apply::finish(&applier, observed, plan).await)
}

/// Has the load of the servers that answer requests read, if it decides their number. During a rolling update it does
/// not, and says nothing about the revision that replaces them.
fn follow_load(
    context: &ControllerContext,
    observed: &Observed,
    service: &ValidatedService,
    applied: &Applied,
) {
    let rolling = applied
        .decision()
        .and_then(|decision| decision.rollout.rolling.as_ref());
    if rolling.is_some() {
        return context.loads.forget(&service.uid);
    }
    let traffic = applied.traffic();
    let present = traffic.and_then(|revision| applied.deployment(revision));
    let present = present.map_or(0, |deployment| wanted_replicas(deployment));
    context.loads.follow(observed, &service.size, traffic, present);
}

/// When to reconcile again although nothing happens.
fn next(
    context: &ControllerContext,
    service: &ObjectRef<ModelService>,
    observed: &Observed,
    applied: &Applied,
) -> Action {
    match applied.problem() {
        Some(problem) if problem.waits_for_a_change() => Action::await_change(),
        Some(_) => Action::requeue(context.backoff.next(service)),
        None => {
            context.backoff.reset(service);
            let rollout = applied
                .decision()
                .and_then(|decision| decision.rollout.look_again);
            let overrides = context.overrides.look_again(&observed.service, observed.now);
            let times = [rollout, look_again(observed), overrides];
            let soonest = times.into_iter().flatten().min();
            soonest
                .and_then(|soonest| Duration::try_from(soonest).ok())
                .map_or_else(Action::await_change, Action::requeue)
        }
    }
}

/// Whether the service is being deleted (the garbage collector takes the children) or was paused by its owner.
fn is_left_alone(service: &ModelService) -> bool {
    service.metadata.deletion_timestamp.is_some()
        || service
            .annotations()
            .get(PAUSED_ANNOTATION)
            .is_some_and(|value| value == "true")
}

/// If a status could not be written, this is tried again after a while.
pub(super) fn error_policy(
    object: Arc<GuardedService>,
    error: &ReconcileError,
    context: Arc<ControllerContext>,
) -> Action {
    let reference = ObjectRef::from_obj(object.as_ref()).into_kind_unchecked::<ModelService>(());
    tracing::warn!(%error, "trying again");
    Action::requeue(context.backoff.next(&reference))
}
