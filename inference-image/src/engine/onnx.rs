//! ONNX Runtime: the library, sessions, and values in and out.

use super::{Engine, EngineError, Port, Signature, provider};
use crate::exit::Fatal;
use crate::tensor::{Data, DataType, Tensor};
use modelservice_contract::{ExecutionProvider, ExitReason};
use ort::environment::Environment;
use ort::ep::ExecutionProviderDispatch;
use ort::logging::LogLevel;
use ort::session::{OutputSelector, RunOptions, Session, SessionInputValue};
use ort::value::{DynValue, Outlet, TensorElementType, ValueType};
use std::borrow::Cow;
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
            "{:?} of the model is {}, which this server does not serve: use tensors of BOOL, (U)INT8–64 or FP16–64",
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
        datatype: datatype(*ty).ok_or_else(refused)?,
        shape: shape.to_vec(),
    })
}

fn datatype(ty: TensorElementType) -> Option<DataType> {
    Some(match ty {
        TensorElementType::Bool => DataType::Bool,
        TensorElementType::Uint8 => DataType::Uint8,
        TensorElementType::Uint16 => DataType::Uint16,
        TensorElementType::Uint32 => DataType::Uint32,
        TensorElementType::Uint64 => DataType::Uint64,
        TensorElementType::Int8 => DataType::Int8,
        TensorElementType::Int16 => DataType::Int16,
        TensorElementType::Int32 => DataType::Int32,
        TensorElementType::Int64 => DataType::Int64,
        TensorElementType::Float16 => DataType::Fp16,
        TensorElementType::Bfloat16 => DataType::Bf16,
        TensorElementType::Float32 => DataType::Fp32,
        TensorElementType::Float64 => DataType::Fp64,
        _ => return None,
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

    fn run(&mut self, inputs: Vec<Tensor>, outputs: &[usize]) -> Result<Vec<Tensor>, EngineError> {
        let mut values: Vec<(Cow<'_, str>, SessionInputValue<'_>)> = Vec::with_capacity(inputs.len());
        for (port, tensor) in self.signature.inputs.iter().zip(inputs) {
            values.push((
                Cow::Borrowed(port.name.as_str()),
                to_value(tensor).map_err(|error| classify(&error))?,
            ));
        }
        let names: Vec<&str> = outputs
            .iter()
            .filter_map(|&index| Some(self.signature.outputs.get(index)?.name.as_str()))
            .collect();
        let selector = names.iter().fold(OutputSelector::no_default(), |selector, name| {
            selector.with(*name)
        });
        let options = RunOptions::new()
            .map_err(|error| classify(&error))?
            .with_outputs(selector);
        let results = self
            .session
            .run_with_options(values, &options)
            .map_err(|error| classify(&error))?;
        names
            .iter()
            .map(|name| results.get(name).ok_or_else(|| lost(name)).and_then(from_value))
            .collect::<Result<Vec<Tensor>, EngineError>>()
    }
}

fn lost(name: &str) -> EngineError {
    EngineError::Failed(format!("ONNX Runtime returned no output {name:?}"))
}

fn classify(error: &ort::Error) -> EngineError {
    match error.code() {
        ort::ErrorCode::InvalidArgument => EngineError::Refused(error.message().to_owned()),
        _ => EngineError::Failed(error.message().to_owned()),
    }
}

fn to_value(tensor: Tensor) -> ort::Result<SessionInputValue<'static>> {
    let (shape, data) = tensor.into_parts();
    crate::with_elements!(data, elements => ort::value::Tensor::from_array((shape, elements)).map(Into::into))
}

fn from_value(value: &DynValue) -> Result<Tensor, EngineError> {
    macro_rules! copy {
        ($variant:ident) => {{
            let (shape, elements) = value.try_extract_tensor().map_err(|error| classify(&error))?;
            (shape.to_vec(), Data::$variant(elements.to_vec()))
        }};
    }
    let ty = value.dtype().tensor_type().and_then(datatype);
    let (shape, data) = match ty.ok_or_else(|| EngineError::Failed("an output is no tensor".to_owned()))? {
        DataType::Bool => copy!(Bool),
        DataType::Uint8 => copy!(Uint8),
        DataType::Uint16 => copy!(Uint16),
        DataType::Uint32 => copy!(Uint32),
        DataType::Uint64 => copy!(Uint64),
        DataType::Int8 => copy!(Int8),
        DataType::Int16 => copy!(Int16),
        DataType::Int32 => copy!(Int32),
        DataType::Int64 => copy!(Int64),
        DataType::Fp16 => copy!(Fp16),
        DataType::Bf16 => copy!(Bf16),
        DataType::Fp32 => copy!(Fp32),
        DataType::Fp64 => copy!(Fp64),
    };
    Tensor::new(shape, data)
        .ok_or_else(|| EngineError::Failed("an output's shape does not fit its data".to_owned()))
}
