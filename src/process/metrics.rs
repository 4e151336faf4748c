//! Metrics of the operator. Names are fixed and documented in docs/metrics.md; no label holds an object's name.

use crate::{crd::ModelService, reason::Reason};
use kube::runtime::reflector::ObjectRef;
use parking_lot::Mutex;
use prometheus_client::{
    encoding::{EncodeLabelSet, text::encode},
    metrics::{
        counter::Counter,
        family::Family,
        gauge::Gauge,
        histogram::{Histogram, exponential_buckets},
    },
    registry::{Registry, Unit},
};
use std::{collections::HashMap, future::Future, time::Instant};

/// A step of a reconcile.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Step {
    /// Reading the caches.
    Observe,
    /// Validate and plan.
    Plan,
    /// Requests for children.
    Apply,
    /// Computing the status.
    Assess,
    /// Writing it, and events.
    Status,
}

impl Step {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Observe => "observe",
            Self::Plan => "plan",
            Self::Apply => "apply",
            Self::Assess => "assess",
            Self::Status => "status",
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OutcomeLabels {
    outcome: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct StepLabels {
    step: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct DirectionLabels {
    direction: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RequestLabels {
    method: String,
    code: u16,
}

/// All metrics.
pub struct Metrics {
    registry: Registry,
    reconciles: Family<OutcomeLabels, Counter>,
    steps: Family<StepLabels, Histogram>,
    running: Gauge,
    queued: Gauge,
    waited: Histogram,
    requests: Family<RequestLabels, Counter>,
    leading: Gauge,
    load_reads: Family<OutcomeLabels, Counter>,
    resizes: Family<DirectionLabels, Counter>,
    since: Mutex<HashMap<ObjectRef<ModelService>, Instant>>,
}

impl Default for Metrics {
    fn default() -> Self {
        // 0.1 ms to 52 s.
        let durations = || Histogram::new(exponential_buckets(0.0001, 3.0, 13));
        let mut metrics = Self {
            registry: Registry::with_prefix("modelservice_operator"),
            reconciles: Family::default(),
            steps: Family::new_with_constructor(durations),
            running: Gauge::default(),
            queued: Gauge::default(),
            waited: durations(),
            requests: Family::default(),
            leading: Gauge::default(),
            load_reads: Family::default(),
            resizes: Family::default(),
            since: Mutex::default(),
        };
        metrics.register();
        metrics
    }
}

impl Metrics {
    fn register(&mut self) {
        let registry = &mut self.registry;
        registry.register(
            "reconciles",
            "Reconciles by outcome: ok, or the reason of the failure",
            self.reconciles.clone(),
        );
        registry.register_with_unit(
            "reconcile_step",
            "Time in each step of a reconcile",
            Unit::Seconds,
            self.steps.clone(),
        );
        registry.register(
            "reconciles_running",
            "Reconciles that are running",
            self.running.clone(),
        );
        registry.register(
            "queue_length",
            "Services waiting for a reconcile",
            self.queued.clone(),
        );
        registry.register_with_unit(
            "queue_wait",
            "Time from a change to its reconcile",
            Unit::Seconds,
            self.waited.clone(),
        );
        registry.register(
            "api_requests",
            "Requests to the API server by method and status code; 0 means no answer",
            self.requests.clone(),
        );
        registry.register("leading", "1 while this replica may write", self.leading.clone());
        registry.register(
            "load_reads",
            "Readings of servers' load by outcome: ok or failed",
            self.load_reads.clone(),
        );
        registry.register(
            "load_decisions",
            "Sizes that the load changed, by direction: up or down",
            self.resizes.clone(),
        );
    }

    /// All metrics as OpenMetrics text.
    #[must_use]
    pub fn text(&self) -> String {
        let mut text = String::new();
        // Writing to a String does not fail.
        let _ = encode(&mut text, &self.registry);
        text
    }

    /// Something that concerns a service changed.
    pub fn triggered(&self, service: &ObjectRef<ModelService>) {
        let mut since = self.since.lock();
        since.entry(service.clone()).or_insert_with(Instant::now);
        self.queued.set(i64::try_from(since.len()).unwrap_or(i64::MAX));
    }

    /// A service is gone and no longer waits.
    pub fn forget(&self, service: &ObjectRef<ModelService>) {
        let mut since = self.since.lock();
        since.remove(service);
        self.queued.set(i64::try_from(since.len()).unwrap_or(i64::MAX));
    }

    /// A reconcile starts; it is counted when the returned value is dropped.
    pub fn reconcile_started(&self, service: &ObjectRef<ModelService>) -> Pass<'_> {
        let mut since = self.since.lock();
        if let Some(at) = since.remove(service) {
            self.waited.observe(at.elapsed().as_secs_f64());
        }
        self.queued.set(i64::try_from(since.len()).unwrap_or(i64::MAX));
        self.running.inc();
        Pass {
            metrics: self,
            outcome: "ok",
        }
    }

    /// A request to the API server was answered with this status code; 0 means no answer.
    pub fn requested(&self, method: &str, code: u16) {
        self.requests
            .get_or_create(&RequestLabels {
                method: method.to_owned(),
                code,
            })
            .inc();
    }

    /// A server was asked about its load.
    pub fn load_read(&self, ok: bool) {
        let outcome = if ok { "ok" } else { "failed" };
        self.load_reads.get_or_create(&OutcomeLabels { outcome }).inc();
    }

    /// The load asks for another size.
    pub fn resized(&self, up: bool) {
        let direction = if up { "up" } else { "down" };
        self.resizes.get_or_create(&DirectionLabels { direction }).inc();
    }

    /// Records whether this replica may write.
    pub fn set_leading(&self, leading: bool) {
        self.leading.set(i64::from(leading));
    }
}

/// One reconcile.
pub struct Pass<'a> {
    metrics: &'a Metrics,
    outcome: &'static str,
}

impl Pass<'_> {
    /// It could not do what the spec says.
    pub fn failed(&mut self, reason: Reason) {
        self.outcome = reason.as_str();
    }

    /// Times a pure step.
    pub fn step<T>(&self, step: Step, run: impl FnOnce() -> T) -> T {
        let started = Instant::now();
        let result = run();
        self.took(step, started);
        result
    }

    /// Times a step that sends requests.
    pub async fn step_async<T>(&self, step: Step, run: impl Future<Output = T>) -> T {
        let started = Instant::now();
        let result = run.await;
        self.took(step, started);
        result
    }

    fn took(&self, step: Step, started: Instant) {
        let labels = StepLabels { step: step.as_str() };
        self.metrics
            .steps
            .get_or_create(&labels)
            .observe(started.elapsed().as_secs_f64());
    }
}

impl Drop for Pass<'_> {
    fn drop(&mut self) {
        self.metrics.running.dec();
        self.metrics
            .reconciles
            .get_or_create(&OutcomeLabels {
                outcome: self.outcome,
            })
            .inc();
    }
}
