//! A model: from its package to its sessions.

use super::assignment::{self, Nodes};
use super::c_api;
use super::curve::Curve;
use super::division::Division;
use super::graphs::cache;
use super::graphs::optimised::{Cache, not_kept};
use super::graphs::prefetch::Prefetched;
use super::graphs::source::Source;
use super::interface::{Description, Engine as _};
use super::overflow;
use super::runtime::Runtime;
use super::session::OnnxEngine;
use super::shapes;
use crate::onnx;
use crate::package::Package;
use crate::process::exit::Fatal;
use crate::tensor::Tensor;
use modelservice_contract::{Assignment, ExitReason, GraphSource};
use ort::session::Session;
use parking_lot::Mutex;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use tempfile::TempDir;

/// A model that sessions can be created from.
pub struct OnnxModel {
    runtime: Arc<Runtime>,
    source: Source,
    graph: GraphSource,
    description: Description,
    /// Inputs and outputs for which the file gives no shape.
    unshaped: BTreeSet<String>,
    /// Divisions of inputs that could end the process.
    divisions: Vec<Division>,
    /// The folder of the graph when none is configured.
    private: Mutex<Option<TempDir>>,
    /// A session that has been created already.
    first: Mutex<Option<Session>>,
    /// What runs the nodes of the first session that was looked at.
    assignment: OnceLock<Assignment>,
    /// The folder of what is measured on a device.
    measurements: Option<PathBuf>,
}

impl Runtime {
    /// Loads a model, from its optimised graph if there is one for this model, runtime and processor. Otherwise
    /// optimises the graph and stores the result in the cache. `prefetched` is used if it belongs to this model.
    ///
    /// # Errors
    /// `ModelInvalid`, `AcceleratorUnavailable` or `ExecutionProviderFallback`.
    pub(crate) fn load_model(
        self: &Arc<Self>,
        package: &Package,
        onnx: onnx::Model,
        cache: &Cache,
        prefetched: Option<Prefetched>,
    ) -> Result<OnnxModel, Fatal> {
        let mut model = OnnxModel {
            runtime: Arc::clone(self),
            source: original(package, &onnx)?,
            graph: GraphSource::Original,
            description: Description::of(&onnx),
            unshaped: unshaped(&onnx),
            divisions: overflow::divisions(&onnx),
            private: Mutex::default(),
            first: Mutex::default(),
            assignment: OnceLock::new(),
            measurements: None,
        };
        // Sessions need the memory.
        drop(onnx);
        let origin = self.origin(package);
        // Other providers compile their own graphs.
        if !self.is_cpu() {
            model.measurements = cache.path.as_ref().and_then(|path| measurements(path, &origin));
            return Ok(model);
        }
        let folders = cache.trusted_folders(package);
        let is_trusted = |source: &Source| {
            let folder = source.folder().and_then(|entry| entry.parent());
            folders.iter().any(|trusted| Some(trusted.as_path()) == folder)
        };
        let prefetched = prefetched.filter(|one| one.origin == origin && is_trusted(&one.source));
        let found = || cache::find(&folders, &origin);
        let cached = prefetched.map(|prefetched| (prefetched.source, prefetched.session));
        if let Some((source, session)) = cached.or_else(|| self.shared(found()?)) {
            return Ok(model.with(source, session, GraphSource::Cached));
        }
        let (folder, private) = match &cache.path {
            Some(path) => (path.clone(), None),
            // ONNX Runtime writes graphs only to files.
            None => match tempfile::tempdir() {
                Ok(private) => (private.path().to_owned(), Some(private)),
                Err(error) => {
                    not_kept(&std::env::temp_dir(), &error);
                    return Ok(model);
                }
            },
        };
        if let Some(path) = &cache.path
            && let Err(error) = cache::remove_unused(path)
        {
            tracing::debug!("cannot clean up {}: {error}", path.display());
        }
        model.private = Mutex::new(private);
        Ok(match self.optimise(&model.source, &origin, &folder)? {
            Some((source, session)) => model.with(source, session, GraphSource::Optimised),
            None => model,
        })
    }

    /// Optimises a package's graph into a folder, unless it is there already. Returns the folder of the entry.
    ///
    /// # Errors
    /// As [`Self::load_model`]; `SystemError` if the folder cannot be written.
    pub(crate) fn bake(&self, package: &Package, onnx: onnx::Model, folder: &Path) -> Result<PathBuf, Fatal> {
        let origin = self.origin(package);
        if let Some(entry) = cache::find(&[folder.to_owned()], &origin) {
            return Ok(entry.folder);
        }
        let original = original(package, &onnx)?;
        drop(onnx);
        let source = self.optimise(&original, &origin, folder)?;
        let made = source.and_then(|(source, _)| source.folder().cloned());
        made.ok_or_else(|| {
            let message = format!(
                "cannot write an optimised graph to {}: see the log",
                folder.display()
            );
            Fatal::new(ExitReason::SystemError, message)
        })
    }
}

impl OnnxModel {
    fn with(self, source: Source, session: Session, graph: GraphSource) -> Self {
        Self {
            source,
            graph,
            first: Mutex::new(Some(session)),
            ..self
        }
    }

    /// Creates an engine with a session of its own that computes with this many threads. Runs of so many rows are usual.
    ///
    /// # Errors
    /// As [`Runtime::load_model`].
    pub fn engine(&self, threads: usize, rows: u32) -> Result<OnnxEngine, Fatal> {
        let first = self.first.lock().take().filter(|_| threads == 1);
        let session = first.map_or_else(|| self.runtime.session(&self.source, threads), Ok)?;
        let assignment = self.assess(&session)?;
        self.assignment.get_or_init(|| assignment);
        let engine = OnnxEngine::new(session, self.description.opset, &self.unshaped, &self.divisions)?;
        if self.runtime.is_cpu() {
            engine.with_memory(rows, self.runtime.kept())
        } else {
            Ok(engine.on_device(self.runtime.loss().clone()))
        }
    }

    /// What runs the nodes of a session.
    ///
    /// # Errors
    /// `ExecutionProviderFallback` if the CPU runs more of them than is allowed.
    fn assess(&self, session: &Session) -> Result<Assignment, Fatal> {
        let provider = self.runtime.provider();
        let assigned = c_api::assigned_nodes(session).map_err(|error| {
            let message = format!("ONNX Runtime does not say what runs the model: {error}");
            Fatal::new(ExitReason::RuntimeUnavailable, message)
        })?;
        let others: Vec<_> = assigned
            .iter()
            .filter(|node| node.provider != provider.name())
            .collect();
        let alike = if others.is_empty() {
            Nodes::new()
        } else {
            shapes::nodes_like(&self.runtime, &self.source, &others)
        };
        let assignment = Assignment {
            device: provider.device().cloned(),
            ..assignment::assignment(provider.name(), &assigned, &alike)
        };
        assignment::check(&assignment, provider.allow_cpu_percent())
            .map_err(|problem| Fatal::new(ExitReason::ExecutionProviderFallback, problem))?;
        Ok(assignment)
    }

    /// Whether the CPU runs these inputs, whatever the provider is.
    pub fn runs_on_cpu(&self, inputs: &[Tensor]) -> bool {
        let session = self
            .runtime
            .cpu_builder(1)
            .ok()
            .and_then(|builder| self.source.session(builder).ok());
        let engine = session
            .and_then(|session| OnnxEngine::new(session, self.description.opset, &self.unshaped, &[]).ok());
        engine.is_some_and(|mut engine| {
            let outputs: Vec<usize> = (0..engine.signature().outputs.len()).collect();
            engine.run(inputs, &outputs).is_ok()
        })
    }

    /// Name of the execution provider, unless that is the CPU.
    #[must_use]
    pub fn device_provider(&self) -> Option<&str> {
        (!self.runtime.is_cpu()).then(|| self.runtime.provider_name())
    }

    /// What runs the model's nodes, once there is an engine.
    #[must_use]
    pub fn assignment(&self) -> Option<&Assignment> {
        self.assignment.get()
    }

    /// Removes the files of the graph unless they are in a configured folder. No engine can be created after that.
    pub fn tidy(&self) {
        drop(self.private.lock().take());
    }

    /// Where the graph came from.
    #[must_use]
    pub const fn graph(&self) -> GraphSource {
        self.graph
    }

    /// What the file says about itself.
    #[must_use]
    pub const fn description(&self) -> &Description {
        &self.description
    }

    /// The cost of batches on this many cores, if it has been measured before.
    #[must_use]
    pub fn curve(&self, cores: usize) -> Option<Curve> {
        cache::curve(self.entry()?, cores)
    }

    /// The folder of its entry in the cache.
    fn entry(&self) -> Option<&PathBuf> {
        self.source.folder().or(self.measurements.as_ref())
    }

    /// Stores the cost of batches next to the graph, if that can be written.
    pub fn store_curve(&self, cores: usize, curve: &Curve) {
        let Some(folder) = self.entry().filter(|folder| folder.exists()) else {
            return;
        };
        if let Err(error) = cache::store_curve(folder, cores, curve) {
            tracing::debug!(
                "cannot store the measured cost of batches in {}: {error}",
                folder.display()
            );
        }
    }
}

impl Description {
    fn of(model: &onnx::Model) -> Self {
        let text = |text: String| (!text.is_empty()).then_some(text);
        let producer = format!(
            "{} {}",
            onnx::text(&model.producer_name),
            onnx::text(&model.producer_version)
        );
        let entry = |entry: &onnx::Entry| (onnx::text(&entry.key), onnx::text(&entry.value));
        Self {
            opset: model.opset(),
            producer: text(producer.trim().to_owned()),
            version: model.model_version,
            metadata: model.metadata.iter().map(entry).collect(),
            description: text(onnx::text(&model.description)),
        }
    }
}

fn measurements(path: &Path, origin: &cache::Origin) -> Option<PathBuf> {
    if let Err(error) = cache::remove_unused(path) {
        tracing::debug!("cannot clean up {}: {error}", path.display());
    }
    let folder = cache::measurements(path, origin);
    folder
        .map_err(|error| tracing::warn!("measurements cannot be stored in {}: {error}", path.display()))
        .ok()
}

fn original(package: &Package, onnx: &onnx::Model) -> Result<Source, Fatal> {
    Source::original(package, onnx).map_err(|error| {
        let message = format!(
            "cannot copy the weights of the model's conditions and loops to {}: {error}; keep them in \
             model.onnx, or make room there",
            std::env::temp_dir().display()
        );
        Fatal::new(ExitReason::SystemError, message)
    })
}

/// Names of the inputs and outputs that have no shape.
fn unshaped(model: &onnx::Model) -> BTreeSet<String> {
    let graph = model.graph.iter();
    let ports = graph.flat_map(|graph| graph.inputs.iter().chain(&graph.outputs));
    ports
        .filter(|port| port.shape().is_none())
        .map(|port| onnx::text(&port.name))
        .collect()
}
