//! ONNX models made by tests; field numbers are those of onnx.proto
//! (<https://github.com/onnx/onnx/blob/main/onnx/onnx.proto>).

use prost::Message;

const FLOAT: i32 = 1;

#[derive(Clone, PartialEq, Message)]
struct Model {
    #[prost(int64, tag = "1")]
    ir_version: i64,
    #[prost(message, optional, tag = "7")]
    graph: Option<Graph>,
    #[prost(message, repeated, tag = "8")]
    opsets: Vec<Opset>,
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
struct Node {
    #[prost(string, repeated, tag = "1")]
    inputs: Vec<String>,
    #[prost(string, repeated, tag = "2")]
    outputs: Vec<String>,
    #[prost(string, tag = "4")]
    operator: String,
}

#[derive(Clone, PartialEq, Message)]
struct Tensor {
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

#[derive(Clone, PartialEq, Message)]
struct Entry {
    #[prost(string, tag = "1")]
    key: String,
    #[prost(string, tag = "2")]
    value: String,
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

/// `y = x · w`, with a dynamic batch of rows of `width` numbers and a seeded square matrix; also the bytes of
/// the matrix. With `file` the matrix is not in the model but in the file of that name.
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
    let port = |name: &str| {
        let batch = Dimension {
            value: None,
            symbol: Some("n".into()),
        };
        let row = Dimension {
            value: Some(width),
            symbol: None,
        };
        let tensor = TensorType {
            element: FLOAT,
            shape: Some(Shape {
                dims: vec![batch, row],
            }),
        };
        Port {
            name: name.into(),
            r#type: Some(Type { tensor: Some(tensor) }),
        }
    };
    let graph = Graph {
        nodes: vec![Node {
            inputs: vec!["x".into(), "w".into()],
            outputs: vec!["y".into()],
            operator: "MatMul".into(),
        }],
        name: "matmul".into(),
        initializers: vec![weight],
        inputs: vec![port("x")],
        outputs: vec![port("y")],
    };
    let model = Model {
        ir_version: 8,
        graph: Some(graph),
        opsets: vec![Opset { version: 17 }],
    };
    (model.encode_to_vec(), bytes)
}
