//! The few fields of an ONNX file that are needed beside what ONNX Runtime tells: who made it, and where its
//! weights are. Field numbers are those of onnx.proto (<https://github.com/onnx/onnx/blob/main/onnx/onnx.proto>);
//! what is not named here is skipped without a copy.

use prost::Message;

/// `ModelProto`.
#[derive(Clone, PartialEq, Message)]
pub(super) struct Model {
    #[prost(string, tag = "2")]
    pub(super) producer_name: String,
    #[prost(string, tag = "3")]
    pub(super) producer_version: String,
    #[prost(int64, tag = "5")]
    pub(super) model_version: i64,
    #[prost(string, tag = "6")]
    pub(super) description: String,
    #[prost(message, optional, tag = "7")]
    pub(super) graph: Option<Graph>,
    #[prost(message, repeated, tag = "8")]
    pub(super) opsets: Vec<Opset>,
    #[prost(message, repeated, tag = "14")]
    pub(super) metadata: Vec<Entry>,
}

/// `OperatorSetIdProto`.
#[derive(Clone, PartialEq, Message)]
pub(super) struct Opset {
    #[prost(string, tag = "1")]
    pub(super) domain: String,
    #[prost(int64, tag = "2")]
    pub(super) version: i64,
}

/// `GraphProto`.
#[derive(Clone, PartialEq, Message)]
pub(super) struct Graph {
    #[prost(message, repeated, tag = "1")]
    nodes: Vec<Node>,
    #[prost(message, repeated, tag = "5")]
    pub(super) initializers: Vec<Initializer>,
}

/// `NodeProto`.
#[derive(Clone, PartialEq, Message)]
pub(super) struct Node {
    #[prost(message, repeated, tag = "5")]
    attributes: Vec<Attribute>,
}

/// `AttributeProto`: constants and the bodies of conditions and loops may have external data too.
#[derive(Clone, PartialEq, Message)]
pub(super) struct Attribute {
    #[prost(message, optional, tag = "5")]
    tensor: Option<Initializer>,
    #[prost(message, optional, tag = "6")]
    graph: Option<Graph>,
}

/// `TensorProto`.
#[derive(Clone, PartialEq, Message)]
pub(super) struct Initializer {
    #[prost(int64, repeated, tag = "1")]
    pub(super) dims: Vec<i64>,
    #[prost(int32, tag = "2")]
    pub(super) data_type: i32,
    #[prost(string, tag = "8")]
    pub(super) name: String,
    #[prost(message, repeated, tag = "13")]
    external: Vec<Entry>,
}

/// `StringStringEntryProto`.
#[derive(Clone, PartialEq, Message)]
pub(super) struct Entry {
    #[prost(string, tag = "1")]
    pub(super) key: String,
    #[prost(string, tag = "2")]
    pub(super) value: String,
}

impl Model {
    /// Version of the default operator set; 0 if the file names none.
    pub(super) fn opset(&self) -> i64 {
        let default = |opset: &&Opset| matches!(opset.domain.as_str(), "" | "ai.onnx");
        self.opsets.iter().find(default).map_or(0, |opset| opset.version)
    }

    /// Files with weights, relative to the model's; each once.
    pub(super) fn external_files(&self) -> Vec<&str> {
        let mut files: Vec<&str> = self.graph.iter().flat_map(Graph::external_files).collect();
        files.sort_unstable();
        files.dedup();
        files
    }
}

impl Graph {
    fn external_files(&self) -> Vec<&str> {
        let attributes = || self.nodes.iter().flat_map(|node| &node.attributes);
        let constants = attributes().filter_map(|attribute| attribute.tensor.as_ref());
        let own = self
            .initializers
            .iter()
            .chain(constants)
            .filter_map(Initializer::file);
        let inner = attributes().filter_map(|attribute| attribute.graph.as_ref());
        own.chain(inner.flat_map(Self::external_files)).collect()
    }
}

impl Initializer {
    /// File in which its elements are; `None` if they are in the model's own.
    pub(super) fn file(&self) -> Option<&str> {
        self.external("location")
    }

    /// Where its elements are in the file.
    pub(super) fn range(&self) -> Option<std::ops::Range<usize>> {
        let number = |key| self.external(key)?.parse::<usize>().ok();
        let start = number("offset").unwrap_or(0);
        Some(start..start.checked_add(number("length")?)?)
    }

    fn external(&self, key: &str) -> Option<&str> {
        let entry = self.external.iter().find(|entry| entry.key == key)?;
        Some(&entry.value)
    }
}
