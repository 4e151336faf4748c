//! ONNX files that hand on what they are given, for any types and whatever is written into them.
//! Field numbers are those of onnx.proto.

use prost::Message;

/// `ModelProto`.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct Model {
    #[prost(int64, tag = "1")]
    ir_version: i64,
    #[prost(string, tag = "2")]
    pub(crate) producer: String,
    #[prost(string, tag = "6")]
    pub(crate) description: String,
    #[prost(message, optional, tag = "7")]
    graph: Option<Graph>,
    #[prost(message, repeated, tag = "8")]
    opsets: Vec<Opset>,
    #[prost(message, repeated, tag = "14")]
    pub(crate) metadata: Vec<Entry>,
}

#[derive(Clone, PartialEq, Message)]
struct Opset {
    #[prost(int64, tag = "2")]
    version: i64,
}

/// `StringStringEntryProto`.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct Entry {
    #[prost(string, tag = "1")]
    pub(crate) key: String,
    #[prost(string, tag = "2")]
    pub(crate) value: String,
}

#[derive(Clone, PartialEq, Message)]
struct Graph {
    #[prost(message, repeated, tag = "1")]
    nodes: Vec<Node>,
    #[prost(string, tag = "2")]
    name: String,
    #[prost(message, repeated, tag = "11")]
    inputs: Vec<Value>,
    #[prost(message, repeated, tag = "12")]
    outputs: Vec<Value>,
}

#[derive(Clone, PartialEq, Message)]
struct Node {
    #[prost(string, repeated, tag = "1")]
    inputs: Vec<String>,
    #[prost(string, repeated, tag = "2")]
    outputs: Vec<String>,
    #[prost(string, tag = "4")]
    operator: String,
}

#[derive(Clone, PartialEq, Message)]
struct Value {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(message, optional, tag = "2")]
    kind: Option<Kind>,
}

#[derive(Clone, PartialEq, Message)]
struct Kind {
    #[prost(message, optional, tag = "1")]
    tensor: Option<Tensor>,
}

#[derive(Clone, PartialEq, Message)]
struct Tensor {
    #[prost(int32, tag = "1")]
    elements: i32,
    #[prost(message, optional, tag = "2")]
    shape: Option<Shape>,
}

#[derive(Clone, PartialEq, Message)]
struct Shape {
    #[prost(message, repeated, tag = "1")]
    dimensions: Vec<Dimension>,
}

#[derive(Clone, PartialEq, Message)]
struct Dimension {
    #[prost(int64, optional, tag = "1")]
    size: Option<i64>,
    #[prost(string, optional, tag = "2")]
    name: Option<String>,
}

/// Element types, as ONNX numbers them.
pub(crate) const FLOAT: i32 = 1;
pub(crate) const INT64: i32 = 7;
pub(crate) const STRING: i32 = 8;
pub(crate) const BOOL: i32 = 9;
pub(crate) const FLOAT16: i32 = 10;

/// A model whose outputs are its inputs: their names, element types and shapes; −1 is any size.
pub(crate) fn identity(ports: &[(&str, i32, &[i64])]) -> Model {
    let value = |name: String, elements: i32, shape: &[i64]| {
        let dimension = |&size: &i64| Dimension {
            size: (size >= 0).then_some(size),
            name: (size < 0).then(|| "any".to_owned()),
        };
        let shape = Shape {
            dimensions: shape.iter().map(dimension).collect(),
        };
        let tensor = Tensor {
            elements,
            shape: Some(shape),
        };
        Value {
            name,
            kind: Some(Kind { tensor: Some(tensor) }),
        }
    };
    let out = |name: &str| format!("{name} out");
    let graph = Graph {
        nodes: ports
            .iter()
            .map(|(name, ..)| Node {
                inputs: vec![(*name).to_owned()],
                outputs: vec![out(name)],
                operator: "Identity".to_owned(),
            })
            .collect(),
        name: "identity".to_owned(),
        inputs: ports
            .iter()
            .map(|&(name, kind, shape)| value(name.to_owned(), kind, shape))
            .collect(),
        outputs: ports
            .iter()
            .map(|&(name, kind, shape)| value(out(name), kind, shape))
            .collect(),
    };
    Model {
        ir_version: 8,
        graph: Some(graph),
        opsets: vec![Opset { version: 17 }],
        ..Model::default()
    }
}
