//! ONNX models made by tests; field numbers are those of onnx.proto
//! (<https://github.com/onnx/onnx/blob/main/onnx/onnx.proto>).

use prost::Message;

/// Element types, as ONNX numbers them.
pub(crate) const FLOAT: i32 = 1;
pub(crate) const INT8: i32 = 3;
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
struct Graph {
    #[prost(message, repeated, tag = "1")]
    nodes: Vec<Node>,
    #[prost(string, tag = "2")]
    name: String,
    #[prost(message, repeated, tag = "5")]
    initializers: Vec<Tensor>,
    #[prost(message, repeated, tag = "11")]
    inputs: Vec<Port>,
    #[prost(message, repeated, tag = "12")]
    outputs: Vec<Port>,
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
struct Attribute {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(int64, tag = "3")]
    int: i64,
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
struct Port {
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
fn port(name: impl Into<String>, element: i32, shape: &[i64]) -> Port {
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

fn model(graph: Graph) -> Model {
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
    let entry = |key: &str, value: &str| Entry {
        key: key.into(),
        value: value.into(),
    };
    let weight = Tensor {
        dims: vec![width, width],
        data_type: FLOAT,
        name: "w".into(),
        raw: if file.is_some() { Vec::new() } else { bytes.clone() },
        external: file.map_or_else(Vec::new, |file| vec![entry("location", file)]),
        location: i32::from(file.is_some()),
    };
    let graph = Graph {
        nodes: vec![Node {
            inputs: vec!["x".into(), "w".into()],
            outputs: vec!["y".into()],
            operator: "MatMul".into(),
            attributes: Vec::new(),
        }],
        name: "matmul".into(),
        initializers: vec![weight],
        inputs: vec![port("x", FLOAT, &[-1, width])],
        outputs: vec![port("y", FLOAT, &[-1, width])],
    };
    (model(graph).encode_to_vec(), bytes)
}

/// A model whose outputs are its inputs, with " out" appended to their names: names, element types and shapes.
pub(crate) fn identity(ports: &[(&str, i32, &[i64])]) -> Model {
    let out = |name: &str| format!("{name} out");
    let node = |&(name, ..): &(&str, i32, &[i64])| Node {
        inputs: vec![name.to_owned()],
        outputs: vec![out(name)],
        operator: "Identity".into(),
        attributes: Vec::new(),
    };
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

/// A node.
pub(crate) fn node(operator: &str, inputs: &[&str], outputs: &[&str]) -> Node {
    let owned = |names: &[&str]| names.iter().map(|&name| name.to_owned()).collect();
    Node {
        inputs: owned(inputs),
        outputs: owned(outputs),
        operator: operator.to_owned(),
        attributes: Vec::new(),
    }
}

impl Node {
    /// The same with an integer.
    pub(crate) fn int(self, name: &str, int: i64) -> Self {
        self.attribute(name, int, &[], 2)
    }

    /// The same with several integers.
    pub(crate) fn ints(self, name: &str, ints: &[i64]) -> Self {
        self.attribute(name, 0, ints, 7)
    }

    fn attribute(mut self, name: &str, int: i64, ints: &[i64], kind: i32) -> Self {
        self.attributes.push(Attribute {
            name: name.to_owned(),
            int,
            ints: ints.to_vec(),
            kind,
        });
        self
    }
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
        external: Vec::new(),
        location: 0,
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

/// A model from `x` to `y`, of the same type, with rows of so many numbers.
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
