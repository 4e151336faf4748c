//! Lost: pods whose device is lost. A container that is restarted keeps the devices of its pod, so only another pod can
//! get others. Such a pod is deleted, at most one a minute per service. Pure.

use crate::{
    cache::pod::{ContainerStatus, Pod},
    crd::LOST_ANNOTATION,
    observe::{Observed, until_next},
    placement::Device,
    revision::frozen_template,
    validate::ValidatedService,
};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::apps::v1::Deployment;
use kube::ResourceExt as _;
use modelservice_contract::ExitReason;
use std::sync::Arc;

/// How long after one pod was deleted another may be.
const PAUSE: SignedDuration = SignedDuration::from_mins(1);
/// How often a server must have ended without its device: once, the device may be used by a server that is still ending.
const ENDS: i32 = 2;

/// A pod that is to be deleted.
#[derive(Clone, Debug)]
pub struct Lost {
    /// The pod.
    pub pod: Arc<Pod>,
    /// Name of its Deployment.
    pub(super) deployment: String,
    /// What happened, for a person.
    pub why: String,
}

/// The pod to delete now, if there is one, and when to look again.
pub(super) fn decide(
    service: &ValidatedService,
    observed: &Observed,
) -> (Option<Lost>, Option<SignedDuration>) {
    let mut all: Vec<Lost> = observed
        .deployments
        .iter()
        .flat_map(|live| lost(service, observed, live))
        .collect();
    all.sort_by_key(|lost| lost.pod.name_any());
    let last = observed
        .deployments
        .iter()
        .filter_map(|live| deleted_at(live))
        .max();
    let next = last.map(|last| last + PAUSE);
    let is_early = next.is_some_and(|next| next > observed.now);
    match all.into_iter().next() {
        None => (None, None),
        Some(_) if is_early => (None, until_next(next, observed.now)),
        Some(lost) => (Some(lost), None),
    }
}

/// Pods of a Deployment whose device is lost.
fn lost(service: &ValidatedService, observed: &Observed, live: &Arc<Deployment>) -> Vec<Lost> {
    let pods = observed.remaining_pods_made_by(live);
    let present = pods.filter(|pod| pod.metadata.deletion_timestamp.is_none());
    let lost: Vec<Lost> = present
        .filter_map(|pod| {
            Some(Lost {
                pod: pod.clone(),
                deployment: live.name_any(),
                why: why(pod)?,
            })
        })
        .collect();
    // Reading the template takes longer than looking at pods, and hardly ever is one of them lost.
    if lost.is_empty() || !has_device(service, live) {
        return Vec::new();
    }
    lost
}

/// Whether the pods of a Deployment have a device.
fn has_device(service: &ValidatedService, live: &Deployment) -> bool {
    // Validation has checked that there is a template.
    let device = Device::of(&frozen_template(live).unwrap_or_default(), service.spec());
    device.is_claimed || !device.resources.is_empty()
}

/// Why the device of a pod counts as lost.
fn why(pod: &Pod) -> Option<String> {
    let server = pod
        .status
        .container_statuses
        .iter()
        .find(|container| container.is_server())?;
    let pod = pod.name_any();
    if let Some(resource) = server.unhealthy_resource() {
        return Some(format!(
            "pod {pod} is replaced: the device plug-in reports its device of {resource} as unhealthy"
        ));
    }
    is_without_device(server).then(|| {
        format!(
            "pod {pod} is replaced: its server has ended {ENDS} times because its device or its execution provider is \
             missing, and a restarted container keeps its pod's device"
        )
    })
}

/// Whether a server has ended often enough because its device is missing.
fn is_without_device(server: &ContainerStatus) -> bool {
    let code = i32::from(ExitReason::AcceleratorUnavailable.code());
    let ended = |state: Option<&k8s_openapi::api::core::v1::ContainerState>| {
        let terminated = state.and_then(|state| state.terminated.as_ref());
        terminated.map(|terminated| terminated.exit_code)
    };
    let (now, before) = (
        ended(server.state.as_deref()),
        ended(server.last_state.as_deref()),
    );
    let is_running = server.state.as_ref().is_some_and(|state| state.running.is_some());
    let ends = server.restart_count + i32::from(!is_running);
    !server.ready && ends >= ENDS && now.or(before) == Some(code)
}

/// When a pod of a Deployment was last deleted for this.
fn deleted_at(live: &Deployment) -> Option<Timestamp> {
    live.annotations().get(LOST_ANNOTATION)?.parse().ok()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use crate::{crd::LOST_ANNOTATION, plan::simulator::Cluster};
    use kube::ResourceExt as _;
    use serde_json::{Value, json};

    fn serving(class: &str) -> Cluster {
        let mut cluster = Cluster::new(json!({"replicas": 3, "accelerators": [class]}));
        cluster.until("it serves", |cluster| cluster.answering() == 3);
        cluster
    }

    fn unhealthy(health: &str) -> Value {
        json!({"ready": true, "state": {"running": {}}, "allocatedResourcesStatus": [{"name": "example.com/tpu",
            "resources": [{"resourceID": "device-0", "health": health}]}]})
    }

    fn ended(code: i32, restarts: i32) -> Value {
        json!({"restartCount": restarts, "state": {"waiting": {"reason": "CrashLoopBackOff"}},
            "lastState": {"terminated": {"exitCode": code}}})
    }

    /// A wrong row deletes servers that work, or keeps one that never will.
    #[test]
    fn only_a_pod_whose_device_is_lost_is_deleted() {
        let table = [
            ("unhealthy", "tpu", unhealthy("Unhealthy"), true),
            ("healthy", "tpu", unhealthy("Healthy"), false),
            ("unknown", "tpu", unhealthy("Unknown"), false),
            ("ended once", "tpu", ended(14, 0), false),
            ("ended twice", "tpu", ended(14, 1), true),
            ("ended twice, otherwise", "tpu", ended(13, 1), false),
            ("on the CPU", "cpu", ended(14, 5), false),
            (
                "runs again",
                "tpu",
                json!({"ready": true, "restartCount": 5, "state": {"running": {}},
                    "lastState": {"terminated": {"exitCode": 14}}}),
                false,
            ),
        ];
        for (name, class, status, expected) in table {
            let mut cluster = serving(class);
            cluster.says(1, &status);
            let pod = cluster.observed.pods[1].name_any();
            let plan = cluster.pass();
            let deleted = plan.lost.map(|lost| (lost.pod.name_any(), lost.why));
            assert_eq!(deleted.is_some(), expected, "{name}: {deleted:?}");
            assert!(deleted.is_none_or(|(name, why)| name == pod && why.contains(&pod)));
        }
    }

    /// If all devices of a service fail at once, it must not lose all servers at once.
    #[test]
    fn one_pod_a_minute_is_deleted() {
        let mut cluster = serving("tpu");
        for index in 0..3 {
            cluster.says(index, &unhealthy("Unhealthy"));
        }
        let mut deleted = Vec::new();
        for second in 0..150 {
            let plan = cluster.pass();
            deleted.extend(plan.lost.as_ref().map(|lost| (second, lost.pod.name_any())));
            if let Some(lost) = plan.lost {
                let live = cluster.observed.deployments[0].clone();
                assert!(live.annotations().contains_key(LOST_ANNOTATION));
                cluster.delete(&lost.pod.name_any());
            }
            cluster.go_on();
        }
        let seconds: Vec<i32> = deleted.iter().map(|(second, _)| *second).collect();
        assert_eq!(seconds, [0, 60, 120]);
        assert_eq!(cluster.answering(), 3);
    }
}
