//! From a model's configuration to engines that have run once: everything that must succeed before the model is
//! served.

use super::batching::Batching;
use super::tuning::Tuning;
use super::warm_up::{self, Trial, warm_up_all};
use crate::engine::{Cache, Curve, Description, Engine, GraphSource, OnnxModel, Port, Runtime, Signature};
use crate::image::classifier::ImageClassifier;
use crate::package::{self, Digest, Parsed, manifest::Manifest};
use crate::process::exit::Fatal;
use crate::scheduling::{Engines, Tuner};
use crate::tensor::Tensor;
use modelservice_contract::{Assignment, ExitReason, ModelConfig, ModelReport, ServerConfig};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// The parts of the configuration that concern all models.
pub(super) struct Settings {
    /// As many as there are cores, or as the device has.
    runners: usize,
    max_batch: u32,
    cache: Cache,
}

impl Settings {
    pub(super) fn new(config: &ServerConfig, runners: usize) -> Self {
        Self {
            runners,
            max_batch: config.scheduling.max_batch_size,
            cache: Cache {
                path: config.cache.path.as_ref().map(Into::into),
            },
        }
    }
}

/// A model that has been loaded but has not run yet.
pub(super) struct Candidate {
    single_core: Vec<Box<dyn Engine>>,
    manifest: Option<Manifest>,
    digest: Digest,
    description: Description,
    graph: GraphSource,
    assignment: Option<Assignment>,
    load_time: Duration,
    batching: Arc<Batching>,
    tuning: Option<Tuning>,
}

/// A model that may be served.
pub(super) struct Ready {
    pub(super) engines: Engines,
    pub(super) signature: Signature,
    pub(super) classifier: Option<ImageClassifier>,
    pub(super) curve: Curve,
    pub(super) tuner: Option<Tuner>,
    pub(super) batching: Arc<Batching>,
    pub(super) report: ModelReport,
}

impl Candidate {
    /// Reads the package and creates the sessions.
    pub(super) fn load(
        config: &ModelConfig,
        runtime: &Arc<Runtime>,
        settings: &Settings,
    ) -> Result<Self, Fatal> {
        let started = Instant::now();
        let (package, prefetched) = std::thread::scope(|scope| {
            let prefetched = scope.spawn(|| runtime.prefetch(Path::new(&config.path), &settings.cache));
            (package::open(config), prefetched.join().ok().flatten())
        });
        let Parsed { package, onnx } = package?;
        let batching = Batching::of(config, settings.max_batch as usize, onnx.as_ref());
        let onnx = onnx.unwrap_or_default();
        let model = Arc::new(runtime.load_model(&package, onnx, &settings.cache, prefetched)?);
        let mut curve = model.curve(settings.runners).unwrap_or_default();
        curve = curve.up_to(batching.largest());
        let may_use_all_cores = runtime.is_cpu() && settings.runners > 1 && curve.all_cores != Some(false);
        let Engines {
            single_core,
            all_cores,
        } = engines(
            &model,
            settings.max_batch,
            settings.runners,
            may_use_all_cores.then_some(settings.runners),
        )?;
        Ok(Self {
            single_core,
            manifest: package.manifest,
            digest: package.digest,
            description: model.description().clone(),
            graph: model.graph(),
            assignment: model.assignment().cloned(),
            load_time: started.elapsed(),
            batching: Arc::new(batching),
            tuning: Some(Tuning {
                model,
                curve,
                all_cores,
                cores: settings.runners,
                rows: settings.max_batch,
            }),
        })
    }

    /// A candidate of engines that were created elsewhere.
    pub(super) fn of(digest: String, single_core: Vec<Box<dyn Engine>>, manifest: Option<Manifest>) -> Self {
        Self {
            single_core,
            manifest,
            digest: Digest {
                text: digest,
                ..Digest::default()
            },
            description: Description::default(),
            graph: GraphSource::Original,
            assignment: None,
            load_time: Duration::ZERO,
            batching: Arc::new(Batching::single()),
            tuning: None,
        }
    }

    /// Runs each session once, measures, and checks `model.yaml` against the model.
    ///
    /// # Errors
    /// `ModelInvalid` if the manifest does not fit the model.
    pub(super) fn make_ready(mut self, config: &ModelConfig, max_pixels: u64) -> Result<Ready, Fatal> {
        let signature = self.single_core.first().map(|engine| engine.signature().clone());
        let signature = signature.ok_or_else(|| Fatal::new(ExitReason::ModelInvalid, "no engine"))?;
        let classifier = self
            .manifest
            .as_ref()
            .map(|manifest| ImageClassifier::new(manifest, &signature, max_pixels))
            .transpose()
            .map_err(does_not_fit)?;
        // The images of one form must be independent, too.
        let classifier = match classifier {
            Some(classifier) if !self.batching.keeps_apart() => Some(classifier.one_by_one()),
            classifier => classifier,
        };
        let rows = match &classifier {
            Some(classifier) => classifier.blank().map(|row| vec![row]),
            None => warm_up::rows(&signature),
        };
        let device = self.tuning.as_ref().map(|tuning| Arc::clone(&tuning.model));
        let row = match device.filter(|model| model.device_provider().is_some()) {
            Some(model) => self.prove(&model, rows, &signature, classifier.as_ref())?,
            None => self.warm_up(config, rows, classifier.as_ref())?,
        };
        let report = self.report(config, &signature);
        let (all_cores, tuner, curve) = match (self.tuning, row) {
            (Some(tuning), Some(row)) => tuning.measure(
                config,
                &signature,
                &row,
                &self.batching,
                self.single_core.first_mut(),
            ),
            _ => (None, None, Curve::default()),
        };
        Ok(Ready {
            engines: Engines {
                single_core: self.single_core,
                all_cores,
            },
            curve,
            tuner,
            signature,
            classifier,
            batching: self.batching,
            report,
        })
    }

    /// Runs each session once if that is possible. Returns the row that was run.
    fn warm_up(
        &mut self,
        config: &ModelConfig,
        rows: Option<Vec<Vec<Tensor>>>,
        classifier: Option<&ImageClassifier>,
    ) -> Result<Option<Vec<Tensor>>, Fatal> {
        let Some(rows) = rows else {
            tracing::info!("the model is not warmed up, because it accepts inputs of any size");
            return Ok(None);
        };
        match warm_up_all(&mut self.single_core, rows, classifier) {
            Ok(row) => Ok(Some(row)),
            Err(Trial::Unfit(problem)) => Err(does_not_fit(problem)),
            // The made-up inputs may not suit the model, so the failure proves nothing. Real requests are answered
            // one by one.
            Err(Trial::Failed(problem)) => {
                tracing::warn!(
                    model = config.name,
                    "the model is neither warmed up nor batched: its first run, with made-up inputs, failed: \
                     {problem}"
                );
                Ok(None)
            }
        }
    }

    /// Runs each session on a device once. Without a run that succeeds, nothing shows that the device works. Returns
    /// the row that was run, if its size is not made up.
    fn prove(
        &mut self,
        model: &OnnxModel,
        rows: Option<Vec<Vec<Tensor>>>,
        signature: &Signature,
        classifier: Option<&ImageClassifier>,
    ) -> Result<Option<Vec<Tensor>>, Fatal> {
        let provider = model.device_provider().unwrap_or_default();
        let is_usual = rows.is_some();
        let mut refusal = None;
        for row in rows.unwrap_or_else(|| warm_up::rows_of_some_size(signature)) {
            match warm_up_all(&mut self.single_core, vec![row.clone()], classifier) {
                Ok(row) => return Ok(is_usual.then_some(row)),
                Err(Trial::Unfit(problem)) => return Err(does_not_fit(problem)),
                Err(Trial::Failed(problem)) if model.runs_on_cpu(&row) => {
                    let message = format!(
                        "the first run on {provider} failed, and the CPU runs the same inputs: {problem}; check the \
                         device and its driver on this node"
                    );
                    return Err(Fatal::new(ExitReason::AcceleratorUnavailable, message));
                }
                Err(Trial::Failed(problem)) => _ = refusal.get_or_insert(problem),
            }
        }
        let message = format!(
            "the model accepts none of the inputs that were made up to show that {provider} runs it: {}; give its \
             inputs fixed sizes, or ask for CPUExecutionProvider",
            refusal.unwrap_or_else(|| "it has inputs without a shape".to_owned())
        );
        Err(Fatal::new(ExitReason::ModelInvalid, message))
    }

    fn report(&self, config: &ModelConfig, signature: &Signature) -> ModelReport {
        let specs = |ports: &[Port]| ports.iter().map(Port::spec).collect();
        let description = &self.description;
        ModelReport {
            name: config.name.clone(),
            digest: self.digest.text.clone(),
            digest_covers: self.digest.covers,
            digest_checked: self.digest.is_checked,
            opset: signature.opset,
            inputs: specs(&signature.inputs),
            outputs: specs(&signature.outputs),
            producer: description.producer.clone(),
            description: description.description.clone(),
            metadata: description.metadata.clone(),
            graph: self.graph,
            load_seconds: self.load_time.as_secs_f64(),
            assignment: self.assignment.clone(),
            batching: None,
        }
    }
}

/// `single_core` sessions of one thread each, and one of `all_cores` threads, created in parallel.
fn engines(
    model: &OnnxModel,
    rows: u32,
    single_core: usize,
    all_cores: Option<usize>,
) -> Result<Engines, Fatal> {
    let make = |threads| {
        model
            .engine(threads, rows)
            .map(|engine| Box::new(engine) as Box<dyn Engine>)
    };
    let (single_core, all_cores) = std::thread::scope(|scope| {
        let single_core: Vec<_> = (0..single_core).map(|_| scope.spawn(|| make(1))).collect();
        let all_cores = all_cores.map(|threads| scope.spawn(move || make(threads)));
        let single_core: Vec<_> = single_core
            .into_iter()
            .map(std::thread::ScopedJoinHandle::join)
            .collect();
        (single_core, all_cores.map(std::thread::ScopedJoinHandle::join))
    });
    let lost = || {
        Fatal::new(
            ExitReason::SystemError,
            "a thread that was loading the model has ended unexpectedly".to_owned(),
        )
    };
    let single_core = single_core.into_iter().map(|made| made.map_err(|_| lost())?);
    // It is optional: if it cannot be created, continue without it.
    let all_cores = all_cores.and_then(|made| made.ok()?.ok());
    Ok(Engines {
        single_core: single_core.collect::<Result<_, _>>()?,
        all_cores,
    })
}

fn does_not_fit(problem: String) -> Fatal {
    let message = format!("{} does not fit the model: {problem}", package::MANIFEST_FILE);
    Fatal::new(ExitReason::ModelInvalid, message)
}
