//! One ONNX Runtime session: its signature, and runs.

use super::interface::{Engine, EngineError, Port, Signature};
use super::value;
use crate::process::exit::Fatal;
use crate::tensor::Tensor;
use modelservice_contract::ExitReason;
use ort::session::{OutputSelector, RunOptions, Session, SessionInputValue};
use ort::value::{Outlet, ValueType};
use std::collections::BTreeSet;

/// One ONNX Runtime session; `run` needs it exclusively, since the allocators of some execution providers
/// are not thread-safe.
pub struct OnnxEngine {
    session: Session,
    signature: Signature,
}

impl OnnxEngine {
    /// Reads the signature; `unshaped` are the inputs and outputs that the model's file says no shape of, for which
    /// ONNX Runtime tells the same as for single numbers.
    ///
    /// # Errors
    /// `ModelInvalid` for types that the protocol does not have.
    pub(super) fn new(session: Session, opset: i64, unshaped: &BTreeSet<String>) -> Result<Self, Fatal> {
        let port = |outlet: &Outlet| port(outlet, unshaped);
        let ports = |outlets: &[Outlet]| outlets.iter().map(port).collect::<Result<Vec<Port>, Fatal>>();
        let signature = Signature {
            inputs: ports(session.inputs())?,
            outputs: ports(session.outputs())?,
            opset,
        };
        Ok(Self { session, signature })
    }
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
        // Without a selection ONNX Runtime returns all outputs and needs no list of names.
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

fn port(outlet: &Outlet, unshaped: &BTreeSet<String>) -> Result<Port, Fatal> {
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
        any_rank: shape.is_empty() && unshaped.contains(outlet.name()),
    })
}
