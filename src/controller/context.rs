//! Context: what every reconcile shares. Holds caches and clients; no truth lives only here.

use super::{backoff::Backoff, bursts::Bursts, events::Events, reports::Reports};
use crate::{
    apply::Unequal,
    cache::{Caches, classes::Classes, written::Written},
    cluster::preflight::ClusterSupport,
    crd::ModelService,
    plan::Brings,
    process::metrics::Metrics,
};
use kube::{Client, core::error_boundary::InvalidObject, runtime::reflector::ObjectRef};
use std::sync::Arc;

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
