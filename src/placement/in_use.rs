//! Which of a revision's placements is in use. Pure.

use super::state::Placement;
use crate::{
    cache::pod::Pod,
    crd::PLACEMENT_LABEL,
    revision::{count_fallbacks, is_made_by, placement_of, revision_of, selected_by},
};
use k8s_openapi::api::{apps::v1::Deployment, core::v1::Service};
use kube::ResourceExt as _;
use std::{cmp::Reverse, sync::Arc};

/// The index of the placement in use, of those of a revision that exist, best first: the one that the Service selects,
/// unless it was never placed and another one serves.
#[must_use]
pub fn in_use(placements: &[Placement], selected: Option<&str>) -> usize {
    let serving = placements.iter().position(|placement| placement.available > 0);
    let selected = placements
        .iter()
        .position(|placement| Some(placement.class.as_str()) == selected);
    match selected {
        Some(selected) if placements[selected].placed => selected,
        selected => serving.or(selected).unwrap_or(0),
    }
}

/// Splits the Deployments of a service into the one in use of each revision, in their order, and the others, the best
/// class first.
#[must_use]
pub fn split(
    mut deployments: Vec<Arc<Deployment>>,
    pods: &[Arc<Pod>],
    endpoint: Option<&Service>,
) -> (Vec<Arc<Deployment>>, Vec<Arc<Deployment>>) {
    let beside: Vec<Arc<Deployment>> = deployments
        .iter()
        .filter(|live| !is_in_use(live, &deployments, pods, endpoint))
        .cloned()
        .collect();
    let is_beside = |live: &Arc<Deployment>| beside.iter().any(|other| other.name_any() == live.name_any());
    deployments.retain(|live| !is_beside(live));
    let mut beside = beside;
    beside.sort_by_key(|live| Reverse(count_fallbacks(live)));
    (deployments, beside)
}

fn is_in_use(
    live: &Arc<Deployment>,
    all: &[Arc<Deployment>],
    pods: &[Arc<Pod>],
    endpoint: Option<&Service>,
) -> bool {
    if placement_of(live.as_ref()).is_none() {
        return true;
    }
    let revision = revision_of(live.as_ref());
    let is_same = |other: &&Arc<Deployment>| {
        revision_of(other.as_ref()) == revision && placement_of(other.as_ref()).is_some()
    };
    let mut same: Vec<&Arc<Deployment>> = all.iter().filter(is_same).collect();
    same.sort_by_key(|live| (Reverse(count_fallbacks(live)), live.name_any()));
    let of = |live: &&Arc<Deployment>| {
        let name = live.name_any();
        let pods = pods.iter().filter(|pod| is_made_by(pod.as_ref(), &name));
        Placement::of(live, pods.map(AsRef::as_ref))
    };
    let placements: Vec<Placement> = same.iter().map(of).collect();
    let endpoint = endpoint.filter(|endpoint| selected_by(endpoint) == revision);
    let selector = endpoint.and_then(|endpoint| endpoint.spec.as_ref()?.selector.as_ref());
    let selected = selector.and_then(|selector| selector.get(PLACEMENT_LABEL));
    let index = in_use(&placements, selected.map(String::as_str));
    same.get(index)
        .is_some_and(|chosen| chosen.name_any() == live.name_any())
}
