//! The messages. Field numbers are those of onnx.proto (<https://github.com/onnx/onnx/blob/main/onnx/onnx.proto>);
//! other fields are skipped.

use bytes::Bytes;
use prost::Message;

/// `ModelProto`.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct Model {
    #[prost(int64, tag = "1")]
    pub(crate) ir_version: i64,
    #[prost(bytes = "bytes", tag = "2")]
    pub(crate) producer_name: Bytes,
    #[prost(bytes = "bytes", tag = "3")]
    pub(crate) producer_version: Bytes,
    #[prost(int64, tag = "5")]
    pub(crate) model_version: i64,
    #[prost(bytes = "bytes", tag = "6")]
    pub(crate) description: Bytes,
    #[prost(message, optional, tag = "7")]
    pub(crate) graph: Option<Graph>,
    #[prost(message, repeated, tag = "8")]
    pub(crate) opsets: Vec<Opset>,
    #[prost(message, repeated, tag = "14")]
    pub(crate) metadata: Vec<Entry>,
    #[prost(message, repeated, tag = "25")]
    pub(crate) functions: Vec<Function>,
}

/// `OperatorSetIdProto`.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct Opset {
    #[prost(bytes = "bytes", tag = "1")]
    pub(crate) domain: Bytes,
    #[prost(int64, tag = "2")]
    pub(crate) version: i64,
}

/// `FunctionProto`.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct Function {
    #[prost(bytes = "bytes", tag = "1")]
    pub(crate) name: Bytes,
    #[prost(bytes = "bytes", repeated, tag = "4")]
    pub(crate) inputs: Vec<Bytes>,
    #[prost(bytes = "bytes", repeated, tag = "5")]
    pub(crate) outputs: Vec<Bytes>,
    #[prost(message, repeated, tag = "7")]
    pub(crate) nodes: Vec<Node>,
    #[prost(bytes = "bytes", tag = "10")]
    pub(crate) domain: Bytes,
    #[prost(message, repeated, tag = "11")]
    pub(crate) attributes: Vec<Attribute>,
}

/// `GraphProto`.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct Graph {
    #[prost(message, repeated, tag = "1")]
    pub(crate) nodes: Vec<Node>,
    #[prost(message, repeated, tag = "5")]
    pub(crate) initializers: Vec<Tensor>,
    #[prost(message, repeated, tag = "11")]
    pub(crate) inputs: Vec<Port>,
    #[prost(message, repeated, tag = "12")]
    pub(crate) outputs: Vec<Port>,
    #[prost(message, repeated, tag = "15")]
    pub(crate) sparse: Vec<SparseTensor>,
}

/// `NodeProto`.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct Node {
    #[prost(bytes = "bytes", repeated, tag = "1")]
    pub(crate) inputs: Vec<Bytes>,
    #[prost(bytes = "bytes", repeated, tag = "2")]
    pub(crate) outputs: Vec<Bytes>,
    #[prost(bytes = "bytes", tag = "3")]
    pub(crate) name: Bytes,
    #[prost(bytes = "bytes", tag = "4")]
    pub(crate) operator: Bytes,
    #[prost(message, repeated, tag = "5")]
    pub(crate) attributes: Vec<Attribute>,
    #[prost(bytes = "bytes", tag = "7")]
    pub(crate) domain: Bytes,
}

/// `AttributeProto`. Those of conditions and loops hold graphs.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct Attribute {
    #[prost(bytes = "bytes", tag = "1")]
    pub(crate) name: Bytes,
    #[prost(float, tag = "2")]
    pub(crate) float: f32,
    #[prost(int64, tag = "3")]
    pub(crate) int: i64,
    #[prost(bytes = "bytes", tag = "4")]
    pub(crate) text: Bytes,
    #[prost(message, optional, tag = "5")]
    pub(crate) tensor: Option<Tensor>,
    #[prost(message, optional, tag = "6")]
    pub(crate) graph: Option<Graph>,
    #[prost(float, repeated, tag = "7")]
    pub(crate) floats: Vec<f32>,
    #[prost(int64, repeated, tag = "8")]
    pub(crate) ints: Vec<i64>,
    #[prost(message, repeated, tag = "10")]
    pub(crate) tensors: Vec<Tensor>,
    #[prost(message, repeated, tag = "11")]
    pub(crate) graphs: Vec<Graph>,
    #[prost(message, optional, tag = "22")]
    pub(crate) sparse: Option<SparseTensor>,
    #[prost(message, repeated, tag = "23")]
    pub(crate) sparses: Vec<SparseTensor>,
}

/// `TensorProto`.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct Tensor {
    #[prost(int64, repeated, tag = "1")]
    pub(crate) dims: Vec<i64>,
    #[prost(int32, tag = "2")]
    pub(crate) data_type: i32,
    // Numbers here and below are packed: read as bytes, they need no copy.
    #[prost(bytes = "bytes", repeated, tag = "4")]
    pub(crate) floats: Vec<Bytes>,
    #[prost(bytes = "bytes", repeated, tag = "5")]
    pub(crate) int32s: Vec<Bytes>,
    #[prost(bytes = "bytes", repeated, tag = "7")]
    pub(crate) int64s: Vec<Bytes>,
    #[prost(bytes = "bytes", tag = "8")]
    pub(crate) name: Bytes,
    #[prost(bytes = "bytes", optional, tag = "9")]
    pub(crate) raw: Option<Bytes>,
    #[prost(message, repeated, tag = "13")]
    pub(crate) external: Vec<Entry>,
    #[prost(int32, tag = "14")]
    pub(crate) location: i32,
}

/// `SparseTensorProto`.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct SparseTensor {
    #[prost(message, optional, tag = "1")]
    pub(crate) values: Option<Tensor>,
    #[prost(message, optional, tag = "2")]
    pub(crate) indices: Option<Tensor>,
}

/// `StringStringEntryProto`.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct Entry {
    #[prost(bytes = "bytes", tag = "1")]
    pub(crate) key: Bytes,
    #[prost(bytes = "bytes", tag = "2")]
    pub(crate) value: Bytes,
}

/// `ValueInfoProto`.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct Port {
    #[prost(bytes = "bytes", tag = "1")]
    pub(crate) name: Bytes,
    #[prost(message, optional, tag = "2")]
    pub(crate) r#type: Option<Type>,
}

/// `TypeProto`.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct Type {
    #[prost(message, optional, tag = "1")]
    pub(crate) tensor: Option<TensorType>,
}

/// `TypeProto.Tensor`.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct TensorType {
    #[prost(message, optional, tag = "2")]
    pub(crate) shape: Option<Shape>,
}

/// `TensorShapeProto`.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct Shape {
    #[prost(message, repeated, tag = "1")]
    pub(crate) dims: Vec<Dimension>,
}

/// `TensorShapeProto.Dimension`.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct Dimension {
    #[prost(int64, optional, tag = "1")]
    pub(crate) value: Option<i64>,
}

/// Text of a file, for people.
pub(crate) fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

impl Model {
    /// Reads a file, of which it keeps slices.
    ///
    /// # Errors
    /// A sentence's end: "the model is not run in batches: …".
    pub(crate) fn read(file: Bytes) -> Result<Self, String> {
        Self::decode(file).map_err(|error| format!("its graph cannot be decoded: {error}"))
    }

    /// Version of the default operator set; 0 if the file names none.
    pub(crate) fn opset(&self) -> i64 {
        let default = |opset: &&Opset| matches!(&opset.domain[..], b"" | b"ai.onnx");
        self.opsets.iter().find(default).map_or(0, |opset| opset.version)
    }
}

impl Graph {
    /// Whether it leaves sizes of inputs or outputs open, besides the number of rows.
    pub(crate) fn has_any_size(&self) -> bool {
        let is_open = |dims: Vec<Option<i64>>| dims.iter().skip(1).any(Option::is_none);
        let mut ports = self.inputs.iter().chain(&self.outputs);
        ports.any(|port| port.dims().is_none_or(is_open))
    }
}

impl Node {
    /// Its operator; empty if that is no text, which no operator of ONNX is.
    pub(crate) fn operator(&self) -> &str {
        std::str::from_utf8(&self.operator).unwrap_or_default()
    }

    /// The attribute of that name.
    pub(crate) fn attribute(&self, name: &str) -> Option<&Attribute> {
        self.attributes.iter().find(|attribute| attribute.name == *name)
    }

    /// Whether it contains a graph, as loops and conditions do.
    pub(crate) fn has_graph(&self) -> bool {
        let mut attributes = self.attributes.iter();
        attributes.any(|attribute| attribute.graph.is_some() || !attribute.graphs.is_empty())
    }
}

impl Port {
    /// Its shape, where the file says one.
    pub(crate) fn shape(&self) -> Option<&Shape> {
        self.r#type.as_ref()?.tensor.as_ref()?.shape.as_ref()
    }

    /// Sizes of the dimensions, `None` for a dynamic one; `None` if the number of dimensions is not known.
    pub(crate) fn dims(&self) -> Option<Vec<Option<i64>>> {
        let size = |dimension: &Dimension| dimension.value.filter(|&size| size >= 0);
        Some(self.shape()?.dims.iter().map(size).collect())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    /// Exporters on Windows write names and descriptions in the code page of their country, and ONNX Runtime runs that.
    #[test]
    fn text_in_another_encoding_does_not_keep_a_model_from_being_read() {
        let odd = || Bytes::from_static(b"gr\xF6\xDFe");
        let node = Node {
            name: odd(),
            operator: odd(),
            ..Node::default()
        };
        let model = Model {
            description: odd(),
            graph: Some(Graph {
                nodes: vec![node],
                ..Graph::default()
            }),
            opsets: vec![Opset {
                version: 17,
                ..Opset::default()
            }],
            ..Model::default()
        };
        let read = Model::read(model.encode_to_vec().into()).unwrap();
        assert_eq!(read.opset(), 17);
        assert_eq!(text(&read.description), "gr\u{FFFD}\u{FFFD}e");
        assert_eq!(read.graph.unwrap().nodes[0].operator(), "");
    }

    /// Weights are most of a file, which may be 2 GiB large.
    #[test]
    fn elements_are_slices_of_the_file_in_each_form() {
        let elements = || Bytes::from(vec![7; 1000]);
        let tensor = Tensor {
            floats: vec![elements()],
            int32s: vec![elements()],
            int64s: vec![elements()],
            raw: Some(elements()),
            ..Tensor::default()
        };
        let graph = Graph {
            initializers: vec![tensor],
            ..Graph::default()
        };
        let model = Model {
            graph: Some(graph),
            ..Model::default()
        };
        let file = Bytes::from(model.encode_to_vec());
        let read = Model::read(file.clone()).unwrap().graph.unwrap();
        let tensor = &read.initializers[0];
        let slices = [&tensor.floats, &tensor.int32s, &tensor.int64s].map(|parts| &parts[0]);
        for slice in slices.into_iter().chain(&tensor.raw) {
            assert_eq!(slice.len(), 1000);
            assert!(file.as_ptr_range().contains(&slice.as_ptr()));
        }
    }
}
