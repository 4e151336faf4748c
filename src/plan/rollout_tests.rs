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

/// A new revision that starts smaller than the old one is overrun when the traffic moves.
#[test]
fn a_new_revision_starts_at_the_old_ones_present_size() {
    let two = changed(json!({"autoscaling": {"minReplicas": 1, "maxReplicas": 8}}), 5);
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
    assert_eq!(scale(&moved, &two.old_name), Scale::Kept);
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
