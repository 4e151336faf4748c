//! Rolling: a new revision takes over the devices of the old one, one by one; the steps are in
//! src/plan/rolling/step.rs. Pure.
//!
//! The Service remembers which revision is replaced, and the number of servers of both together. Nobody else scales
//! either meanwhile: it would take the device that is free for a moment. If the spec asks for a third revision, or for
//! the old one again, all others are the old ones from then on.

mod step;

use self::step::{Servers, State, Step, step};
use crate::{
    cache::pod::Pod,
    crd::{GAVE_BACK_ANNOTATION, ModelServiceSpec, ROLLING_ANNOTATION},
    observe::{Observed, until_next},
    revision::{revision_of, wanted_replicas},
};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::apps::v1::Deployment;
use kube::ResourceExt as _;
use std::{collections::BTreeMap, sync::Arc};

/// How long an image may not be pulled before a server counts as failing: a registry may be down for a moment.
const PATIENCE: SignedDuration = SignedDuration::from_mins(2);
/// Waiting reasons of a container that no time will change.
const FAILING: &[&str] = &[
    "CrashLoopBackOff",
    "CreateContainerConfigError",
    "InvalidImageName",
];

/// A rolling update under way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rolling {
    /// The revision that is replaced.
    pub from: String,
    /// Servers of both revisions together.
    pub total: i32,
}

impl Rolling {
    /// As the Service says.
    pub(super) fn of(observed: &Observed) -> Option<Self> {
        let value = observed
            .endpoint
            .as_ref()?
            .annotations()
            .get(ROLLING_ANNOTATION)?;
        let (from, total) = value.split_once(' ')?;
        Some(Self {
            from: from.to_owned(),
            total: total.parse().ok()?,
        })
    }

    /// The value of [`ROLLING_ANNOTATION`].
    pub(super) fn annotation(&self) -> String {
        format!("{} {}", self.from, self.total)
    }
}

/// How a rolling update goes on.
pub(super) enum Update {
    /// With these sizes of the revisions that have servers.
    Goes {
        rolling: Rolling,
        sizes: BTreeMap<String, i32>,
        gave_back: Option<Timestamp>,
        look_again: Option<SignedDuration>,
    },
    /// It has failed: the old revision keeps the traffic.
    Over { gave_back: Timestamp, total: i32 },
    /// The new revision has all servers.
    Done,
}

/// The next step of the update to `target`; `None` if there is nothing to update: no other revision has servers, or
/// none is being replaced.
pub(super) fn decide(
    observed: &Observed,
    spec: &ModelServiceSpec,
    active: &str,
    target: &str,
) -> Option<Update> {
    let begun = Rolling::of(observed);
    if begun.is_none() && active == target {
        return None;
    }
    let others: Vec<&Arc<Deployment>> = others(observed, target);
    let rolling = Rolling {
        from: replaced(observed, begun.as_ref(), active, &others, target),
        total: begun.map_or_else(
            || {
                observed
                    .deployment(active)
                    .map_or(0, |live| wanted_replicas(live))
            },
            |begun| begun.total,
        ),
    };
    let marked = gave_back(observed, target);
    if rolling.total == 0 && marked.is_none() {
        return None;
    }
    let failing = failing(observed, spec, target);
    let state = State {
        total: rolling.total,
        old: sum(others.iter().map(|live| servers(observed, live))),
        new: sum(observed.deployment(target).map(|live| servers(observed, live))),
        fails: failing.iter().any(|at| *at <= observed.now),
        gave_back: marked.is_some(),
    };
    let step = step(&state);
    match step {
        Step::Over => {
            let gave_back = marked.unwrap_or(observed.now);
            let total = rolling.total;
            return Some(Update::Over { gave_back, total });
        }
        Step::Done => return Some(Update::Done),
        _ => {}
    }
    let now = (step == Step::GiveBack).then_some(observed.now);
    Some(Update::Goes {
        rolling,
        sizes: sizes(step, &state, &others, target),
        gave_back: marked.or(now),
        look_again: until_next(failing, observed.now),
    })
}

/// Sizes after a step.
fn sizes(step: Step, state: &State, others: &[&Arc<Deployment>], target: &str) -> BTreeMap<String, i32> {
    let victim = (step == Step::Free).then(|| victim(others)).flatten();
    let old = others.iter().filter_map(|live| {
        let less = i32::from(victim == Some(live.name_any()));
        Some((
            revision_of(live.as_ref())?.to_owned(),
            wanted_replicas(live) - less,
        ))
    });
    let new = match step {
        Step::Take => state.new.wanted + 1,
        Step::Shrink(size) => size,
        Step::GiveBack => 0,
        Step::Wait | Step::Free | Step::Over | Step::Done => state.new.wanted,
    };
    old.chain([(target.to_owned(), new)]).collect()
}

/// The Deployment that loses a server: one with a server that does not answer, or else the oldest.
fn victim(others: &[&Arc<Deployment>]) -> Option<String> {
    let mut running = others.iter().filter(|live| wanted_replicas(live) > 0);
    let oldest = running.clone().next_back();
    let unready = running.find(|live| available(live) < wanted_replicas(live));
    unready.or(oldest).map(|live| live.name_any())
}

/// Other revisions that have servers, newest first.
fn others<'a>(observed: &'a Observed, target: &str) -> Vec<&'a Arc<Deployment>> {
    let all = observed.deployments.iter();
    let others = all.filter(|live| revision_of(live.as_ref()) != Some(target));
    let has_servers = |live: &&Arc<Deployment>| {
        wanted_replicas(live) > 0 || observed.remaining_pods_made_by(live).next().is_some()
    };
    others.filter(has_servers).collect()
}

/// The revision that is replaced: if the spec asks for that one again, the largest other one.
fn replaced(
    observed: &Observed,
    begun: Option<&Rolling>,
    active: &str,
    others: &[&Arc<Deployment>],
    target: &str,
) -> String {
    let begun = begun.map(|begun| begun.from.as_str());
    let begun = begun.filter(|from| *from != target && observed.deployment(from).is_some());
    let largest = others.iter().max_by_key(|live| wanted_replicas(live));
    let largest = largest.and_then(|live| revision_of(live.as_ref()));
    begun.or(largest).unwrap_or(active).to_owned()
}

fn servers(observed: &Observed, live: &Arc<Deployment>) -> Servers {
    let pods = observed.remaining_pods_made_by(live).count();
    Servers {
        wanted: wanted_replicas(live),
        pods: i32::try_from(pods).unwrap_or(i32::MAX),
        ready: available(live).min(wanted_replicas(live)),
    }
}

fn sum(servers: impl IntoIterator<Item = Servers>) -> Servers {
    let add = |sum: Servers, one: Servers| Servers {
        wanted: sum.wanted + one.wanted,
        pods: sum.pods + one.pods,
        ready: sum.ready + one.ready,
    };
    servers.into_iter().fold(Servers::default(), add)
}

fn available(live: &Deployment) -> i32 {
    let status = live.status.as_ref();
    status.and_then(|status| status.available_replicas).unwrap_or(0)
}

/// When the first server of a revision gave its device back.
fn gave_back(observed: &Observed, revision: &str) -> Option<Timestamp> {
    let live = observed.deployment(revision)?;
    live.annotations().get(GAVE_BACK_ANNOTATION)?.parse().ok()
}

/// When each server of a revision that is not ready counts as failing, or has since.
fn failing(observed: &Observed, spec: &ModelServiceSpec, revision: &str) -> Vec<Timestamp> {
    let deadline = SignedDuration::from_secs(spec.rollout.progress_deadline_seconds.into());
    let fetch = SignedDuration::from_secs(spec.rollout.fetch_deadline_seconds.into());
    let unready = observed.pods_of(revision).filter(|pod| !pod.is_ready());
    let at = unready.filter_map(|pod| {
        let created = pod.metadata.creation_timestamp.as_ref()?.0;
        Some(match pod {
            pod if is_failing(pod) => created,
            pod if pod.fails_to_pull() => created + PATIENCE.min(deadline),
            pod if pod.is_fetching() => created + deadline + fetch,
            _ => created + deadline,
        })
    });
    at.collect()
}

fn is_failing(pod: &Pod) -> bool {
    let containers = pod.status.container_statuses.iter();
    let containers = containers.chain(&pod.status.init_container_statuses);
    let mut reasons = containers.filter_map(|container| container.waits_for());
    reasons.any(|reason| FAILING.contains(&reason))
}

#[cfg(test)]
mod tests;
