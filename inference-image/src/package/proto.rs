//! The few fields of an ONNX file that are needed in addition to what ONNX Runtime reports: who made it, and where
//! its weights are. The names and field numbers are those of onnx.proto
//! (<https://github.com/onnx/onnx/blob/main/onnx/onnx.proto>); other fields are skipped without a copy.

use prost::Message;
use std::collections::BTreeSet;

/// Key of the file's name in a tensor's external data.
const LOCATION: &str = "location";

#[derive(Clone, PartialEq, Message)]
pub(crate) struct ModelProto {
    #[prost(string, tag = "2")]
    pub(crate) producer_name: String,
    #[prost(string, tag = "3")]
    pub(crate) producer_version: String,
    #[prost(int64, tag = "5")]
    pub(crate) model_version: i64,
    #[prost(string, tag = "6")]
    pub(crate) description: String,
    #[prost(message, optional, tag = "7")]
    pub(crate) graph: Option<GraphProto>,
    #[prost(message, repeated, tag = "8")]
    pub(crate) opsets: Vec<OperatorSetIdProto>,
    #[prost(message, repeated, tag = "14")]
    pub(crate) metadata: Vec<StringStringEntryProto>,
    #[prost(message, repeated, tag = "25")]
    functions: Vec<FunctionProto>,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct FunctionProto {
    #[prost(message, repeated, tag = "7")]
    nodes: Vec<NodeProto>,
    #[prost(message, repeated, tag = "11")]
    attributes: Vec<AttributeProto>,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct OperatorSetIdProto {
    #[prost(string, tag = "1")]
    pub(crate) domain: String,
    #[prost(int64, tag = "2")]
    pub(crate) version: i64,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct GraphProto {
    #[prost(message, repeated, tag = "1")]
    nodes: Vec<NodeProto>,
    #[prost(message, repeated, tag = "5")]
    pub(crate) initializers: Vec<TensorProto>,
    #[prost(message, repeated, tag = "11")]
    inputs: Vec<ValueInfoProto>,
    #[prost(message, repeated, tag = "12")]
    outputs: Vec<ValueInfoProto>,
    #[prost(message, repeated, tag = "15")]
    sparse: Vec<SparseTensorProto>,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct ValueInfoProto {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(message, optional, tag = "2")]
    r#type: Option<TypeProto>,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct TypeProto {
    #[prost(message, optional, tag = "1")]
    tensor: Option<TensorTypeProto>,
}

/// `TypeProto.Tensor`.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct TensorTypeProto {
    #[prost(message, optional, tag = "2")]
    shape: Option<TensorShapeProto>,
}

/// Whether there is one; its dimensions are not needed.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct TensorShapeProto {}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct NodeProto {
    #[prost(message, repeated, tag = "5")]
    attributes: Vec<AttributeProto>,
}

/// Constants, and the bodies of conditions and loops, may have external data too.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct AttributeProto {
    #[prost(message, optional, tag = "5")]
    tensor: Option<TensorProto>,
    #[prost(message, optional, tag = "6")]
    graph: Option<GraphProto>,
    #[prost(message, repeated, tag = "10")]
    tensors: Vec<TensorProto>,
    #[prost(message, repeated, tag = "11")]
    graphs: Vec<GraphProto>,
    #[prost(message, optional, tag = "22")]
    sparse: Option<SparseTensorProto>,
    #[prost(message, repeated, tag = "23")]
    sparses: Vec<SparseTensorProto>,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct SparseTensorProto {
    #[prost(message, optional, tag = "1")]
    values: Option<TensorProto>,
    #[prost(message, optional, tag = "2")]
    indices: Option<TensorProto>,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct TensorProto {
    #[prost(int64, repeated, tag = "1")]
    pub(crate) dims: Vec<i64>,
    #[prost(int32, tag = "2")]
    pub(crate) data_type: i32,
    #[prost(string, tag = "8")]
    pub(crate) name: String,
    #[prost(message, repeated, tag = "13")]
    external: Vec<StringStringEntryProto>,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct StringStringEntryProto {
    #[prost(string, tag = "1")]
    pub(crate) key: String,
    #[prost(string, tag = "2")]
    pub(crate) value: String,
}

impl ModelProto {
    /// Version of the default operator set; 0 if the file names none.
    pub(crate) fn opset(&self) -> i64 {
        let default = |opset: &&OperatorSetIdProto| matches!(opset.domain.as_str(), "" | "ai.onnx");
        self.opsets.iter().find(default).map_or(0, |opset| opset.version)
    }

    /// Files with weights, relative to the model's file; each once.
    pub(crate) fn external_files(&self) -> BTreeSet<&str> {
        let mut files = self.inner_files();
        let graph = self.graph.iter();
        files.extend(graph.flat_map(|graph| graph.initializers.iter().flat_map(TensorProto::files)));
        files
    }

    /// Those of them that are named elsewhere than by an initialiser of the main graph: by constants, in the bodies of
    /// conditions and loops, or in functions.
    pub(crate) fn inner_files(&self) -> BTreeSet<&str> {
        let mut tensors = Vec::new();
        if let Some(graph) = &self.graph {
            graph.inner(&mut tensors);
        }
        for function in &self.functions {
            let attributes = function.nodes.iter().flat_map(|node| &node.attributes);
            attributes
                .chain(&function.attributes)
                .for_each(|attribute| attribute.tensors(&mut tensors));
        }
        tensors.into_iter().flat_map(TensorProto::files).collect()
    }
}

impl GraphProto {
    /// Names of its inputs and outputs that have no shape.
    pub(crate) fn unshaped(&self) -> impl Iterator<Item = String> {
        let has_shape = |value: &ValueInfoProto| {
            let tensor = value.r#type.as_ref().and_then(|kind| kind.tensor.as_ref());
            tensor.is_some_and(|tensor| tensor.shape.is_some())
        };
        let values = self.inputs.iter().chain(&self.outputs);
        values
            .filter(move |value| !has_shape(value))
            .map(|value| value.name.clone())
    }

    /// Its tensors, without its initialisers.
    fn inner<'a>(&'a self, tensors: &mut Vec<&'a TensorProto>) {
        self.sparse.iter().for_each(|sparse| sparse.tensors(tensors));
        let attributes = self.nodes.iter().flat_map(|node| &node.attributes);
        attributes.for_each(|attribute| attribute.tensors(tensors));
    }
}

impl AttributeProto {
    fn tensors<'a>(&'a self, tensors: &mut Vec<&'a TensorProto>) {
        tensors.extend(self.tensor.iter().chain(&self.tensors));
        let sparses = self.sparse.iter().chain(&self.sparses);
        sparses.for_each(|sparse| sparse.tensors(tensors));
        for graph in self.graph.iter().chain(&self.graphs) {
            tensors.extend(&graph.initializers);
            graph.inner(tensors);
        }
    }
}

impl SparseTensorProto {
    fn tensors<'a>(&'a self, tensors: &mut Vec<&'a TensorProto>) {
        tensors.extend(self.values.iter().chain(&self.indices));
    }
}

impl TensorProto {
    /// The file that holds its elements; `None` if the model's own file does.
    pub(crate) fn file(&self) -> Option<&str> {
        self.external(LOCATION)
    }

    /// All files that it names; which of several counts is up to ONNX Runtime.
    fn files(&self) -> impl Iterator<Item = &str> {
        let locations = self.external.iter().filter(|entry| entry.key == LOCATION);
        locations.map(|entry| entry.value.as_str())
    }

    /// Where its elements are in the file.
    pub(crate) fn range(&self) -> Option<std::ops::Range<usize>> {
        let number = |key| self.external(key)?.parse::<usize>().ok();
        let start = number("offset").unwrap_or(0);
        Some(start..start.checked_add(number("length")?)?)
    }

    fn external(&self, key: &str) -> Option<&str> {
        let entry = self.external.iter().find(|entry| entry.key == key)?;
        Some(&entry.value)
    }
}
