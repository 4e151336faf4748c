//! Autoscaling: what decides the number of servers, and whether that works. Pure.

use super::{cause::brief, whole_seconds};
use crate::{
    crd::{AutoscalingStatus, ModelServiceStatus, ScaleTarget},
    observe::Observed,
};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::{
    api::autoscaling::v2::{HorizontalPodAutoscaler, HorizontalPodAutoscalerCondition},
    apimachinery::pkg::apis::meta::v1::Time,
};
use kube::ResourceExt as _;

/// How long an autoscaler may be inactive: a new one has no metrics yet, nor has one whose servers are starting.
const PATIENCE: SignedDuration = SignedDuration::from_mins(5);

/// What decides the number of servers; `None` if it is fixed. `wanted` and `current` are those of the revision that has
/// the traffic. While the same decides the same number, the sentence stays what it was: each change would be a write.
pub(super) fn status(
    observed: &Observed,
    previous: &ModelServiceStatus,
    wanted: i32,
    current: i32,
) -> Option<AutoscalingStatus> {
    let spec = &observed.service.spec;
    let autoscaling = spec.autoscaling.as_ref().filter(|_| !spec.suspend)?;
    let name = observed.service.name_any();
    let (decided_by, message) = match (&autoscaling.target, &observed.scaling) {
        (
            ScaleTarget {
                external: Some(_), ..
            },
            _,
        ) => (
            "External",
            format!("spec.replicas is {wanted}, as whoever scales ModelService {name} has set it"),
        ),
        (
            ScaleTarget {
                cpu_utilization: Some(percent),
                ..
            },
            _,
        ) => (
            "HorizontalPodAutoscaler",
            format!(
                "HorizontalPodAutoscaler {name} wants {wanted}, for {percent} % of the CPU request; see `kubectl \
                 describe hpa {name}`"
            ),
        ),
        (_, Some(scaling)) => (scaling.decided_by, scaling.message.clone()),
        (_, None) => ("NoData", "the load of the servers is not known yet".to_owned()),
    };
    let wanted = match &observed.scaling {
        Some(scaling) if autoscaling.target.is_load() => scaling.wanted,
        _ => wanted,
    };
    let same = previous.autoscaling.as_ref();
    let same = same.filter(|status| status.wanted == wanted && status.decided_by == decided_by);
    Some(AutoscalingStatus {
        wanted,
        current,
        decided_by: decided_by.to_owned(),
        message: same.map_or(message, |status| status.message.clone()),
        since: same.map_or_else(
            || Some(Time(whole_seconds(observed.now))),
            |status| status.since.clone(),
        ),
    })
}

/// Why the number of servers does not follow the load, if it has not for a while.
pub(super) fn inactive(observed: &Observed) -> Option<String> {
    let blind = observed
        .scaling
        .as_ref()
        .and_then(|scaling| scaling.blind.clone());
    blind.or_else(|| failing_autoscaler(observed))
}

/// Why the HorizontalPodAutoscaler does not act, in its own words.
fn failing_autoscaler(observed: &Observed) -> Option<String> {
    let autoscaler = observed.autoscaler.as_ref()?;
    let failing = failing(autoscaler)?;
    if told_at(autoscaler, failing)? > observed.now {
        return None;
    }
    let name = autoscaler.name_any();
    let words = failing.message.as_deref().unwrap_or("it does not say why");
    Some(format!(
        "HorizontalPodAutoscaler {name} does not act ({} is False, {}): {}; a load that needs more servers gets none. It needs metrics-server, and a CPU request of the servers; see `kubectl describe hpa {name}`",
        failing.type_,
        failing.reason.as_deref().unwrap_or("without a reason"),
        brief(&without_pods(words, &name))
    ))
}

/// When the status changes although nothing happens: when an autoscaler has been inactive for a while.
pub(super) fn look_again(observed: &Observed) -> Option<SignedDuration> {
    let autoscaler = observed.autoscaler.as_ref()?;
    let left = told_at(autoscaler, failing(autoscaler)?)?.duration_since(observed.now);
    left.is_positive().then_some(left)
}

/// The cache keeps only conditions that keep the autoscaler from acting.
fn failing(autoscaler: &HorizontalPodAutoscaler) -> Option<&HorizontalPodAutoscalerCondition> {
    autoscaler.status.as_ref()?.conditions.as_ref()?.first()
}

fn told_at(
    autoscaler: &HorizontalPodAutoscaler,
    failing: &HorizontalPodAutoscalerCondition,
) -> Option<Timestamp> {
    let made = autoscaler.metadata.creation_timestamp.as_ref();
    let since = failing.last_transition_time.as_ref().or(made)?;
    Some(since.0 + PATIENCE)
}

/// The message without the names of our pods, which differ from pass to pass.
fn without_pods(message: &str, service: &str) -> String {
    let prefix = format!("{service}-");
    let words = message
        .split(' ')
        .map(|word| if word.starts_with(&prefix) { "…" } else { word });
    words.collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::{cache::retention::Retention as _, fixtures::observed};
    use serde_json::{Value, json};
    use std::sync::Arc;

    /// A service whose autoscaler has had these conditions for so many seconds.
    fn autoscaled(conditions: Value, seconds: i64) -> Observed {
        let mut observed =
            observed(json!({"autoscaling": {"maxReplicas": 3, "target": {"cpuUtilization": 70}}}));
        let mut autoscaler = observed.planned().autoscaler.unwrap();
        let status = json!({"desiredReplicas": 2, "currentReplicas": 1, "conditions": conditions});
        autoscaler.status = serde_json::from_value(status).unwrap();
        let conditions = autoscaler
            .status
            .iter_mut()
            .flat_map(|status| status.conditions.iter_mut().flatten());
        for condition in conditions {
            let since = observed.now - SignedDuration::from_secs(seconds);
            condition.last_transition_time =
                Some(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(since));
        }
        autoscaler.trim();
        observed.autoscaler = Some(Arc::new(autoscaler));
        observed
    }

    fn condition(type_: &str, status: &str, reason: &str, message: &str) -> Value {
        json!({"type": type_, "status": status, "reason": reason, "message": message})
    }

    /// Otherwise a service under load stays small, and nothing says why.
    #[test]
    fn an_autoscaler_that_does_not_act_is_told_after_five_minutes() {
        let of_pod = |pod: &str| {
            condition(
                "ScalingActive",
                "False",
                "FailedGetResourceMetric",
                &format!(
                    "failed to get cpu utilization: missing request for cpu in container mesh of Pod {pod}"
                ),
            )
        };
        let can = condition("AbleToScale", "True", "SucceededGetScale", "fine");
        let limited = condition("ScalingLimited", "False", "DesiredWithinRange", "fine");
        let conditions = |pod| json!([can, limited, of_pod(pod)]);
        let fresh = autoscaled(conditions("photos-ab-cd"), 299);
        assert_eq!(inactive(&fresh), None);
        assert_eq!(look_again(&fresh), Some(SignedDuration::from_secs(1)));
        let told = inactive(&autoscaled(conditions("photos-ab-cd"), 300)).unwrap();
        for words in [
            "ScalingActive is False, FailedGetResourceMetric",
            "missing request for cpu in container mesh of Pod …;",
        ] {
            assert!(told.contains(words), "{told}");
        }
        assert_eq!(look_again(&autoscaled(conditions("photos-ab-cd"), 300)), None);
        let other = inactive(&autoscaled(conditions("photos-ab-ef"), 400));
        assert_eq!(other, Some(told), "it is the same for every pod");

        let no_target = condition("AbleToScale", "False", "FailedGetScale", "not found");
        assert!(
            inactive(&autoscaled(json!([no_target]), 300))
                .unwrap()
                .contains("AbleToScale is False, FailedGetScale")
        );
        let acts = json!([
            can,
            condition("ScalingActive", "True", "ValidMetricFound", "fine")
        ]);
        assert_eq!(inactive(&autoscaled(acts, 900)), None);
    }

    /// Otherwise each of its statuses, which change with the load, wakes a reconcile and fills the memory.
    #[test]
    fn of_an_autoscalers_status_only_what_fails_is_kept() {
        let acts = json!([condition("ScalingActive", "True", "ValidMetricFound", "fine")]);
        assert_eq!(autoscaled(acts, 0).autoscaler.unwrap().status, None);
    }
}
