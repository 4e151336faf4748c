#!/usr/bin/env python3
"""Makes the models and inputs of `make bench-server`: the same on every machine, nothing downloaded.

Weights are random from a fixed seed: they say nothing, but take the time that trained ones take. Each folder is
a model package (`model.onnx`, with a dynamic batch dimension) with `inputs.f32`: samples one after the other,
little-endian float32, which differ so much that a mix-up of answers is seen.
"""

import argparse
import json
import shutil
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process
from PIL import Image

OPSET, IR_VERSION = 17, 8
CLASSES = 1000


class Graph:
    """A chain of layers, from `images` to `scores`."""

    def __init__(self, name: str, shape: list, seed: int):
        self.name, self.shape = name, shape
        self.random = np.random.default_rng(seed)
        self.nodes, self.constants = [], []

    def add(self, operator: str, inputs: list[str], output: str = "", **attributes) -> str:
        output = output or f"{operator.lower()}{len(self.nodes)}"
        self.nodes.append(helper.make_node(operator, inputs, [output], name=output, **attributes))
        return output

    def weight(self, *shape: int, fan_in: int) -> str:
        """He initialisation: what goes through keeps its size."""
        return self.constant(self.random.normal(0, np.sqrt(2 / fan_in), shape))

    def constant(self, values: np.ndarray) -> str:
        name = f"constant{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.asarray(values, np.float32), name))
        return name

    def convolution(
        self, source: str, channels: tuple[int, int], size: int = 3, stride: int = 1, gain: float = 1
    ) -> str:
        """With a bias, as one has whose batch normalisation is folded in."""
        fan_in, out = channels
        weight = self.weight(out, fan_in, size, size, fan_in=fan_in * size * size / gain**2)
        bias = self.constant(self.random.normal(0, 0.1, out))
        pad = size // 2
        return self.add(
            "Conv", [source, weight, bias], kernel_shape=[size, size], strides=[stride, stride], pads=[pad] * 4
        )

    def relu(self, source: str) -> str:
        return self.add("Relu", [source])

    def dense(self, source: str, fan_in: int, out: int, output: str = "") -> str:
        # Scores close to each other, so that softmax keeps all of them.
        weight = self.weight(fan_in, out, fan_in=fan_in * (16 if output else 1))
        return self.add("Gemm", [source, weight, self.constant(np.zeros(out))], output)

    def save(self, folder: Path, outputs: int) -> None:
        graph = helper.make_graph(
            self.nodes,
            self.name,
            [helper.make_tensor_value_info("images", TensorProto.FLOAT, self.shape)],
            [helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["batch", outputs])],
            self.constants,
        )
        model = helper.make_model(
            graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION, producer_name="models.py"
        )
        onnx.checker.check_model(model, full_check=True)
        folder.mkdir(parents=True)
        onnx.save(model, folder / "model.onnx")


def resnet8(folder: Path) -> None:
    """The ResNet-8 of MLPerf Tiny (image classification), 78,000 weights."""
    graph = Graph("resnet8", ["batch", 3, 32, 32], seed=8)
    last = graph.relu(graph.convolution("images", (3, 16)))
    width = 16
    for out, stride in [(16, 1), (32, 2), (64, 2)]:
        inner = graph.relu(graph.convolution(last, (width, out), stride=stride))
        inner = graph.convolution(inner, (out, out))
        if stride > 1:
            last = graph.convolution(last, (width, out), size=1, stride=stride)
        last = graph.relu(graph.add("Add", [inner, last]))
        width = out
    pooled = graph.add("Flatten", [graph.add("GlobalAveragePool", [last])], axis=1)
    graph.add("Softmax", [graph.dense(pooled, width, 10, "logits")], "scores", axis=1)
    graph.save(folder, 10)
    random_inputs(folder, 8, [3, 32, 32])


def resnet50(folder: Path) -> None:
    """A network with the layers of ResNet-50, 25.5 million weights (102 MB)."""
    graph = Graph("resnet50", ["batch", 3, 224, 224], seed=50)
    last = graph.relu(graph.convolution("images", (3, 64), size=7, stride=2))
    last = graph.add("MaxPool", [last], kernel_shape=[3, 3], strides=[2, 2], pads=[1] * 4)
    width = 64
    for inner, blocks in [(64, 3), (128, 4), (256, 6), (512, 3)]:
        for block in range(blocks):
            stride = 2 if block == 0 and inner > 64 else 1
            last, width = bottleneck(graph, last, (width, inner), stride), 4 * inner
    pooled = graph.add("Flatten", [graph.add("GlobalAveragePool", [last])], axis=1)
    graph.add("Softmax", [graph.dense(pooled, width, CLASSES, "logits")], "scores", axis=1)
    graph.save(folder, CLASSES)
    random_inputs(folder, 4, [3, 224, 224])


def bottleneck(graph: Graph, source: str, widths: tuple[int, int], stride: int) -> str:
    """A block of ResNet-50, which adds what its three convolutions compute to its input."""
    width, inner = widths
    last = graph.relu(graph.convolution(source, (width, inner), size=1))
    last = graph.relu(graph.convolution(last, (inner, inner), stride=stride))
    # Little is added, or the values would double in each block.
    last = graph.convolution(last, (inner, 4 * inner), size=1, gain=0.3)
    if width != 4 * inner:
        source = graph.convolution(source, (width, 4 * inner), size=1, stride=stride)
    return graph.relu(graph.add("Add", [last, source]))


def identity(folder: Path) -> None:
    """What goes in comes out: 12 KB, the size of a 32×32 image. What is measured is the server alone."""
    graph = Graph("identity", ["batch", 3072], seed=0)
    graph.add("Identity", ["images"], "scores")
    graph.save(folder, 3072)
    random_inputs(folder, 16, [3072])


def any_size(folder: Path) -> None:
    """Images of any size: with few operations for each pixel, so that fresh memory costs as much as it ever may."""
    graph = Graph("any-size", ["batch", 3, "height", "width"], seed=5)
    last, width = "images", 3
    for out, stride in [(16, 2), (24, 1), (32, 2), (32, 1)]:
        last = graph.relu(graph.convolution(last, (width, out), size=3 if width == 3 else 1, stride=stride))
        width = out
    last = graph.add("Flatten", [graph.add("GlobalAveragePool", [last])], axis=1)
    graph.add("Softmax", [graph.dense(last, width, 10, "logits")], "scores", axis=1)
    graph.save(folder, 10)


def heavy(folder: Path) -> None:
    """A VGG-like network with 59 million weights (236 MB), most of them in its dense layers."""
    graph = Graph("heavy", ["batch", 3, 64, 64], seed=60)
    last, width = "images", 3
    for out in [64, 128, 256, 512]:
        last = graph.relu(graph.convolution(last, (width, out)))
        last = graph.relu(graph.convolution(last, (out, out)))
        last = graph.add("MaxPool", [last], kernel_shape=[2, 2], strides=[2, 2])
        width = out
    last = graph.add("Flatten", [last], axis=1)
    last = graph.relu(graph.dense(last, 512 * 4 * 4, 4096))
    last = graph.relu(graph.dense(last, 4096, 4096))
    graph.add("Softmax", [graph.dense(last, 4096, CLASSES, "logits")], "scores", axis=1)
    graph.save(folder, CLASSES)
    random_inputs(folder, 2, [3, 64, 64])


def random_inputs(folder: Path, count: int, shape: list[int]) -> None:
    """Noise in which each sample's channels have an offset of their own: a network averages noise alone away."""
    random = np.random.default_rng(count)
    offsets = random.normal(0, 2, [count, shape[0], *[1] * (len(shape) - 1)])
    (random.normal(0, 1, [count, *shape]) + offsets).astype("<f4").tofile(folder / "inputs.f32")


def photographs(examples: Path) -> np.ndarray:
    """EfficientNet-Lite0's inputs: the example photographs as Pillow prepares them, and these
    with their colours exchanged and upside down."""
    tensors = sorted((examples / "reference" / "efficientnet-lite0").glob("*.tensor"))
    images = [np.fromfile(path, "<f4").reshape(3, 224, 224) for path in tensors]
    return np.stack(images + [image[[2, 0, 1], ::-1] for image in images])


class Photographs(CalibrationDataReader):
    def __init__(self, images: np.ndarray):
        self.feeds = iter([{"images": image[np.newaxis]} for image in images])

    def get_next(self) -> dict | None:
        return next(self.feeds, None)


def efficientnet(examples: Path, folder: Path) -> None:
    shutil.copytree(examples / "efficientnet-lite0", folder)
    photographs(examples).astype("<f4").tofile(folder / "inputs.f32")


def quantised(examples: Path, folder: Path) -> None:
    """EfficientNet-Lite0 with 8-bit activations (unsigned) and weights (signed, one scale per channel), QDQ."""
    folder.mkdir(parents=True)
    images, prepared = photographs(examples), folder / "prepared.onnx"
    quant_pre_process(examples / "efficientnet-lite0" / "model.onnx", prepared, skip_symbolic_shape=True)
    quantize_static(
        prepared,
        folder / "model.onnx",
        Photographs(images),
        quant_format=QuantFormat.QDQ,
        activation_type=QuantType.QUInt8,
        weight_type=QuantType.QInt8,
        per_channel=True,
    )
    prepared.unlink()
    images.astype("<f4").tofile(folder / "inputs.f32")


def jpegs(examples: Path, folder: Path) -> None:
    """The photographs as JPEG files of 640×480 pixels, and which classes Pillow and Python's ONNX Runtime see."""
    folder.mkdir(parents=True)
    session = onnxruntime.InferenceSession(
        examples / "efficientnet-lite0" / "model.onnx", providers=["CPUExecutionProvider"]
    )
    expected = {}
    for path in sorted((examples / "photos").iterdir()):
        Image.open(path).convert("RGB").resize((640, 480), Image.Resampling.LANCZOS).save(
            folder / path.name, quality=90, subsampling="4:2:0"
        )
        # As examples/reference.py: shortest edge 256, bicubic, crop 224.
        resized = Image.open(folder / path.name).resize((341, 256), Image.Resampling.BICUBIC)
        pixels = np.asarray(resized.crop((58, 16, 282, 240)), np.float32).transpose(2, 0, 1)
        scores = session.run(None, {"images": (pixels[np.newaxis] - 127) / 128})[0][0]
        expected[path.name] = int(scores.argmax())
    (folder / "expected.json").write_text(json.dumps(expected), encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("examples", type=Path, help="what examples/prepare made")
    parser.add_argument("folder", type=Path, help="where the models go")
    arguments = parser.parse_args()
    examples, folder = arguments.examples, arguments.folder
    resnet8(folder / "resnet8")
    resnet50(folder / "resnet50")
    identity(folder / "identity")
    heavy(folder / "heavy")
    any_size(folder / "any-size")
    efficientnet(examples, folder / "efficientnet-lite0")
    quantised(examples, folder / "efficientnet-lite0-int8")
    jpegs(examples, folder / "jpegs")


if __name__ == "__main__":
    main()
