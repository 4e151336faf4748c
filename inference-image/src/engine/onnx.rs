//! ONNX Runtime: the library, sessions, and values in and out.

use super::cache::{self, Entry, Origin};
use super::curve::Curve;
use super::failure;
use super::interface::Description;
use super::provider;
use super::session::OnnxEngine;
use super::source::Source;
use crate::onnx;
use crate::package::{BAKED_FOLDER, Package};
use crate::process::exit::Fatal;
use modelservice_contract::{ExecutionProvider, ExitReason, GraphSource};
use ort::environment::Environment;
use ort::ep::ExecutionProviderDispatch;
use ort::logging::LogLevel;
use ort::session::Session;
use ort::session::builder::SessionBuilder;
use parking_lot::Mutex;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tempfile::TempDir;

/// Environment variable that must be 1 before ONNX Runtime is loaded. Since 1.29 the official builds for Linux
/// otherwise send usage data to Microsoft and write a device identifier to the home folder, whatever `with_telemetry`
/// says (<https://github.com/microsoft/onnxruntime/pull/27379>).
pub const NO_TELEMETRY: &str = "ORT_DISABLE_TELEMETRY";

/// The ONNX Runtime library, and the execution provider that sessions are created with. One per process.
pub struct Runtime {
    environment: Environment,
    version: String,
    provider: String,
    dispatch: Option<ExecutionProviderDispatch>,
}

impl Runtime {
    /// Loads the library and finds the provider in it.
    ///
    /// # Errors
    /// `RuntimeUnavailable`, `AcceleratorUnavailable` or `ConfigInvalid`.
    pub fn load(library: &Path, provider: &ExecutionProvider) -> Result<Self, Fatal> {
        let unavailable = |problem: &dyn std::fmt::Display| {
            let message = format!(
                "cannot load ONNX Runtime from {}: {problem}; set ORT_DYLIB_PATH to a libonnxruntime.so of 1.24 or newer",
                library.display()
            );
            Fatal::new(ExitReason::RuntimeUnavailable, message)
        };
        if std::env::var(NO_TELEMETRY).as_deref() != Ok("1") {
            let message =
                format!("ONNX Runtime would send telemetry: set {NO_TELEMETRY}=1 before it is loaded");
            return Err(Fatal::new(ExitReason::RuntimeUnavailable, message));
        }
        // A relative path would be looked up next to the executable.
        let library = std::path::absolute(library).map_err(|error| unavailable(&error))?;
        let builder = ort::init_from(&library).map_err(|error| unavailable(&error))?;
        let environment = builder
            .with_name("modelservice-server")
            .with_telemetry(false)
            .with_logger(Arc::new(log))
            .build()
            .map_err(|error| unavailable(&error))?;
        environment.set_log_level(LogLevel::Warning);
        let dispatch = provider::resolve(provider)?;
        let version =
            ort::util::probe(&library).map_or_else(|| ort::info().to_owned(), |minor| format!("1.{minor}"));
        Ok(Self {
            environment,
            version,
            provider: provider.name.clone(),
            dispatch,
        })
    }

    /// Version of ONNX Runtime: major and minor, the only parts that can be queried here.
    #[must_use]
    pub fn version(&self) -> &str {
        &self.version
    }

    /// Whether models run on the CPU.
    #[must_use]
    pub const fn is_cpu(&self) -> bool {
        self.dispatch.is_none()
    }

    /// Name of the execution provider.
    #[must_use]
    pub fn provider(&self) -> &str {
        &self.provider
    }

    /// Loads a model, from its optimised graph if there is one for this model, runtime and processor. Otherwise
    /// optimises the graph and keeps the result in the cache. What was `prefetched` is used if it belongs to this
    /// model.
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
            private: Mutex::default(),
            first: Mutex::default(),
        };
        // Sessions need the memory.
        drop(onnx);
        // Other providers compile graphs of their own.
        if !self.is_cpu() {
            return Ok(model);
        }
        let origin = self.origin(package);
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
            tracing::debug!("cannot tidy {}: {error}", path.display());
        }
        model.private = Mutex::new(private);
        Ok(match self.optimise(&model.source, &origin, &folder)? {
            Some((source, session)) => model.with(source, session, GraphSource::Optimised),
            None => model,
        })
    }

    /// Optimises a package's graph into a folder; an existing one is kept. Returns the folder of the entry.
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
                "no optimised graph can be written to {}: see the log",
                folder.display()
            );
            Fatal::new(ExitReason::SystemError, message)
        })
    }

    /// `None`, after a warning, if the graph cannot be kept: the server works without it.
    fn optimise(
        &self,
        original: &Source,
        origin: &Origin,
        folder: &Path,
    ) -> Result<Option<(Source, Session)>, Fatal> {
        let made = cache::write(folder, origin, |new| {
            let builder = self.builder(1)?;
            original
                .optimise(builder, new)
                .map_err(|error| self.explain(&error.to_string()))
        });
        match made {
            Ok(Ok(entry)) => Ok(self.shared(entry)),
            // Not every graph can be written; whether this one can be loaded is another question.
            Ok(Err(fatal)) => match self.session(original, 1) {
                Ok(_) => {
                    tracing::warn!("the optimised graph cannot be kept: {}", fatal.message);
                    Ok(None)
                }
                Err(fatal) => Err(fatal),
            },
            Err(error) => {
                not_kept(folder, &error);
                Ok(None)
            }
        }
    }

    /// What sessions are created from, sharing as much as the kernels of the graph can share, and the first session;
    /// `None`, after a warning, if no session can be created.
    pub(super) fn shared(&self, entry: Entry) -> Option<(Source, Session)> {
        let folder = entry.folder.clone();
        let Some(source) = Source::optimised(entry) else {
            tracing::warn!(
                "the optimised graph in {} is not used: it has weights of a type that cannot be shared",
                folder.display()
            );
            return None;
        };
        if let Ok(session) = self.session(&source, 1) {
            return Some((source, session));
        }
        let source = source.without_packed();
        match self.session(&source, 1) {
            Ok(session) => Some((source, session)),
            Err(fatal) => {
                tracing::warn!("the optimised graph is not used: {}", fatal.message);
                None
            }
        }
    }

    fn session(&self, source: &Source, threads: usize) -> Result<Session, Fatal> {
        let session = source.session(self.builder(threads)?);
        session.map_err(|error| self.explain(&error.to_string()))
    }

    fn builder(&self, threads: usize) -> Result<SessionBuilder, Fatal> {
        let refused = |error: &dyn std::fmt::Display| {
            Fatal::new(
                ExitReason::RuntimeUnavailable,
                format!("ONNX Runtime refuses the session's options: {error}"),
            )
        };
        let builder = Session::builder(&self.environment).map_err(|error| refused(&error))?;
        let builder = builder
            .with_intra_threads(threads)
            .map_err(|error| refused(&error))?;
        let builder = builder.with_inter_threads(1).map_err(|error| refused(&error))?;
        // Threads that spin while waiting take the cores from other runs.
        let mut builder = builder
            .with_intra_op_spinning(false)
            .map_err(|error| refused(&error))?;
        // It warns about each graph that is kept, since another processor may be unable to run it: the processor is
        // part of our key.
        builder = builder
            .with_log_level(LogLevel::Error)
            .map_err(|error| refused(&error))?;
        if let Some(dispatch) = &self.dispatch {
            builder = builder
                .with_disable_cpu_fallback()
                .map_err(|error| refused(&error))?;
            builder = builder
                .with_execution_providers([dispatch.clone()])
                .map_err(|error| {
                    let message = format!(
                        "{} cannot be used: {error}; is its device on this node?",
                        self.provider
                    );
                    Fatal::new(ExitReason::AcceleratorUnavailable, message)
                })?;
        }
        Ok(builder)
    }

    fn origin(&self, package: &Package) -> Origin {
        Origin::new(&package.identity(), package.model.len() as u64, &self.build())
    }

    /// What a graph depends on besides its model.
    pub(super) fn build(&self) -> String {
        format!("{} {}", self.version, ort::info())
    }

    /// ONNX Runtime has a single error for everything that can go wrong when a session is created.
    fn explain(&self, problem: &str) -> Fatal {
        if self.dispatch.is_some() && problem.contains("fallback to CPU EP has been explicitly disabled") {
            let message = format!(
                "{} does not hold the whole graph, parts of it would run on the CPU: \
                 use a model whose operators it supports, or ask for {}",
                self.provider,
                provider::CPU
            );
            return Fatal::new(ExitReason::ExecutionProviderFallback, message);
        }
        let advice = if problem.contains("opset") || problem.contains("IR version") {
            "export the model with an older opset"
        } else if problem.contains("External data")
            || problem.contains("external data")
            || problem.contains("model_path")
        {
            "put the files with its external data beside model.onnx"
        } else {
            "check the file with onnx.checker"
        };
        let version = &self.version;
        Fatal::new(
            ExitReason::ModelInvalid,
            format!("ONNX Runtime {version} cannot load the model: {problem}; {advice}"),
        )
    }
}

/// A graph with its first session, and the model that it belongs to.
pub struct Prefetched {
    pub(super) origin: Origin,
    pub(super) source: Source,
    pub(super) session: Session,
}

fn original(package: &Package, onnx: &onnx::Model) -> Result<Source, Fatal> {
    Source::original(package, onnx).map_err(|error| {
        let message = format!(
            "cannot copy weights that conditions and loops of the model have in a file to {}: {error}; \
             keep them in model.onnx, or make room there",
            std::env::temp_dir().display()
        );
        Fatal::new(ExitReason::SystemError, message)
    })
}

fn not_kept(folder: &Path, error: &std::io::Error) {
    tracing::warn!(
        "the optimised graph cannot be kept in {}: {error}; each session loads its own weights",
        folder.display()
    );
}

fn log(level: LogLevel, category: &str, _id: &str, _location: &str, message: &str) {
    // Whoever gets the error says so, once and in its own words.
    let level = if failure::is_returned(message) {
        LogLevel::Info
    } else {
        level
    };
    match level {
        LogLevel::Verbose => tracing::trace!(target: "onnxruntime", category, "{message}"),
        LogLevel::Info => tracing::debug!(target: "onnxruntime", category, "{message}"),
        LogLevel::Warning => tracing::warn!(target: "onnxruntime", category, "{message}"),
        LogLevel::Error | LogLevel::Fatal => tracing::error!(target: "onnxruntime", category, "{message}"),
    }
}

/// Where optimised graphs are kept.
#[derive(Clone, Debug, Default)]
pub struct Cache {
    /// Folder for graphs that are optimised at start; without one, none are kept.
    pub path: Option<PathBuf>,
}

impl Cache {
    /// Where to look: first for what was baked into the package in this folder.
    pub(super) fn folders(&self, package: &Path) -> Vec<PathBuf> {
        let baked = package.join(BAKED_FOLDER);
        // Its name is trusted, and may be a link; what is in it may be none.
        let whole = |path: &PathBuf| path.canonicalize().unwrap_or_else(|_| path.clone());
        std::iter::once(baked)
            .chain(self.path.as_ref().map(whole))
            .collect()
    }

    /// The same, without what is in the package where its digest does not cover that.
    fn trusted_folders(&self, package: &Package) -> Vec<PathBuf> {
        let mut folders = self.folders(&package.folder);
        if !package.vouches_for_graphs() && folders.first().is_some_and(|baked| baked.exists()) {
            let baked = folders.remove(0);
            tracing::warn!(
                "the optimised graph in {} is not used: the digest that was asked for covers model.onnx alone; \
                 ask for that of the whole package (modelservice-server digest FOLDER)",
                baked.display()
            );
        }
        folders
    }
}

/// A model that sessions can be created from.
pub struct OnnxModel {
    runtime: Arc<Runtime>,
    source: Source,
    graph: GraphSource,
    description: Description,
    /// Inputs and outputs that the file says no shape of.
    unshaped: BTreeSet<String>,
    /// The folder of the graph when none is configured.
    private: Mutex<Option<TempDir>>,
    /// A session that has been created already.
    first: Mutex<Option<Session>>,
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

    /// Creates an engine with a session of its own that computes with this many threads.
    ///
    /// # Errors
    /// As [`Runtime::load_model`].
    pub fn engine(&self, threads: usize) -> Result<OnnxEngine, Fatal> {
        let first = self.first.lock().take().filter(|_| threads == 1);
        let session = first.map_or_else(|| self.runtime.session(&self.source, threads), Ok)?;
        OnnxEngine::new(session, self.description.opset, &self.unshaped)
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
        cache::curve(self.source.folder()?, cores)
    }

    /// Stores the cost of batches next to the graph, if that can be written.
    pub fn store_curve(&self, cores: usize, curve: &Curve) {
        let Some(folder) = self.source.folder().filter(|folder| folder.exists()) else {
            return;
        };
        if let Err(error) = cache::store_curve(folder, cores, curve) {
            tracing::debug!("what batches cost is not kept in {}: {error}", folder.display());
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

/// Names of the inputs and outputs that have no shape.
fn unshaped(model: &onnx::Model) -> BTreeSet<String> {
    let graph = model.graph.iter();
    let ports = graph.flat_map(|graph| graph.inputs.iter().chain(&graph.outputs));
    ports
        .filter(|port| port.shape().is_none())
        .map(|port| onnx::text(&port.name))
        .collect()
}
