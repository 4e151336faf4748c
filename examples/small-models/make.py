#!/usr/bin/env python3
"""Makes two small model packages for tests: the same bytes on every machine.

`colors` tells whether an image is mostly red, green or blue: a kilobyte whose answers anyone can check, for
`helm test` and first steps. `tiny` is a small CNN with random weights from a fixed seed: its answers mean
nothing, but it has another input size, layout of labels and digest than the real model, so that a mix-up
between models is seen.
"""

import argparse
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

OPSET, IR_VERSION = 17, 8


def package(folder: Path, name: str, shape: list, nodes: list, constants: dict, labels: list[str], manifest: str) -> None:
    """Writes model.onnx, from `images` to `scores`, and model.yaml."""
    graph = helper.make_graph(
        nodes,
        name,
        [helper.make_tensor_value_info("images", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["batch", len(labels)])],
        [numpy_helper.from_array(np.asarray(values, np.float32), key) for key, values in constants.items()],
    )
    model = helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION, producer_name="make.py"
    )
    onnx.checker.check_model(model, full_check=True)
    folder.mkdir(parents=True, exist_ok=True)
    onnx.save(model, folder / "model.onnx")
    text = f"task: image-classification\nlabels: [{', '.join(labels)}]\n{manifest}"
    (folder / "model.yaml").write_text(text, encoding="utf-8")


def colors(folder: Path) -> None:
    """Logits are four times the channels' means, which lie between 0 and 1."""
    nodes = [
        helper.make_node("GlobalAveragePool", ["images"], ["means"], name="pool"),
        helper.make_node("Flatten", ["means"], ["flat"], name="flatten", axis=1),
        helper.make_node("Gemm", ["flat", "weight"], ["scores"], name="gemm"),
    ]
    manifest = (
        "preprocessing:\n  resize: {mode: stretch, width: 16, height: 16}\n  scale: 0.00392156862745098\n"
        "postprocessing: {activation: softmax, topK: 3}\n"
    )
    package(folder, "colors", ["batch", 3, 16, 16], nodes, {"weight": 4 * np.eye(3)}, ["red", "green", "blue"], manifest)


def tiny(folder: Path) -> None:
    """Two convolutions with stride 2 and a classifier of ten classes."""
    random = np.random.default_rng(7)

    # Whole numbers and powers of two: no rounding that could differ between machines.
    def weights(shape: tuple, step: float) -> np.ndarray:
        return random.integers(-64, 65, shape) * step

    constants = {
        "conv1.weight": weights((8, 3, 3, 3), 2.0**-7),
        "conv2.weight": weights((16, 8, 3, 3), 2.0**-8),
        "fc.weight": weights((16, 10), 2.0**-5),
    }
    stride = {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [1, 1, 1, 1]}
    nodes = [
        helper.make_node("Conv", ["images", "conv1.weight"], ["conv1"], name="conv1", **stride),
        helper.make_node("Relu", ["conv1"], ["relu1"], name="relu1"),
        helper.make_node("Conv", ["relu1", "conv2.weight"], ["conv2"], name="conv2", **stride),
        helper.make_node("Relu", ["conv2"], ["relu2"], name="relu2"),
        helper.make_node("GlobalAveragePool", ["relu2"], ["pool"], name="pool"),
        helper.make_node("Flatten", ["pool"], ["flat"], name="flatten", axis=1),
        helper.make_node("Gemm", ["flat", "fc.weight"], ["scores"], name="fc"),
    ]
    labels = [f"tiny-{index}" for index in range(10)]
    manifest = (
        "preprocessing:\n  resize: {mode: shortestEdge, size: 32}\n  crop: {width: 32, height: 32}\n"
        "  mean: [127.5]\n  std: [127.5]\npostprocessing: {activation: softmax}\n"
    )
    package(folder, "tiny", ["batch", 3, 32, 32], nodes, constants, labels, manifest)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="folder to write the packages `colors` and `tiny` to")
    folder = parser.parse_args().folder
    colors(folder / "colors")
    tiny(folder / "tiny")


if __name__ == "__main__":
    main()
