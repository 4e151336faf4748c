//! The models that are served: loaded, verified, warmed up, and behind the scheduler. Knows nothing of HTTP.

mod batching;
mod first_run;
pub mod history;
mod inspection;
mod load;
mod loading;
mod proving;
mod tuning;
mod warm_up;

use crate::engine::{Engine, Runtime, Signature};
use crate::image::classifier::ImageClassifier;
use crate::metrics::{ConnectionMetrics, Metrics, ModelMetrics, Unassigned};
use crate::package::manifest::Manifest;
use crate::process::cgroup;
use crate::process::exit::Fatal;
use crate::process::loss::DeviceLoss;
use crate::process::memory;
use crate::request_log::record;
use crate::scheduling::{self, Completed, Prepare, QueueHandle, Rejected, RunOptions, Scheduler};
use batching::Batching;
use load::LoadMeter;
use loading::{Candidate, Settings};
use modelservice_contract::{Limits, ModelConfig, ModelLoad, Report, ServerConfig};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

pub use crate::scheduling::RunError;
pub use inspection::{Inspected, Inspection, inspect};

/// Version of this server.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// Runners on a device: one computes while the other's data is transferred.
const DEVICE_RUNNERS: usize = 2;

/// Everything that is served.
pub struct Service {
    models: BTreeMap<String, Model>,
    metrics: Metrics,
    report: Report,
    limits: Limits,
    scheduler: Scheduler,
    loss: DeviceLoss,
    started: Instant,
    start_time: SystemTime,
}

impl Service {
    /// Loads every model of the configuration, to be run on this many cores.
    ///
    /// # Errors
    /// The first thing that is wrong.
    pub fn load(config: &ServerConfig, library: &Path, cores: usize) -> Result<Self, Fatal> {
        let runtime = Arc::new(Runtime::load(library, &config.execution_provider)?);
        let limits = config.limits.clone();
        let runners = runners(config, &runtime, cores);
        // On a device, runs cost time that is not the process's.
        let cpu_limit = cgroup::cpu_limit(Path::new("/")).filter(|_| runtime.is_cpu());
        let (version, provider) = (runtime.version(), runtime.provider_name());
        let mut service = Self::with_runners(version, provider, limits, runners, cpu_limit)?;
        service.loss = runtime.loss().clone();
        let settings = Settings::new(config, runners);
        for model in &config.models {
            let candidate = Candidate::load(model, &runtime, &settings);
            let added = candidate.and_then(|candidate| service.insert(model, candidate));
            added.map_err(|fatal| {
                Fatal::new(fatal.reason, format!("model {:?}: {}", model.name, fatal.message))
            })?;
        }
        Ok(service)
    }

    /// A service without models.
    ///
    /// # Errors
    /// `SystemError` if threads cannot be started.
    pub fn empty(
        onnx_runtime_version: &str,
        execution_provider: &str,
        limits: Limits,
        cores: usize,
    ) -> Result<Self, Fatal> {
        let cpu_limit = cgroup::cpu_limit(Path::new("/"));
        Self::with_runners(onnx_runtime_version, execution_provider, limits, cores, cpu_limit)
    }

    fn with_runners(
        onnx_runtime_version: &str,
        execution_provider: &str,
        limits: Limits,
        runners: usize,
        cpu_limit: Option<f64>,
    ) -> Result<Self, Fatal> {
        let report = Report {
            server_version: VERSION.to_owned(),
            onnx_runtime_version: onnx_runtime_version.to_owned(),
            execution_provider: execution_provider.to_owned(),
            models: Vec::new(),
        };
        let scheduler = Scheduler::start(runners, cpu_limit)
            .map_err(|error| Fatal::system("cannot start a thread", &error))?;
        Ok(Self {
            models: BTreeMap::new(),
            metrics: Metrics::new(VERSION, onnx_runtime_version, execution_provider),
            report,
            limits,
            scheduler,
            loss: DeviceLoss::default(),
            started: Instant::now(),
            start_time: SystemTime::now(),
        })
    }

    /// Adds a model, after each of its engines has been warmed up.
    ///
    /// # Errors
    /// `ModelInvalid` if the manifest does not fit the model or a run fails.
    pub fn add(
        &mut self,
        name: &str,
        digest: String,
        engines: Vec<Box<dyn Engine>>,
        manifest: Option<&Manifest>,
    ) -> Result<(), Fatal> {
        let config = ModelConfig {
            name: name.to_owned(),
            ..ModelConfig::default()
        };
        self.insert(&config, Candidate::of(digest, engines, manifest.cloned()))
    }

    fn insert(&mut self, config: &ModelConfig, candidate: Candidate) -> Result<(), Fatal> {
        let ready = candidate.make_ready(config, self.limits.max_image_pixels)?;
        let metrics = self.metrics.model(&config.name);
        let queue = self.scheduler.add(scheduling::QueueSettings {
            engines: ready.engines,
            capacity: self.limits.queue_length as usize,
            curve: ready.curve,
            tuner: ready.tuner,
            metrics: metrics.clone(),
        });
        let batching = ready.batching.report(queue.load().batch);
        let load = LoadMeter::new(self.started, &queue, &metrics);
        tracing::info!(
            model = config.name,
            rows = batching.rows,
            reason = batching.reason,
            "batches"
        );
        self.report.models.push(ready.report);
        self.models.insert(
            config.name.clone(),
            Model {
                signature: ready.signature,
                classifier: ready.classifier.map(Arc::new),
                batching: ready.batching,
                queue,
                metrics,
                load,
            },
        );
        Ok(())
    }

    /// Lets the thread of the current runtime, which must be single-threaded, run the jobs of small models.
    pub fn enable_inline_execution(&self) {
        self.scheduler.enable_inline_execution();
    }

    /// The model with that name.
    #[must_use]
    pub fn model(&self, name: &str) -> Option<&Model> {
        self.models.get(name)
    }

    /// Names of the models.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.models.keys().map(String::as_str)
    }

    /// Whether the device that the models run on is lost.
    #[must_use]
    pub const fn loss(&self) -> &DeviceLoss {
        &self.loss
    }

    /// Limits on what a client may send.
    #[must_use]
    pub const fn limits(&self) -> &Limits {
        &self.limits
    }

    /// The report of the server.
    #[must_use]
    pub const fn report(&self) -> &Report {
        &self.report
    }

    /// The same with what changes while it serves.
    #[must_use]
    pub fn current_report(&self) -> Report {
        let mut report = self.report.clone();
        for entry in &mut report.models {
            let model = self.models.get(&entry.name);
            entry.batching = model.map(|model| model.batching.report(model.queue.load().batch));
        }
        report
    }

    /// The metrics' text.
    ///
    /// # Errors
    /// As [`Metrics::encode`].
    pub fn metrics(&self) -> Result<String, std::fmt::Error> {
        for (name, model) in &self.models {
            let (load, metrics) = (model.load(name, Duration::ZERO), &model.metrics);
            let count = |requests| i64::try_from(requests).unwrap_or(i64::MAX);
            metrics.in_flight.set(count(load.in_flight));
            metrics.queued.set(count(load.queued));
            metrics.duty_cycle.set(load.duty_cycle.last_ten_seconds);
        }
        self.metrics.encode()
    }

    /// Inference requests that are not counted for any model.
    #[must_use]
    pub const fn unassigned(&self) -> &Unassigned {
        self.metrics.unassigned()
    }

    /// Metrics of the serving port's connections.
    #[must_use]
    pub const fn connection_metrics(&self) -> &ConnectionMetrics {
        self.metrics.connections()
    }

    /// Unix time at which it started, in seconds.
    #[must_use]
    pub fn start_time(&self) -> f64 {
        let since_epoch = self.start_time.duration_since(UNIX_EPOCH);
        since_epoch.unwrap_or_default().as_secs_f64()
    }

    /// How busy each model is, and its totals in this time up to now.
    #[must_use]
    pub fn model_loads(&self, history: Duration) -> Vec<ModelLoad> {
        let models = self.models.iter();
        models.map(|(name, model)| model.load(name, history)).collect()
    }

    /// Records how busy each model has been; call it every [`history::PERIOD`].
    pub fn record_load(&self) {
        for model in self.models.values() {
            model.load.record(&model.queue, &model.metrics);
        }
    }

    /// Models that have not run since this was called last, and keep memory that they may not need.
    #[must_use]
    pub fn idle_holders(&self) -> Vec<usize> {
        self.scheduler.idle_holders()
    }

    /// Frees that memory; not at once, if there is much.
    pub fn free_memory(&self, models: &[usize]) {
        self.scheduler.free_memory(models);
        memory::trim();
    }
}

/// One per core, or on a device as many as are configured.
fn runners(config: &ServerConfig, runtime: &Runtime, cores: usize) -> usize {
    if runtime.is_cpu() {
        return cores;
    }
    let configured = config.execution_provider.runners;
    configured.map_or_else(|| cores.min(DEVICE_RUNNERS), |runners| runners as usize)
}

/// A model that is served.
pub struct Model {
    signature: Signature,
    classifier: Option<Arc<ImageClassifier>>,
    batching: Arc<Batching>,
    queue: QueueHandle,
    metrics: ModelMetrics,
    load: LoadMeter,
}

impl Model {
    /// Inputs and outputs.
    #[must_use]
    pub const fn signature(&self) -> &Signature {
        &self.signature
    }

    /// The image classifier, if the package describes one.
    #[must_use]
    pub const fn classifier(&self) -> Option<&Arc<ImageClassifier>> {
        self.classifier.as_ref()
    }

    /// The model's metrics.
    #[must_use]
    pub const fn metrics(&self) -> &ModelMetrics {
        &self.metrics
    }

    /// How busy the model is, and its totals in this time up to now.
    fn load(&self, name: &str, history: Duration) -> ModelLoad {
        self.load.read(name, &self.queue, &self.metrics, history)
    }

    /// Whether a request would be accepted now; asked before its body is read.
    ///
    /// # Errors
    /// Why not.
    pub fn admission(&self, options: &RunOptions) -> Result<(), Rejected> {
        self.queue.admit(options)
    }

    /// Runs the model when it is the request's turn. Dropping the future cancels a job that is still waiting.
    ///
    /// # Errors
    /// When the request was rejected or failed.
    pub async fn run(
        &self,
        prepare: Prepare,
        outputs: Vec<usize>,
        options: RunOptions,
    ) -> Result<Completed, RunError> {
        let result = self.queue.run(prepare, outputs, options).await;
        if let Ok(completed) = &result {
            record(|log| log.timing = Some(completed.timing));
        }
        result
    }
}
