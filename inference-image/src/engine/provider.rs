//! Execution providers by their names in ONNX Runtime: whether this runtime has them, and how to use them.

use crate::process::exit::Fatal;
use modelservice_contract::{ExecutionProvider, ExitReason};
use ort::ep::{ArbitrarilyConfigurableExecutionProvider, ExecutionProviderDispatch};
use std::collections::BTreeMap;

/// The provider that is always available and needs no registration.
pub(super) const CPU: &str = "CPUExecutionProvider";

type Options = BTreeMap<String, String>;

struct Known {
    name: &'static str,
    available: fn() -> ort::Result<bool>,
    dispatch: fn(&Options) -> ExecutionProviderDispatch,
}

const fn known<E>() -> Known
where
    E: ort::ep::ExecutionProvider
        + ArbitrarilyConfigurableExecutionProvider
        + Default
        + Into<ExecutionProviderDispatch>,
{
    Known {
        name: E::NAME,
        available: E::is_available,
        dispatch: dispatch::<E>,
    }
}

fn dispatch<E>(options: &Options) -> ExecutionProviderDispatch
where
    E: ArbitrarilyConfigurableExecutionProvider + Default + Into<ExecutionProviderDispatch>,
{
    let provider = options.iter().fold(E::default(), |provider, (key, value)| {
        provider.with_arbitrary_config(key, value)
    });
    provider.into().error_on_failure()
}

/// Providers that are compiled into a runtime. Providers in plug-in libraries use another interface of ONNX Runtime
/// (`register_ep_library`); they will get their own table.
const KNOWN: [Known; 9] = [
    known::<ort::ep::CUDA>(),
    known::<ort::ep::TensorRT>(),
    known::<ort::ep::ROCm>(),
    known::<ort::ep::OpenVINO>(),
    known::<ort::ep::QNN>(),
    known::<ort::ep::CANN>(),
    known::<ort::ep::Vitis>(),
    known::<ort::ep::XNNPACK>(),
    known::<ort::ep::Azure>(),
];

/// What to register for the provider; `None` for the CPU.
///
/// # Errors
/// `AcceleratorUnavailable` if this runtime does not have the provider, `ConfigInvalid` for options that it does not
/// accept.
pub(super) fn resolve(provider: &ExecutionProvider) -> Result<Option<ExecutionProviderDispatch>, Fatal> {
    if provider.name == CPU {
        return if provider.options.is_empty() {
            Ok(None)
        } else {
            Err(options_refused(provider))
        };
    }
    if provider
        .options
        .iter()
        .any(|(key, value)| key.contains('\0') || value.contains('\0'))
    {
        return Err(options_refused(provider));
    }
    match KNOWN
        .iter()
        .find(|known| known.name == provider.name && is_available(known))
    {
        Some(known) => Ok(Some((known.dispatch)(&provider.options))),
        None => Err(unavailable(&provider.name)),
    }
}

fn is_available(known: &Known) -> bool {
    (known.available)().unwrap_or(false)
}

fn options_refused(provider: &ExecutionProvider) -> Fatal {
    let message = format!(
        "executionProvider {} does not accept the options {:?}",
        provider.name, provider.options
    );
    Fatal::new(ExitReason::ConfigInvalid, message)
}

fn unavailable(name: &str) -> Fatal {
    let mut available: Vec<&str> = KNOWN
        .iter()
        .filter(|known| is_available(known))
        .map(|known| known.name)
        .collect();
    available.push(CPU);
    let message = format!(
        "this runtime has no execution provider {name}, only: {}; use a runtime image that carries {name} or \
         name one of these",
        available.join(", ")
    );
    Fatal::new(ExitReason::AcceleratorUnavailable, message)
}
