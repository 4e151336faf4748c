//! One ONNX Runtime session: its signature, and runs.

mod device;
mod memory;
mod retention;
mod strings;
mod value;

use crate::engine::division::Division;
use crate::engine::failure;
use crate::engine::interface::{Engine, EngineError, Place, Port, SharedSize, Signature};
use crate::process::{self, exit::Fatal, loss::DeviceLoss};
use crate::tensor::Tensor;
use device::Device;
use memory::Memory;
use modelservice_contract::ExitReason;
use ort::session::{OutputSelector, RunOptions, Session, SessionInputValue};
use ort::value::{Outlet, ValueType};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

pub(crate) use memory::Kept;

/// One ONNX Runtime session; `run` needs it exclusively, since the allocators of some execution providers
/// are not thread-safe.
pub struct OnnxEngine {
    session: Session,
    signature: Signature,
    /// What it keeps of the CPU's memory, if it computes there.
    memory: Option<Memory>,
    /// Its device, if it computes on one.
    device: Option<Device>,
}

impl OnnxEngine {
    /// Reads the signature; `unshaped` are the inputs and outputs for which the model's file gives no shape: ONNX
    /// Runtime reports them like single numbers.
    ///
    /// # Errors
    /// `ModelInvalid` for types that the protocol does not have.
    pub(super) fn new(
        session: Session,
        opset: i64,
        unshaped: &BTreeSet<String>,
        divisions: &[Division],
    ) -> Result<Self, Fatal> {
        let port = |outlet: &Outlet| port(outlet, unshaped);
        let ports = |outlets: &[Outlet]| outlets.iter().map(port).collect::<Result<Vec<Port>, Fatal>>();
        let inputs = ports(session.inputs())?;
        let types: Vec<_> = inputs
            .iter()
            .map(|port| (port.name.as_str(), port.datatype))
            .collect();
        let signature = Signature {
            divisions: divisions
                .iter()
                .filter_map(|division| division.of(&types))
                .collect(),
            outputs: ports(session.outputs())?,
            opset,
            shared: shared(session.inputs()),
            inputs,
        };
        Ok(Self {
            session,
            signature,
            memory: None,
            device: None,
        })
    }

    /// The same, with memory that is freed where it would add up. Runs of so many rows are usual.
    ///
    /// # Errors
    /// `RuntimeUnavailable` if ONNX Runtime does not show its memory.
    pub(super) fn with_memory(mut self, rows: u32, all: Kept) -> Result<Self, Fatal> {
        let memory = Memory::new(&self.session, &self.signature, rows, all);
        let refused = |error| {
            let message = format!("ONNX Runtime does not show its memory: {error}");
            Fatal::new(ExitReason::RuntimeUnavailable, message)
        };
        self.memory = Some(memory.map_err(refused)?);
        Ok(self)
    }

    /// The same, on a device that may be lost.
    pub(super) fn on_device(mut self, loss: DeviceLoss) -> Self {
        self.device = Some(Device::new(loss));
        self
    }

    fn run_once(&mut self, inputs: &[Tensor], outputs: &[usize]) -> Result<Vec<Tensor>, EngineError> {
        let Self {
            session,
            signature,
            memory,
            ..
        } = self;
        let is_other_size = memory.as_mut().is_some_and(|memory| memory.begin(inputs));
        let mut values: Vec<(&str, SessionInputValue<'_>)> = Vec::with_capacity(inputs.len());
        for (port, tensor) in signature.inputs.iter().zip(inputs) {
            values.push((&port.name, value::borrow(tensor)?));
        }
        let names = || outputs.iter().filter_map(|&index| signature.outputs.get(index));
        // Without a selection ONNX Runtime returns all outputs and needs no list of names.
        let options;
        let mut results = if outputs.len() == signature.outputs.len() {
            session.run(values)
        } else {
            let selector = names().fold(OutputSelector::no_default(), |selector, port| {
                selector.with(&port.name)
            });
            options = RunOptions::new()
                .map_err(|error| failure::explain(&error))?
                .with_outputs(selector);
            session.run_with_options(values, &options)
        }
        .map_err(|error| failure::explain(&error))?;
        let outputs = names().map(|port| {
            let result = results.remove(&port.name).ok_or_else(|| lost(&port.name))?;
            value::take(result)
        });
        let outputs: Vec<Tensor> = outputs.collect::<Result<_, _>>()?;
        drop(results);
        if let Some(memory) = memory
            && memory.end(&outputs, is_other_size)
        {
            memory.free(session, &signature.inputs);
            process::memory::trim();
        }
        Ok(outputs)
    }

    fn run_on(
        &mut self,
        device: &mut Device,
        inputs: &[Tensor],
        outputs: &[usize],
    ) -> Result<Vec<Tensor>, EngineError> {
        device.check()?;
        let result = self.run_once(inputs, outputs);
        if result.is_ok() {
            device.worked(inputs);
        }
        result.map_err(|error| device.failed(error, |proven| self.run_once(proven, outputs)))
    }
}

impl Engine for OnnxEngine {
    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn run(&mut self, inputs: &[Tensor], outputs: &[usize]) -> Result<Vec<Tensor>, EngineError> {
        let Some(mut device) = self.device.take() else {
            return self.run_once(inputs, outputs);
        };
        let result = self.run_on(&mut device, inputs, outputs);
        self.device = Some(device);
        result
    }

    fn holds_memory(&self) -> bool {
        self.memory.as_ref().is_some_and(Memory::is_held)
    }

    fn free_memory(&mut self) {
        if let Some(memory) = &mut self.memory {
            memory.let_go();
            memory.free(&mut self.session, &self.signature.inputs);
        }
    }
}

fn lost(name: &str) -> EngineError {
    EngineError::Failed(format!("ONNX Runtime returned no output {name:?}"))
}

/// The sizes that several dimensions of the inputs have in common, by the names that the model gives them.
fn shared(inputs: &[Outlet]) -> Arc<[SharedSize]> {
    let mut places: BTreeMap<&str, Vec<Place>> = BTreeMap::new();
    for (input, outlet) in inputs.iter().enumerate() {
        if let ValueType::Tensor {
            dimension_symbols, ..
        } = outlet.dtype()
        {
            for (axis, name) in dimension_symbols.iter().enumerate() {
                let name_of_input = outlet.name().to_owned();
                places.entry(name).or_default().push(Place {
                    input,
                    name: name_of_input,
                    axis,
                });
            }
        }
    }
    places.retain(|name, places| is_identifier(name) && places.len() > 1);
    let size = |(name, places): (&str, Vec<Place>)| SharedSize {
        name: name.to_owned(),
        places,
    };
    places.into_iter().map(size).collect()
}

/// Whether this is the name of a size, which must be a C90 identifier according to ONNX's specification. Some
/// exporters write `?` or a number for every size that they do not know.
fn is_identifier(name: &str) -> bool {
    let is_word = |character: char| character.is_ascii_alphanumeric() || character == '_';
    name.chars().all(is_word) && name.starts_with(|first: char| !first.is_ascii_digit())
}

fn port(outlet: &Outlet, unshaped: &BTreeSet<String>) -> Result<Port, Fatal> {
    let refused = || {
        let message = format!(
            "{:?} of the model is {}, which this server does not support: use tensors of BOOL, (U)INT8–64, \
             FP16–64, BF16 or strings",
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
        any_rank: shape.is_empty() && unshaped.contains(outlet.name()),
    })
}
