//! Context: what all reconciles share: caches and clients, and nothing that must survive a restart.

use super::{
    backoff::Backoff, bursts::Bursts, devices::Devices, events::Events, loads::Loads, reports::Reports,
};
use crate::{
    apply::Overrides,
    cache::{Caches, classes::Classes, written::Written},
    cluster::preflight::ClusterSupport,
    crd::ModelService,
    plan::DefaultRuntime,
    process::metrics::Metrics,
};
use kube::{Client, core::error_boundary::InvalidObject, runtime::reflector::ObjectRef};
use std::sync::Arc;
use tokio::sync::Notify;

/// What all reconciles share.
pub struct ControllerContext {
    /// Refuses writes once the lease could have been lost.
    pub client: Client,
    /// Children of every service.
    pub caches: Arc<Caches>,
    /// AcceleratorClasses.
    pub classes: Arc<Classes>,
    /// Services whose status has just been written.
    pub written: Written,
    /// What new revisions run.
    pub runtime: DefaultRuntime,
    /// Whether this cluster can serve models.
    pub support: Arc<ClusterSupport>,
    /// What servers report about themselves.
    pub reports: Reports,
    /// What runs the models of services on accelerators.
    pub devices: Devices,
    /// What the load of services asks for.
    pub loads: Loads,
    /// Events on transitions.
    pub events: Events,
    /// Counters and durations.
    pub metrics: Arc<Metrics>,
    /// New services, which wait for each other's Services.
    pub bursts: Bursts,
    /// How long failing services wait.
    pub backoff: Backoff,
    /// Fields of children that others set otherwise.
    pub overrides: Overrides,
    /// Told of everything that may change how many devices are in use.
    pub inventory: Arc<Notify>,
}

impl ControllerContext {
    /// Forgets a service that was deleted.
    pub fn forget(&self, service: &ObjectRef<ModelService>, object: &Result<ModelService, InvalidObject>) {
        self.backoff.reset(service);
        let metadata = match object {
            Ok(object) => &object.metadata,
            Err(object) => &object.metadata,
        };
        let uid = metadata.uid.as_deref().unwrap_or_default();
        self.overrides.forget(uid);
        self.reports.forget(uid);
        self.devices.forget(uid);
        self.loads.forget(uid);
        self.events.forget(uid);
        if let Ok(object) = object {
            self.written.forget(object);
        }
    }
}
