//! Controller: wakes on whatever concerns a service and runs one reconcile of it.

pub mod backoff;
pub mod bursts;
pub mod context;
pub mod events;
pub mod reports;
mod watches;

use crate::{
    apply::{Applied, apply},
    assess::assess,
    controller::context::ControllerContext,
    crd::{FIELD_MANAGER, ModelService, ModelServiceStatus, PAUSED_ANNOTATION},
    observe::observe,
    plan::plan,
    process::metrics::Step,
    reason::{Problem, Reason},
    validate::validate,
};
use kube::{
    Api, Resource as _, ResourceExt as _,
    api::{Patch, PatchParams},
    core::{DeserializeGuard, error_boundary::InvalidObject},
    runtime::{controller::Action, reflector::ObjectRef},
};
use serde_json::json;
use std::{sync::Arc, time::Duration};
pub use watches::{Scope, run};

/// A malformed object must not stop the others, so each is parsed on its own.
pub type Guarded = DeserializeGuard<ModelService>;

/// Why a reconcile is tried again.
#[derive(Debug, thiserror::Error)]
pub enum ReconcileError {
    /// The status could not be written.
    #[error("could not write the status: {0}")]
    Status(#[source] Box<kube::Error>),
}

/// One reconcile: observe, validate, plan, apply, assess, status, events.
///
/// # Errors
/// When the status could not be written; every other failure is what the status says.
pub async fn reconcile(
    object: Arc<Guarded>,
    context: Arc<ControllerContext>,
) -> Result<Action, ReconcileError> {
    context.caches.wait_filled().await;
    context.classes.wait_filled().await;
    let reference = ObjectRef::from_obj(object.as_ref()).erase_to_service();
    let mut pass = context.metrics.reconcile_started(&reference);
    let service = match &object.0 {
        Ok(service) => context.written.newest(Arc::new(service.clone())),
        Err(invalid) => {
            pass.failed(Reason::InvalidSpec);
            return tell_invalid(&context, invalid).await;
        }
    };
    if is_left_alone(&service) {
        context.backoff.reset(&reference);
        return Ok(Action::await_change());
    }
    let observed = pass.step(Step::Observe, || observe(&context, service));
    let applied = match pass.step(Step::Plan, || {
        validate(&observed).map(|service| (plan(&service, &observed, &context.brings), service))
    }) {
        Ok((plan, service)) => {
            pass.step_async(Step::Apply, apply(&context, &service, &observed, plan))
                .await
        }
        Err(problem) => Applied::refused(problem, &observed),
    };
    if applied.is_begun {
        context.bursts.follow(reference);
        return Ok(Action::await_change());
    }
    let status = pass.step(Step::Assess, || assess(&observed, &applied));
    context.reports.ask(&observed, &status);
    pass.step_async(Step::Status, write_status(&context, &observed.service, &status))
        .await?;
    if let Some(problem) = &applied.problem {
        pass.failed(problem.reason());
        tracing::warn!(reason = problem.reason().as_str(), %problem, "the service cannot be as its spec says");
    }
    Ok(next(&context, &reference, &applied))
}

/// When to look again although nothing happens.
fn next(context: &ControllerContext, service: &ObjectRef<ModelService>, applied: &Applied) -> Action {
    match &applied.problem {
        Some(problem) if problem.waits_for_a_change() => Action::await_change(),
        Some(_) => Action::requeue(context.backoff.next(service)),
        None => {
            context.backoff.reset(service);
            let wait = applied.rollout.as_ref().and_then(|rollout| rollout.look_again);
            wait.and_then(|wait| Duration::try_from(wait).ok())
                .map_or_else(Action::await_change, Action::requeue)
        }
    }
}

/// Being deleted (the garbage collector takes the children), or paused by its owner.
fn is_left_alone(service: &ModelService) -> bool {
    service.metadata.deletion_timestamp.is_some()
        || service
            .annotations()
            .get(PAUSED_ANNOTATION)
            .is_some_and(|value| value == "true")
}

/// Writes the status where it differs, then tells of the transition.
async fn write_status(
    context: &ControllerContext,
    service: &ModelService,
    status: &ModelServiceStatus,
) -> Result<(), ReconcileError> {
    if service.status.as_ref() == Some(status) {
        return Ok(());
    }
    let answer = patch_status(context, &service.metadata, json!(status)).await?;
    let Some(mut answer) = answer else { return Ok(()) };
    crate::cache::children::strip(&mut answer);
    context.written.put(Arc::new(answer));
    context
        .events
        .tell(service, service.status.as_ref(), status)
        .await;
    Ok(())
}

/// `None`: the service is gone.
async fn patch_status(
    context: &ControllerContext,
    metadata: &k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta,
    status: serde_json::Value,
) -> Result<Option<ModelService>, ReconcileError> {
    let name = metadata.name.as_deref().unwrap_or_default();
    let namespace = metadata.namespace.as_deref().unwrap_or_default();
    let api: Api<ModelService> = Api::namespaced(context.client.clone(), namespace);
    let body = json!({
        "apiVersion": ModelService::api_version(&()),
        "kind": ModelService::kind(&()),
        "metadata": {"name": name, "namespace": namespace, "uid": metadata.uid},
        "status": status,
    });
    match api
        .patch_status(
            name,
            &PatchParams::apply(FIELD_MANAGER).force(),
            &Patch::Apply(body),
        )
        .await
    {
        Ok(answer) => Ok(Some(answer)),
        Err(kube::Error::Api(answer)) if answer.code == 404 => Ok(None),
        Err(error) => Err(ReconcileError::Status(Box::new(error))),
    }
}

/// A stored object that this version cannot read: says so in its status, as far as that can be read.
async fn tell_invalid(
    context: &ControllerContext,
    invalid: &InvalidObject,
) -> Result<Action, ReconcileError> {
    tracing::warn!(error = %invalid.error, "cannot read this object; waiting until it changes");
    let problem = Problem::InvalidSpec(format!(
        "this version of the operator cannot read the object: {}",
        invalid.error
    ));
    let condition = |type_: &str, status: &str| {
        json!({
            "type": type_,
            "status": status,
            "reason": problem.reason().as_str(),
            "message": problem.to_string(),
            "observedGeneration": invalid.metadata.generation,
            // Fixed, so that writing it again changes nothing.
            "lastTransitionTime": invalid.metadata.creation_timestamp,
        })
    };
    let status = json!({
        "observedGeneration": invalid.metadata.generation,
        "conditions": [condition("Ready", "False"), condition("Stalled", "True")],
    });
    match patch_status(context, &invalid.metadata, status).await {
        Ok(_) => Ok(Action::await_change()),
        Err(ReconcileError::Status(error)) => {
            tracing::debug!(%error, "its status cannot be read either");
            Ok(Action::await_change())
        }
    }
}

/// A failed status write comes back after a while.
pub fn error_policy(object: Arc<Guarded>, error: &ReconcileError, context: Arc<ControllerContext>) -> Action {
    let reference = ObjectRef::from_obj(object.as_ref()).erase_to_service();
    tracing::warn!(%error, "trying again");
    Action::requeue(context.backoff.next(&reference))
}

/// A guarded object's reference as that of the service.
pub(crate) trait ToService {
    fn erase_to_service(self) -> ObjectRef<ModelService>;
}

impl ToService for ObjectRef<Guarded> {
    fn erase_to_service(self) -> ObjectRef<ModelService> {
        let mut reference = ObjectRef::new(&self.name);
        reference.namespace = self.namespace;
        reference
    }
}
