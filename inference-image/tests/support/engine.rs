//! Engines without a model file.

use modelservice_server::engine::{Engine, EngineError, Port, Signature};
use modelservice_server::tensor::{DataType, Tensor};

/// Returns its inputs: the first as the first output, and so on.
pub(crate) struct Echo(pub(crate) Signature);

impl Engine for Echo {
    fn signature(&self) -> &Signature {
        &self.0
    }

    fn run(&mut self, inputs: &[Tensor], outputs: &[usize]) -> Result<Vec<Tensor>, EngineError> {
        Ok(outputs.iter().map(|&index| inputs[index].clone()).collect())
    }
}

/// The same inputs and outputs; a size of −1 is dynamic.
pub(crate) fn signature(ports: &[(&str, DataType, &[i64])]) -> Signature {
    let ports = ports
        .iter()
        .map(|&(name, datatype, shape)| Port::new(name, datatype, shape));
    let ports: Vec<Port> = ports.collect();
    Signature::new(ports.clone(), ports, 17)
}
