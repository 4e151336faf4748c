//! Scale: who owns a Deployment's `spec.replicas`. The main field manager does while the size is fixed, a second one
//! while the load decides it, and a HorizontalPodAutoscaler while that does.
//!
//! The field must never be without an owner, or the API server resets it to its default of 1. So before the main
//! field manager gives it up, the second one applies only this field; a HorizontalPodAutoscaler takes it over with its
//! first write. A new autoscaled Deployment gets its first size in the same way.

use super::{
    applier::Applier,
    difference::{Difference, differences},
};
use crate::{
    crd::{REPLICAS_ANNOTATION, SCALE_FIELD_MANAGER},
    observe::Observed,
    plan::{PlannedRevision, rollout::Scale},
    reason::Problem,
    revision::wanted_replicas,
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
    let PlannedRevision {
        claim: _,
        deployment,
        scale,
        is_on_trial: _,
    } = planned;
    let cache = &applier.caches.deployments;
    let live = observed.deployment_named(&deployment.name_any()).cloned();
    match (decide(live.as_deref(), scale), live) {
        (Step::Fix(replicas), live) => {
            let wanted = fixed(deployment, replicas);
            applier.ensure(cache, wanted, live.as_ref()).await
        }
        (Step::LeaveAlone, live) => applier.ensure(cache, deployment, live.as_ref()).await,
        (Step::HandOver(replicas), live) => {
            let is_new = live.is_none();
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
            let held = hold_replicas(applier, &live, replicas, is_new).await?;
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

/// Applies only `spec.replicas`, as the second field manager, to the Deployment as it was observed: a size that
/// somebody has set since is not overwritten unseen, and the next pass finds it. Of one that is new, whose status is
/// being filled in, any version will do.
async fn hold_replicas(
    applier: &Applier<'_>,
    live: &Arc<Deployment>,
    replicas: i32,
    is_new: bool,
) -> Result<Arc<Deployment>, Problem> {
    let mut known = live.clone();
    loop {
        let body = json!({
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "metadata": {
                "name": known.name_any(),
                "namespace": known.namespace(),
                "uid": known.uid(),
                "resourceVersion": known.resource_version().filter(|_| !is_new),
            },
            "spec": {"replicas": replicas},
        });
        match applier.requests.try_patch(SCALE_FIELD_MANAGER, &body).await {
            Ok(answer) => return Ok(applier.caches.deployments.put(answer)),
            Err(kube::Error::Api(status)) if status.code == 409 => {
                let name = known.name_any();
                known = Arc::new(applier.requests.get(&name).await?);
                if known.uid() != live.uid() {
                    // Another object by now, which is not ours to change.
                    return Err(Problem::of_request(
                        "patch",
                        "Deployment",
                        &kube::Error::Api(status),
                    ));
                }
                if wanted_replicas(&known) != wanted_replicas(live) {
                    return Ok(known);
                }
            }
            Err(error) => return Err(Problem::of_request("patch", "Deployment", &error)),
        }
    }
}

/// What to do about a Deployment's size.
#[derive(Debug, PartialEq, Eq)]
enum Step {
    /// We own it, at this value.
    Fix(i32),
    /// It is right, or nobody but a HorizontalPodAutoscaler writes it.
    LeaveAlone,
    /// The second field manager sets it to this value, and the main one gives it up.
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
        (Scale::Held(size), None) if size <= 1 => Step::LeaveAlone,
        (Scale::Held(size), Some(replicas)) if size == replicas && !owned => Step::LeaveAlone,
        (Scale::Held(size), _) => Step::HandOver(size),
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
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::{apply::overrides::Overrides, cache::Caches, fixtures::observed, validate::validate};
    use hyper::{Method, Request, Response};
    use jiff::Timestamp;
    use kube::client::{Body, Client};
    use std::{collections::VecDeque, convert::Infallible};
    use tower::service_fn;

    /// What a hand-over to three servers ends with, and how often it patched, where the first patch conflicts and the
    /// Deployment is `now` this one.
    async fn after_a_conflict(now: &Deployment) -> (Result<i32, String>, usize) {
        let patches = Arc::new(parking_lot::Mutex::new(0));
        let mut answers = VecDeque::from([
            (
                409,
                json!({"kind": "Status", "code": 409, "reason": "Conflict", "message": "modified", "status": "Failure"}),
            ),
            (200, json!(now)),
            (200, json!(version("1", "8", 3))),
        ]);
        let counted = patches.clone();
        let server = service_fn(move |request: Request<Body>| {
            *counted.lock() += usize::from(request.method() == Method::PATCH);
            let (status, body) = answers.pop_front().unwrap();
            let response = Response::builder()
                .status(status)
                .body(Body::from(body.to_string().into_bytes()));
            async { Ok::<_, Infallible>(response.unwrap()) }
        });
        let client = Client::new(server, "team-a");
        let (caches, overrides) = (Caches::default(), Overrides::default());
        let service = validate(&observed(json!({}))).unwrap();
        let applier = Applier::new(&client, &caches, &overrides, &service, Timestamp::UNIX_EPOCH);
        let live = Arc::new(version("1", "5", 2));
        let held = hold_replicas(&applier, &live, 3, false).await;
        let patches = *patches.lock();
        let size = held.map(|deployment| wanted_replicas(&deployment));
        (size.map_err(|problem| problem.to_string()), patches)
    }

    fn version(uid: &str, version: &str, replicas: i32) -> Deployment {
        let mut deployment = live(replicas, false);
        deployment.metadata.name = Some("photos-1".to_owned());
        deployment.metadata.namespace = Some("team-a".to_owned());
        deployment.metadata.uid = Some(uid.to_owned());
        deployment.metadata.resource_version = Some(version.to_owned());
        deployment
    }

    #[tokio::test]
    async fn a_conflict_about_something_else_is_no_reason_to_keep_the_size() {
        assert_eq!(after_a_conflict(&version("1", "7", 2)).await, (Ok(3), 2));
    }

    #[tokio::test]
    async fn a_size_that_somebody_has_just_set_is_not_overwritten() {
        assert_eq!(after_a_conflict(&version("1", "7", 9)).await, (Ok(9), 1));
    }

    /// It has the name of ours, but may be anybody's.
    #[tokio::test]
    async fn a_deployment_made_anew_meanwhile_is_not_given_a_size() {
        let (outcome, patches) = after_a_conflict(&version("2", "7", 2)).await;
        assert!(outcome.is_err(), "{outcome:?}");
        assert_eq!(patches, 1);
    }

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
            ("new, by load, one", None, Scale::Held(1), Step::LeaveAlone),
            ("new, by load, three", None, Scale::Held(3), Step::HandOver(3)),
            (
                "by load, another size",
                Some(live(2, false)),
                Scale::Held(3),
                Step::HandOver(3),
            ),
            (
                "by load, the same size",
                Some(live(3, false)),
                Scale::Held(3),
                Step::LeaveAlone,
            ),
            (
                "fixed becomes by load at the live size",
                Some(live(3, true)),
                Scale::Held(3),
                Step::HandOver(3),
            ),
            (
                "by load, from zero",
                Some(live(0, true)),
                Scale::Held(1),
                Step::HandOver(1),
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
