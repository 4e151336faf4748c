//! The models that are served: loaded, verified, warmed up, each behind its runners. Knows nothing of HTTP.

use crate::classify::ImageClassifier;
use crate::engine::{Engine, OnnxEngine, Runtime, Signature};
use crate::exit::Fatal;
use crate::load::Window;
use crate::metrics::{ConnectionMetrics, Metrics, ModelMetrics};
use crate::package::{self, manifest::Manifest};
use crate::scheduling::{Completed, Job, JobError, Prepare, Rejected, RunOptions, Runners};
use crate::tensor::Tensor;
use modelservice_contract::{ExitReason, Limits, ModelConfig, ModelLoad, ModelReport, Report, ServerConfig};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

/// Version of this server.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// Everything that is served.
pub struct Service {
    models: BTreeMap<String, Model>,
    metrics: Metrics,
    report: Report,
    limits: Limits,
}

impl Service {
    /// Loads every model of the configuration, with as many runners each as there are `cores`.
    ///
    /// # Errors
    /// The first thing that is wrong.
    pub fn load(config: &ServerConfig, library: &Path, cores: usize) -> Result<Self, Fatal> {
        let runtime = Runtime::load(library, &config.execution_provider)?;
        let mut service = Self::empty(runtime.version(), runtime.provider(), config.limits.clone());
        for model in &config.models {
            service.load_model(model, &runtime, cores)?;
        }
        Ok(service)
    }

    /// A service without models.
    #[must_use]
    pub fn empty(onnx_runtime_version: &str, execution_provider: &str, limits: Limits) -> Self {
        let report = Report {
            server_version: VERSION.to_owned(),
            onnx_runtime_version: onnx_runtime_version.to_owned(),
            execution_provider: execution_provider.to_owned(),
            models: Vec::new(),
        };
        let metrics = Metrics::new(VERSION, onnx_runtime_version, execution_provider);
        Self {
            models: BTreeMap::new(),
            metrics,
            report,
            limits,
        }
    }

    fn load_model(&mut self, config: &ModelConfig, runtime: &Runtime, cores: usize) -> Result<(), Fatal> {
        let named = |fatal: Fatal| {
            Fatal::new(
                fatal.reason,
                format!("model {:?}: {}", config.name, fatal.message),
            )
        };
        let package = package::open(config).map_err(named)?;
        let engines: Result<Vec<OnnxEngine>, Fatal> =
            (0..cores).map(|_| runtime.engine(&package.model)).collect();
        let engines = engines
            .map_err(named)?
            .into_iter()
            .map(|engine| Box::new(engine) as Box<dyn Engine>);
        self.add(
            &config.name,
            package.digest,
            engines.collect(),
            package.manifest.as_ref(),
        )
        .map_err(named)
    }

    /// Adds a model, after each of its engines has been warmed up.
    ///
    /// # Errors
    /// `ModelInvalid` if the manifest does not fit the model or a run fails, `SystemError` for want of threads.
    pub fn add(
        &mut self,
        name: &str,
        digest: String,
        mut engines: Vec<Box<dyn Engine>>,
        manifest: Option<&Manifest>,
    ) -> Result<(), Fatal> {
        let invalid = |problem: String| Fatal::new(ExitReason::ModelInvalid, problem);
        let signature = engines
            .first()
            .map(|engine| engine.signature().clone())
            .ok_or_else(|| invalid("no engine".into()))?;
        let classifier = manifest
            .map(|manifest| ImageClassifier::new(manifest, &signature, self.limits.max_image_pixels))
            .transpose()
            .map_err(|problem| {
                invalid(format!(
                    "{} does not fit the model: {problem}",
                    package::MANIFEST_FILE
                ))
            })?;
        for engine in &mut engines {
            warm_up(engine.as_mut(), classifier.as_ref()).map_err(invalid)?;
        }
        let metrics = self.metrics.model(name);
        let runners =
            Runners::start(engines, self.limits.queue_length as usize, &metrics).map_err(|error| {
                Fatal::new(ExitReason::SystemError, format!("cannot start a thread: {error}"))
            })?;
        let report = ModelReport {
            name: name.to_owned(),
            digest,
            opset: signature.opset,
            inputs: signature.inputs.iter().map(|port| port.spec()).collect(),
            outputs: signature.outputs.iter().map(|port| port.spec()).collect(),
        };
        self.report.models.push(report);
        let classifier = classifier.map(Arc::new);
        self.models.insert(
            name.to_owned(),
            Model {
                signature,
                classifier,
                runners,
                metrics,
                window: Mutex::default(),
            },
        );
        Ok(())
    }

    /// The model of that name.
    #[must_use]
    pub fn model(&self, name: &str) -> Option<&Model> {
        self.models.get(name)
    }

    /// Names of the models.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.models.keys().map(String::as_str)
    }

    /// Limits on what a client may send.
    #[must_use]
    pub const fn limits(&self) -> &Limits {
        &self.limits
    }

    /// What the server says of itself.
    #[must_use]
    pub const fn report(&self) -> &Report {
        &self.report
    }

    /// The metrics' text.
    ///
    /// # Errors
    /// As [`Metrics::encode`].
    pub fn metrics(&self) -> Result<String, std::fmt::Error> {
        for (name, model) in &self.models {
            let load = model.load(name);
            model
                .metrics
                .queued
                .set(i64::try_from(load.queued).unwrap_or(i64::MAX));
            model.metrics.duty_cycle.set(load.duty_cycle.last_ten_seconds);
        }
        self.metrics.encode()
    }

    /// Metrics of the serving port's connections.
    #[must_use]
    pub const fn connection_metrics(&self) -> &ConnectionMetrics {
        self.metrics.connections()
    }

    /// How busy each model is.
    #[must_use]
    pub fn model_loads(&self) -> Vec<ModelLoad> {
        self.models.iter().map(|(name, model)| model.load(name)).collect()
    }

    /// Remembers how busy each model was until now; called every [`crate::load::PERIOD`].
    pub fn record_load(&self) {
        let now = Instant::now();
        for model in self.models.values() {
            model.window().record(now, model.metrics.busy.get());
        }
    }
}

/// A model that answers.
pub struct Model {
    signature: Signature,
    classifier: Option<Arc<ImageClassifier>>,
    runners: Runners,
    metrics: ModelMetrics,
    window: Mutex<Window>,
}

/// Why a run gave no outputs.
#[derive(Clone, Debug, PartialEq)]
pub enum RunError {
    /// The job was not taken.
    Rejected(Rejected),
    /// The job failed.
    Job(JobError),
}

impl Model {
    /// Inputs and outputs.
    #[must_use]
    pub const fn signature(&self) -> &Signature {
        &self.signature
    }

    /// What makes classes of images, where the package says how.
    #[must_use]
    pub const fn classifier(&self) -> Option<&Arc<ImageClassifier>> {
        self.classifier.as_ref()
    }

    /// The model's metrics.
    #[must_use]
    pub const fn metrics(&self) -> &ModelMetrics {
        &self.metrics
    }

    // Nothing panics while it holds the lock.
    fn window(&self) -> std::sync::MutexGuard<'_, Window> {
        self.window.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How busy the model is.
    fn load(&self, name: &str) -> ModelLoad {
        let (load, busy) = (self.runners.load(), self.metrics.busy.get());
        ModelLoad {
            name: name.to_owned(),
            in_flight: u64::try_from(self.metrics.in_flight.get()).unwrap_or(0),
            queued: load.queued as u64,
            running: load.running as u64,
            runners: load.runners as u64,
            // There is a runner per core.
            duty_cycle: self.window().duty_cycle(Instant::now(), busy, load.runners),
            predicted_wait_ms: load.predicted_wait.as_secs_f64() * 1000.0,
        }
    }

    /// Waits for a runner and runs the model; dropping the future cancels the job if it still waits.
    ///
    /// # Errors
    /// When the job was not taken or failed.
    pub async fn run(
        &self,
        prepare: Prepare,
        outputs: Vec<usize>,
        _options: RunOptions,
    ) -> Result<Completed, RunError> {
        let (job, result) = Job::new(prepare, outputs);
        self.runners.submit(job).map_err(RunError::Rejected)?;
        match result.await {
            Ok(result) => result.map_err(RunError::Job),
            Err(_) => Err(RunError::Job(JobError::Lost("its runner is gone"))),
        }
    }
}

/// The first run of a session plans its memory and is several times as slow as the others. It also shows
/// whether the model runs at all.
fn warm_up(engine: &mut dyn Engine, classifier: Option<&ImageClassifier>) -> Result<(), String> {
    let outputs: Vec<usize> = (0..engine.signature().outputs.len()).collect();
    let inputs = match classifier.map(ImageClassifier::blank) {
        Some(Some(image)) => Some(image),
        Some(None) => None,
        None => zeros(engine.signature()),
    };
    let Some(inputs) = inputs else {
        tracing::info!("the model takes inputs of any size, it is not warmed up");
        return Ok(());
    };
    let results = engine
        .run(&inputs, &outputs)
        .map_err(|error| format!("the first run failed: {error}"))?;
    match (
        classifier,
        classifier.and_then(|classifier| results.get(classifier.output())),
    ) {
        (Some(classifier), Some(scores)) => classifier.answers(scores, 1, 1).map(drop),
        _ => Ok(()),
    }
}

/// One of each input, filled with zeros; `None` if a dimension other than the batch is dynamic.
fn zeros(signature: &Signature) -> Option<Vec<Tensor>> {
    let zero = |port: &crate::engine::Port| {
        let mut shape = port.shape.clone();
        if let Some(batch) = shape.first_mut().filter(|batch| **batch < 0) {
            *batch = 1;
        }
        Tensor::zeros(port.datatype, shape)
    };
    signature.inputs.iter().map(zero).collect()
}
