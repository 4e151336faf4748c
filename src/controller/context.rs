//! Context: what every reconcile shares. Holds caches and clients; no truth lives only here.

use crate::{
    apply::Unequal,
    cache::{Children, version},
    cluster::preflight::ClusterSupport,
    controller::{GuardedClass, backoff::Backoff, bursts::Bursts, events::Events, reports::Reports},
    crd::{AcceleratorClass, ModelService},
    kept::Pod,
    lock::lock,
    plan::Brings,
    process::metrics::Metrics,
};
use k8s_openapi::api::{
    apps::v1::Deployment, autoscaling::v2::HorizontalPodAutoscaler, core::v1::Service,
    policy::v1::PodDisruptionBudget,
};
use kube::{
    Client, ResourceExt as _,
    core::error_boundary::InvalidObject,
    runtime::reflector::{ObjectRef, Store},
};
use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex, MutexGuard},
};
use tokio::sync::OnceCell;

/// What every reconcile shares.
pub struct ControllerContext {
    /// Refuses writes once the lease could have been lost.
    pub client: Client,
    /// Children of every service.
    pub caches: Caches,
    /// AcceleratorClasses.
    pub classes: Classes,
    /// Services whose status was written a moment ago.
    pub written: Written,
    /// What new revisions run.
    pub brings: Brings,
    /// Whether this cluster can serve models.
    pub support: Arc<ClusterSupport>,
    /// What servers say of themselves.
    pub reports: Reports,
    /// Events on transitions.
    pub events: Events,
    /// Counters and durations.
    pub metrics: Arc<Metrics>,
    /// New services that wait for each other's Services.
    pub bursts: Bursts,
    /// Waiting times of services that fail.
    pub backoff: Backoff,
    /// Objects that the API server does not keep as applied.
    pub unequal: Unequal,
}

impl ControllerContext {
    /// Forgets a service that was deleted.
    pub fn forget(&self, service: &ObjectRef<ModelService>, object: &Result<ModelService, InvalidObject>) {
        self.backoff.reset(service);
        if let Ok(object) = object {
            self.written.forget(object);
        }
    }
}

/// Children of every service, filled by watches.
#[derive(Debug, Default)]
pub struct Caches {
    /// One per revision.
    pub deployments: Arc<Children<Deployment>>,
    /// Services.
    pub endpoints: Arc<Children<Service>>,
    /// HorizontalPodAutoscalers.
    pub autoscalers: Arc<Children<HorizontalPodAutoscaler>>,
    /// PodDisruptionBudgets.
    pub disruption_budgets: Arc<Children<PodDisruptionBudget>>,
    /// Pods of every revision.
    pub pods: Arc<Children<Pod>>,
}

impl Caches {
    /// Returns once every cache holds its first list: before that a child may seem to be missing.
    pub async fn wait_filled(&self) {
        self.deployments.wait_filled().await;
        self.endpoints.wait_filled().await;
        self.autoscalers.wait_filled().await;
        self.disruption_budgets.wait_filled().await;
        self.pods.wait_filled().await;
    }
}

/// Where AcceleratorClasses come from.
#[derive(Default)]
pub struct Classes {
    cluster: Option<(Store<GuardedClass>, OnceCell<()>)>,
    file: BTreeMap<String, Arc<AcceleratorClass>>,
}

impl Classes {
    /// Those in the cluster, where the operator may read them; of `file` those that the cluster does not have.
    #[must_use]
    pub fn new(cluster: Option<Store<GuardedClass>>, file: &[AcceleratorClass]) -> Self {
        Self {
            cluster: cluster.map(|store| (store, OnceCell::new())),
            file: file
                .iter()
                .map(|class| (class.name_any(), Arc::new(class.clone())))
                .collect(),
        }
    }

    /// A class by its name.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<Arc<AcceleratorClass>> {
        let found = self
            .cluster
            .as_ref()
            .and_then(|(store, _)| store.get(&ObjectRef::new(name)));
        match found {
            Some(class) => class.0.clone().ok().map(Arc::new),
            None => self.file.get(name).cloned(),
        }
    }

    /// Returns once the first list is complete.
    pub async fn wait_filled(&self) {
        if let Some((store, filled)) = &self.cluster {
            // Only one may wait for a store: it wakes just the last one that asked (kube-runtime 5.0). It fails
            // only when the watch ended: then the operator is shutting down.
            filled
                .get_or_init(async || drop(store.wait_until_ready().await))
                .await;
        }
    }
}

/// Services as our status writes left them, until the watch has caught up: a reconcile that runs in between
/// must not write the same status again.
#[derive(Debug, Default)]
pub struct Written(Mutex<HashMap<String, Arc<ModelService>>>);

impl Written {
    /// Remembers the answer of a status write.
    pub fn put(&self, service: Arc<ModelService>) {
        self.lock().insert(service.uid().unwrap_or_default(), service);
    }

    /// The newer of what the watch has and what was answered.
    #[must_use]
    pub fn newest(&self, cached: Arc<ModelService>) -> Arc<ModelService> {
        let mut written = self.lock();
        let uid = cached.uid().unwrap_or_default();
        match written.get(&uid) {
            Some(answer) if version(answer.as_ref()) > version(cached.as_ref()) => answer.clone(),
            Some(_) => {
                written.remove(&uid);
                cached
            }
            None => cached,
        }
    }

    fn forget(&self, service: &ModelService) {
        self.lock()
            .remove(service.metadata.uid.as_deref().unwrap_or_default());
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, Arc<ModelService>>> {
        lock(&self.0)
    }
}
