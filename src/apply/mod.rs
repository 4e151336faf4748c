//! Apply: makes the cluster what the plan says, by server-side apply of what differs. Touches only objects
//! whose controller has the service's UID.
//!
//! The order, and what another one would break:
//! 1. An autoscaler that is not wanted goes first: it would scale a Deployment that is fixed next.
//! 2. Deployments, the target first: the Service must not select a revision that does not exist.
//! 3. The Service, then the autoscaler: traffic moves before the old revision stops being sized by load.
//! 4. The disruption budget, which counts pods of the revision that has the traffic by now.
//! 5. What is no longer wanted: nothing refers to it any more.
//!
//! Of a new service the Service comes first, alone, and the rest in a second pass, behind the first passes of all
//! that came with it: an API server makes one Service at a time, and each takes many times longer once it has to
//! share the cores with what the controllers do about Deployments. There is no traffic yet that could go astray.

mod difference;
mod make;
mod scale;

use crate::{
    cache::{children::Children, retention::Kept},
    controller::context::ControllerContext,
    crd::{APPLIED_ANNOTATION, SERVICE_LABEL},
    observe::Observed,
    plan::{Plan, rollout::Rollout},
    reason::Problem,
    revision::{self, is_ours},
    validate::ValidatedService,
};
pub use difference::first_difference;
use k8s_openapi::api::{
    apps::v1::Deployment, autoscaling::v2::HorizontalPodAutoscaler, core::v1::Service,
    policy::v1::PodDisruptionBudget,
};
use kube::{
    Api, Client, Resource, ResourceExt as _,
    api::{DeleteParams, Patch, PatchParams, Preconditions},
};
use parking_lot::Mutex;
use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;
use std::{collections::HashMap, fmt::Debug, sync::Arc};

/// What the cluster is like after apply: all that a status may be computed from.
#[derive(Clone, Debug, Default)]
pub struct Applied {
    /// Where the rollout stands; absent when there was no plan.
    pub rollout: Option<Rollout>,
    /// What could not be done.
    pub problem: Option<Problem>,
    /// What a new revision would run with, where that differs.
    pub runtime_update: Option<String>,
    /// Deployments as they are now, newest revision first.
    pub deployments: Vec<Arc<Deployment>>,
    /// Whether the Service exists.
    pub has_endpoint: bool,
    /// Only the Service was made; the rest is to follow at once.
    pub is_begun: bool,
}

impl Applied {
    /// Nothing was applied: the spec cannot be met. What there is stays as it is.
    #[must_use]
    pub fn refused(problem: Problem, observed: &Observed) -> Self {
        Self {
            problem: Some(problem),
            deployments: observed.deployments.clone(),
            has_endpoint: observed.endpoint.is_some(),
            ..Self::default()
        }
    }
}

/// Objects of which the API server's answer differs from what was applied, by UID: hashes of what was wanted
/// and of what it became. Something normalises or reverts our fields; applying again would be a hot loop.
pub type Unequal = Mutex<HashMap<String, (String, String)>>;

/// Nothing of the service is there yet.
fn is_new(observed: &Observed) -> bool {
    observed.deployments.is_empty() && observed.endpoint.is_none()
}

/// Makes the cluster what the plan says.
pub async fn apply(
    context: &ControllerContext,
    service: &ValidatedService,
    observed: &Observed,
    plan: Plan,
) -> Applied {
    let Plan {
        revisions,
        endpoint,
        autoscaler,
        disruption_budget,
        retired,
        rollout,
        runtime_update,
    } = plan;
    let caches = &context.caches;
    let mut applied = Applied {
        rollout: Some(rollout),
        runtime_update,
        deployments: observed.deployments.clone(),
        has_endpoint: observed.endpoint.is_some(),
        is_begun: false,
        problem: None,
    };
    let applier = Applier {
        context,
        client: context.client.clone(),
        service,
    };
    let outcome = async {
        if autoscaler.is_none() {
            applier
                .prune(&caches.autoscalers, observed.autoscaler.as_ref())
                .await?;
        }
        let mut live = observed.endpoint.clone();
        if is_new(observed) {
            let _making = context.bursts.making();
            let made = applier.ensure(&caches.endpoints, endpoint.clone(), None).await?;
            applied.has_endpoint = true;
            // One that a further pass did not find, because something changed it, would be begun again and again.
            applied.is_begun =
                made.labels().contains_key(SERVICE_LABEL) && is_ours(made.as_ref(), &service.source);
            if applied.is_begun {
                return Ok(());
            }
            live = Some(made);
        }
        applier
            .deployments(revisions, observed)
            .await?
            .into_iter()
            .for_each(|deployment| applied.replace(deployment));
        applier.ensure(&caches.endpoints, endpoint, live.as_ref()).await?;
        applied.has_endpoint = true;
        if let Some(autoscaler) = autoscaler {
            applier
                .ensure(&caches.autoscalers, autoscaler, observed.autoscaler.as_ref())
                .await?;
        }
        match disruption_budget {
            Some(budget) => {
                applier
                    .ensure(
                        &caches.disruption_budgets,
                        budget,
                        observed.disruption_budget.as_ref(),
                    )
                    .await?;
            }
            None => {
                applier
                    .prune(&caches.disruption_budgets, observed.disruption_budget.as_ref())
                    .await?
            }
        }
        for deployment in retired {
            applier.prune(&caches.deployments, Some(&deployment)).await?;
            applied
                .deployments
                .retain(|known| known.metadata.uid != deployment.metadata.uid);
        }
        Ok(())
    };
    let outcome: Result<(), Problem> = outcome.await;
    applied.problem = outcome.err();
    applied
}

impl Applied {
    fn replace(&mut self, deployment: Arc<Deployment>) {
        match self
            .deployments
            .iter_mut()
            .find(|known| known.metadata.name == deployment.metadata.name)
        {
            Some(known) => *known = deployment,
            None => self.deployments.insert(0, deployment),
        }
    }
}

/// Kinds of children.
trait Child:
    Resource<DynamicType = (), Scope = k8s_openapi::NamespaceResourceScope>
    + Kept
    + Clone
    + Debug
    + Serialize
    + DeserializeOwned
    + Send
    + Sync
    + 'static
{
}
impl Child for Deployment {}
impl Child for Service {}
impl Child for HorizontalPodAutoscaler {}
impl Child for PodDisruptionBudget {}

struct Applier<'a> {
    context: &'a ControllerContext,
    client: Client,
    service: &'a ValidatedService,
}

impl Applier<'_> {
    fn api<K: Child>(&self) -> Api<K> {
        Api::namespaced(self.client.clone(), &self.service.namespace)
    }

    /// Applies `wanted` where `live` differs from it; returns the object as it is then.
    async fn ensure<K: Child>(
        &self,
        cache: &Children<K>,
        wanted: K,
        live: Option<&Arc<K>>,
    ) -> Result<Arc<K>, Problem> {
        let mut wanted = to_value("encode", &K::kind(&()), &wanted)?;
        let hash = revision::hash(&wanted);
        if let Some(live) = live
            && !self.differs(cache, &wanted, &hash, live)?
        {
            return Ok(live.clone());
        }
        wanted["metadata"]["annotations"][APPLIED_ANNOTATION] = hash.clone().into();
        let answer = match live {
            Some(live) => self.change(&mut wanted, live.uid()).await?,
            None => self.make(&mut wanted).await?,
        };
        let answer = cache.put(answer);
        self.compare_answer(cache, &wanted, &hash, answer.as_ref())?;
        Ok(answer)
    }

    /// Whether `live` lacks something of `wanted`, or has something that was wanted once.
    fn differs<K: Child>(
        &self,
        cache: &Children<K>,
        wanted: &Value,
        hash: &str,
        live: &K,
    ) -> Result<bool, Problem> {
        if cache.is_settled(live, hash) {
            return Ok(false);
        }
        let value = to_value("encode", &K::kind(&()), live)?;
        let path = first_difference(wanted, &value);
        if live.annotations().get(APPLIED_ANNOTATION).map(String::as_str) == Some(hash) && path.is_none() {
            cache.settle(live, hash);
            return Ok(false);
        }
        let unequal = self.context.unequal.lock();
        let known = live.meta().uid.as_ref().and_then(|uid| unequal.get(uid));
        if known.is_some_and(|(wanted, became)| wanted == hash && *became == revision::hash(&value["spec"])) {
            return Ok(false);
        }
        tracing::debug!(kind = %K::kind(&()), name = %live.name_any(), path, "differs");
        Ok(true)
    }

    /// Settles what the API server answered, or remembers where it is not what was applied.
    fn compare_answer<K: Child>(
        &self,
        cache: &Children<K>,
        wanted: &Value,
        hash: &str,
        answer: &K,
    ) -> Result<(), Problem> {
        let value = to_value("encode", &K::kind(&()), answer)?;
        let uid = answer.uid().unwrap_or_default();
        let mut unequal = self.context.unequal.lock();
        match first_difference(wanted, &value) {
            Some(path) => {
                tracing::warn!(kind = %K::kind(&()), name = %answer.name_any(), path, "the API server changed an applied field");
                unequal.insert(uid, (hash.to_owned(), revision::hash(&value["spec"])));
            }
            None => {
                unequal.remove(&uid);
                cache.settle(answer, hash);
            }
        }
        Ok(())
    }

    async fn patch<K: Child>(&self, manager: &str, body: &Value) -> Result<K, Problem> {
        let answer = self.try_patch(manager, body).await;
        answer.map_err(|error| Problem::of_request("patch", &K::kind(&()), &error))
    }

    async fn try_patch<K: Child>(&self, manager: &str, body: &Value) -> kube::Result<K> {
        let name = body["metadata"]["name"].as_str().unwrap_or_default();
        let parameters = PatchParams::apply(manager).force();
        self.api::<K>()
            .patch(name, &parameters, &Patch::Apply(body))
            .await
    }

    /// Deletes a child, if it is still the one that was observed.
    async fn prune<K: Child>(&self, cache: &Children<K>, live: Option<&Arc<K>>) -> Result<(), Problem> {
        let Some(live) = live else { return Ok(()) };
        if live.meta().deletion_timestamp.is_some() {
            return Ok(());
        }
        let only = Preconditions {
            uid: live.uid(),
            resource_version: None,
        };
        let parameters = DeleteParams {
            preconditions: Some(only),
            ..DeleteParams::background()
        };
        match self.api::<K>().delete(&live.name_any(), &parameters).await {
            Ok(_) => {}
            // Gone already, or replaced by an object that is not ours.
            Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => {}
            Err(error) => return Err(Problem::of_request("delete", &K::kind(&()), &error)),
        }
        cache.forget(live);
        Ok(())
    }
}

fn to_value<K: Serialize>(verb: &'static str, kind: &str, object: &K) -> Result<Value, Problem> {
    serde_json::to_value(object).map_err(|error| Problem::Api {
        verb,
        kind: kind.to_owned(),
        message: error.to_string(),
    })
}
