//! Conditions: Ready, Available; on an accelerator, AcceleratorEngaged; with a signature, ModelVerified; only while True,
//! Reconciling, Stalled, RuntimeUpdateAvailable and SourceNotRetained; only while False, Synced, AutoscalerActive and ModelReported. Pure.

use super::{
    accelerator::engaged,
    autoscaling::inactive,
    model::{not_retained, verified},
    routing::Answers,
    time::whole_seconds,
    verdict::Verdict,
};
use crate::{
    apply::Applied,
    crd::{AcceleratorStatus, ModelServiceStatus, ModelStatus},
    observe::{Observed, Unreachable},
    reason::Reason,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::ResourceExt as _;
use modelservice_contract::MANAGEMENT_PORT;

/// All conditions. `lastTransitionTime` changes only when the status of a condition does.
pub(super) fn conditions(
    observed: &Observed,
    applied: &Applied,
    previous: &ModelServiceStatus,
    verdict: Verdict,
    answers: Answers,
    accelerator: Option<&AcceleratorStatus>,
) -> Vec<Condition> {
    let engaged = engaged(&verdict, accelerator);
    let verified = verified(observed, applied, previous, &verdict);
    let make = |type_: &str, status: bool, reason: Reason, message: String| {
        let status = if status { "True" } else { "False" };
        let since = previous
            .conditions
            .iter()
            .find(|known| known.type_ == type_ && known.status == status)
            .map_or(Time(whole_seconds(observed.now)), |known| {
                known.last_transition_time.clone()
            });
        Condition {
            type_: type_.to_owned(),
            status: status.to_owned(),
            reason: reason.as_str().to_owned(),
            message,
            observed_generation: observed.service.metadata.generation,
            last_transition_time: since,
        }
    };
    let (ready, reason, message, missing) = match verdict {
        Verdict::Ready(reason, message) => (true, reason, message, None),
        Verdict::Incomplete {
            answers,
            reason,
            message,
            stalled,
        } => (true, Reason::Serving, answers, Some((stalled, reason, message))),
        Verdict::Progressing(message) => {
            let missing = (false, Reason::Progressing, message.clone());
            (false, Reason::Progressing, message, Some(missing))
        }
        Verdict::Failed {
            reason,
            message,
            stalled,
        } => (false, reason, message.clone(), Some((stalled, reason, message))),
    };
    let mut all = vec![make("Ready", ready, reason, message.clone())];
    let (available, reason, message) = match answers {
        Answers::Yes => (true, Reason::Serving, "requests are answered".to_owned()),
        Answers::Astray(why) => (false, Reason::EndpointChanged, why),
        Answers::NoServer if ready => (false, reason, message),
        Answers::NoServer => (false, reason, "no server answers requests".to_owned()),
    };
    all.push(make("Available", available, reason, message));
    if let Some((is_engaged, reason, message)) = engaged {
        all.push(make("AcceleratorEngaged", is_engaged, reason, message));
    }
    if let Some((is_verified, reason, message)) = verified {
        all.push(make("ModelVerified", is_verified, reason, message));
    }
    if let Some(message) = not_retained(observed, applied) {
        all.push(make(
            "SourceNotRetained",
            true,
            Reason::SourceNotRetained,
            message,
        ));
    }
    if let Some((stalled, reason, message)) = missing {
        let type_ = if stalled { "Stalled" } else { "Reconciling" };
        all.push(make(type_, true, reason, message));
    }
    let update = applied
        .decision()
        .and_then(|decision| decision.runtime_update.as_ref());
    if let Some(update) = update {
        all.push(make(
            "RuntimeUpdateAvailable",
            true,
            Reason::RuntimeUpdate,
            update.clone(),
        ));
    }
    if let Some(message) = overridden(applied) {
        all.push(make("Synced", false, Reason::FieldOverridden, message));
    }
    if let Some(message) = inactive(observed, previous) {
        all.push(make(
            "AutoscalerActive",
            false,
            Reason::AutoscalerInactive,
            message,
        ));
    }
    if let Some(message) = unreachable(observed, applied, previous) {
        all.push(make("ModelReported", false, Reason::ServerUnreachable, message));
    }
    all
}

/// Why `status.model` does not come.
fn unreachable(observed: &Observed, applied: &Applied, previous: &ModelServiceStatus) -> Option<String> {
    let Some(Unreachable { revision, pod, error }) = observed.reported.unreachable.as_ref() else {
        return still_unreachable(observed, applied, previous);
    };
    (applied.traffic() == Some(revision)).then(|| {
        format!(
            "pod {pod} cannot be asked at port {MANAGEMENT_PORT} what it serves, so status.model stays unknown: {error}. Let the operator reach this port: look for NetworkPolicies and for a mesh that demands mutual TLS; the operator asks again every five minutes"
        )
    })
}

/// What was said before, as long as the same server is ready and has not been asked again: after a restart of the
/// operator, that takes a while.
fn still_unreachable(
    observed: &Observed,
    applied: &Applied,
    previous: &ModelServiceStatus,
) -> Option<String> {
    let revision = applied.traffic()?;
    let is_known = |model: &ModelStatus| model.revision == revision;
    if previous.model.as_ref().is_some_and(is_known) || observed.reported.models.contains_key(revision) {
        return None;
    }
    let said = previous.said("ModelReported")?;
    let mut ready = observed.pods_of(revision).filter(|pod| pod.is_ready());
    let is_meant = ready.any(|pod| said.starts_with(&format!("pod {} ", pod.name_any())));
    is_meant.then(|| said.to_owned())
}

/// What others set otherwise than the operator does.
fn overridden(applied: &Applied) -> Option<String> {
    const MOST: usize = 8;
    let all = applied.overrides();
    let mut told: Vec<String> = all.iter().take(MOST).map(ToString::to_string).collect();
    if all.len() > MOST {
        told.push(format!("and {} more", all.len() - MOST));
    }
    (!told.is_empty()).then(|| {
        format!(
            "{}. Have it leave this alone, or change the spec to what it wants",
            told.join("; ")
        )
    })
}
