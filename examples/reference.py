#!/usr/bin/env python3
"""Says what the example models should answer, with Pillow, numpy and Python's ONNX Runtime.

For each model package and photograph it writes NAME.tensor (the model's input, raw little-endian float32)
and NAME.probabilities (its answer, the same); for each photograph NAME.png (its pixels as Pillow decodes
them). The server's tests compare theirs with these.
"""

import argparse
import sys
from pathlib import Path

import numpy as np
import onnxruntime
from PIL import Image


def shortest_edge(image: Image.Image, size: int, resample: Image.Resampling) -> Image.Image:
    """Resizes so that the shorter edge has `size` pixels, as torchvision's Resize does."""
    width, height = image.size
    scaled = (size, size * height // width) if width <= height else (size * width // height, size)
    return image.resize(scaled, resample)


def centre_crop(image: Image.Image, size: int) -> Image.Image:
    """Cuts a square out of the middle, as torchvision's CenterCrop does."""
    left, top = round((image.width - size) / 2), round((image.height - size) / 2)
    return image.crop((left, top, left + size, top + size))


def pixels(image: Image.Image) -> np.ndarray:
    return np.asarray(image, np.float32).transpose(2, 0, 1)[np.newaxis]


def efficientnet_lite0(image: Image.Image) -> np.ndarray:
    image = centre_crop(shortest_edge(image, 256, Image.Resampling.BICUBIC), 224)
    return (pixels(image) - 127) / 128


def colors(image: Image.Image) -> np.ndarray:
    return pixels(image.resize((16, 16), Image.Resampling.BILINEAR)) / 255


def tiny(image: Image.Image) -> np.ndarray:
    image = centre_crop(shortest_edge(image, 32, Image.Resampling.BILINEAR), 32)
    return (pixels(image) - 127.5) / 127.5


def softmax(scores: np.ndarray) -> np.ndarray:
    powers = np.exp(scores - scores.max())
    return powers / powers.sum()


# How a package's images are prepared, and what makes probabilities of its output.
PIPELINES = {
    "efficientnet-lite0": (efficientnet_lite0, lambda probabilities: probabilities),
    "colors": (colors, softmax),
    "tiny": (tiny, softmax),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("examples", type=Path, help="folder with the packages and photos/")
    examples = parser.parse_args().examples
    photographs = sorted((examples / "photos").iterdir())
    (examples / "reference").mkdir(exist_ok=True)
    for photograph in photographs:
        Image.open(photograph).convert("RGB").save(examples / "reference" / f"{photograph.stem}.png")
    for package, (prepare, activate) in PIPELINES.items():
        session = onnxruntime.InferenceSession(examples / package / "model.onnx", providers=["CPUExecutionProvider"])
        folder = examples / "reference" / package
        folder.mkdir(parents=True, exist_ok=True)
        for photograph in photographs:
            tensor = prepare(Image.open(photograph).convert("RGB")).astype("<f4")
            probabilities = activate(session.run(None, {"images": tensor})[0][0]).astype("<f4")
            (folder / f"{photograph.stem}.tensor").write_bytes(tensor.tobytes())
            (folder / f"{photograph.stem}.probabilities").write_bytes(probabilities.tobytes())
            best = int(probabilities.argmax())
            print(f"reference: {package}: {photograph.name}: class {best}, {probabilities[best]:.3f}", file=sys.stderr)


if __name__ == "__main__":
    main()
