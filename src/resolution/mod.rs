//! Resolution: which version of its source a new revision gets, as far as the pods say that look for it. Pure: no clock,
//! no client.
//!
//! Each attempt is a pod of its own, numbered in a label. Nothing but these pods holds the state: the version that was
//! found is in a pod's termination message until the revision's Deployment exists, and a failed pod stays, with what it
//! said, until the next attempt has ended too.

use crate::{
    cache::pod::{ContainerStatus, Pod},
    crd::{ATTEMPT_LABEL, RESOLVE_CONTAINER, RESOLVES_LABEL},
};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::ContainerStateTerminated;
use kube::ResourceExt as _;
use modelservice_contract::Resolved;
use std::{cmp::Reverse, sync::Arc};

/// How long after the first failed attempt the next one begins; after each further one twice as long.
const FIRST_WAIT: SignedDuration = SignedDuration::from_secs(10);
/// The longest wait.
const LONGEST_WAIT: SignedDuration = SignedDuration::from_mins(5);

/// One attempt.
#[derive(Clone, Debug)]
pub struct Attempt {
    /// Its pod.
    pub pod: Arc<Pod>,
    /// Its number, from 1.
    pub number: u32,
    /// How it ended, if it has.
    pub ended: Option<Ended>,
}

/// How an attempt ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ended {
    /// It found this.
    Found(Resolved),
    /// It failed.
    Failed {
        /// When.
        at: Timestamp,
    },
}

/// What is to be done about the version of a new revision.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Next {
    /// Nothing: it is known.
    Known(Resolved),
    /// An attempt with this number has to begin.
    Begin(u32),
    /// An attempt has to be waited for.
    Wait,
    /// The next attempt begins at this time.
    WaitUntil(Timestamp),
}

/// The revision that a pod looks for the version of.
#[must_use]
pub fn resolves(pod: &Pod) -> Option<&str> {
    pod.labels().get(RESOLVES_LABEL).map(String::as_str)
}

/// The attempts for a revision, the latest first.
#[must_use]
pub fn attempts(pods: &[Arc<Pod>], revision: &str) -> Vec<Attempt> {
    let its = pods.iter().filter(|pod| resolves(pod) == Some(revision));
    let mut all: Vec<Attempt> = its.map(Attempt::of).collect();
    all.sort_by_key(|attempt| Reverse(attempt.number));
    all
}

/// What comes next after these attempts, the latest first.
#[must_use]
pub fn next(attempts: &[Attempt], now: Timestamp) -> Next {
    let Some(latest) = attempts.first() else {
        return Next::Begin(1);
    };
    match &latest.ended {
        Some(Ended::Found(found)) => Next::Known(found.clone()),
        Some(Ended::Failed { at }) => {
            let due = *at + wait_after(latest.number);
            if due <= now {
                Next::Begin(latest.number.saturating_add(1))
            } else {
                Next::WaitUntil(due)
            }
        }
        // Somebody deletes it.
        None if latest.pod.metadata.deletion_timestamp.is_some() => {
            Next::Begin(latest.number.saturating_add(1))
        }
        None => Next::Wait,
    }
}

/// Pods that say nothing any more: everything before the latest attempt that has ended.
pub fn outdated(attempts: &[Attempt]) -> impl Iterator<Item = &Arc<Pod>> {
    let ended = attempts.iter().position(|attempt| attempt.ended.is_some());
    let kept = ended.map_or(attempts.len(), |ended| ended + 1);
    attempts.iter().skip(kept).map(|attempt| &attempt.pod)
}

fn wait_after(number: u32) -> SignedDuration {
    let factor = 2_i32.saturating_pow(number.saturating_sub(1).min(16));
    FIRST_WAIT.saturating_mul(factor).min(LONGEST_WAIT)
}

impl Attempt {
    fn of(pod: &Arc<Pod>) -> Self {
        let number = pod.labels().get(ATTEMPT_LABEL);
        Self {
            number: number.and_then(|number| number.parse().ok()).unwrap_or(1),
            ended: ended(pod),
            pod: pod.clone(),
        }
    }
}

/// The container that looks for the version: others may be injected beside it, and may not end with it.
#[must_use]
pub fn container(pod: &Pod) -> Option<&ContainerStatus> {
    let mut containers = pod.status.container_statuses.iter();
    containers.find(|container| container.name == RESOLVE_CONTAINER)
}

fn ended(pod: &Pod) -> Option<Ended> {
    let state = container(pod).and_then(|container| container.state.as_ref());
    let terminated = state.and_then(|state| state.terminated.as_ref());
    let created = || pod.metadata.creation_timestamp.as_ref().map(|at| at.0);
    match terminated {
        Some(terminated) => Some(found(terminated).map_or_else(
            || Ended::Failed {
                at: finished(terminated).or_else(created).unwrap_or_default(),
            },
            Ended::Found,
        )),
        // Its node evicted or rejected it, or its time is over.
        None if pod.is_terminal() => Some(Ended::Failed {
            at: created().unwrap_or_default(),
        }),
        None => None,
    }
}

fn found(terminated: &ContainerStateTerminated) -> Option<Resolved> {
    if terminated.exit_code != 0 {
        return None;
    }
    serde_json::from_str(terminated.message.as_deref()?).ok()
}

fn finished(terminated: &ContainerStateTerminated) -> Option<Timestamp> {
    terminated.finished_at.as_ref().map(|at| at.0)
}

#[cfg(test)]
mod tests;
