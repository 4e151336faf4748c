//! ONNX models made by tests; field numbers are those of onnx.proto
//! (<https://github.com/onnx/onnx/blob/main/onnx/onnx.proto>).

use prost::Message;

/// Element types, as ONNX numbers them.
pub(crate) const FLOAT: i32 = 1;
pub(crate) const INT8: i32 = 3;
pub(crate) const INT32: i32 = 6;
pub(crate) const INT64: i32 = 7;
pub(crate) const STRING: i32 = 8;
pub(crate) const BOOL: i32 = 9;
pub(crate) const FLOAT16: i32 = 10;

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

#[derive(Clone, PartialEq, Message)]
pub(crate) struct Graph {
    #[prost(message, repeated, tag = "1")]
    pub(crate) nodes: Vec<Node>,
    #[prost(string, tag = "2")]
    pub(crate) name: String,
    #[prost(message, repeated, tag = "5")]
    pub(crate) initializers: Vec<Tensor>,
    #[prost(message, repeated, tag = "11")]
    pub(crate) inputs: Vec<Port>,
    #[prost(message, repeated, tag = "12")]
    pub(crate) outputs: Vec<Port>,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct Node {
    #[prost(string, repeated, tag = "1")]
    inputs: Vec<String>,
    #[prost(string, repeated, tag = "2")]
    outputs: Vec<String>,
    #[prost(string, tag = "4")]
    operator: String,
    #[prost(message, repeated, tag = "5")]
    attributes: Vec<Attribute>,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct Attribute {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(int64, optional, tag = "3")]
    int: Option<i64>,
    #[prost(message, optional, tag = "5")]
    tensor: Option<Tensor>,
    #[prost(message, optional, tag = "6")]
    graph: Option<Graph>,
    #[prost(int64, repeated, tag = "8")]
    ints: Vec<i64>,
    #[prost(int32, tag = "20")]
    kind: i32,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct Tensor {
    #[prost(int64, repeated, tag = "1")]
    dims: Vec<i64>,
    #[prost(int32, tag = "2")]
    data_type: i32,
    #[prost(string, tag = "8")]
    name: String,
    #[prost(bytes = "vec", repeated, tag = "6")]
    strings: Vec<Vec<u8>>,
    #[prost(bytes = "vec", tag = "9")]
    raw: Vec<u8>,
    #[prost(message, repeated, tag = "13")]
    external: Vec<Entry>,
    #[prost(int32, tag = "14")]
    location: i32,
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
pub(crate) struct Port {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(message, optional, tag = "2")]
    r#type: Option<Type>,
}

#[derive(Clone, PartialEq, Message)]
struct Type {
    #[prost(message, optional, tag = "1")]
    tensor: Option<TensorType>,
}

#[derive(Clone, PartialEq, Message)]
struct TensorType {
    #[prost(int32, tag = "1")]
    element: i32,
    #[prost(message, optional, tag = "2")]
    shape: Option<Shape>,
}

#[derive(Clone, PartialEq, Message)]
struct Shape {
    #[prost(message, repeated, tag = "1")]
    dims: Vec<Dimension>,
}

#[derive(Clone, PartialEq, Message)]
struct Dimension {
    #[prost(int64, optional, tag = "1")]
    value: Option<i64>,
    #[prost(string, optional, tag = "2")]
    symbol: Option<String>,
}

/// An input or output; a size of −1 is dynamic.
pub(crate) fn port(name: impl Into<String>, element: i32, shape: &[i64]) -> Port {
    let dimension = |&size: &i64| Dimension {
        value: (size >= 0).then_some(size),
        symbol: (size < 0).then(|| "any".to_owned()),
    };
    let shape = Shape {
        dims: shape.iter().map(dimension).collect(),
    };
    let tensor = TensorType {
        element,
        shape: Some(shape),
    };
    Port {
        name: name.into(),
        r#type: Some(Type { tensor: Some(tensor) }),
    }
}

/// An input or output without a shape.
pub(crate) fn unshaped(name: &str, element: i32) -> Port {
    let tensor = TensorType { element, shape: None };
    Port {
        name: name.into(),
        r#type: Some(Type { tensor: Some(tensor) }),
    }
}

pub(crate) fn node(operator: &str, inputs: &[&str], outputs: &[&str]) -> Node {
    let names = |names: &[&str]| names.iter().map(|&name| name.to_owned()).collect();
    Node {
        inputs: names(inputs),
        outputs: names(outputs),
        operator: operator.into(),
        attributes: Vec::new(),
    }
}

impl Node {
    pub(crate) fn int(mut self, name: &str, value: i64) -> Self {
        self.attributes.push(Attribute {
            name: name.into(),
            int: Some(value),
            kind: 2,
            ..Attribute::default()
        });
        self
    }

    pub(crate) fn ints(mut self, name: &str, values: &[i64]) -> Self {
        self.attributes.push(Attribute {
            name: name.into(),
            ints: values.to_vec(),
            kind: 7,
            ..Attribute::default()
        });
        self
    }

    pub(crate) fn with_tensor(mut self, name: &str, value: Tensor) -> Self {
        self.attributes.push(Attribute {
            name: name.into(),
            tensor: Some(value),
            kind: 4,
            ..Attribute::default()
        });
        self
    }

    pub(crate) fn with_graph(mut self, name: &str, value: Graph) -> Self {
        self.attributes.push(Attribute {
            name: name.into(),
            graph: Some(value),
            kind: 5,
            ..Attribute::default()
        });
        self
    }
}

/// A constant; the elements little-endian.
pub(crate) fn tensor(name: &str, data_type: i32, dims: &[i64], raw: &[u8]) -> Tensor {
    Tensor {
        dims: dims.to_vec(),
        data_type,
        name: name.into(),
        raw: raw.to_vec(),
        ..Tensor::default()
    }
}

/// A constant of texts, which ONNX does not require to be UTF-8.
pub(crate) fn texts(name: &str, texts: &[&[u8]]) -> Tensor {
    Tensor {
        strings: texts.iter().map(|text| text.to_vec()).collect(),
        ..tensor(name, STRING, &[i64::try_from(texts.len()).unwrap()], &[])
    }
}

/// A constant whose elements are in a file.
pub(crate) fn external(name: &str, data_type: i32, dims: &[i64], file: &str) -> Tensor {
    Tensor {
        external: vec![Entry {
            key: "location".into(),
            value: file.into(),
        }],
        location: 1,
        ..tensor(name, data_type, dims, &[])
    }
}

pub(crate) fn model(graph: Graph) -> Model {
    Model {
        ir_version: 8,
        graph: Some(graph),
        opsets: vec![Opset { version: 17 }],
        ..Model::default()
    }
}

/// `y = x · w`, with a dynamic batch of rows of `width` numbers and a seeded square matrix; also returns the bytes of
/// the matrix. With `file`, the matrix is in the file of that name instead of the model.
pub(crate) fn matmul(width: i64, file: Option<&str>) -> (Vec<u8>, Vec<u8>) {
    let values = (0..width * width).map(|index| ((index * 7919) % 1009) as f32 / 1009.0 - 0.5);
    let bytes: Vec<u8> = values.flat_map(f32::to_le_bytes).collect();
    let dims = [width, width];
    let weight = match file {
        Some(file) => external("w", FLOAT, &dims, file),
        None => tensor("w", FLOAT, &dims, &bytes),
    };
    let graph = Graph {
        nodes: vec![node("MatMul", &["x", "w"], &["y"])],
        name: "matmul".into(),
        initializers: vec![weight],
        inputs: vec![port("x", FLOAT, &[-1, width])],
        outputs: vec![port("y", FLOAT, &[-1, width])],
    };
    (model(graph).encode_to_vec(), bytes)
}

/// `y = x · w` if the sum of `x` is above 0, and otherwise `x`; for one row of `width` numbers. The matrix is in the
/// branch, and its elements in a file.
pub(crate) fn conditional(width: i64, file: &str) -> Vec<u8> {
    let y = |name: &str| port(name, FLOAT, &[1, width]);
    let matmul = Graph {
        nodes: vec![node("MatMul", &["x", "w"], &["product"])],
        name: "then".into(),
        initializers: vec![external("w", FLOAT, &[width, width], file)],
        outputs: vec![y("product")],
        ..Graph::default()
    };
    let same = Graph {
        nodes: vec![node("Identity", &["x"], &["same"])],
        name: "else".into(),
        outputs: vec![y("same")],
        ..Graph::default()
    };
    let branch = node("If", &["positive"], &["y"]).with_graph("then_branch", matmul);
    model(Graph {
        nodes: vec![
            node("ReduceSum", &["x"], &["sum"]).int("keepdims", 0),
            node("Greater", &["sum", "zero"], &["positive"]),
            branch.with_graph("else_branch", same),
        ],
        name: "conditional".into(),
        initializers: vec![tensor("zero", FLOAT, &[], &0_f32.to_le_bytes())],
        inputs: vec![y("x")],
        outputs: vec![y("y")],
    })
    .encode_to_vec()
}

/// A model whose outputs are its inputs, with " out" appended to their names: names, element types and shapes.
pub(crate) fn identity(ports: &[(&str, i32, &[i64])]) -> Model {
    let out = |name: &str| format!("{name} out");
    let node = |&(name, ..): &(&str, i32, &[i64])| node("Identity", &[name], &[&out(name)]);
    let inputs = ports.iter().map(|&(name, kind, shape)| port(name, kind, shape));
    let outputs = ports
        .iter()
        .map(|&(name, kind, shape)| port(out(name), kind, shape));
    model(Graph {
        nodes: ports.iter().map(node).collect(),
        name: "identity".into(),
        initializers: Vec::new(),
        inputs: inputs.collect(),
        outputs: outputs.collect(),
    })
}

/// One integer.
pub(crate) fn number(name: &str, number: i64) -> Tensor {
    Tensor {
        dims: Vec::new(),
        ..list(name, &[number])
    }
}

/// A list of integers.
pub(crate) fn list(name: &str, numbers: &[i64]) -> Tensor {
    Tensor {
        dims: vec![i64::try_from(numbers.len()).unwrap()],
        data_type: INT64,
        name: name.to_owned(),
        raw: numbers.iter().flat_map(|number| number.to_le_bytes()).collect(),
        ..Tensor::default()
    }
}

/// Seeded numbers from -1 to 1, as FLOAT or INT8.
pub(crate) fn weights(name: &str, data_type: i32, dims: &[i64]) -> Tensor {
    let count: i64 = dims.iter().product();
    let values = (0..count).map(|index| ((index * 7919 + 3) % 1009) as f32 / 504.5 - 1.0);
    let raw = if data_type == FLOAT {
        values.flat_map(f32::to_le_bytes).collect()
    } else {
        values
            .flat_map(|value| ((value * 127.0) as i8).to_le_bytes())
            .collect()
    };
    Tensor {
        dims: dims.to_vec(),
        data_type,
        raw,
        ..list(name, &[])
    }
}

/// A model from `x` to `y`, of the same type, with rows of this many numbers.
pub(crate) fn rows(data_type: i32, widths: [i64; 2], nodes: Vec<Node>, initializers: Vec<Tensor>) -> Vec<u8> {
    let graph = Graph {
        nodes,
        name: "rows".into(),
        initializers,
        inputs: vec![port("x", data_type, &[-1, widths[0]])],
        outputs: vec![port("y", data_type, &[-1, widths[1]])],
    };
    model(graph).encode_to_vec()
}
