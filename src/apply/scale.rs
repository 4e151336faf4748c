//! Scale: who owns a Deployment's `spec.replicas`. We do while the size is fixed; otherwise the autoscaler does.
//!
//! The field must never be without an owner, or the API server resets it to its default of 1. So before the main
//! field manager gives it up, a second one applies only the live value; the autoscaler takes it over with its first
//! write. A new autoscaled Deployment gets its first size in the same way.

use super::{
    applier::Applier,
    difference::{Difference, differences},
};
use crate::{
    crd::{REPLICAS_ANNOTATION, SCALE_FIELD_MANAGER},
    observe::Observed,
    plan::{PlannedRevision, rollout::Scale},
    reason::Problem,
    revision::{revision_of, wanted_replicas},
};
use k8s_openapi::api::apps::v1::Deployment;
use kube::ResourceExt as _;
use serde_json::json;
use std::sync::Arc;

/// Value of [`REPLICAS_ANNOTATION`] while we own the field.
const FIXED: &str = "fixed";

/// Applies a revision's Deployment and its size.
pub(super) async fn deployment(
    applier: &Applier<'_>,
    planned: PlannedRevision,
    observed: &Observed,
) -> Result<Option<Arc<Deployment>>, Problem> {
    let PlannedRevision { deployment, scale } = planned;
    let cache = &applier.caches.deployments;
    let live = revision_of(&deployment)
        .and_then(|revision| observed.deployment(revision))
        .cloned();
    match (decide(live.as_deref(), scale), live) {
        (Step::Fix(replicas), live) => {
            let wanted = fixed(deployment, replicas);
            applier.ensure(cache, wanted, live.as_ref()).await
        }
        (Step::LeaveAlone, live) => applier.ensure(cache, deployment, live.as_ref()).await,
        (Step::HandOver(replicas), live) => {
            let live = match live {
                Some(live) => Some(live),
                None => {
                    let wanted = fixed(deployment.clone(), replicas);
                    applier.ensure(cache, wanted, None).await?
                }
            };
            let Some(live) = live else { return Ok(None) };
            let differing = resized(&live, replicas);
            if applier.is_held::<Deployment>(&live.name_any(), &differing).await {
                return Ok(Some(live));
            }
            let held = hold_replicas(applier, &live, replicas).await?;
            applier.corrected::<Deployment>(&live.name_any(), &differing);
            applier.ensure(cache, deployment, Some(&held)).await
        }
    }
}

/// What a hand-over at this size changes, if anything.
fn resized(live: &Deployment, replicas: i32) -> Vec<Difference> {
    let size = |replicas| json!({"spec": {"replicas": replicas}});
    differences(&size(replicas), &size(wanted_replicas(live)))
}

/// Applies only `spec.replicas`, as the second field manager.
async fn hold_replicas(
    applier: &Applier<'_>,
    live: &Deployment,
    replicas: i32,
) -> Result<Arc<Deployment>, Problem> {
    let body = json!({
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": live.name_any(), "namespace": live.namespace(), "uid": live.uid()},
        "spec": {"replicas": replicas},
    });
    let answer = applier.requests.patch(SCALE_FIELD_MANAGER, &body).await;
    answer.map(Arc::new)
}

/// What to do about a Deployment's size.
#[derive(Debug, PartialEq, Eq)]
enum Step {
    /// We own it, at this value.
    Fix(i32),
    /// Nobody but the autoscaler writes it.
    LeaveAlone,
    /// The second field manager takes it over at this value, then we give it up.
    HandOver(i32),
}

fn decide(live: Option<&Deployment>, scale: Scale) -> Step {
    let owned = live.is_some_and(|live| {
        live.annotations()
            .get(REPLICAS_ANNOTATION)
            .is_some_and(|who| who == FIXED)
    });
    match (scale, live.map(wanted_replicas)) {
        (Scale::Fixed(replicas), _) => Step::Fix(replicas),
        (Scale::Unchanged, Some(replicas)) if owned => Step::Fix(replicas),
        (Scale::Unchanged, _) => Step::LeaveAlone,
        // The API server's own default is 1.
        (Scale::Autoscaled { start }, None) if start <= 1 => Step::LeaveAlone,
        (Scale::Autoscaled { start }, None | Some(0)) => Step::HandOver(start),
        (Scale::Autoscaled { start }, Some(replicas)) if owned => Step::HandOver(replicas.max(start)),
        (Scale::Autoscaled { .. }, Some(_)) => Step::LeaveAlone,
    }
}

fn fixed(mut deployment: Deployment, replicas: i32) -> Deployment {
    deployment.spec.replicas = Some(replicas);
    deployment
        .annotations_mut()
        .insert(REPLICAS_ANNOTATION.to_owned(), FIXED.to_owned());
    deployment
}

#[cfg(test)]
mod tests {
    use super::*;

    fn live(replicas: i32, owned: bool) -> Deployment {
        let mut deployment = fixed(Deployment::default(), replicas);
        if !owned {
            deployment.annotations_mut().clear();
        }
        deployment
    }

    /// A wrong row scales a service under load to one server.
    #[test]
    fn every_hand_over_goes_through_the_second_field_manager() {
        let autoscaled = Scale::Autoscaled { start: 3 };
        let table = [
            ("new, fixed", None, Scale::Fixed(2), Step::Fix(2)),
            (
                "new, autoscaled from 1",
                None,
                Scale::Autoscaled { start: 1 },
                Step::LeaveAlone,
            ),
            ("new, autoscaled from 3", None, autoscaled, Step::HandOver(3)),
            (
                "fixed stays fixed, drift or not",
                Some(live(5, true)),
                Scale::Fixed(2),
                Step::Fix(2),
            ),
            (
                "fixed becomes autoscaled at the live size",
                Some(live(5, true)),
                autoscaled,
                Step::HandOver(5),
            ),
            (
                "what gave way grows to its full size",
                Some(live(1, true)),
                autoscaled,
                Step::HandOver(3),
            ),
            (
                "autoscaled stays so",
                Some(live(7, false)),
                autoscaled,
                Step::LeaveAlone,
            ),
            (
                "autoscaled becomes fixed",
                Some(live(7, false)),
                Scale::Fixed(2),
                Step::Fix(2),
            ),
            (
                "from zero, ours",
                Some(live(0, true)),
                autoscaled,
                Step::HandOver(3),
            ),
            (
                "from zero, somebody else's",
                Some(live(0, false)),
                autoscaled,
                Step::HandOver(3),
            ),
            (
                "draining, was fixed",
                Some(live(4, true)),
                Scale::Unchanged,
                Step::Fix(4),
            ),
            (
                "draining, was autoscaled",
                Some(live(4, false)),
                Scale::Unchanged,
                Step::LeaveAlone,
            ),
        ];
        for (name, live, scale, step) in table {
            assert_eq!(decide(live.as_ref(), scale), step, "{name}");
        }
    }
}
