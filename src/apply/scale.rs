//! Who owns a Deployment's `spec.replicas`: we while the size is fixed, the autoscaler otherwise.
//!
//! The field must never be without an owner, or the API server sets it to its default of 1. So before the
//! main field manager lets go of it, a second one applies just the live value; the autoscaler's first write
//! takes it from there. A new autoscaled Deployment gets its first size in the same way.

use super::Applier;
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

impl Applier<'_> {
    /// Applies the Deployment of every revision, in their order.
    pub(super) async fn deployments(
        &self,
        revisions: Vec<PlannedRevision>,
        observed: &Observed,
    ) -> Result<Vec<Arc<Deployment>>, Problem> {
        let mut applied = Vec::with_capacity(revisions.len());
        for planned in revisions {
            applied.push(self.deployment(planned, observed).await?);
        }
        Ok(applied)
    }

    /// Applies a revision's Deployment and its size.
    async fn deployment(
        &self,
        planned: PlannedRevision,
        observed: &Observed,
    ) -> Result<Arc<Deployment>, Problem> {
        let PlannedRevision { deployment, scale } = planned;
        let cache = &self.context.caches.deployments;
        let live = revision_of(&deployment)
            .and_then(|revision| observed.deployment(revision))
            .cloned();
        match (decide(live.as_deref(), scale), live) {
            (Step::Fix(replicas), live) => {
                self.ensure(cache, fixed(deployment, replicas), live.as_ref())
                    .await
            }
            (Step::Released, live) => self.ensure(cache, deployment, live.as_ref()).await,
            (Step::Release(replicas), live) => {
                let live = match live {
                    Some(live) => live,
                    None => {
                        self.ensure(cache, fixed(deployment.clone(), replicas), None)
                            .await?
                    }
                };
                let held = self.hold_replicas(&live, replicas).await?;
                self.ensure(cache, deployment, Some(&held)).await
            }
        }
    }

    /// Applies just `spec.replicas`, as the second field manager.
    async fn hold_replicas(&self, live: &Deployment, replicas: i32) -> Result<Arc<Deployment>, Problem> {
        let body = json!({
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "metadata": {"name": live.name_any(), "namespace": live.namespace(), "uid": live.uid()},
            "spec": {"replicas": replicas},
        });
        self.patch(SCALE_FIELD_MANAGER, &body).await.map(Arc::new)
    }
}

/// What is to be done about a Deployment's size.
#[derive(Debug, PartialEq, Eq)]
enum Step {
    /// We own it, at this value.
    Fix(i32),
    /// Nobody but the autoscaler writes it.
    Released,
    /// The second field manager takes it at this value, then we let go.
    Release(i32),
}

fn decide(live: Option<&Deployment>, scale: Scale) -> Step {
    let owned = live.is_some_and(|live| {
        live.annotations()
            .get(REPLICAS_ANNOTATION)
            .is_some_and(|who| who == FIXED)
    });
    match (scale, live.map(wanted_replicas)) {
        (Scale::Fixed(replicas), _) => Step::Fix(replicas),
        (Scale::Kept, Some(replicas)) if owned => Step::Fix(replicas),
        (Scale::Kept, _) => Step::Released,
        // The API server's own default is 1.
        (Scale::Autoscaled { start }, None) if start <= 1 => Step::Released,
        (Scale::Autoscaled { start }, None | Some(0)) => Step::Release(start),
        (Scale::Autoscaled { .. }, Some(replicas)) if owned => Step::Release(replicas),
        (Scale::Autoscaled { .. }, Some(_)) => Step::Released,
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
                Step::Released,
            ),
            ("new, autoscaled from 3", None, autoscaled, Step::Release(3)),
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
                Step::Release(5),
            ),
            (
                "autoscaled stays so",
                Some(live(7, false)),
                autoscaled,
                Step::Released,
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
                Step::Release(3),
            ),
            (
                "from zero, somebody else's",
                Some(live(0, false)),
                autoscaled,
                Step::Release(3),
            ),
            (
                "draining, was fixed",
                Some(live(4, true)),
                Scale::Kept,
                Step::Fix(4),
            ),
            (
                "draining, was autoscaled",
                Some(live(4, false)),
                Scale::Kept,
                Step::Released,
            ),
        ];
        for (name, live, scale, step) in table {
            assert_eq!(decide(live.as_ref(), scale), step, "{name}");
        }
    }
}
