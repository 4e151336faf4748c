//! Room: a new revision that cannot take over gives way to the one that serves. Pure.
//!
//! A quota or the nodes may not have room for all servers of both. The serving revision comes first when it grows, or
//! when one of its pods is replaced:
//! 1. A new revision that is refused servers too, or whose servers do not become ready, is reduced to one server, or to
//!    none if that one is in the way as well.
//! 2. Once the serving revision has all of its servers, the new one is tried with one. Once that one is available, the
//!    new revision grows to its full size again.
//! 3. If the serving revision still lacks servers after [`GIVE_UP`], the new one was not what is in its way, and goes on
//!    as in 2.
//!
//! A new revision that merely starts does not give way: one that asks for less may be what ends the lack of room.

use crate::{
    cache::pod::Pod,
    crd::GIVES_WAY_ANNOTATION,
    observe::{Observed, until_next},
    revision::{exceeds_quota, is_available, refused_pods, revision_of, wanted_replicas},
};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::apps::v1::Deployment;
use kube::ResourceExt as _;
use std::sync::Arc;

/// How long a server has to become ready, or to end and leave its room to another.
const PATIENCE: SignedDuration = SignedDuration::from_mins(1);
/// How long a new revision gives way. Within this time a ReplicaSet that was refused pods has tried again.
const GIVE_UP: SignedDuration = SignedDuration::from_mins(10);

/// How a new revision gives way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GivesWay {
    /// Number of its servers meanwhile.
    pub size: i32,
    /// Number of its servers otherwise.
    pub full: i32,
    /// Since when; `None` once the serving revision has all of its servers, and the new one is tried.
    pub since: Option<Timestamp>,
}

impl GivesWay {
    /// As the revision's Deployment says.
    fn of(live: &Deployment, full: i32) -> Option<Self> {
        let value = live.annotations().get(GIVES_WAY_ANNOTATION)?;
        Some(Self {
            size: wanted_replicas(live).min(full),
            full,
            since: value.parse().ok(),
        })
    }

    /// The value of [`GIVES_WAY_ANNOTATION`].
    pub(super) fn annotation(&self) -> String {
        self.since
            .map_or_else(|| "tried".to_owned(), |since| since.to_string())
    }
}

/// Servers of the active revision for which there is no room, while others of it serve.
struct Lack {
    by_quota: i32,
    by_nodes: i32,
}

impl Lack {
    fn of(observed: &Observed, active: &str) -> Option<Self> {
        let deployment = observed.deployment(active)?;
        let status = deployment.status.as_ref()?;
        let missing = wanted_replicas(deployment) - status.replicas.unwrap_or(0);
        let is_refused = refused_pods(deployment).is_some_and(exceeds_quota);
        let lack = Self {
            by_quota: if is_refused { missing.max(0) } else { 0 },
            by_nodes: count(observed.pods_of(active).filter(|pod| finds_no_room(pod))),
        };
        (status.available_replicas > Some(0) && lack.servers() > 0).then_some(lack)
    }

    fn servers(&self) -> i32 {
        self.by_quota + self.by_nodes
    }

    /// Servers of the target that take up such room.
    fn held_by(&self, observed: &Observed, target: &str) -> i32 {
        let takes_up = |pod: &&Arc<Pod>| self.by_quota > 0 || pod.is_scheduled();
        count(observed.pods_of(target).filter(takes_up))
    }
}

/// Whether and how `target`, whose size is to be `full`, gives way to `active`; and when to look again.
pub(super) fn decide(
    observed: &Observed,
    active: &str,
    target: &str,
    full: i32,
) -> (Option<GivesWay>, Option<SignedDuration>) {
    let Some(live) = observed.deployment(target) else {
        return (None, None);
    };
    let present = GivesWay::of(live, full);
    let Some(lack) = Lack::of(observed, active) else {
        let tried = present.filter(|_| !works(live)).map(|present| GivesWay {
            size: present.size.max(1),
            since: None,
            ..present
        });
        return (tried, None);
    };
    let held = lack.held_by(observed, target);
    let gives_way = match present {
        Some(present) if present.since.is_some() => Some(go_on(present, observed, live, held > 0)),
        present if held > 0 && (present.is_some() || is_stuck(observed, live, target)) => Some(GivesWay {
            size: (held - lack.servers()).clamp(0, 1),
            full,
            since: Some(observed.now),
        }),
        present => present,
    };
    let look_again = look_again(gives_way.as_ref(), observed, target);
    (gives_way, look_again)
}

/// Whether a revision gives way and has less than its full size.
pub(super) fn is_reduced(live: &Deployment, full: i32) -> bool {
    GivesWay::of(live, full).is_some_and(|gives_way| gives_way.size < full)
}

/// How a revision that already gives way continues.
fn go_on(present: GivesWay, observed: &Observed, live: &Deployment, is_in_the_way: bool) -> GivesWay {
    let age = present.since.map(|since| observed.now.duration_since(since));
    let target = revision_of(live).unwrap_or_default();
    let mut remaining = observed.remaining_pods_of(target);
    let makes_room = remaining.any(|pod| pod.metadata.deletion_timestamp.is_some());
    let size = if age >= Some(GIVE_UP) {
        if works(live) {
            present.full
        } else {
            present.size.max(1)
        }
    } else if age >= Some(PATIENCE) && is_in_the_way && !makes_room {
        0
    } else {
        present.size
    };
    GivesWay { size, ..present }
}

/// Whether a revision cannot take over as things are.
fn is_stuck(observed: &Observed, live: &Deployment, target: &str) -> bool {
    refused_pods(live).is_some() || unready_until(observed, target).any(|overdue| overdue <= observed.now)
}

/// When to reconcile again although nothing happens.
fn look_again(gives_way: Option<&GivesWay>, observed: &Observed, target: &str) -> Option<SignedDuration> {
    let since = gives_way.and_then(|gives_way| gives_way.since);
    let due: Vec<Timestamp> = match since {
        Some(since) => vec![since + PATIENCE, since + GIVE_UP],
        None => unready_until(observed, target).collect(),
    };
    until_next(due, observed.now)
}

/// When each server of a revision that is not ready counts as one that does not become so.
fn unready_until<'a>(observed: &'a Observed, revision: &'a str) -> impl Iterator<Item = Timestamp> + 'a {
    let unready = observed.pods_of(revision).filter(|pod| !pod.is_ready());
    unready.filter_map(|pod| Some(pod.metadata.creation_timestamp.as_ref()?.0 + PATIENCE))
}

/// Whether a revision has servers, and all of them are available.
fn works(live: &Deployment) -> bool {
    wanted_replicas(live) > 0 && is_available(live)
}

/// Whether nodes are full. A node that does not fit for another reason, such as a taint, would not without a pod either.
fn finds_no_room(pod: &Pod) -> bool {
    pod.unschedulable()
        .is_some_and(|message| message.contains("Insufficient") || message.contains("Too many pods"))
}

fn count<'a>(pods: impl Iterator<Item = &'a Arc<Pod>>) -> i32 {
    i32::try_from(pods.count()).unwrap_or(i32::MAX)
}

#[cfg(test)]
mod tests;
