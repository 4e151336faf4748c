//! Ended: what a container's state says about how it waits or ended. Pure.

use super::cause::{Cause, brief};
use crate::{cache::pod::ContainerStatus, reason::Reason};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{ContainerState, ContainerStateTerminated, ContainerStateWaiting};

/// How long a container must run again until its last termination no longer explains anything. The kubelet forgets
/// its restarts after the same time.
const RECOVERY: SignedDuration = SignedDuration::from_mins(10);

pub(super) fn waiting(status: &ContainerStatus) -> Option<&ContainerStateWaiting> {
    status.state.as_ref()?.waiting.as_ref()
}

/// How it terminated: this time, or last time if it has not recovered since.
pub(super) fn terminated(status: &ContainerStatus, now: Timestamp) -> Option<&ContainerStateTerminated> {
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

pub(super) fn not_created(waiting: &ContainerStateWaiting) -> Option<Cause> {
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

/// The exit code, and the signal that it stands for.
pub(super) fn ending(ended: &ContainerStateTerminated) -> String {
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

pub(super) fn said(ended: &ContainerStateTerminated) -> String {
    let message = ended.message.as_deref();
    message
        .map(|message| format!(": {}", brief(message)))
        .unwrap_or_default()
}

pub(super) fn is_out_of_memory(ended: &ContainerStateTerminated) -> bool {
    ended.reason.as_deref() == Some("OOMKilled") || ended.exit_code == 137 && was_killed(ended)
}

/// SIGKILL from the kernel's OOM killer, which the container runtime did not notice; when the kubelet kills a
/// container, it says so.
fn was_killed(ended: &ContainerStateTerminated) -> bool {
    ended.reason.as_deref() == Some("Error")
        && ended.message.as_deref().is_none_or(str::is_empty)
        && ended.signal.is_none()
}
