//! Tiny ONNX models, written byte by byte: `y = x + c` for four numbers. Two of them with different
//! constants answer differently, so that a test sees which one answered.
//!
//! The encoding is protobuf's (<https://protobuf.dev/programming-guides/encoding>), the field numbers are
//! those of `onnx.proto3` (<https://github.com/onnx/onnx/blob/main/onnx/onnx.proto3>).

/// An operator set that every ONNX Runtime of the last few years supports.
pub(crate) const OPSET: u64 = 17;
/// How many numbers go in and come out.
const WIDTH: u64 = 4;
const FLOAT: u64 = 1;

/// A model that adds `constant` to each of four numbers, for operator set `opset`.
pub(crate) fn adder(constant: f32, opset: u64) -> Vec<u8> {
    let raw = constant.to_le_bytes().repeat(WIDTH as usize);
    let constant = [number(1, WIDTH), number(2, FLOAT), text(8, "c"), bytes(9, &raw)].concat();
    model(&[node("Add", &["x", "c"], "y")], &bytes(5, &constant), opset)
}

/// `y = relu(x) + x`, in two nodes.
pub(crate) fn two_nodes() -> Vec<u8> {
    let nodes = [node("Relu", &["x"], "a"), node("Add", &["a", "x"], "y")];
    model(&nodes, &[], OPSET)
}

fn model(nodes: &[Vec<u8>], initializers: &[u8], opset: u64) -> Vec<u8> {
    let nodes: Vec<_> = nodes.iter().flat_map(|node| bytes(1, node)).collect();
    let graph = [
        nodes.as_slice(),
        &text(2, "graph"),
        initializers,
        &bytes(11, &port("x")),
        &bytes(12, &port("y")),
    ]
    .concat();
    [
        number(1, 8),
        text(2, "modelservice-e2e"),
        bytes(7, &graph),
        bytes(8, &number(2, opset)),
    ]
    .concat()
}

/// `NodeProto`.
fn node(operator: &str, inputs: &[&str], output: &str) -> Vec<u8> {
    let inputs = inputs.iter().flat_map(|input| text(1, input));
    inputs
        .chain(text(2, output))
        .chain(text(3, output))
        .chain(text(4, operator))
        .collect()
}

/// `ValueInfoProto`: a float tensor of shape [1, 4].
fn port(name: &str) -> Vec<u8> {
    let dimensions = [bytes(1, &number(1, 1)), bytes(1, &number(1, WIDTH))].concat();
    let tensor = [number(1, FLOAT), bytes(2, &dimensions)].concat();
    [text(1, name), bytes(2, &bytes(1, &tensor))].concat()
}

fn number(field: u64, value: u64) -> Vec<u8> {
    [varint(field << 3), varint(value)].concat()
}

fn text(field: u64, value: &str) -> Vec<u8> {
    bytes(field, value.as_bytes())
}

fn bytes(field: u64, value: &[u8]) -> Vec<u8> {
    [varint(field << 3 | 2), varint(value.len() as u64), value.to_vec()].concat()
}

fn varint(mut value: u64) -> Vec<u8> {
    let mut encoded = Vec::new();
    while value >= 0x80 {
        encoded.push(value as u8 | 0x80);
        value >>= 7;
    }
    encoded.push(value as u8);
    encoded
}
