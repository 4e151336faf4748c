//! Container: what the containers of a pod say that keep it from being ready. They are told by their names: every one
//! but the server's was injected by somebody else. Pure.

use super::cause::{Cause, brief};
use crate::{
    cache::pod::{ContainerStatus, Pod},
    reason::Reason,
    revision::Images,
};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{ContainerState, ContainerStateTerminated, ContainerStateWaiting};
use modelservice_contract::{ExitReason, TerminationMessage};

/// How old a pod is when an image that still cannot be pulled is told as Stalled. Until then the kubelet has tried
/// four times: a registry that restarts must not end a deployment that waits for it.
const PULL_PATIENCE: SignedDuration = SignedDuration::from_secs(60);

/// What fails in a pod.
pub(super) struct Failing {
    /// All of it: the server's words first, then those of the others by their names.
    pub cause: Cause,
    /// Whether the server is among it.
    pub is_server: bool,
}

/// What fails in a pod that is not ready.
pub(super) fn failing(pod: &Pod, images: &Images, now: Timestamp) -> Option<Failing> {
    let is_patient = is_young(pod, now);
    let server = server_of(pod).and_then(|status| server(status, images, is_patient));
    let is_server = server.is_some();
    let others = others(pod)
        .into_iter()
        .filter_map(|other| other.cause(images, is_patient));
    let cause = server.into_iter().chain(others).reduce(|first, next| Cause {
        reason: first.reason,
        message: format!("{}; {}", first.message, next.message),
        stalled: first.stalled || next.stalled,
    })?;
    Some(Failing { cause, is_server })
}

/// What a pod waits for although nothing in it fails: injected containers, while the server is ready or cannot start.
pub(super) fn held_by(pod: &Pod) -> Option<String> {
    let is_ready = server_of(pod).is_some_and(|server| server.ready);
    let holding = others(pod)
        .into_iter()
        .filter(|other| other.is_running() && (is_ready || other.is_init));
    let names: Vec<String> = holding.map(|other| other.name()).collect();
    (!names.is_empty()).then(|| format!("{} not ready yet", is_or_are(&names)))
}

fn is_or_are(names: &[String]) -> String {
    format!(
        "{} {}",
        names.join(" and "),
        if names.len() == 1 { "is" } else { "are" }
    )
}

fn is_young(pod: &Pod, now: Timestamp) -> bool {
    let created = pod.metadata.creation_timestamp.as_ref();
    created.is_some_and(|created| now.duration_since(created.0) < PULL_PATIENCE)
}

fn server_of(pod: &Pod) -> Option<&ContainerStatus> {
    pod.status
        .container_statuses
        .iter()
        .find(|container| container.is_server())
}

/// A container that is not the server.
struct Other<'a> {
    status: &'a ContainerStatus,
    is_init: bool,
}

/// Containers that are not ready and not the server, by their names.
fn others(pod: &Pod) -> Vec<Other<'_>> {
    let with = |is_init: bool| move |status| Other { status, is_init };
    let init = pod.status.init_container_statuses.iter().map(with(true));
    let beside = pod
        .status
        .container_statuses
        .iter()
        .filter(|status| !status.is_server());
    let mut others: Vec<_> = beside
        .map(with(false))
        .chain(init)
        .filter(|other| !other.status.ready)
        .collect();
    others.sort_by_key(|other| &other.status.name);
    others
}

impl Other<'_> {
    fn name(&self) -> String {
        let kind = if self.is_init {
            "init container"
        } else {
            "container"
        };
        format!("the injected {kind} {}", self.status.name)
    }

    fn is_running(&self) -> bool {
        self.status
            .state
            .as_ref()
            .is_some_and(|state| state.running.is_some())
    }

    fn cause(&self, images: &Images, is_patient: bool) -> Option<Cause> {
        let waiting = waiting(self.status);
        let model = waiting.and_then(|waiting| model_pull(waiting, images, is_patient));
        if model.is_some() {
            return model;
        }
        let (said, stalled) = waiting
            .and_then(|waiting| self.not_started(waiting, is_patient))
            .or_else(|| Some((self.ended()?, true)))?;
        Some(Cause {
            reason: Reason::InjectedContainerFailed,
            message: format!("{} {said}; correct it where it is injected", self.name()),
            stalled,
        })
    }

    fn not_started(&self, waiting: &ContainerStateWaiting, is_patient: bool) -> Option<(String, bool)> {
        let message = waiting.message.as_deref().unwrap_or_default();
        if let Some(pull) = Pull::of(waiting) {
            let said = format!("has no image: it cannot be pulled ({})", brief(pull.said));
            return Some((said, !(is_patient && pull.is_repeated)));
        }
        let fails = matches!(
            waiting.reason.as_deref()?,
            "CreateContainerConfigError"
                | "CreateContainerError"
                | "RunContainerError"
                | "PostStartHookError"
        );
        fails.then(|| (format!("cannot be started: {}", brief(message)), true))
    }

    /// How it ended, this time or the last; its memory is not the server's.
    fn ended(&self) -> Option<String> {
        let ended = terminated(self.status)?;
        let is_repeated =
            waiting(self.status).and_then(|waiting| waiting.reason.as_deref()) == Some("CrashLoopBackOff");
        if ended.exit_code == 0 && !is_repeated {
            return None;
        }
        if is_out_of_memory(ended) {
            return Some("was killed because it needed more memory than its own limit".to_owned());
        }
        Some(format!("ends with {}{}", ending(ended), said(ended)))
    }
}

fn server(status: &ContainerStatus, images: &Images, is_patient: bool) -> Option<Cause> {
    if status.ready {
        return None;
    }
    waiting(status)
        .and_then(|waiting| {
            no_image_volumes(waiting)
                .or_else(|| model_pull(waiting, images, is_patient))
                .or_else(|| runtime_pull(waiting, images, is_patient))
                .or_else(|| not_created(waiting))
        })
        .or_else(|| termination(status))
}

fn waiting(status: &ContainerStatus) -> Option<&ContainerStateWaiting> {
    status.state.as_ref()?.waiting.as_ref()
}

/// How it ended, this time or the last.
fn terminated(status: &ContainerStatus) -> Option<&ContainerStateTerminated> {
    fn ended(state: Option<&ContainerState>) -> Option<&ContainerStateTerminated> {
        state?.terminated.as_ref()
    }
    ended(status.state.as_deref()).or_else(|| ended(status.last_state.as_deref()))
}

/// A container runtime that knows no image volumes either says so or takes the missing host path for a folder to
/// make: containerd 2.0 says `failed to mkdir "": mkdir : no such file or directory`.
fn no_image_volumes(waiting: &ContainerStateWaiting) -> Option<Cause> {
    let message = waiting.message.as_deref().unwrap_or_default();
    let lower = message.to_lowercase();
    let is_refused = lower.contains("image volume")
        && ["not supported", "unsupported", "not support", "not implemented"]
            .iter()
            .any(|words| lower.contains(words));
    let is_mistaken = waiting.reason.as_deref() == Some("CreateContainerError")
        && lower.contains("failed to mkdir")
        && !["no space left", "read-only", "permission denied"]
            .iter()
            .any(|words| lower.contains(words));
    (is_refused || is_mistaken).then(|| {
        Cause::stalled(
            Reason::UnsupportedCluster,
            format!(
                "the node's container runtime cannot mount image volumes: containerd 2.1 or newer, or CRI-O 1.31 or newer, is needed; upgrade it, or keep the servers off such nodes with spec.pod.nodeSelector ({})",
                brief(message)
            ),
        )
    })
}

/// An image that cannot be pulled.
struct Pull<'a> {
    /// The same for an attempt and for its back-off, so that the status does not change between the two.
    said: &'a str,
    /// Whether the kubelet tries again and may succeed.
    is_repeated: bool,
}

impl<'a> Pull<'a> {
    fn of(waiting: &'a ContainerStateWaiting) -> Option<Self> {
        let is_repeated = match waiting.reason.as_deref()? {
            "ErrImagePull" | "ImagePullBackOff" | "RegistryUnavailable" | "ImageInspectError" => true,
            "InvalidImageName" | "ErrImageNeverPull" | "SignatureValidationFailed" => false,
            _ => return None,
        };
        let message = waiting.message.as_deref().unwrap_or_default();
        let said = message
            .split_once("ErrImagePull: ")
            .map_or(message, |(_, said)| said);
        Some(Self { said, is_repeated })
    }

    fn cause(&self, is_patient: bool, reason: Reason, message: String) -> Cause {
        let message = format!("{message} ({})", brief(self.said));
        if is_patient && self.is_repeated {
            Cause::waiting(reason, message)
        } else {
            Cause::stalled(reason, message)
        }
    }
}

/// An image volume and the container's own image fail with the same reasons; the message tells them apart.
fn model_pull(waiting: &ContainerStateWaiting, images: &Images, is_patient: bool) -> Option<Cause> {
    let (pull, message) = (Pull::of(waiting)?, waiting.message.as_deref()?);
    let image = images.model.as_deref()?;
    (message.contains(image) && image != images.runtime).then(|| {
        let message = format!(
            "the model image {image} cannot be pulled: check spec.model.image, that the registry is reachable from the nodes, and spec.pod.imagePullSecrets"
        );
        pull.cause(is_patient, Reason::ModelFetchFailed, message)
    })
}

fn runtime_pull(waiting: &ContainerStateWaiting, images: &Images, is_patient: bool) -> Option<Cause> {
    let message = format!(
        "the runtime image {} cannot be pulled: check the AcceleratorClass's runtime image or the operator's --runtime-image, and spec.pod.imagePullSecrets",
        images.runtime
    );
    Some(Pull::of(waiting)?.cause(is_patient, Reason::ImagePullFailed, message))
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
    let ended = terminated(status)?;
    if let Ok(words) =
        serde_json::from_str::<TerminationMessage>(ended.message.as_deref().unwrap_or_default())
    {
        let message = format!("{} (exit code {})", words.message, ended.exit_code);
        return Some(Cause::stalled(Reason::of_exit(words.reason), message));
    }
    if is_out_of_memory(ended) {
        return Some(Cause::stalled(
            Reason::OutOfMemory,
            "the server was killed because it needed more memory than its limit: raise spec.resources.limits.memory",
        ));
    }
    let reason = ExitReason::ALL
        .into_iter()
        .find(|reason| i32::from(reason.code()) == ended.exit_code);
    let said = said(ended);
    // Without the number of restarts: with it, each restart would write a status.
    let message = format!("the server ended with {}{said}", ending(ended));
    match reason {
        Some(reason) => Some(Cause::stalled(Reason::of_exit(reason), message)),
        // It ended well and is being started again.
        None if ended.exit_code == 0 => None,
        None => Some(Cause::stalled(
            Reason::CrashLooping,
            format!(
                "the server ends with {}{said}; `kubectl logs --previous` of the pod may say more",
                ending(ended)
            ),
        )),
    }
}

/// The exit code, and the signal that it stands for.
fn ending(ended: &ContainerStateTerminated) -> String {
    let code = ended.exit_code;
    match signal(ended.signal.unwrap_or(code - 128)) {
        Some(name) => format!("exit code {code} ({name})"),
        None => format!("exit code {code}"),
    }
}

/// Signals by which processes crash or are ended, with Linux' numbers (signal(7)).
const fn signal(number: i32) -> Option<&'static str> {
    Some(match number {
        4 => "SIGILL: illegal instruction",
        6 => "SIGABRT: aborted",
        7 => "SIGBUS: bad memory access",
        8 => "SIGFPE: arithmetic error",
        9 => "SIGKILL: killed",
        11 => "SIGSEGV: bad memory access",
        15 => "SIGTERM: terminated",
        _ => return None,
    })
}

fn said(ended: &ContainerStateTerminated) -> String {
    let message = ended.message.as_deref();
    message
        .map(|message| format!(": {}", brief(message)))
        .unwrap_or_default()
}

fn is_out_of_memory(ended: &ContainerStateTerminated) -> bool {
    ended.reason.as_deref() == Some("OOMKilled") || ended.exit_code == 137 && was_killed(ended)
}

/// SIGKILL by the kernel's OOM killer, unnoticed by the container runtime; when the kubelet kills, it says so.
fn was_killed(ended: &ContainerStateTerminated) -> bool {
    ended.reason.as_deref() == Some("Error")
        && ended.message.as_deref().is_none_or(str::is_empty)
        && ended.signal.is_none()
}
