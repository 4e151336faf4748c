//! Execution providers in plug-in libraries: which library, and which of the devices that it finds.

use super::built_in::CPU;
use crate::engine::c_api;
use crate::process::exit::Fatal;
use modelservice_contract::{ExecutionProvider, ExitReason, ProviderPlugin};
use ort::device::Device;
use ort::environment::Environment;
use ort::memory::DeviceType;
use std::path::Path;

/// The device of a provider's library that sessions use.
#[derive(Clone, Debug)]
pub(super) struct Filter {
    provider: String,
    vendor: Option<String>,
    kind: Option<String>,
}

/// Has ONNX Runtime load the library.
///
/// # Errors
/// `AcceleratorUnavailable` if it does not exist, cannot be loaded or finds no device that is wanted.
pub(super) fn register(
    environment: &Environment,
    provider: &ExecutionProvider,
    plugin: &ProviderPlugin,
) -> Result<Filter, Fatal> {
    let unavailable = |problem: String| Fatal::new(ExitReason::AcceleratorUnavailable, problem);
    let library = Path::new(&plugin.library);
    if !library.is_file() {
        return Err(unavailable(format!(
            "there is no library {} for {}: use a runtime image that contains it, or correct plugin.library",
            plugin.library, provider.name
        )));
    }
    let name = plugin.registration_name.as_ref().unwrap_or(&provider.name);
    environment.register_ep_library(name, library).map_err(|error| {
        unavailable(format!(
            "ONNX Runtime cannot load {} as the library of {}: {error}",
            plugin.library, provider.name
        ))
    })?;
    let filter = Filter {
        provider: provider.name.clone(),
        vendor: plugin.device_vendor.clone(),
        kind: plugin.device_type.clone(),
    };
    match filter.device(environment) {
        Some(_) => Ok(filter),
        None => Err(unavailable(no_device(environment, &filter, &plugin.library))),
    }
}

impl Filter {
    /// The first device that matches: a session of most providers uses one.
    pub(super) fn device<'e>(&self, environment: &'e Environment) -> Option<Device<'e>> {
        environment.devices().find(|device| self.matches(device))
    }

    fn matches(&self, device: &Device<'_>) -> bool {
        let hardware = device.hardware_device();
        let is_same = |wanted: &Option<String>, found: &str| {
            wanted
                .as_ref()
                .is_none_or(|wanted| wanted.eq_ignore_ascii_case(found))
        };
        device.ep().is_ok_and(|name| name == self.provider)
            && is_same(&self.vendor, hardware.vendor().unwrap_or_default())
            && is_same(&self.kind, kind(hardware.ty()))
    }
}

fn no_device(environment: &Environment, filter: &Filter, library: &str) -> String {
    let wanted = |what: &str, value: &Option<String>| {
        value
            .as_ref()
            .map_or_else(String::new, |value| format!(", {what} {value}"))
    };
    let found: Vec<String> = environment.devices().filter_map(|device| told(&device)).collect();
    let found = if found.is_empty() {
        "none: are the device and its driver on this node?".to_owned()
    } else {
        found.join(", ")
    };
    format!(
        "{library} finds no device for provider {}{}{}; the devices of plug-in libraries here are {found}",
        filter.provider,
        wanted("vendor", &filter.vendor),
        wanted("type", &filter.kind)
    )
}

/// `PROVIDER: VENDOR TYPE`, for a device of a library.
fn told(device: &Device<'_>) -> Option<String> {
    let provider = device.ep().ok().filter(|name| *name != CPU)?;
    let hardware = device.hardware_device();
    Some(format!(
        "{provider} (vendor {}, type {})",
        hardware.vendor().unwrap_or_default(),
        kind(hardware.ty())
    ))
}

/// What ONNX Runtime knows about a device.
pub(super) fn describe(device: &Device<'_>) -> (modelservice_contract::Device, String) {
    let metadata = c_api::metadata(device);
    let first = |keys: &[&str]| {
        let mut values = keys.iter().filter_map(|key| metadata.get(*key));
        values.find(|value| !value.is_empty()).cloned()
    };
    let hardware = device.hardware_device();
    let by_kind = || {
        format!(
            "{} {}",
            hardware.vendor().unwrap_or_default(),
            kind(hardware.ty())
        )
    };
    let described = modelservice_contract::Device {
        name: first(&["device_name", "Description", "FULL_DEVICE_NAME"]).unwrap_or_else(by_kind),
        driver: first(&["os_driver_version", "driver_version"]),
    };
    (described, first(&["version"]).unwrap_or_default())
}

const fn kind(kind: DeviceType) -> &'static str {
    match kind {
        DeviceType::CPU => "CPU",
        DeviceType::GPU => "GPU",
        DeviceType::NPU => "NPU",
        DeviceType::FPGA => "FPGA",
    }
}
