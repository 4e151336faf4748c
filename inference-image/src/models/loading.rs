//! From a model's configuration to its sessions.

use super::batching::Batching;
use super::tuning::Tuning;
use crate::engine::{
    Cache, Description, Engine, GraphSource, OnnxModel, Port, Prefetched, Runtime, Signature,
};
use crate::package::{self, Digest, Parsed, manifest::Manifest};
use crate::process::exit::Fatal;
use crate::scheduling::Engines;
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
    pub(super) single_core: Vec<Box<dyn Engine>>,
    pub(super) manifest: Option<Manifest>,
    digest: Digest,
    description: Description,
    graph: GraphSource,
    assignment: Option<Assignment>,
    load_time: Duration,
    pub(super) batching: Arc<Batching>,
    pub(super) tuning: Option<Tuning>,
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
        let mut candidate = Self::of_package(package?, config, runtime, settings, prefetched)?;
        candidate.load_time = started.elapsed();
        Ok(candidate)
    }

    /// Creates the sessions for a package that has been read. `prefetched` is used if it belongs to this package.
    pub(super) fn of_package(
        Parsed { package, onnx }: Parsed,
        config: &ModelConfig,
        runtime: &Arc<Runtime>,
        settings: &Settings,
        prefetched: Option<Prefetched>,
    ) -> Result<Self, Fatal> {
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
            load_time: Duration::ZERO,
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

    /// Why requests never share a run, if so.
    pub(super) fn why_not_batched(&self) -> Option<&str> {
        self.batching.problem()
    }

    pub(super) fn report(&self, config: &ModelConfig, signature: &Signature) -> ModelReport {
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
