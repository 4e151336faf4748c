//! The ONNX Runtime library, and how sessions are created with it.

use super::failure;
use super::graphs::source::Source;
use super::logged;
use super::provider::Provider;
use super::session::Kept;
use crate::process::exit::Fatal;
use crate::process::loss::DeviceLoss;
use modelservice_contract::{ExecutionProvider, ExitReason};
use ort::environment::Environment;
use ort::logging::LogLevel;
use ort::session::Session;
use ort::session::builder::SessionBuilder;
use std::path::Path;
use std::sync::Arc;

/// Environment variable that must be 1 before ONNX Runtime is loaded. Since 1.29 the official builds for Linux
/// otherwise send usage data to Microsoft and write a device identifier to the home folder, whatever `with_telemetry`
/// says (<https://github.com/microsoft/onnxruntime/pull/27379>).
pub const NO_TELEMETRY: &str = "ORT_DISABLE_TELEMETRY";

/// Has a session remember which provider runs which node; since 1.24.
const RECORD_ASSIGNMENT: &str = "session.record_ep_graph_assignment_info";

/// The ONNX Runtime library, and the execution provider that sessions are created with. One per process.
pub struct Runtime {
    environment: Environment,
    version: String,
    provider: Provider,
    kept: Kept,
    loss: DeviceLoss,
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
        let provider = Provider::find(&environment, provider)?;
        let version =
            ort::util::probe(&library).map_or_else(|| ort::info().to_owned(), |minor| format!("1.{minor}"));
        Ok(Self {
            environment,
            version,
            provider,
            kept: Kept::default(),
            loss: DeviceLoss::default(),
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
        self.provider.is_cpu()
    }

    /// Name of the execution provider.
    #[must_use]
    pub fn provider_name(&self) -> &str {
        self.provider.name()
    }

    /// The execution provider.
    pub(super) const fn provider(&self) -> &Provider {
        &self.provider
    }

    /// Whether the device is lost.
    #[must_use]
    pub const fn loss(&self) -> &DeviceLoss {
        &self.loss
    }

    /// What all sessions keep of their runs.
    pub(super) fn kept(&self) -> Kept {
        Arc::clone(&self.kept)
    }

    pub(super) fn session(&self, source: &Source, threads: usize) -> Result<Session, Fatal> {
        let session = source.session(self.builder(threads)?);
        session.map_err(|error| {
            if self.is_cpu() {
                return self.explain(&error.to_string());
            }
            // ONNX Runtime reports what is wrong with a model and with a device in the same way.
            let on_cpu = self.cpu_builder(1).and_then(|builder| {
                let session = source.session(builder);
                session.map_err(|error| self.explain(&error.to_string()))
            });
            on_cpu.map_or_else(|fatal| fatal, |_| self.provider.refused(error.message()))
        })
    }

    /// Sessions of the execution provider, with their graph assignment.
    pub(super) fn builder(&self, threads: usize) -> Result<SessionBuilder, Fatal> {
        logged::forget();
        let builder = self
            .provider
            .register(&self.environment, self.cpu_builder(threads)?)?;
        let recording = builder.with_config_entry(RECORD_ASSIGNMENT, "1");
        recording.map_err(|error| refused(&error))
    }

    /// Sessions on the CPU.
    pub(super) fn cpu_builder(&self, threads: usize) -> Result<SessionBuilder, Fatal> {
        let builder = Session::builder(&self.environment).map_err(|error| refused(&error))?;
        let builder = builder
            .with_intra_threads(threads)
            .map_err(|error| refused(&error))?;
        let builder = builder.with_inter_threads(1).map_err(|error| refused(&error))?;
        // Threads that spin while waiting take the cores from other runs.
        let builder = builder
            .with_intra_op_spinning(false)
            .map_err(|error| refused(&error))?;
        // ONNX Runtime warns about each graph that is stored, since another processor may be unable to run it. Our
        // key contains the processor.
        builder
            .with_log_level(LogLevel::Error)
            .map_err(|error| refused(&error))
    }

    /// What a graph depends on besides its model.
    pub(super) fn build(&self) -> String {
        let library = format!("{} {}", self.version, ort::info());
        if self.is_cpu() {
            return library;
        }
        format!("{library} {}", self.provider.identity())
    }

    /// ONNX Runtime has a single error for everything that can go wrong when a session is created.
    pub(super) fn explain(&self, problem: &str) -> Fatal {
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

fn refused(error: &dyn std::fmt::Display) -> Fatal {
    Fatal::new(
        ExitReason::RuntimeUnavailable,
        format!("ONNX Runtime rejects the session's options: {error}"),
    )
}

fn log(level: LogLevel, category: &str, _id: &str, _location: &str, message: &str) {
    // The caller reports the error, once and in its own words.
    let level = if failure::is_returned(message) {
        LogLevel::Info
    } else {
        level
    };
    if matches!(level, LogLevel::Error | LogLevel::Fatal) {
        logged::record(message);
    }
    match level {
        LogLevel::Verbose => tracing::trace!(target: "onnxruntime", category, "{message}"),
        LogLevel::Info => tracing::debug!(target: "onnxruntime", category, "{message}"),
        LogLevel::Warning => tracing::warn!(target: "onnxruntime", category, "{message}"),
        LogLevel::Error | LogLevel::Fatal => tracing::error!(target: "onnxruntime", category, "{message}"),
    }
}
