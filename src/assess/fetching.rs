//! Fetching: what the containers say that find, fetch or verify a model. Pure.

use super::{
    cause::{Cause, brief},
    ended::{ending, is_out_of_memory, not_created, said, terminated, waiting},
    pull::{model_pull, no_image_volumes, runtime_pull},
};
use crate::{
    cache::pod::ContainerStatus,
    crd::{FETCH_CONTAINER, RESOLVE_CONTAINER, VERIFY_CONTAINER},
    reason::Reason,
    revision::{FrozenSource, Images, Source},
};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::ContainerStateTerminated;
use modelservice_contract::{FetchFailure, FetchReason};

/// Whether a container is one of ours, in a pod that has one: somebody may inject one of the same name elsewhere.
pub(super) fn is_ours(status: &ContainerStatus, source: Option<&FrozenSource>) -> bool {
    let has_one = source.is_some_and(|source| source.fetcher_image.is_some());
    has_one && [FETCH_CONTAINER, VERIFY_CONTAINER, RESOLVE_CONTAINER].contains(&status.name.as_str())
}

/// What such a container does, while it does it.
pub(super) fn does(status: &ContainerStatus, source: &FrozenSource) -> Option<String> {
    if !runs(status) {
        return None;
    }
    let uri = source.source.uri();
    Some(match status.name.as_str() {
        VERIFY_CONTAINER => format!("the signature of the model {uri} is being checked"),
        RESOLVE_CONTAINER => return None,
        _ => format!(
            "the model is being fetched from {uri} (the log of the container {FETCH_CONTAINER} has the progress; \
             spec.rollout.fetchDeadlineSeconds is its limit)"
        ),
    })
}

/// Why such a container has not done its work.
pub(super) fn failing(
    status: &ContainerStatus,
    source: &FrozenSource,
    images: &Images,
    is_patient: bool,
    now: Timestamp,
) -> Option<Cause> {
    if status.ready {
        return None;
    }
    let ours = Images {
        runtime: source.fetcher_image.clone().unwrap_or_default(),
        ..Images::default()
    };
    waiting(status)
        .and_then(|waiting| {
            no_image_volumes(waiting)
                .or_else(|| model_pull(waiting, images, is_patient))
                .or_else(|| runtime_pull(waiting, &ours, is_patient))
                .or_else(|| not_created(waiting))
        })
        .or_else(|| termination(status, source, now))
        .map(|cause| Cause {
            // It runs again, and may succeed this time.
            stalled: cause.stalled && !runs(status),
            ..cause
        })
}

fn runs(status: &ContainerStatus) -> bool {
    status.state.as_ref().is_some_and(|state| state.running.is_some())
}

fn termination(status: &ContainerStatus, source: &FrozenSource, now: Timestamp) -> Option<Cause> {
    let ended = terminated(status, now)?;
    if let Ok(failure) = serde_json::from_str::<FetchFailure>(ended.message.as_deref().unwrap_or_default()) {
        return Some(failed(&failure, ended, source));
    }
    if is_out_of_memory(ended) {
        return Some(Cause::stalled(
            Reason::OutOfMemory,
            format!(
                "the container {} was killed because it needed more memory than its limit: raise \
                 spec.fetch.resources.limits.memory",
                status.name
            ),
        ));
    }
    (ended.exit_code != 0).then(|| {
        let message = format!(
            "the container {} terminates with {}{}",
            status.name,
            ending(ended),
            said(ended)
        );
        Cause::stalled(Reason::ModelFetchFailed, message)
    })
}

/// A store that is down may come back: the container is restarted, and goes on where it was.
fn failed(failure: &FetchFailure, ended: &ContainerStateTerminated, source: &FrozenSource) -> Cause {
    let reason = Reason::of_fetch(failure.reason);
    let message = format!(
        "{} (exit code {}){}",
        brief(&failure.message),
        ended.exit_code,
        advice(failure.reason, source).unwrap_or_default()
    );
    match failure.reason {
        FetchReason::Unavailable => Cause::waiting(reason, message),
        _ => Cause::stalled(reason, message),
    }
}

/// What the fetcher cannot say, because it knows nothing of the spec.
fn advice(reason: FetchReason, source: &FrozenSource) -> Option<String> {
    let uri = source.source.uri();
    let is_registry = uri.starts_with("oci://") && matches!(source.source, Source::Fetched { .. });
    match (reason, &source.secret) {
        (FetchReason::Denied, Some(secret)) => Some(format!(
            "; the credentials are those of Secret \"{secret}\" (spec.fetch.credentials)"
        )),
        (FetchReason::Denied, None) if is_registry => Some(
            "; what is fetched uses spec.pod.imagePullSecrets: the credential providers and mirrors of the nodes do not \
             apply to it"
                .to_owned(),
        ),
        (FetchReason::Denied, None) => {
            Some("; name a Secret in spec.fetch.credentials, or set spec.fetch.identity to Pod".to_owned())
        }
        (FetchReason::SourceChanged, _) => {
            Some("; set spec.model.refresh to a new value to serve what is there now".to_owned())
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests;
