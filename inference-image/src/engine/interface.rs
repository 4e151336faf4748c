//! What the rest of the server sees of an engine and of its model.

use super::division::Division;
use crate::tensor::{DataType, Tensor, element_count};
use modelservice_contract::TensorSpec;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Runs one model; the runner's thread owns it.
pub trait Engine: Send {
    /// The inputs and outputs.
    fn signature(&self) -> &Signature;

    /// Runs the model on one tensor per input, in the order of the signature, and returns the requested outputs, by
    /// index and in the requested order.
    ///
    /// # Errors
    /// When the engine rejects the inputs or fails.
    fn run(&mut self, inputs: &[Tensor], outputs: &[usize]) -> Result<Vec<Tensor>, EngineError>;

    /// Whether it keeps memory that its next run may not need.
    fn holds_memory(&self) -> bool {
        false
    }

    /// Frees that memory.
    fn free_memory(&mut self) {}
}

/// Why a run failed.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum EngineError {
    /// The inputs fit the signature but not the model; the client's fault.
    #[error("the model rejects these inputs: {0}")]
    Refused(String),
    /// There is not enough memory for these inputs; with the number of bytes that could not be allocated, if it is
    /// known.
    #[error("there is not enough memory for this run{}: send less at once, or give the server more \
        memory", wanted(*.0))]
    NoMemory(Option<u64>),
    /// The device does not even run inputs that it has run before; in the provider's words.
    #[error("the device is lost: {0}")]
    Lost(String),
    /// Anything else.
    #[error("inference failed: {0}")]
    Failed(String),
}

impl EngineError {
    /// What ONNX Runtime says.
    pub(crate) fn reason(&self) -> String {
        match self {
            Self::Refused(reason) | Self::Lost(reason) | Self::Failed(reason) => reason.clone(),
            Self::NoMemory(_) => self.to_string(),
        }
    }
}

fn wanted(bytes: Option<u64>) -> String {
    bytes.map_or_else(String::new, |bytes| {
        format!(", which needs {bytes} bytes at once")
    })
}

/// The model's inputs and outputs, in the model's order.
#[derive(Clone, Debug, PartialEq)]
pub struct Signature {
    /// Inputs.
    pub inputs: Vec<Port>,
    /// Outputs.
    pub outputs: Vec<Port>,
    /// Version of the default ONNX operator set.
    pub opset: i64,
    /// Sizes that several dimensions of the inputs have in common.
    pub shared: Arc<[SharedSize]>,
    /// Divisions of inputs that could end the process.
    pub divisions: Arc<[Division]>,
}

impl Signature {
    /// Of a model of which nothing else is known.
    #[must_use]
    pub fn new(inputs: Vec<Port>, outputs: Vec<Port>, opset: i64) -> Self {
        Self {
            inputs,
            outputs,
            opset,
            shared: [].into(),
            divisions: [].into(),
        }
    }
}

/// A size to which the model gives a name, and which several dimensions of its inputs have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SharedSize {
    /// Its name in the model.
    pub name: String,
    /// The dimensions, in the order of the inputs.
    pub places: Vec<Place>,
}

/// A dimension of an input.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// Index of the input.
    pub input: usize,
    /// Name of the input.
    pub name: String,
    /// Index of the dimension.
    pub axis: usize,
}

impl SharedSize {
    /// Checks that the inputs agree on the size, or have size 1, which operators repeat. ONNX Runtime does not check
    /// this: an operator may fail later, or none fails and the answer is meaningless. A name is ignored if one input
    /// uses it for different sizes: some exporters give every unknown size the same name.
    ///
    /// # Errors
    /// A sentence that says which two differ.
    pub fn check(&self, inputs: &[Tensor]) -> Result<(), String> {
        let size = |place: &Place| inputs.get(place.input)?.shape().get(place.axis).copied();
        let sizes: Vec<(&Place, i64)> = self
            .places
            .iter()
            .filter_map(|place| Some((place, size(place)?)))
            .collect();
        let is_vague = |(place, size): &(&Place, i64)| {
            let mut same_input = sizes.iter().filter(|(other, _)| other.input == place.input);
            same_input.any(|(_, other)| other != size)
        };
        if sizes.iter().any(is_vague) {
            return Ok(());
        }
        let mut large = sizes.iter().filter(|(_, size)| *size != 1);
        let Some((first, wanted)) = large.next() else {
            return Ok(());
        };
        let Some((other, different)) = large.find(|(_, size)| size != wanted) else {
            return Ok(());
        };
        let told =
            |place: &Place, size| format!("{size} in dimension {} of input {:?}", place.axis, place.name);
        Err(format!(
            "{:?} must be the same size everywhere, but it is {} and {}",
            self.name,
            told(first, wanted),
            told(other, different)
        ))
    }
}

/// What the file of a model says about itself.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Description {
    /// Version of the default ONNX operator set.
    pub opset: i64,
    /// Program that made the file, and its version.
    pub producer: Option<String>,
    /// Version of the model; 0 if the file has none.
    pub version: i64,
    /// A description for people.
    pub description: Option<String>,
    /// Further entries.
    pub metadata: BTreeMap<String, String>,
}

/// One input or output.
#[derive(Clone, Debug, PartialEq)]
pub struct Port {
    /// Name in the graph.
    pub name: String,
    /// Element type.
    pub datatype: DataType,
    /// Dimensions; −1 is any size.
    pub shape: Vec<i64>,
    /// The model says nothing about the shape, not even how many dimensions it has; then `shape` is empty.
    pub any_rank: bool,
}

impl Port {
    /// A port of a known number of dimensions.
    #[must_use]
    pub fn new(name: &str, datatype: DataType, shape: impl Into<Vec<i64>>) -> Self {
        Self {
            name: name.to_owned(),
            datatype,
            shape: shape.into(),
            any_rank: false,
        }
    }

    /// Checks a tensor's type and shape.
    ///
    /// # Errors
    /// A sentence that says what is expected and what was given.
    pub fn check(&self, datatype: DataType, shape: &[i64]) -> Result<(), String> {
        if datatype != self.datatype {
            return Err(format!(
                "input {:?} is {}, but the request says {}",
                self.name,
                self.datatype.name(),
                datatype.name()
            ));
        }
        // Some kernels of ONNX Runtime (LSTM, GRU and Einsum in 1.31) end the process if a size is 0 where the model
        // does not say so.
        let fits = |(&given, &wanted): (&i64, &i64)| given == wanted || (given > 0 && wanted < 0);
        let fits = if self.any_rank {
            shape.iter().all(|&given| given > 0)
        } else {
            shape.len() == self.shape.len() && shape.iter().zip(&self.shape).all(fits)
        };
        let size = datatype.size().unwrap_or(1);
        let is_countable = element_count(shape).is_some_and(|count| count.checked_mul(size).is_some());
        if fits && is_countable {
            return Ok(());
        }
        let wanted = if self.any_rank {
            "any shape with sizes from 1".to_owned()
        } else {
            format!("shape {:?} (-1 is any size from 1)", self.shape)
        };
        let name = &self.name;
        Err(if fits {
            format!("input {name:?} has {wanted}, but {shape:?} has more elements than any memory can hold")
        } else {
            format!("input {name:?} has {wanted}, but the request says {shape:?}")
        })
    }

    /// The shape that clients are told. The protocol cannot express "any number of dimensions": clients are told one
    /// dimension of any size, since `[]` would be a scalar.
    #[must_use]
    pub fn told_shape(&self) -> Vec<i64> {
        if self.any_rank {
            vec![-1]
        } else {
            self.shape.clone()
        }
    }

    /// The form that the contract defines.
    #[must_use]
    pub fn spec(&self) -> TensorSpec {
        TensorSpec {
            name: self.name.clone(),
            datatype: self.datatype.name().to_owned(),
            shape: self.told_shape(),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_dynamic_dimension_takes_any_size_and_a_fixed_one_only_its_own() {
        let port = Port::new("x", DataType::Fp32, vec![-1, 3]);
        assert!(port.check(DataType::Fp32, &[7, 3]).is_ok());
        for shape in [&[7, 4][..], &[7], &[7, 3, 1], &[0, 3], &[-1, 3], &[i64::MAX, 3]] {
            assert!(
                port.check(DataType::Fp32, shape).unwrap_err().contains("[-1, 3]"),
                "{shape:?}"
            );
        }
        for shape in [[i64::MAX, 3], [1 << 61, 3]] {
            let problem = port.check(DataType::Fp32, &shape).unwrap_err();
            assert!(problem.contains("more elements than any memory"), "{problem}");
        }
        assert!(port.check(DataType::Fp64, &[7, 3]).unwrap_err().contains("FP32"));
    }

    #[test]
    fn a_size_of_0_is_only_taken_where_the_model_says_so() {
        let port = |shape: &[i64], any_rank| Port {
            name: "x".into(),
            datatype: DataType::Fp32,
            shape: shape.into(),
            any_rank,
        };
        let takes = |port: &Port, shape: &[i64]| port.check(DataType::Fp32, shape).is_ok();
        assert!(takes(&port(&[-1, 0], false), &[3, 0]));
        assert!(!takes(&port(&[-1, 0], false), &[0, 0]) && !takes(&port(&[-1, 0], false), &[3, 1]));
        let any = port(&[], true);
        assert!(takes(&any, &[]) && takes(&any, &[1]) && takes(&any, &[2, 3, 4]));
        assert!(!takes(&any, &[0]) && !takes(&any, &[-1]) && !takes(&any, &[i64::MAX, 3]));
        assert_eq!(
            (any.told_shape(), port(&[], false).told_shape()),
            (vec![-1], vec![])
        );
    }

    /// Otherwise models whose exporter gives every unknown size the same name, and models that repeat a row, could
    /// not be used.
    #[test]
    fn inputs_must_agree_on_a_size_unless_its_name_says_nothing() {
        let place = |input: usize, axis| Place {
            input,
            name: ["x", "z"][input].to_owned(),
            axis,
        };
        let check = |places: Vec<Place>, shapes: [&[i64]; 2]| {
            let name = "n".to_owned();
            let tensors = shapes.map(|shape| Tensor::zeros(DataType::Fp32, shape.to_vec()).unwrap());
            SharedSize { name, places }.check(&tensors)
        };
        let rows = || vec![place(0, 0), place(1, 0)];
        assert_eq!(check(rows(), [&[3, 2], &[3, 4]]), Ok(()));
        assert_eq!(check(rows(), [&[3, 2], &[1, 4]]), Ok(()));
        let problem = check(rows(), [&[3, 2], &[4, 2]]).unwrap_err();
        assert_eq!(
            problem,
            "\"n\" must be the same size everywhere, but it is 3 in dimension 0 of input \"x\" and 4 in dimension 0 of input \"z\""
        );
        let all = vec![place(0, 0), place(0, 1), place(1, 0), place(1, 1)];
        assert_eq!(check(all.clone(), [&[3, 2], &[4, 2]]), Ok(()));
        assert!(check(all, [&[3, 3], &[4, 4]]).is_err());
    }
}
