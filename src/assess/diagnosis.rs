//! Diagnosis: why the servers of a revision are not ready, from what its pods and its Deployment say. Pure.

use super::{
    cause::{Cause, brief},
    claims,
    container::{failing, held_by},
};
use crate::{
    cache::pod::Pod,
    crd::{AcceleratorClass, CLASS_ANNOTATION, Sharing},
    observe::Observed,
    reason::Reason,
    revision::{Images, condition, exceeds_quota, refused_pods},
};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::apps::v1::Deployment;
use kube::ResourceExt as _;

/// How soon after a pod has failed its ReplicaSet creates another.
const REPLACED_WITHIN: SignedDuration = SignedDuration::from_mins(1);

/// What the scheduler says if devices that are claimed by DRA are not free.
const NO_DEVICES: &str = "cannot allocate all claims";

/// What keeps a revision's servers from being ready; `None` while nothing looks wrong. Running pods take precedence
/// over terminated ones: an evicted pod stays for hours.
pub(super) fn diagnose(
    observed: &Observed,
    revision: &str,
    deployment: &Deployment,
    class: Option<&AcceleratorClass>,
) -> Option<Cause> {
    let pods = unready_pods(observed, revision);
    let overdue = progress_deadline_exceeded(deployment);
    let images = Images::of(deployment);
    let cause = containers(&pods, &images, observed.now)
        .or_else(|| no_room(observed, revision, deployment, class))
        .or_else(|| failed_pod(observed, revision));
    let held = || pods.iter().find_map(|pod| held_by(pod, &images));
    match (cause, overdue) {
        (Some(cause), overdue) => Some(Cause {
            stalled: cause.stalled || overdue.is_some(),
            ..cause
        }),
        (None, Some(message)) => Some(Cause::stalled(
            Reason::ProgressDeadlineExceeded,
            held().map_or_else(
                || format!(
                    "{message} The servers start but do not become ready: `kubectl logs` of a pod may say \
                     more; raise spec.rollout.progressDeadlineSeconds to give them more time"
                ),
                |held| format!("{message} In a pod, {held}"),
            ),
        )),
        (None, None) => held().map(|held| Cause::waiting(Reason::Progressing, held)),
    }
}

/// The class of a revision, as it is now.
pub(super) fn class_of<'a>(observed: &'a Observed, deployment: &Deployment) -> Option<&'a AcceleratorClass> {
    let name = deployment.annotations().get(CLASS_ANNOTATION)?;
    observed.classes.get(name).map(AsRef::as_ref)
}

/// Why no node or no quota takes more of a revision's servers.
pub(super) fn no_room(
    observed: &Observed,
    revision: &str,
    deployment: &Deployment,
    class: Option<&AcceleratorClass>,
) -> Option<Cause> {
    let pods = unready_pods(observed, revision);
    pods.iter()
        .find_map(|pod| unschedulable(pod, class))
        .or_else(|| claims::missing(deployment, &pods, observed.now))
        .or_else(|| refusal(deployment))
}

/// By their names: the cache has no order, and the message must not flap between pods.
fn unready_pods<'a>(observed: &'a Observed, revision: &'a str) -> Vec<&'a Pod> {
    let pods = observed.pods_of(revision).map(AsRef::as_ref);
    let mut unready: Vec<&Pod> = pods.filter(|pod: &&Pod| !pod.is_ready()).collect();
    unready.sort_by_key(|pod| pod.name_any());
    unready
}

/// The cause in the first pod whose server fails, or else in the first in which anything fails.
fn containers(pods: &[&Pod], images: &Images, now: Timestamp) -> Option<Cause> {
    let mut failing: Vec<_> = pods.iter().filter_map(|pod| failing(pod, images, now)).collect();
    failing.sort_by_key(|failing| !failing.is_server);
    failing.into_iter().next().map(|failing| failing.cause)
}

/// A pod that its node terminated or rejected, in the kubelet's words, until another has taken its place, even if
/// that one is gone again.
fn failed_pod(observed: &Observed, revision: &str) -> Option<Cause> {
    let pod = observed
        .failed_pods_of(revision)
        .max_by_key(|pod| (ended_at(pod), pod.name_any()))?;
    let ended = ended_at(pod);
    let newer = || {
        observed
            .pods_of(revision)
            .filter(|other| created_at(other) >= ended)
    };
    let first = newer().filter_map(|other| created_at(other)).min();
    let is_first_gone = first > ended.map(|ended| ended + REPLACED_WITHIN);
    let is_replaced = is_first_gone || newer().any(|other| other.is_ready());
    let words: Vec<&str> = [&pod.status.reason, &pod.status.message]
        .into_iter()
        .filter_map(|words| words.as_deref())
        .collect();
    (!is_replaced && !words.is_empty()).then(|| {
        let message = format!(
            "a node terminated or rejected a server's pod: {}",
            brief(&words.join(": "))
        );
        Cause::waiting(Reason::PodFailed, message)
    })
}

/// When the last container of a pod terminated; a pod that its node rejected has none.
fn ended_at(pod: &Pod) -> Option<Timestamp> {
    let ends = pod.status.container_statuses.iter().filter_map(|container| {
        let ended = container.state.as_ref()?.terminated.as_ref()?;
        ended.finished_at.as_ref().map(|at| at.0)
    });
    ends.max().or_else(|| created_at(pod))
}

fn created_at(pod: &Pod) -> Option<Timestamp> {
    pod.metadata.creation_timestamp.as_ref().map(|at| at.0)
}

fn unschedulable(pod: &Pod, class: Option<&AcceleratorClass>) -> Option<Cause> {
    let message = pod.unschedulable()?;
    let class = class.filter(|class| class.spec.resource.is_some() || class.spec.device_request.is_some());
    let on = class.map(|class| format!(" on AcceleratorClass \"{}\"", class.name_any()));
    Some(Cause::waiting(
        Reason::Unschedulable,
        format!(
            "no node can run the servers{}: {}; {}",
            on.unwrap_or_default(),
            brief(message),
            advice(message, class)
        ),
    ))
}

/// What to do for a pod that no node takes, in the scheduler's words.
fn advice(message: &str, device: Option<&AcceleratorClass>) -> String {
    let nowhere = device.and_then(AcceleratorClass::why_not_ready);
    let is_exclusive = device.is_some_and(|class| class.spec.sharing == Sharing::Exclusive);
    let is_for_devices = message.contains("Insufficient") || message.contains(NO_DEVICES);
    match nowhere {
        Some(nowhere) => nowhere.to_owned(),
        None if is_exclusive && is_for_devices => {
            "each server needs a device of its own and none is free: free one, add a node, or set \
             spec.rollout.strategy to Rolling, which replaces one server after the other, or to Recreate, which \
             stops the old servers first"
                .to_owned()
        }
        None => {
            "add a node that fits or change spec.resources, spec.accelerators, spec.pod or spec.server.cache"
                .to_owned()
        }
    }
}

/// The ReplicaSet could not create pods: quota, LimitRange, Pod Security or another policy.
fn refusal(deployment: &Deployment) -> Option<Cause> {
    let message = refused_pods(deployment)?;
    Some(if exceeds_quota(message) || message.contains("must specify") {
        Cause::waiting(
            Reason::QuotaExceeded,
            format!(
                "{}; raise the quota or lower spec.resources or the number of servers",
                brief(message)
            ),
        )
    } else {
        Cause::stalled(
            Reason::PodsForbidden,
            format!(
                "the namespace's policies forbid the servers' pods: {}",
                brief(message)
            ),
        )
    })
}

fn progress_deadline_exceeded(deployment: &Deployment) -> Option<String> {
    let progressing = condition(deployment, "Progressing")?;
    (progressing.reason.as_deref() == Some("ProgressDeadlineExceeded")).then(|| {
        format!(
            "{}.",
            progressing
                .message
                .as_deref()
                .unwrap_or("no progress")
                .trim_end_matches('.')
        )
    })
}
