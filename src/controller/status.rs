//! Status: writes a service's status if it has changed.

use super::context::ControllerContext;
use crate::{
    cache::retention::drop_managed_fields,
    crd::{CONDITION_TYPES, FIELD_MANAGER, ModelService, ModelServiceStatus},
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

/// Writes the status if it has changed, then publishes the transition. Anything that others have written into our
/// part of it (a restored backup, a person) is removed; conditions of other types stay.
pub(super) async fn write(
    context: &ControllerContext,
    service: &ModelService,
    status: &ModelServiceStatus,
) -> Result<(), ReconcileError> {
    if is_written(service, status) {
        return Ok(());
    }
    let answer = patch(context, &service.metadata, json!(status)).await?;
    let Some(mut answer) = answer else { return Ok(()) };
    if !is_written(&answer, status) {
        let replaced = replace(context, &answer, status).await?;
        let Some(replaced) = replaced else { return Ok(()) };
        answer = replaced;
    }
    drop_managed_fields(&mut answer);
    context.written.put(Arc::new(answer));
    context
        .events
        .publish(service, service.status.as_ref(), status)
        .await;
    Ok(())
}

/// Whether the object has this status, apart from conditions of types that others write.
fn is_written(service: &ModelService, status: &ModelServiceStatus) -> bool {
    let ours = service.status.clone();
    ours.map(ModelServiceStatus::without_foreign_conditions).as_ref() == Some(status)
}

/// Replaces our part of the status. An apply would leave fields that another manager owns too.
async fn replace(
    context: &ControllerContext,
    service: &ModelService,
    status: &ModelServiceStatus,
) -> Result<Option<ModelService>, ReconcileError> {
    let present = service.status.clone().unwrap_or_default();
    let mut wanted = status.clone();
    let foreign = present.conditions.iter();
    let foreign = foreign.filter(|condition| !CONDITION_TYPES.contains(&condition.type_.as_str()));
    wanted.conditions.extend(foreign.cloned());
    let (mut wanted, present) = (json!(wanted), json!(present));
    remove_absent(&mut wanted, &present);
    let body = json!({
        // Concurrent writes are not lost: the API server then rejects this one with a conflict, and it is tried
        // again.
        "metadata": {"resourceVersion": service.metadata.resource_version},
        "status": wanted,
    });
    let api: Api<ModelService> = Api::namespaced(
        context.client.clone(),
        service.metadata.namespace.as_deref().unwrap_or_default(),
    );
    let name = service.metadata.name.as_deref().unwrap_or_default();
    let parameters = PatchParams {
        field_manager: Some(FIELD_MANAGER.to_owned()),
        ..PatchParams::default()
    };
    written(api.patch_status(name, &parameters, &Patch::Merge(body)).await)
}

/// Sets fields that are present but not wanted to null, which removes them in a merge patch (RFC 7386).
fn remove_absent(wanted: &mut Value, present: &Value) {
    let (Some(wanted), Some(present)) = (wanted.as_object_mut(), present.as_object()) else {
        return;
    };
    for (key, value) in present {
        match wanted.get_mut(key) {
            Some(nested) => remove_absent(nested, value),
            None => {
                wanted.insert(key.clone(), Value::Null);
            }
        }
    }
}

/// The object as it was written; `None` if it is gone.
fn written(answer: kube::Result<ModelService>) -> Result<Option<ModelService>, ReconcileError> {
    match answer {
        Ok(answer) => Ok(Some(answer)),
        Err(kube::Error::Api(answer)) if answer.code == 404 => Ok(None),
        Err(error) => Err(ReconcileError::Status(Box::new(error))),
    }
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
    written(api.patch_status(name, &parameters, &Patch::Apply(body)).await)
}

/// Reports in the status of a stored object that this version cannot read it, if at least its status can be read.
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
