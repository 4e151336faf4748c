//! From a model's configuration to engines that have run once: everything that must hold before it is served.

use super::blank;
use crate::classify::ImageClassifier;
use crate::engine::{Cache, Description, Engine, GraphSource, OnnxModel, Port, Runtime, Signature};
use crate::exit::Fatal;
use crate::package::{self, manifest::Manifest};
use crate::scheduling::{Curve, Engines, MakeEngine, Store, Tuner, timed, wide_pays};
use crate::tensor::Tensor;
use modelservice_contract::{ExitReason, ModelConfig, ModelReport, ServerConfig};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// What is spent before ready on finding out whether batches are worth anything.
const QUICK_TUNING: Duration = Duration::from_millis(50);
/// Sessions of a model on a device: one computes while the other's data is moved.
const DEVICE_SESSIONS: usize = 2;

/// What the configuration says of all models.
pub(super) struct Settings {
    cores: usize,
    max_batch: usize,
    cache: Cache,
}

impl Settings {
    pub(super) fn new(config: &ServerConfig, cores: usize) -> Self {
        Self {
            cores,
            max_batch: config.scheduling.max_batch_size as usize,
            cache: Cache {
                path: config.cache.path.as_ref().map(Into::into),
            },
        }
    }
}

/// A model that has been loaded and not run yet.
pub(super) struct Candidate {
    narrow: Vec<Box<dyn Engine>>,
    manifest: Option<Manifest>,
    digest: Option<String>,
    description: Description,
    graph: GraphSource,
    load_time: Duration,
    tuning: Option<Tuning>,
}

/// What more can be made of the model.
struct Tuning {
    model: Arc<OnnxModel>,
    cores: usize,
    max_batch: usize,
    /// Whether one run may compute on all cores.
    wide: bool,
}

/// A model that may be served.
pub(super) struct Ready {
    pub(super) engines: Engines,
    pub(super) signature: Signature,
    pub(super) classifier: Option<ImageClassifier>,
    pub(super) curve: Curve,
    pub(super) tuner: Option<Tuner>,
    pub(super) report: ModelReport,
}

impl Candidate {
    /// Reads the package and makes the sessions.
    pub(super) fn load(
        config: &ModelConfig,
        runtime: &Arc<Runtime>,
        settings: &Settings,
    ) -> Result<Self, Fatal> {
        let started = Instant::now();
        let package = package::open(config)?;
        let model = Arc::new(runtime.load_model(&package, &settings.cache)?);
        let sessions = if runtime.is_cpu() {
            settings.cores
        } else {
            settings.cores.min(DEVICE_SESSIONS)
        };
        let mut narrow: Vec<Box<dyn Engine>> = Vec::with_capacity(sessions);
        for _ in 0..sessions {
            narrow.push(Box::new(model.engine(1)?));
        }
        Ok(Self {
            narrow,
            manifest: package.manifest,
            digest: Some(package.digest),
            description: model.description().clone(),
            graph: model.graph(),
            load_time: started.elapsed(),
            tuning: Some(Tuning {
                wide: runtime.is_cpu() && settings.cores > 1,
                model,
                cores: settings.cores,
                max_batch: settings.max_batch,
            }),
        })
    }

    /// Engines that were made elsewhere.
    pub(super) fn of(narrow: Vec<Box<dyn Engine>>, manifest: Option<Manifest>) -> Self {
        Self {
            narrow,
            manifest,
            digest: None,
            description: Description::default(),
            graph: GraphSource::Original,
            load_time: Duration::ZERO,
            tuning: None,
        }
    }

    /// Runs each session once, measures, and fits `model.yaml` to the model.
    ///
    /// # Errors
    /// `ModelInvalid` if the manifest does not fit the model or a run fails.
    pub(super) fn make_ready(mut self, config: &ModelConfig, max_pixels: u64) -> Result<Ready, Fatal> {
        let invalid = |problem: String| Fatal::new(ExitReason::ModelInvalid, problem);
        let signature = self.narrow.first().map(|engine| engine.signature().clone());
        let signature = signature.ok_or_else(|| invalid("no engine".into()))?;
        let classifier = self
            .manifest
            .as_ref()
            .map(|manifest| ImageClassifier::new(manifest, &signature, max_pixels))
            .transpose()
            .map_err(|problem| {
                invalid(format!(
                    "{} does not fit the model: {problem}",
                    package::MANIFEST_FILE
                ))
            })?;
        let rows = match &classifier {
            Some(classifier) => classifier.blank().map(|row| vec![row]),
            None => blank::rows(&signature),
        };
        if rows.is_none() {
            tracing::info!("the model takes inputs of any size, it is not warmed up");
        }
        let row = rows.map(|rows| warm_up_all(&mut self.narrow, rows, classifier.as_ref()));
        let row = row.transpose().map_err(invalid)?;
        let report = self.report(config, &signature);
        let (wide, tuner, curve) = match (self.tuning, row) {
            (Some(tuning), Some(row)) => tuning.measure(&signature, &row, self.narrow.first_mut()),
            _ => (None, None, Curve::default()),
        };
        Ok(Ready {
            engines: Engines {
                narrow: self.narrow,
                wide,
            },
            curve,
            tuner,
            signature,
            classifier,
            report,
        })
    }

    fn report(&self, config: &ModelConfig, signature: &Signature) -> ModelReport {
        let specs = |ports: &[Port]| ports.iter().map(Port::spec).collect();
        let description = &self.description;
        ModelReport {
            name: config.name.clone(),
            digest: self
                .digest
                .clone()
                .or_else(|| config.digest.clone())
                .unwrap_or_default(),
            opset: signature.opset,
            inputs: specs(&signature.inputs),
            outputs: specs(&signature.outputs),
            producer: description.producer.clone(),
            description: description.description.clone(),
            metadata: description.metadata.clone(),
            graph: self.graph,
            load_seconds: self.load_time.as_secs_f64(),
        }
    }
}

impl Tuning {
    /// A session for all cores, where it is faster, and what batches cost.
    fn measure(
        self,
        signature: &Signature,
        row: &[Tensor],
        narrow: Option<&mut Box<dyn Engine>>,
    ) -> (Option<Box<dyn Engine>>, Option<Tuner>, Curve) {
        let Self {
            model,
            cores,
            max_batch,
            wide,
        } = self;
        let mut curve = model.curve(cores).unwrap_or_default().up_to(max_batch);
        let is_known = curve.single() > Duration::ZERO;
        let mut narrow = narrow;
        if let Some(engine) = narrow.as_mut().filter(|_| !is_known)
            && let Some(took) = timed(engine.as_mut(), row)
        {
            curve.add(1, took);
        }
        let wide = match narrow.filter(|_| wide && curve.wide != Some(false)) {
            Some(narrow) => all_cores(&model, cores, narrow.as_mut(), row, &mut curve),
            None => None,
        };
        let (maker, keeper) = (Arc::clone(&model), Arc::clone(&model));
        let make: MakeEngine = Box::new(move || Some(Box::new(maker.engine(1).ok()?) as Box<dyn Engine>));
        let store: Store = Box::new(move |curve| keeper.store_curve(cores, curve));
        let mut tuner = Tuner::new(signature, row, max_batch, curve.clone(), make, store);
        if tuner.is_none() {
            model.store_curve(cores, &curve);
        }
        if let Some(tuner) = tuner.as_mut().filter(|_| !is_known) {
            tuner.quick(QUICK_TUNING);
        }
        model.tidy();
        let curve = tuner.as_ref().map_or(curve, |tuner| tuner.curve().clone());
        (wide, tuner, curve)
    }
}

/// A session that computes on all cores, if it is faster for one request than one on a single core.
fn all_cores(
    model: &OnnxModel,
    cores: usize,
    narrow: &mut dyn Engine,
    row: &[Tensor],
    curve: &mut Curve,
) -> Option<Box<dyn Engine>> {
    let mut engine = model.engine(cores).ok()?;
    let pays = match curve.wide {
        Some(known) => {
            let outputs: Vec<usize> = (0..engine.signature().outputs.len()).collect();
            known && engine.run(row, &outputs).is_ok()
        }
        None => wide_pays(narrow, &mut engine, row),
    };
    curve.wide = Some(pays);
    pays.then(|| Box::new(engine) as Box<dyn Engine>)
}

/// Warms up each engine with the first of the rows that the model takes; gives it, or else says what was wrong with
/// the first.
fn warm_up_all(
    engines: &mut [Box<dyn Engine>],
    rows: Vec<Vec<Tensor>>,
    classifier: Option<&ImageClassifier>,
) -> Result<Vec<Tensor>, String> {
    let mut problem = None;
    for row in rows {
        let warm = |engine: &mut Box<dyn Engine>| warm_up(engine.as_mut(), &row, classifier);
        match engines.iter_mut().try_for_each(warm) {
            Ok(()) => return Ok(row),
            Err(other) => _ = problem.get_or_insert(other),
        }
    }
    Err(problem.unwrap_or_default())
}

/// The first run of a session plans its memory and is several times as slow as the others. It also shows
/// whether the model runs at all.
fn warm_up(
    engine: &mut dyn Engine,
    row: &[Tensor],
    classifier: Option<&ImageClassifier>,
) -> Result<(), String> {
    let outputs: Vec<usize> = (0..engine.signature().outputs.len()).collect();
    let results = engine
        .run(row, &outputs)
        .map_err(|error| format!("the first run failed: {error}"))?;
    match (
        classifier,
        classifier.and_then(|classifier| results.get(classifier.output())),
    ) {
        (Some(classifier), Some(scores)) => classifier.answers(scores, 1, 1).map(drop),
        _ => Ok(()),
    }
}
