//! ONNX Runtime: the library, sessions, and values in and out.

use super::{Engine, EngineError, Port, Signature, provider, value};
use crate::exit::Fatal;
use crate::tensor::Tensor;
use modelservice_contract::{ExecutionProvider, ExitReason};
use ort::environment::Environment;
use ort::ep::ExecutionProviderDispatch;
use ort::logging::LogLevel;
use ort::session::{OutputSelector, RunOptions, Session, SessionInputValue};
use ort::value::{Outlet, ValueType};
use std::path::Path;
use std::sync::Arc;

/// Environment variable that must be 1 before ONNX Runtime is loaded. Since 1.29 the official builds for Linux
/// otherwise send what they run to Microsoft and write a device's identifier to the home folder, whatever
/// `with_telemetry` says (<https://github.com/microsoft/onnxruntime/pull/27379>).
pub const NO_TELEMETRY: &str = "ORT_DISABLE_TELEMETRY";

/// The ONNX Runtime library and the execution provider that sessions are made with. One per process.
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
        // A relative path would be looked up beside the executable.
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

    /// Version of ONNX Runtime: major and minor, which is all that can be asked for here.
    #[must_use]
    pub fn version(&self) -> &str {
        &self.version
    }

    /// Name of the execution provider.
    #[must_use]
    pub fn provider(&self) -> &str {
        &self.provider
    }

    /// Makes an engine with a session of its own from the bytes of a model.
    ///
    /// # Errors
    /// `ModelInvalid`, `AcceleratorUnavailable` or `ExecutionProviderFallback`.
    pub fn engine(&self, model: &[u8]) -> Result<OnnxEngine, Fatal> {
        let session = self.session(model)?;
        let signature = signature(&session)?;
        Ok(OnnxEngine { session, signature })
    }

    fn session(&self, model: &[u8]) -> Result<Session, Fatal> {
        let options = |error: &dyn std::fmt::Display| {
            Fatal::new(
                ExitReason::RuntimeUnavailable,
                format!("ONNX Runtime refuses the session's options: {error}"),
            )
        };
        let builder = Session::builder(&self.environment).map_err(|error| options(&error))?;
        // One core per runner: with more callers than cores, more threads per call only get in each other's way.
        let builder = builder.with_intra_threads(1).map_err(|error| options(&error))?;
        let builder = builder.with_inter_threads(1).map_err(|error| options(&error))?;
        let mut builder = builder
            .with_intra_op_spinning(false)
            .map_err(|error| options(&error))?;
        if let Some(dispatch) = &self.dispatch {
            builder = builder
                .with_disable_cpu_fallback()
                .map_err(|error| options(&error))?;
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
        builder
            .commit_from_memory(model)
            .map_err(|error| self.explain(&error.to_string()))
    }

    /// ONNX Runtime has one error for everything that can go wrong while a session is made.
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
            "export the model as one file, without external data"
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
    match level {
        LogLevel::Verbose => tracing::trace!(target: "onnxruntime", category, "{message}"),
        LogLevel::Info => tracing::debug!(target: "onnxruntime", category, "{message}"),
        LogLevel::Warning => tracing::warn!(target: "onnxruntime", category, "{message}"),
        LogLevel::Error | LogLevel::Fatal => tracing::error!(target: "onnxruntime", category, "{message}"),
    }
}

fn signature(session: &Session) -> Result<Signature, Fatal> {
    let ports = |outlets: &[Outlet]| outlets.iter().map(port).collect::<Result<Vec<Port>, Fatal>>();
    let opset = session.opset_for_domain("").map_or(0, i64::from);
    Ok(Signature {
        inputs: ports(session.inputs())?,
        outputs: ports(session.outputs())?,
        opset,
    })
}

fn port(outlet: &Outlet) -> Result<Port, Fatal> {
    let refused = || {
        let message = format!(
            "{:?} of the model is {}, which this server does not serve: use tensors of BOOL, (U)INT8–64, FP16–64, BF16 or strings",
            outlet.name(),
            outlet.dtype()
        );
        Fatal::new(ExitReason::ModelInvalid, message)
    };
    let ValueType::Tensor { ty, shape, .. } = outlet.dtype() else {
        return Err(refused());
    };
    Ok(Port {
        name: outlet.name().to_owned(),
        datatype: value::datatype(*ty).ok_or_else(refused)?,
        shape: shape.to_vec(),
    })
}

/// One ONNX Runtime session; `run` needs it exclusively, since the allocators of some execution providers
/// are not thread-safe.
pub struct OnnxEngine {
    session: Session,
    signature: Signature,
}

impl Engine for OnnxEngine {
    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn run(&mut self, inputs: &[Tensor], outputs: &[usize]) -> Result<Vec<Tensor>, EngineError> {
        let mut values: Vec<(&str, SessionInputValue<'_>)> = Vec::with_capacity(inputs.len());
        for (port, tensor) in self.signature.inputs.iter().zip(inputs) {
            values.push((&port.name, value::borrow(tensor)?));
        }
        let names = || {
            outputs
                .iter()
                .filter_map(|&index| self.signature.outputs.get(index))
        };
        // Without a selection ONNX Runtime makes all outputs, and is spared a list of names.
        let options;
        let mut results = if outputs.len() == self.signature.outputs.len() {
            self.session.run(values)
        } else {
            let selector = names().fold(OutputSelector::no_default(), |selector, port| {
                selector.with(&port.name)
            });
            options = RunOptions::new()
                .map_err(|error| value::explain(&error))?
                .with_outputs(selector);
            self.session.run_with_options(values, &options)
        }
        .map_err(|error| value::explain(&error))?;
        names()
            .map(|port| {
                let result = results.remove(&port.name).ok_or_else(|| lost(&port.name))?;
                value::take(result)
            })
            .collect()
    }
}

fn lost(name: &str) -> EngineError {
    EngineError::Failed(format!("ONNX Runtime returned no output {name:?}"))
}
