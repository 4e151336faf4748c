//! Demand: how many devices of each AcceleratorClass the servers of ModelServices hold. Reads caches only.

use crate::{
    cache::{Caches, pod::Pod},
    crd::{AcceleratorClass, CLASS_ANNOTATION, SERVICE_LABEL},
    revision::{claimed_devices, frozen_template, is_made_by, revision_of, thousandths},
};
use k8s_openapi::api::apps::v1::Deployment;
use kube::ResourceExt as _;
use std::{collections::HashMap, sync::Arc};

/// Devices in use, by name of the class; `None` if it depends on alternatives that the scheduler took.
pub(super) type Demand = HashMap<String, Option<i64>>;

/// Counts the devices that servers of each of these classes hold.
pub(super) fn demand(caches: &Caches, classes: &[Arc<AcceleratorClass>]) -> Demand {
    let has_device =
        |class: &&Arc<AcceleratorClass>| class.spec.resource.is_some() || class.spec.device_request.is_some();
    let asking = classes.iter().filter(has_device);
    let mut demand: Demand = asking.clone().map(|class| (class.name_any(), Some(0))).collect();
    let by_name: HashMap<String, &AcceleratorClass> =
        asking.map(|class| (class.name_any(), class.as_ref())).collect();
    if by_name.is_empty() {
        return demand;
    }
    for deployment in caches.deployments.all() {
        let class = deployment.annotations().get(CLASS_ANNOTATION);
        let Some(class) = class.and_then(|name| by_name.get(name)) else {
            continue;
        };
        let servers = servers(caches, &deployment);
        if servers > 0
            && let Some(sum) = demand.get_mut(&class.name_any())
        {
            let held = devices(class, &deployment);
            *sum = sum.zip(held).map(|(sum, held)| sum + held * servers);
        }
    }
    demand
}

/// Pods of a Deployment that are on a node and have not ended.
fn servers(caches: &Caches, deployment: &Deployment) -> i64 {
    let (name, service) = (deployment.name_any(), deployment.labels().get(SERVICE_LABEL));
    let namespace = deployment.namespace().unwrap_or_default();
    let pods = caches.pods.of(&namespace, service.map_or("", String::as_str));
    let holds = |pod: &&Arc<Pod>| {
        pod.is_scheduled()
            && !pod.is_terminal()
            && revision_of(pod.as_ref()) == revision_of(deployment)
            && is_made_by(pod.as_ref(), &name)
    };
    i64::try_from(pods.iter().filter(holds).count()).unwrap_or(i64::MAX)
}

/// Devices of the class that each of its pods holds: what the template that it was made with says.
fn devices(class: &AcceleratorClass, deployment: &Deployment) -> Option<i64> {
    let Some(resource) = &class.spec.resource else {
        return claimed_devices(deployment);
    };
    let template = frozen_template(deployment).ok()?;
    let container = template.spec?.containers.into_iter().next()?;
    let limits = container.resources?.limits.unwrap_or_default();
    let held = limits.get(&resource.name);
    Some(held.map_or(0, |held| whole(&held.0)))
}

/// A quantity of devices, which cannot be divided.
pub(super) fn whole(quantity: &str) -> i64 {
    let devices = thousandths(quantity).unwrap_or(0) / 1000;
    i64::try_from(devices).unwrap_or(i64::MAX)
}
