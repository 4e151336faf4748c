//! The API: `ModelService` and `AcceleratorClass` (v1alpha1), and their definitions. Types only: no I/O.

// The derive for validation rules creates a second, private type with the same visibility.
#![allow(unreachable_pub)]
// Two printer columns of the same type are not duplicates.
#![allow(clippy::duplicated_attributes)]

mod accelerator_class;
mod accelerator_status;
mod autoscaling;
mod constraints;
mod device_request;
mod fetch;
mod model;
mod model_service;
mod names;
mod refusals;
mod runtime;
mod schemas;
mod server_settings;
mod sizes;
mod slim;
mod status;

pub use accelerator_class::{
    AcceleratorClass, AcceleratorClassSpec, DeviceResource, Sharing, Toleration, Variable,
};
pub use accelerator_status::AcceleratorClassStatus;
pub use autoscaling::{Autoscaling, ExternalTarget, ScaleDown, ScaleSchedule, ScaleTarget, ScaleUp};
pub use device_request::{Alternative, CelSelector, DeviceRequest, DeviceSelector, ExactDevices};
pub use fetch::{
    FetchCacheSettings, FetchCredentials, FetchIdentity, FetchResources, FetchSettings, FetchVolume,
};
pub use model::{Delivery, Model, ModelFolder, ModelVerification};
pub use model_service::{ModelService, ModelServiceSpec, PodSettings, Resources, Rollout, RolloutStrategy};
pub use names::*;
pub use refusals::{is_refused_annotation, is_refused_class_variable, is_refused_variable};
pub use runtime::{CPU_PROVIDER, DeviceType, Plugin, PullPolicy, Runtime};
pub use server_settings::{
    AccessLogSettings, AuthSettings, CacheSettings, ConnectionSettings, ServerSettings, TracingSettings,
    VolumeClaim,
};
pub use status::{
    AcceleratorStatus, AutoscalingStatus, CONDITION_TYPES, DeviceStatus, ModelServiceStatus, ModelStatus,
    RevisionStatus, Signature, TensorStatus,
};

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{CustomResourceDefinition, JSON};
use kube::CustomResourceExt as _;
use serde_json::json;

/// Both definitions, in the order in which they must be applied.
#[must_use]
pub fn definitions() -> Vec<CustomResourceDefinition> {
    [AcceleratorClass::crd(), with_unseen_status(ModelService::crd())]
        .map(labelled)
        .map(slim::slim)
        .into()
}

/// Gives objects that the operator has not seen a status that describes no generation. Without one, kstatus (Flux,
/// `kpt`, Helm) considers a new object finished.
fn with_unseen_status(mut definition: CustomResourceDefinition) -> CustomResourceDefinition {
    let schemas = definition.spec.versions.iter_mut();
    let schemas = schemas.filter_map(|version| version.schema.as_mut()?.open_api_v3_schema.as_mut());
    for properties in schemas.filter_map(|schema| schema.properties.as_mut()) {
        if let Some(status) = properties.get_mut("status") {
            status.default = Some(JSON(json!({"observedGeneration": -1})));
        }
    }
    definition
}

fn labelled(mut definition: CustomResourceDefinition) -> CustomResourceDefinition {
    let label = ("app.kubernetes.io/part-of", "modelservice-operator");
    definition.metadata.labels = Some(
        [label]
            .map(|(key, value)| (key.to_owned(), value.to_owned()))
            .into(),
    );
    definition
}
