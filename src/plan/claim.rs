//! The claim of devices by DRA: the ResourceClaimTemplate from which each pod of a revision gets a claim of its own. Its
//! spec cannot be changed, so it is frozen with the revision, and the template has the name of its Deployment. Pure.

use super::{meta, meta::DeploymentId};
use crate::{
    crd::{AcceleratorClass, Alternative, DEVICE_CLAIM, DeviceRequest, DeviceSelector, ExactDevices},
    validate::ValidatedService,
};
use k8s_openapi::{
    api::{
        core::v1::{PodResourceClaim, ResourceClaim},
        resource::v1 as dra,
    },
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use kube::ResourceExt as _;

/// A request of devices is for exactly as many as it says.
const EXACT_COUNT: &str = "ExactCount";

/// What each pod of a new revision claims, if the class asks for devices by DRA.
pub(super) fn claim(
    service: &ValidatedService,
    class: &AcceleratorClass,
) -> Option<dra::ResourceClaimTemplateSpec> {
    let request = class.spec.device_request.as_ref()?;
    let mut labels = meta::labels(service);
    labels.extend(DeploymentId::of_target(service, &class.name_any()).labels());
    Some(dra::ResourceClaimTemplateSpec {
        metadata: Some(ObjectMeta {
            labels: Some(labels),
            ..ObjectMeta::default()
        }),
        spec: Some(dra::ResourceClaimSpec {
            devices: Some(dra::DeviceClaim {
                requests: Some(vec![asked(request)]),
                ..dra::DeviceClaim::default()
            }),
        }),
    })
}

/// The ResourceClaimTemplate of a revision.
pub(super) fn template(
    service: &ValidatedService,
    id: DeploymentId<'_>,
    spec: dra::ResourceClaimTemplateSpec,
) -> dra::ResourceClaimTemplate {
    let mut metadata = meta::meta(service, id.name(service));
    metadata.labels.get_or_insert_default().extend(id.labels());
    dra::ResourceClaimTemplate {
        metadata,
        spec: Some(spec),
    }
}

/// The pod's reference to the ResourceClaimTemplate.
pub(super) fn of_pod(service: &ValidatedService, class: &AcceleratorClass) -> Option<Vec<PodResourceClaim>> {
    class.spec.device_request.as_ref()?;
    Some(vec![PodResourceClaim {
        name: DEVICE_CLAIM.into(),
        resource_claim_template_name: Some(DeploymentId::of_target(service, &class.name_any()).name(service)),
        resource_claim_name: None,
    }])
}

/// The container's reference to the pod's claim.
pub(super) fn of_container(class: &AcceleratorClass) -> Option<Vec<ResourceClaim>> {
    class.spec.device_request.as_ref()?;
    Some(vec![ResourceClaim {
        name: DEVICE_CLAIM.into(),
        request: None,
    }])
}

fn asked(request: &DeviceRequest) -> dra::DeviceRequest {
    let alternatives: Vec<_> = request.first_available.iter().map(alternative).collect();
    dra::DeviceRequest {
        name: DEVICE_CLAIM.into(),
        exactly: request.exactly.as_ref().map(exactly),
        first_available: (!alternatives.is_empty()).then_some(alternatives),
    }
}

fn exactly(devices: &ExactDevices) -> dra::ExactDeviceRequest {
    dra::ExactDeviceRequest {
        device_class_name: devices.device_class_name.clone(),
        selectors: selectors(&devices.selectors),
        allocation_mode: Some(EXACT_COUNT.into()),
        count: Some(devices.count.into()),
        ..dra::ExactDeviceRequest::default()
    }
}

fn alternative(devices: &Alternative) -> dra::DeviceSubRequest {
    dra::DeviceSubRequest {
        name: devices.name.clone(),
        device_class_name: devices.device_class_name.clone(),
        selectors: selectors(&devices.selectors),
        allocation_mode: Some(EXACT_COUNT.into()),
        count: Some(devices.count.into()),
        ..dra::DeviceSubRequest::default()
    }
}

fn selectors(selectors: &[DeviceSelector]) -> Option<Vec<dra::DeviceSelector>> {
    let all: Vec<_> = selectors
        .iter()
        .map(|selector| dra::DeviceSelector {
            cel: Some(dra::CELDeviceSelector {
                expression: selector.cel.expression.clone(),
            }),
        })
        .collect();
    (!all.is_empty()).then_some(all)
}

#[cfg(test)]
mod tests;
