//! Cause: why the servers of a revision are not ready, from what its pods, its Deployment and the servers'
//! termination messages say. Pure.

use crate::{
    cache::pod::{ContainerStatus, Pod},
    observe::Observed,
    reason::Reason,
    revision::Images,
};
use k8s_openapi::api::{
    apps::v1::Deployment,
    core::v1::{ContainerState, ContainerStateTerminated, ContainerStateWaiting},
};
use kube::ResourceExt as _;
use modelservice_contract::{ExitReason, TerminationMessage};

/// Why servers are not ready.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cause {
    /// The condition's reason.
    pub reason: Reason,
    /// What happened and what to do.
    pub message: String,
    /// Whether only a change by somebody can help.
    pub stalled: bool,
}

impl Cause {
    fn stalled(reason: Reason, message: impl Into<String>) -> Self {
        Self {
            reason,
            message: message.into(),
            stalled: true,
        }
    }

    /// May resolve itself: a node may be added, quota may be freed.
    fn waiting(reason: Reason, message: impl Into<String>) -> Self {
        Self {
            reason,
            message: message.into(),
            stalled: false,
        }
    }
}

/// The first cause found in a revision's pods and Deployment; `None` while nothing looks wrong.
#[must_use]
pub fn find(
    observed: &Observed,
    revision: &str,
    deployment: &Deployment,
    is_exclusive: bool,
) -> Option<Cause> {
    let images = Images::of(deployment);
    let mut pods: Vec<&Pod> = observed
        .pods_of(revision)
        .map(AsRef::as_ref)
        .filter(|pod| !pod.is_ready())
        .collect();
    // The cache has no order, and the message must not flap between pods.
    pods.sort_by_key(|pod| pod.name_any());
    let overdue = progress_deadline_exceeded(deployment);
    let cause = pods
        .iter()
        .find_map(|pod| container(pod, &images))
        .or_else(|| pods.iter().find_map(|pod| unschedulable(pod, is_exclusive)))
        .or_else(|| refused_pods(deployment));
    match (cause, overdue) {
        (Some(cause), overdue) => Some(Cause {
            stalled: cause.stalled || overdue.is_some(),
            ..cause
        }),
        (None, Some(message)) => Some(Cause::stalled(
            Reason::ProgressDeadlineExceeded,
            format!(
                "{message} The servers start but do not become ready: `kubectl logs` of a pod may say more; spec.rollout.progressDeadlineSeconds gives them longer"
            ),
        )),
        (None, None) => None,
    }
}

fn container(pod: &Pod, images: &Images) -> Option<Cause> {
    let status = pod.status.container_statuses.first()?;
    let waiting = status.state.as_ref().and_then(|state| state.waiting.as_ref());
    waiting
        .and_then(|waiting| pull(waiting, images).or_else(|| not_created(waiting)))
        .or_else(|| termination(status))
}

/// An image volume and the container's own image fail with the same reasons; the message tells them apart.
fn pull(waiting: &ContainerStateWaiting, images: &Images) -> Option<Cause> {
    let reason = waiting.reason.as_deref()?;
    if !matches!(
        reason,
        "ErrImagePull"
            | "ImagePullBackOff"
            | "InvalidImageName"
            | "ErrImageNeverPull"
            | "RegistryUnavailable"
            | "ImageInspectError"
            | "SignatureValidationFailed"
    ) {
        return None;
    }
    let message = waiting.message.as_deref().unwrap_or_default();
    // The back-off repeats what the attempt said. Without the prefix the status does not change between the two.
    let said = message
        .split_once("ErrImagePull: ")
        .map_or(message, |(_, said)| said);
    let model = images
        .model
        .as_deref()
        .filter(|image| message.contains(*image) && *image != images.runtime);
    Some(match model {
        Some(image) => Cause::stalled(
            Reason::ModelFetchFailed,
            format!(
                "the model image {image} cannot be pulled: check spec.model.image, that the registry is reachable from the nodes, and spec.pod.imagePullSecrets ({})",
                brief(said)
            ),
        ),
        None => Cause::stalled(
            Reason::ImagePullFailed,
            format!(
                "the runtime image {} cannot be pulled: check the AcceleratorClass's runtime image or the operator's --runtime-image, and spec.pod.imagePullSecrets ({})",
                images.runtime,
                brief(said)
            ),
        ),
    })
}

fn not_created(waiting: &ContainerStateWaiting) -> Option<Cause> {
    let message = waiting.message.as_deref().unwrap_or_default();
    match waiting.reason.as_deref()? {
        "CreateContainerConfigError" => Some(Cause::stalled(
            Reason::InvalidSpec,
            format!(
                "the kubelet cannot make the container: {}; check what spec.pod refers to",
                brief(message)
            ),
        )),
        "CreateContainerError" | "RunContainerError" | "PostStartHookError" => Some(Cause::stalled(
            Reason::CrashLooping,
            format!("the container cannot be started: {}", brief(message)),
        )),
        _ => None,
    }
}

/// What the server said when it ended, this time or the last.
fn termination(status: &ContainerStatus) -> Option<Cause> {
    let terminated = |state: &Option<Box<ContainerState>>| state.as_ref()?.terminated.clone();
    let ended = terminated(&status.state).or_else(|| terminated(&status.last_state))?;
    if let Ok(words) =
        serde_json::from_str::<TerminationMessage>(ended.message.as_deref().unwrap_or_default())
    {
        let message = format!("{} (exit code {})", words.message, ended.exit_code);
        return Some(Cause::stalled(Reason::of_exit(words.reason), message));
    }
    if ended.reason.as_deref() == Some("OOMKilled") || ended.exit_code == 137 && was_killed(&ended) {
        return Some(Cause::stalled(
            Reason::OutOfMemory,
            "the server was killed because it needed more memory than its limit: raise spec.resources.limits.memory",
        ));
    }
    let reason = ExitReason::ALL
        .into_iter()
        .find(|reason| i32::from(reason.code()) == ended.exit_code);
    let said = ended
        .message
        .as_deref()
        .map(|message| format!(": {}", brief(message)))
        .unwrap_or_default();
    // Without the number of restarts: with it, each restart would write a status.
    let message = format!("the server ended with exit code {}{said}", ended.exit_code);
    match reason {
        Some(reason) => Some(Cause::stalled(Reason::of_exit(reason), message)),
        // It ended well and is being started again.
        None if ended.exit_code == 0 => None,
        None => Some(Cause::stalled(
            Reason::CrashLooping,
            format!(
                "the server ends with exit code {}{said}; `kubectl logs --previous` of the pod may say more",
                ended.exit_code
            ),
        )),
    }
}

/// SIGKILL by the kernel's OOM killer, unnoticed by the container runtime; when the kubelet kills, it says so.
fn was_killed(ended: &ContainerStateTerminated) -> bool {
    ended.reason.as_deref() == Some("Error")
        && ended.message.as_deref().is_none_or(str::is_empty)
        && ended.signal.is_none()
}

fn unschedulable(pod: &Pod, is_exclusive: bool) -> Option<Cause> {
    let scheduled = pod
        .condition("PodScheduled")
        .filter(|condition| condition.status == "False")?;
    let message = scheduled.message.as_deref().unwrap_or("no node fits");
    let advice = if is_exclusive && message.contains("Insufficient") {
        "; the device is given to one server alone and none is spare: free one, add a node, or set spec.rollout.strategy to Recreate, which ends the old servers first"
    } else {
        "; add a node that fits or change spec.resources, spec.accelerators, spec.pod or spec.server.cache"
    };
    Some(Cause::waiting(
        Reason::Unschedulable,
        format!("no node takes the servers: {}{advice}", brief(message)),
    ))
}

/// The ReplicaSet could not create pods: quota, LimitRange, Pod Security or another policy.
fn refused_pods(deployment: &Deployment) -> Option<Cause> {
    let failure = condition(deployment, "ReplicaFailure")
        .filter(|failure| failure.status.as_deref() == Some("True"))?;
    let message = failure.message.as_deref().unwrap_or_default();
    Some(
        if message.contains("exceeded quota") || message.contains("must specify") {
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
        },
    )
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

fn condition<'a>(
    deployment: &'a Deployment,
    type_: &str,
) -> Option<&'a k8s_openapi::api::apps::v1::DeploymentCondition> {
    deployment
        .status
        .as_ref()?
        .conditions
        .as_ref()?
        .iter()
        .find(|condition| condition.type_.as_deref() == Some(type_))
}

/// A message without the pod's name, which differs with each pod, and short enough for an event.
fn brief(message: &str) -> String {
    const MAX: usize = 600;
    let message = message.trim();
    let message = match (
        message.starts_with("pods \""),
        message.split_once("\" is forbidden: "),
    ) {
        (true, Some((_, rest))) => rest,
        _ => message,
    };
    match message.char_indices().nth(MAX) {
        Some((end, _)) => format!("{}…", &message[..end]),
        None => message.to_owned(),
    }
}
