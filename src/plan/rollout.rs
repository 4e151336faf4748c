//! Rollout: which revision has the traffic and how large each one is. Pure.
//!
//! With `target` the revision that the spec asks for and `active` the one that has the traffic:
//! 1. no `active`: traffic to `target`, at the size of the spec.
//! 2. `active == target`: the size of the spec; every other keeps its size for [`DRAIN_HOLD`] after the switch,
//!    so that no client meets a server that ends before its node has heard of the switch, then goes to 0.
//! 3. BlueGreen, `active != target`: `target` starts at `active`'s present size; once all of it is available
//!    the traffic moves. Until then `active` is sized by the spec; third revisions go to 0.
//! 4. Recreate, `active != target`: `active` goes to 0; once its pods are gone the traffic moves (see 2).
//! 5. suspended: every revision at 0, traffic where it was.

use crate::{
    crd::{RolloutStrategy, SWITCHED_ANNOTATION},
    observe::Observed,
    revision::{is_available, revision_of, wanted_replicas},
    validate::Size,
};
use jiff::{SignedDuration, Timestamp};
use kube::ResourceExt as _;
use std::collections::BTreeMap;

/// How long a revision that lost the traffic keeps its size: time for every node to learn of the switch and
/// for requests under way to end. The servers then drain kept-alive connections themselves.
pub const DRAIN_HOLD: SignedDuration = SignedDuration::from_secs(15);

/// How the size of one revision's Deployment is decided.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scale {
    /// We own `spec.replicas`.
    Fixed(i32),
    /// The autoscaler owns it; a Deployment that is new or at zero starts at this size.
    Autoscaled {
        /// Size at which it starts.
        start: i32,
    },
    /// Left as it is, by whomever it was set.
    Kept,
}

/// The decision.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rollout {
    /// Revision that the spec asks for.
    pub target: String,
    /// Revision that gets the traffic.
    pub traffic: String,
    /// When the traffic moved to it, if it ever moved.
    pub switched_at: Option<Timestamp>,
    /// Size of every revision that exists or is to be made.
    pub scales: BTreeMap<String, Scale>,
    /// When to look again although nothing happens.
    pub look_again: Option<SignedDuration>,
}

impl Rollout {
    /// Whether the traffic is where the spec wants it.
    #[must_use]
    pub fn is_settled(&self) -> bool {
        self.target == self.traffic
    }
}

/// Decides which revision has the traffic and how large each one is.
#[must_use]
pub fn decide(
    target: &str,
    size: &Size,
    suspend: bool,
    strategy: RolloutStrategy,
    observed: &Observed,
) -> Rollout {
    let active = active(observed, target);
    let mut scales: BTreeMap<String, Scale> = observed
        .deployments
        .iter()
        .filter_map(|d| revision_of(d.as_ref()))
        .map(|r| (r.to_owned(), Scale::Fixed(0)))
        .collect();
    let switched_at = switched_at(observed);
    let mut rollout = Rollout {
        target: target.to_owned(),
        traffic: active.to_owned(),
        switched_at,
        scales: BTreeMap::new(),
        look_again: None,
    };
    if suspend {
        scales.insert(target.to_owned(), Scale::Fixed(0));
        rollout.scales = scales;
        return rollout;
    }
    let moves = active != target
        && match strategy {
            RolloutStrategy::BlueGreen => {
                size.is_zero()
                    || observed
                        .deployment(target)
                        .is_some_and(|d| wanted_replicas(d) > 0 && is_available(d))
            }
            RolloutStrategy::Recreate => !observed
                .pods
                .iter()
                .any(|pod| revision_of(pod.as_ref()) == Some(active)),
        };
    if moves {
        target.clone_into(&mut rollout.traffic);
        rollout.switched_at = Some(observed.now);
    }
    let start = match strategy {
        RolloutStrategy::BlueGreen if active != target => {
            observed.deployment(active).map_or(1, |d| wanted_replicas(d))
        }
        _ => 0,
    };
    if rollout.is_settled() {
        let held = rollout
            .switched_at
            .map(|at| at + DRAIN_HOLD)
            .filter(|until| *until > observed.now);
        let busy = observed
            .deployments
            .iter()
            .any(|d| revision_of(d.as_ref()) != Some(target) && wanted_replicas(d) > 0);
        if let (Some(until), true) = (held, busy) {
            scales.values_mut().for_each(|scale| *scale = Scale::Kept);
            rollout.look_again = Some(until.duration_since(observed.now) + SignedDuration::from_millis(100));
        }
        scales.insert(target.to_owned(), size.scale(start));
    } else {
        match strategy {
            RolloutStrategy::BlueGreen => {
                scales.insert(active.to_owned(), size.scale(0));
                scales.insert(target.to_owned(), size.scale(start));
            }
            RolloutStrategy::Recreate => {
                scales.insert(active.to_owned(), Scale::Fixed(0));
                scales.insert(target.to_owned(), Scale::Fixed(0));
            }
        }
    }
    rollout.scales = scales;
    rollout
}

/// The revision that has the traffic. A Service that was lost or points nowhere is answered by the newest
/// revision that works; with none, by the target.
fn active<'a>(observed: &'a Observed, target: &'a str) -> &'a str {
    if let Some(revision) = observed
        .traffic()
        .filter(|revision| observed.deployment(revision).is_some())
    {
        return revision;
    }
    observed
        .deployments
        .iter()
        .find(|d| wanted_replicas(d) > 0 && is_available(d))
        .and_then(|d| revision_of(d.as_ref()))
        .unwrap_or(target)
}

fn switched_at(observed: &Observed) -> Option<Timestamp> {
    observed
        .endpoint
        .as_ref()?
        .annotations()
        .get(SWITCHED_ANNOTATION)?
        .parse()
        .ok()
}

#[cfg(test)]
#[path = "rollout_tests.rs"]
mod tests;
