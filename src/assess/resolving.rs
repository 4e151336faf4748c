//! Resolving: what is said while the version of a new revision's model is looked for. Pure.

use super::{
    cause::{Cause, brief},
    container,
    verdict::Verdict,
};
use crate::{
    cache::pod::Pod,
    crd::ModelServiceSpec,
    observe::Observed,
    plan::rollout::Rollout,
    reason::Reason,
    resolution::{Attempt, Ended, attempts, container as container_of},
    revision::{FrozenSource, Images, Source},
};
use k8s_openapi::api::core::v1::ContainerStateTerminated;
use modelservice_contract::{FetchFailure, IdentityKind, SourceIdentity};

/// What the kubelet calls a pod whose time is over.
const TIME_IS_OVER: &str = "DeadlineExceeded";
/// Exit codes of a container that its kubelet ends: by SIGTERM, or by SIGKILL.
const KILLED: [i32; 2] = [143, 137];

/// The verdict on a revision that waits for the version of its model; `beside` says what serves meanwhile. `None` if it
/// does not wait for one.
pub(super) fn verdict(observed: &Observed, rollout: &Rollout, beside: &str) -> Option<Verdict> {
    let uri = observed.service.spec.model.uri.as_deref()?;
    let all = attempts(&observed.resolvers, &rollout.target);
    // What was said last stays until something else is said: an attempt that begins says nothing.
    let cause = all.iter().find_map(|attempt| cause(observed, attempt));
    let revision = &rollout.target;
    Some(match cause {
        Some(Cause {
            reason,
            message,
            stalled,
        }) => Verdict::Failed {
            reason,
            message: format!("revision {revision}: {message}{beside}"),
            stalled,
        },
        None => Verdict::Progressing(format!(
            "revision {revision} begins when it is known which version of the model is at {uri}{beside}"
        )),
    })
}

fn cause(observed: &Observed, attempt: &Attempt) -> Option<Cause> {
    let pod = &attempt.pod;
    let failing = container::failing(pod, &images(&observed.service.spec), observed.now);
    let failing = failing.map(|failing| failing.cause);
    match attempt.ended {
        Some(Ended::Found(_)) => None,
        Some(Ended::Failed { .. }) => match termination(pod) {
            Some(ended) if is_of_the_fetcher(ended) => failing,
            Some(ended) if is_being_deleted(pod, ended) => None,
            // The container was ended with its pod: its exit code says nothing.
            _ if pod.status.reason.is_some() => Some(as_a_whole(pod)),
            _ => failing.or_else(|| Some(as_a_whole(pod))),
        },
        None => unschedulable(pod).or(failing),
    }
}

fn termination(pod: &Pod) -> Option<&ContainerStateTerminated> {
    container_of(pod)?.state.as_ref()?.terminated.as_ref()
}

/// Whether the container ended with words of its own.
fn is_of_the_fetcher(ended: &ContainerStateTerminated) -> bool {
    let message = ended.message.as_deref().unwrap_or_default();
    serde_json::from_str::<FetchFailure>(message).is_ok()
}

/// Whether somebody deletes the pod, and its container was ended for that: a drained node, for example.
fn is_being_deleted(pod: &Pod, ended: &ContainerStateTerminated) -> bool {
    pod.metadata.deletion_timestamp.is_some()
        && KILLED.contains(&ended.exit_code)
        && ended.reason.as_deref() != Some("OOMKilled")
}

/// What the pod was made with, as servers' pods have it in their frozen template.
fn images(spec: &ModelServiceSpec) -> Images {
    let secret = spec.fetch.credentials.as_ref();
    let source = Source::Fetched {
        uri: spec.model.uri.clone().unwrap_or_default(),
        identity: SourceIdentity {
            kind: IdentityKind::Version,
            value: String::new(),
            is_retained: true,
        },
    };
    Images {
        source: Some(FrozenSource {
            source,
            fetcher_image: Some("of the operator".to_owned()),
            secret: secret.map(|secret| secret.secret_name.clone()),
            is_retained: true,
            verification: None,
        }),
        ..Images::default()
    }
}

fn unschedulable(pod: &Pod) -> Option<Cause> {
    let message = pod.unschedulable()?;
    Some(Cause::waiting(
        Reason::Unschedulable,
        format!(
            "no node can run the pod that looks for the model: {}; add a node that fits or change \
             spec.fetch.resources or spec.pod",
            brief(message)
        ),
    ))
}

/// A pod that ended without its container having said anything.
fn as_a_whole(pod: &Pod) -> Cause {
    let words = [&pod.status.reason, &pod.status.message];
    let words: Vec<&str> = words.into_iter().filter_map(|words| words.as_deref()).collect();
    let said = brief(&words.join(": "));
    match pod.status.reason.as_deref() {
        Some(TIME_IS_OVER) => Cause::stalled(
            Reason::ModelFetchFailed,
            format!(
                "the model was not found within spec.rollout.fetchDeadlineSeconds ({said}): look at the source, or allow \
                 more time"
            ),
        ),
        Some(_) => Cause::waiting(
            Reason::PodFailed,
            format!("a node terminated or rejected the pod that looks for the model: {said}"),
        ),
        None => Cause::stalled(
            Reason::ModelFetchFailed,
            "the pod that looks for the model ended without a word that this operator understands: its runtime image \
             must be of the operator's version",
        ),
    }
}

#[cfg(test)]
mod tests;
