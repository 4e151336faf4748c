//! Lost: pods whose device is lost. A container that is restarted keeps the devices of its pod, so only another pod can
//! get others. Such a pod is deleted, at most one a minute per service. If the pods that take their place lose their
//! devices too, another pod does not help either: then the pause doubles each time, up to 16 minutes. Pure.

use crate::{
    cache::pod::{ContainerStatus, Pod},
    crd::LOST_ANNOTATION,
    observe::{Observed, until_next},
    placement::Device,
    revision::frozen_template,
    validate::ValidatedService,
};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::apps::v1::Deployment;
use kube::ResourceExt as _;
use modelservice_contract::ExitReason;
use std::{fmt, sync::Arc};

/// How long after one pod was deleted another may be.
const PAUSE: SignedDuration = SignedDuration::from_mins(1);
/// The longest pause between pods that take the place of deleted ones.
const LONGEST_PAUSE: SignedDuration = SignedDuration::from_mins(16);
/// If none was deleted for so many pauses, what happened before does not count any more.
const FORGOTTEN_AFTER: i32 = 4;
/// How often a server must have ended without its device: once, the device may be used by a server that is still ending.
const ENDS: i32 = 2;

/// A pod that is to be deleted.
#[derive(Clone, Debug)]
pub struct Lost {
    /// The pod.
    pub pod: Arc<Pod>,
    /// Name of its Deployment.
    pub(super) deployment: String,
    /// What happened, for a person.
    pub why: String,
    /// What its Deployment then remembers.
    pub(super) deletions: Deletions,
    due: Timestamp,
}

/// The pods of a Deployment that were deleted one after the other, as [`LOST_ANNOTATION`] has them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Deletions {
    /// When the last one was deleted.
    last: Timestamp,
    /// When the first one was: younger pods take the place of deleted ones.
    first: Timestamp,
    /// How long after the last one a pod that takes the place of another may be deleted.
    pause: SignedDuration,
}

impl Deletions {
    /// What a Deployment remembers, unless it is long ago.
    fn of(live: &Deployment, now: Timestamp) -> Option<Self> {
        let mut words = live.annotations().get(LOST_ANNOTATION)?.split(' ');
        let last = words.next()?.parse().ok()?;
        let first = words.next().and_then(|first| first.parse().ok());
        let pause = words.next().and_then(|seconds| seconds.parse().ok());
        let pause = pause.map_or(PAUSE, SignedDuration::from_secs);
        let pause = pause.clamp(PAUSE, LONGEST_PAUSE);
        (now.duration_since(last) <= pause * FORGOTTEN_AFTER).then(|| Self {
            last,
            first: first.unwrap_or(last),
            pause,
        })
    }

    fn is_replacement(&self, pod: &Pod) -> bool {
        let created = pod.metadata.creation_timestamp.as_ref();
        // A time of creation is in whole seconds, rounded down.
        created.is_some_and(|created| created.0 > self.first - SignedDuration::from_secs(1))
    }

    /// When this pod may be deleted.
    fn due(&self, pod: &Pod) -> Timestamp {
        let pause = if self.is_replacement(pod) {
            self.pause
        } else {
            PAUSE
        };
        self.last + pause
    }

    /// What is remembered once this pod is deleted.
    fn after(earlier: Option<Self>, pod: &Pod, now: Timestamp) -> Self {
        let pause = match earlier {
            Some(earlier) if earlier.is_replacement(pod) => (earlier.pause * 2).min(LONGEST_PAUSE),
            Some(earlier) => earlier.pause,
            None => PAUSE,
        };
        Self {
            last: now,
            first: earlier.map_or(now, |earlier| earlier.first),
            pause,
        }
    }
}

/// The value of [`LOST_ANNOTATION`].
impl fmt::Display for Deletions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} {}", self.last, self.first, self.pause.as_secs())
    }
}

/// The pod to delete now, if there is one, and when to look again.
pub(super) fn decide(
    service: &ValidatedService,
    observed: &Observed,
) -> (Option<Lost>, Option<SignedDuration>) {
    let deployments = observed.deployments.iter();
    let all = deployments.clone().flat_map(|live| lost(service, observed, live));
    let Some(next) = all.min_by_key(|lost| (lost.due, lost.pod.name_any())) else {
        return (None, None);
    };
    let last = deployments.filter_map(|live| Deletions::of(live, observed.now));
    let pause = last.map(|deletions| deletions.last + PAUSE).max();
    let due = pause.map_or(next.due, |pause| pause.max(next.due));
    if due > observed.now {
        return (None, until_next([due], observed.now));
    }
    (Some(next), None)
}

/// Pods of a Deployment whose device is lost.
fn lost(service: &ValidatedService, observed: &Observed, live: &Arc<Deployment>) -> Vec<Lost> {
    let pods = observed.remaining_pods_made_by(live);
    let present = pods.filter(|pod| pod.metadata.deletion_timestamp.is_none());
    let earlier = Deletions::of(live, observed.now);
    let lost: Vec<Lost> = present
        .filter_map(|pod| {
            Some(Lost {
                pod: pod.clone(),
                deployment: live.name_any(),
                why: why(pod)?,
                deletions: Deletions::after(earlier, pod, observed.now),
                due: earlier.map_or(observed.now, |earlier| earlier.due(pod)),
            })
        })
        .collect();
    // Reading the template takes longer than looking at pods, and hardly ever is one of them lost.
    if lost.is_empty() || !has_device(service, live) {
        return Vec::new();
    }
    lost
}

/// Whether the pods of a Deployment have a device.
fn has_device(service: &ValidatedService, live: &Deployment) -> bool {
    // Validation has checked that there is a template.
    let device = Device::of(&frozen_template(live).unwrap_or_default(), service.spec());
    device.is_claimed || !device.resources.is_empty()
}

/// Why the device of a pod counts as lost.
fn why(pod: &Pod) -> Option<String> {
    let server = pod
        .status
        .container_statuses
        .iter()
        .find(|container| container.is_server())?;
    let pod = pod.name_any();
    if let Some(resource) = server.unhealthy_resource() {
        return Some(format!(
            "pod {pod} is replaced: the device plug-in reports its device of {resource} as unhealthy"
        ));
    }
    is_without_device(server).then(|| {
        format!(
            "pod {pod} is replaced: its server has ended {ENDS} times because its device or its execution provider is \
             missing, and a restarted container keeps its pod's device"
        )
    })
}

/// Whether a server has ended often enough because its device is missing.
fn is_without_device(server: &ContainerStatus) -> bool {
    let code = i32::from(ExitReason::AcceleratorUnavailable.code());
    let ended = |state: Option<&k8s_openapi::api::core::v1::ContainerState>| {
        let terminated = state.and_then(|state| state.terminated.as_ref());
        terminated.map(|terminated| terminated.exit_code)
    };
    let (now, before) = (
        ended(server.state.as_deref()),
        ended(server.last_state.as_deref()),
    );
    let is_running = server.state.as_ref().is_some_and(|state| state.running.is_some());
    let ends = server.restart_count + i32::from(!is_running);
    !server.ready && ends >= ENDS && now.or(before) == Some(code)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use crate::{crd::LOST_ANNOTATION, plan::simulator::Cluster};
    use kube::ResourceExt as _;
    use serde_json::{Value, json};

    fn serving(class: &str) -> Cluster {
        let mut cluster = Cluster::new(json!({"replicas": 3, "accelerators": [class]}));
        cluster.until("it serves", |cluster| cluster.answering() == 3);
        cluster
    }

    fn unhealthy(health: &str) -> Value {
        json!({"ready": true, "state": {"running": {}}, "allocatedResourcesStatus": [{"name": "example.com/tpu",
            "resources": [{"resourceID": "device-0", "health": health}]}]})
    }

    fn ended(code: i32, restarts: i32) -> Value {
        json!({"restartCount": restarts, "state": {"waiting": {"reason": "CrashLoopBackOff"}},
            "lastState": {"terminated": {"exitCode": code}}})
    }

    /// A wrong row deletes servers that work, or keeps one that never will.
    #[test]
    fn only_a_pod_whose_device_is_lost_is_deleted() {
        let table = [
            ("unhealthy", "tpu", unhealthy("Unhealthy"), true),
            ("healthy", "tpu", unhealthy("Healthy"), false),
            ("unknown", "tpu", unhealthy("Unknown"), false),
            ("ended once", "tpu", ended(14, 0), false),
            ("ended twice", "tpu", ended(14, 1), true),
            ("ended twice, otherwise", "tpu", ended(13, 1), false),
            ("on the CPU", "cpu", ended(14, 5), false),
            (
                "runs again",
                "tpu",
                json!({"ready": true, "restartCount": 5, "state": {"running": {}},
                    "lastState": {"terminated": {"exitCode": 14}}}),
                false,
            ),
        ];
        for (name, class, status, expected) in table {
            let mut cluster = serving(class);
            cluster.says(1, &status);
            let pod = cluster.observed.pods[1].name_any();
            let plan = cluster.pass();
            let deleted = plan.lost.map(|lost| (lost.pod.name_any(), lost.why));
            assert_eq!(deleted.is_some(), expected, "{name}: {deleted:?}");
            assert!(deleted.is_none_or(|(name, why)| name == pod && why.contains(&pod)));
        }
    }

    /// Deletes what the plan says for so many seconds; returns when.
    fn deletions(cluster: &mut Cluster, seconds: usize, mut each: impl FnMut(&mut Cluster)) -> Vec<usize> {
        let mut deleted = Vec::new();
        for second in 0..seconds {
            each(cluster);
            if let Some(lost) = cluster.pass().lost {
                deleted.push(second);
                let live = cluster.observed.deployments[0].clone();
                assert!(live.annotations().contains_key(LOST_ANNOTATION));
                cluster.delete(&lost.pod.name_any());
            }
            cluster.go_on();
        }
        deleted
    }

    /// If all devices of a service fail at once, it must not lose all servers at once.
    #[test]
    fn one_pod_a_minute_is_deleted() {
        let mut cluster = serving("tpu");
        for index in 0..3 {
            cluster.says(index, &unhealthy("Unhealthy"));
        }
        assert_eq!(deletions(&mut cluster, 150, |_| ()), [0, 60, 120]);
        assert_eq!(cluster.answering(), 3);
    }

    /// Where no device works at all, a new pod each minute for ever would load the node and say nothing new.
    #[test]
    fn pods_whose_replacements_fail_too_are_deleted_ever_less_often() {
        let mut cluster = Cluster::new(json!({"replicas": 1, "accelerators": ["tpu"]}));
        cluster.until("it serves", |cluster| cluster.answering() == 1);
        let mut fail = |cluster: &mut Cluster| {
            for index in 0..cluster.observed.pods.len() {
                cluster.says(index, &ended(14, 1));
            }
        };
        let deleted = deletions(&mut cluster, 4000, &mut fail);
        let pauses: Vec<usize> = deleted.windows(2).map(|pair| pair[1] - pair[0]).collect();
        assert_eq!(pauses, [60, 120, 240, 480, 960, 960, 960]);
    }

    /// A device that fails once a day is not one that never works.
    #[test]
    fn what_happened_long_ago_does_not_count() {
        let mut cluster = serving("tpu");
        cluster.says(0, &unhealthy("Unhealthy"));
        assert_eq!(deletions(&mut cluster, 241, |_| ()), [0]);
        for round in 0..2 {
            let newest = cluster.observed.pods.len() - 1;
            cluster.says(newest, &unhealthy("Unhealthy"));
            assert_eq!(deletions(&mut cluster, 241, |_| ()), [0], "{round}");
        }
    }
}
