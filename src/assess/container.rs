//! Container: why containers keep a pod from being ready. They are told apart by name: every container except the
//! server's was injected by somebody else. Pure.

use super::{
    cause::{Cause, brief},
    pull::{Pull, model_pull, no_image_volumes, patience, runtime_pull},
};
use crate::{
    cache::pod::{ContainerStatus, Pod},
    reason::Reason,
    revision::Images,
};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{ContainerState, ContainerStateTerminated, ContainerStateWaiting};
use modelservice_contract::{ExitReason, TerminationMessage};

/// How long a container must run again until its last termination no longer explains anything. The kubelet forgets
/// its restarts after the same time.
const RECOVERY: SignedDuration = SignedDuration::from_mins(10);

/// How many injected containers are reported with their messages.
const TOLD: usize = 8;

/// What a container's message depends on, besides its status.
#[derive(Clone, Copy)]
struct Known<'a> {
    images: &'a Images,
    /// Whether a failing pull is given more time.
    is_patient: bool,
    now: Timestamp,
}

/// What fails in a pod.
pub(super) struct Failing {
    /// All of it: the server's message first, then those of the others by name.
    pub cause: Cause,
    /// Whether the server is among the failing containers.
    pub is_server: bool,
}

/// What fails in a pod that is not ready.
pub(super) fn failing(pod: &Pod, images: &Images, now: Timestamp) -> Option<Failing> {
    let known = Known {
        images,
        is_patient: patience(pod, now).is_some(),
        now,
    };
    let server = server_of(pod).and_then(|status| server(status, known));
    let is_server = server.is_some();
    let others: Vec<Cause> = others(pod)
        .iter()
        .filter_map(|other| other.cause(known))
        .collect();
    let more = others.len().saturating_sub(TOLD);
    let told = others.into_iter().take(TOLD);
    let mut cause = server.into_iter().chain(told).reduce(|first, next| Cause {
        reason: first.reason,
        message: format!("{}; {}", first.message, next.message),
        stalled: first.stalled || next.stalled,
    })?;
    if more > 0 {
        cause.message = format!("{}; further failing injected containers: {more}", cause.message);
    }
    Some(Failing { cause, is_server })
}

/// What a pod is waiting for although nothing in it fails: injected containers, while the server is ready or cannot
/// start, or else a readiness gate, which something outside the pod has to open.
pub(super) fn held_by(pod: &Pod) -> Option<String> {
    let is_ready = server_of(pod).is_some_and(|server| server.ready);
    let holding = others(pod)
        .into_iter()
        .filter(|other| other.has_begun() && (is_ready || other.is_init));
    let names: Vec<String> = holding.map(|other| other.name()).collect();
    if names.is_empty() {
        return closed_gate(pod);
    }
    Some(format!("{} not ready yet", is_or_are(&names)))
}

fn closed_gate(pod: &Pod) -> Option<String> {
    let ready = pod.condition("Ready")?;
    (ready.reason.as_deref() == Some("ReadinessGatesNotReady")).then(|| {
        let message = brief(ready.message.as_deref().unwrap_or_default());
        format!("every container is ready, but a readiness gate is not: {message}")
    })
}

fn is_or_are(names: &[String]) -> String {
    format!(
        "{} {}",
        names.join(" and "),
        if names.len() == 1 { "is" } else { "are" }
    )
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

/// Containers other than the server that are not ready, by name.
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

    /// Whether it is running, or has run and is about to be restarted.
    fn has_begun(&self) -> bool {
        let state = self.status.state.as_ref();
        state.is_some_and(|state| state.running.is_some() || state.terminated.is_some())
    }

    fn cause(&self, known: Known<'_>) -> Option<Cause> {
        let waiting = waiting(self.status);
        let model = waiting.and_then(|waiting| model_pull(waiting, known.images, known.is_patient));
        if model.is_some() {
            return model;
        }
        let (said, stalled) = waiting
            .and_then(|waiting| not_started(waiting, known.is_patient))
            .or_else(|| Some((self.ended(known.now)?, true)))?;
        Some(Cause {
            reason: Reason::InjectedContainerFailed,
            message: format!("{} {said}; fix it where it is injected", self.name()),
            stalled,
        })
    }

    /// How it terminated, this time or last time; its memory is not the server's.
    fn ended(&self, now: Timestamp) -> Option<String> {
        let ended = terminated(self.status, now)?;
        let is_repeated = self.status.waits_for() == Some("CrashLoopBackOff");
        if ended.exit_code == 0 && !is_repeated {
            return None;
        }
        if is_out_of_memory(ended) {
            return Some("was killed because it needed more memory than its own limit".to_owned());
        }
        Some(format!("terminates with {}{}", ending(ended), said(ended)))
    }
}

/// Why an injected container cannot start, and whether that is Stalled.
fn not_started(waiting: &ContainerStateWaiting, is_patient: bool) -> Option<(String, bool)> {
    let message = waiting.message.as_deref().unwrap_or_default();
    if let Some(pull) = Pull::of(waiting) {
        let said = format!(
            "cannot start, because its image cannot be pulled ({})",
            brief(pull.said)
        );
        return Some((said, !(is_patient && pull.is_repeated)));
    }
    let fails = matches!(
        waiting.reason.as_deref()?,
        "CreateContainerConfigError" | "CreateContainerError" | "RunContainerError" | "PostStartHookError"
    );
    fails.then(|| (format!("cannot be started: {}", brief(message)), true))
}

fn server(status: &ContainerStatus, known: Known<'_>) -> Option<Cause> {
    let Known {
        images,
        is_patient,
        now,
    } = known;
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
        .or_else(|| termination(status, now))
}

fn waiting(status: &ContainerStatus) -> Option<&ContainerStateWaiting> {
    status.state.as_ref()?.waiting.as_ref()
}

/// How it terminated: this time, or last time if it has not recovered since.
fn terminated(status: &ContainerStatus, now: Timestamp) -> Option<&ContainerStateTerminated> {
    fn ended(state: Option<&ContainerState>) -> Option<&ContainerStateTerminated> {
        state?.terminated.as_ref()
    }
    let last = || ended(status.last_state.as_deref()).filter(|_| !has_recovered(status, now));
    ended(status.state.as_deref()).or_else(last)
}

/// Whether it has been restarted and has run for long enough since. A server that is still loading its model has not
/// started.
fn has_recovered(status: &ContainerStatus, now: Timestamp) -> bool {
    let running = status.state.as_ref().and_then(|state| state.running.as_ref());
    let since = running.and_then(|running| running.started_at.as_ref());
    status.started == Some(true) && since.is_some_and(|since| now.duration_since(since.0) >= RECOVERY)
}

fn not_created(waiting: &ContainerStateWaiting) -> Option<Cause> {
    let message = waiting.message.as_deref().unwrap_or_default();
    match waiting.reason.as_deref()? {
        "CreateContainerConfigError" => Some(Cause::stalled(
            Reason::InvalidSpec,
            format!(
                "the kubelet cannot create the container: {}; check the objects that spec.pod refers to",
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

/// What the server said when it terminated, this time or last time.
fn termination(status: &ContainerStatus, now: Timestamp) -> Option<Cause> {
    let ended = terminated(status, now)?;
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
    // Without the number of restarts: otherwise each restart would write a status.
    let message = format!("the server terminated with {}{said}", ending(ended));
    match reason {
        Some(reason) => Some(Cause::stalled(Reason::of_exit(reason), message)),
        // It ended without an error and is being restarted.
        None if ended.exit_code == 0 => None,
        None => Some(Cause::stalled(
            Reason::CrashLooping,
            format!(
                "the server terminates with {}{said}; `kubectl logs --previous` of the pod may say more",
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

/// Signals that end processes, with Linux's numbers (signal(7)).
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

/// SIGKILL from the kernel's OOM killer, which the container runtime did not notice; when the kubelet kills a
/// container, it says so.
fn was_killed(ended: &ContainerStateTerminated) -> bool {
    ended.reason.as_deref() == Some("Error")
        && ended.message.as_deref().is_none_or(str::is_empty)
        && ended.signal.is_none()
}
