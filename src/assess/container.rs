//! Container: why containers keep a pod from being ready. They are told apart by name: every container except the
//! server's, and the one that gets its model, was injected by somebody else. Pure.

use super::{
    cause::{Cause, brief},
    ended::{ending, is_out_of_memory, not_created, said, terminated, waiting},
    fetching,
    pull::{Pull, model_pull, no_image_volumes, patience, runtime_pull},
};
use crate::{
    cache::pod::{ContainerStatus, Pod},
    reason::Reason,
    revision::{FrozenSource, Images},
};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::ContainerStateWaiting;
use modelservice_contract::{ExitReason, TerminationMessage};

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
    /// All of it: the server's message first, then that of what gets its model, then those of the others by name.
    pub cause: Cause,
    /// Whether one of ours is among the failing containers.
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
    let fetcher = fetchers(pod, images)
        .into_iter()
        .find_map(|(status, source)| fetching::failing(status, source, images, known.is_patient, now));
    let is_server = server.is_some() || fetcher.is_some();
    let others: Vec<Cause> = others(pod, images)
        .iter()
        .filter_map(|other| other.cause(known))
        .collect();
    let more = others.len().saturating_sub(TOLD);
    let told = others.into_iter().take(TOLD);
    let mut cause = server
        .into_iter()
        .chain(fetcher)
        .chain(told)
        .reduce(|first, next| Cause {
            reason: first.reason,
            message: format!("{}; {}", first.message, next.message),
            stalled: first.stalled || next.stalled,
        })?;
    if more > 0 {
        cause.message = format!("{}; further failing injected containers: {more}", cause.message);
    }
    Some(Failing { cause, is_server })
}

/// What a pod is waiting for although nothing in it fails: its model; injected containers, while the server is ready or
/// cannot start; or else a readiness gate, which something outside the pod has to open.
pub(super) fn held_by(pod: &Pod, images: &Images) -> Option<String> {
    let mut fetchers = fetchers(pod, images).into_iter();
    if let Some(does) = fetchers.find_map(|(status, source)| fetching::does(status, source)) {
        return Some(does);
    }
    let is_ready = server_of(pod).is_some_and(|server| server.ready);
    let holding = others(pod, images)
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

/// The containers that get the model, and where from.
fn fetchers<'a>(pod: &'a Pod, images: &'a Images) -> Vec<(&'a ContainerStatus, &'a FrozenSource)> {
    let source = images.source.as_ref();
    let containers = pod.status.init_container_statuses.iter();
    let all = containers.chain(&pod.status.container_statuses);
    all.filter(|status| fetching::is_ours(status, source))
        .filter_map(|status| Some((status, source?)))
        .collect()
}

/// A container that is not ours.
struct Other<'a> {
    status: &'a ContainerStatus,
    is_init: bool,
}

/// Containers other than ours that are not ready, by name.
fn others<'a>(pod: &'a Pod, images: &Images) -> Vec<Other<'a>> {
    let source = images.source.as_ref();
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
        .filter(|other| !other.status.ready && !fetching::is_ours(other.status, source))
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
