//! Accelerator: what runs the model that has the traffic, from what its servers report. Pure.

use super::verdict::Verdict;
use crate::{
    crd::{AcceleratorStatus, CLASS_ANNOTATION, DeviceStatus, ModelServiceStatus},
    observe::{Engaged, Observed},
    reason::Reason,
    revision::revision_of,
};
use k8s_openapi::api::apps::v1::Deployment;
use kube::ResourceExt as _;
use std::collections::BTreeMap;

/// How many groups of servers the status tells.
const TOLD: usize = 16;

/// The class and the devices of the revision that has the traffic.
pub(super) fn accelerator(
    observed: &Observed,
    previous: &ModelServiceStatus,
    serving: &Deployment,
) -> Option<AcceleratorStatus> {
    let class = serving.annotations().get(CLASS_ANNOTATION)?.clone();
    let revision = revision_of(serving)?;
    let known = previous.accelerator.as_ref();
    let known = known.filter(|_| previous.current_revision.as_deref() == Some(revision));
    let reported = observed.reported.models.get(revision);
    let reported = reported.map(|report| report.execution_provider.clone());
    let said = || known.map(|known| known.devices.clone()).unwrap_or_default();
    Some(AcceleratorStatus {
        class,
        execution_provider: reported.or_else(|| known?.execution_provider.clone()),
        devices: devices(observed, revision).unwrap_or_else(said),
    })
}

/// Servers by what runs their model; `None` until all that are ready have been asked, such as after a restart of the
/// operator.
fn devices(observed: &Observed, revision: &str) -> Option<Vec<DeviceStatus>> {
    let mut groups: BTreeMap<String, DeviceStatus> = BTreeMap::new();
    for pod in observed.pods_of(revision).filter(|pod| pod.is_ready()) {
        let Some(engaged) = observed.devices.get(&pod.uid()?)? else {
            continue;
        };
        let device = device(engaged);
        groups.entry(format!("{device:?}")).or_insert(device).replicas += 1;
    }
    Some(groups.into_values().take(TOLD).collect())
}

fn device(engaged: &Engaged) -> DeviceStatus {
    let assignment = &engaged.assignment;
    let whole = |nodes: u64| i64::try_from(nodes).unwrap_or(i64::MAX);
    let device = assignment.device.as_ref();
    let elsewhere = assignment.elsewhere.iter();
    DeviceStatus {
        request: engaged.request.clone(),
        provider: assignment.provider.clone(),
        name: device.map(|device| device.name.clone()),
        driver: device.and_then(|device| device.driver.clone()),
        nodes: whole(assignment.nodes),
        elsewhere: elsewhere
            .map(|(operator, nodes)| (operator.clone(), whole(*nodes)))
            .collect(),
        replicas: 0,
    }
}

/// Whether a model runs on its accelerator, why, and in words; `None` on the CPU, and while that is not known.
pub(super) fn engaged(
    verdict: &Verdict,
    accelerator: Option<&AcceleratorStatus>,
) -> Option<(bool, Reason, String)> {
    if let Verdict::Failed { reason, message, .. } = verdict
        && matches!(
            reason,
            Reason::AcceleratorUnavailable | Reason::ExecutionProviderFallback
        )
    {
        return Some((false, *reason, message.clone()));
    }
    let devices = &accelerator?.devices;
    let told: Vec<String> = devices.iter().map(told).collect();
    (!told.is_empty()).then(|| (true, Reason::DeviceEngaged, told.join("; ")))
}

fn told(device: &DeviceStatus) -> String {
    let DeviceStatus {
        request,
        provider,
        name,
        nodes,
        elsewhere,
        ..
    } = device;
    let request = request
        .as_ref()
        .map(|request| format!(" ({request})"))
        .unwrap_or_default();
    let name = name
        .as_ref()
        .map(|name| format!(" on {name}{request}"))
        .unwrap_or(request);
    let cpu: i64 = elsewhere.values().sum();
    let operators: Vec<&str> = elsewhere.keys().map(String::as_str).collect();
    let rest = if operators.is_empty() {
        String::new()
    } else {
        format!(", the CPU {cpu} ({})", operators.join(", "))
    };
    format!("{provider} runs {nodes} compute nodes{name}{rest}")
}

#[cfg(test)]
mod tests;
