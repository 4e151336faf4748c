//! The execution provider that is measured instead of the CPU, and the flavour of ONNX Runtime that has it.

use anyhow::{Result, bail, ensure};
use clap::ValueEnum;
use modelservice_contract::ExecutionProvider;
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

/// A flavour of ONNX Runtime, as inference-image/onnxruntime provides it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Flavour {
    /// The rows without a device.
    Cpu,
    /// OpenVINO, on this machine's processor unless --execution-provider names another device.
    Openvino,
    /// CUDA, on an NVIDIA GPU.
    Cuda,
    /// A plug-in library, which --execution-provider names.
    Plugin,
}

impl Flavour {
    /// Its name in inference-image/onnxruntime.
    const fn name(self) -> &'static str {
        match self {
            Self::Cpu => "cpu",
            Self::Openvino => "openvino",
            Self::Cuda => "cuda",
            Self::Plugin => "plugin",
        }
    }

    /// What is measured unless something else is asked for.
    fn provider(self) -> Option<ExecutionProvider> {
        let (name, options): (_, &[(&str, &str)]) = match self {
            Self::Openvino => ("OpenVINOExecutionProvider", &[("device_type", "CPU")]),
            Self::Cuda => ("CUDAExecutionProvider", &[]),
            Self::Cpu | Self::Plugin => return None,
        };
        let options = options
            .iter()
            .map(|&(key, value)| (key.to_owned(), value.to_owned()));
        Some(ExecutionProvider {
            name: name.to_owned(),
            options: options.collect::<BTreeMap<_, _>>(),
            ..ExecutionProvider::default()
        })
    }
}

/// What is measured instead of the CPU.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Device {
    flavour: Flavour,
    /// The server's setting, with which the sessions in-process are created too.
    pub(crate) provider: ExecutionProvider,
}

impl Device {
    /// `None` for the CPU. `provider` replaces the flavour's own.
    pub(crate) fn new(flavour: Flavour, provider: Option<ExecutionProvider>) -> Result<Option<Self>> {
        if flavour == Flavour::Cpu {
            ensure!(
                provider.is_none(),
                "--execution-provider needs the flavour of ONNX Runtime that has it: add --provider"
            );
            return Ok(None);
        }
        let Some(provider) = provider.or_else(|| flavour.provider()) else {
            bail!(
                "--provider {} says nothing of the library: add --execution-provider \
                 '{{\"name\": \"NAME\", \"plugin\": {{\"library\": \"FILE\"}}}}'",
                flavour.name()
            );
        };
        Ok(Some(Self { flavour, provider }))
    }

    /// Its name in the table and in files.
    pub(crate) const fn name(&self) -> &'static str {
        self.flavour.name()
    }
}

/// Folders of libraries for a device or for the CPU, the one with ONNX Runtime first. `runtimes` is where
/// inference-image/onnxruntime puts them.
pub(crate) fn libraries(device: Option<&Device>, runtimes: &Path) -> Vec<PathBuf> {
    let arch = if cfg!(target_arch = "aarch64") {
        "arm64"
    } else {
        "amd64"
    };
    let folder = |name: &str| runtimes.join(format!("{arch}-{name}"));
    match device {
        None => vec![runtimes.join(arch)],
        Some(device) if device.flavour == Flavour::Cuda => vec![folder(device.name()), folder("nvidia")],
        Some(device) => vec![folder(device.name())],
    }
}

/// Settings as in the server's configuration, as JSON.
pub(crate) fn parse(text: &str) -> Result<ExecutionProvider, String> {
    serde_json::from_str(text).map_err(|error| {
        format!("{error}; it must be the server's setting executionProvider as JSON, such as {{\"name\": \"CUDAExecutionProvider\"}}")
    })
}

/// Where the loader looks for libraries: first in these folders.
pub(crate) fn search_path(folders: &[PathBuf]) -> Result<OsString> {
    let inherited = std::env::var_os("LD_LIBRARY_PATH").unwrap_or_default();
    let inherited = std::env::split_paths(&inherited).filter(|folder| !folder.as_os_str().is_empty());
    Ok(std::env::join_paths(folders.iter().cloned().chain(inherited))?)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    /// Otherwise the CPU would be measured in a device's name.
    #[test]
    fn a_device_needs_a_flavour_and_a_provider() {
        let cuda = || parse(r#"{"name": "CUDAExecutionProvider", "options": {"device_id": "1"}}"#).unwrap();
        assert_eq!(Device::new(Flavour::Cpu, None).unwrap(), None);
        assert!(Device::new(Flavour::Cpu, Some(cuda())).is_err());
        assert!(Device::new(Flavour::Plugin, None).is_err());
        let default = Device::new(Flavour::Cuda, None).unwrap().unwrap();
        assert_eq!(default.provider.name, "CUDAExecutionProvider");
        let chosen = Device::new(Flavour::Cuda, Some(cuda())).unwrap().unwrap();
        assert_eq!(chosen.provider, cuda());
        assert!(parse("CUDAExecutionProvider").unwrap_err().contains("as JSON"));
    }
}
