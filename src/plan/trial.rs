//! Trial: the placements of the revision that the spec asks for, and the next class that is tried. Pure; the rules are
//! in src/placement/.

use super::{
    deployment::{self, Pair},
    rollout::{Rollout, Scale},
};
use crate::{
    crd::{PLACED_ANNOTATION, WAITING_ANNOTATION},
    observe::{Observed, until_next},
    placement::{self, Device, Placement, Situation},
    revision::{count_fallbacks, frozen_template, placement_of, revision_of},
    validate::{Target, ValidatedService},
};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::apps::v1::Deployment;
use kube::ResourceExt as _;
use std::{cmp::Reverse, collections::BTreeMap, sync::Arc};

/// What happens to the placements of a revision.
#[derive(Default)]
pub(super) struct Trial {
    /// Annotations of the placement in use.
    pub(super) in_use: BTreeMap<String, String>,
    /// The placement on trial, existing or to be created.
    pub(super) on_trial: Option<Pair>,
    /// How long until the next class is due.
    pub(super) look_again: Option<SignedDuration>,
}

impl Trial {
    /// Class of the placement on trial.
    pub(super) fn class(&self) -> Option<String> {
        let (deployment, _) = self.on_trial.as_ref()?;
        placement_of(deployment).map(str::to_owned)
    }
}

/// Decides about the placements of the revision that the spec asks for, if it names several classes.
pub(super) fn decide(service: &ValidatedService, observed: &Observed, rollout: &Rollout) -> Trial {
    let Target::Existing(live) = &service.target else {
        return Trial::default();
    };
    if placement_of(live.as_ref()).is_none() {
        return Trial::default();
    }
    let existing = existing(observed, live);
    let in_use = existing
        .iter()
        .position(|other| other.name_any() == live.name_any());
    let in_use = in_use.unwrap_or_default();
    let placements: Vec<Placement> = existing
        .iter()
        .map(|live| read(service, observed, live))
        .collect();
    let size = rollout.scales.get(&rollout.target);
    let situation = Situation {
        is_wanted: size.is_some_and(|size| *size != Scale::Fixed(0)),
        fallback_after: service.fallback_after,
        now: observed.now,
    };
    let decision = placement::decide(&placements, in_use, &situation);
    let marks = |index: usize| {
        marks(
            &placements[index],
            existing[index],
            decision.since.get(&index),
            observed.now,
        )
    };
    let kept = decision.trial.map(|index| {
        let (mut deployment, claim) = deployment::existing(service, existing[index], observed);
        deployment.annotations_mut().extend(marks(index));
        (deployment, claim)
    });
    let next = decision
        .start_after
        .and_then(|index| deployment::next(service, existing[index]));
    Trial {
        in_use: marks(in_use),
        on_trial: next.or(kept),
        look_again: until_next(decision.due, observed.now),
    }
}

/// Deployments of the same revision, best class first.
fn existing<'a>(observed: &'a Observed, live: &'a Arc<Deployment>) -> Vec<&'a Arc<Deployment>> {
    let is_same = |other: &&Arc<Deployment>| revision_of(other.as_ref()) == revision_of(live.as_ref());
    let mut all: Vec<_> = observed.beside.iter().filter(is_same).chain([live]).collect();
    all.sort_by_key(|live| (Reverse(count_fallbacks(live)), live.name_any()));
    all
}

/// What is known about a placement.
fn read(service: &ValidatedService, observed: &Observed, live: &Arc<Deployment>) -> Placement {
    let device = device(service, live);
    let remaining = || observed.remaining_pods_made_by(live).map(AsRef::as_ref);
    let present = remaining().filter(|pod| pod.metadata.deletion_timestamp.is_none());
    let mut placement = Placement::of(live, remaining()).waiting(live, present, &device);
    placement.waits_for_device &= !is_held(service, observed, &device);
    placement
}

/// Whether another revision holds a device that this one waits for.
fn is_held(service: &ValidatedService, observed: &Observed, wanted: &Device) -> bool {
    let all = observed.deployments.iter().chain(&observed.beside);
    let mut others = all.filter(|live| revision_of(live.as_ref()) != Some(&service.revision));
    others.any(|live| {
        let holds = observed
            .remaining_pods_made_by(live)
            .any(|pod| pod.is_scheduled());
        holds && device(service, live).competes_with(wanted)
    })
}

fn device(service: &ValidatedService, live: &Deployment) -> Device {
    // Validation has checked that there is one.
    Device::of(&frozen_template(live).unwrap_or_default(), service.spec())
}

/// What its Deployment remembers about a placement.
fn marks(
    placement: &Placement,
    live: &Deployment,
    since: Option<&Timestamp>,
    now: Timestamp,
) -> BTreeMap<String, String> {
    let placed = placement.placed.then(|| {
        let known = live.annotations().get(PLACED_ANNOTATION).cloned();
        (PLACED_ANNOTATION, known.unwrap_or_else(|| now.to_string()))
    });
    let waiting = since.map(|since| (WAITING_ANNOTATION, since.to_string()));
    let marks = placed.into_iter().chain(waiting);
    marks.map(|(key, value)| (key.to_owned(), value)).collect()
}

#[cfg(test)]
mod tests;
