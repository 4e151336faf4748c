//! Execution providers: whether this runtime has the one that is asked for, its device, and how sessions use it.

mod built_in;
mod plugin;

use crate::engine::logged;
use crate::process::exit::Fatal;
use built_in::{BuiltIn, Options};
use modelservice_contract::{Device, ExecutionProvider, ExitReason};
use ort::environment::Environment;
use ort::session::builder::SessionBuilder;

pub(super) use built_in::CPU;

/// The execution provider that sessions use.
pub struct Provider {
    name: String,
    options: Options,
    kind: Kind,
    device: Option<Device>,
    /// Version of its library, if it has its own.
    version: String,
    allow_cpu_percent: u32,
}

enum Kind {
    Cpu,
    BuiltIn(&'static BuiltIn),
    Plugin(plugin::Filter),
}

impl Provider {
    /// Finds the provider in this runtime.
    ///
    /// # Errors
    /// `AcceleratorUnavailable` if this runtime does not have the provider or its device, `ConfigInvalid` for options
    /// that it does not accept.
    pub fn find(environment: &Environment, wanted: &ExecutionProvider) -> Result<Self, Fatal> {
        let has_nul = |(key, value): (&String, &String)| key.contains('\0') || value.contains('\0');
        if wanted.options.iter().any(has_nul) {
            return Err(options_refused(wanted));
        }
        let kind = match &wanted.plugin {
            Some(plugin) => Kind::Plugin(plugin::register(environment, wanted, plugin)?),
            None if wanted.name == CPU => Kind::Cpu,
            None => Kind::BuiltIn(built_in::find(&wanted.name).ok_or_else(|| unavailable(&wanted.name))?),
        };
        if matches!(kind, Kind::Cpu) && !wanted.options.is_empty() {
            return Err(options_refused(wanted));
        }
        let (device, version) = device(environment, &kind, wanted);
        Ok(Self {
            name: wanted.name.clone(),
            options: options(wanted, &kind)?,
            kind,
            device,
            version,
            allow_cpu_percent: wanted.allow_cpu_percent,
        })
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    pub(super) const fn is_cpu(&self) -> bool {
        matches!(self.kind, Kind::Cpu)
    }

    /// The device that it drives, as far as it is known.
    pub(super) const fn device(&self) -> Option<&Device> {
        self.device.as_ref()
    }

    /// Share of a model's compute nodes that may run on the CPU instead.
    pub(super) const fn allow_cpu_percent(&self) -> u32 {
        self.allow_cpu_percent
    }

    /// What measurements with it depend on.
    pub(super) fn identity(&self) -> String {
        let Self {
            name,
            options,
            device,
            version,
            ..
        } = self;
        format!("{name} {version} {options:?} {device:?}")
    }

    /// Has sessions of this builder use it.
    ///
    /// # Errors
    /// `ConfigInvalid` if it names one of its options as the problem, otherwise `AcceleratorUnavailable`.
    pub fn register(
        &self,
        environment: &Environment,
        builder: SessionBuilder,
    ) -> Result<SessionBuilder, Fatal> {
        let registered = match &self.kind {
            Kind::Cpu => return Ok(builder),
            Kind::BuiltIn(built_in) => (built_in.register)(builder, &self.options),
            Kind::Plugin(filter) => {
                let prefixed =
                    |(key, value): (&String, &String)| (format!("{}.{key}", self.name), value.clone());
                let options: Vec<_> = self.options.iter().map(prefixed).collect();
                let device = filter.device(environment);
                builder.with_devices(device, Some(&options)).map_err(Into::into)
            }
        };
        registered.map_err(|error: ort::Error| self.refused(error.message()))
    }

    /// The provider's own problem, which keeps sessions from being created.
    pub(super) fn refused(&self, problem: &str) -> Fatal {
        let (name, problem) = (&self.name, logged::complete(problem));
        // ONNX Runtime has no code for it.
        match self.options.keys().find(|key| names(&problem, key)) {
            Some(option) => Fatal::new(
                ExitReason::ConfigInvalid,
                format!("{name} does not accept the option {option:?} as it is: {problem}"),
            ),
            None => Fatal::new(
                ExitReason::AcceleratorUnavailable,
                format!("{name} cannot be used: {problem}; is its device on this node?"),
            ),
        }
    }
}

/// Whether a message contains this word.
fn names(message: &str, word: &str) -> bool {
    let is_part = |character: char| character.is_alphanumeric() || character == '_';
    message.match_indices(word).any(|(start, _)| {
        let (before, after) = (&message[..start], &message[start + word.len()..]);
        !before.ends_with(is_part) && !after.starts_with(is_part)
    })
}

/// The options with the memory limit, for which each provider has its own name.
fn options(wanted: &ExecutionProvider, kind: &Kind) -> Result<Options, Fatal> {
    let mut options = wanted.options.clone();
    let Some(bytes) = wanted.memory_limit_bytes else {
        return Ok(options);
    };
    let option = match kind {
        Kind::BuiltIn(built_in) => built_in.memory_limit,
        Kind::Cpu | Kind::Plugin(_) => None,
    };
    let invalid = |problem: String| Err(Fatal::new(ExitReason::ConfigInvalid, problem));
    let Some(option) = option else {
        return invalid(format!(
            "executionProvider {} has no known option for memoryLimitBytes: remove it, or set what the provider itself \
             offers among its options",
            wanted.name
        ));
    };
    match options.insert(option.to_owned(), bytes.to_string()) {
        Some(_) => invalid(format!(
            "executionProvider {} has both memoryLimitBytes and the option {option}: remove one of them",
            wanted.name
        )),
        None => Ok(options),
    }
}

fn device(environment: &Environment, kind: &Kind, wanted: &ExecutionProvider) -> (Option<Device>, String) {
    let found = match kind {
        Kind::Cpu => return (None, String::new()),
        Kind::Plugin(filter) => filter.device(environment),
        // Newer libraries list the devices of their own providers too.
        Kind::BuiltIn(_) => environment
            .devices()
            .find(|device| device.ep().is_ok_and(|name| name == wanted.name)),
    };
    if let Some(device) = found {
        let (device, version) = plugin::describe(&device);
        return (Some(device), version);
    }
    // OpenVINO's name for what it was asked to use.
    let named = wanted.options.get("device_type").map(|name| Device {
        name: name.clone(),
        driver: None,
    });
    (named, String::new())
}

fn options_refused(provider: &ExecutionProvider) -> Fatal {
    let message = format!(
        "executionProvider {} does not accept the options {:?}",
        provider.name, provider.options
    );
    Fatal::new(ExitReason::ConfigInvalid, message)
}

fn unavailable(name: &str) -> Fatal {
    let mut available: Vec<&str> = built_in::available().collect();
    available.push(CPU);
    let message = format!(
        "this runtime has no execution provider {name}, only: {}; use a runtime image that has {name}, name its \
         library in plugin, or name one of these",
        available.join(", ")
    );
    Fatal::new(ExitReason::AcceleratorUnavailable, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A broken model would otherwise be blamed on the option `mode`.
    #[test]
    fn a_message_names_an_option_only_as_a_whole_word() {
        for (message, expected) in [
            ("Invalid OpenVINO EP option: mode", true),
            ("mode=\"x\" is not known", true),
            ("the model has no mode_size", false),
            ("the model's mode", true),
            ("", false),
        ] {
            assert_eq!(names(message, "mode"), expected, "{message}");
        }
    }

    #[test]
    fn a_memory_limit_becomes_the_providers_own_option() {
        let wanted = |name: &str, options: &[(&str, &str)]| ExecutionProvider {
            name: name.to_owned(),
            options: options
                .iter()
                .map(|&(key, value)| (key.to_owned(), value.to_owned()))
                .collect(),
            memory_limit_bytes: Some(1 << 30),
            ..ExecutionProvider::default()
        };
        for (name, option) in [
            ("CUDAExecutionProvider", "gpu_mem_limit"),
            ("MIGraphXExecutionProvider", "migraphx_mem_limit"),
            ("CANNExecutionProvider", "npu_mem_limit"),
        ] {
            let kind = || Kind::BuiltIn(built_in::known(name));
            let made = options(&wanted(name, &[("device_id", "1")]), &kind()).ok();
            let made = made.and_then(|options| options.get(option).cloned());
            assert_eq!(made.as_deref(), Some("1073741824"), "{name}");
            let twice = options(&wanted(name, &[(option, "5")]), &kind()).err();
            assert!(
                twice.is_some_and(|fatal| fatal.message.contains("remove one")),
                "{name}"
            );
        }
        let kind = Kind::BuiltIn(built_in::known("OpenVINOExecutionProvider"));
        assert!(options(&wanted("OpenVINOExecutionProvider", &[]), &kind).is_err());
    }
}
