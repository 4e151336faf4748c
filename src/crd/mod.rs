//! The API: `ModelService` and `AcceleratorClass` (v1alpha1), and their definitions. Types only: no I/O.

// The derive for validation rules makes a second, private type with the same visibility.
#![allow(unreachable_pub)]
// Two printer columns of the same type are not duplicates.
#![allow(clippy::duplicated_attributes)]

mod accelerator_class;
mod constraints;
mod model_service;
mod names;
mod refusals;
mod schemas;
mod server_settings;
mod status;

pub use accelerator_class::{
    AcceleratorClass, AcceleratorClassSpec, DeviceResource, Runtime, Sharing, Toleration,
};
pub use model_service::{
    Autoscaling, Model, ModelService, ModelServiceSpec, PodSettings, Resources, Rollout, RolloutStrategy,
    ScaleTarget,
};
pub use names::*;
pub use refusals::{is_refused_annotation, is_refused_variable};
pub use server_settings::{
    AccessLogSettings, AuthSettings, CacheSettings, ConnectionSettings, ServerSettings, TracingSettings,
    VolumeClaim,
};
pub use status::{
    AcceleratorStatus, ModelServiceStatus, ModelStatus, RevisionStatus, Signature, TensorStatus,
};

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::CustomResourceExt as _;

/// Both definitions, in the order in which they are to be applied.
#[must_use]
pub fn definitions() -> Vec<CustomResourceDefinition> {
    [AcceleratorClass::crd(), ModelService::crd()]
        .map(labelled)
        .into()
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
