//! Execution providers that are compiled into a build of ONNX Runtime, by their names there.

use crate::engine::c_api;
use ort::ep::{ArbitrarilyConfigurableExecutionProvider, ExecutionProvider as _, ExecutionProviderDispatch};
use ort::session::builder::SessionBuilder;
use std::collections::BTreeMap;

/// The provider that is always available and needs no registration.
pub(crate) const CPU: &str = "CPUExecutionProvider";

pub(super) type Options = BTreeMap<String, String>;

/// How sessions are told to use a provider.
pub(super) struct BuiltIn {
    pub(super) name: &'static str,
    is_available: fn() -> ort::Result<bool>,
    pub(super) register: fn(SessionBuilder, &Options) -> ort::Result<SessionBuilder>,
    /// The option that limits a session's memory on the device, in bytes.
    pub(super) memory_limit: Option<&'static str>,
}

const fn row<E>(memory_limit: Option<&'static str>) -> BuiltIn
where
    E: ort::ep::ExecutionProvider
        + ArbitrarilyConfigurableExecutionProvider
        + Default
        + Into<ExecutionProviderDispatch>,
{
    BuiltIn {
        name: E::NAME,
        is_available: E::is_available,
        register: register::<E>,
        memory_limit,
    }
}

/// What ONNX Runtime has today and runs on Linux. TensorRT's option for its workspace is none for all of a session's
/// memory.
const KNOWN: [BuiltIn; 9] = [
    row::<ort::ep::CUDA>(Some("gpu_mem_limit")),
    row::<ort::ep::TensorRT>(None),
    BuiltIn {
        name: ort::ep::MIGraphX::NAME,
        is_available: ort::ep::MIGraphX::is_available,
        register: register_migraphx,
        memory_limit: Some("migraphx_mem_limit"),
    },
    row::<ort::ep::OpenVINO>(None),
    row::<ort::ep::QNN>(None),
    row::<ort::ep::CANN>(Some("npu_mem_limit")),
    row::<ort::ep::Vitis>(None),
    row::<ort::ep::XNNPACK>(None),
    row::<ort::ep::Azure>(None),
];

/// The provider of that name, if this build has it.
pub(super) fn find(name: &str) -> Option<&'static BuiltIn> {
    KNOWN.iter().find(|known| known.name == name && known.is_here())
}

/// The provider of that name, in whatever build.
#[cfg(test)]
#[allow(clippy::unwrap_used)]
pub(super) fn known(name: &str) -> &'static BuiltIn {
    KNOWN.iter().find(|known| known.name == name).unwrap()
}

/// Names of those that this build has, besides the CPU.
pub(super) fn available() -> impl Iterator<Item = &'static str> {
    KNOWN
        .iter()
        .filter(|known| known.is_here())
        .map(|known| known.name)
}

impl BuiltIn {
    fn is_here(&self) -> bool {
        (self.is_available)().unwrap_or(false)
    }
}

fn register<E>(builder: SessionBuilder, options: &Options) -> ort::Result<SessionBuilder>
where
    E: ArbitrarilyConfigurableExecutionProvider + Default + Into<ExecutionProviderDispatch>,
{
    let provider = options.iter().fold(E::default(), |provider, (key, value)| {
        provider.with_arbitrary_config(key, value)
    });
    Ok(builder.with_execution_providers([provider.into().error_on_failure()])?)
}

/// `ort` takes only some of its options.
fn register_migraphx(mut builder: SessionBuilder, options: &Options) -> ort::Result<SessionBuilder> {
    c_api::append_provider(&mut builder, c"MIGraphXExecutionProvider", options)?;
    Ok(builder)
}
