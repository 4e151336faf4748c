//! The few fields of an ONNX file that are needed in addition to what ONNX Runtime reports: who made it, and where
//! its weights are. The names and field numbers are those of onnx.proto
//! (<https://github.com/onnx/onnx/blob/main/onnx/onnx.proto>); other fields are skipped without a copy.

use prost::Message;

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
}

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
    pub(crate) fn external_files(&self) -> Vec<&str> {
        let mut files: Vec<&str> = self.graph.iter().flat_map(GraphProto::external_files).collect();
        files.sort_unstable();
        files.dedup();
        files
    }
}

impl GraphProto {
    fn external_files(&self) -> Vec<&str> {
        let attributes = || self.nodes.iter().flat_map(|node| &node.attributes);
        let constants = attributes().filter_map(|attribute| attribute.tensor.as_ref());
        let own = self
            .initializers
            .iter()
            .chain(constants)
            .filter_map(TensorProto::file);
        let inner = attributes().filter_map(|attribute| attribute.graph.as_ref());
        own.chain(inner.flat_map(Self::external_files)).collect()
    }
}

impl TensorProto {
    /// The file that holds its elements; `None` if the model's own file does.
    pub(crate) fn file(&self) -> Option<&str> {
        self.external("location")
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
