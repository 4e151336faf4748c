//! The parts of an ONNX file from which it is told what an operator does with which tensor. Elements of tensors are
//! slices of the file, so that weights are not copied. Field numbers are those of onnx.proto
//! (<https://github.com/onnx/onnx/blob/main/onnx/onnx.proto>).

use super::size::Size;
use bytes::Bytes;
use prost::Message;

/// A tensor of more elements is no list of sizes or axes.
const FEW: usize = 64;

/// `TensorProto.DataType`.
pub(super) mod datatype {
    pub(crate) const FLOAT: i32 = 1;
    pub(crate) const INT32: i32 = 6;
    pub(crate) const INT64: i32 = 7;
    pub(crate) const BOOL: i32 = 9;
}

/// `ModelProto`.
#[derive(Clone, PartialEq, Message)]
pub(super) struct Model {
    #[prost(int64, tag = "1")]
    pub(super) ir_version: i64,
    #[prost(message, optional, tag = "7")]
    pub(super) graph: Option<Graph>,
    #[prost(message, repeated, tag = "8")]
    pub(super) opsets: Vec<Opset>,
    #[prost(message, repeated, tag = "25")]
    pub(super) functions: Vec<Function>,
}

/// `OperatorSetIdProto`.
#[derive(Clone, PartialEq, Message)]
pub(super) struct Opset {
    #[prost(string, tag = "1")]
    pub(super) domain: String,
    #[prost(int64, tag = "2")]
    pub(super) version: i64,
}

/// `FunctionProto`.
#[derive(Clone, PartialEq, Message)]
pub(super) struct Function {
    #[prost(string, tag = "1")]
    pub(super) name: String,
    #[prost(string, tag = "10")]
    pub(super) domain: String,
}

/// `GraphProto`.
#[derive(Clone, PartialEq, Message)]
pub(super) struct Graph {
    #[prost(message, repeated, tag = "1")]
    pub(super) nodes: Vec<Node>,
    #[prost(message, repeated, tag = "5")]
    pub(super) initializers: Vec<Tensor>,
    #[prost(message, repeated, tag = "11")]
    pub(super) inputs: Vec<Port>,
    #[prost(message, repeated, tag = "12")]
    pub(super) outputs: Vec<Port>,
}

/// `NodeProto`.
#[derive(Clone, PartialEq, Message)]
pub(super) struct Node {
    #[prost(string, repeated, tag = "1")]
    pub(super) inputs: Vec<String>,
    #[prost(string, repeated, tag = "2")]
    pub(super) outputs: Vec<String>,
    #[prost(string, tag = "3")]
    pub(super) name: String,
    #[prost(string, tag = "4")]
    pub(super) operator: String,
    #[prost(message, repeated, tag = "5")]
    pub(super) attributes: Vec<Attribute>,
    #[prost(string, tag = "7")]
    pub(super) domain: String,
}

/// `AttributeProto`.
#[derive(Clone, PartialEq, Message)]
pub(super) struct Attribute {
    #[prost(string, tag = "1")]
    pub(super) name: String,
    #[prost(float, tag = "2")]
    pub(super) float: f32,
    #[prost(int64, tag = "3")]
    pub(super) int: i64,
    #[prost(bytes = "bytes", tag = "4")]
    pub(super) text: Bytes,
    #[prost(message, optional, tag = "5")]
    pub(super) tensor: Option<Tensor>,
    #[prost(message, optional, tag = "6")]
    pub(super) graph: Option<Nested>,
    #[prost(float, repeated, tag = "7")]
    pub(super) floats: Vec<f32>,
    #[prost(int64, repeated, tag = "8")]
    pub(super) ints: Vec<i64>,
    #[prost(message, repeated, tag = "11")]
    pub(super) graphs: Vec<Nested>,
}

/// `GraphProto` of a loop or a condition, which is not looked into.
#[derive(Clone, PartialEq, Message)]
pub(super) struct Nested {}

/// `TensorProto`.
#[derive(Clone, PartialEq, Message)]
pub(super) struct Tensor {
    #[prost(int64, repeated, tag = "1")]
    pub(super) dims: Vec<i64>,
    #[prost(int32, tag = "2")]
    pub(super) data_type: i32,
    // Numbers here and below are packed: read as bytes, they need no copy.
    #[prost(bytes = "bytes", repeated, tag = "4")]
    pub(super) floats: Vec<Bytes>,
    #[prost(bytes = "bytes", repeated, tag = "5")]
    pub(super) int32s: Vec<Bytes>,
    #[prost(bytes = "bytes", repeated, tag = "7")]
    pub(super) int64s: Vec<Bytes>,
    #[prost(string, tag = "8")]
    pub(super) name: String,
    #[prost(bytes = "bytes", optional, tag = "9")]
    pub(super) raw: Option<Bytes>,
    #[prost(int32, tag = "14")]
    pub(super) location: i32,
}

/// `ValueInfoProto`.
#[derive(Clone, PartialEq, Message)]
pub(super) struct Port {
    #[prost(string, tag = "1")]
    pub(super) name: String,
    #[prost(message, optional, tag = "2")]
    pub(super) r#type: Option<Type>,
}

/// `TypeProto`.
#[derive(Clone, PartialEq, Message)]
pub(super) struct Type {
    #[prost(message, optional, tag = "1")]
    pub(super) tensor: Option<TensorType>,
}

/// `TypeProto.Tensor`.
#[derive(Clone, PartialEq, Message)]
pub(super) struct TensorType {
    #[prost(message, optional, tag = "2")]
    pub(super) shape: Option<Shape>,
}

/// `TensorShapeProto`.
#[derive(Clone, PartialEq, Message)]
pub(super) struct Shape {
    #[prost(message, repeated, tag = "1")]
    pub(super) dims: Vec<Dimension>,
}

/// `TensorShapeProto.Dimension`.
#[derive(Clone, PartialEq, Message)]
pub(super) struct Dimension {
    #[prost(int64, optional, tag = "1")]
    pub(super) value: Option<i64>,
}

impl Model {
    /// Version of the default operator set; 0 if the file names none.
    pub(super) fn opset(&self) -> i64 {
        let default = |opset: &&Opset| matches!(opset.domain.as_str(), "" | "ai.onnx");
        self.opsets.iter().find(default).map_or(0, |opset| opset.version)
    }
}

impl Node {
    /// The attribute of that name.
    pub(super) fn attribute(&self, name: &str) -> Option<&Attribute> {
        self.attributes.iter().find(|attribute| attribute.name == name)
    }

    /// Whether it runs a graph of its own, as loops and conditions do.
    pub(super) fn has_graph(&self) -> bool {
        let mut attributes = self.attributes.iter();
        attributes.any(|attribute| attribute.graph.is_some() || !attribute.graphs.is_empty())
    }
}

impl Port {
    /// Sizes of the dimensions, without a number where any is taken; `None` if the number of dimensions is not known.
    pub(super) fn dims(&self) -> Option<Vec<Option<i64>>> {
        let shape = self.r#type.as_ref()?.tensor.as_ref()?.shape.as_ref()?;
        let size = |dimension: &Dimension| dimension.value.filter(|&size| size >= 0);
        Some(shape.dims.iter().map(size).collect())
    }
}

impl Tensor {
    /// Its elements, if they are few integers.
    pub(super) fn ints(&self) -> Option<Vec<Size>> {
        let count = self.few()?;
        let ints: Vec<i64> = match (&self.raw, self.data_type) {
            (Some(raw), datatype::INT64) => fixed(raw, i64::from_le_bytes),
            (Some(raw), datatype::INT32) => fixed(raw, |four| i64::from(i32::from_le_bytes(four))),
            (Some(raw), datatype::BOOL) => fixed(raw, |[one]: [u8; 1]| i64::from(one)),
            (None, datatype::INT64) => varints(&self.int64s)?,
            (None, datatype::INT32 | datatype::BOOL) => varints(&self.int32s)?,
            _ => return None,
        };
        (ints.len() == count).then(|| ints.into_iter().map(Size::Fixed).collect())
    }

    /// Its elements, if they are few FP32 numbers.
    pub(super) fn floats(&self) -> Option<Vec<f32>> {
        let count = self.few().filter(|_| self.data_type == datatype::FLOAT)?;
        let floats: Vec<f32> = match &self.raw {
            Some(raw) => fixed(raw, f32::from_le_bytes),
            None => {
                let parts = self.floats.iter();
                parts.flat_map(|part| fixed(part, f32::from_le_bytes)).collect()
            }
        };
        (floats.len() == count).then_some(floats)
    }

    /// The number of elements, if they are few, and in this file.
    fn few(&self) -> Option<usize> {
        let count: i64 = self
            .dims
            .iter()
            .try_fold(1_i64, |count, &size| count.checked_mul(size))?;
        let count = usize::try_from(count).ok()?;
        (count <= FEW && self.location == 0).then_some(count)
    }
}

/// Numbers of a fixed width.
fn fixed<const WIDTH: usize, T>(bytes: &[u8], read: impl Fn([u8; WIDTH]) -> T) -> Vec<T> {
    let (chunks, _) = bytes.as_chunks::<WIDTH>();
    chunks.iter().map(|&chunk| read(chunk)).collect()
}

/// Numbers of a variable width; `None` if they break off.
fn varints(parts: &[Bytes]) -> Option<Vec<i64>> {
    let mut numbers = Vec::new();
    for part in parts {
        let mut left = &part[..];
        while !left.is_empty() {
            numbers.push(prost::encoding::decode_varint(&mut left).ok()?.cast_signed());
        }
    }
    Some(numbers)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn tensor(data_type: i32, dims: &[i64]) -> Tensor {
        Tensor {
            data_type,
            dims: dims.to_vec(),
            ..Tensor::default()
        }
    }

    #[test]
    fn few_integers_are_read_in_each_form_that_a_file_may_hold_them_in() {
        let expected = Some(vec![Size::Fixed(0), Size::Fixed(-1)]);
        let raw = |bytes: &[u8]| Some(Bytes::copy_from_slice(bytes));
        let minus_one: Vec<u8> = [vec![0], vec![0xFF; 9], vec![1]].concat();
        for form in [
            Tensor {
                raw: raw(&[[0; 8], [0xFF; 8]].concat()),
                ..tensor(datatype::INT64, &[2])
            },
            Tensor {
                raw: raw(&[[0; 4], [0xFF; 4]].concat()),
                ..tensor(datatype::INT32, &[2])
            },
            Tensor {
                int64s: vec![minus_one.clone().into()],
                ..tensor(datatype::INT64, &[2])
            },
            Tensor {
                int32s: vec![minus_one[..1].to_vec().into(), minus_one[1..].to_vec().into()],
                ..tensor(datatype::INT32, &[2])
            },
        ] {
            assert_eq!(form.ints(), expected, "{form:?}");
        }
    }

    #[test]
    fn what_is_not_all_there_is_not_read() {
        let whole = Tensor {
            raw: Some(vec![0; 16].into()),
            ..tensor(datatype::INT64, &[2])
        };
        assert!(whole.ints().is_some());
        let elsewhere = Tensor {
            location: 1,
            ..whole.clone()
        };
        let short = Tensor {
            dims: vec![3],
            ..whole.clone()
        };
        let negative = Tensor {
            dims: vec![-2],
            ..whole.clone()
        };
        let text = Tensor {
            data_type: 8,
            ..whole
        };
        let cut = Tensor {
            int64s: vec![vec![0, 0xFF].into()],
            ..tensor(datatype::INT64, &[2])
        };
        for tensor in [elsewhere, short, negative, text, cut] {
            assert_eq!(tensor.ints(), None, "{tensor:?}");
        }
    }

    #[test]
    fn many_elements_are_weights_and_not_looked_at() {
        let weights = Tensor {
            raw: Some(vec![0; 8 * 65].into()),
            ..tensor(datatype::INT64, &[65])
        };
        assert_eq!(weights.ints(), None);
    }
}
