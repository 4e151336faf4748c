//! Status: writes a service's status where it differs from what the service has.

use super::context::ControllerContext;
use crate::{
    cache::children::drop_managed_fields,
    crd::{FIELD_MANAGER, ModelService, ModelServiceStatus},
    reason::Problem,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::{
    Api, Resource as _,
    api::{Patch, PatchParams},
    core::error_boundary::InvalidObject,
    runtime::controller::Action,
};
use serde_json::{Value, json};
use std::sync::Arc;

/// Why a reconcile is tried again.
#[derive(Debug, thiserror::Error)]
pub(super) enum ReconcileError {
    /// The status could not be written.
    #[error("could not write the status: {0}")]
    Status(#[source] Box<kube::Error>),
}

/// Writes the status where it differs, then publishes the transition.
pub(super) async fn write(
    context: &ControllerContext,
    service: &ModelService,
    status: &ModelServiceStatus,
) -> Result<(), ReconcileError> {
    if service.status.as_ref() == Some(status) {
        return Ok(());
    }
    let answer = patch(context, &service.metadata, json!(status)).await?;
    let Some(mut answer) = answer else { return Ok(()) };
    drop_managed_fields(&mut answer);
    context.written.put(Arc::new(answer));
    context
        .events
        .publish(service, service.status.as_ref(), status)
        .await;
    Ok(())
}

/// Applies a status; `None` if the service is gone.
async fn patch(
    context: &ControllerContext,
    metadata: &ObjectMeta,
    status: Value,
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
    let parameters = PatchParams::apply(FIELD_MANAGER).force();
    match api.patch_status(name, &parameters, &Patch::Apply(body)).await {
        Ok(answer) => Ok(Some(answer)),
        Err(kube::Error::Api(answer)) if answer.code == 404 => Ok(None),
        Err(error) => Err(ReconcileError::Status(Box::new(error))),
    }
}

/// Says in the status of a stored object that this version cannot read it, if at least its status can be read.
pub(super) async fn write_unreadable(
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
    match patch(context, &invalid.metadata, status).await {
        Ok(_) => Ok(Action::await_change()),
        Err(ReconcileError::Status(error)) => {
            tracing::debug!(%error, "its status cannot be read either");
            Ok(Action::await_change())
        }
    }
}
