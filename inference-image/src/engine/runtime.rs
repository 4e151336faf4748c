//! The ONNX Runtime library, and how sessions are created with it.

use super::failure;
use super::graphs::source::Source;
use super::provider;
use super::session::Kept;
use crate::process::exit::Fatal;
use modelservice_contract::{ExecutionProvider, ExitReason};
use ort::environment::Environment;
use ort::ep::ExecutionProviderDispatch;
use ort::logging::LogLevel;
use ort::session::Session;
use ort::session::builder::SessionBuilder;
use std::path::Path;
use std::sync::Arc;

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
    kept: Kept,
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
            kept: Kept::default(),
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

    /// What all sessions keep of their runs.
    pub(super) fn kept(&self) -> Kept {
        Arc::clone(&self.kept)
    }

    pub(super) fn session(&self, source: &Source, threads: usize) -> Result<Session, Fatal> {
        let session = source.session(self.builder(threads)?);
        session.map_err(|error| self.explain(&error.to_string()))
    }

    pub(super) fn builder(&self, threads: usize) -> Result<SessionBuilder, Fatal> {
        let refused = |error: &dyn std::fmt::Display| {
            Fatal::new(
                ExitReason::RuntimeUnavailable,
                format!("ONNX Runtime rejects the session's options: {error}"),
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
        // ONNX Runtime warns about each graph that is stored, since another processor may be unable to run it. Our
        // key contains the processor.
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

    /// What a graph depends on besides its model.
    pub(super) fn build(&self) -> String {
        format!("{} {}", self.version, ort::info())
    }

    /// ONNX Runtime has a single error for everything that can go wrong when a session is created.
    pub(super) fn explain(&self, problem: &str) -> Fatal {
        if self.dispatch.is_some() && problem.contains("fallback to CPU EP has been explicitly disabled") {
            let message = format!(
                "{} does not run the whole graph, parts of it would run on the CPU: use a model whose \
                 operators it supports, or ask for {}",
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

fn log(level: LogLevel, category: &str, _id: &str, _location: &str, message: &str) {
    // The caller reports the error, once and in its own words.
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
