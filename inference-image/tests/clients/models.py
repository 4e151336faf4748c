"""Makes the clients' models: an identity for each tensor type, and `arithmetic` with two inputs and outputs."""

import sys
from pathlib import Path

import onnx
from onnx import TensorProto, helper

TYPES = {
    "BOOL": TensorProto.BOOL,
    "UINT8": TensorProto.UINT8,
    "UINT16": TensorProto.UINT16,
    "UINT32": TensorProto.UINT32,
    "UINT64": TensorProto.UINT64,
    "INT8": TensorProto.INT8,
    "INT16": TensorProto.INT16,
    "INT32": TensorProto.INT32,
    "INT64": TensorProto.INT64,
    "FP16": TensorProto.FLOAT16,
    "BF16": TensorProto.BFLOAT16,
    "FP32": TensorProto.FLOAT,
    "FP64": TensorProto.DOUBLE,
    "BYTES": TensorProto.STRING,
}


def save(target, name, nodes, inputs, outputs):
    graph = helper.make_graph(nodes, name, inputs, outputs)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    folder = target / name
    folder.mkdir(parents=True)
    onnx.save(model, folder / "model.onnx")


def main():
    target = Path(sys.argv[1])
    for name, number in TYPES.items():
        x, y = (helper.make_tensor_value_info(port, number, ["n", "m"]) for port in ("x", "y"))
        save(target, f"identity-{name.lower()}", [helper.make_node("Identity", ["x"], ["y"])], [x], [y])
    ports = {
        port: helper.make_tensor_value_info(port, TensorProto.FLOAT, ["n", 3])
        for port in ("a", "b", "difference", "product")
    }
    nodes = [helper.make_node("Sub", ["a", "b"], ["difference"]), helper.make_node("Mul", ["a", "b"], ["product"])]
    save(target, "arithmetic", nodes, [ports["a"], ports["b"]], [ports["difference"], ports["product"]])


main()
