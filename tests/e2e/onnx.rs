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
    let node = [
        text(1, "x"),
        text(1, "c"),
        text(2, "y"),
        text(3, "add"),
        text(4, "Add"),
    ]
    .concat();
    let raw = constant.to_le_bytes().repeat(WIDTH as usize);
    let constant = [number(1, WIDTH), number(2, FLOAT), text(8, "c"), bytes(9, &raw)].concat();
    let graph = [
        bytes(1, &node),
        text(2, "adder"),
        bytes(5, &constant),
        bytes(11, &port("x")),
        bytes(12, &port("y")),
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
