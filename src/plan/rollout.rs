//! Rollout: which revision has the traffic, and the size of each revision. Pure.
//!
//! With `target` the revision that the spec asks for and `active` the one that has the traffic:
//! 1. No `active`: the traffic goes to `target`, at the size that the spec says.
//! 2. `active == target`: the size that the spec says. Every other revision keeps its size for [`DRAIN_HOLD`] after
//!    the switch, so that no client meets a server that stops before the client's node has learned of the switch.
//!    Then it goes to 0.
//! 3. BlueGreen, `active != target`: `target` starts at the present size of `active`; once all of it is available,
//!    the traffic moves. Until then the spec sizes `active`, and any third revision goes to 0. Where there is no room
//!    for both, `target` gives way: see src/plan/room.rs.
//! 4. Recreate, `active != target`: `active` goes to 0; once its pods have ended, the traffic moves (see 2).
//! 5. Rolling, `active != target`: the servers of `active` are replaced one by one, and the traffic goes to both: see
//!    src/plan/rolling.rs.
//! 6. Suspended: every revision goes to 0, and the traffic stays where it is.
//! 7. While the version of the target's model is not known, there is no `target` to go to, and all is as if the spec asked
//!    for `active`. A rolling update that is under way rests: every size and the traffic stay as they are.

use super::{
    meta::{self, DeploymentId},
    rolling::{self, Rolling, Update},
    room::{self, GivesWay},
};
use crate::{
    cache::pod::Pod,
    crd::{ModelServiceSpec, RolloutStrategy, SWITCHED_ANNOTATION},
    observe::{Observed, until_next},
    revision::{is_available, placement_of, revision_of, wanted_replicas},
    validate::{Size, Target, ValidatedService},
};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::apps::v1::Deployment;
use kube::ResourceExt as _;
use std::{collections::BTreeMap, sync::Arc};

/// How long a revision that lost the traffic keeps its size, so that every node can learn of the switch and current
/// requests can finish. After that the servers drain kept-alive connections themselves.
pub const DRAIN_HOLD: SignedDuration = SignedDuration::from_secs(15);

/// How the size of one revision's Deployment is decided.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scale {
    /// We own `spec.replicas`.
    Fixed(i32),
    /// Our second field manager owns it, and writes it when the load asks for another size.
    Held(i32),
    /// The HorizontalPodAutoscaler owns it.
    Autoscaled {
        /// Size at which a Deployment starts that is new or at zero, and which one that we sized has at least.
        start: i32,
    },
    /// Unchanged, whoever set it.
    Unchanged,
}

/// The decision.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rollout {
    /// Revision that the spec asks for.
    pub target: String,
    /// Revision that has the traffic.
    pub traffic: String,
    /// When the traffic moved there, if it ever moved.
    pub switched_at: Option<Timestamp>,
    /// Size of every revision that exists or is to be created.
    pub scales: BTreeMap<String, Scale>,
    /// The pod that has to terminate before the traffic can move: the one that should have terminated first.
    pub waits_for: Option<String>,
    /// How the target gives way to the revision that has the traffic, if there is no room for both.
    pub gives_way: Option<GivesWay>,
    /// Class of the Deployment that has the traffic, if its revision names several.
    pub placement: Option<String>,
    /// Class of the target that is on trial, beside the one in use.
    pub trial: Option<String>,
    /// The rolling update that is under way.
    pub rolling: Option<Rolling>,
    /// When the first server of the target gave its device back in a rolling update.
    pub gave_back: Option<Timestamp>,
    /// When to reconcile again although nothing happens.
    pub look_again: Option<SignedDuration>,
}

impl Rollout {
    /// Whether the traffic is where the spec wants it.
    #[must_use]
    pub fn is_settled(&self) -> bool {
        self.target == self.traffic && self.rolling.is_none()
    }

    /// The Deployment that has the traffic.
    pub(super) fn serving(&self) -> DeploymentId<'_> {
        DeploymentId {
            revision: &self.traffic,
            class: self.placement.as_deref(),
        }
    }

    /// Selects the servers that have the traffic.
    pub(super) fn selector(&self, service: &ValidatedService) -> BTreeMap<String, String> {
        match self.rolling {
            Some(_) => meta::server_selector(service),
            None => self.serving().selector(service),
        }
    }
}

/// Decides which revision has the traffic, and the size of each revision.
#[must_use]
pub fn decide(service: &ValidatedService, observed: &Observed) -> Rollout {
    let asked = service.revision.as_str();
    let active = active(observed, asked);
    let target = match service.target {
        Target::Unresolved(_) => active,
        Target::Existing(_) | Target::New(_) => asked,
    };
    let mut rollout = Rollout {
        target: target.to_owned(),
        traffic: active.to_owned(),
        switched_at: switched_at(observed),
        scales: all_at_zero(observed, target),
        waits_for: None,
        gives_way: None,
        placement: None,
        trial: None,
        rolling: None,
        gave_back: None,
        look_again: None,
    };
    if !service.spec().suspend {
        run(&mut rollout, service, observed);
    }
    rollout.placement = placement(&rollout, service, observed);
    asked.clone_into(&mut rollout.target);
    rollout
}

/// The same for a service that is not suspended.
fn run(rollout: &mut Rollout, service: &ValidatedService, observed: &Observed) {
    match service.spec().rollout.strategy {
        _ if rests(rollout, service, observed) => {}
        RolloutStrategy::Rolling => replace(rollout, service, observed),
        _ if rollout.is_settled() => {}
        RolloutStrategy::BlueGreen => blue_green(rollout, service, observed),
        RolloutStrategy::Recreate => recreate(rollout, service, observed),
    }
    if rollout.is_settled() {
        hold_drained(rollout, observed);
        let size = sized(service, observed, &rollout.target);
        rollout.scales.insert(rollout.target.clone(), size);
    }
    let next = rollout
        .look_again
        .into_iter()
        .chain(schedule_changes(service, observed));
    rollout.look_again = next.min();
}

/// Class of the Deployment that has the traffic: the one in use, or the best one if the revision is to be created.
fn placement(rollout: &Rollout, service: &ValidatedService, observed: &Observed) -> Option<String> {
    if let Some(live) = observed.deployment(&rollout.traffic) {
        return placement_of(live.as_ref()).map(str::to_owned);
    }
    let best = service.spec().accelerators.first()?;
    let id = DeploymentId::of_target(service, best);
    id.class.map(str::to_owned)
}

/// Leaves a rolling update as it is while there is no revision that it could go on to: `active` would be the target of a
/// new update in each pass, of which the Service then remembers another one. Returns whether it rests.
fn rests(rollout: &mut Rollout, service: &ValidatedService, observed: &Observed) -> bool {
    if !matches!(service.target, Target::Unresolved(_)) || service.size.is_zero() {
        return false;
    }
    let Some(mut begun) = Rolling::of(observed) else {
        return false;
    };
    if observed.deployment(&begun.from).is_none() {
        begun.from.clone_from(&rollout.traffic);
    }
    rollout.traffic.clone_from(&begun.from);
    rollout.rolling = Some(begun);
    keep_sizes(rollout);
    true
}

/// Every revision keeps its size.
fn keep_sizes(rollout: &mut Rollout) {
    rollout
        .scales
        .values_mut()
        .for_each(|scale| *scale = Scale::Unchanged);
}

/// Replaces the servers of the active revision one by one.
fn replace(rollout: &mut Rollout, service: &ValidatedService, observed: &Observed) {
    let (active, target) = (rollout.traffic.clone(), rollout.target.clone());
    let update = match service.size.is_zero() {
        true => None,
        false => rolling::decide(observed, service.spec(), &active, &target),
    };
    match update {
        Some(Update::Goes {
            rolling,
            sizes,
            gave_back,
            look_again,
        }) => {
            let sizes = sizes
                .into_iter()
                .map(|(revision, size)| (revision, Scale::Fixed(size)));
            rollout.scales.extend(sizes);
            rollout.traffic.clone_from(&rolling.from);
            (rollout.rolling, rollout.gave_back, rollout.look_again) = (Some(rolling), gave_back, look_again);
        }
        Some(Update::Over { gave_back, total }) => {
            rollout.gave_back = Some(gave_back);
            let size = scale(&service.size, wanted(observed).unwrap_or(total));
            rollout.scales.insert(active, size);
        }
        None if active == target => {}
        None | Some(Update::Done) => switch(rollout, observed),
    }
}

/// Moves the traffic once all of the target is available; until then both revisions have servers.
fn blue_green(rollout: &mut Rollout, service: &ValidatedService, observed: &Observed) {
    let (active, target) = (rollout.traffic.clone(), rollout.target.clone());
    let present = observed.deployment(&active).map_or(1, |d| wanted_replicas(d));
    let full = service.size.within(wanted(observed).unwrap_or(present));
    let takes_over =
        |d: &Arc<Deployment>| wanted_replicas(d) > 0 && is_available(d) && !room::is_reduced(d, full);
    if service.size.is_zero() || observed.deployment(&target).is_some_and(takes_over) {
        return switch(rollout, observed);
    }
    (rollout.gives_way, rollout.look_again) = room::decide(observed, &active, &target, full);
    let size = match &rollout.gives_way {
        Some(gives_way) => Scale::Fixed(gives_way.size),
        None => scale(&service.size, full),
    };
    let keeps = service.size.policy().is_some() && present > 0;
    let kept = if keeps {
        Scale::Unchanged
    } else {
        scale(&service.size, 0)
    };
    rollout.scales.insert(active, kept);
    rollout.scales.insert(target, size);
}

/// Moves the traffic once no pod of the active revision is left.
fn recreate(rollout: &mut Rollout, service: &ValidatedService, observed: &Observed) {
    let remaining = || observed.remaining_pods_of(&rollout.traffic);
    rollout.waits_for = remaining()
        .min_by_key(|pod| (ends_at(pod).unwrap_or(Timestamp::MAX), pod.name_any()))
        .map(|pod| pod.name_any());
    let overdue = remaining().filter_map(|pod| overdue_at(pod, service.spec()));
    rollout.look_again = until_next(overdue, observed.now);
    if rollout.waits_for.is_none() {
        switch(rollout, observed);
    }
}

fn switch(rollout: &mut Rollout, observed: &Observed) {
    rollout.traffic.clone_from(&rollout.target);
    rollout.switched_at = Some(observed.now);
}

/// When a pod that has to terminate is reported as not terminating. `None` if it is not being deleted.
#[must_use]
pub fn overdue_at(pod: &Pod, spec: &ModelServiceSpec) -> Option<Timestamp> {
    let deadline = spec.rollout.progress_deadline_seconds;
    Some(ends_at(pod)? + SignedDuration::from_secs(deadline.into()))
}

/// When the kubelet should have terminated a pod.
fn ends_at(pod: &Pod) -> Option<Timestamp> {
    pod.metadata.deletion_timestamp.as_ref().map(|at| at.0)
}

fn all_at_zero(observed: &Observed, target: &str) -> BTreeMap<String, Scale> {
    let existing = observed.deployments.iter();
    existing
        .filter_map(|d| revision_of(d.as_ref()))
        .chain([target])
        .map(|revision| (revision.to_owned(), Scale::Fixed(0)))
        .collect()
}

/// Keeps the size of every revision that lost the traffic less than [`DRAIN_HOLD`] ago.
fn hold_drained(rollout: &mut Rollout, observed: &Observed) {
    let until = rollout.switched_at.map(|at| at + DRAIN_HOLD);
    let Some(until) = until.filter(|until| *until > observed.now) else {
        return;
    };
    let is_running =
        |d: &Deployment| revision_of(d) != Some(rollout.target.as_str()) && wanted_replicas(d) > 0;
    if observed.deployments.iter().any(|d| is_running(d)) {
        keep_sizes(rollout);
        rollout.look_again = until_next([until], observed.now);
    }
}

/// The size of the Deployment that has the traffic: what the load asks for, or as it is until that is known.
fn sized(service: &ValidatedService, observed: &Observed, revision: &str) -> Scale {
    let present = || observed.deployment(revision).map_or(0, |d| wanted_replicas(d));
    let start = match service.size.policy() {
        Some(_) => wanted(observed).unwrap_or_else(present),
        None => 0,
    };
    scale(&service.size, start)
}

/// How long until a schedule begins or ends.
fn schedule_changes(service: &ValidatedService, observed: &Observed) -> Option<SignedDuration> {
    match &service.size {
        Size::Autoscaled(range) => until_next(range.changes_at, observed.now),
        Size::Fixed(_) => None,
    }
}

/// How many servers the load asks for.
fn wanted(observed: &Observed) -> Option<i32> {
    observed.scaling.as_ref().map(|scaling| scaling.wanted)
}

/// The size of a revision's Deployment; an autoscaled one has or starts with this many servers, within its bounds.
fn scale(size: &Size, servers: i32) -> Scale {
    let within = size.within(servers);
    match size {
        Size::Fixed(replicas) => Scale::Fixed(*replicas),
        Size::Autoscaled(_) if size.policy().is_some() => Scale::Held(within),
        Size::Autoscaled(_) => Scale::Autoscaled { start: within },
    }
}

/// The revision that has the traffic. If the Service is missing or selects no existing revision, it is the newest
/// revision that works, or the target if none works.
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
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::{fixtures::observed, plan::Plan};
    use serde_json::json;

    fn scale(plan: &Plan, revision: &str) -> Scale {
        plan.rollout.scales[revision]
    }

    struct Two {
        old: Plan,
        observed: Observed,
        old_name: String,
        new_name: String,
    }

    /// A service whose old revision runs with `replicas` servers, and whose spec now asks for another.
    fn changed(spec: serde_json::Value, replicas: i32) -> Two {
        let old = observed(spec.clone()).planned();
        let mut new = spec;
        new["model"] = json!({"image": "models.example/net@sha256:bb"});
        let observed = observed(new).running(&old, replicas, replicas).routed(&old);
        let new_name = observed.planned().rollout.target;
        Two {
            old_name: old.rollout.target.clone(),
            old,
            observed,
            new_name,
        }
    }

    #[test]
    fn the_first_revision_has_the_traffic_at_once() {
        let plan = observed(json!({"replicas": 2})).planned();
        assert!(plan.rollout.is_settled());
        assert_eq!(scale(&plan, &plan.rollout.target.clone()), Scale::Fixed(2));
        assert_eq!(plan.rollout.switched_at, None, "it never moved");
    }

    /// A new revision that starts smaller than the old one is overloaded when the traffic moves.
    #[test]
    fn a_new_revision_starts_at_the_old_ones_present_size() {
        let two = changed(
            json!({"autoscaling": {"minReplicas": 1, "maxReplicas": 8, "target": {"cpuUtilization": 70}}}),
            5,
        );
        let plan = two.observed.planned();
        assert_eq!(plan.rollout.traffic, two.old_name);
        assert_eq!(scale(&plan, &two.new_name), Scale::Autoscaled { start: 5 });
        assert!(matches!(scale(&plan, &two.old_name), Scale::Autoscaled { .. }));
    }

    #[test]
    fn traffic_moves_when_all_of_the_new_revision_is_available_and_the_old_one_drains() {
        let two = changed(json!({"replicas": 3}), 3);
        let starting = two.observed.planned();
        let partly = two.observed.clone().running(&starting, 3, 2).planned();
        assert_eq!(partly.rollout.traffic, two.old_name, "two of three is not enough");

        let mut all = two.observed.clone().running(&starting, 3, 3);
        let moved = all.planned();
        assert_eq!(moved.rollout.traffic, two.new_name);
        assert_eq!(moved.rollout.switched_at, Some(all.now));
        assert_eq!(scale(&moved, &two.old_name), Scale::Unchanged);
        assert!(moved.rollout.look_again.is_some());

        all.endpoint = Some(std::sync::Arc::new(moved.endpoint));
        all.now += DRAIN_HOLD + SignedDuration::from_secs(1);
        let drained = all.planned();
        assert_eq!(scale(&drained, &two.old_name), Scale::Fixed(0));
        assert_eq!(drained.rollout.look_again, None);
        assert_eq!(
            drained.rollout.switched_at,
            Some(all.now - DRAIN_HOLD - SignedDuration::from_secs(1)),
            "kept"
        );
    }

    #[test]
    fn recreate_moves_only_when_the_old_pods_are_gone() {
        let two = changed(json!({"replicas": 2, "rollout": {"strategy": "Recreate"}}), 2);
        let observed = two.observed.pod(&two.old, json!({}));
        let ending = observed.planned();
        assert_eq!(ending.rollout.traffic, two.old_name);
        assert_eq!(ending.rollout.waits_for.as_deref(), Some("photos-0"));
        assert_eq!(
            (scale(&ending, &two.old_name), scale(&ending, &two.new_name)),
            (Scale::Fixed(0), Scale::Fixed(0))
        );
        let gone = Observed {
            pods: Vec::new(),
            ..observed
        }
        .planned();
        assert_eq!(gone.rollout.traffic, two.new_name);
        assert_eq!(scale(&gone, &two.new_name), Scale::Fixed(2));
    }

    /// An evicted pod stays for hours, and somebody else's pod may never be deleted: waiting for either would be an
    /// endless outage.
    #[test]
    fn recreate_waits_for_no_pod_that_has_ended_or_is_not_ours() {
        let waits = |change: fn(&mut Pod)| {
            let two = changed(json!({"replicas": 2, "rollout": {"strategy": "Recreate"}}), 2);
            let mut observed = two.observed.pod(&two.old, json!({"phase": "Running"}));
            change(Arc::make_mut(&mut observed.pods[0]));
            let rollout = observed.planned().rollout;
            assert_eq!(rollout.waits_for.is_none(), rollout.traffic == two.new_name);
            rollout.waits_for.is_some()
        };
        type Row = (&'static str, bool, fn(&mut Pod));
        let table: [Row; 8] = [
            ("runs", true, |_| {}),
            ("is ending", true, |pod| {
                pod.metadata.deletion_timestamp = pod.metadata.creation_timestamp.clone()
            }),
            ("phase unknown: its node is gone", true, |pod| {
                pod.status.phase = Some("Unknown".into())
            }),
            ("evicted", false, |pod| pod.status.phase = Some("Failed".into())),
            ("done", false, |pod| pod.status.phase = Some("Succeeded".into())),
            ("made by hand", false, |pod| pod.metadata.owner_references = None),
            ("of a Job", false, |pod| {
                pod.metadata.owner_references.as_mut().unwrap()[0].kind = "Job".into()
            }),
            ("of a stranger's ReplicaSet", false, |pod| {
                pod.metadata.owner_references.as_mut().unwrap()[0].name = "orders-5d9c".into();
            }),
        ];
        for (pod, expected, change) in table {
            assert_eq!(waits(change), expected, "{pod}");
        }
    }

    #[test]
    fn suspended_is_zero_everywhere_and_keeps_the_traffic_where_it_was() {
        let two = changed(json!({"replicas": 2, "suspend": true}), 2);
        let plan = two.observed.planned();
        assert!(
            plan.rollout
                .scales
                .values()
                .all(|scale| *scale == Scale::Fixed(0))
        );
        assert_eq!(plan.rollout.traffic, two.old_name);
    }
}
