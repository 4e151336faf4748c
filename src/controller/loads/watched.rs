//! What a reconcile found, for the task that reads its servers' load.

use crate::{
    cache::pod::Pod,
    observe::Observed,
    scaling::{Floor, Policy},
    validate::Range,
};
use kube::ResourceExt as _;
use std::net::IpAddr;

/// What a reconcile found.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Watched {
    pub(super) policy: Policy,
    pub(super) floor: Option<Floor>,
    /// Servers that there should be now.
    pub(super) size: i32,
    pub(super) revision: String,
    pub(super) pods: Vec<WatchedPod>,
}

/// A server of the revision that has the traffic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct WatchedPod {
    pub(super) uid: String,
    pub(super) name: String,
    pub(super) address: Option<IpAddr>,
    pub(super) ready: bool,
    pub(super) pending: bool,
}

impl Watched {
    /// The servers of the revision that has the traffic, of which there should be `present` now.
    pub(super) fn of(
        observed: &Observed,
        range: &Range,
        policy: &Policy,
        traffic: &str,
        present: i32,
    ) -> Self {
        let mut pods: Vec<WatchedPod> = observed.pods_of(traffic).map(|pod| WatchedPod::of(pod)).collect();
        pods.sort_by(|a, b| a.uid.cmp(&b.uid));
        Self {
            policy: policy.clone(),
            floor: range.floor.clone(),
            size: present,
            revision: traffic.to_owned(),
            pods,
        }
    }
}

impl WatchedPod {
    fn of(pod: &Pod) -> Self {
        Self {
            uid: pod.uid().unwrap_or_default(),
            name: pod.name_any(),
            address: pod.status.pod_ip.as_deref().and_then(|ip| ip.parse().ok()),
            ready: pod.is_ready(),
            pending: pod.unschedulable().is_some(),
        }
    }
}
