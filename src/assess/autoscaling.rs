//! Autoscaling: what decides the number of servers, and whether that works. Pure.

use super::{cause::brief, time::whole_seconds};
use crate::{
    crd::{AutoscalingStatus, ModelServiceStatus, ScaleTarget},
    observe::{Observed, is_limit},
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
/// the traffic. While the number stays and nothing limits it, what was said stays too, also after a restart of the
/// operator: each change would be a write.
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
    let scaling = observed.scaling.as_ref().filter(|_| autoscaling.target.is_load());
    let wanted = scaling.map_or(wanted, |scaling| scaling.wanted);
    let is_undecided = autoscaling.target.is_load() && scaling.is_none();
    let stays = |status: &&AutoscalingStatus| {
        let is_same =
            status.decided_by == decided_by || (!is_limit(&status.decided_by) && !is_limit(decided_by));
        status.wanted == wanted && (is_same || (is_undecided && is_of_load(&status.decided_by)))
    };
    Some(match previous.autoscaling.as_ref().filter(stays) {
        Some(status) => AutoscalingStatus {
            current,
            ..status.clone()
        },
        None => AutoscalingStatus {
            wanted,
            current,
            decided_by: decided_by.to_owned(),
            message,
            since: Some(Time(whole_seconds(observed.now))),
        },
    })
}

fn is_of_load(decided_by: &str) -> bool {
    !["HorizontalPodAutoscaler", "External"].contains(&decided_by)
}

/// Why the number of servers does not follow the load, if it has not for a while.
pub(super) fn inactive(observed: &Observed, previous: &ModelServiceStatus) -> Option<String> {
    let spec = &observed.service.spec;
    let autoscaling = spec.autoscaling.as_ref().filter(|_| !spec.suspend)?;
    match &observed.scaling {
        _ if !autoscaling.target.is_load() => failing_autoscaler(observed),
        Some(scaling) => scaling.blind.clone(),
        // Not decided yet: after a restart of the operator, what was said before is still so.
        None => previous.said("AutoscalerActive").map(str::to_owned),
    }
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
    use crate::{cache::retention::Retention as _, fixtures::observed, observe::Scaling};
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

    fn told(observed: &Observed) -> Option<String> {
        inactive(observed, &ModelServiceStatus::default())
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
        assert_eq!(told(&fresh), None);
        assert_eq!(look_again(&fresh), Some(SignedDuration::from_secs(1)));
        let first = told(&autoscaled(conditions("photos-ab-cd"), 300)).unwrap();
        for words in [
            "ScalingActive is False, FailedGetResourceMetric",
            "missing request for cpu in container mesh of Pod …;",
        ] {
            assert!(first.contains(words), "{first}");
        }
        assert_eq!(look_again(&autoscaled(conditions("photos-ab-cd"), 300)), None);
        let other = told(&autoscaled(conditions("photos-ab-ef"), 400));
        assert_eq!(other, Some(first), "it is the same for every pod");

        let no_target = condition("AbleToScale", "False", "FailedGetScale", "not found");
        assert!(
            told(&autoscaled(json!([no_target]), 300))
                .unwrap()
                .contains("AbleToScale is False, FailedGetScale")
        );
        let acts = json!([
            can,
            condition("ScalingActive", "True", "ValidMetricFound", "fine")
        ]);
        assert_eq!(told(&autoscaled(acts, 900)), None);
    }

    /// Otherwise each of its statuses, which change with the load, wakes a reconcile and fills the memory.
    #[test]
    fn of_an_autoscalers_status_only_what_fails_is_kept() {
        let acts = json!([condition("ScalingActive", "True", "ValidMetricFound", "fine")]);
        assert_eq!(autoscaled(acts, 0).autoscaler.unwrap().status, None);
    }

    /// What a status says of a load that asks for three servers, if it said `before`.
    fn said(scaling: Option<Scaling>, before: Option<AutoscalingStatus>) -> AutoscalingStatus {
        let mut observed = observed(json!({"autoscaling": {"maxReplicas": 4}}));
        observed.scaling = scaling;
        let previous = ModelServiceStatus {
            autoscaling: before,
            ..Default::default()
        };
        status(&observed, &previous, 3, 2).unwrap()
    }

    fn scaling(wanted: i32, decided_by: &'static str, message: &str) -> Scaling {
        Scaling {
            wanted,
            decided_by,
            message: message.to_owned(),
            blind: None,
        }
    }

    /// Each word that changes is a write, for each service, whenever a leader begins.
    #[test]
    fn what_was_said_stays_while_the_number_does() {
        let first = said(Some(scaling(3, "Load", "load of 2.6")), None);
        assert_eq!(
            (first.wanted, first.current, first.message.as_str()),
            (3, 2, "load of 2.6")
        );
        for same in [
            Some(scaling(3, "Load", "load of 2.9")),
            Some(scaling(3, "Minimum", "the minimum of 3")),
            None,
        ] {
            assert_eq!(said(same, Some(first.clone())), first);
        }
        for other in [
            scaling(4, "Load", "load of 3.3"),
            scaling(3, "Maximum", "the maximum of 3"),
        ] {
            let news = said(Some(other.clone()), Some(first.clone()));
            assert_eq!((news.wanted, news.message), (other.wanted, other.message));
        }
        let unknown = said(None, None);
        assert_eq!((unknown.wanted, unknown.decided_by.as_str()), (3, "NoData"));
    }

    /// Otherwise the condition goes and comes back whenever a leader begins.
    #[test]
    fn a_load_that_was_unknown_stays_so_until_it_is_decided() {
        let mut observed = observed(json!({"autoscaling": {"maxReplicas": 4}}));
        let known = json!({"conditions": [{"type": "AutoscalerActive", "status": "False", "reason": "AutoscalerInactive",
            "message": "the load of pod a is not known", "lastTransitionTime": "2026-01-02T03:04:05Z"}]});
        let previous: ModelServiceStatus = serde_json::from_value(known).unwrap();
        let told = |observed: &Observed| inactive(observed, &previous);
        assert_eq!(told(&observed).as_deref(), Some("the load of pod a is not known"));
        observed.scaling = Some(scaling(1, "Load", "load of 0.5"));
        assert_eq!(told(&observed), None);
    }
}
